"""A fake is a port's simplest honest implementation; law: set by hand, in memory, held to the law of the real thing.

>>> from bot.domain.instruments import Spot, Universe
>>> market = MemoryMarket(Universe([Spot(id="US:X")]))
>>> market.quote("US:X", bid=9.99, ask=10.01, ts=1)
>>> market.mid(0)
10.0
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Self

from bot.core.errors import HaltedError
from bot.core.events import Accepted, Cancelled, FeedEvent, Filled, Rejected, Target, VenueEvent
from bot.core.ports import Capabilities, FeedReport, Snapshot, StrategyView, VenueOrder
from bot.core.quiet import QuietBox
from bot.domain.book import trade_value
from bot.domain.instruments import Universe, settlement_currency
from bot.domain.market import Quote, QuoteBatch, Trade, TradeBatch
from bot.domain.orders import Fill, Order
from bot.domain.units import NEVER, Nanos

NAN = math.nan
ZERO = Decimal(0)


class FakeClock:
    """A clock moved by hand. `jumps` True: whoever waits moves it, so that waiting takes no time."""

    def __init__(self, start: Nanos = 0, *, jumps: bool = False) -> None:
        self._now = start
        self._jumps = jumps
        self._moved = asyncio.Event()

    def now(self) -> Nanos:
        """The present instant."""
        return self._now

    def advance_to(self, ts: Nanos) -> None:
        """Move to an instant; an earlier one is refused."""
        if ts < self._now:
            raise HaltedError(f"clock: expected an instant from {self._now}, found {ts}: a clock never goes back")
        self._now = ts
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait_until(self, ts: Nanos) -> None:
        """Return once `now() >= ts`."""
        if self._jumps and ts > self._now:
            self.advance_to(ts)
        while self._now < ts:
            await self._moved.wait()


class MemoryMarket:
    """A `MarketView` set by hand. NaN, the default of a side, is a withdrawn one; nothing is checked, so that a crossed
    quote can be shown too."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._quotes: dict[int, tuple[float, float, float, float, Nanos]] = {}
        self._prints: dict[int, tuple[float, Nanos]] = {}

    def quote(
        self,
        instrument: str,
        *,
        ts: Nanos,
        bid: float = NAN,
        ask: float = NAN,
        bid_size: float = NAN,
        ask_size: float = NAN,
    ) -> None:
        """Show a quote received at `ts`."""
        self._quotes[self._universe.index(instrument)] = (bid, ask, bid_size, ask_size, ts)

    def trade(self, instrument: str, *, ts: Nanos, price: float) -> None:
        """Show a print received at `ts`."""
        self._prints[self._universe.index(instrument)] = (price, ts)

    def _quote(self, instrument: int) -> tuple[float, float, float, float, Nanos]:
        return self._quotes.get(instrument, (NAN, NAN, NAN, NAN, NEVER))

    def bid(self, instrument: int) -> float:
        """Best bid, NaN while withdrawn or never seen."""
        return self._quote(instrument)[0]

    def ask(self, instrument: int) -> float:
        """Best ask, NaN while withdrawn or never seen."""
        return self._quote(instrument)[1]

    def bid_size(self, instrument: int) -> float:
        """Displayed size at the bid, NaN when not given."""
        return self._quote(instrument)[2]

    def ask_size(self, instrument: int) -> float:
        """Displayed size at the ask, NaN when not given."""
        return self._quote(instrument)[3]

    def quote_ts(self, instrument: int) -> Nanos:
        """When the quote was last received, NEVER before the first."""
        return self._quote(instrument)[4]

    def last(self, instrument: int) -> float:
        """Last print, NaN before the first."""
        return self._prints.get(instrument, (NAN, NEVER))[0]

    def last_ts(self, instrument: int) -> Nanos:
        """When the last print was received, NEVER before the first."""
        return self._prints.get(instrument, (NAN, NEVER))[1]

    def mid(self, instrument: int) -> float:
        """Middle of a two-sided uncrossed quote, else NaN."""
        bid, ask = self.bid(instrument), self.ask(instrument)
        return 0.5 * (bid + ask) if bid <= ask else NAN


class ListFeed:
    """A feed of the events in a list, in the order of the list."""

    def __init__(self, events: Sequence[FeedEvent], *, name: str = "list", recorded: bool = True) -> None:
        self.name = name
        self.recorded = recorded
        self._events = tuple(events)
        self._report = FeedReport()

    async def __aenter__(self) -> Self:
        self._report = FeedReport()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def events(self) -> AsyncIterator[FeedEvent]:
        """The events of the list."""
        for event in self._events:
            self._count(event)
            yield event

    def report(self) -> FeedReport:
        """What was yielded so far."""
        return self._report

    def _count(self, event: FeedEvent) -> None:
        match event:
            case Quote():
                self._report.quotes += 1
            case QuoteBatch():
                self._report.quotes += len(event)
            case Trade():
                self._report.trades += 1
            case TradeBatch():
                self._report.trades += len(event)
            case _:
                return


class FakeBroker:
    """A venue with one price per instrument: market orders fill whole at it and at once, limit orders rest for ever.

    Orders of an instrument without a price are rejected. Orders whose id is in `silent` get no answer, as when a line
    is cut; `say` lets the venue say anything.
    """

    def __init__(
        self,
        prices: Mapping[str, Decimal],
        *,
        universe: Universe | None = None,
        silent: frozenset[str] = frozenset(),
    ) -> None:
        self.capabilities = Capabilities(name="fake", assumptions=("Everything fills at one price.",))
        self.submitted: list[Order] = []
        """Every order as it came, repeated ones too."""
        self.cancelled: list[str] = []
        """Every id a cancel was asked for."""
        self._prices = dict(prices)
        self._universe = universe
        self._silent = silent
        self._resting: dict[str, Order] = {}
        self._known: set[str] = set()
        self._fills: list[Fill] = []
        self._cash: dict[str, Decimal] = {}
        self._events: deque[VenueEvent] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._wake.set()

    def say(self, event: VenueEvent) -> None:
        """Let the venue say this."""
        self._events.append(event)
        self._wake.set()

    async def submit(self, order: Order) -> None:
        """Take an order and return at once."""
        self.submitted.append(order)
        if order.id in self._known:
            return
        self._known.add(order.id)
        if order.id in self._silent:
            return
        price = self._prices.get(order.instrument)
        if price is None:
            text = f"{order.instrument} has no price here"
            self.say(
                Rejected(
                    ts_recv=order.ts, account=order.account, order_id=order.id, code="unknown_instrument", text=text
                )
            )
            return
        self.say(Accepted(ts_recv=order.ts, account=order.account, order_id=order.id))
        if order.kind == "limit":
            self._resting[order.id] = order
            return
        self._fill(order, price)

    async def cancel(self, order_id: str) -> None:
        """Drop a resting order; others are done or unknown."""
        self.cancelled.append(order_id)
        order = self._resting.pop(order_id, None)
        if order is not None:
            self.say(Cancelled(ts_recv=order.ts, account=order.account, order_id=order_id, reason="asked"))

    async def events(self) -> AsyncIterator[VenueEvent]:
        """What became of orders; ends after the broker was left."""
        while True:
            self._wake.clear()
            while self._events:
                yield self._events.popleft()
            if self._closed:
                return
            if not self._wake.is_set():
                await self._wake.wait()

    async def snapshot(self, since: Nanos) -> Snapshot:
        """The venue's word on open orders, fills from `since`, positions and cash."""
        positions: dict[str, Decimal] = {}
        for fill in self._fills:
            positions[fill.instrument] = positions.get(fill.instrument, ZERO) + fill.quantity
        return Snapshot(
            orders=tuple(
                VenueOrder(order_id=o.id, instrument=o.instrument, quantity=o.quantity, filled=ZERO, status="accepted")
                for o in self._resting.values()
            ),
            fills=tuple(fill for fill in self._fills if fill.ts >= since),
            positions={key: quantity for key, quantity in positions.items() if quantity},
            cash=dict(self._cash),
        )

    def _fill(self, order: Order, price: Decimal) -> None:
        known = self._universe is not None and order.instrument in self._universe
        instrument = self._universe.get(order.instrument) if self._universe is not None and known else None
        currency = "USD" if instrument is None else settlement_currency(instrument)
        value = order.quantity * price if instrument is None else trade_value(instrument, order.quantity, price)
        fill = Fill(
            id=f"{order.id}/1",
            order_id=order.id,
            account=order.account,
            instrument=order.instrument,
            ts=order.ts,
            quantity=order.quantity,
            price=price,
            commission=ZERO,
            currency=currency,
            mid=price,
            touch=price,
            quote_ts=order.ts,
            closing=order.closing,
        )
        self._fills.append(fill)
        self._cash[currency] = self._cash.get(currency, ZERO) - value
        self.say(Filled(ts_recv=order.ts, account=order.account, fill=fill))


class RecordingStrategy:
    """A strategy that notes every call and answers with the targets it was given, one list per call of that name."""

    def __init__(
        self,
        *,
        name: str = "recording",
        book: str = "recording",
        watches: Sequence[str] = (),
        answers: Mapping[str, Sequence[Sequence[Target]]] | None = None,
        box: QuietBox | None = None,
    ) -> None:
        self.name = name
        self.book = book
        self.calls: list[tuple[str, Nanos]] = []
        """(`start`, `wake`, `timer:<name>` or `stop`, and the instant), in order."""
        self._watches = tuple(watches)
        self._box = box
        self._answers = {call: deque(lists) for call, lists in (answers or {}).items()}

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The next answer to `start`."""
        return self._answer("start", "start", view)

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """The next answer to `wake`."""
        return self._answer("wake", "wake", view)

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """The next answer to `timer`."""
        return self._answer("timer", f"timer:{name}", view)

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """The next answer to `stop`."""
        return self._answer("stop", "stop", view)

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """The box it was given."""
        return self._box

    def watches(self) -> Sequence[str]:
        """What it was told to watch."""
        return self._watches

    def trades(self) -> Sequence[str]:
        """Nothing of its own accord; its answers may name anything it watches."""
        return self._watches

    def _answer(self, call: str, noted: str, view: StrategyView) -> Sequence[Target]:
        self.calls.append((noted, view.now))
        left = self._answers.get(call)
        return left.popleft() if left else ()
