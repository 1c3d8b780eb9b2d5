"""A smile rule says how a strike's implied vol moves when spot moves; law: every rule is one number added to one delta.

The total delta of an option is the delta at a vol that stands still, plus vega times d vol / d spot of its strike. With
skew = d vol / d ln K at the strike and the skew-stickiness ratio R (Bergomi 2009: R = d vol_atm / d ln S over the skew at
the money), d vol / d spot = (R - 1) skew / spot:

- R = 1, sticky strike: a strike keeps its vol; the delta is Black's;
- R = 0, sticky delta (sticky moneyness): the smile moves along with spot;
- R = 2, local vol for short expiries (Derman, Kani and Zou 1996: the fixed-strike slope equals the skew), and to
  leading order Bartlett's delta in SABR, whose own slope for any expiry is `bartlett_slope`;
- any other R: what was estimated; `hull_white_slope` is the empirical minimum-variance rule.

>>> float(delta_with_smile(0.5, 20.0, spot=100.0, skew=-0.2, stickiness=STICKINESS["sticky_delta"]).round(3))
0.54
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from bot.pricing.black import Array

STICKINESS: Final[Mapping[str, float]] = MappingProxyType(
    {"sticky_strike": 1.0, "sticky_delta": 0.0, "local_vol": 2.0, "bartlett": 2.0}
)
"""The skew-stickiness ratio of each rule that has one; the last two hold to leading order in expiry."""


def delta_with_smile(
    delta: ArrayLike,
    vega: ArrayLike,
    *,
    spot: ArrayLike,
    skew: ArrayLike = 0.0,
    stickiness: ArrayLike = 1.0,
    vol_slope: ArrayLike | None = None,
    hedge_slope: ArrayLike = 1.0,
) -> Array:
    """Total delta per unit of the hedge: (delta + vega d vol/d spot) / (d hedge/d spot).

    `vol_slope` = d vol/d spot of the option's own strike, from `hull_white_slope`, `bartlett_slope` or an estimate, is
    used in place of (stickiness - 1) skew / spot. `hedge_slope` is 1 for the spot itself and e^((r - q) T) for a future
    that expires in T years. A NaN input gives NaN in its row only.

    Shape: all arguments broadcast together. Units: vega per 1.00 of vol, skew in vol per unit of ln K.
    Errors: ValueError when both `vol_slope` and a skew are given.
    """
    if vol_slope is not None and np.any(np.asarray(skew) != 0.0):
        raise ValueError("delta_with_smile: expected skew with stickiness, or vol_slope, found both")
    with np.errstate(all="ignore"):
        S = np.asarray(spot, dtype=np.float64)
        slope = (
            (np.asarray(stickiness, dtype=np.float64) - 1.0) * np.asarray(skew, dtype=np.float64) / S
            if vol_slope is None
            else np.asarray(vol_slope, dtype=np.float64)
        )
        total = np.asarray(delta, dtype=np.float64) + np.asarray(vega, dtype=np.float64) * slope
        return np.asarray(total / np.asarray(hedge_slope, dtype=np.float64))


def hull_white_slope(
    delta: ArrayLike, *, spot: ArrayLike, tau: ArrayLike, a: ArrayLike, b: ArrayLike, c: ArrayLike
) -> Array:
    """d vol/d spot of the minimum-variance delta: (a + b delta + c delta^2) / (spot sqrt(tau)).

    `a`, `b`, `c` are fitted to past changes of implied vols of one underlying; `delta` is Black's.
    Source: Hull and White 2017, "Optimal delta hedging for options", Journal of Banking and Finance 82.

    Shape: all arguments broadcast together. Domain: spot, tau > 0.
    """
    with np.errstate(all="ignore"):
        d = np.asarray(delta, dtype=np.float64)
        numerator = np.asarray(a) + np.asarray(b) * d + np.asarray(c) * d * d
        return np.asarray(numerator / (np.asarray(spot, dtype=np.float64) * np.sqrt(np.asarray(tau, dtype=np.float64))))


def bartlett_slope(
    vol_by_forward: ArrayLike,
    vol_by_alpha: ArrayLike,
    *,
    forward: ArrayLike,
    beta: ArrayLike,
    rho: ArrayLike,
    nu: ArrayLike,
) -> Array:
    """d vol/d forward in SABR when alpha moves as it does on average with the forward.

    d sigma/dF = sigma_F + sigma_alpha rho nu / F^beta. Source: Bartlett 2006, "Hedging under SABR model", Wilmott.

    Shape: all arguments broadcast together. Domain: forward > 0.
    """
    with np.errstate(all="ignore"):
        average = np.asarray(rho) * np.asarray(nu) / np.asarray(forward, dtype=np.float64) ** np.asarray(beta)
        return np.asarray(np.asarray(vol_by_forward) + np.asarray(vol_by_alpha) * average)
