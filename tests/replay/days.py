"""A day is a recorded or made session that whole-run tests play; law: nothing here decides, it only lays out files and
listens to what a run records.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from bot.app import config as configs
from bot.app import daemon
from bot.app.wiring import Run, assemble
from bot.core.ports import Clock
from bot.domain.units import Nanos, nanos
from bot.engine.journal import (
    Ended,
    Executed,
    JournalReader,
    Ordered,
    Refused,
    Skipped,
    Started,
    Step,
    TargetSet,
    VenueSaid,
)

HEADER = "underlying,type,cp,strike,expiry,settlement,multiplier,currency,quantity\n"
SAID = (Started, TargetSet, Skipped, Ordered, Refused, VenueSaid, Executed, Ended)
"""What a run decided, sent and was filled with; alarms and the final count of holdings are commentary."""
ZONES = {"index": "America/Chicago", "future": "UTC", "futureoption": "UTC"}
Rewrite = Callable[[str, Sequence[tuple[Nanos, str]]], Iterable[str]]
"""(path of the zip, its rows with the instants at which they are known) -> the rows to write instead."""


class Day(NamedTuple):
    """A session of the LEAN folder: its config's parts, and the files and members it reads."""

    name: str
    underlying: str
    dates: tuple[str, ...]
    start: str
    end: str
    rows: tuple[str, ...]
    files: Mapping[str, str]
    """Path below the LEAN folder -> a pattern of the members wanted."""
    source: str = "quotes"
    hedge: str = ""
    hedge_extra: str = ""
    policy: str = 'kind = "fixed_interval"\ninterval = "1m"'
    pricing: str = 'vol = "implied"\nremark = "1m"\nrate = 0.01'
    feed_extra: str = ""
    tail: str = ""


def write_config(folder: Path, day: Day, root: Path) -> Path:
    """The config file of a day whose recording lies at `root`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "book.csv").write_text(HEADER + "".join(row + "\n" for row in day.rows), encoding="utf-8")
    dates = ", ".join(f'"{text}"' for text in day.dates)
    path = folder / f"{day.name}.toml"
    path.write_text(
        f"""
schema_version = 1
name = "{day.name}"
[session]
start = "{day.start}"
end = "{day.end}"
[[feeds]]
kind = "replay"
format = "lean"
root = "{root}"
dates = [{dates}]
underlying = "{day.source}"
{day.feed_extra}
[book]
file = "book.csv"
[pricing]
{day.pricing}
[[hedges]]
underlying = "{day.underlying}"
instrument = "{day.hedge or day.underlying}"
{day.hedge_extra}
[[strategies]]
kind = "delta_hedger"
[strategies.policy]
{day.policy}
[storage]
runs = "runs"
{day.tail}
""",
        encoding="utf-8",
    )
    return path


def play(
    config: configs.Config,
    *,
    tamper: Callable[[Run], None] | None = None,
    speed: float | None = None,
    clock: Clock | None = None,
) -> tuple[Run, list[Step]]:
    """A run driven to its end and the steps its journal was given; `tamper` may change the run before it begins."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.evk"
        run = assemble(config, journal=path)
        if tamper is not None:
            tamper(run)
        daemon.run_to_end(lambda stop: daemon.drive(run, speed=speed, clock=clock, stop=stop))
        return run, list(JournalReader(path))


def said(steps: Sequence[Step], until: Nanos | None = None) -> list[tuple[Nanos, bytes]]:
    """Every decision, order and fill up to an instant, as bytes, of all accounts."""
    return [
        (step.ts, msgspec.json.encode(fact))
        for step in steps
        if until is None or step.ts <= until
        for fact in step.facts
        if isinstance(fact, SAID)
    ]


def facts(steps: Sequence[Step]) -> bytes:
    """All that was recorded, byte for byte."""
    return b"\n".join(msgspec.json.encode(step) for step in steps)


# --------------------------------------------------------------------------- LEAN folders


class Recording(NamedTuple):
    """The rows of one member of one zip, each with the instant at which it is known."""

    path: str
    member: str
    rows: list[tuple[Nanos, str]]


def read_recordings(root: Path, files: Mapping[str, str]) -> list[Recording]:
    """The wanted members of the wanted zips of a LEAN folder."""
    found: list[Recording] = []
    for path, pattern in files.items():
        with zipfile.ZipFile(root / path) as packed:
            for member in packed.namelist():
                if re.search(pattern, member):
                    lines = packed.read(member).decode("ascii").splitlines()
                    found.append(Recording(path, member, [(known_at(path, line), line) for line in lines if line]))
    return found


def known_at(path: str, line: str) -> Nanos:
    """The instant at which a minute bar's row is known: its label and one minute more, in the zone of its folder."""
    parts = path.split("/")
    day = datetime.strptime(parts[-1][:8], "%Y%m%d").replace(tzinfo=ZoneInfo(ZONES.get(parts[0], "America/New_York")))
    return nanos(day) + (int(line.split(",", 1)[0]) + 60_000) * 1_000_000


def write_lean(root: Path, source: Path, recordings: Sequence[Recording], rewrite: Rewrite | None = None) -> Path:
    """A LEAN folder of these recordings with the reference files of `source` beside them."""
    for name in ("market-hours", "symbol-properties", "equity/usa/map_files", "equity/usa/factor_files"):
        link = root / name
        if not link.exists() and (source / name).is_dir():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source / name, target_is_directory=True)
    by_path: dict[str, list[Recording]] = {}
    for recording in recordings:
        by_path.setdefault(recording.path, []).append(recording)
    for path, members in by_path.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w") as packed:
            for recording in members:
                lines = rewrite(path, recording.rows) if rewrite else [line for _, line in recording.rows]
                packed.writestr(recording.member, "".join(line + "\n" for line in lines))
    return root


def write_zip(path: Path, members: Mapping[str, Sequence[str]]) -> None:
    """A zip of CSV members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as packed:
        for name, lines in members.items():
            packed.writestr(name, "".join(line + "\n" for line in lines))


def minute_quotes(first: int, mids: Sequence[float], *, half: float, scale: int = 10_000) -> list[str]:
    """Minute quote bars from minute `first` of the day, one a mid: open, high, low and close alike."""
    rows = []
    for i, mid in enumerate(mids):
        bid, ask = (round((mid + side * half) * scale) for side in (-1, 1))
        rows.append(f"{(first + i) * 60_000},{bid},{bid},{bid},{bid},10,{ask},{ask},{ask},{ask},10")
    return rows


# --------------------------------------------------------------------------- the recorded days

_MINUTE = "{kind}/{market}/minute/{symbol}/{day}_quote{style}.zip"


def _option_file(symbol: str, day: str, kind: str = "option", style: str = "american") -> str:
    return _MINUTE.format(kind=kind, market="usa", symbol=symbol, day=day, style=f"_{style}")


def _share_file(symbol: str, day: str) -> str:
    return _MINUTE.format(kind="equity", market="usa", symbol=symbol, day=day, style="")


ES = Day(
    name="es",
    underlying="CME:ESH2020",
    dates=("2020-01-05", "2020-01-06"),
    start="2020-01-05T23:10:00Z",
    end="2020-01-06T21:00:00Z",
    rows=("ES,future_option,call,3220,2020-03-20,physical,50,USD,100",),
    files={
        **{f"futureoption/cme/minute/es/202003/2020010{d}_quote_american.zip": "_call_32200000_" for d in (5, 6)},
        **{f"future/cme/minute/es/2020010{d}_quote.zip": "_202003" for d in (5, 6)},
    },
)
GOOG = Day(
    name="goog",
    underlying="US:GOOG",
    dates=("2015-12-24",),
    start="2015-12-24T14:35:00Z",
    end="2015-12-24T18:00:00Z",
    rows=tuple(f"GOOG,option,{cp},750,2015-12-24,cash,100,USD,100" for cp in ("call", "put")),
    files={_option_file("goog", "20151224"): "_7500000_20151224", _share_file("goog", "20151224"): "csv"},
)
TWX = Day(
    name="twx",
    underlying="US:TWX",
    dates=("2014-06-05",),
    start="2014-06-05T13:35:00Z",
    end="2014-06-05T19:59:00Z",
    rows=("TWX,option,call,70,2014-07-19,physical,100,USD,-50",),
    files={_option_file("twx", "20140605"): "_call_700000_20140719", _share_file("twx", "20140605"): "csv"},
)
SPXW = Day(
    name="spxw",
    underlying="INDEX:SPX",
    dates=("2021-01-04",),
    start="2021-01-04T14:35:00Z",
    end="2021-01-04T21:00:00Z",
    rows=tuple(f"SPXW,index_option,{cp},3700,2021-01-04,cash,100,USD,10" for cp in ("call", "put")),
    files={
        _option_file("spxw", "20210104", "indexoption", "european"): "_37000000_20210104",
        "index/usa/minute/spx/20210104_trade.zip": "csv",
    },
    source="trades",
    hedge_extra='multiplier = 100\nlot = 1\nspread = {kind = "fixed", half = 0.25}',
)
PARITY = Day(
    name="parity",
    underlying="INDEX:SPX",
    dates=("2021-01-05",),
    start="2021-01-05T14:35:00Z",
    end="2021-01-05T20:55:00Z",
    rows=tuple(f"SPXW,index_option,{cp},3800,2021-01-06,cash,100,USD,10" for cp in ("call", "put")),
    files={_option_file("spxw", "20210105", "indexoption", "european"): "csv"},
    source="parity_forward",
    hedge_extra='multiplier = 100\nlot = 1\nspread = {kind = "fixed", half = 0.25}',
)


def changed(day: Day, **values: Any) -> Day:
    """The day with other parts."""
    return day._replace(**values)


def day_of(text: str) -> date:
    """A date from its ISO text."""
    return date.fromisoformat(text)
