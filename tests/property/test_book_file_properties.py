"""Book files under any content: what is written is read back, and nothing but a BookError ever comes out."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.app.book_file import COLUMNS, load_book
from bot.app.contracts import option_contract
from bot.core.errors import BookError
from bot.domain.instruments import occ_id, parse_occ

ROOTS = st.sampled_from(["GOOG", "AAPL", "BRKB", "SPXW", "XSP", "F"])
DAYS = st.dates(date(2012, 1, 1), date(2024, 12, 31))
STRIKES = st.integers(1, 99_999_999).map(lambda thousandths: Decimal(thousandths) / 1000)
LOTS = st.integers(-(10**12), 10**12).filter(bool)


@pytest.fixture(scope="module")
def book_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that each example writes anew."""
    return tmp_path_factory.mktemp("books") / "book.csv"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(ROOTS, DAYS, st.sampled_from([1, -1]), STRIKES, LOTS), min_size=1, max_size=5))
def test_what_is_written_is_held(book_path: Path, rows: list[tuple[str, date, int, Decimal, int]]) -> None:
    """Any list of option rows loads to the same ids and quantities, in order, by symbol and by columns alike."""
    ids = [occ_id(root, day, cp, strike) for root, day, cp, strike, _ in rows]
    lines = [f"{name},{quantity}" for name, (*_, quantity) in zip(ids, rows, strict=True)]
    book_path.write_text("instrument,quantity\n" + "\n".join(lines))
    by_symbol = load_book(book_path)
    assert [position.key.instrument for position in by_symbol.positions] == ids
    assert [position.quantity for position in by_symbol.positions] == [Decimal(row[4]) for row in rows]
    columns = [f"{root},{'call' if cp > 0 else 'p'},{strike},{day},{q}" for root, day, cp, strike, q in rows]
    book_path.write_text("underlying,cp,strike,expiry,quantity\n" + "\n".join(columns))
    by_columns = load_book(book_path)
    assert by_columns.positions == by_symbol.positions
    assert by_columns.instruments == by_symbol.instruments


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ROOTS, DAYS, st.sampled_from([1, -1]), STRIKES)
def test_expiries_are_on_or_before_their_listed_date(root: str, day: date, cp: int, strike: Decimal) -> None:
    """An option ends at most ten days before and never after its listed date, and its id gives its terms back."""
    option = option_contract(root, day, cp, strike)
    ended = date(1970, 1, 1) + timedelta(days=option.expiry // 86_400_000_000_000)
    assert day - timedelta(days=10) <= ended <= day
    assert option.last_trade <= option.expiry <= option.settles
    symbol = parse_occ(option.id)
    assert (symbol.root, symbol.expiration, symbol.cp, symbol.strike) == (root, day, cp, strike)


CELLS = st.one_of(
    st.sampled_from(
        ["", "1", "-3", "call", "p", "100", "2020-03-20", "ES", "GOOG", "US:GOOG", "SPX", "option", "cash"]
    ),
    st.sampled_from(["future", "2020-03-20T13:30:00Z", "9999-12-31", "0001-01-01", "1e400", "nan", "INDEX:SPX", "LO"]),
    st.text(max_size=12),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(COLUMNS), min_size=2, max_size=8, unique=True),
    st.lists(st.lists(CELLS, min_size=8, max_size=8), max_size=4),
)
def test_only_book_errors_come_out(book_path: Path, names: list[str], rows: list[list[str]]) -> None:
    """Whatever the cells say, the book loads or one BookError lists the faults by line."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows(row[: len(names)] for row in rows)
    book_path.write_bytes(out.getvalue().encode("utf-8", "surrogatepass"))
    try:
        book = load_book(book_path)
    except BookError as fault:
        assert "book.csv" in str(fault)
    else:
        assert len(book.positions) == len(book.lines) > 0
        assert all(position.quantity for position in book.positions)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_any_bytes_are_a_book_or_a_book_error(book_path: Path, content: bytes) -> None:
    """No file content makes anything but a book or a BookError, as CSV or as JSON."""
    for name in ("book.csv", "book.json", "book.txt"):
        path = book_path.with_name(name)
        path.write_bytes(content)
        with pytest.raises(BookError):
            load_book(path)
