"""A score says what hedging by a policy is worth: a certainty equivalent with its error, and the cost and risk behind it.

Law: every figure of one table comes from the same paths, so that differences are paired; no figure is given without a
standard error where sampling made it. Units: money of the start of the problem, for its whole book.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from bot.lab.problem import Problem
from bot.lab.scenarios import Purpose, Scenarios
from bot.lab.scorer import Common, Floats, Losses, Policies, named, run
from strategies.policies.fixed_interval import FixedInterval

DAILY: Final = "daily Black-Scholes"
Controls = Literal["none", "martingale"]


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One policy's row.

    ce           certainty equivalent ln E[exp(g L)] / g of the loss L: what the writer must be paid; None without a g
    gap          percent of the way from daily Black-Scholes (0) to the optimum (100); None when either is unknown
    mean_loss, std, cvar95, cvar99 of the loss (cvar: mean of the worst 5% and 1%)
    mean_cost    of trading; trades a path, closing one counted; turnover in notional
    explained    R^2 of the P&L before costs by delta and gamma/theta of the model; None where the P&L does not vary
    diff         ce minus the reference policy's, on common paths; each `_se` is a standard error
    """

    name: str
    ce: float | None
    ce_se: float | None
    gap: float | None
    gap_se: float | None
    mean_loss: float
    mean_loss_se: float
    mean_cost: float
    mean_cost_se: float
    std: float
    cvar95: float
    cvar99: float
    trades: float
    turnover: float
    explained: float | None
    diff: float | None
    diff_se: float | None
    mean_diff: float
    mean_diff_se: float


class ScoreTable(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of many policies on common paths, and what they are measured against."""

    problem: Problem
    scenarios: str
    purpose: Purpose
    seed: int
    n_paths: int
    reference: str
    optimum: float | None
    optimum_by: str
    controls: Controls
    rows: tuple[Score, ...]

    def row(self, name: str) -> Score:
        """The row of a policy by name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"score: expected one of {[row.name for row in self.rows]}, found {name!r}")


class Certainty(NamedTuple):
    """A certainty equivalent and its influence on each path: mean of it 0, its standard deviation over root n the error."""

    value: float
    influence: Floats

    @property
    def se(self) -> float:
        """The standard error."""
        return standard_error(self.influence)


def daily_black_scholes(problem: Problem) -> FixedInterval:
    """The yardstick: hedge at the model's delta once a trading day."""
    return FixedInterval(interval=problem.daily_every * problem.step)


def score(
    policies: Policies,
    problem: Problem,
    scenarios: Scenarios,
    *,
    optimum: float | str | None = None,
    reference: str | None = None,
    known: Mapping[str, float] | None = None,
    controls: Controls = "none",
    workers: int = 1,
) -> ScoreTable:
    """The table of policies hedging a problem on common paths.

    `optimum` is the certainty equivalent that counts as 100, or the name of the policy whose own counts. The yardstick
    daily Black-Scholes is added as `DAILY`, which is also the `reference` of differences unless one is named. `known`
    gives certainty equivalents known without sampling (by the lattice): they replace sampled ones in gaps, and their
    sampled deviation is a control variate for the others. `controls="martingale"` also uses the gains of the rules
    themselves and of the model's hedge, whose expectation is 0 on martingale paths.

    Errors: ValueError for unknown names, or martingale controls on paths with a drift.
    """
    chosen = named(policies)
    if DAILY not in chosen:
        chosen = {DAILY: daily_black_scholes(problem), **chosen}
    return tabulate(
        run(chosen, problem, scenarios, workers=workers),
        problem,
        scenarios,
        optimum=optimum,
        reference=reference,
        known=known,
        controls=controls,
    )


def tabulate(
    losses: Losses,
    problem: Problem,
    scenarios: Scenarios,
    *,
    optimum: float | str | None = None,
    reference: str | None = None,
    known: Mapping[str, float] | None = None,
    controls: Controls = "none",
) -> ScoreTable:
    """The table of losses already run; arguments as for `score`."""
    against = DAILY if reference is None else reference
    sure = dict(known or {})
    for name in (against, *sure, *((optimum,) if isinstance(optimum, str) else ())):
        if name not in losses.names:
            raise ValueError(f"score: expected one of the policies {list(losses.names)}, found {name!r}")
    if controls == "martingale" and not scenarios.martingale:
        raise ValueError(f"score: martingale controls: expected paths without a drift, found {scenarios.name}")
    g = problem.risk_aversion
    found: dict[str, Certainty] = {}
    if g is not None:
        weight = g * math.exp(problem.rate * problem.horizon)
        found = certainties(losses, weight, sure, _control_columns(losses, scenarios, controls))
    optimal = _optimum(optimum, found)
    base = losses.loss(losses.names.index(against))
    rows = tuple(
        _row(losses, j, base=base, found=found, against=against, optimum=optimal) for j in range(len(losses.names))
    )
    return ScoreTable(
        problem=problem,
        scenarios=scenarios.name,
        purpose=scenarios.purpose,
        seed=scenarios.seed,
        n_paths=scenarios.n_paths,
        reference=against,
        optimum=None if optimal is None else optimal.value,
        optimum_by=optimum if isinstance(optimum, str) else "given" if optimum is not None else "",
        controls=controls,
        rows=rows,
    )


# ---------------------------------------------------------------------------------------- certainty equivalents


def certainties(
    losses: Losses, g: float, known: Mapping[str, float], columns: Sequence[Sequence[Floats]]
) -> dict[str, Certainty]:
    """The certainty equivalent of each policy, with control columns of expectation 0; a known one has no error."""
    ratios = {}
    for name, sure in known.items():
        weights = np.exp(g * (losses.loss(losses.names.index(name)) - sure))
        ratios[name] = weights - 1.0
    out: dict[str, Certainty] = {}
    for j, name in enumerate(losses.names):
        if name in known:
            out[name] = Certainty(known[name], np.zeros(len(losses.common.payoff)))
            continue
        use = [*columns[j], *ratios.values()]
        out[name] = certainty(losses.loss(j), g, use)
    return out


def certainty(loss: Floats, g: float, controls: Sequence[Floats] = ()) -> Certainty:
    """ln E[exp(g L)] / g by the mean of exp(g L), controls regressed out. Shape: loss, each control (n_paths,).

    The regression's own bias is of order 1 / n, below the error of order 1 / sqrt(n).
    """
    top = float(loss.max())
    weights = np.exp(g * (loss - top))
    residual = weights
    for column, slope in zip(controls, slopes(weights, controls), strict=True):
        residual = residual - slope * column
    mean = float(np.mean(residual))
    if mean <= 0.0:  # too few paths for so many controls: the plain mean cannot fail
        residual, mean = weights, float(np.mean(weights))
    return Certainty(top + math.log(mean) / g, (residual - mean) / (g * mean))


def slopes(values: Floats, controls: Sequence[Floats]) -> Floats:
    """Least-squares slopes of values on controls whose true means are 0. Shape: (controls,).

    Sums are numpy's pairwise ones, so that the bits do not depend on a library's threads.
    """
    if not controls:
        return np.empty(0)
    centred = [c - np.mean(c) for c in controls]
    scale = np.array([math.sqrt(float(np.sum(c * c))) for c in centred])
    usable = scale > 0.0
    units = [c / s for c, s, use in zip(centred, scale, usable, strict=True) if use]
    if not units:
        return np.zeros(len(controls))
    deviation = values - np.mean(values)
    gram = np.array([[float(np.sum(a * b)) for b in units] for a in units])
    right = np.array([float(np.sum(a * deviation)) for a in units])
    out = np.zeros(len(controls))
    out[usable] = np.linalg.lstsq(gram, right, rcond=1e-10)[0] / scale[usable]
    return out


def _control_columns(losses: Losses, scenarios: Scenarios, controls: Controls) -> list[list[Floats]]:
    """For each policy the columns of expectation 0."""
    if controls == "none":
        return [[] for _ in losses.names]
    common = losses.common
    shared = [common.plain]
    if scenarios.lognormal_vol is not None:
        shared.append(common.gamma_martingale)
    return [[*shared, outcome.gains - common.plain] for outcome in losses.outcomes]


def _optimum(optimum: float | str | None, found: Mapping[str, Certainty]) -> Certainty | None:
    if optimum is None or not found:
        return None
    if isinstance(optimum, str):
        return found[optimum]
    return Certainty(float(optimum), np.zeros(1))


# ---------------------------------------------------------------------------------------- one row


def _row(
    losses: Losses,
    j: int,
    *,
    base: Floats,
    found: Mapping[str, Certainty],
    against: str,
    optimum: Certainty | None,
) -> Score:
    name = losses.names[j]
    loss, outcome = losses.loss(j), losses.outcomes[j]
    own, other = found.get(name), found.get(against)
    gap = None if own is None or optimum is None or DAILY not in found else gap_closed(found[DAILY], own, optimum)
    ordered = np.sort(loss)
    return Score(
        name=name,
        ce=None if own is None else own.value,
        ce_se=None if own is None else own.se,
        gap=None if gap is None else gap.value,
        gap_se=None if gap is None else gap.se,
        mean_loss=float(np.mean(loss)),
        mean_loss_se=standard_error(loss),
        mean_cost=float(np.mean(outcome.costs)),
        mean_cost_se=standard_error(outcome.costs),
        std=float(np.std(loss, ddof=1)) if len(loss) > 1 else math.nan,
        cvar95=tail_mean(ordered, 0.05),
        cvar99=tail_mean(ordered, 0.01),
        trades=float(np.mean(outcome.trades)),
        turnover=float(np.mean(outcome.turnover)),
        explained=explained(outcome.gains, losses.common),
        diff=None if own is None or other is None else own.value - other.value,
        diff_se=None if own is None or other is None else standard_error(own.influence - other.influence),
        mean_diff=float(np.mean(loss - base)),
        mean_diff_se=standard_error(loss - base),
    )


def gap_closed(daily: Certainty, own: Certainty, optimum: Certainty) -> Certainty | None:
    """Percent of the way from daily Black-Scholes to the optimum, its error by the delta method on paired paths."""
    width = daily.value - optimum.value
    if width == 0.0:
        return None
    value = 100.0 * (daily.value - own.value) / width
    by_daily = 100.0 * (own.value - optimum.value) / width**2
    by_optimum = 100.0 * (daily.value - own.value) / width**2
    influence = by_daily * daily.influence + by_optimum * optimum.influence - 100.0 / width * own.influence
    return Certainty(value, influence)


def standard_error(values: Floats) -> float:
    """The standard error of a mean; NaN of one value."""
    n = len(values)
    return float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan


def tail_mean(ordered: Floats, share: float) -> float:
    """The mean of the largest `share` of rising values, the value at the edge counted in part (CVaR, expected shortfall).

    Source: Rockafellar and Uryasev 2002, proposition 8, for a discrete distribution.
    """
    wanted = share * len(ordered)
    whole = min(int(wanted), len(ordered) - 1)
    part = wanted - whole
    total = float(np.sum(ordered[len(ordered) - whole :])) + part * float(ordered[len(ordered) - whole - 1])
    return total / wanted


def explained(gains: Floats, common: Common) -> float | None:
    """R^2 of the hedged P&L before costs by its delta and gamma/theta parts; None where it does not vary."""
    pnl = gains - common.payoff
    model = gains - common.plain + common.gamma_theta
    total = float(np.var(pnl))
    return None if total <= 1e-24 * float(np.mean(pnl * pnl)) else 1.0 - float(np.var(pnl - model)) / total
