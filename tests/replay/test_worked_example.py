"""The article's market maker through the whole engine: every line of the example is computed, none is put in."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.app import config as configs
from bot.app import runs
from bot.engine.journal import Executed

EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "market_maker_example.toml"
TICKET = "EVENKEEL__BROKER__COMMISSION__0__AMOUNT"
PREMIUM = 10_000 * 10


def play(folder: Path, **overrides: str) -> tuple[dict[str, Any], list[Executed]]:
    """The result document of the example and the fills of its dynamic account."""
    config = configs.load_config(EXAMPLE, {"EVENKEEL__STORAGE__RUNS": str(folder), **overrides})
    _, document, stored = runs.execute(config)
    assert stored is not None
    facts = [fact for step in runs.StoredRun(stored).steps() for fact in step.facts]
    return document, [f for f in facts if isinstance(f, Executed) and f.account == "dynamic"]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Executed]]:
    return play(tmp_path_factory.mktemp("runs"))


def test_each_line_comes_out(example: tuple[dict[str, Any], list[Executed]]) -> None:
    """Gamma earns 20,000, theta takes 17,500, tickets 2,000, and 500 is left: half a percent of the premium."""
    book = example[0]["books"]["dynamic"]
    assert book["attribution"] == pytest.approx(
        {
            "delta": 0.0,
            "gamma": 20_000.0,
            "theta": -17_500.0,
            "vega": 0.0,
            "vanna": 0.0,
            "volga": 0.0,
            "carry": 0.0,
            "cost": -2_000.0,
            "residual": 0.0,
        },
        abs=0.005,
    )
    assert book["pnl"] == pytest.approx(
        {
            "total": 500.0,
            "options": -17_500.0,
            "hedge": 20_000.0,
            "spread_cost": 0.0,
            "commission": 2_000.0,
            "impact": 0.0,
            "financing": 0.0,
        },
        abs=0.005,
    )
    assert book["pnl"]["total"] / PREMIUM == pytest.approx(0.005)


def test_forty_tickets_are_counted_and_the_opening_one_is_apart(example: tuple[dict[str, Any], list[Executed]]) -> None:
    """The opening sale of 6,000 comes before the count; 40 trades of 500 shares each, in turn, are the 40 tickets."""
    document, fills = example
    book = document["books"]["dynamic"]
    quantities = [fact.fill.quantity for fact in fills]
    assert quantities[0] == Decimal(-6000)
    assert quantities[1:] == [Decimal(-500), Decimal(500)] * 20
    assert sum(fact.fill.commission for fact in fills[1:]) == Decimal(2000)
    assert book["opening_ticket"] == 50.0
    assert book["trades"] == 41
    assert book["closing_trades"] == 0


def test_every_trade_is_made_on_its_move(example: tuple[dict[str, Any], list[Executed]]) -> None:
    """The book sells at 102 and buys at 100: what is called a gain from gamma is this, forty times."""
    rebalances = [fact.fill for fact in example[1][1:]]
    assert {(fill.price, fill.quantity) for fill in rebalances} == {
        (Decimal(102), Decimal(-500)),
        (Decimal(100), Decimal(500)),
    }
    assert len({fill.ts for fill in rebalances}) == 40


def test_a_dearer_ticket_turns_the_result(tmp_path: Path) -> None:
    """With tickets of $100 the same forty trades cost 4,000 and the net is -1,500."""
    document, fills = play(tmp_path, **{TICKET: "100"})
    book = document["books"]["dynamic"]
    assert len(fills) == 41
    assert book["pnl"]["commission"] == pytest.approx(4_000.0)
    assert book["attribution"]["cost"] == pytest.approx(-4_000.0)
    assert book["attribution"]["gamma"] == pytest.approx(20_000.0)
    assert book["opening_ticket"] == 100.0
    assert book["pnl"]["total"] == pytest.approx(-1_500.0)


def test_decay_is_paid_by_whoever_holds_the_calls(example: tuple[dict[str, Any], list[Executed]]) -> None:
    """Without a hedge and back at the first price, what is left is the decay: a loss of 17,500."""
    books = example[0]["books"]
    assert books["none"]["pnl"]["total"] == pytest.approx(-17_500.0)
    assert books["none"]["pnl"]["hedge"] == 0.0
    assert books["static"]["pnl"]["total"] == pytest.approx(-17_500.0)
    assert books["static"]["trades"] == 1
