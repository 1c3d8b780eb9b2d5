"""The laws of portfolio insurance: closed forms against simulation by the strategy's own exposures, plain loops, properties."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.pricing import insurance
from bot.pricing.black import bsm

PATHS = 200_000


def cppi_walk(
    m: float, *, steps: int, vol: float, drift: float, rate: float, seed: int, value: float = 100.0, floor: float = 80.0
) -> np.ndarray:
    """The cushions at the end of a year of CPPI by its own exposure function, the floor growing at the rate."""
    rng = np.random.default_rng(seed)
    dt = 1.0 / steps
    V, F = np.full(PATHS, value), floor
    broken = np.zeros(PATHS, dtype=bool)
    for _ in range(steps):
        E = insurance.cppi_exposure(V, F, multiplier=m)
        growth = np.exp((drift - 0.5 * vol * vol) * dt + vol * math.sqrt(dt) * rng.standard_normal(PATHS))
        V = E * growth + (V - E) * math.exp(rate * dt)
        F *= math.exp(rate * dt)
        broken |= V < F
    return np.where(broken, -1.0, V - F)


@pytest.mark.parametrize(("steps", "published"), [(4, 0.4613), (12, 0.2930), (52, 0.00158)])
def test_cppi_traded_at_steps_breaks_as_often_as_the_closed_form_says(steps: int, published: float) -> None:
    """m = 5, vol 0.4, drift 0.06, rate 0.02: the simulated share of breaches lies within 3 standard errors of the law."""
    told = float(insurance.breach_probability(5.0, vol=0.4, drift=0.06, rate=0.02, horizon=1.0, steps=steps))
    assert told == pytest.approx(published, abs=6e-5 if published > 0.1 else 6e-6)
    broke = np.mean(cppi_walk(5.0, steps=steps, vol=0.4, drift=0.06, rate=0.02, seed=steps) < 0.0)
    assert abs(broke - told) <= 3.0 * math.sqrt(told * (1.0 - told) / PATHS)


@pytest.mark.parametrize(("m", "published"), [(3.0, 0.0104), (5.0, 0.0978), (8.0, 0.1860)])
def test_a_jump_breaks_continuous_cppi_as_often_as_the_closed_form_says(m: float, published: float) -> None:
    """Merton jumps l = 0.5, mean -0.10, vol 0.15 over a year: within 3 standard errors on 200,000 paths."""
    told = float(insurance.jump_breach_probability(m, intensity=0.5, jump_mean=-0.10, jump_vol=0.15, horizon=1.0))
    assert told == pytest.approx(published, abs=6e-5)
    rng = np.random.default_rng(int(m))
    count = rng.poisson(0.5, PATHS)
    broken = np.zeros(PATHS, dtype=bool)
    V, F = np.full(PATHS, 100.0), 80.0
    for number in range(int(count.max())):
        live = (count > number) & ~broken
        growth = np.exp(rng.normal(-0.10, 0.15, PATHS))
        E = insurance.cppi_exposure(V, F, multiplier=m)  # between jumps trading without pause keeps the multiple
        V = np.where(live, V + E * (growth - 1.0), V)
        broken |= live & (V < F)
    assert abs(broken.mean() - told) <= 3.0 * math.sqrt(told * (1.0 - told) / PATHS)


def test_the_mean_cushion_of_cppi_grows_by_its_law() -> None:
    """From a cushion of 20, m = 5, vol 0.2, daily steps: 24.92 by the law, the simulated mean within 2 per cent."""
    told = float(insurance.mean_cushion(20.0, 5.0, drift=0.06, rate=0.02, horizon=1.0))
    assert told == pytest.approx(24.92, abs=0.005)
    found = cppi_walk(5.0, steps=252, vol=0.2, drift=0.06, rate=0.02, seed=1).mean()
    assert found == pytest.approx(told, rel=0.02)


def test_a_path_traded_without_pause_ends_at_the_closed_form() -> None:
    """Ten thousand steps along one smooth path with vol give C_0 (S_T/S_0)^m exp((1 - m)(r + m s^2 / 2) T)."""
    rng = np.random.default_rng(4)
    vol, rate, m, n = 0.2, 0.03, 3.0, 200_000
    growth = np.exp(-0.5 * vol * vol / n + vol * math.sqrt(1.0 / n) * rng.standard_normal(n))
    cushion = 20.0
    for g in growth:
        cushion = cushion * (m * g + (1.0 - m) * math.exp(rate / n))
    told = insurance.cushion_at(20.0, np.prod(growth), m, vol=vol, rate=rate, horizon=1.0)
    assert cushion == pytest.approx(float(told), rel=0.02)


@given(
    S=st.floats(20, 500),
    share=st.floats(0.5, 1.2),
    tau=st.floats(0.01, 5),
    vol=st.floats(0.05, 0.8),
    rate=st.floats(-0.02, 0.1),
)
def test_synthetic_put_and_obpi_hold_the_same_at_the_start(
    S: float, share: float, tau: float, vol: float, rate: float
) -> None:
    """Insured units x N(d1) and the weight S N(d1) / (S + P) of the value are one number, between nothing and all of it."""
    K, V = share * S, 1000.0
    units = insurance.insured_units(V, S, K, tau, vol=vol, rate=rate)
    delta = insurance.synthetic_put_delta(S, K, tau, vol=vol, rate=rate)
    weight = insurance.obpi_weight(S, K, tau, vol=vol, rate=rate)
    assert float(units * delta * S) == pytest.approx(float(weight) * V, rel=1e-12)
    assert 0.0 <= float(weight) <= 1.0
    d1 = (math.log(S / K) + (rate + 0.5 * vol * vol) * tau) / (vol * math.sqrt(tau))
    assert float(delta) == pytest.approx(NormalDist().cdf(d1), abs=1e-12)


@given(V=st.floats(1, 1e6), F=st.floats(0, 1e6), m=st.floats(0.1, 50), cap=st.floats(0.1, 5))
def test_cppi_exposure_is_bounded_and_zero_at_the_floor(V: float, F: float, m: float, cap: float) -> None:
    """Never below nothing, never above the cap, m times the cushion between; a lost cushion holds nothing."""
    E = float(insurance.cppi_exposure(V, F, multiplier=m, cap=cap))
    assert 0.0 <= E <= cap * V
    if F >= V:
        assert E == 0.0
    elif cap * V > E:
        assert pytest.approx(m * (V - F)) == E


@given(fall=st.floats(0.001, 0.999), vol=st.floats(0.01, 2), dt=st.floats(1e-5, 1))
def test_gap_chances_are_chances_and_fall_with_the_fall(fall: float, vol: float, dt: float) -> None:
    """Between 0 and 1, and not greater for a deeper fall."""
    one = float(insurance.gap_probability(fall, vol=vol, dt=dt))
    deeper = float(insurance.gap_probability(min(fall * 1.1, 1.0), vol=vol, dt=dt))
    assert 0.0 <= deeper <= one <= 1.0
    jump = insurance.jump_gap_probability(
        [fall, min(1.1 * fall, 1.0)], intensity=0.5, jump_mean=-0.1, jump_vol=0.15, dt=dt
    )
    assert 0.0 <= jump[1] <= jump[0] <= 1.0


def test_gap_risk_knows_its_limits() -> None:
    """Nothing at risk cannot break; a spent cushion has broken; no vol and no time never move; a fall of all is no fall."""
    assert insurance.breaking_fall(10.0, 0.0) == math.inf
    assert insurance.breaking_fall(-1.0, 50.0) == 0.0
    assert insurance.breaking_fall(10.0, 50.0) == 0.2
    assert insurance.gap_probability([0.0, 1.0, math.inf], vol=0.2, dt=0.1).tolist() == [1.0, 0.0, 0.0]
    assert insurance.gap_probability([0.1, 0.1], vol=[0.0, 0.2], dt=[0.1, 0.0]).tolist() == [0.0, 0.0]
    assert math.isnan(float(insurance.gap_probability(0.1, vol=math.nan, dt=0.1)))
    assert float(insurance.step_breach_probability(1.0, vol=0.4, drift=0.0, rate=0.0, dt=0.25)) == 0.0
    assert float(insurance.jump_breach_probability(0.5, intensity=1, jump_mean=-0.1, jump_vol=0.1, horizon=1)) == 0.0
    sure = insurance.jump_gap_probability(0.05, intensity=2.0, jump_mean=-0.1, jump_vol=0.0, dt=1.0)
    assert float(sure) == pytest.approx(-math.expm1(-2.0))


def test_the_greatest_multiplier_is_the_edge_of_its_chance() -> None:
    """At it a step fails with just the allowed chance."""
    m = insurance.greatest_multiplier(0.01, vol=0.4, dt=1 / 12)
    assert float(insurance.step_breach_probability(m, vol=0.4, drift=0.0, rate=0.0, dt=1 / 12)) == pytest.approx(0.01)
    assert insurance.greatest_multiplier(0.01, vol=0.01, dt=1 / 365, most=20.0) == 20.0


def test_a_band_trades_all_the_way_or_not_at_all() -> None:
    """Inside the band nothing; outside to what is wanted; a spent cushion leaves at once."""
    to, trades = insurance.band_target([100.0, 111.0, 5.0, 0.0], [100.0, 100.0, 0.0, 0.0], band=0.1)
    assert to.tolist() == [100.0, 100.0, 0.0, 0.0]
    assert trades.tolist() == [False, True, True, False]


def test_the_ratchet_never_falls() -> None:
    """The floor is the greater of what it was and its share of the value."""
    assert insurance.ratchet([80.0, 80.0], [90.0, 120.0], share=0.8).tolist() == [80.0, 96.0]


def test_what_insured_units_buy_is_stock_with_a_put_on_each() -> None:
    """Units x (S + P) is the value again."""
    put = bsm(100.0, 90.0, 1.0, 0.15, rate=0.06, cp=-1).price
    assert float(insurance.insured_units(1000.0, 100.0, 90.0, 1.0, vol=0.15, rate=0.06)) * (100.0 + float(put)) == (
        pytest.approx(1000.0)
    )
