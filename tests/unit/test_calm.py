"""A calm is a proof: a directed search of its box finds no price and instant at which the rule would trade, for every rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from scipy.optimize import minimize

from bot.core.ports import BandInput, HedgePlan, HedgePolicy, LegInput
from bot.core.surroundings import Limits, Surroundings, widest
from bot.domain.instruments import OptionContract, Universe
from bot.domain.units import NEVER, Nanos
from bot.engine.leg_inputs import LegInputs
from bot.engine.marks import Marks
from bot.engine.valuation import Valuation, ValuationSettings
from bot.pricing.room import Bounds, Extent
from strategies.policies.calm import Calm, Seen, calm
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_fee_band import FixedFeeBand
from strategies.policies.modified_vol import zakamouline_vol
from strategies.policies.move_band import MoveBand
from strategies.policies.pin_guard import PinGuard
from strategies.policies.reach import Reach, reach_of, within_reach
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline
from tests.simulation.bench import DAY, START, STOCK, option

SEEDS = range(24)


class World(NamedTuple):
    """One underlying, the options on it, a rule and what is held of the hedge."""

    legs: LegInputs
    marks: Marks
    column: int
    rule: Any
    cost: float
    held: float
    reach: Reach
    last_spot: float
    per_contract: float
    target: float

    def look(self, spot: float, now: Nanos) -> Seen:
        """What the rule sees at a price and an instant, as the hedger would show it."""
        self.marks.fold_quote(self.column, START, spot, spot, 1.0, 1.0)
        legs, rule = self.legs, self.rule
        delta, gamma = legs._legs.net(spot, now)
        shaped: LegInput | None = None
        if getattr(rule, "leg_deltas", None) is not None:
            shaped = legs.at(now, cost=self.cost)
            delta = float((shaped.weight * rule.leg_deltas(shaped)).sum())
        terms = legs.terms(now) if rule.needs_terms else (math.nan, math.nan)
        pc = self.per_contract
        want = (self.target - delta) / pc
        reach = None
        if getattr(rule, "bounded", False):
            reach = want + (delta - self.reach.hi) / pc, want + (delta - self.reach.lo) / pc
        x = BandInput(now, spot, want, self.held, gamma, *terms, legs.rate, pc, self.cost, START - DAY, self.last_spot)
        return Seen(x, delta + self.held * pc, (self.target, self.target), reach, shaped)

    def margin(self, spot: float, now: Nanos) -> float:
        """How deep the hedge lies inside the rule's band, in contracts; below zero it would trade."""
        seen = self.look(spot, now)
        band = self.rule.band(seen.x)
        if seen.reach is not None:
            band = within_reach(band, *seen.reach)
        return min(self.held - float(band.lo), float(band.hi) - self.held)


def drawn(seed: int, make: Callable[[np.random.Generator, np.ndarray], HedgePolicy], *, early: bool = False) -> World:
    """A random book with the hedge somewhere inside the rule's band: low vols, long and short times, both signs of gamma."""
    rng = np.random.default_rng([seed, 17])
    count = int(rng.integers(1, 6))
    strikes = rng.choice(np.arange(80, 121), size=count, replace=False)
    days = np.exp(rng.uniform(np.log(0.02), np.log(900.0), count))
    if rng.random() < 0.4:
        days[:] = days[0]  # one expiry: gammas of both signs at one time
    contracts = [
        option(float(k), days=float(d), cp=1 if rng.random() < 0.5 else -1) for k, d in zip(strikes, days, strict=True)
    ]
    vols = np.exp(rng.uniform(np.log(0.03), np.log(1.2), count))
    if rng.random() < 0.4:
        vols[:] = vols[0]
    quantities = {c.id: float(q) for c, q in zip(contracts, rng.integers(-30, 31, count), strict=True)}
    if not any(quantities.values()):
        quantities[contracts[0].id] = -7.0
    if early:
        contracts = [_american(c) for c in contracts]
    settings = ValuationSettings(
        pricer="american" if early else "european",
        vol="per_contract",
        vols={c.id: float(v) for c, v in zip(contracts, vols, strict=True)},
        rate=float(rng.choice([0.0, 0.06, 0.15, -0.03])) if not early else 0.05,
        dividend=float(rng.choice([0.0, 0.05, -0.02])) if not early else float(rng.choice([0.0, 0.08])),
    )
    universe = Universe([STOCK, *contracts])
    marks = Marks(universe)
    valuation = Valuation(universe, marks, settings)
    for c in contracts:
        valuation.add(c, now=START)
    column = universe.index(STOCK.id)
    spot = float(np.round(100.0 * np.exp(0.1 * rng.standard_normal()), 2))
    marks.fold_quote(column, START, spot, spot, 1.0, 1.0)
    legs = LegInputs(valuation.legs(STOCK.id, quantities), valuation, 0.0)
    rule: Any = make(rng, np.asarray(strikes, dtype=np.float64))
    plan: HedgePlan = legs.plan(START, cost=0.001, fixed_cost=0.0, lot=0.0, per_contract=1.0)
    rule = rule.prepared(plan) if getattr(rule, "prepared", None) is not None else rule
    cost = float(10.0 ** rng.uniform(-5, -1.5))
    reach = reach_of(plan.cp, plan.strike, plan.quantity, plan.tau)
    last = spot * (1.0 + 0.004 * rng.standard_normal())
    world = World(legs, marks, column, rule, cost, 0.0, reach, last, float(rng.choice([1.0, 50.0])), 0.0)
    seen = world.look(spot, START)
    band = rule.band(seen.x)
    lo, hi = float(band.lo), float(band.hi)
    place = float(rng.choice([0.02, 0.3, 0.5, 0.9, 0.999]))
    held = lo + place * (hi - lo) if math.isfinite(hi - lo) else seen.x.want + 3.0
    return world._replace(held=held)


def _american(contract: OptionContract) -> OptionContract:
    return msgspec.structs.replace(contract, style="american")


def found_calm(world: World) -> Calm | None:
    """The box from the second asking, which begins where the first one ended."""
    spot = world.marks.mid(world.column)
    first = calm(world.rule, world.legs, world.look(spot, START), last=None)
    if first is None:
        return None
    return calm(world.rule, world.legs, world.look(spot, START), last=first.extent) or first


def worst_margin(world: World, box: Calm) -> float:
    """The least margin that a search of the box finds: its corners, a grid, then downhill from the worst of them."""
    length = box.until - 1 - START

    def at(point: np.ndarray) -> float:
        u, v = np.clip(point, 0.0, 1.0)
        return world.margin(box.low + u * (box.high - box.low), START + int(v * length))

    grid = [np.array([u, v]) for u in np.linspace(0.0, 1.0, 7) for v in (0.0, 0.1, 0.5, 1.0)]
    worst = sorted(grid, key=at)[:2]
    least = at(worst[0])
    if math.isinf(least):
        return least
    for point in worst:
        found = minimize(at, point, method="Nelder-Mead", options={"maxfev": 60, "initial_simplex": _simplex(point)})
        least = min(least, float(found.fun))
    return least


def _simplex(point: np.ndarray) -> np.ndarray:
    return np.array([point, np.abs(point - [0.1, 0.0]), np.abs(point - [0.0, 0.1])])


def _aversion(rng: np.random.Generator) -> float:
    return float(10.0 ** rng.uniform(-6, 0))


def _inner(rng: np.random.Generator) -> HedgePolicy:
    if rng.random() < 0.5:
        return DeltaBand(half_width=float(rng.choice([2.0, 40.0, 300.0])))
    return WhalleyWilmott(risk_aversion=_aversion(rng))


def _pin(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "within": str(rng.choice(["2h", "2d", "90d"])),
        "distance": float(rng.choice([0.0, 0.5, 5.0])),
        "deviations": float(rng.choice([0.1, 1.0])),
    }


RULES: dict[str, Callable[[np.random.Generator, np.ndarray], HedgePolicy]] = {
    "delta band": lambda rng, _: DeltaBand(half_width=float(10.0 ** rng.uniform(-1, 3))),
    "whalley wilmott": lambda rng, _: WhalleyWilmott(
        risk_aversion=_aversion(rng), scale=float(rng.choice([0.2, 1.0, 4.0]))
    ),
    "zakamouline": lambda rng, _: Zakamouline(risk_aversion=_aversion(rng)),
    "fixed fee": lambda rng, _: FixedFeeBand(fee=float(rng.choice([0.0, 0.1, 30.0])), risk_aversion=_aversion(rng)),
    "move": lambda rng, _: MoveBand(pct=float(rng.choice([0.1, 1.0, 3.0]))),
    "deviations": lambda rng, _: MoveBand(deviations=float(rng.choice([0.2, 1.0])), per=str(rng.choice(["1h", "1d"]))),
    "pin freeze": lambda rng, _: PinGuard(inner=_inner(rng), action="freeze", **_pin(rng)),
    "pin half": lambda rng, _: PinGuard(inner=_inner(rng), action="half", **_pin(rng)),
    "pin cap": lambda rng, _: PinGuard(
        inner=_inner(rng), action="cap", cap=float(rng.choice([5.0, 500.0])), **_pin(rng)
    ),
    "pin zakamouline": lambda rng, _: PinGuard(
        inner=Zakamouline(risk_aversion=_aversion(rng)), action="half", **_pin(rng)
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_no_price_or_instant_of_a_calm_makes_the_rule_trade(name: str) -> None:
    """Over random books the search finds nothing, and most hedges inside their band are promised something."""
    boxes = inside = 0
    for seed in SEEDS:
        world = drawn(seed, RULES[name])
        spot = world.marks.mid(world.column)
        if not world.margin(spot, START) > 0.0:
            continue
        inside += 1
        box = found_calm(world)
        if box is None:
            continue
        boxes += 1
        assert box.low < spot < box.high
        assert box.until > START
        assert worst_margin(world, box) > 0.0, seed
    assert boxes >= 0.5 * inside > 0


@pytest.mark.parametrize("name", ["delta band", "whalley wilmott", "fixed fee", "move", "deviations"])
def test_no_price_or_instant_of_a_calm_with_early_exercise_makes_the_rule_trade(name: str) -> None:
    """The same with American legs, whose deltas are answered from cells."""
    boxes = 0
    for seed in range(8):
        world = drawn(seed, RULES[name], early=True)
        if not world.margin(world.marks.mid(world.column), START) > 0.0:
            continue
        box = found_calm(world)
        if box is None:
            continue
        boxes += 1
        assert worst_margin(world, box) > 0.0, seed
    assert boxes > 0


def test_a_rule_that_shapes_american_deltas_is_promised_nothing() -> None:
    """What American legs do at another vol is not bounded, and none is claimed."""
    world = drawn(0, RULES["zakamouline"], early=True)
    assert found_calm(world) is None


def test_a_hedge_at_the_very_edge_is_promised_nothing() -> None:
    """No room on one side leaves no box, however much there is on the other."""
    world = drawn(1, lambda *_: DeltaBand(half_width=10.0))
    spot = world.marks.mid(world.column)
    seen = world.look(spot, START)
    at_edge = world._replace(held=seen.x.want + 10.0 / world.per_contract)
    assert found_calm(at_edge) is None


def test_a_box_is_wide_where_the_hedge_has_room() -> None:
    """Off the edge by little the box reaches further on the side that has the room."""
    lopsided = 0
    for seed in SEEDS:
        world = drawn(seed, lambda *_: DeltaBand(half_width=10.0))
        spot = world.marks.mid(world.column)
        x = world.look(spot, START).x
        side = -1.0 if x.gamma > 0.0 else 1.0
        box = found_calm(world._replace(held=x.want + side * 9.0 / world.per_contract))
        if box is None or box.high - box.low > 0.01 * spot:  # so near, the gamma has the sign it has here
            continue
        lopsided += box.high - spot > 2.0 * (spot - box.low)
        assert box.high - spot > spot - box.low
    assert lopsided >= 3


def test_a_proposal_that_is_refused_is_made_smaller() -> None:
    """A rule that knows nothing of wide boxes is asked about narrower ones."""
    asked: list[float] = []

    def ask(low: float, high: float, years: float) -> tuple[Bounds, float, float] | None:
        asked.append(high - low)
        quiet = Bounds(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, *[math.nan] * 4, 1.0)
        return (quiet, 10.0, 10.0) if high - low < 1.0 else None

    found = widest(100.0, ask, Limits(95.0, 105.0, 0.5))
    assert asked[0] == 10.0
    assert 0.0 < found.below < 0.5
    assert 0.0 < found.years <= 0.5
    assert widest(100.0, lambda *_: None, Limits(95.0, 105.0, 0.5)) == Extent(0.0, 0.0, 0.0)


@pytest.mark.parametrize("risk_aversion", [1e-4, 0.1])
@pytest.mark.parametrize("rate", [-0.05, 0.0, 0.1])
def test_the_least_width_is_below_every_width_in_the_surroundings(risk_aversion: float, rate: float) -> None:
    """Price, gamma, tau and vol anywhere in their intervals give no narrower band."""
    rng = np.random.default_rng(5)
    rules: list[Any] = [
        WhalleyWilmott(risk_aversion=risk_aversion),
        Zakamouline(risk_aversion=risk_aversion),
        FixedFeeBand(fee=2.0, risk_aversion=risk_aversion),
        FixedFeeBand(fee=0.0, risk_aversion=risk_aversion),
    ]
    for _ in range(60):
        mid = np.exp(rng.normal(size=4) * [0.2, 2.0, 1.5, 0.5]) * [100.0, 3.0, 0.1, 0.2]
        wide = 1.0 + rng.uniform(0.0, 0.5)
        sign = rng.choice([-1.0, 1.0])
        spans = [(m / wide, m * wide) for m in mid]
        gammas = spans[1] if sign > 0 else (-spans[1][1], -spans[1][0])
        around = Surroundings(spans[0], gammas, spans[2], spans[3], (START, START + 1), 0.0)
        for rule in rules:
            least = None
            for _ in range(20):
                S, G, T, v = (rng.uniform(*span) if rng.random() < 0.5 else span[rng.integers(2)] for span in spans)
                x = BandInput(START, S, 0.0, 0.0, sign * G, T, v, rate, 1.0, 0.003, NEVER, math.nan)
                least = rule.least_width(x, around) if least is None else least
                band = rule.band(x)
                assert least <= float(band.hi) * (1.0 + 1e-9)
            assert least is not None and least > 0.0


@pytest.mark.parametrize("seed", range(12))
def test_a_modified_vol_lies_within_what_is_said_of_it(seed: int) -> None:
    """At any price, gamma and time of the surroundings Zakamouline's vol of each leg lies in its interval."""
    rng = np.random.default_rng(seed)
    world = drawn(seed, RULES["zakamouline"])
    x = world.look(world.marks.mid(world.column), START).shaped
    assert x is not None
    low, high = sorted(rng.normal(size=2) * rng.choice([0.1, 3.0, 100.0]))
    spot = float(x.spot)
    years = 0.2 * float(np.min(x.tau))
    around = Surroundings((0.98 * spot, 1.01 * spot), (low, high), (0.1, 0.2), (0.2, 0.3), (START, START + 1), years)
    x = x._replace(net_gamma=rng.uniform(low, high))
    vols = world.rule.vols_within(x, around)
    for _ in range(40):
        ends = [(0.98 * spot, 1.01 * spot), (low, high), (0.0, years)]
        S, G, t = (rng.uniform(*span) if rng.random() < 0.6 else span[rng.integers(2)] for span in ends)
        vol = zakamouline_vol(
            x.vol, x.cost, tau=x.tau - t, rate=x.rate, spot=S, gamma=G, risk_aversion=world.rule.risk_aversion
        )
        assert np.all(vols[:, 1] <= vol) and np.all(vol <= vols[:, 2])
