"""A Binance capture is what a client wrote down of the public streams; law: a message is known when the capture got
it, and a book is only believed while its update ids connect.

One line a message: `{receive time, ns} {json}`: `depthUpdate` diffs, `bookTicker`, `trade` in the combined-stream
envelope, and a REST depth snapshot without one. Diffs are applied to the snapshot by update id (Binance, "How to manage
a local order book correctly"): futures need `pu` equal to the last `u`, spot `U` equal to the last `u` plus one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.formats.columns import (
    Cells,
    count_faults,
    find_quote_faults,
    find_trade_faults,
    order_rows,
    quotes_of,
    take_quotes,
    take_trades,
    trades_of,
)
from adapters.formats.files import find_files, read_bytes
from adapters.formats.options import ReplayOptions
from adapters.formats.source import Piece, Single
from adapters.formats.tally import Tally, relative_name
from bot.core.errors import DataError
from bot.core.events import FeedState
from bot.domain.instruments import Instrument, OptionContract
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import Nanos

NS_PER_MS: Final = 1_000_000
Levels: TypeAlias = list[tuple[str, str]]


class Ticker(msgspec.Struct, gc=False):
    """A `bookTicker` message; on spot it has no event time."""

    u: int
    s: str
    b: str
    B: str
    a: str
    A: str
    e: str = ""
    E: int | None = None


class Print(msgspec.Struct, gc=False):
    """A `trade` message."""

    s: str
    p: str
    q: str
    E: int | None = None


class Diff(msgspec.Struct, gc=False):
    """A `depthUpdate` message: levels that changed, a size of 0 removes one."""

    s: str
    U: int
    u: int
    b: Levels
    a: Levels
    pu: int | None = None
    E: int | None = None


class Snapshot(msgspec.Struct, gc=False):
    """A REST depth snapshot."""

    lastUpdateId: int  # noqa: N815  # the venue's own name
    bids: Levels
    asks: Levels
    E: int | None = None


Message: TypeAlias = Ticker | Print | Diff | Snapshot


class _Envelope(msgspec.Struct, gc=False):
    stream: str
    data: msgspec.Raw


class Line(NamedTuple):
    """One message: line number, receive time, stream and content."""

    number: int
    local: Nanos
    stream: str
    message: Message


class Capture(NamedTuple):
    """A whole capture file. `lines` holds the readable ones, `unreadable` the numbers of the others."""

    path: Path
    where: str
    lines: list[Line]
    unreadable: list[int]

    @property
    def symbol(self) -> str:
        """The symbol of the streams."""
        return next((line.message.s for line in self.lines if not isinstance(line.message, Snapshot)), "")

    @property
    def is_spot(self) -> bool:
        """True for spot streams: their tickers name no event, their diffs no previous id."""
        for line in self.lines:
            if isinstance(line.message, Diff):
                return line.message.pu is None
            if isinstance(line.message, Ticker):
                return not line.message.e
        return False

    @property
    def instrument(self) -> str:
        """The canonical id of what was captured."""
        return f"{'BINANCE-SPOT' if self.is_spot else 'BINANCE'}:{self.symbol}"


_ticker = msgspec.json.Decoder(Ticker)
_print = msgspec.json.Decoder(Print)
_diff = msgspec.json.Decoder(Diff)
_snapshot = msgspec.json.Decoder(Snapshot)
_envelope = msgspec.json.Decoder(_Envelope)


def read_capture(path: Path, *, where: str = "") -> Capture:
    """The messages of a capture file in order; DataError when it is missing, truncated or holds no message at all."""
    lines: list[Line] = []
    unreadable: list[int] = []
    for number, text in enumerate(read_bytes(path).split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            found = _read_line(number, text)
        except (msgspec.DecodeError, ValueError):
            unreadable.append(number)
            continue
        if found is not None:
            lines.append(found)
    if not lines:
        raise DataError(f"{path}: expected lines of receive time and JSON, found none")
    return Capture(path, where or path.name, lines, unreadable)


def _read_line(number: int, text: bytes) -> Line | None:
    stamp, _, body = text.partition(b" ")
    local = int(stamp)
    if body.startswith(b'{"lastUpdateId"'):
        return Line(number, local, "snapshot", _snapshot.decode(body))
    envelope = _envelope.decode(body)
    stream = envelope.stream.partition("@")[2]
    if stream.startswith("bookTicker"):
        return Line(number, local, stream, _ticker.decode(envelope.data))
    if stream == "trade":
        return Line(number, local, stream, _print.decode(envelope.data))
    if stream.startswith("depth"):
        return Line(number, local, stream, _diff.decode(envelope.data))
    return None


class CaptureQuality(NamedTuple):
    """What a capture holds, as recorded."""

    lines: int
    streams: dict[str, int]
    first_bbo: tuple[float, float]
    last_bbo: tuple[float, float]
    crossed_bbo: int
    first_local_ns: Nanos
    last_local_ns: Nanos
    local_time_decreases: int
    local_minus_event_ms_median: float


def capture_quality(capture: Capture) -> CaptureQuality:
    """Counts by stream, best bid and offer of the tickers, and the clock's offset, nothing refused or repaired."""
    local = [line.local for line in capture.lines]
    tickers = [line.message for line in capture.lines if isinstance(line.message, Ticker)]
    bbo = [(float(ticker.b), float(ticker.a)) for ticker in tickers]
    nothing = (float("nan"), float("nan"))
    return CaptureQuality(
        lines=len(capture.lines) + len(capture.unreadable),
        streams=dict(sorted(Counter(line.stream for line in capture.lines).items())),
        first_bbo=bbo[0] if bbo else nothing,
        last_bbo=bbo[-1] if bbo else nothing,
        crossed_bbo=sum(bid > ask for bid, ask in bbo),
        first_local_ns=local[0],
        last_local_ns=local[-1],
        local_time_decreases=sum(b < a for a, b in pairwise(local)),
        local_minus_event_ms_median=median_offset_ms(capture),
    )


def median_offset_ms(capture: Capture) -> float:
    """The median of receive time minus event time over the streamed messages, in milliseconds; NaN without event times.

    Negative: the capture's clock ran behind the exchange's, by at least this much.
    """
    offsets = [
        line.local - line.message.E * NS_PER_MS
        for line in capture.lines
        if line.message.E is not None and not isinstance(line.message, Snapshot)
    ]
    return median(offsets) / NS_PER_MS if offsets else float("nan")


# --------------------------------------------------------------------------- the book


class Side:
    """One side of a book: price -> size, with its best price at hand. `sign` +1 for bids, -1 for asks."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._levels: dict[float, float] = {}
        self.best: float | None = None

    def clear(self) -> None:
        """Forget all levels."""
        self._levels.clear()
        self.best = None

    def set_levels(self, levels: Levels) -> None:
        """Set sizes at prices; 0 removes. ValueError for text that is no number, before anything is changed."""
        parsed = [(float(price), float(size)) for price, size in levels]
        for price, size in parsed:
            if size == 0.0:
                self._levels.pop(price, None)
                if price == self.best:
                    self.best = None if not self._levels else self._find_best()
                continue
            self._levels[price] = size
            if self.best is None or self._sign * price > self._sign * self.best:
                self.best = price

    def _find_best(self) -> float:
        return max(self._levels) if self._sign > 0 else min(self._levels)

    def top(self) -> tuple[float, float]:
        """Best price and its size, NaN when the side is empty."""
        return (float("nan"), float("nan")) if self.best is None else (self.best, self._levels[self.best])


class DepthBook:
    """A book kept from a snapshot and diffs. `state`: waiting for a snapshot, synced, or gap (ids did not connect)."""

    def __init__(self, *, is_spot: bool) -> None:
        self._is_spot = is_spot
        self._waiting: list[Diff] = []
        self.bids, self.asks = Side(1), Side(-1)
        self.state = "waiting"
        self.last_id = -1
        self._connected = False

    def take_snapshot(self, snapshot: Snapshot) -> bool:
        """Start the book afresh and apply the diffs that waited; False when these do not connect."""
        self.bids.clear()
        self.asks.clear()
        self.bids.set_levels(snapshot.bids)
        self.asks.set_levels(snapshot.asks)
        self.last_id = snapshot.lastUpdateId
        self.state, self._connected = "synced", False
        waiting, self._waiting = self._waiting, []
        connected = True
        for diff in waiting:
            connected = self.take_diff(diff) and connected
        return connected

    def take_diff(self, diff: Diff) -> bool:
        """Apply a diff, keep it while waiting for a snapshot, drop it when old; False when ids do not connect."""
        if self.state != "synced":
            self._waiting.append(diff)
            return True
        if diff.u < self.last_id or (diff.u == self.last_id and (self._is_spot or self._connected)):
            return True
        if not self._connects(diff):
            self.state = "gap"
            self._waiting = [diff]
            return False
        self.bids.set_levels(diff.b)
        self.asks.set_levels(diff.a)
        self.last_id, self._connected = diff.u, True
        return True

    def lose(self) -> None:
        """Stop believing the book until the next snapshot."""
        self.state, self._waiting = "gap", []

    def _connects(self, diff: Diff) -> bool:
        last, first = self.last_id, diff.U
        if self._is_spot or diff.pu is None:
            return first == last + 1 if self._connected else first <= last + 1
        return diff.pu == last if self._connected else first <= last


# --------------------------------------------------------------------------- the source


class _Tape:
    """Rows in the making, as Python lists."""

    def __init__(self) -> None:
        self.line: list[int] = []
        self.recv: list[int] = []
        self.event: list[int] = []
        self.values: list[tuple[float, ...]] = []

    def add(self, line: int, recv: Nanos, event: Nanos, values: tuple[float, ...]) -> None:
        self.line.append(line)
        self.recv.append(recv)
        self.event.append(event)
        self.values.append(values)

    def columns(self, width: int) -> list[NDArray[np.float64]]:
        table = np.array(self.values, np.float64).reshape(len(self.values), width)
        return [np.ascontiguousarray(table[:, i]) for i in range(width)]


class _Reader:
    """One capture as quotes, prints and gaps."""

    def __init__(self, capture: Capture, options: ReplayOptions, tally: Tally) -> None:
        self._capture = capture
        self._options = options
        self._tally = tally
        self._book = DepthBook(is_spot=capture.is_spot)
        self._newest_id = -1
        self._top: tuple[float, ...] = ()
        self._offset = 0
        self._latest = -1
        self.quotes = _Tape()
        self.prints = _Tape()
        self.gaps: list[Single] = []

    def read(self) -> None:
        for line in self._capture.lines:
            try:
                self._take(line)
            except ValueError:
                self._tally.refuse("unparsable", 1, where=f"{self._capture.where}:{line.number}")
                if isinstance(line.message, Diff | Snapshot):
                    self._book.lose()
                    self._say_gap(self._recv(line), "a depth message could not be read")

    def _recv(self, line: Line) -> Nanos:
        if self._options.clock == "capture":
            return line.local + self._options.clock_offset
        event = line.message.E
        if event is not None:
            self._offset = event * NS_PER_MS - line.local
        # Event times step back now and then between streams; what was known stays known.
        self._latest = max(self._latest, line.local + self._offset)
        return self._latest

    def _take(self, line: Line) -> None:
        message = line.message
        recv = self._recv(line)
        event = recv if message.E is None else message.E * NS_PER_MS
        if isinstance(message, Print):
            self.prints.add(line.number, recv, event, (float(message.p), float(message.q)))
        elif isinstance(message, Ticker):
            self._take_ticker(message, line.number, recv, event)
        elif self._options.book != "ticker":
            self._take_depth(message, line.number, recv, event)

    def _take_ticker(self, ticker: Ticker, number: int, recv: Nanos, event: Nanos) -> None:
        if self._options.book == "depth" or ticker.u <= self._newest_id:
            return
        top = (float(ticker.b), float(ticker.B), float(ticker.a), float(ticker.A))
        if any(map(math.isnan, top)):  # in a row of ours NaN is an empty side; here it is a fault
            self._tally.refuse("nan", 1, where=f"{self._capture.where}:{number}")
            return
        self._newest_id = ticker.u
        self._top = top
        self.quotes.add(number, recv, event, top)

    def _take_depth(self, message: Diff | Snapshot, number: int, recv: Nanos, event: Nanos) -> None:
        was_synced = self._book.state == "synced"
        connected = (
            self._book.take_snapshot(message) if isinstance(message, Snapshot) else self._book.take_diff(message)
        )
        if not connected:
            self._say_gap(recv, "update ids do not connect")
        if self._book.state != "synced" or self._book.last_id <= self._newest_id:
            return
        top = (*self._book.bids.top(), *self._book.asks.top())
        self._newest_id = self._book.last_id
        if top != self._top or not was_synced:
            self._top = top
            self.quotes.add(number, recv, event, top)

    def _say_gap(self, recv: Nanos, why: str) -> None:
        name = self._capture.instrument
        self._tally.repair("depth_gaps")
        text = f"{name}: the depth book is not believed until the next snapshot: {why}"
        self.gaps.append(FeedState(ts_recv=recv, feed=self._options.name, state="gap", instrument=name, text=text))


class BinanceCaptures:
    """Capture files, merged into one order."""

    def __init__(self, options: ReplayOptions, wanted: Sequence[Instrument], tally: Tally) -> None:
        self._options = options
        self._wanted = [item for item in wanted if not options.only or item.id in options.only]
        self._tally = tally
        self._quotes: list[QuoteBatch] = []
        self._trades: list[TradeBatch] = []
        self._gaps: list[Single] = []

    def instruments(self) -> list[Instrument]:
        """None: captures hold no reference data."""
        return []

    def open(self, columns: Mapping[str, int]) -> None:
        """Read all files; DataError for a missing or truncated one, or a wanted instrument that was not captured."""
        self._check_sources()
        root, paths = find_files(self._options, default="*.gz")
        seen: set[str] = set()
        for path in paths:
            self._tally.digest(path, root)
            capture = read_capture(path, where=relative_name(path, root))
            seen.add(capture.instrument)
            self._note_clock(capture)
            if any(item.id == capture.instrument for item in self._wanted):
                self._read(capture, columns[capture.instrument])
        for item in self._wanted:
            if item.id not in seen:
                names = ", ".join(str(path) for path in paths)
                raise DataError(f"{names}: expected messages of {item.id}, found those of {', '.join(sorted(seen))}")

    def pieces(self) -> Iterator[Piece]:
        """One piece with everything."""
        yield Piece(self._quotes, self._trades, self._gaps, None)

    def _check_sources(self) -> None:
        for item in self._wanted:
            if isinstance(item, OptionContract):
                raise DataError(f"{item.id}: binance captures hold no options")
        if "parity_forward" in self._options.sources.values():
            raise DataError('binance captures hold no options: expected sources of "quotes" or "trades"')

    def _note_clock(self, capture: Capture) -> None:
        offset = median_offset_ms(capture)
        side = "behind" if offset < 0 else "ahead of or later than"
        how = (
            f"ts_recv is the capture's clock plus {self._options.clock_offset} ns"
            if self._options.clock == "capture"
            else "ts_recv is the exchange's event time, without any latency"
        )
        warning = "; a latency computed from ts_event is not real" if offset < 0 else ""
        self._tally.note(
            f"{capture.where}: receive time minus event time {offset:.3f} ms (median): the capture's clock is "
            f"{abs(offset) / 1e3:.3f} s {side} the exchange's; {how}{warning}"
        )

    def _read(self, capture: Capture, column: int) -> None:
        if capture.unreadable:
            where = f"{capture.where}:{capture.unreadable[0]}"
            self._tally.refuse("unparsable", len(capture.unreadable), where=where)
        reader = _Reader(capture, self._options, self._tally)
        reader.read()
        self._gaps += reader.gaps
        if self._options.sources.get(capture.instrument, "quotes") == "quotes":
            self._quotes.append(self._sift_quotes(capture, reader.quotes, column))
        self._trades.append(self._sift_prints(capture, reader.prints, column))

    def _sift_quotes(self, capture: Capture, tape: _Tape, column: int) -> QuoteBatch:
        bid, bid_size, ask, ask_size = tape.columns(4)
        sides = [_side(bid, bid_size), _side(ask, ask_size)]
        code = find_quote_faults(sides[0], sides[1], (_given(bid_size), _given(ask_size)))
        keep = np.flatnonzero(count_faults(code, self._tally, where=lambda row: f"{capture.where}:{tape.line[row]}"))
        batch = quotes_of(
            column,
            ts_event=np.array(tape.event, np.int64)[keep],
            ts_recv=np.array(tape.recv, np.int64)[keep],
            bid=sides[0].value[keep],
            ask=sides[1].value[keep],
            bid_size=bid_size[keep],
            ask_size=ask_size[keep],
        )
        order = self._order(capture, tape, batch.ts_recv, batch.instrument, keep)
        return batch if order is None else take_quotes(batch, order)

    def _sift_prints(self, capture: Capture, tape: _Tape, column: int) -> TradeBatch:
        price, size = tape.columns(2)
        code = find_trade_faults(_said(price), _said(size))
        keep = np.flatnonzero(count_faults(code, self._tally, where=lambda row: f"{capture.where}:{tape.line[row]}"))
        batch = trades_of(
            column,
            ts_event=np.array(tape.event, np.int64)[keep],
            ts_recv=np.array(tape.recv, np.int64)[keep],
            price=price[keep],
            size=size[keep],
        )
        order = self._order(capture, tape, batch.ts_recv, batch.instrument, keep)
        return batch if order is None else take_trades(batch, order)

    def _order(
        self,
        capture: Capture,
        tape: _Tape,
        ts: NDArray[np.int64],
        instrument: NDArray[np.int32],
        keep: NDArray[np.int64],
    ) -> NDArray[np.int64] | None:
        return order_rows(
            ts,
            instrument,
            self._tally,
            unsorted=self._options.unsorted,
            repeated="keep",
            where=lambda row: f"{capture.where}:{tape.line[int(keep[row])]}: receive time",
        )


def _said(value: NDArray[np.float64]) -> Cells:
    none = np.zeros(len(value), np.bool_)
    return Cells(value, none, none)


def _given(size: NDArray[np.float64]) -> Cells:
    """A size where NaN is an empty side of the book."""
    return Cells(size, np.isnan(size), np.zeros(len(size), np.bool_))


def _side(price: NDArray[np.float64], size: NDArray[np.float64]) -> Cells:
    """A price whose side is empty at 0/0 (a ticker's way to say so) or where the book has none."""
    empty = ((price == 0.0) & (size == 0.0)) | (np.isnan(price) & np.isnan(size))
    return Cells(np.where(empty, np.nan, price), empty, np.zeros(len(price), np.bool_))
