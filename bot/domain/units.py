"""A unit is part of a quantity's name: nanoseconds, years, volatilities and rates, and the one conversion between them.

Law: time is an integer count of nanoseconds since the Unix epoch, UTC; a year is 365 days (ACT/365 fixed).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final, TypeAlias

Nanos: TypeAlias = int
"""Nanoseconds since 1970-01-01T00:00:00Z, or a length of time in nanoseconds."""

Years: TypeAlias = float
"""A length of time in years of 365 days."""

Vol: TypeAlias = float
"""A volatility per square root of a year, 0.20 for twenty per cent."""

Rate: TypeAlias = float
"""A continuously compounded rate per year."""

NS_PER_SECOND: Final = 1_000_000_000
NS_PER_MINUTE: Final = 60 * NS_PER_SECOND
NS_PER_DAY: Final = 86_400 * NS_PER_SECOND
NS_PER_YEAR: Final = 365 * NS_PER_DAY
DAYS_PER_YEAR: Final = 365.0

NEVER: Final[Nanos] = -(1 << 62)
"""The instant of what has not happened, to be compared with `==` only: instants before 1970 are below zero and real. It lies
in 1823, before any price, and its distance to any instant before 2116 fits 64 bits."""

FOREVER: Final[Nanos] = 2**63 - 1
"""The instant that does not come."""

CENT: Final = Decimal("0.01")

_INSTANT = re.compile(r"^(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?(Z|[+-]\d{2}:?\d{2})$")
_SPAN = re.compile(r"^(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|min|h|d)$")
_SPAN_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_SECOND,
    "m": NS_PER_MINUTE,
    "min": NS_PER_MINUTE,
    "h": 60 * NS_PER_MINUTE,
    "d": NS_PER_DAY,
}


def years_between(start: Nanos, end: Nanos) -> Years:
    """The ACT/365 year fraction from `start` to `end`; negative when `end` is earlier.

    >>> years_between(0, 365 * 86_400_000_000_000)
    1.0
    """
    return (end - start) / NS_PER_YEAR


def parse_instant(text: str) -> Nanos:
    """The instant an ISO 8601 text with an explicit zone names; ValueError when the zone or the form is missing.

    >>> parse_instant("1970-01-01T00:00:01.5Z")
    1500000000
    """
    found = _INSTANT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"expected an instant with its zone, such as 2020-01-06T21:00:00Z, found {text!r}")
    day, clock, fraction, zone = found.groups()
    if len(clock) == 5:
        clock += ":00"
    zone = "+00:00" if zone == "Z" else zone
    whole = datetime.fromisoformat(f"{day}T{clock}{zone}")
    return nanos(whole) + int((fraction or "0").ljust(9, "0"))


def nanos(moment: datetime) -> Nanos:
    """The exact nanosecond count of an aware datetime."""
    if moment.tzinfo is None:
        raise ValueError(f"expected a datetime with a zone, found {moment!r}")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * NS_PER_SECOND + since.microseconds * 1_000


def iso(ts: Nanos) -> str:
    """The instant as ISO 8601 in UTC, with as many fraction digits as it needs (0, 3, 6 or 9).

    >>> iso(1500000000)
    '1970-01-01T00:00:01.500Z'
    """
    seconds, fraction = divmod(ts, NS_PER_SECOND)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if not fraction:
        return text + "Z"
    digits = f"{fraction:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"


def utc_date(ts: Nanos) -> date:
    """The UTC calendar date of an instant."""
    return datetime.fromtimestamp(ts // NS_PER_SECOND, UTC).date()


def parse_span(text: str) -> Nanos:
    """The length of time a text such as `15m`, `250ms` or `1.5h` names, in nanoseconds.

    >>> parse_span("1.5h") // NS_PER_MINUTE
    90
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"expected a length of time such as 250ms, 60s, 15m, 1h or 1d, found {text!r}")
    return int(Decimal(found[1]) * _SPAN_NS[found[2]])


def span(length: Nanos) -> str:
    """A length of time as a short text, the inverse of `parse_span` for round lengths."""
    for name in ("d", "h", "m", "s", "ms", "us"):
        if length and length % _SPAN_NS[name] == 0:
            return f"{length // _SPAN_NS[name]}{name}"
    return f"{length}ns"


def decimal_of(value: float) -> Decimal:
    """The shortest decimal that names this float: what the file said, not its binary neighbour.

    >>> decimal_of(0.1)
    Decimal('0.1')
    """
    return Decimal(repr(value))
