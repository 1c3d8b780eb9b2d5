"""A report is one HTML page that says what hedging did in a stored run; law: it stands alone and says what is not known.

It asks no network for anything: style and plots are inside it, and its own security policy forbids the rest. All text
from outside is escaped. A figure that is not known is a dash with a note, never NaN. The same run gives the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.app import calendars, plots
from bot.app.plots import Area, Axis, Line, Marks, Panel
from bot.app.runs import INSTRUMENTS, StoredRun
from bot.core.errors import ConfigError, DataError, RunNotFound, StorageError
from bot.core.events import Alarm, Corporate, Evidence, Lifecycle
from bot.domain.orders import Fill, Order
from bot.domain.units import NS_PER_DAY, NS_PER_SECOND, Nanos, iso, parse_instant, parse_span
from bot.engine.attribution import TERMS
from bot.engine.journal import Adjusted, Alarmed, Controlled, Ended, Executed, Ordered, Refused, TargetSet, VenueSaid

Floats = NDArray[np.float64]
Doc = Mapping[str, Any]

DYNAMIC: Final = "dynamic"
DASH: Final = "–"
SHOWN_ROWS: Final = 12
"""Rows of a long list that stand open; the rest is folded."""
MOST_ROWS: Final = 1000
"""Rows of a list that the page carries at all; it says how many more there are and where."""
MOST_BARS: Final = 90
MOST_UNDERLYINGS: Final = 6


class Markup(str):
    """Text that is HTML already; plain strings are escaped wherever they are put."""

    __slots__ = ()


def write_report(stored: StoredRun, out: Path) -> Path:
    """The path of the finished page about a stored run, written whole or not at all.

    RunNotFound when the folder lacks a part of a run, DataError or JournalError when a part is damaged, StorageError
    when the page cannot be written.
    """
    page = render(gather(stored))
    _write_whole(out, page)
    return out


# --------------------------------------------------------------------------- what a page is made from


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


def gather(stored: StoredRun) -> Material:
    """What the page is made from, read from the run's folder."""
    with _reading(stored):
        doc = stored.result()
        samples = stored.samples()
    hedges, decisions, happenings, alarms = _told(stored)
    instruments = _instruments(stored.folder / INSTRUMENTS)
    config_text = _text(stored.folder / "config.toml")
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


def _date(ts: Nanos) -> Any:
    return datetime.fromtimestamp(ts // NS_PER_SECOND, UTC).date()


# --------------------------------------------------------------------------- how figures are worded


def money(value: float | Decimal | None) -> str:
    """Two decimals with thousands separators; a dash when not known.

    >>> money(-6537.5), money(-0.001), money(None)
    ('-6,537.50', '0.00', '–')
    """
    return figure(value, 2)


def figure(value: float | Decimal | None, digits: int) -> str:
    """A number with so many decimals and thousands separators; a dash when not known."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:,.{digits}f}"
    return text if any(c in "123456789" for c in text) else text.lstrip("-")


def share(value: float | None, digits: int = 1) -> str:
    """A ratio as a percentage; a dash when not known."""
    text = figure(None if value is None else 100.0 * value, digits)
    return text if text == DASH else text + "%"


def plain(value: float | Decimal | None) -> str:
    """A price or quantity with the decimals it has, at most ten, and thousands separators."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{Decimal(str(value)):,.10f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def quantity(value: float | Decimal | None) -> str:
    """A signed quantity: bought +, sold -."""
    text = plain(value)
    return text if text in {DASH, "0"} or text.startswith("-") else "+" + text


def when(ts: Nanos) -> str:
    """An instant in UTC for a table: date, time, and milliseconds only when it has some."""
    text = iso(int(ts)).replace("T", " ").rstrip("Z")
    return text[:23] if "." in text else text


def length(ns: Nanos | None) -> str:
    """A length of time for a reader, to two figures' worth of its unit.

    >>> length(193_316_109), length(60_000_000_000), length(364 * 86_400_000_000_000), length(0)
    ('193 ms', '1 min', '364 d', '0 s')
    """
    if ns is None:
        return DASH
    if abs(ns) < NS_PER_SECOND:
        return "0 s" if ns == 0 else f"{ns / 1e6:,.0f} ms" if abs(ns) >= 1_000_000 else f"{ns / 1e3:,.0f} µs"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if abs(ns) >= size * NS_PER_SECOND:
            return f"{ns / (size * NS_PER_SECOND):,.1f}".removesuffix(".0") + f" {unit}"
    return DASH


def called(account: str) -> str:
    """What a sentence calls an account."""
    return {"none": "the unhedged book", "static": "the static hedge", "dynamic": "dynamic hedging"}.get(account, account)


def capital(sentence: str) -> str:
    """A sentence with its first letter large."""
    return sentence[:1].upper() + sentence[1:]


def names(of: Sequence[str]) -> str:
    """Names joined as a sentence does."""
    return of[0] if len(of) == 1 else ", ".join(of[:-1]) + " and " + of[-1]


# --------------------------------------------------------------------------- HTML


def tag(name: str, *inside: str, cls: str = "", **attributes: str) -> Markup:
    """An element; plain text inside it is escaped."""
    listed = {"class": cls, **attributes} if cls else attributes
    head = name + "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in listed.items())
    return Markup(f"<{head}>{''.join(_safe(part) for part in inside)}</{name}>")


def join(parts: Iterable[str], between: str = "\n") -> Markup:
    """Parts one after the other, each escaped unless it is HTML already."""
    return Markup(between.join(_safe(part) for part in parts if part))


def _safe(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)


class Column(msgspec.Struct, frozen=True):
    """A table's column: its heading and its class (l left, w wrapped; numbers stand right)."""

    head: str
    cls: str = ""


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, caption: str = "", last_is_sum: bool = False
) -> Markup:
    """A table whose rows beyond the first dozen are folded, and beyond a thousand are counted only."""
    open_rows = rows if len(rows) <= SHOWN_ROWS + 3 else rows[:SHOWN_ROWS]
    folded = rows[len(open_rows) : MOST_ROWS]
    parts = [_table(columns, open_rows, caption, last_is_sum=last_is_sum and not folded)]
    if folded:
        left = len(rows) - len(open_rows)
        more = (
            f"{left:,} more"
            if len(rows) <= MOST_ROWS
            else f"{len(folded):,} of {left:,} more; `evenkeel export` has all"
        )
        parts.append(tag("details", tag("summary", more), _table(columns, folded, "", last_is_sum=False)))
    return join(parts)


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]], caption: str, *, last_is_sum: bool) -> Markup:
    head = tag("thead", tag("tr", *[tag("th", c.head, cls=c.cls, scope="col") for c in columns]))
    body = [
        tag(
            "tr",
            *[tag("td", cell, cls=c.cls) for c, cell in zip(columns, row, strict=True)],
            cls="sum" if last_is_sum and i == len(rows) - 1 else "",
        )
        for i, row in enumerate(rows)
    ]
    title = tag("caption", caption) if caption else Markup()
    return tag("div", tag("table", title, head, tag("tbody", join(body))), cls="scroll")


def chart(title: str, plot: str, *, caption: str = "", legend: Markup | None = None) -> Markup:
    """A figure: the finding as its title, a line of explanation, its legend and the plot."""
    return tag(
        "figure",
        tag("h3", title),
        tag("figcaption", caption) if caption else Markup(),
        legend or Markup(),
        tag("div", Markup(plot), cls="scroll"),
    )


def section(key: str, title: str, *parts: str) -> Markup:
    """A part of the page that the contents can point at."""
    return tag("section", tag("h2", title), *parts, id=key)


def _swatch(series: int, name: str, value: str = "", *, chip: bool = False, plain_line: bool = False) -> Markup:
    style = ("solid", "dashed", "dotted", "dashed", "dashed")[0 if plain_line else series % 5]
    look = f"background: var(--s{series % 8})" if chip else f"border-top: 3px {style} var(--s{series % 8})"
    mark = tag("span", cls="chip" if chip else "swatch", style=look)
    return tag("span", mark, name, tag("span", value, cls="v") if value else Markup())


def _legend(items: Iterable[Markup]) -> Markup:
    return tag("div", *items, cls="legend")


# --------------------------------------------------------------------------- the page


def render(m: Material) -> str:
    """The whole page as text."""
    sections = [
        ("comparison", "Comparison", comparison_section(m)),
        ("pnl", "P&L", pnl_section(m)),
        ("hedging", "Hedging", hedging_section(m)),
        ("attribution", "Attribution", attribution_section(m)),
        ("cost", "Cost", cost_section(m)),
        ("book", "Book", book_section(m)),
        ("decisions", "Decisions", decisions_section(m)),
        ("data", "Data and assumptions", data_section(m)),
    ]
    contents = tag("nav", *[tag("a", title, href=f"#{key}") for key, title, _ in sections], aria_label="Contents")
    style = files("bot.app").joinpath("report_style.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = join(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            tag("title", f"{m.doc.get('name', '')}: {headline(m)}"),
            Markup(f"<style>\n{style}</style>"),
        ]
    )
    body = join([header(m), contents, tag("main", *[part for _, _, part in sections]), foot(m)])
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def headline(m: Material) -> str:
    """Who won, in one sentence: the dynamic account's result against the best of all."""
    totals = {name: m.book(name)["pnl"]["total"] for name in m.accounts}
    best = max(totals.values())
    winners = [name for name, value in totals.items() if value == best]
    mine = totals[DYNAMIC]
    currency = m.currency
    if len(winners) == len(totals):
        return f"All accounts made the same: {money(best)} {currency}"
    if DYNAMIC in winners:
        others = [n for n in winners if n != DYNAMIC]
        second = max(value for name, value in totals.items() if name not in winners)
        level = f"level with {names(others)}" if others else f"{money(best - second)} more than the next"
        return f"Dynamic hedging won: {money(mine)} {currency}, {level}"
    verb = "won" if len(winners) == 1 else "tied for best"
    who = {"none": "not hedging", "static": "the static hedge"}
    said = names([who.get(name, name) for name in winners])
    return f"{capital(said)} {verb}: {money(best)} {currency} against {money(mine)} for dynamic hedging"


def header(m: Material) -> Markup:
    """The name of the run, the verdict, its alarms, and the few figures everybody asks for."""
    doc, session = m.doc, m.doc["session"]
    start, end = parse_instant(session["start"]), parse_instant(session["end"])
    who = f" · {m.doc.get('name', '')} · {when(start)} to {when(end)} UTC ({length(end - start)})"
    return tag(
        "header",
        tag("p", tag("b", "evenkeel"), who, cls="brand"),
        tag("h1", headline(m)),
        tag("ul", *[tag("li", line) for line in doc.get("verdict", [])], cls="verdict"),
        alarms_box(m),
        tiles(m),
    )


def tiles(m: Material) -> Markup:
    """Six figures of the dynamic account."""
    book = m.book()
    pnl = book["pnl"]
    rest = [f"{name} {money(m.book(name)['pnl']['total'])}" for name in m.accounts if name != DYNAMIC][:2]
    cost = pnl["spread_cost"] + pnl["commission"] + pnl["impact"]
    shown = [
        ("Dynamic P&L", money(pnl["total"]), ", ".join(rest)),
        ("Options at mid", money(pnl["options"]), f"hedge {money(pnl['hedge'])}"),
        ("Cost of hedging", money(cost), f"financing {money(pnl['financing'])}"),
        (
            "Hedge effectiveness",
            figure(book.get("hedge_effectiveness"), 3),
            f"R² {figure(book.get('regression_r2'), 3)}, every {m.doc['session'].get('effectiveness_interval', DASH)}",
        ),
        ("Hedges", f"{book['trades']:,}", f"{plain(book['units_traded'])} units; {book['closing_trades']:,} to close"),
        ("Largest drawdown", money(book.get("max_drawdown")), f"std {money(book.get('pnl_std'))} an interval"),
    ]
    return tag(
        "div",
        *[
            tag("div", tag("div", k, cls="k"), tag("div", v, cls="v"), tag("div", d, cls="d"), cls="tile")
            for k, v, d in shown
        ],
        cls="tiles",
    )


def alarms_box(m: Material) -> Markup:
    """What a person should see first: alarms, faults, refusals, skipped decisions; nothing when there is nothing."""
    lines: list[Markup] = []
    by_code: dict[str, list[Mapping[str, Any]]] = {}
    for alarm in _all_alarms(m):
        by_code.setdefault(str(alarm.get("code", "")), []).append(alarm)
    for code, found in by_code.items():
        said = [_alarm_line(alarm) for alarm in found]
        more = said[3:200]
        rest = tag(
            "details", tag("summary", f"{len(said) - 3:,} more {code}"), tag("ul", *[tag("li", s) for s in more])
        )
        lines += [tag("li", s) for s in said[:3]] + ([tag("li", rest)] if more else [])
    for name in m.accounts:
        for why in m.book(name).get("disabled", []):
            lines.append(tag("li", tag("b", f"A strategy of {name} was stopped: "), str(why)))
    for title, counts in (("Orders refused", m.doc.get("refusals")), ("Decisions skipped", m.doc.get("skipped"))):
        if counts:
            lines.append(tag("li", tag("b", f"{title}: "), ", ".join(f"{n:,} × {why}" for why, n in counts.items())))
    unfilled = [h for h in m.hedges if not h.fills]
    if unfilled:
        text = f"{len(unfilled):,} of {len(m.hedges):,} orders never filled"
        lines.append(tag("li", tag("b", text), ": see ", tag("a", "Decisions", href="#decisions")))
    if not lines:
        return Markup()
    count = sum(len(found) for found in by_code.values())
    title = f"{count:,} alarm{'s' if count != 1 else ''}" if count else "Worth a look"
    return tag("aside", tag("h2", title), tag("ul", *lines), cls="alarms")


def _all_alarms(m: Material) -> list[Mapping[str, Any]]:
    """The result's alarms, and those of the journal that it lacks."""
    listed: list[Mapping[str, Any]] = list(m.doc.get("alarms", []))
    known = {(a.get("ts"), a.get("code"), a.get("text")) for a in listed}
    return listed + [
        {"ts": iso(a.ts), "code": a.code, "text": a.text, "action": a.action}
        for a in m.alarms
        if (iso(a.ts), a.code, a.text) not in known
    ]


def _alarm_line(alarm: Mapping[str, Any]) -> Markup:
    ts = str(alarm.get("ts", "")).replace("T", " ").rstrip("Z")
    action = str(alarm.get("action", "none"))
    done = f" Done: {action}." if action not in {"", "none"} and action not in str(alarm.get("text")) else ""
    return join([tag("code", str(alarm.get("code", ""))), f"{ts} UTC: {alarm.get('text', '')}.{done}"], " ")


# --------------------------------------------------------------------------- comparison

Figures = Callable[[Doc], float | None]
Best = Callable[[Sequence[float]], float]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the comparison: what it is, how it is read and worded, and which of its values is best."""

    name: str
    of: Figures
    word: Callable[[float | None], str] = money
    best: Best | None = None
    hedged_only: bool = False
    hint: str = ""


def _pnl(key: str) -> Figures:
    return lambda book: book["pnl"].get(key)


def _own(key: str) -> Figures:
    return lambda book: book.get(key)


def _nearest_one(values: Sequence[float]) -> float:
    return min(values, key=lambda value: abs(value - 1.0))


def _total_cost(book: Doc) -> float:
    pnl = book["pnl"]
    return float(pnl["spread_cost"] + pnl["commission"] + pnl["impact"])


def _ratio(value: float | None) -> str:
    return figure(value, 3)


def _comparison_rows() -> list[tuple[str, list[Row]]]:
    return [
        (
            "Result",
            [
                Row(name="Total P&L", of=_pnl("total"), best=max),
                Row(name="Options", of=_pnl("options"), hint="at mid"),
                Row(name="Hedge", of=_pnl("hedge"), hint="at mid"),
                Row(name="Financing", of=_pnl("financing"), hint="interest and borrow"),
                Row(name="Upside captured", of=_own("upside_captured"), word=share, best=max, hedged_only=True),
            ],
        ),
        (
            "Cost",
            [
                Row(name="All costs", of=_total_cost, best=min, hedged_only=True, hint="spread, commission, impact"),
                Row(name="Spread", of=_pnl("spread_cost"), best=min, hedged_only=True),
                Row(name="Commission", of=_pnl("commission"), best=min, hedged_only=True),
                Row(name="Impact", of=_pnl("impact"), best=min, hedged_only=True),
                Row(name="Opening ticket, apart", of=_own("opening_ticket")),
            ],
        ),
        (
            "Risk",
            [
                Row(name="Standard deviation", of=_own("pnl_std"), best=min, hint="of P&L an interval"),
                Row(name="Largest drawdown", of=_own("max_drawdown"), best=min),
                Row(name="Tail loss", of=_own("tail_loss"), best=min, hint="mean of the worst 5% of intervals"),
                Row(
                    name="Hedge effectiveness", of=_own("hedge_effectiveness"), word=_ratio, best=max, hedged_only=True
                ),
                Row(name="R² of options on hedge", of=_own("regression_r2"), word=_ratio, best=max, hedged_only=True),
                Row(
                    name="Dollar offset",
                    of=_own("dollar_offset"),
                    word=_ratio,
                    best=_nearest_one,
                    hedged_only=True,
                    hint="1 offsets all",
                ),
            ],
        ),
        (
            "Trading",
            [
                Row(name="Rebalances", of=_own("trades"), word=plain),
                Row(name="Units traded", of=_own("units_traded"), word=plain),
                Row(name="Closing trades", of=_own("closing_trades"), word=plain, hint="their cost is counted above"),
                Row(name="Closing units", of=_own("closing_units"), word=plain),
                Row(name="Turnover", of=_own("turnover")),
                Row(name="Orders", of=_own("orders"), word=plain),
                Row(name="Fills", of=_own("fills"), word=plain),
            ],
        ),
    ]


def comparison_section(m: Material) -> Markup:
    """All figures of all accounts side by side, the best of each row marked."""
    head = tag(
        "thead",
        tag(
            "tr",
            tag("th", m.currency, cls="l", scope="col"),
            *[_account_head(m, i, a) for i, a in enumerate(m.accounts)],
        ),
    )
    body: list[Markup] = []
    dashes = False
    for group, rows in _comparison_rows():
        body.append(tag("tr", tag("th", group, colspan=str(len(m.accounts) + 1), scope="rowgroup"), cls="group"))
        for row in rows:
            values = [row.of(m.book(account)) for account in m.accounts]
            dashes = dashes or any(value is None for value in values)
            body.append(_comparison_row(row, values, [_hedged(m.book(account)) for account in m.accounts]))
    session = m.doc["session"]
    intervals = m.book().get("effectiveness_intervals")
    note = (
        f"Total = options + hedge - costs + financing. Risk figures are of {plain(intervals)} intervals of "
        f"{session.get('effectiveness_interval', DASH)}; effectiveness is 1 - var(options + hedge) / var(options) at mid, costs "
        "apart. ● marks the best of a row; accounts without a hedge do not compete where they would win by doing nothing."
    )
    if dashes:
        note += f" {DASH} is not known: too few intervals, or nothing moved."
    grid = tag("div", tag("table", head, tag("tbody", join(body))), cls="scroll")
    return section("comparison", "Every account, on the same ticks and costs", grid, tag("p", note, cls="note"))


def _account_head(m: Material, series: int, account: str) -> Markup:
    policy = ", ".join(str(name) for name in m.book(account).get("policy", []))
    style = f"border-top: 3px solid var(--s{series % 8})"
    return tag(
        "th",
        tag("span", account),
        Markup("<br>"),
        tag("span", policy, cls="sub", style="font-weight:400"),
        scope="col",
        style=style,
    )


def _hedged(book: Doc) -> bool:
    return bool(book.get("trades") or book.get("closing_trades"))


def _comparison_row(row: Row, values: Sequence[float | None], hedged: Sequence[bool]) -> Markup:
    running = [i for i, v in enumerate(values) if v is not None and (hedged[i] or not row.hedged_only)]
    marked: set[int] = set()
    if row.best is not None and len(running) > 1:
        best = row.best([float(values[i] or 0.0) for i in running])
        marked = {i for i in running if values[i] == best}
        marked = set() if len(marked) == len(running) else marked
    name = tag("th", row.name, tag("small", f" {row.hint}") if row.hint else Markup(), scope="row")
    cells = [
        tag("td", row.word(value), cls="best", title="best of the row") if i in marked else tag("td", row.word(value))
        for i, value in enumerate(values)
    ]
    return tag("tr", name, *cells, cls="sum" if row.name == "Total P&L" else "")


# --------------------------------------------------------------------------- P&L over time


def pnl_section(m: Material) -> Markup:
    """P&L of the accounts over time, and how far each stood below its best."""
    if not len(m.instants):
        return section("pnl", "P&L over time", tag("p", "The run has no samples to draw.", cls="note"))
    paths = {account: m.column(account, "total") for account in m.accounts}
    everyone = [Line(y=path, series=i, width=1.7 if i == 0 else 1.2) for i, path in enumerate(paths.values())]
    panels = [Panel(unit=f"P&L of every account, {m.currency}", lines=everyone, height=2.7)]
    close = [line for line, account in zip(everyone, m.accounts, strict=True) if _hedged(m.book(account))]
    if close and len(close) < len(everyone) and _reach(everyone) > 2.5 * _reach(close):
        panels.append(Panel(unit=f"the hedged accounts on their own scale, {m.currency}", lines=close, height=2.5))
    legend = _legend(_swatch(i, name, money(m.book(name)["pnl"]["total"])) for i, name in enumerate(m.accounts))
    pnl = chart(
        _pnl_title(m),
        plots.over_time("pnl", m.axis, m.instants, panels, label="P&L of the accounts over time"),
        caption="Net of costs and financing, options and hedges at mid until the close." + _axis_note(m),
        legend=legend,
    )
    falls = {account: -_fall(path) for account, path in paths.items()}
    lines = [Line(y=path, series=i, width=1.5 if i == 0 else 1.1) for i, path in enumerate(falls.values())]
    legend = _legend(_swatch(i, name, money(m.book(name).get("max_drawdown"))) for i, name in enumerate(m.accounts))
    drawdown = chart(
        _drawdown_title(m),
        plots.over_time(
            "drawdown",
            m.axis,
            m.instants,
            [Panel(unit=f"below the best so far, {m.currency}", lines=lines, height=2.0)],
            label="Drawdown of the accounts over time",
        ),
        legend=legend,
    )
    return section("pnl", "P&L over time", pnl, drawdown)


def _reach(lines: Sequence[Line]) -> float:
    values = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    return float(np.ptp(values)) if len(values) else 0.0


def _fall(path: Floats) -> Floats:
    """How far a path stands below its best so far, from zero at the start. Shape: (n,)."""
    best = np.maximum.accumulate(np.where(np.isnan(path), 0.0, np.maximum(path, 0.0)))
    return np.asarray(best - path)


def _pnl_title(m: Material) -> str:
    totals = {name: m.book(name)["pnl"]["total"] for name in m.accounts}
    ranked = sorted(totals, key=lambda name: -totals[name])
    if len(set(totals.values())) == 1:
        return f"Every account ended at {money(totals[DYNAMIC])}"
    place = ranked.index(DYNAMIC) + 1
    if place == 1:
        return f"Dynamic hedging ended first of {len(ranked)} accounts, {called(ranked[-1])} last"
    where = "last" if place == len(ranked) else f"number {place}"
    return capital(f"{called(ranked[0])} ended ahead; dynamic hedging came {where} of {len(ranked)} accounts")


def _drawdown_title(m: Material) -> str:
    falls = {name: m.book(name).get("max_drawdown") for name in m.accounts}
    known = {name: value for name, value in falls.items() if value is not None}
    if not known or max(known.values()) == 0.0:
        return "No account ever fell below its best"
    deep, calm = max(known, key=lambda n: known[n]), min(known, key=lambda n: known[n])
    if known[deep] == known[calm]:
        return f"Every account fell {money(known[deep])} at most below its best"
    return capital(
        f"{called(deep)} fell deepest below its best, {money(known[deep])}; {called(calm)} least, {money(known[calm])}"
    )


def _axis_note(m: Material) -> str:
    inner = len(m.axis.breaks())
    if not inner:
        return " Times are UTC."
    return f" Times are UTC; dotted lines are {inner} closed stretch{'es' if inner > 1 else ''}, pressed together."


# --------------------------------------------------------------------------- hedging


class HedgeTrack(msgspec.Struct, frozen=True, kw_only=True):
    """One hedge instrument over time. Shape: all (samples,); NaN where not known."""

    instrument: str
    underlying: str
    held: Floats
    needed: Floats
    lo: Floats
    hi: Floats
    net: Floats | None = None
    net_lo: Floats | None = None
    net_hi: Floats | None = None


def hedging_section(m: Material) -> Markup:
    """Net delta with its band, the hedge held, and every hedge on the price path."""
    if not len(m.instants):
        return section("hedging", "Hedging", tag("p", "The run has no samples to draw.", cls="note"))
    pairs = list(dict.fromkeys((d.instrument, d.evidence.underlying) for d in m.decisions))
    tracks = [_track(m, *pair, alone=len(pairs) == 1) for pair in pairs[:MOST_UNDERLYINGS]]
    parts: list[str] = []
    if tracks:
        parts += [_delta_chart(m, i, track) for i, track in enumerate(tracks)]
    else:
        parts.append(_unhedged_delta(m))
    parts += [_price_chart(m, i, underlying, pairs) for i, underlying in enumerate(_drawn_underlyings(m, pairs))]
    left = max(len(m.underlyings), len({u for _, u in pairs})) - MOST_UNDERLYINGS
    if left > 0:
        parts.append(tag("p", f"{left:,} more underlyings are not drawn; the tables carry them.", cls="note"))
    return section("hedging", "What was hedged, and when", *parts)


def _drawn_underlyings(m: Material, pairs: Sequence[tuple[str, str]]) -> list[str]:
    traded = [u for u in dict.fromkeys(u for _, u in pairs) if u in m.underlyings]
    return (traded + [u for u in m.underlyings if u not in traded])[:MOST_UNDERLYINGS]


def _track(m: Material, instrument: str, underlying: str, *, alone: bool) -> HedgeTrack:
    """What a hedge was, what the options needed, and the band of the last decision.

    With one hedge in the run the band is carried as a band of net delta, in which it stands still between decisions
    while the options' delta moves; with several the samples carry no delta by underlying, and edges are carried as decided.
    """
    at = m.instants
    found = [d for d in m.decisions if d.instrument == instrument and d.evidence.underlying == underlying]
    decided = np.array([d.ts for d in found], dtype=np.int64)
    index = np.searchsorted(decided, at, side="right") - 1
    held = m.column(DYNAMIC, f"held/{instrument}")

    def carried(values: Floats) -> Floats:
        return np.where(index >= 0, values[np.maximum(index, 0)], math.nan)

    lo, hi = (_numbers([getattr(d.evidence, side) for d in found]) for side in ("lo", "hi"))
    if not alone or instrument in m.proxies:
        return HedgeTrack(
            instrument=instrument,
            underlying=underlying,
            held=held,
            needed=carried(0.5 * (lo + hi)),
            lo=carried(lo),
            hi=carried(hi),
        )
    per = _per_contract(m, instrument, underlying)
    net, options = m.column(DYNAMIC, "net_delta"), m.column(DYNAMIC, "option_delta")
    other = net - options - held * m.multipliers.get(instrument, 1.0)
    row = np.maximum(np.searchsorted(at, decided, side="right") - 1, 0)
    delta = _numbers([d.evidence.delta for d in found]) + other[row]
    net_lo, net_hi = carried(delta + lo * per[row]), carried(delta + hi * per[row])
    return HedgeTrack(
        instrument=instrument,
        underlying=underlying,
        held=held,
        needed=-(options + other) / per,
        lo=(net_lo - options - other) / per,
        hi=(net_hi - options - other) / per,
        net=options + other + held * per,
        net_lo=net_lo,
        net_hi=net_hi,
    )


def _numbers(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _per_contract(m: Material, instrument: str, underlying: str) -> Floats:
    """Delta of one contract in units of the underlying; an inverse contract's falls as the price rises. Shape: (samples,)."""
    multiplier = m.multipliers.get(instrument, 1.0)
    if instrument not in m.inverse:
        return np.full(len(m.instants), multiplier)
    return np.asarray(multiplier / np.asarray(m.samples[f"spot/{underlying}"], dtype=np.float64))


def _delta_chart(m: Material, number: int, track: HedgeTrack) -> Markup:
    chosen = _hedged_time(m, track.instrument)
    width = (track.hi - track.lo)[chosen]
    wide = bool(np.any(width[np.isfinite(width)] > 1e-9))

    def shown(values: Floats) -> Floats:
        return np.where(chosen, values, math.nan)

    panels: list[Panel] = []
    if track.net is not None and track.net_lo is not None and track.net_hi is not None:
        panels.append(
            Panel(
                unit=f"net delta of options and hedge, units of {track.underlying}",
                lines=[Line(y=shown(track.net), series=0, step=True)],
                area=Area(lo=shown(track.net_lo), hi=shown(track.net_hi)) if wide else None,
                height=2.1,
            )
        )
    noun = "units" if m.multipliers.get(track.instrument, 1.0) == 1.0 else "contracts"
    panels.append(
        Panel(
            unit=f"{noun} of {track.instrument}",
            lines=[
                Line(y=shown(track.needed), series=1, width=1.0, plain=True),
                Line(y=shown(track.held), series=0, step=True, width=1.5),
            ],
            area=Area(lo=shown(track.lo), hi=shown(track.hi)) if wide else None,
            zero=False,
            height=2.3,
        )
    )
    needed = "what the options need" if track.net is not None else "the middle of the last decision's band"
    legend = [_swatch(0, "held, and what it leaves"), _swatch(1, needed, plain_line=True)]
    if wide:
        legend.append(tag("span", tag("span", cls="chip", style="background: var(--band); opacity: .4"), "band"))
    caption = "From the opening hedge to the close. " + (
        "The band is the one of the last decision that traded, carried to the next."
        if wide
        else "The rule has no band: it trades to its exact target, rounded, or not at all."
    )
    svg = plots.over_time(
        f"delta{number}",
        m.axis,
        m.instants,
        panels,
        label=f"Net delta and the hedge held in {track.instrument} over time",
    )
    return chart(_delta_title(m, track), svg, caption=caption, legend=_legend(legend))


def _hedged_time(m: Material, instrument: str) -> NDArray[np.bool_]:
    """The samples from the first fill to the closing one, whose jumps from and to nothing would hide all between.

    Shape: (samples,). All of them when nothing was filled, or nothing lies between.
    """
    at = m.instants
    fills = [f for h in m.hedges for f in h.fills if f.instrument == instrument]
    closing = [f.ts for f in fills if f.closing]
    opened = min((f.ts for f in fills if not f.closing), default=int(at[0]))
    chosen = (at >= opened) & (at < min(closing, default=int(at[-1]) + 1))
    return chosen if chosen.any() else np.ones(len(at), dtype=bool)


def _delta_title(m: Material, track: HedgeTrack) -> str:
    if track.net is None:
        return f"The hedge in {track.instrument} against its band"
    options = m.column(DYNAMIC, "option_delta")
    left, alone = _mean_size(m, track.net), _mean_size(m, options)
    if left is None or alone is None or alone == 0.0:
        return f"Net delta of {track.underlying}"
    digits = 0 if alone >= 1000 else 1
    pair = f"from {figure(alone, digits)} to {figure(left, 1 if left < 100 else 0)} units"
    if left <= alone:
        return f"Hedging cut the mean size of delta by {share(1.0 - left / alone)}, {pair}"
    return f"Hedging made the mean size of delta larger, {pair}"


def _mean_size(m: Material, values: Floats) -> float | None:
    """Mean absolute value over time, each held until the next sample; None when never known. Shape: (n,)."""
    weights = np.diff(m.axis.place(m.instants))
    sizes = np.abs(values[:-1])
    known = np.isfinite(sizes) & (weights > 0)
    return float(np.average(sizes[known], weights=weights[known])) if known.any() else None


def _unhedged_delta(m: Material) -> Markup:
    delta = m.column(DYNAMIC, "net_delta")
    size = _mean_size(m, delta)
    title = "Nothing was decided to hedge"
    if size is not None:
        title += f": delta stood at {figure(size, 1)} units on average"
    panel = Panel(unit="net delta, units of the underlying", lines=[Line(y=delta, series=0, step=True)], height=2.0)
    return chart(title, plots.over_time("delta0", m.axis, m.instants, [panel], label="Net delta over time"))


def _price_chart(m: Material, number: int, underlying: str, pairs: Sequence[tuple[str, str]]) -> Markup:
    spot = np.asarray(m.samples[f"spot/{underlying}"], dtype=np.float64)
    instruments = {i for i, u in pairs if u == underlying} or {underlying}
    fills = [f for h in m.hedges for f in h.fills if f.instrument in instruments]
    marks = _marks(m, fills, underlying, spot)
    panel = Panel(
        unit=f"{underlying}, price",
        lines=[Line(y=spot, series=2, width=1.1, plain=True)],
        marks=marks,
        zero=False,
        height=3.0,
    )
    proxies = sorted({f.instrument for f in fills} - {underlying})
    caption = "Markers grow with the quantity."
    if proxies:
        caption += f" Fills in {names(proxies)} are drawn on the price of {underlying}."
    if len(fills) > plots.MOST_MARKERS:
        caption += f" The {plots.MOST_MARKERS:,} largest of {len(fills):,} fills are drawn."
    bought = [f for f in fills if f.quantity > 0]
    sold = [f for f in fills if f.quantity < 0]
    legend = _legend(
        [
            tag(
                "span",
                tag("span", "▲", cls="buy"),
                f" bought {plain(sum(f.quantity for f in bought))} in {len(bought):,}",
            ),
            tag(
                "span", tag("span", "▼", cls="sell"), f" sold {plain(-sum(f.quantity for f in sold))} in {len(sold):,}"
            ),
            _swatch(2, underlying, plain_line=True),
        ]
    )
    svg = plots.over_time(f"price{number}", m.axis, m.instants, [panel], label=f"Hedges on the price of {underlying}")
    return chart(_price_title(underlying, spot, bought, sold), svg, caption=caption, legend=legend)


def _marks(m: Material, fills: Sequence[Fill], underlying: str, spot: Floats) -> Marks:
    at = np.array([f.ts for f in fills], dtype=np.int64)
    index = np.maximum(np.searchsorted(m.instants, at, side="right") - 1, 0)
    own = np.array([float(f.price) if f.instrument == underlying else math.nan for f in fills])
    return Marks(
        at=at,
        y=np.where(np.isnan(own), spot[index], own) if len(fills) else own,
        quantity=np.array([float(f.quantity) for f in fills]),
    )


def _price_title(underlying: str, spot: Floats, bought: Sequence[Fill], sold: Sequence[Fill]) -> str:
    known = spot[np.isfinite(spot)]
    if not len(known):
        return f"{underlying} had no price"
    change = known[-1] / known[0] - 1.0 if known[0] else 0.0
    way = "rose" if change > 0 else "fell" if change < 0 else "ended where it began"
    moved = f"{underlying} {way}" + (f" {share(abs(change), 2)}" if change else "")
    moved += f", from {_price(float(known[0]))} to {_price(float(known[-1]))}"
    if not bought and not sold:
        return f"{moved}; no hedge was traded"

    def average(fills: Sequence[Fill]) -> str:
        size = sum(abs(f.quantity) for f in fills)
        return figure(sum(abs(f.quantity) * f.price for f in fills) / size, 2)

    said = ([f"bought at {average(bought)}"] if bought else []) + ([f"sold at {average(sold)}"] if sold else [])
    return f"{moved}; hedges {names(said)} on average"


# --------------------------------------------------------------------------- attribution


def attribution_section(m: Material) -> Markup:
    """Which Greek earned what: by account, by hedge, by underlying, by night and session."""
    panels = [
        (
            account,
            i,
            [
                *((term, m.book(account)["attribution"].get(term)) for term in TERMS),
                ("total", m.book(account)["pnl"]["total"]),
            ],
        )
        for i, account in enumerate(m.accounts)
    ]
    by_account = chart(
        _attribution_title(m),
        plots.bars("attribution", panels, unit=m.currency, label="Attribution of P&L by Greek for each account"),
        caption="Each account on its own scale. Delta holds the hedge's own P&L; the residual is what no term explains, shown as "
        "it is and never spread over the others.",
    )
    return section("attribution", "Where the P&L came from", by_account, _per_hedge(m), _gamma_rent(m), _days(m))


def _attribution_title(m: Material) -> str:
    terms = {term: m.book()["attribution"].get(term) or 0.0 for term in TERMS if term != "residual"}
    gain, loss = max(terms, key=lambda t: terms[t]), min(terms, key=lambda t: terms[t])
    said = []
    if terms[gain] > 0:
        said.append(f"earned most by {gain} ({money(terms[gain])})")
    if terms[loss] < 0:
        said.append(f"lost most by {loss} ({money(terms[loss])})")
    return f"The dynamic account {names(said)}" if said else "No Greek earned or lost anything"


def _per_hedge(m: Material) -> Markup:
    """What was earned between each hedge and the next."""
    cuts = _hedge_samples(m)
    if len(cuts) < 2:
        return Markup()
    steps = _terms_between(m, cuts)
    at = m.instants
    grouped = max(1, -(-(len(cuts) - 1) // MOST_BARS))
    starts = np.arange(0, len(cuts) - 1, grouped)
    bars = {term: np.add.reduceat(values, starts) for term, values in steps.items()}
    drawn = ("gamma", "theta", "delta", "vega", "cost")
    other = np.sum([bars[t] for t in TERMS if t not in drawn], axis=0)
    parts = [(term, bars[term].tolist()) for term in drawn] + [("other", other.tolist())]
    labels = [_short(int(at[cuts[i]]), m.axis) for i in starts.tolist()]
    total = np.sum([steps[t] for t in TERMS], axis=0)
    paid = int(np.count_nonzero(steps["gamma"] + steps["theta"] > 0))
    title = f"Gamma paid for theta between {paid:,} of {len(total):,} hedges and the next"
    caption = "One bar from each hedge to the next" if grouped == 1 else f"One bar for {grouped} hedges"
    caption += "; the diamond is their sum. Cost is that of the hedge which ends the stretch."
    legend = _legend([*(_swatch(i, name, chip=True) for i, (name, _) in enumerate(parts)), tag("span", "◆ sum")])
    svg = plots.stacked(
        "perhedge", labels, parts, unit=m.currency, label="Attribution between consecutive hedges", upright=True
    )
    columns = [Column("from", "l"), Column("to", "l"), *(Column(term) for term in TERMS), Column("total")]
    rows = [
        [when(at[a]), when(at[b]), *(money(steps[t][i]) for t in TERMS), money(total[i])]
        for i, (a, b) in enumerate(zip(cuts[:-1], cuts[1:], strict=True))
    ]
    listed = tag("details", tag("summary", f"All {len(rows):,} stretches in figures"), table(columns, rows))
    return join([chart(title, svg, caption=caption, legend=legend), listed])


def _hedge_samples(m: Material) -> list[int]:
    """The samples that bound the stretches between hedges: the first, those of fills, the last."""
    at = m.instants
    if len(at) < 2:
        return []
    fills = np.array(sorted(f.ts for h in m.hedges for f in h.fills), dtype=np.int64)
    if not len(fills):
        return []
    index = np.clip(np.searchsorted(at, fills, side="right") - 1, 0, len(at) - 1)
    return [int(i) for i in np.unique(np.concatenate(([0], index, [len(at) - 1])))]


def _terms_between(m: Material, cuts: Sequence[int]) -> dict[str, Floats]:
    """Each term from one cut to the next. The cost is what the total leaves over the others, so that all sum to it."""
    picked = np.array(cuts)
    total = m.column(DYNAMIC, "total").copy()
    if len(total):
        total[0] = 0.0  # what the opening trades cost belongs to the first stretch
    sums = {term: m.column(DYNAMIC, term) for term in TERMS if term != "cost"}
    sums["cost"] = total - np.sum(list(sums.values()), axis=0)
    return {term: np.diff(sums[term][picked]) for term in TERMS}


def _short(ts: Nanos, axis: Axis) -> str:
    moment = datetime.fromtimestamp(ts // NS_PER_SECOND, UTC)
    return f"{moment.day} {moment:%b}" if axis.end - axis.start > 4 * NS_PER_DAY else f"{moment:%H:%M}"


def _gamma_rent(m: Material) -> Markup:
    rents: Mapping[str, Doc] = m.doc.get("gamma_rent", {})
    if not rents:
        return Markup()
    columns = [
        Column("underlying", "l"),
        Column("realised vol"),
        Column("implied vol"),
        Column("realised less implied"),
        Column("gamma P&L"),
        Column("theta P&L"),
        Column("net"),
    ]
    rows: list[list[str]] = []
    first = ""
    for underlying, rent in rents.items():
        realised, implied = rent.get("realised_vol"), rent.get("implied_vol")
        gap = None if realised is None or implied is None else 100.0 * (realised - implied)
        gamma, theta = rent.get("gamma_pnl") or 0.0, rent.get("theta_pnl") or 0.0
        points = DASH if gap is None else f"{'+' if gap >= 0 else ''}{figure(gap, 1)} points"
        rows.append(
            [underlying, share(realised), share(implied), points, money(gamma), money(theta), money(gamma + theta)]
        )
        if not first and gap is not None:
            way = "less" if gap < 0 else "more"
            first = (
                f"{underlying} moved {way} than its options implied: {share(realised)} against {share(implied)} a year"
            )
    note = "Realised vol is of the sampled price, implied the mean over legs and samples. One account holds all: "
    note += "with several underlyings, gamma and theta are those of the whole book." if len(rows) > 1 else ""
    note = note if len(rows) > 1 else note.split(" One account")[0]
    return join(
        [tag("h3", first or "Gamma rent: realised against implied"), table(columns, rows), tag("p", note, cls="note")]
    )


def _days(m: Material) -> Markup:
    days: Sequence[Doc] = m.doc.get("days", [])
    if not days:
        return Markup()
    shown = [term for term in (*TERMS, "total")]
    columns = [Column("day", "l"), Column("part", "l"), *(Column(term) for term in shown)]
    rows: list[list[str]] = []
    sums = {part: dict.fromkeys(shown, 0.0) for part in ("overnight", "session")}
    for day in days:
        for part in ("overnight", "session"):
            values = day.get(part, {})
            for term in shown:
                sums[part][term] += values.get(term) or 0.0
            if part == "session" or any(values.get(term) for term in shown):
                rows.append([str(day.get("day", "")), part, *(money(values.get(term)) for term in shown)])
    night, session = sums["overnight"]["total"], sums["session"]["total"]
    title = f"The nights made {money(night)}, the sessions {money(session)}"
    if len(days) > 1 or night:
        for part in ("overnight", "session"):
            rows.insert(0 if part == "overnight" else 1, ["all days", part, *(money(sums[part][t]) for t in shown)])
    return join([tag("h3", title), table(columns, rows)])


# --------------------------------------------------------------------------- cost


def cost_section(m: Material) -> Markup:
    """What trading cost each account by kind, and how it slipped against the middle."""
    kinds = (
        ("spread", "spread_cost", 1),
        ("commission", "commission", 1),
        ("impact", "impact", 1),
        ("financing", "financing", -1),
    )
    parts = [(kind, [sign * m.book(a)["pnl"][key] for a in m.accounts]) for kind, key, sign in kinds]
    parts = [(kind, values) for kind, values in parts if any(values)]
    costs = {a: _total_cost(m.book(a)) for a in m.accounts}
    if not parts:
        return section("cost", "What it cost", tag("p", "No account paid spread, commission, impact or financing."))
    legend = _legend(_swatch(i, kind, chip=True) for i, (kind, _) in enumerate(parts))
    svg = plots.stacked(
        "cost",
        m.accounts,
        parts,
        unit=f"paid, {m.currency}; the figure is the sum",
        label="Costs by kind for each account",
    )
    caption = "Financing counts as paid; left of zero it was received." if parts[-1][0] == "financing" else ""
    return section(
        "cost", "What it cost", chart(_cost_title(m, costs), svg, caption=caption, legend=legend), _slippage(m)
    )


def _cost_title(m: Material, costs: Mapping[str, float]) -> str:
    mine = costs[DYNAMIC]
    trades = m.book()["trades"] + m.book()["closing_trades"]
    each = f", {money(mine / trades)} a trade" if trades else ""
    title = f"Dynamic hedging cost {money(mine)}{each}"
    if costs.get("static"):
        title += f"; {figure(mine / costs['static'], 1)} times the static hedge"
    return title


def _slippage(m: Material) -> Markup:
    columns = [
        Column("account", "l"),
        Column("delay"),
        Column("spread"),
        Column("impact"),
        Column("all"),
        Column("a unit"),
        Column("of turnover"),
    ]
    rows = []
    for account in m.accounts:
        book = m.book(account)
        found = book.get("slippage", {})
        lost = [found.get(kind) for kind in ("delay", "spread", "impact")]
        if not _hedged(book):
            continue
        total = sum(value or 0.0 for value in lost)
        units = book["units_traded"] + book["closing_units"]
        bp = 1e4 * total / book["turnover"] if book.get("turnover") else None
        each = total / units if units else None
        rows.append(
            [
                account,
                *(money(v) for v in lost),
                money(total),
                figure(each, 4),
                DASH if bp is None else f"{figure(bp, 2)} bp",
            ]
        )
    if not rows:
        return Markup()
    note = (
        "Slippage against the middle seen at the decision: what it moved before the order arrived (delay; negative when it moved "
        "our way), half the quoted spread, and what our size added. Delay is inside the hedge's P&L, not a further cost."
    )
    return join(
        [tag("h3", "Slippage against the middle at the decision"), table(columns, rows), tag("p", note, cls="note")]
    )


# --------------------------------------------------------------------------- book, decisions, data


def book_section(m: Material) -> Markup:
    """The legs of the book with vol at entry and exit, and what happened to contracts."""
    legs: Sequence[Doc] = m.doc.get("legs", [])
    columns = [
        Column("instrument", "i"),
        Column("quantity"),
        Column("expiry, UTC", "l"),
        Column("style", "l"),
        Column("entry mark"),
        Column("exit mark"),
        Column("entry vol"),
        Column("exit vol"),
        Column("change"),
        Column("entry delta"),
        Column("vol age at end"),
    ]
    rows = [_leg_row(leg) for leg in legs]
    parts: list[str] = [table(columns, rows) if rows else tag("p", "The book held no options.")]
    if any(DASH in row for row in rows):
        note = f"{DASH} is not known: no mark gave a vol there. Vol age is how old the vol behind the last Greeks was."
        parts.append(tag("p", note, cls="note"))
    if m.happenings:
        listed = [[when(h.ts), h.what, h.text] for h in m.happenings]
        parts += [
            tag("h3", _happened(m)),
            table([Column("UTC", "l"), Column("what", "l"), Column("detail", "w")], listed),
        ]
    held = [[key, quantity(value)] for key, value in m.book().get("positions", {}).items()]
    if held:
        listed_held = table([Column("instrument", "i"), Column("quantity")], held)
        parts.append(tag("details", tag("summary", f"What was held at the end ({len(held):,})"), listed_held))
    return section("book", "The book", *parts)


def _happened(m: Material) -> str:
    counts: dict[str, int] = {}
    for h in m.happenings:
        counts[h.what] = counts.get(h.what, 0) + 1
    return "What happened to the book: " + ", ".join(f"{n:,} {what}" for what, n in counts.items())


def _leg_row(leg: Doc) -> list[str]:
    entry, last = leg.get("entry_iv"), leg.get("exit_iv")
    change = None if entry is None or last is None else 100.0 * (last - entry)
    age = leg.get("vol_age")
    return [
        str(leg.get("instrument", "")),
        quantity(leg.get("quantity")),
        str(leg.get("expiry", "")).replace("T", " ").removesuffix("Z").removesuffix(":00"),
        f"{leg.get('style', '')}, {leg.get('settlement', '')}",
        _price(leg.get("entry_mark")),
        _price(leg.get("exit_mark")),
        share(entry, 2),
        share(last, 2),
        DASH if change is None else f"{'+' if change > 0 else ''}{figure(change, 2)}",
        figure(leg.get("entry_delta"), 3),
        length(_span(age)),
    ]


def _price(value: float | None) -> str:
    return DASH if value is None else plain(round(value, 2 if abs(value) >= 1000 else 4))


def _span(text: str | None) -> Nanos | None:
    if text is None:
        return None
    try:
        return parse_span(text)
    except ValueError:
        return None


def decisions_section(m: Material) -> Markup:
    """Every order with its reason, its price and the age of the quote it met."""
    if not m.hedges:
        return section("decisions", "Decisions", tag("p", "The dynamic account sent no order."))
    columns = [
        Column("decided, UTC", "l"),
        Column("quantity"),
        Column("instrument", "i"),
        Column("price"),
        Column("mid"),
        Column("cost"),
        Column("filled after"),
        Column("quote age"),
        Column("reason", "w"),
    ]
    filled = [hedge for hedge in m.hedges if hedge.fills]
    rows = [_hedge_row(m, hedge) for hedge in filled]
    note = join(
        [
            f"{len(filled):,} of {len(m.hedges):,} orders filled. Cost is the distance to mid times size, and commission. Quote age "
            "is how long the quote had stood when it filled us.",
            tag("code", "evenkeel explain"),
            "says everything an order was decided on.",
        ],
        " ",
    )
    parts: list[str] = [table(columns, rows)] if rows else []
    unfilled = [
        [when(h.order.ts), quantity(h.order.quantity), h.order.instrument, h.said or "no word", h.order.reason or DASH]
        for h in m.hedges
        if not h.fills
    ]
    if unfilled:
        parts += [
            tag("h3", f"{len(unfilled):,} orders never filled"),
            table([*columns[:3], Column("venue said", "l"), Column("reason", "w")], unfilled),
        ]
    return section("decisions", "Every decision, and why", *parts, tag("p", note, cls="note"))


def _hedge_row(m: Material, hedge: Hedge) -> list[str]:
    """A filled order as a row; prices are averages over its fills by size."""
    order, fills = hedge.order, hedge.fills
    done = sum((f.quantity for f in fills), Decimal(0))
    size = sum((abs(f.quantity) for f in fills), Decimal(0))
    price = sum((f.price * abs(f.quantity) for f in fills), Decimal(0)) / size
    mid = sum((f.mid * abs(f.quantity) for f in fills), Decimal(0)) / size
    cost = sum((_cost_of(m, f) for f in fills), Decimal(0))
    reason = order.reason or DASH
    if done != order.quantity:
        reason += f" ({quantity(order.quantity)} asked)"
    paid = money(cost) if fills[0].currency == m.currency else f"{_price(float(cost))} {fills[0].currency}"
    return [
        when(order.ts),
        tag("span", quantity(done), cls="buy" if done > 0 else "sell"),
        order.instrument,
        _price(float(price)),
        _price(float(mid)),
        paid,
        length(max(f.ts for f in fills) - order.ts),
        length(max(f.ts - f.quote_ts for f in fills)),
        reason,
    ]


def _cost_of(m: Material, fill: Fill) -> Decimal:
    """What a fill cost against mid, with its commission, in its own currency."""
    scale = Decimal(str(m.multipliers.get(fill.instrument, 1.0))) * fill.quantity
    if fill.instrument in m.inverse:
        return scale * (1 / fill.mid - 1 / fill.price) + fill.commission
    return scale * (fill.price - fill.mid) + fill.commission


def data_section(m: Material) -> Markup:
    """What the run was fed, what was refused, and what the simulator takes for granted."""
    feed = m.doc.get("feed", {})
    read = f"{feed.get('quotes', 0):,} quotes and {feed.get('trades', 0):,} prints; {feed.get('tape_rows', 0):,} rows on the tape."
    parts: list[str] = [tag("p", read)]
    for title, counts in (("Rows refused", feed.get("refused")), ("Rows repaired", feed.get("repaired"))):
        if counts:
            rows = [[reason, f"{count:,}"] for reason, count in counts.items()]
            parts += [tag("h3", title), table([Column("reason", "l"), Column("rows")], rows)]
        else:
            parts.append(tag("p", f"{title}: none.", cls="note"))
    if feed.get("notes"):
        parts += [
            tag("h3", "What the feeds say"),
            tag("ul", *[tag("li", str(n)) for n in feed["notes"]], cls="columns"),
        ]
    if m.doc.get("assumptions"):
        listed = [tag("li", str(line)) for line in m.doc["assumptions"]]
        parts += [tag("h3", "What the simulation takes for granted"), tag("ul", *listed, cls="columns")]
    return section("data", "Data and assumptions", *parts)


def foot(m: Material) -> Markup:
    """What it takes to make this run again, and to prove it is the same."""
    doc, timing = m.doc, m.doc.get("timing", {})
    lines = [
        ("run", str(doc.get("run_id", ""))),
        ("release", f"evenkeel {doc.get('release', '')}"),
        ("config", str(doc.get("config_hash", ""))),
        ("facts", str(doc.get("facts_digest", ""))),
        (
            "samples",
            f"{doc['session'].get('samples', len(m.instants)):,} on a grid of {doc['session'].get('report_grid', DASH)}",
        ),
    ]
    if timing:
        lines.append(("took", f"{figure(timing.get('wall_s'), 2)} s, {figure(timing.get('us_per_row'), 2)} µs a row"))
    pairs = [part for key, value in lines for part in (tag("dt", key), tag("dd", tag("code", value)))]
    inputs = [[name, tag("code", str(digest))] for name, digest in m.doc.get("feed", {}).get("files", {}).items()]
    folded: list[str] = []
    if inputs:
        listed = table([Column("input", "l"), Column("sha-256", "l")], inputs)
        folded.append(tag("details", tag("summary", f"Digests of {len(inputs):,} inputs"), listed))
    if m.config_text:
        folded.append(tag("details", tag("summary", "The configuration it ran with"), tag("pre", m.config_text)))
    return tag("footer", tag("h2", "This run"), tag("dl", *pairs), *folded)


# --------------------------------------------------------------------------- writing


def _write_whole(out: Path, text: str) -> None:
    """Write beside the place and rename: a reader sees the old page or the new one."""
    temporary = ""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(out)
    except OSError as fault:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"{out}: the report cannot be written: {fault.strerror}; nothing was kept of it") from fault
