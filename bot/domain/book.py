"""A book is what is held and owed; law: it changes only by events, in exact decimals, and sums of books equal the account."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

import msgspec

from bot.domain.instruments import Instrument, Perpetual, settlement_currency

ZERO: Final = Decimal(0)


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
    """Quantities by position key and cash by currency. Changed by `apply_trade`, `add_cash` and `add_quantity` only.

    A change costs the same however much is held: positions are kept by instrument, and who looks again asks for what
    changed since.
    """

    def __init__(self) -> None:
        self._of: dict[str, dict[PositionKey, Decimal]] = {}
        self._cash: dict[str, Decimal] = {}
        self._held: dict[str, Decimal] = {}
        self._sorted: list[str] | None = None
        self._unproved: set[str] = set()
        self._changed: dict[str, int] = {}
        self.version = 0
        """Counts the changes of quantities."""

    def apply_trade(self, key: PositionKey, quantity: Decimal, price: Decimal, instrument: Instrument) -> None:
        """Add a quantity and pay for it. An inverse perpetual carries no principal: its P&L settles when marked."""
        self.add_quantity(key, quantity)
        self.add_cash(settlement_currency(instrument), -trade_value(instrument, quantity, price))

    def add_quantity(self, key: PositionKey, quantity: Decimal) -> None:
        """Add contracts without cash: opening positions, deliveries booked apart, corporate actions."""
        name = key.instrument
        owners = self._of.setdefault(name, {})
        total = owners.get(key, ZERO) + quantity
        if total:
            owners[key] = total
        else:
            owners.pop(key, None)
        before = self._held.get(name, ZERO)
        held = before + quantity
        if held:
            self._held[name] = held
        else:
            self._held.pop(name, None)
        if bool(before) != bool(held):
            self._sorted = None
        self.version += 1
        self._changed.pop(name, None)
        self._changed[name] = self.version
        self._unproved.add(name)

    def add_cash(self, currency: str, amount: Decimal) -> None:
        """Add (or with a minus sign pay) cash."""
        self._cash[currency] = self._cash.get(currency, ZERO) + amount

    def quantity(self, instrument: str) -> Decimal:
        """Contracts held of an instrument over all keys."""
        return self._held.get(instrument, ZERO)

    def quantity_of(self, key: PositionKey) -> Decimal:
        """Contracts held under one key."""
        return self._of.get(key.instrument, {}).get(key, ZERO)

    def positions_of(self, instrument: str) -> list[tuple[PositionKey, Decimal]]:
        """Who holds how much of an instrument, in order of key."""
        owners = self._of.get(instrument)
        if not owners:
            return []
        return list(owners.items()) if len(owners) == 1 else sorted(owners.items())

    def changed_since(self, version: int) -> list[str]:
        """The instruments whose quantity was changed after `version`, the latest first."""
        found = []
        for name, changed in reversed(self._changed.items()):
            if changed <= version:
                break
            found.append(name)
        return found

    def cash(self) -> dict[str, Decimal]:
        """Cash by currency, a copy."""
        return dict(self._cash)

    def __iter__(self) -> Iterator[tuple[PositionKey, Decimal]]:
        return iter(sorted(pair for owners in self._of.values() for pair in owners.items()))

    def instruments(self) -> list[str]:
        """Ids of all instruments held, sorted."""
        if self._sorted is None:
            self._sorted = sorted(self._held)
        return list(self._sorted)

    def sums_agree(self) -> bool:
        """True when the kept total of every instrument that changed since last asked equals the sum over its keys."""
        for name in self._unproved:
            if sum(self._of[name].values(), ZERO) != self._held.get(name, ZERO):
                return False
        self._unproved.clear()
        return True


def trade_value(instrument: Instrument, quantity: Decimal, price: Decimal) -> Decimal:
    """The cash value of contracts at a price, in the settlement currency; an inverse contract's is -q m / price."""
    if isinstance(instrument, Perpetual) and instrument.inverse:
        return -quantity * instrument.multiplier / price
    return quantity * instrument.multiplier * price
