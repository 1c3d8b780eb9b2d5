"""The readable twin of `american_kernels`: the same steps in numpy, an array over rows where the kernel has lanes.

Law: equal to the kernel but for rounding. Slow, for tests and readers. Formulas and sources stand in
`docs/pricing_american.md`; letters as in the kernel: H = ln^2(b / X), X = min(1, r / q), u the age of a boundary point,
G = e^(-r u) phi(d-) (r - q b) / (vol sqrt u). A point's rules are u / tau, its root, the weights of du and du / sqrt(u).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from bot.pricing.american import Scheme
from bot.pricing.black import Array

LEAST: Final = 1e-280
"""The least H: a boundary at its limit has no direction."""
FLAT: Final = 1e-130
"""A |y| at or below this moves with nothing."""
LATE: Final = 0.4081
"""H / (vol^2 t) at expiry where r < q (Wilmott, Dewynne and Howison 1993)."""
STARTS: Final = 3
"""Newton steps of the QD+ equation."""


class Put(NamedTuple):
    """Puts of strike 1. Shape: all (k,). `side` +1: the rate Greek is by q, not r."""

    x: Array
    tau: Array
    r: Array
    q: Array
    vol: Array
    side: Array

    @property
    def w(self) -> Array:
        return self.vol * np.sqrt(self.tau)

    @property
    def carry(self) -> Array:
        return self.r - self.q

    @property
    def limit(self) -> Array:
        """ln X."""
        late = self.q > self.r
        return np.where(late, np.log(np.where(late, self.r, 1.0) / np.where(late, self.q, 1.0)), 0.0)

    @property
    def floor(self) -> Array:
        """ln(b_inf / X), not below -200 (McKean 1965, Merton 1973)."""
        variance = self.vol**2
        half = 0.5 - self.carry / variance
        root = np.sqrt(half**2 + 2.0 * self.r / variance)
        k = np.where(half < 0.0, root - half, 2.0 * self.r / variance / (root + half))
        lost = (half + root <= 0.0) | (k <= 1e-80)
        depth = -np.log1p(1.0 / np.where(lost, 1.0, k)) - self.limit
        return np.where(lost, -200.0, np.clip(depth, -200.0, 0.0))


def put_rows(rows: Array, scheme: Scheme, *, greeks: bool) -> tuple[Array, Array]:
    """What `american_kernels.put_rows` writes: outputs (6, k) (without `greeks` only the first is filled), ln b (k, n)."""
    out = np.full((6, rows.shape[1]), np.nan)
    with np.errstate(all="ignore"):
        put = Put(*rows)
        H, H_vol, H_rate = fit_boundary(put, scheme)
        out[0] = price(put, scheme, H)
        if greeks:
            out[1:] = greeks_of(put, scheme, H, H_vol, H_rate, out[0])
        exercised = is_exercised(put, H)
        out[:, exercised] = 0.0
        out[0] = np.where(exercised, 1.0 - put.x, out[0])
        out[1] = np.where(exercised, -1.0, out[1])
        if not greeks:
            out[1:] = np.nan
        return out, (put.limit - np.sqrt(H)).T


# ------------------------------------------------------------------------------------------- the boundary


def fit_boundary(put: Put, scheme: Scheme) -> tuple[Array, Array, Array]:
    """H at the nodes and its derivatives by vol and by r or q. Shape: each (n, k)."""
    few = start(put, scheme.few)
    for _ in range(scheme.few_rounds):
        J, residual, _, _ = linearise(put, few, scheme.few, scheme.few_across, scheme.few_rules)
        few, _ = step(put, few, solved(J, residual))
    H = refine(put, few, scheme)
    H_vol, H_rate = np.empty_like(H), np.empty_like(H)
    moving = np.ones(put.x.size, dtype=bool)
    for _ in range(scheme.rounds):
        if not moving.any():
            break
        J, residual, by_vol, by_rate = linearise(put, H, scheme.nodes, scheme.across, scheme.rules)
        after, move = step(put, H, solved(J, residual))
        H = np.where(moving, after, H)
        H_vol = np.where(moving, solved(J, -by_vol), H_vol)
        H_rate = np.where(moving, solved(J, -by_rate), H_rate)
        moving = moving & ~(move <= scheme.tolerance)
    return H, H_vol, H_rate


def start(put: Put, nodes: Array) -> Array:
    """H by the QD+ equation at the nodes (Li 2010, eq. 29-34). Shape: (n, k)."""
    H = np.empty((nodes.size, put.x.size))
    end, never = np.exp(put.limit), np.exp(put.limit + put.floor)
    for j, node in enumerate(nodes):
        t, w = put.tau * node**2, put.w * node
        b = qd_plus(put, t, w, end, never)
        least = 1e-6 * np.minimum(w**2, put.floor**2)
        H[j] = np.maximum((np.log(b) - put.limit) ** 2, least)
    return H


def qd_plus(put: Put, t: Array, w: Array, end: Array, never: Array) -> Array:
    """b(t) of the QD+ equation, from the exponential interpolation of Barone-Adesi and Whaley 1987."""
    r, q, carry, variance = put.r, put.q, put.carry, put.vol**2
    down, down_q = np.exp(-r * t), np.exp(-q * t)
    h = -np.expm1(-r * t)
    some = h > 0.0
    drift = 2.0 * carry / variance - 1.0
    square = np.sqrt(drift**2 + 8.0 * np.where(some, r / h, 1.0 / t) / variance)
    power = -0.5 * (drift + square)
    share = down * 2.0 * r / variance / square
    c1 = np.where(some, share * (1.0 / h - 2.0 * r / variance / (h * square) ** 2), 0.0)
    c2 = np.where(some, 2.0 / variance / square, 0.0)
    gap = np.maximum(end - never, 1e-300)
    b: Array = np.minimum(never + gap * np.exp(np.minimum((carry * t - 2.0 * w) * end / gap, 0.0)), end)
    for _ in range(STARTS):
        d1 = (np.log(b) + carry * t) / w + 0.5 * w
        below_q, below_r = down_q * ndtr(-d1), down * ndtr(w - d1)
        density = b * down_q * phi(d1)
        theta = r * below_r - q * b * below_q - 0.5 * density * w / t
        gain = 1.0 - b - (below_r - b * below_q)
        c0 = c1 - c2 * theta / gain
        bent = power + np.where((gain > 1e-14) & (np.abs(c0) < -0.9 * power), c0, 0.0)
        slope = 1.0 - below_q + density / (b * w) + bent * (below_q - 1.0)
        after = b - ((1.0 - below_q) * b + bent * gain) / slope
        b = np.minimum(np.maximum(np.where(slope != 0.0, after, b), never), end)
    return b


def refine(put: Put, few: Array, scheme: Scheme) -> Array:
    """H at the nodes from H at the few: their polynomial between H / t on either side; beyond the last a line in ln t."""
    H = np.empty((scheme.nodes.size, put.x.size))
    last = scheme.few.size - 1
    for j, node in enumerate(scheme.nodes):
        longer = int(np.flatnonzero(scheme.few >= node)[-1])
        low = (node / scheme.few[longer]) ** 2 * few[longer]
        if longer < last:
            high = (node / scheme.few[longer + 1]) ** 2 * few[longer + 1]
            H[j] = np.maximum(np.minimum(scheme.lift[j] @ few, high), low)
            continue
        on = np.log(scheme.few[last] / node) / np.log(scheme.few[last - 1] / scheme.few[last])
        line = low + on * (low - (node / scheme.few[last - 1]) ** 2 * few[last - 1])
        most = np.where(put.carry < 0.0, LATE * (put.w * node) ** 2, np.inf)
        H[j] = np.maximum(np.minimum(line, most), low)
    return H


def linearise(put: Put, H: Array, nodes: Array, across: Array, rules: Array) -> tuple[Array, Array, Array, Array]:
    """The Jacobian by H (n, n, k), the residual of smooth pasting (n, k) and its derivatives by vol and by r or q."""
    n, k = H.shape
    J, residual = np.zeros((n, n, k)), np.empty((n, k))
    by_vol, by_rate = np.empty((n, k)), np.empty((n, k))
    each = rules.shape[1] // n
    r, q, vol, w = put.r, put.q, put.vol, put.w
    for i in range(n):
        own = -np.sqrt(H[i])
        own_b = np.exp(put.limit + own)
        loss, cross, slide, inner, points_vol, points_rate = np.zeros((6, k))
        for p in range(i * each, (i + 1) * each):
            fraction, root, of_time, of_root = rules[:, p]
            u, s = put.tau * fraction, w * root
            y = -np.sqrt(np.maximum(across[p] @ H, LEAST))
            b = np.exp(put.limit + y)
            d = (own - y + put.carry * u) / s - 0.5 * s  # d- of b(t) / b(t - u)
            up = d + s
            E = np.exp(-r * u) * phi(d)
            du = of_root * put.tau / w  # du / (vol sqrt u)
            flow = du * E * (r - q * b)
            Q = own_b * np.exp(-q * u) * ndtr(up) * of_time * put.tau
            loss += flow
            cross += du * E * q * b
            slide += flow * d / s
            inner += Q
            J[i] -= across[p][:, None] * (flow * d / s * by_square(y))
            density = du * E * b * s
            points_vol += flow * (1.0 - d * up) - q * density * d
            lever = (q * density + flow * d) * u / s
            of_yield = du * E * b + Q * (1.0 - q * u) - lever
            points_rate += np.where(put.side > 0.0, of_yield, flow * u - du * E + lever)
        t, s = put.tau * nodes[i] ** 2, w * nodes[i]
        d1 = (put.limit + own + put.carry * t) / s + 0.5 * s
        first: Array = own_b * np.exp(-q * t) * ndtr(d1)
        edge = own_b * np.exp(-q * t) * phi(d1)
        whole = first + q * inner
        by_own = whole + edge / s + cross + slide
        J[i, i] += by_own * 0.5 / own
        residual[i] = whole - loss
        by_vol[i] = points_vol / vol + edge * (s - d1) / vol
        limit_moves = np.where(q > r, (by_own - slide) * np.where(put.side > 0.0, -1.0 / q, 1.0 / r), 0.0)
        ends = np.where(put.side > 0.0, -t * first - edge * t / s, edge * t / s)
        by_rate[i] = points_rate + ends + limit_moves
    return J, residual, by_vol, by_rate


def by_square(y: Array) -> Array:
    """d y / d y^2, 0 where the polynomial was held at its least."""
    slope: Array = np.where(y < -FLAT, 0.5 / y, 0.0)
    return slope


def solved(J: Array, right: Array) -> Array:
    """J^-1 right, row by row. Shape: J (n, n, k), right (n, k)."""
    found = np.linalg.solve(np.moveaxis(J, 2, 0), right.T[:, :, None])
    return np.asarray(found[:, :, 0].T, dtype=np.float64)


def step(put: Put, H: Array, delta: Array) -> tuple[Array, Array]:
    """H after one Newton step within bounds, and the largest move of ln b over vol sqrt(tau)."""
    after = np.minimum(np.minimum(np.maximum(H - delta, 0.25 * H), 4.0 * H), put.floor**2)
    after = np.where(after > 0.0, after, H)
    return after, np.abs(np.sqrt(after) - np.sqrt(H)).max(axis=0) / put.w


# ------------------------------------------------------------------------------------------- the price and its Greeks


def is_exercised(put: Put, H: Array) -> NDArray[np.bool_]:
    """Whether the spot is at or below the boundary, and waiting for expiry is worth no more."""
    away = np.log(put.x) - (put.limit - np.sqrt(H[0]))
    exercised: NDArray[np.bool_] = (away <= 0.0) & (european(put) <= 1.0 - put.x + 1e-14)
    return exercised


def european(put: Put) -> Array:
    """The Black-Scholes put of strike 1."""
    d1 = (np.log(put.x) + put.carry * put.tau) / put.w + 0.5 * put.w
    value = np.exp(-put.r * put.tau) * ndtr(put.w - d1) - put.x * np.exp(-put.q * put.tau) * ndtr(-d1)
    positive: Array = np.maximum(value, 0.0)
    return positive


class Point(NamedTuple):
    """One quadrature point of the price's integrals. Shape: all (k,)."""

    y: Array
    b: Array
    u: Array
    width: Array
    d: Array
    E: Array
    unpaid: Array
    spared: Array


def price_point(put: Put, scheme: Scheme, H: Array, p: int) -> Point:
    """Point p: e^(-r u) phi(d-), and du times e^(-r u) N(-d-) and S e^(-q u) N(-d+), over tau."""
    fraction, root, of_time, _ = scheme.price_rules[:, p]
    u, width = put.tau * fraction, put.w * root
    y = -np.sqrt(np.maximum(scheme.price_across[p] @ H, LEAST))
    d = (np.log(put.x) - put.limit - y + put.carry * u) / width - 0.5 * width
    unpaid = np.exp(-put.r * u) * ndtr(-d) * of_time
    spared = put.x * np.exp(-put.q * u) * ndtr(-d - width) * of_time
    return Point(y, np.exp(put.limit + y), u, width, d, np.exp(-put.r * u) * phi(d), unpaid, spared)


def price(put: Put, scheme: Scheme, H: Array) -> Array:
    """v + INT r e^(-r u) N(-d-) - q S e^(-q u) N(-d+) du (Kim 1990), not below exercise, not above the strike."""
    premium = np.zeros_like(put.x)
    for p in range(scheme.price_rules.shape[1]):
        at = price_point(put, scheme, H, p)
        premium += put.tau * (put.r * at.unpaid - put.q * at.spared)
    return np.minimum(np.maximum(european(put) + np.maximum(premium, 0.0), 1.0 - put.x), 1.0)


def greeks_of(put: Put, scheme: Scheme, H: Array, H_vol: Array, H_rate: Array, value: Array) -> Array:
    """delta, gamma, vega, theta and the rate Greek. Shape: (5, k)."""
    S, tau, r, q, vol, w = put.x, put.tau, put.r, put.q, put.vol, put.w
    by_q = put.side > 0.0
    b_0 = np.exp(put.limit - np.sqrt(H[0]))
    away = np.maximum(np.log(S) - np.log(b_0), 0.0)
    share = np.where(q > r, np.where(by_q, -1.0 / q, 1.0 / r), 0.0)
    b_vol = -0.5 * H_vol[0] / np.sqrt(H[0])
    b_rate = -0.5 * H_rate[0] / np.sqrt(H[0]) + share
    paid, flow, bend, ends, moved_vol, moved_rate, fixed_vol, fixed_rate = np.zeros((8, S.size))
    for p in range(scheme.price_rules.shape[1]):
        at = price_point(put, scheme, H, p)
        du = scheme.price_rules[3, p] * tau / w
        gap = r - q * at.b
        d_0 = (away + put.carry * at.u) / at.width - 0.5 * at.width
        E_0 = du * np.exp(-r * at.u) * phi(d_0)
        G, G_0 = du * at.E * gap, E_0 * (r - q * b_0)
        paid += at.spared
        flow += G - G_0
        bend += (G * at.d - G_0 * d_0) / at.width
        ends += du * at.E * at.b - E_0 * b_0
        moved_vol += G * by_square(at.y) * (scheme.price_across[p] @ H_vol) - G_0 * b_vol
        moved_rate += G * (by_square(at.y) * (scheme.price_across[p] @ H_rate) + share) - G_0 * b_rate
        density = du * at.E * at.width
        fixed_vol += density * (r * (at.d + at.width) - q * at.b * at.d) / vol
        lever = density * gap * at.u / at.width
        of_yield = lever - tau * at.spared * (1.0 - q * at.u)
        fixed_rate += np.where(by_q, of_yield, tau * at.unpaid * (1.0 - r * at.u) - lever)
    level, slant = held_boundary(put, away)
    gap_0 = r - q * b_0
    flow = flow + gap_0 * level
    bend = bend + gap_0 * slant
    ends = ends + b_0 * level
    d1 = (np.log(S) + put.carry * tau) / w + 0.5 * w
    left, down_q = ndtr(-d1), np.exp(-q * tau)
    mass = S * down_q * phi(d1)
    delta = np.clip(-down_q * left - (flow + q * tau * paid) / S, -1.0, 0.0)
    gamma = np.maximum((mass / w + bend + flow + q * ends) / S**2, 0.0)
    vega = mass * np.sqrt(tau) + fixed_vol + moved_vol + gap_0 * level * b_vol
    vega = np.clip(vega, 0.0, S * np.maximum(1.0, down_q) * np.sqrt(tau))
    theta = r * value - put.carry * S * delta - 0.5 * vol**2 * S**2 * gamma
    of_european = np.where(by_q, tau * S * down_q * left, -tau * np.exp(-r * tau) * ndtr(w - d1))
    rate = of_european + fixed_rate + moved_rate + gap_0 * level * b_rate
    rate = np.clip(rate, np.where(by_q, 0.0, -tau), np.where(by_q, tau, 0.0))
    return np.stack([delta, gamma, vega, theta, rate])


def held_boundary(put: Put, away: Array) -> tuple[Array, Array]:
    """INT e^(-r u) phi(d-) / (vol sqrt u) du and the same times d- / (vol sqrt u), b held at b(tau), in closed form."""
    vol, root_tau = put.vol, np.sqrt(put.tau)
    beta = put.carry / vol - 0.5 * vol
    c = np.sqrt(np.maximum(beta**2 + 2.0 * put.r, 0.0))
    x = away / vol
    common = np.exp(-put.r * put.tau) * phi(x / root_tau + beta * root_tau)
    up = np.exp(-x * (beta - c)) * ndtr(-(x / root_tau + c * root_tau))
    down = np.exp(-x * (beta + c)) * ndtr(-(x / root_tau - c * root_tau))
    flat = c <= 1e-8
    level = np.where(flat, 2.0 * (root_tau * common - x * up), (down - up) / c) / vol
    slant = np.where(flat, 2.0 * up, ((c + beta) * down + (c - beta) * up) / c) / vol**2
    return level, slant


def phi(d: Array) -> Array:
    """The normal density."""
    density: Array = np.exp(-0.5 * d**2) / np.sqrt(2.0 * np.pi)
    return density
