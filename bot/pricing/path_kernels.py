"""The compiled steps of random paths, the fast twin of the plain loops in `paths`; law: equal to them, sum by sum.

Imports numba, so it is itself imported when paths are first drawn by it.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled

_f64: Final = numba.types.float64
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_TABLE_IN: Final = numba.types.Array(_f64, 2, "C", readonly=True)
_TABLE_OUT: Final = numba.types.Array(_f64, 2, "C")


@compiled(numba.types.void(*(_f64,) * 7, _IN, _TABLE_IN, _TABLE_IN, _TABLE_OUT, _TABLE_OUT))
def heston_rows(
    log_spot: float,
    variance: float,
    drift: float,
    reversion: float,
    mean: float,
    vol_of_vol: float,
    correlation: float,
    dt: NDArray[np.float64],
    z_spot: NDArray[np.float64],
    z_variance: NDArray[np.float64],
    logs: NDArray[np.float64],
    variances: NDArray[np.float64],
) -> None:
    """Writes log spots and variances of full-truncation Euler steps. Shape: dt (n,), z (m, n), out (m, n + 1).

    Sums run in the order of the readable twin: near zero variance a root magnifies one rounding to another path.
    """
    other = math.sqrt(1.0 - correlation * correlation)
    for p in range(logs.shape[0]):
        x = log_spot
        v = variance
        logs[p, 0] = x
        variances[p, 0] = v
        for i in range(dt.shape[0]):
            positive = max(v, 0.0)
            swing = math.sqrt(positive * dt[i])
            x = x + (drift - 0.5 * positive) * dt[i] + swing * z_spot[p, i]
            z = correlation * z_spot[p, i] + other * z_variance[p, i]
            v = v + reversion * (mean - positive) * dt[i] + vol_of_vol * swing * z
            logs[p, i + 1] = x
            variances[p, i + 1] = v
