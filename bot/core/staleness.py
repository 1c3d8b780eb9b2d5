"""A quote is stale when its feed has been silent longer than its own habit allows; law: only monotonic time is asked.

Each instrument's habit is learnt from its gaps: an exponential mean of them, weight `1 / memory` each. Silence is stale past
`k` times that mean, never before `least` and always past `most`. A quote that cannot be traded on (crossed, zero, unchanged
for `frozen_after` though its feed speaks) and one that left its venue more than `lag` ago are stale as they arrive. Times in
nanoseconds; nothing here reads a clock.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from bot.core.errors import ConfigError
from bot.domain.units import NS_PER_SECOND, Nanos

Stale = Literal["never seen", "silent", "late", "crossed", "zero", "frozen"]


class StalenessRule(msgspec.Struct, frozen=True, kw_only=True):
    """When a quote is stale. `k` typical gaps of silence, within [`least`, `most`]; `lag` None: the venue's stamps are not
    compared; `frozen_after` None: a price may stand still."""

    k: float = 5.0
    memory: float = 50.0
    least: Nanos = NS_PER_SECOND
    most: Nanos = 60 * NS_PER_SECOND
    lag: Nanos | None = 5 * NS_PER_SECOND
    frozen_after: Nanos | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.k) and self.k > 1 and math.isfinite(self.memory) and self.memory >= 1):
            raise ConfigError(f"staleness: expected k > 1 and memory >= 1, found {self.k} and {self.memory}")
        if not 0 < self.least <= self.most:
            raise ConfigError(f"staleness: expected 0 < least <= most, found {self.least} and {self.most}")
        if self.lag is not None and self.lag <= 0:
            raise ConfigError(f"staleness: expected a lag above 0 or none, found {self.lag}")
        if self.frozen_after is not None and self.frozen_after <= 0:
            raise ConfigError(f"staleness: expected frozen_after above 0 or none, found {self.frozen_after}")

    def allowance(self, gap: float) -> Nanos:
        """How long one may be silent whose typical gap is `gap` nanoseconds; NaN, unknown yet, gives `most`."""
        if math.isnan(gap):
            return self.most
        return round(min(float(self.most), max(float(self.least), self.k * gap)))


class Sighting(msgspec.Struct, gc=False):
    """What one instrument is remembered by: when it was heard, its typical gap, its last price and since when."""

    heard: Nanos
    gap: float
    bid: float
    ask: float
    moved: Nanos
    fault: Stale | None


class Staleness:
    """The age and habit of every instrument heard. A row is 'what the columns call it': an int, or a text at the edges.

    >>> staleness = Staleness(StalenessRule(k=5.0, least=1))
    >>> for at in (0, 100, 200, 300):
    ...     staleness.hear("US:X", mono=at, bid=9.0, ask=9.5)
    >>> staleness.why("US:X", mono=800), staleness.why("US:X", mono=801)
    (None, 'silent')
    """

    def __init__(self, rule: StalenessRule | None = None) -> None:
        self.rule = rule if rule is not None else StalenessRule()
        self._seen: dict[int | str, Sighting] = {}

    def hear(self, row: int | str, *, mono: Nanos, bid: float, ask: float, lag: Nanos | None = None) -> Stale | None:
        """Note a quote received at monotonic instant `mono`, and say why it is stale as it arrives, None when it is not.

        A blank side is NaN and no fault: it was withdrawn. `lag` is receive time minus the venue's stamp, on the wall clock.
        """
        rule, last = self.rule, self._seen.get(row)
        if last is None:
            last = self._seen[row] = Sighting(mono, math.nan, bid, ask, mono, None)
        elif (gap := mono - last.heard) > 0:  # several quotes of one instant are one word
            learnt = min(gap, rule.allowance(last.gap))  # an absence is no habit: it teaches at most what was allowed
            last.gap = float(learnt) if math.isnan(last.gap) else last.gap + (learnt - last.gap) / rule.memory
            last.heard = mono
        if not (_same(bid, last.bid) and _same(ask, last.ask)):
            last.bid, last.ask, last.moved = bid, ask, mono
        last.fault = self._fault(last, bid, ask, lag)
        return last.fault

    def _fault(self, last: Sighting, bid: float, ask: float, lag: Nanos | None) -> Stale | None:
        rule = self.rule
        if bid == 0.0 and ask == 0.0:  # below zero is a price: oil and spreads have been there
            return "zero"
        if bid > ask:
            return "crossed"
        if rule.lag is not None and lag is not None and lag > rule.lag:
            return "late"
        if rule.frozen_after is not None and last.heard - last.moved > rule.frozen_after:
            return "frozen"
        return None

    def why(self, row: int | str, *, mono: Nanos) -> Stale | None:
        """Why an instrument's quote is stale at monotonic instant `mono`, None while it is fresh."""
        last = self._seen.get(row)
        if last is None:
            return "never seen"
        if last.fault is not None:
            return last.fault
        return "silent" if mono - last.heard > self.rule.allowance(last.gap) else None

    def age(self, row: int | str, *, mono: Nanos) -> Nanos | None:
        """Nanoseconds since the instrument was heard, None when it never was."""
        last = self._seen.get(row)
        return None if last is None else mono - last.heard

    def gap(self, row: int | str) -> float:
        """The typical gap in nanoseconds, NaN before two quotes were heard."""
        last = self._seen.get(row)
        return math.nan if last is None else last.gap

    def goes_stale(self, row: int | str) -> Nanos | None:
        """The last monotonic instant at which the quote is fresh if nothing more is heard; None when it is stale already."""
        last = self._seen.get(row)
        if last is None or last.fault is not None:
            return None
        return last.heard + self.rule.allowance(last.gap)

    def forget(self, row: int | str) -> None:
        """Drop an instrument that ended."""
        self._seen.pop(row, None)


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
