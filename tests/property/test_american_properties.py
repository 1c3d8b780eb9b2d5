"""American prices for any ordinary contract: bounds, monotone, convex, homogeneous, symmetric, statuses."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.pricing import american, black
from bot.pricing.status import Status

SPOT = st.floats(40.0, 250.0)
TAU = st.floats(0.002, 4.0)
VOL = st.floats(0.05, 1.2)
RATE = st.floats(0.0, 0.12)
YIELD = st.floats(0.0, 0.12)
SIDE = st.sampled_from([-1, 1])

ROUGH = 1e-5
"""What "default" promises on a strike of 100."""


def found(spot: object, tau: float, vol: object, r: float, q: float, cp: int) -> american.AmericanGreeks:
    return american.price(spot, 100.0, tau, vol, rate=r, dividend=q, cp=cp)  # type: ignore[arg-type]  # floats or arrays


@settings(max_examples=60, deadline=None)
@given(spot=SPOT, tau=TAU, vol=VOL, r=RATE, q=YIELD, cp=SIDE)
def test_bounds(spot: float, tau: float, vol: float, r: float, q: float, cp: int) -> None:
    """An American option is worth at least exercise and its European twin, at most the spot or the strike."""
    one = found(spot, tau, vol, r, q, cp)
    european = black.bsm(spot, 100.0, tau, vol, rate=r, dividend=q, cp=cp)
    assert one.status == Status.OK
    assert one.price >= cp * (spot - 100.0)
    assert one.price >= european.price - ROUGH
    assert one.price <= (spot if cp > 0 else 100.0) + 1e-12
    assert 0.0 <= cp * one.delta <= 1.0
    assert one.gamma >= 0.0
    assert one.vega >= 0.0


@settings(max_examples=40, deadline=None)
@given(spot=SPOT, tau=TAU, vol=VOL, r=RATE, q=YIELD, cp=SIDE)
def test_monotone_and_convex(spot: float, tau: float, vol: float, r: float, q: float, cp: int) -> None:
    """The price never falls with time or vol, moves with the spot on its side, and is convex in it."""
    spots = spot * np.array([0.97, 1.0, 1.03])
    row = found(spots, tau, vol, r, q, cp).price
    assert np.all(cp * np.diff(row) >= -ROUGH)
    assert row[0] - 2.0 * row[1] + row[2] >= -4.0 * ROUGH
    assert np.all(np.diff(found(spot, tau, np.array([vol, 1.1 * vol, 1.3 * vol]), r, q, cp).price) >= -2.0 * ROUGH)
    assert found(spot, 1.2 * tau, vol, r, q, cp).price >= row[1] - 2.0 * ROUGH


@settings(max_examples=40, deadline=None)
@given(spot=SPOT, tau=TAU, vol=VOL, r=RATE, q=YIELD, cp=SIDE, scale=st.sampled_from([0.25, 4.0, 1024.0]))
def test_homogeneous(spot: float, tau: float, vol: float, r: float, q: float, cp: int, scale: float) -> None:
    """Spot and strike in other units: the price scales, delta stays, gamma shrinks; by powers of two to the bit."""
    one = found(spot, tau, vol, r, q, cp)
    other = american.price(spot * scale, 100.0 * scale, tau, vol, rate=r, dividend=q, cp=cp)
    assert other.price == one.price * scale
    assert other.delta == one.delta
    assert other.gamma == one.gamma / scale


@settings(max_examples=40, deadline=None)
@given(spot=SPOT, tau=TAU, vol=VOL, r=RATE, q=YIELD)
def test_call_is_the_exchanged_put(spot: float, tau: float, vol: float, r: float, q: float) -> None:
    """A call on S with strike K, r, q is the put on K with strike S, q, r (McDonald and Schroder 1998); vega too."""
    call = american.price(spot, 100.0, tau, vol, rate=r, dividend=q, cp=1)
    put = american.price(100.0, spot, tau, vol, rate=q, dividend=r, cp=-1)
    assert abs(call.price - put.price) <= 1e-9
    assert abs(call.vega - put.vega) <= 1e-7 * (1.0 + abs(put.vega))
    assert abs(call.theta - put.theta) <= 1e-7 * (1.0 + abs(put.theta))


@settings(max_examples=40, deadline=None)
@given(spot=SPOT, tau=TAU, vol=VOL, r=RATE, q=YIELD, cp=SIDE)
def test_greeks_obey_the_equation(spot: float, tau: float, vol: float, r: float, q: float, cp: int) -> None:
    """theta + (r - q) S delta + vol^2 S^2 gamma / 2 = r V while held, and theta is never positive when r, q >= 0."""
    one = found(spot, tau, vol, r, q, cp)
    gain = r if cp < 0 else q  # without it nothing is ever exercised
    if gain * tau >= american.NO_GAIN and one.price <= cp * (spot - 100.0):
        assert [float(x) for x in (one.gamma, one.vega, one.theta, one.rho)] == [0.0] * 4
        return
    drift = (r - q) * spot * float(one.delta) + 0.5 * vol * vol * spot * spot * float(one.gamma)
    assert abs(float(one.theta) + drift - r * float(one.price)) <= 1e-9 * (1.0 + abs(drift))
    assert one.theta <= 1e-3


ANY = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=80, deadline=None)
@given(spot=ANY, strike=ANY, tau=ANY, vol=ANY, r=ANY, q=ANY, cp=st.sampled_from([-1.0, 0.0, 1.0, float("nan")]))
def test_any_row_has_a_status(
    spot: float, strike: float, tau: float, vol: float, r: float, q: float, cp: float
) -> None:
    """Whatever a row holds it never raises: finite numbers with OK, LIMIT or EXPIRED, else NaN; its neighbour is untouched."""
    rows = american.price(
        [spot, 100.0], [strike, 100.0], [tau, 1.0], [vol, 0.2], rate=[r, 0.05], dividend=[q, 0.0], cp=[cp, -1]
    )
    alone = american.price(100.0, 100.0, 1.0, 0.2, rate=0.05, cp=-1)
    assert rows.price[1] == alone.price
    assert rows.vega[1] == alone.vega
    if rows.status[0] not in {Status.OK, Status.LIMIT, Status.EXPIRED}:
        assert np.isnan(rows.price[0])
    elif rows.status[0] == Status.OK:
        assert np.isfinite(rows.price[0])
