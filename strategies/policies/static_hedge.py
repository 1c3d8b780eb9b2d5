"""Static hedge: hedge once at inception, then hold to the end."""

from __future__ import annotations

import numpy as np

from bot.core.ports import Band, BandInput
from bot.domain.units import NEVER, Nanos
from strategies.policies.bands import whole_line

INF = np.inf


class StaticHedge:
    """Trades to the exact hedge when it has never hedged (`last_hedge_ts` is NEVER), else never."""

    name = "static"
    interval: Nanos | None = None
    needs_ticks = False
    needs_terms = False

    def band(self, x: BandInput) -> Band:
        """A point before the first hedge, the whole line after it. Shape: as `x.want`."""
        never = np.asarray(x.last_hedge_ts) == NEVER
        if never.all():
            return Band(x.want, x.want)
        if not never.any():
            return whole_line(x.want)
        return Band(np.where(never, x.want, -INF), np.where(never, x.want, INF))
