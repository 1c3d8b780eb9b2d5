"""Convertibles: closed forms, trees, QuantLib, bumps, convergence, decisions in order, statuses, compiled against readable."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  it has no stubs; the name of its own examples

from bot.domain.convertible import Call, ConvertibleTerms, Put, level_coupons
from bot.pricing import american, american_discrete, black, convertible, convertible_steps, convertible_tree
from bot.pricing import convertible_kernels as kernels
from bot.pricing.convertible import Market
from bot.pricing.convertible_plan import plan
from bot.pricing.status import Status

COUPONS = level_coupons(face=100.0, rate=0.08, per_year=2, maturity=5.0)
CALL = Call(start=2.0, end=5.0, price=110.0)
PUT = Put(start=3.0, end=3.0, price=105.0)
BASE: dict[str, Any] = {"maturity": 5.0, "ratio": 1.0, "coupons": COUPONS}
MARKET: dict[str, Any] = {
    "vol": 0.3,
    "rate": 0.04,
    "dividend": 0.02,
    "borrow": 0.01,
    "hazard": 0.03,
    "recovery": 0.4,
}
SPOTS = np.array([40.0, 75.0, 100.0, 115.0, 160.0])
GREEKS = ("delta", "gamma", "vega", "theta", "rho", "credit_delta")


def bond(**more: Any) -> ConvertibleTerms:
    return ConvertibleTerms(**{**BASE, **more})


def value(spot: Any, terms: ConvertibleTerms, **more: Any) -> np.ndarray:
    return convertible.price(spot, terms, **{**MARKET, "greeks": False, **more}).price


FEATURES = {
    "call and put": bond(calls=(CALL,), puts=(PUT,)),
    "nothing": bond(),
    "coupon lost": bond(converter_keeps_coupon=False),
    "conversion window": bond(convertible_from=2.0, convertible_to=4.0),
    "ratio reset": bond(ratio=0.8, ratio_changes=((2.5, 1.1),)),
    "call step-down": bond(calls=(Call(start=2.0, end=3.0, price=115.0), Call(start=3.0, end=5.0, price=105.0))),
    "put window": bond(
        coupons=level_coupons(face=100.0, rate=0.02, per_year=1, maturity=5.0),
        puts=(Put(start=1.0, end=4.0, price=102.0, clean=False),),
    ),
    "redeemed at a premium": bond(redemption=108.0, coupons=()),
}


# -------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("model", ["tf", "afv"])
def test_a_bond_nobody_converts_is_its_cash_flows(model: str) -> None:
    """Without conversion the price is the risky bond's closed form at any spot, and its delta is nothing."""
    terms = bond(ratio=0.0)
    found = convertible.price(SPOTS, terms, **MARKET, equity_drop=0.6, model=model)  # type: ignore[arg-type]  # parametrised
    p, R = 0.03, 0.4
    fall = 0.04 + (p if model == "afv" else p * (1.0 - R))
    expected = 100.0 * np.exp(-5.0 * fall) + sum(c * np.exp(-fall * t) for t, c in COUPONS)
    if model == "afv":
        expected += R * 100.0 * p * (1.0 - np.exp(-5.0 * fall)) / fall
    np.testing.assert_allclose(found.price, expected, atol=5e-4)
    np.testing.assert_allclose(found.bond_floor, expected, rtol=1e-13)
    np.testing.assert_allclose(found.delta, 0.0, atol=1e-9)
    bumped = convertible.bond_floor(
        SPOTS,
        terms,
        Market(0.3, 0.04, 0.02, 0.01, 0.0301, 0.0, 1.0, 0.4, 0.6, False),
        model=model,
        at=0.0,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(found.credit_delta, (bumped - found.bond_floor) / 1e-4, rtol=2e-3)


@pytest.mark.parametrize("model", ["tf", "afv"])
@pytest.mark.parametrize("window", [{"convertible_from": 2.0}, {}])
def test_without_credit_it_is_a_bond_and_a_call(model: str, window: dict[str, float]) -> None:
    """With no default and no yield, conversion at maturity only or at any time is face and ratio calls (Black-Scholes)."""
    terms = ConvertibleTerms(maturity=2.0, ratio=0.8, **window)
    found = convertible.price(SPOTS, terms, vol=0.3, rate=0.05, model=model)  # type: ignore[arg-type]  # parametrised
    option = black.bsm(SPOTS, 125.0, 2.0, 0.3, rate=0.05)
    floor = 100.0 * np.exp(-0.1)
    np.testing.assert_allclose(found.price, floor + 0.8 * option.price, atol=5e-4)
    np.testing.assert_allclose(found.delta, 0.8 * option.delta, atol=2e-5)
    np.testing.assert_allclose(found.gamma, 0.8 * option.gamma, atol=1e-6)
    np.testing.assert_allclose(found.vega, 0.8 * option.vega, atol=2e-2)
    np.testing.assert_allclose(found.theta, 0.05 * floor + 0.8 * option.theta, atol=1e-3)
    np.testing.assert_allclose(found.rho, -2.0 * floor + 0.8 * option.rho, atol=5e-3)


def test_early_conversion_for_the_yield_is_an_american_call() -> None:
    """With a yield and rate 0, a discount bond that converts at any time is face and American calls."""
    found = convertible.price(SPOTS, ConvertibleTerms(maturity=2.0, ratio=1.0), vol=0.3, dividend=0.06, accuracy="high")
    option = american.price(SPOTS, 100.0, 2.0, 0.3, rate=0.0, dividend=0.06, cp=1)
    np.testing.assert_allclose(found.price, 100.0 + option.price, atol=2e-4)
    np.testing.assert_allclose(found.delta, option.delta, atol=5e-5)


def test_cash_dividends_are_those_of_the_spot_model() -> None:
    """Cash dividends lower the spot on their day, as in `american_discrete` with model "spot"."""
    paid = [(0.4, 3.0), (1.2, 4.0)]
    terms = ConvertibleTerms(maturity=2.0, ratio=1.0, convertible_from=2.0)
    found = convertible.price(SPOTS, terms, vol=0.3, rate=0.05, dividends=paid, accuracy="high", greeks=False).price
    option = american_discrete.price(
        SPOTS, 100.0, 2.0, 0.3, dividends=paid, model="spot", rate=0.05, exercise="european", steps=1600
    )
    np.testing.assert_allclose(found, 100.0 * np.exp(-0.1) + option.price, atol=1e-3)


def test_partial_default_of_a_share_is_no_loss() -> None:
    """A bond that is worth its shares keeps them on a default that leaves the spot alone (eta 0), and not on a total one."""
    deep = ConvertibleTerms(maturity=1.0, ratio=1.0)
    kept = convertible.price(1000.0, deep, vol=0.2, rate=0.05, hazard=0.2, equity_drop=0.0, greeks=False).price
    lost = convertible.price(1000.0, deep, vol=0.2, rate=0.05, hazard=0.2, equity_drop=1.0, greeks=False).price
    assert kept == pytest.approx(1000.0, abs=1e-6)
    assert lost == pytest.approx(1000.0, abs=1e-3)  # the spot's growth, rate + hazard, makes up for the fall
    assert convertible.price(30.0, deep, vol=0.2, hazard=0.2, equity_drop=1.0, greeks=False).price < 82.0


# -------------------------------------------------------------------------------------- engine against engine


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize(("model", "drop"), [("tf", 0.0), ("afv", 0.0), ("afv", 1.0)])
def test_prices_agree_with_a_tree(name: str, model: Any, drop: float) -> None:
    """Grid and tree, which share the terms alone, agree to the tree's error: a few hundredths on face 100."""
    terms = FEATURES[name]
    for spot in (75.0, 105.0):
        found = value(spot, terms, equity_drop=drop, model=model)
        trees = [
            convertible_tree.price(
                spot,
                terms,
                vol=0.3,
                rate=0.04,
                growth=0.01,
                spread=0.018,
                hazard=0.03,
                recovery=0.4,
                equity_drop=drop,
                model=model,
                steps=steps,
            )
            for steps in (1000, 1030)
        ]
        assert abs(np.mean(trees) - found) < (0.12 if model == "tf" else 0.07)


@pytest.mark.parametrize("elasticity", [-0.5, -1.2, -2.0])
def test_a_hazard_that_grows_as_the_spot_falls_agrees_with_a_tree(elasticity: float) -> None:
    """Ayache, Forsyth and Vetzal's hazards p0 (S / S0)^a, far down too, where the bond is its recovery."""
    terms = FEATURES["call and put"]
    for spot in (40.0, 80.0, 110.0):
        same: dict[str, Any] = {
            "vol": 0.2,
            "rate": 0.05,
            "hazard": 0.02,
            "elasticity": elasticity,
            "hazard_spot": 100.0,
            "equity_drop": 1.0,
            "recovery": 0.3,
        }
        found = convertible.price(spot, terms, **same, greeks=False).price
        assert convertible_tree.price(spot, terms, **same, steps=1000) == pytest.approx(float(found), abs=0.03)
    ruined = convertible.price(1e-3, terms, **{**same, "elasticity": -2.0}, greeks=False).price
    assert ruined == pytest.approx(30.0, abs=0.01)


def quantlib(spot: float, *, spread: float, put: tuple[int, float] | None = None) -> float:
    """QuantLib's binomial engine: five annual coupons of 4, ratio 1, vol 25 %, rate 5 %, yield 2 %."""
    today = ql.Date(1, 1, 2020)
    ql.Settings.instance().evaluationDate = today
    count = ql.Actual365Fixed()
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, 0.02, count)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, 0.05, count)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), 0.25, count)),
    )
    rights = ql.CallabilitySchedule()
    if put is not None:
        paid = ql.BondPrice(put[1], ql.BondPrice.Dirty)
        rights.append(ql.Callability(paid, ql.Callability.Put, today + 365 * put[0]))
    schedule = ql.Schedule([today + 365 * k for k in range(6)])
    exercise = ql.AmericanExercise(today, today + 365 * 5)
    made = ql.ConvertibleFixedCouponBond(exercise, 1.0, rights, today, 0, [0.04], count, schedule, 100.0)
    credit = ql.QuoteHandle(ql.SimpleQuote(spread))
    made.setPricingEngine(ql.BinomialCRRConvertibleEngine(process, 1001, credit))
    return float(made.NPV())


@pytest.mark.parametrize("put", [None, (3, 104.0)])
@pytest.mark.parametrize("spot", [70.0, 100.0, 130.0])
def test_prices_agree_with_quantlib(spot: float, put: tuple[int, float] | None) -> None:
    """Without a spread QuantLib's engine gives the same; with one it discounts at a blend of rates, and stays within 1 %.

    Its lattice discounts the whole bond by the probability of conversion, which a put leaves as it was, where Tsiveriotis
    and Fernandes split the bond in two: without a put it gives less, as it charges the spread to shares too.
    """
    terms = ConvertibleTerms(
        maturity=5.0,
        ratio=1.0,
        coupons=tuple((float(k), 4.0) for k in range(1, 6)),
        puts=() if put is None else (Put(start=float(put[0]), end=float(put[0]), price=put[1], clean=False),),
        converter_keeps_coupon=False,
    )
    found = [
        float(
            convertible.price(spot, terms, vol=0.25, rate=0.05, dividend=0.02, spread=s, model="tf", greeks=False).price
        )
        for s in (0.0, 0.02)
    ]
    assert quantlib(spot, spread=0.0, put=put) == pytest.approx(found[0], abs=0.03)
    more = quantlib(spot, spread=0.02, put=put) - found[1]
    assert abs(more) < 0.01 * found[1]
    assert put is not None or more < 0.03


# -------------------------------------------------------------------------------------- numerics


@pytest.mark.parametrize("name", ["call and put", "nothing", "call step-down", "conversion window"])
@pytest.mark.parametrize("model", ["tf", "afv"])
def test_the_error_falls_as_the_square_of_the_grid(name: str, model: Any) -> None:
    """Finer grids converge: "fast" within 3e-2, "default" within 4e-3 of "high", ten times nearer on the whole."""
    found = {
        accuracy: value(SPOTS, FEATURES[name], equity_drop=1.0, model=model, accuracy=accuracy)
        for accuracy in ("fast", "default", "high")
    }
    fast, default = np.abs(found["fast"] - found["high"]), np.abs(found["default"] - found["high"])
    assert fast.max() < 3e-2
    assert default.max() < 4e-3
    assert default.sum() < 0.25 * fast.sum()


@pytest.mark.parametrize("model", ["tf", "afv"])
def test_greeks_are_the_slopes_of_finer_prices(model: Any) -> None:
    """Every Greek is the difference quotient of "high" prices, to 0.2 % where it is itself a difference of grids.

    The rate's steps are small, since at 3.55 % the use of the put changes.
    """
    terms = FEATURES["call and put"]
    spots = np.array([60.0, 80.0, 95.0, 107.0])
    found = convertible.price(spots, terms, **MARKET, equity_drop=0.5, model=model, at=0.2)

    def high(spot: Any = spots, **more: Any) -> np.ndarray:
        return value(spot, terms, **{"equity_drop": 0.5, "model": model, "at": 0.2, "accuracy": "high", **more})

    bumps = {
        "delta": (high(spots + 0.5) - high(spots - 0.5), 2e-3),
        "gamma": ((high(spots + 0.5) + high(spots - 0.5) - 2.0 * high()) * 4.0, 1e-4),
        "vega": ((high(vol=0.31) - high(vol=0.29)) * 50.0, 0.02),
        "theta": ((high(at=0.21) - high(at=0.19)) * 50.0, 0.02),
        "rho": ((high(rate=0.042) - high(rate=0.038)) * 250.0, 0.02),
        "credit_delta": ((high(hazard=0.032) - high(hazard=0.028)) * 250.0, 0.02),
    }
    for name, (expected, bound) in bumps.items():
        rtol = 2e-3 if name in {"vega", "rho", "credit_delta"} else 1e-7
        np.testing.assert_allclose(getattr(found, name), expected, atol=bound, rtol=rtol, err_msg=name)


@pytest.mark.parametrize("model", ["tf", "afv"])
@pytest.mark.parametrize("trigger", [0.0, 1.2])
def test_the_compiled_march_equals_its_readable_twin(model: Any, trigger: float) -> None:
    """Nodes, values and cash parts of both marches agree to rounding: calls, puts, dividends, resets, stiff hazards."""
    terms = bond(
        calls=(Call(start=2.0, end=5.0, price=110.0, trigger=trigger),), puts=(PUT,), ratio_changes=((2.5, 1.1),)
    )
    market = Market(0.25, 0.05, 0.01, 0.0, 0.03, -1.2, 100.0, 0.3, 0.5, False)
    scale, keys = convertible.corners(terms, market)
    width, low, high = convertible.reach(terms, market, 0.1, keys)
    spots = np.empty(151)
    kernels.place_nodes(scale, keys, width, low, high, spots)
    by_root = convertible_steps.place_nodes(scale, keys, width, low, high, 150)
    np.testing.assert_allclose(spots[1:], by_root[1:], rtol=1e-12)
    for key in keys:
        assert np.abs(spots / (scale * np.exp(key)) - 1.0).min() < 1e-14
    life = plan(terms, at=0.1, dividends=((1.3, 2.0), (4.0, 1.0)), steps=100)
    arguments = convertible.march_inputs(terms, life, market, model, spots)
    V, B = np.empty_like(spots), np.empty_like(spots)
    unsolved, _ = kernels.march(spots, *arguments, V, B)
    slow_v, slow_b = convertible_steps.march(spots, *arguments)
    assert unsolved == 0
    np.testing.assert_allclose(V, slow_v, rtol=1e-10)
    if model == "tf":
        np.testing.assert_allclose(B, slow_b, rtol=1e-10, atol=1e-10)
    out = np.empty((1, 40))
    where = np.linspace(0.0, 2000.0, 40)
    kernels.read_off(spots, V[None, :], where, out)
    np.testing.assert_allclose(out[0], convertible_steps.read_off(spots, V, where), rtol=1e-12)


# -------------------------------------------------------------------------------------- decisions


@pytest.mark.parametrize("model", ["tf", "afv"])
def test_call_put_and_conversion_bound_the_price_in_their_order(model: Any) -> None:
    """While all may decide, V = max(put, parity, min(continuation, max(call, parity))), accrued interest in clean prices."""
    rights = {"calls": (Call(start=0.0, end=5.0, price=103.0),), "puts": (Put(start=0.0, end=5.0, price=98.0),)}
    low = level_coupons(face=100.0, rate=0.02, per_year=2, maturity=5.0)
    found = convertible.price(np.arange(20.0, 180.0), bond(**rights, coupons=low), **MARKET, model=model, at=0.3)
    accrued = 2.0 * 0.3
    assert found.price.min() == pytest.approx(98.0 + accrued, abs=1e-9)
    np.testing.assert_array_equal(
        found.price[found.parity > 103.0 + accrued], found.parity[found.parity > 103.0 + accrued]
    )
    np.testing.assert_allclose(found.delta[found.parity > 108.0], 1.0, atol=1e-9)
    assert (found.price >= found.parity).all()
    assert (found.price <= np.maximum(103.0 + accrued, found.parity) + 1e-12).all()


def test_a_put_above_the_call_is_the_holders() -> None:
    """Where the put's price exceeds the call's, the holder's right comes last: the bond is worth the put."""
    rights = {"calls": (Call(start=0.0, end=5.0, price=100.0),), "puts": (Put(start=0.0, end=5.0, price=104.0),)}
    assert value(60.0, bond(**rights)) == pytest.approx(104.0, abs=1e-12)


def test_a_soft_call_waits_for_its_trigger() -> None:
    """Below its trigger a soft call leaves the price above parity and call; at it, conversion is forced."""
    terms = bond(calls=(Call(start=0.0, end=5.0, price=100.0, trigger=1.3),))
    below, at = value(np.array([127.0, 130.0]), terms)
    assert below > 127.0
    assert at == pytest.approx(130.0, abs=1e-9)
    hard, never = bond(calls=(Call(start=0.0, end=5.0, price=100.0),)), bond()
    soft = value(SPOTS, terms)
    assert (value(SPOTS, hard) <= soft + 1e-3).all()
    assert (soft <= value(SPOTS, never) + 1e-3).all()


def test_a_called_bonds_cash_is_not_at_risk() -> None:
    """Tsiveriotis and Fernandes set the cash-only part to 0 on conversion and call, to the put's price on a put."""
    called = bond(calls=(Call(start=0.0, end=5.0, price=103.0),))
    sold = bond(puts=(Put(start=0.0, end=5.0, price=112.0, clean=False),), coupons=())
    assert convertible.price(150.0, called, **MARKET, model="tf", greeks=False).cash == 0.0
    found = convertible.price(30.0, sold, **MARKET, model="tf", greeks=False)
    assert found.cash == pytest.approx(112.0, abs=1e-9)
    assert found.price == pytest.approx(112.0, abs=1e-9)


def test_the_last_coupon_at_maturity() -> None:
    """At maturity the price is the payoff: the last coupon to both, or only to who does not convert."""
    for keeps, extra in ((True, 4.0), (False, 0.0)):
        found = convertible.price([50.0, 150.0], bond(converter_keeps_coupon=keeps), vol=0.2, at=5.0)
        assert found.price.tolist() == [104.0, 150.0 + extra]
        assert found.status.tolist() == [Status.LIMIT, Status.LIMIT]


def test_spread_and_hazard_name_the_same_credit() -> None:
    """A spread is hazard (1 - recovery) in either model, and its credit delta is that of the hazard over (1 - recovery)."""
    terms = FEATURES["call and put"]
    for model in ("tf", "afv"):
        same: dict[str, Any] = {"vol": 0.3, "rate": 0.04, "recovery": 0.4, "model": model}
        one = convertible.price(SPOTS, terms, **same, hazard=0.05)
        other = convertible.price(SPOTS, terms, **same, spread=0.03)
        np.testing.assert_allclose(one.price, other.price, rtol=1e-13)
        np.testing.assert_allclose(one.credit_delta / 0.6, other.credit_delta, rtol=0.02, atol=0.5)


# -------------------------------------------------------------------------------------- rows


def test_a_row_alone_is_a_row_of_a_batch() -> None:
    """Rows of different markets, and a bad row among them, give the bits they give alone; inputs are not touched."""
    spot = np.array([80.0, np.nan, 120.0, 95.0, -1.0])
    vol = np.array([0.2, 0.2, 0.3, 0.2, 0.2])
    before = spot.copy()
    spot.setflags(write=False)
    terms = FEATURES["call and put"]
    batch = convertible.price(spot, terms, vol=vol, rate=0.04, hazard=0.02, at=[0.0, 0.0, 0.0, 1.0, 0.0])
    assert batch.status.tolist() == [Status.OK, Status.NOT_FINITE, Status.OK, Status.OK, Status.OUT_OF_DOMAIN]
    for i, when in ((0, 0.0), (2, 0.0), (3, 1.0)):
        alone = convertible.price(spot[i], terms, vol=vol[i], rate=0.04, hazard=0.02, at=when)
        for name in ("price", *GREEKS, "parity", "bond_floor"):
            assert getattr(batch, name)[i] == getattr(alone, name), name
    assert np.isnan([batch.price[1], batch.delta[4]]).all()
    np.testing.assert_array_equal(spot, before)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"vol": -0.1}, Status.OUT_OF_DOMAIN),
        ({"hazard": -0.1}, Status.OUT_OF_DOMAIN),
        ({"recovery": 1.1}, Status.OUT_OF_DOMAIN),
        ({"equity_drop": -0.1}, Status.OUT_OF_DOMAIN),
        ({"elasticity": 0.5, "hazard_spot": 100.0}, Status.OUT_OF_DOMAIN),
        ({"elasticity": -0.5, "hazard_spot": 0.0}, Status.OUT_OF_DOMAIN),
        ({"rate": np.inf}, Status.NOT_FINITE),
        ({"at": 5.1}, Status.EXPIRED),
        ({"vol": 0.0}, Status.LIMIT),
        ({"spot": 0.0}, Status.LIMIT),
    ],
)
def test_bad_rows_have_their_status(changed: dict[str, float], status: Status) -> None:
    """A row outside the domain is NaN with its reason, an expired one 0, a limit its limit."""
    found = convertible.price(**{"spot": 90.0, "terms": bond(), **MARKET, **changed})
    assert found.status == status
    if status == Status.LIMIT:
        assert np.isfinite(found.price)
    elif status == Status.EXPIRED:
        assert found.price == 0.0
    else:
        assert np.isnan([found.price, found.delta, found.credit_delta, found.parity]).all()


def test_no_vol_is_the_better_of_bond_and_forward() -> None:
    """Without vol and credit the value is known today: redemption or shares, discounted."""
    terms = ConvertibleTerms(maturity=2.0, ratio=1.0, convertible_from=2.0)
    found = convertible.price([60.0, 150.0], terms, vol=0.0, rate=0.05, dividend=0.02, greeks=False)
    np.testing.assert_allclose(found.price, [100.0 * np.exp(-0.1), 150.0 * np.exp(-0.04)], atol=0.02)


def test_a_spread_may_help_who_converts_early() -> None:
    """Tsiveriotis and Fernandes' price may rise with the spread: conversion takes it off. The tree says so too."""
    terms = ConvertibleTerms(maturity=1.0, ratio=1.0, coupons=((0.5, 3.125), (1.0, 3.125)))
    found = [
        float(convertible.price(100.0, terms, vol=0.125, spread=s, model="tf", greeks=False).price) for s in (0.25, 0.3)
    ]
    trees = [convertible_tree.price(100.0, terms, vol=0.125, spread=s, model="tf", steps=2000) for s in (0.25, 0.3)]
    assert found == pytest.approx(trees, abs=0.12)
    assert found[1] > found[0] + 0.3
    assert trees[1] > trees[0] + 0.3


def test_a_grid_is_read_at_any_spot() -> None:
    """What a kept grid reads is what `price` answers, bit for bit, far beyond its last node too."""
    terms = FEATURES["call and put"]
    kept = convertible.grid(terms, **MARKET, model="tf")
    spots = np.array([[0.0, 55.5, 101.0], [140.0, 3e3, 1e8]])
    one, other = kept.read(spots), convertible.price(spots, terms, **MARKET, model="tf")
    for name in ("price", "cash", *GREEKS, "parity", "bond_floor", "status"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.price[1, 2] / 1e8 == pytest.approx(1.0, rel=1e-6)
    assert kept.read(np.nan).status == Status.NOT_FINITE
    assert np.isnan(kept.read(-1.0).price)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "hull"}, "model: expected 'tf' or 'afv'"),
        ({"accuracy": "best"}, "accuracy: expected one of"),
        ({"spread": 0.01}, "found both"),
        ({"elasticity": -1.0}, "expected hazard_spot"),
        ({"dividends": [(1.0, -2.0)]}, "dividends: expected"),
    ],
)
def test_wrong_arguments_are_refused_by_name(changed: dict[str, Any], message: str) -> None:
    """What is wrong for every row is a ValueError that says what was expected."""
    with pytest.raises(ValueError, match=message):
        convertible.price(100.0, bond(), **{**MARKET, **changed})
    with pytest.raises(ValueError, match="OUT_OF_DOMAIN"):
        convertible.grid(bond(), vol=-0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ratio": -1.0}, "ratio: expected"),
        ({"ratio": float("nan")}, "ratio: expected"),
        ({"face": 0.0}, "face: expected"),
        ({"coupons": ((1.0, 4.0), (0.5, 4.0))}, "coupons: expected ascending"),
        ({"coupons": ((6.0, 4.0),)}, "coupons: expected ascending times up to maturity"),
        ({"coupons": ((1.0, -4.0),)}, "coupons: expected"),
        ({"accrual_from": 0.5}, "accrual_from: expected before the first coupon"),
        ({"convertible_from": 3.0, "convertible_to": 2.0}, "conversion window"),
        ({"convertible_to": 6.0}, "conversion window"),
        ({"redemption": -1.0}, "redemption: expected"),
        ({"maturity": float("inf")}, "maturity: expected"),
        ({"ratio_changes": ((2.0, 1.0), (2.0, 1.1))}, "ratio_changes: expected ascending"),
        ({"calls": (Call(start=1.0, end=3.0, price=1.0), Call(start=2.0, end=4.0, price=1.0))}, "without overlap"),
        ({"calls": (Call(start=1.0, end=6.0, price=1.0),)}, "call: expected an end by maturity"),
        ({"puts": (Put(start=1.0, end=6.0, price=1.0),)}, "put: expected an end by maturity"),
    ],
)
def test_terms_keep_their_law(changed: dict[str, Any], message: str) -> None:
    """Terms that no indenture could mean are refused when they are made."""
    with pytest.raises(ValueError, match=message):
        bond(**changed)


def test_windows_keep_their_law() -> None:
    """A window that ends before it starts, a negative price and a negative trigger are refused."""
    with pytest.raises(ValueError, match="start <= end"):
        Put(start=2.0, end=1.0, price=100.0)
    with pytest.raises(ValueError, match="price: expected"):
        Call(start=1.0, end=2.0, price=-1.0)
    with pytest.raises(ValueError, match="trigger: expected"):
        Call(start=1.0, end=2.0, price=1.0, trigger=-1.0)
    with pytest.raises(ValueError, match="per_year"):
        level_coupons(face=100.0, rate=0.05, per_year=0, maturity=1.0)


def test_importing_the_module_imports_no_compiler() -> None:
    """Who only describes bonds does not pay for the compiler."""
    code = "import sys, bot.pricing.convertible; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
