"""A zone turns a wall clock into an instant; law: daylight saving is the zone's own, never an offset written down."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from bot.domain.units import NS_PER_DAY, Nanos, nanos

NEW_YORK = ZoneInfo("America/New_York")
CHICAGO = ZoneInfo("America/Chicago")
UTC_ZONE = ZoneInfo("UTC")
NS_PER_HOUR = 3_600_000_000_000
_EPOCH = date(1970, 1, 1)


def day_start(day: date, zone: ZoneInfo) -> Nanos:
    """The instant a calendar day begins in a zone."""
    return nanos(datetime.combine(day, time(0), zone))


def at_clock(day: date, clock: time, zone: ZoneInfo) -> Nanos:
    """The instant a wall clock shows a time on a day."""
    return nanos(datetime.combine(day, clock, zone))


def wall_start(day: date) -> int:
    """The nanoseconds from 1970-01-01 to a day on a wall clock, no zone applied."""
    return (day - _EPOCH).days * NS_PER_DAY


def utc_of_wall(wall: NDArray[np.int64], zone: ZoneInfo) -> NDArray[np.int64]:
    """Instants of wall-clock times (nanoseconds since 1970-01-01 00:00 on the wall). Shape: (n,) -> (n,).

    The offset is looked up once per wall-clock hour: zones change on the hour. Of an hour shown twice the first
    is meant.
    """
    hours = wall // NS_PER_HOUR
    found, inverse = np.unique(hours, return_inverse=True)
    offsets = np.array([_offset(int(hour), zone) for hour in found], np.int64)
    return wall - offsets[inverse] if len(found) else wall


def _offset(hour: int, zone: ZoneInfo) -> int:
    moment = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None) + timedelta(hours=hour)
    offset = moment.replace(tzinfo=zone).utcoffset()
    return 0 if offset is None else (offset.days * 86_400 + offset.seconds) * 1_000_000_000
