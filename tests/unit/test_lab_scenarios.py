"""Scenarios and problems: seeded, kept apart by purpose, and refused when they make no sense."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from bot.domain.units import NS_PER_YEAR
from bot.lab import scenarios
from bot.lab.problem import Leg, Problem
from bot.lab.scenarios import BLOCK, Purpose, Scenarios, score_times
from bot.pricing import paths

AT = score_times(tau=0.25, dates=5)
CALL = Problem(legs=((1, 100.0, -1.0),), spot=100.0, vol=0.2, cost=0.002, dates=20, risk_aversion=1.0, tau=0.25)
MERTON: dict[str, Any] = {"intensity": 5.0, "jump_mean": -0.02, "jump_std": 0.05}
HESTON: dict[str, Any] = {"reversion": 3.0, "mean_variance": 0.04, "vol_of_vol": 0.5, "correlation": -0.7}
RETURNS = 0.03 * np.random.default_rng(1).standard_t(4, 400)


def makers(n_paths: int, seed: int = 7, purpose: Purpose = "score") -> list[Scenarios]:
    """One of each kind."""
    common: dict[str, Any] = {"spot": 100.0, "times": AT, "n_paths": n_paths, "seed": seed, "purpose": purpose}
    return [
        scenarios.gbm(vol=0.2, **common),
        scenarios.merton(vol=0.2, **MERTON, **common),
        scenarios.heston(variance=0.04, **HESTON, substeps=2, **common),
        scenarios.bates(variance=0.04, **HESTON, **MERTON, **common),
        scenarios.block_bootstrap(RETURNS, mean_block=3.0, **common),
        scenarios.drawn(
            paths.gbm, times=AT, n_paths=n_paths, seed=seed, purpose=purpose, spot=100.0, vol=0.2, martingale=True
        ),
    ]


def test_paths_depend_on_their_number_alone() -> None:
    """A longer run begins with a shorter one, a block is the same at every call, kept or drawn."""
    for few, many in zip(makers(3), makers(BLOCK + 3), strict=True):
        assert many.n_blocks == 2
        assert few.paths.tobytes() == many.paths[:3].tobytes()
        assert many.block(1).tobytes() == many.kept().block(1).tobytes()
        assert many.paths.shape == (BLOCK + 3, 6)
        assert (many.paths[:, 0] == 100.0).all()


def test_purposes_and_seeds_draw_apart() -> None:
    """Tuning, scoring and another seed share no path; blocks of a few recorded returns meet by chance now and then."""
    for a, b, c in zip(makers(50), makers(50, purpose="tune"), makers(50, seed=8), strict=True):
        chance = 0.2 if a.name.startswith("blocks") else 0.0
        assert np.isin(a.paths[:, -1], b.paths[:, -1]).mean() <= chance
        assert np.isin(a.paths[:, -1], c.paths[:, -1]).mean() <= chance


def test_all_worlds_are_martingales() -> None:
    """The mean of the last price is the first, within four standard errors."""
    for drawn in makers(2 * BLOCK):
        last = drawn.paths[:, -1]
        assert drawn.martingale or drawn.name.startswith("blocks")
        assert abs(last.mean() - 100.0) < 4.0 * last.std() / math.sqrt(len(last))


def test_given_paths_are_used_as_they_are() -> None:
    """Recorded paths come back by block; prices that are not positive, or other dates, are refused."""
    mine = np.array([[100.0, 101.0], [100.0, 99.0]])
    drawn = scenarios.given(mine, times=[0.0, 0.1])
    assert drawn.paths.tolist() == mine.tolist()
    with pytest.raises(ValueError, match="positive"):
        scenarios.given([[100.0, -1.0]], times=[0.0, 0.1])
    with pytest.raises(ValueError, match="dates"):
        scenarios.given(mine, times=[0.0, 0.1, 0.2])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": -1}, "seed"),
        ({"n_paths": 0}, "n_paths"),
        ({"purpose": "guess"}, "purpose"),
        ({"times": [0.0, 0.2, 0.1]}, "times"),
        ({"times": [0.1, 0.2]}, "times"),
    ],
)
def test_bad_scenarios_are_refused(change: dict[str, Any], match: str) -> None:
    """The argument at fault is named."""
    good: dict[str, Any] = {"spot": 100.0, "vol": 0.2, "times": AT, "n_paths": 5, "seed": 1}
    with pytest.raises(ValueError, match=match):
        scenarios.gbm(**(good | change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"legs": ()}, "legs"),
        ({"legs": ((2, 100.0, 1.0),)}, "cp"),
        ({"legs": ((1, -100.0, 1.0),)}, "strike"),
        ({"legs": ((1, 100.0, math.nan),)}, "quantity"),
        ({"legs": ((1, 100.0, 1.0, 0.5),)}, "beyond the horizon"),
        ({"tau": None}, "tau"),
        ({"spot": 0.0}, "spot"),
        ({"vol": math.inf}, "vol"),
        ({"cost": -0.1}, "cost"),
        ({"lot": -1.0}, "lot"),
        ({"dates": 0}, "dates"),
        ({"risk_aversion": 0.0}, "risk_aversion"),
        ({"every": 0}, "every"),
        ({"rate": math.nan}, "rate"),
    ],
)
def test_bad_problems_are_refused(change: dict[str, Any], match: str) -> None:
    """The field at fault is named."""
    with pytest.raises(ValueError, match=match):
        CALL.but(**change)


def test_like_legs_add_up_and_ends_fall_on_dates() -> None:
    """Legs of one contract are one row, one that is flat none, an end goes to its nearest date."""
    problem = CALL.but(
        legs=((1, 100.0, -1.0), (1, 100.0, -1.0, 0.25), (-1, 90.0, 2.0), (-1, 90.0, -2.0), (1, 90.0, 1.0, 0.1))
    )
    early, late = problem.rows()
    assert (early.cp, early.strike, early.quantity, early.date) == (1.0, 90.0, 1.0, 8)
    assert (late.cp, late.strike, late.quantity, late.date) == (1.0, 100.0, -2.0, 20)
    assert problem.plan(date=8).tau == ((20 - 8) * problem.step / NS_PER_YEAR,)


def test_the_horizon_is_the_last_legs() -> None:
    """Without a tau of its own the problem ends with its last leg; daily is every fourth of 252 dates in a quarter."""
    problem = CALL.but(legs=((1, 100.0, -1.0, 0.25), (1, 90.0, 1.0, 0.1)), tau=None, dates=252)
    assert problem.horizon == 0.25
    assert problem.daily_every == 4
    assert CALL.daily_every == 1
    assert problem.but(every=9).daily_every == 9


def test_a_problem_survives_a_file() -> None:
    """Encoded and decoded it is the same problem."""
    problem = CALL.but(legs=(Leg(1, 100.0, -1.0, None, 0.3), (1, 90.0, 1.0, 0.1)))
    assert msgspec.convert(msgspec.to_builtins(problem), Problem) == problem
