"""Market hours say on which days a market was open; law: the recording's own database says so,
and without it only weekends are known.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from bot.core.errors import DataError

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class _Entry(msgspec.Struct):
    holidays: list[str] = []
    early_closes: dict[str, str] = msgspec.field(name="earlyCloses", default_factory=dict)
    monday: list[Any] = []
    tuesday: list[Any] = []
    wednesday: list[Any] = []
    thursday: list[Any] = []
    friday: list[Any] = []
    saturday: list[Any] = []
    sunday: list[Any] = []


class _Database(msgspec.Struct):
    entries: dict[str, msgspec.Raw]


class MarketHours:
    """Closed days and early closes of LEAN's market-hours database; without the file, weekends only."""

    def __init__(self, entries: dict[str, msgspec.Raw] | None = None) -> None:
        self._entries = entries or {}
        self._read: dict[str, _Entry | None] = {}

    @classmethod
    def of_root(cls, root: Path) -> MarketHours:
        """The hours in the Data folder, DataError when the file is there and damaged."""
        path = root / "market-hours" / "market-hours-database.json"
        if not path.is_file():
            return cls()
        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=_Database).entries)
        except (OSError, msgspec.DecodeError) as fault:
            raise DataError(f"{path}: expected a market-hours database, found {fault}") from fault

    def is_closed(self, kind: str, market: str, ticker: str, day: date) -> bool:
        """True when nothing trades on the day: a weekend or, for shares, indices and options on them, a holiday."""
        entry = self._entry(kind, market, ticker)
        if market == "usa":
            return day.weekday() >= 5 or (entry is not None and _slashed(day) in entry.holidays)
        if entry is None:
            return day.weekday() == 5
        return not getattr(entry, _WEEKDAYS[day.weekday()])

    def is_holiday(self, kind: str, market: str, ticker: str, day: date) -> bool:
        """True when the database lists the day as a holiday, be it with short hours."""
        entry = self._entry(kind, market, ticker)
        return entry is not None and _slashed(day) in entry.holidays

    def early_close(self, kind: str, market: str, ticker: str, day: date) -> str | None:
        """The wall-clock time of an early close, None on a full day."""
        entry = self._entry(kind, market, ticker)
        return None if entry is None else entry.early_closes.get(_slashed(day))

    def _entry(self, kind: str, market: str, ticker: str) -> _Entry | None:
        # Options and indices list no holidays of their own: they keep the stock market's days.
        keys = ("Equity-usa-[*]",) if market == "usa" else (f"Future-{market}-{ticker.upper()}", f"Future-{market}-[*]")
        for key in keys:
            if key not in self._read and key in self._entries:
                try:
                    self._read[key] = msgspec.json.decode(self._entries[key], type=_Entry)
                except msgspec.DecodeError as fault:
                    raise DataError(f"market-hours-database.json: {key}: {fault}") from fault
            if self._read.get(key) is not None:
                return self._read[key]
        return None


def _slashed(day: date) -> str:
    return f"{day.month}/{day.day}/{day.year}"
