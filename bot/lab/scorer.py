"""The scorer lets many policies hedge one problem on the same paths; law: the object scored is the object that trades.

Each policy is asked for its `band` date by date over a block of paths, at deltas shared by all (or its own, where it
shapes them), and each holding is clamped into its band as `decide` does. Losses have the same bits for any number of
workers and any order of blocks; `score_one` in `bot.lab.plain` is the readable twin.
"""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bot.core.ports import Band, BandInput, HedgePolicy, LegInput, Prepares, ShapesDelta
from bot.domain.units import NEVER, NS_PER_YEAR, decimal_of
from bot.lab.problem import Problem, Row
from bot.lab.scenarios import BLOCK, Scenarios
from strategies.policies.reach import Reach, reach_of

Floats: TypeAlias = NDArray[np.float64]
Policies: TypeAlias = Mapping[str, HedgePolicy] | Sequence[HedgePolicy]
INF = np.inf
LEAST = 1e-200
NO_BOUND = Reach(-INF, INF)


class Outcome(NamedTuple):
    """What one policy did on each path, in money of the start. Shape: each (n_paths,).

    `gains` of the hedge before costs, `costs` paid, `trades` with a size, `turnover` in notional, the closing trade
    counted.
    """

    gains: Floats
    costs: Floats
    trades: Floats
    turnover: Floats


class Common(NamedTuple):
    """What all policies share on each path. Shape: each (n_paths,).

    `payoff` owed by the hedger, `plain` the gains of hedging at the model's delta at every date, `gamma_theta` the
    book's gamma sum, `gamma_martingale` the same with the step's exact variance: expectation 0 on lognormal paths.
    """

    payoff: Floats
    plain: Floats
    gamma_theta: Floats
    gamma_martingale: Floats


class Losses(NamedTuple):
    """Every policy's outcome on common paths."""

    names: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    common: Common

    def loss(self, index: int) -> Floats:
        """payoff - gains + costs of a policy. Shape: (n_paths,)."""
        found = self.outcomes[index]
        return self.common.payoff - found.gains + found.costs


class Date(NamedTuple):
    """One date over a block of paths: the spots, what comes after, and the book's Greeks.

    Shape: spot, after, want, gamma (paths,); deltas and gammas, per unit, (legs, paths).
    """

    i: int
    now: int
    discount: float
    discount_after: float
    spot: Floats
    after: Floats
    want: Floats
    gamma: Floats
    deltas: Floats
    gammas: Floats
    live: tuple[Row, ...]
    tau: float | Floats
    vol: float | Floats


def named(policies: Policies) -> dict[str, HedgePolicy]:
    """Policies by name; a name given twice is refused."""
    if isinstance(policies, Mapping):
        return dict(policies)
    found: dict[str, HedgePolicy] = {}
    for policy in policies:
        if policy.name in found:
            raise ValueError(f"policies: expected names that differ, found {policy.name!r} twice: give a mapping")
        found[policy.name] = policy
    return found


def prepared(policy: HedgePolicy, problem: Problem, *, date: int = 0, spot: float | None = None) -> HedgePolicy:
    """The policy, having solved the problem first where it does that."""
    return policy.prepared(problem.plan(date=date, spot=spot)) if isinstance(policy, Prepares) else policy


def run(policies: Policies, problem: Problem, scenarios: Scenarios, *, workers: int = 1) -> Losses:
    """The outcome of each policy on each path. Policies answer arrays over paths.

    `workers` above 1 share the blocks: forked processes where the system has them, else threads. A policy that keeps
    state between calls breaks its law, and is asked in an order of its worker's.

    Errors: ValueError when the scenarios' dates are not the problem's, or a policy answers NaN.
    """
    _expect_same_dates(problem, scenarios)
    asked = named(policies)
    rules = {name: prepared(policy, problem) for name, policy in asked.items()}
    bounds = [reach_at(problem, i) for i in range(problem.dates)]
    reaches = {name: bounds if is_bounded(policy) else [NO_BOUND] * problem.dates for name, policy in asked.items()}
    n = scenarios.n_paths
    room = _room if workers > 1 else np.empty
    outcomes = tuple(Outcome(*(room(n) for _ in Outcome._fields)) for _ in rules)
    common = Common(*(room(n) for _ in Common._fields))

    def work(k: int) -> None:
        first = k * BLOCK
        paths = scenarios.block(k)
        rows = slice(first, first + len(paths))
        _score_block(
            rules,
            problem,
            paths,
            [Outcome(*(c[rows] for c in o)) for o in outcomes],
            Common(*(c[rows] for c in common)),
            problem.vol if scenarios.lognormal_vol is None else scenarios.lognormal_vol,
            reaches,
        )

    _share_out(work, scenarios.n_blocks, workers)
    for name, outcome in zip(rules, outcomes, strict=True):
        if not np.isfinite(outcome.gains).all():
            path = int(np.flatnonzero(~np.isfinite(outcome.gains))[0])
            raise ValueError(f"policy {name!r}: expected finite bands, found NaN or infinity on path {path}")
    return Losses(tuple(rules), outcomes, common)


def _room(n: int) -> Floats:
    """An array that forked workers write for us. Shape: (n,)."""
    return np.frombuffer(mmap.mmap(-1, 8 * n), dtype=np.float64)


_forked: Callable[[int], None] | None = None
"""What forked workers were started for: they inherit it, so that nothing need be sent to them."""
_one_at_a_time = Lock()


def _share_out(work: Callable[[int], None], blocks: int, workers: int) -> None:
    """Do the work of every block, by as many workers."""
    global _forked  # noqa: PLW0603  a fork inherits what its parent's module holds, and nothing else without pickling
    if min(workers, blocks) <= 1:
        for k in range(blocks):
            work(k)
        return
    import bot.lab.kernels  # noqa: F401, PLC0415  loaded before the fork, so that it is loaded once

    with _one_at_a_time:
        _forked = work
        try:
            with _pool(min(workers, blocks)) as pool:
                for _ in pool.map(_work_of_fork, range(blocks)):
                    pass
        finally:
            _forked = None


def _pool(workers: int) -> Executor:
    if "fork" in multiprocessing.get_all_start_methods():
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))
    return ThreadPoolExecutor(workers)


def _work_of_fork(k: int) -> None:
    assert _forked is not None  # set before the fork
    _forked(k)


def _expect_same_dates(problem: Problem, scenarios: Scenarios) -> None:
    times = problem.times()
    if scenarios.times.shape != times.shape or not np.allclose(scenarios.times, times, rtol=1e-9, atol=0.0):
        raise ValueError(
            f"scenarios: expected the problem's {problem.dates} dates to {times[-1]:g} years, found "
            f"{len(scenarios.times) - 1} to {scenarios.times[-1]:g}"
        )


def _score_block(
    rules: Mapping[str, HedgePolicy],
    problem: Problem,
    paths: Floats,
    outcomes: Sequence[Outcome],
    common: Common,
    path_vol: float,
    reaches: Mapping[str, Sequence[Reach]],
) -> None:
    spots = np.ascontiguousarray(paths.T)
    shaped = any(isinstance(policy, ShapesDelta) for policy in rules.values())
    dates = list(block_dates(problem, spots, common, path_vol, keep_deltas=shaped))
    common.payoff[:] = payoff(problem, spots)
    for (name, policy), outcome in zip(rules.items(), outcomes, strict=True):
        _hedge_block(policy, problem, dates, spots[-1], outcome, reaches=reaches[name])


def payoff(problem: Problem, spots: Floats) -> Floats:
    """What the hedger owes on each path, in money of the start: minus the legs' payoffs. Shape: spots (dates + 1, paths)."""
    owed = np.zeros(spots.shape[1])
    for row in problem.rows():
        value = np.maximum(row.cp * (spots[row.date] - row.strike), 0.0)
        if problem.threshold > 0.0:
            value = np.where(value < problem.threshold, 0.0, value)
        owed -= row.quantity * discount_at(problem, row.date) * value
    return owed


def discount_at(problem: Problem, date: int) -> float:
    """What money at a date is worth at the start."""
    return float(np.exp(-problem.rate * (date * problem.step / NS_PER_YEAR)))


def block_dates(
    problem: Problem, spots: Floats, common: Common, path_vol: float, *, keep_deltas: bool
) -> Iterable[Date]:
    """Each decision date with the Greeks every policy shares; adds up what policies are explained by as it goes."""
    from bot.lab import kernels  # noqa: PLC0415  the compiler is imported by those who score

    rows = problem.rows()
    width = spots.shape[1]
    year = problem.step / NS_PER_YEAR
    growth = float(np.expm1(path_vol**2 * year))
    scratch = np.empty((2, len(rows), width))
    for total in (common.plain, common.gamma_theta, common.gamma_martingale):
        total[:] = 0.0
    for i in range(problem.dates):
        now = i * problem.step
        live = tuple(row for row in rows if row.date > i)
        shape = (len(live), width)
        deltas, gammas = np.empty((2, *shape)) if keep_deltas else scratch[:, : len(live)]
        want, gamma, decay = np.zeros(width), np.zeros(width), np.zeros(width)
        for row, delta, unit in zip(live, deltas, gammas, strict=True):
            tau = (row.date * problem.step - now) / NS_PER_YEAR
            kernels.add_leg(
                spots[i], row.strike, tau, row.vol, problem.rate, row.cp, row.quantity, delta, unit, want, gamma, decay
            )
        np.negative(want, out=want)
        before, after = discount_at(problem, i), discount_at(problem, i + 1)
        kernels.add_shared(
            spots[i],
            spots[i + 1],
            before,
            after,
            year,
            growth,
            want,
            gamma,
            decay,
            common.plain,
            common.gamma_theta,
            common.gamma_martingale,
        )
        terms = _terms(problem, live, spots[i], now)
        yield Date(
            i=i,
            now=now,
            discount=before,
            discount_after=after,
            spot=spots[i],
            after=spots[i + 1],
            want=want,
            gamma=gamma,
            deltas=deltas,
            gammas=gammas,
            live=live,
            tau=terms[0],
            vol=terms[1],
        )


def _terms(problem: Problem, live: Sequence[Row], spot: Floats, now: int) -> tuple[float | Floats, float | Floats]:
    """The book's time and vol as the hedger sees them: one number each where the legs agree. Shape: () or (paths,).

    When every leg has ended no time is left.
    """
    from bot.lab import kernels  # noqa: PLC0415  the compiler is imported by those who score

    if not live:
        return 0.0, problem.vol
    years = [(row.date * problem.step - now) / NS_PER_YEAR for row in live]
    if len({(row.date, row.vol) for row in live}) == 1:
        return years[0], live[0].vol
    share, taus, variances = np.zeros((3, len(spot)))
    for row, year in zip(live, years, strict=True):
        kernels.add_terms(spot, row.strike, year, row.vol, problem.rate, row.quantity, share, taus, variances)
    weight = np.array([abs(row.quantity) for row in live])
    total = float(weight.sum())
    flat = (float(weight @ np.array(years)) / total, float(weight @ np.array([row.vol**2 for row in live])) / total)
    known = share > LEAST * total
    safe = np.where(known, share, 1.0)
    return np.where(known, taus / safe, flat[0]), np.sqrt(np.where(known, variances / safe, flat[1]))


def reach_at(problem: Problem, date: int) -> Reach:
    """The least and greatest hedge the legs alive at a date can ever ask for."""
    live = [row for row in problem.rows() if row.date > date]
    book = reach_of(
        [row.cp for row in live],
        [row.strike for row in live],
        [row.quantity for row in live],
        [float(row.date) for row in live],
    )
    return Reach(-book.hi, -book.lo)


def is_bounded(policy: HedgePolicy) -> bool:
    """True for a policy whose bands the hedger cuts to the book's reach."""
    return bool(getattr(policy, "bounded", False))


def _hedge_block(
    policy: HedgePolicy,
    problem: Problem,
    dates: Sequence[Date],
    last: Floats,
    outcome: Outcome,
    *,
    reaches: Sequence[Reach],
) -> None:
    from bot.lab import kernels  # noqa: PLC0415  the compiler is imported by those who score

    width = len(last)
    state = np.zeros(kernels.STATE_SIZE)
    held = state[kernels.HELD : kernels.HELD + width]
    last_spot = state[kernels.LAST_SPOT : kernels.LAST_SPOT + width]
    last_ts = state[kernels.LAST_TS : kernels.LAST_TS + width].view(np.int64)
    last_spot[:] = np.nan
    last_ts[:] = NEVER
    step: Callable[..., None] = kernels.step if problem.lot == 0.0 else kernels.step_lots
    above, below = map(float, decimal_of(problem.lot).as_integer_ratio())
    shapes = policy if isinstance(policy, ShapesDelta) else None
    for d in dates:
        want = d.want if shapes is None else shaped_want(shapes, d, problem)
        band = policy.band(
            BandInput(
                d.now, d.spot, want, held, d.gamma, d.tau, d.vol, problem.rate, 1.0, problem.cost, last_ts, last_spot
            )
        )
        if is_line(band):
            kernels.carry(d.spot, d.after, d.discount, d.discount_after, state)
            continue
        lo, hi = _column(band.lo, width), _column(band.hi, width)
        free = d.i == 0 and not problem.charge_open
        step(
            d.spot,
            d.after,
            d.discount,
            d.discount_after,
            lo,
            hi,
            lo if band.to is None else _column(band.to, width),
            band.to is not None,
            *reaches[d.i],
            1.0,
            0.0 if free else problem.cost,
            0.0 if free else problem.fixed_cost,
            above,
            below,
            _bits(d.now),
            state,
        )
    _close(problem, state, last, outcome)


def _close(problem: Problem, state: Floats, last: Floats, outcome: Outcome) -> None:
    from bot.lab import kernels  # noqa: PLC0415  the compiler is imported by those who score

    width = len(last)
    held, gains, costs, trades, turnover = (
        state[row : row + width]
        for row in (kernels.HELD, kernels.GAINS, kernels.COST, kernels.TRADES, kernels.TURNOVER)
    )
    outcome.gains[:] = gains
    outcome.costs[:] = costs
    outcome.trades[:] = trades
    outcome.turnover[:] = turnover
    if problem.charge_close:
        notional = last * np.abs(held)
        closing = problem.cost * notional + np.where(held != 0.0, problem.fixed_cost, 0.0)
        outcome.costs[:] += discount_at(problem, problem.dates) * closing
        outcome.trades[:] += held != 0.0
        outcome.turnover[:] += notional


def shaped_want(policy: ShapesDelta, d: Date, problem: Problem) -> Floats:
    """The hedge at the policy's own delta of each leg. Shape: (paths,)."""
    if not d.live:
        return d.want
    weight = np.array([row.quantity for row in d.live])
    deltas = policy.leg_deltas(leg_input(d, problem, weight))
    total = np.zeros(len(d.spot))
    for j, w in enumerate(weight):
        total -= w * np.asarray(deltas)[..., j]
    return total


def leg_input(d: Date, problem: Problem, weight: Floats) -> LegInput:
    """What a delta rule sees at a date. Shape: legs last; spot and net_gamma (paths, 1)."""
    tau = np.array([(row.date * problem.step - d.now) / NS_PER_YEAR for row in d.live])
    strike, vol, cp = (np.array([getattr(row, name) for row in d.live]) for name in ("strike", "vol", "cp"))
    spot = d.spot[:, None]
    return LegInput(
        spot=spot,
        strike=strike,
        tau=tau,
        vol=vol,
        rate=problem.rate,
        dividend=0.0,
        cp=cp,
        weight=weight,
        delta=d.deltas.T,
        gamma=d.gammas.T,
        vega=d.gammas.T * (spot * spot) * (vol * tau),
        net_gamma=d.gamma[:, None],
        cost=problem.cost,
    )


def is_line(band: Band) -> bool:
    """True for the whole line said by a number for all (`strategies.policies.bands.whole_line`): nobody does anything."""
    lo, hi = np.asarray(band.lo), np.asarray(band.hi)
    if any(lo.strides) or any(hi.strides) or not (lo.size and hi.size):
        return False
    return bool(lo.flat[0] == -INF and hi.flat[0] == INF)


def _column(value: Any, width: int) -> Floats:
    """A band's edge as a column of its own. Shape: (paths,)."""
    found = np.asarray(value, dtype=np.float64)
    if found.shape == (width,) and found.flags.c_contiguous:
        return found
    return np.ascontiguousarray(np.broadcast_to(found, (width,)))


def _bits(now: int) -> float:
    """The bits of an instant as a float that carries them."""
    return float(np.int64(now).view(np.float64))
