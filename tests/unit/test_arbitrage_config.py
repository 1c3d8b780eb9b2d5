"""Convertibles, deals and scenarios are read, wired, run or refused in words; counterparties are told what they owe."""

from __future__ import annotations

import inspect
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from pydantic import BaseModel

from adapters import scenario
from bot.app import config as configs
from bot.app import config_convertibles as convertibles
from bot.app import config_feeds as feeds
from bot.app import config_strategies as strategies
from bot.app import risk, runs
from bot.app.config import load_config
from bot.app.config_convertibles import months_before
from bot.app.wiring import assemble, convertibles_of, read_book
from bot.core.errors import BookError, ConfigError
from bot.domain.convertible import ConvertibleModel
from bot.domain.deals import Collar
from bot.domain.instruments import ConvertibleBond
from bot.domain.units import iso
from strategies.convertible_arbitrage import ConvertibleArbitrage, Holding
from strategies.merger_arbitrage import Deal, MergerArbitrage

HEAD = """
schema_version = 1
name = "arbitrage"
[session]
start = "2025-01-06T14:30:00Z"
end = "2025-01-16T14:30:00Z"
report_grid = "1d"
effectiveness_interval = "1d"
[storage]
runs = "runs"
"""
FEED = """
[[feeds]]
kind = "scenario"
step = "4h"
[[feeds.underlyings]]
id = "SIM:ACME"
spot = 100.0
"""
BOND = """
[[convertibles]]
id = "bond:acme30"
underlying = "SIM:ACME"
face = 1000
issued = "2024-08-31"
maturity = "2030-08-31"
coupon = 0.04
per_year = 2
conversion_price = 125.0
redemption = 105.0
[[convertibles.calls]]
start = "2027-08-31"
price = 102.0
trigger = 1.3
[[convertibles.puts]]
start = "2028-08-31"
[convertibles.model]
vol = 0.3
spread = 0.02
"""
HELD = """
[[strategies]]
kind = "convertible_arbitrage"
half_width = 10
[[strategies.positions]]
bond = "BOND:ACME30"
"""
DEAL = """
[[strategies]]
kind = "merger_arbitrage"
budget = 1000
[[strategies.deals]]
target = "SIM:TGT"
acquirer = "SIM:ACME"
ratio = 0.5
expected_close = "2025-06-30T20:00:00Z"
break_price = 40.0
"""
TARGET = """
[[feeds.deals]]
target = "SIM:TGT"
acquirer = "SIM:ACME"
ratio = 0.5
break_price = 40.0
expected_close = "2025-06-30T20:00:00Z"
outcome = "open"
"""


def written(tmp_path: Path, text: str, *, book: str = "") -> Path:
    path = tmp_path / "run.toml"
    if book:
        (tmp_path / "book.csv").write_text(book)
        text += '\n[book]\nfile = "book.csv"\n'
    path.write_text(text)
    return path


def bond_of(tmp_path: Path, text: str = BOND) -> ConvertibleBond:
    return convertibles_of(load_config(written(tmp_path, HEAD + FEED + text + HELD)))["BOND:ACME30"]


def test_a_bond_is_read_as_its_indenture_says(tmp_path: Path) -> None:
    """Coupons half-yearly on the last days of months, ratio from the price, calls and puts in currency, dates in UTC."""
    bond = bond_of(tmp_path)
    dates = [iso(bond.instant(when))[:10] for when, _ in bond.terms.coupons]
    assert dates[:3] == ["2025-02-28", "2025-08-31", "2026-02-28"]
    assert (len(dates), dates[-1]) == (12, "2030-08-31")
    assert {amount for _, amount in bond.terms.coupons} == {20.0}
    assert (bond.terms.ratio, bond.terms.redeemed, bond.multiplier) == (8.0, 1050.0, Decimal(10))
    (call,), (put,) = bond.terms.calls, bond.terms.puts
    assert (iso(bond.instant(call.start))[:10], iso(bond.instant(call.end))[:10]) == ("2027-08-31", "2030-08-31")
    assert (call.price, call.trigger, put.start, put.price) == (1020.0, 1.3, put.end, 1000.0)
    assert iso(bond.matures) == "2030-08-31T00:00:00Z"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("conversion_price = 125.0", ""), "conversion_ratio and conversion_price"),
        (("per_year = 2", "per_year = 5"), "1, 2, 3, 4, 6 or 12"),
        (('maturity = "2030-08-31"', 'maturity = "2023-08-31"'), "convertible"),
        (("spread = 0.02", "spread = 0.02\nhazard = 0.1"), "found both"),
        (('start = "2027-08-31"', 'start = "2031-08-31"'), "window"),
        (("coupon = 0.04", 'coupon = 0.04\ncoupons = [{on = "2026-01-01", amount = 1.0}]'), "found both"),
        (("vol = 0.3", "vol = 0.3\nvoll = 1"), "voll"),
    ],
)
def test_terms_that_contradict_themselves_are_refused_by_name(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    """A fault of the table is found when the file is read."""
    with pytest.raises(ConfigError, match=words):
        bond_of(tmp_path, BOND.replace(*change))


def test_months_are_counted_by_the_calendar() -> None:
    """The last day of a short month stands for one it does not have, and a time of day stays."""
    assert months_before("2028-08-31T14:00:00Z", 6) == "2028-02-29T14:00:00Z"
    assert months_before("2027-01-15", 1) == "2026-12-15"


def test_a_book_may_hold_bonds_by_the_config_id(tmp_path: Path) -> None:
    """A row names the bond in any case; what it says besides must agree."""
    rows = "instrument,quantity,type,counterparty\nBond:Acme30,400,convertible,BANK-A\nBOND:ACME30,100,,BANK-B\n"
    book = read_book(load_config(written(tmp_path, HEAD + FEED + BOND + HELD, book=rows)))
    assert [p.quantity for p in book.positions] == [400, 100]
    assert {item.id for item in book.universe} == {"BOND:ACME30", "SIM:ACME"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("instrument,quantity,multiplier\nBOND:ACME30,4,100\n", "multiplier"),
        ("instrument,quantity,currency\nBOND:ACME30,4,EUR\n", "currency"),
        ("instrument,quantity,strike\nBOND:ACME30,4,100\n", "strike"),
        ("instrument,quantity,type\nBOND:ACME30,4,stock\n", "type"),
        ("instrument,quantity\nBOND:OTHER,4\n", "BOND"),
    ],
)
def test_rows_that_contradict_the_bond_are_refused(tmp_path: Path, row: str, words: str) -> None:
    """Another multiplier, currency or kind is another instrument; an unknown bond is no bond."""
    with pytest.raises(BookError, match=words):
        read_book(load_config(written(tmp_path, HEAD + FEED + BOND + HELD, book=row)))


def test_a_bond_that_matured_is_refused(tmp_path: Path) -> None:
    """What has been redeemed by the start cannot be held."""
    old = BOND.replace('issued = "2024-08-31"', 'issued = "2014-08-31"').replace("2030", "2024")
    old = old.replace('start = "2027-08-31"', 'start = "2020-08-31"').replace(
        'start = "2028-08-31"', 'start = "2021-08-31"'
    )
    text = HEAD + FEED + old.replace("bond:acme30", "bond:acme24") + HELD.replace("ACME30", "ACME24")
    with pytest.raises(BookError, match="expired"):
        read_book(load_config(written(tmp_path, text, book="instrument,quantity\nBOND:ACME24,4\n")))


def test_instruments_of_tables_below_are_resolved_and_waited_for(tmp_path: Path) -> None:
    """Targets and acquirers of [[strategies.deals]] are the run's instruments and must have a price before it begins."""
    run = assemble(
        load_config(written(tmp_path, HEAD + FEED + TARGET + DEAL.replace("SIM:ACME", "sim:acme"))), journal=None
    )
    assert set(run.loop.needed) == {"SIM:ACME", "SIM:TGT"}
    assert run.accounts[0].slots[0].strategy.trades() == ["SIM:ACME", "SIM:TGT"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HELD + "hedgratio = 2", "hedgratio"),
        (HELD.replace("half_width = 10", ""), "half_width"),
        (DEAL.replace("break_price = 40.0", ""), "break_price and unaffected"),
        (DEAL.replace("ratio = 0.5", ""), "cash, a ratio or a collar"),
        (DEAL + 'collar = {kind = "fixed_value", low = 9.0, high = 8.0, value = 3.0}', "low below high"),
        (DEAL.replace("budget = 1000", ""), "budget or a quantity"),
    ],
)
def test_strategy_tables_that_mean_nothing_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """Unknown keys, missing keys and contradictions, in words and before anything runs."""
    with pytest.raises(ConfigError, match=words):
        assemble(load_config(written(tmp_path, HEAD + FEED + TARGET + BOND + text)), journal=None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("spot = 100.0", "spot = -1.0"), "spot"),
        (('step = "4h"', 'step = "4h"\ncorrelation = [[1.0, 0.5]]'), "rows of 1"),
        (('step = "4h"', 'step = "4h"\nshocks = [{at = "2025-01-07T00:00:00Z", moves = {"SIM:NO" = 0.1}}]'), "SIM:NO"),
    ],
)
def test_scenarios_that_mean_nothing_are_refused(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    """A script is checked before anything runs."""
    with pytest.raises((ConfigError, ValueError), match=words):
        assemble(load_config(written(tmp_path, HEAD + FEED.replace(*change) + BOND + HELD)), journal=None)


def run_of(tmp_path: Path, text: str, book: str) -> dict[str, Any]:
    config = load_config(written(tmp_path, text, book=book))
    return runs.execute(config, store=False)[1]


def test_counterparties_are_told_what_they_owe(tmp_path: Path) -> None:
    """By name: quantity times mark at the first and last sample, and the most in between; shorts are owed by us."""
    rows = (
        "instrument,quantity,counterparty\nBOND:ACME30,400,BANK-A\nBOND:ACME30,100,BANK-B\nSIM:ACME,-300,BANK-A\n"
        "SIM:ACME,20,\n"
    )
    feed = FEED + '[[feeds.bonds]]\ninstrument = "BOND:ACME30"\n'
    quiet = HELD.replace("half_width = 10", "half_width = 1000000")
    document = run_of(tmp_path, HEAD + feed + BOND + quiet, rows)
    found = {row["counterparty"]: row for row in document["counterparties"]}
    assert list(found) == ["", "BANK-A", "BANK-B"]
    assert found["BANK-B"]["entry"] > 50_000.0
    assert found["BANK-A"]["positions"] == 2
    bond, share = 4.0 * found["BANK-B"]["entry"], found[""]["entry"] / 20.0
    assert found["BANK-A"]["entry"] == pytest.approx(bond - 300.0 * share, abs=0.01)
    for row in found.values():
        assert row["least"] <= row["exit"] <= row["peak"]


def test_what_was_put_to_the_issuer_is_owed_no_more(tmp_path: Path) -> None:
    """A bond redeemed within the run leaves its counterparty owing nothing, and its peak is remembered."""
    end = '[[feeds.corporates]]\nat = "2025-01-10T14:30:00Z"\nwhat = "redemption"\ninstrument = "BOND:ACME30"\ncash = 90\n'
    feed = FEED + '[[feeds.bonds]]\ninstrument = "BOND:ACME30"\n' + end
    rows = "instrument,quantity,counterparty\nBOND:ACME30,400,BANK-A\n"
    (row,) = run_of(tmp_path, HEAD + feed + BOND + HELD, rows)["counterparties"]
    assert (row["exit"], row["least"]) == (0.0, 0.0)
    assert row["peak"] >= row["entry"] > 0.0


def test_what_became_something_else_is_owed_as_that(tmp_path: Path) -> None:
    """A target that merged into half a share of another stands at half that share's mark."""
    close = TARGET.replace('outcome = "open"', 'outcome = "close"\nat = "2025-01-10T14:30:00Z"')
    idle = DEAL.replace("budget = 1000", "min_return = 90.0\nbudget = 1000")
    rows = "instrument,quantity,counterparty\nSIM:TGT,100,BANK-A\n"
    document = run_of(tmp_path, HEAD + FEED + close + idle, rows)
    (row,) = document["counterparties"]
    assert document["books"]["none"]["positions"] == {"SIM:ACME": 50.0}
    assert row["entry"] > 4_000.0


def test_a_book_without_positions_owes_nothing(tmp_path: Path) -> None:
    """Nothing brought, nobody owes."""
    config = load_config(written(tmp_path, HEAD + FEED + TARGET + DEAL))
    assert runs.execute(config, store=False)[1]["counterparties"] == []


def test_the_hash_covers_the_terms(tmp_path: Path) -> None:
    """Another coupon is another run."""
    one = configs.config_hash(load_config(written(tmp_path, HEAD + FEED + BOND + HELD)))
    two = configs.config_hash(load_config(written(tmp_path, HEAD + FEED + BOND.replace("0.04", "0.05") + HELD)))
    assert one != two


def test_risk_knows_a_bond_by_its_model(tmp_path: Path) -> None:
    """Greeks are differences of the repriced value, and the stress grid reprices the bond."""
    config = load_config(written(tmp_path, HEAD + FEED + BOND + HELD, book="instrument,quantity\nBOND:ACME30,400\n"))
    scene = risk.stage(config)
    row = next(r for r in risk.position_rows(scene) if r["instrument"] == "BOND:ACME30")
    assert row["unknown"] == {}
    spot = row["spot"]
    moved = risk.revalue(scene, spot_percent=np.array([-0.1, 0.0, 0.1]), vol_points=0.0, days=0.0)[0].pnl
    assert moved[1] == 0.0
    assert row["delta"] == pytest.approx((moved[2] - moved[0]) / (0.002 * spot), rel=1e-3)
    vol = risk.revalue(scene, spot_percent=np.zeros(1), vol_points=1.0, days=0.0)[0].pnl[0]
    assert row["vega_per_point"] == pytest.approx(vol, rel=0.02)
    day = risk.revalue(scene, spot_percent=np.zeros(1), vol_points=0.0, days=1.0)[0].pnl[0]
    assert row["theta_per_day"] == pytest.approx(day, rel=0.05)


def test_risk_of_a_bond_without_a_model_says_why(tmp_path: Path) -> None:
    """A bond nobody told a model of has a value at its quote and no Greeks, with the reason."""
    bare = BOND.partition("[convertibles.model]")[0]
    rows = "instrument,quantity,price\nBOND:ACME30,400,101\n"
    text = HEAD + FEED + bare + HELD + '[book]\nfile = "book.csv"\nprice_source = "file"\n'
    (tmp_path / "book.csv").write_text(rows)
    scene = risk.stage(load_config(written(tmp_path, text)))
    row = next(r for r in risk.position_rows(scene) if r["instrument"] == "BOND:ACME30")
    assert row["delta"] is None
    assert "no model" in row["unknown"]["delta"]


PARTS: tuple[tuple[type[BaseModel], type[msgspec.Struct]], ...] = (
    (feeds.ScenarioFeed, scenario.ScenarioOptions),
    (feeds.ScenarioUnderlying, scenario.Underlying),
    (feeds.ScenarioRegime, scenario.Regime),
    (feeds.ScenarioShock, scenario.Shock),
    (feeds.ScenarioCrowd, scenario.Crowd),
    (feeds.ScenarioBond, scenario.BondQuotes),
    (feeds.ScenarioDeal, scenario.DealScript),
    (feeds.ScenarioAmendment, scenario.Amendment),
    (feeds.ScenarioCollar, Collar),
    (feeds.ScenarioOutage, scenario.Outage),
    (feeds.ScenarioNotice, scenario.NoticeScript),
    (feeds.ScenarioCorporate, scenario.CorporateScript),
    (strategies.DealConfig, Deal),
    (strategies.CollarConfig, Collar),
    (strategies.BondPosition, Holding),
    (convertibles.BondModel, ConvertibleModel),
)


@pytest.mark.parametrize(("table", "options"), PARTS, ids=[table.__name__ for table, _ in PARTS])
def test_each_key_of_a_table_reaches_its_reader_with_the_same_default(
    table: type[BaseModel], options: type[msgspec.Struct]
) -> None:
    """The config has a key for each option and none beside them; where both have a default it is the same."""
    left_to_others = {"kind", "pace", "start", "end", "name", "rate"} if table is feeds.ScenarioFeed else set()
    known = {field.name: field for field in msgspec.structs.fields(options)}
    assert set(table.model_fields) - left_to_others == set(known) - left_to_others
    for name, key in table.model_fields.items():
        if name in left_to_others or key.is_required():
            continue
        field = known[name]
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        assert key.default == default, name


@pytest.mark.parametrize(
    ("table", "factory"),
    [
        (strategies.ConvertibleArbitrageConfig, ConvertibleArbitrage),
        (strategies.MergerArbitrageConfig, MergerArbitrage),
    ],
    ids=["convertible_arbitrage", "merger_arbitrage"],
)
def test_each_key_of_a_strategy_reaches_it_with_the_same_default(table: type[BaseModel], factory: Any) -> None:
    """A key of the table is an argument of the strategy, and the other way round."""
    arguments = inspect.signature(factory).parameters
    assert set(table.model_fields) - {"kind", "on_fault"} == set(arguments)
    for name, key in table.model_fields.items():
        if name not in {"kind", "on_fault"} and not key.is_required():
            assert key.default == arguments[name].default, name
