"""Time and error of the exact optimum at 252 dates, book by book, and of a rule's score on the lattice.

CPU seconds of one thread, median of repeats; error of the price and the opening band against twice the rows and four times
the columns in the same run. Prints one JSON document.

    python benchmarks/exact.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from bot.pricing import exact

MARKET: dict[str, Any] = {"spot": 100.0, "vol": 0.2, "tau": 0.25, "dates": 252}
BOOKS: dict[str, dict[str, Any]] = {
    "call 5bp g=0.1": {"legs": [(1, 100, -1)], "cost": 0.0005, "risk_aversion": 0.1},
    "call 20bp g=1": {"legs": [(1, 100, -1)], "cost": 0.002, "risk_aversion": 1.0},
    "call 100bp g=1": {"legs": [(1, 100, -1)], "cost": 0.01, "risk_aversion": 1.0},
    "call 20bp g=10": {"legs": [(1, 100, -1)], "cost": 0.002, "risk_aversion": 10.0},
    "spread 95/105": {"legs": [(1, 95, -1), (1, 105, 1)], "cost": 0.002, "risk_aversion": 1.0},
    "short straddle": {"legs": [(1, 100, -1), (-1, 100, -1)], "cost": 0.002, "risk_aversion": 1.0},
    "butterfly": {"legs": [(1, 90, 1), (1, 100, -2), (1, 110, 1)], "cost": 0.002, "risk_aversion": 1.0},
    "three expiries": {
        "legs": [(1, 100, -1), (1, 100, 1, 0.125), (-1, 95, -1, 0.2)], "cost": 0.002, "risk_aversion": 1.0,
    },
    "ten strikes": {
        "legs": [(1 if k >= 100 else -1, k, -1) for k in range(78, 123, 5)], "cost": 0.002, "risk_aversion": 1.0,
    },
    "call with a ticket fee": {"legs": [(1, 100, -1)], "cost": 0.002, "risk_aversion": 1.0, "fixed_cost": 0.05},
    "call in lots of 0.05": {"legs": [(1, 100, -1)], "cost": 0.002, "risk_aversion": 1.0, "lot": 0.05},
}  # fmt: skip


def median(run: Callable[[], object], repeats: int) -> float:
    """CPU seconds of a run, the median of repeats."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    exact.solve([(1, 100, -1)], cost=0.002, risk_aversion=1.0, **(MARKET | {"dates": 2}))
    table: dict[str, dict[str, float]] = {}
    for name, book in BOOKS.items():
        problem = exact.problem_of(**(MARKET | book))
        found = exact.solve_problem(problem)
        fine = exact.solve_problem(problem, per_step=2 * exact.PER_STEP, columns=800)
        lo, hi = found.band(0, 100.0)
        lo_fine, hi_fine = fine.band(0, 100.0)
        table[name] = {
            "seconds": round(median(lambda problem=problem: exact.solve_problem(problem), repeats), 4),
            "price": round(found.price, 5),
            "price_error": round(abs(found.price - fine.price), 7),
            "band_error": round(max(abs(lo - lo_fine), abs(hi - hi_fine)), 5),
        }
    problem = exact.problem_of(**(MARKET | BOOKS["call 20bp g=1"]))
    daily = exact.interval_rule(problem, 4)
    score = {
        "seconds": round(median(lambda: exact.evaluate(problem, daily), 1), 3),
        "daily": round(exact.evaluate(problem, daily), 5),
    }
    print(json.dumps({"books": table, "score of daily hedging": score}, indent=2))


if __name__ == "__main__":
    main()
