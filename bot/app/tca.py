"""Transaction cost analysis (TCA) says what each hedge cost against its decision and against the paper model; law: it reads a
stored run's facts and changes nothing.

`document` is the whole of it as plain data, `render` a view for a terminal, `page` for a browser, `broker_text` the `[broker]`
table that feeds what was fitted back to the paper broker.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from rich.console import Group
from rich.table import Table

from bot.app import config as configs
from bot.app import report_html as html
from bot.app.config_text import PREFIX, to_toml
from bot.app.export import refuse_unknown_account, replacing
from bot.app.runs import CONFIG, INSTRUMENTS, StoredRun, storage_faults
from bot.core.errors import ConfigError, DataError
from bot.domain.costs import ImpactModel, NoImpact, SpreadModel
from bot.domain.instruments import Instrument
from bot.domain.units import iso
from bot.engine.journal import Started, Step
from bot.engine.performance import (
    FillModel,
    HedgeRecord,
    Window,
    hedge_records,
    rolling_effectiveness,
    rolling_windows,
    window_of,
)
from bot.lab.calibration import (
    Calibration,
    Estimate,
    ImpactFit,
    LatencyFit,
    SpreadFit,
    broker_table,
    calibrate,
    comments,
)

Row: TypeAlias = dict[str, Any]

WINDOW: Final = 20
"""Hedges a rolling figure looks back on."""
INTERVALS: Final = 30
"""Report-grid intervals the rolling effectiveness looks back on."""
SHOWN: Final = 40
"""Hedges the terminal lists; the document has all."""
SCHEMA: Final = 1


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of one stored run."""

    run_id: str
    result: Row
    records: list[HedgeRecord]
    instruments: dict[str, Instrument]
    samples: dict[str, Any]
    broker: Row
    note: str


def read(stored: StoredRun, account: str) -> Read:
    """The orders of an account of a stored run, with the model its fills are held against.

    ConfigError for an account the run does not have, DataError or JournalError for a damaged part.
    """
    with storage_faults(stored.folder):
        steps = list(stored.steps())
        instruments = _instruments(stored)
        samples = stored.samples()
        result = stored.result()
    refuse_unknown_account(account, _accounts(steps), stored.run_id)
    model, broker, note = _model(stored)
    records = hedge_records(steps, instruments, account=account, model=model)
    return Read(
        run_id=stored.run_id,
        result=result,
        records=records,
        instruments=instruments,
        samples=samples,
        broker=broker,
        note=note,
    )


def _accounts(steps: Sequence[Step]) -> dict[str, None]:
    return {fact.account: None for step in steps for fact in step.facts if isinstance(fact, Started)}


def _instruments(stored: StoredRun) -> dict[str, Instrument]:
    try:
        found = msgspec.json.decode((stored.folder / INSTRUMENTS).read_bytes(), type=list[Instrument])
    except msgspec.MsgspecError as fault:
        raise DataError(f"{stored.folder / INSTRUMENTS}: {fault}") from fault
    return {item.id: item for item in found}


def _model(stored: StoredRun) -> tuple[FillModel, Row, str]:
    """What the run's own broker was told, its [broker] table, and why it is not known (then: as quoted, no impact)."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    path = stored.folder / CONFIG
    try:
        config = configs.load_config(path, env=env, files=False)
        raw = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)["broker"]
    except (ConfigError, OSError, KeyError) as fault:
        return FillModel(), {"kind": "paper"}, f"the run's own broker table cannot be read: {fault}"
    if not isinstance(config.broker, configs.PaperBroker):
        note = "the broker is not the paper broker: fills are held against the quoted half spread alone"
        return FillModel(), {"kind": "paper"}, note
    told = configs.broker_settings(config, {})
    spreads = {key: msgspec.convert(value, SpreadModel, strict=False) for key, value in told["spreads"].items()}
    impact: ImpactModel = NoImpact()
    if told["beyond"] == "impact" and "impact" in told:
        impact = msgspec.convert(told["impact"], ImpactModel, strict=False)
    return FillModel(spreads=spreads, impact=impact), dict(raw), ""


# --------------------------------------------------------------------------- the document


def document(
    stored: StoredRun,
    *,
    account: str = "dynamic",
    window: int = WINDOW,
    intervals: int = INTERVALS,
    adv: Decimal | None = None,
    pooled: Sequence[StoredRun] = (),
) -> Row:
    """What each hedge of a run cost and took away, rolling and in sum, and what the fills tell the paper broker.

    `window` is in hedges, `intervals` in report-grid intervals, `adv` contracts a day to scale impact by; the fills of
    `pooled` runs enter the calibration alone. ConfigError for a window or volume that means nothing.
    """
    if window < 1 or intervals < 2:
        raise ConfigError(
            f"tca: expected a window of 1 hedge and 2 intervals or more, found {window} hedges and {intervals} intervals"
        )
    run = read(stored, account)
    others = [read(other, account) for other in pooled]
    records, instruments = list(run.records), dict(run.instruments)
    for other in others:
        records += other.records
        instruments |= other.instruments
    try:
        found = calibrate(records, instruments, adv=adv)
    except ValueError as fault:
        raise ConfigError(f"tca: {fault}") from fault
    rolling = rolling_windows(run.records, window)
    return {
        "schema": SCHEMA,
        "run_id": run.run_id,
        "pooled": [other.run_id for other in others],
        "account": account,
        "window": window,
        "totals": _totals(run.records),
        "instruments": _by_instrument(run.records),
        "against_model": _against_model(run.records, run.note),
        "effectiveness": _effectiveness(run, account, intervals),
        "hedges": [_hedge(r, w) for r, w in zip(run.records, rolling, strict=True)],
        "calibration": _calibration(found),
        "broker": broker_text(found, run.broker),
    }


def broker_text(calibration: Calibration, base: Mapping[str, Any]) -> str:
    """The `[broker]` table a config accepts, with its errors as comments above it."""
    said = "".join(f"# {line}\n" for line in comments(calibration))
    return said + to_toml({"broker": broker_table(calibration, base)})


def write_broker(text: str, path: Path) -> None:
    """Put the table into a file, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def _totals(records: Sequence[HedgeRecord]) -> list[Row]:
    """Sums by currency; nothing is added across currencies."""
    return [
        {"currency": currency, **_sums([r for r in records if r.currency == currency])}
        for currency in sorted({r.currency for r in records})
    ]


def _by_instrument(records: Sequence[HedgeRecord]) -> list[Row]:
    rows = []
    for name in sorted({r.instrument for r in records}):
        own = [r for r in records if r.instrument == name]
        rows.append({"instrument": name, "currency": own[0].currency, **_sums(own), **_window(window_of(own))})
    return rows


def _sums(records: Sequence[HedgeRecord]) -> Row:
    filled = [r for r in records if r.done]
    known = [r for r in filled if r.delay is not None]

    def total(name: str, among: Sequence[HedgeRecord]) -> float:
        return float(sum((getattr(r, name) for r in among), Decimal(0)))

    return {
        "orders": len(records),
        "filled": len(filled),
        "without_decision_quote": len(filled) - len(known),
        "notional": total("notional", filled),
        "delay": total("delay", known),
        "spread": total("spread", filled),
        "impact": total("impact", filled),
        "commission": total("commission", filled),
    }


def _against_model(records: Sequence[HedgeRecord], note: str) -> Row:
    """The mean difference of slippage and model over hedges, in basis points, with its standard error."""
    gaps = [
        float((r.slippage - r.expected) / r.notional) * 1e4
        for r in records
        if r.slippage is not None and r.expected is not None and r.notional
    ]
    n = len(gaps)
    mean = math.fsum(gaps) / n if n else None
    error = float(np.std(gaps, ddof=1)) / math.sqrt(n) if n > 1 else None
    return {"hedges": n, "difference_bp": mean, "error_bp": error, "text": note or _verdict(n, mean, error)}


def _verdict(n: int, mean: float | None, error: float | None) -> str:
    if mean is None:
        return "no fill can be held against the model"
    if error is None:
        return "one fill: no error can be told"
    if abs(mean) <= 2.0 * error or abs(mean) < 1e-9:
        return "the fills cost what the model tells, within two standard errors"
    return f"the fills cost {abs(mean):.3g} bp {'more' if mean > 0 else 'less'} than the model tells"


def _effectiveness(run: Read, account: str, intervals: int) -> Row:
    """Variance taken away on the report grid: over the run, and over the last intervals up to each grid instant."""
    grid = np.asarray(run.samples["on_grid"], dtype=bool)
    instants = np.asarray(run.samples["ts_ns"])[grid]
    options, hedge = (
        np.diff(np.asarray(run.samples[f"{account}/{part}"], float)[grid]) for part in ("options", "hedge")
    )
    path = rolling_effectiveness(options, hedge, intervals)
    known = np.flatnonzero(np.isfinite(path))
    whole = rolling_effectiveness(options, hedge, len(options))[-1:] if len(options) > 1 else np.empty(0)
    book, none = run.result["books"].get(account, {}), run.result["books"].get("none", {})
    removed = None
    if book.get("pnl_std") is not None and none.get("pnl_std") is not None:
        removed = none["pnl_std"] - book["pnl_std"]
    pnl = book.get("pnl", {})
    cost = sum(pnl.get(name, 0.0) for name in ("spread_cost", "commission", "impact"))
    return {
        "run": _number(whole[0]) if len(whole) else None,
        "intervals": intervals,
        "rolling": [{"ts": iso(int(instants[i + 1])), "value": float(path[i])} for i in known],
        "lowest": float(path[known].min()) if len(known) else None,
        "median": float(np.median(path[known])) if len(known) else None,
        "latest": float(path[known[-1]]) if len(known) else None,
        "std_removed": removed,
        "cost_per_std_removed": cost / removed if removed is not None and removed > 0 else None,
    }


def _hedge(r: HedgeRecord, w: Window) -> Row:
    return {
        "order_id": r.order_id,
        "instrument": r.instrument,
        "currency": r.currency,
        "kind": r.kind,
        "asked": float(r.asked),
        "done": float(r.done),
        "decided": iso(r.decided),
        "arrived": None if r.arrived is None else iso(r.arrived),
        "filled": None if r.filled is None else iso(r.filled),
        "latency_ns": r.latency,
        "wait_ns": r.wait,
        "quote_age_ns": r.quote_age,
        "decision_mid": _float(r.decision_mid),
        "decision_half_spread": _float(r.decision_half),
        "mid_at_fill": _float(r.mid),
        "price": _float(r.price),
        "notional": float(r.notional),
        "delay": _float(r.delay),
        "spread": float(r.spread),
        "impact": float(r.impact),
        "commission": float(r.commission),
        "slippage": _float(r.slippage),
        "slippage_bp": r.slippage_bp,
        "expected": _float(r.expected),
        "spread_share": r.spread_share,
        "risk_removed": r.risk_removed,
        "closing": r.closing,
        "reason": r.reason,
        "venue_said": r.said,
        "rolling": _window(w),
    }


def _window(w: Window) -> Row:
    return {
        "hedges": w.hedges,
        "slippage_bp": w.slippage_bp,
        "expected_bp": w.expected_bp,
        "spread_share": w.spread_share,
        "latency_ns": w.latency,
        "risk_removed": w.risk_removed,
        "cost": float(w.cost),
        "cost_per_risk": w.cost_per_risk,
    }


def _calibration(found: Calibration) -> Row:
    return {
        "orders": found.orders,
        "filled": found.filled,
        "spread": {name: _spread(fit) for name, fit in found.spreads.items()},
        "latency": _latency(found.latency),
        "impact": _impact(found.impact),
    }


def _spread(fit: SpreadFit) -> Row:
    return {"share": _estimate(fit.share), "half_bp": _estimate(fit.half_bp), "as_quoted": fit.as_quoted}


def _latency(fit: LatencyFit) -> Row:
    return {
        "latency_ns": _estimate(fit.latency),
        "jitter_ns": _estimate(fit.jitter),
        "quantiles_ns": dict(fit.quantiles),
        "uniform_p": fit.uniform,
    }


def _impact(fit: ImpactFit) -> Row:
    return {
        "square_root": _estimate(fit.square_root),
        "linear": _estimate(fit.linear),
        "kind": fit.kind,
        "adv": _float(fit.adv),
        "text": fit.text,
    }


def _estimate(found: Estimate) -> Row:
    return {"value": found.value, "error": found.error, "count": found.count, "text": found.text}


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# --------------------------------------------------------------------------- for a terminal


def render(d: Row) -> Group:
    """The analysis as tables and sentences."""
    return Group(
        *_sentences(d), _instrument_table(d), _hedge_table(d), "What the fills tell the paper broker:", d["broker"]
    )


def _sentences(d: Row) -> list[str]:
    lines = [f"Transaction costs of {d['account']}, run {d['run_id']}"]
    lines += [
        f"  {t['filled']} of {t['orders']} orders filled, {t['notional']:,.0f} {t['currency']} traded: "
        f"delay {t['delay']:,.2f}, spread {t['spread']:,.2f}, impact {t['impact']:,.2f}, commission {t['commission']:,.2f}."
        for t in d["totals"]
    ]
    if not d["totals"]:
        lines.append("  It sent no order.")
    model, effect = d["against_model"], d["effectiveness"]
    if model["difference_bp"] is not None:
        error = "" if model["error_bp"] is None else f" +- {model['error_bp']:.3g}"
        lines.append(f"  Against the model: {model['difference_bp']:+.3g}{error} bp a hedge; {model['text']}.")
    if effect["run"] is not None:
        lines.append(
            f"  Hedge effectiveness on the report grid {effect['run']:.3f}; over {effect['intervals']} intervals: latest "
            f"{_fixed(effect['latest'], 3)}, median {_fixed(effect['median'], 3)}, lowest {_fixed(effect['lowest'], 3)}."
        )
    if effect["cost_per_std_removed"] is not None:
        lines.append(f"  Cost per unit of standard deviation removed: {effect['cost_per_std_removed']:,.3f}.")
    return lines


def _instrument_table(d: Row) -> Table:
    table = Table(title="By instrument", title_justify="left")
    for name in ("instrument", "filled", "slippage bp", "model bp", "spread share", "latency", "cost per risk"):
        table.add_column(name, justify="left" if name == "instrument" else "right")
    for row in d["instruments"]:
        table.add_row(row["instrument"], str(row["filled"]), *_rolling_cells(row))
    return table


def _hedge_table(d: Row) -> Table:
    rows = d["hedges"][-SHOWN:]
    title = f"Each hedge, and the mean of the last {d['window']}"
    if len(rows) < len(d["hedges"]):
        title += f" (the last {len(rows)} of {len(d['hedges'])}; --json has all)"
    table = Table(title=title, title_justify="left")
    for name in ("decided", "done", "mid", "price", "delay", "spread", "impact", "fee", "model", "rolling bp", "share"):
        table.add_column(name, justify="left" if name == "decided" else "right")
    for h in rows:
        rolling = h["rolling"]
        table.add_row(
            h["decided"].replace("T", " ").rstrip("Z")[:19],
            f"{h['done']:+,.10g}" if h["done"] else "unfilled",
            _general(h["decision_mid"]),
            _general(h["price"]),
            *(_fixed(h[name], 2) for name in ("delay", "spread", "impact", "commission", "expected")),
            _fixed(rolling["slippage_bp"], 2),
            _fixed(rolling["spread_share"], 2),
        )
    return table


def _rolling_cells(row: Row) -> list[str]:
    latency = row["latency_ns"]
    return [
        _fixed(row["slippage_bp"], 2),
        _fixed(row["expected_bp"], 2),
        _fixed(row["spread_share"], 3),
        "-" if latency is None else html.length(round(latency)),
        _fixed(row["cost_per_risk"], 4),
    ]


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _general(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"


# --------------------------------------------------------------------------- for a browser


def page(d: Row) -> str:
    """The analysis as one self-contained HTML page."""
    title = f"Transaction costs of {d['account']}, run {d['run_id']}"
    style = files("bot.app").joinpath("report_style.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = html.join(
        [
            html.Markup('<meta charset="utf-8">'),
            html.Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            html.Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            html.tag("title", title),
            html.Markup(f"<style>\n{style}</style>"),
        ]
    )
    said = html.tag("ul", *[html.tag("li", line.strip()) for line in _sentences(d)[1:]])
    sections = [
        html.section("costs", "Costs", said, _html_instruments(d)),
        html.section("hedges", f"Each hedge, and the mean of the last {d['window']}", _html_hedges(d)),
        html.section("calibration", "What the fills tell the paper broker", html.tag("pre", d["broker"])),
    ]
    body = html.join([html.tag("header", html.tag("h1", title)), html.tag("main", *sections)])
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def write_page(d: Row, path: Path) -> None:
    """Put the page into a file, whole or not at all."""
    with replacing(path) as file:
        file.write(page(d).encode())


def _html_instruments(d: Row) -> html.Markup:
    names = ("instrument", "filled", "slippage, bp", "model, bp", "spread share", "latency", "cost per risk")
    columns = [html.Column(name, "i" if name == "instrument" else "") for name in names]
    return html.table(columns, [[r["instrument"], str(r["filled"]), *_rolling_cells(r)] for r in d["instruments"]])


def _html_hedges(d: Row) -> html.Markup:
    heads = [
        ("decided, UTC", "l"), ("quantity", ""), ("instrument", "i"), ("decision mid", ""), ("price", ""), ("latency", ""),
        ("delay", ""), ("spread", ""), ("impact", ""), ("fee", ""), ("model", ""), ("share", ""), ("rolling bp", ""),
        ("rolling share", ""), ("reason", "w"),
    ]  # fmt: skip
    rows = [
        [
            h["decided"].replace("T", " ").rstrip("Z"),
            html.quantity(h["done"]),
            h["instrument"],
            html.price(h["decision_mid"]),
            html.price(h["price"]),
            html.length(h["latency_ns"]),
            *(html.money(h[name]) for name in ("delay", "spread", "impact", "commission", "expected")),
            html.figure(h["spread_share"], 2),
            html.figure(h["rolling"]["slippage_bp"], 2),
            html.figure(h["rolling"]["spread_share"], 2),
            h["reason"],
        ]
        for h in d["hedges"]
    ]
    return html.table([html.Column(*head) for head in heads], rows)
