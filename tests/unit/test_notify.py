"""systemd hears what is true, in single datagrams, and nothing of it holds up the daemon."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.app.notify import Health, Notifier, Watchdog, ask, below, from_environment, moving, watchdog_seconds
from bot.core.errors import ConfigError
from bot.testing.virtual_time import World, run


class Init:
    """The listening end of the notify socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        said: list[str] = []
        while True:
            try:
                said.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return said


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both kinds of address that systemd uses."""
    return str(tmp_path / "notify") if request.param == "path" else f"@evenkeel-{os.getpid()}-{tmp_path.name}"


@pytest.fixture
def init(address: str) -> Iterator[Init]:
    """A systemd that listens."""
    listening = Init(address)
    yield listening
    listening.socket.close()


def test_each_notice_is_one_datagram(init: Init, address: str) -> None:
    """Ready, status, alive, extension and stopping arrive whole and in order."""
    notifier = Notifier(address)
    assert notifier.ready()
    assert notifier.status("3 feeds up")
    assert notifier.alive()
    assert notifier.extend(2.5)
    assert notifier.stopping()
    notifier.close()
    assert init.heard() == [
        "READY=1\nSTATUS=ready",
        "STATUS=3 feeds up",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1\nSTATUS=draining",
    ]
    assert (notifier.sent, notifier.lost) == (5, 0)


def test_a_status_cannot_forge_a_notice(init: Init, address: str) -> None:
    """A line break in a status starts no line of its own, and a lone surrogate breaks nothing."""
    Notifier(address).status("feed x\nREADY=1\r\0\ud800")
    assert init.heard() == ["STATUS=feed x READY=1  ?"]


def test_without_systemd_notices_go_nowhere() -> None:
    """With no socket named every notice is answered False and nothing is counted as lost."""
    notifier, period = from_environment({})
    assert (notifier.ready(), notifier.sent, notifier.lost, period) == (False, 0, 0, None)


def test_an_absent_or_deaf_systemd_stops_nobody(tmp_path: Path) -> None:
    """A socket that is not there, or whose queue is full, costs the notice alone and is counted."""
    absent = Notifier(str(tmp_path / "nobody"))
    assert (absent.ready(), absent.lost) == (False, 1)
    deaf = Init(str(tmp_path / "deaf"))
    notifier = Notifier(str(tmp_path / "deaf"))
    while notifier.alive():
        assert notifier.sent < 100_000
    assert notifier.lost == 1
    assert set(deaf.heard()) == {"WATCHDOG=1"}
    assert notifier.alive()
    deaf.socket.close()


@pytest.mark.parametrize("bad", ["relative", "@", "/", "vsock:2:1234"])
def test_an_address_of_another_kind_is_refused(bad: str) -> None:
    """What is neither a path nor an abstract name is refused by name."""
    with pytest.raises(ConfigError, match="NOTIFY_SOCKET: expected"):
        Notifier(bad)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "77"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_PID": "77"}, None),
    ],
)
def test_the_period_is_the_environments(environ: dict[str, str], seconds: float | None) -> None:
    """The period is microseconds of the environment, and only of a process that is meant."""
    assert watchdog_seconds(environ, 77) == seconds


@pytest.mark.parametrize("bad", ["0", "-1", "1.5", "abc", "\u0663", "1e6", str(1 << 70)])
def test_a_period_that_is_no_number_is_refused(bad: str) -> None:
    """A malformed value ends the start with its name, instead of a daemon nobody watches."""
    with pytest.raises(ConfigError, match="WATCHDOG_USEC: expected"):
        watchdog_seconds({"WATCHDOG_USEC": bad}, 1)
    with pytest.raises(ConfigError, match="WATCHDOG_PID: expected"):
        watchdog_seconds({"WATCHDOG_USEC": "1", "WATCHDOG_PID": bad}, 1)


class Written(Notifier):
    """A notifier that writes down what it would send, and when."""

    def __init__(self, world: World) -> None:
        super().__init__("@nobody")
        self.world = world
        self.said: list[tuple[float, str]] = []

    def send(self, notice: object) -> bool:
        assert isinstance(notice, dict)
        self.said += [(round(self.world.loop.time(), 3), f"{name}={value}") for name, value in notice.items()]
        return True


@pytest.mark.parametrize("ill", ["loop", "journal", "hedger"])
def test_the_watchdog_is_fed_only_while_every_check_passes(ill: str) -> None:
    """Each third of the period all is told to be well; from when one of three is ill nothing is, until it is well again."""

    async def main(world: World) -> None:
        state: dict[str, str | None] = {"loop": None, "journal": None, "hedger": None}
        changes: list[Health] = []
        notifier = Written(world)
        checks = {name: (lambda name=name: state[name]) for name in state}
        watchdog = Watchdog(notifier, checks, period=30.0, told=changes.append)
        task = asyncio.create_task(watchdog.run(), name="watchdog")
        await asyncio.sleep(25)
        state[ill] = "stuck for 7 s"
        await asyncio.sleep(20)
        state[ill] = "stuck for 27 s"
        await asyncio.sleep(10)
        state[ill] = None
        await asyncio.sleep(10)
        task.cancel()
        fed = [when for when, what in notifier.said if what == "WATCHDOG=1"]
        assert fed == [0.0, 10.0, 20.0, 60.0]
        assert [(when, what) for when, what in notifier.said if what.startswith("STATUS")] == [
            (0.0, "STATUS=healthy"),
            (30.0, f"STATUS={ill}: stuck for 7 s"),
            (60.0, "STATUS=healthy"),
        ]
        assert [health.ok for health in changes] == [True, False, True]

    run(main)


def test_a_start_may_wait_for_the_market_but_not_hang() -> None:
    """Before READY each healthy beat asks for one more period; an ill one asks for none, and after READY nobody does."""

    async def main(world: World) -> None:
        ill: list[str | None] = [None]
        notifier = Written(world)
        task = asyncio.create_task(Watchdog(notifier, {"loop": lambda: ill[0]}, period=30.0).run())
        await asyncio.sleep(15)
        ill[0] = "stuck"
        await asyncio.sleep(20)
        ill[0] = None
        await asyncio.sleep(10)
        notifier.ready()
        await asyncio.sleep(60)
        task.cancel()
        asked = [(when, what) for when, what in notifier.said if what.startswith("EXTEND")]
        assert asked == [(when, "EXTEND_TIMEOUT_USEC=30000000") for when in (0.0, 10.0, 40.0)]
        assert len([what for _, what in notifier.said if what == "WATCHDOG=1"]) == 9

    run(main)


def test_a_check_that_raises_is_ill() -> None:
    """A check that breaks is a reason of its own and does not hide the others."""

    def broken() -> str | None:
        raise ZeroDivisionError

    health = ask({"a": broken, "b": lambda: "no", "c": lambda: None})
    assert health == (False, {"a": "the check failed: ZeroDivisionError", "b": "no"})


def test_a_reading_is_healthy_up_to_its_bound() -> None:
    """At the bound it is healthy, above it and not a number it is not."""
    lag = [0.25]
    check = below(lambda: lag[0], 0.25, "loop lag, s")
    assert check() is None
    lag[0] = 0.26
    assert check() == "loop lag, s 0.26, at most 0.25"
    lag[0] = math.nan
    assert check() is not None


def test_a_counter_must_move_unless_there_is_nothing_to_do() -> None:
    """A hedger that has not moved for five seconds is ill, unless it is idle; moving again heals it."""
    turns, idle, now = [5], [False], [100.0]
    check = moving(lambda: turns[0], "hedger", idle=lambda: idle[0], clock=lambda: now[0])
    assert check() is None
    now[0] = 105.0
    assert check() is None
    now[0] = 105.5
    assert check() == "hedger stands still at 5 for 5.5 s"
    idle[0] = True
    assert check() is None
    idle[0] = False
    now[0] = 110.5
    assert check() is None
    now[0] = 111.0
    assert check() is not None
    turns[0] = 6
    assert check() is None


def test_asking_often_makes_nobody_ill() -> None:
    """A thousand looks in one instant, between two turns of a slow loop, find nothing wrong."""
    turns, now = [5], [0.0]
    check = moving(lambda: turns[0], "hedger", clock=lambda: now[0])
    for second in range(20):
        now[0] = float(second)
        turns[0] += second % 2
        assert {check() for _ in range(1000)} == {None}


def test_a_watchdog_without_a_period_is_refused() -> None:
    """A period of zero would spin."""
    with pytest.raises(ConfigError, match="watchdog: expected a period"):
        Watchdog(Notifier(None), {}, period=0.0)
