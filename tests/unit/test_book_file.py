"""Book files: what is understood, and every fault named by line and column."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from bot.app.book_file import COLUMNS, LoadedBook, check_book, load_book, parse_number
from bot.app.config import load_config
from bot.app.wiring import convertibles_of
from bot.core.errors import BookError
from bot.domain.instruments import OptionContract
from bot.domain.units import iso, parse_instant

BOOKS = Path(__file__).resolve().parents[2] / "config" / "books"


def written(folder: Path, text: str | bytes, name: str = "book.csv") -> Path:
    """A file of this text."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(folder: Path, text: str | bytes, name: str = "book.csv", **words: object) -> LoadedBook:
    """The book of this text."""
    return load_book(written(folder, text, name), **words)  # type: ignore[arg-type]  # keywords vary by test


def faults(folder: Path, text: str | bytes, name: str = "book.csv", **words: object) -> list[str]:
    """The faults of this text, one by one."""
    with pytest.raises(BookError) as caught:
        loaded(folder, text, name, **words)
    return str(caught.value).split("\n")


def held(book: LoadedBook) -> list[tuple[str, Decimal]]:
    """Ids and quantities in file order."""
    return [(position.key.instrument, position.quantity) for position in book.positions]


@pytest.mark.parametrize("path", sorted(BOOKS.glob("*.csv")), ids=lambda path: path.name)
def test_the_shipped_books_load(path: Path) -> None:
    """Every example book is understood, with the bonds its config describes, and each underlying of its options is known."""
    described = convertibles_of(load_config(BOOKS.parent / "convertible_arbitrage.toml", {}))
    book = load_book(path, known=described)
    assert book.positions
    known = {item.id for item in book.universe}
    assert {item.underlying for item in book.instruments if isinstance(item, OptionContract)} <= known


def test_the_documented_books_load(tmp_path: Path) -> None:
    """Each CSV shown in docs/book.md is a book, and the columns it lists are those known."""
    text = (BOOKS.parents[1] / "docs" / "book.md").read_text()
    shown = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    assert [len(loaded(tmp_path, block).positions) for block in shown] == [2, 2]
    table = text.split("## Columns")[1].split("## Names")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(COLUMNS)


def test_occ_symbols_padded_or_not(tmp_path: Path) -> None:
    """An OCC symbol names the same contract with and without its blanks."""
    book = loaded(tmp_path, "instrument,quantity\nGOOG  160115C00750000,100\nGOOG160115P00750000,-5\n")
    assert held(book) == [("GOOG  160115C00750000", Decimal(100)), ("GOOG  160115P00750000", Decimal(-5))]
    assert book.lines == (2, 3)


def test_terms_in_columns(tmp_path: Path) -> None:
    """Underlying, type, side, strike and expiry name a contract with exact instants."""
    book = loaded(
        tmp_path,
        "underlying,type,cp,strike,expiry,settlement,multiplier,currency,quantity\n"
        "ES,future_option,call,3220,2020-03-20,physical,50,USD,100\n"
        "SPX,index option,P,2900,20190517,am,,,7\n",
    )
    quarterly, monthly = (item for item in book.instruments if isinstance(item, OptionContract))
    assert (quarterly.underlying, iso(quarterly.expiry)) == ("CME:ESH2020", "2020-03-20T13:30:00Z")
    assert (monthly.id, monthly.session, iso(monthly.expiry)) == ("SPX   190517P02900000", "am", "2019-05-17T13:30:00Z")


def test_opening_hedges_are_rows(tmp_path: Path) -> None:
    """Stock, futures, index and perpetual rows stand beside options."""
    text = (
        "instrument,underlying,type,expiry,quantity,price\n"
        "GOOG  160115C00750000,,,,10,\n"
        "US:GOOG,,,,-420.5,748.20\n"
        ",ES,future,2020-03,-4,3220.25\n"
        "ESM2020,,,,2,\n"
        ",SPX,index,,3,\n"
        "BINANCE:BTCUSDT,,,,-0.125,\n"
    )
    assert held(loaded(tmp_path, text)) == [
        ("GOOG  160115C00750000", Decimal(10)),
        ("US:GOOG", Decimal("-420.5")),
        ("CME:ESH2020", Decimal(-4)),
        ("CME:ESM2020", Decimal(2)),
        ("INDEX:SPX", Decimal(3)),
        ("BINANCE:BTCUSDT", Decimal("-0.125")),
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_files_of_spreadsheets_and_systems(tmp_path: Path, newline: str, delimiter: str, mark: bytes) -> None:
    """Line ends, delimiters, a byte-order mark, blank lines and comments change nothing but the lines counted."""
    rows = ["# mine", "", "Instrument,Quantity,tag", "GOOG  160115C00750000,100,a", ",,", "US:GOOG,-40,b", ""]
    text = mark + newline.join(rows).replace(",", delimiter).encode()
    book = loaded(tmp_path, text)
    assert held(book) == [("GOOG  160115C00750000", Decimal(100)), ("US:GOOG", Decimal(-40))]
    assert book.lines == (4, 6)


def test_broker_exports_are_mapped(tmp_path: Path) -> None:
    """A mapping renames a broker's columns, leaves out named ones, and the star leaves out the rest."""
    text = 'Symbol,Qty,Desc,Greeks\n"GOOG  160115C00750000","1,250",a call,0.5\nUS:GOOG,(40),stock,1\n'
    mapping = {"Symbol": "instrument", "qty": "quantity", "*": ""}
    assert held(loaded(tmp_path, text, columns=mapping)) == [
        ("GOOG  160115C00750000", Decimal(1250)),
        ("US:GOOG", Decimal(-40)),
    ]
    assert faults(tmp_path, text, columns={"Symbol": "instrument", "Qty": "quantity", "Desc": ""}) == [
        "book.csv: line 1: Greeks: unknown column"
    ]
    assert "did you mean 'Symbol'?" in faults(tmp_path, text, columns={"Symbl": "instrument", "*": ""})[0]
    assert "did you mean quantity?" in faults(tmp_path, text, columns={"Qty": "quantty", "*": ""})[0]


def test_unknown_columns_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    """A misspelt column is refused by name and the nearest known one suggested."""
    found = faults(tmp_path, "instrument,quantity,acount,zzz\nUS:GOOG,1,,\n")
    assert found == [
        "book.csv: line 1: acount: unknown column (did you mean account?)",
        "book.csv: line 1: zzz: unknown column",
    ]


def test_every_bad_row_is_listed(tmp_path: Path) -> None:
    """All faults of all rows come in one error, each with line and column."""
    text = (
        "instrument,quantity,price,vol\n"
        "GOOG  160115C00750000,0,,\n"
        "GOOG  160115C00750000,nan,-1,20\n"
        "US:GOOG,10,,\n"
        "AAPL1 160115C00100000,5,,\n"
        "NO SUCH,5,,\n"
        "GOOG  160115C00750000,1.5,,\n"
        "US:GOOG,1\n"
        "GOOG  160115C00750000,1e999,,\n"
    )
    assert [fault.split(": expected")[0] for fault in faults(tmp_path, text)] == [
        "book.csv: line 2: quantity",
        "book.csv: line 3: quantity",
        "book.csv: line 3: vol",
        "book.csv: line 5: instrument: option root AAPL1: adjusted contract, give its deliverable "
        "(such as US:AAPL=100)",
        "book.csv: line 6: instrument: instrument",
        "book.csv: line 7: quantity",
        "book.csv: line 8",
        "book.csv: line 9: quantity",
    ]


@pytest.mark.parametrize(
    "quantity",
    (
        "",
        "0",
        "-0.0",
        "nan",
        "inf",
        "-Infinity",
        "1e999",
        "1e-999",
        "9" * 50,
        "1_000",
        "1,00",
        "١",
        "0x10",
        "--1",
        "1.5",
        "1000000000001",
        "−5",
        "(-5)",
        "five",
    ),
)
def test_quantities_that_are_none_are_refused(tmp_path: Path, quantity: str) -> None:
    """Zero, not finite, fractional, huge or misspelt quantities are refused under their line and column."""
    text = f'instrument,quantity\nGOOG  160115C00750000,"{quantity}"\n'
    (fault,) = faults(tmp_path, text)
    assert fault.startswith("book.csv: line 2: quantity: expected")


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("GOOG,option,call,750,2016-13-01,,,,1", "expiry"),
        ("GOOG,option,call,750,01/15/2016,,,,1", "expiry"),
        ("GOOG,option,call,750,2016-01-15T21:00:00,,,,1", "expiry"),
        ("GOOG,option,call,750,,,,,1", "expiry"),
        ("GOOG,option,,750,2016-01-15,,,,1", "cp"),
        ("GOOG,option,both,750,2016-01-15,,,,1", "cp"),
        ("GOOG,option,call,,2016-01-15,,,,1", "strike"),
        ("GOOG,option,call,-5,2016-01-15,,,,1", "strike"),
        ("GOOG,optoin,call,750,2016-01-15,,,,1", "type"),
        ("GOOG,stock,call,750,2016-01-15,,,,1", "type"),
        ("GOOG,stock,,,2016-01-15,,,,1", "underlying"),
        ("GOOG,option,call,750,2016-01-15,gold,,,1", "settlement"),
        ("GOOG,option,call,750,2016-01-15,am,,,1", "underlying"),
        ("GOOG,option,call,750,2016-01-15,,0,,1", "multiplier"),
        ("GOOG,option,call,750,2016-01-15,,100,DOLLARS,1", "currency"),
        ("ZZZ,future_option,call,750,2016-01-15,,,,1", "underlying"),
        ("ES,,,,,,,,1", "underlying"),
        (",option,call,750,2016-01-15,,,,1", "instrument"),
    ],
)
def test_terms_that_are_none_are_refused_under_their_column(tmp_path: Path, row: str, column: str) -> None:
    """A term that cannot be read is refused under its own column."""
    text = f"underlying,type,cp,strike,expiry,settlement,multiplier,currency,quantity\n{row}\n"
    (fault,) = faults(tmp_path, text)
    assert fault.startswith(f"book.csv: line 2: {column}: ")


def test_what_is_said_twice_must_agree(tmp_path: Path) -> None:
    """Columns beside an OCC symbol may repeat it, not contradict it."""
    head = "instrument,cp,strike,expiry,quantity\n"
    assert len(loaded(tmp_path, head + "GOOG  160115C00750000,call,750.0,2016-01-15,1\n").positions) == 1
    for row in ("put,,", ",740,", ",,2016-01-16"):
        assert len(faults(tmp_path, head + f"GOOG  160115C00750000,{row},1\n")) == 1


def test_one_instrument_has_one_description_and_one_vol(tmp_path: Path) -> None:
    """Rows that describe an instrument differently, or give it two vols, are refused at the second."""
    found = faults(
        tmp_path,
        "instrument,quantity,multiplier,vol\nGOOG  160115C00750000,1,100,0.2\nGOOG  160115C00750000,1,10,0.3\n",
    )
    assert [line.split(": ")[1:3] for line in found] == [["line 3", "instrument"], ["line 3", "vol"]]


def test_rows_of_one_key_stay_apart_and_are_noted(tmp_path: Path) -> None:
    """Lots are kept as rows, a note gives their sum, and the price is their weighted mean."""
    text = "instrument,quantity,price,account,book,counterparty,tag\nUS:GOOG,10,100,a,b,c,t\nUS:GOOG,-30,104,a,b,,\n"
    book = loaded(tmp_path, text)
    assert book.notes == ("a/b US:GOOG: lines 2, 3 add up to -20",)
    assert book.prices == {"US:GOOG": Decimal(103)}
    first = book.positions[0]
    assert (first.key.account, first.key.book, first.counterparty, first.tag) == ("a", "b", "c", "t")


def test_keys_default_to_what_the_caller_says(tmp_path: Path) -> None:
    """Rows without account or book take the caller's."""
    book = loaded(tmp_path, "instrument,quantity\nUS:GOOG,1\n", account="desk", book="vol", strategy="s")
    key = book.positions[0].key
    assert (key.account, key.book, key.strategy) == ("desk", "vol", "s")


def test_as_of_is_one_instant(tmp_path: Path) -> None:
    """A file speaks of one instant, with its zone; the caller's word stands over it."""
    text = "instrument,quantity,as_of\nUS:GOOG,1,2016-01-04T21:00:00Z\nUS:AAPL,1,{}\n"
    at = parse_instant("2016-01-04T21:00:00Z")
    assert loaded(tmp_path, text.format("2016-01-04T16:00:00-05:00")).as_of == at
    assert loaded(tmp_path, text.format(""), as_of=5).as_of == 5
    assert "line 3: as_of" in faults(tmp_path, text.format("2016-01-05T21:00:00Z"))[0]
    assert "with its zone" in faults(tmp_path, text.format("2016-01-04T21:00:00"))[0]


def test_expired_contracts_are_faults_of_the_session(tmp_path: Path) -> None:
    """What ended at or before the session's start is refused on loading with it, and listed by check_book."""
    text = "instrument,quantity\nGOOG  160115C00750000,1\nESZ2015,1\nUS:GOOG,1\n"
    start = parse_instant("2016-01-15T21:00:00Z")
    book = loaded(tmp_path, text)
    assert check_book(book, parse_instant("2015-12-01T00:00:00Z")) == []
    assert check_book(book, start) == faults(tmp_path, text, start=start)
    assert check_book(book, start)[0] == (
        "book.csv: line 2: GOOG  160115C00750000 expired at 2016-01-15T21:00:00Z, "
        "expected after the session's start 2016-01-15T21:00:00Z"
    )
    assert len(check_book(book, start - 1)) == 1


def test_adjusted_roots_load_with_their_deliverable(tmp_path: Path) -> None:
    """An adjusted contract is taken with what it delivers."""
    text = "instrument,quantity,deliverable\nTWX1  160115C00070000,3,US:TWX=100+US:TIME=12+CASH:USD=3.5\n"
    book = loaded(tmp_path, text)
    (option,) = book.instruments
    assert isinstance(option, OptionContract)
    assert [line.quantity for line in option.deliverable] == [Decimal(100), Decimal(12), Decimal("3.5")]
    assert [item.id for item in book.underlyings] == ["US:TIME", "US:TWX"]


def test_a_comma_in_a_semicolon_file_is_not_guessed(tmp_path: Path) -> None:
    """A comma that may be a decimal comma is refused."""
    assert "may mean thousands or decimals" in faults(tmp_path, "instrument;quantity\nUS:GOOG;1,250\n")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "found an empty file"),
        (b"\xef\xbb\xbf\n\n", "found an empty file"),
        (b"instrument,quantity\n", "expected at least one position"),
        (b"# only a remark\n", "expected at least one position"),
        (b"instrument\nUS:GOOG\n", "line 1: expected a column quantity"),
        (b"quantity,price\n1,2\n", "line 1: expected a column instrument or underlying"),
        (b"instrument,quantity,Quantity\nUS:GOOG,1,2\n", "quantity: expected once, found twice"),
        (b'instrument,quantity\n"US:GOOG,1\n', "line 2: expected delimited text"),
        (b"instrument,quantity\nUS:GO\xe9,1\n", "line 2: expected UTF-8 text, found byte 0xe9"),
        (b"instrument,quantity\nUS:GO\0,1\n", "line 2: expected text, found a NUL byte"),
        ("instrument,quantity\n".encode("utf-16"), "found UTF-16"),
        (b"PK\x03\x04\x14\x00\x00\x00", "found a NUL byte"),
    ],
)
def test_files_that_are_no_books_are_refused(tmp_path: Path, text: bytes, message: str) -> None:
    """A file that cannot be a book says what is wrong with it and where."""
    assert message in faults(tmp_path, text)[0]


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    """A missing file or a folder is a fault of the book, not a crash."""
    with pytest.raises(BookError, match="expected a book file, found none"):
        load_book(tmp_path / "none.csv")
    with pytest.raises(BookError, match="cannot be read"):
        load_book(tmp_path)


def test_quoted_cells_may_span_lines(tmp_path: Path) -> None:
    """A cell with a line break does not move the line numbers of the rows after it."""
    text = 'instrument,quantity,tag\nUS:GOOG,1,"two\nlines"\nUS:AAPL,0,x\n'
    assert faults(tmp_path, text)[0].startswith("book.csv: line 4: quantity")


def test_json_lists_and_objects(tmp_path: Path) -> None:
    """A JSON list, or an object whose other keys hold for every row, loads like the CSV."""
    rows = [
        {"instrument": "GOOG  160115C00750000", "quantity": 100, "vol": 0.25},
        {"Sym": "US:GOOG", "quantity": "-40"},
    ]
    mapping = {"Sym": "instrument"}
    plain = loaded(tmp_path, json.dumps(rows), "book.json", columns=mapping)
    wrapped = {"book": "vol", "positions": rows, "as_of": "2016-01-04T21:00:00Z"}
    whole = loaded(tmp_path, json.dumps(wrapped, indent=1), "book.json", columns=mapping)
    assert held(plain) == held(whole)
    assert whole.positions[1].key.book == "vol" and whole.as_of == parse_instant("2016-01-04T21:00:00Z")
    assert plain.vols == {"GOOG  160115C00750000": 0.25}


def test_json_deliverables_are_objects(tmp_path: Path) -> None:
    """A deliverable may be an object of instruments and quantities."""
    row = {"instrument": "AAPL1 160115C00100000", "quantity": 1, "deliverable": {"US:AAPL": 100, "CASH:USD": 2.5}}
    (option,) = loaded(tmp_path, json.dumps([row]), "book.json").instruments
    assert isinstance(option, OptionContract) and len(option.deliverable) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"instrument": "US:GOOG", "quantity": 1},\n', "line 2: expected JSON"),
        ('[{"instrument": "US:GOOG", "quantity": 1}] x', "line 1: expected JSON, found Extra data"),
        (
            '[{"instrument": "US:GOOG",\n "quantity": 1},\n\n{"instrument": "US:AAPL", "quantity": 0}]',
            "line 4: quantity",
        ),
        ('[{"instrument": "US:GOOG", "quantity": NaN}]', "line 1: quantity: expected a finite number"),
        ('[{"instrument": "US:GOOG", "quantity": true}]', "quantity: expected text or a number, found true or false"),
        ('[{"instrument": "US:GOOG", "quantity": 1, "quantity": 2}]', "key 'quantity': expected once"),
        (
            '[{"instrument": "US:GOOG", "quantity": 1, "qantity": 2}]',
            "qantity: unknown column (did you mean quantity?)",
        ),
        ("[[1]]", "expected an object, found a list"),
        ('{"rows": []}', "the key positions"),
        ("[]", "expected at least one position"),
        ("[" * 100_000, "expected"),
        ('[{"instrument": "US:GOOG", "quantity": ' + "9" * 5000 + "}]", "quantity: expected a finite number"),
    ],
)
def test_json_faults_have_lines(tmp_path: Path, text: str, message: str) -> None:
    """A fault of a JSON book names the line its position begins on."""
    assert message in faults(tmp_path, text, "book.json")[0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", "1"),
        ("+1.50", "1.50"),
        (".5", "0.5"),
        ("1.", "1"),
        ("1,234,567.8", "1234567.8"),
        ("(12)", "-12"),
        ("1e3", "1e3"),
        (" 7 ", "7"),
    ],
)
def test_numbers_of_books(text: str, number: str) -> None:
    """Signs, thousands, exponents and accounting parentheses are read exactly."""
    assert parse_number(text) == Decimal(number)


@pytest.mark.parametrize(
    "text", ["", ".", "+", "1.2.3", "12,34", "1,2345", ",123", "1 000", "1'000", "()", "(+1)", "e5"]
)
def test_texts_that_are_no_number(text: str) -> None:
    """Anything else is no number."""
    assert parse_number(text) is None
