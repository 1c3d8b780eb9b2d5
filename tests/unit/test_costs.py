"""Commission schedules, spreads, impact, holding costs, margin and expiry, by hand-worked numbers."""

from __future__ import annotations

import math
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import BookError
from bot.core.expiry import settle
from bot.domain.costs import (
    FREE,
    BasisPoints,
    BasisPointSpread,
    Executed,
    FixedSpread,
    FixedTotal,
    LinearImpact,
    NoImpact,
    PerContract,
    PermanentImpact,
    PerTicket,
    QuotedSpread,
    Schedule,
    SquareRootImpact,
    SumOf,
    TickSpread,
    VolatilitySpread,
    accrued_interest,
    borrow,
    commission,
    dividend,
    exact_commission,
    financing,
    funding,
    half_spread,
    impact_per_unit,
    permanent_shift,
    round_against,
    round_money,
    smallest_unit,
    split_commission,
    total_commission,
)
from bot.domain.instruments import Deliverable, Future, OptionContract, Perpetual, Spot
from bot.domain.margin import MarginLine, RegT, requirement, total_requirement
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_YEAR

D = Decimal

STOCK = Spot(id="US:ACME", tick=D("0.01"), lot=D(1))
FUTURE = Future(id="CME:ESH2020", multiplier=D(50), tick=D("0.25"), lot=D(1), expiry=10**18)
INVERSE = Perpetual(id="BINANCE:BTCUSD", multiplier=D(100), inverse=True, settlement_currency="BTC")


def option(cp: int = 1, strike: str = "100", *, settlement: str = "physical", **more: object) -> OptionContract:
    """An option on the stock unless told otherwise."""
    fields: dict[str, object] = {
        "id": "ACME  200320C00100000",
        "underlying": STOCK.id,
        "cp": cp,
        "strike": strike,
        "style": "american",
        "settlement": settlement,
        "multiplier": 100,
        "last_trade": 1_000,
        "expiry": 1_000,
        "settles": 2_000,
        **more,
    }
    return msgspec.convert(fields, OptionContract)


# --------------------------------------------------------------------------- rounding


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("0.005", "USD", "0.01"),
        ("-0.005", "USD", "-0.01"),
        ("0.0049999", "USD", "0.00"),
        ("2.675", "EUR", "2.68"),
        ("0.5", "JPY", "1"),
        ("0.0005", "KWD", "0.001"),
        ("0.000000005", "BTC", "0.00000001"),
    ],
)
def test_money_is_rounded_half_up_to_the_smallest_unit(amount: str, currency: str, rounded: str) -> None:
    """A tie goes away from zero, on the smallest unit of the currency."""
    assert round_money(D(amount), currency) == D(rounded)


@pytest.mark.parametrize(
    ("price", "tick", "side", "rounded"),
    [
        ("3250.01", "0.25", 1, "3250.25"),
        ("3250.24", "0.25", -1, "3250.00"),
        ("3250.25", "0.25", 1, "3250.25"),
        ("3250.25", "0.25", -1, "3250.25"),
        ("1.0000000001", None, 1, "1.00000001"),
        ("1.0000000099", None, -1, "1.00000000"),
    ],
)
def test_a_computed_price_is_rounded_against_the_trader(price: str, tick: str | None, side: int, rounded: str) -> None:
    """Buys round up and sales down to the tick, or to 1e-8 without one."""
    assert round_against(D(price), None if tick is None else D(tick), side) == D(rounded)


# --------------------------------------------------------------------------- commission


@pytest.mark.parametrize(
    ("schedule", "quantity", "price", "charged"),
    [
        (FREE, 100, "10", "0"),
        (PerContract(rate=D("0.85")), -28, "3246.25", "23.80"),
        (PerContract(rate=D("0.005"), minimum=D(1)), 100, "10", "1.00"),
        (PerContract(rate=D("0.005"), minimum=D(1), cap=D("0.01")), 100, "0.20", "0.20"),
        (PerContract(rate=D("0.005"), minimum=D(1), cap=D("0.01")), 10_000, "10", "50.00"),
        (PerContract(rate=D("-0.002")), 500, "10", "-1.00"),
        (BasisPoints(bp=D(2)), 300, "33.335", "2.00"),
        (BasisPoints(bp=D(2), minimum=D(5)), 300, "33.335", "5.00"),
        (PerTicket(amount=D(50)), 500, "100", "50"),
        (FixedTotal(amount=D("12.345")), 500, "100", "12.35"),
        (SumOf(parts=(PerTicket(amount=D("0.004")), FixedTotal(amount=D("0.001")))), 1, "1", "0.01"),
    ],
)
def test_commission_of_a_whole_order(schedule: Schedule, quantity: int, price: str, charged: str) -> None:
    """Each schedule gives its published amount, sums are rounded once."""
    assert commission(schedule, STOCK, D(quantity), D(price)) == D(charged)


def test_the_notional_of_a_future_counts_its_multiplier() -> None:
    """Basis points are taken of contracts x multiplier x price."""
    assert commission(BasisPoints(bp=D(1)), FUTURE, D(2), D(3000)) == D("30.00")


def test_an_inverse_contract_is_charged_in_coins() -> None:
    """Basis points of an inverse contract are of q m / price, in the settlement currency to 1e-8."""
    assert commission(BasisPoints(bp=D(5)), INVERSE, D(10), D(60000)) == D("0.00000833")
    assert smallest_unit("BTC") == D("1e-8")


def test_a_ticket_is_charged_with_the_first_part_only() -> None:
    """The charge of a later fill is the difference of two totals, so nothing is charged twice."""
    first = total_commission(PerTicket(amount=D(50)), Executed(D(1), D(100), D(10)))
    whole = total_commission(PerTicket(amount=D(50)), Executed(D(10), D(1000), D(10)))
    assert (first, whole - first) == (D(50), D(0))


def test_a_fixed_total_is_earned_as_it_executes() -> None:
    """A fixed total costs in proportion to what was executed, and nothing before."""
    assert exact_commission(FixedTotal(amount=D(10)), Executed(D(0), D(0), D(4))) == 0
    assert exact_commission(FixedTotal(amount=D(10)), Executed(D(1), D(5), D(4))) == D("2.5")


SCHEDULES = st.sampled_from(
    [
        PerContract(rate=D("0.0055"), minimum=D("1.005"), cap=D("0.01")),
        PerContract(rate=D("0.854")),
        BasisPoints(bp=D("0.7"), minimum=D("0.333")),
        PerTicket(amount=D("4.95")),
        FixedTotal(amount=D("9.99")),
        SumOf(parts=(PerTicket(amount=D("1.111")), BasisPoints(bp=D(3)), FixedTotal(amount=D("2.5")))),
    ]
)


@given(SCHEDULES, st.lists(st.tuples(st.integers(1, 500), st.integers(1, 50_000)), min_size=1, max_size=8))
def test_parts_add_up_to_the_whole(schedule: Schedule, parts: list[tuple[int, int]]) -> None:
    """However an order is cut into fills, the charges sum to the charge of the order and none is negative."""
    ordered = D(sum(size for size, _ in parts))
    charged, filled, notional = D(0), D(0), D(0)
    charges = []
    for size, cents in parts:
        filled += size
        notional += size * D(cents) / 100
        total = total_commission(schedule, Executed(filled, notional, ordered))
        charges.append(total - charged)
        charged = total
    assert sum(charges) == total_commission(schedule, Executed(ordered, notional, ordered))
    assert min(charges) >= 0


@given(st.integers(-10_000, 10_000), st.lists(st.integers(1, 999), min_size=1, max_size=9))
def test_a_split_charge_sums_to_the_charge(cents: int, weights: list[int]) -> None:
    """Allocation by largest remainder loses no cent and is off from the exact share by less than one."""
    charge = D(cents) / 100
    shares = split_commission(charge, [D(weight) for weight in weights])
    assert sum(shares) == charge
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - charge * weight / sum(weights)) < D("0.01")


def test_a_split_without_weights_is_refused() -> None:
    """A charge cannot be split over weights of zero."""
    with pytest.raises(ValueError, match="weights"):
        split_commission(D(1), [D(0)])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (PerContract, {"rate": "NaN"}),
        (PerContract, {"rate": "1", "minimum": "-1"}),
        (PerContract, {"rate": "1", "cap": "Infinity"}),
        (BasisPoints, {"bp": "Infinity"}),
        (PerTicket, {"amount": "NaN"}),
        (PerTicket, {"amount": "1", "minimun": "1"}),
        (FixedSpread, {"half": "-1"}),
        (TickSpread, {"ticks": "NaN"}),
        (BasisPointSpread, {"bp": "-0.1"}),
        (VolatilitySpread, {"k": -1.0}),
        (VolatilitySpread, {"k": 1.0, "vol": -0.2}),
        (VolatilitySpread, {"k": 1.0, "interval": 0}),
        (SquareRootImpact, {"coefficient": "-1"}),
        (LinearImpact, {"adv": "0"}),
        (PermanentImpact, {"coefficient": "1", "adv": "-5"}),
    ],
)
def test_nonsense_is_refused_when_read(kind: type, fields: dict[str, object]) -> None:
    """Not finite, negative or unknown numbers of a specification are refused by name."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**fields, "kind": kind.__struct_config__.tag}, kind)  # type: ignore[attr-defined]  # every spec is a Struct


# --------------------------------------------------------------------------- spread and impact


def test_half_spreads_by_hand() -> None:
    """Each model gives half the spread in price units; what cannot be known is None."""
    last = D(200)
    assert half_spread(QuotedSpread(), last=last) is None
    assert half_spread(FixedSpread(half=D("0.05")), last=last) == D("0.05")
    assert half_spread(TickSpread(ticks=D(2)), last=last, tick=D("0.25")) == D("0.50")
    assert half_spread(TickSpread(ticks=D(2)), last=last) is None
    assert half_spread(BasisPointSpread(bp=D(5)), last=last) == D("0.1")
    assert half_spread(VolatilitySpread(k=1.0), last=last) is None
    assert half_spread(VolatilitySpread(k=1.0), last=last, vol=math.nan) is None
    year = VolatilitySpread(k=0.5, vol=0.2, interval=NS_PER_YEAR)
    assert half_spread(year, last=last, vol=9.0) == D("20.0")
    minute = half_spread(VolatilitySpread(k=1.0), last=last, vol=0.2)
    assert minute is not None
    assert float(minute) == pytest.approx(0.2 * math.sqrt(NS_PER_MINUTE / NS_PER_YEAR) * 200, rel=1e-12)


def test_impact_by_hand() -> None:
    """Four times the display costs twice the coefficient by the square root and four times it linearly."""
    price, excess = D(100), D(40)
    assert impact_per_unit(NoImpact(), price=price, excess=excess, displayed=D(10)) == 0
    root = SquareRootImpact(coefficient=D("0.01"))
    assert impact_per_unit(root, price=price, excess=excess, displayed=D(10)) == D(2)
    assert impact_per_unit(root, price=price, excess=D(0), displayed=None) == 0
    assert impact_per_unit(root, price=price, excess=excess, displayed=None) is None
    assert impact_per_unit(root, price=price, excess=excess, displayed=D(0)) is None
    daily = LinearImpact(coefficient=D("0.01"), adv=D(400))
    assert impact_per_unit(daily, price=price, excess=excess, displayed=None) == D("0.1")
    assert permanent_shift(PermanentImpact(coefficient=D("0.1"), adv=D(1000)), price=price, quantity=D(-10)) == D(
        "-0.1"
    )


# --------------------------------------------------------------------------- holding


def test_financing_compounds_continuously() -> None:
    """A year at 5% on 1,000,000 earns e^0.05 - 1 of it, to the cent, and a debit pays the same."""
    assert financing(D(1_000_000), 0.05, 0, NS_PER_YEAR) == D("51271.10")
    assert financing(D(-1_000_000), 0.05, 0, NS_PER_YEAR) == D("-51271.10")
    assert financing(D(1_000_000), 0.05, 5, 5) == 0


def test_financing_by_parts_equals_the_whole() -> None:
    """Interest accrued by day and compounded equals the interest of the period."""
    cash = D(1_000_000)
    for day in range(30):
        cash += accrued_interest(cash, 0.04, day * NS_PER_DAY, (day + 1) * NS_PER_DAY)
    assert abs(cash - 1_000_000 - accrued_interest(D(1_000_000), 0.04, 0, 30 * NS_PER_DAY)) < D("1e-6")


def test_borrow_is_simple_and_a_cost() -> None:
    """Borrowing 100,000 of stock for a year at 3% costs 3,000, whatever the sign of the short value."""
    assert borrow(D(-100_000), 0.03, 0, NS_PER_YEAR) == borrow(D(100_000), 0.03, 0, NS_PER_YEAR) == D("3000.00")


def test_funding_goes_from_longs_to_shorts() -> None:
    """A long pays a positive rate, a short receives it; an inverse contract pays in coins."""
    linear = Perpetual(id="BINANCE:BTCUSDT", currency="USDT")
    assert funding(linear, D(2), D(60_000), 0.0001) == D("-12.00")
    assert funding(linear, D(-2), D(60_000), 0.0001) == D("12.00")
    assert funding(INVERSE, D(600), D(60_000), 0.0001) == D("-0.00010000")


def test_a_short_pays_the_dividend() -> None:
    """A holding receives its dividend and a short position pays it."""
    assert (dividend(D(300), D("0.115")), dividend(D(-300), D("0.115"))) == (D("34.50"), D("-34.50"))


# --------------------------------------------------------------------------- margin


@pytest.mark.parametrize(
    ("line", "tied"),
    [
        (MarginLine(STOCK, D(-100), D(50)), "2500"),
        (MarginLine(option(), D(2), D("3.5")), "700"),
        (MarginLine(option(), D(-1), D("3.5"), D(105)), "2100"),
        (MarginLine(option(), D(-1), D("0.2"), D(80)), "800"),
        (MarginLine(option(-1), D(-1), D("0.2"), D(130)), "1000"),
        (MarginLine(FUTURE, D(-3), D(3000)), "36000"),
    ],
)
def test_margin_by_hand(line: MarginLine, tied: str) -> None:
    """Stock ties up half its value, a long option its premium, a short one the 20% rule, a future its fixed sum."""
    assert requirement(RegT(per_contract={FUTURE.id: D(12_000)}), line) == D(tied)


def test_margin_without_a_stated_number_is_refused_by_name() -> None:
    """A future without a stated margin, or a short option without its underlying's price, is refused by name."""
    with pytest.raises(ValueError, match="ESH2020"):
        requirement(RegT(), MarginLine(FUTURE, D(1), D(3000)))
    with pytest.raises(ValueError, match="US:ACME"):
        total_requirement(RegT(), [MarginLine(option(), D(-1), D(1))])
    assert requirement(RegT(leveraged=D("0.1")), MarginLine(FUTURE, D(1), D(3000))) == D(15_000)


# --------------------------------------------------------------------------- expiry


@pytest.mark.parametrize(
    ("cp", "quantity", "value", "what", "delivered"),
    [
        (1, 3, "110", "exercise", 300),
        (1, -3, "110", "assignment", -300),
        (-1, 3, "90", "exercise", -300),
        (-1, -3, "90", "assignment", 300),
        (1, 3, "100.01", "exercise", 300),
        (1, 3, "100.009", "expiry", 0),
        (1, 3, "100", "expiry", 0),
        (1, -3, "90", "expiry", 0),
    ],
)
def test_physical_settlement(cp: int, quantity: int, value: str, what: str, delivered: int) -> None:
    """In the money by a cent the underlying changes hands at the strike, below it nothing does."""
    (event,) = settle(option(cp), D(quantity), D(value), underlying=STOCK, account="dynamic")
    assert (event.what, event.deliver_quantity, event.quantity) == (what, D(delivered), D(quantity))
    assert event.deliver == (STOCK.id if delivered else None)
    assert event.deliver_price == (100 if delivered else 0)
    assert (event.ts_recv, event.account) == (2_000, "dynamic")


@pytest.mark.parametrize(("cp", "value", "paid"), [(1, "3700.65", "0.65"), (-1, "3700.65", "0"), (-1, "3690", "10")])
def test_cash_settlement(cp: int, value: str, paid: str) -> None:
    """A cash-settled contract pays its intrinsic value per unit and delivers nothing."""
    (event,) = settle(option(cp, "3700", settlement="cash"), D(-2), D(value))
    assert (event.what, event.value) == ("settlement" if D(paid) else "expiry", D(paid))
    assert event.deliver is None


def test_a_future_option_delivers_the_future_at_the_strike() -> None:
    """One future per contract changes hands at the strike."""
    contract = option(-1, "3220", underlying=FUTURE.id, multiplier=50)
    (event,) = settle(contract, D(100), D(3200), underlying=FUTURE)
    assert (event.deliver, event.deliver_quantity, event.deliver_price) == (FUTURE.id, D(-100), D(3220))


def test_an_adjusted_contract_delivers_each_line_for_one_strike() -> None:
    """A custom deliverable gives every line, and the money paid is strike x multiplier x contracts once."""
    contract = option(deliverable=(Deliverable("US:NEW", D(150)), Deliverable("US:SPIN", D(20))))
    first, second = settle(contract, D(2), D(120))
    assert (first.deliver, first.deliver_quantity, first.quantity) == ("US:NEW", D(300), D(2))
    assert (second.deliver, second.deliver_quantity, second.quantity) == ("US:SPIN", D(40), D(0))
    money = first.deliver_quantity * first.deliver_price + second.deliver_quantity * second.deliver_price
    assert abs(money - 2 * 100 * 100) < D("1e-20")


def test_settlement_without_what_it_needs_is_refused_by_name() -> None:
    """A physical contract whose underlying nobody gave, or a value that is no number, is refused by name."""
    with pytest.raises(BookError, match="US:ACME"):
        settle(option(), D(1), D(120))
    with pytest.raises(BookError, match="US:ACME"):
        settle(option(), D(1), D(120), underlying=FUTURE)
    with pytest.raises(BookError, match="NaN"):
        settle(option(), D(1), D("NaN"), underlying=STOCK)


@given(st.sampled_from([1, -1]), st.integers(1, 500), st.integers(0, 100_000), st.sampled_from(["cash", "physical"]))
def test_the_two_sides_of_a_contract_mirror(cp: int, quantity: int, cents: int, settlement: str) -> None:
    """What the long receives the short gives, in cash and in deliveries."""
    contract = option(cp, "500", settlement=settlement)
    (long,) = settle(contract, D(quantity), D(cents) / 100, underlying=STOCK)
    (short,) = settle(contract, D(-quantity), D(cents) / 100, underlying=STOCK)
    assert long.value == short.value
    assert long.deliver_quantity == -short.deliver_quantity
    assert (long.what == "expiry") == (short.what == "expiry")
