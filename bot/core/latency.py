"""A latency histogram counts how long things took in fixed steps; law: one `note` costs a search among 25 bounds, no memory.

The bounds rise by 10^(1/4) from 10 microseconds to 10 seconds, so that a quantile read back is right to a factor 1.78. One
thread notes; another may read, and then sees each count as it was at some moment of the reading.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

from bot.domain.units import NS_PER_SECOND, Nanos

BOUNDS: tuple[Nanos, ...] = tuple(round(10_000 * 10.0 ** (step / 4)) for step in range(25))
"""Upper bounds of the steps in nanoseconds, the last one 10 s; longer ones are counted above."""


class LatencyCounts(NamedTuple):
    """How many took at most each bound (not summed up), how many longer, and the sum in nanoseconds."""

    counts: tuple[int, ...]
    total_ns: Nanos

    @property
    def noted(self) -> int:
        """How many were noted."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """Seconds that a share `q` did not exceed, as the upper bound of its step; NaN when nothing was noted.

        >>> latency = Latency()
        >>> for ms in range(1, 101):
        ...     latency.note(ms * 1_000_000)
        >>> latency.counts().quantile(0.5)
        0.056234133
        """
        if not self.noted:
            return math.nan
        rank, seen = max(1, math.ceil(q * self.noted)), 0
        for bound, number in zip(BOUNDS, self.counts, strict=False):
            seen += number
            if seen >= rank:
                return bound / NS_PER_SECOND
        return math.inf


class Latency:
    """Counts as they come."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total: Nanos = 0

    def note(self, took: Nanos) -> None:
        """Count one that took so many nanoseconds; below zero, as a clock that stepped shows it, counts as zero."""
        took = max(0, took)
        self._counts[bisect_left(BOUNDS, took)] += 1
        self._total += took

    def counts(self) -> LatencyCounts:
        """The counts so far."""
        return LatencyCounts(tuple(self._counts), self._total)
