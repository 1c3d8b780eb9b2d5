"""The yardstick holds: measured gaps without noise, the engine's P&L for every policy kind, guards on books of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from benchmarks import yardstick
from bot.core.ports import BandInput, HedgePolicy
from bot.lab import scenarios, score, scorer
from bot.lab.engine_runs import compare_with_scorer
from bot.lab.problem import Problem
from bot.pricing import exact
from strategies.policies.almgren_li_speed import AlmgrenLiSpeed
from strategies.policies.bartlett_delta import BartlettDelta
from strategies.policies.callable_band import CallableBand
from strategies.policies.delta_band import DeltaBand
from strategies.policies.exact_band import ExactBand
from strategies.policies.fixed_fee_band import FixedFeeBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.guarded_band import GuardedBand
from strategies.policies.hoggard_whalley_wilmott import HoggardWhalleyWilmott
from strategies.policies.leland_delta import LelandDelta
from strategies.policies.min_var_delta import MinVarDelta
from strategies.policies.move_band import MoveBand
from strategies.policies.no_hedge import NoHedge
from strategies.policies.pin_guard import PinGuard
from strategies.policies.static_hedge import StaticHedge
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline

Floats = NDArray[np.float64]
Later = Callable[[Floats, Floats], Floats]

MEASURED = {
    "20bp-1": (8, 16, 0.05, 78, 46, 86, 94),
    "100bp-1": (16, 48, 0.1, 84, 54, 83, 94),
    "spread": (8, 17, 0.05, 55, 52, 84, 74),
}
"""Dates of the best fixed interval and its gap, width of the best delta band and its gap, then the gaps of Whalley-Wilmott to
centre and edge and of Zakamouline, as a reference program has them. The benchmark searches all parameters on all rows."""
LELAND = {"20bp-1": (8, 30), "100bp-1": (12, 68), "spread": (12, -11)}


@pytest.mark.parametrize("name", MEASURED)
def test_the_measured_gaps_come_out(name: str) -> None:
    """Rows of the measured table within its rounding and noise: a point for bands, two for intervals tuned on paths."""
    every, interval, half_width, band, centre, edge, zakamouline = MEASURED[name]
    net, leland = LELAND[name]
    problem = yardstick.row_problem(name)
    g, step, lattice = problem.risk_aversion or 1.0, problem.step, yardstick.Lattice(problem, columns=200)
    assert lattice.gap(FixedInterval(interval=every * step)) == pytest.approx(interval, abs=2.0)
    assert lattice.gap(HoggardWhalleyWilmott(interval=net * step)) == pytest.approx(leland, abs=1.5)
    assert lattice.gap(DeltaBand(half_width=half_width)) == pytest.approx(band, abs=1.0)
    to_centre = lattice.gap(WhalleyWilmott(risk_aversion=g, to="centre"))
    to_edge = lattice.gap(WhalleyWilmott(risk_aversion=g))
    assert to_centre == pytest.approx(centre, abs=1.0)
    assert to_edge == pytest.approx(edge, abs=1.0)
    assert lattice.gap(Zakamouline(risk_aversion=g)) == pytest.approx(zakamouline, abs=1.1)
    assert lattice.gap(ExactBand(risk_aversion=g, dates=problem.dates)) >= 99.9
    if name.endswith("-1"):
        assert to_edge - to_centre >= 10.0


BOOKS = {
    "legs, two expiries": Problem(
        legs=((1, 100.0, -1.0), (1, 105.0, 1.0, 0.1), (-1, 95.0, -2.0), (-1, 90.0, 0.5, 0.2)),
        spot=100.0, vol=0.2, cost=0.002, dates=30, risk_aversion=1.0, tau=0.25,
    ),
    "calendar at 5000, lots and a ticket": Problem(
        legs=((1, 5000.0, -1.0), (1, 5000.0, 1.0, 0.1)),
        spot=5000.0, vol=0.3, cost=0.0005, dates=24, risk_aversion=0.02, tau=0.3, lot=0.05, fixed_cost=0.25,
    ),
    "straddle at 1": Problem(
        legs=((1, 1.0, -1.0), (-1, 1.0, -1.0)), spot=1.0, vol=0.5, cost=0.01, dates=25, risk_aversion=60.0, tau=0.1
    ),
}  # fmt: skip


def every_kind(problem: Problem) -> dict[str, HedgePolicy]:
    """One policy of every kind that hedges with the underlying."""
    g = problem.risk_aversion or 1.0
    step = problem.step

    def wide(x: BandInput) -> tuple[object, object]:
        return x.want - 0.07, x.want + 0.07

    return {
        "none": NoHedge(),
        "static": StaticHedge(),
        "interval": FixedInterval(interval=3 * step),
        "edge": DeltaBand(half_width=0.05),
        "centre": DeltaBand(half_width=0.08, to="centre"),
        "move": MoveBand(pct=1.0),
        "deviations": MoveBand(deviations=1.0),
        "Leland": LelandDelta(interval=2 * step),
        "Hoggard": HoggardWhalleyWilmott(interval=2 * step),
        "Whalley-Wilmott": WhalleyWilmott(risk_aversion=g),
        "Zakamouline": Zakamouline(risk_aversion=g),
        "fee": FixedFeeBand(fee=0.001 * problem.spot, risk_aversion=g),
        "speed": AlmgrenLiSpeed(impact=1e-4 * problem.spot, risk_aversion=g, interval=step),
        "minimum variance": MinVarDelta(inner=WhalleyWilmott(risk_aversion=g), a=0.0, b=-0.1, c=0.1),
        "Bartlett": BartlettDelta(inner=DeltaBand(half_width=0.05), rho=-0.5, nu=0.8),
        "pin": PinGuard(inner=DeltaBand(half_width=0.05), within="20d", distance=0.02 * problem.spot),
        "callable": CallableBand(function=wide),
        "exact": ExactBand(risk_aversion=g, dates=problem.dates),
        "guarded": GuardedBand(risk_aversion=g, dates=problem.dates),
    }


@pytest.mark.parametrize("problem", BOOKS.values(), ids=BOOKS)
def test_the_engine_books_what_the_scorer_counts(problem: Problem) -> None:
    """Every policy kind's loss by orders and fills is the scorer's on the same path, to 1e-9 of notional."""
    drawn = scenarios.of_problem(problem, n_paths=4, seed=91)
    for found in compare_with_scorer(every_kind(problem), problem, drawn):
        assert found.largest <= 1e-9, found.name


@pytest.mark.parametrize("seed", [2, 17])
def test_the_guarded_band_is_never_below_its_guards(seed: int) -> None:
    """On books, costs and aversions drawn at random it closes 99% and is never below none, static and the best interval."""
    for found in yardstick.books_part(3, seed=seed):
        assert found["better"] >= -1e-3, found
        assert found["gap"] >= 99.0, found
        assert math.isfinite(found["gap"]), found


@pytest.mark.parametrize("name", ["5bp-0.1", "20bp-0.1", "20bp-1", "100bp-0.1", "100bp-1"])
def test_lots_of_a_twentieth_cost_little_and_spare_trades(name: str) -> None:
    """Where 0.05 is at most the opening band's half width, lots of it cost at most 5 points and leave 45% of the trades."""
    lattice = yardstick.Lattice(yardstick.row_problem(name))
    lo, hi = lattice.optimum.band(0, 100.0)
    assert (hi - lo) / 2.0 >= 0.05
    found = yardstick.lots(lattice, 0.05, seed=5, paths=8192)
    assert 0.0 <= found.points <= 5.0
    assert found.trades + 2.0 * found.trades_se <= 0.45
    assert abs(found.by_paths - found.points) <= 4.0 * found.se


@pytest.mark.parametrize(("name", "lot"), [("5bp-1", 0.0164), ("spread", 0.0097)])
def test_a_price_on_trades_spares_them_where_lots_alone_do_not(name: str, lot: float) -> None:
    """In the narrowest bands, lots of half the half width with a price put on a trade meet both figures."""
    found = yardstick.fewer_trades(yardstick.Lattice(yardstick.row_problem(name)), lot, seed=5, paths=8192)
    assert found.trades <= 0.45
    assert 0.0 < found.points <= 5.0


@pytest.mark.parametrize(("cost", "lot"), [(0.0005, 0.0327), (0.002, 0.05)])
def test_no_rule_in_lots_is_better(cost: float, lot: float) -> None:
    """The optimum in lots is worth what a plain search over all trades at all prices finds, to 5e-5."""
    problem = yardstick.row_problem("20bp-1").but(cost=cost, lot=lot)
    solution = scorer.prepared(ExactBand(risk_aversion=1.0), problem).solution  # type: ignore[attr-defined]  # an exact band
    assert solution.price == pytest.approx(searched(cost, lot), abs=5e-5)


def searched(cost: float, lot: float) -> float:
    """The price of a written call in whole lots: every trade looked at, Gauss-Hermite nodes, splines over log prices."""
    s, rows, width = 0.2 * math.sqrt(0.25 / 252), 2, 206
    x = np.arange(-width, width + 1) * (s / rows)
    S, y = 100.0 * np.exp(x), np.arange(math.ceil(1.0 / lot) + 1) * lot
    nodes, weights = np.polynomial.hermite_e.hermegauss(25)
    fine = np.linspace(-9.0, 9.0, 3601)
    density = np.exp(-0.5 * fine * fine)
    turn = cost * np.abs(y[:, None] - y)

    def mean(later: Later, z: Floats, w: Floats) -> Floats:
        G = np.empty((x.size, y.size))
        for at in range(0, x.size, 32):
            there = x[at : at + 32, None] + s * z - 0.5 * s * s
            moved = 100.0 * np.exp(there)
            loss = later(there, moved) - y * (moved - S[at : at + 32, None])[..., None]
            peak = loss.max(axis=1)
            G[at : at + 32] = peak + np.log(np.einsum("n,rny->ry", w / w.sum(), np.exp(loss - peak[:, None])))
        return G

    def paid(there: Floats, moved: Floats) -> Floats:
        return np.asarray(np.maximum(moved - 100.0, 0.0)[..., None] + cost * moved[..., None] * y)

    def carried(J: Floats) -> Later:
        curve = CubicSpline(x, J, axis=0)
        low, high = (J[1] - J[0]) / (S[1] - S[0]), (J[-1] - J[-2]) / (S[-1] - S[-2])

        def at(there: Floats, moved: Floats) -> Floats:
            inside = curve(np.clip(there, x[0], x[-1]))
            under = np.minimum(moved - S[0], 0.0)[..., None] * low
            return np.asarray(inside + under + np.maximum(moved - S[-1], 0.0)[..., None] * high)

        return at

    G = mean(paid, fine, density)
    for _ in range(251):
        G = mean(carried(np.min(G[:, None] + S[:, None, None] * turn, axis=2)), nodes, weights)
    return float(np.min(G[width] + 100.0 * turn[0]))


@pytest.mark.parametrize("name", ["20bp-1", "100bp-1"])
def test_a_ticket_fee_makes_the_centre_better(name: str) -> None:
    """The edge is better without a ticket fee, the centre with one of two cents, by ten standard errors either way."""
    problem = yardstick.row_problem(name)
    found = yardstick.fee_that_flips(problem, seed=8, paths=16_384)
    assert 0.0 < found.fee < 0.02
    assert found.fee > 10.0 * found.fee_se
    assert found.doubled > 10.0 * found.doubled_se


@pytest.mark.parametrize(("lot", "fee"), [(0.1, 0.1), (0.05, 0.05)])
def test_a_score_in_lots_with_a_ticket_fee_is_that_of_paths(lot: float, fee: float) -> None:
    """The optimum in lots with a ticket fee scores its own price on the lattice, and on paths."""
    problem = yardstick.row_problem("5bp-0.1").but(lot=lot, fixed_cost=fee)
    solution = scorer.prepared(ExactBand(risk_aversion=0.1), problem).solution  # type: ignore[attr-defined]  # an exact band
    scored = exact.evaluate(solution.problem, solution.rule)
    assert scored == pytest.approx(solution.price, abs=5e-4)
    losses = scorer.run([ExactBand(risk_aversion=0.1)], problem, scenarios.of_problem(problem, n_paths=16_384, seed=9))
    found = score.certainty(losses.loss(0), 0.1, yardstick.controls_of(losses, 0))
    assert abs(found.value - scored) <= 4.0 * found.se


def test_the_optimum_in_lots_is_worth_its_price() -> None:
    """Traded on paths, the exact band in lots comes to the price it was solved for, within four standard errors."""
    problem = yardstick.row_problem("20bp-1").but(dates=63, lot=0.05)
    drawn = scenarios.of_problem(problem, n_paths=32_768, seed=6)
    policy = ExactBand(risk_aversion=1.0, dates=63)
    solution = scorer.prepared(policy, problem).solution  # type: ignore[attr-defined]  # an exact band
    losses = scorer.run([policy], problem, drawn)
    weights = np.exp(losses.loss(0) - solution.price)
    assert abs(float(weights.mean()) - 1.0) <= 4.0 * float(weights.std()) / math.sqrt(drawn.n_paths)
