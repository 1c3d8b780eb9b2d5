"""Convertibles for any ordinary terms: bounds, monotone in spot, vol, credit and rights, homogeneous, a row is itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.domain.convertible import Call, ConvertibleTerms, Put, level_coupons
from bot.pricing import convertible
from bot.pricing.status import Status

ROUGH = 2e-2
"""What "fast" promises on a face of 100."""

MATURITY = st.floats(0.3, 10.0)
SHARE = st.floats(0.05, 0.95)
MODEL = st.sampled_from(["tf", "afv"])
MARKET = st.fixed_dictionaries(
    {
        "vol": st.floats(0.05, 0.9),
        "rate": st.floats(-0.02, 0.1),
        "dividend": st.floats(0.0, 0.06),
        "borrow": st.floats(0.0, 0.03),
        "hazard": st.floats(0.0, 0.3),
        "recovery": st.floats(0.0, 0.9),
        "equity_drop": st.floats(0.0, 1.0),
        "model": MODEL,
    }
)
SPOTS = np.array([5.0, 40.0, 70.0, 90.0, 100.0, 112.0, 140.0, 250.0])


@st.composite
def bonds(draw: st.DrawFn, *, calls: bool = True) -> ConvertibleTerms:
    """Any bond with level coupons, perhaps callable (hard or soft) and puttable from some time on."""
    maturity = draw(MATURITY)
    coupons = level_coupons(
        face=100.0, rate=draw(st.floats(0.0, 0.1)), per_year=draw(st.sampled_from([1, 2, 4])), maturity=maturity
    )
    made: dict[str, Any] = {"maturity": maturity, "ratio": draw(st.floats(0.3, 2.0)), "coupons": coupons}
    if calls and draw(st.booleans()):
        trigger = draw(st.sampled_from([0.0, 0.0, 1.3]))
        price = draw(st.floats(95.0, 125.0))
        made["calls"] = (Call(start=maturity * draw(SHARE), end=maturity, price=price, trigger=trigger),)
    if draw(st.booleans()):
        start = maturity * draw(SHARE)
        end = draw(st.sampled_from([start, maturity]))
        made["puts"] = (Put(start=start, end=end, price=draw(st.floats(80.0, 105.0)), clean=draw(st.booleans())),)
    return ConvertibleTerms(**made)


def value(terms: ConvertibleTerms, market: dict[str, Any], spot: Any = SPOTS, **more: Any) -> np.ndarray:
    found = convertible.price(spot, terms, **{**market, "accuracy": "fast", "greeks": False, **more})
    assert np.all(found.status == Status.OK)
    return found.price


@settings(max_examples=60, deadline=None)
@given(terms=bonds(), market=MARKET)
def test_bounds(terms: ConvertibleTerms, market: dict[str, Any]) -> None:
    """A bond that converts at any time is worth its shares at least; at most all its cash, its shares and a put together."""
    found = value(terms, market)
    assert np.all(found >= terms.ratio * SPOTS)
    cash = terms.face + sum(c for _, c in terms.coupons) + max([p.price for p in terms.puts], default=0.0)
    assert np.all(found <= terms.ratio * SPOTS + cash * np.exp(max(-market["rate"], 0.0) * terms.maturity) + ROUGH)


@settings(max_examples=60, deadline=None)
@given(terms=bonds(), market=MARKET)
def test_rights_have_their_price(terms: ConvertibleTerms, market: dict[str, Any]) -> None:
    """Under "afv" giving up the put never helps the holder; giving up the call never hurts."""
    found = value(terms, market)
    scale = ROUGH * (1.0 + terms.ratio)
    without_put = ConvertibleTerms(maturity=terms.maturity, ratio=terms.ratio, coupons=terms.coupons, calls=terms.calls)
    without_call = ConvertibleTerms(maturity=terms.maturity, ratio=terms.ratio, coupons=terms.coupons, puts=terms.puts)
    # "tf" has no such law: a call takes the spread off the cash it pays, a put lays it on what might have been shares
    if market["model"] == "afv":
        assert np.all(value(without_put, market) <= found + scale)
        assert np.all(value(without_call, market) >= found - scale)


@settings(max_examples=60, deadline=None)
@given(terms=bonds(calls=False), market=MARKET)
def test_monotone(terms: ConvertibleTerms, market: dict[str, Any]) -> None:
    """Without calls the price rises with the spot where a default pays nothing, and with the vol where nobody defaults.

    Under "tf" it falls with the spread where nobody converts early: who does takes the spread off, so that the price of
    an early convertible may rise with it, in the tree as here.
    """
    flat = {**market, "recovery": 0.0}
    assert np.all(np.diff(value(terms, flat)) >= -1e-9)
    if market["model"] == "tf":
        riskier = {**market, "hazard": market["hazard"] + 0.05}
        late = ConvertibleTerms(
            maturity=terms.maturity, ratio=terms.ratio, coupons=terms.coupons, convertible_from=terms.maturity
        )
        assert np.all(value(late, riskier) <= value(late, market) + ROUGH)
    wider = {**flat, "vol": 1.2 * market["vol"], "hazard": 0.0}
    assert np.all(value(terms, wider) >= value(terms, {**flat, "hazard": 0.0}) - ROUGH * (1.0 + terms.ratio))


@settings(max_examples=40, deadline=None)
@given(terms=bonds(), market=MARKET, scale=st.sampled_from([0.25, 8.0]))
def test_a_ratio_only_scales_the_spot(terms: ConvertibleTerms, market: dict[str, Any], scale: float) -> None:
    """Shares split in parts: the ratio times a power of two on spots divided by it is the same price, to rounding."""
    split = ConvertibleTerms(
        maturity=terms.maturity,
        ratio=terms.ratio * scale,
        coupons=terms.coupons,
        calls=terms.calls,
        puts=terms.puts,
    )
    np.testing.assert_allclose(value(split, market, SPOTS / scale), value(terms, market), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(terms=bonds(), market=MARKET, share=SHARE, amount=st.floats(0.1, 5.0))
def test_a_dividend_is_the_issuers_gain(
    terms: ConvertibleTerms, market: dict[str, Any], share: float, amount: float
) -> None:
    """A cash dividend never helps who holds the bond instead of the share."""
    afv = {**market, "model": "afv", "recovery": 0.0}
    paid = value(terms, afv, dividends=[(terms.maturity * share, amount)])
    if not any(call.trigger for call in terms.calls):  # a fall below a soft call's trigger can help
        assert np.all(paid <= value(terms, afv) + ROUGH * (1.0 + terms.ratio))


@settings(max_examples=30, deadline=None)
@given(terms=bonds(), market=MARKET)
def test_a_spot_alone_is_a_spot_of_many(terms: ConvertibleTerms, market: dict[str, Any]) -> None:
    """Each spot's numbers are the bits it has alone."""
    many = convertible.price(SPOTS, terms, **market, accuracy="fast")
    alone = convertible.price(SPOTS[3], terms, **market, accuracy="fast")
    for together, one in zip(many, alone, strict=True):
        np.testing.assert_array_equal(together[3], one)
