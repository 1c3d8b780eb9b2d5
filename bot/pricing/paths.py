"""A path is one seeded course of a price; law: the generator passed in is its only chance, so that a seed is a path.

Every function takes `dt` as one step length or one per step (an overnight gap is a longer step), in years, and returns
prices with the start first: shape (n_steps + 1,), or (n_paths, n_steps + 1) when `n_paths` is given. With `antithetic` the
second half of the paths takes the first half's normal draws with their signs turned, and the same jump counts, so that a
mean over all paths has less error; `n_paths` must then be even. Pairs, not paths, are then independent.

>>> rng = np.random.default_rng(7)
>>> gbm(rng, spot=100.0, vol=0.2, dt=1 / 365, n_steps=3).shape
(4,)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import Rate, Vol

Array = NDArray[np.float64]


MOST_JUMPS: Final = 1e9
"""Jumps of one step on average, above which they are no longer jumps."""
MOST_JUMP: Final = 20.0
"""A jump in logs that multiplies a price by e^20 is no market's; from e^700 on the mean overflows."""
LARGEST: Final = 1e9
"""Rates, vols and steps in years from here on are refused: their products leave the range of numbers."""


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
    antithetic: bool = False,
) -> Array:
    """Prices of geometric Brownian motion, exact in distribution at each step.

    dS = drift S dt + vol S dW, so ln S moves by (drift - vol^2 / 2) dt + vol sqrt(dt) Z.

    Shape: dt scalar or (n_steps,).
    """
    _check_world(spot, vol=vol, drift=drift)
    steps = _steps(dt, n_steps)
    _check_pairs(n_paths, antithetic)
    z = _normals(rng, _shape(n_steps, n_paths), antithetic)
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
    antithetic: bool = False,
) -> Array:
    """Prices of a jump diffusion (Merton 1976), exact in distribution at each step.

    `intensity` jumps a year, each adding a normal(jump_mean, jump_std) to ln S; the drift is compensated by
    intensity (e^(jump_mean + jump_std^2 / 2) - 1), so that E S_t = S_0 e^(drift t). Shape: dt scalar or (n_steps,).
    """
    _check_world(spot, vol=vol, drift=drift)
    steps = _steps(dt, n_steps)
    shape = _shape(n_steps, n_paths)
    _check_pairs(n_paths, antithetic)
    z = _normals(rng, shape, antithetic)
    jumps = _jumps(rng, steps, shape, intensity, jump_mean, jump_std, antithetic)
    compensation = _compensation(intensity, jump_mean, jump_std)
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
    antithetic: bool = False,
) -> HestonPath:
    """Prices and variances of Heston's model (1993) by full-truncation Euler on the log price, compiled.

    dv = reversion (mean_variance - v) dt + vol_of_vol sqrt(v) dW_v, corr(dW, dW_v) = correlation; v enters by its
    positive part (Lord, Koekkoek and van Dijk 2010, "full truncation"). The bias in v is of the order of the step: take
    steps of a day or less.

    Shape: dt scalar or (n_steps,). Errors: ValueError for a correlation outside [-1, 1].
    """
    from bot.pricing import path_kernels as kernels  # noqa: PLC0415  the compiler is imported by those who draw

    _check_world(
        spot, variance=variance, mean_variance=mean_variance, vol_of_vol=vol_of_vol, reversion=reversion, drift=drift
    )
    steps, z_spot, z_variance = _heston_draws(rng, dt, n_steps, n_paths, correlation, antithetic)
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
    antithetic: bool = False,
) -> HestonPath:
    """The same paths from the same draws, one numpy step at a time: the readable twin of `heston`."""
    _check_world(
        spot, variance=variance, mean_variance=mean_variance, vol_of_vol=vol_of_vol, reversion=reversion, drift=drift
    )
    steps, z_spot, z_variance = _heston_draws(rng, dt, n_steps, n_paths, correlation, antithetic)
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


def bates(
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
    intensity: float,
    jump_mean: float,
    jump_std: float,
    drift: Rate = 0.0,
    n_paths: int | None = None,
    antithetic: bool = False,
) -> HestonPath:
    """Prices and variances of Bates's model (1996): Heston's with Merton's jumps in the price, compiled.

    The diffusion steps as in `heston`, on the same draws; `intensity` jumps a year, each adding a normal(jump_mean,
    jump_std) to ln S, exact in distribution and independent of the variance. The drift is compensated, so that
    E S_t = S_0 e^(drift t).

    Shape: dt scalar or (n_steps,). Errors: ValueError for a correlation outside [-1, 1], a negative intensity or jump_std.
    """
    diffusion = heston(
        rng,
        spot=spot,
        variance=variance,
        dt=dt,
        n_steps=n_steps,
        reversion=reversion,
        mean_variance=mean_variance,
        vol_of_vol=vol_of_vol,
        correlation=correlation,
        drift=drift - _compensation(intensity, jump_mean, jump_std),
        n_paths=n_paths,
        antithetic=antithetic,
    )
    shape = _shape(n_steps, n_paths)
    jumps = _jumps(rng, _steps(dt, n_steps), shape, intensity, jump_mean, jump_std, antithetic)
    return HestonPath(diffusion.spot * _from_logs(1.0, jumps), diffusion.variance)


def bates_by_steps(
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
    intensity: float,
    jump_mean: float,
    jump_std: float,
    drift: Rate = 0.0,
    n_paths: int | None = None,
    antithetic: bool = False,
) -> HestonPath:
    """The same paths from the same draws, one step at a time with its jumps in it: the readable twin of `bates`."""
    _check_world(
        spot, variance=variance, mean_variance=mean_variance, vol_of_vol=vol_of_vol, reversion=reversion, drift=drift
    )
    steps, z_spot, z_variance = _heston_draws(rng, dt, n_steps, n_paths, correlation, antithetic)
    z_variance = correlation * z_spot + np.sqrt(1.0 - correlation**2) * z_variance
    jumps = _jumps(rng, steps, _shape(n_steps, n_paths), intensity, jump_mean, jump_std, antithetic).reshape(
        -1, n_steps
    )
    growth = drift - intensity * (np.exp(jump_mean + 0.5 * jump_std**2) - 1.0)
    logs, variances = np.empty((len(z_spot), n_steps + 1)), np.empty((len(z_spot), n_steps + 1))
    logs[:, 0], variances[:, 0] = np.log(spot), variance
    for i, h in enumerate(steps):
        v = np.maximum(variances[:, i], 0.0)
        swing = np.sqrt(v * h)
        logs[:, i + 1] = logs[:, i] + (growth - 0.5 * v) * h + swing * z_spot[:, i] + jumps[:, i]
        variances[:, i + 1] = (
            variances[:, i] + reversion * (mean_variance - v) * h + vol_of_vol * swing * z_variance[:, i]
        )
    return _heston_path(logs, variances, n_paths)


def correlated_gbm(
    rng: np.random.Generator,
    *,
    spot: ArrayLike,
    vol: ArrayLike,
    correlation: ArrayLike,
    dt: ArrayLike,
    n_steps: int,
    drift: ArrayLike = 0.0,
    n_paths: int | None = None,
    antithetic: bool = False,
) -> Array:
    """Prices of several underlyings, each a geometric Brownian motion, exact in distribution at each step.

    corr(dW_i, dW_j) = correlation[i, j]; the draws are turned by the symmetric root of the matrix, so that a matrix
    which is only semi-definite (two names of one thing) will do, and the order of the names does not matter.

    Shape: spot, vol, drift (k,) or scalar; correlation (k, k); dt scalar or (n_steps,); result (k, n_steps + 1), or
    (n_paths, k, n_steps + 1). Errors: ValueError for a matrix that is no correlation: not square, symmetric, 1 on the
    diagonal, and of eigenvalues not below 0.
    """
    matrix = np.asarray(correlation, dtype=np.float64)
    root = _correlation_root(matrix)
    _check_pairs(n_paths, antithetic)
    k = len(matrix)
    S, v, mu = (np.broadcast_to(np.asarray(x, dtype=np.float64), (k,))[:, None] for x in (spot, vol, drift))
    for one in zip(S[:, 0].tolist(), v[:, 0].tolist(), mu[:, 0].tolist(), strict=True):
        _check_world(one[0], vol=one[1], drift=one[2])
    steps = _steps(dt, n_steps)
    _shape(n_steps, n_paths)
    shape = (k, n_steps) if n_paths is None else (n_paths, k, n_steps)
    z = np.einsum("ij,...jt->...it", root, _normals(rng, shape, antithetic))
    return _from_logs(S, (mu - 0.5 * v * v) * steps + v * np.sqrt(steps) * z)


def block_bootstrap(
    rng: np.random.Generator,
    returns: ArrayLike | Sequence[ArrayLike],
    *,
    spot: float,
    n_steps: int,
    mean_block: float,
    kind: Literal["stationary", "circular"] = "stationary",
    drift: float | None = None,
    n_paths: int | None = None,
) -> Array:
    """Prices made of blocks of recorded log returns, so that clusters of vol and fat tails stay as they were.

    "stationary": blocks begin anywhere and have geometric lengths of mean `mean_block` (Politis and Romano 1994);
    "circular": they have just that length, a whole number (Politis and Romano 1992). A block that meets the end of its
    series goes on at the start. `returns` is one series, or several sessions: then a block stays inside its session, wraps
    there, and sessions are drawn in proportion to their lengths.

    `drift` is per step, for E S_t = S_0 e^(drift t) when steps were independent: the returns are shifted so that the mean
    of e^r over all of them is e^drift (0.0: a martingale to sampling of the blocks); None leaves them as recorded.

    Shape: returns (m,) or a sequence of such. Errors: ValueError for no return, one that is not finite, a mean_block
    below 1, or one that is not whole for "circular".
    """
    sessions = _sessions(returns)
    _check_world(spot, drift=0.0 if drift is None else drift)
    _shape(n_steps, n_paths)
    if not (mean_block >= 1.0 and np.isfinite(mean_block)):
        raise ValueError(f"block_bootstrap: mean_block: expected a number of steps >= 1, found {mean_block}")
    if kind not in {"stationary", "circular"}:
        raise ValueError(f"block_bootstrap: kind: expected 'stationary' or 'circular', found {kind!r}")
    if kind == "circular" and mean_block != int(mean_block):
        raise ValueError(
            f"block_bootstrap: mean_block: expected a whole number for circular blocks, found {mean_block}"
        )
    pool = np.concatenate(sessions)
    pool = pool if drift is None else pool - np.log(np.mean(np.exp(pool))) + drift
    paths = 1 if n_paths is None else n_paths
    if kind == "stationary":
        fresh = rng.random((paths, n_steps)) < 1.0 / mean_block
    else:
        fresh = np.broadcast_to(np.arange(n_steps) % int(mean_block) == 0, (paths, n_steps)).copy()
    fresh[:, :1] = True
    starts = rng.integers(len(pool), size=(paths, n_steps))
    moves = pool[_follow_blocks(fresh, starts, np.array([len(session) for session in sessions]))]
    prices = _from_logs(spot, moves)
    return prices[0] if n_paths is None else prices


def block_bootstrap_days(
    rng: np.random.Generator,
    days: Sequence[ArrayLike],
    *,
    spot: float,
    n_days: int,
    n_steps: int,
    mean_block: float,
    kind: Literal["stationary", "circular"] = "stationary",
    martingale: bool = False,
    n_paths: int | None = None,
) -> Array:
    """Prices of `n_days` sessions of `n_steps` steps from recorded days of prices; nights are drawn from nights alone.

    The returns inside the recorded sessions feed the blocks of each new session (see `block_bootstrap`); the gaps from a
    recorded close to the next recorded open are drawn one by one, with replacement, between new sessions. `martingale`
    shifts both pools so that the mean of e^r is 1 in each.

    Shape: days are price arrays in order, each of 2 or more, not all of one length; the result has n_days (n_steps + 1)
    prices along its last axis: open to close of each day, so every (n_steps + 1)-th is an open. Errors: ValueError for
    prices that are not positive and finite, a single day when more are asked for, and as in `block_bootstrap`.
    """
    recorded = [_prices(day, where) for where, day in enumerate(days)]
    if not recorded or (n_days > 1 and len(recorded) < 2):
        raise ValueError(
            f"block_bootstrap_days: expected two recorded days or more to take nights from, found {len(recorded)}"
        )
    if n_days < 1:
        raise ValueError(f"block_bootstrap_days: n_days: expected at least 1, found {n_days}")
    gaps = np.array([np.log(after[0] / before[-1]) for before, after in pairwise(recorded)])
    if martingale and gaps.size:
        gaps = gaps - np.log(np.mean(np.exp(gaps)))
    paths = 1 if n_paths is None else n_paths
    inside = block_bootstrap(
        rng,
        [np.diff(np.log(day)) for day in recorded],
        spot=1.0,
        n_steps=n_steps,
        mean_block=mean_block,
        kind=kind,
        drift=0.0 if martingale else None,
        n_paths=paths * n_days,
    ).reshape(paths, n_days, n_steps + 1)
    nights = np.zeros((paths, n_days))
    if n_days > 1:
        nights[:, 1:] = gaps[rng.integers(gaps.size, size=(paths, n_days - 1))]
    # each day's open: the closes and nights of all days before it
    closes = np.log(inside[:, :, -1])
    opens = np.cumsum(nights, axis=1) + np.cumsum(closes, axis=1) - closes
    prices: Array = (spot * inside * np.exp(opens)[:, :, None]).reshape(paths, -1)
    return np.asarray(prices[0] if n_paths is None else prices)


def _follow_blocks(
    fresh: NDArray[np.bool_], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where each step looks in the pool: its block's start and on from there, wrapped inside the start's session."""
    place = np.arange(fresh.shape[1])
    began = np.maximum.accumulate(np.where(fresh, place, 0), axis=1)
    start = np.take_along_axis(starts, began, axis=1)
    session = np.searchsorted(np.cumsum(lengths), start, side="right")
    first = (np.cumsum(lengths) - lengths)[session]
    return np.asarray(first + (start - first + place - began) % lengths[session])


def _sessions(returns: ArrayLike | Sequence[ArrayLike]) -> list[Array]:
    """The recorded series as a list of sessions, each finite and not empty."""
    if isinstance(returns, np.ndarray) and returns.dtype != object:
        given: list[Any] = [returns] if returns.ndim == 1 else list(returns)
    else:
        rows: list[Any] = list(cast("Sequence[Any]", returns))
        given = [rows] if all(np.ndim(row) == 0 for row in rows) else rows
    sessions = [np.asarray(one, dtype=np.float64) for one in given]
    for where, session in enumerate(sessions):
        if session.ndim != 1 or session.size == 0:
            raise ValueError(
                f"block_bootstrap: session {where}: expected a series of returns, found shape {session.shape}"
            )
        if not np.isfinite(session).all():
            raise ValueError(f"block_bootstrap: session {where}: expected finite log returns")
    if not sessions:
        raise ValueError("block_bootstrap: expected recorded returns, found none")
    return sessions


def _prices(day: ArrayLike, where: int) -> Array:
    prices = np.asarray(day, dtype=np.float64)
    if prices.ndim != 1 or prices.size < 2 or not (np.isfinite(prices).all() and (prices > 0.0).all()):
        raise ValueError(f"block_bootstrap_days: day {where}: expected two or more prices, positive and finite")
    return prices


def _correlation_root(matrix: Array) -> Array:
    """The symmetric R with R R = matrix."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"correlated_gbm: correlation: expected a square matrix, found shape {matrix.shape}")
    if not (
        np.allclose(matrix, matrix.T, rtol=0.0, atol=1e-12) and np.allclose(np.diag(matrix), 1.0, rtol=0.0, atol=1e-12)
    ):
        raise ValueError("correlated_gbm: correlation: expected a symmetric matrix with 1 on its diagonal")
    values, vectors = np.linalg.eigh(matrix)
    if values[0] < -1e-10:
        raise ValueError(f"correlated_gbm: correlation: expected eigenvalues not below 0, found {values[0]:.3g}")
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def _jumps(
    rng: np.random.Generator,
    steps: Array,
    shape: tuple[int, ...],
    intensity: float,
    jump_mean: float,
    jump_std: float,
    antithetic: bool,
) -> Array:
    """The sum of the jumps of each step, in ln S. Shape: `shape`."""
    if not (intensity >= 0.0 and jump_std >= 0.0):
        raise ValueError(
            f"jumps: expected an intensity and a jump_std that are not negative, found {intensity} and {jump_std}"
        )
    if not (abs(jump_mean) + jump_std < MOST_JUMP and np.all(intensity * steps < MOST_JUMPS)):
        raise ValueError(
            f"jumps: expected fewer than {MOST_JUMPS:g} a step, each of less than {MOST_JUMP:g} in logs, found "
            f"{intensity} a year of mean {jump_mean} and deviation {jump_std}"
        )
    count: NDArray[Any] = rng.poisson(np.broadcast_to(intensity * steps, _half(shape, antithetic)))
    if antithetic:
        count = np.concatenate([count, count])
    return np.asarray(count * jump_mean + np.sqrt(count) * jump_std * _normals(rng, shape, antithetic))


def _compensation(intensity: float, jump_mean: float, jump_std: float) -> float:
    """What jumps add to the growth of the mean, per year."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(intensity * (np.exp(jump_mean + 0.5 * jump_std * jump_std) - 1.0))


def _normals(rng: np.random.Generator, shape: tuple[int, ...], antithetic: bool) -> Array:
    """Standard normals; with `antithetic` the second half along the first axis is minus the first."""
    if not antithetic:
        return rng.standard_normal(shape)
    half = rng.standard_normal(_half(shape, antithetic))
    return np.concatenate([half, -half])


def _check_pairs(n_paths: int | None, antithetic: bool) -> None:
    if antithetic and (n_paths is None or n_paths % 2):
        raise ValueError(f"antithetic: expected an even n_paths, found {n_paths}")


def _half(shape: tuple[int, ...], antithetic: bool) -> tuple[int, ...]:
    return (shape[0] // 2, *shape[1:]) if antithetic else shape


def _heston_draws(
    rng: np.random.Generator,
    dt: ArrayLike,
    n_steps: int,
    n_paths: int | None,
    correlation: float,
    antithetic: bool,
) -> tuple[Array, Array, Array]:
    if not -1.0 <= correlation <= 1.0:
        raise ValueError(f"heston: correlation: expected -1 to 1, found {correlation}")
    _check_pairs(n_paths, antithetic)
    _shape(n_steps, n_paths)
    steps = np.ascontiguousarray(np.broadcast_to(_steps(dt, n_steps), (n_steps,)))
    shape = (1 if n_paths is None else n_paths, n_steps)
    return steps, _normals(rng, shape, antithetic), _normals(rng, shape, antithetic)


def _heston_path(logs: Array, variances: Array, n_paths: int | None) -> HestonPath:
    spots = np.exp(logs)
    return HestonPath(spots[0], variances[0]) if n_paths is None else HestonPath(spots, variances)


def _check_world(spot: float, **numbers: float) -> None:
    """Refuses a start that is no price, and numbers of a world that are unknown, too large or, but for rates, negative."""
    if not 0.0 < spot < np.inf:
        raise ValueError(f"paths: spot: expected a positive finite price, found {spot}")
    for name, number in numbers.items():
        if not abs(number) < LARGEST or (name not in {"drift", "reversion"} and number < 0.0):
            raise ValueError(f"paths: {name}: expected a number from 0 to {LARGEST:g}, found {number}")


def _shape(n_steps: int, n_paths: int | None) -> tuple[int, ...]:
    if n_steps < 0 or (n_paths is not None and n_paths < 0):
        raise ValueError(f"paths: expected n_steps and n_paths from 0, found {n_steps} and {n_paths}")
    return (n_steps,) if n_paths is None else (n_paths, n_steps)


def _steps(dt: ArrayLike, n_steps: int) -> Array:
    steps = np.asarray(dt, dtype=np.float64)
    if steps.shape not in {(), (n_steps,)}:
        raise ValueError(f"dt: expected one step or {n_steps} of them, found shape {steps.shape}")
    if not np.all((steps >= 0.0) & (steps < LARGEST)):
        raise ValueError(f"dt: expected steps that are not negative and below {LARGEST:g} years")
    return steps


def _from_logs(spot: float | Array, moves: Array) -> Array:
    """Prices from log moves, the start first."""
    logs = np.zeros((*moves.shape[:-1], moves.shape[-1] + 1))
    np.cumsum(moves, axis=-1, out=logs[..., 1:])
    with np.errstate(over="ignore", invalid="ignore"):  # moves of hundreds of deviations leave the range of floats
        return np.asarray(spot * np.exp(logs))
