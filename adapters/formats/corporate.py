"""A corporate change is what a factor or map file says happened between two trading days; law: what a file cannot prove
about contracts is marked not adjusted, never guessed.

LEAN factor row `date, price factor, split factor, last close`: the factors hold up to and including `date`, the last
trading day before the change, whose close is given. So between rows i and i+1 a split of ratio sf[i+1]/sf[i] (new
shares per old) took place after date[i], and a distribution of close[i] (1 - pf[i]/pf[i+1]) in cash or kind. A map row
`date, symbol, exchange` names the symbol up to and including `date`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, Literal

import msgspec

from bot.core.errors import DataError

SMALL_DIVIDEND: Final = 0.01
"""A distribution up to this share of the price is ordinary whatever its history."""
LARGE_DIVIDEND: Final = 0.10
"""A distribution above this share of the price is never ordinary."""
USUAL: Final = 2.5
"""In between it is ordinary when at most this many times the median of the earlier ones."""


class FactorRow(msgspec.Struct, frozen=True, gc=False):
    """One row of a factor file."""

    day: date
    price_factor: float
    split_factor: float
    close: float


class MapRow(msgspec.Struct, frozen=True, gc=False):
    """One row of a map file: the symbol up to and including a day."""

    day: date
    symbol: str


class Change(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What happened to a share after the close of `last_day`. `adjusted` False: this does not say how
    contracts on it were adjusted."""

    last_day: date
    what: Literal["dividend", "split", "spin_off", "rename"]
    cash: Decimal = Decimal(0)
    ratio: Decimal = Decimal(1)
    symbol: str = ""
    adjusted: bool = True
    text: str = ""


def read_factors(path: Path) -> list[FactorRow]:
    """The rows of a factor file, first day first; DataError naming line and column of a fault."""
    rows: list[FactorRow] = []
    for number, fields in _lines(path):
        if len(fields) < 3:
            raise DataError(
                f"{path}:{number}: expected date, price factor, split factor, close, found {len(fields)} fields"
            )
        close = _number(fields[3], path, number, "last close") if len(fields) > 3 and fields[3] else 0.0
        pf = _number(fields[1], path, number, "price factor")
        sf = _number(fields[2], path, number, "split factor")
        if not (pf > 0.0 and sf > 0.0):
            raise DataError(f"{path}:{number}: expected positive factors, found {fields[1]} and {fields[2]}")
        rows.append(FactorRow(_day(fields[0], path, number), pf, sf, close))
    _check_order([row.day for row in rows], path)
    return rows


def read_map(path: Path) -> list[MapRow]:
    """The rows of a map file, first day first; DataError naming the line of a fault."""
    rows = []
    for number, fields in _lines(path):
        if len(fields) < 2 or not fields[1]:
            raise DataError(f"{path}:{number}: expected date, symbol, found {','.join(fields)!r}")
        rows.append(MapRow(_day(fields[0], path, number), fields[1].lower()))
    _check_order([row.day for row in rows], path)
    return rows


def symbol_on(rows: Sequence[MapRow], day: date) -> str | None:
    """The symbol a share trades under on a day, None after its last row."""
    return next((row.symbol for row in rows if row.day >= day), None)


def renames(rows: Sequence[MapRow]) -> list[Change]:
    """The changes of symbol a map file holds."""
    return [
        Change(last_day=a.day, what="rename", symbol=b.symbol, text=f"{a.symbol.upper()} trades as {b.symbol.upper()}")
        for a, b in pairwise(rows)
        if a.symbol != b.symbol
    ]


def distributions(rows: Sequence[FactorRow], renamed: Sequence[Change] = ()) -> list[Change]:
    """The splits and distributions a factor file holds, in order. `renamed`: a split on the day of a change of
    symbol is a distribution of another class of share, not a plain split."""
    found: list[Change] = []
    earlier: list[float] = []
    rename_days = {change.last_day for change in renamed}
    for a, b in pairwise(rows):
        if not math.isclose(a.price_factor, b.price_factor, rel_tol=1e-9) and a.close > 0.0:
            cash = a.close * (1.0 - a.price_factor / b.price_factor)
            found.append(_distribution(a.day, cash=cash, close=a.close, earlier=earlier))
            earlier.append(cash)
        if not math.isclose(a.split_factor, b.split_factor, rel_tol=1e-9):
            found.append(_split(a.day, b.split_factor / a.split_factor, with_rename=a.day in rename_days))
            earlier = [cash * a.split_factor / b.split_factor for cash in earlier]
    return found


def _distribution(day: date, *, cash: float, close: float, earlier: Sequence[float]) -> Change:
    amount = Decimal(repr(round(cash, 4)))
    if _is_ordinary(cash, close=close, earlier=earlier):
        return Change(last_day=day, what="dividend", cash=amount, text=f"dividend of {amount} a share")
    return Change(
        last_day=day,
        what="spin_off",
        cash=amount,
        adjusted=False,
        text=f"spin-off or special dividend worth {amount} of {close} a share: the factor file does not say what "
        f"contracts deliver",
    )


def _is_ordinary(cash: float, *, close: float, earlier: Sequence[float]) -> bool:
    share = cash / close - 1e-6  # factors are written with seven digits
    if cash <= 0.0 or share > LARGE_DIVIDEND:
        return False
    return share <= SMALL_DIVIDEND or (len(earlier) >= 2 and cash <= USUAL * median(earlier[-8:]))


def _split(day: date, ratio: float, *, with_rename: bool) -> Change:
    exact = Fraction(ratio).limit_denominator(100)
    near = math.isclose(float(exact), ratio, rel_tol=5e-4)
    plain = near and not with_rename and min(exact.numerator, exact.denominator) <= 10 and exact != 1
    value = Decimal(exact.numerator) / Decimal(exact.denominator) if plain else Decimal(repr(round(ratio, 8)))
    if plain:
        return Change(last_day=day, what="split", ratio=value, text=f"{exact.numerator} for {exact.denominator} split")
    return Change(
        last_day=day,
        what="spin_off",
        ratio=value,
        adjusted=False,
        text=f"distribution of shares, {value} new for old: not a plain split, the file does not say what contracts "
        f"deliver",
    )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"{path}: expected a readable text file, found {fault}") from fault
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, [field.strip() for field in line.split(",")]


def _day(text: str, path: Path, number: int) -> date:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError as fault:
        raise DataError(f"{path}:{number}: date: expected yyyymmdd, found {text!r}") from fault


def _number(text: str, path: Path, number: int, column: str) -> float:
    try:
        value = float(text)
    except ValueError as fault:
        raise DataError(f"{path}:{number}: {column}: expected a number, found {text!r}") from fault
    if not math.isfinite(value):
        raise DataError(f"{path}:{number}: {column}: expected a finite number, found {text!r}")
    return value


def _check_order(days: Sequence[date], path: Path) -> None:
    for a, b in pairwise(days):
        if b < a:
            raise DataError(f"{path}: expected rows in order of date, found {b} after {a}")
