"""A sample is the state of marks and holdings at one instant; law: sampling wakes nobody and values nothing.

Samples stand on the report grid and after every fill. A sample is a few copied columns and references to what changes
rarely (holdings, vols); all prices, P&L paths, Greeks and attribution are computed afterwards, in array calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.book import trade_value
from bot.domain.instruments import ConvertibleBond, Instrument, OptionContract, Universe, settlement_currency
from bot.domain.units import Nanos
from bot.engine.account import Account
from bot.engine.ledger import Converter, category_of
from bot.engine.marks import Marks, carry_forward
from bot.engine.valuation import Valuation

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
    account, strategy and name (n,); slopes, d vol / d spot by the smile rule, as vols, empty where vols stand still."""

    instants: NDArray[np.int64]
    grid: NDArray[np.bool_]
    prices: Mapping[str, Floats]
    vols: Mapping[str, Floats]
    tracks: Mapping[str, Track]
    breaks: Sequence[Break]
    gauges: Mapping[tuple[str, str, str], Floats] = {}
    slopes: Mapping[str, Floats] = {}


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
        self._rows: list[tuple[Floats, Floats, Floats]] = []
        self._vols: list[dict[str, Floats]] = []
        self._slopes: list[dict[str, Floats]] = []
        self._rates: list[dict[str, float]] = []
        self._gauges: list[dict[tuple[str, str, str], float]] = []
        self._states: dict[str, list[AccountState]] = {account.name: [] for account in accounts}
        self.breaks: list[Break] = []
        self._table: Table | None = None

    def __len__(self) -> int:
        return len(self.instants)

    def take(self, now: Nanos, convert: Converter, *, on_grid: bool) -> None:
        """Add a sample, or replace the last when it stands at the same instant and no break lies between."""
        broken = bool(self.breaks) and self.breaks[-1].sample == len(self.instants)
        if self.instants and self.instants[-1] == now and not broken:
            on_grid = on_grid or self._grid[-1]
            self._drop_last()
        marks = self._marks
        self.instants.append(now)
        self._grid.append(on_grid)
        self._rows.append((marks.bid_view.copy(), marks.ask_view.copy(), marks.last_view.copy()))
        self._vols.append({key: s.vol for key, s in self._valuation.slices.items()})
        self._slopes.append({key: s.slope for key, s in self._valuation.slices.items() if s.smile_moves})
        self._rates.append({currency: _rate(convert(currency)) for currency in self._foreign})
        self._gauges.append({(a.name, *key): v for a in self._accounts for key, v in a.gauges.items()})
        for account in self._accounts:
            self._follow(account)
        self._table = None

    def mark_break(self, what: str) -> None:
        """Say that the next sample restarts the story."""
        self.breaks.append(Break(len(self.instants), what))

    def _follow(self, account: Account) -> None:
        states = self._states[account.name]
        ledger = account.ledger
        if states and states[-1].version == ledger.version:
            states.append(states[-1])
            return
        flows, costs = ledger.flows()
        states.append(AccountState(ledger.version, ledger.quantities(), flows, costs, account.fill_count))

    def _drop_last(self) -> None:
        columns: list[list[Any]] = [self.instants, self._grid, self._rows, self._vols, self._slopes, self._rates]
        for column in (*columns, self._gauges, *self._states.values()):
            column.pop()

    # ------------------------------------------------------------------ afterwards

    def table(self) -> Table:
        """All samples as columns, built once."""
        if self._table is None:
            self._table = self._build()
        return self._table

    def _build(self) -> Table:
        instants = np.asarray(self.instants, dtype=np.int64)
        bids, asks, lasts = (self._column(i) for i in range(3))
        slices = self._valuation.slices
        vols = {key: _contract_columns(self._vols, key, len(s.contracts)) for key, s in slices.items()}
        slopes = {
            key: _contract_columns(self._slopes, key, len(s.contracts)) for key, s in slices.items() if s.smile_moves
        }
        held = {key for states in self._states.values() for state in _distinct(states) for key in state.quantities}
        tracked = sorted(held | set(self._valuation.slices))
        with np.errstate(invalid="ignore"):
            mids = np.where(bids <= asks, 0.5 * (bids + asks), math.nan)
        prices: dict[str, Floats] = {}
        for key in tracked:
            item = self._universe.get(key)
            if not isinstance(item, OptionContract):
                k = self._universe.index(key)
                prices[key] = self._valuation.price_path(key, mids[:, k], lasts[:, k])
            if isinstance(item, ConvertibleBond):
                spots = self.spot_path(item.underlying)
                prices[key] = self._valuation.bond_path(item, prices[key], spots, instants)
        for key in tracked:
            item = self._universe.get(key)
            if isinstance(item, OptionContract):
                k = self._universe.index(key)
                prices[key] = self._option_path(item, instants, mids[:, k], vols)
        tracks = {name: self._track(states, prices) for name, states in self._states.items()}
        return Table(
            instants=instants,
            grid=np.asarray(self._grid, dtype=bool),
            prices=prices,
            vols=vols,
            slopes=slopes,
            tracks=tracks,
            gauges=self._gauge_columns(),
            breaks=tuple(self.breaks),
        )

    def _column(self, which: int) -> Floats:
        width = max((len(row[which]) for row in self._rows), default=0)
        out = np.full((len(self._rows), width), math.nan)
        for i, row in enumerate(self._rows):
            out[i, : len(row[which])] = row[which]
        return out

    def _option_path(
        self, item: OptionContract, instants: NDArray[np.int64], mids: Floats, vols: Mapping[str, Floats]
    ) -> Floats:
        path = carry_forward(mids)
        if self._valuation.settings.marks_at == "mid" and not np.isnan(path).any():
            return path
        s = self._valuation.slice(item.underlying)
        spot = self.spot_path(item.underlying)
        units = self._valuation.units(s, spot[:, None], instants[:, None], vols[item.underlying], second=False)
        model = np.asarray(units.price[:, s.rows[item.id]])
        return model if self._valuation.settings.marks_at == "model" else np.where(np.isnan(path), model, path)

    def spot_path(self, underlying: str) -> Floats:
        """The price options on an underlying are valued at, at every sample, carried. Shape: (samples,)."""
        k = self._valuation.slice(underlying).price_column
        bids, asks, lasts = (np.array([row[i][k] for row in self._rows]) for i in range(3))
        with np.errstate(invalid="ignore"):
            mids = np.where(bids <= asks, 0.5 * (bids + asks), math.nan)
        return self._valuation.price_path(underlying, mids, lasts, valued=True)

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


def _contract_columns(samples: Sequence[Mapping[str, Floats]], key: str, contracts: int) -> Floats:
    """What each sample keeps by contract of one underlying, NaN before a contract was valued. Shape: (samples, contracts)."""
    out = np.full((len(samples), contracts), math.nan)
    for i, row in enumerate(samples):
        found = row.get(key)
        if found is not None:
            out[i, : len(found)] = found
    return out


def _rate(rate: Decimal | None) -> float:
    return math.nan if rate is None else float(rate)


def _distinct(states: Sequence[AccountState]) -> list[AccountState]:
    seen: dict[int, AccountState] = {state.version: state for state in states}
    return list(seen.values())
