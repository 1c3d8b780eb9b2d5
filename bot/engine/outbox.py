"""The outbox releases a command once its step is durable; law: it is the only caller of a broker's `submit`.

A simulated venue inside the loop takes its command at once, in event time. An external venue's commands queue here until
the journal has them on disk and the driver, outside the loop, awaits them; a `replay` journal counts as durable at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from bot.core.events import Unknown, VenueEvent
from bot.core.ports import Broker, InLoopBroker
from bot.domain.orders import Order
from bot.domain.units import Nanos
from bot.engine.account import Account
from bot.engine.journal import JournalWriter


class Outbox:
    """Holds commands between decision and release. Implements `Outlet`."""

    def __init__(self, now: Callable[[], Nanos], journal: JournalWriter) -> None:
        self._now = now
        self._journal = journal
        self._ready: deque[tuple[Account, Order | str, str]] = deque()
        self._external: deque[tuple[int, Account, Order | str]] = deque()
        self.sent: Callable[[Account, Order | str], None] = lambda _account, _command: None
        """Called just before a command is handed to an external venue."""

    def submit(self, account: Account, order: Order) -> None:
        """Keep an order until the step is recorded."""
        self._ready.append((account, order, ""))

    def cancel(self, account: Account, order_id: str, reason: str) -> None:
        """Keep a cancel until the step is recorded."""
        self._ready.append((account, order_id, reason))

    def release(self) -> bool:
        """Hand recorded commands to simulated venues and queue the others; True when anything was released."""
        released = bool(self._ready)
        while self._ready:
            account, command, reason = self._ready.popleft()
            venue = account.in_loop
            if venue is None:
                self._external.append((self._journal.seq, account, command))
            elif isinstance(command, Order):
                venue.accept(command, self._now())
            else:
                venue.drop(command, self._now(), reason)
        return released

    @property
    def waiting(self) -> bool:
        """True while an external venue's command is not yet sent."""
        return bool(self._external)

    def again(self, account: Account, command: Order | str) -> None:
        """Queue a recorded command for an external venue once more: it may never have arrived."""
        self._external.append((self._journal.seq, account, command))

    async def send(self) -> list[tuple[Account, VenueEvent]]:
        """Send external venues what is durable by now; a send that fails leaves the order UNKNOWN, never failed."""
        unknown: list[tuple[Account, VenueEvent]] = []
        while self._external and self._external[0][0] <= self._journal.durable:
            _, account, command = self._external.popleft()
            broker = account.broker
            if isinstance(broker, InLoopBroker) or not isinstance(broker, Broker):
                continue
            self.sent(account, command)
            try:
                if isinstance(command, Order):
                    await broker.submit(command)
                else:
                    await broker.cancel(command)
            except Exception as fault:  # noqa: BLE001  any fault of a venue's code means: outcome UNKNOWN
                if isinstance(command, Order):
                    text = f"submit raised {type(fault).__name__}: {fault}"
                    unknown.append(
                        (account, Unknown(ts_recv=self._now(), account=account.name, order_id=command.id, text=text))
                    )
                else:
                    account.cancel_failed(command, f"{type(fault).__name__}: {fault}", self._now())
        return unknown
