"""Scenarios are seeded price paths drawn block by block; law: a path depends on seed, purpose and its number alone.

Not on how many paths are drawn, in what order, or by how many threads: so policies share their paths (common random
numbers), and a longer run extends a shorter one. Tuning and scoring draw from streams of the same seed that cannot meet:
their spawn keys differ.

>>> at = score_times(tau=0.25, dates=4)
>>> few = gbm(spot=100.0, vol=0.2, times=at, n_paths=3, seed=7)
>>> many = gbm(spot=100.0, vol=0.2, times=at, n_paths=5000, seed=7)
>>> bool((few.paths == many.paths[:3]).all())
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import Rate, Vol, Years
from bot.lab.problem import Problem
from bot.pricing import paths as generators

Floats: TypeAlias = NDArray[np.float64]
Purpose: TypeAlias = Literal["tune", "score", "calibrate"]
Draw: TypeAlias = Callable[[np.random.Generator, int], Floats]

BLOCK: Final = 8192
"""Paths that share a random stream, drawn and scored together."""
STREAMS: Final[dict[Purpose, int]] = {"score": 0, "tune": 1, "calibrate": 2}


def stream(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """The random stream of a seed for a purpose; another purpose or key is another, independent stream.

    Source: numpy's SeedSequence, spawn keys (O'Neill 2015).
    """
    if seed < 0:
        raise ValueError(f"seed: expected a whole number from 0, found {seed}")
    if purpose not in STREAMS:
        raise ValueError(f"purpose: expected one of {', '.join(STREAMS)}, found {purpose!r}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS[purpose], *key)))


class Scenarios:
    """Paths by block. `block(k)` is thread-safe and gives the same bits at every call."""

    def __init__(
        self,
        *,
        name: str,
        times: Floats,
        n_paths: int,
        draw: Draw,
        seed: int,
        purpose: Purpose,
        martingale: bool,
        lognormal_vol: Vol | None = None,
    ) -> None:
        if n_paths < 1:
            raise ValueError(f"scenarios: n_paths: expected a whole number from 1, found {n_paths}")
        self.name = name
        self.times = times
        self.n_paths = n_paths
        self.seed = seed
        self.purpose: Purpose = purpose
        self.martingale = martingale
        """True: the discounted price has no drift, so that gains of any rule have expectation 0."""
        self.lognormal_vol = lognormal_vol
        """The vol of a lognormal martingale, None for any other paths."""
        self._draw = draw
        self._kept: Floats | None = None
        stream(seed, purpose)

    @property
    def n_blocks(self) -> int:
        """Blocks of up to BLOCK paths."""
        return -(-self.n_paths // BLOCK)

    def block(self, k: int) -> Floats:
        """The paths of one block. Shape: (paths of the block, dates + 1)."""
        count = min(BLOCK, self.n_paths - k * BLOCK)
        if not 0 <= k < self.n_blocks:
            raise ValueError(f"scenarios: block: expected 0 to {self.n_blocks - 1}, found {k}")
        if self._kept is not None:
            return self._kept[k * BLOCK : k * BLOCK + count]
        found = self._draw(stream(self.seed, self.purpose, k), k)[:count]
        if found.shape != (count, len(self.times)):
            raise ValueError(f"scenarios {self.name}: expected {(count, len(self.times))}, found {found.shape}")
        return found

    @property
    def paths(self) -> Floats:
        """All paths. Shape: (n_paths, dates + 1)."""
        if self._kept is not None:
            return self._kept
        return np.concatenate([self.block(k) for k in range(self.n_blocks)])

    def kept(self) -> Scenarios:
        """The same scenarios held in memory: 8 bytes a path and date, drawn once."""
        copy = Scenarios(
            name=self.name,
            times=self.times,
            n_paths=self.n_paths,
            draw=self._draw,
            seed=self.seed,
            purpose=self.purpose,
            martingale=self.martingale,
            lognormal_vol=self.lognormal_vol,
        )
        copy._kept = self.paths
        return copy

    def __repr__(self) -> str:
        dates = len(self.times) - 1
        return f"Scenarios({self.name}: {self.n_paths} paths of {dates} dates, seed {self.seed} to {self.purpose})"


def score_times(*, tau: Years, dates: int) -> Floats:
    """Years to each of `dates` equal steps, the start first. Shape: (dates + 1,)."""
    return np.asarray(np.arange(dates + 1) * (tau / dates))


def given(paths: ArrayLike, *, times: ArrayLike, name: str = "given", martingale: bool = False) -> Scenarios:
    """Paths somebody else made. Shape: paths (n_paths, dates + 1), times (dates + 1,). Prices must be positive."""
    held = np.ascontiguousarray(np.atleast_2d(np.asarray(paths, dtype=np.float64)))
    at = np.asarray(times, dtype=np.float64)
    if at.ndim != 1 or held.shape[1] != len(at):
        raise ValueError(f"scenarios: expected paths of {at.shape} dates, found shape {held.shape}")
    if not (np.isfinite(held).all() and (held > 0.0).all()):
        raise ValueError("scenarios: expected positive finite prices")

    def draw(rng: np.random.Generator, k: int) -> Floats:
        return held[k * BLOCK : (k + 1) * BLOCK]

    made = Scenarios(name=name, times=at, n_paths=len(held), draw=draw, seed=0, purpose="score", martingale=martingale)
    made._kept = held
    return made


def gbm(
    *,
    spot: float,
    vol: Vol,
    times: ArrayLike,
    n_paths: int,
    seed: int,
    purpose: Purpose = "score",
    drift: Rate = 0.0,
    rate: Rate = 0.0,
) -> Scenarios:
    """Geometric Brownian motion, exact at each date.

    `drift` of the price per year, `rate` what money earns: equal, the discounted price is a martingale.
    """
    at, dt = _grid(times)

    def draw(rng: np.random.Generator, k: int) -> Floats:
        return generators.gbm(rng, spot=spot, vol=vol, dt=dt, n_steps=len(dt), drift=drift, n_paths=BLOCK)

    return _made(f"GBM {vol:g}", at, n_paths, draw, seed, purpose, drift == rate, vol if drift == rate else None)


def merton(
    *,
    spot: float,
    vol: Vol,
    times: ArrayLike,
    n_paths: int,
    seed: int,
    intensity: float,
    jump_mean: float,
    jump_std: float,
    purpose: Purpose = "score",
    drift: Rate = 0.0,
    rate: Rate = 0.0,
) -> Scenarios:
    """Merton's jump diffusion, exact at each date; see `bot.pricing.paths.merton`."""
    at, dt = _grid(times)

    def draw(rng: np.random.Generator, k: int) -> Floats:
        return generators.merton(
            rng,
            spot=spot,
            vol=vol,
            dt=dt,
            n_steps=len(dt),
            intensity=intensity,
            jump_mean=jump_mean,
            jump_std=jump_std,
            drift=drift,
            n_paths=BLOCK,
        )

    return _made(f"Merton {vol:g}", at, n_paths, draw, seed, purpose, drift == rate)


def heston(
    *,
    spot: float,
    variance: float,
    times: ArrayLike,
    n_paths: int,
    seed: int,
    reversion: float,
    mean_variance: float,
    vol_of_vol: float,
    correlation: float,
    purpose: Purpose = "score",
    drift: Rate = 0.0,
    rate: Rate = 0.0,
    substeps: int = 1,
) -> Scenarios:
    """Heston's model by full-truncation Euler, `substeps` steps between dates; see `bot.pricing.paths.heston`."""
    at, dt = _grid(times)
    fine = np.repeat(dt / substeps, substeps)

    def draw(rng: np.random.Generator, k: int) -> Floats:
        path = generators.heston(
            rng,
            spot=spot,
            variance=variance,
            dt=fine,
            n_steps=len(fine),
            reversion=reversion,
            mean_variance=mean_variance,
            vol_of_vol=vol_of_vol,
            correlation=correlation,
            drift=drift,
            n_paths=BLOCK,
        )
        found = np.ascontiguousarray(path.spot[:, ::substeps])
        found[:, 0] = spot  # not the exponential of its logarithm
        return found

    return _made(f"Heston {variance**0.5:g}", at, n_paths, draw, seed, purpose, drift == rate)


def bates(
    *,
    spot: float,
    variance: float,
    times: ArrayLike,
    n_paths: int,
    seed: int,
    reversion: float,
    mean_variance: float,
    vol_of_vol: float,
    correlation: float,
    intensity: float,
    jump_mean: float,
    jump_std: float,
    purpose: Purpose = "score",
    drift: Rate = 0.0,
    rate: Rate = 0.0,
    substeps: int = 1,
) -> Scenarios:
    """Heston's model with Merton's jumps, `substeps` steps between dates; see `bot.pricing.paths.bates`."""
    at, dt = _grid(times)
    fine = np.repeat(dt / substeps, substeps)

    def draw(rng: np.random.Generator, k: int) -> Floats:
        path = generators.bates(
            rng,
            spot=spot,
            variance=variance,
            dt=fine,
            n_steps=len(fine),
            reversion=reversion,
            mean_variance=mean_variance,
            vol_of_vol=vol_of_vol,
            correlation=correlation,
            intensity=intensity,
            jump_mean=jump_mean,
            jump_std=jump_std,
            drift=drift,
            n_paths=BLOCK,
        )
        found = np.ascontiguousarray(path.spot[:, ::substeps])
        found[:, 0] = spot  # not the exponential of its logarithm
        return found

    return _made(f"Bates {variance**0.5:g}", at, n_paths, draw, seed, purpose, drift == rate)


def block_bootstrap(
    returns: ArrayLike | Sequence[ArrayLike],
    *,
    spot: float,
    times: ArrayLike,
    n_paths: int,
    seed: int,
    mean_block: float,
    kind: Literal["stationary", "circular"] = "stationary",
    recentred: bool = True,
    purpose: Purpose = "score",
) -> Scenarios:
    """Paths of blocks of recorded log returns, one a date; `recentred`: so that steps have no drift.

    Shape: returns (m,), or several sessions that blocks do not leave. Blocks make steps depend on each other, so these are
    no martingales: they serve no martingale controls. See `bot.pricing.paths.block_bootstrap`.
    """
    at, dt = _grid(times)

    def draw(rng: np.random.Generator, k: int) -> Floats:
        return generators.block_bootstrap(
            rng,
            returns,
            spot=spot,
            n_steps=len(dt),
            mean_block=mean_block,
            kind=kind,
            drift=0.0 if recentred else None,
            n_paths=BLOCK,
        )

    return _made(f"blocks of {mean_block:g} recorded returns", at, n_paths, draw, seed, purpose, martingale=False)


def drawn(
    generator: Callable[..., Any],
    *,
    times: ArrayLike,
    n_paths: int,
    seed: int,
    purpose: Purpose = "score",
    name: str = "",
    martingale: bool = False,
    **parameters: Any,
) -> Scenarios:
    """Scenarios of any generator shaped as those of `bot.pricing.paths`: `generator(rng, dt=, n_steps=, n_paths=, ...)`.

    It returns prices (n_paths, n_steps + 1), or a tuple whose `spot` they are: a user's own.
    """
    at, dt = _grid(times)

    def draw(rng: np.random.Generator, k: int) -> Floats:
        found = generator(rng, dt=dt, n_steps=len(dt), n_paths=BLOCK, **parameters)
        return np.ascontiguousarray(getattr(found, "spot", found), dtype=np.float64)

    return _made(name or getattr(generator, "__name__", "drawn"), at, n_paths, draw, seed, purpose, martingale)


def of_problem(
    problem: Problem, *, n_paths: int, seed: int, purpose: Purpose = "score", vol: Vol | None = None
) -> Scenarios:
    """The problem's own lognormal martingale at its dates; `vol`: what the paths truly have, if not the hedger's."""
    return gbm(
        spot=problem.spot,
        vol=problem.vol if vol is None else vol,
        times=problem.times(),
        n_paths=n_paths,
        seed=seed,
        purpose=purpose,
        drift=problem.rate,
        rate=problem.rate,
    )


def _made(
    name: str,
    times: Floats,
    n_paths: int,
    draw: Draw,
    seed: int,
    purpose: Purpose,
    martingale: bool,
    lognormal_vol: Vol | None = None,
) -> Scenarios:
    return Scenarios(
        name=name,
        times=times,
        n_paths=n_paths,
        draw=draw,
        seed=seed,
        purpose=purpose,
        martingale=martingale,
        lognormal_vol=lognormal_vol,
    )


def _grid(times: ArrayLike) -> tuple[Floats, Floats]:
    at = np.asarray(times, dtype=np.float64)
    if at.ndim != 1 or len(at) < 2 or at[0] != 0.0 or not (np.diff(at) > 0.0).all():
        raise ValueError("times: expected years rising from 0, two or more of them")
    return at, np.diff(at)
