"""Corporate changes and odd days, made: what a factor, map or holiday file says is adjusted or flagged, and never becomes a
silent gamma P&L.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bot.app import config as configs
from bot.app import result
from bot.core.errors import DataError
from bot.domain.units import parse_instant
from bot.engine.journal import Adjusted, Executed, Step
from tests.replay.days import Day, changed, minute_quotes, play, write_config, write_zip

MONDAY, TUESDAY = "20250303", "20250304"
OPEN, BARS = 9 * 60 + 29, 90
DAY = Day(
    name="made",
    underlying="US:XYZ",
    dates=("2025-03-03", "2025-03-04"),
    start="2025-03-03T14:35:00Z",
    end="2025-03-04T15:45:00Z",
    rows=("XYZ,option,call,100,2025-03-21,physical,100,USD,10",),
    files={},
    policy='kind = "fixed_interval"\ninterval = "5m"',
)


def write_day(
    root: Path, day: str, level: float, *, symbol: str = "xyz", strike: float = 100.0, calls: float = 1.0
) -> None:
    """Ninety minutes of the share swinging about a level, and its call at a half of the distance to 90% of the level."""
    mids = [level * (1 + 0.002 * (minute % 11 - 5)) for minute in range(BARS)]
    prices = [calls * (4.0 + 0.5 * (mid - level)) for mid in mids]
    write_zip(
        root / f"equity/usa/minute/{symbol}/{day}_quote.zip",
        {f"{day}_{symbol}_minute_quote.csv": minute_quotes(OPEN, mids, half=0.01)},
    )
    write_zip(
        root / f"option/usa/minute/{symbol}/{day}_quote_american.zip",
        {
            f"{day}_{symbol}_minute_quote_american_call_{round(strike * 10_000)}_20250321.csv": minute_quotes(
                OPEN, prices, half=0.05
            )
        },
    )


def write_reference(
    root: Path, *, factors: Sequence[str], names: Sequence[str] = ("19990101,xyz,N", "20501231,xyz,N")
) -> None:
    for kind, lines in (("factor_files", factors), ("map_files", names)):
        path = root / "equity/usa" / kind / "xyz.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def run_made(folder: Path, day: Day = DAY) -> tuple[list[Step], dict[str, Any]]:
    run, steps = play(configs.load_config(write_config(folder, day, folder / "lean"), {}))
    document = result.document(run, timing={})
    for book in document["books"].values():
        assert sum(book["attribution"].values()) == pytest.approx(book["pnl"]["total"], abs=0.005)
    return steps, document


def alarms(document: dict[str, Any]) -> dict[str, str]:
    return {alarm["code"]: alarm["text"] for alarm in document["alarms"]}


def last_fill(steps: Sequence[Step]) -> int:
    return max(f.fill.ts for s in steps for f in s.facts if isinstance(f, Executed) and not f.fill.closing)


PLAIN = ["19990101,1,1,50", "20501231,1,1,0"]


def test_two_plain_days_have_nothing_to_flag(tmp_path: Path) -> None:
    """Without a change there is no corporate alarm: the tests below see only what they make."""
    for day in (MONDAY, TUESDAY):
        write_day(tmp_path / "lean", day, 100.0 if day == MONDAY else 100.5)
    write_reference(tmp_path / "lean", factors=PLAIN)
    steps, document = run_made(tmp_path)
    assert not {code for code in alarms(document) if code.startswith(("corporate", "jump", "feed"))}
    assert last_fill(steps) > parse_instant("2025-03-04T14:30:00Z")


def test_a_dividend_is_paid_by_who_is_short(tmp_path: Path) -> None:
    """A dividend of 0.50 on shares held short over the night costs the hedge 0.50 a share, and is flagged."""
    write_day(tmp_path / "lean", MONDAY, 100.0)
    write_day(tmp_path / "lean", TUESDAY, 99.5)
    write_reference(tmp_path / "lean", factors=["19990101,0.995,1,50", "20250303,0.995,1,100", "20501231,1,1,0"])
    steps, document = run_made(tmp_path)
    for account in ("dynamic", "static"):
        (paid,) = (f for s in steps for f in s.facts if isinstance(f, Adjusted) and f.account == account)
        held = paid.before["US:XYZ"]
        traded = [f.fill for s in steps for f in s.facts if isinstance(f, Executed) and f.account == account]
        assert held < 0
        assert sum(fill.quantity for fill in traded) == 0
        expected = float(held) * 0.5 - sum(float(fill.quantity * fill.price) for fill in traded)
        pnl = document["books"][account]["pnl"]
        assert pnl["hedge"] - pnl["spread_cost"] == pytest.approx(expected, abs=0.005)
    assert "dividend" in alarms(document)["corporate"]


def test_a_three_for_one_split_makes_no_gamma(tmp_path: Path) -> None:
    """Strike, quantity and stock are adjusted: no account's P&L knows of a fall of two thirds."""
    root = tmp_path / "lean"
    write_day(root, MONDAY, 100.0)
    write_day(root, TUESDAY, 100.0 / 3, strike=33.33, calls=1 / 3)
    write_reference(root, factors=["19990101,1,0.3333333,50", "20250303,1,0.3333333,100", "20501231,1,1,0"])
    steps, document = run_made(tmp_path)
    (made,) = (f for s in steps for f in s.facts if isinstance(f, Adjusted) and f.account == "none")
    assert [int(q) for q in made.after.values()] == [30]
    for book in document["books"].values():
        assert all(abs(term) < 1_500 for term in book["attribution"].values()), book["attribution"]
    assert "3 for 1" in alarms(document)["corporate"]
    assert last_fill(steps) > parse_instant("2025-03-04T14:30:00Z")


def test_a_spin_off_is_flagged_and_freezes_the_underlying(tmp_path: Path) -> None:
    """A distribution of a fifth of the price says nothing about deliverables: an alarm, and no hedge after it."""
    write_day(tmp_path / "lean", MONDAY, 100.0)
    write_day(tmp_path / "lean", TUESDAY, 80.0)
    write_reference(tmp_path / "lean", factors=["19990101,0.8,1,50", "20250303,0.8,1,100", "20501231,1,1,0"])
    steps, document = run_made(tmp_path)
    assert "spin-off" in alarms(document)["corporate_unadjusted"]
    assert last_fill(steps) < parse_instant("2025-03-04T00:00:00Z")


def write_rename(root: Path) -> None:
    write_day(root, MONDAY, 100.0)
    write_day(root, TUESDAY, 100.5, symbol="abc")
    write_reference(root, factors=PLAIN, names=["19990101,xyz,N", "20250303,xyz,N", "20501231,abc,N"])


def test_a_rename_carries_book_and_hedge_over(tmp_path: Path) -> None:
    """Contracts and stock are renamed one for one with their marks, and the change is flagged."""
    write_rename(tmp_path / "lean")
    steps, document = run_made(tmp_path)
    (made,) = (f for s in steps for f in s.facts if isinstance(f, Adjusted) and f.account == "dynamic")
    assert made.after["ABC   250321C00100000"] == made.before["XYZ   250321C00100000"]
    assert made.after["US:ABC"] == made.before["US:XYZ"]
    assert "ABC" in alarms(document)["corporate"]
    assert abs(document["books"]["dynamic"]["attribution"]["residual"]) < 50


def test_hedging_goes_on_after_a_rename(tmp_path: Path) -> None:
    """The share is hedged under its new symbol, and the hedge is closed at the end."""
    write_rename(tmp_path / "lean")
    steps, document = run_made(tmp_path)
    assert last_fill(steps) > parse_instant("2025-03-04T14:30:00Z")
    assert document["books"]["dynamic"]["positions"] == {"ABC   250321C00100000": 10.0}


def test_a_halved_price_without_a_factor_file_is_flagged(tmp_path: Path) -> None:
    """Nothing explains a night's fall by half: the run says so instead of booking it in silence."""
    write_day(tmp_path / "lean", MONDAY, 100.0)
    write_day(tmp_path / "lean", TUESDAY, 50.0)
    _, document = run_made(tmp_path)
    assert {"corporate_unadjusted", "jump", "price_jump"} & set(alarms(document)), alarms(document)


def test_a_day_repeated_is_refused_or_flagged(tmp_path: Path) -> None:
    """A file whose rows repeat the day before is an error by default; kept on request, it is flagged and counted."""
    for day in (MONDAY, TUESDAY):
        write_day(tmp_path / "lean", day, 100.0)
    write_reference(tmp_path / "lean", factors=PLAIN)
    with pytest.raises(DataError, match="20250304_quote"):
        run_made(tmp_path)
    _, document = run_made(tmp_path, changed(DAY, feed_extra='repeated = "keep"'))
    assert document["feed"]["repaired"]["repeated_day"] == 2
    assert "feed_stale" in alarms(document)


def test_a_file_of_a_holiday_is_left_out_and_flagged(tmp_path: Path) -> None:
    """Rows recorded on a day the exchange was closed are not played: counted, noted and alarmed."""
    root = tmp_path / "lean"
    for day, level in ((MONDAY, 100.0), (TUESDAY, 130.0), ("20250305", 100.5)):
        write_day(root, day, level)
    write_reference(root, factors=PLAIN)
    (root / "market-hours").mkdir()
    week = {
        day: [{"start": "09:30:00", "end": "16:00:00", "state": "market"}]
        for day in ("monday", "tuesday", "wednesday", "thursday", "friday")
    }
    entry = {
        "dataTimeZone": "America/New_York",
        "exchangeTimeZone": "America/New_York",
        **week,
        "saturday": [],
        "sunday": [],
        "holidays": ["3/4/2025"],
        "earlyCloses": {},
    }
    (root / "market-hours/market-hours-database.json").write_text(
        json.dumps({"entries": {"Equity-usa-[*]": entry, "Option-usa-[*]": entry}}), encoding="utf-8"
    )
    three = ("2025-03-03", "2025-03-04", "2025-03-05")
    steps, document = run_made(tmp_path, changed(DAY, dates=three, end="2025-03-05T15:45:00Z"))
    assert document["feed"]["refused"] == {"closed_day": 2 * BARS}
    assert document["feed"]["repaired"]["closed_days"] == 1
    assert "feed_gap" in alarms(document)
    assert not [s for s in steps if s.ts // 86_400_000_000_000 == parse_instant("2025-03-04T00:00:00Z") // 86_400_000_000_000
                and any(isinstance(f, Executed) for f in s.facts)]  # fmt: skip
