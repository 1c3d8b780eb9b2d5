"""A result is what a finished run tells its owner: one document with stable keys, and the samples as a table beside it.

Law: money is summed exactly before it becomes a JSON number; total = options + hedge - spread - commission - impact +
financing, and the nine attribution terms sum to the total, both to the cent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot import __version__
from bot.app import config as configs
from bot.app.considerations import considerations, proxies
from bot.app.counterparties import exposures
from bot.app.stress import stress
from bot.app.wiring import Run
from bot.core.errors import DataError
from bot.domain.calendar import Sessions
from bot.domain.instruments import OptionContract, settlement_currency
from bot.domain.units import NEVER, NS_PER_YEAR, Nanos, iso, span
from bot.engine import attribution as attributions
from bot.engine import comparison
from bot.engine.account import Account
from bot.engine.ledger import Pnl
from bot.engine.sampler import float_value

SCHEMA = 1


def document(run: Run, *, timing: Mapping[str, float]) -> dict[str, Any]:
    """The result of a finished run, ready for JSON."""
    loop = run.loop
    if loop.started_at is None:
        raise DataError(not_started(run))
    intervals = intervals_of(run)
    books = {account.name: _book(run, account, intervals[account.name]) for account in run.accounts}
    dynamic = run.accounts[0]
    shifts, owed = stress(run), exposures(run)
    return {
        "schema": SCHEMA,
        "run_id": run.run_id,
        "name": run.config.name,
        "release": __version__,
        "config_hash": configs.config_hash(run.config),
        "facts_digest": run.journal.facts_digest.hexdigest(),
        "session": _session(run),
        "feed": _feed(run),
        "orders": dynamic.order_count,
        "fills": dynamic.fill_count,
        "refusals": dict(sorted(dynamic.refusals.items())),
        "skipped": dict(sorted(dynamic.skips.items())),
        "books": books,
        "strategies": _strategies(run),
        "stress": shifts,
        "considerations": considerations(run, books, shifts, owed),
        "proxies": proxies(run),
        "legs": _legs(run),
        "counterparties": owed,
        "gamma_rent": _gamma_rent(run, intervals["dynamic"]),
        "days": _days(run, intervals["dynamic"]),
        "verdict": _verdict(books),
        "alarms": _alarms(run, books),
        "assumptions": assumptions(run),
        "timing": dict(timing),
    }


def not_started(run: Run) -> str:
    """Why a session never began, in one sentence."""
    end = run.config.session.end
    where = f"between {iso(run.config.session.start)} and {iso(end) if end is not None else 'the end of the feed'}"
    return f"{run.config.path.name}: the session never began {where}: {run.loop.not_ready or 'no data arrived'}"


def intervals_of(run: Run) -> dict[str, attributions.Intervals]:
    """Attribution between samples, by account."""
    loop = run.loop
    table = loop.sampler.table()
    spots = {key: loop.sampler.spot_path(key) for key in loop.valuation.slices}
    return {
        account.name: attributions.attribute(table, account.name, loop.valuation, run.universe, spots, loop.convert)
        for account in run.accounts
    }


def final_pnl(run: Run, account: Account) -> Pnl:
    """The exact P&L of an account at the end of its run; DataError naming the marks and rates it lacks."""
    loop, ledger = run.loop, account.ledger
    found = ledger.pnl(lambda key: loop.valuation.mark(key, loop.now), loop.convert)
    if found is None:
        marks = [key for key in ledger.quantities() if loop.valuation.mark(key, loop.now) is None]
        owed = {settlement_currency(run.universe.get(key)) for key in ledger.quantities()} | set(ledger.book.cash())
        rates = [f"{currency} in {ledger.base}" for currency in sorted(owed) if loop.convert(currency) is None]
        lacking = " and ".join(
            f"{what} of {', '.join(names)}" for what, names in (("the mark", marks), ("the rate", rates)) if names
        )
        raise DataError(
            f"{run.config.path.name}: account {account.name}: expected {lacking or 'every mark and rate'} at "
            f"{iso(loop.now)}, found none; rates are named by session.fx"
        )
    return found


# --------------------------------------------------------------------------- parts


def _session(run: Run) -> dict[str, Any]:
    loop = run.loop
    return {
        "start": iso(loop.started_at or 0),
        "end": iso(loop.ended_at or loop.now),
        "configured_start": iso(run.config.session.start),
        "configured_end": None if run.config.session.end is None else iso(run.config.session.end),
        "report_grid": span(run.config.session.report_grid),
        "effectiveness_interval": span(run.config.session.effectiveness_interval),
        "samples": len(loop.sampler.instants),
        "base_currency": run.config.session.base_currency,
    }


def _feed(run: Run) -> dict[str, Any]:
    reports = [(feed.name, feed.report()) for feed in run.feeds]
    refused: dict[str, int] = {}
    repaired: dict[str, int] = {}
    for _, report in reports:
        for target, counts in ((refused, report.refused), (repaired, report.repaired)):
            for reason, count in counts.items():
                target[reason] = target.get(reason, 0) + count
    return {
        "quotes": sum(report.quotes for _, report in reports),
        "trades": sum(report.trades for _, report in reports),
        "refused": dict(sorted(refused.items())),
        "repaired": dict(sorted(repaired.items())),
        "notes": [note for _, report in reports for note in report.notes],
        "files": {f"{name}/{file}": digest for name, report in reports for file, digest in report.files.items()},
        "tape_rows": run.loop.tape.rows,
    }


def _book(run: Run, account: Account, intervals: attributions.Intervals) -> dict[str, Any]:
    loop, ledger = run.loop, account.ledger
    pnl = final_pnl(run, account)
    path = loop.sampler.table().tracks[account.name].pnl
    risk = comparison.assess(
        loop.sampler.instants,
        path,
        start=loop.started_at or 0,
        end=loop.ended_at or loop.now,
        interval=run.config.session.effectiveness_interval,
    )
    return {
        "pnl": {name: number(getattr(pnl, name)) for name in pnl.__struct_fields__},
        "attribution": attribution_numbers(intervals.sum(), pnl.total),
        "trades": ledger.trades,
        "units_traded": number(ledger.units_traded),
        "closing_trades": ledger.closing_trades,
        "closing_units": number(ledger.closing_units),
        "turnover": number(ledger.turnover),
        "orders": account.order_count,
        "fills": account.fill_count,
        "refusals": dict(sorted(account.refusals.items())),
        "skipped": dict(sorted(account.skips.items())),
        "opening_ticket": number(ledger.opening_ticket),
        "pnl_std": _rounded(risk.pnl_std),
        "max_drawdown": _rounded(risk.max_drawdown),
        "tail_loss": _rounded(risk.tail_loss),
        "upside_captured": _rounded(risk.upside_captured),
        "hedge_effectiveness": _rounded(risk.hedge_effectiveness),
        "regression_r2": _rounded(risk.regression_r2),
        "dollar_offset": _rounded(risk.dollar_offset),
        "effectiveness_intervals": risk.intervals,
        "slippage": _slippage(run, account, pnl),
        "positions": {key: number(quantity) for key, quantity in ledger.quantities().items()},
        "policy": [
            getattr(getattr(slot.strategy, "policy", None), "name", slot.strategy.name) for slot in account.slots
        ],
        "cash_only": not account.opened and not account.fill_count,
        "disabled": [slot.disabled for slot in account.slots if slot.disabled],
    }


def attribution_numbers(found: attributions.Attribution, total: Decimal) -> dict[str, float]:
    """The terms as numbers; the residual is what the exact total leaves over."""
    terms = {name: round(getattr(found, name), 6) for name in attributions.TERMS if name != "residual"}
    residual = total - sum((Decimal(repr(value)) for value in terms.values()), Decimal(0))
    return {**terms, "residual": round(float(residual), 6)}


def _slippage(run: Run, account: Account, pnl: Pnl) -> dict[str, float]:
    """What trading lost against the middle at the decision: moved before arrival, spread, impact."""
    delay = Decimal(0)
    for line in account.delays:
        delay += line
    return {"delay": number(delay), "spread": number(pnl.spread_cost), "impact": number(pnl.impact)}


def _strategies(run: Run) -> dict[str, dict[str, Any]]:
    """Each strategy's own figures, and its gauges at the first and last sample with their extremes, by account."""
    gauges = run.loop.sampler.table().gauges
    out: dict[str, dict[str, Any]] = {}
    for account in run.accounts:
        for slot in account.slots:
            name = slot.strategy.name
            own = {key[2]: column for key, column in gauges.items() if key[:2] == (account.name, name)}
            if slot.figures or own:
                out.setdefault(account.name, {})[name] = {
                    "figures": {title: _known_rows(rows) for title, rows in slot.figures.items()},
                    "gauges": {key: _extremes(column) for key, column in own.items()},
                }
    return out


def _known_rows(rows: Mapping[str, float | str | None]) -> dict[str, float | str | None]:
    return {key: value if isinstance(value, str) else _rounded(value, 10) for key, value in rows.items()}


def _extremes(column: NDArray[np.float64]) -> dict[str, float | None]:
    known = column[np.isfinite(column)]
    if not known.size:
        return dict.fromkeys(("first", "last", "least", "greatest"))
    found = {"first": known[0], "last": known[-1], "least": known.min(), "greatest": known.max()}
    return {key: _rounded(float(value), 10) for key, value in found.items()}


def _legs(run: Run) -> list[dict[str, Any]]:
    """Each option leg at the first and last sample: mark, vol, delta. A contract that became another has no last ones."""
    loop = run.loop
    table = loop.sampler.table()
    states = table.tracks["dynamic"].states
    quantities, last = states[0].quantities, states[-1].quantities
    legs: list[dict[str, Any]] = []
    for key, quantity in sorted(quantities.items()):
        contract = run.universe.get(key)
        if not isinstance(contract, OptionContract):
            continue
        s = table.parts[contract.underlying]
        row = s.rows[key]
        vols = table.vols[contract.underlying]
        spot = float(loop.sampler.spot_path(contract.underlying)[0])
        units = loop.valuation.units(s, spot, int(table.instants[0]), vols[0])
        marks = table.prices[key]
        converted = key not in last and contract.expiry > loop.now
        legs.append(
            {
                "instrument": key,
                "underlying": contract.underlying,
                "quantity": number(quantity),
                "strike": number(contract.strike),
                "cp": contract.cp,
                "expiry": iso(contract.expiry),
                "style": contract.style,
                "settlement": contract.settlement,
                "entry_mark": _rounded(float(marks[0]), 10),
                "entry_iv": _rounded(float(vols[0, row]), 10),
                "entry_delta": _rounded(float(units.delta[row]), 10),
                "exit_mark": None if converted else _rounded(float(marks[-1]), 10),
                "exit_iv": None if converted else _rounded(float(vols[-1, row]), 10),
                "vol_age": _vol_age(run, _vol_ts(run, contract)) if not converted else None,
            }
        )
    return legs


def _vol_ts(run: Run, contract: OptionContract) -> Nanos:
    s = run.loop.valuation.slice(contract.underlying)
    return int(s.vol_ts[s.rows[contract.id]])


def _vol_age(run: Run, since: Nanos) -> str | None:
    """How old a vol is at the end; None for one that was never marked, or given and so of no age."""
    if since == NEVER or run.loop.valuation.settings.vol not in {"implied", "marks_file"}:
        return None
    return span(max(0, run.loop.now - since))


def _gamma_rent(run: Run, intervals: attributions.Intervals) -> dict[str, Any]:
    loop = run.loop
    out: dict[str, Any] = {}
    for underlying, s in loop.valuation.slices.items():
        if not s.contracts:
            continue
        spot = loop.sampler.spot_path(underlying)
        vol = loop.sampler.table().vols[underlying]
        years = (loop.sampler.instants[-1] - loop.sampler.instants[0]) / NS_PER_YEAR
        rent = attributions.gamma_rent(intervals, spot, vol, years)
        out[underlying] = {
            "realised_vol": _rounded(rent.realised_vol),
            "implied_vol": _rounded(rent.implied_vol),
            "gamma_pnl": _rounded(rent.gamma_pnl),
            "theta_pnl": _rounded(rent.theta_pnl),
        }
    return out


def _days(run: Run, intervals: attributions.Intervals) -> list[dict[str, Any]]:
    """P&L of `dynamic` by session day of the hedge's calendar.

    The night (from the prior close to the open) stands apart from the session; `carried` is what the holdings of the
    prior close made, `new_trades` what trades since then added; `marks` are prior close, open and last by instrument.
    """
    loop = run.loop
    hedge = next(iter(loop.needed), None)
    name = run.universe.get(hedge).calendar if hedge is not None else "24/7"
    sessions = run.sessions.get(name)
    if sessions is None or not len(intervals.start):
        return []
    labels = [_day_label(sessions, int(ts)) for ts in intervals.end]
    night = np.array(
        [_spans_a_close(sessions, int(a), int(b)) for a, b in zip(intervals.start, intervals.end, strict=True)]
    )
    rows: list[dict[str, Any]] = []
    for label, numbers in _numbers_by(labels).items():
        chosen, by_night = numbers, night[numbers]
        first, last = int(chosen[0]), int(chosen[-1]) + 1
        opened = int(chosen[~by_night][0]) if not by_night.all() else last
        total = float(np.sum(intervals.total[chosen]))
        carried = _carried(run, first, last)
        rows.append(
            {
                "day": label,
                "overnight": {k: _rounded(v) for k, v in _terms(intervals.sum(chosen[by_night])).items()},
                "session": {k: _rounded(v) for k, v in _terms(intervals.sum(chosen[~by_night])).items()},
                "carried": _rounded(carried),
                "new_trades": _rounded(total - carried),
                "marks": _marks(run, first, opened, last),
            }
        )
    return rows


def _numbers_by(labels: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Where each label stands, in order of first sight."""
    found: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        found.setdefault(label, []).append(i)
    return {label: np.array(numbers, dtype=np.int64) for label, numbers in found.items()}


def _spans_a_close(sessions: Sessions, start: Nanos, end: Nanos) -> bool:
    """True when the market was closed at some time between the two: of daily samples every interval is such a night."""
    return not sessions.is_open(start) or sessions.next_close(start) < end


def _carried(run: Run, first: int, last: int) -> float:
    """What the holdings at sample `first` made at mid up to sample `last`, had nothing been traded."""
    table = run.loop.sampler.table()
    made = 0.0
    for key, quantity in table.tracks["dynamic"].states[first].quantities.items():
        path = table.prices[key]
        item = run.universe.get(key)
        change = float_value(item, float(quantity), path[[last]]) - float_value(item, float(quantity), path[[first]])
        rate = run.loop.convert(settlement_currency(item))
        made += float(change[0]) * (float("nan") if rate is None else float(rate))
    return made


def _marks(run: Run, first: int, opened: int, last: int) -> dict[str, dict[str, float | None]]:
    table = run.loop.sampler.table()
    held = table.tracks["dynamic"].states[first].quantities
    return {
        key: {
            "prior_close": _rounded(float(table.prices[key][first])),
            "open": _rounded(float(table.prices[key][opened])),
            "last": _rounded(float(table.prices[key][last])),
        }
        for key in sorted(held)
    }


def _terms(found: attributions.Attribution) -> dict[str, float]:
    return {name: getattr(found, name) for name in (*attributions.TERMS, "total")}


def _day_label(sessions: Sessions, ts: Nanos) -> str:
    """The session an interval that ends at `ts` belongs to: its own while open, else the next to open."""
    day = sessions.date_at(ts - 1) or sessions.date_at(ts) or sessions.date_at(sessions.next_open(ts))
    return iso(ts)[:10] if day is None else day.isoformat()


def _verdict(books: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return comparison.verdict(
        {name: book["pnl"]["total"] for name, book in books.items()},
        {name: book["pnl_std"] for name, book in books.items()},
        {
            name: book["pnl"]["spread_cost"] + book["pnl"]["commission"] + book["pnl"]["impact"]
            for name, book in books.items()
        },
        cash_only=books["none"]["cash_only"],
    )


def _alarms(run: Run, books: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = [
        {"ts": iso(a.ts), "code": a.code, "text": a.text, "underlying": a.underlying, "action": a.action}
        for a in run.loop.alarms
    ]
    book = books["dynamic"]
    options, residual = abs(book["pnl"]["options"]), abs(book["attribution"]["residual"])
    share = run.config.alarms.residual_share
    if residual > share * options and residual >= 0.01:
        found.append(
            {
                "ts": iso(run.loop.now),
                "code": "residual",
                "text": f"the attribution leaves {residual:,.2f} unexplained, more than {share:.0%} of the options' "
                f"P&L of {options:,.2f}",
                "underlying": "",
                "action": "none",
            }
        )
    return found


def assumptions(run: Run) -> list[str]:
    """What the simulation takes for granted, in plain sentences."""
    lines = list(run.capabilities.assumptions)
    american = sorted(
        {c.id[:6].strip() for c in run.universe if isinstance(c, OptionContract) and c.style == "american"}
        & {o.instrument[:6].strip() for o in run.loop.openings}
    )
    if american:
        lines.append(
            f"American contracts ({', '.join(american)}) are valued by European formulas: the early-exercise premium is in "
            "their implied vol."
        )
    lines.append("Tax, exercise by choice before expiry and assignment before expiry are not simulated.")
    for account in run.accounts[1:]:
        lines += [
            f"Account {account.name}: {text}" for text in account.broker.capabilities.assumptions if text not in lines
        ]
    return lines


def number(value: Decimal | float) -> float | int:
    """A decimal as a JSON number, integral ones as integers when they are counts."""
    return float(value)


def _rounded(value: float | None, digits: int = 6) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


# --------------------------------------------------------------------------- the samples as a table


def sample_columns(run: Run) -> dict[str, NDArray[Any]]:
    """The samples of a run as columns: instants, spots, and per account P&L, costs, holdings, delta, cumulative terms.

    Shape: each (samples,). Names: `ts_ns`, `on_grid`, `spot/<underlying>`, `<account>/total|options|hedge|paid`,
    `<account>/held/<instrument>`, `<account>/net_delta|option_delta|net_gamma`, `<account>/option_delta/<underlying>`,
    `<account>/<term>` summed from the start, `<account>/gauge/<strategy>/<name>`.
    """
    loop = run.loop
    table = loop.sampler.table()
    out: dict[str, NDArray[Any]] = {"ts_ns": table.instants, "on_grid": table.grid}
    for underlying in loop.valuation.slices:
        out[f"spot/{underlying}"] = loop.sampler.spot_path(underlying)
    for name, intervals in intervals_of(run).items():
        track = table.tracks[name]
        out |= {f"{name}/{part}": track.pnl[:, i] for i, part in enumerate(("total", "options", "hedge"))}
        out[f"{name}/paid"] = track.costs[:, :3].sum(axis=1)
        held = sorted({key for state in track.states for key in state.quantities})
        for key in held:
            if not isinstance(run.universe.get(key), OptionContract):
                out[f"{name}/held/{key}"] = np.array([float(state.quantities.get(key, 0)) for state in track.states])
        for part, values in (
            ("net_delta", intervals.net_delta),
            ("option_delta", intervals.option_delta),
            ("net_gamma", intervals.net_gamma),
        ):
            out[f"{name}/{part}"] = np.append(values, values[-1] if len(values) else math.nan)
        for key, values in intervals.option_delta_of.items():
            out[f"{name}/option_delta/{key}"] = np.append(values, values[-1] if len(values) else math.nan)
        for term in attributions.TERMS:
            out[f"{name}/{term}"] = np.concatenate(([0.0], np.cumsum(intervals.terms[term])))
    for (name, strategy, gauge), values in table.gauges.items():
        out[f"{name}/gauge/{strategy}/{gauge}"] = values
    return out


def hedge_columns(run: Run) -> dict[str, NDArray[Any]]:
    """Attribution of `dynamic` between consecutive fills, as columns `from_ns`, `to_ns`, the terms and `total`."""
    intervals = intervals_of(run)["dynamic"]
    rows = attributions.per_hedge(intervals, run.loop.sampler.table().tracks["dynamic"].fills)
    out: dict[str, NDArray[Any]] = {
        "from_ns": np.array([start for start, _, _ in rows], dtype=np.int64),
        "to_ns": np.array([end for _, end, _ in rows], dtype=np.int64),
    }
    for name in (*attributions.TERMS, "total"):
        out[name] = np.array([getattr(found, name) for _, _, found in rows], dtype=np.float64)
    return out
