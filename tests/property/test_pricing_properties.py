"""Laws every European price obeys, over the whole domain a desk can meet."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.pricing import black, implied
from bot.pricing.status import Status

spots = st.floats(1e-3, 1e6)
ratios = st.floats(0.05, 20.0)
taus = st.floats(1e-9, 30.0)
vols = st.floats(1e-4, 5.0)
rates = st.floats(-0.2, 0.5)
sides = st.sampled_from([1, -1])
quick = settings(max_examples=150, deadline=None)


@quick
@given(spots, ratios, taus, vols, rates, rates)
def test_parity(spot: float, ratio: float, tau: float, vol: float, rate: float, dividend: float) -> None:
    """Call minus put is the discounted forward minus the discounted strike, and their Greeks differ accordingly."""
    strike = spot * ratio
    call, put = (black.bsm(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp) for cp in (1, -1))
    s, k = spot * np.exp(-dividend * tau), strike * np.exp(-rate * tau)
    assert abs((call.price - put.price) - (s - k)) <= 1e-13 * max(s, k, spot, strike)
    assert abs((call.delta - put.delta) - np.exp(-dividend * tau)) <= 1e-13 * max(1.0, np.exp(-dividend * tau))
    assert call.gamma == put.gamma
    assert call.vega == put.vega


@quick
@given(spots, ratios, taus, vols, rates, rates, sides)
def test_bounds(spot: float, ratio: float, tau: float, vol: float, rate: float, dividend: float, cp: int) -> None:
    """A price lies between discounted intrinsic and its bound; delta within its discount; gamma and vega not negative."""
    strike = spot * ratio
    row = black.bsm(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp)
    s, k = spot * np.exp(-dividend * tau), strike * np.exp(-rate * tau)
    slack = 1e-13 * max(s, k)
    assert row.status == Status.OK
    assert max(cp * (s - k), 0.0) - slack <= row.price <= (s if cp > 0 else k) + slack
    assert 0.0 <= cp * row.delta <= np.exp(-dividend * tau) * (1.0 + 1e-14)  # np.exp rounds its argument
    assert row.gamma >= 0.0
    assert row.vega >= 0.0
    assert all(np.isfinite(column) for column in row)


@quick
@given(spots, taus, vols, rates, sides)
def test_convex_and_monotone_in_strike(spot: float, tau: float, vol: float, rate: float, cp: int) -> None:
    """Calls fall and puts rise with the strike, and both are convex in it."""
    strike = spot * np.linspace(0.4, 2.5, 41)
    price = black.bsm(spot, strike, tau, vol, rate=rate, cp=cp).price
    slack = 1e-13 * max(spot, strike[-1] * float(np.exp(-rate * tau)))
    assert (-cp * np.diff(price) >= -slack).all()
    assert (np.diff(price, 2) >= -4 * slack).all()


@quick
@given(spots, ratios, taus, vols, rates, sides, st.floats(0.01, 100.0))
def test_homogeneous(spot: float, ratio: float, tau: float, vol: float, rate: float, cp: int, scale: float) -> None:
    """Scaling spot and strike scales the price and leaves the delta."""
    one = black.bsm(spot, spot * ratio, tau, vol, rate=rate, cp=cp)
    other = black.bsm(spot * scale, spot * ratio * scale, tau, vol, rate=rate, cp=cp)
    size = spot * max(1.0, ratio * float(np.exp(-rate * tau))) * scale
    # ln(S/K) keeps the rounding of the scaled inputs, magnified by one over the deviation
    wobble = 1e-13 + 4e-16 / (vol * np.sqrt(tau))
    assert abs(other.price - scale * one.price) <= wobble * size
    assert abs(other.delta - one.delta) <= wobble


@quick
@given(spots, ratios, taus, st.tuples(vols, vols), rates, sides)
def test_rises_with_vol(spot: float, ratio: float, tau: float, pair: tuple[float, float], rate: float, cp: int) -> None:
    """More vol never makes an option cheaper."""
    low, high = (black.bsm(spot, spot * ratio, tau, v, rate=rate, cp=cp).price for v in sorted(pair))
    assert high >= low - 1e-13 * spot * max(1.0, ratio * float(np.exp(-rate * tau)))


@quick
@given(spots, ratios, taus, vols, rates, rates, sides)
def test_compiled_equals_readable(
    spot: float, ratio: float, tau: float, vol: float, rate: float, dividend: float, cp: int
) -> None:
    """The compiled five outputs are the readable ones to rounding."""
    strike = spot * ratio
    fast = black.greeks_slice(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp)
    slow = black.bsm(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp)
    scale = max(spot * np.exp(-dividend * tau), strike * np.exp(-rate * tau))
    # d is known to a few units in its last place, and the density turns that into d^2 of them
    w = vol * np.sqrt(tau)
    d = min(abs(np.log(ratio)) / w + abs(rate - dividend) * tau / w + w, 40.0)
    rtol = 1e-12 + 4e-16 * (d * d + abs(d) * (1.0 + abs(np.log(ratio))) / w)
    np.testing.assert_allclose(fast.price, slow.price, rtol=rtol, atol=1e-14 * scale)
    np.testing.assert_allclose(fast.delta, slow.delta, rtol=rtol, atol=1e-15)
    np.testing.assert_allclose(fast.gamma, slow.gamma, rtol=rtol, atol=1e-290)
    np.testing.assert_allclose(fast.vega, slow.vega, rtol=rtol, atol=1e-290)


@quick
@given(spots, st.floats(-6.0, 6.0), taus, st.floats(1e-3, 3.0), sides)
def test_implied_vol_reprices(forward: float, deviations: float, tau: float, total: float, cp: int) -> None:
    """The implied vol gives the price back to rounding wherever it says OK, and else says why not."""
    strike = forward * float(np.exp(deviations * total))
    vol = total / float(np.sqrt(tau))
    price = float(black.black76(forward, strike, tau, vol, cp=cp).price)
    found, status = implied.vol(price, forward, strike, tau, cp=cp)
    if status != Status.OK:
        assert np.isnan(found)
        assert status in {Status.AT_INTRINSIC, Status.BELOW_INTRINSIC, Status.ABOVE_BOUND}
        return
    back = float(black.black76(forward, strike, tau, found, cp=cp).price)
    assert abs(back - price) <= 1e-14 * max(forward, strike)


@quick
@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_any_floats_at_all_are_answered(a: float, b: float, c: float, d: float) -> None:
    """Whatever the numbers, a batch never raises nor spoils a neighbour; a price or vol is there when its status says so."""
    row = black.bsm(a, b, c, d)
    assert (row.status > Status.EXPIRED) == bool(np.isnan(row.price))
    batch = black.greeks_slice([a, 100.0], [b, 100.0], [c, 0.25], [d, 0.2])
    alone = black.greeks_slice(100.0, 100.0, 0.25, 0.2)
    assert all(column[1] == one for column, one in zip(batch, alone, strict=True))
    found, status = implied.vol([a, 4.0], [b, 100.0], [c, 100.0], [d, 0.25])
    assert (status[0] == Status.OK) == bool(np.isfinite(found[0]))
    assert status[1] == Status.OK
