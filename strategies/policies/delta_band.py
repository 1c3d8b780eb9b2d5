"""Delta band: hedge when the net delta leaves a fixed band, to its edge or to its centre.

Under proportional cost the edge is right (Hodges and Neuberger 1989; Davis, Panas and Zariphopoulou 1993), under a fixed
ticket fee the centre.
"""

from __future__ import annotations

import math
from typing import Literal

from bot.core.ports import Band, BandInput
from bot.core.surroundings import Surroundings
from bot.domain.units import Nanos


class DeltaBand:
    """Lets the net delta drift by `half_width` units of the underlying either way, then trades to `to`."""

    interval: Nanos | None = None
    needs_ticks = True
    needs_last = False
    needs_terms = False

    def __init__(self, *, half_width: float, to: Literal["edge", "centre"] = "edge") -> None:
        if not (math.isfinite(half_width) and half_width >= 0.0):
            raise ValueError(f"delta_band: half_width: expected a finite number from 0, found {half_width!r}")
        if to not in {"edge", "centre"}:
            raise ValueError(f"delta_band: to: expected 'edge' or 'centre', found {to!r}")
        self.half_width = float(half_width)
        self.to = to
        self._sure = self.half_width * (1.0 - 1e-9)
        self.name = f"delta band {half_width:g} to {to}"

    def band(self, x: BandInput) -> Band:
        """want -+ half width in hedge contracts. Shape: as `x.want`."""
        h = self.half_width / abs(x.per_contract)
        return Band(x.want - h, x.want + h, x.want if self.to == "centre" else None)

    def stays(self, want: float, held: float, per_contract: float) -> bool:
        """True when |net delta| is inside the half width by more than rounding could take away."""
        return -self._sure < (want - held) * per_contract < self._sure

    @property
    def sure(self) -> float:
        """The net delta under which nothing is done, at any price and instant."""
        return self._sure

    def least_width(self, x: BandInput, around: Surroundings) -> float:
        """The half width, by more than rounding could take away: it stands still."""
        return self._sure

    def slack(self, want: float, held: float, per_contract: float) -> float:
        """The half width less what the net delta is off already, by more than rounding could take away."""
        return self._sure - abs((want - held) * per_contract)
