"""The gap between daily hedging and the optimum, rule by rule, without noise, against what a reference program measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.pricing import exact

Array = NDArray[np.float64]
MakeRule = Callable[[exact.Problem], Callable[[int, Array], exact.Rule]]


def daily(problem: exact.Problem) -> Callable[[int, Array], exact.Rule]:
    return exact.interval_rule(problem, 4)


def whalley_wilmott(problem: exact.Problem, *, centre: bool = False) -> Callable[[int, Array], exact.Rule]:
    def rule(date: int, spots: Array) -> exact.Rule:
        hedge, gamma = exact.hedge_greeks(problem, date, spots)
        half = np.cbrt(1.5 * problem.cost * spots * gamma**2 / problem.risk_aversion)
        return hedge - half, hedge + half, hedge if centre else None

    return rule


def zakamouline(problem: exact.Problem) -> Callable[[int, Array], exact.Rule]:
    def rule(date: int, spots: Array) -> exact.Rule:
        lam, g, vol = problem.cost, problem.risk_aversion, problem.vol
        tau = problem.tau - date * problem.step
        _, gamma = exact.hedge_greeks(problem, date, spots)
        wider = 4.76 * lam**0.78 * tau**-0.02 * vol**-0.25 * (g * spots**2 * np.abs(gamma)) ** 0.15
        scale = np.sqrt(np.maximum(1.0 - np.sign(gamma) * wider, 1e-6))
        hedge, _ = exact.hedge_greeks(problem, date, spots, vol=vol * scale)
        half = 1.12 * lam**0.31 * tau**0.05 * vol**-0.25 * np.sqrt(np.abs(gamma) / g) + lam / (g * spots * vol**2 * tau)
        return hedge - half, hedge + half, None

    return rule


def yardstick(cost: float, g: float) -> exact.Problem:
    return exact.problem_of([(1, 100, -1)], spot=100.0, vol=0.2, tau=0.25, cost=cost, risk_aversion=g, dates=252)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (daily, 4.844378),
        (lambda problem: whalley_wilmott(problem, centre=True), 4.710994),
        (whalley_wilmott, 4.591816),
        (zakamouline, 4.569056),
        (lambda problem: exact.solve_problem(problem).rule, 4.551357),
    ],
    ids=["daily", "centre", "edge", "zakamouline", "optimum"],
)
def test_measured_certainty_equivalents(make: MakeRule, value: float) -> None:
    """At 20 basis points and g = 1 each rule's certainty equivalent is the measured one, within 1e-3."""
    problem = yardstick(0.002, 1.0)
    assert exact.evaluate(problem, make(problem), per_step=3) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(("cost", "g", "edge", "centre"), [(0.0005, 0.1, 93, 65), (0.002, 0.1, 91, 74)])
def test_measured_gaps(cost: float, g: float, edge: float, centre: float) -> None:
    """Whalley and Wilmott's band to its edge and to its centre closes the measured part of the gap, within a point."""
    problem = yardstick(cost, g)
    optimum = exact.solve_problem(problem).price
    zero = exact.evaluate(problem, daily(problem), per_step=2, columns=200)
    for is_centre, expected in ((False, edge), (True, centre)):
        value = exact.evaluate(problem, whalley_wilmott(problem, centre=is_centre), per_step=2, columns=200)
        assert exact.gap_closed(value, daily=zero, optimum=optimum) == pytest.approx(expected, abs=1.0)
