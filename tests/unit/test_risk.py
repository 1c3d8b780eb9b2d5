"""Risk: Greeks, grid and scenario are the pricer's own, sums stop at what is unknown, and nothing is sent."""

from __future__ import annotations

import json
import math
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bot.app.config import Config, example_path, load_config
from bot.app.risk import (
    GRID_SPOT_PERCENT,
    GRID_VOL_POINTS,
    Scenario,
    parse_addition,
    parse_scenario,
    render_risk,
    risk,
    stage,
)
from bot.core.errors import ConfigError
from bot.domain.instruments import OptionContract
from bot.domain.units import NS_PER_MINUTE, NS_PER_YEAR, Nanos, parse_instant
from bot.pricing.black import bsm
from tests.realdata import data_root, lean_root

START = parse_instant("2025-03-03T14:30:00Z")
EXPIRY = parse_instant("2025-03-21T20:00:00Z")
RATE = 0.04
CONFIG = """
schema_version = 1
name = "small"
[session]
start = "2025-03-03T14:30:00Z"
end = "2025-03-03T14:50:00Z"
[[feeds]]
kind = "synthetic"
seed = 3
underlying = "SIM:XYZ"
step = "10s"
spot = 100.0
vol = 0.28
rate = 0.04
[feeds.chain]
root = "XYZ"
expiries = ["2025-03-21"]
strikes = [95, 100, 105]
[book]
file = "book.csv"
[pricing]
vol = "implied"
rate = 0.04
[[hedges]]
underlying = "SIM:XYZ"
instrument = "SIM:XYZ"
[[strategies]]
kind = "delta_hedger"
policy = { kind = "delta_band", half_width = 0 }
"""
HEADER = "underlying,type,cp,strike,expiry,style,settlement,multiplier,currency,quantity\n"
CALL, PUT = "XYZ   250321C00100000", "XYZ   250321P00095000"


def line(cp: str, strike: int, quantity: int) -> str:
    return f"SIM:XYZ,option,{cp},{strike},2025-03-21T20:00:00Z,european,physical,100,USD,{quantity}\n"


BOOK = HEADER + line("call", 100, -50) + line("put", 95, 30)


def config_of(folder: Path, *, text: str = CONFIG, book: str = BOOK) -> Config:
    (folder / "book.csv").write_text(book)
    (folder / "small.toml").write_text(text)
    return load_config(folder / "small.toml", env={})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return config_of(tmp_path_factory.mktemp("risk"))


@pytest.fixture(scope="module")
def document(config: Config) -> dict[str, Any]:
    at = START + 5 * NS_PER_MINUTE
    return risk(config, at=at, scenario=Scenario(spot_percent=-5, vol_points=3, days=1), add=["+100 SIM:XYZ"])


def row_of(document: dict[str, Any], key: str) -> dict[str, Any]:
    row: dict[str, Any]
    (row,) = [row for row in document["contracts"] if row["instrument"] == key]
    return row


def price(row: dict[str, Any], now: Nanos, *, spot_percent: float = 0.0, vol_points: float = 0.0) -> Any:
    """The textbook value of a row's contract, from the quotes and vol it shows."""
    spot = row["spot"] * (1 + spot_percent / 100)
    tau = (EXPIRY - now) / NS_PER_YEAR
    return bsm(spot, row["strike"], tau, row["vol"] + vol_points / 100, rate=RATE, cp=row["cp"])


# --------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("spot=-5%,vol=+3,days=1", Scenario(spot_percent=-5, vol_points=3, days=1)),
        ("days=0.5", Scenario(days=0.5)),
        (" vol = -2.5 , spot = 10% ", Scenario(spot_percent=10, vol_points=-2.5)),
    ],
)
def test_a_scenario_is_read_in_any_order_and_what_is_not_named_stays(text: str, found: Scenario) -> None:
    """Spot in per cent, vol in points and days are read; the others are zero."""
    assert parse_scenario(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected spot=-5%"),
        ("spot=-5", "spot: expected a per cent"),
        ("vol=3%", "vol: expected vol points"),
        ("rate=1", "found 'rate=1'"),
        ("spot=-5%,spot=2%", "spot: given twice"),
        ("spot=x%", "spot: expected a number"),
        ("vol=nan", "vol_points: expected a finite number"),
        ("spot=-100%", "above -100%"),
        ("days=-1", "days: expected 0 to"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_one_clear_error(text: str, words: str) -> None:
    """The error names the key, what was expected and what was found."""
    with pytest.raises(ConfigError, match=words):
        parse_scenario(text)


@pytest.mark.parametrize(
    ("text", "quantity", "symbol"),
    [
        ("+100 US:GOOG", "100", "US:GOOG"),
        ("-5 CME:ESH2020", "-5", "CME:ESH2020"),
        ('10 "GOOG  160115C00750000"', "10", "GOOG  160115C00750000"),
        ("10 GOOG160115C00750000", "10", "GOOG160115C00750000"),
        ("0.5 BINANCE:BTCUSDT", "0.5", "BINANCE:BTCUSDT"),
    ],
)
def test_an_addition_is_a_signed_quantity_and_an_instrument(text: str, quantity: str, symbol: str) -> None:
    """Signs, quotes around the symbol and unpadded symbols are taken."""
    found = parse_addition(text)
    assert (str(found.quantity), found.symbol) == (quantity, symbol)


@pytest.mark.parametrize(
    "text", ["", "US:GOOG", "+100", "0 US:GOOG", "1,000 US:GOOG", "nan US:GOOG", "1e999999999 X", '5 ""']
)
def test_an_addition_that_makes_no_sense_is_one_clear_error(text: str) -> None:
    """The error starts with the option it came from."""
    with pytest.raises(ConfigError, match="--add: expected"):
        parse_addition(text)


# --------------------------------------------------------------------------- figures


def test_greeks_are_the_textbook_ones_of_the_quotes_and_vol_shown(document: dict[str, Any]) -> None:
    """Each Greek is quantity x multiplier x the Black-Scholes one, scaled as its name says."""
    now = document["as_of_ns"]
    assert now == START + 5 * NS_PER_MINUTE
    for key, quantity in ((CALL, -50), (PUT, 30)):
        row = row_of(document, key)
        g, w, S = price(row, now), quantity * 100.0, row["spot"]
        expected = {
            "value": w * row["mark"],
            "delta": w * g.delta,
            "cash_delta": w * g.delta * S,
            "gamma": w * g.gamma,
            "gamma_per_percent": w * g.gamma * S * S / 100,
            "vega_per_point": w * g.vega / 100,
            "theta_per_day": w * g.theta / 365,
            "rho_per_percent": w * g.rho / 100,
            "vanna_per_point": w * g.vanna / 100,
            "volga_per_point": w * g.volga / 1e4,
            "charm_per_day": w * g.charm / 365,
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(float(value), rel=1e-12), name
        assert row["mark"] == pytest.approx(0.5 * (row["bid"] + row["ask"]))
        assert row["vol_age_seconds"] == 0.0


def test_groups_and_total_are_sums_of_positions_and_the_total_adds_money_only(document: dict[str, Any]) -> None:
    """The underlying's delta sums its options and stock; the total has no delta, only money."""
    (underlying,) = document["underlyings"]
    (expiry,) = document["expiries"]
    rows = document["contracts"]
    for name in ("delta", "gamma", "cash_delta", "vega_per_point"):
        assert underlying[name] == pytest.approx(sum(row[name] for row in rows))
    assert underlying["delta"] == pytest.approx(expiry["delta"] + 100)
    assert document["total"]["cash_delta"] == pytest.approx(underlying["cash_delta"])
    assert "delta" not in document["total"]
    assert "gamma" not in document["total"]


def test_the_grid_is_the_whole_book_repriced(document: dict[str, Any]) -> None:
    """Every cell equals textbook prices at the moved price and vol less those of now; no move is no P&L."""
    now = document["as_of_ns"]
    grid = document["grid"]
    for i, points in enumerate(GRID_VOL_POINTS):
        for j, spot_percent in enumerate(GRID_SPOT_PERCENT):
            expected = 100 * row_of(document, CALL)["spot"] * spot_percent / 100
            for key in (CALL, PUT):
                row = row_of(document, key)
                moved = price(row, now, spot_percent=spot_percent, vol_points=points).price
                expected += row["quantity"] * 100 * float(moved - price(row, now).price)
            assert grid["pnl"][i][j] == pytest.approx(expected, abs=1e-6)
    assert grid["pnl"][GRID_VOL_POINTS.index(0.0)][GRID_SPOT_PERCENT.index(0.0)] == 0.0


def test_a_scenario_is_split_by_leg_with_its_taylor_terms_and_what_they_miss(document: dict[str, Any]) -> None:
    """Legs sum to the total, the difference is P&L less Taylor, and a share has no difference."""
    found = document["scenario"]
    for name in ("pnl", "taylor", "difference"):
        assert found["total"][name] == pytest.approx(sum(leg[name] for leg in found["legs"]))
    for leg in found["legs"]:
        assert leg["difference"] == pytest.approx(leg["pnl"] - leg["taylor"])
        assert leg["taylor"] == pytest.approx(sum(leg["terms"].values()))
    share = next(leg for leg in found["legs"] if leg["instrument"] == "SIM:XYZ")
    assert share["difference"] == 0.0
    assert share["pnl"] == pytest.approx(-0.05 * row_of(document, "SIM:XYZ")["mark"] * 100)


def test_taylor_meets_revaluation_as_the_scenario_shrinks(config: Config) -> None:
    """A tenth of the move leaves about a thousandth of the difference: nothing of second order is missing."""
    big, small = (
        risk(config, scenario=Scenario(spot_percent=-2 * k, vol_points=2 * k, days=2 * k))["scenario"]["total"]
        for k in (1.0, 0.1)
    )
    # theta's own second order (dt^2) is left to the difference, so the bound is that of a second-order remainder
    assert abs(small["difference"]) < 0.012 * abs(big["difference"]) + 1e-6


def test_an_option_that_expires_within_the_days_is_worth_its_payoff(config: Config) -> None:
    """Beyond its expiry a leg's P&L is intrinsic value at the moved price less the value of now."""
    document = risk(config, scenario=Scenario(spot_percent=-10, days=60))
    row = row_of(document, PUT)
    leg = next(leg for leg in document["scenario"]["legs"] if leg["instrument"] == PUT)
    payoff = max(95 - row["spot"] * 0.9, 0.0)
    assert leg["pnl"] == pytest.approx(30 * 100 * (payoff - row["model_price"]))


def test_expiries_ahead_tell_days_and_distance_in_percent_and_standard_deviations(document: dict[str, Any]) -> None:
    """The strike's distance is signed, per cent of the price and in one day's standard deviations."""
    (ahead,) = [row for row in document["ahead"] if row["instrument"] == PUT]
    row = row_of(document, PUT)
    S, vol = row["spot"], row["vol"]
    assert ahead["days_left"] == pytest.approx((EXPIRY - document["as_of_ns"]) / 86_400e9)
    assert ahead["distance_percent"] == pytest.approx(100 * (95 - S) / S)
    assert ahead["distance_one_day_sd"] == pytest.approx((95 - S) / (S * vol * math.sqrt(1 / 365)))
    assert (ahead["moneyness"], ahead["contracts"], ahead["pin"]) == ("OTM", 30.0, False)


def test_a_strike_near_the_price_is_a_pin_on_its_last_days_only(tmp_path: Path) -> None:
    """An at-the-money strike is pointed out when its expiry is near, not weeks before."""
    near = CONFIG.replace("2025-03-21", "2025-03-04")
    book = BOOK.replace("2025-03-21", "2025-03-04")
    ahead = {row["strike"]: row["pin"] for row in risk(config_of(tmp_path, text=near, book=book))["ahead"]}
    assert ahead == {95.0: False, 100.0: True}


# --------------------------------------------------------------------------- what is unknown


def test_an_option_without_a_quote_is_null_with_the_reason_and_stops_the_sums(tmp_path: Path) -> None:
    """Greeks of an option whose underlying nobody quotes are null, never zero, and so are the sums they belong to."""
    unpriced = line("call", 101, 5).replace("SIM:XYZ", "US:ABC")
    document = risk(config_of(tmp_path, book=BOOK + unpriced), at=START + NS_PER_MINUTE)
    row = row_of(document, "ABC   250321C00101000")
    assert row["delta"] is None
    assert row["value"] is None
    assert "US:ABC" in row["unknown"]["delta"]
    assert "two-sided" in row["unknown"]["value"]
    assert row_of(document, CALL)["delta"] is not None
    assert document["total"]["cash_delta"] is None
    assert "250321C00101000" in document["total"]["unknown"]["cash_delta"]
    by_underlying = {group["underlying"]: group["delta"] for group in document["underlyings"]}
    assert by_underlying["US:ABC"] is None
    assert by_underlying["SIM:XYZ"] is not None
    assert document["grid"]["pnl"][0][0] is None
    assert document["grid"]["unknown"]
    assert any("had not begun" in note for note in document["notes"])
    assert "?" in shown(document)


def test_a_supplied_table_says_nothing_of_vol(tmp_path: Path) -> None:
    """Vega and its kin are null under a delta table, and so is P&L where vols move; where they stay it is known."""
    table = (
        'pricer = "table"\n[pricing.table]\nspots = [90, 110]\ndeltas = [0.4, 0.7]\nvalue = 4\ndecay_per_day = 0.1\n'
    )
    text = CONFIG.replace('[pricing]\nvol = "implied"\nrate = 0.04\n', "[pricing]\n" + table)
    document = risk(config_of(tmp_path, text=text, book=HEADER + line("call", 100, -50)))
    row = row_of(document, CALL)
    assert row["delta"] is not None
    assert row["vega_per_point"] is None
    assert "knows no vol" in row["unknown"]["vega_per_point"]
    assert document["grid"]["pnl"][GRID_VOL_POINTS.index(0.0)][0] is not None
    assert document["grid"]["pnl"][0][0] is None


def test_an_instant_after_the_feed_is_told_and_valued_at_its_end(config: Config) -> None:
    """Nothing is invented past the last quote: the document is as of the feed's end and says so."""
    document = risk(config, at=START + 600 * NS_PER_MINUTE)
    assert document["as_of"] == "2025-03-03T14:50:00Z"
    assert any("the feed ended" in note for note in document["notes"])


# --------------------------------------------------------------------------- additions and nothing sent


def test_additions_use_the_runs_own_contracts_and_add_up(config: Config) -> None:
    """An unpadded symbol finds the feed's contract; repeated additions add to what is held."""
    scene = stage(config, add=["-5 XYZ250321C00105000", "+5 XYZ250321C00100000", f"5 {CALL}"])
    listed = scene.universe.get("XYZ   250321C00105000")
    assert isinstance(listed, OptionContract)
    assert listed.underlying == "SIM:XYZ"
    assert {k: float(q) for k, q in scene.positions.items()} == {
        CALL: -40.0,
        "XYZ   250321C00105000": -5.0,
        PUT: 30.0,
    }


def test_an_addition_nobody_knows_or_of_part_of_a_lot_is_refused(config: Config) -> None:
    """A word that names no instrument, and a fraction of a contract, are errors of the command line."""
    with pytest.raises(ConfigError, match=r"--add: 'N0P:E'"):
        risk(config, add=["1 N0P:E"])
    with pytest.raises(ConfigError, match="whole lots of 1"):
        risk(config, add=[f"0.5 {CALL}"])


def test_an_added_contract_that_has_expired_by_then_is_refused(config: Config) -> None:
    """A contract past its expiry cannot be added."""
    with pytest.raises(ConfigError, match="expected a contract alive"):
        risk(config, add=["1 GOOG160115C00750000"])


def test_nothing_is_hedged_or_sent(config: Config) -> None:
    """The replay holds the book as it is: no order is made although the config's strategy would."""
    scene = stage(config, at=START + 10 * NS_PER_MINUTE)
    assert scene.loop.started_at == START
    assert [account.name for account in scene.loop.accounts] == ["risk"]
    assert scene.loop.accounts[0].order_count == 0
    assert scene.loop.accounts[0].slots == []


def test_the_same_words_give_the_same_document(config: Config) -> None:
    """Risk is a function of its inputs."""
    assert risk(config, add=["+1 SIM:XYZ"]) == risk(config, add=["+1 SIM:XYZ"])


def shown(document: dict[str, Any]) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(render_risk(document))
    out = console.file
    assert isinstance(out, StringIO)
    return out.getvalue()


def test_a_person_sees_every_part_as_a_table(document: dict[str, Any]) -> None:
    """Positions, Greeks, expiries, grid and scenario are shown, with what was added in thought."""
    text = shown(document)
    for words in (
        "Positions",
        "Greeks by expiry",
        "Greeks by underlying",
        "Expiries ahead",
        "Scenario",
        "added in thought",
    ):
        assert words in text


# --------------------------------------------------------------------------- real data


@pytest.mark.real
def test_the_es_call_has_the_reference_vol_and_delta_at_its_start() -> None:
    """At the first ready instant of the ES day vol and delta are those of the independent reference."""
    env = {"EVENKEEL_DATA": str(lean_root())}
    document = risk(load_config(example_path("es_day.toml"), env=env))
    reference = json.loads((data_root() / "reference.json").read_text())
    entry = reference["cases"]["ES_202003"]["runs"]["call_every15m"]
    (row,) = document["contracts"]
    assert document["as_of"] == "2020-01-05T23:10:00Z"
    assert row["vol"] == pytest.approx(entry["entry_iv"][0], abs=1e-6)
    assert row["delta"] == pytest.approx(5000 * entry["entry_delta"][0], abs=0.005)
    assert row["mark"] == entry["entry_mid"]
    assert document["total"]["cash_delta"] == pytest.approx(row["delta"] * row["spot"])
