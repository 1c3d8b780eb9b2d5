"""The tape holds inputs; for recorded feeds that is each file's digest and how many rows of market data were taken.

Law: a decision cites the number of rows it had seen, so with the same files the same decision can be proved again.
"""

from __future__ import annotations

import msgspec

from bot.domain.units import Nanos


class TapeRange(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A run of rows of one feed: [start, stop) of the global row count, and the instants they span."""

    feed: str
    start: int
    stop: int
    first_ts: Nanos
    last_ts: Nanos


class Tape:
    """Counts rows in the order the loop took them and keeps which feed they came from."""

    def __init__(self) -> None:
        self.rows = 0
        self._ranges: list[TapeRange] = []

    def take(self, feed: str, rows: int, first_ts: Nanos, last_ts: Nanos) -> None:
        """Count `rows` more; runs of one feed are joined so that batching leaves no trace."""
        start = self.rows
        self.rows += rows
        if self._ranges and self._ranges[-1].feed == feed:
            last = self._ranges[-1]
            self._ranges[-1] = TapeRange(
                feed=feed, start=last.start, stop=self.rows, first_ts=last.first_ts, last_ts=last_ts
            )
            return
        self._ranges.append(TapeRange(feed=feed, start=start, stop=self.rows, first_ts=first_ts, last_ts=last_ts))

    def ranges(self) -> list[TapeRange]:
        """The runs so far, in order."""
        return list(self._ranges)
