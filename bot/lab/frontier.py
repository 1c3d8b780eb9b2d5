"""A frontier is what each policy pays and risks as its parameter changes; law: tuned on one stream, judged on another.

Robustness asks the same policies in other worlds (another vol, jumps, a vol that moves), each with its own yardstick.
Everything returned is a table of plain numbers for reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np

from bot.core.ports import BandInput, HedgePolicy, ShapesDelta
from bot.domain.units import NEVER, NS_PER_YEAR
from bot.lab import scenarios as worlds_of
from bot.lab.problem import Problem
from bot.lab.scenarios import Purpose, Scenarios
from bot.lab.score import DAILY, Controls, Score, ScoreTable, score
from bot.lab.scorer import Common, block_dates, prepared, shaped_want

Family: TypeAlias = Callable[[float], HedgePolicy]
Objective = Literal["ce", "cost_and_risk"]
"""What is small when hedging is good: the certainty equivalent, or mean loss + std / `per_std`."""

MERTON: Final = {"intensity": 5.0, "jump_mean": -0.02, "jump_std": 0.03}
HESTON: Final = {"reversion": 3.0, "vol_of_vol": 0.5, "correlation": -0.7}
WRONG_VOL: Final = 0.25


class FrontierPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of one family. `efficient`: no other point of the frontier has both less cost and less risk."""

    family: str
    parameter: float
    score: Score
    efficient: bool


class Frontier(msgspec.Struct, frozen=True, kw_only=True):
    """Cost against risk over parameters, all on common paths of one purpose."""

    problem: Problem
    scenarios: str
    purpose: Purpose
    seed: int
    n_paths: int
    points: tuple[FrontierPoint, ...]
    daily: Score

    def of(self, family: str) -> tuple[FrontierPoint, ...]:
        """The points of one family, by parameter."""
        return tuple(sorted((p for p in self.points if p.family == family), key=lambda p: p.parameter))


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """A family's best parameter by the tuning paths, and what it is worth on scoring paths it never saw.

    `flattery` is how much better the tuning paths made it look, in units of the objective; `at_edge`: the best is the
    first or last parameter tried, so a better one may lie outside.
    """

    family: str
    parameter: float
    tuning: Score
    scoring: Score
    flattery: float
    at_edge: bool


class Robustness(msgspec.Struct, frozen=True, kw_only=True):
    """The same policies in several worlds: a table for each, by name."""

    worlds: dict[str, ScoreTable]

    def line(self, policy: str) -> dict[str, Score]:
        """One policy over the worlds."""
        return {world: table.row(policy) for world, table in self.worlds.items()}


class BandPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's band over time and spot, as if it had never hedged. Outer index dates, inner spots; None: no bound."""

    policy: str
    times: tuple[float, ...]
    spots: tuple[float, ...]
    want: tuple[tuple[float, ...], ...]
    lo: tuple[tuple[float | None, ...], ...]
    hi: tuple[tuple[float | None, ...], ...]


def frontier(
    families: Mapping[str, Family],
    parameters: Mapping[str, Sequence[float]],
    problem: Problem,
    *,
    seed: int,
    n_paths: int,
    purpose: Purpose = "tune",
    optimum: float | None = None,
    controls: Controls = "none",
    workers: int = 1,
    scenarios: Scenarios | None = None,
) -> Frontier:
    """Cost and risk of each family at each of its parameters, on the problem's own lognormal paths unless others are given."""
    drawn = _drawn(problem, scenarios, n_paths=n_paths, seed=seed, purpose=purpose)
    rules: dict[str, HedgePolicy] = {}
    at: dict[str, tuple[str, float]] = {}
    for family, make in families.items():
        for parameter in parameters[family]:
            name = f"{family} {parameter!r}"
            rules[name] = make(parameter)
            at[name] = (family, parameter)
    table = score(rules, problem, drawn, optimum=optimum, controls=controls, workers=workers)
    rows = [table.row(name) for name in rules]
    good = efficient([(row.mean_cost, row.std) for row in rows])
    points = tuple(
        FrontierPoint(family=at[row.name][0], parameter=at[row.name][1], score=row, efficient=keep)
        for row, keep in zip(rows, good, strict=True)
    )
    return Frontier(
        problem=problem,
        scenarios=drawn.name,
        purpose=drawn.purpose,
        seed=drawn.seed,
        n_paths=drawn.n_paths,
        points=points,
        daily=table.row(DAILY),
    )


def efficient(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (cost, risk) points no other beats in one and equals or beats in the other.

    >>> efficient([(1.0, 2.0), (2.0, 1.0), (2.0, 2.0)])
    [True, True, False]
    """
    return [not any(c <= cost and r <= risk and (c < cost or r < risk) for c, r in points) for cost, risk in points]


def tune(
    family: Family,
    parameters: Sequence[float],
    problem: Problem,
    *,
    seed: int,
    n_paths: int,
    name: str = "tuned",
    objective: Objective = "ce",
    per_std: float = math.inf,
    optimum: float | None = None,
    controls: Controls = "none",
    workers: int = 1,
) -> Tuned:
    """The parameter that does best on tuning paths, and its score on scoring paths of the same seed's other stream.

    `objective="cost_and_risk"`: mean loss + std / `per_std`, one more of currency per `per_std` of standard deviation.
    """
    tried = sorted(parameters)
    tuning = frontier(
        {name: family},
        {name: tried},
        problem,
        seed=seed,
        n_paths=n_paths,
        purpose="tune",
        optimum=optimum,
        controls=controls,
        workers=workers,
    ).of(name)
    best = min(tuning, key=lambda p: worth(p.score, objective, per_std))
    again = frontier(
        {name: family},
        {name: [best.parameter]},
        problem,
        seed=seed,
        n_paths=n_paths,
        purpose="score",
        optimum=optimum,
        controls=controls,
        workers=workers,
    ).points[0]
    return Tuned(
        family=name,
        parameter=best.parameter,
        tuning=best.score,
        scoring=again.score,
        flattery=worth(again.score, objective, per_std) - worth(best.score, objective, per_std),
        at_edge=len(tried) > 1 and best.parameter in {tried[0], tried[-1]},
    )


def worth(row: Score, objective: Objective, per_std: float) -> float:
    """What a score is judged by; the smaller the better."""
    if objective == "cost_and_risk":
        return row.mean_loss + row.std / per_std
    if row.ce is None:
        raise ValueError("tune: objective 'ce': expected a problem with a risk aversion, found none")
    return row.ce


def standard_worlds(problem: Problem, *, n_paths: int, seed: int, purpose: Purpose = "score") -> dict[str, Scenarios]:
    """The hedger's own world and others: vol a quarter lower and higher, jumps, a vol that moves. All are martingales.

    Jumps (five a year of -2% +- 3%) take their share out of the diffusion, so that the variance per year is the
    hedger's; Heston starts and reverts to it.
    """
    common = {
        "spot": problem.spot, "times": problem.times(), "n_paths": n_paths, "seed": seed, "purpose": purpose,
        "drift": problem.rate, "rate": problem.rate,
    }  # fmt: skip
    variance = problem.vol**2
    of_jumps = MERTON["intensity"] * (MERTON["jump_mean"] ** 2 + MERTON["jump_std"] ** 2)
    diffusion = math.sqrt(max(variance - of_jumps, 0.25 * variance))
    return {
        "as believed": worlds_of.gbm(vol=problem.vol, **common),  # type: ignore[arg-type]  # one table for all makers
        "vol lower": worlds_of.gbm(vol=problem.vol * (1.0 - WRONG_VOL), **common),  # type: ignore[arg-type]  # as above
        "vol higher": worlds_of.gbm(vol=problem.vol * (1.0 + WRONG_VOL), **common),  # type: ignore[arg-type]  # as above
        "jumps": worlds_of.merton(vol=diffusion, **MERTON, **common),  # type: ignore[arg-type]  # as above
        "vol moves": worlds_of.heston(variance=variance, mean_variance=variance, **HESTON, **common),  # type: ignore[arg-type]  # as above
    }


def robustness(
    policies: Mapping[str, HedgePolicy] | Sequence[HedgePolicy],
    problem: Problem,
    worlds: Mapping[str, Scenarios],
    *,
    workers: int = 1,
) -> Robustness:
    """Each policy, prepared for the problem as believed, in each world."""
    return Robustness(worlds={name: score(policies, problem, drawn, workers=workers) for name, drawn in worlds.items()})


def band_picture(
    policy: HedgePolicy, problem: Problem, *, spots: Sequence[float], dates: Sequence[int] | None = None
) -> BandPicture:
    """A policy's band at each of some dates (all by default) over spots."""
    rule = prepared(policy, problem)
    at = np.asarray(spots, dtype=np.float64)
    grid = np.repeat(at[None, :], problem.dates + 1, axis=0)
    nothing = Common(*(np.empty(len(at)) for _ in Common._fields))
    wanted = set(range(problem.dates) if dates is None else dates)
    times, wants, los, his = [], [], [], []
    for d in block_dates(problem, grid, nothing, problem.vol, keep_deltas=True):
        if d.i not in wanted:
            continue
        want = shaped_want(rule, d, problem) if isinstance(rule, ShapesDelta) else d.want
        never = np.full(len(at), NEVER, dtype=np.int64)
        x = BandInput(
            d.now, d.spot, want, want, d.gamma, d.tau, d.vol, problem.rate, 1.0, problem.cost, never, at + math.nan
        )
        band = rule.band(x)
        times.append(d.now / NS_PER_YEAR)
        wants.append(tuple(want.tolist()))
        los.append(_bounds(band.lo, len(at)))
        his.append(_bounds(band.hi, len(at)))
    return BandPicture(
        policy=rule.name,
        times=tuple(times),
        spots=tuple(at.tolist()),
        want=tuple(wants),
        lo=tuple(los),
        hi=tuple(his),
    )


def _bounds(edge: object, width: int) -> tuple[float | None, ...]:
    found = np.broadcast_to(np.asarray(edge, dtype=np.float64), (width,))
    return tuple(value if math.isfinite(value) else None for value in found.tolist())


def _drawn(problem: Problem, scenarios: Scenarios | None, *, n_paths: int, seed: int, purpose: Purpose) -> Scenarios:
    if scenarios is not None:
        return scenarios
    return worlds_of.of_problem(problem, n_paths=n_paths, seed=seed, purpose=purpose)
