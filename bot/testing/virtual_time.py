"""A virtual-time loop is an asyncio loop whose clock leaps to the next timer; law: same program and seed, same story.

No callback waits and none meets the outside: sockets, pipes, child processes, DNS and other threads are refused by name,
executors run inline in order of submission, tasks hash by serial number so that sets of them iterate alike in every run.
When nothing can ever happen again the run ends with `Stalled` and the names of those who wait.

>>> async def main(world: World) -> tuple[float, int]:
...     await asyncio.sleep(3600)
...     return world.loop.time(), world.wall.now()
>>> run(main, start_ns=5)
(3600.0, 3600000000005)
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack

from bot.core.errors import HaltedError
from bot.domain.units import Nanos

T = TypeVar("T")
Args = TypeVarTuple("Args")

NS = 1_000_000_000


class Stalled(HaltedError):
    """Nothing is ready and no timer is set, or time stands still: the run can never go on."""


class Killed(BaseException):
    """Raised by code that has just killed its own process, to leave its call stack; nobody inside may catch it."""


class Process:
    """Tasks that die together, as those of a process do: after `kill` none takes another step, not even a `finally`.

    Tasks, timers and callbacks belong to the process that made them. Open `async with` blocks stay open: what a dead
    process still holds (a lease, a socket) is for the survivors to time out.
    """

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.dead = False
        self._loop = loop

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """A task of this process."""
        if self.dead:
            work.close()
            raise HaltedError(f"process {self.name}: expected a living process, found it killed")
        context = Context()
        context.run(_PROCESS.set, self)
        return self._loop.create_task(work, name=name, context=context)

    def kill(self) -> None:
        """End it at this instant: `kill -9`. A step under way goes on to its next await; raise `Killed` to end it there."""
        if not self.dead:
            self.dead = True
            self._loop.bury(self)


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class _Task(asyncio.Task[T]):
    """A task that hashes by serial number: a set of tasks then iterates in the same order in every run."""

    def __init__(
        self, work: Coroutine[Any, Any, T] | Generator[Any, None, T], *, serial: int, loop: VirtualLoop, **options: Any
    ) -> None:
        context: Context | None = options.get("context")
        self.serial = serial  # before the base: it registers the task in a set
        self.process = _PROCESS.get() if context is None else context.get(_PROCESS)
        super().__init__(work, loop=loop, **options)

    def __hash__(self) -> int:
        return self.serial


class _NoDevices(selectors.BaseSelector):
    """A selector with nothing to select from: whoever waits on it makes time pass instead."""

    def __init__(self) -> None:
        self.leap: Callable[[float | None], None] | None = None
        self._own: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Keep the loop's own wake-up socket, which nobody will write to; refuse every other device."""
        if self.leap is not None:
            raise HaltedError(f"virtual loop: expected no socket, pipe or file to wait for, found {fileobj!r}")
        number = fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
        self._own[number] = selectors.SelectorKey(fileobj, number, events, data)
        return self._own[number]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget a device."""
        return self._own.pop(fileobj if isinstance(fileobj, int) else int(fileobj.fileno()))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing, at once; time has passed."""
        if self.leap is not None:
            self.leap(timeout)
        return []

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        """The loop's own devices."""
        return dict(self._own)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time. `turns_per_instant` bounds how long a program may run without time passing.

    `executor_delay` says, in seconds, how long each call to an executor takes: the function runs whole at the end of it.
    """

    def __init__(
        self, *, turns_per_instant: int = 1_000_000, executor_delay: Callable[[], float] | None = None
    ) -> None:
        devices = _NoDevices()
        super().__init__(devices)
        self.elapsed_ns: Nanos = 0
        self.turns = 0
        self.faults: list[Exception] = []
        self._turns_per_instant = turns_per_instant
        self._turns_here = 0
        self._executor_delay = executor_delay
        self._serial = 0
        self._thread = threading.get_ident()
        self._handlers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self._buried: list[asyncio.Task[Any]] = []
        devices.leap = self._leap
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_fault)

    # Time

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self.elapsed_ns / NS

    def _leap(self, timeout: float | None) -> None:
        self.turns += 1
        if timeout is None:
            raise Stalled(f"virtual loop: expected a timer or a task that can run, found none at {self._where()}")
        if timeout > 0:
            self.elapsed_ns += max(1, round(timeout * NS))
            self._turns_here = 0
            return
        self._turns_here += 1
        if self._turns_here > self._turns_per_instant:
            self._turns_here = 0
            raise Stalled(
                f"virtual loop: expected time to pass, found {self._turns_per_instant} turns at {self._where()}"
            )

    def _where(self) -> str:
        waiting = [f"{task.get_name()} in {_place(task)}" for task in self.living()]
        return f"{self.time():.9f} s; waiting: " + ("; ".join(waiting) if waiting else "nobody")

    # Processes

    def living(self) -> list[_Task[Any]]:
        """Unfinished tasks of living processes, oldest first."""
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, _Task) and not _dead(task.process)]
        return sorted(tasks, key=lambda task: task.serial)

    def bury(self, process: Process) -> None:
        """Drop every callback of a process that died and keep its tasks as they stood, so that none is ever finalized
        while the others live."""
        for task in asyncio.all_tasks(self):
            if isinstance(task, _Task) and task.process is process:
                self._buried.append(task)
        for queue in ("_ready", "_scheduled"):  # asyncio names them so since 3.4 and offers no public way to see them
            for handle in list(getattr(self, queue)):
                if handle._context.get(_PROCESS) is process:
                    handle.cancel()

    def close_buried(self) -> None:
        """Let go of the dead, once nobody can hear them."""
        for task in sorted(self._buried, key=hash):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # gather() of asyncio does the same
            work = task.get_coro()
            # The last words of the dead go nowhere: a `finally` that raises or awaits is theirs to have written.
            with contextlib.suppress(Exception, Killed):
                if work is not None:
                    work.close()
        self._buried.clear()

    # What asyncio asks of a loop

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T] | Generator[Any, None, T], **options: Any
    ) -> asyncio.Task[T]:
        self._serial += 1
        task = _Task(work, serial=self._serial, loop=self, **options)
        if _dead(task.process):  # made in the last step of a process that killed itself
            self._buried.append(task)
        return task

    def _note_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        task = context.get("task", context.get("future"))
        if isinstance(fault, Exception) and not _dead(getattr(task, "process", None)):
            self.faults.append(fault)

    def call_soon(
        self, callback: Callable[[Unpack[Args]], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's; a callback of a dead process is dropped."""
        if _dead(_PROCESS.get() if context is None else context.get(_PROCESS)):
            return _dropped(self, callback, args, context)
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Args]], object],
        *args: *Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's; a timer of a dead process never rings."""
        timer = super().call_at(when, callback, *args, context=context)
        if _dead(_PROCESS.get() if context is None else context.get(_PROCESS)):
            timer.cancel()
        return timer

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Args]], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        """`call_soon`; from another thread it is refused, since threads keep no order."""
        if threading.get_ident() != self._thread:
            name = threading.current_thread().name
            raise HaltedError(f"virtual loop: expected its own thread alone, found {name!r}")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Args]], T], *args: *Args) -> asyncio.Future[T]:
        """The future of `func(*args)`, run inline after `executor_delay`, whatever the executor."""
        done: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if done.cancelled():
                return
            try:
                result = func(*args)
            except Exception as fault:  # noqa: BLE001  it is handed to the one who awaits, as an executor does
                done.set_exception(fault)
            else:
                done.set_result(result)

        if self._executor_delay is None:
            self.call_soon(call)
        else:
            self.call_later(self._executor_delay(), call)
        return done

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing: there is none."""

    # Signals are callbacks here; nothing reaches the operating system

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Args]], Any], *args: *Args) -> None:
        """Have `raise_signal` call back."""
        self._handlers[sig] = (callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Forget a handler; False when there is none."""
        return self._handlers.pop(sig, None) is not None

    def raise_signal(self, sig: int) -> None:
        """Deliver a signal to its handler at this instant; one without a handler is refused."""
        if sig not in self._handlers:
            known = sorted(signal.Signals(number).name for number in self._handlers)
            raise HaltedError(f"virtual loop: expected a handled signal of {known}, found {signal.Signals(sig).name}")
        callback, args = self._handlers[sig]
        self.call_soon(callback, *args)

    # The outside

    def _refuse(self, what: str) -> NoReturn:
        raise HaltedError(f"virtual loop: expected no contact with the outside, found {what}")

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Refused."""
        self._refuse(f"a question to DNS for {host!r}")

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """Refused."""
        self._refuse(f"a question to DNS for {sockaddr!r}")

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        self._refuse("a connection")

    async def create_server(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        self._refuse("a server")

    async def create_datagram_endpoint(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        self._refuse("a datagram socket")

    async def create_unix_connection(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        self._refuse("a connection")

    async def create_unix_server(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        self._refuse("a server")

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        self._refuse("a child process")

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        """Refused."""
        self._refuse("a child process")


class VirtualWall:
    """The wall clock of a virtual loop: it follows the loop's time until it is told to lie. Implements `Clock`.

    The one fake that may break the clock's law: `jump` moves it against monotonic time, either way, as a stepped or a
    suspended machine does; `freeze` stops it.
    """

    def __init__(self, loop: VirtualLoop, start_ns: Nanos = 0) -> None:
        self._loop = loop
        self._offset: Nanos = start_ns
        self._frozen: Nanos | None = None
        self._changed = asyncio.Event()

    def now(self) -> Nanos:
        """What the wall clock shows."""
        return self._frozen if self._frozen is not None else self._loop.elapsed_ns + self._offset

    def monotonic(self) -> Nanos:
        """Nanoseconds of the loop's time, which never lies."""
        return self._loop.elapsed_ns

    def jump(self, by: Nanos) -> None:
        """Step by `by` nanoseconds, which may be negative."""
        self._offset += by
        if self._frozen is not None:
            self._frozen += by
        self._tell()

    def freeze(self) -> None:
        """Stand still until `thaw`."""
        if self._frozen is None:
            self._frozen = self.now()

    def thaw(self) -> None:
        """Go on from where it stands, behind by as long as it stood."""
        if self._frozen is not None:
            self._offset = self._frozen - self._loop.elapsed_ns
            self._frozen = None
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, ts: Nanos) -> None:
        """Return once `now() >= ts`, by the clock's own way or by a jump."""
        while (left := ts - self.now()) > 0:
            limit = None if self._frozen is not None else left / NS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), limit)


class World:
    """What a run in virtual time is given: its loop, wall clock and randomness."""

    def __init__(self, loop: VirtualLoop, *, start_ns: Nanos, seed: int) -> None:
        self.loop = loop
        self.wall = VirtualWall(loop, start_ns)
        self.rng = random.Random(seed)

    def process(self, name: str) -> Process:
        """A process to spawn tasks in and to kill."""
        return Process(self.loop, name)

    def kill_at(self, seconds: float, process: Process) -> asyncio.TimerHandle:
        """Kill a process at an instant of the loop's time. The timer can be cancelled."""
        return self.loop.call_at(seconds, process.kill)


def run(
    main: Callable[[World], Awaitable[T]],
    *,
    start_ns: Nanos = 0,
    seed: int = 0,
    turns_per_instant: int = 1_000_000,
    executor_delay: Callable[[random.Random], float] | None = None,
) -> T:
    """The result of `await main(world)` in virtual time; what is still running then is cancelled, oldest first.

    An exception in a callback that nobody awaits ends the run as an `ExceptionGroup`. `executor_delay` draws each executor
    call's seconds from a stream of its own, so that adding one draws nothing from the world's.
    """
    drawn = random.Random(f"{seed} executor")
    delay = None if executor_delay is None else lambda: executor_delay(drawn)
    loop = VirtualLoop(turns_per_instant=turns_per_instant, executor_delay=delay)

    async def awaited() -> T:
        return await main(World(loop, start_ns=start_ns, seed=seed))

    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(awaited())
        _finish(loop)
    finally:
        loop.close_buried()
        asyncio.set_event_loop(None)
        _abandon(loop)
        loop.close()
    if loop.faults:
        raise ExceptionGroup("virtual loop: callbacks raised", loop.faults)
    return result


def _finish(loop: VirtualLoop) -> None:
    remaining = loop.living()
    for task in remaining:
        task.cancel()
    if remaining:
        loop.run_until_complete(asyncio.gather(*remaining, return_exceptions=True))
    for generator in [g for g in loop._asyncgens if g.ag_running]:  # type: ignore[attr-defined]  # asyncio's own set
        loop._asyncgens.discard(generator)  # type: ignore[attr-defined]  # a killed task stands in it for ever
    loop.run_until_complete(loop.shutdown_asyncgens())


def _abandon(loop: VirtualLoop) -> None:
    """After a fault of the run: end what is left without letting it speak."""
    for task in loop.living():
        loop._buried.append(task)
    loop.close_buried()


def _dead(process: Process | None) -> bool:
    return process is not None and process.dead


def _dropped(
    loop: VirtualLoop, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
) -> asyncio.Handle:
    handle = asyncio.Handle(callback, args, loop, context)
    handle.cancel()
    return handle


def _place(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the innermost frame of it that is still ours to see."""
    frames = task.get_stack()
    if not frames:
        return "its first step"
    return f"{frames[-1].f_code.co_qualname} line {frames[-1].f_lineno}"
