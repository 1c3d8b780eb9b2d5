"""A world in virtual time: a daemon with the real engine, journal and outbox, a venue that outlives it, and faults by seed.

Law: everything that happens is drawn from the seed; what is asserted is asserted of the real parts, never of this file.

One `Sim` is one street, one venue, one disk and one daemon after another. A daemon dies at an instant or at a named point
of its own code (`POINTS`): between an append and its commit, between a write and its sync, a commit and its command, a
command and its answer. Every source of chance has a stream of its own, so that a fault of the venue moves nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import Context
from decimal import Decimal
from random import Random
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from adapters.paper import PaperBroker, PaperOptions
from bot.app.live import LiveSession, LiveSettings
from bot.core.errors import Permanent
from bot.core.events import Control, FeedEvent, Target, TargetLine, VenueEvent
from bot.core.ports import Broker, Capabilities, FeedReport, Hedge, InLoopBroker, Snapshot, Strategy, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.domain.instruments import Instrument, Spot, Universe
from bot.domain.market import Quote
from bot.domain.orders import Order
from bot.domain.units import NS_PER_SECOND, Nanos
from bot.engine.account import Account
from bot.engine.gate import GateSettings
from bot.engine.journal import Header, LiveJournal, Step, open_live
from bot.engine.limits import LimitSettings
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.recovery import Recovered
from bot.engine.store import Store
from bot.engine.valuation import Valuation, ValuationSettings
from bot.testing.disk import FaultyDisk
from bot.testing.venue import Venue, VenueSettings
from bot.testing.virtual_time import Killed, Process, World
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from tests.simulation.bench import START, STOCK, option
from tests.simulation.invariants import Spied, Watch

D = Decimal
SECOND: Final = NS_PER_SECOND
OTHER = Spot(id="US:TWO", tick=D("0.01"), lot=D(1))
CALL = option(100, days=20)
HIGH_CALL = option(102, days=20)
PUT = option(50, days=20, cp=-1, underlying=OTHER.id, root="TWO")
INSTRUMENTS: Final[tuple[Instrument, ...]] = (STOCK, OTHER, CALL, HIGH_CALL, PUT)
OPENINGS: Final = (
    Opening(book="main", instrument=CALL.id, quantity=D(-6), mark=D(3)),
    Opening(book="main", instrument=PUT.id, quantity=D(-4), mark=D("1.5")),
    Opening(book="timed", instrument=HIGH_CALL.id, quantity=D(3), mark=D(2)),
)
HEADER = Header(run_id="sim", config_hash="sim", release="sim", durability="live")
STALE_AFTER: Final = 2 * SECOND
LIMITS: Final = LimitSettings(
    max_order_quantity=D(250), max_position=D(340), max_open_orders=6, stale_after=STALE_AFTER, price_collar=0.05
)
TURN: Final = 3 * SECOND
"""How often the strategy with resting orders turns."""

POINTS: Final = (
    "open", "read", "cut",
    "append", "commit", "written", "synced", "told",
    "submit", "submitted", "cancel", "cancelled",
    "lease", "leased", "hear", "ack", "acked", "snapshot", "answered",
    "decide", "clock",
)  # fmt: skip
"""Where a daemon can be killed by its own step, besides at any instant."""

OUTSIDE: Final = Context()
"""Callbacks of the world run in it: what is in the line does not die with whoever sent it."""


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How bad the world is. Shares of messages, or chances a second (`_rate`); times in seconds."""

    crash_every: float = 0.0
    restart_delay: float = 2.0
    power: float = 0.0
    zombie: float = 0.0
    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0
    unreachable_rate: float = 0.0
    wire_delay: float = 0.01
    disk: float = 0.0
    full_rate: float = 0.0
    hang: float = 0.0
    commit_delay: float = 0.002
    cut: float = 0.0
    stall: float = 0.0
    clock_rate: float = 0.0
    people_rate: float = 0.0
    partial: float = 0.3
    reject: float = 0.02
    race: float = 0.0

    @classmethod
    def drawn(cls, rng: Random) -> Faults:
        """A mix: some kinds of fault often, others never, so that rare meetings of two happen in some seed."""

        def some(chance: float, most: float) -> float:
            return rng.uniform(0.0, most) if rng.random() < chance else 0.0

        return cls(
            crash_every=rng.choice([0.0, 8.0, 15.0, 30.0, 60.0]),
            restart_delay=rng.choice([0.5, 3.0, 12.0]),
            power=some(0.5, 1.0),
            zombie=some(0.4, 0.8),
            lost=some(0.5, 0.15),
            repeated=some(0.5, 0.15),
            late=some(0.5, 0.15),
            unreachable_rate=some(0.4, 0.05),
            disk=some(0.4, 0.05),
            full_rate=some(0.3, 0.03),
            hang=some(0.3, 0.02),
            cut=some(0.3, 0.01),
            stall=some(0.4, 0.02),
            clock_rate=some(0.5, 0.05),
            people_rate=some(0.5, 0.06),
            partial=rng.uniform(0.0, 0.6),
            reject=some(0.5, 0.1),
            race=some(0.6, 0.7),
        )

    def calmed(self) -> Faults:
        """No fault any more."""
        return Faults(wire_delay=self.wire_delay, partial=0.0, reject=0.0)


class Machine:
    """The machine's clocks: `now` is the wall, which may leap or stand; `monotonic` never lies. Implements `LiveClock`.

    `true` is what the rest of the world goes by.
    """

    def __init__(self, world: World) -> None:
        self._loop = world.loop
        self._off: Nanos = 0
        self._slept: Nanos = 0
        self._frozen: Nanos | None = None

    def monotonic(self) -> Nanos:
        """Nanoseconds since the world began, suspends included."""
        return self._loop.elapsed_ns + self._slept

    def true(self) -> Nanos:
        """What time it is."""
        return START + SECOND + self.monotonic()

    def now(self) -> Nanos:
        """What the wall clock shows."""
        return self._frozen if self._frozen is not None else self.true() + self._off

    def jump(self, by: Nanos) -> None:
        """Step the wall clock."""
        self._off += by

    def set_right(self) -> None:
        """Set the wall clock by the world's."""
        self._off, self._frozen = 0, None

    def freeze(self) -> None:
        """Let the wall clock stand."""
        self._frozen = self.now()

    def suspend(self, seconds: float) -> None:
        """The machine slept: all clocks are further, and nothing ran."""
        self._slept += round(seconds * NS_PER_SECOND)


class Street:
    """The market: one price path for each stock, which everybody sees."""

    def __init__(self, rng: Random) -> None:
        self.mids = {STOCK.id: 100.0, OTHER.id: 50.0}
        self._rng = rng

    def move(self) -> None:
        """One step of the walk."""
        for key, mid in self.mids.items():
            self.mids[key] = round(max(5.0, mid * (1.0 + self._rng.gauss(0.0, 0.0012))), 2)

    def quote(self, instrument: str) -> tuple[Decimal, Decimal] | None:
        """Bid and ask at the venue; None for what it does not trade."""
        mid, half = self.mids.get(instrument), 0.01
        if instrument == CALL.id:
            mid, half = round(max(self.mids[STOCK.id] - 100.0, 0.0) + 2.0, 2), 0.05
        if mid is None:
            return None
        return D(str(round(mid - half, 2))), D(str(round(mid + half, 2)))


class StreetFeed:
    """The market as one daemon's live feed sees it: it stalls, breaks, comes late and twice. Implements `Feed`."""

    name = "street"
    recorded = False

    def __init__(self, daemon: Daemon, rng: Random) -> None:
        self._daemon, self._rng = daemon, rng
        self._report = FeedReport()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def events(self) -> AsyncIterator[FeedEvent]:
        """A quote of each stock a tick, for ever; now and then the line breaks or stalls."""
        sim, rng = self._daemon.sim, self._rng
        while True:
            await asyncio.sleep(sim.every * rng.uniform(0.8, 1.2))
            if rng.random() < sim.faults.cut:
                sim.seen["feed cut"] += 1
                raise ConnectionResetError("line cut")
            if rng.random() < sim.faults.stall:
                sim.seen["feed stalled"] += 1
                await asyncio.sleep(rng.uniform(0.5, 6.0))
            for key in (STOCK.id, OTHER.id):
                now = sim.machine.now()
                bid, ask = sim.street.quote(key) or (None, None)
                assert bid is not None and ask is not None
                self._daemon.ticks[key] = sim.machine.true()
                quote = Quote(instrument=key, ts_event=now, ts_recv=now, bid=float(bid), ask=float(ask))
                yield quote
                if rng.random() < sim.faults.repeated:
                    yield quote

    def report(self) -> FeedReport:
        """Nothing is counted."""
        return self._report


class Wire:
    """The line between one daemon and the venue: it loses, delays, repeats, reorders and breaks. Implements `Broker`,
    `Fenced`, `DeadMan` and `Acknowledges`."""

    def __init__(self, daemon: Daemon, rng: Random) -> None:
        self.capabilities = Capabilities(name="street venue", tombstones=True)
        self.epoch = 0
        self.held = False
        """While True nothing comes through either way, and what was sent waits in the line."""
        self._daemon, self._rng = daemon, rng
        self._sim = daemon.sim
        self._venue = daemon.sim.venue
        self._arrived: deque[VenueEvent] = deque()
        self._some = asyncio.Event()
        self._numbers: dict[int, tuple[int, VenueEvent]] = {}
        self._under_way: dict[int, float] = {}
        self._kept: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        self._refuse_if_down()
        self._arrived.clear()
        self._under_way.clear()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    # ---------------------------------------------------------------- what the daemon asks

    async def take_lease(self, book: str, holder: str) -> int:
        """Ask for the book."""
        self._daemon.passing("lease")
        await self._travel()
        self._refuse_if_down()
        self.epoch = self._venue.take_lease(holder)
        self._sim.holder = self._daemon
        self._daemon.passing("leased")
        return self.epoch

    async def submit(self, order: Order) -> None:
        """Hand an order to the line."""
        self._daemon.passing("submit")
        self._refuse_if_down()
        epoch = self.stamp()
        self._sim.watch.order_leaves(self._daemon, order)
        self._send("order", lambda: self._take_order(order, epoch))
        self._daemon.passing("submitted")
        await asyncio.sleep(0)

    async def cancel(self, order_id: str) -> None:
        """Hand a cancel to the line."""
        self._daemon.passing("cancel")
        self._refuse_if_down()
        epoch = self.stamp()
        self._send("cancel", lambda: self._venue.cancel(order_id, "dynamic", epoch, self._sim.machine.true()))
        self._daemon.passing("cancelled")
        await asyncio.sleep(0)

    async def keep_alive(self, seconds: float) -> None:
        """Start the venue's countdown anew."""
        self._refuse_if_down()
        epoch = self.stamp()
        self._send("beat", lambda: self._venue.keep_alive(seconds, epoch, self._sim.machine.true()))
        await asyncio.sleep(0)

    async def snapshot(self, since: Nanos) -> Snapshot:
        """The venue's word, there and back again."""
        self._daemon.passing("snapshot")
        await self._travel()
        self._refuse_if_down()
        if self._rng.random() < self._sim.faults.lost:
            self._sim.seen["answer lost"] += 1
            await asyncio.sleep(3600)
        said = self._venue.snapshot(since)
        await self._travel()
        if self._rng.random() < self._sim.faults.late:
            await asyncio.sleep(self._rng.uniform(0.2, 2.0))
        self._daemon.passing("answered")
        return said

    async def acknowledge(self, event: VenueEvent) -> None:
        """Tell the venue that this one is safe."""
        self._daemon.passing("ack")
        self._refuse_if_down()
        number = self._numbers[id(event)][0]
        self._sim.watch.acknowledged(self._daemon, event)
        self._send("ack", lambda: self._venue.acknowledge(number))
        self._daemon.passing("acked")
        await asyncio.sleep(0)

    async def events(self) -> AsyncIterator[VenueEvent]:
        """What the venue says: late, repeated, out of order; what was not acknowledged is said again."""
        while True:
            self._say_unacknowledged()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._some.wait()
            self._some.clear()
            self._refuse_if_down()
            if not self.held and self.epoch < self._venue.epoch:
                raise Permanent(f"lease: epoch {self.epoch} was superseded by {self._venue.epoch}")
            while self._arrived:
                event = self._arrived.popleft()
                self._daemon.passing("hear")
                yield event

    # ---------------------------------------------------------------- the line itself

    def stamp(self) -> int:
        """The epoch a command carries."""
        return self.epoch

    def news(self) -> None:
        """The venue has said something."""
        if self.epoch == self._venue.epoch and not self._daemon.process.dead:
            for number, event in self._venue.said[-2:]:
                if number not in self._under_way:
                    self._bring(number, event)

    def said_again(self, event: VenueEvent) -> None:
        """The venue says something that it has said, and that was acknowledged, long ago."""
        self._numbers[id(event)] = (-1, event)
        self._arrive(event)

    def release(self) -> None:
        """The line is free again: what waited in it arrives now."""
        self.held = False
        kept, self._kept = self._kept, []
        for act in kept:
            act()

    def _take_order(self, order: Order, epoch: int) -> None:
        self._sim.watch.order_arrives(self._daemon, order, epoch)
        self._venue.submit(order, epoch, self._sim.machine.true())

    def _say_unacknowledged(self) -> None:
        if self.held or self.epoch < self._venue.epoch:
            return
        now = self._sim.world.loop.time()
        for number, event in list(self._venue.said):
            if now - self._under_way.get(number, -1e9) > 2.0:
                self._bring(number, event)

    def _bring(self, number: int, event: VenueEvent) -> None:
        """Put a word of the venue into the line."""
        if self.held:
            return
        sim, rng = self._sim, self._rng
        now = self._under_way[number] = sim.world.loop.time()
        self._numbers[id(event)] = (number, event)
        if rng.random() < sim.faults.lost:
            sim.seen["word lost"] += 1
            return
        delay = sim.faults.wire_delay * (0.5 + rng.random())
        if rng.random() < sim.faults.late:
            sim.seen["word late"] += 1
            delay += rng.uniform(0.3, 4.0)
            self._under_way[number] = now + delay
        times = 1
        if rng.random() < sim.faults.repeated:
            sim.seen["word repeated"] += 1
            times = 2
        for _ in range(times):
            sim.world.loop.call_later(delay, self._arrive, event, context=OUTSIDE)
            delay += sim.faults.wire_delay * rng.random()

    def _arrive(self, event: VenueEvent) -> None:
        self._arrived.append(event)
        self._some.set()

    def _send(self, what: str, act: Callable[[], None]) -> None:
        sim, rng = self._sim, self._rng
        if rng.random() < sim.faults.lost:
            sim.seen[f"{what} lost"] += 1
            return
        delay = sim.faults.wire_delay * rng.random()
        if rng.random() < sim.faults.late:
            sim.seen[f"{what} late"] += 1
            delay += rng.uniform(0.5, 5.0)
        self._later(delay, act)
        if rng.random() < sim.faults.repeated:
            sim.seen[f"{what} repeated"] += 1
            self._later(delay + rng.random(), act)

    def _later(self, delay: float, act: Callable[[], None]) -> None:
        def arrive() -> None:
            if self.held:
                self._kept.append(act)
            else:
                act()

        self._sim.world.loop.call_later(delay, arrive, context=OUTSIDE)

    def _refuse_if_down(self) -> None:
        if self._sim.venue_down:
            raise ConnectionResetError("the venue cannot be reached")

    async def _travel(self) -> None:
        await asyncio.sleep(self._sim.faults.wire_delay * (0.5 + self._rng.random()))
        while self.held:
            await asyncio.sleep(0.2)


class Mount:
    """A disk as one daemon has it: each use is a point where it may die, and the dead change nothing. Implements `Store`."""

    def __init__(self, daemon: Daemon, disk: FaultyDisk) -> None:
        self.name = disk.name
        self.disk = disk
        self._daemon = daemon

    def open(self) -> int:
        """Take the disk."""
        self._daemon.passing("open")
        return self.disk.open()

    def read(self, start: int, length: int) -> bytes:
        """Bytes of it."""
        self._daemon.passing("read")
        return self.disk.read(start, length)

    def append(self, data: bytes) -> None:
        """Add bytes."""
        if self._daemon.process.dead:
            return  # the last words of the dead are written nowhere
        self._daemon.passing("commit")
        self.disk.append(data)
        self._daemon.passing("written")

    def sync(self) -> None:
        """Make them safe."""
        if self._daemon.process.dead:
            return
        self.disk.sync()
        self._daemon.passing("synced")

    def cut(self, size: int) -> None:
        """Drop what lies beyond."""
        if self._daemon.process.dead:
            return
        self._daemon.passing("cut")
        self._daemon.sim.seen["torn tail cut"] += 1
        self.disk.cut(size)

    def close(self) -> None:
        """Give it up."""
        if not self._daemon.process.dead:
            self.disk.close()


class Clock:
    """The machine's clock as one daemon reads it: whoever reads it may die of it. Implements `LiveClock`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def now(self) -> Nanos:
        """The wall."""
        if not self._daemon.process.dead:
            self._daemon.passing("clock")
        return self._daemon.sim.machine.now()

    def monotonic(self) -> Nanos:
        """The steady one."""
        return self._daemon.sim.machine.monotonic()


class TaskCommitter:
    """What commits a journal in virtual time: a task, after a while. Implements `Committer`."""

    def __init__(self, daemon: Daemon, rng: Random) -> None:
        self._daemon, self._rng = daemon, rng
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def nudge(self) -> None:
        """Something waits."""
        self._work.set()
        self._daemon.passing("append")

    def start(self, journal: LiveJournal) -> None:
        """Begin to commit."""
        self._task = asyncio.create_task(self._run(journal), name="journal")

    def stop(self) -> None:
        """Commit no more."""
        if self._task is not None:
            self._task.cancel()

    def alive(self) -> bool:
        """True while it runs."""
        return self._task is not None and not self._task.done()

    async def _run(self, journal: LiveJournal) -> None:
        sim = self._daemon.sim
        while True:
            await self._work.wait()
            self._work.clear()
            await asyncio.sleep(sim.faults.commit_delay * self._rng.random())
            if self._rng.random() < sim.faults.hang:
                sim.seen["disk hung"] += 1
                await asyncio.sleep(self._rng.uniform(0.5, 8.0))
            try:
                if journal.commit():
                    self._daemon.passing("told")
                    self._daemon.session.committed(None)
            except OSError as fault:
                sim.seen["commit failed"] += 1
                self._daemon.session.committed(fault)
                await asyncio.sleep(0.05)
                self._work.set()


class Turns(msgspec.Struct, frozen=True):
    """What the strategy with resting orders remembers."""

    done: int


class Rester:
    """A strategy by timers alone, with limit orders that rest, are turned round and filled in parts, and with options."""

    name = "rester"
    book = "rest"
    WANTS = (20, 45, -25, -25, 0, -40, 15, 30)
    AWAY = (0.03, -0.05, -0.30, 0.02, -0.10)

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._done = 0

    def start(self, view: StrategyView) -> Sequence[Target]:
        """Ask for the first timer."""
        self._ask(view)
        return ()

    def restore(self, view: StrategyView, memory: bytes) -> None:
        """Go on with the count; the timer asked for still rings."""
        turns = msgspec.json.decode(memory, type=Turns | None)
        self._done = 0 if turns is None else turns.done
        self._daemon.rang()

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """Turn: another holding of the stock at a limit, now and then of the option at the market."""
        self._daemon.passing("decide")
        self._daemon.rang()
        self._daemon.sim.seen["timer rang"] += 1
        self._done += 1
        view.memory(self.name, Turns(self._done))
        self._ask(view)
        k = self._done
        found: list[Target] = []
        mid = view.market.mid(view.universe.index(STOCK.id))
        if math.isfinite(mid):
            want = self.WANTS[k % len(self.WANTS)]
            up = want > view.exposure(STOCK.id)
            away = self.AWAY[k % len(self.AWAY)]
            limit = D(str(round(mid + (away if up else -away), 2)))
            found.append(self._want(STOCK.id, want, limit))
        if k % 4 == 0:
            found.append(self._want(CALL.id, (k // 4) % 3 - 1, None))
        return found

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """Nothing."""
        return ()

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """Nothing."""
        return ()

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """Timers alone."""
        return UNTIL_TIMER

    def watches(self) -> Sequence[str]:
        """The stock."""
        return (STOCK.id,)

    def trades(self) -> Sequence[str]:
        """The stock and an option."""
        return (STOCK.id, CALL.id)

    def _ask(self, view: StrategyView) -> None:
        view.wake_at(view.now + TURN, "turn")

    def _want(self, key: str, quantity: int, limit: Decimal | None) -> Target:
        line = TargetLine(key, D(quantity), float(quantity))
        if limit is None:
            return Target(book=self.book, lines=(line,), reason="turn")
        return Target(book=self.book, lines=(line,), reason="turn", kind="limit", tif="gtc", limits={key: limit})


class Defect:
    """What makes a daemon, and where a fault can be planted in it: each hook gives one part, here the sound one.

    Subclass it, name it, override a hook, and give it to `Sim(defect=...)`. `found_as` are the invariants that may find it.
    """

    name = "sound"
    found_as: tuple[str, ...] = ()

    def faults(self, drawn: Faults) -> Faults:
        """How bad the world is: a defect may ask for the weather that brings it out."""
        return drawn

    def wire(self, daemon: Daemon, rng: Random) -> Wire:
        """The line to the venue."""
        return Wire(daemon, rng)

    def store(self, mount: Mount) -> Store:
        """What the journal is written to."""
        return mount

    def recovered(self, accounts: list[Account]) -> Recovered:
        """What folds the journal at start."""
        return Recovered(accounts)

    def journal(self, journal: Spied) -> Spied:
        """The journal as loop, outbox and session see it."""
        return journal

    def strategies(self, daemon: Daemon, name: str) -> list[Strategy]:
        """Who trades in an account."""
        return daemon.strategies(name)

    def limits(self) -> LimitSettings:
        """What orders are held against, here and by the invariants."""
        return LIMITS

    def account(self, name: str, **parts: Any) -> Account:
        """An account."""
        return Account(name, **parts)

    def gate(self, account: Account) -> None:
        """Change the gate of an account that was just made."""

    def loop(self, loop: Loop) -> None:
        """Change a loop that was just made, its outbox for one."""

    def session(self, **parts: Any) -> LiveSession:
        """The live driver."""
        return LiveSession(**parts)

    def started(self, session: LiveSession) -> None:
        """Change a session that was just made, its time for one."""


SOUND: Final = Defect()


class Daemon:
    """One incarnation of the daemon: accounts, loop and session over the disk and the wire."""

    session: LiveSession
    journal: Spied
    loop: Loop

    def __init__(self, sim: Sim, process: Process, disk: FaultyDisk, number: int) -> None:
        self.sim, self.process, self.disk, self.number = sim, process, disk, number
        self.ticks: dict[str, Nanos] = {}
        self.rung_at: Nanos | None = None
        """When the strategy of timers was last called, by the world's time; None while nothing is due."""
        self.accounts: list[Account] = []
        self.mirror: list[Account] = []
        self.silent = False
        """True where nobody is to be called by timers for ever."""
        rng = sim.stream(f"death {number}")
        self._dies_at = rng.choice(POINTS) if sim.faults.crash_every and rng.random() < 0.5 else ""
        self._passes_left = rng.choice([0, 0, 1, 5, 30]) if self._dies_at != "clock" else rng.randrange(400)
        if sim.dies_at and number < 6:
            self._dies_at, self._passes_left = sim.dies_at, (0, 1, 2, 4, 10, 30)[number]
        self.wire = sim.defect.wire(self, sim.stream(f"wire {number}"))

    def passing(self, point: str) -> None:
        """The daemon is at a point of its code; it may end here and now."""
        if self.process.dead:
            raise Killed
        if point != self._dies_at:
            return
        self._passes_left -= 1
        if self._passes_left < 0:
            self.sim.seen[f"died at {point}"] += 1
            self.process.kill()
            raise Killed

    def rang(self) -> None:
        """The strategy of timers was called."""
        self.rung_at = self.sim.machine.true()

    async def live(self) -> None:
        """Recover, hedge, end."""
        self._assemble()
        await self.session.run()

    def _assemble(self) -> None:
        sim, defect = self.sim, self.sim.defect
        committer = TaskCommitter(self, sim.stream(f"commit {self.number}"))
        universe = Universe(INSTRUMENTS)
        marks = Marks(universe)
        valuation = Valuation(universe, marks, ValuationSettings(vol="fixed", vol_value=0.2))
        self.accounts = [self._account(name, universe, marks, valuation, defect) for name in ("dynamic", "shadow")]
        self.mirror = [self._account(a.name, universe, marks, valuation, SOUND, bare=True) for a in self.accounts]
        recovered = defect.recovered(self.accounts)
        true_fold = Recovered(self.mirror)

        def replayed(step: Step) -> None:
            true_fold.take(step)
            recovered.take(step)
            sim.watch.replayed(self, step)

        store: Store = defect.store(Mount(self, self.disk))
        sim.watch.begins(self)
        inner = open_live(store, HEADER, nudge=committer.nudge, replayed=replayed)
        sim.watch.recovered(self, inner.seq)
        self.journal = defect.journal(sim.watch.spied(self, inner))
        self.loop = Loop(
            settings=LoopSettings(start=START, begin="immediate", jump_freeze=None, snapshot_every=60),
            universe=universe,
            marks=marks,
            valuation=valuation,
            accounts=self.accounts,
            openings=OPENINGS,
            needed=[STOCK.id, OTHER.id],
            journal=self.journal,
        )
        defect.loop(self.loop)
        self.loop.recover(recovered)
        self.session = defect.session(
            loop=self.loop,
            journal=self.journal,
            committer=committer,
            feeds=[StreetFeed(self, sim.stream(f"feed {self.number}"))],
            clock=Clock(self),
            rng=sim.stream(f"session {self.number}"),
            release="sim",
            config_hash="sim",
            settings=LiveSettings(
                ack_timeout=1.0, reconcile_every=5.0, snapshot_timeout=2.0, drain=3.0, dead_man=8.0, holder="sim"
            ),
        )
        defect.started(self.session)

    def _account(
        self,
        name: str,
        universe: Universe,
        marks: Marks,
        valuation: Valuation,
        defect: Defect,
        *,
        bare: bool = False,
    ) -> Account:
        broker: InLoopBroker | Broker = self.wire
        if name != "dynamic":
            paper = PaperBroker(PaperOptions(), seed=1)
            paper.attach(universe, marks, name)
            broker = paper
        account = defect.account(
            name,
            universe=universe,
            marks=marks,
            valuation=valuation,
            broker=broker,
            strategies=[] if bare else defect.strategies(self, name),
            gate=GateSettings(limits=defect.limits()),
        )
        if not bare:
            defect.gate(account)
        return account

    def strategies(self, name: str) -> list[Strategy]:
        """A banded hedger of both stocks, one by the clock, and beside the venue's one with resting orders."""
        hedges = [
            Hedge(underlying=STOCK.id, instrument=STOCK.id),
            Hedge(underlying=OTHER.id, instrument=OTHER.id),
        ]
        banded = DeltaHedger(hedges=hedges, policy=DeltaBand(half_width=8.0), name="banded", book="main")
        timed = DeltaHedger(hedges=hedges[:1], policy=FixedInterval(interval="7s"), name="timed", book="timed")
        return [banded, timed, Rester(self)] if name == "dynamic" else [banded, timed]


def bare_accounts() -> list[Account]:
    """The accounts of this world with nobody in them, to fold records into."""
    universe = Universe(INSTRUMENTS)
    marks = Marks(universe)
    valuation = Valuation(universe, marks, ValuationSettings(vol="fixed", vol_value=0.2))
    accounts = []
    for name in ("dynamic", "shadow"):
        paper = PaperBroker(PaperOptions(), seed=1)
        paper.attach(universe, marks, name)
        accounts.append(Account(name, universe=universe, marks=marks, valuation=valuation, broker=paper, strategies=[]))
    return accounts


class Sim:
    """The world: street, venue, disk, and one daemon after another.

    `defect` plants a fault of the program: any object with the hooks of `Defect` (see docs/simulation.md). `broken` lists
    what was found broken, in order. `dies_at` names a point at which the first six daemons die, each a little later.
    """

    def __init__(
        self,
        world: World,
        faults: Faults | None = None,
        *,
        every: float = 0.5,
        dies_at: str = "",
        defect: Defect = SOUND,
    ) -> None:
        self._base = world.rng.random()
        self.world, self.every, self.defect, self.dies_at = world, every, defect, dies_at
        self.faults = defect.faults(Faults.drawn(self.stream("faults")) if faults is None else faults)
        self.just_slept = False
        """True for the moment after the machine woke: what fell due in its sleep has not been seen to yet."""
        self.seen: Counter[str] = Counter()
        """What happened how often."""
        self.machine = Machine(world)
        self.street = Street(self.stream("street"))
        self.disk = FaultyDisk(self.stream("disk"), fault_rate=self.faults.disk)
        self.venue = Venue(
            self.street.quote,
            rng=self.stream("venue"),
            settings=VenueSettings(partial=self.faults.partial, reject=self.faults.reject, race=self.faults.race),
        )
        self.venue.news = self._news
        self.venue_down = False
        self.holder: Daemon | None = None
        self.daemons: list[Daemon] = []
        self.daemon: Daemon | None = None
        self.watch = Watch(self)
        self._digest = hashlib.sha256()
        self._rng = self.stream("life")

    def stream(self, name: str) -> Random:
        """A source of chance of that name."""
        return Random(f"{self._base} {name}")

    @property
    def broken(self) -> list[str]:
        """What was found broken."""
        return self.watch.broken

    @property
    def starts(self) -> int:
        """How many daemons there were."""
        return len(self.daemons)

    def weather_turns(self, faults: Faults) -> None:
        """From now on the world is as bad as this."""
        self.faults = faults
        self.disk.fault_rate = faults.disk
        self.venue.settings = VenueSettings(partial=faults.partial, reject=faults.reject, race=faults.race)

    def digest(self) -> str:
        """A digest of everything that daemons recorded and the venue did."""
        whole = self._digest.copy()
        whole.update(repr([(f.id, f.ts, f.quantity, f.price) for f in self.venue.fills]).encode())
        whole.update(repr(sorted((key, held.status) for key, held in self.venue.orders.items())).encode())
        whole.update(repr(sorted(self.seen.items())).encode())
        return whole.hexdigest()

    async def live(self, seconds: float, *, settle: float = 25.0) -> None:
        """Let the world go on for a while, daemons dying and starting again, and end with one that was let to settle."""
        tasks = [asyncio.create_task(work, name=name) for name, work in self._lives_of_the_world()]
        loop = self.world.loop
        end = loop.time() + seconds
        while loop.time() < end and not self.broken:
            await self._one_life(min(end - loop.time(), self._draw_life()))
        for task in tasks[1:]:
            task.cancel()
        self._calm()
        if not self.broken:
            await self._last_life(settle)
        tasks[0].cancel()
        self.seen.update(
            {
                "partial fill": sum(1 for h in self.venue.orders.values() if h.fills > 1),
                "venue reject": sum(1 for h in self.venue.orders.values() if h.status == "rejected"),
                "late fill": self.venue.raced,
                "dead man": self.venue.dead_man_fired,
                "order twice": self.venue.repeated,
                "old epoch refused": self.venue.refused_epochs,
                "limit order": sum(1 for h in self.venue.orders.values() if h.order.kind == "limit"),
            }
        )

    # ------------------------------------------------------------------ daemons

    def _draw_life(self) -> float:
        return self._rng.expovariate(1.0 / self.faults.crash_every) if self.faults.crash_every else 1e9

    def _start(self) -> tuple[Daemon, asyncio.Task[None]]:
        number = len(self.daemons)
        process = self.world.process(f"daemon {number}")
        daemon = self.daemon = Daemon(self, process, self.disk, number)
        self.daemons.append(daemon)
        return daemon, process.spawn(daemon.live(), name=f"life {number}")

    async def _one_life(self, seconds: float) -> None:
        daemon, task = self._start()
        end = self.world.loop.time() + seconds
        while self.world.loop.time() < end and not (task.done() or daemon.process.dead or self.broken):
            await asyncio.sleep(min(0.5, end - self.world.loop.time()))
            self.watch.probe(daemon)
        if self.broken:
            return
        alive = not (task.done() or daemon.process.dead)
        state = getattr(daemon, "session", None)
        self.seen[f"ended in {state.state if state is not None else 'INIT'}"] += 1
        if alive and self._rng.random() < self.faults.zombie and daemon is self.holder:
            await self._haunt(daemon)
        else:
            self._end(daemon, task)
        await asyncio.sleep(self.faults.restart_delay * self._rng.random())

    def _end(self, daemon: Daemon, task: asyncio.Task[None]) -> None:
        """The process is gone, by its own end or not."""
        if task.done() and not daemon.process.dead:
            fault = task.exception()
            if fault is None:
                self.seen["stopped"] += 1
                self.watch.stopped(daemon)
            elif not isinstance(fault, OSError):
                self.watch.broke("daemon failed", f"{type(fault).__name__}: {fault}")
        daemon.process.kill()
        self._note_end(daemon)
        daemon.disk.crash(power=self._rng.random() < self.faults.power)
        self.watch.crashed(daemon)

    def _note_end(self, daemon: Daemon) -> None:
        journal = getattr(daemon, "journal", None)
        if journal is not None:
            self._digest.update(journal.chain + journal.seq.to_bytes(8, "little"))

    async def _haunt(self, daemon: Daemon) -> None:
        """The line of a daemon hangs, it is taken for dead, and a replica takes the book up; then the line is free again."""
        self.seen["zombie"] += 1
        daemon.wire.held = True
        await asyncio.sleep(self._rng.uniform(0.0, 4.0))
        if daemon.process.dead:
            self._note_end(daemon)
            daemon.disk.crash()
            self.watch.crashed(daemon)
            return
        self.disk = daemon.disk.fork()
        self.disk.full = False
        self.watch.forked(daemon)
        epoch = self.venue.epoch

        async def return_from_the_dead() -> None:
            while self.venue.epoch == epoch:
                await asyncio.sleep(0.2)
            await asyncio.sleep(self.stream(f"zombie {daemon.number}").uniform(0.0, 2.0))
            daemon.wire.release()
            await asyncio.sleep(8.0)
            daemon.process.kill()

        self._haunting = asyncio.create_task(return_from_the_dead(), name=f"zombie {daemon.number}")

    def _calm(self) -> None:
        self.weather_turns(self.faults.calmed())
        self.disk.full = False
        self.venue_down = False
        self.machine.set_right()

    async def _last_life(self, seconds: float) -> None:
        daemon, task = self._start()
        loop = self.world.loop
        end = loop.time() + seconds
        cleared = False
        while loop.time() < end and not (task.done() or self.broken):
            await asyncio.sleep(0.5)
            self.watch.probe(daemon)
            if not cleared and getattr(daemon, "session", None) is not None:
                cleared = True
                for verb in ("resume", "clear", "accept_clock"):
                    daemon.session.tell(Control(ts_recv=self.machine.now(), verb=verb, operator="the last"))
        if self.broken:
            return
        if task.done():
            task.result()
            return
        self.watch.settled(daemon)
        daemon.session.stop()
        await task
        self._note_end(daemon)
        self.watch.stopped(daemon)

    # ------------------------------------------------------------------ everything else that lives

    def _lives_of_the_world(self) -> list[tuple[str, asyncio._CoroutineLike[None]]]:
        return [
            ("market", self._market()),
            ("clock", self._clock()),
            ("weather", self._weather()),
            ("disk", self._fill_disk()),
            ("people", self._people()),
        ]

    def _news(self) -> None:
        if self.holder is not None:
            self.holder.wire.news()

    async def _market(self) -> None:
        while True:
            await asyncio.sleep(self.every)
            self.street.move()
            self.venue.work(self.machine.true())

    async def _clock(self) -> None:
        """The wall clock leaps, stands, comes back; the machine sleeps."""
        rng = self.stream("clock")
        while True:
            await asyncio.sleep(1.0)
            if rng.random() >= self.faults.clock_rate:
                continue
            what = rng.choice(["+1 s", "-1 s", "+1 h", "-1 h", "frozen", "suspend"])
            self.seen[f"clock {what}"] += 1
            if what == "suspend":
                self.just_slept = True
                self.machine.suspend(60.0)
                self.world.loop.call_later(1.0, lambda: setattr(self, "just_slept", False))
                for _ in range(5):
                    self.street.move()
                    self.venue.work(self.machine.true())
                continue
            if what == "frozen":
                self.machine.freeze()
            else:
                sign = 1 if what[0] == "+" else -1
                self.machine.jump(sign * (SECOND if what.endswith("s") else 3600 * SECOND))
            await asyncio.sleep(rng.uniform(0.5, 12.0))
            self.machine.set_right()

    async def _weather(self) -> None:
        """The venue cannot be reached for a while."""
        rng = self.stream("weather")
        while True:
            await asyncio.sleep(1.0)
            if rng.random() < self.faults.unreachable_rate:
                self.seen["venue unreachable"] += 1
                self.venue_down = True
                await asyncio.sleep(rng.uniform(0.3, 10.0))
                self.venue_down = False

    async def _fill_disk(self) -> None:
        """The disk is full for a while."""
        rng = self.stream("full")
        while True:
            await asyncio.sleep(1.0)
            if rng.random() < self.faults.full_rate:
                self.seen["disk full"] += 1
                disk = self.disk
                disk.full = True
                await asyncio.sleep(rng.uniform(0.5, 8.0))
                disk.full = False

    async def _people(self) -> None:
        """Persons halt, resume, kill, clear, stop, ask and accept."""
        rng = self.stream("people")
        undo = {"halt": "resume", "kill": "clear"}
        while True:
            await asyncio.sleep(1.0)
            if rng.random() >= self.faults.people_rate:
                continue
            verb = rng.choice(["halt", "kill", "stop", "reconcile", "accept_clock"])
            if not self.say(verb, rng.choice(["no_new_risk", "hedge_only", "cancel_all"]) if verb == "kill" else ""):
                continue
            if verb in undo:
                await asyncio.sleep(rng.uniform(1.0, 15.0))
                while not self.say(undo[verb], ""):
                    await asyncio.sleep(0.5)
                # a word that a crash took away is said again
                await asyncio.sleep(2.0)
                self.say(undo[verb], "")

    def say(self, verb: str, argument: str) -> bool:
        """Tell the daemon a person's word; False when it cannot hear now."""
        session = getattr(self.daemon, "session", None)
        if session is None or session.state not in {"RECONCILE", "READY", "HALTED"}:
            return False
        self.seen[f"person said {verb}"] += 1
        with contextlib.suppress(Killed):  # it may die of hearing it
            if verb == "stop":
                session.stop()
            else:
                session.tell(Control(ts_recv=self.machine.now(), verb=verb, argument=argument, operator="sim"))
        return True


__all__ = [
    "CALL",
    "HEADER",
    "HIGH_CALL",
    "INSTRUMENTS",
    "LIMITS",
    "OPENINGS",
    "OTHER",
    "POINTS",
    "PUT",
    "SOUND",
    "STALE_AFTER",
    "TURN",
    "Clock",
    "Daemon",
    "Defect",
    "Faults",
    "Machine",
    "Mount",
    "Rester",
    "Sim",
    "Street",
    "StreetFeed",
    "TaskCommitter",
    "Wire",
    "bare_accounts",
]
