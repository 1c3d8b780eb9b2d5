"""Zakamouline: a band around the delta at a modified vol, both fitted to the exact optimum of one vanilla option.

Source: Zakamouline 2006, "European option pricing and hedging with both fixed and proportional transaction costs",
Journal of Economic Dynamics and Control 30; the constants are those of its approximation for proportional costs. Fitted
for one vanilla with g S near 100; weaker on books whose gamma changes sign, where `exact_band` is meant.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from bot.core.ports import Band, BandInput, LegInput
from bot.core.surroundings import Surroundings, least_size
from bot.domain.units import Nanos
from strategies.policies.bands import LEAST_VOL, SHORTEST, TINY, To, around, edge_or_centre, positive
from strategies.policies.modified_vol import delta_at, zakamouline_vol

SLIP: Final = 1e-9
"""The share by which the bounds of a vol are wider than computed."""


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

    def vols_within(self, x: LegInput, around: Surroundings) -> Any:
        """Each leg's modified vol now, its least and its greatest in the surroundings. Shape: (legs, 3).

        |k| rises with |gamma| and price; with tau it falls as tau^-0.02 and moves as e^(-r tau / 4): each end is taken
        where it is least or greatest.
        """
        low, high = around.gamma
        late = np.asarray(x.tau, dtype=np.float64)
        soon = late - around.years
        if not np.all(soon > SHORTEST):
            return None
        rates = np.minimum(x.rate * soon, x.rate * late), np.maximum(x.rate * soon, x.rate * late)

        def vol_at(gamma: float, *, tau: Any, discounted: Any, spot: float) -> Any:
            rate = discounted / tau  # so that e^(-rate tau) is the end wanted, whatever tau is
            return zakamouline_vol(
                x.vol, x.cost, tau=tau, rate=rate, spot=spot, gamma=gamma, risk_aversion=self.risk_aversion
            )

        def least_moved(gamma: float) -> Any:
            return vol_at(gamma, tau=late, discounted=rates[1], spot=around.spot[0])

        def most_moved(gamma: float) -> Any:
            return vol_at(gamma, tau=soon, discounted=rates[0], spot=around.spot[1])

        now = vol_at(float(x.net_gamma), tau=late, discounted=x.rate * late, spot=float(x.spot))
        least = most_moved(high) if high > 0.0 else least_moved(high)
        most = most_moved(low) if low < 0.0 else least_moved(low)
        return np.stack((now, np.minimum(least, now) * (1.0 - SLIP), np.maximum(most, now) * (1.0 + SLIP)), axis=1)

    def least_width(self, x: BandInput, around: Surroundings) -> float:
        """H1 + H0, each factor at the end of the surroundings at which it is least."""
        T = max(around.tau[0], SHORTEST), max(around.tau[1], SHORTEST)
        v = max(around.vol[1], LEAST_VOL)
        most = max(x.rate * T[0], x.rate * T[1])
        gamma = least_size(around.gamma)
        H1 = 1.12 * x.cost**0.31 * T[0] ** 0.05 * (math.exp(-most) / v) ** 0.25 * math.sqrt(gamma / self.risk_aversion)
        H0 = x.cost / (self.risk_aversion * max(around.spot[1], TINY) * v * v * T[1])
        return float(self.scale * (H1 + H0))

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
