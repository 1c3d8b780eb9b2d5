"""Advice is what to do with a book now: the policy to hedge it by, its band in contracts, what that will cost and risk; law: it
is never worse than no hedge, one hedge or the best fixed interval, by a score without noise.

Policies are scored on the lattice of the exact optimum (`GuardedBand.scores`): this book, these costs, this vol. Cost and risk
until the last expiry come from simulated paths, with their errors. Nothing is sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from rich.console import Group
from rich.table import Table

from bot.app import config as configs
from bot.app.compare import check_numbers, simulated_fills, with_error
from bot.app.config_lab import AdviseTable, policy_of
from bot.app.lab_problem import Staged, chosen_aversion, stage_problems
from bot.app.lab_scores import (
    Asked,
    draw,
    exact_policy,
    exact_problem,
    frontier_of,
    half_widths,
    known,
    model_value,
    robustness_of,
    scored_rows,
)
from bot.app.lab_scores import bands_of as pictures_of
from bot.app.report_html import figure
from bot.core.errors import ConfigError
from bot.core.ports import BandInput, HedgePolicy
from bot.domain.units import NEVER, Nanos, iso
from bot.pricing import exact
from bot.pricing.black import Array
from bot.pricing.exact import Rule, hedge_greeks
from strategies.policies.delta_band import DeltaBand
from strategies.policies.exact_band import ExactBand, PreparedExactBand, problem_of_plan
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.guarded_band import GuardedBand, rule_of
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline

Row: TypeAlias = dict[str, Any]

SCHEMA: Final = 1
EXACT: Final = "exact_band"
COLUMNS: Final = 200
"""The lattice of the scores, as `GuardedBand`'s."""


def advise(
    config: configs.Config,
    *,
    aversion: float | None = None,
    at: Nanos | None = None,
    paths: int | None = None,
    seed: int | None = None,
    dates: int | None = None,
    workers: int = 1,
    full: bool = False,
) -> Row:
    """The advice on every hedged underlying of a config's book at an instant (the session's first), ready for JSON.

    What is None is as [advise] says, else as its defaults. `full` adds what a report draws. ConfigError without a risk
    aversion: what a band is worth depends on it.
    """
    table = config.advise or AdviseTable()
    told = chosen_aversion(config, aversion, table)
    if told is None:
        raise ConfigError(
            f"{config.path.name}: expected a risk aversion: --tolerance '1 per X of std' (what you would pay to be rid of a "
            "standard deviation of X), [advise] tolerance, or a policy that has one; found none"
        )
    asked = Asked(
        world="gbm",
        paths=table.paths if paths is None else paths,
        seed=table.seed if seed is None else seed,
        tune_seed=0,
        workers=workers,
    )
    check_numbers(asked)
    staged, notes = stage_problems(config, aversion=told, dates=table.dates if dates is None else dates, at=at)
    return {
        "schema": SCHEMA,
        "name": config.name,
        "config_hash": configs.config_hash(config),
        "base_currency": config.session.base_currency,
        "at": iso(staged[0].now),
        "aversion": told,
        "tolerance": math.sqrt(2.0 / told),
        "seeds": {"scoring": asked.seed},
        "advice": [advice_on(item, config, asked, full=full) for item in staged],
        "notes": notes,
        "fills": simulated_fills(config),
    }


def advice_on(staged: Staged, config: configs.Config, asked: Asked, *, full: bool) -> Row:
    """The advice on one underlying: scores without noise, the best of them, its band now, its cost and risk."""
    assert staged.aversion is not None  # advise refuses to go on without one
    scores = lattice_scores(staged)
    best = recommended(scores)
    policies = candidates(staged)
    if best not in policies:
        policies[best] = FixedInterval(interval=int(best.split()[1]) * staged.problem.step)
    chosen = policies[best]
    solution = exact.solve_problem(exact_problem(staged.problem))
    drawn = draw(staged.problem, "gbm", paths=asked.paths, seed=asked.seed)
    asked_first = {best: chosen, **{name: policy for name, policy in policies.items() if name != best}}
    rows = scored_rows(asked_first, staged.problem, drawn, solution=solution, optimum=EXACT, workers=asked.workers)
    by_name = {row["name"]: row for row in rows}
    found: Row = {
        "underlying": staged.underlying,
        "hedge": staged.hedge,
        "currency": staged.currency,
        "at": iso(staged.now),
        "spot": staged.spot,
        "vol": staged.problem.vol,
        "horizon_days": 365.0 * staged.problem.horizon,
        "dates": staged.problem.dates,
        "step_ns": staged.problem.step,
        "cost_bp": 1e4 * staged.problem.cost,
        "ticket": staged.problem.fixed_cost,
        "aversion": staged.aversion,
        "recommended": best,
        "config": table_of(best, staged),
        "band": band_now(staged, chosen),
        "expected": by_name[best],
        "model_value": model_value(staged.problem),
        "lattice_error": abs(next(row["ce"] for row in scores if row["name"] == EXACT) - solution.price),
        "scores": scores,
        "rows": rows,
        "paths": asked.paths,
        "seed": asked.seed,
        "frontier": frontier_of(staged, asked, min(asked.paths, 8192)),
        "notes": list(staged.notes),
    }
    if full:
        own = {best: policy_of(EXACT, risk_aversion=staged.aversion, dates=staged.problem.dates)}
        found["bands"] = pictures_of(staged, own, config)
        found["robustness"] = robustness_of(
            policies, staged.problem, paths=min(asked.paths, 8192), seed=asked.seed, workers=asked.workers
        )
    return found


# --------------------------------------------------------------------------- candidates and their scores


def candidates(staged: Staged) -> dict[str, HedgePolicy]:
    """The policies advice chooses from, by name, for the problem: its own money and dates."""
    problem = staged.problem
    g = problem.risk_aversion
    assert g is not None  # advise refuses to go on without one
    found: dict[str, HedgePolicy] = {
        EXACT: exact_policy(problem, 1.0),
        "whalley_wilmott": WhalleyWilmott(risk_aversion=g),
        "zakamouline": Zakamouline(risk_aversion=g),
        "none": NoHedge(),
        "static": StaticHedge(),
    }
    every = 1
    while every < problem.dates:
        found[interval_name(every)] = FixedInterval(interval=every * problem.step)
        every *= 4
    return found


def interval_name(every: int) -> str:
    """How a fixed interval of so many dates is called."""
    return "every date" if every == 1 else f"every {every} dates"


def lattice_scores(staged: Staged) -> list[Row]:
    """Every candidate's certainty equivalent without noise, the best first; `gap` from the daily hedge (0) to the optimum.

    The exact band, the guards (none, static, fixed intervals) and the closed forms, on the book's own plan. `above_optimum`
    is from the optimum's own price, so that the exact band's is the lattice's error. Units: the settlement currency, money
    of now.
    """
    assert staged.aversion is not None  # advise refuses to go on without one
    g, dates, plan = staged.aversion, staged.problem.dates, staged.plan
    problem = problem_of_plan(plan, risk_aversion=g, dates=dates)
    assert problem is not None  # a staged book has a live leg
    ready = ExactBand(risk_aversion=g, dates=dates).prepared(plan)
    assert isinstance(ready, PreparedExactBand) and ready.solution is not None  # there is a problem to solve
    optimum = ready.solution.price
    widths = [DeltaBand(half_width=h) for h in half_widths(staged.problem)[1::2]]
    closed: dict[str, HedgePolicy] = {
        "whalley_wilmott": WhalleyWilmott(risk_aversion=g),
        "zakamouline": Zakamouline(risk_aversion=g),
        **{f"delta_band {width.half_width:g}": width for width in widths},
    }
    values = {EXACT: _value(problem, ready.solution.rule, otherwise=optimum)}
    for name, policy in closed.items():
        values[name] = _value(problem, rule_of(policy, plan, problem), otherwise=math.inf)
    values = {name: value for name, value in values.items() if math.isfinite(value)}
    guards = GuardedBand(risk_aversion=g, dates=dates, candidates=()).scores(plan)
    values |= dict(zip(_guard_names(guards, staged), (guard.value for guard in guards), strict=True))
    daily = exact.evaluate(problem, exact.interval_rule(problem, staged.problem.daily_every), columns=COLUMNS)
    rows = [
        {
            "name": name,
            "ce": value,
            "above_optimum": value - optimum,
            "gap": None if daily == optimum else known((daily - value) / (daily - optimum) * 100.0),
        }
        for name, value in values.items()
    ]
    return sorted(rows, key=lambda row: row["ce"])


def _value(problem: exact.Problem, rule: Callable[[int, Array], Rule], *, otherwise: float) -> float:
    """A rule's score without noise; `otherwise` where it has no band (crossed edges at extreme aversions)."""
    try:
        return exact.evaluate(problem, rule, columns=COLUMNS)
    except ValueError:
        return otherwise


def recommended(scores: Sequence[Row]) -> str:
    """The exact band, or a guard (none, static, a fixed interval) that the lattice holds for better than it.

    Nothing is better than the optimum; what the lattice shows of closed forms beyond it is the lattice's own error.
    """
    guards = [row for row in scores if row["name"] in {EXACT, "none", "static"} or row["name"].startswith("every ")]
    return str(min(guards, key=lambda row: row["ce"])["name"])


def _guard_names(scores: Sequence[Any], staged: Staged) -> list[str]:
    """How the guards are called: none and static by name, intervals by their dates."""
    step = staged.problem.step
    return [
        score.name if score.name in {"none", "static"} else interval_name(round(score.policy.interval / step))
        for score in scores
    ]


def table_of(name: str, staged: Staged) -> str:
    """The policy table to put into a config for a candidate, in TOML."""
    lines = ["[strategies.policy]"]
    if name in {EXACT, "whalley_wilmott", "zakamouline"}:
        lines += [f'kind = "{name}"', f"risk_aversion = {staged.aversion:.6g}"]
        lines += [f"dates = {staged.problem.dates}"] if name == EXACT else []
    elif name in {"none", "static"}:
        lines += [f'kind = "{name}"']
    else:
        every = 1 if name == "every date" else int(name.split()[1])
        seconds = max(1, round(every * staged.problem.step / 1e9))
        lines += ['kind = "fixed_interval"', f'interval = "{seconds}s"']
    return "\n".join(lines) + "\n"


# --------------------------------------------------------------------------- the band now


def band_now(staged: Staged, policy: HedgePolicy) -> Row:
    """The band in hedge contracts at this instant, what is held, and the order that follows. lo or hi None: no bound."""
    problem = staged.problem
    rule = policy.prepared(problem.plan()) if hasattr(policy, "prepared") else policy
    hedge, gamma = hedge_greeks(exact_problem(problem), 0, np.array([problem.spot]))
    want = float(hedge[0])
    shaped = getattr(rule, "leg_deltas", None)
    if shaped is not None:
        from bot.lab.frontier import band_picture  # noqa: PLC0415  only rules with deltas of their own need it

        want = float(band_picture(rule, problem, spots=[problem.spot], dates=[0]).want[0][0])
    x = BandInput(
        0,
        problem.spot,
        want,
        staged.standing,
        float(gamma[0]),
        problem.horizon,
        problem.vol,
        0.0,
        1.0,
        problem.cost,
        NEVER,
        math.nan,
    )
    band = rule.band(x)
    edges = sorted((staged.contracts(float(band.lo)), staged.contracts(float(band.hi))))
    now = staged.held
    target = now if edges[0] <= now <= edges[1] else min(max(now, edges[0]), edges[1])
    if band.to is not None and target != now:
        target = staged.contracts(float(band.to))
    target = to_lot(target, edges, staged.lot, now)
    return {
        "lo": known(edges[0]),
        "hi": known(edges[1]),
        "delta_hedge": staged.contracts(want),
        "held": now,
        "to": target,
        "order": target - now,
    }


def to_lot(target: float, edges: Sequence[float], lot: float, now: float) -> float:
    """The target in whole lots, inside the band where a lot lies in it, else the nearest."""
    if lot <= 0.0 or target == now:
        return target
    lo, hi = (
        math.ceil(edges[0] / lot - 1e-9) * lot if math.isfinite(edges[0]) else -math.inf,
        (math.floor(edges[1] / lot + 1e-9) * lot if math.isfinite(edges[1]) else math.inf),
    )
    nearest = round(target / lot) * lot
    return min(max(nearest, lo), hi) if lo <= hi else nearest


# --------------------------------------------------------------------------- for a terminal


def render(d: Row) -> Group:
    """The advice as sentences and tables."""
    parts: list[Any] = [
        f"{d['name']}: advice at {d['at']}, for who pays 1 {d['base_currency']} to be rid of a standard deviation of "
        f"{figure(d['tolerance'], 2)} (risk aversion {d['aversion']:.4g})"
    ]
    for item in d["advice"]:
        parts += [*(f"  {line}" for line in sentences(item)), _scores_table(item)]
        parts.append(
            f"  The lattice is good to about {figure(item['lattice_error'], 2)} here: smaller differences say nothing."
        )
        parts += [_frontier_table(item), "To trade it:", item["config"]]
        parts += [f"  {note}" for note in item["notes"]]
    parts += [f"  {note}" for note in d["notes"]]
    parts.append("  " + " ".join(d["fills"]["text"]))
    return Group(*parts)


def sentences(a: Row) -> list[str]:
    """The advice in words."""
    band, expected = a["band"], a["expected"]
    edges = f"[{_edge(band['lo'])}, {_edge(band['hi'])}]"
    order = (
        "nothing is to be done"
        if band["order"] == 0
        else f"{'buy' if band['order'] > 0 else 'sell'} {figure(abs(band['order']), 2).removesuffix('.00')} now"
    )
    cost, std = (with_error(expected[name], expected[f"{name}_se"], 2) for name in ("mean_cost", "std"))
    tail = with_error(expected["cvar95"] - a["model_value"], expected["cvar95_se"], 2)
    return [
        f"{a['underlying']} at {figure(a['spot'], 2)}, vol {a['vol']:.2%}, cost {a['cost_bp']:.3g} bp, "
        f"{a['horizon_days']:.1f} days to the last expiry:",
        f"hedge by {a['recommended']}; its band today is {edges} contracts of {a['hedge']}, {figure(band['held'], 2)} held: "
        f"{order}.",
        f"Until expiry it is expected to cost {cost} {a['currency']} with a standard deviation of P&L of {std}; the worst 5% "
        f"of paths lose {tail} on average from today's model value (CVaR); {figure(expected['trades'], 1)} trades.",
    ]


def _edge(value: float | None) -> str:
    return "no bound" if value is None else figure(value, 2)


def _scores_table(a: Row) -> Table:
    rows = {row["name"]: row for row in a["rows"]}
    table = Table(title="Scored without noise on the lattice; cost and risk from paths", title_justify="left")
    for head in ("policy", "worse than the optimum by", "gap %", "mean cost", "std", "trades"):
        table.add_column(head, justify="left" if head == "policy" else "right", no_wrap=head == "policy")
    for score in a["scores"]:
        row = rows.get(score["name"], {})
        table.add_row(
            score["name"],
            figure(score["above_optimum"], 2),
            figure(score["gap"], 1),
            with_error(row.get("mean_cost"), row.get("mean_cost_se"), 2),
            with_error(row.get("std"), row.get("std_se"), 2),
            figure(row.get("trades"), 1),
        )
    return table


def _frontier_table(a: Row) -> Table:
    table = Table(title="The frontier behind it: the optimum at other aversions", title_justify="left")
    for head in ("aversion, times yours", "mean cost", "std", "trades"):
        table.add_column(head, justify="right")
    for point in a["frontier"]["families"]["optimum"]["points"]:
        table.add_row(
            f"{point['parameter']:g}",
            with_error(point["mean_cost"], point["mean_cost_se"], 2),
            figure(point["std"], 2),
            figure(point["trades"], 1),
        )
    return table
