"""Zakamouline: a band around the delta at a modified vol, both fitted to the exact optimum of one vanilla option.

Source: Zakamouline 2006, "European option pricing and hedging with both fixed and proportional transaction costs",
Journal of Economic Dynamics and Control 30; the constants are those of its approximation for proportional costs. Fitted
for one vanilla with g S near 100; weaker on books whose gamma changes sign, where `exact_band` is meant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bot.core.ports import Band, BandInput, LegInput
from bot.domain.units import Nanos
from strategies.policies.bands import LEAST_VOL, SHORTEST, TINY, To, around, edge_or_centre, positive
from strategies.policies.modified_vol import delta_at, zakamouline_vol


def zakamouline_widths(
    *, spot: Any, gamma: Any, tau: Any, vol: Any, rate: Any, cost: Any, risk_aversion: float
) -> tuple[Any, Any]:
    """(H1, H0): the parts of the half width in underlying units that come from gamma and from the stock itself.

    H1 = 1.12 cost^0.31 tau^0.05 (e^(-r tau)/vol)^0.25 (|gamma|/g)^0.5, H0 = cost / (g S vol^2 tau). `gamma` is the
    position's at the plain vol. H0 is what one would tolerate of stock alone to the horizon, so it grows as 1/tau.
    Shape: all broadcast.
    """
    T, v = np.maximum(tau, SHORTEST), np.maximum(vol, LEAST_VOL)
    S = np.maximum(np.abs(spot), TINY)
    discount = np.exp(-rate * T)
    H1 = 1.12 * np.power(cost, 0.31) * T**0.05 * (discount / v) ** 0.25 * np.sqrt(np.abs(gamma) / risk_aversion)
    H0 = cost / (risk_aversion * S * v * v * T)
    return H1, H0


class Zakamouline:
    """Lets the hedge drift by H1 + H0 around the delta at the modified vol, then trades to `to`. Implements `ShapesDelta`.

    The vol is modified by the book's net gamma: up where it is short, down where it is long, the plain one between.
    """

    interval: Nanos | None = None
    needs_ticks = True
    needs_last = False
    needs_terms = True
    bounded = True

    def __init__(self, *, risk_aversion: float, scale: float = 1.0, to: To = "edge") -> None:
        self.risk_aversion = positive("zakamouline: risk_aversion", risk_aversion)
        self.scale = positive("zakamouline: scale", scale)
        self.to = edge_or_centre("zakamouline: to", to)
        self.name = f"Zakamouline {risk_aversion:g}" + ("" if to == "edge" else " to centre")
        self.name += "" if scale == 1.0 else f" x {scale:g}"

    def leg_deltas(self, x: LegInput) -> Any:
        """Black's delta at the modified vol of each leg. Shape: as `x.delta`."""
        vol = zakamouline_vol(
            x.vol,
            x.cost,
            tau=x.tau,
            rate=x.rate,
            spot=x.spot,
            gamma=x.net_gamma,
            risk_aversion=self.risk_aversion,
        )
        return delta_at(x, vol)

    def half_width(self, x: BandInput) -> Any:
        """The half width in underlying units. Shape: as the input."""
        H1, H0 = zakamouline_widths(
            spot=x.spot,
            gamma=x.gamma,
            tau=x.tau,
            vol=x.vol,
            rate=x.rate,
            cost=x.cost,
            risk_aversion=self.risk_aversion,
        )
        return self.scale * (H1 + H0)

    def band(self, x: BandInput) -> Band:
        """want (at the modified vol) -+ the half width in hedge contracts. Shape: as `x.want`."""
        return around(x, self.half_width(x), self.to)
