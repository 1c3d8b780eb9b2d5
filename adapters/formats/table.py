"""A table is a CSV or Parquet file of quotes, prints or chain rows with documented columns; law: every time carries its
zone, a blank side is withdrawn, and a row that cannot be true is refused and counted.

Columns, found by name (the option `columns` maps ours to the file's):

- time: `ts`, or `ts_recv` with or without `ts_event`: integer nanoseconds since 1970 UTC, or ISO 8601 with its zone;
- what: `instrument` (an id), or for chains `underlying`, `expiration`, `strike`, `cp` and optionally `root`;
- quotes and chains: `bid`, `ask`, optionally `bid_size`, `ask_size`; chains optionally `underlying_price`;
- prints: `price`, optionally `size`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from adapters.formats.columns import (
    UNPARSABLE,
    Cells,
    Words,
    blank_cells,
    count_faults,
    find_quote_faults,
    find_trade_faults,
    order_rows,
    quotes_of,
    read_sheet,
    take_quotes,
    take_trades,
    trades_of,
)
from adapters.formats.files import find_files, read_bytes
from adapters.formats.jumps import JumpWatch
from adapters.formats.options import PriceSource, ReplayOptions
from adapters.formats.parity import Leg, parity_prints
from adapters.formats.source import Piece
from adapters.formats.tally import Tally, relative_name
from bot.core.errors import DataError
from bot.domain.instruments import Future, Instrument, OptionContract, Spot, occ_id, parse_occ
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import Nanos, parse_instant

TIMES: Final = ("ts", "ts_event", "ts_recv")
NUMBERS: Final = ("bid", "ask", "bid_size", "ask_size", "price", "size", "underlying_price")
TEXTS: Final = ("instrument", "underlying", "expiration", "strike", "cp", "root")
CHAIN: Final = ("underlying", "expiration", "strike", "cp")
FIRST_NANOS: Final = 10**17
"""Integers below this (March 1973) are taken for seconds, milliseconds or microseconds, and refused."""
_DATED = re.compile(r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}")

FINE, BAD, ZONELESS = 0, 1, 2


class Times(NamedTuple):
    """A time column. Shape: ns int64 (n,); state (n,) FINE, BAD (no time at all) or ZONELESS."""

    ns: NDArray[np.int64]
    state: NDArray[np.int8]
    text: Callable[[int], str]


class Frame(NamedTuple):
    """The known columns of one file."""

    where: str
    rows: int
    times: dict[str, Times]
    cells: dict[str, Cells]
    words: dict[str, Words]
    line: Callable[[int], str]
    ragged: int

    def cell(self, name: str) -> Cells:
        """A numeric column, all blank when the file has none."""
        found = self.cells.get(name)
        return blank_cells(self.rows) if found is None else found


class TableFiles:
    """CSV or Parquet files, merged into one order of (ts_recv, file, row)."""

    def __init__(self, options: ReplayOptions, wanted: Sequence[Instrument], tally: Tally) -> None:
        self._options = options
        self._wanted = {item.id: item for item in wanted if not options.only or item.id in options.only}
        self._tally = tally
        self._columns: Mapping[str, int] = {}
        self._quotes: list[QuoteBatch] = []
        self._trades: list[TradeBatch] = []
        self._legs: dict[str, list[QuoteBatch]] = {}

    def instruments(self) -> list[Instrument]:
        """None: tables hold no reference data."""
        return []

    def open(self, columns: Mapping[str, int]) -> None:
        """Read all files; DataError for a missing or damaged one, a time without its zone, or a wanted instrument
        without a row or a permitted price source."""
        self._columns = columns
        unknown = sorted(set(self._options.columns) - {*TIMES, *NUMBERS, *TEXTS})
        if unknown:
            raise DataError(
                f"columns: expected names among {', '.join((*TIMES, *TEXTS, *NUMBERS))}, found {unknown[0]!r}"
            )
        root, paths = find_files(self._options, default=f"*.{self._options.format}")
        for path in paths:
            self._tally.digest(path, root)
            frame = self._load(path, relative_name(path, root))
            self._judge(frame)
        self._derive()
        self._check_wanted(paths)

    def pieces(self) -> Iterator[Piece]:
        """One piece with everything."""
        watch = JumpWatch({self._columns[key]: key for key, item in self._wanted.items() if isinstance(item, Spot)})
        yield Piece(self._quotes, self._trades, watch.look(self._quotes, self._trades), None)

    def _load(self, path: Path, where: str) -> Frame:
        if self._options.format == "parquet":
            return read_parquet(path, where=where, mapping=self._options.columns)
        return read_csv(path, where=where, mapping=self._options.columns)

    # ---- rows to events

    def _judge(self, frame: Frame) -> None:
        if not frame.rows and not frame.ragged:
            raise DataError(f"{frame.where}: expected rows under the header, found none")
        self._tally.refuse("unparsable", frame.ragged, where=f"{frame.where}: a row with another number of fields")
        ts_recv, ts_event, bad_time = _times_of(frame)
        column, names = self._instruments_of(frame)
        if "price" in frame.cells:
            self._take_trades(frame, column, ts_recv, ts_event, bad_time)
            return
        self._take_quotes(frame, column, ts_recv, ts_event, bad_time)
        self._keep_legs(frame, names, ts_recv, bad_time)
        if "underlying_price" in frame.cells:
            self._take_underlying(frame, ts_recv, bad_time)

    def _instruments_of(self, frame: Frame) -> tuple[NDArray[np.int32], Words]:
        """Column number of each row, -1 for one not of this run, and the canonical ids. Shape: (n,)."""
        names = _canonical_words(frame)
        table = np.array(
            [*(self._columns.get(name, -1) if name in self._wanted else -1 for name in names.vocabulary), -1]
        )
        column = table.astype(np.int32)[names.code]
        others = {name for name in names.vocabulary if name not in self._wanted}
        if others:
            rows = int((column < 0).sum() - (names.code < 0).sum())
            self._tally.note(f"{frame.where}: {rows} rows of {len(others)} instruments not of this run are not played")
        return column, names

    def _take_quotes(
        self,
        frame: Frame,
        column: NDArray[np.int32],
        ts_recv: NDArray[np.int64],
        ts_event: NDArray[np.int64],
        bad_time: NDArray[np.bool_],
    ) -> None:
        bid, ask, bid_size, ask_size = (frame.cell(name) for name in ("bid", "ask", "bid_size", "ask_size"))
        code = find_quote_faults(bid, ask, (bid_size, ask_size))
        played = self._played_by(column, "quotes")
        keep = self._sift(frame, code, played, bad_time)
        batch = quotes_of(
            column[keep],
            ts_event=ts_event[keep],
            ts_recv=ts_recv[keep],
            bid=bid.value[keep],
            ask=ask.value[keep],
            bid_size=bid_size.value[keep],
            ask_size=ask_size.value[keep],
        )
        order = self._order(frame, batch.ts_recv, batch.instrument, keep)
        self._quotes.append(batch if order is None else take_quotes(batch, order))

    def _take_trades(
        self,
        frame: Frame,
        column: NDArray[np.int32],
        ts_recv: NDArray[np.int64],
        ts_event: NDArray[np.int64],
        bad_time: NDArray[np.bool_],
    ) -> None:
        price, size = frame.cell("price"), frame.cell("size")
        played = self._played_by(column, "trades")
        keep = self._sift(frame, find_trade_faults(price, size), played, bad_time)
        batch = trades_of(
            column[keep],
            ts_event=ts_event[keep],
            ts_recv=ts_recv[keep],
            price=price.value[keep],
            size=size.value[keep],
        )
        order = self._order(frame, batch.ts_recv, batch.instrument, keep)
        self._trades.append(batch if order is None else take_trades(batch, order))

    def _take_underlying(self, frame: Frame, ts_recv: NDArray[np.int64], bad_time: NDArray[np.bool_]) -> None:
        """The first `underlying_price` of each snapshot and underlying, as a print."""
        words = frame.words["underlying"]
        for item in self._wanted.values():
            if self._source(item) != "trades":
                continue
            codes = [i for i, word in enumerate(words.vocabulary) if word.upper() in (item.id, item.symbol)]
            rows = np.flatnonzero(np.isin(words.code, codes) & ~bad_time)
            rows = rows[np.unique(ts_recv[rows], return_index=True)[1]]
            price = frame.cells["underlying_price"].take(rows)
            good = count_faults(
                find_trade_faults(price, blank_cells(len(rows))),
                self._tally,
                where=lambda row, rows=rows: f"{frame.line(int(rows[row]))}: underlying_price",  # type: ignore[misc]  # the default binds this loop's rows
            )
            ts = ts_recv[rows][good]
            self._trades.append(trades_of(self._columns[item.id], ts_event=ts, ts_recv=ts, price=price.value[good]))

    def _sift(
        self, frame: Frame, code: NDArray[np.int8], played: NDArray[np.bool_], bad_time: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        code[bad_time] = UNPARSABLE
        code[~played & ~bad_time] = 0
        good = count_faults(code, self._tally, where=frame.line)
        return np.flatnonzero(good & played)

    def _order(
        self, frame: Frame, ts: NDArray[np.int64], instrument: NDArray[np.int32], keep: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        return order_rows(
            ts,
            instrument,
            self._tally,
            unsorted=self._options.unsorted,
            repeated=self._options.repeated,
            where=lambda row: f"{frame.line(int(keep[row]))}: ts",
        )

    # ---- sources of prices

    def _source(self, item: Instrument) -> PriceSource | None:
        """Where an underlying's price comes from; None for an instrument played by whatever the files hold."""
        if isinstance(item, OptionContract):
            return None
        given = self._options.sources.get(item.id)
        if given is not None:
            return given
        is_underlying = any(isinstance(i, OptionContract) and i.underlying == item.id for i in self._wanted.values())
        return self._options.underlying if is_underlying else None

    def _played_by(self, column: NDArray[np.int32], content: str) -> NDArray[np.bool_]:
        permitted = [
            self._columns[key]
            for key, item in self._wanted.items()
            if key in self._columns and self._source(item) in (None, content)
        ]
        return np.isin(column, np.array(permitted, np.int32))

    def _keep_legs(self, frame: Frame, names: Words, ts_recv: NDArray[np.int64], bad_time: NDArray[np.bool_]) -> None:
        if not any(self._source(item) == "parity_forward" for item in self._wanted.values()):
            return
        bid, ask = frame.cell("bid"), frame.cell("ask")
        sound = (find_quote_faults(bid, ask) == 0) & ~bad_time
        series = {key[:12] for key, item in self._wanted.items() if isinstance(item, OptionContract)}
        for code, name in enumerate(names.vocabulary):
            if name[:12] not in series or len(name) != 21:
                continue
            rows = np.flatnonzero((names.code == code) & sound)
            rows = rows[np.argsort(ts_recv[rows], kind="stable")]
            self._legs.setdefault(name, []).append(
                quotes_of(0, ts_event=ts_recv[rows], ts_recv=ts_recv[rows], bid=bid.value[rows], ask=ask.value[rows])
            )

    def _derive(self) -> None:
        """Prints of every parity_forward underlying: at each time from the nearest wanted expiry still ahead."""
        for item in self._wanted.values():
            if self._source(item) != "parity_forward":
                continue
            options = [o for o in self._wanted.values() if isinstance(o, OptionContract) and o.underlying == item.id]
            start: Nanos = -1
            for option in sorted(options, key=lambda o: (o.expiry, o.id)):
                legs = [_leg(name, batches) for name, batches in self._legs.items() if name[:12] == option.id[:12]]
                if option.expiry <= start or not legs:
                    continue
                ts, price = parity_prints(
                    legs, expiry=option.expiry, rate=self._options.rate, discounted=not isinstance(item, Future)
                )
                later = ts > start
                self._trades.append(
                    trades_of(self._columns[item.id], ts_event=ts[later], ts_recv=ts[later], price=price[later])
                )
                self._tally.note(
                    f"{item.id}: price derived from put-call parity of {len(legs)} contracts {option.id[:12].strip()}, "
                    f"rate {self._options.rate:g}"
                    + ("" if option.style == "european" else "; of American quotes parity is an approximation")
                )
                start = option.expiry

    def _check_wanted(self, paths: Sequence[Path]) -> None:
        quoted = {int(i) for batch in self._quotes for i in np.unique(batch.instrument)}
        printed = {int(i) for batch in self._trades for i in np.unique(batch.instrument)}
        names = ", ".join(str(path) for path in paths[:5]) + (" ..." if len(paths) > 5 else "")
        for key, item in self._wanted.items():
            column = self._columns[key]
            source = self._source(item)
            if source == "quotes" and column not in quoted:
                raise DataError(
                    f'{names}: expected quotes of the underlying {key}, found no good row; underlying = "trades" or '
                    f'"parity_forward" would permit another source'
                )
            if source in ("trades", "parity_forward") and column not in printed:
                raise DataError(f"{names}: expected a price of the underlying {key} from {source}, found none")
            if column not in quoted | printed:
                raise DataError(f"{names}: expected rows of {key}, found no good one")


def _leg(name: str, batches: Sequence[QuoteBatch]) -> Leg:
    parts = parse_occ(name)
    ts = np.concatenate([batch.ts_recv for batch in batches])
    order = np.argsort(ts, kind="stable")
    return Leg(
        parts.cp,
        float(parts.strike),
        ts[order],
        np.concatenate([batch.bid for batch in batches])[order],
        np.concatenate([batch.ask for batch in batches])[order],
    )


# --------------------------------------------------------------------------- files to frames


def read_csv(path: Path, *, where: str, mapping: Mapping[str, str]) -> Frame:
    """The known columns of a CSV file (or .csv.gz) with a header line."""
    data = read_bytes(path)
    first, _, _ = data.partition(b"\n")
    header = [name.strip().strip('"') for name in first.decode("utf-8-sig", "replace").strip().split(",")]
    ours = _known_columns(header, mapping, path)
    names = [ours.get(name, f"#{i}") for i, name in enumerate(header)]
    times = [name for name in TIMES if name in names]
    texts = [name for name in TEXTS if name in names]
    sheet = read_sheet(
        data, columns=names, numbers=[n for n in NUMBERS if n in names], texts=[*times, *texts], where=where, skip=1
    )
    return Frame(
        where=where,
        rows=sheet.rows,
        times={name: _times_of_words(sheet.words[name], where=where, column=_theirs(name, mapping)) for name in times},
        cells=sheet.cells,
        words={name: sheet.words[name] for name in texts},
        line=lambda row: f"{where}:{sheet.line(row)}",
        ragged=len(sheet.ragged),
    )


def read_parquet(path: Path, *, where: str, mapping: Mapping[str, str]) -> Frame:
    """The known columns of a Parquet file: null is a withdrawn side, NaN a fault; times are int64 ns, text or zoned."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"{path}: expected a whole Parquet file, found {fault}") from fault
    ours = _known_columns(table.column_names, mapping, path)
    column = {ours[name]: table[name] for name in table.column_names if name in ours}
    return Frame(
        where=where,
        rows=table.num_rows,
        times={
            name: _times_of_parquet(column[name], where=where, column=_theirs(name, mapping))
            for name in TIMES
            if name in column
        },
        cells={
            name: _cells_of_parquet(column[name], where=where, column=_theirs(name, mapping))
            for name in NUMBERS
            if name in column
        },
        words={name: _words_of_parquet(column[name]) for name in TEXTS if name in column},
        line=lambda row: f"{where}: row {row}",
        ragged=0,
    )


def _theirs(name: str, mapping: Mapping[str, str]) -> str:
    return mapping.get(name, name)


def _known_columns(header: Sequence[str], mapping: Mapping[str, str], path: Path) -> dict[str, str]:
    """The file's column name -> ours; DataError when what a row needs is not there."""
    for mine, theirs in mapping.items():
        if theirs not in header:
            raise DataError(f"{path}:1: columns.{mine}: expected a column {theirs!r}, found {', '.join(header)}")
    known = {theirs: mine for mine, theirs in mapping.items()}
    known |= {n: n for n in header if n in (*TIMES, *NUMBERS, *TEXTS) and n not in mapping and n not in known}
    found = set(known.values())
    if not found & {"ts", "ts_recv", "ts_event"}:
        raise DataError(f"{path}:1: expected a time column ts, ts_recv or ts_event, found {', '.join(header)}")
    if "instrument" not in found and not set(CHAIN) <= found:
        raise DataError(f"{path}:1: expected a column instrument, or {', '.join(CHAIN)}, found {', '.join(header)}")
    is_quotes, is_trades = {"bid", "ask"} <= found, "price" in found
    if is_quotes == is_trades:
        raise DataError(f"{path}:1: expected either bid and ask, or price, found {', '.join(header)}")
    if "underlying_price" in found and "underlying" not in found:
        raise DataError(
            f"{path}:1: underlying_price: expected a column underlying beside it, found {', '.join(header)}"
        )
    return known


def _cells_of_parquet(data: Any, *, where: str, column: str) -> Cells:
    flat = data.combine_chunks()
    try:
        value = np.array(pc.cast(flat, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    except pa.ArrowException as fault:
        raise DataError(f"{where}: {column}: expected numbers, found {data.type}") from fault
    blank = np.asarray(pc.is_null(flat).to_numpy(zero_copy_only=False), np.bool_)
    return Cells(value, blank, np.zeros(len(value), np.bool_))


def _words_of_parquet(column: Any) -> Words:
    text = pc.cast(column, pa.string()).combine_chunks()
    coded = pc.dictionary_encode(text)
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    code = np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int32)
    return Words(code, tuple(str(word) for word in coded.dictionary.to_pylist()))


def _times_of_parquet(data: Any, *, where: str, column: str) -> Times:
    kind = data.type
    if pa.types.is_timestamp(kind):
        if kind.tz is None:
            raise DataError(f"{where}: {column}: expected timestamps with a zone, found {kind}")
        data = pc.cast(data, pa.timestamp("ns", kind.tz)).cast(pa.int64())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return _times_of_words(_words_of_parquet(data), where=where, column=column)
    elif not pa.types.is_integer(kind):
        raise DataError(
            f"{where}: {column}: expected int64 nanoseconds, timestamps with a zone or ISO text, found {kind}"
        )
    flat = data.combine_chunks()
    state = np.asarray(pc.is_null(flat).to_numpy(zero_copy_only=False), np.int8)
    ns = np.asarray(pc.cast(flat, pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), np.int64)
    return _with_sane_integers(ns, state, where=where, column=column)


# --------------------------------------------------------------------------- times


def _times_of(frame: Frame) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Receive and event times, and the rows without one; DataError at a time without its zone. Shape: all (n,)."""
    for name, times in frame.times.items():
        zoneless = np.flatnonzero(times.state == ZONELESS)
        if len(zoneless):
            row = int(zoneless[0])
            raise DataError(
                f"{frame.line(row)}: {name}: expected a time with its zone, such as 2020-01-06T21:00:00Z, found "
                f"{times.text(row)!r}"
            )
    recv = frame.times.get("ts_recv") or frame.times.get("ts") or frame.times["ts_event"]
    event = frame.times.get("ts_event") or recv
    return recv.ns, event.ns, (recv.state != FINE) | (event.state != FINE)


def _times_of_words(words: Words, *, where: str, column: str) -> Times:
    ns, state = parse_times(words.vocabulary)
    ns, state = np.append(ns, 0), np.append(state, np.int8(BAD))  # the last entry is what code -1, blank, picks
    times = _with_sane_integers(ns[words.code], state[words.code], where=where, column=column)
    return times._replace(text=lambda row: words.vocabulary[words.code[row]] if words.code[row] >= 0 else "")


def _with_sane_integers(ns: NDArray[np.int64], state: NDArray[np.int8], *, where: str, column: str) -> Times:
    fine = state == FINE
    early = fine & (ns < FIRST_NANOS)
    if early.sum() * 2 > fine.sum():
        raise DataError(
            f"{where}: {column}: expected nanoseconds since 1970-01-01 UTC, found {int(ns[early][0])}: seconds, "
            f"milliseconds or microseconds?"
        )
    state = np.where(early, np.int8(BAD), state).astype(np.int8)
    return Times(ns, state, lambda row: str(int(ns[row])))


def parse_times(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Nanoseconds and state of each text: integer nanoseconds, or ISO 8601 with its zone. Shape: (n,), (n,).

    >>> parse_times(("1970-01-01T00:00:01Z", "2020-01-06T10:00:00", "noon"))[1].tolist()
    [0, 2, 1]
    """
    fast = _parse_all_utc(texts)
    if fast is not None:
        return fast, np.zeros(len(texts), np.int8)
    ns = np.zeros(len(texts), np.int64)
    state = np.zeros(len(texts), np.int8)
    for i, text in enumerate(texts):
        ns[i], state[i] = _parse_time(text.strip())
    return ns, state


def _parse_time(text: str) -> tuple[int, int]:
    if text.isascii() and text.isdigit():
        return (int(text), FINE) if len(text) <= 18 or int(text) < 2**63 else (0, BAD)
    try:
        return parse_instant(text), FINE
    except (ValueError, OverflowError):
        return 0, ZONELESS if _DATED.match(text) else BAD


def _parse_all_utc(texts: Sequence[str]) -> NDArray[np.int64] | None:
    """All at once when every text is a full ISO time that ends in Z, else None: the many-rows case."""
    if len(texts) < 64 or not all(text.endswith("Z") and len(text) >= 17 and text[10] in "T " for text in texts):
        return None
    try:
        return np.array([text[:-1] for text in texts], "datetime64[ns]").astype(np.int64)
    except (ValueError, OverflowError):
        return None


# --------------------------------------------------------------------------- names


def _canonical_words(frame: Frame) -> Words:
    found = frame.words.get("instrument")
    if found is not None:
        return Words(found.code, tuple(canonical_id(text) for text in found.vocabulary))
    return _chain_words(frame)


def canonical_id(text: str) -> str:
    """The canonical id of a text: OCC symbols padded to 21 characters, all else in upper case.

    >>> canonical_id("spxw190503c00800000")
    'SPXW  190503C00800000'
    """
    upper = text.strip().upper()
    try:
        parts = parse_occ(upper)
    except ValueError:
        return upper
    return occ_id(parts.root, parts.expiration, parts.cp, parts.strike)


def _chain_words(frame: Frame) -> Words:
    parts = [frame.words.get("root") or frame.words["underlying"], *(frame.words[name] for name in CHAIN[1:])]
    stacked = np.stack([word.code for word in parts])
    combos, inverse = np.unique(stacked, axis=1, return_inverse=True)
    names = [
        _chain_id([w.vocabulary[c] if c >= 0 else "" for w, c in zip(parts, combo, strict=True)]) for combo in combos.T
    ]
    code = np.array([i if name else -1 for i, name in enumerate(names)], np.int32)
    return Words(code[inverse.reshape(-1)] if len(code) else np.empty(0, np.int32), tuple(names))


def _chain_id(fields: Sequence[str]) -> str:
    root, expiration, strike, cp = (field.strip() for field in fields)
    digits = expiration.replace("-", "")
    side = {"c": 1, "call": 1, "p": -1, "put": -1}.get(cp.lower())
    try:
        day = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
        return occ_id(root.split(":")[-1], day, side, Decimal(strike)) if side else ""
    except (ValueError, InvalidOperation):
        return ""
