"""A service is a live session as a process: its folder, signals, status file and way out; law: started again it goes on.

The folder of a live run is `<runs>/<name>-live`: journal, status and control files. It outlives processes and releases;
a finished session's result, samples and report are written beside the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import structlog

from bot import __version__
from bot.app import config as configs
from bot.app.health import Approve, Command, HealthOptions, HealthServer, Kill, Routes, Tighten
from bot.app.live import LiveSession, LiveSettings, State
from bot.app.logs import Logs, Secrets
from bot.app.metrics import Build, Metrics, Reading
from bot.app.notify import Check, Watchdog, ask, below, from_environment, moving
from bot.app.runs import CONFIG, INSTRUMENTS, JOURNAL, storage_faults
from bot.app.supervisor import Supervisor, TaskEvent
from bot.app.watches import LagWatch
from bot.app.wiring import Run, assemble
from bot.app.words import CONTROL, STATUS
from bot.core.errors import StorageError
from bot.core.events import Control
from bot.core.ports import Feed
from bot.domain.orders import OrderStatus
from bot.domain.units import NEVER, NS_PER_SECOND, Nanos, iso
from bot.engine.journal import Alarmed, Controlled, Executed, LiveJournal, Ordered, VenueSaid
from bot.engine.kill import Rung
from bot.pricing import black

PORT: Final = "health.port"
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
    """From the start of the process, imports included; `ready_cpu_s` is the processor time it took of that."""
    ready_cpu_s: float | None
    positions: dict[str, str]
    orders: dict[str, int]
    halted: str
    kill: str
    kill_rung: int
    mode: str
    frozen: dict[str, str]
    not_ready: str
    counts: dict[str, int]
    commit_ms: dict[str, float]
    tasks: dict[str, str]
    refusals: dict[str, int]
    alarms: int


def status_of(session: LiveSession, run: Run, began: Nanos, ready_cpu: float | None = None) -> Status:
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
        ready_cpu_s=ready_cpu,
        positions={key: str(quantity) for key, quantity in account.ledger.quantities().items()},
        orders=orders,
        halted=account.halted,
        kill=account.gate.kill.words,
        kill_rung=int(account.gate.kill.rung),
        mode=account.gate.mode.words,
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


def settings_of(config: configs.Config) -> LiveSettings:
    """The patience of a live session, from [daemon]."""
    daemon = config.daemon
    return LiveSettings(
        ack_timeout=daemon.ack_timeout / NS_PER_SECOND,
        reconcile_every=daemon.reconcile_every / NS_PER_SECOND,
        drain=daemon.drain / NS_PER_SECOND,
        dead_man=daemon.dead_man / NS_PER_SECOND,
        book=config.name,
        holder=f"{socket.gethostname()}:{os.getpid()}",
    )


def serve(config: configs.Config) -> State:
    """Run a config as a live session until it is stopped or its session ends; the state it ended in."""
    folder = config.storage.runs / f"{config.name}-live"
    secrets = Secrets(value.get_secret_value() for value in config.secret_values())
    with Logs(style=config.daemon.log, secrets=secrets) as logs, storage_faults(folder, "; nothing was sent"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_full_disk(folder)
        began = _process_start()
        run = assemble(config, journal=folder / JOURNAL, run_id=folder.name)
        black.warmup()  # no kernel is loaded while a tick waits
        (folder / INSTRUMENTS).write_bytes(msgspec.json.format(msgspec.json.encode(list(run.universe)), indent=1))
        (folder / CONFIG).write_text(configs.show(config), encoding="utf-8")
        return asyncio.run(Service(run, folder, began, logs).run())


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


class Service:
    """One process around one live session."""

    def __init__(self, run: Run, folder: Path, began: Nanos, logs: Logs) -> None:
        journal, committer = run.journal, run.committer
        assert isinstance(journal, LiveJournal) and committer is not None
        self.run_ = run
        self.folder = folder
        self.began = began
        self._logs = logs
        self._log = structlog.get_logger("evenkeel").bind(book=run.config.name)
        self._committer = committer
        self._lag = LagWatch()
        self._notifier, self._watchdog_period = from_environment()
        self.session = LiveSession(
            loop=run.loop,
            journal=journal,
            committer=committer,
            feeds=run.feeds,
            clock=MachineClock(),
            rng=Random(),
            settings=settings_of(run.config),
            release=__version__,
            config_hash=configs.config_hash(run.config),
            mode=run.accounts[0].gate.mode.words,
        )
        self.session.on_state = self._say_state
        run.loop.bus.subscribe(Controlled, lambda _: self.write_status(), serves="status")
        run.loop.bus.subscribe(Alarmed, self._say_alarm, serves="log")
        self._orders: dict[str, int] = {}
        self._ready_cpu: float | None = None
        for kind in (Ordered, VenueSaid, Executed):
            run.loop.bus.subscribe(kind, self._count_order, serves="metrics")

    async def run(self) -> State:
        """Live to the end."""
        loop = asyncio.get_running_loop()
        self._committer.done = lambda fault: _pass_on(loop, self.session, fault)
        listen_to_signals(loop, self.session)
        try:
            async with Supervisor(rng=Random(), tell=self._say_task) as tasks:
                tasks.adapter("status", self._keep_status, essential=False)
                tasks.adapter("control file", lambda: read_control(self.session, self.folder), essential=False)
                tasks.adapter("lag", self._lag.run, essential=False)
                if self._watchdog_period is not None:
                    watchdog = Watchdog(self._notifier, self.checks(), period=self._watchdog_period)
                    tasks.adapter("watchdog", watchdog.run, essential=False)
                if self.run_.config.daemon.health_port is not None:
                    tasks.adapter("health", self._serve_health, essential=False)
                await self.session.run()
        finally:
            self.write_status()
            self._notifier.close()
        return self.session.state

    # ------------------------------------------------------------------ what is asked

    def checks(self) -> dict[str, Check]:
        """Whether loop, journal thread and hedger live, each as a reason why not."""
        return {
            "loop": below(lambda: self._lag.worst(asyncio.get_running_loop().time()), 5.0, "loop lag of seconds"),
            "journal": moving(lambda: self._committer.beats, "the journal thread"),
            "hedger": moving(lambda: self.session.counts.get("rounds", 0), "the hedger's loop"),
        }

    async def _serve_health(self) -> None:
        config = self.run_.config.daemon
        token = None
        if config.control_token is not None:
            token = self.run_.config.secret(config.control_token).get_secret_value()
        checks = self.checks()
        read = Metrics(self.reading, Build(__version__, configs.config_hash(self.run_.config), self.run_.run_id))
        routes = Routes(
            healthy=lambda: dict(ask(checks).why),
            ready=lambda: (
                {} if self.session.state == "READY" else {"state": f"{self.session.state} {self.session.why}"}
            ),
            metrics=read.text,
            status=lambda: msgspec.to_builtins(self.status()),
            control=None if token is None else self._obey,
        )
        options = HealthOptions(port=config.health_port or 0, token=token)
        async with HealthServer(routes, options, secrets=self._logs.secrets) as server:
            self._log.info("health", port=server.port)
            (self.folder / PORT).write_text(f"{server.port}\n", encoding="utf-8")
            await asyncio.Event().wait()

    def _obey(self, command: Command) -> dict[str, Any]:
        """Pass a person's word on to the engine; what came of it is in the journal and the status."""
        word = word_of(command)
        self.session.tell(word)
        return {"told": word.verb, "argument": word.argument}

    def status(self) -> Status:
        """How it stands now."""
        return status_of(self.session, self.run_, self.began, self._ready_cpu)

    def reading(self) -> Reading:
        """What a monitor is told."""
        session, account = self.session, self.run_.accounts[0]
        now = session.time.now()
        tasks = [] if session.tasks is None else session.tasks.states()
        unknown_now = 0
        unknown: dict[str, float] = {}
        for order_id in account.open_ids:
            state = account.orders[order_id]
            if state.status is OrderStatus.UNKNOWN:
                unknown_now += 1
                key = account.underlying_of(account.universe.get(state.order.instrument))
                unknown[key] = max(unknown.get(key, 0.0), (now - state.order.ts) / NS_PER_SECOND)
        return Reading(
            state=session.state,
            mode=account.gate.mode.stage,
            tick_age=_tick_ages(self.run_, now),
            loop_lag=self._lag.last,
            loop_lag_worst=self._lag.worst(asyncio.get_running_loop().time()),
            queue_depth={"inbox": len(session.inbox)},
            feed_rows={feed.name: _rows_of(feed) for feed in self.run_.feeds},
            orders=dict(self._orders),
            stale={account.underlying_of(account.universe.get(key)): 1 for key in session.stale},
            hedge_error=_hedge_errors(self.run_, now),
            open_orders=len(account.open_ids),
            refusals={code: n for code, n in account.refusals.items() if not code.startswith("venue:")},
            rejects={
                code.removeprefix("venue:"): n for code, n in account.refusals.items() if code.startswith("venue:")
            },
            unknown_age=unknown,
            unknown_orders=unknown_now,
            commit_waiting=session.journal.waiting,
            commit=session.commit_latency.counts(),
            decision=session.decision_latency.counts(),
            restarts={task.task: max(0, task.starts - 1) for task in tasks},
            circuits={task.task: task.status == "open" for task in tasks},
            kill_level=int(account.gate.kill.rung),
            frozen={key or "everything": True for key in account.frozen},
            clock_jumps=session.counts.get("clock steps", 0),
            log_lines=self._logs.stats()._asdict(),
            disk_free=_free(self.folder),
        )

    # ------------------------------------------------------------------ what is told

    async def _keep_status(self) -> None:
        while True:
            self.write_status()
            await asyncio.sleep(1.0 if self.session.state == "READY" else 0.25)

    def write_status(self) -> None:
        """The status as a file, replaced whole; a disk that is full changes nothing else."""
        aside = self.folder / f"{STATUS}.part"
        with contextlib.suppress(OSError):
            aside.write_bytes(msgspec.json.format(msgspec.json.encode(self.status()), indent=1) + b"\n")
            aside.replace(self.folder / STATUS)

    def _say_state(self, state: State) -> None:
        if state == "HALTED":
            self._log.error("state", state=state, why=self.session.why)
        else:
            self._log.info("state", state=state, recovered=self.run_.recovered)
        if state == "READY":
            self._ready_cpu = self._ready_cpu or round(time.process_time(), 3)
            self._notifier.ready()
        elif state in {"DRAIN", "STOPPED"}:
            self._notifier.stopping()
        else:
            self._notifier.status(state)
        self.write_status()

    def _say_alarm(self, fact: Alarmed) -> None:
        if fact.account != self.run_.accounts[0].name:
            return  # a shadow's is in the journal: the log would say everything once an account
        alarm = fact.alarm
        self._log.warning(
            "alarm",
            code=alarm.code,
            text=alarm.text,
            underlying=alarm.underlying,
            action=alarm.action,
            account=fact.account,
        )

    def _count_order(self, fact: Ordered | VenueSaid | Executed) -> None:
        """How many orders of the traded account came to each state since the start."""
        if fact.account != self.run_.accounts[0].name:
            return
        state = "submitted" if isinstance(fact, Ordered) else "filled" if isinstance(fact, Executed) else fact.what
        self._orders[state] = self._orders.get(state, 0) + 1

    def _say_task(self, event: TaskEvent) -> None:
        if event.what in {"failed", "opened", "permanent"}:
            self._log.warning("task", task=event.task, what=event.what, fault=repr(event.fault), wait=event.wait)


def word_of(command: Command) -> Control:
    """What the engine is told for a command that came over HTTP."""
    match command:
        case Kill():
            verb, argument = "kill", f"{command.level}: {command.reason}"
        case Tighten():
            verb, argument = "tighten", f"{command.limit}={command.value}"
        case Approve():
            verb, argument = "approve" if command.approve else "decline", command.order
    return Control(ts_recv=0, verb=verb, argument=argument, operator="http")


def _tick_ages(run: Run, now: Nanos) -> dict[str, float]:
    """By underlying, how old its newest quote is; those never quoted are left out."""
    ages: dict[str, float] = {}
    for key in run.loop.needed:
        seen = run.loop.marks.quote_times[run.universe.index(key)]
        if seen != NEVER:
            ages[key] = (now - seen) / NS_PER_SECOND
    return ages


def _hedge_errors(run: Run, now: Nanos) -> dict[str, float]:
    """By underlying, the net delta of everything on it, orders under way half counted, less what it is hedged to."""
    errors: dict[str, float] = {}
    for hedge in {hedge for slot in run.accounts[0].slots for hedge in getattr(slot.strategy, "hedges", ())}:
        found = run.accounts[0].gate.net_delta(hedge.underlying, now)
        target = hedge.target_delta
        middle = (found.low + found.high) / 2.0
        low, high = target if isinstance(target, tuple) else (target, target)
        errors[hedge.underlying] = middle - min(max(middle, low), high)
    return errors


def _rows_of(feed: Feed) -> dict[str, int]:
    report = feed.report()
    return {"taken": report.quotes + report.trades, "bad": sum(report.refused.values())}


def _free(folder: Path) -> int | None:
    with contextlib.suppress(OSError):
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize
    return None


def _pass_on(loop: asyncio.AbstractEventLoop, session: LiveSession, fault: OSError | None) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop has ended: nobody is left to tell
        loop.call_soon_threadsafe(session.committed, fault)


def listen_to_signals(loop: asyncio.AbstractEventLoop, session: LiveSession) -> None:
    """SIGTERM and SIGINT drain, a second one ends at once; SIGRTMIN+1 to +5 pull that rung of the kill ladder, SIGUSR1
    cancels all and SIGUSR2 flattens."""
    told: list[int] = []

    def stop(number: int) -> None:
        if told:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        told.append(number)
        session.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    rungs = {int(signal.SIGUSR1): Rung.CANCEL_ALL, int(signal.SIGUSR2): Rung.FLATTEN}
    rungs |= {int(signal.SIGRTMIN) + int(rung): rung for rung in list(Rung)[1:]}
    for pulled, rung in rungs.items():
        word = Control(ts_recv=0, verb="kill", argument=rung.word, operator="signal")
        loop.add_signal_handler(pulled, session.tell, word)


async def read_control(session: LiveSession, folder: Path) -> None:
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
