"""Near is how far a price may move, and how long, while the net delta of European legs surely moves by less than a slack: the
cheap bound, for who asks again at each step; `room` bounds a wider box at a greater price.

Law: a bound, never an estimate. With h = |S - S0| and T = t - t0 the net delta moves by at most |G0| h + K h^2 / 2 + C T,
where, per leg of weight w with d = vol sqrt(tau), a = phi(1) = 0.2419708 and b = phi(0) = 0.3989423 (both rounded up),
since |phi(x) x| <= a and phi(x) <= b:

- d gamma / dS = -e^(-q tau) phi(d1) (d1 + d) / (S^2 d^2), so K = sum |w| D (a + b d) / (S_lo^2 d^2);
- d delta / d tau = -q e^(-q tau) N(d1) + e^(-q tau) phi(d1) (m / d - d1 / (2 tau)) with m = r - q + vol^2 / 2, so
  C = sum |w| D (|q| + a / (2 tau) + b |m| / d);

taken at the worst corner of the box: S_lo = 0.99 S0, tau from 0.9 tau0 to tau0, and D = max(1, e^(-q tau0)). The move is
made in two steps, first the price at t0, then time at the new price; C holds at every price.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final, TypeAlias

import numpy as np

from bot.domain.units import NS_PER_YEAR, Nanos
from bot.pricing.black import Array

NearKernel: TypeAlias = Callable[[float, Nanos, Array, float, float, float, float], tuple[float, float]]

PHI_0_UP: Final = 0.3989423
PHI_1_UP: Final = 0.2419708
FARTHEST: Final = 0.01
"""Share of the price a box may reach to either side; the bounds hold within it."""
LONGEST: Final = 0.1
"""Share of the shortest time to expiry a box may last."""
FOR_PRICE: Final = 0.9
"""Share of the slack that is given to the price, the rest to time."""
LEAST_SHARE: Final = 1e-7
"""Slack below this share of the gross weight promises nothing: it is too near to the rounding of the sums."""
SAFE: Final = 0.999
"""Share of the slack that is used at all: rounding of the sums stays far below the rest."""


def near_kernel() -> NearKernel:
    """The compiled `(spot, elapsed, packed, rate, dividend, gamma, slack) -> (h in price, T in years)`.

    `packed` from `black.pack_slice`, `gamma` the net gamma at (spot, elapsed), `slack` in the units of weight. (0, 0)
    where nothing can be promised: an unknown number, no slack, a leg at or past its expiry or without vol.
    """
    return _near_kernel()


@cache
def _near_kernel() -> NearKernel:
    from bot.pricing import near_kernels  # noqa: PLC0415  the compiler is imported by those who price

    kernel: NearKernel = near_kernels.near
    return kernel


def near_by_formula(
    spot: float, elapsed: Nanos, packed: Array, rate: float, dividend: float, gamma: float, slack: float
) -> tuple[float, float]:
    """The same in numpy: the readable twin of `near_kernel()`. Shape: packed (legs, 5)."""
    use = SAFE * slack
    weight = np.abs(packed[:, 4])
    tau, vol = (packed[:, 1] - elapsed) / NS_PER_YEAR, packed[:, 2]
    known = math.isfinite(spot) and spot > 0.0 and math.isfinite(gamma) and math.isfinite(use) and use > 0.0
    if not known or use <= LEAST_SHARE * float(weight.sum()) or not (np.all(tau > 0.0) and np.all(vol > 0.0)):
        return 0.0, 0.0
    D = np.maximum(1.0, np.exp(-dividend * tau))
    early = (1.0 - LONGEST) * tau
    d = vol * np.sqrt(early)
    low = (1.0 - FARTHEST) * spot
    K = float(np.sum(weight * D * (PHI_1_UP + PHI_0_UP * d) / (low * low * d * d)))
    m = np.abs(rate - dividend + 0.5 * vol * vol)
    C = float(np.sum(weight * D * (abs(dividend) + PHI_1_UP / (2.0 * early) + PHI_0_UP * m / d)))
    G = abs(gamma)
    give = FOR_PRICE * use
    h = FARTHEST * spot
    if G * h + 0.5 * K * h * h > give:
        h = 2.0 * give / (G + math.sqrt(G * G + 2.0 * K * give))
    T = LONGEST * float(tau.min()) if len(tau) else math.inf
    if use - give < C * T:
        T = (use - give) / C
    return (h, T) if math.isfinite(h) and not math.isnan(T) else (0.0, 0.0)
