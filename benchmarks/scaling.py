"""How the replay's cost grows with quotes and with options, and how long a process takes to its first tick.

Each point is a process of its own running `replay.py` in processor time; a curve's exponent is the slope of its logarithms.
Options beyond ten share out the same gross position over more strikes, so that the book trades about as often. Prints one
JSON object.

    python -m benchmarks.scaling [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
FIRST_TICK = """
import resource, sys, time
from benchmarks.replay import build, pieces
from bot.engine.journal import Header, JournalWriter
journal = JournalWriter(None, Header(run_id="", config_hash="", release="", durability="replay"))
loop = build("quiet", journal, band=50.0, fee_bps=1.0)
loop.take(next(pieces(2, 7)), "bench")
print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def replayed(*flags: str) -> dict[str, Any]:
    """What `replay.py` printed with these flags."""
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.replay", *flags], cwd=HERE.parent, check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(out.stdout)
    return found


def exponent(xs: list[int], ys: list[float]) -> float:
    """The slope of log y against log x."""
    return round(float(np.polyfit(np.log(xs), np.log(ys), 1)[0]), 3)


def first_tick(runs: int) -> dict[str, float]:
    """Processor seconds from the start of a process to its first tick, and its memory then: the median of some."""
    found = []
    for _ in range(runs):
        out = subprocess.run(
            [sys.executable, "-c", FIRST_TICK], cwd=HERE.parent, check=True, capture_output=True, text=True
        )
        found.append([float(x) for x in out.stdout.split()])
    cpu, rss = np.median(found, axis=0)
    return {"cpu_s": round(float(cpu), 3), "rss_mb": round(float(rss), 1)}


def measure(*, quick: bool) -> dict[str, Any]:
    """The curves."""
    ticks = [250_000, 500_000, 1_000_000] if quick else [250_000, 500_000, 1_000_000, 2_000_000, 4_000_000]
    options = [10, 100, 1_000] if quick else [10, 100, 1_000, 10_000]
    by_ticks = [replayed("--ticks", str(n), "--no-shadow")["run_cpu_s"] for n in ticks]
    by_options = [replayed("--ticks", "100000", "--options", str(n), "--no-shadow") for n in options]
    return {
        "ticks": dict(zip(ticks, by_ticks, strict=True)),
        "exponent_in_ticks": exponent(ticks, by_ticks),
        "options": {n: found["run_cpu_s"] for n, found in zip(options, by_options, strict=True)},
        "fills_by_options": {n: found["fills"] for n, found in zip(options, by_options, strict=True)},
        "exponent_in_options": exponent(options, [found["run_cpu_s"] for found in by_options]),
        "first_tick": first_tick(3 if quick else 7),
    }


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    print(json.dumps(measure(quick=parser.parse_args().quick)))


if __name__ == "__main__":
    main()
