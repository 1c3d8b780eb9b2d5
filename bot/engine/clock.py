"""A model clock says how much time counts between two instants; law: a year of it is NS_PER_YEAR counts, whatever ticks.

ACT/365 counts every nanosecond. The trading clock counts those of the underlying's sessions only, scaled so that over the
calendar years of its table as many pass as in ACT/365: an option then decays while its market trades, and not overnight.
Rates, theta and charm are per year of the same clock.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bot.domain.calendar import Sessions
from bot.domain.units import NS_PER_YEAR, Nanos


class ModelClock(Protocol):
    """Counts of model time since an origin of its own."""

    def at(self, ts: Nanos) -> int:
        """The count at an instant."""

    def of(self, ts: NDArray[np.int64] | Nanos) -> NDArray[np.int64]:
        """The counts at instants, equal to `at` of each. Shape: any."""


class Act365:
    """Every nanosecond counts. Implements `ModelClock`."""

    def at(self, ts: Nanos) -> int:
        """The instant itself."""
        return ts

    def of(self, ts: NDArray[np.int64] | Nanos) -> NDArray[np.int64]:
        """The instants themselves. Shape: any."""
        return np.asarray(ts, dtype=np.int64)


class TradingClock:
    """Nanoseconds of trading, halts left out, scaled to a year. Implements `ModelClock`.

    Before the table's first session nothing counts; an instant outside its dates is refused by `Sessions`, since the table
    is asked for at both ends when the clock is made.
    """

    def __init__(self, sessions: Sessions) -> None:
        starts, ends = _stretches(sessions)
        self._starts = starts
        self._ends = ends
        self._before = np.concatenate(([0], np.cumsum(ends - starts)[:-1]))
        self._scale = NS_PER_YEAR / sessions.trading_ns_per_year

    def at(self, ts: Nanos) -> int:
        """The count at an instant."""
        return int(self.of(ts))

    def of(self, ts: NDArray[np.int64] | Nanos) -> NDArray[np.int64]:
        """The counts at instants. Shape: any."""
        when = np.asarray(ts, dtype=np.int64)
        row = np.searchsorted(self._starts, when, side="right") - 1
        at = np.maximum(row, 0)
        traded = self._before[at] + np.minimum(when, self._ends[at]) - self._starts[at]
        counted: NDArray[np.int64] = np.rint(np.where(row < 0, 0, traded) * self._scale).astype(np.int64)
        return counted


def _stretches(sessions: Sessions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends of uninterrupted trading: the sessions, cut at their halts."""
    starts = np.sort(np.concatenate([sessions.opens, sessions.halts[:, 1]]))
    ends = np.sort(np.concatenate([sessions.closes, sessions.halts[:, 0]]))
    return starts, ends
