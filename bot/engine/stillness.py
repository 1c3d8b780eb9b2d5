"""Stillness is how far the net delta of one holding can move while its underlying stays within a box; law: a bound.

European legs are bounded by `bot.pricing.room`, American ones by the cells that answer for them per tick. Nothing is said
of delta tables, smiles that move vols, parity prices and prices read from prints: those legs are looked at each time.
Vols, rates and holdings stand still in a box; whatever changes them ends it.
"""

from __future__ import annotations

import math
from typing import Final

from bot.core.quiet import FOREVER
from bot.core.surroundings import Limits
from bot.domain.units import NS_PER_YEAR, Nanos, Years
from bot.engine.clock import Act365
from bot.engine.valuation import Legs, Slice, Valuation
from bot.pricing.black import Array
from bot.pricing.room import FARTHEST, LONGEST, NO_VOLS, UNKNOWN, WIDER, Bounds, bounds_kernel

CELL: Final = 1e-12
"""The share of the price by which a box ends before a cell does."""


class Stillness:
    """Bounds for the legs of one holding."""

    def __init__(self, legs: Legs, valuation: Valuation) -> None:
        self._legs = legs
        self._valuation = valuation
        s = legs.slice
        self._slice = s
        self._dividend = s.rate if s.on_future else s.dividend
        self._answers = valuation.settings.pricer != "table" and not s.smile_moves and s.from_quotes

    @property
    def by_formula(self) -> bool:
        """True where every leg is European and its vol stands still: deltas at other vols are known then too."""
        return self._answers and not self._slice.has_early

    def limits(self, now: Nanos) -> Limits:
        """What no box goes beyond: a share of the price and of the time left, and the cells of American legs."""
        s, legs = self._slice, self._legs.fresh()
        spot = self._valuation.spot(s.underlying)
        if not (self._answers and 0.0 < spot < math.inf):
            return Limits(0.0, 0.0, 0.0)
        low, high, at = spot * (1.0 - FARTHEST), spot * (1.0 + FARTHEST), s.clock.at(now)
        shortest = int(s.expiry_clock[legs.row].min()) - at if len(legs) else FOREVER
        years = LONGEST * shortest / NS_PER_YEAR
        for group in legs.groups:
            curves = group.curves()
            if curves is None or not curves.late < group.expiry - at <= curves.soon:
                return Limits(0.0, 0.0, 0.0)
            low, high = max(low, curves.low), min(high, curves.high * (1.0 - CELL))
            years = min(years, (group.expiry - at - curves.late - 1) / NS_PER_YEAR)
        return Limits(low, high, years)

    def bounds(
        self,
        now: Nanos,
        prices: tuple[float, float],
        years: Years,
        *,
        vols: Array = NO_VOLS,
        means: tuple[Years, float] = (math.nan, math.nan),
    ) -> Bounds:
        """What can be said over the box between two prices and for so many years of the model clock; NaN where nothing.

        `means` are the book's tau and vol now, where theirs are asked for. Shape: vols (legs, 3) or `NO_VOLS`.
        """
        s, legs = self._slice, self._legs.fresh()
        if not self._answers:
            return UNKNOWN
        low, high = prices
        at = s.clock.at(now)
        found = Bounds(*bounds_kernel()(
            low, high, at - s.clock_epoch, years, legs.packed, vols, s.rate, self._dividend, *means
        ))  # fmt: skip
        return self._with_cells(found, legs, at, prices) if legs.groups else found

    def _with_cells(self, found: Bounds, legs: Legs, at: int, prices: tuple[float, float]) -> Bounds:
        """The same with the early-exercise legs."""
        gamma_lo, gamma_hi, decay_lo, decay_hi = found[:4]
        for group in legs.groups:
            curves = group.curves()
            inside = curves is not None and curves.low <= prices[0] <= prices[1] < curves.high
            if curves is None or not inside:
                return UNKNOWN
            a, b, c, d = curves.slopes(*prices)
            slip, slow = WIDER * max(abs(a), abs(b)), WIDER * max(abs(c), abs(d))
            gamma_lo, gamma_hi = gamma_lo + a - slip, gamma_hi + b + slip
            decay_lo, decay_hi = decay_lo + (c - slow) * NS_PER_YEAR, decay_hi + (d + slow) * NS_PER_YEAR
        return found._replace(
            gamma_lo=gamma_lo,
            gamma_hi=gamma_hi,
            decay_lo=decay_lo,
            decay_hi=decay_hi,
            gross=found.gross + sum(group.gross for group in legs.groups),
        )

    def until(self, now: Nanos, years: Years) -> Nanos:
        """The first instant not covered by so many years of the model clock: the price grows stale, or a leg ends."""
        last = min(_after(self._slice, now, years, self._legs.first_expiry), self._legs.first_expiry)
        bound = self._valuation.settings.stale_after
        if bound is None:
            return last
        return min(last, self._valuation.spot_ts(self._slice.underlying) + bound)


def _after(s: Slice, now: Nanos, years: Years, end: Nanos) -> Nanos:
    """The last instant up to `end` at which no more than so many years have passed on the slice's clock."""
    if isinstance(s.clock, Act365):
        return end if years * NS_PER_YEAR >= end - now else now + int(years * NS_PER_YEAR)
    if math.isinf(years):
        return end
    counts, start = int(years * NS_PER_YEAR), s.clock.at(now)
    low, high = now, end
    while high - low > 1:
        middle = (low + high) // 2
        if s.clock.at(middle) - start <= counts:
            low = middle
        else:
            high = middle
    return low
