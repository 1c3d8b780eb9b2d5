"""The compiled grid on which an American option with cash dividends is priced; law: one row, one grid, same bits each run.

The readable twin is `american_discrete_by_numpy`; the arithmetic is that of `elementary`, so bits do not depend on the
processor.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled
from bot.pricing.elementary import exp_sum, log_quotient

Array = NDArray[np.float64]

_f64: Final = numba.types.float64
_i64: Final = numba.types.int64
_bool: Final = numba.types.boolean
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_OUT: Final = numba.types.Array(_f64, 1, "C")

WIDTH: Final = 7.0
"""The grid reaches this many deviations beyond spot and strike."""
DAMPED: Final = 4
"""Implicit half steps after each kink (Rannacher 1984)."""


@compiled("float64(float64[::1], float64, float64, float64)")
def value_at(values: Array, x_0: float, dx: float, x: float) -> Any:
    """The cubic through the four nodes around x (Lagrange); beyond the ends the end's value."""
    n = values.shape[0]
    place = (x - x_0) / dx
    if place <= 0.0:
        return values[0]
    if place >= n - 1:
        return values[n - 1]
    i = min(max(int(place) - 1, 0), n - 4)
    t = place - i
    a, b, c, e = values[i], values[i + 1], values[i + 2], values[i + 3]
    return (
        -a * (t - 1.0) * (t - 2.0) * (t - 3.0) / 6.0
        + b * t * (t - 2.0) * (t - 3.0) / 2.0
        - c * t * (t - 1.0) * (t - 3.0) / 2.0
        + e * t * (t - 1.0) * (t - 2.0) / 6.0
    )


@compiled(numba.types.void(_f64, _f64, _f64, _f64, _f64, _f64, _f64, _IN, _IN, _bool, _bool, _i64, _i64, _OUT))
def grid_price(  # noqa: PLR0915  one march through time; its arrays are its state
    spot: float,
    strike: float,
    tau: float,
    vol: float,
    r: float,
    q: float,
    cp: float,
    times: Array,
    amounts: Array,
    escrowed: bool,
    american: bool,
    half: int,
    steps: int,
    out: Array,
) -> None:
    """Writes price, delta, gamma, theta. `times` ascending inside (0, tau); 2 half + 1 nodes of ln spot around ln spot.

    Crank-Nicolson with implicit half steps after each kink; exercise by operator splitting (Ikonen and Toivanen 2004).
    """
    held_now = 0.0
    if escrowed:
        for j in range(times.shape[0]):
            held_now += amounts[j] * exp_sum(-r * times[j], 0.0)
    start = spot - held_now
    n = 2 * half + 1
    x_mid = log_quotient(start, 1.0)
    drift = r - q - 0.5 * vol * vol
    reach = WIDTH * vol * math.sqrt(tau) + abs(drift) * tau + abs(log_quotient(start, strike))
    dx = reach / half
    x_0 = x_mid - half * dx
    spots = np.empty(n)
    for i in range(n):
        spots[i] = exp_sum(x_0 + i * dx, 0.0)
    V = np.empty(n)
    exercise = np.empty(n)
    lam = np.zeros(n)
    rhs = np.empty(n)
    gamma_c = np.empty(n)
    shifted = np.empty(n)
    for i in range(n):
        V[i] = max(cp * (spots[i] - strike), 0.0)
    # the node at the kink takes its cell's mean, so that the strike's place among the nodes does not show in the price
    kink = log_quotient(strike, 1.0)
    at_kink = min(max(int((kink - x_0) / dx + 0.5), 0), n - 1)
    edge = x_0 + at_kink * dx + 0.5 * cp * dx
    if cp * (edge - kink) > 0.0:
        V[at_kink] = cp * (exp_sum(edge, 0.0) - strike - strike * (edge - kink)) * cp / dx
    variance = vol * vol
    down = 0.5 * variance / (dx * dx) - 0.5 * drift / dx
    up = 0.5 * variance / (dx * dx) + 0.5 * drift / dx
    mid = -(variance / (dx * dx) + r)
    right = tau
    value_before = 0.0
    last_dt = 1.0
    for segment in range(times.shape[0], -1, -1):
        left = times[segment - 1] if segment > 0 else 0.0
        span = right - left
        count = max(math.ceil(steps * span / tau), 4)
        full = span / count
        # the first two steps are each split in two implicit halves
        done = 0
        total = count + 2
        clock = right
        for i in range(n):
            lam[i] = 0.0
        while done < total:
            damped = done < DAMPED
            dt = 0.5 * full if damped else full
            theta = 1.0 if damped else 0.5
            clock -= dt
            held = 0.0
            if escrowed:
                for j in range(segment, times.shape[0]):
                    held += amounts[j] * exp_sum(-r * max(times[j] - clock, 0.0), 0.0)
            for i in range(n):
                exercise[i] = cp * (spots[i] + held - strike) if american else -1e300
            explicit = (1.0 - theta) * dt
            for i in range(1, n - 1):
                rhs[i] = V[i] + explicit * (down * V[i - 1] + mid * V[i] + up * V[i + 1]) + dt * lam[i]
            age = tau - clock
            # far ends: worth exercise, or the forward's payoff discounted
            low = cp * (spots[0] * exp_sum(-q * age, 0.0) - strike * exp_sum(-r * age, 0.0))
            high = cp * (spots[n - 1] * exp_sum(-q * age, 0.0) - strike * exp_sum(-r * age, 0.0))
            if not escrowed:
                for j in range(segment, times.shape[0]):
                    paid = cp * amounts[j] * exp_sum(-r * (times[j] - clock), 0.0)
                    high -= paid
                    low = (
                        low - paid
                        if cp > 0.0
                        else low + min(amounts[j], spots[0]) * exp_sum(-r * (times[j] - clock), 0.0)
                    )
            V_low = max(low, 0.0, exercise[0])
            V_high = max(high, 0.0, exercise[n - 1])
            implicit = theta * dt
            diagonal = 1.0 - implicit * mid
            gamma_c[0] = 0.0
            rhs[0] = V_low
            for i in range(1, n - 1):
                pivot = diagonal - implicit * down * gamma_c[i - 1]
                gamma_c[i] = implicit * up / pivot
                rhs[i] = (rhs[i] + implicit * down * rhs[i - 1]) / pivot
            rhs[n - 1] = V_high
            for i in range(n - 2, 0, -1):
                rhs[i] += gamma_c[i] * rhs[i + 1]
            value_before = V[half]
            last_dt = dt
            for i in range(n):
                free = rhs[i]
                fixed = max(free - dt * lam[i], exercise[i])
                if american and 0 < i < n - 1:
                    lam[i] = max(lam[i] + (fixed - free) / dt, 0.0)
                    V[i] = fixed
                else:
                    V[i] = free
            done += 1
        if segment > 0:
            right = left
            if escrowed and american:
                held = 0.0
                for j in range(segment - 1, times.shape[0]):
                    held += amounts[j] * exp_sum(-r * (times[j] - left), 0.0)
                for i in range(n):
                    V[i] = max(V[i], cp * (spots[i] + held - strike))
            if not escrowed:
                amount = amounts[segment - 1]
                for i in range(n):
                    after = spots[i] - amount
                    shifted[i] = value_at(V, x_0, dx, log_quotient(after, 1.0)) if after > spots[0] else V[0]
                for i in range(n):
                    V[i] = max(shifted[i], cp * (spots[i] - strike)) if american else shifted[i]
    slope = (V[half + 1] - V[half - 1]) / (2.0 * dx)
    curve = (V[half + 1] - 2.0 * V[half] + V[half - 1]) / (dx * dx)
    out[0] = V[half]
    out[1] = slope / start
    out[2] = (curve - slope) / (start * start)
    out[3] = (value_before - V[half]) / last_dt
