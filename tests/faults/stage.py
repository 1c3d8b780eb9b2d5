"""A stage is a folder with a venue process and the daemon processes that trade there; every process ends with the test.

Processes live in real time, so tests here sleep: for load to pass before a kill, and to see that nothing is sent in a while.
Everything else is waited for by what the daemon's status says.

Law: what is compared was written by others: the venue's ledger by the venue, the journal's records by the daemon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from bot.app.words import leave_word, read_status
from bot.engine.facts import Executed, Ordered, VenueSaid
from bot.engine.journal import JournalReader
from bot.testing.line_venue import Ledger

STOCK = "SIM:ACME"
BOOK = """instrument,underlying,type,quantity,style,settlement,multiplier,price,vol
ACME  270319C00100000,SIM:ACME,option,-50,european,cash,100,3.0,0.3
ACME  270319P00100000,SIM:ACME,option,-50,european,cash,100,3.0,0.3
"""
CONFIG = """schema_version = 1
name = "line"
[session]
start = "2026-01-01T00:00:00Z"
begin = "immediate"
report_grid = "1m"
[[feeds]]
kind = "line"
options = {{port = {port}}}
[book]
file = "book.csv"
price_source = "file"
[pricing]
vol = "fixed"
vol_value = 0.3
[[hedges]]
underlying = "SIM:ACME"
instrument = "SIM:ACME"
[[strategies]]
kind = "delta_hedger"
policy = {{kind = "delta_band", half_width = 2}}
[broker]
kind = "line"
options = {{port = {port}}}
[storage]
durability = "live"
{more}"""


class Stage:
    """One venue and the daemon of one book."""

    def __init__(self, folder: Path, *venue_words: str, more: str = "") -> None:
        self.folder = folder
        self.live = folder / "runs" / "line-live"
        self.daemon: subprocess.Popen[bytes] | None = None
        self._words = venue_words
        self._more = more
        self._venue: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        ledger = str(self.folder / "ledger.json")
        words = [
            "--instrument",
            STOCK,
            "--ledger",
            ledger,
            "--with-parent",
            "--vol",
            "1.5",
            "--rate",
            "50",
            *self._words,
        ]
        self._venue = subprocess.Popen(
            [sys.executable, "-m", "bot.testing.line_venue", *words], stdout=subprocess.PIPE, cwd=self.folder
        )
        assert self._venue.stdout is not None
        self.port = int(self._venue.stdout.readline())
        (self.folder / "book.csv").write_text(BOOK, encoding="utf-8")
        (self.folder / "live.toml").write_text(CONFIG.format(port=self.port, more=self._more), encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self.daemon, self._venue):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    # ------------------------------------------------------------------ the daemon

    def start(
        self, *, config: str = "live.toml", log_to: Path | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """A daemon process over the stage's journal, its log in the stage's folder unless told."""
        words = [sys.executable, "-m", "bot.app.cli", "run", config]
        with (log_to or self.folder / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                words, cwd=self.folder, stdout=log, stderr=log, env={**os.environ, **environment}
            )
        return self.daemon

    def kill(self) -> None:
        """kill -9."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def stop(self, *, within: float = 10.0) -> int:
        """SIGTERM; the exit code. TimeoutExpired when it takes longer."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(within)

    def status(self) -> dict[str, Any]:
        """What the running daemon last wrote; empty before it has."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found = read_status(self.live)
            if self.daemon is not None and found["pid"] == self.daemon.pid:
                return found
        return {}

    def wait_for(self, seen: Callable[[dict[str, Any]], bool], *, seconds: float = 30.0) -> dict[str, Any]:
        """The first status that shows it; AssertionError with the log when none does in time or the daemon ends."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status = self.status()
            if status and seen(status):
                return status
            assert self.daemon is not None
            if self.daemon.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"not seen in {seconds} s: {self.status()}\n{self.log()[-3000:]}")

    def wait_ready(self) -> dict[str, Any]:
        """Until it trades."""
        return self.wait_for(lambda status: status["state"] == "READY")

    def log(self) -> str:
        """All that daemons of this stage wrote."""
        return (self.folder / "daemon.log").read_text("utf-8", errors="replace")

    # ------------------------------------------------------------------ the two records

    def ledger(self) -> Ledger:
        """What the venue did."""
        return msgspec.json.decode((self.folder / "ledger.json").read_bytes(), type=Ledger)

    def facts(self) -> Iterator[Any]:
        """What the journal of the dynamic account holds, every record proved."""
        for step in JournalReader(self.live / "journal.evk"):
            yield from (fact for fact in step.facts if fact.account == "dynamic")

    def settle(self) -> None:
        """Halt, so that nothing new begins, and ask the venue until nothing is under way: its words may be lost on the line."""
        leave_word(self.live, "halt", "the test is over")
        self.wait_for(lambda status: bool(status["halted"]))
        for _ in range(30):
            asked = self.status().get("counts", {}).get("reconciled", 0)
            leave_word(self.live, "reconcile")
            told = self.wait_for(lambda status, asked=asked: status["counts"].get("reconciled", 0) > asked)  # type: ignore[misc]  # bound now
            if not told["orders"]:
                return
        raise AssertionError(f"orders still under way: {self.status()}\n{self.log()[-3000:]}")


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """Both records side by side."""

    lost: list[str]
    """Fills of the venue that the journal does not hold."""
    repeated: list[str]
    """Fills the journal holds more than once."""
    invented: list[str]
    """Fills the journal holds and the venue never made."""
    undecided: list[str]
    """Orders of the journal that have no outcome there."""
    unknown_orders: list[str]
    """Orders the venue saw and the journal does not hold."""
    ours: Decimal
    theirs: Decimal


def compare(stage: Stage) -> Books:
    """The venue's ledger against the journal; call when the daemon has ended."""
    ledger = stage.ledger()
    filled: list[str] = []
    asked: dict[str, Decimal] = {}
    over: set[str] = set()
    held = Decimal(0)
    for fact in stage.facts():
        if isinstance(fact, Ordered):
            asked[fact.order.id] = fact.order.quantity
        elif isinstance(fact, Executed):
            filled.append(fact.fill.id)
            held += fact.fill.quantity
            asked[fact.fill.order_id] -= fact.fill.quantity
        elif isinstance(fact, VenueSaid) and fact.what in {"rejected", "cancelled"}:
            over.add(fact.order_id)
    theirs = {fill.id for fill in ledger.fills}
    return Books(
        lost=sorted(theirs - set(filled)),
        repeated=sorted({key for key in filled if filled.count(key) > 1}),
        invented=sorted(set(filled) - theirs),
        undecided=sorted(key for key, left in asked.items() if left and key not in over),
        unknown_orders=sorted(set(ledger.orders) - set(asked)),
        ours=held,
        theirs=ledger.positions.get(STOCK, Decimal(0)),
    )
