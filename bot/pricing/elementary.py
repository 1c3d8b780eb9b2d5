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
UPPER_HALF: Final = np.uint64(0xFFFFFFFFF8000000)
LEAST_POWER: Final = -708.8
GREATEST_POWER: Final = 709.6


@inlined
def exp_sum(x: float, low: float) -> float:
    """exp(x + low) for a small correction `low`, within one unit in the last place; 0 far down, inf far up.

    From 709.5 on the answer is inf; what would be subnormal is 0.
    """
    y = x if x > LEAST_POWER else LEAST_POWER
    return exp_between(y if y < GREATEST_POWER else GREATEST_POWER, low)


@inlined
def exp_between(y: float, low: float) -> float:
    """`exp_sum` for -708.8 <= y <= 709.6, where neither end has to be looked for.

    y = n ln2 + r with |r| <= 0.347 (Cody and Waite 1980, chapter 6); exp(r) - 1 - r by a polynomial of degree 9 in r
    times r^2, relative error below 1e-17.
    """
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
def lost_by_product(a: float, b: float, product: float) -> float:
    """What rounding took from the product a b (Dekker 1971), by the upper 26 bits of each factor and their rest."""
    a_high: float = float_of(bits_of(a) & UPPER_HALF)
    a_low = a - a_high
    b_high: float = float_of(bits_of(b) & UPPER_HALF)
    b_low = b - b_high
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@inlined
def exp_product(a: float, b: float) -> float:
    """exp(a b) with the product's rounding put back, so that a large |a b| costs no digits."""
    product = a * b
    low = lost_by_product(a, b, product)
    return exp_sum(product, low if abs(product) < 800.0 else 0.0)


@inlined
def exp_product_between(a: float, b: float) -> float:
    """`exp_product`, the same bits, for |a b| <= 700."""
    product = a * b
    return exp_between(product, lost_by_product(a, b, product))


@inlined
def log_quotient(above: float, below: float) -> float:
    """ln(above / below) within two units in the last place, near 1 too, for positive finite arguments."""
    inverse = 1.0 / below
    q = above * inverse
    small = q < 2.2250738585072014e-308
    return log_parts(above, below, inverse, q * 18014398509481984.0 if small else q, 54.0 if small else 0.0)


@inlined
def log_normal_quotient(above: float, below: float) -> float:
    """`log_quotient`, the same bits, where above / below is no subnormal number: for a spot and a strike above NOTHING."""
    inverse = 1.0 / below
    return log_parts(above, below, inverse, above * inverse, 0.0)


@inlined
def log_parts(above: float, below: float, inverse: float, q: float, binades: float) -> float:
    """ln of above / below = q / 2^binades, inverse = 1 / below.

    q = 2^n m with m in [sqrt(1/2), sqrt(2)). Where n = 0, f = m - 1 is replaced by (above - below) / below, which has
    the digits the quotient lost; log1p(f) by the series in f / (2 + f) of fdlibm (Sun Microsystems 1993).
    """
    u = bits_of(q) + UP_TO_ONE
    n: float = float_of((u >> EXPONENT_SHIFT) | AS_INTEGER) - 4503599627371519.0
    m: float = float_of((u & MANTISSA) + SQRT_HALF_BITS)
    exact = n == 0.0
    n = n - binades
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
def tail_above(d: float) -> float:
    """The numerator of N(-d) / phi(d) = sqrt(pi/2) erfcx(d / sqrt 2) on all d >= 0; `tail_below` is its denominator.

    One quotient of polynomials of degree 10 and 11, relative error 9.5e-18 before rounding: near-minimax by Lawson's
    weights in 50 digits on (d - 3) / (d + 3). Every coefficient is positive, so no digit is lost to cancellation.
    """
    e = d * d
    even = 1505222.668380181 + e * (
        2188877.391689009 + e * (453327.46748341783 + e * (26228.36836893524 + e * (426.37678230728056 + e)))
    )
    odd = 2582444.0295425477 + e * (
        1187820.0321084126 + e * (126669.74772927366 + e * (3982.164598774895 + e * 29.329896602508512))
    )
    return even + d * odd


@inlined
def tail_below(d: float) -> float:
    """The denominator of N(-d) / phi(d) on all d >= 0; see `tail_above`."""
    e = d * d
    even = 1200993.9276710378 + e * (
        3554585.923571685
        + e * (1306818.7762889385 + e * (130593.25255604855 + e * (4011.4944953806107 + e * 29.32989660250854)))
    )
    odd = 3018746.7328162543 + e * (
        2593937.297525292 + e * (478713.08139487886 + e * (26652.74515090737 + e * (427.3767823072646 + e)))
    )
    return even + d * odd


@inlined
def tail_ratio(d: float) -> float:
    """N(-d) / phi(d) for d >= 0, relative error 5e-16; at FAR for all beyond it, where the density is 0."""
    near = FAR if d > FAR else d
    return tail_above(near) / tail_below(near)


@inlined
def two_tail_ratios(d: float, e: float) -> tuple[float, float]:
    """`tail_ratio` of two, by one division: it is the dearest instruction of vector code."""
    return two_near_tail_ratios(FAR if d > FAR else d, FAR if e > FAR else e)


@inlined
def two_near_tail_ratios(d: float, e: float) -> tuple[float, float]:
    """`two_tail_ratios`, the same bits, for d and e up to FAR; beyond it, up to 1e13, no longer the same as at FAR."""
    d_below = tail_below(d)
    e_below = tail_below(e)
    inverse = 1.0 / (d_below * e_below)
    return tail_above(d) * (inverse * e_below), tail_above(e) * (inverse * d_below)


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
    x = (log_normal_quotient(spot, strike) + drift) * inverse
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
    x = log_normal_quotient(spot, strike) + drift
    apart = x if there else spot - strike
    side = FAR if apart > 0.0 else (-FAR if apart < 0.0 else 0.0)
    d1 = clipped(x * inverse + 0.5 * w) if smooth else side
    return d1, inverse if smooth else 0.0
