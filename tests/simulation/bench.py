"""A bench is a small run wired by hand: a few instruments, scripted strategies, an in-memory journal that keeps its steps.

Law: nothing here decides anything; what a test sees is what the loop did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeVar

import numpy as np

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import FeedEvent, Target, TargetLine
from bot.core.ports import Broker, Hedge, HedgePolicy, InLoopBroker, Strategy, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.domain.calendar import Sessions
from bot.domain.instruments import Future, Instrument, OptionContract, Spot, Universe, occ_id
from bot.domain.market import Quote, QuoteBatch, Trade, TradeBatch
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND, Nanos, nanos
from bot.engine import limits
from bot.engine.account import Account
from bot.engine.gate import GateSettings
from bot.engine.journal import Alarmed, Fact, Header, JournalWriter, Step
from bot.engine.ledger import Pnl
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.valuation import Valuation, ValuationSettings
from strategies.delta_hedger import DeltaHedger

D = Decimal
START: Nanos = nanos(datetime(2024, 1, 2, 15, 0, tzinfo=UTC))
SECOND, MINUTE, DAY = NS_PER_SECOND, NS_PER_MINUTE, NS_PER_DAY
STOCK = Spot(id="US:UND", tick=D("0.01"), lot=D(1))
FIXED = ValuationSettings(vol="fixed", vol_value=0.20)
BY_MODEL = FIXED
IMPLIED = ValuationSettings(vol="implied")
HEADER = Header(run_id="bench", config_hash="", release="", durability="replay")

_F = TypeVar("_F", bound=Fact)


def option(
    strike: float = 100,
    *,
    days: float = 30,
    cp: Literal[1, -1] = 1,
    settlement: Literal["cash", "physical"] = "cash",
    underlying: str = STOCK.id,
    root: str = "UND",
    multiplier: int = 100,
    currency: str = "USD",
    settles_after: Nanos = 0,
) -> OptionContract:
    """A European option that expires `days` after the start."""
    expiry = START + round(days * DAY)
    return OptionContract(
        id=occ_id(root, date(2024, 1, 2) + timedelta(days=int(days)), cp, D(str(strike))),
        underlying=underlying,
        cp=cp,
        strike=D(str(strike)),
        style="european",
        settlement=settlement,
        multiplier=D(multiplier),
        lot=D(1),
        currency=currency,
        last_trade=expiry,
        expiry=expiry,
        settles=expiry + settles_after,
    )


def future(name: str = "CME:ESH2024", *, multiplier: int = 50, days: int = 60) -> Future:
    """A dated future."""
    return Future(id=name, tick=D("0.25"), lot=D(1), multiplier=D(multiplier), expiry=START + days * DAY)


def quote(
    instrument: str,
    at: Nanos,
    bid: float | None,
    ask: float | None,
    *,
    sizes: tuple[float, float] | None = None,
) -> Quote:
    """A quote `at` nanoseconds after the start."""
    bid_size, ask_size = sizes if sizes is not None else (None, None)
    ts = START + at
    return Quote(instrument=instrument, ts_event=ts, ts_recv=ts, bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size)


def batch(universe: Universe, quotes: Sequence[Quote]) -> QuoteBatch:
    """Quotes as columns."""
    nan = float("nan")

    def column(values: Sequence[float | None], kind: Any) -> Any:
        return np.array([nan if v is None else v for v in values], dtype=kind)

    ts = np.array([q.ts_recv for q in quotes], dtype=np.int64)
    return QuoteBatch(
        instrument=np.array([universe.index(q.instrument) for q in quotes], dtype=np.int32),
        ts_event=ts,
        ts_recv=ts,
        bid=column([q.bid for q in quotes], np.float64),
        ask=column([q.ask for q in quotes], np.float64),
        bid_size=column([q.bid_size for q in quotes], np.float32),
        ask_size=column([q.ask_size for q in quotes], np.float32),
    )


def trade_batch(universe: Universe, trades: Sequence[Trade]) -> TradeBatch:
    """Prints as columns."""
    ts = np.array([t.ts_recv for t in trades], dtype=np.int64)
    return TradeBatch(
        instrument=np.array([universe.index(t.instrument) for t in trades], dtype=np.int32),
        ts_event=ts,
        ts_recv=ts,
        price=np.array([t.price for t in trades], dtype=np.float64),
        size=np.full(len(trades), np.nan, dtype=np.float32),
    )


class Ear(JournalWriter):
    """A journal in memory that keeps its steps."""

    def __init__(self) -> None:
        super().__init__(None, HEADER)
        self.steps: list[Step] = []

    def append(self, ts: Nanos, tape: int, facts: list[Fact]) -> None:
        self.steps.append(Step(seq=self.seq, ts=ts, tape=tape, facts=list(facts)))
        super().append(ts, tape, facts)


class Script:
    """A strategy that asks for given holdings at given instants after the start, and notes when it is called."""

    def __init__(
        self,
        plan: Sequence[tuple[Nanos, str, int | str]] = (),
        *,
        book: str = "main",
        name: str = "script",
        ticks: bool = False,
        watches: Sequence[str] = (STOCK.id,),
        target: Mapping[str, Any] | None = None,
        raises: Mapping[str, Exception] | None = None,
        box: Callable[[StrategyView], QuietBox | None] | None = None,
        on_wake: Callable[[StrategyView], Sequence[Target]] | None = None,
    ) -> None:
        self.name, self.book = name, book
        self.plan = list(plan)
        self.calls: list[tuple[str, Nanos, float]] = []
        self._ticks, self._watches = ticks, tuple(watches)
        self._target = dict(target or {})
        self._raises = dict(raises or {})
        self._box, self._on_wake = box, on_wake

    def _note(self, what: str, view: StrategyView) -> None:
        self.calls.append((what, view.now - START, view.market.mid(view.universe.index(self._watches[0]))))
        if what in self._raises:
            raise self._raises[what]

    def start(self, view: StrategyView) -> Sequence[Target]:
        self._note("start", view)
        for number, (at, _, _) in enumerate(self.plan):
            if at:
                view.wake_at(START + at, str(number))
        return [self.want(i, q) for at, i, q in self.plan if not at]

    def wake(self, view: StrategyView) -> Sequence[Target]:
        self._note("wake", view)
        return self._on_wake(view) if self._on_wake is not None else ()

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        self._note("timer", view)
        _, instrument, quantity = self.plan[int(name)]
        return [self.want(instrument, quantity)]

    def stop(self, view: StrategyView) -> Sequence[Target]:
        self._note("stop", view)
        return ()

    def quiet(self, view: StrategyView) -> QuietBox | None:
        self._raise_if_told("quiet")
        if self._box is not None:
            return self._box(view)
        return None if self._ticks else UNTIL_TIMER

    def watches(self) -> Sequence[str]:
        return self._watches

    def trades(self) -> Sequence[str]:
        return self._watches

    def want(self, instrument: str, quantity: int | str) -> Target:
        """The target of holding `quantity` of an instrument."""
        line = TargetLine(instrument, D(quantity), float(quantity))
        return Target(book=self.book, lines=(line,), reason="scripted", **self._target)

    def _raise_if_told(self, what: str) -> None:
        if what in self._raises:
            raise self._raises[what]


class Bench:
    """One hand-wired run."""

    def __init__(
        self,
        strategies: Mapping[str, Sequence[Strategy]] | Sequence[Strategy],
        *,
        instruments: Sequence[Instrument] = (STOCK,),
        openings: Sequence[tuple[str, int]] = (),
        books: Mapping[str, str] | None = None,
        marks_in: Mapping[str, Decimal] | None = None,
        paper: PaperOptions | None = None,
        broker: InLoopBroker | Broker | None = None,
        valuation: ValuationSettings = FIXED,
        checks: limits.LimitSettings | None = None,
        gate: GateSettings | None = None,
        needed: Sequence[str] = (STOCK.id,),
        tradable: Sequence[str] = (),
        sessions: Mapping[str, Sessions] | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.universe = Universe(instruments)
        self.marks = Marks(self.universe)
        self.valuation = Valuation(self.universe, self.marks, valuation)
        self.journal = Ear()
        plans = strategies if isinstance(strategies, Mapping) else {"dynamic": strategies}
        self.accounts: list[Account] = []
        for name, chosen in plans.items():
            venue: InLoopBroker | Broker = PaperBroker(paper or PaperOptions(), seed=seed)
            if broker is not None and name == "dynamic":
                venue = broker
            if isinstance(venue, InLoopBroker):
                venue.attach(self.universe, self.marks, name)
            account = Account(
                name,
                universe=self.universe,
                marks=self.marks,
                valuation=self.valuation,
                broker=venue,
                strategies=chosen,
                gate=gate if checks is None else GateSettings(limits=checks),
                sessions=sessions,
            )
            self.accounts.append(account)
        self.account = self.accounts[0]
        known: dict[str, Any] = {"start": START, "begin": "immediate"} | settings
        self.loop = Loop(
            settings=LoopSettings(**known),
            universe=self.universe,
            marks=self.marks,
            valuation=self.valuation,
            accounts=self.accounts,
            openings=[
                Opening(
                    book=(books or {}).get(key, "main"),
                    instrument=key,
                    quantity=D(q),
                    mark=(marks_in or {}).get(key),
                )
                for key, q in openings
            ],
            needed=needed,
            journal=self.journal,
            tradable=tradable,
        )

    def play(self, events: Sequence[FeedEvent], *, finish: bool = True) -> Bench:
        """Feed the events in order and, unless told not to, end the run."""
        for event in events:
            self.loop.take(event, "bench")
        if finish:
            self.loop.finish()
        return self

    def facts(self, kind: type[_F], account: str = "dynamic") -> list[_F]:
        """The facts of one kind of one account, in order."""
        return [f for s in self.journal.steps for f in s.facts if isinstance(f, kind) and f.account == account]

    def when(self, kind: type[Fact]) -> list[Nanos]:
        """The instants after the start at which facts of one kind were recorded."""
        return [s.ts - START for s in self.journal.steps for f in s.facts if isinstance(f, kind)]

    def alarms(self) -> list[str]:
        """Codes of the alarms, in order."""
        return [f.alarm.code for s in self.journal.steps for f in s.facts if isinstance(f, Alarmed)]

    def held(self, instrument: str = STOCK.id) -> Decimal:
        """What the first account holds of an instrument."""
        return self.account.ledger.book.quantity(instrument)

    def pnl(self, account: Account | None = None) -> Pnl:
        """The P&L of an account now."""
        chosen = account if account is not None else self.account
        found = chosen.ledger.pnl(lambda key: self.valuation.mark(key, self.loop.now), self.loop.convert)
        assert found is not None
        return found


OF_THE_HEDGER = ("book", "name", "fallback", "overnight", "halt")


def hedger(policy: HedgePolicy, *, underlying: str = STOCK.id, instrument: str = STOCK.id, **rest: Any) -> DeltaHedger:
    """A delta hedger of one underlying; keywords of `Hedge` go to it, the others to the hedger."""
    own = {key: rest.pop(key) for key in OF_THE_HEDGER if key in rest}
    return DeltaHedger(hedges=[Hedge(underlying=underlying, instrument=instrument, **rest)], policy=policy, **own)


def minutes(
    prices: Sequence[float], *, instrument: str = STOCK.id, half: float = 0.01, step: Nanos = MINUTE
) -> list[Quote]:
    """One two-sided quote a step around each price, the first at the start."""
    return [quote(instrument, i * step, round(p - half, 6), round(p + half, 6)) for i, p in enumerate(prices)]
