"""Move band: hedge exactly when the price has moved far enough since the last hedge, however long that took."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from bot.core.ports import Band, BandInput
from bot.core.surroundings import Interval, Surroundings
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_YEAR, Nanos, span
from strategies.policies.bands import INF, length_of, point_where, positive

SLIP: Final = 1e-9
"""The share of a move by which a promise ends before it."""
MAY_MOVE: Final = 0.02
"""The share of it that is left for the book's vol to move."""


class MoveBand:
    """Trades to the exact hedge when the price has moved by `pct` per cent, or by `deviations` standard deviations.

    A deviation is vol sqrt(per) of the price at the last hedge: with `per` one day, the move of one ordinary day. Source:
    Whalley and Wilmott 1993 (hedging in moves of the asset); practice.
    """

    interval: Nanos | None = None
    needs_ticks = True

    def __init__(
        self, *, pct: float | None = None, deviations: float | None = None, per: str | Nanos = NS_PER_DAY
    ) -> None:
        if (pct is None) == (deviations is None):
            raise ValueError(f"move_band: expected pct or deviations, found pct={pct!r}, deviations={deviations!r}")
        self._pct = None if pct is None else positive("move_band: pct", pct) / 100.0
        self._deviations = None if deviations is None else positive("move_band: deviations", deviations)
        length = length_of("move_band: per", per)
        self._root = float(np.sqrt(length / NS_PER_YEAR))
        self.needs_terms = deviations is not None
        self.name = f"move of {pct:g}%" if pct is not None else f"move of {deviations:g} deviations of {span(length)}"

    def threshold(self, vol: Any) -> Any:
        """The fraction of the last hedge's price at which a hedge is due. Shape: as vol."""
        return self._pct if self._deviations is None else self._deviations * vol * self._root

    def moved(self, spot: Any, last_spot: Any, vol: Any) -> Any:
        """True where the price has moved by the threshold or more since the last hedge. Shape: all broadcast."""
        return np.abs(np.asarray(spot) - last_spot) >= self.threshold(vol) * np.abs(last_spot)

    def spots(self, x: BandInput) -> Interval:
        """The prices between which it is likely to do nothing: near the threshold at the vol of now."""
        near = 1.0 - (SLIP if self._deviations is None else MAY_MOVE)
        far = float(self.threshold(x.vol)) * abs(x.last_hedge_spot) * near
        return x.last_hedge_spot - far, x.last_hedge_spot + far

    def least_width(self, x: BandInput, around: Surroundings) -> float:
        """inf where the price cannot have moved by the threshold, whatever the net delta; 0 where it can."""
        if x.last_hedge_ts == NEVER or math.isnan(x.last_hedge_spot):
            return 0.0
        far = float(self.threshold(around.vol[0])) * abs(x.last_hedge_spot) * (1.0 - 0.5 * SLIP)
        moved = max(around.spot[1] - x.last_hedge_spot, x.last_hedge_spot - around.spot[0])
        return INF if moved < far else 0.0

    def band(self, x: BandInput) -> Band:
        """A point when never hedged or when the price has moved, the whole line otherwise. Shape: as `x.want`."""
        never = (np.asarray(x.last_hedge_ts) == NEVER) | np.isnan(x.last_hedge_spot)
        return point_where(never | self.moved(x.spot, x.last_hedge_spot, x.vol), x.want)
