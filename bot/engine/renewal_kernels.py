"""The compiled scan that renews boxes by itself, the fast twin of `renewal.scan_by_rows`; law: equal to it.

Imports numba. The sums and bounds are those of the decision path, by the same kernels, so their bits are the same.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bot.pricing.compiler import part, with_edition
from bot.pricing.kernels import net
from bot.pricing.near_kernels import near

NS_PER_YEAR = 365.0 * 86_400.0 * 1e9
RATE, DIVIDEND, LINEAR, TARGET, HELD, MULTIPLIER, SURE, LO, HI = range(9)
COLUMN, FIRST, STOP, EPOCH, STALE_AFTER, UNTIL = range(6)

_types = numba.types
_F8, _F4, _I8, _I4 = _types.float64, _types.float32, _types.int64, _types.int32


def _column(kind: Any) -> Any:
    return _types.Array(kind, 1, "C", readonly=True)


_MARK = _types.Array(_F8, 1, "C")
_SIGNATURE = _I8(
    _column(_I8), _column(_I4), _column(_F8), _column(_F8), _column(_F4), _column(_F4), _I8,
    _MARK, _MARK, _MARK, _MARK, _types.Array(_I8, 1, "C"),
    _MARK, _MARK, _column(_types.boolean), _column(_F8), _column(_F8), _I8, _I8,
    _types.Array(_F8, 2, "C"), _types.Array(_I8, 2, "C"), _types.Array(_F8, 2, "C"),
)  # fmt: skip


@part
def renew(spot: float, now: int, packed: NDArray[np.float64], whole: Any, numbers: Any) -> bool:
    """Write a new box at this price and instant into `numbers` and `whole`; False where the owner must be woken."""
    legs = packed[whole[FIRST] : whole[STOP]]
    elapsed = now - whole[EPOCH]
    delta, gamma = net(spot, elapsed, legs, numbers[RATE], numbers[DIVIDEND])
    delta = delta + numbers[LINEAR]
    want = (numbers[TARGET] - delta) / numbers[MULTIPLIER]
    off = (want - numbers[HELD]) * numbers[MULTIPLIER]
    sure = numbers[SURE]
    if not -sure < off < sure:
        return False
    h, years = near(spot, elapsed, legs, numbers[RATE], numbers[DIVIDEND], gamma, sure - abs(off))
    lasts = min(int(years * NS_PER_YEAR), whole[STALE_AFTER])
    if h > 0.0 and lasts > 0:
        numbers[LO] = 2.0 * (spot - h)
        numbers[HI] = 2.0 * (spot + h)
        whole[UNTIL] = now + lasts
    else:  # nothing can be promised beyond this instant: the next row is looked at again
        numbers[LO] = np.inf
        numbers[HI] = -np.inf
        whole[UNTIL] = now
    return True


@part
def renew_all(
    bids: Any, asks: Any, now: int, packed: NDArray[np.float64], whole: Any, numbers: Any, woken: bool
) -> bool:
    """Renew every box that these marks leave; False where somebody must be woken (`woken`: somebody must be already)."""
    for r in range(whole.shape[0]):
        k = whole[r, COLUMN]
        total = bids[k] + asks[k]
        if now < whole[r, UNTIL] and numbers[r, LO] <= total <= numbers[r, HI]:
            continue
        if woken or not bids[k] <= asks[k] or not renew(0.5 * total, now, packed, whole[r], numbers[r]):
            whole[r, UNTIL] = now  # its owner is woken at this instant
            woken = True
    return not woken


@part
def narrow(lo: Any, hi: Any, base_lo: Any, base_hi: Any, numbers: Any, whole: Any) -> int:
    """Lay the boxes over what is fenced anyway; the first instant that one of them does not cover."""
    for r in range(whole.shape[0]):
        k = whole[r, COLUMN]
        lo[k] = base_lo[k]
        hi[k] = base_hi[k]
    soft: int = whole[0, UNTIL]
    for r in range(whole.shape[0]):
        k = whole[r, COLUMN]
        lo[k] = max(lo[k], numbers[r, LO])
        hi[k] = min(hi[k], numbers[r, HI])
        soft = min(soft, whole[r, UNTIL])
    return soft


@numba.njit(_SIGNATURE, cache=True, error_model="numpy")
@with_edition
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
    base_lo: NDArray[np.float64],
    base_hi: NDArray[np.float64],
    until: int,
    due: int,
    numbers: NDArray[np.float64],
    whole: NDArray[np.int64],
    packed: NDArray[np.float64],
) -> int:
    """The first row not folded; the boxes as they were left stand in `numbers` and `whole`."""
    count = ts.shape[0]
    soft = narrow(lo, hi, base_lo, base_hi, numbers, whole)
    row = start
    while row < count:
        now = ts[row]
        if now >= until:
            break
        k = instrument[row]
        total = bid[row] + ask[row]
        inside = not fenced[k] or (lo[k] <= total <= hi[k] and bid[row] <= ask[row])
        if inside and now < soft:
            bids[k] = bid[row]
            asks[k] = ask[row]
            bid_sizes[k] = bid_size[row]
            ask_sizes[k] = ask_size[row]
            times[k] = now
            row += 1
            continue
        if now >= due:
            break
        stop = row
        while stop < count and ts[stop] == now:
            k = instrument[stop]
            bids[k] = bid[stop]
            asks[k] = ask[stop]
            bid_sizes[k] = bid_size[stop]
            ask_sizes[k] = ask_size[stop]
            times[k] = now
            stop += 1
        if stop == count:
            break  # the instant may go on in the next batch
        woken = False
        for j in range(row, stop):
            k = instrument[j]
            if fenced[k] and not (base_lo[k] <= bids[k] + asks[k] <= base_hi[k] and bids[k] <= asks[k]):
                woken = True
        if not renew_all(bids, asks, now, packed, whole, numbers, woken):
            break
        soft = narrow(lo, hi, base_lo, base_hi, numbers, whole)
        row = stop
    while start < row < count and ts[row - 1] == ts[row]:
        row -= 1
    return row
