"""Room is how far a price may move, and how long, while the net delta of European legs surely stays within given limits.

Law: a bound, never an estimate. Over a box of prices [low, high], times left [tau - years, tau] and vols every derivative of
a leg's delta lies in an interval that is found by interval arithmetic on closed forms (`leg_bounds`); the mean value theorem
on the box, which is convex, then bounds how far the sum over the legs moves:

    delta(S, tau, vol) - delta(S0, tau0, vol0) lies in gamma * (S - S0) + decay * (tau - tau0) + tilt,

with gamma, decay (d delta / d tau) and tilt (d delta / d vol times the move of each vol) the sums of the legs' intervals,
each taken at its worst end. What is bounded over a box holds in every smaller one. Formulas: Black and Scholes 1973,
Merton 1973, in the form of `docs/quiet.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from scipy.special import ndtr

from bot.domain.units import NS_PER_YEAR, Nanos
from bot.pricing.black import Array


class Bounds(NamedTuple):
    """What can be said of a book over a box: each an interval (low end, high end), NaN where nothing can be said.

    `gamma` and `decay` (d delta / d tau, per year) in the units of weight per price and per year; `tilt` how far the net
    delta may move for its vols; `tau` and `vol` hold the means of `bot.pricing.legs` over the box. `gross` is the sum of
    the absolute weights.
    """

    gamma_lo: float
    gamma_hi: float
    decay_lo: float
    decay_hi: float
    tilt_lo: float
    tilt_hi: float
    tau_lo: float
    tau_hi: float
    vol_lo: float
    vol_hi: float
    gross: float


BoundsKernel: TypeAlias = Callable[
    [float, float, Nanos, float, Array, Array, float, float, float, float], tuple[float, ...]
]

FARTHEST: Final = 0.05
"""Share of the price a box may reach to either side."""
LONGEST: Final = 0.25
"""Share of the shortest time to expiry a box may last."""
FOR_TIME: Final = 0.1
"""Share of the room that may go to the passing of time; what of it is not needed goes to the price."""
LEAST_SHARE: Final = 1e-7
"""Room below this share of the gross weight promises nothing: it is too near to the rounding of the sums."""
SAFE: Final = 0.999
"""Share of the room that is used at all: rounding of the sums stays far below the rest."""
LEAST_GAMMA: Final = 1e-150
"""Where gamma x price is below this share of the gross weight nothing is said of the book's means: `bot.pricing.legs` weighs
by something else where no leg has gamma."""
WIDER: Final = 1e-9
"""The share by which every interval is widened for the rounding of its own arithmetic."""
NO_VOL: Final = -1.0
"""Stands for the vols of a leg whose delta does not move at all."""
NO_VOLS: Final[Array] = np.empty((0, 3))
"""Stands for the packed vols, which do not move."""
UNKNOWN: Final = Bounds(*(math.nan,) * 11)


def bounds_kernel() -> BoundsKernel:
    """The compiled `(low, high, elapsed, years, packed, vols, rate, dividend, mean_tau, mean_vol) -> Bounds` as a tuple.

    `packed` from `black.pack_slice`; `vols` (legs, 3): the vol at the start and its least and greatest in the box (all
    `NO_VOL`: the leg's delta does not move), or `NO_VOLS`; `mean_tau`, `mean_vol` what `legs.terms_kernel` gives at the
    start (NaN: not asked for). All NaN where nothing can be said: an unknown number, a leg that ends within the box, one
    without vol on both sides of its strike.
    """
    return _kernel()


@cache
def _kernel() -> BoundsKernel:
    from bot.pricing import room_kernels  # noqa: PLC0415  the compiler is imported by those who price

    kernel: BoundsKernel = room_kernels.bounds
    return kernel


def bounds_by_formula(
    low: float,
    high: float,
    elapsed: Nanos,
    years: float,
    packed: Array,
    vols: Array,
    rate: float,
    dividend: float,
    mean_tau: float,
    mean_vol: float,
) -> Bounds:
    """The same in numpy: the readable twin of `bounds_kernel()`. Shape: packed (legs, 5), vols (legs, 3) or `NO_VOLS`."""
    gross = float(np.abs(packed[:, 4]).sum())
    if len(vols):
        packed, vols = packed[vols[:, 0] != NO_VOL], vols[vols[:, 0] != NO_VOL]
    strike, expiry, own, cp, weight = packed.T
    at, least, most = vols.T if len(vols) else (own, own, own)
    late = (expiry - elapsed) / NS_PER_YEAR
    soon = late - years
    known = 0.0 < low <= high < math.inf and 0.0 <= years < math.inf and math.isfinite(rate) and math.isfinite(dividend)
    if not (known and np.all(soon > 0.0) and np.all(np.isfinite(at)) and np.all((least >= 0.0) & (most < math.inf))):
        return UNKNOWN
    box = Corner(low, high, soon, late, least, most)
    found = _leg_bounds(box, strike, cp, rate, dividend)
    if found is None:
        return UNKNOWN
    gamma, decay, by_vol = found
    moved = [by_vol[i] * (most - at) for i in (0, 1)] + [by_vol[i] * (least - at) for i in (0, 1)]
    tilt = np.minimum(np.min(moved, axis=0), 0.0), np.maximum(np.max(moved, axis=0), 0.0)
    sums = (*_weighed(gamma, weight), *_weighed(decay, weight), *_weighed(tilt, weight))
    share = np.abs(weight) * gamma[0], np.abs(weight) * gamma[1]
    known = float(share[0].sum()) * low > LEAST_GAMMA * gross
    tau = _mean_within(late, share, mean_tau if known else math.nan)
    square = _mean_within(own * own, share, mean_vol * mean_vol if known else math.nan)
    return Bounds(
        *sums,
        tau[0] - years,
        tau[1],
        math.sqrt(square[0]) if not square[0] < 0.0 else 0.0,
        math.sqrt(square[1]),
        gross,
    )


class Corner(NamedTuple):
    """A box: prices, times left and vols. Shape: soon, late, least, most (legs,)."""

    low: float
    high: float
    soon: Array
    late: Array
    least: Array
    most: Array


Pair: TypeAlias = tuple[Array, Array]


def _leg_bounds(box: Corner, strike: Array, cp: Array, rate: float, dividend: float) -> tuple[Pair, Pair, Pair] | None:
    """Intervals of gamma, d delta / d tau and d delta / d vol per unit of each leg; None where one has no bound.

    With x = ln(S/K) + (r - q) tau and d = vol sqrt(tau): d1 = x/d + d/2, gamma = e^(-q tau) phi(d1) / (S d),
    d delta / d tau = e^(-q tau) phi(d1) ((r - q)/d + vol/(4 sqrt(tau)) - x/(2 tau d)) - q delta,
    d delta / d vol = e^(-q tau) phi(d1) (sqrt(tau)/2 - x/(d vol)).
    """
    drift = (rate - dividend) * box.soon, (rate - dividend) * box.late
    x = np.log(box.low / strike) + np.minimum(*drift), np.log(box.high / strike) + np.maximum(*drift)
    d = box.least * np.sqrt(box.soon), box.most * np.sqrt(box.late)
    frozen = box.most == 0.0
    if np.any(frozen & ~((x[0] > 0.0) | (x[1] < 0.0))) or np.any(~frozen & ~(d[0] > 0.0)):
        return None
    with np.errstate(all="ignore"):
        z = np.where(x[0] >= 0.0, x[0] / d[1], x[0] / d[0]), np.where(x[1] >= 0.0, x[1] / d[0], x[1] / d[1])
        d1 = z[0] + 0.5 * d[0], z[1] + 0.5 * d[1]
        side = np.where(x[0] > 0.0, math.inf, -math.inf)
        d1 = np.where(frozen, side, d1[0]), np.where(frozen, side, d1[1])
        near = np.where((d1[0] <= 0.0) & (d1[1] >= 0.0), 0.0, np.minimum(np.abs(d1[0]), np.abs(d1[1])))
        far = np.maximum(np.abs(d1[0]), np.abs(d1[1]))
        D = np.exp(-dividend * box.soon), np.exp(-dividend * box.late)
        D = np.minimum(*D), np.maximum(*D)
        phi = D[0] * _density(far), D[1] * _density(near)
        gamma = phi[0] / (box.high * d[1]), phi[1] / (box.low * d[0])
        carry = (rate - dividend) / d[0], (rate - dividend) / d[1]
        root = np.sqrt(box.soon), np.sqrt(box.late)
        slope = (
            np.minimum(*carry)
            + box.least / (4.0 * root[1])
            - np.where(z[1] >= 0.0, z[1] / box.soon, z[1] / box.late) / 2.0,
            np.maximum(*carry)
            + box.most / (4.0 * root[0])
            - np.where(z[0] >= 0.0, z[0] / box.late, z[0] / box.soon) / 2.0,
        )
        decay = _times(phi, slope)
        by_vol = _times(
            phi,
            (
                0.5 * root[0] - np.where(z[1] >= 0.0, z[1] / box.least, z[1] / box.most),
                0.5 * root[1] - np.where(z[0] >= 0.0, z[0] / box.most, z[0] / box.least),
            ),
        )
    still = np.where(frozen, 0.0, 1.0)
    gamma, decay, by_vol = _stilled(still, gamma), _stilled(still, decay), _stilled(still, by_vol)
    held = ndtr(cp * np.where(cp > 0.0, d1[0], d1[1])), ndtr(cp * np.where(cp > 0.0, d1[1], d1[0]))
    paid = [dividend * cp * D[i] * held[j] for i in (0, 1) for j in (0, 1)]
    decay = decay[0] - np.max(paid, axis=0), decay[1] - np.min(paid, axis=0)
    return gamma, decay, by_vol


def _stilled(still: Array, pair: Pair) -> Pair:
    """Zero where a leg has no vol and its price is off its strike: its delta stands still."""
    return np.where(still == 0.0, 0.0, pair[0]), np.where(still == 0.0, 0.0, pair[1])


def _density(d: Array) -> Array:
    return np.asarray(np.exp(-0.5 * d * d) / math.sqrt(2.0 * math.pi))


def _times(positive: Pair, other: Pair) -> Pair:
    """The product of an interval above zero and another."""
    return (
        np.where(other[0] >= 0.0, positive[0] * other[0], positive[1] * other[0]),
        np.where(other[1] >= 0.0, positive[1] * other[1], positive[0] * other[1]),
    )


def _weighed(pair: Pair, weight: Array) -> tuple[float, float]:
    """The interval of the sum, a little wider than computed."""
    lo = float(np.sum(np.where(weight > 0.0, weight * pair[0], weight * pair[1])))
    hi = float(np.sum(np.where(weight > 0.0, weight * pair[1], weight * pair[0])))
    more = WIDER * float(np.sum(np.abs(weight) * np.maximum(np.abs(pair[0]), np.abs(pair[1]))))
    return lo - more, hi + more


def _mean_within(values: Array, share: Pair, mean: float) -> tuple[float, float]:
    """The interval of a weighted mean whose weights lie between two ends and that is `mean` at the start.

    With c the mean at the start, mean - c = sum s (v - c) / sum s; the sum above is largest with the greatest weights on
    the values above c and the least on those below, and the sum below is at least that of the least weights.
    """
    away = values - mean
    more = float(np.sum(np.where(away > 0.0, share[1], share[0]) * away))
    less = float(np.sum(np.where(away > 0.0, share[0], share[1]) * away))
    if math.isnan(mean):
        return mean, mean
    least = float(share[0].sum())
    slip = WIDER * abs(mean)
    over = _over(more, least) if more > 0.0 else 0.0
    under = -_over(-less, least) if less < 0.0 else 0.0
    return mean + under - slip, mean + over + slip


class Extent(NamedTuple):
    """How far a box goes below and above the price, and how long, in years."""

    below: float
    above: float
    years: float


def extent_within(b: Bounds, longest: float, room: tuple[float, float]) -> Extent:
    """The extent that uses up no more than the room (up, down), by bounds that hold on a box around it that lasts `longest`
    years; inf where nothing limits it.

    Time first, from its share of the room; the price has what then is left.
    """
    up, down = room[0] - b.tilt_hi, room[1] + b.tilt_lo
    if not (up > 0.0 and down > 0.0):
        return Extent(0.0, 0.0, 0.0)
    rises, falls = max(0.0, -b.decay_lo), max(0.0, b.decay_hi)
    years = min(_over(FOR_TIME * up, rises), _over(FOR_TIME * down, falls))
    used = min(years, longest)
    up, down = up - rises * used, down - falls * used
    more, less = max(0.0, b.gamma_hi), max(0.0, -b.gamma_lo)
    return Extent(
        below=min(_over(down, more), _over(up, less)), above=min(_over(up, more), _over(down, less)), years=years
    )


def cut(tried: Extent, free: Extent) -> Extent:
    """What lies in both: the bounds of the larger box hold in it."""
    return Extent(min(tried.below, free.below), min(tried.above, free.above), min(tried.years, free.years))


def wider_of(one: Extent, other: Extent) -> Extent:
    """The extent that is likely left later: by time, or by a price that wanders to the nearer of its ends and beyond."""
    return other if other.below * other.above * other.years > one.below * one.above * one.years else one


def _over(room: float, rate: float) -> float:
    return room / rate if rate > 0.0 else math.inf
