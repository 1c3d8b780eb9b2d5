"""The compiled check of recorded columns, the fast twin of `columns.first_fault_by_rows`; law: equal to it. Imports numba."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import compiled

FINE, BACKWARDS, CROSSED, NOT_A_PRICE, NOT_A_SIZE, UNKNOWN_INSTRUMENT = range(6)
_types = numba.types


def _column(kind: Any) -> Any:
    return _types.Array(kind, 1, "C", readonly=True)


_PAIR: Any = numba.types.UniTuple
_SIGNATURE: Any = _PAIR(_types.int64, 2)(
    _column(_types.int32), _types.int64, _column(_types.int64), _column(_types.int64), _types.int64,
    _column(_types.float64), _column(_types.float64), _column(_types.float32), _column(_types.float32),
)  # fmt: skip


@compiled(_SIGNATURE)
def first_fault(
    instrument: NDArray[np.int32],
    count: int,
    ts_event: NDArray[np.int64],
    ts_recv: NDArray[np.int64],
    before: int,
    bid: NDArray[np.float64],
    ask: NDArray[np.float64],
    bid_size: NDArray[np.float32],
    ask_size: NDArray[np.float32],
) -> tuple[int, int]:
    """(row, fault) of the first bad row, (-1, FINE) without one; `before` is the last instant of the rows before these."""
    last = before
    for i in range(ts_recv.shape[0]):
        b, a = bid[i], ask[i]
        if ts_recv[i] < last or ts_event[i] > ts_recv[i]:
            return i, BACKWARDS
        last = ts_recv[i]
        if not 0 <= instrument[i] < count:
            return i, UNKNOWN_INSTRUMENT
        if not (0.0 < b < np.inf or b != b) or not (0.0 < a < np.inf or a != a):  # noqa: PLR0124  NaN: withdrawn
            return i, NOT_A_PRICE
        if b > a:
            return i, CROSSED
        if bid_size[i] < 0.0 or ask_size[i] < 0.0 or np.isinf(bid_size[i]) or np.isinf(ask_size[i]):
            return i, NOT_A_SIZE
    return -1, FINE
