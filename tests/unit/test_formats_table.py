"""Tables of quotes, prints and chains: columns, zones, faults and the source of an underlying's price."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.formats.columns import read_sheet
from adapters.formats.table import canonical_id, parse_times
from adapters.replay import ReplayFeed, ReplayOptions
from bot.core.errors import DataError
from bot.core.events import Corporate
from bot.core.ports import FeedReport
from bot.domain.instruments import Instrument, OptionContract, Spot, Universe, parse_occ
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import iso, parse_instant

XYZ = Spot(id="US:XYZ")
HEAD = "ts,instrument,bid,ask,bid_size,ask_size\n"
AT = "2020-01-06T14:3"


def call(name: str = "XYZ   200320C00100000") -> OptionContract:
    parts, end = parse_occ(name), parse_instant("2020-03-20T20:00:00Z")
    return OptionContract(
        id=name,
        underlying="US:XYZ",
        cp=parts.cp,
        strike=parts.strike,
        style="european",
        settlement="cash",
        last_trade=end,
        expiry=end,
        settles=end,
        multiplier=Decimal(100),
    )


async def play(
    folder: Path, text: str, wanted: Sequence[Instrument] = (XYZ,), **more: Any
) -> tuple[list[Any], FeedReport]:
    (folder / "t.csv").write_text(text)
    options = ReplayOptions(**{"format": "csv", "root": str(folder), "files": ("t.csv",), **more})
    feed = ReplayFeed(options, wanted=wanted)
    feed.bind(Universe(wanted))
    async with feed:
        return [event async for event in feed.events()], feed.report()


async def test_quotes_with_their_zone(tmp_path: Path) -> None:
    """ISO times of any zone and integer nanoseconds name the same instant; a blank side is withdrawn."""
    ns = parse_instant("2020-01-06T14:32:00Z")
    text = HEAD + f"{AT}0:00Z,US:XYZ,10,11,1,2\n2020-01-06T09:31:00-05:00,US:XYZ,,11,,2\n{ns},US:XYZ,10,12,1,\n"
    events, report = await play(tmp_path, text)
    (batch,) = events
    assert [iso(ts)[14:16] for ts in batch.ts_recv.tolist()] == ["30", "31", "32"]
    assert np.isnan(batch.bid[1])
    assert np.isnan(batch.ask_size[2])
    assert report.quotes == 3
    assert len(report.files["t.csv"]) == 64


@pytest.mark.parametrize("stamp", ["2020-01-06T14:31:00", "2020-01-06 14:31:00 EST", "2020-01-06T14:31:00+99:00"])
async def test_a_time_without_its_zone_is_fatal(tmp_path: Path, stamp: str) -> None:
    """A missing or wrong zone names file, line and column: no hour is ever guessed."""
    text = HEAD + f"{AT}0:00Z,US:XYZ,10,11,1,2\n{stamp},US:XYZ,10,11,1,2\n"
    with pytest.raises(DataError, match=r"t\.csv:3: ts: expected a time with its zone"):
        await play(tmp_path, text)


async def test_milliseconds_are_not_nanoseconds(tmp_path: Path) -> None:
    """Integers too small for nanoseconds are refused as a whole, with the likely unit."""
    with pytest.raises(DataError, match="milliseconds or microseconds"):
        await play(tmp_path, HEAD + "1578321000000,US:XYZ,10,11,1,2\n")


async def test_row_faults_are_counted(tmp_path: Path) -> None:
    """Every fault of a row is refused under its own reason, in text a reader would not parse too."""
    rows = ["10,11", "12,11", "NaN,11", "10,1e999", "0,11", "-1,11", "ten,11", "10,11,1,2,3"]
    text = "ts,instrument,bid,ask\n" + "".join(f"{AT}{i}:00Z,US:XYZ,{row}\n" for i, row in enumerate(rows))
    text += "noon,US:XYZ,10,11\n"
    events, report = await play(tmp_path, text)
    assert [len(event) for event in events] == [1]
    assert report.refused == {"crossed": 1, "nan": 1, "infinite": 1, "zero": 1, "negative": 1, "unparsable": 3}


async def test_faults_of_instruments_nobody_wants_are_not_counted(tmp_path: Path) -> None:
    """Rows of other instruments are noted, not refused."""
    text = HEAD + f"{AT}0:00Z,US:XYZ,10,11,1,2\n{AT}0:00Z,US:ABC,12,11,1,2\n"
    _, report = await play(tmp_path, text)
    assert report.refused == {}
    assert report.notes == ["t.csv: 1 rows of 1 instruments not of this run are not played"]


async def test_columns_are_mapped(tmp_path: Path) -> None:
    """A broker's column names are mapped to ours; a mapping to a column that is not there is an error."""
    text = f"when,Symbol,BidPx,AskPx\n{AT}0:00Z,us:xyz,10,11\n"
    mapping = {"ts": "when", "instrument": "Symbol", "bid": "BidPx", "ask": "AskPx"}
    events, _ = await play(tmp_path, text, columns=mapping)
    assert events[0].bid.tolist() == [10.0]
    with pytest.raises(DataError, match=r"columns\.ask: expected a column 'Ask'"):
        await play(tmp_path, text, columns={**mapping, "ask": "Ask"})
    with pytest.raises(DataError, match="found 'asks'"):
        await play(tmp_path, text, columns={"asks": "AskPx"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty file"),
        (HEAD, "found none"),
        ("a,b\n1,2\n", "expected a time column"),
        ("ts,instrument\n1,2\n", "either bid and ask, or price"),
        ("ts,bid,ask\n1,2,3\n", "expected a column instrument"),
        (HEAD + f"{AT}0:00Z,US:ABC,10,11,1,2\n", "expected rows of US:XYZ"),
    ],
)
async def test_faults_of_the_file_are_named(tmp_path: Path, text: str, told: str) -> None:
    """An empty file, a header alone, missing columns and a missing instrument each have their sentence."""
    with pytest.raises(DataError, match=rf"t\.csv.*{told}"):
        await play(tmp_path, text)


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there, a pattern that matches none and no files at all are errors."""
    for files in (("no.csv",), ("no*.csv",)):
        with pytest.raises(DataError, match=r"no.*\.csv: expected"):
            await play(tmp_path, HEAD, files=files)
    with pytest.raises(DataError, match="expects files"):
        await play(tmp_path, HEAD, files=(), root=None)


async def test_unsorted_and_repeated_times(tmp_path: Path) -> None:
    """Unsorted and repeated times name their line, or are repaired and counted as asked."""
    text = HEAD + f"{AT}1:00Z,US:XYZ,10,11,1,2\n{AT}0:00Z,US:XYZ,9,11,1,2\n"
    with pytest.raises(DataError, match=r"t\.csv:3: ts: expected times that never decrease"):
        await play(tmp_path, text)
    text += f"{AT}1:00Z,US:XYZ,8,11,1,2\n"
    with pytest.raises(DataError, match=r"t\.csv:4: ts: expected one row per instrument and time"):
        await play(tmp_path, text, unsorted="sort")
    events, report = await play(tmp_path, text, unsorted="sort", repeated="last")
    assert events[0].bid.tolist() == [9.0, 8.0]
    assert report.repaired == {"repeated": 1, "unsorted": 1}


async def test_several_files_merge_into_one_order(tmp_path: Path) -> None:
    """Rows of several files come in order of time, the first file first at one instant."""
    (tmp_path / "b.csv").write_text(HEAD + f"{AT}0:00Z,US:ABC,1,2,1,2\n{AT}2:00Z,US:ABC,3,4,1,2\n")
    (tmp_path / "c.csv").write_text(f"ts,instrument,price\n{AT}0:30Z,US:XYZ,7\n")
    text = HEAD + f"{AT}0:00Z,US:XYZ,10,11,1,2\n{AT}1:00Z,US:XYZ,12,13,1,2\n"
    events, _ = await play(tmp_path, text, [XYZ, Spot(id="US:ABC")], files=("t.csv", "b.csv", "c.csv"))
    assert [type(event) for event in events] == [QuoteBatch, TradeBatch, QuoteBatch]
    assert events[0].bid.tolist() == [10.0, 1.0]
    assert events[2].bid.tolist() == [12.0, 3.0]


async def test_an_underlying_without_a_permitted_source_is_refused(tmp_path: Path) -> None:
    """An option whose underlying has prints only needs `trades`; with option quotes alone nothing is invented."""
    option_row = f"{AT}0:00Z,XYZ200320C00100000,5,6,1,2\n"
    (tmp_path / "p.csv").write_text(f"ts,instrument,price\n{AT}0:30Z,US:XYZ,100\n")
    wanted: list[Instrument] = [XYZ, call()]
    with pytest.raises(DataError, match="expected quotes of the underlying US:XYZ"):
        await play(tmp_path, HEAD + option_row, wanted, files=("t.csv", "p.csv"))
    events, _ = await play(tmp_path, HEAD + option_row, wanted, files=("t.csv", "p.csv"), underlying="trades")
    assert [type(event) for event in events] == [QuoteBatch, TradeBatch]
    with pytest.raises(DataError, match="from parity_forward, found none"):
        await play(tmp_path, HEAD + option_row, wanted, underlying="parity_forward")


async def test_a_chain_table_names_contracts_by_their_parts(tmp_path: Path) -> None:
    """Chain rows of underlying, expiration, strike and cp become OCC ids, and `underlying_price` prints of the underlying."""
    text = (
        "ts,underlying,expiration,strike,cp,bid,ask,underlying_price\n"
        f"{AT}0:00Z,XYZ,2020-03-20,100,C,5,6,100.5\n"
        f"{AT}0:00Z,XYZ,2020-03-20,100.0,put,4,5,100.5\n"
        f"{AT}1:00Z,XYZ,20200320,100,c,5.5,6,100.7\n"
    )
    events, _ = await play(tmp_path, text, [XYZ, call()], underlying="trades")
    quotes = [row for event in events if isinstance(event, QuoteBatch) for row in event.bid.tolist()]
    prints = [row for event in events if isinstance(event, TradeBatch) for row in event.price.tolist()]
    assert quotes == [5.0, 5.5]
    assert prints == [100.5, 100.7]


async def test_parity_forward_uses_the_whole_chain_of_the_file(tmp_path: Path) -> None:
    """The derived price follows calls and puts that are not of the run."""
    rows = [("C00095000", 7.0), ("P00095000", 2.0), ("C00100000", 3.5), ("P00100000", 3.5)]
    text = HEAD + "".join(f"{AT}0:00Z,XYZ200320{name},{mid - 0.1},{mid + 0.1},1,1\n" for name, mid in rows)
    events, _ = await play(tmp_path, text, [XYZ, call()], underlying="parity_forward")
    assert events[-1].price.tolist() == pytest.approx([100.0])


async def test_an_overnight_jump_of_a_share_is_flagged(tmp_path: Path) -> None:
    """A table holds no reference data, so a halving overnight is an unknown corporate event."""
    text = HEAD + f"{AT}0:00Z,US:XYZ,100,101,1,1\n2020-01-07T14:30:00Z,US:XYZ,50,50.5,1,1\n"
    events, _ = await play(tmp_path, text)
    assert [type(event) for event in events] == [QuoteBatch, Corporate, QuoteBatch]


async def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    """Parquet columns of zoned timestamps give the rows of the CSV; a timestamp without a zone is an error."""
    ns = parse_instant("2020-01-06T14:30:00Z")
    columns = {"instrument": ["US:XYZ"] * 3, "bid": [10.0, None, float("nan")], "ask": [11.0, 12.0, 13.0]}
    stamps = [ns, ns + 10**9, ns + 2 * 10**9]
    for kind in (pa.int64(), pa.timestamp("ns", "UTC"), pa.timestamp("us", "America/New_York")):
        table = pa.table({"ts": pa.array(stamps, pa.int64()).cast(pa.timestamp("ns")).cast(pa.int64()), **columns})
        if kind != pa.int64():
            micros = pa.timestamp("ns", kind.tz)
            table = table.set_column(0, "ts", pa.array(stamps, pa.int64()).cast(micros).cast(kind))
        pq.write_table(table, tmp_path / "t.parquet")
        events, report = await play(tmp_path, HEAD, format="parquet", files=("t.parquet",))
        assert events[0].ts_recv.tolist() == stamps[:2]
        assert np.isnan(events[0].bid[1])
        assert report.refused == {"nan": 1}
    table = table.set_column(0, "ts", pa.array(stamps, pa.int64()).cast(pa.timestamp("ns")))
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: ts: expected timestamps with a zone"):
        await play(tmp_path, HEAD, format="parquet", files=("t.parquet",))
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"t\.parquet: expected a whole Parquet file"):
        await play(tmp_path, HEAD, format="parquet", files=("t.parquet",))


def test_many_utc_times_at_once_equal_one_by_one() -> None:
    """The fast parse of a long UTC column equals the slow parse of each text."""
    texts = [f"2020-01-06T14:{m:02d}:{s:02d}.{s:03d}Z" for m in range(10) for s in range(10)]
    ns, state = parse_times(texts)
    assert ns.tolist() == [parse_instant(text) for text in texts]
    assert not state.any()
    ns, state = parse_times([*texts, "2020-01-06T14:00:00"])
    assert state.tolist() == [0] * len(texts) + [2]


def test_ids_are_canonical() -> None:
    """OCC symbols are padded to 21 characters, other ids only put in upper case."""
    assert canonical_id("goog151224c00750000") == "GOOG  151224C00750000"
    assert canonical_id(" us:goog ") == "US:GOOG"


def test_lines_are_counted_past_blank_and_ragged_rows() -> None:
    """The line of a row is the file's own, whatever was left out before it."""
    data = b"a,b\n1,2\n\n3\n4,5\r\n6,x\n"
    sheet = read_sheet(data, columns=["a", "b"], numbers=["a", "b"], where="t", skip=1)
    assert sheet.cells["a"].value.tolist() == [1.0, 4.0, 6.0]
    assert [sheet.line(row) for row in range(3)] == [2, 5, 6]
    assert sheet.cells["b"].bad.tolist() == [False, False, True]
