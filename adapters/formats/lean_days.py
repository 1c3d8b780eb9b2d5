"""Lean days are the wanted instruments over the played days of a LEAN Data folder; law: every file and member is
located before the first event, only wanted contracts are read, and what a day lacks is an error or a
counted, flagged gap.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters.formats.archive import Archive
from adapters.formats.columns import trades_of
from adapters.formats.hours import MarketHours
from adapters.formats.jumps import JumpWatch
from adapters.formats.lean import (
    FINER,
    LAYOUTS,
    STRIKE_SCALE,
    Content,
    Rows,
    Series,
    member_key,
    paths_of,
    quotes_from,
    read_rows,
    series_of,
    trades_from,
)
from adapters.formats.options import PriceSource, ReplayOptions, Resolution
from adapters.formats.parity import Leg, parity_prints
from adapters.formats.source import Piece, Single
from adapters.formats.tally import Tally, relative_name
from adapters.formats.timeline import Timeline, build_timeline
from adapters.formats.zones import CHICAGO, NEW_YORK, UTC_ZONE, day_start, wall_start
from bot.core.errors import DataError
from bot.core.events import FeedState
from bot.domain.instruments import Future, Index, Instrument, OptionContract, parse_occ
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import NS_PER_DAY, Nanos, iso

REPEAT_ROWS: Final = 10
"""A member of at least this many rows equal to the day before is a repeated file, not a coincidence."""


class Found(NamedTuple):
    """A series located on one day."""

    series: Series
    column: int
    resolution: Resolution
    archive: Archive
    member: str


class ChainPlan(NamedTuple):
    """A chain whose parity gives an underlying's price on one day."""

    underlying: Instrument
    column: int
    expiry: Nanos
    resolution: Resolution
    archive: Archive
    series: Series
    members: tuple[str, ...]


class DayPlan(NamedTuple):
    """What is read on one day, and what is said about it."""

    day: date
    found: list[Found]
    chains: list[ChainPlan]
    singles: list[Single]


class LeanDays:
    """The wanted instruments over the played days of a LEAN Data folder."""

    def __init__(self, options: ReplayOptions, wanted: Sequence[Instrument], tally: Tally) -> None:
        self._options = options
        self._wanted = [item for item in wanted if not options.only or item.id in options.only]
        self._all = {item.id: item for item in wanted}
        self._tally = tally
        self._timeline: Timeline | None = None
        self._hours = MarketHours()
        self._plans: list[DayPlan] = []
        self._archives: dict[Path, Archive] = {}
        self._whole: dict[tuple[Path, str], Rows] = {}
        self._yesterday: dict[tuple[str, Content], tuple[date, bytes]] = {}
        self._jumps = JumpWatch({})
        self._root: Path | None = None
        self._dates: tuple[date, ...] = ()

    def instruments(self) -> list[Instrument]:
        """The successors of wanted instruments after splits and renames within the played days."""
        return list(self._follow().successors.values())

    def open(self, columns: Mapping[str, int]) -> None:
        """Locate every file and member of every day, digest the files; DataError naming what is missing."""
        timeline = self._follow()
        everything = {**self._all, **timeline.successors}
        mine = {item.id: item for item in [*self._wanted, *timeline.successors.values()] if item.id in columns}
        self._all = everything
        planned = [self._plan_series(mine[key], mine) for key in sorted(mine)]
        series = [item for item in planned if item is not None]
        derived = [mine[key] for key in sorted(mine) if self._source(mine[key]) == "parity_forward"]
        previous: date | None = None
        for day in self._dates:
            plan = self._plan_day(day, series, derived, columns)
            plan.singles.extend(timeline.events_between(previous, day) if previous is not None else ())
            self._plans.append(plan)
            self._release(plan)
            previous = day
        self._check_found(series, derived)
        watched = {columns[name]: name for name in timeline.without_reference if name in columns}
        self._jumps = JumpWatch(watched)

    def pieces(self) -> Iterator[Piece]:
        """One piece a day; rows past the next day's first instant are the feed's to hold back."""
        for plan, later in zip(self._plans, [*self._plans[1:], None], strict=True):
            quotes: list[QuoteBatch] = []
            trades: list[TradeBatch] = []
            singles = list(plan.singles)
            for found in plan.found:
                batch, state = self._read(found, plan.day)
                (quotes if isinstance(batch, QuoteBatch) else trades).append(batch)  # type: ignore[arg-type]  # one list or the other by its class
                singles += state
            trades += [self._derive(chain, plan.day) for chain in plan.chains]
            singles += self._jumps.look(quotes, trades)
            horizon = None if later is None else min(day_start(later.day, z) for z in (UTC_ZONE, NEW_YORK, CHICAGO))
            self._release(plan)
            yield Piece(quotes, trades, singles, horizon)

    def _release(self, plan: DayPlan) -> None:
        """Let go of a day's packed bytes: a year of days must not add up in memory."""
        for archive in [*(item.archive for item in plan.found), *(item.archive for item in plan.chains)]:
            archive.release()

    # ---- before the first event

    def _folder(self) -> Path:
        if self._root is None:
            given = self._options.root or os.environ.get("EVENKEEL_DATA", "")
            if not given:
                raise DataError(
                    "LEAN data: expected a Data folder, found neither `root` in the feed nor EVENKEEL_DATA set"
                )
            self._root = Path(given).expanduser()
            if not self._root.is_dir():
                raise DataError(f"{self._root}: expected LEAN's Data folder, found no such folder")
        return self._root

    def _follow(self) -> Timeline:
        if self._timeline is None:
            self._dates = self._played_days()
            self._hours = MarketHours.of_root(self._folder())
            self._timeline = build_timeline(self._folder(), list(self._all.values()), self._share_days(), self._tally)
        return self._timeline

    def _share_days(self) -> list[date]:
        """The played days on which shares trade: a change takes effect at the first of them after its last day."""
        if self._options.closed_days == "play":
            return list(self._dates)
        return [day for day in self._dates if not self._hours.is_closed("equity", "usa", "", day)]

    def _played_days(self) -> tuple[date, ...]:
        days = self._options.dates
        if not days:
            raise DataError('LEAN data: expected the days to play, found none; set dates = ["2020-01-06", ...]')
        if list(days) != sorted(days):
            if self._options.unsorted == "error":
                late = next(b for a, b in pairwise(days) if b < a)
                raise DataError(
                    f'dates: expected days in order, found {late} too late; set unsorted = "sort" to repair'
                )
            self._tally.repair("unsorted_days", sum(b < a for a, b in pairwise(days)))
        once = tuple(sorted(set(days)))
        if len(once) < len(days):
            twice = next(day for day in once if days.count(day) > 1)
            if self._options.repeated == "error":
                raise DataError(
                    f'dates: expected each day once, found {twice} again; set repeated = "last" to play it once'
                )
            self._tally.repair("repeated_day", len(days) - len(once))
        return once

    def _source(self, instrument: Instrument) -> PriceSource | None:
        """Where an underlying's price comes from; None for an instrument that is played by its quotes."""
        if isinstance(instrument, OptionContract):
            return None
        options = [item for item in self._all.values() if isinstance(item, OptionContract)]
        given = self._options.sources.get(instrument.id)
        if given is not None:
            return given
        is_underlying = any(item.underlying == instrument.id for item in options)
        return self._options.underlying if is_underlying or isinstance(instrument, Index) else None

    def _plan_series(self, instrument: Instrument, mine: Mapping[str, Instrument]) -> Series | None:
        source = self._source(instrument)
        if source == "parity_forward":
            series_of(instrument, "quote")
            if not any(isinstance(i, OptionContract) and i.underlying == instrument.id for i in mine.values()):
                raise DataError(
                    f"{instrument.id}: parity_forward needs a wanted option on it to find the chain, found none"
                )
            return None
        if isinstance(instrument, Index) and source != "trades":
            raise DataError(
                f'{instrument.id}: an index has no quotes in LEAN data; set underlying = "trades" (its prints) or '
                f'"parity_forward"'
            )
        content: Content = "trade" if source == "trades" else "quote"
        underlying = self._all.get(instrument.underlying) if isinstance(instrument, OptionContract) else None
        return series_of(instrument, content, underlying)

    def _resolution(self, series: Series) -> Resolution:
        given = self._options.resolutions
        return given.get(series.instrument) or given.get(series.kind) or self._options.resolution

    def _plan_day(
        self,
        day: date,
        series: Sequence[Series],
        derived: Sequence[Instrument],
        columns: Mapping[str, int],
    ) -> DayPlan:
        plan = DayPlan(day, [], [], [])
        for item in series:
            if self._is_alive(item.instrument, day) and self._is_open(item, day, plan):
                self._locate(item, day, columns[item.instrument], plan)
        for underlying in derived:
            if self._is_alive(underlying.id, day):
                self._locate_chain(underlying, day, columns[underlying.id], plan)
        return plan

    def _is_alive(self, instrument_id: str, day: date) -> bool:
        instrument = self._all[instrument_id]
        if isinstance(instrument, OptionContract) and parse_occ(instrument_id).expiration < day:
            return False
        return self._follow().is_read(instrument_id, day)

    def _is_open(self, series: Series, day: date, plan: DayPlan) -> bool:
        early = self._hours.early_close(series.kind, series.market, series.ticker, day)
        closed = self._is_closed(series, day)
        if early is not None and not closed:
            self._tally.note(f"{day}: the {series.market} market closes early, at {early} on its exchange's clock")
        if not closed:
            return True
        found = self._find(series, day)
        if self._options.closed_days == "play" and found is not None:
            self._tally.note(f"{day} ({day:%A}): the market was closed; the file is played as asked")
            return True
        if self._options.closed_days == "error":
            raise DataError(f"{day} ({day:%A}): expected a day the {series.market} market was open, found a closed one")
        text = f"{day} ({day:%A}): the {series.market} market was closed, the day is left out"
        self._tally.note(text)
        if not any(isinstance(single, FeedState) for single in plan.singles):
            self._tally.repair("closed_days")
            start = day_start(day, LAYOUTS[series.kind].zone)
            plan.singles.append(FeedState(ts_recv=start, feed=self._options.name, state="gap", text=text))
        if found is not None:
            self._refuse_closed(series, day, *found)
        return False

    def _is_closed(self, series: Series, day: date) -> bool:
        names = (series.kind, series.market, series.ticker)
        if self._hours.is_closed(*names, day):
            return True
        # Futures trade short hours on most holidays: a file says they did, its absence that they did not.
        return series.market != "usa" and self._hours.is_holiday(*names, day) and self._find(series, day) is None

    def _refuse_closed(self, series: Series, day: date, resolution: Resolution, archive: Archive) -> None:
        """Count the rows a file holds for a day without a market: they can only be stale or wrong."""
        member = self._member(series, archive)
        if member is None or resolution in ("hour", "daily"):
            return
        rows = sum(1 for line in archive.read([member])[0].splitlines() if line.strip())
        where = f"{relative_name(archive.path, self._root)}!{member}"
        self._tally.digest(archive.path, self._root)
        self._tally.refuse("closed_day", rows, where=where)
        self._tally.note(f"{where}: {rows} rows recorded on {day}, when the market was closed, are not played")

    def _find(self, series: Series, day: date) -> tuple[Resolution, Archive] | None:
        for resolution in FINER[self._resolution(series)]:
            for path in paths_of(self._folder(), series, resolution, day):
                if path.is_file():
                    return resolution, self._archives.setdefault(path, Archive(path))
        return None

    def _locate(self, series: Series, day: date, column: int, plan: DayPlan) -> None:
        found = self._find(series, day)
        if found is None:
            self._miss(series, day, plan)
            return
        resolution, archive = found
        if resolution != self._resolution(series):
            self._tally.note(
                f"{series.instrument}: no {self._resolution(series)} {series.content}s, {resolution} ones are played"
            )
        self._tally.digest(archive.path, self._root)
        member = self._member(series, archive)
        if member is None:
            self._tally.note(f"{relative_name(archive.path, self._root)}: no rows of {series.instrument}")
            return
        plan.found.append(Found(series, column, resolution, archive, member))

    def _member(self, series: Series, archive: Archive) -> str | None:
        names = archive.names_by(lambda name: member_key(series, name)).get(series.member, [])
        if len(names) > 1:
            raise DataError(f"{archive.path}: expected one member of {series.instrument}, found {', '.join(names)}")
        return names[0] if names else None

    def _miss(self, series: Series, day: date, plan: DayPlan) -> None:
        wanted = self._resolution(series)
        paths = [path for r in FINER[wanted] for path in paths_of(self._folder(), series, r, day)]
        if self._options.missing_days == "error":
            raise DataError(self._missing_text(series, day, paths))
        text = f"{day}: no {series.content} file of {series.instrument}, the day is left out for it"
        self._tally.note(text)
        self._tally.repair("missing_days")
        start = day_start(day, LAYOUTS[series.kind].zone)
        plan.singles.append(
            FeedState(ts_recv=start, feed=self._options.name, state="gap", instrument=series.instrument, text=text)
        )

    def _missing_text(self, series: Series, day: date, paths: Sequence[Path]) -> str:
        wanted = self._resolution(series)
        if not paths_of(self._folder(), series, wanted, day):
            return (
                f"{series.instrument}: {series.kind}/{series.market}/{wanted} holds trade bars only, and there are "
                f'no finer quotes; set underlying = "trades"'
            )
        text = (
            f"{paths[0]}: expected the {wanted} {series.content}s of {series.instrument} on {day}, found no such file"
        )
        coarser = [r for r in FINER["daily"] if r not in FINER[wanted]]
        for resolution in reversed(coarser):
            for path in paths_of(self._folder(), series, resolution, day):
                if path.is_file():
                    return f'{text}; {path.name} has {resolution} bars: set resolution = "{resolution}" to play those'
        other = series._replace(content="trade" if series.content == "quote" else "quote")
        for path in paths_of(self._folder(), other, wanted, day):
            if path.is_file():
                return f"{text}; {path.name} has {other.content}s"
        return text

    def _locate_chain(self, underlying: Instrument, day: date, column: int, plan: DayPlan) -> None:
        options = [
            item
            for item in self._all.values()
            if isinstance(item, OptionContract) and item.underlying == underlying.id and self._is_alive(item.id, day)
        ]
        if not options:
            return
        nearest = min(options, key=lambda item: (item.expiry, item.id))
        series = series_of(nearest, "quote", underlying)
        if self._is_closed(series, day):
            return
        found = self._find(series, day)
        if found is None:
            self._miss(series, day, plan)
            return
        resolution, archive = found
        self._tally.digest(archive.path, self._root)
        expiration = f"_{parse_occ(nearest.id).expiration:%Y%m%d}"
        members = tuple(name for name in archive.names() if member_key(series, name).endswith(expiration))
        exactness = "" if nearest.style == "european" else "; of American quotes parity is an approximation"
        dividends = "" if isinstance(underlying, Future) else ", dividends before then not added back"
        self._tally.note(
            f"{underlying.id}: {day}: price derived from put-call parity of {len(members)} contracts of "
            f"{parse_occ(nearest.id).root} expiring {iso(nearest.expiry)}, rate {self._options.rate:g}{dividends}{exactness}"
        )
        plan.chains.append(ChainPlan(underlying, column, nearest.expiry, resolution, archive, series, members))

    def _check_found(self, series: Sequence[Series], derived: Sequence[Instrument]) -> None:
        seen = {found.series.instrument for plan in self._plans for found in plan.found}
        wanted = {item.id for item in self._wanted}
        for item in series:
            if item.instrument in seen or item.instrument not in wanted:
                continue
            files = sorted(
                {
                    path.name
                    for day in self._dates
                    for path in paths_of(self._folder(), item, self._resolution(item), day)[:1]
                }
            )
            raise DataError(
                f"{self._folder() / item.kind / item.market}: expected {item.content}s of {item.instrument} in "
                f"{', '.join(files) or 'a file of its resolution'} on {', '.join(map(str, self._dates[:5]))}"
                f"{' ...' if len(self._dates) > 5 else ''}, found no row of it"
            )
        for underlying in derived:
            if not any(chain.underlying.id == underlying.id for plan in self._plans for chain in plan.chains):
                raise DataError(f"{underlying.id}: parity_forward found no chain on any played day")

    # ---- reading

    def _read(self, found: Found, day: date) -> tuple[QuoteBatch | TradeBatch, list[Single]]:
        layout = LAYOUTS[found.series.kind]
        where = f"{relative_name(found.archive.path, self._root)}!{found.member}"
        states: list[Single] = []
        if found.resolution in ("hour", "daily"):
            rows, chosen = self._rows_of_whole(found, day, where)
        else:
            data = found.archive.read([found.member])[0]
            states = self._compare_with_yesterday(found.series, day, data, where)
            rows = read_rows(
                data,
                content=found.series.content,
                resolution=found.resolution,
                day=day,
                scale=layout.scale,
                where=where,
            )
            chosen = None
        make = quotes_from if found.series.content == "quote" else trades_from
        batch = make(
            rows,
            column=found.column,
            resolution=found.resolution,
            zone=layout.zone,
            options=self._options,
            tally=self._tally,
            where=where,
            chosen=chosen,
        )
        return batch, states

    def _rows_of_whole(self, found: Found, day: date, where: str) -> tuple[Rows, NDArray[np.bool_]]:
        key = (found.archive.path, found.member)
        if key not in self._whole:
            data = found.archive.read([found.member])[0]
            self._whole[key] = read_rows(
                data,
                content=found.series.content,
                resolution=found.resolution,
                day=day,
                scale=LAYOUTS[found.series.kind].scale,
                where=where,
            )
        rows = self._whole[key]
        start = wall_start(day)
        chosen = (rows.wall >= start) & (rows.wall < start + NS_PER_DAY)
        if day == self._dates[0]:
            chosen |= rows.bad_time  # counted once, on the first day
        return rows, chosen

    def _compare_with_yesterday(self, series: Series, day: date, data: bytes, where: str) -> list[Single]:
        key = (series.instrument, series.content)
        digest = hashlib.sha256(data).digest()
        before = self._yesterday.get(key)
        self._yesterday[key] = (day, digest)
        if before is None or before[1] != digest or data.count(b"\n") < REPEAT_ROWS:
            return []
        text = f"{where}: the rows of {day} repeat those of {before[0]}"
        if self._options.repeated == "error":
            raise DataError(f'{text}; set repeated = "keep" to play and flag them')
        self._tally.repair("repeated_day")
        self._tally.note(text)
        start = day_start(day, LAYOUTS[series.kind].zone)
        return [
            FeedState(ts_recv=start, feed=self._options.name, state="stale", instrument=series.instrument, text=text)
        ]

    def _derive(self, chain: ChainPlan, day: date) -> TradeBatch:
        layout = LAYOUTS[chain.series.kind]
        legs = []
        own = Tally(self._options.max_refused)
        for name, data in zip(chain.members, chain.archive.read(list(chain.members)), strict=True):
            where = f"{relative_name(chain.archive.path, self._root)}!{name}"
            rows = read_rows(
                data, content="quote", resolution=chain.resolution, day=day, scale=layout.scale, where=where
            )
            start = wall_start(day)
            batch = quotes_from(
                rows,
                column=0,
                resolution=chain.resolution,
                zone=layout.zone,
                options=self._options,
                tally=own,
                where=where,
                chosen=(rows.wall >= start) & (rows.wall < start + NS_PER_DAY),
            )
            side, strike, _ = member_key(chain.series, name).split("_")
            cp = 1 if side == "call" else -1
            legs.append(Leg(cp, int(strike) / STRIKE_SCALE, batch.ts_recv, batch.bid, batch.ask))
        ts, price = parity_prints(
            legs,
            expiry=chain.expiry,
            rate=self._options.rate,
            discounted=not isinstance(chain.underlying, Future),
        )
        if not len(ts):
            raise DataError(
                f"{chain.archive.path}: expected a strike with a two-sided call and put to derive "
                f"{chain.underlying.id} from, found none on {day}"
            )
        return trades_of(chain.column, ts_event=ts, ts_recv=ts, price=price)
