"""Room is a bound: nothing inside a box moves the net delta, its slopes or the book's means beyond it; compiled is formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from bot.domain.units import NS_PER_YEAR
from bot.pricing import black, legs
from bot.pricing.room import (
    LEAST_SHARE,
    NO_VOL,
    NO_VOLS,
    Bounds,
    Extent,
    bounds_by_formula,
    bounds_kernel,
    cut,
    extent_within,
)

LEG = st.tuples(
    st.floats(0.5, 1.6),  # strike over spot
    st.floats(1e-4, 3.0),  # years
    st.floats(0.02, 2.0),  # vol
    st.sampled_from([-1.0, 1.0]),
    st.floats(-1e4, 1e4).filter(lambda w: abs(w) > 1e-3),
)
BOOK = st.lists(LEG, min_size=1, max_size=6)
RATE = st.floats(-0.1, 0.2)
SIZE = st.tuples(st.floats(1e-6, 0.05), st.floats(1e-6, 0.05), st.floats(0.0, 0.5))
"""How far a box goes below and above the price, as shares of it, and how long, as a share of the shortest time left."""


def packed_of(book: list[tuple[float, ...]], spot: float) -> np.ndarray:
    strike, tau, vol, cp, weight = (np.array(column) for column in zip(*book, strict=True))
    expiry = np.round(tau * NS_PER_YEAR).astype(np.int64)
    return black.pack_slice(strike=strike * spot, expiry=expiry, vol=vol, cp=cp, weight=weight, epoch=0)


def box_of(packed: np.ndarray, spot: float, size: tuple[float, float, float]) -> tuple[float, float, float]:
    below, above, share = size
    return spot * (1.0 - below), spot * (1.0 + above), share * float(packed[:, 1].min()) / NS_PER_YEAR


def vols_of(packed: np.ndarray, spread: float) -> np.ndarray:
    own = packed[:, 2]
    return np.stack((own, own * (1.0 - spread), own * (1.0 + spread)), axis=1)


@given(BOOK, st.floats(0.01, 1e4), RATE, RATE, SIZE, st.sampled_from([None, 0.0, 0.01, 0.3, 1.0]))
def test_the_compiled_bounds_are_the_formula(
    book: list[tuple[float, ...]],
    spot: float,
    rate: float,
    dividend: float,
    size: tuple[float, float, float],
    spread: float | None,
) -> None:
    """Both forms agree to rounding on any book, with vols that stand still and vols that move."""
    packed = packed_of(book, spot)
    low, high, years = box_of(packed, spot, size)
    vols = NO_VOLS if spread is None else vols_of(packed, spread)
    means = legs.terms_kernel()(spot, 0, packed, rate, dividend)
    args = (low, high, 0, years, packed, vols, rate, dividend, *means)
    fast, slow = (np.clip(found, -1e60, 1e60) for found in (bounds_kernel()(*args), bounds_by_formula(*args)))
    gross = float(np.abs(packed[:, 4]).sum())
    scale = np.array([gross / low, gross / low, gross, gross, gross, gross, *[1.0] * 5])
    np.testing.assert_allclose(fast / scale, slow / scale, rtol=1e-8, atol=1e-12)


def net_move(
    packed: np.ndarray, start: tuple[float, ...], end: tuple[float, ...], market: tuple[float, float]
) -> float:
    """How far the net delta moves between (spot, ns, share of the vols' way up) and another such point."""
    found = []
    for spot, ns, lift in (start, end):
        moved = packed.copy()
        moved[:, 2] *= 1.0 + lift
        found.append(black.slice_kernel()(spot, int(ns), moved, *market)[0])
    return found[1] - found[0]


@settings(max_examples=150)
@given(BOOK, st.floats(0.01, 1e4), RATE, RATE, SIZE, st.sampled_from([0.0, 0.02, 0.5]))
def test_no_move_inside_a_box_passes_its_bounds(
    book: list[tuple[float, ...]],
    spot: float,
    rate: float,
    dividend: float,
    size: tuple[float, float, float],
    spread: float,
) -> None:
    """A search over price, time and vols, its corners first and then downhill, finds no move beyond the bounds."""
    packed = packed_of(book, spot)
    low, high, years = box_of(packed, spot, size)
    b = Bounds(
        *bounds_kernel()(low, high, 0, years, packed, vols_of(packed, spread), rate, dividend, math.nan, math.nan)
    )
    slip = 1e-9 * b.gross

    def excess(point: np.ndarray) -> float:
        """Below zero while the move is within the bounds on both sides."""
        u, v, w = np.clip(point, 0.0, 1.0)
        S, t, lift = low + u * (high - low), v * years, spread * (2.0 * w - 1.0)
        moved = net_move(packed, (spot, 0, 0.0), (S, t * NS_PER_YEAR, lift), (rate, dividend))
        dS, passed = S - spot, int(t * NS_PER_YEAR) / NS_PER_YEAR
        most = max(b.gamma_hi * dS, b.gamma_lo * dS) - b.decay_lo * passed + b.tilt_hi
        least = min(b.gamma_hi * dS, b.gamma_lo * dS) - b.decay_hi * passed + b.tilt_lo
        return max(moved - most, least - moved) - slip

    start = (spot - low) / (high - low)
    grid = [
        np.array([u, v, w]) for u in (0.0, 0.5 * start, start, 1.0) for v in (0.0, 0.4, 1.0) for w in (0.0, 0.5, 1.0)
    ]
    worst = sorted(grid, key=excess)[-2:]
    assert excess(worst[-1]) <= 0.0
    for point in worst:
        found = minimize(lambda p: -excess(p), point, method="Nelder-Mead", options={"maxfev": 40})
        assert excess(found.x) <= 0.0


@settings(max_examples=100)
@given(BOOK, st.floats(0.01, 1e4), RATE, RATE, SIZE, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_gamma_and_the_means_stay_within_their_intervals(
    book: list[tuple[float, ...]],
    spot: float,
    rate: float,
    dividend: float,
    size: tuple[float, float, float],
    u: float,
    v: float,
) -> None:
    """Net gamma, mean tau and mean vol at any point of a box lie where the bounds say."""
    packed = packed_of(book, spot)
    low, high, years = box_of(packed, spot, size)
    means = legs.terms_kernel()(spot, 0, packed, rate, dividend)
    b = Bounds(*bounds_kernel()(low, high, 0, years, packed, NO_VOLS, rate, dividend, *means))
    for S in (low, high, low + u * (high - low)):
        for t in (0.0, v * years, years):
            ns = int(t * NS_PER_YEAR)
            gamma = black.slice_kernel()(S, ns, packed, rate, dividend)[1]
            assert b.gamma_lo - 1e-12 * b.gross / low <= gamma <= b.gamma_hi + 1e-12 * b.gross / low
            tau, vol = legs.terms_kernel()(S, ns, packed, rate, dividend)
            if not math.isnan(b.tau_hi):  # else no leg has gamma, and nothing is said
                assert b.tau_lo * (1 - 1e-9) - 1e-12 <= tau <= b.tau_hi * (1 + 1e-9)
                assert b.vol_lo * (1 - 1e-9) <= vol <= b.vol_hi * (1 + 1e-9)


def test_a_leg_without_vol_stands_still_off_its_strike_only() -> None:
    """A vol of zero bounds a delta where the price cannot reach the strike, and says nothing where it can."""
    packed = black.pack_slice(strike=100.0, expiry=NS_PER_YEAR, vol=0.2, cp=1, weight=50.0, epoch=0)
    still = np.zeros((1, 3))
    away = Bounds(*bounds_kernel()(110.0, 112.0, 0, 0.01, packed, still, 0.0, 0.0, math.nan, math.nan))
    assert max(abs(value) for value in away[:6]) == 0.0
    near = bounds_kernel()(99.0, 101.0, 0, 0.01, packed, still, 0.0, 0.0, math.nan, math.nan)
    assert all(math.isnan(value) for value in near)
    unmoved = np.full((1, 3), NO_VOL)
    any_price = Bounds(*bounds_kernel()(99.0, 101.0, 0, 0.01, packed, unmoved, 0.0, 0.0, math.nan, math.nan))
    assert max(abs(value) for value in any_price[:6]) == 0.0
    assert any_price.gross == 50.0


@pytest.mark.parametrize(
    "change",
    [{"low": math.nan}, {"low": 0.0}, {"low": -1.0}, {"low": 120.0}, {"high": math.inf}, {"years": math.nan},
     {"years": 1.0}, {"years": -1e-9}, {"elapsed": NS_PER_YEAR}, {"vol": 0.0}, {"vol": math.nan}, {"rate": math.nan},
     {"dividend": math.inf}],
)  # fmt: skip
def test_what_is_not_known_is_not_bounded(change: dict[str, float]) -> None:
    """An unknown number, a leg that ends within the box or one without vol leave nothing to say."""
    v = {"low": 99.0, "high": 101.0, "elapsed": 0, "years": 0.1, "vol": 0.2, "rate": 0.0, "dividend": 0.0} | change
    packed = black.pack_slice(strike=100.0, expiry=NS_PER_YEAR, vol=v["vol"], cp=1, weight=100.0, epoch=0)
    args = (v["low"], v["high"], int(v["elapsed"]), v["years"], packed, NO_VOLS, v["rate"], v["dividend"], 0.5, 0.2)
    assert all(math.isnan(x) for x in bounds_kernel()(*args))
    assert all(math.isnan(x) for x in bounds_by_formula(*args))


@given(
    st.floats(-10, 10),
    st.floats(0, 10),
    st.floats(-1e3, 1e3),
    st.floats(0, 1e3),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
)
def test_an_extent_uses_no_more_than_its_room(
    gamma: float, wide: float, decay: float, more: float, up: float, down: float
) -> None:
    """At every corner of the extent the worst slopes move the net delta by no more than the room."""
    b = Bounds(gamma, gamma + wide, decay, decay + more, 0.0, 0.0, *[math.nan] * 4, 1.0)
    tried = Extent(5.0, 5.0, 0.1)
    found = cut(tried, extent_within(b, tried.years, (up, down)))
    slip = 1e-9 * (up + down) + LEAST_SHARE
    for dS in (-found.below, found.above):
        for passed in (0.0, found.years):
            for G in b[:2]:
                for C in b[2:4]:
                    assert -down - slip <= G * dS - C * passed <= up + slip
