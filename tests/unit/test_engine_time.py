"""The engine's time is carried on by the steady clock: a wall clock that leaps is told, followed slowly or not at all."""

from __future__ import annotations

import pytest

from bot.app.live import EngineTime

MS = 1_000_000
S = 1_000 * MS
START = 1_700_000_000 * S


class Clocks:
    """Two clocks moved by hand. `between` passes after each reading of the steady one."""

    def __init__(self) -> None:
        self.wall, self.steady, self.between = START, 0, 0

    def now(self) -> int:
        """The wall."""
        return self.wall

    def monotonic(self) -> int:
        """The steady clock."""
        steady = self.steady
        self.wall, self.steady = self.wall + self.between, self.steady + self.between
        return steady

    def go_on(self, by: int) -> None:
        """Let both go on."""
        self.wall, self.steady = self.wall + by, self.steady + by


def looks(clocks: Clocks, time: EngineTime, seconds: float) -> list[int]:
    """What looks ten times a second tell, when there is something."""
    told = []
    for _ in range(round(seconds * 10)):
        clocks.go_on(100 * MS)
        told.append(time.look())
    return [leap for leap in told if leap]


def timed() -> tuple[Clocks, EngineTime]:
    """Clocks that agree, and the time made of them."""
    clocks = Clocks()
    return clocks, EngineTime(clocks, step=0.25, hold=2.0)


@pytest.mark.parametrize("by", [S, -S, 3600 * S, -3600 * S, 60 * S, 251 * MS, -251 * MS])
def test_a_leap_is_told_once_and_moves_nothing_at_once(by: int) -> None:
    """The size and side of a leap are told once; the engine's instant goes on as if nothing had been."""
    clocks, time = timed()
    looks(clocks, time, 5.0)
    before = time.now()
    clocks.wall += by
    assert time.now() == before
    clocks.go_on(100 * MS)
    assert time.look() == by
    assert time.held == (abs(by) > 2 * S)
    assert looks(clocks, time, 0.5) == []


def test_small_steps_and_slewing_are_followed_silently() -> None:
    """Steps of 250 ms, and a clock slewed by 500 parts in a million for an hour, are no leaps, and the engine comes along."""
    clocks, time = timed()
    for by in (250 * MS, -250 * MS):
        clocks.wall += by
        assert looks(clocks, time, 20.0) == []
        assert abs(time.now() - clocks.wall) < 30 * MS
    for _ in range(3600):
        clocks.wall += MS // 2
        assert looks(clocks, time, 1.0) == []
    assert abs(time.now() - clocks.wall) < 10 * MS


def test_a_wall_that_came_back_is_told_and_trusted_again() -> None:
    """An hour forward and back is two leaps, and nothing is held after the second."""
    clocks, time = timed()
    clocks.wall += 3600 * S
    assert looks(clocks, time, 1.0) == [3600 * S]
    assert time.held
    clocks.wall -= 3600 * S
    assert looks(clocks, time, 1.0) == [-3600 * S]
    assert not time.held


def test_readings_that_were_held_up_are_not_believed() -> None:
    """When the process is stopped between the two clocks' readings no leap is made up."""
    clocks, time = timed()
    clocks.between = 10 * S
    assert time.look() == 0
    clocks.between = 0
    assert looks(clocks, time, 1.0) == []
    assert not time.held


def test_an_accepted_wall_is_gone_to_forward_at_once_and_back_slowly() -> None:
    """Forward the engine is there at once; back it goes on at half its pace, and never back."""
    clocks, time = timed()
    clocks.wall += 3600 * S
    time.look()
    time.accept()
    assert time.now() == clocks.wall
    clocks.wall -= 60 * S
    time.look()
    time.accept()
    last = time.now()
    for _ in range(1300):
        clocks.go_on(100 * MS)
        assert time.now() > last
        last = time.now()
    assert last == clocks.wall
