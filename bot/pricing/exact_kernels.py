"""The compiled steps of the cost optimum, each the fast twin of a readable function of `exact`; law: same bits on each run.

Tables have a row for each log price and a column for each holding; holdings lie contiguous, so that loops over them
become vector code. No fast-math flag is set: a contracted multiply-add would give other bits on another processor.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled, inlined
from bot.pricing.elementary import exp_sum, log_quotient

Array = NDArray[np.float64]

_f64: Final = numba.types.float64
_i64: Final = numba.types.int64
_bool: Final = numba.types.boolean
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_WHERE: Final = numba.types.Array(_i64, 1, "C", readonly=True)
_TABLE_IN: Final = numba.types.Array(_f64, 2, "C", readonly=True)
_TABLE_OUT: Final = numba.types.Array(_f64, 2, "C")
_OUT: Final = numba.types.Array(_f64, 1, "C")

STEEPEST: Final = 300.0
"""Exponents are held within this of zero: three of them multiplied are still a finite number."""

NEGLIGIBLE: Final = -44.0
"""A term so many logarithms below the least weight at its sum's peak is left out: many such do not reach a last bit."""

BUY: Final = 0
"""Columns of the edges of a row: where buying stops, the cost-to-go there, where selling stops, the cost-to-go there."""
BUY_VALUE: Final = 1
SELL: Final = 2
SELL_VALUE: Final = 3
LOW: Final = 4
"""The holdings at which trading starts: with a ticket fee they lie outside those at which it stops."""
HIGH: Final = 5
EDGES: Final = 6


@inlined
def held_within(x: float) -> float:
    """x, no farther from zero than STEEPEST."""
    low = x if x > -STEEPEST else -STEEPEST
    return low if low < STEEPEST else STEEPEST


@inlined
def weighted_rows(U: Any, weights: Any, origin: int, start: int, stop: int, lo: int, hi: int, out: Array) -> None:
    """Writes the sum of weights[f - origin] U[f] over start <= f < stop; four rows at a time, in order."""
    for k in range(lo, hi):
        out[k] = 0.0
    f = start
    while f + 4 <= stop:
        w0, w1, w2, w3 = weights[f - origin], weights[f - origin + 1], weights[f - origin + 2], weights[f - origin + 3]
        U0, U1, U2, U3 = U[f], U[f + 1], U[f + 2], U[f + 3]
        for k in range(lo, hi):
            out[k] += (w0 * U0[k] + w1 * U1[k]) + (w2 * U2[k] + w3 * U3[k])
        f += 4
    while f < stop:
        w0 = weights[f - origin]
        U0 = U[f]
        for k in range(lo, hi):
            out[k] += w0 * U0[k]
        f += 1


@inlined
def careful_row(
    J: Any,
    y: Array,
    S: Array,
    g: float,
    weights: Array,
    likely: Array,
    floor: float,
    f: int,
    start: int,
    lo: int,
    hi: int,
    peak: Array,
    total: Array,
    out: Any,
) -> None:
    """Writes G of row f where exponents would leave the float range: each holding's sum is measured from its own peak.

    `start` is the row of the first weight; `likely` the weights' logarithms, `floor` the least of them that counts.
    """
    for k in range(lo, hi):
        peak[k] = -np.inf
        total[k] = 0.0
    for w in range(weights.shape[0]):
        if weights[w] > 0.0:
            J_row = J[start + w]
            spot = S[start + w]
            for k in range(lo, hi):
                here = J_row[k] - y[k] * spot
                peak[k] = here if here > peak[k] else peak[k]
    for w in range(weights.shape[0]):
        if weights[w] > 0.0:
            J_row = J[start + w]
            spot = S[start + w]
            nearest = -np.inf
            for k in range(lo, hi):
                under = J_row[k] - y[k] * spot - peak[k]
                nearest = under if under > nearest else nearest
            if g * nearest + likely[w] < floor:
                continue
            for k in range(lo, hi):
                total[k] += weights[w] * exp_sum(g * (J_row[k] - y[k] * spot - peak[k]), 0.0)
    for k in range(lo, hi):
        out[k] = peak[k] + log_quotient(total[k], 1.0) / g + y[k] * S[f]


@compiled(numba.types.void(_TABLE_IN, _IN, _IN, _f64, _IN, _i64, _i64, _WHERE, _WHERE, _TABLE_OUT))
def expect(  # noqa: PLR0915  one kernel: its tables are shared by the two passes over blocks
    J: Array,
    y: Array,
    S: Array,
    g: float,
    weights: Array,
    stride: int,
    pad: int,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    G: Array,
) -> None:
    """Writes G(S, y) = ln E[exp(g (J(S', y) - y (S' - S)))] / g of every `stride`-th row between the pads.

    The expectation is a sum of `weights` over the rows around, one holding at a time. Rows are taken in blocks no shorter
    than the reach of the weights; exponents are measured from their block's middle row, and only columns
    first[block] <= k < last[block] are wanted. A block with an exponent that is too large for that (very averse, or very
    dear rows far out) is summed row by row, with more care and slower.

    Shape: J (n, k), y (k,), S (n,), weights (2 pad + 1,), first and last (ceil(n / (pad + 1)),), G ((n - 2 pad) / stride, k).
    """
    rows, columns = J.shape
    length = pad + 1
    blocks = first.shape[0]
    base = np.zeros((blocks, columns))
    steep = np.zeros(blocks)
    U = np.zeros((rows, columns))
    before = np.empty(columns)
    after = np.empty(columns)
    own = np.empty(columns)
    left = np.empty(columns)
    right = np.empty(columns)
    worst = np.empty(columns)
    likely = np.empty(weights.shape[0])
    floor = 0.0
    for w in range(weights.shape[0]):
        likely[w] = np.log(weights[w])
        floor = min(floor, likely[w]) if weights[w] > 0.0 else floor
    floor += NEGLIGIBLE
    for b in range(blocks):
        lo, hi = columns, 0
        for a in range(max(b - 1, 0), min(b + 2, blocks)):
            if first[a] < last[a]:
                lo = min(lo, first[a])
                hi = max(hi, last[a])
        middle = min(b * length + length // 2, rows - 1)
        for k in range(lo, hi):
            base[b, k] = g * (J[middle, k] - y[k] * S[middle])
            worst[k] = 0.0
        for f in range(b * length, min((b + 1) * length, rows)):
            spot = S[f]
            J_row = J[f]
            U_row = U[f]
            base_row = base[b]
            for k in range(lo, hi):
                exponent = g * (J_row[k] - y[k] * spot) - base_row[k]
                size = abs(exponent)
                worst[k] = size if size > worst[k] else worst[k]
                U_row[k] = exp_sum(held_within(exponent), 0.0)
        for k in range(lo, hi):
            steep[b] = max(steep[b], worst[k])
    for b in range(blocks):
        lo, hi = first[b], last[b]
        if lo >= hi:
            continue
        start, stop = b * length, min((b + 1) * length, rows)
        most = steep[b]
        for k in range(lo, hi):
            to_before = base[b - 1, k] - base[b, k] if b > 0 else 0.0
            to_after = base[b + 1, k] - base[b, k] if b + 1 < blocks else 0.0
            most = max(most, abs(to_before), abs(to_after))
            before[k] = exp_sum(held_within(to_before), 0.0) if b > 0 else 0.0
            after[k] = exp_sum(held_within(to_after), 0.0) if b + 1 < blocks else 0.0
        if b > 0:
            most = max(most, steep[b - 1])
        if b + 1 < blocks:
            most = max(most, steep[b + 1])
        careful = not most < STEEPEST
        for f in range(max(start, pad), min(stop, rows - pad)):
            if (f - pad) % stride != 0:
                continue
            G_row = G[(f - pad) // stride]
            if careful:
                careful_row(J, y, S, g, weights, likely, floor, f, f - pad, lo, hi, left, right, G_row)
                continue
            weighted_rows(U, weights, f - pad, f - pad, start, lo, hi, left)
            weighted_rows(U, weights, f - pad, max(start, f - pad), min(stop, f + pad + 1), lo, hi, own)
            weighted_rows(U, weights, f - pad, stop, f + pad + 1, lo, hi, right)
            base_row = base[b]
            spot = S[f]
            for k in range(lo, hi):
                mean = own[k] + before[k] * left[k] + after[k] * right[k]
                G_row[k] = (base_row[k] + log_quotient(mean, 1.0)) / g + y[k] * spot


@inlined
def cubic_through(G: Any, k: int, i: int, t: float) -> Any:
    """The cubic through G[i..i+3] at the holding k + t columns."""
    u = t + (k - i)
    a, b, c, d = G[i], G[i + 1], G[i + 2], G[i + 3]
    return (
        a * ((u - 1.0) * (u - 2.0) * (3.0 - u)) / 6.0
        + b * (u * (u - 2.0) * (u - 3.0)) / 2.0
        + c * (u * (u - 1.0) * (3.0 - u)) / 2.0
        + d * (u * (u - 1.0) * (u - 2.0)) / 6.0
    )


@inlined
def lowest_in_cell(G: Array, k: int, lo: int, hi: int, slope: float) -> Any:
    """(t, value) of the minimum of G + slope t inside the cell k..k+1 by a cubic; t < 0 where it has none inside.

    The stencil stays within lo..hi (hi excluded), at whose ends G may have a kink.
    """
    i = min(max(k - 1, lo), hi - 4)
    a, b, c, d = G[i], G[i + 1], G[i + 2], G[i + 3]
    # Newton's form around the stencil's first node: p(u) = a + u d1 + u (u-1) d2/2 + u (u-1) (u-2) d3/6.
    d1 = b - a
    d2 = c - b - d1
    d3 = (d - c) - (c - b) - d2
    c1 = d1 - 0.5 * d2 + d3 / 3.0 + slope
    c2 = d2 - d3
    c3 = 0.5 * d3
    inside = c2 * c2 - 4.0 * c3 * c1
    if inside < 0.0:
        return -1.0, 0.0
    root = np.sqrt(inside)
    # The root of c1 + c2 u + c3 u^2 at which it rises.
    u = (root - c2) / (2.0 * c3) if c2 < 0.0 else (-2.0 * c1 / (c2 + root) if c2 + root > 0.0 else -1.0)
    t = u - (k - i)
    if not 0.0 < t < 1.0:
        return -1.0, 0.0
    return t, cubic_through(G, k, i, t)


@inlined
def lowest(G: Array, y: Array, lo: int, hi: int, zero: int, slope: float, lattice: bool, apart: bool) -> Any:
    """(column, holding, value of G there) of the minimum of G + slope y over columns lo..hi-1, and between them by cubics.

    On a lattice of lots only the columns themselves count. G has a kink at column `zero` (the closing trade changes sign),
    and stands apart there where closing has a fee.
    """
    step = y[1] - y[0]
    best = lo
    least = G[lo] + slope * y[lo]
    for k in range(lo + 1, hi):
        here = G[k] + slope * y[k]
        if here < least:
            least = here
            best = k
    at, value = y[best], G[best]
    if lattice:
        return best, at, value
    for k in range(max(best - 1, lo), min(best + 1, hi - 1)):
        left, right = (lo, min(zero + 1, hi)) if k < zero else (max(zero, lo), hi)
        if apart and left == zero:
            left += 1
        if apart and right == zero + 1:
            right -= 1
        if right - left < 4 or k < left or k + 1 >= right:
            continue
        t, inside = lowest_in_cell(G, k, left, right, slope * step)
        if t > 0.0 and inside + slope * (y[k] + t * step) < least:
            at = y[k] + t * step
            value = inside
            least = inside + slope * at
    return best, at, value


@inlined
def start_of_buying(G: Array, y: Array, lo: int, bottom: int, buy: float, aim: float, rate: float) -> Any:
    """The holding below which a trade up to `buy` pays its fee: where G + rate y last exceeds `aim`."""
    k = bottom
    while k >= lo and G[k] + rate * y[k] <= aim:
        k -= 1
    if k < lo:
        return y[lo]
    if k + 1 > bottom:
        return buy
    above = G[k] + rate * y[k] - aim
    below = G[k + 1] + rate * y[k + 1] - aim
    return y[k + 1] - (y[k + 1] - y[k]) * (-below) / (above - below)


@inlined
def start_of_selling(G: Array, y: Array, hi: int, top: int, sell: float, aim: float, rate: float) -> Any:
    """The holding above which a trade down to `sell` pays its fee."""
    k = top
    while k < hi and G[k] - rate * y[k] <= aim:
        k += 1
    if k >= hi:
        return y[hi - 1]
    if k - 1 < top:
        return sell
    above = G[k] - rate * y[k] - aim
    below = G[k - 1] - rate * y[k - 1] - aim
    return y[k - 1] + (y[k] - y[k - 1]) * (-below) / (above - below)


@compiled(_i64(_TABLE_IN, _IN, _IN, _f64, _f64, _bool, _bool, _i64, _i64, _WHERE, _WHERE, _i64, _TABLE_OUT))
def decide_rows(
    G: Array,
    y: Array,
    S: Array,
    cost: float,
    fee: float,
    lattice: bool,
    apart: bool,
    zero: int,
    pad: int,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    whole: int,
    edges: Array,
) -> int:
    """Writes the edges of each row; returns how many rows have one that the wanted columns do not bracket.

    Shape: G (n, k), y (k,), S (n,), first and last by blocks of pad + 1 rows, the first block beginning pad rows before
    row 0; edges (n, 6). `whole` 1: the columns wanted are all there are, and an end of them is an answer.
    """
    columns = y.shape[0]
    missed = 0
    for j in range(S.shape[0]):
        block = (j + pad) // (pad + 1)
        lo, hi = first[block], last[block]
        G_row = G[j]
        rate = cost * S[j]
        bottom, buy, buy_value = lowest(G_row, y, lo, hi, zero, rate, lattice, apart)
        top, sell, sell_value = lowest(G_row, y, lo, hi, zero, -rate, lattice, apart)
        low, high = buy, sell
        if fee > 0.0:
            low = start_of_buying(G_row, y, lo, bottom, buy, buy_value + rate * buy + fee, rate)
            high = start_of_selling(G_row, y, hi, top, sell, sell_value - rate * sell + fee, rate)
        if apart and low > 0.0 and G_row[zero] <= buy_value + rate * buy + fee:
            low = 0.0
        if apart and high < 0.0 and G_row[zero] <= sell_value - rate * sell + fee:
            high = 0.0
        under = lo > 0 and (bottom <= lo + 1 or low <= y[lo + 1])
        over = hi < columns and (top >= hi - 2 or high >= y[hi - 2])
        crossed = (bottom >= hi - 2 and hi < columns) or (top <= lo + 1 and lo > 0)
        if whole == 0 and (under or over or crossed):
            missed += 1
        edges[j, BUY] = buy
        edges[j, BUY_VALUE] = buy_value
        edges[j, SELL] = sell
        edges[j, SELL_VALUE] = sell_value
        edges[j, LOW] = min(low, buy)
        edges[j, HIGH] = max(high, sell)
    return missed


@inlined
def fill_row(G: Array, edge: Array, y: Array, rate: float, fee: float, lo: int, hi: int, J: Array) -> None:
    """Writes one row of `fill_rows`; between the outer edges, who is not at rest at 0 may yet do better by a trade."""
    low, high = edge[LOW], edge[HIGH]
    up = edge[BUY_VALUE] + rate * edge[BUY] + fee
    down = edge[SELL_VALUE] - rate * edge[SELL] + fee
    k = lo
    while k < hi and y[k] < low:
        J[k] = up - rate * y[k]
        k += 1
    while k < hi and y[k] <= high:
        best = G[k]
        if y[k] < edge[BUY]:
            best = min(best, up - rate * y[k])
        if y[k] > edge[SELL]:
            best = min(best, down + rate * y[k])
        J[k] = best
        k += 1
    while k < hi:
        J[k] = down + rate * y[k]
        k += 1


@inlined
def extend_rows(
    J: Array, S: Array, least: float, most: float, pad: int, lows: NDArray[np.int64], highs: NDArray[np.int64]
) -> None:
    """Writes the pads of J as straight lines in S through the two rows at each end, no steeper than least..most."""
    rows = S.shape[0]
    ratio = S[1] / S[0]
    step = S[1] - S[0]
    spot = S[0]
    for f in range(pad - 1, -1, -1):
        spot /= ratio
        block = f // (pad + 1)
        for k in range(lows[block], highs[block]):
            slope = min(max((J[pad + 1, k] - J[pad, k]) / step, least), most)
            J[f, k] = J[pad, k] + (spot - S[0]) * slope
    end = pad + rows - 1
    step = S[rows - 1] - S[rows - 2]
    spot = S[rows - 1]
    for f in range(end + 1, rows + 2 * pad):
        spot *= ratio
        block = f // (pad + 1)
        for k in range(lows[block], highs[block]):
            slope = min(max((J[end, k] - J[end - 1, k]) / step, least), most)
            J[f, k] = J[end, k] + (spot - S[rows - 1]) * slope


@compiled(numba.types.void(_TABLE_IN, _TABLE_IN, _IN, _IN, _f64, _f64, _i64, _WHERE, _WHERE, _TABLE_OUT))
def fill_rows(
    G: Array,
    edges: Array,
    y: Array,
    S: Array,
    cost: float,
    fee: float,
    pad: int,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    J: Array,
) -> None:
    """Writes J(S, y), the cost-to-go before the decision, on the wanted columns, and on `pad` rows beyond either end.

    Inside the band it is G, outside G at the edge and the trade there. Beyond the ends rows go on as straight lines in S.
    Shape: G (n, k), edges (n, 6), J (n + 2 pad, k); first and last by blocks of pad + 1 rows of J.
    """
    rows = edges.shape[0]
    columns = y.shape[0]
    blocks = first.shape[0]
    lows = np.empty(blocks, dtype=np.int64)
    highs = np.empty(blocks, dtype=np.int64)
    for b in range(blocks):
        lo, hi = columns, 0
        for a in range(max(b - 1, 0), min(b + 2, blocks)):
            if first[a] < last[a]:
                lo = min(lo, first[a])
                hi = max(hi, last[a])
        lows[b] = lo
        highs[b] = hi
    for j in range(rows):
        block = (j + pad) // (pad + 1)
        fill_row(G[j], edges[j], y, cost * S[j], fee, lows[block], highs[block], J[j + pad])
    beyond = 2.0 * cost * max(-y[0], y[columns - 1])
    extend_rows(J, S, y[0] - beyond, y[columns - 1] + beyond, pad, lows, highs)
