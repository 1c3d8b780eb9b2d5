"""A book is what is held and owed; law: it changes only by events, in exact decimals, and sums of books equal the account."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import msgspec

from bot.domain.instruments import Instrument, Perpetual, settlement_currency


class PositionKey(msgspec.Struct, frozen=True, gc=False, order=True):
    """Whose position it is, and in what."""

    account: str
    book: str
    strategy: str
    instrument: str


class Position(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A holding: signed quantity in contracts, with the counterparty and tag its owner gave it."""

    key: PositionKey
    quantity: Decimal
    price: Decimal | None = None
    counterparty: str = ""
    tag: str = ""


class Book:
    """Quantities by position key and cash by currency. Changed by `apply_trade`, `add_cash` and `move` only."""

    def __init__(self) -> None:
        self._quantity: dict[PositionKey, Decimal] = {}
        self._cash: dict[str, Decimal] = {}
        self._held: dict[str, Decimal] = {}

    def apply_trade(self, key: PositionKey, quantity: Decimal, price: Decimal, instrument: Instrument) -> None:
        """Add a quantity and pay for it. An inverse perpetual carries no principal: its P&L settles when marked."""
        self.add_quantity(key, quantity)
        self.add_cash(settlement_currency(instrument), -trade_value(instrument, quantity, price))

    def add_quantity(self, key: PositionKey, quantity: Decimal) -> None:
        """Add contracts without cash: opening positions, deliveries booked apart, corporate actions."""
        total = self._quantity.get(key, Decimal(0)) + quantity
        if total:
            self._quantity[key] = total
        else:
            self._quantity.pop(key, None)
        held = self._held.get(key.instrument, Decimal(0)) + quantity
        if held:
            self._held[key.instrument] = held
        else:
            self._held.pop(key.instrument, None)

    def add_cash(self, currency: str, amount: Decimal) -> None:
        """Add (or with a minus sign pay) cash."""
        self._cash[currency] = self._cash.get(currency, Decimal(0)) + amount

    def quantity(self, instrument: str) -> Decimal:
        """Contracts held of an instrument over all keys."""
        return self._held.get(instrument, Decimal(0))

    def quantity_of(self, key: PositionKey) -> Decimal:
        """Contracts held under one key."""
        return self._quantity.get(key, Decimal(0))

    def cash(self) -> dict[str, Decimal]:
        """Cash by currency, a copy."""
        return dict(self._cash)

    def __iter__(self) -> Iterator[tuple[PositionKey, Decimal]]:
        return iter(sorted(self._quantity.items()))

    def instruments(self) -> list[str]:
        """Ids of all instruments held, sorted."""
        return sorted(self._held)

    def sums_agree(self) -> bool:
        """True when the kept total of every instrument equals the sum over its keys."""
        totals: dict[str, Decimal] = {}
        for key, quantity in self._quantity.items():
            totals[key.instrument] = totals.get(key.instrument, Decimal(0)) + quantity
        return {k: v for k, v in totals.items() if v} == self._held


def trade_value(instrument: Instrument, quantity: Decimal, price: Decimal) -> Decimal:
    """The cash value of contracts at a price, in the settlement currency; an inverse contract's is -q m / price."""
    if isinstance(instrument, Perpetual) and instrument.inverse:
        return -quantity * instrument.multiplier / price
    return quantity * instrument.multiplier * price
