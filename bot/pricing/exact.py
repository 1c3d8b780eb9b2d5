"""The exact optimum is the cheapest way to hedge a book when trading costs: a band of holdings for each date and price.

Law: a writer with exponential utility and absolute risk aversion g (per unit of currency) decides at dates i = 0..N-1,
t = i T / N, and not at T. Between dates the price is an exact lognormal martingale. J_i(S, y) is the certainty equivalent
of the loss still to come before the decision at date i, holding y:

    J_N(S, y) = payoff + lam S |y| (+ F if y is not 0),
    G_i(S, y) = ln E[exp(g (J_{i+1}(S', y) - y (S' - S)))] / g,
    J_i(S, y) = min over y' of G_i(S, y') + lam S |y' - y| (+ F if y' is not y).

With proportional costs alone G is convex in y, and the optimum buys up to b where G' = -lam S, sells down to s where
G' = +lam S and does nothing between (Hodges and Neuberger 1989; Davis, Panas and Zariphopoulou 1993). A ticket fee F makes
it an impulse control: trading starts outside the outer edges and stops at the inner ones. The price is J_0(S_0, 0).

Only g S, lam, vol sqrt(tau) and S / K matter. Rates enter by discounted units: the strike becomes K exp(-(r - q) tau), the
quantity is scaled by exp(-q tau), and g by exp(r T); a holding earns the yield, which is reinvested without cost.

How: the loss exp(g (J - y S)) of each holding is averaged over a uniform grid of log prices, on which a Gaussian's sum is
as good as its integral (the trapezoid rule on a smooth decaying function converges faster than any power); payoffs
enter on a finer grid with their kinks corrected (Euler-Maclaurin). Holdings lie on a uniform grid through 0, the edges
between them by cubics. The compiled steps work in a corridor around the band, outside of which J is a straight line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import decimal_of
from bot.pricing import black
from bot.pricing.black import Array

Leg: TypeAlias = tuple[float, float, float] | tuple[float, float, float, float]
"""(cp, strike, signed quantity) or with the years to expiry as a fourth; cp 1 a call, -1 a put, 0 a forward S - K."""

Rule: TypeAlias = tuple[Any, Any, Any]
"""(lo, hi, to): keep what is held inside; from outside trade to `to`, to the nearest edge (None), or to its side of a pair."""

Columns: TypeAlias = NDArray[np.int64]

STEP_REACH: Final = 7.5
"""The quadrature between dates goes to so many deviations of a step."""
TERM_REACH: Final = 6.5
"""Log prices go to so many deviations of the whole term."""
PER_STEP: Final = 2
"""Rows of the grid in a step's deviation."""
FINER: Final = 4
"""How many times finer the rows are on which a payoff enters."""
MARGIN: Final = 6
"""Columns beyond the last edges in which the next ones are looked for first."""
LOT_COLUMNS: Final = 512
"""More lots than this across the book's deltas are no lots: holdings are then continuous."""
FEW_LOTS: Final = 100
"""Up to so many lots across the book's deltas rows are twice as many, up to FEWER_LOTS, without a ticket fee, four times."""
FEWER_LOTS: Final = 50
UNIT_COLUMNS: Final = 200
"""Columns across the largest single jump of the payoff's slope; a book of many has up to MOST_COLUMNS."""
MOST_COLUMNS: Final = 512
MOST_CLOSING: Final = 1.25
"""Holdings go no farther beyond the book's deltas than this, however dear closing is."""
CUT_RULES: Final = 60.0
"""Steepness from which the cut alone rules, so that more rows would say no more."""
CUT_TELLS: Final = 8.0
"""Steepness from which it can be told in the price."""
BUY, BUY_VALUE, SELL, SELL_VALUE, LOW, HIGH = range(6)
"""Columns of an edge table, as in `exact_kernels`."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be hedged, at what cost, by whom. Law: finite, and positive where a logarithm or a root is taken of it.

    `legs` as in `solve`, all four numbers given. Units: `tau` years, `vol` per root year, `cost` one-way as a fraction of
    notional, `risk_aversion` per unit of currency, `fixed_cost` currency a trade, `lot` units of the underlying.
    """

    legs: tuple[tuple[float, float, float, float], ...]
    spot: float
    vol: float
    tau: float
    cost: float
    risk_aversion: float
    dates: int
    fixed_cost: float = 0.0
    lot: float = 0.0
    charge_open: bool = True
    charge_close: bool = True
    rate: float = 0.0
    dividend: float = 0.0

    def __post_init__(self) -> None:
        for name in ("spot", "vol", "tau", "risk_aversion"):
            _require(name, getattr(self, name), above=True)
        for name in ("cost", "fixed_cost", "lot"):
            _require(name, getattr(self, name), above=False)
        if not (math.isfinite(self.rate) and math.isfinite(self.dividend)):
            raise ValueError(f"exact: expected a finite rate and dividend, found {self.rate!r} and {self.dividend!r}")
        if self.cost >= 1.0:
            raise ValueError(f"exact: cost: expected a fraction of notional below 1, found {self.cost!r}")
        if self.dates < 1 or self.dates != int(self.dates):
            raise ValueError(f"exact: dates: expected a whole number from 1, found {self.dates!r}")
        for at, (cp, strike, quantity, tau) in enumerate(self.legs):
            if cp not in {-1.0, 0.0, 1.0}:
                raise ValueError(f"exact: legs[{at}]: expected cp 1 (call), -1 (put) or 0 (forward), found {cp!r}")
            if not (math.isfinite(strike) and (strike > 0.0 or (cp == 0.0 and strike == 0.0))):
                raise ValueError(f"exact: legs[{at}]: expected a finite strike above 0, found {strike!r}")
            if not math.isfinite(quantity):
                raise ValueError(f"exact: legs[{at}]: expected a finite quantity, found {quantity!r}")
            if not 0.0 < tau <= self.tau * (1.0 + 1e-9):
                raise ValueError(f"exact: legs[{at}]: expected tau above 0 and up to {self.tau!r}, found {tau!r}")

    @property
    def step(self) -> float:
        """Years between two dates."""
        return self.tau / self.dates


def _require(name: str, value: float, *, above: bool) -> None:
    if not math.isfinite(value) or value < 0.0 or (above and value == 0.0):
        raise ValueError(f"exact: {name}: expected a finite number {'above' if above else 'from'} 0, found {value!r}")


def problem_of(
    legs: Sequence[Leg],
    *,
    spot: float,
    vol: float,
    tau: float,
    cost: float,
    risk_aversion: float,
    dates: int,
    fixed_cost: float = 0.0,
    lot: float = 0.0,
    charge_open: bool = True,
    charge_close: bool = True,
    rate: float = 0.0,
    dividend: float = 0.0,
) -> Problem:
    """The problem of these legs; a leg of three numbers expires at `tau`. Arguments and errors as in `solve`."""
    whole: list[tuple[float, float, float, float]] = []
    for at, leg in enumerate(legs):
        if len(leg) not in {3, 4}:
            raise ValueError(f"exact: legs[{at}]: expected (cp, strike, quantity) or with tau, found {leg!r}")
        cp, strike, quantity, *own = (float(x) for x in leg)
        whole.append((cp, strike, quantity, own[0] if own else float(tau)))
    return Problem(
        legs=tuple(whole),
        spot=float(spot),
        vol=float(vol),
        tau=float(tau),
        cost=float(cost),
        risk_aversion=float(risk_aversion),
        dates=int(dates) if dates == int(dates) else dates,
        fixed_cost=float(fixed_cost),
        lot=float(lot),
        charge_open=charge_open,
        charge_close=charge_close,
        rate=float(rate),
        dividend=float(dividend),
    )


# ------------------------------------------------------------------------------------------------ the problem in units of spot


class Payoff(NamedTuple):
    """What falls due at one date, per unit of spot. Shape: all (legs,). `weight` is the book's signed quantity."""

    cp: Array
    strike: Array
    weight: Array

    def loss(self, S: Array) -> Array:
        """What the writer owes: minus what the book receives. Shape: as S."""
        gain = S[:, None] - self.strike
        option = np.maximum(self.cp * gain, 0.0)
        return np.asarray(-np.sum(self.weight * np.where(self.cp == 0.0, gain, option), axis=1))

    def slopes(self) -> tuple[float, float]:
        """Least and greatest slope of `loss` over all prices: the hedges this payoff can ask for."""
        below = -np.sum(self.weight * np.where(self.cp == 0.0, 1.0, np.where(self.cp < 0.0, -1.0, 0.0)))
        options = self.cp != 0.0
        strikes, at = np.unique(self.strike[options], return_inverse=True)
        jumps = np.zeros(strikes.size)
        np.add.at(jumps, at, -self.weight[options])
        slopes = below + np.concatenate([[0.0], np.cumsum(jumps)])
        return float(slopes.min()), float(slopes.max())

    def kinks(self, x: Array, g: float) -> Array:
        """What the loss on the rows x must gain so that a trapezoid sum of exp(g loss) sees its kinks right.

        A jump D of a function's slope, theta of the way between two nodes h apart, makes the sum err by
        -h^2 D (theta^2 - theta + 1/6) / 2 (Euler-Maclaurin); the two nodes share the correction. Shape: as x.
        """
        h = float(x[1] - x[0])
        gain = np.zeros_like(x)
        for cp, strike, weight in zip(self.cp, self.strike, self.weight, strict=True):
            if cp == 0.0:
                continue
            place = (math.log(strike) - float(x[0])) / h
            i = math.floor(place)
            if not 0 <= i < x.size - 1:
                continue
            theta = place - i
            slope = -weight * strike * g
            both = 0.5 * h * slope * (theta * theta - theta + 1.0 / 6.0)
            gain[i] += (1.0 - theta) * both
            gain[i + 1] += theta * both
        return np.asarray(np.log1p(np.maximum(gain, -0.5)) / g)


class Grid(NamedTuple):
    """A problem in units of its spot, on rows of log price and columns of holding.

    `fee[i]` and `growth[i]` belong to date i: the fee discounted, and what a discounted holding is in units then.
    Shape: x, S (rows,), y (columns,), fee (N + 1,).
    """

    x: Array
    S: Array
    y: Array
    zero: int
    lattice: bool
    g: float
    cost: float
    close: float
    open: bool
    fee: Array
    step: float
    per_step: int
    payoffs: dict[int, Payoff]

    @property
    def apart(self) -> bool:
        """True where holding nothing saves the closing trade's fee, so that G jumps down at 0."""
        return bool(self.fee[-1] * self.close > 0.0)

    @property
    def pad(self) -> int:
        """Rows beyond either end that a step's quadrature reaches."""
        return math.ceil((STEP_REACH + 0.5 * self.step) * self.per_step)

    @property
    def dates(self) -> int:
        """How many decisions there are."""
        return self.fee.size - 1


def payoffs_of(problem: Problem) -> dict[int, Payoff]:
    """What falls due at each date, in units of spot and discounted; an expiry between dates goes to the nearest."""
    rows: dict[int, list[tuple[float, float, float]]] = {}
    r, q = problem.rate, problem.dividend
    for cp, strike, quantity, tau in problem.legs:
        date = min(math.floor(tau / problem.tau * problem.dates + 0.5), problem.dates)
        moved = strike / problem.spot * math.exp(-(r - q) * tau)
        rows.setdefault(date, []).append((cp, moved, quantity * math.exp(-q * tau)))
    return {date: Payoff(*np.array(found, dtype=np.float64).T) for date, found in rows.items()}


def delta_range(problem: Problem) -> tuple[float, float]:
    """Least and greatest hedge the book can ask for before its expiries, 0 included. Units of the underlying."""
    lo = hi = 0.0
    for payoff in payoffs_of(problem).values():
        least, most = payoff.slopes()
        lo, hi = lo + least, hi + most
    return min(lo, 0.0), max(hi, 0.0)


def make_grid(problem: Problem, *, per_step: int | None = None, columns: int | None = None, reach: Any = None) -> Grid:
    """The grid of a problem; `reach` (lo, hi) widens the holdings beyond the book's own deltas."""
    spot, N = problem.spot, problem.dates
    s = problem.vol * math.sqrt(problem.step)
    lo, hi = delta_range(problem)
    if reach is not None:
        lo, hi = min(lo, reach[0]), max(hi, reach[1])
    per_step = _rows_per_step(problem, lo, hi) if per_step is None else per_step
    half = math.ceil(TERM_REACH * math.sqrt(N) * per_step)
    x: Array = np.asarray(np.arange(-half, half + 1) * (s / per_step), dtype=np.float64)
    most = _with_closing(problem, hi) if reach is None else hi
    y, zero, lattice = _holdings(problem, lo, hi, columns, most=most)
    times = np.arange(N + 1) * problem.step
    return Grid(
        x=x,
        S=np.exp(x),
        y=y,
        zero=zero,
        lattice=lattice,
        g=problem.risk_aversion * spot * math.exp(problem.rate * problem.tau),
        cost=problem.cost,
        close=1.0 if problem.charge_close else 0.0,
        open=problem.charge_open,
        fee=problem.fixed_cost / spot * np.exp(-problem.rate * times),
        step=s,
        per_step=per_step,
        payoffs=payoffs_of(problem),
    )


def _rows_per_step(problem: Problem, lo: float, hi: float) -> int:
    """Rows in a step's deviation: more where utility bends sharply within a step, and where there are few steps."""
    bend = steepness(problem)
    needed = PER_STEP if bend < 3.0 else PER_STEP + 1 if bend < 30.0 else 2 * PER_STEP if bend < CUT_RULES else PER_STEP
    if 0.0 < (hi - lo) <= FEW_LOTS * problem.lot:
        # Edges then jump from lot to lot, half way between two rows: seen at 4 rows in a deviation, that lost 0.2 points.
        fewer = (hi - lo) <= FEWER_LOTS * problem.lot and problem.fixed_cost == 0.0
        needed *= 4 if fewer else 2
    return max(needed, math.ceil(8.0 / math.sqrt(problem.dates)))


def _holdings(problem: Problem, lo: float, hi: float, columns: int | None, *, most: float) -> tuple[Array, int, bool]:
    """Columns lo..most through 0 (at least four on each side that has any), the column of 0, whether they are lots.

    They lie as close as lo..hi asks for.
    """
    span = hi - lo
    if span <= 0.0:
        lo, hi, span = 0.0, 1.0, 1.0
    most = max(most, hi)
    lot = problem.lot
    if lot > 0.0 and span / lot <= LOT_COLUMNS:
        below, above = math.ceil(-lo / lot - 1e-9), math.ceil(most / lot - 1e-9)
        if below + above < 1:
            above = 1
        return lots_between(-below, above, lot), below, True
    step = span / (columns_for(problem, span) if columns is None else columns)
    below, above = math.ceil(-lo / step - 1e-9), math.ceil(most / step - 1e-9)
    below = max(below, 4) if below else 0
    above = max(above, 4) if above else 0
    return np.arange(-float(below), above + 0.5) * step, below, False


def _with_closing(problem: Problem, most: float) -> float:
    """The holding that is worth the book's greatest delta after its own closing trade, D / (1 - cost).

    Who may hold no more than D owes cost x S at the end however far the price has risen, and under exponential utility the
    farthest price then rules his own: with dear closing or a wide range of prices it grew without end.
    """
    if not problem.charge_close or most <= 0.0:
        return most
    return most * min(1.0 / (1.0 - problem.cost), MOST_CLOSING)


def lots_between(least: int, most: int, lot: float) -> Array:
    """The holdings of least..most lots, each the float that names it: a lot of 0.05 three times is 0.15. Shape: (lots,)."""
    above, below = decimal_of(lot).as_integer_ratio()
    return np.asarray(np.arange(float(least), most + 0.5) * float(above) / float(below))


def steepness(problem: Problem) -> float:
    """g S vol sqrt(step) for the book's largest jump of delta: how many logarithms of utility a deviation of a step moves.

    From about 8 on the expectation is ruled by where the normal distribution is cut, STEP_REACH deviations of a step: the
    price then grows with the cut (at 252 dates and g S = 3000 by 0.1 per cent for a deviation more, at 50000 by 5).
    """
    step = problem.vol * math.sqrt(problem.step)
    return problem.risk_aversion * problem.spot * step * (_largest_jump(problem) or 1.0)


def columns_for(problem: Problem, span: float) -> int:
    """How many columns resolve a book's holdings: by its largest jump of delta, netted by strike and date."""
    unit = _largest_jump(problem)
    return int(min(UNIT_COLUMNS * max(span / unit, 1.0), MOST_COLUMNS)) if unit > 0.0 else UNIT_COLUMNS


def _largest_jump(problem: Problem) -> float:
    """The largest jump of the payoffs' slope, netted by strike and date; 0 for a book without options."""
    jumps: dict[tuple[int, float], float] = {}
    for date, payoff in payoffs_of(problem).items():
        for cp, strike, weight in zip(*(column.tolist() for column in payoff), strict=True):
            if cp != 0.0:
                jumps[date, strike] = jumps.get((date, strike), 0.0) + weight
    return max((abs(jump) for jump in jumps.values()), default=0.0)


# ------------------------------------------------------------------------------------------------ steps, readable


def expect(
    J: Array,
    y: Array,
    S: Array,
    g: float,
    weights: Array,
    stride: int,
    pad: int,
    first: Columns,
    last: Columns,
    G: Array,
) -> None:
    """Writes G of every `stride`-th row: the readable twin of `exact_kernels.expect`, on all columns."""
    loss = g * (J - y * S[:, None])
    for j in range(G.shape[0]):
        around = loss[j * stride : j * stride + weights.size]
        peak = around.max(axis=0)
        G[j] = (peak + np.log(weights @ np.exp(around - peak))) / g + y * S[pad + j * stride]


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
    first: Columns,
    last: Columns,
    whole: int,
    edges: Array,
) -> int:
    """Writes the edges of each row: the readable twin of `exact_kernels.decide_rows`, on all columns."""
    for j, spot in enumerate(S):
        rate = cost * spot
        bottom, buy, buy_value = _lowest(G[j], y, zero, rate, lattice, apart)
        top, sell, sell_value = _lowest(G[j], y, zero, -rate, lattice, apart)
        low, high = buy, sell
        if fee > 0.0:
            low = _start(G[j] + rate * y, y, bottom, buy, buy_value + rate * buy + fee, -1)
            high = _start(G[j] - rate * y, y, top, sell, sell_value - rate * sell + fee, 1)
        if apart and low > 0.0 and G[j, zero] <= buy_value + rate * buy + fee:
            low = 0.0
        if apart and high < 0.0 and G[j, zero] <= sell_value - rate * sell + fee:
            high = 0.0
        edges[j] = buy, buy_value, sell, sell_value, min(low, buy), max(high, sell)
    return 0


def _lowest(G: Array, y: Array, zero: int, slope: float, lattice: bool, apart: bool) -> tuple[int, float, float]:
    """(column, holding, G there) of the least G + slope y, between columns by the cubic through four of one sign."""
    step = y[1] - y[0]
    best = int(np.argmin(G + slope * y))
    at, value, least = y[best], G[best], G[best] + slope * y[best]
    if lattice:
        return best, float(at), float(value)
    for k in range(max(best - 1, 0), min(best + 1, y.size - 1)):
        left, right = (0, zero + (not apart)) if k < zero else (zero + apart, y.size)
        if right - left < 4 or k < left or k + 1 >= right:
            continue
        i = min(max(k - 1, left), right - 4)
        cubic = np.polynomial.Polynomial.fit(np.arange(4.0), G[i : i + 4], 3, domain=[0, 3], window=[0, 3])
        turns = (cubic.deriv() + slope * step).roots()
        for u in turns[np.isreal(turns)].real:
            inside = float(cubic(u))
            held = y[i] + u * step
            rises = cubic.deriv(2)(u) > 0.0
            if rises and k < i + u < k + 1 and inside + slope * held < least:
                at, value, least = held, inside, inside + slope * held
    return best, float(at), float(value)


def _start(total: Array, y: Array, best: int, edge: float, aim: float, side: int) -> float:
    """The holding beyond `best` on `side` at which `total` first exceeds `aim`, on a straight line between columns."""
    k = best
    while 0 <= k < y.size and total[k] <= aim:
        k += side
    if not 0 <= k < y.size:
        return float(y[0] if side < 0 else y[-1])
    inner = k - side
    if k == best:
        return edge
    above, below = total[k] - aim, total[inner] - aim
    return float(y[inner] + (y[k] - y[inner]) * (-below) / (above - below))


def fill_rows(
    G: Array,
    edges: Array,
    y: Array,
    S: Array,
    cost: float,
    fee: float,
    pad: int,
    first: Columns,
    last: Columns,
    J: Array,
) -> None:
    """Writes J on rows and pads: the readable twin of `exact_kernels.fill_rows`, on all columns."""
    rate = (cost * S)[:, None]
    buy, buy_value, sell, sell_value, low, high = (column[:, None] for column in edges.T)
    up = buy_value + rate * (buy - y) + fee
    down = sell_value + rate * (y - sell) + fee
    held = np.where(y < buy, np.minimum(G, up), np.where(y > sell, np.minimum(G, down), G))
    _extend(J, np.where(y < low, up, np.where(y <= high, held, down)), S, y, cost, pad)


class Steps(NamedTuple):
    """The moves of the induction, compiled or readable."""

    expect: Callable[..., None]
    decide_rows: Callable[..., int]
    fill_rows: Callable[..., None]


READABLE: Final = Steps(expect, decide_rows, fill_rows)


def compiled_steps() -> Steps:
    """The compiled moves; the compiler is imported by those who solve."""
    from bot.pricing import exact_kernels as kernels  # noqa: PLC0415  as said

    return Steps(kernels.expect, kernels.decide_rows, kernels.fill_rows)


# ------------------------------------------------------------------------------------------------ the induction


class March:
    """The tables that go back from one date to the one before it; law: they hold one date, whose edges say what was decided.

    A fresh march stands at the end: nothing is held but what is closed. `decide` moves to the date before by the optimum;
    `averaged` and `settle` are the same move in two halves, for a rule that is not the optimum.
    """

    def __init__(self, grid: Grid, steps: Steps) -> None:
        rows, columns, pad = grid.S.size, grid.y.size, grid.pad
        self.grid, self.steps, self.date = grid, steps, grid.dates
        self.G, self.G_next = np.zeros((rows, columns)), np.zeros((rows, columns))
        self.edges, self.edges_next = np.zeros((rows, 6)), np.zeros((rows, 6))
        self.J = np.zeros((rows + 2 * pad, columns))
        self._padded = np.exp(grid.x[0] + (np.arange(rows + 2 * pad) - pad) * (grid.step / grid.per_step))
        self._weights = step_weights(grid.step, grid.per_step, pad)
        self._length = pad + 1
        self._blocks = math.ceil((rows + 2 * pad) / self._length)
        starts = np.arange(self._blocks) * self._length
        self._targets = (starts < rows + pad) & (starts + self._length > pad)
        self._everything = np.where(self._targets, 0, columns), np.where(self._targets, columns, 0)

    def decide(self) -> Array:
        """The edges of the date before (a view). Shape: (rows, 6).

        They are looked for in a corridor around the last ones; where a row's lie outside, the corridor is widened.
        """
        columns = self.grid.y.size
        margin = max(MARGIN, columns // 32)
        known = self.date != self.grid.dates and self.date not in self.grid.payoffs
        while True:
            whole = not known or 2 * margin > columns
            first, last = self._everything if whole else self._corridor(margin)
            self._fill(first, last)
            self._expect(first, last)
            if self._find_edges(first, last, whole=whole) == 0:
                self.G, self.G_next = self.G_next, self.G
                self.edges, self.edges_next = self.edges_next, self.edges
                self.date -= 1
                return self.edges
            margin *= 2

    def averaged(self, first: Columns | None = None, last: Columns | None = None) -> Array:
        """G of the date before, J being settled (at the end it is), on every column or on first[block] <= k < last[block].

        Shape: (rows, columns); first and last by blocks of pad + 1 rows, beginning pad rows before row 0.
        """
        if self.date == self.grid.dates:
            self._fill(*self._everything)
        wanted = self._everything if first is None or last is None else (first, last)
        self._expect(*wanted)
        self._stop_at_ends()
        self.date -= 1
        return self.G_next

    def _stop_at_ends(self) -> None:
        """A price that has come to the farthest rows stays there.

        A rule that is off by a little so far out would otherwise owe it anew at every step beyond.
        """
        grid = self.grid
        due = grid.payoffs.get(self.date)
        for row in (0, grid.S.size - 1):
            owed = 0.0 if due is None else float(due.loss(grid.S[row : row + 1])[0])
            self.G_next[row] = self.J[grid.pad + row] + owed

    def settle(self, J: Array) -> None:
        """Take J of this date, before anything that falls due. Shape: (rows, columns)."""
        grid = self.grid
        _extend(self.J, J, grid.S, grid.y, grid.cost, grid.pad)

    def _find_edges(self, first: Columns, last: Columns, *, whole: bool) -> int:
        grid, date = self.grid, self.date - 1
        free = date == 0 and not grid.open
        return self.steps.decide_rows(
            self.G_next, grid.y, grid.S, 0.0 if free else grid.cost, 0.0 if free else float(grid.fee[date]),
            grid.lattice, grid.apart, grid.zero, grid.pad, first, last, int(whole), self.edges_next,
        )  # fmt: skip

    def _corridor(self, margin: int) -> tuple[Columns, Columns]:
        """The columns of each block that lie within `margin` of its rows' edges."""
        y, pad = self.grid.y, self.grid.pad
        step = y[1] - y[0]
        low = np.floor((self.edges[:, LOW] - y[0]) / step).astype(np.int64) - margin
        high = np.ceil((self.edges[:, HIGH] - y[0]) / step).astype(np.int64) + margin + 1
        starts = np.maximum(np.arange(self._blocks) * self._length - pad, 0)[self._targets]
        first, last = np.full(self._blocks, y.size), np.zeros(self._blocks, dtype=np.int64)
        first[self._targets] = np.maximum(np.minimum.reduceat(low, starts), 0)
        last[self._targets] = np.minimum(np.maximum.reduceat(high, starts), y.size)
        if self.grid.apart:
            first[self._targets] = np.minimum(first[self._targets], self.grid.zero)
            last[self._targets] = np.maximum(last[self._targets], self.grid.zero + 1)
        return first, last

    def _fill(self, first: Columns, last: Columns) -> None:
        grid = self.grid
        charged = grid.close if self.date == grid.dates else 1.0
        self.steps.fill_rows(
            self.G, self.edges, grid.y, grid.S, grid.cost * charged, float(grid.fee[self.date]) * charged,
            grid.pad, first, last, self.J,
        )  # fmt: skip

    def _expect(self, first: Columns, last: Columns) -> None:
        """G of the date before, on the rows of this date; what falls due enters on finer rows."""
        grid = self.grid
        due = grid.payoffs.get(self.date)
        move = self.steps.expect
        if due is None:
            move(self.J, grid.y, self._padded, grid.g, self._weights, 1, grid.pad, first, last, self.G_next)
            return
        rows, pad = self.J.shape[0], grid.pad * FINER
        x = grid.x[0] + (np.arange((rows - 1) * FINER + 1) - pad) * (grid.step / grid.per_step / FINER)
        S = np.exp(x)
        J = refined(self.J, FINER) + (due.loss(S) + due.kinks(x, grid.g))[:, None]
        blocks = math.ceil(x.size / (pad + 1))
        everything = np.zeros(blocks, dtype=np.int64), np.full(blocks, grid.y.size)
        weights = step_weights(grid.step, grid.per_step * FINER, pad)
        move(J, grid.y, S, grid.g, weights, FINER, pad, *everything, self.G_next)


def _extend(J: Array, inner: Array, S: Array, y: Array, cost: float, pad: int) -> None:
    """Writes `inner` and, on the pads, straight lines in S through its two rows at each end.

    No line is steeper than the book's deltas and a trade's cost: to who only looks at the farthest move, a slope that was
    carried too far would feed on itself.
    """
    beyond = 2.0 * cost * max(-float(y[0]), float(y[-1]))
    slopes = [
        np.clip((inner[i + 1] - inner[i]) / (S[i + 1] - S[i]), y[0] - beyond, y[-1] + beyond) for i in (0, S.size - 2)
    ]
    ratio = S[1] / S[0]
    out = np.arange(1, pad + 1)[:, None]
    J[pad:-pad] = inner
    J[:pad] = (inner[0] + (S[0] * ratio**-out - S[0]) * slopes[0])[::-1]
    J[-pad:] = inner[-1] + (S[-1] * ratio**out - S[-1]) * slopes[1]


def step_weights(s: float, per_step: float, pad: int) -> Array:
    """The weights of the rows around a price in the expectation over one step of deviation s. Shape: (2 pad + 1,).

    ln(S'/S) is normal with mean -s^2/2 and deviation s. The density is cut at STEP_REACH deviations either side of the
    mean; the cut cells count by the straight line between their ends (exact where the cut is a row: half its weight),
    which matters only to who is so averse that the farthest move counts most. The weights add to 1.
    """
    rows = np.arange(-float(pad), pad + 0.5)
    z = rows / per_step + 0.5 * s
    share = _share_of_row((STEP_REACH - z) * per_step) + _share_of_row((STEP_REACH + z) * per_step) - 1.0
    density = share * np.exp(-0.5 * z * z)
    return np.asarray(density / density.sum())


def _share_of_row(distance: Array) -> Array:
    """The weight of a row in a trapezoid sum that ends `distance` rows above it: 1 inside, 0 outside.

    >>> _share_of_row(np.array([-1.0, -0.5, 0.0, 0.5, 1.0])).tolist()
    [0.0, 0.125, 0.5, 0.875, 1.0]
    """
    d = np.clip(distance, -1.0, 1.0)
    return np.asarray(np.where(d < 0.0, 0.5 * (1.0 + d) ** 2, 1.0 - 0.5 * (1.0 - d) ** 2))


def refined(J: Array, finer: int) -> Array:
    """The rows of J and `finer - 1` between each two, by cubics down the columns."""
    rows = J.shape[0]
    out = np.empty(((rows - 1) * finer + 1, J.shape[1]))
    out[::finer] = J
    base = np.clip(np.arange(rows - 1) - 1, 0, rows - 4)
    for part in range(1, finer):
        u = (np.arange(rows - 1) - base + part / finer)[:, None]
        out[part::finer] = (
            J[base] * ((u - 1) * (u - 2) * (3 - u) / 6)
            + J[base + 1] * (u * (u - 2) * (u - 3) / 2)
            + J[base + 2] * (u * (u - 1) * (3 - u) / 2)
            + J[base + 3] * (u * (u - 1) * (u - 2) / 6)
        )
    return out


# ------------------------------------------------------------------------------------------------ the optimum


class Solution:
    """The optimum of a problem: its price, and a band of holdings for each date and spot. Law: read-only.

    `price` is the least certain amount for which the writer takes the book on (its indifference price, in currency; a
    negative one is what the book is worth to him). `low`, `buy`, `sell`, `high` hold, for date and row of `spots`, the
    holdings below which he buys, up to which, down to which he sells, and above which. Shape: (N, rows).
    """

    def __init__(self, problem: Problem, grid: Grid, price: float, tables: NDArray[np.float64]) -> None:
        self.problem = problem
        self.price = price
        self.lots = grid.lattice
        self.low, self.buy, self.sell, self.high = tables
        self._x_0 = float(grid.x[0])
        self._dx = float(grid.x[1] - grid.x[0])
        self.holdings = float(grid.y[0]), float(grid.y[-1])

    @property
    def dates(self) -> int:
        """How many decisions there are."""
        return self.problem.dates

    @property
    def ruled_by_cut(self) -> bool:
        """True where so averse a writer's price is that of the farthest move looked at, and not to be trusted as one.

        See `steepness`. The band is still ordered, within the book's deltas, and that of who fears such a move.
        """
        return steepness(self.problem) > CUT_TELLS

    def band(self, date_index: Any, spot: Any) -> tuple[Any, Any]:
        """(lo, hi): holdings at which the optimum does nothing. Shape: the arguments broadcast; floats give floats.

        Units of the underlying; beyond the grid of prices its last band, and never beyond the deltas the book can have.
        Errors: ValueError for a date outside 0..N-1 or a spot that is not above 0.
        """
        return self._look_up((self.low, self.high), date_index, spot)

    def targets(self, date_index: Any, spot: Any) -> tuple[Any, Any]:
        """(up to, down to): the holdings at which buying from below, and selling from above, stops. Shape: as `band`."""
        lo, hi = self.band(date_index, spot)
        found = self._look_up((self.buy, self.sell), date_index, spot)
        up, down = (np.minimum(np.maximum(edge, lo), hi) for edge in found)
        return (up, down) if np.ndim(up) else (float(up), float(down))

    def rule(self, date_index: int, spots: Array) -> Rule:
        """The band and its targets as a rule that `evaluate` scores. Shape: as spots."""
        lo, hi = self.band(date_index, spots)
        return lo, hi, self.targets(date_index, spots)

    def _look_up(self, tables: tuple[Array, Array], date_index: Any, spot: Any) -> tuple[Any, Any]:
        """Two tables at dates and spots, as a pair in order: between two rows the cubic of one edge may pass the other's."""
        dates = np.asarray(date_index)
        if np.any((dates < 0) | (dates >= self.dates)):
            raise ValueError(f"exact: date_index: expected 0..{self.dates - 1}, found {date_index!r}")
        if dates.ndim == 0:
            return self._at_one_date(tables, int(dates), spot)
        dates, spots = np.broadcast_arrays(dates, np.asarray(spot, dtype=np.float64))
        low, high = np.empty((2, *dates.shape))
        for date in np.unique(dates).tolist():
            here = dates == date
            low[here], high[here] = self._at_one_date(tables, date, spots[here])
        return low, high

    def place(self, spots: Array, drift: float) -> Array:
        """Where prices lie between the tables' rows, those at either end standing for all beyond. Shape: as spots."""
        x = np.log(spots / self.problem.spot) - drift
        return np.asarray(np.clip((x - self._x_0) / self._dx, 0.0, self.low.shape[1] - 1.0))

    def _at_one_date(self, tables: tuple[Array, Array], date: int, spot: Any) -> tuple[Any, Any]:
        """The same at one date, compiled; the compiler is imported by those who ask."""
        from bot.pricing import exact_lookup_kernels as kernels  # noqa: PLC0415  as said

        problem = self.problem
        one, other = tables[0][date], tables[1][date]
        time = date * problem.step
        drift, grown = (problem.rate - problem.dividend) * time, math.exp(problem.dividend * time)
        rest = problem.spot, drift, self._x_0, self._dx, grown, self.lots
        if np.ndim(spot) == 0:
            price = float(spot)
            if not price > 0.0:
                raise ValueError(f"exact: spot: expected above 0, found {spot!r}")
            return kernels.pair_of(one, other, price, *rest)
        spots = np.ascontiguousarray(spot, dtype=np.float64)
        low, high = np.empty((2, *spots.shape))
        if not kernels.pairs_of(one, other, spots.reshape(-1), *rest, low.reshape(-1), high.reshape(-1)):
            raise ValueError(f"exact: spot: expected above 0, found {spot!r}")
        return low, high


def read_pair(solution: Solution, tables: tuple[Array, Array], date: int, spots: Array) -> tuple[Array, Array]:
    """Two tables of a date at spots, as a pair in order: the readable twin of `exact_lookup_kernels`. Shape: as spots."""
    problem, time = solution.problem, date * solution.problem.step
    place = solution.place(spots, (problem.rate - problem.dividend) * time)
    grown = math.exp(problem.dividend * time)
    one, other = (grown * _between_rows(table, np.asarray(date), place, nearest=solution.lots) for table in tables)
    return np.minimum(one, other), np.maximum(one, other)


def _between_rows(table: Array, dates: NDArray[Any], place: Array, *, nearest: bool) -> Array:
    """The table of a date at a place between rows: cubic, held between its two neighbours; of lots the nearest row."""
    if nearest:
        return np.asarray(table[dates, np.rint(place).astype(np.int64)])
    rows = table.shape[1]
    i = np.minimum(place.astype(np.int64), rows - 2)
    base = np.clip(i - 1, 0, rows - 4)
    u = place - base
    a, b, c, d = (table[dates, base + k] for k in range(4))
    cubic = (
        a * ((u - 1) * (u - 2) * (3 - u) / 6)
        + b * (u * (u - 2) * (u - 3) / 2)
        + c * (u * (u - 1) * (3 - u) / 2)
        + d * (u * (u - 1) * (u - 2) / 6)
    )
    left, right = table[dates, i], table[dates, i + 1]
    return np.asarray(np.clip(cubic, np.minimum(left, right), np.maximum(left, right)))


def solve_problem(
    problem: Problem, *, per_step: int | None = None, columns: int | None = None, steps: Steps | None = None
) -> Solution:
    """The optimum of a problem. `per_step` rows in a step's deviation and `columns` of holdings; None: what it needs.

    The defaults hold the price to about 1e-5 of the strike at usual aversions (g S up to 1000) and the band to 1e-3 units.
    `steps` READABLE solves by the slow twin, to which the compiled moves are equal.
    """
    grid = make_grid(problem, per_step=per_step, columns=columns)
    march = March(grid, compiled_steps() if steps is None else steps)
    tables = np.empty((4, problem.dates, grid.S.size))
    for date in range(problem.dates - 1, -1, -1):
        edges = march.decide()
        tables[:, date] = edges[:, [LOW, BUY, SELL, HIGH]].T
    return Solution(problem, grid, _opening(problem, grid, march), tables)


def _opening(problem: Problem, grid: Grid, march: March) -> float:
    """J_0 at the spot and no holding, in currency."""
    middle = grid.S.size // 2
    buy, buy_value, sell, sell_value, low, high = (float(edge) for edge in march.edges[middle])
    cost, fee = (grid.cost, float(grid.fee[0])) if grid.open else (0.0, 0.0)
    if low > 0.0:
        value = buy_value + cost * buy + fee
    elif high < 0.0:
        value = sell_value - cost * sell + fee
    else:
        value = float(march.G[middle, grid.zero])
    return float((value + _due_now(grid)) * problem.spot)


def _due_now(grid: Grid) -> float:
    """What falls due before the first decision, in units of spot."""
    due = grid.payoffs.get(0)
    return 0.0 if due is None else float(due.loss(np.ones(1))[0])


def solve(
    legs: Sequence[Leg],
    *,
    spot: float,
    vol: float,
    tau: float,
    cost: float,
    risk_aversion: float,
    dates: int,
    fixed_cost: float = 0.0,
    lot: float = 0.0,
    charge_open: bool = True,
    charge_close: bool = True,
    rate: float = 0.0,
    dividend: float = 0.0,
) -> Solution:
    """The optimal hedge of a book on one underlying, and its indifference price; see the module for the problem.

    `legs` are (cp, strike, signed quantity) or (cp, strike, signed quantity, tau): written = negative, in units of the
    underlying; an earlier expiry pays its intrinsic in cash on the nearest date. `tau` in years, `vol` per root year,
    `cost` one-way as a fraction of notional, `risk_aversion` per unit of currency, `fixed_cost` in currency a trade, `lot`
    in units (0: any size). `charge_open` False: the first trade is free; `charge_close` False: what is held at T is not
    closed at a cost.

    Errors: ValueError, naming the argument, for what is not finite or out of range.

    >>> call = solve([(1, 100, -1)], spot=100, vol=0.2, tau=0.25, cost=0.002, risk_aversion=1.0, dates=63)
    >>> round(call.price, 3)
    4.595
    >>> [round(edge, 2) for edge in call.band(0, 100.0)]
    [0.49, 0.57]
    """
    return solve_problem(
        problem_of(
            legs, spot=spot, vol=vol, tau=tau, cost=cost, risk_aversion=risk_aversion, dates=dates,
            fixed_cost=fixed_cost, lot=lot, charge_open=charge_open, charge_close=charge_close, rate=rate,
            dividend=dividend,
        )
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ any rule, without noise


def evaluate(
    problem: Problem,
    rule: Callable[[int, Array], Rule],
    *,
    per_step: int | None = None,
    columns: int | None = None,
) -> float:
    """The certainty equivalent of a rule's loss, in currency, on the lattice the optimum is found on: no paths, no noise.

    `rule(date_index, spots)` gives (lo, hi, to) for a date and an array of spots, in units of the underlying: what is held
    inside is kept; from outside it trades to `to`, or to the nearest edge where `to` is None, or, where `to` is a pair,
    to its first from below and its second from above. It may depend on nothing else. With a lot, targets are rounded into
    the band. How, and why kinks and jumps do no harm: `bot.pricing.exact_score`.

    Law: never below the optimum's price but by the grids' errors, below 2e-5 of the strike.
    """
    from bot.pricing import exact_score  # noqa: PLC0415  it stands on this module

    return exact_score.evaluate(problem, rule, per_step=per_step, columns=columns)


def gap_closed(value: float, *, daily: float, optimum: float) -> float:
    """How much of the way from daily Black-Scholes (0) to the optimum (100) a certainty equivalent has come, in per cent."""
    return (daily - value) / (daily - optimum) * 100.0


def hedge_greeks(
    problem: Problem, date_index: int, spots: Array, *, vol: ArrayLike | None = None
) -> tuple[Array, Array]:
    """(hedge, gamma): minus the book's Black-Scholes delta, and its gamma, at a date before expiries. Shape: as spots.

    A leg whose payment date has come counts no more. `vol` other than the problem's is a hedger's who believes it.
    """
    from bot.pricing import exact_score_kernels as kernels  # noqa: PLC0415  the compiler is imported by those who score

    t = date_index * problem.step
    S = np.ascontiguousarray(spots, dtype=np.float64)
    hedge, gamma = np.zeros_like(S), np.zeros_like(S)
    for cp, strike, quantity, tau in problem.legs:
        if math.floor(tau / problem.tau * problem.dates + 0.5) <= date_index:
            continue
        left = max(tau - t, 0.0)
        if cp == 0.0:
            hedge -= quantity * math.exp(-problem.dividend * left)
        elif left > 0.0 and (vol is None or np.ndim(vol) == 0):
            sigma = problem.vol if vol is None else float(np.asarray(vol))
            kernels.add_greeks(S, strike, left, sigma, problem.rate, problem.dividend, cp, quantity, hedge, gamma)
        else:
            sigmas = problem.vol if vol is None else vol
            one = black.bsm(S, strike, left, sigmas, rate=problem.rate, dividend=problem.dividend, cp=cp)
            hedge -= quantity * one.delta
            gamma += quantity * one.gamma
    return hedge, gamma


def interval_rule(problem: Problem, every: int) -> Callable[[int, Array], Rule]:
    """The rule that hedges the Black-Scholes delta exactly at each `every`-th date; `every` = N hedges once (static)."""

    def rule(date_index: int, spots: Array) -> Rule:
        if date_index % every:
            return -np.inf, np.inf, None
        hedge, _ = hedge_greeks(problem, date_index, spots)
        return hedge, hedge, None

    return rule


def no_hedge_rule(date_index: int, spots: Array) -> Rule:
    """The rule that never trades."""
    return -np.inf, np.inf, None


def whalley_wilmott_premium(problem: Problem) -> float:
    """A closed-form estimate of what hedging costs above the Black-Scholes price, in currency: no induction.

    In a band of half width h the cost rate lam S (Gamma vol S)^2 / (2 h) and the risk rate g vol^2 S^2 h^2 / 6 add to least
    at h^3 = 3 lam S Gamma^2 / (2 g) (Whalley and Wilmott 1997), where they add to g vol^2 S^2 h^2 / 2; this is integrated
    over time and price, and the opening and closing trades are added. Rates 0. Within 12 per cent of the optimum's premium
    on a call at 1 to 5 basis points and 504 dates; it knows nothing of the dates.
    """
    nodes, weights = np.polynomial.legendre.leggauss(96)
    u, w_u = 0.5 * (nodes + 1.0), 0.5 * weights
    z = np.linspace(-8.0, 8.0, 1601)
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) * (z[1] - z[0])
    g, lam, T = problem.risk_aversion, problem.cost, problem.tau
    rate = 0.0
    for share, weight in zip(u, w_u, strict=True):
        t = T * (1.0 - share**3)  # dense toward the end, where gamma is a spike
        spots = problem.spot * np.exp(problem.vol * math.sqrt(t) * z - 0.5 * problem.vol**2 * t)
        gamma = np.zeros_like(spots)
        for cp, strike, quantity, tau in problem.legs:
            if cp != 0.0 and tau > t:
                gamma += quantity * black.bsm(spots, strike, tau - t, problem.vol).gamma
        half = np.cbrt(1.5 * lam * spots * gamma**2 / g)
        rate += weight * 3.0 * share**2 * T * float(density @ (0.5 * g * (problem.vol * spots * half) ** 2))
    hedge, _ = hedge_greeks(problem, 0, np.array([problem.spot]))
    opening = lam * problem.spot * abs(float(hedge[0])) if problem.charge_open else 0.0
    spots = problem.spot * np.exp(problem.vol * math.sqrt(T) * z - 0.5 * problem.vol**2 * T)
    last, _ = hedge_greeks(msgspec.structs.replace(problem, dates=10**6), 10**6 - 1, spots)
    closing = lam * float(density @ (spots * np.abs(last))) if problem.charge_close else 0.0
    return rate + opening + closing


def risk_aversion_from_tolerance(deviation: float, *, cost: float = 1.0, present: float | None = None) -> float:
    """The risk aversion, per unit of currency, of who pays `cost` to take `deviation` off a standard deviation of P&L.

    With exponential utility a loss of mean m and standard deviation s is worth m + g s^2 / 2 to second order (exactly so
    where it is normal). To go from `present` to `present - deviation` is worth g (present^2 - (present - deviation)^2) / 2;
    set to `cost`, that is g. `present` None: all of it is taken off (present = deviation), g = 2 cost / deviation^2.

    Errors: ValueError for what is not positive, or a `deviation` greater than `present`.

    >>> risk_aversion_from_tolerance(2.0)  # one dollar of cost per two dollars of standard deviation
    0.5
    >>> round(risk_aversion_from_tolerance(0.1, present=10.0), 3)
    1.005
    """
    start = deviation if present is None else present
    if not (math.isfinite(deviation) and math.isfinite(cost) and deviation > 0.0 and cost > 0.0):
        raise ValueError(f"risk_aversion: expected a deviation and a cost above 0, found {deviation!r} and {cost!r}")
    if not (math.isfinite(start) and start >= deviation):
        raise ValueError(f"risk_aversion: present: expected at least the deviation {deviation!r}, found {present!r}")
    return 2.0 * cost / (deviation * (2.0 * start - deviation))
