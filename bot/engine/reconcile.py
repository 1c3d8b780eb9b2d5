"""Reconciling compares a venue's word with our own record; law: what was missed is asked for and found, what neither side
explains is never invented: its underlying is frozen until a person enters a balance.

Only the venue's answer ends an UNKNOWN. A fill is applied once per (order, fill id), however it was heard of.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import msgspec

from bot.core.events import Accepted, Alarm, Cancelled, Filled, Rejected, VenueEvent
from bot.core.ports import Snapshot, VenueOrder
from bot.domain.orders import OrderStatus
from bot.domain.units import Nanos
from bot.engine.account import Account
from bot.engine.facts import Reconciled

ZERO = Decimal(0)
NOTHING: Final[Mapping[str, Decimal]] = MappingProxyType({})
CAUSE: Final = "reconcile"
_WORKING: Final = frozenset({"submitted", "accepted", "partial", "working"})


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found: words to be heard now, open orders the venue does not know, strangers it knows, and by
    instrument what it holds beyond what we can explain once the words are heard."""

    words: list[VenueEvent]
    absent: list[str]
    strangers: list[str]
    differences: dict[str, Decimal]
    elsewhere: dict[str, Decimal]


def compare(account: Account, said: Snapshot, now: Nanos, *, to_open: Mapping[str, Decimal] = NOTHING) -> Findings:
    """The venue's snapshot against the account. Pure: nothing is changed. `to_open`: what the books will begin with."""
    words: list[VenueEvent] = []
    missed: dict[str, Decimal] = {}
    holdings = account.ledger.quantities()
    for key, quantity in to_open.items():
        holdings[key] = holdings.get(key, ZERO) + quantity
    for fill in said.fills:
        state = account.orders.get(fill.order_id)
        if state is None or fill.id in state.fill_ids or fill.instrument != state.order.instrument:
            continue
        words.append(Filled(ts_recv=now, account=account.name, fill=fill))
        missed[fill.order_id] = missed.get(fill.order_id, ZERO) + fill.quantity
        holdings[fill.instrument] = holdings.get(fill.instrument, ZERO) + fill.quantity
    known = {order.order_id: order for order in said.orders}
    absent: list[str] = []
    for order_id in account.open_ids:
        state = account.orders[order_id]
        if state.left == missed.get(order_id, ZERO):
            continue
        theirs = known.get(order_id)
        if theirs is None:
            absent.append(order_id)
        else:
            words += _word_on(account, theirs, state.status, now)
    strangers = [
        order.order_id for order in said.orders if order.status in _WORKING and order.order_id not in account.open_ids
    ]
    elsewhere = account.elsewhere
    if elsewhere is None:
        elsewhere = _elsewhere(account, to_open, said.positions)
    keys = sorted({*holdings, *said.positions, *elsewhere})
    gaps = {key: said.positions.get(key, ZERO) - (holdings.get(key, ZERO) - elsewhere.get(key, ZERO)) for key in keys}
    return Findings(
        words=words,
        absent=absent,
        strangers=strangers,
        differences={key: gap for key, gap in gaps.items() if gap},
        elsewhere=elsewhere,
    )


def _elsewhere(
    account: Account, to_open: Mapping[str, Decimal], positions: Mapping[str, Decimal]
) -> dict[str, Decimal]:
    """At the first comparison: what the book opened with and the venue holds nothing of lies with somebody else."""
    opened = dict(to_open)
    for (_, key), quantity in account.opened.items():
        opened[key] = opened.get(key, ZERO) + quantity
    return {key: quantity for key, quantity in opened.items() if quantity and not positions.get(key)}


def _word_on(account: Account, theirs: VenueOrder, ours: OrderStatus, now: Nanos) -> list[VenueEvent]:
    """What the venue's view of an open order says that we have not heard."""
    if theirs.status in _WORKING:
        doubtful = ours in {OrderStatus.SUBMITTED, OrderStatus.UNKNOWN}
        return [Accepted(ts_recv=now, account=account.name, order_id=theirs.order_id)] if doubtful else []
    if theirs.status in {"cancelled", "expired"}:
        reason = f"the venue had it {theirs.status}"
        return [Cancelled(ts_recv=now, account=account.name, order_id=theirs.order_id, reason=reason)]
    if theirs.status == "rejected":
        text = "the venue had it rejected"
        return [Rejected(ts_recv=now, account=account.name, order_id=theirs.order_id, code="rejected", text=text)]
    return []


def settle(account: Account, found: Findings, now: Nanos, *, why: str) -> None:
    """Put the outcome on the record when it is news: differences freeze their underlyings, explained ones thaw them."""
    news = found.differences != account.differences or account.elsewhere is None or bool(found.words)
    for key in {*account.differences, *found.differences}:
        underlying = account.underlying_of(account.universe.get(key)) if key in account.universe else key
        if key in found.differences:
            text = f"the venue holds {found.differences[key]:+f} of {key} that our record does not explain"
            account.freeze(underlying, f"{CAUSE} {key}", text)
            if found.differences[key] != account.differences.get(key):
                text += "; it is frozen until a balance entry is made"
                account.alarm(Alarm(code="difference", text=text, ts=now, underlying=underlying, action="freeze"))
        else:
            account.thaw(underlying, f"{CAUSE} {key}")
    account.differences = dict(found.differences)
    account.elsewhere = dict(found.elsewhere)
    if news:
        fills = sum(isinstance(word, Filled) for word in found.words)
        account.pending.append(
            Reconciled(
                account=account.name,
                found=fills,
                differences=dict(found.differences),
                elsewhere=dict(found.elsewhere),
                why=why,
            )
        )
