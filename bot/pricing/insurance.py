"""Portfolio insurance is a floor under a portfolio: exposures, gap risk and the laws of CPPI; law: arrays in, arrays out.

The exposure functions are the ones the strategy trades by, so that a simulation of them simulates the strategy. Money is in
one currency, rates are continuous per year, `tau` and `horizon` in years, vols per square root of a year. A cushion is what
a portfolio is worth above its floor; the multiplier is exposure per unit of cushion.

>>> float(cppi_exposure(100.0, 80.0, multiplier=3.0))
60.0
>>> round(float(breach_probability(5.0, vol=0.4, drift=0.06, rate=0.02, horizon=1.0, steps=12)), 4)
0.293
>>> round(float(jump_breach_probability(5.0, intensity=0.5, jump_mean=-0.10, jump_vol=0.15, horizon=1.0)), 4)
0.0978
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from bot.pricing.black import bsm

Array = NDArray[np.float64]


# --------------------------------------------------------------------------- exposures: what the strategy holds


def cppi_exposure(value: ArrayLike, floor: ArrayLike, *, multiplier: ArrayLike, cap: ArrayLike = math.inf) -> Array:
    """The money to hold in the risky asset: min(m max(V - F, 0), cap V), never below 0.

    Black and Jones (1987), "Simplifying portfolio insurance"; Perold (1986). `cap` is a share of the value (1: no
    borrowing). Shape: broadcast.
    """
    V, F = np.asarray(value, np.float64), np.asarray(floor, np.float64)
    with np.errstate(invalid="ignore"):
        ceiling = np.where(np.isinf(cap), math.inf, np.asarray(cap, np.float64) * np.maximum(V, 0.0))
        return np.asarray(np.minimum(np.asarray(multiplier, np.float64) * np.maximum(V - F, 0.0), ceiling))


def ratchet(floor: ArrayLike, value: ArrayLike, *, share: ArrayLike) -> Array:
    """The floor of TIPP: never lower than it was, never less than `share` of the best value. Shape: broadcast.

    Estep and Kritzman (1988), "TIPP: insurance without complexity".
    """
    return np.maximum(np.asarray(floor, np.float64), np.asarray(share, np.float64) * np.asarray(value, np.float64))


def insured_units(
    value: ArrayLike, spot: ArrayLike, strike: ArrayLike, tau: ArrayLike, *, vol: ArrayLike, rate: float = 0.0,
    dividend: float = 0.0,
) -> Array:  # fmt: skip
    """How many units of stock with a put on each the value buys: V / (S + P). Shape: broadcast.

    Leland and Rubinstein (1981), "Replicating options with positions in stock and cash".
    """
    S = np.asarray(spot, np.float64)
    put = bsm(S, strike, tau, vol, rate=rate, dividend=dividend, cp=-1).price
    return np.asarray(np.asarray(value, np.float64) / (S + put))


def synthetic_put_delta(
    spot: ArrayLike, strike: ArrayLike, tau: ArrayLike, *, vol: ArrayLike, rate: float = 0.0, dividend: float = 0.0
) -> Array:
    """The stock in one unit of stock with a put on it: 1 + put delta, N(d1) without dividends. Shape: broadcast."""
    return np.asarray(1.0 + bsm(spot, strike, tau, vol, rate=rate, dividend=dividend, cp=-1).delta)


def obpi_weight(
    spot: ArrayLike, strike: ArrayLike, tau: ArrayLike, *, vol: ArrayLike, rate: float = 0.0, dividend: float = 0.0
) -> Array:
    """The share of the value to hold in stock: S N(d1) / (S + P), between 0 and 1 without dividends. Shape: broadcast.

    Leland and Rubinstein (1981): trading this share replicates stock and put and finances itself.
    """
    S = np.asarray(spot, np.float64)
    g = bsm(S, strike, tau, vol, rate=rate, dividend=dividend, cp=-1)
    return np.asarray(S * (1.0 + g.delta) / (S + g.price))


def band_target(held: ArrayLike, wanted: ArrayLike, *, band: float) -> tuple[Array, NDArray[np.bool_]]:
    """What to hold, and whether to trade: all the way to `wanted` once `held` is more than `band` of it away.

    A band on the multiple, as Black and Perold (1992), "Theory of constant proportion portfolio insurance", trade under
    costs. A wanted exposure of 0 is always traded to: a spent cushion leaves at once. Shape: broadcast.
    """
    h, w = np.broadcast_arrays(np.asarray(held, np.float64), np.asarray(wanted, np.float64))
    trades = np.abs(h - w) > band * np.abs(w)
    return np.where(trades, w, h), trades


# --------------------------------------------------------------------------- gap risk


def breaking_fall(cushion: ArrayLike, exposure: ArrayLike) -> Array:
    """The fall of the risky asset in one step, as a share of its price, that spends the cushion: C / E.

    1 / m for CPPI at its multiple; infinite where nothing is at risk; 0 where the cushion is spent. Shape: broadcast.
    """
    C, E = np.broadcast_arrays(np.maximum(np.asarray(cushion, np.float64), 0.0), np.asarray(exposure, np.float64))
    out = np.full(C.shape, math.inf)
    np.divide(C, E, out=out, where=E > 0.0)
    return out


def gap_probability(fall: ArrayLike, *, vol: ArrayLike, dt: ArrayLike, drift: float = 0.0) -> Array:
    """The chance that a lognormal step of `dt` years falls by `fall` or more: N((ln(1 - f) - (mu - s^2/2) dt) / (s sqrt dt)).

    `drift` is of the price, continuous per year. 0 for a fall of 1 or more, 1 for no fall at all being needed. Without vol
    or time nothing moves. Shape: broadcast.
    """
    f, s, h = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (fall, vol, dt)))
    with np.errstate(all="ignore"):
        log = np.log1p(-np.minimum(f, 1.0))
        spread = s * np.sqrt(h)
        z = np.where(spread > 0.0, (log - (drift - 0.5 * s * s) * h) / spread, -math.inf)
        found = np.where(f >= 1.0, 0.0, np.where(f <= 0.0, 1.0, ndtr(z)))
    return np.where(np.isnan(f) | np.isnan(s) | np.isnan(h), math.nan, found)


def jump_gap_probability(
    fall: ArrayLike, *, intensity: float, jump_mean: float, jump_vol: float, dt: ArrayLike
) -> Array:
    """The chance that within `dt` years a jump alone falls by `fall` or more: 1 - exp(-l dt N((ln(1 - f) - mJ) / sJ)).

    Merton (1976) jumps: `intensity` a year, log size normal with `jump_mean` and `jump_vol`. The exact law is Cont and
    Tankov (2009), "Constant proportion portfolio insurance in the presence of jumps in asset prices". Shape: broadcast.
    """
    f, h = np.broadcast_arrays(np.asarray(fall, np.float64), np.asarray(dt, np.float64))
    with np.errstate(all="ignore"):
        log = np.log1p(-np.minimum(f, 1.0))
        z = (log - jump_mean) / jump_vol if jump_vol > 0.0 else np.where(log >= jump_mean, math.inf, -math.inf)
        found = -np.expm1(-intensity * h * ndtr(z))
    return np.where(f >= 1.0, 0.0, np.where(f <= 0.0, 1.0, found))


# --------------------------------------------------------------------------- laws of CPPI


def mean_cushion(cushion: ArrayLike, multiplier: ArrayLike, *, drift: float, rate: float, horizon: ArrayLike) -> Array:
    """E[C_T] = C_0 exp((r + m (mu - r)) T) of CPPI traded without pause. Perold (1986). Shape: broadcast."""
    m = np.asarray(multiplier, np.float64)
    return np.asarray(
        np.asarray(cushion, np.float64) * np.exp((rate + m * (drift - rate)) * np.asarray(horizon, np.float64))
    )


def cushion_at(
    cushion: ArrayLike, growth: ArrayLike, multiplier: ArrayLike, *, vol: ArrayLike, rate: float, horizon: ArrayLike
) -> Array:
    """C_T = C_0 (S_T / S_0)^m exp((1 - m) (r + m s^2 / 2) T) of CPPI traded without pause on a price that never jumps.

    Perold (1986), Black and Perold (1992); the path counts by its end alone. `growth` is S_T / S_0. Shape: broadcast.
    """
    m, s, T = (np.asarray(a, np.float64) for a in (multiplier, vol, horizon))
    C, growth = np.asarray(cushion, np.float64), np.asarray(growth, np.float64)
    return np.asarray(C * growth**m * np.exp((1.0 - m) * (rate + 0.5 * m * s * s) * T))


def breach_probability(
    multiplier: ArrayLike, *, vol: ArrayLike, drift: float, rate: float, horizon: float, steps: ArrayLike
) -> Array:
    """The chance that CPPI traded at `steps` equal steps ends below its floor: 1 - (1 - p)^N.

    p = N((ln(1 - 1/m) + r dt - (mu - s^2/2) dt) / (s sqrt dt)): a step fails where S'/S <= (1 - 1/m) exp(r dt), with a
    floor that grows at the rate, no cost, no cap, no band. 0 for m <= 1. Shape: broadcast.
    """
    m, N = np.broadcast_arrays(np.asarray(multiplier, np.float64), np.asarray(steps, np.float64))
    dt = horizon / N
    p = step_breach_probability(m, vol=vol, drift=drift, rate=rate, dt=dt)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(N * np.log1p(-p)))


def step_breach_probability(
    multiplier: ArrayLike, *, vol: ArrayLike, drift: float, rate: float, dt: ArrayLike
) -> Array:
    """The chance that one step of `dt` years spends the cushion of CPPI at its multiple. Shape: broadcast."""
    m, s, h = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (multiplier, vol, dt)))
    kept = np.where(m > 1.0, 1.0 - 1.0 / np.where(m > 1.0, m, 2.0), 0.0)
    return gap_probability(1.0 - kept * np.exp(rate * h), vol=s, dt=h, drift=drift)


def jump_breach_probability(
    multiplier: ArrayLike, *, intensity: float, jump_mean: float, jump_vol: float, horizon: ArrayLike
) -> Array:
    """The chance that a jump breaks the floor of CPPI traded without pause: 1 - exp(-T l N((ln(1 - 1/m) - mJ) / sJ)).

    Cont and Tankov (2009); Merton's jumps. 0 for m <= 1. Shape: broadcast.
    """
    m = np.asarray(multiplier, np.float64)
    fall = np.where(m > 1.0, 1.0 / np.where(m > 1.0, m, 1.0), 1.0)
    return jump_gap_probability(fall, intensity=intensity, jump_mean=jump_mean, jump_vol=jump_vol, dt=horizon)


def greatest_multiplier(
    probability: float, *, vol: float, dt: float, drift: float = 0.0, rate: float = 0.0, most: float = 100.0
) -> float:
    """The greatest multiplier whose chance to fail in one step stays at or under `probability`; `most` when all do."""
    low, high = 1.0, most
    if float(step_breach_probability(high, vol=vol, drift=drift, rate=rate, dt=dt)) <= probability:
        return high
    for _ in range(80):
        middle = 0.5 * (low + high)
        fine = float(step_breach_probability(middle, vol=vol, drift=drift, rate=rate, dt=dt)) <= probability
        low, high = (middle, high) if fine else (low, middle)
    return low
