"""The delta hedger holds the net delta of its book at the target, and says when it cannot know it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from adapters.paper import PaperOptions
from bot.core.events import FeedEvent
from bot.domain.instruments import Perpetual, Spot
from bot.domain.market import Trade
from bot.domain.units import NS_PER_YEAR
from bot.engine.journal import Executed, Ordered, Skipped, TargetSet
from bot.engine.valuation import ValuationSettings
from bot.pricing import black
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge
from tests.simulation.bench import (
    BY_MODEL,
    IMPLIED,
    MINUTE,
    SECOND,
    START,
    STOCK,
    Bench,
    future,
    hedger,
    minutes,
    option,
    quote,
)

D = Decimal
CALL = option(100, days=20)


def hedged(strategy: DeltaHedger, prices: Sequence[float], *, step: int = MINUTE, **rest: Any) -> Bench:
    """Ten calls hedged by a strategy over a path."""
    known: dict[str, Any] = {
        "instruments": [STOCK, CALL], "openings": [(CALL.id, 10)], "valuation": BY_MODEL, "jump_freeze": None,
    }  # fmt: skip
    return Bench([strategy], **(known | rest)).play(minutes(prices, step=step))


def delta(spot: float, at: int, quantity: int = 10, vol: float = 0.20) -> float:
    """Net delta of the calls in shares."""
    tau = (CALL.expiry - START - at) / NS_PER_YEAR
    return quantity * 100 * float(black.bsm(spot, 100.0, tau, vol).delta)


def nearest(x: float) -> int:
    return math.floor(abs(x) + 0.5) * (1 if x >= 0 else -1)


def test_a_fixed_interval_trades_to_the_exact_hedge_at_each_beat() -> None:
    """Each target is minus the delta at start + k x interval, rounded half away from zero."""
    rng = np.random.default_rng(4)
    prices = (100 + np.cumsum(rng.normal(0, 0.4, 30))).round(2).tolist()
    run = hedged(hedger(FixedInterval(interval="1m")), prices, step=15 * SECOND, end=START + 7 * MINUTE)
    *targets, close = run.facts(TargetSet)
    expected = {k: -nearest(delta(prices[4 * k], k * MINUTE)) for k in range(7)}
    changed = [k for k in expected if k == 0 or expected[k] != expected[k - 1]]
    assert [int(t.lines[0].quantity) for t in targets] == [expected[k] for k in changed]
    assert run.when(TargetSet)[:-1] == [k * MINUTE for k in changed]
    assert close.lines[0].quantity == 0
    assert run.held() == 0


def test_a_band_holds_the_net_delta_inside_after_every_quote() -> None:
    """Once the quotes of an instant are traded on, |net delta| is inside the half width, and inside it nothing trades."""
    rng = np.random.default_rng(5)
    prices = (100 + np.cumsum(rng.normal(0, 0.3, 200))).round(2).tolist()
    run = hedged(hedger(DeltaBand(half_width=25.0)), prices, step=SECOND)
    held, fills = 0, {f.fill.ts - START: f.fill for f in run.facts(Executed)}
    for i, price in enumerate(prices[:-1]):
        net = delta(price, i * SECOND) + held
        fill = fills.get(i * SECOND)
        assert (abs(net) > 25.0) == (fill is not None)
        held += int(fill.quantity) if fill is not None else 0
        assert abs(delta(price, i * SECOND) + held) <= 25.0
    assert len(fills) > 3


def test_static_hedges_once_and_none_never() -> None:
    """Static trades at the start only, none not at all, whatever the market does."""
    prices = [100.0, 103.0, 97.0, 108.0]
    static = hedged(hedger(StaticHedge()), prices)
    assert [f.fill.ts - START for f in static.facts(Executed) if not f.fill.closing] == [0]
    assert hedged(hedger(NoHedge()), prices).facts(Ordered) == []


def test_a_target_range_is_hedged_to_its_nearest_end() -> None:
    """Net delta inside the range is left; outside it goes to the near end."""
    for target, expected in (((-100.0, 100.0), 100), ((600.0, 700.0), 600), ((0.0, 1000.0), None)):
        run = hedged(hedger(FixedInterval(interval="1m"), target_delta=target), [100.0, 100.0])
        fills = [f.fill for f in run.facts(Executed) if not f.fill.closing]
        if expected is None:
            assert fills == []
        else:
            assert delta(100.0, 0) + float(fills[0].quantity) == pytest.approx(expected, abs=0.51)


def test_a_target_delta_other_than_zero_is_held() -> None:
    """A target of 250 shares leaves 250 shares of net delta."""
    run = hedged(hedger(FixedInterval(interval="1m"), target_delta=250.0), [100.0, 100.0])
    assert delta(100.0, 0) + float(run.facts(Executed)[0].fill.quantity) == pytest.approx(250, abs=0.51)


def test_futures_stock_in_the_book_and_a_coarser_lot_count_as_they_are() -> None:
    """Fifty-share futures hedge in fifties, shares already in the book lower the need, lots of two round to two."""
    es = future(multiplier=50)
    under = option(4000, days=20, underlying=es.id, multiplier=50)
    run = Bench(
        [hedger(FixedInterval(interval="1m"), underlying=es.id, instrument=es.id, lot=D(2))],
        instruments=[es, under],
        openings=[(under.id, 20)],
        needed=[es.id],
        valuation=BY_MODEL,
    ).play(minutes([4000.0, 4000.0], instrument=es.id, half=0.25))
    tau = (under.expiry - START) / NS_PER_YEAR
    want = -20 * float(black.black76(4000.0, 4000.0, tau, 0.2).delta)
    assert run.facts(Executed)[0].fill.quantity == 2 * nearest(want / 2)
    proxy = Spot(id="US:PROXY", lot=D(1))
    with_stock = Bench(
        [hedger(FixedInterval(interval="1m"), instrument=proxy.id)],
        instruments=[STOCK, CALL, proxy],
        openings=[(CALL.id, 10), (STOCK.id, -100)],
        needed=[STOCK.id, proxy.id],
        valuation=BY_MODEL,
    ).play(
        [
            e
            for i in range(2)
            for e in (quote(STOCK.id, i * MINUTE, 100.0, 100.0), quote(proxy.id, i * MINUTE, 50.0, 50.0))
        ]
    )
    assert with_stock.facts(Executed)[0].fill.quantity == -nearest(delta(100.0, 0) - 100)


def test_a_proxy_is_scaled_by_beta_and_price() -> None:
    """With beta 0.5 a proxy at 50 moves 0.25 for 1 of an underlying at 100, so four are needed for one."""
    proxy = Spot(id="US:PROXY", lot=D(1))
    run = Bench(
        [hedger(FixedInterval(interval="1m"), instrument=proxy.id, beta=0.5)],
        instruments=[STOCK, CALL, proxy],
        openings=[(CALL.id, 10)],
        needed=[STOCK.id, proxy.id],
        valuation=BY_MODEL,
    ).play(
        [
            e
            for i in range(2)
            for e in (quote(STOCK.id, i * MINUTE, 100.0, 100.0), quote(proxy.id, i * MINUTE, 50.0, 50.0))
        ]
    )
    assert run.facts(Executed)[0].fill.quantity == -nearest(delta(100.0, 0) * 4)


def test_an_inverse_perpetual_hedges_in_coin() -> None:
    """A contract of 100 USD at 100 is one coin of delta."""
    perpetual = Perpetual(id="X:UNDUSD", multiplier=D(100), inverse=True, settlement_currency="UND", lot=D(1))
    run = Bench(
        [hedger(FixedInterval(interval="1m"), instrument=perpetual.id)],
        instruments=[STOCK, CALL, perpetual],
        openings=[(CALL.id, 10)],
        needed=[STOCK.id, perpetual.id],
        valuation=BY_MODEL,
    ).play(
        [
            e
            for i in range(2)
            for e in (quote(STOCK.id, i * MINUTE, 50.0, 50.0), quote(perpetual.id, i * MINUTE, 50.0, 50.0))
        ]
    )
    fills = run.facts(Executed)
    assert [f.fill.quantity for f in fills] == ([-nearest(delta(50.0, 0) / 2)] if nearest(delta(50.0, 0) / 2) else [])
    near = Bench(
        [hedger(FixedInterval(interval="1m"), instrument=perpetual.id)],
        instruments=[STOCK, CALL, perpetual],
        openings=[(CALL.id, 10)],
        needed=[STOCK.id, perpetual.id],
        valuation=BY_MODEL,
    ).play(
        [
            e
            for i in range(2)
            for e in (quote(STOCK.id, i * MINUTE, 100.0, 100.0), quote(perpetual.id, i * MINUTE, 100.0, 100.0))
        ]
    )
    assert near.facts(Executed)[0].fill.quantity == -nearest(delta(100.0, 0))


# --------------------------------------------------------------------------- the unknown


def blinded(fallback: str) -> Bench:
    """A hedger whose underlying loses a side from minute 2 to 4 and comes back at 110."""
    proxy = Spot(id="US:PROXY", lot=D(1))
    events: list[FeedEvent] = []
    for i in range(8):
        price = 100.0 + i
        events.append(quote(STOCK.id, i * MINUTE, price, None if 2 <= i <= 4 else price))
        events.append(quote(proxy.id, i * MINUTE, price, price))
    return Bench(
        [hedger(FixedInterval(interval="1m"), instrument=proxy.id, fallback=fallback)],
        instruments=[STOCK, CALL, proxy],
        openings=[(CALL.id, 10)],
        needed=[STOCK.id, proxy.id],
        valuation=BY_MODEL,
    ).play(events)


@pytest.mark.parametrize("fallback", ["last", "hold"])
def test_an_unknown_delta_is_one_alarm_a_stated_fallback_and_a_recovery(fallback: str) -> None:
    """While the delta is NaN there is one alarm that names cause and action, no trade, and hedging resumes after."""
    run = blinded(fallback)
    (alarm,) = [a for a in run.loop.alarms if a.code == "greeks_unknown"]
    assert "no two-sided price of US:UND" in alarm.text
    assert alarm.action == ("hedging on the last known delta" if fallback == "last" else "holding the present hedge")
    times = [f.fill.ts - START for f in run.facts(Executed) if not f.fill.closing]
    assert not [t for t in times if 2 * MINUTE <= t <= 4 * MINUTE]
    assert 5 * MINUTE in times
    assert bool(run.facts(Skipped)) == (fallback == "hold")


def test_an_option_without_a_vol_is_named() -> None:
    """When a leg never had a vol, the alarm names it, and nothing is traded on a guess."""
    put = option(90, cp=-1)
    run = Bench(
        [hedger(FixedInterval(interval="1m"))],
        instruments=[STOCK, CALL, put],
        openings=[(CALL.id, 10), (put.id, 5)],
        valuation=ValuationSettings(vol="implied", mark="model"),
        marks_in={CALL.id: D(2), put.id: D(1)},
    ).play(
        [e for i in range(3) for e in (quote(STOCK.id, i * MINUTE, 100.0, 100.0), quote(CALL.id, i * MINUTE, 2.0, 2.1))]
    )
    assert "greeks_unknown" in run.alarms()
    assert "P00090000" in next(a.text for a in run.loop.alarms if a.code == "greeks_unknown")
    assert run.facts(Ordered) == []


def test_a_one_sided_hedge_instrument_is_skipped_on_the_record() -> None:
    """Without a middle of the hedge instrument no decision is made, the reason is journalled once, and hedging resumes."""
    proxy = Spot(id="US:PROXY", lot=D(1))
    events = [
        e
        for i in range(6)
        for e in (
            quote(STOCK.id, i * MINUTE, 100.0 + i, 100.0 + i),
            quote(proxy.id, i * MINUTE, 50.0, None if 1 <= i <= 3 else 50.0),
        )
    ]
    run = Bench(
        [hedger(DeltaBand(half_width=5.0), instrument=proxy.id)],
        instruments=[STOCK, CALL, proxy],
        openings=[(CALL.id, 10)],
        needed=[STOCK.id, proxy.id],
        valuation=BY_MODEL,
    ).play(events)
    assert [s.reason for s in run.facts(Skipped)] == [f"no two-sided quote of {proxy.id}"]
    times = [f.fill.ts - START for f in run.facts(Executed)]
    assert 0 in times
    assert 4 * MINUTE in times
    assert not [t for t in times if MINUTE <= t <= 3 * MINUTE]


def test_a_beta_hedge_without_its_underlyings_price_skips_and_says_so() -> None:
    """On the last known delta, with no price to scale by, the proxy hedge is skipped with its reason, never silently."""
    proxy = Spot(id="US:PROXY", lot=D(1))
    events = [
        e
        for i in range(4)
        for e in (
            quote(STOCK.id, i * MINUTE, 100.0, None if i >= 2 else 100.0),
            quote(proxy.id, i * MINUTE, 50.0, 50.0),
        )
    ]
    run = Bench(
        [hedger(FixedInterval(interval="1m"), instrument=proxy.id, beta=1.0)],
        instruments=[STOCK, CALL, proxy],
        openings=[(CALL.id, 10)],
        needed=[STOCK.id, proxy.id],
        valuation=BY_MODEL,
    ).play(events)
    assert [s.reason for s in run.facts(Skipped)] == [f"no price of {STOCK.id} to scale {proxy.id} by"]


def test_a_static_hedge_that_could_not_be_made_at_the_start_is_made_when_it_can() -> None:
    """A hedge instrument that is one-sided at the start is hedged with once it is quoted, and only once."""
    proxy = Spot(id="US:PROXY", lot=D(1))
    events: list[FeedEvent] = []
    for i in range(8):
        events.append(quote(STOCK.id, i * MINUTE, 100.0 + i, 100.0 + i))
        events.append(quote(proxy.id, i * MINUTE, 50.0, None if i < 2 else 50.0))
    events.insert(0, Trade(instrument=proxy.id, ts_event=START, ts_recv=START, price=50.0))
    run = Bench(
        [hedger(StaticHedge(), instrument=proxy.id)],
        instruments=[STOCK, CALL, proxy],
        openings=[(CALL.id, 10)],
        needed=[STOCK.id, proxy.id],
        valuation=BY_MODEL,
    ).play(events)
    assert [f.fill.ts - START for f in run.facts(Executed) if not f.fill.closing] == [2 * MINUTE]


def test_evidence_says_what_the_decision_saw() -> None:
    """Spot, quote, vols, Greeks, band, held and working of the instant stand with the target."""
    run = hedged(hedger(DeltaBand(half_width=10.0)), [100.0, 101.0, 102.0], paper=PaperOptions(latency=0))
    first, second = run.facts(TargetSet)[:2]
    assert first.evidence is not None
    assert second.evidence is not None
    evidence = second.evidence
    assert evidence.spot == 101.0
    assert evidence.quote is not None
    assert evidence.quote.ts == START + MINUTE
    assert evidence.vols == {CALL.id: 0.20}
    assert evidence.delta == pytest.approx(delta(101.0, MINUTE))
    assert evidence.held == first.lines[0].quantity
    assert evidence.working == 0
    assert evidence.lo is not None
    assert evidence.hi is not None
    assert evidence.hi - evidence.lo == pytest.approx(20.0)
    assert second.lines[0].unrounded == pytest.approx(evidence.hi if evidence.held > evidence.hi else evidence.lo)


def test_a_hedger_needs_something_to_hedge() -> None:
    """No hedges at all is refused with the table it expected."""
    with pytest.raises(ValueError, match=r"\[\[hedges\]\]"):
        DeltaHedger(hedges=[], policy=NoHedge())


def test_working_orders_count_so_that_nothing_is_sent_twice() -> None:
    """While the first hedge is on its way, quotes inside the band send no second one."""
    run = hedged(hedger(DeltaBand(half_width=20.0)), [100.0] * 10, step=SECOND, paper=PaperOptions(latency=5 * SECOND))
    assert len([o for o in run.facts(Ordered) if not o.order.closing]) == 1


def test_implied_vols_move_the_hedge_at_re_marks_only() -> None:
    """A band hedger re-decides when a re-mark changes the vol though the underlying stands still."""
    events: list[FeedEvent] = []
    for i in range(5):
        events.append(quote(STOCK.id, i * MINUTE, 95.0, 95.0))
        price = 0.6 + 0.8 * i
        events.append(quote(CALL.id, i * MINUTE, price, price + 0.1))
    run = Bench(
        [hedger(DeltaBand(half_width=5.0))], instruments=[STOCK, CALL], openings=[(CALL.id, 10)], valuation=IMPLIED,
        begin="two_sided", remark=2 * MINUTE, end=START + 10 * MINUTE,
    ).play(events, finish=False)  # fmt: skip
    assert run.when(TargetSet) == [0, 2 * MINUTE]


def test_what_the_owner_brought_is_left_with_him() -> None:
    """Shares in the book count as a hedge while it runs; the close undoes the trades since, and none trades never."""
    prices = [100.0, 103.0, 97.0, 108.0]
    openings = [(CALL.id, 10), (STOCK.id, -200)]
    run = hedged(hedger(FixedInterval(interval="1m")), prices, openings=openings)
    first = run.facts(Executed)[0].fill
    assert int(first.quantity) == -nearest(delta(100.0, 0)) + 200
    assert run.facts(Executed)[-1].fill.closing
    assert run.held() == -200
    bare = hedged(hedger(NoHedge()), prices, openings=openings)
    assert bare.facts(Ordered) == []
    assert bare.held() == -200


def test_a_leg_without_a_quote_begins_at_the_vol_it_was_given() -> None:
    """Told to begin at once, a leg nobody quotes yet stands at its model value and is hedged; without a vol it waits."""
    wild: dict[str, Any] = {"instruments": [STOCK, CALL], "openings": [(CALL.id, 10)], "valuation": IMPLIED}
    run = Bench([hedger(FixedInterval(interval="1m"))], **wild)
    run.loop.openings[0] = msgspec.structs.replace(run.loop.openings[0], vol=0.20)
    run.play(minutes([100.0, 101.0, 102.0]))
    assert run.facts(TargetSet)[0].lines[0].unrounded == pytest.approx(-delta(100.0, 0))
    made = 1000 * float(black.bsm(102.0, 100.0, (CALL.expiry - START - 2 * MINUTE) / NS_PER_YEAR, 0.20).price)
    paid = 1000 * float(black.bsm(100.0, 100.0, (CALL.expiry - START) / NS_PER_YEAR, 0.20).price)
    assert float(run.pnl().options) == pytest.approx(made - paid, abs=0.01)
    path = run.loop.sampler.table().tracks["dynamic"].pnl[:, 1]
    assert path[-1] == pytest.approx(float(run.pnl().options), abs=1e-6)
    waiting = Bench([hedger(FixedInterval(interval="1m"))], **wild).play(minutes([100.0, 101.0, 102.0]))
    assert waiting.loop.started_at is None
    assert "no vol of it in the book" in waiting.loop.not_ready
