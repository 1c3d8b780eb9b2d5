"""A limit is one function: an order and what is known give a Refusal or None; law: no order passes around them.

A closing order or one that only reduces |position| may always pass the size limits: a limit must not trap a risk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import TypeAlias

import msgspec

from bot.domain.instruments import Instrument, Perpetual
from bot.domain.orders import Order, Refusal
from bot.domain.units import decimal_of

ONE = Decimal(1)


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    """What a limit may look at: the instrument, its price, what is held and open."""

    instrument: Instrument
    price: float
    quote_age_ns: int | None
    held: Decimal
    open_orders: int
    frozen: str = ""


Limit: TypeAlias = Callable[[Order, LimitView], Refusal | None]


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one account; None is no bound. Sizes in contracts, notional in the instrument's currency."""

    max_order_quantity: Decimal | None = None
    max_order_notional: Decimal | None = None
    max_position: Decimal | None = None
    max_open_orders: int | None = None
    price_collar: float | None = None
    stale_after: int | None = None
    restricted: tuple[str, ...] = ()


def build(settings: LimitSettings) -> list[tuple[str, Limit]]:
    """The limits of an account in the order they are asked, each with its reason code."""
    limits: list[tuple[str, Limit]] = [("frozen", refuse_frozen), ("restricted", _restricted(settings.restricted))]
    if settings.max_order_quantity is not None:
        limits.append(("order_quantity", _order_quantity(settings.max_order_quantity)))
    if settings.max_order_notional is not None:
        limits.append(("order_notional", _order_notional(settings.max_order_notional)))
    if settings.max_position is not None:
        limits.append(("position", _position(settings.max_position)))
    if settings.max_open_orders is not None:
        limits.append(("open_orders", _open_orders(settings.max_open_orders)))
    if settings.price_collar is not None:
        limits.append(("price_collar", _price_collar(settings.price_collar)))
    if settings.stale_after is not None:
        limits.append(("stale", _stale(settings.stale_after)))
    return limits


def refuse(order: Order, code: str, text: str) -> Refusal:
    """A refusal of this order."""
    return Refusal(
        code=code, text=text, account=order.account, instrument=order.instrument, quantity=order.quantity, ts=order.ts
    )


def refuse_frozen(order: Order, view: LimitView) -> Refusal | None:
    """Refuses orders in an underlying that is frozen, whatever they would do."""
    return refuse(order, "frozen", view.frozen) if view.frozen else None


def _exact(price: float) -> Decimal | None:
    """The price in decimals, so that an order exactly at a bound passes; None when it is not known."""
    return decimal_of(price) if math.isfinite(price) else None


def _reduces(order: Order, view: LimitView) -> bool:
    after = view.held + order.quantity
    return abs(after) <= abs(view.held) and (after == 0 or (after > 0) == (view.held > 0))


def _restricted(names: tuple[str, ...]) -> Limit:
    listed = frozenset(names)

    def check(order: Order, view: LimitView) -> Refusal | None:
        if order.instrument not in listed:
            return None
        return refuse(order, "restricted", f"{order.instrument} is on the restricted list")

    return check


def _order_quantity(bound: Decimal) -> Limit:
    def check(order: Order, view: LimitView) -> Refusal | None:
        if abs(order.quantity) <= bound or _reduces(order, view):
            return None
        return refuse(order, "order_quantity", f"order of {abs(order.quantity)} exceeds max_order_quantity {bound}")

    return check


def _order_notional(bound: Decimal) -> Limit:
    def check(order: Order, view: LimitView) -> Refusal | None:
        if _reduces(order, view):
            return None
        inverse = isinstance(view.instrument, Perpetual) and view.instrument.inverse  # its multiplier is money already
        contracts = abs(order.quantity) * view.instrument.multiplier
        price = ONE if inverse else _exact(view.price)
        if price is None:
            return refuse(
                order, "order_notional", f"no price, so no notional to hold against max_order_notional {bound}"
            )
        if contracts * price <= bound:
            return None
        return refuse(order, "order_notional", f"notional {contracts * price:,.2f} exceeds max_order_notional {bound}")

    return check


def _position(bound: Decimal) -> Limit:
    def check(order: Order, view: LimitView) -> Refusal | None:
        after = abs(view.held + order.quantity)
        if after <= bound or _reduces(order, view):
            return None
        return refuse(order, "position", f"position of {after} would exceed max_position {bound}")

    return check


def _open_orders(bound: int) -> Limit:
    def check(order: Order, view: LimitView) -> Refusal | None:
        if view.open_orders < bound:
            return None
        return refuse(order, "open_orders", f"{view.open_orders} orders are open, max_open_orders is {bound}")

    return check


def _price_collar(share: float) -> Limit:
    def check(order: Order, view: LimitView) -> Refusal | None:
        if order.limit is None:
            return None
        price = _exact(view.price)
        if price is None or price <= 0:
            return refuse(order, "price_collar", f"no price to hold limit {order.limit} against, collar {share:.2%}")
        away = abs(order.limit - price)
        if away <= decimal_of(share) * price:
            return None
        return refuse(
            order, "price_collar", f"limit {order.limit} is {away / price:.2%} from {price}, collar {share:.2%}"
        )

    return check


def _stale(bound_ns: int) -> Limit:
    def check(order: Order, view: LimitView) -> Refusal | None:
        if view.quote_age_ns is not None and view.quote_age_ns <= bound_ns:
            return None
        age = "no quote" if view.quote_age_ns is None else f"a quote {view.quote_age_ns / 1e9:.3f} s old"
        return refuse(order, "stale", f"{order.instrument} has {age}, stale_after is {bound_ns / 1e9:.3f} s")

    return check
