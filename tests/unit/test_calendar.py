"""Sessions: who is open when, and how much trading time lies between two instants."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from bot.app.calendars import NAMES, named
from bot.core.errors import ConfigError
from bot.domain.calendar import Sessions, always_open, sessions
from bot.domain.units import NS_PER_DAY, NS_PER_YEAR, iso, parse_instant, years_between

HOUR = NS_PER_DAY // 24


def two_days() -> Sessions:
    """1970-01-02 open 10 to 16 with a halt 12 to 13, 1970-01-03 open 10 to 13."""
    return sessions(
        "TEST",
        first=date(1970, 1, 1),
        last=date(1970, 1, 4),
        dates=np.array([1, 2]),
        opens=np.array([34, 58]) * HOUR,
        closes=np.array([40, 61]) * HOUR,
        early=np.array([False, True]),
        halts=np.array([[36, 37]]) * HOUR,
    )


@pytest.mark.parametrize(
    ("hour", "expected"), [(33.9, False), (34, True), (36, False), (36.5, False), (37, True), (40, False), (58, True)]
)
def test_open_is_half_open_and_halts_are_closed(hour: float, expected: bool) -> None:
    """A session holds its open and not its close, and a halt is closed from its start to its end."""
    assert two_days().is_open(int(hour * HOUR)) is expected


def test_the_close_counts_when_asked() -> None:
    """The closing instant itself is open for a closing trade and one nanosecond later is not."""
    table = two_days()
    assert table.is_open(40 * HOUR, through_close=True)
    assert not table.is_open(40 * HOUR + 1, through_close=True)


def test_next_open_is_now_the_end_of_a_halt_or_the_next_session() -> None:
    """The next open is the present while open, the halt's end while halted, else the next session's open."""
    table = two_days()
    assert table.next_open(35 * HOUR) == 35 * HOUR
    assert table.next_open(36 * HOUR) == 37 * HOUR
    assert table.next_open(40 * HOUR) == 58 * HOUR
    with pytest.raises(ValueError, match="no session after 1970-01-03T13:00:00Z"):
        table.next_open(61 * HOUR)


def test_a_halt_that_lasts_to_the_close_opens_with_the_next_session() -> None:
    """A halt ending at the close is followed by the next session, not by the close."""
    table = sessions(
        "TEST",
        first=date(1970, 1, 1),
        last=date(1970, 1, 4),
        dates=np.array([1, 2]),
        opens=np.array([34, 58]) * HOUR,
        closes=np.array([40, 61]) * HOUR,
        halts=np.array([[39, 40]]) * HOUR,
    )
    assert table.next_open(39 * HOUR) == 58 * HOUR


def test_next_close_is_strictly_later() -> None:
    """At a close the next close is the following session's."""
    table = two_days()
    assert table.next_close(0) == 40 * HOUR
    assert table.next_close(40 * HOUR) == 61 * HOUR


def test_questions_by_date() -> None:
    """Opens, closes, early closes and neighbours are answered by trade date."""
    table = two_days()
    assert table.is_session(date(1970, 1, 2)) and not table.is_session(date(1970, 1, 4))
    assert (table.open_of(date(1970, 1, 2)), table.close_of(date(1970, 1, 3))) == (34 * HOUR, 61 * HOUR)
    assert not table.is_early_close(date(1970, 1, 2)) and table.is_early_close(date(1970, 1, 3))
    assert table.on_or_before(date(1970, 1, 4)) == date(1970, 1, 3)
    assert table.before(date(1970, 1, 3)) == date(1970, 1, 2) == table.on_or_after(date(1970, 1, 1))
    assert table.between(date(1970, 1, 1), date(1970, 1, 4)) == [date(1970, 1, 2), date(1970, 1, 3)]
    assert table.date_at(36 * HOUR) == date(1970, 1, 2) and table.date_at(45 * HOUR) is None
    with pytest.raises(ValueError, match=r"1970-01-04 \(Sunday\) without a session"):
        table.open_of(date(1970, 1, 4))


def test_trading_time_leaves_halts_and_nights_out() -> None:
    """Trading time counts open hours only, and is antisymmetric."""
    table = two_days()
    assert table.trading_time(0, 80 * HOUR) == 8 * HOUR
    assert table.trading_time(35 * HOUR, 60 * HOUR) == 6 * HOUR
    assert table.trading_time(36 * HOUR + 1, 37 * HOUR) == 0
    assert table.trading_time(60 * HOUR, 35 * HOUR) == -6 * HOUR


def test_trading_years_of_the_whole_table_are_calendar_years() -> None:
    """Over the dates covered, trading years equal ACT/365."""
    assert two_days().trading_years(0, 4 * NS_PER_DAY) == pytest.approx(4 / 365, rel=1e-14)


def test_questions_outside_the_table_are_refused() -> None:
    """A date or an instant that the table does not cover is an error, not a guess."""
    with pytest.raises(ValueError, match="covers 1970-01-01 to 1970-01-04, asked for 1970-01-05"):
        two_days().is_session(date(1970, 1, 5))
    with pytest.raises(ValueError, match="asked for 1970-02-01"):
        two_days().is_open(31 * NS_PER_DAY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"opens": [40, 58]}, "1970-01-02: expected the open before the close"),
        ({"dates": [2, 2]}, "1970-01-03: expected to follow"),
        ({"opens": [34, 39]}, "1970-01-03: expected to follow"),
        ({"halts": [[40, 41]]}, "expected inside one session"),
        ({"halts": [[36, 38], [37, 39]]}, "1970-01-02T13:00:00Z: expected inside one session"),
        ({"dates": [1, 9]}, "expected sessions from"),
        ({"dates": [1]}, "columns of one length"),
        ({"dates": [], "opens": [], "closes": []}, "at least one session"),
    ],
)
def test_tables_that_break_the_law_are_refused(change: dict[str, list[int]], message: str) -> None:
    """A row that is not a session, or a halt outside one, is refused with its date."""
    columns = {"dates": [1, 2], "opens": [34, 58], "closes": [40, 61], "halts": [[36, 37]]} | change
    day, opens, closes, halts = (np.array(columns[name]) for name in ("dates", "opens", "closes", "halts"))
    with pytest.raises(ValueError, match=message):
        sessions(
            "TEST",
            first=date(1970, 1, 1),
            last=date(1970, 1, 4),
            dates=day,
            opens=opens * HOUR,
            closes=closes * HOUR,
            halts=halts * HOUR,
        )


def test_a_table_cannot_be_changed() -> None:
    """The columns are read-only."""
    with pytest.raises(ValueError, match="read-only"):
        two_days().opens[0] = 0


def test_always_open_is_act_365() -> None:
    """The 24/7 calendar is open at every instant and its trading years are calendar years."""
    table = always_open()
    start, end = parse_instant("2020-02-28T23:59:59.999999999Z"), parse_instant("2021-07-04T12:00:00Z")
    assert table.is_open(start) and table.next_open(start) == start
    assert table.next_close(start) == parse_instant("2020-02-29T00:00:00Z")
    assert table.is_session(date(2020, 12, 25)) and not table.is_early_close(date(2020, 12, 25))
    assert table.trading_years(start, end) == pytest.approx(years_between(start, end), rel=1e-12)
    assert table.trading_ns_per_year == NS_PER_YEAR


@pytest.mark.parametrize(
    ("name", "day", "opens", "closes", "early"),
    [
        ("XNYS", "2020-01-06", "2020-01-06T14:30:00Z", "2020-01-06T21:00:00Z", False),
        ("XNYS", "2020-07-06", "2020-07-06T13:30:00Z", "2020-07-06T20:00:00Z", False),
        ("XNYS", "2015-12-24", "2015-12-24T14:30:00Z", "2015-12-24T18:00:00Z", True),
        ("XCBO", "2021-01-04", "2021-01-04T14:30:00Z", "2021-01-04T21:15:00Z", False),
        ("XCBO", "2018-12-24", "2018-12-24T14:30:00Z", "2018-12-24T18:15:00Z", True),
        ("CME-EQUITY", "2020-01-06", "2020-01-05T23:00:00Z", "2020-01-06T22:00:00Z", False),
        ("CME-EQUITY", "2013-10-07", "2013-10-06T22:00:00Z", "2013-10-07T21:15:00Z", False),
        ("CME-EQUITY", "2008-01-03", "2008-01-02T21:30:00Z", "2008-01-03T21:15:00Z", False),
        ("CME-EQUITY", "2008-01-07", "2008-01-06T23:00:00Z", "2008-01-07T21:15:00Z", False),
        ("CME-EQUITY", "2020-11-26", "2020-11-25T23:00:00Z", "2020-11-26T18:00:00Z", True),
        ("CME-EQUITY", "2020-11-27", "2020-11-26T23:00:00Z", "2020-11-27T18:15:00Z", True),
        ("CME-EQUITY", "2013-05-27", "2013-05-26T22:00:00Z", "2013-05-27T15:30:00Z", True),
        ("CME-EQUITY", "2021-04-02", "2021-04-01T22:00:00Z", "2021-04-02T13:15:00Z", True),
        ("CME-EQUITY", "2023-06-19", "2023-06-18T22:00:00Z", "2023-06-19T17:00:00Z", True),
        ("CME-GLOBEX", "2020-01-06", "2020-01-05T23:00:00Z", "2020-01-06T22:00:00Z", False),
    ],
)
def test_named_sessions(name: str, day: str, opens: str, closes: str, early: bool) -> None:
    """Regular days, early closes, holidays and older hours open and close when the venue's notices say."""
    when = date.fromisoformat(day)
    table = named(name, when, when)
    assert (iso(table.open_of(when)), iso(table.close_of(when))) == (opens, closes)
    assert table.is_early_close(when) is early


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("XNYS", "2001-09-12"),
        ("XNYS", "2012-10-29"),
        ("XNYS", "2021-04-02"),
        ("CME-EQUITY", "2001-09-12"),
        ("CME-EQUITY", "2019-04-19"),
        ("CME-EQUITY", "2020-12-25"),
        ("XCBO", "2022-06-20"),
    ],
)
def test_days_without_a_session(name: str, day: str) -> None:
    """Holidays and days the exchange shut have no session."""
    when = date.fromisoformat(day)
    assert not named(name, when, when).is_session(when)


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        ("2020-01-06T21:14:59Z", True),
        ("2020-01-06T21:15:00Z", False),
        ("2020-01-06T21:30:00Z", True),
        ("2020-01-06T22:00:00Z", False),
        ("2020-01-06T22:59:59Z", False),
        ("2020-01-06T23:00:00Z", True),
        ("2020-01-04T12:00:00Z", False),
        ("2021-06-25T20:20:00Z", False),
        ("2021-06-28T20:20:00Z", True),
        ("2008-01-03T22:45:00Z", False),
        ("2008-01-03T23:00:00Z", True),
    ],
)
def test_cme_breaks(instant: str, expected: bool) -> None:
    """The 15:15 halt ends in June 2021, the maintenance break and the weekend are closed."""
    ts = parse_instant(instant)
    day = date.fromisoformat(instant[:10])
    assert named("CME-EQUITY", day, day).is_open(ts) is expected


def test_the_year_end_can_be_crossed() -> None:
    """A range that ends on New Year's Eve still knows the first opening of the new year."""
    table = named("CME-EQUITY", date(2019, 12, 31), date(2019, 12, 31))
    assert iso(table.next_open(parse_instant("2019-12-31T22:30:00Z"))) == "2020-01-01T23:00:00Z"


@pytest.mark.parametrize("name", NAMES)
def test_every_calendar_reaches_from_1990_on(name: str) -> None:
    """Each named calendar answers for its first year and two decades on, about 250 or more sessions a year."""
    table = named(name, date(1990, 1, 1), date(2010, 12, 31))
    assert len(table.between(date(1990, 1, 1), date(1990, 12, 31))) >= 250
    assert len(table.between(date(2010, 1, 1), date(2010, 12, 31))) >= 250


def test_named_is_cached_and_independent_of_the_range() -> None:
    """The same years are one object, and a longer range answers the same instants alike."""
    short = named("CME-EQUITY", date(2012, 3, 1), date(2012, 12, 1))
    assert short is named("CME-EQUITY", date(2012, 6, 1), date(2012, 7, 1))
    long = named("CME-EQUITY", date(2010, 1, 1), date(2016, 1, 1))
    for day in short.between(date(2012, 1, 1), date(2012, 12, 31)):
        assert (short.open_of(day), short.close_of(day)) == (long.open_of(day), long.close_of(day))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("XLON", date(2020, 1, 1), date(2020, 2, 1)), "expected one of XNYS, XCBO, CME-EQUITY, CME-GLOBEX, 24/7"),
        (("XNYS", date(2020, 3, 1), date(2020, 2, 1)), "a start not after its end"),
        (("XNYS", date(1989, 12, 31), date(2020, 2, 1)), "dates from 1990-01-01"),
        (("XNYS", date(2020, 1, 1), date(9999, 12, 31)), "dates from 1990-01-01 to 2150"),
    ],
)
def test_unknown_calendars_and_ranges_are_refused(arguments: tuple[str, date, date], message: str) -> None:
    """A name or range that cannot be answered says what was expected."""
    with pytest.raises(ConfigError, match=message):
        named(*arguments)
