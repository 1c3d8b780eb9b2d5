"""An account is policy, desk, broker and books together; law: the sum of its books equals the account after every step.

Every run carries several accounts on the same marks: `dynamic` (the only one that may hold a real broker), `none`,
`static` and any alternatives. A strategy runs in a slot of an account and owns a named book there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

from bot.core.errors import HaltedError
from bot.core.events import (
    Accepted,
    Alarm,
    Amended,
    Cancelled,
    Corporate,
    Filled,
    Lifecycle,
    Rejected,
    Target,
    TargetLine,
    Unknown,
    VenueEvent,
)
from bot.core.ports import Broker, Chain, Figures, InLoopBroker, Restores, Strategy, UnderlyingRisk
from bot.core.quiet import QuietBox, Renewal
from bot.domain.book import Book, PositionKey, trade_value
from bot.domain.calendar import Pause, Sessions
from bot.domain.instruments import (
    ConvertibleBond,
    Future,
    Instrument,
    OptionContract,
    Perpetual,
    Universe,
    price_move_value,
    round_to_lot,
    settlement_currency,
)
from bot.domain.market import MarketView
from bot.domain.orders import OPEN, Allocation, Fill, Order, OrderStatus, Refusal, move
from bot.domain.units import Nanos, decimal_of, iso
from bot.engine import bonds, desk, limits
from bot.engine.exposure import Units
from bot.engine.gate import THROTTLE, Gate, GateSettings, Waiting
from bot.engine.journal import (
    Adjusted,
    Alarmed,
    Balanced,
    Ended,
    Executed,
    Fact,
    Financed,
    Froze,
    Ordered,
    Refused,
    Remembered,
    Restated,
    Skipped,
    TargetSet,
    Transferred,
    VenueSaid,
)
from bot.engine.kill import Rung
from bot.engine.ledger import Converter, Ledger, category_of, convert_sum
from bot.engine.leg_inputs import LegInputs
from bot.engine.marks import NAN, Marks
from bot.engine.valuation import Legs, Valuation

ZERO = Decimal(0)
ALL = ""
"""The key under which everything is frozen: the disk, the clock, the lease."""
OWNER = ""
"""The strategy name of positions the book file opened."""


class Outlet(Protocol):
    """Where released commands go; law: called only after the step's record was appended."""

    def submit(self, account: Account, order: Order) -> None: ...
    def cancel(self, account: Account, order_id: str, reason: str) -> None: ...


def _no_timer(slot: Slot, ts: Nanos, name: str) -> None:
    """Before the loop gives its own, a timer rings never."""


class OrderState:
    """One of our orders at a venue: its status, what was filled and how much each book got of it."""

    __slots__ = ("allocated", "cancelling", "fill_ids", "filled", "order", "passed", "status")

    def __init__(self, order: Order, passed: Rung = Rung.NONE) -> None:
        self.order = order
        self.passed = passed
        self.status = OrderStatus.SUBMITTED
        self.filled = ZERO
        self.allocated: dict[str, Decimal] = {}
        self.fill_ids: set[str] = set()
        self.cancelling = False

    @property
    def left(self) -> Decimal:
        """Signed quantity not yet filled."""
        return self.order.quantity - self.filled


class Noted:
    """What an account notes beside its books: it decides nothing and is no fact.

    `halts` by instrument the last that its venue told of; `askers` by instrument the strategies that ever wanted another
    quantity of it; `needs` each order's size over the size displayed on its side as it left, NaN where none was; `waits`
    the time from each fill's order to the fill.
    """

    def __init__(self) -> None:
        self.halts: dict[str, Pause] = {}
        self.askers: dict[str, dict[str, None]] = {}
        self.needs: list[float] = []
        self.waits: list[Nanos] = []


class Slot:
    """A strategy in an account, with its book, its quiet box and its view."""

    def __init__(self, account: Account, strategy: Strategy) -> None:
        self.account = account
        self.strategy = strategy
        self.box: QuietBox | None = None
        self.asks_for_box = False
        self.asked_at = -(1 << 62)
        self.haste = 1
        self.patience = 0
        self.disabled = ""
        self.figures: Figures = {}
        self.view = View(account, strategy)

    def restart(self, fresh: Strategy) -> None:
        """Put a new object of the same strategy in its place, as a restart would: from its memory, if it keeps one."""
        now = self.view.now
        self.strategy = fresh
        self.box = None
        self.view = View(self.account, fresh)
        self.view.now = now
        if isinstance(fresh, Restores):
            fresh.restore(self.view, self.account.memories.get(fresh.name, b"null"))


class Account:
    """Who trades. Mutable; changed only by the loop, through the methods below, each of which returns facts."""

    def __init__(
        self,
        name: str,
        *,
        universe: Universe,
        marks: Marks,
        valuation: Valuation,
        broker: InLoopBroker | Broker,
        strategies: Sequence[Strategy],
        checks: Sequence[tuple[str, limits.Limit]] = (),
        base_currency: str = "USD",
        sessions: Mapping[str, Sessions] | None = None,
        gate: GateSettings | None = None,
        units: Units | None = None,
    ) -> None:
        self.name = name
        self.sessions: Mapping[str, Sessions] = {} if sessions is None else sessions
        self.universe = universe
        self.marks = marks
        self.valuation = valuation
        self.broker = broker
        self.in_loop: InLoopBroker | None = broker if isinstance(broker, InLoopBroker) else None
        self.ledger = Ledger(name, universe, base_currency)
        self.orders: dict[str, OrderState] = {}
        self.open_ids: dict[str, None] = {}
        self.targets: dict[tuple[str, str], Decimal] = {}
        self.opened: dict[tuple[str, str], Decimal] = {}
        self.frozen: dict[str, str] = {}
        self.noted = Noted()
        self.causes: dict[str, dict[str, str]] = {}
        self.refusals: dict[str, int] = {}
        self.skips: dict[str, int] = {}
        self._last_skip: dict[tuple[str, str], str] = {}
        self.order_count = 0
        self.order_version = 0
        self.fill_count = 0
        self.last_fill: Nanos = 0
        """The venue's stamp of the latest fill applied; 0 before the first."""
        self.halted = ""
        self.delays: list[Decimal] = []
        self.now: Nanos = 0
        self.slots = [Slot(self, strategy) for strategy in strategies]
        self.timer_request: Callable[[Slot, Nanos, str], None] = _no_timer
        self.pending: list[Fact] = []
        self.stated = 0
        """The ledger's `restated` as of the last record."""
        self.epoch = 0
        self.starts = 0
        self.config_hash = ""
        """The configuration under which the process before this one began; empty where there was none."""
        self.timers: dict[tuple[str, Nanos, str], None] = {}
        """(strategy, instant, name) asked for and not yet rung."""
        self.differences: dict[str, Decimal] = {}
        """By instrument, what the venue holds for us beyond what our own record explains."""
        self.elsewhere: dict[str, Decimal] | None = None
        """By instrument, what is held with somebody other than the venue; None before the first comparison."""
        self.gauges: dict[tuple[str, str], float] = {}
        self.memories: dict[str, bytes] = {}
        self.interest_since: Callable[[Nanos], Decimal] = lambda _: ZERO
        self.convert: Converter = lambda currency: Decimal(1) if currency == base_currency else None
        self._ending: list[tuple[PositionKey, Decimal]] = []
        self.pulled: list[tuple[Rung, str]] = []
        """Rungs the gate stands on already and the record does not tell yet."""
        self.gate = Gate(self, gate, given=checks, units=units)

    @property
    def checks(self) -> list[tuple[str, limits.Limit]]:
        """The limits that need no memory, by code."""
        return self.gate.checks

    # ------------------------------------------------------------------ what is held and open

    def held(self, book: str, instrument: str) -> Decimal:
        """Contracts of an instrument in one book, over all its strategies."""
        return sum((q for k, q in self.ledger.book.positions_of(instrument) if k.book == book), ZERO)

    def working(self, book: str, instrument: str) -> Decimal:
        """Signed contracts of open orders for one book."""
        total = ZERO
        for order_id in self.open_ids:
            state = self.orders[order_id]
            if state.order.instrument != instrument:
                continue
            for allocation in state.order.allocations:
                if allocation.book == book:
                    total += allocation.quantity - state.allocated.get(book, ZERO)
        return total

    def equity(self, now: Nanos) -> Decimal | None:
        """Cash with the interest it has earned and holdings at marks, in the base currency; None while a mark or an exchange
        rate is missing."""
        amounts = self.ledger.balances(lambda key: self.valuation.mark(key, now))
        growth = self.interest_since(now)
        amounts = {currency: cash * (1 + growth) for currency, cash in amounts.items()} if growth else amounts
        for key, quantity in self.ledger.quantities().items():
            instrument = self.universe.get(key)
            price = self.valuation.mark(key, now)
            if price is None:
                return None
            if not isinstance(instrument, Future | Perpetual):  # their gains are in the balances
                currency = settlement_currency(instrument)
                amounts[currency] = amounts.get(currency, ZERO) + trade_value(instrument, quantity, price)
        return convert_sum(amounts, self.convert)

    def underlying_of(self, instrument: Instrument) -> str:
        """The underlying whose risk an instrument carries."""
        if isinstance(instrument, OptionContract):
            return instrument.underlying
        if instrument.id in self.valuation.slices:
            return instrument.id
        underlying = getattr(instrument, "underlying", None)
        return underlying if isinstance(underlying, str) else instrument.id

    # ------------------------------------------------------------------ what may not be traded

    def freeze(self, key: str, cause: str, text: str) -> None:
        """Stop orders in an instrument or on an underlying for a cause; causes add up."""
        if self.causes.get(key, {}).get(cause) != text:
            self.set_cause(key, cause, text)
            self.pending.append(Froze(account=self.name, key=key, cause=cause, text=text))

    def thaw(self, key: str, cause: str) -> None:
        """Take one cause away; the freeze ends with the last of them."""
        if cause in self.causes.get(key, {}):
            self.set_cause(key, cause, "")
            self.pending.append(Froze(account=self.name, key=key, cause=cause))

    def set_cause(self, key: str, cause: str, text: str) -> None:
        """Note a cause, or with an empty text take it away, without a record of it."""
        causes = self.causes.setdefault(key, {})
        if text:
            causes[cause] = text
        else:
            causes.pop(cause, None)
        if causes:
            self.frozen[key] = "; ".join(causes.values())
            return
        self.causes.pop(key, None)
        self.frozen.pop(key, None)

    def why_frozen(self, instrument: str) -> str:
        """Why no order in an instrument may leave: the account halted, it or its underlying frozen; else empty."""
        underlying = self.underlying_of(self.universe.get(instrument))
        frozen = self.frozen
        return self.halted or frozen.get(ALL, "") or frozen.get(instrument, "") or frozen.get(underlying, "")

    # ------------------------------------------------------------------ targets to orders

    def fault_of(self, targets: Sequence[Target]) -> str:
        """Why a strategy's targets make no sense, in words; empty when they do."""
        for target in targets:
            if target.tif == "gtd":
                return "target: tif: expected day, gtc, ioc or fok, found gtd: a target carries no expiry instant"
            for line in target.lines:
                if line.instrument not in self.universe:
                    return f"target: instrument: expected one of this run, found {line.instrument!r}"
                if not line.quantity.is_finite():
                    return f"target: {line.instrument}: quantity: expected a finite number, found {line.quantity}"
                if target.via != "trade" and not isinstance(self.universe.get(line.instrument), ConvertibleBond):
                    return f"target: via {target.via!r}: expected a convertible, found {line.instrument}"
            for instrument, limit in target.limits.items():
                if not (limit.is_finite() and limit > 0):
                    return f"target: {instrument}: limit: expected a positive price, found {limit}"
        return ""

    def settle_targets(self, slot: Slot, targets: Sequence[Target], now: Nanos, outlet: Outlet) -> None:
        """Take a strategy's targets, cross books, check limits and release what is left as orders."""
        self.now = now
        touched: dict[str, Target] = {}
        self._last_skip.clear()
        for target in targets:
            if target.via != "trade":
                self._elect(slot, target, now)
                continue
            for line in target.lines:
                key = (target.book, line.instrument)
                if self.gate.scale is not None:
                    line = self._scaled(key, line, self.gate.scale)  # noqa: PLW2901  the line that is traded
                if self.targets.get(key) != line.quantity:
                    self.targets[key] = line.quantity
                    self.noted.askers.setdefault(line.instrument, {})[slot.strategy.name] = None
                    self._record_target(slot, target, line)
                touched[line.instrument] = target
        for instrument, target in sorted(touched.items()):
            self._trade(instrument, target, now, outlet)

    def _scaled(self, key: tuple[str, str], line: TargetLine, scale: Decimal) -> TargetLine:
        """The line at the size this account is let: a fraction of what it asks for beyond what the book opened with."""
        brought = self.opened.get(key, ZERO)
        quantity = brought + round_to_lot(
            (line.quantity - brought) * scale, self.universe.get(line.instrument).lot, toward_zero=True
        )
        unrounded = float(brought) + (line.unrounded - float(brought)) * float(scale)
        return TargetLine(line.instrument, quantity, unrounded)

    def at_full_size(self, quantity: Decimal, brought: Decimal, instrument: str) -> Decimal:
        """What a strategy would hold at full size: it decides as if it were, so that its bands mean what they say."""
        scale = self.gate.scale
        if scale is None:
            return quantity
        return brought + round_to_lot((quantity - brought) / scale, self.universe.get(instrument).lot)

    def _record_target(self, slot: Slot, target: Target, line: TargetLine) -> None:
        self.pending.append(
            TargetSet(
                account=self.name,
                strategy=slot.strategy.name,
                book=target.book,
                lines=(line,),
                reason=target.reason,
                evidence=target.evidence,
            )
        )

    def _trade(
        self, instrument: str, target: Target, now: Nanos, outlet: Outlet, *, approved: Decimal | None = None
    ) -> None:
        """Send what is missing of an instrument, `approved` contracts at most where a person was asked."""
        gaps = {
            book: desk.gap(quantity, self.held(book, instrument), self.working(book, instrument))
            for (book, name), quantity in self.targets.items()
            if name == instrument
        }
        crossings, left = desk.cross(gaps)
        price = self.valuation.mark(instrument, now) if crossings and self._may_cross(instrument) else None
        if price is not None:  # else the opposite gaps stay open until books may cross at a mark
            for crossing in crossings:
                self._transfer(instrument, crossing, price)
        if approved is not None:
            left = desk.clip(left, approved, self.universe.get(instrument).lot)
        net = sum(left.values(), ZERO)
        if not net:
            return
        if self._cancel_opposite(instrument, net, now, outlet):
            return
        order = self._compose(instrument, net, left, target, now)
        refusal = self.gate.check(order)
        if refusal is not None:
            self._refuse(refusal)
        elif self.gate.mode.stage == "live" or approved is not None:
            self._release(order, outlet)
        else:
            self._stage(order, target)

    def _may_cross(self, instrument: str) -> bool:
        """True when two books may pass an instrument between them: nothing but observing, freezes and kills keeps them."""
        gate = self.gate
        return gate.mode.stage != "observe" and gate.kill.rung < Rung.CANCEL_ALL and not self.why_frozen(instrument)

    def approve(self, kept: Waiting, now: Nanos, outlet: Outlet) -> bool:
        """Send what a person approved, as far as it is still wanted; False when it is not wanted any more."""
        sent = self.order_count
        self._trade(kept.instrument, kept.target, now, outlet, approved=kept.quantity)
        return self.order_count > sent

    def may_leave(self, order: Order) -> str:
        """Why an order of ours may not be handed to a venue now, empty when it may: the last look before the wire."""
        state = self.orders.get(order.id)
        return self.gate.may_leave(order, Rung.NONE if state is None else state.passed)

    def withdraw(self, kept: Waiting, code: str, text: str, now: Nanos) -> None:
        """Put on the record that an order that waited will not be sent."""
        self._refuse(
            Refusal(code=code, text=text, account=self.name, instrument=kept.instrument, quantity=kept.quantity, ts=now)
        )

    def flatten(self, now: Nanos, outlet: Outlet) -> None:
        """Close what is held, an order for each instrument that has none open; asks neither a model nor a price."""
        busy = {self.orders[i].order.instrument for i in self.open_ids}
        for instrument, held in sorted(self.ledger.quantities().items()):
            contract = self.universe.get(instrument)
            if instrument in busy or (isinstance(contract, OptionContract) and contract.expiry <= now):
                continue
            if not self.gate.may_flatten(instrument):
                continue
            order = self._closing_order(instrument, held, now)
            refusal = self.gate.check(order, flattens=True)
            if refusal is None:
                self._release(order, outlet)
            else:
                self._refuse(refusal)

    def _closing_order(self, instrument: str, held: Decimal, now: Nanos) -> Order:
        owners: dict[str, Decimal] = {}
        for key, quantity in self.holders(instrument):
            owners[key.book] = owners.get(key.book, ZERO) - quantity
        left = desk.clip({book: q for book, q in owners.items() if (q < 0) == (held > 0)}, -held, None)
        return Order(
            id=self._next_id(),
            account=self.name,
            instrument=instrument,
            quantity=-held,
            ts=now,
            allocations=tuple(Allocation(book, q) for book, q in sorted(left.items()) if q),
            reason="kill: flatten",
            closing=True,
        )

    def _refuse(self, refusal: Refusal) -> None:
        """Count a refusal and put it on the record; the first of its code is told to a person."""
        code = refusal.code
        first = code not in self.refusals
        self.refusals[code] = self.refusals.get(code, 0) + 1
        row = self.gate.row_of(refusal)
        if row is not None:
            self.pending.append(Refused(account=self.name, refusal=row))
        if first:
            text = f"account {self.name}: a limit refused {refusal.quantity} {refusal.instrument}: {refusal.text}"
            self.alarm(Alarm(code="refused", text=text, ts=refusal.ts))

    def _release(self, order: Order, outlet: Outlet) -> None:
        """Record an order that passed the gate and give it to the outlet: the one place where orders leave an account."""
        self.order_count += 1
        self.order_version += 1
        self.orders[order.id] = OrderState(order, self.gate.kill.rung)
        self._note_need(order)
        self.open_ids[order.id] = None
        self.pending.append(Ordered(account=self.name, order=order))
        self.gate.note_sent(order)
        outlet.submit(self, order)

    def _stage(self, order: Order, target: Target) -> None:
        """Keep back what the mode does not let go: for the record only, or until a person approves it."""
        if self.gate.mode.stage == "observe":
            self._refuse(limits.refuse(order, "observe", "mode observe: decided, not sent"))
            return
        kept = self.gate.wait(order, target)
        if kept is None:
            return
        text = f"{order.quantity} {order.instrument} waits until {iso(kept.until)} for 'approve {kept.ticket}': {order.reason}"
        self.alarm(Alarm(code="confirm", text=text, ts=order.ts))

    def _compose(self, instrument: str, net: Decimal, left: dict[str, Decimal], target: Target, now: Nanos) -> Order:
        limit = target.limits.get(instrument) if target.kind == "limit" else None
        return Order(
            id=self._next_id(),
            account=self.name,
            instrument=instrument,
            quantity=net,
            ts=now,
            kind="market" if limit is None else "limit",
            limit=limit,
            tif=target.tif,
            allocations=tuple(Allocation(book, q) for book, q in sorted(left.items()) if q),
            reference=self.marks.reference(self.universe.index(instrument)),
            reason=target.reason,
            closing=target.closing,
        )

    def _next_id(self) -> str:
        """Ours alone, for ever: two processes that each believe to hold the book differ in epoch."""
        epoch = f"-e{self.epoch}" if self.epoch else ""
        return f"{self.name}{epoch}-{self.order_count + 1:06d}"

    def _cancel_opposite(self, instrument: str, net: Decimal, now: Nanos, outlet: Outlet) -> bool:
        """Ask for open orders against the new direction to be dropped; True when any was, and nothing else is sent yet."""
        opposite = [
            state
            for state in (self.orders[i] for i in self.open_ids)
            if state.order.instrument == instrument and (state.left > 0) != (net > 0) and state.left
        ]
        for state in opposite:
            if not state.cancelling:
                if not self.gate.may_cancel(now):
                    text = f"more than {self.gate.limits.cancels_per_second:g} cancels a second: {state.order.id} stays open"
                    self._refuse(limits.refuse(msgspec.structs.replace(state.order, ts=now), "cancel_rate", text))
                    continue
                state.cancelling = True
                outlet.cancel(self, state.order.id, "the target moved the other way")
        return bool(opposite)

    def cancel_failed(self, order_id: str, text: str, now: Nanos) -> None:
        """A cancel did not reach the venue: the order stays open, and the next decision may ask again."""
        self.orders[order_id].cancelling = False
        text = f"cancel of {order_id} raised {text}; the order stays open"
        self.alarm(Alarm(code="cancel_failed", text=text, ts=now))

    def _transfer(self, instrument: str, crossing: desk.Crossing, price: Decimal) -> None:
        seller = PositionKey(self.name, crossing.seller, OWNER, instrument)
        buyer = PositionKey(self.name, crossing.buyer, OWNER, instrument)
        self.ledger.transfer(seller, buyer, crossing.quantity, price)
        self.pending.append(
            Transferred(
                account=self.name,
                instrument=instrument,
                seller=crossing.seller,
                buyer=crossing.buyer,
                quantity=crossing.quantity,
                price=price,
            )
        )

    # ------------------------------------------------------------------ what venues say

    def hear(self, event: VenueEvent, lot_of: Callable[[str], Decimal | None]) -> bool:
        """Apply a venue's word; True when the holding changed."""
        self.order_version += 1
        if isinstance(event, Filled):
            return self._apply_fill(event, lot_of)
        state = self.orders.get(event.order_id)
        if state is None:
            self._say(event, "for an order this account never sent; ignored")
            self.alarm(
                Alarm(code="unknown_order", text=f"venue spoke of {event.order_id}, unknown here", ts=event.ts_recv)
            )
            return False
        if not isinstance(event, Unknown):
            self._end_doubt(state)
        match event:
            case Accepted():
                if state.status is OrderStatus.SUBMITTED or state.status is OrderStatus.UNKNOWN:
                    state.status = move(event.order_id, state.status, OrderStatus.ACCEPTED)
                self._say(event, "")
            case Rejected() if state.status not in OPEN:
                self._say(event, f"{event.code}: {event.text}, said again")
            case Rejected():
                self.finish(state, OrderStatus.REJECTED)
                code = f"venue:{event.code}"
                if code not in self.refusals:
                    text = f"account {self.name}: the venue rejected {event.order_id}: {event.text}"
                    self.alarm(Alarm(code="rejected", text=text, ts=event.ts_recv))
                self.refusals[code] = self.refusals.get(code, 0) + 1
                self._say(event, f"{event.code}: {event.text}")
                self._note_pull(self.gate.note_reject(event.ts_recv))
            case Cancelled():
                self.finish(state, OrderStatus.CANCELLED)
                self._say(event, event.reason)
            case Amended():
                self._say(event, f"quantity {event.quantity}, limit {event.limit}")
            case Unknown():
                self._doubt(state)
                self._say(event, event.text)
        return False

    def _doubt(self, state: OrderState) -> None:
        """Nobody knows what became of an open order: its underlying is frozen until the venue answers."""
        if state.status not in OPEN or state.status is OrderStatus.UNKNOWN:
            return
        order = state.order
        state.status = move(order.id, state.status, OrderStatus.UNKNOWN)
        underlying = self.underlying_of(self.universe.get(order.instrument))
        self.freeze(underlying, order.id, f"order {order.id} is UNKNOWN until the venue answers")

    def _end_doubt(self, state: OrderState) -> None:
        """The venue spoke of an order: what was frozen for its sake may trade again."""
        if state.status is OrderStatus.UNKNOWN:
            self.thaw(self.underlying_of(self.universe.get(state.order.instrument)), state.order.id)

    def _say(self, event: VenueEvent, text: str) -> None:
        order_id = event.fill.order_id if isinstance(event, Filled) else event.order_id
        self.pending.append(
            VenueSaid(account=self.name, order_id=order_id, what=type(event).__name__.lower(), text=text)
        )

    def finish(self, state: OrderState, to: OrderStatus) -> None:
        """End an open order as rejected or cancelled; what was wanted of its instrument is asked for anew."""
        if state.status not in OPEN:
            return
        partly = state.status is OrderStatus.PARTIAL and to is OrderStatus.REJECTED
        state.status = move(state.order.id, state.status, OrderStatus.CANCELLED if partly else to)
        self.open_ids.pop(state.order.id, None)
        for (book, instrument), _ in list(self.targets.items()):
            if instrument == state.order.instrument and state.left:
                self.targets.pop((book, instrument))

    def _apply_fill(self, event: Filled, lot_of: Callable[[str], Decimal | None]) -> bool:
        fill = event.fill
        state = self.orders.get(fill.order_id)
        if state is None:
            self.alarm(Alarm(code="unknown_order", text=f"fill {fill.id} of unknown order {fill.order_id}", ts=fill.ts))
            return False
        if fill.id in state.fill_ids:
            return False
        self._refuse_impossible(state, fill)
        self._end_doubt(state)
        first = not state.fill_ids
        state.fill_ids.add(fill.id)
        state.filled += fill.quantity
        shares = desk.allocate(state.filled, state.order.allocations, lot_of(fill.instrument), state.allocated)
        parts = {book: total - state.allocated.get(book, ZERO) for book, total in shares.items()}
        state.allocated = shares
        keys = {PositionKey(self.name, book, OWNER, fill.instrument): q for book, q in parts.items() if q}
        self.ledger.fill(fill, keys, first_of_order=first)
        self.fill_count += 1
        self.last_fill = max(self.last_fill, fill.ts)
        self._note_delay(state.order, event)
        if first:
            self._throttle(self.gate.note_execution(state.order, fill.ts), event.ts_recv)
        if state.status in OPEN:
            state.status = move(fill.order_id, state.status, OrderStatus.PARTIAL if state.left else OrderStatus.FILLED)
        else:  # it crossed our cancel on the way: what the venue executed is held, whatever we thought
            text = f"fill {fill.id} of order {fill.order_id} came after it was {state.status}"
            self.alarm(Alarm(code="late_fill", text=text, ts=event.ts_recv))
        if not state.left:
            self.open_ids.pop(fill.order_id, None)
        self.pending.append(Executed(account=self.name, fill=fill, allocations={b: q for b, q in parts.items() if q}))
        return True

    def _throttle(self, turned: Sequence[tuple[str, str]], now: Nanos) -> None:
        """Disable books that turn round and round, until a person enables them."""
        for book, why in turned:
            self.gate.note(THROTTLE, f"{book}: {why}")
            text = f"account {self.name}: book {book} is disabled until a person enables it: {why}"
            self.alarm(Alarm(code="throttled", text=text, ts=now, action="freeze"))

    def _note_pull(self, pull: tuple[Rung, str] | None) -> None:
        """Keep a rung that a limit pulls until the loop has an outlet for its cancels; the gate stands on it at once."""
        if pull is not None and self.gate.pull(*pull):
            self.pulled.append(pull)

    def _refuse_impossible(self, state: OrderState, fill: Fill) -> None:
        """Halt on a fill that the order could not have had: another instrument, the other side, more than was left."""
        order = state.order
        if fill.instrument != order.instrument:
            found = f"is in {fill.instrument}, the order in {order.instrument}"
        elif (fill.quantity > 0) != (order.quantity > 0):
            found = f"of {fill.quantity} is on the other side of the order's {order.quantity}"
        elif abs(fill.quantity) > abs(state.left):
            found = f"of {fill.quantity} exceeds what is left of {order.id} ({state.left})"
        else:
            return
        raise HaltedError(f"account {self.name}: fill {fill.id} of order {order.id} {found}")

    def _note_need(self, order: Order) -> None:
        """How much of the displayed size an order asks for."""
        k = self.universe.index(order.instrument)
        shown = self.marks.ask_sizes[k] if order.quantity > 0 else self.marks.bid_sizes[k]
        self.noted.needs.append(abs(float(order.quantity)) / shown if shown > 0.0 else NAN)

    def _note_delay(self, order: Order, event: Filled) -> None:
        """What the market moved against us between decision and fill, in money."""
        fill, reference = event.fill, order.reference
        self.noted.waits.append(fill.ts - order.ts)
        if reference is None or reference.bid is None or reference.ask is None:
            return
        decided = (decimal_of(reference.bid) + decimal_of(reference.ask)) / 2
        moved = price_move_value(self.universe.get(fill.instrument), fill.quantity, decided, fill.mid)
        if moved:
            self.delays.append(moved)

    def balance(self, entry: Balanced, now: Nanos) -> None:
        """Enter what a person says of a difference: a quantity into a book, at a price, without an order of ours."""
        key = PositionKey(self.name, entry.book, OWNER, entry.instrument)
        self.ledger.deliver(key, entry.quantity, entry.price, entry.price)
        self.differences.pop(entry.instrument, None)
        self.thaw(self.underlying_of(self.universe.get(entry.instrument)), f"reconcile {entry.instrument}")
        self.pending.append(entry)
        text = f"{entry.quantity:+f} {entry.instrument} entered into book {entry.book!r} at {entry.price}"
        self.alarm(Alarm(code="balanced", text=text, ts=now, underlying=entry.instrument))

    # ------------------------------------------------------------------ ends and changes of what is held

    def holders(self, instrument: str) -> list[tuple[PositionKey, Decimal]]:
        """Who holds how much of an instrument."""
        return self.ledger.book.positions_of(instrument)

    def end_option(self, event: Lifecycle, mid: Decimal | None, *, of: PositionKey | None = None) -> None:
        """Take an ended option out of the books and book what it paid or delivered, by share of each position.

        `of`: the event is of this one position, where books of the account stand against each other.
        """
        contract = self.universe.get(event.instrument)
        if event.quantity:
            holders = self.holders(event.instrument)
            self._ending = [(k, q / event.quantity) for k, q in holders if of is None or k == of]
        for key, share in self._ending:
            if event.quantity:
                quantity = self.ledger.remove(key)
                if event.deliver is None:
                    self.ledger.receive("options", contract.currency, quantity * contract.multiplier * event.value)
            if event.deliver is not None:
                target = PositionKey(key.account, key.book, key.strategy, event.deliver)
                price = event.deliver_price
                self.ledger.deliver(target, event.deliver_quantity * share, price, mid if mid is not None else price)
        self.pending.append(Ended(account=self.name, event=event))

    def _elect(self, slot: Slot, target: Target, now: Nanos) -> None:
        """Bring holdings of convertibles down by conversion or put, as far as the terms let them; an alarm where not."""
        for line in target.lines:
            bond = self.universe.get(line.instrument)
            assert isinstance(bond, ConvertibleBond) and target.via != "trade"  # `fault_of` and the caller saw to it
            holders = [(k, q) for k, q in self.holders(bond.id) if k.book == target.book and q > 0]
            left = sum((q for _, q in holders), ZERO) - max(line.quantity, ZERO)
            given = bonds.elected(bond, target.via, now)
            why = self.why_frozen(bond.id) or self.gate.why_not_elected() or (given if isinstance(given, str) else "")
            if self.in_loop is None:
                why = "this venue takes no election; instruct the agent by hand"
            if why or isinstance(given, str) or left <= 0:
                why = why or f"nothing of {bond.id} is held"
                self.alarm(Alarm(code="not_elected", text=f"{target.via} of {line.instrument}: {why}", ts=now))
                continue
            self._record_target(slot, target, line)
            for key, quantity in holders:
                part = min(quantity, left)
                left -= part
                if part:
                    self._give(key, part, given.cash, ((bond.underlying, given.shares),) if given.shares else ())
                    self._note_election(key, part, bond, given, now)
            self.targets.pop((target.book, bond.id), None)

    def _note_election(
        self, key: PositionKey, part: Decimal, bond: ConvertibleBond, given: bonds.Exchange, now: Nanos
    ) -> None:
        event = Lifecycle(
            ts_recv=now,
            what="exercise",
            account=self.name,
            instrument=key.instrument,
            quantity=part,
            value=given.cash,
            deliver=bond.underlying if given.shares else None,
            deliver_quantity=part * given.shares,
        )
        self.pending.append(Ended(account=self.name, event=event))

    def exchange(self, event: Corporate) -> bool:
        """Apply a coupon, or an event that ends an instrument, to whoever holds it; False when nobody does."""
        holders = self.holders(event.instrument)
        if not holders:
            return False
        before = self.ledger.quantities()
        into = tuple((c.new, c.ratio) for c in event.conversions if c.old == event.instrument)
        for key, quantity in holders:
            if event.what == "coupon":
                instrument = self.universe.get(event.instrument)
                paid = quantity * instrument.multiplier * event.cash
                self.ledger.receive(category_of(instrument), instrument.currency, paid)
            else:
                self._give(key, quantity, event.cash, into)
        if event.what != "coupon":
            self._forget_ended(event)
        self.pending.append(Adjusted(account=self.name, event=event, before=before, after=self.ledger.quantities()))
        return True

    def _give(self, key: PositionKey, quantity: Decimal, cash: Decimal, into: Sequence[tuple[str, Decimal]]) -> None:
        """Give contracts for `cash` per unit and `into` (instrument, units per unit), a fraction of a lot paid at its mark."""
        old = self.universe.get(key.instrument)
        if not into:
            self.ledger.exchange(key, quantity, key, ZERO, None)
        for number, (name, ratio) in enumerate(into):
            new = self.universe.get(name)
            mid = self.valuation.mark(name, self.now)
            exact = quantity * ratio
            whole = exact if mid is None else round_to_lot(exact, new.lot, toward_zero=True)
            target = PositionKey(key.account, key.book, key.strategy, name)
            self.ledger.exchange(key, ZERO if number else quantity, target, whole, mid)
            if mid is not None and whole != exact:
                rest = trade_value(new, exact - whole, mid)
                self.ledger.receive(category_of(old), settlement_currency(new), rest)
        if cash:
            self.ledger.receive(category_of(old), settlement_currency(old), quantity * old.multiplier * cash)

    def _forget_ended(self, event: Corporate) -> None:
        """What ended is neither wanted nor counted as the owner's any more; what it became is the owner's instead."""
        self.targets = {k: v for k, v in self.targets.items() if k[1] != event.instrument}
        for book, instrument in [k for k in self.opened if k[1] == event.instrument]:
            brought = self.opened.pop((book, instrument))
            for c in event.conversions:
                if c.old == instrument:
                    whole = round_to_lot(brought * c.ratio, self.universe.get(c.new).lot, toward_zero=True)
                    self.opened[book, c.new] = self.opened.get((book, c.new), ZERO) + whole

    def adjust(self, event: Corporate) -> None:
        """Apply a corporate event to the holdings, or freeze the underlying when contracts' adjustment is not known."""
        before = self.ledger.quantities()
        for conversion in event.conversions:
            for key, _ in self.ledger.book.positions_of(conversion.old):
                new = PositionKey(key.account, key.book, key.strategy, conversion.new)
                self.ledger.convert(key, new, conversion.ratio)
        if event.what == "split" and event.instrument not in {c.old for c in event.conversions}:
            for key, _ in self.ledger.book.positions_of(event.instrument):
                self.ledger.convert(key, key, event.ratio)
        self._convert_opened(event)
        if event.cash:
            self._pay_dividend(event)
        if not event.adjusted:
            self.freeze(event.instrument, "corporate", f"{event.what} of {event.instrument}: {event.text}")
        changed = {event.instrument, *(c.old for c in event.conversions)}
        self.targets = {k: v for k, v in self.targets.items() if k[1] not in changed}
        self.pending.append(Adjusted(account=self.name, event=event, before=before, after=self.ledger.quantities()))

    def _convert_opened(self, event: Corporate) -> None:
        """What the owner brought changes as the holding does."""
        changes = {c.old: (c.new, c.ratio) for c in event.conversions}
        if event.what == "split":
            changes.setdefault(event.instrument, (event.instrument, event.ratio))
        self.opened = {
            (book, changes.get(key, (key, Decimal(1)))[0]): quantity * changes.get(key, (key, Decimal(1)))[1]
            for (book, key), quantity in self.opened.items()
        }

    def _pay_dividend(self, event: Corporate) -> None:
        held = self.ledger.book.quantity(event.instrument)
        if held:
            instrument = self.universe.get(event.instrument)
            self.ledger.receive("hedge", instrument.currency, held * instrument.multiplier * event.cash)

    # ------------------------------------------------------------------ words

    def alarm(self, alarm: Alarm) -> None:
        """Put an alarm on the record."""
        self.pending.append(Alarmed(account=self.name, alarm=alarm))

    def skip(self, strategy: str, underlying: str, reason: str) -> None:
        """Count a decision that could not be made; the record holds it when the reason is another than the last."""
        self.skips[reason] = self.skips.get(reason, 0) + 1
        if self._last_skip.get((strategy, underlying)) == reason:
            return
        self._last_skip[strategy, underlying] = reason
        self.pending.append(Skipped(account=self.name, strategy=strategy, underlying=underlying, reason=reason))

    def finance(self, currency: str, amount: Decimal) -> None:
        """Book interest, borrow or funding: `amount` received, negative when paid."""
        self.ledger.finance(currency, amount)
        self.pending.append(Financed(account=self.name, currency=currency, amount=amount))

    def forget(self, keep: int) -> None:
        """Live: let go of what only a report of the whole run would need. Sums stay, the journal has the rest."""
        over = [order_id for order_id in self.orders if order_id not in self.open_ids]
        for order_id in over[:-keep]:
            del self.orders[order_id]
        if len(self.delays) > keep:
            self.delays[:] = [sum(self.delays, ZERO)]
        del self.noted.needs[:-keep]
        del self.noted.waits[:-keep]

    def take_facts(self) -> list[Fact]:
        """The facts since last asked; the law of the books is checked here."""
        if self.ledger.restated != self.stated:
            self._restate()
        if not self.pending:
            return []
        if not self.ledger.book.sums_agree():
            raise HaltedError(f"account {self.name}: the sum of its books differs from the account")
        facts, self.pending = self.pending, []
        return facts

    def _restate(self) -> None:
        """Something that is no fill changed the books: the record says how they stand now."""
        self.stated = self.ledger.restated
        self.pending.append(
            Restated(
                account=self.name,
                ledger=self.ledger.state(),
                targets=[(book, key, quantity) for (book, key), quantity in self.targets.items()],
                opened=[(book, key, quantity) for (book, key), quantity in self.opened.items()],
            )
        )


class View:
    """What a strategy may see of its account: implements `StrategyView`."""

    def __init__(self, account: Account, strategy: Strategy) -> None:
        self._account = account
        self._strategy = strategy
        self.market: MarketView = account.marks
        self.universe = account.universe
        self.now: Nanos = 0
        self._version = -1
        self._book: Book | None = None
        self._book_seen = -1
        self._orders_seen = -1
        self._exposure: dict[str, float] = {}
        self._legs: dict[str, Legs] = {}
        self._linear: dict[str, float] = {}
        self._leg_inputs: dict[str, LegInputs] = {}
        self._traded = frozenset(strategy.trades())
        self._can_be_stale = account.valuation.settings.stale_after is not None

    def net_delta(self, underlying: str) -> tuple[float, float]:
        """Net delta and gamma of the book's options on an underlying, in underlying units; NaN when unknown."""
        legs = self._live_legs(underlying)
        valuation = self._account.valuation
        if self._can_be_stale and valuation.is_stale(underlying, self.now):
            return NAN, NAN
        if not self._linear:
            return legs.net(valuation.spot(underlying), self.now)
        delta, gamma = legs.net(valuation.spot(underlying), self.now)
        return delta + self._linear.get(underlying, 0.0), gamma

    def legs(self, underlying: str) -> LegInputs:
        """The legs behind `net_delta` one by one, for rules that shape deltas or solve the book; anew when it changes."""
        packed = self._live_legs(underlying)
        known = self._leg_inputs.get(underlying)
        if known is None:
            linear = self._linear.get(underlying, 0.0)
            known = self._leg_inputs[underlying] = LegInputs(packed, self._account.valuation, linear)
        return known

    def risk(self, underlying: str) -> UnderlyingRisk:
        """The same with everything a decision record needs."""
        legs = self._live_legs(underlying)
        valuation = self._account.valuation
        vol, vol_ts = valuation.oldest_vol(legs, self.now)
        return UnderlyingRisk(
            underlying=underlying,
            spot=valuation.spot(underlying),
            greeks=valuation.greeks(legs, self.now),
            tau=valuation.main_tau(legs, self.now),
            vol=vol,
            vol_ts=vol_ts,
            vols=legs.fresh().vols,
            fault=valuation.faults(legs, self.now),
        )

    def room(self, underlying: str, gamma: float, slack: float) -> tuple[float, Nanos]:
        """How far the underlying's price may move, and how long, with the net delta moving by less than `slack`."""
        legs = self._live_legs(underlying)
        return self._account.valuation.room(legs, self.now, gamma, slack)

    def renewal(self, underlying: str) -> Renewal | None:
        """What compiled code needs to promise anew what `room` promises; None where it cannot."""
        legs = self._live_legs(underlying)
        return self._account.valuation.renewal(legs, self._linear.get(underlying, 0.0))

    def chain(self, underlying: str) -> Chain:
        """The live contracts on an underlying with quotes, vols and unit Greeks at this instant."""
        return self._account.valuation.chain(underlying, self.now)

    def mark(self, instrument: str) -> Decimal | None:
        """The exact mark of anything at this instant; None while unknown."""
        return self._account.valuation.mark(instrument, self.now)

    def equity(self) -> Decimal | None:
        """What the account is worth in its base currency at marks; None while a mark or an exchange rate is missing."""
        return self._account.equity(self.now)

    def paid(self) -> dict[str, float]:
        """What the account paid so far in its base currency: spread, commission, impact, delay (inside the P&L at mid, not a
        further cost); and the interest it received. A kind whose exchange rate is missing is left out."""
        account = self._account
        costs = account.ledger.costs()
        costs["delay"] = {account.ledger.base: sum(account.delays, ZERO)}
        found = {name: convert_sum(by, account.convert) for name, by in costs.items()}
        return {name: float(value) for name, value in found.items() if value is not None}

    def gauge(self, name: str, value: float) -> None:
        """A number of the strategy's own to be sampled beside prices and Greeks."""
        self._account.gauges[self._strategy.name, name] = float(value)

    def held(self, instrument: str) -> Decimal:
        """Contracts in the strategy's book."""
        held = self._account.held(self._strategy.book, instrument)
        if self._account.gate.scale is None:
            return held
        return self._account.at_full_size(held, self.opened(instrument), instrument)

    def opened(self, instrument: str) -> Decimal:
        """Contracts the book held at the start of the session, before any hedge."""
        return self._account.opened.get((self._strategy.book, instrument), ZERO)

    def working(self, instrument: str) -> Decimal:
        """Signed contracts of the book's open orders."""
        working = self._account.working(self._strategy.book, instrument)
        return working if self._account.gate.scale is None else self._account.at_full_size(working, ZERO, instrument)

    def exposure(self, instrument: str) -> float:
        """Held plus working as a float, kept until either changes."""
        account = self._account
        if self._orders_seen != account.order_version or self._version != account.ledger.version:
            self._catch_up()
        known = self._exposure.get(instrument)
        if known is None:
            known = self._exposure[instrument] = float(self.held(instrument) + self.working(instrument))
        return known

    def frozen(self, underlying: str) -> str:
        """Why an underlying may not be traded, empty when it may."""
        frozen = self._account.frozen
        return self._account.halted or frozen.get(ALL, "") or frozen.get(underlying, "")

    def pause(self, instrument: str) -> Pause | None:
        """The stretch without trading that is on or comes next by the instrument's calendar; None where none is known."""
        sessions = self._account.sessions.get(self.universe.get(instrument).calendar)
        return None if sessions is None else sessions.pause_at(self.now)

    def last_halt(self, instrument: str) -> Pause | None:
        """The last halt of an instrument, or of its underlying, that its venue told of."""
        halts = self._account.noted.halts
        own = halts.get(instrument)
        return own if own is not None else halts.get(self._account.underlying_of(self.universe.get(instrument)))

    def is_open(self, instrument: str) -> bool:
        """True while the instrument's session trades, its closing instant included; unknown calendars are open."""
        sessions = self._account.sessions.get(self.universe.get(instrument).calendar)
        return sessions is None or sessions.is_open(self.now, through_close=True)

    def wake_at(self, ts: Nanos, name: str) -> None:
        """Ask for a timer."""
        for slot in self._account.slots:
            if slot.strategy is self._strategy:
                self._account.timer_request(slot, ts, name)

    def alarm(self, alarm: Alarm) -> None:
        """Put an alarm on the record."""
        self._account.alarm(alarm)

    def skip(self, underlying: str, reason: str) -> None:
        """Put a decision that could not be made on the record."""
        self._account.skip(self._strategy.name, underlying, reason)

    def memory(self, strategy: str, memory: msgspec.Struct) -> None:
        """Journal the strategy's memory."""
        encoded = msgspec.json.encode(memory)
        if self._account.memories.get(strategy) == encoded:
            return
        self._account.memories[strategy] = encoded
        self._account.pending.append(
            Remembered(account=self._account.name, strategy=strategy, memory=msgspec.Raw(encoded))
        )

    def refresh(self) -> None:
        """The strategy follows other instruments now: pack anew."""
        self._traded = frozenset(self._strategy.trades())
        self._repack()

    def _live_legs(self, underlying: str) -> Legs:
        """The holding's legs that have not expired; packed anew when the holding changed or the first of them has."""
        if self._version != self._account.ledger.version:
            self._catch_up()
        legs = self._legs.get(underlying)
        if legs is None:
            return self._pack(underlying)
        if self.now < legs.first_expiry:
            return legs
        self._leg_inputs.pop(underlying, None)
        return self._pack(underlying)

    def _catch_up(self) -> None:
        """The holding or an order changed: count exposures anew, and pack anew what its legs changed of."""
        book = self._account.ledger.book
        if book is not self._book or any(map(self._is_packed, book.changed_since(self._book_seen))):
            self._repack()
            return
        self._exposure.clear()
        self._see()

    def _is_packed(self, instrument: str) -> bool:
        """True for what counts among the legs, or is held beside them: all but the linear instruments traded here."""
        return instrument not in self._traded or isinstance(self.universe.get(instrument), OptionContract)

    def _see(self) -> None:
        ledger = self._account.ledger
        self._book, self._book_seen = ledger.book, ledger.book.version
        self._version = ledger.version
        self._orders_seen = self._account.order_version

    def _repack(self) -> None:
        self._legs.clear()
        self._exposure.clear()
        self._linear.clear()
        self._leg_inputs.clear()
        self._see()

    def _pack(self, underlying: str) -> Legs:
        book, universe, now = self._strategy.book, self.universe, self.now
        held: dict[str, float] = {}
        linear = 0.0
        for key, quantity in self._account.ledger.book:
            instrument = universe.get(key.instrument)
            if (
                key.book == book
                and isinstance(instrument, OptionContract)
                and instrument.underlying == underlying
                and instrument.expiry > now
            ):
                held[key.instrument] = held.get(key.instrument, 0.0) + float(quantity)
            elif (
                key.book == book
                and not isinstance(instrument, OptionContract | ConvertibleBond)
                and key.instrument not in self._traded
                and self._account.underlying_of(instrument) == underlying
            ):
                linear += float(quantity * instrument.multiplier)
        if self._account.gate.scale is not None:
            held = {name: float(self.held(name)) for name in held}
        if linear:
            self._linear[underlying] = linear
        legs = self._legs[underlying] = self._account.valuation.legs(underlying, held)
        return legs


__all__ = ["NAN", "Account", "OrderState", "Outlet", "Slot", "View"]
