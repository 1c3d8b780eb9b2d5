"""Implied vol: back to the vol that made the price, equal to bisection, a status for each row that has none."""

from __future__ import annotations

import gc
import math
import pickle
import sys
from typing import Any

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


def _everywhere(seed: int, n: int) -> tuple[np.ndarray, ...]:
    """Prices of deviations from 1e-7 to 30 and log strikes from 1e-9 to 40, in the money too, some of them impossible."""
    rng = np.random.default_rng(seed)
    total = np.exp(rng.uniform(np.log(1e-7), np.log(30.0), n))
    near = rng.normal(size=n) * total * 2.0
    away = np.abs(np.where(rng.random(n) < 0.5, near, np.exp(rng.uniform(np.log(1e-9), np.log(40.0), n))))
    forward, tau = np.exp(rng.uniform(-5, 9, n)), np.exp(rng.uniform(-9, 2, n))
    strike = forward * np.exp(rng.choice([-1, 1], n) * away)
    cp = rng.choice([-1.0, 1.0], n)
    price = black.black76(forward, strike, tau, total / np.sqrt(tau), cp=cp).price
    price[::50] *= -1.0
    return price, forward, strike, tau, cp


def test_one_quote_has_the_bits_of_its_row_everywhere() -> None:
    """`vol_one` gives the bits and codes of the batch over the whole domain: few steps, more steps and the search."""
    price, forward, strike, tau, cp = _everywhere(1, 20_000)
    found, status = implied.vol(price, forward, strike, tau, cp=cp)
    quotes = zip(*(column.tolist() for column in (price, forward, strike, tau, np.ones(price.size), cp)), strict=True)
    ones = [implied.vol_one(*quote) for quote in quotes]
    np.testing.assert_array_equal([one for one, _ in ones], found)
    assert [code for _, code in ones] == status.tolist()
    assert {Status.OK, Status.BELOW_INTRINSIC, Status.AT_INTRINSIC, Status.ABOVE_BOUND} == set(status.tolist())


def test_the_search_is_right_everywhere() -> None:
    """Wherever a vol is found for an out-of-the-money price it is that of bisection, however far or short the quote is."""
    price, forward, strike, tau, cp = _everywhere(2, 8_000)
    keep = (cp * (forward - strike) <= 0.0) & (price > 0.0)
    quotes = (price[keep], forward[keep], strike[keep], tau[keep])
    fast = implied.vol(*quotes, cp=cp[keep])
    slow = implied.vol_by_bisection(*quotes, cp=cp[keep])
    assert fast.status.tolist() == slow.status.tolist()
    ok = (fast.status == Status.OK) & (fast.vol * np.sqrt(tau[keep]) > 1e-3)
    # bisection asks scipy's normal distribution, whose differences lose digits where the deviation is short and near the
    # bound, where a last place of the price is many of the vol
    per_ulp = np.spacing(price[keep]) / black.black76(*quotes[1:], fast.vol, cp=cp[keep]).vega
    allowed = (1e-10 + 1e-13 / (fast.vol * np.sqrt(tau[keep]))) * fast.vol + 20 * per_ulp
    assert ok.sum() > 1_000
    assert (np.abs(fast.vol - slow.vol)[ok] <= allowed[ok]).all()


def test_one_quote_is_plain_numbers() -> None:
    """`vol_one` answers a float and an int, takes any scalar, and refuses what is no number."""
    found, code = implied.vol_one(4.0, 100.0, 103.0, 0.25)
    assert (type(found), type(code)) == (float, int)
    assert (found, code) == implied.vol(4.0, 100.0, 103.0, 0.25)
    assert implied.vol_one(4, 100, 103, 0.25, 1, 1) == (found, code)
    assert implied.vol_one(np.float64(4.0), 100.0, 103.0, np.float32(0.25)) == (found, code)
    put = implied.vol(7.0, 100.0, 103.0, 0.25, cp=-1)
    assert implied.vol_one(7.0, 100.0, 103.0, 0.25, cp=-1.0) == put
    with pytest.raises(TypeError):
        implied.vol_one(np.array([4.0, 5.0]), 100.0, 103.0, 0.25)  # type: ignore[arg-type]  # what the test is about


def test_scalars_of_any_type_are_numpy_scalars_in_the_answer() -> None:
    """Floats, ints and numpy scalars give numpy scalars with the value of a row."""
    row = implied.vol([7.0], 100.0, 103.0, 0.25, cp=-1)
    for price, cp in ((7.0, -1), (7.0, -1.0), (7, -1), (np.float64(7.0), np.int64(-1)), (np.float32(7.0), -1)):
        one = implied.vol(price, 100.0, 103.0, 0.25, cp=cp)
        assert np.shape(one.vol) == np.shape(one.status) == ()
        assert one.vol.dtype == np.float64
        assert one.status.dtype == np.int8
        assert one.vol == row.vol[0]


def test_a_plain_call_answers_as_a_row_does() -> None:
    """Six plain numbers give the named tuple that a row of arrays gives, whatever its status, in value, type and use."""
    quotes = {
        Status.OK: (4.0, 100.0, 103.0, 0.25),
        Status.EXPIRED: (4.0, 100.0, 103.0, 0.0),
        Status.NOT_FINITE: (math.nan, 100.0, 103.0, 0.25),
        Status.OUT_OF_DOMAIN: (4.0, -100.0, 103.0, 0.25),
        Status.BELOW_INTRINSIC: (-4.0, 100.0, 103.0, 0.25),
        Status.AT_INTRINSIC: (0.0, 100.0, 103.0, 0.25),
        Status.ABOVE_BOUND: (100.0, 100.0, 103.0, 0.25),
    }
    for status, quote in quotes.items():
        one, row = implied.vol(*quote), implied.vol([quote[0]], *quote[1:])
        assert type(one) is implied.ImpliedVol
        assert (type(one.vol), type(one.status)) == (np.float64, np.int8)
        assert (one.status, row.status[0]) == (status, status)
        np.testing.assert_array_equal(one.vol, row.vol[0])
        assert one._replace(vol=1.0) == (1.0, status)
        assert repr(pickle.loads(pickle.dumps(one))) == repr(one)


def test_a_plain_call_is_for_plain_numbers_only() -> None:
    """An array or a list of one number stays a row; an int, a float's subclass and a 0-d array are a number; text is none."""

    class Price(float):
        """A float with a name."""

    one = implied.vol(4.0, 100.0, 103.0, 0.25)
    for number in (4, np.float64(4.0), Price(4.0), np.int32(4), np.array(4.0), np.float32(4.0)):
        assert implied.vol(number, 100.0, 103.0, 0.25) == one
    for row in ([4.0], (4.0,), np.array([4.0]), np.array([[4]])):
        found = implied.vol(row, 100.0, 103.0, 0.25)
        assert found.vol.shape == found.status.shape == np.shape(row)
        assert found.vol.ravel().tolist() == [one.vol]
    for place in range(4):
        quote: list[Any] = [4.0, 100.0, 103.0, 0.25]
        quote[place] = np.array([quote[place]])
        assert implied.vol(*quote).vol.tolist() == [one.vol]
    assert implied.vol(4.0, 100.0, 103.0, 0.25, discount=[1.0], cp=1).vol.tolist() == [one.vol]
    with pytest.raises(OverflowError):
        implied.vol(10**400, 100.0, 103.0, 0.25)
    with pytest.raises((TypeError, ValueError)):
        implied.vol("four", 100.0, 103.0, 0.25)  # type: ignore[arg-type]  # what the test is about


def test_plain_calls_know_the_objects_of_this_interpreter() -> None:
    """The layout that plain calls assume is that of this interpreter, and without it a quote goes the way of a row."""
    from bot.pricing import plain_calls  # noqa: PLC0415  the compiler

    assert plain_calls.layout_is_known()
    with pytest.raises(TypeError, match="known objects"):
        implied._by_rows(4.0, 100.0)
    by_rows = implied._vol_of_rows((4.0, 100.0, 103.0, 0.25, 1.0, 1), 1)
    assert by_rows == implied.vol(4.0, 100.0, 103.0, 0.25)


def test_plain_calls_keep_no_object_and_lose_none() -> None:
    """A thousand answers, kept and dropped, leave the count of references of what they are made of as it was."""
    parts = (implied.ImpliedVol, np.float64, *implied._CODES)
    quotes = [(4.0, 100.0, 103.0, 0.25), (-4.0, 100.0, 103.0, 0.25), (0.0, 100.0, 103.0, 0.25)]
    implied.vol(*quotes[0])
    gc.collect()
    before = [sys.getrefcount(part) for part in parts]
    kept = [implied.vol(*quote) for quote in quotes for _ in range(1000)]
    assert sys.getrefcount(implied.ImpliedVol) == before[0] + 3000
    with pytest.raises(OverflowError):
        implied.vol(10**400, 100.0, 103.0, 0.25)
    del kept
    gc.collect()
    assert [sys.getrefcount(part) for part in parts] == before


def test_threads_change_no_bit() -> None:
    """A long batch on two or five threads is the batch on one; fewer than one thread is refused."""
    price, forward, strike, tau, cp = _everywhere(3, 10 * black.CHUNK + 7)
    alone = implied.vol(price, forward, strike, tau, cp=cp)
    for threads in (2, 5):
        shared = implied.vol(price, forward, strike, tau, cp=cp, threads=threads)
        np.testing.assert_array_equal(shared.vol, alone.vol)
        np.testing.assert_array_equal(shared.status, alone.status)
    with pytest.raises(ValueError, match="threads: expected 1 or more, found 0"):
        implied.vol(price, forward, strike, tau, threads=0)


def test_inputs_of_any_layout_are_read_and_not_written() -> None:
    """float32, strided, reversed, two-dimensional and read-only inputs give what contiguous float64 gives, and stay."""
    rng = np.random.default_rng(4)
    narrow = rng.uniform(3.0, 9.0, 64).astype(np.float32)
    wide = np.repeat(narrow.astype(np.float64), 2)
    wide.flags.writeable = False
    before = narrow.copy()
    plain = implied.vol(narrow.astype(np.float64), 100.0, 100.0, 0.25).vol
    for given in (narrow, wide[::2], narrow[::-1][::-1], narrow.astype(object)):
        np.testing.assert_array_equal(implied.vol(given, 100, np.int64(100), 0.25).vol, plain)
    square = implied.vol(np.asfortranarray(narrow.reshape(8, 8)), 100.0, 100.0, 0.25).vol
    np.testing.assert_array_equal(square, plain.reshape(8, 8))
    np.testing.assert_array_equal(narrow, before)
    with pytest.raises(ValueError, match="broadcast"):
        implied.vol(narrow, [100.0, 101.0], 100.0, 0.25)


def test_a_price_too_small_to_have_digits_has_no_vol() -> None:
    """A subnormal price is at intrinsic: its digits are gone; the smallest normal ones still have their vol."""
    found, status = implied.vol([5e-324, 1e-310, 3e-308], 1.0, 3.0, 1.0)
    assert status.tolist() == [Status.AT_INTRINSIC, Status.AT_INTRINSIC, Status.OK]
    assert found[2] == pytest.approx(0.0295, abs=0.01)


def test_rough_functions_are_as_rough_as_they_say() -> None:
    """The first step's logarithm is right to 7e-8, its normal tail to 8e-9 of itself."""
    from bot.pricing import elementary, implied_kernels  # noqa: PLC0415  the compiler

    for q in (1e-290, 1e-9, 0.2, 0.70711, 0.999, 1.0, 1.41421, 3.0, 1e12):
        assert abs(implied_kernels.rough_log(q) - math.log(q)) <= 7e-8
    for d in (0.0, 1e-3, 0.5, 2.0, 7.0, 30.0, 1e3, 1e6):
        assert implied_kernels.rough_tail_ratio(d) == pytest.approx(elementary.tail_ratio(d), rel=8e-9)


def test_the_cut_series_has_the_bits_of_the_whole_one() -> None:
    """Leaving out the terms that are too small to matter changes no bit."""
    from bot.pricing import implied_kernels  # noqa: PLC0415  the compiler

    rng = np.random.default_rng(5)
    for t in np.exp(rng.uniform(np.log(1e-9), np.log(0.25), 3_000)).tolist():
        h = -float(rng.uniform(0.0, 1.0)) * min(0.5 / t, 40.0)
        assert implied_kernels.excess_series_cut(h, t) == implied_kernels.excess_series(h, t), (h, t)
