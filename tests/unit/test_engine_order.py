"""One order of events: control, market data, arrivals, timers; one waking an instant; pace and batching change nothing."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from adapters.paper import PaperOptions
from bot.core.errors import DataError, EvenkeelError
from bot.core.events import Control, Reference
from bot.core.quiet import FOREVER, QuietBox
from bot.domain.market import Quote, Trade
from bot.engine.journal import Controlled, Executed, Ordered, Refused, TargetSet
from bot.engine.merge import merge
from bot.testing.fakes import ListFeed
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from tests.simulation.bench import (
    BY_MODEL,
    IMPLIED,
    MINUTE,
    SECOND,
    START,
    STOCK,
    Bench,
    Script,
    batch,
    hedger,
    minutes,
    option,
    quote,
    trade_batch,
)

D = Decimal


def test_quotes_of_an_instant_come_before_its_timer() -> None:
    """A timer at T sees the quote received at T, and its order trades on it."""
    script = Script([(MINUTE, STOCK.id, 5)])
    run = Bench([script]).play(minutes([100.0, 101.0, 102.0]))
    assert ("timer", MINUTE, 101.0) in script.calls
    (fill,) = [f.fill for f in run.facts(Executed)]
    assert (fill.ts - START, fill.price, fill.quote_ts - START) == (MINUTE, D("101.01"), MINUTE)


def test_a_halt_of_an_instant_comes_before_its_quotes_and_timers() -> None:
    """A halt received at T stops the order that the timer of T would send."""
    script = Script([(MINUTE, STOCK.id, 5)])
    first, *later = minutes([100.0, 101.0, 102.0])
    run = Bench([script]).play([first], finish=False)
    run.loop.take(Control(ts_recv=START + MINUTE, verb="halt", operator="ann"), "control")
    run.play(later)
    assert run.facts(Executed) == []
    assert [f.refusal.text for f in run.facts(Refused)] == ["halted by ann"]


def test_all_quotes_of_an_instant_are_folded_before_one_waking() -> None:
    """Three quotes of one instant wake the strategy once, which sees the last."""
    script = Script(ticks=True)
    Bench([script]).play(
        [quote(STOCK.id, 0, 99.0, 99.2), *(quote(STOCK.id, SECOND, p, p + 0.2) for p in (100.0, 101.0, 102.0))]
    )
    assert [mid for what, at, mid in script.calls if (what, at) == ("wake", SECOND)] == pytest.approx([102.1])


def test_a_zero_latency_order_fills_in_its_own_instant() -> None:
    """The fill of an order sent at T is of T and cites the quote of T, before any later quote."""
    script = Script([(MINUTE, STOCK.id, 1)])
    run = Bench([script]).play(minutes([100.0, 101.0, 150.0]))
    assert run.when(Ordered) == run.when(Executed) == [MINUTE]
    assert run.facts(Executed)[0].fill.mid == D("101")


@pytest.mark.parametrize("rows", [1, 3, 500])
def test_latency_is_event_time_across_batches(rows: int) -> None:
    """An order with latency fills at its arrival instant on the quote of then, however the quotes were batched."""
    script = Script([(SECOND, STOCK.id, 1)])
    run = Bench([script], paper=PaperOptions(latency=2 * SECOND + 1))
    quotes = minutes([100.0, 101.0, 102.0, 103.0, 104.0], step=SECOND)
    for i in range(0, len(quotes), rows):
        run.loop.take(batch(run.universe, quotes[i : i + rows]), "a")
    run.loop.finish()
    (fill,) = [f.fill for f in run.facts(Executed)]
    assert (fill.ts - START, fill.mid) == (3 * SECOND + 1, D("103"))


def test_an_arrival_at_an_instant_sees_the_quotes_of_that_instant() -> None:
    """Market data of T comes before the order that arrives at T."""
    script = Script([(SECOND, STOCK.id, 1)])
    run = Bench([script], paper=PaperOptions(latency=SECOND)).play(minutes([100.0, 101.0, 102.0], step=SECOND))
    assert run.facts(Executed)[0].fill.mid == D("102")


def test_timers_ring_strictly_before_the_end() -> None:
    """A fixed interval that would ring at the end does not: the close is the end's own."""
    run = Bench(
        [hedger(FixedInterval(interval="1m"))],
        instruments=[STOCK, option()],
        openings=[(option().id, 1)],
        end=START + 3 * MINUTE,
        valuation=BY_MODEL,
    ).play(minutes([100.0, 103.0, 106.0, 109.0, 112.0]))
    assert [t // MINUTE for t in run.when(TargetSet)] == [0, 1, 2, 3]
    *rebalances, close = run.facts(TargetSet)
    assert close.lines[0].quantity == 0
    assert all(t.lines[0].quantity != 0 for t in rebalances)


def test_an_event_earlier_than_the_loop_is_refused() -> None:
    """Time never goes back: an earlier event ends the run with both instants named."""
    run = Bench([Script(ticks=True)]).play(minutes([100.0, 101.0]), finish=False)
    with pytest.raises(EvenkeelError, match="was given an event of 2024-01-02T15:00:00Z"):
        run.loop.take(quote(STOCK.id, 0, 1.0, 2.0), "a")


def test_empty_batches_are_nothing() -> None:
    """A batch without rows moves no clock and breaks nothing."""
    run = Bench([Script()])
    run.loop.take(batch(run.universe, []), "a")
    run.loop.take(trade_batch(run.universe, []), "a")
    assert run.loop.now == 0


def test_a_quiet_box_spares_the_waking_until_the_quote_leaves_it() -> None:
    """Inside the box nobody is woken; a quote outside it, or a withdrawn side, wakes."""
    box = QuietBox(FOREVER, {0: (198.0, 202.0)})
    script = Script(box=lambda _: box)
    Bench([script], remark=10 * MINUTE).play(
        [
            quote(STOCK.id, 0, 99.9, 100.1),
            quote(STOCK.id, SECOND, 100.0, 100.2),
            quote(STOCK.id, 2 * SECOND, 100.4, 100.8),
            quote(STOCK.id, 3 * SECOND, 103.0, 103.2),
            quote(STOCK.id, 4 * SECOND, 100.0, 100.2),
            quote(STOCK.id, 5 * SECOND, 100.0, None),
        ]
    )
    assert [at // SECOND for what, at, _ in script.calls if what == "wake"] == [1, 3, 5]


def test_a_quiet_box_ends_at_its_deadline() -> None:
    """From `until` on the owner is woken though the quote stays inside."""
    script = Script(box=lambda view: QuietBox(view.now + 2 * SECOND, {0: (0.0, 1000.0)}))
    Bench([script], remark=10 * MINUTE).play(minutes([100.0] * 7, step=SECOND))
    assert [at // SECOND for what, at, _ in script.calls if what == "wake"] == [1, 3, 5]


def test_new_vols_end_every_quiet_box() -> None:
    """A re-mark that changes a vol wakes the owner of a box that still holds."""
    contract = option()
    script = Script(box=lambda _: QuietBox(FOREVER, {}))
    run = Bench(
        [script],
        instruments=[STOCK, contract],
        openings=[(contract.id, 1)],
        valuation=IMPLIED,
        remark=2 * MINUTE,
        begin="two_sided",
    )
    events: list[Quote] = []
    for i in range(6):
        events += [
            quote(STOCK.id, i * MINUTE, 99.9, 100.1),
            quote(contract.id, i * MINUTE, 2.0 + 0.1 * i, 2.1 + 0.1 * i),
        ]
    run.play(events, finish=False)
    assert [at // MINUTE for what, at, _ in script.calls if what == "wake"] == [1, 2, 4]


def test_a_box_law_of_its_own() -> None:
    """The box holds for other instruments, for sums on its edges, never for NaN nor from its deadline on."""
    box = QuietBox(100, {3: (10.0, 12.0)})
    nan = float("nan")
    asked = [
        (3, 5.0, 5.0, 99),
        (3, 6.0, 6.0, 99),
        (4, nan, nan, 99),
        (3, 4.9, 5.0, 99),
        (3, nan, 5.0, 99),
        (3, 5.0, 6.0, 100),
    ]
    assert [box.holds(*a) for a in asked] == [True, True, True, False, False, False]


@pytest.mark.parametrize("rows", [1, 2, 7, 10_000])
@pytest.mark.parametrize("policy", ["band", "interval"])
def test_batching_changes_no_fact(rows: int, policy: str) -> None:
    """Quotes and prints, one row a batch or all in one, give the same chain of facts."""
    assert chain_of(rows, policy) == chain_of(1, policy)


def chain_of(rows: int, policy: str) -> bytes:
    rng = np.random.default_rng(11)
    contract = option(100, days=9)
    rule = DeltaBand(half_width=3.0) if policy == "band" else FixedInterval(interval="30s")
    run = Bench(
        {"dynamic": [hedger(rule)], "static": [hedger(DeltaBand(half_width=20.0, to="centre"), name="wide")]},
        instruments=[STOCK, contract],
        openings=[(contract.id, -7)],
        valuation=IMPLIED,
        paper=PaperOptions(latency=3 * SECOND, jitter=4 * SECOND),
        begin="two_sided",
        end=START + 8 * MINUTE,
    )
    price, kinds = 100.0, rng.integers(0, 5, 500)
    times = np.sort(rng.integers(0, 600, 500)) * SECOND
    pieces: list[list[Quote] | list[Trade]] = []
    for at, kind in zip(times.tolist(), kinds.tolist(), strict=True):
        price += float(rng.choice([-0.1, 0.0, 0.1]))
        if kind == 0:
            ts = START + at
            prints = [Trade(instrument=STOCK.id, ts_event=ts, ts_recv=ts, price=round(price, 2))]
            pieces.append(prints)
            continue
        who, mid = (contract.id, 1.5 + 0.5 * (price - 99)) if kind == 1 else (STOCK.id, price)
        row = quote(
            who,
            at,
            round(max(mid, 0.2) - 0.05, 2),
            None if kind == 4 and at % 7 == 0 else round(max(mid, 0.2) + 0.05, 2),
        )
        if pieces and isinstance(pieces[-1][0], Quote) and len(pieces[-1]) < rows:
            pieces[-1].append(row)
        else:
            pieces.append([row])
    for piece in pieces:
        first = piece[0]
        item = batch(run.universe, piece) if isinstance(first, Quote) else trade_batch(run.universe, piece)  # type: ignore[arg-type]  # one kind a piece
        run.loop.take(item, "a")
    run.loop.finish()
    assert run.facts(Executed)
    return run.journal.chain


async def test_two_feeds_merge_into_one_order_however_they_are_cut() -> None:
    """Two feeds whose instants interleave and coincide give the same facts whatever their batch sizes."""
    contract = option(100, days=9)
    chains = set()
    for rows in (1, 4, 1000):
        run = Bench(
            [hedger(DeltaBand(half_width=2.0))], instruments=[STOCK, contract], openings=[(contract.id, 5)],
            valuation=IMPLIED, begin="two_sided", end=START + 5 * MINUTE,
        )  # fmt: skip
        stock = [
            quote(STOCK.id, i * SECOND, 99.95 + 0.02 * (i % 41), 100.05 + 0.02 * (i % 41)) for i in range(0, 300, 2)
        ]
        chain = [quote(contract.id, i * SECOND, 1.9 + 0.01 * (i % 17), 2.0 + 0.01 * (i % 17)) for i in range(0, 300, 3)]
        cut = [
            ListFeed([batch(run.universe, q[i : i + rows]) for i in range(0, len(q), rows)], name=name)
            for name, q in (("stock", stock), ("chain", chain))
        ]
        async for name, item in merge([(f.name, f.events()) for f in cut]):
            run.loop.take(item, name)
        run.loop.finish()
        assert len(run.facts(Executed)) > 3
        chains.add((run.journal.chain, tuple(run.loop.tape.ranges())))
    assert len(chains) == 1


async def test_control_of_one_feed_comes_before_market_data_of_another_at_one_instant() -> None:
    """At equal instants reference events lead, then quotes in the order of the feeds."""
    first = ListFeed([quote(STOCK.id, SECOND, 1.0, 2.0)], name="a")
    second = ListFeed([Reference(ts_recv=START + SECOND, what="halted", instrument=STOCK.id)], name="b")
    third = ListFeed([quote(STOCK.id, 0, 1.0, 2.0), quote(STOCK.id, SECOND, 3.0, 4.0)], name="c")
    order = [name async for name, _ in merge([(f.name, f.events()) for f in (first, second, third)])]
    assert order == ["c", "b", "a", "c"]


async def test_a_feed_whose_times_go_back_is_refused_between_and_inside_batches() -> None:
    """Times that go back end the merge with the feed and both instants named."""
    run = Bench([Script()])
    back = [quote(STOCK.id, SECOND, 1.0, 2.0), quote(STOCK.id, 0, 1.0, 2.0)]
    for events in (back, [batch(run.universe, back)]):
        with pytest.raises(
            DataError, match=r"feed a: expected times never to go back, found .*15:00:00Z after .*15:00:01Z"
        ):
            _ = [item async for item in merge([("a", ListFeed(events).events())])]


def test_halt_resume_and_stop_are_obeyed_and_recorded() -> None:
    """Halted orders are refused, after resume they pass, and stop ends the session with its close."""
    script = Script([(MINUTE, STOCK.id, 5), (3 * MINUTE, STOCK.id, 7)])
    run = Bench([script])
    words = {30 * SECOND: "halt", 90 * SECOND: "resume", 200 * SECOND: "stop"}
    events: list[Quote | Control] = [*minutes([100.0] * 6)]
    events += [Control(ts_recv=START + at, verb=verb, operator="ann") for at, verb in words.items()]
    for event in sorted(events, key=lambda e: e.ts_recv):
        run.loop.take(event, "a")
    run.loop.finish()
    assert run.when(Refused) == [MINUTE]
    assert [f.fill.quantity for f in run.facts(Executed)] == [7]
    assert [f.verb for f in run.facts(Controlled)] == ["halt", "resume", "stop"]
    assert run.loop.done
    assert run.loop.ended_at == START + 200 * SECOND


def test_a_halted_instrument_trades_again_when_resumed() -> None:
    """While the hedge instrument is halted its orders are refused, and a later order fills."""
    script = Script([(MINUTE, STOCK.id, 5), (3 * MINUTE, STOCK.id, 6)])
    run = Bench([script])
    events: list[Quote | Reference] = [*minutes([100.0] * 5)]
    events += [Reference(ts_recv=START + SECOND, what="halted", instrument=STOCK.id)]
    events += [Reference(ts_recv=START + 2 * MINUTE, what="resumed", instrument=STOCK.id)]
    for event in sorted(events, key=lambda e: (e.ts_recv, isinstance(e, Quote))):
        run.loop.take(event, "a")
    run.loop.finish()
    assert [f.refusal.code for f in run.facts(Refused)] == ["frozen"]
    assert run.held() == 6
