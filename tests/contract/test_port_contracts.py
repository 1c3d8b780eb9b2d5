"""The shipped adapters and fakes keep the law of their port, and the suites find every broken one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import Accepted, Amend, Amended, Cancelled, FeedEvent, Filled, Rejected, VenueEvent
from bot.core.ports import Band, BandInput, Capabilities, Snapshot
from bot.core.quiet import FOREVER
from bot.domain.costs import PerContract
from bot.domain.instruments import Spot, Universe
from bot.domain.market import Quote, QuoteBatch, Trade, TradeBatch
from bot.domain.orders import Order
from bot.testing.contracts import (
    BrokerContract,
    FeedContract,
    InLoopBrokerContract,
    PolicyContract,
    hold,
    violations,
)
from bot.testing.fakes import FakeBroker, FakeClock, ListFeed, MemoryMarket
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge

STOCK = Spot(id="US:ACME", tick=Decimal("0.01"), lot=Decimal(1))
MS = 1_000_000

OPTIONS = [
    PaperOptions(),
    PaperOptions(latency=5 * MS, jitter=3 * MS, report_latency=2 * MS),
    PaperOptions(beyond="partial", latency=1 * MS, cancel_latency=7 * MS),
    PaperOptions(beyond="impact", commissions={"*": PerContract(rate=Decimal("0.005"), minimum=Decimal(1))}),
]


# --------------------------------------------------------------------------- the real things


class TestPaperAtOnce(InLoopBrokerContract):
    """The paper broker with its defaults."""

    def make_broker(self) -> PaperBroker:
        return PaperBroker(OPTIONS[0])


class TestPaperLate(InLoopBrokerContract):
    """The paper broker with latency, jitter and late reports."""

    def make_broker(self) -> PaperBroker:
        return PaperBroker(OPTIONS[1], seed=7)


class TestPaperPartial(InLoopBrokerContract):
    """The paper broker that fills what is displayed."""

    def make_broker(self) -> PaperBroker:
        return PaperBroker(OPTIONS[2])


class TestPaperImpact(InLoopBrokerContract):
    """The paper broker that walks on and charges."""

    def make_broker(self) -> PaperBroker:
        return PaperBroker(OPTIONS[3])


def stock_order(order_id: str, quantity: Decimal, *, resting: bool = False) -> Order:
    """A market order for the stock, or a limit far from its market."""
    return Order(
        id=order_id,
        account="contract",
        instrument=STOCK.id,
        quantity=quantity,
        ts=1_000,
        kind="limit" if resting else "market",
        tif="gtc" if resting else "day",
        limit=Decimal("50.00") if resting else None,
    )


class TestPaperAsync(BrokerContract):
    """The asynchronous face of the paper broker."""

    clock: FakeClock | None = None

    def make_broker(self) -> PaperBroker:
        broker = PaperBroker(clock=self.clock)
        universe = Universe([STOCK])
        market = MemoryMarket(universe)
        market.quote(STOCK.id, bid=99.98, ask=100.02, ts=1_000)
        broker.attach(universe, market, "contract")
        return broker

    def make_order(self, order_id: str, quantity: Decimal, *, resting: bool = False) -> Order:
        return stock_order(order_id, quantity, resting=resting)


class TestPaperAsyncOnAClock(TestPaperAsync):
    """The asynchronous face with latency, on a clock that jumps."""

    def make_broker(self) -> PaperBroker:
        broker = PaperBroker(PaperOptions(latency=5 * MS, jitter=2 * MS), clock=FakeClock(1_000, jumps=True))
        universe = Universe([STOCK])
        market = MemoryMarket(universe)
        market.quote(STOCK.id, bid=99.98, ask=100.02, ts=1_000)
        broker.attach(universe, market, "contract")
        return broker


class TestFakeBroker(BrokerContract):
    """The fake broker."""

    def make_broker(self) -> FakeBroker:
        return FakeBroker({STOCK.id: Decimal(100)}, universe=Universe([STOCK]))

    def make_order(self, order_id: str, quantity: Decimal, *, resting: bool = False) -> Order:
        return stock_order(order_id, quantity, resting=resting)


def quote(ts: int, bid: float | None = 1.0, ask: float | None = 1.5) -> Quote:
    return Quote(instrument=STOCK.id, ts_event=ts, ts_recv=ts, bid=bid, ask=ask)


def batch(ts: list[int], bid: list[float], ask: list[float], **columns: Any) -> QuoteBatch:
    n = len(ts)
    given: dict[str, Any] = {
        "instrument": np.zeros(n, np.int32),
        "ts_event": np.array(ts, np.int64),
        "ts_recv": np.array(ts, np.int64),
        "bid": np.array(bid),
        "ask": np.array(ask),
        "bid_size": np.ones(n, np.float32),
        "ask_size": np.ones(n, np.float32),
    }
    return QuoteBatch(**{**given, **columns})


def prints(price: list[float]) -> TradeBatch:
    n = len(price)
    times = np.full(n, 9, np.int64)
    return TradeBatch(
        instrument=np.zeros(n, np.int32), ts_event=times, ts_recv=times, price=np.array(price),
        size=np.ones(n, np.float32),
    )  # fmt: skip


GOOD: list[FeedEvent] = [
    quote(1),
    quote(1, bid=None),
    batch([2, 2, 5], [1.0, math.nan, 1.5], [1.5, 1.5, 1.5]),
    Trade(instrument=STOCK.id, ts_event=4, ts_recv=6, price=2.0),
    prints([1.0, 2.0]),
]


class TestListFeed(FeedContract):
    """The list feed."""

    def make_feed(self) -> ListFeed:
        return ListFeed(GOOD)

    def make_universe(self) -> Universe:
        return Universe([STOCK])


class TestNoHedge(PolicyContract):
    """The policy that never hedges."""

    def make_policy(self) -> NoHedge:
        return NoHedge()


class TestStaticHedge(PolicyContract):
    """The policy that hedges once."""

    def make_policy(self) -> StaticHedge:
        return StaticHedge()


class TestFixedInterval(PolicyContract):
    """The policy that hedges by the clock."""

    def make_policy(self) -> FixedInterval:
        return FixedInterval(interval="15m")


class TestDeltaBandToEdge(PolicyContract):
    """The band policy that trades to its edge."""

    def make_policy(self) -> DeltaBand:
        return DeltaBand(half_width=5.0, to="edge")


class TestDeltaBandToCentre(PolicyContract):
    """The band policy that trades to its centre."""

    def make_policy(self) -> DeltaBand:
        return DeltaBand(half_width=5.0, to="centre")


# --------------------------------------------------------------------------- broken feeds


def found_in_feed(make: Callable[[], Any]) -> dict[str, str]:
    class Suite(FeedContract):
        def make_feed(self) -> Any:
            return make()

        def make_universe(self) -> Universe:
            return Universe([STOCK])

    return violations(Suite())


class LyingReport(ListFeed):
    """Counts nothing."""

    def _count(self, event: object) -> None:
        return


STORIES = iter(range(1, 1_000_000))

FEED_MUTANTS: dict[str, tuple[Callable[[], Any], str]] = {
    "time goes back": (lambda: ListFeed([quote(5), quote(4)]), "test_receive_times_never_decrease"),
    "time goes back in a batch": (
        lambda: ListFeed([batch([5, 4], [1.0, 1.0], [2.0, 2.0])]),
        "test_receive_times_never_decrease",
    ),
    "a batch starts before the last quote": (
        lambda: ListFeed([quote(9), batch([5, 9], [1.0, 1.0], [2.0, 2.0])]),
        "test_receive_times_never_decrease",
    ),
    "a foreign event": (
        lambda: ListFeed([Accepted(ts_recv=1, account="a", order_id="o")]),  # type: ignore[list-item]  # the mutation
        "test_it_yields_events_of_the_union_only",
    ),
    "nothing at all": (lambda: ListFeed([]), "test_it_yields_events_of_the_union_only"),
    "crossed columns": (lambda: ListFeed([batch([1], [2.0], [1.0])]), "test_prices_are_valid"),
    "an infinite price": (lambda: ListFeed([batch([1], [1.0], [math.inf])]), "test_prices_are_valid"),
    "a print at zero": (lambda: ListFeed([prints([0.0])]), "test_prices_are_valid"),
    "a column of another type": (
        lambda: ListFeed([batch([1], [1.0], [2.0], instrument=np.zeros(1, np.int64))]),
        "test_columns_are_well_formed",
    ),
    "a short column": (
        lambda: ListFeed([batch([1, 2], [1.0, 1.0], [2.0, 2.0], ask_size=np.ones(1, np.float32))]),
        "test_columns_are_well_formed",
    ),
    "an unknown column number": (
        lambda: ListFeed([batch([1], [1.0], [2.0], instrument=np.ones(1, np.int32))]),
        "test_columns_are_well_formed",
    ),
    "another story each time": (
        lambda: ListFeed([quote(next(STORIES))]),
        "test_a_recorded_feed_tells_the_same_story_twice",
    ),
    "a report of nothing": (lambda: LyingReport(GOOD), "test_its_report_counts_what_it_yielded"),
    "no name": (lambda: ListFeed(GOOD, name=""), "test_it_has_a_name_and_says_whether_it_is_recorded"),
}


@pytest.mark.parametrize("name", FEED_MUTANTS)
def test_the_feed_suite_finds_a_broken_feed(name: str) -> None:
    """Each broken feed fails the test of the law it breaks."""
    make, law = FEED_MUTANTS[name]
    assert law in found_in_feed(make)


def test_the_feed_suite_finds_nothing_in_a_good_feed() -> None:
    """A feed that keeps the law is reported without a violation."""
    assert found_in_feed(lambda: ListFeed(GOOD)) == {}


# --------------------------------------------------------------------------- broken venues


class Wrapped(PaperBroker):
    """A paper broker whose events pass through `bend`."""

    def take_due(self, now: int) -> list[VenueEvent]:
        return [bent for event in super().take_due(now) for bent in self.bend(event)]

    def bend(self, event: VenueEvent) -> list[VenueEvent]:
        return [event]


def bent_fill(event: VenueEvent, **changes: Any) -> list[VenueEvent]:
    if not isinstance(event, Filled):
        return [event]
    return [msgspec.structs.replace(event, fill=msgspec.structs.replace(event.fill, **changes))]


class BetterThanTouch(Wrapped):
    def bend(self, event: VenueEvent) -> list[VenueEvent]:
        if not isinstance(event, Filled):
            return [event]
        return bent_fill(event, price=event.fill.mid)


class Overfills(Wrapped):
    def bend(self, event: VenueEvent) -> list[VenueEvent]:
        return [event, event] if isinstance(event, Filled) else [event]


class SaysNothingFirst(Wrapped):
    def bend(self, event: VenueEvent) -> list[VenueEvent]:
        return [] if isinstance(event, Accepted) else [event]


class AnotherAccount(Wrapped):
    def bend(self, event: VenueEvent) -> list[VenueEvent]:
        return [msgspec.structs.replace(event, account="other")]


class FromTheFuture(Wrapped):
    def bend(self, event: VenueEvent) -> list[VenueEvent]:
        return [msgspec.structs.replace(event, ts_recv=event.ts_recv + 10)]


class CitesTheFuture(Wrapped):
    def bend(self, event: VenueEvent) -> list[VenueEvent]:
        return bent_fill(event, quote_ts=event.ts_recv + 10)


class LosesFills(Wrapped):
    """Takes a fill back when a cancel comes too late."""

    def drop(self, order_id: str, now: int, reason: str) -> None:
        super().drop(order_id, now, reason)
        self._emit(Cancelled(ts_recv=now, account=self._account, order_id=order_id))


class DeafToCancels(Wrapped):
    def drop(self, order_id: str, now: int, reason: str) -> None:
        return


class DeafToAmends(Wrapped):
    def change(self, amend: Amend, now: int) -> None:
        return


class Forgetful(Wrapped):
    """Forgets which ids it has seen."""

    def accept(self, order: Order, now: int) -> None:
        self._last_due.pop(order.id, None)
        super().accept(order, now)


class RejectsRepeats(Wrapped):
    def accept(self, order: Order, now: int) -> None:
        if order.id in self._last_due:
            self._emit(Rejected(ts_recv=now, account=self._account, order_id=order.id, code="repeat", text="seen"))
        super().accept(order, now)


class FillsOneSided(Wrapped):
    """Takes the mid it remembers when a side is withdrawn."""

    def _bad_quote(self, instrument: Any, touch: Any, now: int) -> str:
        return "" if touch.ask is not None else super()._bad_quote(instrument, touch, now)

    def _touch(self, instrument: Any, column: int) -> Any:
        touch = super()._touch(instrument, column)
        return msgspec.structs.replace(touch, bid=touch.bid or touch.ask, ask=touch.ask or touch.bid)


class Impatient(Wrapped):
    """Gives before it is due."""

    def next_due(self) -> int:
        due = super().next_due()
        return due if due == FOREVER else due + 5


class AlwaysDue(Wrapped):
    def next_due(self) -> int:
        return 0


class Jittery(Wrapped):
    """Draws from a generator that all brokers share."""

    draws = iter(range(1, 1_000_000))

    def _jitter(self, key: str) -> int:
        return next(self.draws)


class LooksTwice(Wrapped):
    """Takes a quote it has already taken whenever it is looked at."""

    def on_instant(self, now: int) -> None:
        self._taken.clear()
        for working in self._working.values():
            working.seen = ()
        super().on_instant(now)


class LimitsAreMarket(Wrapped):
    def accept(self, order: Order, now: int) -> None:
        super().accept(msgspec.structs.replace(order, kind="market", limit=None), now)


class SameFillId(Wrapped):
    def bend(self, event: VenueEvent) -> list[VenueEvent]:
        return bent_fill(event, id="fill")


class TakesAnything(Wrapped):
    def bend(self, event: VenueEvent) -> list[VenueEvent]:
        if isinstance(event, Rejected):
            return [Accepted(ts_recv=event.ts_recv, account=event.account, order_id=event.order_id)]
        return [event]


class NotInTheLoop(Wrapped):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.capabilities = Capabilities(name="out")


PARTIAL = PaperOptions(beyond="partial")
VENUE_MUTANTS: dict[type[Wrapped], tuple[str, PaperOptions]] = {
    BetterThanTouch: ("test_no_fill_is_better_than_the_touch", PaperOptions()),
    Overfills: ("test_no_more_fills_than_ordered", PaperOptions()),
    SaysNothingFirst: ("test_an_order_is_answered_before_it_is_filled", PaperOptions()),
    AnotherAccount: ("test_fills_say_whose_they_are", PaperOptions()),
    FromTheFuture: ("test_events_come_when_they_are_due", PaperOptions()),
    CitesTheFuture: ("test_no_fill_is_better_than_the_touch", PaperOptions()),
    LosesFills: ("test_a_cancel_loses_no_fill", PaperOptions()),
    DeafToCancels: ("test_a_cancelled_order_stays_dead", PaperOptions()),
    DeafToAmends: ("test_an_amend_is_answered", PaperOptions()),
    Forgetful: ("test_a_repeated_id_is_never_executed_twice", PaperOptions()),
    RejectsRepeats: ("test_a_repeated_id_is_never_executed_twice", PaperOptions()),
    FillsOneSided: ("test_a_withdrawn_or_crossed_quote_fills_nothing", PaperOptions()),
    Impatient: ("test_events_come_when_they_are_due", PaperOptions(latency=MS)),
    AlwaysDue: ("test_nothing_is_pending_before_an_order", PaperOptions()),
    Jittery: ("test_the_same_inputs_give_the_same_events", PaperOptions(latency=MS)),
    LooksTwice: ("test_looking_again_changes_nothing", PARTIAL),
    LimitsAreMarket: ("test_a_limit_order_rests_until_the_market_comes", PaperOptions()),
    SameFillId: ("test_fills_say_whose_they_are", PARTIAL),
    TakesAnything: ("test_an_unknown_instrument_is_rejected", PaperOptions()),
    NotInTheLoop: ("test_it_says_that_it_lives_in_the_loop", PaperOptions()),
}


def found_in_venue(make: Callable[[], Any]) -> dict[str, str]:
    class Suite(InLoopBrokerContract):
        def make_broker(self) -> Any:
            return make()

    return violations(Suite())


@pytest.mark.parametrize("mutant", VENUE_MUTANTS, ids=lambda kind: kind.__name__)
def test_the_venue_suite_finds_a_broken_venue(mutant: type[Wrapped]) -> None:
    """Each broken simulated venue fails the test of the law it breaks."""
    law, options = VENUE_MUTANTS[mutant]
    assert law in found_in_venue(lambda: mutant(options))


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "late", "partial", "impact"])
def test_the_venue_suite_finds_nothing_in_the_paper_broker(options: PaperOptions) -> None:
    """The paper broker is reported without a violation, through the same wrapper the mutants use."""
    assert found_in_venue(lambda: Wrapped(options)) == {}


# --------------------------------------------------------------------------- broken brokers


class EachTime(FakeBroker):
    """Executes every repeat."""

    async def submit(self, order: Order) -> None:
        self._known.clear()
        await super().submit(order)


class Mute(FakeBroker):
    """Never says that it accepted."""

    def say(self, event: VenueEvent) -> None:
        if not isinstance(event, Accepted):
            super().say(event)


class TwiceTold(FakeBroker):
    """Tells each fill twice under one id."""

    def say(self, event: VenueEvent) -> None:
        super().say(event)
        if isinstance(event, Filled):
            super().say(event)


class Forgets(FakeBroker):
    """A snapshot that knows nothing."""

    async def snapshot(self, since: int) -> Snapshot:
        return Snapshot()


class CancelsTheDone(FakeBroker):
    """Says a filled order is cancelled."""

    async def cancel(self, order_id: str) -> None:
        await super().cancel(order_id)
        self.say(Cancelled(ts_recv=0, account="contract", order_id=order_id))


class CannotCancel(FakeBroker):
    async def cancel(self, order_id: str) -> None:
        return


class WrongSide(FakeBroker):
    def say(self, event: VenueEvent) -> None:
        if isinstance(event, Filled):
            fill = msgspec.structs.replace(event.fill, quantity=-event.fill.quantity)
            event = msgspec.structs.replace(event, fill=fill)
        super().say(event)


class WrongAmend(FakeBroker):
    async def amend(self, amend: Amend) -> None:
        self.say(Amended(ts_recv=0, account="contract", order_id=amend.order_id, quantity=Decimal(3), limit=None))


BROKER_MUTANTS: dict[type[FakeBroker], str] = {
    EachTime: "test_a_repeated_id_is_never_executed_twice",
    Mute: "test_an_order_is_accepted_then_filled",
    TwiceTold: "test_fills_have_ids_of_their_own",
    Forgets: "test_its_snapshot_agrees_with_its_events",
    CancelsTheDone: "test_a_cancel_loses_no_fill",
    CannotCancel: "test_a_resting_order_can_be_cancelled",
    WrongSide: "test_fills_have_ids_of_their_own",
    WrongAmend: "test_amends_are_answered_where_offered",
}


@pytest.mark.parametrize("mutant", BROKER_MUTANTS, ids=lambda kind: kind.__name__)
def test_the_broker_suite_finds_a_broken_broker(mutant: type[FakeBroker]) -> None:
    """Each broken broker fails the test of the law it breaks."""

    class Suite(BrokerContract):
        def make_broker(self) -> FakeBroker:
            return mutant({STOCK.id: Decimal(100)}, universe=Universe([STOCK]))

        def make_order(self, order_id: str, quantity: Decimal, *, resting: bool = False) -> Order:
            return stock_order(order_id, quantity, resting=resting)

    assert BROKER_MUTANTS[mutant] in violations(Suite())


# --------------------------------------------------------------------------- broken policies


class Inverted:
    name = "inverted"

    def band(self, x: BandInput) -> Band:
        return Band(x.want + 1.0, x.want - 1.0)


class Overshoots:
    name = "overshoots"

    def band(self, x: BandInput) -> Band:
        return Band(x.want - 1.0, x.want + 1.0, x.want + 2.0)


class Remembers:
    name = "remembers"

    def __init__(self) -> None:
        self.calls = 0

    def band(self, x: BandInput) -> Band:
        self.calls += 1
        return Band(x.want - self.calls, x.want + self.calls)


class FirstOnly:
    """Answers an array by its first element."""

    name = "first"

    def band(self, x: BandInput) -> Band:
        want = np.asarray(x.want).ravel()[0]
        return Band(want - 1.0, want + 1.0)


class Nameless:
    name = ""

    def band(self, x: BandInput) -> Band:
        return Band(x.want, x.want, x.want)


POLICY_MUTANTS: dict[type, str] = {
    Inverted: "test_the_band_is_one",
    Overshoots: "test_the_band_is_one",
    Remembers: "test_it_is_pure",
    FirstOnly: "test_arrays_answer_as_floats_do",
    Nameless: "test_it_has_a_name",
}


@pytest.mark.parametrize("mutant", POLICY_MUTANTS, ids=lambda kind: kind.__name__)
def test_the_policy_suite_finds_a_broken_policy(mutant: type) -> None:
    """Each broken policy fails the test of the law it breaks."""

    class Suite(PolicyContract):
        def make_policy(self) -> Any:
            return mutant()

    assert POLICY_MUTANTS[mutant] in violations(Suite())


# --------------------------------------------------------------------------- the fakes themselves


def test_hold_raises_the_sentence_of_a_broken_law() -> None:
    """A law that does not hold raises AssertionError with its sentence."""
    with pytest.raises(AssertionError, match="water is dry"):
        hold(False, "water is dry")


async def test_the_asynchronous_face_fills_once_the_clock_comes() -> None:
    """With latency nothing is heard before the clock is there, and the fill carries the instant of arrival."""
    clock = FakeClock(1_000)
    universe = Universe([STOCK])
    market = MemoryMarket(universe)
    market.quote(STOCK.id, bid=99.98, ask=100.02, ts=1_000)
    heard: list[VenueEvent] = []
    async with PaperBroker(PaperOptions(latency=500), clock=clock) as broker:
        broker.attach(universe, market, "contract")

        async def listen(stream: AsyncIterator[VenueEvent]) -> None:
            async for event in stream:
                heard.append(event)  # noqa: PERF401  # a comprehension would only give it at the end

        listener = asyncio.create_task(listen(broker.events()))
        await broker.submit(stock_order("1", Decimal(2)))
        for now, expected in ((1_499, 0), (1_500, 2)):
            clock.advance_to(now)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(heard) == expected
    await listener
    filled = heard[1]
    assert isinstance(filled, Filled)
    assert filled.fill.ts == 1_500
