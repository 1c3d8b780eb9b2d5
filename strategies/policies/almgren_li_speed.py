"""Almgren-Li: under temporary impact trade at a speed in proportion to the mis-hedge, not in jumps.

Minimises the expectation of impact * rate^2 + g sigma^2 S^2 z^2 / 2 over the time left, z the mis-hedge: the rate is
kappa tanh(kappa tau) z with kappa = sqrt(g sigma^2 S^2 / (2 impact)). Source: Almgren and Li 2016, "Option hedging with
smooth market impact", Market Microstructure and Liquidity 2; here for a quadratic risk with vol and price held over the
time left, where the solution is closed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bot.core.ports import Band, BandInput
from bot.domain.units import NS_PER_YEAR, Nanos, Years, span
from strategies.policies.bands import SHORTEST, is_due, length_of, point_where, positive


def almgren_li_kappa(*, spot: Any, vol: Any, impact: float, risk_aversion: float) -> Any:
    """kappa = sqrt(g vol^2 S^2 / (2 impact)) per year. Shape: spot and vol broadcast."""
    return np.abs(spot) * vol * np.sqrt(risk_aversion / (2.0 * impact))


def share_of_gap(kappa: Any, *, tau: Any, dt: Years) -> Any:
    """The share of the mis-hedge traded over the next `dt` years at the optimal speed, `tau` years before the horizon.

    1 - cosh(kappa (tau - dt)) / cosh(kappa tau): the optimal speed integrated over the interval, so that it lies in
    [0, 1] however slow the beat. Shape: kappa and tau broadcast.
    """
    T = np.maximum(tau, SHORTEST)
    step = np.minimum(dt, T)
    left = (np.exp(-kappa * step) + np.exp(-kappa * (2.0 * T - step))) / (1.0 + np.exp(-2.0 * kappa * T))
    return 1.0 - left


class AlmgrenLiSpeed:
    """Each `interval` trades the share of the mis-hedge that the optimal speed would cover until the next.

    `impact` is the price concession, in currency per unit of the underlying, when trading one unit a year: one who pays p
    a unit for q units a day has p / (365 q). `horizon` is the time over which the mis-hedge matters; absent, the book's
    time to expiry.
    """

    needs_ticks = False
    needs_terms = True

    def __init__(
        self, *, impact: float, risk_aversion: float, interval: str | Nanos, horizon: str | Nanos | None = None
    ) -> None:
        self.impact = positive("almgren_li: impact", impact)
        self.risk_aversion = positive("almgren_li: risk_aversion", risk_aversion)
        self._length = length_of("almgren_li: interval", interval)
        self._horizon = None if horizon is None else length_of("almgren_li: horizon", horizon) / NS_PER_YEAR
        self.interval: Nanos | None = self._length
        self.name = f"Almgren-Li {risk_aversion:g}, impact {impact:g}, every {span(self._length)}"

    def band(self, x: BandInput) -> Band:
        """The point on the way from `held` to `want` when due, the whole line between. Shape: as `x.want`."""
        kappa = almgren_li_kappa(spot=x.spot, vol=x.vol, impact=self.impact, risk_aversion=self.risk_aversion)
        tau = x.tau if self._horizon is None else self._horizon
        share = share_of_gap(kappa, tau=tau, dt=self._length / NS_PER_YEAR)
        return point_where(is_due(x, self._length), x.held + share * (x.want - x.held))
