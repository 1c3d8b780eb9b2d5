"""The material of a report is what a stored run's folder says, gathered; law: it reads and computes nothing it could be told.

Parts that are missing or damaged are named. The dynamic account's orders, decisions and happenings come from the journal.
"""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.app import calendars, plots
from bot.app.plots import Axis
from bot.app.report_html import plain, quantity
from bot.app.runs import CONFIG, INSTRUMENTS, StoredRun
from bot.core.errors import ConfigError, DataError, RunNotFound
from bot.core.events import Alarm, Corporate, Evidence, Lifecycle
from bot.domain.orders import Fill, Order
from bot.domain.units import NS_PER_DAY, NS_PER_SECOND, Nanos, parse_instant, parse_span
from bot.engine.journal import Adjusted, Alarmed, Controlled, Ended, Executed, Ordered, Refused, TargetSet, VenueSaid

Floats: TypeAlias = NDArray[np.float64]
Doc: TypeAlias = Mapping[str, Any]

DYNAMIC: Final = "dynamic"


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """An order of the dynamic account and what became of it."""

    order: Order
    fills: tuple[Fill, ...]
    said: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a strategy of the dynamic account decided to hold of one instrument, on what evidence."""

    ts: Nanos
    instrument: str
    evidence: Evidence


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to the dynamic account other than a trade."""

    ts: Nanos
    what: str
    text: str


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a page is made from."""

    doc: Doc
    samples: dict[str, NDArray[Any]]
    hedges: list[Hedge]
    decisions: list[Decision]
    happenings: list[Happening]
    alarms: list[Alarm]
    multipliers: dict[str, float]
    inverse: frozenset[str]
    proxies: frozenset[str]
    axis: Axis
    config_text: str

    @property
    def accounts(self) -> list[str]:
        """The accounts' names, dynamic first."""
        return list(self.doc["books"])

    @property
    def currency(self) -> str:
        """The base currency all money is in."""
        return str(self.doc["session"].get("base_currency", ""))

    @property
    def instants(self) -> NDArray[np.int64]:
        """The samples' instants. Shape: (samples,)."""
        return self.samples["ts_ns"]

    @property
    def underlyings(self) -> list[str]:
        """The underlyings with a sampled price."""
        return [name.removeprefix("spot/") for name in self.samples if name.startswith("spot/")]

    def column(self, account: str, name: str) -> Floats:
        """One sampled column of an account; zeros when the run has none. Shape: (samples,)."""
        found = self.samples.get(f"{account}/{name}")
        return np.zeros(len(self.instants)) if found is None else np.asarray(found, dtype=np.float64)

    def book(self, account: str = DYNAMIC) -> Doc:
        """The figures of one account."""
        found: Doc = self.doc["books"][account]
        return found


def is_hedged(book: Doc) -> bool:
    """Whether an account traded at all."""
    return bool(book.get("trades") or book.get("closing_trades"))


def total_cost(book: Doc) -> float:
    """Spread, commission and impact of an account, financing apart."""
    pnl = book["pnl"]
    return float(pnl["spread_cost"] + pnl["commission"] + pnl["impact"])


def gather(stored: StoredRun) -> Material:
    """What the page is made from, read from the run's folder."""
    with _reading(stored):
        doc = stored.result()
        samples = stored.samples()
    hedges, decisions, happenings, alarms = _told(stored)
    instruments = _instruments(stored.folder / INSTRUMENTS)
    config_text = _text(stored.folder / CONFIG)
    at = samples["ts_ns"]
    start = int(at[0]) if len(at) else parse_instant(doc["session"]["start"])
    end = int(at[-1]) if len(at) else start
    configured = _configured_hedges(config_text)
    closed = _closed(_calendar(configured, instruments), start, end, doc["session"].get("report_grid", ""), at)
    return Material(
        doc=doc,
        samples=samples,
        hedges=hedges,
        decisions=decisions,
        happenings=happenings,
        alarms=alarms,
        multipliers={i["id"]: float(i.get("multiplier", 1)) for i in instruments},
        inverse=frozenset(i["id"] for i in instruments if i.get("inverse")),
        proxies=frozenset(str(h.get("instrument")) for h in configured if h.get("beta") is not None),
        axis=Axis(start, end, closed),
        config_text=config_text,
    )


@contextlib.contextmanager
def _reading(stored: StoredRun) -> Iterator[None]:
    """Turn the faults of a folder that is no whole run into one sentence."""
    try:
        yield
    except FileNotFoundError as fault:
        missing = Path(str(fault.filename or fault)).name
        raise RunNotFound(f"run {stored.run_id}: expected {missing} in its folder, found none") from fault
    except ValueError as fault:  # json and pyarrow both report damage as kinds of ValueError
        raise DataError(f"run {stored.run_id}: a stored part cannot be read: {fault}") from fault


def _told(stored: StoredRun) -> tuple[list[Hedge], list[Decision], list[Happening], list[Alarm]]:
    """What the journal tells of the dynamic account: orders with their fills, decisions, happenings; and all alarms."""
    orders: dict[str, Order] = {}
    fills: dict[str, list[Fill]] = {}
    said: dict[str, str] = {}
    decisions: list[Decision] = []
    happenings: list[Happening] = []
    alarms: list[Alarm] = []
    for step in stored.steps():
        for fact in step.facts:
            if isinstance(fact, Alarmed):
                alarms.append(fact.alarm)
            if fact.account != DYNAMIC:
                continue
            match fact:
                case Ordered(order=order):
                    orders[order.id] = order
                case Executed(fill=fill):
                    fills.setdefault(fill.order_id, []).append(fill)
                case VenueSaid(order_id=key, what=what, text=text):
                    said[key] = f"{what}: {text}" if text else what
                case TargetSet(evidence=evidence, lines=lines) if evidence is not None:
                    decisions += [Decision(ts=step.ts, instrument=n.instrument, evidence=evidence) for n in lines]
                case Refused(refusal=r):
                    text = f"order for {quantity(r.quantity)} {r.instrument}: {r.text}"
                    happenings.append(Happening(ts=r.ts, what=f"refused ({r.code})", text=text))
                case Ended(event=event):
                    happenings.append(Happening(ts=event.ts_recv, what=event.what, text=_ended(event)))
                case Adjusted(event=event):
                    happenings.append(Happening(ts=event.ts_recv, what=event.what, text=_adjusted(fact, event)))
                case Controlled(verb=verb, argument=argument):
                    happenings.append(Happening(ts=step.ts, what="control", text=f"{verb} {argument}".strip()))
                case _:
                    pass
    hedges = [Hedge(order=o, fills=tuple(fills.get(k, ())), said=said.get(k, "")) for k, o in orders.items()]
    return hedges, decisions, happenings, alarms


def _ended(event: Lifecycle) -> str:
    text = f"{quantity(event.quantity)} {event.instrument} at {plain(event.value)} a unit"
    if event.deliver is None:
        return text
    return text + f"; {quantity(event.deliver_quantity)} {event.deliver} at {plain(event.deliver_price)}"


def _adjusted(fact: Adjusted, event: Corporate) -> str:
    def holdings(of: Mapping[str, Decimal]) -> str:
        return ", ".join(f"{quantity(q)} {key}" for key, q in of.items()) or "nothing"

    text = f"{event.instrument}: {holdings(fact.before)} became {holdings(fact.after)}"
    if event.cash:
        text += f", {plain(event.cash)} cash a unit"
    return text if event.adjusted else text + "; how contracts adjust is not known, the underlying is frozen"


def _instruments(path: Path) -> list[dict[str, Any]]:
    text = _text(path)
    found = json.loads(text) if text else []
    return [i for i in found if isinstance(i, dict) and "id" in i]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _configured_hedges(config_text: str) -> list[dict[str, Any]]:
    """The [[hedges]] of the run's own config; none when it cannot be read, which leaves the page without closed hours."""
    try:
        found = tomllib.loads(config_text).get("hedges", [])
    except tomllib.TOMLDecodeError:
        return []
    return [hedge for hedge in found if isinstance(hedge, dict)]


def _calendar(hedges: Sequence[Mapping[str, Any]], instruments: Sequence[Mapping[str, Any]]) -> str:
    """The calendar of the first hedge instrument, which the run's days follow too; "24/7" when none is known."""
    wanted = [hedge.get("instrument") for hedge in hedges]
    calendar_of = {i["id"]: str(i.get("calendar", "24/7")) for i in instruments}
    return next((calendar_of[key] for key in wanted if key in calendar_of), "24/7")


def _closed(calendar: str, start: Nanos, end: Nanos, grid: str, at: NDArray[np.int64]) -> list[tuple[Nanos, Nanos]]:
    """The nights and weekends of a run sampled within the day; none where the calendar does not fit the samples."""
    try:
        spacing = parse_span(grid)
        sessions = calendars.named(calendar, _date(start), _date(end))
    except (ValueError, ConfigError):
        return []
    if spacing >= NS_PER_DAY // 4:
        return []
    stretches = plots.closed_stretches(sessions.opens.tolist(), sessions.closes.tolist())
    stretches = [(a, b) for a, b in stretches if a < end and b > start]
    outside = Axis(start, end, stretches).is_closed(at)
    return stretches if np.count_nonzero(~outside) >= 2 else []


def _date(ts: Nanos) -> date:
    return datetime.fromtimestamp(ts // NS_PER_SECOND, UTC).date()
