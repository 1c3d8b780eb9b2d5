"""Properties of the scorer: on any book, cost and band it equals the plain loop and keeps the identities of hedging."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.lab import scenarios, scorer
from bot.lab.plain import score_one
from bot.lab.problem import Leg, Problem
from bot.lab.score import certainty, tail_mean
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.no_hedge import NoHedge
from strategies.policies.whalley_wilmott import WhalleyWilmott

LEGS = st.builds(
    Leg,
    cp=st.sampled_from([1, -1]),
    strike=st.floats(50.0, 150.0),
    quantity=st.floats(-3.0, 3.0).filter(lambda q: abs(q) > 1e-3),
    tau=st.one_of(st.none(), st.floats(0.02, 0.25)),
    vol=st.one_of(st.none(), st.floats(0.1, 0.6)),
)
PROBLEMS = st.builds(
    Problem,
    legs=st.lists(LEGS, min_size=1, max_size=4).map(tuple),
    spot=st.just(100.0),
    vol=st.floats(0.05, 0.8),
    cost=st.floats(0.0, 0.05),
    dates=st.integers(1, 12),
    tau=st.just(0.25),
    rate=st.sampled_from([0.0, 0.05, -0.02]),
    fixed_cost=st.sampled_from([0.0, 0.1]),
    lot=st.sampled_from([0.0, 0.05, 0.3]),
    charge_open=st.booleans(),
    charge_close=st.booleans(),
)


@given(problem=PROBLEMS, width=st.floats(0.0, 0.5), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_scorer_equals_the_plain_loop_on_any_book(problem: Problem, width: float, seed: int) -> None:
    """Losses agree to 1e-12 of the book's notional."""
    policies = {
        "edge": DeltaBand(half_width=width),
        "centre": DeltaBand(half_width=width, to="centre"),
        "width": WhalleyWilmott(risk_aversion=0.5),
    }
    paths = scenarios.of_problem(problem, n_paths=2, seed=seed).paths
    losses = scorer.run(policies, problem, scenarios.given(paths, times=problem.times()))
    notional = 100.0 * max(1.0, sum(abs(row.quantity) for row in problem.rows()))
    for j, policy in enumerate(policies.values()):
        for k, path in enumerate(paths):
            assert losses.loss(j)[k] == pytest.approx(score_one(policy, problem, path).loss, abs=1e-12 * notional)


@given(problem=PROBLEMS, seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_costs_are_linear_and_nothing_costs_nothing(problem: Problem, seed: int) -> None:
    """Twice the cost is twice the costs of a rule that does not look at them; who never trades pays none."""
    free = problem.but(fixed_cost=0.0)
    drawn = scenarios.of_problem(problem, n_paths=3, seed=seed)
    policies = {"each": FixedInterval(interval=problem.step), "none": NoHedge()}
    once, twice = scorer.run(policies, free, drawn), scorer.run(policies, free.but(cost=2.0 * free.cost), drawn)
    np.testing.assert_allclose(twice.outcomes[0].costs, 2.0 * once.outcomes[0].costs, rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(twice.outcomes[0].gains, once.outcomes[0].gains)
    np.testing.assert_array_equal(once.loss(1), once.common.payoff)


@given(
    values=st.lists(st.floats(-50.0, 50.0), min_size=2, max_size=40),
    g=st.floats(0.01, 10.0),
    shift=st.floats(-9.0, 9.0),
)
def test_certainty_equivalents_are_monotone_and_translate(values: list[float], g: float, shift: float) -> None:
    """Between mean and maximum, larger for the more averse, and moved by what every loss is moved by."""
    loss = np.array(values)
    found = certainty(loss, g).value
    assert loss.mean() - 1e-9 <= found <= loss.max() + 1e-9
    assert certainty(loss, 2.0 * g).value >= found - 1e-9
    assert certainty(loss + shift, g).value == pytest.approx(found + shift, abs=1e-9)


@given(values=st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=60), share=st.floats(0.01, 0.9))
def test_cvar_is_between_quantile_and_maximum(values: list[float], share: float) -> None:
    """The mean of the worst is at least the mean, at most the largest, and falls as the share grows."""
    ordered = np.sort(np.array(values))
    found = tail_mean(ordered, share)
    assert ordered.mean() - 1e-9 <= found <= ordered[-1] + 1e-9
    assert tail_mean(ordered, min(0.95, share * 1.05)) <= found + 1e-9
