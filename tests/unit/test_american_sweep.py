"""American prices over random rows from the ordinary to the extreme: finite, bounded, monotone; neighbours untouched."""

from __future__ import annotations

import numpy as np

from bot.pricing import american, black
from bot.pricing.black import Array
from bot.pricing.status import Status

FIELDS = ("price", "delta", "gamma", "vega", "theta", "rho")


def draw(seed: int, n: int) -> tuple[Array, ...]:
    """Strike, tau, vol, rate, dividend, cp on a spot of 100: half of each ordinary, half over its whole range."""
    rng = np.random.default_rng(seed)

    def spread(low: float, high: float) -> Array:
        return np.exp(rng.uniform(np.log(low), np.log(high), n))

    def either(ordinary: Array, extreme: Array) -> Array:
        return np.where(rng.random(n) < 0.5, ordinary, extreme)

    def rate() -> Array:
        small = either(np.zeros(n), spread(1e-12, 1e-2))
        return np.where(rng.random(n) < 0.3, small, either(rng.uniform(-0.02, 0.1, n), rng.uniform(-0.2, 0.5, n)))

    K = 100.0 * either(spread(0.5, 2.0), spread(1e-3, 1e5))
    tau = either(spread(1 / 365, 3.0), spread(1e-8, 30.0))
    vol = either(spread(0.05, 0.8), spread(1e-3, 3.0))
    r, q = rate(), rate()
    return K, tau, vol, r, np.where(rng.random(n) < 0.05, r, q), rng.choice([-1.0, 1.0], n)


def swept(rows: tuple[Array, ...], vol: Array) -> american.AmericanGreeks:
    K, tau, _, r, q, cp = rows
    return american.price(100.0, K, tau, vol, rate=r, dividend=q, cp=cp)


def test_sweep() -> None:
    """20 000 rows: a name or finite numbers, within the European price, exercise and the bound, rising with vol."""
    rows = draw(2024, 20_000)
    K, tau, vol, r, q, cp = rows
    found = swept(rows, vol)
    double = np.where(cp < 0, (q < r) & (r < 0), (r < q) & (q < 0))
    assert np.array_equal(found.status == Status.DOUBLE_BOUNDARY, double)
    ok = ~double
    assert np.all(found.status[ok] == Status.OK)
    for name in FIELDS:
        assert np.isfinite(getattr(found, name)[ok]).all(), name
    scale = np.maximum(100.0, K)
    european = black.bsm(100.0, K, tau, vol, rate=r, dividend=q, cp=cp).price
    bound = np.where(cp > 0, 100.0 * np.maximum(1.0, np.exp(-q * tau)), K * np.maximum(1.0, np.exp(-r * tau)))
    assert np.all((found.price >= european - 1e-14 * scale)[ok])
    assert np.all((found.price >= cp * (100.0 - K))[ok])
    assert np.all((found.price <= bound + 1e-14 * scale)[ok])
    assert np.all(((found.gamma >= 0.0) & (found.vega >= 0.0) & (cp * found.delta >= 0.0))[ok])
    more = swept(rows, 1.02 * vol).price
    fall = ((found.price - more) / scale)[ok]
    assert fall.max() < 1e-5
    assert np.quantile(fall, 0.999) <= 1e-12


def test_sweep_leaves_neighbours_alone() -> None:
    """Rows in another order and company have the same bits."""
    rows = draw(2025, 3_000)
    whole = swept(rows, rows[2])
    some = np.random.default_rng(1).permutation(3_000)[:500]
    apart = swept(tuple(column[some] for column in rows), rows[2][some])
    for name in FIELDS:
        assert np.array_equal(getattr(apart, name), getattr(whole, name)[some], equal_nan=True), name


def test_standard_domain() -> None:
    """Strikes 60-150, rates -2 to 10%, yields 0 to 8%, 7 days to 3 years, vols 5-80%: price 1e-5, delta 2e-5, vega 2e-2."""
    rng = np.random.default_rng(11)
    n = 1000
    K, r, cp = rng.uniform(60, 150, n), rng.uniform(-0.02, 0.1, n), rng.choice([-1.0, 1.0], n)
    q = rng.uniform(0, 0.08, n) * (rng.random(n) > 0.2)
    tau = np.exp(rng.uniform(np.log(7 / 365), np.log(3.0), n))
    vol = np.exp(rng.uniform(np.log(0.05), np.log(0.8), n))
    rows = (K, tau, vol, r, q, cp)
    found, high = swept(rows, vol), american.price(100.0, K, tau, vol, rate=r, dividend=q, cp=cp, accuracy="high")
    truth = american.price(100.0, K, tau, vol, rate=r, dividend=q, cp=cp, accuracy="reference")
    assert np.all(found.status == Status.OK)
    assert np.abs(high.price - truth.price).max() < 1e-7
    assert np.abs(found.price - truth.price).max() < 1e-5
    assert np.abs(found.delta - truth.delta).max() < 2e-5
    assert np.abs(found.vega - truth.vega).max() < 2e-2


def test_hard_rows_are_solved_on_many_nodes() -> None:
    """Rates of decades and drifts of many deviations, which few nodes miss, keep the price and boundary of "high"."""
    rows = {"rate": [-0.0657, 0.03, 0.0], "dividend": [0.4032, 0.05, 0.41], "cp": [1, 1, 1]}
    args = ([100.0] * 3, [101.0, 72.0, 103.0], [26.6, 21.0, 6.7], [0.0775, 0.004, 0.084])
    few = american.price(*args, **rows, boundary=True)  # type: ignore[arg-type]  # one dict of lists
    many = american.price(*args, **rows, accuracy="high", boundary=True)  # type: ignore[arg-type]  # as above
    assert np.array_equal(few.price, many.price)
    assert few.boundary is not None
    assert many.boundary is not None
    assert few.boundary.spot.shape == (3, 12)
    assert np.allclose(few.boundary.spot[:, 0], many.boundary.spot[:, 0], rtol=1e-12)
