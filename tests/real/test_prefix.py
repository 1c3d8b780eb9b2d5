"""No look-ahead, by prefix invariance: what comes after an instant changes nothing that was said up to it.

Each recorded day is played once whole. Then, for fifty random instants T, its files are written again with every row that
is known only after T cut or scrambled, and the run that reads those must say the same up to T, byte for byte. Planted
leaks are caught by the same comparison.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.app import config as configs
from bot.app.wiring import Run
from bot.core.errors import DataError
from bot.core.events import FeedEvent
from bot.core.ports import Band, BandInput
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import NS_PER_MINUTE, Nanos, parse_instant
from tests.realdata import lean_root
from tests.replay.days import (
    ES,
    GOOG,
    PARITY,
    SPXW,
    TWX,
    Day,
    changed,
    play,
    read_recordings,
    said,
    write_config,
    write_lean,
)

pytestmark = pytest.mark.real

BAND = 'kind = "delta_band"\nhalf_width = {}\nto = "edge"'
DAYS = [
    ES,
    changed(ES, name="es_band", policy=BAND.format(100)),
    changed(GOOG, policy=BAND.format(250)),
    TWX,
    SPXW,
    PARITY,
]
INSTANTS = 50
Tamper = Callable[[Run], None]


def draw_instants(day: Day, rng: random.Random) -> list[Nanos]:
    """Instants of the session, half of them whole minutes, where bars end."""
    start, end = parse_instant(day.start), parse_instant(day.end)
    drawn = [rng.randrange(start, end) for _ in range(INSTANTS)]
    return [ts // NS_PER_MINUTE * NS_PER_MINUTE if i % 2 else ts for i, ts in enumerate(drawn)]


def cut(instant: Nanos) -> Callable[[str, Sequence[tuple[Nanos, str]]], Iterable[str]]:
    """Only the rows known by an instant."""
    return lambda _, rows: [line for ts, line in rows if ts <= instant]


def scramble(instant: Nanos, rng: random.Random) -> Callable[[str, Sequence[tuple[Nanos, str]]], Iterable[str]]:
    """The rows known by an instant as they are; later ones another market: other prices, some withdrawn, some dropped."""

    def rewrite(path: str, rows: Sequence[tuple[Nanos, str]]) -> Iterable[str]:
        level = 1.0
        for ts, line in rows:
            if ts <= instant:
                yield line
                continue
            level *= rng.uniform(0.97, 1.03)
            if rng.random() < 0.2:
                continue
            yield another(line, level, withdrawn=path.endswith("quote.zip") and rng.random() < 0.1)

    return rewrite


def another(line: str, level: float, *, withdrawn: bool) -> str:
    """A row of the same form at other prices, the ask withdrawn when asked for."""
    label, *fields = line.split(",")
    prices = {i for i in range(len(fields)) if i != len(fields) - 1 and not (len(fields) == 10 and i == 4)}
    moved = [f"{float(text) * level:.2f}" if i in prices and text else text for i, text in enumerate(fields)]
    if withdrawn and len(fields) == 10:
        moved[5:] = ["", "", "", "", "0"]
    return ",".join([label, *moved])


def differences(day: Day, folder: Path, tamper: Tamper | None = None, *, instants: int = INSTANTS) -> list[str]:
    """The instants up to which a run on a changed future says something else than the run on the whole day."""
    root = lean_root()
    recordings = read_recordings(root, day.files)
    place = folder / "lean"
    write_lean(place, root, recordings)
    config = configs.load_config(write_config(folder, day, place))
    whole = said(play(config, tamper=tamper)[1])
    assert sum(b'"fact":"fill"' in fact for _, fact in whole) >= 10, "a day without trades proves nothing"
    times = [ts for ts, _ in whole]
    rng = random.Random(day.name)
    found: list[str] = []
    for number, instant in enumerate(draw_instants(day, rng)[:instants]):
        how, rewrite = ("scrambled", scramble(instant, rng)) if number % 3 else ("cut", cut(instant))
        write_lean(place, root, recordings, rewrite)
        expected = whole[: bisect_right(times, instant)]
        try:
            seen = said(play(config, tamper=tamper)[1], instant)
        except DataError as fault:
            seen = [] if "found no row of it" in str(fault) else [(0, str(fault).encode())]
        if seen != expected:
            found.append(f"{how} after {instant}: {len(seen)} facts instead of {len(expected)}")
    return found


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.name)
def test_the_future_changes_nothing_that_was_said_before(day: Day, tmp_path: Path) -> None:
    """Fifty times a day, every row known after T cut or scrambled, each decision, order and fill up to T is the same."""
    assert differences(day, tmp_path) == []


class Early:
    """A feed whose bars are known when they begin: the leak that a bar's label invites."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.name = inner.name
        self.recorded = True

    async def __aenter__(self) -> Early:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *fault: Any) -> None:
        await self._inner.__aexit__(*fault)

    async def events(self) -> AsyncIterator[FeedEvent]:
        async for event in self._inner.events():
            if isinstance(event, QuoteBatch | TradeBatch):
                columns = {name: getattr(event, name) for name in event.__slots__}
                times = {name: columns[name] - NS_PER_MINUTE for name in ("ts_event", "ts_recv")}
                yield type(event)(**(columns | times))
            else:
                yield event

    def report(self) -> Any:
        return self._inner.report()


class Peeking:
    """A policy that looks up the file for where the price will be in five minutes, and waits when it likes that better."""

    ahead = 5 * NS_PER_MINUTE
    name = "peeking"

    def __init__(self, known: np.ndarray[Any, np.dtype[np.int64]], mids: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        self._known, self._mids = known, mids

    def band(self, x: BandInput) -> Band:
        row = min(int(np.searchsorted(self._known, x.now + self.ahead, side="right")), len(self._known)) - 1
        later = float(self._mids[row]) if row >= 0 else float(x.spot)
        lean = 20.0 if later > x.spot else -20.0
        return Band(x.want + lean, x.want + lean)


def peek(day: Day, place: Path) -> Tamper:
    """Give the dynamic account a policy that reads ahead in the file of its hedge."""
    future = {path: pattern for path, pattern in day.files.items() if path.startswith("future/")}

    def tamper(run: Run) -> None:
        rows = [row for recording in read_recordings(place, future) for row in recording.rows]
        fields = [line.split(",") for _, line in rows]
        quoted = [
            (ts, (float(f[4]) + float(f[9])) / 2) for (ts, _), f in zip(rows, fields, strict=True) if f[4] and f[9]
        ]
        known = np.array([ts for ts, _ in quoted], dtype=np.int64)
        slot: Any = run.accounts[0].slots[0].strategy
        slot.policy = Peeking(known, np.array([mid for _, mid in quoted]))

    return tamper


def test_a_feed_that_stamps_bars_at_their_start_is_caught(tmp_path: Path) -> None:
    """When bars are known at their label the same comparison finds instants at which the future was used."""

    def tamper(run: Run) -> None:
        run.feeds = [Early(feed) for feed in run.feeds]

    assert differences(ES, tmp_path, tamper, instants=12)


def test_a_strategy_that_peeks_is_caught(tmp_path: Path) -> None:
    """When a policy reads ahead in the file the same comparison finds it."""
    assert differences(ES, tmp_path, peek(ES, tmp_path / "lean"), instants=12)
