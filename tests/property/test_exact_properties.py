"""The exact optimum for any book: scale, bounds, order in cost and aversion, parity, the law of its band."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.pricing import exact

LEG = st.tuples(
    st.sampled_from([-1, 1]),
    st.floats(80.0, 125.0),
    st.sampled_from([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0]),
    st.sampled_from([0.25, 0.25, 0.25, 0.13]),
)
LEGS = st.lists(LEG, min_size=1, max_size=3)
COST = st.floats(0.0, 0.02)
AVERSION = st.floats(0.01, 2.0)
DATES = st.integers(4, 14)

ROUGH = 2e-3
"""On a strike of 100 and few, wide steps: what two grids may differ by."""


def solved(legs: Any, **changes: Any) -> exact.Solution:
    usual = {"spot": 100.0, "vol": 0.2, "tau": 0.25, "cost": 0.002, "risk_aversion": 0.5, "dates": 12}
    return exact.solve(legs, **(usual | changes))


@settings(max_examples=15, deadline=None)
@given(legs=LEGS, cost=COST, g=AVERSION, dates=DATES, scale=st.sampled_from([0.01, 50.0]))
def test_only_scale_free_numbers_matter(legs: Any, cost: float, g: float, dates: int, scale: float) -> None:
    """Spot and strikes in other units with the aversion in theirs: the price scales and the bands stay."""
    one = solved(legs, cost=cost, risk_aversion=g, dates=dates)
    moved = [(cp, strike * scale, quantity, tau) for cp, strike, quantity, tau in legs]
    other = solved(moved, spot=100.0 * scale, cost=cost, risk_aversion=g / scale, dates=dates)
    assert abs(other.price / scale - one.price) < 1e-8 * (1.0 + abs(one.price))
    if cost > 1e-4:
        assert np.allclose(other.band(1, 97.0 * scale), one.band(1, 97.0), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(legs=LEGS, cost=COST, g=AVERSION, more=st.floats(1.2, 3.0))
def test_dearer_and_more_averse_ask_more(legs: Any, cost: float, g: float, more: float) -> None:
    """The price never falls with the cost or with the aversion of who writes."""
    one = solved(legs, cost=cost, risk_aversion=g).price
    assert solved(legs, cost=min(more * cost, 0.5), risk_aversion=g).price >= one - ROUGH
    assert solved(legs, cost=cost, risk_aversion=more * g).price >= one - ROUGH


@settings(max_examples=15, deadline=None)
@given(legs=LEGS, cost=COST, g=AVERSION, spot=st.floats(70.0, 140.0), date=st.integers(0, 11))
def test_the_band_lies_within_the_books_deltas(legs: Any, cost: float, g: float, spot: float, date: int) -> None:
    """lo <= hi, both within the deltas the book can have; targets lie between them; arrays answer as floats do."""
    found = solved(legs, cost=cost, risk_aversion=g, fixed_cost=0.01)
    lo, hi = found.band(date, spot)
    up, down = found.targets(date, spot)
    least, most = found.holdings
    assert least - 1e-12 <= lo <= up + 1e-12
    assert up <= down + 1e-9
    assert down - 1e-12 <= hi <= most + 1e-12
    many = found.band(np.array([date, 0]), np.array([spot, 100.0]))
    assert (many[0][0], many[1][0]) == (lo, hi)


@settings(max_examples=20, deadline=None)
@given(strike=st.floats(85.0, 115.0), g=AVERSION, quantity=st.sampled_from([-1.0, 1.0]))
def test_parity_without_cost(strike: float, g: float, quantity: float) -> None:
    """Without costs a call is a put and a forward: the forward is hedged for nothing, at any aversion."""
    call = solved([(1, strike, quantity)], cost=0.0, risk_aversion=g).price
    put = solved([(-1, strike, quantity)], cost=0.0, risk_aversion=g).price
    assert abs(call - put + quantity * (100.0 - strike)) < ROUGH


@settings(max_examples=15, deadline=None)
@given(legs=LEGS, cost=COST, g=AVERSION)
def test_a_book_and_its_netted_twin_are_one(legs: Any, cost: float, g: float) -> None:
    """A leg split in two is the same book."""
    halves = [(cp, strike, 0.5 * quantity, tau) for cp, strike, quantity, tau in legs for _ in range(2)]
    one, other = (solved(book, cost=cost, risk_aversion=g).price for book in (legs, halves))
    assert abs(one - other) < 1e-9 * (1.0 + abs(one))


@settings(max_examples=8, deadline=None)
@given(legs=LEGS, cost=COST, g=AVERSION, dates=st.integers(2, 8))
def test_compiled_equals_readable(legs: Any, cost: float, g: float, dates: int) -> None:
    """The compiled steps give the price of the readable ones on any book."""
    problem = exact.problem_of(
        legs, spot=100.0, vol=0.2, tau=0.25, cost=cost, risk_aversion=g, dates=dates, fixed_cost=0.01 * (dates % 2)
    )
    fast = exact.solve_problem(problem, columns=60).price
    slow = exact.solve_problem(problem, columns=60, steps=exact.READABLE).price
    assert abs(fast - slow) < 1e-9 * (1.0 + abs(slow))


@settings(max_examples=20, deadline=None)
@given(
    legs=LEGS,
    cost=st.floats(0.0, 0.05),
    gS=st.floats(-3.0, 4.7),
    vol=st.floats(0.03, 1.5),
    tau=st.floats(0.26, 3.0),
    dates=st.integers(1, 12),
    lot=st.sampled_from([0.0, 0.25]),
    fee=st.sampled_from([0.0, 0.1]),
)
def test_extremes_stay_finite(
    legs: Any, cost: float, gS: float, vol: float, tau: float, dates: int, lot: float, fee: float
) -> None:
    """From next to no aversion to one that only looks at the farthest move, price and bands are finite and ordered."""
    found = solved(
        legs, cost=cost, risk_aversion=10.0**gS / 100.0, vol=vol, tau=tau, dates=dates, lot=lot, fixed_cost=fee
    )
    assert np.isfinite(found.price)
    assert np.all(np.isfinite([found.low, found.buy, found.sell, found.high]))
    assert np.all(found.low <= found.high)
