"""Laws of every surface and model, over the parameters a desk can meet."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.pricing import black, curve, heston, sabr, surface
from bot.pricing.surface import Smile, Ssvi, Svi

quick = settings(max_examples=60, deadline=None)
few = settings(max_examples=15, deadline=None)
rhos = st.floats(-0.95, 0.95)
K = np.linspace(-2.5, 2.5, 201)


@quick
@given(rhos, st.floats(0.01, 1.0), st.floats(0.01, 0.5), st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=6))
def test_sound_ssvi_has_no_arbitrage(rho: float, share: float, gamma: float, steps: list[float]) -> None:
    """Inside the bounds of the theorems, any rising theta gives a surface without butterflies or calendar arbitrage."""
    ssvi = Ssvi(rho, share * 2.0 / np.sqrt(1.0 + abs(rho)), gamma)
    theta = np.cumsum(steps)
    tau = np.arange(1.0, len(theta) + 1.0)
    made = surface.Surface(tau, np.full(len(theta), 100.0), [ssvi.slice(t) for t in theta], ssvi=(ssvi, theta))
    assert ssvi.sound
    assert surface.check(made, K, between=2).ok


@few
@given(rhos, st.floats(0.1, 3.0), st.floats(0.05, 1.0), st.floats(0.005, 0.5), st.integers(0, 99))
def test_any_smile_becomes_a_sound_slice(rho: float, b: float, sigma: float, level: float, seed: int) -> None:
    """Whatever the points, the sound fit has no butterfly over them, is positive and obeys Lee's bound."""
    rng = np.random.default_rng(seed)
    k = np.sort(rng.uniform(-1.5, 1.5, 20))
    raw = Svi(level, b, rho, 0.3, sigma).variance(k) * np.exp(rng.normal(0.0, 0.05, 20))
    svi, _ = surface.fit_svi(k, raw, weight=10.0 / raw)
    grid = np.linspace(k[0], k[-1], 801)
    assert svi.durrleman(grid).min() >= 0.0
    assert svi.variance(grid).min() > 0.0
    assert svi.b * (1.0 + abs(svi.rho)) <= surface.LEE + 1e-9


@few
@given(st.floats(0.1, 0.5), rhos, st.floats(0.2, 1.5), st.floats(0.6, 1.5))
def test_a_fitted_surface_prices_without_free_lunches(vol: float, rho: float, eta: float, bend: float) -> None:
    """Calls off a fitted surface fall and bend upward in the strike, and are worth more for longer at equal moneyness."""
    ssvi = Ssvi(rho, min(eta, 2.0 / np.sqrt(1.0 + abs(rho))), 0.4)
    smiles = []
    for tau, scale in ((0.1, 1.0), (0.4, bend), (1.0, 1.0)):
        svi = ssvi.slice(vol**2 * tau * scale)
        w = float(np.sqrt(svi.variance(0.0)))
        k = np.linspace(-3.0 * w, 3.0 * w, 25)
        smiles.append(Smile(tau, 100.0, k, np.sqrt(svi.variance(k) / tau), np.full(25, 0.003), {}))
    made = surface.fit(smiles)
    assert surface.check(made).ok
    x = np.linspace(smiles[-1].k[0], smiles[-1].k[-1], 60)
    strikes = 100.0 * np.exp(x)
    late = black.black76(100.0, strikes, 1.0, made.vol(strikes, 1.0)).price
    slope = np.diff(late) / np.diff(strikes)
    assert (slope <= 1e-9).all()
    assert (slope >= -1.0 - 1e-9).all()
    assert (np.diff(slope) >= -1e-9).all()
    early = black.black76(100.0, strikes, 0.7, made.vol(strikes, 0.7)).price
    assert (late >= early - 1e-9).all()


@quick
@given(st.floats(-0.1, 0.3), st.floats(10.0, 5000.0), st.floats(0.01, 3.0), st.integers(2, 40), st.integers(0, 99))
def test_parity_finds_any_line(rate: float, forward: float, tau: float, n: int, seed: int) -> None:
    """From exact quotes forward and discount return to rounding, whatever the strikes and spreads."""
    rng = np.random.default_rng(seed)
    strikes = forward * np.unique(np.round(rng.uniform(0.7, 1.4, n), 3))
    if len(strikes) < 2:
        return
    D = np.exp(-rate * tau)
    call = D * (forward - strikes) + 2.0 * forward
    half = forward * rng.uniform(1e-4, 1e-2, len(strikes))
    put = np.full(len(strikes), 2.0 * forward)
    fit = curve.imply_forward(strikes, call - half, call + half, put - half, put + half, tau=tau)
    assert abs(fit.forward / forward - 1.0) < 1e-8
    assert abs(fit.discount / D - 1.0) < 1e-8
    assert fit.inside == 1.0


@quick
@given(st.floats(0.05, 1.0), st.floats(0.0, 1.0), rhos, st.floats(0.0, 2.0), st.floats(0.01, 2.0), st.floats(0.1, 10.0))
def test_sabr_scales_with_the_forward(
    level: float, beta: float, rho: float, nu: float, tau: float, unit: float
) -> None:
    """Vols do not change when the currency's unit does, alpha following as forward^(1 - beta)."""
    strikes = np.array([0.6, 0.9, 1.0, 1.3])
    one = sabr.vol(1.0, strikes, tau, alpha=level, beta=beta, rho=rho, nu=nu)
    other = sabr.vol(unit, unit * strikes, tau, alpha=level * unit ** (1.0 - beta), beta=beta, rho=rho, nu=nu)
    np.testing.assert_allclose(other, one, rtol=1e-9)


@few
@given(
    st.floats(0.005, 0.5),
    st.floats(0.1, 6.0),
    st.floats(0.005, 0.5),
    st.floats(0.01, 2.0),
    rhos,
    st.floats(0.005, 10.0),
)
def test_heston_prices_obey_their_bounds(
    variance: float, reversion: float, mean: float, nu: float, rho: float, tau: float
) -> None:
    """Calls are between intrinsic and the forward, fall in the strike with a slope in [-1, 0], and bend upward."""
    model = heston.Heston(variance=variance, reversion=reversion, mean_variance=mean, vol_of_vol=nu, correlation=rho)
    strikes = np.linspace(20.0, 300.0, 57)
    call = heston.price(100.0, strikes, tau, model)
    assert (call >= np.maximum(100.0 - strikes, 0.0)).all()
    assert (call <= 100.0).all()
    slope = np.diff(call) / np.diff(strikes)
    assert (slope <= 1e-9).all()
    assert (slope >= -1.0 - 1e-9).all()
    assert (np.diff(slope) >= -1e-8).all()
