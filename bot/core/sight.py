"""A sight is what a strategy sees of an instrument before it trades it; law: what cannot be traded on says why in words.

An instrument that was never quoted but printed is seen at its last print: a venue with an assumed spread trades it there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple, Protocol, runtime_checkable

from bot.core.events import Evidence
from bot.core.ports import StrategyView
from bot.domain.orders import QuoteRef
from bot.domain.units import NEVER, Nanos, span


class Sight(NamedTuple):
    """Price, sides, displayed sizes (NaN: unknown) and age; `fault` says why nothing should be traded on it."""

    price: float
    bid: float
    ask: float
    bid_size: float
    ask_size: float
    ts: Nanos
    fault: str = ""


@runtime_checkable
class SeesCosts(Protocol):
    """A view that can say what its account has paid so far, in its base currency, by kind."""

    def paid(self) -> Mapping[str, float]: ...


def sight(view: StrategyView, instrument: str, *, stale_after: Nanos | None = None) -> Sight:
    """What is seen of an instrument now: the middle of its quote, or its last print where nobody quotes it."""
    market, k = view.market, view.universe.index(instrument)
    bid, ask = market.bid(k), market.ask(k)
    sizes = market.bid_size(k), market.ask_size(k)
    quoted = market.quote_ts(k) != NEVER
    price = market.mid(k) if quoted else market.last(k)
    ts = market.quote_ts(k) if quoted else market.last_ts(k)
    return Sight(price, bid, ask, *sizes, ts, _fault(view, instrument, price, ts, stale_after))


def _fault(view: StrategyView, instrument: str, price: float, ts: Nanos, stale_after: Nanos | None) -> str:
    if math.isnan(price):
        return f"no two-sided quote of {instrument}"
    if stale_after is not None and view.now - ts > stale_after:
        return f"the quote of {instrument} is older than {span(stale_after)}"
    if not view.is_open(instrument):
        return f"the session of {instrument} is closed"
    return ""


def evidence(
    view: StrategyView,
    instrument: str,
    *,
    underlying: str,
    policy: str,
    delta: float = math.nan,
    gamma: float = math.nan,
    band: tuple[float, float] = (math.nan, math.nan),
    vols: Mapping[str, float] | None = None,
) -> Evidence:
    """What a decision on an instrument saw, for the record; numbers that are not known are left out."""
    k = view.universe.index(instrument)
    market = view.market
    ts = market.quote_ts(k)
    quote = None if ts == NEVER else QuoteRef(_known(market.bid(k)), _known(market.ask(k)), ts)
    return Evidence(
        underlying=underlying,
        spot=_known(market.mid(view.universe.index(underlying))),
        quote=quote,
        vols={key: _known(vol) for key, vol in (vols or {}).items()},
        delta=_known(delta),
        gamma=_known(gamma),
        lo=_known(band[0]),
        hi=_known(band[1]),
        held=view.held(instrument),
        working=view.working(instrument),
        policy=policy,
    )


def needed_over_shown(seen: Sight, quantity: float | Decimal) -> float:
    """How many times the displayed size an order of this signed quantity is; NaN where no size is displayed."""
    shown = seen.ask_size if quantity > 0 else seen.bid_size
    return abs(float(quantity)) / shown if shown > 0.0 else math.nan


def paid_so_far(view: StrategyView) -> dict[str, float]:
    """What the account has paid so far by kind, in its base currency; empty where the view cannot say."""
    return dict(view.paid()) if isinstance(view, SeesCosts) else {}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
