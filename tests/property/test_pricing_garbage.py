"""Whatever numbers arrive, every pricing function answers, or refuses in one sentence; it never warns, writes or mixes rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.pricing import (
    american,
    american_discrete,
    black,
    curve,
    digital,
    forecast,
    heston,
    implied,
    paths,
    sabr,
    smile,
    surface,
)
from bot.pricing.status import Status

Array = np.ndarray
ENDS = st.sampled_from(
    [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, -1.0, 1e308, -1e308, 5e-324, 1e-300, 1e150, 1e9]
)
ANY_NUMBERS = settings(max_examples=60, deadline=None)


def number(low: float, high: float) -> st.SearchStrategy[float]:
    """Mostly sane, at times not a number anyone means."""
    return st.floats(low, high) | st.floats(low, high) | ENDS


PRICE, TIME, SHARE, RATE = number(50.0, 150.0), number(0.01, 3.0), number(0.01, 0.9), number(-0.1, 0.2)
SIDE = st.sampled_from([1.0, -1.0, 0.0, float("nan")])


def rows(function: Callable[..., Any], good: tuple[float, ...], bad: tuple[float, ...], **more: Any) -> None:
    """Calls with a bad row before a good one: the good one has the bits it has alone, and inputs stay as they were."""
    columns = [np.array(pair) for pair in zip(bad, good, strict=True)]
    for column in columns:
        column.flags.writeable = False
    both = function(*columns, **more)
    alone = function(*good, **more)
    for pair, one in zip(
        np.atleast_2d(both) if isinstance(both, Array) else both,
        alone if isinstance(alone, tuple) else (alone,),
        strict=True,
    ):
        if pair is not None:
            np.testing.assert_array_equal(np.asarray(pair)[1], one)
    if hasattr(both, "status"):
        known = {Status.OK} if isinstance(both, implied.ImpliedVol) else {Status.OK, Status.LIMIT, Status.EXPIRED}
        assert bool(np.isfinite(both[0][0])) == (both.status[0] in known)


@ANY_NUMBERS
@given(PRICE, PRICE, TIME, SHARE, RATE, RATE, SIDE)
def test_rows_beside_any_row_keep_their_bits(
    S: float, K: float, T: float, v: float, r: float, q: float, cp: float
) -> None:
    """European, digital, normal, American and implied rows are what they are alone beside any other row."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        def keyed(function: Callable[..., Any]) -> Callable[..., Any]:
            return lambda S, K, T, v, r, q, cp: function(S, K, T, v, rate=r, dividend=q, cp=cp)

        def on_forward(function: Callable[..., Any]) -> Callable[..., Any]:
            return lambda S, K, T, v, r, _, cp: function(S, K, T, v, rate=r, cp=cp)

        good, bad = (100.0, 105.0, 0.5, 0.25, 0.03, 0.01, -1.0), (S, K, T, v, r, q, cp)
        for function in (black.bsm, black.greeks_slice, digital.cash, digital.asset, american.price):
            rows(keyed(function), good, bad)
        for function in (black.black76, black.bachelier):
            rows(on_forward(function), good, bad)
        rows(
            lambda P, F, K, T, D, c: implied.vol(P, F, K, T, discount=D, cp=c),
            (7.0, 100.0, 105.0, 0.5, 0.98, -1.0),
            (v, S, K, T, q, cp),
        )
        found = american.implied_vol([v * 10.0, 9.0], [S, 100.0], [K, 105.0], [T, 0.5], rate=[r, 0.03], cp=[cp, -1.0])
        assert found.status[1] == 0
        assert (found.status[0] == 0) == bool(np.isfinite(found.vol[0]))


@ANY_NUMBERS
@given(PRICE, PRICE, TIME, SHARE, SHARE, RATE, SHARE, PRICE)
def test_smiles_beside_any_strike_keep_theirs(
    F: float, K: float, T: float, alpha: float, beta: float, rho: float, nu: float, strike: float
) -> None:
    """SABR, smile rules and Heston answer a good strike alike beside any other; one bad parameter is refused or NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in (sabr.vol, sabr.normal_vol):
            both = function(
                [F, 100.0], [K, 105.0], [T, 0.5], alpha=[alpha, 0.3], beta=[beta, 0.9], rho=[rho, -0.3], nu=[nu, 0.5]
            )
            assert both[1] == function(100.0, 105.0, 0.5, alpha=0.3, beta=0.9, rho=-0.3, nu=0.5)
        moved = smile.delta_with_smile([alpha, 0.5], [F, 20.0], spot=[K, 100.0], skew=[rho, -0.1], stickiness=[nu, 1.5])
        assert moved[1] == smile.delta_with_smile(0.5, 20.0, spot=100.0, skew=-0.1, stickiness=1.5)
        model = heston.Heston(variance=0.04, reversion=1.5, mean_variance=0.05, vol_of_vol=0.4, correlation=-0.5)
        priced = heston.price(100.0, [K, 105.0], 0.5, model, cp=[1, -1])
        assert priced[1] == pytest.approx(float(heston.price(100.0, 105.0, 0.5, model, cp=-1)), rel=1e-12)
        assert np.isfinite(priced[0]) == (0.0 <= K < np.inf)
        answered_or_refused(sabr.alpha_of, alpha, F, T, beta=beta, rho=rho, nu=nu)
        answered_or_refused(sabr.lowest_sound_strike, forward=F, tau=T, alpha=alpha, beta=beta, rho=rho, nu=nu)
        given = {"variance": alpha, "reversion": beta, "mean_variance": nu, "vol_of_vol": abs(rho), "correlation": rho}
        law = answered_or_refused(heston.Heston, **given)
        if law is not None:
            answered_or_refused(heston.price, F, np.array([K, strike]), T, law)


@ANY_NUMBERS
@given(
    st.lists(number(-0.1, 2.0), min_size=1, max_size=8),
    st.lists(PRICE, min_size=1, max_size=8),
    st.integers(-1, 9),
    SHARE,
)
def test_series_and_curves_answer_or_refuse(
    values: list[float], prices: list[float], window: int, share: float
) -> None:
    """Curves, filters, ranges and surfaces of any numbers answer, or say in a sentence what was expected and found."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        P = np.array(prices)
        high, low = np.maximum(P, P[::-1]), np.minimum(P, P[::-1])
        for function in (forecast.log_returns, forecast.annual_vol):
            answered_or_refused(function, P)
        answered_or_refused(forecast.ewma, P, decay=share)
        answered_or_refused(forecast.rolling_mean, P, window)
        answered_or_refused(forecast.rolling_variance, P, window)
        answered_or_refused(forecast.parkinson, high, low)
        answered_or_refused(forecast.garman_klass, P, high, low, P)
        answered_or_refused(forecast.rogers_satchell, P, high, low, P)
        answered_or_refused(forecast.yang_zhang, P, high, low, P, window=max(window, 2))
        answered_or_refused(forecast.qlike, P, P[::-1])
        made = answered_or_refused(curve.from_zeros, np.arange(1.0, len(values) + 1.0), values)
        if made is not None:
            answered_or_refused(made.discount, P)
            answered_or_refused(made.zero, P)
        answered_or_refused(curve.from_discounts, np.arange(1.0, len(values) + 1.0), values)
        answered_or_refused(surface.fit_cubic, np.arange(float(len(values))), np.clip(values, -1.0, 1e9))
        answered_or_refused(
            american_discrete.price, P, 100.0, 0.5, share, dividends=[(values[0], values[-1])], model="spot", steps=10
        )


@ANY_NUMBERS
@given(PRICE, SHARE, number(0.001, 0.1), RATE, st.integers(-1, 4), st.integers(-1, 4))
def test_paths_are_prices_or_refused(spot: float, vol: float, dt: float, drift: float, steps: int, count: int) -> None:
    """A world with any number in it draws paths that begin at its spot, or is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        world: dict[str, Any] = {"spot": spot, "dt": dt, "n_steps": steps, "drift": drift, "n_paths": count}
        rng = np.random.default_rng(1)
        jumps = {"intensity": vol, "jump_mean": drift, "jump_std": vol}
        found = [
            answered_or_refused(paths.gbm, rng, vol=vol, **world),
            answered_or_refused(paths.merton, rng, vol=vol, **jumps, **world),
        ]
        law = {"variance": vol, "reversion": 1.0, "mean_variance": vol, "vol_of_vol": vol, "correlation": drift}
        # the walk itself may leave the range of numbers when its numbers are near the end of it
        if vol < 1e9 and abs(drift) < 1e9 and dt < 1e9:
            found += [answered_or_refused(paths.heston, rng, **law, **world)]
        for path in found:
            if path is not None:
                prices = path.spot if isinstance(path, paths.HestonPath) else path
                np.testing.assert_allclose(prices[..., 0], spot, rtol=1e-12)


def answered_or_refused(function: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """What it answers, or None where it refuses with a sentence that says what was expected; arrays it was given stay."""
    arrays = [arg for arg in args if isinstance(arg, Array)]
    copies = [arg.copy() for arg in arrays]
    try:
        answer = function(*args, **more)
    except ValueError as error:
        assert "expected" in str(error)
        assert "\n" not in str(error)
        answer = None
    for arg, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(arg, copy)
    return answer
