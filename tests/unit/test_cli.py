"""The command line: every verb, its document, its exit code; numbers on stdout, words on stderr."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bot import __version__
from tests.replay.command import call, kept, write_session

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small session was run and kept."""
    folder = tmp_path_factory.mktemp("stored")
    config = write_session(folder)
    done = evenkeel("backtest", str(config), "--json")
    assert done.returncode == 0, done.stderr
    return folder


def evenkeel(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    code = "from bot.app.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


def one(folder: Path) -> Path:
    (name,) = kept(folder)
    return folder / "runs" / name


KEYS = {"run_id", "config_hash", "feed", "orders", "fills", "refusals", "books", "timing"}
PNL = {"total", "options", "hedge", "spread_cost", "commission", "impact", "financing"}
TERMS = {"delta", "gamma", "theta", "vega", "vanna", "volga", "carry", "cost", "residual"}
BOOK = {
    *("pnl", "attribution", "trades", "units_traded", "closing_trades", "closing_units", "pnl_std"),
    *("max_drawdown", "hedge_effectiveness"),
}


def test_backtest_prints_one_document_with_its_promised_keys(tmp_path: Path, capsys: Capture) -> None:
    """stdout is one JSON document, stderr is silent, and the run is kept under its id."""
    answer = call(capsys, "backtest", write_session(tmp_path), "--json")
    document = answer.json()
    assert (answer.code, answer.err) == (0, "")
    assert set(document) >= KEYS
    assert set(document["books"]) == {"dynamic", "static", "none"}
    for book in document["books"].values():
        assert set(book) >= BOOK
        assert set(book["pnl"]) == PNL
        assert set(book["attribution"]) == TERMS
    assert kept(tmp_path) == [document["run_id"]]


def test_backtest_without_json_shows_a_table_and_says_where_the_run_is(tmp_path: Path, capsys: Capture) -> None:
    """The table goes to stdout, the words to stderr, and no terminal codes are written."""
    answer = call(capsys, "backtest", write_session(tmp_path))
    assert answer.code == 0
    assert "dynamic" in answer.out
    assert "spread cost" in answer.out
    assert "run kept in" in answer.err
    assert "\x1b" not in answer.out + answer.err


def test_no_store_keeps_nothing(tmp_path: Path, capsys: Capture) -> None:
    """With --no-store the document is the same and no folder appears."""
    assert call(capsys, "backtest", write_session(tmp_path), "--no-store", "--json").code == 0
    assert kept(tmp_path) == []


def test_a_repeated_backtest_takes_the_place_of_the_first(tmp_path: Path, capsys: Capture) -> None:
    """The same config gives the same id and digest, and one folder."""
    config = write_session(tmp_path)
    first, again = (call(capsys, "backtest", config, "--json").json() for _ in range(2))
    assert (first["run_id"], first["facts_digest"]) == (again["run_id"], again["facts_digest"])
    assert kept(tmp_path) == [first["run_id"]]


def test_config_check_says_well_or_every_fault(tmp_path: Path, capsys: Capture) -> None:
    """A good file: exit 0 and its hash; a bad one: exit 2 and no document."""
    config = write_session(tmp_path)
    answer = call(capsys, "config", "check", config, "--json")
    assert answer.code == 0
    assert answer.json()["positions"] == 1
    config.write_text(config.read_text().replace("remark", "remrak"))
    answer = call(capsys, "config", "check", config, "--json")
    assert (answer.code, answer.out) == (2, "")
    assert "pricing.remrak" in answer.err


def test_config_show_is_a_config_that_means_the_same(tmp_path: Path, capsys: Capture) -> None:
    """What `show` prints loads again to the same hash; as JSON it is the same table."""
    config = write_session(tmp_path)
    shown = call(capsys, "config", "show", config)
    assert shown.code == 0
    copy = tmp_path / "copy.toml"
    copy.write_text(shown.out)
    hashes = {call(capsys, "config", "check", path, "--json").json()["config_hash"] for path in (config, copy)}
    assert len(hashes) == 1
    assert call(capsys, "config", "show", config, "--json").json()["session"]["base_currency"] == "USD"


def test_config_schema_and_migrate(tmp_path: Path, capsys: Capture) -> None:
    """The schema is a JSON schema; a present file migrates to itself and --write leaves it as it was."""
    assert "properties" in call(capsys, "config", "schema").json()
    config = write_session(tmp_path)
    before = config.read_text()
    answer = call(capsys, "config", "migrate", config, "--write", "--json")
    assert answer.code == 0
    assert answer.json()["changed"] is False
    assert config.read_text() == before
    assert not list(tmp_path.glob("*.bak"))
    assert call(capsys, "config", "migrate", tmp_path / "absent.toml").code == 2


def test_plugins_list_names_the_built_ins(capsys: Capture) -> None:
    """Every group has its built-ins, all ready."""
    found = call(capsys, "plugins", "list", "--json").json()["plugins"]
    own = {(item["group"], item["name"]) for item in found if item["builtin"]}
    assert own >= {
        ("feeds", "replay"), ("feeds", "synthetic"), ("feeds", "dataset"), ("brokers", "paper"),
        ("strategies", "delta_hedger"), ("policies", "delta_band"),
    }  # fmt: skip
    assert {item["status"] for item in found if item["builtin"]} == {"ready"}
    assert "paper" in call(capsys, "plugins", "list").out


def test_book_check_reads_or_lists_every_bad_row(tmp_path: Path, capsys: Capture) -> None:
    """A good book is described; a bad one is exit 2; one expired by --as-of is a fault too."""
    write_session(tmp_path)
    book = tmp_path / "book.csv"
    answer = call(capsys, "book", "check", book, "--json")
    assert answer.code == 0
    assert "XYZ   250321C00100000" in answer.out
    assert call(capsys, "book", "check", book).code == 0
    late = call(capsys, "book", "check", book, "--as-of", "2025-04-01T00:00:00Z", "--json")
    assert (late.code, late.out) == (2, "")
    assert "expired" in late.err
    assert call(capsys, "book", "check", book, "--as-of", "tomorrow").code == 2
    assert call(capsys, "book", "check", tmp_path / "absent.csv").code == 2


def test_doctor_looks_at_the_installation(capsys: Capture) -> None:
    """Every check has a state and a sentence, and none is bad here."""
    answer = call(capsys, "doctor", "--json")
    assert answer.code == 0, answer.out
    assert {check["name"] for check in answer.json()["checks"]} >= {
        "python",
        "libraries",
        "kernels",
        "data root",
        "plugins",
    }
    assert call(capsys, "doctor").code == 0


def test_version(capsys: Capture) -> None:
    """The release, alone."""
    assert call(capsys, "version").out == f"{__version__}\n"


def test_init_lays_out_a_folder_that_runs(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an empty folder: init, then a backtest of the built-in session there; a second init overwrites nothing."""
    monkeypatch.setenv("EVENKEEL__SESSION__END", "2025-03-03T15:00:00Z")
    place = tmp_path / "desk"
    written = call(capsys, "init", place, "--json").json()["written"]
    assert "synthetic.toml" in written
    (place / "synthetic.toml").write_text((place / "synthetic.toml").read_text() + "\n# mine\n")
    answer = call(capsys, "backtest", place / "synthetic.toml", "--json")
    assert answer.code == 0, answer
    assert kept(place) == [answer.json()["run_id"]]
    assert call(capsys, "init", place, "--json").json()["written"] == []
    assert (place / "synthetic.toml").read_text().endswith("# mine\n")


def test_a_name_alone_is_a_shipped_example_run_from_anywhere(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`backtest synthetic.toml` in an empty folder runs the example and keeps the run in that folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENKEEL__SESSION__END", "2025-03-03T14:40:00Z")
    answer = call(capsys, "backtest", "synthetic.toml", "--json")
    assert answer.code == 0, answer
    assert kept(tmp_path) == [answer.json()["run_id"]]


def test_journal_verify_proves_the_chain_and_names_a_broken_record(
    stored: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A whole journal is exit 0; one flipped byte, or a cut tail, is exit 6."""
    whole = call(capsys, "journal", "verify", one(stored), "--json")
    assert (whole.code, whole.json()["agrees_with_result"]) == (0, True)
    copy = tmp_path / "copy"
    shutil.copytree(one(stored), copy)
    journal = copy / "journal.evk"
    data = bytearray(journal.read_bytes())
    journal.write_bytes(data[:-7])
    assert call(capsys, "journal", "verify", copy, "--json").code == 6
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    broken = call(capsys, "journal", "verify", copy, "--json")
    assert (broken.code, broken.out) == (6, "")
    assert "record" in broken.err
    journal.unlink()
    assert call(capsys, "journal", "verify", copy).code == 6


def test_a_run_that_is_not_there_is_exit_code_8(stored: Path, capsys: Capture) -> None:
    """Every verb about a run says which runs are known."""
    runs = stored / "runs"
    for words in (
        ["journal", "verify", "x"],
        ["report", "x"],
        ["explain", "x", "y"],
        ["export", "x", "--fills", "f.csv"],
    ):
        answer = call(capsys, *words, "--runs", runs, "--json")
        assert (answer.code, answer.out) == (8, ""), words
        assert one(stored).name in answer.err


def test_latest_and_beginnings_name_a_run(stored: Path, capsys: Capture) -> None:
    """`latest`, a beginning and the folder all find the same run."""
    for name in ("latest", "small", str(one(stored))):
        assert (
            call(capsys, "journal", "verify", name, "--runs", stored / "runs", "--json").json()["run_id"]
            == one(stored).name
        )


def test_report_export_and_explain_speak_of_the_same_run(stored: Path, tmp_path: Path, capsys: Capture) -> None:
    """The page is one HTML file, the CSV has every fill, and each order can be explained."""
    page = tmp_path / "page.html"
    assert call(capsys, "report", one(stored), "--out", page, "--json").json()["report"] == str(page)
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    table, events = tmp_path / "fills.csv", tmp_path / "events.parquet"
    assert call(capsys, "export", one(stored), "--fills", table, "--events", events, "--json").code == 0
    head, *rows = table.read_text().splitlines()
    assert head == "ts_ns,instrument,signed_qty,price,commission"
    result = json.loads((one(stored) / "result.json").read_text())
    assert len(rows) == result["books"]["dynamic"]["fills"] > 0
    assert events.read_bytes().startswith(b"PAR1")
    order = call(capsys, "explain", one(stored), "dynamic-000001", "--json")
    assert order.code == 0, order
    assert order.json()
    at = call(capsys, "explain", one(stored), "--at", "2025-03-03T14:47:00Z", "--json")
    assert at.code == 0, at
    assert call(capsys, "explain", one(stored), "no-such-order").code != 0
    assert call(capsys, "explain", one(stored), "a", "--at", "2025-03-03T14:47:00Z").code == 2
    assert call(capsys, "export", one(stored)).code == 2


def test_risk_values_the_book_and_sends_nothing(tmp_path: Path, capsys: Capture) -> None:
    """Greeks at an instant, a scenario and a hypothetical order; nothing is kept."""
    config = write_session(tmp_path)
    words: list[str | Path] = [
        "risk",
        config,
        "--at",
        "2025-03-03T15:00:00Z",
        "--scenario",
        "spot=-5%,vol=+3",
        "--add",
        "-5 SIM:XYZ",
    ]
    answer = call(capsys, *words, "--json")
    assert answer.code == 0, answer
    assert answer.json()
    assert call(capsys, *words).code == 0
    assert kept(tmp_path) == []
    assert call(capsys, "risk", config, "--scenario", "spot=wide").code == 2
    assert call(capsys, "risk", config, "--at", "2025-03-03T15:00:00").code == 2


UNDELIVERED: list[tuple[str, str]] = [
    ('kind = "delta_hedger"', 'kind = "delta_hedger"\non_fault = "hedge_only"'),
]


@pytest.mark.parametrize("edit", UNDELIVERED, ids=lambda pair: pair[1].split()[-1])
def test_what_is_named_but_not_delivered_is_exit_code_4(edit: tuple[str, str], tmp_path: Path, capsys: Capture) -> None:
    """It is refused by name before anything runs."""
    answer = call(capsys, "backtest", write_session(tmp_path, edit=[edit]), "--json")
    assert (answer.code, answer.out, kept(tmp_path)) == (4, "", [])
    assert "not delivered" in answer.err


def test_a_plug_in_that_is_not_allowed_is_exit_code_5(tmp_path: Path, capsys: Capture) -> None:
    """An unknown strategy names the config and the known ones."""
    answer = call(capsys, "backtest", write_session(tmp_path, edit=[('"delta_hedger"', '"mine"')]), "--json")
    assert (answer.code, answer.out) == (5, "")
    assert "delta_hedger" in answer.err


def test_faults_leave_no_traceback_in_a_process_of_its_own(tmp_path: Path) -> None:
    """As a user meets it: one line on stderr, an exit code, an empty stdout."""
    config = write_session(tmp_path, lines=["ts,instrument,bid,ask", "yesterday,SIM:XYZ,1,2"])
    done = evenkeel("backtest", str(config), "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("evenkeel: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_paced_run_at_once(number: signal.Signals, tmp_path: Path) -> None:
    """Told to stop while it waits for the next quote, the run closes its hedge there, is kept whole and exits 0."""
    config = write_session(tmp_path, feed='pace = "60x"')
    code = "from bot.app.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "run", str(config), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        assert "session_started" in running.stderr.readline()
        running.send_signal(number)
        out, err = running.communicate(timeout=50)
    assert running.returncode == 0, err
    document: dict[str, Any] = json.loads(out)
    assert kept(tmp_path) == [document["run_id"]]
    dynamic = document["books"]["dynamic"]
    assert document["session"]["end"] < "2025-03-03T15:00:00Z"
    assert dynamic["closing_trades"] == 1
    assert set(dynamic["positions"]) == {"XYZ   250321C00100000"}
    verified = evenkeel("journal", "verify", str(tmp_path / "runs" / document["run_id"]), "--json")
    assert verified.returncode == 0, verified.stderr


def test_run_ends_when_its_feed_ends(tmp_path: Path, capsys: Capture) -> None:
    """At full speed the daemon plays to the end and keeps a run named with its start, beside any backtest."""
    config = write_session(tmp_path)
    assert call(capsys, "backtest", config, "--json").code == 0
    answer = call(capsys, "run", config, "--json")
    assert answer.code == 0, answer
    assert len(kept(tmp_path)) == 2
    assert answer.json()["run_id"] in kept(tmp_path)
