"""The kill ladder goes up at a word or a limit, holds while everything else fails, and comes down when a person says so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import Control, FeedEvent, Rejected, Target, TargetLine
from bot.core.ports import StrategyView
from bot.domain.orders import Order
from bot.engine import controls
from bot.engine.gate import GateSettings, Standing
from bot.engine.journal import Alarmed, Controlled, Ordered, Refused, Step, VenueSaid
from bot.engine.kill import MEANING, KillState, Rung, read_pull, rung_of, write_pull
from bot.engine.limits import LimitSettings
from strategies.policies.delta_band import DeltaBand
from tests.simulation.bench import (
    BY_MODEL,
    MINUTE,
    SECOND,
    START,
    STOCK,
    Bench,
    Script,
    hedger,
    minutes,
    option,
    quote,
)

D = Decimal
LADDER = [Rung.NO_NEW_RISK, Rung.HEDGE_ONLY, Rung.CANCEL_ALL, Rung.FLATTEN]


def word(verb: str, argument: str = "", at: int = 0, operator: str = "ann") -> Control:
    """A person's word `at` nanoseconds after the start."""
    return Control(ts_recv=START + at, verb=verb, argument=argument, operator=operator)


class Swinger(Script):
    """Wants 5 more of the stock at every quote, or 5 fewer on odd ones: always something new."""

    def __init__(self, *, step: int = 5, **rest: Any) -> None:
        super().__init__(ticks=True, on_wake=self._more, **rest)
        self.holding = 0
        self.step = step

    def _more(self, view: StrategyView) -> Sequence[Target]:
        self.holding += self.step
        return [self.want(STOCK.id, self.holding)]


def sent_after(run: Bench, at: int) -> list[Order]:
    """Orders recorded in steps later than `at` after the start."""
    steps: list[Step] = run.journal.steps
    return [f.order for s in steps if s.ts > START + at for f in s.facts if isinstance(f, Ordered)]


# --------------------------------------------------------------------------- the state


@pytest.mark.parametrize(("text", "rung"), [("3", 3), ("hedge_only", 3), ("Hedge-Only", 3), (" 5 ", 5), ("flatten", 5)])
def test_a_rung_is_read_by_number_or_name(text: str, rung: int) -> None:
    """Digits, names and hyphens name the same rung."""
    assert rung_of(text) == rung


@pytest.mark.parametrize("text", ["", "6", "-1", "all", "³", "1.0", "flatten now"])
def test_a_level_that_cannot_be_read_is_a_cancel_all(text: str) -> None:
    """Whoever calls for a kill in words nobody knows gets the rung that stops every order."""
    with pytest.raises(ValueError, match="expected one of"):
        rung_of(text)
    rung, cause = read_pull(text)
    assert rung is Rung.CANCEL_ALL
    assert "kill level" in cause


@given(st.lists(st.tuples(st.sampled_from(list(Rung)), st.text(max_size=20))))
def test_the_ladder_never_goes_down_by_a_pull(pulls: list[tuple[Rung, str]]) -> None:
    """After any pulls the rung is the highest asked for, and a fold of their facts says the same."""
    state = folded = KillState()
    for rung, cause in pulls:
        state = state.pulled(rung, cause)
        folded = folded.apply(Controlled(account="a", verb="kill", argument=write_pull(rung, cause)))
    assert state.rung == folded.rung == max((rung for rung, _ in pulls), default=Rung.NONE)
    assert folded.apply(Controlled(account="a", verb="clear")) == KillState()
    assert folded.apply(Controlled(account="a", verb="halt")) == folded


def test_every_rung_has_a_meaning() -> None:
    """The words of the page exist for each rung."""
    assert set(MEANING) == set(Rung)


def test_the_standing_survives_bytes() -> None:
    """What is folded is written and read back as it is."""
    facts = [
        Controlled(account="a", verb="kill", argument="hedge_only: drawdown: 5.00 below"),
        Controlled(account="a", verb="tighten", argument="max_position=4"),
        Controlled(account="a", verb="throttle", argument="main: turned round"),
        Controlled(account="a", verb="day", argument="19724 100000.25"),
        Controlled(account="a", verb="peak", argument="100010.5"),
    ]
    standing = Standing()
    for fact in facts:
        standing = standing.apply(fact)
    again = msgspec.json.decode(msgspec.json.encode(standing), type=Standing)
    assert again == standing
    assert standing.kill == KillState(Rung.HEDGE_ONLY, "drawdown: 5.00 below")
    assert standing.throttled == {"main": "turned round"}
    assert (standing.day, standing.day_equity, standing.peak) == (19724, D("100000.25"), D("100010.5"))
    assert standing.apply(Controlled(account="a", verb="enable", argument="main")).throttled == {}
    assert standing.reconfigured().tightened == ()


# --------------------------------------------------------------------------- the rungs in a run


@pytest.mark.parametrize("rung", [Rung.NONE, Rung.ALERT, *LADDER])
def test_each_rung_lets_what_it_says(rung: Rung) -> None:
    """A strategy that adds risk goes on up to the alert and sends nothing from `no_new_risk` on."""
    run = Bench([Swinger()]).play([*minutes([100.0] * 3), word("kill", rung.word, 2 * MINUTE)], finish=False)
    before = run.account.order_count
    run.play([q for q in minutes([100.0] * 8) if q.ts_recv > START + 2 * MINUTE], finish=False)
    later = [o for o in sent_after(run, 2 * MINUTE) if o.reason != "kill: flatten"]
    assert before > 0
    assert bool(later) == (rung < Rung.NO_NEW_RISK)
    if rung >= Rung.NO_NEW_RISK:
        assert run.account.refusals["kill"] >= 1
        assert {f.refusal.code for f in run.facts(Refused)} == {"kill"}
    assert (run.held() == 0) == (rung is Rung.FLATTEN)


def test_no_new_risk_lets_a_position_come_down() -> None:
    """On rung 2 a sale toward zero passes, one past zero does not; on rung 3 neither is a hedge."""
    for rung, expected in ((Rung.NO_NEW_RISK, [5, -3]), (Rung.HEDGE_ONLY, [5, -3]), (Rung.CANCEL_ALL, [5])):
        plan: list[tuple[int, str, int | str]] = [
            (MINUTE, STOCK.id, 5),
            (3 * MINUTE, STOCK.id, 2),
            (4 * MINUTE, STOCK.id, -2),
        ]
        run = Bench([Script(plan)])
        run.play([*minutes([100.0] * 3), word("kill", rung.word, 2 * MINUTE), *minutes([100.0] * 7)[3:]])
        assert [o.quantity for o in [f.order for f in run.facts(Ordered)]] == expected, rung


@pytest.mark.parametrize(("rung", "hedges"), [(2, True), (3, True), (4, False)])
def test_hedges_go_on_below_cancel_all(rung: int, hedges: bool) -> None:
    """With options held, orders in the stock that lower the net delta leave on rungs 2 and 3 only."""
    contract = option()
    run = Bench(
        [hedger(DeltaBand(half_width=1.0))],
        instruments=[STOCK, contract],
        openings=[(contract.id, 10)],
        valuation=BY_MODEL,
    )
    run.play(
        [*minutes([100.0, 101.0]), word("kill", str(rung), MINUTE + SECOND), quote(STOCK.id, 2 * MINUTE, 104.0, 104.02)]
    )
    later = [o for o in sent_after(run, MINUTE + SECOND) if not o.closing]
    assert bool(later) == hedges
    if hedges:
        assert all(order.quantity < 0 for order in later)


def test_options_may_be_closed_on_no_new_risk_and_not_on_hedge_only() -> None:
    """Selling a held option passes rung 2 by its position; rung 3 knows hedges only."""
    contract = option()
    sent = {}
    for rung in (Rung.NO_NEW_RISK, Rung.HEDGE_ONLY):
        script = Script([(3 * MINUTE, contract.id, 4)])
        run = Bench([script], instruments=[STOCK, contract], openings=[(contract.id, 10)], valuation=BY_MODEL)
        quotes: list[FeedEvent | Control] = []
        for i in range(6):
            quotes += [quote(STOCK.id, i * MINUTE, 100.0, 100.02), quote(contract.id, i * MINUTE, 2.4, 2.5)]
        run.play([*quotes[:4], word("kill", rung.word, 2 * MINUTE), *quotes[6:]], finish=False)
        sent[rung] = [f.order.quantity for f in run.facts(Ordered)]
    assert sent == {Rung.NO_NEW_RISK: [D(-6)], Rung.HEDGE_ONLY: []}


def resting(run: Bench) -> list[str]:
    """Ids of open orders."""
    return list(run.account.open_ids)


def rest(**settings: Any) -> Bench:
    """A run with a buy that rests far below the market."""
    target = {"kind": "limit", "limits": {STOCK.id: D("90")}, "tif": "gtc"}
    run = Bench([Script([(MINUTE, STOCK.id, 6)], target=target)], **settings).play(minutes([100.0] * 3), finish=False)
    assert len(resting(run)) == 1
    return run


@pytest.mark.parametrize("rung", LADDER)
def test_open_orders_that_add_risk_are_cancelled(rung: Rung) -> None:
    """From `no_new_risk` on a resting purchase is asked to be dropped, and is."""
    run = rest()
    run.play([word("kill", rung.word, 2 * MINUTE + 1), *minutes([100.0] * 5)[3:]], finish=False)
    assert resting(run) == []
    assert [f.what for f in run.facts(VenueSaid)] == ["accepted", "cancelled"]


def test_an_alert_changes_nothing_but_is_told() -> None:
    """Rung 1 leaves orders alone and raises an alarm."""
    run = rest()
    run.play([word("kill", "alert", 2 * MINUTE + 1)], finish=False)
    assert len(resting(run)) == 1
    assert "kill" in [f.alarm.code for f in run.facts(Alarmed)]


def test_flatten_closes_every_holding_once_and_stays_flat() -> None:
    """Stock and options of two books are closed by one order each, split as they are held, and nothing follows."""
    contract = option()
    a = Script([(MINUTE, STOCK.id, 7)], book="a", name="a", ticks=True)
    b = Script([(MINUTE, STOCK.id, -3)], book="b", name="b")
    run = Bench([a, b], instruments=[STOCK, contract], openings=[(contract.id, -4)], valuation=BY_MODEL)
    quotes: list[FeedEvent | Control] = []
    for i in range(8):
        quotes += [quote(STOCK.id, i * MINUTE, 100.0, 100.02), quote(contract.id, i * MINUTE, 2.4, 2.5)]
    run.play([*quotes[:6], word("kill", "flatten", 2 * MINUTE + 1), *quotes[6:]], finish=False)
    closing = [f.order for f in run.facts(Ordered) if f.order.reason == "kill: flatten"]
    assert sorted((o.instrument, o.quantity) for o in closing) == sorted([(STOCK.id, D(-4)), (contract.id, D(4))])
    assert run.account.ledger.quantities() == {}
    assert all(o.closing for o in closing)


def test_flatten_waits_for_cancels_and_tries_again_after_a_reject() -> None:
    """A holding with an order open is closed once that order is gone; a rejected close is sent again at a valuation."""
    venue = PaperBroker(PaperOptions(on_bad_quote="reject"), seed=0)
    run = Bench([Script([(MINUTE, STOCK.id, 5)])], broker=venue).play(minutes([100.0] * 3), finish=False)
    blind = quote(STOCK.id, 2 * MINUTE + SECOND, 100.0, None)
    run.play(
        [blind, word("kill", "flatten", 2 * MINUTE + 2 * SECOND), quote(STOCK.id, 2 * MINUTE + 3 * SECOND, 99.0, None)],
        finish=False,
    )
    assert run.held() == 5
    run.play(minutes([100.0] * 6)[3:], finish=False)
    assert run.held() == 0
    assert len([f for f in run.facts(Ordered) if f.order.reason == "kill: flatten"]) >= 2


def test_flatten_gives_up_after_so_many_attempts() -> None:
    """A venue that rejects every close is asked twenty times, not for ever."""
    venue = PaperBroker(PaperOptions(on_bad_quote="reject"), seed=0)
    run = Bench([Script([(MINUTE, STOCK.id, 5)])], broker=venue).play(minutes([100.0] * 3), finish=False)
    blind = [quote(STOCK.id, 2 * MINUTE + i * 10 * SECOND, 100.0, None) for i in range(1, 400)]
    run.play([blind[0], word("kill", "flatten", 2 * MINUTE + 15 * SECOND), *blind[1:]], finish=False)
    assert len([f for f in run.facts(Ordered) if f.order.reason == "kill: flatten"]) == 20
    assert run.held() == 5


def test_frozen_and_restricted_instruments_are_not_flattened() -> None:
    """Flattening passes size limits, never a freeze or the restricted list."""
    run = Bench([Script([(MINUTE, STOCK.id, 5)])]).play(minutes([100.0] * 3), finish=False)
    run.account.freeze(STOCK.id, "test", "frozen by a test")
    run.play([word("kill", "flatten", 2 * MINUTE + 1), *minutes([100.0] * 5)[3:]], finish=False)
    assert run.held() == 5
    assert run.account.refusals["frozen"] >= 1


def test_the_ladder_is_cleared_by_a_person_and_goes_down_no_other_way() -> None:
    """A lower kill is refused with an alarm; `clear` lets orders go again."""
    run = Bench([Swinger()]).play([*minutes([100.0] * 2), word("kill", "4", MINUTE)], finish=False)
    run.play([word("kill", "1", MINUTE + 1), word("kill", "0", MINUTE + 2), *minutes([100.0] * 4)[2:]], finish=False)
    assert run.account.gate.kill.rung is Rung.CANCEL_ALL
    assert [f.alarm.code for f in run.facts(Alarmed)].count("refused_control") == 2
    before = run.account.order_count
    run.play([word("clear", "", 3 * MINUTE + 1), *minutes([100.0] * 6)[4:]], finish=False)
    assert run.account.gate.kill == KillState()
    assert run.account.order_count > before


def test_a_kill_is_rebuilt_from_the_facts() -> None:
    """Folding the journal gives the rung the account stands on, and a gate that restores it refuses."""
    run = Bench([Swinger()]).play([*minutes([100.0] * 2), word("kill", "hedge_only: drill day", MINUTE)], finish=False)
    standing = Standing()
    for step in run.journal.steps:
        for fact in step.facts:
            if fact.account == "dynamic":
                standing = standing.apply(fact)
    assert standing.kill == run.account.gate.kill
    assert standing.kill.cause == "drill day by ann"
    again = Bench([Swinger()])
    again.account.gate.restore(standing)
    again.play(minutes([100.0] * 3), finish=False)
    assert again.account.order_count == 0


def test_a_drill_walks_the_ladder_and_touches_nothing() -> None:
    """The drill tells for each rung what would be cancelled, closed and refused; positions, orders and rung are as before."""
    run = rest()

    def seen() -> tuple[object, ...]:
        account = run.account
        return account.gate.standing, dict(account.open_ids), account.ledger.quantities(), account.order_count

    before = seen()
    run.play([word("drill", "", 2 * MINUTE + 1)], finish=False)
    assert seen() == before
    told = [f.argument for f in run.facts(Controlled) if f.verb == "drill"]
    assert [text.split(":")[0] for text in told] == [rung.word for rung in list(Rung)[1:]]
    assert "cancel 1" in told[3]
    assert "cancel 0" in told[2]


@pytest.mark.parametrize("verb", ["approve", "decline", "enable"])
def test_a_word_about_nothing_is_refused(verb: str) -> None:
    """A ticket or book nobody knows is an alarm, not a fact."""
    run = Bench([Script()]).play([*minutes([100.0]), word(verb, "nobody", 1)], finish=False)
    assert run.alarms() == ["refused_control"]
    assert run.facts(Controlled) == []


# --------------------------------------------------------------------------- limits that pull a rung


def falls(levels: Sequence[float], **bounds: Any) -> Bench:
    """A run long 100 shares while the price goes through `levels`, minute by minute."""
    run = Bench([Script([(MINUTE, STOCK.id, 100)])], gate=GateSettings(limits=LimitSettings(**bounds)))
    return run.play(minutes([100.0, 100.0, 100.0, *levels]), finish=False)


def test_a_daily_loss_past_its_bound_pulls_its_rung_once() -> None:
    """A loss of the bound does nothing; past it the configured rung is pulled, told, counted and written down once."""
    assert falls([99.0, 99.0], daily_loss=D(101)).account.gate.kill.rung is Rung.NONE
    run = falls([98.9, 98.0, 97.0, 97.0], daily_loss=D(101), on_daily_loss=Rung.CANCEL_ALL)
    assert run.account.gate.kill.rung is Rung.CANCEL_ALL
    assert run.account.gate.kill.cause.startswith("daily_loss: ")
    assert run.account.gate.trips == {"daily_loss": 1}
    assert [f.verb for f in run.facts(Controlled)].count("kill") == 1


def test_a_new_day_is_measured_from_its_own_start() -> None:
    """A loss spread over two days trips neither."""
    run = Bench(
        [Script([(MINUTE, STOCK.id, 100)])],
        gate=GateSettings(limits=LimitSettings(daily_loss=D(150))),
        remark=30 * MINUTE,
    )
    day = 24 * 60 * MINUTE
    prices = [
        (0, 100.0),
        (2 * MINUTE, 100.0),
        (60 * MINUTE, 99.0),
        (day - 60 * MINUTE, 99.0),
        (day, 99.0),
        (day + 60 * MINUTE, 98.0),
        (day + 120 * MINUTE, 98.0),
    ]
    run.play([quote(STOCK.id, at, p, p + 0.02) for at, p in prices], finish=False)
    assert run.account.gate.kill.rung is Rung.NONE
    assert [f.argument.split(" ")[0] for f in run.facts(Controlled) if f.verb == "day"] == ["19724", "19725"]


def test_a_drawdown_is_measured_from_the_peak() -> None:
    """Up 200, down 250: past a drawdown of 200 though the day is down 50 only."""
    run = falls([102.0, 99.5, 99.5], drawdown=D(200))
    assert run.account.gate.kill.rung is Rung.HEDGE_ONLY
    assert run.account.gate.trips == {"drawdown": 1}
    assert falls([102.0, 100.5, 100.5], drawdown=D(200)).account.gate.kill.rung is Rung.NONE


def test_a_cleared_loss_is_measured_from_where_it_was_cleared() -> None:
    """After `clear` the same loss does not pull the rung again; a further one does."""
    run = falls([98.9, 98.9, 98.9], daily_loss=D(101))
    assert run.account.gate.kill.rung is Rung.HEDGE_ONLY
    run.play([word("clear", "", 5 * MINUTE + 1), *minutes([98.9] * 9)[6:]], finish=False)
    assert run.account.gate.kill.rung is Rung.NONE
    run.play([quote(STOCK.id, 10 * MINUTE, 97.0, 97.02), quote(STOCK.id, 12 * MINUTE, 97.0, 97.02)], finish=False)
    assert run.account.gate.kill.rung is Rung.HEDGE_ONLY


class Deaf:
    """An outlet that keeps what it was given."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.cancels: list[str] = []

    def submit(self, account: Any, order: Order) -> None:
        self.orders.append(order)

    def cancel(self, account: Any, order_id: str, reason: str) -> None:
        self.cancels.append(order_id)


def test_so_many_rejects_pull_a_rung() -> None:
    """The third reject within the window pulls `cancel_all`; rejects further apart do not."""
    for gap, rung in ((SECOND, Rung.CANCEL_ALL), (40 * SECOND, Rung.NONE)):
        bounds = LimitSettings(max_rejects=3)
        run = Bench([Script()], gate=GateSettings(limits=bounds)).play(minutes([100.0]), finish=False)
        out = Deaf()
        for i in range(3):
            target = Target(book="main", lines=(TargetLine(STOCK.id, D(5), 5.0),), reason="x")
            run.account.settle_targets(run.account.slots[0], [target], START + i * gap, out)
            said = Rejected(
                ts_recv=START + i * gap, account="dynamic", order_id=out.orders[-1].id, code="no", text="no"
            )
            run.account.hear(said, lambda _: D(1))
        controls.settle_pulls(run.account, START + 3 * gap, out)
        assert run.account.gate.kill.rung is rung


# --------------------------------------------------------------------------- while everything fails


class BrokenError(Exception):
    """What a collaborator raises."""


def _raise(*_: Any, **__: Any) -> Any:
    raise BrokenError("a collaborator failed")


class Failing:
    """Stands in for a collaborator: every method and attribute of it raises."""

    def __init__(self, inner: object, names: Sequence[str]) -> None:
        self._inner, self._names = inner, frozenset(names)

    def __getattr__(self, name: str) -> Any:
        return _raise if name in self._names else getattr(self._inner, name)


def break_marks(run: Bench) -> None:
    run.account.marks = Failing(run.marks, ["mid", "last", "reference", "bid", "ask"])  # type: ignore[assignment]  # a fake
    run.account.gate.units._marks = run.account.marks


def break_valuation(run: Bench) -> None:
    names = ["mark", "spot", "remark", "units", "legs", "slice", "price_ratio", "is_stale"]
    broken: Any = Failing(run.valuation, names)
    run.loop.valuation = run.account.valuation = broken
    run.account.gate.units._valuation = broken


def break_strategy(run: Bench) -> None:
    for slot in run.account.slots:
        slot.strategy.wake = _raise  # type: ignore[method-assign]  # a fake


def break_limits(run: Bench) -> None:
    run.account.gate._asked = (_raise,)
    run.account.gate._is_clear = _raise  # type: ignore[method-assign]  # a fake


def break_journal(run: Bench) -> None:
    run.journal.append = _raise  # type: ignore[method-assign]  # a fake


def break_venue(run: Bench) -> None:
    venue: Any = run.account.in_loop
    venue.accept = _raise


def break_sampler(run: Bench) -> None:
    run.loop.sampler.take = _raise  # type: ignore[method-assign]  # a fake


def break_feed(run: Bench) -> None:
    """The feed ends by an exception: nothing more comes from it than what a timer does."""


BREAKS: dict[str, Callable[[Bench], None]] = {
    "feed": break_feed,
    "marks": break_marks,
    "valuation": break_valuation,
    "strategy": break_strategy,
    "limits": break_limits,
    "journal": break_journal,
    "venue": break_venue,
    "sampler": break_sampler,
}


class Ledgered(PaperBroker):
    """A paper venue that notes what reaches it."""

    def __init__(self) -> None:
        super().__init__(PaperOptions(), seed=0)
        self.got: list[Order] = []
        self.dropped: list[str] = []

    def accept(self, order: Order, now: int) -> None:
        self.got.append(order)
        super().accept(order, now)

    def drop(self, order_id: str, now: int, reason: str = "") -> None:
        self.dropped.append(order_id)
        super().drop(order_id, now, reason)


@pytest.mark.parametrize("broken", sorted(BREAKS))
@pytest.mark.parametrize("rung", LADDER)
def test_every_rung_stops_new_orders_while_a_collaborator_fails(rung: Rung, broken: str) -> None:
    """With any one of eight collaborators raising, nothing that adds risk reaches the venue after the kill."""
    venue = Ledgered()
    run = Bench([Swinger()], broker=venue).play(minutes([100.0] * 3), finish=False)
    assert venue.got
    BREAKS[broken](run)
    with contextlib.suppress(BrokenError):
        run.loop.take(word("kill", rung.word, 2 * MINUTE + 1), "control")
    assert run.account.gate.kill.rung is rung
    reached = len(venue.got)
    for event in [q for q in minutes([100.0] * 8) if q.ts_recv > START + 2 * MINUTE]:
        with contextlib.suppress(BrokenError):
            run.loop.take(event, "feed")
        with contextlib.suppress(BrokenError):
            run.loop.close_open_instant()
    later = venue.got[reached:]
    assert [o for o in later if o.reason != "kill: flatten"] == []
    assert all(o.quantity < 0 for o in later)


@pytest.mark.parametrize("broken", sorted(set(BREAKS) - {"venue"}))
@pytest.mark.parametrize("rung", [Rung.CANCEL_ALL, Rung.FLATTEN])
def test_cancels_reach_the_venue_while_a_collaborator_fails(rung: Rung, broken: str) -> None:
    """A resting order is asked to be dropped though the journal, the model or anything else raises."""
    venue = Ledgered()
    run = rest(broker=venue)
    order_id = resting(run)[0]
    BREAKS[broken](run)
    with contextlib.suppress(BrokenError):
        run.loop.take(word("kill", rung.word, 2 * MINUTE + 1), "control")
    assert order_id in venue.dropped


def test_one_venue_that_raises_keeps_no_other_cancel_back() -> None:
    """Two orders rest, the first cancel raises: the second still goes."""
    target = {"kind": "limit", "limits": {STOCK.id: D("90")}, "tif": "gtc"}
    venue = Ledgered()
    a = Script([(MINUTE, STOCK.id, 6)], book="a", name="a", target=target)
    b = Script([(MINUTE + 1, STOCK.id, 6)], book="b", name="b", target=target)
    run = Bench([a, b], broker=venue).play(minutes([100.0] * 3), finish=False)
    first, second = resting(run)
    proper = venue.drop

    def drop(order_id: str, now: int, reason: str = "") -> None:
        if order_id == first:
            raise BrokenError(order_id)
        proper(order_id, now, reason)

    venue.drop = drop  # type: ignore[method-assign]  # a fake
    with contextlib.suppress(BrokenError):
        run.loop.take(word("kill", "4", 2 * MINUTE + 1), "control")
    assert second in venue.dropped


def test_orders_are_never_sent_after_their_record_failed() -> None:
    """A flatten whose record cannot be written sends no order, now or later."""
    venue = Ledgered()
    run = Bench([Script([(MINUTE, STOCK.id, 5)])], broker=venue).play(minutes([100.0] * 3), finish=False)
    proper = run.journal.append
    run.journal.append = _raise  # type: ignore[method-assign]  # a fake
    with pytest.raises(BrokenError):
        run.loop.take(word("kill", "5", 2 * MINUTE + 1), "control")
    assert [o.quantity for o in venue.got] == [5]
    assert resting(run) == []
    run.journal.append = proper  # type: ignore[method-assign]  # as it was
    run.play(minutes([100.0] * 5)[3:], finish=False)
    recorded = {f.order.id for f in run.facts(Ordered)}
    assert {o.id for o in venue.got} <= recorded
