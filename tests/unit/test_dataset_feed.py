"""The dataset feed: real closes from an installed package, one print each, and named faults for files that are not so."""

from __future__ import annotations

import gzip
import math
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.dataset import DatasetFeed, DatasetOptions, monthly_expiries, parse_closes, realised_vol
from bot.core.errors import ConfigError, DataError, TooManyRefused
from bot.core.events import Reference
from bot.core.ports import BindsUniverse, Feed, ListsInstruments
from bot.domain.instruments import Index, Instrument, OptionContract, Spot, Universe
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import NS_PER_DAY, NS_PER_YEAR, parse_instant
from bot.pricing import black

HEADER = "Date,Open,High,Low,Close,Adj Close,Volume\n"
GOOD = HEADER + "1/4/1999,1,2,0.5,1.5,1.5,10\n1/5/1999,1,2,0.5,1.6,1.6,10\n"

PUT = OptionContract(
    id="SPX   081220P01200000",
    underlying="INDEX:SPX",
    multiplier=Decimal(100),
    cp=-1,
    strike=Decimal(1200),
    style="european",
    settlement="cash",
    session="am",
    last_trade=parse_instant("2008-12-18T21:15:00Z"),
    expiry=parse_instant("2008-12-19T14:30:00Z"),
    settles=parse_instant("2008-12-19T14:31:00Z"),
)


async def play(
    options: DatasetOptions | dict[str, Any], wanted: list[Instrument] | None = None
) -> tuple[DatasetFeed, list[TradeBatch | QuoteBatch]]:
    feed = DatasetFeed(options, wanted=wanted or [])
    feed.bind(Universe([*feed.instruments(""), *(wanted or [])]))
    events: list[TradeBatch | QuoteBatch] = []
    async with feed:
        async for event in feed.events():
            assert isinstance(event, TradeBatch | QuoteBatch)
            events.append(event)
    return feed, events


def written(path: Path, text: str) -> str:
    path.write_bytes(gzip.compress(text.encode()))
    return str(path)


async def test_replays_the_closes_of_2008() -> None:
    """The 253 closes of 2008 come as prints at 16:00 New York, the known first and lowest ones among them."""
    feed, events = await play(DatasetOptions(start=date(2008, 1, 1), end=date(2008, 12, 31)))
    assert isinstance(feed, Feed)
    assert isinstance(feed, ListsInstruments)
    assert isinstance(feed, BindsUniverse)
    assert len(events) == 1
    batch = events[0]
    assert isinstance(batch, TradeBatch)
    assert len(batch) == feed.report().trades == 253
    assert batch.ts_recv[0] == parse_instant("2008-01-02T21:00:00Z")
    assert batch.ts_recv[130] == parse_instant("2008-07-09T20:00:00Z")
    assert batch.price[0] == pytest.approx(1447.16, abs=0.005)
    assert batch.price.min() == pytest.approx(752.44, abs=0.005)
    assert (np.diff(batch.ts_recv) > 0).all()
    assert feed.report().quotes == 0
    assert len(feed.report().files["dataset:sp500"]) == 64


async def test_the_whole_series_without_importing_its_package() -> None:
    """Both shipped series run from January 1999 to the end of 2018, and reading them imports neither arch nor pandas."""
    before = {"arch", "pandas"} & set(sys.modules)
    for name in ("sp500", "nasdaq"):
        _, events = await play({"dataset": name, "batch_rows": 1000})
        assert [len(batch) for batch in events] == [1000] * 5 + [31]
        assert events[0].ts_recv[0] == parse_instant("1999-01-04T21:00:00Z")
        assert events[-1].ts_recv[-1] == parse_instant("2018-12-31T21:00:00Z")
    assert {"arch", "pandas"} & set(sys.modules) == before


async def test_batching_changes_no_print() -> None:
    """Prints one by one are those that came at once."""
    whole = (await play({"start": "2008-09-01", "end": "2008-10-31"}))[1]
    single = (await play({"start": "2008-09-01", "end": "2008-10-31", "batch_rows": 1}))[1]
    assert [float(batch.price[0]) for batch in single if isinstance(batch, TradeBatch)] == whole[0].price.tolist()  # type: ignore[union-attr]  # without chain_vol all are prints


async def test_model_quotes_on_request_only_and_said_so() -> None:
    """With a chain vol each print is followed by a model quote of the live wanted option around its value at that vol."""
    options = DatasetOptions(start=date(2008, 12, 15), end=date(2008, 12, 22), chain_vol=0.4, rate=0.01)
    feed, events = await play(options, [PUT])
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["TradeBatch", "QuoteBatch"] * 4 + ["TradeBatch"] * 2  # expired on the morning of the 19th
    for trade, quote in zip(events[0:8:2], events[1:8:2], strict=True):
        assert isinstance(trade, TradeBatch)
        assert isinstance(quote, QuoteBatch)
        assert quote.ts_recv[0] == trade.ts_recv[0]
        tau = (PUT.expiry - int(quote.ts_recv[0])) / NS_PER_YEAR
        value = float(black.bsm(trade.price[0], 1200.0, tau, 0.4, rate=0.01, cp=-1).price)
        assert quote.bid[0] < value < quote.ask[0]
        assert quote.ask[0] - quote.bid[0] <= 0.25 + 1e-9
    assert any("model values" in note for note in feed.report().notes)


async def test_realised_vol_looks_back_only() -> None:
    """The realised vol of a day uses the returns up to it; a change of a later close changes none before."""
    close = 100.0 * np.exp(np.cumsum(np.random.default_rng(2).normal(0, 0.01, 60)))
    changed = close.copy()
    changed[40:] *= 1.3
    one, other = realised_vol(close, 21), realised_vol(changed, 21)
    assert np.isnan(one[:21]).all()
    assert np.isfinite(one[21:]).all()
    assert one[21:40].tolist() == other[21:40].tolist()
    assert one[40] < other[40]
    assert one[30] == pytest.approx(np.sqrt(252 * np.mean(np.diff(np.log(close[9:31])) ** 2)))
    _, events = await play(
        DatasetOptions(start=date(2008, 12, 15), end=date(2008, 12, 16), chain_vol="realised"), [PUT]
    )
    assert [len(event) for event in events] == [1, 1, 1, 1]


def test_lists_the_index_or_the_books_own_definition() -> None:
    """The index is listed by default as an index; where the book defines it, that definition is the one."""
    assert list(DatasetFeed({}).instruments("")) == [Index(id="INDEX:SPX", tick=Decimal("0.01"))]
    mine = Index(id="INDEX:SPX", lot=Decimal(1))
    assert list(DatasetFeed({}, wanted=[mine]).instruments("SPX")) == [mine]
    assert list(DatasetFeed({}).instruments("NDX")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the header"),
        ("Day,Close\n1/4/1999,1\n", "line 1: expected the header"),
        (HEADER, "at least one close"),
        (HEADER + "1999-01-04,1,1,1,1,1,1\n", "line 2: Date: expected month/day/year"),
        (HEADER + "2/30/1999,1,1,1,1,1,1\n", "line 2: Date"),
        (GOOD + "1/5/1999,1,1,1,1,1,1\n", "line 4: Date: expected a day after 1999-01-05"),
        (GOOD + "1/1/1998,1,1,1,1,1,1\n", "line 4: Date: expected a day after"),
    ],
)
def test_faults_of_a_file_end_it_with_their_place(text: str, message: str) -> None:
    """Another header, other dates, repeated or unsorted days and an empty file are refused with line and column."""
    with pytest.raises(DataError, match=message):
        parse_closes(text.encode(), "some.csv")


@pytest.mark.parametrize("cut", [12, 40])
def test_damaged_archives_are_refused(cut: int) -> None:
    """A gzip file that is cut or altered is a fault of the file."""
    whole = gzip.compress(GOOD.encode())
    with pytest.raises(DataError, match="damaged"):
        parse_closes(whole[:cut], "cut.gz")
    with pytest.raises(DataError, match="damaged"):
        parse_closes(whole[:-8] + b"\x00" * 8, "altered.gz")
    with pytest.raises(DataError, match="UTF-8"):
        parse_closes(b"\xff\xfe\x00", "bytes.csv")


async def test_bad_rows_are_counted_and_survived_up_to_a_limit(tmp_path: Path) -> None:
    """Closes that are no positive finite number and rows of other widths are counted by reason; too many are fatal."""
    bad = "".join(f"1/{6 + i}/1999,1,1,1,{text},1,1\n" for i, text in enumerate(["", "0", "-3", "nan", "1e999", "x"]))
    file = written(tmp_path / "bad.csv.gz", GOOD + bad + "1/20/1999,1\n1/21/1999,1,1,1,1.7,1,1\n")
    feed, events = await play({"file": file})
    assert isinstance(events[0], TradeBatch)
    assert events[0].price.tolist() == [1.5, 1.6, 1.7]
    assert feed.report().refused == {"price": 6, "columns": 1}
    with pytest.raises(TooManyRefused, match="at most 3"):
        await play({"file": file, "max_refused": 3})


async def test_missing_files_and_days_are_named(tmp_path: Path) -> None:
    """A file that is not there and a range without closes are refused with what was expected and found."""
    with pytest.raises(DataError, match="readable file"):
        await play({"file": str(tmp_path / "none.gz")})
    with pytest.raises(DataError, match="found a series from 1999-01-04 to 2018-12-31"):
        await play({"start": "2019-01-01"})
    with pytest.raises(DataError, match="found a series from"):
        await play({"start": "2008-01-05", "end": "2008-01-06"})


def test_faults_of_the_settings_are_named() -> None:
    """Unknown keys, unknown series and impossible values are refused by name."""
    for fault, name in (
        ({"dataset": "dax"}, "dataset"),
        ({"vol": 1}, "vol"),
        ({"chain_vol": -1.0}, "chain_vol"),
        ({"start": "2008-02-01", "end": "2008-01-01"}, "end"),
        ({"window": 1}, "window"),
    ):
        with pytest.raises(ConfigError, match=name):
            DatasetFeed(fault)
    with pytest.raises(DataError, match="INDEX:SPX"):
        DatasetFeed({}).bind(Universe([Spot(id="US:SPY")]))


# --------------------------------------------------------------------------- a chain that rolls

LONG = "".join(f"{d.month}/{d.day}/{d.year},1,1,1,{100 + 10 * math.sin(i / 9):.4f},1,1\n" for i, d in enumerate(
    date(2008, 1, 1) + timedelta(days=k) for k in range(300) if (date(2008, 1, 1) + timedelta(days=k)).weekday() < 5
))  # fmt: skip
ROLLING = {"moneyness": (0.8, 0.9, 1.0), "listed": 100 * NS_PER_DAY, "strike_step": Decimal("0.5"), "relist": 0.05}


async def roll(path: Path, **keys: Any) -> list[Any]:
    options = {"file": str(path), "chain_vol": 0.2, "chain": ROLLING} | keys
    feed = DatasetFeed(options)
    feed.bind(Universe(feed.instruments("")))
    async with feed:
        return [event async for event in feed.events()]


async def test_contracts_are_listed_at_a_close_with_strikes_from_that_close(tmp_path: Path) -> None:
    """Every strike is a share of a close already printed that day, every expiry a third Friday within the listing time."""
    path = tmp_path / "closes.csv"
    path.write_text(HEADER + LONG, encoding="utf-8")
    closes = parse_closes(path.read_bytes(), "long")
    by_ts = dict(zip(closes.ts.tolist(), closes.close.tolist(), strict=True))
    listed = [event for event in await roll(path) if isinstance(event, Reference)]
    assert len(listed) > 30
    for event in listed:
        item = event.definition
        assert isinstance(item, OptionContract)
        shares = [round(by_ts[event.ts_recv] * m * 2) / 2 for m in (0.8, 0.9, 1.0)]
        assert float(item.strike) in shares
        assert 0 < item.expiry - event.ts_recv <= 100 * NS_PER_DAY
        day = datetime.fromtimestamp(item.expiry / 1e9, UTC).date()
        assert day.weekday() == 4 and 15 <= day.day <= 21


async def test_what_is_listed_by_a_day_does_not_depend_on_what_comes_after(tmp_path: Path) -> None:
    """A file cut off in the middle lists and quotes the same up to there."""
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    whole.write_text(HEADER + LONG, encoding="utf-8")
    cut.write_text(HEADER + "".join(LONG.splitlines(keepends=True)[:100]), encoding="utf-8")
    short, long = await roll(cut, chain_vol="realised"), await roll(whole, chain_vol="realised")
    assert len(short) < len(long)
    end = max(event.ts_recv if isinstance(event, Reference) else int(event.ts_recv[-1]) for event in short)

    def told(events: list[Any]) -> list[Any]:
        found = []
        for event in events:
            if isinstance(event, Reference):
                found.append((event.ts_recv, event.instrument))
            elif isinstance(event, QuoteBatch):
                found.append((int(event.ts_recv[0]), sorted(event.ask.tolist())))
        return [item for item in found if item[0] <= end]

    assert told(short) == told(long)


async def test_a_listed_contract_is_told_beforehand_for_its_column_only(tmp_path: Path) -> None:
    """Its id is among the instruments and among those listed later, and no quote of it comes before its listing."""
    path = tmp_path / "closes.csv"
    path.write_text(HEADER + LONG, encoding="utf-8")
    feed = DatasetFeed({"file": str(path), "chain_vol": 0.2, "chain": ROLLING})
    universe = Universe(feed.instruments(""))
    later = set(feed.listed_later())
    assert later == {item.id for item in universe if isinstance(item, OptionContract)}
    seen: set[str] = set()
    for event in await roll(path):
        if isinstance(event, Reference):
            seen.add(event.instrument)
        elif isinstance(event, QuoteBatch):
            assert {universe[int(k)].id for k in event.instrument} <= seen
    assert seen == later


async def test_the_smile_is_the_stated_assumption_and_the_vol_the_index_of_the_day(tmp_path: Path) -> None:
    """Quotes lie around Black-Scholes at level (1 + skew z): the level is the index's last close by the day."""
    path, levels = tmp_path / "closes.csv", tmp_path / "vix.csv"
    path.write_text(HEADER + LONG, encoding="utf-8")
    levels.write_text("DATE,OPEN,HIGH,LOW,CLOSE\n2008-01-02,1,1,1,30.0\n2008-01-04,1,1,1,40.0\n", encoding="utf-8")
    keys = {
        "chain_vol": "index",
        "vol_file": str(levels),
        "skew": -0.2,
        "option_tick": Decimal("0.0001"),
        "option_half_spread": 1,
    }
    events = await roll(path, **keys)
    universe = Universe(DatasetFeed({"file": str(path), "chain": ROLLING, **keys}).instruments(""))
    closes = parse_closes(path.read_bytes(), "long")
    batches = {int(event.ts_recv[0]): event for event in events if isinstance(event, QuoteBatch)}
    for row, level in ((1, 0.30), (2, 0.30), (3, 0.40), (50, 0.40)):
        ts, spot = int(closes.ts[row]), float(closes.close[row])
        batch = batches[ts]
        for k, bid, ask in zip(batch.instrument.tolist(), batch.bid.tolist(), batch.ask.tolist(), strict=True):
            item = universe[k]
            assert isinstance(item, OptionContract)
            tau = (item.expiry - ts) / NS_PER_YEAR
            z = min(max(math.log(float(item.strike) / spot) / (level * math.sqrt(tau)), -4.0), 4.0)
            price = float(black.bsm(spot, float(item.strike), tau, level * (1 - 0.2 * z), cp=-1).price)
            assert abs(0.5 * (bid + ask) - price) <= 0.0002 or math.isnan(bid)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"chain": {"moneyness": ()}}, "moneyness"),
        ({"chain": {"listed": 1}}, "listed"),
        ({"chain": {"relist": 0.0}}, "relist"),
        ({"chain": {"strike_step": 0}}, "strike_step"),
        ({"chain": {}, "chain_vol": None}, "chain_vol"),
        ({"skew": 11.0}, "skew"),
        ({"option_spread_share": 1.0}, "option_spread_share"),
    ],
)
def test_a_chain_that_cannot_roll_is_refused(keys: dict[str, Any], word: str) -> None:
    """Each fault is named."""
    with pytest.raises(ConfigError, match=word):
        DatasetFeed({"chain_vol": 0.2} | keys)


def test_third_fridays_and_dates_of_another_csv(tmp_path: Path) -> None:
    """A file of other columns may say year-month-day; expiries are the third Fridays of every month."""
    found = parse_closes(b"rownames,Date,Close,x\n1,1950-01-03,16.66,0\n2,1950-01-04,16.85,0\n", "other")
    assert found.close.tolist() == [16.66, 16.85]
    days = monthly_expiries(parse_instant("1987-10-01T00:00:00Z"), parse_instant("1988-01-20T00:00:00Z"))
    assert days == [date(1987, 10, 16), date(1987, 11, 20), date(1987, 12, 18), date(1988, 1, 15)]
