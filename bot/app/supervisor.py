"""A supervisor owns every task of the daemon in one tree; law: no task without a name, an owner and an end that is told.

A core room that raises ends the tree. An adapter that raises is started again after a random wait whose ceiling doubles
(full jitter: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015), until it fails too often in too short
a time: then its circuit opens, what it serves is halted by the callback, and only a person closes it again. A fault that no
retry can mend is not retried. Times are the event loop's own, randomness is passed in: nothing here reads a clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random
from types import TracebackType
from typing import Literal, NamedTuple, Self

import msgspec

from bot.core.errors import (
    BookError,
    ConfigError,
    HaltedError,
    JournalError,
    NotDelivered,
    Permanent,
    PluginError,
    StorageError,
    TooManyRefused,
)

Work = Callable[[], Awaitable[None]]
What = Literal["started", "failed", "opened", "closed", "permanent", "ended"]
Status = Literal["running", "waiting", "open", "ended", "failed"]

PERMANENT: tuple[type[Exception], ...] = (
    Permanent,
    ConfigError,
    BookError,
    PluginError,
    NotDelivered,
    JournalError,
    StorageError,
    HaltedError,
    TooManyRefused,
)
"""Faults that would only come again: retrying them would hide them."""


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How an adapter is tried again. Times in seconds.

    The n-th wait is uniform in [0, min(most, first * 2^n)], n = 0 after a run of `healthy` or longer; the circuit opens at
    failure number `failures` within `window`.
    """

    first: float = 0.1
    most: float = 30.0
    healthy: float = 60.0
    failures: int = 10
    window: float = 300.0

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.most:
            raise ConfigError(f"backoff: expected 0 < first <= most, found first {self.first}, most {self.most}")
        if self.failures < 1 or self.window <= 0 or self.healthy < 0:
            found = f"{self.failures}, {self.window}, {self.healthy}"
            raise ConfigError(f"backoff: expected failures >= 1, window > 0, healthy >= 0; found {found}")

    def wait(self, attempt: int, rng: Random) -> float:
        """Seconds to wait before try number `attempt` + 1, drawn with full jitter."""
        ceiling = self.most if attempt > 62 else min(self.most, self.first * 2.0**attempt)
        return rng.uniform(0.0, ceiling)


class TaskEvent(NamedTuple):
    """What happened to a task: `wait` seconds until the next try after `failed`; `serves` is what it serves."""

    what: What
    task: str
    serves: tuple[str, ...]
    fault: BaseException | None = None
    wait: float = 0.0


class TaskState(NamedTuple):
    """A task as a status page shows it. `since` is on the event loop's clock."""

    task: str
    status: Status
    serves: tuple[str, ...]
    starts: int
    failures: int
    since: float
    fault: str


class _Child:
    """One task of the tree and its history."""

    def __init__(self, name: str, work: Work, *, serves: tuple[str, ...], essential: bool, forever: bool) -> None:
        self.name = name
        self.work = work
        self.serves = serves
        self.essential = essential
        self.forever = forever
        self.status: Status = "waiting"
        self.since = 0.0
        self.starts = 0
        self.failures = 0
        self.recent: deque[float] = deque()
        self.attempt = 0
        self.fault = ""
        self.closed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Supervisor:
    """The daemon's tree of tasks: `async with` opens it, leaving it ends every task, newest first.

    `tell` hears each `TaskEvent` at once, in the event loop; a `tell` that raises ends the tree. What ends the tree comes out
    of the `async with` as it was raised, not wrapped, when it came alone.
    """

    def __init__(
        self,
        *,
        rng: Random,
        tell: Callable[[TaskEvent], None],
        backoff: Backoff | None = None,
        permanent: tuple[type[Exception], ...] = PERMANENT,
    ) -> None:
        self._rng = rng
        self._tell = tell
        self._backoff = backoff if backoff is not None else Backoff()
        self._permanent = permanent
        self._group = asyncio.TaskGroup()
        self._children: dict[str, _Child] = {}

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancel_all()
        try:
            await self._group.__aexit__(kind, value, trace)
        except BaseExceptionGroup as several:
            fault = _alone(several)
            if fault is None:
                raise
            raise fault from None

    def core(self, name: str, work: Work) -> None:
        """Start a core room: it runs once, its return is its end, and any exception of it ends the tree.

        ConfigError for a name that is taken.
        """
        child = self._adopt(_Child(name, work, serves=(), essential=True, forever=False))
        child.task = self._group.create_task(self._until_end(child, self._run_core), name=name)

    def adapter(
        self, name: str, work: Work, *, serves: tuple[str, ...] = (), essential: bool = True, forever: bool = True
    ) -> None:
        """Start an adapter: `work` is called anew at each try.

        `forever`: returning is a fault too. Not `essential`: a permanent fault opens its circuit instead of ending the tree.
        ConfigError for a name that is taken.
        """
        child = self._adopt(_Child(name, work, serves=serves, essential=essential, forever=forever))
        child.task = self._group.create_task(self._until_end(child, self._run_adapter), name=name)

    def close(self, name: str) -> None:
        """Close an open circuit, on a person's word: the adapter is tried again at once. ConfigError if it is not open."""
        child = self._children.get(name)
        if child is None or child.status != "open":
            found = "no such task" if child is None else child.status
            raise ConfigError(f"task {name!r}: expected an open circuit, found {found}")
        child.closed.set()

    def states(self) -> list[TaskState]:
        """Every task that was started, in order of starting."""
        return [
            TaskState(c.name, c.status, c.serves, c.starts, c.failures, c.since, c.fault)
            for c in self._children.values()
        ]

    def restarts(self) -> dict[str, int]:
        """How often each adapter was started again."""
        return {c.name: max(0, c.starts - 1) for c in self._children.values()}

    async def drain(self, grace: float) -> list[str]:
        """End tasks newest first, each only when the one before has ended; the names of those that did not within `grace`
        seconds in all, which then have been told to end too."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        for child in reversed(self._children.values()):
            task = child.task
            if task is None or task.done():
                continue
            if not task.cancelling():
                task.cancel()
            if (left := deadline - loop.time()) > 0:
                await asyncio.wait({task}, timeout=left)
        return [c.name for c in self._children.values() if c.task is not None and not c.task.done()]

    def _adopt(self, child: _Child) -> _Child:
        if child.name in self._children:
            raise ConfigError(f"task {child.name!r}: expected a name of its own, found it taken")
        self._children[child.name] = child
        return child

    def _cancel_all(self) -> None:
        for child in reversed(self._children.values()):
            if child.task is not None and not child.task.cancelling():
                child.task.cancel()  # once: a second time would cut short the cleaning up

    async def _until_end(self, child: _Child, life: Callable[[_Child], Awaitable[None]]) -> None:
        try:
            await life(child)
        except asyncio.CancelledError:
            self._move(child, "ended", TaskEvent("ended", child.name, child.serves))
            raise

    async def _run_core(self, child: _Child) -> None:
        self._start(child)
        try:
            await child.work()
        except Exception as fault:
            self._note(child, fault)
            self._move(child, "failed", TaskEvent("permanent", child.name, child.serves, fault))
            raise
        self._move(child, "ended", TaskEvent("ended", child.name, child.serves))

    async def _run_adapter(self, child: _Child) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._start(child)
            began = loop.time()
            fault = await self._try(child)
            if fault is None:
                self._move(child, "ended", TaskEvent("ended", child.name, child.serves))
                return
            self._note(child, fault)
            if _contains(fault, self._permanent):
                if child.essential:
                    self._move(child, "failed", TaskEvent("permanent", child.name, child.serves, fault))
                    raise fault
                await self._stay_open(child, fault, "permanent")
            elif self._too_often(child, loop.time()):
                await self._stay_open(child, fault, "opened")
            else:
                await self._wait(child, fault, loop.time() - began)

    async def _try(self, child: _Child) -> Exception | None:
        """Run the work once: None when it ended well, else its fault. Told to end, it ends, whatever the work made of that."""
        task = asyncio.current_task()
        assert task is not None
        fault: Exception | None = RuntimeError("returned, though it serves for ever") if child.forever else None
        try:
            await child.work()
        except asyncio.CancelledError:
            fault = ConnectionAbortedError("cancelled itself")
        except Exception as raised:  # noqa: BLE001  a supervisor is where every fault of an adapter ends, counted and told
            fault = raised
        if task.cancelling():
            raise asyncio.CancelledError
        return fault

    async def _wait(self, child: _Child, fault: Exception, ran: float) -> None:
        if ran >= self._backoff.healthy:
            child.attempt = 0
        wait = self._backoff.wait(child.attempt, self._rng)
        child.attempt += 1
        self._move(child, "waiting", TaskEvent("failed", child.name, child.serves, fault, wait))
        await asyncio.sleep(wait)

    async def _stay_open(self, child: _Child, fault: Exception, what: Literal["opened", "permanent"]) -> None:
        child.closed.clear()
        self._move(child, "open", TaskEvent(what, child.name, child.serves, fault))
        await child.closed.wait()
        child.recent.clear()
        child.attempt = 0
        self._tell(TaskEvent("closed", child.name, child.serves))

    def _too_often(self, child: _Child, now: float) -> bool:
        child.recent.append(now)
        while child.recent[0] < now - self._backoff.window:
            child.recent.popleft()
        return len(child.recent) >= self._backoff.failures

    def _start(self, child: _Child) -> None:
        child.starts += 1
        self._move(child, "running", TaskEvent("started", child.name, child.serves))

    def _note(self, child: _Child, fault: Exception) -> None:
        child.failures += 1
        child.fault = f"{type(fault).__name__}: {fault}"

    def _move(self, child: _Child, status: Status, event: TaskEvent) -> None:
        child.status = status
        child.since = asyncio.get_running_loop().time()
        self._tell(event)


def _contains(fault: BaseException, kinds: tuple[type[Exception], ...]) -> bool:
    """True when the fault, or one inside its group, is of the kinds."""
    if isinstance(fault, BaseExceptionGroup):
        return any(_contains(inner, kinds) for inner in fault.exceptions)
    return isinstance(fault, kinds)


def _alone(several: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """What came alone, out of groups of one; None when there are several."""
    fault: BaseException = several
    while isinstance(fault, BaseExceptionGroup) and len(fault.exceptions) == 1:
        fault = fault.exceptions[0]
    return None if fault is several else fault
