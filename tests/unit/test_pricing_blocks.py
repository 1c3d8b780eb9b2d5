"""What the five-output kernel does with a block of rows: ordinary ones go a shorter way, which no output may show."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from bot.pricing import black


def _ordinary(seed: int, count: int) -> dict[str, Any]:
    """Rows over the whole range that counts as ordinary, its ends among them."""
    rng = np.random.default_rng(seed)

    def powers(low: float, high: float) -> np.ndarray:
        return np.exp2(np.append(rng.uniform(low, high - 1e-9, count - 2), [low, high - 1e-9]))

    return {
        "spot": rng.permutation(powers(-32.0, 32.0)),
        "strike": rng.permutation(powers(-32.0, 32.0)),
        "tau": rng.permutation(powers(-25.0, 7.0)),
        "vol": rng.permutation(powers(-17.0, 15.0)),
        "cp": rng.choice([-1.0, 1.0], count),
        "rate": rng.uniform(-1.9999, 1.9999, count),
        "dividend": rng.uniform(-1.9999, 1.9999, count),
    }


def _near_the_money(seed: int, count: int) -> dict[str, Any]:
    """Rows whose strike lies within a few deviations of spot, down to a second and up to a vol of 300%."""
    rng = np.random.default_rng(seed)
    tau, vol = np.exp(rng.uniform(-16.0, 3.0, count)), np.exp(rng.uniform(-6.0, 1.0, count))
    spot = np.exp(rng.uniform(-3.0, 9.0, count))
    return {
        "spot": spot,
        "strike": spot * np.exp(rng.normal(0.0, 3.0, count) * np.minimum(vol * np.sqrt(tau), 3.0)),
        "tau": tau,
        "vol": vol,
        "cp": rng.choice([-1.0, 1.0], count),
        "rate": rng.uniform(-0.2, 0.5, count),
        "dividend": rng.uniform(-0.2, 0.5, count),
    }


@pytest.mark.parametrize(
    "rows", [_ordinary(1, 4_000), _near_the_money(2, 4_000)], ids=["whole range", "near the money"]
)
def test_an_ordinary_row_has_the_same_bits_beside_an_odd_one(rows: dict[str, Any]) -> None:
    """Each ordinary contract gets the same bits in a block of ordinary ones and in a block with a row that is none."""
    plain = black.greeks_slice(**rows)
    mixed = {name: np.insert(column, np.arange(0, 4_000, 250), column[0]) for name, column in rows.items()}
    odd = np.arange(0, 4_000, 250) + np.arange(16)
    mixed["strike"][odd] = -1.0
    found = black.greeks_slice(**mixed)
    for with_odd, alone in zip(found, plain, strict=True):
        assert np.isnan(with_odd[odd]).all()
        np.testing.assert_array_equal(np.delete(with_odd, odd), alone)
        assert np.isfinite(alone).all()


def test_what_counts_as_ordinary() -> None:
    """A row is ordinary where every input is in its range, and in no other case, whichever input leaves it."""
    from bot.pricing import kernels  # noqa: PLC0415  the compiler, beside its only use

    good = {"S": 100.0, "K": 90.0, "T": 0.5, "v": 0.2, "c": -1.0, "r": 0.05, "q": -0.01}
    assert kernels.oddity(**good) == 0
    below, above = (lambda x: math.nextafter(x, 0.0)), (lambda x: math.nextafter(x, math.inf))
    inside = {
        "S": [2.0**-32, below(2.0**32)],
        "K": [2.0**-32, below(2.0**32)],
        "T": [2.0**-25, below(2.0**7)],
        "v": [2.0**-17, below(2.0**15)],
        "c": [1.0, -1.0],
        "r": [0.0, -0.0, below(2.0), -below(2.0)],
        "q": [0.0, -0.0, below(2.0), -below(2.0)],
    }
    never = [math.nan, -math.nan, math.inf, -math.inf]
    never_positive = [*never, 0.0, -0.0, -1.0, -100.0, 5e-324, 1e300]
    outside = {
        "S": [*never_positive, below(2.0**-32), 2.0**32],
        "K": [*never_positive, below(2.0**-32), 2.0**32],
        "T": [*never_positive, below(2.0**-25), 2.0**7],
        "v": [*never_positive, below(2.0**-17), 2.0**15],
        "c": [*never, 0.0, below(1.0), above(1.0), -above(1.0), 2.0],
        "r": [*never, 2.0, -2.0, 1e300],
        "q": [*never, 2.0, -2.0, 1e300],
    }
    for name in good:
        assert all(kernels.oddity(**{**good, name: value}) == 0 for value in inside[name]), name
        assert all(kernels.oddity(**{**good, name: value}) != 0 for value in outside[name]), name


def test_tails_over_densities() -> None:
    """N(-d) / phi(d) has a relative error below 8e-16 from 0 to the far tail, one alone and two by one division."""
    from bot.pricing import elementary  # noqa: PLC0415  the compiler, beside its only use

    rng = np.random.default_rng(5)
    points = np.concatenate([[0.0, 5e-324, 1e-9], rng.uniform(0.0, 8.0, 600), np.exp(rng.uniform(-6.0, 4.0, 300))])
    with mp.workdps(40):
        for d in points.tolist():
            exact = mp.sqrt(mp.pi / 2) * mp.erfc(mp.mpf(d) / mp.sqrt(2)) * mp.exp(mp.mpf(d) ** 2 / 2)
            pair = elementary.two_tail_ratios(d, d + 0.25)
            for found in (elementary.tail_ratio(d), pair[0], elementary.two_near_tail_ratios(7.5, d)[1]):
                assert abs(found / exact - 1) < 8e-16, d
    assert elementary.tail_ratio(1e8) == pytest.approx(1e-8, rel=1e-15)
    assert elementary.tail_ratio(math.inf) == elementary.tail_ratio(1e8)
    assert math.isnan(elementary.tail_ratio(math.nan))
