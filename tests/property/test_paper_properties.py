"""What holds at the paper broker whatever the market does and whatever is asked of it."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import Accepted, Amend, Amended, Cancelled, Filled, Rejected
from bot.core.quiet import FOREVER
from bot.domain.costs import PerContract, SquareRootImpact
from bot.domain.instruments import Spot, Universe
from bot.domain.orders import Order, TimeInForce
from bot.testing.fakes import MemoryMarket

D = Decimal
STOCK = Spot(id="US:ACME", tick=D("0.01"), lot=D(1))
OTHER = Spot(id="US:OTHER", tick=D("0.01"), lot=D(1))
MS = 1_000_000


class Tick(msgspec.Struct, frozen=True):
    """A quote in cents after a pause in milliseconds; a size of None is not said, a side of None is withdrawn."""

    pause: int
    bid: int | None
    ask: int | None
    size: int | None


class Ask(msgspec.Struct, frozen=True):
    """An order, a cancel or an amend of an earlier one."""

    verb: str
    target: int
    quantity: int
    limit: int | None
    tif: TimeInForce


class Quiet(msgspec.Struct, frozen=True):
    """An instant at which nothing is received: a timer of somebody else."""

    pause: int


cents = st.integers(9_992, 10_008)
shown = st.integers(1, 12)
# most quotes are good, so that orders live long enough to fill in parts, rest and be amended
GOOD = st.builds(lambda pause, bid, gap, size: Tick(pause, bid, bid + gap, size), st.integers(1, 20), cents,
                 st.integers(0, 4), shown)  # fmt: skip
ODD = st.builds(Tick, st.integers(1, 40), st.none() | cents, st.none() | cents, st.none() | st.integers(0, 3))
TICKS = st.one_of(GOOD, GOOD, GOOD, ODD)
ORDERS = st.builds(
    Ask,
    st.just("order"),
    st.just(0),
    st.integers(-30, 30).filter(bool),
    st.none() | st.integers(9_990, 10_010),
    st.sampled_from(["day", "gtc", "ioc", "fok"]),
)
CHANGES = st.builds(
    Ask,
    st.sampled_from(["cancel", "amend"]),
    st.integers(0, 5),
    st.integers(-30, 30).filter(bool),
    st.integers(9_985, 10_015),
    st.just("day"),
)
STEPS = st.one_of(TICKS, TICKS, TICKS, ORDERS, ORDERS, CHANGES)
SCRIPTS = st.tuples(GOOD, st.lists(STEPS, min_size=6, max_size=40)).map(lambda parts: [parts[0], *parts[1]])
OPTIONS = st.builds(
    PaperOptions,
    latency=st.sampled_from([0, 0, 2 * MS, 15 * MS]),
    jitter=st.sampled_from([0, 7 * MS]),
    cancel_latency=st.sampled_from([None, 0, 25 * MS]),
    report_latency=st.sampled_from([0, 3 * MS]),
    stale_after=st.sampled_from([None, 5 * MS, 25 * MS]),
    on_bad_quote=st.sampled_from(["wait", "wait", "reject"]),
    beyond=st.sampled_from(["impact", "partial", "partial", "ignore"]),
    impact=st.just(SquareRootImpact(coefficient=D("0.0003"))),
    commissions=st.just({"*": PerContract(rate=D("0.013"), minimum=D("0.5"))}),
)


class Run:
    """A script played as the loop plays it: everything due at its instant, market before arrivals."""

    def __init__(self, options: PaperOptions, *, seed: int = 0) -> None:
        self.broker = PaperBroker(options, seed=seed)
        self.universe = Universe([STOCK, OTHER])
        self.market = MemoryMarket(self.universe)
        self.broker.attach(self.universe, self.market, "acc")
        self.options = options
        self.now = 10**12
        self.events: list[Any] = []
        self.quotes: dict[int, Tick] = {}
        self.orders: dict[str, Order] = {}
        self.instrument = STOCK.id

    def play(self, script: list[Any]) -> Run:
        """The whole script, then a long quiet time."""
        for step in script:
            self.step(step)
        self.pass_until(self.now + 10**11)
        return self

    def step(self, step: Any) -> None:
        if isinstance(step, Ask):
            self.ask(step)
        else:
            self.pass_until(self.now + step.pause * MS, step if isinstance(step, Tick) else None)

    def pass_until(self, ts: int, tick: Tick | None = None) -> None:
        """Run what is due strictly before `ts`, show the quote of `ts`, then run what is due at it."""
        while self.broker.next_due() < ts:
            self.now = self.broker.next_due()
            self.broker.on_instant(self.now)
            self.hear()
        self.now = ts
        if tick is not None:
            self.show(tick)
        self.broker.on_instant(ts)
        self.hear()

    def show(self, tick: Tick) -> None:
        size = math.nan if tick.size is None else float(tick.size)
        self.market.quote(
            self.instrument,
            ts=self.now,
            bid=math.nan if tick.bid is None else tick.bid / 100,
            ask=math.nan if tick.ask is None else tick.ask / 100,
            bid_size=size,
            ask_size=size,
        )
        self.quotes[self.now] = tick

    def ask(self, ask: Ask) -> None:
        known = list(self.orders)
        if ask.verb == "order":
            order = Order(
                id=f"o{len(known)}",
                account="acc",
                instrument=self.instrument,
                quantity=D(ask.quantity),
                ts=self.now,
                kind="market" if ask.limit is None else "limit",
                limit=None if ask.limit is None else D(ask.limit) / 100,
                tif=ask.tif,
            )
            self.orders[order.id] = order
            self.broker.accept(order, self.now)
        elif known:
            target = known[ask.target % len(known)]
            if ask.verb == "cancel":
                self.broker.drop(target, self.now, "asked")
            else:
                limit = None if ask.limit is None else D(ask.limit) / 100
                self.broker.change(Amend(order_id=target, ts=self.now, quantity=D(ask.quantity), limit=limit), self.now)
        self.hear()

    def hear(self) -> None:
        self.events += self.broker.take_due(self.now)


def by_order(run: Run) -> dict[str, list[Any]]:
    """Events of each order, in order."""
    told: dict[str, list[Any]] = defaultdict(list)
    for event in run.events:
        told[event.fill.order_id if isinstance(event, Filled) else event.order_id].append(event)
    return told


@settings(max_examples=150, deadline=None)
@given(OPTIONS, SCRIPTS)
def test_a_fill_keeps_the_law_of_its_quote(options: PaperOptions, script: list[Any]) -> None:
    """A fill is of a quote that was shown, two-sided, uncrossed and fresh; no better than its touch, and cites it."""
    run = Run(options).play(script)
    for event in run.events:
        if not isinstance(event, Filled):
            continue
        fill = event.fill
        shown = run.quotes[fill.quote_ts]
        assert shown.bid is not None
        assert shown.ask is not None
        assert shown.bid <= shown.ask
        assert fill.quote_ts <= fill.ts <= event.ts_recv
        assert options.stale_after is None or fill.ts - fill.quote_ts <= options.stale_after
        side = 1 if fill.quantity > 0 else -1
        assert fill.touch == D(shown.ask if side > 0 else shown.bid) / 100
        assert fill.mid == D(shown.bid + shown.ask) / 200
        assert fill.price * side >= fill.touch * side


@settings(max_examples=150, deadline=None)
@given(OPTIONS, SCRIPTS)
def test_an_order_lives_once(options: PaperOptions, script: list[Any]) -> None:
    """Accepted or rejected first, nothing after its end, fills of its side that never exceed what stands, ids in a row."""
    run = Run(options).play(script)
    for order_id, told in by_order(run).items():
        order = run.orders[order_id]
        assert isinstance(told[0], Accepted | Rejected)
        assert not any(isinstance(event, Accepted | Rejected) for event in told[1:])
        standing, limit, filled, count = order.quantity, order.limit, D(0), 0
        ended = isinstance(told[0], Rejected)
        for event in told[1:]:
            assert not ended
            match event:
                case Amended(quantity=quantity, limit=new_limit):
                    standing, limit = quantity, new_limit
                case Filled(fill=fill):
                    count += 1
                    filled += fill.quantity
                    assert fill.id == f"{order_id}/{count}"
                    assert fill.quantity * order.quantity > 0
                    assert limit is None or (fill.price - limit) * fill.quantity <= 0
                case Cancelled():
                    ended = True
                case other:
                    raise AssertionError(other)
            assert abs(filled) <= abs(standing)


@settings(max_examples=100, deadline=None)
@given(OPTIONS, SCRIPTS)
def test_time_never_goes_back_and_nothing_is_left_due(options: PaperOptions, script: list[Any]) -> None:
    """Events are heard in order of receipt, and in the end only the ends of orders still alive are due."""
    run = Run(options).play(script)
    times = [event.ts_recv for event in run.events]
    assert times == sorted(times)
    alive = {order_id for order_id, told in by_order(run).items() if not _done(told, run.orders[order_id])}
    assert (run.broker.next_due() < FOREVER) <= bool(alive)
    assert run.broker.watching == bool(alive)


def _done(told: list[Any], order: Order) -> bool:
    if isinstance(told[-1], Cancelled | Rejected):
        return True
    standing = [event.quantity for event in told if isinstance(event, Amended)]
    filled = sum((event.fill.quantity for event in told if isinstance(event, Filled)), D(0))
    return filled == (standing[-1] if standing else order.quantity)


@settings(max_examples=150, deadline=None)
@given(OPTIONS, SCRIPTS, st.lists(st.integers(1, 15), max_size=25))
def test_instants_without_news_change_nothing(options: PaperOptions, script: list[Any], pauses: list[int]) -> None:
    """The same ticks and asks with further instants strewn between them give byte-identical events."""
    plain = Run(options).play(script)
    strewn = Run(options)
    extra = iter(pauses)
    for step in script:
        if isinstance(step, Tick):
            start, end = strewn.now, strewn.now + step.pause * MS
            for _ in range(3):
                ts = strewn.now + next(extra, 0) * MS // 3
                if start < ts < end:
                    strewn.pass_until(ts)
                    strewn.broker.on_instant(ts)
                    strewn.hear()
            strewn.pass_until(end, step)
        else:
            strewn.step(step)
    strewn.pass_until(strewn.now + 10**11)
    assert msgspec.json.encode(strewn.events) == msgspec.json.encode(plain.events)


@settings(max_examples=60, deadline=None)
@given(OPTIONS, SCRIPTS, st.integers(0, 3))
def test_the_same_run_twice_is_the_same(options: PaperOptions, script: list[Any], seed: int) -> None:
    """Two runs of one seed tell the same events to the byte."""
    first, second = (Run(options, seed=seed).play(script) for _ in range(2))
    assert msgspec.json.encode(first.events) == msgspec.json.encode(second.events)


@settings(max_examples=60, deadline=None)
@given(OPTIONS, SCRIPTS)
def test_orders_elsewhere_change_nothing_here(options: PaperOptions, script: list[Any]) -> None:
    """Orders in another instrument leave every event of this one as it was."""
    plain = Run(options).play(script)
    crowded = Run(options)
    crowded.market.quote(OTHER.id, ts=crowded.now, bid=5.0, ask=5.1)
    for i, step in enumerate(script):
        order = Order(id=f"x{i}", account="acc", instrument=OTHER.id, quantity=D(i + 1), ts=crowded.now)
        crowded.broker.accept(order, crowded.now)
        crowded.step(step)
    crowded.pass_until(crowded.now + 10**11)
    here = [told for order_id, told in sorted(by_order(crowded).items()) if order_id.startswith("o")]
    assert here == [told for _, told in sorted(by_order(plain).items())]


@settings(max_examples=100, deadline=None)
@given(OPTIONS, SCRIPTS)
def test_the_future_changes_no_past(options: PaperOptions, script: list[Any]) -> None:
    """Events heard up to an instant are the same when everything after it is cut."""
    whole = Run(options).play(script)
    for cut in {1, len(script) // 2}:
        short = Run(options)
        for step in script[:cut]:
            short.step(step)
        heard = [event for event in whole.events if event.ts_recv <= short.now]
        assert short.events == heard[: len(short.events)]
        assert all(event.ts_recv == short.now for event in heard[len(short.events) :])


@settings(max_examples=100, deadline=None)
@given(OPTIONS, SCRIPTS)
def test_cancels_lose_no_fill_and_charges_add_up(options: PaperOptions, script: list[Any]) -> None:
    """What the venue holds is the sum of the fills it told, and each order paid one minimum or its rate."""
    run = Run(options).play(script)
    fills = [event.fill for event in run.events if isinstance(event, Filled)]
    held = sum((fill.quantity for fill in fills), D(0))
    snapshot = asyncio.run(run.broker.snapshot(0))
    assert snapshot.positions.get(STOCK.id, D(0)) == held
    assert list(snapshot.fills) == fills
    paid = sum((fill.quantity * fill.price + fill.commission for fill in fills), D(0))
    assert snapshot.cash.get("USD", D(0)) == -paid
    for told in by_order(run).values():
        own = [event.fill for event in told if isinstance(event, Filled)]
        if own and not any(isinstance(event, Amended) for event in told):
            size = abs(sum((fill.quantity for fill in own), D(0)))
            exact = max(D("0.5"), D("0.013") * size)
            assert abs(sum((fill.commission for fill in own), D(0)) - exact) <= D("0.005")


@settings(max_examples=150, deadline=None)
@given(SCRIPTS)
def test_a_quote_is_taken_once(script: list[Any]) -> None:
    """All orders together take no more of a quote than it displayed."""
    run = Run(PaperOptions(beyond="partial")).play(script)
    taken: dict[tuple[int, bool], Decimal] = defaultdict(Decimal)
    for event in run.events:
        if isinstance(event, Filled):
            taken[event.fill.quote_ts, event.fill.quantity > 0] += abs(event.fill.quantity)
    for (ts, _), quantity in taken.items():
        size = run.quotes[ts].size
        assert size is None or quantity <= size


@settings(max_examples=150, deadline=None)
@given(OPTIONS, SCRIPTS)
def test_fill_or_kill_fills_whole_or_not_at_all(options: PaperOptions, script: list[Any]) -> None:
    """A fok order is filled whole at one instant or gets nothing; an ioc order never fills after its arrival."""
    run = Run(options).play(script)
    for order_id, told in by_order(run).items():
        order = run.orders[order_id]
        fills = [event.fill for event in told if isinstance(event, Filled)]
        if order.tif in ("ioc", "fok"):
            assert len({fill.ts for fill in fills}) <= 1
        if order.tif == "fok":
            assert sum((fill.quantity for fill in fills), D(0)) in (D(0), order.quantity)
