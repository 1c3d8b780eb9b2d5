"""A scored section is what the lab says of one staged problem: a table of policies on common paths with its errors, a frontier,
other worlds and bands.

Law: everything of a section is plain data, every sampled figure has a standard error, and what is compared shares paths.
Scoring paths come from the scoring seed; what is tuned sees only paths of the tuning seed's other stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bot.app import config as configs
from bot.app.config_lab import World
from bot.app.lab_problem import Staged, catalogue, described, years_text
from bot.core.errors import ConfigError, DataError
from bot.core.ports import HedgePolicy
from bot.domain.units import NS_PER_YEAR, iso, parse_span
from bot.lab import scenarios as worlds
from bot.lab.engine_runs import solved_once
from bot.lab.frontier import HESTON, MERTON, band_picture, frontier, tune
from bot.lab.problem import Problem
from bot.lab.scenarios import Purpose, Scenarios
from bot.lab.score import DAILY, Score, daily_black_scholes, standard_error, tabulate
from bot.lab.scorer import Losses, is_bounded, reach_at, run
from bot.pricing import black, exact
from strategies.policies.delta_band import DeltaBand
from strategies.policies.exact_band import ExactBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.move_band import MoveBand
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline

Floats: TypeAlias = NDArray[np.float64]
Row: TypeAlias = dict[str, Any]

OPTIMUM: Final = "optimum"
"""The name of the exact band of the problem, where the table has it under no name of its own."""
FEW: Final = 8192
"""Paths of frontiers, of tuning and of other worlds: the first of those of the table."""
VOL_POINTS: Final = 0.05
"""How wrong the vol is in the robustness table: five points either way."""
AVERSIONS: Final = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""Multiples of the aversion along the optimum's line of a frontier."""
SHARES: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Half widths as shares of the book's range of deltas, as tried."""
DEVIATIONS: Final = (0.25, 0.5, 1.0, 2.0, 3.0)
SCALES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
EVERY: Final = (1, 4, 16, 64)
LEAST_RETURNS: Final = 50
BLOCK: Final = 10.0
"""Mean length, in recorded returns, of the blocks of a bootstrap."""
PICTURED: Final = ("exact_band", "whalley_wilmott", "zakamouline")
SPOTS: Final = 61
"""Points of a band over the spot."""


class Asked(NamedTuple):
    """What a section is asked for. `returns` of the record by underlying, for a bootstrap."""

    world: World
    paths: int
    seed: int
    tune_seed: int
    workers: int = 1
    returns: Mapping[str, Floats] | None = None


# --------------------------------------------------------------------------- worlds


def draw(
    problem: Problem, world: World, *, paths: int, seed: int, purpose: Purpose = "score", returns: Floats | None = None
) -> Scenarios:
    """The paths of a world around a problem. All have its variance a year; all but a bootstrap are martingales.

    Jumps are five a year of -2% +- 3%, taken out of the diffusion; Heston reverts at 3 to the problem's variance with a vol of
    vol 0.5 and a correlation of -0.7; Bates has both. A bootstrap draws blocks of recorded returns, scaled to the
    problem's vol.
    """
    at: dict[str, Any] = {
        "spot": problem.spot,
        "times": problem.times(),
        "n_paths": paths,
        "seed": seed,
        "purpose": purpose,
    }
    jumping: dict[str, Any] = dict(MERTON)
    moving: dict[str, Any] = dict(HESTON)
    variance = problem.vol**2
    if world == "gbm":
        return worlds.gbm(vol=problem.vol, **at)
    jumps = MERTON["intensity"] * (MERTON["jump_mean"] ** 2 + MERTON["jump_std"] ** 2)
    diffused = max(variance - jumps, 0.25 * variance)
    if world == "merton":
        return worlds.merton(vol=math.sqrt(diffused), **at, **jumping)
    if world == "heston":
        return worlds.heston(variance=variance, mean_variance=variance, **at, **moving)
    if world == "bates":
        return worlds.bates(variance=diffused, mean_variance=diffused, **at, **moving, **jumping)
    if returns is None or len(returns) < LEAST_RETURNS:
        count = 0 if returns is None else len(returns)
        raise DataError(f"bootstrap: expected {LEAST_RETURNS} recorded returns or more, found {count}")
    step = problem.vol * math.sqrt(problem.horizon / problem.dates)
    scaled = (returns - returns.mean()) * (step / float(returns.std()))
    return worlds.block_bootstrap(scaled, mean_block=BLOCK, **at)


def other_worlds(problem: Problem, *, paths: int, seed: int) -> dict[str, Scenarios]:
    """The robustness table's worlds: as believed, jumps, a vol that moves, and a vol some points lower and higher."""
    lower = min(VOL_POINTS, 0.5 * problem.vol)
    points = f"{100 * lower:.3g}"
    common: dict[str, Any] = {"n_paths": paths, "seed": seed}
    return {
        "as believed": worlds.of_problem(problem, **common),
        "jumps (Merton)": draw(problem, "merton", paths=paths, seed=seed),
        "vol moves (Heston)": draw(problem, "heston", paths=paths, seed=seed),
        f"vol {points} points lower": worlds.of_problem(problem, vol=problem.vol - lower, **common),
        f"vol {100 * VOL_POINTS:.3g} points higher": worlds.of_problem(problem, vol=problem.vol + VOL_POINTS, **common),
    }


# --------------------------------------------------------------------------- the section


def section(
    staged: Staged, tables: Mapping[str, Any], config: configs.Config, asked: Asked, *, full: bool = True
) -> Row:
    """What the lab says of the policies of `tables` on one staged problem, as plain data.

    `full` adds the frontier, the other worlds and the bands. Policies that cannot be scored on paths of one price are
    left out with a note. ConfigError when none is left.
    """
    problem = staged.problem
    policies, notes = make_policies(staged, tables, config)
    solution = optimum_of(problem)
    names = dict.fromkeys(policies)
    if solution is not None and not _has_optimum(tables, staged):
        policies[OPTIMUM] = exact_policy(problem, 1.0)
    returns = None if asked.returns is None else asked.returns.get(staged.underlying)
    drawn = draw(problem, asked.world, paths=asked.paths, seed=asked.seed, returns=returns)
    rows = scored_rows(
        policies,
        problem,
        drawn,
        solution=solution,
        workers=asked.workers,
        optimum=_optimum_name(tables, staged, policies),
    )
    for row in rows:
        row["policy"] = described(tables[row["name"]]) if row["name"] in tables else _told(row["name"])
    found: Row = {
        "underlying": staged.underlying,
        "hedge": staged.hedge,
        "currency": staged.currency,
        "at": iso(staged.now),
        "spot": staged.spot,
        "vol": problem.vol,
        "horizon": years_text(problem.horizon),
        "horizon_years": problem.horizon,
        "dates": problem.dates,
        "step": length_text(problem.step),
        "cost_bp": 1e4 * problem.cost,
        "ticket": problem.fixed_cost,
        "lot": staged.lot,
        "per_contract": staged.per_contract,
        "aversion": staged.aversion,
        "world": drawn.name,
        "paths": drawn.n_paths,
        "seed": asked.seed,
        "tune_seed": asked.tune_seed,
        "reference": next(iter(names)),
        "optimum_price": None if solution is None else solution.price,
        "model_value": model_value(problem),
        "rows": rows,
        "notes": [*staged.notes, *notes, *_world_notes(asked)],
    }
    if full:
        few = min(asked.paths, FEW)
        found["frontier"] = frontier_of(staged, asked, few)
        found["robustness"] = robustness_of(policies, problem, paths=few, seed=asked.seed, workers=asked.workers)
        found["bands"] = bands_of(staged, tables, config)
    return found


def _world_notes(asked: Asked) -> list[str]:
    if asked.world == "bootstrap":
        return [
            f"recorded returns come in blocks of {BLOCK:g} on average, scaled to the book's vol: the record gives their "
            "shape and order, not their size"
        ]
    return []


def length_text(ns: int) -> str:
    """A length of time to three figures."""
    for unit, size in (("d", 86_400e9), ("h", 3_600e9), ("min", 60e9), ("s", 1e9)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns / 1e6:.3g} ms"


def _told(name: str) -> str:
    said = {
        DAILY: "the model's delta once a trading day: 0 of the gap",
        OPTIMUM: "the exact band of this problem: 100 of the gap",
    }
    return said.get(name, "")


def make_policies(
    staged: Staged, tables: Mapping[str, Any], config: configs.Config
) -> tuple[dict[str, HedgePolicy], list[str]]:
    """The policies for a problem by name, each solved once for all paths, and notes on those that cannot be scored."""
    found: dict[str, HedgePolicy] = {}
    notes: list[str] = []
    step = staged.problem.step
    for name, table in tables.items():
        if table.kind == "delta_gamma_vega":
            notes.append(
                f"{name}: delta_gamma_vega trades several instruments; a simulated set has one, so it is left out"
            )
            continue
        found[name] = solved_once(staged.policy(table, config))
        interval = getattr(table, "interval", None)
        if interval is not None and interval < step:
            notes.append(
                f"{name}: its interval is shorter than the {length_text(step)} between dates: here it acts at every date"
            )
    if not found:
        raise ConfigError(
            f"{config.path.name}: expected a policy that can be scored on one price, found none: {'; '.join(notes)}"
        )
    return found, notes


def optimum_of(problem: Problem) -> exact.Solution | None:
    """The exact optimum of a problem, None without an aversion."""
    return None if problem.risk_aversion is None else exact.solve_problem(exact_problem(problem))


def exact_problem(problem: Problem, multiple: float = 1.0) -> exact.Problem:
    """The lab's problem as the exact solver takes it, at a multiple of its aversion."""
    assert problem.risk_aversion is not None  # asked by those who know it
    return exact.problem_of(
        [(float(row.cp), row.strike, row.quantity, row.date * problem.step / NS_PER_YEAR) for row in problem.rows()],
        spot=problem.spot,
        vol=problem.vol,
        tau=problem.dates * problem.step / NS_PER_YEAR,
        cost=problem.cost,
        risk_aversion=problem.risk_aversion * multiple,
        dates=problem.dates,
        fixed_cost=problem.fixed_cost,
        lot=problem.lot,
        charge_open=problem.charge_open,
        charge_close=problem.charge_close,
    )


def exact_policy(problem: Problem, multiple: float) -> HedgePolicy:
    """The exact band of a problem at a multiple of its aversion."""
    assert problem.risk_aversion is not None  # asked by those who know it
    return solved_once(ExactBand(risk_aversion=problem.risk_aversion * multiple, dates=problem.dates))


def model_value(problem: Problem) -> float:
    """What the writer owes by the model's value: minus the Black-Scholes value of the book, in money of now."""
    owed = 0.0
    for row in problem.rows():
        years = row.date * problem.step / NS_PER_YEAR
        owed -= row.quantity * float(black.bsm(problem.spot, row.strike, years, row.vol, cp=row.cp).price)
    return owed


def _has_optimum(tables: Mapping[str, Any], staged: Staged) -> bool:
    return any(_is_optimum(table, staged) for table in tables.values())


def _is_optimum(table: Any, staged: Staged) -> bool:
    if table.kind != "exact_band" or staged.aversion is None:
        return False
    own = table.risk_aversion if table.tolerance is None else 2.0 / table.tolerance**2
    return bool(math.isclose(own, staged.aversion, rel_tol=1e-9)) and not table.fixed_cost and not table.lot


def _optimum_name(tables: Mapping[str, Any], staged: Staged, policies: Mapping[str, HedgePolicy]) -> str | None:
    if OPTIMUM in policies:
        return OPTIMUM
    return next((name for name, table in tables.items() if name in policies and _is_optimum(table, staged)), None)


def scored_rows(
    policies: Mapping[str, HedgePolicy],
    problem: Problem,
    drawn: Scenarios,
    *,
    solution: exact.Solution | None,
    optimum: str | None,
    workers: int = 1,
) -> list[Row]:
    """The table: a row for each policy, and daily Black-Scholes, on the same paths.

    On the problem's own lognormal paths daily Black-Scholes and the optimum are known without sampling; in any other world
    100 is what the exact band of the believed problem is worth there.
    """
    asked = {DAILY: daily_black_scholes(problem), **policies}
    losses = run(asked, problem, drawn, workers=workers)
    own = drawn.lognormal_vol == problem.vol
    known: dict[str, float] = {}
    target: float | str | None = optimum
    if solution is not None and own:
        target = solution.price
        every = exact.interval_rule(solution.problem, problem.daily_every)
        known = {DAILY: exact.evaluate(solution.problem, every, per_step=2)}
        if optimum is not None:
            known[optimum] = solution.price
    table = tabulate(
        losses, problem, drawn, optimum=target, known=known, controls="martingale" if drawn.martingale else "none"
    )
    reference = losses.loss(losses.names.index(next(iter(policies))))
    costs = losses.outcomes[losses.names.index(next(iter(policies)))].costs
    rows = [
        _row(table.row(name), losses, j, reference=reference, reference_cost=costs)
        for j, name in enumerate(losses.names)
    ]
    return [*rows[1:], rows[0]]


def _row(score: Score, losses: Losses, j: int, *, reference: Floats, reference_cost: Floats) -> Row:
    loss, outcome = losses.loss(j), losses.outcomes[j]
    spread, base = std_influence(loss), std_influence(reference)
    return {
        "name": score.name,
        "mean_cost": score.mean_cost,
        "mean_cost_se": known(score.mean_cost_se),
        "std": known(score.std),
        "std_se": known(standard_error(spread)),
        "mean_loss": score.mean_loss,
        "mean_loss_se": known(score.mean_loss_se),
        "ce": score.ce,
        "ce_se": known(score.ce_se),
        "gap": known(score.gap),
        "gap_se": known(score.gap_se),
        "cvar95": score.cvar95,
        "cvar95_se": known(cvar_se(loss, 0.05)),
        "cvar99": score.cvar99,
        "trades": score.trades,
        "turnover": score.turnover,
        "explained": known(score.explained),
        "cost_less": float(np.mean(reference_cost - outcome.costs)),
        "cost_less_se": known(standard_error(reference_cost - outcome.costs)),
        "std_less": float(np.std(reference, ddof=1) - np.std(loss, ddof=1)),
        "std_less_se": known(standard_error(base - spread)),
    }


def known(value: float | None) -> float | None:
    """The value when it is a finite number, else None."""
    return None if value is None or not math.isfinite(value) else float(value)


def std_influence(values: Floats) -> Floats:
    """What each value adds to the standard deviation, times n: its standard error is that of its mean. Shape: (n,)."""
    centred = values - values.mean()
    spread = float(np.sqrt(np.mean(centred**2)))
    return np.asarray(centred**2 - spread**2) / (2.0 * spread) if spread > 0.0 else np.zeros_like(values)


def cvar_se(loss: Floats, share: float) -> float:
    """The standard error of the mean of the worst share, by its influence (loss - quantile)+ / share."""
    edge = float(np.quantile(loss, 1.0 - share))
    return standard_error(np.maximum(loss - edge, 0.0) / share)


# --------------------------------------------------------------------------- tuning


def tuned_catalogue(
    names: Sequence[str], staged: Staged, *, aversion: float | None, tune_seed: int, paths: int, workers: int = 1
) -> tuple[dict[str, Any], list[str]]:
    """The tables of kinds by name for a problem, widths tuned on paths of the tuning seed, and what was tuned to what."""
    problem, notes = staged.problem, []
    half = deviations = None
    if problem.risk_aversion is not None:
        if "delta_band" in names:
            best = tune(
                lambda h: DeltaBand(half_width=h),
                half_widths(problem),
                problem,
                seed=tune_seed,
                n_paths=min(paths, FEW),
                workers=workers,
            )
            half = best.parameter
            notes.append(
                f"delta_band: half width {half:,.6g} is the best of {len(SHARES)} tried on tuning seed {tune_seed}"
                + _edge(best.at_edge)
            )
        if "move_band" in names:
            day = parse_span("1d")
            moved = tune(
                lambda d: MoveBand(deviations=d, per=day),
                DEVIATIONS,
                problem,
                seed=tune_seed,
                n_paths=min(paths, FEW),
                workers=workers,
            )
            deviations = moved.parameter
            notes.append(
                f"move_band: {deviations:g} deviations of a day, best of {len(DEVIATIONS)} tried on tuning seed {tune_seed}"
                + _edge(moved.at_edge)
            )
    made = catalogue(names, aversion=aversion, half_width=half, deviations=deviations, fee=problem.fixed_cost)
    left = [name for name in names if name not in made]
    if left:
        notes.append(f"{', '.join(left)}: left out, for want of a risk aversion")
    return made, notes


def _edge(at_edge: bool) -> str:
    return "; it is the first or last tried, so a better one may lie outside" if at_edge else ""


def half_widths(problem: Problem) -> list[float]:
    """Half widths to try, in underlying units: shares of the book's range of deltas."""
    lo, hi = reach_at(problem, 0)
    span = hi - lo if hi > lo else sum(abs(row.quantity) for row in problem.rows())
    return [share * span for share in SHARES]


# --------------------------------------------------------------------------- frontier, other worlds, bands


def frontier_of(staged: Staged, asked: Asked, paths: int) -> Row:
    """Cost against risk of four families over their parameter, and of the optimum over aversions, on the scoring paths."""
    problem = staged.problem
    g = problem.risk_aversion
    families: dict[str, Any] = {
        "delta band": lambda h: DeltaBand(half_width=h),
        "fixed interval": lambda every: FixedInterval(interval=max(1, round(every * problem.step))),
    }
    parameters: dict[str, Sequence[float]] = {
        "delta band": half_widths(problem),
        "fixed interval": [float(every) for every in EVERY if every < problem.dates],
    }
    if g is not None:
        families |= {
            "Whalley-Wilmott": lambda s: WhalleyWilmott(risk_aversion=g, scale=s),
            "Zakamouline": lambda s: Zakamouline(risk_aversion=g, scale=s),
            OPTIMUM: lambda multiple: exact_policy(problem, multiple),
        }
        parameters |= {"Whalley-Wilmott": SCALES, "Zakamouline": SCALES, OPTIMUM: AVERSIONS}
    drawn = worlds.of_problem(problem, n_paths=paths, seed=asked.seed)
    found = frontier(
        families, parameters, problem, seed=asked.seed, n_paths=paths, scenarios=drawn, workers=asked.workers
    )
    words = {
        "delta band": "half width, units",
        "fixed interval": "dates",
        "Whalley-Wilmott": "multiple of its width",
        "Zakamouline": "multiple of its width",
        OPTIMUM: "multiple of the aversion",
    }
    return {
        "world": drawn.name,
        "paths": paths,
        "families": {
            family: {
                "parameter": words[family],
                "points": [
                    {
                        "parameter": point.parameter,
                        "mean_cost": point.score.mean_cost,
                        "mean_cost_se": known(point.score.mean_cost_se),
                        "std": known(point.score.std),
                        "trades": point.score.trades,
                        "efficient": point.efficient,
                    }
                    for point in found.of(family)
                ],
            }
            for family in families
        },
    }


def robustness_of(
    policies: Mapping[str, HedgePolicy], problem: Problem, *, paths: int, seed: int, workers: int = 1
) -> Row:
    """Each policy, prepared for the problem as believed, in each of the other worlds."""
    out: Row = {"paths": paths, "seed": seed, "worlds": [], "rows": {}}
    for world, drawn in other_worlds(problem, paths=paths, seed=seed).items():
        out["worlds"].append(world)
        for row in scored_rows(policies, problem, drawn, solution=None, optimum=None, workers=workers):
            kept = (
                "mean_cost",
                "mean_cost_se",
                "std",
                "std_se",
                "mean_loss",
                "mean_loss_se",
                "ce",
                "ce_se",
                "cvar95",
                "cvar95_se",
            )
            out["rows"].setdefault(row["name"], {})[world] = {name: row[name] for name in kept}
    return out


def bands_of(staged: Staged, tables: Mapping[str, Any], config: configs.Config) -> list[Row]:
    """The bands of the exact band, Whalley-Wilmott and Zakamouline over spot now and over time at the spot, in contracts."""
    problem = staged.problem
    if staged.aversion is None:
        return []
    chosen = {table.kind: table for table in reversed(list(tables.values())) if table.kind in PICTURED}
    made = catalogue(PICTURED, aversion=staged.aversion, half_width=None, deviations=None)
    wide = 2.5 * problem.vol * math.sqrt(problem.horizon)
    spots = [problem.spot * math.exp(wide * (2.0 * i / (SPOTS - 1) - 1.0)) for i in range(SPOTS)]
    dates = sorted({round(k * (problem.dates - 1) / 60) for k in range(61)})
    shown = sorted({0, problem.dates // 2, max(0, problem.dates - 1 - problem.dates // 20)})
    out: list[Row] = []
    for kind in PICTURED:
        policy = solved_once(staged.policy(chosen.get(kind, made[kind]), config))
        over_spot = band_picture(policy, problem, spots=spots, dates=shown)
        over_time = band_picture(policy, problem, spots=[problem.spot], dates=dates)
        cut = is_bounded(policy)
        out.append(
            {
                "kind": kind,
                "policy": described(chosen.get(kind, made[kind])),
                "spots": spots,
                "over_spot": [
                    {
                        "years": over_spot.times[k],
                        "left_days": 365.0 * (problem.horizon - over_spot.times[k]),
                        **_edges(staged, over_spot, k, shown[k], cut),
                    }
                    for k in range(len(shown))
                ],
                "days": [365.0 * t for t in over_time.times],
                "over_time": _over_time(staged, over_time, dates, cut),
            }
        )
    return out


def _edges(staged: Staged, picture: Any, k: int, date: int, cut: bool) -> Row:
    """A band over the spot at a date, in contracts, within the book's reach where its policy is cut to it."""
    reach = reach_at(staged.problem, date)

    def line(values: Sequence[float | None]) -> list[float | None]:
        out: list[float | None] = []
        for value in values:
            kept = value
            if kept is not None and cut and not (math.isinf(reach.lo) or math.isinf(reach.hi)):
                kept = min(max(kept, min(reach.lo, 0.0)), max(reach.hi, 0.0))
            out.append(None if kept is None else staged.contracts(kept))
        return out

    edges = {"lo": line(picture.lo[k]), "hi": line(picture.hi[k]), "want": line(picture.want[k])}
    if staged.per_contract < 0.0:
        edges["lo"], edges["hi"] = edges["hi"], edges["lo"]
    return edges


def _over_time(staged: Staged, picture: Any, dates: Sequence[int], cut: bool) -> Row:
    columns = [_edges(staged, picture, k, date, cut) for k, date in enumerate(dates)]
    return {name: [column[name][0] for column in columns] for name in ("lo", "hi", "want")}
