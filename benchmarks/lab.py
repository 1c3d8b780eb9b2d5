"""How fast policies are scored, against pfhedge in the same run, and how well two processes share a sweep.

    python benchmarks/lab.py [--paths 65536] [--repeats 5] [--peer PYTHON_WITH_PFHEDGE]

A policy-path-step is one policy deciding on one path at one date. Times are processor seconds of this process where one
worker works, wall seconds where several do; the median of repeats is given. pfhedge (with torch) is a peer this project does
not need: without it its line says so.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bot.core.ports import HedgePolicy
from bot.lab import scenarios, scorer, sweep
from bot.lab.engine_runs import engine_path, solved_once
from bot.lab.problem import Problem
from strategies.policies.delta_band import DeltaBand
from strategies.policies.exact_band import ExactBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.leland_delta import LelandDelta
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline

CALL = Problem(legs=((1, 100.0, -1.0),), spot=100.0, vol=0.2, cost=0.002, dates=252, risk_aversion=1.0, tau=0.25)


def table() -> dict[str, list[HedgePolicy]]:
    """The policies by kind."""
    return {
        "none, static": [NoHedge(), StaticHedge()],
        "fixed interval": [FixedInterval(interval=k * CALL.step) for k in (1, 2, 4, 8, 16, 32, 64)],
        "delta band": [DeltaBand(half_width=h, to=to) for h in (0.02, 0.05, 0.1, 0.15) for to in ("edge", "centre")],
        "Whalley-Wilmott": [
            WhalleyWilmott(risk_aversion=g, to=to) for g in (0.1, 0.3, 1.0) for to in ("edge", "centre")
        ],
        "exact band": [ExactBand(risk_aversion=1.0)],
        "own deltas: Leland, Zakamouline": [LelandDelta(interval=4 * CALL.step), Zakamouline(risk_aversion=1.0)],
    }


def median(repeats: int, clock: Callable[[], float], work: Callable[[], object]) -> float:
    """The median time of the work by a clock, after one run that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(clock() - began)
    return statistics.median(times)


def rate(policies: Mapping[str, HedgePolicy], drawn: scenarios.Scenarios, repeats: int, workers: int) -> float:
    """Policy-path-steps a second."""
    clock = time.process_time if workers == 1 else time.perf_counter
    seconds = median(repeats, clock, lambda: scorer.run(policies, CALL, drawn, workers=workers))
    return len(policies) * drawn.n_paths * CALL.dates / seconds


def ready(policies: list[HedgePolicy]) -> dict[str, HedgePolicy]:
    """The policies with what they solve solved, so that scoring alone is timed."""
    return {policy.name: scorer.prepared(solved_once(policy), CALL) for policy in policies}


def pfhedge_rate(paths: int, repeats: int, python: str) -> float | None:
    """pfhedge's policy-path-steps a processor second, by an interpreter that has it; None where none has."""
    peer = Path(__file__).with_name("peer_pfhedge.py")
    command = [python, str(peer), "--paths", str(paths), "--repeats", str(repeats)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(answer.stdout.split()[-1]) if answer.returncode == 0 else None


def task(arguments: Mapping[str, Any]) -> float:
    """A point of the sweep: the mean cost of a band."""
    drawn = scenarios.of_problem(CALL, n_paths=98_304, seed=int(arguments["seed"]), purpose="tune")
    losses = scorer.run([DeltaBand(half_width=float(arguments["half_width"]))], CALL, drawn)
    return float(losses.outcomes[0].costs.mean())


def sweep_seconds(workers: int) -> float:
    """Wall seconds of a sweep of 24 points, the workers' start counted."""
    points = sweep.grid({"half_width": [0.02, 0.04, 0.06, 0.08], "seed": [1, 2, 3, 4, 5, 6]})
    began = time.perf_counter()
    sweep.sweep("benchmarks.lab:task", points, executor="processes", workers=workers)
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", default=sys.executable, help="an interpreter that has pfhedge and torch")
    parser.add_argument("--no-sweep", action="store_true")
    asked = parser.parse_args()
    drawn = scenarios.of_problem(CALL, n_paths=asked.paths, seed=1).kept()
    kinds = table()
    print(f"{asked.paths} paths of {CALL.dates} dates; million policy-path-steps a second, deltas shared within a line")
    for kind, policies in kinds.items():
        print(f"  {kind:34s} {len(policies):3d} policies  {rate(ready(policies), drawn, asked.repeats, 1) / 1e6:8.0f}")
    plain = ready([p for kind, policies in kinds.items() if not kind.startswith("own") for p in policies])
    everything = ready([p for policies in kinds.values() for p in policies])
    one, two = rate(plain, drawn, asked.repeats, 1), rate(plain, drawn, asked.repeats, 2)
    print(f"  {'all at the model delta':34s} {len(plain):3d} policies  {one / 1e6:8.0f}   two workers {two / 1e6:.0f}")
    one_all = rate(everything, drawn, asked.repeats, 1)
    two_all = rate(everything, drawn, asked.repeats, 2)
    print(f"  {'all':34s} {len(everything):3d} policies  {one_all / 1e6:8.0f}   two workers {two_all / 1e6:.0f}")
    peer = pfhedge_rate(min(asked.paths, 16_384), asked.repeats, asked.peer)
    if peer is None:
        print("  pfhedge: not installed (pip install pfhedge torch)")
    else:
        print(f"  pfhedge, Whalley-Wilmott, one thread {peer / 1e6:.2f}: ours on one / its {one / peer:.0f}x")
    paths = scenarios.of_problem(CALL, n_paths=20, seed=2).paths
    for policy in (NoHedge(), DeltaBand(half_width=0.05), solved_once(ExactBand(risk_aversion=1.0))):
        engine_path(policy, CALL, paths[0])
        began = time.process_time()
        for path in paths:
            engine_path(policy, CALL, path)
        print(f"  event engine, {policy.name}: {20 * 60 / (time.process_time() - began):.0f} paths a minute")
    if not asked.no_sweep:
        alone, shared = sweep_seconds(1), sweep_seconds(2)
        print(f"  sweep of 24 points: one worker {alone:.2f} s, two {shared:.2f} s: {alone / shared:.2f}x")


if __name__ == "__main__":
    main()
