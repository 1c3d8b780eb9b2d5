"""A venue is a broker's other side: it has its own clock, ledger and memory, and outlives whoever trades there.

Law: an order id is executed at most once whatever is repeated; a cancel of an id never seen makes sure it never will be;
commands under an older epoch than the last lease are refused; what it said is said again until it is acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from random import Random

import msgspec

from bot.core.events import Accepted, Cancelled, Filled, Rejected, VenueEvent
from bot.core.ports import Snapshot, VenueOrder
from bot.domain.orders import Fill, Order
from bot.domain.units import NS_PER_SECOND, Nanos

ZERO = Decimal(0)
Prices = Callable[[str], tuple[Decimal, Decimal] | None]


class VenueSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a venue behaves. `partial` is the chance that a fill is a part only, `reject` that an order is refused, `race`
    that an order is executed in part while its cancel is under way, and said to be cancelled before the fill is told."""

    partial: float = 0.0
    reject: float = 0.0
    race: float = 0.0
    commission: Decimal = ZERO
    currency: str = "USD"


class Held(msgspec.Struct, kw_only=True):
    """An order as the venue keeps it."""

    order: Order
    status: str = "accepted"
    filled: Decimal = ZERO
    fills: int = 0
    touched: Nanos = 0
    """When its standing last changed."""

    @property
    def left(self) -> Decimal:
        """Signed quantity not executed."""
        return self.order.quantity - self.filled


class Venue:
    """The venue's core, synchronous: `now` comes in with each call. `said` grows until acknowledged."""

    def __init__(self, prices: Prices, *, rng: Random, settings: VenueSettings | None = None) -> None:
        self.prices = prices
        self.settings = settings if settings is not None else VenueSettings()
        self.epoch = 0
        self.holder = ""
        self.orders: dict[str, Held] = {}
        self.dead: set[str] = set()
        """Ids cancelled before they were seen: refused for ever."""
        self.fills: list[Fill] = []
        self.positions: dict[str, Decimal] = {}
        self.cash = ZERO
        self.said: list[tuple[int, VenueEvent]] = []
        self.refused_epochs = 0
        self.repeated = 0
        self.dead_man_fired = 0
        self.raced = 0
        """Fills that were told after the cancel they crossed."""
        self.news: Callable[[], None] = lambda: None
        """Called whenever something was said."""
        self._countdown: Nanos | None = None
        self._next = 0
        self._rng = rng

    # ------------------------------------------------------------------ commands

    def take_lease(self, holder: str) -> int:
        """A new epoch; everything under an older one is refused from now on."""
        self.epoch += 1
        self.holder = holder
        return self.epoch

    def submit(self, order: Order, epoch: int, now: Nanos) -> None:
        """Take an order once. An id seen before is answered with how it stands, a dead one with its end."""
        if epoch < self.epoch:
            self.refused_epochs += 1
            return
        if order.id in self.dead:
            self._say(Cancelled(ts_recv=now, account=order.account, order_id=order.id, reason="cancelled before"))
            return
        held = self.orders.get(order.id)
        if held is not None:
            self.repeated += 1
            self._say_again(held, now)
            return
        held = self.orders[order.id] = Held(order=order, touched=now)
        if self.prices(order.instrument) is None or self._rng.random() < self.settings.reject:
            held.status = "rejected"
            text = "refused by the venue"
            self._say(Rejected(ts_recv=now, account=order.account, order_id=order.id, code="refused", text=text))
            return
        self._say(Accepted(ts_recv=now, account=order.account, order_id=order.id))

    def cancel(self, order_id: str, account: str, epoch: int, now: Nanos) -> None:
        """Drop what is left of an order; an id never seen is dead from now on."""
        if epoch < self.epoch:
            self.refused_epochs += 1
            return
        held = self.orders.get(order_id)
        if held is None:
            self.dead.add(order_id)
            self._say(Cancelled(ts_recv=now, account=account, order_id=order_id, reason="never seen here"))
        elif held.status == "accepted":
            fill = self._race(held, now)
            if held.status == "accepted":
                self._end(held, "cancelled", now, "asked")
            if fill is not None:
                self._say(Filled(ts_recv=now, account=account, fill=fill))
        else:
            self._say_again(held, now)

    def keep_alive(self, seconds: float, epoch: int, now: Nanos) -> None:
        """Start the countdown anew."""
        if epoch >= self.epoch:
            self._countdown = now + round(seconds * NS_PER_SECOND)

    def acknowledge(self, number: int) -> None:
        """What was said under `number` was taken in for good."""
        self.said = [(n, event) for n, event in self.said if n != number]

    # ------------------------------------------------------------------ its own life

    def work(self, now: Nanos) -> None:
        """Let time pass: orders meet the market, the countdown runs out."""
        if self._countdown is not None and now >= self._countdown:
            self._countdown = None
            self.dead_man_fired += 1
            for held in [h for h in self.orders.values() if h.status == "accepted"]:
                self._end(held, "cancelled", now, "nobody was heard of: dead man")
        for held in [h for h in self.orders.values() if h.status == "accepted"]:
            self._meet(held, now)

    def snapshot(self, since: Nanos) -> Snapshot:
        """Open orders, those that ended and fills made from `since`, positions and cash."""
        return Snapshot(
            orders=tuple(
                VenueOrder(
                    order_id=h.order.id,
                    instrument=h.order.instrument,
                    quantity=h.order.quantity,
                    filled=h.filled,
                    status=h.status,
                )
                for h in self.orders.values()
                if h.status == "accepted" or h.touched >= since
            ),
            fills=tuple(fill for fill in self.fills if fill.ts >= since),
            positions={key: quantity for key, quantity in self.positions.items() if quantity},
            cash={self.settings.currency: self.cash},
        )

    def _meet(self, held: Held, now: Nanos) -> None:
        order = held.order
        market = self.prices(order.instrument)
        if market is None:
            return
        bid, ask = market
        price = ask if held.left > 0 else bid
        if order.limit is not None and (price > order.limit if held.left > 0 else price < order.limit):
            return
        quantity = held.left
        if abs(quantity) > 1 and self._rng.random() < self.settings.partial:
            part = Decimal(self._rng.randint(1, int(abs(quantity))))
            quantity = part if quantity > 0 else -part
        fill = self._fill(held, quantity, price, (bid + ask) / 2, now)
        self._say(Filled(ts_recv=now, account=order.account, fill=fill))

    def _race(self, held: Held, now: Nanos) -> Fill | None:
        """A part of what is left executed at the market just before its cancel is seen to; None when nothing was."""
        market = self.prices(held.order.instrument)
        if not self.settings.race or market is None or self._rng.random() >= self.settings.race:
            return None
        bid, ask = market
        buys = held.left > 0
        price = ask if buys else bid
        limit = held.order.limit
        if limit is not None:
            price = min(price, limit) if buys else max(price, limit)
        part = Decimal(self._rng.randint(1, max(1, int(abs(held.left)))))
        self.raced += 1
        return self._fill(held, part if buys else -part, price, (bid + ask) / 2, now)

    def _fill(self, held: Held, quantity: Decimal, price: Decimal, mid: Decimal, now: Nanos) -> Fill:
        order = held.order
        held.fills += 1
        held.filled += quantity
        held.touched = now
        if not held.left:
            held.status = "filled"
        fill = Fill(
            id=f"{order.id}/{held.fills}",
            order_id=order.id,
            account=order.account,
            instrument=order.instrument,
            ts=now,
            quantity=quantity,
            price=price,
            commission=self.settings.commission,
            currency=self.settings.currency,
            mid=mid,
            touch=price,
            quote_ts=now,
            closing=order.closing,
        )
        self.fills.append(fill)
        self.positions[order.instrument] = self.positions.get(order.instrument, ZERO) + quantity
        self.cash -= quantity * price + self.settings.commission
        return fill

    def _end(self, held: Held, status: str, now: Nanos, reason: str) -> None:
        held.status, held.touched = status, now
        order = held.order
        self._say(Cancelled(ts_recv=now, account=order.account, order_id=order.id, reason=reason))

    def _say_again(self, held: Held, now: Nanos) -> None:
        order = held.order
        if held.status == "rejected":
            text = "refused by the venue"
            self._say(Rejected(ts_recv=now, account=order.account, order_id=order.id, code="refused", text=text))
        elif held.status == "cancelled":
            self._say(Cancelled(ts_recv=now, account=order.account, order_id=order.id, reason="cancelled before"))
        else:
            self._say(Accepted(ts_recv=now, account=order.account, order_id=order.id))

    def _say(self, event: VenueEvent) -> None:
        self._next += 1
        self.said.append((self._next, event))
        self.news()
