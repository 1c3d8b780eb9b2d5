"""A daemon left alone: hours of ticks over a line, its memory, threads and files watched, both ledgers compared at the end.

    python benchmarks/soak.py --minutes 60 --rate 500 --cut-every 300 --out soak.json

The feed's and venue's connections are cut every `--cut-every` seconds. It prints one JSON object: Theil-Sen slopes with their
95% bounds after a warm-up, and what was lost, repeated or undecided (nothing, if all is well; exit code 1 otherwise).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scipy.stats import theilslopes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.faults.stage import Stage, compare

MIB = 1 << 20


def look(pid: int) -> dict[str, float]:
    """Resident bytes, threads and open files of a process."""
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        if ":" in line
    )
    return {
        "rss_mib": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


def slope(hours: list[float], values: list[float]) -> dict[str, float]:
    """Theil-Sen slope per hour with its 95% bounds (Sen, 1968)."""
    found = theilslopes(values, hours, 0.95)
    return {"per_hour": round(found.slope, 4), "low": round(found.low_slope, 4), "high": round(found.high_slope, 4)}


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warm-up", type=float, default=15.0, help="minutes left out of the slopes")
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument(
        "--cut-every", type=float, default=300.0, help="seconds between cuts of the connections, 0 for none"
    )
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    samples: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        words = ["--rate", str(arguments.rate), "--cut-every", str(arguments.cut_every), "--vol", "3.0"]
        with Stage(Path(folder), *words) as stage:
            daemon = stage.start()
            stage.wait_ready()
            began = time.monotonic()
            while time.monotonic() - began < arguments.minutes * 60.0:
                time.sleep(min(10.0, arguments.minutes * 6.0))
                if daemon.poll() is not None:
                    print(stage.log()[-3000:], file=sys.stderr)
                    return 1
                samples.append({"hours": (time.monotonic() - began) / 3600.0, **look(daemon.pid)})
                if len(samples) % 30 == 0:
                    print(f"{samples[-1]['hours'] * 60:.0f} min: {samples[-1]}", file=sys.stderr, flush=True)
            status = stage.status()
            stage.settle()
            code = stage.stop()
            books, fills = compare(stage), len(stage.ledger().fills)
    kept = [s for s in samples if s["hours"] * 60.0 >= arguments.warm_up] or samples
    hours = [s["hours"] for s in kept]
    faults = [*books.lost, *books.repeated, *books.invented, *books.undecided]
    document = {
        "minutes": round(samples[-1]["hours"] * 60.0, 1),
        "rate": arguments.rate,
        "ticks": status["counts"].get("fed", 0),
        "records": status["records"],
        "fills": fills,
        "cuts": status["counts"].get("task failed", 0),
        "commit_ms": status["commit_ms"],
        "rss_mib": {
            "first": kept[0]["rss_mib"],
            "last": kept[-1]["rss_mib"],
            **slope(hours, [s["rss_mib"] for s in kept]),
        },
        "threads": slope(hours, [s["threads"] for s in kept]),
        "files": slope(hours, [s["files"] for s in kept]),
        "exit_code": code,
        "faults": faults,
        "position": [str(books.ours), str(books.theirs)],
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    text = json.dumps(document, indent=1)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n", encoding="utf-8")
    return 0 if not faults and code == 0 and books.ours == books.theirs else 1


if __name__ == "__main__":
    sys.exit(main())
