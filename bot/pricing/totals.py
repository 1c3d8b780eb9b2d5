"""Totals are the Greeks of a holding of European options, summed by weight; law: unknown is NaN, never zero.

One compiled call a slice: what a decision record shows costs as much as the decision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np

from bot.domain.units import NS_PER_YEAR, Nanos
from bot.pricing.black import Array, bsm


class Totals(NamedTuple):
    """Sums of weight x Greek, in the units of `bot.pricing.black`; `rho_q` is per 1.00 of yield."""

    price: float
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float
    rho_q: float
    vanna: float
    volga: float
    charm: float


TotalsKernel: TypeAlias = Callable[[float, Nanos, Array, float, float], tuple[float, ...]]


@cache
def totals_kernel() -> TotalsKernel:
    """The compiled `(spot, elapsed, packed, rate, dividend) -> (price, delta, gamma, vega, theta, rho, rho_q, vanna, volga,
    charm)` over the legs whose expiry is later than `elapsed`; all NaN where one of them, or the market, is unknown.

    `packed` from `black.pack_slice`; on a future pass `dividend = rate`.
    """
    from bot.pricing import totals_kernels  # noqa: PLC0415  the compiler is imported by those who price

    kernel: TotalsKernel = totals_kernels.totals
    return kernel


def totals_by_formula(spot: float, elapsed: Nanos, packed: Array, rate: float, dividend: float) -> Totals:
    """The same sums from `bsm`: the readable twin of `totals_kernel()`. Shape: packed (legs, 5)."""
    live = packed[packed[:, 1] > elapsed]
    tau = (live[:, 1] - elapsed) / NS_PER_YEAR
    rows = bsm(spot, live[:, 0], tau, live[:, 2], rate=rate, dividend=dividend, cp=live[:, 3])
    found = Totals._make(float(np.sum(live[:, 4] * getattr(rows, name))) for name in Totals._fields)
    return Totals._make([np.nan] * len(found)) if np.isnan(found).any() else found
