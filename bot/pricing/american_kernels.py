"""The compiled American put of strike 1, from its exercise boundary, many rows abreast; law: a row depends on itself only.

Everything here prices a put on a spot in units of its strike, with r > 0 or (r = 0 > q), where one exercise boundary
exists; `american` brings the other cases here by symmetry or keeps them away. Letters: u is the age of a boundary
point (time from now), b(t) the boundary with t left, y = ln(b / X), X = min(1, r/q) its limit at expiry, H = y^2 as a
polynomial of sqrt(t)^(2/3) through Chebyshev nodes (Andersen, Lake and Offengenden 2016, section 5). Integrals take
u = tau sin(angle)^2, which makes the roots at both ends smooth, with Gauss-Legendre nodes in the angle.

The boundary solves smooth pasting, written with one density for both terms since
B(t) e^(-q u) phi(d+) = B(t-u) e^(-r u) phi(d-):

    b e^(-q t) N(d+(t, b)) + q INT b e^(-q u) N(d+) du - INT e^(-r u) phi(d-) (r - q b(t-u)) / (vol sqrt u) du = 0,

by Newton with the full Jacobian, on few nodes first and then on all; the same factors then give the boundary's
derivatives by vol, r and q, which the Greeks need.

Every inner loop runs over the rows of a block, one row a lane, without branches, so that it becomes vector code of any
width with the same bits in each lane, in a lone row and on any x86-64 processor: see `elementary`. Columns of a block lie at
constant offsets of one array, which tells the compiler that they do not overlap. The readable twin is `american_by_numpy`.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled, inlined, part
from bot.pricing.elementary import PHI_0, clipped, exp_sum, log_quotient, tail_ratio, two_tail_ratios

Array = NDArray[np.float64]

LANES: Final = 32
"""Rows abreast: enough to pay for the overhead of a loop, few enough that a block's Jacobians stay near the processor."""
CHUNK: Final = 512
"""Rows whose boundaries are held between rounds; those not yet converged move together into new blocks."""
OUTPUTS: Final = 6
"""price, delta, gamma, vega, theta, and the derivative by r (puts) or q (calls) of the put of strike 1."""
LEAST: Final = 1e-280
"""The least H: a boundary at its limit has no direction."""
FLAT: Final = 1e-130
"""A |y| at or below this moves with nothing."""
LATE: Final = 0.4081
"""H / (vol^2 t) at expiry where r < q: 2 x 0.4517^2 (Wilmott, Dewynne and Howison 1993)."""
STARTS: Final = 3
"""Newton steps of the QD+ equation."""

# columns of a block; those from D_2 on are of the price, or of the start before it
(
    X, TAU, RATE, YIELD, SIGMA, SIDE, LIMIT, W, PER_W, CARRY, FLOOR, LN_X, DOWN, DOWN_Q,
    Y2, OWN, OWN_B, LOSS, CROSS, SLIDE, INNER, BY_VOL, BY_RATE, MOVE, FIRST, EDGE, D_1, BY_OWN,
    D_2, PAID, RECEIVED, FLOW, BEND, ENDS, ENDS_0, MOVED_VOL, MOVED_RATE, FIXED_VOL, FIXED_RATE,
    Y2_VOL, Y2_RATE, AWAY, B_0, B_VOL, B_RATE, SHARE, LEFT, OWED, DENSITY, PRICE, EXERCISED,
) = (LANES * slot for slot in range(51))  # fmt: skip
END, NEVER, DOWN_T, DOWN_Q_T, POWER, C_1, C_2 = D_2, PAID, RECEIVED, FLOW, BEND, ENDS, ENDS_0
COLUMNS: Final = 51

_f64: Final = numba.types.float64
_i64: Final = numba.types.int64
_TABLE_IN: Final = numba.types.Array(_f64, 2, "C", readonly=True)
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_TABLE: Final = numba.types.Array(_f64, 2, "C")


@part
def set_block(a: Array, c: int) -> None:
    """Derives the columns that all parts share from the given ones. ln b never falls below FLOOR + LIMIT.

    b_inf = k / (k + 1) with -k the negative root of vol^2 m (m-1) / 2 + (r-q) m - r = 0 (McKean 1965, Merton 1973).
    """
    for e in range(c):
        tau = a[TAU + e]
        r = a[RATE + e]
        q = a[YIELD + e]
        vol = a[SIGMA + e]
        carry = r - q
        late = q > r
        limit = log_quotient(r if late else 1.0, q if late else 1.0)
        w = vol * math.sqrt(tau)
        variance = vol * vol
        half = 0.5 - carry / variance
        root = math.sqrt(half * half + 2.0 * r / variance)
        other = 2.0 * r / variance / (root + half)
        k = root - half if half < 0.0 else other
        lost = (half + root <= 0.0) | (k <= 1e-80)
        safe = 1.0 if lost else k
        floor = -log_quotient(1.0 + safe, safe) - limit
        floor = floor if floor < 0.0 else 0.0
        floor = floor if floor > -200.0 else -200.0
        a[LIMIT + e] = limit
        a[W + e] = w
        a[PER_W + e] = 1.0 / w
        a[CARRY + e] = carry
        a[FLOOR + e] = -200.0 if lost else floor
        a[LN_X + e] = log_quotient(a[X + e], 1.0)
        a[DOWN + e] = exp_sum(-r * tau, 0.0)
        a[DOWN_Q + e] = exp_sum(-q * tau, 0.0)


@part
def start(a: Array, H: Array, nodes: Array, c: int) -> None:
    """H by the QD+ equation at the nodes, ln b within 1e-3 as a rule.

    Source: Li 2010, "Analytical approximations for the critical stock prices of American options", eq. 29-34, solved by
    Newton from the exponential interpolation of Barone-Adesi and Whaley 1987 between the limits at expiry and never.
    """
    for e in range(c):
        end = exp_sum(a[LIMIT + e], 0.0)
        a[END + e] = end
        a[NEVER + e] = exp_sum(a[LIMIT + e] + a[FLOOR + e], 0.0)
    for j in range(nodes.shape[0]):
        node = nodes[j]
        row = H[j]
        for e in range(c):
            r = a[RATE + e]
            q = a[YIELD + e]
            vol = a[SIGMA + e]
            carry = a[CARRY + e]
            end = a[END + e]
            never = a[NEVER + e]
            t = a[TAU + e] * node * node
            w = a[W + e] * node
            per_variance = 1.0 / (vol * vol)
            rt = r * t
            down = exp_sum(-rt, 0.0)
            small = rt * (1.0 - rt * (0.5 - rt * (0.16666666666666666 - rt * 0.041666666666666664)))
            h = small if rt < 1e-3 else 1.0 - down
            some = h > 0.0
            over = r / h
            over = over if some else 1.0 / t
            drift = 2.0 * carry * per_variance - 1.0
            square = math.sqrt(drift * drift + 8.0 * over * per_variance)
            a[DOWN_T + e] = down
            a[DOWN_Q_T + e] = exp_sum(-q * t, 0.0)
            a[POWER + e] = -0.5 * (drift + square)
            per_square = 1.0 / square
            C = down * 2.0 * r * per_variance * per_square
            # c0 = C (1 / h - slope - theta / (down r gain)) = C_1 - C_2 theta / gain
            c1 = C * (1.0 / h - (2.0 * r * per_variance) / (h * h) * (per_square * per_square))
            c2 = 2.0 * per_variance * per_square
            a[C_1 + e] = c1 if some else 0.0
            a[C_2 + e] = c2 if some else 0.0
            gap = end - never
            gap = gap if gap > 1e-300 else 1e-300
            speed = (carry * t - 2.0 * w) * end / gap
            b = never + gap * exp_sum(speed if speed < 0.0 else 0.0, 0.0)
            row[e] = b if b < end else end
        for _ in range(STARTS):
            for e in range(c):
                qd_plus(a, row, e, node)
        for e in range(c):
            y = log_quotient(row[e], 1.0) - a[LIMIT + e]
            w = a[W + e] * node
            near = 1e-6 * w * w
            deep = 1e-6 * a[FLOOR + e] * a[FLOOR + e]
            least = near if near < deep else deep
            row[e] = y * y if y * y > least else least


@inlined
def qd_plus(a: Array, b_: Array, e: int, node: float) -> None:
    """One Newton step of the QD+ equation of one row."""
    r = a[RATE + e]
    q = a[YIELD + e]
    w = a[W + e] * node
    t = a[TAU + e] * node * node
    per_w = a[PER_W + e] * (1.0 / node)
    down = a[DOWN_T + e]
    down_q = a[DOWN_Q_T + e]
    power = a[POWER + e]
    b = b_[e]
    d1 = clipped((log_quotient(b, 1.0) + a[CARRY + e] * t) * per_w + 0.5 * w)
    d2 = d1 - w
    phi = PHI_0 * exp_sum(-0.5 * d1 * d1, 0.0)
    m = b * down_q * phi
    y1, y2 = two_tail_ratios(abs(d1), abs(d2))
    tail = phi * y1
    owed = m * y2
    below_q = down_q * (tail if d1 > 0.0 else 1.0 - tail)
    below_r = owed if d2 > 0.0 else down - owed
    theta = r * below_r - q * b * below_q - 0.5 * m * w / t
    gain = 1.0 - b - (below_r - b * below_q)
    c0 = a[C_1 + e] - a[C_2 + e] * theta / gain
    c0 = c0 if (gain > 1e-14) & (abs(c0) < -0.9 * power) else 0.0
    bent = power + c0
    error = (1.0 - below_q) * b + bent * gain
    slope = 1.0 - below_q + m * per_w / b + bent * (below_q - 1.0)
    after = b - error / slope
    after = after if slope != 0.0 else b
    after = after if after > a[NEVER + e] else a[NEVER + e]
    b_[e] = after if after < a[END + e] else a[END + e]


@part
def interpolate(a: Array, slot: int, across: Array, p: int, H: Array, c: int) -> None:
    """Column `slot` = the polynomials H at point p: the sum over j of across(p, j) H(j), four at a time."""
    n = H.shape[0]
    for e in range(c):
        a[slot + e] = 0.0
    j = 0
    while j + 4 <= n:
        f0 = across[p, j]
        f1 = across[p, j + 1]
        f2 = across[p, j + 2]
        f3 = across[p, j + 3]
        H0, H1, H2, H3 = H[j], H[j + 1], H[j + 2], H[j + 3]
        for e in range(c):
            a[slot + e] += (f0 * H0[e] + f1 * H1[e]) + (f2 * H2[e] + f3 * H3[e])
        j += 4
    while j < n:
        f0 = across[p, j]
        H0 = H[j]
        for e in range(c):
            a[slot + e] += f0 * H0[e]
        j += 1


@part
def refine(a: Array, H: Array, nodes: Array, lift: Array, H_0: Array, few: Array, c: int) -> None:
    """H at the nodes from H_0 at few: the polynomial, between what H / t is at the nodes of the few on either side.

    H / t falls with t. Towards expiry it grows as ln t (r >= q) or to LATE of the variance (r < q):
    nodes beyond the last of the few take the line in ln t through its last two.
    """
    last = few.shape[0] - 1
    longer = 0
    for j in range(nodes.shape[0]):
        node = nodes[j]
        while longer < last and few[longer + 1] >= node:
            longer += 1
        at_longer = (node / few[longer]) ** 2
        if longer < last:
            at_shorter = (node / few[longer + 1]) ** 2
            interpolate(a, Y2, lift, j, H_0, c)
            for e in range(c):
                low = at_longer * H_0[longer, e]
                high = at_shorter * H_0[longer + 1, e]
                y2 = a[Y2 + e]
                y2 = y2 if y2 < high else high
                H[j, e] = y2 if y2 > low else low
            continue
        on = log_quotient(few[last], node) / log_quotient(few[last - 1], few[last])
        before = (node / few[last - 1]) ** 2
        for e in range(c):
            low = at_longer * H_0[last, e]
            w = a[W + e] * node
            y2 = low + on * (low - before * H_0[last - 1, e])
            most = LATE * w * w
            y2 = most if (a[CARRY + e] < 0.0) & (y2 > most) else y2
            H[j, e] = y2 if y2 > low else low


@part
def linearise(
    a: Array, H: Array, nodes: Array, across: Array, rules: Array, pulls: Array, J: Array, rhs: Array, c: int,
    tangents: bool,
) -> None:  # fmt: skip
    """Writes the Jacobian by H, the residual and, if asked for, its derivatives by vol and by r or q with minus signs.

    Shape: H (n, LANES), across (n l, n), rules (4, n l), pulls (l, LANES), J (n, n, LANES), rhs (3, n, LANES).
    """
    n = nodes.shape[0]
    l = rules.shape[1] // n  # noqa: E741  the letter of Andersen, Lake and Offengenden
    for i in range(n):
        open_node(a, H[i], c)
        for k in range(l):
            interpolate(a, Y2, across, i * l + k, H, c)
            add_point(a, pulls[k], rules, i * l + k, c, tangents)
        for j in range(n):
            pull_back(J[i, j], across, i * l, j, pulls, l, c)
        close_node(a, nodes[i], J[i, i], rhs, i, c)
        if tangents:
            close_tangents(a, nodes[i], rhs, i, c)


@part
def open_node(a: Array, H_i: Array, c: int) -> None:
    """Sets the sums of a node to nothing."""
    for e in range(c):
        own = -math.sqrt(H_i[e])
        a[OWN + e] = own
        a[OWN_B + e] = exp_sum(a[LIMIT + e] + own, 0.0)
        a[LOSS + e] = 0.0
        a[CROSS + e] = 0.0
        a[SLIDE + e] = 0.0
        a[INNER + e] = 0.0
        a[BY_VOL + e] = 0.0
        a[BY_RATE + e] = 0.0


@part
def add_point(a: Array, weights: Array, rules: Array, p: int, c: int, tangents: bool) -> None:
    """Adds point p of the rules to the sums of its node, of each row."""
    fraction = rules[0, p]
    root = rules[1, p]
    per_root = 1.0 / root
    of_time = rules[2, p]
    of_root = rules[3, p]
    if tangents:
        for e in range(c):
            point(a, weights, e, fraction, root, per_root, of_time, of_root, True)
    else:
        for e in range(c):
            point(a, weights, e, fraction, root, per_root, of_time, of_root, False)


@part
def pull_back(row: Array, across: Array, first: int, j: int, pulls: Array, l: int, c: int) -> None:  # noqa: E741  as above
    """row = minus the sum over the l points from `first` of across(point, j) pulls(point), four at a time."""
    for e in range(c):
        row[e] = 0.0
    k = 0
    while k + 4 <= l:
        f0 = across[first + k, j]
        f1 = across[first + k + 1, j]
        f2 = across[first + k + 2, j]
        f3 = across[first + k + 3, j]
        w0, w1, w2, w3 = pulls[k], pulls[k + 1], pulls[k + 2], pulls[k + 3]
        for e in range(c):
            row[e] -= (f0 * w0[e] + f1 * w1[e]) + (f2 * w2[e] + f3 * w3[e])
        k += 4
    while k < l:
        f0 = across[first + k, j]
        w0 = pulls[k]
        for e in range(c):
            row[e] -= f0 * w0[e]
        k += 1


@part
def close_node(a: Array, node: float, diagonal: Array, rhs: Array, i: int, c: int) -> None:
    """Writes the residual of node i and completes the diagonal of its row of the Jacobian."""
    residual = rhs[0, i]
    for e in range(c):
        q = a[YIELD + e]
        own = a[OWN + e]
        t_i = a[TAU + e] * node * node
        s_i = a[W + e] * node
        d1 = clipped((a[LIMIT + e] + own + a[CARRY + e] * t_i) / s_i + 0.5 * s_i)
        grown = a[OWN_B + e] * exp_sum(-q * t_i, 0.0)
        phi = PHI_0 * exp_sum(-0.5 * d1 * d1, 0.0)
        tail = phi * tail_ratio(abs(d1))
        first = grown * (1.0 - tail if d1 > 0.0 else tail)
        edge = grown * phi
        whole = first + q * a[INNER + e]
        by_own = whole + edge / s_i + a[CROSS + e] + a[SLIDE + e]
        diagonal[e] += by_own * 0.5 / own
        residual[e] = whole - a[LOSS + e]
        a[FIRST + e] = first
        a[EDGE + e] = edge
        a[D_1 + e] = d1
        a[BY_OWN + e] = by_own


@part
def close_tangents(a: Array, node: float, rhs: Array, i: int, c: int) -> None:
    """Writes minus the derivatives of the residual of node i by vol and by r or q."""
    minus_vol = rhs[1, i]
    minus_rate = rhs[2, i]
    for e in range(c):
        r = a[RATE + e]
        q = a[YIELD + e]
        vol = a[SIGMA + e]
        by_q = a[SIDE + e] > 0.0
        t_i = a[TAU + e] * node * node
        s_i = a[W + e] * node
        edge = a[EDGE + e]
        by_vol = a[BY_VOL + e] / vol + edge * (s_i - a[D_1 + e]) / vol
        lever = edge * t_i / s_i
        by_rate = a[BY_RATE + e] + (-t_i * a[FIRST + e] - lever if by_q else lever)
        # X = r / q moves too
        moved = (a[BY_OWN + e] - a[SLIDE + e]) * (-1.0 / q if by_q else 1.0 / r)
        by_rate += moved if q > r else 0.0
        minus_vol[e] = -by_vol
        minus_rate[e] = -by_rate


@inlined
def point(
    a: Array, weights: Array, e: int, fraction: float, root: float, per_root: float, of_time: float, of_root: float,
    tangents: bool,
) -> None:  # fmt: skip
    """Adds one quadrature point of one row to the sums of its node; weights: what H at the point is multiplied by in J."""
    r = a[RATE + e]
    q = a[YIELD + e]
    tau = a[TAU + e]
    w = a[W + e]
    y2 = a[Y2 + e]
    y2 = y2 if y2 > LEAST else LEAST
    y = -math.sqrt(y2)
    b = exp_sum(a[LIMIT + e] + y, 0.0)
    u = tau * fraction
    s = w * root
    per_s = a[PER_W + e] * per_root
    d = clipped((a[OWN + e] - y + a[CARRY + e] * u) * per_s - 0.5 * s)
    E = PHI_0 * exp_sum(-r * u - 0.5 * d * d, 0.0)
    wz = of_root * tau * a[PER_W + e] * E
    flow = wz * (r - q * b)
    pull = flow * d * per_s
    a[LOSS + e] += flow
    a[CROSS + e] += wz * q * b
    a[SLIDE + e] += pull
    half = 0.5 / y
    weights[e] = pull * half if y < -FLAT else 0.0
    up = d + s
    tail = tail_ratio(abs(up)) * (b * E)
    aged = a[OWN_B + e] * exp_sum(-q * u, 0.0)
    Q = (aged - tail if up > 0.0 else tail) * (of_time * tau)
    a[INNER + e] += Q
    if tangents:
        by_q = a[SIDE + e] > 0.0
        density = wz * b * s  # du b(t) e^(-q u) phi(d+)
        a[BY_VOL + e] += flow * (1.0 - d * up) - q * density * d
        step = u * per_s  # sqrt(u) / vol
        common = (q * density + flow * d) * step
        by_yield = wz * b + Q * (1.0 - q * u) - common
        by_rate = flow * u - wz + common
        a[BY_RATE + e] += by_yield if by_q else by_rate


@part
def solve(J: Array, rhs: Array, count: int, c: int) -> None:
    """rhs(0..count-1) becomes J^-1 rhs, by elimination without row exchange; both are overwritten."""
    n = J.shape[0]
    for k in range(n):
        J_k = J[k]
        pivot = J_k[k]
        for e in range(c):
            pivot[e] = 1.0 / pivot[e]
        for i in range(k + 1, n):
            J_i = J[i]
            factor = J_i[k]
            for e in range(c):
                factor[e] = factor[e] * pivot[e]
            for j in range(k + 1, n):
                to = J_i[j]
                of = J_k[j]
                for e in range(c):
                    to[e] -= factor[e] * of[e]
            for v in range(count):
                to = rhs[v, i]
                of = rhs[v, k]
                for e in range(c):
                    to[e] -= factor[e] * of[e]
    for v in range(count):
        for k in range(n - 1, -1, -1):
            total = rhs[v, k]
            for j in range(k + 1, n):
                f = J[k, j]
                x = rhs[v, j]
                for e in range(c):
                    total[e] -= f[e] * x[e]
            f = J[k, k]
            for e in range(c):
                total[e] *= f[e]


@part
def step(a: Array, H: Array, rhs: Array, c: int) -> None:
    """H moves by one Newton step, within bounds; MOVE is the largest move of ln b over vol sqrt(tau)."""
    n = H.shape[0]
    for e in range(c):
        a[MOVE + e] = 0.0
    for j in range(n):
        row = H[j]
        delta = rhs[0, j]
        for e in range(c):
            before = row[e]
            after = before - delta[e]
            low = 0.25 * before
            high = 4.0 * before
            deepest = a[FLOOR + e] * a[FLOOR + e]
            after = after if after > low else low
            after = after if after < high else high
            after = after if after < deepest else deepest
            after = after if after > 0.0 else before
            row[e] = after
            move = abs(math.sqrt(after) - math.sqrt(before))
            a[MOVE + e] = move if move > a[MOVE + e] else a[MOVE + e]
    for e in range(c):
        a[MOVE + e] *= a[PER_W + e]


@part
def open_price(a: Array, H: Array, c: int) -> None:
    """Sets the sums of the price to nothing."""
    for e in range(c):
        d1 = clipped((a[LN_X + e] + a[CARRY + e] * a[TAU + e]) * a[PER_W + e] + 0.5 * a[W + e])
        a[D_1 + e] = d1
        a[D_2 + e] = d1 - a[W + e]
        ln_b = a[LIMIT + e] - math.sqrt(H[0, e])
        away = a[LN_X + e] - ln_b
        a[AWAY + e] = away if away > 0.0 else 0.0
        a[B_0 + e] = exp_sum(ln_b, 0.0)
        for slot in (PAID, RECEIVED, FLOW, BEND, ENDS, ENDS_0, MOVED_VOL, MOVED_RATE, FIXED_VOL, FIXED_RATE):
            a[slot + e] = 0.0


@part
def open_moves(a: Array, H: Array, H_vol: Array, H_rate: Array, c: int) -> None:
    """How ln b(tau) moves with vol and with r or q; SHARE is how its limit does."""
    for e in range(c):
        per_y = -0.5 / math.sqrt(H[0, e])
        share = -1.0 / a[YIELD + e] if a[SIDE + e] > 0.0 else 1.0 / a[RATE + e]
        share = share if a[CARRY + e] < 0.0 else 0.0
        a[SHARE + e] = share
        a[B_VOL + e] = per_y * H_vol[0, e]
        a[B_RATE + e] = per_y * H_rate[0, e] + share


@part
def price_block(
    a: Array, H: Array, H_vol: Array, H_rate: Array, across: Array, rules: Array, out: Array, c: int, greeks: bool
) -> None:
    """Writes the price, and if asked for the Greeks, of each row from its boundary.

    Derivatives by S of Kim's integral are those of G = e^(-r u) phi(d-) (r - q b) / (vol sqrt u), which near the boundary
    is steep at u = 0: there the same integral with b held at b(tau), known in closed form, is taken off and added back.
    """
    open_price(a, H, c)
    if greeks:
        open_moves(a, H, H_vol, H_rate, c)
    for p in range(rules.shape[1]):
        interpolate(a, Y2, across, p, H, c)
        fraction = rules[0, p]
        root = rules[1, p]
        per_root = 1.0 / root
        of_time = rules[2, p]
        of_root = rules[3, p]
        if greeks:
            interpolate(a, Y2_VOL, across, p, H_vol, c)
            interpolate(a, Y2_RATE, across, p, H_rate, c)
            for e in range(c):
                price_point(a, e, fraction, root, per_root, of_time, of_root, True)
        else:
            for e in range(c):
                price_point(a, e, fraction, root, per_root, of_time, of_root, False)
    close_prices(a, out, c)
    if greeks:
        hold_boundary(a, c)
        close_greeks(a, out, c)


@inlined
def price_point(
    a: Array, e: int, fraction: float, root: float, per_root: float, of_time: float, of_root: float, greeks: bool
) -> None:
    """Adds one quadrature point of one row to its sums."""
    r = a[RATE + e]
    q = a[YIELD + e]
    tau = a[TAU + e]
    y2 = a[Y2 + e]
    y2 = y2 if y2 > LEAST else LEAST
    y = -math.sqrt(y2)
    ln_b = a[LIMIT + e] + y
    b = exp_sum(ln_b, 0.0)
    u = tau * fraction
    width = a[W + e] * root
    per_width = a[PER_W + e] * per_root
    carry_u = a[CARRY + e] * u
    d = clipped((a[LN_X + e] - ln_b + carry_u) * per_width - 0.5 * width)
    up = d + width
    E = PHI_0 * exp_sum(-r * u - 0.5 * d * d, 0.0)
    y1, y2_ = two_tail_ratios(abs(d), abs(up))
    tail = y1 * E
    tail_q = y2_ * (E * b)
    age = exp_sum(-r * u, 0.0)
    age_q = a[X + e] * exp_sum(-q * u, 0.0)
    unpaid = (tail if d > 0.0 else age - tail) * of_time  # e^(-r u) N(-d-)
    spared = (tail_q if up > 0.0 else age_q - tail_q) * of_time  # S e^(-q u) N(-d+)
    a[RECEIVED + e] += unpaid
    a[PAID + e] += spared
    if greeks:
        by_q = a[SIDE + e] > 0.0
        weight = of_root * tau * a[PER_W + e]
        d_0 = clipped((a[AWAY + e] + carry_u) * per_width - 0.5 * width)
        E_0 = weight * PHI_0 * exp_sum(-r * u - 0.5 * d_0 * d_0, 0.0)
        wE = weight * E
        gap = r - q * b
        G = wE * gap
        G_0 = E_0 * (r - q * a[B_0 + e])
        a[FLOW + e] += G - G_0
        a[BEND + e] += (G * d - G_0 * d_0) * per_width
        a[ENDS + e] += wE * b
        a[ENDS_0 + e] += E_0
        half = 0.5 / y
        half = half if y < -FLAT else 0.0
        a[MOVED_VOL + e] += G * half * a[Y2_VOL + e] - G_0 * a[B_VOL + e]
        a[MOVED_RATE + e] += G * (half * a[Y2_RATE + e] + a[SHARE + e]) - G_0 * a[B_RATE + e]
        density = wE * width  # du e^(-r u) phi(d-)
        # d- by vol: -d+ / vol; d+ by vol: -d- / vol
        a[FIXED_VOL + e] += density * (r * up - q * b * d)
        step = u * per_width
        lever = density * gap * step
        by_yield = lever - tau * spared * (1.0 - q * u)
        by_rate = tau * unpaid * (1.0 - r * u) - lever
        a[FIXED_RATE + e] += by_yield if by_q else by_rate


@part
def close_prices(a: Array, out: Array, c: int) -> None:
    """Writes the price of each row. Shape: out (6, LANES).

    V = v + INT r e^(-r u) N(-d-) - q S e^(-q u) N(-d+) du (Kim 1990), v the European put: far from the money the
    difference of two tails over one density, so that no digits are lost.
    """
    for e in range(c):
        S = a[X + e]
        d1 = a[D_1 + e]
        d2 = a[D_2 + e]
        s = S * a[DOWN_Q + e]
        phi = PHI_0 * exp_sum(-0.5 * d1 * d1, 0.0)
        density = s * phi
        y1, y2 = two_tail_ratios(abs(d1), abs(d2))
        left = phi * y1 if d1 > 0.0 else 1.0 - phi * y1
        owed = density * y2 if d2 > 0.0 else a[DOWN + e] - density * y2
        far = density * (y2 - y1)
        european = far if d2 > 0.0 else owed - s * left
        european = european if european > 0.0 else 0.0
        premium = a[TAU + e] * (a[RATE + e] * a[RECEIVED + e] - a[YIELD + e] * a[PAID + e])
        premium = premium if premium > 0.0 else 0.0
        price = european + premium
        price = price if price > 1.0 - S else 1.0 - S
        price = price if price < 1.0 else 1.0
        exercised = (a[AWAY + e] <= 0.0) & (european <= 1.0 - S + 1e-14)
        a[LEFT + e] = left
        a[OWED + e] = owed
        a[DENSITY + e] = density
        a[PRICE + e] = price
        a[EXERCISED + e] = 1.0 if exercised else 0.0
        out[0, e] = 1.0 - S if exercised else price


@part
def hold_boundary(a: Array, c: int) -> None:
    """FLOW and BEND with the integrals of G and G d- / (vol sqrt u), b held at b(tau), added back in closed form."""
    for e in range(c):
        vol = a[SIGMA + e]
        root_tau = math.sqrt(a[TAU + e])
        beta = a[CARRY + e] / vol - 0.5 * vol
        square = beta * beta + 2.0 * a[RATE + e]
        speed = math.sqrt(square if square > 0.0 else 0.0)
        x = a[AWAY + e] / vol
        x_root = a[AWAY + e] * a[PER_W + e]
        edge = clipped(x_root + beta * root_tau)
        high = clipped(x_root + speed * root_tau)
        near = clipped(x_root - speed * root_tau)
        common = a[DOWN + e] * PHI_0 * exp_sum(-0.5 * edge * edge, 0.0)
        phi_near = PHI_0 * exp_sum(-0.5 * near * near, 0.0)
        ratio_high, ratio_near = two_tail_ratios(high, abs(near))
        up_part = ratio_high * common
        inside = exp_sum(-x * (beta + speed), 0.0) * (1.0 - phi_near * ratio_near)
        down_part = ratio_near * common if near > 0.0 else inside
        gap = a[RATE + e] - a[YIELD + e] * a[B_0 + e]
        flat = speed <= 1e-8
        level = (down_part - up_part) / speed
        level = 2.0 * (root_tau * common - x * up_part) if flat else level
        level = level / vol  # INT e^(-r u) phi(d-) / (vol sqrt u) du
        slant = ((speed + beta) * down_part + (speed - beta) * up_part) / (vol * vol * speed)
        slant = 2.0 * up_part / (vol * vol) if flat else slant
        a[FLOW + e] += gap * level
        a[BEND + e] += gap * slant
        a[ENDS + e] += a[B_0 + e] * (level - a[ENDS_0 + e])
        a[MOVED_VOL + e] += gap * level * a[B_VOL + e]
        a[MOVED_RATE + e] += gap * level * a[B_RATE + e]


@part
def close_greeks(a: Array, out: Array, c: int) -> None:
    """Writes the Greeks of each row. Shape: out (6, LANES).

    E |W_T| <= sqrt(tau) for any rule T of exercise bounds vega, 0 <= T <= tau the rate Greeks: the last word for boundaries
    so near 0 that their derivatives are lost.
    """
    for e in range(c):
        S = a[X + e]
        tau = a[TAU + e]
        q = a[YIELD + e]
        vol = a[SIGMA + e]
        by_q = a[SIDE + e] > 0.0
        exercised = a[EXERCISED + e] > 0.0
        down_q = a[DOWN_Q + e]
        density = a[DENSITY + e]
        left = a[LEFT + e]
        root_tau = math.sqrt(tau)
        # S x derivative, and S^2 x second derivative, of the premium
        slope = -a[FLOW + e] - q * (tau * a[PAID + e])
        curve = a[BEND + e] + a[FLOW + e] + q * a[ENDS + e]
        delta = -down_q * left + slope / S
        delta = delta if delta > -1.0 else -1.0
        delta = delta if delta < 0.0 else 0.0
        gamma = (density / a[W + e] + curve) / (S * S)
        gamma = gamma if gamma > 0.0 else 0.0
        vega = density * root_tau + a[FIXED_VOL + e] / vol + a[MOVED_VOL + e]
        vega = vega if vega > 0.0 else 0.0
        most = S * (down_q if down_q > 1.0 else 1.0) * root_tau
        vega = vega if vega < most else most
        theta = a[RATE + e] * a[PRICE + e] - a[CARRY + e] * S * delta - 0.5 * vol * vol * S * S * gamma
        by_rate = tau * S * down_q * left if by_q else -tau * a[OWED + e]
        by_rate += a[FIXED_RATE + e] + a[MOVED_RATE + e]
        low = 0.0 if by_q else -tau
        top = tau if by_q else 0.0
        by_rate = by_rate if by_rate > low else low
        by_rate = by_rate if by_rate < top else top
        out[1, e] = -1.0 if exercised else delta
        out[2, e] = 0.0 if exercised else gamma
        out[3, e] = 0.0 if exercised else vega
        out[4, e] = 0.0 if exercised else theta
        out[5, e] = 0.0 if exercised else by_rate


@part
def load(a: Array, rows: Array, index: NDArray[np.int64], first: int, c: int) -> None:
    """The given columns of the rows index[first:first + c], and what derives from them."""
    for e in range(c):
        k = index[first + e]
        a[X + e] = rows[0, k]
        a[TAU + e] = rows[1, k]
        a[RATE + e] = rows[2, k]
        a[YIELD + e] = rows[3, k]
        a[SIGMA + e] = rows[4, k]
        a[SIDE + e] = rows[5, k]
    set_block(a, c)


@part
def take(H: Array, held: Array, index: NDArray[np.int64], first: int, begin: int, c: int) -> None:
    """H of the rows index[first:first + c] from where the chunk that begins at row `begin` holds it."""
    for j in range(H.shape[0]):
        for e in range(c):
            H[j, e] = held[j, index[first + e] - begin]


@part
def keep(held: Array, H: Array, index: NDArray[np.int64], first: int, begin: int, c: int) -> None:
    """The opposite of `take`."""
    for j in range(H.shape[0]):
        for e in range(c):
            held[j, index[first + e] - begin] = H[j, e]


@part
def still_moving(a: Array, index: NDArray[np.int64], first: int, left: int, c: int, tolerance: float) -> int:
    """Moves the rows of a block that are not at rest to index[left:], and returns where the next ones go."""
    for e in range(c):
        if not a[MOVE + e] <= tolerance:
            index[left] = index[first + e]
            left += 1
    return left


@compiled(
    numba.types.void(
        _TABLE_IN, _IN, _TABLE_IN, _TABLE_IN, _i64, _IN, _TABLE_IN, _TABLE_IN, _TABLE_IN, _TABLE_IN, _TABLE_IN, _i64, _f64,
        numba.types.boolean, _TABLE, _TABLE,
    )
)  # fmt: skip
def put_rows(
    rows: Array, few: Array, few_across: Array, few_rules: Array, few_rounds: int, nodes: Array, lift: Array, across: Array,
    rules: Array, price_across: Array, price_rules: Array, rounds: int, tolerance: float, greeks: bool, out: Array,
    boundary: Array,
) -> None:  # fmt: skip
    """Writes the outputs of each put of strike 1, and ln b at the nodes.

    Shape: rows (6, k) as spot, tau, r, q, vol, side (+1: the rate Greek is by q); tables as in `american.Scheme`;
    out (6, k), boundary (k, n).
    """
    n = nodes.shape[0]
    n_0 = few.shape[0]
    a = np.zeros(COLUMNS * LANES)
    pulls = np.zeros((max(rules.shape[1] // n, few_rules.shape[1] // n_0), LANES))
    J = np.zeros((n, n, LANES))
    rhs = np.zeros((3, n, LANES))
    J_0 = np.zeros((n_0, n_0, LANES))
    rhs_0 = np.zeros((3, n_0, LANES))
    H_0 = np.zeros((n_0, LANES))
    H = np.zeros((n, LANES))
    block = np.zeros((OUTPUTS, LANES))
    index = np.zeros(CHUNK, dtype=np.int64)
    held = np.zeros((3, n, CHUNK))
    for begin in range(0, rows.shape[1], CHUNK):
        size = min(CHUNK, rows.shape[1] - begin)
        for i in range(size):
            index[i] = begin + i
        waiting = size
        for turn in range(rounds):
            left = 0
            for first in range(0, waiting, LANES):
                c = min(LANES, waiting - first)
                load(a, rows, index, first, c)
                if turn == 0:
                    start(a, H_0, few, c)
                    for _ in range(few_rounds):
                        linearise(a, H_0, few, few_across, few_rules, pulls, J_0, rhs_0, c, False)
                        solve(J_0, rhs_0, 1, c)
                        step(a, H_0, rhs_0, c)
                    refine(a, H, nodes, lift, H_0, few, c)
                else:
                    take(H, held[0], index, first, begin, c)
                linearise(a, H, nodes, across, rules, pulls, J, rhs, c, greeks)
                solve(J, rhs, 3 if greeks else 1, c)
                step(a, H, rhs, c)
                keep(held[0], H, index, first, begin, c)
                keep(held[1], rhs[1], index, first, begin, c)
                keep(held[2], rhs[2], index, first, begin, c)
                left = still_moving(a, index, first, left, c, tolerance)
            waiting = left
            if waiting == 0:
                break
        for i in range(size):
            index[i] = begin + i
        for first in range(0, size, LANES):
            c = min(LANES, size - first)
            load(a, rows, index, first, c)
            take(H, held[0], index, first, begin, c)
            take(rhs[1], held[1], index, first, begin, c)
            take(rhs[2], held[2], index, first, begin, c)
            price_block(a, H, rhs[1], rhs[2], price_across, price_rules, block, c, greeks)
            for e in range(c):
                k = begin + first + e
                for o in range(OUTPUTS if greeks else 1):
                    out[o, k] = block[o, e]
                for j in range(n):
                    boundary[k, j] = a[LIMIT + e] - math.sqrt(H[j, e])
