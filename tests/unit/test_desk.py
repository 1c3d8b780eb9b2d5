"""Strategies on one account hedge books of their own: trades are netted, holdings kept apart, every order audited."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot.app import audit, runs
from bot.app import config as configs
from bot.app.wiring import Run
from bot.core.errors import ConfigError
from bot.engine.journal import Executed, Ordered, Refused, Started, TargetSet, Transferred

D = Decimal
STOCK = "SIM:XYZ"
Played = tuple[Run, dict[str, Any], runs.StoredRun]


def play(folder: Path, env: Mapping[str, str] | None = None, *, name: str = "desk") -> Played:
    known = {"EVENKEEL__STORAGE__RUNS": str(folder), **(env or {})}
    run, document, place = runs.execute(configs.load_config(configs.example_path(f"{name}.toml"), known))
    return run, document, runs.StoredRun(place)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The desk example, kept."""
    return play(tmp_path_factory.mktemp("desk"))


def test_books_are_kept_apart_and_sum_to_the_account(desk: Played) -> None:
    """Fills by their shares and crossings between books give what each book holds; together they are the account's."""
    run, _, stored = desk
    held: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for step in stored.steps():
        for fact in step.facts:
            if fact.account != "dynamic":
                continue
            if isinstance(fact, Transferred):
                held[fact.seller, fact.instrument] -= fact.quantity
                held[fact.buyer, fact.instrument] += fact.quantity
            elif isinstance(fact, Executed):
                for book, quantity in fact.allocations.items():
                    held[book, fact.fill.instrument] += quantity
    account = run.accounts[0]
    books = {book for book, _ in held}
    assert books == {"clients", "scalps"}
    for (book, instrument), quantity in held.items():
        assert account.held(book, instrument) - account.opened.get((book, instrument), D(0)) == quantity
    for instrument, quantity in account.ledger.quantities().items():
        assert sum(account.held(book, instrument) for book in books) == quantity


def test_what_books_trade_against_each_other_never_reaches_the_market(desk: Played, tmp_path: Path) -> None:
    """The two hedgers together trade less stock than each of them alone, by at least what crossed between the books."""
    _, _, stored = desk
    crossed = sum(
        f.quantity for s in stored.steps() for f in s.facts if isinstance(f, Transferred) and f.account == "dynamic"
    )
    assert crossed > 0
    bought = {"desk": _stock(stored)}
    alone = configs.load_config(configs.example_path("desk.toml"), {})
    for book in ("clients", "scalps"):
        kept = tuple(entry for entry in alone.strategies if entry.book == book)
        config = alone.model_copy(update={"strategies": kept})
        config = config.model_copy(update={"storage": config.storage.model_copy(update={"runs": tmp_path / book})})
        _, _, place = runs.execute(config)
        bought[book] = _stock(runs.StoredRun(place))
    assert bought["desk"] + crossed <= bought["clients"] + bought["scalps"]


def _stock(stored: runs.StoredRun) -> Decimal:
    """Shares traded in the market by `dynamic` before the close."""
    fills = [f.fill for s in stored.steps() for f in s.facts if isinstance(f, Executed) and f.account == "dynamic"]
    return sum((abs(fill.quantity) for fill in fills if fill.instrument == STOCK and not fill.closing), D(0))


def test_each_order_is_audited_with_rule_inputs_and_outcome(desk: Played, tmp_path: Path) -> None:
    """There is a row for each order; it names books, strategies, rule and reason, what was seen, and what became of it."""
    _, document, stored = desk
    path = tmp_path / "orders.csv"
    assert audit.export_orders(stored, path) == document["orders"]
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    orders = {f.order.id: f.order for s in stored.steps() for f in s.facts if isinstance(f, Ordered)}
    assert {row["order_id"] for row in rows} == {key for key, order in orders.items() if order.account == "dynamic"}
    for row in rows:
        order = orders[row["order_id"]]
        assert row["reason"] == order.reason and row["rule"] and row["strategies"]
        assert row["outcome"] == "filled" and D(row["filled_qty"]) == order.quantity == D(row["signed_qty"])
        assert sum(D(part.split(":")[1]) for part in row["books"].split()) == order.quantity
        side = row["ask"] if order.quantity > 0 else row["bid"]
        assert float(side) > 0.0 and float(row["quote_age_seconds"]) >= 0.0
    hedges = [row for row in rows if row["instrument"] == STOCK and not row["closing"]]
    assert hedges and all(row["spot"] and row["delta"] and row["band_lo"] and row["vols"] for row in hedges)
    assert {"clients_hedger", "scalps_hedger", "scalper"} <= {
        name for row in rows for name in row["strategies"].split()
    }


def test_refused_orders_are_audited_too(tmp_path: Path) -> None:
    """An order that a limit refused has a row with the limit's words, and no fill."""
    _, _, stored = play(tmp_path, {"EVENKEEL__LIMITS__MAX_ORDER_QUANTITY": "50"}, name="synthetic")
    path = tmp_path / "orders.csv"
    audit.export_orders(stored, path)
    refused = [row for row in csv.DictReader(path.open(encoding="utf-8")) if row["outcome"] == "refused"]
    facts = [f for s in stored.steps() for f in s.facts if isinstance(f, Refused) and f.account == "dynamic"]
    assert len(refused) == len(facts) > 0
    for row, fact in zip(refused, facts, strict=True):
        assert row["why"] == f"{fact.refusal.code}: {fact.refusal.text}" and row["filled_qty"] == "0"
        assert row["reason"] and row["rule"] and row["strategies"] == "delta_hedger"


def test_an_account_the_run_does_not_have_is_named(desk: Played, tmp_path: Path) -> None:
    """Nothing is written for it."""
    with pytest.raises(ConfigError, match="expected an account of it"):
        audit.export_orders(desk[2], tmp_path / "orders.csv", account="nobody")
    assert not (tmp_path / "orders.csv").exists()


def test_a_hedger_of_a_book_nobody_fills_is_refused() -> None:
    """A hedger may own a book that the file does not hold only where another strategy fills it."""
    config = configs.load_config(configs.example_path("desk.toml"), {})
    kept = tuple(entry for entry in config.strategies if entry.name != "scalper")
    with pytest.raises(ConfigError, match=r"scalps_hedger.*expected a book of desk.csv \(clients\), found 'scalps'"):
        runs.execute(config.model_copy(update={"strategies": kept}), store=False)


def test_started_and_targets_carry_their_books(desk: Played) -> None:
    """The account begins with the clients' options alone, and every target is for one of the two books."""
    _, _, stored = desk
    facts = [f for s in stored.steps() for f in s.facts if f.account == "dynamic"]
    (started,) = (f for f in facts if isinstance(f, Started))
    assert sorted(started.positions.values()) == [D(-20), D(-15)]
    assert {f.book for f in facts if isinstance(f, TargetSet)} == {"clients", "scalps"}
    assert msgspec.json.encode(started)
