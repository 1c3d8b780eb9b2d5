"""A random run is a book, market, venue and rule drawn from one seed; law: a seed says all, so that two ways of playing it
may be told apart by nothing but the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np

from adapters.paper import PaperOptions
from bot.core.hedge_cost import CostEstimate, EstimatedHedge
from bot.core.ports import Hedge, HedgePolicy, StrategyView
from bot.core.quiet import UNTIL_TIMER, QuietBox
from bot.domain.costs import BasisPoints
from bot.domain.instruments import Instrument, OptionContract, Spot, Universe
from bot.domain.market import Quote, QuoteBatch
from bot.engine.limits import LimitSettings
from bot.engine.valuation import ValuationSettings
from strategies.delta_hedger import DeltaHedger
from strategies.policies.bartlett_delta import BartlettDelta
from strategies.policies.delta_band import DeltaBand
from strategies.policies.exact_band import ExactBand
from strategies.policies.fixed_fee_band import FixedFeeBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.guarded_band import GuardedBand
from strategies.policies.hoggard_whalley_wilmott import HoggardWhalleyWilmott
from strategies.policies.leland_delta import LelandDelta
from strategies.policies.move_band import MoveBand
from strategies.policies.pin_guard import PinGuard
from strategies.policies.static_hedge import StaticHedge
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline
from tests.simulation.bench import MINUTE, SECOND, START, STOCK, Bench, future, option

D = Decimal
OTHER = Spot(id="US:TWO", tick=D("0.01"), lot=D(1))
FUTURE = future("CME:UNDH2024", multiplier=10)
RULES = (
    "delta_band", "whalley_wilmott", "zakamouline", "fixed_fee", "move", "deviations", "pin_freeze", "pin_half", "pin_cap",
    "pin_zakamouline", "interval", "leland", "hww", "exact", "guarded", "bartlett", "static", "exact_waiting",
)  # fmt: skip


class Sleepless(DeltaHedger):
    """The hedger without its promises: woken at every quote, unless quotes never wake it."""

    def quiet(self, view: StrategyView) -> QuietBox | None:
        found = super().quiet(view)
        return found if found is UNTIL_TIMER else None


class Counting(DeltaHedger):
    """The hedger, and how often it was woken."""

    woken = 0

    def wake(self, view: StrategyView) -> Any:
        self.woken += 1
        return super().wake(view)


def policy_of(rng: np.random.Generator, name: str) -> HedgePolicy:
    """A rule of this name with settings at random."""
    aversion = float(10.0 ** rng.uniform(-6, -0.5))
    to = "edge" if rng.random() < 0.6 else "centre"
    width = float(rng.choice([0.5, 5.0, 40.0, 400.0]))
    inner: HedgePolicy = DeltaBand(half_width=width, to=to)
    if rng.random() < 0.5:
        inner = WhalleyWilmott(risk_aversion=aversion, to=to)
    pin: dict[str, Any] = {"within": str(rng.choice(["30m", "6h", "3d"]))}
    pin |= {"deviations": float(rng.choice([0.0, 0.5, 2.0])), "distance": float(rng.choice([0.2, 1.0, 3.0]))}
    every = str(rng.choice(["20s", "90s", "10m"]))
    made = {
        "delta_band": lambda: DeltaBand(half_width=width, to=to),
        "whalley_wilmott": lambda: WhalleyWilmott(
            risk_aversion=aversion, to=to, scale=float(rng.choice([0.3, 1.0, 3.0]))
        ),
        "zakamouline": lambda: Zakamouline(risk_aversion=aversion, to=to),
        "fixed_fee": lambda: FixedFeeBand(fee=float(rng.choice([0.0, 0.5, 20.0])), risk_aversion=aversion),
        "move": lambda: MoveBand(pct=float(rng.choice([0.02, 0.2, 1.0]))),
        "deviations": lambda: MoveBand(deviations=float(rng.choice([0.1, 0.5])), per=str(rng.choice(["10m", "1h"]))),
        "pin_freeze": lambda: PinGuard(inner=inner, action="freeze", **pin),
        "pin_half": lambda: PinGuard(inner=inner, action="half", **pin),
        "pin_cap": lambda: PinGuard(inner=inner, action="cap", cap=float(rng.choice([0.0, 300.0])), **pin),
        "pin_zakamouline": lambda: PinGuard(inner=Zakamouline(risk_aversion=aversion), action="half", **pin),
        "interval": lambda: FixedInterval(interval=every),
        "leland": lambda: LelandDelta(interval=every),
        "hww": lambda: HoggardWhalleyWilmott(interval=every),
        "exact": lambda: ExactBand(risk_aversion=0.02, dates=int(rng.choice([7, 60]))),
        "guarded": lambda: GuardedBand(
            risk_aversion=0.02, dates=9, candidates=[WhalleyWilmott(risk_aversion=aversion)]
        ),
        "bartlett": lambda: BartlettDelta(inner=inner, rho=-0.3, nu=0.5),
        "static": StaticHedge,
        "exact_waiting": lambda: PinGuard(inner=ExactBand(risk_aversion=0.02, dates=9), action="half", **pin),
    }
    return made[name]()


class Case(NamedTuple):
    """All that is drawn."""

    rule: str
    policy: HedgePolicy
    hedges: list[Hedge]
    instruments: list[Instrument]
    openings: list[tuple[str, int]]
    keywords: dict[str, Any]
    rows: QuoteBatch


def drawn(seed: int, *, rows: int = 3000, rule: str | None = None, early: bool | None = None) -> Case:
    """The case of a seed; a rule or early exercise may be asked for."""
    rng = np.random.default_rng(seed)
    name = rule or RULES[int(rng.integers(0, len(RULES)))]
    policy = policy_of(rng, name)
    takes_early = bool(rng.random() < 0.15) if early is None else early
    unders: list[Spot] = [STOCK, OTHER] if rng.random() < 0.3 else [STOCK]
    legs = [leg for under in unders for leg in contracts(rng, under)]
    if takes_early:
        legs = [msgspec.structs.replace(leg, style="american") if rng.random() < 0.7 else leg for leg in legs]
    openings = [(leg.id, int(q)) for leg, q in zip(legs, rng.integers(-30, 31, len(legs)), strict=True) if q]
    if rng.random() < 0.3:
        openings.append((STOCK.id, int(rng.integers(-50, 51)) or 1))
    openings = openings or [(legs[0].id, 5)]
    live = bool(rng.random() < 0.4)
    valuation = ValuationSettings(
        pricer="american" if takes_early else "european",
        vol="implied" if live else "fixed",
        vol_value=None if live else float(rng.choice([0.03, 0.2, 0.8])),
        rate=float(rng.choice([0.0, 0.05, -0.02])) if not takes_early else 0.04,
        dividend=float(rng.choice([0.0, 0.03, -0.01])) if not takes_early else float(rng.choice([0.0, 0.06])),
        stale_after=int(rng.choice([3, 40])) * SECOND if rng.random() < 0.2 else None,
    )
    hedges = [hedge_of(rng, under) for under in unders]
    keywords = {
        "valuation": valuation,
        "paper": PaperOptions(
            latency=int(rng.choice([0, 0, 1, 40])) * SECOND // 4,
            beyond="partial" if rng.random() < 0.4 else "ignore",
            commissions={"*": BasisPoints(bp=D(1))},
            on_bad_quote="reject" if rng.random() < 0.3 else "wait",
        ),
        "checks": LimitSettings(max_order_quantity=D(200)) if rng.random() < 0.3 else None,
        "needed": sorted({hedge.instrument for hedge in hedges} | {under.id for under in unders}),
        "end": START + int(rng.choice([20, 40])) * MINUTE,
        "seed": seed,
    }
    instruments: list[Instrument] = [STOCK, OTHER, FUTURE, *legs]
    return Case(name, policy, hedges, instruments, openings, keywords, session(rng, instruments, legs, rows))


def hedge_of(rng: np.random.Generator, under: Spot) -> Hedge:
    """A hedge of one underlying, mostly with itself."""
    target: float | tuple[float, float] = float(rng.choice([0.0, 0.0, 150.0]))
    if rng.random() < 0.15:
        target = (-80.0, 40.0)
    beta = 0.8 if rng.random() < 0.05 else None
    fields: dict[str, Any] = {
        "underlying": under.id,
        "instrument": FUTURE.id if under is STOCK and rng.random() < 0.25 else under.id,
        "target_delta": target,
        "beta": beta,
        "lot": D(10) if rng.random() < 0.2 else None,
    }
    if rng.random() < 0.3:
        return EstimatedHedge(**fields, estimate=CostEstimate(fraction=0.0001, quoted=True, ticket=0.5))
    return Hedge(**fields, cost=float(rng.choice([0.0, 1e-4, 1e-3, 1e-2])))


def contracts(rng: np.random.Generator, under: Spot) -> list[OptionContract]:
    """A few options on one underlying, some about to expire."""
    strikes = rng.choice(np.arange(85, 116), size=int(rng.integers(1, 5)), replace=False)
    days = rng.choice([0.005, 0.02, 0.2, 2, 9, 40, 400], size=len(strikes))
    root = "UND" if under is STOCK else "TWO"
    return [
        option(float(k), days=float(d), cp=1 if rng.random() < 0.5 else -1, underlying=under.id, root=root)
        for k, d in zip(strikes, days, strict=True)
    ]


def session(
    rng: np.random.Generator, instruments: Sequence[Instrument], legs: Sequence[OptionContract], rows: int
) -> QuoteBatch:
    """Quotes of everything in random order, some sides withdrawn, several an instant, now and then a jump."""
    universe = Universe(instruments)
    ts = START + np.cumsum(rng.choice([0, 1, 1, 3, 20], size=rows)) * SECOND // 2
    size = float(rng.choice([2e-5, 2e-4, 1e-3]))
    jumps = np.where(rng.random(rows) < 0.0005, 0.02 * rng.standard_normal(rows), 0.0)
    walk = 100.0 * np.exp(np.cumsum(rng.standard_normal(rows) * size + jumps))
    second = 100.0 * np.exp(np.cumsum(rng.standard_normal(rows) * size))
    linear = len(instruments) - len(legs)
    share = np.r_[[5.0, 3.0, 2.0], np.full(len(legs), 3.0 / max(len(legs), 1))]
    picks = rng.choice(len(instruments), size=rows, p=share / share.sum())
    picks[: len(instruments)] = np.arange(len(instruments))
    price = np.round(np.where(picks == 1, second, walk), 2)
    for j, leg in enumerate(legs, start=linear):
        path = walk if leg.underlying == STOCK.id else second
        inside = np.maximum(leg.cp * (path - float(leg.strike)), 0.0)
        price = np.where(picks == j, np.round(inside + 1.0 + 0.1 * rng.random(rows), 2), price)
    bid, ask = price - 0.01, price + 0.01
    bid = np.where(rng.random(rows) < 0.003, np.nan, bid)
    shown = rng.choice([3.0, 50.0, 5000.0], size=rows).astype(np.float32)
    index = np.array([universe.index(item.id) for item in instruments], dtype=np.int32)[picks]
    return QuoteBatch(instrument=index, ts_event=ts, ts_recv=ts, bid=bid, ask=ask, bid_size=shown, ask_size=shown)


def played(case: Case, kind: type[DeltaHedger], *, by_quote: bool = False, batch: int = 500) -> Bench:
    """The case played with a hedger of this kind."""
    run = Bench(
        [kind(hedges=case.hedges, policy=case.policy)],
        instruments=case.instruments,
        openings=case.openings,
        **case.keywords,
    )
    if by_quote:
        run.loop.bus.subscribe(Quote, lambda _: None, serves="watcher")
    for start in range(0, len(case.rows), batch):
        run.loop.take(case.rows.rows(start, min(start + batch, len(case.rows))), "bench")
    run.loop.finish()
    return run


def told(run: Bench) -> tuple[str, str, list[int]]:
    """The digest of all facts, that of all samples, and the instants of all steps with the rows they had seen."""
    table = run.loop.sampler.table()
    columns = [table.instants, table.grid, *table.prices.values(), *table.vols.values()]
    for track in table.tracks.values():
        columns += [track.pnl, track.costs, np.asarray(track.fills)]
    samples = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns))
    seen = [value for step in run.journal.steps for value in (step.ts, step.tape)]
    return run.journal.facts_digest.hexdigest(), samples.hexdigest(), seen
