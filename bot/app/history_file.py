"""A history file supplies past prices of underlyings as bars; law: a row is known from its end on, every bad row is named.

Columns: `ts` (instant with zone: the bar's end) or `date` (known from the next UTC midnight), `close`, and, all three or none,
`open`, `high`, `low`; `instrument` where the file speaks of several.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from bot.app.contracts import resolve_instrument
from bot.core.errors import BookError, DataError
from bot.domain.units import NS_PER_DAY, Nanos, parse_instant
from bot.engine.vol_sources import Bar

PRICES = ("open", "high", "low", "close")
_EPOCH = date(1970, 1, 1)


def read_history(path: Path, underlyings: Sequence[str]) -> Mapping[str, Sequence[Bar]]:
    """The bars of each underlying, in order of time; DataError naming every bad row with its line.

    A file without an `instrument` column is of the one underlying there is.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"{path.name}: cannot be read: {fault}") from fault
    reader = csv.DictReader(text.splitlines())
    _check_columns(path, reader.fieldnames or (), underlyings)
    found: dict[str, list[Bar]] = {key: [] for key in underlyings}
    faults: list[str] = []
    for number, row in enumerate(reader, start=2):
        try:
            key = _instrument(row, underlyings)
            if key in found:
                found[key].append(_bar(row))
        except (ValueError, BookError) as fault:
            faults.append(f"{path.name}: line {number}: {fault}")
    for key, bars in found.items():
        bars.sort()
        ends = [bar.ts for bar in bars]
        if len(set(ends)) < len(ends):
            faults.append(f"{path.name}: {key}: expected one row for each instant, found two of one")
    if faults:
        raise DataError("\n".join(faults))
    return found


def _check_columns(path: Path, names: Sequence[str], underlyings: Sequence[str]) -> None:
    where = f"{path.name}: line 1"
    if ("ts" in names) == ("date" in names):
        raise DataError(f"{where}: expected one of the columns ts and date, found {', '.join(names) or 'nothing'}")
    if "close" not in names:
        raise DataError(f"{where}: expected a column close, found {', '.join(names)}")
    given = [name for name in PRICES[:3] if name in names]
    if len(given) not in {0, 3}:
        raise DataError(f"{where}: expected all of open, high, low or none, found {', '.join(given)}")
    if "instrument" not in names and len(underlyings) != 1:
        raise DataError(f"{where}: expected a column instrument, since the book has {len(underlyings)} underlyings")


def _instrument(row: Mapping[str, str | None], underlyings: Sequence[str]) -> str:
    if "instrument" not in row:
        return underlyings[0]
    text = row["instrument"] or ""
    return text if text in underlyings else resolve_instrument(text).id


def _bar(row: Mapping[str, str | None]) -> Bar:
    close = _price(row, "close")
    if "open" not in row:
        return Bar(_end(row), close, close, close, close)
    opened, high, low = (_price(row, name) for name in PRICES[:3])
    if not low <= min(opened, close) <= max(opened, close) <= high:
        raise ValueError(f"expected low <= open, close <= high, found {low:g}, {opened:g}, {close:g}, {high:g}")
    return Bar(_end(row), opened, high, low, close)


def _end(row: Mapping[str, str | None]) -> Nanos:
    if row.get("ts"):
        return parse_instant(row["ts"] or "")
    try:
        day = date.fromisoformat((row.get("date") or "").strip())
    except ValueError:
        raise ValueError(f"date: expected a date such as 2015-11-05, found {row.get('date')!r}") from None
    return ((day - _EPOCH).days + 1) * NS_PER_DAY


def _price(row: Mapping[str, str | None], name: str) -> float:
    try:
        value = float(row.get(name) or "")
    except ValueError:
        raise ValueError(f"{name}: expected a price, found {row.get(name)!r}") from None
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name}: expected a price above 0, found {row.get(name)!r}")
    return value
