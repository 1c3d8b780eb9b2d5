"""Buying power, asked for in a config, holds back what the account could not carry."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bot.app import config as configs
from bot.app import runs, wiring

EXAMPLE = configs.example_path("synthetic.toml")


def run_with(folder: Path, cash: str) -> dict[str, Any]:
    shutil.copytree(EXAMPLE.parent / "books", folder / "books")
    path = folder / "margin.toml"
    path.write_text(f"{EXAMPLE.read_text(encoding='utf-8')}\n[accounts.opening_cash]\nUSD = {cash}\n", encoding="utf-8")
    env = {"EVENKEEL__BROKER__MARGIN": "true", "EVENKEEL__SESSION__END": "2025-03-03T15:00:00Z"}
    _, document, _ = runs.execute(configs.load_config(path, env), store=False)
    return document


@pytest.mark.parametrize(("cash", "trades"), [("100", False), ("10000000", True)])
def test_an_order_needs_buying_power(tmp_path: Path, cash: str, trades: bool) -> None:
    """With a hundred dollars every hedge is rejected and alarmed; with ten million it fills."""
    document = run_with(tmp_path, cash)
    book = document["books"]["dynamic"]
    assert (book["trades"] > 0) is trades
    assert ("venue:buying_power" in book["refusals"]) is not trades
    assert any(alarm["code"] == "rejected" for alarm in document["alarms"]) is not trades


def test_margin_of_a_future_is_named_by_any_of_its_ids() -> None:
    """The sum per contract reaches the venue under the canonical id, the leveraged share beside it."""
    config = configs.load_config(EXAMPLE, {"EVENKEEL__BROKER__MARGIN": "true"})
    broker = config.broker.model_copy(update={"margin_per_contract": {"ESH20": 6600}, "margin_leveraged": 1})
    found = configs.broker_settings(wiring.canonical(config.model_copy(update={"broker": broker})))
    assert found["margin"] == {"per_contract": {"CME:ESH2020": 6600}, "leveraged": 1}
