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
from numba.extending import intrinsic
from numpy.typing import NDArray

from bot.pricing.status import Status

F = TypeVar("F", bound=Callable[..., Any])

NS_PER_YEAR: Final = 365.0 * 86_400.0 * 1e9
SQRT_HALF: Final = math.sqrt(0.5)
SQRT_TAU: Final = math.sqrt(2.0 * math.pi)
PHI_0: Final = 1.0 / SQRT_TAU
LOG_SQRT_TAU: Final = math.log(SQRT_TAU)
TINY: Final = 1e-100
"""A total deviation vol sqrt(tau) at or below this is no deviation."""
FAR: Final = 1e8
"""Beyond this many deviations a normal density is 0 and N is 0 or 1, long since."""
NOTHING: Final = 1e-150
"""A spot or strike at or below this is none, so that no quotient of two overflows."""
VAST: Final = 1e150
"""Inputs whose sizes add up to more than this are refused."""

SMALLEST_NORMAL: Final = 2.2250738585072014e-308
"""A price at or below this has lost digits that its vol would need."""

BLOCK: Final = 512
"""Rows that a kernel takes at a time; columns of a block lie at constant offsets, so that none can overlap."""

STRIKE: Final = 0
EXPIRY: Final = 1
VOL: Final = 2
CP: Final = 3
WEIGHT: Final = 4
PACKED_COLUMNS: Final = 5

EXPIRED: Final = float(Status.EXPIRED)
NOT_FINITE: Final = float(Status.NOT_FINITE)
OUT_OF_DOMAIN: Final = float(Status.OUT_OF_DOMAIN)
BELOW_INTRINSIC: Final = float(Status.BELOW_INTRINSIC)
AT_INTRINSIC: Final = float(Status.AT_INTRINSIC)
ABOVE_BOUND: Final = float(Status.ABOVE_BOUND)


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


def compiled_free(signature: Any) -> Callable[[F], F]:
    """`compiled`, and the interpreter is let go while it runs, so that threads work side by side."""
    return cast("Callable[[F], F]", numba.njit(signature, cache=True, error_model="numpy", nogil=True))


def without_dispatch(kernel: Any) -> Any:
    """A kernel of one signature as the bare compiled function, which converts its arguments to that signature itself.

    The dispatcher in front of it looks at the type of each argument to choose among signatures: 70 ns for six numbers.
    """
    (signature,) = kernel.signatures
    return kernel.overloads[signature].entry_point


# ------------------------------------------------------------------------------------------------ elementary functions
#
# Branch-free, so that a loop over rows becomes vector code; plain multiplies, adds, divides and roots in a written
# order, so that each lane of any vector width, and a lone row, gives the same bits on any x86-64 processor (the C
# library's exp and log do not: they pick a contracted variant where the processor has one).


def inlined(function: F) -> F:
    """A helper that is compiled into its callers: a call would keep their loops from becoming vector code."""
    return cast("F", numba.njit(function, forceinline=True, error_model="numpy"))


def instruction(emitter: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """A function of one number that compiles to the machine's own instruction."""
    return cast("Callable[[Any], Any]", intrinsic(emitter))


@instruction
def bits_of(typing_context: Any, x: Any) -> Any:
    """The 64 bits of a float as an unsigned integer."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(numba.types.uint64))

    return numba.types.uint64(numba.types.float64), code


@instruction
def float_of(typing_context: Any, u: Any) -> Any:
    """The float whose 64 bits are given."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(numba.types.float64))

    return numba.types.float64(numba.types.uint64), code


ROUNDER: Final = 6755399441055744.0
"""1.5 * 2^52: adding it rounds to the nearest integer, which then stands in the low bits."""
LOG2_E: Final = 1.4426950408889634
LN2_HIGH: Final = 6.93147180369123816490e-01
"""ln 2 with 32 trailing zero bits, so that a multiple by a binary exponent is exact; LN2_LOW is the rest."""
LN2_LOW: Final = 1.90821492927058770002e-10
EXPONENT_SHIFT: Final = np.uint64(52)
EXPONENT_ONE: Final = np.uint64(0x3FF0000000000000)
EXPONENT_BIAS: Final = np.uint64(1023)
MANTISSA: Final = np.uint64(0x000FFFFFFFFFFFFF)
SQRT_HALF_BITS: Final = np.uint64(0x3FE6A09E667F3BCD)
UP_TO_ONE: Final = np.uint64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
AS_INTEGER: Final = np.uint64(0x4330000000000000)


@inlined
def exp_sum(x: float, low: float) -> float:
    """exp(x + low) for a small correction `low`, within one unit in the last place; 0 far down, inf far up.

    x = n ln2 + r with |r| <= 0.347 (Cody and Waite 1980, chapter 6); exp(r) - 1 - r by a polynomial of degree 9 in r
    times r^2, relative error below 1e-17. From 709.5 on the answer is inf; what would be subnormal is 0.
    """
    y = x if x > -708.8 else -708.8
    y = y if y < 709.6 else 709.6
    n = (y * LOG2_E + ROUNDER) - ROUNDER
    r = (y - n * LN2_HIGH) - (n * LN2_LOW - low)
    r2 = r * r
    r4 = r2 * r2
    p01 = 0.5000000000000001 + r * 0.16666666666666669
    p23 = 0.04166666666662374 + r * 0.008333333333330032
    p45 = 0.0013888888917406447 + r * 0.00019841269863201828
    p67 = 2.4801520996825697e-05 + r * 2.7557268229963227e-06
    p89 = 2.76202305675069e-07 + r * 2.5100494788905042e-08
    p = (p01 + r2 * p23) + r4 * ((p45 + r2 * p67) + r4 * p89)
    e = 1.0 + (r + r2 * p)
    scale: float = float_of((bits_of(n + ROUNDER) + EXPONENT_BIAS) << EXPONENT_SHIFT)
    return e * scale


@inlined
def exp_product(a: float, b: float) -> float:
    """exp(a b) with the product's rounding put back (Dekker 1971), so that a large |a b| costs no digits."""
    product = a * b
    a_split = a * 134217729.0
    a_high = a_split - (a_split - a)
    a_low = a - a_high
    b_split = b * 134217729.0
    b_high = b_split - (b_split - b)
    b_low = b - b_high
    low = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return exp_sum(product, low if abs(product) < 800.0 else 0.0)


@inlined
def log_quotient(above: float, below: float) -> float:
    """ln(above / below) within two units in the last place, near 1 too, for positive finite arguments.

    q = 2^n m with m in [sqrt(1/2), sqrt(2)). Where n = 0, f = m - 1 is replaced by (above - below) / below, which has
    the digits the quotient lost; log1p(f) by the series in f / (2 + f) of fdlibm (Sun Microsystems 1993).
    """
    inverse = 1.0 / below
    q = above * inverse
    small = q < 2.2250738585072014e-308
    q = q * 18014398509481984.0 if small else q
    u = bits_of(q) + UP_TO_ONE
    n: float = float_of((u >> EXPONENT_SHIFT) | AS_INTEGER) - 4503599627371519.0
    m: float = float_of((u & MANTISSA) + SQRT_HALF_BITS)
    exact = n == 0.0
    n = n - 54.0 if small else n
    f = (above - below) * inverse if exact else m - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = w * (0.3999999999940941908 + w * (0.2222219843214978396 + w * 0.1531383769920937332))
    even = z * (
        0.6666666666666735130 + w * (0.2857142874366239149 + w * (0.1818357216161805012 + w * 0.1479819860511658591))
    )
    half = 0.5 * f * f
    return n * LN2_HIGH - ((half - (s * (half + (odd + even)) + n * LN2_LOW)) - f)


@inlined
def tail_numerator(t: float) -> float:
    """sqrt(pi/2) (1 + 2z) erfcx(z) at t = (z - 3) / (z + 3), z >= 0.

    One polynomial of degree 22 on all z >= 0 (the idea of Shepherd and Laframboise 1981), coefficients by Chebyshev
    interpolation in 60 digits, relative error below 1e-16 before rounding; four short chains instead of a long one.
    """
    t2 = t * t
    t4 = t2 * t2
    p0 = 6.1986307692206965e-06 + t4 * (4.266382992683891e-07 + t4 * 3.6347313583027685e-08)
    p0 = 1.5704127135996964 + t4 * (-0.14948736856837425 + t4 * (0.0023671221559417744 + t4 * p0))
    p1 = -2.5179049186917686e-05 + t4 * (-7.474434335552562e-07 + t4 * -9.575076498500845e-09)
    p1 = -0.16997584962429652 + t4 * (0.08561141637796083 + t4 * (-0.0009773735634834237 + t4 * p1))
    p2 = -9.047563104424177e-07 + t4 * (-1.5453016967025103e-07 + t4 * -4.250235787933824e-09)
    p2 = -0.05961049591633476 + t4 * (-0.029791922384368435 + t4 * (-0.00013179712192938368 + t4 * p2))
    p3 = 4.329278007421367e-06 + t4 * 1.0985001916973349e-07
    p3 = 0.16248611023608042 + t4 * (0.0031701223345843178 + t4 * (0.00015678370762188008 + t4 * p3))
    return (p0 + t2 * p2) + t * (p1 + t2 * p3)


@inlined
def tail_ratio(d: float) -> float:
    """N(-d) / phi(d) = sqrt(pi/2) erfcx(d / sqrt 2) for d >= 0, relative error 4e-16."""
    z = d * SQRT_HALF
    one = 1.0 + 2.0 * z
    three = z + 3.0
    inverse = 1.0 / (one * three)
    return tail_numerator((z - 3.0) * (one * inverse)) * (three * inverse)


@inlined
def two_tail_ratios(d: float, e: float) -> tuple[float, float]:
    """`tail_ratio` of two, by one division: it is the dearest instruction of vector code."""
    z = d * SQRT_HALF
    y = e * SQRT_HALF
    z_one = 1.0 + 2.0 * z
    y_one = 1.0 + 2.0 * y
    z_three = z + 3.0
    y_three = y + 3.0
    z_both = z_one * z_three
    y_both = y_one * y_three
    inverse = 1.0 / (z_both * y_both)
    z_inverse = inverse * y_both
    y_inverse = inverse * z_both
    return (
        tail_numerator((z - 3.0) * (z_one * z_inverse)) * (z_three * z_inverse),
        tail_numerator((y - 3.0) * (y_one * y_inverse)) * (y_three * y_inverse),
    )


# ------------------------------------------------------------------------------------------------ Black-Scholes-Merton


@inlined
def clipped(d: float) -> float:
    """d within the deviations where a normal density is not long since 0, so that products of d stay finite."""
    low = d if d > -FAR else -FAR
    return low if low < FAR else FAR


@inlined
def deviations(spot: float, strike: float, s: float, k: float, drift: float, w: float) -> tuple[float, float, float]:
    """(d1, d2, 1/w). Without a deviation both are far away by the sign of s - k, 0 at the kink, and 0 stands for 1/w."""
    smooth = (w > TINY) & (spot > NOTHING) & (strike > NOTHING)
    inverse = 1.0 / w
    x = (log_quotient(spot, strike) + drift) * inverse
    half = 0.5 * w
    side = FAR if s > k else (-FAR if s < k else 0.0)
    d1 = clipped(x + half) if smooth else side
    d2 = clipped(x - half) if smooth else side
    return d1, d2, inverse if smooth else 0.0


@inlined
def deviation_of_spot(spot: float, strike: float, drift: float, w: float) -> tuple[float, float]:
    """(d1, 1/w) of `deviations`, by the side of the log forward where no deviation is left: without a discounted strike."""
    there = (spot > NOTHING) & (strike > NOTHING)
    smooth = (w > TINY) & there
    inverse = 1.0 / w
    x = log_quotient(spot, strike) + drift
    apart = x if there else spot - strike
    side = FAR if apart > 0.0 else (-FAR if apart < 0.0 else 0.0)
    d1 = clipped(x * inverse + 0.5 * w) if smooth else side
    return d1, inverse if smooth else 0.0


@inlined
def outlook(
    S: float, K: float, T: float, v: float, r: float, q: float
) -> tuple[float, float, float, float, float, float]:
    """(Dq, discounted spot, discounted strike, d1, d2, 1/w or 0 where no deviation is left)."""
    Dq = exp_product(-q, T)
    s = S * Dq
    k = K * exp_product(-r, T)
    d1, d2, inverse = deviations(S, K, s, k, (r - q) * T, v * math.sqrt(T))
    return Dq, s, k, d1, d2, inverse


@inlined
def five(
    S: float, T: float, v: float, c: float, r: float, q: float,
    Dq: float, s: float, k: float, d1: float, d2: float, inverse: float,
) -> tuple[float, float, float, float, float]:  # fmt: skip
    """Price, delta, gamma, vega, theta of one contract, by its `outlook`.

    The out-of-the-money option is the difference of two tails over one density (s phi(d1) = k phi(d2)), each tail with
    all its digits; the other side of the strike adds the intrinsic.
    """
    density = PHI_0 * exp_sum(-0.5 * d1 * d1, 0.0)
    m = s * density
    y1, y2 = two_tail_ratios(abs(d1), abs(d2))
    low_spot = s <= k
    near = y1 if low_spot else y2
    far = y2 if low_spot else y1
    inside = (d1 if low_spot else -d2) > 0.0
    value = (m * (near - far)) if not inside else ((s if low_spot else k) - m * (near + far))
    value = value if value > 0.0 else 0.0
    intrinsic = c * (s - k)
    price = value + (intrinsic if intrinsic > 0.0 else 0.0)
    tail = density * y1
    above = 1.0 - tail if c * d1 > 0.0 else tail
    owed = k - m * y2 if c * d2 > 0.0 else m * y2
    gamma = Dq * density * inverse / S if S > 0.0 else 0.0
    theta = c * (q * (s * above) - r * owed) - 0.5 * m * v * (v * inverse)
    return price, c * (Dq * above), gamma, m * math.sqrt(T), theta


@compiled_free(numba.types.void(*(_IN,) * 7, _TABLE_OUT, numba.types.int64))
def greeks_rows(
    spot: NDArray[np.float64],
    strike: NDArray[np.float64],
    tau: NDArray[np.float64],
    vol: NDArray[np.float64],
    cp: NDArray[np.float64],
    rate: NDArray[np.float64],
    dividend: NDArray[np.float64],
    out: NDArray[np.float64],
    first: int,
) -> None:
    """Writes price, delta, gamma, vega, theta of each row from column `first` of out on. Shape: inputs (n,), out (5, m).

    Two short loops over a block, since one long loop outgrows the processor's window; what the first hands to the second
    lies at constant offsets of one array, which tells the compiler that it overlaps nothing.
    """
    count = spot.shape[0]
    a = np.empty(6 * BLOCK)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        Ss, Ks, Ts, vs = spot[start:stop], strike[start:stop], tau[start:stop], vol[start:stop]
        cs, rs, qs = cp[start:stop], rate[start:stop], dividend[start:stop]
        since, until = first + start, first + stop
        prices = out[0, since:until]
        deltas = out[1, since:until]
        gammas = out[2, since:until]
        vegas = out[3, since:until]
        thetas = out[4, since:until]
        for j in range(stop - start):
            Dq, s, k, d1, d2, inverse = outlook(Ss[j], Ks[j], Ts[j], vs[j], rs[j], qs[j])
            a[j] = Dq
            a[BLOCK + j] = s
            a[2 * BLOCK + j] = k
            a[3 * BLOCK + j] = d1
            a[4 * BLOCK + j] = d2
            a[5 * BLOCK + j] = inverse
        for j in range(stop - start):
            S, T, v, c = Ss[j], Ts[j], vs[j], cs[j]
            s, k, d1, d2 = a[BLOCK + j], a[2 * BLOCK + j], a[3 * BLOCK + j], a[4 * BLOCK + j]
            price, delta, gamma, vega, theta = five(S, T, v, c, rs[j], qs[j], a[j], s, k, d1, d2, a[5 * BLOCK + j])
            held = S + Ks[j] + v + T + abs(rs[j]) + abs(qs[j]) <= VAST
            finite = abs((s + k) + (((price + delta) + gamma) + (vega + theta))) < np.inf
            keep = (S >= 0.0) & (Ks[j] >= 0.0) & (v >= 0.0) & (abs(c) == 1.0) & (T >= 0.0) & held & finite
            fill = 0.0 if T < 0.0 else np.nan
            prices[j] = price if keep else fill
            deltas[j] = delta if keep else fill
            gammas[j] = gamma if keep else fill
            vegas[j] = vega if keep else fill
            thetas[j] = theta if keep else fill


@compiled("UniTuple(float64, 2)(float64, int64, float64[:, ::1], float64, float64)")
def net(spot: float, elapsed: int, packed: NDArray[np.float64], rate: float, dividend: float) -> tuple[float, float]:
    """(sum of weight x delta, sum of weight x gamma) of a packed slice; see `black.slice_kernel`.

    The rows are vector code over columns; the sums then run in the order of the rows, as bits demand.
    """
    count = packed.shape[0]
    columns = np.empty((7, count))
    for i in range(count):
        columns[0, i] = packed[i, STRIKE]
        columns[1, i] = (packed[i, EXPIRY] - elapsed) / NS_PER_YEAR
        columns[2, i] = packed[i, VOL]
        columns[3, i] = packed[i, CP]
        columns[4, i] = packed[i, WEIGHT]
    known_market = 0.0 <= spot < np.inf and abs(rate) < np.inf and abs(dividend) < np.inf
    carry = rate - dividend
    for i in range(count):
        strike = columns[0, i]
        tau = columns[1, i]
        vol = columns[2, i]
        cp = columns[3, i]
        weight = columns[4, i]
        Dq = exp_sum(-dividend * tau, 0.0)
        root = math.sqrt(tau)
        w = vol * root
        d1, inverse = deviation_of_spot(spot, strike, carry * tau, w)
        density = PHI_0 * exp_sum(-0.5 * d1 * d1, 0.0)
        tail = density * tail_ratio(abs(d1))
        above = 1.0 - tail if cp * d1 > 0.0 else tail
        held = weight * Dq
        delta = held * (cp * above)
        gamma = held * density * inverse / spot if spot > 0.0 else 0.0
        known = known_market & (strike >= 0.0) & (strike < np.inf) & (vol >= 0.0) & (w < np.inf)
        fill = 0.0 if tau < 0.0 else np.nan
        keep = known & (tau >= 0.0)
        columns[5, i] = delta if keep else fill
        columns[6, i] = gamma if keep else fill
    delta_sum = 0.0
    gamma_sum = 0.0
    for i in range(count):
        delta_sum += columns[5, i]
        gamma_sum += columns[6, i]
    if math.isnan(delta_sum) or math.isnan(gamma_sum):
        return np.nan, np.nan
    return delta_sum, gamma_sum


# ------------------------------------------------------------------------------------------------ implied volatility


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


@inlined
def rough_log(q: float) -> float:
    """ln q to 7e-8 for a positive normal number: enough for a first guess and its first step, and half the work.

    By a polynomial of degree 7 in m - 1, Chebyshev interpolation in 40 digits; n and m as in `log_quotient`.
    """
    u = bits_of(q) + UP_TO_ONE
    n: float = float_of((u >> EXPONENT_SHIFT) | AS_INTEGER) - 4503599627371519.0
    m: float = float_of((u & MANTISSA) + SQRT_HALF_BITS)
    f = m - 1.0
    f2 = f * f
    p01 = 0.9999999681180599 - f * 0.5000037505628973
    p23 = 0.333346060234523 - f * 0.2496890695895267
    p45 = 0.19913347882373827 - f * 0.17278206066426674
    p67 = 0.16126247905987104 - f * 0.09895350736906514
    return n * 0.6931471805599453 + f * ((p01 + f2 * p23) + (f2 * f2) * (p45 + f2 * p67))


@inlined
def rough_tail_numerator(t: float) -> float:
    """`tail_numerator` to 7e-9, by a polynomial of degree 11."""
    t2 = t * t
    t4 = t2 * t2
    p01 = 1.5704127111954886 - t * 0.16997584202147026
    p23 = -0.05961032269943288 + t * 0.16248556155157878
    p45 = -0.14948939637181377 + t * 0.08561789521384407
    p67 = -0.029783205327673194 + t * 0.003141781148562902
    p89 = 0.0023500395144646084 - t * 0.0009200354117075254
    p1011 = -0.00011597879669589074 + t * 0.00010035856523804404
    return (p01 + t2 * p23) + t4 * ((p45 + t2 * p67) + t4 * (p89 + t2 * p1011))


@inlined
def rough_tail_ratio(d: float) -> float:
    """`tail_ratio` to 7e-9."""
    z = d * SQRT_HALF
    one = 1.0 + 2.0 * z
    three = z + 3.0
    inverse = 1.0 / (one * three)
    return rough_tail_numerator((z - 3.0) * (one * inverse)) * (three * inverse)


@inlined
def quantile_square(u: float, log_rest: float) -> float:
    """z^2 with 2 N(z) - 1 = u, to a few parts in a thousand (Winitzki 2008); log_rest = ln(1 - u^2)."""
    L = log_rest if u > 0.01 else -u * u
    A = 4.330746750799873 + 0.5 * L
    root = math.sqrt(A * A - L * 6.802721088435374)
    return -2.0 * 6.802721088435374 * L / (root + A)


@inlined
def first_deviation_below(X: float, u: float, turn: float) -> float:
    """A first s below the inflection `turn`, within a percent or so.

    There u = X e^(X/2) B(X/s) nearly, with B(e) = phi(e)/e - N(-e) (Bachelier 1900): exact as X goes to 0, and in the
    tail for any X. Inverted by a fit of e / sqrt(2L) in 1/sqrt(L), L = -ln B, and near the money by its expansion to e^2.
    """
    L = 0.5 * X - rough_log(u / X)
    t = 1.0 / math.sqrt(L if L > 1.85 else 1.85)
    ratio = 1.0001501523341385 + t * (
        -0.08211389603602788 + t * (-4.262525614440879 + t * (6.6453612327211875 + t * -2.9717480164184455))
    )
    in_tail = X * t * SQRT_HALF / ratio
    w = (u + 0.5 * X) * SQRT_TAU
    discriminant = w * w - 2.0 * X * X
    near = 0.5 * (w + math.sqrt(discriminant if discriminant > 0.0 else 0.0))
    s = in_tail if L > 1.85 else near
    return s if s < turn else turn


@inlined
def first_deviation_above(u: float, log_u: float, turn: float, at_turn: float) -> float:
    """A first s above the inflection: the normal quantile, exact at the money, shifted to meet the inflection."""
    log_turn = rough_log((1.0 - at_turn) * (1.0 + at_turn))
    gain = 4.0 * (quantile_square(u, log_u) - quantile_square(at_turn, log_turn))
    return math.sqrt(turn * turn + (gain if gain > 0.0 else 0.0))


@inlined
def householder(newton: float, halley: float, third: float) -> float:
    """The step of fourth order that a Newton step and two ratios of derivatives give (Householder 1970)."""
    bent = halley * newton
    return newton * (1.0 + 0.5 * bent) / (1.0 + bent + third * (newton * newton) * 0.16666666666666666)


@inlined
def bends(s: float, h: float, inverse: float) -> tuple[float, float]:
    """(b''/b', b'''/b') of the normalised price by s, where h = -X/s."""
    hs = h * inverse
    bend = h * hs - 0.25 * s
    return bend, bend * bend - 3.0 * hs * hs - 0.25


@inlined
def move_by_logs(s: float, h: float, inverse: float, ratio: float, error: float, log_aim: float, low: bool) -> float:
    """The move of s for error = ln(model / aim), ratio = model/b'; model is b below the inflection and 1 - b above.

    The objective is 1/ln b below and ln(1 - b) above (Jaeckel 2015, section 4).
    """
    bend, third = bends(s, h, inverse)
    slope = 1.0 / ratio
    log_model = log_aim + error
    over = 1.0 / log_model
    k1 = slope * (1.0 + 2.0 * over)
    newton = error * ratio
    newton = -newton * (log_model / log_aim) if low else newton
    halley = bend - k1 if low else bend + slope
    third = (
        third + 2.0 * slope * slope * (1.0 + 3.0 * over * (1.0 + over)) - 3.0 * bend * k1
        if low
        else third + slope * (2.0 * slope + 3.0 * bend)
    )
    return householder(newton, halley, third)


@inlined
def move_by_price(s: float, h: float, inverse: float, density: float, error: float) -> float:
    """The move of s on b itself, for error = aim - b and density = b'."""
    bend, third = bends(s, h, inverse)
    return householder(error / density, bend, third)


@inlined
def rough_ratio(X: float, s: float, low: bool) -> float:
    """`ratio_by_tails` to 7e-9 of the tails."""
    h = -X * (1.0 / s)
    t = 0.5 * s
    y1 = rough_tail_ratio(abs(h + t))
    y2 = rough_tail_ratio(t - h)
    return (y1 - y2) if low else (y1 + y2)


@inlined
def ratio_by_tails(X: float, s: float, low: bool) -> float:
    """The model over its slope: Y(d) - Y(d - s) below the inflection, Y(-d) + Y(d - s) above it, Y = N/phi."""
    h = -X * (1.0 / s)
    t = 0.5 * s
    y1, y2 = two_tail_ratios(abs(h + t), t - h)
    return (y1 - y2) if low else (y1 + y2)


@inlined
def step_by_logs(
    X: float, s: float, turn: float, ratio: float, log_of_ratio: float, log_aim: float, low: bool
) -> float:
    """The next s, kept on its side of the inflection; the logarithm of the model needs no exponential."""
    inverse = 1.0 / s
    h = -X * inverse
    d = h + 0.5 * s
    error = log_of_ratio - LOG_SQRT_TAU - 0.5 * d * d - log_aim
    after = s + move_by_logs(s, h, inverse, ratio, error, log_aim, low)
    return (turn if after > turn else after) if low else (turn if after < turn else after)


@inlined
def excess_series(h: float, t: float) -> float:
    """Y(h+t) - Y(h-t) for small t; see `excess`. The derivatives of Y at h obey a_{k+1} = h a_k + k a_{k-1}."""
    even = tail_ratio(-h)
    odd = 1.0 + h * even
    square = t * t
    power = t
    total = odd * t
    even = h * odd + 1.0 * even
    odd = h * even + 2.0 * odd
    power *= square * 0.16666666666666666
    total += odd * power
    even = h * odd + 3.0 * even
    odd = h * even + 4.0 * odd
    power *= square * 0.05
    total += odd * power
    even = h * odd + 5.0 * even
    odd = h * even + 6.0 * odd
    power *= square * 0.023809523809523808
    total += odd * power
    even = h * odd + 7.0 * even
    odd = h * even + 8.0 * odd
    power *= square * 0.013888888888888888
    total += odd * power
    even = h * odd + 9.0 * even
    odd = h * even + 10.0 * odd
    power *= square * 0.00909090909090909
    total += odd * power
    even = h * odd + 11.0 * even
    odd = h * even + 12.0 * odd
    power *= square * 0.00641025641025641
    total += odd * power
    even = h * odd + 13.0 * even
    odd = h * even + 14.0 * odd
    power *= square * 0.004761904761904762
    total += odd * power
    even = h * odd + 15.0 * even
    odd = h * even + 16.0 * odd
    power *= square * 0.003676470588235294
    total += odd * power
    even = h * odd + 17.0 * even
    odd = h * even + 18.0 * odd
    power *= square * 0.0029239766081871343
    total += odd * power
    return 2.0 * total


SERIES_DIVISORS: Final = tuple(1.0 / (k * (k + 1)) for k in range(2, 20, 2))


@inlined
def excess_series_cut(h: float, t: float) -> float:
    """The bits of `excess_series`, without the terms that are too small to change them; for one row, not for vectors."""
    even = tail_ratio(-h)
    odd = 1.0 + h * even
    square = t * t
    power = t
    total = odd * t
    k = 2.0
    for divisor in SERIES_DIVISORS:
        even = h * odd + (k - 1.0) * even
        odd = h * even + k * odd
        power *= square * divisor
        term = odd * power
        if term < 2e-17 * total:  # the terms fall, and a quarter of an ulp is 2.8e-17 of the total or more
            break
        total += term
        k += 2.0
    return 2.0 * total


@inlined
def last_step(X: float, s: float, u: float, rest: float, log_aim: float, low: bool) -> float:
    """The move of s that ends the search, on an objective that has all the digits of the price.

    Between the inflection and half the bound that is b itself: ln(1 - b) has lost the digits of a small b. By branches,
    which a lone row takes faster than it computes every side.
    """
    inverse = 1.0 / s
    h = -X * inverse
    t = 0.5 * s
    d = h + t
    E = PHI_0 * exp_sum(-0.5 * d * d, 0.0)
    if low:
        if t < 0.25 and -h * t < 0.5:
            ratio = excess_series_cut(h, t)
        else:
            y1, y2 = two_tail_ratios(abs(d), t - h)
            ratio = y1 - y2
        return move_by_logs(s, h, inverse, ratio, log_quotient(E * ratio, u), log_aim, True)
    if u < 0.5:
        if t < 0.25 and -h * t < 0.5:
            b = E * excess_series_cut(h, t)
        else:
            y1, y2 = two_tail_ratios(abs(d), t - h)
            b = 1.0 - E * (y1 + y2)
        return move_by_price(s, h, inverse, E, u - b)
    y1, y2 = two_tail_ratios(abs(d), t - h)
    ratio = y1 + y2
    return move_by_logs(s, h, inverse, ratio, log_quotient(E * ratio, rest), log_aim, False)


@inlined
def price_at_turn(turn: float) -> float:
    """The normalised price at the inflection s = turn, to 3e-9: it only says on which objective the search runs."""
    there = 0.5 - PHI_0 * rough_tail_ratio(turn)
    return there if there > 0.0 else 0.0


MORE: Final = 3
"""Exact steps, before the last, of quotes that the rough step did not settle."""
WIDTH: Final = 256
"""Rows a block of implied vols has: its columns stay in the nearest cache."""
SETTLED: Final = 1e-4
"""A last move of fourth order that is no greater, relative to s, leaves an error below the last place."""


@inlined
def settled(s: float, move: float, u: float, rest: float) -> float:
    """s + move where that is the root to the last places, else NaN."""
    found = (abs(move) <= SETTLED * s) & (s > 1e-6) & (u > 1e-290) & (rest > 1e-290)
    return s + move if found else np.nan


@inlined
def deviation(X: float, u: float, rest: float, more: int) -> float:
    """s with N(d) - e^X N(d - s) = u, d = s/2 - X/s, or NaN where the search has not settled it.

    X = |ln(F/K)| >= 0, u the out-of-the-money price over its bound, rest = 1 - u with all its digits. A first guess, a
    rough step of fourth order (or so many exact ones) and a last step, whose length tells whether they were enough.
    Source: Jaeckel 2015, "Let's Be Rational", for the normalisation, the objectives and the order of the steps.
    """
    turn = math.sqrt(2.0 * X)
    at_turn = price_at_turn(turn)
    if u < at_turn:
        log_aim = log_quotient(u, 1.0)
        s = first_deviation_below(X, u, turn)
        if more == 0:
            ratio = rough_ratio(X, s, True)
            s = step_by_logs(X, s, turn, ratio, rough_log(ratio), log_aim, True)
        for _ in range(more):
            ratio = ratio_by_tails(X, s, True)
            s = step_by_logs(X, s, turn, ratio, log_quotient(ratio, 1.0), log_aim, True)
        return settled(s, last_step(X, s, u, rest, log_aim, True), u, rest)
    log_aim = log_quotient(rest, 1.0)
    s = first_deviation_above(u, rough_log(rest * (1.0 + u)), turn, at_turn)
    if more == 0:
        ratio = rough_ratio(X, s, False)
        s = step_by_logs(X, s, turn, ratio, rough_log(ratio), log_aim, False)
    for _ in range(more):
        ratio = ratio_by_tails(X, s, False)
        s = step_by_logs(X, s, turn, ratio, log_quotient(ratio, 1.0), log_aim, False)
    return settled(s, last_step(X, s, u, rest, log_aim, False), u, rest)


@compiled("float64(float64, float64, float64)")
def deviation_by_more(X: float, u: float, rest: float) -> float:
    """`deviation` with more steps, all exact: for far strikes and short days, where the rough step is not enough."""
    return deviation(X, u, rest, MORE)


@inlined
def quote_status(
    price: float,
    forward: float,
    strike: float,
    tau: float,
    discount: float,
    cp: float,
    undiscounted: float,
    value: float,
) -> float:
    """The status of a quote by its inputs, its undiscounted price and its time value, as a float and by selects."""
    bound = forward if forward < strike else strike
    lost = 8.881784197001252e-16 * undiscounted if cp * (forward - strike) > 0.0 else 0.0
    normal = SMALLEST_NORMAL * (bound if bound > 1.0 else 1.0)
    code = BELOW_INTRINSIC if value < 0.0 else 0.0
    code = AT_INTRINSIC if (abs(value) <= lost) | (abs(value) <= normal) else code
    code = ABOVE_BOUND if undiscounted >= (forward if cp > 0.0 else strike) else code
    possible = (forward > 0.0) & (strike > 0.0) & (discount > 0.0) & (abs(cp) == 1.0)
    code = code if possible else OUT_OF_DOMAIN
    code = EXPIRED if tau <= 0.0 else code
    market = (abs(price) < np.inf) & (abs(forward) < np.inf) & (abs(discount) < np.inf)
    finite = market & (abs(strike) < np.inf) & (abs(tau) < np.inf) & (abs(cp) < np.inf)
    return code if finite else NOT_FINITE


@compiled("float64(float64, float64, float64)")
def searched_deviation(value: float, forward: float, strike: float) -> float:
    """vol sqrt(tau) of an out-of-the-money value by the bracketed search, which is right on the whole domain."""
    x = -abs(log_ratio(forward, strike))
    scale = math.sqrt(forward) * math.sqrt(strike)
    return implied_deviation(x, value / scale, (min(forward, strike) - value) / scale)


@inlined
def guess_block(a: NDArray[np.float64], size: int) -> None:
    """First s of rows to column 3; columns 4 to 6: the inflection, the price there, the logarithm of the aim."""
    for j in range(size):
        turn = math.sqrt(2.0 * a[j])
        at_turn = price_at_turn(turn)
        a[4 * WIDTH + j] = turn
        a[5 * WIDTH + j] = at_turn
        a[6 * WIDTH + j] = log_quotient(a[WIDTH + j] if a[WIDTH + j] < at_turn else a[2 * WIDTH + j], 1.0)
    for j in range(size):
        u = a[WIDTH + j]
        a[7 * WIDTH + j] = rough_log(a[2 * WIDTH + j] * (1.0 + u))
    for j in range(size):
        a[8 * WIDTH + j] = first_deviation_above(a[WIDTH + j], a[7 * WIDTH + j], a[4 * WIDTH + j], a[5 * WIDTH + j])
    for j in range(size):
        u = a[WIDTH + j]
        below = first_deviation_below(a[j], u, a[4 * WIDTH + j])
        a[3 * WIDTH + j] = below if u < a[5 * WIDTH + j] else a[8 * WIDTH + j]


@inlined
def step_block(a: NDArray[np.float64], size: int, more: int) -> None:
    """One rough step of each row, or so many exact ones."""
    if more == 0:
        for j in range(size):
            low = a[WIDTH + j] < a[5 * WIDTH + j]
            a[7 * WIDTH + j] = rough_ratio(a[j], a[3 * WIDTH + j], low)
        for j in range(size):
            low = a[WIDTH + j] < a[5 * WIDTH + j]
            ratio = a[7 * WIDTH + j]
            a[3 * WIDTH + j] = step_by_logs(
                a[j], a[3 * WIDTH + j], a[4 * WIDTH + j], ratio, rough_log(ratio), a[6 * WIDTH + j], low
            )
    for _ in range(more):
        for j in range(size):
            low = a[WIDTH + j] < a[5 * WIDTH + j]
            a[7 * WIDTH + j] = ratio_by_tails(a[j], a[3 * WIDTH + j], low)
        for j in range(size):
            low = a[WIDTH + j] < a[5 * WIDTH + j]
            ratio = a[7 * WIDTH + j]
            a[3 * WIDTH + j] = step_by_logs(
                a[j], a[3 * WIDTH + j], a[4 * WIDTH + j], ratio, log_quotient(ratio, 1.0), a[6 * WIDTH + j], low
            )


@inlined
def end_block(a: NDArray[np.float64], size: int) -> None:
    """The last step of each row, and whether it settles."""
    for j in range(size):
        s = a[3 * WIDTH + j]
        h = -a[j] * (1.0 / s)
        t = 0.5 * s
        a[7 * WIDTH + j] = excess_series(h, t)
    for j in range(size):
        s = a[3 * WIDTH + j]
        h = -a[j] * (1.0 / s)
        t = 0.5 * s
        d = h + t
        E = PHI_0 * exp_sum(-0.5 * d * d, 0.0)
        y1, y2 = two_tail_ratios(abs(d), t - h)
        both = y1 + y2
        near = (t < 0.25) & (-h * t < 0.5)
        low = a[WIDTH + j] < a[5 * WIDTH + j]
        series = a[7 * WIDTH + j]
        a[8 * WIDTH + j] = (series if near else y1 - y2) if low else both
        a[7 * WIDTH + j] = E * series if near else 1.0 - E * both
        a[4 * WIDTH + j] = E
    for j in range(size):
        s = a[3 * WIDTH + j]
        u = a[WIDTH + j]
        rest = a[2 * WIDTH + j]
        low = u < a[5 * WIDTH + j]
        E = a[4 * WIDTH + j]
        ratio = a[8 * WIDTH + j]
        inverse = 1.0 / s
        h = -a[j] * inverse
        error = log_quotient(E * ratio, u if low else rest)
        by_logs = move_by_logs(s, h, inverse, ratio, error, a[6 * WIDTH + j], low)
        by_price = move_by_price(s, h, inverse, E, u - a[7 * WIDTH + j])
        a[3 * WIDTH + j] = settled(s, by_price if (not low) & (u < 0.5) else by_logs, u, rest)


@inlined
def solve_block(a: NDArray[np.float64], size: int, more: int) -> None:
    """`deviation` of rows X, u, rest (columns 0, 1, 2 of `a`) to column 3, bit for bit, as vector code.

    Many short loops, since a long one outgrows the processor's window: the next row's work could not begin before this
    row's chain of dependent steps is through. Both sides of the inflection are computed, and one is kept.
    """
    guess_block(a, size)
    step_block(a, size, more)
    end_block(a, size)


@compiled_free(numba.types.void(_IN, _IN, _IN, _IN, _IN, _IN, _OUT, _CODES_OUT))
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
    """Writes vol and status of each row; see `implied.vol`. Shape: all (n,).

    Rows that few steps leave open are gathered and solved by more.
    """
    count = price.shape[0]
    a = np.empty(13 * WIDTH)
    rows = np.empty(WIDTH, dtype=np.int64)
    for start in range(0, count, WIDTH):
        stop = min(start + WIDTH, count)
        size = stop - start
        Ps, Fs, Ks, Ts = price[start:stop], forward[start:stop], strike[start:stop], tau[start:stop]
        Ds, cs = discount[start:stop], cp[start:stop]
        vols = vol[start:stop]
        codes = status[start:stop]
        for j in range(size):
            undiscounted = Ps[j] / Ds[j]
            intrinsic = cs[j] * (Fs[j] - Ks[j])
            value = undiscounted - (intrinsic if intrinsic > 0.0 else 0.0)
            bound = Fs[j] if Fs[j] < Ks[j] else Ks[j]
            a[9 * WIDTH + j] = value
            a[10 * WIDTH + j] = undiscounted
            a[WIDTH + j] = value / bound
            a[2 * WIDTH + j] = (bound - value) / bound
        for j in range(size):
            a[j] = abs(log_quotient(Fs[j], Ks[j]))
        solve_block(a, size, 0)
        for j in range(size):
            a[11 * WIDTH + j] = quote_status(
                Ps[j], Fs[j], Ks[j], Ts[j], Ds[j], cs[j], a[10 * WIDTH + j], a[9 * WIDTH + j]
            )
        for j in range(size):
            found = a[3 * WIDTH + j] / math.sqrt(Ts[j])
            good = a[11 * WIDTH + j] == 0.0
            solved = good & (found < np.inf)
            a[12 * WIDTH + j] = 1.0 if good & (not solved) else 0.0
            vols[j] = found if solved else np.nan
        for j in range(size):
            codes[j] = np.int8(a[11 * WIDTH + j])
        left = 0
        for j in range(size):
            if a[12 * WIDTH + j] != 0.0:
                rows[left] = j
                left += 1
        for j in range(left):
            for k in range(3):
                a[k * WIDTH + j] = a[k * WIDTH + rows[j]]  # rows[j] >= j, so nothing is read after it is written
        if left > 0:
            solve_block(a, left, MORE)
        for j in range(left):
            i = rows[j]
            s = a[3 * WIDTH + j]
            if math.isnan(s):
                s = searched_deviation(a[9 * WIDTH + i], Fs[i], Ks[i])
            vols[i] = s / math.sqrt(Ts[i])
            if not vols[i] < np.inf:  # inputs at the ends of the float range, whose ratios overflow
                vols[i] = np.nan
                codes[i] = np.int8(OUT_OF_DOMAIN)


@compiled("Tuple((float64, int64))(float64, float64, float64, float64, float64, float64)")
def implied_one(
    price: float, forward: float, strike: float, tau: float, discount: float, cp: float
) -> tuple[float, int]:
    """(vol, status code) of one quote: the row `implied_rows` would give, without its arrays."""
    undiscounted = price / discount
    intrinsic = cp * (forward - strike)
    value = undiscounted - (intrinsic if intrinsic > 0.0 else 0.0)
    code = quote_status(price, forward, strike, tau, discount, cp, undiscounted, value)
    if code != 0.0:
        return np.nan, int(code)
    bound = forward if forward < strike else strike
    X = abs(log_quotient(forward, strike))
    s = deviation(X, value / bound, (bound - value) / bound, 0)
    if math.isnan(s):
        s = deviation_by_more(X, value / bound, (bound - value) / bound)
    if math.isnan(s):
        s = searched_deviation(value, forward, strike)
    found = s / math.sqrt(tau)
    return (found, 0) if found < np.inf else (np.nan, int(OUT_OF_DOMAIN))


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
