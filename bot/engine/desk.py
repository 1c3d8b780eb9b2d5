"""The desk turns the gap between target, held and working into orders; law: opposite gaps of two books cross at mid first,
and fills are allocated pro rata by largest remainder, to the lot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal
from itertools import cycle
from types import MappingProxyType
from typing import Final

import msgspec

from bot.domain.orders import Allocation

ZERO = Decimal(0)
SMALLEST: Final = Decimal("0.00000001")
"""What a fill of an instrument without a lot is divided to."""
NOTHING: Final[Mapping[str, Decimal]] = MappingProxyType({})


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


def clip(gaps: Mapping[str, Decimal], most: Decimal, lot: Decimal | None) -> dict[str, Decimal]:
    """Gaps of one sign brought down to a sum of `most`, pro rata; nothing when the sum is on the other side of it.

    >>> clip({"a": Decimal(6), "b": Decimal(3)}, Decimal(3), Decimal(1))
    {'a': Decimal('2'), 'b': Decimal('1')}
    """
    left = {book: gap for book, gap in gaps.items() if gap}
    net = sum(left.values(), ZERO)
    if not net or not most or (net > 0) != (most > 0):
        return {}
    if abs(net) <= abs(most):
        return left
    return allocate(most, [Allocation(book, gap) for book, gap in sorted(left.items())], lot)


def allocate(
    filled: Decimal, allocations: Sequence[Allocation], lot: Decimal | None, already: Mapping[str, Decimal] = NOTHING
) -> dict[str, Decimal]:
    """How much of a cumulative filled quantity belongs to each book: pro rata, whole lots, largest remainder first.

    `already` is what earlier fills of the order gave: a book never gives back, and a whole order gives each book what
    it asked for. Allocations have one sign, that of the order.

    >>> allocate(Decimal(2), [Allocation("a", Decimal(2)), Allocation("b", Decimal(1))], Decimal(1))
    {'a': Decimal('1'), 'b': Decimal('1')}
    """
    total = sum((a.quantity for a in allocations), ZERO)
    if filled == total:
        return {a.book: a.quantity for a in allocations}
    sign = 1 if filled > 0 else -1
    given = {a.book: already.get(a.book, ZERO) for a in allocations}
    missing = {a.book: max(ZERO, (filled * a.quantity / total - given[a.book]) * sign) for a in allocations}
    new = abs(filled - sum(given.values(), ZERO))
    parts = _share_out(new, missing, lot if lot is not None else SMALLEST)
    return {book: given[book] + sign * part for book, part in parts.items()}


def _share_out(amount: Decimal, weights: Mapping[str, Decimal], unit: Decimal) -> dict[str, Decimal]:
    """An amount from zero divided by weights in whole units, what is left going to the largest remainders."""
    total = sum(weights.values(), ZERO)
    exact = {book: amount * weight / total for book, weight in weights.items()}
    parts = {book: (share / unit).to_integral_value(ROUND_FLOOR) * unit for book, share in exact.items()}
    rest = amount - sum(parts.values(), ZERO)
    for book in cycle(sorted(exact, key=lambda b: (parts[b] - exact[b], b))):
        if rest <= 0:
            return parts
        step = min(unit, rest)
        parts[book] += step
        rest -= step
    return parts
