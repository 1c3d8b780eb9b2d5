"""A dataset feed replays a real daily series that ships inside an installed package; law: one close is one print.

Each row's close is a print of the index at 16:00 New York on its date. On the few days the exchange closed at 13:00
that is three hours after the fact, never before it. The series holds no option quotes: none are made unless `chain_vol`
asks, and then the report says that they are model values. A rolling chain lists its contracts as time goes on, each at a
close and with strikes made from that close: nothing later than the close is in it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.util
import io
import math
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.errors import ConfigError, DataError, TooManyRefused
from bot.core.events import FeedEvent, Reference
from bot.core.ports import FeedReport
from bot.domain.instruments import Index, Instrument, OptionContract, Universe, occ_id
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import NS_PER_DAY, NS_PER_YEAR, Nanos, Rate, nanos
from bot.pricing.black import greeks_slice

NEW_YORK: Final = ZoneInfo("America/New_York")
CLOSE: Final = time(16, 0)
HEADER: Final = ("Date", "Open", "High", "Low", "Close", "Adj Close", "Volume")
TRADING_DAYS: Final = 252.0
LEAST_VOL: Final = 0.05
"""No modelled chain is quoted below this: a quiet month has made nobody sell options for nothing."""

Floats = NDArray[np.float64]


class Series(NamedTuple):
    """Where a series lies: the package that ships it, its path in there, and a sentence on it."""

    package: str
    path: str
    text: str


SERIES: Final[Mapping[str, Series]] = {
    "sp500": Series("arch", "data/sp500/sp500.csv.gz", "S&P 500 daily, 1999-01-04 to 2018-12-31, of the package arch"),
    "nasdaq": Series("arch", "data/nasdaq/nasdaq.csv.gz", "NASDAQ Composite daily, 1999 to 2018, of the package arch"),
}
VIX: Final = Series("arch", "data/vix/vix.csv.gz", "VIX daily, 2014-01-03 to 2018-12-31, of the package arch")


class RollingChain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Listed options that roll: monthly expiries (third Fridays), strikes at shares of the close on the listing day.

    An expiry is listed `listed` before it, at the first close from then on, and again with new strikes at each close that
    has moved by more than `relist` from the one its strikes were last made from.
    """

    root: str = "SPX"
    moneyness: tuple[float, ...] = (0.80, 0.85, 0.90, 0.95, 1.00)
    listed: Nanos = 100 * NS_PER_DAY
    relist: float = 0.10
    cp: Literal["put", "call", "both"] = "put"
    strike_step: Decimal = Decimal(1)
    multiplier: Decimal = Decimal(100)
    lot: Decimal = Decimal(1)

    def __post_init__(self) -> None:
        if not self.moneyness or not all(0.0 < m < math.inf for m in self.moneyness):
            raise ValueError(f"rolling chain: moneyness: expected positive shares of the close, found {self.moneyness}")
        if self.listed < NS_PER_DAY:
            raise ValueError(f"rolling chain: listed: expected a day or more, found {self.listed} ns")
        if not self.relist > 0.0:
            raise ValueError(f"rolling chain: relist: expected a share above 0, found {self.relist}")
        for name in ("strike_step", "multiplier", "lot"):
            value = getattr(self, name)
            if not (value.is_finite() and value > 0):
                raise ValueError(f"rolling chain: {name}: expected a positive number, found {value}")


class DatasetOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which closes to replay; `start` and `end` are both included, absent they are the series' own.

    `chain_vol` None makes no option quotes; a number, "realised" (root mean square of the last `window` daily log returns,
    252 days a year, nothing later than the close itself, plus `vol_add`) or "index" (the last close of a volatility index
    by the day, in per cent, of `vol_file` or the one that ships with `arch`; realised before its first) quotes the wanted
    options and those of `chain` at that vol, `option_half_spread` ticks or `option_spread_share` of the price each side,
    whichever is more. `file` replaces the shipped file by another with Date and Close.

    `skew` and `curvature` are an assumption, not data: vol(K) = level (1 + skew z + curvature z^2) with
    z = ln(K/F) / (level sqrt(tau)) between -4 and 4, kept between half and three times the level.
    """

    name: str = "dataset"
    dataset: Literal["sp500", "nasdaq"] = "sp500"
    instrument: str = "INDEX:SPX"
    start: date | None = None
    end: date | None = None
    chain_vol: float | Literal["realised", "index"] | None = None
    vol_file: str | None = None
    vol_add: float = 0.0
    skew: float = 0.0
    curvature: float = 0.0
    chain: RollingChain | None = None
    window: int = 21
    rate: Rate = 0.0
    dividend: Rate = 0.0
    option_tick: Decimal = Decimal("0.05")
    option_half_spread: float = 2.0
    option_spread_share: float = 0.0
    max_refused: int | None = None
    batch_rows: int = 4096
    file: str | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError(f"dataset feed: end: expected {self.start} or later, found {self.end}")
        if isinstance(self.chain_vol, float | int) and not 0.0 < self.chain_vol < math.inf:
            raise ValueError(f"dataset feed: chain_vol: expected a positive number, found {self.chain_vol}")
        if self.chain is not None and self.chain_vol is None:
            raise ValueError("dataset feed: chain_vol: expected a vol to quote the rolling chain at, found none")
        for name in ("vol_add", "skew", "curvature"):
            if not -10.0 <= getattr(self, name) <= 10.0:
                raise ValueError(f"dataset feed: {name}: expected -10 to 10, found {getattr(self, name)}")
        if not 0.0 <= self.option_spread_share < 1.0:
            raise ValueError(f"dataset feed: option_spread_share: expected 0 to 1, found {self.option_spread_share}")
        if self.window < 2:
            raise ValueError(f"dataset feed: window: expected 2 or more days, found {self.window}")
        if self.batch_rows < 1:
            raise ValueError(f"dataset feed: batch_rows: expected 1 or more, found {self.batch_rows}")
        if self.option_tick <= 0 or not 0.0 <= self.option_half_spread < math.inf:
            raise ValueError("dataset feed: expected option_tick above 0 and option_half_spread of 0 or more ticks")


class Closes(NamedTuple):
    """A daily series with what was left out of it. Shape: `ts` int64 ns and `close` float64, both (n,)."""

    ts: NDArray[np.int64]
    close: Floats
    refused: dict[str, int]


class DatasetFeed:
    """A recorded feed of real daily closes from an installed package."""

    recorded: bool = True

    def __init__(self, options: DatasetOptions | Mapping[str, Any], *, wanted: Sequence[Instrument] = ()) -> None:
        self._options = read_options(options)
        self.name: str = self._options.name
        self._wanted = {item.id: item for item in wanted}
        self._universe: Universe | None = None
        self._closes: Closes | None = None
        self._index: Closes | None = None
        self._listings: dict[int, list[OptionContract]] | None = None
        self._files: dict[str, str] = {}
        self._report = FeedReport()

    async def __aenter__(self) -> Self:
        closes = self._load()
        self._report = self._opening_report()
        self._refuse_too_many(closes.refused)
        return self

    def _load(self) -> Closes:
        """The closes, and the volatility index when one is asked for; read once while the feed is open."""
        if self._closes is None:
            path = find_series(self._options)
            data = read_bytes(path)
            self._files[f"dataset:{self._options.dataset}"] = hashlib.sha256(data).hexdigest()
            if self._options.chain_vol == "index":
                where = find_package_file(VIX) if self._options.vol_file is None else Path(self._options.vol_file)
                levels = read_bytes(where)
                self._files["dataset:vol"] = hashlib.sha256(levels).hexdigest()
                self._index = parse_closes(levels, str(where))
            self._closes = parse_closes(data, str(path))
        return self._closes

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closes = None

    def instruments(self, query: str = "") -> Sequence[Instrument]:
        """The index itself, in the book's own definition where it has one, and the contracts of a rolling chain."""
        index = Index(id=self._options.instrument, tick=Decimal("0.01"))
        rolling = {item.id: item for items in self._listed().values() for item in items}
        found = [self._wanted.get(index.id, index), *(self._wanted.get(key, item) for key, item in rolling.items())]
        return [item for item in found if query in item.id]

    def listed_later(self) -> Sequence[str]:
        """The contracts that a rolling chain will list."""
        return [item.id for items in self._listed().values() for item in items if item.id not in self._wanted]

    def _listed(self) -> dict[int, list[OptionContract]]:
        """What a rolling chain lists, by row; nothing without one."""
        chain = self._options.chain
        if chain is None:
            return {}
        if self._listings is None:
            closes = self._load()
            self._listings = rolling_listings(closes, self._chosen(closes), chain, self._options.instrument)
        return self._listings

    def bind(self, universe: Universe) -> None:
        """Take the column numbers."""
        if self._options.instrument not in universe:
            raise DataError(
                f"feed {self.name}: expected {self._options.instrument!r} in the run's instruments, found none"
            )
        self._universe = universe

    async def events(self) -> AsyncIterator[FeedEvent]:
        """Prints in order of time; with `chain_vol` each followed by the wanted options' quotes at its instant."""
        if self._universe is None or self._closes is None:
            raise DataError(f"feed {self.name}: expected bind(universe) and `async with` before events()")
        self._report = self._opening_report()
        chosen = self._chosen(self._closes)
        made = self._with_options(chosen) if self._options.chain_vol is not None else self._prints_only(chosen)
        for batch in made:
            if isinstance(batch, TradeBatch):
                self._report.trades += len(batch)
            elif isinstance(batch, QuoteBatch):
                self._report.quotes += len(batch)
            yield batch

    def report(self) -> FeedReport:
        """Prints and quotes yielded, rows refused by reason, and the file's digest."""
        return self._report

    def _opening_report(self) -> FeedReport:
        o = self._options
        notes = [
            f"{o.instrument}: {SERIES[o.dataset].text}" if o.file is None else f"{o.instrument}: closes of {o.file}",
            "each close is a print at 16:00 New York; on days of an early close that is later than it was known",
        ]
        if o.chain_vol is not None:
            notes.append(f"option quotes are European model values at vol {o.chain_vol}: no market quoted them")
        if o.chain_vol == "index":
            notes.append(
                "the vol is the volatility index's last close by the day (it closes a quarter of an hour after the stocks), "
                f"before its first the realised one of {o.window} days plus {o.vol_add:g}"
            )
        if o.skew or o.curvature:
            notes.append(
                f"their smile is assumed: vol(K) = level (1 {o.skew:+g} z {o.curvature:+g} z^2), "
                "z = ln(K/F) / (level sqrt(tau))"
            )
        refused = dict(self._closes.refused) if self._closes is not None else {}
        return FeedReport(refused=refused, notes=notes, files=dict(self._files))

    def _refuse_too_many(self, refused: Mapping[str, int]) -> None:
        limit, found = self._options.max_refused, sum(refused.values())
        if limit is not None and found > limit:
            raise TooManyRefused(f"feed {self.name}: expected at most {limit} refused rows, found {found}: {refused}")

    def _chosen(self, closes: Closes) -> slice:
        """The rows from `start` to `end`; DataError when there are none."""
        o = self._options
        first = 0 if o.start is None else int(np.searchsorted(closes.ts, close_instant(o.start), side="left"))
        stop = len(closes.ts) if o.end is None else int(np.searchsorted(closes.ts, close_instant(o.end), side="right"))
        if stop <= first:
            begins, ends = (datetime.fromtimestamp(closes.ts[i] / 1e9, NEW_YORK).date() for i in (0, -1))
            raise DataError(
                f"feed {self.name}: expected closes from {o.start} to {o.end}, found a series from {begins} to {ends}"
            )
        return slice(first, stop)

    def _prints_only(self, chosen: slice) -> Iterator[TradeBatch]:
        for start in range(chosen.start, chosen.stop, self._options.batch_rows):
            yield self._prints(slice(start, min(start + self._options.batch_rows, chosen.stop)))

    def _with_options(self, chosen: slice) -> Iterator[FeedEvent]:
        """At each close what is listed now, the print, then the quotes of all that live, all at the close's instant."""
        assert self._closes is not None and self._universe is not None  # checked by events()
        vols = self._vols(self._closes)
        listings, later = self._listed(), set(self.listed_later())
        live = [
            (i, item)
            for i, item in enumerate(self._universe)
            if isinstance(item, OptionContract) and item.underlying == self._options.instrument and item.id not in later
        ]
        for row in range(chosen.start, chosen.stop):
            ts = int(self._closes.ts[row])
            for item in listings.get(row, ()):
                if item.id in later:
                    live.append((self._universe.index(item.id), item))
                    yield Reference(ts_recv=ts, what="listed", instrument=item.id, definition=item)
            yield self._prints(slice(row, row + 1))
            live = [(i, item) for i, item in live if item.expiry >= ts]
            if live and math.isfinite(vols[row]):
                yield self._model_quotes(live, row, float(vols[row]))

    def _prints(self, rows: slice) -> TradeBatch:
        assert self._closes is not None and self._universe is not None  # checked by events()
        ts = self._closes.ts[rows]
        return TradeBatch(
            instrument=np.full(len(ts), self._universe.index(self._options.instrument), dtype=np.int32),
            ts_event=ts,
            ts_recv=ts,
            price=self._closes.close[rows],
            size=np.full(len(ts), np.nan, dtype=np.float32),
        )

    def _vols(self, closes: Closes) -> Floats:
        """The vol of each close's option quotes; NaN while the window is not full."""
        chain_vol = self._options.chain_vol
        if chain_vol == "realised":
            return realised_vol(closes.close, self._options.window) + self._options.vol_add
        if chain_vol == "index" and self._index is not None:
            return self._index_vols(closes, self._index)
        assert isinstance(chain_vol, float | int)  # asked by events()
        return np.full(len(closes.ts), float(chain_vol))

    def _index_vols(self, closes: Closes, index: Closes) -> Floats:
        """The index's last close by each day as a vol; realised plus `vol_add` before its first. Shape: (n,)."""
        row = np.searchsorted(index.ts, closes.ts, side="right") - 1
        before = realised_vol(closes.close, self._options.window) + self._options.vol_add
        return np.where(row >= 0, index.close[np.maximum(row, 0)] / 100.0, np.maximum(before, LEAST_VOL))

    def _smile(self, strike: Floats, tau: Floats, *, spot: float, level: float) -> Floats | float:
        """The assumed vol of each strike. Shape: strike, tau (k,)."""
        o = self._options
        if not o.skew and not o.curvature:
            return level
        forward = spot * np.exp((o.rate - o.dividend) * tau)
        spread = level * np.sqrt(np.maximum(tau, 1e-9))
        z = np.clip(np.log(strike / forward) / spread, -4.0, 4.0)
        return np.asarray(level * np.clip(1.0 + o.skew * z + o.curvature * z * z, 0.5, 3.0))

    def _model_quotes(self, live: Sequence[tuple[int, OptionContract]], row: int, vol: float) -> QuoteBatch:
        assert self._closes is not None  # checked by events()
        o, ts = self._options, int(self._closes.ts[row])
        tau = (np.asarray([item.expiry for _, item in live], dtype=np.int64) - ts) / NS_PER_YEAR
        strike = np.asarray([float(item.strike) for _, item in live])
        cp = np.asarray([float(item.cp) for _, item in live])
        spot = float(self._closes.close[row])
        vols = self._smile(strike, tau, spot=spot, level=vol)
        price = greeks_slice(spot, strike, tau, vols, rate=o.rate, dividend=o.dividend, cp=cp).price / float(
            o.option_tick
        )
        half = np.maximum(o.option_half_spread, o.option_spread_share * price)
        bid = np.floor(price - half + 1e-9)
        ask = np.maximum(np.ceil(price + half - 1e-9), 1.0)
        numerator, denominator = o.option_tick.as_integer_ratio()
        stamps = np.full(len(live), ts, dtype=np.int64)
        unknown = np.full(len(live), np.nan, dtype=np.float32)
        return QuoteBatch(
            instrument=np.asarray([i for i, _ in live], dtype=np.int32),
            ts_event=stamps,
            ts_recv=stamps,
            bid=np.where(bid < 1.0, np.nan, bid * numerator / denominator),
            ask=ask * numerator / denominator,
            bid_size=unknown,
            ask_size=unknown,
        )


def rolling_listings(
    closes: Closes, chosen: slice, chain: RollingChain, underlying: str
) -> dict[int, list[OptionContract]]:
    """The contracts a rolling chain lists at each row: made from that row's close and nothing later."""
    sides: tuple[Literal[1, -1], ...] = {"put": (-1,), "call": (1,), "both": (1, -1)}[chain.cp]  # type: ignore[assignment]  # literals in a dict widen
    found: dict[int, list[OptionContract]] = {}
    known: set[str] = set()
    made_from: dict[date, float] = {}
    for row in range(chosen.start, chosen.stop):
        ts, close = int(closes.ts[row]), float(closes.close[row])
        for day in monthly_expiries(ts, ts + chain.listed):
            before = made_from.get(day)
            if before is not None and abs(close / before - 1.0) <= chain.relist:
                continue
            made_from[day] = close
            for strike in strikes_from(close, chain):
                for cp in sides:
                    item = rolling_contract(day, strike, cp, chain, underlying)
                    if item.id not in known:
                        known.add(item.id)
                        found.setdefault(row, []).append(item)
    return found


def strikes_from(close: float, chain: RollingChain) -> list[Decimal]:
    """Strikes at the chain's shares of a close, to the nearest step, each once and above 0."""
    steps = {round(close * share / float(chain.strike_step)) for share in chain.moneyness}
    return [step * chain.strike_step for step in sorted(steps) if step > 0]


def monthly_expiries(after: Nanos, until: Nanos) -> list[date]:
    """The third Fridays whose 16:00 New York lies after `after` and not after `until`."""
    day = datetime.fromtimestamp(after / 1e9, NEW_YORK).date().replace(day=1)
    found: list[date] = []
    while close_instant(day) <= until:
        third = third_friday(day.year, day.month)
        if after < close_instant(third) <= until:
            found.append(third)
        day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return found


@lru_cache(maxsize=4096)
def third_friday(year: int, month: int) -> date:
    """The third Friday of a month."""
    first = date(year, month, 1).weekday()
    return date(year, month, 15 + (4 - first) % 7)


@lru_cache(maxsize=65_536)
def rolling_contract(
    day: date, strike: Decimal, cp: Literal[1, -1], chain: RollingChain, underlying: str
) -> OptionContract:
    """A European, cash-settled contract that ends at 16:00 New York on its day, settled by the last close by then."""
    ends = close_instant(day)
    return OptionContract(
        id=occ_id(chain.root, day, cp, strike),
        underlying=underlying,
        cp=cp,
        strike=strike,
        style="european",
        settlement="cash",
        multiplier=chain.multiplier,
        lot=chain.lot,
        last_trade=ends,
        expiry=ends,
        settles=ends,
    )


def read_options(options: DatasetOptions | Mapping[str, Any]) -> DatasetOptions:
    """The options as their Struct; ConfigError for an unknown key or a value of the wrong kind in a mapping."""
    if isinstance(options, DatasetOptions):
        return options
    try:
        return msgspec.convert(options, DatasetOptions)
    except msgspec.ValidationError as fault:
        raise ConfigError(f"dataset feed: {fault}") from fault


def find_series(options: DatasetOptions) -> Path:
    """The file of a series inside its installed package, found without importing the package."""
    return find_package_file(SERIES[options.dataset]) if options.file is None else Path(options.file)


def find_package_file(series: Series) -> Path:
    """A file inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(series.package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"dataset {series.path}: expected the package {series.package!r}, found none installed")
    return Path(next(iter(spec.submodule_search_locations))) / series.path


def read_bytes(path: Path) -> bytes:
    """The file as it is; DataError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as fault:
        raise DataError(f"{path}: expected a readable file, found {fault.strerror or fault}") from fault


def parse_closes(data: bytes, where: str) -> Closes:
    """The closes of a Date,Open,High,Low,Close,Adj Close,Volume file, gzipped or plain, with dates as month/day/year; or of
    another CSV with columns Date and Close, whose dates may be year-month-day too.

    A close that is not a positive finite number is refused and counted, as is a row of too few or many columns. A date
    that is not later than the one before, a date or header of another form, and a damaged archive are faults of the
    file: DataError with file, line and column.
    """
    rows = csv.reader(io.StringIO(unpack(data, where), newline=""))
    written = tuple(next(rows, ()))
    header = [name.strip().lower() for name in written]
    named = "close" if "close" in header else "vix"
    if "date" not in header or named not in header:
        raise DataError(
            f"{where}: line 1: expected the header {','.join(HEADER)}, or one with Date and Close, found "
            f"{','.join(written)!r}"
        )
    date_at, close_at = header.index("date"), header.index(named)
    ts: list[Nanos] = []
    closes: list[float] = []
    refused: dict[str, int] = {}
    last: date | None = None
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            refused["columns"] = refused.get("columns", 0) + 1
            continue
        day = parse_day(row[date_at], where, rows.line_num, iso=written != HEADER)
        if last is not None and day <= last:
            raise DataError(f"{where}: line {rows.line_num}: Date: expected a day after {last}, found {day}")
        last = day
        close = read_price(row[close_at])
        if close is None:
            refused["price"] = refused.get("price", 0) + 1
            continue
        ts.append(close_instant(day))
        closes.append(close)
    if not ts:
        raise DataError(f"{where}: expected at least one close, found none")
    return Closes(np.asarray(ts, dtype=np.int64), np.asarray(closes, dtype=np.float64), refused)


def unpack(data: bytes, where: str) -> str:
    """The text of a gzipped or plain file; DataError when the archive is cut or damaged, or the text is not UTF-8."""
    try:
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise DataError(f"{where}: expected a whole gzip file, found it damaged: {fault}") from fault
    except UnicodeDecodeError as fault:
        raise DataError(f"{where}: expected UTF-8 text, found byte {fault.start} that is none") from fault


def parse_day(text: str, where: str, line: int, *, iso: bool = False) -> date:
    """The date of month/day/year, with `iso` of year-month-day too; DataError with file, line and column otherwise."""
    try:
        if iso and "-" in text:
            return date.fromisoformat(text.strip())
        month, day, year = (int(part) for part in text.split("/"))
        return date(year, month, day)
    except ValueError as fault:
        forms = "month/day/year or year-month-day" if iso else "month/day/year"
        raise DataError(f"{where}: line {line}: Date: expected {forms}, found {text!r}") from fault


def read_price(text: str) -> float | None:
    """The positive finite number a text says, else None."""
    try:
        price = float(text)
    except ValueError:
        return None
    return price if 0.0 < price < math.inf else None


def close_instant(day: date) -> Nanos:
    """16:00 New York on a date."""
    return nanos(datetime.combine(day, CLOSE, tzinfo=NEW_YORK))


def realised_vol(close: Floats, window: int) -> Floats:
    """Root mean square of the last `window` daily log returns, per square root of a year of 252 days; NaN before.

    Shape: close (n,), result (n,). The return into a day counts for that day, none of a later one does.
    """
    squares = np.diff(np.log(close)) ** 2
    out = np.full(len(close), np.nan)
    if len(squares) >= window:
        means = np.lib.stride_tricks.sliding_window_view(squares, window).mean(axis=1)
        out[window:] = np.sqrt(means * TRADING_DAYS)
    return out
