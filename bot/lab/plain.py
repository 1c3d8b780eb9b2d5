"""The plain scorer hedges one path date by date with numbers and `decide`: the readable twin of `bot.lab.scorer`.

Law: equal to it to rounding. It is also what to read to learn what is scored.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bot.core.ports import BandInput, HedgePolicy, LegInput, ShapesDelta
from bot.domain.units import NEVER, NS_PER_YEAR, decimal_of
from bot.lab.problem import Problem, Row
from bot.lab.scorer import Floats, discount_at, is_bounded, prepared, reach_at
from bot.pricing import black
from bot.pricing.legs import terms_by_formula
from strategies.policies.decide import decide
from strategies.policies.reach import within_reach


class PathOutcome(NamedTuple):
    """What one policy did on one path, in money of the start; `holdings` after each decision, in underlying units."""

    loss: float
    payoff: float
    gains: float
    costs: float
    trades: int
    turnover: float
    holdings: tuple[float, ...]


def score_one(policy: HedgePolicy, problem: Problem, path: np.ndarray[tuple[int], np.dtype[np.float64]]) -> PathOutcome:
    """The outcome of a policy on one path. Shape: path (dates + 1,)."""
    rule = prepared(policy, problem)
    lot = decimal_of(problem.lot) if problem.lot else None
    held, gains, costs, turnover, trades = 0.0, 0.0, 0.0, 0.0, 0
    last_ts, last_spot = NEVER, math.nan
    holdings: list[float] = []
    for i in range(problem.dates):
        spot, now = float(path[i]), i * problem.step
        x = look(rule, problem, spot, i, held, last_ts, last_spot)
        band = rule.band(x)
        if is_bounded(policy):
            band = within_reach(band, *reach_at(problem, i))
        if not (band.lo <= held <= band.hi and band.lo != band.hi):
            decision = decide(band, held, lot, policy=rule.name)
            last_ts, last_spot = now, spot
            traded = abs(float(decision.quantity) - held)
            if traded:
                free = i == 0 and not problem.charge_open
                charge = problem.cost * spot * traded + problem.fixed_cost
                costs += 0.0 if free else discount_at(problem, i) * charge
                trades += 1
                turnover += spot * traded
            held = float(decision.quantity)
        gains += held * (discount_at(problem, i + 1) * float(path[i + 1]) - discount_at(problem, i) * spot)
        holdings.append(held)
    if problem.charge_close and held:
        value = float(path[-1]) * abs(held)
        costs += discount_at(problem, problem.dates) * (problem.cost * value + problem.fixed_cost)
        trades += 1
        turnover += value
    owed = sum(owed_by(row, problem, float(path[row.date])) for row in problem.rows())
    return PathOutcome(owed - gains + costs, owed, gains, costs, trades, turnover, tuple(holdings))


def owed_by(row: Row, problem: Problem, spot: float) -> float:
    """What a leg makes the hedger owe at its end, in money of the start."""
    value = max(row.cp * (spot - row.strike), 0.0)
    return 0.0 if value < problem.threshold else -row.quantity * discount_at(problem, row.date) * value


def look(
    rule: HedgePolicy, problem: Problem, spot: float, i: int, held: float, last_ts: int, last_spot: float
) -> BandInput:
    """What the policy sees at a date: numbers only."""
    now = i * problem.step
    live = [row for row in problem.rows() if row.date > i]
    tau = np.array([(row.date * problem.step - now) / NS_PER_YEAR for row in live])
    strike, vol, cp = (np.array([getattr(row, name) for row in live]) for name in ("strike", "vol", "cp"))
    weight = np.array([row.quantity for row in live])
    unit = black.bsm(spot, strike, tau, vol, rate=problem.rate, cp=cp)
    net_gamma = float(np.sum(weight * unit.gamma))
    deltas = unit.delta
    if isinstance(rule, ShapesDelta) and live:
        deltas = rule.leg_deltas(
            LegInput(
                spot=spot,
                strike=strike,
                tau=tau,
                vol=vol,
                rate=problem.rate,
                dividend=0.0,
                cp=cp,
                weight=weight,
                delta=unit.delta,
                gamma=unit.gamma,
                vega=unit.vega,
                net_gamma=net_gamma,
                cost=problem.cost,
            )
        )
    book_tau, book_vol = (0.0, problem.vol) if not live else _terms(spot, strike, tau, vol, cp, weight, problem.rate)
    return BandInput(
        now=now,
        spot=spot,
        want=-float(np.sum(weight * deltas)) if live else 0.0,
        held=held,
        gamma=net_gamma,
        tau=book_tau,
        vol=book_vol,
        rate=problem.rate,
        per_contract=1.0,
        cost=problem.cost,
        last_hedge_ts=last_ts,
        last_hedge_spot=last_spot,
    )


def _terms(
    spot: float, strike: Floats, tau: Floats, vol: Floats, cp: Floats, weight: Floats, rate: float
) -> tuple[float, float]:
    """The book's time and vol, weighted by |weight x gamma|."""
    packed = black.pack_slice(
        strike=strike, expiry=np.zeros(len(strike), dtype=np.int64), vol=vol, cp=cp, weight=weight, epoch=0
    )
    packed[:, 1] = tau * NS_PER_YEAR
    return terms_by_formula(spot, 0, packed, rate, 0.0)
