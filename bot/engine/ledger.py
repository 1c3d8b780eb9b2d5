"""A ledger is an account's exact money: what was made at mid, what trading cost by kind; law: Decimals only, and
total = options + hedge - spread - commission - impact + financing, always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

from bot.domain.book import Book, PositionKey, trade_value
from bot.domain.instruments import (
    ConvertibleBond,
    Future,
    Instrument,
    Perpetual,
    Universe,
    is_option,
    settlement_currency,
)
from bot.domain.orders import Fill
from bot.engine.facts import LedgerState

ZERO = Decimal(0)
Category: TypeAlias = Literal["options", "hedge"]
Converter: TypeAlias = Callable[[str], Decimal | None]


class Pnl(msgspec.Struct, frozen=True, kw_only=True):
    """Profit and loss in the base currency: `options` and `hedge` at mid, costs positive."""

    total: Decimal
    options: Decimal
    hedge: Decimal
    spread_cost: Decimal
    commission: Decimal
    impact: Decimal
    financing: Decimal


class Ledger:
    """The books and money of one account."""

    def __init__(self, account: str, universe: Universe, base_currency: str) -> None:
        self.account = account
        self.base = base_currency
        self.book = Book()
        self._universe = universe
        self._at_mid: dict[Category, dict[str, Decimal]] = {"options": {}, "hedge": {}}
        self._costs: dict[str, dict[str, Decimal]] = {
            "spread_cost": {},
            "commission": {},
            "impact": {},
            "financing": {},
        }
        self.delay: dict[str, Decimal] = {}
        self.trades = 0
        self.units_traded = ZERO
        self.closing_trades = 0
        self.closing_units = ZERO
        self.turnover = ZERO
        self.version = 0
        self.restated = 0
        """The version as of the last change that was no fill, transfer or interest: such a change has no fact of its own."""
        self.opening_ticket = ZERO
        self._opening_apart = False
        self._opening_orders: dict[str, str] = {}
        self.opened_on_margin: dict[str, Decimal] = {}

    def set_opening_apart(self, apart: bool) -> None:
        """Say whether the fee of each instrument's first order is shown apart and left out of the P&L."""
        self._opening_apart = apart

    # ------------------------------------------------------------------ changes, each by an event

    def open(self, key: PositionKey, quantity: Decimal, mark: Decimal) -> None:
        """Take over a position at its opening mark, without cash."""
        instrument = self._universe.get(key.instrument)
        self.book.add_quantity(key, quantity)
        value = trade_value(instrument, quantity, mark)
        self._flow(instrument, -value)
        if isinstance(instrument, Future | Perpetual):
            currency = settlement_currency(instrument)
            self.opened_on_margin[currency] = self.opened_on_margin.get(currency, ZERO) + value
        self.version += 1
        self.restated = self.version

    def fill(self, fill: Fill, parts: Mapping[PositionKey, Decimal], *, first_of_order: bool) -> None:
        """Book an execution, in the parts its books take, and what it cost against the middle."""
        instrument = self._universe.get(fill.instrument)
        currency = settlement_currency(instrument)
        for key, quantity in parts.items():
            self.book.apply_trade(key, quantity, fill.price, instrument)
        self.book.add_cash(fill.currency, -fill.commission)
        at_mid = trade_value(instrument, fill.quantity, fill.mid)
        at_touch = trade_value(instrument, fill.quantity, fill.touch)
        at_price = trade_value(instrument, fill.quantity, fill.price)
        self._flow(instrument, -at_mid)
        self._cost("spread_cost", currency, at_touch - at_mid)
        self._cost("impact", currency, at_price - at_touch)
        if self._is_opening(fill):
            self.opening_ticket += fill.commission
        else:
            self._cost("commission", fill.currency, fill.commission)
        self._count(fill, abs(at_mid), first_of_order)
        self.version += 1

    def transfer(self, seller: PositionKey, buyer: PositionKey, quantity: Decimal, price: Decimal) -> None:
        """Pass contracts between two books of the account at a price; the account's own holding does not change."""
        instrument = self._universe.get(seller.instrument)
        self.book.apply_trade(seller, -quantity, price, instrument)
        self.book.apply_trade(buyer, quantity, price, instrument)
        self.version += 1

    def convert(self, key: PositionKey, new: PositionKey, ratio: Decimal) -> None:
        """A corporate action turned a holding into another."""
        quantity = self.book.quantity_of(key)
        self.book.add_quantity(key, -quantity)
        self.book.add_quantity(new, quantity * ratio)
        self.version += 1
        self.restated = self.version

    def receive(self, category: Category, currency: str, amount: Decimal) -> None:
        """Cash that belongs to P&L at mid: settlements, dividends on holdings."""
        self.book.add_cash(currency, amount)
        flows = self._at_mid[category]
        flows[currency] = flows.get(currency, ZERO) + amount
        self.version += 1
        self.restated = self.version

    def remove(self, key: PositionKey) -> Decimal:
        """The quantity of a position that ended, taken out without cash."""
        quantity = self.book.quantity_of(key)
        self.book.add_quantity(key, -quantity)
        self.version += 1
        self.restated = self.version
        return quantity

    def exchange(
        self, key: PositionKey, quantity: Decimal, new: PositionKey, received: Decimal, mid: Decimal | None
    ) -> None:
        """Give a quantity of one holding and receive another for it, without cash: a conversion, a merger.

        Its P&L goes on where it was; what passes from options to hedge, or back, passes at `mid` (None: at nothing).
        """
        self.book.add_quantity(key, -quantity)
        self.book.add_quantity(new, received)
        old, item = self._universe.get(key.instrument), self._universe.get(new.instrument)
        if category_of(old) != category_of(item) and mid is not None:
            value = trade_value(item, received, mid)
            self._flow(item, -value)
            flows, currency = self._at_mid[category_of(old)], settlement_currency(item)
            flows[currency] = flows.get(currency, ZERO) + value
        self.version += 1
        self.restated = self.version

    def deliver(self, key: PositionKey, quantity: Decimal, price: Decimal, mid: Decimal) -> None:
        """Take delivery at `price` of something worth `mid`: the holding enters at mid, the difference is the option's."""
        instrument = self._universe.get(key.instrument)
        currency = settlement_currency(instrument)
        self.book.apply_trade(key, quantity, price, instrument)
        self._flow(instrument, -trade_value(instrument, quantity, mid))
        gain = trade_value(instrument, quantity, mid) - trade_value(instrument, quantity, price)
        flows = self._at_mid["options"]
        flows[currency] = flows.get(currency, ZERO) + gain
        self.version += 1
        self.restated = self.version

    def finance(self, currency: str, amount: Decimal) -> None:
        """Interest earned (or with a minus sign paid), borrow cost and funding."""
        self.book.add_cash(currency, amount)
        self._cost("financing", currency, amount)
        self.version += 1

    # ------------------------------------------------------------------ the record

    def state(self) -> LedgerState:
        """All of it, for the journal."""
        return LedgerState(
            positions=list(self.book),
            cash=self.book.cash(),
            at_mid={str(category): dict(by) for category, by in self._at_mid.items()},
            costs={kind: dict(by) for kind, by in self._costs.items()},
            delay=dict(self.delay),
            trades=self.trades,
            units_traded=self.units_traded,
            closing_trades=self.closing_trades,
            closing_units=self.closing_units,
            turnover=self.turnover,
            opening_ticket=self.opening_ticket,
            opening_orders=dict(self._opening_orders),
            opened_on_margin=dict(self.opened_on_margin),
        )

    def restore(self, state: LedgerState) -> None:
        """Be as the record says."""
        self.book = Book()
        for key, quantity in state.positions:
            self.book.add_quantity(key, quantity)
        for currency, amount in state.cash.items():
            self.book.add_cash(currency, amount)
        self._at_mid = {"options": dict(state.at_mid["options"]), "hedge": dict(state.at_mid["hedge"])}
        self._costs = {kind: dict(by) for kind, by in state.costs.items()}
        self.delay = dict(state.delay)
        self.trades, self.units_traded = state.trades, state.units_traded
        self.closing_trades, self.closing_units = state.closing_trades, state.closing_units
        self.turnover, self.opening_ticket = state.turnover, state.opening_ticket
        self._opening_orders = dict(state.opening_orders)
        self.opened_on_margin = dict(state.opened_on_margin)
        self.version += 1
        self.restated = self.version

    # ------------------------------------------------------------------ questions

    def quantities(self) -> dict[str, Decimal]:
        """Contracts held by instrument."""
        return {key: self.book.quantity(key) for key in self.book.instruments()}

    def pnl(self, mark: Callable[[str], Decimal | None], convert: Converter) -> Pnl | None:
        """Profit and loss at these marks, None when a mark or an exchange rate is missing."""
        at_mid: dict[str, Decimal] = {}
        for category in ("options", "hedge"):
            values = dict(self._at_mid[category])
            for key, quantity in self.quantities().items():
                instrument = self._universe.get(key)
                if category_of(instrument) != category:
                    continue
                price = mark(key)
                if price is None:
                    return None
                currency = settlement_currency(instrument)
                values[currency] = values.get(currency, ZERO) + trade_value(instrument, quantity, price)
            total = convert_sum(values, convert)
            if total is None:
                return None
            at_mid[category] = total
        costs = {name: convert_sum(by_currency, convert) for name, by_currency in self._costs.items()}
        if any(value is None for value in costs.values()):
            return None
        known = {name: value for name, value in costs.items() if value is not None}
        return Pnl(
            total=at_mid["options"] + at_mid["hedge"] + known["financing"]
            - known["spread_cost"] - known["commission"] - known["impact"],
            options=at_mid["options"],
            hedge=at_mid["hedge"],
            **known,
        )  # fmt: skip

    def amounts(self) -> list[tuple[tuple[str, str, str], Decimal]]:
        """Flows at mid as (at_mid, category, currency) and costs as (cost, kind, currency), each with its sum so far."""
        made = [(("at_mid", str(kind), c), v) for kind, by in self._at_mid.items() for c, v in by.items()]
        return made + [(("cost", kind, c), v) for kind, by in self._costs.items() for c, v in by.items()]

    def costs(self) -> dict[str, dict[str, Decimal]]:
        """What trading cost by kind and currency: spread, commission, impact; and the interest received."""
        names = {"spread_cost": "spread", "financing": "interest"}
        return {names.get(kind, kind): dict(by_currency) for kind, by_currency in self._costs.items()}

    def balances(self, mark: Callable[[str], Decimal | None]) -> dict[str, Decimal]:
        """Cash by currency that earns or pays interest: what futures and perpetuals seemed to cost counts as margin.

        The book pays for a future as for a share; no such money moves, only the change of its value since it was
        taken. One without a mark counts at nothing gained.
        """
        cash = self.book.cash()
        for currency, value in self.opened_on_margin.items():
            cash[currency] = cash.get(currency, ZERO) - value
        for key, quantity in self.quantities().items():
            instrument = self._universe.get(key)
            price = mark(key) if isinstance(instrument, Future | Perpetual) else None
            if price is not None:
                currency = settlement_currency(instrument)
                cash[currency] = cash.get(currency, ZERO) + trade_value(instrument, quantity, price)
        return cash

    # ------------------------------------------------------------------ parts

    def _is_opening(self, fill: Fill) -> bool:
        """True for the fills of an instrument's first order, where that ticket is shown apart."""
        if not self._opening_apart:
            return False
        first = self._opening_orders.setdefault(fill.instrument, fill.order_id)
        return first == fill.order_id and not fill.closing

    def _flow(self, instrument: Instrument, amount: Decimal) -> None:
        flows = self._at_mid[category_of(instrument)]
        currency = settlement_currency(instrument)
        flows[currency] = flows.get(currency, ZERO) + amount

    def _cost(self, kind: str, currency: str, amount: Decimal) -> None:
        by_currency = self._costs[kind]
        by_currency[currency] = by_currency.get(currency, ZERO) + amount

    def _count(self, fill: Fill, notional: Decimal, first: bool) -> None:
        self.turnover += notional
        if fill.closing:
            self.closing_trades += first
            self.closing_units += abs(fill.quantity)
        else:
            self.trades += first
            self.units_traded += abs(fill.quantity)


def category_of(instrument: Instrument) -> Category:
    """Whether an instrument's P&L counts as options (and convertibles: what is hedged) or as hedge."""
    return "options" if is_option(instrument) or isinstance(instrument, ConvertibleBond) else "hedge"


def convert_sum(amounts: Mapping[str, Decimal], convert: Converter) -> Decimal | None:
    """The sum in the base currency, None when a rate that is needed is missing."""
    total = ZERO
    for currency, amount in amounts.items():
        if not amount:
            continue
        rate = convert(currency)
        if rate is None:
            return None
        total += amount * rate
    return total
