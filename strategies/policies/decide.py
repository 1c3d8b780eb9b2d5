"""A decision clamps what is held into a policy's band, rounds to lots and words the reason; the scorer uses the same band.

Law: rounding goes toward the inside of the band, never across a zero gap; a target equal to what is held is "stay".
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal

import msgspec

from bot.core.ports import Band


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What to hold in whole lots, the number before rounding, and why; `stay` when nothing is to be done."""

    quantity: Decimal
    unrounded: float
    stay: bool
    reason: str


def decide(band: Band, held: float, lot: Decimal | None, *, policy: str, toward_zero: bool = False) -> Decision:
    """The quantity a band asks to hold: `to` (rounded half away from zero) or the nearest edge (rounded inside)."""
    lo, hi, to = float(band.lo), float(band.hi), band.to
    nearest = ROUND_DOWN if toward_zero else ROUND_HALF_UP
    if lo <= held <= hi and lo != hi:
        return Decision(_exact(held), held, True, f"{policy}: {held:g} lies inside [{lo:.4f}, {hi:.4f}]")
    if not (math.isfinite(lo) or math.isfinite(hi)):
        return Decision(_exact(held), held, True, f"{policy}: no bound asks for a trade")
    if lo == hi:
        wanted, mode = lo, nearest
        why = f"{policy}: the exact hedge is {wanted:.4f}"
    elif to is not None:
        wanted, mode = float(to), nearest
        why = f"{policy}: {held:g} left [{lo:.4f}, {hi:.4f}]; to the centre {wanted:.4f}"
    elif held < lo:
        wanted, mode = lo, ROUND_CEILING
        why = f"{policy}: {held:g} is below [{lo:.4f}, {hi:.4f}]; up to its lower edge"
    else:
        wanted, mode = hi, ROUND_FLOOR
        why = f"{policy}: {held:g} is above [{lo:.4f}, {hi:.4f}]; down to its upper edge"
    quantity = round_lots(wanted, lot, mode)
    if mode in {ROUND_CEILING, ROUND_FLOOR} and not lo <= float(quantity) <= hi:
        quantity = round_lots(
            0.5 * (lo + hi), lot, ROUND_HALF_UP
        )  # the band is narrower than a lot: nearest to its middle
    stay = float(quantity) == held
    return Decision(
        quantity,
        wanted,
        stay,
        why + (f", held already after rounding to {quantity}" if stay else f", {quantity} after rounding"),
    )


def round_lots(wanted: float, lot: Decimal | None, mode: str) -> Decimal:
    """The number in whole lots; half goes away from zero, the other modes toward the named side."""
    exact = _exact(wanted)
    if lot is None:
        return exact
    return (exact / lot).to_integral_value(mode) * lot


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))
