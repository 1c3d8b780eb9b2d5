"""Faults of the machine and of people at a daemon in a process of its own: a full disk, SIGTERM at random, two at one book."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from bot.app.words import leave_word
from bot.engine.facts import Ordered
from bot.engine.journal import JournalReader, verify
from tests.faults.stage import Stage, compare

NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_sigterm_at_random_ends_clean(tmp_path: Path) -> None:
    """Under load, told to stop at any moment, it ends with 0 within 10 seconds; nothing is lost and the next start agrees."""
    rng = random.Random(3)
    with Stage(tmp_path, "--faults", "0.02,0.02,0.02") as stage:
        for number in range(12):
            stage.start()
            if number % 4 != 3:
                stage.wait_ready()
                time.sleep(rng.uniform(0.0, 1.0))
            else:
                stage.wait_for(bool)
            assert stage.stop(within=10.0) == 0
            assert verify(stage.live / "journal.evk").torn_bytes == 0
        stage.start()
        stage.wait_ready()
        stage.settle()
        assert stage.stop() == 0
        books = compare(stage)
        assert (books.lost, books.repeated, books.invented, books.undecided) == ([], [], [], [])
        assert books.ours == books.theirs


def test_a_full_disk_stops_orders_at_once_and_hedging_goes_on_with_space(tmp_path: Path) -> None:
    """While the journal cannot be written no order leaves; the status says why at once; with space it goes on."""
    with Stage(tmp_path) as stage:
        daemon = stage.start()
        stage.wait_ready()
        stage.wait_for(lambda status: status["counts"].get("commits", 0) > 20)
        full = (stage.live / "journal.evk").stat().st_size
        for _ in range(4):
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (full, NO_LIMIT[1]))
            faults = stage.status().get("counts", {}).get("commit faults", 0)
            held = stage.wait_for(
                lambda status, faults=faults: status["counts"].get("commit faults", 0) > faults,  # type: ignore[misc]  # bound now
                seconds=20.0,
            )
            seen = stage.ledger().seen
            time.sleep(0.5)
            known = {f.order.id for f in stage.facts() if isinstance(f, Ordered)}
            assert set(stage.ledger().orders) <= known  # nothing went out that is not on the disk
            assert stage.ledger().seen - seen <= 1
            assert "the journal cannot be written" in str(held["frozen"])
            resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, NO_LIMIT)
            stage.wait_for(
                lambda status: not any("journal" in text for text in status["frozen"].values()), seconds=10.0
            )
            fills = len(stage.ledger().fills)
            stage.wait_for(lambda _, fills=fills: len(stage.ledger().fills) > fills, seconds=30.0)  # type: ignore[misc]  # bound now
            full = (stage.live / "journal.evk").stat().st_size
        stage.settle()
        assert stage.stop() == 0
        books = compare(stage)
        assert (books.lost, books.repeated, books.invented, books.undecided) == ([], [], [], [])
        assert books.ours == books.theirs


def test_a_second_daemon_on_one_journal_is_refused(tmp_path: Path) -> None:
    """It ends with a sentence and exit code 6, and the first goes on undisturbed."""
    with Stage(tmp_path) as stage:
        first = stage.start()
        stage.wait_ready()
        second = stage.start()
        assert second.wait(20) == 6
        assert "another process holds this journal" in stage.log()
        assert first.poll() is None
        stage.daemon = first
        assert stage.stop() == 0


def test_of_two_hedgers_on_one_book_the_older_is_shut_out(tmp_path: Path) -> None:
    """A zombie with a journal of its own loses the lease: the venue refuses it, it freezes, and never trades again."""
    with Stage(tmp_path) as stage:
        zombie = stage.start()
        stage.wait_ready()
        stage.wait_for(lambda status: status["orders"] == {} and status["records"] > 10)
        shutil.copytree(stage.folder / "runs", stage.folder / "elsewhere")
        text = (stage.folder / "live.toml").read_text("utf-8")
        (stage.folder / "heir.toml").write_text(text.replace("[storage]", '[storage]\nruns = "elsewhere"'), "utf-8")
        heir = stage.start(config="heir.toml")
        stage.live = stage.folder / "elsewhere" / "line-live"
        stage.wait_ready()
        time.sleep(2.0)
        assert stage.stop() == 0
        stage.live, stage.daemon = stage.folder / "runs" / "line-live", zombie
        status = stage.wait_for(lambda status: any("lease" in text for text in status["frozen"].values()))
        before = {key for key in stage.ledger().orders if key.startswith("dynamic-e1-")}
        time.sleep(1.0)
        assert {key for key in stage.ledger().orders if key.startswith("dynamic-e1-")} == before
        assert status["state"] == "READY"
        assert heir.returncode == 0


def test_a_control_file_stops_and_a_halt_survives_the_restart(tmp_path: Path) -> None:
    """A halt by file sends nothing more; killed and started again it is still halted, until a person resumes it."""
    with Stage(tmp_path) as stage:
        stage.start()
        stage.wait_ready()
        stage.wait_for(lambda status: status["counts"].get("commits", 0) > 5)
        leave_word(stage.live, "halt", "test")
        time.sleep(0.5)
        seen = stage.ledger().seen
        time.sleep(1.0)
        assert stage.ledger().seen == seen
        stage.kill()
        stage.start()
        stage.wait_for(lambda status: status["state"] == "HALTED")
        time.sleep(1.0)
        assert stage.ledger().seen == seen
        leave_word(stage.live, "resume")
        stage.wait_ready()
        fills = len(stage.ledger().fills)
        stage.wait_for(lambda _: len(stage.ledger().fills) > fills, seconds=60.0)
        assert stage.stop() == 0


def test_a_feed_that_stops_stops_orders(tmp_path: Path) -> None:
    """Quotes stall, repeat and come late: no order is made on one older than the bound, and hedging goes on with fresh ones."""
    more = '[limits]\nstale_after = "1s"\n'
    with Stage(tmp_path, "--feed-faults", "0.01,0.1,0.05", more=more) as stage:
        stage.start()
        stage.wait_ready()
        time.sleep(15.0)
        stage.settle()
        assert stage.stop() == 0
        orders = [f.order for f in stage.facts() if isinstance(f, Ordered)]
        assert len(orders) > 3
        for order in orders:
            assert order.reference is not None
            assert order.ts - order.reference.ts <= 1_000_000_000
        assert compare(stage).ours == compare(stage).theirs


@pytest.mark.parametrize("reader", ["full disk", "asleep"])
def test_a_log_that_nobody_takes_stops_nothing(reader: str, tmp_path: Path) -> None:
    """With its log on a full disk, or in a pipe whose reader sleeps, the daemon trades and ends as ever."""
    where = Path("/dev/full")
    if reader == "asleep":
        where = tmp_path / "pipe"
        os.mkfifo(where)
        asleep = os.open(where, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(asleep, fcntl.F_SETPIPE_SZ, 4096)
    with Stage(tmp_path, "--reject", "0.3") as stage:
        stage.start(log_to=where)
        stage.wait_ready()
        fills = len(stage.ledger().fills)
        stage.wait_for(lambda _: len(stage.ledger().fills) > fills + 5, seconds=60.0)
        stage.settle()
        assert stage.stop() == 0
        assert compare(stage).ours == compare(stage).theirs


def test_every_record_of_a_live_journal_can_be_read_again(tmp_path: Path) -> None:
    """The file decodes to the last record the daemon counted, and steps are numbered without a gap."""
    with Stage(tmp_path) as stage:
        stage.start()
        stage.wait_ready()
        time.sleep(1.0)
        assert stage.stop() == 0
        steps = list(JournalReader(stage.live / "journal.evk"))
        assert [step.seq for step in steps] == list(range(len(steps)))
        status = msgspec.json.decode((stage.live / "status.json").read_bytes())
        assert len(steps) == status["records"] == status["durable"]
