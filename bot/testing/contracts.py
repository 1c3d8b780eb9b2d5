"""A contract suite is a port's law as tests: subclass it, say how to make your adapter, and let pytest collect it.

    from bot.testing.contracts import FeedContract, InLoopBrokerContract

    class TestMyFeed(FeedContract):
        def make_feed(self):
            return MyFeed("some/file.csv")

    class TestMyVenue(InLoopBrokerContract):
        def make_broker(self):
            return MyVenue(seed=1)

`make_...` is called anew for every test and must give equal adapters each time. Without pytest, `violations(suite)`
runs every test of a suite and returns what was broken. A broken law raises AssertionError with a sentence; the suites
need no test library, and hold under `python -O` too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar, get_args

import numpy as np

from bot.core.events import Accepted, Amend, Amended, Cancelled, FeedEvent, Filled, Rejected, VenueEvent
from bot.core.ports import Amends, Band, BandInput, BindsUniverse, Broker, Feed, HedgePolicy, InLoopBroker
from bot.core.quiet import FOREVER
from bot.domain.instruments import Instrument, Spot, Universe
from bot.domain.market import Quote, QuoteBatch, Trade, TradeBatch
from bot.domain.orders import Fill, Order
from bot.domain.units import NS_PER_DAY, NS_PER_SECOND, Nanos
from bot.testing.fakes import MemoryMarket

_T = TypeVar("_T")

FEED_EVENTS: Final = get_args(FeedEvent)
VENUE_EVENTS: Final = get_args(VenueEvent)


def hold(condition: object, law: str) -> None:
    """Raise AssertionError with the law when it does not hold."""
    if not condition:
        raise AssertionError(law)


def violations(suite: object) -> dict[str, str]:
    """Each test of a suite that found a law broken, and the sentence it said."""
    found: dict[str, str] = {}
    for name in sorted(dir(suite)):
        if not name.startswith("test_"):
            continue
        try:
            getattr(suite, name)()
        except AssertionError as broken:
            found[name] = str(broken)
    return found


# --------------------------------------------------------------------------- feeds


class FeedContract:
    """The law of `Feed`. Give `make_feed`; a feed that yields columns also `make_universe`.

    `at_most` bounds how many events are read, so that an endless feed can be examined; a feed that ends within it is
    examined to its end.
    """

    at_most: int = 100_000

    def make_feed(self) -> Feed:
        """A fresh feed, not yet entered."""
        raise NotImplementedError("FeedContract: say how to make your feed in make_feed()")

    def make_universe(self) -> Universe | None:
        """The instruments whose column numbers the feed's batches carry."""
        return None

    def read(self, at_most: int | None = None) -> tuple[Feed, list[Any], bool]:
        """A fresh feed after reading it, its events, and whether it ended by itself."""
        return asyncio.run(self._read(self.at_most if at_most is None else at_most))

    async def _read(self, at_most: int) -> tuple[Feed, list[Any], bool]:
        feed = self.make_feed()
        universe = self.make_universe()
        if universe is not None and isinstance(feed, BindsUniverse):
            feed.bind(universe)
        seen: list[Any] = []
        ended = True
        async with feed:
            async for event in feed.events():
                seen.append(event)
                if len(seen) >= at_most:
                    ended = False
                    break
        return feed, seen, ended

    def test_it_has_a_name_and_says_whether_it_is_recorded(self) -> None:
        """A feed has a name, says whether it is recorded, and satisfies the Protocol."""
        feed = self.make_feed()
        hold(isinstance(feed, Feed), "expected a Feed: name, recorded, async with, events(), report()")
        hold(isinstance(feed.name, str) and feed.name, f"name: expected a text, found {feed.name!r}")
        hold(isinstance(feed.recorded, bool), f"recorded: expected True or False, found {feed.recorded!r}")

    def test_it_yields_events_of_the_union_only(self) -> None:
        """A feed yields market data, its state, reference and corporate events, and nothing else."""
        _, seen, _ = self.read()
        hold(seen, "expected at least one event")
        for i, event in enumerate(seen):
            hold(isinstance(event, FEED_EVENTS), f"event {i}: expected a feed event, found {type(event).__name__}")

    def test_receive_times_never_decrease(self) -> None:
        """Times of receipt never go back, within a batch and from event to event."""
        latest: Nanos = -(2**63)
        for i, event in enumerate(self.read()[1]):
            first, last, sorted_inside = _receive_times(event)
            hold(sorted_inside, f"event {i}: ts_recv decreases inside the batch")
            hold(first >= latest, f"event {i}: ts_recv {first} after {latest}: expected it never to decrease")
            latest = max(latest, last)

    def test_columns_are_well_formed(self) -> None:
        """A batch has columns of one length and the stated types, and numbers of the bound universe."""
        universe = self.make_universe()
        for i, event in enumerate(self.read()[1]):
            if isinstance(event, QuoteBatch | TradeBatch):
                _check_columns(i, event, None if universe is None else len(universe))

    def test_prices_are_valid(self) -> None:
        """Prices are positive and finite, a blank side is withdrawn, and no quote is crossed."""
        for i, event in enumerate(self.read()[1]):
            match event:
                case Quote(bid=bid, ask=ask):
                    _check_quotes(i, np.array([_column_price(bid)]), np.array([_column_price(ask)]))
                case QuoteBatch():
                    _check_quotes(i, event.bid, event.ask)
                case Trade(price=price):
                    hold(math.isfinite(price) and price > 0, f"event {i}: print at {price}")
                case TradeBatch():
                    hold(bool(np.all(np.isfinite(event.price) & (event.price > 0))), f"event {i}: a print not positive")
                case _:
                    continue

    def test_a_recorded_feed_tells_the_same_story_twice(self) -> None:
        """Two feeds made alike and recorded yield the same events."""
        feed, first, _ = self.read()
        if feed.recorded:
            hold(_rows(first) == _rows(self.read()[1]), "two readings of one recording differ")

    def test_its_report_counts_what_it_yielded(self) -> None:
        """After the end, the report counts at least every quote and print that was yielded."""
        feed, seen, ended = self.read()
        report = feed.report()
        if not ended:
            return
        quotes = sum(_rows_of(event, Quote, QuoteBatch) for event in seen)
        trades = sum(_rows_of(event, Trade, TradeBatch) for event in seen)
        hold(report.quotes >= quotes, f"report: {report.quotes} quotes, yielded {quotes}")
        hold(report.trades >= trades, f"report: {report.trades} prints, yielded {trades}")

    def test_it_can_be_left_early(self) -> None:
        """Leaving after the first event raises nothing."""
        _, seen, _ = self.read(at_most=1)
        hold(len(seen) == 1, "expected at least one event")


def _receive_times(event: Any) -> tuple[Nanos, Nanos, bool]:
    if not isinstance(event, QuoteBatch | TradeBatch):
        return event.ts_recv, event.ts_recv, True
    if not len(event):
        return 2**63 - 1, -(2**63), True
    times = event.ts_recv
    return int(times[0]), int(times[-1]), bool(np.all(times[1:] >= times[:-1]))


def _check_columns(i: int, batch: QuoteBatch | TradeBatch, instruments: int | None) -> None:
    rows = len(batch)
    for name in batch.__slots__:
        column = getattr(batch, name)
        hold(column.shape == (rows,), f"event {i}: column {name}: expected shape ({rows},), found {column.shape}")
    for name, kind in (("instrument", np.int32), ("ts_event", np.int64), ("ts_recv", np.int64)):
        found = getattr(batch, name).dtype
        hold(found == kind, f"event {i}: column {name}: expected {np.dtype(kind)}, found {found}")
    if rows:
        hold(int(batch.instrument.min()) >= 0, f"event {i}: a negative instrument number")
    if rows and instruments is not None:
        highest = int(batch.instrument.max())
        hold(highest < instruments, f"event {i}: instrument number {highest} of a universe of {instruments}")


def _check_quotes(i: int, bid: Any, ask: Any) -> None:
    for side, column in (("bid", bid), ("ask", ask)):
        given = column[~np.isnan(column)]
        hold(bool(np.all(np.isfinite(given) & (given > 0))), f"event {i}: {side}: a price not positive and finite")
    hold(not bool(np.any(bid > ask)), f"event {i}: a crossed quote")


def _column_price(price: float | None) -> float:
    return math.nan if price is None else price


def _rows_of(event: Any, single: type, batch: type) -> int:
    if isinstance(event, batch):
        return len(event.ts_recv)  # type: ignore[attr-defined]  # both batch classes have the column
    return int(isinstance(event, single))


def _rows(events: Sequence[Any]) -> list[Any]:
    """Events as values that can be compared: columns by their bytes."""
    return [
        tuple(getattr(event, name).tobytes() for name in event.__slots__)
        if isinstance(event, QuoteBatch | TradeBatch)
        else event
        for event in events
    ]


# --------------------------------------------------------------------------- simulated venues


class InLoopBrokerContract:
    """The law of `InLoopBroker`. Give `make_broker`: a venue not yet attached, which charges what it likes.

    The suite attaches it to a stock `US:ACME` (tick 0.01, lot 1) quoted 99.98 / 100.02 and drives it in event time. A
    venue may take as long as `patience` to answer.
    """

    account: str = "contract"
    patience: Nanos = NS_PER_DAY
    start: Nanos = 1_000 * NS_PER_SECOND
    stock: Spot = Spot(id="US:ACME", tick=Decimal("0.01"), lot=Decimal(1))

    def make_broker(self) -> InLoopBroker:
        """A fresh venue, not yet attached."""
        raise NotImplementedError("InLoopBrokerContract: say how to make your broker in make_broker()")

    def bench(self) -> Bench:
        """A fresh venue attached to a fresh market."""
        return Bench(self.make_broker(), self.stock, account=self.account, start=self.start, patience=self.patience)

    def test_it_says_that_it_lives_in_the_loop(self) -> None:
        """A simulated venue says so, has a name, and satisfies the Protocol."""
        broker = self.make_broker()
        hold(isinstance(broker, InLoopBroker), "expected an InLoopBroker")
        hold(broker.capabilities.in_loop, "capabilities.in_loop: expected True")
        hold(broker.capabilities.name, "capabilities.name: expected a name")

    def test_nothing_is_pending_before_an_order(self) -> None:
        """Without orders nothing is ever due, whatever the market does."""
        bench = self.bench()
        bench.show(99.0, 101.0)
        hold(bench.broker.next_due() == FOREVER, "next_due(): expected FOREVER without orders")
        hold(bench.broker.take_due(bench.now) == [], "take_due(): expected nothing without orders")

    def test_an_order_is_answered_before_it_is_filled(self) -> None:
        """A market order against a good quote is accepted, then filled whole, in that order."""
        bench = self.bench()
        bench.send(bench.order("1", 10))
        kinds = [type(event) for event in bench.events if _order_of(event) == "1"]
        hold(kinds[:1] == [Accepted], f"expected Accepted first, found {[k.__name__ for k in kinds]}")
        hold(Filled in kinds, "expected the order to be filled within the patience of the suite")
        hold(bench.filled("1") == 10, f"expected 10 filled, found {bench.filled('1')}")

    def test_events_come_when_they_are_due(self) -> None:
        """Before `next_due()` nothing comes; events carry times of receipt that never decrease nor lie ahead."""
        bench = self.bench()
        bench.broker.accept(bench.order("1", 10), bench.now)
        due = bench.broker.next_due()
        hold(due >= bench.now, f"next_due(): {due} lies before the order, {bench.now}")
        hold(due < FOREVER, "next_due(): expected an instant while an order is on its way")
        if due > bench.now:
            hold(bench.broker.take_due(due - 1) == [], "take_due(): an event before it was due")
        latest = bench.now
        for now, event in bench.run_stamped():
            hold(latest <= event.ts_recv <= now, f"an event of {event.ts_recv} heard at {now}, after one of {latest}")
            latest = event.ts_recv

    def test_fills_say_whose_they_are(self) -> None:
        """Events carry the account, fills the order, instrument, side, currency and a commission that is a number."""
        bench = self.bench()
        for order_id in ("1", "2"):
            bench.send(bench.order(order_id, -7))
        fills = bench.fills()
        hold({fill.order_id for fill in fills} == {"1", "2"}, "expected fills of both orders, and of no other")
        hold(all(event.account == self.account for event in bench.events), "an event of another account")
        hold(len({fill.id for fill in fills}) == len(fills), "two fills of one id")
        for fill in fills:
            hold(fill.instrument == self.stock.id, f"fill {fill.id} is of {fill.instrument}")
            hold(fill.quantity < 0, f"fill {fill.id} of a sale has quantity {fill.quantity}")
            hold(fill.currency == "USD" and fill.commission.is_finite(), f"fill {fill.id}: charge not a number")

    def test_no_fill_is_better_than_the_touch(self) -> None:
        """A buy pays at least the ask and a sale gets at most the bid; the fill cites the touch, mid and age."""
        for quantity in (10, -10):
            bench = self.bench()
            bench.send(bench.order("1", quantity))
            side = 1 if quantity > 0 else -1
            touch = Decimal("100.02") if side > 0 else Decimal("99.98")
            hold(bench.fills(), "expected a fill")
            for fill in bench.fills():
                hold(fill.price * side >= touch * side, f"{quantity:+} filled at {fill.price}, better than {touch}")
                hold(fill.touch == touch, f"touch: expected {touch}, found {fill.touch}")
                hold(fill.mid == 100, f"mid: expected 100, found {fill.mid}")
                hold(0 <= fill.quote_ts <= fill.ts, f"quote_ts {fill.quote_ts} is not at or before the fill {fill.ts}")

    def test_a_withdrawn_or_crossed_quote_fills_nothing(self) -> None:
        """While the side it needs is withdrawn, or the quote crossed, an order is not filled."""
        for bid, ask in ((99.98, math.nan), (100.02, 99.98)):
            bench = self.bench()
            bench.show(bid, ask)
            bench.send(bench.order("1", 10), wait=NS_PER_SECOND)
            hold(not bench.fills(), f"filled against bid {bid}, ask {ask}")

    def test_no_more_fills_than_ordered(self) -> None:
        """However often the market moves, the fills of an order never sum to more than it."""
        bench = self.bench()
        bench.show(99.98, 100.02, size=3)
        bench.send(bench.order("1", 10), wait=NS_PER_SECOND)
        for _ in range(6):
            bench.show(99.98, 100.02, size=3)
            bench.run(NS_PER_SECOND)
        hold(bench.filled("1") <= 10, f"ordered 10, filled {bench.filled('1')}")

    def test_a_repeated_id_is_never_executed_twice(self) -> None:
        """An order sent again under its id, even when done, is not executed again, nor is the first reported dead."""
        bench = self.bench()
        order = bench.order("1", 10)
        bench.broker.accept(order, bench.now)
        bench.send(order)
        bench.send(order)
        hold(bench.filled("1") == 10, f"sent three times, ordered 10, filled {bench.filled('1')}")
        hold(not any(isinstance(e, Rejected | Cancelled) for e in bench.events), "a repeat reported the order dead")

    def test_an_unknown_instrument_is_rejected(self) -> None:
        """An order for an instrument that is not of the universe is rejected with a code and a sentence."""
        bench = self.bench()
        bench.send(bench.order("1", 10, instrument="US:NOBODY"))
        answers = [event for event in bench.events if isinstance(event, Rejected)]
        hold(len(answers) == 1 and answers[0].code and answers[0].text, "expected one Rejected with code and text")
        hold(not bench.fills(), "an unknown instrument was filled")

    def test_a_limit_order_rests_until_the_market_comes(self) -> None:
        """A limit away from the market rests, and once the market crosses it fills no worse than its limit."""
        bench = self.bench()
        if not bench.broker.capabilities.limit_orders:
            return
        bench.send(bench.order("1", 10, limit="99.00"), wait=NS_PER_SECOND)
        hold(not bench.fills(), "a limit away from the market was filled")
        bench.show(98.90, 98.95)
        bench.run(NS_PER_SECOND)
        hold(bench.filled("1") == 10, "the market crossed the limit and it was not filled")
        hold(all(fill.price <= Decimal("99.00") for fill in bench.fills()), "filled beyond its limit")

    def test_a_cancelled_order_stays_dead(self) -> None:
        """A resting order that is cancelled says so once and never fills afterwards."""
        bench = self.bench()
        if not bench.broker.capabilities.limit_orders:
            return
        bench.send(bench.order("1", 10, limit="99.00"), wait=NS_PER_SECOND)
        bench.broker.drop("1", bench.now, "asked")
        bench.run()
        hold(sum(isinstance(event, Cancelled) for event in bench.events) == 1, "expected one Cancelled")
        bench.show(98.90, 98.95)
        bench.run()
        hold(not bench.fills(), "filled after it was cancelled")

    def test_a_cancel_loses_no_fill(self) -> None:
        """A cancel that comes too late, or for an id nobody knows, changes nothing and raises nothing."""
        bench = self.bench()
        bench.send(bench.order("1", 10))
        for order_id in ("1", "nobody"):
            bench.broker.drop(order_id, bench.now, "asked")
        bench.run()
        hold(bench.filled("1") == 10, f"a late cancel: ordered 10, filled {bench.filled('1')}")
        hold(not any(isinstance(event, Cancelled) for event in bench.events), "a done or unknown order was cancelled")

    def test_an_amend_is_answered(self) -> None:
        """Where amends are offered, a resting order takes the new quantity and limit, and fills by them."""
        bench = self.bench()
        if not bench.broker.capabilities.amend:
            return
        bench.send(bench.order("1", 10, limit="99.00"), wait=NS_PER_SECOND)
        bench.broker.change(Amend(order_id="1", ts=bench.now, quantity=Decimal(4), limit=Decimal("99.50")), bench.now)
        bench.run(NS_PER_SECOND)
        answers = [event for event in bench.events if isinstance(event, Amended)]
        hold(
            [(a.quantity, a.limit) for a in answers] == [(Decimal(4), Decimal("99.50"))],
            f"expected one Amended, found {answers}",
        )
        bench.show(99.40, 99.45)
        bench.run(NS_PER_SECOND)
        hold(bench.filled("1") == 4, f"amended to 4, filled {bench.filled('1')}")

    def test_the_same_inputs_give_the_same_events(self) -> None:
        """Two venues made alike and driven alike say the same, to the nanosecond and the cent."""
        hold(_story(self.bench()) == _story(self.bench()), "two equal venues told different stories")

    def test_looking_again_changes_nothing(self) -> None:
        """Calling `on_instant` and `take_due` again at an instant without news gives no further event."""
        bench = self.bench()
        bench.show(99.98, 100.02, size=3)
        bench.send(bench.order("1", 10), wait=NS_PER_SECOND)
        before = len(bench.events)
        for _ in range(3):
            bench.broker.on_instant(bench.now)
            bench.collect()
        hold(len(bench.events) == before, "an instant without news gave events")


class Bench:
    """A simulated venue attached to one stock, driven in event time as the loop drives it."""

    def __init__(self, broker: InLoopBroker, stock: Instrument, *, account: str, start: Nanos, patience: Nanos) -> None:
        self.broker = broker
        self.now = start
        self.events: list[Any] = []
        self._stock = stock
        self._account = account
        self._patience = patience
        universe = Universe([stock])
        self.market = MemoryMarket(universe)
        broker.attach(universe, self.market, account)
        self.show(99.98, 100.02)

    def show(self, bid: float, ask: float, *, size: float = math.nan) -> None:
        """Show a quote one microsecond later, as an instant of its own."""
        self.now += 1_000
        self.market.quote(self._stock.id, ts=self.now, bid=bid, ask=ask, bid_size=size, ask_size=size)
        self.broker.on_instant(self.now)
        self.collect()

    def order(self, order_id: str, quantity: int, *, limit: str | None = None, instrument: str = "") -> Order:
        """A day order: market, or limit when one is given."""
        return Order(
            id=order_id,
            account=self._account,
            instrument=instrument or self._stock.id,
            quantity=Decimal(quantity),
            ts=self.now,
            kind="market" if limit is None else "limit",
            limit=None if limit is None else Decimal(limit),
        )

    def send(self, order: Order, *, wait: Nanos | None = None) -> None:
        """Send an order and let time pass until nothing is due within `wait` (the patience of the suite)."""
        self.broker.accept(order, self.now)
        self.run(wait)

    def run(self, wait: Nanos | None = None) -> None:
        """Let what is due within `wait` happen, each at its instant; the quotes are shown again as time passes."""
        for _ in self.run_stamped(wait):
            continue

    def run_stamped(self, wait: Nanos | None = None) -> list[tuple[Nanos, Any]]:
        """The same, giving each event with the instant it was heard at."""
        end = self.now + (self._patience // 2 if wait is None else wait)
        heard: list[tuple[Nanos, Any]] = []
        while self.broker.next_due() <= end:
            due = max(self.now, self.broker.next_due())
            self._refresh(due)
            self.now = due
            fresh = self.collect()
            heard += [(self.now, event) for event in fresh]
            if not fresh and self.broker.next_due() <= due:
                raise AssertionError("take_due(): what was due stays due: the loop would never go on")
        return heard

    def _refresh(self, ts: Nanos) -> None:
        """Show the standing quote again when time has passed, so that a slow venue meets no stale one."""
        if ts - self.now < NS_PER_SECOND:
            return
        m = self.market
        self.market.quote(
            self._stock.id, ts=ts, bid=m.bid(0), ask=m.ask(0), bid_size=m.bid_size(0), ask_size=m.ask_size(0)
        )
        self.broker.on_instant(ts)

    def collect(self) -> list[Any]:
        """Take what is due now."""
        fresh = self.broker.take_due(self.now)
        self.events += fresh
        return list(fresh)

    def fills(self) -> list[Fill]:
        """The fills so far."""
        return [event.fill for event in self.events if isinstance(event, Filled)]

    def filled(self, order_id: str) -> Decimal:
        """The quantity of an order filled so far."""
        return sum((fill.quantity for fill in self.fills() if fill.order_id == order_id), Decimal(0))


def _order_of(event: Any) -> str:
    return event.fill.order_id if isinstance(event, Filled) else event.order_id


def _story(bench: Bench) -> list[Any]:
    bench.send(bench.order("1", 10))
    bench.send(bench.order("2", -5, limit="100.50"), wait=NS_PER_SECOND)
    bench.show(100.60, 100.64, size=2)
    bench.run(NS_PER_SECOND)
    bench.broker.drop("2", bench.now, "asked")
    bench.run()
    return bench.events


# --------------------------------------------------------------------------- venues


class BrokerContract:
    """The law of `Broker`. Give `make_broker` and `make_order`; override `settle` for a venue that needs real time.

    `make_order(id, quantity)` gives an order that executes; with `resting=True` one that rests, or None when the venue
    has no limit orders.
    """

    def make_broker(self) -> Broker:
        """A fresh broker, not yet entered."""
        raise NotImplementedError("BrokerContract: say how to make your broker in make_broker()")

    def make_order(self, order_id: str, quantity: Decimal, *, resting: bool = False) -> Order | None:
        """An order that the venue executes (or rests)."""
        raise NotImplementedError("BrokerContract: say how to make an order in make_order()")

    async def settle(self) -> None:
        """Let the venue catch up: by default the event loop turns fifty times."""
        for _ in range(50):
            await asyncio.sleep(0)

    def play(self, script: Callable[[Broker, Callable[[], Awaitable[None]]], Awaitable[_T]]) -> tuple[_T, list[Any]]:
        """Enter a fresh broker, run a script of (broker, settle), leave; what it returned, and every event heard."""
        return asyncio.run(self._play(script))

    async def _play(
        self, script: Callable[[Broker, Callable[[], Awaitable[None]]], Awaitable[_T]]
    ) -> tuple[_T, list[Any]]:
        broker = self.make_broker()
        heard: list[Any] = []
        keep = heard.append  # as it comes: a comprehension would lose all of it when the listening is cancelled

        async def listen() -> None:
            async for event in broker.events():
                keep(event)

        async with broker:
            listener = asyncio.create_task(listen())
            try:
                result = await script(broker, self.settle)
                await self.settle()
            finally:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)
        return result, heard

    def _order(self, order_id: str, quantity: int) -> Order:
        order = self.make_order(order_id, Decimal(quantity))
        if order is None:
            raise AssertionError("make_order(): expected an order")
        return order

    def test_it_satisfies_the_protocol(self) -> None:
        """A broker names itself and has submit, cancel, events and snapshot."""
        broker = self.make_broker()
        hold(isinstance(broker, Broker), "expected a Broker: async with, submit, cancel, events(), snapshot(since)")
        hold(broker.capabilities.name, "capabilities.name: expected a name")

    def test_an_order_is_accepted_then_filled(self) -> None:
        """What became of an order arrives as events of the union: accepted first, then fills that sum to it."""
        order = self._order("contract-1", 3)

        async def script(broker: Broker, _settle: Callable[[], Awaitable[None]]) -> None:
            await broker.submit(order)

        _, heard = self.play(script)
        hold(all(isinstance(event, VENUE_EVENTS) for event in heard), "an event that is not a venue event")
        kinds = [type(event).__name__ for event in heard if _order_of(event) == order.id]
        hold(kinds[:1] == ["Accepted"], f"expected Accepted first, found {kinds}")
        hold(
            _filled(heard, order.id) == order.quantity, f"expected {order.quantity}, filled {_filled(heard, order.id)}"
        )
        hold(all(event.account == order.account for event in heard), "an event of another account")

    def test_fills_have_ids_of_their_own(self) -> None:
        """Fills of several orders have different ids, the side of their order, and finite prices and charges."""
        orders = [self._order(f"contract-{i}", quantity) for i, quantity in enumerate((3, -2, 4))]

        async def script(broker: Broker, _settle: Callable[[], Awaitable[None]]) -> None:
            for order in orders:
                await broker.submit(order)

        _, heard = self.play(script)
        fills = [event.fill for event in heard if isinstance(event, Filled)]
        hold(len({fill.id for fill in fills}) == len(fills), "two fills of one id")
        by_id = {order.id: order for order in orders}
        for fill in fills:
            hold(fill.order_id in by_id, f"fill {fill.id} of an order nobody sent")
            hold(fill.quantity * by_id[fill.order_id].quantity > 0, f"fill {fill.id} is on the other side of its order")
            hold(fill.price.is_finite() and fill.commission.is_finite(), f"fill {fill.id}: not a number")
        for order in orders:
            hold(_filled(heard, order.id) == order.quantity, f"{order.id}: filled {_filled(heard, order.id)}")

    def test_a_repeated_id_is_never_executed_twice(self) -> None:
        """An order submitted twice is executed once and not reported dead."""
        order = self._order("contract-1", 3)

        async def script(broker: Broker, settle: Callable[[], Awaitable[None]]) -> None:
            await broker.submit(order)
            await broker.submit(order)
            await settle()
            await broker.submit(order)

        _, heard = self.play(script)
        hold(_filled(heard, order.id) == order.quantity, f"sent three times, filled {_filled(heard, order.id)}")
        hold(not any(isinstance(e, Rejected | Cancelled) for e in heard), "a repeat reported the order dead")

    def test_a_resting_order_can_be_cancelled(self) -> None:
        """A resting order that is cancelled says so once and is not filled."""
        order = self.make_order("contract-1", Decimal(3), resting=True)
        if order is None:
            return

        async def script(broker: Broker, settle: Callable[[], Awaitable[None]]) -> None:
            await broker.submit(order)
            await settle()
            await broker.cancel(order.id)

        _, heard = self.play(script)
        hold(sum(isinstance(event, Cancelled) for event in heard) == 1, "expected one Cancelled")
        hold(_filled(heard, order.id) == 0, "a resting order was filled")

    def test_a_cancel_loses_no_fill(self) -> None:
        """A cancel after the fill, or of an id nobody knows, raises nothing and takes nothing back."""
        order = self._order("contract-1", 3)

        async def script(broker: Broker, settle: Callable[[], Awaitable[None]]) -> None:
            await broker.submit(order)
            await settle()
            await broker.cancel(order.id)
            await broker.cancel("contract-nobody")

        _, heard = self.play(script)
        hold(_filled(heard, order.id) == order.quantity, f"filled {_filled(heard, order.id)} after a late cancel")
        hold(not any(isinstance(event, Cancelled) for event in heard), "a filled order was cancelled")

    def test_its_snapshot_agrees_with_its_events(self) -> None:
        """The snapshot's fills and positions are those of the events, and it lists what still rests."""
        orders = [self._order("contract-1", 3), self._order("contract-2", -1)]
        resting = self.make_order("contract-3", Decimal(1), resting=True)

        async def script(broker: Broker, settle: Callable[[], Awaitable[None]]) -> Any:
            before = await broker.snapshot(0)
            for order in (*orders, *((resting,) if resting is not None else ())):
                await broker.submit(order)
            await settle()
            return before, await broker.snapshot(0)

        (before, after), heard = self.play(script)
        told = {event.fill.id for event in heard if isinstance(event, Filled)}
        listed = {fill.id for fill in after.fills} - {fill.id for fill in before.fills}
        hold(listed == told, f"snapshot lists fills {sorted(listed)}, events told {sorted(told)}")
        for instrument in {order.instrument for order in orders}:
            moved = after.positions.get(instrument, Decimal(0)) - before.positions.get(instrument, Decimal(0))
            filled = sum(
                (e.fill.quantity for e in heard if isinstance(e, Filled) and e.fill.instrument == instrument),
                Decimal(0),
            )
            hold(moved == filled, f"{instrument}: position moved by {moved}, fills sum to {filled}")
        rests = {order.order_id for order in after.orders}
        hold(resting is None or resting.id in rests, f"the resting order is not listed: {sorted(rests)}")

    def test_amends_are_answered_where_offered(self) -> None:
        """Where amends are offered, a resting order takes the new quantity."""
        resting = self.make_order("contract-1", Decimal(3), resting=True)
        if resting is None or not isinstance(self.make_broker(), Amends):
            return

        async def script(broker: Broker, settle: Callable[[], Awaitable[None]]) -> None:
            await broker.submit(resting)
            await settle()
            if isinstance(broker, Amends):
                await broker.amend(Amend(order_id=resting.id, ts=resting.ts, quantity=Decimal(2), limit=resting.limit))

        _, heard = self.play(script)
        hold([e.quantity for e in heard if isinstance(e, Amended)] == [Decimal(2)], "expected one Amended to 2")


def _filled(heard: Sequence[Any], order_id: str) -> Decimal:
    fills = (event.fill for event in heard if isinstance(event, Filled))
    return sum((fill.quantity for fill in fills if fill.order_id == order_id), Decimal(0))


# --------------------------------------------------------------------------- policies


class PolicyContract:
    """The law of `HedgePolicy`. Give `make_policy`; override `inputs` to examine it where it works."""

    def make_policy(self) -> HedgePolicy:
        """The policy."""
        raise NotImplementedError("PolicyContract: say how to make your policy in make_policy()")

    def inputs(self) -> list[BandInput]:
        """States to examine: floats, over both signs of want, held and gamma, near and far expiry."""
        start = 1_600_000_000 * NS_PER_SECOND
        return [
            BandInput(
                now=float(start + minutes * 60 * NS_PER_SECOND),
                spot=spot,
                want=want,
                held=held,
                gamma=gamma,
                tau=tau,
                vol=vol,
                rate=0.02,
                per_contract=per_contract,
                cost=0.05,
                last_hedge_ts=float(start),
                last_hedge_spot=spot * 0.99,
            )
            for minutes in (0, 7, 1_500)
            for spot, tau, vol in ((100.0, 0.25, 0.2), (3250.0, 0.003, 0.6))
            for want, held in ((40.0, 0.0), (-12.5, -12.0), (0.0, 30.0))
            for gamma in (5.0, -5.0, 0.0)
            for per_contract in (1.0, 50.0)
        ]

    def test_it_has_a_name(self) -> None:
        """A policy satisfies the Protocol and has a name."""
        policy = self.make_policy()
        hold(isinstance(policy, HedgePolicy), "expected a HedgePolicy: name, band(x)")
        hold(isinstance(policy.name, str) and policy.name, f"name: expected a text, found {policy.name!r}")

    def test_the_band_is_one(self) -> None:
        """lo <= hi, neither is NaN, and where it trades to lies within."""
        policy = self.make_policy()
        for x in self.inputs():
            lo, hi, to = (None if v is None else float(v) for v in policy.band(x))
            if lo is None or hi is None:
                raise AssertionError(f"band: expected lo and hi, found {lo}, {hi}")
            hold(lo <= hi, f"band: expected lo <= hi, found {lo}, {hi} for {x}")
            hold(to is None or lo <= to <= hi, f"band: trades to {to} outside [{lo}, {hi}] for {x}")

    def test_it_is_pure(self) -> None:
        """The same input gives the same band, whatever was asked before."""
        policy = self.make_policy()
        first = [_plain(policy.band(x)) for x in self.inputs()]
        again = [_plain(policy.band(x)) for x in reversed(self.inputs())]
        hold(first == again[::-1], "asked again in another order, the policy answered differently")

    def test_arrays_answer_as_floats_do(self) -> None:
        """Arrays of one shape give, element by element, what floats give; the input is left as it was."""
        policy = self.make_policy()
        rows = self.inputs()
        x = BandInput(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))
        for column in x:
            column.setflags(write=False)
        answer = policy.band(x)
        each = [policy.band(row) for row in rows]
        for name in ("lo", "hi", "to"):
            wide = getattr(answer, name)
            single = [getattr(band, name) for band in each]
            if wide is None:
                hold(all(value is None for value in single), f"{name}: None for arrays, a number for floats")
                continue
            hold(all(value is not None for value in single), f"{name}: a number for arrays, None for floats")
            hold(np.ndim(wide) == 0 or np.shape(wide) == (len(rows),), f"{name}: shape {np.shape(wide)}")
            spread = np.broadcast_to(np.asarray(wide, dtype=np.float64), (len(rows),))
            same = np.isclose(spread, np.array(single, dtype=np.float64), rtol=1e-12, atol=0.0)
            hold(bool(np.all(same)), f"{name}: arrays and floats differ at row {int(np.argmin(same))}")


def _plain(band: Band) -> tuple[float | None, ...]:
    return tuple(None if value is None else float(value) for value in band)
