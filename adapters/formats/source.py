"""A source reads one recording; law: its pieces come in order, and no row of a later piece
is earlier than a piece's horizon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from bot.core.events import Corporate, FeedState, Reference
from bot.domain.instruments import Instrument
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import Nanos

Single: TypeAlias = Corporate | FeedState | Reference


class Piece(NamedTuple):
    """Part of a recording: batches each in order of `ts_recv`, listed in source order; `horizon` None at the last."""

    quotes: Sequence[QuoteBatch]
    trades: Sequence[TradeBatch]
    singles: Sequence[Single]
    horizon: Nanos | None


class Source(Protocol):
    """One format's reader. `open` does the I/O that can fail early; `pieces` reads."""

    def instruments(self) -> Sequence[Instrument]: ...
    def open(self, columns: Mapping[str, int]) -> None: ...
    def pieces(self) -> Iterator[Piece]: ...
