"""Margin is the money a position ties up; law: pure, per position, with no offset between positions.

The simple rule stated here is meant to refuse orders nobody could finance, not to reproduce a clearing house.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from bot.domain.book import trade_value
from bot.domain.instruments import Future, Instrument, OptionContract, Perpetual


class RegT(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="reg_t"
):
    """Requirements in the manner of Regulation T and Cboe's margin manual, as shares of value unless stated.

    Stock `stock` of market value, long or short. A long option its premium. A short option, beside the liability
    itself, max(`option` S - out-of-the-money amount, `option_minimum` of S for calls or of K for puts), per unit.
    Futures and perpetuals a fixed sum per contract from `per_contract`, by id, else `leveraged` of notional when given.
    """

    stock: Decimal = Decimal("0.50")
    option: Decimal = Decimal("0.20")
    option_minimum: Decimal = Decimal("0.10")
    per_contract: dict[str, Decimal] = {}
    leveraged: Decimal | None = None


class MarginLine(msgspec.Struct, frozen=True, gc=False):
    """A position to be margined: contracts and prices per unit; `underlying` is needed for short options only."""

    instrument: Instrument
    quantity: Decimal
    price: Decimal
    underlying: Decimal | None = None


def requirement(rule: RegT, line: MarginLine) -> Decimal:
    """The money one position ties up beyond its own (signed) market value, in the settlement currency.

    ValueError, by name, when a contract has no stated margin or a short option no underlying price.
    """
    match line.instrument:
        case OptionContract() as contract:
            return _option_requirement(rule, contract, line)
        case Future() | Perpetual() as contract:
            return _contract_requirement(rule, contract, line)
        case other:
            return rule.stock * abs(trade_value(other, line.quantity, line.price))


def total_requirement(rule: RegT, lines: Iterable[MarginLine]) -> Decimal:
    """The sum of the requirements of positions in one currency."""
    return sum((requirement(rule, line) for line in lines if line.quantity), Decimal(0))


def _contract_requirement(rule: RegT, contract: Future | Perpetual, line: MarginLine) -> Decimal:
    fixed = rule.per_contract.get(contract.id)
    if fixed is not None:
        return abs(line.quantity) * fixed
    if rule.leveraged is None:
        raise ValueError(f"{contract.id}: no margin per contract is stated for it, nor a share of notional")
    return rule.leveraged * abs(trade_value(contract, line.quantity, line.price))


def _option_requirement(rule: RegT, contract: OptionContract, line: MarginLine) -> Decimal:
    if line.quantity > 0:
        return abs(trade_value(contract, line.quantity, line.price))
    if line.underlying is None:
        raise ValueError(f"{contract.id}: a short option needs a price of {contract.underlying}, found none")
    S, K = line.underlying, contract.strike
    out_of_the_money = max(Decimal(0), (K - S) * contract.cp)
    floor = rule.option_minimum * (S if contract.cp > 0 else K)
    per_unit = max(rule.option * S - out_of_the_money, floor)
    return abs(line.quantity) * contract.multiplier * per_unit
