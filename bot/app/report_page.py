"""A page is a run told from the verdict down to the digests; law: titles say what was found, figures what is known.

Every section is a function of the material; those with plots are in `report_charts`. Long lists are folded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from importlib.resources import files
from typing import Any

import msgspec

from bot.app.report_charts import attribution_section, cost_section, hedging_section, pnl_section
from bot.app.report_html import (
    DASH,
    Column,
    Markup,
    capital,
    figure,
    join,
    length,
    money,
    names,
    plain,
    price,
    quantity,
    section,
    share,
    table,
    tag,
    when,
)
from bot.app.report_material import DYNAMIC, Doc, Hedge, Material, is_hedged, total_cost
from bot.app.report_strategies import considerations_section, strategies_section, stress_section
from bot.domain.orders import Fill
from bot.domain.units import Nanos, iso, parse_instant, parse_span


def render(m: Material) -> str:
    """The whole page as text."""
    sections = [
        ("comparison", "Comparison", comparison_section(m)),
        ("pnl", "P&L", pnl_section(m)),
        ("hedging", "Hedging", hedging_section(m)),
        ("attribution", "Attribution", attribution_section(m)),
        ("cost", "Cost", cost_section(m)),
        *([("strategies", "Strategies", strategies_section(m))] if m.doc.get("strategies") else []),
        *([("considerations", "Considerations", considerations_section(m))] if m.doc.get("considerations") else []),
        *([("stress", "Stress", stress_section(m))] if m.doc.get("stress") else []),
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
        return f"{_mine(m)} won: {money(mine)} {currency}, {level}"
    verb = "won" if len(winners) == 1 else "tied for best"
    cash = _held_cash(m)
    who = {"none": "cash alone" if cash else "not hedging", "static": "acting once" if cash else "the static hedge"}
    said = names([who.get(name, name) for name in winners])
    mine_by_name = _mine(m)[0].lower() + _mine(m)[1:]
    return f"{capital(said)} {verb}: {money(best)} {currency} against {money(mine)} for {mine_by_name}"


def _held_cash(m: Material) -> bool:
    """True where nobody brought a book: what `none` holds is cash, and no book that goes unhedged."""
    return "none" in m.accounts and bool(m.book("none").get("cash_only"))


def _mine(m: Material) -> str:
    return "The strategies" if _held_cash(m) else "Dynamic hedging"


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
                Row(name="All costs", of=total_cost, best=min, hedged_only=True, hint="spread, commission, impact"),
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
            body.append(_comparison_row(row, values, [is_hedged(m.book(account)) for account in m.accounts]))
    session = m.doc["session"]
    intervals = m.book().get("effectiveness_intervals")
    note = (
        f"Total = options + hedge - costs + financing. Risk figures are of {plain(intervals)} intervals of "
        f"{session.get('effectiveness_interval', DASH)}; effectiveness is 1 - var(options + hedge) / var(options) at mid, "
        "costs apart. ● marks the best of a row; accounts without a hedge do not compete where they would win by doing nothing."
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
    parts += _counterparties(m)
    held = [[key, quantity(value)] for key, value in m.book().get("positions", {}).items()]
    if held:
        listed_held = table([Column("instrument", "i"), Column("quantity")], held)
        parts.append(tag("details", tag("summary", f"What was held at the end ({len(held):,})"), listed_held))
    return section("book", "The book", *parts)


def _counterparties(m: Material) -> list[str]:
    """What each counterparty of the book file owed, where the file names any."""
    found: Sequence[Doc] = m.doc.get("counterparties", [])
    if not any(row.get("counterparty") for row in found):
        return []
    columns = [Column("counterparty", "l"), Column("positions"), Column("at the start"), Column("at the end")]
    columns += [Column("most it owed"), Column("when, UTC", "l"), Column("least")]
    rows = [
        [
            str(row.get("counterparty") or "none named"),
            plain(row.get("positions")),
            money(row.get("entry")),
            money(row.get("exit")),
            money(row.get("peak")),
            DASH if row.get("peak_at") is None else when(parse_instant(str(row["peak_at"]))),
            money(row.get("least")),
        ]
        for row in found
    ]
    note = (
        f"Mark to market of what the book file brought, in {m.currency}, as far as it is still held. Positive: the "
        "counterparty owes it. Futures and perpetuals count by their gain. Netting, collateral and default odds are not in it."
    )
    return [tag("h3", "Mark to market by counterparty"), table(columns, rows), tag("p", note, cls="note")]


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
        price(leg.get("entry_mark")),
        price(leg.get("exit_mark")),
        share(entry, 2),
        share(last, 2),
        DASH if change is None else f"{'+' if change > 0 else ''}{figure(change, 2)}",
        figure(leg.get("entry_delta"), 3),
        length(_span(age)),
    ]


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
            f"{len(filled):,} of {len(m.hedges):,} orders filled. Cost is the distance to mid times size, and commission. "
            "Quote age is how long the quote had stood when it filled us.",
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
    paid = sum((f.price * abs(f.quantity) for f in fills), Decimal(0)) / size
    mid = sum((f.mid * abs(f.quantity) for f in fills), Decimal(0)) / size
    cost = sum((_cost_of(m, f) for f in fills), Decimal(0))
    reason = order.reason or DASH
    if done != order.quantity:
        reason += f" ({quantity(order.quantity)} asked)"
    worded = money(cost) if fills[0].currency == m.currency else f"{price(float(cost))} {fills[0].currency}"
    return [
        when(order.ts),
        tag("span", quantity(done), cls="buy" if done > 0 else "sell"),
        order.instrument,
        price(float(paid)),
        price(float(mid)),
        worded,
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
    rows_read = f"{feed.get('quotes', 0):,} quotes and {feed.get('trades', 0):,} prints"
    read = f"{rows_read}; {feed.get('tape_rows', 0):,} rows on the tape."
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
