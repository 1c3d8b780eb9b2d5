"""A pause is a stretch in which a hedge cannot be traded: a night, a weekend, a halt; law: what is done before and after it
is planned, and during it nothing is asked for.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, Protocol

import msgspec

from bot.core.ports import Band
from bot.domain.calendar import Pause
from bot.domain.units import Nanos


class Pausing(msgspec.Struct, frozen=True, kw_only=True):
    """What a hedger does about pauses of one kind.

    From `lead` before one on, `plan` says: "hold" goes by the rule as ever; "shrink" cuts the rule's band to `width` of itself
    round its middle (0: the exact hedge; the gap over a pause is variance that nobody can hedge); "flatten" takes the
    hedge off. Afterwards nothing is asked for until `settle` after the first price; then the rule is asked, or, with
    `after` "exact", the exact hedge is taken once. A pause that nobody foresaw (a halt by the venue) has no before.
    """

    plan: Literal["hold", "shrink", "flatten"] = "hold"
    lead: Nanos = 0
    width: float = 0.0
    settle: Nanos = 0
    after: Literal["policy", "exact"] = "policy"

    def __post_init__(self) -> None:
        if not 0.0 <= self.width <= 1.0:
            raise ValueError(f"width: expected 0 to 1, found {self.width!r}")
        if self.lead < 0 or self.settle < 0:
            raise ValueError(f"lead and settle: expected lengths from 0, found {self.lead} and {self.settle} ns")


HOLD: Final = Pausing()
"""No plan: the rule goes on as if there were no pauses."""


class SeesPauses(Protocol):
    """A view that knows when an instrument trades. Law: nothing later than `now` but the calendar."""

    def pause(self, instrument: str) -> Pause | None:
        """The stretch without trading that is on, or comes next; None where no calendar is known."""

    def last_halt(self, instrument: str) -> Pause | None:
        """The last halt the venue told of; its end is FOREVER while it is on. None before the first."""


def shrunk(band: Band, want: Any, *, width: float, first: bool) -> Band:
    """The band cut to `width` of itself round its middle; one without edges asks for the exact hedge once (`first`).

    >>> shrunk(Band(-10.0, 30.0), 10.0, width=0.5, first=True)
    Band(lo=0.0, hi=20.0, to=None)
    """
    if not (math.isfinite(band.lo) and math.isfinite(band.hi)):
        return Band(want, want) if first else band
    middle, half = 0.5 * (band.lo + band.hi), 0.5 * (band.hi - band.lo) * width
    to = None if band.to is None else min(max(band.to, middle - half), middle + half)
    return Band(middle - half, middle + half, to)
