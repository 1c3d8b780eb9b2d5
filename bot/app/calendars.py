"""A named calendar is a market's sessions as a table: "XNYS", "XCBO", "CME-EQUITY", "CME-GLOBEX" and "24/7".

Law: what a name answers for an instant does not depend on the range asked for; trading years alone average over the
calendar years asked. Sources: the `exchange_calendars` library for the days, venue notices for finer hours.

- XNYS: US shares and equity options, 09:30 to 16:00 New York, early closes at 13:00 (the library's, unchanged).
- XCBO: Cboe index options and the index they settle to: XNYS and 15 minutes more (16:15, or 13:15 on early closes).
  The library's own XCBF knows the Friday after Thanksgiving only and misses 24 December and 3 July. Contracts expiring
  at the close stop at 16:00; that instant is the contract's, not the calendar's. Overnight (GTH) sessions are left out.
- CME-EQUITY: Globex equity-index futures and their options; a trade date opens at 17:00 Chicago the evening before. The
  library's CMES runs 18:00 to 18:00 New York without a break; here, in Chicago time:
    from 2015-09-21  17:00 to 16:00             (CME notice: close moved from 16:15)
    from 2012-11-19  17:00 to 16:15             (CME notice: close moved from 15:15)
    before           15:30 to 15:15, halted 16:30 to 17:00; after a day without trading 17:00 to 15:15
  with a halt from 15:15 to 15:30 until 2021-06-25. Stock exchange early: 12:15. Stock exchange shut: 12:00 (10:30
  before May 2014), and 08:15 on Good Fridays with an employment report. Pits before 1997 are not modelled.
- CME-GLOBEX: other CME, NYMEX and COMEX futures, the same evening open and 16:00 (16:15) close without the halt,
  holidays as the library's CMES (12:00). Products that stop earlier, grains above all, are not modelled.
- 24/7: always open; a session is a UTC day.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import ConfigError
from bot.domain.calendar import Sessions, always_open, sessions
from bot.domain.units import NS_PER_MINUTE, Nanos, nanos

NEW_YORK: Final = ZoneInfo("America/New_York")
CHICAGO: Final = ZoneInfo("America/Chicago")
EARLIEST: Final = date(1990, 1, 1)
LATEST: Final = date(2150, 12, 31)

_EPOCH: Final = date(1970, 1, 1)
_ROOM: Final = timedelta(days=14)
_LATE_CLOSE: Final = date(2012, 11, 19)
_FOUR_O_CLOCK: Final = date(2015, 9, 21)
_NO_HALT: Final = date(2021, 6, 28)
_NOON_HOLIDAYS: Final = date(2014, 5, 1)
_REPORT_FRIDAYS: Final = frozenset(
    date.fromisoformat(day)
    for day in ("2010-04-02", "2012-04-06", "2015-04-03", "2021-04-02", "2023-04-07", "2026-04-03")
)
# The stock exchange shut without a holiday: equity-index futures did not trade (2012-10-29 stopped at 08:15 Chicago).
_SHUT: Final = frozenset(
    date.fromisoformat(day)
    for day in ("2001-09-11", "2001-09-12", "2001-09-13", "2001-09-14", "2012-10-29", "2012-10-30")
)


class Calendars(Protocol):
    """Something that answers a calendar's name and a range of dates with its sessions."""

    def __call__(self, calendar: str, start: date, end: date) -> Sessions: ...


def named(calendar: str, start: date, end: date) -> Sessions:
    """The sessions of a calendar, in whole years around `start` to `end`; ConfigError for an unknown name."""
    if calendar == "24/7":
        return always_open()
    if calendar not in _BUILDERS:
        raise ConfigError(f"calendar: expected one of {', '.join(NAMES)}, found {calendar!r}")
    if start > end:
        raise ConfigError(f"calendar {calendar}: expected a start not after its end, found {start} to {end}")
    if start < EARLIEST or end > LATEST:
        raise ConfigError(f"calendar {calendar}: expected dates from {EARLIEST} to {LATEST}, found {start} to {end}")
    # Two weeks of room on both sides: the close before a New Year and the opening after one can be asked for.
    return _of_years(calendar, max(EARLIEST, start - _ROOM).year, (end + _ROOM).year)


@lru_cache(maxsize=64)
def _of_years(calendar: str, first_year: int, last_year: int) -> Sessions:
    return _BUILDERS[calendar](date(first_year, 1, 1), date(last_year, 12, 31))


class _Row:
    """One library session: its date, open and close."""

    __slots__ = ("close", "day", "open")

    def __init__(self, day: date, opens: Nanos, closes: Nanos) -> None:
        self.day = day
        self.open = opens
        self.close = closes


def _library_rows(name: str, first: date, last: date) -> list[_Row]:
    import exchange_calendars  # noqa: PLC0415 - a third of a second, and pandas: only when a real calendar is asked for

    table: Any = exchange_calendars.get_calendar(name, start=str(first), end=str(last)).schedule
    days = table.index.values.astype("datetime64[D]").astype(np.int64)
    opens = table["open"].dt.tz_convert(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    closes = table["close"].dt.tz_convert(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return [_Row(_EPOCH + timedelta(days=int(d)), int(o), int(c)) for d, o, c in zip(days, opens, closes, strict=True)]


def _table(name: str, first: date, last: date, rows: list[_Row], early: set[date], halts: list[Nanos]) -> Sessions:
    return sessions(
        name,
        first=first,
        last=last,
        dates=_column([(row.day - _EPOCH).days for row in rows]),
        opens=_column([row.open for row in rows]),
        closes=_column([row.close for row in rows]),
        early=np.array([row.day in early for row in rows], dtype=np.bool_),
        halts=_column(halts).reshape(-1, 2),
    )


def _column(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _early_days(rows: list[_Row]) -> set[date]:
    return {row.day for row in rows if row.close < at(row.day, time(16), NEW_YORK)}


def _new_york_stock(first: date, last: date) -> Sessions:
    rows = _library_rows("XNYS", first, last)
    return _table("XNYS", first, last, rows, _early_days(rows), [])


def _cboe_index(first: date, last: date) -> Sessions:
    rows = _library_rows("XNYS", first, last)
    early = _early_days(rows)
    longer = [_Row(row.day, row.open, row.close + 15 * NS_PER_MINUTE) for row in rows]
    return _table("XCBO", first, last, longer, early, [])


def _cme_equity(first: date, last: date) -> Sessions:
    stock_rows = _library_rows("XNYS", first - timedelta(days=7), last)
    stock = {row.day for row in stock_rows}
    stock_early = _early_days(stock_rows)
    globex = {row.day for row in _library_rows("CMES", first - timedelta(days=7), last)}
    days = sorted((globex | stock | {day for day in _REPORT_FRIDAYS if first <= day <= last}) - _SHUT)
    rows: list[_Row] = []
    early: set[date] = set()
    halts: list[Nanos] = []
    for before, day in pairwise(days):
        if day < first:
            continue
        regular = _regular_close(day)
        closes = at(day, _equity_close(day, stock, stock_early), CHICAGO)
        if closes < at(day, regular, CHICAGO):
            early.add(day)
        opens = at(day - timedelta(days=1), time(17), CHICAGO)
        through_evening = day < _LATE_CLOSE and before == day - timedelta(days=1) and before not in early
        if through_evening:
            opens = at(before, time(15, 30), CHICAGO)
            halts += [at(before, time(16, 30), CHICAGO), at(before, time(17), CHICAGO)]
        rows.append(_Row(day, opens, closes))
        if _LATE_CLOSE <= day < _NO_HALT and day not in early:
            halts += [at(day, time(15, 15), CHICAGO), at(day, time(15, 30), CHICAGO)]
    return _table("CME-EQUITY", first, last, rows, early, halts)


def _regular_close(day: date) -> time:
    if day >= _FOUR_O_CLOCK:
        return time(16)
    return time(16, 15) if day >= _LATE_CLOSE else time(15, 15)


def _equity_close(day: date, stock: set[date], stock_early: set[date]) -> time:
    if day in stock_early:
        return time(12, 15)
    if day in stock:
        return _regular_close(day)
    if day in _REPORT_FRIDAYS:
        return time(8, 15)
    return time(12) if day >= _NOON_HOLIDAYS else time(10, 30)


def _cme_globex(first: date, last: date) -> Sessions:
    rows: list[_Row] = []
    early: set[date] = set()
    for row in _library_rows("CMES", first, last):
        regular = at(row.day, time(16) if row.day >= _FOUR_O_CLOCK else time(16, 15), CHICAGO)
        closes = min(row.close, regular)
        if closes < regular:
            early.add(row.day)
        rows.append(_Row(row.day, at(row.day - timedelta(days=1), time(17), CHICAGO), closes))
    return _table("CME-GLOBEX", first, last, rows, early, [])


def at(day: date, clock: time, zone: ZoneInfo) -> Nanos:
    """The instant of a local wall clock on a day."""
    return nanos(datetime.combine(day, clock, zone))


_BUILDERS: Final[dict[str, Callable[[date, date], Sessions]]] = {
    "XNYS": _new_york_stock,
    "XCBO": _cboe_index,
    "CME-EQUITY": _cme_equity,
    "CME-GLOBEX": _cme_globex,
}
NAMES: Final = (*_BUILDERS, "24/7")
