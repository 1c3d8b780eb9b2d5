"""The watch sees a loop that comes late, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.app.watches import LagWatch
from bot.core.errors import ConfigError
from bot.testing.virtual_time import World, run

MS = 1_000_000
S = 1_000 * MS


def test_what_makes_no_sense_is_refused() -> None:
    """Periods that are not positive are refused by name."""
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
