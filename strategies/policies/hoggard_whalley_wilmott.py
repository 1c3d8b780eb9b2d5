"""Hoggard-Whalley-Wilmott: Leland's hedge for books: the sign of the book's net gamma decides for all its legs.

Source: Hoggard, Whalley and Wilmott 1994, "Hedging option portfolios in the presence of transaction costs", Advances in
Futures and Options Research 7. Their equation is solved here to first order: the sign is that of the net gamma at the
plain vol, in the state the decision is made in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bot.core.ports import Band, BandInput, LegInput
from bot.domain.units import NS_PER_YEAR, Nanos, span
from strategies.policies.bands import is_due, length_of, point_where
from strategies.policies.modified_vol import delta_at, leland_vol


class HoggardWhalleyWilmott:
    """Trades each `interval` to the delta at a vol that is up where the book is short gamma and down where it is long.

    Implements `ShapesDelta`. Where the net gamma is exactly zero the vol is the plain one.
    """

    needs_ticks = False
    needs_terms = False

    def __init__(self, *, interval: str | Nanos) -> None:
        self._length = length_of("hoggard_whalley_wilmott: interval", interval)
        self.interval: Nanos | None = self._length
        self.name = f"Hoggard-Whalley-Wilmott every {span(self._length)}"

    def leg_deltas(self, x: LegInput) -> Any:
        """Black's delta at the modified vol of each leg. Shape: as `x.delta`."""
        sign = -np.sign(x.net_gamma)
        return delta_at(x, leland_vol(x.vol, x.cost, dt=self._length / NS_PER_YEAR, sign=sign))

    def band(self, x: BandInput) -> Band:
        """A point when due, the whole line between. Shape: as `x.want`."""
        return point_where(is_due(x, self._length), x.want)
