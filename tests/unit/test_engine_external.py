"""An external venue is driven from outside the loop: silence is UNKNOWN, words arrive as events, its close is awaited."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

from bot.app.daemon import drive
from bot.app.wiring import Run
from bot.core.events import Accepted, Cancelled, FeedEvent, Filled
from bot.domain.instruments import Universe
from bot.domain.market import Quote
from bot.domain.orders import Fill, Order, OrderStatus
from bot.engine.journal import Executed, Ordered, Refused, VenueSaid
from bot.testing.fakes import FakeBroker, FakeClock, ListFeed
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from tests.simulation.bench import BY_MODEL, MINUTE, START, STOCK, Bench, Script, batch, hedger, minutes, option

D = Decimal
CALL = option(100, days=20)
UNIVERSE = Universe([STOCK, CALL])


class Failing(FakeBroker):
    """A venue whose line breaks at the orders and cancels told."""

    def __init__(self, *, submits: Sequence[str] = (), cancels: Sequence[str] = ()) -> None:
        super().__init__({STOCK.id: D(100)}, universe=UNIVERSE)
        self._bad_submits, self._bad_cancels = set(submits), set(cancels)

    async def submit(self, order: Order) -> None:
        if order.id in self._bad_submits:
            self.submitted.append(order)
            raise OSError("line cut")
        await super().submit(order)

    async def cancel(self, order_id: str) -> None:
        if order_id in self._bad_cancels:
            self._bad_cancels.discard(order_id)
            raise OSError("line cut")
        await super().cancel(order_id)


async def driven(run: Bench, events: Sequence[FeedEvent], **rest: Any) -> Bench:
    """Drive a bench through the daemon over a recorded feed of these events."""
    feed = ListFeed(events)
    shape = SimpleNamespace(
        accounts=run.accounts, feeds=[feed], journal=run.journal, recorded=feed.recorded, loop=run.loop
    )  # fmt: skip
    await drive(cast(Run, shape), clock=FakeClock(jumps=True), **rest)
    return run


def hedged(broker: FakeBroker, **rest: Any) -> Bench:
    """Ten calls hedged each minute through a venue, with a paper shadow beside it."""
    return Bench(
        {"dynamic": [hedger(FixedInterval(interval="1m"))], "shadow": [hedger(FixedInterval(interval="1m"))]},
        instruments=[STOCK, CALL],
        openings=[(CALL.id, 10)],
        valuation=BY_MODEL,
        broker=broker,
        jump_freeze=None,
        **rest,
    )


async def test_orders_go_out_and_fills_come_back() -> None:
    """Every order is submitted once, its fill booked, and the close is filled before the run is concluded."""
    venue = FakeBroker({STOCK.id: D(100)}, universe=UNIVERSE)
    for end in (START + 4 * MINUTE, START + 20 * MINUTE, None):
        venue = FakeBroker({STOCK.id: D(100)}, universe=UNIVERSE)
        run = await driven(hedged(venue, end=end), minutes([100.0, 101.0, 102.0, 103.0, 104.0, 105.0]))
        assert [o.id for o in venue.submitted] == [f.order.id for f in run.facts(Ordered)]
        assert len(run.facts(Executed)) == len(venue.submitted) > 3
        assert run.held() == 0
        assert run.loop.done
        assert "not_closed" not in run.alarms()
        assert run.accounts[1].ledger.book.quantity(STOCK.id) == 0


async def test_a_submit_that_raises_is_unknown_and_freezes_until_the_venue_speaks() -> None:
    """After the line broke nothing more is sent; the venue's late fill lifts the freeze and hedging goes on."""
    venue = Failing(submits=["dynamic-000002"])
    run = hedged(venue, end=START + 9 * MINUTE)
    heard: list[int] = []

    def venue_remembers(now: int, _: int) -> None:
        lost = [o for o in venue.submitted if o.id == "dynamic-000002"]
        if lost and now >= START + 6 * MINUTE and not heard:
            heard.append(now)
            venue.say(Filled(ts_recv=now, account="dynamic", fill=a_fill(lost[0])))

    events = [batch(run.universe, [q]) for q in minutes([100.0 + i for i in range(10)])]
    await driven(run, events, progress=venue_remembers)
    assert [f.what for f in run.facts(VenueSaid)].count("unknown") == 1
    frozen = [s.ts - START for s in run.journal.steps for f in s.facts if isinstance(f, Refused)]
    assert frozen
    assert all(2 * MINUTE <= at <= 6 * MINUTE for at in frozen)
    assert run.account.orders["dynamic-000002"].status is OrderStatus.FILLED
    assert run.account.frozen == {}
    assert run.held() == 0
    assert len(run.facts(Executed)) == len(venue.submitted)
    assert run.accounts[1].refusals == {}


async def test_a_silent_venue_leaves_the_order_open_and_the_run_ends_with_an_alarm() -> None:
    """An order nobody answers is working to the end: nothing is sent twice, and the end names what is left open."""
    venue = FakeBroker({STOCK.id: D(100)}, universe=UNIVERSE, silent=frozenset({"dynamic-000001"}))
    run = await driven(hedged(venue, end=START + 3 * MINUTE), minutes([100.0] * 5))
    assert len(venue.submitted) == 1
    assert run.held() == 0
    assert "not_closed" in run.alarms()
    assert run.loop.done


async def test_rejected_orders_are_counted_and_asked_for_again() -> None:
    """A venue without a price rejects each try; the book stays as it was and the code is counted."""
    venue = FakeBroker({}, universe=UNIVERSE)
    run = await driven(hedged(venue, end=START + 3 * MINUTE), minutes([100.0] * 5))
    assert run.account.refusals == {"venue:unknown_instrument": len(venue.submitted)}
    assert len(venue.submitted) >= 3
    assert run.held() == 0


async def test_a_cancel_that_raises_is_alarmed_and_tried_again() -> None:
    """The target turns against a resting order: the first cancel breaks, the next one is confirmed, then the sale goes."""
    rest: dict[str, Any] = {"kind": "limit", "limits": {STOCK.id: D(90)}, "tif": "gtc"}
    plan: list[tuple[int, str, int | str]] = [(MINUTE, STOCK.id, 5)]
    plan += [(k * MINUTE, STOCK.id, -3) for k in range(3, 8)]
    script = Script(plan, target=rest)
    venue = Failing(cancels=["dynamic-000001"])
    run = await driven(Bench([script], broker=venue, end=START + 9 * MINUTE), minutes([100.0] * 10))
    assert "cancel_failed" in run.alarms()
    assert "dynamic-000001" in venue.cancelled
    words = [(f.order_id, f.what) for f in run.facts(VenueSaid)]
    assert ("dynamic-000001", "cancelled") in words
    assert [o.quantity for o in venue.submitted] == [5, -3]


async def test_words_of_the_venue_that_nobody_asked_for_do_no_harm() -> None:
    """Strange ids, repeated words and repeated fills change nothing but the record."""
    venue = FakeBroker({STOCK.id: D(100)}, universe=UNIVERSE)
    run = hedged(venue, end=START + 5 * MINUTE)

    def babble(now: int, _: int) -> None:
        for order in venue.submitted[:1]:
            venue.say(Accepted(ts_recv=now, account="dynamic", order_id=order.id))
            venue.say(Filled(ts_recv=now, account="dynamic", fill=a_fill(order)))
            venue.say(Cancelled(ts_recv=now, account="dynamic", order_id=order.id))
        venue.say(Accepted(ts_recv=now, account="dynamic", order_id="nobody's"))

    await driven(run, [batch(run.universe, [q]) for q in minutes([100.0, 101.0, 102.0, 103.0])], progress=babble)
    assert run.held() == 0
    assert "unknown_order" in run.alarms()
    assert len(run.facts(Executed)) == len(venue.submitted)


async def test_batching_changes_nothing_an_external_venue_is_asked() -> None:
    """One row a batch or all rows in one, the venue gets the same orders."""
    asked = []
    for rows in (1, 3, 100):
        venue = FakeBroker({STOCK.id: D(100)}, universe=UNIVERSE)
        run = Bench(
            [hedger(DeltaBand(half_width=10.0))], instruments=[STOCK, CALL], openings=[(CALL.id, 10)],
            valuation=BY_MODEL, broker=venue, end=START + 30 * MINUTE,
        )  # fmt: skip
        quotes: list[Quote] = minutes([100.0 + 0.7 * (i % 5) for i in range(30)])
        await driven(run, [batch(run.universe, quotes[i : i + rows]) for i in range(0, len(quotes), rows)])
        asked.append(venue.submitted)
    assert asked[0] == asked[1] == asked[2]
    assert len(asked[0]) > 5


def a_fill(order: Order) -> Fill:
    """The venue's fill of a whole order at 100, under the id it would have given."""
    one = D(100)
    return Fill(
        id=f"{order.id}/1", order_id=order.id, account=order.account, instrument=order.instrument, ts=order.ts,
        quantity=order.quantity, price=one, commission=D(0), currency="USD", mid=one, touch=one, quote_ts=order.ts,
        closing=order.closing,
    )  # fmt: skip
