"""A sample is the state of marks and holdings at one instant; law: sampling wakes nobody and values nothing.

Samples stand on the report grid and after every fill. A sample keeps the marks of what is linear and of the options that
any account held until then and that live still; a listed option that nobody ever held leaves no trace. All prices, P&L
paths, Greeks and attribution are computed afterwards, in array calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.quiet import FOREVER
from bot.domain.book import trade_value
from bot.domain.instruments import ConvertibleBond, Instrument, OptionContract, Universe, settlement_currency
from bot.domain.units import Nanos
from bot.engine.account import Account
from bot.engine.ledger import Converter, category_of
from bot.engine.marks import Marks, carry_forward
from bot.engine.valuation import Slice, Valuation

Floats = NDArray[np.float64]


class AccountState(msgspec.Struct, frozen=True):
    """An account's holdings, flows at mid by (category, currency), costs by currency, and count of fills."""

    version: int
    quantities: Mapping[str, Decimal]
    flows: Mapping[tuple[str, str], float]
    costs: Mapping[tuple[str, str], float]
    fills: int


class Break(msgspec.Struct, frozen=True):
    """A sample at which the story restarts (a corporate action), with its name."""

    sample: int
    what: str


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """One account over all samples. Shape: pnl (n, 3) total, options, hedge; costs (n, 4) spread, commission, impact,
    financing; both in the base currency."""

    states: Sequence[AccountState]
    pnl: Floats
    costs: Floats

    @property
    def fills(self) -> list[int]:
        """Fills up to each sample."""
        return [state.fills for state in self.states]


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
        self.instants: list[Nanos] = []
        self._grid: list[bool] = []
        self._kept = Kept(np.empty(0, dtype=np.int64), {})
        self._kept_for: tuple[tuple[int, ...], Nanos] = ((), 0)
        self._linear: tuple[int, list[int]] = (0, [])
        self._alive: dict[str, OptionContract] = {}
        self._keeps: list[Kept] = []
        self._rows: list[tuple[Floats, Floats, Floats]] = []
        self._vols: list[dict[str, Floats]] = []
        self._slopes: list[dict[str, Floats]] = []
        self._rates: list[dict[str, float]] = []
        self._gauges: list[dict[tuple[str, str, str], float]] = []
        self._states: dict[str, list[AccountState]] = {account.name: [] for account in accounts}
        self.breaks: list[Break] = []
        self._spots: dict[str, Floats] = {}
        self._table: Table | None = None

    def __len__(self) -> int:
        return len(self.instants)

    def take(self, now: Nanos, convert: Converter, *, on_grid: bool) -> None:
        """Add a sample, or replace the last when it stands at the same instant and no break lies between."""
        broken = bool(self.breaks) and self.breaks[-1].sample == len(self.instants)
        if self.instants and self.instants[-1] == now and not broken:
            on_grid = on_grid or self._grid[-1]
            self._drop_last()
        kept = self._keep(now)
        slices = self._valuation.slices
        self.instants.append(now)
        self._grid.append(on_grid)
        self._keeps.append(kept)
        self._rows.append(self._marks_of(kept))
        self._vols.append({key: slices[key].vol[rows] for key, rows in kept.rows.items()})
        self._slopes.append(
            {key: slices[key].slope[rows] for key, rows in kept.rows.items() if slices[key].smile_moves}
        )
        self._rates.append({currency: _rate(convert(currency)) for currency in self._foreign})
        self._gauges.append({(a.name, *key): v for a in self._accounts for key, v in a.gauges.items()})
        for account in self._accounts:
            self._follow(account)
        self._table = None
        self._spots.clear()

    def mark_break(self, what: str) -> None:
        """Say that the next sample restarts the story."""
        self.breaks.append(Break(len(self.instants), what))

    def _keep(self, now: Nanos) -> Kept:
        """What this sample keeps: all that is linear, and the options that were ever held and live."""
        versions = (len(self._universe), *(account.ledger.version for account in self._accounts))
        if versions == self._kept_for[0] and now < self._kept_for[1]:
            return self._kept
        for account in self._accounts:
            for key in account.ledger.quantities():
                item = self._universe.get(key)
                if isinstance(item, OptionContract):
                    self._alive.setdefault(key, item)
        self._alive = {key: item for key, item in self._alive.items() if item.settles >= now}
        if self._linear[0] != len(self._universe):
            linear = [k for k, item in enumerate(self._universe) if not isinstance(item, OptionContract)]
            self._linear = (len(self._universe), linear)
        columns = np.array(sorted([*self._linear[1], *map(self._universe.index, self._alive)]), dtype=np.int64)
        rows = {
            key: np.array(sorted(s.rows[c] for c in self._alive if c in s.rows), dtype=np.int64)
            for key, s in self._valuation.slices.items()
        }
        self._kept_for = (versions, min((item.settles + 1 for item in self._alive.values()), default=FOREVER))
        same = np.array_equal(columns, self._kept.columns) and rows.keys() == self._kept.rows.keys()
        if not same or any(not np.array_equal(found, self._kept.rows[key]) for key, found in rows.items()):
            self._kept = Kept(columns, rows)
        return self._kept

    def _marks_of(self, kept: Kept) -> tuple[Floats, Floats, Floats]:
        """Bid, ask and last of what is kept; an option that joins without a quote has the last good one a re-mark saw."""
        marks, k = self._marks, kept.columns
        bid, ask, last = marks.bid_view[k], marks.ask_view[k], marks.last_view[k]
        before = self._keeps[-2] if len(self._keeps) > 1 else None
        if before is None or before is kept:
            return bid, ask, last
        for key, rows in kept.rows.items():
            s = self._valuation.slices[key]
            joined = rows[~np.isin(s.columns[rows], before.columns)]
            at = np.searchsorted(k, s.columns[joined])
            blank = ~(bid[at] <= ask[at]) & (s.seen_bid[joined] <= s.seen_ask[joined])
            bid[at[blank]], ask[at[blank]] = s.seen_bid[joined[blank]], s.seen_ask[joined[blank]]
        return bid, ask, last

    def _follow(self, account: Account) -> None:
        states = self._states[account.name]
        ledger = account.ledger
        if states and states[-1].version == ledger.version:
            states.append(states[-1])
            return
        flows, costs = ledger.flows()
        states.append(AccountState(ledger.version, ledger.quantities(), flows, costs, account.fill_count))

    def _drop_last(self) -> None:
        columns: list[list[Any]] = [self.instants, self._grid, self._keeps, self._rows, self._vols, self._slopes]
        for column in (*columns, self._rates, self._gauges, *self._states.values()):
            column.pop()

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
        held = {key for states in self._states.values() for state in _distinct(states) for key in state.quantities}
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
        tracks = {name: self._track(states, prices) for name, states in self._states.items()}
        return Table(
            instants=instants,
            grid=np.asarray(self._grid, dtype=bool),
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
        known = [kept.rows[key] for kept, _ in self._stretches() if key in kept.rows]
        return np.unique(np.concatenate(known)) if known else np.empty(0, dtype=np.int64)

    def _stretches(self) -> list[tuple[Kept, slice]]:
        """Runs of samples that keep the same."""
        found: list[tuple[Kept, slice]] = []
        start = 0
        for stop in range(1, len(self._keeps) + 1):
            if stop == len(self._keeps) or self._keeps[stop] is not self._keeps[start]:
                found.append((self._keeps[start], slice(start, stop)))
                start = stop
        return found

    def _column(self, which: int, k: int) -> Floats:
        """Bid, ask or last of one instrument over the samples, NaN where it was not kept. Shape: (samples,)."""
        out = np.full(len(self._rows), math.nan)
        for kept, stretch in self._stretches():
            at = int(np.searchsorted(kept.columns, k))
            if at < len(kept.columns) and kept.columns[at] == k:
                out[stretch] = [row[which][at] for row in self._rows[stretch]]
        return out

    def _mids(self, k: int) -> Floats:
        bids, asks = self._column(0, k), self._column(1, k)
        with np.errstate(invalid="ignore"):
            return np.where(bids <= asks, 0.5 * (bids + asks), math.nan)

    def _contract_columns(self, samples: Sequence[Mapping[str, Floats]], key: str, rows: NDArray[np.int64]) -> Floats:
        """What samples keep by contract of one underlying, NaN before it was kept, the last after. Shape: (samples, rows)."""
        out = np.full((len(samples), len(rows)), math.nan)
        for kept, stretch in self._stretches():
            if stretch.start:
                out[stretch] = out[stretch.start - 1]
            if key in kept.rows and len(kept.rows[key]):
                at = np.searchsorted(rows, kept.rows[key])
                out[stretch, at] = np.stack([row[key] for row in samples[stretch]])
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

    def spot_path(self, underlying: str) -> Floats:
        """The price options on an underlying are valued at, at every sample, carried. Shape: (samples,)."""
        known = self._spots.get(underlying)
        if known is None or len(known) != len(self._rows):
            k = self._valuation.slice(underlying).price_column
            known = self._valuation.price_path(underlying, self._mids(k), self._column(2, k), valued=True)
            self._spots[underlying] = known
        return known

    def _gauge_columns(self) -> dict[tuple[str, str, str], Floats]:
        names = sorted({key for row in self._gauges for key in row})
        return {key: np.array([row.get(key, math.nan) for row in self._gauges]) for key in names}

    def _track(self, states: Sequence[AccountState], prices: Mapping[str, Floats]) -> Track:
        n = len(states)
        pnl, costs = np.zeros((n, 3)), np.zeros((n, 4))
        start = 0
        for stop in range(1, n + 1):
            if stop < n and states[stop] is states[start]:
                continue
            rows = slice(start, stop)
            pnl[rows, 1], pnl[rows, 2] = self._at_mid(states[start], prices, rows)
            for j, name in enumerate(("spread_cost", "commission", "impact", "financing")):
                costs[rows, j] = self._in_base(states[start].costs, name, rows)
            start = stop
        pnl[:, 0] = pnl[:, 1] + pnl[:, 2] - costs[:, 0] - costs[:, 1] - costs[:, 2] + costs[:, 3]
        return Track(states=states, pnl=pnl, costs=costs)

    def _at_mid(self, state: AccountState, prices: Mapping[str, Floats], rows: slice) -> tuple[Floats, Floats]:
        made = {name: self._in_base(state.flows, name, rows) for name in ("options", "hedge")}
        for key, quantity in state.quantities.items():
            item = self._universe.get(key)
            value = float_value(item, float(quantity), prices[key][rows])
            made[category_of(item)] = made[category_of(item)] + value * self._rate_path(settlement_currency(item), rows)
        return made["options"], made["hedge"]

    def _in_base(self, amounts: Mapping[tuple[str, str], float], name: str, rows: slice) -> Floats:
        total = np.zeros(rows.stop - rows.start)
        for (kind, currency), amount in amounts.items():
            if kind == name and amount:
                total = total + amount * self._rate_path(currency, rows)
        return total

    def _rate_path(self, currency: str, rows: slice) -> Floats | float:
        if currency == self._base:
            return 1.0
        return np.array([row.get(currency, math.nan) for row in self._rates[rows]])


def float_value(item: Instrument, quantity: float, price: Floats) -> Floats:
    """The value of contracts at each price, in the settlement currency: the float twin of `trade_value`."""
    one = trade_value(item, Decimal(1), Decimal(1))
    if one < 0:  # an inverse contract: -q m / price
        return np.asarray(-quantity * float(item.multiplier) / price)
    return np.asarray(quantity * float(item.multiplier) * price)


def _is_all(rows: NDArray[np.int64], s: Slice) -> bool:
    return len(rows) == len(s.contracts)


def _rate(rate: Decimal | None) -> float:
    return math.nan if rate is None else float(rate)


def _distinct(states: Sequence[AccountState]) -> list[AccountState]:
    seen: dict[int, AccountState] = {state.version: state for state in states}
    return list(seen.values())
