"""The delta hedger keeps the net delta of a book of options at a target by trading one hedge instrument per underlying.

Law: it acts only through targets; an unknown Greek is a fault with an alarm and a stated fallback, never a silent stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, cast

import msgspec

from bot.core.events import Alarm, Evidence, Target, TargetLine
from bot.core.hedge_cost import EstimatedHedge
from bot.core.pauses import HOLD, Pausing, SeesPauses, shrunk
from bot.core.ports import Band, BandInput, Hedge, HedgePlan, HedgePolicy, LegInput, StrategyView
from bot.core.quiet import ANY_PRICE, FOREVER, NO_PRICE, UNTIL_TIMER, QuietBox, Renewal
from bot.domain.calendar import Pause
from bot.domain.instruments import Instrument, Perpetual
from bot.domain.orders import QuoteRef
from bot.domain.units import NEVER, NS_PER_MINUTE, NS_PER_YEAR, Nanos, iso
from bot.pricing.room import Extent
from strategies.policies.calm import Bounded, Seen, calm
from strategies.policies.decide import Decision, decide
from strategies.policies.reach import Reach, reach_of, within_reach

LOOK_AGAIN: Final[Nanos] = NS_PER_MINUTE
"""How long a rule that acts once waits when it could not act."""
VOL_MOVED: Final = 0.05
"""A leg's vol that has moved by more than this share is another problem to solve."""
COST_MOVED: Final = 0.10
"""So is a cost that has moved by more than this share."""
NEAR: Final = "a pause is near"
OVER: Final = "a pause is over"
DEVIATIONS_MOVED: Final = 3.0
"""So is a price further than this from the plan's, in deviations to the last expiry."""


class LegsInView(Bounded, Protocol):
    """The legs behind `net_delta`, one by one. Law: at an instant they are what it sums."""

    linear: float
    rate: float

    @property
    def version(self) -> int:
        """A number that changes when a vol does."""

    def __len__(self) -> int: ...
    def holding(self) -> tuple[tuple[str, float], ...]: ...
    def ratio(self) -> float: ...
    def spot(self) -> float: ...
    def ends(self, now: Nanos) -> tuple[Nanos, ...]: ...
    def at(self, now: Nanos, *, cost: float) -> LegInput: ...
    def terms(self, now: Nanos) -> tuple[float, float]: ...
    def plan(self, now: Nanos, *, cost: float, fixed_cost: float, lot: float, per_contract: float) -> HedgePlan: ...


class SeesLegs(Protocol):
    """A view that can show them; the same object until the holding changes."""

    def legs(self, underlying: str) -> LegsInView: ...


class ToTheHedge:
    """The rule of a book with no option left: hold the exact hedge."""

    name = "no options left"
    interval: Nanos | None = None
    needs_ticks = True
    needs_terms = False
    needs_last = False

    def band(self, x: BandInput) -> Band:
        """A point. Shape: as `x.want`."""
        return Band(x.want, x.want)


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of one underlying's hedge over a restart: what no market shows and no rule can work out again.

    `named` is the underlying as configured, `underlying` and `instrument` what they are called now; `unknown` are the legs
    of the plan whose vol was not known.
    """

    named: str
    underlying: str
    instrument: str
    last_ts: Nanos = NEVER
    last_spot: float | None = None
    alarmed: str = ""
    cost: float | None = None
    version: int = -1
    holding: tuple[tuple[str, float], ...] = ()
    plan: HedgePlan | None = None
    unknown: tuple[int, ...] = ()
    ends: tuple[Nanos, ...] = ()
    pause: Pause | None = None
    stopped: bool = False
    reopens: Nanos = NEVER
    resumed: Nanos = NEVER
    heard: Nanos = NEVER
    after_halt: bool = False
    exact_due: bool = False


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a delta hedger goes on from."""

    hedges: tuple[Kept, ...]
    traded: tuple[str, ...] = ()
    look_again: Nanos = NEVER


class _State:
    """What is remembered of one underlying between decisions."""

    __slots__ = (
        "after_halt",
        "alarmed",
        "calm",
        "column",
        "cost",
        "cost_scale",
        "direct",
        "ends",
        "exact_due",
        "gamma",
        "heard",
        "hedge",
        "holding",
        "instrument",
        "last_delta",
        "last_spot",
        "last_ts",
        "legs",
        "lot",
        "multiplier",
        "named",
        "near",
        "pause",
        "plain",
        "plan",
        "plan_spots",
        "reach",
        "reopens",
        "resumed",
        "rule",
        "shape",
        "stays",
        "stopped",
        "terms",
        "under",
        "version",
    )

    def __init__(self, named: str, hedge: Hedge, instrument: Instrument, column: int, under: int) -> None:
        self.named = named
        self.hedge = hedge
        self.instrument = instrument
        self.column = column
        self.under = under
        self.lot = hedge.lot if hedge.lot is not None else instrument.lot
        self.multiplier = float(instrument.multiplier)
        inverse = isinstance(instrument, Perpetual) and instrument.inverse
        self.direct = hedge.beta is None and not inverse
        self.plain = self.direct and not isinstance(hedge.target_delta, tuple)
        self.calm: Extent | None = None
        self.last_ts: Nanos = NEVER
        self.last_spot = math.nan
        self.last_delta = math.nan
        self.alarmed = ""
        self.rule: HedgePolicy | None = None
        self.stays: Callable[[float, float, float], bool] | None = None
        self.shape: Callable[[LegInput], Any] | None = None
        self.cost = hedge.cost
        self.cost_scale = 1.0 if hedge.beta is None else 1.0 / abs(hedge.beta)
        self.gamma = math.nan
        self.terms = (math.nan, math.nan)
        self.legs: LegsInView | None = None
        self.version = -1
        self.reach = Reach(-math.inf, math.inf)
        self.plan: HedgePlan | None = None
        self.ends: tuple[Nanos, ...] = ()
        self.plan_spots = (-math.inf, math.inf)
        self.holding: tuple[tuple[str, float], ...] = ()
        self.pause: Pause | None = None
        self.stopped = self.near = self.after_halt = self.exact_due = False
        self.reopens: Nanos = NEVER
        self.resumed: Nanos = NEVER
        self.heard: Nanos = NEVER

    def stop(self, pause: Pause) -> None:
        """Nothing can be traded, or could until just now."""
        self.stopped, self.after_halt, self.reopens, self.near = True, pause.halt, pause.end, False

    def of_pauses(self) -> tuple[object, ...]:
        """All that pauses have left in it."""
        return (
            self.pause, self.stopped, self.reopens, self.resumed, self.heard, self.after_halt, self.exact_due,
        )  # fmt: skip

    def kept(self, *, with_last: bool) -> Kept:
        """What of it is written down."""
        plan = self.plan
        unknown = () if plan is None else tuple(i for i, vol in enumerate(plan.vol) if math.isnan(vol))
        if plan is not None and unknown:
            plan = msgspec.structs.replace(plan, vol=tuple(0.0 if math.isnan(vol) else vol for vol in plan.vol))
        return Kept(
            named=self.named,
            underlying=self.hedge.underlying,
            instrument=self.instrument.id,
            last_ts=self.last_ts if with_last else NEVER,
            last_spot=_known(self.last_spot) if with_last else None,
            alarmed=self.alarmed,
            cost=_known(self.cost),
            version=self.version,
            holding=self.holding,
            plan=plan,
            unknown=unknown,
            ends=self.ends,
            pause=self.pause,
            stopped=self.stopped,
            reopens=self.reopens,
            resumed=self.resumed,
            heard=self.heard,
            after_halt=self.after_halt,
            exact_due=self.exact_due,
        )

    def resume(self, kept: Kept) -> None:
        """Take over what was written down; the rule and the legs are for the hedger to find again."""
        self.last_ts = kept.last_ts
        self.last_spot = _number(kept.last_spot)
        self.alarmed = kept.alarmed
        self.cost = _number(kept.cost)
        self.version, self.holding, self.ends = kept.version, kept.holding, kept.ends
        self.pause, self.stopped = kept.pause, kept.stopped
        self.reopens, self.resumed, self.heard = kept.reopens, kept.resumed, kept.heard
        self.after_halt, self.exact_due = kept.after_halt, kept.exact_due
        plan = kept.plan
        if plan is not None:
            blank = set(kept.unknown)
            vols = tuple(math.nan if i in blank else vol for i, vol in enumerate(plan.vol))
            self.plan = msgspec.structs.replace(plan, vol=vols)
            self.plan_spots = planned_spots(self.plan)

    def has_left(self, legs: LegsInView) -> bool:
        """True when the price is no longer one the rule was made for."""
        if self.plan is None:
            return False
        lo, hi = self.plan_spots
        return not lo <= legs.spot() <= hi

    def take(self, rule: HedgePolicy) -> None:
        """Trade by this rule from now on."""
        self.rule = rule
        self.stays = getattr(rule, "stays", None)
        self.shape = getattr(rule, "leg_deltas", None)


class DeltaHedger:
    """One policy over any number of underlyings of one book. Implements `Strategy`."""

    def __init__(
        self,
        *,
        hedges: Sequence[Hedge],
        policy: HedgePolicy,
        book: str = "main",
        name: str = "delta_hedger",
        fallback: Literal["last", "hold"] = "last",
        overnight: Pausing | Mapping[str, Any] = HOLD,
        halt: Pausing | Mapping[str, Any] = HOLD,
    ) -> None:
        if not hedges:
            raise ValueError("delta_hedger: expected at least one [[hedges]] entry, found none")
        self.name = name
        self.overnight = overnight if isinstance(overnight, Pausing) else Pausing(**overnight)
        self.halt = halt if isinstance(halt, Pausing) else Pausing(**halt)
        self.book = book
        self.policy = policy
        self.hedges = list(hedges)
        self.fallback = fallback
        self._interval: Nanos | None = getattr(policy, "interval", None)
        self._prepare: Callable[[HedgePlan], HedgePolicy] | None = None
        self._needs_terms = self._bounded = self._needs_legs = False
        self._needs_ticks: bool = getattr(policy, "needs_ticks", True)
        self._slack: Callable[[float, float, float], float] | None = None
        self._steady = False
        self._states: list[_State] = []
        self._plans_pauses = self.overnight != HOLD or self.halt != HOLD
        self._needs_last: bool = getattr(policy, "needs_last", True)
        self._named = [hedge.underlying for hedge in self.hedges]
        self._changed = False
        self._look_again: Nanos = NEVER
        self._traded: set[str] = set()

    # ------------------------------------------------------------------ the Strategy protocol

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The opening hedge."""
        self._learn_needs()
        self._meet(view)
        if self._interval is not None:
            view.wake_at(view.now + self._interval, "hedge")
        return self._decide_all(view)

    def _meet(self, view: StrategyView) -> None:
        """A blank state for each hedge, on the rule as configured."""
        self._states = [
            _State(
                named,
                hedge,
                view.universe.get(hedge.instrument),
                view.universe.index(hedge.instrument),
                view.universe.index(hedge.underlying),
            )
            for named, hedge in zip(self._named, self.hedges, strict=True)
        ]
        for state in self._states:
            state.take(self.policy)

    def restore(self, view: StrategyView, memory: bytes) -> None:
        """Go on from what was written down: implements `Restores`. A hedge it does not name begins anew.

        Plans are solved again, to the same rule. A delta that is unknown now is taken to be the one that the present hedge
        was made for: which it was is not written down at every quote.
        """
        found = msgspec.json.decode(memory, type=Memory | None)
        self._learn_needs()
        kept = {} if found is None else {item.named: item for item in found.hedges}
        self.hedges = [
            msgspec.structs.replace(hedge, underlying=old.underlying, instrument=old.instrument)
            if (old := kept.get(named)) is not None
            else hedge
            for named, hedge in zip(self._named, self.hedges, strict=True)
        ]
        self._traded = set() if found is None else set(found.traded)
        self._look_again = NEVER if found is None else found.look_again
        self._meet(view)
        for state in self._states:
            if state.named in kept:
                state.resume(kept[state.named])
            self._find_again(view, state)
        if self._prepare is not None:
            self._learn_time()

    def _find_again(self, view: StrategyView, state: _State) -> None:
        """The rule, the legs and the last delta of a hedge, as they were when the last decision was taken."""
        if state.plan is not None and self._prepare is not None:
            state.take(self._prepare(state.plan) if state.plan.strike else ToTheHedge())
        delta, _ = view.net_delta(state.hedge.underlying)
        if delta != delta:  # noqa: PLR0124  NaN test
            state.last_delta = self._hedged_delta(view, state)
            return
        if not self._needs_legs:
            state.last_delta = delta
            return
        legs = cast("SeesLegs", view).legs(state.hedge.underlying)
        if legs.version == state.version and legs.holding() == state.holding:
            state.legs = legs
            state.reach = self._reach(view, legs)
            state.last_delta = self._own_delta(view, state, legs, delta)

    def _learn_needs(self) -> None:
        """Read from the policy what it asks for beyond the net delta; a rule that does not say is given time and vol."""
        policy = self.policy
        self._prepare = getattr(policy, "prepared", None)
        self._needs_terms = getattr(policy, "needs_terms", True)
        self._bounded = getattr(policy, "bounded", False)
        shapes = getattr(policy, "leg_deltas", None) is not None
        self._needs_legs = shapes or self._needs_terms or self._bounded or self._prepare is not None
        self._slack = None if self._needs_legs else getattr(policy, "slack", None)
        self._steady = self._prepare is not None or getattr(policy, "least_width", None) is not None

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """A quote moved: hedge whatever left its band. A rule that looks at the clock only leaves quotes to its timers."""
        return self._decide_all(view) if self._needs_ticks else []

    def _hedged_delta(self, view: StrategyView, state: _State) -> float:
        """The net delta that the present hedge brings to its target; NaN where nothing was hedged, or no price scales it."""
        price = view.market.mid(state.column)
        if state.instrument.id not in self._traded or isinstance(state.hedge.target_delta, tuple):
            return math.nan
        per_contract = state.multiplier if state.plain else self._per_contract(view, state, price)
        return state.hedge.target_delta - view.exposure(state.instrument.id) * per_contract

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """The interval has passed, a pause is near or over: hedge; the interval is asked for again."""
        if self._interval is not None and name not in {NEAR, OVER}:
            view.wake_at(view.now + self._interval, "hedge")
        return self._decide_all(view)

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """What was hedged is undone: back to what the owner held at the start. Who never traded closes nothing."""
        targets: list[Target] = []
        for instrument in sorted({state.instrument.id for state in self._states} & self._traded):
            quantity = view.opened(instrument)
            if view.held(instrument) + view.working(instrument) == quantity:
                continue
            line = TargetLine(instrument, quantity, float(quantity))
            reason = "the session ends: close the hedge"
            targets.append(Target(book=self.book, lines=(line,), reason=reason, closing=True))
        return targets

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """A rule that looks at the clock only is never woken by quotes; one that can say how far the net delta may still
        move sleeps while the price stays where it cannot have moved so far."""
        if not self._needs_ticks:
            return UNTIL_TIMER
        if self._slack is None and not self._steady:
            return None
        renewals = self._renewals(view)
        if renewals:  # compiled code issues the box at the next row: none is reckoned here
            nowhere = {renewal.column: NO_PRICE for renewal in renewals}
            return QuietBox(view.now, {state.column: ANY_PRICE for state in self._states} | nowhere, renewals)
        intervals: dict[int, tuple[float, float]] = {}
        until = self._calm_until(view) if self._plans_pauses else FOREVER
        if until <= view.now:
            return QuietBox(view.now)
        for state in self._states:
            lasts = self._add_box(view, state, self._slack, intervals) or self._add_calm(view, state, intervals)
            if lasts <= view.now:
                return QuietBox(view.now)
            until = min(until, lasts)
        return QuietBox(until, intervals)

    def _renewals(self, view: StrategyView) -> tuple[Renewal, ...]:
        """How compiled code may issue boxes: for bands that stand still and plain hedges that would do nothing now, else not at
        all."""
        sure = getattr(self.policy, "sure", None)
        ask: Callable[[str], Renewal | None] | None = getattr(view, "renewal", None)
        if sure is None or ask is None or self._plans_pauses:
            return ()
        found: list[Renewal] = []
        for state in self._states:
            known = ask(state.hedge.underlying) if state.plain else None
            if known is None or known.column != state.under:
                return ()
            target = float(state.hedge.target_delta)  # type: ignore[arg-type]  # plain: a number
            held = view.exposure(state.instrument.id)
            delta, _ = view.net_delta(state.hedge.underlying)
            if not -sure < ((target - delta) / state.multiplier - held) * state.multiplier < sure:
                return ()
            found.append(
                msgspec.structs.replace(known, target=target, held=held, multiplier=state.multiplier, sure=sure)
            )
        return tuple(found)

    def _add_box(
        self,
        view: StrategyView,
        state: _State,
        slack_of: Callable[[float, float, float], float] | None,
        intervals: dict[int, tuple[float, float]],
    ) -> Nanos:
        """Add the prices at which a band that stands still would ask for nothing on one underlying, by the cheap bound; the
        first instant not covered, 0 without any."""
        underlying = state.hedge.underlying
        delta, gamma = view.net_delta(underlying)
        spot, price = view.market.mid(state.under), view.market.mid(state.column)
        known = delta == delta and spot == spot and price == price  # noqa: PLR0124  NaN tests
        if slack_of is None or not state.plain or not known:
            return 0
        want = (state.hedge.target_delta - delta) / state.multiplier  # type: ignore[operator]  # plain: a number
        slack = slack_of(want, view.exposure(state.instrument.id), state.multiplier)
        if slack <= 0.0:
            return 0
        h, lasts = view.room(underlying, gamma, slack)
        if not (h > 0.0 and lasts > 0):
            return 0
        self._fence(state, spot - h, spot + h, intervals)
        return view.now + lasts

    @staticmethod
    def _fence(state: _State, low: float, high: float, intervals: dict[int, tuple[float, float]]) -> None:
        """Lay these prices of the underlying over those known already; the hedge must be quoted."""
        known = intervals.get(state.under, ANY_PRICE)
        intervals[state.under] = max(2.0 * low, known[0]), min(2.0 * high, known[1])
        intervals.setdefault(state.column, ANY_PRICE)

    def _add_calm(self, view: StrategyView, state: _State, intervals: dict[int, tuple[float, float]]) -> Nanos:
        """The same for a band that moves with price, gamma and time, and for legs that only the wider bound knows."""
        rule = state.rule if self._needs_legs else self.policy
        seen = self._seen(view, state) if getattr(rule, "least_width", None) is not None else None
        if seen is None:
            return 0
        found = calm(rule, cast("SeesLegs", view).legs(state.hedge.underlying), seen, last=state.calm)
        if found is None:
            return 0
        state.calm = found.extent
        self._fence(state, found.low, found.high, intervals)
        return found.until

    def _seen(self, view: StrategyView, state: _State) -> Seen | None:
        """What the rule sees of one underlying now; None where that is not all it rests on."""
        hedge, pc = state.hedge, state.multiplier
        delta, gamma = view.net_delta(hedge.underlying)
        spot, price = view.market.mid(state.under), view.market.mid(state.column)
        known = delta == delta and spot == spot and price == price  # noqa: PLR0124  NaN tests
        if not (state.direct and known):
            return None
        held = view.exposure(state.instrument.id)
        terms, rate, reach, shaped = (math.nan, math.nan), 0.0, None, None
        if self._needs_legs:
            legs = cast("SeesLegs", view).legs(hedge.underlying)
            if legs.version != state.version or (legs is not state.legs and legs.holding() != state.holding):
                return None  # the next look takes them first
            if self._needs_terms:
                terms = legs.terms(view.now)
            rate = legs.rate
            if state.shape is not None and len(legs):
                shaped = legs.at(view.now, cost=state.cost * state.cost_scale)
                delta = float((shaped.weight * state.shape(shaped)).sum()) + legs.linear
        want = self._want(state, delta, held, pc)
        if self._bounded and state.legs is not None:
            own = delta - state.legs.linear
            reach = want + (own - state.reach.hi) / pc, want + (own - state.reach.lo) / pc
        x = BandInput(
            view.now, spot, want, held, gamma, *terms, rate, pc, state.cost * state.cost_scale, state.last_ts,
            state.last_spot,
        )  # fmt: skip
        goal = hedge.target_delta if isinstance(hedge.target_delta, tuple) else (hedge.target_delta, hedge.target_delta)
        return Seen(x, delta + held * pc, goal, reach, shaped, state.plan_spots, state.column == state.under)

    def watches(self) -> Sequence[str]:
        """Underlyings and hedge instruments."""
        return sorted({h.underlying for h in self.hedges} | {h.instrument for h in self.hedges})

    def follow(self, view: StrategyView, renamed: Mapping[str, str]) -> None:
        """Go on under new ids: what was hedged and what it was hedged with changed their names, nothing else."""
        self.hedges = [
            msgspec.structs.replace(
                hedge,
                underlying=renamed.get(hedge.underlying, hedge.underlying),
                instrument=renamed.get(hedge.instrument, hedge.instrument),
            )
            for hedge in self.hedges
        ]
        self._traded = {renamed.get(key, key) for key in self._traded}
        self._changed = True
        for state, hedge in zip(self._states, self.hedges, strict=True):
            state.hedge = hedge
            state.instrument = view.universe.get(hedge.instrument)
            state.column = view.universe.index(hedge.instrument)
            state.under = view.universe.index(hedge.underlying)
        self._remember(view)

    def trades(self) -> Sequence[str]:
        """The hedge instruments."""
        return sorted({h.instrument for h in self.hedges})

    # ------------------------------------------------------------------ one decision

    def _decide_all(self, view: StrategyView) -> list[Target]:
        targets: list[Target] = []
        for state in self._states:
            asked, target = self._heed(view, state) if self._plans_pauses else (True, None)
            if asked:
                target = self._decide(view, state)
            if target is not None:
                targets.append(target)
        if self._changed:
            self._remember(view)
        return targets

    def _remember(self, view: StrategyView) -> None:
        """Write down what has changed and what a restart could not find out by itself."""
        self._changed = False
        view.memory(
            self.name,
            Memory(
                hedges=tuple(state.kept(with_last=self._needs_last) for state in self._states),
                traded=tuple(sorted(self._traded)),
                look_again=self._look_again,
            ),
        )

    def _decide(self, view: StrategyView, state: _State) -> Target | None:
        hedge = state.hedge
        delta, gamma = view.net_delta(hedge.underlying)
        known = delta == delta  # noqa: PLR0124  NaN: unknown, and only then unequal to itself
        if not known:
            delta = self._unknown(view, state)
            if math.isnan(delta):
                return None
        elif state.alarmed:
            state.alarmed = ""
            self._changed = True
        if not self._needs_legs:
            state.last_delta = delta
        price = view.market.mid(state.column)
        if price != price:  # noqa: PLR0124  NaN test
            price = self._last_price(view, state)
            if price != price:  # noqa: PLR0124  NaN test
                self._blocked(view, state, f"no two-sided quote of {state.instrument.id}")
                return None
        if self._needs_legs and known:
            delta = self._look(view, state, price, delta, gamma)
            if delta != delta:  # noqa: PLR0124  NaN test
                delta = self._unknown(view, state)
                if math.isnan(delta):
                    return None
            state.last_delta = delta
        held = view.exposure(state.instrument.id)
        if state.plain:
            per_contract = state.multiplier
            want = (hedge.target_delta - delta) / per_contract  # type: ignore[operator]  # plain: a number
        else:
            per_contract = self._per_contract(view, state, price)
            want = self._want(state, delta, held, per_contract)
            if math.isnan(want):
                self._blocked(view, state, f"no price of {hedge.underlying} to scale {state.instrument.id} by")
                return None
        if state.stays is not None and not (state.near or state.exact_due) and state.stays(want, held, per_contract):
            return None
        x, band = self._ask(view, state, (price, delta, gamma, want, held, per_contract))
        if self._plans_pauses:
            band = self._band_near(state, band, want)
        lo, hi = band.lo, band.hi
        if lo <= held <= hi and lo != hi:
            return None
        decision = decide(band, held, state.lot, policy=self.policy.name, toward_zero=state.hedge.toward_zero)
        if not decision.stay and not view.is_open(state.instrument.id):
            self._blocked(view, state, f"the session of {state.instrument.id} is closed")
            return None
        state.last_ts = view.now
        state.last_spot = x.spot
        if self._needs_last:
            self._changed = True
        if state.exact_due:
            state.exact_due, self._changed = False, True
        if decision.stay:
            return None
        return self._target(view, state, decision, (float(band.lo), float(band.hi)))

    def _ask(
        self, view: StrategyView, state: _State, seen: tuple[float, float, float, float, float, float]
    ) -> tuple[BandInput, Band]:
        """The policy's answer in hedge contracts, and what it was shown."""
        price, delta, gamma, want, held, per_contract = seen
        spot = price if state.column == state.under else view.market.mid(state.under)
        if not self._needs_legs:
            # Positions, not names: this runs at every quote, and names cost as much again.
            x = BandInput(
                view.now, spot, want, held, gamma, math.nan, math.nan, 0.0, per_contract, state.cost, state.last_ts,
                state.last_spot,
            )  # fmt: skip
            return x, self.policy.band(x)
        legs, rule = state.legs, state.rule
        assert legs is not None and rule is not None  # looked at while the delta was known, as it once was
        if spot != spot:  # noqa: PLR0124  NaN: an underlying without quotes
            spot = legs.spot()
        own = delta - legs.linear
        # A rule that solved the options alone is asked about the options alone: what else is held or targeted is moved
        # to the held side and back.
        shift = -own / per_contract - want if self._prepare is not None else 0.0
        x = BandInput(
            view.now, spot, want + shift, held + shift, state.gamma, *state.terms, legs.rate, per_contract,
            state.cost * state.cost_scale, state.last_ts, state.last_spot,
        )  # fmt: skip
        band = rule.band(x)
        if self._bounded:
            ratio = legs.ratio()
            one = x.want + (own - state.reach.hi * ratio) / per_contract
            other = x.want + (own - state.reach.lo * ratio) / per_contract
            band = within_reach(band, min(one, other), max(one, other))
        if shift:
            band = Band(band.lo - shift, band.hi - shift, None if band.to is None else band.to - shift)
        return x, band

    # ------------------------------------------------------------------ rules that see more than the net delta

    def _look(self, view: StrategyView, state: _State, price: float, delta: float, gamma: float) -> float:
        """Bring up to date what the rule is shown, and give the delta it hedges at: the model's, or its own."""
        legs = cast("SeesLegs", view).legs(state.hedge.underlying)
        if legs is not state.legs and legs.version == state.version and legs.holding() == state.holding:
            state.legs = legs  # a fill of the hedge: the same legs in another object
        if legs is not state.legs or legs.version != state.version or state.has_left(legs):
            self._take_legs(view, state, legs, price)
        state.gamma = gamma
        if self._needs_terms:
            state.terms = legs.terms(view.now)
        return self._own_delta(view, state, legs, delta)

    @staticmethod
    def _own_delta(view: StrategyView, state: _State, legs: LegsInView, delta: float) -> float:
        """The delta the rule hedges at: the model's unless it shapes the legs'."""
        if state.shape is None or not len(legs):
            return delta
        x = legs.at(view.now, cost=state.cost * state.cost_scale)
        return float((x.weight * state.shape(x)).sum()) * legs.ratio() + legs.linear

    def _take_legs(self, view: StrategyView, state: _State, legs: LegsInView, price: float) -> None:
        """The holding or its vols changed, or the price left what was planned for: costs, reach and rule anew."""
        if legs.version != state.version:
            self._estimate_cost(view, state, price)
        per_contract = state.multiplier if state.plain else self._per_contract(view, state, price)
        estimate = state.hedge.estimate if isinstance(state.hedge, EstimatedHedge) else None
        plan = legs.plan(
            view.now,
            cost=state.cost * state.cost_scale,
            fixed_cost=0.0 if estimate is None else estimate.ticket,
            lot=0.0 if state.lot is None else float(state.lot) * abs(per_contract),
            per_contract=per_contract,
        )
        if legs is not state.legs:
            state.reach = reach_of(plan.cp, plan.strike, plan.quantity, plan.tau)
        state.legs, state.version, state.holding = legs, legs.version, legs.holding()
        self._changed = True
        ends = legs.ends(view.now)
        foreseen = bool(ends) and ends == tuple(end for end in state.ends if end > view.now)
        solved = None if state.plan is None else still_alive(state.plan, view.now)
        if self._prepare is not None and (not foreseen or is_another_problem(solved, plan)):
            state.plan, state.ends = plan, ends
            state.plan_spots = planned_spots(plan)
            state.take(self._prepare(plan) if plan.strike else ToTheHedge())
            self._keep_time(view)

    @staticmethod
    def _reach(view: StrategyView, legs: LegsInView) -> Reach:
        """The reach of the legs as they are."""
        plan = legs.plan(view.now, cost=0.0, fixed_cost=0.0, lot=0.0, per_contract=1.0)
        return reach_of(plan.cp, plan.strike, plan.quantity, plan.tau)

    def _learn_time(self) -> None:
        """The shortest of the intervals of the rules now in force, and whether one of them needs quotes."""
        rules = [state.rule for state in self._states]
        beats = [beat for beat in (getattr(rule, "interval", None) for rule in rules) if beat is not None]
        self._interval = min(beats, default=None)
        self._needs_ticks = any(getattr(rule, "needs_ticks", True) for rule in rules)

    def _keep_time(self, view: StrategyView) -> None:
        """Wake as the rules now in force ask: at the shortest of their intervals, at quotes when one of them needs to."""
        before = self._interval
        self._learn_time()
        if before is None and self._interval is not None:
            view.wake_at(view.now + self._interval, "hedge")

    def _estimate_cost(self, view: StrategyView, state: _State, price: float) -> None:
        """Take the cost from the estimate at the present quote; one that cannot be known leaves the last."""
        if not isinstance(state.hedge, EstimatedHedge):
            return
        found = state.hedge.estimate.at(price, view.market.bid(state.column), view.market.ask(state.column))
        if not math.isnan(found):
            state.cost = found

    def _blocked(self, view: StrategyView, state: _State, reason: str) -> None:
        """Put on the record that a decision was due and could not be made; a rule nothing else would wake looks again."""
        view.skip(state.hedge.underlying, reason)
        waits = not self._needs_ticks and self._interval is None and state.last_ts == NEVER
        if waits and self._look_again <= view.now:
            self._look_again, self._changed = view.now + LOOK_AGAIN, True
            view.wake_at(self._look_again, "look again")

    def _want(self, state: _State, delta: float, held: float, per_contract: float) -> float:
        """The hedge that brings the net delta to the target, or to the nearest end of a target range."""
        target = state.hedge.target_delta
        if isinstance(target, tuple):
            target = min(max(delta + held * per_contract, target[0]), target[1])
        return (target - delta) / per_contract

    @staticmethod
    def _per_contract(view: StrategyView, state: _State, price: float) -> float:
        """Delta of one hedge contract in underlying units."""
        instrument, hedge = state.instrument, state.hedge
        multiplier = state.multiplier
        if isinstance(instrument, Perpetual) and instrument.inverse:
            multiplier /= price
        if hedge.beta is None:
            return multiplier
        spot = view.market.mid(state.under)
        spot = spot if not math.isnan(spot) else view.market.last(state.under)
        return multiplier * hedge.beta * price / spot

    @staticmethod
    def _last_price(view: StrategyView, state: _State) -> float:
        """The last print of an instrument that has no quotes at all; NaN for one whose quote is one-sided."""
        if view.market.quote_ts(state.column) != NEVER:
            return math.nan
        return view.market.last(state.column)

    def _unknown(self, view: StrategyView, state: _State) -> float:
        """The fallback for an unknown delta: one alarm, then the last known delta or NaN (hold) as configured."""
        fault = view.risk(state.hedge.underlying).fault or "the net delta is not a number"
        usable = self.fallback == "last" and not math.isnan(state.last_delta)
        action = "hedging on the last known delta" if usable else "holding the present hedge"
        if fault != state.alarmed:
            state.alarmed, self._changed = fault, True
            view.alarm(
                Alarm(
                    code="greeks_unknown",
                    text=f"{state.hedge.underlying}: {fault}; {action}",
                    ts=view.now,
                    underlying=state.hedge.underlying,
                    action=action,
                )
            )
        if not usable:
            self._blocked(view, state, fault)
        return state.last_delta if usable else math.nan

    def _target(self, view: StrategyView, state: _State, decision: Decision, band: tuple[float, float]) -> Target:
        self._note_traded(state)
        return Target(
            book=self.book,
            lines=(TargetLine(state.instrument.id, decision.quantity, decision.unrounded),),
            reason=decision.reason,
            evidence=self._evidence(view, state, band),
        )

    def _note_traded(self, state: _State) -> None:
        if state.instrument.id not in self._traded:
            self._traded.add(state.instrument.id)
            self._changed = True

    # ------------------------------------------------------------------ nights and halts

    def _heed(self, view: StrategyView, state: _State) -> tuple[bool, Target | None]:
        """Whether the rule is asked now, and what a pause asks for instead: nights, weekends and halts, as planned."""
        before = state.of_pauses()
        asked, target = self._ask_the_plan(view, state)
        self._changed |= state.of_pauses() != before
        return asked, target

    def _ask_the_plan(self, view: StrategyView, state: _State) -> tuple[bool, Target | None]:
        now, key = view.now, state.instrument.id
        state.near = False
        pause = self._next_pause(view, state)
        halt = cast("SeesPauses", view).last_halt(key)
        if halt is not None and now >= halt.end and halt.end != state.heard:
            state.heard = halt.end
            state.stop(halt)
        for on in (halt, pause):
            if on is not None and (on.start < now < on.end or (on.halt and on.start == now < on.end)):
                state.stop(on)
                what = f"{key} is halted" if on.halt else f"the session of {key} is closed"
                self._blocked(view, state, f"{what} since {iso(on.start)}")
                return False, None
        if state.stopped and not self._goes_on(view, state):
            return False, None
        plan = self.halt if state.after_halt else self.overnight
        if state.resumed != NEVER and now < state.resumed + plan.settle:
            self._blocked(view, state, f"{key} trades again since {iso(state.resumed)}: its quotes settle")
            return False, None
        plan = HOLD if pause is None else self._plan_of(pause)
        if pause is None or plan.plan == "hold" or now < pause.start - plan.lead:
            return True, None
        state.near = True
        return (True, None) if plan.plan == "shrink" else (False, self._flatten(view, state, pause))

    def _plan_of(self, pause: Pause) -> Pausing:
        return self.halt if pause.halt else self.overnight

    def _next_pause(self, view: StrategyView, state: _State) -> Pause | None:
        """The pause that is on or comes next by the calendar; when it is near and over is asked for as timers."""
        known = state.pause
        if known is not None and view.now < known.end:
            return known
        if known is not None:
            state.stop(known)  # it is over, whoever slept through it
        state.pause = pause = cast("SeesPauses", view).pause(state.instrument.id)
        if pause is not None and pause.end != FOREVER:
            plan = self._plan_of(pause)
            if plan.plan != "hold" and view.now < pause.start - plan.lead:
                view.wake_at(pause.start - plan.lead, NEAR)
            if plan != HOLD:
                view.wake_at(pause.end, OVER)
        return pause

    def _goes_on(self, view: StrategyView, state: _State) -> bool:
        """True once there is a price from after the pause: trading goes on, and the exact hedge may be due."""
        k, key = state.column, state.instrument.id
        if max(view.market.quote_ts(k), view.market.last_ts(k)) < state.reopens:
            self._blocked(view, state, f"no price of {key} since it trades again")
            if not self._needs_ticks:
                view.wake_at(view.now + LOOK_AGAIN, OVER)
            return False
        plan = self.halt if state.after_halt else self.overnight
        state.stopped, state.resumed = False, view.now
        state.exact_due = plan.after == "exact"
        if plan.settle:
            view.wake_at(view.now + plan.settle, OVER)
        return True

    def _band_near(self, state: _State, band: Band, want: float) -> Band:
        """The rule's band, cut as the plan says near a pause; a point where the exact hedge is due."""
        if state.exact_due:
            return Band(want, want)
        if not state.near or state.pause is None:
            return band
        plan = self._plan_of(state.pause)
        return shrunk(band, want, width=plan.width, first=state.last_ts < state.pause.start - plan.lead)

    def _calm_until(self, view: StrategyView) -> Nanos:
        """Until when no pause asks for anything; now, while one does."""
        until = FOREVER
        for state in self._states:
            if state.stopped or state.near or state.exact_due or state.pause is None:
                return view.now
            plan = self.halt if state.after_halt else self.overnight
            if state.resumed != NEVER and view.now < state.resumed + plan.settle:
                return view.now
            until = min(until, state.pause.start - self._plan_of(state.pause).lead)
        return until

    def _flatten(self, view: StrategyView, state: _State, pause: Pause) -> Target | None:
        """Back to what the owner brought, once."""
        key = state.instrument.id
        quantity = view.opened(key)
        if view.held(key) + view.working(key) == quantity:
            return None
        if math.isnan(view.market.mid(state.column)) and math.isnan(self._last_price(view, state)):
            self._blocked(view, state, f"no two-sided quote of {key}")
            if not self._needs_ticks:
                view.wake_at(view.now + LOOK_AGAIN, NEAR)
            return None
        self._note_traded(state)
        what = "halt" if pause.halt else "close"
        return Target(
            book=self.book,
            lines=(TargetLine(key, quantity, float(quantity)),),
            reason=f"flat before the {what} at {iso(pause.start)}, as planned",
            evidence=self._evidence(view, state, (float(quantity), float(quantity))),
        )

    def _evidence(self, view: StrategyView, state: _State, band: tuple[float, float]) -> Evidence:
        risk = view.risk(state.hedge.underlying)
        greeks = risk.greeks
        return Evidence(
            underlying=state.hedge.underlying,
            spot=_known(risk.spot),
            quote=_quote(view, state.column),
            vols={key: _known(vol) for key, vol in risk.vols.items()},
            vol_age=None if risk.vol_ts == NEVER else view.now - risk.vol_ts,
            delta=_known(greeks.delta),
            gamma=_known(greeks.gamma),
            vega=_known(greeks.vega),
            theta=_known(greeks.theta),
            lo=_known(band[0]),
            hi=_known(band[1]),
            held=view.held(state.instrument.id),
            working=view.working(state.instrument.id),
            policy=self.policy.name,
        )


def still_alive(plan: HedgePlan, now: Nanos) -> HedgePlan:
    """The plan without the legs that have ended by now: their end was part of what was solved, and is no news."""
    keep = [plan.now + tau * NS_PER_YEAR > now + 0.5 for tau in plan.tau]
    if all(keep):
        return plan
    columns = {
        name: tuple(value for value, left in zip(getattr(plan, name), keep, strict=True) if left)
        for name in ("cp", "strike", "quantity", "tau", "vol")
    }
    return msgspec.structs.replace(plan, **columns)


def is_another_problem(solved: HedgePlan | None, plan: HedgePlan) -> bool:
    """True when a plan is to be solved anew: none was, other legs, or a vol, the cost or the price has moved far.

    Far is 5% of a leg's vol, 10% of the cost, 5% of the contract's delta, and 3 deviations of the price to the last
    expiry. A plan with an unknown vol is not solved while one before it stands.
    """
    if solved is None:
        return True
    if (solved.cp, solved.strike, solved.quantity) != (plan.cp, plan.strike, plan.quantity):
        return True
    if any(math.isnan(vol) for vol in plan.vol):
        return False
    moved = max((_change(old, new) for old, new in zip(solved.vol, plan.vol, strict=True)), default=0.0)
    lo, hi = planned_spots(solved)
    return (
        moved > VOL_MOVED
        or _change(solved.cost, plan.cost) > COST_MOVED
        or _change(solved.per_contract, plan.per_contract) > VOL_MOVED
        or (solved.rate, solved.dividend) != (plan.rate, plan.dividend)
        or not lo <= plan.spot <= hi
    )


def planned_spots(plan: HedgePlan) -> tuple[float, float]:
    """The prices a plan is good for: within 3 deviations of its own, to the last expiry."""
    spread = max((vol * math.sqrt(tau) for vol, tau in zip(plan.vol, plan.tau, strict=True)), default=math.inf)
    if not 0.0 < spread < math.inf or plan.spot <= 0.0:
        return -math.inf, math.inf
    far = math.exp(min(DEVIATIONS_MOVED * spread, 50.0))
    return plan.spot / far, plan.spot * far


def _change(old: float, new: float) -> float:
    """The relative change; inf from nothing to something."""
    if old == new:
        return 0.0
    return abs(new / old - 1.0) if old else math.inf


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _quote(view: StrategyView, column: int) -> QuoteRef | None:
    ts = view.market.quote_ts(column)
    if ts == NEVER:
        return None
    return QuoteRef(_known(view.market.bid(column)), _known(view.market.ask(column)), ts)
