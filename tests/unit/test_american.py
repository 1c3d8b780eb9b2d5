"""American options: QuantLib, trees and published values, bumps, limits, statuses, cash dividends, implied vols."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  it has no stubs; the name of its own examples

from bot.pricing import american, american_discrete, american_tree, black
from bot.pricing.black import Array
from bot.pricing.status import Status

GREEKS = ("delta", "gamma", "vega", "theta", "rho")


def process(S: float, r: float, q: float, vol: float) -> ql.BlackScholesMertonProcess:
    today = ql.Date(1, 1, 2020)
    ql.Settings.instance().evaluationDate = today
    count = ql.Actual365Fixed()
    return ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(S)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, q, count)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, r, count)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol, count)),
    )


def option(K: float, days: int, cp: float) -> ql.VanillaOption:
    today = ql.Date(1, 1, 2020)
    kind = ql.Option.Call if cp > 0 else ql.Option.Put
    return ql.VanillaOption(ql.PlainVanillaPayoff(kind, K), ql.AmericanExercise(today, today + days))


def quantlib(rows: Array) -> Array:
    """QdFp with the high precision scheme. Shape: rows (n, 7) as spot, strike, days, vol, rate, dividend, cp."""
    prices = []
    for S, K, days, vol, r, q, cp in rows:
        contract = option(K, int(days), cp)
        scheme = ql.QdFpAmericanEngine.highPrecisionScheme()
        contract.setPricingEngine(ql.QdFpAmericanEngine(process(S, r, q, vol), scheme))
        prices.append(contract.NPV())
    return np.array(prices)


def random_rows(seed: int, n: int, *, low_rate: float = 0.0) -> Array:
    rng = np.random.default_rng(seed)
    r = rng.uniform(low_rate, 0.1, n)
    q = rng.uniform(low_rate, 0.1, n) * (rng.random(n) > 0.2)
    cp = rng.choice([-1.0, 1.0], n)
    double = ((cp < 0) & (q < r) & (r < 0)) | ((cp > 0) & (r < q) & (q < 0))
    r, q = np.where(double, np.abs(r), r), np.where(double, np.abs(q), q)
    S, days, vol = rng.uniform(75, 130, n), rng.integers(5, 1096, n), rng.uniform(0.08, 0.7, n)
    return np.column_stack([S, np.full(n, 100.0), days, vol, r, q, cp])


def priced(rows: Array, accuracy: american.Accuracy = "default") -> american.AmericanGreeks:
    S, K, days, vol, r, q, cp = rows.T
    return american.price(S, K, days / 365.0, vol, rate=r, dividend=q, cp=cp, accuracy=accuracy)


def bumped(rows: Array, column: int, step: Array | float) -> Array:
    """The price at "high" accuracy with one column moved. Column 2 is in days."""
    moved = rows.copy()
    moved[:, column] += step
    return priced(moved, "high").price


# ------------------------------------------------------------------------------------------- prices


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("low_rate", [0.0, -0.02])
def test_prices_agree_with_quantlib(seed: int, low_rate: float) -> None:
    """Both accuracies keep their word against QuantLib's high precision scheme, whose own error is 2e-6."""
    rows = random_rows(seed, 60, low_rate=low_rate)
    reference = quantlib(rows)
    for accuracy, p90 in (("default", 5e-6), ("high", 2e-7)):
        found = priced(rows, accuracy)  # type: ignore[arg-type]  # the loop's strings are the literals
        error = np.abs(found.price - reference)
        assert np.all(found.status == Status.OK)
        assert error.max() < 1e-5
        assert np.quantile(error, 0.9) < p90


def test_accuracies_keep_their_word() -> None:
    """Against many more nodes "high" is within 1e-7, "default" within 1e-5, "fast" within 1e-3 and mostly 1e-4."""
    rows = random_rows(3, 150, low_rate=-0.02)
    truth = priced(rows, "reference").price
    assert np.abs(priced(rows, "high").price - truth).max() < 1e-7
    assert np.abs(priced(rows).price - truth).max() < 1e-5
    fast = np.abs(priced(rows, "fast").price - truth)
    assert fast.max() < 1e-3
    assert np.quantile(fast, 0.9) < 1e-4


@pytest.mark.parametrize("cp", [-1, 1])
@pytest.mark.parametrize(("rate", "dividend"), [(0.06, 0.02), (0.02, 0.06), (0.05, 0.05), (0.08, -0.01), (-0.01, 0.05)])
@pytest.mark.parametrize(("spot", "tau", "vol"), [(92.0, 0.3, 0.25), (108.0, 1.5, 0.4)])
def test_prices_agree_with_the_tree(spot: float, tau: float, vol: float, rate: float, dividend: float, cp: int) -> None:
    """A Leisen-Reimer tree of 1501 steps is met within its own error, calls and puts, at rates of either sign."""
    tree = american_tree.price(spot, 100, tau, vol, rate=rate, dividend=dividend, cp=cp, steps=1501)
    found = american.price(spot, 100, tau, vol, rate=rate, dividend=dividend, cp=cp)
    assert found.status == Status.OK
    assert abs(float(found.price) - tree) < 1e-3


def test_trees_agree_with_the_formula() -> None:
    """Without early exercise both trees come to Black-Scholes, each at its own pace."""
    exact = float(black.bsm(95, 100, 0.7, 0.3, rate=0.04, dividend=0.01, cp=-1).price)
    kinds: list[tuple[american_tree.TreeKind, float]] = [("crr", 5e-3), ("leisen_reimer", 2e-6)]
    for kind, bound in kinds:
        found = american_tree.price(
            95, 100, 0.7, 0.3, rate=0.04, dividend=0.01, cp=-1, steps=1001, kind=kind, american=False
        )
        assert abs(found - exact) < bound


def test_published_puts() -> None:
    """Longstaff and Schwartz 2001, table 1, finite differences: exercised 50 times a year, so ours are up to a cent dearer."""
    table = {
        (36, 0.2, 1): 4.478, (36, 0.2, 2): 4.840, (36, 0.4, 1): 7.101, (36, 0.4, 2): 8.508,
        (38, 0.2, 1): 3.250, (38, 0.2, 2): 3.745, (38, 0.4, 1): 6.148, (38, 0.4, 2): 7.670,
        (40, 0.2, 1): 2.314, (40, 0.2, 2): 2.885, (40, 0.4, 1): 5.312, (40, 0.4, 2): 6.920,
        (42, 0.2, 1): 1.617, (42, 0.2, 2): 2.212, (42, 0.4, 1): 4.582, (42, 0.4, 2): 6.248,
        (44, 0.2, 1): 1.110, (44, 0.2, 2): 1.690, (44, 0.4, 1): 3.948, (44, 0.4, 2): 5.647,
    }  # fmt: skip
    for (spot, vol, tau), published in table.items():
        found = float(american.price(spot, 40, tau, vol, rate=0.06, cp=-1).price)
        assert -5e-4 < found - published < 1e-2, (spot, vol, tau)


@pytest.mark.parametrize(("accuracy", "bound"), [("default", 1e-7), ("high", 1e-11)])
def test_published_premium(accuracy: american.Accuracy, bound: float) -> None:
    """Andersen, Lake and Offengenden 2016, section 6: the premium of a year's put, S = K = 100, r = q = 5%, vol 25%."""
    european = float(black.bsm(100, 100, 1, 0.25, rate=0.05, dividend=0.05, cp=-1).price)
    found = float(american.price(100, 100, 1, 0.25, rate=0.05, dividend=0.05, cp=-1, accuracy=accuracy).price)
    assert abs(found - european - 0.106952702747) < bound


@pytest.mark.parametrize(
    ("rate", "dividend", "cp"),
    [(0.05, 0.0, 1), (0.05, -0.01, 1), (0.0, 0.03, -1), (-0.02, 0.0, -1), (-0.01, -0.01, -1)],
)
def test_without_early_exercise_it_is_black_scholes(rate: float, dividend: float, cp: int) -> None:
    """Where waiting always pays every number is the European formula's: of the compiled one to the bit."""
    spots = np.array([50.0, 99.0, 160.0])
    found = american.price(spots, 100.0, 0.8, 0.3, rate=rate, dividend=dividend, cp=cp)
    compiled = black.greeks_slice(spots, 100.0, 0.8, 0.3, rate=rate, dividend=dividend, cp=cp)
    for name in compiled._fields:
        assert np.array_equal(getattr(found, name), getattr(compiled, name)), name
    european = black.bsm(spots, 100.0, 0.8, 0.3, rate=rate, dividend=dividend, cp=cp)
    for name in ("price", *GREEKS):
        np.testing.assert_allclose(getattr(found, name), getattr(european, name), rtol=1e-11, atol=1e-12, err_msg=name)


# ------------------------------------------------------------------------------------------- Greeks


@pytest.mark.parametrize(("accuracy", "scale"), [("default", 1.0), ("high", 0.1)])
def test_greeks_are_the_bumps(accuracy: american.Accuracy, scale: float) -> None:
    """Each Greek is the central difference of high-accuracy prices, on either side of q = r and for calls and puts."""
    rows = random_rows(4, 60)
    found = priced(rows, accuracy)
    ds = 1e-4 * rows[:, 0]
    delta = (bumped(rows, 0, ds) - bumped(rows, 0, -ds)) / (2 * ds)
    wide = 8.0 * ds
    gamma = (bumped(rows, 0, wide) - 2 * bumped(rows, 0, 0.0) + bumped(rows, 0, -wide)) / wide**2
    days = 1e-4 * rows[:, 2]
    vega = (bumped(rows, 3, 1e-4) - bumped(rows, 3, -1e-4)) / 2e-4
    rho = (bumped(rows, 4, 1e-5) - bumped(rows, 4, -1e-5)) / 2e-5
    S, K, _, vol, r, q, cp = rows.T

    def later(step: Array) -> Array:
        tau = (rows[:, 2] + step) / 365.0
        return american.price(S, K, tau, vol, rate=r, dividend=q, cp=cp, accuracy="high").price

    theta = -(later(days) - later(-days)) / (2 * days / 365.0)
    kinked = (found.gamma == 0.0) | (np.abs(found.price - cp * (S - K)) < 1e-2)  # bumps straddle the boundary
    for name, bump, bound in (
        ("delta", delta, 2e-5), ("gamma", gamma, 1e-4), ("vega", vega, 2e-2), ("theta", theta, 5e-3), ("rho", rho, 2e-2),
    ):  # fmt: skip
        error = np.abs(getattr(found, name) - bump)[~kinked]
        assert error.max() < bound * scale, name


def test_greeks_stay_true_next_to_the_boundary() -> None:
    """A hair above its exercise price a put's delta is near -1 and its gamma near 2 (r K - q b) / (vol b)^2."""
    for rate, dividend in ((0.06, 0.0), (0.06, 0.04), (0.03, 0.06)):
        edge = american.price(
            100.0, 100.0, 0.7, 0.3, rate=rate, dividend=dividend, cp=-1, accuracy="high", boundary=True
        ).boundary
        assert edge is not None
        b = float(edge.spot[0])
        found = american.price(b * (1 + 1e-7), 100.0, 0.7, 0.3, rate=rate, dividend=dividend, cp=-1, accuracy="high")
        assert float(found.delta) == pytest.approx(-1.0, abs=2e-5)
        expected = 2.0 * (rate * 100.0 - dividend * b) / (0.3 * b) ** 2
        assert float(found.gamma) == pytest.approx(expected, rel=2e-2)
        assert abs(float(found.vega)) < 2e-2


def test_value_is_price_without_greeks() -> None:
    """`value` gives the price of `price` bit for bit."""
    S, K, days, vol, r, q, cp = random_rows(6, 40).T
    alone = american.value(S, K, days / 365, vol, rate=r, dividend=q, cp=cp)
    full = american.price(S, K, days / 365, vol, rate=r, dividend=q, cp=cp)
    assert np.array_equal(alone.price, full.price)


# ------------------------------------------------------------------------------------------- exercise, limits, statuses


def test_deep_in_the_money_is_exercised() -> None:
    """Beyond the boundary the price is exercise to the last digit, delta is cp and nothing else moves it."""
    for spot, cp, rate, dividend in ((40.0, -1, 0.05, 0.0), (300.0, 1, 0.01, 0.08)):
        found = american.price(spot, 100.0, 0.5, 0.25, rate=rate, dividend=dividend, cp=cp)
        assert float(found.price) == abs(spot - 100.0)
        assert float(found.delta) == cp
        assert [float(getattr(found, name)) for name in GREEKS[1:]] == [0.0] * 4
        assert found.status == Status.OK


def test_boundary_parts_exercise_from_waiting() -> None:
    """The boundary falls for a put, rises for a call with time, and parts worth-intrinsic from worth-more."""
    for cp, sign in ((-1, 1.0), (1, -1.0)):
        edge = american.price(100.0, 100.0, 1.0, 0.3, rate=0.05, dividend=0.05, cp=cp, boundary=True).boundary
        assert edge is not None
        assert edge.tau[0] == 1.0
        assert np.all(np.diff(sign * edge.spot) > 0.0)
        b = float(edge.spot[0])
        inside, outside = b * (1 - sign * 0.001), b * (1 + sign * 0.001)
        found = american.price([inside, outside], 100.0, 1.0, 0.3, rate=0.05, dividend=0.05, cp=cp).price
        assert found[0] == abs(inside - 100.0)
        assert found[1] > abs(outside - 100.0)


def test_two_boundaries_are_refused_by_name() -> None:
    """q < r < 0 for puts and r < q < 0 for calls are NaN with their own status, and neighbours are untouched."""
    found = american.price(100, 100, 1, 0.2, rate=[-0.01, -0.03, 0.05], dividend=[-0.03, -0.01, 0.0], cp=[-1, 1, -1])
    assert found.status.tolist() == [Status.DOUBLE_BOUNDARY, Status.DOUBLE_BOUNDARY, Status.OK]
    assert np.isnan(found.price[:2]).all()
    assert found.price[2] == american.price(100, 100, 1, 0.2, rate=0.05, cp=-1).price


def test_limits() -> None:
    """With no time, vol, spot or strike left the best instant of exercise on the one path there is sets the price."""
    no_time = american.price([90.0, 100.0, 110.0], 100.0, 0.0, 0.2, rate=0.05, cp=-1)
    assert no_time.price.tolist() == [10.0, 0.0, 0.0]
    assert no_time.delta.tolist() == [-1.0, -0.5, 0.0]
    assert np.all(no_time.status == Status.LIMIT)
    put = american.price([90.0, 0.0], 100.0, 2.0, 0.0, rate=0.05, cp=-1)
    assert put.price.tolist() == [10.0, 100.0]
    call = american.price(105.0, 100.0, 1.0, 0.0, rate=0.05, dividend=0.0, cp=1)
    assert float(call.price) == pytest.approx(105.0 - 100.0 * np.exp(-0.05))
    # q > r: the put waits until the spot has fallen to r K / q, e^(-0.05 u) = 0.03 100 / (0.08 50)
    waits = american.price(50.0, 100.0, 9.0, 0.0, rate=0.03, dividend=0.08, cp=-1)
    u = np.log(4.0 / 3.0) / 0.05
    assert float(waits.price) == pytest.approx(100.0 * np.exp(-0.03 * u) - 50.0 * np.exp(-0.08 * u))
    assert float(waits.theta) == 0.0
    assert american.price(100.0, 0.0, 1.0, 0.2, rate=0.05, dividend=0.03).price == 100.0
    assert american.price(0.0, 100.0, 1.0, 0.2, rate=0.05).price == 0.0


def test_small_vol_tends_to_its_limit() -> None:
    """Prices go to the zero-vol limit as vol falls, also where the drift exceeds the vol a million times."""
    for spot, rate, dividend, cp in ((90.0, 0.05, 0.0, -1), (104.0, 0.05, 0.02, -1), (120.0, 0.01, 0.05, 1)):
        limit = float(american.price(spot, 100, 1.0, 0.0, rate=rate, dividend=dividend, cp=cp).price)
        for vol in (1e-2, 1e-4, 1e-6):
            near = float(american.price(spot, 100, 1.0, vol, rate=rate, dividend=dividend, cp=cp).price)
            assert abs(near - limit) < 10.0 * vol


def test_bad_rows_spoil_nobody() -> None:
    """Each bad row is NaN with its status, an expired one 0; good rows keep the bits they have alone."""
    spot = [100.0, np.nan, -1.0, 100.0, 100.0, 100.0, np.inf]
    vol = [0.2, 0.2, 0.2, -0.1, 0.2, 0.2, 0.2]
    tau = [1.0, 1.0, 1.0, 1.0, -0.1, 1.0, 1.0]
    cp = [-1, -1, -1, -1, -1, 0, -1]
    found = american.price(spot, 100.0, tau, vol, rate=0.05, cp=cp)
    S = Status
    assert found.status.tolist() == [
        S.OK, S.NOT_FINITE, S.OUT_OF_DOMAIN, S.OUT_OF_DOMAIN, S.EXPIRED, S.OUT_OF_DOMAIN, S.NOT_FINITE,
    ]  # fmt: skip
    alone = american.price(100.0, 100.0, 1.0, 0.2, rate=0.05, cp=-1)
    for name in ("price", *GREEKS):
        column = getattr(found, name)
        assert column[0] == getattr(alone, name)
        assert column[4] == 0.0
        assert np.isnan(column[[1, 2, 3, 5, 6]]).all()


def test_a_batch_is_its_rows() -> None:
    """A row has the same bits alone, inside a batch, reversed, from read-only, strided, float32 or integer input."""
    rows = random_rows(7, 30)
    rows[:, 0] = np.round(rows[:, 0])
    whole = priced(rows)
    back = priced(np.ascontiguousarray(rows[::-1]))
    for name in ("price", *GREEKS):
        assert np.array_equal(getattr(whole, name), getattr(back, name)[::-1]), name
        assert np.array_equal(
            getattr(whole, name)[:5], [float(getattr(priced(rows[i : i + 1]), name)[0]) for i in range(5)]
        )
    S = rows[:, 0]
    S.flags.writeable = False
    before = american.price(S, 100, 1.0, 0.25, rate=0.03, cp=-1).price
    for other in (S.astype(np.float32), S.astype(np.int64), np.repeat(S, 2)[::2]):
        assert np.array_equal(american.price(other, 100, 1.0, 0.25, rate=0.03, cp=-1).price, before)


def test_shapes_broadcast() -> None:
    """Arguments broadcast together, scalars and empty batches included; an unknown accuracy is a ValueError."""
    found = american.price(np.full((3, 1), 100.0), np.full(4, 100.0), 1.0, 0.2, cp=-1, rate=0.03, boundary=True)
    assert found.price.shape == found.status.shape == (3, 4)
    assert found.boundary is not None
    assert found.boundary.spot.shape[:2] == (3, 4)
    assert american.price(100.0, 100.0, 1.0, 0.2).price.shape == ()
    assert american.price([], 100.0, 1.0, 0.2).price.shape == (0,)
    with pytest.raises(ValueError, match="accuracy"):
        american.price(100.0, 100.0, 1.0, 0.2, accuracy="best")  # type: ignore[arg-type]  # the fault under test


def test_extremes_are_finite() -> None:
    """From spots of 1e-6 to 1e8, no time to 30 years and vols to 2000% all numbers are finite and inside their bounds."""
    axes = ([1e-6, 50.0, 100.0, 1e8], [1e-6, 100.0, 1e8], [1e-12, 0.1, 30.0], [1e-6, 1e-3, 0.2, 20.0])
    rates = ([-0.2, 0.0, 1e-9, 0.1, 0.5], [-0.2, 0.0, 0.03, 0.5], [-1.0, 1.0])
    S, K, tau, vol, r, q, cp = (g.ravel() for g in np.meshgrid(*axes, *rates))
    found = american.price(S, K, tau, vol, rate=r, dividend=q, cp=cp)
    ok = found.status == Status.OK
    assert set(found.status.tolist()) <= {Status.OK, Status.DOUBLE_BOUNDARY}
    for name in ("price", *GREEKS):
        assert np.isfinite(getattr(found, name)[ok]).all(), name
    scale = np.maximum(S, K)
    assert np.all(found.price[ok] >= (cp * (S - K))[ok] - 1e-12 * scale[ok])
    assert np.all(found.gamma[ok] >= 0.0)
    assert np.all(found.vega[ok] >= 0.0)


def test_import_leaves_the_compiler_alone() -> None:
    """Importing the module does not import numba."""
    code = "import sys, bot.pricing.american, bot.pricing.american_discrete as d; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


# ------------------------------------------------------------------------------------------- implied vol


def test_implied_vol_gives_back_the_vol() -> None:
    """The vol that made a price is found wherever the price still knows it."""
    rows = random_rows(8, 60)
    S, K, days, vol, r, q, cp = rows.T
    made = priced(rows, "high")
    found = american.implied_vol(made.price, S, K, days / 365, rate=r, dividend=q, cp=cp, accuracy="high")
    knows = made.vega > 0.5
    assert np.all(found.status[knows] == Status.OK)
    assert np.abs(found.vol - vol)[knows].max() < 1e-9


def test_implied_vol_statuses() -> None:
    """Prices no vol can make are told apart."""
    price = [5.0, 9.0, 10.0, 100.0, np.nan, 5.0, 5.0]
    spot = [100.0, 90.0, 90.0, 90.0, 90.0, 100.0, 100.0]
    rate = [0.05, 0.05, 0.05, 0.05, 0.05, 0.05, -0.01]
    dividend = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.03]
    tau = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    found = american.implied_vol(price, spot, 100.0, tau, rate=rate, dividend=dividend, cp=-1)
    S = Status
    assert found.status.tolist() == [
        S.OK, S.BELOW_INTRINSIC, S.AT_INTRINSIC, S.ABOVE_BOUND, S.NOT_FINITE, S.EXPIRED, S.DOUBLE_BOUNDARY,
    ]  # fmt: skip
    assert np.isnan(found.vol[1:]).all()


# ------------------------------------------------------------------------------------------- cash dividends


@pytest.mark.parametrize("cp", [-1, 1])
@pytest.mark.parametrize("strike", [90.0, 110.0])
@pytest.mark.parametrize("model", ["spot", "escrowed"])
def test_cash_dividends_agree_with_quantlib(model: american_discrete.DividendModel, strike: float, cp: int) -> None:
    """Two dividends in either model agree with QuantLib's finite differences of the same model."""
    today = ql.Date(1, 1, 2020)
    contract = option(strike, 180, cp)
    kind = ql.FdBlackScholesVanillaEngine.Escrowed if model == "escrowed" else ql.FdBlackScholesVanillaEngine.Spot
    schedule = ql.DividendVector([today + 60, today + 150], [2.0, 1.5])
    scheme = ql.FdmSchemeDesc.Douglas()
    engine = ql.FdBlackScholesVanillaEngine(
        process(100.0, 0.05, 0.0, 0.25), schedule, 400, 400, 0, scheme, False, -1, kind
    )
    contract.setPricingEngine(engine)
    found = american_discrete.price(
        100.0, strike, 180 / 365, 0.25, rate=0.05, cp=cp, dividends=[(150 / 365, 1.5), (60 / 365, 2.0)], model=model
    )
    assert abs(float(found.price) - contract.NPV()) < 2e-3


def test_models_of_dividends_differ() -> None:
    """A European call, K = 90, 2.0 in the middle of six months: escrowed is the formula on S less the cash."""
    common = {"rate": 0.05, "dividends": [(0.25, 2.0)], "exercise": "european"}
    escrowed = american_discrete.price(100, 90, 0.5, 0.2, model="escrowed", **common)  # type: ignore[arg-type]  # one dict
    jump = american_discrete.price(100, 90, 0.5, 0.2, model="spot", **common)  # type: ignore[arg-type]  # one dict
    formula = black.bsm(100 - 2 * np.exp(-0.0125), 90, 0.5, 0.2, rate=0.05)
    assert float(escrowed.price) == pytest.approx(float(formula.price), abs=2e-4)
    assert float(escrowed.delta) == pytest.approx(float(formula.delta), abs=2e-5)
    assert float(escrowed.vega) == pytest.approx(float(formula.vega), abs=1e-2)
    assert 0.02 < float(jump.price) - float(escrowed.price) < 0.12


@pytest.mark.parametrize("cp", [-1, 1])
def test_without_dividends_the_grid_is_the_integral(cp: int) -> None:
    """With none, gone or too late dividends the grid agrees with the collocation in price and Greeks."""
    exact = american.price(97, 100, 0.8, 0.3, rate=0.04, dividend=0.05, cp=cp, accuracy="high")
    gone = [(-0.1, 3.0), (0.0, 2.0), (0.9, 5.0)]
    grid = american_discrete.price(97, 100, 0.8, 0.3, rate=0.04, dividend=0.05, cp=cp, dividends=gone, model="spot")
    for name, bound in (
        ("price", 5e-4),
        ("delta", 2e-5),
        ("gamma", 5e-6),
        ("vega", 5e-3),
        ("theta", 1e-2),
        ("rho", 1e-2),
    ):
        assert abs(float(getattr(grid, name)) - float(getattr(exact, name))) < bound, name


def test_dividend_faults() -> None:
    """An unnamed model or a negative dividend is refused; a spot below its escrow and bad rows get their status."""
    with pytest.raises(ValueError, match="american_discrete: model"):
        american_discrete.price(100, 100, 1, 0.2, model="jump", dividends=[])  # type: ignore[arg-type]  # the fault
    with pytest.raises(ValueError, match="american_discrete: dividends"):
        american_discrete.price(100, 100, 1, 0.2, model="spot", dividends=[(0.5, -1.0)])
    found = american_discrete.price(
        [1.0, np.nan, 100.0], 100, [1, 1, -1], 0.2, rate=0.05, dividends=[(0.5, 2.0)], model="escrowed", steps=20
    )
    assert found.status.tolist() == [Status.OUT_OF_DOMAIN, Status.NOT_FINITE, Status.EXPIRED]
    assert np.isnan(found.price[:2]).all()
    assert found.price[2] == 0.0
