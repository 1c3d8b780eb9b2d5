"""A tree prices a convertible by what it may be worth one step on; law: slow and plain, the oracle of `convertible`.

It shares nothing with the grid but the terms. The spot as in Cox, Ross and Rubinstein (1979); "tf" carries an equity and
a debt part at each node, the debt discounted at rate plus spread (Tsiveriotis and Fernandes 1998); "afv" has a third
branch, on which the issuer defaults (Derman 1994; Ayache, Forsyth and Vetzal 2003).
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bot.domain.convertible import SAME_INSTANT, ConvertibleTerms

Array: TypeAlias = NDArray[np.float64]


def price(
    spot: float,
    terms: ConvertibleTerms,
    *,
    vol: float,
    rate: float = 0.0,
    growth: float | None = None,
    spread: float = 0.0,
    hazard: float = 0.0,
    elasticity: float = 0.0,
    hazard_spot: float = 1.0,
    recovery: float = 0.0,
    equity_drop: float = 0.0,
    at: float = 0.0,
    model: Literal["tf", "afv"] = "afv",
    steps: int = 1000,
) -> float:
    """The price of one bond on a tree of `steps`; `growth` is rate less yield and borrow (None: rate). No cash dividends.

    Every date of the terms is taken at the nearest level. The error falls as 1 / steps, unevenly.
    Errors: ValueError when a probability leaves (0, 1): take more steps.
    """
    dt = (terms.maturity - at) / steps
    carry = rate if growth is None else growth
    up = math.exp(vol * math.sqrt(dt))
    coupons = {round((when - at) / dt): amount for when, amount in terms.coupons if when > at + SAME_INSTANT}
    coupon = coupons.pop(steps, 0.0)
    extra = coupon if terms.converter_keeps_coupon else 0.0
    parity = _ratio(terms, at, dt, steps) * _spots(spot, up, steps)
    converts = parity + extra > terms.redeemed + coupon
    equity = np.where(converts, parity, 0.0)
    debt = np.where(converts, extra, terms.redeemed + coupon)
    for step in range(steps - 1, -1, -1):
        S = _spots(spot, up, step)
        ratio = _ratio(terms, at, dt, step)
        if model == "tf":
            p = (math.exp(carry * dt) - 1.0 / up) / (up - 1.0 / up)
            _check(p, p)
            equity = math.exp(-rate * dt) * (p * equity[1:] + (1.0 - p) * equity[:-1])
            debt = math.exp(-(rate + spread) * dt) * (p * debt[1:] + (1.0 - p) * debt[:-1])
        else:
            level = hazard * (S / hazard_spot) ** elasticity
            lost = -np.expm1(-level * dt)
            # survival asks for growth that makes up for the fall; where default is all but sure no branch has so much
            p_up = (np.exp(np.minimum((carry + level * equity_drop) * dt, 1.0)) - 1.0 / up) / (up - 1.0 / up)
            p_up = np.where(level * dt > 0.3 * math.log(up), np.minimum(p_up, 1.0), p_up)
            _check(float(p_up.min()), float(p_up.max()))
            alive = p_up * debt[1:] + (1.0 - p_up) * debt[:-1] + p_up * equity[1:] + (1.0 - p_up) * equity[:-1]
            paid = np.maximum(ratio * S * (1.0 - equity_drop), recovery * terms.face)
            debt = math.exp(-rate * dt) * ((1.0 - lost) * alive + lost * paid)
            equity = np.zeros_like(debt)
        accrued = 0.0 if step in coupons else terms.accrued(at + step * dt)
        equity, debt = _decide(terms, equity, debt, ratio * S, at=at, dt=dt, step=step, accrued=accrued, dates=True)
        if step in coupons:
            debt = debt + coupons[step]
            equity, debt = _decide(
                terms, equity, debt, ratio * S, at=at, dt=dt, step=step, accrued=coupons[step], dates=False
            )
    return float(equity[0] + debt[0])


def _decide(
    terms: ConvertibleTerms,
    equity: Array,
    debt: Array,
    parity: Array,
    *,
    at: float,
    dt: float,
    step: int,
    accrued: float,
    dates: bool,
) -> tuple[Array, Array]:
    """Call, then conversion and put, on one level. `dates`: rights of a single date count too."""
    for call in terms.calls:
        if _open(call.start, call.end, at, dt, step, dates=dates):
            paid = call.price + (accrued if call.clean else 0.0)
            called = (equity + debt > np.maximum(paid, parity)) & (parity >= call.trigger * terms.face)
            equity, debt = np.where(called, np.maximum(paid, parity), equity), np.where(called, 0.0, debt)
    converted = (parity > 0.0) & (equity + debt < parity)
    equity, debt = np.where(converted, parity, equity), np.where(converted, 0.0, debt)
    for put in terms.puts:
        if _open(put.start, put.end, at, dt, step, dates=dates):
            paid = put.price + (accrued if put.clean else 0.0)
            sold = equity + debt < paid
            equity, debt = np.where(sold, 0.0, equity), np.where(sold, paid, debt)
    return equity, debt


def _open(start: float, end: float, at: float, dt: float, step: int, *, dates: bool) -> bool:
    first, last = round((start - at) / dt), round((end - at) / dt)
    if not dates and step == first:
        return False
    return first <= step <= last


def _ratio(terms: ConvertibleTerms, at: float, dt: float, step: int) -> float:
    """Shares per bond at a level, 0 where conversion is closed."""
    begin, finish = terms.conversion_window
    if not (max(begin, at) <= at + (step + 0.5) * dt and at + (step - 0.5) * dt <= finish):
        return 0.0
    return terms.ratio_at(at + step * dt)


def _spots(spot: float, up: float, step: int) -> Array:
    return np.asarray(spot * up ** (2.0 * np.arange(step + 1) - step))


def _check(least: float, most: float) -> None:
    if not (least > 0.0 and most <= 1.0):
        raise ValueError(
            f"convertible_tree: probability: expected inside (0, 1), found {least} to {most}; take more steps"
        )
