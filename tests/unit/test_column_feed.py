"""Column recordings: what is written is what is played, in pieces of any size, and damage is named."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import columns
from adapters.columns import ColumnFeed, ColumnOptions, write_folder, write_parquet
from bot.core.errors import DataError
from bot.domain.instruments import Spot, Universe
from bot.domain.market import QuoteBatch

ONE, TWO, THREE = (Spot(id=f"US:{name}", tick=Decimal("0.01")) for name in ("AAA", "BBB", "CCC"))
UNIVERSE = Universe([ONE, TWO, THREE])
START = 1_700_000_000_000_000_000


def some(rows: int, seed: int = 3) -> QuoteBatch:
    rng = np.random.default_rng(seed)
    ts = START + np.cumsum(rng.integers(0, 3, rows)) * 1_000_000
    bid = np.round(100.0 + np.cumsum(rng.normal(0.0, 0.01, rows)), 2)
    return QuoteBatch(
        instrument=rng.integers(0, 3, rows).astype(np.int32),
        ts_event=ts - rng.integers(0, 2, rows),
        ts_recv=ts,
        bid=np.where(rng.random(rows) < 0.05, np.nan, bid),
        ask=bid + 0.01,
        bid_size=np.where(rng.random(rows) < 0.1, np.nan, 5.0).astype(np.float32),
        ask_size=np.full(rows, 7, dtype=np.float32),
    )


async def played(path: Path, universe: Universe = UNIVERSE, *, rows: int = 100, **more: Any) -> QuoteBatch:
    feed = ColumnFeed(ColumnOptions(path=str(path), batch_rows=rows), **more)
    feed.bind(universe)
    async with feed:
        found = [batch async for batch in feed.events()]
    assert all(isinstance(batch, QuoteBatch) and len(batch) <= rows for batch in found)
    assert feed.report().quotes == sum(map(len, found))  # type: ignore[arg-type]  # checked above
    assert feed.report().files
    parts = {name: np.concatenate([getattr(batch, name) for batch in found]) for name in QuoteBatch.__slots__}
    return QuoteBatch(**parts)


def same(one: QuoteBatch, other: QuoteBatch) -> None:
    for name in QuoteBatch.__slots__:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("rows", [1, 7, 100, 1000])
@pytest.mark.parametrize("kind", ["parquet", "folder"])
async def test_what_is_written_is_played(tmp_path: Path, kind: str, rows: int) -> None:
    """Every column comes back to the bit, whatever the pieces."""
    batch = some(300)
    path = tmp_path / "recording"
    if kind == "parquet":
        assert write_parquet(path, [batch.rows(0, 120), batch.rows(120, 300)], UNIVERSE, group_rows=50) == 300
    else:
        write_folder(path, batch, UNIVERSE)
    same(await played(path, rows=rows), batch)


async def test_another_universe_renumbers_and_leaves_out(tmp_path: Path) -> None:
    """Rows carry the run's own numbers; instruments it does not know are not played, and noted."""
    batch = some(200)
    write_parquet(tmp_path / "x", [batch], UNIVERSE)
    mine = Universe([THREE, TWO, Spot(id="US:ZZZ")])
    found = await played(tmp_path / "x", mine)
    kept = batch.instrument != 0
    np.testing.assert_array_equal(found.bid, batch.bid[kept])
    np.testing.assert_array_equal(found.instrument, batch.instrument[kept] - 1)


async def test_a_wanted_instrument_must_be_there(tmp_path: Path) -> None:
    """A recording without an instrument that is needed is refused by name."""
    write_folder(tmp_path / "x", some(10), Universe([ONE, TWO, THREE]))
    with pytest.raises(DataError, match="US:NNN"):
        await played(tmp_path / "x", wanted=[Spot(id="US:NNN")])


DAMAGE: list[tuple[str, int, float, str]] = [
    ("bid", 7, -1.0, "positive"),
    ("bid", 8, np.inf, "positive"),
    ("bid", 9, 5000.0, "bid <= ask"),
    ("ask", 10, 0.0, "positive"),
    ("ts_recv", 11, 0, "never decrease"),
    ("ts_event", 12, 2**62, "never decrease"),
    ("instrument", 13, 3, "index"),
    ("instrument", 14, -1, "index"),
    ("bid_size", 15, -2.0, "size"),
    ("ask_size", 16, np.inf, "size"),
]


@pytest.mark.parametrize(("name", "row", "value", "said"), DAMAGE)
async def test_a_bad_row_is_named(tmp_path: Path, name: str, row: int, value: float, said: str) -> None:
    """Damage ends the feed with file, row and what was found there, in whatever piece it lies."""
    batch = some(40)
    getattr(batch, name)[row] = value
    write_folder(tmp_path / "x", batch, UNIVERSE)
    with pytest.raises(DataError, match=f"row {row}: .*{said}"):
        await played(tmp_path / "x", rows=4)


@pytest.mark.parametrize("seed", range(20))
def test_the_compiled_check_is_the_plain_one(seed: int) -> None:
    """Both find the same first fault in rows damaged at random."""
    rng = np.random.default_rng(seed)
    batch = some(60, seed)
    for _ in range(int(rng.integers(0, 4))):
        name, _, value, _ = DAMAGE[int(rng.integers(len(DAMAGE)))]
        getattr(batch, name)[int(rng.integers(60))] = value
    args = (batch.instrument, 3, batch.ts_event, batch.ts_recv, START, batch.bid, batch.ask, batch.bid_size,
            batch.ask_size)  # fmt: skip
    assert columns.first_fault()(*args) == columns.first_fault_by_rows(*args)


async def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """A file that is no Parquet, a folder without a column, columns of two lengths and another type are refused."""
    (tmp_path / "text").write_text("no")
    with pytest.raises(DataError, match="Parquet"):
        await played(tmp_path / "text")
    write_folder(tmp_path / "short", some(10), UNIVERSE)
    np.save(tmp_path / "short" / "bid.npy", np.ones(9))
    with pytest.raises(DataError, match="one length"):
        await played(tmp_path / "short")
    np.save(tmp_path / "short" / "bid.npy", np.ones(10, dtype=np.float32))
    with pytest.raises(DataError, match="float64"):
        await played(tmp_path / "short")
    (tmp_path / "short" / "bid.npy").unlink()
    with pytest.raises(DataError, match=r"bid\.npy"):
        await played(tmp_path / "short")


async def test_a_torn_parquet_is_refused(tmp_path: Path) -> None:
    """A file cut short is named, whether its end or its middle is missing."""
    write_parquet(tmp_path / "whole", [some(500)], UNIVERSE)
    (tmp_path / "torn").write_bytes((tmp_path / "whole").read_bytes()[:-30])
    with pytest.raises(DataError, match="torn"):
        await played(tmp_path / "torn")


def test_a_row_is_at_most_48_bytes() -> None:
    """Columns in memory take 44 bytes a quote."""
    batch = some(1000)
    assert sum(getattr(batch, name).nbytes for name in QuoteBatch.__slots__) <= 48 * len(batch)
