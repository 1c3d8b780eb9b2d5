"""A world in virtual time: a daemon with the real engine, journal and outbox, a venue that outlives it, and faults by seed.

Law: everything that happens is drawn from the seed; what is asserted is asserted of the real parts, never of this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from random import Random
from types import TracebackType
from typing import Self

import msgspec

from adapters.paper import PaperBroker, PaperOptions
from bot.app.live import LiveSession, LiveSettings
from bot.core.events import FeedEvent, VenueEvent
from bot.core.ports import Broker, Capabilities, FeedReport, InLoopBroker, Snapshot, Strategy
from bot.domain.instruments import OptionContract, Spot, Universe
from bot.domain.market import Quote
from bot.domain.orders import Order
from bot.domain.units import NS_PER_SECOND, Nanos
from bot.engine.account import Account
from bot.engine.journal import Header, LiveJournal, open_live
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.recovery import Recovered, digest_of
from bot.engine.valuation import Valuation, ValuationSettings
from bot.testing.disk import FaultyDisk
from bot.testing.venue import Venue, VenueSettings
from bot.testing.virtual_time import Killed, Process, World
from strategies.policies.delta_band import DeltaBand
from tests.simulation.bench import START, STOCK, hedger, option

D = Decimal
CALL = option(100, days=20)
HEADER = Header(run_id="sim", config_hash="sim", release="sim", durability="live")


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How bad the world is. Rates per message or second; times in seconds."""

    crash_every: float = 0.0
    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0
    disk: float = 0.0
    commit_delay: float = 0.002
    wire_delay: float = 0.01
    restart_delay: float = 2.0
    stall: float = 0.0
    clock_jump: float = 0.0
    partial: float = 0.3
    reject: float = 0.02


class Street:
    """The market: one price path that everybody sees, drawn once a tick."""

    def __init__(self, rng: Random) -> None:
        self.mid = 100.0
        self._rng = rng

    def move(self) -> None:
        """One step of the walk."""
        self.mid = round(self.mid * (1.0 + self._rng.gauss(0.0, 0.0008)), 2)

    def quote(self, instrument: str) -> tuple[Decimal, Decimal] | None:
        """Bid and ask of the stock; the venue trades nothing else."""
        if instrument != STOCK.id:
            return None
        return D(str(round(self.mid - 0.01, 2))), D(str(round(self.mid + 0.01, 2)))


class StreetFeed:
    """The market as a live feed sees it. Implements `Feed`."""

    name = "street"
    recorded = False

    def __init__(self, world: World, street: Street, *, every: float, faults: Faults) -> None:
        self._world, self._street, self._every, self._faults = world, street, every, faults
        self._report = FeedReport()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def events(self) -> AsyncIterator[FeedEvent]:
        """A quote a tick, for ever; now and then the line breaks or stalls."""
        rng = self._world.rng
        while True:
            await asyncio.sleep(self._every)
            if rng.random() < self._faults.stall:
                if rng.random() < 0.3:
                    raise ConnectionResetError("line cut")
                await asyncio.sleep(rng.uniform(0.1, 5.0))
            now = self._world.wall.now()
            bid, ask = self._street.mid - 0.01, self._street.mid + 0.01
            yield Quote(instrument=STOCK.id, ts_event=now, ts_recv=now, bid=bid, ask=ask)

    def report(self) -> FeedReport:
        """Nothing is counted."""
        return self._report


class Wire:
    """The line between a daemon and its venue: it loses, delays, repeats and reorders. Implements `Broker` and options."""

    def __init__(self, world: World, venue: Venue, faults: Faults) -> None:
        self.capabilities = Capabilities(name="street venue", tombstones=True)
        self._world, self._venue, self._faults = world, venue, faults
        self._epoch = 0
        self._told = 0
        self._numbers: dict[int, int] = {}

    async def __aenter__(self) -> Self:
        self._told = 0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def take_lease(self, book: str, holder: str) -> int:
        """Ask for the book."""
        await self._travel()
        self._epoch = self._venue.take_lease(holder)
        return self._epoch

    async def submit(self, order: Order) -> None:
        """Hand an order to the line."""
        self._send(lambda: self._venue.submit(order, self._epoch, self._world.wall.now()))
        await asyncio.sleep(0)

    async def cancel(self, order_id: str) -> None:
        """Hand a cancel to the line."""
        self._send(lambda: self._venue.cancel(order_id, "dynamic", self._epoch, self._world.wall.now()))
        await asyncio.sleep(0)

    async def keep_alive(self, seconds: float) -> None:
        """Start the venue's countdown anew."""
        self._send(lambda: self._venue.keep_alive(seconds, self._epoch, self._world.wall.now()))
        await asyncio.sleep(0)

    async def snapshot(self, since: Nanos) -> Snapshot:
        """The venue's word, there and back again."""
        await self._travel()
        if self._world.rng.random() < self._faults.lost:
            await asyncio.sleep(3600)
        said = self._venue.snapshot(since)
        await self._travel()
        return said

    async def events(self) -> AsyncIterator[VenueEvent]:
        """What the venue says: late, repeated, out of order; what got lost is said again."""
        rng = self._world.rng
        while True:
            await asyncio.sleep(self._faults.wire_delay * (0.5 + rng.random()))
            fresh = [(n, event) for n, event in self._venue.said if n > self._told]
            if not fresh:
                if self._venue.said and rng.random() < 0.02:
                    self._told = 0  # the venue repeats what was not acknowledged
                continue
            if rng.random() < self._faults.repeated:
                fresh = fresh + fresh[:1]
            if len(fresh) > 1 and rng.random() < self._faults.repeated:
                rng.shuffle(fresh)
            for number, event in fresh:
                if rng.random() < self._faults.lost:
                    continue
                self._numbers[id(event)] = number
                yield event
                self._told = max(self._told, number)

    async def acknowledge(self, event: VenueEvent) -> None:
        """Tell the venue that this one is safe; only a whole beginning of what it said is forgotten."""
        number = self._numbers.get(id(event))
        if number is not None and self._venue.said and number == self._venue.said[0][0]:
            self._venue.acknowledge(number)
        await asyncio.sleep(0)

    def _send(self, act: Callable[[], None]) -> None:
        rng, faults = self._world.rng, self._faults
        if rng.random() < faults.lost:
            return
        delay = faults.wire_delay * rng.random()
        if rng.random() < faults.late:
            delay += rng.uniform(0.5, 5.0)
        self._world.loop.call_later(delay, act)
        if rng.random() < faults.repeated:
            self._world.loop.call_later(delay + rng.random(), act)

    async def _travel(self) -> None:
        await asyncio.sleep(self._faults.wire_delay * (0.5 + self._world.rng.random()))


class TaskCommitter:
    """What commits a journal in virtual time: a task, after a while. Implements `Committer`."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world, self._faults = world, faults
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.session: LiveSession | None = None

    def nudge(self) -> None:
        """Something waits."""
        self._work.set()

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
        while True:
            await self._work.wait()
            self._work.clear()
            await asyncio.sleep(self._faults.commit_delay * self._world.rng.random())
            assert self.session is not None
            try:
                if journal.commit():
                    self.session.committed(None)
            except OSError as fault:
                self.session.committed(fault)
                await asyncio.sleep(0.05)
                self._work.set()


class Daemon:
    """One incarnation of the daemon: accounts, loop and session over the disk and the wire."""

    def __init__(self, sim: Sim) -> None:
        world, faults = sim.world, sim.faults
        universe = Universe([STOCK, CALL])
        marks = Marks(universe)
        valuation = Valuation(universe, marks, ValuationSettings(vol="fixed", vol_value=0.2))
        self.accounts: list[Account] = []
        for name in ("dynamic", "shadow"):
            broker: InLoopBroker | Broker = (
                Wire(world, sim.venue, faults) if name == "dynamic" else PaperBroker(PaperOptions(), seed=1)
            )
            if isinstance(broker, InLoopBroker):
                broker.attach(universe, marks, name)
            strategies: list[Strategy] = [hedger(DeltaBand(half_width=sim.band))]
            self.accounts.append(
                Account(name, universe=universe, marks=marks, valuation=valuation, broker=broker, strategies=strategies)
            )
        committer = TaskCommitter(world, faults)
        recovered = Recovered(self.accounts)
        self.journal = open_live(sim.disk, HEADER, nudge=committer.nudge, replayed=recovered.take)
        self.recovered_records = recovered.records
        self.loop = Loop(
            settings=LoopSettings(start=START, begin="immediate", jump_freeze=None, snapshot_every=50),
            universe=universe,
            marks=marks,
            valuation=valuation,
            accounts=self.accounts,
            openings=[Opening(book="main", instrument=CALL.id, quantity=D(-10), mark=D(3))],
            needed=[STOCK.id],
            journal=self.journal,
        )
        self.loop.recover(recovered)
        self.session = LiveSession(
            loop=self.loop,
            journal=self.journal,
            committer=committer,
            feeds=[StreetFeed(world, sim.street, every=sim.every, faults=faults)],
            clock=world.wall,
            rng=Random(world.rng.random()),
            settings=LiveSettings(ack_timeout=1.0, reconcile_every=10.0),
        )
        committer.session = self.session


class Sim:
    """The world: street, venue, disk, and one daemon after another."""

    def __init__(self, world: World, faults: Faults, *, every: float = 0.25, band: float = 20.0) -> None:
        self.world, self.faults, self.every, self.band = world, faults, every, band
        self.street = Street(Random(world.rng.random()))
        self.disk = FaultyDisk(Random(world.rng.random()), fault_rate=faults.disk)
        self.venue = Venue(
            self.street.quote,
            rng=Random(world.rng.random()),
            settings=VenueSettings(partial=faults.partial, reject=faults.reject),
        )
        self.daemon: Daemon | None = None
        self.starts = 0
        self.ready_after: list[float] = []

    async def live(self, seconds: float) -> None:
        """Let the world go on for a while, daemons dying and starting again, and end with one that was let to settle."""
        market = asyncio.create_task(self._market(), name="market")
        loop = self.world.loop
        end = loop.time() + seconds
        while loop.time() < end:
            await self._one_life(min(end - loop.time(), self._draw_life()))
        quiet = Faults(wire_delay=self.faults.wire_delay, partial=0.0, reject=0.0)
        self.faults = quiet
        self.disk.fault_rate = 0.0
        await self._one_life(90.0, last=True)
        market.cancel()

    def _draw_life(self) -> float:
        return self.world.rng.expovariate(1.0 / self.faults.crash_every) if self.faults.crash_every else 1e9

    async def _one_life(self, seconds: float, *, last: bool = False) -> None:
        self.starts += 1
        process = self.world.process(f"daemon {self.starts}")

        async def life() -> None:
            self.daemon = Daemon(self)
            await self.daemon.session.run()

        task = process.spawn(life(), name="life")
        began = self.world.loop.time()
        while self.world.loop.time() < began + seconds and not task.done():
            await asyncio.sleep(min(0.5, began + seconds - self.world.loop.time()))
        if last:
            assert self.daemon is not None
            self.daemon.session.stop()
            await task
            return
        if task.done():
            task.result()
        process.kill()
        self.disk.crash()
        await asyncio.sleep(self.faults.restart_delay * self.world.rng.random())

    async def _market(self) -> None:
        while True:
            await asyncio.sleep(self.every)
            self.street.move()
            self.venue.work(self.world.wall.now())


__all__ = [
    "CALL",
    "Daemon",
    "Faults",
    "Killed",
    "Nanos",
    "NS_PER_SECOND",
    "OptionContract",
    "Process",
    "Sim",
    "Spot",
    "digest_of",
]
