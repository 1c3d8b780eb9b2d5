"""A port is a seam: a small Protocol with a law, behind which adapters, policies and strategies are exchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

import msgspec

from bot.core.events import Alarm, Amend, Corporate, FeedEvent, Notice, Target, VenueEvent
from bot.core.quiet import QuietBox
from bot.domain.greeks import Greeks
from bot.domain.instruments import Instrument, Universe
from bot.domain.market import MarketView
from bot.domain.orders import Fill, Order
from bot.domain.units import Nanos


class Clock(Protocol):
    """Law: `now` never goes back."""

    def now(self) -> Nanos:
        """The present instant."""

    async def wait_until(self, ts: Nanos) -> None:
        """Return once `now() >= ts`."""


class FeedReport(msgspec.Struct, kw_only=True):
    """What a feed counted: rows taken, rows refused by reason, repairs made, and the files behind it by digest."""

    quotes: int = 0
    trades: int = 0
    refused: dict[str, int] = {}
    repaired: dict[str, int] = {}
    notes: list[str] = []
    files: dict[str, str] = {}


@runtime_checkable
class Feed(Protocol):
    """Async market data. Law: `events()` yields valid events with `ts_recv` never decreasing, ends when the feed ends, and
    never publishes: only the loop does. `recorded` True means the times are the recording's, not the wall clock's."""

    name: str
    recorded: bool

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def events(self) -> AsyncIterator[FeedEvent]:
        """Quotes, prints, batches, reference and corporate events, in order of `ts_recv`."""

    def report(self) -> FeedReport:
        """What was counted so far."""


@runtime_checkable
class ListsInstruments(Protocol):
    """Optional for a feed: it can say what instruments it knows or will need (after a split, say) beyond the book's."""

    def instruments(self, query: str) -> Sequence[Instrument]: ...


@runtime_checkable
class ListsLater(Protocol):
    """Optional for a feed: some of its instruments are listed in the course of the run, each by a `Reference` with its
    definition. Law: it tells their ids beforehand for the columns alone; no strategy sees one before its listing."""

    def listed_later(self) -> Collection[str]: ...


@runtime_checkable
class BindsUniverse(Protocol):
    """Optional for a feed: it yields columns, so it is told the column numbers once, before it is entered."""

    def bind(self, universe: Universe) -> None: ...


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker can do. `in_loop` True: a simulated venue whose time is event time."""

    name: str
    in_loop: bool = False
    limit_orders: bool = True
    amend: bool = False
    fractional: bool = False
    tombstones: bool = False
    """A cancel of an id the venue has never seen is answered by `Cancelled`, and the order is refused should it come later."""
    assumptions: tuple[str, ...] = ()


class VenueOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the venue sees it."""

    order_id: str
    instrument: str
    quantity: Decimal
    filled: Decimal
    status: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A venue's word on what it holds for us."""

    orders: tuple[VenueOrder, ...] = ()
    fills: tuple[Fill, ...] = ()
    positions: dict[str, Decimal] = {}
    cash: dict[str, Decimal] = {}


@runtime_checkable
class Broker(Protocol):
    """An execution venue. Law: `submit` and `cancel` return at once; what became of the order arrives through `events()`;
    client order ids are ours and a repeated id is never executed twice."""

    capabilities: Capabilities

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def submit(self, order: Order) -> None: ...
    async def cancel(self, order_id: str) -> None: ...
    def events(self) -> AsyncIterator[VenueEvent]: ...
    async def snapshot(self, since: Nanos) -> Snapshot: ...


@runtime_checkable
class Amends(Protocol):
    """Optional for a broker: quantity or limit of a resting order can be changed."""

    async def amend(self, amend: Amend) -> None: ...


@runtime_checkable
class Acknowledges(Protocol):
    """Optional for a broker that repeats what it said until told that it was taken in. Law: called after the event's record
    is durable, in the order of the events; an event that was never acknowledged is said again after a reconnect."""

    async def acknowledge(self, event: VenueEvent) -> None: ...


@runtime_checkable
class Fenced(Protocol):
    """Optional for a broker that lets one process trade a book. Law: each lease granted has a higher epoch than all before,
    and commands that carry a lower one are refused for ever."""

    async def take_lease(self, book: str, holder: str) -> int:
        """The epoch under which this process may trade the book from now on; every command after it carries it."""


@runtime_checkable
class DeadMan(Protocol):
    """Optional for a broker that counts down for us. Law: unless called again within `seconds`, all our orders there are
    cancelled, whether we live or not."""

    async def keep_alive(self, seconds: float) -> None: ...


@runtime_checkable
class TakesUp(Protocol):
    """Optional for an in-loop broker: after a restart it goes on with an order that was open, of which some is filled."""

    def take_up(self, order: Order, *, filled: Decimal, fills: int, now: Nanos) -> None: ...


@runtime_checkable
class InLoopBroker(Protocol):
    """A simulated venue inside the loop. Law: synchronous, all latency in event time, the same inputs give the same events.

    The loop calls `attach` once, `submit`/`cancel`/`amend` when commands are released, `on_instant` after market data of an
    instant was folded, and `take_due(now)` when `next_due()` has come.
    """

    capabilities: Capabilities

    @property
    def watching(self) -> bool:
        """True while it must see every instant (orders rest or wait, or its spread model measures the market)."""

    def attach(self, universe: Universe, market: MarketView, account: str) -> None: ...
    def accept(self, order: Order, now: Nanos) -> None: ...
    def drop(self, order_id: str, now: Nanos, reason: str) -> None: ...
    def change(self, amend: Amend, now: Nanos) -> None: ...
    def on_instant(self, now: Nanos) -> None: ...
    def next_due(self) -> Nanos: ...
    def take_due(self, now: Nanos) -> list[VenueEvent]: ...


@runtime_checkable
class Halts(Protocol):
    """Optional for an in-loop broker: it knows that trading in an instrument is halted."""

    def set_halted(self, instrument_id: str, *, halted: bool) -> None: ...


@runtime_checkable
class HoldsPositions(Protocol):
    """Optional for an in-loop broker: it is told what the account already holds, for its margin."""

    def open_positions(self, positions: Mapping[str, Decimal]) -> None: ...


class Band(NamedTuple):
    """What a policy answers: hold a hedge between `lo` and `hi`, and when outside trade to `to` (value, or the nearest edge
    when `to` is None). Floats, or arrays of one shape."""

    lo: Any
    hi: Any
    to: Any = None


class BandInput(NamedTuple):
    """What a policy sees: floats, or arrays of one shape (an instrument axis last). No objects, strings or memory.

    `want` is the hedge that would make the net delta the target exactly, in hedge contracts, signed; `held` what is held;
    `per_contract` the delta of one hedge contract in underlying units.
    """

    now: Any
    spot: Any
    want: Any
    held: Any
    gamma: Any
    tau: Any
    vol: Any
    rate: Any
    per_contract: Any
    cost: Any
    last_hedge_ts: Any
    last_hedge_spot: Any


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """How one underlying is hedged.

    `target_delta` is a number or a range (lo, hi) in underlying units; `beta` the return of the hedge instrument per return
    of the underlying (None: one for one in price); `lot` overrides the instrument's; `cost` is the one-way cost as a
    fraction of notional, for policies that weigh it.
    """

    underlying: str
    instrument: str
    target_delta: float | tuple[float, float] = 0.0
    beta: float | None = None
    lot: Decimal | None = None
    toward_zero: bool = False
    cost: float = 0.0


@runtime_checkable
class Follows(Protocol):
    """Optional for a strategy: it goes on with an instrument whose id changed (a rename)."""

    def follow(self, view: StrategyView, renamed: Mapping[str, str]) -> None: ...


@runtime_checkable
class HedgePolicy(Protocol):
    """When and how much. Law: pure; the policy scored is the policy that trades."""

    name: str

    def band(self, x: BandInput) -> Band: ...


class LegInput(NamedTuple):
    """What a delta rule sees of the option legs on one underlying. Shape: legs last; `spot` and `net_gamma` broadcast to it.

    `weight` is the signed quantity in underlying units; `delta`, `gamma`, `vega` are per unit at `vol`; `net_gamma` is the
    book's, in underlying units. For options on a future `dividend` equals `rate` (Black-76). `cost` is one-way, as a
    fraction of notional.
    """

    spot: Any
    strike: Any
    tau: Any
    vol: Any
    rate: Any
    dividend: Any
    cp: Any
    weight: Any
    delta: Any
    gamma: Any
    vega: Any
    net_gamma: Any
    cost: Any


@runtime_checkable
class ShapesDelta(Protocol):
    """Optional for a policy: the delta at which each leg is hedged is not the model's (Leland's vol, a smile rule). The
    `want` in the `BandInput` is then made of these deltas; its `gamma` stays the model's. Law: pure."""

    def leg_deltas(self, x: LegInput) -> Any:
        """The delta per unit at which each leg is hedged. Shape: as `x.delta`."""


class HedgePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The problem a policy may solve before it answers: the legs on one underlying, the market and the costs of trading.

    `quantity` is signed and in underlying units (contracts x multiplier; written = negative), `tau` in years from `now`,
    one entry per leg. `cost` is one-way as a fraction of notional, `fixed_cost` in currency a trade, `lot` in underlying
    units (0: any size).
    """

    now: Nanos
    spot: float
    rate: float
    dividend: float
    cost: float
    fixed_cost: float = 0.0
    lot: float = 0.0
    per_contract: float = 1.0
    charge_open: bool = True
    charge_close: bool = True
    cp: tuple[float, ...]
    strike: tuple[float, ...]
    quantity: tuple[float, ...]
    tau: tuple[float, ...]
    vol: tuple[float, ...]


@runtime_checkable
class Prepares(Protocol):
    """Optional for a policy: it solves the book's own problem first. Law: pure; the same plan gives the same bands."""

    def prepared(self, plan: HedgePlan) -> HedgePolicy:
        """The rule for this underlying's legs; asked at the start and whenever the book or its vols have changed."""


class VolInput(NamedTuple):
    """What a source of vols sees of one underlying: bars of its own price known by `now`, oldest first, and the contracts.

    `returns` are those from close to close, NaN across a gap. Shape: ts, open, high, low, close (n,), returns (n - 1,);
    strike, cp, tau, forward (contracts,). `interval` is a bar's length, `periods_per_year` how many count in a year.
    """

    underlying: str
    now: Nanos
    interval: Nanos
    periods_per_year: float
    ts: Any
    open: Any
    high: Any
    low: Any
    close: Any
    returns: Any
    strike: Any
    cp: Any
    tau: Any
    forward: Any


@runtime_checkable
class VolSource(Protocol):
    """A vol that is not read from the options' quotes. Law: pure; the same bars and contracts give the same vols."""

    name: str

    def vols(self, x: VolInput) -> Any:
        """The vol of each contract, or one for all; NaN while it cannot be known."""


@runtime_checkable
class Glances(Protocol):
    """Optional for a policy: a look so cheap that it can be taken at every quote, before a `BandInput` is made."""

    def stays(self, want: float, held: float, per_contract: float) -> bool:
        """True only when `band` would hold `held` inside; False says nothing."""


@runtime_checkable
class Slackens(Protocol):
    """Optional for a policy whose band depends on the net delta alone: it can say how far that may still move."""

    def slack(self, want: float, held: float, per_contract: float) -> float:
        """How far the net delta, in underlying units, may move either way before `band` asks for a trade; 0 or less: not
        at all."""


class UnderlyingRisk(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The options of a book on one underlying, in underlying units: what a hedger needs, or why it cannot be known."""

    underlying: str
    spot: float
    greeks: Greeks
    tau: float
    vol: float
    vol_ts: Nanos
    vols: dict[str, float]
    fault: str = ""


class Chain(NamedTuple):
    """The live contracts known on one underlying, as columns in order of id: what a strategy chooses options from.

    Shape: every array (contracts,). Quotes are NaN where a side is withdrawn, `quote_ts` NEVER before the first; `vol` and
    the Greeks, per unit of the underlying (`theta` per year, `vega` per 1.00 of vol), are NaN where no vol is known.
    """

    ids: tuple[str, ...]
    cp: Any
    strike: Any
    expiry: Any
    tau: Any
    multiplier: Any
    bid: Any
    ask: Any
    bid_size: Any
    ask_size: Any
    quote_ts: Any
    vol: Any
    price: Any
    delta: Any
    gamma: Any
    vega: Any
    theta: Any


class StrategyView(Protocol):
    """What a strategy may see and ask. Law: nothing later than `now`."""

    @property
    def now(self) -> Nanos: ...
    @property
    def universe(self) -> Universe: ...
    @property
    def market(self) -> MarketView: ...
    def net_delta(self, underlying: str) -> tuple[float, float]:
        """Net delta and gamma of the book's options on an underlying, in underlying units; NaN when unknown. The fast ask."""

    def risk(self, underlying: str) -> UnderlyingRisk:
        """The same with everything a decision record needs."""

    def room(self, underlying: str, gamma: float, slack: float) -> tuple[float, Nanos]:
        """How far the underlying's price may move either way, and how long, with the net delta moving by less than `slack`
        for certain; (0, 0) when nothing can be promised. `gamma` is the one `net_delta` gave at this instant."""

    def chain(self, underlying: str) -> Chain:
        """The live contracts on an underlying with quotes, vols and unit Greeks at this instant."""

    def mark(self, instrument: str) -> Decimal | None:
        """The exact mark of anything at this instant; None while unknown."""

    def equity(self) -> Decimal | None:
        """What the account is worth in its base currency: cash and holdings at marks; None while a mark is missing."""

    def gauge(self, name: str, value: float) -> None:
        """A number of the strategy's own to be sampled beside prices and Greeks (a floor, a cushion); NaN ends it."""

    def held(self, instrument: str) -> Decimal: ...
    def opened(self, instrument: str) -> Decimal:
        """What the book held at the start of the session, before any hedge, carried over splits and renames."""

    def working(self, instrument: str) -> Decimal:
        """Signed quantity of open orders, unknown ones counted both ways by the desk."""

    def exposure(self, instrument: str) -> float:
        """Held plus working as a float. The fast ask."""

    def is_open(self, instrument: str) -> bool:
        """True while the instrument's session trades, its closing instant included."""

    def wake_at(self, ts: Nanos, name: str) -> None:
        """Ask for a timer."""

    def alarm(self, alarm: Alarm) -> None: ...
    def skip(self, underlying: str, reason: str) -> None:
        """Put on the record that a decision was due and could not be made."""

    def memory(self, strategy: str, memory: msgspec.Struct) -> None:
        """Journal the strategy's memory: one Struct, when it changed."""


@runtime_checkable
class Strategy(Protocol):
    """Sees the book, says what it wants to hold. Law: it acts only through the targets it returns."""

    name: str
    book: str

    def start(self, view: StrategyView) -> Sequence[Target]:
        """Called once at the first instant the run is ready."""

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """Market data changed outside the quiet box, or a venue event changed the holding."""

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """A timer this strategy asked for has come."""

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """The session ends: what to hold at the close (usually nothing)."""

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """The box in which waking is needless, or None to be woken at each instant."""

    def watches(self) -> Sequence[str]:
        """Instruments whose quotes concern it."""

    def trades(self) -> Sequence[str]:
        """Instruments it may trade; other linear holdings of its book count into its net delta."""


@runtime_checkable
class HearsNotices(Protocol):
    """Optional for a strategy: it is told of notices (deal terms, calls, recalls) when they enter."""

    def notice(self, view: StrategyView, notice: Notice) -> Sequence[Target]:
        """A notice has come; what to hold now."""


@runtime_checkable
class HearsCorporate(Protocol):
    """Optional for a strategy: it is told of dividends, splits and coupons after holdings were adjusted."""

    def corporate(self, view: StrategyView, event: Corporate) -> Sequence[Target]:
        """A corporate event was applied; what to hold now."""


@runtime_checkable
class Restores(Protocol):
    """Optional for a strategy: it goes on from its memory. Law: restarted at any instant it decides as if it never stopped."""

    def restore(self, view: StrategyView, memory: bytes) -> None:
        """Take over the memory last given to `view.memory` (JSON of the Struct); timers already asked for still ring."""


Figures: TypeAlias = Mapping[str, Mapping[str, float | str | None]]
"""A strategy's own section of the report: by table title, rows of name and value."""


@runtime_checkable
class Reports(Protocol):
    """Optional for a strategy: figures of its own for the result and the report, asked once at the end of the run."""

    def figures(self, view: StrategyView) -> Figures:
        """By table title, rows of name and value; a value that is not known is None."""


@runtime_checkable
class Protects(Protocol):
    """Optional for a strategy that also buys what it protects: what the same account would hold without the protection."""

    def unprotected(self, held: Mapping[str, float], worth: float, prices: Mapping[str, float]) -> Mapping[str, float]:
        """Contracts of what is protected; of the rest it trades it would hold what its owner brought. `held` are those it
        trades, `worth` the account's in currency, `prices` those of the instruments, of options the underlying's."""
