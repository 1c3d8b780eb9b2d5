"""The life of an order at the paper broker, event by event."""

from __future__ import annotations

import asyncio
import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from adapters.paper import PaperBroker, PaperOptions, read_options
from bot.core.errors import ConfigError, HaltedError
from bot.core.events import Accepted, Amend, Amended, Cancelled, Filled, Rejected
from bot.core.quiet import FOREVER
from bot.domain.costs import (
    BasisPoints,
    BasisPointSpread,
    FixedSpread,
    LinearImpact,
    PerContract,
    PermanentImpact,
    PerTicket,
    SumOf,
    TickSpread,
    VolatilitySpread,
)
from bot.domain.instruments import Future, Index, OptionContract, Perpetual, Spot, Universe
from bot.domain.margin import RegT
from bot.domain.orders import Fill, Order
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND, NS_PER_YEAR
from bot.testing.fakes import MemoryMarket

D = Decimal
T0 = 1_000 * NS_PER_SECOND
S = NS_PER_SECOND

STOCK = Spot(id="US:ACME", tick=D("0.01"), lot=D(1), calendar="XNYS")
COIN = Spot(id="BINANCE:BTC", tick=D("0.01"), lot=D("0.001"))
BARE = Spot(id="SIM:BARE")
INDEX = Index(id="INDEX:SPX", tick=D("0.01"))
FUTURE = Future(id="CME:ESH2020", multiplier=D(50), tick=D("0.25"), lot=D(1), expiry=T0 + 100 * S)
INVERSE = Perpetual(id="BINANCE:BTCUSD", multiplier=D(100), inverse=True, settlement_currency="BTC")
CALL = OptionContract(
    id="ACME  200320C00100000",
    underlying=STOCK.id,
    cp=1,
    strike=D(100),
    style="american",
    settlement="physical",
    multiplier=D(100),
    lot=D(1),
    last_trade=T0 + 100 * S,
    expiry=T0 + 100 * S,
    settles=T0 + 100 * S,
)


class Venue:
    """A paper broker driven as the loop drives it: market, then arrivals, each at its instant."""

    def __init__(self, options: PaperOptions | dict[str, Any] | None = None, *, seed: int = 0) -> None:
        self.broker = PaperBroker(options, seed=seed)
        universe = Universe([STOCK, COIN, BARE, INDEX, FUTURE, INVERSE, CALL])
        self.market = MemoryMarket(universe)
        self.broker.attach(universe, self.market, "acc")
        self.now = T0
        self.events: list[Any] = []

    def at(self, ts: int) -> Venue:
        """Let everything due by `ts` happen at its own instant, then let the market of `ts` be seen."""
        while self.broker.next_due() < ts:
            self.now = max(self.now, self.broker.next_due())
            self.events += self.broker.take_due(self.now)
        self.now = max(self.now, ts)
        self.broker.on_instant(self.now)
        self.events += self.broker.take_due(self.now)
        return self

    def show(self, bid: float, ask: float, *, of: str = STOCK.id, size: float = math.nan, after: int = S) -> Venue:
        """A quote, `after` nanoseconds later."""
        ts = self.now + after
        while self.broker.next_due() < ts:
            self.now = max(self.now, self.broker.next_due())
            self.events += self.broker.take_due(self.now)
        self.market.quote(of, ts=ts, bid=bid, ask=ask, bid_size=size, ask_size=size)
        return self.at(ts)

    def send(self, order_id: str, quantity: str | int, *, of: str = STOCK.id, **terms: Any) -> Venue:
        """An order sent now; what is due now happens."""
        terms = {"kind": "limit" if "limit" in terms else "market", **terms}
        order = Order(id=order_id, account="acc", instrument=of, quantity=D(quantity), ts=self.now, **terms)
        self.broker.accept(order, self.now)
        self.events += self.broker.take_due(self.now)
        return self

    def fills(self) -> list[Fill]:
        return [event.fill for event in self.events if isinstance(event, Filled)]

    def told(self) -> list[str]:
        """What happened, in short words."""
        return [_word(event) for event in self.events]


def _word(event: Any) -> str:
    match event:
        case Filled(fill=fill):
            return f"{fill.order_id} {fill.quantity:+}@{fill.price}"
        case Rejected(order_id=order_id, code=code):
            return f"{order_id} rejected {code}"
        case Amended(order_id=order_id, quantity=quantity, limit=limit):
            return f"{order_id} amended {quantity}@{limit}"
        case _:
            return f"{event.order_id} {type(event).__name__.lower()}"


def reason(venue: Venue) -> str:
    """The reason of the one cancel."""
    (event,) = [event for event in venue.events if isinstance(event, Cancelled)]
    return event.reason


class Hours:
    """A session from `opens` to `closes`, open at its first instant and closed at its last."""

    def __init__(self, opens: int, closes: int) -> None:
        self.opens, self.closes = opens, closes

    def is_open(self, ts: int) -> bool:
        return self.opens <= ts < self.closes


class KnownHours(Hours):
    """The same, able to say when it closes next."""

    def next_close(self, ts: int) -> int:
        return self.closes if ts < self.closes else self.closes + NS_PER_DAY


# --------------------------------------------------------------------------- market orders and what a fill says


def test_the_defaults_fill_at_the_touch_at_once_for_free() -> None:
    """A market order fills at the touch at its own instant; the fill cites quote, mid and its age."""
    venue = Venue().show(99.98, 100.02).at(T0 + 5 * S).send("a", 300).send("b", -300, closing=True)
    assert venue.told() == ["a accepted", "a +300@100.02", "b accepted", "b -300@99.98"]
    bought, sold = venue.fills()
    assert (bought.touch, bought.mid, bought.commission) == (D("100.02"), D("100.00"), D(0))
    assert (bought.ts, bought.ts - bought.quote_ts, bought.id, bought.currency) == (T0 + 5 * S, 4 * S, "a/1", "USD")
    assert (bought.closing, sold.closing) == (False, True)


def test_latency_is_event_time_and_meets_the_market_of_the_arrival() -> None:
    """An order meets the quote that stands when it arrives, not the one it was decided on."""
    venue = Venue(PaperOptions(latency=2 * S)).show(99.98, 100.02).send("a", 1)
    assert venue.broker.next_due() == venue.now + 2 * S
    venue.show(100.98, 101.02).at(venue.now + 10 * S)
    assert venue.told() == ["a accepted", "a +1@101.02"]
    assert venue.fills()[0].ts == T0 + 3 * S
    assert venue.broker.next_due() == FOREVER


def test_reports_come_late_but_say_when_it_happened() -> None:
    """With a report latency the event is heard later, and the fill keeps its instant."""
    venue = Venue(PaperOptions(latency=1 * S, report_latency=3 * S)).show(99.98, 100.02).send("a", 1)
    venue.at(T0 + 4 * S)
    assert venue.told() == []
    venue.at(T0 + 5 * S)
    assert venue.told() == ["a accepted", "a +1@100.02"]
    assert (venue.events[1].ts_recv, venue.fills()[0].ts) == (T0 + 5 * S, T0 + 2 * S)


def test_jitter_depends_on_the_seed_and_the_order_alone() -> None:
    """Other orders do not move an order's arrival; another seed does; every draw is within the jitter."""
    options = PaperOptions(latency=S, jitter=1000)

    def arrivals(names: str, seed: int) -> dict[str, int]:
        venue = Venue(options, seed=seed).show(99.98, 100.02)
        for name in names:
            venue.send(name, 1)
        sent = venue.now
        venue.at(sent + 2 * S)
        return {fill.order_id: fill.ts - sent - S for fill in venue.fills()}

    names = "abcdefghijkl"
    many = arrivals(names, 1)
    assert arrivals("l", 1)["l"] == many["l"]
    assert arrivals(names[::-1], 1) == many
    assert arrivals(names, 2) != many
    assert all(0 <= draw <= 1000 for draw in many.values())
    assert len(set(many.values())) > 5


def test_a_repeated_id_is_counted_and_ignored() -> None:
    """The same id again, even after the fill, changes nothing."""
    venue = Venue().show(99.98, 100.02).send("a", 1).send("a", 5)
    assert venue.told() == ["a accepted", "a +1@100.02"]
    assert venue.broker.repeated == 1


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("of", "quantity", "terms", "code"),
    [
        ("US:NOBODY", "1", {}, "unknown_instrument"),
        (STOCK.id, "1.5", {}, "fractional"),
        (COIN.id, "0.0005", {}, "fractional"),
        (BARE.id, "0.5", {}, "fractional"),
        (STOCK.id, "1", {"limit": D("99.005")}, "off_tick"),
        (STOCK.id, "1", {"limit": D(99), "tif": "gtd", "expires": T0}, "too_late"),
        (INDEX.id, "1", {}, "no_spread"),
    ],
)
def test_what_the_venue_will_not_have_is_rejected(of: str, quantity: str, terms: dict[str, Any], code: str) -> None:
    """An order the venue cannot take is rejected with a stable code and a sentence naming the instrument or account."""
    venue = Venue().show(99.98, 100.02).send("a", quantity, of=of, **terms)
    assert venue.told() == [f"a rejected {code}"]
    assert venue.broker.next_due() == FOREVER


def test_an_order_of_another_account_is_rejected() -> None:
    """A venue serves the account it was attached for."""
    venue = Venue().show(99.98, 100.02)
    venue.broker.accept(Order(id="a", account="else", instrument=STOCK.id, quantity=D(1), ts=venue.now), venue.now)
    venue.at(venue.now)
    assert venue.told() == ["a rejected wrong_account"]


def test_fractions_fill_where_lots_or_options_allow() -> None:
    """Fractions of a lot's multiple fill, and of an instrument without a lot when the venue is fractional."""
    venue = Venue(PaperOptions(fractional=True)).show(9.0, 10.0, of=COIN.id).show(1.0, 2.0, of=BARE.id)
    venue.send("a", "0.125", of=COIN.id).send("b", "0.3", of=BARE.id)
    assert [fill.quantity for fill in venue.fills()] == [D("0.125"), D("0.3")]


def test_an_instrument_that_stopped_trading_is_rejected_and_its_orders_end() -> None:
    """At its last instant an instrument still trades; then what rests ends, and what comes is rejected."""
    venue = Venue().show(3200.0, 3200.25, of=FUTURE.id).send("r", 1, of=FUTURE.id, limit=D(3100), tif="gtc")
    venue.at(FUTURE.expiry).send("a", 1, of=FUTURE.id)
    assert venue.told() == ["r accepted", "r cancelled", "a accepted", "a +1@3200.25"]
    assert "stopped trading" in reason(venue)
    venue.at(FUTURE.expiry + 1).send("b", 1, of=FUTURE.id)
    assert venue.told()[-1] == "b rejected expired"


# --------------------------------------------------------------------------- bad quotes, closed sessions


@pytest.mark.parametrize(
    ("bid", "ask", "words"),
    [
        (math.nan, 100.02, "withdrawn"),
        (99.98, math.nan, "withdrawn"),
        (100.03, 100.02, "crossed"),
    ],
)
def test_a_bad_quote_makes_the_order_wait(bid: float, ask: float, words: str) -> None:
    """An order waits for the next good quote; ioc and fok end with the reason; `reject` rejects with it."""
    venue = Venue().show(bid, ask).send("a", 1).send("i", 1, tif="ioc").send("f", 1, tif="fok")
    assert venue.told() == ["a accepted", "i accepted", "i cancelled", "f accepted", "f cancelled"]
    assert all(words in event.reason for event in venue.events if isinstance(event, Cancelled))
    assert venue.show(99.98, 100.02).told()[-1] == "a +1@100.02"
    strict = Venue(PaperOptions(on_bad_quote="reject")).show(bid, ask).send("a", 1)
    assert strict.told() == ["a rejected bad_quote"]
    assert words in strict.events[0].text


def test_a_stale_quote_makes_the_order_wait() -> None:
    """A quote older than allowed fills nothing until the next one comes; at the limit of age it still does."""
    options = PaperOptions(stale_after=10 * S)
    assert Venue(options).show(99.98, 100.02).at(T0 + 11 * S).send("a", 1).told()[-1] == "a +1@100.02"
    venue = Venue(options).show(99.98, 100.02).at(T0 + 11 * S + 1).send("a", 1).at(T0 + 20 * S)
    assert venue.told() == ["a accepted"]
    assert venue.show(99.0, 99.5).told()[-1] == "a +1@99.5"
    assert venue.fills()[0].quote_ts == venue.now


def test_an_order_before_the_first_quote_waits_for_it() -> None:
    """Nothing was ever quoted: the order waits, or is told so."""
    assert Venue().send("a", 1).show(99.98, 100.02).told() == ["a accepted", "a +1@100.02"]
    assert "no quote yet" in reason(Venue().send("a", 1, tif="ioc"))


@pytest.mark.parametrize("hours", [Hours, KnownHours])
def test_a_closed_session_makes_the_order_wait_for_a_quote_of_the_open_one(hours: type[Hours]) -> None:
    """Before the open nothing fills, and a quote received before it does not count after it."""
    venue = Venue()
    venue.broker.set_sessions({"XNYS": hours(T0 + 10 * S, T0 + 60 * S)})
    venue.show(99.0, 101.0).send("a", 1).show(99.1, 101.1).at(T0 + 11 * S).send("b", 1)
    assert venue.told() == ["a accepted", "b accepted"]
    assert sorted(venue.show(99.98, 100.02).told()[2:]) == ["a +1@100.02", "b +1@100.02"]


def test_a_closed_session_may_reject() -> None:
    """With `on_closed` reject, an order outside the session is rejected; other calendars are not concerned."""
    venue = Venue(PaperOptions(on_closed="reject"))
    venue.broker.set_sessions({"XNYS": Hours(T0 + 10 * S, T0 + 60 * S)})
    venue.show(99.98, 100.02).show(1.0, 2.0, of=COIN.id).send("a", 1).send("b", 1, of=COIN.id)
    assert venue.told() == ["a rejected closed_session", "b accepted", "b +1@2.0"]


def test_the_closing_instant_belongs_to_the_session() -> None:
    """An order at the very close meets the quote of the last bar; a nanosecond later it does not."""
    venue = Venue()
    venue.broker.set_sessions({"XNYS": KnownHours(T0, T0 + 60 * S)})
    venue.show(99.98, 100.02, after=60 * S).send("a", 1).at(T0 + 60 * S + 1).send("b", 1)
    assert venue.told() == ["a accepted", "a +1@100.02", "b accepted"]


@pytest.mark.parametrize("hours", [Hours, KnownHours])
def test_a_day_order_ends_at_the_close(hours: type[Hours]) -> None:
    """What rests for the day is cancelled when its session closes, saying what it waited for."""
    venue = Venue()
    venue.broker.set_sessions({"XNYS": hours(T0, T0 + 60 * S)})
    venue.show(99.98, 100.02).send("a", 1, limit=D(90)).at(T0 + 61 * S)
    assert venue.told() == ["a accepted", "a cancelled"]
    assert reason(venue) == "its day ended: its limit is not reached"


class TwoDays(Hours):
    """Two sessions of 60 seconds, 100 seconds apart, in a table that ends with the second."""

    def is_open(self, ts: int) -> bool:
        return 0 <= ts - T0 < 60 * S or 100 * S <= ts - T0 < 160 * S

    def next_close(self, ts: int) -> int:
        for close in (T0 + 60 * S, T0 + 160 * S):
            if ts < close:
                return close
        raise ValueError("no close after that")


def test_a_quote_of_the_session_before_fills_nothing() -> None:
    """However old a quote may be, one of yesterday's session does not fill this morning's order."""
    venue = Venue(PaperOptions(stale_after=None))
    venue.broker.set_sessions({"XNYS": TwoDays(0, 0)})
    venue.show(99.98, 100.02, after=60 * S).at(T0 + 101 * S).send("a", 1)
    assert venue.told() == ["a accepted"]
    assert venue.show(99.0, 99.5).told()[-1] == "a +1@99.5"


def test_a_calendar_that_ends_leaves_the_order_alive() -> None:
    """At the last close of the table a quote still fills, and no close is looked for beyond it."""
    venue = Venue()
    venue.broker.set_sessions({"XNYS": TwoDays(0, 0)})
    venue.show(99.98, 100.02, after=160 * S).send("a", 1).at(T0 + 170 * S).send("b", 1)
    assert venue.told() == ["a accepted", "a +1@100.02", "b accepted"]


def test_a_halt_is_a_closed_session() -> None:
    """While halted nothing fills, and a day order survives the halt."""
    venue = Venue().show(99.98, 100.02)
    venue.broker.set_halted(STOCK.id, halted=True)
    venue.send("a", 1).show(99.9, 100.1)
    assert venue.told() == ["a accepted"]
    venue.broker.set_halted(STOCK.id, halted=False)
    assert venue.show(99.8, 100.0).told()[-1] == "a +1@100.0"


# --------------------------------------------------------------------------- limits, time in force


def test_a_marketable_limit_takes_the_touch_and_a_resting_one_its_limit() -> None:
    """Price improvement exists on arrival only: a rested order fills at its limit when the touch reaches it."""
    venue = Venue().show(99.98, 100.02).send("a", 1, limit=D("100.50")).send("b", 1, limit=D("99.50"))
    assert venue.told() == ["a accepted", "a +1@100.02", "b accepted"]
    assert venue.show(99.48, 99.51).told()[3:] == []
    assert venue.show(99.0, 99.1).told()[3:] == ["b +1@99.50"]
    assert (venue.fills()[1].touch, venue.fills()[1].mid) == (D("99.1"), D("99.05"))


def test_a_sell_limit_mirrors() -> None:
    """A resting sale fills at its limit once the bid reaches it."""
    venue = Venue().show(99.98, 100.02).send("a", -1, limit=D("100.50")).show(100.50, 100.60)
    assert venue.told() == ["a accepted", "a -1@100.50"]


def test_the_better_limit_and_the_earlier_order_go_first() -> None:
    """What is displayed goes to market orders, then better limits, then earlier orders."""
    venue = Venue(PaperOptions(beyond="partial")).show(99.98, 100.02, size=1)
    venue.send("low", 2, limit=D("99.00")).send("early", 2, limit=D("99.50")).send("late", 2, limit=D("99.50"))
    venue.show(98.0, 98.5, size=5)
    assert venue.told()[3:] == ["early +2@99.50", "late +2@99.50", "low +1@99.00"]


def test_good_till_date_ends_at_its_date() -> None:
    """A gtd order may fill up to and including its instant, then ends; gtc stays."""
    venue = Venue().show(99.98, 100.02).send("d", 1, limit=D(99), tif="gtd", expires=T0 + 10 * S)
    venue.send("c", 1, limit=D(99), tif="gtc").at(T0 + 10 * S + 1)
    assert venue.told() == ["d accepted", "c accepted", "d cancelled"]
    assert venue.broker.next_due() == FOREVER
    last = Venue().show(99.98, 100.02).send("d", 1, limit=D(99), tif="gtd", expires=T0 + 10 * S)
    assert last.show(98.0, 98.5, after=9 * S).told() == ["d accepted", "d +1@99"]


def test_without_a_calendar_a_day_is_24_hours() -> None:
    """Where no calendar is known a day order ends a day after it arrived."""
    venue = Venue().show(99.98, 100.02).send("a", 1, limit=D(90))
    assert venue.broker.next_due() == venue.now + NS_PER_DAY


def test_immediate_or_cancel_takes_what_is_there() -> None:
    """ioc fills what it can and ends; fok fills all or nothing."""
    venue = Venue(PaperOptions(beyond="partial")).show(99.98, 100.02, size=3)
    venue.send("f", 5, tif="fok").send("i", 5, tif="ioc").send("g", 5, limit=D(99), tif="ioc")
    assert venue.told() == ["f accepted", "f cancelled", "i accepted", "i +3@100.02", "i cancelled",
                            "g accepted", "g cancelled"]  # fmt: skip
    reasons = [event.reason for event in venue.events if isinstance(event, Cancelled)]
    assert reasons == [
        "fok: not all of it can be filled at once",
        "ioc: the displayed size is used up",
        "ioc: its limit is not reached",
    ]


# --------------------------------------------------------------------------- size


def test_partial_fills_take_each_quote_once() -> None:
    """What is displayed is taken once per quote, by one order or by several; a new quote shows its size anew."""
    venue = Venue(PaperOptions(beyond="partial")).show(99.98, 100.02, size=3).send("a", 5).send("b", 2).send("c", -2)
    assert venue.told() == ["a accepted", "a +3@100.02", "b accepted", "c accepted", "c -2@99.98"]
    venue.at(venue.now + S).show(99.98, 100.02, size=3)
    assert venue.told()[5:] == ["a +2@100.02", "b +1@100.02"]
    assert [fill.id for fill in venue.fills() if fill.order_id == "a"] == ["a/1", "a/2"]
    assert venue.show(99.98, 100.02, size=3).told()[7:] == ["b +1@100.02"]


def test_size_beyond_the_display_walks_on() -> None:
    """The displayed part fills at the touch and the rest at the impact model's average, rounded to the tick."""
    options = PaperOptions(beyond="impact", impact=LinearImpact(coefficient=D("0.001")))
    venue = Venue(options).show(99.98, 100.02, size=10).send("a", 30)
    assert venue.told() == ["a accepted", "a +10@100.02", "a +20@100.23"]
    assert [fill.touch for fill in venue.fills()] == [D("100.02")] * 2


def test_an_assumed_size_stands_in_where_none_is_said() -> None:
    """A venue that does not say its size shows the assumed one, by id before kind before everything."""
    options = PaperOptions(beyond="partial", assumed_size={STOCK.id: D(4), "spot": D(2), "*": D(1)})
    venue = Venue(options).show(99.98, 100.02).show(9.0, 10.0, of=COIN.id).show(3200.0, 3200.25, of=FUTURE.id)
    venue.send("a", 9).send("b", 9, of=COIN.id).send("c", 9, of=FUTURE.id)
    assert [fill.quantity for fill in venue.fills()] == [4, 2, 1]


def test_permanent_impact_lasts_and_never_helps() -> None:
    """After a purchase later purchases pay more and sales get the touch, no better."""
    options = PaperOptions(permanent=PermanentImpact(coefficient=D("0.1"), adv=D(10_000)))
    venue = Venue(options).show(99.98, 100.00).send("a", 100).send("b", 1).send("c", -1)
    assert venue.told()[1::2] == ["a +100@100.0", "b +1@100.10", "c -1@99.98"]


# --------------------------------------------------------------------------- cancel and amend


def test_a_cancel_takes_its_time_and_loses_no_fill() -> None:
    """A fill before the cancel arrives stands; the cancel then drops what is left."""
    venue = Venue(PaperOptions(beyond="partial", cancel_latency=5 * S)).show(99.98, 100.02, size=3).send("a", 5)
    venue.broker.drop("a", venue.now, "asked")
    venue.show(99.98, 100.02, size=1).at(venue.now + 10 * S).show(99.98, 100.02, size=9)
    assert venue.told() == ["a accepted", "a +3@100.02", "a +1@100.02", "a cancelled"]
    assert reason(venue) == "asked"


def test_a_cancel_never_overtakes_its_order() -> None:
    """A cancel sent right after a slow order arrives with it, and the order is dead after that."""
    venue = Venue(PaperOptions(latency=10 * S, cancel_latency=0)).show(99.98, 100.02).send("a", 1, limit=D(99))
    venue.broker.drop("a", venue.now, "asked")
    assert venue.broker.take_due(venue.now) == []
    venue.at(venue.now + 20 * S).show(98.0, 98.5)
    assert venue.told() == ["a accepted", "a cancelled"]


def test_cancels_of_done_or_unknown_orders_change_nothing() -> None:
    """Too late or unheard of: no event, no error."""
    venue = Venue().show(99.98, 100.02).send("a", 1)
    for order_id in ("a", "nobody"):
        venue.broker.drop(order_id, venue.now, "asked")
    venue.broker.change(Amend(order_id="nobody", ts=venue.now, quantity=D(1), limit=None), venue.now)
    assert venue.at(venue.now + S).told() == ["a accepted", "a +1@100.02"]


def amend(venue: Venue, quantity: str, limit: str | None) -> list[str]:
    """Amend order `a` now; what it led to."""
    before = len(venue.events)
    amended = Amend(order_id="a", ts=venue.now, quantity=D(quantity), limit=None if limit is None else D(limit))
    venue.broker.change(amended, venue.now)
    venue.at(venue.now)
    return venue.told()[before:]


def test_an_amended_limit_may_become_marketable() -> None:
    """A limit amended through the market takes the touch, as on arrival."""
    venue = Venue().show(99.98, 100.02).send("a", 5, limit=D(99))
    assert amend(venue, "7", "101") == ["a amended 7@101", "a +7@100.02"]


def test_an_amend_cannot_go_below_what_is_filled() -> None:
    """Amended to what is filled, or below, the order keeps its fills and ends."""
    venue = Venue(PaperOptions(beyond="partial")).show(99.98, 100.02, size=3).send("a", 5, limit=D("100.02"))
    assert amend(venue, "2", "100.02") == ["a amended 3@100.02", "a cancelled"]
    assert venue.show(99.98, 100.02, size=9).fills()[-1].id == "a/1"


@pytest.mark.parametrize(
    ("quantity", "limit"), [("-5", "99"), ("2.5", "99"), ("5", None), ("5", "99.001"), ("NaN", "99")]
)
def test_an_amend_that_cannot_be_made_is_answered_with_what_stands(quantity: str, limit: str | None) -> None:
    """Another side, a fraction, no limit or one off its tick: the answer says what stands, and it stands."""
    venue = Venue().show(99.98, 100.02).send("a", 5, limit=D(99))
    assert amend(venue, quantity, limit) == ["a amended 5@99"]
    assert venue.show(98.0, 98.5).told()[-1] == "a +5@99"


def test_an_amend_loses_priority() -> None:
    """An amended order queues behind those of its price."""
    venue = Venue(PaperOptions(beyond="partial")).show(99.98, 100.02, size=1)
    venue.send("a", 1, limit=D(99)).send("b", 1, limit=D(99))
    amend(venue, "1", "99")
    assert venue.show(98.0, 98.5, size=1).told()[-1] == "b +1@99"


# --------------------------------------------------------------------------- spreads for last prices


@pytest.mark.parametrize(
    ("spread", "bought", "sold"),
    [
        (FixedSpread(half=D("0.25")), "3700.90", "3700.40"),
        (TickSpread(ticks=D(5)), "3700.70", "3700.60"),
        (BasisPointSpread(bp=D(1)), "3701.03", "3700.27"),
        (VolatilitySpread(k=1.0, vol=0.1, interval=NS_PER_YEAR), "4070.72", "3330.58"),
    ],
)
def test_an_index_fills_around_its_last_at_a_stated_spread(spread: Any, bought: str, sold: str) -> None:
    """With an assumed spread an index stands in for its replication, and the fill cites the print."""
    venue = Venue(PaperOptions(spreads={"index": spread}))
    venue.market.trade(INDEX.id, ts=T0 + S, price=3700.65)
    venue.at(T0 + 2 * S).send("a", 1, of=INDEX.id).send("b", -1, of=INDEX.id)
    assert [fill.price for fill in venue.fills()] == [D(bought), D(sold)]
    assert venue.fills()[0].quote_ts == T0 + S
    assert venue.fills()[0].touch == D(bought)


@pytest.mark.parametrize("key", ["*", "index"])
def test_an_index_quoted_by_default_is_still_rejected(key: str) -> None:
    """That everything fills as quoted says nothing of an index; naming its id does."""
    venue = Venue({"spreads": {key: {"kind": "quoted"}}}).show(3700.0, 3700.0, of=INDEX.id).send("a", 1, of=INDEX.id)
    assert venue.told() == ["a rejected no_spread"]
    stated = Venue({"spreads": {INDEX.id: {"kind": "quoted"}}}).show(3700.0, 3700.5, of=INDEX.id)
    assert stated.send("a", 1, of=INDEX.id).told() == ["a accepted", "a +1@3700.5"]


def test_a_measured_volatility_widens_the_spread() -> None:
    """Without a given vol the spread waits for two prints, then follows their volatility."""
    venue = Venue(PaperOptions(spreads={BARE.id: VolatilitySpread(k=2.0, interval=60 * S)}))
    assert venue.broker.watching

    def show_print(price: float) -> None:
        venue.market.trade(BARE.id, ts=venue.now + 60 * S, price=price)
        venue.at(venue.now + 60 * S)

    show_print(100.0)
    venue.send("a", 1, of=BARE.id)
    assert venue.told() == ["a accepted"]
    show_print(101.0)
    (fill,) = venue.fills()
    # one move of ln(101/100) in one minute, so a standard deviation over a minute is that move itself
    assert float(fill.price) == pytest.approx(101.0 + 2.0 * math.log(1.01) * 101.0, rel=1e-7)


def test_instruments_with_quotes_need_no_spread_model() -> None:
    """Without a model anything but an index fills as quoted, whatever was printed."""
    venue = Venue().show(99.98, 100.02)
    venue.market.trade(STOCK.id, ts=venue.now + 1, price=50.0)
    assert venue.at(venue.now + 2).send("a", 1).told()[-1] == "a +1@100.02"


# --------------------------------------------------------------------------- money


def test_a_minimum_is_charged_once_per_order() -> None:
    """Partial fills of one order share its minimum; another order pays its own."""
    fees = SumOf(parts=(PerContract(rate=D("0.005"), minimum=D(1)), PerTicket(amount=D("0.10"))))
    venue = Venue(PaperOptions(beyond="partial", commissions={"spot": fees})).show(99.98, 100.02, size=100)
    venue.send("a", 300)
    for _ in range(2):
        venue.show(99.98, 100.02, size=100)
    venue.show(99.98, 100.02, size=100).send("b", 1)
    assert [fill.commission for fill in venue.fills()] == [D("1.10"), D(0), D("0.50"), D("1.10")]


def test_commissions_go_by_id_then_kind_then_everything() -> None:
    """The nearest entry of the table is charged."""
    table = {STOCK.id: PerTicket(amount=D(1)), "spot": PerTicket(amount=D(2)), "*": PerTicket(amount=D(3))}
    venue = Venue(PaperOptions(commissions=dict(table))).show(99.98, 100.02).show(9.0, 10.0, of=COIN.id)
    venue.show(3200.0, 3200.25, of=FUTURE.id).send("a", 1).send("b", 1, of=COIN.id).send("c", 1, of=FUTURE.id)
    assert [fill.commission for fill in venue.fills()] == [1, 2, 3]


def test_an_inverse_contract_is_charged_in_its_coin() -> None:
    """The fill of an inverse perpetual is in its settlement currency."""
    venue = Venue({"commission": {"kind": "basis_points", "bp": 5}}).show(59_999.0, 60_000.0, of=INVERSE.id)
    venue.send("a", 10, of=INVERSE.id)
    assert (venue.fills()[0].currency, venue.fills()[0].commission) == ("BTC", D("0.00000833"))


def test_the_snapshot_agrees_with_the_fills() -> None:
    """Positions are the sum of fills, cash what was paid, orders what is alive, fills those since an instant."""
    venue = Venue(PaperOptions(cash={"USD": D(1000)}, commissions={"*": PerTicket(amount=D(1))})).show(99.98, 100.02)
    venue.send("a", 3).at(venue.now + S).send("b", -1).send("r", 1, limit=D(90))
    snapshot = asyncio.run(venue.broker.snapshot(venue.now))
    assert snapshot.positions == {STOCK.id: D(2)}
    assert snapshot.cash == {"USD": 1000 - 3 * D("100.02") + D("99.98") - 2}
    assert [order.order_id for order in snapshot.orders] == ["r"]
    assert [fill.order_id for fill in snapshot.fills] == ["b"]


def test_buying_power_is_checked_on_arrival() -> None:
    """Stock at 50%: 10,000 carries 199 shares at 100.00 and not 201; closing is always allowed."""
    options = PaperOptions(margin=RegT(), cash={"USD": D(10_000)})
    venue = Venue(options).show(100.0, 100.0).send("a", 201).send("b", 199).send("c", 5).send("d", -199)
    assert venue.told() == ["a rejected buying_power", "b accepted", "b +199@100.0", "c rejected buying_power",
                            "d accepted", "d -199@100.0"]  # fmt: skip
    assert "10050.00" in venue.events[0].text


def test_buying_power_counts_what_the_account_came_with() -> None:
    """Opening positions tie up margin; a short option without its underlying's price is refused by name."""
    venue = Venue(PaperOptions(margin=RegT(per_contract={FUTURE.id: D(12_000)}), cash={"USD": D(30_000)}))
    venue.broker.open_positions({STOCK.id: D(100)}, {"USD": D(-10_000)})
    venue.show(3200.0, 3200.0, of=FUTURE.id).show(3.0, 3.0, of=CALL.id).send("x", -1, of=CALL.id)
    assert "US:ACME" in venue.events[0].text
    venue.show(100.0, 100.0).send("a", 3, of=FUTURE.id).send("b", 2, of=FUTURE.id).send("c", -1, of=CALL.id)
    # equity 20,000 + 10,000 of stock; the stock ties up 5,000, a future 12,000, a short call 2,000
    assert venue.told()[1:] == [
        "a rejected buying_power",
        "b accepted",
        "b +2@3200.0",
        "c rejected buying_power",
    ]


# --------------------------------------------------------------------------- driving it


def test_next_due_is_forever_when_only_resting_orders_are_left() -> None:
    """A resting gtc order wants no instant, and a done day order leaves none behind."""
    venue = Venue().show(99.98, 100.02).send("g", 1, limit=D(90), tif="gtc").send("a", 1)
    assert venue.broker.next_due() == FOREVER
    assert venue.broker.watching


def test_orders_before_attach_are_a_fault_with_a_name() -> None:
    """A broker nobody attached says what was expected."""
    broker = PaperBroker()
    broker.accept(Order(id="a", account="acc", instrument=STOCK.id, quantity=D(1), ts=0), 0)
    with pytest.raises(HaltedError, match="attach"):
        broker.take_due(0)


# --------------------------------------------------------------------------- options


def test_options_are_read_from_a_table_of_texts_and_numbers() -> None:
    """Spans, lists of schedules and single models are understood."""
    options = read_options(
        {
            "kind": "paper",
            "latency": "20ms",
            "stale_after": "never",
            "commission": [{"kind": "per_contract", "rate": 0.85}, {"kind": "per_ticket", "amount": 50}],
            "spread": {"index": {"kind": "volatility", "k": 2, "interval": "5m"}},
            "impact": {"kind": "linear", "coefficient": 0.001},
            "permanent": {"coefficient": 0.1, "adv": 1000},
            "margin": {},
        }
    )
    assert (options.margin, options.permanent) == (RegT(), PermanentImpact(coefficient=D("0.1"), adv=D(1000)))
    assert (options.latency, options.stale_after) == (20_000_000, None)
    assert options.commissions["*"] == SumOf(parts=(PerContract(rate=D("0.85")), PerTicket(amount=D(50))))
    assert options.spreads["index"] == VolatilitySpread(k=2.0, interval=5 * NS_PER_MINUTE)
    assert options.impact == LinearImpact(coefficient=D("0.001"))


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ({"latncy": 1}, "latncy"),
        ({"margin": {"stok": 1}}, "stok"),
        ({"latency": "soon"}, "latency"),
        ({"latency": -1}, "latency"),
        ({"beyond": "magic"}, "beyond"),
        ({"commission": {"kind": "per_mile", "rate": 1}}, "per_mile"),
        ({"spread": {"kind": "fixed", "half": -1}}, "half"),
        ({"financing_rate": math.inf}, "financing_rate"),
        ({"assumed_size": {"*": 0}}, "assumed_size"),
    ],
)
def test_wrong_options_are_refused_by_key(raw: dict[str, Any], word: str) -> None:
    """A key that is unknown or holds nonsense is named in a ConfigError."""
    with pytest.raises(ConfigError, match=word):
        PaperBroker(raw)


def test_options_convert_as_plug_ins_do() -> None:
    """The broker class carries its options type, which reads plain tables."""
    options = msgspec.convert({"latency": 5, "commissions": {"*": {"kind": "per_ticket", "amount": "50"}}},
                              PaperBroker.Options, strict=False)  # fmt: skip
    assert PaperBroker(options, seed=3).options.commissions == {"*": PerTicket(amount=D(50))}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (PaperOptions(), "ignored: any size fills at the touch"),
        (PaperOptions(beyond="partial"), "waits for the next quote"),
        (PaperOptions(beyond="impact"), "square root"),
        (
            PaperOptions(latency=20_000_000, jitter=5_000_000),
            "20ms after they are sent, plus a seeded draw of up to 5ms",
        ),
        (PaperOptions(stale_after=None), "never grow stale"),
        (PaperOptions(on_bad_quote="reject"), "rejected with the reason"),
        (PaperOptions(report_latency=1000), "1us later"),
        (PaperOptions(), "Spreads: as quoted."),
        (PaperOptions(spreads={"*": FixedSpread(half=D(1))}), "Spreads: assumed 1 each side of the last price."),
        (
            PaperOptions(spreads={"index": BasisPointSpread(bp=D(5)), INDEX.id: TickSpread(ticks=D(2))}),
            "Spreads: INDEX:SPX assumed 2 ticks each side of the last price; "
            "index assumed 5 basis points each side of the last price; all else as quoted.",
        ),
        (PaperOptions(commissions={"*": SumOf()}), "Commissions: none."),
        (
            PaperOptions(commissions={"spot": PerContract(rate=D("0.005"), minimum=D(1), cap=D("0.01"))}),
            "Commissions: spot 0.005 a unit, at least 1 an order, at most 0.01 of its notional; all else none.",
        ),
        (
            PaperOptions(commissions={"*": SumOf(parts=(PerTicket(amount=D(50)), BasisPoints(bp=D(2))))}),
            "Commissions: 50 an order plus 2 basis points.",
        ),
        (PaperOptions(margin=RegT()), "Buying power is checked"),
        (PaperOptions(permanent=PermanentImpact(coefficient=D(1), adv=D(2))), "permanently"),
    ],
)
def test_assumptions_say_what_is_in_force(options: PaperOptions, words: str) -> None:
    """Each option in force is a plain sentence for the report."""
    assert words in " ".join(PaperBroker(options).capabilities.assumptions)


def test_events_say_when_and_whose() -> None:
    """Every event carries the account and the instant."""
    venue = Venue().show(99.98, 100.02).send("a", 1).send("b", 1, of="US:NOBODY")
    assert {event.account for event in venue.events} == {"acc"}
    assert {event.ts_recv for event in venue.events} == {venue.now}
    assert [type(event) for event in venue.events] == [Accepted, Filled, Rejected]
