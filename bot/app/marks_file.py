"""A marks file supplies vols by contract and instant; law: one row, one mark, every bad row named with its line."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from bot.core.errors import DataError
from bot.domain.instruments import occ_id, parse_occ
from bot.domain.units import parse_instant
from bot.engine.valuation import VolMark

COLUMNS = ("ts", "instrument", "vol")


def read_vol_marks(path: Path) -> tuple[VolMark, ...]:
    """The marks of a CSV with columns ts (ISO instant with zone), instrument (OCC symbol) and vol (per 1.00)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as fault:
        raise DataError(f"{path.name}: cannot be read: {fault.strerror}") from fault
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path.name}: line 1: expected columns {', '.join(COLUMNS)}, missing {', '.join(missing)}")
    faults: list[str] = []
    marks: list[VolMark] = []
    for number, row in enumerate(reader, start=2):
        try:
            marks.append(_mark(row))
        except ValueError as fault:
            faults.append(f"{path.name}: line {number}: {fault}")
    if faults:
        raise DataError("\n".join(faults))
    return tuple(marks)


def _mark(row: dict[str, str]) -> VolMark:
    vol = float(row["vol"])
    if not (math.isfinite(vol) and 0.0 < vol < 100.0):
        raise ValueError(f"vol: expected a number between 0 and 100, found {row['vol']!r}")
    symbol = parse_occ(row["instrument"])
    return VolMark(
        ts=parse_instant(row["ts"]),
        instrument=occ_id(symbol.root, symbol.expiration, symbol.cp, symbol.strike),
        vol=vol,
    )
