"""The compiled kernels of European prices, each the fast twin of a readable numpy function; law: equal to the twin.

This module imports numba, so it is itself imported only when a kernel is first asked for (`black.slice_kernel()`,
`black.greeks_slice`). What may be compiled and how: `bot/pricing/compiler.py`; the arithmetic: `bot/pricing/elementary.py`.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled, compiled_free, inlined
from bot.pricing.elementary import (
    LEAST_POWER,
    PHI_0,
    bits_of,
    deviation_of_spot,
    deviations,
    exp_between,
    exp_product,
    exp_product_between,
    exp_sum,
    log_normal_quotient,
    log_quotient,
    tail_ratio,
    two_near_tail_ratios,
)

__all__ = [
    "CP",
    "EXPIRY",
    "NS_PER_YEAR",
    "PHI_0",
    "STRIKE",
    "VOL",
    "WEIGHT",
    "compiled",
    "deviations",
    "exp_product",
    "exp_sum",
    "greeks_rows",
    "inlined",
    "log_quotient",
    "net",
    "tail_ratio",
]

NS_PER_YEAR: Final = 365.0 * 86_400.0 * 1e9
VAST: Final = 1e150
"""Inputs whose sizes add up to more than this are refused."""

BLOCK: Final = 512
"""Rows that a kernel takes at a time; columns of a block lie at constant offsets, so that none can overlap."""

NO_BITS: Final = np.uint64(0)
LEAST_PRICE: Final = np.uint64((1023 - 32) << 52)
LEAST_TIME: Final = np.uint64((1023 - 25) << 52)
LEAST_VOL: Final = np.uint64((1023 - 17) << 52)
BEYOND_64_BINADES: Final = np.uint64((1 << 64) - (1 << 58))
BEYOND_32_BINADES: Final = np.uint64((1 << 64) - (1 << 57))
TWO_OR_MORE: Final = np.uint64(1 << 62)
"""The bit of the exponent that every float of size 2 or more has, an infinity and a NaN too."""
ALL_BUT_SIGN: Final = np.uint64((1 << 63) - 1)

STRIKE: Final = 0
EXPIRY: Final = 1
VOL: Final = 2
CP: Final = 3
WEIGHT: Final = 4
PACKED_COLUMNS: Final = 5

_f64: Final = numba.types.float64
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
"""An input column: read, never written, so that a read-only array is as good as any."""
_TABLE_OUT: Final = numba.types.Array(_f64, 2, "C")


@inlined
def oddity(S: float, K: float, T: float, v: float, c: float, r: float, q: float) -> int:
    """0 for an ordinary contract, of which no end of a range has to be looked for; else bits that say what is odd.

    Ordinary: S and K from 2^-32 up to 2^32, T from 2^-25 (a second) up to 2^7 years, v from 2^-17 up to 2^15, c = +1 or -1,
    |r| and |q| below 2. Then discount factors lie within e^256, w above 1e-9, deviations below 1e12: nothing overflows.
    Told from the bits, since a negative number, an infinity and a NaN all have exponents out of these ranges.
    """
    # a shift of the exponent brings each range to that of 2^0 on; what then stands in the upper bits is beyond it
    prices = ((bits_of(S) - LEAST_PRICE) | (bits_of(K) - LEAST_PRICE)) & BEYOND_64_BINADES
    terms = ((bits_of(T) - LEAST_TIME) | (bits_of(v) - LEAST_VOL)) & BEYOND_32_BINADES
    rates = (bits_of(r) | bits_of(q)) & TWO_OR_MORE
    side = (bits_of(c) ^ bits_of(1.0)) & ALL_BUT_SIGN
    found: int = (prices | terms) | (rates | side)
    return found


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
def plain_outlook(
    S: float, K: float, T: float, v: float, r: float, q: float
) -> tuple[float, float, float, float, float, float]:
    """`outlook`, which ends in the same outputs, of an ordinary contract."""
    Dq = exp_product_between(-q, T)
    s = S * Dq
    k = K * exp_product_between(-r, T)
    w = v * math.sqrt(T)
    inverse = 1.0 / w
    x = (log_normal_quotient(S, K) + (r - q) * T) * inverse
    half = 0.5 * w
    return Dq, s, k, x + half, x - half, inverse


@inlined
def five(
    S: float, v: float, c: float, r: float, q: float,
    Dq: float, s: float, k: float, d1: float, d2: float, inverse: float, root: float,
) -> tuple[float, float, float, float, float]:  # fmt: skip
    """Price, delta, gamma, vega, theta of one contract with a spot above 0, by its `outlook`.

    The out-of-the-money option is the difference of two tails over one density (s phi(d1) = k phi(d2)), each tail with
    all its digits; where the forward lies between the strike and its median, what is left of the smaller of s and k. The
    other side of the strike adds the intrinsic.
    """
    power = -0.5 * d1 * d1
    density = PHI_0 * exp_between(power if power > LEAST_POWER else LEAST_POWER, 0.0)
    m = s * density
    y1, y2 = two_near_tail_ratios(abs(d1), abs(d2))
    spot_tail = m * y1
    strike_tail = m * y2
    between = (d1 > 0.0) & (d2 < 0.0)
    value = (s if s < k else k) - (spot_tail + strike_tail) if between else abs(spot_tail - strike_tail)
    value = value if value > 0.0 else 0.0
    intrinsic = c * (s - k)
    price = value + (intrinsic if intrinsic > 0.0 else 0.0)
    tail = density * y1
    above = 1.0 - tail if c * d1 > 0.0 else tail
    owed = k - strike_tail if c * d2 > 0.0 else strike_tail
    theta = c * (q * (s * above) - r * owed) - 0.5 * m * v * (v * inverse)
    return price, c * (Dq * above), Dq * density * inverse / S, m * root, theta


@inlined
def keep_outlook(
    a: NDArray[np.float64], j: int, of_row: tuple[float, float, float, float, float, float], root: float
) -> None:
    """Writes a row's `outlook` and the root of its time down the columns of a block. Shape: a (7 BLOCK,)."""
    for i in range(6):
        a[i * BLOCK + j] = of_row[i]
    a[6 * BLOCK + j] = root


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
    lies at constant offsets of one array, which tells the compiler that it overlaps nothing. A block of ordinary contracts
    goes through loops that look for no end of a range: a sixth of the work saved, and an ordinary row's bits are the same in
    both.
    """
    count = spot.shape[0]
    a = np.empty(7 * BLOCK)
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
        odd = NO_BITS
        for j in range(stop - start):
            odd |= oddity(Ss[j], Ks[j], Ts[j], vs[j], cs[j], rs[j], qs[j])
        if odd == NO_BITS:
            for j in range(stop - start):
                keep_outlook(a, j, plain_outlook(Ss[j], Ks[j], Ts[j], vs[j], rs[j], qs[j]), math.sqrt(Ts[j]))
            for j in range(stop - start):
                s, k, d1, d2 = a[BLOCK + j], a[2 * BLOCK + j], a[3 * BLOCK + j], a[4 * BLOCK + j]
                price, delta, gamma, vega, theta = five(
                    Ss[j], vs[j], cs[j], rs[j], qs[j], a[j], s, k, d1, d2, a[5 * BLOCK + j], a[6 * BLOCK + j]
                )
                prices[j] = price
                deltas[j] = delta
                gammas[j] = gamma
                vegas[j] = vega
                thetas[j] = theta
            continue
        for j in range(stop - start):
            keep_outlook(a, j, outlook(Ss[j], Ks[j], Ts[j], vs[j], rs[j], qs[j]), math.sqrt(Ts[j]))
        for j in range(stop - start):
            S, T, v, c = Ss[j], Ts[j], vs[j], cs[j]
            s, k, d1, d2 = a[BLOCK + j], a[2 * BLOCK + j], a[3 * BLOCK + j], a[4 * BLOCK + j]
            price, delta, gamma, vega, theta = five(
                S, v, c, rs[j], qs[j], a[j], s, k, d1, d2, a[5 * BLOCK + j], a[6 * BLOCK + j]
            )
            gamma = gamma if S > 0.0 else 0.0
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
