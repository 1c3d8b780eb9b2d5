"""A timeline is what corporate changes do to the instruments of a run over its played days; law: an old contract ends
where its successor begins, and every successor is known before the first event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import msgspec

from adapters.formats.corporate import Change, distributions, read_factors, read_map, renames, symbol_on
from adapters.formats.tally import Tally
from adapters.formats.zones import NEW_YORK, day_start
from bot.core.events import Conversion, Corporate
from bot.domain.instruments import Instrument, OptionContract, Spot, occ_id, parse_occ

CENT = Decimal("0.01")


class Timeline:
    """Corporate events by played day, successors of instruments, and the days each instrument's rows are read."""

    def __init__(self) -> None:
        self.events: list[tuple[date, Corporate]] = []
        self.successors: dict[str, Instrument] = {}
        self.first: dict[str, date] = {}
        self.last: dict[str, date] = {}
        self.without_reference: list[str] = []

    def is_read(self, instrument_id: str, day: date) -> bool:
        """True when the instrument exists on the day as far as corporate changes go."""
        return self.first.get(instrument_id, date.min) <= day <= self.last.get(instrument_id, date.max)

    def events_between(self, before: date | None, until: date) -> Iterator[Corporate]:
        """The events of played days after `before` up to `until`."""
        for day, event in self.events:
            if (before is None or day > before) and day <= until:
                yield event


def build_timeline(root: Path, wanted: Sequence[Instrument], dates: Sequence[date], tally: Tally) -> Timeline:
    """The timeline of the wanted shares and the options on them over the played days, from map and factor files."""
    timeline = Timeline()
    for spot in wanted:
        if isinstance(spot, Spot) and spot.id.startswith("US:"):
            options = [item for item in wanted if isinstance(item, OptionContract) and item.underlying == spot.id]
            _follow(timeline, root, spot, options, dates=dates, tally=tally)
    timeline.events.sort(key=lambda item: item[0])
    return timeline


def _follow(
    timeline: Timeline, root: Path, spot: Spot, options: list[OptionContract], *, dates: Sequence[date], tally: Tally
) -> None:
    changes, known = _changes(root / "equity" / "usa", spot.symbol.lower(), dates, tally, root)
    if not known:
        timeline.without_reference.append(spot.id)
    for change in changes:
        day = next((day for day in dates if day > change.last_day), None)
        if day is None or change.last_day < dates[0]:
            continue
        options = [item for item in options if parse_occ(item.id).expiration >= day]
        event, spot, options = _apply(timeline, change, spot, options, day=day)
        timeline.events.append((day, event))
        tally.note(f"{day}: {event.instrument}: {change.text}")


def _changes(folder: Path, symbol: str, dates: Sequence[date], tally: Tally, root: Path) -> tuple[list[Change], bool]:
    """The changes of a share in order, and whether there is a factor file to know them from."""
    if len(dates) < 2:
        return [], True  # nothing can happen between the days of one
    map_path = _map_of(folder / "map_files", symbol, dates[0])
    renamed: list[Change] = []
    permanent = symbol
    if map_path is not None:
        tally.digest(map_path, root)
        renamed = renames(read_map(map_path))
        permanent = map_path.stem
    factor_path = folder / "factor_files" / f"{permanent}.csv"
    if not factor_path.is_file():
        return renamed, False
    tally.digest(factor_path, root)
    # At one date what shares became comes before what they are called: `distributions` first, the sort is stable.
    return sorted([*distributions(read_factors(factor_path), renamed), *renamed], key=lambda c: c.last_day), True


def _map_of(folder: Path, symbol: str, day: date) -> Path | None:
    """The map file of the share that traded under a symbol on a day: by name, else the one that says so."""
    if not folder.is_dir():
        return None
    direct = folder / f"{symbol}.csv"
    if direct.is_file() and symbol_on(read_map(direct), day) == symbol:
        return direct
    for path in sorted(folder.glob("*.csv")):
        rows = read_map(path)
        if rows and rows[0].day <= day and symbol_on(rows, day) == symbol:
            return path
    return None


def _apply(
    timeline: Timeline, change: Change, spot: Spot, options: list[OptionContract], *, day: date
) -> tuple[Corporate, Spot, list[OptionContract]]:
    ts = day_start(day, NEW_YORK)
    if change.what == "rename":
        renamed = msgspec.structs.replace(spot, id=f"US:{change.symbol.upper()}")
        moved = [_renamed(item, spot, renamed) for item in options]
        conversions = _succeed(timeline, [spot, *options], [renamed, *moved], day=day, ratio=Decimal(1))
        event = Corporate(ts_recv=ts, what="rename", instrument=spot.id, conversions=conversions, text=change.text)
        return event, renamed, moved
    if change.what == "split" and change.ratio == change.ratio.to_integral_value() and change.ratio > 1:
        split = [_split(item, change.ratio) for item in options]
        conversions = _succeed(timeline, options, split, day=day, ratio=change.ratio)
        event = Corporate(
            ts_recv=ts, what="split", instrument=spot.id, ratio=change.ratio, conversions=conversions, text=change.text
        )
        return event, spot, split
    adjusted = change.adjusted and not (change.what == "split" and options)
    text = (
        change.text if adjusted or not change.adjusted else f"{change.text}: contracts deliver an odd number of shares"
    )
    event = Corporate(
        ts_recv=ts,
        what=change.what,
        instrument=spot.id,
        cash=change.cash,
        ratio=change.ratio,
        adjusted=adjusted,
        text=text,
    )
    return event, spot, options


def _split(option: OptionContract, ratio: Decimal) -> OptionContract:
    """The contract after a whole n-for-1 split: n times as many, strike divided by n to the cent."""
    parts = parse_occ(option.id)
    strike = (option.strike / ratio).quantize(CENT, rounding=ROUND_HALF_UP)
    strike = strike.quantize(Decimal(1)) if strike == strike.to_integral_value() else strike.normalize()
    new_id = occ_id(parts.root, parts.expiration, parts.cp, strike)
    return msgspec.structs.replace(option, id=new_id, strike=strike)


def _renamed(option: OptionContract, old: Spot, new: Spot) -> OptionContract:
    parts = parse_occ(option.id)
    root = new.symbol if parts.root == old.symbol else parts.root
    return msgspec.structs.replace(option, id=occ_id(root, parts.expiration, parts.cp, parts.strike), underlying=new.id)


def _succeed(
    timeline: Timeline, old: Sequence[Instrument], new: Sequence[Instrument], *, day: date, ratio: Decimal
) -> tuple[Conversion, ...]:
    conversions = []
    for before, after in zip(old, new, strict=True):
        timeline.successors[after.id] = after
        timeline.last[before.id] = day - timedelta(days=1)
        timeline.first[after.id] = day
        conversions.append(Conversion(before.id, after.id, ratio))
    return tuple(conversions)
