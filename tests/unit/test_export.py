"""Exports: what leaves a run for other tools is the record itself, whole or not at all."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from bot.app import export
from bot.app.runs import StoredRun
from bot.core.errors import ConfigError, StorageError
from bot.core.events import Alarm, Evidence, TargetLine
from bot.domain.orders import Fill, Order, Refusal
from bot.engine.journal import (
    Alarmed,
    Executed,
    Fact,
    Header,
    JournalWriter,
    Ordered,
    Refused,
    Started,
    TargetSet,
    VenueSaid,
)

T0 = 1_578_265_800_000_000_000


def order(number: int, account: str = "dynamic", quantity: str = "-5") -> Order:
    return Order(
        id=f"{account}-{number:06d}",
        account=account,
        instrument="SIM:XYZ",
        quantity=Decimal(quantity),
        ts=T0,
        reason="why",
    )


def executed(of: Order, ts: int, *, price: str, commission: str = "0", closing: bool = False) -> Executed:
    fill = Fill(
        id=f"{of.id}/1",
        order_id=of.id,
        account=of.account,
        instrument=of.instrument,
        ts=ts,
        quantity=of.quantity,
        price=Decimal(price),
        commission=Decimal(commission),
        currency="USD",
        mid=Decimal(price),
        touch=Decimal(price),
        quote_ts=ts,
        closing=closing,
    )
    return Executed(account=of.account, fill=fill, allocations={"main": of.quantity})


def started(account: str) -> Started:
    return Started(account=account, positions={"SIM:XYZ": Decimal(1)}, marks={"SIM:XYZ": Decimal(100)})


def store(tmp_path: Path, *steps: tuple[int, list[Fact]]) -> StoredRun:
    folder = tmp_path / "run-1"
    folder.mkdir()
    header = Header(run_id="run-1", config_hash="h", release="0", durability="replay")
    with JournalWriter(folder / "journal.evk", header) as journal:
        for ts, facts in steps:
            journal.append(ts, 7, facts)
    return StoredRun(folder)


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    first, second, third = order(1), order(2, quantity="1E+2"), order(3)
    other = order(1, "static", "2")
    return store(
        tmp_path,
        (T0, [started("dynamic"), started("static"), started("none")]),
        (
            T0,
            [Ordered(account="dynamic", order=first), VenueSaid(account="dynamic", order_id=first.id, what="accepted")],
        ),
        (T0 + 1, [executed(first, T0 + 1, price="3214.25", commission="1E-7")]),
        (T0 + 1, [executed(other, T0 + 1, price="3214.50")]),
        (T0 + 9, [executed(second, T0 + 9, price="3E+3")]),
        (T0 + 9, [executed(third, T0 + 5, price="3215.00", closing=True)]),
    )


def test_fills_are_written_in_order_of_execution_without_exponents_closing_ones_included(
    run: StoredRun, tmp_path: Path
) -> None:
    """The CSV has exactly the five columns, the account's fills by time of execution, and plain numbers."""
    path = tmp_path / "fills.csv"
    assert export.export_fills(run, path) == 3
    assert path.read_text() == (
        "ts_ns,instrument,signed_qty,price,commission\n"
        f"{T0 + 1},SIM:XYZ,-5,3214.25,0.0000001\n"
        f"{T0 + 5},SIM:XYZ,-5,3215.00,0\n"
        f"{T0 + 9},SIM:XYZ,100,3000,0\n"
    )


def test_fills_read_back_are_the_journals_own_decimals(run: StoredRun, tmp_path: Path) -> None:
    """A round trip through the CSV loses no digit of quantity, price or commission."""
    path = tmp_path / "fills.csv"
    export.export_fills(run, path)
    facts = [f.fill for step in run.steps() for f in step.facts if isinstance(f, Executed) and f.account == "dynamic"]
    wanted = sorted((f.ts, f.instrument, f.quantity, f.price, f.commission) for f in facts)
    with path.open(newline="") as file:
        rows = [
            (int(r["ts_ns"]), r["instrument"], Decimal(r["signed_qty"]), Decimal(r["price"]), Decimal(r["commission"]))
            for r in csv.DictReader(file)
        ]
    assert sorted(rows) == wanted


def test_another_account_is_exported_by_name_and_one_without_fills_as_a_header(run: StoredRun, tmp_path: Path) -> None:
    """Accounts beside dynamic are asked for by name; an account that never traded gives the header only."""
    assert export.export_fills(run, tmp_path / "static.csv", "static") == 1
    assert export.export_fills(run, tmp_path / "none.csv", "none") == 0
    assert (tmp_path / "none.csv").read_text() == "ts_ns,instrument,signed_qty,price,commission\n"


def test_an_unknown_account_is_refused_with_those_there_are_and_nothing_is_written(
    run: StoredRun, tmp_path: Path
) -> None:
    """The error names the accounts of the run, and no file appears."""
    with pytest.raises(ConfigError, match=r"dynamic, static, none\), found 'dynamik'"):
        export.export_fills(run, tmp_path / "f.csv", "dynamik")
    with pytest.raises(ConfigError, match="found 'dynamik'"):
        export.export_events(run, tmp_path / "f.parquet", "dynamik")
    assert [p.name for p in tmp_path.iterdir()] == ["run-1"]


def test_events_keep_every_fact_in_order_with_its_exact_payload(run: StoredRun, tmp_path: Path) -> None:
    """Each fact is one row: its step, its place in it, common columns, and JSON that decodes to the same fact."""
    path = tmp_path / "events.parquet"
    facts = [(step.seq, step.ts, fact) for step in run.steps() for fact in step.facts]
    assert export.export_events(run, path) == len(facts)
    rows = pq.read_table(path).to_pylist()
    assert [(r["seq"], r["ts_ns"]) for r in rows] == [(seq, ts) for seq, ts, _ in facts]
    assert [msgspec.json.decode(r["payload"], type=type(f)) for r, (_, _, f) in zip(rows, facts, strict=True)] == [
        f for _, _, f in facts
    ]
    ordered = next(r for r in rows if r["fact"] == "order")
    assert (ordered["order_id"], ordered["signed_qty"], ordered["text"]) == ("dynamic-000001", -5.0, "why")
    assert {r["fact"] for r in rows} == {"started", "order", "venue", "fill"}
    assert [r["place"] for r in rows[:3]] == [0, 1, 2]


def test_events_of_one_account_leave_the_others_out(run: StoredRun, tmp_path: Path) -> None:
    """A named account exports its own facts only."""
    path = tmp_path / "events.parquet"
    export.export_events(run, path, "static")
    assert {r["account"] for r in pq.read_table(path).to_pylist()} == {"static"}


def test_every_kind_of_fact_fills_its_common_columns(tmp_path: Path) -> None:
    """Targets, refusals and alarms show instrument, quantity and words in their own columns."""
    target = TargetSet(
        account="dynamic",
        strategy="s",
        book="main",
        lines=(TargetLine("SIM:XYZ", Decimal(3), 2.6),),
        reason="left the band",
        evidence=Evidence(underlying="SIM:XYZ", vols={"A": None}),
    )
    refusal = Refusal(code="stale", text="old", account="dynamic", instrument="SIM:XYZ", quantity=Decimal(3), ts=T0)
    alarm = Alarm(code="c", text="t", ts=T0, underlying="SIM:XYZ")
    facts: list[Fact] = [
        started("dynamic"),
        target,
        Refused(account="dynamic", refusal=refusal),
        Alarmed(account="dynamic", alarm=alarm),
    ]
    run = store(tmp_path, (T0, facts))
    export.export_events(run, tmp_path / "e.parquet")
    rows = {r["fact"]: r for r in pq.read_table(tmp_path / "e.parquet").to_pylist()}
    assert (rows["target"]["signed_qty"], rows["target"]["text"], rows["target"]["book"]) == (
        3.0,
        "left the band",
        "main",
    )
    assert rows["refused"]["text"] == "stale: old"
    assert (rows["alarm"]["instrument"], rows["alarm"]["text"]) == ("SIM:XYZ", "c: t")
    assert json.loads(rows["target"]["payload"])["lines"][0]["unrounded"] == 2.6


def test_a_regular_file_is_replaced_and_anything_else_is_left_alone(run: StoredRun, tmp_path: Path) -> None:
    """A second export takes the place of the first; a folder or a link is refused and not touched."""
    path = tmp_path / "fills.csv"
    path.write_text("old")
    export.export_fills(run, path)
    assert path.read_text().startswith("ts_ns,")
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(path)
    for target, word in ((folder, "a folder"), (link, "a link")):
        with pytest.raises(StorageError, match=word):
            export.export_fills(run, target)
    assert link.is_symlink()
    assert not list(folder.iterdir())


def test_a_place_that_cannot_be_written_is_one_clear_error(run: StoredRun, tmp_path: Path) -> None:
    """A missing folder ends in a StorageError that names the file."""
    with pytest.raises(StorageError, match=r"nowhere/f\.csv: cannot be written"):
        export.export_fills(run, tmp_path / "nowhere" / "f.csv")


def test_a_fault_in_the_middle_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    """What was there stays when writing fails half-way, and no part of the new file is left."""
    path = tmp_path / "fills.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), export.replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["fills.csv"]
