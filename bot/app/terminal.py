"""The terminal shows results to people; law: words and progress go to stderr, tables to stdout, nothing moves when it is not
a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bot.app.book_file import LoadedBook
from bot.app.config import Config
from bot.app.daemon import Progress as Step
from bot.app.wiring import Run
from bot.domain.instruments import OptionContract
from bot.domain.units import Nanos, iso
from bot.engine.journal import Alarmed, Closed, Ended, Executed, Ordered, Refused, Started

ROWS = (
    ("P&L", "pnl.total"),
    ("  options at mid", "pnl.options"),
    ("  hedge at mid", "pnl.hedge"),
    ("  spread cost", "pnl.spread_cost"),
    ("  commission", "pnl.commission"),
    ("  impact", "pnl.impact"),
    ("  financing", "pnl.financing"),
    ("std of an interval", "pnl_std"),
    ("max drawdown", "max_drawdown"),
    ("tail loss (worst 5%)", "tail_loss"),
    ("hedge effectiveness", "hedge_effectiveness"),
    ("upside captured", "upside_captured"),
    ("trades", "trades"),
    ("units traded", "units_traded"),
    ("closing units", "closing_units"),
)
SHARES = {"hedge_effectiveness", "upside_captured"}
COUNTS = {"trades", "units_traded", "closing_units"}


def out() -> Console:
    """The console of tables."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)


def say(text: str) -> None:
    """A line of words for a person."""
    Console(file=sys.stderr, highlight=False, soft_wrap=True, markup=False).print(text)


def show(renderable: Any) -> None:
    """Print what another room rendered."""
    out().print(renderable, markup=False)


def set_up_logging() -> None:
    """structlog to stderr: JSON unless it is a terminal."""
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def attend(run: Run) -> None:
    """Log the facts a person at a daemon wants to see, as the bus carries them; the journal has them all."""
    log = structlog.get_logger("evenkeel").bind(run=run.run_id)

    def session_started(fact: Started) -> None:
        log.info("session_started", ts=iso(run.loop.now), account=fact.account)

    def order(fact: Ordered) -> None:
        asked = {"id": fact.order.id, "instrument": fact.order.instrument, "quantity": str(fact.order.quantity)}
        log.info("order", ts=iso(fact.order.ts), account=fact.account, why=fact.order.reason, **asked)

    def fill(fact: Executed) -> None:
        done = {"id": fact.fill.id, "instrument": fact.fill.instrument, "quantity": str(fact.fill.quantity)}
        log.info("fill", ts=iso(fact.fill.ts), account=fact.account, price=str(fact.fill.price), **done)

    def refused(fact: Refused) -> None:
        why = {"code": fact.refusal.code, "text": fact.refusal.text}
        log.warning("refused", ts=iso(fact.refusal.ts), account=fact.account, **why)

    def alarm(fact: Alarmed) -> None:
        seen = {"code": fact.alarm.code, "text": fact.alarm.text, "action": fact.alarm.action}
        log.warning("alarm", ts=iso(fact.alarm.ts), **seen)

    def option_ended(fact: Ended) -> None:
        what = {"what": fact.event.what, "instrument": fact.event.instrument, "quantity": str(fact.event.quantity)}
        log.info("option_ended", ts=iso(fact.event.ts_recv), account=fact.account, **what)

    def session_closed(fact: Closed) -> None:
        log.info("session_closed", ts=iso(run.loop.now), account=fact.account)

    handlers: list[tuple[type, Callable[[Any], None]]] = [
        (Started, session_started),
        (Ordered, order),
        (Executed, fill),
        (Refused, refused),
        (Alarmed, alarm),
        (Ended, option_ended),
        (Closed, session_closed),
    ]
    for kind, handler in handlers:
        run.loop.bus.subscribe(kind, handler, serves="log")


@contextlib.contextmanager
def progress(config: Config, *, quiet: bool) -> Iterator[Step | None]:
    """A bar over the session's time with rate and time left; nothing when quiet or not a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    start, end = config.session.start, config.session.end
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        total = None if end is None else float(end - start)
        task = bar.add_task(config.name, total=total, rate="")

        def step(now: Nanos, rows: int) -> None:
            elapsed = bar.tasks[task].elapsed or 0.0
            rate = f"{rows / elapsed:,.0f} rows/s" if elapsed > 0.2 else ""
            done = float(min(max(now - start, 0), total)) if total is not None else 0.0
            bar.update(
                task, completed=done, rate=rate, description=f"{config.name} {iso(now)[:16]}Z" if now else config.name
            )

        yield step


def show_result(document: Mapping[str, Any]) -> None:
    """The comparison of accounts, the attribution, the verdict and the alarms."""
    console = out()
    session = document["session"]
    console.print(f"{document['name']}  {session['start']} to {session['end']}  run {document['run_id']}", markup=False)
    console.print(_comparison(document))
    console.print(_attribution(document))
    for line in document["verdict"]:
        console.print(f"  {line}", markup=False)
    feed = document["feed"]
    refused = ", ".join(f"{count} {reason}" for reason, count in feed["refused"].items()) or "none"
    console.print(
        f"  {feed['quotes']:,} quotes, {feed['trades']:,} prints; rows refused: {refused}; "
        f"{document['timing']['us_per_row']:.2f} us a row",
        markup=False,
    )
    for name, book in books_with_refusals(document):
        said = ", ".join(f"{count} {reason}" for reason, count in {**book["refusals"], **book["skipped"]}.items())
        console.print(f"  {name}: orders refused or not made: {said}", style="yellow", markup=False)
    for alarm in document["alarms"]:
        console.print(f"  ALARM {alarm['code']} {alarm['ts']}: {alarm['text']}", style="bold red", markup=False)


def books_with_refusals(document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The accounts whose orders were refused or whose decisions could not be made."""
    return [(name, book) for name, book in document["books"].items() if book["refusals"] or book["skipped"]]


def _comparison(document: Mapping[str, Any]) -> Table:
    books = document["books"]
    table = Table(title=f"What hedging did, in {document['session']['base_currency']}", title_justify="left")
    table.add_column("")
    for name in books:
        table.add_column(name, justify="right")
    for label, key in ROWS:
        table.add_row(label, *(_figure(book, key) for book in books.values()))
    return table


def _attribution(document: Mapping[str, Any]) -> Table:
    books = document["books"]
    table = Table(title="Where it came from", title_justify="left")
    table.add_column("")
    for name in books:
        table.add_column(name, justify="right")
    for term in next(iter(books.values()))["attribution"]:
        table.add_row(term, *(f"{book['attribution'][term]:,.2f}" for book in books.values()))
    return table


def _figure(book: Mapping[str, Any], key: str) -> str:
    value: Any = book
    for part in key.split("."):
        value = value[part]
    if value is None:
        return "-"
    if key in COUNTS:
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4f}"
    return f"{value:.3f}" if key in SHARES else f"{value:,.2f}"


def describe_book(book: LoadedBook) -> dict[str, Any]:
    """A book as plain data."""
    known = {item.id: item for item in book.universe}
    return {
        "positions": [
            {
                "instrument": position.key.instrument,
                "quantity": float(position.quantity),
                "book": position.key.book,
                "account": position.key.account,
                "counterparty": position.counterparty,
                "tag": position.tag,
                "line": line,
                **_contract_facts(known[position.key.instrument]),
            }
            for position, line in zip(book.positions, book.lines, strict=True)
        ],
        "underlyings": [item.id for item in book.underlyings],
        "notes": list(book.notes),
    }


def _contract_facts(item: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"currency": item.currency, "multiplier": float(item.multiplier)}
    if isinstance(item, OptionContract):
        facts |= {
            "underlying": item.underlying,
            "strike": float(item.strike),
            "type": "call" if item.cp > 0 else "put",
            "style": item.style,
            "settlement": item.settlement,
            "last_trade": iso(item.last_trade),
            "expiry": iso(item.expiry),
            "settles": iso(item.settles),
        }
    return facts


def show_book(document: Mapping[str, Any]) -> None:
    """A book as a table."""
    table = Table(title="Positions", title_justify="left")
    for name in ("line", "instrument", "quantity", "underlying", "expiry", "style", "settlement", "book"):
        table.add_column(name, justify="right" if name in {"line", "quantity"} else "left")
    for row in document["positions"]:
        table.add_row(
            str(row["line"]),
            row["instrument"],
            f"{row['quantity']:,.10g}",
            *(str(row.get(name, "-")) for name in ("underlying", "expiry", "style", "settlement", "book")),
        )
    out().print(table)
    for note in document["notes"]:
        say(note)


def show_plugins(found: list[dict[str, Any]]) -> None:
    """Plug-ins as a table."""
    table = Table(title="Plug-ins", title_justify="left")
    names = list(found[0]) if found else ["name"]
    for name in names:
        table.add_column(name)
    for row in found:
        table.add_row(*(str(row[name]) for name in names))
    out().print(table)


def show_doctor(document: Mapping[str, Any]) -> None:
    """The doctor's findings, a line each."""
    console = out()
    console.print(f"evenkeel {document['release']}", markup=False)
    for check in document["checks"]:
        console.print(f"  {check['state']:<4}  {check['name']}: {check['text']}", markup=False)


def show_status(status: Mapping[str, Any]) -> None:
    """A live session's status as a table on stdout."""
    table = Table(show_header=False, box=None, pad_edge=False)
    rows: list[tuple[str, object]] = [
        ("state", f"{status['state']} {status['why']}".strip()),
        ("at", status["at"]),
        ("kill ladder", status["kill"] or "none"),
        ("mode", status["mode"]),
        ("records", f"{status['records']}, {status['durable']} durable"),
        ("commit", ", ".join(f"{name} {value} ms" for name, value in status["commit_ms"].items()) or "none yet"),
        ("open orders", ", ".join(f"{n} {name}" for name, n in status["orders"].items()) or "none"),
    ]
    rows += [("holds", f"{quantity} {key}") for key, quantity in status["positions"].items()]
    rows += [("frozen", f"{key or 'everything'}: {text}") for key, text in status["frozen"].items()]
    rows += [("refused", f"{n} x {code}") for code, n in status["refusals"].items()]
    rows += [("task", f"{name}: {state}") for name, state in status["tasks"].items() if state != "running"]
    if status["not_ready"] and status["state"] not in {"READY", "STOPPED"}:
        rows.append(("waits for", status["not_ready"]))
    for name, value in rows:
        table.add_row(name, str(value))
    Console().print(table)
