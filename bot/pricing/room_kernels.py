"""The compiled bounds of how far a net delta can move, the fast twin of `room.bounds_by_formula`; law: equal but for rounding.

Imports numba, so it is imported when first asked for. Plain multiplies and adds in a written order, as in
`bot/pricing/kernels.py`: the same bits on any x86-64 processor.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled, part
from bot.pricing.elementary import PHI_0, exp_sum, log_quotient, tail_ratio
from bot.pricing.kernels import CP, EXPIRY, NS_PER_YEAR, STRIKE, VOL, WEIGHT
from bot.pricing.room import LEAST_GAMMA, NO_VOL, WIDER

__all__ = ["bounds"]


@part
def tail(d: float) -> float:
    """N(-d) for d >= 0."""
    return PHI_0 * exp_sum(-0.5 * d * d, 0.0) * tail_ratio(d) if d < 38.0 else 0.0


@part
def normal(d: float) -> float:
    """N(d)."""
    return 1.0 - tail(d) if d > 0.0 else tail(-d)


@part
def leg_bounds(  # noqa: PLR0915  straight-line arithmetic, one interval after the other
    low: float,
    high: float,
    soon: float,
    late: float,
    least: float,
    most: float,
    strike: float,
    cp: float,
    r: float,
    q: float,
) -> tuple[float, float, float, float, float, float]:
    """(gamma, decay, by vol), low and high ends each; NaN where there is no bound. Formulas as in `room._leg_bounds`."""
    carry = r - q
    drift_soon = carry * soon
    drift_late = carry * late
    x_lo = log_quotient(low, strike) + min(drift_soon, drift_late)
    x_hi = log_quotient(high, strike) + max(drift_soon, drift_late)
    D_soon = exp_sum(-q * soon, 0.0)
    D_late = exp_sum(-q * late, 0.0)
    D_lo = min(D_soon, D_late)
    D_hi = max(D_soon, D_late)
    root_soon = math.sqrt(soon)
    root_late = math.sqrt(late)
    d_lo = least * root_soon
    d_hi = most * root_late
    g_lo = 0.0
    g_hi = 0.0
    c_lo = 0.0
    c_hi = 0.0
    v_lo = 0.0
    v_hi = 0.0
    if most == 0.0:
        if not (x_lo > 0.0 or x_hi < 0.0):
            return np.nan, np.nan, np.nan, np.nan, np.nan, np.nan
        d1_lo = 1e8 if x_lo > 0.0 else -1e8
        d1_hi = d1_lo
    else:
        if not d_lo > 1e-100:
            return np.nan, np.nan, np.nan, np.nan, np.nan, np.nan
        z_lo = x_lo / d_hi if x_lo >= 0.0 else x_lo / d_lo
        z_hi = x_hi / d_lo if x_hi >= 0.0 else x_hi / d_hi
        d1_lo = z_lo + 0.5 * d_lo
        d1_hi = z_hi + 0.5 * d_hi
        near = 0.0 if (d1_lo <= 0.0 and d1_hi >= 0.0) else min(abs(d1_lo), abs(d1_hi))
        far = max(abs(d1_lo), abs(d1_hi))
        phi_lo = D_lo * PHI_0 * exp_sum(-0.5 * far * far, 0.0)
        phi_hi = D_hi * PHI_0 * exp_sum(-0.5 * near * near, 0.0)
        g_lo = phi_lo / (high * d_hi)
        g_hi = phi_hi / (low * d_lo)
        one = carry / d_lo
        other = carry / d_hi
        s_lo = min(one, other) + least / (4.0 * root_late) - 0.5 * (z_hi / soon if z_hi >= 0.0 else z_hi / late)
        s_hi = max(one, other) + most / (4.0 * root_soon) - 0.5 * (z_lo / late if z_lo >= 0.0 else z_lo / soon)
        c_lo = phi_lo * s_lo if s_lo >= 0.0 else phi_hi * s_lo
        c_hi = phi_hi * s_hi if s_hi >= 0.0 else phi_lo * s_hi
        f_lo = 0.5 * root_soon - (z_hi / least if z_hi >= 0.0 else z_hi / most)
        f_hi = 0.5 * root_late - (z_lo / most if z_lo >= 0.0 else z_lo / least)
        v_lo = phi_lo * f_lo if f_lo >= 0.0 else phi_hi * f_lo
        v_hi = phi_hi * f_hi if f_hi >= 0.0 else phi_lo * f_hi
    if q != 0.0:
        N_lo = normal(cp * (d1_lo if cp > 0.0 else d1_hi))
        N_hi = normal(cp * (d1_hi if cp > 0.0 else d1_lo))
        one = q * cp * D_lo * N_lo
        other = q * cp * D_hi * N_hi
        if q * cp < 0.0:
            c_lo -= one
            c_hi -= other
        else:
            c_lo -= other
            c_hi -= one
    return g_lo, g_hi, c_lo, c_hi, v_lo, v_hi


@part
def within(  # noqa: PLR0915  sums over the legs in one loop
    low: float, high: float, elapsed: int, years: float, packed: NDArray[np.float64], vols: NDArray[np.float64],
    r: float, q: float, mean_tau: float, mean_vol: float,
) -> tuple[float, float, float, float, float, float, float, float, float, float, float]:  # fmt: skip
    """`room.bounds_by_formula`."""
    nothing = np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan
    known = 0.0 < low <= high < np.inf and 0.0 <= years < np.inf and abs(r) < np.inf and abs(q) < np.inf
    if not known:
        return nothing
    G_lo = G_hi = C_lo = C_hi = V_lo = V_hi = 0.0
    G_size = C_size = V_size = 0.0
    gross = 0.0
    least_share = 0.0
    tau_more = tau_less = square_more = square_less = 0.0
    moving = vols.shape[0] > 0
    asked = not math.isnan(mean_tau)
    mean_square = mean_vol * mean_vol
    for i in range(packed.shape[0]):
        own = packed[i, VOL]
        weight = packed[i, WEIGHT]
        if moving and vols[i, 0] == NO_VOL:
            gross += abs(weight)
            continue
        late = (packed[i, EXPIRY] - elapsed) / NS_PER_YEAR
        soon = late - years
        at = vols[i, 0] if moving else own
        least = vols[i, 1] if moving else own
        most = vols[i, 2] if moving else own
        if not (soon > 0.0 and abs(at) < np.inf and least >= 0.0 and most < np.inf):
            return nothing
        g_lo, g_hi, c_lo, c_hi, v_lo, v_hi = leg_bounds(
            low, high, soon, late, least, most, packed[i, STRIKE], packed[i, CP], r, q
        )
        if math.isnan(g_lo):
            return nothing
        size = abs(weight)
        gross += size
        if weight > 0.0:
            G_lo += weight * g_lo
            G_hi += weight * g_hi
            C_lo += weight * c_lo
            C_hi += weight * c_hi
        else:
            G_lo += weight * g_hi
            G_hi += weight * g_lo
            C_lo += weight * c_hi
            C_hi += weight * c_lo
        G_size += size * g_hi
        C_size += size * max(abs(c_lo), abs(c_hi))
        if moving:
            up = most - at
            down = least - at
            t_lo = min(v_lo * up, v_hi * up, v_lo * down, v_hi * down, 0.0)
            t_hi = max(v_lo * up, v_hi * up, v_lo * down, v_hi * down, 0.0)
            V_lo += weight * (t_lo if weight > 0.0 else t_hi)
            V_hi += weight * (t_hi if weight > 0.0 else t_lo)
            V_size += size * max(-t_lo, t_hi)
        if asked:
            s_lo = size * g_lo
            s_hi = size * g_hi
            least_share += s_lo
            away = late - mean_tau
            tau_more += (s_hi if away > 0.0 else s_lo) * away
            tau_less += (s_lo if away > 0.0 else s_hi) * away
            away = own * own - mean_square
            square_more += (s_hi if away > 0.0 else s_lo) * away
            square_less += (s_lo if away > 0.0 else s_hi) * away
    G_more = WIDER * G_size
    C_more = WIDER * C_size
    V_more = WIDER * V_size
    tau_lo = tau_hi = vol_lo = vol_hi = np.nan
    if asked and least_share * low > LEAST_GAMMA * gross:
        tau_lo = mean_tau + _over(min(tau_less, 0.0), least_share) - WIDER * abs(mean_tau) - years
        tau_hi = mean_tau + _over(max(tau_more, 0.0), least_share) + WIDER * abs(mean_tau)
        below = mean_square + _over(min(square_less, 0.0), least_share) - WIDER * mean_square
        vol_lo = math.sqrt(max(below, 0.0))
        vol_hi = math.sqrt(mean_square + _over(max(square_more, 0.0), least_share) + WIDER * mean_square)
    return (
        G_lo - G_more, G_hi + G_more, C_lo - C_more, C_hi + C_more, V_lo - V_more, V_hi + V_more,
        tau_lo, tau_hi, vol_lo, vol_hi, gross,
    )  # fmt: skip


@part
def _over(more: float, least: float) -> float:
    return 0.0 if more == 0.0 else more / least


@compiled(
    "UniTuple(float64, 11)(float64, float64, int64, float64, float64[:, ::1], float64[:, ::1], float64, float64, float64,"
    " float64)"
)
def bounds(
    low: float, high: float, elapsed: int, years: float, packed: NDArray[np.float64], vols: NDArray[np.float64],
    rate: float, dividend: float, mean_tau: float, mean_vol: float,
) -> tuple[float, float, float, float, float, float, float, float, float, float, float]:  # fmt: skip
    """The `Bounds` of a box as `room.bounds_kernel` says."""
    return within(low, high, elapsed, years, packed, vols, rate, dividend, mean_tau, mean_vol)
