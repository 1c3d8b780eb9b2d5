"""A comparison says what each hedging policy cost and what risk it left on one set of prices; law: all policies see the same
prices and pay the same costs, and no difference is told without its paired standard error.

The set is the config's own recorded one, run through the real engine with paper fills (one account a policy), or a
simulated one, scored by the lab. Where a figure cannot be known it is null, with a note that says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from bot.app import config as configs
from bot.app import result, runs
from bot.app.config_lab import CompareTable, World, account_of, policy_of, table_text
from bot.app.config_text import nearest
from bot.app.daemon import Progress
from bot.app.lab_problem import CATALOGUE, Staged, chosen_aversion, config_policies, stage_problems
from bot.app.lab_scores import Asked, cvar_se, known, section, std_influence, tuned_catalogue
from bot.app.report_html import figure, names
from bot.app.wiring import Run
from bot.core.errors import ConfigError
from bot.domain.units import span
from bot.engine import attribution as attributions
from bot.engine import comparison

Floats: TypeAlias = NDArray[np.float64]
Row: TypeAlias = dict[str, Any]

SCHEMA: Final = 1
DAILY_ACCOUNT: Final = "daily_bs"
OPTIMUM_ACCOUNT: Final = "optimum"
ALWAYS: Final = ("dynamic", "static", "none")
_BEYOND: Final = {
    "ignore": "The displayed size is ignored: any size fills at the touch.",
    "partial": "An order larger than the displayed size fills the rest at later quotes.",
    "impact": "Beyond the displayed size an order pays the impact model.",
}
TIGHT: Final = 2.0
"""A hedge is as tight as another whose delta leaves at least half as much standard deviation."""
SAME: Final = 0.5
"""Currency: costs that differ by less are called the same."""


def compare(
    config: configs.Config,
    *,
    policies: Sequence[str] = (),
    world: World | None = None,
    paths: int | None = None,
    seed: int | None = None,
    tune_seed: int | None = None,
    dates: int | None = None,
    aversion: float | None = None,
    workers: int = 1,
    full: bool = False,
    progress: Progress | None = None,
) -> Row:
    """The document of a comparison, ready for JSON. What is None is as [compare] says, else as its defaults.

    `world` None and none configured: the recorded set. `full` adds what a report draws: frontiers, other worlds, bands, and
    for a recorded set the same policies on simulated paths of the book it begins with. ConfigError for names, kinds and
    numbers that mean nothing.
    """
    table = config.compare or CompareTable()
    told = chosen_aversion(config, aversion, table)
    kind = world or table.scenarios
    asked = Asked(
        world=kind or "gbm",
        paths=table.paths if paths is None else paths,
        seed=table.seed if seed is None else seed,
        tune_seed=table.tune_seed if tune_seed is None else tune_seed,
        workers=workers,
    )
    check_numbers(asked)
    steps = table.dates if dates is None else dates
    names = tuple(policies) or table.policies
    wants_lab = kind is not None or full
    can_stage = config.pricing.pricer != "table"
    staged: list[Staged] = []
    notes: list[str] = []
    needs_tuning = any(name not in config_policies(config) for name in names)
    if kind is not None or ((wants_lab or needs_tuning) and can_stage):
        staged, notes = stage_problems(config, aversion=told, dates=steps)
    tables, said = chosen_policies(config, names, staged, aversion=told, asked=asked)
    notes += said
    if told is None:
        notes.append(
            "no risk aversion is given (by --tolerance, [compare] or a policy): no certainty equivalent, no gap, no optimum"
        )
    head: Row = {
        "schema": SCHEMA,
        "name": config.name,
        "config_hash": configs.config_hash(config),
        "base_currency": config.session.base_currency,
        "aversion": told,
        "seeds": {"scoring": asked.seed, "tuning": asked.tune_seed},
        "policies": {name: table_text(policy) for name, policy in tables.items()},
    }
    if kind is not None:
        if kind == "bootstrap":
            asked = asked._replace(returns=recorded_returns(config))
        sections = [section(item, tables, config, asked, full=full) for item in staged]
        found = {**head, "set": "simulated", "world": kind, "recorded": None, "sections": sections}
        found["fills"] = simulated_fills(config)
    else:
        recorded = on_record(config, tables, aversion=told, progress=progress)
        sections = []
        if full and staged:
            kept = {name: policy for name, policy in tables.items() if name not in recorded["left_out"]}
            sections = [section(item, kept, config, asked, full=True) for item in staged]
        found = {**head, "set": "recorded", "world": None, "recorded": recorded, "sections": sections}
        found["fills"] = recorded["fills"]
    found["notes"] = notes
    found["verdict"] = verdict(found)
    return found


def is_simulated(config: configs.Config, world: str | None) -> bool:
    """True when a comparison draws its prices: by the command line, or by [compare]."""
    return world is not None or (config.compare is not None and config.compare.scenarios is not None)


def check_numbers(asked: Asked) -> None:
    """ConfigError for paths or seeds that mean nothing."""
    if asked.paths < 100:
        raise ConfigError(f"--paths: expected 100 or more, found {asked.paths}")
    if asked.seed < 0 or asked.tune_seed < 0:
        raise ConfigError(f"--seed: expected whole numbers from 0, found {asked.seed} and {asked.tune_seed}")
    if asked.workers < 1:
        raise ConfigError(f"--workers: expected 1 or more, found {asked.workers}")


# --------------------------------------------------------------------------- which policies


def chosen_policies(
    config: configs.Config, names: Sequence[str], staged: Sequence[Staged], *, aversion: float | None, asked: Asked
) -> tuple[dict[str, Any], list[str]]:
    """The policy tables compared, by account name, and what was tuned. Empty names: the config's own.

    A name is an account of the config's or a built-in kind; `all` is the config's own and every kind that needs no data.
    """
    own = config_policies(config)
    if not names:
        if not own:
            raise ConfigError(f"{config.path.name}: expected a strategy or alternative with a policy, found none")
        return own, []
    wanted = list(dict.fromkeys(names))
    if "all" in wanted:
        wanted = [*own, *(name for name in CATALOGUE)]
    kinds = [name for name in wanted if name not in own]
    for name in kinds:
        if name not in CATALOGUE:
            close = nearest(name, [*own, *CATALOGUE])
            hint = f"; did you mean {close!r}?" if close else ""
            raise ConfigError(
                f"--policies: expected 'all', an account of {config.path.name} ({', '.join(own)}) or one of "
                f"{', '.join(CATALOGUE)}; found {name!r}{hint}"
            )
    made: dict[str, Any] = {}
    notes: list[str] = []
    if kinds:
        if staged:
            made, notes = tuned_catalogue(
                kinds, staged[0], aversion=aversion, tune_seed=asked.tune_seed, paths=asked.paths, workers=asked.workers
            )
            if len(staged) > 1 and any("tried" in note for note in notes):
                notes.append(f"widths are tuned on {staged[0].underlying} alone")
        else:
            made = {name: policy_of(name) for name in kinds if name in {"none", "static"}}
            notes = [f"{name}: left out: the book's vols are not known" for name in kinds if name not in made]
    found = {name: own.get(name) or made.get(name) for name in wanted}
    chosen = {name: table for name, table in found.items() if table is not None}
    if not chosen:
        raise ConfigError(f"--policies: none of {', '.join(wanted)} can be made: {'; '.join(notes)}")
    return chosen, notes


# --------------------------------------------------------------------------- the recorded set


def on_record(
    config: configs.Config, tables: Mapping[str, Any], *, aversion: float | None, progress: Progress | None = None
) -> Row:
    """What each policy did on the config's own prices: one account each through the real engine, costs and paper fills.

    Daily Black-Scholes and, with an aversion, the exact band run along as what counts as 0 and 100.
    """
    arranged, names, left_out = with_accounts(config, tables, aversion)
    run, document, _ = runs.execute(arranged, store=False, progress=progress)
    steps = interval_steps(run)
    rows = [recorded_row(run, document, name, steps, aversion) for name in document["books"] if name in names]
    order = [name for name in names if any(row["name"] == name for row in rows)]
    rows.sort(key=lambda row: order.index(row["name"]))
    set_gaps(rows, steps, aversion, daily=names[DAILY_ACCOUNT], optimum=names.get(OPTIMUM_ACCOUNT))
    reference = order[0]
    for row in rows:
        set_differences(row, rows[0], steps, reference)
    return {
        "run": document["name"],
        "session": document["session"],
        "interval": span(arranged.session.effectiveness_interval),
        "intervals": len(steps["dynamic"]),
        "reference": reference,
        "rows": rows,
        "left_out": left_out,
        "alarms": [f"{alarm['code']}: {alarm['text']}" for alarm in document["alarms"]],
        "refusals": {
            name: {**book["refusals"], **book["skipped"]}
            for name, book in document["books"].items()
            if name in names and (book["refusals"] or book["skipped"])
        },
        "fills": recorded_fills(run, document, rows),
        "notes": recorded_notes(rows, config),
    }


def with_accounts(
    config: configs.Config, tables: Mapping[str, Any], aversion: float | None
) -> tuple[configs.Config, dict[str, str], list[str]]:
    """The config with an account for each policy, the accounts to show in order, and the policies left out.

    The strategies keep their own policy as `dynamic`; `static` and `none` are every run's own accounts. Which account
    counts as 0 and which as 100 of the gap stands under DAILY_ACCOUNT and OPTIMUM_ACCOUNT.
    """
    own = {item.name: item for item in config.alternatives}
    shown: dict[str, str] = {"dynamic": "dynamic"} if "dynamic" in tables else {}
    added: dict[str, Any] = {}
    for name, policy in tables.items():
        if name in ALWAYS:
            shown[name] = name
        else:
            added[name] = own.get(name) or account_of(name, policy)
            shown[name] = name
    with_strategies = {name: item for name, item in own.items() if item.strategies and name not in added}
    added |= with_strategies
    shown |= {name: name for name in with_strategies}
    shown |= {name: name for name in ("static", "none")}
    daily = policy_of("fixed_interval", interval="1d")
    twin = next((name for name, policy in tables.items() if policy == daily), None)
    if twin is None:
        added[DAILY_ACCOUNT] = account_of(DAILY_ACCOUNT, daily)
    shown[DAILY_ACCOUNT] = twin or DAILY_ACCOUNT
    if aversion is not None and config.pricing.pricer != "table":
        best = policy_of("exact_band", risk_aversion=aversion)
        same = next((name for name, policy in tables.items() if policy == best), None) or next(
            (
                name
                for name, policy in tables.items()
                if policy.kind == "exact_band"
                and policy.settings().get("risk_aversion") == aversion
                and not policy.fixed_cost
                and not policy.lot
            ),
            None,
        )
        if same is None:
            added[OPTIMUM_ACCOUNT] = account_of(OPTIMUM_ACCOUNT, best)
        shown[OPTIMUM_ACCOUNT] = same or OPTIMUM_ACCOUNT
    return config.model_copy(update={"alternatives": tuple(added.values())}), shown, []


def interval_steps(run: Run) -> dict[str, Floats]:
    """P&L of each account over the effectiveness intervals of the session, net of costs. Shape: each (intervals,)."""
    loop = run.loop
    found: dict[str, Floats] = {}
    for account in run.accounts:
        path = loop.sampler.table().tracks[account.name].pnl
        found[account.name] = comparison.steps_at(
            loop.sampler.instants,
            path[:, 0],
            loop.started_at or 0,
            loop.ended_at or loop.now,
            run.config.session.effectiveness_interval,
        )
    return found


def recorded_row(run: Run, document: Row, name: str, steps: Mapping[str, Floats], aversion: float | None) -> Row:
    """One account's figures; the tail and the standard deviation are of an interval, money is the session's."""
    book = document["books"][name]
    pnl, loss = book["pnl"], -steps[name]
    n = len(loss)
    intervals = result.intervals_of(run)[name] if n else None
    certainty = session_certainty(loss, aversion)
    return {
        "name": name,
        "policy": "; ".join(book["policy"]),
        "total": pnl["total"],
        "mean_cost": pnl["spread_cost"] + pnl["commission"] + pnl["impact"],
        "spread_cost": pnl["spread_cost"],
        "commission": pnl["commission"],
        "impact": pnl["impact"],
        "std": book["pnl_std"],
        "std_se": known(hac_se(std_influence(loss))) if n > 1 else None,
        "delta_std": None if intervals is None else known(float(np.std(intervals.terms["delta"]))),
        "cvar95": book["tail_loss"],
        "cvar95_se": known(cvar_se(loss, 0.05)) if n >= 20 else None,
        "max_drawdown": book["max_drawdown"],
        "ce": certainty[0],
        "ce_se": certainty[1],
        "gap": None,
        "gap_se": None,
        "trades": book["trades"],
        "units_traded": book["units_traded"],
        "closing_units": book["closing_units"],
        "turnover": book["turnover"],
        "explained": None if intervals is None else explained(intervals),
        "disabled": book["disabled"],
    }


def explained(intervals: attributions.Intervals) -> float | None:
    """The share of the variance of P&L that the attribution explains: 1 - var(residual) / var(total)."""
    total = float(np.var(intervals.total))
    return None if total == 0.0 else known(1.0 - float(np.var(intervals.terms["residual"])) / total)


def session_certainty(loss: Floats, g: float | None) -> tuple[float | None, float | None]:
    """The certainty equivalent of a session's loss and its standard error, its intervals taken as independent.

    n ln E[exp(g l)] / g over interval losses l. None without an aversion or with fewer than two intervals.
    """
    if g is None or len(loss) < 2:
        return None, None
    value, influence = certainty_of(loss, g)
    return known(value), known(len(loss) * hac_se(influence))


def certainty_of(loss: Floats, g: float) -> tuple[float, Floats]:
    """n ln E[exp(g l)] / g, and what each interval adds to the mean of one. Shape: loss, influence (intervals,)."""
    top = float(loss.max())
    weights = np.exp(g * (loss - top))
    mean = float(weights.mean())
    return len(loss) * (top + math.log(mean) / g), (weights - mean) / (g * mean)


def hac_se(influence: Floats) -> float:
    """The standard error of a mean whose terms lean on their neighbours (Newey and West 1987, their triangular weights).

    Lags up to 4 (n / 100)^(2/9), the rule of Newey and West 1994. Shape: influence (n,).
    """
    n = len(influence)
    if n < 2:
        return math.nan
    x = influence - influence.mean()
    lags = min(n - 1, math.floor(4.0 * (n / 100.0) ** (2.0 / 9.0)))
    total = float(x @ x)
    for k in range(1, lags + 1):
        total += 2.0 * (1.0 - k / (lags + 1.0)) * float(x[k:] @ x[:-k])
    return math.sqrt(max(total, 0.0) / (n * (n - 1)))


def set_gaps(
    rows: Sequence[Row], steps: Mapping[str, Floats], g: float | None, *, daily: str, optimum: str | None
) -> None:
    """Fill in how far each account came from daily Black-Scholes (0) to the exact band (100), with a paired error.

    Left null where the two differ by less than two standard errors: a share of nothing means nothing.
    """
    if g is None or optimum is None or daily not in steps or optimum not in steps or len(steps[daily]) < 2:
        return
    n = len(steps[daily])
    base, zero = certainty_of(-steps[daily], g)
    best, full = certainty_of(-steps[optimum], g)
    width = base - best
    if abs(width) <= 2.0 * n * hac_se(zero - full) or width == 0.0:
        return
    for row in rows:
        own, influence = certainty_of(-steps[row["name"]], g)
        share = (base - own) / width
        row["gap"] = known(100.0 * share)
        row["gap_se"] = known(100.0 * n * hac_se((zero - influence) - share * (zero - full)) / abs(width))


def set_differences(row: Row, reference: Row, steps: Mapping[str, Floats], name: str) -> None:
    """What the account saves of the reference's cost and standard deviation, the latter with a paired error."""
    row["cost_less"] = reference["mean_cost"] - row["mean_cost"]
    row["cost_less_se"] = None
    ours, theirs = std_influence(-steps[row["name"]]), std_influence(-steps[name])
    both = row["std"] is not None and reference["std"] is not None
    row["std_less"] = reference["std"] - row["std"] if both else None
    row["std_less_se"] = known(hac_se(theirs - ours)) if both and len(ours) > 1 else None


def recorded_notes(rows: Sequence[Row], config: configs.Config) -> list[str]:
    """How to read a table of one session."""
    interval = span(config.session.effectiveness_interval)
    notes = [
        f"std and CVaR are of P&L over {interval}, net of costs; delta std is the part of it that a hedge can take away: what "
        "the net delta held through the interval made. Costs are what this session charged: they were paid, not estimated, "
        "and have no sampling error.",
        "Standard errors allow for intervals that lean on their neighbours (Newey and West). One session decides little about "
        "policies that differ in what they hold: who held less of a hedge in a market that rose was lucky, not right.",
        "Where std falls while delta std rises it is not the band that took the risk away: the options' marks moved otherwise "
        "with the price than their delta says (vol fell as the price rose, say): another hedge than the delta was better.",
    ]
    if rows and all(row["gap"] is None for row in rows):
        notes.append(
            "gap: not told: daily Black-Scholes and the exact band differ by less than two standard errors here"
        )
    return notes


def recorded_returns(config: configs.Config) -> dict[str, Floats]:
    """Log returns of each underlying over the report grid of the config's own set, closed stretches left out."""
    bare = config.model_copy(update={"alternatives": ()})
    run, _, _ = runs.execute(bare, store=False)
    found: dict[str, Floats] = {}
    grid = run.loop.sampler.table().grid
    for key in run.loop.valuation.slices:
        path = run.loop.sampler.spot_path(key)[grid]
        moves = np.diff(np.log(path))
        found[key] = (
            moves[np.isfinite(moves) & (moves != 0.0)] if np.count_nonzero(moves) else moves[np.isfinite(moves)]
        )
    return found


# --------------------------------------------------------------------------- how optimistic the fills are


def recorded_fills(run: Run, document: Row, rows: Sequence[Row]) -> Row:
    """What paper fills leave out, in sentences, and what one more tick on every unit would have cost each account."""
    ticks: dict[str, float] = {}
    for hedge in run.config.hedges:
        item = next((i for i in run.universe if i.id == hedge.instrument or i.id.endswith(hedge.instrument)), None)
        if item is not None and item.tick is not None:
            ticks[item.id] = float(item.tick * item.multiplier)
    worse = {}
    if len(ticks) == 1:
        (value,) = ticks.values()
        worse = {row["name"]: value * (row["units_traded"] + row["closing_units"]) for row in rows}
    return {
        "assumptions": document["assumptions"],
        "text": fills_text(run.config, worse, rows),
        "one_tick": worse,
    }


def simulated_fills(config: configs.Config) -> Row:
    """The same for a simulated set, where a trade costs its fraction of notional and nothing else is modelled."""
    text = (
        "Simulated trades fill at the date's price at once and in full, whatever their size, at the cost told above: half the "
        "present spread and the fees. Spreads do not widen when the market moves, nothing queues, our orders move no price, "
        "and no order waits for a closed session. Each of these flatters policies that trade much or in haste more than "
        "bands that trade little; so the order of the policies is safer than their level."
    )
    return {"assumptions": [], "text": [text], "one_tick": {}}


def fills_text(config: configs.Config, worse: Mapping[str, float], rows: Sequence[Row]) -> list[str]:
    """How optimistic the paper fills are, in plain words, from what the broker is told."""
    broker = config.broker
    if not isinstance(broker, configs.PaperBroker):
        return ["Fills of `dynamic` are the plug-in broker's own; the other accounts fill on paper, at the touch."]
    said = ["These fills are paper, and paper is kind."]
    said.append(
        "Orders fill at the quoted touch with no queue: a real market order meets that price only if it is still there."
        if broker.spread.kind == "quoted"
        else "Spreads are assumed, not quoted, so costs are as good as that assumption."
    )
    if broker.latency == 0 and broker.jitter == 0:
        said.append("Orders arrive at once (latency 0): nothing moves between the decision and the fill.")
    else:
        late = span(broker.latency) if broker.latency else "at once"
        said.append(
            f"Orders arrive {late} after the decision"
            + (f", plus up to {span(broker.jitter)}." if broker.jitter else ".")
        )
    said.append(_BEYOND[broker.beyond])
    if broker.permanent is None:
        said.append("Our orders move no price.")
    if worse:
        dearest = max(worse, key=lambda name: worse[name])
        traded = [row for row in rows if row["units_traded"] and row["name"] in worse]
        least = min(traded, key=lambda row: worse[row["name"]], default=None)
        if least is not None and worse[dearest] > 0.0:
            said.append(
                f"Each tick worse on every unit would add {figure(worse[dearest], 2)} to the cost of {dearest} and "
                f"{figure(worse[least['name']], 2)} to that of {least['name']}: optimism flatters most who trades most."
            )
    return said


# --------------------------------------------------------------------------- the verdict


def verdict(d: Row) -> list[str]:
    """What follows from the figures, in sentences; nothing is claimed that the errors do not carry."""
    lines: list[str] = []
    if d["recorded"] is not None:
        lines += recorded_verdict(d["recorded"], d["base_currency"])
    for part in d["sections"]:
        lines += simulated_verdict(part)
    return lines


def recorded_verdict(d: Row, currency: str) -> list[str]:
    """Who was cheaper than the reference at a risk that is no higher."""
    rows, reference = d["rows"], d["rows"][0]
    if reference["std"] is None:
        return [f"The session is too short to tell risks apart ({d['intervals']} intervals)."]
    hedged = [row for row in rows[1:] if row["trades"] > 0 and row["std"] is not None]
    better = [
        row for row in hedged if row["mean_cost"] < reference["mean_cost"] - SAME and row["std"] <= reference["std"]
    ]
    told = figure(reference["mean_cost"], 2)
    if not better:
        return [
            f"No policy was cheaper than {reference['name']} ({told} {currency}) at a standard deviation no higher."
        ]
    tight = [row for row in better if row["delta_std"] <= TIGHT * reference["delta_std"]]
    chosen = [("as tight a hedge", min(tight, key=lambda row: row["mean_cost"]))] if tight else []
    chosen.append(("the calmest", min(better, key=lambda row: row["std"])))
    lines = []
    for why, row in chosen:
        error = "" if row["std_less_se"] is None else f" ± {figure(row['std_less_se'], 2)}"
        lines.append(
            f"{row['name']} ({why}) cost {figure(row['mean_cost'], 2)} {currency} against {told} for {reference['name']}, "
            f"{row['cost_less'] / reference['mean_cost']:.0%} less, at a standard deviation of {figure(row['std'], 2)} against "
            f"{figure(reference['std'], 2)} an interval: {figure(row['std_less'], 2)}{error} lower."
        )
    lines.append(f"{len(better)} of {len(hedged)} other accounts were cheaper at a standard deviation no higher.")
    return lines


def simulated_verdict(d: Row) -> list[str]:
    """Which policy closes most of the gap, and which were cheaper at no more risk than the reference."""
    rows = d["rows"]
    lines: list[str] = []
    scored = [row for row in rows if row["gap"] is not None and row["name"] not in {"optimum", "daily Black-Scholes"}]
    if scored:
        best = max(scored, key=lambda row: row["gap"])
        level = [
            row["name"] for row in scored if best["gap"] - row["gap"] <= 2.0 * math.hypot(best["gap_se"], row["gap_se"])
        ]
        told = level[0] + " closes" if len(level) == 1 else names(level) + ", not to be told apart, close"
        lines.append(
            f"{d['underlying']}, {d['world']}: {told} most of the gap from daily Black-Scholes to the optimum, "
            f"{figure(best['gap'], 1)} ± {figure(best['gap_se'], 1)}%."
        )
    first = rows[0]
    better = [
        row
        for row in rows[1:]
        if row["cost_less"] > 2.0 * (row["cost_less_se"] or 0.0)
        and row["std_less"] >= -2.0 * (row["std_less_se"] or 0.0)
    ]
    if better and first["mean_cost"] > 0.0:
        best = max(better, key=lambda row: row["cost_less"])
        lines.append(
            f"{d['underlying']}, {d['world']}: {best['name']} costs {best['cost_less'] / first['mean_cost']:.0%} less than "
            f"{first['name']} ({figure(best['mean_cost'], 2)} against {figure(first['mean_cost'], 2)} {d['currency']}) at a "
            f"standard deviation no higher ({figure(best['std'], 2)} against {figure(first['std'], 2)})."
        )
    return lines


# --------------------------------------------------------------------------- for a terminal


def render(d: Row) -> Group:
    """The comparison as tables and sentences."""
    parts: list[Any] = []
    if d["recorded"] is not None:
        parts += _recorded_table(d)
    for part in d["sections"]:
        parts += [*simulated_tables(part), *(f"  {note}" for note in part["notes"])]
    parts += [f"  {line}" for line in d["verdict"]]
    parts += [f"  {line}" for line in d["notes"]]
    parts.append("  " + " ".join(d["fills"]["text"]))
    parts.append(f"  Scoring seed {d['seeds']['scoring']}, tuning seed {d['seeds']['tuning']}: their paths never meet.")
    return Group(*parts)


def _recorded_table(d: Row) -> list[Any]:
    found = d["recorded"]
    session = found["session"]
    risk = Table(
        title=f"{d['name']}: policies on {session['start']} to {session['end']}, in {d['base_currency']}",
        title_justify="left",
    )
    worth = Table(title="What they are worth, and how much they traded", title_justify="left")
    _columns(risk, "account", "cost", f"std of {found['interval']}", "delta std", "CVaR 95%", "P&L")
    _columns(worth, "account", "CE", "gap %", "trades", "units", "turnover", "P&L explained")
    for row in found["rows"]:
        risk.add_row(
            row["name"],
            figure(row["mean_cost"], 2),
            with_error(row["std"], row["std_se"], 2),
            figure(row["delta_std"], 2),
            with_error(row["cvar95"], row["cvar95_se"], 1),
            figure(row["total"], 2),
        )
        worth.add_row(
            row["name"],
            with_error(row["ce"], row["ce_se"], 0),
            with_error(row["gap"], row["gap_se"], 1),
            f"{row['trades']:,}",
            figure(row["units_traded"], 0),
            figure(row["turnover"], 0),
            figure(row["explained"], 3),
        )
    return [risk, worth, *(f"  {note}" for note in found["notes"]), *(f"  ALARM {alarm}" for alarm in found["alarms"])]


def _columns(table: Table, first: str, *heads: str) -> None:
    table.add_column(first, no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")


def simulated_tables(d: Row) -> list[Table]:
    """The lab's table in two halves: cost and risk, worth and trading."""
    risk = Table(
        title=f"{d['underlying']}: {d['paths']:,} paths of {d['world']}, {d['dates']} dates of {d['step']} from "
        f"{d['at'][:16]}Z, cost {d['cost_bp']:.3g} bp, in {d['currency']}",
        title_justify="left",
    )
    worth = Table(
        title=f"Worth beyond the model's value, {figure(d['model_value'], 2)}; gap 0: daily Black-Scholes, 100: the optimum",
        title_justify="left",
    )
    _columns(risk, "policy", "mean cost", "std", "CVaR 95%", "mean loss")
    _columns(worth, "policy", "CE", "gap %", "trades", "turnover", "P&L explained")
    digits = digits_for(d["rows"])
    for row in [beyond_value(found, d["model_value"]) for found in d["rows"]]:
        risk.add_row(
            row["name"],
            *(with_error(row[name], row[f"{name}_se"], digits) for name in ("mean_cost", "std", "cvar95", "mean_loss")),
        )
        worth.add_row(
            row["name"],
            with_error(row["ce"], row["ce_se"], digits),
            with_error(row["gap"], row["gap_se"], 1),
            figure(row["trades"], 1),
            figure(row["turnover"], 0),
            figure(row["explained"], 3),
        )
    return [risk, worth]


def beyond_value(row: Row, value: float) -> Row:
    """A row with its losses and certainty equivalent counted from the model's value of what is owed."""
    moved = {name: None if row[name] is None else row[name] - value for name in ("ce", "cvar95", "mean_loss")}
    return {**row, **moved}


def digits_for(rows: Sequence[Row]) -> int:
    """Decimals that keep three figures of the smallest cost that is not nothing."""
    least = min((row["mean_cost"] for row in rows if row["mean_cost"] > 0.0), default=1.0)
    return max(0, min(6, 2 - math.floor(math.log10(least))))


def with_error(value: float | None, error: float | None, digits: int) -> str:
    """A figure and its standard error."""
    text = figure(value, digits)
    return text if value is None or not error else f"{text} ± {figure(error, digits)}"
