"""The feeds that ship keep the law of `Feed`, on files and seeds of their own."""

from __future__ import annotations

import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adapters.dataset import DatasetFeed, DatasetOptions
from adapters.replay import ReplayFeed, ReplayOptions
from adapters.synthetic import Chain, SyntheticFeed, SyntheticOptions
from bot.core.ports import Feed
from bot.domain.instruments import Index, Instrument, Spot, Universe
from bot.domain.units import NS_PER_SECOND, parse_instant
from bot.testing.contracts import FeedContract

STOCK = Spot(id="US:ABC", tick=Decimal("0.01"))
OTHER = Spot(id="US:DEF", tick=Decimal("0.01"))
START = parse_instant("2024-03-01T14:30:00Z")


class _Bound(FeedContract):
    """A feed of columns, bound to the universe of what it wants and lists."""

    wanted: tuple[Instrument, ...] = ()

    def make_universe(self) -> Universe:
        feed = self.make_feed()
        listed = feed.instruments("") if hasattr(feed, "instruments") else ()
        return Universe({item.id: item for item in (*listed, *self.wanted)}.values())


class TestCsvReplay(_Bound):
    """A CSV recording, with rows that are refused among the good ones."""

    wanted = (STOCK, OTHER)

    def make_feed(self) -> Feed:
        folder = Path(tempfile.mkdtemp())
        rows = ["ts,instrument,bid,ask,bid_size,ask_size"]
        for i in range(300):
            ts = START + i * NS_PER_SECOND
            bid = 100 + i % 7 * 0.01
            ask = "" if i % 11 == 0 else f"{bid - 1 if i % 50 == 3 else bid + 0.02:.2f}"
            rows.append(f"{ts},{'US:ABC' if i % 3 else 'US:DEF'},{bid:.2f},{ask},100,{200 + i}")
        (folder / "quotes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        options = ReplayOptions(format="csv", root=str(folder), files=("quotes.csv",), batch_rows=17)
        return ReplayFeed(options, wanted=self.wanted)


class TestParquetReplay(_Bound):
    """The same from Parquet, both instruments at the same instants."""

    wanted = (STOCK, OTHER)

    def make_feed(self) -> Feed:
        folder = Path(tempfile.mkdtemp())
        n = 200
        ts = START + np.repeat(np.arange(n // 2), 2) * NS_PER_SECOND
        table = pa.table(
            {
                "ts": ts,
                "instrument": ["US:ABC", "US:DEF"] * (n // 2),
                "bid": np.full(n, 10.0),
                "ask": np.full(n, 10.01),
            }
        )
        pq.write_table(table, folder / "quotes.parquet")
        options = ReplayOptions(format="parquet", root=str(folder), files=("quotes.parquet",), batch_rows=33)
        return ReplayFeed(options, wanted=self.wanted)


class TestSynthetic(_Bound):
    """A seeded session with a chain whose wings lose their bids."""

    def make_feed(self) -> Feed:
        options = SyntheticOptions(
            seed=5,
            model="merton",
            start=START,
            end=START + 300 * NS_PER_SECOND,
            spot=50.0,
            chain=Chain(
                root="XYZ", expiries=(date(2024, 3, 15),), strikes=tuple(map(Decimal, (30, 45, 50, 55, 80))), every=20
            ),
            batch_rows=64,
        )
        return SyntheticFeed(options)


class TestDataset(_Bound):
    """Daily closes that ship with an installed package."""

    wanted = (Index(id="INDEX:SPX"),)

    def make_feed(self) -> Feed:
        return DatasetFeed(
            DatasetOptions(start=date(2008, 9, 1), end=date(2008, 12, 31), batch_rows=10), wanted=self.wanted
        )
