"""The readable twin of `american_discrete_kernels`: the same grid and the same steps, an array over nodes at a time.

Law: equal to the kernel but for rounding. Slow, for tests and readers. Crank-Nicolson in ln spot with Rannacher's damped
start (1984), exercise by operator splitting (Ikonen and Toivanen 2004); a cash dividend shifts the grid's values.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_banded

from bot.pricing.american_discrete_kernels import DAMPED, WIDTH
from bot.pricing.black import Array


class Option(NamedTuple):
    """One option with cash dividends `amounts` at `times`, ascending and inside (0, tau)."""

    spot: float
    strike: float
    tau: float
    vol: float
    r: float
    q: float
    cp: float
    times: Array
    amounts: Array
    escrowed: bool
    american: bool

    def held(self, clock: float, first: int) -> float:
        """The value at `clock` of the dividends from number `first` on; none in the spot model, whose spot contains them."""
        due = np.maximum(self.times[first:] - clock, 0.0)
        return float(self.amounts[first:] @ np.exp(-self.r * due)) if self.escrowed else 0.0

    def exercised(self, spots: Array, clock: float, first: int) -> Array:
        """What exercise gives at each node; far below anything where there is none."""
        gain: Array = self.cp * (spots + self.held(clock, first) - self.strike)
        return gain if self.american else np.full(spots.size, -1e300)


def grid_price(option: Option, half: int, steps: int) -> tuple[float, float, float, float]:
    """Price, delta, gamma and theta: what `american_discrete_kernels.grid_price` writes."""
    start = option.spot - option.held(0.0, 0)
    drift = option.r - option.q - 0.5 * option.vol**2
    reach = WIDTH * option.vol * np.sqrt(option.tau) + abs(drift) * option.tau + abs(np.log(start / option.strike))
    dx = reach / half
    x = np.log(start) + dx * np.arange(-half, half + 1)
    spots = np.exp(x)
    values = payoff(option, spots, x[0], dx)
    before, last = values[half], 1.0
    right = option.tau
    for segment in range(option.times.size, -1, -1):
        left = option.times[segment - 1] if segment else 0.0
        values, before, last = march(option, spots, dx, values, segment, right, left, steps)
        if segment:
            values = pay(option, spots, x[0], dx, values, segment, left)
        right = left
    slope = (values[half + 1] - values[half - 1]) / (2.0 * dx)
    curve = (values[half + 1] - 2.0 * values[half] + values[half - 1]) / dx**2
    return values[half], slope / start, (curve - slope) / start**2, (before - values[half]) / last


def payoff(option: Option, spots: Array, x_0: float, dx: float) -> Array:
    """The payoff at the nodes; the node nearest to the kink has its cell's mean."""
    K, cp = option.strike, option.cp
    values: Array = np.maximum(cp * (spots - K), 0.0)
    kink = np.log(K)
    at = min(max(int((kink - x_0) / dx + 0.5), 0), spots.size - 1)
    edge = x_0 + at * dx + 0.5 * cp * dx
    if cp * (edge - kink) > 0.0:
        values[at] = (np.exp(edge) - K - K * (edge - kink)) / dx
    return values


def march(
    option: Option, spots: Array, dx: float, values: Array, segment: int, right: float, left: float, steps: int
) -> tuple[Array, float, float]:
    """Values at `left` from those at `right`, and the middle's value one step before the end with that step's length."""
    span = right - left
    count = max(ceil(steps * span / option.tau), 4)
    full = span / count
    drift = option.r - option.q - 0.5 * option.vol**2
    down = 0.5 * (option.vol / dx) ** 2 - 0.5 * drift / dx
    up = 0.5 * (option.vol / dx) ** 2 + 0.5 * drift / dx
    mid = -((option.vol / dx) ** 2 + option.r)
    push = np.zeros(spots.size)  # the multiplier that holds values at exercise
    clock, before, dt = right, values[spots.size // 2], full
    for done in range(count + 2):
        damped = done < DAMPED
        dt, theta = (0.5 * full, 1.0) if damped else (full, 0.5)
        clock -= dt
        exercise = option.exercised(spots, clock, segment)
        free = values.copy()
        diffusion = down * values[:-2] + mid * values[1:-1] + up * values[2:]
        free[1:-1] += (1.0 - theta) * dt * diffusion + dt * push[1:-1]
        free[0], free[-1] = ends(option, spots, exercise, clock, segment)
        bands = np.zeros((3, spots.size))
        bands[1] = 1.0
        bands[0, 2:], bands[1, 1:-1], bands[2, :-2] = -theta * dt * up, 1.0 - theta * dt * mid, -theta * dt * down
        free = solve_banded((1, 1), bands, free)
        before = values[spots.size // 2]
        values = free.copy()
        if option.american:
            inner = slice(1, -1)
            values[inner] = np.maximum(free - dt * push, exercise)[inner]
            push[inner] = np.maximum(push + (values - free) / dt, 0.0)[inner]
    return values, float(before), dt


def ends(option: Option, spots: Array, exercise: Array, clock: float, segment: int) -> tuple[float, float]:
    """The values at the far nodes: worth exercise, or the forward's payoff discounted."""
    age = option.tau - clock
    ends_spot = spots[[0, -1]]
    low, high = option.cp * (ends_spot * np.exp(-option.q * age) - option.strike * np.exp(-option.r * age))
    if not option.escrowed:
        amounts = option.amounts[segment:]
        due = np.exp(-option.r * (option.times[segment:] - clock))
        high -= option.cp * float(amounts @ due)
        low += float(-amounts @ due) if option.cp > 0.0 else float(np.minimum(amounts, spots[0]) @ due)
    return max(low, 0.0, exercise[0]), max(high, 0.0, exercise[-1])


def pay(option: Option, spots: Array, x_0: float, dx: float, values: Array, segment: int, clock: float) -> Array:
    """Values just before dividend number `segment` goes ex, from those just after."""
    if option.escrowed:
        before = option.exercised(spots, clock, segment - 1)
        return np.maximum(values, before) if option.american else values
    after = spots - option.amounts[segment - 1]
    kept = after > spots[0]
    shifted = np.where(kept, cubic(values, x_0, dx, np.log(np.where(kept, after, spots[0]))), values[0])
    return np.maximum(shifted, option.cp * (spots - option.strike)) if option.american else shifted


def cubic(values: Array, x_0: float, dx: float, x: Array) -> Array:
    """The cubic through the four nodes around each x (Lagrange); beyond the ends the end's value."""
    n = values.size
    place = (x - x_0) / dx
    i = np.clip(place.astype(np.int64) - 1, 0, n - 4)
    t = place - i
    weights = (
        -(t - 1.0) * (t - 2.0) * (t - 3.0) / 6.0,
        t * (t - 2.0) * (t - 3.0) / 2.0,
        -t * (t - 1.0) * (t - 3.0) / 2.0,
        t * (t - 1.0) * (t - 2.0) / 6.0,
    )
    inside: Array = np.sum([weight * values[i + k] for k, weight in enumerate(weights)], axis=0)
    return np.where(place <= 0.0, values[0], np.where(place >= n - 1, values[-1], inside))
