"""The compiled sum over legs that tells a book's time and vol, the fast twin of `legs.terms_by_formula`; law: equal to it.

Imports numba, so it is imported when first asked for. Plain multiplies and adds in a written order, as in
`bot/pricing/kernels.py`: the same bits on any x86-64 processor.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled
from bot.pricing.elementary import deviations, exp_sum
from bot.pricing.kernels import EXPIRY, NS_PER_YEAR, STRIKE, VOL, WEIGHT

LEAST: Final = 1e-200


@compiled("UniTuple(float64, 2)(float64, int64, float64[:, ::1], float64, float64)")
def terms(spot: float, elapsed: int, packed: NDArray[np.float64], rate: float, dividend: float) -> tuple[float, float]:
    """(tau, vol) of a packed slice: the means of tau and vol^2 over live legs, weighted by |weight x gamma|.

    Where no leg has gamma the weights are |weight|; NaN without a live leg or with an unknown vol.
    """
    by_gamma = 0.0
    tau_gamma = 0.0
    variance_gamma = 0.0
    by_weight = 0.0
    tau_weight = 0.0
    variance_weight = 0.0
    carry = rate - dividend
    for i in range(packed.shape[0]):
        tau = (packed[i, EXPIRY] - elapsed) / NS_PER_YEAR
        if tau < 0.0:
            continue
        vol = packed[i, VOL]
        strike = packed[i, STRIKE]
        weight = abs(packed[i, WEIGHT])
        w = vol * math.sqrt(tau)
        d1, _, inverse = deviations(spot, strike, spot, strike * exp_sum(-carry * tau, 0.0), carry * tau, w)
        gamma = weight * exp_sum(-dividend * tau, 0.0) * exp_sum(-0.5 * d1 * d1, 0.0) * inverse
        by_gamma += gamma
        tau_gamma += gamma * tau
        variance_gamma += gamma * vol * vol
        by_weight += weight
        tau_weight += weight * tau
        variance_weight += weight * vol * vol
    if by_gamma > LEAST * by_weight:
        return tau_gamma / by_gamma, math.sqrt(variance_gamma / by_gamma)
    if by_weight > 0.0:
        return tau_weight / by_weight, math.sqrt(variance_weight / by_weight)
    return np.nan, np.nan
