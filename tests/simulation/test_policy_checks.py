"""On simulated paths the rules do what theory says: the classic results of discrete hedging, and measured scores.

S = K = 100, T = .25, vol .2 unless said; a written call, lognormal paths without drift, decisions at i T / N, cash at T.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.core.ports import BandInput, HedgePolicy, LegInput, ShapesDelta
from bot.domain.units import NEVER, NS_PER_YEAR
from bot.pricing import black
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.leland_delta import LelandDelta
from strategies.policies.modified_vol import leland_vol
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline

Floats = NDArray[np.float64]
S0, K, T, VOL = 100.0, 100.0, 0.25, 0.2
VEGA = float(black.bsm(S0, K, T, VOL).vega)
ALWAYS = FixedInterval(interval=1)
CHUNK = 10_000


class Outcome(NamedTuple):
    """Per path. Shape: (paths,) each."""

    gains: Floats
    payoff: Floats
    rehedging: Floats
    opening: Floats
    closing: Floats
    gamma_sum: Floats

    @property
    def costs(self) -> Floats:
        return self.rehedging + self.opening + self.closing


def play(
    policy: HedgePolicy,
    *,
    dates: int,
    paths: int,
    seed: int,
    cost: float = 0.0,
    vol: float = VOL,
    realised: float = VOL,
) -> Outcome:
    """Hedge one written call by a policy's bands over seeded paths; `vol` is what the hedger believes."""
    rng = np.random.default_rng(seed)
    parts = [_play(policy, rng, min(CHUNK, paths - i), dates, cost, vol, realised) for i in range(0, paths, CHUNK)]
    return Outcome(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _play(
    policy: HedgePolicy, rng: np.random.Generator, paths: int, dates: int, cost: float, vol: float, realised: float
) -> Outcome:
    dt = T / dates
    S, y = np.full(paths, S0), np.zeros(paths)
    gains, gamma_sum, rehedging = np.zeros(paths), np.zeros(paths), np.zeros(paths)
    opening = np.zeros(paths)
    for i in range(dates):
        tau = T - i * dt
        g = black.greeks_slice(S, K, tau, vol)
        deltas = g.delta
        if isinstance(policy, ShapesDelta):
            column = LegInput(
                spot=S, strike=K, tau=tau, vol=vol, rate=0.0, dividend=0.0, cp=1.0, weight=-1.0, delta=g.delta,
                gamma=g.gamma, vega=g.vega, net_gamma=-g.gamma, cost=cost,
            )  # fmt: skip
            deltas = policy.leg_deltas(column)
        x = BandInput(
            now=round(i * dt * NS_PER_YEAR), spot=S, want=deltas, held=y, gamma=-g.gamma, tau=tau, vol=vol, rate=0.0,
            per_contract=1.0, cost=cost, last_hedge_ts=NEVER, last_hedge_spot=np.nan,
        )  # fmt: skip
        band = policy.band(x)
        new = np.clip(y, band.lo, band.hi)
        if band.to is not None:
            new = np.where((y < band.lo) | (y > band.hi), band.to, y)
        paid = cost * S * np.abs(new - y)
        opening, rehedging = (paid, rehedging) if i == 0 else (opening, rehedging + paid)
        y = new
        z = rng.standard_normal(paths)
        after = S * np.exp(realised * math.sqrt(dt) * z - 0.5 * realised**2 * dt)
        gains += y * (after - S)
        gamma_sum += 0.5 * g.gamma * S * S * (vol * vol * dt - ((after - S) / S) ** 2)
        S = after
    return Outcome(gains, np.maximum(S - K, 0.0), rehedging, opening, cost * S * np.abs(y), gamma_sum)


def price(vol: float) -> float:
    return float(black.bsm(S0, K, T, vol).price)


@pytest.fixture(scope="module")
def hedged() -> dict[int, Floats]:
    """P&L and gamma sums by number of dates."""
    found = {}
    for dates in (21, 63, 252, 1008):
        run = play(ALWAYS, dates=dates, paths=200_000, seed=100 + dates)
        found[dates] = np.stack((price(VOL) + run.gains - run.payoff, run.gamma_sum))
    return found


@pytest.mark.parametrize(("dates", "tolerance"), [(21, 0.05), (63, 0.03), (252, 0.02), (1008, 0.02)])
def test_the_error_of_discrete_hedging_is_kamals_and_dermans(
    hedged: dict[int, Floats], dates: int, tolerance: float
) -> None:
    """The standard deviation is sqrt(pi/4) vega vol / sqrt(N), and the gamma sum explains nearly all of it."""
    pnl, gamma_sum = hedged[dates]
    rule = math.sqrt(math.pi / 4.0) * VEGA * VOL / math.sqrt(dates)
    assert rule == pytest.approx({21: 0.7706, 63: 0.4449, 252: 0.2224, 1008: 0.1112}[dates], abs=5e-5)
    assert pnl.std() == pytest.approx(rule, rel=tolerance)
    explained = 1.0 - np.var(pnl - gamma_sum) / np.var(pnl)
    assert explained >= {21: 0.93, 63: 0.96, 252: 0.98, 1008: 0.99}[dates]
    assert abs(pnl.mean()) <= 4.0 * pnl.std() / math.sqrt(len(pnl))


def test_the_error_falls_with_the_root_of_the_number(hedged: dict[int, Floats]) -> None:
    """On logarithms the slope of the deviation over the number of hedges is a half, to a hundredth."""
    dates = sorted(hedged)
    slope = np.polyfit(np.log(dates), np.log([hedged[n][0].std() for n in dates]), 1)[0]
    assert -0.51 <= slope <= -0.49


def test_a_vol_sold_too_dear_is_earned_either_way() -> None:
    """Sold at 25 and realised at 20, both hedges earn V(.25) - V(.20); at the actual vol surely, at the implied smoothly."""
    edge = price(0.25) - price(0.20)
    assert edge == pytest.approx(0.9958, abs=1e-4)
    at_implied = play(ALWAYS, dates=252, paths=200_000, seed=7, vol=0.25)
    pnl = price(0.25) + at_implied.gains - at_implied.payoff
    assert pnl.mean() == pytest.approx(edge, abs=3.0 * pnl.std() / math.sqrt(len(pnl)))
    assert at_implied.gamma_sum.mean() == pytest.approx(
        edge, abs=3.0 * at_implied.gamma_sum.std() / math.sqrt(len(pnl))
    )
    at_actual = play(ALWAYS, dates=1008, paths=100_000, seed=8)
    sure = price(0.25) + at_actual.gains - at_actual.payoff
    assert sure.mean() == pytest.approx(edge, rel=0.01)
    assert sure.std() == pytest.approx(0.1112, rel=0.03)
    assert pnl.std() > 2.0 * sure.std()


@pytest.mark.parametrize(
    ("cost", "dates", "dt", "expected", "tolerance"),
    [
        (0.0005, 63, 1 / 252, 0.1242, 0.02),
        (0.0025, 13, 1 / 52, 0.2769, 0.06),
        (0.0025, 63, 1 / 252, 0.5874, 0.02),
    ],
)
def test_lelands_vol_pays_for_its_hedging(
    cost: float, dates: int, dt: float, expected: float, tolerance: float
) -> None:
    """Rehedging costs V(Leland's vol) - V(vol) on average, so that sold at it, opening and closing apart, nothing is lost."""
    sold = price(float(leland_vol(VOL, cost, dt=dt)))
    assert sold - price(VOL) == pytest.approx(expected, abs=1e-4)
    policy = LelandDelta(interval=round(dt * NS_PER_YEAR))
    run = play(policy, dates=dates, paths=200_000, seed=11, cost=cost)
    assert run.rehedging.mean() == pytest.approx(expected, rel=tolerance)
    pnl = sold + run.gains - run.payoff - run.rehedging
    assert abs(pnl.mean()) <= 0.02


MEASURED = {
    "WW centre": (WhalleyWilmott(risk_aversion=1.0, to="centre"), 4.710994),
    "WW edge": (WhalleyWilmott(risk_aversion=1.0), 4.591816),
    "Zakamouline": (Zakamouline(risk_aversion=1.0), 4.569056),
}


@pytest.mark.parametrize("name", MEASURED)
def test_bands_score_as_measured_on_a_lattice(name: str) -> None:
    """At 20 bp, g 1, 252 dates the certainty equivalent of the writer's loss is the noise-free one within 4 errors."""
    policy, expected = MEASURED[name]
    run = play(policy, dates=252, paths=200_000, seed=23, cost=0.002)
    weight = np.exp(run.payoff - run.gains + run.costs)
    error = weight.std() / weight.mean() / math.sqrt(len(weight))
    assert error < 0.005
    assert math.log(weight.mean()) == pytest.approx(expected, abs=4.0 * error)
