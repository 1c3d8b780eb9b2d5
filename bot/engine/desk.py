"""The desk turns the gap between target, held and working into orders; law: opposite gaps of two books cross at mid first,
and fills are allocated pro rata by largest remainder, to the lot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal

import msgspec

from bot.domain.orders import Allocation

ZERO = Decimal(0)


class Crossing(msgspec.Struct, frozen=True, gc=False):
    """A quantity that passes from one book of an account to another without the market."""

    seller: str
    buyer: str
    quantity: Decimal


def gap(target: Decimal, held: Decimal, working: Decimal) -> Decimal:
    """What is still to be traded: target - held - working.

    >>> gap(Decimal(-5), Decimal(-3), Decimal(-1))
    Decimal('-1')
    """
    return target - held - working


def cross(gaps: Mapping[str, Decimal]) -> tuple[list[Crossing], dict[str, Decimal]]:
    """Crossings between books with opposite gaps, largest first, and the gaps that are left for the market.

    >>> cross({"a": Decimal(3), "b": Decimal(-2)})[1]
    {'a': Decimal('1'), 'b': Decimal('0')}
    """
    left = dict(sorted(gaps.items()))
    crossings: list[Crossing] = []
    while True:
        buyer = max(left, key=lambda b: left[b], default=None)
        seller = min(left, key=lambda b: left[b], default=None)
        if buyer is None or seller is None or left[buyer] <= 0 or left[seller] >= 0:
            return crossings, left
        quantity = min(left[buyer], -left[seller])
        left[buyer] -= quantity
        left[seller] += quantity
        crossings.append(Crossing(seller, buyer, quantity))


def allocate(filled: Decimal, allocations: Sequence[Allocation], lot: Decimal | None) -> dict[str, Decimal]:
    """How much of a cumulative filled quantity belongs to each book: pro rata, whole lots, largest remainder first.

    >>> allocate(Decimal(2), [Allocation("a", Decimal(2)), Allocation("b", Decimal(1))], Decimal(1))
    {'a': Decimal('1'), 'b': Decimal('1')}
    """
    total = sum((a.quantity for a in allocations), ZERO)
    if not total:
        return {}
    unit = lot if lot is not None else Decimal("0.00000001")
    exact = {a.book: filled * a.quantity / total for a in allocations}
    shares = {book: (abs(q) / unit).to_integral_value(ROUND_FLOOR) * unit for book, q in exact.items()}
    rest = abs(filled) - sum(shares.values(), ZERO)
    order = sorted(exact, key=lambda b: (-(abs(exact[b]) - shares[b]), b))
    position = 0
    while rest > 0:
        step = min(unit, rest)
        shares[order[position % len(order)]] += step
        rest -= step
        position += 1
    sign = 1 if filled > 0 else -1
    return {book: sign * q for book, q in shares.items()}
