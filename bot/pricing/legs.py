"""The terms of a book are one time and one vol for all its legs; law: those of the legs that have gamma now.

Closed-form bands are made for one option. A book enters them with its net gamma and with means over its legs, weighted by
|weight x gamma|: the legs whose hedge moves decide, those far from the money do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from bot.domain.units import NS_PER_YEAR, Nanos
from bot.pricing.black import Array, bsm

TermsKernel: TypeAlias = Callable[[float, int, Array, float, float], tuple[float, float]]


def terms_kernel() -> TermsKernel:
    """The compiled `terms(spot, elapsed, packed, rate, dividend) -> (tau, vol)` of a packed slice (`black.pack_slice`).

    tau in years and vol as the root of the mean variance, weighted by |weight x gamma| over the legs not ended; by |weight|
    where none has gamma. NaN without a leg, or with a vol that is not known. On a future pass `dividend = rate`.
    """
    from bot.pricing import leg_kernels  # noqa: PLC0415  the compiler is imported by those who ask for it

    return leg_kernels.terms


def terms_by_formula(spot: float, elapsed: Nanos, packed: Array, rate: float, dividend: float) -> tuple[float, float]:
    """The same two means from `bsm`: the readable twin of `terms_kernel()`."""
    tau = (packed[:, 1] - elapsed) / NS_PER_YEAR
    live = packed[tau >= 0.0]
    tau = tau[tau >= 0.0]
    if not len(live) or not np.abs(live[:, 4]).any():
        return float("nan"), float("nan")
    gamma = bsm(spot, live[:, 0], tau, live[:, 2], rate=rate, dividend=dividend, cp=live[:, 3]).gamma
    share = np.abs(live[:, 4] * gamma)
    share = share if share.sum() > 0.0 else np.abs(live[:, 4])
    return float(np.average(tau, weights=share)), float(np.sqrt(np.average(live[:, 2] ** 2, weights=share)))
