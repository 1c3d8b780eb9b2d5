"""A column recording is quotes as they stand in memory: a Parquet file, or a folder of memory-mapped .npy files; law: what
is read is what was written, checked row by row, and a recording larger than memory streams through.

Parquet: columns `instrument` (int32, an index into the list of ids under the schema's metadata key `evenkeel.instruments`),
`ts_recv` and optionally `ts_event` (int64 nanoseconds), `bid`, `ask` (float64, NaN for a withdrawn side), optionally
`bid_size`, `ask_size` (float32, NaN where nobody said), in order of `ts_recv`. A folder holds the same as `<column>.npy` and
the ids in `instruments.json`. A row takes 44 bytes in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.core.events import FeedEvent
from bot.core.ports import FeedReport
from bot.domain.instruments import Instrument, Universe
from bot.domain.market import QuoteBatch
from bot.domain.units import Nanos

IDS: Final = b"evenkeel.instruments"
KINDS: Final[Mapping[str, Any]] = {
    "instrument": np.int32,
    "ts_event": np.int64,
    "ts_recv": np.int64,
    "bid": np.float64,
    "ask": np.float64,
    "bid_size": np.float32,
    "ask_size": np.float32,
}
OPTIONAL: Final = frozenset({"ts_event", "bid_size", "ask_size"})
FAULTS: Final = (
    "",
    "expected times that never decrease, and no event after its receipt",
    "expected bid <= ask",
    "expected a positive finite price, or NaN for a withdrawn side",
    "expected a size from 0, or NaN where nobody said",
    "expected an index into the list of instruments",
)
FIRST: Final = -(2**63)

Check = Callable[..., tuple[int, int]]


class ColumnOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path` is a Parquet file, or a folder of .npy files; `batch_rows` come at a time."""

    name: str = "columns"
    path: str
    batch_rows: int = 1 << 16

    def __post_init__(self) -> None:
        if self.batch_rows < 1:
            raise ValueError(f"batch_rows: expected at least 1, found {self.batch_rows}")


class ColumnFeed:
    """The quotes of one column recording. `bind` it to a universe, then enter and iterate."""

    Options = ColumnOptions
    recorded = True

    def __init__(self, options: ColumnOptions, *, wanted: Sequence[Instrument] = ()) -> None:
        self.name = options.name
        self._path = Path(options.path)
        self._rows = options.batch_rows
        self._wanted = tuple(item.id for item in wanted)
        self._universe: Universe | None = None
        self._files: dict[str, str] = {}
        self._ids: list[str] = []
        self._pieces: Callable[[], Iterator[dict[str, NDArray[Any]]]] | None = None
        self._quotes = 0
        self._notes: list[str] = []

    def bind(self, universe: Universe) -> None:
        """Take the column numbers the batches will carry."""
        self._universe = universe

    async def __aenter__(self) -> Self:
        if self._universe is None:
            raise DataError(f"feed {self.name}: expected `bind(universe)` before it is entered")
        self._open()
        missing = [key for key in self._wanted if key not in self._ids]
        if missing:
            raise DataError(f"{self._path}: expected quotes of {missing[0]}, found {', '.join(self._ids[:5])}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pieces = None

    async def events(self) -> AsyncIterator[FeedEvent]:
        """Batches in order of `ts_recv`."""
        for batch in self.batches():
            yield batch

    def batches(self) -> Iterator[QuoteBatch]:
        """The same, without awaiting. DataError names the file and the first bad row."""
        if self._pieces is None or self._universe is None:
            raise DataError(f"feed {self.name}: expected to be entered (`async with`) before its events are asked for")
        columns = np.array([self._universe.ids.get(key, -1) for key in self._ids], dtype=np.int32)
        as_they_are = np.array_equal(columns, np.arange(len(columns)))
        others = [key for key, column in zip(self._ids, columns.tolist(), strict=True) if column < 0]
        if others:
            self._notes.append(f"{self._path.name}: {len(others)} instruments not of this run are not played")
        check, before, row = first_fault(), FIRST, 0
        for piece in self._pieces():
            batch = _checked(piece, len(self._ids), check, before, where=f"{self._path}: row {{}}", first=row)
            row += len(batch)
            before = int(batch.ts_recv[-1])
            if not as_they_are:
                batch = _renumbered(batch, columns, drop=bool(others))
            if len(batch):
                self._quotes += len(batch)
                yield batch

    def report(self) -> FeedReport:
        """Rows played and the digests of the files."""
        return FeedReport(
            quotes=self._quotes, trades=0, refused={}, repaired={}, notes=list(self._notes), files=dict(self._files)
        )

    def _open(self) -> None:
        if self._path.is_dir():
            self._ids, held = _map_folder(self._path)
            names = ["instruments.json", *(f"{name}.npy" for name in held)]
            self._files = {name: _digest(self._path / name) for name in names}
            self._pieces = lambda: _cut(held, self._rows)
            return
        self._ids = _ids_of(self._path)
        self._files = {self._path.name: _digest(self._path)}
        self._pieces = lambda: _stream(self._path, self._rows)


def first_fault() -> Check:
    """The compiled check of a batch's rows: see `column_kernels.first_fault`."""
    from adapters.column_kernels import first_fault as compiled  # noqa: PLC0415  the compiler loads when first needed

    check: Check = compiled
    return check


def first_fault_by_rows(
    instrument: NDArray[np.int32],
    count: int,
    ts_event: NDArray[np.int64],
    ts_recv: NDArray[np.int64],
    before: Nanos,
    bid: NDArray[np.float64],
    ask: NDArray[np.float64],
    bid_size: NDArray[np.float32],
    ask_size: NDArray[np.float32],
) -> tuple[int, int]:
    """The same, one row at a time in Python: the readable twin."""
    last = before
    for i in range(len(ts_recv)):
        if ts_recv[i] < last or ts_event[i] > ts_recv[i]:
            return i, 1
        last = int(ts_recv[i])
        if not 0 <= instrument[i] < count:
            return i, 5
        if any(not (math.isnan(x) or 0.0 < x < math.inf) for x in (bid[i], ask[i])):
            return i, 3
        if bid[i] > ask[i]:
            return i, 2
        if any(x < 0.0 or math.isinf(x) for x in (bid_size[i], ask_size[i])):
            return i, 4
    return -1, 0


def write_parquet(path: Path, batches: Sequence[QuoteBatch], universe: Universe, *, group_rows: int = 1 << 20) -> int:
    """Writes batches in order to one Parquet file (zstd); returns how many rows. FileExistsError when it is there."""
    ids = [item.id for item in universe]
    return write_parquet_of(path, batches, ids, group_rows=group_rows)


def write_parquet_of(path: Path, batches: Any, ids: Sequence[str], *, group_rows: int = 1 << 20) -> int:
    """The same of any iterable of batches, whose instruments are indices into `ids`."""
    kinds = {name: pa.from_numpy_dtype(kind) for name, kind in KINDS.items()}
    schema = pa.schema(list(kinds.items()), metadata={IDS: json.dumps(list(ids)).encode()})
    rows = 0
    with (
        path.open("xb") as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=["instrument", "bid", "ask", "bid_size", "ask_size"],
            column_encoding={"ts_event": "DELTA_BINARY_PACKED", "ts_recv": "DELTA_BINARY_PACKED"},
            write_statistics=False,
        ) as writer,
    ):
        for batch in batches:
            table = pa.table({name: getattr(batch, name) for name in kinds}, schema=schema)
            writer.write_table(table, row_group_size=group_rows)
            rows += len(batch)
    return rows


def write_folder(path: Path, batch: QuoteBatch, universe: Universe) -> None:
    """Writes a batch as a folder of .npy files, to be memory-mapped. FileExistsError when the folder is there."""
    path.mkdir(parents=True)
    (path / "instruments.json").write_text(json.dumps([item.id for item in universe]), encoding="utf-8")
    for name, kind in KINDS.items():
        np.save(path / f"{name}.npy", np.ascontiguousarray(getattr(batch, name), dtype=kind))


# ------------------------------------------------------------------------------------------------ parts


def _checked(
    piece: Mapping[str, NDArray[Any]], count: int, check: Check, before: Nanos, *, where: str, first: int
) -> QuoteBatch:
    batch = QuoteBatch(**piece)
    row, fault = check(
        batch.instrument, count, batch.ts_event, batch.ts_recv, before, batch.bid, batch.ask, batch.bid_size, batch.ask_size
    )  # fmt: skip
    if row < 0:
        return batch
    found = ", ".join(f"{name} {piece[name][row]}" for name in KINDS)
    raise DataError(f"{where.format(first + row)}: {FAULTS[fault]}, found {found}")


def _renumbered(batch: QuoteBatch, columns: NDArray[np.int32], *, drop: bool) -> QuoteBatch:
    """The batch under the run's column numbers, without the rows of instruments that are not of it."""
    moved = columns[batch.instrument]
    parts = {name: getattr(batch, name) for name in QuoteBatch.__slots__} | {"instrument": moved}
    if not drop:
        return QuoteBatch(**parts)
    keep = moved >= 0
    return QuoteBatch(**{name: values[keep] for name, values in parts.items()})


def _whole(piece: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The columns with those left out filled in."""
    piece.setdefault("ts_event", piece["ts_recv"])
    for name in ("bid_size", "ask_size"):
        if name not in piece:
            piece[name] = np.full(len(piece["ts_recv"]), np.nan, dtype=np.float32)
    return piece


def _ids_of(path: Path) -> list[str]:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"{path}: expected a Parquet file, found {fault}") from fault
    for name, kind in KINDS.items():
        if name not in schema.names:
            if name not in OPTIONAL:
                raise DataError(f"{path}: expected a column {name}, found {', '.join(schema.names)}")
        elif schema.field(name).type != pa.from_numpy_dtype(kind):
            raise DataError(f"{path}: {name}: expected {np.dtype(kind)}, found {schema.field(name).type}")
    return _ids_from((schema.metadata or {}).get(IDS, b""), path)


def _ids_from(text: bytes, path: Path) -> list[str]:
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError as fault:
        raise DataError(f"{path}: {IDS.decode()}: expected a JSON list of instrument ids, found {fault}") from fault


def _stream(path: Path, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
    """The file's rows, some at a time; one thread, and no more of the file in memory than a row group."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        names = [name for name in KINDS if name in file.schema_arrow.names]
        try:
            for piece in file.iter_batches(batch_size=rows, columns=names, use_threads=False):
                if not piece.num_rows:
                    continue
                if any(column.null_count for column in piece.columns):
                    raise DataError(f"{path}: expected no nulls (NaN is a withdrawn side), found some")
                yield _whole({name: piece.column(name).to_numpy(zero_copy_only=True) for name in names})
        except (pa.ArrowException, OSError) as fault:
            raise DataError(f"{path}: expected a whole Parquet file, found {fault}") from fault


def _map_folder(path: Path) -> tuple[list[str], dict[str, NDArray[Any]]]:
    held: dict[str, NDArray[Any]] = {}
    for name, kind in KINDS.items():
        file = path / f"{name}.npy"
        if not file.exists() and name in OPTIONAL:
            continue
        try:
            held[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as fault:
            raise DataError(f"{file}: expected an .npy file, found {fault}") from fault
        if held[name].dtype != kind or held[name].ndim != 1:
            raise DataError(
                f"{file}: expected a column of {np.dtype(kind)}, found {held[name].dtype} {held[name].shape}"
            )
    lengths = {name: len(values) for name, values in held.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{path}: expected columns of one length, found {lengths}")
    try:
        text = (path / "instruments.json").read_bytes()
    except OSError as fault:
        raise DataError(f"{path}: expected instruments.json, found {fault}") from fault
    return _ids_from(text, path), held


def _cut(held: Mapping[str, NDArray[Any]], rows: int) -> Iterator[dict[str, NDArray[Any]]]:
    for start in range(0, len(held["ts_recv"]), rows):
        yield _whole({name: values[start : start + rows] for name, values in held.items()})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
