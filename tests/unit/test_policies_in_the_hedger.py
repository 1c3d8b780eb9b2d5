"""The hedger shows each rule what it asks for: leg deltas, time, vol, rate, cost, and the book as a problem to solve."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.app import config as configs
from bot.app import wiring
from bot.core.errors import ConfigError, PluginError
from bot.core.events import FeedEvent
from bot.core.hedge_cost import CostEstimate, EstimatedHedge
from bot.core.ports import Band, BandInput, HedgePlan, HedgePolicy, LegInput
from bot.domain.units import NS_PER_YEAR, Nanos
from bot.engine.journal import Executed, TargetSet
from bot.engine.valuation import ValuationSettings
from bot.pricing import black
from strategies.delta_hedger import DeltaHedger, is_another_problem, planned_spots
from strategies.policies.callable_band import CallableBand
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_fee_band import FixedFeeBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.leland_delta import LelandDelta
from strategies.policies.min_var_delta import MinVarDelta
from strategies.policies.modified_vol import leland_vol
from strategies.policies.pin_guard import PinGuard
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline
from tests.replay.command import write_session
from tests.simulation.bench import (
    BY_MODEL,
    DAY,
    IMPLIED,
    MINUTE,
    SECOND,
    START,
    STOCK,
    Bench,
    hedger,
    minutes,
    option,
    quote,
)

D = Decimal
CALL = option(100, days=20)
PUT = option(95, days=40, cp=-1)
RATED = ValuationSettings(vol="per_contract", vols={CALL.id: 0.2, PUT.id: 0.3}, rate=0.05)
OPENINGS = [(CALL.id, -10), (PUT.id, 4)]


def run_of(policy: HedgePolicy, prices: list[float], **rest: Any) -> Bench:
    """A written call and a bought put, hedged with the stock."""
    hedge = {key: rest.pop(key) for key in ("cost", "target_delta", "beta") if key in rest}
    known: dict[str, Any] = {"instruments": [STOCK, CALL, PUT], "openings": OPENINGS, "valuation": RATED}
    known |= {"jump_freeze": None} | rest
    return Bench([hedger(policy, **hedge)], **known).play(minutes(prices))


def greeks(spot: float, at: Nanos = 0) -> tuple[Any, Any, Any, Any]:
    """(delta, gamma, vega, tau) of the two legs per unit."""
    tau = np.array([(c.expiry - START - at) / NS_PER_YEAR for c in (CALL, PUT)])
    g = black.bsm(spot, [100.0, 95.0], tau, [0.2, 0.3], rate=0.05, cp=[1, -1])
    return g.delta, g.gamma, g.vega, tau


WEIGHT = np.array([-1000.0, 400.0])


class Watching:
    """A band that remembers what it was shown."""

    name = "watching"
    interval: Nanos | None = None
    needs_ticks = True

    def __init__(self) -> None:
        self.seen: list[BandInput] = []

    def band(self, x: BandInput) -> Band:
        self.seen.append(x)
        return Band(x.want - 5.0, x.want + 5.0)


def test_a_rule_that_does_not_decline_is_shown_time_vol_rate_and_cost() -> None:
    """tau and vol are means over the legs by |weight x gamma|, the rate is the slice's, the cost the hedge's."""
    policy = Watching()
    run_of(policy, [100.0, 101.0], cost=0.0007)
    x = policy.seen[0]
    delta, gamma, _, tau = greeks(100.0)
    share = np.abs(WEIGHT * gamma)
    assert x.tau == pytest.approx(float(np.average(tau, weights=share)))
    assert x.vol == pytest.approx(math.sqrt(np.average(np.array([0.04, 0.09]), weights=share)))
    assert (x.rate, x.cost, x.spot) == (0.05, 0.0007, pytest.approx(100.0))
    assert x.gamma == pytest.approx(float(WEIGHT @ gamma))
    assert x.want == pytest.approx(-float(WEIGHT @ delta))


def test_a_proxys_cost_is_told_per_unit_of_the_underlying() -> None:
    """A proxy of beta 0.5 needs twice the notional, so a unit of delta costs twice the fraction."""
    policy = Watching()
    run_of(policy, [100.0, 101.0], cost=0.001, beta=0.5)
    assert policy.seen[0].cost == pytest.approx(0.002)


def test_shaped_deltas_are_what_is_hedged() -> None:
    """Leland's first hedge is minus the sum of the legs' deltas at their modified vols."""
    run = run_of(LelandDelta(interval="1m"), [100.0] * 3, cost=0.002)
    vol = [float(leland_vol(v, 0.002, dt=MINUTE / NS_PER_YEAR, sign=s)) for v, s in ((0.2, 1.0), (0.3, -1.0))]
    tau = greeks(100.0)[3]
    delta = black.bsm(100.0, [100.0, 95.0], tau, vol, rate=0.05, cp=[1, -1]).delta
    assert run.facts(TargetSet)[0].lines[0].unrounded == pytest.approx(-float(WEIGHT @ delta), abs=1e-6)


class AsModelled(DeltaBand):
    """A band that shapes nothing, leg by leg."""

    def leg_deltas(self, x: LegInput) -> Any:
        return x.delta


@pytest.mark.parametrize("extra", [[], [(STOCK.id, 130)]])
def test_legs_summed_one_by_one_are_the_net_delta(extra: list[tuple[str, int]]) -> None:
    """A rule that gives back the model's deltas trades exactly as one that never asked, also beside other holdings."""
    rng = np.random.default_rng(9)
    prices = (100 + np.cumsum(rng.normal(0, 0.4, 120))).round(2).tolist()
    fills = []
    for policy in (DeltaBand(half_width=30.0), AsModelled(half_width=30.0)):
        run = run_of(policy, prices, openings=OPENINGS + extra)
        fills.append([(f.fill.ts, f.fill.quantity, f.fill.price) for f in run.facts(Executed)])
    assert fills[0] == fills[1]
    assert len(fills[0]) > 5


@pytest.mark.parametrize(
    "policy",
    [WhalleyWilmott(risk_aversion=0.01), FixedFeeBand(fee=1.0, risk_aversion=0.01), Zakamouline(risk_aversion=0.01)],
    ids=lambda p: p.name,
)
def test_after_each_decision_the_holding_is_in_the_band(policy: Any) -> None:
    """Through the engine every target lies in the band of its evidence, within a lot, and dearer hedging trades less."""
    rng = np.random.default_rng(2)
    prices = (100 + np.cumsum(rng.normal(0, 0.5, 150))).round(2).tolist()
    counts = []
    for cost in (0.0002, 0.02):
        targets = [t for t in run_of(policy, prices, cost=cost).facts(TargetSet) if t.evidence is not None]
        for target in targets:
            assert target.evidence is not None and target.evidence.lo is not None and target.evidence.hi is not None
            assert target.evidence.lo - 0.5 <= float(target.lines[0].quantity) <= target.evidence.hi + 0.5
        counts.append(len(targets))
    assert counts[0] > counts[1]


def test_near_the_end_no_band_reaches_beyond_the_book() -> None:
    """In a written call's last minutes its bounded band stays within its reach, 0 to 1,000 shares, or covers it."""
    late = option(100, days=0.01)
    policy = Watching()
    policy.bounded = True  # type: ignore[attr-defined]  # read by the hedger where a rule has it
    policy.band = lambda x: Band(x.want - 600.0, x.want + 300.0)  # type: ignore[method-assign]  # a wide band
    run = Bench(
        [hedger(policy)], instruments=[STOCK, late], openings=[(late.id, -10)], valuation=BY_MODEL, jump_freeze=None
    ).play(minutes([100.0, 104.0, 96.0, 101.0, 99.0, 104.0], step=SECOND))
    found = [t.evidence for t in run.facts(TargetSet) if t.evidence is not None]
    assert found
    for evidence in found:
        assert evidence.lo is not None and evidence.hi is not None
        assert evidence.lo >= 0.0 and evidence.hi <= 1000.0


# --------------------------------------------------------------------------- books solved first


class Solver:
    """A rule that solves the book first: it keeps the plans it was given, and hedges around minus the legs' delta."""

    name = "solver"
    interval: Nanos | None = None
    needs_ticks = True

    def __init__(self, beat: Nanos | None = None) -> None:
        self.plans: list[HedgePlan] = []
        self.asked: list[BandInput] = []
        self.beat = beat

    def band(self, x: BandInput) -> Band:
        raise AssertionError("asked before it was prepared")

    def prepared(self, plan: HedgePlan) -> HedgePolicy:
        self.plans.append(plan)
        made = Watching() if self.beat is None else FixedInterval(interval=self.beat)
        if isinstance(made, Watching):
            made.seen = self.asked
        return made


def test_a_book_is_solved_once_and_fills_do_not_solve_it_again() -> None:
    """The plan holds legs, market and costs in underlying units; trading the hedge changes no leg."""
    policy = Solver()
    rng = np.random.default_rng(9)
    run = run_of(policy, (100 + np.cumsum(rng.normal(0, 0.1, 60))).round(2).tolist(), cost=0.001)
    assert len(run.facts(Executed)) > 3
    (plan,) = policy.plans
    assert (plan.now, plan.spot, plan.rate, plan.cost, plan.lot) == (
        START,
        pytest.approx(100.0, abs=0.5),
        0.05,
        0.001,
        1.0,
    )
    rows = sorted(zip(plan.cp, plan.strike, plan.quantity, plan.vol, strict=True))
    assert rows == [(-1.0, 95.0, 400.0, 0.3), (1.0, 100.0, -1000.0, 0.2)]
    assert sorted(plan.tau) == pytest.approx(sorted(greeks(100.0)[3]))


def test_what_else_is_held_or_targeted_is_moved_aside() -> None:
    """The solved rule is asked about the options alone: stock of the owner's and a target count as held or sold."""
    policy = Solver()
    run = run_of(policy, [100.0, 100.0], openings=[*OPENINGS, (STOCK.id, 70)], target_delta=20.0)
    own = -float(WEIGHT @ greeks(100.0)[0])
    assert policy.asked[0].want == pytest.approx(own)
    assert policy.asked[0].held == pytest.approx(50.0)
    held = float(run.facts(TargetSet)[0].lines[0].quantity)
    assert own - 5.5 <= held - 20.0 <= own + 5.5


def test_a_price_far_from_the_plans_is_solved_anew() -> None:
    """Three deviations to the last expiry away the book is another problem, and back again a third."""
    policy = Solver()
    run_of(policy, [100.0, 101.0, 300.0, 301.0, 100.0])
    assert [round(p.spot) for p in policy.plans] == [100, 300, 100]


def test_vols_solve_anew_when_they_have_moved_far() -> None:
    """Implied vols that rise by less than 5% since the plan in force leave it, by more they solve it anew."""
    policy = Solver()
    base = [
        float(black.bsm(100.0, 100.0, CALL.expiry / NS_PER_YEAR - START / NS_PER_YEAR, v).price)
        for v in (0.2, 0.206, 0.214)
    ]
    events: list[FeedEvent] = []
    for i, price in enumerate(base):
        events.append(quote(STOCK.id, i * MINUTE, 100.0, 100.0))
        events.append(quote(CALL.id, i * MINUTE, price - 0.001, price + 0.001))
        events.append(quote(STOCK.id, i * MINUTE + SECOND, 100.01, 100.01))
    events.append(quote(STOCK.id, 3 * MINUTE, 100.0, 100.0))
    Bench(
        [hedger(policy)], instruments=[STOCK, CALL], openings=[(CALL.id, -10)], valuation=IMPLIED, begin="two_sided",
        remark=MINUTE, jump_freeze=None,
    ).play(events)  # fmt: skip
    assert [round(p.vol[0], 3) for p in policy.plans] == [0.2, 0.214]


def test_the_beat_of_the_solved_rule_is_kept() -> None:
    """A solved rule that acts at intervals is woken at them, though the one before it named none."""
    run = run_of(Solver(beat=2 * MINUTE), [100.0, 101.0, 102.0, 103.0, 104.0, 105.0], end=START + 10 * MINUTE)
    times = {f.fill.ts - START for f in run.facts(Executed) if not f.fill.closing}
    assert times and all(ts % (2 * MINUTE) == 0 for ts in times)


def test_without_an_option_left_the_exact_hedge_is_held() -> None:
    """Once the last leg has ended nothing is left to solve, and the hedge goes to zero."""
    short = option(100, days=0.002)
    policy = Solver()
    run = Bench(
        [hedger(policy)], instruments=[STOCK, short], openings=[(short.id, -10)], valuation=BY_MODEL, jump_freeze=None
    ).play(minutes([101.0] * 8), finish=False)
    assert len(policy.plans) == 1
    assert run.held() == 0


def test_what_makes_another_problem() -> None:
    """Legs, 5% of a vol, 10% of the cost, the rate or 3 deviations of the price; an unknown vol waits."""
    plan = HedgePlan(
        now=START, spot=100.0, rate=0.0, dividend=0.0, cost=0.001, cp=(1.0,), strike=(100.0,), quantity=(-1.0,),
        tau=(0.25,), vol=(0.2,),
    )  # fmt: skip

    def moved(**changes: Any) -> bool:
        known = {name: getattr(plan, name) for name in plan.__struct_fields__}
        return is_another_problem(plan, HedgePlan(**(known | changes)))

    assert is_another_problem(None, plan)
    assert not moved()
    assert not moved(now=START + DAY, tau=(0.25 - 1 / 365,), vol=(0.209,), cost=0.00109, spot=134.0)
    for changes in ({"vol": (0.211,)}, {"cost": 0.00112}, {"quantity": (-2.0,)}, {"rate": 0.01}, {"spot": 136.0}):
        assert moved(**changes)
    assert not moved(vol=(math.nan,))
    assert planned_spots(plan) == (pytest.approx(100 * math.exp(-0.3)), pytest.approx(100 * math.exp(0.3)))


# --------------------------------------------------------------------------- costs


def test_an_estimate_becomes_a_fraction_at_the_quote() -> None:
    """Half the quoted spread, price units over the price, fractions as they are; unknown without a spread; no rebate."""
    assert CostEstimate(fraction=0.001, per_unit=0.05, quoted=True).at(100.0, 99.9, 100.1) == pytest.approx(0.0025)
    assert math.isnan(CostEstimate(quoted=True).at(100.0, math.nan, 100.1))
    assert CostEstimate(fraction=-0.001).at(100.0, math.nan, math.nan) == 0.0
    assert CostEstimate(fraction=0.001).at(100.0, math.nan, math.nan) == 0.001


def test_an_estimated_cost_is_taken_from_the_first_quote() -> None:
    """With fixed vols the cost is that of the first quote, whatever the spread does later."""
    policy = Watching()
    estimate = CostEstimate(fraction=0.0001, quoted=True)
    strategy = DeltaHedger(
        hedges=[EstimatedHedge(underlying=STOCK.id, instrument=STOCK.id, estimate=estimate)], policy=policy
    )
    Bench([strategy], instruments=[STOCK, CALL], openings=[(CALL.id, -10)], valuation=BY_MODEL).play(
        [quote(STOCK.id, i * MINUTE, 100.0 - 0.02 * (1 + i), 100.0 + 0.02 * (1 + i)) for i in range(3)]
    )
    assert [x.cost for x in policy.seen] == pytest.approx([0.0003] * len(policy.seen))


HEDGE = 'instrument = "SIM:XYZ"\n[[str'
POLICY = 'kind = "fixed_interval"\ninterval = "5m"\n'
FEES = """
[broker]
kind = "paper"
[[broker.commission]]
kind = "per_contract"
rate = 0.005
applies_to = ["spot"]
[[broker.commission]]
kind = "basis_points"
bp = 2
[[broker.commission]]
kind = "per_ticket"
amount = 1.5
[[broker.commission]]
kind = "per_contract"
rate = 0.65
applies_to = ["option"]
"""


def config_of(folder: Path, *, hedge: str = "", policy: str = POLICY, more: str = "") -> configs.Config:
    path = write_session(folder, edit=[(HEDGE, f'instrument = "SIM:XYZ"\n{hedge}\n[[str'), (POLICY, policy)])
    path.write_text(path.read_text("utf-8") + more, encoding="utf-8")
    return configs.load_config(path, {})


@pytest.mark.parametrize(
    ("hedge", "estimate"),
    [
        ("", CostEstimate(fraction=0.0002, per_unit=0.005, quoted=True, ticket=1.5)),
        ("cost = 0.003", CostEstimate(fraction=0.003, ticket=1.5)),
        ('spread = {kind = "fixed", half = 0.25}', CostEstimate(fraction=0.0002, per_unit=0.255, ticket=1.5)),
        ('spread = {kind = "basis_points", bp = 3}', CostEstimate(fraction=0.0005, per_unit=0.005, ticket=1.5)),
        (
            'tick = 0.02\nspread = {kind = "ticks", ticks = 2}',
            CostEstimate(fraction=0.0002, per_unit=0.045, ticket=1.5),
        ),
        ("multiplier = 10", CostEstimate(fraction=0.0002, per_unit=0.0005, quoted=True, ticket=1.5)),
    ],
)
def test_a_hedges_cost_comes_from_the_broker_unless_given(tmp_path: Path, hedge: str, estimate: CostEstimate) -> None:
    """Half the spread and the fees that apply to the instrument; a given cost stands for both, the ticket stays apart."""
    (made,) = wiring.hedges_of(config_of(tmp_path, hedge=hedge, more=FEES), ())
    assert isinstance(made, EstimatedHedge)
    for name in ("fraction", "per_unit", "ticket"):
        assert getattr(made.estimate, name) == pytest.approx(getattr(estimate, name))
    assert made.estimate.quoted == estimate.quoted
    assert made.cost == pytest.approx(estimate.fraction)


def policy_of(config: configs.Config) -> HedgePolicy:
    return wiring.make_policy(config.strategies[0].policy, config)


def test_policies_are_made_from_their_tables(tmp_path: Path) -> None:
    """A tolerance becomes an aversion, an absent fee the broker's, a policy within another that policy."""
    averse = policy_of(config_of(tmp_path / "a", policy='kind = "whalley_wilmott"\ntolerance = 100\n'))
    assert isinstance(averse, WhalleyWilmott)
    assert averse.risk_aversion == pytest.approx(2e-4)
    fee = policy_of(config_of(tmp_path / "b", policy='kind = "fixed_fee_band"\nrisk_aversion = 1\n', more=FEES))
    assert isinstance(fee, FixedFeeBand)
    assert fee.fee == 1.5
    nested = (
        'kind = "pin_guard"\nwithin = "1h"\ndistance = 0.1\n[strategies.policy.inner]\nkind = "min_var_delta"\n'
        'stickiness = 2\nskew = -0.1\n[strategies.policy.inner.inner]\nkind = "zakamouline"\nrisk_aversion = 0.5\n'
    )
    guard = policy_of(config_of(tmp_path / "c", policy=nested))
    assert isinstance(guard, PinGuard)
    assert isinstance(guard.inner, MinVarDelta)
    assert isinstance(guard.inner.inner, Zakamouline)


FUNCTION = 'kind = "callable"\nfunction = "tests.unit.test_policies_closed_form:straight"\n'


def test_a_function_runs_only_when_its_module_is_allowed(tmp_path: Path) -> None:
    """Its module stands in [plugins] allow, or the function is refused by name and nothing is imported."""
    with pytest.raises(PluginError, match=r"add 'tests\.unit\.test_policies_closed_form' to allow"):
        policy_of(config_of(tmp_path / "a", policy=FUNCTION))
    allowed = config_of(
        tmp_path / "b", policy=FUNCTION, more='\n[plugins]\nallow = ["tests.unit.test_policies_closed_form"]\n'
    )
    assert isinstance(policy_of(allowed), CallableBand)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ('kind = "whalley_wilmott"\n', "expected one of risk_aversion and tolerance, found neither"),
        ('kind = "zakamouline"\nrisk_aversion = 1\ntolerance = 1\n', "found both"),
        ('kind = "move_band"\n', "expected one of pct and deviations, found neither"),
        ('kind = "pin_guard"\nwithin = "1h"\ndistance = 1\n', "policy.inner: required"),
        (
            'kind = "pin_guard"\nwithin = "1h"\ncap = 3\n[strategies.policy.inner]\nkind = "none"\n',
            "expected only with action",
        ),
        ('kind = "leland_delta"\ninterval = "1h"\nsid = "own"\n', "did you mean 'side'"),
        ('kind = "callable"\nfunction = "nothing"\n', "policy.function"),
        (
            'kind = "almgren_li_speed"\nimpact = 0\nrisk_aversion = 1\ninterval = "1h"\n',
            "policy.impact: expected more than 0",
        ),
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path: Path, policy: str, words: str) -> None:
    """The fault names the key and what was expected."""
    with pytest.raises(ConfigError, match=words):
        config_of(tmp_path, policy=policy)


def test_what_a_policy_itself_refuses_is_told_with_the_file(tmp_path: Path) -> None:
    """Neither a, b, c nor a skew: found when the policy is made, and named with config and kind."""
    inner = '[strategies.policy.inner]\nkind = "none"\n'
    config = config_of(tmp_path, policy=f'kind = "min_var_delta"\n{inner}')
    with pytest.raises(ConfigError, match=r"small.toml: policy 'min_var_delta': .*a, b and c"):
        policy_of(config)
