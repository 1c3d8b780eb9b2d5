"""Frontiers, tuning and robustness: tuned on one stream, judged on another, all paired."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bot.core.ports import HedgePolicy
from bot.lab.frontier import band_picture, efficient, frontier, robustness, standard_worlds, tune
from bot.lab.problem import Problem
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.no_hedge import NoHedge
from strategies.policies.zakamouline import Zakamouline

CALL = Problem(legs=((1, 100.0, -1.0),), spot=100.0, vol=0.2, cost=0.002, dates=63, risk_aversion=1.0, tau=0.25)


def band(half_width: float) -> HedgePolicy:
    """A delta band to its edge."""
    return DeltaBand(half_width=half_width)


def every(dates: float) -> HedgePolicy:
    """A fixed interval in dates."""
    return FixedInterval(interval=round(dates) * CALL.step)


def test_a_wider_band_costs_less_and_risks_more() -> None:
    """Along a family cost falls, and from some width on risk rises; a band beats intervals on the frontier."""
    found = frontier(
        {"band": band, "every": every},
        {"band": [0.02, 0.05, 0.1, 0.2], "every": [1, 2, 4, 8]},
        CALL, seed=3, n_paths=8192, optimum=4.5947,
    )  # fmt: skip
    widths = found.of("band")
    assert [p.parameter for p in widths] == [0.02, 0.05, 0.1, 0.2]
    costs = [p.score.mean_cost for p in widths]
    assert costs == sorted(costs, reverse=True)
    assert widths[-1].score.std > widths[0].score.std
    assert any(p.efficient for p in widths)
    assert (found.purpose, found.n_paths) == ("tune", 8192)
    assert found.daily.gap == pytest.approx(0.0)


def test_tuning_is_judged_on_paths_it_never_saw() -> None:
    """The best parameter by tuning paths is scored on others, and the flattery is the difference of the two."""
    found = tune(band, [0.02, 0.05, 0.08, 0.2], CALL, seed=5, n_paths=4096)
    assert found.parameter in {0.05, 0.08}
    assert not found.at_edge
    assert found.tuning.ce is not None
    assert found.scoring.ce is not None
    assert found.flattery == pytest.approx(found.scoring.ce - found.tuning.ce)
    assert found.tuning.ce != found.scoring.ce
    assert tune(band, [0.05, 0.2], CALL, seed=5, n_paths=512).at_edge


def test_tuning_by_tolerance_needs_no_aversion() -> None:
    """Mean loss + std / tolerance: one who tolerates more hedges less; without an aversion `ce` is refused."""
    problem = CALL.but(risk_aversion=None)
    widths = [0.0, 0.02, 0.1, 0.3]
    calm = tune(band, widths, problem, seed=1, n_paths=2048, objective="cost_and_risk", per_std=0.1)
    bold = tune(band, widths, problem, seed=1, n_paths=2048, objective="cost_and_risk", per_std=10.0)
    assert calm.parameter < bold.parameter
    with pytest.raises(ValueError, match="risk aversion"):
        tune(band, widths, problem, seed=1, n_paths=64)


def test_robustness_asks_every_world() -> None:
    """Five worlds of one variance or another, each with its own yardstick and every policy; jumps fatten the tail."""
    worlds = standard_worlds(CALL, n_paths=4096, seed=2)
    found = robustness([DeltaBand(half_width=0.05), NoHedge()], CALL, worlds)
    assert set(found.worlds) == {"as believed", "vol lower", "vol higher", "jumps", "vol moves"}
    line = found.line("delta band 0.05 to edge")
    assert line["vol higher"].mean_loss > line["as believed"].mean_loss > line["vol lower"].mean_loss
    assert line["jumps"].cvar99 > line["as believed"].cvar99
    assert all(drawn.martingale for drawn in worlds.values())


def test_a_picture_shows_the_band_over_time_and_spot() -> None:
    """The band lies round the hedge; a rule of its own delta round that; no bound is None."""
    spots = [90.0, 100.0, 110.0]
    found = band_picture(DeltaBand(half_width=0.1), CALL, spots=spots, dates=[0, 30])
    assert found.times == (0.0, pytest.approx(30 / 63 * 0.25))
    np.testing.assert_allclose(np.array(found.hi, dtype=float) - np.array(found.lo, dtype=float), 0.2)
    np.testing.assert_allclose(found.want[0][1], 0.519939, atol=1e-6)
    own = band_picture(Zakamouline(risk_aversion=1.0), CALL, spots=spots, dates=[0])
    assert own.want[0][0] > found.want[0][0]
    assert band_picture(NoHedge(), CALL, spots=spots, dates=[0]).lo == ((None, None, None),)


def test_efficient_points_are_beaten_by_none() -> None:
    """A point equal to another stays; one beaten in one number and equalled in the other goes."""
    assert efficient([(1.0, 1.0), (1.0, 1.0), (1.0, 2.0), (0.5, math.inf)]) == [True, True, False, True]
