"""Implied vol: back to the vol that made the price, equal to bisection, a status for each row that has none."""

from __future__ import annotations

import numpy as np
import pytest

from bot.pricing import black, implied
from bot.pricing.status import Status


def _quotes(seed: int, n: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    forward = np.exp(rng.uniform(0, 9, n))
    tau = rng.uniform(1 / 365, 2, n)
    vol = rng.uniform(0.05, 1.5, n)
    strike = forward * np.exp(vol * np.sqrt(tau) * rng.uniform(-4, 4, n))
    return forward, strike, tau, vol, rng.choice([-1, 1], n), np.exp(-rng.uniform(-0.05, 0.2, n))


@pytest.mark.parametrize("seed", range(3))
def test_gives_back_the_vol_of_the_price(seed: int) -> None:
    """On out-of-the-money quotes of a wide random grid the vol returns to 1e-12, in-the-money to what their digits allow."""
    forward, strike, tau, vol, cp, discount = _quotes(seed, 4_000)
    row = black.black76(forward, strike, tau, vol, discount=discount, cp=cp)
    found, status = implied.vol(row.price, forward, strike, tau, discount=discount, cp=cp)
    outside = cp * (forward - strike) <= 0
    ok = status == Status.OK
    assert ok[outside].all()
    # 4 deviations out the price of two nearly equal terms has lost three digits before it gets here
    np.testing.assert_allclose(found[outside], vol[outside], rtol=2e-12)
    allowed = 20 * np.spacing(row.price) / row.vega + 1e-11 * vol
    assert (np.abs(found - vol)[ok] <= allowed[ok]).all()
    assert np.isnan(found[~ok]).all()


@pytest.mark.parametrize("seed", range(3, 6))
def test_equals_bisection(seed: int) -> None:
    """The compiled solver and plain bisection agree to 1e-10 and give the same statuses."""
    forward, strike, tau, vol, cp, discount = _quotes(seed, 1_000)
    price = black.black76(forward, strike, tau, vol, discount=discount, cp=cp).price
    fast = implied.vol(price, forward, strike, tau, discount=discount, cp=cp)
    slow = implied.vol_by_bisection(price, forward, strike, tau, discount=discount, cp=cp)
    assert fast.status.tolist() == slow.status.tolist()
    np.testing.assert_allclose(fast.vol, slow.vol, rtol=1e-10)


def test_at_the_money_has_a_closed_form() -> None:
    """At the money C/F = 2N(s/2) - 1 = erf(s/sqrt 8), which inverts exactly, from tiny to enormous deviations."""
    from scipy.special import erf  # noqa: PLC0415  beside its only use

    s = np.array([1e-8, 1e-5, 1e-3, 0.02, 0.3, 0.499, 0.501, 1.0, 3.0, 6.0])
    found, status = implied.vol(100.0 * erf(s / np.sqrt(8.0)), 100.0, 100.0, 1.0)
    assert (status == Status.OK).all()
    np.testing.assert_allclose(found[:-1], s[:-1], rtol=1e-14 * 5)
    assert found[-1] == pytest.approx(6.0, rel=1e-12)


def test_far_tails_of_a_price_are_inverted() -> None:
    """A price of 1e-200 of the forward still has one vol, and monotone in the price."""
    prices = 10.0 ** np.arange(-290.0, -1.0)
    found, status = implied.vol(prices, 1.0, 3.0, 1.0)
    assert (status == Status.OK).all()
    assert (np.diff(found) > 0).all()
    back = black.black76(1.0, 3.0, 1.0, found[-100:]).price
    np.testing.assert_allclose(back, prices[-100:], rtol=1e-9)


def test_each_way_to_have_no_vol_has_its_status() -> None:
    """Below and at intrinsic, above the bound, expired, unknown and impossible rows are NaN with distinct codes."""
    price = [15.0, 9.0, 10.0, 0.0, -1.0, 110.0, 120.0, 15.0, 15.0, np.nan, np.inf, 15.0, 15.0]
    forward = [110.0] * 12 + [-110.0]
    strike = [100.0] * 3 + [120.0] * 2 + [100.0] * 8
    tau = [1.0] * 7 + [0.0, -1.0] + [1.0] * 4
    cp = [1] * 11 + [0, 1]
    found, status = implied.vol(price, forward, strike, tau, cp=cp)
    s = Status
    assert status.tolist() == [
        s.OK,
        s.BELOW_INTRINSIC,
        s.AT_INTRINSIC,
        s.AT_INTRINSIC,
        s.BELOW_INTRINSIC,
        s.ABOVE_BOUND,
        s.ABOVE_BOUND,
        s.EXPIRED,
        s.EXPIRED,
        s.NOT_FINITE,
        s.NOT_FINITE,
        s.OUT_OF_DOMAIN,
        s.OUT_OF_DOMAIN,
    ]
    assert np.isfinite(found[0])
    assert np.isnan(found[1:]).all()
    again = implied.vol_by_bisection(price, forward, strike, tau, cp=cp)
    assert again.status.tolist() == status.tolist()


def test_a_put_is_bounded_by_its_strike() -> None:
    """A put at its strike or above has no finite vol; just below it has a large one."""
    found, status = implied.vol([99.9, 100.0], 110.0, 100.0, 1.0, cp=-1)
    assert status.tolist() == [Status.OK, Status.ABOVE_BOUND]
    assert found[0] > 5


def test_discount_scales_the_price_only() -> None:
    """Price and discount scaled together leave the vol."""
    plain = implied.vol(4.0, 100.0, 103.0, 0.25)
    scaled = implied.vol(2.0, 100.0, 103.0, 0.25, discount=0.5)
    assert plain.vol == scaled.vol


def test_reads_scalars_views_and_read_only_arrays() -> None:
    """Scalars give 0-dimensional arrays; reversed, read-only and broadcast inputs are read and not written."""
    prices = np.array([3.0, 4.0, 5.0])
    prices.flags.writeable = False
    rows = implied.vol(prices[::-1], 100.0, 100.0, np.array([[0.25], [0.5]]))
    assert rows.vol.shape == rows.status.shape == (2, 3)
    assert implied.vol(prices, 100.0, 100.0, 0.25).vol.shape == (3,)
    assert rows.vol[0, 0] == implied.vol(5.0, 100.0, 100.0, 0.25).vol
