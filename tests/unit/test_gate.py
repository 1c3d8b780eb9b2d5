"""The gate refuses by code what is past a limit, remembers what it must, and no order passes around it."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.core.events import Accepted, Cancelled, Control, Filled, Target, TargetLine, Unknown
from bot.domain.instruments import Index
from bot.domain.orders import Fill, Order
from bot.engine import controls
from bot.engine.account import Account
from bot.engine.exposure import Proxy, stress_room
from bot.engine.gate import GateSettings, Mode, Standing
from bot.engine.journal import Alarmed, Controlled, Ordered, Refused, TargetSet
from bot.engine.limits import LimitSettings, UnderlyingLimits
from bot.testing.fakes import FakeBroker
from strategies.policies.delta_band import DeltaBand
from tests.simulation.bench import (
    BY_MODEL,
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
CALL = option()


class Out:
    """An outlet that keeps what was sent."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.cancels: list[str] = []

    def submit(self, account: Account, order: Order) -> None:
        self.orders.append(order)

    def cancel(self, account: Account, order_id: str, reason: str) -> None:
        self.cancels.append(order_id)


class Desk:
    """A run that has begun with the stock at 100, an outlet, and hands to ask for holdings with."""

    def __init__(self, limits: LimitSettings | None = None, mode: Mode | None = None, **rest: Any) -> None:
        settings = GateSettings(
            limits=LimitSettings() if limits is None else limits,
            mode=Mode() if mode is None else mode,
            proxies=rest.pop("proxies", {}),
        )
        self.run = Bench([Script()], gate=settings, **rest)
        self.run.play([quote(item.id, 0, 99.99, 100.01) for item in self.run.universe], finish=False)
        self.run.loop.close_open_instant()
        self.account = self.run.account
        self.out = Out()

    def want(self, quantity: int | str, instrument: str = STOCK.id, at: int = 0, **target: Any) -> list[str]:
        """Ask for a holding; the codes of new refusals."""
        before = dict(self.account.refusals)
        lines = (TargetLine(instrument, D(quantity), float(quantity)),)
        made = Target(book="main", lines=lines, reason="test", **target)
        self.account.settle_targets(self.account.slots[0], [made], START + at, self.out)
        return [code for code, count in self.account.refusals.items() if count != before.get(code, 0)]

    def say(self, kind: type[Any], order: Order, **rest: Any) -> None:
        """A word of the venue about an order."""
        self.account.hear(kind(ts_recv=order.ts, account="dynamic", order_id=order.id, **rest), lambda _: D(1))

    def fill(self, order: Order, quantity: int | None = None, at: int = 0) -> None:
        """The venue fills an order at 100."""
        q = order.quantity if quantity is None else D(quantity)
        one = D(100)
        made = Fill(
            id=f"{order.id}/{at}", order_id=order.id, account="dynamic", instrument=order.instrument, ts=START + at,
            quantity=q, price=one, commission=D(0), currency="USD", mid=one, touch=one, quote_ts=START,
        )  # fmt: skip
        self.account.hear(Filled(ts_recv=START + at, account="dynamic", fill=made), lambda _: D(1))

    def control(self, verb: str, argument: str = "", at: int = 0) -> bool:
        """A person's word."""
        item = Control(ts_recv=START + at, verb=verb, argument=argument, operator="ann")
        return controls.obey(self.account, item, START + at, self.out)

    def facts(self, kind: type[Any]) -> list[Any]:
        """Facts of a kind not yet recorded."""
        return [fact for fact in self.account.pending if isinstance(fact, kind)]


def with_options(limits: LimitSettings, held: int = 0, **rest: Any) -> Desk:
    """A desk with an option on the stock, `held` of it at the start."""
    desk = Desk(
        limits, instruments=[STOCK, CALL], openings=[(CALL.id, held)] if held else [], valuation=BY_MODEL, tradable=[CALL.id],
        **rest,
    )  # fmt: skip
    assert desk.run.loop.started_at is not None
    return desk


def delta_of_call(desk: Desk) -> float:
    """Delta of one contract at the present marks."""
    u = desk.run.valuation.contract_greeks(STOCK.id, START)
    return 100.0 * float(u.delta[0])


# --------------------------------------------------------------------------- no way around


def _submits(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "submit"


def test_orders_leave_an_account_in_one_place() -> None:
    """In the engine, `submit` of an outlet is called by the account's release alone, and that follows the gate."""
    root = Path(__file__).resolve().parents[2] / "bot" / "engine"
    functions = [
        (path.name, node)
        for path in sorted(root.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    found = [(name, function.name) for name, function in functions for node in ast.walk(function) if _submits(node)]
    assert found == [("account.py", "_release"), ("outbox.py", "send")]


def test_a_check_that_raises_refuses() -> None:
    """What cannot be checked stays here, with a code of its own and the fault in words."""
    desk = Desk(LimitSettings(max_order_quantity=D(5)))

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("no")

    desk.account.gate._asked = (broken,)
    desk.account.gate._is_clear = lambda _: False  # type: ignore[method-assign]  # a fake
    assert desk.want(3) == ["gate_fault"]
    assert "ZeroDivisionError: no" in desk.facts(Refused)[0].refusal.text
    assert desk.out.orders == []


def test_an_order_queued_for_a_venue_is_held_back_by_a_kill() -> None:
    """An order recorded before the kill and not yet sent is dropped, as cancelled, and so is its cancel."""
    venue = FakeBroker({STOCK.id: D(100)}, universe=Bench([Script()]).universe)
    run = Bench([Script([(MINUTE, STOCK.id, 5)])], broker=venue).play(minutes([100.0] * 2), finish=False)
    run.loop.close_open_instant()
    assert run.loop.outbox.waiting
    run.loop.take(Control(ts_recv=START + MINUTE + 1, verb="kill", argument="4"), "control")

    async def send() -> Any:
        return await run.loop.outbox.send()

    heard = asyncio.run(send())
    assert [type(event) for _, event in heard] == [Cancelled]
    assert heard[0][1].reason.startswith("never sent: cancel_all")
    assert venue.submitted == []
    assert not run.loop.outbox.waiting


# --------------------------------------------------------------------------- what is open


def test_an_unknown_order_counts_both_ways() -> None:
    """Short 6 with a purchase of 10 UNKNOWN: neither side has room for what the worst case leaves none for."""
    desk = Desk(LimitSettings(max_position=D(8)))
    desk.want(-6)
    desk.fill(desk.out.orders[0])
    desk.want(4)
    doubtful = desk.out.orders[1]
    assert doubtful.quantity == 10
    desk.say(Unknown, doubtful)
    desk.account.thaw(STOCK.id, doubtful.id)
    gate = desk.account.gate

    def asks(quantity: int) -> str:
        made = Order(
            id="x", account="dynamic", instrument=STOCK.id, quantity=D(quantity), ts=START, kind="limit", limit=D(100)
        )
        refusal = gate.check(made)
        return "" if refusal is None else refusal.code

    desk.account.gate.limits = LimitSettings(max_position=D(8), self_cross=False)
    gate.rebuild()
    assert [asks(q) for q in (4, 5, -2, -3)] == ["", "position", "", "position"]


def test_a_second_order_of_the_same_size_waits_for_an_answer() -> None:
    """While the first is unanswered within the window it is a duplicate; answered, or later, it is not."""
    desk = Desk(LimitSettings(duplicate_window=SECOND))
    desk.want(5)
    assert desk.want(10) == ["duplicate"]
    assert desk.want(11) == []
    desk = Desk(LimitSettings(duplicate_window=SECOND))
    desk.want(5)
    assert desk.want(10, at=SECOND + 1) == []
    desk = Desk(LimitSettings(duplicate_window=SECOND))
    desk.want(5)
    desk.say(Accepted, desk.out.orders[0])
    assert desk.want(10) == []


@pytest.mark.parametrize(("limit", "crosses"), [(None, True), ("99", True), ("98.99", True), ("99.01", False)])
def test_an_order_that_would_meet_our_own_is_refused(limit: str | None, crosses: bool) -> None:
    """Our purchase rests at 99: a market sale or one at 99 or less would trade with it."""
    desk = Desk()
    desk.want(5, kind="limit", limits={STOCK.id: D(99)}, tif="gtc")
    sale = Order(
        id="x", account="dynamic", instrument=STOCK.id, quantity=D(-5), ts=START,
        kind="market" if limit is None else "limit", limit=None if limit is None else D(limit),
    )  # fmt: skip
    refusal = desk.account.gate.check(sale)
    assert (refusal is not None) == crosses
    if refusal is not None:
        assert refusal.code == "self_cross"


# --------------------------------------------------------------------------- rates and repeats


def test_orders_past_the_rate_are_refused_until_time_gives_a_token_back() -> None:
    """Two at once, then one each half second."""
    desk = Desk(LimitSettings(orders_per_second=2.0))
    assert [desk.want(q) for q in (1, 2, 3)] == [[], [], ["order_rate"]]
    assert desk.want(3, at=SECOND // 2 - 1) == ["order_rate"]
    assert desk.want(3, at=SECOND // 2 + 1) == []


def test_cancels_past_their_rate_wait_and_those_of_a_kill_do_not() -> None:
    """The second cancel within a second is kept back with a refusal; the kill ladder's goes."""
    desk = Desk(LimitSettings(cancels_per_second=1.0), instruments=[STOCK, future()], needed=(STOCK.id, future().id))
    rest = {"kind": "limit", "tif": "gtc"}
    desk.want(5, limits={STOCK.id: D(90)}, **rest)
    desk.want(5, instrument=future().id, limits={future().id: D(90)}, **rest)
    assert desk.want(-5) == []
    assert desk.want(-5, instrument=future().id) == ["cancel_rate"]
    assert len(desk.out.cancels) == 1
    desk.control("kill", "4")
    assert len(desk.out.cancels) == 2


def test_an_instrument_cools_down_after_too_many_orders() -> None:
    """The fourth order within the window waits for the cool-down, others are not held up."""
    desk = Desk(
        LimitSettings(max_attempts=3, attempt_window=SECOND, cool_down=10 * SECOND), instruments=[STOCK, future()]
    )
    for q in (1, 2, 3):
        assert desk.want(q, at=q) == []
    assert desk.want(4, at=4) == ["attempts"]
    assert desk.want(1, instrument=future().id, at=5) == []
    assert desk.want(4, at=10 * SECOND) == ["attempts"]
    assert desk.want(4, at=10 * SECOND + 3) == []


def test_a_book_that_turns_round_and_round_is_disabled_until_a_person_enables_it() -> None:
    """Past the cap of reversals every order of the book is refused, over time too, until `enable`."""
    desk = Desk(LimitSettings(max_reversals=2, reversal_window=MINUTE))
    for i, q in enumerate((5, -5, 5, -5)):
        desk.want(q, at=i)
        desk.fill(desk.out.orders[-1], at=i)
    assert desk.want(5, at=9) == ["throttled"]
    assert desk.want(5, at=60 * MINUTE) == ["throttled"]
    told = [f for f in desk.facts(Controlled) if f.verb == "throttle"]
    assert len(told) == 1
    assert told[0].argument.startswith("main: ")
    assert not desk.control("enable", "other")
    assert desk.control("enable", "main")
    assert desk.want(5, at=60 * MINUTE) == []


def test_slow_turns_throttle_nothing() -> None:
    """The same turns spread over more than the window are no ping-pong."""
    desk = Desk(LimitSettings(max_reversals=2, reversal_window=MINUTE))
    for i, q in enumerate((5, -5, 5, -5, 5, -5)):
        desk.want(q, at=i * 31 * SECOND)
        desk.fill(desk.out.orders[-1], at=i * 31 * SECOND)
    assert desk.account.gate.standing.throttled == {}


def test_a_flood_of_refusals_is_counted_and_written_down_in_part() -> None:
    """A thousand refusals in a second are a thousand in the counter and a few on the record, the rest told by number."""
    desk = Desk(LimitSettings(max_order_quantity=D(1)))
    for i in range(1000):
        desk.want(5 + i % 2, at=i * 1_000_000)
    desk.want(5, at=3 * SECOND)
    rows = desk.facts(Refused)
    assert desk.account.refusals == {"order_quantity": 1001}
    assert 10 <= len(rows) <= 14
    told = sum(int(r.refusal.text.split("(and ")[1].split(" ")[0]) for r in rows if "(and " in r.refusal.text)
    assert told + len(rows) == 1001


# --------------------------------------------------------------------------- risk by underlying


def test_the_delta_limit_counts_options_and_stock_together() -> None:
    """With options long, shares may be sold to zero and past it by the bound, and none bought past it."""
    desk = with_options(LimitSettings(max_delta=700.0), held=10)
    long = 10 * delta_of_call(desk)
    assert 500 < long < 600
    room = int(700 - long)
    assert desk.want(room) == []
    desk = with_options(LimitSettings(max_delta=700.0), held=10)
    assert desk.want(room + 1) == ["delta"]
    assert desk.want(-int(700 + long)) == []
    desk = with_options(LimitSettings(max_delta=700.0), held=10)
    assert desk.want(-int(700 + long) - 1) == ["delta"]


def test_a_hedge_may_always_lower_delta_and_never_raise_it_past_the_band() -> None:
    """A book far outside its band is brought home by any step toward zero; a step away is refused."""
    desk = with_options(LimitSettings(hedge_band=20.0), held=100)
    long = round(100 * delta_of_call(desk))
    assert desk.want(1) == ["hedge_direction"]
    assert desk.want(-1) == []
    assert desk.want(-long - 15) == []
    desk = with_options(LimitSettings(hedge_band=20.0), held=100)
    assert desk.want(-long - 25) == ["hedge_direction"]
    assert desk.want(-1, instrument=CALL.id) == []


def test_closing_a_hedge_passes_limits_of_risk_and_opening_one_does_not() -> None:
    """At the close a hedge goes home though the options' delta stands bare."""
    desk = with_options(LimitSettings(max_delta=300.0, hedge_band=100.0, max_stress_loss=6000.0), held=10)
    short = -round(10 * delta_of_call(desk))
    assert desk.want(short) == []
    desk.fill(desk.out.orders[-1])
    assert desk.want(0) != []
    assert desk.want(0, closing=True) == []


@pytest.mark.parametrize("code", ["gamma", "vega"])
def test_curvature_is_limited_for_options_only(code: str) -> None:
    """Options past the bound are refused either way of it; shares carry none."""
    u = with_options(LimitSettings(), held=1).run.valuation.contract_greeks(STOCK.id, START)
    each = 100.0 * float(getattr(u, code)[0])
    desk = with_options(LimitSettings(**{f"max_{code}": 5.5 * each}))
    assert desk.want(5, instrument=CALL.id) == []
    assert desk.want(6, instrument=CALL.id) == [code]  # 5 are open and one more would be 6
    assert desk.want(100_000) == []
    other = with_options(LimitSettings(**{f"max_{code}": 5.5 * each}))
    assert other.want(-6, instrument=CALL.id) == [code]
    assert other.want(-5, instrument=CALL.id) == []


def test_a_stress_loss_past_the_bound_is_refused_and_one_that_lowers_it_is_not() -> None:
    """Written options lose at the upper shocks: more are refused, shares against them pass, shares the wrong way do not."""
    free = with_options(LimitSettings(max_stress_loss=1e9), held=-10)
    carried = free.account.gate.risk.carried(STOCK.id, START)
    loss = -min(carried.worst)
    desk = with_options(LimitSettings(max_stress_loss=loss * 0.9), held=-10)
    assert desk.want(-11, instrument=CALL.id) == ["stress"]
    assert desk.want(-1) == ["stress"]
    assert desk.want(100) == []


def test_an_interval_of_linear_delta_is_what_the_grid_allows() -> None:
    """For any grid of losses the interval's ends lose the bound and a step outside loses more."""
    worst, shocks = (-40.0, -5.0, -2.0, -30.0), (-0.2, -0.1, 0.0, 0.2)
    low, high = stress_room(worst, shocks, 50.0, 100.0)

    def least(delta: float) -> float:
        return min(w + delta * 50.0 * s for w, s in zip(worst, shocks, strict=True))

    for edge, outside in ((low, -1e-6), (high, 1e-6)):
        assert least(edge) == pytest.approx(-100.0, abs=1e-9)
        assert least(edge + outside) < -100.0
    assert stress_room((0.0,), (0.0,), 50.0, 1.0) == (float("-inf"), float("inf"))
    assert stress_room((-2.0,), (0.0,), 50.0, 1.0) == (float("inf"), float("-inf"))


@pytest.mark.parametrize(
    ("bounds", "code"),
    [({"max_delta": 1e9}, "delta"), ({"max_stress_loss": 1e9}, "stress"), ({"hedge_band": 1e9}, "hedge_direction")],
)
def test_risk_that_is_not_known_lets_nothing_out(bounds: dict[str, float], code: str) -> None:
    """Without a price of the underlying no order that a limit of risk would have to weigh leaves."""
    desk = with_options(LimitSettings(**bounds), held=10)
    desk.run.play([quote(STOCK.id, SECOND, 100.0, None)], finish=False)
    assert desk.want(-5, at=SECOND) == [code]


def test_a_bound_of_one_underlying_is_its_own() -> None:
    """The table of an underlying goes before the common bound."""
    desk = with_options(LimitSettings(max_delta=1e6, by_underlying={STOCK.id: UnderlyingLimits(max_delta=10.0)}))
    assert desk.want(11) == ["delta"]
    assert desk.want(10) == []


def test_a_proxy_counts_toward_the_underlying_it_hedges() -> None:
    """A future of multiplier 50 that hedges the index at beta 2 and an equal price adds 100 of its delta."""
    index = Index(id="INDEX:IX")
    es = future()
    desk = Desk(
        LimitSettings(max_delta=250.0), instruments=[index, es], needed=(index.id, es.id),
        proxies={es.id: Proxy(index.id, 2.0)},
    )  # fmt: skip
    assert desk.want(3, instrument=es.id) == ["delta"]
    assert desk.want(2, instrument=es.id) == []
    assert desk.account.gate.net_delta(index.id, START) == pytest.approx((0.0, 200.0))


def test_deltas_move_with_the_price_between_valuations_and_are_done_anew_past_a_hundredth() -> None:
    """Half a hundredth on, the net delta has moved by gamma; two hundredths on it is the exact one again."""
    desk = with_options(LimitSettings(max_delta=1e9), held=10)
    before = desk.account.gate.net_delta(STOCK.id, START).low
    desk.run.play([quote(STOCK.id, 1, 100.49, 100.51)], finish=False)
    gamma = 1000.0 * float(desk.run.valuation.contract_greeks(STOCK.id, START).gamma[0])
    moved = desk.account.gate.net_delta(STOCK.id, START).low
    assert moved - before == pytest.approx(0.5 * gamma, rel=0.02)
    desk.run.play([quote(STOCK.id, 2, 101.99, 102.01)], finish=False)
    exact = 1000.0 * float(desk.run.valuation.contract_greeks(STOCK.id, START + 2).delta[0])
    assert desk.account.gate.net_delta(STOCK.id, START).low == pytest.approx(exact, rel=1e-9)


def test_an_expired_option_carries_nothing() -> None:
    """At its expiry a holding leaves the net delta though no valuation has come since."""
    short = option(days=0.01)
    desk = Desk(
        LimitSettings(max_delta=1e9),
        instruments=[STOCK, short],
        openings=[(short.id, 10)],
        valuation=BY_MODEL,
        remark=10**18,
    )
    assert desk.account.gate.net_delta(STOCK.id, START).low > 100
    desk.run.play([quote(STOCK.id, 20 * MINUTE, 120.0, 120.02)], finish=False)
    assert desk.account.gate.net_delta(STOCK.id, START + 20 * MINUTE).low == pytest.approx(
        float(desk.account.ledger.book.quantity(STOCK.id))
    )


# --------------------------------------------------------------------------- words of a person


def test_a_limit_is_tightened_on_the_record_and_never_widened() -> None:
    """`tighten` comes into force at once and is a fact; a wider bound is an alarm and changes nothing."""
    desk = Desk(LimitSettings(max_position=D(9)))
    desk.control("tighten", "max_position=4")
    assert desk.want(5) == ["position"]
    desk.control("tighten", "max_position=9")
    desk.control("tighten", "nonsense")
    assert desk.want(5) == ["position"]
    assert [f.argument for f in desk.facts(Controlled)] == ["max_position=4"]
    assert [f.alarm.code for f in desk.facts(Alarmed)].count("refused_control") == 2


def test_what_was_tightened_holds_after_a_restart_unless_the_configuration_is_another() -> None:
    """Restored from the facts the bound is the tight one; a process with another configuration has its own."""
    facts = [
        Controlled(account="a", verb="tighten", argument="max_position=4"),
        Controlled(account="a", verb="tighten", argument="max_position=bad"),
    ]
    standing = Standing()
    for fact in facts:
        standing = standing.apply(fact)
    desk = Desk(LimitSettings(max_position=D(9)))
    desk.account.gate.restore(standing)
    assert desk.want(5) == ["position"]
    desk = Desk(LimitSettings(max_position=D(9)))
    desk.account.gate.restore(standing.reconfigured())
    assert desk.want(5) == []


def test_the_mode_changes_by_a_restart_only() -> None:
    """A word about the mode is refused with an alarm."""
    desk = Desk(mode=Mode(stage="observe"))
    desk.control("mode", "live")
    assert desk.account.gate.mode.stage == "observe"
    assert [f.alarm.code for f in desk.facts(Alarmed)] == ["refused_control"]
    assert desk.facts(Controlled) == []


# --------------------------------------------------------------------------- modes


def test_observe_decides_and_sends_nothing() -> None:
    """What would have been sent is on the record with its reason; limits still speak first."""
    desk = Desk(LimitSettings(max_order_quantity=D(10)), mode=Mode(stage="observe"))
    assert desk.want(5) == ["observe"]
    assert desk.want(11) == ["order_quantity"]
    assert desk.out.orders == []
    assert [(r.refusal.code, r.refusal.quantity) for r in desk.facts(Refused)] == [
        ("observe", 5),
        ("order_quantity", 11),
    ]
    assert desk.run.held() == 0


def ticket_of(desk: Desk) -> str:
    """The ticket of the order that waits."""
    (kept,) = desk.account.gate.waiting.values()
    return kept.ticket


def test_confirm_waits_for_a_person_and_sends_what_was_approved() -> None:
    """One order waits, however often it is decided anew; approval sends it and records who let it go."""
    desk = Desk(mode=Mode(stage="confirm"))
    assert desk.want(5) == []
    assert desk.want(7, at=1) == []
    assert desk.out.orders == []
    assert [f.alarm.code for f in desk.facts(Alarmed)] == ["confirm"]
    assert desk.control("approve", ticket_of(desk), at=2)
    assert [o.quantity for o in desk.out.orders] == [5]
    assert [f.verb for f in desk.facts(Controlled)] == ["approve"]
    assert [f.order.quantity for f in desk.facts(Ordered)] == [5]
    assert desk.want(7, at=3) == []
    assert len(desk.account.gate.waiting) == 1


def test_an_approval_sends_no_more_than_is_still_wanted() -> None:
    """Wanted less by now, the smaller order goes; not wanted any more, none does, and the record says so."""
    desk = Desk(mode=Mode(stage="confirm"))
    desk.want(5)
    desk.want(3, at=1)
    desk.control("approve", ticket_of(desk), at=2)
    assert [o.quantity for o in desk.out.orders] == [3]
    desk = Desk(mode=Mode(stage="confirm"))
    desk.want(5)
    desk.want(-2, at=1)
    desk.control("approve", ticket_of(desk), at=2)
    assert desk.out.orders == []
    assert desk.account.refusals == {"approval_void": 1}


def test_an_approval_does_not_pass_a_limit() -> None:
    """The gate is asked again when a person approves: a kill or a tighter limit since then holds."""
    desk = Desk(LimitSettings(max_position=D(9)), mode=Mode(stage="confirm"))
    desk.want(5)
    desk.control("tighten", "max_position=4")
    desk.control("approve", ticket_of(desk), at=2)
    assert desk.out.orders == []
    assert desk.account.refusals["position"] == 1


def test_an_order_nobody_approves_expires() -> None:
    """After its time a ticket is worth nothing, and the record says that nobody approved."""
    desk = Desk(mode=Mode(stage="confirm", confirm_within=MINUTE))
    desk.want(5)
    ticket = ticket_of(desk)
    assert not desk.control("approve", ticket, at=MINUTE + 1)
    assert desk.account.refusals == {"not_approved": 1}
    assert desk.out.orders == []


def test_a_declined_order_is_not_sent() -> None:
    """The person's no is on the record."""
    desk = Desk(mode=Mode(stage="confirm"))
    desk.want(5)
    assert desk.control("decline", ticket_of(desk))
    assert desk.out.orders == []
    assert desk.account.refusals == {"declined": 1}


def test_a_fraction_scales_what_is_wanted_and_leaves_the_opening_book() -> None:
    """At a tenth, 57 shares become 5 and an option book of 10 that should become 0 becomes 9."""
    desk = with_options(LimitSettings(), held=10)
    desk.account.gate.scale = D("0.1")
    assert desk.want(57) == []
    assert desk.want(0, instrument=CALL.id) == []
    assert [(o.instrument, o.quantity) for o in desk.out.orders] == [(STOCK.id, 5), (CALL.id, -1)]
    assert [f.lines[0].quantity for f in desk.facts(TargetSet)] == [5, 9]


def test_a_hedger_at_half_size_hedges_half_and_its_band_means_what_it_says() -> None:
    """At half size a hedger holds half of what it holds at full size, by the same decisions."""
    prices = [100.0 + 0.3 * (i % 7) for i in range(40)]
    runs = []
    for fraction in (D(1), D("0.5")):
        run = Bench(
            [hedger(DeltaBand(half_width=10.0))], instruments=[STOCK, CALL], openings=[(CALL.id, 10)], valuation=BY_MODEL,
            gate=GateSettings(mode=Mode(size_fraction=fraction)),
        )  # fmt: skip
        run.play(minutes(prices), finish=False)
        runs.append(run)
    full, half = ([f.order.quantity for f in run.facts(Ordered)] for run in runs)
    assert abs(runs[1].held() * 2 - runs[0].held()) <= 4
    assert abs(len(full) - len(half)) <= 2
    assert [f.argument for f in runs[1].facts(Controlled)] == ["live 0.5"]
    assert runs[0].facts(Controlled) == []


@pytest.mark.parametrize(
    "settings",
    [{"size_fraction": D(0)}, {"size_fraction": D("1.1")}, {"size_fraction": D("NaN")}, {"confirm_within": 0}],
)
def test_a_mode_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    """Fractions lie above 0 and at most at 1, and a wait has a length."""
    with pytest.raises(ValueError, match="mode: "):
        Mode(**settings)


# --------------------------------------------------------------------------- the quick look


def test_the_quick_look_and_the_checks_agree_at_the_edges() -> None:
    """At every bound and one lot past it, the gate answers as its checks alone do."""
    bounds = LimitSettings(
        max_order_quantity=D(50), max_order_notional=D(4500), max_position=D(40), max_delta=30.0, hedge_band=29.0,
        max_stress_loss=560.0, price_collar=0.01, orders_per_second=10.0, max_open_orders=3,
    )  # fmt: skip

    def answers(look: Callable[[Order], bool] | None) -> list[str]:
        desk = Desk(bounds)
        if look is not None:
            desk.account.gate._is_clear = look  # type: ignore[method-assign]  # a fake
        found = []
        for q in [*range(-60, 0), *range(1, 61)]:
            for limit in (None, "99", "101", "101.01"):
                made = Order(
                    id="x", account="dynamic", instrument=STOCK.id, quantity=D(q), ts=START,
                    kind="market" if limit is None else "limit", limit=None if limit is None else D(limit),
                )  # fmt: skip
                refusal = desk.account.gate.check(made)
                found.append("" if refusal is None else refusal.code)
        return found

    assert answers(None) == answers(lambda _: False)
    assert set(answers(None)) == {
        "",
        "price_collar",
        "order_quantity",
        "order_notional",
        "position",
        "delta",
        "hedge_direction",
        "stress",
    }
