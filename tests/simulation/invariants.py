"""An invariant is what must hold of every run, whatever fails; law: it is judged by the venue's truth, the disk's synced bytes
and the world's own clock, never by what the daemon believes.

`Watch` is told of everything as it happens and keeps a list of what was broken, each as `name: what was found`. It raises
nothing: what it watches catches exceptions for a living.
"""

from __future__ import annotations

import struct
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from bot.core.events import Filled, Unknown, VenueEvent
from bot.domain.orders import Fill, Order, OrderStatus
from bot.domain.units import NS_PER_SECOND, Nanos
from bot.engine.account import ALL, Account
from bot.engine.facts import (
    Controlled,
    Executed,
    Fact,
    Ordered,
    Reconciled,
    Snapshotted,
    Started,
    Transferred,
    VenueSaid,
)
from bot.engine.journal import MAGIC, LiveJournal, Step
from bot.engine.kill import CLEAR, PULL, Rung, read_pull
from bot.engine.recovery import digest_of, relive

if TYPE_CHECKING:
    from tests.simulation.world import Daemon, Sim

ZERO: Final = Decimal(0)
SECOND: Final = NS_PER_SECOND
_HEAD: Final = struct.Struct("<II")
_LINK: Final = 32
ENDS: Final = ("rejected", "cancelled")

INVARIANTS: Final[dict[str, str]] = {
    "sent before durable": "no order leaves whose record a crash could take",
    "acknowledged before durable": "a venue's word is acknowledged after its record is safe",
    "id reused": "an order id is used once, for one order",
    "fill twice": "a fill is applied once",
    "fill invented": "every fill applied is the venue's, to the cent",
    "fill lost": "at the end every fill of the venue is applied",
    "position": "what is held is what was opened and filled, at any instant, and what the venue has at the end",
    "ended too soon": "an order is over when the venue says so, not before",
    "tracking lost": "every recorded order that nobody ended is still tracked",
    "hedged in doubt": "no order in an underlying with an order in doubt",
    "limit breached": "no order past a limit in the worst case of all that may still fill",
    "stale view": "no order on a price older than allowed, by the world's clock; none sent long after its decision",
    "sent when halted": "no order while a person's halt, or a rung that forbids it, is on the record",
    "old lease": "no order of a daemon that lost the book is executed",
    "fold differs": "folding the records gives the running state",
    "recovery differs": "a start folds to what the last process recorded, or a beginning of it",
    "durable record lost": "what was synced is there at the next start",
    "start refused": "a crash leaves a journal that opens",
    "daemon failed": "no fault of the world ends a daemon",
    "halted by a fault": "no fault of the world halts the engine",
    "time went back": "records follow each other in time, whatever the wall clock does",
    "timer lost": "a timer rings when it is due, by the world's clock",
    "left in doubt": "once the world is calm no order is in doubt and nothing is frozen",
    "false difference": "no difference with the venue is found where everything can be explained",
    "shadow touched": "a venue's faults do nothing to the accounts beside it",
}


def told(account: Account) -> dict[str, Any]:
    """All of an account that its records must give back."""
    return {
        "digest": digest_of(account),
        "timers": sorted(account.timers),
        "causes": {key: dict(by) for key, by in sorted(account.causes.items())},
        "opened": dict(account.opened),
        "elsewhere": account.elsewhere,
        "differences": dict(account.differences),
        "shares": {i: _shares(account, i) for i in account.open_ids},
        "kill": account.gate.kill.rung,
        "cash": {k: v for k, v in account.ledger.book.cash().items() if v},
    }


def _shares(account: Account, order_id: str) -> tuple[list[str], dict[str, Decimal]]:
    state = account.orders[order_id]
    return sorted(state.fill_ids), {book: part for book, part in state.allocated.items() if part}


class Spied(LiveJournal):
    """A live journal that tells the watch of each record as it is appended. Everything else is the journal's own."""

    def __init__(self, inner: LiveJournal, watch: Watch, daemon: Daemon) -> None:
        self.__dict__ = inner.__dict__  # one journal under two names: the same waiting records, chain and store
        self._watch = watch
        self._daemon = daemon

    def append(self, ts: Nanos, tape: int, facts: list[Fact]) -> None:
        """Add one step."""
        self._watch.appended(self._daemon, Step(seq=self.seq, ts=ts, tape=tape, facts=list(facts)))
        super().append(ts, tape, facts)


class Story:
    """What the records of one daemon say of its orders: an own small fold, apart from the engine's."""

    def __init__(self, history: list[list[Fact]]) -> None:
        self.seq_of: dict[str, int] = {}
        self.orders: dict[str, Order] = {}
        self.open: dict[str, Decimal] = {}
        """Signed quantity not filled, by id, of orders nobody ended."""
        self.left: dict[str, Decimal] = {}
        self.unknown: set[str] = set()
        self.fills: dict[str, int] = {}
        """Record number by fill id."""
        self.said: dict[tuple[str, str], int] = {}
        """Record number of what the venue said of an order."""
        self.positions: dict[str, Decimal] = {}
        self.last_ts: Nanos = 0
        self.halted = False
        self.rung = Rung.NONE
        self.history: list[list[Fact]] = []
        """The facts of each record."""
        for facts in history:
            for fact in facts:
                self.take(fact)
            self.history.append(facts)

    @property
    def records(self) -> int:
        """How many records were folded."""
        return len(self.history)

    def take(self, fact: Fact) -> None:
        """Fold one fact of the account at the venue, of the record that comes next."""
        seq = len(self.history)
        match fact:
            case Started():
                for key, quantity in fact.positions.items():
                    self.positions[key] = self.positions.get(key, ZERO) + quantity
            case Ordered(order=order):
                self.seq_of[order.id], self.orders[order.id] = seq, order
                self.open[order.id] = self.left[order.id] = order.quantity
            case Executed(fill=fill):
                self.fills[fill.id] = seq
                self.positions[fill.instrument] = self.positions.get(fill.instrument, ZERO) + fill.quantity
                self.unknown.discard(fill.order_id)
                if fill.order_id in self.left:
                    self.left[fill.order_id] -= fill.quantity
                if fill.order_id in self.open:
                    self.open[fill.order_id] -= fill.quantity
                    if not self.open[fill.order_id]:
                        del self.open[fill.order_id]
            case VenueSaid():
                self.said[fact.order_id, fact.what] = seq
                self.unknown.discard(fact.order_id)
                if fact.what in ENDS:
                    self.open.pop(fact.order_id, None)
                elif fact.what == "unknown" and fact.order_id in self.open:
                    self.unknown.add(fact.order_id)
            case Controlled(verb="halt"):
                self.halted = True
            case Controlled(verb="resume"):
                self.halted = False
            case Controlled() if fact.verb == PULL:
                self.rung = max(self.rung, read_pull(fact.argument)[0])
            case Controlled() if fact.verb == CLEAR:
                self.rung = Rung.NONE
            case _:
                return

    def worst(self, instrument: str) -> tuple[Decimal, Decimal]:
        """The least and greatest position that open orders can still make."""
        low = high = self.positions.get(instrument, ZERO)
        for order_id, left in self.open.items():
            if self.orders[order_id].instrument == instrument:
                low, high = low + min(left, ZERO), high + max(left, ZERO)
        return low, high


class Synced:
    """Whole records among the synced bytes of a disk, counted from the bytes themselves."""

    def __init__(self) -> None:
        self.at = len(MAGIC)
        self.records = -1  # the header is no record

    def look(self, data: bytes, size: int) -> int:
        """How many whole records the first `size` bytes hold."""
        while self.at + _HEAD.size <= size:
            length, crc = _HEAD.unpack_from(data, self.at)
            end = self.at + _HEAD.size + length + _LINK
            if end > size or zlib.crc32(data[self.at + _HEAD.size : self.at + _HEAD.size + length]) != crc:
                break
            self.at = end
            self.records += 1
        return max(self.records, 0)


class Watch:
    """Everything that must hold, over all daemons of a world."""

    def __init__(self, sim: Sim) -> None:
        self.broken: list[str] = []
        self._sim = sim
        self._stories: dict[int, Story] = {}
        self._history: list[list[Fact]] = []
        self._synced: dict[int, tuple[object, Synced]] = {}
        self._fills: dict[str, Fill] = {}
        self._arrived: dict[str, Order] = {}
        self._landmarks: dict[int, list[dict[str, Any]]] = {}
        """What the accounts were after so many records of the journal in use."""
        self.beside: list[list[Fact]] = []
        """The facts of the account beside the venue's, record by record."""
        self.beside: list[list[Fact]] = []
        """The facts of the account beside the venue's, record by record."""
        self._safe = 0
        """Records of the journal in use that a crash cannot take."""
        self._rng = sim.stream("watch")

    def broke(self, name: str, found: str) -> None:
        """Note that an invariant does not hold."""
        assert name in INVARIANTS, name
        if len(self.broken) < 20:
            self.broken.append(f"{name}: {found} [{self._sim.world.loop.time():.3f} s]")

    # ------------------------------------------------------------------ the record

    def begins(self, daemon: Daemon) -> None:
        """A daemon is about to open its journal."""
        self._synced.pop(daemon.number, None)

    def replayed(self, daemon: Daemon, step: Step) -> None:
        """A record was read at the start; both folds have taken it."""
        landmark = self._landmarks.get(step.seq + 1)
        if landmark is not None:
            self._sim.seen["recovery compared"] += 1
            self._compare("recovery differs", landmark, daemon.mirror, f"record {step.seq + 1}")

    def recovered(self, daemon: Daemon, records: int) -> None:
        """A daemon has read its journal to the end."""
        if records < self._safe:
            self.broke("durable record lost", f"{self._safe} records were safe, {records} are there")
        self._landmarks = {n: told_then for n, told_then in self._landmarks.items() if n <= records}
        self._stories[daemon.number] = story = Story(self._history[:records])
        self._history = story.history
        self._safe = records
        if records:
            self._compare("recovery differs", [told(a) for a in daemon.mirror], daemon.accounts, "the fold in use")

    def spied(self, daemon: Daemon, journal: LiveJournal) -> Spied:
        """The journal, watched."""
        return Spied(journal, self, daemon)

    def appended(self, daemon: Daemon, step: Step) -> None:
        """A record was made: judge its facts in their order, then fold them."""
        story = self._stories[daemon.number]
        if step.ts < story.last_ts:
            self.broke("time went back", f"record {step.seq} is of {step.ts}, the one before of {story.last_ts}")
        story.last_ts = step.ts
        for fact in step.facts:
            if fact.account == "dynamic":
                self._judge(daemon, story, fact)
                story.take(fact)
            elif isinstance(fact, VenueSaid) and fact.what == "unknown":
                self.broke("shadow touched", f"order {fact.order_id} of {fact.account} is in doubt")
            if isinstance(fact, Snapshotted):
                self._sim.seen["snapshot"] += 1
            elif isinstance(fact, Transferred):
                self._sim.seen["transfer"] += 1
            mirror = daemon.mirror[0 if fact.account == "dynamic" else 1]
            relive(mirror, fact, step.ts)
        self.beside.append([fact for fact in step.facts if fact.account == "shadow"])
        self.beside.append([fact for fact in step.facts if fact.account == "shadow"])
        story.history.append([fact for fact in step.facts if fact.account == "dynamic"])

    def story(self, daemon: Daemon) -> Story:
        """What the records of a daemon say."""
        return self._stories[daemon.number]

    def durable(self, daemon: Daemon) -> int:
        """Whole records on the synced part of a daemon's disk."""
        disk, reader = self._synced.setdefault(daemon.number, (daemon.disk, Synced()))
        if disk is not daemon.disk:
            reader = Synced()
            self._synced[daemon.number] = (daemon.disk, reader)
        count = reader.look(daemon.disk.view(), daemon.disk.synced)
        if daemon.disk is self._sim.disk:
            self._safe = max(self._safe, count)
        return count

    # ------------------------------------------------------------------ what a record says

    def _judge(self, daemon: Daemon, story: Story, fact: Fact) -> None:
        match fact:
            case Ordered(order=order):
                self._judge_order(daemon, story, order)
            case Executed(fill=fill):
                self._judge_fill(story, fill)
            case VenueSaid() if fact.what in ENDS:
                self._judge_end(story, fact)
            case Reconciled() if fact.differences and daemon is self._sim.daemon:  # one who lost the book finds many
                self.broke("false difference", f"{fact.differences}")
            case Controlled(verb="halt") if not fact.argument.startswith("halted by "):
                self.broke("halted by a fault", fact.argument)
            case _:
                return

    def _judge_order(self, daemon: Daemon, story: Story, order: Order) -> None:
        sim = self._sim
        from tests.simulation.world import STALE_AFTER  # noqa: PLC0415  the world imports this module

        limits = sim.defect.limits()

        if order.id in story.orders:
            self.broke("id reused", f"{order.id} was {story.orders[order.id]}, is {order}")
        if story.halted or story.rung >= Rung.CANCEL_ALL:
            self.broke("sent when halted", f"{order.id}: halted {story.halted}, rung {story.rung}")
        account = daemon.accounts[0]
        underlying = account.underlying_of(account.universe.get(order.instrument))
        for doubtful in story.unknown:
            other = account.universe.get(story.orders[doubtful].instrument)
            if account.underlying_of(other) == underlying:
                self.broke("hedged in doubt", f"{order.id} of {order.instrument} while {doubtful} is UNKNOWN")
        low, high = story.worst(order.instrument)
        after = high + order.quantity if order.quantity > 0 else low + order.quantity
        bound = limits.max_position or ZERO
        if abs(after) > bound and abs(after) > abs(after - order.quantity):
            self.broke("limit breached", f"{order.id}: worst case {after} of {order.instrument}, bound {bound}")
        if len(story.open) >= (limits.max_open_orders or 0):
            self.broke("limit breached", f"{order.id}: {len(story.open)} orders are open")
        if abs(order.quantity) > (limits.max_order_quantity or ZERO) and not order.quantity * after <= 0:
            self.broke("limit breached", f"{order.id}: quantity {order.quantity}")
        tick = daemon.ticks.get(order.instrument)
        if order.instrument in sim.street.mids and (
            tick is None or sim.machine.true() - tick > self._patience(daemon) * (STALE_AFTER + SECOND // 4)
        ):
            age = "never" if tick is None else f"{(sim.machine.true() - tick) / 1e9:.3f} s"
            self.broke("stale view", f"{order.id}: the last quote is {age} old")

    def _patience(self, daemon: Daemon) -> int:
        """2 while engine time may go at half its pace, behind a wall clock that a person set back; else 1."""
        return 2 if daemon.session.time.lags else 1

    def _judge_fill(self, story: Story, fill: Fill) -> None:
        if fill.id in story.fills:
            self.broke("fill twice", fill.id)
        true = self._true_fill(fill.id)
        if true is None or true != fill:
            self.broke("fill invented", f"{fill} for {true}")

    def _judge_end(self, story: Story, fact: VenueSaid) -> None:
        if fact.order_id not in story.open:
            return
        held = self._sim.venue.orders.get(fact.order_id)
        if held is not None and held.status == "accepted":
            self.broke("ended too soon", f"{fact.order_id} is {fact.what} ({fact.text}); the venue works it")
        if held is None and fact.order_id not in self._sim.venue.dead and not fact.text.startswith("never sent"):
            self.broke("ended too soon", f"{fact.order_id} is {fact.what} ({fact.text}); the venue never saw it")

    def _true_fill(self, fill_id: str) -> Fill | None:
        fills = self._sim.venue.fills
        for fill in fills[len(self._fills) :]:
            self._fills[fill.id] = fill
        return self._fills.get(fill_id)

    # ------------------------------------------------------------------ the line

    def order_leaves(self, daemon: Daemon, order: Order) -> None:
        """An order is handed to the line at this instant."""
        story = self._stories[daemon.number]
        seq = story.seq_of.get(order.id)
        if seq is None or seq >= self.durable(daemon):
            self.broke("sent before durable", f"{order.id}, record {seq}; {self.durable(daemon)} are durable")
        age = daemon.loop.now - order.ts
        if age > 5 * SECOND:
            self.broke("stale view", f"{order.id} is sent {age / 1e9:.3f} s after it was decided")

    def order_arrives(self, daemon: Daemon, order: Order, epoch: int) -> None:
        """An order arrives at the venue."""
        before = self._arrived.setdefault(order.id, order)
        if before != order:
            self.broke("id reused", f"{order.id}: {before} and {order}")
        holder = self._sim.holder
        if epoch >= self._sim.venue.epoch and holder is not None and daemon.number < holder.number:
            self.broke("old lease", f"{order.id} of daemon {daemon.number}; daemon {holder.number} has the book")

    def acknowledged(self, daemon: Daemon, event: VenueEvent) -> None:
        """A word of the venue is acknowledged at this instant."""
        story, safe = self._stories[daemon.number], self.durable(daemon)
        if isinstance(event, Filled):
            order_id, seq, what = event.fill.order_id, story.fills.get(event.fill.id), f"fill {event.fill.id}"
        else:
            word = type(event).__name__.lower()
            order_id, seq, what = event.order_id, story.said.get((event.order_id, word)), f"{word} {event.order_id}"
        if order_id in story.orders and (seq is None or seq >= safe):
            self.broke("acknowledged before durable", f"{what}, record {seq}; {safe} are durable")

    # ------------------------------------------------------------------ any instant

    def probe(self, daemon: Daemon) -> None:
        """Look at a daemon between two of its steps."""
        if daemon.process.dead or getattr(daemon, "session", None) is None:
            return
        self.durable(daemon)
        self._look_at_timers(daemon)
        if self._rng.random() < 0.25 and not any(a.pending for a in daemon.accounts):
            self._compare_fold(daemon)

    def _compare_fold(self, daemon: Daemon) -> None:
        self._sim.seen["fold compared"] += 1
        story, account = self._stories[daemon.number], daemon.accounts[0]
        self._compare("fold differs", [told(a) for a in daemon.mirror], daemon.accounts, f"record {story.records}")
        if set(story.open) != set(account.open_ids):
            lost = sorted(set(story.open) ^ set(account.open_ids))
            self.broke("tracking lost", f"{lost}: open by the record or by the account only")
        held = {key: q for key, q in account.ledger.quantities().items() if q}
        if held != {key: q for key, q in story.positions.items() if q}:
            self.broke("position", f"held {held}, opened and filled {story.positions}")
        if daemon is self._sim.daemon:
            self._landmarks[story.records] = [told(a) for a in daemon.accounts]

    def _compare(self, name: str, expected: list[dict[str, Any]], accounts: list[Account], where: str) -> None:
        for then, account in zip(expected, accounts, strict=True):
            now = told(account)
            if now != then:
                found = {key: (then[key], now[key]) for key in then if then[key] != now[key]}
                self.broke(name, f"{account.name} at {where}: {found}")

    def _look_at_timers(self, daemon: Daemon) -> None:
        """The strategy of timers must have been called one period after it was last called, or shortly after."""
        from tests.simulation.world import TURN  # noqa: PLC0415  the world imports this module

        session = daemon.session
        if (
            session.state not in {"READY", "HALTED"}
            or session.loop.started_at is None
            or daemon.rung_at is None
            or daemon.silent
        ):
            return
        late = self._sim.machine.true() - daemon.rung_at
        if late > self._patience(daemon) * TURN + 2 * SECOND and not self._sim.just_slept:
            self.broke("timer lost", f"not called for {late / 1e9:.3f} s, due after {TURN / 1e9:g} s")

    # ------------------------------------------------------------------ ends

    def stopped(self, daemon: Daemon) -> None:
        """A daemon ended by itself: its journal is whole, and the next one begins where it ended."""
        story = self._stories[daemon.number]
        if self.durable(daemon) < story.records and not daemon.disk.full and not daemon.disk.fault_rate:
            self.broke("durable record lost", f"stopped with {self.durable(daemon)} of {story.records} records durable")
        if daemon is self._sim.daemon:
            self._landmarks[story.records] = [told(a) for a in daemon.accounts]

    def crashed(self, daemon: Daemon) -> None:
        """A daemon died, and the disk lost what it could lose."""

    def forked(self, daemon: Daemon) -> None:
        """The book goes on with a copy of this daemon's disk."""
        self._safe = self.durable(daemon)

    def settled(self, daemon: Daemon) -> None:
        """The world has been calm for a while: everything must be known and agree."""
        sim, story, account = self._sim, self._stories[daemon.number], daemon.accounts[0]
        if not any(a.pending for a in daemon.accounts):
            self._compare_fold(daemon)
        doubtful = [i for i in account.open_ids if account.orders[i].status is OrderStatus.UNKNOWN]
        if doubtful:
            self.broke("left in doubt", f"{doubtful}")
        for found in daemon.accounts:
            if found.frozen or found.halted:
                name = "left in doubt" if found is account else "shadow touched"
                self.broke(name, f"{found.name}: frozen {found.frozen}, halted {found.halted!r}")
        if daemon.session.state != "READY":
            self.broke("left in doubt", f"state {daemon.session.state}: {daemon.session.why}")
        lost = [fill.id for fill in sim.venue.fills if fill.id not in story.fills]
        flying = [i for i in lost if sim.machine.true() - (self._true_fill(i) or sim.venue.fills[0]).ts < 3 * SECOND]
        if len(lost) > len(flying):
            self.broke("fill lost", f"{[i for i in lost if i not in flying]}")
        working = {i for i, held in sim.venue.orders.items() if held.status == "accepted"}
        for order_id in working - set(account.open_ids):
            self.broke("tracking lost", f"{order_id} is worked by the venue and unknown or over here")
        held = account.ledger.quantities()
        away = dict.fromkeys({*held, *sim.venue.positions}, ZERO)
        for opening in account.opened.items():
            away[opening[0][1]] = away.get(opening[0][1], ZERO) + opening[1]
        moving = {(self._true_fill(i) or sim.venue.fills[0]).instrument for i in flying}
        for key in away:
            ours, theirs = held.get(key, ZERO) - away[key], sim.venue.positions.get(key, ZERO)
            if ours != theirs and key not in moving:
                self.broke("position", f"{key}: {ours} traded by our books, {theirs} by the venue's")


__all__ = ["ALL", "INVARIANTS", "Spied", "Story", "Synced", "Unknown", "Watch", "told"]
