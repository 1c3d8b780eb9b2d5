"""A notice tells systemd how the daemon is: one datagram a notice; law: it never waits, and health is told only when true.

sd_notify(3): READY=1 once the daemon may trade, STOPPING=1 when it drains, WATCHDOG=1 at a third of the unit's WatchdogSec,
and that only while every check passes. A daemon that hangs is silent, one that is ill is silent too: both are restarted.
Without systemd every notice goes nowhere.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from bot.core.errors import ConfigError

Check = Callable[[], str | None]
"""Why something is not healthy, None while it is."""


class Notifier:
    """Sends notices to the socket of `NOTIFY_SOCKET`; `address` None sends nowhere. A path or, with `@`, an abstract name."""

    def __init__(self, address: str | None) -> None:
        if address is not None and not (address.startswith(("/", "@")) and len(address) > 1):
            raise ConfigError(f"NOTIFY_SOCKET: expected a path or an abstract name with @, found {address!r}")
        self.sent = 0
        self.lost = 0
        self.told_ready = False
        self._address = address
        self._socket: socket.socket | None = None

    def ready(self, status: str = "ready") -> bool:
        """Tell that the daemon may trade."""
        self.told_ready = True
        return self.send({"READY": "1", "STATUS": status})

    def stopping(self, status: str = "draining") -> bool:
        """Tell that the daemon ends."""
        return self.send({"STOPPING": "1", "STATUS": status})

    def status(self, text: str) -> bool:
        """Tell one line for people, shown by `systemctl status`."""
        return self.send({"STATUS": text})

    def alive(self) -> bool:
        """Tell the watchdog that all is well."""
        return self.send({"WATCHDOG": "1"})

    def extend(self, seconds: float) -> bool:
        """Ask for so many more seconds to start or to stop in: a long recovery is not a hang."""
        return self.send({"EXTEND_TIMEOUT_USEC": str(round(seconds * 1e6))})

    def send(self, notice: Mapping[str, str]) -> bool:
        """Send one datagram of `NAME=value` lines; False when nobody took it."""
        if self._address is None:
            return False
        lines = (f"{name}={value.translate(_ONE_LINE)}" for name, value in notice.items())
        try:
            self._opened().sendto("\n".join(lines).encode("utf-8", "replace"), _path(self._address))
        except OSError:  # systemd away, its queue full, or the socket's folder gone: none of it is worth a trade
            self.lost += 1
            return False
        self.sent += 1
        return True

    def close(self) -> None:
        """Close the socket; a later notice opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _opened(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        return self._socket


_ONE_LINE = str.maketrans({"\n": " ", "\r": " ", "\0": " "})


def _path(address: str) -> str:
    return "\0" + address[1:] if address.startswith("@") else address


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """The watchdog's period by `WATCHDOG_USEC`, None when there is none or `WATCHDOG_PID` names another process.

    ConfigError for a value that is no positive whole number.
    """
    text = environ.get("WATCHDOG_USEC", "")
    if not text:
        return None
    named = environ.get("WATCHDOG_PID", "")
    for name, value in (("WATCHDOG_USEC", text), ("WATCHDOG_PID", named or "1")):
        if not (value.isascii() and value.isdigit() and 0 < int(value) < 1 << 63):
            raise ConfigError(f"{name}: expected a positive whole number, found {value!r}")
    return None if named and int(named) != pid else int(text) / 1e6


def from_environment(environ: Mapping[str, str] | None = None) -> tuple[Notifier, float | None]:
    """The notifier and the watchdog's period as systemd set them for this process."""
    environ = os.environ if environ is None else environ
    return Notifier(environ.get("NOTIFY_SOCKET") or None), watchdog_seconds(environ, os.getpid())


class Health(NamedTuple):
    """Whether all checks passed, and why not, by name."""

    ok: bool
    why: dict[str, str]


def ask(checks: Mapping[str, Check]) -> Health:
    """The answer of every check; one that raises is not healthy."""
    why: dict[str, str] = {}
    for name, check in checks.items():
        try:
            reason = check()
        except Exception as fault:  # noqa: BLE001  a check that breaks is the news, whatever broke in it
            reason = f"the check failed: {type(fault).__name__}"
        if reason is not None:
            why[name] = reason
    return Health(not why, why)


def below(read: Callable[[], float], most: float, what: str) -> Check:
    """A check that a reading is at most `most`: the loop's lag, a queue's depth, a commit's age. NaN is not."""

    def check() -> str | None:
        value = read()
        return None if value <= most else f"{what} {value:g}, at most {most:g}"

    return check


def moving(
    read: Callable[[], int],
    what: str,
    *,
    idle: Callable[[], bool] = lambda: False,
    patience: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Check:
    """A check that a counter, which only rises, moved within `patience` seconds of `clock`, or its owner has nothing to do.

    It may be asked as often as anybody likes: two looks in one instant find nothing wrong with a counter between two turns.
    """
    last: int | None = None
    moved = 0.0

    def check() -> str | None:
        nonlocal last, moved
        before, last, now = last, read(), clock()
        if before != last or idle():
            moved = now
        return None if now - moved <= patience else f"{what} stands still at {last} for {now - moved:.1f} s"

    return check


def _nobody(health: Health) -> None:
    """Hear it and do nothing."""


class Watchdog:
    """Tells systemd each third of the period that all is well, if it is. `told` hears each change of health.

    Until READY is told the same beat asks for one more period to start in: a daemon that waits for the market to open is
    well, one that hangs at its start is not, and systemd's own watchdog looks only after the start.
    """

    def __init__(
        self,
        notifier: Notifier,
        checks: Mapping[str, Check],
        *,
        period: float,
        told: Callable[[Health], None] = _nobody,
    ) -> None:
        if not period > 0:
            raise ConfigError(f"watchdog: expected a period above 0, found {period}")
        self._notifier = notifier
        self._checks = checks
        self._period = period
        self._told = told
        self.last: Health | None = None

    def beat(self) -> Health:
        """Ask every check once and tell systemd the answer."""
        health = ask(self._checks)
        if health.ok:
            self._notifier.alive()
            if not self._notifier.told_ready:
                self._notifier.extend(self._period)
        if self.last is None or set(health.why) != set(self.last.why):
            self._notifier.status("healthy" if health.ok else "; ".join(f"{k}: {v}" for k, v in health.why.items()))
            self._told(health)
        self.last = health
        return health

    async def run(self) -> NoReturn:
        """Beat for ever."""
        while True:
            self.beat()
            await asyncio.sleep(self._period / 3)
