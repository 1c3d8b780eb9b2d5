"""A parity forward is the price at which calls and puts of one expiry agree; law: quotes alone give it, at their time.

European put-call parity (Stoll, 1969): C - P = e^(-rT) (F - K), so F = K + e^(rT) (C - P), and S = F e^(-rT) for an
underlying that pays nothing before the expiry. Of American quotes it is an approximation: the notes of a feed say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.domain.units import NS_PER_YEAR, Nanos, Rate

NEAR_MONEY: Final = 0.03
"""Strikes within this share of the money have their median taken: near enough to be quoted tightly, enough to outvote one."""
NEAREST: Final = 3
"""Strikes taken where fewer lie so near."""


class Leg(NamedTuple):
    """The quotes of one contract, in order of time. Shape: ts, bid, ask (n,); NaN where a side is withdrawn."""

    cp: int
    strike: float
    ts: NDArray[np.int64]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]


def parity_prints(
    legs: Sequence[Leg], *, expiry: Nanos, rate: Rate, discounted: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times and prices of the underlying, one at each instant before the expiry at which a quote of the chain changed.

    The median over the strikes within `NEAR_MONEY` of the money (the strike of least |C - P|), at least the `NEAREST`
    ones, that have a two-sided call and put, last state carried.
    `discounted` True gives S = F e^(-rT) (a share or an index), False gives F (a future).
    Shape: result (m,), (m,); nothing where no strike has both.
    """
    calls = {leg.strike: leg for leg in legs if leg.cp > 0 and len(leg.ts)}
    puts = {leg.strike: leg for leg in legs if leg.cp < 0 and len(leg.ts)}
    strikes = sorted(calls.keys() & puts.keys())
    if not strikes:
        return np.empty(0, np.int64), np.empty(0)
    grid = np.unique(np.concatenate([leg.ts for k in strikes for leg in (calls[k], puts[k])]))
    grid = grid[grid < expiry]
    K = np.array(strikes)[:, None]
    D = np.stack([_mids(calls[k], grid) - _mids(puts[k], grid) for k in strikes])
    T = (expiry - grid) / NS_PER_YEAR
    growth = np.exp(rate * T)
    F = np.where(np.isnan(D), np.nan, K + growth * D)
    distance = np.where(np.isnan(D), np.inf, np.abs(D))
    money = K[np.argmin(distance, axis=0)].T
    rank = np.argsort(np.argsort(distance, axis=0, kind="stable"), axis=0, kind="stable")
    near = (np.abs(K / money - 1.0) <= NEAR_MONEY) | (rank < NEAREST)
    chosen = np.where(near, F, np.nan)
    known = ~np.isnan(chosen).all(axis=0)
    price = np.nanmedian(chosen[:, known], axis=0) if known.any() else np.empty(0)
    if discounted:
        price = price / growth[known]
    valid = price > 0.0
    return grid[known][valid].astype(np.int64), price[valid]


def _mids(leg: Leg, grid: NDArray[np.int64]) -> NDArray[np.float64]:
    row = np.searchsorted(leg.ts, grid, side="right") - 1
    mid = (leg.bid + leg.ask) / 2.0
    return np.where(row >= 0, mid[np.maximum(row, 0)], np.nan)
