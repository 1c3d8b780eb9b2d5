"""A live session keeps a book hedged for as long as it is let; law: start is recovery, nothing leaves before its record is
durable, and only the venue's answer ends a doubt.

INIT, RECOVER (the journal was folded into the accounts), RECONCILE (the venue's orders, fills and positions are compared),
READY, DRAIN, STOPPED; HALTED from any of them after a fault of a core room, with cancels only. Everything that decides
happens in one task, from one inbox: feeds, venue words, commits, timers and persons' words are told there and wait their
turn. Disk and venue are waited for elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np

from bot.app.supervisor import Supervisor, TaskEvent
from bot.core.errors import EvenkeelError
from bot.core.events import Alarm, Control, FeedEvent, FeedState, Unknown, VenueEvent
from bot.core.latency import Latency
from bot.core.ports import Acknowledges, Broker, DeadMan, Feed, Fenced, Snapshot
from bot.core.staleness import Staleness, StalenessRule
from bot.domain.market import Quote, QuoteBatch, TradeBatch
from bot.domain.orders import Order, OrderStatus
from bot.domain.units import NS_PER_SECOND, Nanos
from bot.engine import reconcile
from bot.engine.account import ALL, Account
from bot.engine.facts import Began, Controlled
from bot.engine.journal import LiveJournal
from bot.engine.loop import Loop

State: TypeAlias = Literal["INIT", "RECOVER", "RECONCILE", "READY", "DRAIN", "STOPPED", "HALTED"]

HOUR: Final[Nanos] = 3600 * NS_PER_SECOND
PASSING: Final = ("journal", "clock", "venue", "draining", "lease")
"""Causes of a freeze that die with the process which found them: the next one finds out for itself."""


class LiveClock(Protocol):
    """Wall time, and a time that no step of the wall clock moves. Law: `monotonic` never goes back."""

    def now(self) -> Nanos:
        """The wall clock, nanoseconds of UTC."""

    def monotonic(self) -> Nanos:
        """Nanoseconds since some instant, suspends of the machine included."""


class Committer(Protocol):
    """Whoever makes a journal durable: a thread, or in a simulation a task."""

    def start(self, journal: LiveJournal) -> None: ...
    def stop(self) -> None: ...
    def alive(self) -> bool: ...


class LiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a live session is. Seconds."""

    ack_timeout: float = 1.0
    send_within: float = 5.0
    reconcile_every: float = 30.0
    snapshot_timeout: float = 5.0
    drain: float = 5.0
    dead_man: float = 60.0
    clock_step: float = 0.25
    clock_hold: float = 2.0
    staleness: StalenessRule = StalenessRule()
    keep: int = 2000
    """Orders that are over, samples and alarms kept in memory; the journal keeps all."""
    book: str = "main"
    holder: str = "evenkeel"


class _Fed(NamedTuple):
    feed: str
    event: FeedEvent
    at: Nanos


class _Said(NamedTuple):
    account: Account
    event: VenueEvent
    must_acknowledge: bool


class _Committed(NamedTuple):
    fault: OSError | None


class _Answered(NamedTuple):
    account: Account
    snapshot: Snapshot
    asked: Nanos
    why: str


class _Told(NamedTuple):
    event: TaskEvent


_Item: TypeAlias = "_Fed | _Said | _Committed | _Answered | _Told | Control"


class Inbox:
    """What waits to be taken in, in the order it came. `put` may be called from anywhere on the event loop."""

    def __init__(self) -> None:
        self._items: deque[_Item] = deque()
        self._some = asyncio.Event()
        self.longest = 0

    def put(self, item: _Item) -> None:
        """Add an item."""
        self._items.append(item)
        self._some.set()

    def __len__(self) -> int:
        return len(self._items)

    async def wait(self, seconds: float) -> None:
        """Return when something is there, or the time is over."""
        if self._items:
            return
        self._some.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._some.wait()

    def drain(self) -> list[_Item]:
        """Everything that waits now."""
        self.longest = max(self.longest, len(self._items))
        items = list(self._items)
        self._items.clear()
        return items


class EngineTime:
    """The instant the engine lives in: wall time at the start, carried on by the steady clock, so that it never leaps.

    A wall clock found off by no more than `step` seconds is followed slowly; by more, the difference is told and kept until
    the wall comes back or a person accepts it. It never goes back and never stands: where it is ahead of a wall clock that
    was accepted it goes on at half its pace until the wall has come up, so that timers come late and not never.
    """

    def __init__(self, clock: LiveClock, *, step: float, hold: float, not_before: Nanos = 0) -> None:
        self._clock = clock
        self._step = round(step * NS_PER_SECOND)
        self._hold = round(hold * NS_PER_SECOND)
        self._seen = clock.monotonic()
        self._last = max(clock.now(), not_before)  # a wall clock behind the record is off: nothing happened twice
        self._offset = self._last - self._seen
        self._looked = self._seen
        self.off: Nanos = 0
        """How far the wall clock stands ahead of engine time since it leapt; 0 while they agree."""

    def now(self) -> Nanos:
        """The present instant of the engine."""
        steady = self._clock.monotonic()
        gained = (steady - self._seen) // 2
        if steady + self._offset >= self._last + gained:
            self._last, self._seen = steady + self._offset, steady
        else:
            self._last, self._seen = (
                self._last + gained,
                self._seen + 2 * gained,
            )  # no nanosecond is lost by asking often
        return self._last

    def look(self) -> Nanos:
        """Compare with the wall: how far it leapt since the last look, 0 when it did not."""
        steady = self._clock.monotonic()
        wall = self._clock.now()
        if self._clock.monotonic() - steady > self._step // 2:
            return 0  # we were held up between the readings: they belong to no one instant; the next look will tell
        ahead = wall - (steady + self._offset)
        leapt = ahead - self.off
        pace = (steady - self._looked) // 16  # slower than any clock stands: one that does is soon found off
        self._looked = steady
        followed = max(-pace, min(pace, ahead)) if abs(ahead) <= self._hold else 0
        self._offset += followed
        self.off = ahead - followed if abs(ahead) > self._step else 0
        return leapt if abs(leapt) > self._step else 0

    @property
    def held(self) -> bool:
        """True while the wall clock stands so far off that nobody knows what time it is."""
        return abs(self.off) > self._hold

    @property
    def lags(self) -> bool:
        """True while engine time waits, at half its pace, for a wall clock that was accepted and is behind it."""
        return self._last > self._clock.monotonic() + self._offset

    def accept(self) -> None:
        """A person says that the wall clock is right: engine time goes there, forward at once, back by going slower."""
        self._offset = self._clock.now() - self._clock.monotonic()
        self.off = 0


class LiveSession:
    """One process's life with a book. `run` returns when it was stopped, its session ended, or nothing is left to do."""

    def __init__(
        self,
        *,
        loop: Loop,
        journal: LiveJournal,
        committer: Committer,
        feeds: Sequence[Feed],
        clock: LiveClock,
        rng: Random,
        settings: LiveSettings | None = None,
        release: str = "",
        config_hash: str = "",
        mode: str = "live",
    ) -> None:
        self.loop = loop
        self.journal = journal
        self.feeds = list(feeds)
        self.settings = settings if settings is not None else LiveSettings()
        self.state: State = "INIT"
        self.why = ""
        self.inbox = Inbox()
        self.time = EngineTime(clock, step=self.settings.clock_step, hold=self.settings.clock_hold, not_before=loop.now)
        self.tasks: Supervisor | None = None
        self.reached: dict[State, Nanos] = {}
        """When each state was first reached, in engine time."""
        self.counts: dict[str, int] = {}
        """What happened how often: commits, commit faults, unknown, resent, reconciled, clock steps, engine faults."""
        self.decision_latency = Latency()
        self.commit_latency = Latency()
        self.on_state: Callable[[State], None] = lambda _state: None
        self._committer = committer
        self._clock = clock
        self._rng = rng
        self._release, self._config_hash, self._mode = release, config_hash, mode
        self._stop = asyncio.Event()
        self._send = asyncio.Event()
        self._ask = asyncio.Event()
        self._connected = asyncio.Event()
        self._ask_why = "start"
        self._known_until: dict[str, Nanos] = {}
        """By account, the venue's own stamp of the last fill that a settled comparison knew of."""
        self._reconciled: set[str] = set()
        self._leased: set[str] = set()
        self._sent_at: dict[str, Nanos] = {}
        self._forgot_at = journal.seq
        self._deadlines: list[tuple[Nanos, str, Account]] = []
        self._unacknowledged: deque[tuple[int, Account, VenueEvent]] = deque()
        self._doubtful: dict[str, dict[str, Any]] = {}
        self._down: set[str] = set()
        self._open_feeds = len(self.feeds)
        self._drain_by: Nanos = 0
        self._external: list[tuple[Account, Broker]] = [
            (a, a.broker) for a in loop.accounts if a.in_loop is None and isinstance(a.broker, Broker)
        ]
        self._watched = tuple(dict.fromkeys(key for key in loop.needed if key in loop.universe))
        self.staleness = Staleness(self.settings.staleness)
        self.stale: set[str] = set()
        """Instruments whose quotes are silent, crossed or late."""
        loop.outbox.sent = self._note_sent
        loop.outbox.patience = round(self.settings.send_within * NS_PER_SECOND)
        if self._external:
            loop.held_back = "the venue has not been compared with our record yet"

    # ------------------------------------------------------------------ life

    def stop(self) -> None:
        """Ask for a clean end: no new intents, acknowledgements awaited, the journal synced."""
        self._stop.set()
        self.inbox.put(Control(ts_recv=self.time.now(), verb="drain", operator="signal"))

    def tell(self, word: Control) -> None:
        """Pass on a person's word; it is carried out before market data of its instant."""
        self.inbox.put(word)

    def committed(self, fault: OSError | None) -> None:
        """The journal's writer has synced, or could not; called on the event loop."""
        self.inbox.put(_Committed(fault))

    async def run(self) -> None:
        """Live: recover, reconcile, hedge, drain."""
        self._enter("RECOVER")
        try:
            async with AsyncExitStack() as stack:
                stack.callback(self._finish_journal)
                self._committer.start(self.journal)
                self._begin()
                for feed in self.feeds:
                    await stack.enter_async_context(feed)
                self._enter("RECONCILE")
                async with Supervisor(rng=self._rng, tell=self._hear_task) as tasks:
                    self.tasks = tasks
                    self._start_tasks(tasks)
                    await self._live()
        finally:
            self._enter("STOPPED")

    def _begin(self) -> None:
        """A process took the books over: what only the last one knew of is forgotten, and the record says who goes on."""
        now = self.time.now()
        self.loop.now = max(self.loop.now, now)
        for account in self.loop.accounts:
            for cause in (*PASSING, *(f"feed {feed.name}" for feed in self.feeds)):
                account.thaw(ALL, cause)
            for key in self._watched:
                account.thaw(account.underlying_of(account.universe.get(key)), f"stale {key}")
            account.pending.append(self._took_over(account))
            account.starts += 1
            account.config_hash = self._config_hash
            if account.in_loop is None:
                self._doubt_open_orders(account, now)
        self.loop.record()

    def _took_over(self, account: Account) -> Began:
        return Began(
            account=account.name,
            release=self._release,
            config_hash=self._config_hash,
            mode=self._mode,
            epoch=account.epoch,
            start=account.starts,
        )

    def _doubt_open_orders(self, account: Account, now: Nanos) -> None:
        """What was open when the last process ended may be anything by now: UNKNOWN until the venue says."""
        for order_id in list(account.open_ids):
            if account.orders[order_id].status is not OrderStatus.UNKNOWN:
                text = "open when the process before this one ended"
                self.loop.hear(account, Unknown(ts_recv=now, account=account.name, order_id=order_id, text=text))

    def _start_tasks(self, tasks: Supervisor) -> None:
        for feed in self.feeds:
            tasks.adapter(f"feed {feed.name}", self._pump_of(feed), serves=(feed.name,), essential=False, forever=False)
        for account, broker in self._external:
            tasks.adapter(f"venue {account.name}", self._listen_of(account, broker), essential=False)
            tasks.adapter(f"questions {account.name}", self._questions_of(account, broker), essential=False)
            if isinstance(broker, DeadMan):
                tasks.adapter(f"dead man {account.name}", self._keep_alive_of(broker), essential=False)
        if self._external:
            tasks.core("outbox", self._send_for_ever)

    def _finish_journal(self) -> None:
        self._committer.stop()
        self.journal.close()

    # ------------------------------------------------------------------ the one task that decides

    async def _live(self) -> None:
        while not self._is_over():
            await self.inbox.wait(self._patience())
            items = self.inbox.drain()
            now = self.time.now()
            self._look_at_clock(now)
            self._look_for_stale()
            for item in sorted(items, key=_after_words):  # stable: a person's word first, the rest as it came
                self._take(item, now)
            self._step(self._close_instant)
            self._note_decisions(items)
            self.loop.now = max(self.loop.now, now)  # what is overdue happens now, by the prices of now and their age
            self._step(lambda: self.loop.run_timers(self.time.now()))
            self._after(now)
        if self.loop.done or self._open_feeds:
            await self._sync(self.settings.drain)
            return
        self._step(self.loop.finish)
        await self._sync(self.settings.drain)

    def _note_decisions(self, items: Sequence[_Item]) -> None:
        """How long each tick waited until everything it led to was decided."""
        self._count("rounds")
        now = self._clock.monotonic()
        for item in items:
            if isinstance(item, _Fed):
                self.decision_latency.note(now - item.at)

    def _is_over(self) -> bool:
        if self.loop.done and not self.loop.outbox.waiting:
            return True
        if self.state == "DRAIN":
            return self._drained()
        return not self._open_feeds and not self.inbox and self.loop.settings.end is None and not self._external

    def _patience(self) -> float:
        """Seconds until something falls due; never more than a quarter, so that the clock is looked at."""
        now = self.time.now()
        wait = min(self.loop.due_in(now), 0.25)
        if self._deadlines:
            wait = min(wait, max(0.0, (self._deadlines[0][0] - now) / NS_PER_SECOND))
        return wait

    def _take(self, item: _Item, now: Nanos) -> None:
        match item:
            case _Fed():
                self._count("fed")
                self._watch(item.event, item.at)
                if item.feed in self._down:
                    self._raise_feed(item.feed)
                self._step(lambda: self.loop.take(stamped(item.event, max(now, self.loop.now)), item.feed))
            case _Said():
                heard = self._step(lambda: self.loop.hear(item.account, item.event))
                if item.must_acknowledge and heard:  # what was not taken in is said again
                    self._unacknowledged.append((self.journal.seq, item.account, item.event))
                    self._send.set()
            case _Committed():
                self._take_commit(item.fault)
            case _Answered():
                self._compare(item)
            case _Told():
                self._take_task(item.event, now)
            case Control():
                self._take_word(item, now)

    def _step(self, act: Callable[[], object]) -> bool:
        """Let the engine act; a core room that raises halts everything but cancels. True when it did not raise."""
        try:
            act()
        except Exception as fault:  # noqa: BLE001  whatever a core room raises, the outcome is the same: halt
            self.halt(f"{type(fault).__name__}: {fault}")
            return False
        return True

    def _close_instant(self) -> None:
        self.loop.close_open_instant()
        if self.loop.started_at is None and self.state in {"RECONCILE", "RECOVER"} and self.loop.begin_if_ready():
            halted = self.loop.accounts[0].halted
            self.why = halted
            self._enter("HALTED" if halted else "READY")

    def _after(self, now: Nanos) -> None:
        """Overdue answers become doubts; whatever may leave is sent."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, order_id, account = heapq.heappop(self._deadlines)
            state = account.orders.get(order_id)
            if state is not None and state.status is OrderStatus.SUBMITTED and order_id in self._sent_at:
                self._count("unknown")
                text = f"no answer within {self.settings.ack_timeout:g} s"
                word = Unknown(ts_recv=now, account=account.name, order_id=order_id, text=text)
                self._step(lambda account=account, word=word: self.loop.hear(account, word))  # type: ignore[misc]  # bound now
                self._ask_venue("an order was not answered")
        if self.loop.outbox.waiting:
            self._send.set()
        if self.journal.seq - self._forgot_at >= self.settings.keep:
            self._forgot_at = self.journal.seq
            self._step(lambda: self.loop.forget(self.settings.keep))
            known = self.loop.accounts[0].open_ids
            self._sent_at = {order_id: at for order_id, at in self._sent_at.items() if order_id in known}

    def halt(self, why: str) -> None:
        """A core room failed: no new order, open ones are cancelled; a person has to look."""
        self._count("engine faults")
        if self.state == "HALTED":
            return
        self.why = why
        for account in self.loop.accounts:
            account.halted = f"halted: {why}"
            account.pending.append(Controlled(account=account.name, verb="halt", argument=account.halted))
            account.alarm(Alarm(code="halted", text=why, ts=self.loop.now, action="halt"))
            for order_id in list(account.open_ids):
                self.loop.outbox.cancel(account, order_id, "halted")
        with contextlib.suppress(EvenkeelError):
            self.loop.record()
            self.loop.outbox.release()
        self._enter("HALTED")

    # ------------------------------------------------------------------ words of persons, disk and clock

    def _take_word(self, word: Control, now: Nanos) -> None:
        lifted = msgspec.structs.replace(word, ts_recv=max(self.loop.now, now))
        if word.verb == "drain":
            self._drain()
        elif word.verb == "reconcile":
            self._ask_venue(word.argument or "asked for by a person")
        elif word.verb == "accept_clock":
            self.time.accept()
            self._thaw_all("clock")
        else:
            self._step(lambda: self.loop.take(lifted, "control"))
            if word.verb == "resume" and self.state == "HALTED":
                self._enter("READY" if self.loop.started_at is not None else "RECONCILE")
            if word.verb == "balance":
                self._ask_venue("a balance was entered")

    def _take_commit(self, fault: OSError | None) -> None:
        if fault is None:
            self._count("commits")
            if self.journal.commit_seconds:
                self.commit_latency.note(round(self.journal.commit_seconds[-1] * NS_PER_SECOND))
            self._thaw_all("journal")
            self._send.set()
            return
        self._count("commit faults")
        self._freeze_all("journal", f"the journal cannot be written: {fault.strerror or fault}")

    def _look_at_clock(self, now: Nanos) -> None:
        leapt = self.time.look()
        if leapt:
            self._count("clock steps")
            text = f"the wall clock moved by {leapt / NS_PER_SECOND:+.3f} s against the steady one"
            self._alarm("clock", text, now)
        if self.time.held:
            off = self.time.off / NS_PER_SECOND
            self._freeze_all("clock", f"the wall clock stands {off:+.3f} s off; accept it, or set it right")
        else:
            self._thaw_all("clock")

    def _freeze_all(self, cause: str, text: str) -> None:
        self._freeze(self.loop.accounts, cause, text)

    def _freeze_external(self, cause: str, text: str) -> None:
        """Stop the accounts that trade at a venue; those beside them trade on paper and go on."""
        self._freeze([account for account, _ in self._external], cause, text)

    def _freeze(self, accounts: Sequence[Account], cause: str, text: str) -> None:
        news = False
        for account in accounts:
            if cause not in account.causes.get(ALL, {}):
                account.freeze(ALL, cause, text)
                news = True
        if news:
            self._alarm(cause, text, self.loop.now)

    def _thaw_all(self, cause: str) -> None:
        thawed = [account for account in self.loop.accounts if cause in account.causes.get(ALL, {})]
        for account in thawed:
            account.thaw(ALL, cause)
        if thawed:
            self._alarm(cause, f"{cause}: as it should be again", self.loop.now)

    def _alarm(self, code: str, text: str, now: Nanos) -> None:
        self.loop.accounts[0].alarm(Alarm(code=code, text=text, ts=now))
        self._step(self.loop.record)

    # ------------------------------------------------------------------ the venue

    def _note_sent(self, account: Account, command: Order | str) -> None:
        if isinstance(command, Order):
            now = self.time.now()
            self._sent_at[command.id] = now
            due = now + round(self.settings.ack_timeout * NS_PER_SECOND)
            heapq.heappush(self._deadlines, (due, command.id, account))

    async def _send_for_ever(self) -> None:
        """Commands whose record is durable go out in their order; so do acknowledgements of what the venue said."""
        while True:
            await self._send.wait()
            self._send.clear()
            for account, word in await self.loop.outbox.send():
                self.inbox.put(_Said(account, word, must_acknowledge=False))
                self._ask_venue("a command could not be sent")
            while self._unacknowledged and self._unacknowledged[0][0] <= self.journal.durable:
                _, account, event = self._unacknowledged.popleft()
                broker: object = account.broker
                if isinstance(broker, Acknowledges):
                    try:
                        await broker.acknowledge(event)
                    except Exception:  # noqa: BLE001  an event not acknowledged is said again: nothing is lost
                        self._count("acknowledge faults")

    def _listen_of(self, account: Account, broker: Broker) -> Callable[[], Awaitable[None]]:
        async def listen() -> None:
            async with broker:
                if isinstance(broker, Fenced) and account.name not in self._leased:
                    # once in a process's life: whoever lost the book to another must not take it back by reconnecting
                    epoch = await broker.take_lease(self.settings.book, self.settings.holder)
                    account.epoch = max(account.epoch, epoch)
                    self._leased.add(account.name)
                self._connected.set()
                self._ask_venue("connected")
                acknowledges = isinstance(broker, Acknowledges)
                async for event in broker.events():
                    self.inbox.put(_Said(account, event, acknowledges))

        return listen

    def _questions_of(self, account: Account, broker: Broker) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            await self._connected.wait()
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.reconcile_every):
                        await self._ask.wait()
                self._ask.clear()
                why, asked = self._ask_why, self.time.now()
                since = self._known_until.get(account.name, account.last_fill - HOUR) - 300 * NS_PER_SECOND
                try:
                    async with asyncio.timeout(self.settings.snapshot_timeout):
                        said = await broker.snapshot(max(since, 0))
                except Exception:  # noqa: BLE001  a venue that cannot answer now is asked again
                    self._count("snapshot faults")
                    await asyncio.sleep(min(1.0, self.settings.ack_timeout))
                    self._ask.set()
                    continue
                self.inbox.put(_Answered(account, said, asked, why))
                self._ask_why = "routine"

        return ask

    def _keep_alive_of(self, broker: DeadMan) -> Callable[[], Awaitable[None]]:
        async def keep_alive() -> None:
            await self._connected.wait()
            while True:
                await broker.keep_alive(self.settings.dead_man)
                await asyncio.sleep(self.settings.dead_man / 4)

        return keep_alive

    def _ask_venue(self, why: str) -> None:
        self._ask_why = why
        self._ask.set()

    def _compare(self, answer: _Answered) -> None:
        """Hear what the snapshot says, settle what it does not explain, and end the doubts it can end."""
        account, now = answer.account, self.time.now()
        self._count("reconciled")
        found = reconcile.compare(account, answer.snapshot, max(now, self.loop.now), to_open=self.loop.still_to_open)
        for word in found.words:
            self._step(lambda word=word: self.loop.hear(account, word))  # type: ignore[misc]  # bound now
        self._end_doubts(account, found.absent, answer.asked)
        if self._is_settled(account, found, answer.asked):
            reconcile.settle(account, found, now, why=answer.why)
            self._step(self.loop.record)
            fills = answer.snapshot.fills
            if fills:  # by the venue's own stamps: the clock here may be an hour off theirs
                self._known_until[account.name] = max(fill.ts for fill in fills)
            self._reconciled.add(account.name)
            if self.tasks is None or all(
                task.status == "running" for task in self.tasks.states() if task.task.startswith("venue ")
            ):
                self._thaw_all("venue")
            if len(self._reconciled) == len(self._external):
                self.loop.held_back = ""
        for order_id in found.strangers:
            state = account.orders.get(order_id)
            if state is not None and order_id not in account.open_ids:
                self.loop.outbox.cancel(account, order_id, "over by our record, open at the venue")
                self.loop.outbox.release()

    def _is_settled(self, account: Account, found: reconcile.Findings, asked: Nanos) -> bool:
        """A difference counts once two answers in a row show it, with nothing under way between: a fill may be in the line."""
        before = self._doubtful.get(account.name)
        if not found.differences:
            self._doubtful.pop(account.name, None)
            return True
        unanswered = {OrderStatus.SUBMITTED, OrderStatus.UNKNOWN}
        moving = any(account.orders[i].status in unanswered for i in account.open_ids)
        seen = {"differences": found.differences, "fills": account.fill_count, "asked": asked}
        self._doubtful[account.name] = seen
        same = before is not None and all(before[k] == seen[k] for k in ("differences", "fills"))
        if same and not moving and before is not None and asked > before["asked"]:
            return True
        self._ask_venue("a difference is looked at again")
        return False

    def _end_doubts(self, account: Account, absent: Sequence[str], asked: Nanos) -> None:
        """Orders the venue does not know and that are in doubt: it is made to say what they are."""
        tombstones = account.broker.capabilities.tombstones
        for order_id in absent:
            state = account.orders[order_id]
            sent = self._sent_at.get(order_id)
            if state.status is not OrderStatus.UNKNOWN or (sent is not None and sent >= asked):
                continue
            self._count("resent")
            self._sent_at[order_id] = self.time.now()
            self.loop.outbox.again(account, order_id if tombstones else state.order)
            self._send.set()
            self._ask_venue("an order in doubt was asked about")

    # ------------------------------------------------------------------ feeds

    def _pump_of(self, feed: Feed) -> Callable[[], Awaitable[None]]:
        async def pump() -> None:
            events: AsyncIterator[FeedEvent] = feed.events()
            async for event in events:
                self.inbox.put(_Fed(feed.name, event, self._clock.monotonic()))
                if len(self.inbox) > 10_000:
                    await asyncio.sleep(0)

        return pump

    def _watch(self, event: FeedEvent, mono: Nanos) -> None:
        """Note when the instruments everything hangs on were last heard, and what of their quotes is wrong."""
        if isinstance(event, Quote):
            if event.instrument in self._watched:
                bid, ask = (math.nan if side is None else side for side in (event.bid, event.ask))
                lag = self._clock.now() - event.ts_event
                self.staleness.hear(event.instrument, mono=mono, bid=bid, ask=ask, lag=lag)
        elif isinstance(event, QuoteBatch):
            for key in self._watched:
                rows = np.flatnonzero(event.instrument == self.loop.universe.index(key))
                if len(rows):
                    row = int(rows[-1])
                    lag = self._clock.now() - int(event.ts_event[row])
                    bid, ask = float(event.bid[row]), float(event.ask[row])
                    self.staleness.hear(key, mono=mono, bid=bid, ask=ask, lag=lag)

    def _look_for_stale(self) -> None:
        """Stop an underlying whose own or hedge quotes fell silent, crossed or late, until they are well again."""
        mono = self._clock.monotonic()
        for key in self._watched:
            why = self.staleness.why(key, mono=mono)
            if why == "never seen":
                continue  # nobody begins before it was
            was = key in self.stale
            if (why is not None) == was:
                continue
            cause = f"stale {key}"
            for account in self.loop.accounts:
                underlying = account.underlying_of(account.universe.get(key))
                if why is not None:
                    account.freeze(underlying, cause, f"the quote of {key} is {why}")
                else:
                    account.thaw(underlying, cause)
            (self.stale.discard if was else self.stale.add)(key)
            self._count("stale" if why is not None else "fresh again")
            self._step(self.loop.record)

    def _hear_task(self, event: TaskEvent) -> None:
        self.inbox.put(_Told(event))

    def _take_task(self, event: TaskEvent, now: Nanos) -> None:
        if event.what in {"failed", "opened", "permanent"}:
            self._count(f"task {event.what}")
            text = f"task {event.task} {event.what}: {type(event.fault).__name__}: {event.fault}"
            if event.task.startswith("venue "):
                self._freeze_external("venue", text)
            for feed in event.serves:
                self._drop_feed(feed, text)
            if not event.serves:
                self._alarm(f"task_{event.what}", text, now)
            if event.what != "failed" and event.task.startswith("venue "):
                self._freeze_external("lease", f"the venue does not hear this process any more: {text}")
        elif event.what == "ended" and event.serves:
            self._open_feeds -= 1

    def _drop_feed(self, feed: str, text: str) -> None:
        self._down.add(feed)
        for account in self.loop.accounts:
            account.freeze(ALL, f"feed {feed}", text)
        down = FeedState(ts_recv=self._lift(), feed=feed, state="down", text=text)
        self._step(lambda: self.loop.take(down, feed))

    def _raise_feed(self, feed: str) -> None:
        self._down.discard(feed)
        for account in self.loop.accounts:
            account.thaw(ALL, f"feed {feed}")

    def _lift(self) -> Nanos:
        return max(self.loop.now, self.time.now())

    # ------------------------------------------------------------------ the end

    def _drain(self) -> None:
        if self.state in {"DRAIN", "STOPPED"}:
            return
        for account in self.loop.accounts:
            account.freeze(ALL, "draining", "the process is being stopped")
        self._step(self.loop.record)
        self._drain_by = self.time.now() + round(self.settings.drain * NS_PER_SECOND)
        self._enter("DRAIN")

    def _drained(self) -> bool:
        """True when every order sent was answered and no market order is on its way, or the patience is over."""
        if self.time.now() >= self._drain_by:
            return True
        states = [account.orders[i] for account, _ in self._external for i in account.open_ids]
        waiting = any(state.status is OrderStatus.SUBMITTED or state.order.kind == "market" for state in states)
        return not waiting and not self.loop.outbox.waiting and self.journal.durable >= self.journal.seq

    async def _sync(self, seconds: float) -> None:
        """Wait until the record is durable and acknowledged, or the patience is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.journal.durable < self.journal.seq or self._unacknowledged or self.loop.outbox.waiting:
                    self._send.set()
                    await self.inbox.wait(0.05)
                    for item in self.inbox.drain():
                        if isinstance(item, _Committed):
                            self._take_commit(item.fault)

    # ------------------------------------------------------------------ words

    def _enter(self, state: State) -> None:
        self.state = state
        self.reached.setdefault(state, self.time.now())
        self.on_state(state)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _after_words(item: _Item) -> bool:
    return not isinstance(item, Control)


def stamped(event: FeedEvent, now: Nanos) -> FeedEvent:
    """The event as received at `now` of engine time: a feed's own stamps follow a wall clock that may leap."""
    if isinstance(event, QuoteBatch | TradeBatch):
        return event.received_at(now)
    return msgspec.structs.replace(event, ts_recv=now)


__all__ = ["Committer", "EngineTime", "Inbox", "LiveClock", "LiveSession", "LiveSettings", "State"]
