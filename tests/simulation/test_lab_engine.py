"""The event engine's P&L equals the scorer's on the same paths: what is scored is what trades."""

from __future__ import annotations

import pytest

from bot.core.ports import HedgePolicy
from bot.lab import engine_runs, scenarios
from bot.lab.engine_runs import as_settled, compare_with_scorer, engine_gap, engine_path
from bot.lab.plain import score_one
from bot.lab.problem import Leg, Problem
from strategies.policies.delta_band import DeltaBand
from strategies.policies.exact_band import ExactBand, solve
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.leland_delta import LelandDelta
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline

CALL = Problem(legs=((1, 100.0, -1.0),), spot=100.0, vol=0.2, cost=0.002, dates=40, risk_aversion=1.0, tau=0.25)
BOOK = CALL.but(legs=((1, 100.0, -1.0), (1, 105.0, 1.0, 0.1), (-1, 95.0, -2.0), Leg(-1, 90.0, 0.5, None, 0.25)))
SMALL = CALL.but(spot=1.0, legs=((-1, 1.0, -3.0),), risk_aversion=100.0, vol=0.6)


def policies(problem: Problem, *, scale: float = 1.0) -> dict[str, HedgePolicy]:
    """Policies of every kind; `scale` is the size of the book."""
    g = problem.risk_aversion or 1.0
    return {
        "none": NoHedge(),
        "static": StaticHedge(),
        "each": FixedInterval(interval=problem.step),
        "fourth": FixedInterval(interval=4 * problem.step),
        "edge": DeltaBand(half_width=0.05 * scale),
        "centre": DeltaBand(half_width=0.08 * scale, to="centre"),
        "Whalley-Wilmott": WhalleyWilmott(risk_aversion=g / scale),
        "Whalley-Wilmott to centre": WhalleyWilmott(risk_aversion=0.01 * g / scale, to="centre"),
        "Zakamouline": Zakamouline(risk_aversion=g / scale),
        "Leland": LelandDelta(interval=2 * problem.step),
    }


@pytest.mark.parametrize(
    "problem",
    [CALL, BOOK, BOOK.but(lot=0.05), CALL.but(fixed_cost=0.02), BOOK.but(charge_close=False), SMALL],
    ids=["call", "book of two expiries", "lots", "ticket", "left open", "puts at 1"],
)
def test_engine_equals_scorer(problem: Problem) -> None:
    """Every policy's loss by orders and fills is the scorer's, to 1e-9 of notional, on each path."""
    drawn = scenarios.of_problem(problem, n_paths=6, seed=21)
    for found in compare_with_scorer(policies(problem), problem, drawn):
        assert found.largest <= 1e-9, found.name


def test_engine_equals_scorer_with_commissions_in_basis_points() -> None:
    """On a book of a hundred million, where cents are below 1e-9, commissions give the spread's P&L."""
    scale = 1e8
    problem = CALL.but(legs=((1, 100.0, -scale),))
    drawn = scenarios.of_problem(problem, n_paths=3, seed=22)
    for found in compare_with_scorer(policies(problem, scale=scale), problem, drawn, cost_as="commission"):
        assert found.largest <= 1e-9, found.name


def test_engine_equals_scorer_on_jumps() -> None:
    """Jumps change nothing: no path is too wild for the equality."""
    drawn = scenarios.merton(
        spot=100.0, vol=0.2, times=CALL.times(), n_paths=4, seed=5, intensity=20.0, jump_mean=-0.1, jump_std=0.2
    )
    for found in compare_with_scorer(policies(CALL), CALL, drawn):
        assert found.largest <= 1e-9, found.name


def test_parts_of_the_engine_are_those_of_the_plain_loop() -> None:
    """Payoff, gains, costs, trades and turnover agree one by one."""
    path = scenarios.of_problem(BOOK, n_paths=1, seed=4).paths[0]
    for policy in policies(BOOK).values():
        engine, plain = engine_path(policy, BOOK, path), score_one(policy, as_settled(BOOK), path)
        assert engine.payoff == pytest.approx(plain.payoff, abs=1e-10)
        assert engine.gains == pytest.approx(plain.gains, abs=1e-10)
        assert engine.costs == pytest.approx(plain.costs, abs=1e-10)
        assert engine.turnover == pytest.approx(plain.turnover, rel=1e-10)
        assert engine.trades == plain.trades


def test_what_the_engine_cannot_hold_is_refused() -> None:
    """A rate, a free opening trade and a ticket in fractions of a cent are refused by name."""
    path = scenarios.of_problem(CALL, n_paths=1, seed=4).paths[0]
    for bad, match in (
        (CALL.but(rate=0.03), "rate"),
        (CALL.but(charge_open=False), "charge_open"),
        (CALL.but(fixed_cost=0.001), "fixed_cost"),
    ):
        with pytest.raises(ValueError, match=match):
            engine_path(NoHedge(), bad, path)


def test_engine_gap_is_the_scorers_with_its_error() -> None:
    """A policy's gap through the engine is the scorer's on many paths, and both come with a paired error."""
    policy = DeltaBand(half_width=0.05)
    found = engine_gap(policy, CALL, optimum=4.60, seed=77, engine_paths=12, scorer_paths=16_384)
    assert found.largest <= 1e-9
    assert found.gap == pytest.approx(found.scorer_gap, abs=1e-6)
    assert 0.0 < found.gap_se < 5.0
    other = engine_gap(policy, CALL, optimum=4.60, seed=78, engine_paths=2, scorer_paths=16_384)
    assert other.gap != found.gap
    assert abs(other.gap - found.gap) < 4.0 * (found.gap_se + other.gap_se)


@pytest.mark.parametrize(
    "problem",
    [CALL, CALL.but(legs=((1, 95.0, -1.0), (1, 105.0, 1.0))), CALL.but(lot=0.05), CALL.but(fixed_cost=0.05)],
    ids=["call", "spread", "lots", "ticket"],
)
def test_the_exact_band_trades_as_it_is_scored(problem: Problem) -> None:
    """The optimum of the book, solved by the hedger at its first quote, gives the scorer's P&L to 1e-9 of notional."""
    drawn = scenarios.of_problem(problem, n_paths=5, seed=31)
    policy = ExactBand(risk_aversion=1.0, dates=problem.dates)
    (found,) = compare_with_scorer({"exact": policy}, problem, drawn)
    assert found.largest <= 1e-9


@pytest.mark.parametrize(
    "legs", [((1, 100.0, -1.0),), ((1, 95.0, -1.0), (1, 105.0, 1.0))], ids=["call", "written call spread"]
)
def test_the_exact_band_closes_the_gap_through_the_engine(legs: tuple[tuple[float, ...], ...]) -> None:
    """At 252 dates, 20 bp and g = 1 it closes 99% of the gap or more, two paired standard errors being 1% or less."""
    problem = CALL.but(legs=legs, dates=252)
    optimum = solve(legs, spot=100.0, vol=0.2, tau=0.25, cost=0.002, risk_aversion=1.0, dates=252).price
    found = engine_gap(ExactBand(risk_aversion=1.0), problem, optimum=optimum, seed=2024, engine_paths=10)
    assert found.largest <= 1e-9
    assert found.gap >= 99.0
    assert 2.0 * found.gap_se <= 1.0
    assert found.gap <= 100.0 + 3.0 * found.gap_se


def test_a_broker_of_ones_own_is_used() -> None:
    """A factory replaces the paper broker: a dearer one costs more."""
    path = scenarios.of_problem(CALL, n_paths=1, seed=4).paths[0]

    def dearer(problem: Problem) -> engine_runs.PaperBroker:
        return engine_runs.paper_broker(problem.but(cost=0.01), cost_as="commission")

    policy = FixedInterval(interval=CALL.step)
    ours = engine_path(policy, CALL, path, cost_as="commission")
    theirs = engine_path(policy, CALL, path, broker=dearer)
    assert theirs.costs == pytest.approx(5.0 * ours.costs, rel=0.02)
    assert theirs.gains == pytest.approx(ours.gains, abs=1e-10)
