"""A compiled look-up reads a band of the exact optimum off its tables, the fast twin of `exact.read_pair`; law: the same bits
for one price as for a column of them, on any x86-64 processor.

No fast-math flag is set, and the logarithm is the project's own.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled_free, inlined
from bot.pricing.elementary import log_quotient

Array = NDArray[np.float64]

_f64: Final = numba.types.float64
_bool: Final = numba.types.boolean
_IN: Final = numba.types.Array(_f64, 1, "C", readonly=True)
_OUT: Final = numba.types.Array(_f64, 1, "C")
_types: Any = numba.types
_PAIR: Final = _types.UniTuple(_f64, 2)
SIXTH: Final = 1.0 / 6.0
_REST: Final = (_f64, _f64, _f64, _f64, _f64, _bool)


@inlined
def between(table: Any, i: int, base: int, a: float, b: float, c: float, d: float) -> float:
    """The cubic of four rows by its weights, held between the rows i and i + 1."""
    found = a * table[base] + b * table[base + 1] + c * table[base + 2] + d * table[base + 3]
    left, right = table[i], table[i + 1]
    low = left if left < right else right
    high = right if left < right else left
    found = found if found > low else low
    return float(found if found < high else high)


@inlined
def place_of(spot: float, middle: float, drift: float, first: float, gap: float, last: float) -> float:
    """Where a price lies between the rows, those at either end standing for all beyond."""
    place = (log_quotient(spot, middle) - drift - first) / gap
    place = place if place > 0.0 else 0.0
    return place if place < last else last


@inlined
def between_both(one: Any, other: Any, place: float) -> Any:
    """Both tables at a place between rows, by cubics of one stencil."""
    rows = one.shape[0]
    i = min(int(place), rows - 2)
    base = min(max(i - 1, 0), rows - 4)
    u = place - base
    low, high = (u - 1.0) * (u - 2.0), u * (u - 3.0)
    a, d = low * (3.0 - u) * SIXTH, low * u * SIXTH
    b, c = high * (u - 2.0) * 0.5, high * (1.0 - u) * 0.5
    return between(one, i, base, a, b, c, d), between(other, i, base, a, b, c, d)


@compiled_free(_PAIR(_IN, _IN, _f64, *_REST))
def pair_of(
    one: Array,
    other: Array,
    spot: float,
    middle: float,
    drift: float,
    first: float,
    gap: float,
    grown: float,
    nearest: bool,
) -> tuple[float, float]:
    """Two tables of a date, as a pair in order, at one price above 0. Shape: one, other (rows,)."""
    place = place_of(spot, middle, drift, first, gap, one.shape[0] - 1.0)
    if nearest:
        row = int(np.rint(place))
        left, right = grown * one[row], grown * other[row]
    else:
        left, right = between_both(one, other, place)
        left, right = grown * left, grown * right
    return min(left, right), max(left, right)


@compiled_free(_bool(_IN, _IN, _IN, *_REST, _OUT, _OUT))
def pairs_of(
    one: Array,
    other: Array,
    spots: Array,
    middle: float,
    drift: float,
    first: float,
    gap: float,
    grown: float,
    nearest: bool,
    low: Array,
    high: Array,
) -> bool:
    """Writes two tables of a date, as pairs in order, at many prices; False, nothing meant, where one is not above 0.

    Places first, in a loop of its own: it becomes vector code, which looking up does not.
    Shape: one, other (rows,), spots, low, high (prices,).
    """
    last = one.shape[0] - 1.0
    known = True
    for j in range(spots.shape[0]):
        known &= spots[j] > 0.0
        low[j] = place_of(spots[j], middle, drift, first, gap, last)
    if not known:
        return False
    if nearest:
        for j in range(spots.shape[0]):
            row = int(np.rint(low[j]))
            left, right = grown * one[row], grown * other[row]
            low[j] = min(left, right)
            high[j] = max(left, right)
        return True
    for j in range(spots.shape[0]):
        left, right = between_both(one, other, low[j])
        left, right = grown * left, grown * right
        low[j] = min(left, right)
        high[j] = max(left, right)
    return True
