"""Binance captures: a book by update ids, an honest clock, and faults of messages."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters.formats.binance import DepthBook, Diff, Snapshot, capture_quality, read_capture
from adapters.replay import ReplayFeed, ReplayOptions
from bot.core.errors import DataError
from bot.core.events import FeedState
from bot.core.ports import FeedReport
from bot.domain.instruments import Instrument, Perpetual, Spot, Universe
from bot.domain.market import QuoteBatch, TradeBatch

PERP = Perpetual(id="BINANCE:BTCUSDT")
T0 = 1_723_161_255_000_000_000
E0 = 1_723_161_256_269


def ticker(u: int, bid: str, ask: str, size: str = "1") -> dict[str, Any]:
    data = {"e": "bookTicker", "u": u, "s": "BTCUSDT", "b": bid, "B": size, "a": ask, "A": size, "T": E0, "E": E0 + u}
    return {"stream": "btcusdt@bookTicker", "data": data}


def diff(first: int, last: int, previous: int, bids: list[list[str]], asks: list[list[str]]) -> dict[str, Any]:
    data = {
        "e": "depthUpdate",
        "E": E0 + last,
        "s": "BTCUSDT",
        "U": first,
        "u": last,
        "pu": previous,
        "b": bids,
        "a": asks,
    }
    return {"stream": "btcusdt@depth@0ms", "data": data}


def trade(price: str) -> dict[str, Any]:
    return {"stream": "btcusdt@trade", "data": {"e": "trade", "E": E0, "s": "BTCUSDT", "p": price, "q": "2", "m": True}}


SNAPSHOT = {
    "lastUpdateId": 10,
    "E": E0,
    "T": E0,
    "bids": [["100", "1"], ["99", "2"]],
    "asks": [["101", "3"], ["102", "4"]],
}


def write(path: Path, messages: Sequence[dict[str, Any] | str]) -> Path:
    lines = [
        m if isinstance(m, str) else f"{T0 + i * 1_000_000} {json.dumps(m, separators=(',', ':'))}"
        for i, m in enumerate(messages)
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    return path


async def play(
    folder: Path, messages: Sequence[dict[str, Any] | str], wanted: Sequence[Instrument] = (PERP,), **more: Any
) -> tuple[list[Any], FeedReport]:
    write(folder / "c.gz", messages)
    feed = ReplayFeed(ReplayOptions(format="binance", root=str(folder), files=("c.gz",), **more), wanted=wanted)
    feed.bind(Universe(wanted))
    async with feed:
        return [event async for event in feed.events()], feed.report()


def tops(events: Sequence[Any]) -> list[tuple[float, float]]:
    return [
        pair
        for event in events
        if isinstance(event, QuoteBatch)
        for pair in zip(event.bid.tolist(), event.ask.tolist(), strict=True)
    ]


async def test_diffs_are_applied_to_the_snapshot_by_update_id(tmp_path: Path) -> None:
    """Diffs that came before the snapshot are applied after it where they are newer, and dropped where they are old."""
    messages = [
        diff(1, 8, 0, [["100", "0"]], []),
        diff(9, 12, 8, [["100.5", "7"]], []),
        SNAPSHOT,
        diff(13, 14, 12, [["100.5", "0"]], [["101", "0"]]),
    ]
    events, _ = await play(tmp_path, messages, book="depth")
    assert tops(events) == [(100.5, 101.0), (100.0, 102.0)]
    assert events[0].ts_recv.tolist() == [T0 + 2_000_000, T0 + 3_000_000]


async def test_ids_that_do_not_connect_end_the_book(tmp_path: Path) -> None:
    """A missing diff is a flagged gap: no top is shown until the next snapshot connects."""
    messages = [
        SNAPSHOT,
        diff(10, 12, 9, [["100.5", "7"]], []),
        diff(20, 22, 19, [["100.9", "7"]], []),
        diff(23, 24, 22, [["100.8", "7"]], []),
        {**SNAPSHOT, "lastUpdateId": 23},
    ]
    events, report = await play(tmp_path, messages, book="depth")
    assert tops(events) == [(100.0, 101.0), (100.5, 101.0), (100.8, 101.0)]
    (gap,) = [event for event in events if isinstance(event, FeedState)]
    assert (gap.state, gap.instrument, gap.ts_recv) == ("gap", PERP.id, T0 + 2_000_000)
    assert report.repaired == {"depth_gaps": 1}


async def test_an_older_view_never_replaces_a_newer_one(tmp_path: Path) -> None:
    """With ticker and depth together a message older by update id than what was shown is not shown."""
    messages = [ticker(13, "100.7", "101.5"), SNAPSHOT, diff(10, 12, 9, [["100.5", "7"]], []), diff(13, 15, 12, [], [])]
    events, _ = await play(tmp_path, messages)
    assert tops(events) == [(100.7, 101.5), (100.5, 101.0)]


async def test_the_capture_clock_is_kept_and_its_offset_reported(tmp_path: Path) -> None:
    """Receive times are the capture's, moved only by a declared offset; the measured offset is a note."""
    messages = [ticker(1, "100", "101"), ticker(2, "100", "101"), trade("100")]
    events, report = await play(tmp_path, messages)
    assert events[0].ts_recv.tolist() == [T0, T0 + 1_000_000]
    assert events[0].ts_event.tolist() == [(E0 + 1) * 1_000_000, (E0 + 2) * 1_000_000]
    assert "-1270.000 ms (median)" in report.notes[0]
    events, _ = await play(tmp_path, messages, clock_offset=1_270_000_000)
    assert events[0].ts_recv.tolist() == [T0 + 1_270_000_000, T0 + 1_271_000_000]
    events, _ = await play(tmp_path, messages, clock="exchange")
    assert events[0].ts_recv.tolist() == [(E0 + 1) * 1_000_000, (E0 + 2) * 1_000_000]
    assert isinstance(events[1], TradeBatch)
    assert events[1].ts_recv.tolist() == [(E0 + 2) * 1_000_000]


async def test_faults_of_messages_are_counted(tmp_path: Path) -> None:
    """Crossed, zero, NaN, infinite and unreadable messages are refused by reason; an empty side is a withdrawal."""
    messages: list[dict[str, Any] | str] = [
        ticker(1, "100", "101"),
        ticker(2, "102", "101"),
        ticker(3, "0", "101"),
        ticker(4, "nan", "101"),
        ticker(5, "1e999", "101"),
        ticker(6, "abc", "101"),
        {
            "stream": "btcusdt@bookTicker",
            "data": {"u": 7, "s": "BTCUSDT", "b": "0.0", "B": "0.0", "a": "101", "A": "2", "e": "x"},
        },
        "not a line",
        f"{T0 + 99_000_000} {{broken",
        trade("-1"),
    ]
    events, report = await play(tmp_path, messages)
    assert str(tops(events)) == "[(100.0, 101.0), (nan, 101.0)]"
    assert report.refused == {"crossed": 1, "zero": 1, "nan": 1, "infinite": 1, "unparsable": 3, "negative": 1}


async def test_receive_times_that_go_back(tmp_path: Path) -> None:
    """A capture whose receive time goes back is an error, or sorted and counted."""
    late = f"{T0 - 5} {json.dumps(ticker(2, '100', '102'))}"
    with pytest.raises(DataError, match=r"c\.gz:2: receive time"):
        await play(tmp_path, [ticker(1, "100", "101"), late])
    events, report = await play(tmp_path, [ticker(1, "100", "101"), late], unsorted="sort")
    assert tops(events) == [(100.0, 102.0), (100.0, 101.0)]
    assert report.repaired == {"unsorted": 1}


async def test_a_wanted_instrument_that_was_not_captured(tmp_path: Path) -> None:
    """Spot wanted from a futures capture is an error that says what was captured."""
    with pytest.raises(DataError, match="expected messages of BINANCE-SPOT:BTCUSDT, found those of BINANCE:BTCUSDT"):
        await play(tmp_path, [ticker(1, "100", "101")], [Spot(id="BINANCE-SPOT:BTCUSDT")])


def test_spot_books_connect_by_the_next_id() -> None:
    """On spot the first diff spans the snapshot's id plus one, and each later one starts right after the last."""
    book = DepthBook(is_spot=True)
    assert book.take_snapshot(Snapshot(10, [("100", "1")], [("101", "1")]))
    assert book.take_diff(Diff("X", 8, 10, [("100", "0")], []))
    assert book.bids.best == 100.0
    assert book.take_diff(Diff("X", 9, 11, [("100.5", "1")], []))
    assert book.take_diff(Diff("X", 12, 13, [("100.5", "0")], []))
    assert book.bids.top() == (100.0, 1.0)
    assert not book.take_diff(Diff("X", 15, 16, [], []))
    assert book.state == "gap"


def test_the_best_price_is_that_of_all_levels() -> None:
    """However levels come and go, the best is the extreme of those left, and an empty side has none."""
    book = DepthBook(is_spot=True)
    book.take_snapshot(Snapshot(1, [], []))
    levels: dict[float, float] = {}
    for step in range(300):
        price, size = float((step * 37) % 23), float((step * 17) % 3)
        book.bids.set_levels([(str(price), str(size))])
        if size:
            levels[price] = size
        else:
            levels.pop(price, None)
        assert book.bids.best == max(levels, default=None)


def test_statistics_are_as_recorded(tmp_path: Path) -> None:
    """Counts by stream, first and last bid and offer come from the capture unrepaired."""
    capture = read_capture(write(tmp_path / "c.gz", [ticker(1, "1", "2"), SNAPSHOT, trade("1"), ticker(2, "4", "3")]))
    found = capture_quality(capture)
    assert found.streams == {"bookTicker": 2, "snapshot": 1, "trade": 1}
    assert (found.first_bbo, found.last_bbo, found.crossed_bbo) == ((1.0, 2.0), (4.0, 3.0), 1)
    assert found.lines == 4
