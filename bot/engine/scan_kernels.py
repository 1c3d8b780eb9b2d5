"""The compiled scan over quotes, the fast twin of `scan.scan_by_rows`; law: equal to it. Imports numba."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_types = numba.types
_F8, _F4 = _types.float64, _types.float32


def _column(kind: Any) -> Any:
    return _types.Array(kind, 1, "C", readonly=True)


_MARK = _types.Array(_F8, 1, "C")
_SIGNATURE = _types.int64(
    _column(_types.int64), _column(_types.int32), _column(_F8), _column(_F8), _column(_F4), _column(_F4), _types.int64,
    _MARK, _MARK, _MARK, _MARK, _types.Array(_types.int64, 1, "C"),
    _column(_F8), _column(_F8), _column(_types.boolean), _types.int64,
)  # fmt: skip


@numba.njit(_SIGNATURE, cache=True, error_model="numpy")
def scan(
    ts: NDArray[np.int64],
    instrument: NDArray[np.int32],
    bid: NDArray[np.float64],
    ask: NDArray[np.float64],
    bid_size: NDArray[np.float32],
    ask_size: NDArray[np.float32],
    start: int,
    bids: NDArray[np.float64],
    asks: NDArray[np.float64],
    bid_sizes: NDArray[np.float64],
    ask_sizes: NDArray[np.float64],
    times: NDArray[np.int64],
    lo: NDArray[np.float64],
    hi: NDArray[np.float64],
    fenced: NDArray[np.bool_],
    until: int,
) -> int:
    """The first row not folded. What was folded of a row's own instant before it is folded again, to the same marks."""
    count = ts.shape[0]
    row = start
    while row < count:
        k = instrument[row]
        total = bid[row] + ask[row]
        if ts[row] >= until:
            break
        if fenced[k] and not (lo[k] <= total <= hi[k] and bid[row] <= ask[row]):
            break
        bids[k] = bid[row]
        asks[k] = ask[row]
        bid_sizes[k] = bid_size[row]
        ask_sizes[k] = ask_size[row]
        times[k] = ts[row]
        row += 1
    while start < row < count and ts[row - 1] == ts[row]:
        row -= 1
    return row
