"""The compiled kernels, each the fast twin of a readable numpy function; law: equal to the twin, same bits on each run.

This module imports numba, so it is itself imported only when a kernel is first asked for (`black.slice_kernel()`,
`implied.vol`, `paths.heston`). Signatures are explicit and compiled code is cached beside the source: after the first
run on a host nothing is compiled. No fast-math flag is set: a contracted multiply-add would give other bits on another
processor, and an order must replay identically.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.status import Status

F = TypeVar("F", bound=Callable[..., Any])

NS_PER_YEAR: Final = 365.0 * 86_400.0 * 1e9
SQRT_HALF: Final = math.sqrt(0.5)
SQRT_TAU: Final = math.sqrt(2.0 * math.pi)
PHI_0: Final = 1.0 / SQRT_TAU
TINY: Final = 1e-100
"""A total deviation vol sqrt(tau) at or below this is no deviation."""

STRIKE: Final = 0
EXPIRY: Final = 1
VOL: Final = 2
CP: Final = 3
WEIGHT: Final = 4
PACKED_COLUMNS: Final = 5

BELOW_INTRINSIC: Final = int(Status.BELOW_INTRINSIC)
AT_INTRINSIC: Final = int(Status.AT_INTRINSIC)
ABOVE_BOUND: Final = int(Status.ABOVE_BOUND)


_f64: Final = numba.types.float64
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
"""An input column: read, never written, so that a read-only array is as good as any."""
_OUT: Final = numba.types.Array(_f64, 1, "C")
_TABLE_IN: Final = numba.types.Array(_f64, 2, "C", readonly=True)
_TABLE_OUT: Final = numba.types.Array(_f64, 2, "C")
_CODES_OUT: Final = numba.types.Array(numba.types.int8, 1, "C")


def compiled(signature: Any) -> Callable[[F], F]:
    """A decorator to machine code with one explicit signature, kept in numba's cache."""
    return cast("Callable[[F], F]", numba.njit(signature, cache=True, error_model="numpy"))


# ------------------------------------------------------------------------------------------------ Black-Scholes-Merton


@compiled("float64(float64, float64)")
def log_ratio(above: float, below: float) -> float:
    """ln(above / below), by log1p near 1 where the plain quotient loses digits."""
    relative = (above - below) / below
    if -0.5 < relative < 0.5:
        return math.log1p(relative)
    return math.log(above / below)


@compiled("float64(float64)")
def normal_cdf(x: float) -> float:
    """N(x) by erfc, exact in relative terms in the left tail."""
    return 0.5 * math.erfc(-x * SQRT_HALF)


@compiled("float64(float64, float64, float64)")
def limit_weight(spot: float, strike: float, cp: float) -> float:
    """N(cp d) with no deviation left: 1 in the money, 0 out of it, 1/2 at the kink."""
    if spot == strike:
        return 0.5
    return 1.0 if (spot > strike) == (cp > 0.0) else 0.0


@compiled("UniTuple(float64, 2)(float64, int64, float64[:, ::1], float64, float64)")
def net(spot: float, elapsed: int, packed: NDArray[np.float64], rate: float, dividend: float) -> tuple[float, float]:
    """(sum of weight x delta, sum of weight x gamma) of a packed slice; see `black.slice_kernel`."""
    delta = 0.0
    gamma = 0.0
    known_spot = 0.0 <= spot < np.inf
    carry = rate - dividend
    for i in range(packed.shape[0]):
        tau = (packed[i, 1] - elapsed) / NS_PER_YEAR
        if tau < 0.0:
            continue
        strike = packed[i, 0]
        vol = packed[i, 2]
        cp = packed[i, 3]
        weight = packed[i, 4]
        deviation = vol * math.sqrt(tau)
        if not (known_spot and 0.0 <= strike < np.inf and vol >= 0.0 and deviation < np.inf):
            return np.nan, np.nan
        held = weight if dividend == 0.0 else weight * math.exp(-dividend * tau)
        if deviation > TINY and spot > 0.0 and strike > 0.0:
            d1 = (log_ratio(spot, strike) + carry * tau) / deviation + 0.5 * deviation
            delta += held * cp * normal_cdf(cp * d1)
            gamma += held * PHI_0 * math.exp(-0.5 * d1 * d1) / (spot * deviation)
        else:
            delta += held * cp * limit_weight(spot, strike * math.exp(-carry * tau), cp)
    return delta, gamma


@compiled(numba.types.void(_IN, _IN, _IN, _IN, _IN, _f64, _f64, _TABLE_OUT))
def greeks_rows(
    spot: NDArray[np.float64],
    strike: NDArray[np.float64],
    tau: NDArray[np.float64],
    vol: NDArray[np.float64],
    cp: NDArray[np.float64],
    rate: float,
    dividend: float,
    out: NDArray[np.float64],
) -> None:
    """Writes price, delta, gamma, vega, theta of each row. Shape: inputs (n,), out (5, n)."""
    carry = rate - dividend
    for i in range(spot.shape[0]):
        S = spot[i]
        K = strike[i]
        T = tau[i]
        c = cp[i]
        if T < 0.0:
            for j in range(5):
                out[j, i] = 0.0
            continue
        root = math.sqrt(T)
        w = vol[i] * root
        known = 0.0 <= S < np.inf and 0.0 <= K < np.inf and vol[i] >= 0.0 and w < np.inf and abs(c) == 1.0
        if not known or math.isinf(T):
            for j in range(5):
                out[j, i] = np.nan
            continue
        s = S * math.exp(-dividend * T)
        k = K * math.exp(-rate * T)
        if w > TINY and S > 0.0 and K > 0.0:
            d1 = (log_ratio(S, K) + carry * T) / w + 0.5 * w
            above = normal_cdf(c * d1)
            below = normal_cdf(c * (d1 - w))
            density = PHI_0 * math.exp(-0.5 * d1 * d1)
            out[2, i] = s * density / (S * S * w)
            out[3, i] = s * density * root
            decay = s * density * vol[i] / (2.0 * root)
        else:
            above = limit_weight(S, K * math.exp(-carry * T), c)
            below = above
            out[2, i] = 0.0
            out[3, i] = s * PHI_0 * root if above == 0.5 else 0.0
            decay = 0.0
        price = c * (s * above - k * below)
        out[0, i] = price if not price < 0.0 else 0.0
        out[1, i] = c * above * math.exp(-dividend * T)
        out[4, i] = c * (dividend * s * above - rate * k * below) - decay


# ------------------------------------------------------------------------------------------------ implied volatility


@compiled("float64(float64)")
def erfcx(z: float) -> float:
    """exp(z^2) erfc(z) for z > -26, to a few units in the last place.

    Below 25 the square is taken in two parts (Dekker 1971), because exp would magnify its rounding z^2 times; from
    there on the continued fraction (Abramowitz and Stegun 1964, 7.1.14) needs few terms.
    """
    if z < 25.0:
        split = 134217729.0 * z
        high = split - (split - z)
        low = z - high
        square = z * z
        rounding = ((high * high - square) + 2.0 * high * low) + low * low
        scale = math.exp(square)
        return (scale + scale * rounding) * math.erfc(z)
    fraction = z
    for k in range(16, 0, -1):
        fraction = z + 0.5 * k / fraction
    return 1.0 / (math.sqrt(math.pi) * fraction)


@compiled("float64(float64, float64)")
def excess(h: float, t: float) -> float:
    """Y(h+t) - Y(h-t) with Y = N / phi, for h <= 0 < t: the normalised Black price over its density.

    Where both terms nearly agree (small t) the difference is a Taylor series in t: the coefficients
    c_k = Y^(k)(h)/k! obey (k+1) c_{k+1} = h c_k + c_{k-1} from Y' = 1 + h Y (Jaeckel 2015, section 6, region II).
    """
    half = 0.5 * SQRT_TAU
    if t >= 0.25 or -h * t >= 0.5:
        return half * (erfcx(-(h + t) * SQRT_HALF) - erfcx(-(h - t) * SQRT_HALF))
    before = half * erfcx(-h * SQRT_HALF)
    now = 1.0 + h * before
    square = t * t
    power = t
    total = now * t
    for k in range(1, 19, 2):
        even = (h * now + before) / (k + 1)
        before = even
        now = (h * even + now) / (k + 2)
        power *= square
        total += now * power
    return 2.0 * total


@compiled("float64(float64, float64)")
def normalised_black(x: float, s: float) -> float:
    """b(x, s) = e^(x/2) N(x/s + s/2) - e^(-x/2) N(x/s - s/2) for x <= 0 < s (Jaeckel 2015, eq. 2.3)."""
    h = x / s
    t = 0.5 * s
    if h + t > 30.0:  # erfcx of a large negative number overflows where plain N loses nothing
        return math.exp(0.5 * x) * normal_cdf(h + t) - math.exp(-0.5 * x) * normal_cdf(h - t)
    return PHI_0 * math.exp(-0.5 * (h * h + t * t)) * excess(h, t)


@compiled("float64(float64, float64)")
def normalised_rest(x: float, s: float) -> float:
    """e^(x/2) - b(x, s), what is missing to the bound, as a sum of two positive terms."""
    h = x / s
    t = 0.5 * s
    return math.exp(0.5 * x) * normal_cdf(-(h + t)) + math.exp(-0.5 * x) * normal_cdf(h - t)


@compiled("float64(float64, float64, float64)")
def implied_deviation(x: float, beta: float, rest: float) -> float:
    """The s with b(x, s) = beta, for x <= 0, 0 < beta < e^(x/2) and rest = e^(x/2) - beta.

    Newton inside a bracket that each evaluation tightens; a step that leaves it is a bisection. The objective is nearly
    a straight line in s: below the inflection s = sqrt(2|x|) it is 1/sqrt(-ln b), above it b itself, and in the upper
    half -ln(e^(x/2) - b) (Jaeckel 2015, section 3).
    """
    turn = math.sqrt(-2.0 * x)
    at_turn = normalised_black(x, turn) if turn > 0.0 else 0.0
    low_side = beta < at_turn
    high_side = not low_side and rest < beta
    lo = 0.0
    hi = np.inf
    if low_side:
        hi = turn
        s = min(-x / math.sqrt(-2.0 * math.log(beta)), turn)
    else:
        lo = turn
        s = turn + SQRT_TAU * math.exp(-0.5 * x if x > -100.0 else 50.0) * (beta - at_turn)
        s = max(min(s, turn + 10.0), 1e-300)
    last = np.inf
    for _ in range(200):
        h = x / s
        t = 0.5 * s
        slope = PHI_0 * math.exp(-0.5 * (h * h + t * t))
        if high_side:
            missing = normalised_rest(x, s)
            error = -math.log(missing / rest)
            slope = slope / missing
        else:
            b = normalised_black(x, s)
            error = b - beta
            if low_side and b > 0.0:
                # 1/sqrt(-ln b) - 1/sqrt(-ln beta), written with ln(b / beta), which keeps its digits near the root
                line = 1.0 / math.sqrt(-math.log(b))
                aim = 1.0 / math.sqrt(-math.log(beta))
                error = log_ratio(b, beta) * line * line * aim * aim / (line + aim)
                slope = 0.5 * line * line * line * slope / b
        if error == 0.0:
            return s
        if error > 0.0:
            hi = min(hi, s)
        else:
            lo = max(lo, s)
        after = s - error / slope if slope > 0.0 else np.nan
        if abs(after - s) <= 2e-16 * s:
            return s
        if not lo < after < hi:
            after = 0.5 * (lo + hi) if hi < np.inf else 2.0 * s
        move = abs(after - s)
        s = after
        if move <= 2e-16 * s or (move <= 1e-9 * s and move >= last):
            return s
        last = move
    return s


@compiled(numba.types.void(_IN, _IN, _IN, _IN, _IN, _IN, _OUT, _CODES_OUT))
def implied_rows(
    price: NDArray[np.float64],
    forward: NDArray[np.float64],
    strike: NDArray[np.float64],
    tau: NDArray[np.float64],
    discount: NDArray[np.float64],
    cp: NDArray[np.float64],
    vol: NDArray[np.float64],
    status: NDArray[np.int8],
) -> None:
    """Writes vol and status of each row; see `implied.vol`. Rows arrive with the status their inputs already decide."""
    for i in range(price.shape[0]):
        vol[i] = np.nan
        if status[i] != 0:
            continue
        F = forward[i]
        K = strike[i]
        undiscounted = price[i] / discount[i]
        inside = max(cp[i] * (F - K), 0.0)
        value = undiscounted - inside
        limit = F if cp[i] > 0.0 else K
        rounding = 4.0 * 2.220446049250313e-16 * undiscounted if inside > 0.0 else 0.0
        if undiscounted >= limit:
            status[i] = ABOVE_BOUND
            continue
        if abs(value) <= rounding:
            status[i] = AT_INTRINSIC
            continue
        if value < 0.0:
            status[i] = BELOW_INTRINSIC
            continue
        x = -abs(log_ratio(F, K))
        scale = math.sqrt(F) * math.sqrt(K)
        s = implied_deviation(x, value / scale, (min(F, K) - value) / scale)
        vol[i] = s / math.sqrt(tau[i])


# ------------------------------------------------------------------------------------------------ paths


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
