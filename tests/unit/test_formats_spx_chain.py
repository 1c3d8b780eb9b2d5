"""Daily SPX chains: one snapshot a day, contracts by root, zero bids withdrawn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.replay import ReplayFeed, ReplayOptions
from bot.core.errors import DataError
from bot.core.ports import FeedReport
from bot.domain.instruments import Index, Instrument, OptionContract, Universe, parse_occ
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import iso, parse_instant

HEAD = (
    "underlying,underlying_last,exchange,optionroot,type,expiration,quotedate,strike,last,net,bid,ask,volume,"
    "openinterest,impliedvol,delta,gamma\n"
)
INDEX = Index(id="INDEX:SPX")


def option(name: str) -> OptionContract:
    parts, end = parse_occ(name), parse_instant("2019-06-28T20:00:00Z")
    return OptionContract(
        id=name,
        underlying="INDEX:SPX",
        cp=parts.cp,
        strike=parts.strike,
        style="european",
        settlement="cash",
        last_trade=end,
        expiry=end,
        settles=end,
        multiplier=Decimal(100),
    )


def row(root: str, bid: str, ask: str, *, day: str = "05/02/2019", last: str = "2915.79") -> str:
    return f"SPX,{last},CBOE,{root},call,06/28/2019,{day},2915.0,0.0,0.0,{bid},{ask},0,0,0.0,0.5,0.0\n"


async def play(
    folder: Path, texts: Sequence[str], wanted: Sequence[Instrument], **more: Any
) -> tuple[list[Any], FeedReport]:
    for i, text in enumerate(texts):
        (folder / f"{i}.csv").write_text(text)
    options = ReplayOptions(**{"format": "spx_chain", "root": str(folder), "underlying": "trades", **more})
    feed = ReplayFeed(options, wanted=wanted)
    feed.bind(Universe(wanted))
    async with feed:
        return [event async for event in feed.events()], feed.report()


CALL = "SPXW  190628C02915000"
WANTED: list[Instrument] = [INDEX, option(CALL)]


async def test_a_snapshot_is_taken_as_the_close(tmp_path: Path) -> None:
    """Rows of a day come at 16:00 New York, the underlying's last as a print, a zero bid as a withdrawn side."""
    text = HEAD + row("SPXW190628C02915000", "0", "56.1") + row("SPX190628C02915000", "1", "2")
    events, report = await play(tmp_path, [text], WANTED)
    quotes, prints = events
    assert isinstance(quotes, QuoteBatch)
    assert isinstance(prints, TradeBatch)
    assert iso(int(quotes.ts_recv[0])) == "2019-05-02T20:00:00Z"
    assert np.isnan(quotes.bid[0])
    assert prints.price.tolist() == [2915.79]
    assert report.quotes == 1


async def test_roots_tell_morning_from_afternoon_settlement(tmp_path: Path) -> None:
    """SPX and SPXW of one date and strike are two contracts."""
    text = HEAD + row("SPXW190628C02915000", "55", "56") + row("SPX190628C02915000", "53", "54")
    events, _ = await play(tmp_path, [text], [INDEX, option("SPX   190628C02915000")])
    assert events[0].bid.tolist() == [53.0]


async def test_quotes_of_an_index_are_refused_by_name(tmp_path: Path) -> None:
    """A chain does not hold quotes of its underlying."""
    with pytest.raises(DataError, match="INDEX:SPX: an spx_chain has no quotes"):
        await play(tmp_path, [HEAD + row("SPXW190628C02915000", "1", "2")], WANTED, underlying="quotes")


async def test_days_in_order_once_and_as_asked(tmp_path: Path) -> None:
    """Files play in order of quote date; repeated, unsorted and missing days are errors or counted repairs."""
    first, second = (HEAD + row("SPXW190628C02915000", "1", "2", day=day) for day in ("05/02/2019", "05/03/2019"))
    with pytest.raises(DataError, match="order of quote date"):
        await play(tmp_path, [second, first], WANTED)
    events, report = await play(tmp_path, [second, first], WANTED, unsorted="sort")
    assert [len(event) for event in events] == [1, 1, 1, 1]
    assert report.repaired == {"unsorted_days": 1}
    with pytest.raises(DataError, match="one file a day"):
        await play(tmp_path, [first, first], WANTED)
    days = (date(2019, 5, 2), date(2019, 5, 5))
    with pytest.raises(DataError, match="quotedate 2019-05-05"):
        await play(tmp_path, [first, second], WANTED, dates=days)
    events, report = await play(tmp_path, [first, second], WANTED, dates=days, missing_days="skip")
    assert report.quotes == 1


async def test_faults_of_wanted_rows_only(tmp_path: Path) -> None:
    """Crossed and broken rows of wanted contracts are counted, those of others ignored."""
    text = HEAD + row("SPXW190628C02915000", "3", "2") + row("SPXW190628C02920000", "3", "2")
    text += row("SPXW190628P02915000", "nan", "2") + "1,2,3\n"
    _, report = await play(tmp_path, [text], [*WANTED, option("SPXW  190628P02915000")])
    assert report.refused == {"crossed": 1, "nan": 1, "unparsable": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty file"),
        ("a,b\n1,2\n", "expected the columns"),
        (HEAD, "under the header"),
        (HEAD + row("SPXW190628C02915000", "1", "2", day="2019-05-02"), "expected M/D/Y"),
        (HEAD + row("SPXW190628C02000000", "1", "2"), "expected rows of SPXW  190628C02915000"),
    ],
)
async def test_faults_of_the_file_are_named(tmp_path: Path, text: str, told: str) -> None:
    """An empty file, foreign columns, a foreign date and a missing contract each have their sentence."""
    with pytest.raises(DataError, match=rf"0\.csv.*{told}"):
        await play(tmp_path, [text], WANTED)
