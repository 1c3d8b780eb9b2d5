"""American prices where they are hard, hundreds of deviations of drift over decades; and tables with the same bits anywhere."""

from __future__ import annotations

import hashlib
from typing import get_args

import numpy as np
import pytest
from mpmath import cos, legendre, mp, mpf, pi, sin

from bot.pricing import american, american_tables, american_tree, black
from bot.pricing.black import Array
from bot.pricing.status import Status


def perpetual_put(S: Array, K: float, vol: Array, r: Array, q: Array) -> Array:
    """A put without an end, b = k K / (k + 1) with -k the negative root of the equation (McKean 1965, Merton 1973)."""
    half = 0.5 - (r - q) / vol**2
    root = np.sqrt(half**2 + 2.0 * r / vol**2)
    k = np.where(half < 0.0, root - half, 2.0 * r / vol**2 / (root + half))
    b = k / (k + 1.0) * K
    value: Array = np.where(b >= S, K - S, (K - b) * np.exp(-k * np.log(np.maximum(S, b) / b)))
    return value


@pytest.mark.parametrize(("accuracy", "bound"), [("default", 2e-5), ("high", 2e-5), ("reference", 1e-7)])
def test_a_drift_out_of_exercise_makes_it_perpetual(accuracy: american.Accuracy, bound: float) -> None:
    """Where the spot drifts tens of deviations or more away, puts and calls are worth the closed form without an end."""
    rng = np.random.default_rng(31)
    n = 300
    vol = np.exp(rng.uniform(np.log(1e-3), np.log(0.08), n))
    r, q = rng.uniform(0.01, 0.15, n), rng.uniform(-0.05, 0.12, n)
    q = np.minimum(q, r - 0.01)
    tau = (rng.uniform(12.0, 300.0, n) * vol / (r - q)) ** 2
    S = 100.0 * np.exp(np.abs(rng.normal(0.0, 1.0, n)) * vol**2 / (r - q))
    put = american.price(S, 100.0, tau, vol, rate=r, dividend=q, cp=-1, accuracy=accuracy)
    call = american.price(100.0, S, tau, vol, rate=q, dividend=r, cp=1, accuracy=accuracy)
    closed = perpetual_put(S, 100.0, vol, r, q)
    assert (put.status == Status.OK).all()
    np.testing.assert_allclose(put.price, closed, rtol=0.0, atol=bound)
    np.testing.assert_allclose(call.price, closed, rtol=0.0, atol=bound)
    assert (np.abs(put.theta) < 1e-4).all()


def test_its_boundary_is_the_perpetual_one_and_falls_to_expiry() -> None:
    """Of such a put the boundary stands at the perpetual level for long, and rises to the strike within the last moments."""
    vol, r, q = 0.01, 0.08, 0.02
    found = american.price(100.0, 100.0, 20.0, vol, rate=r, dividend=q, cp=-1, boundary=True)
    assert found.boundary is not None
    half = 0.5 - (r - q) / vol**2
    k = np.sqrt(half**2 + 2.0 * r / vol**2) - half
    spots = found.boundary.spot
    assert spots[0] == pytest.approx(100.0 * k / (k + 1.0), abs=1e-4)
    assert (np.diff(spots) >= -1e-4).all()
    assert spots[-1] <= 100.0


def test_a_drift_into_exercise_agrees_with_the_tree() -> None:
    """Where the spot falls into exercise at one instant, tens of deviations sharp, the price is a long tree's."""
    rows = [
        (60.0, 100.0, 20.0, 0.015, 0.06, 0.14),
        (70.0, 100.0, 12.0, 0.010, 0.05, 0.11),
        (80.0, 100.0, 15.0, 0.020, 0.08, 0.20),
        (95.0, 100.0, 20.0, 0.015, 0.06, 0.14),
    ]
    for S, K, tau, vol, r, q in rows:
        assert (q - r) * np.sqrt(tau) / vol > 15.0
        found = float(american.price(S, K, tau, vol, rate=r, dividend=q, cp=-1).price)
        short, long = (
            american_tree.price(S, K, tau, vol, rate=r, dividend=q, cp=-1, steps=steps, kind="crr")
            for steps in (2000, 4000)
        )
        assert found == pytest.approx(2.0 * long - short, abs=1e-4)  # its error falls as one over the steps


def test_next_to_no_vol_is_the_limit_without_vol() -> None:
    """As vol goes to 0 over any years, rates and sides the price goes to the best instant on the one path there is."""
    rng = np.random.default_rng(32)
    n = 400
    tau, r, q = rng.uniform(0.5, 30.0, n), rng.uniform(-0.05, 0.15, n), rng.uniform(-0.05, 0.15, n)
    S, cp = 100.0 * np.exp(rng.normal(0.0, 0.3, n)), rng.choice([-1.0, 1.0], n)
    limit = american.value(S, 100.0, tau, 0.0, rate=r, dividend=q, cp=cp)
    for vol in (1e-5, 1e-6, 1e-9):
        found = american.price(S, 100.0, tau, vol, rate=r, dividend=q, cp=cp)
        ok = found.status == Status.OK
        assert (found.status[~ok] == Status.DOUBLE_BOUNDARY).all()
        assert np.abs(found.price - limit.price)[ok].max() < 1e-5 + 20.0 * vol
        for column in found[:6]:
            assert np.isfinite(np.asarray(column)[ok]).all()


def test_hard_rows_are_near_the_slow_scheme() -> None:
    """Over years and drifts that no listed option has "default" stays within 5e-5 of "reference", whatever the side."""
    rng = np.random.default_rng(33)
    n = 150
    vol, tau = np.exp(rng.uniform(np.log(0.002), np.log(0.3), n)), rng.uniform(0.5, 30.0, n)
    r, q, cp = rng.uniform(-0.05, 0.15, n), rng.uniform(-0.05, 0.15, n), rng.choice([-1.0, 1.0], n)
    S = 100.0 * np.exp(rng.normal(0.0, 0.1, n) * np.minimum(1.0, 3.0 * vol * np.sqrt(tau)))
    found = american.price(S, 100.0, tau, vol, rate=r, dividend=q, cp=cp)
    truth = american.price(S, 100.0, tau, vol, rate=r, dividend=q, cp=cp, accuracy="reference")
    ok = truth.status == Status.OK
    assert ok.sum() > 130
    assert np.abs(found.price - truth.price)[ok].max() < 5e-5
    assert np.abs(found.delta - truth.delta)[ok].max() < 1e-4


def test_rho_of_few_nodes_is_right_to_a_ten_thousandth_of_itself() -> None:
    """Where rate and yield are nearly one the boundary's derivative bends too sharply for few nodes; rho keeps four digits."""
    rng = np.random.default_rng(34)
    n = 200
    r = rng.uniform(0.001, 0.05, n)
    q = r * rng.uniform(0.7, 1.4, n)
    S, tau, vol, cp = (
        rng.uniform(70, 140, n),
        rng.uniform(0.05, 3, n),
        rng.uniform(0.1, 0.6, n),
        rng.choice([-1.0, 1.0], n),
    )
    few = american.price(S, 100.0, tau, vol, rate=r, dividend=q, cp=cp)
    many = american.price(S, 100.0, tau, vol, rate=r, dividend=q, cp=cp, accuracy="high")
    truth = american.price(S, 100.0, tau, vol, rate=r, dividend=q, cp=cp, accuracy="reference")
    assert (np.abs(few.rho - truth.rho) <= 5e-4 * np.abs(truth.rho) + 1e-3).all()
    assert (np.abs(many.rho - truth.rho) <= 5e-5 * np.abs(truth.rho) + 1e-4).all()


def test_tables_are_right_to_the_last_place() -> None:
    """Nodes, angles and weights are the floats nearest to 50-digit values, give or take one."""
    with mp.workdps(50):
        z = american_tables.nodes_z(12)
        assert [abs(float(((1 + cos(pi * j / 12)) / 2) - mpf(float(z[j])))) <= 1.2e-16 for j in range(12)] == [
            True
        ] * 12
        for count in (10, 48):
            at = american_tables.angles(count)
            for i in range(count):
                x = american_tables.gauss_legendre(count)[i][0]
                assert abs(legendre(count, mpf(str(x)))) < mpf(10) ** -28
                angle = (mpf(str(x)) + 1) * pi / 4
                assert abs(float(sin(angle)) - at.sine[i]) <= 1.2e-16
                assert abs(float(cos(angle)) - at.cosine[i]) <= 1.2e-16
                assert abs(float(cos(angle) ** (mpf(2) / 3)) - at.cosine_power[i]) <= 1.2e-16
            for power in range(0, 2 * count, 7):  # the rule is exact for these
                rule = american_tables.gauss_legendre(count)
                total = sum(mpf(str(w)) * mpf(str(x)) ** power for x, w in rule)
                assert abs(total - (mpf(2) / (power + 1) if power % 2 == 0 else 0)) < mpf(10) ** -28


DIGEST = "301ac47cd8a150c20fbc56429158c1f4"


def test_tables_have_the_same_bits_everywhere() -> None:
    """All tables of all accuracies have the digest they have had on every machine so far."""
    digest = hashlib.sha256()
    for accuracy in get_args(american.Accuracy):
        for panels in (0, 16):
            for field in american.scheme_of(accuracy, panels):
                digest.update(np.asarray(field, dtype=np.float64).tobytes())
    assert digest.hexdigest()[:32] == DIGEST


def test_without_early_exercise_the_compiled_formula_answers() -> None:
    """Calls on what pays nothing have the bits of `black.greeks_slice`, and the rho of `black.bsm` to rounding."""
    S = np.linspace(20.0, 300.0, 57)
    found = american.price(S, 100.0, 0.7, 0.35, rate=0.04)
    compiled = black.greeks_slice(S, 100.0, 0.7, 0.35, rate=0.04)
    readable = black.bsm(S, 100.0, 0.7, 0.35, rate=0.04)
    for name in ("delta", "gamma", "vega", "theta"):
        np.testing.assert_array_equal(getattr(found, name), getattr(compiled, name))
    np.testing.assert_array_equal(found.price, np.maximum(compiled.price, S - 100.0))
    np.testing.assert_allclose(found.rho, readable.rho, rtol=1e-10, atol=1e-11)
