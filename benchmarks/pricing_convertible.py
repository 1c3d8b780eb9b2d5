"""Convertibles beside QuantLib's binomial engine, in one run: time a bond, error against "high", and what Greeks cost.

python benchmarks/pricing_convertible.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  it has no stubs; the name of its own examples

from bot.domain.convertible import Call, ConvertibleTerms, Put
from bot.pricing import convertible

SPOTS = np.array([70.0, 85.0, 100.0, 115.0])
TERMS = ConvertibleTerms(
    maturity=5.0,
    ratio=1.0,
    coupons=tuple((float(k), 4.0) for k in range(1, 6)),
    converter_keeps_coupon=False,
)
FULL = ConvertibleTerms(
    maturity=5.0,
    ratio=1.0,
    coupons=TERMS.coupons,
    calls=(Call(start=2.0, end=5.0, price=110.0),),
    puts=(Put(start=3.0, end=3.0, price=105.0),),
)
MARKET: dict[str, Any] = {"vol": 0.25, "rate": 0.05, "dividend": 0.02}


def peer(steps: int) -> Callable[[], list[float]]:
    """QuantLib's bonds at SPOTS without a spread, where its model and ours are one."""
    today = ql.Date(1, 1, 2020)
    ql.Settings.instance().evaluationDate = today
    count = ql.Actual365Fixed()
    bonds = []
    for spot in SPOTS:
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(ql.SimpleQuote(float(spot))),
            ql.YieldTermStructureHandle(ql.FlatForward(today, MARKET["dividend"], count)),
            ql.YieldTermStructureHandle(ql.FlatForward(today, MARKET["rate"], count)),
            ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), MARKET["vol"], count)),
        )
        schedule = ql.Schedule([today + 365 * k for k in range(6)])
        exercise = ql.AmericanExercise(today, today + 365 * 5)
        rights = ql.CallabilitySchedule()
        bond = ql.ConvertibleFixedCouponBond(exercise, 1.0, rights, today, 0, [0.04], count, schedule, 100.0)
        bond.setPricingEngine(ql.BinomialCRRConvertibleEngine(process, steps, ql.QuoteHandle(ql.SimpleQuote(0.0))))
        bonds.append(bond)

    def values() -> list[float]:
        for bond in bonds:
            bond.recalculate()
        return [float(bond.NPV()) for bond in bonds]

    return values


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of CPU seconds of one call."""
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return float(np.median(taken))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=7)
    repeats = options.parse_args().repeats
    convertible.warmup()

    def ours(accuracy: Any, **more: Any) -> np.ndarray:
        return convertible.price(SPOTS, TERMS, **MARKET, model="tf", accuracy=accuracy, greeks=False, **more).price

    truth = ours("high")
    report: dict[str, Any] = {"bonds_in_one_call": len(SPOTS)}
    for accuracy in ("fast", "default", "high"):
        taken = seconds(lambda chosen=accuracy: ours(chosen), repeats)
        report[f"ours_{accuracy}"] = {"ms": 1e3 * taken, "error": float(np.abs(ours(accuracy) - truth).max())}
    for steps in (201, 801):
        values = peer(steps)
        report[f"quantlib_crr_{steps}"] = {
            "ms": 1e3 * seconds(values, repeats),
            "error": float(np.abs(np.array(values()) - truth).max()),
        }
    for model in ("tf", "afv"):
        rest: dict[str, Any] = {**MARKET, "hazard": 0.02, "equity_drop": 1.0, "model": model}
        report[f"call_and_put_{model}"] = {
            "price_ms": 1e3 * seconds(lambda m=rest: convertible.price(SPOTS, FULL, **m, greeks=False), repeats),
            "all_greeks_ms": 1e3 * seconds(lambda m=rest: convertible.price(SPOTS, FULL, **m), repeats),
        }
    kept = convertible.grid(FULL, **MARKET, hazard=0.02)
    report["read_one_spot_us"] = 1e6 * seconds(lambda: [kept.read(101.0) for _ in range(200)], repeats) / 200
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
