"""Bad input, through the command line: a fault of a file ends the run with one message and nothing kept; a fault of a row
is counted and survived.
"""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.replay.command import BOOK, CALL, ROW, Answer, call, kept, quotes, write_session
from tests.replay.days import minute_quotes, write_zip

Capture = pytest.CaptureFixture[str]


def fails(answer: Answer, folder: Path, code: int, *words: str) -> None:
    """One message with these words on stderr, nothing on stdout, nothing kept."""
    assert answer.code == code, answer
    assert answer.out == ""
    assert answer.err.startswith("evenkeel: ")
    assert "Traceback" not in answer.err
    assert "a fault of our own" not in answer.err
    for word in words:
        assert word in answer.err
    assert kept(folder) == []


def backtest(capsys: Capture, config: Path) -> Answer:
    return call(capsys, "backtest", config, "--json")


def edited(*edit: tuple[str, str]) -> Callable[[Path], Path]:
    return lambda folder: write_session(folder, edit=edit)


def booked(book: str) -> Callable[[Path], Path]:
    return lambda folder: write_session(folder, book=book)


def quoted(change: Callable[[list[str]], list[str]], feed: str = "") -> Callable[[Path], Path]:
    return lambda folder: write_session(folder, lines=change(quotes()), feed=feed)


def other_file(name: str, data: bytes, form: str = "csv") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = write_session(folder, edit=[('"quotes.csv"', f'"{name}"'), ('format = "csv"', f'format = "{form}"')])
        (folder / name).write_bytes(data)
        return path

    return make


def replaced(lines: list[str], row: int, text: str) -> list[str]:
    return [*lines[:row], text, *lines[row + 1 :]]


def crossed(line: str) -> str:
    return line.replace("SIM:XYZ,", "SIM:XYZ,999")


WHOLE = "\n".join(quotes()).encode() + b"\n"
FAULTS: dict[str, tuple[Callable[[Path], Path], int, tuple[str, ...]]] = {
    "missing file": (edited(('"quotes.csv"', '"absent.csv"')), 2, ("small.toml", "feeds.0.files", "absent.csv")),
    "missing book": (edited(('"book.csv"', '"absent.csv"')), 2, ("small.toml", "book.file", "absent.csv")),
    "a folder for a file": (edited(('"quotes.csv"', '"."')), 2, ("small.toml", "feeds.0.files", "expected a file")),
    "no zone in the config": (edited(("14:30:00Z", "14:30:00")), 2, ("small.toml", "session.start", "zone")),
    "wrong zone in the config": (edited(("14:30:00Z", "14:30:00 Mars/Base")), 2, ("small.toml", "session.start", "zone")),
    "end before start": (edited(("15:30:00Z", "13:30:00Z")), 2, ("small.toml", "session.end")),
    "no zone in a row": (
        quoted(lambda lines: replaced(lines, 5, f"2025-03-03T14:32:00,{CALL},2,3,1,1")),
        3,
        ("quotes.csv:6", "zone"),
    ),
    "unknown key": (edited(("remark", "remrak")), 2, ("small.toml", "pricing.remrak", "remark")),
    "unknown section": (edited(("[storage]", "[stroage]")), 2, ("small.toml", "stroage")),
    "wrong type": (edited(('remark = "1m"', "remark = 60")), 2, ("small.toml", "pricing.remark", "60")),
    "wrong kind": (edited(('"delta_hedger"', '"gamma_hedger"')), 5, ("small.toml", "strategies", "gamma_hedger")),
    "not toml": (edited(("[book]", "[book")), 2, ("small.toml",)),
    "no schema": (edited(("schema_version = 1\n", "")), 2, ("small.toml", "schema_version")),
    "later schema": (edited(("schema_version = 1", "schema_version = 99")), 2, ("small.toml", "schema_version", "99")),
    "nan in the config": (edited(('vol = "implied"', 'vol = "implied"\nrate = nan')), 2, ("small.toml", "pricing.rate")),
    "empty book": (booked(BOOK), 2, ("book.csv",)),
    "book without header": (booked(""), 2, ("book.csv",)),
    "expired option": (booked(BOOK + ROW.replace("2025-03-21", "2025-02-21")), 2, ("book.csv", "expired")),
    "unknown instrument": (booked("instrument,quantity\nNOT AN OPTION,5\n"), 2, ("book.csv", "2", "NOT AN OPTION")),
    "quantity in words": (booked(BOOK + ROW.replace(",10\n", ",ten\n")), 2, ("book.csv", "quantity", "ten")),
    "infinite quantity": (booked(BOOK + ROW.replace(",10\n", ",1e999\n")), 2, ("book.csv", "quantity")),
    "quantity of zero": (booked(BOOK + ROW.replace(",10\n", ",0\n")), 2, ("book.csv", "quantity")),
    "an option nobody quotes": (
        booked(BOOK + ROW + ROW.replace(",100,2025", ",250,2025")),
        3,
        ("quotes.csv", "XYZ   250321C00250000"),
    ),
    "hedge of something not held": (
        edited(('underlying = "SIM:XYZ"', 'underlying = "SIM:ABC"')),
        2,
        ("small.toml", "hedges", "SIM:ABC"),
    ),
    "underlying without a source": (
        quoted(lambda lines: [line for line in lines if "SIM:XYZ" not in line]),
        3,
        ("SIM:XYZ",),
    ),
    "prints asked for, quotes found": (
        lambda folder: write_session(folder, feed='underlying = "trades"'),
        3,
        ("SIM:XYZ", "trades"),
    ),
    "time runs backwards": (
        quoted(lambda lines: [*lines[:9], lines[3], *lines[9:]]),
        3,
        ("quotes.csv:10", "14:31:00"),
    ),
    "empty file": (other_file("q.csv", b""), 3, ("q.csv", "empty")),
    "header only": (other_file("q.csv", WHOLE.split(b"\n")[0] + b"\n"), 3, ("q.csv",)),
    "no header": (other_file("q.csv", b"\n".join(WHOLE.split(b"\n")[1:])), 3, ("q.csv",)),
    "not text": (other_file("q.csv", bytes(range(128, 256)) * 50), 3, ("q.csv",)),
    "truncated gzip": (other_file("q.csv.gz", gzip.compress(WHOLE)[:-40]), 3, ("q.csv.gz",)),
    "not gzip": (other_file("q.csv.gz", WHOLE), 3, ("q.csv.gz",)),
    "truncated parquet": (other_file("q.parquet", b"PAR1" + bytes(200), "parquet"), 3, ("q.parquet",)),
    "every row refused": (
        quoted(lambda lines: [lines[0], *(f"{line.split(',')[0]},{line.split(',')[1]},9,8,1,1" for line in lines[1:])]),
        3,
        ("SIM:XYZ",),
    ),
    "too many refused": (
        quoted(lambda lines: replaced(replaced(lines, 9, crossed(lines[9])), 11, crossed(lines[11])), "max_refused = 1"),
        3,
        ("quotes.csv", "2", "crossed", "max_refused"),
    ),
    "session elsewhere in time": (edited(("2025-03-03", "2025-02-03")), 3, ("small.toml", "never began")),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_file_is_one_message_and_nothing_is_kept(name: str, tmp_path: Path, capsys: Capture) -> None:
    """Each fault has its exit code and a message naming the file and place; no document, no traceback, no folder."""
    make, code, words = FAULTS[name]
    fails(backtest(capsys, make(tmp_path)), tmp_path, code, *words)


def test_all_faults_of_a_config_are_told_at_once(tmp_path: Path, capsys: Capture) -> None:
    """Three faults of one file are three lines of one message."""
    path = write_session(tmp_path, edit=[("remark", "remrak"), ('"5m"', '"soon"'), ('name = "small"', "name = 7")])
    answer = backtest(capsys, path)
    fails(answer, tmp_path, 2, "pricing.remrak", "interval", "name")


def test_all_faults_of_a_book_are_told_at_once(tmp_path: Path, capsys: Capture) -> None:
    """Each bad row is a line with its number and column."""
    book = BOOK + ROW.replace(",10\n", ",ten\n") + ROW + ROW.replace("call", "kall")
    fails(
        backtest(capsys, write_session(tmp_path, book=book)),
        tmp_path,
        2,
        "book.csv: line 2: quantity",
        "book.csv: line 4: cp",
    )


BAD_ROWS = {
    "crossed": "{ts},SIM:XYZ,101,99,1,1",
    "nan": "{ts},SIM:XYZ,nan,99,1,1",
    "infinite": "{ts},SIM:XYZ,1e999,1e999,1,1",
    "zero": "{ts},SIM:XYZ,0,0,1,1",
    "negative": "{ts},SIM:XYZ,-5,99,1,1",
    "words": "{ts},SIM:XYZ,about ten,99,1,1",
    "ragged": "{ts},SIM:XYZ,1,2,3,4,5,6,7",
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_fault_of_a_row_is_counted_and_survived(name: str, tmp_path: Path, capsys: Capture) -> None:
    """One bad row changes no fill: it is refused under a reason, and the run goes on on the last good quote."""
    good = backtest(capsys, write_session(tmp_path / "good")).json()
    lines = quotes()
    bad = BAD_ROWS[name].format(ts="2025-03-03T14:45:30Z")
    lines.insert(1 + 2 * 16, bad)
    answer = backtest(capsys, write_session(tmp_path / "bad", lines=lines))
    assert answer.code == 0, answer
    found = answer.json()
    assert sum(found["feed"]["refused"].values()) == 1
    assert found["books"] == good["books"]


def test_bad_rows_are_counted_by_reason(tmp_path: Path, capsys: Capture) -> None:
    """Different faults stand under different reasons, and their sum is what was written wrong."""
    lines = quotes()
    for row in BAD_ROWS.values():
        lines.insert(1 + 2 * 16, row.format(ts="2025-03-03T14:45:30Z"))
    refused = backtest(capsys, write_session(tmp_path, lines=lines)).json()["feed"]["refused"]
    assert sum(refused.values()) == len(BAD_ROWS)
    assert refused["crossed"] == 1
    assert len(refused) >= 3


def test_rows_may_be_refused_up_to_the_limit(tmp_path: Path, capsys: Capture) -> None:
    """As many as `max_refused` are survived; one more is fatal."""
    lines = quotes()
    lines.insert(33, "2025-03-03T14:45:30Z,SIM:XYZ,101,99,1,1")
    assert backtest(capsys, write_session(tmp_path / "a", lines=lines, feed="max_refused = 1")).code == 0
    answer = backtest(capsys, write_session(tmp_path / "b", lines=lines, feed="max_refused = 0"))
    fails(answer, tmp_path / "b", 3, "quotes.csv", "crossed")


# --------------------------------------------------------------------------- recorded days in LEAN's form


def lean_session(folder: Path, *, root: str | None) -> Path:
    """A session on made minute bars of a share and a call, laid out as LEAN's Data folder does."""
    feed = 'resolution = "minute"\ndates = ["2025-03-03"]' + (f'\nroot = "{root}"' if root is not None else "")
    return write_session(
        folder,
        book="instrument,quantity\n" + CALL + ",10\n",
        feed=feed,
        edit=[
            ('format = "csv"\nfiles = ["quotes.csv"]', 'format = "lean"'),
            ("SIM:XYZ", "US:XYZ"),
        ],
    )


def write_share(folder: Path) -> Path:
    """Two zips of 61 minute bars from 09:29 New York: the share around 100, its call around 2.50."""
    share = folder / "equity/usa/minute/xyz/20250303_quote.zip"
    mids = [100 + minute % 7 for minute in range(61)]
    write_zip(share, {"20250303_xyz_minute_quote.csv": minute_quotes(569, mids, half=0.01)})
    option = folder / "option/usa/minute/xyz/20250303_quote_american.zip"
    name = "20250303_xyz_minute_quote_american_call_1000000_20250321.csv"
    write_zip(option, {name: minute_quotes(569, [2.5 + (mid - 100) / 2 for mid in mids], half=0.05)})
    return share


def test_a_lean_folder_is_played(tmp_path: Path, capsys: Capture) -> None:
    """The made folder is a good one, so that the faults below are the only ones."""
    write_share(tmp_path / "lean")
    answer = backtest(capsys, lean_session(tmp_path, root="lean"))
    assert answer.code == 0, answer
    assert answer.json()["books"]["dynamic"]["trades"] > 5


def test_no_data_root_is_told(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `root` nor EVENKEEL_DATA: the message names both."""
    monkeypatch.delenv("EVENKEEL_DATA", raising=False)
    fails(backtest(capsys, lean_session(tmp_path, root=None)), tmp_path, 2, "root", "EVENKEEL_DATA")


def test_a_wrong_data_root_is_told(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """EVENKEEL_DATA names a folder that is not there: the message says which."""
    monkeypatch.setenv("EVENKEEL_DATA", str(tmp_path / "gone"))
    answer = backtest(capsys, lean_session(tmp_path, root=None))
    assert answer.code in {2, 3}
    fails(answer, tmp_path, answer.code, "gone")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _no_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w"):
        pass


def _words(path: Path) -> None:
    write_zip(path, {"20250303_xyz_minute_quote.csv": ["not,a,bar"] * 10})


def _backwards(path: Path) -> None:
    rows = minute_quotes(569, [100.0] * 61, half=0.01)
    write_zip(path, {"20250303_xyz_minute_quote.csv": [*rows[:20], rows[3], *rows[20:]]})


DAMAGE = {"truncated": _truncate, "flipped": _flip, "empty": _no_members, "words": _words, "backwards": _backwards}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_zip_is_told(damage: str, tmp_path: Path, capsys: Capture) -> None:
    """A zip that is cut, changed, empty, of another form or out of order: the message names it."""
    share = write_share(tmp_path / "lean")
    DAMAGE[damage](share)
    fails(backtest(capsys, lean_session(tmp_path, root="lean")), tmp_path, 3, "20250303_quote.zip")


def test_a_day_without_its_file_is_told(tmp_path: Path, capsys: Capture) -> None:
    """A missing day names the file expected."""
    write_share(tmp_path / "lean").unlink()
    fails(backtest(capsys, lean_session(tmp_path, root="lean")), tmp_path, 3, "20250303_quote.zip", "US:XYZ")


# --------------------------------------------------------------------------- the disk


@pytest.mark.parametrize("room", [100, 3_000, 8_000])
def test_a_disk_that_fills_up_keeps_nothing(room: int, tmp_path: Path) -> None:
    """When no file may grow beyond a few kilobytes the run ends with one message and leaves no folder behind."""
    config = write_session(tmp_path)
    code = (
        "import resource, signal, sys\n"
        "from bot.app.cli import app, run_verb\n"
        "import bot.app.runs, numba\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "sys.exit(run_verb(lambda: app(['backtest', sys.argv[1], '--json'], standalone_mode=False)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(config), str(room)], capture_output=True, text=True, check=False
    )
    fails(Answer(done.returncode, done.stdout, done.stderr), tmp_path, 9, str(tmp_path / "runs"))


def test_a_runs_path_that_is_a_file_is_told(tmp_path: Path, capsys: Capture) -> None:
    """The runs folder cannot be made where a file lies."""
    config = write_session(tmp_path)
    (tmp_path / "runs").write_text("a file")
    answer = backtest(capsys, config)
    assert (answer.code, answer.out) == (9, "")
    assert f"{tmp_path / 'runs'}: cannot be a folder of runs" in answer.err
    assert "a fault of our own" not in answer.err
    assert (tmp_path / "runs").read_text() == "a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_runs_folder_that_may_not_be_written_is_told(tmp_path: Path, capsys: Capture) -> None:
    """A folder without write permission is a message with exit code 9."""
    config = write_session(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs").chmod(stat.S_IRUSR | stat.S_IXUSR)
    fails(backtest(capsys, config), tmp_path, 9, "runs")


def test_a_failed_run_leaves_the_one_before(tmp_path: Path, capsys: Capture) -> None:
    """A good run stays when the same config fails later."""
    config = write_session(tmp_path)
    assert backtest(capsys, config).code == 0
    before = kept(tmp_path)
    lines = (tmp_path / "quotes.csv").read_text().splitlines()
    (tmp_path / "quotes.csv").write_text("\n".join([*lines[:9], lines[3], *lines[9:]]) + "\n")
    answer = backtest(capsys, config)
    assert (answer.code, answer.out) == (3, "")
    assert kept(tmp_path) == before
    assert len(before) == 1


def test_help_and_wrong_words(tmp_path: Path, capsys: Capture) -> None:
    """A verb or option that does not exist is exit code 2 and one message; nothing is printed on stdout."""
    for words in (["backtset"], ["backtest"], ["backtest", "x.toml", "--jsn"], ["explain", "latest"]):
        answer = call(capsys, *words)
        assert (answer.code, answer.out) == (2, ""), words
        assert "Traceback" not in answer.err
