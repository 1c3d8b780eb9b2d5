"""A watch is a task that measures what the event loop does; law: it tells, it never mends.

The lag watch measures how late the loop comes to a timer: what every other task waits too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NoReturn

from bot.core.errors import ConfigError


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
