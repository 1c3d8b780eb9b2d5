"""The loop takes one instant in and gives commands out; law: one order of events, and pace or batching change nothing.

Events are ordered by (ts_recv, rank): control and reference, market data, order arrivals and fills due, timers. All
market data of an instant is folded into marks before anybody is woken, once. Re-marks due at an instant come before that
waking. What is made at the present instant queues behind it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec
import numpy as np

from bot.core import expiry
from bot.core.bus import Bus
from bot.core.errors import EvenkeelError, HaltedError, JournalError
from bot.core.events import (
    Alarm,
    Cancelled,
    Control,
    Corporate,
    FeedEvent,
    FeedState,
    Filled,
    Funding,
    FxQuote,
    Notice,
    Reference,
    Rejected,
    Target,
    VenueEvent,
)
from bot.core.ports import Follows, Halts, HearsCorporate, HearsNotices, HoldsPositions, Reports, Restores, TakesUp
from bot.core.quiet import FOREVER, UNTIL_TIMER, QuietBox
from bot.domain import costs
from bot.domain.book import PositionKey
from bot.domain.calendar import Pause
from bot.domain.instruments import ConvertibleBond, OptionContract, Spot, Universe, settlement_currency
from bot.domain.market import Quote, QuoteBatch, Trade, TradeBatch
from bot.domain.orders import OrderStatus
from bot.domain.units import NEVER, NS_PER_MINUTE, NS_PER_YEAR, Nanos, decimal_of, iso
from bot.engine import bonds, controls, kill, renewal
from bot.engine.account import Account, Slot
from bot.engine.facts import Rang
from bot.engine.gate import MODE
from bot.engine.journal import Asked, Balanced, Closed, Fact, JournalWriter, LiveJournal, Snapshotted, Started
from bot.engine.marks import NAN, Marks
from bot.engine.outbox import Outbox
from bot.engine.recovery import Recovered, state_of
from bot.engine.sampler import Sampler
from bot.engine.scan import Fences, fences, scanner
from bot.engine.tape import Tape
from bot.engine.valuation import Valuation

FIRST_LIFECYCLE: Final = 0
STRATEGY: Final = 5
END: Final = 8
SAMPLE: Final = 9
START: Final = 1
SHORTEST_STRIDE: Final = 16
LONGEST_STRIDE: Final = 4096
"""Rows that are unpacked at once for a walk from quote to quote."""
SHORT_LIVED: Final = 4
LONGEST_PATIENCE: Final = 64
"""Wakes that may pass before a strategy whose promises never last is asked again."""


class LoopSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When a session runs and how often it looks at itself. Lengths in nanoseconds."""

    start: Nanos = 0
    end: Nanos | None = None
    begin: str = "two_sided"
    report_grid: Nanos = NS_PER_MINUTE
    remark: Nanos = NS_PER_MINUTE
    base_currency: str = "USD"
    fx: Mapping[str, str] = {}
    financing_rate: float = 0.0
    compounding: Literal["simple", "continuous"] = "simple"
    borrow_rate: float = 0.0
    closing_grace: Nanos = 5 * NS_PER_MINUTE
    snapshot_every: int = 10_000
    close_hedges: bool = True
    jump_alarm: float | None = 0.05
    jump_freeze: float | None = 0.30


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A position every account starts with; `mark` None enters at the market's mark."""

    book: str
    instrument: str
    quantity: Decimal
    mark: Decimal | None = None
    vol: float | None = None


class BalanceEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person says of a difference, as the argument of a `balance` control: JSON of these."""

    book: str
    instrument: str
    quantity: Decimal
    price: Decimal

    def __post_init__(self) -> None:
        if not (self.quantity.is_finite() and self.price.is_finite() and self.price >= 0):
            raise ValueError(f"expected a finite quantity and a price from 0, found {self.quantity} at {self.price}")


class Loop:
    """One run's sequence of instants. Feed it in order with `take`, end it with `finish`."""

    def __init__(
        self,
        *,
        settings: LoopSettings,
        universe: Universe,
        marks: Marks,
        valuation: Valuation,
        accounts: Sequence[Account],
        openings: Sequence[Opening],
        needed: Sequence[str],
        journal: JournalWriter,
        tradable: Sequence[str] = (),
        lists: bool = False,
    ) -> None:
        self.settings = settings
        self.lists = lists
        self.universe = universe
        self.marks = marks
        self.valuation = valuation
        self.accounts = list(accounts)
        self.openings = list(openings)
        self.needed = list(needed)
        self.tradable = list(tradable)
        self.journal = journal
        self.tape = Tape()
        self.now: Nanos = 0
        self.outbox = Outbox(lambda: self.now, journal)
        self.bus = Bus(self._on_handler_fault)
        self.sampler = Sampler(universe, marks, valuation, accounts, settings.base_currency)
        self.fx: dict[str, Decimal] = {settings.base_currency: Decimal(1)}
        self.alarms: list[Alarm] = []
        self.started_at: Nanos | None = None
        self.ended_at: Nanos | None = None
        self.done = False
        self._ending = False
        self._open_ts: Nanos = NEVER
        self._dirty = 0
        self._tape_seen = 0
        self._heap: list[tuple[Nanos, int, int, Callable[[], None]]] = []
        self._timer_count = 0
        self._next_remark: Nanos = FOREVER
        self._sample_wanted = False
        self._last_accrual: Nanos | None = None
        self._last_spot: dict[str, float] = {}
        self._tick_slots: list[tuple[int, Slot]] = []
        self._masks: list[int] = [0] * len(universe)
        self._ready_report = ""
        self._unsettled: set[str] = set()
        self.applied: list[Corporate] = []
        """Corporate events that changed holdings since the start, in order."""
        self._closing: list[tuple[Slot, Sequence[Target]]] = []
        self._fenced: list[QuietBox | None] = []
        self._fences: Fences = fences((), len(universe))
        self._scan = scanner()
        self._ground: renewal.Ground | None = None
        self._scan_renewing = renewal.renewing_scanner()
        self._halted: set[str] = set()
        self._purging: set[tuple[str, str]] = set()
        for account in self.accounts:
            account.timer_request = self._strategy_timer
            account.convert = self.convert
            account.interest_since = self._interest_since
        if settings.begin == "two_sided" or settings.start:
            self._at(settings.start, START, self._try_start)

    # ------------------------------------------------------------------ entry

    def take(self, item: FeedEvent | Control, feed: str) -> None:
        """Take the next event of the merged feeds; its instant is not earlier than any before."""
        if isinstance(item, QuoteBatch):
            self._take_quotes(item, feed)
        elif isinstance(item, TradeBatch):
            self._take_trades(item, feed)
        elif isinstance(item, Quote):
            self._take_quote(item, feed)
        elif isinstance(item, Trade):
            self.advance(item.ts_recv)
            self._fold_print(self.universe.index(item.instrument), item.ts_recv, item.price)
            self._count_tape(feed, 1, item.ts_recv, item.ts_recv)
            self.bus.publish(item)
        elif isinstance(item, Control) and item.verb == kill.PULL:
            self._take_kill(item)
            self.bus.publish(item)
        else:
            self.advance(item.ts_recv)
            self._take_control(item)
            self._record()
            if self.outbox.release():
                self._refresh_due()
            self.bus.publish(item)

    def _take_kill(self, item: Control) -> None:
        """Stand on the rung before anything else happens; what then fails keeps no cancel from leaving."""
        rung, cause = controls.read_kill(item)
        for account in self.accounts:
            controls.pull(account, rung, cause)
        try:
            self.advance(item.ts_recv)
            self._take_control(item)
            self._record()
            self.outbox.release()
        except BaseException:
            self.now = max(self.now, item.ts_recv)
            for account in self.accounts:
                controls.cancel_at_last(account, self.outbox)
            for account, order in self.outbox.release_cancels():
                account.finish(account.orders[order.id], OrderStatus.CANCELLED)
            raise
        finally:
            self._refresh_due()

    def advance(self, ts: Nanos) -> None:
        """Let time pass to just before what happens at `ts`: close the open instant, run what falls due."""
        if ts == self._open_ts:
            self._closed_early = False  # more data of the present instant: it closes again
            return
        if ts < self._open_ts:
            raise EvenkeelError(f"the loop is at {iso(self._open_ts)} and was given an event of {iso(ts)}")
        if self._open_ts != NEVER and not self._closed_early:
            self._close_instant()
        self._closed_early = False
        self._run_due(ts)
        self._open_ts = self.now = ts

    def finish(self) -> None:
        """The feeds have ended: let time pass to the session's end, close what is open, record the end."""
        if self.done:
            return
        last = self._open_ts
        if last != NEVER and not self._closed_early:
            self._close_instant()
        end = self.settings.end
        if not self.done and end is not None and self.started_at is not None:
            if last < end - self.settings.report_grid and not self._ending:
                self._alarm("feed_ended", f"the feed ended at {iso(last)}, before the session's end at {iso(end)}")
            self._run_due(end + 1)
            if self.outbox.waiting:
                return  # an external venue has yet to be asked to close: finish is called again when it has answered
            limit = max([end, *(self._contract(i).settles for i in self._unsettled)]) + self.settings.closing_grace
            self._run_due(limit + 1)
        elif not self.done and self.started_at is not None:
            self.now = max(self.now, last)
            self._end_session()
            if self.outbox.waiting:
                return
            self._run_due(self.now + self.settings.closing_grace)
        if self.started_at is not None and not self.done:
            self._conclude()
        self._record()

    def close_open_instant(self) -> None:
        """Live: the inbox is drained, so the present instant is complete."""
        if self._open_ts != NEVER and not self._closed_early:
            self._close_instant()
            self._closed_early = True
            self._run_due(self._open_ts + 1)

    def next_due(self) -> Nanos:
        """The instant of the next timer, re-mark, arrival or fill; FOREVER when nothing is pending."""
        return self._due()

    def run_timers(self, now: Nanos) -> None:
        """Live: run what fell due by the wall clock while no data came."""
        if now >= self._open_ts:
            self._run_due(now + 1)

    def due_in(self, now: Nanos) -> float:
        """Seconds until something falls due, as seen from `now`; large when nothing is."""
        due = self._due()
        return 3600.0 if due == FOREVER else max(0.0, (due - now) / 1e9)

    # ------------------------------------------------------------------ market data

    def _take_quotes(self, batch: QuoteBatch, feed: str) -> None:
        base, n, i = self.tape.rows, len(batch), 0
        if not n:
            return
        times = batch.ts_recv
        while i < n:
            self._tape_seen = base + i
            self.advance(int(times[i]))
            if self.done:
                break
            if self._needs_every_instant():
                i = (0 if self._stopped_at == base + i else self._skip(batch, i, base)) or self._walk(batch, i, base)
            else:
                j = int(np.searchsorted(times, self._due(), side="right"))
                j = max(j, i + 1)
                self.marks.fold_quotes(batch, i, j)
                self._open_ts = self.now = int(times[j - 1])
                self._dirty = 0  # nobody is woken by quotes yet: whoever starts now has seen these rows
                i = j
        self._count_tape(feed, n, int(times[0]), int(times[-1]))

    def _walk(self, batch: QuoteBatch, i: int, base: int) -> int:
        """Take rows one instant at a time, waking whoever must be; returns the first row not taken."""
        marks = self.marks
        bids, asks, bid_sizes, ask_sizes, times_of = (
            marks.bids,
            marks.asks,
            marks.bid_sizes,
            marks.ask_sizes,
            marks.quote_times,
        )
        masks = self._masks
        published = self.bus.watched(Quote)
        open_ts = self._open_ts
        dirty = self._dirty
        row = i
        columns = (batch.ts_recv, batch.instrument, batch.bid, batch.ask, batch.bid_size, batch.ask_size)
        stop = i + self._stride  # a walk may end at any instant: what lies far ahead is not unpacked for it
        self._stride = min(2 * self._stride, LONGEST_STRIDE)
        for ts, k, bid, ask, bid_size, ask_size in zip(*(c[i:stop].tolist() for c in columns), strict=True):
            if ts != open_ts:
                self._dirty = dirty
                self._tape_seen = base + row
                self._close_instant()
                if self._due_ts < ts:
                    self._run_due(ts)
                self._open_ts = open_ts = self.now = ts
                dirty = 0
                if self.done or not self._every_instant:
                    return row
                if self._is_quiet():
                    self._dirty = 0
                    self._stride = SHORTEST_STRIDE
                    return row
            bids[k] = bid
            asks[k] = ask
            bid_sizes[k] = bid_size
            ask_sizes[k] = ask_size
            times_of[k] = ts
            dirty |= masks[k]
            row += 1
            if published:
                self._publish_quote(k, ts, bid, ask, bid_size, ask_size)
        self._dirty = dirty
        return row

    def _is_quiet(self) -> bool:
        """True when every strategy that quotes wake has a promise in force, and nobody else must see each quote."""
        if self._has_open_orders or self.started_at is None or self.bus.watched(Quote):
            return False
        if self._dirty:
            return False  # somebody is to be woken when the open instant closes, whatever else it brings
        now = self.now
        for _, slot in self._tick_slots:
            box = slot.box
            if box is None or (box.until <= now and not box.renewals):
                return False
        return bool(self._tick_slots)

    def _skip(self, batch: QuoteBatch, i: int, base: int) -> int:
        """Fold the rows from `i` on that no strategy need be woken for; the first row not taken, 0 when none was."""
        if not self._is_quiet():
            return 0
        until = self._lay_fences()
        if self._ground is None:
            j = self._scan(batch, i, self.marks, self._fences, min(until, self._due() + 1))
        else:
            due = self._due()
            j = self._scan_renewing(batch, i, self.marks, self._ground, due)
            self._take_renewed(self._ground)
            if j < len(batch) and batch.ts_recv[j] < due:
                self._stopped_at = base + j  # somebody must be woken there: no need to scan before that
        if j == i:
            return 0
        self._open_ts = self.now = int(batch.ts_recv[j - 1])
        self._dirty = 0
        return j

    def _lay_fences(self) -> Nanos:
        """Put the boxes in force into columns; the first instant not covered by all of them."""
        boxes = [slot.box for _, slot in self._tick_slots]
        if len(boxes) != len(self._fenced) or any(a is not b for a, b in zip(boxes, self._fenced, strict=False)):
            self._fenced = boxes
            if any(box.renewals for box in boxes if box is not None):
                self._ground = renewal.lay(boxes, len(self.universe), self._ground)
            else:
                self._ground = None
                self._fences = fences(boxes, len(self.universe))
        return min(box.until for box in boxes if box is not None)

    def _take_renewed(self, ground: renewal.Ground) -> None:
        """Keep the boxes that a scan issued anew."""
        boxes = renewal.renewed(self._fenced, ground)
        for (_, slot), box in zip(self._tick_slots, boxes, strict=True):
            slot.box = box
        self._fenced = boxes

    def _take_trades(self, batch: TradeBatch, feed: str) -> None:
        base, n, i = self.tape.rows, len(batch), 0
        if not n:
            return
        times = batch.ts_recv
        while i < n:
            self._tape_seen = base + i
            self.advance(int(times[i]))
            if self.done:
                break
            if self._needs_every_instant():
                j = int(np.searchsorted(times, times[i], side="right"))
            else:
                j = max(int(np.searchsorted(times, self._due(), side="right")), i + 1)
            self.marks.fold_trades(batch, i, j)
            if self.bus.watched(Trade):
                self._publish_trades(batch, i, j)
            self._open_ts = self.now = int(times[j - 1])
            self._dirty = -1
            i = j
        self._count_tape(feed, n, int(times[0]), int(times[-1]))

    def _take_quote(self, quote: Quote, feed: str) -> None:
        self.advance(quote.ts_recv)
        k = self.universe.index(quote.instrument)
        self.marks.fold_quote(
            k,
            quote.ts_recv,
            NAN if quote.bid is None else quote.bid,
            NAN if quote.ask is None else quote.ask,
            NAN if quote.bid_size is None else quote.bid_size,
            NAN if quote.ask_size is None else quote.ask_size,
        )
        self._dirty |= self._masks[k]
        self._count_tape(feed, 1, quote.ts_recv, quote.ts_recv)
        self.bus.publish(quote)

    def _publish_quote(self, k: int, ts: Nanos, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        self.bus.publish(
            Quote(
                instrument=self.universe[k].id,
                ts_event=ts,
                ts_recv=ts,
                bid=_known(bid),
                ask=_known(ask),
                bid_size=_known(bid_size),
                ask_size=_known(ask_size),
            )
        )

    def _publish_trades(self, batch: TradeBatch, start: int, stop: int) -> None:
        for row in range(start, stop):
            self.bus.publish(
                Trade(
                    instrument=self.universe[int(batch.instrument[row])].id,
                    ts_event=int(batch.ts_event[row]),
                    ts_recv=int(batch.ts_recv[row]),
                    price=float(batch.price[row]),
                    size=_known(float(batch.size[row])),
                )
            )

    def _on_handler_fault(self, serves: str, fault: Exception) -> None:
        """A core room that raises halts the run; anything else is disabled with one alarm."""
        if serves == "core":
            raise HaltedError(f"a core room raised {type(fault).__name__}: {fault}") from fault
        self.bus.unsubscribe(serves)
        self._alarm("subscriber_fault", f"{serves} raised {type(fault).__name__}: {fault}; disabled", action="disable")

    def _fold_print(self, k: int, ts: Nanos, price: float) -> None:
        self.marks.fold_trade(k, ts, price)
        self._dirty |= self._masks[k]

    def _count_tape(self, feed: str, rows: int, first: Nanos, last: Nanos) -> None:
        self.tape.take(feed, rows, first, last)
        self._tape_seen = self.tape.rows

    # ------------------------------------------------------------------ control and reference

    def _take_control(self, item: FeedState | Reference | Corporate | Funding | FxQuote | Control | Notice) -> None:
        match item:
            case Corporate(what="coupon" | "merger" | "conversion" | "redemption"):
                self._exchange(item)
            case Corporate():
                self._adjust(item)
            case FxQuote():
                if item.quote == self.settings.base_currency:
                    self.fx[item.base] = item.rate
                elif item.base == self.settings.base_currency and item.rate:
                    self.fx[item.quote] = 1 / item.rate
            case Funding():
                self._fund(item)
            case FeedState(state="down" | "gap" | "stale"):
                self._alarm(f"feed_{item.state}", f"feed {item.feed}: {item.text or item.state}")
            case Reference(what="listed"):
                self._list(item.instrument)
            case Reference(what="halted" | "resumed"):
                self._halt(item.instrument, halted=item.what == "halted")
            case Control():
                self._control(item)
            case Notice():
                self._tell(HearsNotices, lambda slot: slot.strategy.notice(slot.view, item))
            case _:
                return

    def _tell(self, kind: type, say: Callable[[Any], Sequence[Target]]) -> None:
        """Give a word that is not market data to every strategy that hears its kind."""
        if self.started_at is None or self._ending:
            return
        for slot in (slot for account in self.accounts for slot in account.slots):
            if slot.disabled or not isinstance(slot.strategy, kind):
                continue
            slot.view.now = self.now
            try:
                targets = say(slot)
            except Exception as fault:  # noqa: BLE001  a strategy's fault stops its own book only
                self._disable(slot, fault)
                continue
            slot.box = None
            if targets:
                self._settle(slot, targets)

    def _list(self, instrument: str) -> None:
        """A contract is listed: where strategies choose from chains, it may be traded from now on."""
        contract = self.universe.get(instrument) if instrument in self.universe else None
        if not self.lists or not isinstance(contract, OptionContract) or contract.expiry <= self.now:
            return
        if self.started_at is None:
            self.tradable.append(instrument)
            return
        self.valuation.add(contract, now=self.now)
        self._schedule_end(contract)

    def _halt(self, instrument: str, *, halted: bool) -> None:
        (self._halted.add if halted else self._halted.discard)(instrument)
        for account in self.accounts:
            if halted:
                account.freeze(instrument, "halted", f"{instrument} is halted")
                account.noted.halts[instrument] = Pause(self.now, FOREVER, halt=True)
            else:
                account.thaw(instrument, "halted")
                began = account.noted.halts.get(instrument)
                account.noted.halts[instrument] = Pause(self.now if began is None else began.start, self.now, halt=True)
            self._hold_venue(account, instrument)
        self._end_boxes()  # whoever has a plan for halts looks at the next price

    def _control(self, item: Control) -> None:
        meant = [
            controls.obey(account, item, self.now, self.outbox, speaks=account is self.accounts[0])
            for account in self.accounts
        ]
        if not any(meant):
            self._alarm("refused_control", f"{item.verb} {item.argument!r}: nothing of that name waits or is disabled")
        if item.verb == "balance":
            self._balance(item)
        if item.verb == "stop" and self.started_at is not None and not self._ending:
            self._end_session()

    def _balance(self, item: Control) -> None:
        """Enter a person's explanation of a difference with the venue; one that cannot be read changes nothing."""
        account = self.accounts[0]
        try:
            entry = msgspec.json.decode(item.argument, type=BalanceEntry)
            self.universe.get(entry.instrument)
        except (msgspec.MsgspecError, KeyError, ValueError) as fault:
            self._alarm("not_balanced", f"balance entry {item.argument!r}: {fault}")
            return
        account.balance(
            Balanced(account=account.name, operator=item.operator, **msgspec.structs.asdict(entry)), self.now
        )

    def _adjust(self, event: Corporate) -> None:
        """Convert marks and holdings; the samples before and after stand on either side of a break."""
        if self.started_at is not None:
            self.applied.append(event)
            self.sampler.take(event.ts_recv, self.convert, on_grid=False)
        renamed = self._renamed(event)
        self.valuation.follow(renamed)
        for conversion in event.conversions:
            old, new = self.universe.index(conversion.old), self.universe.index(conversion.new)
            self.marks.scale(old, new, float(conversion.ratio))
            contract = self.universe.get(conversion.new)
            before = self.universe.get(conversion.old)
            if isinstance(contract, OptionContract) and isinstance(before, OptionContract):
                s = self.valuation.slice(before.underlying)
                row = s.rows.get(before.id)
                vol = None if row is None or math.isnan(s.vol[row]) else float(s.vol[row])
                self.valuation.add(contract, now=event.ts_recv, vol=vol)
                self._schedule_end(contract)
        self._last_spot.pop(event.instrument, None)
        if event.what == "split" and event.instrument in self.universe:
            k = self.universe.index(event.instrument)
            if event.instrument not in {c.old for c in event.conversions}:
                self.marks.scale(k, k, float(event.ratio))
        self.valuation.adjust(event)
        for account in self.accounts:
            self._drop_changed_orders(account, event)
            account.adjust(event)
        self._follow(renamed)
        self._end_boxes()
        self._freeze_unadjusted_bonds(event)
        if not event.adjusted:
            self._alarm(
                "corporate_unadjusted",
                f"{event.what} of {event.instrument}: {event.text}; the underlying is frozen until deliverables are given",
                underlying=event.instrument,
                action="freeze",
            )
        else:
            self._alarm("corporate", f"{event.what} of {event.instrument}: {event.text}", underlying=event.instrument)
        if self.started_at is not None:
            self.sampler.mark_break(f"{event.what} of {event.instrument}")
            self.sampler.take(event.ts_recv, self.convert, on_grid=False)
        self._tell(HearsCorporate, lambda slot: slot.strategy.corporate(slot.view, event))

    def _exchange(self, event: Corporate) -> None:
        """Pay a coupon, or turn an instrument that ends into cash and shares, in every account that holds it."""
        strangers = [i for i in (event.instrument, *(c.new for c in event.conversions)) if i not in self.universe]
        if strangers:
            for account in self.accounts:
                account.freeze(event.instrument, "corporate", f"{event.what}: {', '.join(strangers)} not known here")
            text = f"{event.what} of {event.instrument}: {', '.join(strangers)} not known in this run; not applied"
            self._alarm("corporate_unadjusted", text, underlying=event.instrument, action="freeze")
            return
        bond = self.universe.get(event.instrument)
        if event.what == "redemption" and isinstance(bond, ConvertibleBond):
            event = bonds.redeemed(bond, event, self.valuation.mark(bond.underlying, event.ts_recv))
        held = False
        if event.what == "coupon":  # the last quote is with the coupon: it is carried without
            self.marks.shift(self.universe.index(event.instrument), float(event.cash))
            self.valuation.pay_out(event.instrument, event.cash)
        elif self.started_at is not None:
            self.applied.append(event)
        for account in self.accounts:
            if event.what != "coupon":
                self._drop_changed_orders(account, event)
            account.now = event.ts_recv
            held = account.exchange(event) or held
        self._end_boxes()
        if held and event.what != "coupon":
            self._alarm("corporate", f"{event.what} of {event.instrument}: {event.text}", underlying=event.instrument)
        self._sample_wanted = self._sample_wanted or held
        self._tell(HearsCorporate, lambda slot: slot.strategy.corporate(slot.view, event))

    def _freeze_unadjusted_bonds(self, event: Corporate) -> None:
        """Freeze the bonds of a share that split, and the share, unless the event says what they became: ratios change."""
        if event.what not in {"split", "spin_off"}:
            return
        named = {key for conversion in event.conversions for key in (conversion.old, conversion.new)}
        for bond in self.universe:
            if not isinstance(bond, ConvertibleBond) or bond.underlying != event.instrument or bond.id in named:
                continue
            text = f"{event.what} of {event.instrument}: the conversion ratio of {bond.id} changes; give its new terms"
            for account in self.accounts:
                if account.holders(bond.id):
                    account.freeze(bond.id, "corporate", text)
                    account.freeze(event.instrument, "corporate", text)
            self._alarm("corporate_unadjusted", text, underlying=bond.id, action="freeze")

    def _schedule_bonds(self, now: Nanos, *, since: Nanos) -> None:
        """Coupons and maturities of every bond of the run after `since`; their shares' prices are sampled with the rest."""
        for bond in self.universe:
            if isinstance(bond, ConvertibleBond):
                self.valuation.slice(bond.underlying)
        for due in bonds.dues(self.universe, since):
            self._at(max(due.ts, now), FIRST_LIFECYCLE, lambda due=due: self._bond_due(due))  # type: ignore[misc]  # bound now

    def _bond_due(self, due: bonds.Due) -> None:
        if due.what == "coupon":
            self._exchange(bonds.coupon(due.bond, due.amount, self.now))
        else:
            spot = self.valuation.mark(due.bond.underlying, self.now)
            self._exchange(bonds.at_maturity(due.bond, spot, self.now))

    def _renamed(self, event: Corporate) -> dict[str, str]:
        """Old id to new of what is not an option and only changed its name."""
        return {
            c.old: c.new
            for c in event.conversions
            if c.ratio == 1 and not isinstance(self.universe.get(c.old), OptionContract)
        }

    def _follow(self, renamed: Mapping[str, str]) -> None:
        """Let everybody who watched or traded an old id go on with the new one."""
        if not renamed:
            return
        self.needed = [renamed.get(key, key) for key in self.needed]
        for account in self.accounts:
            for slot in account.slots:
                strategy: object = slot.strategy
                if isinstance(strategy, Follows):
                    strategy.follow(slot.view, renamed)
                    slot.view.refresh()
        for bit, slot in self._tick_slots:
            for key in slot.strategy.watches():
                self._masks[self.universe.index(key)] |= bit

    def _drop_changed_orders(self, account: Account, event: Corporate) -> None:
        """Ask for the orders of a changed instrument to be dropped: their quantity and price are of the old one."""
        if event.what == "dividend":
            return
        changed = {event.instrument, *(c.old for c in event.conversions)}
        for order_id in account.open_ids:
            instrument = account.orders[order_id].order.instrument
            if instrument in changed:
                self.outbox.cancel(account, order_id, f"{event.what} of {event.instrument}")
                self._purging.add((account.name, instrument))
                self._hold_venue(account, instrument)

    def _hold_venue(self, account: Account, instrument: str) -> None:
        """Let a simulated venue fill nothing in an instrument while old orders are on their way out, or it is halted."""
        venue: object = account.in_loop
        if isinstance(venue, Halts):
            held = (account.name, instrument) in self._purging or instrument in self._halted
            venue.set_halted(instrument, halted=held)

    def _end_purges(self, account: Account) -> None:
        open_in = {account.orders[order_id].order.instrument for order_id in account.open_ids}
        for name, instrument in [p for p in self._purging if p[0] == account.name and p[1] not in open_in]:
            self._purging.discard((name, instrument))
            self._hold_venue(account, instrument)

    def _end_boxes(self) -> None:
        """Vols or holdings changed: no promise to stay quiet outlives that."""
        for _, slot in self._tick_slots:
            slot.box = None

    def _fund(self, event: Funding) -> None:
        mark = self.valuation.mark(event.instrument, self.now)
        instrument = self.universe.get(event.instrument)
        for account in self.accounts:
            quantity = account.ledger.book.quantity(event.instrument)
            if quantity and mark is None:
                self._alarm(
                    "no_funding_price", f"{event.instrument}: no price to reckon its funding at; none was booked"
                )
            elif quantity and mark is not None:
                paid = costs.funding(instrument, quantity, mark, event.rate)
                account.finance(settlement_currency(instrument), paid)

    # ------------------------------------------------------------------ the order of an instant

    def _close_instant(self) -> None:
        """Every row of the open instant is folded: re-mark if due, wake whoever must be, let venues look."""
        now = self._open_ts
        if self._next_remark <= now:
            self._remark(now)
        dirty = self._dirty
        if dirty:
            self._dirty = 0
            for bit, slot in self._tick_slots:
                if dirty & bit:
                    self._wake(slot, now)
        if self._has_open_orders:
            self._let_venues_look(now)

    def _wake(self, slot: Slot, now: Nanos) -> None:
        box = slot.box
        if box is not None and now < box.until:
            bids, asks = self.marks.bids, self.marks.asks
            for k, (lo, hi) in box.intervals.items():
                if not lo <= bids[k] + asks[k] <= hi:
                    break
            else:
                return
        if box is not None and box.renewals:
            slot.box = renewal.renewed_at(box, self.marks, now)
            if slot.box is not None:
                return
        slot.box = None  # left once, it promises nothing any more, wherever the price goes next
        view = slot.view
        view.now = now
        if slot.patience:
            slot.patience -= 1
        try:
            targets = slot.strategy.wake(view)
        except Exception as fault:  # noqa: BLE001  a strategy's fault stops its own book only
            self._disable(slot, fault)
            return
        if targets:
            self._settle(slot, targets)
        elif slot.account.pending:
            self._record()
        if slot.asks_for_box and not slot.disabled and not slot.patience and not self._answer_is_due(slot.account, now):
            self._ask_for_box(slot)

    def _answer_is_due(self, account: Account, now: Nanos) -> bool:
        """True when a venue speaks at this very instant: a promise given before would end at its word."""
        if not account.open_ids or account.in_loop is None or account.in_loop.next_due() > now:
            return False
        self._asks_after = True
        return True

    def _ask_after_answers(self, now: Nanos) -> None:
        """All that was due at this instant is done: who would be asked for a promise at its next waking is asked now."""
        self._asks_after = False
        for _, slot in self._tick_slots:
            if slot.box is None and slot.asks_for_box and not slot.patience and not slot.disabled:
                slot.view.now = now
                self._ask_for_box(slot)

    def _ask_for_box(self, slot: Slot) -> None:
        """Ask for a promise; one that lasted a few rows only is asked for more rarely: it costs as much as a look."""
        lasted = self._tape_seen - slot.asked_at
        slot.haste = min(2 * slot.haste, LONGEST_PATIENCE) if lasted < SHORT_LIVED + slot.haste else 1
        slot.patience = slot.haste - 1
        slot.asked_at = self._tape_seen
        try:
            slot.box = slot.strategy.quiet(slot.view)
            if slot.box is not None and slot.box.renewals:
                slot.haste, slot.patience = 1, 0  # compiled code looks at each row at no cost to us
        except Exception as fault:  # noqa: BLE001  a strategy's fault stops its own book only
            self._disable(slot, fault)

    def _settle(self, slot: Slot, targets: Sequence[Target]) -> None:
        nonsense = slot.account.fault_of(targets)
        if nonsense:
            self._disable(slot, ValueError(nonsense))
            return
        slot.account.settle_targets(slot, targets, self.now, self.outbox)
        self._record()
        if self.outbox.release():
            self._refresh_due()

    def _let_venues_look(self, now: Nanos) -> None:
        for account in self.accounts:
            if account.in_loop is not None and (account.open_ids or account.in_loop.watching):
                account.in_loop.on_instant(now)
        self._refresh_due()

    def _run_due(self, limit: Nanos) -> None:
        """Run everything that falls due before `limit`, in order of instant, then rank."""
        while self._due() < limit and not self.done:
            t = self._due_ts
            self.now = max(self.now, t)
            if self._next_remark <= t:
                self._remark(t)
                if self._dirty:
                    self._dirty = 0
                    for _, slot in self._tick_slots:
                        self._wake(slot, t)
            if self._arrive(t):
                self._refresh_due()
            elif self._heap and self._heap[0][0] <= t:
                heapq.heappop(self._heap)[3]()
            self._record()
            if self.outbox.release():
                self._refresh_due()
            if self._sample_wanted and self._due() > t and self.started_at is not None:
                self._sample(t, on_grid=False)
            if self._asks_after and not self._has_open_orders:
                self._ask_after_answers(t)
            if self._ending and not self.done:
                self._conclude_if_flat()

    def _arrive(self, t: Nanos) -> bool:
        """Apply what venues say by `t`; True when any said something."""
        heard = False
        for account in self.accounts:
            venue = account.in_loop
            if venue is not None and venue.next_due() <= t:
                for event in venue.take_due(t):
                    self._apply(account, event)
                    heard = True
        return heard

    def hear(self, account: Account, event: VenueEvent) -> None:
        """Apply a venue's word to its account, and put on the record what it changed."""
        self._apply(account, event)
        self._refresh_due()
        self._record()
        if self.outbox.release():
            self._refresh_due()

    def _apply(self, account: Account, event: VenueEvent) -> None:
        if self.settings.compounding == "continuous" and isinstance(event, Filled) and self.started_at is not None:
            self._accrue(self.now)  # cash changes now: what it was has earned until now
        if account.hear(event, self._lot_of):
            self._sample_wanted = True
        if account.pulled:
            controls.settle_pulls(account, self.now, self.outbox)
        elif account.gate.standing.kill.rung is kill.Rung.FLATTEN and not isinstance(event, Rejected):
            account.flatten(self.now, self.outbox)  # what was rejected is tried again at the next valuation
        if self._purging:
            self._end_purges(account)
        if self._closing and not self.done:
            self._close_again(account, event)
        for slot in account.slots:
            slot.box = None if slot.asks_for_box else slot.box

    def _lot_of(self, instrument: str) -> Decimal | None:
        return self.universe.get(instrument).lot

    # ------------------------------------------------------------------ due instants

    held_back = ""
    """Why nobody may begin yet: the venue was not asked, the clock is not known; empty when nothing stands in the way."""
    _recovered: Recovered | None = None
    _snapped = 0
    _due_ts: Nanos = FOREVER
    _has_open_orders = False
    _closed_early = False
    _every_instant = False
    _asks_after = False
    _stopped_at = -1
    _stride = SHORTEST_STRIDE

    def _due(self) -> Nanos:
        due = self._next_remark
        if self._heap and self._heap[0][0] < due:
            due = self._heap[0][0]
        for account in self.accounts:
            if account.in_loop is not None and account.open_ids:
                due = min(due, account.in_loop.next_due())
        self._due_ts = due
        return due

    def _refresh_due(self) -> None:
        self._has_open_orders = any(
            account.open_ids or (account.in_loop is not None and account.in_loop.watching) for account in self.accounts
        )
        self._due()
        self._needs_every_instant()

    def _needs_every_instant(self) -> bool:
        self._every_instant = (
            self._has_open_orders or (self.started_at is not None and bool(self._tick_slots)) or self.bus.watched(Quote)
        )
        return self._every_instant

    def _at(self, ts: Nanos, priority: int, act: Callable[[], None]) -> None:
        self._timer_count += 1
        heapq.heappush(self._heap, (ts, priority, self._timer_count, act))
        self._due_ts = min(self._due_ts, ts)

    def _strategy_timer(self, slot: Slot, ts: Nanos, name: str) -> None:
        key = (slot.strategy.name, ts, name)
        if key in slot.account.timers:
            return
        slot.account.timers[key] = None
        slot.account.pending.append(Asked(account=slot.account.name, strategy=slot.strategy.name, ts=ts, name=name))
        self.ring_at(slot, ts, name)

    def ring_at(self, slot: Slot, ts: Nanos, name: str) -> None:
        """Wake a strategy under a name at `ts`."""

        def ring() -> None:
            slot.account.timers.pop((slot.strategy.name, ts, name), None)
            end = self.settings.end
            if self._ending or slot.disabled or (end is not None and ts >= end):
                return
            slot.view.now = ts
            try:
                targets = slot.strategy.timer(slot.view, name)
            except Exception as fault:  # noqa: BLE001  a strategy's fault stops its own book only
                self._disable(slot, fault)
                return
            self._note_rung(slot, ts, name)
            if targets:
                self._settle(slot, targets)

        self._at(ts, STRATEGY, ring)

    def _note_rung(self, slot: Slot, ts: Nanos, name: str) -> None:
        """Put a ring on the record, where a restart would ring anew; asking again under the name says so too."""
        if not isinstance(self.journal, LiveJournal):
            return
        account, strategy = slot.account, slot.strategy.name
        again = (f for f in account.pending if isinstance(f, Asked) and (f.strategy, f.name) == (strategy, name))
        if next(again, None) is None:
            account.pending.append(Rang(account=account.name, strategy=strategy, ts=ts, name=name))

    def _disable(self, slot: Slot, fault: Exception) -> None:
        slot.disabled = f"{type(fault).__name__}: {fault}"
        self._tick_slots = [(bit, s) for bit, s in self._tick_slots if s is not slot]
        slot.account.alarm(
            Alarm(
                code="strategy_fault",
                text=f"strategy {slot.strategy.name} of account {slot.account.name} raised {slot.disabled}; its book is frozen",
                ts=self.now,
                action="freeze",
            )
        )
        for order_id, state in ((i, slot.account.orders[i]) for i in slot.account.open_ids):
            if all(allocation.book == slot.strategy.book for allocation in state.order.allocations):
                self.outbox.cancel(slot.account, order_id, "its strategy was stopped by a fault")
        self._record()
        if self.outbox.release():
            self._refresh_due()

    # ------------------------------------------------------------------ start, grid, end

    def recover(self, found: Recovered) -> None:
        """Go on from what a journal said of these accounts; strategies begin again once everything held can be priced."""
        if not found.records:
            return
        self._snapped = self.journal.seq - found.since_snapshot
        for account in self.accounts:  # what was tightened holds until a process begins with another configuration
            same = account.config_hash == self.journal.header.config_hash
            account.gate.restore(account.gate.standing if same else account.gate.standing.reconfigured())
        if found.closed:
            raise JournalError("the journal's session has ended: expected one to go on with, found its closing record")
        if found.started_at is not None:
            self._recovered = found
            self.now = found.last_ts

    @property
    def still_to_open(self) -> dict[str, Decimal]:
        """Contracts by instrument that the books will begin with; none once they have."""
        total: dict[str, Decimal] = {}
        if self.started_at is None and self._recovered is None:
            for opening in self.openings:
                total[opening.instrument] = total.get(opening.instrument, Decimal(0)) + opening.quantity
        return total

    def begin_if_ready(self) -> bool:
        """Live: begin as soon as everything is known, at the instant that was just closed; True once begun."""
        if self.started_at is None and self._open_ts != NEVER and self.now >= self.settings.start:
            missing = self._ready_report = self.held_back or self._not_ready()
            if not missing:
                self._enter()
        return self.started_at is not None

    def _enter(self) -> None:
        if self._recovered is None:
            self._start(self.now)
        else:
            self._resume(self._recovered, self.now)

    def _try_start(self) -> None:
        """Begin the session if every leg and hedge instrument can be priced; else look again a report grid later."""
        if self.started_at is not None:
            return
        missing = self.held_back or self._not_ready()
        end = self.settings.end
        if missing:
            self._ready_report = missing
            again = max(self.now, self.settings.start) + self.settings.report_grid
            if end is None or again < end:
                self._at(again, START, self._try_start)
            return
        self._enter()

    @property
    def not_ready(self) -> str:
        """What the last readiness check missed."""
        return self._ready_report

    def _not_ready(self) -> str:
        for key in self.needed:
            if self.valuation.mark(key, self.now) is None:
                return f"no price of {key}"
        quoted = self.valuation.settings.marks_at == "mid"
        for opening in self.openings if self._recovered is None else self._held_now():
            k = self.universe.index(opening.instrument)
            contract = self.universe[k]
            bare = isinstance(contract, ConvertibleBond) and opening.mark is None
            if bare and self.valuation.mark(contract.id, self.now) is None:
                return f"no price of {contract.id}: no quote, and no model and share price to value it by"
            if not isinstance(contract, OptionContract) or contract.expiry <= self.now:
                continue
            if math.isnan(self.valuation.spot(contract.underlying)):
                return f"no price of {contract.underlying} from its source"
            unmarked = "" if opening.mark is not None else self.valuation.why_unmarked(contract, self.now)
            if unmarked:
                return unmarked
            if not quoted or not math.isnan(self.marks.mid(k)):
                continue
            if self.settings.begin == "two_sided":
                return f"no two-sided quote of {contract.id}"
            if opening.vol is None:
                return f"no two-sided quote of {contract.id}, and no vol of it in the book to begin without one"
        return ""

    def _held_now(self) -> list[Opening]:
        """What the accounts hold after a restart, to be priced before anybody acts on it."""
        vols = {opening.instrument: opening.vol for opening in self.openings}
        held = {key for account in self.accounts for key in account.ledger.quantities()}
        return [Opening(book="", instrument=key, quantity=Decimal(0), vol=vols.get(key)) for key in sorted(held)]

    def _resume(self, found: Recovered, now: Nanos) -> None:
        """Begin where the journal ended: holdings, orders, memories and timers are there, prices have come anew."""
        assert found.started_at is not None
        self.started_at = found.started_at
        self.valuation.started(found.started_at)
        for opening in self._held_now():
            contract = self.universe.get(opening.instrument)
            if isinstance(contract, OptionContract):
                self.valuation.add(contract, now=now, vol=opening.vol)
                if contract.settles <= now:
                    text = f"{contract.id} settled at {iso(contract.settles)}, while nobody looked; a price of now is taken"
                    self._alarm("settled_late", text, underlying=contract.underlying)
                self._schedule_end(contract)
        self._list_tradable(now)
        self._schedule_bonds(now, since=found.last_ts)
        self._last_accrual = found.last_ts
        self._remark(now)
        self._next_remark = now + self.settings.remark
        for account in self.accounts:
            if account.name in found.seen:
                self._take_up(account, now)
            else:
                self._open(account, now)
        self._record()
        self._sample(now, on_grid=True)
        for number, slot in enumerate(s for account in self.accounts for s in account.slots):
            self._begin(number, slot, now)
        self._settle_in(now)

    def _take_up(self, account: Account, now: Nanos) -> None:
        """Let a simulated venue go on where it was: what is held there, and which orders are open."""
        venue: object = account.in_loop
        if isinstance(venue, HoldsPositions):
            venue.open_positions(account.ledger.quantities())
        for order_id in list(account.open_ids):
            state = account.orders[order_id]
            if isinstance(venue, TakesUp):
                venue.take_up(state.order, filled=state.filled, fills=len(state.fill_ids), now=now)
            elif account.in_loop is not None:
                word = Cancelled(ts_recv=now, account=account.name, order_id=order_id, reason="the venue began anew")
                account.hear(word, self._lot_of)
        for strategy, ts, name in list(account.timers):
            slot = next((slot for slot in account.slots if slot.strategy.name == strategy), None)
            if slot is None:
                account.timers.pop((strategy, ts, name))
            else:
                self.ring_at(slot, ts, name)

    def _start(self, now: Nanos) -> None:
        self.started_at = now
        self.valuation.started(now)
        for opening in self.openings:
            contract = self.universe.get(opening.instrument)
            if isinstance(contract, OptionContract):
                self.valuation.add(contract, now=now, vol=opening.vol)
                self._schedule_end(contract)
        self._list_tradable(now)
        self._schedule_bonds(now, since=now)
        self._remark(now)
        self._next_remark = now + self.settings.remark
        for account in self.accounts:
            self._open(account, now)
        self._record()
        self._sample(now, on_grid=True)
        for number, slot in enumerate(s for account in self.accounts for s in account.slots):
            self._begin(number, slot, now)
        self._settle_in(now)

    def _settle_in(self, now: Nanos) -> None:
        """Everybody has begun: from now on there is a report grid, and an end."""
        if self.settings.end is not None:
            self._at(self.settings.end, END, self._end_session)
        self._at(now + self.settings.report_grid, SAMPLE, self._grid)
        self._dirty = 0  # whoever began has seen the first re-mark
        self._refresh_due()

    def _list_tradable(self, now: Nanos) -> None:
        """Strategies may choose from every listed option that has not expired."""
        for key in self.tradable:
            contract = self.universe.get(key)
            if isinstance(contract, OptionContract) and contract.expiry > now:
                self.valuation.add(contract, now=now)
                self._schedule_end(contract)

    def _open(self, account: Account, now: Nanos) -> None:
        marks: dict[str, Decimal] = {}
        for opening in self.openings:
            mark = opening.mark if opening.mark is not None else self.valuation.mark(opening.instrument, now)
            if mark is None:
                raise EvenkeelError(f"no mark for {opening.instrument} at the start of the session")
            account.ledger.open(PositionKey(account.name, opening.book, "", opening.instrument), opening.quantity, mark)
            account.opened[opening.book, opening.instrument] = opening.quantity
            marks[opening.instrument] = mark
        venue: object = account.in_loop
        if isinstance(venue, HoldsPositions):
            venue.open_positions(account.ledger.quantities())
        account.pending.append(Started(account=account.name, positions=account.ledger.quantities(), marks=marks))
        if not account.gate.mode.is_plain:
            account.gate.note(MODE, account.gate.mode.words)

    def _begin(self, number: int, slot: Slot, now: Nanos) -> None:
        slot.view.now = now
        strategy: object = slot.strategy
        try:
            found = self._recovered
            began = found is not None and found.began(slot.account.name, slot.strategy.name)
            if began and isinstance(strategy, Restores):
                strategy.restore(slot.view, slot.account.memories.get(slot.strategy.name, b"null"))
                targets: Sequence[Target] = ()
            else:
                targets = slot.strategy.start(slot.view)
            box = slot.strategy.quiet(slot.view)
        except Exception as fault:  # noqa: BLE001  a strategy's fault stops its own book only
            self._disable(slot, fault)
            return
        if targets:
            self._settle(slot, targets)
        if box is UNTIL_TIMER:
            return
        bit = 1 << number
        slot.asks_for_box = box is not None
        self._tick_slots.append((bit, slot))
        for key in slot.strategy.watches():
            self._masks[self.universe.index(key)] |= bit

    def _remark(self, now: Nanos) -> None:
        self._watch_jumps()
        for key in {*self.needed, *self.valuation.slices}:
            self.valuation.mark(key, now)  # notes the last good price of what is held, should its quote be withdrawn
        if self.valuation.remark(now):
            self._dirty = -1
            self._end_boxes()
        if self._next_remark <= now:
            missed = (now - self._next_remark) // self.settings.remark
            self._next_remark += (missed + 1) * self.settings.remark
            self._ask_gates(now)

    def _ask_gates(self, now: Nanos) -> None:
        """At every valuation but the first gates value contracts anew and look at losses."""
        for account in self.accounts:
            if not account.gate.watches_valuations:
                continue
            noted = len(account.pending)
            controls.on_valuation(account, now, self.outbox)
            if len(account.pending) == noted:
                continue
            self._record()
            if self.outbox.release():
                self._refresh_due()

    def _watch_jumps(self) -> None:
        """Name a price that jumped with no corporate event to explain it; freeze one that looks like a split unseen."""
        alarm, freeze = self.settings.jump_alarm, self.settings.jump_freeze
        for underlying in self.valuation.slices:
            spot = self.valuation.spot(underlying)
            before = self._last_spot.get(underlying, NAN)
            if not math.isnan(spot):
                self._last_spot[underlying] = spot
            move = abs(spot / before - 1.0)
            text = (
                f"{underlying} moved from {before:g} to {spot:g} between re-marks with no corporate event to explain it"
            )
            if freeze is not None and move > freeze:
                for account in self.accounts:
                    account.freeze(underlying, "jump", text)
                self._alarm("unexplained_jump", text + "; frozen", underlying=underlying, action="freeze")
            elif alarm is not None and move > alarm:
                self._alarm("jump", text, underlying=underlying)

    def _grid(self) -> None:
        now = self.now
        if self._ending:
            return
        self._accrue(now)
        self._sample(now, on_grid=True)
        self._at(now + self.settings.report_grid, SAMPLE, self._grid)

    def _sample(self, now: Nanos, *, on_grid: bool) -> None:
        self._sample_wanted = False
        self.sampler.take(now, self.convert, on_grid=on_grid)

    def _accrue(self, now: Nanos) -> None:
        """Interest on cash and the fee for borrowed stock since last time, by the year of 365 days."""
        since = self._accrued_until
        self._last_accrual = now
        if since is None or (not self.settings.financing_rate and not self.settings.borrow_rate):
            return
        years = decimal_of((now - since) / NS_PER_YEAR)
        growth = self._growth(since, now)
        for account in self.accounts:
            for currency, cash in account.ledger.balances(lambda key: self.valuation.mark(key, now)).items():
                interest = cash * growth
                if interest:
                    account.finance(currency, round(interest, 8))
            self._charge_borrow(account, years)

    @property
    def _accrued_until(self) -> Nanos | None:
        return self._last_accrual if self._last_accrual is not None else self.started_at

    def _growth(self, since: Nanos, now: Nanos) -> Decimal:
        """What a unit of cash earns between two instants: simple, or continuous."""
        years = decimal_of((now - since) / NS_PER_YEAR)
        if self.settings.compounding == "continuous":
            return decimal_of(math.expm1(self.settings.financing_rate * float(years)))
        return decimal_of(self.settings.financing_rate) * years

    def _interest_since(self, now: Nanos) -> Decimal:
        """What a unit of cash has earned that is not booked yet."""
        since = self._accrued_until
        return Decimal(0) if since is None or not self.settings.financing_rate else self._growth(since, now)

    def _charge_borrow(self, account: Account, years: Decimal) -> None:
        if not self.settings.borrow_rate:
            return
        for key, quantity in account.ledger.quantities().items():
            instrument = self.universe.get(key)
            mark = self.valuation.mark(key, self.now)
            if quantity < 0 and mark is not None and isinstance(instrument, Spot):
                fee = quantity * instrument.multiplier * mark * decimal_of(self.settings.borrow_rate) * years
                account.finance(instrument.currency, round(fee, 8))

    def _schedule_end(self, contract: OptionContract) -> None:
        if contract.id in self._unsettled:
            return
        self._unsettled.add(contract.id)
        self._at(contract.expiry, FIRST_LIFECYCLE, self._retire)
        self._at(contract.settles, FIRST_LIFECYCLE, lambda: self._settle_option(contract))

    def _retire(self) -> None:
        """An option expired: holdings are packed anew without it."""
        for account in self.accounts:
            account.ledger.version += 1
        self._end_boxes()

    def _contract(self, key: str) -> OptionContract:
        contract = self.universe.get(key)
        assert isinstance(contract, OptionContract)
        return contract

    def _settle_option(self, contract: OptionContract) -> None:
        self._unsettled.discard(contract.id)
        value = self.valuation.mark(contract.underlying, self.now)
        for account in self.accounts:
            holders = account.holders(contract.id)
            if not holders:
                continue
            if value is None:
                self._alarm("no_settlement_value", f"{contract.id}: no price of {contract.underlying} to settle at")
                continue
            if len({quantity > 0 for _, quantity in holders}) == 1:
                self._end_holding(account, contract, sum((q for _, q in holders), Decimal(0)), value)
            else:  # books of the account stand against each other: each ends by itself, their sum is the account's
                for key, quantity in holders:
                    self._end_holding(account, contract, quantity, value, of=key)
            self._sample_wanted = True

    def _end_holding(
        self,
        account: Account,
        contract: OptionContract,
        quantity: Decimal,
        value: Decimal,
        *,
        of: PositionKey | None = None,
    ) -> None:
        underlying = self.universe.get(contract.underlying)
        for event in expiry.settle(contract, quantity, value, account=account.name, underlying=underlying, ts=self.now):
            mid = None if event.deliver is None else self.valuation.mark(event.deliver, self.now)
            account.end_option(event, mid, of=of)

    def _end_session(self) -> None:
        """Every strategy says what to hold at the close; the run ends when nothing is left to happen."""
        if self._ending:
            return
        self._ending = True
        self.ended_at = self.now
        self._accrue(self.now)
        for account in self.accounts:
            for slot in account.slots:
                if slot.disabled or not self.settings.close_hedges:
                    continue
                self._stop_strategy(slot)
        self._tick_slots = []
        self._next_remark = FOREVER
        self._sample(self.now, on_grid=True)
        self._at(self.now + self.settings.closing_grace, END, self._give_up_closing)
        self._refresh_due()
        self._conclude_if_flat()

    def _stop_strategy(self, slot: Slot) -> None:
        slot.view.now = self.now
        try:
            targets = slot.strategy.stop(slot.view)
        except Exception as fault:  # noqa: BLE001  a strategy's fault stops its own book only
            self._disable(slot, fault)
            return
        if targets:
            self._closing.append((slot, targets))
            self._settle(slot, targets)

    def _close_again(self, account: Account, event: VenueEvent) -> None:
        """An order from before the end is done: what it stood in the way of, or changed, is closed now."""
        order_id = event.fill.order_id if isinstance(event, Filled) else event.order_id
        state = account.orders.get(order_id)
        if state is None or state.order.closing or order_id in account.open_ids:
            return
        for slot, targets in self._closing:
            if slot.account is account and not slot.disabled:
                self._settle(slot, targets)

    def _give_up_closing(self) -> None:
        for account in self.accounts:
            for order_id in list(account.open_ids):
                self.outbox.cancel(account, order_id, "the session ended and the order did not fill in time")
                instrument = account.orders[order_id].order.instrument
                sessions = account.sessions.get(self.universe.get(instrument).calendar)
                shut = sessions is not None and not sessions.is_open(self.now)
                why = (
                    f", the session of {instrument} being closed (end before its close, by the latency)" if shut else ""
                )
                self._alarm(
                    "not_closed",
                    f"account {account.name}: closing order {order_id} did not fill{why}; left open at mark",
                )
        self.outbox.release()
        self._refresh_due()

    def _conclude_if_flat(self) -> None:
        if any(account.open_ids for account in self.accounts):
            return
        ended = self.ended_at or self.now
        if any(self._contract(key).expiry <= ended for key in self._unsettled):
            return
        self._conclude()

    def _conclude(self) -> None:
        if self.done:
            return
        self.done = True
        if self.ended_at is None:
            self.ended_at = self.now
        self.sampler.take(self.now, self.convert, on_grid=False)
        self._ask_for_figures()
        for account in self.accounts:
            held = account.ledger.quantities()
            marks = {key: self.valuation.mark(key, self.now) for key in held}
            account.pending.append(
                Closed(
                    account=account.name,
                    positions=held,
                    cash=account.ledger.book.cash(),
                    marks={k: m for k, m in marks.items() if m is not None},
                )
            )
        self._record()

    def _ask_for_figures(self) -> None:
        """Keep each strategy's own section of the report; one that cannot give it says why, and nothing else stops."""
        for slot in (slot for account in self.accounts for slot in account.slots):
            slot.view.now = self.now
            if slot.disabled or not isinstance(slot.strategy, Reports):
                continue
            try:
                slot.figures = {title: dict(rows) for title, rows in slot.strategy.figures(slot.view).items()}
            except Exception as fault:  # noqa: BLE001  a report's fault stops the report only
                text = f"strategy {slot.strategy.name} of account {slot.account.name}: figures: {type(fault).__name__}: {fault}"
                slot.account.alarm(Alarm(code="figures", text=text, ts=self.now))

    # ------------------------------------------------------------------ money and the record

    def convert(self, currency: str) -> Decimal | None:
        """The marked exchange rate into the base currency, None while unknown."""
        rate = self.fx.get(currency)
        if rate is not None:
            return rate
        instrument = self.settings.fx.get(currency)
        return None if instrument is None else self.valuation.mark(instrument, self.now)

    def _alarm(self, code: str, text: str, *, underlying: str = "", action: str = "none") -> None:
        alarm = Alarm(code=code, text=text, ts=self.now, underlying=underlying, action=action)
        self.accounts[0].alarm(alarm)

    def forget(self, keep: int) -> None:
        """Live: bound what grows with every fill; samples begin anew, so that a report is of the time since."""
        for account in self.accounts:
            account.forget(keep)
        del self.alarms[:-keep]
        if len(self.sampler.instants) > keep and self.started_at is not None:
            self.sampler = Sampler(
                self.universe, self.marks, self.valuation, self.accounts, self.settings.base_currency
            )
            self._sample(self.now, on_grid=True)

    def record(self) -> None:
        """Put on the record what accounts have to say, outside a step of the loop's own."""
        self._record()

    def _record(self) -> None:
        """Append the step's facts as one record."""
        facts: list[Fact] = []
        for account in self.accounts:
            if account.pending or account.stated != account.ledger.restated:
                facts += account.take_facts()
        if not facts:
            return
        for fact in facts:
            alarm = getattr(fact, "alarm", None)
            if alarm is not None:
                self.alarms.append(alarm)
        if self.journal.seq - self._snapped >= self.settings.snapshot_every and self.started_at is not None:
            self._snapped = self.journal.seq
            facts += [
                Snapshotted(account=account.name, state=state_of(account, started_at=self.started_at, closed=self.done))
                for account in self.accounts
            ]
        self.journal.append(self.now, self._tape_seen, facts)
        if self.bus:
            for fact in facts:
                self.bus.publish(fact)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
