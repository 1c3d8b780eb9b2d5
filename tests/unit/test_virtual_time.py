"""The virtual loop keeps asyncio's promises, tells the same story twice and lets a process die in the middle of a word."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bot.core.errors import HaltedError
from bot.testing.virtual_time import Killed, Stalled, World, run

NS = 1_000_000_000


def test_time_leaps_exactly_to_each_timer() -> None:
    """Sleepers wake in order of their timers at the very nanosecond, over two months, without waiting."""
    woke: list[tuple[int, str]] = []

    async def sleeper(world: World, name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woke.append((world.wall.now(), name))

    async def main(world: World) -> None:
        async with asyncio.TaskGroup() as group:
            for name, seconds in (
                ("c", 5_000_000.0),
                ("a", 0.1),
                ("b", 0.100000001),
                ("d", 5_000_000.25),
                ("e", 1.001),
            ):
                group.create_task(sleeper(world, name, seconds))

    run(main, start_ns=1_000)
    assert woke == [
        (100_001_000, "a"),
        (100_001_001, "b"),
        (1_001_001_000, "e"),
        (5_000_000 * NS + 1_000, "c"),
        (5_000_000 * NS + NS // 4 + 1_000, "d"),
    ]


def test_equal_timers_ring_at_one_instant() -> None:
    """Timers of one instant all ring at it, in an order that is the same in every run."""

    async def main(world: World) -> list[tuple[int, float]]:
        rang: list[tuple[int, float]] = []
        for number in range(100):
            world.loop.call_at(3.0, lambda n=number: rang.append((n, world.loop.time())))
        await asyncio.sleep(4)
        return rang

    rang = run(main)
    assert sorted(n for n, _ in rang) == list(range(100))
    assert {when for _, when in rang} == {3.0}
    assert run(main) == rang


def test_timeouts_and_cancellation_are_asyncios_own() -> None:
    """A timeout strikes at its instant, cancels the work and lets its `finally` run."""

    async def main(world: World) -> list[object]:
        told: list[object] = []

        async def work() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                told.append(("undone", world.loop.time()))

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await work()
        told.append(world.loop.time())
        return told

    assert run(main) == [("undone", 2.5), 2.5]


def story(seed: int) -> list[tuple[float, str]]:
    """Twenty tasks that sleep, race, fail and are cancelled, as the seed says."""
    told: list[tuple[float, str]] = []

    async def walker(world: World, number: int) -> None:
        try:
            for _ in range(10):
                await asyncio.sleep(world.rng.random())
                told.append((world.loop.time(), f"{number} {await asyncio.to_thread(world.rng.randrange, 100)}"))
            if number == 7:
                raise ValueError("seven")
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            told.append((world.loop.time(), f"{number} cancelled"))
            raise

    async def main(world: World) -> None:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(walker(world, number))

    run(main, seed=seed, executor_delay=lambda rng: rng.expovariate(100.0))
    return told


def test_same_seed_same_story() -> None:
    """One seed tells one story to the last bit, cancellations out of a set included; another seed tells another."""
    ballast = [object() for _ in range(1000)]
    first = story(3)
    del ballast[::2]
    assert [story(3) for _ in range(3)] == [first] * 3
    assert story(4) != first


def test_sets_of_tasks_iterate_alike() -> None:
    """A set of tasks gives the same order in every run, whatever addresses they have."""

    async def main(world: World) -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(1), name=str(n)) for n in range(50)}
        return [task.get_name() for task in tasks]

    first = run(main)
    assert sorted(first, key=int) == [str(n) for n in range(50)]
    assert [run(main) for _ in range(5)] == [first] * 5


def test_a_wait_for_nothing_is_named() -> None:
    """When nobody can ever run again the run ends and says who waits where."""

    async def main(world: World) -> None:
        nobody = asyncio.create_task(asyncio.Event().wait(), name="patience")
        await asyncio.sleep(3)
        await nobody

    with pytest.raises(Stalled, match=r"3\.000000000 s; waiting: .*patience in Event\.wait"):
        run(main)


def test_time_that_stands_still_is_named() -> None:
    """A task that spins without letting time pass ends the run instead of hanging it."""

    async def main(world: World) -> None:
        await asyncio.sleep(1)
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stalled, match=r"expected time to pass, found 1000 turns at 1\.000000000 s"):
        run(main, turns_per_instant=1000)


def test_the_wall_follows_until_it_lies() -> None:
    """The wall clock steps both ways and stands still while monotonic time goes on; who waits for it follows the wall."""

    async def main(world: World) -> list[tuple[int, int]]:
        wall, seen = world.wall, []

        async def wait_for(ts: int) -> None:
            await wall.wait_until(ts)
            seen.append((wall.now(), wall.monotonic()))

        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for(110 * NS))
            await asyncio.sleep(4)
            wall.jump(7 * NS)  # 111 now: the waiter is woken by the jump
            await asyncio.sleep(1)
        wall.jump(-20 * NS)  # 92 at 5
        seen.append((wall.now(), wall.monotonic()))
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for(95 * NS))
            await asyncio.sleep(1)
            wall.freeze()  # 93 at 6
            await asyncio.sleep(10)
            seen.append((wall.now(), wall.monotonic()))
            wall.thaw()
        return seen

    assert run(main, start_ns=100 * NS) == [
        (111 * NS, 4 * NS),
        (92 * NS, 5 * NS),
        (93 * NS, 16 * NS),
        (95 * NS, 18 * NS),
    ]


def test_a_killed_process_takes_no_other_step() -> None:
    """After kill -9 no task, timer, callback or `finally` of the process runs; the others go on."""
    told: list[str] = []

    async def child(world: World) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            told.append("finally of the child")

    async def daemon(world: World) -> None:
        world.loop.call_later(20, told.append, "timer")
        task = asyncio.create_task(child(world), name="child")
        try:
            while True:
                await asyncio.sleep(1)
                told.append(f"beat {world.loop.time():.0f}")
        finally:
            told.append("finally of the daemon")
            await task

    async def main(world: World) -> None:
        first = world.process("first")
        first.spawn(daemon(world), name="daemon")
        world.kill_at(2.5, first)
        await asyncio.sleep(50)
        told.append("survivor")
        assert [task.get_name() for task in world.loop.living() if task.get_name() in ("daemon", "child")] == []
        with pytest.raises(HaltedError, match="expected a living process"):
            first.spawn(child(world))
        told.append("end")

    run(main)
    assert told[:4] == ["beat 1", "beat 2", "survivor", "end"]
    assert "timer" not in told


def test_a_process_killed_while_ready_does_not_run() -> None:
    """A process killed in the same turn in which its task is already due never runs that turn."""
    told: list[str] = []

    async def quick() -> None:
        told.append("ran")

    async def main(world: World) -> None:
        process = world.process("p")
        process.spawn(quick())
        process.kill()
        await asyncio.sleep(1)

    run(main)
    assert told == []


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_nobody_wakes_the_dead() -> None:
    """What a survivor does for a dead process, and what its last step still sets in motion, never runs."""
    told: list[str] = []

    async def waiting(bell: asyncio.Event) -> None:
        await bell.wait()
        told.append("woken")

    async def last_step(world: World, process: Any) -> None:
        process.kill()
        world.loop.call_soon(told.append, "soon")
        world.loop.call_later(1, told.append, "later")
        asyncio.create_task(waiting(asyncio.Event()))  # noqa: RUF006  the dead keep nothing
        told.append("to the next await")
        await asyncio.sleep(0)
        told.append("past it")

    async def main(world: World) -> None:
        process, bell = world.process("p"), asyncio.Event()
        process.spawn(waiting(bell))
        await asyncio.sleep(1)
        process.spawn(last_step(world, process))
        await asyncio.sleep(1)
        bell.set()
        await asyncio.sleep(10)

    run(main)
    assert told == ["to the next await"]


def test_a_process_may_end_its_own_step() -> None:
    """Code that kills its own process and raises `Killed` leaves its stack; whoever waits on the task is told."""

    async def crash(process: Any) -> None:
        process.kill()
        raise Killed

    async def main(world: World) -> str:
        process = world.process("p")
        task = process.spawn(crash(process))
        try:
            await task
        except Killed:
            return "told"
        return "silent"

    assert run(main) == "told"


def half_a_second(rng: random.Random) -> float:
    return 0.5


def test_executors_run_inline_in_order() -> None:
    """Functions given to threads run in the loop's own thread, in order, after the drawn delay, and raise to who awaits."""
    here = threading.get_ident()

    async def main(world: World) -> list[tuple[int, float]]:
        seen: list[tuple[int, float]] = []

        def work(number: int) -> int:
            assert threading.get_ident() == here
            seen.append((number, world.loop.time()))
            return number * number

        assert await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(3))) == [0, 1, 4]
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return seen

    assert run(main, executor_delay=half_a_second) == [(0, 0.5), (1, 0.5), (2, 0.5)]


def test_another_thread_is_refused() -> None:
    """A call from another thread is refused by name, since threads keep no order."""

    async def main(world: World) -> list[str]:
        told: list[str] = []

        def intrude() -> None:
            try:
                world.loop.call_soon_threadsafe(told.append, "in")
            except HaltedError as refusal:
                told.append(str(refusal))

        thread = threading.Thread(target=intrude, name="intruder")
        thread.start()
        thread.join()
        world.loop.call_soon_threadsafe(told.append, "own")
        await asyncio.sleep(0)
        return told

    assert run(main) == ["virtual loop: expected its own thread alone, found 'intruder'", "own"]


async def nobody(*_: object) -> None: ...


OUTSIDE: dict[str, Callable[[], Awaitable[object]]] = {
    "dns": lambda: asyncio.get_running_loop().getaddrinfo("localhost", 80),
    "names": lambda: asyncio.get_running_loop().getnameinfo(("127.0.0.1", 80)),
    "connect": lambda: asyncio.open_connection("127.0.0.1", 9),
    "serve": lambda: asyncio.start_server(nobody, "127.0.0.1", 0),
    "unix": lambda: asyncio.open_unix_connection("/nowhere"),
    "unix server": lambda: asyncio.start_unix_server(nobody, "/nowhere"),
    "datagram": lambda: asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol),
    "child": lambda: asyncio.create_subprocess_exec("true"),
    "shell": lambda: asyncio.create_subprocess_shell("true"),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_the_outside_is_refused(kind: str) -> None:
    """Every road out of the loop is refused by name."""

    async def main(world: World) -> None:
        with pytest.raises(HaltedError, match="expected no"):
            await OUTSIDE[kind]()

    run(main)


def test_a_raw_socket_is_refused() -> None:
    """A socket handed to the loop itself is refused too."""

    async def main(world: World) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            with pytest.raises(HaltedError, match="expected no socket"):
                await world.loop.sock_recv(ours, 1)

    run(main)


def test_signals_are_callbacks() -> None:
    """A raised signal calls its handler at that instant; one that nobody handles is refused."""

    async def main(world: World) -> float:
        stop = asyncio.Event()
        world.loop.add_signal_handler(signal.SIGTERM, stop.set)
        world.loop.call_later(9, world.loop.raise_signal, signal.SIGTERM)
        await stop.wait()
        with pytest.raises(HaltedError, match=r"expected a handled signal of \['SIGTERM'\], found SIGINT"):
            world.loop.raise_signal(signal.SIGINT)
        assert world.loop.remove_signal_handler(signal.SIGTERM)
        assert not world.loop.remove_signal_handler(signal.SIGTERM)
        return world.loop.time()

    assert run(main) == 9.0


def test_a_fault_of_a_callback_ends_the_run() -> None:
    """An exception that nobody awaits is not lost in a log: the run raises it."""

    async def main(world: World) -> None:
        world.loop.call_later(1, lambda: 1 // 0)
        await asyncio.sleep(2)

    with pytest.raises(ExceptionGroup, match="callbacks raised"):
        run(main)


def test_what_still_runs_at_the_end_is_cancelled_in_order() -> None:
    """Tasks left over are cancelled, oldest first, and may clean up, which takes time."""
    told: list[tuple[str, float]] = []
    kept: list[asyncio.Task[None]] = []

    async def lingering(world: World, name: str) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            told.append((name, world.loop.time()))
            await asyncio.sleep(1)
            told.append((name.upper(), world.loop.time()))

    async def main(world: World) -> None:
        kept.extend(asyncio.create_task(lingering(world, name)) for name in "abc")
        await asyncio.sleep(5)

    run(main)
    assert told[:3] == [("a", 5.0), ("b", 5.0), ("c", 5.0)]
    assert sorted(told[3:]) == [("A", 6.0), ("B", 6.0), ("C", 6.0)]


def test_the_worlds_randomness_is_not_the_executors() -> None:
    """Delays of executor calls draw from a stream of their own."""

    async def main(world: World) -> float:
        await asyncio.to_thread(int)
        return world.rng.random()

    assert run(main, seed=11) == run(main, seed=11, executor_delay=random.Random.random)
