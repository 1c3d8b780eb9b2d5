"""An SPX chain file is one day's snapshot of every SPX and SPXW option; law: the snapshot is taken as 16:00
New York, a bid of 0 is no bid, and the root in `optionroot` names the contract.

Header: underlying,underlying_last,exchange,optionroot,type,expiration,quotedate,strike,last,net,bid,ask,volume,
openinterest,impliedvol,delta,gamma; dollars, dates M/D/Y. `last`, `impliedvol` and the Greeks are not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters.formats.columns import (
    UNPARSABLE,
    Cells,
    Sheet,
    Words,
    blank_cells,
    count_faults,
    find_quote_faults,
    find_trade_faults,
    order_rows,
    quotes_of,
    read_sheet,
    take_quotes,
    trades_of,
)
from adapters.formats.files import find_files, read_bytes
from adapters.formats.options import PriceSource, ReplayOptions
from adapters.formats.parity import Leg, parity_prints
from adapters.formats.source import Piece
from adapters.formats.tally import Tally, relative_name
from adapters.formats.zones import NEW_YORK, at_clock
from bot.core.errors import DataError
from bot.domain.instruments import Instrument, OptionContract, parse_occ
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import Nanos

SNAPSHOT: Final = time(16, 0)
_NEEDED: Final = ("underlying", "underlying_last", "optionroot", "quotedate", "bid", "ask")


class Chain(NamedTuple):
    """One file, read but not yet judged. Shape: the columns (n,)."""

    path: Path
    where: str
    day: date
    ts: Nanos
    sheet: Sheet


class SpxChains:
    """Daily chain snapshots in order of their quote dates."""

    def __init__(self, options: ReplayOptions, wanted: Sequence[Instrument], tally: Tally) -> None:
        self._options = options
        self._wanted = [item for item in wanted if not options.only or item.id in options.only]
        self._tally = tally
        self._columns: Mapping[str, int] = {}
        self._chains: list[Chain] = []

    def instruments(self) -> list[Instrument]:
        """None: the chains hold no reference data."""
        return []

    def open(self, columns: Mapping[str, int]) -> None:
        """Read all files and put them in order; DataError for a missing, damaged or repeated day, or a
        contract never seen."""
        self._columns = columns
        for item in self._wanted:
            self._source(item)
        root, paths = find_files(self._options, default="*.csv")
        chains = [self._load(path, root) for path in paths]
        chains = [chain for chain in chains if not self._options.dates or chain.day in self._options.dates]
        self._chains = self._in_order(chains)
        self._check_days()
        self._check_wanted()

    def pieces(self) -> Iterator[Piece]:
        """One piece a day."""
        for chain, later in zip(self._chains, [*self._chains[1:], None], strict=True):
            quotes, trades = self._read(chain)
            yield Piece([quotes], trades, [], None if later is None else later.ts)

    def _source(self, item: Instrument) -> PriceSource | None:
        if isinstance(item, OptionContract):
            return None
        source = self._options.sources.get(item.id, self._options.underlying)
        if source == "quotes":
            raise DataError(
                f'{item.id}: an spx_chain has no quotes of its underlying; set underlying = "trades" (underlying_last) '
                f'or "parity_forward"'
            )
        return source

    def _load(self, path: Path, root: Path | None) -> Chain:
        self._tally.digest(path, root)
        data = read_bytes(path)
        where = relative_name(path, root)
        header = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip().split(",")
        missing = [name for name in _NEEDED if name not in header]
        if missing:
            raise DataError(f"{path}:1: expected the columns {', '.join(_NEEDED)}, found no {', '.join(missing)}")
        sheet = read_sheet(
            data,
            columns=header,
            numbers=("underlying_last", "bid", "ask"),
            texts=("underlying", "optionroot", "quotedate"),
            where=where,
            skip=1,
        )
        if not sheet.rows:
            raise DataError(f"{path}: expected rows under the header, found none")
        day = _one_day(sheet.words["quotedate"], path)
        return Chain(path, where, day, at_clock(day, SNAPSHOT, NEW_YORK), sheet)

    def _in_order(self, chains: list[Chain]) -> list[Chain]:
        late = [b for a, b in pairwise(chains) if b.day < a.day]
        if late and self._options.unsorted == "error":
            raise DataError(f'{late[0].path}: expected files in order of quote date; set unsorted = "sort" to repair')
        self._tally.repair("unsorted_days", len(late))
        chains = sorted(chains, key=lambda chain: chain.day)
        kept: dict[date, Chain] = {}
        for chain in chains:
            if chain.day in kept:
                if self._options.repeated == "error":
                    raise DataError(
                        f"{chain.path}: expected one file a day, found {chain.day} in {kept[chain.day].path.name} too; "
                        f'set repeated = "last" to play the last'
                    )
                self._tally.repair("repeated_day")
            kept[chain.day] = chain
        return list(kept.values())

    def _check_days(self) -> None:
        found = {chain.day for chain in self._chains}
        missing = [day for day in self._options.dates if day not in found]
        if missing and (self._options.missing_days == "error" or not found):
            raise DataError(f"spx_chain: expected a file with quotedate {missing[0]}, found none")
        for day in missing:
            self._tally.repair("missing_days")
            self._tally.note(f"{day}: no chain file, the day is left out")
        if not found:
            raise DataError("spx_chain: expected at least one day, found none")

    def _check_wanted(self) -> None:
        seen: set[str] = set()
        for chain in self._chains:
            seen.update(_ids(chain.sheet.words["optionroot"]))
            seen.update(f"INDEX:{word.upper()}" for word in chain.sheet.words["underlying"].vocabulary)
        for item in self._wanted:
            if item.id not in seen:
                names = ", ".join(chain.where for chain in self._chains[:5])
                raise DataError(
                    f"{names}{' ...' if len(self._chains) > 5 else ''}: expected rows of {item.id}, found none"
                )

    def _read(self, chain: Chain) -> tuple[QuoteBatch, list[TradeBatch]]:
        sheet = chain.sheet
        roots = sheet.words["optionroot"]
        table = np.array([*(self._columns.get(name, -1) for name in _ids(roots)), -1], np.int32)
        mine = {self._columns[item.id] for item in self._wanted if item.id in self._columns}
        column = table[roots.code]
        chosen = np.isin(column, np.array(sorted(mine), np.int32))
        bid, ask = _no_zero(sheet.cells["bid"]), _no_zero(sheet.cells["ask"])
        code = find_quote_faults(bid, ask)
        code[~chosen] = 0
        code[roots.code < 0] = UNPARSABLE
        good = count_faults(code, self._tally, where=lambda row: f"{chain.where}:{sheet.line(row)}")
        if sheet.ragged:
            self._tally.refuse("unparsable", len(sheet.ragged), where=f"{chain.where}: row {sheet.ragged[0]}")
        keep = np.flatnonzero(good & chosen)
        ts = np.full(len(keep), chain.ts, np.int64)
        quotes = quotes_of(column[keep], ts_event=ts, ts_recv=ts, bid=bid.value[keep], ask=ask.value[keep])
        order = order_rows(
            quotes.ts_recv,
            quotes.instrument,
            self._tally,
            unsorted=self._options.unsorted,
            repeated=self._options.repeated,
            where=lambda row: f"{chain.where}:{sheet.line(int(keep[row]))}",
        )
        if order is not None:
            quotes = take_quotes(quotes, order)
        return quotes, [self._prints(chain, item, bid, ask) for item in self._wanted if self._source(item) is not None]

    def _prints(self, chain: Chain, item: Instrument, bid: Cells, ask: Cells) -> TradeBatch:
        ts, price = (
            self._parity(chain, item, bid, ask) if self._source(item) == "parity_forward" else self._last(chain, item)
        )
        return trades_of(self._columns[item.id], ts_event=ts, ts_recv=ts, price=price)

    def _last(self, chain: Chain, item: Instrument) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The first good `underlying_last` of the underlying: all rows of a snapshot carry the same."""
        words = chain.sheet.words["underlying"]
        codes = [i for i, word in enumerate(words.vocabulary) if word.upper() == item.symbol]
        rows = np.flatnonzero(np.isin(words.code, codes))[:1]
        price = chain.sheet.cells["underlying_last"].take(rows)
        good = count_faults(
            find_trade_faults(price, blank_cells(len(rows))),
            self._tally,
            where=lambda row: f"{chain.where}:{chain.sheet.line(int(rows[row]))}: underlying_last",
        )
        return np.full(int(good.sum()), chain.ts, np.int64), price.value[good]

    def _parity(
        self, chain: Chain, item: Instrument, bid: Cells, ask: Cells
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        alive = [
            option
            for option in self._wanted
            if isinstance(option, OptionContract) and option.underlying == item.id and option.expiry > chain.ts
        ]
        if not alive:
            return np.empty(0, np.int64), np.empty(0)
        nearest = min(alive, key=lambda option: (option.expiry, option.id))
        key = nearest.id[:12]
        roots = chain.sheet.words["optionroot"]
        sound = find_quote_faults(bid, ask) == 0
        legs = []
        for code, name in enumerate(_ids(roots)):
            if name[:12] != key:
                continue
            rows = np.flatnonzero((roots.code == code) & sound)[-1:]
            parts = parse_occ(name)
            ts = np.full(len(rows), chain.ts, np.int64)
            legs.append(Leg(parts.cp, float(parts.strike), ts, bid.value[rows], ask.value[rows]))
        self._tally.note(
            f"{item.id}: {chain.day}: price derived from put-call parity of {len(legs)} contracts {key.strip()}, "
            f"rate {self._options.rate:g}, dividends before the expiry not added back"
        )
        return parity_prints(legs, expiry=nearest.expiry, rate=self._options.rate, discounted=True)


def _ids(roots: Words) -> list[str]:
    return [_canonical(word) for word in roots.vocabulary]


def _canonical(text: str) -> str:
    try:
        parts = parse_occ(text)
    except ValueError:
        return ""
    return f"{parts.root:<6}{text.strip().upper()[len(parts.root) :].strip()}"


def _one_day(words: Words, path: Path) -> date:
    days = {_parse_day(words.vocabulary[code], path) for code in np.unique(words.code[words.code >= 0])}
    if len(days) != 1:
        raise DataError(f"{path}: quotedate: expected one day a file, found {len(days)}")
    return days.pop()


def _parse_day(text: str, path: Path) -> date:
    try:
        return datetime.strptime(text.strip(), "%m/%d/%Y").date()
    except ValueError as fault:
        raise DataError(f"{path}: quotedate: expected M/D/Y, found {text!r}") from fault


def _no_zero(cells: Cells) -> Cells:
    """A price of 0 is nobody's price: the side is withdrawn."""
    none = cells.value == 0.0
    return Cells(np.where(none, np.nan, cells.value), cells.blank | none, cells.bad)
