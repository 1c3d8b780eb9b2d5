"""Recorded days nobody has worked out before: each run ends, or is refused in a sentence, and its money adds up by hand."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.app import config as configs
from bot.app import result
from bot.app.wiring import Run
from bot.core.errors import DataError
from bot.domain.units import parse_instant
from bot.engine.journal import Adjusted, Executed, Started, Step
from tests.realdata import data_root, lean_root
from tests.replay.days import GOOG, PARITY, Day, changed, known_at, play, write_config

pytestmark = pytest.mark.real

FIXED = 'vol = "fixed"\nvol_value = 0.25\nrate = 0.01'
IMMEDIATE = {"EVENKEEL__SESSION__BEGIN": "immediate"}
FALL_2013 = Day(
    name="fall",
    underlying="",
    dates=("2013-10-07",),
    start="2013-10-07T13:35:00Z",
    end="2013-10-07T19:59:00Z",
    rows=(),
    files={},
    pricing=FIXED,
)


def run_day(folder: Path, day: Day, env: dict[str, str] | None = None) -> tuple[Run, list[Step], dict[str, Any]]:
    """A day of the recorded folder, played: the run, its steps, its document."""
    run, steps = play(configs.load_config(write_config(folder, day, lean_root()), env or {}))
    return run, steps, result.document(run, timing={})


def fills(steps: Sequence[Step], account: str = "dynamic") -> list[Executed]:
    return [f for step in steps for f in step.facts if isinstance(f, Executed) and f.account == account]


def cash(found: Sequence[Executed], multiplier: int = 1) -> float:
    """What the fills of a hedge that began and ended flat brought in: -sum(quantity x price x multiplier)."""
    return float(-sum(f.fill.quantity * f.fill.price * multiplier for f in found))


def check_money(document: dict[str, Any]) -> None:
    """In each account the total is its parts, the attribution sums to it, and costs are not negative."""
    for book in document["books"].values():
        pnl = book["pnl"]
        costs = pnl["spread_cost"] + pnl["commission"] + pnl["impact"]
        assert pnl["total"] == pytest.approx(pnl["options"] + pnl["hedge"] - costs + pnl["financing"], abs=0.005)
        assert sum(book["attribution"].values()) == pytest.approx(pnl["total"], abs=0.005)
        assert min(pnl["spread_cost"], pnl["commission"]) >= 0
        assert book["disabled"] == []
    assert document["books"]["none"]["trades"] == 0
    assert document["books"]["static"]["trades"] <= 1


def closes(path: str, member: str, *, by: str, scale: float = 10_000.0) -> tuple[float, float]:
    """Bid and ask of the last two-sided minute bar known by an instant, straight from the file."""
    with zipfile.ZipFile(lean_root() / path) as packed:
        (name,) = (n for n in packed.namelist() if member in n)
        rows = packed.read(name).decode().splitlines()
    fields = [line.split(",") for line in rows if known_at(path, line) <= parse_instant(by)]
    bid, ask = next((f[4], f[9]) for f in reversed(fields) if f[4] and f[9])
    return float(bid) / scale, float(ask) / scale


def middle(quote: tuple[float, float]) -> float:
    return (quote[0] + quote[1]) / 2


# --------------------------------------------------------------------------- the split

AAPL = Day(
    name="aapl",
    underlying="US:AAPL",
    dates=("2014-06-06", "2014-06-09"),
    start="2014-06-06T14:30:00Z",
    end="2014-06-09T19:59:00Z",
    rows=("AAPL,option,call,645,2014-07-19,physical,100,USD,10",),
    files={},
    feed_extra='resolutions = {option = "hour"}',
)


def hour_mid(strike: str, *, by: str) -> float:
    """Mid of the July 2014 call's last hour bar that had ended on the wall clock `by` (yyyymmdd hh:mm is a bar's start)."""
    with zipfile.ZipFile(lean_root() / "option/usa/hour/aapl_2014_quote_american.zip") as packed:
        (name,) = (n for n in packed.namelist() if f"_call_{strike}_20140719" in n)
        rows = [line.split(",") for line in packed.read(name).decode().splitlines()]
    last = [f for f in rows if f[0] <= by and f[4] and f[9]][-1]
    return (float(last[4]) + float(last[9])) / 2 / 10_000


@pytest.mark.parametrize("pricing", [AAPL.pricing, FIXED], ids=["implied", "fixed"])
def test_a_seven_for_one_split_makes_no_gamma(pricing: str, tmp_path: Path) -> None:
    """Ten 645 calls become seventy 92.14 calls, the stock held becomes seven times as much, and no term of the P&L
    knows of a fall from 645 to 92."""
    _, steps, document = run_day(tmp_path, changed(AAPL, pricing=pricing))
    check_money(document)
    (adjusted,) = (f for s in steps for f in s.facts if isinstance(f, Adjusted) and f.account == "dynamic")
    assert adjusted.before["AAPL  140719C00645000"] == Decimal(10)
    assert adjusted.after["AAPL  140719C00092140"] == Decimal(70)
    assert adjusted.after["US:AAPL"] == 7 * adjusted.before["US:AAPL"] != 0
    book = document["books"]["dynamic"]
    assert book["positions"] == {"AAPL  140719C00092140": 70.0}
    # Unadjusted, the fall of 550 would be -10 x 100 x delta x 550, some 300,000, or as much gamma. The stock moved by 1.5%.
    assert all(abs(book["attribution"][term]) < 5_000 for term in book["attribution"])
    assert abs(book["attribution"]["residual"]) < 50
    before, after = (
        [f for f in fills(steps) if (f.fill.ts < parse_instant("2014-06-07T04:00:00Z")) is early]
        for early in (True, False)
    )
    assert 7 * sum(f.fill.quantity for f in before) + sum(f.fill.quantity for f in after) == 0
    assert book["pnl"]["hedge"] - book["pnl"]["spread_cost"] == pytest.approx(cash([*before, *after]), abs=0.005)
    assert "corporate" in {alarm["code"] for alarm in document["alarms"]}
    (leg,) = (leg for leg in document["legs"] if leg["instrument"] == "AAPL  140719C00645000")
    assert leg["exit_mark"] is None
    if pricing is AAPL.pricing:  # 70 x 100 x last mid - 10 x 100 x first mid
        first, last = hour_mid("6450000", by="20140606 09:00"), hour_mid("921400", by="20140609 14:00")
        assert book["pnl"]["options"] == pytest.approx(7_000 * last - 1_000 * first, abs=0.005)


# --------------------------------------------------------------------------- single days


def test_a_day_of_spy(tmp_path: Path) -> None:
    """Ten SPY calls: the option's P&L is the change of its mid, the hedge's is what its fills brought in."""
    day = Day(
        name="spy", underlying="US:SPY", dates=("2023-08-03",), start="2023-08-03T13:35:00Z", end="2023-08-03T19:59:00Z",
        rows=("SPY,option,call,470,2023-09-01,physical,100,USD,10",), files={},
    )  # fmt: skip
    _, steps, document = run_day(tmp_path, day)
    check_money(document)
    path = "option/usa/minute/spy/20230803_quote_american.zip"
    first, last = (middle(closes(path, "call_4700000", by=at)) for at in (document["session"]["start"], day.end))
    pnl = document["books"]["dynamic"]["pnl"]
    assert pnl["options"] == pytest.approx(1_000 * (last - first), abs=0.005)
    assert pnl["hedge"] - pnl["spread_cost"] == pytest.approx(cash(fills(steps)), abs=0.005)
    assert document["books"]["dynamic"]["hedge_effectiveness"] > 0.5


def test_an_index_without_prints_is_priced_by_parity(tmp_path: Path) -> None:
    """On a day whose index is not recorded its price is strike + call - put, and the note says so."""
    run, _, document = run_day(tmp_path, PARITY)
    check_money(document)
    path = "indexoption/usa/minute/spxw/20210105_quote_european.zip"
    call, put = (middle(closes(path, f"{side}_37000000_20210106", by=PARITY.start)) for side in ("call", "put"))
    spot = result.sample_columns(run)["spot/INDEX:SPX"][0]
    assert spot == pytest.approx(3700 + call - put, abs=1.0)
    assert any("put-call parity" in note for note in document["feed"]["notes"])


def test_a_share_is_hedged_with_an_index_future(tmp_path: Path) -> None:
    """SPY calls hedged in ES: the first hedge is delta x S / (50 x F) contracts at beta one, rounded."""
    day = changed(
        FALL_2013, name="cross", underlying="US:SPY", hedge="CME:ESZ2013", hedge_extra="beta = 1.0",
        rows=("SPY,option,call,168,2013-11-16,physical,100,USD,100",),
        feed_extra='only = ["US:SPY", "CME:ESZ2013"]',
    )  # fmt: skip
    _, steps, document = run_day(tmp_path, day, IMMEDIATE)
    check_money(document)
    spot = middle(closes("equity/usa/minute/spy/20131007_quote.zip", "csv", by=day.start))
    future = middle(closes("future/cme/minute/es/20131007_quote.zip", "_201312", by=day.start, scale=1.0))
    wanted = -10_000 * document["legs"][0]["entry_delta"] * spot / (50 * future)
    assert fills(steps)[0].fill.quantity == round(wanted) != 0
    pnl = document["books"]["dynamic"]["pnl"]
    assert pnl["hedge"] - pnl["spread_cost"] == pytest.approx(cash(fills(steps), 50), abs=0.005)
    assert document["books"]["dynamic"]["hedge_effectiveness"] > 0.7


@pytest.mark.parametrize(
    ("ticker", "resolution", "strike"), [("BAC", "tick", 14), ("IBM", "tick", 182), ("SPY", "second", 168)]
)
def test_ticks_and_seconds_are_hedged_on(ticker: str, resolution: str, strike: int, tmp_path: Path) -> None:
    """A book at a fixed vol over a day of ticks or seconds: fills are the hedge's P&L, bad rows are counted."""
    day = changed(
        FALL_2013, name="fine", underlying=f"US:{ticker}",
        rows=(f"{ticker},option,call,{strike},2013-11-16,physical,100,USD,100",),
        feed_extra=f'resolution = "{resolution}"\nonly = ["US:{ticker}"]',
    )  # fmt: skip
    _, steps, document = run_day(tmp_path, day, IMMEDIATE)
    check_money(document)
    book = document["books"]["dynamic"]
    assert book["pnl"]["hedge"] - book["pnl"]["spread_cost"] == pytest.approx(cash(fills(steps)), abs=0.005)
    assert book["hedge_effectiveness"] > 0.95
    assert book["trades"] > 50
    assert document["feed"]["quotes"] > 5_000
    assert set(document["feed"]["refused"]) <= {"crossed", "suspicious"}


def test_a_fixed_vol_book_needs_its_underlying_only(tmp_path: Path) -> None:
    """Options without a file of quotes are refused by the path expected, unless the feed is told what it plays."""
    day = changed(
        FALL_2013, name="bac", underlying="US:BAC", rows=("BAC,option,call,14,2013-11-16,physical,100,USD,100",),
        feed_extra='resolution = "tick"',
    )  # fmt: skip
    with pytest.raises(DataError, match=r"20131007_quote_american\.zip: expected .* found no such file"):
        run_day(tmp_path, day, IMMEDIATE)


def test_an_early_close_is_noted_and_nothing_fills_after_it(tmp_path: Path) -> None:
    """New York closed at 13:00: the note says so, the options expire then, no share is traded after."""
    _, steps, document = run_day(tmp_path, changed(GOOG, end="2015-12-24T20:00:00Z"))
    check_money(document)
    close = parse_instant("2015-12-24T18:00:00Z")
    assert all(f.fill.ts <= close for account in ("dynamic", "static") for f in fills(steps, account))
    assert any("closes early" in note for note in document["feed"]["notes"])
    assert not any(key.startswith("GOOG ") for key in document["books"]["dynamic"]["positions"])
    assert "not_closed" in {alarm["code"] for alarm in document["alarms"]}


# --------------------------------------------------------------------------- coin-margined


def write_coins(folder: Path, *, rate: str = 'fx = {BTC = "BINANCE:BTCUSDT"}') -> Path:
    """Ten calls on the linear perpetual, hedged in the inverse one, whose profit is in bitcoin."""
    (folder / "book.csv").write_text(
        "instrument,underlying,type,expiry,style,settlement,multiplier,currency,quantity\n"
        "BTC   240809C62000000,BINANCE:BTCUSDT,option,2024-08-09T08:00:00Z,european,cash,1,USDT,10\n",
        encoding="utf-8",
    )
    path = folder / "coins.toml"
    path.write_text(
        f"""
schema_version = 1
name = "coins"
[session]
start = "2024-08-08T23:54:30Z"
end = "2024-08-08T23:59:30Z"
report_grid = "10s"
effectiveness_interval = "10s"
base_currency = "USDT"
begin = "immediate"
{rate}
[[feeds]]
kind = "replay"
format = "binance"
root = "{data_root() / "hftbacktest"}"
files = ["usdm/btcusdt_20240808.gz", "cm/btcusd_perp_20240808.gz"]
only = ["BINANCE:BTCUSDT", "BINANCE:BTCUSD_PERP"]
clock_offset = "1269ms"
[book]
file = "book.csv"
[pricing]
vol = "fixed"
vol_value = 0.6
[[hedges]]
underlying = "BINANCE:BTCUSDT"
instrument = "BINANCE:BTCUSD_PERP"
[[strategies]]
kind = "delta_hedger"
[strategies.policy]
kind = "fixed_interval"
interval = "10s"
""",
        encoding="utf-8",
    )
    return path


def test_an_inverse_perpetual_hedges_and_its_bitcoins_are_converted(tmp_path: Path) -> None:
    """The static hedge earns N x 100 x (1/entry - 1/exit) bitcoins, at the last rate; N is delta x price / 100."""
    run, steps = play(configs.load_config(write_coins(tmp_path), {}))
    document = result.document(run, timing={})
    check_money(document)
    opening, closing = fills(steps, "static")
    entry, leave = float(opening.fill.price), float(closing.fill.price)
    assert float(-opening.fill.quantity) == pytest.approx(
        10 * document["legs"][0]["entry_delta"] * entry / 100, abs=1.0
    )
    coins = float(opening.fill.quantity) * 100 * (1 / entry - 1 / leave)
    rate = run.loop.convert("BTC")
    assert rate is not None
    pnl = document["books"]["static"]["pnl"]
    assert pnl["hedge"] - pnl["spread_cost"] == pytest.approx(coins * float(rate), abs=0.01)
    assert any("clock" in note for note in document["feed"]["notes"])


def test_money_without_a_rate_stops_the_sum(tmp_path: Path) -> None:
    """Bitcoins with no rate into the base currency are named, not left out of the sum."""
    run, _ = play(configs.load_config(write_coins(tmp_path, rate=""), {}))
    with pytest.raises(DataError, match="BTC"):
        result.document(run, timing={})


def test_openings_are_recorded_at_their_marks(tmp_path: Path) -> None:
    """Every account starts with the book's quantity at the same mark."""
    _, steps, _ = run_day(tmp_path, GOOG)
    started = [f for s in steps for f in s.facts if isinstance(f, Started)]
    assert {f.account for f in started} == {"dynamic", "static", "none"}
    assert len({tuple(sorted(f.marks.items())) for f in started}) == 1
    assert all(q == Decimal(100) for f in started for q in f.positions.values())
