"""The tree of tasks restarts what can heal, ends on what cannot, and tells each step; all in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.app.supervisor import Backoff, Supervisor, TaskEvent
from bot.core.errors import ConfigError, DataError, JournalError, Permanent
from bot.testing.virtual_time import Stalled, World, run

Told = list[tuple[float, str, str]]


class Diary:
    """Hears the supervisor and keeps when it said what."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.told: Told = []
        self.events: list[TaskEvent] = []

    def __call__(self, event: TaskEvent) -> None:
        self.told.append((self._world.loop.time(), event.what, event.task))
        self.events.append(event)

    def of(self, what: str) -> list[float]:
        return [when for when, said, _ in self.told if said == what]


def dies_after(
    seconds: float, fault: Callable[[], BaseException] = lambda: ConnectionError("gone")
) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        await asyncio.sleep(seconds)
        raise fault()

    return work


async def for_ever() -> None:
    await asyncio.sleep(1e9)


def test_waits_double_under_full_jitter() -> None:
    """Each wait is drawn from zero to a ceiling that doubles from 0.1 s to 30 s, from the randomness passed in."""
    backoff, ceilings = Backoff(), [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    for attempt, ceiling in enumerate(ceilings):
        draws = [backoff.wait(attempt, Random(seed)) for seed in range(500)]
        assert 0.0 <= min(draws) < 0.02 * ceiling
        assert 0.98 * ceiling < max(draws) <= ceiling
        assert abs(sum(draws) / 500 - ceiling / 2) < 4 * ceiling / (12 * 500) ** 0.5


@given(attempt=st.integers(0, 10**9), seed=st.integers(0, 2**32))
def test_a_wait_is_never_above_the_cap(attempt: int, seed: int) -> None:
    """However often it failed, a wait lies between zero and the cap."""
    assert 0.0 <= Backoff().wait(attempt, Random(seed)) <= 30.0


@pytest.mark.parametrize(
    "bad", [{"first": 0.0}, {"first": 40.0}, {"failures": 0}, {"window": 0.0}, {"healthy": -1.0}], ids=str
)
def test_a_backoff_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    """Waits and counts outside their domain are refused by name."""
    with pytest.raises(ConfigError, match="backoff: expected"):
        Backoff(**bad)  # type: ignore[arg-type]  # the point of the test


def test_an_adapter_that_dies_is_started_again_and_ten_failures_open_its_circuit() -> None:
    """Nine failures are retried after jittered waits; the tenth within five minutes opens the circuit, with what it serves."""

    async def main(world: World) -> Diary:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary) as tree:
            tree.adapter("feed es", dies_after(0.5), serves=("CME:ES",))
            await asyncio.sleep(1000)
            assert tree.states()[0].status == "open"
            assert tree.states()[0].fault == "ConnectionError: gone"
            assert tree.restarts() == {"feed es": 9}
        return diary

    for seed in range(20):
        diary = run(main, seed=seed)
        assert len(diary.of("started")) == 10
        assert len(diary.of("failed")) == 9
        assert len(diary.of("opened")) == 1
        assert [e.serves for e in diary.events if e.what == "opened"] == [("CME:ES",)]
        waits = [event.wait for event in diary.events if event.what == "failed"]
        assert all(wait <= 0.1 * 2**n for n, wait in enumerate(waits))
        gaps = [b - a for a, b in zip(diary.of("failed"), diary.of("started")[1:], strict=True)]
        assert gaps == pytest.approx(waits, abs=2e-9)


def test_two_seeds_wait_differently() -> None:
    """Two daemons that lost one venue do not come back together."""

    async def main(world: World) -> list[float]:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary) as tree:
            tree.adapter("feed", dies_after(0.5))
            await asyncio.sleep(100)
        return diary.of("started")

    assert run(main, seed=1) == run(main, seed=1) != run(main, seed=2)


def test_a_healthy_minute_forgives() -> None:
    """An adapter that fails once every 61 s is always retried as if for the first time, and never opens."""

    async def main(world: World) -> Diary:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary) as tree:
            tree.adapter("feed", dies_after(61.0))
            await asyncio.sleep(3600)
        return diary

    diary = run(main)
    assert diary.of("opened") == []
    assert len(diary.of("failed")) == 58
    assert max(event.wait for event in diary.events) <= 0.1


def test_just_short_of_a_minute_does_not_forgive() -> None:
    """Runs of 59 s keep the ceiling rising, though fewer than ten failures fall into five minutes."""

    async def main(world: World) -> Diary:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary) as tree:
            tree.adapter("feed", dies_after(59.0))
            await asyncio.sleep(3600)
        return diary

    diary = run(main)
    assert diary.of("opened") == []
    assert max(event.wait for event in diary.events) > 15.0


def test_failures_outside_the_window_do_not_count() -> None:
    """Nine failures, a quiet spell longer than the window and nine more leave the circuit closed; a tenth within it opens."""
    backoff = Backoff(first=0.001, most=0.001)

    async def main(world: World, lives: list[float]) -> Diary:
        diary = Diary(world)
        left = iter(lives)

        async def work() -> None:
            await asyncio.sleep(next(left))
            raise ConnectionError

        async with Supervisor(rng=world.rng, tell=diary, backoff=backoff) as tree:
            tree.adapter("feed", work)
            await asyncio.sleep(2000)
        return diary

    quiet = run(lambda world: main(world, [1.0] * 9 + [310.0] + [1.0] * 8 + [1e6]))
    assert quiet.of("opened") == []
    busy = run(lambda world: main(world, [1.0] * 9 + [310.0] + [1.0] * 9 + [1e6]))
    assert len(busy.of("opened")) == 1


def test_a_person_closes_a_circuit() -> None:
    """A closed circuit is tried at once with a clean slate; only an open one can be closed."""

    async def main(world: World) -> Diary:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary) as tree:
            tree.adapter("feed", dies_after(0.0))
            await asyncio.sleep(60)
            assert len(diary.of("opened")) == 1
            tree.close("feed")
            await asyncio.sleep(60)
            assert len(diary.of("opened")) == 2
            tree.core("engine", for_ever)
            for name, found in (("engine", "waiting"), ("nobody", "no such task")):
                with pytest.raises(ConfigError, match=f"expected an open circuit, found {found}"):
                    tree.close(name)
        return diary

    diary = run(main)
    assert diary.of("closed") == [60.0]
    assert len(diary.of("started")) == 20
    waits = [event.wait for event in diary.events if event.what == "failed"]
    assert all(wait <= 0.1 * 2**n for n, wait in enumerate(waits[9:]))


@pytest.mark.parametrize(
    "fault",
    [
        Permanent("password refused"),
        ConfigError("x"),
        JournalError("x"),
        ExceptionGroup("two", [OSError(), Permanent("in")]),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_permanent_fault_ends_the_tree_at_once(fault: Exception) -> None:
    """A fault no retry can mend is raised out of the tree as it is, after one start, though it came inside a group."""

    def as_it_is() -> BaseException:
        return fault

    async def main(world: World) -> None:
        diary = Diary(world)
        cleaned: list[str] = []

        async def other() -> None:
            try:
                await asyncio.sleep(1e9)
            finally:
                cleaned.append("other")

        with pytest.raises(type(fault)) as caught:
            async with Supervisor(rng=world.rng, tell=diary) as tree:
                tree.core("engine", other)
                tree.adapter("feed", dies_after(1.0, as_it_is))
                await asyncio.sleep(1e6)
        assert caught.value is fault
        assert world.loop.time() == 1.0
        assert cleaned == ["other"]
        assert diary.told.count((1.0, "permanent", "feed")) == 1
        assert diary.of("failed") == []

    run(main)


def test_a_permanent_fault_of_what_is_not_essential_opens_its_circuit() -> None:
    """A view with a bad config is not tried again, and the daemon goes on."""

    async def main(world: World) -> list[str]:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary) as tree:
            tree.adapter("view", dies_after(1.0, lambda: ConfigError("x")), essential=False)
            await asyncio.sleep(100)
            assert [state.status for state in tree.states()] == ["open"]
        return [what for _, what, _ in diary.told]

    assert run(main) == ["started", "permanent", "ended"]


def test_a_fault_of_a_feed_is_retried_though_it_is_ours() -> None:
    """A feed that is damaged as a whole is tried again."""

    async def main(world: World) -> int:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary) as tree:
            tree.adapter("feed", dies_after(100.0, lambda: DataError("cut off")))
            await asyncio.sleep(350)
        return len(diary.of("started"))

    assert run(main) == 4


def test_a_core_room_that_raises_ends_the_tree() -> None:
    """A core room is never restarted: its fault comes out as it was raised and the others are ended, newest first."""
    ended: list[str] = []

    async def room(name: str) -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append(name)

    async def main(world: World) -> None:
        diary = Diary(world)
        with pytest.raises(ZeroDivisionError):
            async with Supervisor(rng=world.rng, tell=diary) as tree:
                tree.core("a", lambda: room("a"))
                tree.core("engine", dies_after(2.0, ZeroDivisionError))
                tree.adapter("b", lambda: room("b"))
                await asyncio.sleep(1e6)
        assert world.loop.time() == 2.0

    run(main)
    assert sorted(ended) == ["a", "b"]


def test_two_faults_at_once_come_out_together() -> None:
    """Faults of several core rooms in one instant are all told, as a group."""

    async def main(world: World) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with Supervisor(rng=world.rng, tell=Diary(world)) as tree:
                tree.core("a", dies_after(1.0, ZeroDivisionError))
                tree.core("b", dies_after(1.0, KeyError))
                await asyncio.sleep(2)
        assert {type(fault) for fault in caught.value.exceptions} == {ZeroDivisionError, KeyError}

    run(main)


def test_a_return_is_a_fault_of_what_serves_for_ever() -> None:
    """A live feed that returns is started again; one that may end has ended."""

    async def returns() -> None:
        await asyncio.sleep(100)

    async def main(world: World) -> list[tuple[str, str, int]]:
        async with Supervisor(rng=world.rng, tell=Diary(world)) as tree:
            tree.adapter("live", returns)
            tree.adapter("file", returns, forever=False)
            await asyncio.sleep(250)
            return [(state.task, state.status, state.starts) for state in tree.states()]

    assert run(main) == [("live", "running", 3), ("file", "ended", 1)]


def test_a_cancellation_that_leaks_out_of_an_adapter_is_a_fault() -> None:
    """An adapter whose library cancels it is restarted, and is still ended when the tree ends."""

    async def leaks() -> None:
        await asyncio.sleep(1)
        raise asyncio.CancelledError

    async def main(world: World) -> Diary:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary) as tree:
            tree.adapter("feed", leaks)
            await asyncio.sleep(3)
        return diary

    diary = run(main)
    assert len(diary.of("failed")) >= 1
    assert next(str(e.fault) for e in diary.events if e.what == "failed") == "cancelled itself"
    assert diary.told[-1][1:] == ("ended", "feed")


@pytest.mark.parametrize("makes_of_it", ["returns", "raises", "starts anew"])
def test_an_adapter_cannot_escape_its_end(makes_of_it: str) -> None:
    """An adapter that swallows its cancellation, or raises something else, is not taken for a failure and tried again."""

    async def work() -> None:
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            if makes_of_it == "raises":
                raise ConnectionError("while closing") from None
            if makes_of_it == "starts anew":
                await asyncio.sleep(3)

    async def main(world: World) -> tuple[list[str], Told]:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary) as tree:
            tree.adapter("feed", work)
            await asyncio.sleep(1)
            stubborn = await tree.drain(10.0)
        return stubborn, diary.told

    took = 4.0 if makes_of_it == "starts anew" else 1.0
    assert run(main) == ([], [(0.0, "started", "feed"), (took, "ended", "feed")])


def test_draining_ends_tasks_newest_first_and_names_the_stubborn() -> None:
    """Each task has ended before the one it was built on is told; who does not end within the grace is named."""
    order: list[tuple[str, float]] = []

    def room(name: str, world: World, takes: float) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            try:
                await asyncio.sleep(1e9)
            finally:
                await asyncio.sleep(takes)
                order.append((name, world.loop.time()))

        return work

    async def main(world: World) -> list[str]:
        async with Supervisor(rng=world.rng, tell=Diary(world)) as tree:
            tree.core("journal", room("journal", world, 1.0))
            tree.core("engine", room("engine", world, 1.0))
            tree.adapter("feed", room("feed", world, 1.0))
            await asyncio.sleep(10)
            assert await tree.drain(5.0) == []
        assert order == [("feed", 11.0), ("engine", 12.0), ("journal", 13.0)]
        order.clear()
        async with Supervisor(rng=world.rng, tell=Diary(world)) as tree:
            tree.core("journal", room("journal", world, 0.0))
            tree.core("stuck", room("stuck", world, 100.0))
            await asyncio.sleep(1)
            return await tree.drain(5.0)

    assert run(main) == ["journal", "stuck"]
    assert [name for name, _ in order] == ["journal", "stuck"]


def test_leaving_the_tree_ends_a_waiting_and_an_open_task_too() -> None:
    """Neither a task between two tries nor one with an open circuit outlives the tree."""

    async def main(world: World) -> list[str]:
        diary = Diary(world)
        async with Supervisor(rng=world.rng, tell=diary, backoff=Backoff(first=20.0, most=30.0, failures=2)) as tree:
            tree.adapter("waiting", dies_after(9.9))
            tree.adapter("open", dies_after(0.0, lambda: Permanent("x")), essential=False)
            tree.adapter("never ran", for_ever)
            await asyncio.sleep(10)
        return [task.get_name() for task in world.loop.living() if task.get_name() in ("waiting", "open", "never ran")]

    assert run(main) == []


def test_a_name_is_taken_once() -> None:
    """Two tasks of one name are refused: whoever reads a log must know which one spoke."""

    async def main(world: World) -> None:
        async with Supervisor(rng=world.rng, tell=Diary(world)) as tree:
            tree.core("engine", for_ever)
            with pytest.raises(ConfigError, match="expected a name of its own"):
                tree.adapter("engine", for_ever)

    run(main)


def test_a_listener_that_raises_ends_the_tree() -> None:
    """When nobody can be told what happens, nothing goes on."""

    def deaf(event: TaskEvent) -> None:
        raise RuntimeError(event.what)

    async def main(world: World) -> None:
        with pytest.raises(RuntimeError, match="started"):
            async with Supervisor(rng=world.rng, tell=deaf) as tree:
                tree.adapter("feed", for_ever)
                await asyncio.sleep(10)

    run(main)


def test_every_task_has_its_name() -> None:
    """The tasks of the tree carry the names they were given."""

    async def main(world: World) -> set[str]:
        async with Supervisor(rng=world.rng, tell=Diary(world)) as tree:
            tree.core("engine", for_ever)
            tree.adapter("feed es", for_ever)
            await asyncio.sleep(1)
            return {task.get_name() for task in world.loop.living()}

    assert run(main) >= {"engine", "feed es"}


def test_the_tree_runs_on_the_stock_loop() -> None:
    """Nothing in the tree needs virtual time."""

    async def main() -> list[str]:
        told: list[str] = []
        async with Supervisor(rng=Random(1), tell=lambda e: told.append(e.what), backoff=Backoff(first=1e-6)) as tree:
            tree.adapter("feed", dies_after(0.0), essential=False)
            while "opened" not in told:
                await asyncio.sleep(0)
            return told

    assert asyncio.run(main()).count("failed") == 9


def test_a_stalled_world_is_not_mistaken_for_health() -> None:
    """A tree whose only task waits for an open circuit is seen as a stall in virtual time."""

    async def main(world: World) -> None:
        async with Supervisor(rng=world.rng, tell=Diary(world)) as tree:
            tree.adapter("open", dies_after(0.0, lambda: Permanent("x")), essential=False)
            await asyncio.Event().wait()

    with pytest.raises(Stalled, match="open in"):
        run(main)
