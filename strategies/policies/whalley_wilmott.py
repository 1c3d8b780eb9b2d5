"""Whalley-Wilmott: a band around the delta whose width balances proportional cost against risk, to leading order in cost.

Source: Whalley and Wilmott 1997, "An asymptotic analysis of an optimal hedging model for option pricing with
transaction costs", Mathematical Finance 7. To the edge under proportional cost, to the centre under a fixed ticket fee.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bot.core.ports import Band, BandInput
from bot.core.surroundings import Surroundings, least_size
from bot.domain.units import Nanos
from strategies.policies.bands import To, around, edge_or_centre, positive


def whalley_wilmott_width(*, spot: Any, gamma: Any, tau: Any, rate: Any, cost: Any, risk_aversion: float) -> Any:
    """h = (3/2 e^(-r tau) cost S gamma^2 / g)^(1/3), the half width in underlying units.

    `gamma` is the position's in underlying units, `cost` one way as a fraction of notional, g = `risk_aversion` absolute
    in 1/currency. Shape: all broadcast.

    >>> round(
    ...     float(whalley_wilmott_width(spot=100.0, gamma=0.0398444, tau=0.25, rate=0.0, cost=0.01, risk_aversion=1.0)),
    ...     4,
    ... )
    0.1335
    """
    return np.cbrt(1.5 * np.exp(-rate * tau) * np.abs(spot) * cost * gamma * gamma / risk_aversion)


class WhalleyWilmott:
    """Lets the hedge drift by `scale` x h either way, then trades to `to`.

    h grows as tau^(-1/3) near expiry at the money; the hedger cuts the band to the book's reach (`bounded`).
    """

    interval: Nanos | None = None
    needs_ticks = True
    needs_last = False
    needs_terms = True
    bounded = True

    def __init__(self, *, risk_aversion: float, scale: float = 1.0, to: To = "edge") -> None:
        self.risk_aversion = positive("whalley_wilmott: risk_aversion", risk_aversion)
        self.scale = positive("whalley_wilmott: scale", scale)
        self.to = edge_or_centre("whalley_wilmott: to", to)
        self.name = f"Whalley-Wilmott {risk_aversion:g} to {to}" + ("" if scale == 1.0 else f" x {scale:g}")

    def half_width(self, x: BandInput) -> Any:
        """The half width in underlying units. Shape: as the input."""
        return self.scale * whalley_wilmott_width(
            spot=x.spot, gamma=x.gamma, tau=x.tau, rate=x.rate, cost=x.cost, risk_aversion=self.risk_aversion
        )

    def least_width(self, x: BandInput, around: Surroundings) -> float:
        """The half width at the least price and |gamma| of the surroundings, and at the end of tau that discounts more."""
        gamma = least_size(around.gamma)
        most = max(x.rate * around.tau[0], x.rate * around.tau[1])
        cube = 1.5 * math.exp(-most) * around.spot[0] * x.cost * gamma * gamma / self.risk_aversion
        return float(self.scale * np.cbrt(cube))

    def band(self, x: BandInput) -> Band:
        """want -+ the half width in hedge contracts. Shape: as `x.want`."""
        return around(x, self.half_width(x), self.to)
