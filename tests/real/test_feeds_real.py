"""The feeds on recorded market data: row statistics and prices equal independent reference numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from adapters.formats.binance import capture_quality, read_capture
from adapters.formats.lean import Kind, chain_quality
from adapters.replay import ReplayFeed, ReplayOptions
from bot.core.events import Corporate
from bot.core.ports import FeedReport
from bot.domain.instruments import Future, Index, Instrument, OptionContract, Perpetual, Spot, Universe, parse_occ
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import iso, parse_instant
from tests.realdata import data_root, lean_root

pytestmark = pytest.mark.real

CHAINS = [
    ("ES_202003", "20200105", "futureoption", "cme/minute/es/202003/20200105_quote_american.zip"),
    ("ES_202003", "20200106", "futureoption", "cme/minute/es/202003/20200106_quote_american.zip"),
    ("GOOG_20151224", "", "option", "usa/minute/goog/20151224_quote_american.zip"),
    ("TWX_20140605", "", "option", "usa/minute/twx/20140605_quote_american.zip"),
    ("SPY_20230803", "", "option", "usa/minute/spy/20230803_quote_american.zip"),
    ("SPXW_20210104", "", "indexoption", "usa/minute/spxw/20210104_quote_european.zip"),
    ("SPXW_20210105", "", "indexoption", "usa/minute/spxw/20210105_quote_european.zip"),
    ("SPXW_20210107", "", "indexoption", "usa/minute/spxw/20210107_quote_european.zip"),
]


def reference(case: str) -> dict[str, Any]:
    cases = json.loads((data_root() / "reference.json").read_text())["cases"]
    return cast(dict[str, Any], cases[case])


def option(name: str, underlying: str, expiry: str) -> OptionContract:
    parts, end = parse_occ(name), parse_instant(expiry)
    return OptionContract(
        id=name,
        underlying=underlying,
        cp=parts.cp,
        strike=parts.strike,
        style="european" if underlying.startswith("INDEX") else "american",
        settlement="cash",
        last_trade=end,
        expiry=end,
        settles=end,
        multiplier=Decimal(100),
    )


async def play(options: ReplayOptions, wanted: Sequence[Instrument]) -> tuple[list[Any], FeedReport, Universe]:
    feed = ReplayFeed(options, wanted=wanted)
    universe = Universe([*wanted, *feed.instruments("")])
    feed.bind(universe)
    async with feed:
        events = [event async for event in feed.events()]
    last = -1
    for event in events:
        stamps = np.atleast_1d(event.ts_recv)
        assert stamps[0] >= last
        assert (np.diff(stamps) >= 0).all()
        last = int(stamps[-1])
    return events, feed.report(), universe


def last_quote(events: Sequence[Any], column: int, until: str) -> tuple[float, float]:
    bid = ask = float("nan")
    for event in events:
        if isinstance(event, QuoteBatch):
            rows = np.flatnonzero((event.instrument == column) & (event.ts_recv <= parse_instant(until)))
            if len(rows):
                bid, ask = float(event.bid[rows[-1]]), float(event.ask[rows[-1]])
    return bid, ask


@pytest.mark.parametrize(("case", "day", "kind", "path"), CHAINS)
def test_chain_statistics_equal_the_reference(case: str, day: str, kind: str, path: str) -> None:
    """Rows, series, missing sides, locked, crossed, median spread and first and last bar are the reference's."""
    expected = reference(case)["quality"]
    expected = expected[day] if day else expected
    recorded = date.fromisoformat(Path(path).name[:8])
    found = chain_quality(lean_root() / kind / path, kind=cast(Kind, kind), day=recorded)
    assert found._asdict() == pytest.approx(expected)


async def test_the_es_night_in_one_order() -> None:
    """Two UTC days of a future and an option on it give the reference's entry and exit mids."""
    future = Future(id="CME:ESH2020", expiry=parse_instant("2020-03-20T13:30:00Z"))
    call = option("ES    200320C03220000", "CME:ESH2020", "2020-03-20T13:30:00Z")
    options = ReplayOptions(root=str(lean_root()), dates=(date(2020, 1, 5), date(2020, 1, 6)))
    events, report, universe = await play(options, [future, call])
    run = reference("ES_202003")["runs"]["call_every1m"]
    c, f = universe.index(call.id), universe.index(future.id)
    assert sum(last_quote(events, c, run["start"])) / 2 == run["entry_mid"]
    assert sum(last_quote(events, f, run["start"])) / 2 == run["hedge_start"]
    assert sum(last_quote(events, c, run["end"])) / 2 == run["exit_value"]
    assert sum(last_quote(events, f, run["end"])) / 2 == run["hedge_end"]
    assert report.refused == {}


async def test_an_early_close_simply_works() -> None:
    """The short day before Christmas 2015 is noted, and its last quotes are the reference's."""
    wanted: list[Instrument] = [Spot(id="US:GOOG"), option("GOOG  160115C00750000", "US:GOOG", "2016-01-15T21:00:00Z")]
    events, report, universe = await play(ReplayOptions(root=str(lean_root()), dates=(date(2015, 12, 24),)), wanted)
    run = reference("GOOG_20151224")["20160115"]["runs"]["call_every1m"]
    assert sum(last_quote(events, universe.index("US:GOOG"), run["end"])) / 2 == pytest.approx(run["hedge_end"])
    assert sum(last_quote(events, universe.index(wanted[1].id), run["end"])) / 2 == pytest.approx(run["exit_value"])
    assert any("closes early" in note for note in report.notes)


async def test_the_index_closes_where_it_did() -> None:
    """Index prints are Chicago bars known at their end: the pin of 2021-01-04 and its time."""
    index = Index(id="INDEX:SPX")
    wanted: list[Instrument] = [index, option("SPXW  210104C03700000", index.id, "2021-01-04T21:00:00Z")]
    options = ReplayOptions(root=str(lean_root()), dates=(date(2021, 1, 4),), underlying="trades")
    events, _, _ = await play(options, wanted)
    prints = [event for event in events if isinstance(event, TradeBatch)]
    ts = np.concatenate([batch.ts_recv for batch in prints])
    price = np.concatenate([batch.price for batch in prints])
    assert iso(int(ts[0])) == "2021-01-04T14:31:00Z"
    at = int(np.searchsorted(ts, parse_instant("2021-01-04T21:01:00Z"), side="right")) - 1
    assert price[at] == reference("SPXW_20210104")["index_close"]


async def test_parity_forward_of_a_day_without_index_prints() -> None:
    """On 2021-01-05 the derived index is the reference's parity forward at 11:00 New York."""
    index = Index(id="INDEX:SPX")
    expected = reference("SPXW_20210105")["parity_forward_r0_at_1100"]
    wanted: list[Instrument] = [index, option("SPXW  210106C03700000", index.id, "2021-01-06T21:00:00Z")]
    options = ReplayOptions(root=str(lean_root()), dates=(date(2021, 1, 5),), underlying="parity_forward")
    events, report, _ = await play(options, wanted)
    prints = [event for event in events if isinstance(event, TradeBatch)]
    ts = np.concatenate([batch.ts_recv for batch in prints])
    price = np.concatenate([batch.price for batch in prints])
    at = int(np.searchsorted(ts, parse_instant("2021-01-05T16:00:00Z"), side="right")) - 1
    strikes = [expected["20210106_3700"], expected["20210106_3800"]]
    assert price[at] == pytest.approx(float(np.median(strikes)), abs=0.03)
    assert "parity" in report.notes[0]


async def test_the_apple_split_converts_contracts() -> None:
    """The 7-for-1 split of 2014-06-09 turns the 645 call into seven 92.14 calls, quoted from that morning on."""
    wanted: list[Instrument] = [Spot(id="US:AAPL"), option("AAPL  140613C00645000", "US:AAPL", "2014-06-13T20:00:00Z")]
    options = ReplayOptions(root=str(lean_root()), dates=(date(2014, 6, 6), date(2014, 6, 9)), resolution="hour")
    events, _, universe = await play(options, wanted)
    (split,) = [event for event in events if isinstance(event, Corporate)]
    (line,) = split.conversions
    assert (split.what, split.ratio, line.new, line.ratio) == ("split", Decimal(7), "AAPL  140613C00092140", Decimal(7))
    assert iso(split.ts_recv) == "2014-06-09T04:00:00Z"
    for event in events:
        if isinstance(event, QuoteBatch):
            new = event.ts_recv[event.instrument == universe.index(line.new)]
            old = event.ts_recv[event.instrument == universe.index(line.old)]
            assert (new > split.ts_recv).all()
            assert (old < split.ts_recv).all()


async def test_the_apple_open_is_flagged_without_its_factor_file(tmp_path: Path) -> None:
    """The same days without reference data are flagged unknown at the first price that shows the split."""
    for folder in ("equity/usa/minute/aapl", "option/usa/hour"):
        (tmp_path / folder).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder).symlink_to(lean_root() / folder)
    wanted: list[Instrument] = [Spot(id="US:AAPL"), option("AAPL  140613C00645000", "US:AAPL", "2014-06-13T20:00:00Z")]
    options = ReplayOptions(root=str(tmp_path), dates=(date(2014, 6, 6), date(2014, 6, 9)), resolution="hour")
    events, _, _ = await play(options, wanted)
    (event,) = [event for event in events if isinstance(event, Corporate)]
    assert (event.what, event.adjusted) == ("unknown", False)
    assert iso(event.ts_recv) > "2014-06-09T08:00:00Z"


async def test_half_a_million_ticks() -> None:
    """A tick day of one-sided messages is carried to two-sided quotes, none crossed."""
    options = ReplayOptions(root=str(lean_root()), dates=(date(2013, 10, 7),), resolution="tick")
    _, report, _ = await play(options, [Spot(id="US:BAC")])
    assert report.quotes == 476_855
    assert report.refused == {}


@pytest.mark.parametrize("name", ["usdm/btcusdt_20240808", "cm/btcusd_perp_20240808", "spot/btcusdt_20240808"])
def test_capture_statistics_equal_the_reference(name: str) -> None:
    """Lines, streams, first and last bid and offer and the clock's offset of a raw capture are the reference's."""
    expected = reference(f"capture_{name}")
    found = capture_quality(read_capture(data_root() / "hftbacktest" / f"{name}.gz"))._asdict()
    assert list(found["first_bbo"]) == expected.pop("first_bbo")
    assert list(found["last_bbo"]) == expected.pop("last_bbo")
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-3), key


async def test_the_depth_book_agrees_with_the_ticker() -> None:
    """The book kept from snapshot and diffs never loses its ids and ends beside the ticker's best prices."""
    root = str(data_root() / "hftbacktest")
    wanted: list[Instrument] = [
        Perpetual(id="BINANCE:BTCUSDT"),
        Perpetual(id="BINANCE:BTCUSD_PERP", inverse=True, settlement_currency="BTC"),
    ]
    files = ("usdm/btcusdt_20240808.gz", "cm/btcusd_perp_20240808.gz")
    ends = {}
    for book in ("depth", "ticker"):
        options = msgspec.convert({"format": "binance", "root": root, "files": files, "book": book}, ReplayOptions)
        events, report, universe = await play(options, wanted)
        ends[book] = [last_quote(events, universe.index(item.id), "2024-08-08T23:59:59.5Z") for item in wanted]
        assert "depth_gaps" not in report.repaired
        assert report.refused == {}
    assert np.array(ends["depth"]) == pytest.approx(np.array(ends["ticker"]), rel=2e-5)


async def test_six_days_of_chains() -> None:
    """The straddle's mids, the underlying's prints and the parity forwards are the reference's on each day."""
    case = reference("SPX_chain_201905")
    index = Index(id="INDEX:SPX")
    legs = [option(f"SPXW  190628{cp}02915000", index.id, "2019-06-28T20:00:00Z") for cp in "CP"]
    options = ReplayOptions(
        format="spx_chain", root=str(data_root() / "options_backtester" / "SPX_daily"), underlying="trades"
    )
    events, _, _ = await play(options, [index, *legs])
    mids = [float(((e.bid + e.ask) / 2).sum()) for e in events if isinstance(e, QuoteBatch)]
    prints = [float(e.price[0]) for e in events if isinstance(e, TradeBatch)]
    assert mids == pytest.approx([day["straddle_mid"] for day in case["days"]])
    assert prints == [day["underlying_last"] for day in case["days"]]
