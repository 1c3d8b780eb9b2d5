"""Forecasts: estimators unbiased on simulated truth, models recover their parameters, nothing sees the future."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bot.pricing import forecast


def _garch_path(seed: int, n: int, *, omega: float, alpha: float, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns of a GARCH(1,1) and the variance each was drawn with."""
    rng = np.random.default_rng(seed)
    r, h = np.empty(n), np.empty(n)
    variance = omega / (1.0 - alpha - beta)
    for t in range(n):
        h[t] = variance
        r[t] = np.sqrt(variance) * rng.standard_normal()
        variance = omega + alpha * r[t] ** 2 + beta * variance
    return r, h


def _bars(seed: int, days: int, *, vol: float = 0.01, drift: float = 0.0, gap: float = 0.0, steps: int = 2000) -> Any:
    """Open, high, low, close of days of a Brownian log price, with a gap of `gap` deviation before each."""
    rng = np.random.default_rng(seed)
    moves = drift / steps + vol / np.sqrt(steps) * rng.standard_normal((days, steps))
    inside = np.cumsum(moves, axis=1)
    jumps = gap * rng.standard_normal(days)
    opening = np.concatenate([[0.0], np.cumsum(inside[:, -1] + jumps)[:-1]]) + jumps
    level = opening[:, None] + np.concatenate([np.zeros((days, 1)), inside], axis=1)
    return tuple(np.exp(x) for x in (level[:, 0], level.max(axis=1), level.min(axis=1), level[:, -1]))


def _index() -> Any:
    """The S&P 500 daily table that ships inside `arch`."""
    from arch.data import sp500  # noqa: PLC0415  brings pandas, which the other tests do not need

    return sp500.load()


def test_ewma_is_its_weighted_sum() -> None:
    """The filter equals the sum of decay^i (1 - decay) r^2 and its start, and carries on over an unknown return."""
    r = np.random.default_rng(1).standard_normal(40) * 0.01
    weights = 0.06 * 0.94 ** np.arange(40)[::-1]
    assert forecast.ewma(r, start=1e-4)[-1] == pytest.approx(np.sum(weights * r**2) + 0.94**40 * 1e-4, rel=1e-12)
    r[20] = np.nan
    h = forecast.ewma(r)
    assert h[20] == h[19]
    assert np.isnan(forecast.ewma([np.nan, 0.01])).tolist() == [True, False]
    with pytest.raises(ValueError, match="decay"):
        forecast.ewma(r, decay=1.0)


def test_garch_recovers_its_parameters() -> None:
    """From 8,000 simulated returns omega, alpha and beta return near the truth, in the units of the returns."""
    r, h = _garch_path(3, 8_000, omega=2e-6, alpha=0.08, beta=0.9)
    fit = forecast.garch(r, horizon=500, mean="Zero")
    assert fit.converged
    assert fit.parameters["alpha[1]"] == pytest.approx(0.08, abs=0.015)
    assert fit.parameters["beta[1]"] == pytest.approx(0.9, abs=0.02)
    assert fit.parameters["omega"] == pytest.approx(2e-6, rel=0.4)
    assert fit.persistence == pytest.approx(0.98, abs=0.01)
    assert np.corrcoef(fit.variance[200:], h[200:])[0, 1] > 0.99
    # the forecast is the recursion of its own parameters, and tends to their long-run variance
    p = fit.parameters
    ahead = p["omega"] + p["alpha[1]"] * r[-1] ** 2 + p["beta[1]"] * fit.variance[-1]
    assert fit.forecast[0] == pytest.approx(ahead, rel=1e-6)
    assert fit.forecast[-1] == pytest.approx(p["omega"] / (1.0 - fit.persistence), rel=0.05)
    assert fit.vol() == pytest.approx(np.sqrt(fit.forecast.mean() * 252.0), rel=1e-12)


@pytest.mark.parametrize("family", ["garch", "gjr", "egarch", "tarch", "harch"])
def test_the_unit_of_the_returns_does_not_matter(family: forecast.Family) -> None:
    """Returns in per cent give 10,000 times the variances, and parameters that say the same."""
    r, _ = _garch_path(4, 1_200, omega=2e-6, alpha=0.1, beta=0.88)
    one, hundred = (forecast.garch(r * unit, family=family, horizon=3) for unit in (1.0, 100.0))
    np.testing.assert_allclose(hundred.forecast, one.forecast * 1e4, rtol=1e-4)
    assert hundred.parameters["mu"] == pytest.approx(100.0 * one.parameters["mu"], rel=1e-4)
    assert hundred.log_likelihood == pytest.approx(one.log_likelihood - len(r) * np.log(100.0), rel=1e-8)
    if family == "egarch":
        slack = 1.0 - one.parameters["beta[1]"]
        assert hundred.parameters["omega"] == pytest.approx(
            one.parameters["omega"] + 2.0 * np.log(100.0) * slack, abs=1e-3
        )
    else:
        power = 1 if family == "tarch" else 2
        assert hundred.parameters["omega"] == pytest.approx(100.0**power * one.parameters["omega"], rel=1e-4)


def test_a_walk_sees_nothing_later_than_its_row() -> None:
    """Scrambling every return after a row changes no forecast up to that row."""
    r, _ = _garch_path(5, 500, omega=2e-6, alpha=0.1, beta=0.88)
    other = r.copy()
    other[380:] = np.random.default_rng(6).standard_normal(120) * 0.05
    a, b = (forecast.garch_walk(x, first=300, refit_every=60) for x in (r, other))
    np.testing.assert_array_equal(a[:380], b[:380])
    assert np.isnan(a[:299]).all()
    assert np.isfinite(a[299:]).all()
    assert not np.allclose(a[380:], b[380:])
    v = r**2
    w = other**2
    early, late = (forecast.har(x, rows=300).forecast for x in (v, w))
    np.testing.assert_array_equal(early[:380], late[:380])


def test_the_first_row_of_a_walk_is_a_plain_forecast() -> None:
    """Where parameters were just fitted, a walk's row is the one-period forecast of a fit on the same rows."""
    r, _ = _garch_path(7, 400, omega=2e-6, alpha=0.1, beta=0.88)
    walk = forecast.garch_walk(r, first=350, refit_every=100)
    assert walk[349] == pytest.approx(forecast.garch(r[:350]).forecast[0], rel=1e-9)


def test_har_recovers_its_coefficients() -> None:
    """On a simulated HAR process the constant and the three weights return; its forecast is their line."""
    rng = np.random.default_rng(8)
    v = np.full(20_000, 1.0)
    for t in range(22, len(v)):
        mean = 0.05 + 0.4 * v[t - 1] + 0.3 * v[t - 5 : t].mean() + 0.25 * v[t - 22 : t].mean()
        v[t] = mean * rng.gamma(20.0, 1.0 / 20.0)
    fit = forecast.har(v)
    np.testing.assert_allclose(fit.coefficients, [0.05, 0.4, 0.3, 0.25], atol=0.04)
    line = fit.coefficients[0] + fit.coefficients[1] * v[-1]
    line += fit.coefficients[2] * v[-5:].mean() + fit.coefficients[3] * v[-22:].mean()
    assert fit.forecast[-1] == pytest.approx(line, rel=1e-12)
    assert np.isnan(fit.forecast[:21]).all()
    assert (fit.forecast[21:] >= v.min()).all()
    assert fit.r2 > 0.5


def test_har_of_a_longer_horizon_is_for_the_mean_of_its_days() -> None:
    """A process that repeats each fifth day is foreseen exactly by the lag that repeats it."""
    v = np.tile([1.0, 2.0, 3.0, 4.0, 5.0], 40)
    fit = forecast.har(v, horizon=5, windows=(5,))
    np.testing.assert_allclose(fit.forecast[4:], 3.0, rtol=1e-9)


@pytest.mark.parametrize(
    ("estimate", "efficiency"),
    [
        (lambda *bars: forecast.parkinson(bars[1], bars[2]), 5.2),
        (forecast.garman_klass, 7.4),
        (forecast.rogers_satchell, 6.0),
    ],
)
def test_range_estimators_are_unbiased_and_efficient(estimate: Any, efficiency: float) -> None:
    """Without drift or gaps each is right on average, but for the path's steps, with the efficiency its authors state."""
    bars = _bars(9, 6_000)
    found = estimate(*bars)
    assert found.mean() == pytest.approx(1e-4, rel=0.06)  # a path of 2,000 steps misses its extremes by a little
    close = np.square(np.log(bars[3] / bars[0]))
    assert close.var() / found.var() == pytest.approx(efficiency, rel=0.2)


def test_rogers_satchell_does_not_see_a_drift() -> None:
    """With a drift as large as the deviation Parkinson overstates by half, Rogers and Satchell do not."""
    bars = _bars(10, 3_000, drift=0.01)
    assert forecast.rogers_satchell(*bars).mean() == pytest.approx(1e-4, rel=0.07)
    assert forecast.parkinson(bars[1], bars[2]).mean() > 1.3e-4


def test_yang_zhang_counts_gaps_and_not_drift() -> None:
    """With overnight gaps and a drift the variance is that of the whole day; Garman and Klass miss the night."""
    bars = _bars(11, 3_000, drift=0.005, gap=0.006)
    found = forecast.yang_zhang(*bars, window=21)
    assert np.isnan(found[:21]).all()
    assert np.nanmean(found) == pytest.approx(1e-4 + 0.36e-4, rel=0.05)
    assert forecast.garman_klass(*bars).mean() < 1.15e-4


def test_a_bar_that_contradicts_itself_is_unknown() -> None:
    """A high below the close, a low above the open or a price of zero is NaN in its row, and in the windows over it."""
    o, h, low, c = np.full((4, 30), 100.0)
    h[:], low[:] = 101.0, 99.0
    c[7] = 102.0
    assert np.flatnonzero(np.isnan(forecast.garman_klass(o, h, low, c))).tolist() == [7]
    assert np.isnan(forecast.parkinson([101.0, 99.0], [0.0, 100.0])).all()
    known = np.isfinite(forecast.yang_zhang(o, h, low, c, window=5))
    assert known.tolist() == [t >= 5 and not 7 <= t <= 12 for t in range(30)]


def test_realised_variance_sums_by_day() -> None:
    """Squared returns are summed by period, in the order of the periods."""
    assert forecast.realised_variance([0.1, 0.2, 0.3], [2, 1, 2]).tolist() == pytest.approx([0.04, 0.10])


def test_qlike_is_least_at_the_truth() -> None:
    """The mean loss over a noisy proxy is least at the true variance, and unknown where either is not positive."""
    proxy = 1e-4 * np.random.default_rng(12).chisquare(5, 20_000) / 5
    losses = {s: float(forecast.qlike(proxy, s * 1e-4).mean()) for s in (0.5, 0.9, 1.0, 1.1, 2.0)}
    assert min(losses, key=losses.__getitem__) == 1.0
    assert losses[0.5] > losses[2.0]
    assert forecast.qlike([1.0], [1.0])[0] == 0.0
    assert np.isnan(forecast.qlike([0.0, 1.0, np.nan], [1.0, -1.0, 1.0])).all()


def test_the_true_variance_wins_the_score() -> None:
    """On simulated GARCH returns the truth beats the filter, the filter a constant, on the same rows."""
    r, h = _garch_path(13, 6_000, omega=2e-6, alpha=0.1, beta=0.88)
    filtered = forecast.ewma(r)
    table = forecast.score(r[1:] ** 2, {"constant": np.full(5_999, r.var()), "ewma": filtered[:-1], "truth": h[1:]})
    assert list(table) == ["truth", "ewma", "constant"]
    assert len({score.rows for score in table.values()}) == 1
    assert (
        forecast.diebold_mariano(forecast.qlike(r[1:] ** 2, r.var()), forecast.qlike(r[1:] ** 2, h[1:]), lags=5) > 2.0
    )
    with pytest.raises(ValueError, match="score"):
        forecast.score([0.0], {"none": [1.0]})


def test_models_beat_a_constant_on_the_index() -> None:
    """Out of sample on the S&P 500, 2010 to 2018, EWMA, GJR and HAR on ranges each beat the mean of the past."""
    table = _index()
    o, h, low, c = (table[name].to_numpy(float) for name in ("Open", "High", "Low", "Close"))
    r = forecast.log_returns(c)
    proxy = forecast.garman_klass(o, h, low, c)[1:]
    proxy = np.where(proxy > 0.0, proxy, np.nan)
    gap = np.square(np.log(o[1:] / c[:-1]))
    proxy = proxy + gap
    first = 2_770
    filled = np.where(np.isfinite(proxy), proxy, r**2)
    made = {
        "constant": np.full(len(r), r[:first].var()),
        "ewma": forecast.ewma(r),
        "gjr": forecast.garch_walk(r, first=first, refit_every=600, family="gjr"),
        "har": forecast.har(filled, rows=first).forecast,
    }
    scores = forecast.score(proxy[first:], {name: x[first - 1 : -1] for name, x in made.items()})
    assert scores["constant"].rows > 2_000
    assert all(scores[name].qlike < 0.8 * scores["constant"].qlike for name in ("ewma", "gjr", "har"))


def test_what_cannot_be_fitted_is_refused() -> None:
    """Too few returns, unknown ones, returns that do not vary and unknown names raise with what was found."""
    good = np.random.default_rng(1).standard_normal(100)
    for bad in (good[:10], np.zeros(100), np.append(good, np.nan)):
        with pytest.raises(ValueError, match="at least 50 finite returns"):
            forecast.garch(bad)
    with pytest.raises(ValueError, match="family"):
        forecast.garch(good, family="arima")  # type: ignore[arg-type]  # what a caller without types may write
    with pytest.raises(ValueError, match="first"):
        forecast.garch_walk(good, first=20)
    with pytest.raises(ValueError, match="rows to fit on"):
        forecast.har(good**2 + 1.0, rows=30)
    with pytest.raises(ValueError, match="not negative"):
        forecast.har(good)
