"""A calm is a box of prices and time in which a steady rule surely does nothing on one underlying; law: a proof, not a guess.

The net position (delta of the legs, of what else is held and of the hedge) stays inside the target -+ the least half width
that the rule can have in the box, and the hedge inside the book's reach where the rule's band is cut to it.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple, Protocol

from bot.core.ports import BandInput, LegInput
from bot.core.surroundings import GROW, Limits, Surroundings, widest
from bot.domain.units import Nanos, Years
from bot.pricing.room import NO_VOLS, Bounds, Extent

SURE: Final = 1.0 - 1e-9
"""The share of a half width that is used: more than rounding could take away."""
VAST: Final = 1e3
"""Years, or a vol, that no book has: its mean is as good as unknown."""
ROUNDING: Final = 1e-12
"""The share of what is added up that rounding may take away."""
NOT_ASKED: Final = (math.nan, math.nan)


class Bounded(Protocol):
    """Legs that can say how far their sums move within a box."""

    @property
    def by_formula(self) -> bool: ...
    def limits(self, now: Nanos) -> Limits: ...
    def until(self, now: Nanos, years: Years) -> Nanos: ...
    def within(
        self, now: Nanos, prices: tuple[float, float], years: Years, *, vols: Any = NO_VOLS, means: tuple[float, float]
    ) -> Bounds: ...


class Seen(NamedTuple):
    """One underlying as its rule sees it now.

    `x` as the rule is shown it; `net` the net delta with the hedge and `target` where it is wanted (low, high), both in
    underlying units; `reach` the hedges the book can ask for, in contracts, None where the rule's band is not cut to them;
    `shaped` what a rule that shapes deltas sees of the legs; `planned` the prices its plan is good for; `own` True where the
    underlying hedges itself: else a price that is withdrawn leaves the hedge tradable on the last delta known, which then
    must be one at which nothing is done.
    """

    x: BandInput
    net: float
    target: tuple[float, float]
    reach: tuple[float, float] | None = None
    shaped: LegInput | None = None
    planned: tuple[float, float] = (-math.inf, math.inf)
    own: bool = True


class Calm(NamedTuple):
    """Prices, the first instant not covered, and the extent of the box."""

    low: float
    high: float
    until: Nanos
    extent: Extent


def calm(rule: Any, legs: Bounded, seen: Seen, *, last: Extent | None) -> Calm | None:
    """The box in which `rule` surely does nothing; None where none is found. `last` is the extent of the box before.

    `rule` is `Steady`, and `SteadyShape` where it shapes deltas.
    """
    x = seen.x
    shape = getattr(rule, "vols_within", None)
    if seen.shaped is not None and (shape is None or not legs.by_formula):
        return None
    asks_terms = not math.isnan(x.tau)
    means = (x.tau, x.vol) if asks_terms else NOT_ASKED

    def ask(low: float, high: float, years: Years) -> tuple[Bounds, float, float] | None:
        bounds = legs.within(x.now, (low, high), years, means=means)
        if math.isnan(bounds.gamma_lo) or (asks_terms and not _is_known(bounds)):
            return None
        around = Surroundings(
            spot=(low, high),
            gamma=(bounds.gamma_lo, bounds.gamma_hi),
            tau=(bounds.tau_lo, bounds.tau_hi),
            vol=(bounds.vol_lo, bounds.vol_hi),
            now=(x.now, legs.until(x.now, years)),
            years=years,
        )
        width = SURE * float(rule.least_width(x, around))
        if not width > 0.0 or (math.isinf(width) and not seen.own):
            return None
        if seen.shaped is not None and shape is not None:
            vols = shape(seen.shaped, around)
            if vols is None:
                return None
            bounds = legs.within(x.now, (low, high), years, vols=vols, means=NOT_ASKED)
        return bounds, *rooms(seen, width)

    found = widest(x.spot, ask, limits_of(rule, legs, seen), None if last is None else first_of(last))
    if not (found.below > 0.0 and found.above > 0.0 and found.years > 0.0):
        return None
    return Calm(x.spot - found.below, x.spot + found.above, legs.until(x.now, found.years), found)


def _is_known(b: Bounds) -> bool:
    """True where the means of tau and vol are bounded by anything that can be."""
    return max(abs(b.tau_lo), abs(b.tau_hi), b.vol_hi) < VAST


def rooms(seen: Seen, width: float) -> tuple[float, float]:
    """How far the net delta may rise and fall with the rule doing nothing, its half width being at least `width`."""
    x, (low, high) = seen.x, seen.target
    lost = ROUNDING * (abs(seen.net) + 2.0 * abs(x.held * x.per_contract))
    rise, fall = high + width - seen.net - lost, seen.net - (low - width) - lost
    if seen.reach is None:
        return rise, fall
    near, far = seen.reach
    slip = 1e-9 * (1.0 + abs(near) + abs(far))
    if near + slip < x.held < far - slip:
        return rise, fall  # wherever the band is cut, the hedge lies inside
    if low != high:
        return 0.0, 0.0
    # the band must cover the reach, and then it is not cut: as the net delta rises, what is wanted falls
    units = abs(x.per_contract)
    return min(rise, width - (far - x.want) * units), min(fall, width - (x.want - near) * units)


def limits_of(rule: Any, legs: Bounded, seen: Seen) -> Limits:
    """What the box may not go beyond: the legs' limits, the prices of the plan, and those the rule names."""
    found = legs.limits(seen.x.now)
    low, high = max(found.low, seen.planned[0]), min(found.high, seen.planned[1])
    spots = getattr(rule, "spots", None)
    if spots is not None:
        named = spots(seen.x)
        low, high = max(low, named[0]), min(high, named[1])
    return Limits(low, high, found.years)


def first_of(last: Extent) -> Extent:
    """Where to begin to look: wider than the box before."""
    return Extent(GROW * last.below, GROW * last.above, GROW * last.years)
