"""A convertible's risk is that of its own model, solved afresh: Greeks now, and what it would be worth elsewhere.

Law: what its model or its share's price does not give is None with the reason, never 0.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.instruments import ConvertibleBond
from bot.domain.units import DAYS_PER_YEAR, NS_PER_DAY, Nanos
from bot.engine.valuation import Valuation
from bot.pricing import convertible

Floats: TypeAlias = NDArray[np.float64]


def bond_greeks(valuation: Valuation, bond: ConvertibleBond, now: Nanos, bonds: float) -> tuple[dict[str, float], str]:
    """The Greeks of so many bonds in units of the share and money, and why they are not known; empty when they are."""
    spot, why = _spot(valuation, bond)
    if why or bond.model is None:
        return {}, why
    settings = msgspec.structs.asdict(bond.model)
    try:
        found = convertible.grid(bond.terms, **settings, at=bond.years(now), greeks=True).read(spot)
    except ValueError as fault:
        return {}, str(fault)
    delta, gamma = bonds * float(found.delta), bonds * float(found.gamma)
    return {
        "delta": delta,
        "cash_delta": delta * spot,
        "gamma": gamma,
        "gamma_per_percent": gamma * spot * spot / 100.0,
        "vega_per_point": bonds * float(found.vega) / 100.0,
        "theta_per_day": bonds * float(found.theta) / DAYS_PER_YEAR,
        "rho_per_percent": bonds * float(found.rho) / 100.0,
    }, ""


def bond_moves(
    valuation: Valuation,
    bond: ConvertibleBond,
    now: Nanos,
    *,
    factor: Floats,
    vol_points: float,
    days: float,
    spot: float | None = None,
) -> tuple[str, Floats]:
    """What one bond gains, in currency, where the share's price, the model's vol and the time are moved. Shape: factor (n,).

    `spot` is the share's price to move from; the present one when absent.
    """
    found, why = _spot(valuation, bond)
    if spot is None:
        spot = found
    elif bond.model is not None:
        why = f"no price of {bond.underlying}" if math.isnan(spot) else ""
    if why or bond.model is None:
        return why, factor * math.nan
    moved = msgspec.structs.replace(bond.model, vol=max(bond.model.vol + vol_points / 100.0, 0.0))
    later = min(now + round(days * NS_PER_DAY), max(bond.matures, now))
    there = valuation.bonds.value(bond, spot * factor, later, model=moved).price
    here = valuation.bonds.value(bond, spot, now).price
    return "", np.asarray(float(bond.multiplier) * (there - float(here)))


def _spot(valuation: Valuation, bond: ConvertibleBond) -> tuple[float, str]:
    spot = valuation.spot(bond.underlying)
    if bond.model is None:
        return spot, f"{bond.id} has no model"
    return spot, f"no price of {bond.underlying}" if math.isnan(spot) else ""
