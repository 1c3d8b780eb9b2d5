"""The desk nets books and allocates fills; limits refuse by code, and never trap a risk."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from adapters.paper import PaperOptions
from bot.domain.instruments import Instrument, Perpetual
from bot.domain.orders import Allocation, Order
from bot.engine import desk, limits
from bot.engine.journal import Executed, Refused, Transferred
from bot.engine.limits import LimitSettings, LimitView
from tests.simulation.bench import MINUTE, START, STOCK, Bench, Script, minutes, quote

D = Decimal


def order(quantity: int | str = 5, *, limit: str | None = None) -> Order:
    """An order for the stock."""
    return Order(
        id="o",
        account="a",
        instrument=STOCK.id,
        quantity=D(quantity),
        ts=START,
        kind="market" if limit is None else "limit",
        limit=None if limit is None else D(limit),
    )


def view(**changes: Any) -> LimitView:
    """What a limit sees: nothing held or open, a fresh price of 100."""
    known: dict[str, Any] = {"instrument": STOCK, "price": 100.0, "quote_age_ns": 0, "held": D(0), "open_orders": 0}
    return LimitView(**(known | changes))


def codes(settings: LimitSettings, asked: Order, seen: LimitView) -> list[str]:
    """Codes of every limit that refuses."""
    found = [check(asked, seen) for _, check in limits.build(settings)]
    return [refusal.code for refusal in found if refusal is not None]


@pytest.mark.parametrize(
    ("settings", "asked", "seen", "expected"),
    [
        (LimitSettings(), order(), view(), []),
        (LimitSettings(), order(), view(frozen="halted"), ["frozen"]),
        (LimitSettings(restricted=(STOCK.id,)), order(), view(), ["restricted"]),
        (LimitSettings(restricted=("US:OTHER",)), order(), view(), []),
        (LimitSettings(max_order_quantity=D(5)), order(5), view(), []),
        (LimitSettings(max_order_quantity=D(5)), order(-6), view(), ["order_quantity"]),
        (LimitSettings(max_order_notional=D(500)), order(5), view(), []),
        (LimitSettings(max_order_notional=D(499)), order(-5), view(), ["order_notional"]),
        (LimitSettings(max_order_notional=D(500)), order(1), view(price=float("nan")), ["order_notional"]),
        (LimitSettings(max_position=D(8)), order(5), view(held=D(3)), []),
        (LimitSettings(max_position=D(8)), order(5), view(held=D(4)), ["position"]),
        (LimitSettings(max_position=D(8)), order(-17), view(held=D(8)), ["position"]),
        (LimitSettings(max_open_orders=2), order(), view(open_orders=1), []),
        (LimitSettings(max_open_orders=2), order(), view(open_orders=2), ["open_orders"]),
        (LimitSettings(price_collar=0.05), order(limit="105"), view(), []),
        (LimitSettings(price_collar=0.05), order(limit="105.01"), view(), ["price_collar"]),
        (LimitSettings(price_collar=0.05), order(limit="100"), view(price=float("nan")), ["price_collar"]),
        (LimitSettings(price_collar=0.05), order(), view(price=float("nan")), []),
        (LimitSettings(stale_after=10), order(), view(quote_age_ns=10), []),
        (LimitSettings(stale_after=10), order(), view(quote_age_ns=11), ["stale"]),
        (LimitSettings(stale_after=10), order(), view(quote_age_ns=None), ["stale"]),
    ],
)
def test_each_limit_refuses_past_its_bound_and_by_its_code(
    settings: LimitSettings, asked: Order, seen: LimitView, expected: list[str]
) -> None:
    """At the bound an order passes, past it the refusal has the limit's code."""
    assert codes(settings, asked, seen) == expected


@pytest.mark.parametrize("quantity", [-1, -9, -10])
def test_an_order_that_only_reduces_passes_every_size_limit(quantity: int) -> None:
    """Selling down to zero is allowed past order, notional and position bounds; crossing zero is not."""
    tight = LimitSettings(max_order_quantity=D("0.5"), max_order_notional=D(1), max_position=D("0.5"))
    assert codes(tight, order(quantity), view(held=D(10))) == []
    assert codes(tight, order(-11), view(held=D(10))) == ["order_quantity", "order_notional", "position"]
    assert codes(tight, order(1), view(held=D(10))) == ["order_quantity", "order_notional", "position"]


def test_the_notional_of_an_inverse_contract_is_its_multiplier() -> None:
    """Five contracts of 100 USD are 500 USD at any price."""
    perpetual: Instrument = Perpetual(id="X:BTCUSD", multiplier=D(100), inverse=True, settlement_currency="BTC")
    seen = view(instrument=perpetual, price=61_000.0)
    assert codes(LimitSettings(max_order_notional=D(500)), order(5), seen) == []
    assert codes(LimitSettings(max_order_notional=D(499)), order(5), seen) == ["order_notional"]


def test_refused_orders_are_on_the_record_and_never_reach_the_venue() -> None:
    """Past the position limit the refusal is journalled with its words and nothing fills."""
    script = Script([(MINUTE, STOCK.id, 9), (2 * MINUTE, STOCK.id, 8)])
    run = Bench([script], checks=LimitSettings(max_position=D(8))).play(minutes([100.0] * 4))
    (refused,) = run.facts(Refused)
    assert (refused.refusal.code, refused.refusal.quantity) == ("position", D(9))
    assert run.account.refusals == {"position": 1}
    assert run.held() == 8


def test_a_working_order_counts_toward_the_position_limit() -> None:
    """Held plus working is what the limit looks at: a second order while the first rests is refused."""
    target = {"kind": "limit", "limits": {STOCK.id: D("90")}, "tif": "gtc"}
    first = Script([(MINUTE, STOCK.id, 6)], book="a", name="a", target=target)
    second = Script([(2 * MINUTE, STOCK.id, 3)], book="b", name="b", target=target)
    run = Bench([first, second], checks=LimitSettings(max_position=D(8))).play(minutes([100.0] * 4), finish=False)
    assert [f.refusal.code for f in run.facts(Refused)] == ["position"]


def test_gap_cross_and_allocate_by_hand() -> None:
    """Worked numbers: a gap, crossings largest first, and largest remainder with ties by name."""
    assert desk.gap(D(-5), D(-3), D(-1)) == -1
    crossings, left = desk.cross({"a": D(5), "b": D(-3), "c": D(-4)})
    assert [(c.seller, c.buyer, c.quantity) for c in crossings] == [("c", "a", D(4)), ("b", "a", D(1))]
    assert left == {"a": 0, "b": -2, "c": 0}
    thirds = [Allocation(name, D(-1)) for name in "abc"]
    assert desk.allocate(D(-1), thirds, D(1)) == {"a": -1, "b": 0, "c": 0}
    assert desk.allocate(D(-2), thirds, D(1), {"a": D(-1)}) == {"a": -1, "b": -1, "c": 0}
    assert desk.allocate(D(-3), thirds, D(1), {"a": D(-1), "b": D(-1)}) == {"a": -1, "b": -1, "c": -1}
    assert sum(desk.allocate(D("0.5"), [Allocation("a", D(2)), Allocation("b", D(1))], None).values()) == D("0.5")


def test_opposite_targets_of_two_books_cross_at_mid_and_only_the_net_is_sent() -> None:
    """Book a buys 5 and b sells 3: 3 pass between them at mid, the market sees what is left of each decision."""
    a = Script([(MINUTE, STOCK.id, 5)], book="a", name="a")
    b = Script([(MINUTE, STOCK.id, -3), (2 * MINUTE, STOCK.id, -8)], book="b", name="b")
    run = Bench([a, b]).play([*minutes([100.0, 101.0]), quote(STOCK.id, 2 * MINUTE, 102.0, 102.5)], finish=False)
    run.loop.close_open_instant()
    assert run.account.held("a", STOCK.id) == 5
    assert run.account.held("b", STOCK.id) == -8
    assert run.held() == -3
    assert run.account.ledger.book.sums_agree()


def test_targets_of_one_instant_cross_when_the_second_speaks() -> None:
    """An open gap of one book is met by the other's at the middle, with a fact that names both."""
    target = {"kind": "limit", "limits": {STOCK.id: D("90")}, "tif": "gtc"}
    a = Script([(MINUTE, STOCK.id, 5)], book="a", name="a", target=target)
    b = Script([(2 * MINUTE, STOCK.id, -3)], book="b", name="b")
    refusing = LimitSettings(max_order_quantity=D(4))
    run = Bench([a, b], checks=refusing).play(minutes([100.0, 101.0, 102.0, 103.0]), finish=False)
    (crossed,) = run.facts(Transferred)
    assert (crossed.seller, crossed.buyer, crossed.quantity, crossed.price) == ("b", "a", D(3), D(102))
    assert run.account.held("b", STOCK.id) == -3
    assert run.account.held("a", STOCK.id) == 5
    assert run.held() == 2
    assert [f.fill.quantity for f in run.facts(Executed)] == [2]
    assert run.facts(Executed)[0].allocations == {"a": 2}


def test_partial_fills_are_allocated_pro_rata() -> None:
    """Two books behind one order share each partial fill by what they asked for, and end with exactly that."""
    a = Script([(MINUTE, STOCK.id, 6)], book="a", name="a")
    b = Script([(2 * MINUTE, STOCK.id, 3)], book="b", name="b")
    run = Bench([a, b], paper=PaperOptions(beyond="partial"), checks=LimitSettings(max_order_quantity=D(9)))
    sizes = [(0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (4.0, 4.0), (2.0, 2.0), (9.0, 9.0)]
    run.play([quote(STOCK.id, i * MINUTE, 99.9, 100.1 + 0.01 * i, sizes=s) for i, s in enumerate(sizes)])
    assert {book: run.account.held(book, STOCK.id) for book in "ab"} == {"a": 6, "b": 3}
    assert sum((q for f in run.facts(Executed) for q in f.allocations.values()), D(0)) == run.held() == 9
