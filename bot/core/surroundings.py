"""Surroundings are everything a rule's inputs may become within a box; law: intervals that surely hold, never estimates.

A rule that can say how wide its band stays at least in given surroundings (`Steady`) can be left alone in them. The box is
found by `widest`: a proposal is bounded, and cut to what the bounds allow. What is bounded over a box holds in every
smaller one, so that each cut is proof already; further rounds only widen it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

from bot.core.ports import BandInput, LegInput
from bot.domain.units import Nanos, Years
from bot.pricing.room import LEAST_SHARE, SAFE, Bounds, Extent, cut, extent_within, wider_of

Interval: TypeAlias = tuple[float, float]

ROUNDS: Final = 6
"""How often a box is proposed at most; the widest that holds is taken."""
SHRINK: Final = 0.3
"""What is left of a proposal that allows nothing."""
NEAREST: Final = 1e-6
"""The share of the widest box in which the slopes are those at the price itself."""
NOTHING: Final = Extent(0.0, 0.0, 0.0)
GROW: Final = 2.0
"""How many times the last box the first proposal is."""
ENOUGH: Final = 0.7
"""A box of this share of what was proposed is not worth another round."""


class Surroundings(NamedTuple):
    """Intervals of what a rule sees, over a box: price, net gamma, the book's tau and vol, the instant."""

    spot: Interval
    gamma: Interval
    tau: Interval
    vol: Interval
    now: tuple[Nanos, Nanos]
    years: Years


def least_size(interval: Interval) -> float:
    """The least absolute value in an interval.

    >>> least_size((-3.0, -2.0)), least_size((-1.0, 2.0))
    (2.0, 0.0)
    """
    return max(interval[0], -interval[1], 0.0)


@runtime_checkable
class Steady(Protocol):
    """Optional for a policy: its band is `want` -+ a half width (and `to`), and it can bound the half width from below.

    Law: where `least_width` is w > 0, `band` at every input in the surroundings holds each `held` with
    |want - held| x |per_contract| < w inside; what else the input says (cost, rate, last hedge) is `x`'s.
    """

    def least_width(self, x: BandInput, around: Surroundings) -> float:
        """The least half width in underlying units; inf where nothing is done whatever the net delta, 0 where unsure."""


@runtime_checkable
class BoundsSpots(Protocol):
    """Optional for a steady policy: it knows prices beyond which it may act whatever the net delta."""

    def spots(self, x: BandInput) -> Interval:
        """The prices between which a box is worth looking for; NaN where there are none."""


@runtime_checkable
class SteadyShape(Protocol):
    """Optional for a policy that shapes deltas: each is Black's at a vol of the leg, and it can bound that vol."""

    def vols_within(self, x: LegInput, around: Surroundings) -> Any:
        """The vol at which each leg is hedged now, and its least and greatest in the surroundings; None where unsure; of a
        leg whose delta does not move at all all three are `NO_VOL`. Shape: (legs, 3)."""


Ask: TypeAlias = Callable[[float, float, Years], "tuple[Bounds, float, float] | None"]
"""(low, high, years) -> bounds over that box, and how far the net delta may rise and fall in it; None where unknown."""


class Limits(NamedTuple):
    """What no box goes beyond: prices and years."""

    low: float
    high: float
    years: Years


def widest(spot: float, ask: Ask, limits: Limits, first: Extent | None = None) -> Extent:
    """The extent of a box around a price in which the net delta surely stays in its room; all zero where none was found.

    `first` is where to begin to look, as a rule twice the last reach.
    """
    most = Extent(spot - limits.low, limits.high - spot, limits.years)
    best = NOTHING
    if not _is_open(most):
        return best
    tried, probed = (most if first is None else cut(first, most)), False
    for _ in range(ROUNDS):
        free = _free(spot, ask, tried)
        here = cut(tried, free)
        best = wider_of(best, here)
        if not _is_open(here):
            if (
                not probed
            ):  # what the slopes at the very price allow, the band standing still, is a better place to look
                probed, near = True, _free(spot, ask, _scaled(most, NEAREST))
                if not _is_open(near):
                    break
                free = near
            tried = cut(_scaled(tried, SHRINK), _scaled(free, 0.5)) if _is_open(free) else _scaled(tried, SHRINK)
            continue
        after = cut(Extent(*(0.5 * (a + b) for a, b in zip(tried, free, strict=True))), most)
        if all(ENOUGH * b <= a for a, b in zip(here, after, strict=True)):
            break
        tried = after
    return best


def _is_open(extent: Extent) -> bool:
    return extent.below > 0.0 and extent.above > 0.0 and extent.years > 0.0


def _scaled(extent: Extent, by: float) -> Extent:
    return Extent(by * extent.below, by * extent.above, by * extent.years)


def _free(spot: float, ask: Ask, tried: Extent) -> Extent:
    """What the bounds on a proposal allow; nothing where there are none or no room is left in it."""
    found = ask(spot - tried.below, spot + tried.above, tried.years)
    if found is None:
        return NOTHING
    bounds, up, down = found[0], SAFE * found[1], SAFE * found[2]
    if math.isnan(bounds.gamma_lo) or not min(up, down) > LEAST_SHARE * bounds.gross:
        return NOTHING
    return extent_within(bounds, tried.years, (up, down))
