"""A quiet box is a certificate that its owner would do nothing: per instrument an interval of bid + ask, and a deadline.

Law: while every named instrument keeps `lo <= bid + ask <= hi` (a withdrawn side, being NaN, leaves the box) and the clock
is before `until`, waking the owner would change nothing. An owner without a certificate is woken at every instant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from bot.domain import units
from bot.domain.units import Nanos

FOREVER: Final[Nanos] = units.FOREVER
ANY_PRICE: Final = (-math.inf, math.inf)
"""The interval of an instrument that must be quoted on both sides, at whatever price."""
NO_PRICE: Final = (math.inf, -math.inf)
"""The interval of an instrument about whose price nothing is promised yet."""


class Renewal(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How compiled code may issue a box anew when the price of `column` leaves it: what its owner would look at.

    Law: the owner would do nothing while |((target - (net delta + linear)) / multiplier - held) multiplier| < `sure`, the net
    delta being that of `packed` (see `black.pack_slice`) at the middle of the quote; the next box is one in which it moves by
    less than what is left of `sure`, at most `stale_after` long. Vols, legs and `held` change at no quote.
    """

    column: int
    packed: Any
    epoch: Nanos
    rate: float
    dividend: float
    linear: float
    stale_after: Nanos
    target: float = 0.0
    held: float = 0.0
    multiplier: float = 1.0
    sure: float = 0.0


class QuietBox(msgspec.Struct, frozen=True, gc=False):
    """Intervals of bid + ask by column number, and the first instant at which the promise ends.

    `renewals`, where an owner gives them, name every instrument whose price its promise rests on: when that price leaves its
    interval or the time is over, each may be renewed by itself, and the promise goes on. Such a box may begin with no promise.
    """

    until: Nanos
    intervals: Mapping[int, tuple[float, float]] = MappingProxyType({})
    renewals: tuple[Renewal, ...] = ()

    def holds(self, instrument: int, bid: float, ask: float, now: Nanos) -> bool:
        """True while the promise covers this quote of this instrument at this instant."""
        if now >= self.until:
            return False
        interval = self.intervals.get(instrument)
        return interval is None or interval[0] <= bid + ask <= interval[1]


UNTIL_TIMER: Final = QuietBox(FOREVER)
"""The box of an owner that market data never wakes: it acts on its timers only."""
