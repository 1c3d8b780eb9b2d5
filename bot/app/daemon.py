"""The daemon drives a run: it merges feeds, keeps pace, carries commands to external venues and their words back.

Law: everything that decides lives in the loop; pace, batching and this file's waits change no decision and no fill.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any

from bot.app.wiring import Run
from bot.core.errors import TooManyRefused
from bot.core.events import Control, FeedEvent, Reference, VenueEvent
from bot.core.ports import Broker, Clock
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import Nanos
from bot.engine.account import Account
from bot.engine.merge import merge

Progress = Callable[[Nanos, int], None]


class WallClock:
    """The machine's clock."""

    def now(self) -> Nanos:
        """The present instant."""
        return time.time_ns()

    async def wait_until(self, ts: Nanos) -> None:
        """Return once the clock shows `ts`."""
        delay = (ts - self.now()) / 1e9
        if delay > 0:
            await asyncio.sleep(delay)


class Pace:
    """Recorded time against a clock: `speed` seconds of recording a second, None as fast as it goes."""

    def __init__(self, speed: float | None, clock: Clock) -> None:
        self.speed = speed
        self._clock = clock
        self._origin: tuple[Nanos, Nanos] | None = None

    async def reach(self, ts: Nanos) -> None:
        """Return when recorded instant `ts` has come."""
        if self.speed is None:
            return
        if self._origin is None:
            self._origin = (ts, self._clock.now())
        recorded, began = self._origin
        await self._clock.wait_until(began + round((ts - recorded) / self.speed))


class Voices:
    """What external venues say, queued by tasks of their own and drained between instants."""

    def __init__(self, accounts: list[Account]) -> None:
        self._external: list[tuple[Account, Broker]] = [
            (a, a.broker) for a in accounts if a.in_loop is None and isinstance(a.broker, Broker)
        ]
        self._heard: asyncio.Queue[tuple[Account, VenueEvent]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    def __bool__(self) -> bool:
        return bool(self._external)

    async def open(self, stack: AsyncExitStack) -> None:
        """Enter each broker and start to listen."""
        for account, broker in self._external:
            await stack.enter_async_context(broker)
            self._tasks.append(asyncio.create_task(self._listen(account, broker), name=f"voice {account.name}"))
        stack.push_async_callback(self._close)

    async def _listen(self, account: Account, broker: Broker) -> None:
        async for event in broker.events():
            await self._heard.put((account, event))

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self) -> list[tuple[Account, VenueEvent]]:
        """What was said up to now; venues that answer at once get a few turns of the event loop to do so."""
        heard: list[tuple[Account, VenueEvent]] = []
        idle = 0
        while idle < 5:
            await asyncio.sleep(0)
            idle += 1
            while not self._heard.empty():
                heard.append(self._heard.get_nowait())
                idle = 0
        return heard

    def fault(self) -> BaseException | None:
        """Why a listener ended, None while all listen."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None


async def drive(
    run: Run,
    *,
    speed: float | None = None,
    clock: Clock | None = None,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run to the end of the feeds, the session, or `stop`."""
    clock = clock if clock is not None else WallClock()
    voices = Voices(run.accounts)
    async with AsyncExitStack() as stack:
        for feed in run.feeds:
            await stack.enter_async_context(feed)
        run.journal.cite({feed.name: dict(feed.report().files) for feed in run.feeds})
        stack.enter_context(run.journal)
        await voices.open(stack)
        if run.recorded:
            await _replay(run, Pace(speed, clock), voices, progress, stop)
        else:
            await _live(run, clock, voices, progress, stop)
        run.loop.finish()
        await _carry(run, voices)
        run.loop.finish()


async def _replay(run: Run, pace: Pace, voices: Voices, progress: Progress | None, stop: asyncio.Event | None) -> None:
    loop = run.loop
    by_instant = pace.speed is not None or bool(voices)
    told = Told(stop)
    async with told:
        async for name, item in merge([(feed.name, feed.events()) for feed in run.feeds]):
            for piece in _instants(item) if by_instant else (item,):
                if voices and _first(piece) > loop.now:
                    loop.close_open_instant()
                    await _carry(run, voices)
                if pace.speed is not None:
                    await told.or_done(_pass_time(run, pace, _first(piece)))
                await asyncio.sleep(0)  # signals are heard between pieces, however fast they come
                if told:
                    loop.take(Control(ts_recv=loop.now, verb="stop", operator="signal"), "control")
                    return
                loop.take(piece, name)
            if progress is not None:
                progress(loop.now, loop.tape.rows)
            if loop.done:
                return


async def _pass_time(run: Run, pace: Pace, ts: Nanos) -> None:
    """Let recorded time come to `ts` at its pace: what fell due before is done at its own instant, not at the next quote."""
    loop = run.loop
    if ts > loop.now:
        loop.close_open_instant()
    while (due := loop.next_due()) < ts and not loop.done:
        await pace.reach(due)
        loop.run_timers(due)
    await pace.reach(ts)


class Told:
    """Whether a run was told to stop; whoever waits for something else need not sit it out."""

    def __init__(self, stop: asyncio.Event | None) -> None:
        self._stop = stop if stop is not None else asyncio.Event()
        self._waiting: asyncio.Task[bool] | None = None

    def __bool__(self) -> bool:
        return self._stop.is_set()

    async def __aenter__(self) -> Told:
        self._waiting = asyncio.create_task(self._stop.wait(), name="told to stop")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    async def or_done(self, work: Coroutine[Any, Any, None]) -> None:
        """Return when the work is done, or drop it once the run is told to stop."""
        assert self._waiting is not None
        task = asyncio.create_task(work, name="pace")
        try:
            await asyncio.wait({task, self._waiting}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()


async def _live(run: Run, clock: Clock, voices: Voices, progress: Progress | None, stop: asyncio.Event | None) -> None:
    """Take what arrives, stamped when it arrived; an instant is one drained inbox."""
    inbox: asyncio.Queue[tuple[str, FeedEvent] | None] = asyncio.Queue(maxsize=100_000)
    pumps = [
        asyncio.create_task(_pump(feed.name, feed.events(), inbox), name=f"feed {feed.name}") for feed in run.feeds
    ]
    loop, open_pumps = run.loop, len(pumps)
    try:
        while open_pumps and not loop.done and not (stop is not None and stop.is_set()):
            first = await _next(inbox, loop.due_in(clock.now()))
            batch = [first] if first is not _NOTHING else []
            while not inbox.empty():
                batch.append(inbox.get_nowait())
            for got in batch:
                if got is None:
                    open_pumps -= 1
                elif isinstance(got, tuple):
                    loop.take(_not_before(got[1], loop.now), got[0])
            loop.close_open_instant()
            loop.run_timers(clock.now())
            await _carry(run, voices)
            if progress is not None:
                progress(loop.now, loop.tape.rows)
    finally:
        for pump in pumps:
            pump.cancel()
        results = await asyncio.gather(*pumps, return_exceptions=True)
    for result in results:
        if isinstance(result, TooManyRefused):
            raise result
        if isinstance(result, Exception):
            raise result
    if stop is not None and stop.is_set():
        loop.take(Control(ts_recv=max(loop.now, clock.now()), verb="stop", operator="signal"), "control")


_NOTHING: tuple[str, FeedEvent] = ("", Reference(ts_recv=0, what="changed", instrument=""))


async def _next(inbox: asyncio.Queue[tuple[str, FeedEvent] | None], wait: float) -> tuple[str, FeedEvent] | None:
    try:
        return await asyncio.wait_for(inbox.get(), timeout=max(0.0, min(wait, 0.25)))
    except TimeoutError:
        return _NOTHING


async def _pump(
    name: str, events: AsyncIterator[FeedEvent], inbox: asyncio.Queue[tuple[str, FeedEvent] | None]
) -> None:
    try:
        async for event in events:
            await inbox.put((name, event))
    finally:
        with contextlib.suppress(asyncio.QueueFull):
            inbox.put_nowait(None)


def _not_before(event: FeedEvent, now: Nanos) -> FeedEvent:
    """The event, its receive time lifted to the loop's clock when two feeds raced."""
    if isinstance(event, QuoteBatch | TradeBatch) or event.ts_recv >= now:
        return event
    import msgspec  # noqa: PLC0415  only races between live feeds come here

    return msgspec.structs.replace(event, ts_recv=now)


async def _carry(run: Run, voices: Voices) -> None:
    """Carry commands to external venues and their words back until both sides are silent."""
    loop = run.loop
    if not voices:
        return
    for _ in range(1000):
        for account, event in await loop.outbox.send():
            loop.hear(account, event)
        heard = await voices.settle()
        for account, event in heard:
            loop.hear(account, event)
        fault = voices.fault()
        if fault is not None:
            raise fault
        if not heard and not loop.outbox.waiting:
            return


def _instants(item: FeedEvent) -> Iterator[FeedEvent]:
    """A batch cut where the instant changes; anything else as it is."""
    if not isinstance(item, QuoteBatch | TradeBatch):
        yield item
        return
    times = item.ts_recv
    start = 0
    while start < len(item):
        stop = int(times.searchsorted(times[start], side="right"))
        yield item.rows(start, stop)
        start = stop


def _first(item: FeedEvent) -> Nanos:
    return int(item.ts_recv[0]) if isinstance(item, QuoteBatch | TradeBatch) else item.ts_recv


def run_to_end(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a coroutine with SIGTERM and SIGINT turned into a clean stop; a second signal ends at once."""

    async def guarded() -> None:
        stop = asyncio.Event()
        events = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                events.add_signal_handler(number, _stop_once(stop, number))
        await main(stop)

    asyncio.run(guarded())


def _stop_once(stop: asyncio.Event, number: int) -> Callable[[], None]:
    def act() -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    return act
