"""An audit is every order of an account with the rule that asked for it, what that rule saw, and what became of it; law: it
is read from the journal alone, and an order that was refused has a row like one that was sent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from bot.app.export import plain, refuse_unknown_account, replacing
from bot.app.runs import StoredRun
from bot.core.events import Evidence
from bot.domain.orders import Fill, Order, QuoteRef, Refusal
from bot.domain.units import NS_PER_SECOND, Nanos, iso
from bot.engine.journal import Executed, Ordered, Refused, Started, TargetSet, VenueSaid

COLUMNS: Final = (
    *("time", "order_id", "instrument", "signed_qty", "kind", "limit", "books", "strategies", "rule", "reason"),
    *("spot", "bid", "ask", "quote_age_seconds", "delta", "gamma", "vega", "theta", "vols", "vol_age_seconds"),
    *("band_lo", "band_hi", "held", "working"),
    *("outcome", "why", "filled_qty", "average_price", "average_mid", "commission", "seconds_to_last_fill", "closing"),
)


class Audited(msgspec.Struct):
    """One order from its target to its end."""

    order: Order | None
    refusal: Refusal | None
    targets: list[TargetSet]
    said: list[VenueSaid]
    fills: list[Fill]


def export_orders(stored: StoredRun, path: Path, account: str = "dynamic") -> int:
    """The number of orders written: one CSV row each, refused ones too, in the order of the journal.

    `rule` is the policy behind the targets, `reason` their words; the inputs are those of the last target's evidence, blank
    where a strategy gave none. ConfigError for an account the run does not have, StorageError when it cannot be written.
    """
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    rows.writeheader()
    count = 0
    for item in audited(stored, account):
        rows.writerow(row(item))
        count += 1
    with replacing(path) as file:
        file.write(text.getvalue().encode())
    return count


def audited(stored: StoredRun, account: str) -> Iterator[Audited]:
    """Every order of an account, sent or refused, with its targets, the venue's words and its fills."""
    known: dict[str, None] = {}
    wanted: dict[str, dict[str, TargetSet]] = {}
    found: list[Audited] = []
    by_id: dict[str, Audited] = {}
    for step in stored.steps():
        for fact in step.facts:
            known[fact.account] = None
            if fact.account != account or isinstance(fact, Started):
                continue
            if isinstance(fact, TargetSet):
                for line in fact.lines:
                    wanted.setdefault(line.instrument, {})[fact.book] = fact
            elif isinstance(fact, Ordered):
                item = Audited(fact.order, None, _behind(wanted, fact.order), [], [])
                by_id[fact.order.id] = item
                found.append(item)
            elif isinstance(fact, Refused):
                targets = list(wanted.get(fact.refusal.instrument, {}).values())
                found.append(Audited(None, fact.refusal, targets, [], []))
            elif isinstance(fact, VenueSaid) and fact.order_id in by_id:
                by_id[fact.order_id].said.append(fact)
            elif isinstance(fact, Executed) and fact.fill.order_id in by_id:
                by_id[fact.fill.order_id].fills.append(fact.fill)
    refuse_unknown_account(account, known, stored.run_id)
    return iter(found)


def _behind(wanted: dict[str, dict[str, TargetSet]], order: Order) -> list[TargetSet]:
    """The last target of each book the order is for."""
    books = {allocation.book for allocation in order.allocations}
    return [target for book, target in wanted.get(order.instrument, {}).items() if book in books]


def row(item: Audited) -> dict[str, Any]:
    """The columns of one order."""
    order, refusal = item.order, item.refusal
    last = item.targets[-1] if item.targets else None
    if order is not None:
        head = {
            "time": iso(order.ts),
            "order_id": order.id,
            "instrument": order.instrument,
            "signed_qty": plain(order.quantity),
            "kind": order.kind,
            "limit": "" if order.limit is None else plain(order.limit),
            "books": " ".join(f"{a.book}:{plain(a.quantity)}" for a in order.allocations),
            "reason": order.reason,
            "closing": "yes" if order.closing else "",
        }
        now = order.ts
    else:
        assert refusal is not None  # an order that was not sent was refused
        head = {
            "time": iso(refusal.ts),
            "instrument": refusal.instrument,
            "signed_qty": plain(refusal.quantity),
            "books": " ".join(target.book for target in item.targets),
            "reason": "" if last is None else last.reason,
        }
        now = refusal.ts
    rules = [t.evidence.policy if t.evidence is not None and t.evidence.policy else t.strategy for t in item.targets]
    head |= {"strategies": " ".join(t.strategy for t in item.targets), "rule": "; ".join(dict.fromkeys(rules))}
    evidence = None if last is None else last.evidence
    reference = None if order is None else order.reference
    return {**head, **_seen(evidence, now), **_quoted(reference, evidence, now), **_became(item)}


def _seen(evidence: Evidence | None, now: Nanos) -> dict[str, Any]:
    """What the decision saw; blank where it is not known."""
    if evidence is None:
        return {}
    return {
        "spot": _number(evidence.spot),
        "delta": _number(evidence.delta),
        "gamma": _number(evidence.gamma),
        "vega": _number(evidence.vega),
        "theta": _number(evidence.theta),
        "vols": " ".join(f"{key.replace(' ', '')}:{_number(vol) or '?'}" for key, vol in sorted(evidence.vols.items())),
        "vol_age_seconds": "" if evidence.vol_age is None else _number(evidence.vol_age / NS_PER_SECOND),
        "band_lo": _number(evidence.lo),
        "band_hi": _number(evidence.hi),
        "held": plain(evidence.held),
        "working": plain(evidence.working),
    }


def _quoted(reference: QuoteRef | None, evidence: Evidence | None, now: Nanos) -> dict[str, Any]:
    """The quote the order left on, or where it was not sent the one its decision saw."""
    quote = reference if reference is not None else None if evidence is None else evidence.quote
    if quote is None:
        return {}
    age = (now - quote.ts) / NS_PER_SECOND
    return {"bid": _number(quote.bid), "ask": _number(quote.ask), "quote_age_seconds": _number(age)}


def _became(item: Audited) -> dict[str, Any]:
    """What became of the order: refused, rejected, cancelled, filled in full or in part, or open when the record ends."""
    if item.refusal is not None:
        return {"outcome": "refused", "why": f"{item.refusal.code}: {item.refusal.text}", "filled_qty": "0"}
    assert item.order is not None  # sent, since it was not refused
    filled = sum((fill.quantity for fill in item.fills), Decimal(0))
    ended = [said for said in item.said if said.what in {"rejected", "cancelled"}]
    if filled == item.order.quantity:
        outcome = "filled"
    elif ended:
        outcome = ended[-1].what + (", part filled" if filled else "")
    else:
        outcome = "part filled, open" if filled else "open"
    told: dict[str, Any] = {"outcome": outcome, "why": ended[-1].text if ended else "", "filled_qty": plain(filled)}
    if filled:
        told |= {
            "average_price": plain(sum((f.quantity * f.price for f in item.fills), Decimal(0)) / filled),
            "average_mid": plain(sum((f.quantity * f.mid for f in item.fills), Decimal(0)) / filled),
            "commission": plain(sum((f.commission for f in item.fills), Decimal(0))),
            "seconds_to_last_fill": _number((max(f.ts for f in item.fills) - item.order.ts) / NS_PER_SECOND),
        }
    return told


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))
