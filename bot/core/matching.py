"""Matching turns an order and a quote into executions; law: pure, never better than the touch, never more than is left.

Prices are the decimals the feed named (`decimal_of` of the quoted floats), so mid = (bid + ask) / 2 is exact. A quoted
touch is used as it stands, on its tick or not. A price that is computed (impact, permanent shift, an assumed spread) is
rounded to the next whole tick against the one who trades, to 1e-8 for an instrument without a tick.

A quote fills nothing while it is missing a side (a fill without a mid could not be attributed), crossed, or older than
`stale_after`. A resting limit order fills at its limit, never better, when the opposite touch reaches it.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from bot.domain.costs import ImpactModel, NoImpact, SpreadModel, half_spread, impact_per_unit, round_against
from bot.domain.instruments import Instrument, round_to_lot
from bot.domain.market import MarketView
from bot.domain.units import NEVER, Nanos, Vol, decimal_of

Beyond: TypeAlias = Literal["impact", "partial", "ignore"]
"""What happens to size beyond the displayed amount: it walks on at a modelled price, waits, or fills at the touch."""

QuoteFault: TypeAlias = Literal["never_quoted", "one_sided", "crossed", "stale"]

FAULT_TEXT: Final[dict[QuoteFault, str]] = {
    "never_quoted": "it has no quote yet",
    "one_sided": "a side of its quote is withdrawn",
    "crossed": "its quote is crossed",
    "stale": "its quote is stale",
}

ZERO: Final = Decimal(0)


class Touch(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The top of a book in exact decimals. None: a side is withdrawn; size None: as much as anyone wants."""

    bid: Decimal | None
    ask: Decimal | None
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None
    ts: Nanos

    def price(self, side: int) -> Decimal | None:
        """The touch an order crosses: the ask for a buy (side 1), the bid for a sell (side -1)."""
        return self.ask if side > 0 else self.bid

    def size(self, side: int) -> Decimal | None:
        """The size displayed there."""
        return self.ask_size if side > 0 else self.bid_size


class Execution(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Part or all of an order done: signed contracts, price paid, the quoted touch and mid at that moment."""

    quantity: Decimal
    price: Decimal
    touch: Decimal
    mid: Decimal


class MatchRules(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How size meets the book: beyond the display, the impact model, and the smallest step of a quantity."""

    beyond: Beyond = "ignore"
    impact: ImpactModel = NoImpact()
    lot: Decimal | None = None


def read_touch(market: MarketView, column: int, *, assumed_size: Decimal | None = None) -> Touch:
    """The quoted touch of an instrument; a size nobody says is `assumed_size`, None for unlimited."""
    return Touch(
        bid=_price(market.bid(column)),
        ask=_price(market.ask(column)),
        bid_size=_size(market.bid_size(column), assumed_size),
        ask_size=_size(market.ask_size(column), assumed_size),
        ts=market.quote_ts(column),
    )


def assume_touch(
    market: MarketView,
    column: int,
    *,
    model: SpreadModel,
    tick: Decimal | None,
    vol: Vol | None = None,
    assumed_size: Decimal | None = None,
) -> Touch:
    """The touch a spread model puts around the newer of last print and mid; withdrawn when it cannot be known.

    Half the spread is added and taken off, then each side is rounded outward to its tick. A bid at or below zero is
    withdrawn. The mid of this touch is the middle of the rounded sides.
    """
    base, ts = latest_price(market, column)
    half = None if base is None else half_spread(model, last=base, tick=tick, vol=vol)
    if base is None or half is None:
        return Touch(bid=None, ask=None, ts=ts)
    bid = round_against(base - half, tick, -1) if half else base
    ask = round_against(base + half, tick, 1) if half else base
    return Touch(bid=bid if bid > 0 else None, ask=ask, bid_size=assumed_size, ask_size=assumed_size, ts=ts)


def latest_price(market: MarketView, column: int) -> tuple[Decimal | None, Nanos]:
    """The newer of the last print and the middle of the quote (the quote on a tie), and when it was received."""
    quoted, printed = market.quote_ts(column), market.last_ts(column)
    bid, ask = market.bid(column), market.ask(column)
    if quoted >= printed and bid <= ask:
        return (decimal_of(float(bid)) + decimal_of(float(ask))) / 2, quoted
    return _price(market.last(column)), printed


def fault_of(touch: Touch, now: Nanos, stale_after: Nanos | None) -> QuoteFault | None:
    """Why this touch fills nothing now, or None when it is good."""
    if touch.ts == NEVER:
        return "never_quoted"
    if touch.bid is None or touch.ask is None:
        return "one_sided"
    if touch.bid > touch.ask:
        return "crossed"
    if stale_after is not None and now - touch.ts > stale_after:
        return "stale"
    return None


def match(
    quantity: Decimal,
    touch: Touch,
    *,
    instrument: Instrument,
    limit: Decimal | None = None,
    resting: bool = False,
    rules: MatchRules | None = None,
    taken: Decimal = ZERO,
    shift: Decimal = ZERO,
) -> tuple[Execution, ...]:
    """The executions, best first, of `quantity` (signed contracts left) against a two-sided touch that is not crossed.

    `limit` None is a market order. `resting` True is a limit order that was in the book before this quote: it fills at
    its limit. `taken` is how much earlier orders took from this very quote: what they left is displayed, and what they
    walked beyond it deepens our own walk. `shift` is our own permanent impact so far, in price units: it only ever
    makes a price worse.
    """
    side = 1 if quantity > 0 else -1
    quoted = touch.price(side)
    if quoted is None or touch.bid is None or touch.ask is None:
        return ()
    rules = MatchRules() if rules is None else rules
    mid = (touch.bid + touch.ask) / 2
    price = _worsen(quoted, max(ZERO, shift * side), instrument.tick, side)
    if not _allowed(price, limit, side):
        return ()
    wanted = abs(quantity)
    displayed = touch.size(side)
    at_touch = _available(wanted, displayed, taken, rules)
    paid = limit if resting and limit is not None else price
    first = Execution(quantity=at_touch * side, price=paid, touch=quoted, mid=mid) if at_touch else None
    excess = wanted - at_touch
    depth = excess + max(ZERO, taken - displayed) if excess and displayed is not None else excess
    walked = _walk(price, depth, displayed=displayed, rules=rules, tick=instrument.tick, side=side)
    if walked is None or not _allowed(walked, limit, side):
        return (first,) if first else ()
    paid = limit if resting and limit is not None else walked
    if first is None or first.price == paid:
        return (Execution(quantity=quantity, price=paid, touch=quoted, mid=mid),)
    return (first, Execution(quantity=excess * side, price=paid, touch=quoted, mid=mid))


def _walk(
    price: Decimal, excess: Decimal, *, displayed: Decimal | None, rules: MatchRules, tick: Decimal | None, side: int
) -> Decimal | None:
    """The average price of the size beyond the display, None when it waits or nothing says what it would cost."""
    if not excess or rules.beyond != "impact":
        return None
    worse = impact_per_unit(rules.impact, price=price, excess=excess, displayed=displayed)
    return None if worse is None else _worsen(price, worse, tick, side)


def _available(wanted: Decimal, displayed: Decimal | None, taken: Decimal, rules: MatchRules) -> Decimal:
    if rules.beyond == "ignore" or displayed is None:
        return wanted
    return min(wanted, round_to_lot(max(ZERO, displayed - taken), rules.lot, toward_zero=True))


def _worsen(price: Decimal, by: Decimal, tick: Decimal | None, side: int) -> Decimal:
    return round_against(price + by * side, tick, side) if by else price


def _allowed(price: Decimal, limit: Decimal | None, side: int) -> bool:
    """True when the price is above zero (nobody pays to sell) and not beyond the limit."""
    return price > 0 and (limit is None or price * side <= limit * side)


def _price(value: float) -> Decimal | None:
    return None if math.isnan(value) else decimal_of(float(value))


def _size(value: float, assumed: Decimal | None) -> Decimal | None:
    return assumed if math.isnan(value) else decimal_of(float(value))
