"""The outbox releases a command once its step is durable; law: it is the only caller of a broker's `submit`.

A simulated venue inside the loop takes its command at once, in event time. An external venue's commands queue here until
the journal has them on disk and the driver, outside the loop, awaits them; a `replay` journal counts as durable at once.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

from bot.core.events import Cancelled, Unknown, VenueEvent
from bot.core.ports import Broker, InLoopBroker
from bot.domain.orders import Order, OrderStatus
from bot.domain.units import NS_PER_SECOND, Nanos
from bot.engine.account import Account
from bot.engine.journal import JournalWriter


class Outbox:
    """Holds commands between decision and release. Implements `Outlet`."""

    def __init__(self, now: Callable[[], Nanos], journal: JournalWriter) -> None:
        self._now = now
        self._journal = journal
        self._ready: deque[tuple[Account, Order | str, str]] = deque()
        self._external: deque[tuple[int, Account, Order | str]] = deque()
        self.patience: Nanos | None = None
        """How long after its decision an order may leave for the first time, None for ever: later its view is gone."""
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

    def release_cancels(self) -> list[tuple[Account, Order]]:
        """Hand on the cancels that are ready, recorded or not; the orders among them, which are not sent.

        For the kill ladder when a record or a venue failed: one venue that raises keeps no other cancel back.
        """
        dropped: list[tuple[Account, Order]] = []
        while self._ready:
            account, command, reason = self._ready.popleft()
            if isinstance(command, Order):
                dropped.append((account, command))
            elif account.in_loop is None:
                self._external.appendleft((-1, account, command))
            else:
                with contextlib.suppress(Exception):
                    account.in_loop.drop(command, self._now(), reason)
        return dropped

    @property
    def waiting(self) -> bool:
        """True while an external venue's command is not yet sent."""
        return bool(self._external)

    def again(self, account: Account, command: Order | str) -> None:
        """Queue a recorded command for an external venue once more: it may never have arrived."""
        self._external.append((self._journal.seq, account, command))

    def _why_kept(self, account: Account, order: Order) -> str:
        """Why an order is not handed on, empty when it is: a rung forbids it by now, or its record took too long."""
        waited = self._now() - order.ts
        if self.patience is not None and waited > self.patience:
            return f"its record was durable only {waited / NS_PER_SECOND:.1f} s after the decision"
        return account.may_leave(order)

    async def send(self) -> list[tuple[Account, VenueEvent]]:
        """Send external venues what is durable by now; a send that fails leaves the order UNKNOWN, never failed."""
        unknown: list[tuple[Account, VenueEvent]] = []
        kept: set[str] = set()
        while self._external and self._external[0][0] <= self._journal.durable:
            _, account, command = self._external.popleft()
            broker = account.broker
            if isinstance(broker, InLoopBroker) or not isinstance(broker, Broker):
                continue
            why = self._why_kept(account, command) if isinstance(command, Order) else ""
            if why and isinstance(command, Order):
                if account.orders[command.id].status is not OrderStatus.SUBMITTED:
                    continue  # it may have arrived when it was sent first: in doubt it stays
                kept.add(command.id)
                text = f"never sent: {why}"
                unknown.append(
                    (account, Cancelled(ts_recv=self._now(), account=account.name, order_id=command.id, reason=text))
                )
                continue
            if command in kept:
                continue  # a cancel of an order that was never sent
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
