"""An order against a quote: which executions it gives, at which exact prices."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.matching import (
    Execution,
    MatchRules,
    Touch,
    assume_touch,
    fault_of,
    latest_price,
    match,
    read_touch,
)
from bot.domain.costs import (
    BasisPointSpread,
    FixedSpread,
    LinearImpact,
    NoImpact,
    SquareRootImpact,
    TickSpread,
    VolatilitySpread,
)
from bot.domain.instruments import Spot, Universe
from bot.domain.units import NEVER
from bot.testing.fakes import MemoryMarket

D = Decimal
STOCK = Spot(id="US:ACME", tick=D("0.01"), lot=D(1))
FREE_STOCK = Spot(id="US:FREE")


def touch(bid: str = "99.98", ask: str = "100.02", *, size: str | None = None, ts: int = 10) -> Touch:
    """A touch with one size on both sides."""
    shown = None if size is None else D(size)
    return Touch(bid=D(bid), ask=D(ask), bid_size=shown, ask_size=shown, ts=ts)


def done(quantity: int, price: str, crossed: str, mid: str = "100") -> Execution:
    """An execution by hand."""
    return Execution(quantity=D(quantity), price=D(price), touch=D(crossed), mid=D(mid))


ROOT = SquareRootImpact(coefficient=D("0.001"))
WALK = MatchRules(beyond="impact", impact=ROOT)


@pytest.mark.parametrize(
    ("quantity", "rules", "size", "expected"),
    [
        (10, MatchRules(), "3", [done(10, "100.02", "100.02")]),
        (-10, MatchRules(), "3", [done(-10, "99.98", "99.98")]),
        (10, MatchRules(beyond="partial", lot=D(1)), "3", [done(3, "100.02", "100.02")]),
        (10, MatchRules(beyond="partial", lot=D(1)), "3.9", [done(3, "100.02", "100.02")]),
        (10, MatchRules(beyond="partial", lot=D(1)), None, [done(10, "100.02", "100.02")]),
        (10, MatchRules(beyond="partial", lot=D(1)), "0", []),
        # 12 beyond 3: sqrt(4) x 0.001 x 100.02 = 0.20004, rounded up to the tick for a buy, down for a sale
        (15, WALK, "3", [done(3, "100.02", "100.02"), done(12, "100.23", "100.02")]),
        (-15, WALK, "3", [done(-3, "99.98", "99.98"), done(-12, "99.78", "99.98")]),
        (15, MatchRules(beyond="impact", impact=NoImpact()), "3", [done(15, "100.02", "100.02")]),
        (15, MatchRules(beyond="impact", impact=ROOT), None, [done(15, "100.02", "100.02")]),
        (15, MatchRules(beyond="impact", impact=ROOT), "0", []),
    ],
)  # fmt: skip
def test_a_market_order_meets_the_display(
    quantity: int, rules: MatchRules, size: str | None, expected: list[Execution]
) -> None:
    """What is displayed fills at the touch; the rest fills there, waits, or walks on, as the rules say."""
    assert list(match(D(quantity), touch(size=size), instrument=STOCK, rules=rules)) == expected


@pytest.mark.parametrize(
    ("quantity", "limit", "resting", "price"),
    [
        (5, "100.02", False, "100.02"),
        (5, "100.50", False, "100.02"),
        (5, "100.01", False, None),
        (-5, "99.98", False, "99.98"),
        (-5, "99.99", False, None),
        (5, "100.50", True, "100.50"),
        (-5, "99.00", True, "99.00"),
        (5, "100.01", True, None),
    ],
)
def test_a_limit_order_is_marketable_or_not(quantity: int, limit: str, resting: bool, price: str | None) -> None:
    """An arriving limit takes the touch, one that rested fills at its limit, and neither fills beyond it."""
    executions = match(D(quantity), touch(), instrument=STOCK, limit=D(limit), resting=resting)
    assert [execution.price for execution in executions] == ([] if price is None else [D(price)])


def test_a_limit_stops_the_walk() -> None:
    """The part that would walk beyond the limit stays."""
    rules = MatchRules(beyond="impact", impact=ROOT)
    executions = match(D(15), touch(size="3"), instrument=STOCK, limit=D("100.10"), rules=rules)
    assert list(executions) == [done(3, "100.02", "100.02")]


def test_what_others_took_is_gone() -> None:
    """Displayed size already taken from this quote is not there again, and a walk begins where it ended."""
    partial = MatchRules(beyond="partial", lot=D(1))
    assert match(D(5), touch(size="6"), instrument=STOCK, rules=partial, taken=D(4))[0].quantity == 2
    assert match(D(5), touch(size="6"), instrument=STOCK, rules=partial, taken=D(6)) == ()
    linear = MatchRules(beyond="impact", impact=LinearImpact(coefficient=D("0.01")))
    (deeper,) = match(D(6), touch("9", "10", size="6"), instrument=STOCK, rules=linear, taken=D(12))
    assert deeper.price == D("10.20")


def test_our_own_shift_never_helps() -> None:
    """A shift of our making worsens the price of the same side and leaves the other at its touch."""
    up = D("0.005")
    assert match(D(1), touch(), instrument=STOCK, shift=up)[0].price == D("100.03")
    assert match(D(-1), touch(), instrument=STOCK, shift=up)[0].price == D("99.98")
    assert match(D(-1), touch(), instrument=STOCK, shift=-up)[0].price == D("99.97")
    assert match(D(1), touch(), instrument=FREE_STOCK, shift=up)[0].price == D("100.025")


def test_nobody_pays_to_sell() -> None:
    """Impact that would take a price to zero or below leaves that part unfilled."""
    rules = MatchRules(beyond="impact", impact=SquareRootImpact(coefficient=D(1)))
    assert list(match(D(-50), touch("0.05", "0.10", size="2"), instrument=STOCK, rules=rules)) == [
        done(-2, "0.05", "0.05", "0.075")
    ]


def test_a_quoted_touch_off_its_tick_is_used_as_it_stands() -> None:
    """Only computed prices are rounded: a venue's sub-tick quote is a fact."""
    (execution,) = match(D(1), touch("99.981", "100.0155"), instrument=STOCK)
    assert (execution.price, execution.mid) == (D("100.0155"), D("99.99825"))


@pytest.mark.parametrize(
    ("shown", "now", "fault"),
    [
        (touch(), 10, None),
        (touch(), 110, None),
        (touch(), 111, "stale"),
        (touch("100", "100"), 10, None),
        (touch("100.01", "100"), 10, "crossed"),
        (Touch(bid=None, ask=D(1), ts=10), 10, "one_sided"),
        (Touch(bid=D(1), ask=None, ts=10), 10, "one_sided"),
        (Touch(bid=D(1), ask=D(2), ts=NEVER), 10, "never_quoted"),
    ],
)
def test_bad_quotes_are_named(shown: Touch, now: int, fault: str | None) -> None:
    """A quote that fills nothing says why; locked is legal."""
    assert fault_of(shown, now, 100) == fault


def test_a_quote_never_grows_stale_when_told_so() -> None:
    """Without a limit of age any quote is good."""
    assert fault_of(touch(), 10**18, None) is None


def market_of(instrument: Spot) -> MemoryMarket:
    """A market of one instrument."""
    return MemoryMarket(Universe([instrument]))


def test_a_touch_is_read_in_the_decimals_of_the_feed() -> None:
    """Floats of any width become the decimals their file named, NaN becomes withdrawn or unlimited."""
    market = market_of(STOCK)
    market.quote(STOCK.id, ts=7, bid=np.float64(0.1), ask=0.3, bid_size=float(np.float32(16)))
    assert read_touch(market, 0) == Touch(bid=D("0.1"), ask=D("0.3"), bid_size=D(16), ask_size=None, ts=7)
    assert read_touch(market, 0, assumed_size=D(5)).ask_size == 5
    market.quote(STOCK.id, ts=8, ask=0.3)
    assert read_touch(market, 0).bid is None


def test_the_newer_of_print_and_mid_is_the_latest_price() -> None:
    """The latest price is the last print unless the quote is as new; a crossed quote does not count."""
    market = market_of(STOCK)
    assert latest_price(market, 0) == (None, NEVER)
    market.trade(STOCK.id, ts=5, price=10.5)
    assert latest_price(market, 0) == (D("10.5"), 5)
    market.quote(STOCK.id, ts=5, bid=10.0, ask=10.25)
    assert latest_price(market, 0) == (D("10.125"), 5)
    market.trade(STOCK.id, ts=6, price=11.0)
    assert latest_price(market, 0) == (D("11.0"), 6)
    market.quote(STOCK.id, ts=7, bid=12.0, ask=10.25)
    assert latest_price(market, 0) == (D("11.0"), 6)


@pytest.mark.parametrize(
    ("model", "bid", "ask"),
    [
        (FixedSpread(half=D("0.05")), "99.95", "100.05"),
        (FixedSpread(half=D("0.001")), "99.99", "100.01"),
        (FixedSpread(half=D(0)), "100.0", "100.0"),
        (TickSpread(ticks=D(3)), "99.97", "100.03"),
        (BasisPointSpread(bp=D(10)), "99.90", "100.10"),
        (VolatilitySpread(k=1.0, vol=0.0), "100.0", "100.0"),
        (FixedSpread(half=D(100)), None, "200.00"),
        (VolatilitySpread(k=1.0), None, None),
    ],
)
def test_an_assumed_spread_makes_a_touch(model: FixedSpread, bid: str | None, ask: str | None) -> None:
    """The touch lies half a spread each side of the last price, rounded outward; what cannot be known is withdrawn."""
    market = market_of(STOCK)
    market.trade(STOCK.id, ts=9, price=100.0)
    shown = assume_touch(market, 0, model=model, tick=STOCK.tick)
    assert (shown.bid, shown.ask) == (None if bid is None else D(bid), None if ask is None else D(ask))
    assert shown.ts == 9


CENTS = st.integers(1, 100_000)


@given(
    quantity=st.integers(-500, 500).filter(bool),
    bid=CENTS,
    spread=st.integers(0, 500),
    size=st.none() | st.integers(0, 300),
    taken=st.integers(0, 300),
    limit=st.none() | CENTS,
    resting=st.booleans(),
    beyond=st.sampled_from(["impact", "partial", "ignore"]),
    shift=st.integers(-50, 50),
)
def test_executions_keep_the_law(
    quantity: int,
    bid: int,
    spread: int,
    size: int | None,
    taken: int,
    limit: int | None,
    resting: bool,
    beyond: str,
    shift: int,
) -> None:
    """No execution is better than the touch or beyond the limit, they never exceed the order, and keep its side."""
    side = 1 if quantity > 0 else -1
    shown = Touch(
        bid=D(bid) / 100,
        ask=D(bid + spread) / 100,
        bid_size=None if size is None else D(size),
        ask_size=None if size is None else D(size),
        ts=1,
    )
    rules = MatchRules(
        beyond="impact" if beyond == "impact" else "partial" if beyond == "partial" else "ignore",
        impact=SquareRootImpact(coefficient=D("0.01")),
        lot=D(1),
    )
    executions = match(
        D(quantity),
        shown,
        instrument=STOCK,
        limit=None if limit is None else D(limit) / 100,
        resting=resting and limit is not None,
        rules=rules,
        taken=D(taken),
        shift=D(shift) / 1000,
    )
    crossed = shown.price(side)
    assert crossed is not None
    for execution in executions:
        assert execution.quantity * side > 0
        assert execution.price * side >= crossed * side
        assert execution.price > 0
        assert limit is None or execution.price * side <= D(limit) / 100 * side
        assert (execution.touch, execution.mid) == (crossed, D(2 * bid + spread) / 200)
        assert execution.price % D("0.01") == 0
    total = abs(sum((execution.quantity for execution in executions), D(0)))
    assert total <= abs(quantity)
    if beyond == "partial" and size is not None:
        assert total <= max(0, size - taken)
