"""The compiled bound on how far a net delta can move, the fast twin of `near.near_by_formula`; law: equal to it.

Imports numba, so it is imported when first asked for. Plain multiplies and adds in a written order, as in
`bot/pricing/kernels.py`: the same bits on any x86-64 processor.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bot.pricing.kernels import EXPIRY, NS_PER_YEAR, VOL, WEIGHT, compiled, exp_sum
from bot.pricing.near import FARTHEST, FOR_PRICE, LEAST_SHARE, LONGEST, PHI_0_UP, PHI_1_UP, SAFE


@compiled("UniTuple(float64, 2)(float64, int64, float64[:, ::1], float64, float64, float64, float64)")
def near(
    spot: float, elapsed: int, packed: NDArray[np.float64], rate: float, dividend: float, gamma: float, slack: float
) -> tuple[float, float]:
    """(h, T) as `near.near_kernel` says."""
    use = SAFE * slack
    if not (0.0 < spot < np.inf and 0.0 < use < np.inf and abs(gamma) < np.inf):
        return 0.0, 0.0
    low = (1.0 - FARTHEST) * spot
    K = 0.0
    C = 0.0
    total = 0.0
    shortest = np.inf
    for i in range(packed.shape[0]):
        weight = abs(packed[i, WEIGHT])
        tau = (packed[i, EXPIRY] - elapsed) / NS_PER_YEAR
        vol = packed[i, VOL]
        if not (tau > 0.0 and vol > 0.0):
            return 0.0, 0.0
        D = max(1.0, exp_sum(-dividend * tau, 0.0))
        early = (1.0 - LONGEST) * tau
        d = vol * math.sqrt(early)
        m = abs(rate - dividend + 0.5 * vol * vol)
        K += weight * D * (PHI_1_UP + PHI_0_UP * d) / (low * low * d * d)
        C += weight * D * (abs(dividend) + PHI_1_UP / (2.0 * early) + PHI_0_UP * m / d)
        total += weight
        shortest = min(shortest, tau)
    if use <= LEAST_SHARE * total:
        return 0.0, 0.0
    G = abs(gamma)
    give = FOR_PRICE * use
    h = FARTHEST * spot
    if G * h + 0.5 * K * h * h > give:
        h = 2.0 * give / (G + math.sqrt(G * G + 2.0 * K * give))
    T = LONGEST * shortest
    if use - give < C * T:
        T = (use - give) / C
    if not h < np.inf or T != T:  # noqa: PLR0124  NaN test
        return 0.0, 0.0
    return h, T
