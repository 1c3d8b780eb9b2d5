"""A scan folds quotes into marks up to the first that a promise of quiet does not cover; law: it decides nothing.

`Fences` are the boxes of every strategy laid over each other, as columns by instrument. The scan stops before the instant
of the first row that leaves its fence or is not covered in time; the loop then takes that instant as it takes any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bot.core.quiet import QuietBox
from bot.domain.market import QuoteBatch
from bot.domain.units import Nanos
from bot.engine.marks import Marks


class Fences(NamedTuple):
    """By instrument, the interval of bid + ask that keeps everybody quiet, and whether there is one. Shape: (instruments,)."""

    lo: NDArray[np.float64]
    hi: NDArray[np.float64]
    fenced: NDArray[np.bool_]


Scan: TypeAlias = Callable[[QuoteBatch, int, Marks, Fences, Nanos], int]


def fences(boxes: Sequence[QuietBox | None], instruments: int) -> Fences:
    """The boxes laid over each other: an instrument of several has the narrowest interval of all."""
    lo, hi = np.full(instruments, -np.inf), np.full(instruments, np.inf)
    fenced = np.zeros(instruments, dtype=np.bool_)
    for box in boxes:
        for k, (low, high) in box.intervals.items() if box is not None else ():
            lo[k], hi[k] = max(lo[k], low), min(hi[k], high)
            fenced[k] = True
    return Fences(lo, hi, fenced)


def scanner() -> Scan:
    """The compiled scan: `(batch, start, marks, fences, until) -> the first row not folded`."""
    kernel: list[Callable[..., Any]] = []

    def scan(batch: QuoteBatch, start: int, marks: Marks, around: Fences, until: Nanos) -> int:
        if not kernel:
            from bot.engine.scan_kernels import scan as compiled  # noqa: PLC0415  the compiler loads when first needed

            kernel.append(compiled)
        columns = (batch.ts_recv, batch.instrument, batch.bid, batch.ask, batch.bid_size, batch.ask_size)
        return int(kernel[0](*map(np.ascontiguousarray, columns), start, *marks.columns(), *around, until))

    return scan


def scan_by_rows(batch: QuoteBatch, start: int, marks: Marks, around: Fences, until: Nanos) -> int:
    """The same, one row at a time in Python: the readable twin of `scanner()`."""
    row = start
    while row < len(batch):
        k, bid, ask = int(batch.instrument[row]), float(batch.bid[row]), float(batch.ask[row])
        covered = not around.fenced[k] or (around.lo[k] <= bid + ask <= around.hi[k] and bid <= ask)
        if batch.ts_recv[row] >= until or not covered:
            break
        row += 1
    while start < row < len(batch) and batch.ts_recv[row - 1] == batch.ts_recv[row]:
        row -= 1
    if row > start:
        marks.fold_quotes(batch, start, row)
    return row
