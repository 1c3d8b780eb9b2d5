"""Fixed interval: hedge exactly, every so often, whatever the market does in between."""

from __future__ import annotations

import numpy as np

from bot.core.ports import Band, BandInput
from bot.domain.units import NEVER, Nanos, parse_span, span
from strategies.policies.bands import whole_line

INF = np.inf


class FixedInterval:
    """Trades to the exact hedge at start + k x interval.

    `interval` is a length of time such as "15m" or nanoseconds; `last_hedge_ts` is the last instant the rule was due.
    """

    needs_ticks = False
    needs_terms = False

    def __init__(self, *, interval: str | Nanos) -> None:
        length = parse_span(interval) if isinstance(interval, str) else interval
        if length <= 0:
            raise ValueError(f"fixed_interval: interval: expected longer than zero, found {interval!r}")
        self.interval: Nanos | None = length
        self._length = length
        self.name = f"every {span(length)}"

    def band(self, x: BandInput) -> Band:
        """A point when due, the whole line between. Shape: as `x.want`."""
        due = (np.asarray(x.last_hedge_ts) == NEVER) | (np.asarray(x.now) - x.last_hedge_ts >= self._length)
        if due.all():
            return Band(x.want, x.want)
        if not due.any():
            return whole_line(x.want)
        return Band(np.where(due, x.want, -INF), np.where(due, x.want, INF))
