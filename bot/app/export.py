"""An export is a view of a run's journal for other tools: fills as CSV, facts as Parquet; law: read-only, whole or absent.

A file appears under its name only when it is complete, and replaces nothing but a regular file. Fills keep the journal's
exact decimals in plain notation; the Parquet columns are floats for questions, the exact fact stands in `payload`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import stat
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from bot.app.runs import StoredRun
from bot.core.errors import ConfigError, StorageError
from bot.engine.journal import (
    Adjusted,
    Alarmed,
    Controlled,
    Ended,
    Executed,
    Fact,
    Ordered,
    Refused,
    Skipped,
    Started,
    TargetSet,
    Transferred,
    VenueSaid,
)

FILL_COLUMNS: Final = ("ts_ns", "instrument", "signed_qty", "price", "commission")
EVENT_COLUMNS: Final = (
    "seq", "ts_ns", "tape", "place", "account", "fact", "v", "strategy", "book", "instrument", "order_id", "signed_qty",
    "price", "commission", "text", "payload",
)  # fmt: skip


def export_fills(stored: StoredRun, path: Path, account: str = "dynamic") -> int:
    """The number of fills written: one CSV row each of an account, in order of execution, the closing ones included.

    Columns `ts_ns,instrument,signed_qty,price,commission`: nanoseconds since the Unix epoch UTC, the canonical id, signed
    contracts, price and fee in the instrument's currency. ConfigError for an account the run does not have, StorageError
    when the file cannot be written.
    """
    known: dict[str, None] = {}
    fills = []
    for step in stored.steps():
        for fact in step.facts:
            if isinstance(fact, Started):
                known[fact.account] = None
            if isinstance(fact, Executed) and fact.account == account:
                fills.append(fact.fill)
    refuse_unknown_account(account, known, stored.run_id)
    fills.sort(key=lambda fill: fill.ts)  # a venue may report late: the sort is stable, so one instant keeps its order
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(FILL_COLUMNS)
    for fill in fills:
        rows.writerow((fill.ts, fill.instrument, plain(fill.quantity), plain(fill.price), plain(fill.commission)))
    with replacing(path) as file:
        file.write(text.getvalue().encode())
    return len(fills)


def export_events(stored: StoredRun, path: Path, account: str | None = None) -> int:
    """The number of facts written: one Parquet row each, of one account or (None) of all, in the journal's order.

    Columns: `seq, ts_ns, tape` of the step (its number, instant, rows of market data seen), `place` in it; `account, fact,
    v`; `strategy, book, instrument, order_id, text` and `signed_qty, price, commission` where the fact has one, else null;
    `payload` is the fact as JSON, exact.
    """
    import pyarrow as pa  # noqa: PLC0415  heavy, and only needed here
    import pyarrow.parquet as pq  # noqa: PLC0415

    known: dict[str, None] = {}
    columns: dict[str, list[Any]] = {name: [] for name in EVENT_COLUMNS}
    for step in stored.steps():
        for place, fact in enumerate(step.facts):
            known[fact.account] = None
            if account is not None and fact.account != account:
                continue
            row = {"seq": step.seq, "ts_ns": step.ts, "tape": step.tape, "place": place, **flatten(fact)}
            for name, values in columns.items():
                values.append(row.get(name))
    if account is not None:
        refuse_unknown_account(account, known, stored.run_id)
    whole = {"seq": pa.int64(), "ts_ns": pa.int64(), "tape": pa.int64(), "place": pa.int32(), "v": pa.int32()}
    real = {name: pa.float64() for name in ("signed_qty", "price", "commission")}
    schema = pa.schema(
        [(name, whole.get(name) or real.get(name) or pa.string()) for name in EVENT_COLUMNS],
        metadata={"run_id": stored.run_id},
    )
    table = pa.table(columns, schema=schema)
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return int(table.num_rows)


def refuse_unknown_account(account: str, known: dict[str, None], run_id: str) -> None:
    """ConfigError when a run has no account of that name, with those it has."""
    if account not in known:
        raise ConfigError(f"run {run_id}: expected an account of it ({', '.join(known) or 'none'}), found {account!r}")


def plain(value: Decimal) -> str:
    """The number with all its digits and without an exponent.

    >>> plain(Decimal("1E+2"))
    '100'
    """
    return format(value, "f")


def flatten(fact: Fact) -> dict[str, Any]:
    """The columns one fact fills, its JSON as `payload`."""
    payload = msgspec.json.encode(fact).decode()
    return {
        "account": fact.account,
        "fact": fact.__struct_config__.tag,
        "v": fact.v,
        **_common(fact),
        "payload": payload,
    }


def _common(fact: Fact) -> dict[str, Any]:
    match fact:
        case TargetSet():
            line = fact.lines[0] if len(fact.lines) == 1 else None
            found = {} if line is None else {"instrument": line.instrument, "signed_qty": float(line.quantity)}
            return {"strategy": fact.strategy, "book": fact.book, "text": fact.reason, **found}
        case Skipped():
            return {"strategy": fact.strategy, "instrument": fact.underlying, "text": fact.reason}
        case Ordered(order=order):
            return {
                "instrument": order.instrument,
                "order_id": order.id,
                "signed_qty": float(order.quantity),
                "price": None if order.limit is None else float(order.limit),
                "text": order.reason,
            }
        case Refused(refusal=refusal):
            text = f"{refusal.code}: {refusal.text}"
            return {"instrument": refusal.instrument, "signed_qty": float(refusal.quantity), "text": text}
        case VenueSaid():
            return {"order_id": fact.order_id, "text": f"{fact.what}: {fact.text}" if fact.text else fact.what}
        case Executed(fill=fill):
            return {
                "instrument": fill.instrument,
                "order_id": fill.order_id,
                "signed_qty": float(fill.quantity),
                "price": float(fill.price),
                "commission": float(fill.commission),
            }
        case Transferred():
            return {
                "instrument": fact.instrument,
                "signed_qty": float(fact.quantity),
                "price": float(fact.price),
                "text": f"from book {fact.seller} to book {fact.buyer}",
            }
        case Ended(event=event):
            return {
                "instrument": event.instrument,
                "signed_qty": float(event.quantity),
                "price": float(event.value),
                "text": event.what,
            }
        case Adjusted(event=event):
            return {"instrument": event.instrument, "text": f"{event.what}: {event.text}" if event.text else event.what}
        case Alarmed(alarm=alarm):
            return {"instrument": alarm.underlying or None, "text": f"{alarm.code}: {alarm.text}"}
        case Controlled():
            return {"text": f"{fact.verb} {fact.argument}".strip()}
    strategy = getattr(fact, "strategy", None)
    return {} if strategy is None else {"strategy": strategy}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends well and vanishes when it does not.

    StorageError when something other than a regular file stands there, or the disk refuses.
    """
    _refuse_irregular(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with draft.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as fault:
        raise StorageError(f"{path}: cannot be written: {fault.strerror or fault}; nothing was written") from fault


def _refuse_irregular(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as fault:
        raise StorageError(f"{path}: cannot be written: {fault.strerror}; nothing was written") from fault
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a device or pipe"
        raise StorageError(f"{path}: expected a new or a regular file, found {what}; it was not touched")
