"""The replay benchmarks in one call: both sides interleaved, medians of processor time, a page and a plot.

The peer runs the same job in a process of its own, turn by turn with ours: `--peer` names the script of its side and
`--peer-python` the interpreter that has it (extra `bench`). Without them its columns stay empty. Writes `docs/benchmarks.md`
and `docs/img/benchmarks.svg`.

    python -m benchmarks.suite [--peer FILE --peer-python PYTHON] [--pairs 3] [--stream FILE] [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import scaling

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/benchmarks.md"
PLOT = HERE.parent / "docs/img/benchmarks.svg"


def run(command: list[str]) -> dict[str, Any]:
    """The JSON object a script printed."""
    out = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(out.stdout.strip().splitlines()[-1])
    return found


def ours(*flags: str) -> dict[str, Any]:
    """One of our replays."""
    return run([sys.executable, "-m", "benchmarks.replay", *flags])


class Pairs:
    """Runs of both sides, turn by turn."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args = args
        self._folder = folder

    def play(self, ticks: str, band: str, *, pairs: int, sides: dict[str, list[str]]) -> dict[str, Any]:
        """Median processor seconds of each side, and the beginning of the hash of its fills."""
        flags = ["--ticks", ticks, "--band", band, "--seed", "7"]
        seconds: dict[str, list[float]] = {}
        found: dict[str, Any] = {"hash": {}, "rss": {}, "woken": {}}
        for _ in range(pairs):
            for name, more in sides.items():
                csv = self._folder / f"{name}.csv"
                result = ours(*flags, *more, "--fills", str(csv))
                self._note(found, seconds, name, result, csv)
            if self._args.peer is not None:
                csv = self._folder / "peer.csv"
                peer = [self._args.peer_python, str(self._args.peer), "--mode", "hedger", *flags, "--fills", str(csv)]
                self._note(found, seconds, "peer", run(peer), csv)
        found["cpu_s"] = {name: median(values) for name, values in seconds.items()}
        return found

    @staticmethod
    def _note(
        found: dict[str, Any], seconds: dict[str, list[float]], name: str, result: dict[str, Any], csv: Path
    ) -> None:
        seconds.setdefault(name, []).append(result["run_cpu_s"])
        found["hash"][name] = hashlib.sha256(csv.read_bytes()).hexdigest()[:12]
        found["rss"][name] = result["peak_rss_mb"]
        found["woken"][name] = result.get("woken", 0) / result["ticks"]
        found["fills"] = result["fills"]


def drift() -> dict[str, Any]:
    """A run at band 2 with what its fills cost early and late."""
    return ours("--ticks", "200000", "--band", "2", "--drift")


def machine() -> str:
    """What it ran on."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def draw(curves: dict[str, Any], wide: dict[str, Any]) -> None:
    """The plot: cost against quotes and against options, and both sides' seconds."""
    import matplotlib as mpl  # noqa: PLC0415  only the page needs it

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "evenkeel"
    import matplotlib.pyplot as plt  # noqa: PLC0415  after its backend was chosen

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    for axis, key, label in ((axes[0], "ticks", "quotes"), (axes[1], "options", "options")):
        xs, ys = [int(x) for x in curves[key]], list(curves[key].values())
        axis.loglog(xs, ys, "o-")
        axis.set_xlabel(label)
        axis.set_ylabel("processor seconds")
        axis.set_title(f"exponent {curves[f'exponent_in_{key}']}")
    names = list(wide["cpu_s"])
    axes[2].bar(names, [wide["cpu_s"][name] for name in names])
    axes[2].set_yscale("log")
    axes[2].set_title("1,000,000 quotes, band 50: seconds")
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


HEAD = """\
# Benchmarks

Written by `make bench`. The job, the same on both sides: one stock's seeded walk, one quote a second; ten options at fixed
vols; when the net delta leaves a band a market order brings it to zero at the touch, for a basis point. Ours runs with bus,
limits, a journal on a file (level `replay`, synced at the end), samples each hour and after each fill, and three accounts
unless the dynamic one is alone. Figures are processor seconds, {pairs} that took turns on one machine
that others used too: trust ratios.

Machine: {machine}.

{table}

- Every quote woken (no promises), three accounts: {per_tick:.2f} us a quote with the hedger, {noop:.2f} us with an empty
  handler.
- A fill at band 2 costs {early:.0f} us from the 1,000th to the 11,000th and {late:.0f} us in the last 10,000 of {drift_fills:,}
  (medians, three accounts).
- Of the quotes {live:.2%} wake the hedger where vols move each minute, {still:.3%} at fixed vols.
- By quotes, the dynamic account alone: {ticks}: exponent {in_ticks}.
- By options, 100,000 quotes, the dynamic account alone: {options}: exponent {in_options}.
- From the start of a process to its first tick, kernels cached: {first_cpu:.2f} s of processor, {first_rss:.0f} MB.
"""
STREAM = """\
- {ticks:,} quotes streamed from zstd Parquet ({megabytes:.0f} MB), checked and folded on one thread, {fills:,} fills:
  {million_quotes_per_cpu_s:.1f} million a processor second, {peak_rss_mb:.0f} MB.
"""
DAY = """\
- The ES March 2020 options on 2020-01-06, {options} of them re-marked each minute, {rows:,} rows, {fills:,} fills:
  {run_cpu_s:.2f} s after load.
"""
FOOT = """
![Cost against quotes and options](img/benchmarks.svg)

One script a claim: `benchmarks/replay.py`, `scaling.py`, `stream.py`, `real_day.py` (needs LEAN's Data folder). At band 50
compiled code skips nearly every quote; at band 2 every sixth quote trades, and the cost of a fill is all there is.
"""


def table_of(results: dict[str, Any]) -> str:
    """Both sides, job by job."""
    rows = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for title, key in (("1,000,000 quotes, band 50", "wide"), ("200,000 quotes, band 2", "narrow")):
        found = results[key]
        peer = found["cpu_s"].get("peer")
        for name, seconds in found["cpu_s"].items():
            ratio = "" if peer is None or name == "peer" else f"{peer / seconds:.1f}x"
            woken = "" if name == "peer" else f"{found['woken'][name]:.3%}"
            cells = [title, SIDES[name], f"{seconds:.3f}", f"{found['fills']:,}", f"`{found['hash'][name]}`", ratio]
            rows.append("| " + " | ".join([*cells, woken, f"{found['rss'][name]:.0f}"]) + " |")
    return "\n".join(rows)


def page(results: dict[str, Any]) -> str:
    """The page."""
    curves, drifted, first = results["curves"], results["drift"], results["curves"]["first_tick"]
    text = HEAD.format(
        pairs="one run of each side" if results["pairs"] == 1 else f"medians of {results['pairs']} runs of each side,",
        machine=machine(),
        table=table_of(results),
        per_tick=results["per_tick"] * 1e6,
        noop=results["noop"] * 1e6,
        early=drifted["early_us"],
        late=drifted["late_us"],
        drift_fills=drifted["fills"],
        live=results["live"]["woken"] / results["live"]["ticks"],
        still=results["wide"]["woken"]["all"],
        ticks=", ".join(f"{int(n):,} {s:.3f} s" for n, s in curves["ticks"].items()),
        options=", ".join(f"{int(n):,} {s:.3f} s" for n, s in curves["options"].items()),
        in_ticks=curves["exponent_in_ticks"],
        in_options=curves["exponent_in_options"],
        first_cpu=first["cpu_s"],
        first_rss=first["rss_mb"],
    )
    if results.get("stream"):
        text += STREAM.format(megabytes=results["stream"]["file_bytes"] / 1e6, **results["stream"])
    if results.get("day"):
        text += DAY.format(**results["day"])
    return text + FOOT


COLUMNS = ("side", "seconds", "fills", "sha256 of fills", "peer / ours", "woken", "peak MB")
SIDES = {"all": "three accounts", "alone": "dynamic account alone", "peer": "NautilusTrader 1.221.0"}


def main() -> None:
    """Measure, then write the page and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer", type=Path, default=os.environ.get("EVENKEEL_PEER"))
    parser.add_argument("--peer-python", default=os.environ.get("EVENKEEL_PEER_PYTHON", sys.executable))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--stream", help="stream 100,000,000 quotes from this file, written first if it is not there")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs(args, Path(folder))
        sides = {"all": [], "alone": ["--no-shadow"]}
        results: dict[str, Any] = {
            "pairs": args.pairs,
            "wide": pairs.play("1000000", "50", pairs=args.pairs, sides=sides),
            "narrow": pairs.play("200000", "2", pairs=1 if args.quick else args.pairs, sides={"all": []}),
            "per_tick": median(ours("--path", "per-tick")["run_cpu_s"] for _ in range(args.pairs)) / 1e6,
            "noop": median(ours("--path", "noop")["run_cpu_s"] for _ in range(args.pairs)) / 1e6,
            "live": ours("--live-vols", "--ticks", "200000"),
            "drift": drift(),
            "curves": scaling.measure(quick=args.quick),
        }
    if args.stream:
        results["stream"] = run([sys.executable, "-m", "benchmarks.stream", "--file", args.stream])
    if os.environ.get("EVENKEEL_DATA"):
        results["day"] = run([sys.executable, "-m", "benchmarks.real_day"])
    draw(results["curves"], results["wide"])
    PAGE.write_text(page(results), encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
