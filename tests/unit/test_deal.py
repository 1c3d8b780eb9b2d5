"""Deals: what terms are worth, what a price implies, what hedges it and what it may lose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.deals import Collar, DealTerms
from bot.pricing import deal

FIXED_VALUE = Collar(kind="fixed_value", low=90.0, high=110.0, value=30.0)
FIXED_RATIO = Collar(kind="fixed_ratio", low=90.0, high=110.0, ratio=0.3)
TERMS = {
    "cash": DealTerms(cash=30.0),
    "stock": DealTerms(ratio=0.5),
    "mixed": DealTerms(cash=10.0, ratio=0.4),
    "fixed value": DealTerms(cash=5.0, collar=FIXED_VALUE),
    "fixed ratio": DealTerms(ratio=0.1, collar=FIXED_RATIO),
}
PRICES = np.array([50.0, 89.0, 90.0, 95.0, 110.0, 111.0, 180.0])
SIZES = st.floats(1.0, 500.0)


@pytest.mark.parametrize("name", TERMS)
def test_pieces_pay_what_the_terms_say(name: str) -> None:
    """Constants, shares and calls add up to cash and shares at any price of the acquirer at the close."""
    terms = TERMS[name]
    expected = [terms.cash + terms.shares(A) * A for A in PRICES]
    np.testing.assert_allclose(deal.payoff(terms, PRICES), expected, rtol=1e-13)
    np.testing.assert_allclose(deal.offer_value(terms, PRICES, 0.0, vol=0.3).value, expected, rtol=1e-13)


def test_collars_hold_what_they_fix_and_end_where_they_say() -> None:
    """Inside, a fixed value is a value and a fixed ratio a ratio; outside each becomes the other, without a jump."""
    value, ratio = DealTerms(collar=FIXED_VALUE), DealTerms(collar=FIXED_RATIO)
    assert deal.payoff(value, [90.0, 100.0, 110.0]).tolist() == pytest.approx([30.0, 30.0, 30.0])
    assert deal.payoff(value, [45.0, 220.0]).tolist() == pytest.approx([15.0, 60.0])
    assert deal.payoff(ratio, [90.0, 100.0, 110.0]).tolist() == pytest.approx([27.0, 30.0, 33.0])
    assert deal.payoff(ratio, [45.0, 220.0]).tolist() == pytest.approx([27.0, 33.0])


@pytest.mark.parametrize("name", TERMS)
def test_values_are_discounted_expectations(name: str) -> None:
    """PV is e^(-r tau) times the mean payoff under the acquirer's log-normal, by Gauss-Hermite and by a plain sum."""
    terms, tau, vol, rate, dividend = TERMS[name], 0.4, 0.3, 0.05, 0.02
    grid = np.linspace(-9.0, 9.0, 400_001)
    weight = np.exp(-0.5 * grid**2)
    weight /= weight.sum()
    ends = PRICES[:, None] * np.exp((rate - dividend - 0.5 * vol**2) * tau + vol * math.sqrt(tau) * grid)
    expected = math.exp(-rate * tau) * (deal.payoff(terms, ends) * weight).sum(axis=1)
    found = deal.offer_value(terms, PRICES, tau, rate=rate, dividend=dividend, vol=vol)
    np.testing.assert_allclose(found.value, expected, rtol=2e-9)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("tau", [0.01, 0.3, 1.5])
def test_slopes_are_those_of_values(name: str, tau: float) -> None:
    """Delta, gamma and vega are differences of values."""
    terms, market = TERMS[name], {"rate": 0.04, "dividend": 0.01}
    h, dv = 1e-3, 1e-5

    def value(A: Any, vol: float = 0.25) -> Any:
        return deal.offer_value(terms, A, tau, vol=vol, **market).value

    found = deal.offer_value(terms, PRICES, tau, vol=0.25, **market)
    np.testing.assert_allclose(found.delta, (value(PRICES + h) - value(PRICES - h)) / (2 * h), atol=2e-8)
    second = (value(PRICES + h) - 2 * value(PRICES) + value(PRICES - h)) / h**2
    np.testing.assert_allclose(found.gamma, second, atol=2e-6)
    np.testing.assert_allclose(found.vega, (value(PRICES, 0.25 + dv) - value(PRICES, 0.25 - dv)) / (2 * dv), atol=2e-4)


def test_a_fixed_ratio_deal_is_hedged_as_the_formula_says() -> None:
    """h = p ratio + (1 - p) beta S_down / A: a return beta turned into shares."""
    S, A, down, ratio, beta = 47.5, 100.0, 40.0, 0.5, 0.8
    offer = deal.offer_value(DealTerms(ratio=ratio), A, 0.5, rate=0.03)
    assert float(offer.value) == ratio * A
    p = deal.implied_probability(S, offer.value, down)
    assert float(p) == pytest.approx(0.75)
    found = deal.hedge_ratio(p, offer.delta, beta=beta, down=down, acquirer=A)
    assert float(found) == pytest.approx(0.75 * ratio + 0.25 * beta * down / A)


@given(S=SIZES, offer=SIZES, down=SIZES)
def test_a_probability_prices_the_target_back(S: float, offer: float, down: float) -> None:
    """p PV(offer) + (1 - p) S_down is the target's price, wherever an offer beats the break price; else p is unknown."""
    p = float(deal.implied_probability(S, offer, down))
    if offer <= down:
        assert math.isnan(p)
    else:
        assert p * offer + (1.0 - p) * down == pytest.approx(S, rel=1e-9, abs=1e-7 * max(1.0, abs(p)))


@given(p=st.floats(-1.0, 2.0), delta=st.floats(0.0, 3.0), beta=st.floats(-2.0, 3.0), down=SIZES, A=SIZES)
def test_a_hedge_lies_between_its_two_worlds(p: float, delta: float, beta: float, down: float, A: float) -> None:
    """Whatever the odds, the hedge is between that of a sure close and that of a sure break, each at its end."""
    h = [float(deal.hedge_ratio(x, delta, beta=beta, down=down, acquirer=A)) for x in (p, 0.0, 1.0)]
    assert min(h[1:]) - 1e-12 <= h[0] <= max(h[1:]) + 1e-12
    assert h[1] == pytest.approx(beta * down / A)
    assert h[2] == delta


def test_a_hedged_share_moves_by_nothing_in_either_world() -> None:
    """With p held, the mixture of close and break moves by h dA: the hedge takes the first order off."""
    A, down, beta, p, ratio = 100.0, 40.0, 0.8, 0.7, 0.5

    def worth(price: float) -> float:
        return p * ratio * price + (1.0 - p) * down * (1.0 + beta * (price / A - 1.0))

    h = float(deal.hedge_ratio(p, ratio, beta=beta, down=down, acquirer=A))
    assert (worth(A + 1e-4) - worth(A - 1e-4)) / 2e-4 == pytest.approx(h, abs=1e-8)


def test_what_a_break_loses_is_the_fall_and_what_the_short_loses() -> None:
    """S - S_down, and the short's loss where the acquirer rises."""
    assert float(deal.loss_if_broken(48.0, 40.0, hedge=0.5, acquirer=100.0)) == 8.0
    assert float(deal.loss_if_broken(48.0, 40.0, hedge=0.5, acquirer=100.0, acquirer_jump=0.04)) == pytest.approx(10.0)


def test_annual_returns_compound_and_end_with_the_deal() -> None:
    """4 % in a quarter is 1.04^4 - 1 a year; at and after the close there is none."""
    assert float(deal.annualised(100.0, 104.0, 0.25)) == pytest.approx(1.04**4 - 1.0)
    assert np.isnan(deal.annualised(100.0, 104.0, [0.0, -1.0])).all()


def test_bad_rows_are_nan_alone() -> None:
    """A NaN or negative price or time is its own row's only."""
    found = deal.offer_value(TERMS["fixed value"], [100.0, math.nan, -1.0], [0.5, 0.5, 0.5], vol=0.3)
    assert np.isnan(found.value).tolist() == [False, True, True]
    assert math.isnan(float(deal.offer_value(TERMS["stock"], 100.0, -0.1).value))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (DealTerms, "found none"),
        (lambda: DealTerms(cash=-1.0), "cash"),
        (lambda: DealTerms(ratio=math.inf), "ratio"),
        (lambda: Collar(kind="fixed_value", low=10.0, high=9.0, value=1.0), "low < high"),
        (lambda: Collar(kind="fixed_value", low=1.0, high=9.0, ratio=1.0), "positive value"),
        (lambda: Collar(kind="fixed_ratio", low=1.0, high=9.0, ratio=1.0, value=2.0), "no value"),
    ],
)
def test_terms_keep_their_law(made: Any, message: str) -> None:
    """What cannot be a deal is refused in words."""
    with pytest.raises(ValueError, match=message):
        made()
