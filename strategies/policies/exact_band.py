"""Exact band: the cheapest hedge of the user's own book under exponential utility, found before the first trade.

Law: `prepared(plan)` solves the book of the plan by backward induction (`bot.pricing.exact`: Hodges and Neuberger 1989,
Davis, Panas and Zariphopoulou 1993) and answers from that solution. Date i is the instant plan.now + i T / N, T the
longest expiry of the plan and N `dates`. The band of date i holds from that instant to the next date's; who has
hedged since its beginning does nothing more until the next, and nothing is done from T on. Between dates nothing wakes it.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from bot.core.ports import Band, BandInput, HedgePlan, HedgePolicy
from bot.domain.units import NEVER, NS_PER_YEAR, Nanos
from bot.pricing import black
from bot.pricing.exact import Problem, Solution, problem_of, risk_aversion_from_tolerance, solve, solve_problem
from strategies.policies.bands import whole_line

__all__ = ["ExactBand", "PreparedExactBand", "problem_of_plan", "risk_aversion_from_tolerance", "solve"]

INF: Final = np.inf
SLACK: Final = 1e-6
"""A share of the interval by which an instant may come before its date: dates are rounded to nanoseconds."""
NEAR_LOT: Final = 1e-7
"""A share of a lot by which a band in lots is wider: an edge that rounding moved off its lot still is that lot."""


class ExactBand:
    """Solves for the book it is given, then trades to the edges of the optimal band at the solver's dates.

    `risk_aversion` per unit of currency (see `risk_aversion_from_tolerance`), `dates` the number of decisions until the
    last expiry. `fixed_cost` (currency a trade) and `lot` (units of the underlying), where above 0, stand in for the plan's.
    """

    interval: Nanos | None = None
    needs_ticks = False

    def __init__(self, *, risk_aversion: float, dates: int = 252, fixed_cost: float = 0.0, lot: float = 0.0) -> None:
        if not (math.isfinite(risk_aversion) and risk_aversion > 0.0):
            raise ValueError(f"exact_band: risk_aversion: expected a finite number above 0, found {risk_aversion!r}")
        if dates < 1 or dates != int(dates):
            raise ValueError(f"exact_band: dates: expected a whole number from 1, found {dates!r}")
        for name, value in (("fixed_cost", fixed_cost), ("lot", lot)):
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"exact_band: {name}: expected a finite number from 0, found {value!r}")
        self.risk_aversion = float(risk_aversion)
        self.dates = int(dates)
        self.fixed_cost = float(fixed_cost)
        self.lot = float(lot)
        self.name = f"exact band, risk aversion {risk_aversion:g}"

    def prepared(self, plan: HedgePlan) -> HedgePolicy:
        """The rule for this plan: its problem solved; a rule that never trades where every leg has expired."""
        problem = problem_of_plan(
            plan, risk_aversion=self.risk_aversion, dates=self.dates, fixed_cost=self.fixed_cost, lot=self.lot
        )
        return PreparedExactBand(None if problem is None else solve_problem(problem), start=plan.now, name=self.name)

    def band(self, x: BandInput) -> Band:
        """ValueError: without its book there is no band; ask `prepared` first."""
        raise ValueError("exact_band: expected to be prepared with the book's plan before it is asked for a band")


class PreparedExactBand:
    """The optimal band of one book, by instant and spot. Implements `HedgePolicy`; law: pure."""

    needs_ticks = False

    def __init__(self, solution: Solution | None, *, start: Nanos, name: str) -> None:
        self.solution = solution
        self.start = start
        self.name = name
        step = 1.0 if solution is None else solution.problem.step
        self._step_ns = step * NS_PER_YEAR
        self.interval: Nanos | None = None if solution is None else max(round(self._step_ns), 1)
        self._began: tuple[int, Nanos] = (-1, start)

    def band(self, x: BandInput) -> Band:
        """The edges in hedge contracts, the whole line where this date's hedge is done. Shape: as `x.want`.

        `to` is None but for a ticket fee, where it is the inner edge on the side of `x.held`.
        """
        date = self._date(x.now)
        if self.solution is None or (np.ndim(date) == 0 and date >= self.solution.dates):
            return whole_line(x.want)
        if np.ndim(date):
            return self._by_row(x, date)
        asked = self._is_asked(x.last_hedge_ts, date)
        some = asked if isinstance(asked, bool) else bool(asked.any())
        if not some:
            return whole_line(x.want)
        band = self._of_date(x, max(date, 0))
        if isinstance(asked, bool) or asked.all():
            return band if np.shape(band.lo) == np.shape(x.want) else _spread(band, np.shape(x.want))
        return Band(np.where(asked, band.lo, -INF), np.where(asked, band.hi, INF), band.to)

    def _by_row(self, x: BandInput, date: Any) -> Band:
        """The band where the instants asked for differ. Shape: date as `x.want`."""
        assert self.solution is not None
        last = np.asarray(x.last_hedge_ts)
        asked = (date < self.solution.dates) & ((last == NEVER) | (self._date(last) < date))
        band = self._of_date(x, np.clip(date, 0, self.solution.dates - 1))
        return Band(np.where(asked, band.lo, -INF), np.where(asked, band.hi, INF), band.to)

    def _of_date(self, x: BandInput, date: Any) -> Band:
        """The band of a date in hedge contracts, whatever was done since. Shape: as `x.want`."""
        assert self.solution is not None
        lo, hi = self._contracts(self.solution.band(date, x.spot), x.per_contract)
        if self.solution.lots:
            near = NEAR_LOT * self.solution.problem.lot / abs(x.per_contract)
            lo, hi = lo - near, hi + near
        if self.solution.problem.fixed_cost <= 0.0:
            return Band(lo, hi)
        up, down = self._contracts(self.solution.targets(date, x.spot), x.per_contract)
        to = np.where(np.asarray(x.held) < lo, up, np.where(np.asarray(x.held) > hi, down, x.held))
        return Band(lo, hi, to if to.ndim else float(to))

    def _is_asked(self, last: Any, date: int) -> Any:
        """True where nothing was done since the date began. Shape: as last; of a number, a plain truth."""
        if np.ndim(last) == 0:
            return bool(last == NEVER) or self._date(last) < date
        began = self._began
        if began[0] != date:
            began = self._began = date, self._first_of(date)
        return (last == NEVER) | (last < began[1])

    def _date(self, instant: Any) -> Any:
        """The index of the date in force at an instant; below 0 before the start."""
        place = (instant - self.start) / self._step_ns + SLACK
        return math.floor(place) if np.ndim(place) == 0 else np.floor(place).astype(np.int64)

    def _first_of(self, date: int) -> Nanos:
        """The first instant of which `_date` says so: comparing with it needs no division."""
        at = self.start + math.ceil((date - SLACK) * self._step_ns)
        while self._date(at) >= date:
            at -= 1
        while self._date(at) < date:
            at += 1
        return at

    @staticmethod
    def _contracts(edges: tuple[Any, Any], per_contract: Any) -> tuple[Any, Any]:
        """Edges in units of the underlying as edges in hedge contracts, whose own delta may be negative."""
        if np.ndim(per_contract) == 0:
            one, other = edges[0] / per_contract, edges[1] / per_contract
            return (one, other) if per_contract > 0.0 else (other, one)
        one, other = np.asarray(edges[0]) / per_contract, np.asarray(edges[1]) / per_contract
        return np.minimum(one, other), np.maximum(one, other)


def _spread(band: Band, shape: tuple[int, ...]) -> Band:
    """The band in the shape asked for, where a price stands for many wants. Shape: as given."""
    lo, hi, to = (None if edge is None else np.broadcast_to(edge, shape) for edge in band)
    return Band(lo, hi, to)


def problem_of_plan(
    plan: HedgePlan, *, risk_aversion: float, dates: int, fixed_cost: float = 0.0, lot: float = 0.0
) -> Problem | None:
    """The optimum's problem for a plan, or None where no leg is left. Expired legs owe nothing more.

    One vol drives the underlying: the legs' vols weighted by |quantity| vega. Errors: ValueError for a plan with legs of
    which none has a vol.
    """
    rows = list(zip(plan.cp, plan.strike, plan.quantity, plan.tau, plan.vol, strict=True))
    live = [row for row in rows if row[3] > 0.0 and row[2] != 0.0]
    if not live:
        return None
    return problem_of(
        [row[:4] for row in live],
        spot=plan.spot,
        vol=_driving_vol(plan, live),
        tau=max(row[3] for row in live),
        cost=plan.cost,
        risk_aversion=risk_aversion,
        dates=dates,
        fixed_cost=fixed_cost or plan.fixed_cost,
        lot=lot or plan.lot,
        charge_open=plan.charge_open,
        charge_close=plan.charge_close,
        rate=plan.rate,
        dividend=plan.dividend,
    )


def _driving_vol(plan: HedgePlan, live: list[tuple[float, float, float, float, float]]) -> float:
    """The legs' mean vol by |quantity| vega; by |quantity| where no vega is left."""
    known = np.array([row for row in live if row[0] != 0.0 and math.isfinite(row[4]) and row[4] > 0.0])
    if known.size == 0:
        raise ValueError("exact_band: expected a vol above 0 for at least one leg of the plan, found none")
    cp, strike, quantity, tau, vol = known.T
    vega = black.bsm(plan.spot, strike, tau, vol, rate=plan.rate, dividend=plan.dividend, cp=cp).vega
    weight = np.abs(quantity) * vega
    if not float(weight.sum()) > 0.0:
        weight = np.abs(quantity)
    return float(np.sum(weight * vol) / np.sum(weight))
