"""Guarded band: the best of its candidates for this book, never below no hedge, one hedge and the best fixed interval.

Law: `prepared(plan)` scores every candidate without noise on the lattice of the optimum (`bot.pricing.exact.evaluate`), on
the plan's own legs, costs and vol, and answers as the one with the least certainty equivalent; of equals the first. The
score is the model's: it knows no jumps, and no other vol than the plan's. Whatever is chosen, the clock goes on, so that a
book, vol or cost that changes is looked at again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from bot.core.ports import Band, BandInput, HedgePlan, HedgePolicy, LegInput, Prepares, ShapesDelta
from bot.domain.units import NEVER, NS_PER_YEAR, Nanos
from bot.pricing import black
from bot.pricing.black import Array
from bot.pricing.exact import Problem, Rule, evaluate, hedge_greeks, interval_rule, no_hedge_rule
from strategies.policies.exact_band import ExactBand, PreparedExactBand, problem_of_plan
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.no_hedge import NoHedge
from strategies.policies.reach import Reach, reach_of, within_reach
from strategies.policies.static_hedge import StaticHedge
from strategies.policies.wrapped import Wrapped

COLUMNS: Final = 200
"""The lattice of the scores: coarse, since what is to be told apart differs by more than its error."""
FAR: Final = 1e12
"""A holding, in units of what is wanted, from which a policy is asked where it would buy up or sell down to."""


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


class Resting(Wrapped):
    """A rule that nothing wakes, woken at each date nonetheless: its bands are the inner rule's."""

    def __init__(self, inner: HedgePolicy, *, interval: Nanos) -> None:
        super().__init__(inner, name="guarded")
        self.name = inner.name
        self.interval = interval


def _guards(problem: Problem) -> list[Score]:
    """None, static, and fixed intervals of whole dates: 1, 2, 4, .. and, about the best of these, those between."""
    step = max(round(problem.step * NS_PER_YEAR), 1)
    none, once = (Resting(rule, interval=step) for rule in (NoHedge(), StaticHedge()))
    intervals: dict[int, Score] = {}
    every = 1
    while every < problem.dates:
        intervals[every] = _interval_score(problem, every)
        every *= 2
    if intervals:
        best = min(intervals, key=lambda k: intervals[k].value)
        for near in sorted({3 * best // 4, 7 * best // 8, 5 * best // 4, 3 * best // 2} - {0, *intervals}):
            if near < problem.dates:
                intervals[near] = _interval_score(problem, near)
    return [
        Score("none", none, _value(problem, no_hedge_rule)),
        Score("static", once, _value(problem, interval_rule(problem, problem.dates))),
        *(intervals[k] for k in sorted(intervals)),
    ]


def _interval_score(problem: Problem, every: int) -> Score:
    policy = FixedInterval(interval=max(round(every * problem.step * NS_PER_YEAR), 1))
    return Score(policy.name, policy, _value(problem, interval_rule(problem, every)))


def _value(problem: Problem, rule: Callable[[int, Array], Rule]) -> float:
    return evaluate(problem, rule, columns=COLUMNS)


def _scored(policy: HedgePolicy, plan: HedgePlan, problem: Problem) -> Score:
    if isinstance(policy, PreparedExactBand) and policy.solution is not None:
        return Score(policy.name, policy, _value(problem, policy.solution.rule))
    return Score(policy.name, policy, _value(problem, rule_of(policy, plan, problem)))


def rule_of(policy: HedgePolicy, plan: HedgePlan, problem: Problem) -> Callable[[int, Array], Rule]:
    """A policy as a rule of date and spot, its bands cut to the book's reach where the hedger cuts them.

    A policy with an `interval` is asked at the dates at which it is due, and keeps still between them; one that hedges
    once hedges at date 0. Errors: ValueError, when asked, for one whose band depends on what is held or on the last
    hedge in any other way (`MoveBand`, `AlmgrenLiSpeed`): the lattice does not know that; paths do (`bot.lab`).
    """
    if isinstance(policy, StaticHedge):
        return interval_rule(problem, problem.dates)
    interval: Nanos | None = getattr(policy, "interval", None)
    step = problem.step * NS_PER_YEAR
    every = 1 if interval is None else max(round(interval / step), 1)
    bounded = bool(getattr(policy, "bounded", False))

    def rule(date_index: int, spots: Array) -> Rule:
        if date_index % every:
            return -np.inf, np.inf, None
        x = _seen(policy, plan, problem, date_index, spots)
        below, above = (policy.band(x._replace(held=x.held + far)) for far in (-FAR, FAR))
        before = x.now - (round(step) if interval is None else interval)
        again = policy.band(x._replace(held=x.held - FAR, last_hedge_ts=before, last_hedge_spot=spots))
        _expect_no_memory(policy, below, above, again)
        if bounded:
            reach = _reach_at(problem, date_index, plan.per_contract)
            below, above = within_reach(below, *reach), within_reach(above, *reach)
        lo, hi = _units(below.lo, below.hi, plan.per_contract)
        if below.to is None or above.to is None:
            return lo, hi, None
        ups = np.asarray(below.to) * plan.per_contract, np.asarray(above.to) * plan.per_contract
        return lo, hi, ups if plan.per_contract > 0.0 else ups[::-1]

    return rule


def _expect_no_memory(policy: HedgePolicy, below: Band, above: Band, again: Band) -> None:
    for other, what in ((above, "what is held"), (again, "its last hedge")):
        if not (np.array_equal(below.lo, other.lo) and np.array_equal(below.hi, other.hi)):
            raise ValueError(
                f"guarded_band: {policy.name}: expected a band of time and price alone, found one that depends on {what}"
            )


def _reach_at(problem: Problem, date_index: int, per_contract: float) -> tuple[float, float]:
    """The least and greatest hedge the legs alive at a date can ask for, in hedge contracts."""
    t = date_index * problem.step
    live = [row for row in problem.legs if row[3] > t * (1.0 + 1e-12)]
    found = reach_of(*([row[i] for row in live] for i in range(4))) if live else Reach(0.0, 0.0)
    one, other = -found.hi / per_contract, -found.lo / per_contract
    return min(one, other), max(one, other)


def _units(lo: Any, hi: Any, per_contract: float) -> tuple[Any, Any]:
    one, other = np.asarray(lo) * per_contract, np.asarray(hi) * per_contract
    return np.minimum(one, other), np.maximum(one, other)


def _seen(policy: HedgePolicy, plan: HedgePlan, problem: Problem, date_index: int, spots: Array) -> BandInput:
    """What the policy would see at a date on each spot. Shape: as spots."""
    hedge, gamma = hedge_greeks(problem, date_index, spots)
    if isinstance(policy, ShapesDelta):
        hedge = _shaped_hedge(policy, problem, date_index, spots, gamma)
    t = date_index * problem.step
    never = np.full(spots.shape, NEVER, dtype=np.int64)
    flat = np.zeros_like(spots)
    return BandInput(
        now=np.full(spots.shape, plan.now + round(t * NS_PER_YEAR), dtype=np.int64),
        spot=spots,
        want=hedge / plan.per_contract,
        held=flat,
        gamma=gamma,
        tau=_mean_tau(problem, t, spots),
        vol=problem.vol + flat,
        rate=problem.rate + flat,
        per_contract=plan.per_contract + flat,
        cost=problem.cost + flat,
        last_hedge_ts=never,
        last_hedge_spot=np.full(spots.shape, math.nan),
    )


def _mean_tau(problem: Problem, t: float, spots: Array) -> Array:
    """Years to expiry as the hedger shows them: the legs' mean weighted by |quantity x gamma|. Shape: as spots."""
    live = np.array([row for row in problem.legs if row[3] > t and row[0] != 0.0]).reshape(-1, 4)
    if not len(live):
        return np.zeros_like(spots)
    cp, strike, quantity, tau = live.T
    if np.ptp(tau) == 0.0:
        return np.full(spots.shape, tau[0] - t)
    greeks = black.bsm(
        spots[:, None], strike, tau - t, problem.vol, rate=problem.rate, dividend=problem.dividend, cp=cp
    )
    share = np.abs(quantity * greeks.gamma)
    total = share.sum(axis=1)
    flat = float(np.average(tau - t, weights=np.abs(quantity)))
    known = total > 0.0
    return np.where(known, share @ (tau - t) / np.where(known, total, 1.0), flat)


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
