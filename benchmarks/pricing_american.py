"""Time and error of an American price, alone and with Greeks, beside QuantLib's QdFp engines in the same run.

Workload: seeded random options on a strike of 100, calls and puts, spot 80-125, 30 days to 3 years, vol 10-60%, rate 2-10%,
yield 0-8%. QuantLib runs as a Python loop over built options whose quotes exist already; its Greeks (delta, gamma, vega) are
four bumped prices through reused quotes. Error is against the "reference" accuracy, which QuantLib's high precision scheme
confirms. One thread, processor time, medians of repeats in which peers and levels take turns, so that a busy machine slows
all alike. Prints one JSON document. Needs QuantLib (the `dev` extra).

    python benchmarks/pricing_american.py [--options 400] [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  it has no stubs; the name of its own examples
from numpy.typing import NDArray

from bot.pricing import american

Array = NDArray[np.float64]

SCHEMES = {
    "qdfp_fast": ql.QdFpAmericanEngine.fastScheme,
    "qdfp_accurate": ql.QdFpAmericanEngine.accurateScheme,
}


def workload(n: int) -> Array:
    """Rows of spot, days, vol, rate, dividend, cp. Shape: (n, 6)."""
    rng = np.random.default_rng(2016)
    return np.column_stack(
        [
            rng.uniform(80.0, 125.0, n),
            rng.integers(30, 1096, n),
            rng.uniform(0.1, 0.6, n),
            rng.uniform(0.02, 0.10, n),
            rng.uniform(0.0, 0.08, n) * (rng.random(n) > 0.2),
            rng.choice([-1.0, 1.0], n),
        ]
    )


class Peer:
    """Built QuantLib options, ready to be priced or bumped by their quotes."""

    def __init__(self, rows: Array, scheme: Any) -> None:
        today = ql.Date(1, 1, 2020)
        ql.Settings.instance().evaluationDate = today
        count = ql.Actual365Fixed()
        self.spots, self.vols, self.options = [], [], []
        for S, days, vol, r, q, cp in rows:
            spot, sigma = ql.SimpleQuote(S), ql.SimpleQuote(vol)
            process = ql.BlackScholesMertonProcess(
                ql.QuoteHandle(spot),
                ql.YieldTermStructureHandle(ql.FlatForward(today, q, count)),
                ql.YieldTermStructureHandle(ql.FlatForward(today, r, count)),
                ql.BlackVolTermStructureHandle(
                    ql.BlackConstantVol(today, ql.NullCalendar(), ql.QuoteHandle(sigma), count)
                ),
            )
            kind = ql.Option.Call if cp > 0 else ql.Option.Put
            option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, 100.0), ql.AmericanExercise(today, today + int(days)))
            option.setPricingEngine(ql.QdFpAmericanEngine(process, scheme()))
            self.spots.append(spot)
            self.vols.append(sigma)
            self.options.append(option)
        self.rows = rows

    def prices(self) -> Array:
        found = []
        for option in self.options:
            option.recalculate()
            found.append(option.NPV())
        return np.array(found)

    def greeks(self) -> None:
        """Price, delta, gamma and vega of each by bumps: four prices."""
        for option, spot, sigma, row in zip(self.options, self.spots, self.vols, self.rows, strict=True):
            S, vol = float(row[0]), float(row[2])
            option.recalculate()
            option.NPV()
            spot.setValue(1.001 * S)
            option.NPV()
            spot.setValue(0.999 * S)
            option.NPV()
            spot.setValue(S)
            sigma.setValue(vol + 1e-4)
            option.NPV()
            sigma.setValue(vol)


def medians(runs: dict[str, Callable[[], object]], repeats: int, n: int) -> dict[str, float]:
    """The median processor time of each run in microseconds an option; the runs take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: float(np.median(taken)) / n * 1e6 for name, taken in times.items()}


def errors(found: Array, truth: Array) -> dict[str, float]:
    """Median, 90% quantile and greatest absolute error."""
    error = np.abs(found - truth)
    quantiles = {"median_error": 0.5, "p90_error": 0.9, "max_error": 1.0}
    return {name: float(f"{np.quantile(error, at):.1e}") for name, at in quantiles.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--options", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    rows = workload(given.options)
    S, days, vol, r, q, cp = rows.T
    columns = (S, 100.0, days / 365.0, vol)
    truth = american.value(*columns, rate=r, dividend=q, cp=cp, accuracy="reference").price
    american.warmup()
    peers = {name: Peer(rows, scheme) for name, scheme in SCHEMES.items()}
    levels: tuple[american.Accuracy, ...] = ("fast", "default", "high")

    def value(level: american.Accuracy) -> Array:
        return american.value(*columns, rate=r, dividend=q, cp=cp, accuracy=level).price

    def full(level: american.Accuracy) -> object:
        return american.price(*columns, rate=r, dividend=q, cp=cp, accuracy=level)

    prices: dict[str, Callable[[], Array]] = {name: peer.prices for name, peer in peers.items()}
    prices |= {level: partial(value, level) for level in levels}
    greeks: dict[str, Callable[[], object]] = {name: peer.greeks for name, peer in peers.items()}
    greeks |= {level: partial(full, level) for level in levels}
    price_us = medians(dict(prices), given.repeats, given.options)
    greeks_us = medians(greeks, given.repeats, given.options)
    table = {
        name: {
            "us_per_price": round(price_us[name], 2),
            "us_per_price_and_greeks": round(greeks_us[name], 2),
            **errors(run(), truth),
        }
        for name, run in prices.items()
    }
    ratios = {
        level: {
            "price": round(price_us["qdfp_fast"] / price_us[level], 2),
            "with_greeks": round(greeks_us["qdfp_fast"] / greeks_us[level], 2),
            "no_worse_p90": table[level]["p90_error"] <= table["qdfp_fast"]["p90_error"],
        }
        for level in levels
    }
    print(json.dumps({"options": given.options, "engines": table, "ratio_to_qdfp_fast": ratios}, indent=2))


if __name__ == "__main__":
    main()
