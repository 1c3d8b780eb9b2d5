"""An account believes the venue's word about its own orders only, and its books always sum to what it holds."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from adapters.paper import PaperOptions
from bot.core.errors import HaltedError
from bot.core.events import Accepted, Cancelled, Filled, Rejected, Target, TargetLine, Unknown, VenueEvent
from bot.core.ports import StrategyView
from bot.domain.orders import Fill, Order, OrderStatus
from bot.engine.account import Account
from bot.engine.journal import Executed, Ordered, Refused, VenueSaid
from strategies.policies.delta_band import DeltaBand
from tests.simulation.bench import BY_MODEL, MINUTE, SECOND, START, STOCK, Bench, Script, hedger, minutes, option, quote

D = Decimal


class Sent:
    """An outlet that keeps what was sent."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.cancels: list[str] = []

    def submit(self, account: Account, order: Order) -> None:
        self.orders.append(order)

    def cancel(self, account: Account, order_id: str, reason: str) -> None:
        self.cancels.append(order_id)


def desk_of(**rest: Any) -> tuple[Bench, Sent, Callable[[int], None]]:
    """A bench with a market at 100, an outlet, and a way to ask for a holding of the stock."""
    run = Bench([Script()], **rest).play(minutes([100.0]), finish=False)
    sent = Sent()

    def want(quantity: int) -> None:
        target = Target(book="main", lines=(TargetLine(STOCK.id, D(quantity), float(quantity)),), reason="test")
        run.account.settle_targets(run.account.slots[0], [target], START, sent)

    return run, sent, want


def fill(order: Order, quantity: int, number: int = 1, *, instrument: str = STOCK.id) -> Filled:
    """A fill of an order at 100."""
    one = D(100)
    made = Fill(
        id=f"{order.id}/{number}", order_id=order.id, account="dynamic", instrument=instrument, ts=START,
        quantity=D(quantity), price=one, commission=D(0), currency="USD", mid=one, touch=one, quote_ts=START,
    )  # fmt: skip
    return Filled(ts_recv=START, account="dynamic", fill=made)


def hear(run: Bench, event: VenueEvent) -> bool:
    return run.account.hear(event, lambda _: D(1))


def said(kind: type[Any], order: str, **rest: Any) -> Any:
    return kind(ts_recv=START, account="dynamic", order_id=order, **rest)


def test_words_about_orders_we_never_sent_are_alarmed_and_ignored() -> None:
    """An unknown order id changes no holding."""
    run, _, _ = desk_of()
    stranger = Order(id="x", account="dynamic", instrument=STOCK.id, quantity=D(5), ts=START)
    assert not hear(run, fill(stranger, 5))
    assert not hear(run, said(Accepted, "y"))
    assert not hear(run, said(Unknown, "z"))
    run.loop.finish()
    assert run.alarms() == ["unknown_order"] * 3
    assert run.held() == 0
    assert run.account.frozen == {}


def test_a_repeated_fill_is_booked_once() -> None:
    """The same fill id twice changes the holding once."""
    run, sent, want = desk_of()
    want(5)
    assert hear(run, fill(sent.orders[0], 3))
    assert not hear(run, fill(sent.orders[0], 3))
    assert run.held() == 3
    assert run.account.working("main", STOCK.id) == 2


@pytest.mark.parametrize(
    ("quantity", "instrument", "words"),
    [(6, STOCK.id, "exceeds what is left"), (-1, STOCK.id, "on the other side"), (1, "US:OTHER", "is in US:OTHER")],
)
def test_an_impossible_fill_halts_before_anything_is_booked(quantity: int, instrument: str, words: str) -> None:
    """More than was left, the other side or another instrument ends the run, the books as they were."""
    run, sent, want = desk_of()
    want(5)
    with pytest.raises(HaltedError, match=words):
        hear(run, fill(sent.orders[0], quantity, instrument=instrument))
    assert run.held() == 0
    assert run.account.ledger.book.cash() == {}


def test_an_unknown_order_counts_as_working_and_freezes_until_the_venue_answers() -> None:
    """After UNKNOWN no order of that underlying leaves; the venue's answer lifts exactly that freeze."""
    run, sent, want = desk_of()
    want(5)
    order = sent.orders[0]
    hear(run, said(Unknown, order.id, text="timeout"))
    hear(run, said(Unknown, order.id, text="timeout again"))
    assert run.account.working("main", STOCK.id) == 5
    want(9)
    assert len(sent.orders) == 1
    assert run.account.refusals == {"frozen": 1}
    run.account.freeze(STOCK.id, "other", "another cause")
    hear(run, fill(order, 5))
    assert run.account.frozen == {STOCK.id: "another cause"}
    run.account.thaw(STOCK.id, "other")
    assert run.account.orders[order.id].status is OrderStatus.FILLED
    want(9)
    assert [o.quantity for o in sent.orders] == [5, 4]


@pytest.mark.parametrize("answer", [Accepted, Cancelled, Rejected])
def test_every_answer_ends_the_doubt(answer: type[Any]) -> None:
    """Accepted, cancelled and rejected lift the freeze of an UNKNOWN order."""
    run, sent, want = desk_of()
    want(5)
    hear(run, said(Unknown, sent.orders[0].id))
    hear(run, said(answer, sent.orders[0].id, **({"code": "x", "text": "y"} if answer is Rejected else {})))
    assert run.account.frozen == {}


def test_doubt_about_a_finished_order_changes_nothing() -> None:
    """UNKNOWN of an order that is already filled freezes nothing."""
    run, sent, want = desk_of()
    want(5)
    hear(run, fill(sent.orders[0], 5))
    hear(run, said(Unknown, sent.orders[0].id))
    assert run.account.frozen == {}
    assert run.account.orders[sent.orders[0].id].status is OrderStatus.FILLED


def test_a_fill_that_crossed_our_cancel_is_held_and_alarmed() -> None:
    """What the venue executed after it confirmed a cancel is booked, with an alarm."""
    run, sent, want = desk_of()
    want(5)
    hear(run, said(Cancelled, sent.orders[0].id))
    assert hear(run, fill(sent.orders[0], 2))
    run.loop.finish()
    assert run.held() == 2
    assert "late_fill" in run.alarms()
    assert run.account.orders[sent.orders[0].id].status is OrderStatus.CANCELLED


@pytest.mark.parametrize("kind", [Rejected, Cancelled])
@pytest.mark.parametrize("filled", [0, 2])
def test_a_rejected_or_cancelled_order_no_longer_works_and_is_asked_for_again(kind: type[Any], filled: int) -> None:
    """What is left of a dead order is a gap again: the same target sends a new order for it."""
    run, sent, want = desk_of()
    want(5)
    if filled:
        hear(run, fill(sent.orders[0], filled))
    hear(run, said(kind, sent.orders[0].id, **({"code": "no", "text": "no"} if kind is Rejected else {})))
    assert run.account.working("main", STOCK.id) == 0
    assert run.account.open_ids == {}
    want(5)
    assert [o.quantity for o in sent.orders] == [5, 5 - filled]


def test_a_working_order_of_the_same_side_is_topped_up() -> None:
    """Target minus held minus working is what is sent."""
    _, sent, want = desk_of()
    want(5)
    want(7)
    want(7)
    assert [o.quantity for o in sent.orders] == [5, 2]


def test_a_working_order_of_the_other_side_is_cancelled_once_and_nothing_is_sent_until_it_is_gone() -> None:
    """Buying rests, the target turns to selling: one cancel, and the sale only after the venue confirmed it."""
    run, sent, want = desk_of()
    want(5)
    want(-3)
    want(-3)
    assert sent.cancels == [sent.orders[0].id]
    assert len(sent.orders) == 1
    hear(run, said(Cancelled, sent.orders[0].id))
    want(-3)
    assert [o.quantity for o in sent.orders] == [5, -3]


def test_a_cancel_that_failed_may_be_asked_for_again() -> None:
    """A cancel that raised on its way is alarmed, and the next decision asks once more."""
    run, sent, want = desk_of()
    want(5)
    want(-3)
    run.account.cancel_failed(sent.orders[0].id, "OSError: line cut", START)
    want(-3)
    run.loop.finish()
    assert sent.cancels == [sent.orders[0].id] * 2
    assert "cancel_failed" in run.alarms()


def test_the_hedger_tries_again_after_a_venue_reject() -> None:
    """A rejected hedge is a gap at the next quote: the hedger sends a fresh order."""
    contract = option()
    run = Bench(
        [hedger(DeltaBand(half_width=1.0))],
        instruments=[STOCK, contract],
        openings=[(contract.id, 10)],
        valuation=BY_MODEL,
        paper=PaperOptions(on_bad_quote="reject", latency=SECOND),
    )
    run.play(
        [
            *minutes([100.0]),
            quote(STOCK.id, SECOND, 100.0, None),
            quote(STOCK.id, 2 * SECOND, 100.0, 100.02),
            quote(STOCK.id, 9 * SECOND, 100.0, 100.02),
        ],
        finish=False,
    )
    assert next(f.what for f in run.facts(VenueSaid)) == "rejected"
    assert len(run.facts(Ordered)) == 2
    assert run.held() < 0


def test_a_cancel_frees_the_other_direction_in_the_paper_venue() -> None:
    """A resting buy is dropped when the target turns, and the sale follows at the next decision."""

    def rest_then_sell(view: StrategyView) -> list[Target]:
        if view.now < START + 4 * SECOND:
            lines = (TargetLine(STOCK.id, D(5), 5.0),)
            return [Target(book="main", lines=lines, reason="x", kind="limit", limits={STOCK.id: D(95)}, tif="gtc")]
        return [Target(book="main", lines=(TargetLine(STOCK.id, D(-3), -3.0),), reason="x")]

    run = Bench([Script(ticks=True, on_wake=rest_then_sell)]).play(minutes([100.0] * 8, step=2 * SECOND))
    assert [f.what for f in run.facts(VenueSaid)].count("cancelled") == 1
    assert [f.fill.quantity for f in run.facts(Executed)] == [-3]


@pytest.mark.parametrize(
    ("line", "rest", "words"),
    [
        (TargetLine("US:NOBODY", D(1), 1.0), {}, "expected one of this run, found 'US:NOBODY'"),
        (TargetLine(STOCK.id, D("NaN"), 1.0), {}, "expected a finite number, found NaN"),
        (TargetLine(STOCK.id, D(1), 1.0), {"tif": "gtd"}, "found gtd"),
        (TargetLine(STOCK.id, D(1), 1.0), {"kind": "limit", "limits": {STOCK.id: D(-1)}}, "found -1"),
    ],
)
def test_a_target_that_makes_no_sense_stops_its_strategy_only(
    line: TargetLine, rest: dict[str, Any], words: str
) -> None:
    """The strategy is stopped with an alarm that says what was expected; another in the account goes on."""
    bad = Script(name="bad", ticks=True, on_wake=lambda _: [Target(book="main", lines=(line,), reason="x", **rest)])
    good = Script([(2 * MINUTE, STOCK.id, 4)], book="good", name="good")
    run = Bench([bad, good]).play(minutes([100.0] * 4))
    assert words in run.account.slots[0].disabled
    assert run.alarms().count("strategy_fault") == 1
    assert [f.fill.quantity for f in run.facts(Executed)] == [4]


def test_frozen_books_do_not_cross_either() -> None:
    """Opposite targets in a frozen instrument pass nothing between books and send nothing."""
    a = Script([(MINUTE, STOCK.id, 5)], book="a", name="a")
    b = Script([(MINUTE, STOCK.id, -5)], book="b", name="b")
    run = Bench([a, b]).play(minutes([100.0]), finish=False)
    run.account.freeze(STOCK.id, "test", "frozen by a test")
    run.play(minutes([100.0] * 4)[1:], finish=False)
    assert [run.account.held(book, STOCK.id) for book in "ab"] == [0, 0]
    assert {f.refusal.text for f in run.facts(Refused)} == {"frozen by a test"}


def test_shadow_accounts_see_nothing_of_each_other() -> None:
    """Two accounts on the same marks hold what each of them asked for."""
    run = Bench({"dynamic": [Script([(MINUTE, STOCK.id, 5)])], "other": [Script([(MINUTE, STOCK.id, -2)])]}).play(
        minutes([100.0] * 3)
    )
    assert [a.ledger.book.quantity(STOCK.id) for a in run.accounts] == [5, -2]
