"""An option's end turns a position into cash, into its deliverable, or into nothing.

Law: decided by the settlement value only. Long in the money is exercised and short in the money assigned when intrinsic
value reaches `threshold` per unit (a cent, as in the OCC's exercise-by-exception); below it the option expires
worthless. Cash moves for `settlement` only.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from bot.core.errors import BookError
from bot.core.events import Lifecycle
from bot.domain.instruments import Deliverable, Instrument, OptionContract
from bot.domain.units import Nanos

EXERCISE_THRESHOLD: Final = Decimal("0.01")


def intrinsic_value(contract: OptionContract, settlement_value: Decimal) -> Decimal:
    """max(0, cp (S - K)) per unit of the underlying."""
    return max(Decimal(0), (settlement_value - contract.strike) * contract.cp)


def settle(
    contract: OptionContract,
    quantity: Decimal,
    settlement_value: Decimal,
    *,
    account: str = "",
    underlying: Instrument | None = None,
    threshold: Decimal = EXERCISE_THRESHOLD,
    ts: Nanos | None = None,
) -> tuple[Lifecycle, ...]:
    """What becomes of `quantity` (signed) contracts at the settlement value of the underlying, at `contract.settles`.

    One event that closes the contracts: `settlement` (cash: quantity x multiplier x `value` is received), `exercise` or
    `assignment` (nothing is paid but `deliver_quantity` of `deliver` is bought at `deliver_price`, sold when negative),
    or `expiry` (worthless). An adjusted contract with several deliverable lines gives a further event per line with
    contract quantity 0: the strike is paid on the first line, the others come at price 0.
    A physical contract needs `underlying` (its multiplier says how many units a contract delivers: 100 shares, one
    future) unless the deliverable is explicit; BookError by name when neither is known.
    """
    if not (settlement_value.is_finite() and settlement_value >= 0):
        raise BookError(f"{contract.id}: settlement value: expected a finite number from 0, found {settlement_value}")
    instant = contract.settles if ts is None else ts
    value = intrinsic_value(contract, settlement_value)
    if value < threshold:
        return (_end("expiry", contract, quantity, Decimal(0), account, instant),)
    if contract.settlement == "cash":
        return (_end("settlement", contract, quantity, value, account, instant),)
    what: Literal["exercise", "assignment"] = "exercise" if quantity > 0 else "assignment"
    lines = _deliverables(contract, underlying)
    strike_money = contract.strike * contract.multiplier
    return tuple(
        Lifecycle(
            ts_recv=instant,
            what=what,
            account=account,
            instrument=contract.id,
            quantity=quantity if i == 0 else Decimal(0),
            value=value,
            deliver=line.instrument,
            deliver_quantity=quantity * contract.cp * line.quantity,
            deliver_price=strike_money / (line.quantity * _unit(line, underlying)) if i == 0 else Decimal(0),
        )
        for i, line in enumerate(lines)
    )


def _unit(line: Deliverable, underlying: Instrument | None) -> Decimal:
    """The multiplier of what is delivered: its price times this is money."""
    return underlying.multiplier if underlying is not None and underlying.id == line.instrument else Decimal(1)


def _end(
    what: Literal["settlement", "expiry"],
    contract: OptionContract,
    quantity: Decimal,
    value: Decimal,
    account: str,
    instant: Nanos,
) -> Lifecycle:
    return Lifecycle(
        ts_recv=instant,
        what=what,
        account=account,
        instrument=contract.id,
        quantity=quantity,
        value=value,
    )


def _deliverables(contract: OptionContract, underlying: Instrument | None) -> tuple[Deliverable, ...]:
    if contract.deliverable:
        return contract.deliverable
    if underlying is None or underlying.id != contract.underlying:
        found = "none" if underlying is None else underlying.id
        raise BookError(
            f"{contract.id}: physical settlement: expected the instrument {contract.underlying} or a deliverable, "
            f"found {found}"
        )
    return (Deliverable(underlying.id, contract.multiplier / underlying.multiplier),)
