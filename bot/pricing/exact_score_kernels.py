"""The compiled decision of a rule on the lattice, the fast twin of `exact_score.ruled`; law: equal to it, same bits each run.
With it the Greeks of a leg on many prices, the fast twin of `black.bsm`.

No fast-math flag is set: a contracted multiply-add would give other bits on another processor.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.exact_kernels import cubic_through
from bot.pricing.kernels import PHI_0, compiled, deviations, exp_product, exp_sum, inlined, tail_ratio

Array = NDArray[np.float64]

_f64: Final = numba.types.float64
_i64: Final = numba.types.int64
_bool: Final = numba.types.boolean
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_OUT: Final = numba.types.Array(_f64, 1, "C")
_TABLE: Final = numba.types.Array(_f64, 2, "C")
MOST: Final = 50.0
LEAST_GAIN: Final = -0.75
FAR: Final = 1e200


@inlined
def at_holding(G: Any, y: Array, zero: int, lattice: bool, apart: bool, held: float) -> float:
    """G of one row at a holding: by the cubic through four columns of one sign, or of lots the nearest."""
    step = y[1] - y[0]
    size = y.shape[0]
    place = min(max((held - y[0]) / step, 0.0), size - 1.0)
    if lattice or (apart and abs(place - zero) < 1e-9):
        return float(G[int(np.rint(place))])
    k = min(int(place), size - 2)
    if apart and (k == zero - 1 or k == zero):
        return float(G[zero - 1] if k < zero else G[zero + 1])
    if k < zero:
        left, right = 0, zero if apart else zero + 1
    else:
        left, right = zero + 1 if apart else zero, size
    if right - left < 4:
        left, right = max(min(left, size - 4), 0), max(right, 4)
    base = min(max(k - 1, left), right - 4)
    return float(cubic_through(G, k, base, place - k))


@inlined
def side_of(which: int, j: int, k: int, G: Array, y: Array, S: Array, cost: float, fee: float, ends: Array) -> float:
    """The cost-to-go of row j and holding k if it were bought up (0), kept (1) or sold down (2)."""
    if which == 1:
        return float(G[j, k])
    if which == 0:
        turn = ends[j, 2] - y[k]
        turn = turn if ends[j, 4] > 0.0 else abs(turn)
        return float(ends[j, 0] + cost * S[j] * turn + fee)
    turn = y[k] - ends[j, 3]
    turn = turn if ends[j, 5] > 0.0 else abs(turn)
    return float(ends[j, 1] + cost * S[j] * turn + fee)


@inlined
def side_at(held: float, lo: float, hi: float) -> int:
    """0 below the band, 1 inside, 2 above."""
    return 0 if held < lo else (1 if held <= hi else 2)


@inlined
def shares(theta: float) -> Any:
    """What rows j-1, j, j+1, j+2 gain of a function that begins theta of the way from j to j+1."""
    t = theta
    a = -19.0 / 720.0 + t * t * (1.0 / 6.0 + t * (-1.0 / 6.0 + t / 24.0))
    b = 109.0 / 240.0 + t * (-1.0 + t * (0.25 + t * (1.0 / 3.0 - t * 0.125)))
    c = 7.0 / 80.0 + t * t * (-0.5 + t * (-1.0 / 6.0 + t * 0.125))
    d = -11.0 / 720.0 + t * t * (1.0 / 12.0 - t * t / 24.0)
    return a, b, c, d


@inlined
def is_column(held: float, y: Array) -> bool:
    """True for a holding that is a column but for rounding."""
    place = (held - y[0]) / (y[1] - y[0])
    return bool(abs(place - np.rint(place)) < 1e-6)


@inlined
def crossing(edge: Any, j: int, held: float) -> float:
    """How far from row j to j+1 an edge meets a holding: on a straight line, moved once to the cubic through four rows."""
    rise = edge[j + 1] - edge[j]
    theta = (held - edge[j]) / rise
    if j < 1 or j >= edge.shape[0] - 2 or abs(edge[j - 1]) > FAR or abs(edge[j + 2]) > FAR:
        return float(theta)
    off = (cubic_through(edge, j, j - 1, theta) - held) / rise
    return float(min(max(theta - off, 0.0), 1.0))


@compiled(_TABLE(_TABLE, _IN, _IN, _f64, _f64, _f64, _i64, _bool, _bool, _IN, _IN, _IN, _IN))
def ruled(
    G: Array,
    y: Array,
    S: Array,
    cost: float,
    fee: float,
    g: float,
    zero: int,
    lattice: bool,
    apart: bool,
    lo: Array,
    hi: Array,
    up: Array,
    down: Array,
) -> Array:
    """J of a date at which a rule decides. Shape: G (n, k), y (k,), S, lo, hi, up, down (n,)."""
    n, size = S.shape[0], y.shape[0]
    step = y[1] - y[0]
    ends = np.empty((n, 6))
    J = np.empty((n, size))
    for j in range(n):
        ends[j, 2] = min(max(up[j], y[0]), y[size - 1])
        ends[j, 3] = min(max(down[j], y[0]), y[size - 1])
        ends[j, 0] = at_holding(G[j], y, zero, lattice, apart, ends[j, 2])
        ends[j, 1] = at_holding(G[j], y, zero, lattice, apart, ends[j, 3])
        ends[j, 4] = 1.0 if ends[j, 2] >= lo[j] else -1.0
        ends[j, 5] = 1.0 if ends[j, 3] <= hi[j] else -1.0
        for k in range(size):
            J[j, k] = side_of(side_at(y[k], lo[j], hi[j]), j, k, G, y, S, cost, fee, ends)
    gain = np.zeros((n, size))
    own = J.copy()
    for which in range(2):
        edge = lo if which == 0 else hi
        for j in range(n - 1):
            one, other = edge[j], edge[j + 1]
            if one == other or abs(one) > FAR or abs(other) > FAR:
                continue
            least, most = min(one, other), max(one, other)
            k = max(int(np.floor((least - y[0]) / step)) - 1, 0) if least > y[0] else 0
            while k < size and y[k] < least:
                k += 1
            while k < size and y[k] < most:
                stepped = lattice and (is_column(one, y) or is_column(other, y))
                theta = 0.5 if stepped else crossing(edge, j, y[k])
                weights = shares(theta)
                below, above = 1 + which, which
                old, new = (below, above) if other > one else (above, below)
                for m in range(max(j - 1, 0), min(j + 3, n)):
                    p = m - j + 1
                    share = weights[0] if p == 0 else weights[1] if p == 1 else weights[2] if p == 2 else weights[3]
                    here = own[m, k]
                    rise = side_of(new, m, k, G, y, S, cost, fee, ends) - here
                    fall = side_of(old, m, k, G, y, S, cost, fee, ends) - here
                    gain[m, k] += share * (exp_sum(min(g * rise, MOST), 0.0) - exp_sum(min(g * fall, MOST), 0.0))
                k += 1
    for j in range(n):
        for k in range(size):
            if gain[j, k] != 0.0:
                J[j, k] = own[j, k] + np.log1p(max(gain[j, k], LEAST_GAIN)) / g
    return J


@compiled(numba.types.void(_IN, *(_f64,) * 7, _OUT, _OUT))
def add_greeks(
    spot: Array,
    strike: float,
    tau: float,
    vol: float,
    rate: float,
    dividend: float,
    cp: float,
    quantity: float,
    hedge: Array,
    gamma: Array,
) -> None:
    """Takes quantity x delta from the hedge and adds quantity x gamma, as `bot.pricing.black.bsm`. Shape: all (paths,)."""
    w = vol * np.sqrt(tau)
    carry = rate - dividend
    discounted = strike * exp_product(-carry, tau)
    growth = exp_product(-dividend, tau)
    for j in range(spot.shape[0]):
        S = spot[j]
        d1, _, inverse = deviations(S, strike, S, discounted, carry * tau, w)
        density = PHI_0 * exp_sum(-0.5 * d1 * d1, 0.0)
        tail = density * tail_ratio(abs(d1))
        above = 1.0 - tail if cp * d1 > 0.0 else tail
        hedge[j] -= quantity * cp * above * growth
        gamma[j] += quantity * growth * density * inverse / S
