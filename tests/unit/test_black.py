"""Black-Scholes-Merton and Black-76: published values, a bump oracle, limits, statuses, compiled against readable."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from bot.domain.units import NS_PER_DAY, NS_PER_YEAR
from bot.pricing import black
from bot.pricing.status import Status

# Hull: Options, Futures, and Other Derivatives, 10th ed., examples 15.6 and 18.6 and chapter 19 (S=49 option of 19.1).
# Haug: The Complete Guide to Option Pricing Formulas, 2nd ed. 2007, sections 1.1.1-1.1.5.
PRICES = [
    ("Hull 15.6 call", lambda: black.bsm(42, 40, 0.5, 0.2, rate=0.1), 4.76, 2),
    ("Hull 15.6 put", lambda: black.bsm(42, 40, 0.5, 0.2, rate=0.1, cp=-1), 0.81, 2),
    ("Hull 18.6 put on a future", lambda: black.black76(20, 20, 4 / 12, 0.25, rate=0.09, cp=-1), 1.12, 2),
    ("Haug 1.1.1 call", lambda: black.bsm(60, 65, 0.25, 0.3, rate=0.08), 2.1334, 4),
    ("Haug 1.1.2 put with a yield", lambda: black.bsm(100, 95, 0.5, 0.2, rate=0.1, dividend=0.05, cp=-1), 2.4648, 4),
    ("Haug 1.1.4 call on a future", lambda: black.black76(19, 19, 0.75, 0.28, rate=0.1), 1.7011, 4),
    ("Haug 1.1.4 put on a future", lambda: black.black76(19, 19, 0.75, 0.28, rate=0.1, cp=-1), 1.7011, 4),
    ("Haug 1.1.5 call on a currency", lambda: black.bsm(1.56, 1.6, 0.5, 0.12, rate=0.06, dividend=0.08), 0.0291, 4),
]

GREEKS = [
    ("Hull ch. 19", "delta", lambda: black.bsm(49, 50, 0.3846, 0.2, rate=0.05), 0.522, 3),
    ("Hull ch. 19", "gamma", lambda: black.bsm(49, 50, 0.3846, 0.2, rate=0.05), 0.066, 3),
    ("Hull ch. 19", "theta", lambda: black.bsm(49, 50, 0.3846, 0.2, rate=0.05), -4.31, 2),
    ("Hull ch. 19", "vega", lambda: black.bsm(49, 50, 0.3846, 0.2, rate=0.05), 12.1, 1),
    ("Hull ch. 19", "rho", lambda: black.bsm(49, 50, 0.3846, 0.2, rate=0.05), 8.91, 2),
    ("Haug ch. 2", "delta", lambda: black.black76(105, 100, 0.5, 0.36, rate=0.1), 0.5946, 4),
    ("Haug ch. 2", "delta", lambda: black.black76(105, 100, 0.5, 0.36, rate=0.1, cp=-1), -0.3566, 4),
    ("Haug ch. 2", "gamma", lambda: black.bsm(55, 60, 0.75, 0.3, rate=0.1), 0.0278, 4),
    ("Haug ch. 2", "vega", lambda: black.bsm(55, 60, 0.75, 0.3, rate=0.105, dividend=0.0355), 18.5027, 4),
    ("Haug ch. 2", "theta", lambda: black.bsm(430, 405, 1 / 12, 0.2, rate=0.07, dividend=0.05, cp=-1), -31.1924, 1),
    ("Haug ch. 2", "rho", lambda: black.bsm(72, 75, 1, 0.19, rate=0.09), 38.7325, 4),
]

GRID = [
    (spot, strike, tau, vol, rate, dividend, cp)
    for spot, strike in ((100.0, 100.0), (100.0, 80.0), (90.0, 120.0))
    for tau in (0.05, 1.5)
    for vol in (0.1, 0.6)
    for rate, dividend in ((0.0, 0.0), (0.07, 0.02), (-0.01, 0.05))
    for cp in (1, -1)
]


@pytest.mark.parametrize(("source", "value", "expected", "digits"), PRICES)
def test_published_prices(source: str, value: Callable[[], black.BlackGreeks], expected: float, digits: int) -> None:
    """Textbook prices come out to the digits printed."""
    assert round(float(value().price), digits) == expected, source


@pytest.mark.parametrize(("source", "name", "value", "expected", "digits"), GREEKS)
def test_published_greeks(
    source: str, name: str, value: Callable[[], black.BlackGreeks], expected: float, digits: int
) -> None:
    """Textbook Greeks come out to the digits printed."""
    assert round(float(getattr(value(), name)), digits) == pytest.approx(expected, abs=10**-digits / 2), source


def _slope(f: Callable[[float], float], x: float, h: float) -> float:
    """The derivative by a fourth-order central difference."""
    return (8.0 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12.0 * h)


@pytest.mark.parametrize(("spot", "strike", "tau", "vol", "rate", "dividend", "cp"), GRID)
def test_every_greek_is_the_bump_of_what_it_derives(
    spot: float, strike: float, tau: float, vol: float, rate: float, dividend: float, cp: int
) -> None:
    """Each Greek equals the finite difference of the price or of the Greek it is the derivative of."""
    base = {"spot": spot, "strike": strike, "tau": tau, "vol": vol, "rate": rate, "dividend": dividend}

    def of(name: str, argument: str) -> Callable[[float], float]:
        def value(x: float) -> float:
            a = {**base, argument: x}
            row = black.bsm(a["spot"], a["strike"], a["tau"], a["vol"], rate=a["rate"], dividend=a["dividend"], cp=cp)
            return float(getattr(row, name))

        return value

    exact = black.bsm(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp)
    for greek, name, argument, sign in (
        ("delta", "price", "spot", 1),
        ("gamma", "delta", "spot", 1),
        ("vega", "price", "vol", 1),
        ("theta", "price", "tau", -1),
        ("rho", "price", "rate", 1),
        ("rho_q", "price", "dividend", 1),
        ("vanna", "delta", "vol", 1),
        ("volga", "vega", "vol", 1),
        ("charm", "delta", "tau", -1),
        ("speed", "gamma", "spot", 1),
        ("zomma", "gamma", "vol", 1),
        ("dual_delta", "price", "strike", 1),
    ):
        h = 2e-4 * (abs(base[argument]) if argument not in {"rate", "dividend"} else 1.0)
        bumped = sign * _slope(of(name, argument), base[argument], h)
        assert float(getattr(exact, greek)) == pytest.approx(bumped, rel=1e-6, abs=1e-7), greek


@pytest.mark.parametrize("cp", [1, -1])
def test_black76_greeks_hold_the_forward(cp: int) -> None:
    """On a forward, delta has the discount in it, and theta unwinds the discount only when a rate is told."""
    F, K, T, v, r = 105.0, 100.0, 0.5, 0.3, 0.04
    told = black.black76(F, K, T, v, rate=r, cp=cp)
    untold = black.black76(F, K, T, v, discount=np.exp(-r * T), cp=cp)
    assert told.price == untold.price
    assert told.delta == untold.delta
    assert float(told.delta) == pytest.approx(
        _slope(lambda x: float(black.black76(x, K, T, v, rate=r, cp=cp).price), F, 0.01), rel=1e-9
    )
    assert float(told.theta) == pytest.approx(
        -_slope(lambda x: float(black.black76(F, K, x, v, rate=r, cp=cp).price), T, 1e-4), rel=1e-8
    )
    assert float(told.theta - untold.theta) == pytest.approx(r * float(told.price), rel=1e-12)
    assert float(told.charm - untold.charm) == pytest.approx(r * float(told.delta), rel=1e-12)
    assert float(told.rho) == pytest.approx(-T * float(told.price), rel=1e-12)


def test_black76_refuses_two_words_on_the_discount() -> None:
    """A discount factor and a rate together are refused."""
    with pytest.raises(ValueError, match="discount or rate"):
        black.black76(100, 100, 1, 0.2, discount=0.9, rate=0.1)


def test_bsm_equals_black76_on_its_forward() -> None:
    """A spot option is worth what the option on its forward is worth."""
    S, K, T, v, r, q = 100.0, np.array([60.0, 100.0, 170.0]), 0.7, 0.25, 0.03, 0.06
    spot = black.bsm(S, K, T, v, rate=r, dividend=q)
    forward = black.black76(S * np.exp((r - q) * T), K, T, v, rate=r)
    np.testing.assert_allclose(spot.price, forward.price, rtol=1e-12)
    np.testing.assert_allclose(spot.vega, forward.vega, rtol=1e-12)


@pytest.mark.parametrize(("tau", "vol"), [(0.0, 0.2), (1.0, 0.0), (0.0, 0.0)])
def test_limits_without_time_or_vol_are_the_payoffs(tau: float, vol: float) -> None:
    """With no time or no vol left price is the payoff, delta 1, 1/2 at the kink or 0, gamma 0, all finite."""
    row = black.bsm([90.0, 100.0, 110.0], 100.0, tau, vol)
    assert row.price.tolist() == [0.0, 0.0, 10.0]
    assert row.delta.tolist() == [0.0, 0.5, 1.0]
    assert row.gamma.tolist() == [0.0, 0.0, 0.0]
    assert row.status.tolist() == [Status.LIMIT] * 3
    assert all(np.isfinite(column).all() for column in row)


def test_limits_of_spot_and_strike_at_zero() -> None:
    """A dead spot makes a put worth its discounted strike; a zero strike makes a call the share."""
    put = black.bsm(0.0, 100.0, 1.0, 0.2, rate=0.05, cp=-1)
    call = black.bsm(100.0, 0.0, 1.0, 0.2, dividend=0.03)
    assert float(put.price) == pytest.approx(100 * np.exp(-0.05))
    assert float(call.price) == pytest.approx(100 * np.exp(-0.03))
    assert float(put.delta) == -1.0
    assert float(call.gamma) == 0.0


def test_bad_rows_are_marked_and_spoil_no_neighbour() -> None:
    """NaN, infinite, negative and expired inputs get their status, and good rows beside them are bitwise as when alone."""
    spot = np.array([100.0, np.nan, np.inf, -1.0, 100.0, 100.0, 100.0])
    tau = np.array([0.5, 0.5, 0.5, 0.5, -1e-9, 0.5, 0.5])
    vol = np.array([0.2, 0.2, 0.2, 0.2, np.nan, -0.1, np.nan])
    rows = black.bsm(spot, 100.0, tau, vol)
    assert rows.status.tolist() == [
        Status.OK,
        Status.NOT_FINITE,
        Status.NOT_FINITE,
        Status.OUT_OF_DOMAIN,
        Status.EXPIRED,
        Status.OUT_OF_DOMAIN,
        Status.NOT_FINITE,
    ]
    assert rows.price[4] == rows.delta[4] == 0.0
    assert np.isnan(np.delete(rows.price, [0, 4])).all()
    alone = black.bsm(100.0, 100.0, 0.5, 0.2)
    assert all(np.asarray(column)[0] == one for column, one in zip(rows, alone, strict=True))
    assert black.bsm(100.0, 100.0, 1.0, 0.2, cp=0).status == Status.OUT_OF_DOMAIN


def test_inputs_of_any_layout_are_read_and_not_written() -> None:
    """Integers, float32, reversed and read-only views give what contiguous float64 gives, and stay as they were."""
    strikes = np.array([80, 90, 100, 110], dtype=np.int64)
    frozen = strikes[::-1].astype(np.float32)
    frozen.flags.writeable = False
    plain = black.bsm(100.0, [110.0, 100.0, 90.0, 80.0], 0.5, 0.2)
    for given in (strikes[::-1], frozen):
        assert black.bsm(100.0, given, 0.5, 0.2).price.tolist() == plain.price.tolist()
        assert black.greeks_slice(100.0, given, 0.5, 0.2).price.shape == (4,)
    assert strikes.tolist() == [80, 90, 100, 110]


def _random_slice(seed: int, n: int) -> tuple[np.ndarray, int]:
    rng = np.random.default_rng(seed)
    epoch = 1_578_268_800_000_000_000
    packed = black.pack_slice(
        strike=rng.uniform(60, 160, n),
        expiry=epoch + rng.integers(NS_PER_DAY // 100, 800 * NS_PER_DAY, n),
        vol=rng.uniform(0.03, 1.2, n),
        cp=rng.choice([-1, 1], n),
        weight=rng.uniform(-100, 100, n),
        epoch=epoch,
    )
    return packed, NS_PER_DAY // 200


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rate", "dividend"), [(0.0, 0.0), (0.04, 0.0), (0.03, 0.03), (-0.02, 0.05)])
def test_slice_kernel_equals_its_readable_twin(seed: int, rate: float, dividend: float) -> None:
    """Net delta and gamma of a packed slice equal the sums of `bsm`, or of `black76` where dividend = rate."""
    packed, elapsed = _random_slice(seed, 50)
    fast = black.slice_kernel()(103.5, elapsed, packed, rate, dividend)
    slow = black.net_by_formula(103.5, elapsed, packed, rate, dividend)
    scale = np.abs(packed[:, 4]).sum()
    assert fast[0] == pytest.approx(slow[0], rel=1e-12, abs=1e-14 * scale)
    assert fast[1] == pytest.approx(slow[1], rel=1e-12, abs=1e-14 * scale)
    if rate == dividend:
        tau = (packed[:, 1] - elapsed) / NS_PER_YEAR
        rows = black.black76(103.5, packed[:, 0], tau, packed[:, 2], rate=rate, cp=packed[:, 3])
        assert fast[0] == pytest.approx(float(rows.delta @ packed[:, 4]), rel=1e-11)


def test_slice_kernel_at_and_after_expiry() -> None:
    """At expiry a contract adds its payoff's delta, 1/2 at the kink; a nanosecond later it adds nothing."""
    packed = black.pack_slice(
        strike=[90.0, 100.0, 110.0, 90.0], expiry=1_000, vol=0.2, cp=[1, 1, 1, -1], weight=[1, 2, 4, 8], epoch=0
    )
    net = black.slice_kernel()
    assert net(100.0, 1_000, packed, 0.0, 0.0) == (1.0 + 2 * 0.5, 0.0)
    assert net(100.0, 1_001, packed, 0.0, 0.0) == (0.0, 0.0)
    assert black.net_by_formula(100.0, 1_000, packed, 0.0, 0.0) == (2.0, 0.0)
    assert black.net_by_formula(100.0, 1_001, packed, 0.0, 0.0) == (0.0, 0.0)


@pytest.mark.parametrize("net", [black.slice_kernel(), black.net_by_formula])
def test_unknown_is_never_zero(net: black.SliceKernel) -> None:
    """An unknown vol of a live contract or an unknown spot makes the sums NaN; that of an expired contract does not."""
    packed = black.pack_slice(
        strike=100.0, expiry=[NS_PER_YEAR, NS_PER_DAY], vol=[0.2, np.nan], cp=1, weight=1.0, epoch=0
    )
    assert np.isnan(net(100.0, 0, packed, 0.0, 0.0)).all()
    after = net(100.0, 2 * NS_PER_DAY, packed, 0.0, 0.0)
    assert np.isfinite(after).all()
    assert after[0] > 0.5
    assert np.isnan(net(float("nan"), 2 * NS_PER_DAY, packed, 0.0, 0.0)).all()
    assert np.isnan(net(100.0, 2 * NS_PER_DAY, packed, float("nan"), 0.0)).all()


def test_pack_slice_refuses_a_side_that_is_none() -> None:
    """A cp other than +1 and -1 is refused with what was found."""
    with pytest.raises(ValueError, match="cp: expected"):
        black.pack_slice(strike=100.0, expiry=1, vol=0.2, cp=[1, 0], weight=1.0, epoch=0)


def test_pack_slice_keeps_nanoseconds_near_expiry() -> None:
    """Times relative to the epoch keep single nanoseconds that an absolute float would lose."""
    epoch = 1_700_000_000_000_000_123
    packed = black.pack_slice(strike=100.0, expiry=epoch + 7, vol=0.2, cp=1, weight=1.0, epoch=epoch)
    assert packed[0, 1] == 7.0


def test_greeks_slice_equals_bsm() -> None:
    """The compiled five outputs equal the readable ones, limits, expiry and unknown rows included."""
    rng = np.random.default_rng(11)
    n = 2_000
    spot, strike = rng.uniform(50, 200, n), rng.uniform(50, 200, n)
    tau, vol, cp = rng.uniform(1e-4, 3, n), rng.uniform(0.02, 1.5, n), rng.choice([-1, 1], n)
    tau[:3], vol[3:6], vol[6], tau[7], spot[8] = 0.0, 0.0, np.nan, -1.0, 0.0
    strike[0], strike[3] = spot[0], spot[3]
    for rate, dividend in ((0.05, 0.02), (0.0, 0.0), (0.03, 0.03)):
        fast = black.greeks_slice(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp)
        slow = black.bsm(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp)
        for name in fast._fields:
            np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=1e-11, atol=1e-12, err_msg=name)


def test_a_row_alone_and_in_a_batch_are_the_same_bits() -> None:
    """A compiled row does not depend on its neighbours."""
    strikes = np.linspace(50, 150, 37)
    batch = black.greeks_slice(100.0, strikes, 0.3, 0.25, rate=0.02)
    for i, strike in enumerate(strikes):
        alone = black.greeks_slice(100.0, strike, 0.3, 0.25, rate=0.02)
        assert all(a[i] == b for a, b in zip(batch, alone, strict=True))


def test_importing_the_module_does_not_import_the_compiler() -> None:
    """Who does not price does not pay for numba."""
    code = "import sys, bot.pricing.black, bot.pricing.implied, bot.pricing.paths; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _garbage(seed: int, n: int) -> list[np.ndarray]:
    """Columns of floats of random bits, of the ends of the float range, and of sane numbers, mixed."""
    rng = np.random.default_rng(seed)
    ends = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 1e308, 1e160, 1e-160, 5e-324]
    sane = [(50, 150), (50, 150), (0, 2), (0, 1), (-0.2, 0.5), (-0.2, 0.5)]
    columns = []
    for low, high in sane:
        bits = rng.integers(0, 2**64, n, dtype=np.uint64).view(np.float64)
        choice = rng.random(n)
        columns.append(np.select([choice < 0.2, choice < 0.4], [bits, rng.choice(ends, n)], rng.uniform(low, high, n)))
    columns.append(
        np.where(rng.random(n) < 0.1, rng.choice([0.0, 0.5, np.nan, -np.inf], n), rng.choice([-1.0, 1.0], n))
    )
    return columns


@pytest.mark.parametrize("seed", range(3))
def test_both_forms_refuse_the_same_garbage(seed: int) -> None:
    """Floats of any bits are NaN in the compiled form exactly where they are in the readable one; the rest is finite."""
    spot, strike, tau, vol, rate, dividend, cp = _garbage(seed, 40_000)
    slow = black.bsm(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp)
    fast = black.greeks_slice(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=cp)
    bad = slow.status > Status.EXPIRED
    assert 0.2 < bad.mean() < 0.95
    for name in fast._fields:
        for column in (getattr(fast, name), getattr(slow, name)):
            np.testing.assert_array_equal(np.isnan(column), bad, err_msg=name)
            assert np.isfinite(column[~bad]).all(), name
            assert (column[slow.status == Status.EXPIRED] == 0.0).all(), name


def test_what_overflows_is_refused_and_what_is_nothing_is_none() -> None:
    """Products beyond the float range and a negative discount are out of domain; a spot below 1e-150 is no spot."""
    assert black.bsm(1e160, 100.0, 1.0, 0.2).status == Status.OUT_OF_DOMAIN
    assert black.bsm(100.0, 100.0, 10.0, 0.2, rate=-100.0).status == Status.OUT_OF_DOMAIN
    assert black.black76(100.0, 100.0, 1.0, 0.2, discount=-0.5).status == Status.OUT_OF_DOMAIN
    for row in (black.bsm(1e-200, 100.0, 1.0, 0.2, cp=-1), black.greeks_slice(1e-200, 100.0, 1.0, 0.2, cp=-1)):
        assert (row.price, row.delta, row.gamma) == (100.0, -1.0, 0.0)


def test_charm_of_a_moment_is_finite() -> None:
    """With next to no time left charm away from the kink is 0, not the product of a nought and an infinity."""
    row = black.bsm([90.0, 110.0], 100.0, 1e-200, 0.2)
    assert row.charm.tolist() == [0.0, 0.0]
    assert all(np.isfinite(column).all() for column in row)


def test_threads_change_no_bit() -> None:
    """A long batch on two or five threads is the batch on one; fewer than one thread is refused."""
    rng = np.random.default_rng(12)
    n = 10 * black.CHUNK + 7
    strike, tau, vol = rng.uniform(50, 200, n), rng.uniform(1e-4, 3, n), rng.uniform(0.02, 1.5, n)
    alone = black.greeks_slice(100.0, strike, tau, vol, rate=0.03)
    for threads in (2, 5):
        shared = black.greeks_slice(100.0, strike, tau, vol, rate=0.03, threads=threads)
        np.testing.assert_array_equal(np.array(shared), np.array(alone))
    with pytest.raises(ValueError, match="threads: expected 1 or more, found 0"):
        black.greeks_slice(100.0, strike, tau, vol, threads=0)


@pytest.mark.parametrize("threads", [1, 2, 3, 50])
def test_chunks_cover_every_row_once_and_an_error_is_raised_here(threads: int) -> None:
    """On any number of threads each row is worked on once, and an error in any of them reaches the caller."""
    count = 7 * black.CHUNK + 1
    seen = np.zeros(count, dtype=np.int64)

    def work(start: int, stop: int) -> None:
        seen[start:stop] += 1

    black.in_chunks(work, count, threads)
    assert (seen == 1).all()

    def fail(start: int, stop: int) -> None:
        if stop == count:
            raise OverflowError("the last rows")

    with pytest.raises(OverflowError, match="the last rows"):
        black.in_chunks(fail, count, threads)
    black.in_chunks(fail, 0, threads)
