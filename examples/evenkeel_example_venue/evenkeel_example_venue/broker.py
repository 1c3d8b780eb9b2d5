"""A venue that fills market orders at the quote they were decided on, in two parts, a moment later."""

import asyncio
from decimal import Decimal

from bot.core.events import Accepted, Filled, Rejected
from bot.core.ports import Capabilities, Snapshot
from bot.domain.orders import Fill
from bot.domain.units import decimal_of, parse_span


class ExampleVenue:
    capabilities = Capabilities(name="example venue", limit_orders=False, assumptions=("fills at the decision quote",))

    def __init__(self, options, **_seed):
        self.delay = parse_span(options.get("delay", "50ms"))
        self.fee = decimal_of(float(options.get("fee", 0.0)))
        self.queue, self.seen, self.fills, self.held = asyncio.Queue(), set(), [], {}

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, value, trace):
        self.queue.put_nowait(None)  # events() ends

    async def submit(self, order):
        if order.id in self.seen:  # a repeated id is never executed twice
            return
        self.seen.add(order.id)
        head = {"ts_recv": order.ts + self.delay, "account": order.account}
        if order.kind != "market" or order.reference is None or order.reference.mid is None:
            text = "expected a market order decided on a two-sided quote"
            self.queue.put_nowait(Rejected(**head, order_id=order.id, code="no_quote", text=text))
            return
        self.queue.put_nowait(Accepted(**head, order_id=order.id))
        first = order.quantity // 2
        for n, part in enumerate(part for part in (first, order.quantity - first) if part):
            fill = self._fill(order, part, f"{order.id}/{n}")
            self.fills.append(fill)
            self.held[order.instrument] = self.held.get(order.instrument, Decimal(0)) + part
            self.queue.put_nowait(Filled(**head, fill=fill))

    def _fill(self, order, part, name):
        quote = order.reference
        price, mid = decimal_of(quote.ask if part > 0 else quote.bid), decimal_of(quote.mid)
        paid = {"price": price, "touch": price, "mid": mid, "commission": abs(part) * self.fee, "currency": "USD"}
        about = {"order_id": order.id, "account": order.account, "instrument": order.instrument}
        return Fill(
            id=name, ts=order.ts + self.delay, quantity=part, quote_ts=quote.ts, closing=order.closing, **paid, **about
        )

    async def cancel(self, order_id):
        pass  # nothing rests here: an order is filled or rejected before a cancel can come

    async def events(self):
        while (event := await self.queue.get()) is not None:
            yield event

    async def snapshot(self, since):
        return Snapshot(fills=tuple(fill for fill in self.fills if fill.ts >= since), positions=dict(self.held))
