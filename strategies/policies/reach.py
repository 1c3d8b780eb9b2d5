"""The reach of a book is the interval its net option delta can ever lie in; law: no hedge beyond it hedges anything.

The delta of a European payoff at any time is an average of the payoff's slopes, so it lies between the least and the
greatest of them. Near expiry the closed-form bands grow without bound (Whalley-Wilmott as tau^(-1/3), Zakamouline as
1/tau): cut to the reach they never send a holding further out than the book itself can ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from bot.core.ports import Band


class Reach(NamedTuple):
    """The least and the greatest attainable delta, in the unit of the quantities given."""

    lo: float
    hi: float


def reach_of(cp: Sequence[float], strike: Sequence[float], quantity: Sequence[float], expiry: Sequence[float]) -> Reach:
    """The interval of attainable deltas of legs on one underlying, cash intrinsic at each expiry, zero yield.

    Per expiry the slopes of the payoff between its strikes bound the delta; expiries add up. Shape: (legs,) each;
    `expiry` only tells which legs end together.

    >>> reach_of([1, 1], [95.0, 105.0], [-1.0, 1.0], [0.25, 0.25])
    Reach(lo=-1.0, hi=0.0)
    """
    legs = sorted(zip(expiry, strike, cp, quantity, strict=True))
    lo = hi = 0.0
    for _, together in groupby(legs, key=lambda leg: leg[0]):
        slopes = _slopes([(k, c, q) for _, k, c, q in together])
        lo, hi = lo + min(slopes), hi + max(slopes)
    return Reach(lo, hi)


def _slopes(legs: list[tuple[float, float, float]]) -> list[float]:
    """The slopes of the payoff below, between and above the strikes; a slope turns by the quantity at each strike."""
    slope = -sum(q for _, c, q in legs if c < 0)
    slopes = [slope]
    for _, same in groupby(legs, key=lambda leg: leg[0]):
        slope += sum(q for _, _, q in same)
        slopes.append(slope)
    return slopes


def within_reach(band: Band, lo: float, hi: float) -> Band:
    """The band cut to the reach [lo, hi], in the band's own unit; one that covers all of it, or none of it, stays.

    A band that covers the reach asks for nothing whatever the book does. Shape: as the band; lo and hi broadcast.
    """
    if np.ndim(band.lo) == 0 and np.ndim(lo) == 0 and np.ndim(band.to) == 0:
        return _one_within(band, lo, hi)
    meets = np.asarray((band.lo <= hi) & (band.hi >= lo))
    covers = np.asarray((band.lo <= lo) & (band.hi >= hi))
    cut = meets & ~covers
    if not cut.any():
        return band
    below, above = np.where(cut, np.maximum(band.lo, lo), band.lo), np.where(cut, np.minimum(band.hi, hi), band.hi)
    to = None if band.to is None else np.minimum(np.maximum(band.to, below), above)
    return Band(below, above, to)


def _one_within(band: Band, lo: float, hi: float) -> Band:
    """The same for one band, as quick as a decision at every quote needs it."""
    below, above, to = band
    apart = below > hi or above < lo
    covers = below <= lo and above >= hi
    inside = below >= lo and above <= hi
    if apart or covers or inside:
        return band
    below, above = max(below, lo), min(above, hi)
    return Band(below, above, None if to is None else min(max(to, below), above))
