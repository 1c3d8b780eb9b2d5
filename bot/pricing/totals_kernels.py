"""The compiled totals of a packed slice, the fast twin of `totals.totals_by_formula`; law: equal to it, same bits anywhere.

Imports numba, so it is imported when first asked for. The arithmetic is that of `bot/pricing/kernels.py`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bot.pricing.elementary import PHI_0, exp_sum, two_tail_ratios
from bot.pricing.kernels import CP, EXPIRY, NS_PER_YEAR, STRIKE, VAST, VOL, WEIGHT, compiled, outlook


@compiled("UniTuple(float64, 10)(float64, int64, float64[:, ::1], float64, float64)")
def totals(
    spot: float, elapsed: int, packed: NDArray[np.float64], rate: float, dividend: float
) -> tuple[float, float, float, float, float, float, float, float, float, float]:
    """Weighted sums as `totals.totals_kernel` says."""
    out = np.zeros(10)
    for i in range(packed.shape[0]):
        T = (packed[i, EXPIRY] - elapsed) / NS_PER_YEAR
        if not T > 0.0:
            continue
        K, v, c, weight = packed[i, STRIKE], packed[i, VOL], packed[i, CP], packed[i, WEIGHT]
        size = spot + K + v + T + abs(rate) + abs(dividend)
        if not (spot >= 0.0 and K >= 0.0 and v >= 0.0 and size <= VAST):
            out[:] = np.nan
            break
        Dq, s, k, d1, d2, inverse = outlook(spot, K, T, v, rate, dividend)
        density = PHI_0 * exp_sum(-0.5 * d1 * d1, 0.0)
        m = s * density
        y1, y2 = two_tail_ratios(abs(d1), abs(d2))
        low = s <= k
        near = y1 if low else y2
        far = y2 if low else y1
        inside = (d1 if low else -d2) > 0.0
        value = (m * (near - far)) if not inside else ((s if low else k) - m * (near + far))
        intrinsic = c * (s - k)
        price = (value if value > 0.0 else 0.0) + (intrinsic if intrinsic > 0.0 else 0.0)
        tail = density * y1
        above = 1.0 - tail if c * d1 > 0.0 else tail
        owed = k - m * y2 if c * d2 > 0.0 else m * y2
        if d1 == 0.0:
            above = 0.5
        if d2 == 0.0:
            owed = 0.5 * k
        delta = c * (Dq * above)
        vega = m * math.sqrt(T)
        out[0] += weight * price
        out[1] += weight * delta
        out[3] += weight * vega
        out[4] += weight * (c * (dividend * (s * above) - rate * owed) - 0.5 * m * v * (v * inverse))
        out[5] += weight * (c * T * owed)
        out[6] += weight * (-c * T * (s * above))
        out[9] += weight * (dividend * delta)
        if inverse > 0.0:
            out[2] += weight * (Dq * density * inverse / spot)
            out[7] += weight * (-Dq * density * d2 / v)
            out[8] += weight * (vega * d1 * d2 / v)
            drift = ((rate - dividend) * inverse) - d2 / (2.0 * T)
            out[9] -= weight * (Dq * density * drift)
    return out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7], out[8], out[9]
