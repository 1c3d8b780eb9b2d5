"""A counterparty is who stands on the other side of what the book file brought; law: what is owed is what is held, at marks.

A position of the book file counts for its counterparty as far as the account still holds it, through splits, renames and
mergers. Futures and perpetuals settle each day, so their gain since the first sample counts, not their price. Positions
without a counterparty are one row without a name; what strategies trade since is with the venue and counts for nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bot.app.wiring import Run
from bot.core.events import Corporate
from bot.domain.instruments import Future, Instrument, Perpetual, settlement_currency
from bot.domain.units import iso
from bot.engine.sampler import Table, float_value

Floats: TypeAlias = NDArray[np.float64]


class _Stage(NamedTuple):
    """What a position is between two events: samples [start, stop), instrument, units per unit of the beginning."""

    start: int
    stop: int
    instrument: str
    ratio: float


def exposures(run: Run) -> list[dict[str, Any]]:
    """Mark to market by counterparty over the run of the dynamic account, in the base currency, in order of name.

    `exit` positive is what the counterparty owes at the end, negative what is owed to it; `peak` is the most it owed at any
    sample, at `peak_at`. A number that needs a mark or an exchange rate that is missing is None.
    """
    table = run.loop.sampler.table()
    paths: dict[str, Floats] = {}
    counts: dict[str, int] = {}
    for position in run.book.positions:
        name = position.counterparty
        path = _path(run, table, position.key.instrument, position.quantity)
        paths[name] = paths[name] + path if name in paths else path
        counts[name] = counts.get(name, 0) + 1
    if not any(paths):
        return []
    return [_row(name, counts[name], paths[name], table) for name in sorted(paths)]


def _row(name: str, positions: int, path: Floats, table: Table) -> dict[str, Any]:
    known = path[np.isfinite(path)]
    peak = float(known.max()) if known.size else None
    at = None if peak is None else iso(int(table.instants[int(np.flatnonzero(path == peak)[0])]))
    owed = peak is not None and peak > 0.0
    return {
        "counterparty": name,
        "positions": positions,
        "entry": _number(path[0]),
        "exit": _number(path[-1]),
        "peak": 0.0 if peak is not None and not owed else _number(np.float64(peak if peak is not None else np.nan)),
        "peak_at": at if owed else None,
        "least": _number(known.min()) if known.size else None,
    }


def _path(run: Run, table: Table, instrument: str, quantity: Decimal) -> Floats:
    """The mark to market of one position at every sample, in the base currency. Shape: (samples,)."""
    out = np.zeros(len(table.instants))
    opened = float(sum((o.quantity for o in run.loop.openings if o.instrument == instrument), Decimal(0)))
    if not opened:
        return out
    states = table.tracks["dynamic"].states
    for stage in _stages(run, table, instrument):
        item = run.universe.get(stage.instrument)
        rows = slice(stage.start, stage.stop)
        held = np.array([float(s.quantities.get(stage.instrument, 0)) for s in states[rows]])
        there = np.clip(held / (opened * stage.ratio), 0.0, 1.0)
        values = np.zeros(len(held))
        if there.any():
            values = _value(item, float(quantity) * stage.ratio, table.prices[stage.instrument][rows])
        rate = run.loop.convert(settlement_currency(item))
        out[rows] = np.where(there > 0.0, values * there, 0.0) * (
            np.nan if rate is None and there.any() else float(rate or 1)
        )
    return out


def _value(item: Instrument, quantity: float, prices: Floats) -> Floats:
    value = float_value(item, quantity, prices)
    return value - value[0] if isinstance(item, Future | Perpetual) else value


def _stages(run: Run, table: Table, instrument: str) -> Iterator[_Stage]:
    """What the position was from sample to sample, as corporate events turned it into other things."""
    start, ratio, n = 0, 1.0, len(table.instants)
    for event in run.loop.applied:
        change = _change(event, instrument)
        if change is None:
            continue
        stop = max(int(np.searchsorted(table.instants, event.ts_recv, side="left")), start)
        while stop < n and table.instants[stop] == event.ts_recv and _is_before(table, stop):
            stop += 1  # the sample just before the event stands at the same instant
        yield _Stage(start, stop, instrument, ratio)
        instrument, ratio, start = change[0], ratio * change[1], stop
    yield _Stage(start, n, instrument, ratio)


def _is_before(table: Table, sample: int) -> bool:
    """True for the first of two samples at one instant that lie on either side of a break."""
    return any(item.sample == sample + 1 for item in table.breaks)


def _change(event: Corporate, instrument: str) -> tuple[str, float] | None:
    for conversion in event.conversions:
        if conversion.old == instrument:
            return conversion.new, float(conversion.ratio)
    if event.what == "split" and event.instrument == instrument:
        return instrument, float(event.ratio)
    return None


def _number(value: np.float64) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
