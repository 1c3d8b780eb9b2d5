"""A book file is the opening positions a person wrote down, CSV or JSON; law: all of it is understood or none taken.

Every faulty row is listed, with file, line and column, in one BookError. Rows are never merged: each is a Position, and
rows of one key add up in the Book. docs/book.md lists the columns and shows examples.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec

from bot.app.calendars import Calendars, named
from bot.app.contracts import (
    KINDS,
    OPTION_KINDS,
    Kind,
    option_contract,
    parse_deliverable,
    resolve_instrument,
)
from bot.core.errors import BookError, EvenkeelError
from bot.domain.book import Position, PositionKey
from bot.domain.instruments import (
    ConvertibleBond,
    Future,
    Instrument,
    OptionContract,
    Perpetual,
    Settlement,
    SettlementTime,
    Style,
    parse_occ,
)
from bot.domain.units import Nanos, iso, parse_instant

COLUMNS: Final = (
    "instrument",
    "underlying",
    "type",
    "cp",
    "strike",
    "expiry",
    "settlement",
    "session",
    "style",
    "multiplier",
    "currency",
    "quantity",
    "price",
    "as_of",
    "account",
    "book",
    "counterparty",
    "tag",
    "vol",
    "deliverable",
)
MAX_QUANTITY: Final = Decimal(10) ** 12
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_LISTED: Final = 200
"""Faults beyond this many are counted, not listed."""

T = TypeVar("T")

_NUMBER = re.compile(r"^([+-]?)(\d{1,40}|\d{1,3}(?:,\d{3})+)?(\.\d{0,40})?(?:[eE]([+-]?\d{1,4}))?$", re.ASCII)
_DAY = re.compile(r"^(\d{4})-?(\d{2})-?(\d{2})$", re.ASCII)
_MONTH = re.compile(r"^(\d{4})-?(\d{2})$", re.ASCII)
_DELIMITERS: Final = (",", ";", "\t", "|")


class LoadedBook(msgspec.Struct, frozen=True, kw_only=True):
    """A book file understood: positions with the line of each, instruments held, and what options are on or deliver.

    `prices` is the quantity-weighted price of the rows that gave one, `vols` the vol per instrument, `as_of` the
    instant the file speaks of (None when it says none), `notes` what a person should know (rows that add up).
    """

    path: str
    positions: tuple[Position, ...]
    lines: tuple[int, ...]
    instruments: tuple[Instrument, ...]
    underlyings: tuple[Instrument, ...]
    prices: dict[str, Decimal]
    vols: dict[str, float]
    as_of: Nanos | None = None
    notes: tuple[str, ...] = ()

    @property
    def universe(self) -> tuple[Instrument, ...]:
        """Instruments held and the underlyings of its options, each once, sorted by id."""
        known = {item.id: item for item in (*self.underlyings, *self.instruments)}
        return tuple(known[key] for key in sorted(known))


def load_book(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    as_of: Nanos | None = None,
    start: Nanos | None = None,
    account: str = "main",
    book: str = "main",
    strategy: str = "",
    calendars: Calendars = named,
    known: Mapping[str, Instrument] | None = None,
) -> LoadedBook:
    """The book a CSV or JSON file describes; BookError listing every fault by line and column.

    `known` are instruments described elsewhere (the config's convertibles), by the id that rows name them by.

    `columns` maps a file's own names to ours ({"Symbol": "instrument", "Qty": "quantity"}); a name mapped to "" is left
    out, and {"*": ""} leaves out every name not mapped and not ours. `as_of` overrides the file's. With `start`, what
    has expired by then is a fault too. `account`, `book` and `strategy` are the keys of rows that name none.
    """
    text = _read_text(path)
    faults = _Faults(path.name)
    rows = list(_json_rows(text, faults) if _is_json(path, text) else _csv_rows(text, dict(columns or {}), faults))
    if _is_json(path, text):
        rows = _renamed(rows, dict(columns or {}), faults)
    if not rows and not faults:
        faults.add(None, None, "expected at least one position, found none")
    reader = _Reader(faults, account=account, book=book, strategy=strategy, calendars=calendars, as_of=as_of)
    reader.known = dict(known or {})
    for row in rows:
        reader.read(row)
    loaded = reader.book(str(path))
    if start is not None:
        for line, expired in _expired(loaded, start):
            faults.add(line, None, expired)
    faults.raise_any()
    return loaded


def check_book(book: LoadedBook, start: Nanos) -> list[str]:
    """What keeps this book from a session that begins at `start`: a sentence per expired contract, [] when nothing."""
    name = Path(book.path).name
    return [f"{name}: line {line}: {expired}" for line, expired in _expired(book, start)]


def _expired(book: LoadedBook, start: Nanos) -> Iterator[tuple[int, str]]:
    ends = {item.id: item.expiry for item in book.instruments if isinstance(item, OptionContract | Future)}
    ends |= {item.id: item.matures for item in book.instruments if isinstance(item, ConvertibleBond)}
    for position, line in zip(book.positions, book.lines, strict=True):
        held = position.key.instrument
        if held in ends and ends[held] <= start:
            yield line, f"{held} expired at {iso(ends[held])}, expected after the session's start {iso(start)}"


# --------------------------------------------------------------------------- faults


class _Faults:
    """The faults of one file, in the order found."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: int | None, column: str | None, text: str) -> None:
        where = f"line {line}: " if line is not None else ""
        where += f"{column}: " if column else ""
        self._found.append((line or 0, f"{self._name}: {where}{text}"))

    def raise_any(self) -> None:
        if not self._found:
            return
        ordered = [text for _, text in sorted(self._found, key=lambda item: item[0])]
        more = len(ordered) - MAX_LISTED
        listed = ordered[:MAX_LISTED] + ([f"... and {more} more"] if more > 0 else [])
        raise BookError("\n".join(listed))


class _Stop(Exception):
    """A row is given up; its fault is noted."""


# --------------------------------------------------------------------------- reading the file


class _RawRow(NamedTuple):
    line: int
    cells: dict[str, str]


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BookError(f"{path}: expected a book file, found none") from None
    except OSError as fault:
        raise BookError(f"{path}: cannot be read: {fault.strerror}") from fault
    if len(raw) > MAX_BYTES:
        raise BookError(f"{path}: expected at most {MAX_BYTES} bytes, found more")
    if raw[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise BookError(f"{path}: expected UTF-8 text, found UTF-16; save it as CSV UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = raw[: fault.start].count(b"\n") + 1
        raise BookError(
            f"{path.name}: line {line}: expected UTF-8 text, found byte 0x{raw[fault.start]:02x}"
        ) from fault
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise BookError(f"{path.name}: line {line}: expected text, found a NUL byte")
    if not text.strip():
        raise BookError(f"{path.name}: expected a header and positions, found an empty file")
    return text


def _is_json(path: Path, text: str) -> bool:
    return path.suffix.lower() == ".json" or (path.suffix.lower() != ".csv" and text.lstrip()[:1] in {"[", "{"})


def _csv_rows(text: str, mapping: dict[str, str], faults: _Faults) -> Iterator[_RawRow]:
    delimiter = _sniff(text, mapping)
    names: list[str] | None = None
    for line, cells in _csv_lines(text, delimiter, faults):
        if names is None:
            names = _header([cell.strip() for cell in cells], mapping, faults, line)
            if names is None:
                return
            continue
        if len(cells) != len(names):
            faults.add(line, None, f"expected {len(names)} cells, found {len(cells)}")
            continue
        pairs = zip(names, cells, strict=True)
        yield _RawRow(line, _refuse_commas({n: c.strip() for n, c in pairs if n}, line, delimiter, faults))


def _csv_lines(text: str, delimiter: str, faults: _Faults) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            faults.add(line, None, f"expected delimited text, found {fault}")
            return
        blank = not any(cell.strip() for cell in cells)
        if not blank and not cells[0].lstrip().startswith("#"):
            yield line, cells


def _sniff(text: str, mapping: dict[str, str]) -> str:
    """The delimiter under which the first written line names most columns that we know; the comma on a tie."""
    head = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    known = {name.casefold() for name in (*COLUMNS, *mapping)}

    def score(delimiter: str) -> int:
        return sum(cell.strip().strip('"').strip().casefold() in known for cell in head.split(delimiter))

    return max(_DELIMITERS, key=score)


def _refuse_commas(cells: dict[str, str], line: int, delimiter: str, faults: _Faults) -> dict[str, str]:
    """The cells; a comma in a number of a file that is not comma-separated could be a decimal comma: refused."""
    if delimiter == ",":
        return cells
    for column in ("quantity", "price", "strike", "multiplier", "vol"):
        if "," in cells.get(column, ""):
            faults.add(
                line, column, f"a comma may mean thousands or decimals, found {cells[column]!r}; write it without"
            )
            cells[column] = ""
    return cells


def _header(names: list[str], mapping: dict[str, str], faults: _Faults, line: int) -> list[str] | None:
    """Our column names in file order, "" for those left out; None when the header has a fault."""
    before = len(faults)
    ours = [_column_name(name, mapping, faults, line) for name in names]
    for name in sorted({name for name in ours if name and ours.count(name) > 1}):
        faults.add(line, name, "expected once, found twice")
    folded = {name.casefold() for name in names}
    for name in mapping:
        if name != "*" and name.casefold() not in folded:
            near = get_close_matches(name, names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            faults.add(line, None, f"column mapping: expected a column {name!r} in the file, found none{hint}")
    if "quantity" not in ours and not any(name is None for name in ours):
        faults.add(line, None, "expected a column quantity, found none")
    if not {"instrument", "underlying"} & set(ours) and not any(name is None for name in ours):
        faults.add(line, None, "expected a column instrument or underlying, found none")
    if len(faults) > before:
        return None
    return [name or "" for name in ours]


def _column_name(name: str, mapping: dict[str, str], faults: _Faults, line: int | None) -> str | None:
    """Our name of a file's column, "" when it is left out, None when it is not known (and noted)."""
    folded = {theirs.casefold(): ours for theirs, ours in mapping.items()}
    mapped = mapping.get(name, folded.get(name.casefold()))
    if mapped is not None:
        if mapped not in {"", *COLUMNS}:
            near = get_close_matches(mapped, COLUMNS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            faults.add(line, name, f"column mapping: expected one of {', '.join(COLUMNS)}, found {mapped!r}{hint}")
            return None
        return mapped
    plain = name.casefold().replace(" ", "_")
    if plain in COLUMNS:
        return plain
    if mapping.get("*") == "":
        return ""
    near = get_close_matches(plain, COLUMNS, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    faults.add(line, name or "(empty)", f"unknown column{hint}")
    return None


# --------------------------------------------------------------------------- JSON


def _json_rows(text: str, faults: _Faults) -> Iterator[_RawRow]:
    """The objects of a list, or of `positions` in an object whose other keys are defaults for every row."""
    decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_unique)
    try:
        whole = decoder.decode(text)
        rows, common = _json_positions(whole)
        lines = _json_lines(text, decoder, len(rows))
    except json.JSONDecodeError as fault:
        faults.add(fault.lineno, None, f"expected JSON, found {fault.msg} at character {fault.colno}")
        return
    except RecursionError:
        faults.add(None, None, "expected a list of positions, found too many levels")
        return
    except ValueError as fault:
        faults.add(None, None, str(fault))
        return
    for line, row in zip(lines, rows, strict=True):
        if not isinstance(row, dict):
            faults.add(line, None, f"expected an object, found {_json_kind(row)}")
            continue
        yield _RawRow(line, _json_cells({**common, **row}, line, faults))


def _json_positions(whole: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(whole, list):
        return whole, {}
    if isinstance(whole, dict) and isinstance(whole.get("positions"), list):
        return whole["positions"], {key: value for key, value in whole.items() if key != "positions"}
    raise ValueError("expected a list of positions, or an object with the key positions")


def _json_lines(text: str, decoder: json.JSONDecoder, count: int) -> list[int]:
    """The line each position begins on."""
    place = text.index("[") if text.lstrip().startswith("[") else _positions_place(text, decoder)
    lines: list[int] = []
    place += 1
    for _ in range(count):
        place = _skip(text, place, " \t\r\n,")
        lines.append(text.count("\n", 0, place) + 1)
        _, place = decoder.raw_decode(text, place)
    return lines


def _positions_place(text: str, decoder: json.JSONDecoder) -> int:
    place = text.index("{") + 1
    while True:
        place = _skip(text, place, " \t\r\n,")
        key, place = decoder.raw_decode(text, place)
        place = _skip(text, place, " \t\r\n:")
        if key == "positions":
            return place
        _, place = decoder.raw_decode(text, place)


def _skip(text: str, place: int, blanks: str) -> int:
    while text[place] in blanks:
        place += 1
    return place


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"key {name!r}: expected once in an object, found twice")
    return dict(pairs)


def _json_cells(row: dict[str, Any], line: int, faults: _Faults) -> dict[str, str]:
    cells: dict[str, str] = {}
    for name, value in row.items():
        if value is None:
            cells[name] = ""
        elif isinstance(value, str):
            cells[name] = value.strip()
        elif name == "deliverable" and isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
            cells[name] = "+".join(f"{key}={amount}" for key, amount in value.items())
        else:
            faults.add(line, name, f"expected text or a number, found {_json_kind(value)}")
    return cells


def _json_kind(value: Any) -> str:
    return {dict: "an object", list: "a list", bool: "true or false", str: "text or a number"}.get(type(value), "null")


def _renamed(rows: list[_RawRow], mapping: dict[str, str], faults: _Faults) -> list[_RawRow]:
    """The JSON rows under our column names; unknown keys are noted once each, at the first line that has them."""
    ours: dict[str, str | None] = {}
    for row in rows:
        for name in row.cells:
            if name not in ours:
                ours[name] = _column_name(name, mapping, faults, row.line)
    renamed = []
    for row in rows:
        cells: dict[str, str] = {}
        for name, value in row.cells.items():
            target = ours[name]
            if target and target in cells:
                faults.add(row.line, target, "expected once, found twice")
            elif target:
                cells[target] = value
        renamed.append(_RawRow(row.line, cells))
    return renamed


# --------------------------------------------------------------------------- reading a row


class _Reader:
    """Turns rows into positions and gathers what they have in common."""

    def __init__(
        self, faults: _Faults, *, account: str, book: str, strategy: str, calendars: Calendars, as_of: Nanos | None
    ) -> None:
        self._faults = faults
        self._account = account
        self._book = book
        self._strategy = strategy
        self._calendars = calendars
        self._override = as_of
        self.known: dict[str, Instrument] = {}
        self._positions: list[Position] = []
        self._lines: list[int] = []
        self._instruments: dict[str, Instrument] = {}
        self._underlyings: dict[str, Instrument] = {}
        self._first_line: dict[str, int] = {}
        self._vols: dict[str, tuple[float, int]] = {}
        self._as_of: tuple[Nanos, int] | None = None

    def read(self, raw: _RawRow) -> None:
        row = _Row(raw, self._faults)
        before = len(self._faults)
        quantity = row.attempt(row.quantity)
        price = row.attempt(lambda: row.number("price"))
        vol = row.attempt(row.vol)
        as_of = row.attempt(row.as_of)
        instrument = row.attempt(lambda: _instrument_of(row, self._calendars, self.known))
        if instrument is None or quantity is None or len(self._faults) > before:
            return
        row.attempt(lambda: _check_quantity(row, instrument, quantity))
        row.attempt(lambda: _check_price(row, instrument, price))
        self._keep_instrument(row, instrument)
        self._keep_vol(row, instrument.id, vol)
        self._keep_as_of(row, as_of)
        if len(self._faults) > before:
            return
        key = PositionKey(
            row.text("account") or self._account, row.text("book") or self._book, self._strategy, instrument.id
        )
        self._positions.append(
            Position(
                key=key, quantity=quantity, price=price, counterparty=row.text("counterparty"), tag=row.text("tag")
            )
        )
        self._lines.append(row.line)

    def book(self, path: str) -> LoadedBook:
        """What was read so far."""
        return LoadedBook(
            path=path,
            positions=tuple(self._positions),
            lines=tuple(self._lines),
            instruments=tuple(self._instruments[key] for key in sorted(self._instruments)),
            underlyings=tuple(self._underlyings[key] for key in sorted(self._underlyings)),
            prices=_average_prices(self._positions),
            vols={key: vol for key, (vol, _) in sorted(self._vols.items())},
            as_of=self._override if self._override is not None else (self._as_of[0] if self._as_of else None),
            notes=tuple(_added_up(self._positions, self._lines)),
        )

    def _keep_instrument(self, row: _Row, instrument: Instrument) -> None:
        known = self._instruments.setdefault(instrument.id, instrument)
        first = self._first_line.setdefault(instrument.id, row.line)
        if known != instrument:
            row.note("instrument", f"{instrument.id} is described differently than on line {first}")
        if isinstance(instrument, ConvertibleBond) and instrument.underlying not in self._underlyings:
            self._underlyings[instrument.underlying] = self._linear_of(instrument.underlying, instrument.currency)
        if not isinstance(instrument, OptionContract):
            return
        delivered = [line.instrument for line in instrument.deliverable if not line.instrument.startswith("CASH:")]
        for needed in (instrument.underlying, *delivered):
            if needed not in self._underlyings:
                self._underlyings[needed] = self._linear_of(needed, instrument.currency)

    def _linear_of(self, word: str, currency: str) -> Instrument:
        try:
            return resolve_instrument(word, currency=currency, calendars=self._calendars)
        except EvenkeelError:
            # A venue outside the tables: the option's own words are all that is known of it.
            return resolve_instrument(word, kind="stock", currency=currency, calendars=self._calendars)

    def _keep_vol(self, row: _Row, instrument: str, vol: float | None) -> None:
        if vol is None:
            return
        known, line = self._vols.setdefault(instrument, (vol, row.line))
        if known != vol:
            row.note("vol", f"expected one vol per instrument, found {vol} here and {known} on line {line}")

    def _keep_as_of(self, row: _Row, as_of: Nanos | None) -> None:
        if as_of is None:
            return
        if self._as_of is None:
            self._as_of = (as_of, row.line)
        if self._as_of[0] != as_of:
            row.note("as_of", f"expected one instant for the file, found {iso(as_of)} and {iso(self._as_of[0])}")


class _Row:
    """One row's cells, read by column; a fault is noted under line and column."""

    def __init__(self, raw: _RawRow, faults: _Faults) -> None:
        self.line = raw.line
        self._cells = raw.cells
        self._faults = faults

    def note(self, column: str | None, text: str) -> None:
        self._faults.add(self.line, column, text)

    def refuse(self, column: str | None, text: str) -> _Stop:
        self.note(column, text)
        return _Stop()

    def attempt(self, read: Callable[[], T]) -> T | None:
        """What `read` answers, None when it gave up (its fault is noted)."""
        try:
            return read()
        except _Stop:
            return None

    def text(self, column: str) -> str:
        return self._cells.get(column, "")

    def number(self, column: str) -> Decimal | None:
        """The finite number of a cell, None when blank."""
        text = self.text(column)
        if not text:
            return None
        value = parse_number(text)
        if value is None:
            raise self.refuse(column, f"expected a finite number, found {_shown(text)}")
        if abs(value) > MAX_QUANTITY * 1000 or value.adjusted() < -30:
            raise self.refuse(column, f"expected a number of usual size, found {_shown(text)}")
        return value

    def positive(self, column: str) -> Decimal | None:
        value = self.number(column)
        if value is not None and value <= 0:
            raise self.refuse(column, f"expected a positive number, found {self.text(column)!r}")
        return value

    def quantity(self) -> Decimal:
        value = self.number("quantity")
        if value is None:
            raise self.refuse("quantity", "expected a number, found nothing")
        if value == 0:
            raise self.refuse("quantity", "expected a quantity other than zero, found 0")
        if abs(value) > MAX_QUANTITY:
            raise self.refuse("quantity", f"expected at most {MAX_QUANTITY:,}, found {_shown(self.text('quantity'))}")
        return value

    def vol(self) -> float | None:
        value = self.positive("vol")
        if value is not None and value > 5:
            raise self.refuse("vol", f"expected a vol such as 0.20 for twenty per cent, found {self.text('vol')!r}")
        return None if value is None else float(value)

    def as_of(self) -> Nanos | None:
        text = self.text("as_of")
        if not text:
            return None
        try:
            return parse_instant(text)
        except ValueError as fault:
            raise self.refuse("as_of", str(fault)) from fault

    def expiry(self) -> date | Nanos | None:
        """A date, or an exact instant; None when blank. A month (2020-03) is a date on its first day, for futures."""
        text = self.text("expiry")
        if not text:
            return None
        found = _DAY.fullmatch(text)
        month = _MONTH.fullmatch(text) if found is None else None
        try:
            if found is not None:
                return date(int(found[1]), int(found[2]), int(found[3]))
            if month is not None and self.kind() == "future":
                return date(int(month[1]), int(month[2]), 1)
            return parse_instant(text)
        except ValueError:
            expected = "a date such as 2020-03-20 or an instant such as 2020-03-20T13:30:00Z"
            raise self.refuse("expiry", f"expected {expected}, found {text!r}") from None

    def kind(self) -> Kind | None:
        word = self.text("type").lower().replace(" ", "_").replace("-", "_")
        if not word:
            return None
        word = _KIND_WORDS.get(word, word)
        if word not in KINDS:
            near = get_close_matches(word, KINDS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise self.refuse("type", f"expected one of {', '.join(KINDS)}, found {self.text('type')!r}{hint}")
        return next(known for known in KINDS if known == word)

    def choice(self, column: str, words: tuple[str, ...]) -> str | None:
        word = self.text(column).lower()
        if not word:
            return None
        if word not in words:
            raise self.refuse(column, f"expected {' or '.join(words)}, found {self.text(column)!r}")
        return word


_KIND_WORDS: Final = {
    "equity_option": "option",
    "stock_option": "option",
    "futures_option": "future_option",
    "equity": "stock",
    "share": "stock",
    "etf": "stock",
    "futures": "future",
    "perp": "perpetual",
}


def parse_number(text: str) -> Decimal | None:
    """The number of a text with optional sign, thousands commas, exponent or accounting parentheses; None otherwise.

    >>> parse_number("(1,250.50)"), parse_number("1,25"), parse_number("nan")
    (Decimal('-1250.50'), None, None)
    """
    text = text.strip()
    negative = text.startswith("(") and text.endswith(")")
    body = text[1:-1] if negative else text
    found = _NUMBER.fullmatch(body)
    if found is None or not any(character.isdigit() for character in body) or (negative and found[1]):
        return None
    if found[2] is None and (found[3] is None or found[3] == "."):
        return None
    value = Decimal(body.replace(",", ""))
    return -value if negative else value


def _instrument_of(row: _Row, calendars: Calendars, known: Mapping[str, Instrument]) -> Instrument:
    described = known.get(row.text("instrument").upper())
    if described is not None:
        return _described(row, described)
    kind = row.kind()
    word = row.text("instrument")
    under = row.text("underlying")
    if not word and not under:
        raise row.refuse("instrument", "expected an instrument or an underlying, found nothing")
    multiplier = row.positive("multiplier")
    currency = row.text("currency").upper() or None
    if currency is not None and not re.fullmatch(r"[A-Z]{3,5}", currency):
        raise row.refuse("currency", f"expected a code such as USD, found {row.text('currency')!r}")
    if word and not _is_occ(word):
        return _refusing(row, "instrument", lambda: _linear(row, word, kind, multiplier, currency, calendars))
    if not word and kind not in OPTION_KINDS and not any(row.text(name) for name in ("cp", "strike")):
        return _refusing(row, "underlying", lambda: _linear(row, under, kind, multiplier, currency, calendars))
    return _option_of(row, word, under, kind, multiplier, currency, calendars)


def _described(row: _Row, item: Instrument) -> Instrument:
    """The instrument described elsewhere; what the row says of it besides must be the same."""
    kind = row.text("type").lower()
    if kind not in {"", "convertible"}:
        raise row.refuse("type", f"expected convertible or nothing for {item.id}, found {row.text('type')!r}")
    for column in ("cp", "strike", "expiry", "style", "deliverable", "settlement", "session"):
        if row.text(column):
            raise row.refuse(column, f"expected nothing for {item.id}, described by [[convertibles]], found one")
    for column, own in (("multiplier", item.multiplier), ("currency", item.currency)):
        found = row.positive(column) if column == "multiplier" else row.text(column).upper() or None
        if found is not None and found != own:
            raise row.refuse(column, f"expected {own} as [[convertibles]] has it, found {row.text(column)!r}")
    return item


def _option_of(
    row: _Row,
    word: str,
    under: str,
    kind: Kind | None,
    multiplier: Decimal | None,
    currency: str | None,
    calendars: Calendars,
) -> OptionContract:
    if kind is not None and kind not in OPTION_KINDS:
        raise row.refuse("type", f"expected an option type beside cp, strike or an OCC symbol, found {kind}")
    settlement, session = _settlement(row)
    style = cast(Style | None, row.choice("style", ("european", "american")))
    deliverable = (
        _refusing(row, "deliverable", lambda: parse_deliverable(row.text("deliverable")))
        if row.text("deliverable")
        else ()
    )
    expiry = row.expiry()
    if word:
        occ = parse_occ(word)
        _check_agreement(row, word, expiry)
        root, cp, strike = occ.root, occ.cp, occ.strike
        listed: date | Nanos = expiry if isinstance(expiry, int) else occ.expiration
        column = "instrument"
    else:
        given = row.number("strike")
        if given is None or given <= 0:
            raise row.refuse("strike", f"expected a positive number, found {row.text('strike') or 'nothing'}")
        side = row.text("cp").lower()
        if side not in {"c", "call", "p", "put"}:
            raise row.refuse("cp", f"expected call or put, found {row.text('cp') or 'nothing'}")
        if expiry is None:
            raise row.refuse("expiry", "expected a date or an instant for an option, found nothing")
        root, cp, strike, listed = under, 1 if side[0] == "c" else -1, given, expiry
        column = "underlying"
    contract = _refusing(
        row,
        column,
        lambda: option_contract(
            root,
            listed,
            cp,
            strike,
            kind=kind,
            underlying=under if word and under else None,
            settlement=settlement,
            session=session,
            style=style,
            multiplier=multiplier,
            currency=currency,
            deliverable=deliverable,
            calendars=calendars,
        ),
    )
    if word and contract.id[:6].rstrip() != root:
        raise row.refuse(
            "instrument", f"{root} lists standard monthly dates only, {listed} belongs to {contract.id[:6].rstrip()}"
        )
    return contract


def _linear(
    row: _Row, word: str, kind: Kind | None, multiplier: Decimal | None, currency: str | None, calendars: Calendars
) -> Instrument:
    for column in ("cp", "strike", "style", "deliverable"):
        if row.text(column):
            raise row.refuse(column, f"expected nothing for {word!r}, which is no option, found {row.text(column)!r}")
    expiry = row.expiry()
    instrument = resolve_instrument(
        word, kind=kind, expiry=expiry, multiplier=multiplier, currency=currency, calendars=calendars
    )
    if kind is None or isinstance(instrument, Future) or expiry is None:
        return instrument
    raise row.refuse("expiry", f"expected nothing for a {kind}, found {row.text('expiry')!r}")


def _settlement(row: _Row) -> tuple[Settlement | None, SettlementTime | None]:
    """Cash or physical, and AM or PM; the settlement column may say either, the session column only the second."""
    word = row.choice("settlement", ("cash", "physical", "am", "pm"))
    session = row.choice("session", ("am", "pm"))
    if word in {"am", "pm"}:
        if session not in {None, word}:
            raise row.refuse("session", f"expected {word} as in settlement, found {session}")
        return None, cast(SettlementTime, word)
    return cast(Settlement | None, word), cast(SettlementTime | None, session)


def _check_agreement(row: _Row, word: str, expiry: date | Nanos | None) -> None:
    """An OCC symbol says it all; what other columns repeat must be the same."""
    occ = parse_occ(word)
    side = row.text("cp").lower()
    if side and side not in ({"c", "call"} if occ.cp > 0 else {"p", "put"}):
        raise row.refuse("cp", f"expected {'call' if occ.cp > 0 else 'put'} as in {word!r}, found {side!r}")
    strike = row.number("strike")
    if strike is not None and strike != occ.strike:
        raise row.refuse("strike", f"expected {occ.strike} as in {word!r}, found {strike}")
    if isinstance(expiry, date) and expiry != occ.expiration:
        raise row.refuse("expiry", f"expected {occ.expiration} as in {word!r}, found {expiry}")


def _refusing(row: _Row, column: str, resolve: Callable[[], T]) -> T:
    """What `resolve` answers; a fault of the tables or calendars is noted under the column."""
    try:
        return resolve()
    except EvenkeelError as fault:
        raise row.refuse(column, str(fault)) from fault


def _is_occ(word: str) -> bool:
    try:
        parse_occ(word)
    except ValueError:
        return False
    return True


def _check_quantity(row: _Row, instrument: Instrument, quantity: Decimal) -> None:
    if isinstance(instrument, OptionContract | Future) and quantity != quantity.to_integral_value():
        raise row.refuse("quantity", f"expected whole contracts of {instrument.id}, found {row.text('quantity')!r}")
    if isinstance(instrument, Perpetual) and instrument.lot is not None and quantity % instrument.lot:
        raise row.refuse("quantity", f"expected lots of {instrument.lot} of {instrument.id}, found {quantity}")


def _check_price(row: _Row, instrument: Instrument, price: Decimal | None) -> None:
    if price is not None and price < 0 and not isinstance(instrument, Future):
        raise row.refuse("price", f"expected a price of zero or more, found {row.text('price')!r}")


def _average_prices(positions: list[Position]) -> dict[str, Decimal]:
    paid: dict[str, list[tuple[Decimal, Decimal]]] = {}
    for position in positions:
        if position.price is not None:
            paid.setdefault(position.key.instrument, []).append((abs(position.quantity), position.price))
    return {
        key: lots[0][1]
        if len({p for _, p in lots}) == 1
        else sum((q * p for q, p in lots), Decimal(0)) / sum((q for q, _ in lots), Decimal(0))
        for key, lots in sorted(paid.items())
    }


def _added_up(positions: list[Position], lines: list[int]) -> Iterator[str]:
    """A sentence per key that several rows name: their quantities add up."""
    by_key: dict[PositionKey, list[int]] = {}
    for index, position in enumerate(positions):
        by_key.setdefault(position.key, []).append(index)
    for key, rows in by_key.items():
        if len(rows) > 1:
            total = sum((positions[i].quantity for i in rows), Decimal(0))
            where = ", ".join(str(lines[i]) for i in rows)
            yield f"{key.account}/{key.book} {key.instrument}: lines {where} add up to {total}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
