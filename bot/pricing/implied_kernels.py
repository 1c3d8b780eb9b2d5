"""The compiled search for implied vols; law: a lone quote, a row and a row of any batch get the same bits.

Imports numba, so it is itself imported when a vol is first asked for. Every step is arithmetic of
`bot/pricing/elementary.py`: no library function is called, so a vol is the same on any x86-64 processor.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled, compiled_free, inlined, part
from bot.pricing.elementary import (
    AS_INTEGER,
    EXPONENT_SHIFT,
    FAR,
    MANTISSA,
    PHI_0,
    SQRT_HALF,
    SQRT_HALF_BITS,
    SQRT_TAU,
    UP_TO_ONE,
    bits_of,
    exp_product,
    exp_sum,
    float_of,
    log_quotient,
    tail_ratio,
    two_tail_ratios,
)
from bot.pricing.plain_calls import ANSWER, BORROWED, NUMBER, answer, double
from bot.pricing.status import Status

LOG_SQRT_TAU: Final = 0.9189385332046727
SMALLEST_NORMAL: Final = 2.2250738585072014e-308
"""A price at or below this has lost digits that its vol would need."""

EXPIRED: Final = float(Status.EXPIRED)
NOT_FINITE: Final = float(Status.NOT_FINITE)
OUT_OF_DOMAIN: Final = float(Status.OUT_OF_DOMAIN)
BELOW_INTRINSIC: Final = float(Status.BELOW_INTRINSIC)
AT_INTRINSIC: Final = float(Status.AT_INTRINSIC)
ABOVE_BOUND: Final = float(Status.ABOVE_BOUND)

_f64: Final = numba.types.float64
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_OUT: Final = numba.types.Array(_f64, 1, "C")
_CODES_OUT: Final = numba.types.Array(numba.types.int8, 1, "C")


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


@part
def excess(h: float, t: float) -> float:
    """Y(h+t) - Y(h-t) with Y = N / phi, for h <= 0 < t: the normalised Black price over its density.

    Where both terms nearly agree (small t) the difference is a Taylor series in t (Jaeckel 2015, section 6, region II).
    """
    if t < 0.25 and -h * t < 0.5:
        return excess_series_cut(h, t)
    d = h + t
    far = tail_ratio(min(t - h, FAR))
    if d <= 0.0:
        return tail_ratio(min(-d, FAR)) - far
    return SQRT_TAU * exp_product(0.5 * d, d) - tail_ratio(d) - far


@part
def normalised_black(x: float, s: float) -> float:
    """b(x, s) = e^(x/2) N(x/s + s/2) - e^(-x/2) N(x/s - s/2) for x <= 0 < s (Jaeckel 2015, eq. 2.3)."""
    h = x / s
    t = 0.5 * s
    if h + t > 30.0:  # Y of a large positive number overflows where plain N loses nothing
        return exp_sum(0.5 * x, 0.0) - normalised_rest(x, s)
    return PHI_0 * exp_sum(-0.5 * (h * h + t * t), 0.0) * excess(h, t)


@part
def normalised_rest(x: float, s: float) -> float:
    """e^(x/2) - b(x, s), what is missing to the bound, as a sum of two positive terms: two tails over one density."""
    h = x / s
    t = 0.5 * s
    d = h + t
    density = PHI_0 * exp_sum(-0.5 * (h * h + t * t), 0.0)
    far = density * tail_ratio(min(t - h, FAR))
    near = density * tail_ratio(min(abs(d), FAR))
    return (near if d > 0.0 else exp_sum(0.5 * x, 0.0) - near) + far


@part
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
        s = min(-x / math.sqrt(-2.0 * log_quotient(beta, 1.0)), turn)
    else:
        lo = turn
        s = turn + SQRT_TAU * exp_sum(-0.5 * x if x > -100.0 else 50.0, 0.0) * (beta - at_turn)
        s = max(min(s, turn + 10.0), 1e-300)
    last = np.inf
    for _ in range(200):
        h = x / s
        t = 0.5 * s
        slope = PHI_0 * exp_sum(-0.5 * (h * h + t * t), 0.0)
        if high_side:
            missing = normalised_rest(x, s)
            error = -log_quotient(missing, rest)
            slope = slope / missing
        else:
            b = normalised_black(x, s)
            error = b - beta
            if low_side and b > 0.0:
                # 1/sqrt(-ln b) - 1/sqrt(-ln beta), written with ln(b / beta), which keeps its digits near the root
                line = 1.0 / math.sqrt(-log_quotient(b, 1.0))
                aim = 1.0 / math.sqrt(-log_quotient(beta, 1.0))
                error = log_quotient(b, beta) * line * line * aim * aim / (line + aim)
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


@part
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


@part
def searched_deviation(value: float, forward: float, strike: float) -> float:
    """vol sqrt(tau) of an out-of-the-money value by the bracketed search, which is right on the whole domain."""
    x = -abs(log_quotient(forward, strike))
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


@compiled("float64(float64, float64, float64, float64, float64, float64)")
def implied_one(price: float, forward: float, strike: float, tau: float, discount: float, cp: float) -> float:
    """The vol of one quote, or minus its status code: the row `implied_rows` would give, without its arrays."""
    undiscounted = price / discount
    intrinsic = cp * (forward - strike)
    value = undiscounted - (intrinsic if intrinsic > 0.0 else 0.0)
    code = quote_status(price, forward, strike, tau, discount, cp, undiscounted, value)
    if code != 0.0:
        return -code
    bound = forward if forward < strike else strike
    X = abs(log_quotient(forward, strike))
    s = deviation(X, value / bound, (bound - value) / bound, 0)
    if math.isnan(s):
        s = deviation_by_more(X, value / bound, (bound - value) / bound)
    if math.isnan(s):
        s = searched_deviation(value, forward, strike)
    found = s / math.sqrt(tau)
    return found if found < np.inf else -OUT_OF_DOMAIN


@compiled(ANSWER(*(NUMBER,) * 6, *(BORROWED,) * 3))
def implied_answer(
    price: float,
    forward: float,
    strike: float,
    tau: float,
    discount: float,
    cp: float,
    result: Any,
    scalar: Any,
    codes: Any,
) -> Any:
    """`implied_one` as result((scalar(vol), codes[status])); TypeError where one of the six is no plain number."""
    found = implied_one(double(price), double(forward), double(strike), double(tau), double(discount), double(cp))
    return answer(found, result, scalar, codes)
