"""The totals of a holding: one compiled call, equal to the sums of the readable formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bot.domain.units import NS_PER_DAY
from bot.pricing import black
from bot.pricing.totals import Totals, totals_by_formula, totals_kernel


def holding(rng: np.random.Generator, legs: int) -> black.Array:
    days = rng.choice([0.001, 0.2, 3.0, 40.0, 900.0], size=legs)
    return black.pack_slice(
        strike=rng.uniform(60.0, 150.0, legs),
        expiry=np.asarray(days * NS_PER_DAY, dtype=np.int64),
        vol=rng.uniform(0.02, 1.5, legs),
        cp=rng.choice([-1.0, 1.0], size=legs),
        weight=np.round(rng.normal(0.0, 1000.0, legs)),
        epoch=0,
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_compiled_totals_are_the_formulas(seed: int) -> None:
    """Every sum agrees to rounding of its largest terms, at random rates, yields and instants."""
    rng = np.random.default_rng(seed)
    packed = holding(rng, int(rng.integers(0, 30)))
    rate, dividend = (float(x) for x in rng.uniform(-0.05, 0.1, 2))
    if seed % 3 == 0:
        dividend = rate  # on a future
    elapsed = int(rng.choice([0, NS_PER_DAY // 10, 2 * NS_PER_DAY]))
    spot = float(rng.uniform(70.0, 130.0))
    fast = Totals._make(totals_kernel()(spot, elapsed, packed, rate, dividend))
    slow = totals_by_formula(spot, elapsed, packed, rate, dividend)
    single = [totals_by_formula(spot, elapsed, packed[i : i + 1], rate, dividend) for i in range(len(packed))]
    for name in Totals._fields:
        scale = sum(abs(getattr(one, name)) for one in single)
        assert getattr(fast, name) == pytest.approx(getattr(slow, name), rel=1e-12, abs=2e-12 * scale + 1e-12), name


@pytest.mark.parametrize("spot", [math.nan, -1.0, math.inf])
def test_an_unknown_price_is_unknown_totals(spot: float) -> None:
    """Nothing is zero because nobody knows it."""
    packed = holding(np.random.default_rng(1), 3)
    assert all(math.isnan(x) for x in totals_kernel()(spot, 0, packed, 0.0, 0.0))


def test_an_unknown_vol_is_unknown_totals_until_its_expiry() -> None:
    """A live leg without a vol makes all sums NaN; once it has expired it counts for nothing."""
    packed = holding(np.random.default_rng(2), 2)
    packed[0, 1], packed[1, 1] = NS_PER_DAY, 5 * NS_PER_DAY
    packed[0, 2] = math.nan
    assert all(math.isnan(x) for x in totals_kernel()(100.0, 0, packed, 0.0, 0.0))
    assert all(math.isfinite(x) for x in totals_kernel()(100.0, NS_PER_DAY, packed, 0.0, 0.0))


def test_without_vol_the_payoff_is_left() -> None:
    """At no vol the limits hold: no gamma, delta of the payoff, half at the kink, as in the formula."""
    packed = black.pack_slice(
        strike=[90.0, 100.0, 110.0], expiry=NS_PER_DAY, vol=0.0, cp=1, weight=[1.0, 2.0, 4.0], epoch=0
    )
    found = Totals._make(totals_kernel()(100.0, 0, packed, 0.0, 0.0))
    assert (found.delta, found.gamma, found.price) == (2.0, 0.0, 10.0)
    assert found == pytest.approx(totals_by_formula(100.0, 0, packed, 0.0, 0.0), rel=1e-14)
