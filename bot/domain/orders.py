"""An order is our intent, a fill our execution; law: ids are ours, quantities are signed and not zero, moves are a table."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

from bot.domain.units import Nanos

TimeInForce: TypeAlias = Literal["day", "gtc", "gtd", "ioc", "fok"]
OrderKind: TypeAlias = Literal["market", "limit"]


class OrderStatus(StrEnum):
    """Where an order stands. UNKNOWN counts as exposure both ways until the venue answers."""

    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    PARTIAL = "partial"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


_S = OrderStatus
LEGAL_MOVES: Final[dict[OrderStatus, frozenset[OrderStatus]]] = {
    _S.SUBMITTED: frozenset({_S.ACCEPTED, _S.PARTIAL, _S.FILLED, _S.CANCELLED, _S.REJECTED, _S.EXPIRED, _S.UNKNOWN}),
    _S.ACCEPTED: frozenset({_S.PARTIAL, _S.FILLED, _S.CANCELLED, _S.EXPIRED, _S.UNKNOWN, _S.REJECTED}),
    _S.PARTIAL: frozenset({_S.PARTIAL, _S.FILLED, _S.CANCELLED, _S.EXPIRED, _S.UNKNOWN}),
    _S.UNKNOWN: frozenset({_S.ACCEPTED, _S.PARTIAL, _S.FILLED, _S.CANCELLED, _S.REJECTED, _S.EXPIRED}),
    _S.FILLED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.REJECTED: frozenset(),
    _S.EXPIRED: frozenset(),
}

OPEN: Final = frozenset({_S.SUBMITTED, _S.ACCEPTED, _S.PARTIAL, _S.UNKNOWN})


class QuoteRef(msgspec.Struct, frozen=True, gc=False):
    """The quote a decision or fill saw: both sides, and when it was received."""

    bid: float | None
    ask: float | None
    ts: Nanos

    @property
    def mid(self) -> float | None:
        """Middle of the two sides, None when one is withdrawn."""
        return None if self.bid is None or self.ask is None else 0.5 * (self.bid + self.ask)


class Allocation(msgspec.Struct, frozen=True, gc=False):
    """How much of an order is for one book."""

    book: str
    quantity: Decimal


class Order(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What we ask a venue to do. `quantity` is signed, in contracts; `reference` is the quote the decision saw."""

    id: str
    account: str
    instrument: str
    quantity: Decimal
    ts: Nanos
    kind: OrderKind = "market"
    limit: Decimal | None = None
    tif: TimeInForce = "day"
    expires: Nanos | None = None
    allocations: tuple[Allocation, ...] = ()
    reference: QuoteRef | None = None
    reason: str = ""
    closing: bool = False

    def __post_init__(self) -> None:
        if not self.quantity.is_finite() or self.quantity == 0:
            raise ValueError(f"order {self.id}: quantity: expected finite and not zero, found {self.quantity}")
        if (self.kind == "limit") != (self.limit is not None):
            raise ValueError(f"order {self.id}: a limit order has a limit price and a market order has none")
        if self.limit is not None and not (self.limit.is_finite() and self.limit > 0):
            raise ValueError(f"order {self.id}: limit: expected a positive price, found {self.limit}")
        if (self.tif == "gtd") != (self.expires is not None):
            raise ValueError(f"order {self.id}: time in force gtd has an expiry instant, others have none")


class Fill(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Our execution. `touch` is the quoted price crossed, `mid` the middle then, `impact` = price - touch per unit.

    `quote_ts` cites the quote used, so its age is `ts - quote_ts`.
    """

    id: str
    order_id: str
    account: str
    instrument: str
    ts: Nanos
    quantity: Decimal
    price: Decimal
    commission: Decimal
    currency: str
    mid: Decimal
    touch: Decimal
    quote_ts: Nanos
    closing: bool = False

    def __post_init__(self) -> None:
        if not self.quantity.is_finite() or self.quantity == 0:
            raise ValueError(f"fill {self.id}: quantity: expected finite and not zero, found {self.quantity}")
        if not self.price.is_finite():
            raise ValueError(f"fill {self.id}: price: expected finite, found {self.price}")


class Refusal(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Why an order was not sent: a stable code and a sentence."""

    code: str
    text: str
    account: str
    instrument: str
    quantity: Decimal
    ts: Nanos


def move(order_id: str, now: OrderStatus, to: OrderStatus) -> OrderStatus:
    """The next status when the move is legal; ValueError with both states when it is not."""
    if to not in LEGAL_MOVES[now]:
        raise ValueError(f"order {order_id}: no move from {now} to {to}")
    return to
