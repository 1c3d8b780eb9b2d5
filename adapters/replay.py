"""A replay feed plays recorded days as if they happened; law: every event comes at the instant it could first be known,
in one order of (ts_recv, source, row), and the size of a batch changes nothing.

At one instant corporate and feed-state events come first, then quotes, then prints; an instrument's own rows keep the
order of their file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Self

from adapters.formats.binance import BinanceCaptures
from adapters.formats.columns import interleave, merge_quotes, merge_trades, no_quotes, no_trades, rows_before
from adapters.formats.lean_days import LeanDays
from adapters.formats.options import ReplayOptions
from adapters.formats.source import Piece, Single, Source
from adapters.formats.spx_chain import SpxChains
from adapters.formats.table import TableFiles
from adapters.formats.tally import Tally
from bot.core.errors import DataError
from bot.core.events import FeedEvent
from bot.core.ports import FeedReport
from bot.domain.instruments import Instrument, Universe
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import Nanos

__all__ = ["ReplayFeed", "ReplayOptions"]


class ReplayFeed:
    """The wanted instruments of a recording, in order.

    Call `instruments("")`, build the Universe from those and the wanted ones, `bind` it, then enter and iterate.
    """

    Options = ReplayOptions
    recorded = True

    def __init__(self, options: ReplayOptions, *, wanted: Sequence[Instrument]) -> None:
        self.name = options.name
        self._options = options
        self._wanted = tuple(wanted)
        self._tally = Tally(options.max_refused)
        self._source: Source | None = None
        self._universe: Universe | None = None
        self._entered = False
        self._quotes = 0
        self._trades = 0

    def instruments(self, query: str) -> Sequence[Instrument]:
        """Instruments the recording will need beyond the wanted: successors after splits and renames. `query` picks by
        a part of the id. Opens reference files; DataError when one is damaged."""
        return [item for item in self._reader().instruments() if query in item.id]

    def bind(self, universe: Universe) -> None:
        """Take the column numbers the batches will carry."""
        self._universe = universe

    async def __aenter__(self) -> Self:
        if self._universe is None:
            raise DataError(f"feed {self.name}: expected `bind(universe)` before it is entered")
        self._reader().open(self._universe.ids)
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False

    async def events(self) -> AsyncIterator[FeedEvent]:
        """Batches and single events in order of `ts_recv`."""
        if not self._entered:
            raise DataError(f"feed {self.name}: expected to be entered (`async with`) before its events are asked for")
        for event in order_events(self._reader().pieces(), rows=self._options.batch_rows):
            if isinstance(event, QuoteBatch):
                self._quotes += len(event)
            elif isinstance(event, TradeBatch):
                self._trades += len(event)
            yield event

    def report(self) -> FeedReport:
        """What was counted so far: rows played, refused and repaired, notes, files by digest."""
        tally = self._tally
        return FeedReport(
            quotes=self._quotes,
            trades=self._trades,
            refused=dict(sorted(tally.refused.items())),
            repaired=dict(sorted(tally.repaired.items())),
            notes=list(tally.notes),
            files=dict(sorted(tally.files.items())),
        )

    def _reader(self) -> Source:
        if self._source is None:
            self._source = make_source(self._options, self._wanted, self._tally)
        return self._source


def make_source(options: ReplayOptions, wanted: Sequence[Instrument], tally: Tally) -> Source:
    """The reader of the options' format."""
    if options.format == "lean":
        return LeanDays(options, wanted, tally)
    if options.format == "spx_chain":
        return SpxChains(options, wanted, tally)
    if options.format == "binance":
        return BinanceCaptures(options, wanted, tally)
    return TableFiles(options, wanted, tally)


def order_events(pieces: Iterator[Piece], *, rows: int) -> Iterator[QuoteBatch | TradeBatch | Single]:
    """The events of all pieces in order of `ts_recv`; rows at or past a piece's horizon wait for the next piece."""
    quotes, trades = no_quotes(), no_trades()
    singles: list[Single] = []
    for piece in pieces:
        quotes = merge_quotes([quotes, *piece.quotes])
        trades = merge_trades([trades, *piece.trades])
        singles = sorted([*singles, *piece.singles], key=lambda single: single.ts_recv)
        ready, singles = _split_singles(singles, piece.horizon)
        q = len(quotes) if piece.horizon is None else rows_before(quotes.ts_recv, piece.horizon)
        t = len(trades) if piece.horizon is None else rows_before(trades.ts_recv, piece.horizon)
        yield from _emit(quotes.rows(0, q), trades.rows(0, t), ready, rows=rows)
        quotes, trades = quotes.rows(q, len(quotes)), trades.rows(t, len(trades))


def _split_singles(singles: list[Single], horizon: Nanos | None) -> tuple[list[Single], list[Single]]:
    if horizon is None:
        return singles, []
    return [s for s in singles if s.ts_recv < horizon], [s for s in singles if s.ts_recv >= horizon]


def _emit(
    quotes: QuoteBatch, trades: TradeBatch, singles: Sequence[Single], *, rows: int
) -> Iterator[QuoteBatch | TradeBatch | Single]:
    q = t = 0
    for single in singles:
        q_end = rows_before(quotes.ts_recv, single.ts_recv)
        t_end = rows_before(trades.ts_recv, single.ts_recv)
        yield from interleave(quotes.rows(q, q_end), trades.rows(t, t_end), rows=rows)
        yield single
        q, t = q_end, t_end
    yield from interleave(quotes.rows(q, len(quotes)), trades.rows(t, len(trades)), rows=rows)
