"""A modified vol is the one at which a leg is hedged so that the costs of re-hedging are paid for; law: no cost, no change.

A short option is dearer to hedge, so its vol goes up; a long one is worth less for the costs, so its vol goes down, and
never below zero: where a cost would eat all the variance, the delta is the payoff's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np

from bot.core.ports import LegInput
from bot.domain.units import Years
from strategies.policies.bands import LEAST_VOL, SHORTEST, TINY

ROOT_8_PI: Final = 1.5957691216057308
"""sqrt(8/pi)."""
DELTA: Final = 1
"""The row of the deltas in what the compiled Greeks write."""


def leland_vol(vol: Any, cost: Any, *, dt: Years, sign: Any = 1.0) -> Any:
    """vol sqrt(1 + sign sqrt(8/pi) cost / (vol sqrt(dt))), 0 where the bracket is negative.

    `cost` one way as a fraction of notional; `dt` years between hedges; `sign` +1 for a short option, -1 for a long
    one, 0 for neither. Source: Leland 1985, "Option pricing and replication with transactions costs", Journal of
    Finance 40; there with the round trip k = 2 cost. Shape: vol, cost and sign broadcast.

    >>> round(float(leland_vol(0.2, 0.0005, dt=1 / 252)), 5)
    0.20624
    """
    safe = np.maximum(vol, LEAST_VOL)
    number = ROOT_8_PI * cost / (safe * np.sqrt(dt))
    return safe * np.sqrt(np.maximum(1.0 + sign * number, 0.0))


def zakamouline_vol(vol: Any, cost: Any, *, tau: Any, rate: Any, spot: Any, gamma: Any, risk_aversion: float) -> Any:
    """vol sqrt(1 + sign(-gamma) |k|), |k| = 4.76 cost^0.78 tau^-0.02 (e^(-r tau)/vol)^0.25 (g S^2 |gamma|)^0.15.

    `gamma` is the position's, signed, in underlying units: short (negative) raises the vol, long lowers it, never below
    zero; where it crosses zero the vol is the plain one. Source: Zakamouline 2006, "European option pricing and hedging
    with both fixed and proportional transaction costs", Journal of Economic Dynamics and Control 30.
    Shape: all broadcast.

    >>> round(float(zakamouline_vol(0.2, 0.01, tau=0.25, rate=0.0, spot=100.0, gamma=-0.0398444, risk_aversion=1.0)), 4)
    0.2445
    """
    T, v = np.maximum(tau, SHORTEST), np.maximum(vol, LEAST_VOL)
    curvature = risk_aversion * spot * spot * np.abs(gamma)
    k = 4.76 * np.power(cost, 0.78) * T**-0.02 * (np.exp(-rate * T) / v) ** 0.25 * np.power(curvature, 0.15)
    return v * np.sqrt(np.maximum(1.0 - np.sign(gamma) * k, 0.0))


def delta_at(x: LegInput, vol: Any) -> Any:
    """The delta per unit of each leg at another vol: the model's plus what Black's changes by; an ended leg's is 0.

    What the model knows beyond Black (a smile rule, early exercise) stays. Shape: x and vol broadcast, legs last.
    """
    shape = np.broadcast_shapes(np.shape(vol), np.shape(x.delta), np.shape(x.spot))
    columns = np.empty((7, 2, *shape))
    columns[0], columns[1], columns[2] = np.maximum(x.spot, TINY), x.strike, x.tau
    columns[3, 0], columns[3, 1] = vol, x.vol
    columns[4], columns[5], columns[6] = x.cp, x.rate, x.dividend
    flat = columns.reshape(7, -1)
    out = np.empty((5, flat.shape[1]))
    _greeks_rows()(*flat, out, 0)
    at_vol, at_own = out[DELTA].reshape(2, *shape)
    return x.delta + (at_vol - at_own)


@cache
def _greeks_rows() -> Callable[..., None]:
    """The compiled Greeks of ready columns, as `black.greeks_slice` asks it; the compiler is imported by those who ask."""
    from bot.pricing import kernels  # noqa: PLC0415  as said

    return kernels.greeks_rows
