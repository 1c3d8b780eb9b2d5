"""Quotes a second through the engine from a Parquet file larger than memory; law: every row is read, checked and folded.

A seeded random walk of one stock (at most 8,000,000 distinct rows, tiled), one quote each 10 ms, written once as zstd Parquet
columns; then streamed from the file through the feed into the engine on one thread: ten options, a band hedger whose band is
wide enough that it trades now and then, three accounts, journal and limits as in `replay.py`. Prints one JSON object.

    python benchmarks/stream.py [--ticks 100000000] [--distinct 8000000] [--band 500] [--file FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adapters.columns import ColumnFeed, ColumnOptions, write_parquet_of
from benchmarks.replay import START, build, peak_rss_mb, quotes
from bot.domain.market import QuoteBatch
from bot.engine.journal import Header, JournalWriter

STEP = 10_000_000
GROUP = 1 << 19


def tiled(ticks: int, distinct: int, seed: int) -> Iterator[QuoteBatch]:
    """The walk and back again, as often as it takes: no price jumps where a tile ends."""
    base = quotes(min(distinct, ticks), seed)
    forth = True
    for start in range(0, ticks, len(base)):
        rows = min(len(base), ticks - start)
        ts = START + np.arange(start, start + rows, dtype=np.int64) * STEP
        order = (
            slice(0, rows) if forth else slice(len(base) - 1, len(base) - 1 - rows if rows < len(base) else None, -1)
        )
        yield QuoteBatch(
            ts_event=ts,
            ts_recv=ts,
            **{name: getattr(base, name)[order] for name in ("instrument", "bid", "ask", "bid_size", "ask_size")},
        )
        forth = not forth


def write(path: Path, args: argparse.Namespace) -> None:
    """Write the recording in a process of its own, so that its memory is not counted."""
    loop = build("quiet", JournalWriter(None, Header(run_id="", config_hash="", release="", durability="replay")),
                 band=args.band, fee_bps=1.0)  # fmt: skip
    ids = [item.id for item in loop.universe]
    write_parquet_of(path, tiled(args.ticks, args.distinct, args.seed), ids, group_rows=GROUP)


async def stream(path: Path, args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """One replay of the file: seconds, rows, memory."""
    header = Header(run_id="stream", config_hash="", release="", durability="replay")
    with JournalWriter(folder / "journal", header) as journal:
        loop = build("quiet", journal, band=args.band, fee_bps=1.0)
        feed = ColumnFeed(ColumnOptions(path=str(path)))
        feed.bind(loop.universe)
        async with feed:
            wall, cpu = time.perf_counter(), time.process_time()
            async for event in feed.events():
                loop.take(event, feed.name)
            loop.finish()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rows = feed.report().quotes
    return {
        "ticks": rows,
        "file_bytes": path.stat().st_size,
        "fills": loop.accounts[0].fill_count,
        "woken": getattr(loop.accounts[0].slots[0].strategy, "woken", None),
        "run_s": round(wall, 3),
        "run_cpu_s": round(cpu, 3),
        "million_quotes_per_s": round(rows / wall / 1e6, 2),
        "million_quotes_per_cpu_s": round(rows / cpu / 1e6, 2),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def main() -> None:
    """Write the file if it is not there, stream it, print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ticks", type=int, default=100_000_000)
    parser.add_argument("--distinct", type=int, default=8_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--band", type=float, default=500.0)
    parser.add_argument("--file", type=Path, help="where the recording is, or is put")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.file or Path(folder) / "quotes.parquet"
        if not path.exists():
            child = os.fork()
            if not child:
                write(path, args)
                os._exit(0)
            if os.waitpid(child, 0)[1]:
                raise SystemExit(f"{path}: could not be written")
        print(json.dumps(asyncio.run(stream(path, args, Path(folder)))))


if __name__ == "__main__":
    main()
