"""Scores on the lattice: two ways agree, grids agree, the compiled twin agrees, and what cannot be scored is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.core.ports import HedgePolicy
from bot.domain.units import NS_PER_YEAR
from bot.lab import scenarios, scorer
from bot.lab.problem import Problem
from bot.lab.scorer import prepared
from bot.pricing import black, exact, exact_score
from strategies.policies.almgren_li_speed import AlmgrenLiSpeed
from strategies.policies.exact_band import ExactBand, problem_of_plan
from strategies.policies.fixed_fee_band import FixedFeeBand
from strategies.policies.guarded_band import GuardedBand, rule_of
from strategies.policies.move_band import MoveBand
from strategies.policies.no_hedge import NoHedge

Array = NDArray[np.float64]
CALL: dict[str, Any] = {"legs": [(1, 100, -1)]}
TWO: dict[str, Any] = {"legs": [(1, 100, -1), (-1, 96, -1, 0.11), (1, 104, 1, 0.2)]}


def book(**changes: Any) -> exact.Problem:
    return exact.problem_of(
        **({"spot": 100.0, "vol": 0.2, "tau": 0.25, "dates": 24, "cost": 0.002, "risk_aversion": 1.0} | changes)
    )


def band_rule(problem: exact.Problem, half: float, *, centre: bool) -> exact_score.RuleOf:
    def rule(date: int, spots: Array) -> exact.Rule:
        hedge, gamma = exact.hedge_greeks(problem, date, spots)
        width = half * np.cbrt(spots * gamma**2)
        return hedge - width, hedge + width, hedge if centre else None

    return rule


@pytest.mark.parametrize("changes", [CALL, TWO, TWO | {"rate": 0.04, "dividend": 0.02, "fixed_cost": 0.01}])
@pytest.mark.parametrize("every", [1, 3, 5, 24])
def test_from_hedge_to_hedge_is_the_way_over_holdings(changes: dict[str, Any], every: int) -> None:
    """A rule of exact hedges scored over log prices alone has the score of prices x holdings."""
    problem = book(**(changes | {"risk_aversion": 0.2}))
    rule = exact.interval_rule(problem, every)
    fast = exact_score.evaluate(problem, rule)
    slow = exact_score._over_holdings(problem, rule, exact.delta_range(problem), per_step=5, columns=300, steps=None)
    tolerance = 3e-4 if problem.fixed_cost == 0.0 else 2e-2  # an edge with a fee: see the docs
    assert fast == pytest.approx(slow, abs=tolerance)


@pytest.mark.parametrize("changes", [CALL, TWO])
@pytest.mark.parametrize("half", [0.15, 0.4])
@pytest.mark.parametrize("centre", [False, True])
def test_grids_agree(changes: dict[str, Any], half: float, centre: bool) -> None:
    """Twice the rows and columns move a score by less than 4e-5, jumps and kinks included; with several expiries by 2e-3."""
    problem = book(**(changes | {"dates": 48}))
    rule = band_rule(problem, half, centre=centre)
    coarse = exact.evaluate(problem, rule)
    tolerance = 4e-5 if len(problem.legs) == 1 else 2e-3
    assert exact.evaluate(problem, rule, per_step=6, columns=800) == pytest.approx(coarse, abs=tolerance)


@pytest.mark.parametrize("changes", [{}, {"fixed_cost": 0.02}, {"lot": 0.05}, {"lot": 0.1, "fixed_cost": 0.05}])
@pytest.mark.parametrize("centre", [False, True])
def test_compiled_equals_readable(changes: dict[str, Any], centre: bool) -> None:
    """The compiled decision of a rule gives what the readable one gives."""
    problem = book(**(CALL | {"dates": 6} | changes))
    rule = band_rule(problem, 0.2, centre=centre)
    fast = exact_score.evaluate(problem, rule, columns=40, per_step=3)
    slow = exact_score.evaluate(problem, rule, columns=40, per_step=3, steps=exact.READABLE)
    assert fast == pytest.approx(slow, rel=1e-9)


def test_compiled_greeks_are_those_of_the_formula() -> None:
    """Hedge and gamma of a book on many prices are those of `bsm`, with rate and yield, before and after an expiry."""
    problem = book(legs=[(1, 100, -1), (-1, 95, 2, 0.1), (0, 0, 0.5)], rate=0.05, dividend=0.03, dates=252)
    spots = np.exp(np.linspace(3.0, 6.0, 301))
    for date in (0, 50, 101, 251):
        fast = exact.hedge_greeks(problem, date, spots)
        slow = exact.hedge_greeks(problem, date, spots, vol=np.full(spots.shape, 0.2))
        for one, other in zip(fast, slow, strict=True):
            assert one == pytest.approx(other, abs=1e-13)


def test_scores_under_a_ticket_fee_stay_sane() -> None:
    """With many dates, a fee and targets next to nothing held, a score stays between the optimum and a fee a date more."""
    problem = book(**(CALL | {"dates": 252, "cost": 1e-4, "risk_aversion": 0.1, "fixed_cost": 0.1}))
    value = exact.evaluate(problem, band_rule(problem, 0.15, centre=True))
    least = exact.solve_problem(problem).price
    assert least < value < least + 253 * 0.1


def test_edges_in_lots_are_the_floats_that_name_them() -> None:
    """Who holds the lot on an edge holds it: a band in lots sends no order a lot too far for a last bit."""
    problem = Problem(legs=((1, 100.0, -1.0),), spot=100.0, vol=0.2, cost=0.002, dates=12, risk_aversion=1.0, tau=0.25)
    problem = problem.but(lot=0.05)
    solution = prepared(ExactBand(risk_aversion=1.0, dates=12), problem).solution  # type: ignore[attr-defined]  # known
    assert solution.lots
    edges = np.unique(np.concatenate([solution.low.ravel(), solution.high.ravel()]))
    assert set(edges.tolist()) <= {round(0.05 * k, 2) for k in range(-1, 22)}


def test_policies_with_memory_are_refused_and_pairs_are_kept() -> None:
    """A rule that looks at its last hedge or at its holding is refused by name; one that trades to a pair is scored."""
    problem = Problem(legs=((1, 100.0, -1.0),), spot=100.0, vol=0.2, cost=0.002, dates=12, risk_aversion=1.0, tau=0.25)
    plan = problem.plan()
    solved = problem_of_plan(plan, risk_aversion=1.0, dates=12, fixed_cost=0.05)
    assert solved is not None
    refused: list[HedgePolicy] = [
        MoveBand(pct=1.0),
        AlmgrenLiSpeed(impact=1.0, risk_aversion=1.0, interval=problem.step),
    ]
    for policy in refused:
        with pytest.raises(ValueError, match="depends on"):
            exact.evaluate(solved, rule_of(policy, plan, solved))
    rule = rule_of(FixedFeeBand(fee=0.05, risk_aversion=1.0), plan, solved)
    lo, hi, to = rule(3, np.array([100.0]))
    assert float(lo[0]) < float(to[0][0]) < float(to[1][0]) < float(hi[0])
    value = exact.evaluate(solved, rule)
    assert value > exact.solve_problem(solved).price
    drawn = scenarios.of_problem(problem.but(fixed_cost=0.05), n_paths=16_384, seed=3)
    losses = scorer.run([FixedFeeBand(fee=0.05, risk_aversion=1.0)], problem.but(fixed_cost=0.05), drawn).loss(0)
    weights = np.exp(losses - value)
    assert abs(float(weights.mean()) - 1.0) <= 4.0 * float(weights.std()) / math.sqrt(len(weights))


def test_a_guard_that_rests_is_still_woken() -> None:
    """Where no hedge is best, the clock goes on at the dates, so that another book or vol is looked at."""
    problem = Problem(legs=((1, 100.0, -1.0),), spot=100.0, vol=0.2, cost=0.2, dates=12, risk_aversion=1e-4, tau=0.25)
    chosen = GuardedBand(risk_aversion=1e-4, dates=12, candidates=[NoHedge()]).prepared(problem.plan())
    none = [s for s in GuardedBand(risk_aversion=1e-4, dates=12).scores(problem.plan()) if s.name == "none"]
    assert none[0].policy.interval == pytest.approx(problem.horizon / 12 * NS_PER_YEAR, abs=2)  # type: ignore[attr-defined]  # rests
    assert chosen.name == "none"


def test_what_the_cut_rules_is_said() -> None:
    """A price ruled by where the normal distribution is cut says so; a usual one does not."""
    assert not exact.solve_problem(book(**CALL, risk_aversion=1.0)).ruled_by_cut
    assert exact.solve_problem(book(**CALL, risk_aversion=100.0)).ruled_by_cut


def test_daily_hedging_to_six_digits() -> None:
    """Daily Black-Scholes at 20 basis points and g = 1 is 4.84397 whichever rows it is scored on."""
    problem = book(legs=[(1, 100, -1)], dates=252)
    for per_step in (4, 8):
        assert exact.evaluate(problem, exact.interval_rule(problem, 4), per_step=per_step) == pytest.approx(
            4.843974, abs=1e-5
        )
    assert float(black.bsm(100.0, 100.0, 0.25, 0.2).price) < 4.843974


def test_a_narrow_steep_band_never_turns_over() -> None:
    """Between two rows of the table the lower edge stays below the upper, and targets inside, near expiry too."""
    strikes = (0.5398995310977913, 0.5475163297692548, 0.6182889574913085, 0.8390223789810465, 0.8525400505095626)
    calls = (1.0602047046514798, 1.4297767095547291, 1.885242099722483)
    legs = [(-1, k, q) for k, q in zip(strikes, (-2.0, -3.0, 3.0, -1.0, -2.0), strict=True)] + [
        (1, k, -3.0) for k in calls
    ]
    found = exact.solve(
        legs, spot=1.0, vol=0.5711393394352615, tau=0.596732064717338, cost=0.0009907230660332889,
        risk_aversion=79.3419918541787, dates=252,
    )  # fmt: skip
    spots = np.exp(np.linspace(-2.5, 2.5, 4001))
    turned = 0
    for date in (0, 100, 240, *range(246, 252)):
        lo, hi = found.band(date, spots)
        up, down = found.targets(date, spots)
        assert np.all(lo <= hi)
        assert np.all((lo <= up) & (up <= hi) & (lo <= down) & (down <= hi))
        place = found.place(spots, 0.0)
        raw = [exact._between_rows(table, np.asarray(date), place, nearest=False) for table in (found.low, found.high)]
        turned += int(np.sum(raw[0] > raw[1]))
    assert turned > 0  # the case is one in which the plain cubics do turn over
