"""A column is one field of many rows, with what was blank and what could not be read; law: a fault stays with its row.

`read_sheet` reads CSV text, `find_quote_faults` and `find_trade_faults` say which rows are refused and why,
`order_rows` meets unsorted and repeated time, `interleave` merges quotes and prints into one order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from adapters.formats.tally import Tally
from bot.core.errors import DataError
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import Nanos, iso

REASONS: Final = ("", "unparsable", "nan", "infinite", "negative", "zero", "crossed", "suspicious", "closed_day")
"""Why a row is refused, by code; 0 is a good row."""
UNPARSABLE, NAN, INFINITE, NEGATIVE, ZERO, CROSSED, SUSPICIOUS, CLOSED_DAY = range(1, 9)

Where: TypeAlias = Callable[[int], str]
"""Names file and line of a row, asked only for rows with a fault."""


class Cells(NamedTuple):
    """A numeric column.

    Shape: value, blank, bad all (n,). `blank` was empty in the file, `bad` was text that is no number; both are NaN
    in `value`.
    """

    value: NDArray[np.float64]
    blank: NDArray[np.bool_]
    bad: NDArray[np.bool_]

    def take(self, rows: NDArray[Any]) -> Cells:
        """The given rows."""
        return Cells(self.value[rows], self.blank[rows], self.bad[rows])

    def scaled(self, scale: float) -> Cells:
        """Values divided by a price scale."""
        return self if scale == 1.0 else Cells(self.value / scale, self.blank, self.bad)


class Words(NamedTuple):
    """A text column by code; -1 is blank. Shape: code (n,)."""

    code: NDArray[np.int32]
    vocabulary: tuple[str, ...]


class Sheet:
    """The columns of one CSV text. Rows with another number of fields are left out and listed in `ragged`."""

    def __init__(
        self,
        *,
        cells: dict[str, Cells],
        words: dict[str, Words],
        rows: int,
        ragged: list[int],
        data: bytes,
        skipped: int,
    ) -> None:
        self.cells = cells
        self.words = words
        self.rows = rows
        self.ragged = ragged
        self._data = data
        self._skipped = skipped

    def line(self, row: int) -> int:
        """The line number in the file, from 1, of a row. Walks the text: for messages only."""
        ragged = set(self.ragged)
        seen = -1
        record = 0
        for number, text in enumerate(self._data.split(b"\n"), start=1):
            if number <= self._skipped or not text.strip(b"\r"):
                continue
            record += 1
            if record in ragged:
                continue
            seen += 1
            if seen == row:
                return number
        return 0


def blank_cells(n: int) -> Cells:
    """A column nobody recorded: all blank."""
    return Cells(np.full(n, np.nan), np.ones(n, np.bool_), np.zeros(n, np.bool_))


def read_sheet(
    data: bytes, *, columns: Sequence[str], numbers: Sequence[str], texts: Sequence[str] = (), where: str, skip: int = 0
) -> Sheet:
    """The named columns of CSV text; cells that are no number are marked, rows of another width listed, nothing raised
    but for text that is no CSV at all (DataError). `columns` names all fields of a row in order; `skip`
    header lines."""
    if not data.strip():
        return Sheet(
            cells={name: blank_cells(0) for name in numbers},
            words={name: Words(np.empty(0, np.int32), ()) for name in texts},
            rows=0,
            ragged=[],
            data=data,
            skipped=skip,
        )
    kinds: dict[str, Any] = {name: pa.dictionary(pa.int32(), pa.string()) for name in texts}
    try:
        table, ragged = _parse(
            data, columns=columns, kinds={**dict.fromkeys(numbers, pa.float64()), **kinds}, skip=skip
        )
        cells = {name: _cells_of_floats(table[name]) for name in numbers}
    except pa.ArrowInvalid:
        table, ragged = _parse_as_text(data, columns=columns, numbers=numbers, kinds=kinds, skip=skip, where=where)
        cells = {name: _cells_of_text(table[name].to_pylist()) for name in numbers}
    words = {name: _words(table[name]) for name in texts}
    return Sheet(cells=cells, words=words, rows=table.num_rows, ragged=ragged, data=data, skipped=skip)


def _parse(data: bytes, *, columns: Sequence[str], kinds: dict[str, Any], skip: int) -> tuple[Any, list[int]]:
    ragged: list[int] = []

    def leave_out(row: Any) -> str:
        ragged.append(int(row.number) - skip)
        return "skip"

    table = pacsv.read_csv(
        pa.BufferReader(data),
        read_options=pacsv.ReadOptions(
            column_names=list(columns), use_threads=False, skip_rows=skip, block_size=max(len(data) + 1, 1 << 20)
        ),
        parse_options=pacsv.ParseOptions(invalid_row_handler=leave_out),
        convert_options=pacsv.ConvertOptions(
            include_columns=list(kinds), column_types=kinds, null_values=[""], strings_can_be_null=True
        ),
    )
    return table, ragged


def _parse_as_text(
    data: bytes, *, columns: Sequence[str], numbers: Sequence[str], kinds: dict[str, Any], skip: int, where: str
) -> tuple[Any, list[int]]:
    try:
        return _parse(data, columns=columns, kinds={**dict.fromkeys(numbers, pa.string()), **kinds}, skip=skip)
    except pa.ArrowInvalid as fault:
        raise DataError(f"{where}: expected CSV text of {len(columns)} columns, found {fault}") from fault


def _cells_of_floats(column: Any) -> Cells:
    flat = column.combine_chunks()
    blank = np.asarray(pc.is_null(flat).to_numpy(zero_copy_only=False), np.bool_)
    value = np.array(flat.to_numpy(zero_copy_only=False), np.float64)
    return Cells(value, blank, np.zeros(len(value), np.bool_))


def _cells_of_text(texts: Sequence[str | None]) -> Cells:
    n = len(texts)
    value = np.full(n, np.nan)
    blank = np.zeros(n, np.bool_)
    bad = np.zeros(n, np.bool_)
    for i, text in enumerate(texts):
        if text is None or not text.strip():
            blank[i] = True
            continue
        try:
            value[i] = float(text) if "_" not in text else math.nan
            bad[i] = "_" in text
        except ValueError:
            bad[i] = True
    return Cells(value, blank, bad)


def _words(column: Any) -> Words:
    flat = column.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):  # an empty table has no chunk to combine
        return Words(np.empty(0, np.int32), ())
    code = np.asarray(flat.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int32)
    return Words(code, tuple(str(word) for word in flat.dictionary.to_pylist()))


def first_fields(data: bytes) -> int:
    """The number of comma-separated fields on the first line with any."""
    for line in data[:65536].split(b"\n"):
        if line.strip(b"\r"):
            return line.count(b",") + 1
    return 0


# --------------------------------------------------------------------------- faults of rows


def find_quote_faults(bid: Cells, ask: Cells, sizes: Sequence[Cells] = ()) -> NDArray[np.int8]:
    """The refusal code of each row, 0 where it is good: a blank side is a withdrawal, locked is legal.

    Shape: all columns and the result (n,). Where a row has several faults the first of REASONS is named.
    """
    code = np.zeros(len(bid.value), np.int8)
    with np.errstate(invalid="ignore"):
        code[bid.value > ask.value] = CROSSED
        for price in (ask, bid):
            _mark(code, price, lowest=ZERO)
    for size in sizes:
        _mark(code, size, lowest=NEGATIVE)
    return code


def find_trade_faults(price: Cells, size: Cells) -> NDArray[np.int8]:
    """The refusal code of each print, 0 where it is good; a blank price is unparsable. Shape: all (n,)."""
    code = np.zeros(len(price.value), np.int8)
    code[price.blank] = UNPARSABLE
    _mark(code, price, lowest=ZERO)
    _mark(code, size, lowest=NEGATIVE)
    return code


def _mark(code: NDArray[np.int8], cells: Cells, *, lowest: int) -> None:
    value = cells.value
    found = np.zeros(len(value), np.int8)
    if lowest == ZERO:
        found[value == 0.0] = ZERO
    found[value < 0.0] = NEGATIVE
    found[np.isinf(value)] = INFINITE
    found[np.isnan(value) & ~cells.blank] = NAN
    found[cells.bad] = UNPARSABLE
    worse = (found > 0) & ((code == 0) | (found < code))
    code[worse] = found[worse]


def count_faults(code: NDArray[np.int8], tally: Tally, *, where: Where) -> NDArray[np.bool_]:
    """The mask of good rows; the others are counted by reason. Shape: (n,)."""
    good: NDArray[np.bool_] = code == 0
    if good.all():
        return good
    for reason in np.unique(code[~good]):
        rows = np.flatnonzero(code == reason)
        tally.refuse(REASONS[reason], len(rows), where=where(int(rows[0])))
    return good


# --------------------------------------------------------------------------- time


def order_rows(
    ts: NDArray[np.int64],
    instrument: NDArray[np.int32],
    tally: Tally,
    *,
    unsorted: Literal["error", "sort"],
    repeated: Literal["error", "last", "keep"],
    where: Where,
) -> NDArray[np.int64] | None:
    """The row numbers to keep in order of time, None for all as they stand; DataError on a fault not to be repaired.

    Shape: ts and instrument (n,). Sorting is stable. `repeated` looks at rows of one instrument with one time.
    """
    n = len(ts)
    if n < 2:
        return None
    order: NDArray[np.int64] | None = None
    late = ts < np.maximum.accumulate(ts)
    if late.any():
        row = int(np.flatnonzero(late)[0])
        if unsorted == "error":
            raise DataError(
                f"{where(row)}: expected times that never decrease, found {iso(int(ts[row]))} after "
                f'{iso(int(ts[:row].max()))}; set unsorted = "sort" to repair'
            )
        tally.repair("unsorted", int(late.sum()))
        order = np.argsort(ts, kind="stable").astype(np.int64)
    if repeated == "keep":
        return order
    again = _repeats(ts, instrument, order)
    if not again.any():
        return order
    row = int(np.flatnonzero(again)[0])
    if repeated == "error":
        raise DataError(
            f"{where(row)}: expected one row per instrument and time, found a second one of {iso(int(ts[row]))}; "
            f'set repeated = "last" to keep the last or "keep" to keep all'
        )
    tally.repair("repeated", int(again.sum()))
    kept = _last_of_repeats(ts, instrument)
    return kept if order is None else order[np.isin(order, kept)]


def _by_series(ts: NDArray[np.int64], instrument: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    order = np.lexsort((np.arange(len(ts)), ts, instrument))
    same = (np.diff(ts[order]) == 0) & (np.diff(instrument[order]) == 0)
    return order, same


def _repeats(
    ts: NDArray[np.int64], instrument: NDArray[np.int32], order: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    if order is None and not (np.diff(ts) == 0).any():
        return np.zeros(len(ts), np.bool_)
    by_series, same = _by_series(ts, instrument)
    again = np.zeros(len(ts), np.bool_)
    again[by_series[1:][same]] = True
    return again


def _last_of_repeats(ts: NDArray[np.int64], instrument: NDArray[np.int32]) -> NDArray[np.int64]:
    by_series, same = _by_series(ts, instrument)
    last = np.ones(len(ts), np.bool_)
    last[:-1][same] = False
    return np.sort(by_series[last]).astype(np.int64)


# --------------------------------------------------------------------------- batches


def take_quotes(batch: QuoteBatch, rows: NDArray[Any]) -> QuoteBatch:
    """The given rows of a batch. Shape: rows (k,) numbers, or a mask (n,)."""
    return QuoteBatch(**{name: getattr(batch, name)[rows] for name in QuoteBatch.__slots__})


def take_trades(batch: TradeBatch, rows: NDArray[Any]) -> TradeBatch:
    """The given rows of a batch. Shape: rows (k,) numbers, or a mask (n,)."""
    return TradeBatch(**{name: getattr(batch, name)[rows] for name in TradeBatch.__slots__})


def no_quotes() -> QuoteBatch:
    """A batch of no rows."""
    return _typed_quotes(*(np.empty(0) for _ in range(7)))


def no_trades() -> TradeBatch:
    """A batch of no rows."""
    return _typed_trades(*(np.empty(0) for _ in range(5)))


def _typed_quotes(
    instrument: Any, ts_event: Any, ts_recv: Any, bid: Any, ask: Any, bid_size: Any, ask_size: Any
) -> QuoteBatch:
    return QuoteBatch(
        instrument=np.ascontiguousarray(instrument, np.int32),
        ts_event=np.ascontiguousarray(ts_event, np.int64),
        ts_recv=np.ascontiguousarray(ts_recv, np.int64),
        bid=np.ascontiguousarray(bid, np.float64),
        ask=np.ascontiguousarray(ask, np.float64),
        bid_size=np.ascontiguousarray(bid_size, np.float32),
        ask_size=np.ascontiguousarray(ask_size, np.float32),
    )


def _typed_trades(instrument: Any, ts_event: Any, ts_recv: Any, price: Any, size: Any) -> TradeBatch:
    return TradeBatch(
        instrument=np.ascontiguousarray(instrument, np.int32),
        ts_event=np.ascontiguousarray(ts_event, np.int64),
        ts_recv=np.ascontiguousarray(ts_recv, np.int64),
        price=np.ascontiguousarray(price, np.float64),
        size=np.ascontiguousarray(size, np.float32),
    )


def quotes_of(
    instrument: int | NDArray[np.int32],
    *,
    ts_event: NDArray[np.int64],
    ts_recv: NDArray[np.int64],
    bid: NDArray[np.float64],
    ask: NDArray[np.float64],
    bid_size: NDArray[np.float64] | None = None,
    ask_size: NDArray[np.float64] | None = None,
) -> QuoteBatch:
    """A batch with the column types of the domain; unknown sizes are NaN. Shape: every column (n,)."""
    n = len(ts_recv)
    unknown = np.full(n, np.nan)
    column = np.full(n, instrument, np.int32) if isinstance(instrument, int) else instrument
    return _typed_quotes(
        column,
        ts_event,
        ts_recv,
        bid,
        ask,
        unknown if bid_size is None else bid_size,
        unknown if ask_size is None else ask_size,
    )


def trades_of(
    instrument: int | NDArray[np.int32],
    *,
    ts_event: NDArray[np.int64],
    ts_recv: NDArray[np.int64],
    price: NDArray[np.float64],
    size: NDArray[np.float64] | None = None,
) -> TradeBatch:
    """A batch with the column types of the domain; unknown sizes are NaN. Shape: every column (n,)."""
    n = len(ts_recv)
    column = np.full(n, instrument, np.int32) if isinstance(instrument, int) else instrument
    return _typed_trades(column, ts_event, ts_recv, price, np.full(n, np.nan) if size is None else size)


def merge_quotes(batches: Sequence[QuoteBatch]) -> QuoteBatch:
    """One batch in order of (ts_recv, source, row)."""
    batches = [batch for batch in batches if len(batch)]
    if not batches:
        return no_quotes()
    joined = QuoteBatch(
        **{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in QuoteBatch.__slots__}
    )
    return take_quotes(joined, np.argsort(joined.ts_recv, kind="stable")) if len(batches) > 1 else joined


def merge_trades(batches: Sequence[TradeBatch]) -> TradeBatch:
    """One batch in order of (ts_recv, source, row)."""
    batches = [batch for batch in batches if len(batch)]
    if not batches:
        return no_trades()
    joined = TradeBatch(
        **{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in TradeBatch.__slots__}
    )
    return take_trades(joined, np.argsort(joined.ts_recv, kind="stable")) if len(batches) > 1 else joined


def interleave(quotes: QuoteBatch, trades: TradeBatch, *, rows: int) -> Iterator[QuoteBatch | TradeBatch]:
    """Batches of at most `rows` rows in order of `ts_recv`; at one instant quotes come before prints."""
    start = 0
    done = 0
    before = np.searchsorted(quotes.ts_recv, trades.ts_recv, side="right")
    for stop in np.unique(before).tolist():
        yield from _slices(quotes, start, stop, rows)
        until = int(np.searchsorted(before, stop, side="right"))
        yield from _slices(trades, done, until, rows)
        start, done = stop, until
    yield from _slices(quotes, start, len(quotes), rows)


def _slices(batch: QuoteBatch | TradeBatch, start: int, stop: int, rows: int) -> Iterator[QuoteBatch | TradeBatch]:
    for first in range(start, stop, rows):
        yield batch.rows(first, min(first + rows, stop))


def rows_before(ts: NDArray[np.int64], instant: Nanos) -> int:
    """How many of the ordered times are strictly earlier. Shape: ts (n,)."""
    return int(np.searchsorted(ts, instant, side="left"))
