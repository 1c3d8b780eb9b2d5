"""A command is `evenkeel` called within the test: its exit code, what it printed and what it said; and a small session to
call it on, of one underlying and one call, quoted once a minute for an hour.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bot.app.cli import app, run_verb
from bot.domain.units import NS_PER_MINUTE, iso, parse_instant

START = parse_instant("2025-03-03T14:30:00Z")
CALL = "XYZ   250321C00100000"
BOOK = "underlying,type,cp,strike,expiry,style,settlement,multiplier,currency,quantity\n"
ROW = "SIM:XYZ,option,call,100,2025-03-21T20:00:00Z,european,cash,100,USD,10\n"


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one document on stdout; a number that JSON does not know is an error."""
        return json.loads(self.out, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} in a JSON document")


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Answer:
    """Call `evenkeel` with these words."""
    capsys.readouterr()
    code = run_verb(lambda: app([str(word) for word in words], standalone_mode=False))
    out, err = capsys.readouterr()
    return Answer(code, out, err)


def quotes(minutes: int = 60, *, option: str = CALL) -> list[str]:
    """CSV lines: the underlying swings around 100, the call follows; one quote of each a minute."""
    lines = ["ts,instrument,bid,ask,bid_size,ask_size"]
    for minute in range(minutes + 1):
        ts = iso(START + minute * NS_PER_MINUTE)
        spot = 100.0 + 2.0 * math.sin(minute / 7.0)
        price = 2.5 + 0.5 * (spot - 100.0)
        lines.append(f"{ts},SIM:XYZ,{spot - 0.01:.2f},{spot + 0.01:.2f},1000,1000")
        lines.append(f"{ts},{option},{price - 0.05:.2f},{price + 0.05:.2f},50,50")
    return lines


def write_session(
    folder: Path,
    *,
    lines: Sequence[str] | None = None,
    book: str = BOOK + ROW,
    feed: str = "",
    edit: Sequence[tuple[str, str]] = (),
    minutes: int = 60,
) -> Path:
    """The config of the small session; `edit` replaces pieces of its text, each of which must be there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quotes.csv").write_text("\n".join(quotes() if lines is None else lines) + "\n", encoding="utf-8")
    (folder / "book.csv").write_text(book, encoding="utf-8")
    text = f"""schema_version = 1
name = "small"
[session]
start = "{iso(START)}"
end = "{iso(START + minutes * NS_PER_MINUTE)}"
[[feeds]]
kind = "replay"
format = "csv"
files = ["quotes.csv"]
{feed}
[book]
file = "book.csv"
[pricing]
vol = "implied"
remark = "1m"
[[hedges]]
underlying = "SIM:XYZ"
instrument = "SIM:XYZ"
[[strategies]]
kind = "delta_hedger"
[strategies.policy]
kind = "fixed_interval"
interval = "5m"
[storage]
runs = "runs"
"""
    for old, new in edit:
        assert old in text, f"{old!r} is not in the small session"
        text = text.replace(old, new)
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def kept(folder: Path) -> list[str]:
    """What lies in the runs folder, hidden names too."""
    runs = folder / "runs"
    return sorted(path.name for path in runs.iterdir()) if runs.is_dir() else []
