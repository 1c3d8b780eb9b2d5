"""Paths: a seed is a path, shapes, moments of each model, compiled against readable."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from bot.pricing import heston, paths

HESTON: dict[str, Any] = {
    "spot": 100.0,
    "variance": 0.06,
    "reversion": 3.0,
    "mean_variance": 0.04,
    "vol_of_vol": 0.6,
    "correlation": -0.7,
    "drift": 0.03,
}
MERTON: dict[str, Any] = {"spot": 100.0, "vol": 0.2, "intensity": 8.0, "jump_mean": -0.03, "jump_std": 0.05}


def _gbm(rng: np.random.Generator, **more: Any) -> np.ndarray:
    return paths.gbm(rng, spot=100.0, vol=0.3, drift=0.05, **more)


def _merton(rng: np.random.Generator, **more: Any) -> np.ndarray:
    return paths.merton(rng, **MERTON, drift=0.05, **more)


def _heston(rng: np.random.Generator, **more: Any) -> np.ndarray:
    return paths.heston(rng, **HESTON, **more).spot


MODELS = [_gbm, _merton, _heston]


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_is_a_path(model: Callable[..., np.ndarray]) -> None:
    """The same seed gives the same bits, another seed another path, each from the start on and positive."""
    one, same, other = (model(np.random.default_rng(s), dt=1 / 365, n_steps=50) for s in (1, 1, 2))
    assert one.tolist() == same.tolist()
    assert one.tolist() != other.tolist()
    assert one.shape == (51,)
    assert one[0] == pytest.approx(100.0, rel=1e-14)
    assert (one > 0).all()
    assert model(np.random.default_rng(1), dt=1 / 365, n_steps=5, n_paths=3).shape == (3, 6)


@pytest.mark.parametrize(("model", "drift"), [(_gbm, 0.05), (_merton, 0.05), (_heston, 0.03)])
def test_the_mean_grows_at_the_drift(model: Callable[..., np.ndarray], drift: float) -> None:
    """The mean price after half a year is the start times e^(drift t), within four standard errors."""
    final = model(np.random.default_rng(5), dt=0.5 / 25, n_steps=25, n_paths=20_000)[:, -1]
    error = final.std() / np.sqrt(len(final))
    assert abs(final.mean() - 100.0 * np.exp(drift * 0.5)) < 4 * error


def test_gbm_has_its_vol() -> None:
    """The log returns have variance vol^2 dt, whatever the lengths of the steps."""
    dt = np.tile([1 / 365, 3 / 365], 20_000)
    moves = np.diff(np.log(paths.gbm(np.random.default_rng(3), spot=50.0, vol=0.4, dt=dt, n_steps=len(dt))))
    assert np.std(moves / np.sqrt(dt)) == pytest.approx(0.4, rel=0.02)


def test_merton_has_the_variance_of_diffusion_and_jumps() -> None:
    """The log return's variance is vol^2 + intensity (mean^2 + std^2), per year (Merton 1976)."""
    logs = np.log(paths.merton(np.random.default_rng(4), **MERTON, dt=1.0, n_steps=1, n_paths=60_000)[:, -1])
    assert logs.var() == pytest.approx(0.2**2 + 8.0 * (0.03**2 + 0.05**2), rel=0.03)


def test_heston_reverts_to_its_mean_variance() -> None:
    """The mean variance after t is theta + (v0 - theta) e^(-kappa t) (Heston 1993)."""
    end = paths.heston(np.random.default_rng(6), **HESTON, dt=1 / 500, n_steps=100, n_paths=10_000).variance[:, -1]
    assert end.mean() == pytest.approx(0.04 + 0.02 * np.exp(-3.0 * 0.2), rel=0.03)


@pytest.mark.parametrize("n_paths", [None, 4])
def test_heston_kernel_equals_its_readable_twin(n_paths: int | None) -> None:
    """Compiled and numpy steps give the same path from the same draws, where variance touches zero too."""
    rough = {**HESTON, "vol_of_vol": 2.5}
    fast = paths.heston(np.random.default_rng(8), **rough, dt=1 / 252, n_steps=300, n_paths=n_paths)
    slow = paths.heston_by_steps(np.random.default_rng(8), **rough, dt=1 / 252, n_steps=300, n_paths=n_paths)
    assert (slow.variance < 0).any()
    np.testing.assert_allclose(fast.spot, slow.spot, rtol=1e-11)
    np.testing.assert_allclose(fast.variance, slow.variance, rtol=1e-9, atol=1e-13)


def test_wrong_steps_and_correlation_are_refused() -> None:
    """A step count that does not fit, a negative step and an impossible correlation are refused by name."""
    rng = np.random.default_rng(1)
    with pytest.raises(ValueError, match="dt: expected one step or 3"):
        _gbm(rng, dt=np.ones(2), n_steps=3)
    with pytest.raises(ValueError, match="not negative"):
        _gbm(rng, dt=-1.0, n_steps=3)
    with pytest.raises(ValueError, match="correlation"):
        paths.heston(rng, **{**HESTON, "correlation": 1.5}, dt=1.0, n_steps=1)


# ------------------------------------------------------------------------------------------- Bates

BATES: dict[str, Any] = {**HESTON, "intensity": 5.0, "jump_mean": -0.04, "jump_std": 0.06}


def test_bates_equals_its_readable_twin() -> None:
    """Compiled diffusion times jumps, and one plain step after another with the jump in it, are the same paths."""
    for n_paths in (None, 6):
        fast = paths.bates(np.random.default_rng(8), **BATES, dt=1 / 252, n_steps=300, n_paths=n_paths)
        slow = paths.bates_by_steps(np.random.default_rng(8), **BATES, dt=1 / 252, n_steps=300, n_paths=n_paths)
        assert fast.spot.shape == slow.spot.shape
        np.testing.assert_allclose(fast.spot, slow.spot, rtol=1e-11)
        np.testing.assert_allclose(fast.variance, slow.variance, rtol=1e-9, atol=1e-13)


def test_bates_without_jumps_is_heston() -> None:
    """With no intensity the paths are Heston's, to the bit."""
    calm = {**BATES, "intensity": 0.0}
    one = paths.bates(np.random.default_rng(3), **calm, dt=1 / 252, n_steps=60, n_paths=4)
    other = paths.heston(np.random.default_rng(3), **HESTON, dt=1 / 252, n_steps=60, n_paths=4)
    np.testing.assert_array_equal(one.spot, other.spot)
    np.testing.assert_array_equal(one.variance, other.variance)


def test_bates_grows_at_its_drift_and_varies_by_both_parts() -> None:
    """The mean grows at the drift within four standard errors; jumps add intensity (mean^2 + std^2) t to the variance."""
    t = 0.25
    end = paths.bates(np.random.default_rng(21), **BATES, dt=t / 60, n_steps=60, n_paths=40_000)
    final = end.spot[:, -1]
    assert abs(final.mean() - 100.0 * np.exp(0.03 * t)) < 4 * final.std() / np.sqrt(len(final))
    plain = paths.heston(np.random.default_rng(22), **HESTON, dt=t / 60, n_steps=60, n_paths=40_000).spot[:, -1]
    added = np.log(final).var() - np.log(plain).var()
    assert added == pytest.approx(5.0 * t * (0.04**2 + 0.06**2), rel=0.15)


def test_bates_prices_what_its_characteristic_function_prices() -> None:
    """A call averaged over paths is the cosine sum's price, within four standard errors and the step's bias."""
    model = heston.Heston(**{name: BATES[name] for name in heston.Heston.__struct_fields__})
    t, strike = 0.5, 100.0
    found = paths.bates(np.random.default_rng(11), **BATES, dt=t / 126, n_steps=126, n_paths=40_000).spot[:, -1]
    payoff = np.exp(-0.03 * t) * np.maximum(found - strike, 0.0)
    expected = heston.price(100.0 * np.exp(0.03 * t), strike, t, model, discount=np.exp(-0.03 * t))
    assert abs(payoff.mean() - expected) < 4 * payoff.std() / np.sqrt(len(payoff)) + 0.02


# ------------------------------------------------------------------------------------------- several underlyings


def test_correlated_gbm_has_its_correlation_vols_and_means() -> None:
    """Step returns have the matrix's correlations and each name's own vol; means grow at each drift (four errors)."""
    matrix = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.0]])
    vol, drift = np.array([0.2, 0.4, 0.1]), np.array([0.05, 0.0, -0.02])
    found = paths.correlated_gbm(
        np.random.default_rng(9),
        spot=[100.0, 50.0, 10.0],
        vol=vol,
        drift=drift,
        correlation=matrix,
        dt=1 / 12,
        n_steps=12,
        n_paths=10_000,
    )
    assert found.shape == (10_000, 3, 13)
    moves = np.diff(np.log(found), axis=-1).transpose(1, 0, 2).reshape(3, -1)
    np.testing.assert_allclose(np.corrcoef(moves), matrix, atol=4 / np.sqrt(120_000))
    np.testing.assert_allclose(moves.std(axis=1), vol / np.sqrt(12), rtol=0.01)
    final = found[:, :, -1]
    error = final.std(axis=0) / np.sqrt(10_000)
    assert (np.abs(final.mean(axis=0) - np.array([100.0, 50.0, 10.0]) * np.exp(drift)) < 4 * error).all()


def test_two_names_of_one_thing_move_as_one() -> None:
    """A correlation of 1 is a legal matrix: both names are the same path; -1 mirrors it."""
    for rho in (1.0, -1.0):
        one, other = paths.correlated_gbm(
            np.random.default_rng(4), spot=100.0, vol=0.2, correlation=[[1.0, rho], [rho, 1.0]], dt=0.01, n_steps=40
        )
        moves, others = np.diff(np.log(one)) + 0.0002, np.diff(np.log(other)) + 0.0002
        np.testing.assert_allclose(moves, rho * others, atol=1e-9)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1.0, 0.5, 0.1], [0.5, 1.0, 0.1]], "square"),
        ([[1.0, 0.5], [0.4, 1.0]], "symmetric"),
        ([[2.0, 0.5], [0.5, 1.0]], "diagonal"),
        ([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]], "eigenvalues"),
    ],
)
def test_what_is_no_correlation_is_refused(matrix: list[list[float]], message: str) -> None:
    """A matrix that no underlyings could have is refused by name."""
    with pytest.raises(ValueError, match=message):
        paths.correlated_gbm(np.random.default_rng(1), spot=1.0, vol=0.1, correlation=matrix, dt=1.0, n_steps=1)


# ------------------------------------------------------------------------------------------- antithetic pairs


def _correlated(rng: np.random.Generator, **more: Any) -> np.ndarray:
    return paths.correlated_gbm(rng, spot=100.0, vol=0.3, correlation=[[1.0, 0.4], [0.4, 1.0]], drift=0.05, **more)[
        :, 0, :
    ]


def _bates(rng: np.random.Generator, **more: Any) -> np.ndarray:
    return paths.bates(rng, **BATES, **more).spot


@pytest.mark.parametrize("model", [_gbm, _merton, _heston, _bates, _correlated])
def test_antithetic_pairs_err_less(model: Callable[..., np.ndarray]) -> None:
    """The second half mirrors the first, so that the mean of the final price errs less than that of independent paths."""
    plain = model(np.random.default_rng(5), dt=0.02, n_steps=25, n_paths=4000)[:, -1]
    paired = model(np.random.default_rng(5), dt=0.02, n_steps=25, n_paths=4000, antithetic=True)
    assert paired.shape == (4000, 26)
    pairs = 0.5 * (paired[:2000, -1] + paired[2000:, -1])
    assert pairs.std() / np.sqrt(2000) < 0.7 * plain.std() / np.sqrt(4000)
    assert np.corrcoef(np.log(paired[:2000, -1]), np.log(paired[2000:, -1]))[0, 1] < -0.3
    assert abs(paired[:, -1].mean() - plain.mean()) < 4 * plain.std() / np.sqrt(4000) + 4 * pairs.std() / np.sqrt(2000)


def test_antithetic_gbm_mirrors_its_draws() -> None:
    """The log moves of a pair sum to twice the drift's part, step by step."""
    found = paths.gbm(np.random.default_rng(2), spot=1.0, vol=0.3, dt=0.1, n_steps=6, n_paths=4, antithetic=True)
    moves = np.diff(np.log(found), axis=1)
    np.testing.assert_allclose(moves[:2] + moves[2:], -(0.3**2) * 0.1, atol=1e-15)


@pytest.mark.parametrize("n_paths", [None, 3])
def test_antithetic_paths_come_in_pairs(n_paths: int | None) -> None:
    """An odd number of paths, or one path alone, has no mirror and is refused."""
    with pytest.raises(ValueError, match="even n_paths"):
        _gbm(np.random.default_rng(1), dt=0.1, n_steps=2, n_paths=n_paths, antithetic=True)


# ------------------------------------------------------------------------------------------- bootstrap


def _recorded(n: int = 2000) -> np.ndarray:
    """Returns whose vol comes in clusters of 50."""
    rng = np.random.default_rng(77)
    return rng.standard_normal(n) * np.repeat(rng.choice([0.002, 0.02], n // 50), 50) + 0.0004


@pytest.mark.parametrize("kind", ["stationary", "circular"])
def test_every_move_was_recorded_and_blocks_run_on(kind: Any) -> None:
    """Each move is a recorded return; the next one recorded follows it, but where a block begins: once in `mean_block`."""
    returns = _recorded()
    found = paths.block_bootstrap(
        np.random.default_rng(3), returns, spot=100.0, n_steps=400, mean_block=20, kind=kind, n_paths=50
    )
    assert found.shape == (50, 401)
    assert (found[:, 0] == 100.0).all()
    moves = np.diff(np.log(found), axis=1)
    order = np.argsort(returns)
    place = order[np.searchsorted(returns[order], moves - 1e-11)]
    np.testing.assert_allclose(returns[place], moves, atol=1e-10)
    breaks = (place[:, 1:] != (place[:, :-1] + 1) % len(returns)).mean()
    assert breaks == pytest.approx(1 / 20, abs=4 * np.sqrt(0.05 * 0.95 / (50 * 399)))


def test_blocks_keep_the_clusters_of_vol() -> None:
    """Squared moves stay correlated with the last one in blocks of 50, and are not when each step is drawn alone."""
    kept: dict[int, float] = {}
    for block in (1, 50):
        found = paths.block_bootstrap(np.random.default_rng(4), _recorded(), spot=1.0, n_steps=20_000, mean_block=block)
        squares = np.diff(np.log(found)) ** 2
        kept[block] = float(np.corrcoef(squares[1:], squares[:-1])[0, 1])
    assert abs(kept[1]) < 4 / np.sqrt(20_000)
    assert kept[50] > 0.15


def test_the_lengths_of_stationary_blocks_are_geometric() -> None:
    """Block lengths have mean L and variance L (L - 1): a jump in the recorded counter is a new block."""
    counter = np.arange(100_000) * 1e-9
    moves = np.diff(
        np.log(paths.block_bootstrap(np.random.default_rng(5), counter, spot=1.0, n_steps=100_000, mean_block=8.0))
    )
    breaks = np.flatnonzero(np.abs(np.diff(moves) - 1e-9) > 5e-10)
    lengths = np.diff(breaks)
    assert lengths.mean() == pytest.approx(8.0, abs=4 * np.sqrt(56.0 / len(lengths)))
    assert lengths.var() == pytest.approx(56.0, rel=0.1)


def test_recentred_returns_are_a_martingale() -> None:
    """With drift 0 the mean price stays, with 0.001 a step it grows so, within four standard errors; as recorded not."""
    returns = _recorded() + 0.003
    for drift in (0.0, 0.001):
        final = paths.block_bootstrap(
            np.random.default_rng(6), returns, spot=100.0, n_steps=50, mean_block=1, drift=drift, n_paths=20_000
        )[:, -1]
        assert abs(final.mean() - 100.0 * np.exp(50 * drift)) < 4 * final.std() / np.sqrt(20_000)
    recorded = paths.block_bootstrap(
        np.random.default_rng(6), returns, spot=100.0, n_steps=50, mean_block=1, n_paths=20_000
    )
    assert recorded[:, -1].mean() > 115.0


def test_a_block_stays_in_its_session() -> None:
    """Blocks run on inside the session they began in and wrap there; sessions are drawn by length."""
    sessions = [np.full(30, 0.001) + np.arange(30) * 1e-6, np.full(10, -0.002) - np.arange(10) * 1e-6]
    found = paths.block_bootstrap(
        np.random.default_rng(7), sessions, spot=1.0, n_steps=12, mean_block=12, kind="circular", n_paths=4000
    )
    moves = np.diff(np.log(found), axis=1)
    up = moves > 0.0
    assert (up == up[:, :1]).all()
    assert up[:, 0].mean() == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 4000))
    short = np.round((-0.002 - moves[~up[:, 0]]) / 1e-6).astype(int)
    assert ((np.diff(short, axis=1) - 1) % 10 == 0).all()


def test_nights_are_drawn_from_nights() -> None:
    """Moves inside a day come from inside recorded days, gaps between days from recorded gaps."""
    rng = np.random.default_rng(8)
    days, level = [], 100.0
    for length in (40, 25, 60, 40):
        day = level * np.exp(np.concatenate([[0.0], np.cumsum(rng.normal(0.0, 1e-3, length))]))
        days.append(day)
        level = day[-1] * np.exp(rng.choice([-0.05, 0.07]))
    found = paths.block_bootstrap_days(
        np.random.default_rng(9), days, spot=50.0, n_days=5, n_steps=30, mean_block=6.0, n_paths=20
    )
    assert found.shape == (20, 5 * 31)
    assert (found[:, 0] == 50.0).all()
    moves = np.diff(np.log(found), axis=1)
    nights = np.zeros(moves.shape[1], dtype=bool)
    nights[30::31] = True
    gaps = [np.log(after[0] / before[-1]) for before, after in pairwise(days)]
    assert np.abs(moves[:, ~nights]).max() < 0.01
    assert np.abs(moves[:, nights][:, :, None] - np.array(gaps)).min(axis=2).max() < 1e-12


def test_days_of_a_martingale_stay() -> None:
    """With `martingale` the mean close after several days is the start, within four standard errors."""
    days = [100.0 * np.exp(np.cumsum(np.random.default_rng(k).normal(0.002, 0.01, 50))) for k in range(6)]
    final = paths.block_bootstrap_days(
        np.random.default_rng(10),
        days,
        spot=100.0,
        n_days=3,
        n_steps=20,
        mean_block=1.0,
        martingale=True,
        n_paths=20_000,
    )[:, -1]
    assert abs(final.mean() - 100.0) < 4 * final.std() / np.sqrt(20_000)


@pytest.mark.parametrize(
    ("returns", "more", "message"),
    [
        ([], {}, "found shape|found none"),
        ([0.1, np.nan], {}, "finite"),
        ([[0.1], []], {}, "session 1"),
        ([0.1], {"mean_block": 0.5}, "mean_block"),
        ([0.1], {"mean_block": 2.5, "kind": "circular"}, "whole number"),
        ([0.1], {"kind": "moving"}, "kind"),
    ],
)
def test_wrong_bootstraps_are_refused(returns: Any, more: dict[str, Any], message: str) -> None:
    """Nothing recorded, a hole, and impossible blocks are refused by name."""
    with pytest.raises(ValueError, match=message):
        paths.block_bootstrap(
            np.random.default_rng(1), returns, **{"spot": 1.0, "n_steps": 2, "mean_block": 2.0, **more}
        )


def test_wrong_days_are_refused() -> None:
    """A day without prices, a price of 0, a lone day for two: refused by name."""
    rng = np.random.default_rng(1)
    for days, message in (([[1.0]], "day 0"), ([[1.0, 0.0]], "day 0"), ([[1.0, 1.1]], "two recorded days")):
        with pytest.raises(ValueError, match=message):
            paths.block_bootstrap_days(rng, days, spot=1.0, n_days=2, n_steps=2, mean_block=1.0)
    with pytest.raises(ValueError, match="intensity"):
        paths.merton(rng, **{**MERTON, "intensity": -1.0}, dt=1.0, n_steps=1)


def test_paths_keep_their_bits() -> None:
    """Seeds drawn before pairs existed give the same paths: without `antithetic` the draws are in the same order."""
    rng = np.random.default_rng(12)
    z, count, more = rng.standard_normal(4), rng.poisson(np.full(4, 8.0 * 0.1)), rng.standard_normal(4)
    growth = (0.0 - 8.0 * (np.exp(-0.03 + 0.5 * 0.05 * 0.05) - 1.0) - 0.5 * 0.2 * 0.2) * 0.1
    moves = growth + 0.2 * np.sqrt(0.1) * z + (count * -0.03 + np.sqrt(count) * 0.05 * more)
    found = paths.merton(np.random.default_rng(12), **MERTON, dt=0.1, n_steps=4)
    np.testing.assert_allclose(np.diff(np.log(found)), moves, atol=1e-14)
