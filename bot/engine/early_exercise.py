"""An early-exercise room values the American contracts of a slice exactly, and per tick from cells of a canonical grid.

Law: what a cell answers is a function of the vols, the instant they were marked, spot and time alone; which ticks came
before, in what batches, or who else asked, changes no bit of it.

Exact values are `american.price`'s; with cash dividends, `american_discrete.price`'s. A tick is answered from a cell:
between two nodes of spot the delta is the cubic with the exact deltas and gammas at both (Hermite), between two instants
it is linear in the time left. Nodes lie at whole multiples of a step, `STEP` of the smallest deviation vol sqrt(tau) of the
expiry's legs at the marked instant times the power of two above spot, halved with each factor 4 of time; instants lie a
re-mark apart, or tau / 128 where that is less. A leg whose exercise boundary crosses the cell is valued exactly instead, and
so are all while a dividend falls inside it. The delta of a cell is within 2e-5 of the exact one per unit. Steps are found
with products, quotients, square roots and powers of two only, which have the same bits on every machine.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bot.domain.units import NS_PER_YEAR, Nanos, Rate
from bot.pricing import american, american_discrete, black, implied
from bot.pricing.american_discrete import DividendModel
from bot.pricing.status import Status

Floats: TypeAlias = NDArray[np.float64]

STEP: Final = 0.06
"""Distance of two nodes, in deviations vol sqrt(tau) of the power of two above spot: 0.06 to 0.12 deviations of spot."""
SHARE: Final = 128
"""Two instants of the grid are at most this part of the time left apart."""
TINY: Final = 1e-8
"""A finer step than this part of spot is not worth a grid: the value is exact then."""
GRID_STEPS: Final = 200
"""Time steps of the finite-difference grid that values contracts with cash dividends."""
MOST_NODES: Final = 2048
SAME: Final = 1e-12
"""A value this near (relative to spot) to that of exercise is exercise."""


class CashDividend(NamedTuple):
    """An amount of cash per share, and the instant from which the share trades without it."""

    ex: Nanos
    amount: float


class Unit(NamedTuple):
    """Values per unit. Shape: each the inputs' broadcast shape."""

    price: Floats
    delta: Floats
    gamma: Floats
    vega: Floats
    theta: Floats
    rho: Floats


class Second(NamedTuple):
    """Second-order values per unit. Shape: as `Unit`."""

    vanna: Floats
    volga: Floats
    charm: Floats


class Market(NamedTuple):
    """What all contracts on one underlying share. `dividends` as (instant on the model clock, amount), in order."""

    rate: Rate
    dividend: Rate
    on_future: bool
    dividends: tuple[tuple[int, float], ...] = ()
    model: DividendModel = "spot"


def values(
    market: Market,
    spot: Floats,
    strike: Floats,
    remaining: NDArray[np.int64],
    vol: Floats,
    *,
    cp: Floats,
    expiry: NDArray[np.int64],
    style: NDArray[np.bool_],
) -> Unit:
    """Exact values: American where `style` is True (European ones only with cash dividends, on the same grid).

    `remaining` and `expiry` are counts of the model clock. Shape: all broadcast together, contracts last.
    """
    tau = remaining / NS_PER_YEAR
    if market.dividends:
        return _with_dividends(market, spot, strike, remaining, vol, cp=cp, expiry=expiry, style=style)
    q = market.rate if market.on_future else market.dividend
    g = american.price(spot, strike, tau, vol, rate=market.rate, dividend=q, cp=cp)
    rho = g.rho
    if market.on_future:  # the yield moves with the rate: Black-76
        h = 1e-4
        up, down = (
            american.value(spot, strike, tau, vol, rate=market.rate + b, dividend=market.rate + b, cp=cp).price
            for b in (h, -h)
        )
        rho = (up - down) / (2.0 * h)
    return Unit(g.price, g.delta, g.gamma, g.vega, g.theta, rho)


def second_order(
    market: Market, spot: Floats, strike: Floats, remaining: NDArray[np.int64], vol: Floats, *, cp: Floats
) -> Second:
    """vanna, volga, charm by central differences of exact deltas and vegas.

    With cash dividends they are the European ones on the spot less the dividends' present value: an approximation.
    Shape: all broadcast together.
    """
    tau = remaining / NS_PER_YEAR
    q = market.rate if market.on_future else market.dividend
    if market.dividends:
        g = black.bsm(spot, strike, tau, vol, rate=market.rate, dividend=q, cp=cp)
        return Second(g.vanna, g.volga, g.charm)
    with np.errstate(all="ignore"):
        dv = 1e-3 * vol
        dt = 1e-3 * tau
        up, down = (american.price(spot, strike, tau, vol + b, rate=market.rate, dividend=q, cp=cp) for b in (dv, -dv))
        late, early = (
            american.price(spot, strike, tau + b, vol, rate=market.rate, dividend=q, cp=cp) for b in (-dt, dt)
        )
        live = tau > 0.0
        found = (
            (up.delta - down.delta) / (2.0 * dv),
            (up.vega - down.vega) / (2.0 * dv),
            (late.delta - early.delta) / (2.0 * dt),
        )
        return Second._make(np.where(live, column, np.where(np.isnan(tau), np.nan, 0.0)) for column in found)


def implied_vols(
    market: Market,
    price: Floats,
    spot: float,
    strike: Floats,
    remaining: NDArray[np.int64],
    *,
    cp: Floats,
    expiry: NDArray[np.int64],
    style: NDArray[np.bool_],
) -> tuple[Floats, NDArray[np.bool_]]:
    """The vols at which `values` gives these prices, and which rows have one. Shape: all (n,)."""
    tau = remaining / NS_PER_YEAR
    if market.dividends:
        return _search(market, price, spot, strike, remaining, cp=cp, expiry=expiry, style=style)
    q = market.rate if market.on_future else market.dividend
    found = american.implied_vol(price, spot, strike, tau, rate=market.rate, dividend=q, cp=cp)
    return found.vol, np.asarray(found.status == Status.OK)


def _with_dividends(
    market: Market,
    spot: Floats,
    strike: Floats,
    remaining: NDArray[np.int64],
    vol: Floats,
    *,
    cp: Floats,
    expiry: NDArray[np.int64],
    style: NDArray[np.bool_],
) -> Unit:
    """Values on a finite-difference grid, a call for each instant and style, since dividends are so many years ahead."""
    S, K, left, v, c, end, early = np.broadcast_arrays(spot, strike, remaining, vol, cp, expiry, style)
    out = np.full((6, S.size), np.nan)
    flat = [np.asarray(x).ravel() for x in (S, K, left, v, c, end, early)]
    now = flat[5] - flat[2]
    for at in np.unique(now):
        ahead = [((ex - int(at)) / NS_PER_YEAR, amount) for ex, amount in market.dividends if ex > at]
        for kind in (True, False):
            rows = np.flatnonzero((now == at) & (flat[6] == kind))
            if rows.size:
                s, k, rest, vols, sign = (x[rows] for x in flat[:5])
                g = american_discrete.price(
                    s,
                    k,
                    rest / NS_PER_YEAR,
                    vols,
                    dividends=ahead,
                    model=market.model,
                    rate=market.rate,
                    dividend=market.dividend,
                    cp=sign,
                    exercise="american" if kind else "european",
                    steps=GRID_STEPS,
                )
                out[:, rows] = np.stack(g[:6])
                flat_limit = g.status == Status.LIMIT  # no time, vol or spot left: what exercise gives
                if flat_limit.any():
                    out[:, rows[flat_limit]] = _payoff(s[flat_limit], k[flat_limit], sign[flat_limit])
    return Unit._make(column.reshape(S.shape) for column in out)


def _payoff(S: Floats, K: Floats, cp: Floats) -> Floats:
    gain = cp * (S - K)
    zero = np.zeros_like(S)
    weight = np.where(gain > 0.0, 1.0, np.where(gain == 0.0, 0.5, 0.0))
    return np.stack([np.maximum(gain, 0.0), weight * cp, zero, zero, zero, zero])


def _search(
    market: Market,
    price: Floats,
    spot: float,
    strike: Floats,
    remaining: NDArray[np.int64],
    *,
    cp: Floats,
    expiry: NDArray[np.int64],
    style: NDArray[np.bool_],
) -> tuple[Floats, NDArray[np.bool_]]:
    """Newton with the grid's own vega in a bracket, from the European vol on the spot less the dividends to come."""
    tau = remaining / NS_PER_YEAR
    start = _escrowed_vols(market, price, spot, strike, remaining, cp=cp, expiry=expiry)
    lo, hi = np.full(price.shape, 1e-4), np.full(price.shape, 10.0)
    vol = np.clip(np.where(np.isnan(start), 0.3, start), 1e-3, 5.0)
    todo = np.isfinite(price) & (tau > 0.0) & (price > np.maximum(cp * (spot - strike), 0.0))
    good = np.zeros(price.shape, dtype=bool)
    for _ in range(40):
        rows = np.flatnonzero(todo & ~good)
        if not rows.size:
            break
        at = values(
            market,
            np.asarray(spot),
            strike[rows],
            remaining[rows],
            vol[rows],
            cp=cp[rows],
            expiry=expiry[rows],
            style=style[rows],
        )
        miss = at.price - price[rows]
        over = miss > 0.0
        hi[rows] = np.where(over, np.minimum(hi[rows], vol[rows]), hi[rows])
        lo[rows] = np.where(over, lo[rows], np.maximum(lo[rows], vol[rows]))
        with np.errstate(all="ignore"):
            after = vol[rows] - miss / at.vega
        inside = (after > lo[rows]) & (after < hi[rows])
        after = np.where(inside, after, 0.5 * (lo[rows] + hi[rows]))
        settled = (np.abs(miss) <= 1e-9 * spot) | (np.abs(after - vol[rows]) <= 1e-9)
        lost = ~np.isfinite(at.price) | (hi[rows] - lo[rows] < 1e-10) & ~(np.abs(miss) <= 1e-6 * spot)
        good[rows] = settled & ~lost
        todo[rows[lost]] = False
        vol[rows] = np.where(settled, vol[rows], after)
    return np.where(good, vol, np.nan), good


def _escrowed_vols(
    market: Market,
    price: Floats,
    spot: float,
    strike: Floats,
    remaining: NDArray[np.int64],
    *,
    cp: Floats,
    expiry: NDArray[np.int64],
) -> Floats:
    tau = remaining / NS_PER_YEAR
    now = int((expiry - remaining)[0]) if len(expiry) else 0
    away = np.zeros(len(strike))
    for ex, amount in market.dividends:
        years = (ex - now) / NS_PER_YEAR
        away += np.where((years > 0.0) & (years < tau), amount * np.exp(-market.rate * years), 0.0)
    discount = np.exp(-market.rate * tau)
    forward = (spot - away) * np.exp((market.rate - market.dividend) * tau)
    return implied.vol(price, forward, strike, tau, discount=discount, cp=cp).vol


# --------------------------------------------------------------------------- per tick


Exact: TypeAlias = Callable[[Floats, NDArray[np.int64], NDArray[np.int64]], Unit]
"""(spots (m, 1), remaining counts (m, 1), rows (k,)) -> values, shape (m, k)."""


class Node(NamedTuple):
    """Values of each leg at one spot and instant. Shape: each (legs,)."""

    delta: Floats
    gamma: Floats
    vega: Floats
    exercised: NDArray[np.bool_]


Key: TypeAlias = tuple[int, int, int, int]
"""Power of two above spot, level of the step, number of the instant, number of the node."""


class Group:
    """The legs of one expiry: net delta (with the smile's part) and gamma at any spot and time left, from cells.

    `slope` is d vol / d spot of each leg; `anchor` the count left when the vols were marked; `cap` the longest distance of two
    instants; `jumps` counts left at which something falls due (a dividend).
    """

    def __init__(
        self,
        exact: Exact,
        *,
        weight: Floats,
        vol: Floats,
        slope: Floats,
        cp: Floats,
        strike: Floats,
        expiry: int,
        anchor: int,
        cap: int,
        jumps: Sequence[int] = (),
    ) -> None:
        self.expiry = expiry
        self._exact = exact
        self._weight = weight
        self.gross = float(np.abs(weight).sum())
        self._slope = slope
        self._tilted = bool(np.any(slope != 0.0))  # NaN is unequal to zero: unknown stays unknown
        self._cp = cp
        self._strike = strike
        self._anchor = anchor
        self._rows = np.arange(len(weight))
        self._jumps = tuple(jumps)
        self._known = bool(np.isfinite(vol).all() and np.isfinite(slope).all())
        self._deviation = float(vol.min()) * math.sqrt(max(anchor, 0) / NS_PER_YEAR) if self._known else 0.0
        self._cap = max(cap, 1)
        self._even = max(0, -(-(anchor - SHARE * self._cap) // self._cap))
        self._lefts = [anchor - self._even * self._cap]
        self._nodes: dict[Key, Node] = {}
        self._low = self._high = math.nan
        self._soon = self._late = -1
        self._cubics: tuple[Cubic, Cubic] = (FLAT, FLAT)
        self._tilts: tuple[Cubic, Cubic] = (FLAT, FLAT)
        self._apart = np.empty(0, dtype=np.int64)
        self._sides: tuple[Sequence[Node], Sequence[Node]] = ((), ())

    def net(self, spot: float, remaining: int) -> tuple[float, float]:
        """Sum of weight x delta and of weight x gamma; NaN while unknown."""
        if remaining < 0:
            return 0.0, 0.0
        if not self._known or not 0.0 < spot < math.inf:
            return math.nan, math.nan
        if not (self._low <= spot < self._high and self._late < remaining <= self._soon) and not self._enter(
            spot, remaining
        ):
            return self.net_exact(spot, remaining)
        width = self._high - self._low
        u = (spot - self._low) / width
        w = (self._soon - remaining) / (self._soon - self._late)
        (a, b, c, d), (e, f, g, h) = self._cubics
        now = ((d * u + c) * u + b) * u + a
        then = ((h * u + g) * u + f) * u + e
        delta = now + w * (then - now)
        now = (3.0 * d * u + 2.0 * c) * u + b
        then = (3.0 * h * u + 2.0 * g) * u + f
        gamma = (now + w * (then - now)) / width
        if self._tilted:
            (a, b, c, d), (e, f, g, h) = self._tilts
            now = ((d * u + c) * u + b) * u + a
            then = ((h * u + g) * u + f) * u + e
            delta += now + w * (then - now)
        if self._apart.size:
            more, curve = self._sum(self._apart, spot, remaining)
            return delta + more, gamma + curve
        return delta, gamma

    def net_exact(self, spot: float, remaining: int) -> tuple[float, float]:
        """The same without cells."""
        return self._sum(self._rows, spot, remaining)

    def _sum(self, rows: NDArray[np.int64], spot: float, remaining: int) -> tuple[float, float]:
        at = self._exact(np.array([[spot]]), np.array([[remaining]]), rows)
        w, slope = self._weight[rows], self._slope[rows]
        delta = at.delta[0] + np.where(slope != 0.0, at.vega[0] * slope, 0.0)
        return float(np.sum(w * delta)), float(np.sum(w * at.gamma[0]))

    def _enter(self, spot: float, remaining: int) -> bool:
        """Make the cell around a point the present one; False where there is none."""
        if not 0 < remaining <= self._anchor:
            return False
        place, soon, late = self._between(remaining)
        if late <= 0 or any(late <= jump <= soon for jump in self._jumps):
            return False
        level = 0
        while self._anchor > late << 2 * (level + 1):
            level += 1
        power = math.frexp(spot)[1]
        step = math.ldexp(STEP * self._deviation, power - level)
        if step < TINY * spot:
            return False
        j = math.floor(spot / step)
        low, high = j * step, (j + 1) * step
        if not low <= spot < high or j < 2:
            return False
        self._load([(power, level, place + k, j + i) for k in (0, 1) for i in (-1, 0, 1, 2)], step, (soon, late))
        first, second = ([self._nodes[power, level, place + k, j + i] for i in (-1, 0, 1, 2)] for k in (0, 1))
        seen = [*first, *second] if self._tilted else [*first[1:3], *second[1:3]]
        apart = np.any([node.exercised != seen[0].exercised for node in seen], axis=0)
        kept = np.where(apart, 0.0, self._weight)
        self._apart = np.flatnonzero(apart)
        self._cubics = (_hermite(first, kept, step), _hermite(second, kept, step))
        if self._tilted:
            self._tilts = (_lagrange(first, kept * self._slope), _lagrange(second, kept * self._slope))
        self._low, self._high, self._soon, self._late = low, high, soon, late
        self._sides = first, second
        return True

    def curves(self) -> Curves | None:
        """The present cell and its neighbours by price whose deltas are known curves too; None where the present one's is not.

        A cell that a leg's exercise boundary crosses has no curve, a smile that moves is left out, and a neighbour beyond a
        power of two has another step.
        """
        first, second = self._sides
        if self._apart.size or self._tilted or not first:
            return None
        step = self._high - self._low
        cells: list[tuple[Cubic, Cubic]] = []
        low = high = self._low
        for i in (0, 1, 2):
            left = self._low + (i - 1) * step
            nodes = [first[i], first[i + 1], second[i], second[i + 1]]
            same = all(np.array_equal(node.exercised, nodes[0].exercised) for node in nodes)
            inside = left >= 2.0 * step and math.frexp(left)[1] == math.frexp(self._low)[1]
            if same and inside:
                low = low if cells else left
                cells.append((self._curve(nodes[:2], step), self._curve(nodes[2:], step)))
                high = left + step
            elif i == 2:
                break
        return Curves(tuple(cells), low, high, step, self._soon, self._late)

    def _curve(self, ends: Sequence[Node], step: float) -> Cubic:
        return _hermite([ends[0], *ends, ends[1]], self._weight, step)

    def _between(self, remaining: int) -> tuple[int, int, int]:
        """The number of the last instant not after a count left, that instant's count and the next one's."""
        lefts = self._lefts
        if remaining > lefts[0]:
            k = (self._anchor - remaining) // self._cap
            return k, self._anchor - k * self._cap, self._anchor - (k + 1) * self._cap
        while lefts[-1] >= remaining:
            lefts.append(lefts[-1] - lefts[-1] // SHARE - 1)
        k = len(lefts) - bisect_left(lefts[::-1], remaining) - 1
        return self._even + k, lefts[k], lefts[k + 1]

    def _load(self, keys: Sequence[Key], step: float, counts: tuple[int, int]) -> None:
        """Value the nodes of a cell that are not known yet."""
        if len(self._nodes) > MOST_NODES:
            self._nodes.clear()
        missing = [key for key in keys if key not in self._nodes]
        if not missing:
            return
        first = keys[0][2]
        spots = np.array([[key[3] * step] for key in missing])
        left = np.array([[counts[key[2] - first]] for key in missing], dtype=np.int64)
        at = self._exact(spots, left, self._rows)
        gain = self._cp * (spots - self._strike)
        exercised = (gain > 0.0) & (at.price <= gain + SAME * spots)
        for i, key in enumerate(missing):
            self._nodes[key] = Node(at.delta[i], at.gamma[i], at.vega[i], exercised[i])


class Curves(NamedTuple):
    """Neighbouring cells of one interval of instants as pairs of cubics in u, and the prices and counts left they cover.

    The delta at a price low + (i + u) step and a count left r is one + w (other - one), w = (soon - r) / (soon - late).
    """

    cells: tuple[tuple[Cubic, Cubic], ...]
    low: float
    high: float
    step: float
    soon: int
    late: int

    def slopes(self, low: float, high: float) -> tuple[float, float, float, float]:
        """The least and greatest d delta / d spot and d delta / d count left between two prices of the cells."""
        gammas: list[float] = []
        rates: list[float] = []
        for i, (one, other) in enumerate(self.cells):
            start = (low - self.low) / self.step - i
            end = (high - self.low) / self.step - i
            if end < 0.0 or start > 1.0:
                continue
            ends = max(start, 0.0), min(end, 1.0)
            gammas += [v / self.step for cubic in (one, other) for v in _range_of_slope(cubic, *ends)]
            apart = tuple(b - a for a, b in zip(one, other, strict=True))
            rates += [v / (self.late - self.soon) for v in _range_of_cubic(apart, *ends)]
        return min(gammas), max(gammas), min(rates), max(rates)


def _range_of_slope(cubic: Sequence[float], low: float, high: float) -> list[float]:
    """Values of a cubic's derivative among which are its least and greatest on [low, high]."""
    _, b, c, d = cubic
    at = [low, high]
    if d != 0.0 and low < -c / (3.0 * d) < high:
        at.append(-c / (3.0 * d))
    return [(3.0 * d * u + 2.0 * c) * u + b for u in at]


def _range_of_cubic(cubic: Sequence[float], low: float, high: float) -> list[float]:
    """Values of a cubic among which are its least and greatest on [low, high]."""
    a, b, c, d = cubic
    at = [low, high]
    if d == 0.0:
        at += [-b / (2.0 * c)] if c != 0.0 else []
    elif c * c >= 3.0 * b * d:  # the numerically stable roots of 3 d u^2 + 2 c u + b
        q = -(c + math.copysign(math.sqrt(c * c - 3.0 * b * d), c))
        at += [q / (3.0 * d)] + ([b / q] if q != 0.0 else [])
    return [((d * u + c) * u + b) * u + a for u in at if low <= u <= high]


Cubic: TypeAlias = tuple[float, float, float, float]
FLAT: Final[Cubic] = (0.0, 0.0, 0.0, 0.0)


def _weigh(values: Floats, weight: Floats) -> float:
    return float(np.sum(np.where(weight != 0.0, values * weight, 0.0)))


def _hermite(nodes: Sequence[Node], weight: Floats, step: float) -> Cubic:
    """Coefficients of the cubic in u over a cell: net delta and its slope at both ends. Shape: nodes at u = -1, 0, 1, 2."""
    y0, y1 = _weigh(nodes[1].delta, weight), _weigh(nodes[2].delta, weight)
    m0, m1 = step * _weigh(nodes[1].gamma, weight), step * _weigh(nodes[2].gamma, weight)
    return y0, m0, 3.0 * (y1 - y0) - 2.0 * m0 - m1, 2.0 * (y0 - y1) + m0 + m1


def _lagrange(nodes: Sequence[Node], weight: Floats) -> Cubic:
    """Coefficients of the cubic in u through the net vega at u = -1, 0, 1, 2."""
    a, b, c, d = (_weigh(node.vega, weight) for node in nodes)
    return b, -a / 3.0 - b / 2.0 + c - d / 6.0, a / 2.0 - b + c / 2.0, (d - a) / 6.0 + (b - c) / 2.0
