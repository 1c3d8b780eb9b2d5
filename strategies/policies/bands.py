"""A band is an interval of hedges around the exact one; law: what a rule needs to answer stands here once, for all rules.

Every function takes floats or arrays of one shape and gives the like. Inputs that would divide by zero are moved by less
than anyone could trade on, so that no answer is ever NaN for a known state.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np

from bot.core.ports import Band, BandInput
from bot.domain.units import NEVER, Nanos, parse_span

INF: Final = math.inf
TINY: Final = 1e-300
SHORTEST: Final = 1e-9
"""Years (32 ms): the least time to expiry a formula is asked for."""
LEAST_VOL: Final = 1e-6
LINE: Final = Band(-INF, INF)
"""The whole line, as numbers."""

To: TypeAlias = Literal["edge", "centre"]


def around(x: BandInput, half_width: Any, to: To) -> Band:
    """The exact hedge -+ a half width given in underlying units, in hedge contracts. Shape: as `x.want`."""
    h = half_width / abs(x.per_contract)
    return Band(x.want - h, x.want + h, x.want if to == "centre" else None)


def is_due(x: BandInput, length: Nanos) -> Any:
    """True where the rule never acted, or last did so `length` nanoseconds ago or more. Shape: as the input's times."""
    return (np.asarray(x.last_hedge_ts) == NEVER) | (np.asarray(x.now) - x.last_hedge_ts >= length)


def point_where(due: Any, value: Any) -> Band:
    """The point `value` where something is due, the whole line elsewhere. Shape: due and value broadcast."""
    if np.all(due):
        return Band(value, value)
    if not np.any(due):
        return whole_line(value)
    return Band(np.where(due, value, -INF), np.where(due, value, INF))


def whole_line(like: Any) -> Band:
    """The band in which nothing is ever done. Shape: as `like`; of arrays, read-only columns that take no room."""
    shape = np.shape(like)
    return _line_of(shape) if shape else LINE


@lru_cache(maxsize=8)
def _line_of(shape: tuple[int, ...]) -> Band:
    return Band(np.broadcast_to(-INF, shape), np.broadcast_to(INF, shape))


def clamp(value: Any, lo: Any, hi: Any) -> Any:
    """The value moved into [lo, hi]. Shape: all broadcast."""
    return np.minimum(np.maximum(value, lo), hi)


# --------------------------------------------------------------------------- settings


def number(where: str, value: float, *, least: float = -INF, above: bool = False, most: float = INF) -> float:
    """The setting as a float; ValueError naming it unless it is finite and from `least` (above it) to `most`."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (good and (value > least if above else value >= least) and value <= most):
        bound = "" if least == -INF else f" above {least:g}" if above else f" from {least:g}"
        bound += "" if most == INF else f" to {most:g}"
        raise ValueError(f"{where}: expected a finite number{bound}, found {value!r}")
    return float(value)


def positive(where: str, value: float) -> float:
    """The setting as a float; ValueError naming it unless it is finite and above zero."""
    return number(where, value, least=0.0, above=True)


def length_of(where: str, value: str | Nanos) -> Nanos:
    """The setting as nanoseconds, from a length of time such as "15m" or nanoseconds; ValueError unless above zero."""
    length = parse_span(value) if isinstance(value, str) else value
    if isinstance(length, bool) or not isinstance(length, int) or length <= 0:
        raise ValueError(f"{where}: expected longer than zero, found {value!r}")
    return length


def edge_or_centre(where: str, value: str) -> To:
    """The setting as it is; ValueError naming it unless it is one of the two words."""
    if value not in {"edge", "centre"}:
        raise ValueError(f"{where}: expected 'edge' or 'centre', found {value!r}")
    return cast("To", value)
