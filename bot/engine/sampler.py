"""A sample is the state of marks and holdings at one instant; law: sampling wakes nobody and values nothing.

Samples stand on the report grid and after every fill. They keep columns of marks and of each account's holdings; all
Greeks and attribution are computed from them afterwards, in array calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from bot.domain.instruments import Universe
from bot.domain.units import Nanos
from bot.engine.account import Account
from bot.engine.ledger import Converter
from bot.engine.valuation import Valuation


class AccountTrack:
    """One account's holdings and costs at every sample."""

    def __init__(self) -> None:
        self.quantities: list[Mapping[str, Decimal]] = []
        self.costs: list[tuple[float, float, float, float]] = []
        self.pnl: list[tuple[float, float, float]] = []
        self.fills: list[int] = []


class Break(msgspec.Struct, frozen=True):
    """A sample after which the story restarts: a corporate action or a new session, with its name."""

    sample: int
    what: str


class Sampler:
    """Collects samples. `instants`, `prices`, `vols` and each track grow together."""

    def __init__(self, universe: Universe, valuation: Valuation, accounts: Sequence[Account]) -> None:
        self._universe = universe
        self._valuation = valuation
        self._accounts = list(accounts)
        self.instants: list[Nanos] = []
        self.grid: list[bool] = []
        self.spots: dict[str, list[float]] = {}
        self.prices: list[Mapping[str, Decimal]] = []
        self.vols: list[Mapping[str, float]] = []
        self.tracks: dict[str, AccountTrack] = {account.name: AccountTrack() for account in accounts}
        self.breaks: list[Break] = []

    def take(self, now: Nanos, convert: Converter, *, on_grid: bool) -> None:
        """Add a sample, or replace the last when it stands at the same instant and no break lies between."""
        if (
            self.instants
            and self.instants[-1] == now
            and not (self.breaks and self.breaks[-1].sample == len(self.instants))
        ):
            on_grid = on_grid or self.grid[-1]
            self._drop_last()
        self.instants.append(now)
        self.grid.append(on_grid)
        prices, vols = self._look(now)
        self.prices.append(prices)
        self.vols.append(vols)
        for account in self._accounts:
            self._track(account, now, prices, convert)

    def mark_break(self, what: str) -> None:
        """Say that the next sample restarts the story."""
        self.breaks.append(Break(len(self.instants), what))

    def _look(self, now: Nanos) -> tuple[dict[str, Decimal], dict[str, float]]:
        held: set[str] = set()
        for account in self._accounts:
            held.update(account.ledger.book.instruments())
        held.update(self._valuation.slices)
        prices: dict[str, Decimal] = {}
        for key in sorted(held):
            mark = self._valuation.mark(key, now)
            if mark is not None:
                prices[key] = mark
        vols = {
            contract.id: float(s.vol[row])
            for s in self._valuation.slices.values()
            for row, contract in enumerate(s.contracts)
        }
        return prices, vols

    def _track(self, account: Account, now: Nanos, prices: Mapping[str, Decimal], convert: Converter) -> None:
        track = self.tracks[account.name]
        track.quantities.append(account.ledger.quantities())
        track.costs.append(account.ledger.costs(convert))
        pnl = account.ledger.pnl(prices.get, convert)
        nan = float("nan")
        track.pnl.append((nan, nan, nan) if pnl is None else (float(pnl.total), float(pnl.options), float(pnl.hedge)))
        track.fills.append(account.fill_count)

    def _drop_last(self) -> None:
        for column in (self.instants, self.grid, self.prices, self.vols):
            column.pop()
        for track in self.tracks.values():
            for rows in (track.quantities, track.costs, track.pnl, track.fills):
                rows.pop()
