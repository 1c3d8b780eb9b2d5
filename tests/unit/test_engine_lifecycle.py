"""Options end at their exact instant, corporate actions leave P&L as it was, and a fault stops what it serves only."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pytest

from adapters.paper import PaperOptions
from bot.core.events import Control, Conversion, Corporate, FeedEvent, FeedState
from bot.domain.instruments import OptionContract, Spot
from bot.domain.market import Quote
from bot.domain.units import NS_PER_MINUTE
from bot.engine.journal import Adjusted, Ended, Executed, Ordered, Refused, VenueSaid
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
    future,
    hedger,
    minutes,
    option,
    quote,
)

D = Decimal
HOUR = 60 * NS_PER_MINUTE
SOON = 2 * MINUTE / (24 * HOUR)
"""Days to an expiry two minutes after the start."""


def ended(contract: OptionContract, quantity: int, last: float, **rest: Any) -> Bench:
    """A run over an expiry two minutes after the start, the underlying going from 100 to `last`."""
    run = Bench(
        [Script(watches=(contract.underlying,))],
        instruments=rest.pop("instruments", [STOCK, contract]),
        openings=rest.pop("openings", [(contract.id, quantity)]),
        needed=[contract.underlying],
        valuation=BY_MODEL,
        marks_in={contract.id: D(3)},
        **rest,
    )
    return run.play([quote(contract.underlying, i * MINUTE, p, p) for i, p in enumerate((100.0, last, last, last))])


@pytest.mark.parametrize(("cp", "strike", "value"), [(1, 95, 12), (1, 110, 0), (-1, 110, 3), (-1, 95, 0)])
@pytest.mark.parametrize("quantity", [2, -2])
def test_cash_settlement_pays_intrinsic_value(cp: Literal[1, -1], strike: int, value: int, quantity: int) -> None:
    """At the settlement price of 107 longs receive what shorts pay, and the contracts are gone."""
    contract = option(strike, days=SOON, cp=cp)
    run = ended(contract, quantity, 107.0)
    (end,) = run.facts(Ended)
    assert end.event.what == ("settlement" if value else "expiry")
    assert run.when(Ended) == [2 * MINUTE]
    assert run.held(contract.id) == 0
    assert run.account.ledger.book.cash().get("USD", D(0)) == quantity * 100 * value
    assert run.pnl().options == quantity * 100 * (value - 3)


@pytest.mark.parametrize(("cp", "quantity", "shares"), [(1, 2, 200), (1, -2, -200), (-1, 2, -200), (-1, -2, 200)])
def test_exercise_and_assignment_deliver_shares_at_the_strike(cp: Literal[1, -1], quantity: int, shares: int) -> None:
    """In the money by 5, the share enters at its mark, the strike is paid, and the option's P&L is intrinsic less cost."""
    contract = option(100, days=SOON, cp=cp, settlement="physical")
    last = 100.0 + 5 * cp
    run = ended(contract, quantity, last)
    assert [f.event.what for f in run.facts(Ended)] == ["exercise" if quantity > 0 else "assignment"]
    assert run.held() == shares
    assert run.account.ledger.book.cash()["USD"] == -shares * 100
    assert run.pnl().options == quantity * 100 * (5 - 3)
    assert run.pnl().hedge == 0


def test_an_option_on_a_future_delivers_the_future() -> None:
    """One contract of 50 delivers one future of 50 at the strike."""
    es = future(multiplier=50)
    contract = option(4000, days=SOON, settlement="physical", underlying=es.id, multiplier=50)
    run = Bench(
        [Script(watches=(es.id,))],
        instruments=[es, contract],
        openings=[(contract.id, 3)],
        needed=[es.id],
        valuation=BY_MODEL,
        marks_in={contract.id: D(10)},
    ).play([quote(es.id, i * MINUTE, 4020.0, 4020.0) for i in range(4)])
    assert run.held(es.id) == 3
    assert run.pnl().total == run.pnl().options == 3 * 50 * (20 - 10)


def test_books_that_stand_against_each_other_end_each_by_itself() -> None:
    """Long 5 in one book and short 5 in another: both positions end, and the shares pass between the books."""
    contract = option(100, days=SOON, settlement="physical")
    run = Bench(
        [Script()], instruments=[STOCK, contract], openings=[(contract.id, 5)], valuation=BY_MODEL, marks_in={contract.id: D(3)}
    )  # fmt: skip
    run.loop.openings += [type(run.loop.openings[0])(book="b", instrument=contract.id, quantity=D(-5), mark=D(3))]
    run.play(minutes([100.0, 105.0, 105.0, 105.0]))
    assert [run.account.held(book, STOCK.id) for book in ("main", "b")] == [500, -500]
    assert run.account.holders(contract.id) == []
    assert run.pnl().total == 0


def test_settlement_after_the_session_waits_for_its_value() -> None:
    """An option that expires in the session but settles later ends at the price of that later instant."""
    contract = option(100, days=SOON, settles_after=3 * MINUTE)
    run = Bench(
        [Script()], instruments=[STOCK, contract], openings=[(contract.id, 1)], valuation=BY_MODEL,
        end=START + 3 * MINUTE, marks_in={contract.id: D(1)},
    )  # fmt: skip
    run.play(minutes([100.0, 101.0, 102.0, 103.0, 104.0, 109.0, 111.0]))
    assert run.loop.ended_at == START + 3 * MINUTE
    assert run.when(Ended) == [5 * MINUTE]
    assert run.pnl().options == 100 * (9 - 1)


# --------------------------------------------------------------------------- corporate actions


def split_run(policy: Any = None, *, mid_quotes: bool = True) -> tuple[Bench, OptionContract]:
    """Ten calls of 700 hedged, split 7 for 1 at minute 3; the new series is struck at 100."""
    old = option(700, days=20)
    new = option(100, days=20, root="UNDX")
    strategies = [hedger(policy if policy is not None else FixedInterval(interval="1m"))]
    run = Bench(
        strategies,
        instruments=[STOCK, old, new],
        openings=[(old.id, 10)],
        valuation=IMPLIED if mid_quotes else BY_MODEL,
        begin="two_sided",
        end=START + 6 * MINUTE,
    )
    events: list[FeedEvent] = []
    for i in range(7):
        scale = 1 if i < 3 else 7
        contract = old if i < 3 else new
        if i == 3:
            conversions = (Conversion(old.id, new.id, D(7)),)
            events.append(
                Corporate(
                    ts_recv=START + 3 * MINUTE - SECOND, what="split", instrument=STOCK.id, ratio=D(7),
                    conversions=conversions, text="7 for 1",
                )
            )  # fmt: skip
        events.append(quote(STOCK.id, i * MINUTE, 699.3 / scale, 700.7 / scale))
        if mid_quotes:
            events.append(quote(contract.id, i * MINUTE, 13.3 / scale, 14.7 / scale))
    return run.play(events), new


@pytest.mark.parametrize("mid_quotes", [True, False])
def test_a_split_converts_shares_and_options_and_makes_no_money(mid_quotes: bool) -> None:
    """Seven new for one old at a seventh of the price: quantities scale, P&L of the step is zero, hedging goes on."""
    run, new = split_run(mid_quotes=mid_quotes)
    (adjusted,) = run.facts(Adjusted)
    shares = adjusted.before[STOCK.id]
    assert shares != 0
    assert adjusted.after == {STOCK.id: shares * 7, new.id: D(70)}
    table = run.loop.sampler.table()
    (at,) = [b.sample for b in table.breaks]
    pnl = table.tracks["dynamic"].pnl
    assert pnl[at] == pytest.approx(pnl[at - 1], abs=1e-6 if mid_quotes else 40.0)
    assert "unexplained_jump" not in run.alarms()
    assert "corporate" in run.alarms()


def test_a_split_of_a_withdrawn_quote_carries_the_mark_at_the_new_price() -> None:
    """When the share has no two-sided quote at the split, the carried mark is divided like the holding is multiplied."""
    run = Bench([Script([(MINUTE, STOCK.id, 10)])]).play(minutes([700.0, 700.0, 700.0]), finish=False)
    run.play([quote(STOCK.id, 3 * MINUTE, 699.0, None), quote(STOCK.id, 4 * MINUTE, 699.0, None)], finish=False)
    before = run.pnl()
    run.loop.take(Corporate(ts_recv=START + 5 * MINUTE, what="split", instrument=STOCK.id, ratio=D(7)), "a")
    assert run.held() == 70
    assert run.pnl().total == pytest.approx(before.total, abs=D("1e-15"))


@pytest.mark.parametrize("latency", [0, 10 * SECOND])
def test_orders_of_a_split_share_are_dropped(latency: int) -> None:
    """A limit order from before the split, at the old price, fills no more, and the next decision trades again."""
    rest = {"kind": "limit", "limits": {STOCK.id: D(650)}, "tif": "gtc"}
    late = [quote(STOCK.id, i * MINUTE + SECOND, 100.0, 100.2) for i in (3, 4, 5, 6)]
    run = Bench(
        [Script([(MINUTE, STOCK.id, 10)], target=rest), Script([(5 * MINUTE, STOCK.id, 2)], book="b", name="b")],
        paper=PaperOptions(latency=latency),
    ).play(minutes([700.0, 700.0, 700.0]), finish=False)
    assert run.account.open_ids
    run.loop.take(Corporate(ts_recv=START + 3 * MINUTE - SECOND, what="split", instrument=STOCK.id, ratio=D(7)), "a")
    run.play(late, finish=False)
    assert [f.what for f in run.facts(VenueSaid)][:2] == ["accepted", "cancelled"]
    assert [(f.fill.quantity, f.fill.price) for f in run.facts(Executed)] == [(D(2), D("100.2"))]


def test_a_dividend_pays_holders_and_charges_shorts() -> None:
    """Cash per share on what is held, booked as hedge P&L; nothing for who holds none."""
    for quantity in (10, -10, 0):
        run = Bench([Script([(MINUTE, STOCK.id, quantity)])]).play(minutes([100.0, 100.0, 100.0]), finish=False)
        before = run.pnl().hedge
        run.loop.take(Corporate(ts_recv=START + 3 * MINUTE, what="dividend", instrument=STOCK.id, cash=D("0.5")), "a")
        assert run.pnl().hedge - before == quantity * D("0.5")


def test_a_rename_moves_the_holding_to_the_new_name() -> None:
    """One for one: the position and its mark go over, and no P&L appears."""
    renamed = Spot(id="US:NEW", tick=D("0.01"), lot=D(1))
    run = Bench([Script([(MINUTE, STOCK.id, 4)])], instruments=[STOCK, renamed]).play(
        minutes([100.0] * 3), finish=False
    )
    before = run.pnl()
    event = Corporate(
        ts_recv=START + 3 * MINUTE, what="rename", instrument=STOCK.id, conversions=(Conversion(STOCK.id, renamed.id, D(1)),)
    )  # fmt: skip
    run.loop.take(event, "a")
    assert [run.held(), run.held(renamed.id)] == [0, 4]
    assert run.pnl() == before


def test_an_unadjusted_event_freezes_the_underlying_with_an_alarm() -> None:
    """Nothing is traded after an event whose deliverables nobody gave, not even the close."""
    contract = option(100, days=20)
    run = Bench(
        [hedger(DeltaBand(half_width=1.0))], instruments=[STOCK, contract], openings=[(contract.id, 10)], valuation=BY_MODEL
    )  # fmt: skip
    run.play(minutes([100.0, 101.0]), finish=False)
    run.loop.take(
        Corporate(ts_recv=START + 90 * SECOND, what="spin_off", instrument=STOCK.id, adjusted=False, text="a part"), "a"
    )
    orders = len(run.facts(Ordered))
    run.play([quote(STOCK.id, (2 + i) * MINUTE, p, p + 0.02) for i, p in enumerate((104.0, 109.0, 99.0, 90.0))])
    assert len(run.facts(Ordered)) == orders > 0
    assert run.facts(Executed)[-1].fill.ts <= START + 90 * SECOND
    assert "corporate_unadjusted" in run.alarms()
    assert {f.refusal.code for f in run.facts(Refused)} == {"frozen"}


def test_a_jump_that_looks_like_a_split_nobody_announced_freezes() -> None:
    """A fall by a half between re-marks with no event is alarmed and freezes the underlying; a 6% move is only named."""
    contract = option(100, days=20)
    run = Bench(
        [hedger(DeltaBand(half_width=1.0))], instruments=[STOCK, contract], openings=[(contract.id, 10)], valuation=BY_MODEL
    )  # fmt: skip
    run.play(minutes([100.0, 106.0, 106.0], half=0.005), finish=False)
    assert run.alarms() == ["jump"]
    run.play([quote(STOCK.id, (3 + i) * MINUTE, 50.0, 50.02) for i in range(4)])
    assert "unexplained_jump" in run.alarms()
    assert STOCK.id in run.account.frozen


# --------------------------------------------------------------------------- faults


@pytest.mark.parametrize("where", ["start", "wake", "timer", "stop", "quiet"])
def test_a_strategy_that_raises_stops_itself_only(where: str) -> None:
    """Whatever call raises, its book is frozen with one alarm, and the other strategy and account go on to the end."""
    bad = Script([(MINUTE, STOCK.id, 1)], name="bad", ticks=True, raises={where: RuntimeError("broken")})
    good = Script([(MINUTE, STOCK.id, 3), (4 * MINUTE, STOCK.id, 5)], book="good", name="good")
    shadow = Script([(MINUTE, STOCK.id, 7)])
    run = Bench({"dynamic": [bad, good], "static": [shadow]}, end=START + 5 * MINUTE).play(minutes([100.0] * 7))
    assert run.alarms().count("strategy_fault") == 1
    assert "RuntimeError: broken" in run.account.slots[0].disabled
    assert run.account.held("good", STOCK.id) == 5
    assert run.accounts[1].ledger.book.quantity(STOCK.id) == 7
    assert run.loop.done


def test_a_shadow_that_raises_does_not_stop_the_dynamic_account() -> None:
    """A fault in a shadow account disables it there and leaves the dynamic account's trades as they were."""
    plan: list[tuple[int, str, int | str]] = [(MINUTE, STOCK.id, 3), (3 * MINUTE, STOCK.id, -2)]
    alone = Bench([Script(plan)]).play(minutes([100.0] * 6))
    shadow = Script(ticks=True, raises={"wake": ZeroDivisionError("x")})
    both = Bench({"dynamic": [Script(plan)], "shadow": [shadow]}).play(minutes([100.0] * 6))
    assert [f.fill for f in both.facts(Executed)] == [f.fill for f in alone.facts(Executed)]
    assert both.accounts[1].slots[0].disabled


def test_a_stopped_strategy_leaves_no_order_working() -> None:
    """The resting order of a strategy that raised is dropped."""
    rest = {"kind": "limit", "limits": {STOCK.id: D(90)}, "tif": "gtc"}
    script = Script([(MINUTE, STOCK.id, 5), (2 * MINUTE, STOCK.id, 6)], target=rest)
    run = Bench([script]).play(minutes([100.0] * 2), finish=False)
    script.plan = []
    run.play(minutes([100.0] * 6)[2:], finish=False)
    assert run.account.slots[0].disabled.startswith("IndexError")
    assert run.account.open_ids == {}


def test_a_feed_that_goes_down_is_alarmed() -> None:
    """Down, gap and stale are alarms by name; up is not."""
    run = Bench([Script()])
    for state in ("up", "gap", "stale", "down"):
        run.loop.take(FeedState(ts_recv=START, feed="f", state=state), "f")
    assert run.alarms() == ["feed_gap", "feed_stale", "feed_down"]


def test_an_early_end_of_the_feed_is_alarmed_and_the_session_still_closes() -> None:
    """When the feed ends before the session the close is done at its last quote, and an alarm says when it ended."""
    contract = option(100, days=20)
    run = Bench(
        [hedger(FixedInterval(interval="1m"))], instruments=[STOCK, contract], openings=[(contract.id, 1)],
        valuation=BY_MODEL, end=START + 30 * MINUTE,
    ).play(minutes([100.0, 101.0, 102.0]))  # fmt: skip
    assert "feed_ended" in run.alarms()
    assert run.held() == 0
    assert run.loop.ended_at == START + 30 * MINUTE


def test_stop_before_the_start_changes_nothing() -> None:
    """A stop word while the session waits for its quotes leaves an empty run that ends cleanly."""
    run = Bench([Script()], needed=[STOCK.id])
    run.loop.take(Control(ts_recv=START, verb="stop"), "control")
    run.loop.finish()
    assert run.loop.started_at is None
    assert run.loop.not_ready == ""


def test_a_session_starts_at_the_first_grid_instant_with_two_sided_quotes() -> None:
    """Hedging begins when every leg and the hedge instrument are quoted on both sides, looked at once a grid."""
    contract = option(100, days=20)
    run = Bench(
        [hedger(FixedInterval(interval="1m"))], instruments=[STOCK, contract], openings=[(contract.id, 1)],
        valuation=IMPLIED, begin="two_sided", needed=[STOCK.id],
    )  # fmt: skip
    events: list[Quote] = []
    for i in range(6):
        events += [
            quote(STOCK.id, i * MINUTE + SECOND, 99.9, 100.1),
            quote(contract.id, i * MINUTE + SECOND, 2.0 if i >= 2 else None, 2.2),
        ]
    run.play(events)
    assert run.loop.started_at == START + 3 * MINUTE


@pytest.mark.parametrize("latency", [0, SECOND, 45 * SECOND])
def test_an_order_on_its_way_at_the_end_does_not_keep_the_hedge_open(latency: int) -> None:
    """The close waits for the order that is still under way, then closes what it left."""
    contract = option(100, days=20)
    run = Bench(
        [hedger(FixedInterval(interval="1m"))], instruments=[STOCK, contract], openings=[(contract.id, 10)],
        valuation=BY_MODEL, end=START + 2 * MINUTE + SECOND // 2, paper=PaperOptions(latency=latency),
    )  # fmt: skip
    run.play(minutes([100.0, 100.4, 101.0, 101.0, 101.0, 101.0, 101.0]))
    assert run.held() == 0
    assert "not_closed" not in run.alarms()
    assert run.loop.done
