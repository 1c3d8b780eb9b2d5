"""A cost is what trading and holding take from the account; law: pure functions, exact decimals, rounded half-up.

Money is a Decimal in the settlement currency of the instrument, rounded half-up (away from zero on a tie) to the
currency's smallest unit: the cent, but the whole yen and 1e-8 of a coin. Costs are positive when paid. A commission is
a function of what an order executed in total: a fill is charged the difference between the rounded total after it and
before it, so a minimum is charged once per order and the parts always add up to the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import Final, TypeAlias

import msgspec

from bot.domain.book import trade_value
from bot.domain.instruments import Instrument, settlement_currency
from bot.domain.units import CENT, NS_PER_MINUTE, Nanos, Rate, Vol, decimal_of, years_between

ZERO: Final = Decimal(0)
ONE_BP: Final = Decimal("0.0001")
PRICE_STEP: Final = Decimal("1e-8")
"""Computed prices of an instrument without a tick are rounded to this, against the one who trades."""

_SMALLEST_UNIT: Final = {
    **dict.fromkeys(("JPY", "KRW", "CLP", "ISK", "VND"), Decimal(1)),
    **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), Decimal("0.001")),
    **dict.fromkeys(("BTC", "XBT", "ETH", "SOL", "BNB", "LTC", "XRP", "ADA", "DOGE"), Decimal("1e-8")),
}


def smallest_unit(currency: str) -> Decimal:
    """The smallest amount of a currency an account is charged: ISO 4217 minor unit, 1e-8 for coins, else the cent.

    >>> smallest_unit("USD"), smallest_unit("JPY")
    (Decimal('0.01'), Decimal('1'))
    """
    return _SMALLEST_UNIT.get(currency, CENT)


def round_money(amount: Decimal, currency: str = "USD") -> Decimal:
    """The amount rounded half-up (away from zero on a tie) to the smallest unit of its currency.

    >>> round_money(Decimal("1.005")), round_money(Decimal("-1.005"))
    (Decimal('1.01'), Decimal('-1.01'))
    """
    return amount.quantize(smallest_unit(currency), rounding=ROUND_HALF_UP)


# --------------------------------------------------------------------------- commission


class _Spec(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """A frozen specification read from a table with its `kind`."""


def _expect_finite(spec: _Spec, *names: str, at_least: Decimal | None = None) -> None:
    for name in names:
        value = getattr(spec, name)
        if value is None:
            continue
        if not value.is_finite() or (at_least is not None and value < at_least):
            bound = "a finite number" if at_least is None else f"a finite number from {at_least}"
            raise ValueError(f"{type(spec).__name__}: {name}: expected {bound}, found {value}")


def _expect_positive(spec: _Spec, *names: str) -> None:
    for name in names:
        value = getattr(spec, name)
        if value is not None and not (value.is_finite() and value > 0):
            raise ValueError(f"{type(spec).__name__}: {name}: expected a positive finite number, found {value}")


class PerContract(_Spec, frozen=True, gc=False, kw_only=True, tag="per_contract"):
    """`rate` money per share or contract, at least `minimum` per order, at most `cap` of the order's notional.

    The cap wins where it is below the minimum (as in the published fixed schedules of US brokers). A negative rate is
    a rebate.
    """

    rate: Decimal
    minimum: Decimal = ZERO
    cap: Decimal | None = None

    def __post_init__(self) -> None:
        _expect_finite(self, "rate")
        _expect_finite(self, "minimum", "cap", at_least=ZERO)


class BasisPoints(_Spec, frozen=True, gc=False, kw_only=True, tag="basis_points"):
    """`bp` hundredths of a per cent of the executed notional, at least `minimum` per order. Negative is a rebate."""

    bp: Decimal
    minimum: Decimal = ZERO

    def __post_init__(self) -> None:
        _expect_finite(self, "bp")
        _expect_finite(self, "minimum", at_least=ZERO)


class PerTicket(_Spec, frozen=True, gc=False, kw_only=True, tag="per_ticket"):
    """`amount` money per order, charged with its first execution; an order that never executes pays nothing."""

    amount: Decimal

    def __post_init__(self) -> None:
        _expect_finite(self, "amount")


class FixedTotal(_Spec, frozen=True, gc=False, kw_only=True, tag="fixed_total"):
    """`amount` money for the whole order whatever its size, charged in proportion to what of it has executed."""

    amount: Decimal

    def __post_init__(self) -> None:
        _expect_finite(self, "amount")


class SumOf(_Spec, frozen=True, gc=False, kw_only=True, tag="sum"):
    """The sum of its parts: an exchange fee beside a broker's commission, say. No parts: free."""

    parts: tuple[Schedule, ...] = ()


Schedule: TypeAlias = PerContract | BasisPoints | PerTicket | FixedTotal | SumOf
FREE: Final = SumOf()


class Executed(msgspec.Struct, frozen=True, gc=False):
    """What an order has executed so far: contracts and notional (settlement currency), both unsigned; and its size."""

    quantity: Decimal
    notional: Decimal
    ordered: Decimal


def notional_of(instrument: Instrument, quantity: Decimal, price: Decimal) -> Decimal:
    """The unsigned money value of contracts at a price, in the settlement currency."""
    return abs(trade_value(instrument, quantity, price))


def exact_commission(schedule: Schedule, executed: Executed) -> Decimal:
    """The commission of everything an order executed, before rounding, in the settlement currency."""
    if not executed.quantity:
        return ZERO
    match schedule:
        case PerContract(rate=rate, minimum=minimum, cap=cap):
            charged = rate * executed.quantity
            if minimum:
                charged = max(charged, minimum)
            return charged if cap is None else min(charged, cap * executed.notional)
        case BasisPoints(bp=bp, minimum=minimum):
            charged = bp * ONE_BP * executed.notional
            return max(charged, minimum) if minimum else charged
        case PerTicket(amount=amount):
            return amount
        case FixedTotal(amount=amount):
            return amount * executed.quantity / executed.ordered
        case SumOf(parts=parts):
            return sum((exact_commission(part, executed) for part in parts), ZERO)


def total_commission(schedule: Schedule, executed: Executed, currency: str = "USD") -> Decimal:
    """The commission of everything an order executed, rounded half-up once, after the parts of a sum were added."""
    return round_money(exact_commission(schedule, executed), currency)


def commission(schedule: Schedule, instrument: Instrument, quantity: Decimal, price: Decimal) -> Decimal:
    """The commission of an order of `quantity` contracts executed whole at `price`, in the settlement currency.

    >>> from bot.domain.instruments import Spot
    >>> commission(PerContract(rate=Decimal("0.005"), minimum=Decimal(1)), Spot(id="US:X"), Decimal(300), Decimal(20))
    Decimal('1.50')
    """
    size = abs(quantity)
    executed = Executed(size, notional_of(instrument, quantity, price), size)
    return total_commission(schedule, executed, settlement_currency(instrument))


# --------------------------------------------------------------------------- spread


class QuotedSpread(_Spec, frozen=True, gc=False, kw_only=True, tag="quoted"):
    """The touch is what the venue quotes."""


class FixedSpread(_Spec, frozen=True, gc=False, kw_only=True, tag="fixed"):
    """The touch is the last price -+ `half`, in price units."""

    half: Decimal

    def __post_init__(self) -> None:
        _expect_finite(self, "half", at_least=ZERO)


class TickSpread(_Spec, frozen=True, gc=False, kw_only=True, tag="ticks"):
    """The touch is the last price -+ `ticks` ticks of the instrument."""

    ticks: Decimal

    def __post_init__(self) -> None:
        _expect_finite(self, "ticks", at_least=ZERO)


class BasisPointSpread(_Spec, frozen=True, gc=False, kw_only=True, tag="basis_points"):
    """The touch is the last price -+ `bp` basis points of it."""

    bp: Decimal

    def __post_init__(self) -> None:
        _expect_finite(self, "bp", at_least=ZERO)


class VolatilitySpread(_Spec, frozen=True, gc=False, kw_only=True, tag="volatility"):
    """The touch is the last price -+ k vol sqrt(interval) last: `k` standard deviations of a move over `interval`.

    `vol` per square root of a year; None takes the exponentially weighted volatility of the prints, with `halflife`.
    """

    k: float
    vol: Vol | None = None
    interval: Nanos = NS_PER_MINUTE
    halflife: Nanos = 30 * NS_PER_MINUTE

    def __post_init__(self) -> None:
        if not (math.isfinite(self.k) and self.k >= 0.0):
            raise ValueError(f"VolatilitySpread: k: expected a finite number from 0, found {self.k}")
        if self.vol is not None and not (math.isfinite(self.vol) and self.vol >= 0.0):
            raise ValueError(f"VolatilitySpread: vol: expected a finite number from 0, found {self.vol}")
        if self.interval <= 0 or self.halflife <= 0:
            raise ValueError(
                f"VolatilitySpread: interval and halflife: expected positive lengths of time, found "
                f"{self.interval} and {self.halflife} ns"
            )


SpreadModel: TypeAlias = QuotedSpread | FixedSpread | TickSpread | BasisPointSpread | VolatilitySpread


def half_spread(
    model: SpreadModel, *, last: Decimal, tick: Decimal | None = None, vol: Vol | None = None
) -> Decimal | None:
    """Half the assumed spread around a last price, in price units before tick rounding; None when it cannot be known.

    It cannot be known for `quoted` (the venue says it), for ticks of an instrument without a tick, and for a
    volatility nobody gave yet. `vol` stands in where the model carries none.
    """
    match model:
        case QuotedSpread():
            return None
        case FixedSpread(half=half):
            return half
        case TickSpread(ticks=ticks):
            return None if tick is None else ticks * tick
        case BasisPointSpread(bp=bp):
            return bp * ONE_BP * last
        case VolatilitySpread(k=k, vol=own, interval=interval):
            used = vol if own is None else own
            if used is None or not math.isfinite(used):
                return None
            return decimal_of(k * used * math.sqrt(years_between(0, interval))) * last


# --------------------------------------------------------------------------- impact


class NoImpact(_Spec, frozen=True, gc=False, kw_only=True, tag="none"):
    """Size beyond what is displayed executes at the touch."""


class SquareRootImpact(_Spec, frozen=True, gc=False, kw_only=True, tag="square_root"):
    """The part Q beyond the displayed size executes on average c sqrt(Q / V) of the touch worse.

    V is `adv` (contracts a day) when given, else the displayed size; c a fraction of the price: with `adv` it is Y
    times the daily volatility, Y about 1. Source: Almgren, Thum, Hauptmann and Li (2005), "Direct estimation of equity
    market impact"; the square root as in Toth et al. (2011), eq. 1.
    """

    coefficient: Decimal = ONE_BP
    adv: Decimal | None = None

    def __post_init__(self) -> None:
        _expect_finite(self, "coefficient", at_least=ZERO)
        _expect_positive(self, "adv")


class LinearImpact(_Spec, frozen=True, gc=False, kw_only=True, tag="linear"):
    """The part Q beyond the displayed size executes on average c Q / V of the touch worse; V and c as above."""

    coefficient: Decimal = ONE_BP
    adv: Decimal | None = None

    def __post_init__(self) -> None:
        _expect_finite(self, "coefficient", at_least=ZERO)
        _expect_positive(self, "adv")


class PermanentImpact(_Spec, frozen=True, gc=False, kw_only=True, tag="permanent"):
    """Each execution of Q contracts shifts later touches by c Q / V of its price, for as long as the run lasts.

    A scenario option. Linear, as a permanent impact must be to leave no profit in trading to and fro: Huberman and
    Stanzl (2004), "Price manipulation and quasi-arbitrage". V is `adv`, contracts a day.
    """

    coefficient: Decimal
    adv: Decimal

    def __post_init__(self) -> None:
        _expect_finite(self, "coefficient", at_least=ZERO)
        _expect_positive(self, "adv")


ImpactModel: TypeAlias = NoImpact | SquareRootImpact | LinearImpact


def impact_per_unit(
    model: ImpactModel, *, price: Decimal, excess: Decimal, displayed: Decimal | None
) -> Decimal | None:
    """How much worse than `price` the `excess` contracts beyond the displayed size execute on average, in price units.

    Never negative. None when there is nothing to scale by: neither a daily volume nor a displayed size.
    """
    if isinstance(model, NoImpact) or not excess:
        return ZERO
    scale = displayed if model.adv is None else model.adv
    if not scale:
        return None
    ratio = abs(excess) / scale
    return abs(price) * model.coefficient * (ratio.sqrt() if isinstance(model, SquareRootImpact) else ratio)


def permanent_shift(model: PermanentImpact, *, price: Decimal, quantity: Decimal) -> Decimal:
    """The lasting shift of the touch an execution of signed `quantity` leaves behind: up for buys, in price units."""
    return price * model.coefficient * quantity / model.adv


def round_against(price: Decimal, tick: Decimal | None, side: int) -> Decimal:
    """A computed price on the next tick (or 1e-8 without one) against the one who trades: up for buys, down for sells.

    >>> round_against(Decimal("3250.01"), Decimal("0.25"), 1)
    Decimal('3250.25')
    """
    step = tick if tick is not None else PRICE_STEP
    steps = (price * side / step).to_integral_value(ROUND_CEILING) * side
    return steps * step


# --------------------------------------------------------------------------- holding


def financing(cash: Decimal, rate: Rate, start: Nanos, end: Nanos, *, currency: str = "USD") -> Decimal:
    """Interest on a cash balance: cash (e^(r t) - 1), t ACT/365; earned on credit, paid (negative) on debit.

    Rounded to the smallest unit: call it once per balance and interest period, not once per tick, or use
    `accrued_interest` and round at the end.
    """
    return round_money(accrued_interest(cash, rate, start, end), currency)


def accrued_interest(cash: Decimal, rate: Rate, start: Nanos, end: Nanos) -> Decimal:
    """The same before rounding, in the currency of the cash."""
    return cash * decimal_of(math.expm1(rate * years_between(start, end)))


def borrow(short_value: Decimal, rate: Rate, start: Nanos, end: Nanos, *, currency: str = "USD") -> Decimal:
    """The fee for borrowed stock: |market value| r t, simple, t ACT/365; a cost, so positive."""
    return round_money(accrued_borrow(short_value, rate, start, end), currency)


def accrued_borrow(short_value: Decimal, rate: Rate, start: Nanos, end: Nanos) -> Decimal:
    """The same before rounding, in the currency of the short value."""
    return abs(short_value) * decimal_of(rate * years_between(start, end))


def funding(instrument: Instrument, quantity: Decimal, price: Decimal, rate: float) -> Decimal:
    """A perpetual's funding for one period: cash received, negative when paid; longs pay `rate` of notional."""
    notional = notional_of(instrument, quantity, price)
    side = 1 if quantity > 0 else -1
    return round_money(-side * notional * decimal_of(rate), settlement_currency(instrument))


def dividend(quantity: Decimal, cash_per_unit: Decimal, *, currency: str = "USD") -> Decimal:
    """The dividend of a holding: cash received, negative (paid to the lender) when short."""
    return round_money(quantity * cash_per_unit, currency)


def split_commission(charge: Decimal, weights: Sequence[Decimal], *, currency: str = "USD") -> list[Decimal]:
    """A charge divided in proportion to unsigned weights, to the smallest unit: largest remainder, first wins ties.

    >>> split_commission(Decimal("1.00"), [Decimal(1), Decimal(1), Decimal(1)])
    [Decimal('0.34'), Decimal('0.33'), Decimal('0.33')]
    """
    total = sum(weights, ZERO)
    if not total:
        raise ValueError("split of a charge: expected weights that do not sum to zero")
    unit = smallest_unit(currency)
    units = int((charge / unit).to_integral_value(ROUND_HALF_UP))
    exact = [units * weight / total for weight in weights]
    whole = [math.floor(share) for share in exact]
    spare = units - sum(whole)
    order = sorted(range(len(weights)), key=lambda i: (whole[i] - exact[i], i))
    for i in order[:spare]:
        whole[i] += 1
    return [count * unit for count in whole]
