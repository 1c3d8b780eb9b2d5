"""A defect is a fault of the program, planted by a switch of its own; law: each is found by an invariant within 200 seeds.

Each replaces one part of a daemon by a named subclass, through the hooks of `world.Defect`: nothing is patched, and the
sound parts are the real ones. docs/simulation.md says how to plant more.
"""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any, Final

import msgspec

from bot.app.live import EngineTime, LiveSession, _Said
from bot.core.events import Filled, Unknown, VenueEvent
from bot.core.ports import Broker
from bot.domain.orders import OPEN, Order, OrderStatus
from bot.domain.units import Nanos
from bot.engine.account import Account, OrderState, Outlet
from bot.engine.gate import Gate
from bot.engine.journal import Step
from bot.engine.limits import LimitView
from bot.engine.loop import Loop
from bot.engine.outbox import Outbox
from bot.engine.recovery import Recovered
from bot.engine.store import Store
from tests.simulation.world import Daemon, Defect, Faults, Mount, Wire

ZERO: Final = Decimal(0)


def _at_least(drawn: Faults, **least: float) -> Faults:
    """The weather as drawn, with some of it made sure of."""
    return msgspec.structs.replace(drawn, **{k: max(v, getattr(drawn, k)) for k, v in least.items()})


# --------------------------------------------------------------------------- what leaves too early


class HastyOutbox(Outbox):
    """Sends what is not durable yet."""

    async def send(self) -> list[tuple[Account, VenueEvent]]:
        """Hand everything on."""
        for account, command in [(a, c) for _, a, c in self._external]:
            broker = account.broker
            if isinstance(broker, Broker):
                self.sent(account, command)
                await (broker.submit(command) if isinstance(command, Order) else broker.cancel(command))
        self._external.clear()
        return []


class SendBeforeCommit(Defect):
    """An order leaves before its record is on disk."""

    name = "send before commit"
    found_as = ("sent before durable",)

    def loop(self, loop: Loop) -> None:
        """Another outbox."""
        hasty = HastyOutbox(lambda: loop.now, loop.journal)
        loop.outbox = hasty


class HastySession(LiveSession):
    """Acknowledges what it has heard, durable or not."""

    async def _send_for_ever(self) -> None:
        while True:
            await self._send.wait()
            self._send.clear()
            for account, word in await self.loop.outbox.send():
                self.inbox.put(_Said(account, word, must_acknowledge=False))
            while self._unacknowledged:
                _, account, event = self._unacknowledged.popleft()
                try:
                    await account.broker.acknowledge(event)  # type: ignore[union-attr]  # the wire has it
                except OSError:
                    self._count("acknowledge faults")


class AcknowledgeBeforeCommit(Defect):
    """A venue's word is acknowledged before its record is on disk."""

    name = "acknowledge before commit"
    found_as = ("acknowledged before durable",)

    def session(self, **parts: Any) -> LiveSession:
        """Another session."""
        return HastySession(**parts)


# --------------------------------------------------------------------------- fills


class ForgetfulAccount(Account):
    """Does not remember which fills it has applied."""

    def _apply_fill(self, event: Filled, lot_of: Any) -> bool:
        state = self.orders.get(event.fill.order_id)
        if state is not None and event.fill.id in state.fill_ids and abs(state.left) >= abs(event.fill.quantity):
            state.fill_ids.discard(event.fill.id)
        return super()._apply_fill(event, lot_of)


class LateFillDropped(Account):
    """Holds that an order which is over has no more fills."""

    def _apply_fill(self, event: Filled, lot_of: Any) -> bool:
        state = self.orders.get(event.fill.order_id)
        if state is not None and state.status not in OPEN:
            return False
        return super()._apply_fill(event, lot_of)


class FillTwice(Defect):
    """A fill said twice is applied twice."""

    name = "fill applied twice"
    found_as = ("fill twice", "position")

    def account(self, name: str, **parts: Any) -> Account:
        """Another account."""
        return ForgetfulAccount(name, **parts)


class LateFill(Defect):
    """A fill that crossed a cancel is dropped."""

    name = "late fill dropped"
    found_as = ("acknowledged before durable", "false difference", "fill lost", "position")

    def faults(self, drawn: Faults) -> Faults:
        """Orders are filled while they are cancelled."""
        return _at_least(drawn, race=0.3)

    def account(self, name: str, **parts: Any) -> Account:
        """Another account."""
        return LateFillDropped(name, **parts)


# --------------------------------------------------------------------------- doubts


class UnknownFails(Account):
    """Takes an order that nobody answered for as failed."""

    def hear(self, event: VenueEvent, lot_of: Any) -> bool:
        """A timeout is a rejection here."""
        changed = super().hear(event, lot_of)
        if isinstance(event, Unknown) and event.order_id in self.open_ids:
            state = self.orders[event.order_id]
            self._end_doubt(state)
            self.finish(state, OrderStatus.CANCELLED)
        return changed


class UnknownAsFailed(Defect):
    """A timeout is taken as a failure."""

    name = "UNKNOWN treated as failed"
    found_as = ("tracking lost", "limit breached", "hedged in doubt", "false difference", "fold differs")

    def account(self, name: str, **parts: Any) -> Account:
        """Another account."""
        return UnknownFails(name, **parts)


class UnknownIgnored(Account):
    """Counts an order in doubt as nothing at all, and goes on."""

    def _doubt(self, state: OrderState) -> None:
        if state.status in OPEN:
            state.status = OrderStatus.UNKNOWN

    def working(self, book: str, instrument: str) -> Decimal:
        """Signed contracts of open orders whose venue has answered."""
        known, self.open_ids = (
            self.open_ids,
            dict.fromkeys(i for i in self.open_ids if self.orders[i].status is not OrderStatus.UNKNOWN),
        )
        try:
            return super().working(book, instrument)
        finally:
            self.open_ids = known


class UnknownNotCounted(Defect):
    """An order in doubt counts as no exposure and freezes nothing."""

    name = "UNKNOWN left out of exposure"
    found_as = ("hedged in doubt", "limit breached", "fold differs")

    def account(self, name: str, **parts: Any) -> Account:
        """Another account."""
        return UnknownIgnored(name, **parts)


class CancelsAtOnce(Account):
    """Takes an order for cancelled as soon as that was asked for."""

    def _cancel_opposite(self, instrument: str, net: Decimal, now: Nanos, outlet: Outlet) -> bool:
        asked = super()._cancel_opposite(instrument, net, now, outlet)
        for order_id in [i for i in self.open_ids if self.orders[i].cancelling]:
            self.finish(self.orders[order_id], OrderStatus.CANCELLED)
        return asked


class CancelRace(Defect):
    """A cancel asked for counts as a cancel done, though the order may fill first."""

    name = "cancel/fill race"
    found_as = ("tracking lost", "fold differs", "limit breached")

    def account(self, name: str, **parts: Any) -> Account:
        """Another account."""
        return CancelsAtOnce(name, **parts)


# --------------------------------------------------------------------------- limits


class StaleGate(Gate):
    """Holds orders against the position it saw first."""

    def _see(self, order: Order) -> LimitView:
        view = super()._see(order)
        kept = self.__dict__.setdefault("kept", {})
        aside = kept.setdefault(order.instrument, view.held)
        open_low = (view.low if view.low is not None else view.held) - view.held
        view.held = aside
        view.low, view.high = aside + min(open_low, ZERO), aside
        return view


class StalePosition(Defect):
    """A limit is checked on a position of long ago."""

    name = "limit checked on a stale position"
    found_as = ("limit breached",)

    def gate(self, account: Account) -> None:
        """Another gate."""
        old = account.gate
        fresh = StaleGate.__new__(StaleGate)
        fresh.__dict__ = old.__dict__
        account.gate = fresh


# --------------------------------------------------------------------------- starts


class ForgetsPositions(Recovered):
    """Folds everything but what is held."""

    def take(self, step: Step) -> None:
        """Fold one record, then empty the pockets."""
        super().take(step)
        account = self.accounts["dynamic"]
        state = account.ledger.state()
        account.ledger.restore(msgspec.structs.replace(state, positions=[]))
        account.stated = account.ledger.restated


class PositionNotRestored(Defect):
    """After a restart the books are empty."""

    name = "position not restored"
    found_as = ("recovery differs", "false difference", "position")

    def faults(self, drawn: Faults) -> Faults:
        """Daemons die."""
        return _at_least(drawn, crash_every=15.0)

    def recovered(self, accounts: list[Account]) -> Recovered:
        """Another fold."""
        return ForgetsPositions(accounts)


class KeepsTornTail(Mount):
    """A disk whose torn end stays where it is: the next record is written behind it."""

    def cut(self, size: int) -> None:
        """Leave it."""


class TornRecordKept(Defect):
    """The torn last record of a journal is accepted as it is."""

    name = "torn last record accepted"
    found_as = ("daemon failed", "durable record lost", "start refused")

    def faults(self, drawn: Faults) -> Faults:
        """Daemons die."""
        return _at_least(drawn, crash_every=15.0)

    def store(self, mount: Mount) -> Store:
        """Another mount."""
        return KeepsTornTail(mount._daemon, mount.disk)


class FencelessWire(Wire):
    """Stamps commands with whatever epoch the venue is at."""

    def stamp(self) -> int:
        """Always good."""
        return 1 << 30


class EpochIgnored(Defect):
    """Whoever lost the book goes on trading it."""

    name = "fencing epoch ignored"
    found_as = ("old lease",)

    def faults(self, drawn: Faults) -> Faults:
        """Daemons are taken for dead that are not."""
        return _at_least(drawn, crash_every=20.0, zombie=0.5)

    def wire(self, daemon: Daemon, rng: Random) -> Wire:
        """Another wire."""
        return FencelessWire(daemon, rng)


# --------------------------------------------------------------------------- time


class WallTime(EngineTime):
    """Engine time that follows the wall clock wherever it goes, and waits when it went back."""

    def now(self) -> Nanos:
        """The wall, never less than before."""
        self._last = max(self._last, self._clock.now())
        return self._last

    def look(self) -> Nanos:
        """All is well."""
        return 0


class TimerLost(Defect):
    """Timers go by the wall clock."""

    name = "timer lost over a clock jump"
    found_as = ("timer lost",)

    def faults(self, drawn: Faults) -> Faults:
        """The wall clock leaps."""
        return _at_least(drawn, clock_rate=0.05)

    def started(self, session: LiveSession) -> None:
        """Another time."""
        session.time = WallTime(session._clock, step=0.25, hold=2.0)


PLANTED: Final[tuple[Defect, ...]] = (
    SendBeforeCommit(),
    AcknowledgeBeforeCommit(),
    FillTwice(),
    LateFill(),
    UnknownAsFailed(),
    UnknownNotCounted(),
    CancelRace(),
    StalePosition(),
    PositionNotRestored(),
    TornRecordKept(),
    EpochIgnored(),
    TimerLost(),
)
"""One switch each."""

__all__ = ["PLANTED"]
