"""A watch is a task that measures what a clock or the event loop does; law: it tells, it never mends.

The clock watch compares the wall with monotonic time and tells each step of the wall. Slow drift, which a time daemon
slews away by 500 parts in a million, is followed silently; a clock that stands still is not. The lag watch measures how
late the loop comes to a timer: what every other task waits too.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from bot.core.errors import ConfigError
from bot.domain.units import Nanos

JUMP: Nanos = 250_000_000
"""A wall clock that moves this much against monotonic time between two looks has jumped."""


SLEW = 1000
"""Drift of one part in so many is followed as slewing: twice what the kernel's clock discipline may do."""


class Jump(NamedTuple):
    """A step of the wall clock: what it shows now, by how much it stepped, and the monotonic instant it was seen."""

    wall: Nanos
    by: Nanos
    mono: Nanos


class ClockWatch:
    """Tells each step of the wall clock larger than `limit` against monotonic time, once; smaller ones add up.

    A machine that was suspended looks the same where monotonic time stands still meanwhile: the wall stepped forward.
    """

    def __init__(
        self,
        tell: Callable[[Jump], None],
        *,
        wall: Callable[[], Nanos] = time.time_ns,
        mono: Callable[[], Nanos] = time.monotonic_ns,
        every: float = 0.1,
        limit: Nanos = JUMP,
    ) -> None:
        if every <= 0 or limit <= 0:
            raise ConfigError(f"clock watch: expected every > 0 and limit > 0, found {every} and {limit}")
        self.jumps = 0
        self._tell = tell
        self._wall = wall
        self._mono = mono
        self._every = every
        self._limit = limit
        self._offset: Nanos | None = None
        self._looked: Nanos = 0

    def look(self) -> Jump | None:
        """Compare the clocks once: the step since the last look, None when there was none. `tell` hears it too."""
        before = self._mono()
        wall = self._wall()
        after = self._mono()
        if after - before > self._limit // 2:
            return None  # we were held up between the readings: they belong to no one instant; the next look will tell
        mono = (before + after) // 2
        offset = wall - mono
        slewed = (mono - self._looked) // SLEW
        self._looked = mono
        if self._offset is None:
            self._offset = offset
        by = offset - self._offset
        if abs(by) <= self._limit:
            self._offset += max(-slewed, min(slewed, by))
            return None
        self._offset = offset
        self.jumps += 1
        jump = Jump(wall, by, mono)
        self._tell(jump)
        return jump

    async def run(self) -> NoReturn:
        """Look for ever."""
        while True:
            self.look()
            await asyncio.sleep(self._every)


class LagWatch:
    """Measures how late the event loop comes to its timers, in seconds: the last, and the greatest of the last `window` s.

    A stall under way is seen too by whoever asks from another thread: `at_least` counts from when the timer was due.
    """

    def __init__(self, *, every: float = 0.05, window: float = 10.0) -> None:
        if not 0 < every <= window:
            raise ConfigError(f"lag watch: expected 0 < every <= window, found {every} and {window}")
        self.last = 0.0
        self._every = every
        self._window = window
        self._due: float | None = None
        self._peaks: deque[tuple[float, float]] = deque()  # falling: each is the greatest since it

    def worst(self, now: float) -> float:
        """The greatest lag within the window before `now` of the loop's clock, in seconds."""
        while self._peaks and self._peaks[0][0] < now - self._window:
            self._peaks.popleft()
        return max(self._peaks[0][1] if self._peaks else 0.0, self.at_least(now))

    def at_least(self, now: float) -> float:
        """How late the timer that is due has become by `now`, zero before it is due."""
        return 0.0 if self._due is None else max(0.0, now - self._due)

    async def run(self) -> NoReturn:
        """Measure for ever, on the running loop's clock."""
        loop = asyncio.get_running_loop()
        while True:
            self._due = loop.time() + self._every
            await asyncio.sleep(self._every)
            self._note(loop.time(), max(0.0, loop.time() - self._due))

    def _note(self, now: float, lag: float) -> None:
        self.last = lag
        while self._peaks and self._peaks[-1][1] <= lag:
            self._peaks.pop()
        self._peaks.append((now, lag))
