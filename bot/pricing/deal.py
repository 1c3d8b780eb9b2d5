"""A deal is worth its terms if it closes and its break price if not; law: arrays in, arrays out, NaN where it means nothing.

    value        PV(offer) = cash e^(-r tau) + ratio A e^(-q tau) + collar, A the acquirer's price
    collar       piecewise linear in A at the close: constants, shares and calls (Black and Scholes 1973, Merton 1973)
    probability  p = (S - S_down) / (PV(offer) - S_down), S the target's price: the risk-neutral odds of a close
    hedge        h = p dPV/dA + (1 - p) beta S_down / A shares of the acquirer short per share of the target;
                 beta is a return on a return, so beta S_down / A turns it into shares

A fixed-ratio deal has dPV/dA = ratio (without a yield): h = p ratio + (1 - p) beta S_down / A.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.deals import Collar, DealTerms
from bot.domain.units import Rate, Vol
from bot.pricing import black

Floats: TypeAlias = NDArray[np.float64]


class Pieces(NamedTuple):
    """What a share of the target becomes as a function of A: constant + slope A + sum of change max(A - strike, 0)."""

    constant: float
    slope: float
    bends: tuple[tuple[float, float], ...] = ()
    """(strike, change of slope)."""


class OfferValue(NamedTuple):
    """PV of the terms per share of the target, and its slopes by the acquirer's price and vol. Shape: that of A."""

    value: Floats
    delta: Floats
    gamma: Floats
    vega: Floats


def pieces(terms: DealTerms) -> Pieces:
    """The terms as constants, shares and calls.

    >>> pieces(DealTerms(collar=Collar(kind="fixed_ratio", low=20.0, high=30.0, ratio=0.5)))
    Pieces(constant=10.0, slope=0.0, bends=((20.0, 0.5), (30.0, -0.5)))
    """
    collar = terms.collar
    if collar is None:
        return Pieces(terms.cash, terms.ratio)
    constant, slope, bends = _collar_pieces(collar)
    return Pieces(terms.cash + constant, terms.ratio + slope, bends)


def _collar_pieces(collar: Collar) -> Pieces:
    low, high = collar.low, collar.high
    if collar.kind == "fixed_ratio":
        ratio = collar.ratio or 0.0
        return Pieces(ratio * low, 0.0, ((low, ratio), (high, -ratio)))
    value = collar.value or 0.0
    return Pieces(0.0, value / low, ((low, -value / low), (high, value / high)))


def payoff(terms: DealTerms, acquirer: ArrayLike) -> Floats:
    """What a share of the target becomes if the deal closes at this price of the acquirer. Shape: that of `acquirer`."""
    A = np.asarray(acquirer, dtype=np.float64)
    p = pieces(terms)
    return np.asarray(p.constant + p.slope * A + sum(c * np.maximum(A - k, 0.0) for k, c in p.bends))


def offer_value(
    terms: DealTerms,
    acquirer: ArrayLike,
    tau: ArrayLike,
    *,
    rate: Rate = 0.0,
    dividend: Rate = 0.0,
    vol: Vol = 0.0,
) -> OfferValue:
    """PV of the terms at a close in `tau` years, with its slopes by the acquirer's price; exact for each piece.

    `vol` is the acquirer's and matters to collars alone. Shape: acquirer and tau broadcast. NaN for a price below 0 and a
    negative time.
    """
    A, t = np.broadcast_arrays(np.asarray(acquirer, dtype=np.float64), np.asarray(tau, dtype=np.float64))
    p = pieces(terms)
    good = (A >= 0.0) & (t >= 0.0)
    t = np.where(good, t, 0.0)
    carried = np.exp(-dividend * t)
    value = p.constant * np.exp(-rate * t) + p.slope * carried * A
    delta, gamma, vega = p.slope * carried, np.zeros(A.shape), np.zeros(A.shape)
    for strike, change in p.bends:
        call = black.bsm(A, strike, t, vol, rate=rate, dividend=dividend, cp=1)
        value = value + change * call.price
        delta = delta + change * call.delta
        gamma = gamma + change * np.nan_to_num(call.gamma)
        vega = vega + change * np.nan_to_num(call.vega)
    return OfferValue(*(np.where(good, x, np.nan) for x in (value, delta, gamma, vega)))


def implied_probability(target: ArrayLike, offer: ArrayLike, down: ArrayLike) -> Floats:
    """p = (S - S_down) / (PV(offer) - S_down), unclamped: above 1 a better offer is expected, below 0 a worse break.

    NaN where the offer is worth no more than the break price. Shape: broadcast.

    >>> float(implied_probability(47.5, 50.0, 40.0))
    0.75
    """
    S, V, D = (np.asarray(x, dtype=np.float64) for x in (target, offer, down))
    room = V - D
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(room > 0.0, (S - D) / room, np.nan))


def hedge_ratio(
    probability: ArrayLike, offer_delta: ArrayLike, *, beta: ArrayLike, down: ArrayLike, acquirer: ArrayLike
) -> Floats:
    """Shares of the acquirer to short per share of the target: p dPV/dA + (1 - p) beta S_down / A, p kept in [0, 1].

    Shape: broadcast.

    >>> float(hedge_ratio(0.75, 0.5, beta=0.8, down=40.0, acquirer=100.0))
    0.455
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), 0.0, 1.0)
    slope = np.asarray(beta, dtype=np.float64) * np.asarray(down) / np.asarray(acquirer)
    return np.asarray(p * np.asarray(offer_delta, dtype=np.float64) + (1.0 - p) * slope)


def loss_if_broken(
    target: ArrayLike, down: ArrayLike, *, hedge: ArrayLike, acquirer: ArrayLike, acquirer_jump: ArrayLike = 0.0
) -> Floats:
    """What a share of the target loses with its hedge when the deal breaks: S - S_down + h A jump.

    `acquirer_jump` is the acquirer's return on the break: up hurts who is short of it. Shape: broadcast.
    """
    S, D, h, A, j = (np.asarray(x, dtype=np.float64) for x in (target, down, hedge, acquirer, acquirer_jump))
    return np.asarray(S - D + h * A * j)


def annualised(target: ArrayLike, offer: ArrayLike, tau: ArrayLike) -> Floats:
    """The return a year of buying at S what becomes `offer` in tau years, compounded: (V / S)^(1 / tau) - 1.

    NaN at and after the expected close. Shape: broadcast.

    >>> round(float(annualised(48.0, 50.0, 0.5)), 6)
    0.085069
    """
    S, V, t = (np.asarray(x, dtype=np.float64) for x in (target, offer, tau))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.where((t > 0.0) & (S > 0.0) & (V > 0.0), np.exp(np.log(V / S) / t) - 1.0, np.nan))


def down_price(unaffected: float, *, beta: float, market: float, market_start: float) -> float:
    """Where the target would trade without the deal: its price before it, moved with a market: S0 (1 + beta (M / M0 - 1)).

    >>> round(down_price(40.0, beta=1.5, market=110.0, market_start=100.0), 9)
    46.0
    """
    return max(unaffected * (1.0 + beta * (market / market_start - 1.0)), 0.0)
