"""A staged problem is one underlying of a config's book at an instant, as the lab and the exact solver take it.

Law: prices, vols, costs and lots are those the run's own hedger would be given at that instant. Everything is in money of
that instant: strikes at forwards (K exp(-(r - q) tau)), quantities discounted (exp(-q tau)), so that the rate is 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from bot.app import config as configs
from bot.app import wiring
from bot.app.config_lab import policy_of, table_text, with_keys
from bot.app.contracts import resolve_instrument
from bot.app.risk import Scene, stage, why_unknown
from bot.core.errors import ConfigError, DataError
from bot.core.ports import HedgePlan, HedgePolicy
from bot.domain.instruments import OptionContract, Perpetual
from bot.domain.units import NS_PER_YEAR, Nanos, iso, parse_span
from bot.engine.leg_inputs import LegInputs
from bot.lab.problem import Leg, Problem
from bot.pricing.exact import risk_aversion_from_tolerance
from strategies.policies.exact_band import problem_of_plan

AVERSE: Final = ("whalley_wilmott", "fixed_fee_band", "zakamouline", "almgren_li_speed", "exact_band", "guarded_band",
                 "delta_gamma_vega")  # fmt: skip
"""Kinds of policy that weigh cost against risk by an aversion."""
CATALOGUE: Final = (
    *("none", "static", "fixed_interval", "leland_delta", "hoggard_whalley_wilmott", "delta_band", "move_band"),
    *("whalley_wilmott", "whalley_wilmott_centre", "fixed_fee_band", "zakamouline", "exact_band", "guarded_band"),
)
"""What `--policies all` means: every kind that needs no data of its own (a smile, an impact, a function)."""


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """One underlying's book, market and costs at an instant, and what is needed to say bands in contracts.

    `problem` is in underlying units and money of `now`; `plan` as the hedger's policies are given it. A holding of h hedge
    contracts stands at `linear` + h x `per_contract` - `target` in the problem's units; `held` of them are held now, and
    `linear` is what else of the underlying is. `aversion` is in 1 / settlement currency.
    """

    underlying: str
    hedge: str
    currency: str
    now: Nanos
    spot: float
    problem: Problem
    plan: HedgePlan
    per_contract: float
    lot: float
    held: float
    linear: float
    target: float
    aversion: float | None
    bid: float | None
    ask: float | None
    notes: tuple[str, ...] = ()

    @property
    def growth(self) -> float:
        """exp(r T): what money of now is at the horizon; aversion per unit of money of now is greater by it."""
        return math.exp(self.plan.rate * self.problem.horizon)

    @property
    def standing(self) -> float:
        """Where the book stands now in the problem's units: 0 is flat of everything but its options."""
        return self.linear + self.held * self.per_contract - self.target

    def contracts(self, units: float) -> float:
        """A holding of the problem, in underlying units, as hedge contracts."""
        return (units - self.linear + self.target) / self.per_contract

    def policy(self, table: Any, config: configs.Config) -> HedgePolicy:
        """The policy of a table for the problem: its aversion in the problem's money, its dates the problem's."""
        keys: dict[str, Any] = {"dates": self.problem.dates}
        own = aversion_of(table)
        if own is not None:
            keys |= {"risk_aversion": own * self.growth, "tolerance": None}
        return wiring.make_policy(with_keys(table, **keys), config)


# --------------------------------------------------------------------------- aversion


_TOLERANCE = re.compile(r"^\s*([\d_.,eE+-]+)\s+per\s+([\d_.,eE+-]+)(?:\s+of\s+std)?\s*$")


def parse_tolerance(text: str) -> float:
    """The absolute risk aversion of "COST per X of std": who pays COST to be rid of a standard deviation of X.

    ConfigError for other words.

    >>> parse_tolerance("1 per 2000 of std")
    5e-07
    """
    found = _TOLERANCE.match(text)
    try:
        cost, deviation = (
            (float(part.replace(",", "").replace("_", "")) for part in found.groups()) if found else (0, 0)
        )
        return risk_aversion_from_tolerance(deviation, cost=cost)
    except ValueError:
        raise ConfigError(
            f"--tolerance: expected such as '1 per 2000 of std' (pay 1 to be rid of a standard deviation of 2000), found "
            f"{text!r}"
        ) from None


def aversion_of(table: Any) -> float | None:
    """The absolute aversion in a policy's table, or in the one it is around; None where there is none."""
    if table is None:
        return None
    given = getattr(table, "risk_aversion", None)
    if given is not None:
        return float(given)
    tolerance = getattr(table, "tolerance", None)
    if tolerance is not None:
        return float(2.0 / tolerance**2)
    return aversion_of(getattr(table, "inner", None))


def chosen_aversion(config: configs.Config, told: float | None, table: Any) -> float | None:
    """The aversion in 1 / base currency: the command line's, the lab table's, the strategies', an alternative's; or None."""
    if told is not None:
        return told
    if table is not None and table.aversion is not None:
        return float(table.aversion)
    tables = [getattr(entry, "policy", None) for entry in config.strategies]
    tables += [item.policy for item in config.alternatives]
    return next((found for found in map(aversion_of, tables) if found is not None), None)


# --------------------------------------------------------------------------- staging


def stage_problems(
    config: configs.Config, *, aversion: float | None, dates: int, at: Nanos | None = None
) -> tuple[list[Staged], list[str]]:
    """The problem of every hedged underlying with live options, and what was left out and why.

    ConfigError when none is left, DataError when the feeds never quote what is needed.
    """
    if config.pricing.pricer == "table":
        raise ConfigError(
            f"{config.path.name}: pricing.pricer = 'table' knows no vols of the legs: nothing can be simulated or solved"
        )
    scene = stage(config, at=at)
    found: list[Staged] = []
    notes = list(scene.notes)
    for hedge in config.hedges:
        key = resolve_instrument(hedge.underlying).id
        legs = _legs_on(scene, key)
        if not legs:
            notes.append(f"{key}: no option of the book lives at {iso(scene.now)}; nothing is asked of its hedge")
            continue
        found.append(_staged(scene, hedge, key, legs, aversion, dates))
    hedged = {resolve_instrument(hedge.underlying).id for hedge in config.hedges}
    notes += [
        f"{key}: options are held and no [[hedges]] entry hedges them; left out"
        for key in scene.valuation.slices
        if key not in hedged and _legs_on(scene, key)
    ]
    if not found:
        raise ConfigError(
            f"{config.path.name}: expected options on a hedged underlying, found none: {'; '.join(notes)}"
        )
    return found, notes


def _legs_on(scene: Scene, underlying: str) -> dict[str, float]:
    held = {}
    for key, quantity in scene.positions.items():
        item = scene.universe.get(key)
        if isinstance(item, OptionContract) and item.underlying == underlying and item.expiry > scene.now:
            held[key] = float(quantity)
    return held


def _staged(
    scene: Scene, hedge: configs.Hedge, key: str, legs: Mapping[str, float], aversion: float | None, dates: int
) -> Staged:
    config, loop, valuation = scene.config, scene.loop, scene.valuation
    for name in legs:
        contract = scene.universe.get(name)
        assert isinstance(contract, OptionContract)  # _legs_on chose it
        why = why_unknown(scene, contract)
        if why:
            raise DataError(f"{config.path.name}: {key} at {iso(scene.now)}: {why}")
    instrument = scene.universe.get(resolve_instrument(hedge.instrument).id)
    column = scene.universe.index(instrument.id)
    bid, ask = loop.marks.bid(column), loop.marks.ask(column)
    price = 0.5 * (bid + ask) if math.isfinite(bid) and math.isfinite(ask) else loop.marks.last(column)
    if not math.isfinite(price):
        raise DataError(f"{config.path.name}: {instrument.id} at {iso(scene.now)}: expected a price, found none")
    made = wiring.hedge_of(hedge, config)
    estimate = wiring.cost_estimate(hedge, config)
    cost = made.cost if hedge.cost is not None else estimate.at(price, bid, ask)
    notes = []
    if math.isnan(cost):
        cost = estimate.fraction
        notes.append(f"{instrument.id} has no two-sided quote now: its spread is counted as 0")
    spot = valuation.spot(key)
    per_contract = float(instrument.multiplier)
    if isinstance(instrument, Perpetual) and instrument.inverse:
        per_contract /= price
    if hedge.beta is not None:
        per_contract *= hedge.beta * price / spot
        cost /= abs(hedge.beta)
        notes.append(
            f"{instrument.id} stands in for {key} at beta {hedge.beta:g}: the basis between them is not simulated"
        )
    lot = hedge.lot if hedge.lot is not None else instrument.lot
    held = float(scene.positions.get(instrument.id, 0))
    other = 0 if instrument.id == key else scene.positions.get(key, 0)
    linear = float(other) * float(scene.universe.get(key).multiplier) if other else 0.0
    target = made.target_delta if not isinstance(made.target_delta, tuple) else sum(made.target_delta) / 2.0
    inputs = LegInputs(valuation.legs(key, dict(legs)), valuation, linear)
    plan = inputs.plan(
        scene.now,
        cost=cost,
        fixed_cost=estimate.ticket,
        lot=0.0 if lot is None else float(lot) * abs(per_contract),
        per_contract=per_contract,
    )
    currency = next(scene.universe.get(name).currency for name in legs)
    rate = loop.convert(currency)
    if aversion is not None and rate is None:
        raise DataError(
            f"{config.path.name}: expected a rate of {currency} in {config.session.base_currency}, found none"
        )
    own = None if aversion is None else aversion * float(rate or 1)
    if any(getattr(scene.universe.get(name), "style", "") == "american" for name in legs):
        notes.append("American options are taken for European ones: early exercise is neither simulated nor hedged")
    standing = linear + held * per_contract - target
    if standing:
        notes.append(
            f"the book stands at {standing:+,.6g} of {key} beside its options: simulated hedges start flat nonetheless, "
            "the band today counts it"
        )
    return Staged(
        underlying=key,
        hedge=instrument.id,
        currency=currency,
        now=scene.now,
        spot=spot,
        problem=problem_of(plan, aversion=own, dates=dates),
        plan=plan,
        per_contract=per_contract,
        lot=0.0 if lot is None else float(lot),
        held=held,
        linear=linear,
        target=float(target),
        aversion=own,
        bid=bid if math.isfinite(bid) else None,
        ask=ask if math.isfinite(ask) else None,
        notes=tuple(notes),
    )


def problem_of(plan: HedgePlan, *, aversion: float | None, dates: int) -> Problem:
    """The lab's problem for a plan, in money of its instant at rate 0. One vol drives it: the legs' weighted by vega."""
    exact = problem_of_plan(plan, risk_aversion=1.0, dates=dates)
    if exact is None:
        raise ValueError("expected a plan with a live leg, found none")
    r, q = plan.rate, plan.dividend
    horizon = max(plan.tau)
    legs = [
        Leg(cp=int(cp), strike=strike * math.exp(-(r - q) * tau), quantity=quantity * math.exp(-q * tau), tau=tau)
        for cp, strike, quantity, tau in zip(plan.cp, plan.strike, plan.quantity, plan.tau, strict=True)
        if tau > 0.0 and quantity
    ]
    return Problem(
        legs=tuple(legs),
        spot=plan.spot,
        vol=exact.vol,
        tau=horizon,
        cost=plan.cost,
        dates=dates,
        risk_aversion=None if aversion is None else aversion * math.exp(r * horizon),
        fixed_cost=plan.fixed_cost,
        lot=plan.lot,
    )


# --------------------------------------------------------------------------- which policies


def config_policies(config: configs.Config) -> dict[str, Any]:
    """The tables of the config's own policies by account: the first strategy's as `dynamic`, then the alternatives'."""
    found: dict[str, Any] = {}
    for entry in config.strategies:
        policy = getattr(entry, "policy", None)
        if policy is not None:
            found["dynamic"] = policy
            break
    for item in config.alternatives:
        if item.policy is not None:
            found[item.name] = item.policy
    return found


def catalogue(
    names: Sequence[str],
    *,
    aversion: float | None,
    half_width: float | None,
    deviations: float | None,
    fee: float = 0.0,
) -> dict[str, Any]:
    """The tables of kinds by name, each with the keys it needs; those that need an aversion or a width not given are left out.

    `half_width` in underlying units and `deviations` of a day's move are what was tuned.
    """
    averse = {} if aversion is None else {"risk_aversion": aversion}
    made: dict[str, Any] = {}
    day = "1d"
    for name in names:
        kind = name.removesuffix("_centre")
        if kind in AVERSE and not averse:
            continue
        keys: dict[str, Any] = dict(averse) if kind in AVERSE else {}
        if name.endswith("_centre"):
            keys["to"] = "centre"
        if kind in {"fixed_interval", "leland_delta", "hoggard_whalley_wilmott"}:
            keys["interval"] = day
        if kind == "delta_band":
            if half_width is None:
                continue
            keys["half_width"] = half_width
        if kind == "move_band":
            if deviations is None:
                continue
            keys["deviations"] = deviations
        if kind == "fixed_fee_band":
            keys["fee"] = fee
        made[name] = policy_of(kind, **keys)
    return made


def described(table: Any) -> str:
    """A policy's table in a line."""
    return table_text(table)


def longest_step(staged: Sequence[Staged]) -> Nanos:
    """The longest time between two dates of the problems."""
    return max(item.problem.step for item in staged)


def quick_intervals(tables: Mapping[str, Any], step: Nanos) -> list[str]:
    """The policies whose interval is shorter than a date: simulated, they act at each date."""
    return [name for name, table in tables.items() if (getattr(table, "interval", None) or step) < step]


def years_text(years: float) -> str:
    """A length of time for a reader: days, one decimal."""
    return f"{years * NS_PER_YEAR / parse_span('1d'):,.1f} days"
