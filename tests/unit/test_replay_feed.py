"""The replay feed plays small recordings written here, in honest order, with faults counted and said."""

from __future__ import annotations

import gzip
import random
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.replay import ReplayFeed, ReplayOptions
from bot.core.errors import DataError, TooManyRefused
from bot.core.events import Corporate, FeedState
from bot.core.ports import BindsUniverse, Feed, FeedReport, ListsInstruments
from bot.domain.instruments import Future, Index, Instrument, OptionContract, Spot, Universe, parse_occ
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import NS_PER_MINUTE, iso, parse_instant

XYZ = Spot(id="US:XYZ")
MINUTE = 60_000
OPEN = 34_200_000  # 09:30 in milliseconds


def option(name: str, underlying: str = "US:XYZ", expiry: str = "2020-03-20T20:00:00Z") -> OptionContract:
    parts, end = parse_occ(name), parse_instant(expiry)
    return OptionContract(
        id=name,
        underlying=underlying,
        cp=parts.cp,
        strike=parts.strike,
        style="american",
        settlement="physical",
        last_trade=end,
        expiry=end,
        settles=end,
        multiplier=Decimal(100),
    )


def put_zip(path: Path, members: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)


def bar(ms: float, bid: str, ask: str, size: int = 10) -> str:
    return f"{ms},{bid},{bid},{bid},{bid},{size if bid else 0},{ask},{ask},{ask},{ask},{size if ask else 0}\n"


def share_day(root: Path, day: str, rows: str, symbol: str = "xyz", resolution: str = "minute") -> Path:
    path = root / "equity" / "usa" / resolution / symbol / f"{day}_quote.zip"
    put_zip(path, {f"{day}_{symbol}_{resolution}_quote.csv": rows})
    return path


def steady(price: int, *, rows: int = 12, start: int = OPEN) -> str:
    return "".join(bar(start + i * MINUTE, str(price + i), str(price + i + 100)) for i in range(rows))


async def play(options: ReplayOptions, wanted: Sequence[Instrument]) -> tuple[list[Any], FeedReport, Universe]:
    feed = ReplayFeed(options, wanted=wanted)
    universe = Universe([*wanted, *feed.instruments("")])
    feed.bind(universe)
    async with feed:
        events = [event async for event in feed.events()]
    return events, feed.report(), universe


def flat(events: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Every row and event, batches dissolved."""
    rows: list[tuple[Any, ...]] = []
    for event in events:
        if isinstance(event, QuoteBatch | TradeBatch):
            columns = [getattr(event, name).tolist() for name in type(event).__slots__]
            rows += [(type(event).__name__, *map(str, row)) for row in zip(*columns, strict=True)]
        else:
            rows.append((type(event).__name__, str(event)))
    return rows


def stamps(events: Sequence[Any]) -> list[int]:
    found: list[int] = []
    for event in events:
        found += event.ts_recv.tolist() if isinstance(event, QuoteBatch | TradeBatch) else [event.ts_recv]
    return found


def lean(root: Path, *days: date, **more: Any) -> ReplayOptions:
    return ReplayOptions(root=str(root), dates=days or (date(2020, 1, 6),), **more)


def test_it_keeps_the_ports() -> None:
    """The feed is a Feed that lists instruments and binds a universe, and its constructor touches no file."""
    feed = ReplayFeed(ReplayOptions(root="/nowhere", dates=(date(2020, 1, 6),)), wanted=[XYZ])
    assert isinstance(feed, Feed)
    assert isinstance(feed, ListsInstruments)
    assert isinstance(feed, BindsUniverse)
    assert feed.recorded


async def test_a_bar_is_known_at_its_end(tmp_path: Path) -> None:
    """A minute bar labelled 09:30 New York is yielded at 09:31, with close prices and a withdrawn side as NaN."""
    share_day(tmp_path, "20200106", bar(OPEN, "100000", "101000") + bar(OPEN + MINUTE, "", "102000"))
    events, report, _ = await play(lean(tmp_path), [XYZ])
    (batch,) = events
    assert [iso(ts) for ts in batch.ts_recv.tolist()] == ["2020-01-06T14:31:00Z", "2020-01-06T14:32:00Z"]
    assert batch.bid[0] == 10.0
    assert np.isnan(batch.bid[1])
    assert batch.ask.tolist() == [10.1, 10.2]
    assert report.quotes == 2
    assert list(report.files) == ["equity/usa/minute/xyz/20200106_quote.zip"]


@pytest.mark.parametrize(
    ("day", "expected"), [("2020-03-06", "2020-03-06T14:31:00Z"), ("2020-03-09", "2020-03-09T13:31:00Z")]
)
async def test_daylight_saving_is_the_zones_own(tmp_path: Path, day: str, expected: str) -> None:
    """09:30 in New York is another UTC hour after the clocks change."""
    share_day(tmp_path, day.replace("-", ""), bar(OPEN, "100000", "101000"))
    events, _, _ = await play(lean(tmp_path, date.fromisoformat(day)), [XYZ])
    assert iso(int(events[0].ts_recv[0])) == expected


@pytest.mark.parametrize("rows", [1, 2, 7, 4096])
async def test_the_batch_size_changes_nothing(tmp_path: Path, rows: int) -> None:
    """One row a batch and thousands a batch give the same rows in the same order."""
    prints = "".join(f"{OPEN + i * MINUTE},1,1,1,{100000 + i},5\n" for i in range(20))
    put_zip(tmp_path / "equity/usa/minute/xyz/20200106_trade.zip", {"20200106_xyz_minute_trade.csv": prints})
    share_day(tmp_path, "20200106", steady(90000), symbol="abc")
    wanted = [XYZ, Spot(id="US:ABC")]
    whole, _, _ = await play(lean(tmp_path, sources={"US:XYZ": "trades"}), wanted)
    cut, _, _ = await play(lean(tmp_path, sources={"US:XYZ": "trades"}, batch_rows=rows), wanted)
    assert flat(cut) == flat(whole)
    assert all(len(event) <= rows for event in cut)
    assert stamps(cut) == sorted(stamps(cut))


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_after_an_instant_shows_before_it(tmp_path: Path, seed: int) -> None:
    """Scrambling every row after T leaves all events up to T unchanged."""
    rng = random.Random(seed)
    days = ("20200106", "20200107")
    cut = rng.randrange(1, 40)
    for place, scrambled in (("a", False), ("b", True)):
        noise = random.Random(seed + 100)
        for d, day in enumerate(days):
            rows = []
            for i in range(20):
                bid = 100_000 + 37 * i + 1000 * d
                if scrambled and d * 20 + i >= cut:
                    bid = noise.choice([0, 1, 250_000, 90_000])
                rows.append(
                    bar(OPEN + i * MINUTE, str(bid), str(bid + noise.choice([100, -50]) if scrambled else bid + 100))
                )
                if scrambled and d * 20 + i < cut:
                    rows[-1] = bar(OPEN + i * MINUTE, str(bid), str(bid + 100))
            share_day(tmp_path / place, day, "".join(rows))
    dates = (date(2020, 1, 6), date(2020, 1, 7))
    clean, _, _ = await play(lean(tmp_path / "a", *dates, batch_rows=1), [XYZ])
    dirty, _, _ = await play(lean(tmp_path / "b", *dates, batch_rows=1), [XYZ])
    limit = stamps(clean)[cut - 1]
    before = [e for e, ts in zip(clean, stamps(clean), strict=True) if ts <= limit]
    assert len(before) == cut
    assert flat([e for e, ts in zip(dirty, stamps(dirty), strict=True) if ts <= limit]) == flat(before)


async def test_row_faults_are_counted_and_survived(tmp_path: Path) -> None:
    """Crossed, NaN, infinite, zero, negative and unreadable rows are refused by reason and the rest is played."""
    rows = [
        bar(OPEN, "100000", "101000"),
        bar(OPEN + 1 * MINUTE, "102000", "101000"),
        bar(OPEN + 2 * MINUTE, "NaN", "101000"),
        bar(OPEN + 3 * MINUTE, "100000", "1e999"),
        bar(OPEN + 4 * MINUTE, "0", "101000"),
        bar(OPEN + 5 * MINUTE, "-5", "101000"),
        bar(OPEN + 6 * MINUTE, "abc", "101000"),
        "1,2,3\n",
        "\r\n",
        bar(OPEN + 7 * MINUTE, "101000", "101000"),
    ]
    share_day(tmp_path, "20200106", "".join(rows))
    _, report, _ = await play(lean(tmp_path), [XYZ])
    assert report.quotes == 2
    assert report.refused == {"crossed": 1, "nan": 1, "infinite": 1, "zero": 1, "negative": 1, "unparsable": 2}
    with pytest.raises(TooManyRefused, match=r"at most 3 .* found"):
        await play(lean(tmp_path, max_refused=3), [XYZ])
    _, report, _ = await play(lean(tmp_path, max_refused=7), [XYZ])
    assert report.quotes == 2


async def test_time_out_of_order_is_an_error_or_a_counted_repair(tmp_path: Path) -> None:
    """Unsorted rows name file and line; with `sort` they are put in order and counted."""
    share_day(tmp_path, "20200106", bar(OPEN + MINUTE, "100000", "101000") + bar(OPEN, "90000", "91000"))
    with pytest.raises(DataError, match=r"20200106_quote\.zip!.*csv:2: time: expected times that never decrease"):
        await play(lean(tmp_path), [XYZ])
    events, report, _ = await play(lean(tmp_path, unsorted="sort"), [XYZ])
    assert events[0].bid.tolist() == [9.0, 10.0]
    assert report.repaired == {"unsorted": 1}


async def test_repeated_time_is_an_error_or_a_counted_repair(tmp_path: Path) -> None:
    """Two bars of one minute are an error; with `last` the last one wins and the other is counted."""
    share_day(tmp_path, "20200106", bar(OPEN, "100000", "101000") + bar(OPEN, "90000", "91000"))
    with pytest.raises(DataError, match="one row per instrument and time"):
        await play(lean(tmp_path), [XYZ])
    events, report, _ = await play(lean(tmp_path, repeated="last"), [XYZ])
    assert events[0].bid.tolist() == [9.0]
    assert report.repaired == {"repeated": 1}
    events, report, _ = await play(lean(tmp_path, repeated="keep"), [XYZ])
    assert events[0].bid.tolist() == [10.0, 9.0]


async def test_days_out_of_order_or_given_twice(tmp_path: Path) -> None:
    """The played days must be in order and once each, unless a repair is asked for."""
    days = (date(2020, 1, 7), date(2020, 1, 6))
    for day in days:
        share_day(tmp_path, f"{day:%Y%m%d}", steady(100_000 + day.day))
    with pytest.raises(DataError, match="expected days in order"):
        await play(lean(tmp_path, *days), [XYZ])
    with pytest.raises(DataError, match="found 2020-01-06 again"):
        await play(lean(tmp_path, days[1], days[1]), [XYZ])
    events, report, _ = await play(lean(tmp_path, *days, days[1], unsorted="sort", repeated="last"), [XYZ])
    assert stamps(events) == sorted(stamps(events))
    assert report.repaired == {"repeated_day": 1, "unsorted_days": 1}


async def test_a_file_that_repeats_the_day_before_is_seen(tmp_path: Path) -> None:
    """A copy of yesterday's file under today's name is an error, or played and flagged stale."""
    days = (date(2020, 1, 6), date(2020, 1, 7))
    for day in days:
        share_day(tmp_path, f"{day:%Y%m%d}", steady(100_000))
    with pytest.raises(DataError, match=r"20200107_quote\.zip.*repeat those of 2020-01-06"):
        await play(lean(tmp_path, *days), [XYZ])
    events, report, _ = await play(lean(tmp_path, *days, repeated="keep"), [XYZ])
    (state,) = [event for event in events if isinstance(event, FeedState)]
    assert (state.state, state.instrument) == ("stale", "US:XYZ")
    assert report.repaired == {"repeated_day": 1}


async def test_closed_days_are_left_out_and_flagged(tmp_path: Path) -> None:
    """A weekend and a holiday with a file are not played: a gap is said, the file's rows are refused by reason."""
    hours = tmp_path / "market-hours" / "market-hours-database.json"
    hours.parent.mkdir()
    hours.write_text(
        '{"entries": {"Equity-usa-[*]": {"holidays": ["1/20/2020"], "earlyCloses": {"1/17/2020": "13:00:00"}}}}'
    )
    for day in ("20200117", "20200120", "20200121"):
        share_day(tmp_path, day, steady(100_000 + int(day[-2:])))
    days = tuple(date(2020, 1, day) for day in (17, 18, 20, 21))
    events, report, _ = await play(lean(tmp_path, *days), [XYZ])
    gaps = [iso(event.ts_recv)[:10] for event in events if isinstance(event, FeedState)]
    assert gaps == ["2020-01-18", "2020-01-20"]
    assert report.quotes == 24
    assert report.refused == {"closed_day": 12}
    assert any("2020-01-17" in note and "13:00:00" in note for note in report.notes)
    with pytest.raises(DataError, match=r"2020-01-18 .Saturday"):
        await play(lean(tmp_path, *days, closed_days="error"), [XYZ])
    _, report, _ = await play(lean(tmp_path, *days, closed_days="play"), [XYZ])
    assert report.quotes == 36


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A day without its file is an error that names the path, or a counted, flagged gap when asked for."""
    share_day(tmp_path, "20200106", steady(100_000))
    days = (date(2020, 1, 6), date(2020, 1, 7))
    with pytest.raises(DataError, match=r"20200107_quote\.zip: expected the minute quotes of US:XYZ"):
        await play(lean(tmp_path, *days), [XYZ])
    events, report, _ = await play(lean(tmp_path, *days, missing_days="skip"), [XYZ])
    assert [event.instrument for event in events if isinstance(event, FeedState)] == ["US:XYZ"]
    assert report.repaired == {"missing_days": 1}


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
async def test_a_damaged_zip_is_named(tmp_path: Path, damage: str) -> None:
    """A truncated, corrupted, empty or foreign zip is a DataError that names the file."""
    path = share_day(tmp_path, "20200106", steady(100_000, rows=300))
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(byte ^ 0xFF for byte in whole[middle : middle + 20]) + whole[middle + 20 :]
    path.write_bytes({"truncate": whole[:middle], "flip": flipped, "empty": b"", "text": b"not a zip"}[damage])
    with pytest.raises(DataError, match=r"20200106_quote\.zip"):
        await play(lean(tmp_path), [XYZ])


async def test_a_file_of_another_form_is_refused_as_a_whole(tmp_path: Path) -> None:
    """A trade file under a quote file's name is a fault of the file, not of each row."""
    share_day(tmp_path, "20200106", "34200000,1,1,1,1,5\n34260000,1,1,1,1,5\n")
    with pytest.raises(DataError, match="expected rows of 11 fields, found 6"):
        await play(lean(tmp_path), [XYZ])


async def test_only_wanted_contracts_are_read(tmp_path: Path) -> None:
    """Members nobody wants are not touched, be they garbage; a wanted one without rows is an error that names it."""
    share_day(tmp_path, "20200106", steady(100_000))
    zipped = tmp_path / "option/usa/minute/xyz/20200106_quote_american.zip"
    put_zip(
        zipped,
        {
            "20200106_xyz_minute_quote_american_call_105000_20200320.csv": bar(OPEN, "5000", "6000"),
            "20200106_xyz_minute_quote_american_put_105000_20200320.csv": "garbage\n",
        },
    )
    events, report, universe = await play(lean(tmp_path), [XYZ, option("XYZ   200320C00010500")])
    assert report.quotes == 13
    column = universe.index("XYZ   200320C00010500")
    assert [float(e.bid[e.instrument == column][0]) for e in events if (e.instrument == column).any()] == [0.5]
    with pytest.raises(DataError, match=r"20200106_quote_american\.zip.*found no row"):
        await play(lean(tmp_path), [XYZ, option("XYZ   200320C00011000")])


async def test_upstream_double_suffixes_are_found(tmp_path: Path) -> None:
    """A file that upstream named `.zip.zip` is read like any other."""
    path = share_day(tmp_path, "20200106", steady(100_000))
    path.rename(path.with_name(path.name + ".zip"))
    _, report, _ = await play(lean(tmp_path), [XYZ])
    assert report.quotes == 12


async def test_an_index_has_no_quotes(tmp_path: Path) -> None:
    """An index asked for by quotes is refused by name; its prints are played at Chicago time when permitted."""
    index = Index(id="INDEX:SPX")
    put_zip(tmp_path / "index/usa/minute/spx/20200106_trade.zip", {"x_trade.csv": "30600000,1,2,1,3200.5,9\n"})
    with pytest.raises(DataError, match="INDEX:SPX: an index has no quotes"):
        await play(lean(tmp_path), [index])
    events, _, _ = await play(lean(tmp_path, underlying="trades"), [index])
    assert iso(int(events[0].ts_recv[0])) == "2020-01-06T14:31:00Z"
    assert events[0].price.tolist() == [3200.5]


async def test_futures_and_options_on_them_are_utc_and_unscaled(tmp_path: Path) -> None:
    """Future and future-option rows are found by contract month, in UTC, at plain prices; the last minute crosses midnight."""
    future = Future(id="CME:ESH2020", expiry=parse_instant("2020-03-20T13:30:00Z"))
    call = option("ES    200320C03220000", "CME:ESH2020")
    name = "20200106_es_minute_quote"
    put_zip(
        tmp_path / "future/cme/minute/es/20200106_quote.zip",
        {f"{name}_202003.csv": bar(86_340_000, "3223", "3223.25"), f"{name}_202006.csv": "bad\n"},
    )
    put_zip(
        tmp_path / "futureoption/cme/minute/es/202003/20200106_quote_american.zip",
        {f"{name}_american_call_32200000_20200320.csv": bar(0, "78.5", "79.25")},
    )
    events, _, universe = await play(lean(tmp_path), [future, call])
    (batch,) = events
    assert [iso(ts) for ts in batch.ts_recv.tolist()] == ["2020-01-06T00:01:00Z", "2020-01-07T00:00:00Z"]
    assert batch.instrument.tolist() == [universe.index(call.id), universe.index(future.id)]
    assert batch.bid.tolist() == [78.5, 3223.0]


async def test_days_of_several_zones_merge_in_order(tmp_path: Path) -> None:
    """Late New York rows of one day come after early UTC rows of the next: one order over days and zones."""
    future = Future(id="CME:ESH2020", expiry=parse_instant("2020-03-20T13:30:00Z"))
    for day in ("20200106", "20200107"):
        rows = "".join(bar(hour * 3_600_000, f"{3200 + hour}", f"{3201 + hour}") for hour in range(24))
        rows += bar(86_000_000, day[-4:], "5000")
        put_zip(tmp_path / f"future/cme/minute/es/{day}_quote.zip", {f"{day}_es_minute_quote_202003.csv": rows})
        share_day(tmp_path, day, steady(100_000 + int(day[-1]), start=71_000_000))
    events, report, _ = await play(lean(tmp_path, date(2020, 1, 6), date(2020, 1, 7)), [future, XYZ])
    assert stamps(events) == sorted(stamps(events))
    assert report.quotes == 2 * (25 + 12)


async def test_tick_quotes_carry_the_other_side(tmp_path: Path) -> None:
    """A tick of one side leaves the other as it was, suspicious ticks are skipped, an instant's crossing is refused."""
    rows = (
        "34200000,100000,2,0,0,Q,1,0\n"
        "34200001,0,0,101000,3,P,1,0\n"
        "34200001,900000,9,0,0,P,1,1\n"
        "34200002,102000,4,0,0,P,1,0\n"
        "34200002,0,0,103000,5,P,1,0\n"
    )
    share_day(tmp_path, "20200106", rows, resolution="tick")
    events, report, _ = await play(lean(tmp_path, resolution="tick"), [XYZ])
    (batch,) = events
    assert batch.bid.tolist() == [10.0, 10.0, 10.2]
    assert str(batch.ask.tolist()) == "[nan, 10.1, 10.3]"
    assert batch.bid_size.tolist() == [2.0, 2.0, 4.0]
    assert report.refused == {"crossed": 1, "suspicious": 1}
    assert iso(int(batch.ts_recv[0])) == "2020-01-06T14:30:00Z"


@pytest.mark.parametrize(("resolution", "end"), [("hour", "2020-01-06T15:00:00Z"), ("daily", "2020-01-07T05:00:00Z")])
async def test_hour_and_daily_archives_hold_share_prints(tmp_path: Path, resolution: str, end: str) -> None:
    """Hour and daily bars of one archive per symbol are cut to the played days and known at their end."""
    stamp = "09:00" if resolution == "hour" else "00:00"
    rows = "".join(f"202001{day:02d} {stamp},1,1,1,{day}0000,7\n" for day in (3, 6, 7))
    put_zip(tmp_path / f"equity/usa/{resolution}/xyz.zip", {"xyz.csv": rows})
    options = lean(tmp_path, resolution=resolution, sources={"US:XYZ": "trades"})
    events, _, _ = await play(options, [XYZ])
    (batch,) = events
    assert batch.price.tolist() == [6.0]
    assert iso(int(batch.ts_recv[0])) == end
    with pytest.raises(DataError, match="holds trade bars only"):
        await play(lean(tmp_path, resolution=resolution), [XYZ])


async def test_a_finer_recording_stands_in_and_is_noted(tmp_path: Path) -> None:
    """Hour quotes of a share that has only minute ones are played from those, and the report says so."""
    share_day(tmp_path, "20200106", steady(100_000))
    _, report, _ = await play(lean(tmp_path, resolution="hour"), [XYZ])
    assert report.quotes == 12
    assert report.notes == ["US:XYZ: no hour quotes, minute ones are played"]


def split_days(root: Path, factors: str | None) -> list[Instrument]:
    if factors is not None:
        (root / "equity/usa/factor_files").mkdir(parents=True)
        (root / "equity/usa/factor_files/xyz.csv").write_text(factors)
    for day, price, strikes in (("20200106", 1_000_000, 1_010_000), ("20200108", 250_000, 252_500)):
        share_day(root, day, steady(price))
        member = f"{day}_xyz_minute_quote_american_call_{strikes}_20200320.csv"
        put_zip(root / f"option/usa/minute/xyz/{day}_quote_american.zip", {member: bar(OPEN, "5000", "6000")})
    return [XYZ, option("XYZ   200320C00101000")]


async def test_a_split_converts_contracts_before_the_new_days_data(tmp_path: Path) -> None:
    """A 4-for-1 split divides strikes, multiplies quantities, and the new contract's rows follow it."""
    wanted = split_days(tmp_path, "20200103,1,0.25,400\n20200107,1,0.25,100\n20501231,1,1,0\n")
    days = (date(2020, 1, 6), date(2020, 1, 8))
    events, report, universe = await play(lean(tmp_path, *days), wanted)
    (split,) = [event for event in events if isinstance(event, Corporate)]
    assert (split.what, split.ratio, split.adjusted) == ("split", Decimal(4), True)
    assert iso(split.ts_recv) == "2020-01-08T05:00:00Z"
    (conversion,) = split.conversions
    assert (conversion.old, conversion.new, conversion.ratio) == (
        "XYZ   200320C00101000",
        "XYZ   200320C00025250",
        Decimal(4),
    )
    after = events[events.index(split) + 1 :]
    assert universe.index(conversion.new) in np.concatenate([batch.instrument for batch in after])
    assert report.quotes == 26


@pytest.mark.parametrize(
    ("factors", "what", "adjusted"),
    [
        ("20200107,0.99,1,100\n20501231,1,1,0\n", "dividend", True),
        ("20200107,0.80,1,100\n20501231,1,1,0\n", "spin_off", False),
        ("20200107,0.95,1,100\n20501231,1,1,0\n", "spin_off", False),
        ("20200107,1,0.6666667,100\n20501231,1,1,0\n", "split", False),
        ("20200107,1,0.9973,100\n20501231,1,1,0\n", "spin_off", False),
    ],
)
async def test_what_a_factor_file_cannot_prove_is_not_adjusted(
    tmp_path: Path, factors: str, what: str, adjusted: bool
) -> None:
    """Small distributions are dividends; large ones and odd ratios are flagged, with the contracts left alone."""
    wanted = split_days(tmp_path, factors)
    events, _, _ = await play(lean(tmp_path, date(2020, 1, 6), date(2020, 1, 8)), wanted)
    (event,) = [event for event in events if isinstance(event, Corporate)]
    assert (event.what, event.adjusted, event.conversions) == (what, adjusted, ())
    if what == "dividend":
        assert event.cash == Decimal("1.0")


async def test_a_jump_without_reference_data_is_flagged_when_it_is_seen(tmp_path: Path) -> None:
    """With no factor file a 75% overnight fall is an unknown event at the first price that shows it, not before."""
    wanted = split_days(tmp_path, None)
    events, _, _ = await play(lean(tmp_path, date(2020, 1, 6), date(2020, 1, 8)), wanted)
    (event,) = [event for event in events if isinstance(event, Corporate)]
    assert (event.what, event.adjusted, event.instrument) == ("unknown", False, "US:XYZ")
    assert iso(event.ts_recv) == "2020-01-08T14:31:00Z"
    assert stamps(events) == sorted(stamps(events))


async def test_a_rename_moves_holdings_and_files(tmp_path: Path) -> None:
    """After a change of symbol the rows come from the new folder, under the new ids, from the day it took effect."""
    (tmp_path / "equity/usa/map_files").mkdir(parents=True)
    (tmp_path / "equity/usa/map_files/new.csv").write_text("20100101,xyz,N\n20200106,xyz,N\n20501231,new,N\n")
    share_day(tmp_path, "20200106", steady(100_000))
    share_day(tmp_path, "20200107", steady(100_500), symbol="new")
    for day, symbol in (("20200106", "xyz"), ("20200107", "new")):
        member = f"{day}_{symbol}_minute_quote_american_put_100000_20200320.csv"
        put_zip(tmp_path / f"option/usa/minute/{symbol}/{day}_quote_american.zip", {member: bar(OPEN, "1", "2")})
    days = (date(2020, 1, 6), date(2020, 1, 7))
    events, report, universe = await play(lean(tmp_path, *days), [XYZ, option("XYZ   200320P00010000")])
    (event,) = [event for event in events if isinstance(event, Corporate)]
    assert [(c.old, c.new) for c in event.conversions] == [
        ("US:XYZ", "US:NEW"),
        ("XYZ   200320P00010000", "NEW   200320P00010000"),
    ]
    moved = universe.get("NEW   200320P00010000")
    assert isinstance(moved, OptionContract)
    assert moved.underlying == "US:NEW"
    assert report.quotes == 26


async def test_parity_forward_is_derived_from_the_chain(tmp_path: Path) -> None:
    """The price of a share without its own rows is K + C - P discounted, from members outside the universe too."""
    members = {}
    for strike, call, put in ((95_0000, 70_000, 20_000), (100_0000, 35_000, 35_000), (105_0000, 15_000, 65_000)):
        for side, mid in (("call", call), ("put", put)):
            name = f"20200106_xyz_minute_quote_american_{side}_{strike}_20200320.csv"
            members[name] = bar(OPEN, str(mid - 100), str(mid + 100))
    put_zip(tmp_path / "option/usa/minute/xyz/20200106_quote_american.zip", members)
    wanted: list[Instrument] = [XYZ, option("XYZ   200320C00100000")]
    with pytest.raises(DataError, match=r"equity.*20200106_quote\.zip"):
        await play(lean(tmp_path), wanted)
    events, report, universe = await play(lean(tmp_path, underlying="parity_forward"), wanted)
    (prints,) = [event for event in events if isinstance(event, TradeBatch)]
    assert prints.price.tolist() == pytest.approx([100.0])
    assert prints.instrument.tolist() == [universe.index("US:XYZ")]
    assert int(prints.ts_recv[0]) == parse_instant("2020-01-06T14:30:00Z") + NS_PER_MINUTE
    assert "put-call parity of 6 contracts" in report.notes[0]


async def test_what_lean_has_no_folder_for_is_said(tmp_path: Path) -> None:
    """An instrument of another venue is refused by name."""
    with pytest.raises(DataError, match="BINANCE-SPOT:BTCUSDT"):
        await play(lean(tmp_path), [Spot(id="BINANCE-SPOT:BTCUSDT")])


async def test_order_of_use_is_enforced(tmp_path: Path) -> None:
    """Entering without a universe, or asking for events before entering, is an error and not a wrong column."""
    share_day(tmp_path, "20200106", steady(100_000))
    feed = ReplayFeed(lean(tmp_path), wanted=[XYZ])
    with pytest.raises(DataError, match="bind"):
        await feed.__aenter__()
    feed.bind(Universe([XYZ]))
    with pytest.raises(DataError, match="entered"):
        _ = [event async for event in feed.events()]


async def test_a_truncated_gzip_is_named(tmp_path: Path) -> None:
    """A capture cut short in its compressed bytes is a DataError that names the file."""
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"1 {}\n" * 5000)[:-12])
    with pytest.raises(DataError, match=r"cut\.gz: expected a whole file"):
        await play(ReplayOptions(format="binance", root=str(tmp_path), files=("cut.gz",)), [XYZ])
