"""Recovery folds a journal's facts into accounts; law: what is relived makes no new fact, and leaves the account as it was.

A snapshot replaces everything before it. What the market said is not folded: quotes, vols and samples are of the market,
and come again from the feeds.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Final

import msgspec

from bot.domain.book import PositionKey
from bot.domain.orders import OPEN, OrderStatus
from bot.domain.units import Nanos
from bot.engine.account import OWNER, Account, OrderState
from bot.engine.facts import (
    AccountState,
    Asked,
    Balanced,
    Began,
    Closed,
    Controlled,
    Executed,
    Fact,
    Financed,
    Froze,
    Ordered,
    OrderRecord,
    Rang,
    Reconciled,
    Refused,
    Remembered,
    Restated,
    Skipped,
    Snapshotted,
    Started,
    TargetSet,
    Transferred,
    VenueSaid,
)
from bot.engine.gate import Standing
from bot.engine.journal import Step

ZERO = Decimal(0)
REMEMBERED_ORDERS: Final = 256
"""Orders that are over and yet in a snapshot, so that a late or repeated fill of one is known for what it is."""

_ENDS: Final = {"rejected": OrderStatus.REJECTED, "cancelled": OrderStatus.CANCELLED}


class Recovered:
    """What a journal said, folded: accounts changed in place, and what they do not carry."""

    def __init__(self, accounts: list[Account]) -> None:
        self.accounts = {account.name: account for account in accounts}
        self.records = 0
        self.last_ts: Nanos = 0
        self.started_at: Nanos | None = None
        self.closed = False
        self.since_snapshot = 0
        self.seen: set[str] = set()
        """Accounts the journal knows; one that a later configuration added begins anew."""
        self._began: set[tuple[str, str]] = set()
        self._snapped = False

    def take(self, step: Step) -> None:
        """Fold one record."""
        self.records += 1
        self.since_snapshot += 1
        self.last_ts = step.ts
        snapshot = next((i for i, fact in enumerate(step.facts) if isinstance(fact, Snapshotted)), 0)
        for fact in step.facts[snapshot:]:  # a snapshot holds what its own record says before it
            account = self.accounts.get(fact.account)
            if account is None:
                continue  # an account this configuration no longer has
            if isinstance(fact, Started | Snapshotted):
                self.seen.add(fact.account)
            if isinstance(fact, TargetSet | Asked | Remembered | Skipped):
                self._began.add((fact.account, fact.strategy))
            self._snapped = self._snapped or isinstance(fact, Snapshotted)
            if isinstance(fact, Started):
                self.started_at = step.ts
            elif isinstance(fact, Snapshotted):
                self.since_snapshot = 0
                self.started_at = fact.state.started_at
                self.closed = fact.state.closed
            elif isinstance(fact, Closed):
                self.closed = True
            relive(account, fact, step.ts)

    def began(self, account: str, strategy: str) -> bool:
        """True when a strategy has left a trace: one that died between the session's start and its own starts again."""
        return self._snapped or (account, strategy) in self._began


def relive(account: Account, fact: Fact, ts: Nanos) -> None:
    """Apply one fact as it once happened, without making it a fact again."""
    match fact:
        case Snapshotted():
            restore(account, fact.state)
        case Restated():
            account.ledger.restore(fact.ledger)
            account.targets = {(book, key): quantity for book, key, quantity in fact.targets}
            account.opened = {(book, key): quantity for book, key, quantity in fact.opened}
            account.stated = account.ledger.restated
        case Ordered():
            account.order_count += 1
            account.orders[fact.order.id] = OrderState(fact.order)
            account.open_ids[fact.order.id] = None
        case VenueSaid():
            _relive_word(account, fact)
        case Executed():
            _relive_fill(account, fact)
        case Transferred():
            seller, buyer = (PositionKey(account.name, b, OWNER, fact.instrument) for b in (fact.seller, fact.buyer))
            account.ledger.transfer(seller, buyer, fact.quantity, fact.price)
        case Financed():
            account.ledger.finance(fact.currency, fact.amount)
        case TargetSet():
            for line in fact.lines:
                account.targets[fact.book, line.instrument] = line.quantity
        case Remembered():
            account.memories[fact.strategy] = bytes(fact.memory)
        case Asked():
            _relive_timer(account, fact, ts)
        case Rang():
            account.timers.pop((fact.strategy, fact.ts, fact.name), None)
        case Froze():
            account.set_cause(fact.key, fact.cause, fact.text)
        case Refused():
            code = fact.refusal.code
            account.refusals[code] = account.refusals.get(code, 0) + 1
        case Controlled() | Began() | Reconciled() | Balanced():
            _relive_word_of_ours(account, fact)
        case _:
            return


def _relive_word_of_ours(account: Account, fact: Controlled | Began | Reconciled | Balanced) -> None:
    if isinstance(fact, Controlled):
        account.gate.standing = account.gate.standing.apply(fact)
    match fact:
        case Controlled(verb="halt"):
            account.halted = fact.argument or "halted by a person"
        case Controlled(verb="resume"):
            account.halted = ""
        case Began():
            account.epoch, account.starts = fact.epoch, fact.start + 1
            account.config_hash = fact.config_hash
        case Reconciled():
            account.differences = {key: quantity for key, quantity in fact.differences.items() if quantity}
            account.elsewhere = dict(fact.elsewhere)
        case Balanced():
            account.differences.pop(fact.instrument, None)
        case _:
            return


def _relive_word(account: Account, fact: VenueSaid) -> None:
    state = account.orders.get(fact.order_id)
    if state is None:
        return
    if fact.what in _ENDS:
        account.finish(state, _ENDS[fact.what])
    elif fact.what == "accepted" and state.status in {OrderStatus.SUBMITTED, OrderStatus.UNKNOWN}:
        state.status = OrderStatus.ACCEPTED
    elif fact.what == "unknown" and state.status in OPEN:
        state.status = OrderStatus.UNKNOWN


def _relive_fill(account: Account, fact: Executed) -> None:
    fill = fact.fill
    state = account.orders.get(fill.order_id)
    first = state is None or not state.fill_ids
    keys = {PositionKey(account.name, book, OWNER, fill.instrument): q for book, q in fact.allocations.items()}
    account.ledger.fill(fill, keys, first_of_order=first)
    account.fill_count += 1
    account.last_fill = max(account.last_fill, fill.ts)
    if state is None:
        return
    state.fill_ids.add(fill.id)
    state.filled += fill.quantity
    for book, quantity in fact.allocations.items():
        state.allocated[book] = state.allocated.get(book, ZERO) + quantity
    if state.status in OPEN:
        state.status = OrderStatus.PARTIAL if state.left else OrderStatus.FILLED
    if not state.left:
        account.open_ids.pop(fill.order_id, None)


def _relive_timer(account: Account, fact: Asked, ts: Nanos) -> None:
    """A timer asked for after an earlier one of its name had come means that the earlier one has rung."""
    rung = {key for key in account.timers if key[0] == fact.strategy and key[2] == fact.name and key[1] <= ts}
    account.timers = {key: None for key in account.timers if key not in rung}
    account.timers[fact.strategy, fact.ts, fact.name] = None


# --------------------------------------------------------------------------- snapshots


def state_of(account: Account, *, started_at: Nanos | None, closed: bool = False) -> AccountState:
    """The account as a snapshot's record says it."""
    over = [order_id for order_id in account.orders if order_id not in account.open_ids]
    kept = {*account.open_ids, *over[-REMEMBERED_ORDERS:]}
    return AccountState(
        ledger=account.ledger.state(),
        orders=[_record_of(state) for order_id, state in account.orders.items() if order_id in kept],
        order_count=account.order_count,
        fill_count=account.fill_count,
        last_fill=account.last_fill,
        targets=[(book, key, quantity) for (book, key), quantity in account.targets.items()],
        opened=[(book, key, quantity) for (book, key), quantity in account.opened.items()],
        causes={key: dict(by) for key, by in account.causes.items()},
        halted=account.halted,
        memories={name: msgspec.Raw(memory) for name, memory in account.memories.items()},
        timers=list(account.timers),
        refusals=dict(account.refusals),
        started_at=started_at,
        closed=closed,
        epoch=account.epoch,
        starts=account.starts,
        elsewhere=None if account.elsewhere is None else dict(account.elsewhere),
        differences=dict(account.differences),
        standing=msgspec.Raw(msgspec.json.encode(account.gate.standing)),
        config_hash=account.config_hash,
    )


def _record_of(state: OrderState) -> OrderRecord:
    return OrderRecord(
        order=state.order,
        status=state.status,
        filled=state.filled,
        allocated=dict(state.allocated),
        fill_ids=sorted(state.fill_ids),
    )


def restore(account: Account, state: AccountState) -> None:
    """Make the account what a snapshot says."""
    account.ledger.restore(state.ledger)
    account.stated = account.ledger.restated
    account.orders, account.open_ids = {}, {}
    for record in state.orders:
        found = OrderState(record.order)
        found.status, found.filled = record.status, record.filled
        found.allocated, found.fill_ids = dict(record.allocated), set(record.fill_ids)
        account.orders[record.order.id] = found
        if record.status in OPEN:
            account.open_ids[record.order.id] = None
    account.order_count, account.fill_count = state.order_count, state.fill_count
    account.last_fill = state.last_fill
    account.targets = {(book, key): quantity for book, key, quantity in state.targets}
    account.opened = {(book, key): quantity for book, key, quantity in state.opened}
    account.causes = {key: dict(by) for key, by in state.causes.items()}
    account.frozen = {key: "; ".join(by.values()) for key, by in account.causes.items()}
    account.halted = state.halted
    account.memories = {name: bytes(memory) for name, memory in state.memories.items()}
    account.timers = dict.fromkeys(state.timers)
    account.refusals = dict(state.refusals)
    account.epoch, account.starts = state.epoch, state.starts
    account.elsewhere = None if state.elsewhere is None else dict(state.elsewhere)
    account.differences = dict(state.differences)
    account.gate.standing = msgspec.json.decode(state.standing, type=Standing)
    account.config_hash = state.config_hash


def digest_of(account: Account) -> str:
    """A digest of what is folded, whatever release wrote the records: positions, money, open orders, targets, memories."""
    state = state_of(account, started_at=None)
    told = {
        "positions": sorted((k.book, k.strategy, k.instrument, _plain(q)) for k, q in state.ledger.positions),
        "cash": {k: _plain(v) for k, v in sorted(state.ledger.cash.items()) if v},
        "open": sorted((r.order.id, str(r.status), _plain(r.filled)) for r in state.orders if r.status in OPEN),
        "orders": state.order_count,
        "fills": state.fill_count,
        "targets": sorted((book, key, _plain(q)) for book, key, q in state.targets),
        "memories": {k: bytes(v).decode() for k, v in sorted(state.memories.items())},
        "halted": state.halted,
    }
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f")
