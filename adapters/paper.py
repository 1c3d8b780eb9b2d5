"""The paper broker is a simulated venue: it fills orders against the market we see, at a modelled cost.

Law: all latency is event time, and the same orders on the same market give the same events. Jitter is drawn from the
seed and the order's id, so neither batching nor anybody else's orders change it. A waiting order is looked at when it
arrives and whenever a new quote of its instrument was received, never in between, so calls that bring no news change
nothing. A quote with a side withdrawn, crossed or stale fills nothing; nothing fills better than the touch.

One synchronous core has two faces: `InLoopBroker` (the loop drives it in event time) and the asynchronous `Broker`.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from decimal import Decimal
from heapq import heappop, heappush
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeVar

import msgspec

from bot.core.errors import ConfigError, HaltedError
from bot.core.events import Accepted, Amend, Amended, Cancelled, Filled, Rejected, VenueEvent
from bot.core.matching import (
    FAULT_TEXT,
    Beyond,
    Execution,
    MatchRules,
    Touch,
    assume_touch,
    fault_of,
    latest_price,
    match,
    read_touch,
)
from bot.core.ports import Capabilities, Clock, Snapshot, VenueOrder
from bot.core.quiet import FOREVER
from bot.domain.book import trade_value
from bot.domain.costs import (
    FREE,
    BasisPoints,
    BasisPointSpread,
    Executed,
    FixedSpread,
    FixedTotal,
    ImpactModel,
    NoImpact,
    PerContract,
    PermanentImpact,
    PerTicket,
    QuotedSpread,
    Schedule,
    SpreadModel,
    SquareRootImpact,
    SumOf,
    TickSpread,
    VolatilitySpread,
    notional_of,
    permanent_shift,
    total_commission,
)
from bot.domain.instruments import Future, Index, Instrument, OptionContract, Universe, settlement_currency
from bot.domain.margin import MarginLine, RegT, total_requirement
from bot.domain.market import MarketView
from bot.domain.orders import Fill, Order
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_MINUTE, Nanos, Rate, Vol, iso, parse_span, span, years_between

ZERO: Final = Decimal(0)
QUOTED: Final = QuotedSpread()
EVERYTHING: Final = "*"
REMEMBERED: Final = 100_000
"""Orders and fills a venue can still speak of."""

_T = TypeVar("_T")


class SessionTable(Protocol):
    """When a venue trades. An object with `next_close(ts)` too ends day orders exactly at the close."""

    def is_open(self, ts: Nanos) -> bool:
        """True while the venue trades."""


class PaperOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the simulated venue costs and how it behaves; the defaults fill at the touch, at once, for free.

    Tables by product are keyed by instrument id, else by kind (`spot`, `option`, `future`, `perpetual`, `index`), else
    by `*`. Times are nanoseconds, money the settlement currency.

    latency            from our sending to the order's arrival; `jitter` adds a seeded uniform draw from 0 to it
    cancel_latency     the same for cancels and amends; None: as `latency`
    report_latency     from what happened at the venue to our hearing of it
    stale_after        a quote older than this fills nothing; None: quotes never grow stale
    on_bad_quote       an order that meets a bad quote waits for a good one, or is rejected with the reason
    on_closed          an order that meets a closed session waits for the open, or is rejected
    beyond             size beyond the display walks on (`impact`), waits (`partial`) or fills at the touch (`ignore`)
    impact             the model of walking on; permanent: a lasting shift of our own making, a scenario option
    spreads            assumed spreads for instruments of which only last prices are known; none: as quoted
    commissions        schedules; none: free
    assumed_size       the size displayed where a venue does not say; none: unlimited
    fractional         an instrument without a lot may be traded in fractions
    margin             the rule of the buying-power check at arrival; None: no check. `cash` is what the account has
    financing_rate     on cash, and `borrow_rate` on stock held short, per year; charged by the engine
    """

    latency: Nanos = 0
    jitter: Nanos = 0
    cancel_latency: Nanos | None = None
    report_latency: Nanos = 0
    stale_after: Nanos | None = 60 * NS_PER_MINUTE
    on_bad_quote: Literal["wait", "reject"] = "wait"
    on_closed: Literal["wait", "reject"] = "wait"
    beyond: Beyond = "ignore"
    impact: ImpactModel = SquareRootImpact()
    permanent: PermanentImpact | None = None
    spreads: dict[str, SpreadModel] = {}
    commissions: dict[str, Schedule] = {}
    assumed_size: dict[str, Decimal] = {}
    fractional: bool = False
    margin: RegT | None = None
    cash: dict[str, Decimal] = {}
    financing_rate: Rate = 0.0
    borrow_rate: Rate = 0.0

    def __post_init__(self) -> None:
        for name in ("latency", "jitter", "cancel_latency", "report_latency", "stale_after"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name}: expected a length of time from 0, found {value} ns")
        for key, size in self.assumed_size.items():
            if not (size.is_finite() and size > 0):
                raise ValueError(f"assumed_size.{key}: expected a positive finite number, found {size}")
        for name in ("financing_rate", "borrow_rate"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}: expected a finite rate, found {getattr(self, name)}")


_ENDS: Final = ("end", "stop")
"""Actions that only matter while their order is alive: its time in force ends, its instrument stops trading."""

_SPANS: Final = ("latency", "jitter", "cancel_latency", "report_latency", "stale_after")


def read_options(raw: Mapping[str, Any]) -> PaperOptions:
    """The options a configuration table describes; ConfigError names the key at fault.

    Lengths of time may be texts (`250ms`, and `never` for stale_after). `commission` and `spread` are short for tables
    by product: one table, or for commissions a list to be summed, stands for all products.

    >>> read_options({"latency": "20ms", "commission": [{"kind": "per_ticket", "amount": 50}]}).latency
    20000000
    """
    table = {key: value for key, value in raw.items() if key != "kind"}
    for short, long in (("commission", "commissions"), ("spread", "spreads")):
        if short in table:
            table[long] = {**_by_product(table.pop(short)), **table.get(long, {})}
    table["commissions"] = {key: _summed(value) for key, value in table.get("commissions", {}).items()}
    table["spreads"] = {
        key: _with_spans(value, ("interval", "halflife")) for key, value in table.get("spreads", {}).items()
    }
    try:
        return msgspec.convert(_with_spans(table, _SPANS), PaperOptions, strict=False)
    except (msgspec.ValidationError, ValueError) as fault:
        raise ConfigError(f"[broker]: {fault}") from fault


def _by_product(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) and "kind" not in value else {EVERYTHING: value}


def _summed(value: Any) -> Any:
    return {"kind": "sum", "parts": list(value)} if isinstance(value, list | tuple) else value


def _with_spans(table: Any, names: Iterable[str]) -> Any:
    """The table with its texts of time as nanoseconds."""
    if not isinstance(table, Mapping):
        return table
    out = dict(table)
    for name in names:
        text = out.get(name)
        if not isinstance(text, str):
            continue
        try:
            out[name] = None if text == "never" else parse_span(text)
        except ValueError as fault:
            raise ConfigError(f"[broker]: {name}: {fault}") from fault
    return out


class _Working:
    """An order that is alive at the venue."""

    __slots__ = ("charged", "column", "filled", "fills", "instrument", "limit", "notional", "order", "quantity", "rank",
                 "resting", "seen", "was_open", "why")  # fmt: skip

    def __init__(self, order: Order, instrument: Instrument, column: int, rank: int) -> None:
        self.order = order
        self.instrument = instrument
        self.column = column
        self.rank = rank
        self.quantity = order.quantity
        self.limit = order.limit
        self.filled = ZERO
        self.notional = ZERO
        self.charged = ZERO
        self.fills = 0
        self.resting = False
        self.was_open = False
        self.seen: tuple[float, ...] = ()
        self.why = "it has not met a quote yet"

    @property
    def side(self) -> int:
        return 1 if self.quantity > 0 else -1

    @property
    def left(self) -> Decimal:
        return self.quantity - self.filled

    def priority(self) -> tuple[int, int, Decimal, int]:
        """Market orders before limits, the better limit before the worse, the earlier before the later."""
        if self.limit is None:
            return (self.column, 0, ZERO, self.rank)
        return (self.column, 1, -self.limit * self.side, self.rank)


class _RunningVol:
    """An exponentially weighted volatility of the prices seen, per square root of a year; None before two of them."""

    __slots__ = ("halflife", "price", "ts", "variance")

    def __init__(self, halflife: Nanos) -> None:
        self.halflife = halflife
        self.price = math.nan
        self.ts: Nanos = NEVER
        self.variance = math.nan

    def see(self, price: float, ts: Nanos) -> None:
        if self.ts != NEVER and ts > self.ts:
            move = math.log(price / self.price)
            fresh = move * move / years_between(self.ts, ts)
            weight = 0.0 if math.isnan(self.variance) else 0.5 ** ((ts - self.ts) / self.halflife)
            self.variance = fresh if weight == 0.0 else weight * self.variance + (1.0 - weight) * fresh
        self.price, self.ts = price, ts

    @property
    def vol(self) -> Vol | None:
        return None if math.isnan(self.variance) else math.sqrt(self.variance)


Refused = tuple[str, str]
"""A stable code and a sentence."""


class PaperBroker:
    """A venue that exists only here. `clock` is used by the asynchronous face alone."""

    Options = PaperOptions

    def __init__(
        self, options: PaperOptions | Mapping[str, Any] | None = None, *, seed: int = 0, clock: Clock | None = None
    ) -> None:
        if options is None:
            options = PaperOptions()
        self.options = options if isinstance(options, PaperOptions) else read_options(options)
        self.capabilities = Capabilities(
            name="paper",
            in_loop=True,
            limit_orders=True,
            amend=True,
            fractional=self.options.fractional,
            assumptions=assumptions_of(self.options),
        )
        self.repeated = 0
        """Orders that came again under an id already known; none was executed twice."""
        self._seed = seed
        self._clock = clock
        self._universe: Universe | None = None
        self._market: MarketView | None = None
        self._account = ""
        self._sessions: Mapping[str, SessionTable] = {}
        self._halted: set[str] = set()
        self._actions: list[tuple[Nanos, int, str, Any]] = []
        self._ready: list[tuple[Nanos, int, VenueEvent]] = []
        self._count = 0
        self._fills_before: dict[str, int] = {}
        self._last_due: dict[str, Nanos] = {}
        self._changes: dict[str, int] = {}
        self._working: dict[str, _Working] = {}
        self._taken: dict[tuple[int, int], tuple[tuple[Any, ...], Decimal]] = {}
        self._shift: dict[int, Decimal] = {}
        self._vols: dict[int, _RunningVol] = {}
        self._fills: deque[Fill] = deque(maxlen=REMEMBERED)
        self._positions: dict[str, Decimal] = {}
        self._cash: dict[str, Decimal] = dict(self.options.cash)
        self._now: Nanos = 0
        self._wake: asyncio.Event | None = None
        self._closed = False

    # ------------------------------------------------------------------ in the loop

    def attach(self, universe: Universe, market: MarketView, account: str) -> None:
        """Name the instruments, the market and the account this venue serves; called once, first."""
        self._universe, self._market, self._account = universe, market, account
        for column, instrument in enumerate(universe):
            self._watch_vol(column, instrument)

    def set_sessions(self, sessions: Mapping[str, SessionTable]) -> None:
        """Say when each calendar (by the instrument's `calendar` name) is open; those not named are always open."""
        self._sessions = dict(sessions)

    def set_halted(self, instrument_id: str, *, halted: bool) -> None:
        """Stop or resume trading in one instrument; a halted one is a closed session."""
        (self._halted.add if halted else self._halted.discard)(instrument_id)

    def open_positions(self, positions: Mapping[str, Decimal], cash: Mapping[str, Decimal] | None = None) -> None:
        """Give the account what it holds before the first order; only the buying-power check and `snapshot` look."""
        for instrument_id, quantity in positions.items():
            self._add_position(instrument_id, quantity)
        for currency, amount in (cash or {}).items():
            self._cash[currency] = self._cash.get(currency, ZERO) + amount

    @property
    def watching(self) -> bool:
        """True while skipping `on_instant` could change something: orders wait, or a volatility is being measured."""
        return bool(self._working or self._vols)

    def accept(self, order: Order, now: Nanos) -> None:
        """Take an order; it arrives after its latency. A repeated id is counted and otherwise ignored."""
        if order.id in self._last_due:
            self.repeated += 1
            return
        due = now + self.options.latency + self._jitter(order.id)
        self._last_due[order.id] = due
        if len(self._last_due) > 2 * REMEMBERED:
            for old in [key for key in list(self._last_due)[:REMEMBERED] if key not in self._working]:
                del self._last_due[old]
                self._fills_before.pop(old, None)
        self._push(due, "arrive", order)

    def take_up(self, order: Order, *, filled: Decimal, fills: int, now: Nanos) -> None:
        """After a restart: what is left of an order arrives again, its further fills numbered after the earlier ones."""
        self._fills_before[order.id] = fills
        self.accept(msgspec.structs.replace(order, quantity=order.quantity - filled), now)

    def drop(self, order_id: str, now: Nanos, reason: str) -> None:
        """Ask that what is left of an order be dropped. It never overtakes the order; too late, it changes nothing."""
        self._change(order_id, now, "drop", (order_id, reason))

    def change(self, amend: Amend, now: Nanos) -> None:
        """Ask that a resting order be amended. Never overtakes the order; too late, it changes nothing."""
        self._change(amend.order_id, now, "amend", amend)

    def on_instant(self, now: Nanos) -> None:
        """Look at the market of this instant: orders that wait and whose quote is news may fill; events are due now."""
        self._now = max(self._now, now)
        if self._vols:
            self._measure_vols()
        if self._working:
            self._work_orders(now)
        if self._wake is not None:
            self._wake.set()

    def next_due(self) -> Nanos:
        """The instant of the next event or arrival, FOREVER when nothing is pending."""
        actions = self._actions
        while actions and actions[0][2] in _ENDS and actions[0][3] not in self._working:
            heappop(actions)
        due = actions[0][0] if actions else FOREVER
        ready = self._ready
        return ready[0][0] if ready and ready[0][0] < due else due

    def take_due(self, now: Nanos) -> list[VenueEvent]:
        """Let what is due by `now` happen, and return the events heard of by then, in order."""
        self._now = max(self._now, now)
        while self._actions and self._actions[0][0] <= now:
            _, _, verb, payload = heappop(self._actions)
            self._act(verb, payload, now)
        heard: list[VenueEvent] = []
        while self._ready and self._ready[0][0] <= now:
            heard.append(heappop(self._ready)[2])
        return heard

    # ------------------------------------------------------------------ the asynchronous face

    async def __aenter__(self) -> Self:
        self._wake = asyncio.Event()
        self._closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if self._wake is not None:
            self._wake.set()

    async def submit(self, order: Order) -> None:
        """Take an order and return at once; what becomes of it arrives through `events()`."""
        self._heard_at(order.ts)
        self.accept(order, self._time())
        self._ring()

    async def cancel(self, order_id: str) -> None:
        """Ask that what is left of an order be dropped, and return at once."""
        self.drop(order_id, self._time(), "asked")
        self._ring()

    async def amend(self, amend: Amend) -> None:
        """Ask that a resting order be amended, and return at once."""
        self._heard_at(amend.ts)
        self.change(amend, self._time())
        self._ring()

    async def events(self) -> AsyncIterator[VenueEvent]:
        """What became of orders, as it falls due; ends after the broker was left."""
        if self._wake is None:
            raise HaltedError("paper broker: events() was asked for outside `async with`")
        while True:
            self._wake.clear()
            for event in self.take_due(self._time()):
                yield event
            if self._closed:
                return
            if not self._wake.is_set() and self.next_due() > self._time():
                await self._wait()

    async def snapshot(self, since: Nanos) -> Snapshot:
        """The venue's word on open orders, fills from `since`, positions and cash (principal paid as in `Book`)."""
        return Snapshot(
            orders=tuple(
                VenueOrder(
                    order_id=w.order.id,
                    instrument=w.instrument.id,
                    quantity=w.quantity,
                    filled=w.filled,
                    status="partial" if w.filled else "accepted",
                )
                for w in self._working.values()
            ),
            fills=tuple(fill for fill in self._fills if fill.ts >= since),
            positions=dict(self._positions),
            cash=dict(self._cash),
        )

    def _time(self) -> Nanos:
        """The clock's time; without one, the latest instant an order or the market spoke of."""
        return self._now if self._clock is None else self._clock.now()

    def _heard_at(self, ts: Nanos) -> None:
        self._now = max(self._now, ts)

    def _ring(self) -> None:
        if self._wake is not None:
            self._wake.set()

    async def _wait(self) -> None:
        """Return when something was asked, or when the next event is due on the clock."""
        wake = self._wake
        if wake is None:
            return
        due = self.next_due()
        if self._clock is None or due == FOREVER:
            await wake.wait()
            return
        waits = {asyncio.create_task(wake.wait()), asyncio.create_task(_until(self._clock, due))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    # ------------------------------------------------------------------ the life of an order

    def _push(self, due: Nanos, verb: str, payload: Any) -> None:
        self._count += 1
        heappush(self._actions, (due, self._count, verb, payload))

    def _emit(self, event: VenueEvent) -> None:
        self._count += 1
        heappush(self._ready, (event.ts_recv, self._count, event))

    def _change(self, order_id: str, now: Nanos, verb: str, payload: Any) -> None:
        """Send a cancel or amend after whatever was sent before it about the same order; unknown ids change nothing."""
        before = self._last_due.get(order_id)
        if before is None:
            return
        n = self._changes[order_id] = self._changes.get(order_id, 0) + 1
        latency = self.options.latency if self.options.cancel_latency is None else self.options.cancel_latency
        due = max(before, now + latency + self._jitter(f"{order_id}#{n}"))
        self._last_due[order_id] = due
        self._push(due, verb, payload)

    def _act(self, verb: str, payload: Any, now: Nanos) -> None:
        if verb == "arrive":
            self._arrive(payload, now)
        elif verb == "drop":
            order_id, reason = payload
            self._end(order_id, now, reason)
        elif verb == "amend":
            self._amend(payload, now)
        elif verb == "stop":
            self._end(payload, now, "the instrument stopped trading")
        else:
            self._end(payload, now, _end_text(self._working.get(payload)))

    def _arrive(self, order: Order, now: Nanos) -> None:
        refused = self._refuse(order, now)
        if refused is not None:
            code, text = refused
            self._emit(
                Rejected(ts_recv=self._heard(now), account=self._account, order_id=order.id, code=code, text=text)
            )
            return
        universe = self._its_universe()
        column = universe.index(order.instrument)
        self._watch_vol(column, universe[column])
        self._count += 1
        working = _Working(order, universe[column], column, self._count)
        self._working[order.id] = working
        self._emit(Accepted(ts_recv=self._heard(now), account=self._account, order_id=order.id))
        self._schedule_end(working, now)
        self._try_to_fill(working, now)
        if order.id not in self._working:
            return
        if order.tif in ("ioc", "fok"):
            self._end(order.id, now, f"{order.tif}: {working.why}")
        working.resting = order.kind == "limit"

    def _end(self, order_id: str, now: Nanos, reason: str) -> None:
        """Drop what is left of an order; one that is done, or never came, is left as it is."""
        if self._working.pop(order_id, None) is None:
            return
        self._emit(Cancelled(ts_recv=self._heard(now), account=self._account, order_id=order_id, reason=reason))

    def _amend(self, amend: Amend, now: Nanos) -> None:
        """Change what rests; an amend that cannot be made is answered with what stands."""
        working = self._working.get(amend.order_id)
        if working is None:
            return
        if self._amendable(working, amend):
            done = abs(working.filled) >= abs(amend.quantity)
            working.quantity = working.filled if done else amend.quantity
            working.limit = amend.limit
            self._count += 1
            working.rank = self._count
            self._answer_amend(working, now)
            if done:
                self._end(amend.order_id, now, "amended to what was already filled")
                return
            working.resting = False
            self._try_to_fill(working, now)
            working.resting = working.limit is not None
            return
        self._answer_amend(working, now)

    def _amendable(self, working: _Working, amend: Amend) -> bool:
        quantity, limit = amend.quantity, amend.limit
        if not quantity.is_finite() or quantity * working.side <= 0 or (limit is None) != (working.limit is None):
            return False
        if limit is not None and not (limit.is_finite() and limit > 0 and _on_step(limit, working.instrument.tick)):
            return False
        return _on_step(quantity, self._lot(working.instrument))

    def _answer_amend(self, working: _Working, now: Nanos) -> None:
        # A working quantity of zero cannot arise: an amend to nothing filled at all is refused by its sign.
        self._emit(
            Amended(
                ts_recv=self._heard(now),
                account=self._account,
                order_id=working.order.id,
                quantity=working.quantity,
                limit=working.limit,
            )
        )

    def _schedule_end(self, working: _Working, now: Nanos) -> None:
        order = working.order
        if order.tif == "gtd" and order.expires is not None:
            self._push(order.expires, "end", order.id)
        elif order.tif == "day":
            end = self._day_end(working.instrument, now)
            if end < FOREVER:
                self._push(end, "end", order.id)
        ended = _last_trading_instant(working.instrument)
        if ended is not None:
            self._push(max(ended, now), "stop", order.id)

    def _day_end(self, instrument: Instrument, now: Nanos) -> Nanos:
        """When a day order ends: the next close its calendar knows, else a day after it arrived."""
        sessions = self._sessions.get(instrument.calendar)
        if sessions is None:
            return now + NS_PER_DAY
        return _close_after(sessions, now)

    # ------------------------------------------------------------------ why not

    def _refuse(self, order: Order, now: Nanos) -> Refused | None:
        """Why the venue will not have the order, or None."""
        universe = self._its_universe()
        if order.instrument not in universe:
            return "unknown_instrument", f"{order.instrument} is not an instrument of this venue"
        if order.account != self._account:
            return "wrong_account", f"the order is of account {order.account!r}, this venue serves {self._account!r}"
        instrument = universe.get(order.instrument)
        return (
            self._refuse_terms(order, instrument, now)
            or self._refuse_market(order, instrument, now)
            or self._refuse_margin(order, instrument)
        )

    def _refuse_terms(self, order: Order, instrument: Instrument, now: Nanos) -> Refused | None:
        ended = _last_trading_instant(instrument)
        if ended is not None and now > ended:
            return "expired", f"{instrument.id} stopped trading at {iso(ended)}"
        lot = self._lot(instrument)
        if not _on_step(order.quantity, lot):
            return "fractional", f"{instrument.id}: quantity {order.quantity} is not in whole lots of {lot}"
        if order.limit is not None and not _on_step(order.limit, instrument.tick):
            return "off_tick", f"{instrument.id}: limit {order.limit} is not on the tick of {instrument.tick}"
        if order.expires is not None and order.expires < now:
            return "too_late", f"the order was good till {iso(order.expires)} and arrived at {iso(now)}"
        if isinstance(instrument, Index) and not _spread_is_stated(self.options.spreads, instrument):
            return "no_spread", (
                f"nobody can hold the index {instrument.id}: state an assumed spread of its replication, "
                "or hedge with something that trades"
            )
        return None

    def _refuse_market(self, order: Order, instrument: Instrument, now: Nanos) -> Refused | None:
        if self.options.on_closed == "reject" and not self._is_open(instrument, now):
            return "closed_session", f"{instrument.id}: its session is closed"
        if self.options.on_bad_quote == "reject":
            column = self._its_universe().index(order.instrument)
            why = self._bad_quote(instrument, self._touch(instrument, column), now)
            if why:
                return "bad_quote", f"{instrument.id}: {why}"
        return None

    def _refuse_margin(self, order: Order, instrument: Instrument) -> Refused | None:
        """Buying power: the requirement after the order exceeds equity, and the order raises it."""
        rule = self.options.margin
        if rule is None:
            return None
        currency = settlement_currency(instrument)
        after = dict(self._positions)
        after[instrument.id] = after.get(instrument.id, ZERO) + order.quantity
        try:
            before_lines, after_lines = self._lines(self._positions, currency), self._lines(after, currency)
            needed, tied = total_requirement(rule, after_lines), total_requirement(rule, before_lines)
        except ValueError as fault:
            return "buying_power", str(fault)
        equity = self._cash.get(currency, ZERO) + sum(
            (trade_value(line.instrument, line.quantity, line.price) for line in before_lines), ZERO
        )
        if needed <= equity or needed <= tied:
            return None
        return "buying_power", (
            f"{instrument.id}: the account would tie up {needed:.2f} {currency} and has an equity of {equity:.2f}"
        )

    def _lines(self, positions: Mapping[str, Decimal], currency: str) -> list[MarginLine]:
        """The positions of one currency at their latest prices; ValueError by name where there is none."""
        universe = self._its_universe()
        lines: list[MarginLine] = []
        for instrument_id, quantity in sorted(positions.items()):
            instrument = universe.get(instrument_id)
            if not quantity or settlement_currency(instrument) != currency:
                continue
            price = self._latest(instrument_id)
            if price is None:
                raise ValueError(f"{instrument_id}: it has no price to margin it at")
            underlying = self._latest(instrument.underlying) if isinstance(instrument, OptionContract) else None
            lines.append(MarginLine(instrument, quantity, price, underlying))
        return lines

    def _latest(self, instrument_id: str) -> Decimal | None:
        universe = self._its_universe()
        if instrument_id not in universe:
            return None
        return latest_price(self._its_market(), universe.index(instrument_id))[0]

    # ------------------------------------------------------------------ filling

    def _work_orders(self, now: Nanos) -> None:
        waiting = list(self._working.values())
        if len(waiting) > 1:
            waiting.sort(key=_Working.priority)
        for working in waiting:
            if working.was_open and working.order.tif == "day" and not self._is_open(working.instrument, now):
                self._end_if_day_is_over(working, now)
            elif self._news(working) != working.seen:
                self._try_to_fill(working, now)

    def _end_if_day_is_over(self, working: _Working, now: Nanos) -> None:
        """A calendar that cannot say when it closes ends a day order at the first closed instant seen."""
        sessions = self._sessions.get(working.instrument.calendar)
        halted = working.instrument.id in self._halted
        if sessions is not None and not halted and getattr(sessions, "next_close", None) is None:
            self._end(working.order.id, now, _end_text(working))

    def _try_to_fill(self, working: _Working, now: Nanos) -> None:
        """Fill what the market gives now; else say in `why` what the order waits for."""
        working.seen = self._news(working)
        instrument = working.instrument
        if not self._is_open(instrument, now):
            working.why = "its session is closed"
            return
        working.was_open = True
        touch = self._touch(instrument, working.column)
        why = self._bad_quote(instrument, touch, now)
        if why:
            working.why = why
            return
        executions = match(
            working.left,
            touch,
            instrument=instrument,
            limit=working.limit,
            resting=working.resting,
            rules=self._rules(instrument),
            taken=self._taken_from(working, touch),
            shift=self._shift.get(working.column, ZERO),
        )
        done = sum((execution.quantity for execution in executions), ZERO)
        if working.order.tif == "fok" and done != working.left:
            working.why = "not all of it can be filled at once"
            return
        if done != working.left:
            working.why = self._shortfall(working, touch)
        for execution in executions:
            self._fill(working, execution, touch, now)
        if executions:
            self._remember(working, touch, done)
        if not working.left:
            del self._working[working.order.id]

    def _shortfall(self, working: _Working, touch: Touch) -> str:
        quoted = touch.price(working.side)
        if working.limit is not None and quoted is not None and quoted * working.side > working.limit * working.side:
            return "its limit is not reached"
        return "the displayed size is used up"

    def _fill(self, working: _Working, execution: Execution, touch: Touch, now: Nanos) -> None:
        order, instrument = working.order, working.instrument
        currency = settlement_currency(instrument)
        working.filled += execution.quantity
        working.notional += notional_of(instrument, execution.quantity, execution.price)
        working.fills += 1
        schedule = _choose(self.options.commissions, instrument) or FREE
        total = total_commission(
            schedule, Executed(abs(working.filled), working.notional, abs(working.quantity)), currency
        )
        fill = Fill(
            id=f"{order.id}/{self._fills_before.get(order.id, 0) + working.fills}",
            order_id=order.id,
            account=self._account,
            instrument=instrument.id,
            ts=now,
            quantity=execution.quantity,
            price=execution.price,
            commission=total - working.charged,
            currency=currency,
            mid=execution.mid,
            touch=execution.touch,
            quote_ts=touch.ts,
            closing=order.closing,
        )
        working.charged = total
        self._fills.append(fill)
        self._add_position(instrument.id, fill.quantity)
        paid = trade_value(instrument, fill.quantity, fill.price) + fill.commission
        self._cash[currency] = self._cash.get(currency, ZERO) - paid
        self._emit(Filled(ts_recv=self._heard(now), account=self._account, fill=fill))

    def _add_position(self, instrument_id: str, quantity: Decimal) -> None:
        held = self._positions.get(instrument_id, ZERO) + quantity
        if held:
            self._positions[instrument_id] = held
        else:
            self._positions.pop(instrument_id, None)

    def _remember(self, working: _Working, touch: Touch, done: Decimal) -> None:
        """Keep what was taken from this quote, and the shift the execution leaves behind."""
        key, quote = (working.column, working.side), _identity(touch, working.side)
        known, amount = self._taken.get(key, (quote, ZERO))
        self._taken[key] = (quote, (amount if known == quote else ZERO) + abs(done))
        model, quoted = self.options.permanent, touch.price(working.side)
        if model is not None and quoted is not None:
            moved = permanent_shift(model, price=quoted, quantity=done)
            self._shift[working.column] = self._shift.get(working.column, ZERO) + moved

    def _taken_from(self, working: _Working, touch: Touch) -> Decimal:
        known = self._taken.get((working.column, working.side))
        return known[1] if known is not None and known[0] == _identity(touch, working.side) else ZERO

    def _touch(self, instrument: Instrument, column: int) -> Touch:
        market, size = self._its_market(), _choose(self.options.assumed_size, instrument)
        model = _choose(self.options.spreads, instrument) or QUOTED
        if isinstance(model, QuotedSpread):
            return read_touch(market, column, assumed_size=size)
        running = self._vols.get(column)
        vol = None if running is None else running.vol
        return assume_touch(market, column, model=model, tick=instrument.tick, vol=vol, assumed_size=size)

    def _bad_quote(self, instrument: Instrument, touch: Touch, now: Nanos) -> str:
        """Why this touch fills nothing now; empty when it is good."""
        fault = fault_of(touch, now, self.options.stale_after)
        if fault == "stale":
            return f"its quote is stale, {span(now - touch.ts)} old"
        if fault is not None:
            return FAULT_TEXT[fault]
        if not self._is_open(instrument, touch.ts) or self._is_of_an_earlier_session(instrument, touch.ts, now):
            return "it has no quote since its session opened"
        return ""

    def _news(self, working: _Working) -> tuple[float, ...]:
        """What of the market this order could meet: equal as long as there is nothing new to look at."""
        market, column = self._its_market(), working.column
        quote = (market.bid(column), market.ask(column), market.bid_size(column), market.ask_size(column))
        prints: tuple[float, ...] = ()
        if not isinstance(_choose(self.options.spreads, working.instrument) or QUOTED, QuotedSpread):
            prints = (market.last_ts(column), market.last(column))
        return tuple(-1.0 if math.isnan(x) else x for x in (market.quote_ts(column), *quote, *prints))

    def _rules(self, instrument: Instrument) -> MatchRules:
        impact = self.options.impact if self.options.beyond == "impact" else NoImpact()
        return MatchRules(beyond=self.options.beyond, impact=impact, lot=self._lot(instrument))

    def _lot(self, instrument: Instrument) -> Decimal | None:
        if instrument.lot is not None:
            return instrument.lot
        return None if self.options.fractional else Decimal(1)

    def _is_open(self, instrument: Instrument, ts: Nanos) -> bool:
        """True in session. The closing instant belongs to the session: the last bar's quote is received at it."""
        if instrument.id in self._halted:
            return False
        sessions = self._sessions.get(instrument.calendar)
        return sessions is None or sessions.is_open(ts) or sessions.is_open(ts - 1)

    def _is_of_an_earlier_session(self, instrument: Instrument, ts: Nanos, now: Nanos) -> bool:
        """True when a close lies between a quote and now; halts do not count."""
        sessions = self._sessions.get(instrument.calendar)
        return sessions is not None and ts < now and _close_after(sessions, ts) != _close_after(sessions, now)

    # ------------------------------------------------------------------ measuring, drawing, telling

    def _watch_vol(self, column: int, instrument: Instrument) -> None:
        model = _choose(self.options.spreads, instrument)
        if isinstance(model, VolatilitySpread) and model.vol is None:
            self._vols.setdefault(column, _RunningVol(model.halflife))

    def _measure_vols(self) -> None:
        market = self._its_market()
        for column, running in self._vols.items():
            if max(market.last_ts(column), market.quote_ts(column)) == running.ts:
                continue
            price, ts = latest_price(market, column)
            if price is not None and ts > running.ts:
                running.see(float(price), ts)

    def _jitter(self, key: str) -> Nanos:
        """A uniform draw from 0 to `jitter` that depends on the seed and this key alone."""
        if not self.options.jitter:
            return 0
        digest = hashlib.blake2b(f"{self._seed}/{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") * (self.options.jitter + 1) >> 64

    def _heard(self, now: Nanos) -> Nanos:
        return now + self.options.report_latency

    def _its_universe(self) -> Universe:
        if self._universe is None:
            raise HaltedError("paper broker: expected attach(universe, market, account) first")
        return self._universe

    def _its_market(self) -> MarketView:
        if self._market is None:
            raise HaltedError("paper broker: expected attach(universe, market, account) first")
        return self._market


def assumptions_of(options: PaperOptions) -> tuple[str, ...]:
    """The simulator's assumptions in force, as plain sentences for a report."""
    late = f"Orders arrive {span(options.latency)} after they are sent" if options.latency else "Orders arrive at once"
    if options.jitter:
        late += f", plus a seeded draw of up to {span(options.jitter)}"
    bad = "crossed or one-sided" if options.stale_after is None else "stale, crossed or one-sided"
    ages = "never grow stale" if options.stale_after is None else f"are stale after {span(options.stale_after)}"
    waits = {"wait": "waits for the next good one", "reject": "is rejected with the reason"}
    closed = {"wait": "waits for the open", "reject": "is rejected with the reason"}
    said = [
        "Orders fill at the quoted touch, never better; a resting limit fills at its limit once the touch reaches it.",
        "Our orders change nothing anybody else does, and queue position is ignored.",
        f"{late}, in event time.",
        f"Quotes {ages}; an order that meets a {bad} quote {waits[options.on_bad_quote]}.",
        f"An order that meets a closed session {closed[options.on_closed]}.",
        _beyond_text(options),
    ]
    if options.report_latency:
        said.append(f"We hear of what happened {span(options.report_latency)} later.")
    if options.permanent is not None:
        said.append(
            f"Each execution of Q shifts later touches against us by {options.permanent.coefficient} Q / "
            f"{options.permanent.adv} of the price, permanently; it never helps us."
        )
    said.append(_table_text("Spreads", "as quoted", {k: _spread_text(v) for k, v in options.spreads.items()}))
    said.append(_table_text("Commissions", "none", {k: _fee_text(v) for k, v in options.commissions.items()}))
    said.append(
        "Buying power is not checked."
        if options.margin is None
        else "Buying power is checked on arrival, position by position without offsets."
    )
    return tuple(said)


def _beyond_text(options: PaperOptions) -> str:
    if options.beyond == "ignore":
        return "The displayed size is ignored: any size fills at the touch."
    if options.beyond == "partial":
        return "Size beyond the displayed amount waits for the next quote."
    match options.impact:
        case NoImpact():
            return "Size beyond the displayed amount fills at the touch."
        case model:
            law = "the square root of" if isinstance(model, SquareRootImpact) else "in proportion to"
            over = "displayed size" if model.adv is None else f"{model.adv} a day"
            return (
                f"Size beyond the displayed amount walks on: on average {model.coefficient} of the price worse times "
                f"{law} size over {over}."
            )


def _table_text(what: str, nothing: str, said: Mapping[str, str]) -> str:
    """One sentence on a table by product, the rule for everything last."""
    rest = said.get(EVERYTHING, "") or nothing
    parts = [f"{key} {said[key] or nothing}" for key in sorted(said) if key != EVERYTHING]
    return f"{what}: {'; '.join([*parts, f'all else {rest}' if parts else rest])}."


def _spread_text(model: SpreadModel) -> str:
    match model:
        case QuotedSpread():
            return ""
        case FixedSpread(half=half):
            return f"assumed {half} each side of the last price"
        case TickSpread(ticks=ticks):
            return f"assumed {ticks} ticks each side of the last price"
        case BasisPointSpread(bp=bp):
            return f"assumed {bp} basis points each side of the last price"
        case VolatilitySpread(k=k, interval=interval):
            return f"assumed {k:g} standard deviations of a move over {span(interval)} each side of the last price"


def _fee_text(schedule: Schedule) -> str:
    match schedule:
        case PerContract(rate=rate, minimum=minimum, cap=cap):
            text = f"{rate} a unit"
            text += f", at least {minimum} an order" if minimum else ""
            return text if cap is None else f"{text}, at most {cap} of its notional"
        case BasisPoints(bp=bp, minimum=minimum):
            return f"{bp} basis points" + (f", at least {minimum} an order" if minimum else "")
        case PerTicket(amount=amount):
            return f"{amount} an order"
        case FixedTotal(amount=amount):
            return f"{amount} an order in proportion to what fills"
        case SumOf(parts=parts):
            return " plus ".join(text for text in map(_fee_text, parts) if text)


def _choose(table: Mapping[str, _T], instrument: Instrument) -> _T | None:
    """The entry of an instrument's id, else of its kind, else of everything."""
    if not table:
        return None
    kind = str(instrument.__struct_config__.tag)
    for key in (instrument.id, kind, EVERYTHING):
        found = table.get(key)
        if found is not None:
            return found
    return None


def _close_after(sessions: SessionTable, ts: Nanos) -> Nanos:
    """The close of the session an instant belongs to, its closing instant included; FOREVER where nobody can say."""
    next_close = getattr(sessions, "next_close", None)
    if next_close is None:
        return FOREVER
    try:
        close = next_close(ts - 1)
    except ValueError:  # the table of sessions ends with the run: no close is left in it
        return FOREVER
    return FOREVER if close is None else int(close)


def _spread_is_stated(spreads: Mapping[str, SpreadModel], instrument: Instrument) -> bool:
    """True when somebody said what this instrument costs: a default of `quoted` for everything says nothing of it."""
    model = _choose(spreads, instrument)
    return instrument.id in spreads or not (model is None or isinstance(model, QuotedSpread))


def _on_step(value: Decimal, step: Decimal | None) -> bool:
    return step is None or value % step == 0


def _identity(touch: Touch, side: int) -> tuple[Any, ...]:
    """What makes it the same quote: when it was received, and price and size on the side we take."""
    return touch.ts, touch.price(side), touch.size(side)


def _last_trading_instant(instrument: Instrument) -> Nanos | None:
    match instrument:
        case OptionContract(last_trade=ts) | Future(expiry=ts):
            return ts
        case _:
            return None


def _end_text(working: _Working | None) -> str:
    if working is None:
        return ""
    ended = "good till its date" if working.order.tif == "gtd" else "its day ended"
    return f"{ended}: {working.why}"


async def _until(clock: Clock, due: Nanos) -> None:
    await clock.wait_until(due)
