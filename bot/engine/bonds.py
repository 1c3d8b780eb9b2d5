"""What an indenture does of itself: it pays coupons and redeems; law: nobody chooses here but by the standing instruction.

The standing instruction of every holder is the better of cash and shares: a bond that is redeemed, called or matured, is
converted instead where its terms let it be at that instant and its shares are worth more at their mark. What a holder may
choose earlier, to convert or to put, is elected by a strategy's target.

Coupons and maturity come the nanosecond before their instant, so that a quote of that instant finds them done.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from bot.core.events import Conversion, Corporate
from bot.domain.convertible import SAME_INSTANT
from bot.domain.instruments import ConvertibleBond, Universe
from bot.domain.units import Nanos, Years, decimal_of

ENDS: Final = frozenset({"merger", "conversion", "redemption"})
"""Corporate events after which their instrument is held no more."""
ZERO: Final = Decimal(0)


class Due(NamedTuple):
    """Something a bond does at an instant."""

    ts: Nanos
    what: Literal["coupon", "maturity"]
    bond: ConvertibleBond
    amount: float


class Exchange(NamedTuple):
    """What one bond becomes: cash in per cent of face, and shares."""

    cash: Decimal
    shares: Decimal


def dues(universe: Universe, now: Nanos) -> Iterator[Due]:
    """What the bonds of a run will do after `now`, in the order of their ids and times."""
    for bond in universe:
        if not isinstance(bond, ConvertibleBond):
            continue
        terms = bond.terms
        for when, amount in terms.coupons:
            ts = bond.instant(when)
            if now < ts < bond.matures and abs(when - terms.maturity) > SAME_INSTANT:
                yield Due(ts - 1, "coupon", bond, amount)
        if bond.matures > now:
            yield Due(bond.matures - 1, "maturity", bond, terms.redeemed)


def coupon(bond: ConvertibleBond, amount: float, ts: Nanos) -> Corporate:
    """The event of a coupon of `amount` currency per bond."""
    points = decimal_of(round(bond.points(amount), 12))
    return Corporate(
        ts_recv=ts, what="coupon", instrument=bond.id, cash=points, text=f"coupon of {points} per 100 of face"
    )


def at_maturity(bond: ConvertibleBond, spot: Decimal | None, ts: Nanos) -> Corporate:
    """How a bond ends at maturity: redeemed with its last coupon, or into shares where they are worth more.

    Without a price of the share it is redeemed.
    """
    terms = bond.terms
    last = terms.coupon_at(terms.maturity)
    kept = decimal_of(round(bond.points(last if terms.converter_keeps_coupon else 0.0), 12))
    cash = decimal_of(round(bond.points(terms.redeemed + last), 12))
    return _better(bond, ts, at=terms.maturity, cash=cash, beside_shares=kept, spot=spot, word="matured")


def redeemed(bond: ConvertibleBond, event: Corporate, spot: Decimal | None) -> Corporate:
    """What becomes of a bond that is redeemed for `event.cash`: that, or its shares where they are worth more."""
    at = bond.years(event.ts_recv)
    word = event.text or "redeemed"
    return _better(bond, event.ts_recv, at=at, cash=event.cash, beside_shares=ZERO, spot=spot, word=word)


def _better(
    bond: ConvertibleBond,
    ts: Nanos,
    *,
    at: Years,
    cash: Decimal,
    beside_shares: Decimal,
    spot: Decimal | None,
    word: str,
) -> Corporate:
    ratio = open_ratio(bond, at)
    if ratio and spot is not None:
        parity = _points(bond, ratio * spot) + beside_shares
        if parity > cash:
            return Corporate(
                ts_recv=ts,
                what="conversion",
                instrument=bond.id,
                cash=beside_shares,
                conversions=(Conversion(bond.id, bond.underlying, ratio),),
                text=f"{word}: shares worth {parity:.4f} against {cash:.4f} in cash",
            )
    return Corporate(
        ts_recv=ts, what="redemption", instrument=bond.id, cash=cash, text=f"{word}: {cash:.4f} per 100 of face in cash"
    )


def open_ratio(bond: ConvertibleBond, at: Years) -> Decimal:
    """Shares a bond converts into at a time of its terms, 0 while conversion is shut."""
    begin, finish = bond.terms.conversion_window
    if not begin - SAME_INSTANT <= at <= finish + SAME_INSTANT:
        return ZERO
    return decimal_of(bond.terms.ratio_at(at))


def elected(bond: ConvertibleBond, via: Literal["conversion", "put"], ts: Nanos) -> Exchange | str:
    """What an election gives per bond at an instant, or why the terms refuse it."""
    at = bond.years(ts)
    if via == "conversion":
        ratio = open_ratio(bond, at)
        return Exchange(ZERO, ratio) if ratio else f"{bond.id} cannot be converted now"
    for put in bond.terms.puts:
        if put.start - SAME_INSTANT <= at <= put.end + SAME_INSTANT:
            price = put.price + (bond.terms.accrued(at) if put.clean else 0.0)
            return Exchange(decimal_of(round(bond.points(price), 12)), ZERO)
    return f"{bond.id} has no put now"


def _points(bond: ConvertibleBond, amount: Decimal) -> Decimal:
    return amount / bond.multiplier
