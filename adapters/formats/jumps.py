"""A jump is an overnight move no market makes by itself; law: it is seen from prices up to its instant only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot.core.events import Corporate
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import NS_PER_MINUTE, Nanos

OVERNIGHT: Final = 180 * NS_PER_MINUTE
LARGE: Final = 0.25
NARROW: Final = 0.05
"""A mid is believed when the spread is at most this share of it."""


class JumpWatch:
    """Remembers the last believable price of shares that have no reference data and reports a move of more than
    25% over three hours or more without a price as an unknown corporate event."""

    def __init__(self, watched: dict[int, str]) -> None:
        self._watched = watched
        self._last: dict[int, tuple[Nanos, float]] = {}

    def look(self, quotes: Sequence[QuoteBatch], trades: Sequence[TradeBatch]) -> list[Corporate]:
        """The jumps in the next batches, each at the instant of the first price after it."""
        found: list[Corporate] = []
        for column, name in self._watched.items():
            ts, price = _believable(column, quotes, trades)
            found += self._jumps(column, name, ts, price)
        return found

    def _jumps(self, column: int, name: str, ts: NDArray[np.int64], price: NDArray[np.float64]) -> list[Corporate]:
        if not len(ts):
            return []
        known = self._last.get(column)
        if known is not None:
            ts = np.concatenate([np.array([known[0]], np.int64), ts])
            price = np.concatenate([np.array([known[1]]), price])
        self._last[column] = (int(ts[-1]), float(price[-1]))
        move = price[1:] / price[:-1] - 1.0
        rows = np.flatnonzero((np.diff(ts) >= OVERNIGHT) & (np.abs(move) > LARGE))
        return [
            Corporate(
                ts_recv=int(ts[row + 1]),
                what="unknown",
                instrument=name,
                adjusted=False,
                text=f"{name} moved {move[row]:+.1%} overnight, {price[row]:g} to {price[row + 1]:g}, and there is no "
                f"reference data that says why",
            )
            for row in rows.tolist()
        ]


def _believable(
    column: int, quotes: Sequence[QuoteBatch], trades: Sequence[TradeBatch]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    times: list[NDArray[np.int64]] = []
    prices: list[NDArray[np.float64]] = []
    for batch in quotes:
        mid = (batch.bid + batch.ask) / 2.0
        rows = (batch.instrument == column) & (batch.ask - batch.bid <= NARROW * mid)
        times.append(batch.ts_recv[rows])
        prices.append(mid[rows])
    for prints in trades:
        rows = prints.instrument == column
        times.append(prints.ts_recv[rows])
        prices.append(prints.price[rows])
    if not times:
        return np.empty(0, np.int64), np.empty(0)
    ts = np.concatenate(times)
    order = np.argsort(ts, kind="stable")
    return ts[order], np.concatenate(prices)[order]
