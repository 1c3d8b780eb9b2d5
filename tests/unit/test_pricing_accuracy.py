"""Prices, Greeks and vols against 50-digit arithmetic and QuantLib, over ordinary and extreme inputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
import QuantLib
from mpmath import erfc, exp, log, mp, mpf, pi, sqrt

from bot.pricing import black, bump, digital, implied, smile
from bot.pricing.status import Status

NAMES = (
    "price",
    "delta",
    "gamma",
    "vega",
    "theta",
    "rho",
    "rho_q",
    "vanna",
    "volga",
    "charm",
    "speed",
    "zomma",
    "dual_delta",
)


class Rows(NamedTuple):
    """Contracts as columns."""

    spot: np.ndarray
    strike: np.ndarray
    tau: np.ndarray
    vol: np.ndarray
    rate: np.ndarray
    dividend: np.ndarray
    cp: np.ndarray


def _ordinary(seed: int, n: int) -> Rows:
    """Contracts as a desk meets them: a minute to five years, vols of 3% to 150%, up to six deviations out."""
    rng = np.random.default_rng(seed)
    spot = np.exp(rng.uniform(-2, 9, n))
    tau, vol = np.exp(rng.uniform(np.log(2e-6), np.log(5), n)), rng.uniform(0.03, 1.5, n)
    strike = spot * np.exp(rng.uniform(-6, 6, n) * vol * np.sqrt(tau))
    return Rows(
        spot, strike, tau, vol, rng.uniform(-0.05, 0.15, n), rng.uniform(-0.05, 0.15, n), rng.choice([-1.0, 1.0], n)
    )


def _extreme(seed: int, n: int) -> Rows:
    """Inputs at the ends of their ranges."""
    rng = np.random.default_rng(seed)
    spot = rng.choice([1.0, 100.0, 4000.0], n)
    strike = np.exp(rng.uniform(np.log(1e-6), np.log(1e8), n))
    near = rng.random(n) < 0.6
    tau = np.exp(rng.uniform(np.log(1e-12), np.log(30), n))
    vol = np.exp(rng.uniform(np.log(1e-6), np.log(20), n))
    strike = np.where(near, spot * np.exp(rng.normal(0, 3, n) * np.minimum(vol * np.sqrt(tau), 3.0)), strike)
    return Rows(
        spot, strike, tau, vol, rng.uniform(-0.2, 0.5, n), rng.uniform(-0.2, 0.5, n), rng.choice([-1.0, 1.0], n)
    )


def _exact(rows: Rows, i: int) -> dict[str, Any]:
    """One contract's price and Greeks with 50 digits, from the textbook formulas as they stand."""
    S, K, T, v, r, q, c = (mpf(float(column[i])) for column in rows)
    w = v * sqrt(T)
    d1 = (log(S / K) + (r - q) * T) / w + w / 2
    d2 = d1 - w
    Dq, Dr = exp(-q * T), exp(-r * T)
    n = exp(-d1 * d1 / 2) / sqrt(2 * pi)
    above, below = erfc(-c * d1 / sqrt(mpf(2))) / 2, erfc(-c * d2 / sqrt(mpf(2))) / 2
    vega, gamma = S * Dq * n * sqrt(T), Dq * n / (S * w)
    return {
        "price": c * (S * Dq * above - K * Dr * below),
        "delta": c * Dq * above,
        "gamma": gamma,
        "vega": vega,
        "theta": c * (q * S * Dq * above - r * K * Dr * below) - S * Dq * n * v / (2 * sqrt(T)),
        "rho": c * T * K * Dr * below,
        "rho_q": -c * T * S * Dq * above,
        "vanna": -Dq * n * d2 / v,
        "volga": vega * d1 * d2 / v,
        "charm": c * q * Dq * above - Dq * n * (2 * (r - q) * T - d2 * w) / (2 * T * w),
        "speed": -gamma / S * (d1 / w + 1),
        "zomma": gamma * (d1 * d2 - 1) / v,
        "dual_delta": -c * Dr * below,
        "d": max(abs(d1), abs(d2)),
    }


def _bsm(rows: Rows) -> black.BlackGreeks:
    return black.bsm(*rows[:4], rate=rows.rate, dividend=rows.dividend, cp=rows.cp)


def _slice(rows: Rows) -> black.SliceGreeks:
    return black.greeks_slice(*rows[:4], rate=rows.rate, dividend=rows.dividend, cp=rows.cp)


@pytest.fixture(autouse=True)
def fifty_digits() -> Any:
    with mp.workdps(60):
        yield


@pytest.mark.parametrize("compiled", [False, True])
def test_ordinary_contracts_against_fifty_digits(compiled: bool) -> None:
    """Prices hold to 1e-13 of max(S, K), each Greek to 1e-10 of itself plus 1e-12 max(1, S)."""
    rows = _ordinary(1, 300)
    got: Any = _slice(rows) if compiled else _bsm(rows)
    for i in range(rows.spot.size):
        exact = _exact(rows, i)
        # Greeks divided by w once or twice carry the 1e-16 that ln(S/K) + (r - q) tau has, so many times as large
        assert abs(got.price[i] - float(exact["price"])) <= 1e-13 * max(rows.spot[i], rows.strike[i])
        for name in [n for n in got._fields if n not in {"price", "status"}]:
            allowed = 1e-10 * abs(exact[name]) + 1e-12 * max(1.0, rows.spot[i])
            assert abs(getattr(got, name)[i] - exact[name]) <= allowed, (name, i)


@pytest.mark.parametrize("compiled", [False, True])
def test_extreme_contracts_against_fifty_digits(compiled: bool) -> None:
    """At the ends of every range all is finite, nothing long is negative, and prices hold to a few units in the last place."""
    rows = _extreme(2, 600)
    got: Any = _slice(rows) if compiled else _bsm(rows)
    for column in got:
        assert np.isfinite(column).all()
    for column in (got.price, got.gamma, got.vega):
        assert (column >= 0.0).all()
    for i in range(rows.spot.size):
        exact = _exact(rows, i)
        s = max(rows.spot[i], rows.strike[i]) * max(
            1.0, float(np.exp(-min(rows.rate[i], rows.dividend[i]) * rows.tau[i]))
        )
        assert abs(got.price[i] - exact["price"]) <= 1.2e-15 * s + 1e-8 * abs(exact["price"]), i
        for name in ("delta", "gamma", "vega"):
            # what a relative 1e-16 of the drift (r - q) tau is in deviations, d times: the inputs' own conditioning
            assert abs(getattr(got, name)[i] - exact[name]) <= 1e-6 * abs(exact[name]) + 1e-12 * max(
                1.0, rows.spot[i]
            ), (name, i)


def test_far_tails_keep_their_digits() -> None:
    """An out-of-the-money price of 1e-200 still has eight digits, in the readable and the compiled form."""
    d = np.linspace(3.0, 30.0, 40)
    vol = 0.3
    strike = 100.0 * np.exp(d * vol)
    one = np.ones_like(d)
    rows = Rows(100.0 * one, strike, one, vol * one, 0.0 * one, 0.0 * one, one)
    for got in (_bsm(rows).price, _slice(rows).price):
        for i in range(d.size):
            exact = _exact(rows, i)["price"]
            assert abs(got[i] - exact) <= 1e-11 * exact


def test_against_quantlib() -> None:
    """Price and every Greek QuantLib has agree with it over a seeded book."""
    rows = _ordinary(3, 200)
    got = _bsm(rows)
    for i in range(rows.spot.size):
        S, K, T, v, r, q, c = (float(column[i]) for column in rows)
        payoff = QuantLib.PlainVanillaPayoff(QuantLib.Option.Call if c > 0 else QuantLib.Option.Put, K)
        forward, deviation = S * float(np.exp((r - q) * T)), v * float(np.sqrt(T))
        peer = QuantLib.BlackCalculator(payoff, forward, deviation, float(np.exp(-r * T)))
        scale = max(S, K)
        assert got.price[i] == pytest.approx(peer.value(), rel=1e-11, abs=1e-13 * scale)
        assert got.delta[i] == pytest.approx(peer.delta(S), rel=1e-10, abs=1e-12)
        assert got.gamma[i] == pytest.approx(peer.gamma(S), rel=1e-9, abs=1e-12 * max(1.0, scale))
        assert got.vega[i] == pytest.approx(peer.vega(T), rel=1e-9, abs=1e-12 * scale)
        assert got.rho[i] == pytest.approx(peer.rho(T), rel=1e-10, abs=1e-12 * scale)
        assert got.rho_q[i] == pytest.approx(peer.dividendRho(T), rel=1e-10, abs=1e-12 * scale)
        assert got.dual_delta[i] == pytest.approx(peer.strikeSensitivity(), rel=1e-10, abs=1e-12)


def test_bachelier_against_quantlib_and_bumps() -> None:
    """The normal model agrees with QuantLib, negative forwards too, and its Greeks with differences of its price."""
    rng = np.random.default_rng(4)
    n = 150
    F, K = rng.normal(0, 30, n), rng.normal(0, 30, n)
    T, v, D, c = rng.uniform(0.05, 3, n), rng.uniform(5, 40, n), rng.uniform(0.8, 1.05, n), rng.choice([-1, 1], n)
    got = black.bachelier(F, K, T, v, discount=D, cp=c)
    for i in range(n):
        side = QuantLib.Option.Call if c[i] > 0 else QuantLib.Option.Put
        sd = float(v[i] * np.sqrt(T[i]))
        assert got.price[i] == pytest.approx(
            QuantLib.bachelierBlackFormula(side, K[i], F[i], sd, D[i]), rel=1e-10, abs=1e-12
        )
    r = 0.03
    rated = black.bachelier(F, K, T, v, rate=r, cp=c)

    def price(F: Any, T: Any, v: Any) -> Any:
        return black.bachelier(F, K, T, v, rate=r, cp=c).price

    h = np.full(n, 1e-2)
    np.testing.assert_allclose(rated.delta, bump.slope(lambda x: price(F + x, T, v), h), atol=1e-8)
    np.testing.assert_allclose(rated.gamma, bump.curvature(lambda x: price(F + x, T, v), h), atol=1e-7)
    np.testing.assert_allclose(rated.vega, bump.slope(lambda x: price(F, T, v + x), h), atol=1e-7)
    np.testing.assert_allclose(rated.volga, bump.curvature(lambda x: price(F, T, v + x), h), atol=1e-6)
    np.testing.assert_allclose(rated.theta, -bump.slope(lambda x: price(F, T + x, v), h * T / 10), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(rated.dual_delta, -rated.delta, atol=0)


def test_bachelier_tails_and_limits() -> None:
    """Far out the normal price keeps its digits; without time the payoff is left, half a delta at the kink."""
    for d in (3.0, 19.9, 20.1, 30.0):
        x = mpf(d)
        exact = exp(-x * x / 2) / sqrt(2 * pi) - x * erfc(x / sqrt(mpf(2))) / 2
        assert abs(float(black.bachelier(0.0, d, 1.0, 1.0).price) / exact - 1) < 1e-11
    row = black.bachelier([-1.0, 0.0, 2.0], 0.0, 0.0, 1.0)
    assert row.price.tolist() == [0.0, 0.0, 2.0]
    assert row.delta.tolist() == [0.0, 0.5, 1.0]
    assert row.status.tolist() == [Status.LIMIT] * 3
    with pytest.raises(ValueError, match="discount or rate"):
        black.bachelier(1, 1, 1, 1, discount=0.9, rate=0.1)


@pytest.mark.parametrize("cp", [1, -1])
def test_digitals_make_up_the_plain_option(cp: int) -> None:
    """Asset digital minus strike cash digitals is the plain option, price and Greeks; digital Greeks are their bumps."""
    S, K, T, v, r, q = np.array([80.0, 99.0, 130.0]), 100.0, 0.4, 0.3, 0.04, 0.02
    cash = digital.cash(S, K, T, v, rate=r, dividend=q, cp=cp, payout=K)
    asset = digital.asset(S, K, T, v, rate=r, dividend=q, cp=cp)
    plain = black.bsm(S, K, T, v, rate=r, dividend=q, cp=cp)
    for name in ("price", "delta", "gamma", "vega", "theta", "rho"):
        whole = cp * (getattr(asset, name) - getattr(cash, name))
        np.testing.assert_allclose(whole, getattr(plain, name), rtol=1e-11, atol=1e-11, err_msg=name)
    for f, exact in ((digital.cash, cash), (digital.asset, asset)):
        more: dict[str, Any] = {"payout": K} if f is digital.cash else {}
        found = bump.greeks(
            lambda S, T, v, r, q, f=f, more=more: f(S, K, T, v, rate=r, dividend=q, cp=cp, **more).price,
            spot=S, tau=T, vol=v, rate=r, dividend=q,
        )  # fmt: skip
        for name in ("price", "delta", "gamma", "vega", "theta", "rho"):
            np.testing.assert_allclose(getattr(found, name), getattr(exact, name), rtol=1e-7, atol=1e-6, err_msg=name)


def test_digital_limits_and_bad_rows() -> None:
    """Without time a digital pays, pays half at the kink, or not; bad rows are marked alone."""
    row = digital.cash([90.0, 100.0, 110.0, np.nan, 100.0], 100.0, 0.0, 0.2, payout=[5.0, 5.0, 5.0, 5.0, np.nan])
    assert row.price[:3].tolist() == [0.0, 2.5, 5.0]
    assert row.gamma[:3].tolist() == [0.0, 0.0, 0.0]
    assert row.status.tolist() == [Status.LIMIT] * 3 + [Status.NOT_FINITE] * 2
    assert np.isnan(row.price[3:]).all()
    assert digital.asset(110.0, 100.0, 0.0, 0.2).price == 110.0
    assert digital.asset(110.0, 100.0, -1.0, 0.2).price == 0.0


def test_bumps_refuse_a_step_that_is_none() -> None:
    """A bump of nothing or of everything is refused."""
    with pytest.raises(ValueError, match="step: expected"):
        bump.greeks(lambda *market: market[0], spot=1.0, tau=1.0, vol=0.2, step=0.0)


def test_bumps_agree_with_every_formula() -> None:
    """The bump oracle and the formulas agree on each Greek both have."""
    S, K, T, v = 100.0, np.array([80.0, 100.0, 125.0]), 0.7, 0.35
    found = bump.greeks(
        lambda S, T, v, r, q: black.bsm(S, K, T, v, rate=r, dividend=q, cp=-1).price,
        spot=S, tau=np.full(3, T), vol=v, rate=0.03, dividend=0.01,
    )  # fmt: skip
    exact = black.bsm(S, K, T, v, rate=0.03, dividend=0.01, cp=-1)
    for name in found._fields:
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), rtol=1e-6, atol=1e-6, err_msg=name)


def test_smile_rules_are_the_slopes_of_their_smiles() -> None:
    """The delta of each rule is the derivative of the price along the smile that moves by that rule."""
    S, K, T, a, b = 100.0, 90.0, 0.5, 0.2, -0.3
    skew = b

    def price(spot: np.ndarray, R: float) -> np.ndarray:
        # a smile a + b ln(K/S0) that answers ln(S/S0) by R times its skew at the money, (R - 1) times at each strike
        vol = a + b * np.log(K / S) + (R - 1.0) * b * np.log(spot / S)
        return black.bsm(spot, K, T, vol).price

    row = black.bsm(S, K, T, a + b * np.log(K / S))
    for rule, R in smile.STICKINESS.items():
        bumped = bump.slope(lambda h, R=R: price(S + h, R), np.array(1e-2))
        total = smile.delta_with_smile(row.delta, row.vega, spot=S, skew=skew, stickiness=R)
        assert float(total) == pytest.approx(float(bumped), rel=1e-8), rule
    plain = smile.delta_with_smile(row.delta, row.vega, spot=S, skew=skew)
    assert plain == row.delta


def test_smile_slopes_by_name() -> None:
    """Hull-White and Bartlett slopes are their formulas, enter as `vol_slope`, and a future divides by its own slope."""
    slope = smile.hull_white_slope(0.5, spot=100.0, tau=0.25, a=-0.25, b=-0.4, c=0.5)
    assert float(slope) == pytest.approx((-0.25 - 0.2 + 0.125) / 50.0)
    assert float(smile.delta_with_smile(0.5, 20.0, spot=100.0, vol_slope=slope)) == pytest.approx(
        0.5 + 20.0 * float(slope)
    )
    bartlett = smile.bartlett_slope(-1e-3, 0.9, forward=100.0, beta=1.0, rho=-0.4, nu=0.6)
    assert float(bartlett) == pytest.approx(-1e-3 - 0.9 * 0.4 * 0.6 / 100.0)
    future = smile.delta_with_smile(0.5, 20.0, spot=100.0, hedge_slope=np.exp(0.02))
    assert float(future) == pytest.approx(0.5 * np.exp(-0.02))
    with pytest.raises(ValueError, match="found both"):
        smile.delta_with_smile(0.5, 20.0, spot=100.0, skew=-0.1, vol_slope=0.0)
    rows = smile.delta_with_smile([0.5, np.nan], 20.0, spot=100.0, skew=-0.1, stickiness=2.0)
    assert np.isfinite(rows).tolist() == [True, False]


def _exact_quotes(seed: int, n: int) -> tuple[np.ndarray, ...]:
    """Out-of-the-money prices, each the double nearest to the 60-digit one, of vols over the whole domain."""
    rng = np.random.default_rng(seed)
    kept: list[tuple[float, ...]] = []
    while len(kept) < n:
        F = float(np.exp(rng.uniform(-5, 9)))
        s = float(np.exp(rng.uniform(np.log(1e-3), np.log(12.0))))
        x = (
            rng.choice([rng.normal() * 2, rng.uniform(-36, 36), rng.normal() * 1e-3]) * s
            + rng.choice([-0.5, 0.5]) * s * s
        )
        if abs(x) > 25:
            continue
        K, T = F * float(np.exp(-x)), float(np.exp(rng.uniform(-8, 2)))
        v = s / float(np.sqrt(T))
        c = 1.0 if K >= F else -1.0
        one = np.array([1.0])
        exact = _exact(Rows(F * one, K * one, T * one, v * one, 0 * one, 0 * one, c * one), 0)
        if exact["price"] > 1e-290 and exact["vega"] > 1e-290:
            price = float(exact["price"])
            kept.append((price, F, K, T, c, v, float(np.spacing(price) / exact["vega"])))
    return tuple(np.array(column) for column in zip(*kept, strict=True))


def test_implied_vol_to_the_last_place_of_the_price() -> None:
    """From prices rounded once, the vol returns within 2 units in the price's last place plus 5e-15 of itself."""
    price, F, K, T, c, v, per_ulp = _exact_quotes(6, 700)
    found, status = implied.vol(price, F, K, T, cp=c)
    assert (status == Status.OK).all()
    assert (np.abs(found - v) <= 2 * per_ulp + 5e-15 * v).all()


def test_one_quote_and_a_batch_give_the_same_vol() -> None:
    """A quote as floats, as a row of its own and in a batch is the same bits and status, bad quotes too."""
    price, F, K, T, c, _, _ = _exact_quotes(7, 60)
    price[:4] = [0.0, -1.0, np.nan, 1e12]
    T[4:6] = [0.0, -1.0]
    F[6], K[7], c[8], K[9] = -1.0, 0.0, 0.5, np.inf
    batch = implied.vol(price, F, K, T, cp=c)
    for i in range(price.size):
        one = implied.vol(float(price[i]), float(F[i]), float(K[i]), float(T[i]), cp=float(c[i]))
        row = implied.vol(price[i : i + 1], F[i], K[i], T[i], cp=c[i])
        given: Any = [float(a[i]) for a in (price, F, K, T)]
        found = implied.quote_kernel()(*given, 1.0, float(c[i]))
        kernel, code = (found, 0) if found >= 0.0 else (np.nan, -found)
        assert one.status == row.status[0] == batch.status[i] == code
        np.testing.assert_array_equal([one.vol, row.vol[0], kernel], batch.vol[i])


def test_threads_agree() -> None:
    """Two threads that share the kernels get the bits of one."""
    rows = _ordinary(8, 40_000)
    alone = np.array(_slice(rows))
    halves: list[Any] = [None, None]

    def work(which: int) -> None:
        part = slice(which * 20_000, (which + 1) * 20_000)
        halves[which] = np.array(_slice(Rows(*(column[part] for column in rows))))

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), alone)


def test_a_batch_longer_than_a_chunk_is_its_rows() -> None:
    """Rows on both sides of a chunk's edge are the bits they have alone; `out` receives them; misfits are refused."""
    rows = _ordinary(9, black.CHUNK + 37)
    out = np.empty((5, rows.spot.size))
    whole = black.greeks_slice(*rows[:4], rate=0.03, dividend=rows.dividend, cp=rows.cp, out=out)
    assert whole.price.base is out
    for i in (0, black.CHUNK - 1, black.CHUNK, rows.spot.size - 1):
        alone = black.greeks_slice(
            *(float(column[i]) for column in rows[:4]), rate=0.03, dividend=rows.dividend[i], cp=rows.cp[i]
        )
        assert all(a[i] == b for a, b in zip(whole, alone, strict=True))
    with pytest.raises(ValueError, match="out: expected"):
        black.greeks_slice(100.0, [90.0, 100.0], 1.0, 0.2, out=np.empty((5, 3)))


LISTING = """
import re
from bot.pricing import implied_kernels, kernels
for kernel in (kernels.greeks_rows, kernels.net, implied_kernels.implied_rows):
    asm = "".join(kernel.inspect_asm().values())
    wide = len(re.findall(r"\\bv(?:mul|add|sub|div)pd\\s[^\\n]*[yz]mm", asm))
    narrow = len(re.findall(r"\\bv?(?:mul|add|sub|div)sd\\s", asm))
    fused = len(re.findall(r"\\bvfn?m(?:add|sub)", asm))
    print(kernel.__name__, wide, narrow, fused)
"""


def test_kernels_are_vector_code_without_contraction(tmp_path: Any) -> None:
    """A fresh compile does its arithmetic on wide registers, with no fused multiply-add that other processors lack.

    Each loop also has a narrow form for its last rows, so a loop left narrow shows as more narrow than wide arithmetic;
    the implied vols carry the bracketed search, which is narrow by nature.
    """
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", LISTING], env=env, check=True, capture_output=True, text=True)
    found = {
        name: (int(wide), int(narrow), int(fused))
        for name, wide, narrow, fused in map(str.split, done.stdout.splitlines())
    }
    assert found.keys() == {"greeks_rows", "net", "implied_rows"}
    assert [fused for _, _, fused in found.values()] == [0, 0, 0]
    if re.search(r"\bavx2\b", _processor_flags()) is None:
        return
    for name, share in (("greeks_rows", 0.8), ("net", 0.7), ("implied_rows", 0.6)):
        wide, narrow, _ = found[name]
        assert wide > 150, name
        assert wide >= share * narrow, name


def _processor_flags() -> str:
    import llvmlite.binding as llvm  # noqa: PLC0415  only this test asks what the host has

    return " ".join(name for name, there in llvm.get_host_cpu_features().items() if there)
