"""A score on the lattice is what a rule's loss is worth without noise; law: it depends on the rule's bands alone, not on paths.

Two ways, one answer. A rule that hedges exactly at some dates and rests between them (a fixed interval, Leland's, one hedge)
leaves nothing to remember but the price at its last hedge: its cost-to-go is a function of one variable, carried from hedge
to hedge. Any other rule of date, price and holding is carried over log prices x holdings, as the optimum is.

Where a rule turns from resting to trading, the cost-to-go has a kink or a jump in the price, at a place between two rows. A
trapezoid sum over rows that ignores where is wrong by h or h^2; here the four rows around are given the weights that make
it right to h^5 (Euler-Maclaurin, the difference of the two sides carried on by a cubic).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from bot.pricing.black import Array
from bot.pricing.exact import (
    READABLE,
    STEP_REACH,
    TERM_REACH,
    Columns,
    Grid,
    March,
    Problem,
    Rule,
    Steps,
    columns_for,
    compiled_steps,
    delta_range,
    make_grid,
    refined,
    step_weights,
)

RuleOf = Callable[[int, Array], Rule]
REACHES: Final = 8
"""How often the holdings a rule can come to are widened by where it trades to from them."""
RULE_COLUMNS: Final = 800
"""Columns at most on which a rule is scored: it has kinks that the optimum has not."""
BETWEEN: Final = 128
"""Holdings for which a payoff between two hedges is carried back."""
MOST_LOTS: Final = 200
"""More lots than this across what a rule can hold are scored as holdings of any size."""
NEAR_LOT: Final = 1e-7
"""A share of a lot by which an edge may miss a whole lot and still be it."""
LEAST_ROWS: Final = 3
"""Rows in a step's deviation at least, for edges that bend near an expiry."""
LOT_ROWS: Final = 6
"""Rows in a step's deviation where holdings are lots: bands and targets then move by steps, which rows must find."""
CASH: Final = 8
"""How many times finer the rows are on which a payoff enters between hedges."""
AROUND: Final = 3
"""Columns beyond a rule's own that its kinks and cubics look at."""
SHARES: Final = (
    (-19 / 720, 0.0, 1 / 6, -1 / 6, 1 / 24),
    (109 / 240, -1.0, 1 / 4, 1 / 3, -1 / 8),
    (7 / 80, 0.0, -1 / 2, -1 / 6, 1 / 8),
    (-11 / 720, 0.0, 1 / 12, 0.0, -1 / 24),
)
"""What the rows j-1, j, j+1, j+2 gain of a function that begins theta of the way from j to j+1, in powers of theta."""


class RuleRows(NamedTuple):
    """A rule on rows of a date, in discounted holdings: keep between lo and hi, from below to up, from above to down."""

    lo: Array
    hi: Array
    up: Array
    down: Array

    def rests(self, reach: tuple[float, float] = (-math.inf, math.inf)) -> bool:
        """True where nothing is ever done by who holds no more and no less than `reach`."""
        return bool((self.lo <= reach[0]).all() and (self.hi >= reach[1]).all())

    @property
    def is_point(self) -> bool:
        """True where one holding is asked for, whatever was held."""
        return bool(np.array_equal(self.lo, self.hi) and np.isfinite(self.lo).all())


def evaluate(
    problem: Problem,
    rule: RuleOf,
    *,
    per_step: int | None = None,
    columns: int | None = None,
    steps: Steps | None = None,
) -> float:
    """The certainty equivalent of a rule's loss, in currency; see `bot.pricing.exact.evaluate`."""
    rows = _coarse_rows(problem, rule)
    reach = _reach_of(problem, rows)
    if problem.lot > 0.0 and (reach[1] - reach[0]) / problem.lot > MOST_LOTS:
        problem = msgspec.structs.replace(problem, lot=0.0)
        rows = _coarse_rows(problem, rule)
    hedged = [date for date, one in enumerate(rows) if not one.rests(reach)]
    if problem.lot == 0.0 and all(rows[date].is_point for date in hedged):
        return _Chain(problem, rule, hedged, per_step=per_step).value()
    if columns is None:
        columns = min(2 * columns_for(problem, reach[1] - reach[0]), RULE_COLUMNS)
    return _over_holdings(problem, rule, reach, per_step=per_step, columns=columns, steps=steps)


def rule_rows(problem: Problem, rule: RuleOf, date: int, x: Array) -> RuleRows:
    """The rule at a date on log prices x, in discounted units and whole lots. Errors: ValueError where lo > hi or NaN."""
    t = date * problem.step
    spots = problem.spot * np.exp(x + (problem.rate - problem.dividend) * t)
    lo, hi, to = rule(date, spots)
    lo, hi = (np.broadcast_to(np.asarray(edge, dtype=np.float64), x.shape) for edge in (lo, hi))
    if np.any(np.isnan(lo) | np.isnan(hi) | (lo > hi)):
        raise ValueError(f"exact: rule: expected lo <= hi at date {date}, found otherwise")
    up, down = (lo, hi) if to is None else to if isinstance(to, tuple) else (to, to)
    up, down = (np.broadcast_to(np.asarray(one, dtype=np.float64), x.shape) for one in (up, down))
    point = lo == hi
    up, down = np.where(point, lo, up), np.where(point, hi, down)
    if problem.lot > 0.0:
        up, down = _in_lots(up, lo, hi, lot=problem.lot, buys=True), _in_lots(down, lo, hi, lot=problem.lot, buys=False)
        lo, hi = lo - NEAR_LOT * problem.lot, hi + NEAR_LOT * problem.lot
    shrink = math.exp(-problem.dividend * t)
    return RuleRows(lo * shrink, hi * shrink, up * shrink, down * shrink)


def _in_lots(to: Array, lo: Array, hi: Array, *, lot: float, buys: bool) -> Array:
    """Targets in whole lots, as the hedger rounds them. Shape: to, lo, hi (rows,).

    The edge it comes from (lo where it buys, hi where it sells) inward, or, without a lot in the band, to the lot nearest
    its middle; any other target to the nearest lot.
    """
    with np.errstate(invalid="ignore"):
        at_edge = (to == (lo if buys else hi)) & (lo != hi)
        inward = np.ceil(to / lot - NEAR_LOT) if buys else np.floor(to / lot + NEAR_LOT)
        lots = np.where(at_edge, inward, np.rint(to / lot)) * lot
        fits = (lots >= lo - NEAR_LOT * lot) & (lots <= hi + NEAR_LOT * lot)
        middle = np.where(np.isfinite(lo + hi), np.rint(0.5 * (lo + hi) / lot) * lot, lots)
    return np.asarray(np.where(fits | ~at_edge, lots, middle))


def _coarse_rows(problem: Problem, rule: RuleOf) -> list[RuleRows]:
    """The rule at every date, on a row for each deviation of a step."""
    s = problem.vol * math.sqrt(problem.step)
    half = math.ceil(TERM_REACH * math.sqrt(problem.dates))
    x: Array = np.asarray(np.arange(-half, half + 1) * s, dtype=np.float64)
    return [rule_rows(problem, rule, date, x) for date in range(problem.dates)]


def _reach_of(problem: Problem, rows: list[RuleRows]) -> tuple[float, float]:
    """The holdings a rule can come to, and the book's own deltas: a trade goes to a target, from 0 at first.

    An edge that lies beyond every holding there can be is never met, and where it lies does not count.
    """
    edges = RuleRows(*(np.concatenate(column) for column in zip(*rows, strict=True)))
    lo, hi = delta_range(problem)
    for _ in range(REACHES):
        up, down = edges.up[edges.lo > lo], edges.down[edges.hi < hi]
        widest = [lo, hi, *(float(at) for to in (up, down) if to.size for at in (to.min(), to.max()))]
        if (min(widest), max(widest)) == (lo, hi):
            break
        lo, hi = min(widest), max(widest)
    if not math.isfinite(hi - lo):
        raise ValueError(f"exact: rule: expected finite targets, found {lo!r} to {hi!r}")
    return lo, hi


# ------------------------------------------------------------------------------------------------ prices x holdings


def _over_holdings(
    problem: Problem,
    rule: RuleOf,
    reach: tuple[float, float],
    *,
    per_step: int | None,
    columns: int,
    steps: Steps | None,
) -> float:
    grid = make_grid(problem, per_step=per_step, columns=columns, reach=reach)
    least = LOT_ROWS if problem.lot > 0.0 else LEAST_ROWS
    if per_step is None and grid.per_step < least:
        grid = make_grid(problem, per_step=least, columns=columns, reach=reach)
    march = March(grid, compiled_steps() if steps is None else steps)
    decide = ruled if steps is READABLE else compiled_ruled()
    corridors = _Corridors(march)
    for date in range(problem.dates - 1, 0, -1):
        rows = rule_rows(problem, rule, date, grid.x)
        G = march.averaged(*corridors.of(rows))
        march.settle(G if rows.rests() else decide(*_asked(G, grid, float(grid.fee[date]), rows)))
    middle = grid.S.size // 2
    first = RuleRows(*(row[:1] for row in rule_rows(problem, rule, 0, grid.x[middle : middle + 1])))
    G = march.averaged()
    held = float(first.up[0]) if first.lo[0] > 0.0 else float(first.down[0]) if first.hi[0] < 0.0 else 0.0
    value = at_holding(G[middle], grid.y, grid.zero, grid.lattice, grid.apart, held)
    if held != 0.0 and grid.open:
        value += grid.cost * abs(held) + float(grid.fee[0])
    due = grid.payoffs.get(0)
    return (value + (0.0 if due is None else float(due.loss(np.ones(1))[0]))) * problem.spot


def compiled_ruled() -> Callable[..., Array]:
    """The compiled `ruled`; the compiler is imported by those who score."""
    from bot.pricing import exact_score_kernels as kernels  # noqa: PLC0415  as said

    return kernels.ruled


def _asked(G: Array, grid: Grid, fee: float, rows: RuleRows) -> tuple[Any, ...]:
    columns = (np.ascontiguousarray(np.where(np.isfinite(c), c, np.copysign(1e300, c))) for c in rows)
    return G, grid.y, grid.S, grid.cost, fee, grid.g, grid.zero, grid.lattice, grid.apart, *columns


class _Corridors:
    """Which columns a rule looks at from each block of rows: those of its bands, its targets and what lies next to them."""

    def __init__(self, march: March) -> None:
        grid = march.grid
        self._y, self._zero = grid.y, grid.zero
        rows, length = grid.S.size, grid.pad + 1
        blocks = math.ceil((rows + 2 * grid.pad) / length)
        starts = np.arange(blocks) * length - grid.pad
        self._blocks = [(b, max(at - 2, 0), min(at + length + 2, rows)) for b, at in enumerate(starts.tolist())]
        self._size = blocks
        self._rows = rows

    def of(self, rows: RuleRows) -> tuple[Columns, Columns]:
        y = self._y
        step = y[1] - y[0]
        lo, hi = (np.clip(edge, y[0], y[-1]) for edge in (rows.lo, rows.hi))
        up, down = (np.clip(to, y[0], y[-1]) for to in (rows.up, rows.down))
        low = np.minimum(np.minimum(lo, hi), np.minimum(up, down))
        high = np.maximum(np.maximum(lo, hi), np.maximum(up, down))
        first, last = np.full(self._size, y.size), np.zeros(self._size, dtype=np.int64)
        for b, start, stop in self._blocks:
            if stop - start > 2:
                a = math.floor((low[start:stop].min() - y[0]) / step) - AROUND
                z = math.ceil((high[start:stop].max() - y[0]) / step) + AROUND + 1
                first[b], last[b] = max(min(a, y.size - 4), 0), min(max(z, 4), y.size)
        return first, last


def at_holding(G: Array, y: Array, zero: int, lattice: bool, apart: bool, held: float) -> float:
    """G of one row at a holding: by the cubic through four columns of one sign, or of lots the nearest. Shape: G, y (k,)."""
    step = y[1] - y[0]
    place = min(max((held - y[0]) / step, 0.0), y.size - 1.0)
    near = round(place)
    if lattice or (apart and abs(place - zero) < 1e-9):
        return float(G[near])
    k = min(int(place), y.size - 2)
    if apart and k in {zero - 1, zero}:
        return float(
            G[zero - 1 if k < zero else zero + 1]
        )  # G jumps at 0: a cubic carried on to it would not be stable
    left, right = (0, zero + (not apart)) if k < zero else (zero + apart, y.size)
    if right - left < 4:
        left, right = max(min(left, y.size - 4), 0), max(right, 4)
    base = min(max(k - 1, left), right - 4)
    u = place - base
    a, b, c, d = G[base : base + 4]
    return float(
        a * ((u - 1.0) * (u - 2.0) * (3.0 - u)) / 6.0
        + b * (u * (u - 2.0) * (u - 3.0)) / 2.0
        + c * (u * (u - 1.0) * (3.0 - u)) / 2.0
        + d * (u * (u - 1.0) * (u - 2.0)) / 6.0
    )


def ruled(
    G: Array,
    y: Array,
    S: Array,
    cost: float,
    fee: float,
    g: float,
    zero: int,
    lattice: bool,
    apart: bool,
    lo: Array,
    hi: Array,
    up: Array,
    down: Array,
) -> Array:
    """J of a date at which a rule decides: the readable twin of `exact_score_kernels.ruled`. Shape: G (n, k), lo.. (n,)."""
    n = S.size
    sides = np.empty((3, n, y.size))  # bought, kept, sold
    for j in range(n):
        to = [min(max(float(t), y[0]), y[-1]) for t in (up[j], down[j])]
        bought, sold = (at_holding(G[j], y, zero, lattice, apart, t) for t in to)
        turn = [
            np.where(to[0] >= lo[j], to[0] - y, abs(to[0] - y)),
            np.where(to[1] <= hi[j], y - to[1], abs(y - to[1])),
        ]
        sides[:, j] = bought + cost * S[j] * turn[0] + fee, G[j], sold + cost * S[j] * turn[1] + fee
    side = np.where(y < lo[:, None], 0, np.where(y <= hi[:, None], 1, 2))
    own = np.take_along_axis(sides, side[None], axis=0)[0]
    gain = np.zeros_like(own)
    for edge, below, above in ((lo, 1, 0), (hi, 2, 1)):
        for j in range(n - 1):
            for k in np.nonzero((y < edge[j]) != (y < edge[j + 1]))[0]:
                if max(abs(edge[j]), abs(edge[j + 1])) > 1e200:
                    continue
                stepped = lattice and (_is_column(edge[j], y) or _is_column(edge[j + 1], y))
                theta = 0.5 if stepped else _crossing(edge, j, float(y[k]))
                old, new = (below, above) if edge[j + 1] > edge[j] else (above, below)
                for m, powers in zip(range(j - 1, j + 3), SHARES, strict=True):
                    if 0 <= m < n:
                        share = sum(c * theta**i for i, c in enumerate(powers))
                        rise, fall = (math.exp(min(g * (sides[w, m, k] - own[m, k]), 50.0)) for w in (new, old))
                        gain[m, k] += share * (rise - fall)
    return np.asarray(own + np.log1p(np.maximum(gain, -0.75)) / g)


def _is_column(held: float, y: Array) -> bool:
    place = (held - y[0]) / (y[1] - y[0])
    return bool(abs(place - round(place)) < 1e-6)


def _crossing(edge: Array, j: int, held: float) -> float:
    """How far from row j to j+1 an edge meets a holding: on a straight line, moved once to the cubic through four rows."""
    rise = edge[j + 1] - edge[j]
    theta = (held - edge[j]) / rise
    if not 1 <= j < edge.size - 2 or max(abs(edge[j - 1]), abs(edge[j + 2])) > 1e200:
        return float(theta)
    u = theta + 1.0
    a, b, c, d = edge[j - 1 : j + 3]
    cubic = (
        a * ((u - 1.0) * (u - 2.0) * (3.0 - u)) / 6.0
        + b * (u * (u - 2.0) * (u - 3.0)) / 2.0
        + c * (u * (u - 1.0) * (3.0 - u)) / 2.0
        + d * (u * (u - 1.0) * (u - 2.0)) / 6.0
    )
    return float(min(max(theta - (cubic - held) / rise, 0.0), 1.0))


# ------------------------------------------------------------------------------------------------ from hedge to hedge


def _columns_between(y: Array) -> Array:
    """Holdings evenly from the least to the greatest of y: no more than there are, or than BETWEEN. Shape: (columns,)."""
    least, most = float(y.min()), float(y.max())
    if most - least <= 1e-9:
        return np.array([least, least + 1e-6, least + 2e-6, least + 3e-6])
    return np.linspace(least, most, BETWEEN)


def _at_columns(table: Array, columns: Array, y: Array) -> Array:
    """Each row at its own holding, by the cubic through four columns. Shape: table (rows, columns), y (rows,)."""
    place = (y - columns[0]) / (columns[1] - columns[0])
    base = np.clip(place.astype(np.int64) - 1, 0, columns.size - 4)
    u = place - base
    row = np.arange(y.size)
    a, b, c, d = (table[row, base + i] for i in range(4))
    return np.asarray(
        a * ((u - 1.0) * (u - 2.0) * (3.0 - u)) / 6.0
        + b * (u * (u - 2.0) * (u - 3.0)) / 2.0
        + c * (u * (u - 1.0) * (3.0 - u)) / 2.0
        + d * (u * (u - 1.0) * (u - 2.0)) / 6.0
    )


def _wide_rows(grid: Grid, hedged: list[int], *, finer: bool) -> Grid:
    """The grid with as many rows in the shortest step there is, from hedge to hedge or payoff, as in a date's; or one more."""
    ends = np.unique([0, *hedged, *grid.payoffs, grid.dates])
    gap = grid.step / (grid.per_step + finer) * math.sqrt(float(np.diff(ends).min()))
    half = math.ceil(float(grid.x[-1]) / gap)
    x: Array = np.asarray(np.arange(-half, half + 1) * gap, dtype=np.float64)
    return grid._replace(x=x, S=np.exp(x))


class _Chain:
    """The cost-to-go of a rule that hedges exactly at some dates, over log prices alone; law: y is the last hedge's."""

    def __init__(self, problem: Problem, rule: RuleOf, hedged: list[int], *, per_step: int | None) -> None:
        self.problem, self.rule, self.hedged = problem, rule, hedged
        self.grid = _wide_rows(make_grid(problem, per_step=per_step, columns=8), hedged, finer=per_step is None)
        self.gap = float(self.grid.x[1] - self.grid.x[0])
        self.move = compiled_steps()

    def value(self) -> float:
        """J_0 at the spot and no holding, in currency, of hedges at these dates."""
        grid, hedged = self.grid, self.hedged
        later, V = grid.dates, np.zeros(grid.x.size)
        for date in reversed(hedged):
            x = grid.x if date else np.zeros(1)
            held = self._hedges(date, x)
            before = self._back(V, date, later, x, held)
            if date:
                self._stop_at_ends(before, V, date, later, held)
            V, later = before, date
        if later > 0:
            value = float(self._back(V, 0, later, np.zeros(1), np.zeros(1))[0])
        else:
            (held,) = self._hedges(0, np.zeros(1))
            value = float(V[0])
            if held != 0.0 and grid.open:
                value += grid.cost * abs(held) + float(grid.fee[0])
        due = grid.payoffs.get(0)
        return (value + (0.0 if due is None else float(due.loss(np.ones(1))[0]))) * self.problem.spot

    def _stop_at_ends(self, before: Array, V: Array, date: int, later: int, held: Array) -> None:
        """Writes what is still to come at the farthest rows, where a price stays for good. Shape: before, V, held (rows,)."""
        grid = self.grid
        ends = np.array([0, grid.S.size - 1])
        S, y = grid.S[ends], held[ends]
        owed = np.zeros(2) + sum(due.loss(S) for at, due in grid.payoffs.items() if date < at <= later)
        if later == grid.dates:
            before[ends] = owed + self._closing(S, y)
            return
        turn = self._hedges(later, grid.x[ends]) - y
        before[ends] = owed + V[ends] + grid.cost * S * np.abs(turn) + float(grid.fee[later]) * (turn != 0.0)

    def _hedges(self, date: int, x: Array) -> Array:
        return rule_rows(self.problem, self.rule, date, x).lo

    def _back(self, V: Array, date: int, later: int, x: Array, y: Array) -> Array:
        """The cost-to-go after the trade to y at `date` from that after the trade at `later`. Shape: x, y (rows,)."""
        stops = [d for d in self.grid.payoffs if date < d < later]
        if not stops:
            return self._in_one(V, date, later, x, y)
        held = _columns_between(y)
        J = None
        for stop in sorted(stops, reverse=True):
            J = self._table(V if J is None else J, stop, later, held, ends=J is None)
            later = stop
        assert J is not None
        table = self._table(J, date, later, held, ends=False)
        rows = np.rint((x - self.grid.x[0]) / self.gap).astype(np.int64)
        return _at_columns(table[rows], held, y)

    def _in_one(self, V: Array, date: int, later: int, x: Array, y: Array) -> Array:
        """The same where nothing falls due between."""
        finer = CASH if later in self.grid.payoffs else 1
        s, per, pad = self._reach(later - date)
        wide, S = self._wider(pad, finer)
        cash, turn = self._at_end(V, later, wide, S, pad, finer)
        width = 2 * pad * finer + 1
        first = np.rint((x - self.grid.x[0]) / self.gap).astype(np.int64) * finer
        weights = step_weights(s, per * finer, pad * finer)
        used = np.nonzero(weights > 0.0)[0]
        log_weights = np.log(weights[used])
        out = np.empty(x.size)
        chunk = max(1, 2_000_000 // width)
        for at in range(0, x.size, chunk):
            rows = slice(at, at + chunk)
            window = first[rows, None] + np.arange(width)
            held = y[rows, None]
            loss = cash[window] - held * (S[window] - np.exp(x[rows, None]))
            if turn is None:
                loss = loss + self._closing(S[window], held)
            else:
                loss = loss + self._turned(turn[window], S[window], held, later)
            exponent = self.grid.g * loss[:, used] + log_weights
            peak = exponent.max(axis=1)
            out[rows] = (peak + np.log(np.exp(exponent - peak[:, None]).sum(axis=1))) / self.grid.g
        return out

    def _table(self, J: Array, date: int, later: int, y: Array, *, ends: bool) -> Array:
        """J at `date` on all rows for each of the holdings y, from V at the next hedge (`ends`) or from such a table."""
        grid = self.grid
        finer = CASH if later in grid.payoffs else 1
        s, per, pad = self._reach(later - date)
        x, S = self._wider(pad, finer)
        if ends:
            cash, turn = self._at_end(J, later, x, S, pad, finer)
            more = self._closing(S[:, None], y) if turn is None else self._turned(turn, S, y[:, None], later).T
            table = cash[:, None] + more
        else:
            due = grid.payoffs[later]
            table = self._extended(J, pad, finer) + (due.loss(S) + due.kinks(x, grid.g))[:, None]
        out = np.empty((grid.x.size, y.size))
        blocks = math.ceil(S.size / (pad * finer + 1))
        move = self.move.expect
        weights = step_weights(s, per * finer, pad * finer)
        everything = np.zeros(blocks, dtype=np.int64), np.full(blocks, y.size)
        move(np.ascontiguousarray(table), y, S, grid.g, weights, finer, pad * finer, *everything, out)
        return out

    def _reach(self, dates: int) -> tuple[float, float, int]:
        """(deviation, rows in it, rows beyond either end) of so many dates."""
        s = self.grid.step * math.sqrt(dates)
        per = s / self.gap
        return s, per, math.ceil((STEP_REACH + 0.5 * s) * per)

    def _wider(self, pad: int, finer: int) -> tuple[Array, Array]:
        """Log prices and prices with `pad` rows more at either end."""
        count = (self.grid.x.size - 1 + 2 * pad) * finer + 1
        x = self.grid.x[0] + (np.arange(count) - pad * finer) * (self.gap / finer)
        return x, np.exp(x)

    def _extended(self, V: Array, pad: int, finer: int) -> Array:
        """V, of one column or many, as straight lines in S beyond the grid and by cubics on finer rows."""
        S = self.grid.S
        ratio = S[1] / S[0]
        out = np.arange(1, pad + 1)
        shape = (-1, *(1,) * (V.ndim - 1))
        low, high = (V[1] - V[0]) / (S[1] - S[0]), (V[-1] - V[-2]) / (S[-1] - S[-2])
        before = V[0] + (S[0] * ratio ** -out[::-1] - S[0]).reshape(shape) * low
        after = V[-1] + (S[-1] * ratio**out - S[-1]).reshape(shape) * high
        whole = np.concatenate([before, V, after])
        if finer == 1:
            return np.asarray(whole)
        return refined(whole, finer) if V.ndim == 2 else refined(whole[:, None], finer)[:, 0]

    def _at_end(self, V: Array, later: int, x: Array, S: Array, pad: int, finer: int) -> tuple[Array, Array | None]:
        """(what is owed whatever is held, the hedges then) at the next hedge, None at the end. Shape: x, S (rows,)."""
        grid = self.grid
        due = grid.payoffs.get(later)
        owed = 0.0 if due is None else due.loss(S) + due.kinks(x, grid.g)
        if later == grid.dates:
            return np.asarray(owed + np.zeros_like(S)), None
        return np.asarray(owed + self._extended(V, pad, finer)), self._hedges(later, x)

    def _closing(self, S: Array, y: Array) -> Array:
        grid = self.grid
        cost, fee = grid.cost * grid.close, float(grid.fee[-1]) * grid.close
        return np.asarray(cost * S * np.abs(y) + fee * (y != 0.0))

    def _turned(self, hedge: Array, S: Array, y: Array, date: int) -> Array:
        """What the trade from y to the hedge costs, its kink where none is needed seen right. Shape: hedge (.., rows)."""
        grid = self.grid
        gap = hedge - y
        paid = grid.cost * S * np.abs(gap) + float(grid.fee[date]) * (gap != 0.0)
        crossed = (gap[..., :-1] < 0.0) != (gap[..., 1:] < 0.0)
        at = np.nonzero(crossed)
        left, right = gap[..., :-1][at], gap[..., 1:][at]
        theta = left / (left - right)
        spot = np.broadcast_to(S, gap.shape)[..., :-1][at]
        both = grid.g * grid.cost * spot * np.abs(right - left) * (theta * theta - theta + 1.0 / 6.0)
        gain = np.zeros(gap.shape)
        gain[..., :-1][at] += (1.0 - theta) * both
        gain[..., 1:][at] += theta * both
        return np.asarray(paid + np.log1p(np.maximum(gain, -0.5)) / grid.g)
