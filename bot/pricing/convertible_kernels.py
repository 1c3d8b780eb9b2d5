"""The compiled grid on which a convertible is priced, twin of `convertible_steps`; law: one bond, one grid, same bits each run.

The grid belongs to the bond, not to a spot: its nodes lie densest round the levels where the contract has corners, with
a node on each, so that all spots share it and a spot alone has the same price as in a batch. Exponentials and logarithms
are those of `kernels`; nothing is contracted.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled, inlined
from bot.pricing.convertible_plan import CALL, CLAIM, COUPON, DAMPED, DIVIDEND, DT, PUT, RATIO, TRIGGER
from bot.pricing.elementary import exp_sum, log_quotient

Array = NDArray[np.float64]

_types: Any = numba.types
_f64: Final = numba.types.float64
_i64: Final = numba.types.int64
_bool: Final = numba.types.boolean
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_OUT: Final = numba.types.Array(_f64, 1, "C")
_TABLE_IN: Final = numba.types.Array(_f64, 2, "C", readonly=True)
_TABLE_OUT: Final = numba.types.Array(_f64, 2, "C")

FREE: Final = 0
CONVERTED: Final = 1
SOLD: Final = 2
CALLED: Final = 3
NEVER: Final = -1e300
ROUNDS: Final = 100
"""Policy iterations of one step at most; two or three are usual."""
COUPLED_ROUNDS: Final = 40
"""The cash part jumps where the decision does, so that a node may swing between two; from here on it is held."""
TOO_CLOSE: Final = 1e-12
"""A continuation value this near its bound, relative, leaves the decision as it was."""
MOST_HAZARD: Final = 1e4
"""A hazard is cut at this many defaults a year: the bond is then its recovery."""


@inlined
def asinh(x: float) -> float:
    """The inverse hyperbolic sine."""
    size = abs(x)
    far = log_quotient(size + math.sqrt(size * size + 1.0), 1.0)
    return far if x >= 0.0 else -far


@inlined
def density(x: float, keys: Array, width: float) -> tuple[float, float]:
    """The mean of asinh((x - key) / width) over the keys, and its slope: nodes per unit of x."""
    total = 0.0
    slope = 0.0
    for k in range(keys.shape[0]):
        u = (x - keys[k]) / width
        total += asinh(u)
        slope += 1.0 / (width * math.sqrt(u * u + 1.0))
    return total / keys.shape[0], slope / keys.shape[0]


@compiled(numba.types.void(_f64, _IN, _f64, _f64, _f64, _OUT))
def place_nodes(scale: float, keys: Array, width: float, x_low: float, x_high: float, spots: Array) -> None:
    """Writes node 0 at spot 0 and the others at scale e^x, a node on each key. `keys` ascending, inside (x_low, x_high)."""
    n = spots.shape[0] - 1
    low, _ = density(x_low, keys, width)
    high, _ = density(x_high, keys, width)
    step = (high - low) / (n - 1)
    m = keys.shape[0]
    # the places of the ends and the keys, in steps; those of the keys are moved to the nearest whole number
    raw = np.empty(m + 2)
    whole = np.empty(m + 2)
    raw[0] = 0.0
    whole[0] = 0.0
    used = 1
    for k in range(m):
        level, _ = density(keys[k], keys, width)
        place = (level - low) / step
        near = math.floor(place + 0.5)
        if near >= whole[used - 1] + 2.0 and near <= n - 3.0:
            raw[used] = place
            whole[used] = near
            used += 1
    raw[used] = n - 1.0
    whole[used] = n - 1.0
    spots[0] = 0.0
    piece = 0
    x = x_low
    for j in range(n):
        while piece < used - 1 and j > whole[piece + 1]:
            piece += 1
        share = (j - whole[piece]) / (whole[piece + 1] - whole[piece])
        aim = low + step * (raw[piece] + share * (raw[piece + 1] - raw[piece]))
        left = x
        right = x_high
        for _ in range(200):
            value, slope = density(x, keys, width)
            if value < aim:
                left = max(left, x)
            else:
                right = min(right, x)
            change = (aim - value) / slope
            following = x + change
            if not left <= following <= right:
                following = 0.5 * (left + right)
            moved = abs(following - x)
            x = following
            if moved <= 1e-15 * (1.0 + abs(x)):
                break
        at_key = x
        for k in range(m):
            if abs(keys[k] - x) < 1e-9:
                at_key = keys[k]
        spots[j + 1] = scale * exp_sum(at_key, 0.0)


@compiled(numba.types.void(_f64, _f64, _f64, _IN, _OUT))
def hazards(level: float, reference: float, elasticity: float, spots: Array, out: Array) -> None:
    """Writes level (S / reference)^elasticity, cut at MOST_HAZARD; elasticity <= 0."""
    for i in range(spots.shape[0]):
        if elasticity == 0.0 or level == 0.0:
            out[i] = level
        elif spots[i] == 0.0:
            out[i] = MOST_HAZARD
        else:
            power = elasticity * log_quotient(spots[i], reference)
            out[i] = min(level * exp_sum(min(power, 700.0), 0.0), MOST_HAZARD)


@inlined
def cubic(spots: Array, values: Array, j: int, s: float) -> Any:
    """The cubic through four nodes with s between nodes j and j + 1 (Lagrange); a line below the first node above 0.

    Between nodes that rise or fall together it stays between its neighbours, so that a steep place makes no overshoot.
    """
    n = spots.shape[0]
    if j < 1:
        return values[0] + (values[1] - values[0]) * (s - spots[0]) / (spots[1] - spots[0])
    if j > n - 2:
        return values[n - 1] + (values[n - 1] - values[n - 2]) * (s - spots[n - 1]) / (spots[n - 1] - spots[n - 2])
    i = min(max(j - 1, 1), n - 4)
    p, q, u, v = spots[i], spots[i + 1], spots[i + 2], spots[i + 3]
    a = (s - q) * (s - u) * (s - v) / ((p - q) * (p - u) * (p - v))
    b = (s - p) * (s - u) * (s - v) / ((q - p) * (q - u) * (q - v))
    c = (s - p) * (s - q) * (s - v) / ((u - p) * (u - q) * (u - v))
    d = (s - p) * (s - q) * (s - u) / ((v - p) * (v - q) * (v - u))
    found = a * values[i] + b * values[i + 1] + c * values[i + 2] + d * values[i + 3]
    first, second, third = values[i + 1] - values[i], values[i + 2] - values[i + 1], values[i + 3] - values[i + 2]
    if (first >= 0.0 and second >= 0.0 and third >= 0.0) or (first <= 0.0 and second <= 0.0 and third <= 0.0):
        near, far = values[j], values[j + 1]
        found = min(max(found, min(near, far)), max(near, far))
    return found


@inlined
def interval(spots: Array, s: float) -> int:
    """The last node at or below s, by halving; s >= 0."""
    low = 0
    high = spots.shape[0]
    while high - low > 1:
        middle = (low + high) // 2
        if spots[middle] <= s:
            low = middle
        else:
            high = middle
    return low


@compiled(numba.types.void(_IN, _TABLE_IN, _IN, _TABLE_OUT))
def read_off(spots: Array, table: Array, at: Array, out: Array) -> None:
    """Writes every row of the table at every spot. Shape: table (k, n), at (m,), out (k, m)."""
    for m in range(at.shape[0]):
        j = interval(spots, at[m])
        for k in range(table.shape[0]):
            out[k, m] = cubic(spots, table[k], j, at[m])


@inlined
def holder_bound(spot: float, ratio: float, put: float) -> tuple[float, int]:
    """The least the holder accepts and what it is got by."""
    parity = ratio * spot if ratio > 0.0 else NEVER
    if put > parity:
        return put, SOLD
    return parity, CONVERTED


@inlined
def issuer_bound(spot: float, ratio: float, call: float, trigger: float) -> float:
    """The most the issuer lets stand: the call, or parity where the holder answers by converting."""
    parity = ratio * spot
    if parity < trigger * (1.0 - 1e-12):
        return math.inf
    return max(call, parity)


@inlined
def links(spot: float, below: float, above: float, vol: float, growth: float) -> tuple[float, float]:
    """Weights of the neighbours below and above in growth S V_S + vol^2 S^2 V_SS / 2; one-sided where central is negative."""
    both = below + above
    spread = vol * vol * spot * spot
    move = growth * spot
    down = (spread - move * above) / (below * both)
    up = (spread + move * below) / (above * both)
    if down < 0.0 or up < 0.0:
        down = spread / (below * both) + max(-move, 0.0) / below
        up = spread / (above * both) + max(move, 0.0) / above
    return down, up


@inlined
def share_jump(spots: Array, j: int, place: float, B: Array) -> None:
    """The cell in which a jump between nodes j and j + 1 lies takes its mean, so that the place shows in it."""
    n = spots.shape[0]
    if j < 1 or j > n - 3:
        return
    middle = 0.5 * (spots[j] + spots[j + 1])
    left, right = B[j], B[j + 1]
    if place < middle:
        B[j] = left + (right - left) * (middle - place) / (middle - 0.5 * (spots[j - 1] + spots[j]))
    else:
        B[j + 1] = right + (left - right) * (place - middle) / (0.5 * (spots[j + 1] + spots[j + 2]) - middle)


@inlined
def share_jumps(spots: Array, free: Array, low: Array, up: Array, B: Array) -> None:
    """Jumps of the cash part where the value `free` of bounds crosses one of them."""
    n = spots.shape[0]
    was_low = free[0] < low[0]
    was_up = free[0] > up[0]
    skip = False
    for j in range(n - 1):
        is_low = free[j + 1] < low[j + 1]
        is_up = free[j + 1] > up[j + 1]
        # a bound that appears between two nodes has no crossing to be found
        if is_low != was_low and low[j] > NEVER and low[j + 1] > NEVER and not skip:
            gap, following = free[j] - low[j], free[j + 1] - low[j + 1]
            share_jump(spots, j, spots[j] + (spots[j + 1] - spots[j]) * gap / (gap - following), B)
            skip = True
        elif is_up != was_up and up[j] < math.inf and up[j + 1] < math.inf and not skip:
            gap, following = free[j] - up[j], free[j + 1] - up[j + 1]
            share_jump(spots, j, spots[j] + (spots[j + 1] - spots[j]) * gap / (gap - following), B)
            skip = True
        else:
            skip = False
        was_low, was_up = is_low, is_up


@inlined
def pay_at_maturity(
    spots: Array, shares: float, redeemed: float, coupon: float, keeps_coupon: bool, V: Array, B: Array
) -> None:
    """What is paid at maturity: redemption and coupon, or shares and perhaps the coupon, whichever is more."""
    extra = coupon if keeps_coupon else 0.0
    plain = redeemed + coupon
    for i in range(spots.shape[0]):
        converted = shares * spots[i] + extra
        V[i] = max(plain, converted)
        B[i] = extra if shares > 0.0 and converted > plain else plain
    if shares > 0.0:
        place = (plain - extra) / shares
        share_jump(spots, interval(spots, place), place, B)


@inlined
def set_bounds(spots: Array, row: Array, low: Array, up: Array, by: Any, state: Any) -> None:
    """What holder and issuer let stand at each node, and no decision kept for which there is no right now."""
    for i in range(spots.shape[0]):
        low[i], by[i] = holder_bound(spots[i], row[RATIO], row[PUT])
        up[i] = max(issuer_bound(spots[i], row[RATIO], row[CALL], row[TRIGGER]), low[i])
        if state[i] == CALLED and up[i] == math.inf:
            state[i] = FREE
        elif state[i] == CONVERTED or state[i] == SOLD:
            state[i] = by[i] if low[i] > NEVER else FREE


@inlined
def pass_instant(spots: Array, row: Array, low: Array, up: Array, by: Any, state: Any, V: Array, B: Array) -> None:
    """An instant of the plan: the dividend leaves the spot, the coupon comes in, then both sides decide."""
    n = spots.shape[0]
    if row[DIVIDEND] > 0.0:
        old_v = V.copy()
        old_b = B.copy()
        for i in range(n):
            after = max(spots[i] - row[DIVIDEND], 0.0)
            j = interval(spots, after)
            V[i] = cubic(spots, old_v, j, after)
            B[i] = cubic(spots, old_b, j, after)
    for i in range(n):
        V[i] += row[COUPON]
        B[i] += row[COUPON]
    free = V.copy()
    for i in range(n):
        if V[i] < low[i]:
            V[i] = low[i]
            B[i] = row[PUT] if by[i] == SOLD else 0.0
            state[i] = by[i]
        elif V[i] > up[i]:
            V[i] = up[i]
            B[i] = 0.0
            state[i] = CALLED
    share_jumps(spots, free, low, up, B)


@inlined
def implicitness(damped: float, credit: float, dt: float) -> float:
    """The weight of the new values in a step: enough that a stiff hazard cannot ring."""
    if damped > 0.0:
        return 1.0
    stiff = credit * dt
    return 0.5 if stiff <= 2.0 else 1.0 - 1.0 / stiff


@inlined
def fade_top(
    top: Array, row: Array, rate: float, carry: float, credit: float, drop: float, recovered: float, split: bool
) -> None:
    """The last node, V = top[0] S + top[1] + top[2], one step on as the scheme moves lines. top[2] is cash at risk."""
    dt = row[DT]
    theta = implicitness(row[DAMPED], credit, dt)
    claim = 0.0 if split else row[CLAIM] * (1.0 - drop)
    speed = carry - rate if split else carry + credit * drop - rate - credit
    fall = rate + credit
    paid = 0.0 if split or claim > 0.0 else credit * recovered
    top[0] = (top[0] * (1.0 + (1.0 - theta) * speed * dt) + credit * claim * dt) / (1.0 - theta * speed * dt)
    top[1] = top[1] * (1.0 - (1.0 - theta) * rate * dt) / (1.0 + theta * rate * dt)
    top[2] = (top[2] * (1.0 - (1.0 - theta) * fall * dt) + paid * dt) / (1.0 + theta * fall * dt)


@inlined
def bound_top(top: Array, spot: float, row: Array, low: float, up: float, by: int, split: bool) -> None:
    """The last node after a decision, if one is due there."""
    value = top[0] * spot + top[1] + top[2]
    if value < low:
        top[0] = row[RATIO] if by == CONVERTED else 0.0
        top[1] = 0.0
        top[2] = row[PUT] if by == SOLD else 0.0
    elif value > up:
        parity = row[RATIO] * spot
        top[0] = row[RATIO] if parity >= row[CALL] else 0.0
        top[1] = row[CALL] if split and parity < row[CALL] else 0.0
        top[2] = row[CALL] if not split and parity < row[CALL] else 0.0


@inlined
def sweep(
    dt: float,
    down: Array,
    up: Array,
    drain: Array,
    theta: Array,
    right: Array,
    fixed: Array,
    state: Any,
    ratio: Array,
    out: Array,
) -> None:
    """The tridiagonal system of one implicit step (Thomas); `fixed` holds the value wherever the state is not FREE."""
    last = right.shape[0] - 1
    for i in range(last):
        if state[i] != FREE:
            ratio[i] = 0.0
            out[i] = fixed[i]
            continue
        lead = theta[i] * dt
        pivot = 1.0 + lead * drain[i]
        value = right[i]
        if i > 0:
            pivot -= lead * down[i] * ratio[i - 1]
            value += lead * down[i] * out[i - 1]
        ratio[i] = lead * up[i] / pivot
        out[i] = value / pivot
    out[last] = fixed[last]
    for i in range(last - 1, -1, -1):
        out[i] += ratio[i] * out[i + 1]


@inlined
def decide(value: float, low: float, up: float, by: int, state: int, close: float) -> int:
    """Who acts at a node whose continuation is worth `value`; within `close` of a bound it stays as it was."""
    if low >= up or value < low - close:
        return by
    if value > up + close:
        return CALLED
    if low + close < value < up - close or state == FREE:
        return FREE
    return CALLED if value > 0.5 * (low + up) else by


@compiled(
    _types.UniTuple(_i64, 2)(
        _IN, _TABLE_IN, _f64, _f64, _f64, _bool, _f64, _f64, _f64, _f64, _IN, _f64, _f64, _bool, _OUT, _OUT
    )
)
def march(  # noqa: PLR0915  one march through time; its arrays are its state
    spots: Array,
    rows: Array,
    shares: float,
    redeemed: float,
    coupon: float,
    keeps_coupon: bool,
    vol: float,
    rate: float,
    carry: float,
    drop: float,
    credit: Array,
    recovered: float,
    size: float,
    split: bool,
    V: Array,
    B: Array,
) -> tuple[int, int]:
    """Writes values V and cash parts B at the plan's last row; returns steps left unsolved and policy rounds in all.

    `carry` is the growth of the spot without the hazard's part; `credit` is the hazard at each node, or with `split`
    (Tsiveriotis-Fernandes) the spread; `recovered` is the sum paid on default; rounding is relative to `size`. Without
    `split` B is not moved. Shape: spots, credit, V, B (n,); rows (m, 9).
    """
    n = spots.shape[0]
    last = n - 1
    down, up_link, fall = np.zeros(n), np.zeros(n), np.empty(n)
    low, up = np.empty(n), np.empty(n)
    by, state = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    theta, drain, drain_b = np.ones(n), np.empty(n), np.empty(n)
    right, right_b, whole = np.zeros(n), np.zeros(n), np.zeros(n)
    fixed, fixed_b, ratio = np.zeros(n), np.zeros(n), np.zeros(n)
    next_v, next_b = np.zeros(n), np.zeros(n)
    for i in range(n):
        fall[i] = rate if split else rate + credit[i]
        if 0 < i < last:
            growth = carry if split else carry + credit[i] * drop
            down[i], up_link[i] = links(spots[i], spots[i] - spots[i - 1], spots[i + 1] - spots[i], vol, growth)
    pay_at_maturity(spots, shares, redeemed, coupon, keeps_coupon, V, B)
    top = np.zeros(3)
    top[0] = shares
    top[2] = (coupon if keeps_coupon else 0.0) if shares > 0.0 else redeemed + coupon
    unsolved = 0
    rounds = 0
    for m in range(rows.shape[0]):
        row = rows[m]
        dt = row[DT]
        set_bounds(spots, row, low, up, by, state)
        if dt == 0.0:
            pass_instant(spots, row, low, up, by, state, V, B)
            top[1 if split else 2] -= top[0] * row[DIVIDEND]
            top[2] += row[COUPON]
            bound_top(top, spots[last], row, low[last], up[last], by[last], split)
            V[last], B[last] = top[0] * spots[last] + top[1] + top[2], top[2]
            continue
        fade_top(top, row, rate, carry, credit[last], drop, recovered, split)
        bound_top(top, spots[last], row, low[last], up[last], by[last], split)
        pinned, pin = 0, 0.0
        if row[RATIO] > 0.0 and row[CALL] < math.inf:
            pin = max(row[CALL], row[TRIGGER])
            pinned = interval(spots, pin / row[RATIO])
            apart = TOO_CLOSE * spots[pinned]
            if pinned >= last or not spots[pinned] + apart < pin / row[RATIO] < spots[min(pinned + 1, last)] - apart:
                pinned = 0
        kept_down, kept_up = down[pinned], up_link[pinned]
        for i in range(last):
            theta[i] = implicitness(row[DAMPED], credit[i], dt)
            gain = 0.0 if split else credit[i] * max(row[CLAIM] * spots[i] * (1.0 - drop), recovered)
            extra = 0.0
            drain[i] = down[i] + up_link[i] + fall[i]
            if i == pinned and i > 0:
                # parity reaches the call between two nodes: the stencil ends there (Shortley and Weller 1938)
                growth = carry if split else carry + credit[i] * drop
                reach = pin / row[RATIO] - spots[i]
                theta[i] = 1.0
                down[i], up_link[i] = links(spots[i], spots[i] - spots[i - 1], reach, vol, growth)
                drain[i] = down[i] + up_link[i] + fall[i]
                extra = up_link[i] * pin
                up_link[i] = 0.0
            drain_b[i] = drain[i] + credit[i]
            before = i - 1 if i > 0 else 0
            past = (1.0 - theta[i]) * dt
            moved = down[i] * V[before] - drain[i] * V[i] + up_link[i] * V[i + 1]
            if split:
                moved -= credit[i] * B[i]
                moved_b = down[i] * B[before] - drain_b[i] * B[i] + up_link[i] * B[i + 1]
                right_b[i] = B[i] + past * moved_b
            right[i] = V[i] + past * moved + dt * (gain + extra)
        fixed[last], fixed_b[last] = top[0] * spots[last] + top[1] + top[2], top[2]
        solved = False
        for turn in range(ROUNDS):
            rounds += 1
            for i in range(last):
                fixed[i] = up[i] if state[i] == CALLED else low[i]
                fixed_b[i] = row[PUT] if state[i] == SOLD else 0.0
            if split and turn < COUPLED_ROUNDS:
                sweep(dt, down, up_link, drain_b, theta, right_b, fixed_b, state, ratio, next_b)
            for i in range(last):
                whole[i] = right[i] - theta[i] * dt * credit[i] * next_b[i] if split else right[i]
            sweep(dt, down, up_link, drain, theta, whole, fixed, state, ratio, next_v)
            solved = True
            for i in range(last):
                before = i - 1 if i > 0 else 0
                lead = theta[i] * dt
                value = whole[i] + lead * (down[i] * next_v[before] + up_link[i] * next_v[i + 1])
                value /= 1.0 + lead * drain[i]
                wanted = decide(value, low[i], up[i], by[i], state[i], TOO_CLOSE * (abs(value) + size))
                if wanted != state[i]:
                    state[i] = wanted
                    solved = False
            if solved:
                break
        down[pinned], up_link[pinned] = kept_down, kept_up
        unsolved += 0 if solved else 1
        for i in range(n):
            V[i] = min(max(next_v[i], low[i]), up[i])
            if split:
                B[i] = next_b[i]
    return unsolved, rounds
