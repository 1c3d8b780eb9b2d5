"""Gamma trading, both sides: an option hedged at its implied vol earns 0.5 Gamma S^2 (implied - realised variance) dt."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import ndtr

from bot.pricing import black

S0, K, T = 100.0, 100.0, 0.25
IMPLIED, REALISED = 0.25, 0.20
STEPS, PATHS, CHUNK = 1_008, 200_000, 20_000
SQRT_TWO_PI = math.sqrt(2.0 * math.pi)


class Gains(NamedTuple):
    """P&L of the hedged option written, and the sum that should explain it. Shape: (paths,)."""

    pnl: np.ndarray
    identity: np.ndarray


def value(vol: float) -> float:
    return float(black.bsm(S0, K, T, vol).price)


def trade(rng: np.random.Generator, paths: int, side: int) -> Gains:
    """A call at the money, written (side -1) or bought (1) at the implied vol and hedged at it on every step of paths that
    realise another, without drift, rates or costs."""
    dt = T / STEPS
    step = REALISED * math.sqrt(dt)
    S = np.full(paths, S0)
    pnl = np.full(paths, -side * value(IMPLIED))
    identity = np.zeros(paths)
    for i in range(STEPS):
        w = IMPLIED * math.sqrt(T - i * dt)
        d1 = np.log(S / K) / w + 0.5 * w
        delta, dollar_gamma = ndtr(d1), S * np.exp(-0.5 * d1 * d1) / (SQRT_TWO_PI * w)
        r = np.expm1(step * rng.standard_normal(paths) - 0.5 * step * step)
        pnl -= side * delta * S * r
        identity += side * 0.5 * dollar_gamma * (r * r - IMPLIED * IMPLIED * dt)
        S *= 1.0 + r
    return Gains(pnl + side * np.maximum(S - K, 0.0), identity)


def sample(side: int, paths: int, seed: int) -> Gains:
    rng = np.random.default_rng(seed)
    parts = [trade(rng, CHUNK, side) for _ in range(paths // CHUNK)]
    return Gains(np.concatenate([p.pnl for p in parts]), np.concatenate([p.identity for p in parts]))


@pytest.mark.slow
@pytest.mark.parametrize("side", [-1, 1], ids=["written", "bought"])
def test_the_mean_gain_is_the_difference_of_values(side: int) -> None:
    """Sold at 25 with 20 realised a call earns V(25) - V(20) = .9958 on average, bought it loses that; the sum explains it."""
    found = sample(side, PATHS, seed=20 + side)
    earned = -side * (value(IMPLIED) - value(REALISED))
    assert abs(earned) == pytest.approx(0.9958, abs=5e-5)
    error = float(found.pnl.std(ddof=1)) / math.sqrt(PATHS)
    assert abs(float(found.pnl.mean()) - earned) <= 3.0 * error
    assert abs(float(found.pnl.mean()) - float(found.identity.mean())) <= 0.0005


def test_on_the_same_paths_the_sides_mirror_each_other() -> None:
    """What one side earns the other loses, path by path, and the identity explains nearly all of the spread."""
    written, bought = (trade(np.random.default_rng(5), 2_000, side) for side in (-1, 1))
    np.testing.assert_allclose(written.pnl, -bought.pnl, atol=1e-10)
    np.testing.assert_allclose(written.identity, -bought.identity, atol=1e-10)
    assert np.corrcoef(written.pnl, written.identity)[0, 1] ** 2 > 0.9
