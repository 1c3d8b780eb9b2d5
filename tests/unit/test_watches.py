"""The watches see a wall clock that steps and a loop that comes late, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.app.watches import ClockWatch, Jump, LagWatch
from bot.core.errors import ConfigError
from bot.testing.virtual_time import World, run

MS = 1_000_000
S = 1_000 * MS
START = 1_700_000_000 * S


def jumps_of(steps: list[tuple[float, int]], *, until: float = 60.0) -> list[Jump]:
    """What a clock watch tells of a wall that steps by so many nanoseconds at such seconds."""

    async def main(world: World) -> list[Jump]:
        told: list[Jump] = []
        watch = ClockWatch(told.append, wall=world.wall.now, mono=world.wall.monotonic)
        task = asyncio.create_task(watch.run(), name="clock watch")
        for when, by in steps:
            world.loop.call_at(when, world.wall.jump, by)
        await asyncio.sleep(until)
        task.cancel()
        assert watch.jumps == len(told)
        return told

    return run(main, start_ns=START)


@pytest.mark.parametrize("by", [S, -S, 3600 * S, -3600 * S, 60 * S, 251 * MS, -251 * MS])
def test_a_step_is_told_once_with_its_size(by: int) -> None:
    """A wall clock that steps is told once, within 100 ms, with the size and side of the step."""
    (jump,) = jumps_of([(10.05, by)])
    assert jump.by == by
    assert 10.05 * S <= jump.mono <= 10.15 * S
    assert jump.wall == START + jump.mono + by


def test_small_steps_and_slewing_are_followed_silently() -> None:
    """Steps of 250 ms either way, and a clock slewed by 500 parts in a million for an hour, are no jumps."""
    assert jumps_of([(10.0, 250 * MS), (20.0, -250 * MS)]) == []
    assert jumps_of([(float(n), MS // 2) for n in range(3600)], until=3600.0) == []


def test_small_steps_add_up() -> None:
    """Steps too small to tell are told together once their sum is not."""
    (jump,) = jumps_of([(10.0, 100 * MS), (10.5, 100 * MS), (11.0, 100 * MS)])
    assert 290 * MS < jump.by <= 300 * MS


def test_each_of_several_steps_is_told() -> None:
    """There and back is two jumps."""
    assert [jump.by for jump in jumps_of([(10.0, S), (20.0, -S), (30.0, 3600 * S)])] == [S, -S, 3600 * S]


def test_a_frozen_wall_is_told_as_it_falls_behind() -> None:
    """A wall clock that stands still is told each time it has fallen behind by more than the limit."""

    async def main(world: World) -> list[Jump]:
        told: list[Jump] = []
        watch = ClockWatch(told.append, wall=world.wall.now, mono=world.wall.monotonic)
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(3.05)
        world.wall.freeze()
        await asyncio.sleep(2.0)
        task.cancel()
        return told

    told = run(main)
    assert len(told) == 6
    assert all(-350 * MS <= jump.by < -250 * MS for jump in told)
    assert told[0].mono <= 3.4 * S


def test_a_reading_that_was_held_up_is_not_believed() -> None:
    """When the process is stopped between the two clocks' readings no jump is made up, and a real one is told next time."""
    monos = iter([0, 2, 10 * S, 12 * S, 13 * S, 13 * S + 2])
    walls = iter([1, 10 * S, 13 * S + 1])
    told: list[Jump] = []
    watch = ClockWatch(told.append, wall=lambda: next(walls), mono=lambda: next(monos))
    assert [watch.look(), watch.look(), watch.look()] == [None, None, None]
    assert told == []


def test_what_makes_no_sense_is_refused() -> None:
    """Periods that are not positive are refused by name."""
    with pytest.raises(ConfigError, match="clock watch"):
        ClockWatch(lambda _: None, every=0.0)
    with pytest.raises(ConfigError, match="lag watch"):
        LagWatch(every=2.0, window=1.0)


def test_the_lag_is_how_late_a_timer_is_served() -> None:
    """A loop that is always on time has no lag; one that is late shows it, and the worst for a window."""

    async def main(world: World) -> None:
        watch = LagWatch(every=0.05, window=10.0)
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(1.01)
        assert watch.worst(world.loop.time()) < 1e-6
        world.loop.elapsed_ns += 3 * S  # the loop was held: a callback that took three seconds
        assert watch.at_least(world.loop.time()) == pytest.approx(2.96, abs=1e-6)
        assert watch.worst(world.loop.time()) == pytest.approx(2.96, abs=1e-6)
        await asyncio.sleep(0.001)
        assert watch.last == pytest.approx(2.96, abs=1e-6)
        await asyncio.sleep(9.0)
        assert watch.last < 1e-6
        assert watch.worst(world.loop.time()) == pytest.approx(2.96, abs=1e-6)
        await asyncio.sleep(2.0)
        assert watch.worst(world.loop.time()) < 1e-6
        task.cancel()

    run(main)


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 1.0)), min_size=1, max_size=60))
def test_the_worst_lag_is_the_greatest_of_the_window(notes: list[tuple[float, float]]) -> None:
    """The kept peaks give the same answer as a scan of all lags."""
    watch, now, seen = LagWatch(every=0.05, window=10.0), 0.0, []
    for pause, lag in notes:
        now += pause
        watch._note(now, lag)
        seen.append((now, lag))
        assert watch.worst(now) == max(lag for when, lag in seen if when >= now - 10.0)
