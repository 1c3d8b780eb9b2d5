"""LEAN's Data folder holds one zip per day (hours and days: per symbol) of bars or ticks, one CSV member per contract.

Law: a bar's label is its start, so its close is known at its end and `ts_recv` is never earlier; a blank side is
withdrawn; times are wall clocks of the data's zone (New York for shares and options, Chicago for indices, UTC
for futures).
"""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from adapters.formats.archive import Archive
from adapters.formats.columns import (
    CROSSED,
    SUSPICIOUS,
    UNPARSABLE,
    Cells,
    Sheet,
    blank_cells,
    count_faults,
    find_quote_faults,
    find_trade_faults,
    first_fields,
    order_rows,
    quotes_of,
    read_sheet,
    take_quotes,
    take_trades,
    trades_of,
)
from adapters.formats.options import ReplayOptions, Resolution
from adapters.formats.tally import Tally
from adapters.formats.zones import CHICAGO, NEW_YORK, UTC_ZONE, utc_of_wall, wall_start
from bot.core.errors import DataError
from bot.domain.instruments import MONTH_CODES, Future, Index, Instrument, OptionContract, Spot, parse_occ
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND, Nanos, iso

Kind: TypeAlias = Literal["equity", "option", "indexoption", "index", "future", "futureoption"]
Content: TypeAlias = Literal["quote", "trade"]


class Layout(NamedTuple):
    """Data zone and price scale of one folder."""

    zone: ZoneInfo
    scale: float


LAYOUTS: Final[dict[Kind, Layout]] = {
    "equity": Layout(NEW_YORK, 10_000.0),
    "option": Layout(NEW_YORK, 10_000.0),
    "indexoption": Layout(NEW_YORK, 10_000.0),
    "index": Layout(CHICAGO, 1.0),
    "future": Layout(UTC_ZONE, 1.0),
    "futureoption": Layout(UTC_ZONE, 1.0),
}
BAR_NS: Final[dict[Resolution, Nanos]] = {
    "tick": 0,
    "second": NS_PER_SECOND,
    "minute": NS_PER_MINUTE,
    "hour": 60 * NS_PER_MINUTE,
    "daily": NS_PER_DAY,
}
FINER: Final[dict[Resolution, tuple[Resolution, ...]]] = {
    "daily": ("daily", "hour", "minute", "second", "tick"),
    "hour": ("hour", "minute", "second", "tick"),
    "minute": ("minute", "second", "tick"),
    "second": ("second", "tick"),
    "tick": ("tick",),
}
WIDTHS: Final[dict[tuple[Content, bool], tuple[int, ...]]] = {
    ("quote", False): (11,),
    ("trade", False): (6, 5),
    ("quote", True): (8, 7),
    ("trade", True): (6, 5),
}
"""Fields of a row by content and tick or bar; option and future ticks lack the condition of share ticks."""
STRIKE_SCALE: Final = 10_000
_OPTION_MEMBER = re.compile(r"_(call|put)_(\d+)_(\d{8})\.csv$", re.IGNORECASE)
_FUTURE_MEMBER = re.compile(r"_(\d{6})(?:_\d{8})?\.csv$", re.IGNORECASE)
_FUTURE_ID = re.compile(rf"^([A-Z0-9]+):([A-Z0-9]+)([{MONTH_CODES}])(\d{{4}})$")


class Series(NamedTuple):
    """One instrument's rows in the folder: where they lie and what they hold. `member` names the CSV inside a zip."""

    instrument: str
    kind: Kind
    market: str
    ticker: str
    content: Content
    member: str = ""
    month: str = ""
    style: str = ""


# --------------------------------------------------------------------------- names


def series_of(instrument: Instrument, content: Content, underlying: Instrument | None = None) -> Series:
    """Where LEAN keeps an instrument; DataError for one it has no folder for. An option needs its underlying."""
    if isinstance(instrument, Spot) and instrument.id.startswith("US:"):
        return Series(instrument.id, "equity", "usa", instrument.symbol.lower(), content)
    if isinstance(instrument, Index) and instrument.id.startswith("INDEX:"):
        return Series(instrument.id, "index", "usa", instrument.symbol.lower(), content)
    if isinstance(instrument, Future):
        market, root, month = _future_parts(instrument.id)
        return Series(instrument.id, "future", market, root, content, member=month)
    if isinstance(instrument, OptionContract):
        return _option_series(instrument, content, underlying)
    raise DataError(
        f"{instrument.id}: expected a US: share, an INDEX: level, a dated future or a listed option on one of them, "
        f"found {type(instrument).__name__}, for which the LEAN format has no folder"
    )


def _option_series(option: OptionContract, content: Content, underlying: Instrument | None) -> Series:
    parts = parse_occ(option.id)
    side = "call" if parts.cp > 0 else "put"
    member = f"{side}_{int(parts.strike * STRIKE_SCALE)}_{parts.expiration:%Y%m%d}"
    ticker = parts.root.lower()
    if isinstance(underlying, Future) or (underlying is None and _FUTURE_ID.match(option.underlying)):
        market, _, month = _future_parts(option.underlying)
        return Series(option.id, "futureoption", market, ticker, content, member, month, option.style)
    kind: Kind = "indexoption" if option.underlying.startswith("INDEX:") else "option"
    symbol = option.underlying.split(":")[-1].lower()
    if symbol.replace(".", "") == ticker:  # OCC roots drop the dot of a share class, LEAN's folders keep it
        ticker = symbol
    return Series(option.id, kind, "usa", ticker, content, member, "", option.style)


def _future_parts(future_id: str) -> tuple[str, str, str]:
    found = _FUTURE_ID.match(future_id)
    if found is None:
        raise DataError(f"{future_id}: expected a dated future such as CME:ESH2020")
    market, root, code, year = found.groups()
    return market.lower(), root.lower(), f"{year}{MONTH_CODES.index(code) + 1:02d}"


def paths_of(root: Path, series: Series, resolution: Resolution, day: date) -> list[Path]:
    """The paths LEAN may keep a series under, best first; some upstream names end in `.zip.zip`."""
    folder = root / series.kind / series.market / resolution
    whole = resolution in ("hour", "daily")
    names: list[Path] = []
    if series.kind in ("equity", "index"):
        if whole and series.content == "quote":
            return []
        names = [folder / f"{series.ticker}.zip"] if whole else [folder / series.ticker / _day_zip(day, series.content)]
    elif series.kind == "future":
        last = f"{series.ticker}_{series.content}.zip"
        names = [folder / last] if whole else [folder / series.ticker / _day_zip(day, series.content)]
    else:
        styles = [series.style, *(style for style in ("american", "european") if style != series.style)]
        inner = folder / series.ticker / series.month if series.month else folder / series.ticker
        for style in styles:
            tail = f"{series.content}_{style}.zip"
            if not whole:
                names.append(inner / f"{day:%Y%m%d}_{tail}")
                continue
            folders = (inner, folder) if series.month else (folder,)
            names += [f / f"{series.ticker}_{part}{tail}" for f in folders for part in (f"{day.year}_", "")]
    return [path for name in names for path in (name, name.with_name(name.name + ".zip"))]


def _day_zip(day: date, content: Content) -> str:
    return f"{day:%Y%m%d}_{content}.zip"


def member_key(series: Series, name: str) -> str:
    """The part of a member's name that tells contracts of one zip apart, as `Series.member` spells it."""
    if series.kind in ("equity", "index"):
        return ""
    found = (_FUTURE_MEMBER if series.kind == "future" else _OPTION_MEMBER).search(name)
    if found is None:
        return name
    if series.kind == "future":
        return found[1]
    return f"{found[1].lower()}_{int(found[2])}_{found[3]}"


# --------------------------------------------------------------------------- rows


class Rows(NamedTuple):
    """The rows of one member before they are events.

    Shape: wall int64 (n,) wall-clock start of each row in ns since 1970-01-01 on the wall, -1 where it cannot be read.
    """

    sheet: Sheet
    wall: NDArray[np.int64]
    cells: dict[str, Cells]
    suspicious: NDArray[np.bool_]

    @property
    def bad_time(self) -> NDArray[np.bool_]:
        """Rows whose time cannot be read. Shape: (n,)."""
        return self.wall < 0


def read_rows(data: bytes, *, content: Content, resolution: Resolution, day: date, scale: float, where: str) -> Rows:
    """The rows of a member, prices divided by the scale; DataError when not one row has the form expected."""
    ticks = resolution == "tick"
    widths = WIDTHS[content, ticks]
    width = first_fields(data)
    width = width if width in widths else widths[0]
    columns = [f"f{i}" for i in range(width)]
    named = _fields(content, ticks=ticks)
    dated = resolution in ("hour", "daily")
    numbers = [f"f{i}" for i in named.values() if i < width]
    flag = f"f{width - 1}" if ticks else ""
    sheet = read_sheet(
        data,
        columns=columns,
        numbers=[*numbers, *([] if dated else ["f0"]), *([flag] if flag else [])],
        texts=["f0"] if dated else (),
        where=where,
    )
    wall = _wall_of_stamps(sheet) if dated else _wall_of_millis(sheet.cells["f0"], day)
    if not sheet.rows and sheet.ragged:
        raise DataError(f"{where}: expected rows of {' or '.join(map(str, widths))} fields, found {first_fields(data)}")
    if sheet.rows and (wall < 0).all():
        raise DataError(
            f"{where}: expected {'yyyymmdd hh:mm' if dated else 'milliseconds since midnight'} in the first field, "
            f"found no row with it"
        )
    cells = {
        name: sheet.cells[f"f{i}"].scaled(scale if name in ("bid", "ask", "price") else 1.0)
        if i < width
        else blank_cells(sheet.rows)
        for name, i in named.items()
    }
    suspicious = sheet.cells[flag].value == 1.0 if flag else np.zeros(sheet.rows, np.bool_)
    return Rows(sheet, wall, cells, suspicious)


def _fields(content: Content, *, ticks: bool) -> dict[str, int]:
    if content == "trade":
        return {"price": 1, "size": 2} if ticks else {"price": 4, "size": 5}
    if ticks:
        return {"bid": 1, "bid_size": 2, "ask": 3, "ask_size": 4}
    return {"bid": 4, "bid_size": 5, "ask": 9, "ask_size": 10}


def _wall_of_millis(cells: Cells, day: date) -> NDArray[np.int64]:
    millis = cells.value
    with np.errstate(invalid="ignore"):
        valid = (millis >= 0.0) & (millis < 86_400_000.0)
    whole = np.rint(np.where(valid, millis, 0.0) * 1e6).astype(np.int64)
    return np.where(valid, whole + wall_start(day), -1)


def _wall_of_stamps(sheet: Sheet) -> NDArray[np.int64]:
    words = sheet.words["f0"]
    table = np.array([*(_stamp(text) for text in words.vocabulary), -1], np.int64)
    return table[words.code]


def _stamp(text: str) -> int:
    for form in ("%Y%m%d %H:%M", "%Y%m%d %H:%M:%S"):
        try:
            moment = datetime.strptime(text.strip(), form)  # a wall clock: the zone is the folder's
        except ValueError:
            continue
        return wall_start(moment.date()) + (moment.hour * 3600 + moment.minute * 60 + moment.second) * NS_PER_SECOND
    return -1


def ends_of(wall: NDArray[np.int64], *, resolution: Resolution, zone: ZoneInfo) -> NDArray[np.int64]:
    """The instant a row's content is known: a tick's own time, a bar's end. Shape: (n,) -> (n,).

    A daily bar ends with its wall-clock day, which may have 23 or 25 hours.
    """
    if resolution == "daily":
        return utc_of_wall(wall + NS_PER_DAY, zone)
    return utc_of_wall(wall, zone) + BAR_NS[resolution]


def carry_sides(price: Cells, size: Cells, usable: NDArray[np.bool_]) -> tuple[Cells, Cells]:
    """Price and size of one side, the last usable message carried where this one lacks the side (0/0 or blank).

    Shape: all (n,). NaN before the first message of the side.
    """
    said = usable & ~price.blank & ~((price.value == 0.0) & ~(size.value > 0.0))
    row = np.maximum.accumulate(np.where(said, np.arange(len(said)), -1))
    known = row >= 0
    never = ~known
    at = np.maximum(row, 0)
    fine = np.zeros(len(said), np.bool_)
    return (
        Cells(np.where(known, price.value[at], np.nan), never, fine),
        Cells(np.where(known, size.value[at], np.nan), never, fine),
    )


def quotes_from(
    rows: Rows,
    *,
    column: int,
    resolution: Resolution,
    zone: ZoneInfo,
    options: ReplayOptions,
    tally: Tally,
    where: str,
    chosen: NDArray[np.bool_] | None = None,
) -> QuoteBatch:
    """The good rows as quotes in order of time, the refused counted. Shape: chosen (n,), the rows of the played day."""
    bid, ask, bid_size, ask_size = (rows.cells[name] for name in ("bid", "ask", "bid_size", "ask_size"))
    if resolution == "tick":
        bid, ask, bid_size, ask_size, code = _carried(rows, bid, ask, bid_size, ask_size)
    else:
        code = find_quote_faults(bid, ask, (bid_size, ask_size))
    code[rows.bad_time] = UNPARSABLE
    keep = _sift(rows, code, chosen, tally, where)
    ts = ends_of(np.where(rows.bad_time, 0, rows.wall)[keep], resolution=resolution, zone=zone)
    batch = quotes_of(
        column,
        ts_event=ts,
        ts_recv=ts,
        bid=bid.value[keep],
        ask=ask.value[keep],
        bid_size=bid_size.value[keep],
        ask_size=ask_size.value[keep],
    )
    order = _in_order(batch.ts_recv, batch.instrument, keep, rows, resolution, options, tally, where)
    return batch if order is None else take_quotes(batch, order)


def _carried(
    rows: Rows, bid: Cells, ask: Cells, bid_size: Cells, ask_size: Cells
) -> tuple[Cells, Cells, Cells, Cells, NDArray[np.int8]]:
    code = find_quote_faults(_unsaid(bid, bid_size), _unsaid(ask, ask_size), (bid_size, ask_size))
    code[rows.suspicious & (code == 0)] = SUSPICIOUS
    usable = code == 0
    bid, bid_size = carry_sides(bid, bid_size, usable)
    ask, ask_size = carry_sides(ask, ask_size, usable)
    with np.errstate(invalid="ignore"):
        # A message moves one side: for an instant the carried sides may cross. Its side is carried on all the same.
        code[usable & (bid.value > ask.value)] = CROSSED
    return bid, ask, bid_size, ask_size, code


def _unsaid(price: Cells, size: Cells) -> Cells:
    absent = (price.value == 0.0) & ~(size.value > 0.0)
    return Cells(np.where(absent, np.nan, price.value), price.blank | absent, price.bad)


def trades_from(
    rows: Rows,
    *,
    column: int,
    resolution: Resolution,
    zone: ZoneInfo,
    options: ReplayOptions,
    tally: Tally,
    where: str,
    chosen: NDArray[np.bool_] | None = None,
) -> TradeBatch:
    """The good rows as prints (a bar's close and volume) in order of time, the refused counted. Shape: chosen (n,)."""
    price, size = rows.cells["price"], rows.cells["size"]
    code = find_trade_faults(price, size)
    code[rows.suspicious & (code == 0)] = SUSPICIOUS
    code[rows.bad_time] = UNPARSABLE
    keep = _sift(rows, code, chosen, tally, where)
    ts = ends_of(np.where(rows.bad_time, 0, rows.wall)[keep], resolution=resolution, zone=zone)
    batch = trades_of(column, ts_event=ts, ts_recv=ts, price=price.value[keep], size=size.value[keep])
    order = _in_order(batch.ts_recv, batch.instrument, keep, rows, resolution, options, tally, where)
    return batch if order is None else take_trades(batch, order)


def _sift(
    rows: Rows, code: NDArray[np.int8], chosen: NDArray[np.bool_] | None, tally: Tally, where: str
) -> NDArray[np.int64]:
    if chosen is not None:
        code = np.where(chosen, code, np.int8(0)).astype(np.int8)
    good = count_faults(code, tally, where=lambda row: f"{where}:{rows.sheet.line(row)}")
    if rows.sheet.ragged:
        tally.refuse("unparsable", len(rows.sheet.ragged), where=f"{where}: row {rows.sheet.ragged[0]}")
        rows.sheet.ragged.clear()
    return np.flatnonzero(good if chosen is None else good & chosen)


def _in_order(
    ts: NDArray[np.int64],
    instrument: NDArray[np.int32],
    keep: NDArray[np.int64],
    rows: Rows,
    resolution: Resolution,
    options: ReplayOptions,
    tally: Tally,
    where: str,
) -> NDArray[np.int64] | None:
    return order_rows(
        ts,
        instrument,
        tally,
        unsorted=options.unsorted,
        repeated="keep" if resolution == "tick" else options.repeated,
        where=lambda row: f"{where}:{rows.sheet.line(int(keep[row]))}: time",
    )


# --------------------------------------------------------------------------- statistics


class ChainQuality(NamedTuple):
    """What one day's quote zip holds, all contracts. `locked` and `crossed` count two-sided rows;
    `median_spread` is one that was recorded, the upper of two middle ones."""

    rows: int
    series: int
    missing_side: int
    locked: int
    crossed: int
    median_spread: float
    first_bar_start: str
    last_bar_start: str


def chain_quality(path: Path, *, kind: Kind, day: date, resolution: Resolution = "minute") -> ChainQuality:
    """The row statistics of a whole quote zip, as recorded: nothing refused, nothing repaired."""
    archive = Archive(path)
    layout = LAYOUTS[kind]
    names = list(archive.names())
    bids, asks, walls = [], [], []
    for name, data in zip(names, archive.read(names), strict=True):
        rows = read_rows(
            data, content="quote", resolution=resolution, day=day, scale=layout.scale, where=f"{path.name}!{name}"
        )
        bids.append(rows.cells["bid"].value)
        asks.append(rows.cells["ask"].value)
        walls.append(rows.wall)
    bid, ask, wall = np.concatenate(bids), np.concatenate(asks), np.concatenate(walls)
    spread = (ask - bid)[~np.isnan(ask - bid)]
    start = utc_of_wall(wall[wall >= 0], layout.zone)
    return ChainQuality(
        rows=len(bid),
        series=len(names),
        missing_side=int((np.isnan(bid) | np.isnan(ask)).sum()),
        locked=int((spread == 0.0).sum()),
        crossed=int((spread < 0.0).sum()),
        median_spread=float(np.sort(spread)[len(spread) // 2]) if len(spread) else float("nan"),
        first_bar_start=iso(int(start.min())) if len(start) else "",
        last_bar_start=iso(int(start.max())) if len(start) else "",
    )
