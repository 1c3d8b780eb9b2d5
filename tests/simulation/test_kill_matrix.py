"""The kill ladder by each of five paths while each of eight collaborators fails: no new order from then on."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from bot.app.health import Doorkeeper, HealthOptions, Request, Routes
from bot.app.service import listen_to_signals, read_control, word_of
from bot.app.words import CONTROL, leave_word
from bot.core.events import FeedEvent
from bot.domain.orders import Order
from bot.engine.kill import Rung
from bot.engine.limits import LimitSettings
from bot.testing.virtual_time import World, run
from tests.simulation.world import LIMITS, Daemon, Defect, Faults, Sim, StreetFeed, Wire

CALM = Faults(partial=0.0, reject=0.0)
TOKEN = "5e" * 32
FAILS_AT, PULLED_AT, SETTLED, WATCHED = 20.0, 20.5, 1.5, 25.0


class BrokenError(Exception):
    """What a collaborator raises."""


def raises(*_: Any, **__: Any) -> Any:
    """Stands in for a method that fails."""
    raise BrokenError("a collaborator failed")


# --------------------------------------------------------------------------- collaborators


def break_feed(daemon: Daemon) -> None:
    """Its line ends with a fault, again and again."""

    async def cut(_: StreetFeed) -> AsyncIterator[FeedEvent]:
        raise BrokenError("line cut")
        yield

    for feed in daemon.session.feeds:
        feed.events = lambda feed=feed: cut(feed)  # type: ignore[method-assign,misc]  # a fake
        tasks = daemon.session.tasks
        assert tasks is not None
        for task in asyncio.all_tasks():
            if task.get_name() == f"feed {feed.name}":
                task.cancel()


def break_marks(daemon: Daemon) -> None:
    """Nothing can be folded, nothing read."""
    marks = daemon.loop.marks
    for name in ("fold_quote", "mid", "reference"):
        setattr(marks, name, raises)


def break_valuation(daemon: Daemon) -> None:
    """No mark, no spot, no re-mark."""
    for name in ("mark", "spot", "remark", "legs"):
        setattr(daemon.loop.valuation, name, raises)


def break_strategy(daemon: Daemon) -> None:
    """Every strategy raises when it is called."""
    for account in daemon.accounts:
        for slot in account.slots:
            for name in ("wake", "timer"):
                setattr(slot.strategy, name, raises)


def break_gate(daemon: Daemon) -> None:
    """The checks of every order raise."""
    for account in daemon.accounts:
        account.gate._asked = (raises,)
        account.gate._is_clear = raises  # type: ignore[method-assign]  # a fake


def break_journal(daemon: Daemon) -> None:
    """The disk is full from now on."""
    daemon.disk.full = True


def break_venue(daemon: Daemon) -> None:
    """Orders and cancels cannot be sent."""
    daemon.wire.submit = raises  # type: ignore[method-assign]  # a fake
    daemon.wire.cancel = raises  # type: ignore[method-assign]  # a fake


def break_sampler(daemon: Daemon) -> None:
    """No sample can be taken."""
    daemon.loop.sampler.take = raises  # type: ignore[method-assign]  # a fake


BREAKS: dict[str, Callable[[Daemon], None]] = {
    "feed": break_feed,
    "marks": break_marks,
    "valuation": break_valuation,
    "strategy": break_strategy,
    "gate": break_gate,
    "journal": break_journal,
    "venue": break_venue,
    "sampler": break_sampler,
}

# --------------------------------------------------------------------------- paths


def by_command(daemon: Daemon, folder: Path) -> None:
    """`evenkeel kill cancel_all`."""
    leave_word(folder, "kill", "cancel_all: command")


def by_file(daemon: Daemon, folder: Path) -> None:
    """A line written by hand."""
    (folder / CONTROL).write_text("kill cancel_all: by hand\n", encoding="utf-8")


def by_signal(daemon: Daemon, folder: Path) -> None:
    """The fourth real-time signal."""
    daemon.sim.world.loop.raise_signal(signal.SIGRTMIN + 4)


def by_http(daemon: Daemon, folder: Path) -> None:
    """POST /kill/cancel_all with the token."""

    def control(command: Any) -> dict[str, str]:
        daemon.session.tell(word_of(command))
        return {}

    routes = Routes(healthy=dict, ready=dict, metrics=bytes, status=dict, control=control)
    keeper = Doorkeeper(routes, HealthOptions(port=8787, token=TOKEN))
    headers = {"host": "127.0.0.1:8787", "authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    body = json.dumps({"reason": "http"}).encode()
    answer = keeper.answer(Request("POST", "/kill/cancel_all", headers, body), 0.0)
    assert answer.status == 200


def by_limit(daemon: Daemon, folder: Path) -> None:
    """The venue rejects: the second reject pulls the rung."""
    daemon.sim.weather_turns(msgspec.structs.replace(daemon.sim.faults, reject=1.0))


PATHS = {"command": by_command, "file": by_file, "signal": by_signal, "http": by_http, "limit": by_limit}


class ByLimit(Defect):
    """A gate whose second reject pulls cancel-all."""

    def limits(self) -> LimitSettings:
        return msgspec.structs.replace(LIMITS, max_rejects=2, on_rejects=Rung.CANCEL_ALL)


class Noting(ByLimit):
    """A wire that notes the orders that leave."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def wire(self, daemon: Daemon, rng: Random) -> Wire:
        wire = super().wire(daemon, rng)
        submit, sent = wire.submit, self.sent

        async def noted(order: Order) -> None:
            sent.append(order.id)
            await submit(order)

        wire.submit = noted  # type: ignore[method-assign]  # a note
        return wire


def killed(broken: str, path: str, folder: Path) -> tuple[int, int, Rung]:
    """Orders that left before the pull and from a moment after it, and the rung stood on at the end."""
    noting = Noting()
    fail, pull = BREAKS.get(broken, lambda _: None), PATHS.get(path, lambda *_: None)

    async def main(world: World) -> tuple[int, int, Rung]:
        sim = Sim(world, CALM, defect=noting)
        life = asyncio.create_task(sim.live(FAILS_AT + SETTLED + WATCHED + 10.0, settle=0.0), name="sim")
        await asyncio.sleep(FAILS_AT)
        daemon = sim.daemon
        assert daemon is not None
        listen_to_signals(world.loop, daemon.session)
        reader = asyncio.create_task(read_control(daemon.session, folder), name="control file")
        if path == "limit":  # what is rejected has to be sent: the limit is struck while all is well
            pull(daemon, folder)
            await asyncio.sleep(WATCHED)
            fail(daemon)
        else:
            fail(daemon)
            await asyncio.sleep(PULLED_AT - FAILS_AT)
            pull(daemon, folder)
        await asyncio.sleep(SETTLED)
        before = len(noting.sent)
        await asyncio.sleep(WATCHED if path != "limit" else 5.0)
        reader.cancel()
        life.cancel()
        return before, len(noting.sent) - before, daemon.accounts[0].gate.kill.rung

    return run(main, seed=11, turns_per_instant=200_000)


@pytest.mark.parametrize("path", sorted(PATHS))
@pytest.mark.parametrize("broken", sorted(BREAKS))
def test_no_new_order_by_any_path_whatever_fails(broken: str, path: str, tmp_path: Path) -> None:
    """It traded before; a moment after the pull nothing leaves any more, and the account stands on the rung."""
    before, after, rung = killed(broken, path, tmp_path)
    assert before > 3
    assert after == 0
    assert rung == Rung.CANCEL_ALL


def test_without_a_pull_orders_go_on(tmp_path: Path) -> None:
    """The check can fail: in the same world with nothing broken and nobody pulling, orders leave to the end."""
    before, after, rung = killed("nothing", "nobody", tmp_path)
    assert before > 3
    assert after > 3
    assert rung == Rung.NONE
