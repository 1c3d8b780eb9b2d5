"""A bumped Greek is the slope of a price between neighbouring inputs; law: slow, plain, and knowing no formula.

The oracle that every analytic Greek is tested against, and the only Greek of a pricer that has no other. Five-point
differences of fourth order; the steps suit prices that are smooth to a few 1e-14 of their size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from bot.pricing.black import Array

STEP: Final = 1e-3
"""The bump relative to spot, vol and tau, and absolute for rates."""


class Pricer(Protocol):
    """A price as a function of the market: any function of this package, by `lambda` where it returns more."""

    def __call__(self, spot: Array, tau: Array, vol: Array, rate: Array, dividend: Array, /) -> ArrayLike: ...


class BumpGreeks(NamedTuple):
    """Greeks by differences. Shape: every field has the broadcast shape of the inputs."""

    price: Array
    delta: Array
    gamma: Array
    vega: Array
    theta: Array
    rho: Array
    rho_q: Array
    vanna: Array
    volga: Array
    charm: Array


def greeks(
    price: Pricer,
    *,
    spot: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    step: float = STEP,
) -> BumpGreeks:
    """The Greeks of any pricer by five-point differences: slopes of its price, and slopes of slopes.

    Truncation falls with step^4, rounding grows with price rounding over step (gamma, volga: step^2). Units as in
    `black`: theta and charm are minus the derivative by tau. About 110 prices a row.

    Shape: arguments broadcast together; `price` is called with arrays of that shape.
    Errors: ValueError for a step outside (0, 0.1]; whatever `price` raises.

    >>> from bot.pricing import black
    >>> found = greeks(lambda S, T, v, r, q: black.bsm(S, 100.0, T, v).price, spot=100.0, tau=1.0, vol=0.2)
    >>> float(found.delta.round(6)), float(found.gamma.round(6))
    (0.539828, 0.019848)
    """
    if not 0.0 < step <= 0.1:
        raise ValueError(f"bump.greeks: step: expected a number in (0, 0.1], found {step}")
    base = list(np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (spot, tau, vol, rate, dividend))))
    sizes = [
        step * np.abs(base[0]),
        step * base[1],
        step * base[2],
        np.full_like(base[3], step),
        np.full_like(base[4], step),
    ]

    def at(*moves: tuple[int, Array]) -> Array:
        moved = list(base)
        for argument, by in moves:
            moved[argument] = moved[argument] + by
        return np.asarray(price(*moved), dtype=np.float64)

    def by(argument: int) -> Array:
        return slope(lambda h: at((argument, h)), sizes[argument])

    def by_both(first: int, second: int) -> Array:
        return slope(lambda h: slope(lambda g: at((first, h), (second, g)), sizes[second]), sizes[first])

    return BumpGreeks(
        price=at(),
        delta=by(0),
        gamma=curvature(lambda h: at((0, h)), sizes[0]),
        vega=by(2),
        theta=-by(1),
        rho=by(3),
        rho_q=by(4),
        vanna=by_both(0, 2),
        volga=curvature(lambda h: at((2, h)), sizes[2]),
        charm=-by_both(0, 1),
    )


def slope(f: Callable[[Array], Array], h: Array) -> Array:
    """f'(0) by f(+-h), f(+-2h), error of order h^4. Source: Abramowitz and Stegun 1964, table 25.2."""
    return np.asarray((8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h))


def curvature(f: Callable[[Array], Array], h: Array) -> Array:
    """f''(0) by f(0), f(+-h), f(+-2h), error of order h^4. Source: Abramowitz and Stegun 1964, table 25.2."""
    middle = 30.0 * f(np.zeros_like(h))
    return np.asarray((16.0 * (f(h) + f(-h)) - (f(2.0 * h) + f(-2.0 * h)) - middle) / (12.0 * h * h))
