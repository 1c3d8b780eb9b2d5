"""The closed union of what can enter the loop and what can leave it; law: every record carries its version `v`.

Stored bytes are never rewritten: a later release reads an old record through an upcaster.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from bot.domain.instruments import Instrument
from bot.domain.market import Quote, QuoteBatch, Trade, TradeBatch
from bot.domain.orders import Fill, Order, QuoteRef, Refusal
from bot.domain.units import Nanos

# --------------------------------------------------------------------------- what enters

RANK_CONTROL: Final = 0
"""Control, reference, corporate and lifecycle events come first at an instant."""
RANK_MARKET: Final = 1
RANK_ARRIVAL: Final = 2
"""Order arrivals and fills that fall due."""
RANK_TIMER: Final = 3


class _In(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="type"):
    ts_recv: Nanos
    v: int = 1


class FeedState(_In, frozen=True, gc=False, kw_only=True, tag="feed_state"):
    """A feed says how it is: up, gap, stale, down; `instrument` None means all of it."""

    feed: str
    state: Literal["up", "gap", "stale", "down"]
    instrument: str | None = None
    text: str = ""


class Reference(_In, frozen=True, gc=False, kw_only=True, tag="reference"):
    """Something about an instrument changed: listed (`definition` given), changed, halted, resumed, session."""

    what: Literal["listed", "changed", "halted", "resumed", "session_open", "session_close"]
    instrument: str
    definition: Instrument | None = None
    text: str = ""


class Conversion(msgspec.Struct, frozen=True, gc=False):
    """One old instrument becomes `ratio` of a new one per unit held."""

    old: str
    new: str
    ratio: Decimal


class Corporate(_In, frozen=True, gc=False, kw_only=True, tag="corporate"):
    """A dividend (cash per unit), split (ratio new per old), spin-off or rename, with old -> new conversions.

    `conversions` lists what becomes what; a holding of the underlying that no conversion names keeps its id.
    A coupon is a dividend of a bond (cash in per cent of face). Three events end the instrument for all who hold it: a
    merger and a conversion give `cash` per unit and what `conversions` say, fractions of a share paid in cash at the mark;
    a redemption gives `cash`, unless the bond's terms let it be converted into more just then.
    `adjusted` False means this feed knows that something happened but not how contracts were adjusted: the
    underlying is frozen until a person gives deliverables.
    """

    what: Literal["dividend", "split", "spin_off", "rename", "unknown", "coupon", "merger", "conversion", "redemption"]
    instrument: str
    cash: Decimal = Decimal(0)
    ratio: Decimal = Decimal(1)
    conversions: tuple[Conversion, ...] = ()
    adjusted: bool = True
    text: str = ""


class Lifecycle(_In, frozen=True, gc=False, kw_only=True, tag="lifecycle"):
    """An option's end for one account: exercise, assignment, expiry worthless, or cash settlement at `value` per unit."""

    what: Literal["exercise", "assignment", "expiry", "settlement"]
    account: str
    instrument: str
    quantity: Decimal
    value: Decimal
    deliver: str | None = None
    deliver_quantity: Decimal = Decimal(0)
    deliver_price: Decimal = Decimal(0)


class Funding(_In, frozen=True, gc=False, kw_only=True, tag="funding"):
    """A perpetual's funding payment: `rate` of notional from longs to shorts."""

    instrument: str
    rate: float


class FxQuote(_In, frozen=True, gc=False, kw_only=True, tag="fx"):
    """One unit of `base` in `quote` currency."""

    base: str
    quote: str
    rate: Decimal


class Accepted(_In, frozen=True, gc=False, kw_only=True, tag="accepted"):
    """The venue has the order."""

    account: str
    order_id: str


class Rejected(_In, frozen=True, gc=False, kw_only=True, tag="rejected"):
    """The venue refused the order."""

    account: str
    order_id: str
    code: str
    text: str


class Cancelled(_In, frozen=True, gc=False, kw_only=True, tag="cancelled"):
    """The venue dropped what was left of the order: asked by us, or its time in force ended."""

    account: str
    order_id: str
    reason: str = ""


class Amended(_In, frozen=True, gc=False, kw_only=True, tag="amended"):
    """The venue changed quantity or limit of a resting order as asked."""

    account: str
    order_id: str
    quantity: Decimal
    limit: Decimal | None


class Filled(_In, frozen=True, gc=False, kw_only=True, tag="filled"):
    """The venue executed part or all of an order."""

    account: str
    fill: Fill


class Unknown(_In, frozen=True, gc=False, kw_only=True, tag="unknown"):
    """Nobody knows what became of the order: a timeout, never a failure."""

    account: str
    order_id: str
    text: str = ""


class Timer(_In, frozen=True, gc=False, kw_only=True, tag="timer"):
    """An instant somebody asked to be woken at."""

    name: str


class Control(_In, frozen=True, gc=False, kw_only=True, tag="control"):
    """A person's word: stop, halt, resume, tighten."""

    verb: str
    argument: str = ""
    operator: str = ""


class Notice(_In, frozen=True, gc=False, kw_only=True, tag="notice"):
    """A namespaced, versioned payload for plug-ins and deals."""

    namespace: str
    payload: msgspec.Raw = msgspec.Raw(b"null")


VenueEvent: TypeAlias = Accepted | Rejected | Cancelled | Amended | Filled | Unknown
ControlEvent: TypeAlias = FeedState | Reference | Corporate | Lifecycle | Funding | FxQuote | Control | Notice
FeedEvent: TypeAlias = (
    Quote | Trade | QuoteBatch | TradeBatch | FeedState | Reference | Corporate | Funding | FxQuote | Notice
)

# --------------------------------------------------------------------------- what leaves


class Cancel(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Ask a venue to drop an order."""

    order_id: str
    ts: Nanos
    reason: str = ""


class Amend(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Ask a venue to change a resting order."""

    order_id: str
    ts: Nanos
    quantity: Decimal
    limit: Decimal | None


class TargetLine(msgspec.Struct, frozen=True, gc=False):
    """One instrument of a target: the whole quantity to hold, and the number before rounding."""

    instrument: str
    quantity: Decimal
    unrounded: float


class Evidence(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a decision saw: quotes, vols (None where a contract had none), Greeks, band, held and working."""

    underlying: str
    spot: float | None = None
    quote: QuoteRef | None = None
    vols: Mapping[str, float | None] = {}
    vol_age: Nanos | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    lo: float | None = None
    hi: float | None = None
    held: Decimal = Decimal(0)
    working: Decimal = Decimal(0)
    policy: str = ""


class Target(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a strategy wants to hold, whole quantities, with the reason and the evidence it decided on.

    `via` says how a holding of a convertible comes down: by trading, by converting into shares, or by its put.
    """

    book: str
    lines: tuple[TargetLine, ...]
    reason: str
    evidence: Evidence | None = None
    kind: Literal["market", "limit"] = "market"
    tif: Literal["day", "gtc", "gtd", "ioc", "fok"] = "day"
    limits: dict[str, Decimal] = {}
    closing: bool = False
    via: Literal["trade", "conversion", "put"] = "trade"


class Intent(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A specific order a strategy wants, one leg or several; passes the desk and every limit like a target."""

    book: str
    orders: tuple[Order, ...]
    reason: str


class Alarm(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Something a person should see: a stable code, a sentence, and what the engine did about it."""

    code: str
    text: str
    ts: Nanos
    underlying: str = ""
    action: str = "none"


Command: TypeAlias = Order | Cancel | Amend

__all__ = [
    "RANK_ARRIVAL",
    "RANK_CONTROL",
    "RANK_MARKET",
    "RANK_TIMER",
    "Accepted",
    "Alarm",
    "Amend",
    "Amended",
    "Cancel",
    "Cancelled",
    "Command",
    "Control",
    "ControlEvent",
    "Conversion",
    "Corporate",
    "Evidence",
    "FeedEvent",
    "FeedState",
    "Fill",
    "Filled",
    "Funding",
    "FxQuote",
    "Intent",
    "Lifecycle",
    "Notice",
    "Order",
    "Reference",
    "Refusal",
    "Rejected",
    "Target",
    "TargetLine",
    "Timer",
    "Unknown",
    "VenueEvent",
]
