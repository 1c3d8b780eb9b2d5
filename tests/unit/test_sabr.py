"""SABR: equal to QuantLib's formula, smooth at the money, its limits where they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  ships no types; the name of its manual

from bot.pricing import black, sabr

STRIKES = np.array([40.0, 70.0, 95.0, 100.0, 120.0, 250.0])


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("rho", "nu"), [(-0.4, 0.5), (0.3, 0.8), (0.0, 0.2)])
def test_lognormal_vols_equal_quantlib(beta: float, rho: float, nu: float) -> None:
    """The Black vols are those of QuantLib's formula to 1e-9."""
    alpha = 0.2 * 100.0 ** (1.0 - beta)
    mine = sabr.vol(100.0, STRIKES, 1.5, alpha=alpha, beta=beta, rho=rho, nu=nu)
    other = [ql.sabrVolatility(float(k), 100.0, 1.5, alpha, beta, nu, rho) for k in STRIKES]
    np.testing.assert_allclose(mine, other, atol=1e-9)


@pytest.mark.parametrize("beta", [0.3, 0.5, 1.0])
def test_normal_vols_equal_quantlib(beta: float) -> None:
    """The Bachelier vols are those of QuantLib's formula to 1e-9 of the forward."""
    alpha = 0.2 * 100.0 ** (1.0 - beta)
    mine = sabr.normal_vol(100.0, STRIKES, 1.5, alpha=alpha, beta=beta, rho=-0.4, nu=0.5)
    other = [ql.sabrVolatility(float(k), 100.0, 1.5, alpha, beta, 0.5, -0.4, ql.Normal) for k in STRIKES]
    np.testing.assert_allclose(mine, other, atol=1e-7)


def test_the_normal_model_takes_forwards_below_zero() -> None:
    """With beta 0 the normal vol depends on f - K alone, whatever their signs; with beta above 0 it is refused."""
    shifted = [sabr.normal_vol(f, f + 0.01, 2.0, alpha=0.01, beta=0.0, rho=-0.2, nu=0.4) for f in (-0.02, 0.0, 0.03)]
    assert shifted == pytest.approx([float(shifted[0])] * 3, rel=1e-12)
    assert np.isnan(sabr.normal_vol(-0.02, 0.01, 2.0, alpha=0.01, beta=0.5, rho=-0.2, nu=0.4))
    assert np.isfinite(sabr.vol(-0.02, 0.01, 2.0, alpha=0.01, beta=0.5, rho=-0.2, nu=0.4, shift=0.03))


def test_prices_of_both_vols_meet_for_short_expiries() -> None:
    """Black with the lognormal and Bachelier with the normal vol price one model: their gap falls with tau."""
    from scipy.special import ndtr  # noqa: PLC0415  beside its only use

    gaps = []
    for tau in (1.0, 0.1, 0.01):
        K = 100.0 * np.exp(0.2 * np.sqrt(tau) * np.array([-1.0, 0.5, 1.0]))
        given = {"alpha": 2.0, "beta": 0.5, "rho": -0.3, "nu": 0.3}
        lognormal = black.black76(100.0, K, tau, sabr.vol(100.0, K, tau, **given)).price
        w = sabr.normal_vol(100.0, K, tau, **given) * np.sqrt(tau)
        d = (100.0 - K) / w
        normal = (100.0 - K) * ndtr(d) + w * np.exp(-0.5 * d * d) / np.sqrt(2.0 * np.pi)
        gaps.append(float(np.max(np.abs(lognormal / normal - 1.0))))
    assert gaps[0] < 2e-3
    assert gaps[1] < 0.2 * gaps[0]
    assert gaps[2] < 0.2 * gaps[1]


def test_the_smile_is_smooth_through_the_money() -> None:
    """Between the series and the quotient z/x(z) there is no step, on either side of the forward."""
    K = 100.0 * np.exp(np.linspace(-1e-3, 1e-3, 2001))
    v = sabr.vol(100.0, K, 1.0, alpha=2.0, beta=0.5, rho=-0.9, nu=1.5)
    assert np.abs(np.diff(v, 2)).max() < 1e-10


def test_limits_of_the_parameters() -> None:
    """No vol of vol is the CEV smile, no alpha is no vol, and what is outside the domain is NaN in its row only."""
    cev = sabr.vol(100.0, STRIKES, 1.0, alpha=20.0, beta=0.0, rho=0.0, nu=0.0)
    near = sabr.vol(100.0, STRIKES, 1.0, alpha=20.0, beta=0.0, rho=0.0, nu=1e-9)
    np.testing.assert_allclose(cev, near, rtol=1e-12)
    assert sabr.vol(100.0, 110.0, 1.0, alpha=0.0, beta=0.5, rho=0.0, nu=0.1) == 0.0
    rows = sabr.vol(
        [100.0, -1.0, 100.0, 100.0], 100.0, 1.0, alpha=2.0, beta=[0.5, 0.5, 1.5, 0.5], rho=[0, 0, 0, 1], nu=0.3
    )
    assert np.isnan(rows).tolist() == [False, True, True, True]


def test_alpha_of_the_money_gives_the_vol_back() -> None:
    """The cubic's root reproduces the at-the-money vol, with and without a shift."""
    for beta, shift in ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (0.5, 0.02)):
        alpha = sabr.alpha_of(0.25, 0.03, 5.0, beta=beta, rho=-0.3, nu=0.4, shift=shift)
        back = sabr.vol(0.03, 0.03, 5.0, alpha=alpha, beta=beta, rho=-0.3, nu=0.4, shift=shift)
        assert float(back) == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize(("rho", "nu"), [(-0.6, 0.7), (0.4, 0.3), (0.0, 1.5)])
def test_fit_recovers_its_parameters(rho: float, nu: float) -> None:
    """From a smile the model made, alpha, rho and nu come back to 1e-6."""
    K = 100.0 * np.exp(np.linspace(-0.5, 0.4, 15))
    smile = sabr.vol(100.0, K, 0.5, alpha=2.5, beta=0.5, rho=rho, nu=nu)
    found = sabr.fit(K, smile, forward=100.0, tau=0.5, beta=0.5)
    assert (found.alpha, found.rho, found.nu) == pytest.approx((2.5, rho, nu), abs=1e-6)
    assert found.rmse < 1e-9
    np.testing.assert_allclose(found.vol(100.0, K, 0.5), smile, atol=1e-8)
    with pytest.raises(ValueError, match="at least 3"):
        sabr.fit(K[:2], smile[:2], forward=100.0, tau=0.5)


def test_the_density_turns_negative_where_it_is_said_to() -> None:
    """At long expiries the expansion's density is negative at low strikes, and sound above the strike named."""
    given = {"forward": 100.0, "tau": 10.0, "alpha": 2.0, "beta": 0.5, "rho": -0.3, "nu": 0.5}
    edge = sabr.lowest_sound_strike(**given)
    assert 5.0 < edge < 60.0
    assert (sabr.density(np.linspace(edge, 100.0, 50), **given) > -1e-9).all()
    assert sabr.density(0.95 * edge, **given) < 0.0
    short = {**given, "tau": 0.25, "beta": 1.0, "alpha": 0.2}
    assert sabr.lowest_sound_strike(**short) <= 0.0
    K = np.geomspace(20.0, 500.0, 4000)
    p = sabr.density(K, **short)
    assert float(np.sum(0.5 * (p[1:] + p[:-1]) * np.diff(K))) == pytest.approx(1.0, abs=1e-4)
