"""A limit is one function: an order and what is known give a Refusal or None; law: no order passes around them.

A closing order or one that only reduces |position| may always pass the size limits: a limit must not trap a risk. What
may still fill counts in the worst case: `low` and `high` are the positions if every open sale, or every open purchase,
were filled and nothing else, UNKNOWN orders among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

import msgspec

from bot.domain.instruments import Instrument, Perpetual
from bot.domain.orders import Order, Refusal
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND, Nanos, decimal_of
from bot.engine.kill import Rung

ONE = Decimal(1)
ZERO = Decimal(0)

CEILINGS: Final[Mapping[str, float]] = {
    "max_order_quantity": 1e9,
    "max_order_notional": 1e12,
    "max_position": 1e10,
    "max_open_orders": 1_000_000,
    "price_collar": 1.0,
    "reference_max_age": NS_PER_DAY,
    "stale_after": NS_PER_DAY,
    "max_delta": 1e12,
    "max_gamma": 1e12,
    "max_vega": 1e13,
    "max_stress_loss": 1e12,
    "hedge_band": 1e12,
    "orders_per_second": 10_000.0,
    "order_burst": 10_000,
    "cancels_per_second": 10_000.0,
    "cancel_burst": 10_000,
    "duplicate_window": NS_PER_DAY,
    "max_attempts": 1_000_000,
    "attempt_window": NS_PER_DAY,
    "cool_down": 7 * NS_PER_DAY,
    "max_reversals": 1_000_000,
    "reversal_window": NS_PER_DAY,
    "daily_loss": 1e12,
    "drawdown": 1e12,
    "max_rejects": 1_000_000,
    "reject_window": NS_PER_DAY,
}
"""The greatest value each number may be set to, whatever a configuration or a person says. Lengths in nanoseconds."""

LARGER_IS_TIGHTER: Final = frozenset(
    {"duplicate_window", "attempt_window", "cool_down", "reversal_window", "reject_window"}
)
RISK_NAMES: Final = ("max_position", "max_delta", "max_gamma", "max_vega", "max_stress_loss", "hedge_band")
"""What may be given for one underlying."""
WHOLE: Final = frozenset(
    {"max_open_orders", "order_burst", "cancel_burst", "max_attempts", "max_reversals", "max_rejects"}
)
EXACT: Final = frozenset({"max_order_quantity", "max_order_notional", "max_position", "daily_loss", "drawdown"})


class LimitView(msgspec.Struct, kw_only=True, gc=False):
    """What a limit may look at: the instrument, its price, what is held and open. The gate fills one in for each order.

    `held` is the position with all open orders filled; `low` and `high` (None: as `held`) its worst cases; `touch` the side
    a market order would cross.
    """

    instrument: Instrument
    price: float
    quote_age_ns: int | None
    held: Decimal
    open_orders: int
    frozen: str = ""
    low: Decimal | None = None
    high: Decimal | None = None
    touch: float = math.nan


Limit: TypeAlias = Callable[[Order, LimitView], Refusal | None]


class UnderlyingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one underlying where they are not the common ones; None takes the common one."""

    max_position: Decimal | None = None
    max_delta: float | None = None
    max_gamma: float | None = None
    max_vega: float | None = None
    max_stress_loss: float | None = None
    hedge_band: float | None = None

    def __post_init__(self) -> None:
        for name in RISK_NAMES:
            _hold_ceiling(name, getattr(self, name))


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one account; None is no bound. Sizes in contracts, notional in the instrument's currency.

    Delta, gamma, vega (per 1.00 of vol) and the band in underlying units, by underlying; stress loss in its currency; daily
    loss and drawdown in the account's base currency; rates a second; lengths in nanoseconds of event time.
    """

    max_order_quantity: Decimal | None = None
    max_order_notional: Decimal | None = None
    max_position: Decimal | None = None
    max_open_orders: int | None = None
    price_collar: float | None = None
    reference_max_age: int = NS_PER_MINUTE
    stale_after: int | None = None
    restricted: tuple[str, ...] = ()
    max_delta: float | None = None
    max_gamma: float | None = None
    max_vega: float | None = None
    max_stress_loss: float | None = None
    stress_spots: tuple[float, ...] = (-0.20, -0.10, -0.05, 0.0, 0.05, 0.10, 0.20)
    stress_vols: tuple[float, ...] = (-0.25, 0.0, 0.50)
    hedge_band: float | None = None
    by_underlying: Mapping[str, UnderlyingLimits] = {}
    orders_per_second: float | None = None
    order_burst: int | None = None
    cancels_per_second: float | None = None
    cancel_burst: int | None = None
    duplicate_window: int | None = None
    self_cross: bool = True
    max_attempts: int | None = None
    attempt_window: int = NS_PER_MINUTE
    cool_down: int = NS_PER_MINUTE
    max_reversals: int | None = None
    reversal_window: int = NS_PER_MINUTE
    daily_loss: Decimal | None = None
    drawdown: Decimal | None = None
    day_begins: int = 0
    max_rejects: int | None = None
    reject_window: int = NS_PER_MINUTE
    on_daily_loss: Rung = Rung.HEDGE_ONLY
    on_drawdown: Rung = Rung.HEDGE_ONLY
    on_rejects: Rung = Rung.CANCEL_ALL

    def __post_init__(self) -> None:
        for name in CEILINGS:
            _hold_ceiling(name, getattr(self, name))
        for name, values, least in (("stress_spots", self.stress_spots, -1.0), ("stress_vols", self.stress_vols, -1.0)):
            if not values or not all(math.isfinite(v) and least < v <= 10.0 for v in values):
                raise ValueError(f"limits: {name}: expected shocks above -1 and at most 10, found {values}")

    def of(self, name: str, underlying: str) -> Any:
        """The bound of that name for an underlying: its own, else the common one, None without either."""
        own = self.by_underlying.get(underlying)
        found = None if own is None else getattr(own, name)
        return getattr(self, name) if found is None else found

    def any_of(self, *names: str) -> bool:
        """True when any of these bounds is set, for any underlying."""
        tables = (self, *self.by_underlying.values())
        return any(getattr(table, name, None) is not None for table in tables for name in names)


def _hold_ceiling(name: str, value: Any) -> None:
    if value is None:
        return
    if not math.isfinite(value) or not 0 <= value <= CEILINGS[name]:
        raise ValueError(f"limits: {name}: expected 0 to {CEILINGS[name]:g}, found {value}")


def build(settings: LimitSettings) -> list[tuple[str, Limit]]:
    """The limits that need no memory, in the order they are asked, each with its reason code."""
    limits: list[tuple[str, Limit]] = [("frozen", refuse_frozen), ("restricted", _restricted(settings.restricted))]
    if settings.max_order_quantity is not None:
        limits.append(("order_quantity", _order_quantity(settings.max_order_quantity)))
    if settings.max_order_notional is not None:
        limits.append(("order_notional", _order_notional(settings.max_order_notional)))
    if settings.any_of("max_position"):
        limits.append(("position", _position(settings)))
    if settings.max_open_orders is not None:
        limits.append(("open_orders", _open_orders(settings.max_open_orders)))
    if settings.price_collar is not None:
        limits.append(("price_collar", _price_collar(settings.price_collar, settings.reference_max_age)))
    if settings.stale_after is not None:
        limits.append(("stale", _stale(settings.stale_after)))
    return limits


def refuse(order: Order, code: str, text: str) -> Refusal:
    """A refusal of this order."""
    return Refusal(
        code=code, text=text, account=order.account, instrument=order.instrument, quantity=order.quantity, ts=order.ts
    )


# --------------------------------------------------------------------------- what a person may tighten


def tightened(settings: LimitSettings, words: str) -> LimitSettings:
    """The settings with one bound made tighter, said as `name=value` or `name@underlying=value`.

    ValueError when the name is none, the value no number or past its ceiling, or the bound would be wider than it is.

    >>> tightened(LimitSettings(max_position=Decimal(9)), "max_position=4").max_position
    Decimal('4')
    """
    left, equals, text = words.partition("=")
    name, at, underlying = left.strip().partition("@")
    name, underlying, text = name.strip(), underlying.strip(), text.strip()
    if not equals or not text:
        raise ValueError(f"tighten: expected name=value or name@underlying=value, found {words!r}")
    if name == "restricted" and not at:
        return msgspec.structs.replace(settings, restricted=tuple(dict.fromkeys((*settings.restricted, text))))
    if name not in CEILINGS or (at and name not in RISK_NAMES):
        known = ", ".join(RISK_NAMES if at else ("restricted", *CEILINGS))
        raise ValueError(f"tighten: expected one of {known}, found {name!r}")
    value = _bound_of(name, text)
    now = settings.of(name, underlying) if at else getattr(settings, name)
    if now is not None and (value < now if name in LARGER_IS_TIGHTER else value > now):
        raise ValueError(
            f"tighten: {left.strip()}: expected a bound no wider than {now}, found {text}; widen by restart"
        )
    if not at:
        own = {key: _no_wider(table, name, value) for key, table in settings.by_underlying.items()}
        return msgspec.structs.replace(settings, **{name: value, "by_underlying": own})
    table = settings.by_underlying.get(underlying, UnderlyingLimits())
    own = {**settings.by_underlying, underlying: msgspec.structs.replace(table, **{name: value})}
    return msgspec.structs.replace(settings, by_underlying=own)


def _bound_of(name: str, text: str) -> Any:
    try:
        exact = Decimal(text)
    except InvalidOperation as fault:
        raise ValueError(f"tighten: {name}: expected a number, found {text!r}") from fault
    if not exact.is_finite():
        raise ValueError(f"tighten: {name}: expected a finite number, found {text!r}")
    if name in EXACT:
        return exact
    if name in WHOLE or name.endswith(("_window", "_after", "_age")) or name == "cool_down":
        if exact != exact.to_integral_value():
            raise ValueError(f"tighten: {name}: expected a whole number, found {text!r}")
        return int(exact)
    return float(exact)


def _no_wider(table: UnderlyingLimits, name: str, value: Any) -> UnderlyingLimits:
    """The bounds of an underlying after the common one came down: none of them stays above it."""
    own = getattr(table, name, None)
    return table if own is None or own <= value else msgspec.structs.replace(table, **{name: value})


# --------------------------------------------------------------------------- the limits


def refuse_frozen(order: Order, view: LimitView) -> Refusal | None:
    """Refuses orders in an underlying that is frozen, whatever they would do."""
    return refuse(order, "frozen", view.frozen) if view.frozen else None


def _exact(price: float) -> Decimal | None:
    """The price in decimals, so that an order exactly at a bound passes; None when it is not known."""
    return decimal_of(price) if math.isfinite(price) else None


def reduces(order: Order, view: LimitView) -> bool:
    """True when the order brings the position nearer to zero, and not past it, whatever becomes of the open orders."""
    q = order.quantity
    if q < 0:
        low = view.held if view.low is None else view.low
        return low + q >= 0
    high = view.held if view.high is None else view.high
    return high + q <= 0


def _restricted(names: tuple[str, ...]) -> Limit:
    listed = frozenset(names)

    def check(order: Order, view: LimitView) -> Refusal | None:
        if order.instrument not in listed:
            return None
        return refuse(order, "restricted", f"{order.instrument} is on the restricted list")

    return check


def _order_quantity(bound: Decimal) -> Limit:
    def check(order: Order, view: LimitView) -> Refusal | None:
        if -bound <= order.quantity <= bound or reduces(order, view):
            return None
        return refuse(order, "order_quantity", f"order of {abs(order.quantity)} exceeds max_order_quantity {bound}")

    return check


def _order_notional(bound: Decimal) -> Limit:
    surely = float(bound) * (1.0 - 1e-9)  # what floats can tell is far below the bound; decimals decide near it

    def check(order: Order, view: LimitView) -> Refusal | None:
        instrument = view.instrument
        inverse = isinstance(instrument, Perpetual) and instrument.inverse  # its multiplier is money already
        if not inverse and abs(float(order.quantity) * float(instrument.multiplier) * view.price) < surely:
            return None
        if reduces(order, view):
            return None
        contracts = abs(order.quantity) * instrument.multiplier
        price = ONE if inverse else _exact(view.price)
        if price is None:
            return refuse(
                order, "order_notional", f"no price, so no notional to hold against max_order_notional {bound}"
            )
        if contracts * abs(price) <= bound:
            return None
        return refuse(order, "order_notional", f"notional {contracts * price:,.2f} exceeds max_order_notional {bound}")

    return check


def _position(settings: LimitSettings) -> Limit:
    common = settings.max_position
    own = {key: table.max_position for key, table in settings.by_underlying.items() if table.max_position is not None}

    def check(order: Order, view: LimitView) -> Refusal | None:
        bound = common
        if own:
            bound = own.get(getattr(view.instrument, "underlying", None) or order.instrument, common)
        if bound is None:
            return None
        q = order.quantity
        if q < 0:
            after = (view.held if view.low is None else view.low) + q
            if after >= -bound:
                return None
        else:
            after = (view.held if view.high is None else view.high) + q
            if after <= bound:
                return None
        return refuse(order, "position", f"position of {abs(after)} would exceed max_position {bound}")

    return check


def _open_orders(bound: int) -> Limit:
    def check(order: Order, view: LimitView) -> Refusal | None:
        if view.open_orders < bound:
            return None
        return refuse(order, "open_orders", f"{view.open_orders} orders are open, max_open_orders is {bound}")

    return check


def _price_collar(share: float, oldest: int) -> Limit:
    exact_share = decimal_of(share)

    def check(order: Order, view: LimitView) -> Refusal | None:
        limit = order.limit
        if limit is None:
            return _collar_of_touch(order, view, share)
        if view.quote_age_ns is None or view.quote_age_ns > oldest:
            return refuse(
                order, "price_collar", f"no price of the last {oldest / 1e9:g} s to hold limit {limit} against"
            )
        price = _exact(view.price)
        if price is None or price <= 0:
            return refuse(order, "price_collar", f"no price to hold limit {limit} against, collar {share:.2%}")
        away = abs(limit - price)
        if away <= exact_share * price:
            return None
        return refuse(order, "price_collar", f"limit {limit} is {away / price:.2%} from {price}, collar {share:.2%}")

    return check


def _collar_of_touch(order: Order, view: LimitView, share: float) -> Refusal | None:
    """A market order is held at the side it would cross: a quote that wide is an error, or nobody is there."""
    away = abs(view.touch - view.price)
    if not away > share * abs(view.price) * (1.0 + 1e-12):  # unknown prices are for the limit on their age
        return None
    text = f"the quote to cross, {view.touch:g}, is {away / view.price:.2%} from {view.price:g}, collar {share:.2%}"
    return refuse(order, "price_collar", text)


def _stale(bound_ns: int) -> Limit:
    def check(order: Order, view: LimitView) -> Refusal | None:
        if view.quote_age_ns is not None and view.quote_age_ns <= bound_ns:
            return None
        age = "no quote" if view.quote_age_ns is None else f"a quote {view.quote_age_ns / 1e9:.3f} s old"
        return refuse(order, "stale", f"{order.instrument} has {age}, stale_after is {bound_ns / 1e9:.3f} s")

    return check


class Bucket:
    """Tokens that come back with event time; law: never more than `burst` of them, and the same instants give the same
    answers."""

    __slots__ = ("_burst", "_left", "_per_ns", "_seen")

    def __init__(self, per_second: float, burst: int | None = None) -> None:
        self._per_ns = per_second / NS_PER_SECOND
        self._burst = float(burst if burst is not None else max(1, math.ceil(per_second)))
        self._left = self._burst
        self._seen: Nanos | None = None

    def _at(self, now: Nanos) -> float:
        if self._seen is not None and now > self._seen:
            self._left = min(self._burst, self._left + (now - self._seen) * self._per_ns)
        if self._seen is None or now > self._seen:
            self._seen = now
        return self._left

    def is_full_enough(self) -> bool:
        """True when a token is there whatever the time: they only ever come back with it."""
        return self._left >= 1.0

    def has(self, now: Nanos) -> bool:
        """True when a token is there."""
        return self._at(now) >= 1.0 - 1e-9

    def take(self, now: Nanos) -> bool:
        """True when a token was there; it is gone."""
        if self._at(now) < 1.0 - 1e-9:
            return False
        self._left -= 1.0
        return True
