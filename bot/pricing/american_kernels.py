"""The compiled American put of strike 1, from its exercise boundary; law: a row depends on itself only, same bits each run.

Everything here prices a put on a spot in units of its strike, with r > 0 or (r = 0 > q), where one exercise boundary
exists; `american` brings the other cases here by symmetry or keeps them away. Letters: u is the age of a boundary
point (time from now), b(t) the boundary with t left, y = ln(b / X), X = min(1, r/q) its limit at expiry, H = y^2 as a
polynomial of sqrt(t) through Chebyshev nodes (Andersen, Lake and Offengenden 2016, section 5). Integrals take
u = tau sin(angle)^2, which makes the roots at both ends smooth, with Gauss-Legendre nodes in the angle.

The boundary solves smooth pasting, written with one density for both terms since
B(t) e^(-q u) phi(d+) = B(t-u) e^(-r u) phi(d-):

    b e^(-q t) N(d+(t, b)) + q INT b e^(-q u) N(d+) du - INT e^(-r u) phi(d-) (r - q b(t-u)) / (vol sqrt u) du = 0,

by Newton with the full Jacobian; the same factors then give the boundary's derivatives by vol, r and q, which the
Greeks need. No fast-math flag is set; loops over arrays are without branches so that they use the vector units.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.kernels import compiled, normal_cdf

Array = NDArray[np.float64]

PHI_0: Final = 0.3989422804014327
SQRT_HALF: Final = math.sqrt(0.5)
LOG2_E: Final = 1.4426950408889634
LN2_HIGH: Final = 0.693147180369123816490
LN2_LOW: Final = 1.90821492927058770002e-10
SHIFT: Final = 6755399441055744.0
"""1.5 x 2^52: adding it rounds to an integer, which then sits in the low bits."""

OUTPUTS: Final = 6
"""price, delta, gamma, vega, theta, and the derivative by r (puts) or q (calls) of the put of strike 1."""

_f64: Final = numba.types.float64
_i64: Final = numba.types.int64
_bool: Final = numba.types.boolean
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_OUT: Final = numba.types.Array(_f64, 1, "C")
_TABLE_IN: Final = numba.types.Array(_f64, 2, "C", readonly=True)
_TABLE: Final = numba.types.Array(_f64, 2, "C")
_INTS: Final = numba.types.Array(_i64, 1, "C")
_FLAGS: Final = numba.types.Array(numba.types.boolean, 1, "C", readonly=True)


# ------------------------------------------------------------------------------------------- elementary, on whole arrays


@compiled(numba.types.void(_OUT, _OUT, _OUT, _INTS, _OUT))
def exp_into(out: Array, x: Array, shifted: Array, bits: NDArray[np.int64], scale: Array) -> None:
    """out = exp(x), relative error 3e-16, for x <= 700; below -700 it stays e^-700. `bits` and `scale` share memory.

    x = k ln 2 + s with |s| <= ln(2)/2 (Cody and Waite 1980); e^s by its Taylor series of degree 12. Shape: all (m,) or more.
    """
    m = out.shape[0]
    for i in range(m):
        v = min(max(x[i], -700.0), 700.0)
        t = v * LOG2_E + SHIFT
        k = t - SHIFT
        s = (v - k * LN2_HIGH) - k * LN2_LOW
        shifted[i] = k
        p = 1.0 / 479001600.0
        p = p * s + 1.0 / 39916800.0
        p = p * s + 1.0 / 3628800.0
        p = p * s + 1.0 / 362880.0
        p = p * s + 1.0 / 40320.0
        p = p * s + 1.0 / 5040.0
        p = p * s + 1.0 / 720.0
        p = p * s + 1.0 / 120.0
        p = p * s + 1.0 / 24.0
        p = p * s + 1.0 / 6.0
        p = p * s + 0.5
        p = p * s + 1.0
        out[i] = p * s + 1.0
    for i in range(m):
        bits[i] = (np.int64(shifted[i]) + 1023) << 52
    for i in range(m):
        out[i] = out[i] * scale[i]


@numba.njit("float64(float64)", cache=True, error_model="numpy", inline="always")
def mills(z: float) -> float:
    """N(-z) / phi(z) for z >= 0, relative error 4e-12: (1 + 2w) erfcx(w), w = z / sqrt 2, as a polynomial of (w-3)/(w+3)."""
    w = z * SQRT_HALF
    t = (w - 3.0) / (w + 3.0)
    p = 5.5169727469624745e-08
    p = p * t + 1.694674841762859e-06
    p = p * t - 3.4045010990640295e-07
    p = p * t - 1.7412230762471725e-05
    p = p * t + 4.639654699421627e-06
    p = p * t + 0.00012277868833558637
    p = p * t - 0.00010501055613485038
    p = p * t - 0.0007786553597827964
    p = p * t + 0.0018886481090188939
    p = p * t + 0.0025290477148445147
    p = p * t - 0.02377050843595207
    p = p * t + 0.0683080812198906
    p = p * t - 0.11927366386875758
    p = p * t + 0.1296451548897628
    p = p * t - 0.0475622943440855
    p = p * t - 0.13562110604544492
    p = p * t + 1.2530080582697296
    return 1.2533141373155001 * p / (1.0 + 2.0 * w)


# ------------------------------------------------------------------------------------------- the boundary


@compiled("float64(float64, float64, float64)")
def perpetual_log(r: float, q: float, vol: float) -> float:
    """ln(b_inf / X) <= 0, the boundary with all the time in the world (McKean 1965, Merton 1973), not below -200.

    b_inf = k / (k + 1) with -k the negative root of vol^2 m (m-1) / 2 + (r-q) m - r = 0.
    """
    variance = vol * vol
    half = 0.5 - (r - q) / variance
    root = math.sqrt(half * half + 2.0 * r / variance)
    k = root - half if half < 0.0 else 2.0 * r / variance / (root + half)
    if half + root <= 0.0 or k <= 1e-80:
        return -200.0
    start = 0.0 if r >= q else math.log(r / q)
    return max(min(-math.log1p(1.0 / k) - start, 0.0), -200.0)


@compiled("float64(float64, float64, float64, float64, float64, float64)")
def start_log(t: float, r: float, q: float, vol: float, limit: float, floor: float) -> float:
    """ln b(t) by the QD+ equation, within 1e-3 as a rule, inside [floor, limit].

    Source: Li 2010, "Analytical approximations for the critical stock prices of American options", eq. 29-34, solved by
    Newton from the exponential interpolation of Barone-Adesi and Whaley 1987 between the limits at expiry and never.
    """
    variance = vol * vol
    root = math.sqrt(t)
    h = -math.expm1(-r * t)
    over = r / h if h > 0.0 else 1.0 / t
    ratio = 2.0 * over / variance
    drift = 2.0 * (r - q) / variance - 1.0
    square = math.sqrt(drift * drift + 4.0 * ratio)
    power = -0.5 * (drift + square)
    power_slope = (2.0 * r / variance) / (h * h * square) if h > 0.0 else 0.0
    down = math.exp(-r * t)
    down_q = math.exp(-q * t)
    end = math.exp(limit)
    never = math.exp(floor)
    speed = min(((r - q) * t - 2.0 * vol * root) * end / max(end - never, 1e-300), 0.0)
    b = min(max(never + (end - never) * math.exp(speed), never), end)
    w = vol * root
    for _ in range(4):
        d1 = (math.log(b) + (r - q) * t) / w + 0.5 * w
        below_q = down_q * normal_cdf(-d1)
        below_r = down * normal_cdf(w - d1)
        density = b * down_q * PHI_0 * math.exp(-0.5 * d1 * d1)
        european = below_r - b * below_q
        theta = r * below_r - q * b * below_q - 0.5 * vol * density / root
        gain = 1.0 - b - european
        c0 = 0.0
        if h > 0.0 and gain > 1e-14:
            c0 = -(down * 2.0 * r / variance) / -square * (1.0 / h - theta / (down * r * gain) - power_slope / square)
        if not abs(c0) < 0.9 * abs(power):
            c0 = 0.0
        error = (1.0 - below_q) * b + (power + c0) * gain
        slope = 1.0 - below_q + density / (b * w) + (power + c0) * (below_q - 1.0)
        after = b - error / slope if slope != 0.0 else b
        after = min(max(after, never), end)
        if not abs(after - b) > 1e-2 * (end - b):
            b = after
            break
        b = after
    return math.log(b)


_SCHEME: Final = (_IN, _TABLE_IN, _TABLE_IN, _TABLE_IN, _TABLE_IN, _TABLE_IN)
"""nodes (n,), interpolation (m, n) and its transpose, rules (4, m); the same transpose and rules of the price integral."""


@compiled(numba.types.void(_OUT, _TABLE_IN, _OUT))
def combine(out: Array, across: Array, weights: Array) -> None:
    """out = sum over j of weights(j) across(j), in that order. Shape: across (n, m), out (m,)."""
    for i in range(out.shape[0]):
        out[i] = across[0, i] * weights[0]
    for j in range(1, across.shape[0]):
        h = weights[j]
        for i in range(out.shape[0]):
            out[i] += across[j, i] * h


@compiled(numba.types.void(_OUT, _OUT, _TABLE_IN, _OUT, _f64))
def boundary_points(y: Array, b: Array, across: Array, H: Array, limit: float) -> None:
    """y = -sqrt(polynomial H at the points), b = limit + y (still its logarithm). Shape: across (n, m), y and b (m,)."""
    combine(y, across, H)
    for i in range(y.shape[0]):
        root = -math.sqrt(max(y[i], 1e-280))
        y[i] = root
        b[i] = limit + root


@compiled(numba.types.void(_TABLE, _TABLE, _i64))
def solve(J: Array, rhs: Array, n: int) -> None:
    """rhs becomes J^-1 rhs, by elimination with row exchange; both are overwritten. Shape: J (n, n), rhs (c, n)."""
    c = rhs.shape[0]
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(J[i, k]) > abs(J[pivot, k]):
                pivot = i
        if pivot != k:
            for j in range(k, n):
                J[k, j], J[pivot, j] = J[pivot, j], J[k, j]
            for e in range(c):
                rhs[e, k], rhs[e, pivot] = rhs[e, pivot], rhs[e, k]
        inverse = 1.0 / J[k, k]
        for i in range(k + 1, n):
            factor = J[i, k] * inverse
            if factor != 0.0:
                for j in range(k + 1, n):
                    J[i, j] -= factor * J[k, j]
                for e in range(c):
                    rhs[e, i] -= factor * rhs[e, k]
    for e in range(c):
        for k in range(n - 1, -1, -1):
            total = rhs[e, k]
            for j in range(k + 1, n):
                total -= J[k, j] * rhs[e, j]
            rhs[e, k] = total / J[k, k]


@compiled(
    numba.types.void(
        _f64, _f64, _f64, _f64, _f64, _OUT, *_SCHEME[:4], _TABLE, _INTS, _OUT, _TABLE, _TABLE, _bool, _bool
    )
)
def linearise(  # noqa: PLR0915  one pass over the points: splitting it would store each factor first
    tau: float,
    r: float,
    q: float,
    vol: float,
    limit: float,
    H: Array,
    nodes: Array,
    interpolation: Array,
    across: Array,
    rules: Array,
    work: Array,
    bits: NDArray[np.int64],
    scale: Array,
    J: Array,
    rhs: Array,
    tangents: bool,
    by_q: bool,
) -> None:
    """Writes the Jacobian by H and, in rhs, the residual or (tangents) minus its derivatives by vol and by r or q.

    Shape: H (n,), nodes (n,), interpolation (m, n) with m = n l, J (n, n), rhs (>= 2, n), work (>= 12, m).
    """
    n = nodes.shape[0]
    m = interpolation.shape[0]
    l = m // n  # noqa: E741  the letter of Andersen, Lake and Offengenden
    y, b, d, E, Q, age, x, t = work[0], work[1], work[2], work[3], work[4], work[5], work[6], work[7]
    root_tau = math.sqrt(tau)
    w = vol * root_tau
    carry = r - q
    boundary_points(y, b, across, H, limit)
    exp_into(b, b, t, bits, scale)
    for i in range(n):
        own = -math.sqrt(H[i])
        for k in range(i * l, i * l + l):
            u = tau * rules[0, k]
            s = w * rules[1, k]
            v = (own - y[k] + carry * u) / s - 0.5 * s
            d[k] = v
            x[k] = -r * u - 0.5 * v * v
    exp_into(E, x, t, bits, scale)
    if q != 0.0:
        for i in range(m):
            x[i] = -q * tau * rules[0, i]
        exp_into(age, x, t, bits, scale)
        for i in range(n):
            own_b = math.exp(limit - math.sqrt(H[i]))
            for k in range(i * l, i * l + l):
                up = d[k] + w * rules[1, k]
                tail = mills(abs(up)) * PHI_0 * b[k] * E[k]
                Q[k] = own_b * age[k] - tail if up > 0.0 else tail
    for i in range(n):
        own = -math.sqrt(H[i])
        own_b = math.exp(limit + own)
        t_i = tau * nodes[i] * nodes[i]
        s_i = w * nodes[i]
        d1 = (limit + own + carry * t_i) / s_i + 0.5 * s_i
        grown = own_b * math.exp(-q * t_i)
        first = grown * normal_cdf(d1)
        edge = grown * PHI_0 * math.exp(-0.5 * d1 * d1)
        inner = 0.0
        loss = 0.0
        cross = 0.0
        slide = 0.0
        shift = 0.0
        by_vol = 0.0
        by_rate = 0.0
        for j in range(n):
            J[i, j] = 0.0
        for k in range(i * l, i * l + l):
            wz = rules[3, k] * PHI_0 * E[k] / w * tau  # du E / (vol sqrt u)
            s = w * rules[1, k]
            rate_gap = r - q * b[k]
            flow = wz * rate_gap
            loss += flow
            cross += wz * q * b[k]
            pull = flow * d[k] / s
            slide += pull
            weight = pull * 0.5 / y[k] if y[k] < -1e-130 else 0.0  # d lnb / d H = 1 / (2 y)
            if q != 0.0:
                inner += rules[2, k] * tau * Q[k]
            if tangents:
                u = tau * rules[0, k]
                root_u = root_tau * rules[1, k]
                up = d[k] + s
                density = wz * b[k] * s  # du b(t) e^(-q u) phi(d+)
                by_vol += -q * density * d[k] / vol + flow / vol - flow * d[k] * up / vol
                if by_q:
                    step = root_u / vol
                    by_rate += -q * density * step + wz * b[k] - flow * d[k] * step
                    if q != 0.0:
                        by_rate += rules[2, k] * tau * Q[k] * (1.0 - q * u)
                else:
                    step = root_u / vol
                    by_rate += q * density * step - wz + flow * (u + d[k] * step)
            for j in range(n):
                J[i, j] -= weight * interpolation[k, j]
            shift -= pull
        whole = first + q * inner
        by_own = whole + edge / s_i + cross + slide
        J[i, i] += by_own * 0.5 / own
        if not tangents:
            rhs[0, i] = whole - loss
            continue
        by_vol += edge * (s_i - d1) / vol
        step = root_tau * nodes[i] / vol
        by_rate += -t_i * first - edge * step if by_q else edge * step
        if q > r:  # X = r / q moves too
            by_rate += (by_own + shift) * (-1.0 / q if by_q else 1.0 / r)
        rhs[0, i] = -by_vol
        rhs[1, i] = -by_rate


@compiled(
    numba.types.void(_f64, _f64, _f64, _f64, _f64, _OUT, *_SCHEME[:4], _TABLE, _INTS, _OUT, _TABLE, _TABLE, _i64, _f64)
)
def fit_boundary(
    tau: float,
    r: float,
    q: float,
    vol: float,
    limit: float,
    H: Array,
    nodes: Array,
    interpolation: Array,
    across: Array,
    rules: Array,
    work: Array,
    bits: NDArray[np.int64],
    scale: Array,
    J: Array,
    rhs: Array,
    rounds: int,
    tolerance: float,
) -> None:
    """H of the boundary: QD+ at the nodes, then Newton until ln b moves by less than tolerance x vol sqrt(tau)."""
    n = nodes.shape[0]
    floor = perpetual_log(r, q, vol)
    lowest = floor + limit
    for j in range(n):
        y = start_log(tau * nodes[j] * nodes[j], r, q, vol, limit, lowest) - limit
        s = vol * math.sqrt(tau) * nodes[j]
        H[j] = max(y * y, 1e-6 * min(s * s, floor * floor))
    for _ in range(rounds):
        linearise(
            tau, r, q, vol, limit, H, nodes, interpolation, across, rules, work, bits, scale, J, rhs, False, False
        )
        solve(J, rhs[:1], n)
        move = 0.0
        for j in range(n):
            before = H[j]
            after = before - rhs[0, j]
            after = min(max(after, 0.25 * before), 4.0 * before)
            after = min(after, floor * floor)
            if not after > 0.0:
                after = before
            H[j] = after
            move = max(move, abs(math.sqrt(after) - math.sqrt(before)))
        if move <= tolerance * vol * math.sqrt(tau):
            return


# ------------------------------------------------------------------------------------------- the price and its Greeks


@compiled(
    numba.types.void(
        _f64,
        _f64,
        _f64,
        _f64,
        _f64,
        _f64,
        _OUT,
        _OUT,
        _OUT,
        _TABLE_IN,
        _TABLE_IN,
        _TABLE,
        _INTS,
        _OUT,
        _OUT,
        _bool,
        _bool,
    )
)
def put_from_boundary(  # noqa: PLR0915  as linearise
    S: float,
    tau: float,
    r: float,
    q: float,
    vol: float,
    limit: float,
    H: Array,
    H_vol: Array,
    H_rate: Array,
    across: Array,
    rules: Array,
    work: Array,
    bits: NDArray[np.int64],
    scale: Array,
    out: Array,
    greeks: bool,
    by_q: bool,
) -> None:
    """Writes the outputs of a put of strike 1 on spot S from its boundary. Shape: H.. (n,), across (n, m), out (6,).

    V = v + INT r e^(-r u) N(-d-) - q S e^(-q u) N(-d+) du (Kim 1990). Derivatives by S of that integral are those of
    G = e^(-r u) phi(d-) (r - q b) / (vol sqrt u), which near the boundary is steep at u = 0: there the same integral with b
    held at b(tau), known in closed form, is taken off and added back.
    """
    p = rules.shape[1]
    y, b, d, E, E_0, age, ages, x, t = (
        work[0][:p],
        work[1][:p],
        work[2][:p],
        work[3][:p],
        work[4][:p],
        work[5][:p],
        work[6][:p],
        work[7][:p],
        work[8],
    )
    unpaid = work[9][:p]
    root_tau = math.sqrt(tau)
    w = vol * root_tau
    carry = r - q
    ln_s = math.log(S)
    down = math.exp(-r * tau)
    down_q = math.exp(-q * tau)
    d1 = (ln_s + carry * tau) / w + 0.5 * w
    d2 = d1 - w
    s = S * down_q
    left = normal_cdf(-d1)
    below = normal_cdf(-d2)
    density = s * PHI_0 * math.exp(-0.5 * d1 * d1)
    boundary_points(y, b, across, H, limit)
    for i in range(p):
        u = tau * rules[0, i]
        width = w * rules[1, i]
        v = (ln_s - b[i] + carry * u) / width - 0.5 * width
        d[i] = v
        x[i] = -r * u - 0.5 * v * v
    exp_into(b, b, t, bits, scale)
    exp_into(E, x, t, bits, scale)
    for i in range(p):
        x[i] = -r * tau * rules[0, i]
    exp_into(age, x, t, bits, scale)
    for i in range(p):
        x[i] = -q * tau * rules[0, i]
    exp_into(ages, x, t, bits, scale)
    for i in range(p):
        v = d[i]
        up = v + w * rules[1, i]
        E[i] *= PHI_0
        tail = mills(abs(v)) * E[i]
        tail_q = mills(abs(up)) * E[i] * b[i]
        unpaid[i] = tail if v > 0.0 else age[i] - tail  # e^(-r u) N(-d-)
        ages[i] = tail_q if up > 0.0 else S * ages[i] - tail_q  # S e^(-q u) N(-d+)
    received = 0.0
    paid = 0.0
    for i in range(p):
        received += rules[2, i] * unpaid[i]
        paid += rules[2, i] * ages[i]
    received *= tau
    paid *= tau
    price = max(down * below - s * left, 0.0) + max(r * received - q * paid, 0.0)
    price = min(max(price, 1.0 - S), 1.0)
    out[0] = price
    if not greeks:
        return
    ln_b = limit - math.sqrt(H[0])
    b_0 = math.exp(ln_b)
    away = max(ln_s - ln_b, 0.0)
    for i in range(p):
        u = tau * rules[0, i]
        width = w * rules[1, i]
        v = (away + carry * u) / width - 0.5 * width
        x[i] = -r * u - 0.5 * v * v
    exp_into(E_0, x, t, bits, scale)
    # closed form of the integrals with b held at b_0
    beta = carry / vol - 0.5 * vol
    c = math.sqrt(max(beta * beta + 2.0 * r, 0.0))
    a = away / vol
    edge = (a / root_tau) + beta * root_tau
    far = a / root_tau + c * root_tau
    near = a / root_tau - c * root_tau
    common = down * PHI_0 * math.exp(-0.5 * edge * edge)
    up_part = mills(far) * common
    down_part = mills(near) * common if near > 0.0 else math.exp(-a * (beta + c)) * normal_cdf(-near)
    gap_0 = r - q * b_0
    level = (down_part - up_part) / c if c > 1e-8 else 2.0 * (root_tau * common - a * up_part)
    level /= vol  # INT e^(-r u) phi(d-) / (vol sqrt u) du at b_0
    slant = ((c + beta) * down_part + (c - beta) * up_part) / (vol * vol * max(c, 1e-300))
    if c <= 1e-8:
        slant = 2.0 * up_part / (vol * vol)
    flow = 0.0
    bend = 0.0
    moved_vol = 0.0
    moved_rate = 0.0
    fixed_vol = 0.0
    fixed_rate = 0.0
    ends = 0.0
    ends_0 = 0.0
    start_shift = 0.0
    if q > r:
        start_shift = -1.0 / q if by_q else 1.0 / r
    y_0 = -math.sqrt(H[0])
    b_vol = 0.5 * H_vol[0] / y_0
    b_rate = 0.5 * H_rate[0] / y_0 + start_shift
    moves_vol, moves_rate = work[10][:p], work[11][:p]
    combine(moves_vol, across, H_vol)
    combine(moves_rate, across, H_rate)
    for i in range(p):
        u = tau * rules[0, i]
        root_u = root_tau * rules[1, i]
        width = vol * root_u
        weight = rules[3, i] * tau / w
        v = d[i]
        up = v + width
        v_0 = (away + carry * u) / width - 0.5 * width
        G = weight * E[i] * (r - q * b[i])
        G_0 = weight * E_0[i] * PHI_0 * gap_0
        flow += G - G_0
        bend += (G * v - G_0 * v_0) / width
        ends += weight * E[i] * b[i]
        ends_0 += weight * E_0[i] * PHI_0
        half = 0.5 / y[i] if y[i] < -1e-130 else 0.0  # as in linearise
        moved_vol += G * half * moves_vol[i] - G_0 * b_vol
        moved_rate += G * (half * moves_rate[i] + start_shift) - G_0 * b_rate
        density_u = weight * E[i] * width  # du e^(-r u) phi(d-)
        # d- by vol: -d+ / vol; d+ by vol: -d- / vol
        fixed_vol += density_u * (r * up - q * b[i] * v) / vol
        step = root_u / vol
        if by_q:
            fixed_rate += density_u * (r - q * b[i]) * step - rules[2, i] * tau * ages[i] * (1.0 - q * u)
        else:
            fixed_rate += -density_u * (r - q * b[i]) * step + rules[2, i] * tau * unpaid[i] * (1.0 - r * u)
    flow += gap_0 * level
    bend += gap_0 * slant
    ends += b_0 * (level - ends_0)
    # S x derivative, and S^2 x second derivative, of the premium
    slope = -flow - q * paid
    curve = bend + flow + q * ends
    delta = min(max(-down_q * left + slope / S, -1.0), 0.0)
    gamma = density / (S * S * w) + curve / (S * S)
    gamma = max(gamma, 0.0)
    out[1] = delta
    out[2] = gamma
    # E |W_T| <= sqrt(tau) for any rule T of exercise bounds vega, 0 <= T <= tau the rate Greeks: the last word for boundaries
    # so near 0 that their derivatives are lost
    vega = density * root_tau + fixed_vol + moved_vol + gap_0 * level * b_vol
    out[3] = min(max(vega, 0.0), S * max(1.0, down_q) * root_tau)
    out[4] = r * price - carry * S * delta - 0.5 * vol * vol * S * S * gamma
    european_rate = tau * s * left if by_q else -tau * down * below
    by_rate = european_rate + fixed_rate + moved_rate + gap_0 * level * b_rate
    out[5] = min(max(by_rate, 0.0), tau) if by_q else min(max(by_rate, -tau), 0.0)


@compiled("float64(float64, float64, float64, float64, float64)")
def european_put(S: float, tau: float, r: float, q: float, vol: float) -> float:
    """The Black-Scholes put of strike 1: worth more than exercise only where the boundary was lost."""
    w = vol * math.sqrt(tau)
    d1 = (math.log(S) + (r - q) * tau) / w + 0.5 * w
    return math.exp(-r * tau) * normal_cdf(w - d1) - S * math.exp(-q * tau) * normal_cdf(-d1)


@compiled(
    numba.types.void(
        _TABLE_IN,
        numba.types.Array(numba.types.int8, 1, "C", readonly=True),
        *_SCHEME,
        _i64,
        _f64,
        _bool,
        _TABLE,
        _TABLE,
    )
)
def put_rows(
    rows: Array,
    by_q: NDArray[np.int8],
    nodes: Array,
    interpolation: Array,
    across: Array,
    rules: Array,
    price_across: Array,
    price_rules: Array,
    rounds: int,
    tolerance: float,
    greeks: bool,
    out: Array,
    boundary: Array,
) -> None:
    """Writes the outputs of each put of strike 1, and ln b at the nodes.

    Shape: rows (k, 5) as spot, tau, r, q, vol; by_q (k,): the rate Greek is by q; out (k, 6), boundary (k, n).
    """
    n = nodes.shape[0]
    m = max(interpolation.shape[0], price_rules.shape[1])
    work = np.empty((12, m))
    fit_work = np.empty((12, interpolation.shape[0]))
    bits = np.empty(m, dtype=np.int64)
    scale = bits.view(np.float64)
    J = np.empty((n, n))
    rhs = np.empty((2, n))
    H = np.empty(n)
    for k in range(rows.shape[0]):
        S = rows[k, 0]
        tau = rows[k, 1]
        r = rows[k, 2]
        q = rows[k, 3]
        vol = rows[k, 4]
        limit = 0.0 if r >= q else math.log(r / q)
        fit_boundary(
            tau,
            r,
            q,
            vol,
            limit,
            H,
            nodes,
            interpolation,
            across,
            rules,
            fit_work,
            bits,
            scale,
            J,
            rhs,
            rounds,
            tolerance,
        )
        for j in range(n):
            boundary[k, j] = limit - math.sqrt(H[j])
        if math.log(S) <= boundary[k, 0] and european_put(S, tau, r, q, vol) <= 1.0 - S + 1e-14:
            out[k, 0] = 1.0 - S
            out[k, 1] = -1.0
            for j in range(2, 6):
                out[k, j] = 0.0
            continue
        if greeks:
            linearise(
                tau,
                r,
                q,
                vol,
                limit,
                H,
                nodes,
                interpolation,
                across,
                rules,
                fit_work,
                bits,
                scale,
                J,
                rhs,
                True,
                by_q[k] != 0,
            )
            solve(J, rhs, n)
        put_from_boundary(
            S,
            tau,
            r,
            q,
            vol,
            limit,
            H,
            rhs[0],
            rhs[1],
            price_across,
            price_rules,
            work,
            bits,
            scale,
            out[k],
            greeks,
            by_q[k] != 0,
        )
