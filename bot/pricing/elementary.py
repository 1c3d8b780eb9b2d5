"""An elementary function here is branch-free arithmetic; law: the same bits in any lane, row, batch and processor.

Branch-free, so that a loop over rows becomes vector code; plain multiplies, adds, divides and roots in a written order, so
that each lane of any vector width, and a lone row, gives the same bits on any x86-64 processor (the C library's exp and
log do not: they pick a contracted variant where the processor has one). Compiled into the kernels that call them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, cast

import numba
import numpy as np
from numba.extending import intrinsic

from bot.pricing.compiler import inlined

SQRT_HALF: Final = math.sqrt(0.5)
SQRT_TAU: Final = math.sqrt(2.0 * math.pi)
PHI_0: Final = 1.0 / SQRT_TAU
TINY: Final = 1e-100
"""A total deviation vol sqrt(tau) at or below this is no deviation."""
FAR: Final = 1e8
"""Beyond this many deviations a normal density is 0 and N is 0 or 1, long since."""
NOTHING: Final = 1e-150
"""A spot or strike at or below this is none, so that no quotient of two overflows."""


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


# ------------------------------------------------------------------------------------------------ deviations


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
