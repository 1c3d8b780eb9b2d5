"""The lab's compiled kernels: one date of one policy over a block of paths; law: equal to the plain loop, same bits always.

Imported only when something is scored. No fast-math flag and no contracted multiply-add: a path's loss has the same bits
in any block, thread and x86-64 processor. Kernels hold no lock, so blocks run side by side.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled_free as compiled
from bot.pricing.elementary import PHI_0, deviations, exp_product, exp_sum, tail_ratio

BLOCK: Final = 8192
"""Paths of a block. A policy's state is one flat array of rows so long, whose constant offsets overlap nothing."""

HELD: Final = 0
GAINS: Final = BLOCK
COST: Final = 2 * BLOCK
TRADES: Final = 3 * BLOCK
TURNOVER: Final = 4 * BLOCK
LAST_SPOT: Final = 5 * BLOCK
LAST_TS: Final = 6 * BLOCK
"""The last hedge's instant: the bits of an integer, moved as they are."""
STATE_SIZE: Final = 7 * BLOCK

_f64: Final = numba.types.float64
_bool: Final = numba.types.boolean
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_OUT: Final = numba.types.Array(_f64, 1, "C")


@compiled(numba.types.void(_IN, *(_f64,) * 6, *(_OUT,) * 5))
def add_leg(
    spot: NDArray[np.float64],
    strike: float,
    tau: float,
    vol: float,
    rate: float,
    cp: float,
    weight: float,
    delta: NDArray[np.float64],
    gamma: NDArray[np.float64],
    net_delta: NDArray[np.float64],
    net_gamma: NDArray[np.float64],
    net_decay: NDArray[np.float64],
) -> None:
    """Writes one leg's delta and gamma per unit; adds weight x delta, gamma and gamma vol^2 to the book's. Shape: all (paths,).

    As `bot.pricing.black.bsm` without a dividend yield, the date's constants taken out of the loop.
    """
    w = vol * math.sqrt(tau)
    discount = exp_product(-rate, tau)
    k = strike * discount
    drift = rate * tau
    for j in range(spot.shape[0]):
        S = spot[j]
        d1, _, inverse = deviations(S, strike, S, k, drift, w)
        density = PHI_0 * exp_sum(-0.5 * d1 * d1, 0.0)
        tail = density * tail_ratio(abs(d1))
        above = 1.0 - tail if cp * d1 > 0.0 else tail
        unit = cp * above
        delta[j] = unit
        net_delta[j] += weight * unit
        curvature = density * inverse / S
        gamma[j] = curvature
        net_gamma[j] += weight * curvature
        net_decay[j] += weight * curvature * vol * vol


@compiled(numba.types.void(_IN, _f64, _f64, _f64, _f64, _f64, _OUT, _OUT, _OUT))
def add_terms(
    spot: NDArray[np.float64],
    strike: float,
    tau: float,
    vol: float,
    rate: float,
    weight: float,
    share: NDArray[np.float64],
    taus: NDArray[np.float64],
    variances: NDArray[np.float64],
) -> None:
    """Adds one leg's |weight x gamma|, and tau and vol^2 times it, to a book's terms. Shape: all (paths,).

    As `bot.pricing.legs.terms_by_formula`; the factor 1 / S common to all legs is left out.
    """
    w = vol * math.sqrt(tau)
    k = strike * exp_product(-rate, tau)
    size = abs(weight)
    for j in range(spot.shape[0]):
        S = spot[j]
        d1, _, inverse = deviations(S, strike, S, k, rate * tau, w)
        part = size * exp_sum(-0.5 * d1 * d1, 0.0) * inverse
        share[j] += part
        taus[j] += part * tau
        variances[j] += part * vol * vol


@compiled(numba.types.void(_IN, _IN, _f64, _f64, _f64, _f64, _IN, _IN, _IN, _OUT, _OUT, _OUT))
def add_shared(
    spot: NDArray[np.float64],
    after: NDArray[np.float64],
    discount: float,
    discount_after: float,
    years: float,
    growth: float,
    want: NDArray[np.float64],
    gamma: NDArray[np.float64],
    decay: NDArray[np.float64],
    plain: NDArray[np.float64],
    gamma_theta: NDArray[np.float64],
    gamma_martingale: NDArray[np.float64],
) -> None:
    """Adds one step of what every policy is explained by, in discounted money. Shape: all (paths,).

    `plain` gains want x move of the discounted price, `gamma_theta` the legs' gamma / 2 (move^2 - vol^2 S^2 dt), and
    `gamma_martingale` gamma / 2 (move^2 - `growth` S^2): where growth is the exact variance of a step, expectation 0.
    """
    for j in range(spot.shape[0]):
        a = discount * spot[j]
        move = discount_after * after[j] - a
        half = 0.5 / discount
        squared = move * move
        plain[j] += want[j] * move
        gamma_theta[j] += half * (gamma[j] * squared - decay[j] * years * (a * a))
        gamma_martingale[j] += half * gamma[j] * (squared - growth * (a * a))


@numba.njit(forceinline=True, error_model="numpy")
def rounded(wanted: float, above: float, below: float, mode: int) -> float:
    """The number in whole lots of above / below: mode 0 half away from zero, 1 up, -1 down.

    Multiples k above / below are rounded once, so they are the floats that name them, and comparing with them decides as
    exact decimals do.
    """
    w = abs(wanted)
    k = float(np.floor(w * below / above))
    if k * above / below > w:
        k -= 1.0
    if (k + 1.0) * above / below <= w:
        k += 1.0
    if mode == 0:
        away = (2.0 * k + 1.0) * above / (2.0 * below) <= w
    else:
        away = (mode > 0) == (wanted > 0.0) and k * above / below != w
    if away:
        k += 1.0
    return k * above / below if wanted > 0.0 else -(k * above / below)


@numba.njit(forceinline=True, error_model="numpy")
def wanted_lots(lo: float, hi: float, to: float, centred: bool, held: float, above: float, below: float) -> float:
    """The quantity to hold, in whole lots: rounded inside the band, to its middle where it is narrower than a lot."""
    if lo == hi:
        return rounded(lo, above, below, 0)
    if centred:
        return rounded(to, above, below, 0)
    quantity = rounded(lo, above, below, 1) if held < lo else rounded(hi, above, below, -1)
    if lo <= quantity <= hi:
        return quantity
    return rounded(0.5 * (lo + hi), above, below, 0)


_STEP: Final = numba.types.void(_IN, _IN, _f64, _f64, _IN, _IN, _IN, _bool, *(_f64,) * 8, _OUT)


@numba.njit(forceinline=True, error_model="numpy")
def is_cut(lo: float, hi: float, least: float, most: float) -> bool:
    """True where a band meets the reach [least, most] and does not cover it: as `strategies.policies.reach`."""
    return (lo <= most) & (hi >= least) & (not ((lo <= least) & (hi >= most)))


@compiled(numba.types.void(_IN, _IN, _f64, _f64, _OUT))
def carry(
    spot: NDArray[np.float64],
    after: NDArray[np.float64],
    discount: float,
    discount_after: float,
    state: NDArray[np.float64],
) -> None:
    """The move after a date on which nobody does anything, as `step` makes it. Shape: spot, after (paths,); state as there."""
    for j in range(spot.shape[0]):
        state[GAINS + j] += state[HELD + j] * (discount_after * after[j] - discount * spot[j])


@compiled(_STEP)
def step(
    spot: NDArray[np.float64],
    after: NDArray[np.float64],
    discount: float,
    discount_after: float,
    lo: NDArray[np.float64],
    hi: NDArray[np.float64],
    to: NDArray[np.float64],
    centred: bool,
    least: float,
    most: float,
    per_contract: float,
    cost: float,
    fixed: float,
    above: float,
    below: float,
    now: float,
    state: NDArray[np.float64],
) -> None:
    """One decision in any size and the move after it: clamps each holding into its band, charges, carries it on.

    Bands are cut to the book's reach [least, most] (infinite: not cut).
    Shape: spot, after, lo, hi, to (paths,); state (STATE_SIZE,). `now` carries the bits of an integer instant. No
    branches, so that the loop becomes vector code.
    """
    for j in range(spot.shape[0]):
        y = state[HELD + j]
        cut = is_cut(lo[j], hi[j], least, most)
        a = max(lo[j], least) if cut else lo[j]
        b = min(hi[j], most) if cut else hi[j]
        t = min(max(to[j], a), b) if cut else to[j]
        S = spot[j]
        acts = not ((a <= y) & (y <= b) & (a != b))
        bounded = not ((abs(a) == np.inf) & (abs(b) == np.inf))
        edge = a if y < a else b
        aim = t if centred else edge
        aim = a if a == b else aim
        new = aim if acts & bounded else y
        size = abs(new - y) * per_contract
        trades = size != 0.0
        value = S * size
        state[COST + j] += discount * (cost * value + (fixed if trades else 0.0))
        state[TRADES + j] += 1.0 if trades else 0.0
        state[TURNOVER + j] += value
        state[HELD + j] = new
        state[GAINS + j] += new * per_contract * (discount_after * after[j] - discount * S)
        state[LAST_SPOT + j] = S if acts else state[LAST_SPOT + j]
        state[LAST_TS + j] = now if acts else state[LAST_TS + j]


@compiled(_STEP)
def step_lots(
    spot: NDArray[np.float64],
    after: NDArray[np.float64],
    discount: float,
    discount_after: float,
    lo: NDArray[np.float64],
    hi: NDArray[np.float64],
    to: NDArray[np.float64],
    centred: bool,
    least: float,
    most: float,
    per_contract: float,
    cost: float,
    fixed: float,
    above: float,
    below: float,
    now: float,
    state: NDArray[np.float64],
) -> None:
    """The same in whole lots of above / below contracts. Shape: as `step`."""
    for j in range(spot.shape[0]):
        y = state[HELD + j]
        cut = is_cut(lo[j], hi[j], least, most)
        a = max(lo[j], least) if cut else lo[j]
        b = min(hi[j], most) if cut else hi[j]
        t = min(max(to[j], a), b) if cut else to[j]
        S = spot[j]
        if not (a <= y <= b and a != b):
            state[LAST_SPOT + j] = S
            state[LAST_TS + j] = now
            if not (abs(a) == np.inf and abs(b) == np.inf):
                new = wanted_lots(a, b, t, centred, y, above, below)
                size = abs(new - y) * per_contract
                if size != 0.0:
                    state[COST + j] += discount * (cost * (S * size) + fixed)
                    state[TRADES + j] += 1.0
                    state[TURNOVER + j] += S * size
                    y = new
                    state[HELD + j] = y
        state[GAINS + j] += y * per_contract * (discount_after * after[j] - discount * S)
