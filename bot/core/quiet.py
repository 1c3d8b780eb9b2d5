"""A quiet box is a certificate that its owner would do nothing: per instrument an interval of bid + ask, and a deadline.

Law: while every named instrument keeps `lo <= bid + ask <= hi` (a withdrawn side, being NaN, leaves the box) and the clock
is before `until`, waking the owner would change nothing. An owner without a certificate is woken at every instant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from bot.domain import units
from bot.domain.units import Nanos

FOREVER: Final[Nanos] = units.FOREVER
ANY_PRICE: Final = (-math.inf, math.inf)
"""The interval of an instrument that must be quoted on both sides, at whatever price."""


class QuietBox(msgspec.Struct, frozen=True, gc=False):
    """Intervals of bid + ask by column number, and the first instant at which the promise ends."""

    until: Nanos
    intervals: Mapping[int, tuple[float, float]] = MappingProxyType({})

    def holds(self, instrument: int, bid: float, ask: float, now: Nanos) -> bool:
        """True while the promise covers this quote of this instrument at this instant."""
        if now >= self.until:
            return False
        interval = self.intervals.get(instrument)
        return interval is None or interval[0] <= bid + ask <= interval[1]


UNTIL_TIMER: Final = QuietBox(FOREVER)
"""The box of an owner that market data never wakes: it acts on its timers only."""
