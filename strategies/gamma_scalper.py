"""A gamma scalper holds straddles or strangles while a forecast says that their vol will be realised, and rolls them.

Law: it trades options only. The delta is left to a hedger on the same book, which takes the gains between its bands; what a
long structure then earns is sum 0.5 Gamma S^2 (realised - implied variance) dt, and that is what the strategy tracks: the
gamma earned 0.5 Gamma dS^2, the theta paid, and the break-even move sigma S sqrt(dt) beyond which the first is more.

It looks at the market on a clock of its own (`look`), not at every tick: entry, exit, stop and roll are rules of days and
vols. A quote that is missing is waited for, with the reason on the record. `side = "short"` is the mirror: written
structures, entered while the forecast is below the implied vol.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.events import Corporate, Target
from bot.core.option_orders import (
    Asked,
    Execution,
    Style,
    Wanted,
    Worker,
    good_rows,
    half_spreads,
    is_over,
    known,
    why_not,
)
from bot.core.ports import Chain, Figures, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND, NS_PER_YEAR, Nanos
from bot.pricing import forecast as forecasts

ZERO: Final = Decimal(0)
SETTLE: Final[Nanos] = 5 * NS_PER_SECOND
"""How long after its orders the strategy looks at what was filled, so that the Greeks it tracks are those it holds."""
TRADING_DAYS: Final = 252.0

Kind: TypeAlias = Literal["always", "fixed", "ewma", "window", "garch"]
Budget: TypeAlias = Literal["contracts", "vega", "gamma", "premium"]


class ForecastRule(msgspec.Struct, frozen=True, kw_only=True):
    """Where the forecast vol comes from: bars of the underlying every `interval`, `periods_per_year` of which count.

    always   no forecast: the structure is wanted whatever is implied
    fixed    `vol` as given
    ewma     the exponentially weighted variance (`decay`), begun at `start_vol`; without one, at the first bar's square, and
             then unknown until 1 / (1 - decay) bars were seen
    window   the mean square of the last `bars` returns
    garch    a GARCH(1,1) fitted to the last `bars` returns (at least 50), averaged over the bars left to the expiry
    """

    kind: Kind = "always"
    vol: float | None = None
    decay: float = 0.94
    start_vol: float | None = None
    bars: int = 78
    interval: Nanos = 5 * NS_PER_MINUTE
    periods_per_year: float = TRADING_DAYS * 78.0

    def __post_init__(self) -> None:
        if self.kind == "fixed" and self.vol is None:
            raise ValueError("forecast: vol: required when kind = 'fixed', but absent")
        for name in ("vol", "start_vol"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"forecast: {name}: expected a number above 0, found {value!r}")
        if not 0.0 < self.decay < 1.0:
            raise ValueError(f"forecast: decay: expected a number in (0, 1), found {self.decay!r}")
        least = {"window": 2, "garch": 50}.get(self.kind, 1)
        if self.bars < least:
            raise ValueError(f"forecast: bars: expected at least {least} for {self.kind}, found {self.bars}")
        if self.interval <= 0 or not (math.isfinite(self.periods_per_year) and self.periods_per_year > 0.0):
            raise ValueError("forecast: expected an interval and periods_per_year above 0")


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """What the forecast remembers: the last price and when, the bars' returns kept, and the filter's variance a bar."""

    ts: Nanos = NEVER
    price: float = 0.0
    number: int = -1
    returns: tuple[float, ...] = ()
    variance: float | None = None
    count: int = 0


def bars_after(bars: Bars, rule: ForecastRule, now: Nanos, price: float) -> Bars:
    """The bars with the price of now, which ends a bar when it is the first in another interval.

    A return across a gap of more than two intervals (a night, where bars are shorter than a day) is not a bar's return and
    is left out.
    """
    number = now // rule.interval
    if bars.ts == NEVER or bars.price <= 0.0:
        return msgspec.structs.replace(bars, ts=now, price=price, number=number)
    if number == bars.number:
        return bars
    gap = now - bars.ts > 2 * rule.interval and rule.interval < NS_PER_DAY
    moved = msgspec.structs.replace(bars, ts=now, price=price, number=number)
    if gap:
        return moved
    move = math.log(price / bars.price)
    kept: tuple[float, ...] = ()
    if rule.kind in {"window", "garch"}:
        kept = (*bars.returns, move)[-rule.bars :]
    variance = bars.variance
    if rule.kind == "ewma":
        start = variance
        if start is None and rule.start_vol is not None:
            start = rule.start_vol**2 / rule.periods_per_year
        variance = float(forecasts.ewma([move], decay=rule.decay, start=start)[-1])
    return msgspec.structs.replace(moved, returns=kept, variance=variance, count=bars.count + 1)


def forecast_vol(bars: Bars, rule: ForecastRule, *, horizon: float) -> float:
    """The vol per square root of a year that is expected over `horizon` years; NaN while it cannot be known."""
    if rule.kind == "fixed":
        return math.nan if rule.vol is None else rule.vol
    if rule.kind == "ewma":
        if bars.variance is not None and (rule.start_vol is not None or bars.count >= 1.0 / (1.0 - rule.decay) - 1e-9):
            return math.sqrt(bars.variance * rule.periods_per_year)
        return math.nan if rule.start_vol is None else rule.start_vol
    if rule.kind == "window" and len(bars.returns) >= rule.bars:
        return math.sqrt(float(np.mean(np.square(bars.returns))) * rule.periods_per_year)
    if rule.kind == "garch" and len(bars.returns) >= rule.bars and np.std(bars.returns) > 0.0:
        ahead = min(max(round(horizon * rule.periods_per_year), 1), 1000)
        fit = forecasts.garch(bars.returns, horizon=ahead)
        return fit.vol(periods_per_year=rule.periods_per_year)
    return math.nan


class Leg(msgspec.Struct, frozen=True):
    """A contract of the structure and the signed quantity wanted."""

    instrument: str
    quantity: Decimal


class LegMark(msgspec.Struct, frozen=True):
    """A leg as it was seen: signed units of the underlying, vol, unit Greeks and time to expiry."""

    instrument: str
    weight: float
    vol: float
    gamma: float
    vega: float
    theta: float
    tau: float


class Sight(msgspec.Struct, frozen=True):
    """The underlying and the legs held at an instant."""

    ts: Nanos
    spot: float
    legs: tuple[LegMark, ...]


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """What was added up while a structure was held: money of the structure, variances, and years by the model's clock."""

    gamma_earned: float = 0.0
    theta_paid: float = 0.0
    vega_pnl: float = 0.0
    realised: float = 0.0
    implied: float = 0.0
    years: float = 0.0
    weighted_realised: float = 0.0
    weighted_implied: float = 0.0
    spread_cost: float = 0.0
    looks: int = 0
    over: int = 0
    """Looks whose move beat the break-even move since the look before."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision looks at besides the market."""

    legs: tuple[Leg, ...] = ()
    closing: tuple[str, ...] = ()
    why_open: str = ""
    why_close: str = ""
    asked: tuple[Asked, ...] = ()
    bars: Bars = Bars()
    sight: Sight | None = None
    sums: Sums = Sums()
    equity: float | None = None
    entered: Nanos = NEVER
    rests_until: Nanos = NEVER
    entries: int = 0
    rolls: int = 0
    exits: dict[str, int] = {}
    premium: float = 0.0
    entry_vols: tuple[float, float, float] | None = None
    need: float | None = None
    orders: int = 0
    began: Nanos = NEVER
    bought: tuple[str, ...] = ()


class Choice(NamedTuple):
    """A structure to be held: its legs, what it is worth and why it was chosen; or why there is none."""

    legs: tuple[Leg, ...]
    unrounded: float
    premium: float
    vols: tuple[float, float, float]
    need: float | None
    words: str


class GammaScalper:
    """One underlying's structures in one book. Implements `Strategy`, `Restores`, `Reports` and `HearsCorporate`."""

    def __init__(
        self,
        *,
        underlying: str,
        book: str = "main",
        name: str = "gamma_scalper",
        side: Literal["long", "short"] = "long",
        structure: Literal["straddle", "strangle"] = "straddle",
        moneyness: float = 1.0,
        width: float | None = None,
        delta: float | None = None,
        tolerance: float = 0.02,
        days: float = 30.0,
        min_days: float | None = None,
        max_days: float | None = None,
        budget: Budget = "contracts",
        amount: float = 1.0,
        max_contracts: Decimal | int = 1000,
        of_display: float | None = None,
        margin: float = 0.0,
        exit_margin: float | None = None,
        exit_days: float = 0.0,
        roll_days: float | None = None,
        roll_moneyness: float | None = None,
        stop_loss: float | None = None,
        take_profit: float | None = None,
        rest: Nanos = NS_PER_DAY,
        look: Nanos = NS_PER_MINUTE,
        forecast: ForecastRule | Mapping[str, Any] | None = None,
        orders: Style = "cross",
        aggression: float = 0.0,
        patience: Nanos = 5 * NS_PER_MINUTE,
        stale_after: Nanos | None = None,
        max_spread: float | None = None,
        at_end: Literal["close", "hold"] = "close",
    ) -> None:
        self.name = name
        self.book = book
        self.underlying = underlying
        self.sign = 1 if side == "long" else -1
        self.side = side
        self.structure = structure
        self.moneyness, self.width, self.delta, self.tolerance = moneyness, width, delta, tolerance
        self.days = days
        self.min_days = 0.5 * days if min_days is None else min_days
        self.max_days = 2.0 * days if max_days is None else max_days
        self.budget, self.amount = budget, amount
        self.max_contracts = Decimal(max_contracts)
        self.of_display = of_display
        self.margin, self.exit_margin = margin, exit_margin
        self.exit_days, self.roll_days, self.roll_moneyness = exit_days, roll_days, roll_moneyness
        self.stop_loss, self.take_profit, self.rest = stop_loss, take_profit, rest
        self.look = look
        rule = ForecastRule() if forecast is None else forecast
        self.forecast = rule if isinstance(rule, ForecastRule) else msgspec.convert(dict(rule), ForecastRule)
        self.execution = Execution(
            style=orders, aggression=aggression, patience=patience, stale_after=stale_after, max_spread=max_spread
        )
        self.at_end = at_end
        self._refuse_contradictions()
        self._worker = Worker(underlying=underlying, book=book, execution=self.execution, policy=name)
        self._memory = Memory()
        self._fitted: tuple[tuple[int, int, int], float] | None = None

    def _refuse_contradictions(self) -> None:
        """ValueError for keys that do not fit each other."""
        if self.structure == "strangle" and (self.width is None) == (self.delta is None):
            raise ValueError("gamma_scalper: a strangle has either a width or a delta")
        if self.structure == "straddle" and not (self.width is None and self.delta is None):
            raise ValueError("gamma_scalper: width and delta: expected with structure = 'strangle' only")
        if self.delta is not None and not 0.0 < self.delta < 0.5:
            raise ValueError(f"gamma_scalper: delta: expected a number in (0, 0.5), found {self.delta!r}")
        if not self.min_days <= self.days <= self.max_days:
            raise ValueError(
                f"gamma_scalper: expected min_days <= days <= max_days, found {self.min_days:g}, {self.days:g}, "
                f"{self.max_days:g}"
            )
        least = max(self.exit_days, self.roll_days or 0.0)
        if self.min_days <= least:
            raise ValueError(
                f"gamma_scalper: min_days: expected more than exit_days and roll_days ({least:g}), found {self.min_days:g}: "
                "what is bought would be sold at once"
            )
        if self.exit_margin is not None and self.exit_margin >= self.margin and self.forecast.kind != "always":
            raise ValueError(
                f"gamma_scalper: exit_margin: expected less than margin ({self.margin:g}), found {self.exit_margin:g}: "
                "what was entered would be left at once"
            )
        if not (math.isfinite(self.amount) and self.amount > 0.0):
            raise ValueError(f"gamma_scalper: amount: expected a number above 0, found {self.amount!r}")
        if self.look <= 0:
            raise ValueError(f"gamma_scalper: look: expected longer than zero, found {self.look} ns")

    # ------------------------------------------------------------------ the Strategy protocol

    def start(self, view: StrategyView) -> Sequence[Target]:
        """Take over what the book holds of its kind, else enter when the rule says so."""
        self._memory = msgspec.structs.replace(self._adopted(view), began=view.now)
        return self._decide(view)

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """Nothing: it acts on its own clock."""
        return ()

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """Look at the market; shortly after its own orders, only at what they filled."""
        if name != "filled":
            return self._decide(view)
        self._track(view, view.chain(self.underlying))
        self._remember(view)
        return ()

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """What it bought or wrote is closed, unless `at_end` says hold; what the owner brought stays."""
        chain = view.chain(self.underlying)
        self._track(view, chain)
        self._remember(view)
        if self.at_end == "hold":
            return []
        return self._worker.closing(view, chain, self._memory.bought)

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """Never woken by quotes."""
        return UNTIL_TIMER

    def watches(self) -> Sequence[str]:
        """The underlying."""
        return (self.underlying,)

    def trades(self) -> Sequence[str]:
        """Nothing but options, which are chosen as it goes."""
        return ()

    def restore(self, view: StrategyView, memory: bytes) -> None:
        """Go on from the memory; its timers still ring."""
        found = msgspec.json.decode(memory, type=Memory | None)
        if found is not None:
            self._memory = found
            self._worker.asked = found.asked

    def follow(self, view: StrategyView, renamed: Mapping[str, str]) -> None:
        """Go on under the underlying's new id."""
        self.underlying = renamed.get(self.underlying, self.underlying)
        self._worker.underlying = self.underlying

    def corporate(self, view: StrategyView, event: Corporate) -> Sequence[Target]:
        """Contracts changed their ids and quantities: so does what is wanted; the price before and after is not one path."""
        changes = {c.old: (c.new, c.ratio) for c in event.conversions}
        m = self._memory
        if event.what == "dividend" and event.instrument == self.underlying and event.cash:
            self._memory = msgspec.structs.replace(m, bars=msgspec.structs.replace(m.bars, ts=NEVER))
        elif changes or event.instrument == self.underlying:
            legs = tuple(
                Leg(changes[leg.instrument][0], leg.quantity * changes[leg.instrument][1])
                if leg.instrument in changes
                else leg
                for leg in m.legs
            )
            self._memory = msgspec.structs.replace(
                m,
                legs=legs,
                closing=tuple(changes.get(key, (key, 1))[0] for key in m.closing),
                bought=tuple(changes.get(key, (key, 1))[0] for key in m.bought),
                sight=None,
                bars=msgspec.structs.replace(m.bars, ts=NEVER),
                asked=(),
            )
            self._worker.asked = ()
        self._remember(view)
        return ()

    # ------------------------------------------------------------------ one look

    def _decide(self, view: StrategyView) -> list[Target]:
        view.wake_at(view.now + self.look, "look")
        if not view.is_open(self.underlying):
            return []
        chain = view.chain(self.underlying)
        self._end_dead_legs(view)
        self._track(view, chain)
        self._see_bar(view)
        self._choose(view, chain)
        made = self._worker.targets(view, chain, self._wanted())
        if made:
            view.wake_at(view.now + min(SETTLE, self.look), "filled")
        self._memory = msgspec.structs.replace(
            self._memory,
            asked=self._worker.asked,
            orders=self._memory.orders + len(made),
            sums=msgspec.structs.replace(
                self._memory.sums, spread_cost=self._memory.sums.spread_cost + half_spreads(view, made)
            ),
            closing=tuple(k for k in self._memory.closing if view.held(k) or view.working(k)),
        )
        self._remember(view)
        return made

    def _wanted(self) -> list[Wanted]:
        m = self._memory
        wanted = {
            key: Wanted(instrument=key, quantity=ZERO, unrounded=0.0, reason=m.why_close or f"{self.name}: close")
            for key in m.closing
        }
        for leg in m.legs:
            wanted[leg.instrument] = Wanted(
                instrument=leg.instrument, quantity=leg.quantity, unrounded=float(leg.quantity), reason=m.why_open
            )
        return list(wanted.values())

    def _choose(self, view: StrategyView, chain: Chain) -> None:
        """Enter, stay, roll or leave."""
        m = self._memory
        if m.legs:
            why, word = self._why_leave(view, chain)
            if word == "roll":
                self._roll(view, chain, why)
            elif why:
                self._leave(view, why, word)
            return
        if m.closing or view.now < m.rests_until:
            return
        found = self._structure(view, chain)
        if isinstance(found, str):
            view.skip(self.underlying, f"{found}; waiting")
            return
        edge = self._edge(view, chain, found)
        if edge:
            self._enter(view, found, f"{self.name}: {found.words}; {edge}", fresh=True)

    def _enter(self, view: StrategyView, found: Choice, why: str, *, fresh: bool) -> None:
        m = self._memory
        equity = view.equity()
        self._memory = msgspec.structs.replace(
            m,
            legs=found.legs,
            why_open=why,
            entries=m.entries + fresh,
            entered=view.now,
            equity=None if equity is None else float(equity),
            premium=m.premium + found.premium,
            entry_vols=found.vols,
            need=found.need if m.need is None or found.need is None else max(m.need, found.need),
            bought=tuple(sorted({*m.bought, *(leg.instrument for leg in found.legs)})),
            closing=tuple(key for key in m.closing if key not in {leg.instrument for leg in found.legs}),
        )

    def _leave(self, view: StrategyView, why: str, word: str) -> None:
        m = self._memory
        rests = word in {"stop", "profit", "forecast"}
        self._memory = msgspec.structs.replace(
            m,
            legs=(),
            closing=tuple(sorted({*m.closing, *(leg.instrument for leg in m.legs)})),
            why_close=f"{self.name}: {why}",
            exits={**m.exits, word: m.exits.get(word, 0) + 1},
            rests_until=view.now + self.rest if rests else m.rests_until,
            equity=None,
        )

    def _roll(self, view: StrategyView, chain: Chain, why: str) -> None:
        """Into the structure that would be chosen today; with none at hand it stays, unless the days say leave."""
        m = self._memory
        held = {leg.instrument for leg in m.legs}
        found = self._structure(view, chain)
        if isinstance(found, str):
            view.skip(self.underlying, f"{why}, but {found}; waiting")
            return
        if {leg.instrument for leg in found.legs} == held:
            return
        edge = self._edge(view, chain, found)
        if not edge:
            self._leave(view, f"{why}, and the next structure has no edge", "no_roll")
            return
        words = f"{self.name}: roll, {why}: {found.words}; {edge}"
        self._memory = msgspec.structs.replace(
            m,
            closing=tuple(sorted({*m.closing, *held})),
            why_close=f"{self.name}: roll, {why}",
            rolls=m.rolls + 1,
        )
        self._enter(view, found, words, fresh=False)

    # ------------------------------------------------------------------ rules

    def _why_leave(self, view: StrategyView, chain: Chain) -> tuple[str, str]:
        """Why what is held should be left or rolled, and the rule's word; empty to stay."""
        m = self._memory
        rows = self._rows(chain)
        if not rows:
            return "", ""
        left = min(float(chain.tau[r]) for r in rows)
        days = min((int(chain.expiry[r]) - view.now) / NS_PER_DAY for r in rows)
        equity = view.equity()
        if equity is not None and m.equity is not None:
            gain = float(equity) - m.equity
            if self.stop_loss is not None and gain <= -self.stop_loss:
                return f"stop: the account lost {-gain:,.2f} since the entry, {self.stop_loss:,.2f} allowed", "stop"
            if self.take_profit is not None and gain >= self.take_profit:
                return f"profit: the account gained {gain:,.2f} since the entry", "profit"
        if days <= self.exit_days:
            return f"{days:.2f} days to expiry, {self.exit_days:g} is the end", "days"
        implied = self._implied(chain, rows)
        ahead = self._ahead(left)
        if self.exit_margin is not None and self.sign * (ahead - implied) < self.exit_margin:
            return (
                f"the forecast {ahead:.2%} against {implied:.2%} implied is no longer worth {self.exit_margin:+.2%}",
                ("forecast"),
            )
        if self.roll_days is not None and days <= self.roll_days:
            return f"{days:.2f} days to expiry, {self.roll_days:g} is for rolling", "roll"
        spot = view.risk(self.underlying).spot
        strike = sum(float(chain.strike[r]) for r in rows) / len(rows)
        away = abs(spot / (strike / (self.moneyness if self.structure == "straddle" else 1.0)) - 1.0)
        if self.roll_moneyness is not None and away > self.roll_moneyness:
            return f"spot {spot:g} is {away:.2%} from the strikes' middle {strike:g}", "roll"
        return "", ""

    def _ahead(self, horizon: float) -> float:
        """The forecast over `horizon` years; one that is costly to fit is kept until another bar has come."""
        bars = self._memory.bars
        if self.forecast.kind != "garch":
            return forecast_vol(bars, self.forecast, horizon=horizon)
        key = (bars.count, bars.number, round(horizon * self.forecast.periods_per_year))
        if self._fitted is None or self._fitted[0] != key:
            self._fitted = (key, forecast_vol(bars, self.forecast, horizon=horizon))
        return self._fitted[1]

    def _edge(self, view: StrategyView, chain: Chain, found: Choice) -> str:
        """The words of the entry rule when it is met, else empty; an unknown forecast is on the record."""
        if self.forecast.kind == "always":
            return f"implied {found.vols[1]:.2%}"
        rows = [chain.ids.index(leg.instrument) for leg in found.legs]
        ahead = self._ahead(float(min(chain.tau[r] for r in rows)))
        view.gauge("forecast", ahead)
        view.gauge("implied", found.vols[1])
        if math.isnan(ahead):
            view.skip(self.underlying, f"the {self.forecast.kind} forecast has not seen enough bars yet; waiting")
            return ""
        edge = self.sign * (ahead - found.vols[1])
        if edge <= self.margin:
            return ""
        beyond = "above" if self.sign > 0 else "below"
        return f"forecast {ahead:.2%} is {edge:.2%} {beyond} {found.vols[1]:.2%} implied, {self.margin:.2%} asked for"

    # ------------------------------------------------------------------ what to buy

    def _structure(self, view: StrategyView, chain: Chain) -> Choice | str:
        """The structure of the wanted expiry, strikes and size, or why there is none now."""
        spot = view.risk(self.underlying).spot
        if math.isnan(spot):
            return f"no price of {self.underlying}"
        expiry = self._expiry(view, chain)
        if expiry is None:
            return f"no listed expiry of {self.underlying} within {self.min_days:g} to {self.max_days:g} days"
        pair: list[int] = []
        for cp in (1, -1):
            row = self._leg_row(view, chain, expiry, cp, spot)
            if isinstance(row, str):
                return row
            pair.append(row)
        if self.structure == "straddle" and chain.strike[pair[0]] != chain.strike[pair[1]]:
            both = self._straddle_rows(view, chain, expiry, spot)
            if isinstance(both, str):
                return both
            pair = both
        return self._sized(chain, pair)

    def _expiry(self, view: StrategyView, chain: Chain) -> int | None:
        """The expiry whose days are nearest to those wanted, the nearer of two; none within the bounds gives None."""
        ends = [int(e) for e in np.unique(chain.expiry)]
        days = [(e - view.now) / NS_PER_DAY for e in ends]
        inside = [
            (abs(d - self.days), e) for d, e in zip(days, ends, strict=True) if self.min_days <= d <= self.max_days
        ]
        return min(inside)[1] if inside else None

    def _free(self, view: StrategyView, chain: Chain) -> NDArray[np.bool_]:
        """Contracts that the book does not hold for another reason, with a vol. Shape: (n,)."""
        mine = {leg.instrument for leg in self._memory.legs} | set(self._memory.bought) | set(self._memory.closing)
        free = [key in mine or not view.exposure(key) for key in chain.ids]
        return np.asarray(np.asarray(free, dtype=bool) & np.isfinite(np.asarray(chain.vol)))

    def _wanted_strike(self, cp: int, spot: float) -> float:
        return spot * (self.moneyness if self.width is None else self.moneyness * (1.0 + cp * self.width))

    def _leg_row(self, view: StrategyView, chain: Chain, expiry: int, cp: int, spot: float) -> int | str:
        """The row nearest to the wanted strike or delta among those that can be traded, or why there is none."""
        here = (np.asarray(chain.expiry) == expiry) & (np.asarray(chain.cp) == cp)
        if not here.any():
            return f"no listed {'call' if cp > 0 else 'put'} of the chosen expiry"
        strikes, deltas = np.asarray(chain.strike), np.asarray(chain.delta)
        if self.delta is not None:
            miss = np.abs(np.abs(deltas) - self.delta)
        else:
            miss = np.abs(strikes / self._wanted_strike(cp, spot) - 1.0)
        good = here & self._free(view, chain) & good_rows(chain, view.now, self.execution) & np.isfinite(miss)
        nearest = int(np.flatnonzero(here)[np.argmin(np.where(np.isfinite(miss), miss, np.inf)[here])])
        if not good.any():
            return why_not(chain, nearest, view.now, self.execution) or f"{chain.ids[nearest]} has no vol"
        row = int(np.flatnonzero(good)[np.argmin(miss[good])])
        allowed = self.tolerance if self.delta is None else 0.5 * self.delta
        if miss[row] > allowed:
            reason = why_not(chain, nearest, view.now, self.execution)
            return (
                reason or f"the nearest contract that trades, {chain.ids[row]}, is {miss[row]:.2%} from what is wanted"
            )
        return row

    def _straddle_rows(self, view: StrategyView, chain: Chain, expiry: int, spot: float) -> list[int] | str:
        """The call and the put of the strike nearest to the wanted one at which both can be traded."""
        good = (np.asarray(chain.expiry) == expiry) & self._free(view, chain)
        good &= good_rows(chain, view.now, self.execution)
        calls = {float(chain.strike[r]): int(r) for r in np.flatnonzero(good & (np.asarray(chain.cp) == 1))}
        puts = {float(chain.strike[r]): int(r) for r in np.flatnonzero(good & (np.asarray(chain.cp) == -1))}
        want = self._wanted_strike(1, spot)
        both = sorted((abs(k / want - 1.0), k) for k in set(calls) & set(puts))
        if not both or both[0][0] > self.tolerance:
            return f"no strike within {self.tolerance:.1%} of {want:g} has a good quote of call and put"
        return [calls[both[0][1]], puts[both[0][1]]]

    def _sized(self, chain: Chain, rows: Sequence[int]) -> Choice | str:
        """As many whole structures as the budget, the display and the largest size allow."""
        touch = chain.ask if self.sign > 0 else chain.bid
        size = chain.ask_size if self.sign > 0 else chain.bid_size
        per = {
            "contracts": 1.0,
            "vega": sum(float(chain.vega[r] * chain.multiplier[r]) for r in rows),
            "gamma": sum(float(chain.gamma[r] * chain.multiplier[r]) for r in rows),
            "premium": sum(float(touch[r] * chain.multiplier[r]) for r in rows),
        }[self.budget]
        if not per > 0.0:
            return f"the structure's {self.budget} is {per:g}"
        exact = self.amount / per
        shown = [float(size[r]) for r in rows if np.isfinite(size[r])]
        most = min([float(self.max_contracts), *(self.of_display * s for s in shown if self.of_display is not None)])
        count = math.floor(min(exact, most) + 1e-9)
        if count < 1:
            return f"a {self.budget} of {self.amount:g} at {per:g} a structure, {most:g} at most, buys no whole one"
        quantity = Decimal(self.sign * count)
        middle = [0.5 * float(chain.bid[r] + chain.ask[r]) for r in rows]
        half = [0.5 * float(chain.ask[r] - chain.bid[r]) for r in rows]
        vega = np.array([float(chain.vega[r]) for r in rows])
        vol = np.array([float(chain.vol[r]) for r in rows])
        mid = float(vega @ vol / vega.sum())
        wide = float(sum(half) / vega.sum())
        multiplier = [float(chain.multiplier[r]) for r in rows]
        names = " + ".join(chain.ids[r].strip() for r in rows)
        verb = "buy" if self.sign > 0 else "write"
        return Choice(
            legs=tuple(Leg(chain.ids[r], quantity) for r in rows),
            unrounded=self.sign * exact,
            premium=self.sign * count * sum(m * x for m, x in zip(middle, multiplier, strict=True)),
            vols=(mid - wide, mid, mid + wide),
            need=count / min(shown) if shown and min(shown) > 0.0 else None,
            words=f"{verb} {count} {self.structure} {names} ({self.budget} {exact:.2f} before lots)",
        )

    def _adopted(self, view: StrategyView) -> Memory:
        """The memory of one who brought a structure of this side: the book's options on the underlying, as one."""
        chain = view.chain(self.underlying)
        held = [(r, view.held(key)) for r, key in enumerate(chain.ids) if view.held(key)]
        gamma = sum(float(q) * float(chain.gamma[r]) for r, q in held)
        if not held or not self.sign * gamma > 0.0:
            return Memory()
        equity = view.equity()
        return Memory(
            legs=tuple(Leg(chain.ids[r], q) for r, q in held),
            why_open=f"{self.name}: held at the start",
            entered=view.now,
            equity=None if equity is None else float(equity),
        )

    # ------------------------------------------------------------------ what it earned and paid

    def _rows(self, chain: Chain) -> list[int]:
        """The rows of the structure's legs that still live."""
        place = {key: i for i, key in enumerate(chain.ids)}
        return [place[leg.instrument] for leg in self._memory.legs if leg.instrument in place]

    def _implied(self, chain: Chain, rows: Sequence[int]) -> float:
        """The vol of the structure: its legs' by vega."""
        vega = np.array([float(chain.vega[r]) for r in rows])
        vol = np.array([float(chain.vol[r]) for r in rows])
        total = float(vega.sum())
        return float(vega @ vol / total) if total > 0.0 else math.nan

    def _end_dead_legs(self, view: StrategyView) -> None:
        """A leg that expired ends the structure: what is left of it is closed."""
        m = self._memory
        gone = {leg.instrument for leg in m.legs if is_over(view, leg.instrument)}
        if gone:
            self._leave(view, "a leg has expired", "expired")
        m = self._memory
        self._memory = msgspec.structs.replace(
            m,
            closing=tuple(key for key in m.closing if not is_over(view, key)),
            bought=tuple(key for key in m.bought if not is_over(view, key)),
        )

    def _see_bar(self, view: StrategyView) -> None:
        price = view.risk(self.underlying).spot
        if self.forecast.kind in {"always", "fixed"} or not price > 0.0:
            return
        bars = bars_after(self._memory.bars, self.forecast, view.now, price)
        if bars is not self._memory.bars:
            self._memory = msgspec.structs.replace(self._memory, bars=bars)

    def _track(self, view: StrategyView, chain: Chain) -> None:
        """Add up what happened since the last sight, and take another of what is held now."""
        m = self._memory
        spot = view.risk(self.underlying).spot
        place = {key: i for i, key in enumerate(chain.ids)}
        keys = sorted({leg.instrument for leg in m.legs} | set(m.closing))
        seen = []
        for key in keys:
            held = view.held(key)
            if not held or key not in place:
                continue
            r = place[key]
            mark = LegMark(
                key,
                float(held) * float(chain.multiplier[r]),
                float(chain.vol[r]),
                float(chain.gamma[r]),
                float(chain.vega[r]),
                float(chain.theta[r]),
                float(chain.tau[r]),
            )
            if not all(map(math.isfinite, (mark.vol, mark.gamma, mark.vega, mark.theta))):
                return  # unknown now: the next sight spans the gap
            seen.append(mark)
        if not math.isfinite(spot):
            return
        now = Sight(view.now, spot, tuple(seen))
        sums = m.sums if m.sight is None else added(m.sums, m.sight, now)
        self._memory = msgspec.structs.replace(m, sight=now if seen else None, sums=sums)
        self._show(view, now, sums)

    def _show(self, view: StrategyView, sight: Sight, sums: Sums) -> None:
        """The gauges of this look."""
        view.gauge("gamma earned", sums.gamma_earned)
        view.gauge("theta paid", sums.theta_paid)
        view.gauge("realised vol", math.sqrt(sums.realised / sums.years) if sums.years > 0.0 else math.nan)
        left = max((leg.tau for leg in sight.legs), default=math.nan)
        view.gauge("forecast", self._ahead(left) if sight.legs else math.nan)
        moves = break_even(sight)
        view.gauge("implied", moves.vol)
        view.gauge("break-even move a day", moves.by_vol)

    def _remember(self, view: StrategyView) -> None:
        view.memory(self.name, self._memory)

    # ------------------------------------------------------------------ the report

    def figures(self, view: StrategyView) -> Figures:
        """What was held, earned and paid; what the article asks of every strategy."""
        m, s = self._memory, self._memory.sums
        years = s.years if s.years > 0.0 else math.nan
        moves = break_even(m.sight) if m.sight is not None else MoveNeeded(math.nan, math.nan, math.nan, math.nan)
        realised, implied = math.sqrt(s.realised / years), math.sqrt(s.implied / years)
        weighted = s.weighted_implied if s.weighted_implied else math.nan
        days = (view.now - m.began) / NS_PER_DAY if m.began != NEVER else math.nan
        held = " + ".join(f"{leg.quantity} {leg.instrument.strip()}" for leg in m.legs)
        return {
            "gamma scalping": {
                "structure held at the end": held or "none",
                "entries": float(m.entries),
                "rolls": float(m.rolls),
                **{f"exits by {word}": float(count) for word, count in sorted(m.exits.items())},
                "premium paid, at the middle": m.premium,
                "gamma earned": s.gamma_earned,
                "theta paid": s.theta_paid,
                "gamma less theta": s.gamma_earned - s.theta_paid,
                "vega": s.vega_pnl,
                "years held, by the model's clock": s.years,
                "looks while held": float(s.looks),
            },
            "realised against implied": {
                "realised vol while held": known(realised),
                "implied vol while held": known(implied),
                "realised over implied variance, by dollar gamma": known(s.weighted_realised / weighted),
                "forecast at the end": known(self._ahead(self.days / 365.0)),
                "looks beyond the break-even move": known(s.over / s.looks if s.looks else math.nan),
            },
            "break-even move": {
                "a calendar day, sigma S sqrt(1/365)": known(moves.by_vol),
                "a calendar day, from theta and gamma": known(moves.by_theta),
                "a session, sigma S sqrt(1/252)": known(moves.by_session),
                "implied vol": known(moves.vol),
            },
            "considerations": {
                "transaction cost: half spreads of what was asked for": s.spread_cost,
                "liquidity: largest order over displayed size": m.need,
                "model risk: vol at the bid, last entry": None if m.entry_vols is None else known(m.entry_vols[0]),
                "model risk: vol at the middle, last entry": None if m.entry_vols is None else known(m.entry_vols[1]),
                "model risk: vol at the ask, last entry": None if m.entry_vols is None else known(m.entry_vols[2]),
                "option targets a day": known(m.orders / days if days > 0.0 else math.nan),
            },
        }


# --------------------------------------------------------------------------- sums


def added(sums: Sums, before: Sight, now: Sight) -> Sums:
    """The sums after an interval: what was held at its start, moved as the market moved until its end.

    gamma earned = 0.5 Gamma dS^2, theta paid = -Theta dt, vega = sum vega dsigma, each with the Greeks of the start and dt
    by the model's clock (the fall of the legs' tau), so that gamma less theta tends to sum 0.5 Gamma S^2 (r^2 - sigma^2 dt)
    where rates are 0 (Ahmad and Wilmott 2005).
    """
    if not before.legs:
        return sums
    ends = {leg.instrument: leg for leg in now.legs}
    dt = max((leg.tau - ends[leg.instrument].tau for leg in before.legs if leg.instrument in ends), default=math.nan)
    if math.isnan(dt):
        dt = min((now.ts - before.ts) / NS_PER_YEAR, max(leg.tau for leg in before.legs))
    dS, r = now.spot - before.spot, math.log(now.spot / before.spot)
    gamma = sum(leg.weight * leg.gamma for leg in before.legs)
    theta = sum(leg.weight * leg.theta for leg in before.legs)
    vega = sum(leg.weight * leg.vega for leg in before.legs)
    vol = sum(leg.weight * leg.vega * leg.vol for leg in before.legs) / vega if vega else 0.0
    dollar = abs(gamma) * before.spot**2
    moved = sum(
        leg.weight * leg.vega * (ends[leg.instrument].vol - leg.vol) for leg in before.legs if leg.instrument in ends
    )
    return msgspec.structs.replace(
        sums,
        gamma_earned=sums.gamma_earned + 0.5 * gamma * dS * dS,
        theta_paid=sums.theta_paid - theta * dt,
        vega_pnl=sums.vega_pnl + moved,
        realised=sums.realised + r * r,
        implied=sums.implied + vol * vol * dt,
        years=sums.years + dt,
        weighted_realised=sums.weighted_realised + dollar * r * r,
        weighted_implied=sums.weighted_implied + dollar * vol * vol * dt,
        looks=sums.looks + 1,
        over=sums.over + (abs(r) > vol * math.sqrt(max(dt, 0.0))),
    )


class MoveNeeded(NamedTuple):
    """The structure's vol and the move of the underlying, in currency, that pays a day's theta."""

    vol: float
    by_vol: float
    by_theta: float
    by_session: float


def break_even(sight: Sight) -> MoveNeeded:
    """The move a day from which gamma earns more than theta costs: sigma S sqrt(dt), and sqrt(2 |Theta| dt / Gamma).

    The two agree where rates and yields are 0, for then Theta = -0.5 Gamma S^2 sigma^2 (Black and Scholes 1973). dt is a
    calendar day, 1/365; `by_session` takes 1/252. NaN where nothing is held or gamma is 0.
    """
    gamma = sum(leg.weight * leg.gamma for leg in sight.legs)
    theta = sum(leg.weight * leg.theta for leg in sight.legs)
    vega = sum(leg.weight * leg.vega for leg in sight.legs)
    if not vega or not gamma:
        return MoveNeeded(math.nan, math.nan, math.nan, math.nan)
    vol = sum(leg.weight * leg.vega * leg.vol for leg in sight.legs) / vega
    pays = -theta / gamma
    by_theta = math.sqrt(2.0 * pays / 365.0) if pays >= 0.0 else math.nan
    return MoveNeeded(vol, vol * sight.spot / math.sqrt(365.0), by_theta, vol * sight.spot / math.sqrt(TRADING_DAYS))
