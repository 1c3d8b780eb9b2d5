"""A sample is the state of marks and holdings at one instant; law: sampling wakes nobody and values nothing.

Samples stand on the report grid and after every fill. A sample keeps the marks of what is linear and of the options that
any account held until then and that live still; a listed option that nobody ever held leaves no trace. All prices, P&L
paths, Greeks and attribution are computed afterwards, in array calls.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NamedTuple, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.quiet import FOREVER
from bot.domain.book import Book, trade_value
from bot.domain.instruments import ConvertibleBond, Instrument, OptionContract, Universe, settlement_currency
from bot.domain.units import Nanos
from bot.engine.account import Account
from bot.engine.ledger import Converter, category_of
from bot.engine.marks import Marks, carry_forward
from bot.engine.valuation import Slice, Valuation

Floats = NDArray[np.float64]


class AccountState(msgspec.Struct, frozen=True):
    """An account's holdings at one sample, and its count of fills until then."""

    version: int
    quantities: Mapping[str, Decimal]
    fills: int


class Break(msgspec.Struct, frozen=True):
    """A sample at which the story restarts (a corporate action), with its name."""

    sample: int
    what: str


class Course(NamedTuple):
    """How one number went: the samples at which it changed, the first at which it was known, and its values from there."""

    at: list[int]
    values: Sequence[Any]

    def column(self, count: int, of: Callable[[Any], float] = float) -> Floats:
        """The number at each of the first `count` samples, 0 before it was known. Shape: (count,)."""
        out = np.zeros(count)
        if not self.at or self.at[0] >= count:
            return out
        lengths = np.diff([*self.at, max(count, self.at[-1])])
        out[self.at[0] :] = np.repeat([of(value) for value in self.values], lengths)[: count - self.at[0]]
        return out


class States(Sequence[AccountState]):
    """An account's state at every sample, made when asked for."""

    def __init__(self, quantities: Mapping[str, Course], versions: Sequence[int], fills: Sequence[int]) -> None:
        self._quantities = quantities
        self._versions = versions
        self._fills = fills

    def __len__(self) -> int:
        return len(self._fills)

    def held(self, instrument: str) -> Floats:
        """Contracts of one instrument at every sample. Shape: (samples,)."""
        course = self._quantities.get(instrument)
        return np.zeros(len(self)) if course is None else course.column(len(self))

    @overload
    def __getitem__(self, index: int) -> AccountState: ...
    @overload
    def __getitem__(self, index: slice) -> list[AccountState]: ...
    def __getitem__(self, index: int | slice) -> AccountState | list[AccountState]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        sample = range(len(self))[index]
        held = {}
        for key in sorted(self._quantities):
            course = self._quantities[key]
            place = bisect_right(course.at, sample) - 1
            if place >= 0 and course.values[place]:
                held[key] = course.values[place]
        return AccountState(self._versions[sample], held, self._fills[sample])


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """One account over all samples. Shape: pnl (n, 3) total, options, hedge; costs (n, 4) spread, commission, impact,
    financing; both in the base currency. `quantities` are the contracts held by instrument, as they changed."""

    states: States
    quantities: Mapping[str, Course]
    fills: Sequence[int]
    """Fills up to each sample."""
    pnl: Floats
    costs: Floats


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """The samples as columns. Shape: instants, grid (n,); prices by id (n,); vols by underlying (n, contracts); gauges by
    account, strategy and name (n,); slopes, d vol / d spot by the smile rule, as vols, empty where vols stand still.

    `parts` are the slices' contracts that were ever held, in the order of the columns of vols and slopes.
    """

    instants: NDArray[np.int64]
    grid: NDArray[np.bool_]
    prices: Mapping[str, Floats]
    vols: Mapping[str, Floats]
    tracks: Mapping[str, Track]
    breaks: Sequence[Break]
    gauges: Mapping[tuple[str, str, str], Floats] = {}
    slopes: Mapping[str, Floats] = {}
    parts: Mapping[str, Slice] = {}


class Kept(NamedTuple):
    """What samples keep while nothing joins or leaves. Shape: columns (kept,); rows by underlying (its kept contracts,)."""

    columns: NDArray[np.int64]
    rows: Mapping[str, NDArray[np.int64]]


class _Stretch:
    """A run of samples that keep the same: bid, ask and last of each, in one block that grows by doubling."""

    def __init__(self, kept: Kept, start: int) -> None:
        self.kept = kept
        self.start = start
        self.count = 0
        self._block = np.empty((8, 3, len(kept.columns)))

    def row(self) -> Floats:
        """Where the next sample is written. Shape: (3, kept)."""
        if self.count == len(self._block):
            self._block = np.concatenate([self._block, np.empty_like(self._block)])
        self.count += 1
        row: Floats = self._block[self.count - 1]
        return row

    @property
    def rows(self) -> slice:
        """Its samples."""
        return slice(self.start, self.start + self.count)

    def values(self) -> Floats:
        """What was kept. Shape: (samples, 3, kept)."""
        return self._block[: self.count]


class _Diary:
    """What an account held, made and paid, as it changed; law: a change costs the same however many came before."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._version = -1
        self._book: Book | None = None
        self._book_version = -1
        self._states = 0
        self.state_of = array("q")
        """By sample, the number of its state."""
        self._versions = array("q")
        self._fills = array("q")
        self._quantities: dict[str, tuple[array[int], list[Decimal]]] = {}
        self._money: dict[tuple[str, str, str], tuple[array[int], array[float]]] = {}
        self._last: dict[tuple[str, str, str], Decimal] = {}

    def note(self) -> None:
        """The account as it stands belongs to the next sample."""
        ledger = self._account.ledger
        if self._version != ledger.version:
            self._version = ledger.version
            self._note_quantities(ledger.book)
            for name, amount in ledger.amounts():
                if self._last.get(name) is not amount:
                    self._last[name] = amount
                    at, values = self._money.setdefault(name, (array("q"), array("d")))
                    at.append(self._states)
                    values.append(float(amount))
            self._versions.append(ledger.version)
            self._fills.append(self._account.fill_count)
            self._states += 1
        self.state_of.append(self._states - 1)

    def _note_quantities(self, book: Book) -> None:
        names = (
            book.changed_since(self._book_version) if book is self._book else [*book.instruments(), *self._quantities]
        )
        self._book, self._book_version = book, book.version
        for name in names:
            at, values = self._quantities.setdefault(name, (array("q"), []))
            at.append(self._states)
            values.append(book.quantity(name))

    def quantities(self) -> dict[str, Course]:
        """Contracts by instrument over the samples."""
        return {key: self._course(at, values) for key, (at, values) in sorted(self._quantities.items())}

    def money(self) -> dict[tuple[str, str, str], Course]:
        """Amounts by (at_mid or cost, kind, currency) over the samples, in the order they first moved."""
        return {key: self._course(at, values) for key, (at, values) in self._money.items()}

    def versions(self) -> list[int]:
        """The ledger's version at each sample."""
        return [self._versions[state] for state in self.state_of]

    def fills(self) -> list[int]:
        """Fills up to each sample."""
        return [self._fills[state] for state in self.state_of]

    def _course(self, at: array[int], values: Sequence[Any]) -> Course:
        """By sample; of several changes between two samples the last counts, one after the last sample does not."""
        samples = np.searchsorted(np.asarray(self.state_of), np.asarray(at, dtype=np.int64)).tolist()
        kept: dict[int, Any] = dict(zip(samples, values, strict=True))
        kept.pop(len(self.state_of), None)
        return Course(list(kept), list(kept.values()))


NO_RATES: Final[Mapping[str, float]] = MappingProxyType({})
NO_GAUGES: Final[Mapping[tuple[str, str, str], float]] = MappingProxyType({})


class Sampler:
    """Collects samples; `table` turns them into columns."""

    def __init__(
        self, universe: Universe, marks: Marks, valuation: Valuation, accounts: Sequence[Account], base_currency: str
    ) -> None:
        self._universe = universe
        self._marks = marks
        self._valuation = valuation
        self._accounts = list(accounts)
        self._base = base_currency
        self._foreign = sorted({settlement_currency(i) for i in universe} - {base_currency})
        self.instants: array[int] = array("q")
        self._grid = bytearray()
        self._kept = Kept(np.empty(0, dtype=np.int64), {})
        self._kept_until: Nanos = 0
        self._seen: list[tuple[Book, int]] = []
        self._linear: tuple[int, list[int]] = (0, [])
        self._alive: dict[str, OptionContract] = {}
        self._stretches: list[_Stretch] = []
        self._vol_of = array("q")
        self._vols: list[dict[str, Floats]] = []
        self._slopes: list[dict[str, Floats]] = []
        self._vols_for: tuple[Kept | None, list[int]] = (None, [])
        self._rates: list[Mapping[str, float]] = []
        self._gauges: list[Mapping[tuple[str, str, str], float]] = []
        self._diaries = {account.name: _Diary(account) for account in accounts}
        self.breaks: list[Break] = []
        self._spots: dict[str, Floats] = {}
        self._table: Table | None = None

    def __len__(self) -> int:
        return len(self.instants)

    def take(self, now: Nanos, convert: Converter, *, on_grid: bool) -> None:
        """Add a sample, or replace the last when it stands at the same instant and no break lies between."""
        broken = bool(self.breaks) and self.breaks[-1].sample == len(self.instants)
        if self.instants and self.instants[-1] == now and not broken:
            on_grid = on_grid or bool(self._grid[-1])
            self._drop_last()
        kept = self._keep(now)
        self._keep_marks(kept)
        self._vol_of.append(self._vols_now(kept))
        self.instants.append(now)
        self._grid.append(on_grid)
        if self._foreign:
            self._rates.append({currency: _rate(convert(currency)) for currency in self._foreign})
        self._gauges.append(
            {(a.name, *key): v for a in self._accounts for key, v in a.gauges.items()}
            if any(a.gauges for a in self._accounts)
            else NO_GAUGES
        )
        for diary in self._diaries.values():
            diary.note()
        self._table = None
        if self._spots:
            self._spots.clear()

    def mark_break(self, what: str) -> None:
        """Say that the next sample restarts the story."""
        self.breaks.append(Break(len(self.instants), what))

    def _keep(self, now: Nanos) -> Kept:
        """What this sample keeps: all that is linear, and the options that were ever held and live."""
        if now < self._kept_until and self._linear[0] == len(self._universe) and not self._joined():
            return self._kept
        self._alive = {key: item for key, item in self._alive.items() if item.settles >= now}
        for account in self._accounts:
            for key in account.ledger.book.instruments():
                item = self._universe.get(key)
                if isinstance(item, OptionContract) and item.settles >= now:
                    self._alive.setdefault(key, item)
        self._seen = [(account.ledger.book, account.ledger.book.version) for account in self._accounts]
        if self._linear[0] != len(self._universe):
            linear = [k for k, item in enumerate(self._universe) if not isinstance(item, OptionContract)]
            self._linear = (len(self._universe), linear)
        columns = np.array(sorted([*self._linear[1], *map(self._universe.index, self._alive)]), dtype=np.int64)
        rows = {
            key: np.array(sorted(s.rows[c] for c in self._alive if c in s.rows), dtype=np.int64)
            for key, s in self._valuation.slices.items()
        }
        self._kept_until = min((item.settles + 1 for item in self._alive.values()), default=FOREVER)
        same = np.array_equal(columns, self._kept.columns) and rows.keys() == self._kept.rows.keys()
        if not same or any(not np.array_equal(found, self._kept.rows[key]) for key, found in rows.items()):
            self._kept = Kept(columns, rows)
        return self._kept

    def _joined(self) -> bool:
        """True when some account's options may be others than when last looked at."""
        for number, account in enumerate(self._accounts):
            book, version = self._seen[number]
            now = account.ledger.book
            if now is book and now.version == version:
                continue
            if now is not book or any(
                isinstance(self._universe.get(key), OptionContract) for key in now.changed_since(version)
            ):
                return True
            self._seen[number] = (now, now.version)
        return len(self._valuation.slices) != len(self._kept.rows)

    def _keep_marks(self, kept: Kept) -> None:
        """Bid, ask and last of what is kept; an option that joins without a quote has the last good one a re-mark saw."""
        before = self._stretches[-1].kept if self._stretches else None
        if before is not kept:
            self._stretches.append(_Stretch(kept, len(self.instants)))
        marks, k, row = self._marks, kept.columns, self._stretches[-1].row()
        marks.bid_view.take(k, out=row[0], mode="clip")
        marks.ask_view.take(k, out=row[1], mode="clip")
        marks.last_view.take(k, out=row[2], mode="clip")
        if before is None or before is kept:
            return
        bid, ask = row[0], row[1]
        for key, rows in kept.rows.items():
            s = self._valuation.slices[key]
            joined = rows[~np.isin(s.columns[rows], before.columns)]
            at = np.searchsorted(k, s.columns[joined])
            blank = ~(bid[at] <= ask[at]) & (s.seen_bid[joined] <= s.seen_ask[joined])
            bid[at[blank]], ask[at[blank]] = s.seen_bid[joined[blank]], s.seen_ask[joined[blank]]

    def _vols_now(self, kept: Kept) -> int:
        """The number of the present vols and slopes of what is kept, noted anew when one changed."""
        slices = self._valuation.slices
        versions = [s.vol_version for s in slices.values()]
        if self._vols_for[0] is not kept or self._vols_for[1] != versions:
            self._vols_for = kept, versions
            self._vols.append({key: slices[key].vol[rows] for key, rows in kept.rows.items()})
            self._slopes.append(
                {key: slices[key].slope[rows] for key, rows in kept.rows.items() if slices[key].smile_moves}
            )
        return len(self._vols) - 1

    def _drop_last(self) -> None:
        last = self._stretches[-1]
        last.count -= 1
        if not last.count:
            self._stretches.pop()
        columns: list[Any] = [self.instants, self._grid, self._vol_of, self._gauges]
        for column in (*columns, *(diary.state_of for diary in self._diaries.values())):
            column.pop()
        if self._foreign:
            self._rates.pop()

    # ------------------------------------------------------------------ afterwards

    def table(self) -> Table:
        """All samples as columns, built once."""
        if self._table is None:
            self._table = self._build()
        return self._table

    def _build(self) -> Table:
        instants = np.asarray(self.instants, dtype=np.int64)
        slices = self._valuation.slices
        rows = {key: self._rows_of(key) for key in slices}
        parts = {key: s if _is_all(rows[key], s) else s.part(rows[key]) for key, s in slices.items()}
        vols = {key: self._contract_columns(self._vols, key, rows[key]) for key in slices}
        slopes = {
            key: self._contract_columns(self._slopes, key, rows[key]) for key, s in slices.items() if s.smile_moves
        }
        quantities = {name: diary.quantities() for name, diary in self._diaries.items()}
        held = {key for courses in quantities.values() for key, course in courses.items() if any(course.values)}
        tracked = sorted(held | set(slices))
        prices: dict[str, Floats] = {}
        for key in tracked:
            item = self._universe.get(key)
            if not isinstance(item, OptionContract):
                k = self._universe.index(key)
                prices[key] = self._valuation.price_path(key, self._mids(k), self._column(2, k))
            if isinstance(item, ConvertibleBond):
                spots = self.spot_path(item.underlying)
                prices[key] = self._valuation.bond_path(item, prices[key], spots, instants)
        for key in tracked:
            item = self._universe.get(key)
            if isinstance(item, OptionContract):
                part = parts[item.underlying]
                prices[key] = self._option_path(item, part, instants, vols[item.underlying])
        tracks = {name: self._track(self._diaries[name], courses, prices) for name, courses in quantities.items()}
        return Table(
            instants=instants,
            grid=np.frombuffer(bytes(self._grid), dtype=np.bool_),
            prices=prices,
            vols=vols,
            slopes=slopes,
            parts=parts,
            tracks=tracks,
            gauges=self._gauge_columns(),
            breaks=tuple(self.breaks),
        )

    def _rows_of(self, key: str) -> NDArray[np.int64]:
        """The rows of a slice that some sample kept, in order."""
        known = [stretch.kept.rows[key] for stretch in self._stretches if key in stretch.kept.rows]
        return np.unique(np.concatenate(known)) if known else np.empty(0, dtype=np.int64)

    def _column(self, which: int, k: int) -> Floats:
        """Bid, ask or last of one instrument over the samples, NaN where it was not kept. Shape: (samples,)."""
        out = np.full(len(self.instants), math.nan)
        for stretch in self._stretches:
            columns = stretch.kept.columns
            at = int(np.searchsorted(columns, k))
            if at < len(columns) and columns[at] == k:
                out[stretch.rows] = stretch.values()[:, which, at]
        return out

    def _mids(self, k: int) -> Floats:
        bids, asks = self._column(0, k), self._column(1, k)
        with np.errstate(invalid="ignore"):
            return np.where(bids <= asks, 0.5 * (bids + asks), math.nan)

    def _contract_columns(self, noted: Sequence[Mapping[str, Floats]], key: str, rows: NDArray[np.int64]) -> Floats:
        """What samples keep by contract of one underlying, NaN before it was kept, the last after. Shape: (samples, rows)."""
        out = np.full((len(self.instants), len(rows)), math.nan)
        number = np.asarray(self._vol_of)
        for stretch in self._stretches:
            samples = stretch.rows
            if samples.start:
                out[samples] = out[samples.start - 1]
            kept = stretch.kept.rows.get(key)
            if kept is None or not len(kept):
                continue
            at = np.searchsorted(rows, kept)
            first = int(number[samples.start])
            known = np.stack([noted[n][key] for n in range(first, int(number[samples.stop - 1]) + 1)])
            out[samples, at] = known[number[samples] - first]
        return out

    def _option_path(self, item: OptionContract, part: Slice, instants: NDArray[np.int64], vols: Floats) -> Floats:
        """The marks of an option over the samples, from the first that kept it. Shape: (samples,)."""
        path = carry_forward(self._mids(self._universe.index(item.id)))
        if self._valuation.settings.marks_at == "mid" and not np.isnan(path).any():
            return path
        column = part.rows[item.id]
        spot = self.spot_path(item.underlying)
        one = part.part(np.array([column], dtype=np.int64))
        units = self._valuation.units(one, spot[:, None], instants[:, None], vols[:, [column]], second=False)
        model = np.asarray(units.price[:, 0])
        return model if self._valuation.settings.marks_at == "model" else np.where(np.isnan(path), model, path)

    def quotes(self, instrument: str) -> tuple[Floats, Floats]:
        """Bid and ask of an instrument at every sample that kept them, NaN elsewhere. Shape: each (samples,)."""
        k = self._universe.index(instrument)
        return self._column(0, k), self._column(1, k)

    def spot_path(self, underlying: str) -> Floats:
        """The price options on an underlying are valued at, at every sample, carried. Shape: (samples,)."""
        known = self._spots.get(underlying)
        if known is None or len(known) != len(self.instants):
            k = self._valuation.slice(underlying).price_column
            known = self._valuation.price_path(underlying, self._mids(k), self._column(2, k), valued=True)
            self._spots[underlying] = known
        return known

    def _gauge_columns(self) -> dict[tuple[str, str, str], Floats]:
        names = sorted({key for row in self._gauges for key in row})
        return {key: np.array([row.get(key, math.nan) for row in self._gauges]) for key in names}

    def _track(self, diary: _Diary, quantities: Mapping[str, Course], prices: Mapping[str, Floats]) -> Track:
        n = len(self.instants)
        money = diary.money()
        pnl, costs = np.zeros((n, 3)), np.zeros((n, 4))
        pnl[:, 1], pnl[:, 2] = self._at_mid(money, quantities, prices)
        for j, name in enumerate(("spread_cost", "commission", "impact", "financing")):
            costs[:, j] = self._in_base(money, "cost", name)
        pnl[:, 0] = pnl[:, 1] + pnl[:, 2] - costs[:, 0] - costs[:, 1] - costs[:, 2] + costs[:, 3]
        fills = diary.fills()
        states = States(quantities, diary.versions(), fills)
        return Track(states=states, quantities=quantities, fills=fills, pnl=pnl, costs=costs)

    def _at_mid(
        self,
        money: Mapping[tuple[str, str, str], Course],
        quantities: Mapping[str, Course],
        prices: Mapping[str, Floats],
    ) -> tuple[Floats, Floats]:
        made = {name: self._in_base(money, "at_mid", name) for name in ("options", "hedge")}
        for key, course in quantities.items():
            if key not in prices:  # never held at a sample
                continue
            item = self._universe.get(key)
            held = course.column(len(self.instants))
            value = float_value(item, held, prices[key]) * self._rate_path(settlement_currency(item))
            made[category_of(item)] = made[category_of(item)] + np.where(held == 0.0, 0.0, value)
        return made["options"], made["hedge"]

    def _in_base(self, money: Mapping[tuple[str, str, str], Course], what: str, name: str) -> Floats:
        total = np.zeros(len(self.instants))
        for (where, kind, currency), course in money.items():
            if (where, kind) != (what, name):
                continue
            amount = course.column(len(self.instants))
            total = total + np.where(amount == 0.0, 0.0, amount * self._rate_path(currency))
        return total

    def _rate_path(self, currency: str) -> Floats | float:
        if currency == self._base:
            return 1.0
        return np.array([row.get(currency, math.nan) for row in self._rates])


def float_value(item: Instrument, quantity: float | Floats, price: Floats) -> Floats:
    """The value of contracts at each price, in the settlement currency: the float twin of `trade_value`."""
    one = trade_value(item, Decimal(1), Decimal(1))
    if one < 0:  # an inverse contract: -q m / price
        return np.asarray(-quantity * float(item.multiplier) / price)
    return np.asarray(quantity * float(item.multiplier) * price)


def _is_all(rows: NDArray[np.int64], s: Slice) -> bool:
    return len(rows) == len(s.contracts)


def _rate(rate: Decimal | None) -> float:
    return math.nan if rate is None else float(rate)
