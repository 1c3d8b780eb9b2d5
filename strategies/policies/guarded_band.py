"""Guarded band: the best of its candidates for this book, never below no hedge, one hedge and the best fixed interval.

Law: `prepared(plan)` scores every candidate without noise on the lattice of the optimum (`bot.pricing.exact.evaluate`), on
the plan's own legs, costs and vol, and answers as the one with the least certainty equivalent; of equals the first. The
score is the model's: it knows no jumps, and no other vol than the plan's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from bot.core.ports import Band, BandInput, HedgePlan, HedgePolicy, LegInput, Prepares, ShapesDelta
from bot.domain.units import NS_PER_YEAR, Nanos
from bot.pricing import black
from bot.pricing.black import Array
from bot.pricing.exact import Problem, Rule, evaluate, hedge_greeks, interval_rule, no_hedge_rule
from strategies.policies.exact_band import ExactBand, PreparedExactBand, problem_of_plan
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge

SHARES: Final = (1, 2, 4, 8, 16, 32, 64, 126)
"""How many dates a fixed interval may last, as tried."""
ROWS_PER_STEP: Final = 2
COLUMNS: Final = 200
"""The lattice of the scores: coarse, since what is to be told apart differs by more than its error."""


class Score(NamedTuple):
    """A candidate, the policy that trades for it, and the certainty equivalent of its loss in currency."""

    name: str
    policy: HedgePolicy
    value: float


class GuardedBand:
    """Picks the best of the exact band (or the candidates given), none, static and fixed intervals for the plan's book.

    `candidates` are policies that depend on time, price and holding only; None: the exact band alone. The other
    arguments are `ExactBand`'s.
    """

    interval: Nanos | None = None
    needs_ticks = False

    def __init__(
        self,
        *,
        risk_aversion: float,
        dates: int = 252,
        candidates: Sequence[HedgePolicy] | None = None,
        fixed_cost: float = 0.0,
        lot: float = 0.0,
    ) -> None:
        self._exact = ExactBand(risk_aversion=risk_aversion, dates=dates, fixed_cost=fixed_cost, lot=lot)
        self.candidates: tuple[HedgePolicy, ...] = (self._exact,) if candidates is None else tuple(candidates)
        self.name = f"guarded band, risk aversion {risk_aversion:g}"

    def prepared(self, plan: HedgePlan) -> HedgePolicy:
        """The policy with the least certainty equivalent for this plan; none where every leg has expired."""
        scores = self.scores(plan)
        return min(scores, key=lambda score: score.value).policy if scores else NoHedge()

    def scores(self, plan: HedgePlan) -> list[Score]:
        """Each candidate and guard with its score, candidates first; empty where every leg has expired."""
        exact = self._exact
        problem = problem_of_plan(
            plan,
            risk_aversion=exact.risk_aversion,
            dates=exact.dates,
            fixed_cost=exact.fixed_cost,
            lot=exact.lot,
        )
        if problem is None:
            return []
        ready = [policy.prepared(plan) if isinstance(policy, Prepares) else policy for policy in self.candidates]
        return [_scored(policy, plan, problem) for policy in ready] + _guards(problem)

    def band(self, x: BandInput) -> Band:
        """ValueError: without its book there is no band; ask `prepared` first."""
        raise ValueError("guarded_band: expected to be prepared with the book's plan before it is asked for a band")


def _guards(problem: Problem) -> list[Score]:
    """None, static, and fixed intervals of whole dates."""
    step = problem.step * NS_PER_YEAR
    found = [
        Score("none", NoHedge(), _value(problem, no_hedge_rule)),
        Score("static", StaticHedge(), _value(problem, interval_rule(problem, problem.dates))),
    ]
    for every in SHARES:
        if every < problem.dates:
            policy = FixedInterval(interval=max(round(every * step), 1))
            found.append(Score(policy.name, policy, _value(problem, interval_rule(problem, every))))
    return found


def _value(problem: Problem, rule: Callable[[int, Array], Rule]) -> float:
    return evaluate(problem, rule, per_step=ROWS_PER_STEP, columns=COLUMNS)


def _scored(policy: HedgePolicy, plan: HedgePlan, problem: Problem) -> Score:
    if isinstance(policy, PreparedExactBand) and policy.solution is not None:
        return Score(policy.name, policy, _value(problem, policy.solution.rule))
    return Score(policy.name, policy, _value(problem, rule_of(policy, plan, problem)))


def rule_of(policy: HedgePolicy, plan: HedgePlan, problem: Problem) -> Callable[[int, Array], Rule]:
    """A policy as a rule of date and spot: what it answers to who holds less than any edge, and never hedged before.

    A policy with an `interval` is asked at the dates at which it is due, and keeps still between them. One that
    remembers more (the price at its last hedge) cannot be scored so.
    """
    interval: Nanos | None = getattr(policy, "interval", None)
    step = problem.step * NS_PER_YEAR
    every = 1 if interval is None else max(round(interval / step), 1)

    def rule(date_index: int, spots: Array) -> Rule:
        if date_index % every:
            return -np.inf, np.inf, None
        x = _seen(policy, plan, problem, date_index, spots)
        band = policy.band(x)
        lo, hi = _units(band.lo, band.hi, plan.per_contract)
        return lo, hi, None if band.to is None else np.asarray(band.to) * plan.per_contract

    return rule


def _units(lo: Any, hi: Any, per_contract: float) -> tuple[Any, Any]:
    one, other = np.asarray(lo) * per_contract, np.asarray(hi) * per_contract
    return np.minimum(one, other), np.maximum(one, other)


def _seen(policy: HedgePolicy, plan: HedgePlan, problem: Problem, date_index: int, spots: Array) -> BandInput:
    """What the policy would see at a date on each spot. Shape: as spots."""
    hedge, gamma = hedge_greeks(problem, date_index, spots)
    if isinstance(policy, ShapesDelta):
        hedge = _shaped_hedge(policy, problem, date_index, spots, gamma)
    t = date_index * problem.step
    left = [tau - t for _, _, _, tau in problem.legs if tau > t]
    never = np.full(spots.shape, -1, dtype=np.int64)
    flat = np.zeros_like(spots)
    return BandInput(
        now=plan.now + round(t * NS_PER_YEAR) + never * 0,
        spot=spots,
        want=hedge / plan.per_contract,
        held=flat,
        gamma=gamma,
        tau=(min(left) if left else 0.0) + flat,
        vol=problem.vol + flat,
        rate=problem.rate + flat,
        per_contract=plan.per_contract + flat,
        cost=problem.cost + flat,
        last_hedge_ts=never,
        last_hedge_spot=np.full(spots.shape, math.nan),
    )


def _shaped_hedge(policy: ShapesDelta, problem: Problem, date_index: int, spots: Array, gamma: Array) -> Array:
    """Minus the book's delta by the policy's own deltas of the legs. Shape: as spots."""
    t = date_index * problem.step
    rows = np.array([row for row in problem.legs if row[3] > t and row[0] != 0.0]).reshape(-1, 4)
    cp, strike, quantity, tau = rows.T
    S = spots[:, None]
    one = black.bsm(S, strike, tau - t, problem.vol, rate=problem.rate, dividend=problem.dividend, cp=cp)
    spread = np.zeros_like(one.delta)
    leg = LegInput(
        spot=S + spread,
        strike=strike + spread,
        tau=tau - t + spread,
        vol=problem.vol + spread,
        rate=problem.rate + spread,
        dividend=problem.dividend + spread,
        cp=cp + spread,
        weight=quantity + spread,
        delta=one.delta,
        gamma=one.gamma,
        vega=one.vega,
        net_gamma=gamma[:, None] + spread,
        cost=problem.cost + spread,
    )
    return np.asarray(-np.sum(quantity * policy.leg_deltas(leg), axis=1))
