"""A strategy case is a strategy, the companions on its book and a world to run them in; its law is a tuple of checks.

    from bot.testing.strategies import CHECKS, Case, chain_world

    CASE = Case(make=lambda: [MyStrategy(...), DeltaHedger(...)], world=chain_world())

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_strategy_keeps_the_law(check):
        check(CASE)

The first strategy that `make` gives is the one examined; it is called anew for every run and must give equal strategies
each time. Without pytest, `broken_laws(case)` runs every check and returns what was broken. A broken law raises
AssertionError with a sentence; nothing here needs a test library. Every run is the engine's own loop, paper broker and
limits over a seeded world, so what is examined is what would trade.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import Amend, Control, Corporate, FeedEvent, Reference, Rejected, VenueEvent
from bot.core.ports import Capabilities, InLoopBroker, Strategy
from bot.core.quiet import FOREVER
from bot.domain.calendar import Sessions
from bot.domain.instruments import Index, Instrument, OptionContract, Spot, Universe, occ_id
from bot.domain.market import MarketView, Quote, QuoteBatch, Trade, TradeBatch
from bot.domain.orders import Order
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_MINUTE, NS_PER_YEAR, Nanos, nanos
from bot.engine.account import Account
from bot.engine.gate import GateSettings
from bot.engine.journal import (
    Adjusted,
    Alarmed,
    Ended,
    Executed,
    Fact,
    Header,
    JournalWriter,
    Ordered,
    Refused,
    Started,
    Step,
    TargetSet,
)
from bot.engine.limits import LimitSettings
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.shadows import Idle, Once
from bot.engine.valuation import Valuation, ValuationSettings
from bot.pricing import black
from bot.testing.contracts import hold

_F = TypeVar("_F", bound=Fact)

START: Final[Nanos] = nanos(datetime(2024, 1, 2, 15, 0, tzinfo=UTC))
STOCK: Final = Spot(id="US:UND", tick=Decimal("0.01"), lot=Decimal(1))
_HEADER: Final = Header(run_id="case", config_hash="", release="", durability="replay")
_NAN: Final = math.nan


# --------------------------------------------------------------------------- the world


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What a case runs in: instruments, everything that enters in order of receipt, and the settings of the rooms.

    `openings` are (book, instrument, contracts) held at the start; `dying` more of them, of contracts that end while the
    run goes on, which only the check of expiries opens. `tradable` are options that may be chosen, `needed` must have a
    price before anything begins; `sessions` are by calendar name, no table being always open. `names` are the instruments
    whose quotes the checks of bad quotes spoil (default: all).
    """

    instruments: tuple[Instrument, ...]
    events: tuple[FeedEvent, ...]
    start: Nanos = START
    end: Nanos | None = None
    openings: tuple[tuple[str, str, Decimal], ...] = ()
    dying: tuple[tuple[str, str, Decimal], ...] = ()
    needed: tuple[str, ...] = ()
    tradable: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    cash: Mapping[str, Decimal] = {}
    valuation: ValuationSettings = ValuationSettings(vol="implied")
    paper: PaperOptions = PaperOptions()
    sessions: Mapping[str, Sessions] = {}
    remark: Nanos = NS_PER_MINUTE
    report_grid: Nanos = NS_PER_MINUTE


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy to be examined: how to make it, the world it runs in, and what may be asked of it there.

    `trades` False: it may sit out this world (a check that it trades at all would say nothing). `stale_after` is the age of
    a quote past which it promises not to trade; None: it leaves that to the limit of the account.
    """

    make: Callable[[], Sequence[Strategy]]
    world: World
    trades: bool = True
    stale_after: Nanos | None = None
    cuts: int = 12
    """How many instants, spread over the run, it is restarted at; those before and after its first orders come on top."""


def chain_world(
    *,
    seed: int = 1,
    days: Sequence[float] = (1, 30, 60),
    strikes: Sequence[float] = (90, 95, 100, 105, 110),
    length: Nanos = 2 * NS_PER_DAY,
    step: Nanos = 30 * NS_PER_MINUTE,
    vol: float = 0.20,
    realised: float = 0.75,
    half: float = 0.05,
    size: float = 50.0,
    settlement: Literal["cash", "physical"] = "physical",
    book: str = "main",
    **settings: Any,
) -> World:
    """Listed calls and puts on a stock at 100 that walks for `length`, quoted every `step`; the first expiry is within it.

    Prices are Black-Scholes at a smile whose level wanders, quoted `half` (currency) either side; the stock walks at vol
    `realised` with one jump. Nothing is held; `dying` are a written call in the money and a bought put out of it that end
    with the first expiry. `settings` are fields of `World`.
    """
    rng = random.Random(seed)
    options = [_option(k, d, cp, settlement) for d in days for k in strikes for cp in (1, -1)]
    instruments: tuple[Instrument, ...] = (STOCK, *options)
    universe = Universe(instruments)
    events: list[FeedEvent] = []
    spot, level, rows = 100.0, vol, length // step
    for i in range(rows + 1):
        ts = START + i * step
        events.append(_snapshot(universe, options, ts, spot=round(spot, 2), vol=level, half=half, size=size))
        jump = -0.03 if i == rows // 2 else 0.0
        spot *= math.exp(jump + realised * math.sqrt(step / NS_PER_YEAR) * rng.gauss(0.0, 1.0))
        level = min(max(level * math.exp(0.02 * rng.gauss(0.0, 1.0)), 0.5 * vol), 2.0 * vol)
    first = sorted(options, key=lambda c: (c.expiry, c.cp, c.strike))
    written = next(c for c in first if c.cp == 1)
    bought = next(c for c in first if c.cp == -1)
    known: dict[str, Any] = {
        "instruments": instruments,
        "events": tuple(events),
        "end": START + length,
        "needed": (STOCK.id,),
        "tradable": tuple(c.id for c in options),
        "dying": ((book, written.id, Decimal(-2)), (book, bought.id, Decimal(3))),
        "cash": {"USD": Decimal(1_000_000)},
        "remark": step,
        "report_grid": step,
    }
    return World(**(known | settings))


def _option(strike: float, days: float, cp: Literal[1, -1], settlement: Literal["cash", "physical"]) -> OptionContract:
    expiry = START + round(days * NS_PER_DAY)
    return OptionContract(
        id=occ_id("UND", date(2024, 1, 2) + timedelta(days=int(days)), cp, Decimal(str(strike))),
        underlying=STOCK.id,
        cp=cp,
        strike=Decimal(str(strike)),
        style="european",
        settlement=settlement,
        multiplier=Decimal(100),
        tick=Decimal("0.01"),
        lot=Decimal(1),
        last_trade=expiry,
        expiry=expiry,
        settles=expiry,
    )


def _snapshot(
    universe: Universe,
    options: Sequence[OptionContract],
    ts: Nanos,
    *,
    spot: float,
    vol: float,
    half: float,
    size: float,
) -> QuoteBatch:
    """One instant: the stock and every option that lives, each quoted both sides."""
    rows: list[tuple[int, float, float]] = [(universe.index(STOCK.id), round(spot - 0.01, 2), round(spot + 0.01, 2))]
    for c in options:
        if c.expiry <= ts:
            continue
        tau, k = (c.expiry - ts) / NS_PER_YEAR, float(c.strike)
        sigma = vol + 0.05 * math.log(spot / k) + 0.2 * math.log(spot / k) ** 2
        middle = max(float(black.bsm(spot, k, tau, sigma, cp=c.cp).price), 0.02)
        bid = max(round(middle - half, 2), 0.01)
        rows.append((universe.index(c.id), bid, max(round(middle + half, 2), round(bid + 0.01, 2))))
    return _batch([(k, ts, bid, ask, size) for k, bid, ask in rows])


def _batch(rows: Sequence[tuple[int, Nanos, float, float, float]]) -> QuoteBatch:
    columns = list(zip(*rows, strict=True))
    ts = np.array(columns[1], dtype=np.int64)
    return QuoteBatch(
        instrument=np.array(columns[0], dtype=np.int32),
        ts_event=ts,
        ts_recv=ts,
        bid=np.array(columns[2], dtype=np.float64),
        ask=np.array(columns[3], dtype=np.float64),
        bid_size=np.array(columns[4], dtype=np.float32),
        ask_size=np.array(columns[4], dtype=np.float32),
    )


def moved(world: World, by: Nanos) -> World:
    """The same world earlier or later: every instant of its quotes, prints and contracts moved by one length.

    ValueError for a world of other events, of sessions or of instruments with dates of other kinds.
    """
    if world.sessions or not all(isinstance(e, QuoteBatch | TradeBatch | Quote | Trade) for e in world.events):
        raise ValueError("moved: expected a world of quotes and prints without sessions")
    if not all(isinstance(item, OptionContract | Spot | Index) for item in world.instruments):
        raise ValueError("moved: expected options, spots and indices alone")
    return msgspec.structs.replace(
        world,
        instruments=tuple(_later(item, by, ("last_trade", "expiry", "settles")) for item in world.instruments),
        events=tuple(_later(event, by, ("ts_event", "ts_recv")) for event in world.events),
        start=world.start + by,
        end=None if world.end is None else world.end + by,
    )


def _later(item: Any, by: Nanos, names: Sequence[str]) -> Any:
    known = {name: getattr(item, name) + by for name in names if hasattr(item, name)}
    if isinstance(item, QuoteBatch | TradeBatch):
        return type(item)(**{name: getattr(item, name) for name in item.__slots__} | known)
    return msgspec.structs.replace(item, **known) if known else item


# --------------------------------------------------------------------------- a run


class _Ear(JournalWriter):
    """A journal in memory that keeps its steps."""

    def __init__(self) -> None:
        super().__init__(None, _HEADER)
        self.steps: list[Step] = []

    def append(self, ts: Nanos, tape: int, facts: list[Fact]) -> None:
        self.steps.append(Step(seq=self.seq, ts=ts, tape=tape, facts=list(facts)))
        super().append(ts, tape, facts)


class Played:
    """A run that was played: its loop, its one account and the facts it left."""

    def __init__(
        self,
        world: World,
        strategies: Sequence[Strategy],
        *,
        checks: LimitSettings | None = None,
        broker: InLoopBroker | None = None,
        openings: Sequence[tuple[str, str, Decimal]] = (),
    ) -> None:
        self.world = world
        self.universe = Universe(world.instruments)
        marks = Marks(self.universe)
        valuation = Valuation(self.universe, marks, world.valuation)
        self.journal = _Ear()
        venue: InLoopBroker = PaperBroker(world.paper) if broker is None else broker
        venue.attach(self.universe, marks, "dynamic")
        self.account = Account(
            "dynamic",
            universe=self.universe,
            marks=marks,
            valuation=valuation,
            broker=venue,
            strategies=strategies,
            gate=None if checks is None else GateSettings(limits=checks),
            sessions=world.sessions,
        )
        for currency, amount in world.cash.items():
            self.account.ledger.book.add_cash(currency, amount)
        self.loop = Loop(
            settings=LoopSettings(
                start=world.start,
                end=world.end,
                begin="immediate",
                report_grid=world.report_grid,
                remark=world.remark,
            ),
            universe=self.universe,
            marks=marks,
            valuation=valuation,
            accounts=[self.account],
            openings=[Opening(book=b, instrument=i, quantity=q) for b, i, q in (*world.openings, *openings)],
            needed=world.needed,
            journal=self.journal,
            tradable=world.tradable,
        )

    def play(self, events: Sequence[FeedEvent | Control], *, finish: bool = True) -> Played:
        """Feed the events in order and, unless told not to, end the run."""
        for event in events:
            self.loop.take(event, "world")
        if finish:
            self.loop.finish()
        return self

    def restart(self, strategies: Sequence[Strategy]) -> None:
        """Put a fresh object in place of the strategy examined, as a restart would."""
        self.account.slots[0].restart(strategies[0])

    def stamped(self, kind: type[_F]) -> Iterator[tuple[Nanos, _F]]:
        """The facts of one kind with the instants of their steps, in order."""
        for step in self.journal.steps:
            for fact in step.facts:
                if isinstance(fact, kind):
                    yield step.ts, fact

    def facts(self, kind: type[_F]) -> list[_F]:
        """The facts of one kind, in order."""
        return [fact for _, fact in self.stamped(kind)]

    def faults(self) -> list[str]:
        """What strategies raised, and what their figures did."""
        return [f.alarm.text for f in self.facts(Alarmed) if f.alarm.code in {"strategy_fault", "figures"}]

    def held(self, instrument: str) -> Decimal:
        """Contracts the account holds of an instrument."""
        return self.account.ledger.book.quantity(instrument)


def play(
    case: Case,
    *,
    events: Sequence[FeedEvent | Control] | None = None,
    checks: LimitSettings | None = None,
    broker: InLoopBroker | None = None,
    openings: Sequence[tuple[str, str, Decimal]] = (),
    twin: type[Idle] | type[Once] | None = None,
) -> Played:
    """A case played from its first event to its end, or the events given instead of the world's."""
    made = list(case.make())
    strategies: list[Strategy] = made if twin is None else [twin(made[0]), *made[1:]]
    run = Played(case.world, strategies, checks=checks, broker=broker, openings=openings)
    return run.play(case.world.events if events is None else events)


def _calm(run: Played, where: str) -> Played:
    faults = run.faults()
    hold(not faults, f"{where}: {faults[0] if faults else ''}")
    hold(run.loop.started_at is not None, f"{where}: the world never began: {run.loop.not_ready}")
    return run


def _first_ts(event: FeedEvent | Control) -> Nanos:
    if isinstance(event, QuoteBatch | TradeBatch):
        return int(event.ts_recv[0])
    return event.ts_recv


# --------------------------------------------------------------------------- the laws


def check_it_trades_and_says_why(case: Case) -> None:
    """Left alone it trades, and each of its targets and orders carries a reason in words."""
    run = _calm(play(case), "left alone")
    name = case.make()[0].name
    targets = [f for f in run.facts(TargetSet) if f.strategy == name]
    if case.trades:
        hold(targets, f"{name} wanted nothing in this world: the checks would say nothing of it")
        hold(run.facts(Executed), f"{name} wanted something in this world and nothing was filled")
    for fact in targets:
        hold(fact.reason.strip(), f"a target of {name} on {fact.lines[0].instrument} without a reason")
        for line in fact.lines:
            hold(math.isfinite(line.unrounded), f"a target on {line.instrument} that was {line.unrounded} unrounded")
    for order in (f.order for f in run.facts(Ordered)):
        hold(order.reason.strip(), f"order {order.id} without a reason")


def check_the_same_world_gives_the_same_facts(case: Case) -> None:
    """Two runs of equal strategies are byte for byte the same."""
    hold(
        play(case).journal.chain == play(case).journal.chain,
        "two runs of one world differ: chance or the clock is used",
    )


def check_a_restart_changes_nothing(case: Case) -> None:
    """Restarted from its memory between any two events, it leaves the facts and the figures of the run undisturbed."""
    whole = _calm(play(case), "undisturbed")
    expected = [msgspec.json.encode(step.facts) for step in whole.journal.steps]
    for cut in _cuts(case, whole):
        run = Played(case.world, case.make()).play(case.world.events[:cut], finish=False)
        if run.loop.done or run.loop.started_at is None:
            continue
        run.restart(case.make())
        run.play(case.world.events[cut:])
        where = f"restarted before event {cut} of {len(case.world.events)}"
        _calm(run, where)
        found = [msgspec.json.encode(step.facts) for step in run.journal.steps]
        for i, (old, new) in enumerate(zip(expected, found, strict=False)):
            hold(old == new, f"{where}: step {i} was {old[:400].decode()}, is {new[:400].decode()}")
        hold(len(expected) == len(found), f"{where}: {len(expected)} steps became {len(found)}")
        old_figures, new_figures = whole.account.slots[0].figures, run.account.slots[0].figures
        hold(_plain(old_figures) == _plain(new_figures), f"{where}: figures were {old_figures}, are {new_figures}")


def _cuts(case: Case, whole: Played) -> list[int]:
    """Numbers of events before which to restart: spread over the run, and round the first targets of it."""
    n = len(case.world.events)
    spread = {1 + round(i * (n - 2) / max(case.cuts - 1, 1)) for i in range(case.cuts)}
    times = [_first_ts(event) for event in case.world.events]
    wanted = list(dict.fromkeys(ts for ts, _ in whole.stamped(TargetSet)))[:4]
    near = {int(np.searchsorted(times, ts)) + d for ts in wanted for d in (0, 1, 2)}
    return sorted(cut for cut in spread | near if 0 < cut < n)


def _plain(figures: Any) -> bytes:
    return msgspec.json.encode(figures, order="deterministic")


def check_figures_are_plain(case: Case) -> None:
    """Figures are tables of numbers that are finite, texts, or None for what is not known."""
    run = _calm(play(case), "figures")
    for title, rows in run.account.slots[0].figures.items():
        hold(isinstance(title, str) and title.strip(), f"a table titled {title!r}")
        for name, value in rows.items():
            known = value is None or isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))
            hold(known, f"figures: {title}: {name}: expected a finite number, a text or None, found {value!r}")


def check_a_halted_account_sends_nothing(case: Case) -> None:
    """Halted from the start or in the middle, nothing leaves until resumed; after that it goes on without a fault."""
    events, n = case.world.events, len(case.world.events)
    for first, last in ((0, n), (n // 3, n), (n // 3, 2 * n // 3)):
        halt = Control(ts_recv=_first_ts(events[first]), verb="halt", operator="test")
        told: list[FeedEvent | Control] = [*events[:first], halt, *events[first:last]]
        until = FOREVER
        if last < n:
            until = _first_ts(events[last])
            told += [Control(ts_recv=until, verb="resume", operator="test"), *events[last:]]
        run = _calm(play(case, events=told), f"halted from event {first} to {last}")
        sent = [ts for ts, _ in run.stamped(Ordered) if halt.ts_recv < ts < until]
        hold(not sent, f"halted from event {first} to {last}: {len(sent)} orders left")


def check_a_frozen_instrument_is_left_alone(case: Case) -> None:
    """While every instrument is halted by its venue nothing leaves; nor after a corporate event nobody could adjust for."""
    events, n = case.world.events, len(case.world.events)
    at = _first_ts(events[n // 3])
    halts = [Reference(ts_recv=at, what="halted", instrument=item.id) for item in case.world.instruments]
    unknown = [
        Corporate(ts_recv=at, what="unknown", instrument=item.id, adjusted=False, text="not known how")
        for item in case.world.instruments
        if not isinstance(item, OptionContract)
    ]
    plans: tuple[tuple[str, list[FeedEvent]], ...] = (("halted", [*halts]), ("unadjusted", [*unknown]))
    for word, said in plans:
        run = _calm(play(case, events=[*events[: n // 3], *said, *events[n // 3 :]]), word)
        hold(word == "halted" or run.facts(Adjusted), "the corporate event was not applied")
        sent = [order for ts, order in run.stamped(Ordered) if ts > at]
        hold(not sent, f"{word}: {len(sent)} orders left")


def check_limits_are_obeyed(case: Case) -> None:
    """Under tight limits every order that leaves is inside them or only reduces; with all restricted none leaves."""
    bound, most = Decimal(1), Decimal(2)
    run = play(case, checks=LimitSettings(max_order_quantity=bound, max_position=most, max_open_orders=1))
    _calm(run, "under tight limits")
    held: dict[str, Decimal] = {}
    for started in run.facts(Started):
        held |= started.positions
    for step in run.journal.steps:
        for fact in step.facts:
            if isinstance(fact, Executed):
                held[fact.fill.instrument] = held.get(fact.fill.instrument, Decimal(0)) + fact.fill.quantity
            elif isinstance(fact, Ended):
                held[fact.event.instrument] = run.held(fact.event.instrument)
            elif isinstance(fact, Ordered):
                order, before = fact.order, held.get(fact.order.instrument, Decimal(0))
                after = before + order.quantity
                reduces = abs(after) <= abs(before) and (after == 0 or (after > 0) == (before > 0))
                inside = abs(order.quantity) <= bound and abs(after) <= most
                hold(inside or reduces, f"order {order.id} of {order.quantity} from {before} passed the limits")
    names = tuple(item.id for item in case.world.instruments)
    shut = _calm(play(case, checks=LimitSettings(restricted=names)), "all restricted")
    hold(not shut.facts(Ordered), "an order left though everything was restricted")
    hold(shut.facts(Refused) or not case.trades, "expected refusals with everything restricted, found none")


def check_bad_quotes_are_survived(case: Case) -> None:
    """Missing, one-sided, crossed, silent and frozen quotes raise nothing, and no order leaves on a quote it cannot see."""
    for word, spoil in SPOILS.items():
        events = spoiled(case.world, spoil)
        run = _calm(play(case, events=events), f"quotes {word}")
        _expect_no_blind_order(case, run, events, word)


def _expect_no_blind_order(case: Case, run: Played, events: Sequence[FeedEvent], word: str) -> None:
    """Each order was sent on a two-sided quote, uncrossed and young enough; where there are only prints, on a print.

    An order that closes at the end of the session may wait at the venue for its quote.
    """
    seen: dict[int, tuple[Nanos, float, float]] = {}
    printed: set[int] = set()
    orders = [(ts, fact) for ts, fact in run.stamped(Ordered) if not fact.order.closing]
    place = 0
    for event in [*events, None]:
        now = FOREVER if event is None else _first_ts(event)
        while place < len(orders) and orders[place][0] < now:
            ts, fact = orders[place]
            place += 1
            k = run.universe.index(fact.order.instrument)
            if k not in seen and k in printed:
                continue
            quote_ts, bid, ask = seen.get(k, (NEVER, _NAN, _NAN))
            what = f"quotes {word}: order {fact.order.id} of {fact.order.instrument} ({fact.order.reason})"
            hold(bid <= ask, f"{what} left on bid {bid}, ask {ask}")
            if case.stale_after is not None:
                hold(ts - quote_ts <= case.stale_after, f"{what} left on a quote {(ts - quote_ts) / 1e9:.0f} s old")
        if event is not None:
            _note(run.universe, event, seen, printed)


def _note(universe: Universe, event: FeedEvent, seen: dict[int, tuple[Nanos, float, float]], printed: set[int]) -> None:
    match event:
        case QuoteBatch():
            rows = zip(event.instrument.tolist(), event.ts_recv.tolist(), event.bid, event.ask, strict=True)
            seen.update({k: (ts, float(bid), float(ask)) for k, ts, bid, ask in rows})
        case Quote():
            bid, ask = (_NAN if side is None else side for side in (event.bid, event.ask))
            seen[universe.index(event.instrument)] = (event.ts_recv, bid, ask)
        case Trade():
            printed.add(universe.index(event.instrument))
        case TradeBatch():
            printed.update(event.instrument.tolist())
        case _:
            return


class _Row(NamedTuple):
    """A quote of one instrument, where it stands in the run (0 to 1), and a number drawn for it."""

    bid: float
    ask: float
    place: float
    draw: float


def _never(row: _Row) -> tuple[float, float] | None:
    return None


def _one_sided(row: _Row) -> tuple[float, float] | None:
    return (row.bid if row.draw < 0.25 else _NAN, row.ask if row.draw > 0.25 else _NAN) if row.draw < 0.5 else row[:2]


def _withdrawn(row: _Row) -> tuple[float, float] | None:
    return (_NAN, _NAN) if row.place > 0.3 else row[:2]


def _crossed(row: _Row) -> tuple[float, float] | None:
    return (row.ask + 0.05, row.bid) if row.draw < 0.5 else row[:2]


def _silent(row: _Row) -> tuple[float, float] | None:
    return None if 0.3 < row.place < 0.8 else row[:2]


def _sparse(row: _Row) -> tuple[float, float] | None:
    return None if row.draw < 0.7 else row[:2]


def _frozen(row: _Row) -> tuple[float, float] | None:
    return (100.0, 100.0) if row.place > 0.5 else row[:2]


SPOILS: Final[Mapping[str, Callable[[_Row], tuple[float, float] | None]]] = {
    "never there": _never,
    "one-sided": _one_sided,
    "withdrawn for good": _withdrawn,
    "crossed": _crossed,
    "silent for half of the run": _silent,
    "sparse": _sparse,
    "all at one senseless price": _frozen,
}
"""What may happen to quotes: a row becomes another bid and ask (NaN: withdrawn), or None and is lost."""


def spoiled(world: World, spoil: Callable[[_Row], tuple[float, float] | None]) -> list[FeedEvent]:
    """The world's events with the quotes of its `names` spoiled, seeded; by default of all but what is `needed`.

    The first quote of what is held at the start is left as it is, or nothing would begin.
    """
    universe = Universe(world.instruments)
    names = world.names or tuple(item.id for item in world.instruments if item.id not in world.needed)
    chosen = {universe.index(name) for name in names}
    opened = {universe.index(key) for _, key, _ in world.openings}
    rng = random.Random(7)
    first = _first_ts(world.events[0])
    length = max(_first_ts(world.events[-1]) - first, 1)
    out: list[FeedEvent] = []
    for event in world.events:
        rows = _quote_rows(universe, event)
        if not rows:
            out.append(event)
            continue
        kept = []
        for k, ts, bid, ask, size in rows:
            if k not in chosen:
                kept.append((k, ts, bid, ask, size))
                continue
            draw = rng.random()
            if k in opened:
                opened.discard(k)
                kept.append((k, ts, bid, ask, size))
                continue
            sides = spoil(_Row(bid, ask, (ts - first) / length, draw))
            if sides is not None:
                kept.append((k, ts, *sides, size))
        if kept:
            out.append(_batch(kept))
    return out


def _quote_rows(universe: Universe, event: FeedEvent) -> list[tuple[int, Nanos, float, float, float]]:
    if isinstance(event, Quote):
        bid, ask, size = (_NAN if x is None else x for x in (event.bid, event.ask, event.bid_size))
        return [(universe.index(event.instrument), event.ts_recv, bid, ask, size)]
    if not isinstance(event, QuoteBatch):
        return []
    columns = (event.instrument, event.ts_recv, event.bid, event.ask, event.bid_size)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def check_expiry_leaves_no_ghost(case: Case) -> None:
    """What expires or is assigned while the run goes on is gone from the book, and is neither wanted nor ordered again."""
    run = _calm(play(case, openings=case.world.dying), "with options that end")
    ends = {item.id: item.expiry for item in case.world.instruments if isinstance(item, OptionContract)}
    if case.world.dying:
        hold(run.facts(Ended), "expected the options of `dying` to end within the run, found no end of any")
    for ts, target in run.stamped(TargetSet):
        for line in target.lines:
            dead = ends.get(line.instrument, FOREVER) <= ts
            hold(not dead, f"{line.instrument} is wanted after its end: {target.reason}")
    for ts, ordered in run.stamped(Ordered):
        hold(ends.get(ordered.order.instrument, FOREVER) > ts, f"{ordered.order.instrument} is ordered after its end")
    for fact in run.facts(Ended):
        hold(not run.held(fact.event.instrument), f"{fact.event.instrument} ended and is still held")
    left = [run.account.orders[i].order.instrument for i in run.account.open_ids]
    hold(not [key for key in left if ends.get(key, FOREVER) <= run.loop.now], "an order in an ended option is open")


class RefusingVenue:
    """A venue that takes every order and rejects it a second later."""

    def __init__(self) -> None:
        self.capabilities = Capabilities(name="refusing", in_loop=True)
        self._said: list[Rejected] = []
        self.taken: list[Order] = []

    @property
    def watching(self) -> bool:
        """It looks at nothing."""
        return False

    def attach(self, universe: Universe, market: MarketView, account: str) -> None:
        """Serves whoever asks."""

    def accept(self, order: Order, now: Nanos) -> None:
        """Takes the order, to reject it."""
        self.taken.append(order)
        at = now + 1_000_000_000
        self._said.append(
            Rejected(ts_recv=at, account=order.account, order_id=order.id, code="closed", text="not today")
        )

    def drop(self, order_id: str, now: Nanos, reason: str) -> None:
        """It is rejected anyway."""

    def change(self, amend: Amend, now: Nanos) -> None:
        """It is rejected anyway."""

    def on_instant(self, now: Nanos) -> None:
        """Nothing to look at."""

    def next_due(self) -> Nanos:
        """When the next rejection is heard."""
        return min((said.ts_recv for said in self._said), default=FOREVER)

    def take_due(self, now: Nanos) -> list[VenueEvent]:
        """The rejections due by now."""
        due = [said for said in self._said if said.ts_recv <= now]
        self._said = [said for said in self._said if said.ts_recv > now]
        return list(due)


def check_a_refusing_venue_is_survived(case: Case) -> None:
    """Where every order is rejected nothing raises, nothing is held, and an instrument is ordered once an instant at most."""
    venue = RefusingVenue()
    run = _calm(play(case, broker=venue), "with a venue that refuses")
    hold(venue.taken or not case.trades, "expected it to try, found no order")
    hold(not run.facts(Executed), "a fill from a venue that refuses")
    pairs = [(order.ts, order.instrument) for order in venue.taken]
    hold(len(pairs) == len(set(pairs)), "two orders in one instrument at one instant")


def check_a_slow_thin_venue_is_survived(case: Case) -> None:
    """With orders that arrive late and fill a few contracts at a time nothing raises, and nothing is bought twice.

    Held and working together never exceed what the books of the account wanted.
    """
    paper = msgspec.structs.replace(
        case.world.paper, latency=5 * NS_PER_MINUTE, report_latency=NS_PER_MINUTE, beyond="partial"
    )
    thin = msgspec.structs.replace(case.world, paper=paper)
    slow = msgspec.structs.replace(case, world=thin)
    run = _calm(play(slow), "with a slow, thin venue")
    wanted: dict[tuple[str, str], Decimal] = {}
    for step in run.journal.steps:
        for fact in step.facts:
            if isinstance(fact, TargetSet):
                wanted |= {(fact.book, line.instrument): line.quantity for line in fact.lines}
            elif isinstance(fact, Ordered):
                asked = [wanted.get((a.book, fact.order.instrument)) for a in fact.order.allocations]
                hold(None not in asked, f"order {fact.order.id} was sent though no book wanted it")
    for order_id, state in run.account.orders.items():
        over = abs(state.filled) - abs(state.order.quantity)
        hold(over <= 0, f"order {order_id} was filled beyond its quantity")


def check_its_twins_hold_still(case: Case) -> None:
    """In account `none` it wants nothing; in `static` it acts at one instant and, at most, once more at the close."""
    name = case.make()[0].name
    idle = _calm(play(case, twin=Idle), "as none")
    hold(not [f for f in idle.facts(TargetSet) if f.strategy == name], "its idle twin wanted something")
    once = _calm(play(case, twin=Once), "as static")
    ended = once.loop.ended_at
    acted = {ts for ts, f in once.stamped(TargetSet) if f.strategy == name and ts != ended}
    hold(len(acted) <= 1, f"its static twin acted at {len(acted)} instants")


CHECKS: Final[tuple[Callable[[Case], None], ...]] = (
    check_it_trades_and_says_why,
    check_the_same_world_gives_the_same_facts,
    check_a_restart_changes_nothing,
    check_figures_are_plain,
    check_a_halted_account_sends_nothing,
    check_a_frozen_instrument_is_left_alone,
    check_limits_are_obeyed,
    check_bad_quotes_are_survived,
    check_expiry_leaves_no_ghost,
    check_a_refusing_venue_is_survived,
    check_a_slow_thin_venue_is_survived,
    check_its_twins_hold_still,
)
"""Every law of a strategy."""


def broken_laws(case: Case) -> dict[str, str]:
    """Each check that found a law broken, and the sentence it said."""
    found: dict[str, str] = {}
    for check in CHECKS:
        try:
            check(case)
        except AssertionError as broken:
            found[check.__name__] = str(broken)
    return found
