"""A merge turns several feeds into one order; law: by (ts_recv, rank, feed order), and a batch is cut, never reordered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import numpy as np

from bot.core.errors import DataError
from bot.core.events import RANK_CONTROL, RANK_MARKET, FeedEvent
from bot.domain.market import Quote, QuoteBatch, Trade, TradeBatch
from bot.domain.units import Nanos, iso


class _Head:
    """The next event of one feed, and how far into it (a batch) the merge has come."""

    def __init__(self, name: str, order: int, events: AsyncIterator[FeedEvent]) -> None:
        self.name = name
        self.order = order
        self.item: FeedEvent | None = None
        self.cursor = 0
        self.last: Nanos = -(2**63)
        self._events = events

    async def pull(self) -> None:
        """Take the next event; DataError when it is earlier than the one before."""
        self.cursor = 0
        self.item = None
        async for item in self._events:
            if isinstance(item, QuoteBatch | TradeBatch) and not len(item):
                continue
            self.item = item
            break
        if self.item is None:
            return
        first = self.ts
        if first < self.last:
            raise DataError(
                f"feed {self.name}: expected times never to go back, found {iso(first)} after {iso(self.last)}"
            )
        self.last = first
        if isinstance(self.item, QuoteBatch | TradeBatch):
            self._refuse_unsorted(self.item)
            self.last = int(self.item.ts_recv[-1])

    def _refuse_unsorted(self, batch: QuoteBatch | TradeBatch) -> None:
        back = np.flatnonzero(np.diff(batch.ts_recv) < 0)
        if len(back):
            a, b = (int(ts) for ts in batch.ts_recv[back[0] : back[0] + 2])
            raise DataError(f"feed {self.name}: expected times never to go back, found {iso(b)} after {iso(a)}")

    @property
    def ts(self) -> Nanos:
        """The instant of the next row."""
        item = self.item
        assert item is not None
        if isinstance(item, QuoteBatch | TradeBatch):
            return int(item.ts_recv[self.cursor])
        return item.ts_recv

    @property
    def key(self) -> tuple[Nanos, int, int]:
        """Where the next row stands in the order of events."""
        market = isinstance(self.item, QuoteBatch | TradeBatch | Quote | Trade)
        return (self.ts, RANK_MARKET if market else RANK_CONTROL, self.order)


async def merge(feeds: Sequence[tuple[str, AsyncIterator[FeedEvent]]]) -> AsyncIterator[tuple[str, FeedEvent]]:
    """(feed name, event) of all feeds in one order."""
    heads = [_Head(name, order, events) for order, (name, events) in enumerate(feeds)]
    for head in heads:
        await head.pull()
    while True:
        live = [head for head in heads if head.item is not None]
        if not live:
            return
        first = min(live, key=lambda head: head.key)
        item = first.item
        assert item is not None
        others = [head.key for head in live if head is not first]
        if isinstance(item, QuoteBatch | TradeBatch):
            stop = _rows_before(item, first, min(others)) if others else len(item)
            yield first.name, item.rows(first.cursor, stop) if (first.cursor or stop < len(item)) else item
            first.cursor = stop
            if stop < len(item):
                continue
        else:
            yield first.name, item
        await first.pull()


def _rows_before(batch: QuoteBatch | TradeBatch, head: _Head, other: tuple[Nanos, int, int]) -> int:
    """The first row of a batch that comes after the other feed's next event."""
    ts, rank, order = other
    side = "right" if (RANK_MARKET, head.order) < (rank, order) else "left"
    stop = int(batch.ts_recv.searchsorted(ts, side=side))  # type: ignore[call-overload]  # side is one of its two literals
    return max(stop, head.cursor + 1)
