"""A digital option pays a fixed thing or nothing; law: asset digital minus strike x cash digital is the plain option.

Conventions, limits and statuses are those of `black`. At the kink with no time or no vol left half is paid and the
Greeks that do not exist there are 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.pricing.black import FAR, Array, broadcast_floats, bsm, log_ratio, masked
from bot.pricing.status import Status


class DigitalGreeks(NamedTuple):
    """Price and Greeks of each row. Shape: every field has the broadcast shape of the inputs; `status` is int8."""

    price: Array
    delta: Array
    gamma: Array
    vega: Array
    theta: Array
    rho: Array
    status: NDArray[np.int8]


def cash(
    spot: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    *,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    cp: ArrayLike = 1,
    payout: ArrayLike = 1.0,
) -> DigitalGreeks:
    """Price and Greeks of an option that pays `payout` in cash when it ends in the money: Q e^(-r tau) N(cp d2).

    Source: Reiner and Rubinstein 1991; Haug 2007, section 4.19.1. Shape: all arguments broadcast together.

    >>> round(float(cash(100.0, 80.0, 0.75, 0.35, rate=0.06, dividend=0.06, cp=-1, payout=10.0).price), 4)
    2.671
    """
    return _digital(spot, strike, tau, vol, rate, dividend, cp, payout, asset_paid=False)


def asset(
    spot: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    *,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    cp: ArrayLike = 1,
) -> DigitalGreeks:
    """Price and Greeks of an option that pays the underlying when it ends in the money: S e^(-q tau) N(cp d1).

    Source: Cox and Rubinstein 1985; Haug 2007, section 4.19.2. Shape: all arguments broadcast together.

    >>> round(float(asset(70.0, 65.0, 0.5, 0.27, rate=0.07, dividend=0.05, cp=-1).price), 4)
    20.2069
    """
    return _digital(spot, strike, tau, vol, rate, dividend, cp, 1.0, asset_paid=True)


def _digital(
    spot: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    rate: ArrayLike,
    dividend: ArrayLike,
    cp: ArrayLike,
    payout: ArrayLike,
    *,
    asset_paid: bool,
) -> DigitalGreeks:
    S, K, T, v, r, q, c, Q = broadcast_floats(spot, strike, tau, vol, rate, dividend, cp, payout)
    plain = bsm(S, K, T, v, rate=r, dividend=q, cp=c)
    with np.errstate(all="ignore"):
        smooth = plain.status == Status.OK
        root = np.sqrt(T)
        w = v * root
        # bsm knows N(cp d1), N(cp d2) and the density with all their digits: delta, dual delta and vega are made of them.
        density = plain.vega / root  # S e^(-q tau) phi(d1) = K e^(-r tau) phi(d2)
        d1, d2 = _deviations(S, K, T, w, r - q)
        if asset_paid:
            value = c * S * plain.delta
            peak, other = c * density, d2
            # of the two derivatives by spot, S N'(d1) / (S w) adds to the plain delta
            delta = c * plain.delta + np.where(smooth, peak / (S * w), 0.0)
            theta = q * value - np.where(smooth, peak * (2.0 * (r - q) * T - d2 * w) / (2.0 * T * w), 0.0)
            rho = np.where(smooth, peak * root / v, 0.0)
        else:
            value = -c * Q * plain.dual_delta
            peak, other = np.where(smooth, c * Q * density / K, 0.0), d1
            delta = np.where(smooth, peak / (S * w), 0.0)
            theta = r * value - np.where(smooth, peak * (2.0 * (r - q) * T - d1 * w) / (2.0 * T * w), 0.0)
            rho = -T * value + np.where(smooth, peak * root / v, 0.0)
        gamma = np.where(smooth, -peak * other / (S * w) / (S * w), 0.0)
        vega = np.where(smooth, -peak * other / v, 0.0)
        expired = plain.status == Status.EXPIRED
        bad = (plain.status > Status.EXPIRED) | (~expired & ~np.isfinite(Q))
        status = np.where(bad & ~np.isfinite(Q), np.int8(Status.NOT_FINITE), plain.status)
        outputs = (value, delta, gamma, vega, theta, rho)
        return DigitalGreeks._make([*(masked(column, expired, bad) for column in outputs), status])


def _deviations(S: Array, K: Array, T: Array, w: Array, carry: Array) -> tuple[Array, Array]:
    """d1 and d2, clipped where densities are long since 0."""
    x = log_ratio(S, K) + carry * T
    return np.clip(x / w + 0.5 * w, -FAR, FAR), np.clip(x / w - 0.5 * w, -FAR, FAR)
