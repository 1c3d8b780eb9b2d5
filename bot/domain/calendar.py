"""A calendar is a frozen table of sessions: UTC opens and closes, the halts inside them, the trading time of both.

Law: sessions are half-open `[open, close)`, sorted, never overlap, and carry the local trade date they belong to; halts
lie inside sessions and never overlap. A question outside the covered dates is refused, never extrapolated.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.units import FOREVER, NEVER, NS_PER_DAY, NS_PER_YEAR, Nanos, Years, iso

_EPOCH: Final = date(1970, 1, 1)
_ALWAYS_FROM: Final = date(1900, 1, 1)
_ALWAYS_UNTIL: Final = date(2192, 1, 1)  # 292 years: so many nanoseconds of trading an int64 counts


class Pause(NamedTuple):
    """A stretch without trading, `[start, end)`: from a close to the next open, or a halt. `end` FOREVER: not known."""

    start: Nanos
    end: Nanos
    halt: bool


class Sessions(msgspec.Struct, frozen=True, gc=False, eq=False, kw_only=True):
    """The sessions of one market. Build with `sessions`, which sorts nothing and checks everything.

    Shape: dates, opens, closes, early (n,); halts (m, 2). dates int64 days since 1970-01-01 (the trade date), opens,
    closes and halts int64 ns UTC, early bool. `first` and `last` are the dates covered, sessions or not.
    """

    name: str
    first: date
    last: date
    dates: NDArray[np.int64]
    opens: NDArray[np.int64]
    closes: NDArray[np.int64]
    early: NDArray[np.bool_]
    halts: NDArray[np.int64]
    trading_ns_per_year: float
    _open_time: NDArray[np.int64]
    _halt_time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.dates)

    # ------------------------------------------------------------------ asked by instant

    def is_open(self, ts: Nanos, *, through_close: bool = False) -> bool:
        """True while the market trades at this instant: open <= ts < close and no halt.

        `through_close` also counts the closing instant itself, where a closing trade or a bar's end falls.
        """
        row = self._row_at(ts)
        if row < 0:
            return False
        if ts >= self.closes[row]:
            return through_close and ts == int(self.closes[row])
        return not self._halted(ts)

    def next_open(self, ts: Nanos) -> Nanos:
        """The first instant at or after `ts` at which the market trades: `ts` itself while open, the end of a halt."""
        row = self._row_at(ts)
        if row >= 0 and ts < self.closes[row]:
            halt = self._halt_at(ts)
            if halt < 0:
                return ts
            ends = int(self.halts[halt, 1])
            if ends < self.closes[row]:
                return ends
        if row + 1 >= len(self.opens):
            raise ValueError(f"calendar {self.name}: no session after {iso(ts)}, it ends with {self.last}")
        return int(self.opens[row + 1])

    def next_close(self, ts: Nanos) -> Nanos:
        """The first session close strictly after `ts`; halts do not count."""
        self._check_instant(ts)
        row = int(np.searchsorted(self.closes, ts, side="right"))
        if row >= len(self.closes):
            raise ValueError(f"calendar {self.name}: no close after {iso(ts)}, it ends with {self.last}")
        return int(self.closes[row])

    def pause_at(self, ts: Nanos) -> Pause:
        """The stretch without trading that is on at `ts`, or else the next one; its end is FOREVER past the last session."""
        row = self._row_at(ts)
        if row >= 0 and ts < self.closes[row]:
            halt = int(np.searchsorted(self.halts[:, 1], ts, side="right"))
            if halt < len(self.halts) and self.halts[halt, 0] < self.closes[row]:
                return Pause(int(self.halts[halt, 0]), int(self.halts[halt, 1]), halt=True)
        if row < 0:
            return Pause(NEVER, int(self.opens[0]) if len(self.opens) else FOREVER, halt=False)
        gaps = self.closes[row:-1] < self.opens[row + 1 :]  # a session may begin as the one before it ends: no pause
        row += int(np.argmax(gaps)) if gaps.any() else len(gaps)
        return Pause(int(self.closes[row]), int(self.opens[row + 1]) if gaps.any() else FOREVER, halt=False)

    def date_at(self, ts: Nanos) -> date | None:
        """The trade date of the session in which an instant falls, its halts included; None between sessions."""
        row = self._row_at(ts)
        if row < 0 or ts >= self.closes[row]:
            return None
        return _date_of(int(self.dates[row]))

    # ------------------------------------------------------------------ asked by trade date

    def is_session(self, day: date) -> bool:
        """True when the market trades on this trade date."""
        return self._find(day) >= 0

    def is_early_close(self, day: date) -> bool:
        """True when the session of this date closes before its regular time; False on days without a session."""
        row = self._find(day)
        return row >= 0 and bool(self.early[row])

    def open_of(self, day: date) -> Nanos:
        """The instant the session of a trade date opens."""
        return int(self.opens[self._session(day)])

    def close_of(self, day: date) -> Nanos:
        """The instant the session of a trade date closes."""
        return int(self.closes[self._session(day)])

    def on_or_before(self, day: date) -> date:
        """The last trade date not after `day`."""
        self._check_date(day)
        row = int(np.searchsorted(self.dates, _days(day), side="right")) - 1
        if row < 0:
            raise ValueError(f"calendar {self.name}: no session on or before {day}, it begins with {self.first}")
        return _date_of(int(self.dates[row]))

    def before(self, day: date) -> date:
        """The last trade date strictly before `day`."""
        return self.on_or_before(day - timedelta(days=1))

    def on_or_after(self, day: date) -> date:
        """The first trade date not before `day`."""
        self._check_date(day)
        row = int(np.searchsorted(self.dates, _days(day), side="left"))
        if row >= len(self.dates):
            raise ValueError(f"calendar {self.name}: no session on or after {day}, it ends with {self.last}")
        return _date_of(int(self.dates[row]))

    def between(self, first: date, last: date) -> list[date]:
        """The trade dates from `first` to `last`, both included."""
        self._check_date(first)
        self._check_date(last)
        lo, hi = np.searchsorted(self.dates, (_days(first), _days(last) + 1))
        return [_date_of(int(day)) for day in self.dates[lo:hi]]

    # ------------------------------------------------------------------ trading time

    def trading_time(self, start: Nanos, end: Nanos) -> Nanos:
        """Nanoseconds of trading from `start` to `end`, halts left out; negative when `end` is earlier."""
        return self._traded_until(end) - self._traded_until(start)

    def trading_years(self, start: Nanos, end: Nanos) -> Years:
        """Trading time from `start` to `end` over the average trading time of a 365-day year of this table.

        Over the whole table it therefore equals the ACT/365 year fraction.
        """
        return self.trading_time(start, end) / self.trading_ns_per_year

    # ------------------------------------------------------------------ look-ups

    def _row_at(self, ts: Nanos) -> int:
        self._check_instant(ts)
        return int(np.searchsorted(self.opens, ts, side="right")) - 1

    def _halt_at(self, ts: Nanos) -> int:
        row = int(np.searchsorted(self.halts[:, 0], ts, side="right")) - 1
        return row if row >= 0 and ts < self.halts[row, 1] else -1

    def _halted(self, ts: Nanos) -> bool:
        return self._halt_at(ts) >= 0

    def _traded_until(self, ts: Nanos) -> Nanos:
        self._check_instant(ts)
        opened = _elapsed(self.opens, self.closes, self._open_time, ts)
        return opened - _elapsed(self.halts[:, 0], self.halts[:, 1], self._halt_time, ts)

    def _find(self, day: date) -> int:
        self._check_date(day)
        row = int(np.searchsorted(self.dates, _days(day)))
        return row if row < len(self.dates) and int(self.dates[row]) == _days(day) else -1

    def _session(self, day: date) -> int:
        row = self._find(day)
        if row < 0:
            raise ValueError(f"calendar {self.name}: expected a trade date, found {day} ({day:%A}) without a session")
        return row

    def _check_date(self, day: date) -> None:
        if not self.first <= day <= self.last:
            raise ValueError(f"calendar {self.name}: covers {self.first} to {self.last}, asked for {day}")

    def _check_instant(self, ts: Nanos) -> None:
        # A session may open the evening before its date and a zone may lie a day off UTC, hence one day of grace.
        if not _midnight(self.first) - NS_PER_DAY <= ts < _midnight(self.last) + 2 * NS_PER_DAY:
            raise ValueError(f"calendar {self.name}: covers {self.first} to {self.last}, asked for {iso(ts)}")


def sessions(
    name: str,
    *,
    first: date,
    last: date,
    dates: NDArray[np.int64],
    opens: NDArray[np.int64],
    closes: NDArray[np.int64],
    early: NDArray[np.bool_] | None = None,
    halts: NDArray[np.int64] | None = None,
) -> Sessions:
    """The checked, read-only table of sessions; ValueError naming the first row that breaks the law.

    Shape: dates, opens, closes, early (n,); halts (m, 2). dates in days since 1970-01-01, the others in ns UTC.
    """
    dates, opens, closes = (np.array(column, dtype=np.int64) for column in (dates, opens, closes))
    flags = np.zeros(len(dates), dtype=np.bool_) if early is None else np.array(early, dtype=np.bool_)
    gaps = np.empty((0, 2), dtype=np.int64) if halts is None else np.array(halts, dtype=np.int64).reshape(-1, 2)
    if not len(dates) == len(opens) == len(closes) == len(flags):
        raise ValueError(f"calendar {name}: expected columns of one length")
    if not len(dates):
        raise ValueError(f"calendar {name}: expected at least one session from {first} to {last}")
    _check_rows(name, dates, opens, closes)
    _check_halts(name, opens, closes, gaps)
    if not (_days(first) <= dates[0] and dates[-1] <= _days(last)):
        raise ValueError(f"calendar {name}: expected sessions from {first} to {last} only")
    open_time = np.cumsum(closes - opens)
    halt_time = np.cumsum(gaps[:, 1] - gaps[:, 0])
    traded = int(open_time[-1]) - (int(halt_time[-1]) if len(gaps) else 0)
    if traded <= 0:
        raise ValueError(f"calendar {name}: expected some trading time, found halts only")
    covered = ((last - first).days + 1) * NS_PER_DAY
    for column in (dates, opens, closes, flags, gaps, open_time, halt_time):
        column.flags.writeable = False
    return Sessions(
        name=name,
        first=first,
        last=last,
        dates=dates,
        opens=opens,
        closes=closes,
        early=flags,
        halts=gaps,
        trading_ns_per_year=traded / covered * NS_PER_YEAR,
        _open_time=open_time,
        _halt_time=halt_time,
    )


@lru_cache(maxsize=1)
def always_open() -> Sessions:
    """The calendar "24/7": open from 1900 to 2191; a session is a UTC day and trading years are ACT/365."""
    days = np.arange(_days(_ALWAYS_FROM), _days(_ALWAYS_UNTIL), dtype=np.int64)
    return sessions(
        "24/7",
        first=_ALWAYS_FROM,
        last=_ALWAYS_UNTIL - timedelta(days=1),
        dates=days,
        opens=days * NS_PER_DAY,
        closes=(days + 1) * NS_PER_DAY,
    )


def _check_rows(name: str, dates: NDArray[np.int64], opens: NDArray[np.int64], closes: NDArray[np.int64]) -> None:
    wrong = np.flatnonzero(opens >= closes)
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"calendar {name}: {_date_of(int(dates[row]))}: expected the open before the close")
    wrong = np.flatnonzero((np.diff(dates) <= 0) | (opens[1:] < closes[:-1]))
    if len(wrong):
        row = int(wrong[0]) + 1
        raise ValueError(f"calendar {name}: {_date_of(int(dates[row]))}: expected to follow the session before it")


def _check_halts(name: str, opens: NDArray[np.int64], closes: NDArray[np.int64], halts: NDArray[np.int64]) -> None:
    if not len(halts):
        return
    row = np.searchsorted(opens, halts[:, 0], side="right") - 1
    inside = (row >= 0) & (halts[:, 0] < halts[:, 1]) & (halts[:, 1] <= closes[row])
    inside[1:] &= halts[1:, 0] >= halts[:-1, 1]
    if not inside.all():
        where = int(np.flatnonzero(~inside)[0])
        raise ValueError(f"calendar {name}: halt at {iso(int(halts[where, 0]))}: expected inside one session, in order")


def _elapsed(starts: NDArray[np.int64], ends: NDArray[np.int64], total: NDArray[np.int64], ts: Nanos) -> Nanos:
    row = int(np.searchsorted(starts, ts, side="right")) - 1
    if row < 0:
        return 0
    unspent = int(ends[row]) - min(ts, int(ends[row]))
    return int(total[row]) - unspent


def _days(day: date) -> int:
    return (day - _EPOCH).days


def _midnight(day: date) -> Nanos:
    return _days(day) * NS_PER_DAY


def _date_of(days: int) -> date:
    return _EPOCH + timedelta(days=days)
