"""Factor and map files: what they prove, what they leave open, and how their faults are told."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from adapters.formats.corporate import distributions, read_factors, read_map, renames, symbol_on
from adapters.formats.parity import Leg, parity_prints
from adapters.formats.zones import CHICAGO, NEW_YORK, utc_of_wall, wall_start
from bot.core.errors import DataError
from bot.domain.units import NS_PER_MINUTE, NS_PER_YEAR, iso


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_usual_dividend_is_ordinary_and_a_sudden_one_is_not(tmp_path: Path) -> None:
    """A payment above 1% of the price is ordinary only beside earlier ones of its size."""
    quarters = "".join(f"2019{month:02d}05,{0.90 + i * 0.015:.4f},1,100\n" for i, month in enumerate((2, 5, 8, 11)))
    usual = distributions(read_factors(write(tmp_path / "a.csv", quarters + "20501231,0.96,1,0\n")))
    assert [change.what for change in usual] == ["spin_off", "spin_off", "dividend", "dividend"]
    sudden = distributions(read_factors(write(tmp_path / "b.csv", quarters + "20501231,1.05,1,0\n")))
    assert (sudden[-1].what, sudden[-1].adjusted) == ("spin_off", False)


def test_the_cash_of_a_dividend_comes_from_the_last_close(tmp_path: Path) -> None:
    """The implied cash is close x (1 - factor before / factor after)."""
    rows = read_factors(
        write(tmp_path / "a.csv", "20140507,0.8961764,0.0357143,592.33\n20140806,0.9011818,0.0357143,1\n")
    )
    (change,) = distributions(rows)
    assert (change.last_day, change.cash) == (date(2014, 5, 7), Decimal("3.29"))


@pytest.mark.parametrize(
    ("before", "after", "ratio", "what"),
    [("0.0357143", "0.25", 7, "split"), ("0.5", "1", 2, "split"), ("1", "0.1", Decimal("0.1"), "split")],
)
def test_split_ratios_are_exact(tmp_path: Path, before: str, after: str, ratio: Decimal, what: str) -> None:
    """Rounded factors still give the whole ratio of the split."""
    rows = read_factors(write(tmp_path / "a.csv", f"20200107,1,{before},100\n20501231,1,{after},0\n"))
    (change,) = distributions(rows)
    assert (change.what, change.ratio) == (what, ratio)


def test_a_split_on_the_day_of_a_rename_is_no_plain_split(tmp_path: Path) -> None:
    """Shares of another class handed out with a change of symbol leave contracts unknown."""
    changes = renames(read_map(write(tmp_path / "m.csv", "20040819,goog,Q\n20140402,goog,Q\n20501231,googl,Q\n")))
    rows = read_factors(write(tmp_path / "f.csv", "20140402,1,0.5,1135.1\n20501231,1,1,0\n"))
    (change,) = distributions(rows, changes)
    assert (change.what, change.adjusted) == ("spin_off", False)


def test_a_symbol_holds_up_to_and_including_its_row(tmp_path: Path) -> None:
    """The map's date is the last day under the symbol; after the last row there is none."""
    rows = read_map(write(tmp_path / "m.csv", "20031015,aol,N\n20180615,twx,N\n"))
    assert symbol_on(rows, date(2003, 10, 15)) == "aol"
    assert symbol_on(rows, date(2003, 10, 16)) == "twx"
    assert symbol_on(rows, date(2018, 6, 18)) is None


@pytest.mark.parametrize(
    "text", ["2020,1,1,1\n", "20200101,x,1,1\n", "20200101,1\n", "20200101,0,1,1\n", "20200102,1,1,1\n20200101,1,1,1\n"]
)
def test_faults_of_a_factor_file_are_named(tmp_path: Path, text: str) -> None:
    """A bad date, number, width or order is a DataError with the file."""
    with pytest.raises(DataError, match=r"a\.csv"):
        read_factors(write(tmp_path / "a.csv", text))


def test_wall_clocks_follow_their_zone_through_a_change() -> None:
    """Chicago's wall clock is mapped hour by hour on the day it springs forward."""
    hours = np.array([0, 1, 3, 4], np.int64)
    wall = wall_start(date(2020, 3, 8)) + hours * 60 * NS_PER_MINUTE
    assert [iso(int(ts))[11:16] for ts in utc_of_wall(wall, CHICAGO)] == ["06:00", "07:00", "08:00", "09:00"]
    assert iso(int(utc_of_wall(wall[:1], NEW_YORK)[0])) == "2020-03-08T05:00:00Z"


def leg(cp: int, strike: float, quotes: list[tuple[int, float, float]]) -> Leg:
    ts, bid, ask = zip(*quotes, strict=True)
    return Leg(cp, strike, np.array(ts, np.int64), np.array(bid, float), np.array(ask, float))


@pytest.mark.parametrize("rate", [0.0, 0.05])
def test_parity_gives_back_the_forward_that_made_the_prices(rate: float) -> None:
    """Calls and puts made from one forward give that forward, and its discounted value for a share."""
    F, expiry = 103.0, NS_PER_YEAR // 2
    legs = []
    for K in (90.0, 95.0, 100.0, 105.0, 110.0, 115.0, 120.0):
        C = 20.0 + max(0.0, np.exp(-rate * 0.5) * (F - K))
        P = C - np.exp(-rate * 0.5) * (F - K)
        legs += [leg(1, K, [(0, C - 0.5, C + 0.5)]), leg(-1, K, [(0, P - 0.5, P + 0.5)])]
    _, forward = parity_prints(legs, expiry=expiry, rate=rate, discounted=False)
    _, spot = parity_prints(legs, expiry=expiry, rate=rate, discounted=True)
    assert forward == pytest.approx([F])
    assert spot == pytest.approx([F * np.exp(-rate * 0.5)])


def test_parity_sees_only_what_was_quoted_by_then() -> None:
    """No price comes before both sides of a strike are known, while one is withdrawn, or at the expiry."""
    nan = float("nan")
    call = leg(1, 100.0, [(10, 4.0, 6.0), (30, nan, 6.0), (40, 5.0, 7.0), (50, 5.0, 7.0)])
    put = leg(-1, 100.0, [(20, 4.0, 6.0)])
    ts, price = parity_prints([call, put], expiry=50, rate=0.0, discounted=True)
    assert ts.tolist() == [20, 40]
    assert price.tolist() == [100.0, 101.0]
