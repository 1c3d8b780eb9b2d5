"""The grid's march in plain numpy, the readable twin of `convertible_kernels`; law: same nodes, same steps, same values.

Slow, and what the compiled march is held equal to. What a formula means is said here; the kernel only says it faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.pricing.convertible_plan import CALL, CLAIM, COUPON, DAMPED, DIVIDEND, DT, PUT, RATIO, TRIGGER

Array = NDArray[np.float64]
States = NDArray[np.int64]

FREE, CONVERTED, SOLD, CALLED = range(4)
ROUNDS = 100
COUPLED_ROUNDS = 40
TOO_CLOSE = 1e-12


class Bounds(NamedTuple):
    """The least the holder and the most the issuer lets stand at each node, and how the holder gets it."""

    low: Array
    up: Array
    by: States


def march(
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
) -> tuple[Array, Array]:
    """Values and cash parts at the plan's last row; arguments as `convertible_kernels.march`."""
    growth = np.full_like(spots, carry) if split else carry + credit * drop
    fall = np.full_like(spots, rate) if split else rate + credit
    down, up = _all_links(spots, vol, growth)
    V, B = _at_maturity(spots, shares, redeemed, coupon, keeps_coupon)
    kept = coupon if keeps_coupon else 0.0
    top = np.array([shares, 0.0, kept if shares > 0.0 else redeemed + coupon])
    state = np.full(spots.size, FREE)
    for row in rows:
        bounds = _bounds(spots, row)
        state = _still_open(state, bounds)
        if row[DT] == 0.0:
            V, B, state = _instant(spots, row, bounds, state, V, B)
            top[1 if split else 2] -= top[0] * row[DIVIDEND]
            top[2] += row[COUPON]
            top = _top_bounded(top, spots[-1], row, bounds, split)
            V[-1], B[-1] = top[0] * spots[-1] + top[1] + top[2], top[2]
            continue
        top = _top_faded(top, row, rate, carry, float(credit[-1]), drop, recovered, split)
        top = _top_bounded(top, spots[-1], row, bounds, split)
        dt = row[DT]
        a, c, drain, gain = down.copy(), up.copy(), down + up + fall, np.zeros_like(spots)
        if not split:
            gain = credit * np.maximum(row[CLAIM] * spots * (1.0 - drop), recovered)
        theta = _implicitness(row, credit)
        for i, level in _corner(spots, row):
            a[i], link = _links(spots[i], spots[i] - spots[i - 1], level / row[RATIO] - spots[i], vol, growth[i])
            drain[i], c[i], theta[i] = a[i] + link + fall[i], 0.0, 1.0
            gain[i] += link * level
        past = (1.0 - theta) * dt
        right = V + past * (_neighbours(a, c, V) - drain * V - (credit * B if split else 0.0)) + dt * gain
        right_b = B + past * (_neighbours(a, c, B) - (drain + credit) * B)
        ends = top[0] * spots[-1] + top[1] + top[2], top[2]
        next_b = np.zeros_like(B)
        for turn in range(ROUNDS):
            if split and turn < COUPLED_ROUNDS:
                paid = np.where(state == SOLD, row[PUT], 0.0)
                next_b = _solved(theta * dt, a, c, drain + credit, right_b, paid, ends[1], state)
            whole = right - theta * dt * credit * next_b if split else right
            fixed = np.where(state == CALLED, bounds.up, bounds.low)
            next_v = _solved(theta * dt, a, c, drain, whole, fixed, ends[0], state)
            value = (whole + theta * dt * _neighbours(a, c, next_v)) / (1.0 + theta * dt * drain)
            wanted = _decided(value, bounds, state, size)
            wanted[-1] = state[-1]
            settled = bool((wanted == state).all())
            state = wanted
            if settled:
                break
        V = np.clip(next_v, bounds.low, bounds.up)
        B = next_b if split else B
    return V, B


def _all_links(spots: Array, vol: float, growth: Array) -> tuple[Array, Array]:
    down, up = np.zeros_like(spots), np.zeros_like(spots)
    for i in range(1, spots.size - 1):
        down[i], up[i] = _links(spots[i], spots[i] - spots[i - 1], spots[i + 1] - spots[i], vol, growth[i])
    return down, up


def _links(spot: float, below: float, above: float, vol: float, growth: float) -> tuple[float, float]:
    """Weights of both neighbours in growth S V_S + vol^2 S^2 V_SS / 2: central, one-sided where that is negative."""
    both, spread, move = below + above, vol * vol * spot * spot, growth * spot
    down, up = (spread - move * above) / (below * both), (spread + move * below) / (above * both)
    if down < 0.0 or up < 0.0:
        return spread / (below * both) + max(-move, 0.0) / below, spread / (above * both) + max(move, 0.0) / above
    return down, up


def _neighbours(down: Array, up: Array, V: Array) -> Array:
    out = np.zeros_like(V)
    out[1:] += down[1:] * V[:-1]
    out[:-1] += up[:-1] * V[1:]
    return out


def _solved(
    lead: Array, down: Array, up: Array, drain: Array, right: Array, fixed: Array, end: float, state: States
) -> Array:
    """The implicit step's system, dense at the diagonal and its neighbours, rows of decided nodes replaced."""
    from scipy.linalg import solve_banded  # noqa: PLC0415  only the slow twin needs it

    free = state == FREE
    free[-1] = False
    value = np.where(free, right, fixed)
    value[-1] = end
    bands = np.zeros((3, right.size))
    bands[1] = np.where(free, 1.0 + lead * drain, 1.0)
    bands[0, 1:] = np.where(free, -lead * up, 0.0)[:-1]
    bands[2, :-1] = np.where(free, -lead * down, 0.0)[1:]
    return np.asarray(solve_banded((1, 1), bands, value))


def _decided(value: Array, bounds: Bounds, state: States, size: float) -> States:
    close = TOO_CLOSE * (np.abs(value) + size)
    near = np.where(value > 0.5 * (bounds.low + bounds.up), CALLED, bounds.by)
    inside = (bounds.low + close < value) & (value < bounds.up - close)
    wanted = np.where(inside | (state == FREE), FREE, near)
    wanted = np.where(value > bounds.up + close, CALLED, wanted)
    return np.asarray(np.where((bounds.low >= bounds.up) | (value < bounds.low - close), bounds.by, wanted))


def _bounds(spots: Array, row: Array) -> Bounds:
    parity = row[RATIO] * spots
    low = parity if row[RATIO] > 0.0 else np.full_like(spots, -1e300)
    by = np.where(row[PUT] > low, SOLD, CONVERTED)
    low = np.maximum(low, row[PUT])
    called = np.where(parity < row[TRIGGER] * (1.0 - 1e-12), np.inf, np.maximum(row[CALL], parity))
    return Bounds(low, np.maximum(called, low), by)


def _still_open(state: States, bounds: Bounds) -> States:
    held = np.where(bounds.low > -1e300, bounds.by, FREE)
    state = np.where((state == CONVERTED) | (state == SOLD), held, state)
    return np.asarray(np.where((state == CALLED) & np.isinf(bounds.up), FREE, state))


def _corner(spots: Array, row: Array) -> Iterator[tuple[int, float]]:
    """The node below a parity that reaches the call between two nodes, and that parity."""
    if not (row[RATIO] > 0.0 and np.isfinite(row[CALL])):
        return
    level = max(row[CALL], row[TRIGGER])
    place = level / row[RATIO]
    i = int(np.searchsorted(spots, place, side="right")) - 1
    if 0 < i < spots.size - 1 and spots[i] * (1.0 + TOO_CLOSE) < place < spots[i + 1] - TOO_CLOSE * spots[i]:
        yield i, level


def _at_maturity(
    spots: Array, shares: float, redeemed: float, coupon: float, keeps_coupon: bool
) -> tuple[Array, Array]:
    extra = coupon if keeps_coupon else 0.0
    plain = redeemed + coupon
    converted = shares * spots + extra
    V = np.maximum(plain, converted)
    B = np.where((shares > 0.0) & (converted > plain), extra, plain)
    if shares > 0.0:
        _share_jump(spots, (plain - extra) / shares, B)
    return V, B


def _share_jump(spots: Array, place: float, B: Array) -> None:
    """A jump inside a node's cell: that node takes the cell's mean, so that O(h^2) holds wherever the jump lies."""
    j = int(np.searchsorted(spots, place, side="right")) - 1
    if not 1 <= j <= spots.size - 3:
        return
    middles = 0.5 * (spots[1:] + spots[:-1])
    left, right = B[j], B[j + 1]
    if place < middles[j]:
        B[j] += (right - left) * (middles[j] - place) / (middles[j] - middles[j - 1])
    else:
        B[j + 1] += (left - right) * (place - middles[j]) / (middles[j + 1] - middles[j])


def _instant(
    spots: Array, row: Array, bounds: Bounds, state: States, V: Array, B: Array
) -> tuple[Array, Array, States]:
    if row[DIVIDEND] > 0.0:
        after = np.maximum(spots - row[DIVIDEND], 0.0)
        V, B = read_off(spots, V, after), read_off(spots, B, after)
    free, B = V + row[COUPON], B + row[COUPON]
    below, above = free < bounds.low, free > bounds.up
    B = np.where(below, np.where(bounds.by == SOLD, row[PUT], 0.0), np.where(above, 0.0, B))
    state = np.where(below, bounds.by, np.where(above, CALLED, state))
    previous = -2
    for j in np.flatnonzero((below[1:] != below[:-1]) | (above[1:] != above[:-1])):
        edges = bounds.low if below[j] != below[j + 1] and bounds.low[j] > -1e300 < bounds.low[j + 1] else bounds.up
        if not np.isfinite(edges[j : j + 2]).all() or j == previous + 1:
            continue
        gap, following = free[j] - edges[j], free[j + 1] - edges[j + 1]
        _share_jump(spots, spots[j] + (spots[j + 1] - spots[j]) * gap / (gap - following), B)
        previous = int(j)
    return np.clip(free, bounds.low, bounds.up), B, state


def _top_faded(
    top: Array, row: Array, rate: float, carry: float, credit: float, drop: float, recovered: float, split: bool
) -> Array:
    """V = top[0] S + top[1] + top[2] at the last node, one step on as the scheme moves straight lines."""
    dt, fall = row[DT], rate + credit
    theta = float(_implicitness(row, np.array([credit]))[0])
    claim = 0.0 if split else row[CLAIM] * (1.0 - drop)
    speed = carry - rate if split else carry + credit * drop - fall
    paid = 0.0 if split or claim > 0.0 else credit * recovered
    old, new = (1.0 - theta) * dt, theta * dt
    slope = (top[0] * (1.0 + old * speed) + credit * claim * dt) / (1.0 - new * speed)
    cash = (top[2] * (1.0 - old * fall) + paid * dt) / (1.0 + new * fall)
    return np.array([slope, top[1] * (1.0 - old * rate) / (1.0 + new * rate), cash])


def _implicitness(row: Array, credit: Array) -> Array:
    """The weight of the new values in a step: one when damped, else a half, more where the hazard is stiff."""
    if row[DAMPED] > 0.0:
        return np.ones_like(credit)
    return np.asarray(np.maximum(0.5, 1.0 - 1.0 / np.maximum(credit * row[DT], 2.0)))


def _top_bounded(top: Array, spot: float, row: Array, bounds: Bounds, split: bool) -> Array:
    value = top[0] * spot + top[1] + top[2]
    if value < bounds.low[-1]:
        return np.array([row[RATIO], 0.0, 0.0]) if bounds.by[-1] == CONVERTED else np.array([0.0, 0.0, row[PUT]])
    if value > bounds.up[-1]:
        if row[RATIO] * spot >= row[CALL]:
            return np.array([row[RATIO], 0.0, 0.0])
        return np.array([0.0, row[CALL], 0.0] if split else [0.0, 0.0, row[CALL]])
    return top


def read_off(spots: Array, V: Array, at: Array) -> Array:
    """V at any spots: cubic through four nodes above 0, a line below the first of them and beyond the last."""
    out = np.empty_like(at)
    last = spots.size - 1
    for m, s in enumerate(at):
        j = int(np.searchsorted(spots, s, side="right")) - 1
        if j < 1 or j >= last:
            j = 0 if j < 1 else last - 1
            out[m] = V[j] + (V[j + 1] - V[j]) * (s - spots[j]) / (spots[j + 1] - spots[j])
            continue
        i = min(max(j - 1, 1), spots.size - 4)
        x, y = spots[i : i + 4], V[i : i + 4]
        out[m] = sum(y[p] * np.prod([(s - x[o]) / (x[p] - x[o]) for o in range(4) if o != p]) for p in range(4))
        if (np.diff(y) >= 0.0).all() or (np.diff(y) <= 0.0).all():
            out[m] = np.clip(out[m], min(V[j], V[j + 1]), max(V[j], V[j + 1]))
    return out


def place_nodes(scale: float, keys: Array, width: float, low: float, high: float, count: int) -> Array:
    """Node 0 at 0, the others at scale e^x with mean asinh((x - key) / width) evenly spaced, bent to hit the keys."""
    from scipy.optimize import brentq  # noqa: PLC0415  only the slow twin needs it

    def level(x: float) -> float:
        return float(np.mean(np.arcsinh((x - keys) / width)))

    step = (level(high) - level(low)) / (count - 1)
    raw, whole = [0.0], [0.0]
    for key in keys:
        place = (level(key) - level(low)) / step
        near = float(np.floor(place + 0.5))
        if near >= whole[-1] + 2.0 and near <= count - 3.0:
            raw.append(place)
            whole.append(near)
    places = np.interp(np.arange(count), [*whole, count - 1.0], [*raw, count - 1.0])
    aims = level(low) + step * places
    inner = [brentq(lambda x, aim=aim: level(x) - aim, low - 1.0, high + 1.0, xtol=1e-14) for aim in aims]
    return np.concatenate([[0.0], scale * np.exp(inner)])
