"""An engine run sends one price path through the real loop: quotes in, orders, fills and costs out; law: nothing is modelled
twice, so its loss equals the scorer's on the same path.

The loop, the account, the hedger with its `decide`, the desk, the paper broker and the ledger are those of any run. Each
date is a quote; the cost is its half-spread (exact), or a commission in basis points (rounded to the cent, as charged).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.paper import PaperBroker, PaperOptions
from bot.core.errors import EvenkeelError
from bot.core.events import Target
from bot.core.expiry import EXERCISE_THRESHOLD
from bot.core.hedge_cost import CostEstimate, EstimatedHedge
from bot.core.ports import HedgePlan, HedgePolicy, InLoopBroker, Prepares, StrategyView
from bot.core.quiet import QuietBox
from bot.domain.costs import BasisPoints, PerTicket, Schedule, SumOf
from bot.domain.instruments import OptionContract, Spot, Universe
from bot.domain.market import Quote
from bot.domain.units import Nanos, decimal_of
from bot.engine.account import Account
from bot.engine.journal import Fact, Header, JournalWriter
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.valuation import Valuation, ValuationSettings
from bot.lab.problem import Problem, Row
from bot.lab.scenarios import Scenarios, of_problem
from bot.lab.score import DAILY, Certainty, Controls, certainty, daily_black_scholes, gap_closed, tabulate
from bot.lab.scorer import Floats, Losses, run
from strategies.delta_hedger import DeltaHedger

UNDERLYING: Final = "LAB:UND"
START: Final[Nanos] = 1_704_067_200_000_000_000
"""2024-01-01T00:00:00Z, the instant of date 0."""
ZERO: Final = Decimal(0)
CENT: Final = Decimal("0.01")
HEADER: Final = Header(run_id="lab", config_hash="", release="", durability="replay")

CostAs = Literal["spread", "commission"]
BrokerOf = Callable[[Problem], InLoopBroker]


class EngineOutcome(NamedTuple):
    """What the engine booked on one path, as `bot.lab.plain.PathOutcome` has it: loss = payoff - gains + costs."""

    loss: float
    payoff: float
    gains: float
    costs: float
    trades: int
    turnover: float


class Dated:
    """A strategy that decides on the problem's dates only: none at T, where the hedge is closed and legs are settled."""

    def __init__(self, inner: DeltaHedger, last: Nanos) -> None:
        self.name, self.book = inner.name, inner.book
        self._inner = inner
        self._last = last

    def start(self, view: StrategyView) -> Sequence[Target]:
        """The decision at date 0."""
        return self._inner.start(view)

    def wake(self, view: StrategyView) -> Sequence[Target]:
        """A date's quote."""
        return self._inner.wake(view) if view.now <= self._last else ()

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        """A date by the clock."""
        return self._inner.timer(view, name) if view.now <= self._last else ()

    def stop(self, view: StrategyView) -> Sequence[Target]:
        """The unwinding at T."""
        return self._inner.stop(view)

    def quiet(self, view: StrategyView) -> QuietBox | None:
        """As the hedger says."""
        return self._inner.quiet(view)

    def watches(self) -> Sequence[str]:
        """As the hedger says."""
        return self._inner.watches()

    def trades(self) -> Sequence[str]:
        """As the hedger says."""
        return self._inner.trades()


class Once:
    """A policy that solves each plan once: the law of `Prepares` is that the same plan gives the same bands."""

    def __init__(self, policy: HedgePolicy) -> None:
        self._policy = policy
        self._solved: dict[HedgePlan, HedgePolicy] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def prepared(self, plan: HedgePlan) -> HedgePolicy:
        """The rule for a plan, remembered."""
        found = self._solved.get(plan)
        if found is None:
            found = self._solved[plan] = cast("Prepares", self._policy).prepared(plan)
        return found


def solved_once(policy: HedgePolicy) -> HedgePolicy:
    """The policy, solving each plan once where it solves any; for many paths of one problem."""
    return cast("HedgePolicy", Once(policy)) if isinstance(policy, Prepares) else policy


class _Silent(JournalWriter):
    """A journal that keeps nothing: a research run is recomputed, not recovered."""

    def __init__(self) -> None:
        super().__init__(None, HEADER)

    def append(self, ts: Nanos, tape: int, facts: list[Fact]) -> None:
        """Let the step go."""


def as_settled(problem: Problem) -> Problem:
    """The problem with the venue's rule of exercise: a leg in the money by less than a cent a unit pays nothing."""
    return problem.but(threshold=float(EXERCISE_THRESHOLD))


def paper_broker(problem: Problem, *, cost_as: CostAs = "spread") -> PaperBroker:
    """The paper broker at the problem's costs: touch or basis points, and a ticket a trade."""
    parts: list[Schedule] = []
    if cost_as == "commission":
        parts.append(BasisPoints(bp=decimal_of(problem.cost) * 10_000))
    if problem.fixed_cost:
        parts.append(PerTicket(amount=decimal_of(problem.fixed_cost)))
    commissions: dict[str, Schedule] = {} if not parts else {"*": SumOf(parts=tuple(parts))}
    return PaperBroker(PaperOptions(stale_after=None, fractional=True, commissions=commissions))


def engine_path(
    policy: HedgePolicy,
    problem: Problem,
    path: NDArray[np.float64],
    *,
    cost_as: CostAs = "spread",
    broker: BrokerOf | None = None,
) -> EngineOutcome:
    """What the event engine makes of a policy on one path. Shape: path (dates + 1,).

    Legs settle in cash by the venue's rule (see `as_settled`). Errors: ValueError for what the engine cannot hold:
    a rate other than 0, an opening trade without cost, a ticket in fractions of a cent.
    """
    _expect_runnable(policy, problem)
    rows = problem.rows()
    options = [_contract(problem, row, k) for k, row in enumerate(rows)]
    lot = decimal_of(problem.lot) if problem.lot else None
    underlying = Spot(id=UNDERLYING, lot=lot)
    universe = Universe([underlying, *options])
    marks = Marks(universe)
    vols = {option.id: row.vol for option, row in zip(options, rows, strict=True)}
    valuation = Valuation(universe, marks, ValuationSettings(vol="per_contract", vols=vols, mark="model"))
    venue = paper_broker(problem, cost_as=cost_as) if broker is None else broker(problem)
    venue.attach(universe, marks, "dynamic")
    hedge = EstimatedHedge(
        underlying=UNDERLYING,
        instrument=UNDERLYING,
        lot=lot,
        cost=problem.cost,
        estimate=CostEstimate(fraction=problem.cost, ticket=problem.fixed_cost),
    )
    end = START + problem.dates * problem.step
    strategy = Dated(DeltaHedger(hedges=[hedge], policy=policy), end - problem.step)
    account = Account(
        "dynamic", universe=universe, marks=marks, valuation=valuation, broker=venue, strategies=[strategy]
    )
    never = 2 * problem.dates * problem.step
    loop = Loop(
        settings=LoopSettings(
            start=START,
            end=end,
            begin="immediate",
            report_grid=never,
            remark=never,
            close_hedges=problem.charge_close,
            jump_alarm=None,
            jump_freeze=None,
        ),
        universe=universe,
        marks=marks,
        valuation=valuation,
        accounts=[account],
        openings=[
            Opening(book="main", instrument=option.id, quantity=decimal_of(row.quantity), mark=ZERO, vol=row.vol)
            for option, row in zip(options, rows, strict=True)
        ],
        needed=[UNDERLYING],
        journal=_Silent(),
    )
    half = problem.cost if cost_as == "spread" and broker is None else 0.0
    for i, spot in enumerate(path.tolist()):
        ts = START + i * problem.step
        loop.take(_quote(ts, spot, half), "lab")
    loop.finish()
    return _outcome(loop, account, problem)


def _quote(ts: Nanos, spot: float, half: float) -> Quote:
    return Quote(instrument=UNDERLYING, ts_event=ts, ts_recv=ts, bid=spot * (1.0 - half), ask=spot * (1.0 + half))


def _expect_runnable(policy: HedgePolicy, problem: Problem) -> None:
    if isinstance(policy, Prepares) and not problem.charge_close:
        raise ValueError("engine run: charge_close: expected True: the hedger plans with closing costs")
    if problem.rate != 0.0:
        raise ValueError(
            f"engine run: rate: expected 0, found {problem.rate:g}: restate the problem in discounted units"
        )
    if not problem.charge_open:
        raise ValueError("engine run: charge_open: expected True: an order is charged whenever it is sent")
    if decimal_of(problem.fixed_cost) % CENT:
        raise ValueError(f"engine run: fixed_cost: expected whole cents, found {problem.fixed_cost!r}")


def _contract(problem: Problem, row: Row, k: int) -> OptionContract:
    """The leg as a contract that no decision at its settling date sees: an earlier one ends a nanosecond before it."""
    settles = START + row.date * problem.step
    expiry = settles if row.date == problem.dates else settles - 1
    return OptionContract(
        id=f"LAB:LEG{k:04d}",
        underlying=UNDERLYING,
        cp=1 if row.cp > 0.0 else -1,
        strike=decimal_of(row.strike),
        style="european",
        settlement="cash",
        last_trade=expiry,
        expiry=expiry,
        settles=settles,
    )


def _outcome(loop: Loop, account: Account, problem: Problem) -> EngineOutcome:
    found = account.ledger.pnl(lambda key: loop.valuation.mark(key, loop.now), loop.convert)
    if found is None or not loop.done or account.open_ids:
        said = "; ".join(alarm.text for alarm in loop.alarms)
        raise EvenkeelError(f"engine run: expected a finished session at known marks, found none: {said}")
    disabled = [slot.disabled for slot in account.slots if slot.disabled]
    if disabled:
        raise EvenkeelError(f"engine run: the strategy was stopped: {disabled[0]}")
    costs = found.spread_cost + found.commission + found.impact
    ledger = account.ledger
    return EngineOutcome(
        loss=-float(found.total),
        payoff=-float(found.options),
        gains=float(found.hedge),
        costs=float(costs),
        trades=ledger.trades + ledger.closing_trades,
        turnover=float(ledger.turnover),
    )


# ---------------------------------------------------------------------------------------- many paths


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """The engine against the scorer, path by path: losses of both and the largest difference over the first notional."""

    name: str
    n_paths: int
    largest: float
    engine: tuple[float, ...]
    scorer: tuple[float, ...]


def compare_with_scorer(
    policies: Mapping[str, HedgePolicy] | Sequence[HedgePolicy],
    problem: Problem,
    scenarios: Scenarios,
    *,
    cost_as: CostAs = "spread",
) -> tuple[Agreement, ...]:
    """Each policy's losses by the event engine and by the scorer on the same paths."""
    settled = as_settled(problem)
    losses = run(policies, settled, scenarios)
    paths = scenarios.paths
    rules = dict(policies) if isinstance(policies, Mapping) else {policy.name: policy for policy in policies}
    notional = problem.spot * max(1e-300, sum(abs(row.quantity) for row in problem.rows()))
    out: list[Agreement] = []
    for j, (name, policy) in enumerate((name, solved_once(policy)) for name, policy in rules.items()):
        engine = np.array([engine_path(policy, settled, path, cost_as=cost_as).loss for path in paths])
        scored = losses.loss(j)
        out.append(
            Agreement(
                name=name,
                n_paths=len(paths),
                largest=float(np.max(np.abs(engine - scored))) / notional,
                engine=tuple(engine.tolist()),
                scorer=tuple(scored.tolist()),
            )
        )
    return tuple(out)


class EngineGap(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the gap a policy closes through the event engine.

    `gap` in percent with its paired standard error; `ce` the certainty equivalent of the engine's losses; `daily` and
    `optimum` what counts as 0 and 100; `largest` the largest |engine - scorer| over notional on the engine's paths.
    """

    name: str
    gap: float
    gap_se: float
    ce: float
    ce_se: float
    daily: float
    optimum: float
    scorer_gap: float
    scorer_gap_se: float
    largest: float
    engine_paths: int
    scorer_paths: int
    seed: int


def engine_gap(
    policy: HedgePolicy,
    problem: Problem,
    *,
    optimum: float,
    seed: int,
    engine_paths: int = 200,
    scorer_paths: int = 200_000,
    daily: float | None = None,
    controls: Controls = "martingale",
    workers: int = 1,
) -> EngineGap:
    """The gap a policy closes when the real engine trades it, on scoring paths of a seed given by the caller.

    Two levels: ln E exp(g L_scorer) / g on many paths, and the engine's excess over it, ln E exp(g L_engine) -
    ln E exp(g L_scorer) on the first of the same paths, where both differ by rounding only; the errors of both levels
    are added in squares. The scorer's level has martingale controls, and `daily` where the lattice knows the yardstick.
    """
    g = problem.risk_aversion
    if g is None:
        raise ValueError("engine_gap: risk_aversion: expected a positive number, found None")
    settled = as_settled(problem)
    scenarios = of_problem(problem, n_paths=scorer_paths, seed=seed)
    rule = solved_once(policy)
    rules = {DAILY: daily_black_scholes(problem), policy.name: rule}
    table = tabulate(
        run(rules, settled, scenarios, workers=workers),
        settled,
        scenarios,
        optimum=optimum,
        known=None if daily is None else {DAILY: daily},
        controls=controls,
    )
    row, base = table.row(policy.name), table.row(DAILY)
    assert row.ce is not None
    assert row.ce_se is not None
    assert row.gap is not None
    assert row.gap_se is not None
    assert base.ce is not None
    paths = scenarios.block(0)[:engine_paths]
    engine = np.array([engine_path(rule, settled, path).loss for path in paths])
    scored = _first(run({policy.name: rule}, settled, of_problem(problem, n_paths=len(paths), seed=seed)))
    excess, excess_se = _excess(engine, scored, g)
    width = base.ce - optimum
    notional = problem.spot * sum(abs(r.quantity) for r in problem.rows())
    return EngineGap(
        name=policy.name,
        gap=row.gap - 100.0 * excess / width,
        gap_se=float(np.hypot(row.gap_se, 100.0 * excess_se / width)),
        ce=row.ce + excess,
        ce_se=float(np.hypot(row.ce_se, excess_se)),
        daily=base.ce,
        optimum=optimum,
        scorer_gap=row.gap,
        scorer_gap_se=row.gap_se,
        largest=float(np.max(np.abs(engine - scored))) / notional,
        engine_paths=len(paths),
        scorer_paths=scorer_paths,
        seed=seed,
    )


def _first(losses: Losses) -> Floats:
    return losses.loss(0)


def _excess(engine: Floats, scored: Floats, g: float) -> tuple[float, float]:
    """The engine's certainty equivalent minus the scorer's on common paths, and its paired standard error."""
    a, b = certainty(engine, g), certainty(scored, g)
    return a.value - b.value, Certainty(0.0, a.influence - b.influence).se


__all__ = [
    "Agreement",
    "Dated",
    "EngineGap",
    "EngineOutcome",
    "as_settled",
    "compare_with_scorer",
    "engine_gap",
    "engine_path",
    "gap_closed",
    "paper_broker",
]
