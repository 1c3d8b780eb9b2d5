"""A path is one seeded course of a price; law: the generator passed in is its only chance, so that a seed is a path.

Every function takes `dt` as one step length or one per step (an overnight gap is a longer step), in years, and returns
prices with the start first: shape (n_steps + 1,), or (n_paths, n_steps + 1) when `n_paths` is given.

>>> rng = np.random.default_rng(7)
>>> gbm(rng, spot=100.0, vol=0.2, dt=1 / 365, n_steps=3).shape
(4,)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import Rate, Vol

Array = NDArray[np.float64]


class HestonPath(NamedTuple):
    """Prices and the variance that drove them. Shape: both (n_steps + 1,) or (n_paths, n_steps + 1).

    Under full truncation the variance process may be slightly negative between steps: what acts is its positive part.
    """

    spot: Array
    variance: Array


def gbm(
    rng: np.random.Generator,
    *,
    spot: float,
    vol: Vol,
    dt: ArrayLike,
    n_steps: int,
    drift: Rate = 0.0,
    n_paths: int | None = None,
) -> Array:
    """Prices of geometric Brownian motion, exact in distribution at each step.

    dS = drift S dt + vol S dW, so ln S moves by (drift - vol^2 / 2) dt + vol sqrt(dt) Z.

    Shape: dt scalar or (n_steps,).
    """
    steps = _steps(dt, n_steps)
    z = rng.standard_normal(_shape(n_steps, n_paths))
    return _from_logs(spot, (drift - 0.5 * vol * vol) * steps + vol * np.sqrt(steps) * z)


def merton(
    rng: np.random.Generator,
    *,
    spot: float,
    vol: Vol,
    dt: ArrayLike,
    n_steps: int,
    intensity: float,
    jump_mean: float,
    jump_std: float,
    drift: Rate = 0.0,
    n_paths: int | None = None,
) -> Array:
    """Prices of a jump diffusion (Merton 1976), exact in distribution at each step.

    `intensity` jumps a year, each adding a normal(jump_mean, jump_std) to ln S; the drift is compensated by
    intensity (e^(jump_mean + jump_std^2 / 2) - 1), so that E S_t = S_0 e^(drift t). Shape: dt scalar or (n_steps,).
    """
    steps = _steps(dt, n_steps)
    shape = _shape(n_steps, n_paths)
    z = rng.standard_normal(shape)
    count = rng.poisson(np.broadcast_to(intensity * steps, shape))
    jumps = count * jump_mean + np.sqrt(count) * jump_std * rng.standard_normal(shape)
    compensation = intensity * (np.exp(jump_mean + 0.5 * jump_std * jump_std) - 1.0)
    return _from_logs(spot, (drift - compensation - 0.5 * vol * vol) * steps + vol * np.sqrt(steps) * z + jumps)


def heston(
    rng: np.random.Generator,
    *,
    spot: float,
    variance: float,
    dt: ArrayLike,
    n_steps: int,
    reversion: float,
    mean_variance: float,
    vol_of_vol: float,
    correlation: float,
    drift: Rate = 0.0,
    n_paths: int | None = None,
) -> HestonPath:
    """Prices and variances of Heston's model (1993) by full-truncation Euler on the log price, compiled.

    dv = reversion (mean_variance - v) dt + vol_of_vol sqrt(v) dW_v, corr(dW, dW_v) = correlation; v enters by its
    positive part (Lord, Koekkoek and van Dijk 2010, "full truncation"). The bias in v is of the order of the step: take
    steps of a day or less.

    Shape: dt scalar or (n_steps,). Errors: ValueError for a correlation outside [-1, 1].
    """
    from bot.pricing import kernels  # noqa: PLC0415  the compiler is imported by those who price, not by all who import us

    steps, z_spot, z_variance = _heston_draws(rng, dt, n_steps, n_paths, correlation)
    logs = np.empty((z_spot.shape[0], n_steps + 1))
    variances = np.empty_like(logs)
    kernels.heston_rows(
        float(np.log(spot)),
        float(variance),
        float(drift),
        float(reversion),
        float(mean_variance),
        float(vol_of_vol),
        float(correlation),
        steps,
        z_spot,
        z_variance,
        logs,
        variances,
    )
    return _heston_path(logs, variances, n_paths)


def heston_by_steps(
    rng: np.random.Generator,
    *,
    spot: float,
    variance: float,
    dt: ArrayLike,
    n_steps: int,
    reversion: float,
    mean_variance: float,
    vol_of_vol: float,
    correlation: float,
    drift: Rate = 0.0,
    n_paths: int | None = None,
) -> HestonPath:
    """The same paths from the same draws, one numpy step at a time: the readable twin of `heston`."""
    steps, z_spot, z_variance = _heston_draws(rng, dt, n_steps, n_paths, correlation)
    z_variance = correlation * z_spot + np.sqrt(1.0 - correlation**2) * z_variance
    logs = np.empty((z_spot.shape[0], n_steps + 1))
    variances = np.empty_like(logs)
    logs[:, 0], variances[:, 0] = np.log(spot), variance
    for i, h in enumerate(steps):
        v = np.maximum(variances[:, i], 0.0)
        logs[:, i + 1] = logs[:, i] + (drift - 0.5 * v) * h + np.sqrt(v * h) * z_spot[:, i]
        variances[:, i + 1] = (
            variances[:, i] + reversion * (mean_variance - v) * h + vol_of_vol * np.sqrt(v * h) * z_variance[:, i]
        )
    return _heston_path(logs, variances, n_paths)


def _heston_draws(
    rng: np.random.Generator, dt: ArrayLike, n_steps: int, n_paths: int | None, correlation: float
) -> tuple[Array, Array, Array]:
    if not -1.0 <= correlation <= 1.0:
        raise ValueError(f"heston: correlation: expected -1 to 1, found {correlation}")
    steps = np.ascontiguousarray(np.broadcast_to(_steps(dt, n_steps), (n_steps,)))
    shape = (1 if n_paths is None else n_paths, n_steps)
    return steps, rng.standard_normal(shape), rng.standard_normal(shape)


def _heston_path(logs: Array, variances: Array, n_paths: int | None) -> HestonPath:
    spots = np.exp(logs)
    return HestonPath(spots[0], variances[0]) if n_paths is None else HestonPath(spots, variances)


def _shape(n_steps: int, n_paths: int | None) -> tuple[int, ...]:
    return (n_steps,) if n_paths is None else (n_paths, n_steps)


def _steps(dt: ArrayLike, n_steps: int) -> Array:
    steps = np.asarray(dt, dtype=np.float64)
    if steps.shape not in {(), (n_steps,)}:
        raise ValueError(f"dt: expected one step or {n_steps} of them, found shape {steps.shape}")
    if not np.all(steps >= 0.0):
        raise ValueError("dt: expected steps that are not negative")
    return steps


def _from_logs(spot: float, moves: Array) -> Array:
    """Prices from log moves, the start first."""
    logs = np.zeros((*moves.shape[:-1], moves.shape[-1] + 1))
    np.cumsum(moves, axis=-1, out=logs[..., 1:])
    return np.asarray(spot * np.exp(logs))
