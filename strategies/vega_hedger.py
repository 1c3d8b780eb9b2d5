"""A vega hedger keeps a book's vega, by tenor, and its gamma inside limits by trading other listed options.

Law: it acts only when a limit is left, and then by the cheapest whole lots that bring every exposure back inside the aim:
half spread, fee and the re-hedge of the delta they bring, plus the risk that is left (`bot.pricing.hedge_program`). It trades
nothing the book held for another reason. The delta is left to a hedger on the same book, which follows.

A vega at time tau is shared between the tenors around it, linear in log tenor. Vols at tenors move together with correlation
exp(-decay |ln(T_i/T_j)|) and with a vol of vol that falls as (T_ref/T)^exponent; that is what makes a residual in one bucket
worth more or less than in another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    own_quantities,
)
from bot.core.ports import Chain, Figures, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.domain.units import NEVER, NS_PER_DAY, NS_PER_MINUTE, NS_PER_YEAR, Nanos
from bot.pricing.hedge_program import bucket_weights, risk_matrix, tenor_correlation, tenor_vol_of_vol
from strategies.policies.delta_gamma_vega import Candidate, Choice, Choices, DeltaGammaVega, Exposures

Array = NDArray[np.float64]

DAYS_PER_YEAR: Final = 365.0
KEENER: Final = (1.0, 1e2, 1e4, 1e6)
"""Where no lots meet the limits: how much more the risk left is made to weigh, until some trade is worth its cost."""


class Covered(NamedTuple):
    """The exposures a vega hedger keeps: gamma, and vega by tenor. Shape: vega (tenors,)."""

    gamma: float
    vega: Array

    def values(self) -> tuple[float, ...]:
        """Gamma first, then the buckets."""
        return (self.gamma, *(float(v) for v in self.vega))


class VegaModel(msgspec.Struct, frozen=True, kw_only=True):
    """How vols at tenors move: absolute vol of vol per square root of a year at `reference` days, and their correlation."""

    vol_of_vol: float = 0.20
    reference: float = 30.0
    exponent: float = 0.5
    decay: float = 0.3

    def covariance(self, tenors: Sequence[float], *, spot: float, vol: float, horizon: float) -> Array:
        """The covariance of the P&L of a unit of gamma and of vega in each bucket over `horizon` years.

        Shape: tenors in days (k,); result (1 + k, 1 + k). The delta is hedged and has no row.
        """
        years = np.asarray(tenors, np.float64) / DAYS_PER_YEAR
        whole = risk_matrix(
            spot=spot,
            vol=vol,
            horizon=horizon,
            vol_of_vol=tenor_vol_of_vol(
                years, level=self.vol_of_vol, reference=self.reference / DAYS_PER_YEAR, exponent=self.exponent
            ),
            vol_correlation=tenor_correlation(years, decay=self.decay),
        )
        return whole[1:, 1:]


def exposures_of(chain: Chain, quantities: Mapping[str, float], tenors: Sequence[float]) -> Covered | str:
    """Gamma (units per currency) and vega by tenor (currency per 1.00 of vol) of a holding, or whose are not known.

    Shape: tenors in days (k,).
    """
    place = {key: i for i, key in enumerate(chain.ids)}
    rows = [place[key] for key in quantities if key in place]
    unknown = [chain.ids[r] for r in rows if not (math.isfinite(chain.vega[r]) and math.isfinite(chain.gamma[r]))]
    if unknown:
        return f"no vol for {', '.join(sorted(unknown))}: the vega of the book is not known"
    if not rows:
        return Covered(0.0, np.zeros(len(tenors)))
    weight = np.array([quantities[chain.ids[r]] * float(chain.multiplier[r]) for r in rows])
    shares = bucket_weights(np.maximum(np.asarray(chain.tau)[rows], 0.0), np.asarray(tenors) / DAYS_PER_YEAR)
    vega = np.asarray(chain.vega)[rows] * weight
    return Covered(float(np.asarray(chain.gamma)[rows] @ weight), np.asarray(shares @ vega))


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which options may hedge: bounds of |delta| and days to expiry, displayed size, and how many of each bucket to weigh."""

    min_delta: float = 0.10
    max_delta: float = 0.60
    min_days: float = 2.0
    max_days: float = 3650.0
    min_size: float = 0.0
    per_bucket: int = 4
    max_contracts: float = 1000.0
    of_display: float | None = None
    fee: float = 0.0
    delta_cost: float = 0.0


def candidates_of(
    chain: Chain,
    quantities: Mapping[str, float],
    ours: Sequence[str],
    tenors: Sequence[float],
    *,
    spot: float,
    now: Nanos,
    filters: Filters,
    execution: Execution,
) -> list[Candidate]:
    """The cheapest options by vega in each bucket, and those already held as hedges, as the programme wants them.

    The cost of a contract is half its spread, the fee, and `delta_cost` of the spot value of the delta it brings.
    """
    if not chain.ids:
        return []
    vega, delta = np.asarray(chain.vega), np.abs(np.asarray(chain.delta))
    days = (np.asarray(chain.expiry) - now) / NS_PER_DAY
    mine = np.array([key in ours for key in chain.ids])
    held = np.array([quantities.get(key, 0.0) != 0.0 for key in chain.ids])
    with np.errstate(invalid="ignore"):
        good = good_rows(chain, now, execution) & np.isfinite(vega) & (vega > 0.0) & (mine | ~held)
        sized = ~(np.minimum(np.asarray(chain.bid_size), np.asarray(chain.ask_size)) < filters.min_size)
        shaped = (delta >= filters.min_delta) & (delta <= filters.max_delta)
        timely = (days >= filters.min_days) & (days <= filters.max_days)
    multiplier = np.asarray(chain.multiplier)
    half = 0.5 * (np.asarray(chain.ask) - np.asarray(chain.bid))
    cost = multiplier * (half + filters.delta_cost * spot * delta) + filters.fee
    tau = np.maximum(np.asarray(chain.tau), 0.0)
    shares = bucket_weights(tau, np.asarray(tenors) / DAYS_PER_YEAR)
    main = np.argmax(shares, axis=0)
    chosen = {int(r) for r in np.flatnonzero(good & mine & held)}
    free = good & sized & shaped & timely
    for bucket in range(len(tenors)):
        rows = np.flatnonzero(free & (main == bucket))
        price = cost[rows] / (vega[rows] * multiplier[rows])
        chosen |= {int(r) for r in rows[np.argsort(price, kind="stable")[: filters.per_bucket]]}
    return [_candidate(chain, r, shares[:, r], float(cost[r]), filters) for r in sorted(chosen)]


def _candidate(chain: Chain, r: int, share: Array, cost: float, filters: Filters) -> Candidate:
    units = float(chain.multiplier[r])
    shown = [float(s) for s in (chain.bid_size[r], chain.ask_size[r]) if math.isfinite(s)]
    most = math.inf
    if filters.of_display is not None and shown:
        most = float(math.floor(filters.of_display * min(shown)))
    return Candidate(
        instrument=chain.ids[r],
        greeks=(units * float(chain.gamma[r]), *(units * float(chain.vega[r]) * float(s) for s in share)),
        cost=cost,
        lo=-filters.max_contracts,
        hi=filters.max_contracts,
        most=most,
    )


class Decision(NamedTuple):
    """What to trade, the aim it was solved for, whether whole lots met it, and what a contract of each option brings.

    Shape: aim and each of `greeks` (1 + tenors,).
    """

    choices: Choices
    aim: tuple[float, ...]
    met: bool
    greeks: Mapping[str, tuple[float, ...]]


def said(value: float, sign: str = "") -> str:
    """An exposure in words: whole units from a thousand on, else four figures.

    >>> said(-146079.7), said(4.4552, "+")
    ('-146,080', '+4.455')
    """
    return f"{value:{sign},.0f}" if abs(value) >= 1000.0 else f"{value:{sign}.4g}"


def worded(choice: Choice, decision: Decision, names: Sequence[str]) -> str:
    """One trade in words: what it moves, what it costs, and what all trades of the decision leave."""
    greeks = decision.greeks[choice.instrument]
    moved = ", ".join(f"{n} {said(g * float(choice.trade), '+')}" for n, g in zip(names, greeks, strict=True) if g)
    left = ", ".join(f"{n} {said(v)}" for n, v in zip(names, decision.choices.residual, strict=True))
    verb = "buy" if choice.trade > 0 else "sell"
    text = f"{verb} {abs(choice.trade)}: {moved}, for {choice.cost:,.2f}; all trades leave {left}"
    return text if decision.met else text + "; no whole lots meet the limits"


def decide(
    covered: Covered,
    candidates: Sequence[Candidate],
    held: Mapping[str, Decimal],
    *,
    names: Sequence[str],
    limits: Sequence[float],
    share: float,
    covariance: Array,
    policy: DeltaGammaVega,
) -> Decision:
    """The cheapest lots that bring gamma and every bucket inside the tightest aim that whole lots meet.

    The aims tried, in turn, never beyond the limit: the larger of `share` of the limit and the smallest lot of a bucket, the
    same with its largest lot, the limit; then, not met, the lots where they exceed it. Where none can be met, the trades
    that the risk left is worth, weighed ever more.
    Shape: names, limits (1 + tenors,), inf for no limit.
    """
    lots = _lots_of(candidates, len(limits))
    greeks = {c.instrument: c.greeks for c in candidates}
    aims = _aims(limits, lots, share)
    values = covered.values()
    for aim in aims:
        choices = policy.decide_all(_bounded(names, values, covariance, aim), candidates, held)
        if choices.within_limits:
            met = all(a <= limit for a, limit in zip(aim, limits, strict=True))
            return Decision(choices, aim, met, greeks)
    free = [math.inf] * len(limits)
    for factor in KEENER:
        keen = DeltaGammaVega(
            risk_aversion=policy.risk_aversion * factor, horizon=policy.horizon, max_nodes=policy.max_nodes
        )
        choices = keen.decide_all(_bounded(names, values, covariance, free), candidates, held)
        if choices.trades:
            break
    return Decision(choices, aims[-1], False, greeks)


def _aims(limits: Sequence[float], lots: Sequence[tuple[float, float]], share: float) -> list[tuple[float, ...]]:
    """The bounds to try, tightest first. Shape: limits, lots and each aim (1 + tenors,)."""
    pairs = list(zip(limits, lots, strict=True))
    inside = [
        tuple(min(limit, max(share * limit, lot[end])) if math.isfinite(limit) else limit for limit, lot in pairs)
        for end in (0, 1)
    ]
    beyond = [tuple(max(limit, lot[end]) for limit, lot in pairs) for end in (0, 1)]
    return list(dict.fromkeys([*inside, tuple(limits), *beyond]))


def _lots_of(candidates: Sequence[Candidate], count: int) -> list[tuple[float, float]]:
    """By exposure, the smallest and the largest that one lot of a candidate brings, among those it is the main one of."""
    found: list[tuple[float, float]] = []
    for i in range(count):
        sizes = [
            abs(c.greeks[i]) * float(c.lot or 1)
            for c in candidates
            if i == 0 or int(np.argmax(np.abs(c.greeks[1:]))) == i - 1
        ]
        found.append((min(sizes), max(sizes)) if sizes else (0.0, 0.0))
    return found


def _bounded(names: Sequence[str], values: Sequence[float], covariance: Array, aim: Sequence[float]) -> Exposures:
    bounds = tuple(limit if math.isfinite(limit) else None for limit in aim)
    return Exposures(
        names=tuple(names),
        values=tuple(values),
        covariance=tuple(tuple(float(x) for x in row) for row in covariance),
        floor=tuple(None if limit is None else -limit for limit in bounds),
        ceiling=bounds,
    )


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision looks at besides the market, and what the report tells."""

    ours: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()
    looks: int = 0
    outside: int = 0
    hedges: int = 0
    unmet: int = 0
    unproved: int = 0
    lots: float = 0.0
    spread_cost: float = 0.0
    planned_cost: float = 0.0
    need: float | None = None
    worst: tuple[float, ...] = ()
    last: tuple[float, ...] = ()
    began: Nanos = NEVER


class VegaHedger:
    """One underlying's vega and gamma in one book. Implements `Strategy`, `Restores`, `Reports` and `HearsCorporate`."""

    def __init__(
        self,
        *,
        underlying: str,
        vega_limit: ArrayLike,
        tenors: Sequence[float] = (30.0, 90.0),
        gamma_limit: float | None = None,
        aim: float = 0.0,
        risk_aversion: float = 1e-6,
        horizon: Nanos = NS_PER_DAY,
        vol_of_vol: float = 0.20,
        vol_of_vol_days: float = 30.0,
        vol_of_vol_exponent: float = 0.5,
        vol_decay: float = 0.3,
        min_delta: float = 0.10,
        max_delta: float = 0.60,
        min_days: float = 2.0,
        max_days: float = 3650.0,
        min_size: float = 0.0,
        per_bucket: int = 4,
        max_contracts: Decimal | int = 1000,
        of_display: float | None = None,
        fee: float = 0.0,
        delta_cost: float | None = None,
        max_nodes: int = 300,
        look: Nanos = 15 * NS_PER_MINUTE,
        orders: Style = "cross",
        aggression: float = 0.0,
        patience: Nanos = 15 * NS_PER_MINUTE,
        stale_after: Nanos | None = None,
        max_spread: float | None = None,
        at_end: Literal["close", "hold"] = "close",
        book: str = "main",
        name: str = "vega_hedger",
    ) -> None:
        self.name, self.book, self.underlying = name, book, underlying
        self.tenors = tuple(float(t) for t in tenors)
        self.limits = (math.inf if gamma_limit is None else gamma_limit, *_limits(vega_limit, self.tenors))
        self.names = ("gamma", *(f"vega {t:g}d" for t in self.tenors))
        self.aim, self.look, self.at_end, self.delta_cost = aim, look, at_end, delta_cost
        self.model = VegaModel(
            vol_of_vol=vol_of_vol, reference=vol_of_vol_days, exponent=vol_of_vol_exponent, decay=vol_decay
        )
        self.filters = Filters(
            min_delta=min_delta,
            max_delta=max_delta,
            min_days=min_days,
            max_days=max_days,
            min_size=min_size,
            per_bucket=per_bucket,
            max_contracts=float(max_contracts),
            of_display=of_display,
            fee=fee,
        )
        self.execution = Execution(
            style=orders, aggression=aggression, patience=patience, stale_after=stale_after, max_spread=max_spread
        )
        self.policy = DeltaGammaVega(risk_aversion=risk_aversion, horizon=horizon, max_nodes=max_nodes)
        self._refuse_contradictions()
        self._worker = Worker(underlying=underlying, book=book, execution=self.execution, policy=name)
        self._memory = Memory()

    def _refuse_contradictions(self) -> None:
        """ValueError for keys that make no sense."""
        if not self.tenors or any(b <= a for a, b in zip((0.0, *self.tenors), self.tenors, strict=False)):
            raise ValueError(f"vega_hedger: tenors: expected rising days above 0, found {list(self.tenors)}")
        if any(not limit > 0.0 for limit in self.limits):
            raise ValueError(f"vega_hedger: limits: expected numbers above 0, found {list(self.limits)}")
        if not 0.0 <= self.aim <= 1.0:
            raise ValueError(f"vega_hedger: aim: expected a share of the limit from 0 to 1, found {self.aim!r}")
        if not self.filters.min_delta < self.filters.max_delta or not self.filters.min_days < self.filters.max_days:
            raise ValueError("vega_hedger: expected min_delta < max_delta and min_days < max_days")
        if self.filters.per_bucket < 1 or self.look <= 0:
            raise ValueError("vega_hedger: expected per_bucket of at least 1 and a look longer than zero")

    # ------------------------------------------------------------------ the Strategy protocol

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The first look."""
        self._memory = Memory(began=view.now)
        return self._decide(view)

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """Nothing: it acts on its own clock."""
        return ()

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """Look at the book's exposures."""
        return self._decide(view)

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """Close the hedges, unless `at_end` says hold."""
        if self.at_end == "hold":
            return []
        return self._worker.closing(view, view.chain(self.underlying), self._memory.ours)

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
        """Hedges whose contracts changed their ids are hedges still."""
        changes = {c.old: c.new for c in event.conversions}
        if changes:
            self._worker.asked = ()
            ours = tuple(sorted(changes.get(key, key) for key in self._memory.ours))
            self._memory = msgspec.structs.replace(self._memory, ours=ours, asked=())
            view.memory(self.name, self._memory)
        return ()

    # ------------------------------------------------------------------ one look

    def _decide(self, view: StrategyView) -> list[Target]:
        view.wake_at(view.now + self.look, "look")
        if not view.is_open(self.underlying):
            return []
        m = self._memory
        self._memory = msgspec.structs.replace(m, ours=tuple(key for key in m.ours if not is_over(view, key)))
        chain = view.chain(self.underlying)
        made = self._worker.targets(view, chain, self._wanted(view, chain))
        m = self._memory
        self._memory = msgspec.structs.replace(
            m,
            asked=self._worker.asked,
            ours=tuple(sorted({*m.ours, *(line.instrument for target in made for line in target.lines)})),
            spread_cost=m.spread_cost + half_spreads(view, made),
        )
        view.memory(self.name, self._memory)
        return made

    def _wanted(self, view: StrategyView, chain: Chain) -> list[Wanted]:
        """What to hold of each hedge: what is held and working, but for what the decision of this look changes."""
        stay = {
            key: Wanted(
                instrument=key,
                quantity=view.held(key) + view.working(key),
                unrounded=view.exposure(key),
                reason=f"{self.name}: stay",
            )
            for key in self._memory.ours
        }
        quantities = own_quantities(view, chain)
        covered = exposures_of(chain, quantities, self.tenors)
        if isinstance(covered, str):
            view.skip(self.underlying, covered)
            return list(stay.values())
        self._note(view, covered)
        if not self._is_outside(covered):
            return list(stay.values())
        decision = self._solve(view, chain, covered, quantities)
        if decision is None:
            return list(stay.values())
        why = self._why(covered)
        for choice in decision.choices.trades:
            stay[choice.instrument] = Wanted(
                instrument=choice.instrument,
                quantity=choice.quantity,
                unrounded=choice.unrounded,
                reason=f"{self.name}: {why}; {worded(choice, decision, self.names)}",
            )
        self._count(chain, decision)
        if not decision.choices.trades:
            view.skip(self.underlying, f"{why}, but no whole lot of a candidate is worth its cost")
        return list(stay.values())

    def _solve(
        self, view: StrategyView, chain: Chain, covered: Covered, quantities: Mapping[str, float]
    ) -> Decision | None:
        risk = view.risk(self.underlying)
        vol = risk.vol if math.isfinite(risk.vol) else float(np.nanmedian(np.asarray(chain.vol)))
        if not (math.isfinite(risk.spot) and math.isfinite(vol)):
            view.skip(self.underlying, f"no price or vol of {self.underlying}")
            return None
        candidates = candidates_of(
            chain,
            quantities,
            self._memory.ours,
            self.tenors,
            spot=risk.spot,
            now=view.now,
            filters=msgspec.structs.replace(self.filters, delta_cost=self._delta_cost(view)),
            execution=self.execution,
        )
        if not candidates:
            view.skip(
                self.underlying, f"{self._why(covered)}, but no option has a quote that it may be hedged with; waiting"
            )
            return None
        return decide(
            covered,
            candidates,
            {c.instrument: view.held(c.instrument) + view.working(c.instrument) for c in candidates},
            names=self.names,
            limits=self.limits,
            share=self.aim,
            covariance=self.model.covariance(
                self.tenors, spot=risk.spot, vol=vol, horizon=self.policy.horizon / NS_PER_YEAR
            ),
            policy=self.policy,
        )

    def _delta_cost(self, view: StrategyView) -> float:
        """What hedging a unit of delta costs, as a share of spot: as configured, else half the underlying's quoted spread."""
        if self.delta_cost is not None:
            return self.delta_cost
        k = view.universe.index(self.underlying)
        bid, ask = view.market.bid(k), view.market.ask(k)
        return (ask - bid) / (ask + bid) if bid <= ask and bid + ask > 0.0 else 0.0

    def _is_outside(self, covered: Covered) -> bool:
        return any(abs(value) > limit for value, limit in zip(covered.values(), self.limits, strict=True))

    def _why(self, covered: Covered) -> str:
        """Which limits were left, in words."""
        return ", ".join(
            f"{name} {said(value)} is outside its limit {said(limit)}"
            for name, value, limit in zip(self.names, covered.values(), self.limits, strict=True)
            if abs(value) > limit
        )

    def _note(self, view: StrategyView, covered: Covered) -> None:
        m = self._memory
        values = covered.values()
        for name, value in zip(self.names, values, strict=True):
            view.gauge(name, value)
        worst = m.worst or (0.0,) * len(values)
        self._memory = msgspec.structs.replace(
            m,
            looks=m.looks + 1,
            outside=m.outside + self._is_outside(covered),
            worst=tuple(max(w, abs(v)) for w, v in zip(worst, values, strict=True)),
            last=values,
        )

    def _count(self, chain: Chain, decision: Decision) -> None:
        m, choices = self._memory, decision.choices
        need = m.need
        for choice in choices.trades:
            row = chain.ids.index(choice.instrument)
            shown = float(chain.ask_size[row] if choice.trade > 0 else chain.bid_size[row])
            if shown > 0.0:
                need = max(need or 0.0, abs(float(choice.trade)) / shown)
        self._memory = msgspec.structs.replace(
            m,
            hedges=m.hedges + bool(choices.trades),
            unmet=m.unmet + (not decision.met),
            unproved=m.unproved + (not choices.proved),
            lots=m.lots + sum(abs(float(c.trade)) for c in choices.trades),
            planned_cost=m.planned_cost + choices.cost,
            need=need,
        )

    # ------------------------------------------------------------------ the report

    def figures(self, view: StrategyView) -> Figures:
        """Exposures against their limits, what was traded and what it cost."""
        m = self._memory
        covered = exposures_of(
            view.chain(self.underlying), own_quantities(view, view.chain(self.underlying)), self.tenors
        )
        end = m.last if isinstance(covered, str) else covered.values()
        rows: dict[str, float | str | None] = {}
        for i, name in enumerate(self.names):
            rows[f"{name}: limit"] = known(self.limits[i])
            rows[f"{name}: largest seen"] = known(m.worst[i]) if m.worst else None
            rows[f"{name}: at the last look"] = known(m.last[i]) if m.last else None
            rows[f"{name}: at the end"] = known(end[i]) if end else None
        days = (view.now - m.began) / NS_PER_DAY if m.began != NEVER else math.nan
        return {
            "exposures": rows,
            "vega hedging": {
                "looks": float(m.looks),
                "looks outside a limit": float(m.outside),
                "hedges": float(m.hedges),
                "contracts": m.lots,
                "decisions that no lots could bring inside": float(m.unmet),
                "decisions not proved the best": float(m.unproved),
                "hedge options held at the end": float(sum(view.held(key) != 0 for key in m.ours)),
            },
            "considerations": {
                "transaction cost: half spreads of what was asked for": m.spread_cost,
                "transaction cost: as decided, with fees and the delta's": m.planned_cost,
                "liquidity: largest order over displayed size": m.need,
                "hedges a day": known(m.hedges / days if days > 0.0 else math.nan),
            },
        }


def _limits(given: ArrayLike, tenors: Sequence[float]) -> tuple[float, ...]:
    """One limit for each bucket, from one for all or one each."""
    found = np.atleast_1d(np.asarray(given, np.float64))
    if found.ndim != 1 or len(found) not in {1, len(tenors)}:
        raise ValueError(f"vega_hedger: vega_limit: expected one number or {len(tenors)}, found {given!r}")
    return tuple(float(x) for x in np.broadcast_to(found, (len(tenors),)))
