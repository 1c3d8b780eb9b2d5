"""A recorded day with a hundred options re-marked each minute: seconds of the replay after its files are read.

The ES March 2020 options and their future on 2020-01-05 and -06 from LEAN's Data folder (EVENKEEL_DATA): the hundred options
with the most quotes are held, ten of each, long and short in turn; vols are implied from their quotes each minute, the net
delta is kept within a band. Three accounts, journal on a file. Prints one JSON object.

    EVENKEEL_DATA=... python -m benchmarks.real_day [--options 100] [--band 100]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.replay import peak_rss_mb
from bot.app import wiring
from bot.app.config import load_config

HERE = Path(__file__).parent
NAME = re.compile(r"_(call|put)_(\d+)_(\d{8})\.csv$")
POLICY = '[strategies.policy]\nkind = "delta_band"\nhalf_width = {band}\nto = "edge"\n'


def most_quoted(root: Path, count: int) -> list[tuple[str, int]]:
    """(call or put, strike) of the options with the longest files, in order of strike."""
    found: dict[tuple[str, int], int] = {}
    for path in sorted((root / "futureoption/cme/minute/es/202003").glob("*_quote_american.zip")):
        with zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                seen = NAME.search(item.filename)
                if seen is not None:
                    key = seen[1], int(seen[2]) // 10_000
                    found[key] = found.get(key, 0) + item.file_size
    chosen = sorted(found, key=lambda key: (-found[key], key))[:count]
    return sorted(chosen, key=lambda key: (key[1], key[0]))


def write_config(folder: Path, root: Path, *, options: int, band: float) -> Path:
    """The example's config with this book and band."""
    text = (HERE.parent / "config/es_day.toml").read_text(encoding="utf-8")
    text = re.sub(r"\[strategies\.policy\]\n(?:\w.*\n)+", POLICY.format(band=band), text)
    text = text.replace("[session]\n", '[session]\nbegin = "immediate"\n')
    text = text.replace('file = "books/es_call.csv"', f'file = "{(folder / "book.csv").as_posix()}"')
    lines = ["underlying,type,cp,strike,expiry,settlement,multiplier,currency,quantity,vol"]
    for i, (cp, strike) in enumerate(most_quoted(root, options)):
        lines.append(f"ES,future_option,{cp},{strike},2020-03-20,physical,50,USD,{10 if i % 2 else -10},0.15")
    (folder / "book.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "day.toml"
    path.write_text(text, encoding="utf-8")
    return path


async def play(path: Path, folder: Path) -> dict[str, Any]:
    """Read everything, then replay it."""
    run = wiring.assemble(load_config(path), journal=folder / "journal")
    loop = run.loop
    (feed,) = run.feeds
    async with feed:
        began = time.process_time()
        events = [event async for event in feed.events()]
        read = time.process_time() - began
    with run.journal:
        wall, cpu = time.perf_counter(), time.process_time()
        for event in events:
            loop.take(event, feed.name)
        loop.finish()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    began = time.process_time()
    loop.sampler.table()
    table = time.process_time() - began
    return {
        "options": len(run.book.lines) if hasattr(run.book, "lines") else len(loop.openings),
        "rows": loop.tape.rows,
        "fills": loop.accounts[0].fill_count,
        "samples": len(loop.sampler),
        "read_cpu_s": round(read, 3),
        "run_s": round(wall, 3),
        "run_cpu_s": round(cpu, 3),
        "sample_table_cpu_s": round(table, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def main() -> None:
    """Print the measurements; the first of two replays is the warm-up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--options", type=int, default=100)
    parser.add_argument("--band", type=float, default=100.0)
    args = parser.parse_args()
    root = Path(os.environ.get("EVENKEEL_DATA", "")).expanduser()
    if not (root / "futureoption").is_dir():
        raise SystemExit("EVENKEEL_DATA: expected LEAN's Data folder, with futureoption/cme/minute/es/202003")
    found: dict[str, Any] = {}
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            path = write_config(Path(folder), root, options=args.options, band=args.band)
            found = asyncio.run(play(path, Path(folder)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
