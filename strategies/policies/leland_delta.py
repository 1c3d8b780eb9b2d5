"""Leland delta: hedge at fixed intervals at the delta of a vol raised (short) or lowered (long) by the cost of doing so.

The hedge then costs on average what the modified vol adds to the price: V(modified) - V(vol). At a fixed interval it
helps; the error does not vanish as the interval shrinks with the cost fixed (Kabanov and Safarian 1997).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from bot.core.ports import Band, BandInput, LegInput
from bot.domain.units import NS_PER_YEAR, Nanos, span
from strategies.policies.bands import is_due, length_of, point_where
from strategies.policies.modified_vol import delta_at, leland_vol


class LelandDelta:
    """Trades each `interval` to the delta at Leland's vol. Implements `ShapesDelta`.

    `side` says whose costs raise the vol: "own" takes each leg by its sign, "short" and "long" take all legs as such.
    """

    needs_ticks = False
    needs_terms = False

    def __init__(self, *, interval: str | Nanos, side: Literal["own", "short", "long"] = "own") -> None:
        if side not in {"own", "short", "long"}:
            raise ValueError(f"leland: side: expected 'own', 'short' or 'long', found {side!r}")
        self._length = length_of("leland: interval", interval)
        self.interval: Nanos | None = self._length
        self.side = side
        self.name = f"Leland every {span(self._length)}" + ("" if side == "own" else f" ({side})")

    def leg_deltas(self, x: LegInput) -> Any:
        """Black's delta at Leland's vol of each leg. Shape: as `x.delta`."""
        sign = {"own": -np.sign(x.weight), "short": 1.0, "long": -1.0}[self.side]
        return delta_at(x, leland_vol(x.vol, x.cost, dt=self._length / NS_PER_YEAR, sign=sign))

    def band(self, x: BandInput) -> Band:
        """A point when due, the whole line between. Shape: as `x.want`."""
        return point_where(is_due(x, self._length), x.want)
