"""Heston and Bates by cosines: equal to QuantLib and to quadrature, to published prices and to the limits of the model."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  ships no types; the name of its manual

from bot.pricing import black, heston

PAPER = heston.Heston(variance=0.0175, reversion=1.5768, mean_variance=0.0398, vol_of_vol=0.5751, correlation=-0.5711)
MODELS = {
    "paper": PAPER,
    "feller": heston.Heston(variance=0.04, reversion=4.0, mean_variance=0.06, vol_of_vol=0.3, correlation=-0.7),
    "wild": heston.Heston(variance=0.02, reversion=0.5, mean_variance=0.1, vol_of_vol=1.4, correlation=-0.9),
    "upward": heston.Heston(variance=0.09, reversion=1.0, mean_variance=0.09, vol_of_vol=0.8, correlation=0.6),
    "jumps": msgspec.structs.replace(PAPER, intensity=0.8, jump_mean=-0.12, jump_std=0.15),
}
STRIKES = np.array([40.0, 70.0, 90.0, 100.0, 110.0, 150.0, 250.0])


def _quantlib(model: heston.Heston, strikes: Sequence[float], days: int) -> list[float]:
    """Calls of QuantLib's semi-analytic engine at rate 3% and yield 1% on a spot of 100."""
    today = ql.Date(15, 5, 2024)
    ql.Settings.instance().evaluationDate = today
    spot = ql.QuoteHandle(ql.SimpleQuote(100.0))
    rate, dividend = (ql.YieldTermStructureHandle(ql.FlatForward(today, r, ql.Actual365Fixed())) for r in (0.03, 0.01))
    base = (model.variance, model.reversion, model.mean_variance, model.vol_of_vol, model.correlation)
    if model.intensity:
        jumps = (model.intensity, model.jump_mean, model.jump_std)
        process = ql.BatesProcess(rate, dividend, spot, *base, *jumps)
        engine = ql.BatesEngine(ql.BatesModel(process), 1e-12, 100_000)
    else:
        process = ql.HestonProcess(rate, dividend, spot, *base)
        engine = ql.AnalyticHestonEngine(ql.HestonModel(process), 1e-12, 100_000)
    found = []
    for strike in strikes:
        payoff = ql.PlainVanillaPayoff(ql.Option.Call, float(strike))
        option = ql.VanillaOption(payoff, ql.EuropeanExercise(today + days))
        option.setPricingEngine(engine)
        found.append(option.NPV())
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("days", [7, 91, 730, 3650])
def test_prices_equal_quantlib(name: str, days: int) -> None:
    """Calls from a week to ten years, near and far, are those of QuantLib's analytic engine to 1e-7."""
    tau = days / 365.0
    mine = heston.price(100.0 * np.exp(0.02 * tau), STRIKES, tau, MODELS[name], discount=float(np.exp(-0.03 * tau)))
    np.testing.assert_allclose(mine, _quantlib(MODELS[name], STRIKES.tolist(), days), atol=1e-7)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tau", [0.003, 0.1, 1.0, 20.0])
def test_prices_equal_quadrature(name: str, tau: float) -> None:
    """The cosine sum and one adaptive integral of the same model agree to 1e-9 of the forward."""
    slow = [heston.price_by_quadrature(100.0, float(k), tau, MODELS[name], cp=-1) for k in STRIKES]
    np.testing.assert_allclose(heston.price(100.0, STRIKES, tau, MODELS[name], cp=-1), slow, atol=1e-7)


@pytest.mark.parametrize(("tau", "published"), [(1.0, 5.785155450), (10.0, 22.318945791)])
def test_published_prices(tau: float, published: float) -> None:
    """The reference calls of Fang and Oosterlee (2008, section 5, Heston), S = K = 100, no rates, to 2e-8."""
    assert float(heston.price(100.0, 100.0, tau, PAPER)) == pytest.approx(published, abs=2e-8)


def test_random_models_equal_quadrature() -> None:
    """Far from Feller's condition, with any correlation and jumps, the range found is wide enough."""
    rng = np.random.default_rng(5)
    for _ in range(25):
        model = heston.Heston(
            variance=rng.uniform(0.005, 0.3),
            reversion=rng.uniform(0.1, 5.0),
            mean_variance=rng.uniform(0.005, 0.3),
            vol_of_vol=rng.uniform(0.05, 1.5),
            correlation=rng.uniform(-0.95, 0.9),
            intensity=float(rng.choice([0.0, 1.5])),
            jump_mean=-0.1,
            jump_std=0.15,
        )
        tau = float(10.0 ** rng.uniform(-2.5, 1.3))
        K = 100.0 * float(np.exp(rng.normal(0.0, 0.4)))
        slow = heston.price_by_quadrature(100.0, K, tau, model)
        assert float(heston.price(100.0, K, tau, model)) == pytest.approx(slow, abs=1e-7), (tau, K, model)


def test_without_vol_of_vol_it_is_black() -> None:
    """No vol of vol leaves a deterministic variance, whose price is Black's; a tiny one differs by as little."""
    model = heston.Heston(variance=0.04, reversion=2.0, mean_variance=0.09, vol_of_vol=0.0, correlation=0.0)
    total = 0.09 * (1.0 - (1.0 - np.exp(-2.0)) / 2.0) + 0.04 * (1.0 - np.exp(-2.0)) / 2.0
    exact = black.black76(100.0, STRIKES, 1.0, np.sqrt(total)).price
    np.testing.assert_allclose(heston.price(100.0, STRIKES, 1.0, model), exact, atol=1e-9)
    near = msgspec.structs.replace(model, vol_of_vol=1e-6)
    np.testing.assert_allclose(heston.price(100.0, STRIKES, 1.0, near), exact, atol=1e-7)
    still = msgspec.structs.replace(model, variance=0.0, mean_variance=0.0)
    np.testing.assert_array_equal(heston.price(100.0, STRIKES, 1.0, still), np.maximum(100.0 - STRIKES, 0.0))


def test_without_diffusion_it_is_mertons_series() -> None:
    """Jumps over a constant variance give Merton's (1976) sum of Black prices over the Poisson count."""
    lam, m, s, tau = 1.2, -0.1, 0.2, 0.7
    model = heston.Heston(
        variance=0.03,
        reversion=1.0,
        mean_variance=0.03,
        vol_of_vol=0.0,
        correlation=0.0,
        intensity=lam,
        jump_mean=m,
        jump_std=s,
    )
    exact, chance = np.zeros(len(STRIKES)), np.exp(-lam * tau)
    for n in range(60):
        forward = 100.0 * np.exp(-lam * tau * np.expm1(m + 0.5 * s * s) + n * (m + 0.5 * s * s))
        exact += chance * black.black76(forward, STRIKES, tau, np.sqrt(0.03 + n * s * s / tau)).price
        chance *= lam * tau / (n + 1)
    np.testing.assert_allclose(heston.price(100.0, STRIKES, tau, model), exact, atol=1e-9)


def test_parity_bounds_and_shape() -> None:
    """Calls and puts keep parity and their bounds; prices fall and bend in the strike; one strike alone gives the same."""
    K = np.linspace(20.0, 300.0, 141)
    call = heston.price(100.0, K, 0.5, PAPER, discount=0.97)
    put = heston.price(100.0, K, 0.5, PAPER, discount=0.97, cp=-1)
    np.testing.assert_allclose(call - put, 0.97 * (100.0 - K), atol=1e-12)
    assert (call >= 0.97 * np.maximum(100.0 - K, 0.0) - 1e-12).all()
    assert (np.diff(call) <= 1e-12).all()
    assert (np.diff(call, 2) >= -1e-10).all()
    alone = [float(heston.price(100.0, k, 0.5, PAPER, discount=0.97)) for k in K[::20]]
    np.testing.assert_allclose(call[::20], alone, rtol=0, atol=1e-12)
    assert heston.price(100.0, K.reshape(3, 47), 0.5, PAPER).shape == (3, 47)


def test_a_bad_row_stays_alone() -> None:
    """A strike or side that cannot be is NaN in its row; a strike of zero is the forward."""
    found = heston.price(100.0, [100.0, -1.0, np.nan, 0.0, 100.0], 1.0, PAPER, cp=[1, 1, 1, 1, 2])
    assert np.isnan(found).tolist() == [False, True, True, False, True]
    assert found[3] == pytest.approx(100.0, rel=1e-14)


def test_the_characteristic_function_is_a_martingales() -> None:
    """phi(0) = 1 and phi(-i) = 1 for every model: the forward is what is expected; phi never leaves the unit disc."""
    for model in MODELS.values():
        for tau in (0.01, 1.0, 30.0):
            ends = np.exp(heston.log_cf(np.array([0.0, -1.0j]), tau, model))
            np.testing.assert_allclose(ends, 1.0, atol=1e-12)
            assert (np.abs(np.exp(heston.log_cf(np.linspace(0.0, 200.0, 999), tau, model))) <= 1.0 + 1e-12).all()


def test_the_skew_follows_the_correlation() -> None:
    """A negative correlation lifts the vols of low strikes over those of high ones, a positive one the other way."""
    for sign in (-1.0, 1.0):
        model = msgspec.structs.replace(PAPER, correlation=0.6 * sign)
        low, high = heston.vol(100.0, [85.0, 115.0], 0.5, model)
        assert sign * (high - low) > 0.0


@pytest.mark.parametrize(
    ("key", "value"), [("variance", -0.1), ("correlation", 1.5), ("vol_of_vol", float("nan")), ("intensity", -1.0)]
)
def test_impossible_parameters_are_refused(key: str, value: float) -> None:
    """A model's parameters are checked when it is made, by name."""
    with pytest.raises(ValueError, match=key):
        msgspec.structs.replace(PAPER, **{key: value})


def test_impossible_inputs_are_refused() -> None:
    """Forward, tau and discount must be positive numbers."""
    for given in ({"tau": 0.0}, {"forward": -1.0}, {"discount": float("nan")}):
        values = {"forward": 100.0, "tau": 1.0, "discount": 1.0, **given}
        with pytest.raises(ValueError, match=next(iter(given))):
            heston.price(values["forward"], 100.0, values["tau"], PAPER, discount=values["discount"])


def test_fellers_condition_is_told() -> None:
    """The paper's model reaches zero variance, the second one does not."""
    assert not PAPER.feller
    assert MODELS["feller"].feller
