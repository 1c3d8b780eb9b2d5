"""Minimum-variance delta: hedge at the delta that counts how a strike's vol moves with the price, on any inner rule.

delta = inner delta + vega d vol / d spot, with the slope (a + b delta + c delta^2) / (S sqrt(tau)) of Hull and White 2017
("Optimal delta hedging for options", Journal of Banking and Finance 82), or (R - 1) skew / S with the skew-stickiness
ratio R (Bergomi 2009): R = 0 sticky delta, 1 sticky strike, 2 local vol. See `bot/pricing/smile.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bot.core.ports import HedgePolicy, LegInput
from bot.pricing.smile import delta_with_smile, hull_white_slope
from strategies.policies.bands import SHORTEST, TINY, number
from strategies.policies.wrapped import Wrapped


class MinVarDelta(Wrapped):
    """The inner rule around the minimum-variance delta. Implements `ShapesDelta`.

    Give `a`, `b`, `c` (Hull and White, fitted to past changes of implied vols), or `stickiness` R with `skew`, d vol per
    unit of ln K at the strikes held (below zero in equities).
    """

    def __init__(
        self,
        *,
        inner: HedgePolicy,
        a: float | None = None,
        b: float | None = None,
        c: float | None = None,
        stickiness: float | None = None,
        skew: float | None = None,
    ) -> None:
        fitted, ruled = (a, b, c), (stickiness, skew)
        hull_white = all(v is not None for v in fitted) and all(v is None for v in ruled)
        by_skew = all(v is None for v in fitted) and all(v is not None for v in ruled)
        if not (hull_white or by_skew):
            raise ValueError(
                f"min_var_delta: expected a, b and c, or stickiness and skew, found a={a!r}, b={b!r}, c={c!r}, "
                f"stickiness={stickiness!r}, skew={skew!r}"
            )
        self._abc = [number(f"min_var_delta: {k}", v) for k, v in zip("abc", fitted, strict=True) if v is not None]
        self._lift = 0.0
        if stickiness is not None and skew is not None:
            ratio = number("min_var_delta: stickiness", stickiness, least=-10.0, most=10.0)
            self._lift = (ratio - 1.0) * number("min_var_delta: skew", skew, least=-10.0, most=10.0)
        super().__init__(inner, name="minimum variance" if hull_white else f"stickiness {stickiness:g}")

    def leg_deltas(self, x: LegInput) -> Any:
        """The inner delta plus vega times the slope of the strike's vol. Shape: as `x.delta`."""
        S = np.maximum(x.spot, TINY)
        if self._abc:
            a, b, c = self._abc
            slope = hull_white_slope(x.delta, spot=S, tau=np.maximum(x.tau, SHORTEST), a=a, b=b, c=c)
        else:
            slope = np.asarray(self._lift / S)
        return delta_with_smile(self.inner_deltas(x), x.vega, spot=S, vol_slope=slope)
