"""Paths: a seed is a path, shapes, moments of each model, compiled against readable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bot.pricing import paths

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
