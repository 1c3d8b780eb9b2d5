"""The scorer: equal to the plain loop, to itself on any number of threads, and to what is known without it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bot.core.ports import Band, BandInput, HedgePlan, HedgePolicy, LegInput
from bot.domain.units import NEVER
from bot.lab import kernels, scenarios, scorer
from bot.lab.plain import score_one
from bot.lab.problem import Leg, Problem
from bot.lab.score import DAILY, certainty, score, slopes, tail_mean
from bot.pricing import black
from strategies.policies.decide import decide
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.leland_delta import LelandDelta
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline

CALL = Problem(
    legs=((1, 100.0, -1.0),), spot=100.0, vol=0.2, cost=0.002, dates=20, risk_aversion=1.0, tau=20 / 252, every=4
)
BOOK = CALL.but(legs=((1, 100.0, -1.0), (1, 105.0, 1.0, 0.03), (-1, 95.0, -2.0), Leg(-1, 90.0, 0.5, None, 0.25)))


class OwnDelta:
    """A band round the delta at another vol: it shapes the delta of each leg."""

    name = "own delta"

    def band(self, x: BandInput) -> Band:
        """A fixed band."""
        return Band(x.want - 0.04, x.want + 0.04)

    def leg_deltas(self, x: LegInput) -> Any:
        """The delta at 1.3 times the vol."""
        return black.bsm(x.spot, x.strike, x.tau, 1.3 * np.asarray(x.vol), rate=x.rate, cp=x.cp).delta


class Remembers:
    """A band that widens with the time and the move since the last hedge: it needs both memories."""

    name = "remembers"

    def band(self, x: BandInput) -> Band:
        """Wider the longer ago, narrower the farther the price has gone."""
        ago = np.where(np.asarray(x.last_hedge_ts) == NEVER, 0.0, (x.now - np.asarray(x.last_hedge_ts)) / 1e15)
        moved = np.nan_to_num(np.abs(x.spot - np.asarray(x.last_hedge_spot)))
        h = 0.02 + 0.02 * ago / (1.0 + moved)
        return Band(x.want - h, x.want + h, x.want + 0.25 * h)


class Solved:
    """A rule that must be prepared: its band is as wide as the plan's cost says."""

    name = "solved"

    def __init__(self, width: float = math.nan) -> None:
        self.width = width

    def prepared(self, plan: HedgePlan) -> HedgePolicy:
        """The rule for a plan."""
        return Solved(plan.cost * 20.0 + plan.tau[0])

    def band(self, x: BandInput) -> Band:
        """Symmetric."""
        return Band(x.want - self.width, x.want + self.width)


POLICIES: dict[str, HedgePolicy] = {
    "none": NoHedge(),
    "static": StaticHedge(),
    "each": FixedInterval(interval=CALL.step),
    "fourth": FixedInterval(interval=4 * CALL.step),
    "edge": DeltaBand(half_width=0.05),
    "centre": DeltaBand(half_width=0.05, to="centre"),
    "own delta": OwnDelta(),
    "remembers": Remembers(),
    "solved": Solved(),
    "Whalley-Wilmott": WhalleyWilmott(risk_aversion=0.5),
    "to centre": WhalleyWilmott(risk_aversion=0.02, to="centre"),
    "Zakamouline": Zakamouline(risk_aversion=1.0),
    "Leland": LelandDelta(interval=2 * CALL.step),
}


@pytest.mark.parametrize(
    "problem",
    [
        CALL,
        BOOK,
        BOOK.but(lot=0.05),
        BOOK.but(lot=0.25, fixed_cost=0.02),
        CALL.but(fixed_cost=0.03, charge_open=False),
        BOOK.but(charge_close=False),
        BOOK.but(rate=0.04, threshold=0.01),
    ],
    ids=["call", "book", "lots", "wide lots", "ticket", "no close", "rate"],
)
def test_scorer_equals_the_plain_loop(problem: Problem) -> None:
    """Each path's loss, costs, trades and turnover are those of the loop that asks `decide` date by date."""
    drawn = scenarios.of_problem(problem, n_paths=12, seed=3)
    losses = scorer.run(POLICIES, problem, drawn)
    for j, policy in enumerate(POLICIES.values()):
        for k, path in enumerate(drawn.paths):
            one = score_one(policy, problem, path)
            outcome = losses.outcomes[j]
            assert losses.loss(j)[k] == pytest.approx(one.loss, abs=1e-12)
            assert outcome.costs[k] == pytest.approx(one.costs, abs=1e-12)
            assert outcome.trades[k] == one.trades
            assert outcome.turnover[k] == pytest.approx(one.turnover, rel=1e-12)


def test_workers_and_length_change_no_bit() -> None:
    """One worker and three give the same bits, and a longer run begins with the shorter one."""
    problem = CALL.but(dates=3)
    n = 2 * kernels.BLOCK + 5
    one = scorer.run(POLICIES, problem, scenarios.of_problem(problem, n_paths=n, seed=1))
    three = scorer.run(POLICIES, problem, scenarios.of_problem(problem, n_paths=n, seed=1), workers=3)
    short = scorer.run(POLICIES, problem, scenarios.of_problem(problem, n_paths=7, seed=1))
    for j in range(len(POLICIES)):
        assert one.loss(j).tobytes() == three.loss(j).tobytes()
        assert one.loss(j)[:7].tobytes() == short.loss(j).tobytes()


def test_rounding_is_that_of_decide() -> None:
    """Whole lots are chosen as `decide` chooses them, at exact multiples too."""
    from decimal import Decimal  # noqa: PLC0415  this test alone speaks of both

    rng = np.random.default_rng(2)
    for lot in (0.05, 0.1, 1.0, 0.25):
        for _ in range(2000):
            lo = round(float(rng.uniform(-2, 2)), int(rng.integers(1, 6)))
            hi = lo + float(rng.choice([0.0, 0.001, 0.02, 0.3]))
            held = float(Decimal(repr(lot)) * int(rng.integers(-30, 30)))
            if lo <= held <= hi and lo != hi:
                continue
            to = None if rng.random() < 0.6 else 0.5 * (lo + hi)
            expected = float(decide(Band(lo, hi, to), held, Decimal(repr(lot)), policy="x").quantity)
            ratio = map(float, Decimal(repr(lot)).as_integer_ratio())
            found = kernels.wanted_lots(lo, hi, 0.0 if to is None else to, to is not None, held, *ratio)
            assert found == expected, (lo, hi, to, held, lot)


def test_shared_greeks_are_those_of_the_formula() -> None:
    """The compiled leg gives the delta and gamma of `bsm`, at the kink and far from it."""
    spot = np.array([50.0, 99.9, 100.0, 100.1, 250.0])
    delta, unit, net, gamma, decay = np.zeros((5, len(spot)))
    for cp in (1.0, -1.0):
        net[:], gamma[:], decay[:] = 0.0, 0.0, 0.0
        kernels.add_leg(spot, 100.0, 0.1, 0.2, 0.03, cp, -2.0, delta, unit, net, gamma, decay)
        expected = black.bsm(spot, 100.0, 0.1, 0.2, rate=0.03, cp=cp)
        np.testing.assert_allclose(delta, expected.delta, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(net, -2.0 * expected.delta, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(unit, expected.gamma, rtol=1e-12, atol=1e-18)
        np.testing.assert_allclose(gamma, -2.0 * expected.gamma, rtol=1e-12, atol=1e-18)
        np.testing.assert_allclose(decay, 0.04 * gamma, rtol=1e-14, atol=0.0)


def test_a_perfect_forward_has_no_risk() -> None:
    """A long call and a written put of one strike are a forward: static hedging leaves no variance and known costs."""
    problem = CALL.but(legs=((1, 100.0, 1.0), (-1, 100.0, -1.0)), cost=0.001)
    table = score([StaticHedge()], problem, scenarios.of_problem(problem, n_paths=500, seed=9))
    row = table.row("static")
    drawn = scenarios.of_problem(problem, n_paths=500, seed=9).paths
    expected = 0.1 + float(np.mean(0.001 * drawn[:, -1]))
    assert row.mean_cost == pytest.approx(expected, abs=1e-12)
    assert row.mean_loss == pytest.approx(expected, abs=1e-12)
    assert row.trades == 2.0


def test_nan_bands_are_refused_by_name() -> None:
    """A policy that answers NaN is named, not scored."""
    with pytest.raises(ValueError, match=r"'solved'.*NaN"):
        scorer.run({"solved": _Unprepared()}, CALL, scenarios.of_problem(CALL, n_paths=3, seed=1))


class _Unprepared:
    name = "unprepared"

    def band(self, x: BandInput) -> Band:
        return Band(x.want + math.nan, x.want + math.nan)


def test_other_dates_are_refused() -> None:
    """Scenarios of other dates than the problem's are refused."""
    drawn = scenarios.of_problem(CALL.but(dates=10), n_paths=3, seed=1)
    with pytest.raises(ValueError, match="20 dates"):
        scorer.run(POLICIES, CALL, drawn)


def test_certainty_equivalent_of_a_normal_loss() -> None:
    """ln E exp(gL) / g of a normal loss is mean + g variance / 2, within three standard errors; controls shrink them."""
    rng = np.random.default_rng(5)
    z, noise = rng.standard_normal((2, 40_000))
    loss = 1.0 + 0.5 * z + 0.05 * noise
    expected = 1.0 + 0.5 * (0.25 + 0.0025)
    plain, controlled = certainty(loss, 1.0), certainty(loss, 1.0, [z, z * z - 1.0])
    assert abs(plain.value - expected) < 3.0 * plain.se
    assert abs(controlled.value - expected) < 3.0 * controlled.se
    assert controlled.se < 0.3 * plain.se


def test_a_certainty_equivalent_does_not_overflow() -> None:
    """Losses of thousands at g = 1 give a finite answer."""
    assert certainty(np.array([5000.0, 5000.0]), 1.0).value == 5000.0


def test_useless_controls_change_nothing() -> None:
    """Controls without variance, or said twice, are harmless."""
    x = np.array([1.0, 2.0, 4.0, 8.0])
    c = np.array([1.0, -1.0, 2.0, -2.0])
    assert slopes(x, [np.zeros(4)]).tolist() == [0.0]
    once, twice = slopes(x, [c]), slopes(x, [c, c])
    assert twice.sum() == pytest.approx(once[0])


def test_cvar_counts_the_edge_in_part() -> None:
    """The mean of the worst 15% of ten values is the largest and half the next."""
    assert tail_mean(np.arange(1.0, 11.0), 0.15) == pytest.approx((10.0 + 0.5 * 9.0) / 1.5)
    assert tail_mean(np.array([3.0]), 0.05) == pytest.approx(3.0)


def test_gap_is_0_for_daily_and_100_for_the_optimum() -> None:
    """The yardstick closes nothing, the policy named as the optimum everything, both without error."""
    drawn = scenarios.of_problem(CALL, n_paths=2000, seed=11)
    table = score([DeltaBand(half_width=0.05), NoHedge()], CALL, drawn, optimum="delta band 0.05 to edge")
    daily, best = table.row(DAILY), table.row("delta band 0.05 to edge")
    assert (daily.gap, best.gap) == (pytest.approx(0.0), pytest.approx(100.0))
    assert (daily.gap_se, best.gap_se) == (pytest.approx(0.0, abs=1e-9), pytest.approx(0.0, abs=1e-9))
    assert best.diff_se is not None
    assert best.ce_se is not None
    assert daily.ce_se is not None
    assert best.diff_se < math.hypot(best.ce_se, daily.ce_se)


def test_a_known_certainty_equivalent_is_taken_and_controls_the_rest() -> None:
    """The policy that is known has no error, and one that nearly equals it hardly any."""
    drawn = scenarios.of_problem(CALL, n_paths=8192, seed=4)
    a, b = DeltaBand(half_width=0.05), DeltaBand(half_width=0.0505)
    free = score([a, b], CALL, drawn)
    name = a.name
    ce = free.row(name).ce
    assert ce is not None
    tied = score([a, b], CALL, drawn, known={name: ce})
    assert tied.row(name).ce_se == 0.0
    assert (tied.row(b.name).ce_se or 1.0) < 0.2 * (free.row(b.name).ce_se or 0.0)


def test_martingale_controls_shrink_errors_without_moving_answers() -> None:
    """With them the standard error falls, and the answer stays within the plain one's error."""
    problem = CALL.but(risk_aversion=0.1)
    drawn = scenarios.of_problem(problem, n_paths=16_384, seed=8)
    policy = DeltaBand(half_width=0.05)
    plain = score([policy], problem, drawn).row(policy.name)
    tight = score([policy], problem, drawn, controls="martingale").row(policy.name)
    assert plain.ce is not None
    assert plain.ce_se is not None
    assert tight.ce is not None
    assert tight.ce_se is not None
    assert tight.ce_se < 0.5 * plain.ce_se
    assert abs(tight.ce - plain.ce) < 4.0 * plain.ce_se


def test_martingale_controls_need_a_martingale() -> None:
    """Paths with a drift are refused as a source of controls."""
    drawn = scenarios.gbm(spot=100.0, vol=0.2, times=CALL.times(), n_paths=5, seed=1, drift=0.1)
    with pytest.raises(ValueError, match="without a drift"):
        score([NoHedge()], CALL, drawn, controls="martingale")


def test_without_an_aversion_there_is_no_certainty_equivalent() -> None:
    """Costs and risks are given, a certainty equivalent and a gap are not."""
    problem = CALL.but(risk_aversion=None)
    row = score([NoHedge()], problem, scenarios.of_problem(problem, n_paths=5, seed=1)).row("none")
    assert row.ce is None
    assert row.gap is None
    assert row.std > 0.0


def test_names_must_differ() -> None:
    """Two policies of one name are refused unless a mapping tells them apart."""
    with pytest.raises(ValueError, match="twice"):
        scorer.named([NoHedge(), NoHedge()])
    assert list(scorer.named({"a": NoHedge(), "b": NoHedge()})) == ["a", "b"]
