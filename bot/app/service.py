"""A service is a live session as a process: its folder, signals, status file and way out; law: started again it goes on.

The folder of a live run is `<runs>/<name>-live`: journal, status and control files. It outlives processes and releases;
a finished session's result, samples and report are written beside the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from bot import __version__
from bot.app import config as configs
from bot.app.live import LiveSession, LiveSettings, State
from bot.app.runs import CONFIG, INSTRUMENTS, JOURNAL, storage_faults
from bot.app.wiring import Run, assemble
from bot.core.errors import StorageError
from bot.core.events import Control
from bot.domain.units import Nanos, iso

STATUS: Final = "status.json"
CONTROL: Final = "control"
LEAST_FREE: Final = 500 << 20
"""Bytes a disk must have free before anybody begins to trade on it."""


class MachineClock:
    """The machine's wall clock, and its time since boot, suspends included. Implements `LiveClock`."""

    def now(self) -> Nanos:
        """UTC."""
        return time.time_ns()

    def monotonic(self) -> Nanos:
        """Since boot."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a live session stands, for people and probes; nothing in it is secret."""

    state: State
    why: str
    run: str
    pid: int
    release: str
    config_hash: str
    at: str
    records: int
    durable: int
    recovered: int
    ready_after_s: float | None
    positions: dict[str, str]
    orders: dict[str, int]
    frozen: dict[str, str]
    not_ready: str
    counts: dict[str, int]
    commit_ms: dict[str, float]
    tasks: dict[str, str]
    refusals: dict[str, int]
    alarms: int


def folder_of(config: configs.Config) -> Path:
    """Where a live run of this config lives."""
    return config.storage.runs / f"{config.name}-live"


def status_of(session: LiveSession, run: Run, began: Nanos) -> Status:
    """How it stands now."""
    account = session.loop.accounts[0]
    orders: dict[str, int] = {}
    for order_id in account.open_ids:
        name = str(account.orders[order_id].status)
        orders[name] = orders.get(name, 0) + 1
    ready = session.reached.get("READY")
    seconds = sorted(session.journal.commit_seconds)
    return Status(
        state=session.state,
        why=session.why,
        run=run.run_id,
        pid=os.getpid(),
        release=__version__,
        config_hash=configs.config_hash(run.config),
        at=iso(session.time.now()),
        records=session.journal.seq,
        durable=session.journal.durable,
        recovered=run.recovered,
        ready_after_s=None if ready is None else round((ready - began) / 1e9, 3),
        positions={key: str(quantity) for key, quantity in account.ledger.quantities().items()},
        orders=orders,
        frozen=dict(account.frozen),
        not_ready=session.loop.not_ready,
        counts=dict(session.counts),
        commit_ms={
            f"p{q}": round(seconds[min(len(seconds) - 1, len(seconds) * q // 100)] * 1e3, 3)
            for q in (50, 99)
            if seconds
        },
        tasks={} if session.tasks is None else {task.task: task.status for task in session.tasks.states()},
        refusals=dict(account.refusals),
        alarms=len(session.loop.alarms),
    )


def serve(config: configs.Config, *, say: Callable[[str], None], settings: LiveSettings | None = None) -> State:
    """Run a config as a live session until it is stopped or its session ends; the state it ended in."""
    folder = folder_of(config)
    with storage_faults(folder, "; nothing was sent"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_full_disk(folder)
        began = _process_start()
        run = assemble(config, journal=folder / JOURNAL, run_id=folder.name)
        (folder / INSTRUMENTS).write_bytes(msgspec.json.format(msgspec.json.encode(list(run.universe)), indent=1))
        (folder / CONFIG).write_text(configs.show(config), encoding="utf-8")
    return asyncio.run(_attend(run, folder, began, say, settings))


def _process_start() -> Nanos:
    """When the system started this process, on the wall clock: imports count as part of getting ready."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        return time.time_ns() - age
    return time.time_ns()


def _refuse_full_disk(folder: Path) -> None:
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < LEAST_FREE:
        raise StorageError(f"{folder}: expected at least {LEAST_FREE >> 20} MiB free to begin, found {free >> 20}")


async def _attend(
    run: Run, folder: Path, began: Nanos, say: Callable[[str], None], settings: LiveSettings | None
) -> State:
    loop = asyncio.get_running_loop()
    journal, committer = run.journal, run.committer
    assert committer is not None
    session = LiveSession(
        loop=run.loop,
        journal=journal,  # type: ignore[arg-type]  # `assemble` makes a live one where there is a committer
        committer=committer,
        feeds=run.feeds,
        clock=MachineClock(),
        rng=Random(),
        settings=settings,
        release=__version__,
        config_hash=configs.config_hash(run.config),
    )
    committer.done = lambda fault: _pass_on(loop, session, fault)
    session.on_state = lambda state: say(_words(state, session, run))
    _listen_to_signals(loop, session)
    helpers = [
        loop.create_task(_write_status(session, run, folder, began), name="status"),
        loop.create_task(_read_control(session, folder), name="control file"),
    ]
    try:
        await session.run()
    finally:
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        write_status(session, run, folder, began)
    return session.state


def _pass_on(loop: asyncio.AbstractEventLoop, session: LiveSession, fault: OSError | None) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop has ended: nobody is left to tell
        loop.call_soon_threadsafe(session.committed, fault)


def _words(state: State, session: LiveSession, run: Run) -> str:
    told = {
        "RECOVER": f"{run.recovered} records recovered",
        "RECONCILE": "asking the venue",
        "HALTED": session.why,
    }.get(state, "")
    return f"{state}{': ' + told if told else ''}"


def _listen_to_signals(loop: asyncio.AbstractEventLoop, session: LiveSession) -> None:
    """SIGTERM and SIGINT drain, a second one ends at once; SIGUSR1 halts: no new order, open ones are cancelled."""
    told: list[int] = []

    def stop(number: int) -> None:
        if told:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        told.append(number)
        session.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    word = Control(ts_recv=0, verb="kill", argument="cancel_all", operator="signal")
    loop.add_signal_handler(signal.SIGUSR1, session.tell, word)


async def _write_status(session: LiveSession, run: Run, folder: Path, began: Nanos) -> None:
    while True:
        write_status(session, run, folder, began)
        await asyncio.sleep(0.25 if session.state != "READY" else 1.0)


def write_status(session: LiveSession, run: Run, folder: Path, began: Nanos) -> None:
    """The status as a file, replaced whole; a disk that is full changes nothing else."""
    aside = folder / f"{STATUS}.part"
    with contextlib.suppress(OSError):
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(status_of(session, run, began)), indent=1) + b"\n")
        aside.replace(folder / STATUS)


async def _read_control(session: LiveSession, folder: Path) -> None:
    """Words left in the control file, one a line, `verb argument`; the file is taken away once they are read."""
    path = folder / CONTROL
    while True:
        await asyncio.sleep(0.1)
        if not path.exists():
            continue
        with contextlib.suppress(OSError):
            taken = path.with_suffix(".taken")
            path.replace(taken)
            for line in taken.read_text("utf-8").splitlines():
                verb, _, argument = line.strip().partition(" ")
                if verb:
                    session.tell(Control(ts_recv=0, verb=verb, argument=argument.strip(), operator="control file"))
            taken.unlink()


def leave_word(folder: Path, verb: str, argument: str = "") -> None:
    """Leave a word for the process that serves a folder."""
    path = folder / CONTROL
    aside = path.with_suffix(f".{os.getpid()}")
    before = path.read_text("utf-8") if path.exists() else ""
    aside.write_text(f"{before}{verb} {argument}\n", encoding="utf-8")
    aside.replace(path)


def read_status(folder: Path) -> dict[str, Any]:
    """The last status written in a folder."""
    return msgspec.json.decode((folder / STATUS).read_bytes())  # type: ignore[no-any-return]  # our own file
