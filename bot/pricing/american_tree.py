"""A tree prices an option by what it may be worth one step on; law: slow and plain, the oracle of `american`, not its rival."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

TreeKind = Literal["crr", "leisen_reimer"]


def price(
    spot: float,
    strike: float,
    tau: float,
    vol: float,
    *,
    rate: float = 0.0,
    dividend: float = 0.0,
    cp: int = 1,
    steps: int = 1001,
    kind: TreeKind = "leisen_reimer",
    american: bool = True,
) -> float:
    """The price of one option on a recombining binomial tree.

    "crr": u = e^(vol sqrt dt), d = 1/u (Cox, Ross and Rubinstein 1979). "leisen_reimer": probabilities by the second
    Peizer-Pratt inversion, so that an odd number of steps centres the tree on the strike (Leisen and Reimer 1996).
    Domain: everything positive, `steps` odd for "leisen_reimer". Errors: ValueError when the probability leaves (0, 1).
    """
    dt = tau / steps
    growth = np.exp((rate - dividend) * dt)
    if kind == "crr":
        up = np.exp(vol * np.sqrt(dt))
        down = 1.0 / up
        p = (growth - down) / (up - down)
    else:
        w = vol * np.sqrt(tau)
        d1 = (np.log(spot / strike) + (rate - dividend) * tau) / w + 0.5 * w
        p, above = _peizer_pratt(d1 - w, steps), _peizer_pratt(d1, steps)
        up = growth * above / p
        down = growth * (1.0 - above) / (1.0 - p)
    if not 0.0 < p < 1.0:
        raise ValueError(f"american_tree: probability: expected inside (0, 1), found {p}; take more steps")
    discount = np.exp(-rate * dt)
    spots = _level(spot, up, down, steps)
    values = np.maximum(cp * (spots - strike), 0.0)
    for step in range(steps - 1, -1, -1):
        values = discount * (p * values[1:] + (1.0 - p) * values[:-1])
        if american:
            values = np.maximum(values, cp * (_level(spot, up, down, step) - strike))
    return float(values[0])


def _level(spot: float, up: float, down: float, step: int) -> NDArray[np.float64]:
    ups = np.arange(step + 1)
    return np.asarray(spot * np.exp(ups * np.log(up) + (step - ups) * np.log(down)), dtype=np.float64)


def _peizer_pratt(z: float, n: int) -> float:
    """Peizer and Pratt 1968, method 2: the probability whose binomial of n draws has N(z) beyond its middle."""
    x = z / (n + 1.0 / 3.0 + 0.1 / (n + 1.0))
    return float(0.5 + np.sign(z) * 0.5 * np.sqrt(-np.expm1(-x * x * (n + 1.0 / 6.0))))
