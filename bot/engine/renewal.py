"""A renewal lets compiled code issue a box anew when a quote leaves it; law: by the very rule its owner would be asked by.

Where a row leaves a box that its owner said how to renew, the scan evaluates the net delta at the end of that row's instant. If
the owner would do nothing there, the next box is the one it would give, and the scan goes on; else it stops before that
instant, and the loop takes it as it takes any other. Nothing is decided here: who would act is woken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.core.quiet import ANY_PRICE, FOREVER, NO_PRICE, QuietBox, Renewal
from bot.domain.market import QuoteBatch
from bot.domain.units import NS_PER_YEAR, Nanos
from bot.engine.marks import Marks
from bot.engine.scan import Fences, fences
from bot.pricing.black import slice_kernel
from bot.pricing.near import near_kernel

RATE, DIVIDEND, LINEAR, TARGET, HELD, MULTIPLIER, SURE, LO, HI = range(9)
COLUMN, FIRST, STOP, EPOCH, STALE_AFTER, UNTIL = range(6)


class Ground(NamedTuple):
    """Boxes laid over each other, those that can be renewed apart from those that cannot.

    Shape: numbers (renewals, 9), whole (renewals, 6), packed (legs of all renewals, 5). `around` is what stops a row now,
    `base` what stops it however boxes are renewed; `owner` names the box of each renewal.
    """

    around: Fences
    base: Fences
    until: Nanos
    numbers: NDArray[np.float64]
    whole: NDArray[np.int64]
    packed: NDArray[np.float64]
    owner: list[int]
    legs: list[Any]
    """The arrays `packed` was made from: the same objects mean the same legs."""
    stays: list[Mapping[int, tuple[float, float]] | None]
    """By box, the intervals that no renewal changes."""


RenewingScan = Callable[[QuoteBatch, int, Marks, Ground, Nanos], int]


def lay(boxes: Sequence[QuietBox | None], instruments: int, before: Ground | None = None) -> Ground:
    """The boxes in force as columns; packed legs are taken over from `before` where they are the same."""
    if before is not None and _again(boxes, before):
        return before
    plain = [box if box is None or not box.renewals else _without_renewed(box) for box in boxes]
    renewals = [(n, box, item) for n, box in enumerate(boxes) if box is not None for item in box.renewals]
    base = fences(plain, instruments)
    numbers, whole = np.empty((len(renewals), 9)), np.empty((len(renewals), 6), dtype=np.int64)
    first = 0
    for r, (_, box, item) in enumerate(renewals):
        _write(numbers, whole, r, item)
        numbers[r, LO], numbers[r, HI] = box.intervals[item.column]
        whole[r, COLUMN], whole[r, FIRST], whole[r, STOP] = item.column, first, first + len(item.packed)
        whole[r, UNTIL] = box.until
        base.fenced[item.column] = True
        first += len(item.packed)
    legs = [item.packed for _, _, item in renewals]
    if before is not None and len(legs) == len(before.legs) and all(map(_is, legs, before.legs)):
        packed = before.packed
    else:
        packed = np.concatenate(legs) if legs else np.empty((0, 5))
    around = Fences(base.lo.copy(), base.hi.copy(), base.fenced)
    for r in range(len(renewals)):
        _narrow(around, numbers, whole, r)
    until = min((box.until for box in plain if box is not None), default=FOREVER)
    stays = [None if box is None else box.intervals for box in plain]
    return Ground(around, base, until, numbers, whole, packed, [n for n, _, _ in renewals], legs, stays)


def _again(boxes: Sequence[QuietBox | None], ground: Ground) -> bool:
    """Write boxes into the columns that were laid for others of the same shape: all can be renewed, of the same legs and
    instruments; False where they differ in more than numbers."""
    r = 0
    for n, box in enumerate(boxes):
        if box is None or not box.renewals or n >= len(ground.stays):
            return False
        still = ground.stays[n] or {}
        if len(box.intervals) != len(still) + len({item.column for item in box.renewals}):
            return False
        if any(box.intervals.get(k) != interval for k, interval in still.items()):
            return False
        for item in box.renewals:
            same = r < len(ground.legs) and item.packed is ground.legs[r] and item.column == ground.whole[r, COLUMN]
            if not same or ground.owner[r] != n:
                return False
            r += 1
    if r != len(ground.legs) or len(boxes) != len(ground.stays):
        return False
    r = 0
    for box in boxes:
        for item in box.renewals if box is not None else ():
            k = item.column
            ground.around.lo[k], ground.around.hi[k] = ground.base.lo[k], ground.base.hi[k]
            _write(ground.numbers, ground.whole, r, item)
            ground.numbers[r, LO], ground.numbers[r, HI] = box.intervals[k] if box is not None else NO_PRICE
            ground.whole[r, UNTIL] = box.until if box is not None else 0
            r += 1
    for r in range(len(ground.legs)):
        _narrow(ground.around, ground.numbers, ground.whole, r)
    return True


def _write(numbers: NDArray[np.float64], whole: NDArray[np.int64], r: int, item: Renewal) -> None:
    numbers[r, :LO] = item.rate, item.dividend, item.linear, item.target, item.held, item.multiplier, item.sure
    whole[r, EPOCH], whole[r, STALE_AFTER] = item.epoch, item.stale_after


def _is(one: object, other: object) -> bool:
    return one is other


def _without_renewed(box: QuietBox) -> QuietBox:
    """What of a box no renewal changes."""
    renewed = {item.column for item in box.renewals}
    return QuietBox(FOREVER, {k: interval for k, interval in box.intervals.items() if k not in renewed})


def _narrow(around: Fences, numbers: NDArray[np.float64], whole: NDArray[np.int64], r: int) -> None:
    k = whole[r, COLUMN]
    around.lo[k] = max(around.lo[k], numbers[r, LO])
    around.hi[k] = min(around.hi[k], numbers[r, HI])


def renewed(boxes: Sequence[QuietBox | None], ground: Ground) -> list[QuietBox | None]:
    """The boxes as a scan left them: those it renewed anew, the others themselves."""
    if len(boxes) == 1 and boxes[0] is not None and len(ground.owner) == 1:  # the ordinary case, at each trade
        return [_renewed_alone(boxes[0], ground)]
    out = list(boxes)
    for n in dict.fromkeys(ground.owner):
        box = boxes[n]
        assert box is not None  # it has renewals
        mine = [r for r, owner in enumerate(ground.owner) if owner == n]
        found: dict[int, tuple[float, float]] = {}
        for r in mine:
            k, lo, hi = int(ground.whole[r, COLUMN]), float(ground.numbers[r, LO]), float(ground.numbers[r, HI])
            known = found.get(k, ANY_PRICE)
            found[k] = max(lo, known[0]), min(hi, known[1])
        until = min(int(ground.whole[r, UNTIL]) for r in mine)
        if until != box.until or any(box.intervals[k] != interval for k, interval in found.items()):
            out[n] = QuietBox(until, {**box.intervals, **found}, box.renewals)
    return out


def _renewed_alone(box: QuietBox, ground: Ground) -> QuietBox:
    k, until = int(ground.whole[0, COLUMN]), int(ground.whole[0, UNTIL])
    interval = float(ground.numbers[0, LO]), float(ground.numbers[0, HI])
    if until == box.until and box.intervals[k] == interval:
        return box
    return QuietBox(until, {**box.intervals, k: interval}, box.renewals)


def renewed_at(box: QuietBox, marks: Marks, now: Nanos) -> QuietBox | None:
    """The box issued anew at these marks and this instant, None where its owner must be woken: the scan's rule, for a market
    that is seen one quote at a time."""
    over = now >= box.until
    fresh: dict[int, tuple[float, float]] = {}
    until = FOREVER if over else box.until
    for k, (lo, hi) in box.intervals.items():
        renewals = [item for item in box.renewals if item.column == k]
        if not renewals and not lo <= marks.bids[k] + marks.asks[k] <= hi:
            return None
        if renewals and not over and lo <= marks.bids[k] + marks.asks[k] <= hi:
            continue
        for item in renewals:
            found = _at(item, marks, now)
            if found is None:
                return None
            known = fresh.get(k, ANY_PRICE)
            fresh[k] = max(found[0], known[0]), min(found[1], known[1])
            until = min(until, found[2])
    return QuietBox(until, {**box.intervals, **fresh}, box.renewals)


def _at(item: Renewal, marks: Marks, now: Nanos) -> tuple[float, float, Nanos] | None:
    """The next interval and end of one renewal; None where nothing can be promised."""
    k = item.column
    if not marks.bids[k] <= marks.asks[k]:
        return None
    spot, elapsed = marks.mid(k), now - item.epoch
    delta, gamma = slice_kernel()(spot, elapsed, item.packed, item.rate, item.dividend)
    off = ((item.target - (delta + item.linear)) / item.multiplier - item.held) * item.multiplier
    if not -item.sure < off < item.sure:
        return None
    h, years = near_kernel()(spot, elapsed, item.packed, item.rate, item.dividend, gamma, item.sure - abs(off))
    lasts = min(int(years * NS_PER_YEAR), item.stale_after)
    return (2.0 * (spot - h), 2.0 * (spot + h), now + lasts) if h > 0.0 and lasts > 0 else None


def renewing_scanner() -> RenewingScan:
    """The compiled scan: `(batch, start, marks, ground, due) -> the first row not folded`; it writes new boxes into `ground`.

    At and after `due` no box is renewed (what falls due may change what they rest on), and no row is taken.
    """
    kernel: list[Callable[..., Any]] = []

    def scan(batch: QuoteBatch, start: int, marks: Marks, ground: Ground, due: Nanos) -> int:
        if not kernel:
            from bot.engine.renewal_kernels import scan as compiled  # noqa: PLC0415  the compiler loads when first needed

            kernel.append(compiled)
        columns = (batch.ts_recv, batch.instrument, batch.bid, batch.ask, batch.bid_size, batch.ask_size)
        around, base = ground.around, ground.base
        until = min(ground.until, due + 1)
        return int(
            kernel[0](
                *map(np.ascontiguousarray, columns), start, *marks.columns(), *around, base.lo, base.hi, until, due,
                ground.numbers, ground.whole, ground.packed,
            )
        )  # fmt: skip

    return scan


def scan_by_rows(batch: QuoteBatch, start: int, marks: Marks, ground: Ground, due: Nanos) -> int:
    """The same, one row at a time in Python: the readable twin of `renewing_scanner()`."""
    ts, around, row = batch.ts_recv, ground.around, start
    _narrow_all(ground)
    while row < len(batch) and ts[row] < min(ground.until, due + 1):
        k, now = int(batch.instrument[row]), int(ts[row])
        total = float(batch.bid[row]) + float(batch.ask[row])
        inside = not around.fenced[k] or (around.lo[k] <= total <= around.hi[k] and batch.bid[row] <= batch.ask[row])
        if inside and now < ground.whole[:, UNTIL].min():
            marks.fold_quotes(batch, row, row + 1)
            row += 1
            continue
        stop = int(np.searchsorted(ts, now, side="right"))
        if now >= due or stop == len(batch):
            break
        marks.fold_quotes(batch, row, stop)
        if not _renew_all(marks, ground, {int(k) for k in batch.instrument[row:stop]}, now):
            break
        row = stop
    while start < row < len(batch) and ts[row - 1] == ts[row]:
        row -= 1
    return row


def _renew_all(marks: Marks, ground: Ground, moved: set[int], now: Nanos) -> bool:
    """Renew every box that these marks leave; False where somebody must be woken."""
    base = ground.base
    quiet = True
    for k in moved:
        total = marks.bids[k] + marks.asks[k]
        if base.fenced[k] and not (base.lo[k] <= total <= base.hi[k] and marks.bids[k] <= marks.asks[k]):
            quiet = False
    for r in range(len(ground.owner)):
        numbers, whole = ground.numbers[r], ground.whole[r]
        k = int(whole[COLUMN])
        if now < whole[UNTIL] and numbers[LO] <= marks.bids[k] + marks.asks[k] <= numbers[HI]:
            continue
        if not quiet or not marks.bids[k] <= marks.asks[k] or not _renew(ground, r, marks.mid(k), now):
            whole[UNTIL] = now
            quiet = False
    if quiet:
        _narrow_all(ground)
    return quiet


def _narrow_all(ground: Ground) -> None:
    around, base = ground.around, ground.base
    for k in {int(k) for k in ground.whole[:, COLUMN]}:
        around.lo[k], around.hi[k] = base.lo[k], base.hi[k]
    for r in range(len(ground.owner)):
        _narrow(around, ground.numbers, ground.whole, r)


def _renew(ground: Ground, r: int, spot: float, now: Nanos) -> bool:
    numbers, whole = ground.numbers[r], ground.whole[r]
    rate, dividend, linear, target, held, multiplier, sure = (float(x) for x in numbers[:LO])
    legs = ground.packed[whole[FIRST] : whole[STOP]]
    elapsed = now - int(whole[EPOCH])
    delta, gamma = slice_kernel()(spot, elapsed, legs, rate, dividend)
    off = ((target - (delta + linear)) / multiplier - held) * multiplier
    if not -sure < off < sure:
        return False
    h, years = near_kernel()(spot, elapsed, legs, rate, dividend, gamma, sure - abs(off))
    lasts = min(int(years * NS_PER_YEAR), int(whole[STALE_AFTER]))
    promised = h > 0.0 and lasts > 0
    numbers[LO], numbers[HI] = (2.0 * (spot - h), 2.0 * (spot + h)) if promised else (np.inf, -np.inf)
    whole[UNTIL] = now + lasts if promised else now
    return True
