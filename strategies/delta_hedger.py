"""The delta hedger keeps the net delta of a book of options at a target by trading one hedge instrument per underlying.

Law: it acts only through targets; an unknown Greek is a fault with an alarm and a stated fallback, never a silent stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from bot.core.events import Alarm, Evidence, Target, TargetLine
from bot.core.ports import BandInput, Glances, Hedge, HedgePolicy, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.domain.instruments import Instrument, Perpetual
from bot.domain.orders import QuoteRef
from bot.domain.units import NS_PER_MINUTE, Nanos
from strategies.policies.decide import Decision, decide

LOOK_AGAIN: Final[Nanos] = NS_PER_MINUTE
"""How long a rule that acts once waits when it could not act."""


class _State:
    """What is remembered of one underlying between decisions."""

    __slots__ = (
        "alarmed",
        "column",
        "hedge",
        "instrument",
        "last_delta",
        "last_spot",
        "last_ts",
        "lot",
        "multiplier",
        "plain",
        "under",
    )

    def __init__(self, hedge: Hedge, instrument: Instrument, column: int, under: int) -> None:
        self.hedge = hedge
        self.instrument = instrument
        self.column = column
        self.under = under
        self.lot = hedge.lot if hedge.lot is not None else instrument.lot
        self.multiplier = float(instrument.multiplier)
        inverse = isinstance(instrument, Perpetual) and instrument.inverse
        self.plain = hedge.beta is None and not inverse and not isinstance(hedge.target_delta, tuple)
        self.last_ts: Nanos = -1
        self.last_spot = math.nan
        self.last_delta = math.nan
        self.alarmed = ""


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
    ) -> None:
        if not hedges:
            raise ValueError("delta_hedger: expected at least one [[hedges]] entry, found none")
        self.name = name
        self.book = book
        self.policy = policy
        self.hedges = list(hedges)
        self.fallback = fallback
        self._interval: Nanos | None = getattr(policy, "interval", None)
        self._stays: Callable[[float, float, float], bool] | None = None
        self._needs_ticks: bool = getattr(policy, "needs_ticks", True)
        self._states: list[_State] = []
        self._started: Nanos = 0
        self._look_again: Nanos = -1
        self._traded: set[str] = set()

    # ------------------------------------------------------------------ the Strategy protocol

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The opening hedge."""
        self._started = view.now
        self._stays = self.policy.stays if isinstance(self.policy, Glances) else None
        self._states = [
            _State(
                hedge,
                view.universe.get(hedge.instrument),
                view.universe.index(hedge.instrument),
                view.universe.index(hedge.underlying),
            )
            for hedge in self.hedges
        ]
        if self._interval is not None:
            view.wake_at(view.now + self._interval, "hedge")
        return self._decide_all(view)

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """A quote moved: hedge whatever left its band."""
        return self._decide_all(view)

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """The interval has passed: hedge, and ask to be woken again."""
        if self._interval is not None:
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
        """A rule that looks at the clock only is never woken by quotes."""
        return None if self._needs_ticks else UNTIL_TIMER

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
        for state, hedge in zip(self._states, self.hedges, strict=True):
            state.hedge = hedge
            state.instrument = view.universe.get(hedge.instrument)
            state.column = view.universe.index(hedge.instrument)
            state.under = view.universe.index(hedge.underlying)

    def trades(self) -> Sequence[str]:
        """The hedge instruments."""
        return sorted({h.instrument for h in self.hedges})

    # ------------------------------------------------------------------ one decision

    def _decide_all(self, view: StrategyView) -> list[Target]:
        targets: list[Target] = []
        for state in self._states:
            target = self._decide(view, state)
            if target is not None:
                targets.append(target)
        return targets

    def _decide(self, view: StrategyView, state: _State) -> Target | None:
        hedge = state.hedge
        delta, gamma = view.net_delta(hedge.underlying)
        if delta != delta:  # noqa: PLR0124  NaN: unknown, and only then unequal to itself
            delta = self._unknown(view, state)
            if math.isnan(delta):
                return None
        elif state.alarmed:
            state.alarmed = ""
        state.last_delta = delta
        price = view.market.mid(state.column)
        if price != price:  # noqa: PLR0124  NaN test
            price = self._last_price(view, state)
            if price != price:  # noqa: PLR0124  NaN test
                self._blocked(view, state, f"no two-sided quote of {state.instrument.id}")
                return None
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
        if self._stays is not None and self._stays(want, held, per_contract):
            return None
        # Positions, not names: this runs at every quote, and names cost as much again.
        x = BandInput(
            view.now,
            price if state.column == state.under else view.market.mid(state.under),
            want,
            held,
            gamma,
            math.nan,
            math.nan,
            0.0,
            per_contract,
            hedge.cost,
            state.last_ts,
            state.last_spot,
        )
        band = self.policy.band(x)
        lo, hi = band.lo, band.hi
        if lo <= held <= hi and lo != hi:
            return None
        decision = decide(band, held, state.lot, policy=self.policy.name, toward_zero=state.hedge.toward_zero)
        if not decision.stay and not view.is_open(state.instrument.id):
            self._blocked(view, state, f"the session of {state.instrument.id} is closed")
            return None
        state.last_ts = view.now
        state.last_spot = x.spot
        if decision.stay:
            return None
        return self._target(view, state, decision, (float(band.lo), float(band.hi)))

    def _blocked(self, view: StrategyView, state: _State, reason: str) -> None:
        """Put on the record that a decision was due and could not be made; a rule nothing else would wake looks again."""
        view.skip(state.hedge.underlying, reason)
        waits = not self._needs_ticks and self._interval is None and state.last_ts < 0
        if waits and self._look_again <= view.now:
            self._look_again = view.now + LOOK_AGAIN
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
        if view.market.quote_ts(state.column) >= 0:
            return math.nan
        return view.market.last(state.column)

    def _unknown(self, view: StrategyView, state: _State) -> float:
        """The fallback for an unknown delta: one alarm, then the last known delta or NaN (hold) as configured."""
        fault = view.risk(state.hedge.underlying).fault or "the net delta is not a number"
        usable = self.fallback == "last" and not math.isnan(state.last_delta)
        action = "hedging on the last known delta" if usable else "holding the present hedge"
        if fault != state.alarmed:
            state.alarmed = fault
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
        self._traded.add(state.instrument.id)
        return Target(
            book=self.book,
            lines=(TargetLine(state.instrument.id, decision.quantity, decision.unrounded),),
            reason=decision.reason,
            evidence=self._evidence(view, state, band),
        )

    def _evidence(self, view: StrategyView, state: _State, band: tuple[float, float]) -> Evidence:
        risk = view.risk(state.hedge.underlying)
        greeks = risk.greeks
        return Evidence(
            underlying=state.hedge.underlying,
            spot=_known(risk.spot),
            quote=_quote(view, state.column),
            vols={key: _known(vol) for key, vol in risk.vols.items()},
            vol_age=None if risk.vol_ts < 0 else view.now - risk.vol_ts,
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


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _quote(view: StrategyView, column: int) -> QuoteRef | None:
    ts = view.market.quote_ts(column)
    if ts < 0:
        return None
    return QuoteRef(_known(view.market.bid(column)), _known(view.market.ask(column)), ts)
