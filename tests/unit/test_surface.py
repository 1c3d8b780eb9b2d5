"""Surfaces: parameters come back from what they made, arbitrage is found and removed, bad quotes have no say."""

from __future__ import annotations

import numpy as np
import pytest

from bot.pricing import black, surface
from bot.pricing.surface import Smile, Ssvi, Svi

VOGT = Svi(a=-0.0410, b=0.1331, rho=0.3060, m=0.3586, sigma=0.4153)
"""Axel Vogt's slice with a butterfly (Gatheral and Jacquier 2014, example 3.1)."""
GRID = np.linspace(-1.5, 1.5, 301)


def _quotes(
    svi: Svi, tau: float, *, forward: float = 100.0, half: float = 0.004, n: int = 41
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bid and ask of calls and puts about the price of a slice, spreads given in vol."""
    w = float(np.sqrt(svi.variance(0.0)))
    k = np.tile(np.linspace(-3.0 * w, 2.5 * w, n), 2)
    cp = np.repeat([1, -1], n)
    row = black.black76(forward, forward * np.exp(k), tau, np.sqrt(svi.variance(k) / tau), cp=cp)
    return forward * np.exp(k), row.price - half * row.vega, row.price + half * row.vega, cp


def _smile(svi: Svi, tau: float, *, n: int = 31, forward: float = 100.0) -> Smile:
    w = float(np.sqrt(svi.variance(0.0)))
    k = np.linspace(-3.0 * w, 2.5 * w, n)
    return Smile(tau, forward, k, np.sqrt(svi.variance(k) / tau), np.full(n, 0.002), {})


@pytest.mark.parametrize(
    "truth",
    [
        Svi(0.01, 0.1, -0.4, 0.02, 0.15),
        Svi(0.0, 0.2, 0.3, -0.1, 0.3),
        Svi(0.002, 0.02, -0.7, 0.0, 0.04),
        Svi(-0.005, 0.1, 0.1, 0.05, 0.2),
    ],
)
def test_svi_parameters_come_back(truth: Svi) -> None:
    """From 25 points of a slice all five parameters return, whatever the start: none is given."""
    w = float(np.sqrt(truth.variance(0.0)))
    k = np.linspace(-6.0 * w, 6.0 * w, 25)
    found, vote = surface.fit_svi(k, truth.variance(k), weight=1.0 / truth.variance(k))
    np.testing.assert_allclose(found, truth, atol=2e-6, rtol=1e-4)
    assert (vote > 0.9).all()


def test_stale_points_have_no_say() -> None:
    """A fifth of the points moved by ten spreads leaves the slice where it was."""
    truth = Svi(0.01, 0.1, -0.4, 0.02, 0.15)
    k = np.linspace(-0.6, 0.6, 40)
    w = truth.variance(k)
    wrong = np.random.default_rng(2).permutation(40)[:8]
    w[wrong] *= np.where(np.arange(8) % 2, 1.3, 0.7)
    found, vote = surface.fit_svi(k, w, weight=100.0 / truth.variance(k))
    assert np.abs(found.variance(k) / truth.variance(k) - 1.0).max() < 0.005
    assert (vote[wrong] < 0.05).all()
    assert np.delete(vote, wrong).mean() > 0.8


def test_a_known_butterfly_is_found_and_removed() -> None:
    """Vogt's slice has a negative density; the sound fit to its own points has none and stays near."""
    assert VOGT.durrleman(GRID).min() < -0.01
    k = np.linspace(-1.0, 1.0, 41)
    free, _ = surface.fit_svi(k, VOGT.variance(k), sound=False)
    sound, _ = surface.fit_svi(k, VOGT.variance(k))
    assert free.durrleman(GRID).min() < -0.01
    assert sound.durrleman(GRID).min() >= 0.0
    assert np.abs(np.sqrt(sound.variance(k)) - np.sqrt(VOGT.variance(k))).max() < 0.03


def test_durrlemans_g_is_the_density() -> None:
    """g is the second strike derivative of the price up to a positive factor: both agree on a bump."""
    svi = Svi(0.01, 0.1, -0.4, 0.02, 0.15)
    K, h = np.linspace(60.0, 160.0, 21), 0.01

    def call(strike: np.ndarray) -> np.ndarray:
        return black.black76(100.0, strike, 1.0, np.sqrt(svi.variance(np.log(strike / 100.0)))).price

    density = (call(K - h) - 2.0 * call(K) + call(K + h)) / h**2
    k = np.log(K / 100.0)
    w = svi.variance(k)
    d2 = -k / np.sqrt(w) - 0.5 * np.sqrt(w)
    expected = svi.durrleman(k) / np.sqrt(2.0 * np.pi * w) * np.exp(-0.5 * d2**2) / K
    np.testing.assert_allclose(density, expected, rtol=1e-3)


def test_derivatives_equal_bumps() -> None:
    """Slope and curvature of every kind of slice, and of surfaces between expiries, are those of w."""
    svi = Svi(0.01, 0.1, -0.4, 0.02, 0.15)
    cubic = surface.fit_cubic(np.linspace(-0.5, 0.5, 9), svi.variance(np.linspace(-0.5, 0.5, 9)))
    k, h = np.array([-0.9, -0.31, 0.03, 0.21, 0.8]), 1e-5
    for slice_ in (svi, cubic):
        bump = (slice_.variance(k + h) - slice_.variance(k - h)) / (2 * h)
        np.testing.assert_allclose(slice_.slope(k), bump, atol=1e-8)
        np.testing.assert_allclose(
            slice_.curvature(k), (slice_.slope(k + h) - slice_.slope(k - h)) / (2 * h), atol=1e-6
        )
    ssvi = Ssvi(-0.5, 0.8, 0.4)
    theta = np.array([0.01, 0.05])
    made = surface.Surface([0.25, 1.0], [100, 101], [ssvi.slice(t) for t in theta], ssvi=(ssvi, theta))
    for s in (made, surface.Surface([0.25, 1.0], [100, 101], made.slices)):
        for tau in (0.1, 0.25, 0.6, 1.0, 2.0):
            bump = (np.sqrt(s.variance(k + h, tau) / tau) - np.sqrt(s.variance(k - h, tau) / tau)) / (2 * h)
            np.testing.assert_allclose(s.skew(tau, k=k), bump, atol=1e-7)
            K = s.forward(tau) * np.exp(k)
            np.testing.assert_allclose(s.slope(K, tau), bump / K, atol=1e-9)


def test_ssvi_slices_are_raw_svis() -> None:
    """A slice of SSVI written as raw SVI is the same smile, and sound parameters make no butterfly at any theta."""
    for rho, eta, gamma in ((-0.7, 1.5, 0.5), (0.5, 1.0, 0.3), (0.0, 2.0, 0.5)):
        ssvi = Ssvi(rho, eta, gamma)
        assert ssvi.sound
        for theta in (1e-4, 0.01, 0.3, 4.0):
            svi = ssvi.slice(theta)
            np.testing.assert_allclose(svi.variance(GRID), ssvi.variance(GRID, theta), rtol=1e-9)
            assert svi.durrleman(np.linspace(-10, 10, 2001)).min() >= 0.0
    assert not Ssvi(-0.7, 2.0, 0.5).sound


def test_ssvi_surface_comes_back() -> None:
    """From smiles an SSVI made, its parameters and every theta return, and the surface has no arbitrage anywhere."""
    truth = Ssvi(-0.6, 0.9, 0.4)
    tau = np.array([0.05, 0.25, 0.5, 1.0, 2.0])
    theta = 0.04 * tau
    smiles = [_smile(truth.slice(float(t)), float(T)) for t, T in zip(theta, tau, strict=True)]
    made = surface.fit(smiles, model="ssvi", spot=100.0)
    assert made.ssvi is not None
    np.testing.assert_allclose(made.ssvi[0], truth, atol=1e-4)
    np.testing.assert_allclose(made.ssvi[1], theta, rtol=1e-4)
    assert made.ssvi[0].sound
    assert surface.check(made, np.linspace(-3, 3, 121), between=3).ok
    np.testing.assert_allclose(made.atm([0.02, 0.7, 5.0]), 0.2, atol=1e-4)


def test_ssvi_keeps_the_calendar_when_the_quotes_do_not() -> None:
    """Where variance falls from one expiry to the next, theta does not: the surface stays sound and misses the quotes."""
    truth = Ssvi(-0.6, 0.9, 0.4)
    smiles = [_smile(truth.slice(t), T) for t, T in ((0.05, 0.5), (0.03, 0.6), (0.08, 1.0))]
    made = surface.fit(smiles, model="ssvi")
    assert made.ssvi is not None
    assert (np.diff(made.ssvi[1]) >= 0.0).all()
    assert surface.check(made, GRID).ok
    assert made.fits[1].rmse > 0.005


def test_svi_surface_removes_calendar_arbitrage() -> None:
    """Slices that cross are refitted until they do not; without that they would."""
    early, late = Svi(0.01, 0.06, -0.6, 0.0, 0.1), Svi(0.012, 0.05, -0.3, 0.0, 0.1)
    smiles = [_smile(early, 0.3), _smile(late, 0.35)]
    assert not surface.check(surface.fit(smiles, sound=False)).ok
    made = surface.fit(smiles)
    assert surface.check(made, between=3).ok
    assert max(fit.rmse for fit in made.fits) < 0.03


def test_svi_surface_gives_sound_smiles_back() -> None:
    """Smiles without arbitrage are fitted to a hundredth of a vol point, at the expiries and linearly in w between."""
    slices = [Svi(0.005 * t, 0.05 * t**0.5, -0.5, 0.0, 0.1 + 0.1 * t) for t in (0.25, 0.5, 1.0)]
    smiles = [_smile(svi, t, forward=100.0 + t) for svi, t in zip(slices, (0.25, 0.5, 1.0), strict=True)]
    made = surface.fit(smiles, spot=100.0)
    assert all(fit.rmse < 1e-4 and fit.inside == 1.0 and fit.kind == "svi" for fit in made.fits)
    k = np.linspace(-0.2, 0.2, 9)
    middle = 0.5 * (slices[0].variance(k) + slices[1].variance(k))
    np.testing.assert_allclose(made.variance(k, 0.375), middle, rtol=5e-3)
    np.testing.assert_allclose(made.forward([0.0, 0.25, 1.0]), [100.0, 100.25, 101.0], rtol=1e-12)
    F = float(made.forward(0.5))
    assert float(made.vol(F, 0.5)) == pytest.approx(float(made.atm(0.5)), rel=1e-12)
    assert float(made.skew(0.5)) < 0.0


def test_quotes_become_vols_and_bad_ones_are_counted() -> None:
    """Mids give the slice back; crossed, one-sided, impossible and unknown rows are refused by reason, alone."""
    truth = Svi(0.01, 0.1, -0.4, 0.02, 0.15)
    K, bid, ask, cp = _quotes(truth, 0.5)
    clean = surface.read_smile(K, bid, ask, cp, forward=100.0, tau=0.5)
    assert len(clean.k) == 41
    np.testing.assert_allclose(clean.vol, np.sqrt(truth.variance(clean.k) / 0.5), atol=1e-4)
    np.testing.assert_allclose(clean.half, 0.004, rtol=0.05)
    bid[0], ask[5], bid[45], K[50], cp[51] = 0.0, np.nan, ask[45] + 1.0, np.nan, 0
    bid[60], ask[60] = 200.0, 201.0
    found = surface.read_smile(K, bid, ask, cp, forward=100.0, tau=0.5)
    assert found.refused == {"not_finite": 2, "one_sided": 2, "crossed": 1, "no_vol": 1, "duplicate": 0}
    # the other side of the strike stands in for an out-of-the-money quote that fails
    assert len(found.k) >= 40
    np.testing.assert_allclose(found.vol, np.sqrt(truth.variance(found.k) / 0.5), atol=1e-3)


def test_of_two_quotes_of_a_strike_the_tighter_counts() -> None:
    """A repeated strike keeps its tighter quote and is counted."""
    smile = surface.read_smile([100.0, 100.0], [4.0, 4.4], [6.0, 4.6], [1, 1], forward=100.0, tau=0.25)
    assert len(smile.k) == 1
    assert smile.refused["duplicate"] == 1
    assert float(smile.half[0]) < 0.01


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_quotes_become_a_cubic(n: int) -> None:
    """An expiry with too few quotes for SVI passes through them, and its fit says what it is."""
    k = np.array([-0.1, 0.0, 0.1, 0.2])[:n]
    smile = Smile(0.25, 100.0, k, 0.2 - 0.1 * k, np.full(n, 0.01), {})
    made = surface.fit([smile])
    assert made.fits[0].kind == "cubic"
    np.testing.assert_allclose(made.vol(100.0 * np.exp(k), 0.25), smile.vol, rtol=1e-12)
    assert np.isfinite(made.vol([50.0, 300.0], [0.1, 3.0])).all()


def test_cubic_wings_are_straight_and_within_lees_bound() -> None:
    """Beyond the last quotes w is straight, its slope never above 2 nor pointing down."""
    steep = surface.fit_cubic([0.0, 0.01, 0.02], [0.01, 0.05, 0.2])
    assert float(steep.slope(5.0)) == 2.0
    assert float(steep.slope(-5.0)) == 0.0
    assert steep.curvature([5.0, -5.0]).tolist() == [0.0, 0.0]


def test_outside_of_time_and_strikes_is_unknown() -> None:
    """No vol is given for an expired maturity or a strike that is not positive."""
    made = surface.fit([_smile(Svi(0.01, 0.1, -0.4, 0.0, 0.15), 0.5)])
    assert np.isnan(made.vol([100.0, 100.0, -1.0, 0.0], [0.0, -1.0, 0.5, 0.5])).all()
    assert np.isnan(made.vol(np.nan, 0.5))
    assert made.vol([[90.0], [100.0]], [0.1, 0.5, 2.0]).shape == (2, 3)


def test_what_cannot_be_fitted_is_refused() -> None:
    """No quotes, an unknown model, repeated maturities and impossible inputs raise with what was found."""
    empty = Smile(0.5, 100.0, np.empty(0), np.empty(0), np.empty(0), {})
    with pytest.raises(ValueError, match="at least one smile"):
        surface.fit([empty])
    good = _smile(Svi(0.01, 0.1, -0.4, 0.0, 0.15), 0.5)
    with pytest.raises(ValueError, match="model"):
        surface.fit([good], model="sabr")  # type: ignore[arg-type]  # what a caller without types may write
    with pytest.raises(ValueError, match="tau"):
        surface.fit([good, good])
    with pytest.raises(ValueError, match="at least 5"):
        surface.fit_svi([0.0, 0.1], [0.1, 0.1])
    with pytest.raises(ValueError, match="forward"):
        surface.read_smile([100.0], [1.0], [2.0], [1], forward=float("nan"), tau=0.5)
    with pytest.raises(ValueError, match="distinct"):
        surface.fit_cubic([0.0, 0.0], [0.1, 0.1])
    with pytest.raises(ValueError, match="log-moneynesses"):
        surface.check(surface.Surface([1.0], [100.0], [VOGT]))


def test_stale_crossed_and_one_sided_quotes_leave_the_surface() -> None:
    """A chain with a quarter of bad quotes gives the vols of the clean one to a tenth of a vol point."""
    truth = Svi(0.01, 0.1, -0.4, 0.02, 0.15)
    K, bid, ask, cp = _quotes(truth, 0.5)
    rng = np.random.default_rng(4)
    bad = rng.permutation(len(K))[:20]
    bid[bad[:7]], ask[bad[:7]] = bid[bad[:7]] * 1.25, ask[bad[:7]] * 1.25
    bid[bad[7:14]] = ask[bad[7:14]] * 1.5
    bid[bad[14:]] = 0.0
    made = surface.fit([surface.read_smile(K, bid, ask, cp, forward=100.0, tau=0.5)])
    k = np.linspace(-0.4, 0.4, 33)
    expected = np.sqrt(truth.variance(k) / 0.5)
    assert np.abs(made.vol(100.0 * np.exp(k), 0.5) - expected).max() < 0.002
