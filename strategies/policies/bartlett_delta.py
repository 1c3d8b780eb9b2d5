"""Bartlett delta: the variance-optimal delta when vols follow a SABR model, on any inner rule.

delta = inner delta + vega (sigma_F + sigma_alpha rho nu / F^beta) dF/dS: alpha is expected to move with the forward.
Source: Bartlett 2006, "Hedging under SABR model", Wilmott; Hagan, Kumar, Lesniewski and Woodward 2002 for sigma.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from bot.core.ports import HedgePolicy, LegInput
from bot.pricing import sabr
from bot.pricing.smile import bartlett_slope, delta_with_smile
from strategies.policies.bands import LEAST_VOL, SHORTEST, TINY, number
from strategies.policies.wrapped import Wrapped

STEPS: Final = 8
BUMP: Final = 1e-4


class BartlettDelta(Wrapped):
    """The inner rule around Bartlett's delta. Implements `ShapesDelta`.

    `rho`, `nu`, `beta` are the smile's; each leg's alpha is the one at which Hagan's vol at its strike is the leg's own.
    """

    def __init__(self, *, inner: HedgePolicy, rho: float, nu: float, beta: float = 1.0) -> None:
        self.rho = number("bartlett_delta: rho", rho, least=-0.999, most=0.999)
        self.nu = number("bartlett_delta: nu", nu, least=0.0, most=20.0)
        self.beta = number("bartlett_delta: beta", beta, least=0.0, most=1.0)
        super().__init__(inner, name=f"Bartlett {rho:g}/{nu:g}/{beta:g}")

    def vol_slope(self, x: LegInput) -> Any:
        """d vol / d spot of each leg's strike. Shape: as `x.delta`; 0 where no alpha gives the leg's vol."""
        T = np.maximum(x.tau, SHORTEST)
        growth = np.exp((x.rate - x.dividend) * T)
        F, K, T, v = np.broadcast_arrays(np.maximum(x.spot, TINY) * growth, np.maximum(x.strike, TINY), T, x.vol)
        alpha = self._alpha(F, K, T, np.maximum(v, LEAST_VOL))
        up, down = 1.0 + BUMP, 1.0 - BUMP
        vols = self._vol(np.stack((F * up, F * down, F, F)), K, T, np.stack((alpha, alpha, alpha * up, alpha * down)))
        by_forward = (vols[0] - vols[1]) / (2.0 * BUMP * F)
        by_alpha = (vols[2] - vols[3]) / (2.0 * BUMP * alpha)
        slope = bartlett_slope(by_forward, by_alpha, forward=F, beta=self.beta, rho=self.rho, nu=self.nu)
        return np.nan_to_num(slope * growth, nan=0.0, posinf=0.0, neginf=0.0)

    def leg_deltas(self, x: LegInput) -> Any:
        """The inner delta plus vega times the slope of the strike's vol. Shape: as `x.delta`."""
        return delta_with_smile(self.inner_deltas(x), x.vega, spot=x.spot, vol_slope=self.vol_slope(x))

    def _vol(self, forward: Any, strike: Any, tau: Any, alpha: Any) -> Any:
        return sabr.vol(forward, strike, tau, alpha=alpha, beta=self.beta, rho=self.rho, nu=self.nu)

    def _alpha(self, F: Any, K: Any, T: Any, v: Any) -> Any:
        """The alpha at which Hagan's vol is v, by the secant of ln vol in ln alpha. Shape: all one."""
        with np.errstate(all="ignore"):
            before = np.log(v) + (1.0 - self.beta) * np.log(F)
            error = np.log(self._vol(F, K, T, np.exp(before)) / v)
            now = before - error
            for _ in range(STEPS):
                found = np.log(self._vol(F, K, T, np.exp(now)) / v)
                rise = (found - error) / (now - before)
                step = np.where(np.isfinite(rise) & (np.abs(rise) > 1e-3), found / rise, found)
                before, error = now, found
                now = now - np.clip(np.nan_to_num(step), -2.0, 2.0)
                if np.all(np.abs(step) < 1e-13):
                    break
            return np.exp(now)
