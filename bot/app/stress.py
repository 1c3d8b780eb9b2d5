"""A stress table is what prices, vols and time could do to a book with and without what a strategy traded; law: the whole
book repriced, both ways, at one instant of the run, and what cannot be repriced is null with its reason.

"Without" is the book as its owner brought it, or, for a strategy that protects what it also buys, what it protects alone.
The instant is the report sample at which the strategies together held most beyond what the owner brought. All prices move by
one per cent, a proxy by its beta times as much; all vols by points (not below zero, by no smile rule); options that end within
the days are worth their payoff.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bot.app.risk_bonds import bond_moves
from bot.app.wiring import Run
from bot.core.ports import Hedge, Protects
from bot.domain.instruments import ConvertibleBond, Future, Instrument, OptionContract, Perpetual
from bot.domain.units import NS_PER_DAY, Nanos, iso
from bot.engine.account import Account
from bot.engine.sampler import Table
from bot.engine.shadows import Once

Floats: TypeAlias = NDArray[np.float64]

SPOT_PERCENT: Final = (-20.0, -10.0, -5.0, -2.5, 0.0, 2.5, 5.0, 10.0, 20.0)
VOL_POINTS: Final = (-5.0, 0.0, 5.0, 15.0)
DAYS: Final = (0.0, 1.0, 7.0)
IDLE: Final = "none"
"""The account in which no strategy trades."""


class Grid(NamedTuple):
    """Money gained against the instant itself. Shape: pnl (days, vols, spots), NaN where `why` says so."""

    pnl: Floats
    why: str


def stress(run: Run) -> dict[str, Any]:
    """The tables of every account that traded, ready for JSON: keys in docs/results.md."""
    table = run.loop.sampler.table()
    return {
        "currency": run.config.session.base_currency,
        "spot_percent": list(SPOT_PERCENT),
        "vol_points": list(VOL_POINTS),
        "days": list(DAYS),
        "accounts": {
            account.name: _of_account(run, account, table) for account in run.accounts if account.name != IDLE
        },
    }


def _of_account(run: Run, account: Account, table: Table) -> dict[str, Any]:
    brought = _brought(account)
    at = _fullest(run, account, table, brought)
    if at is None:
        return {"at": None, "strategies": {}}
    now = int(table.instants[at])
    held = {key: float(q) for key, q in table.tracks[account.name].states[at].quantities.items()}
    moves = _Moves(run, table, at, _betas(account), [*held, *brought])
    after = moves.of(held)
    shown = {}
    for slot in account.slots:
        strategy = slot.strategy.inner if isinstance(slot.strategy, Once) else slot.strategy
        name = strategy.name
        own = {key for key, askers in account.noted.askers.items() if name in askers}
        without = {key: 0.0 if _is_over(run, key, now) else brought.get(key, 0.0) for key in own}
        traded = {key: held.get(key, 0.0) - then for key, then in without.items() if held.get(key, 0.0) != then}
        if not traded:
            continue
        if isinstance(strategy, Protects):
            worth = _opening_worth(run, table, brought) + float(table.tracks[account.name].pnl[at, 0])
            mine = {key: held.get(key, 0.0) for key in own}
            without |= strategy.unprotected(mine, worth, {key: moves.price(key) for key in own})
        before = moves.of({**held, **without})
        shared = sorted({other for key in traded for other in account.noted.askers[key]} - {name})
        shown[name] = {
            "traded": dict(sorted(traded.items())),
            "without": {key: quantity for key, quantity in sorted(without.items()) if quantity},
            "shared_with": shared,
            "before": _plain(before),
            "after": _plain(after),
        }
    return {"at": iso(now), "strategies": shown}


def _opening_worth(run: Run, table: Table, brought: Mapping[str, float]) -> float:
    """Cash and what is linear at the first sample, in the base currency; options brought are left out."""
    total = 0.0
    for currency, amount in run.config.accounts.opening_cash.items():
        total += float(amount) * float(run.loop.convert(currency) or math.nan)
    for key, quantity in brought.items():
        item = run.universe.get(key)
        if key in table.prices and not isinstance(item, OptionContract | Future | Perpetual):
            rate = float(run.loop.convert(item.currency) or math.nan)
            total += quantity * float(item.multiplier) * float(table.prices[key][0]) * rate
    return total


def _is_over(run: Run, key: str, now: Nanos) -> bool:
    item = run.universe.get(key)
    return isinstance(item, OptionContract) and item.expiry <= now


def _plain(grid: Grid) -> dict[str, Any]:
    worst = float(np.nanmin(grid.pnl)) if not grid.why else math.nan
    return {
        "pnl": [[[_known(v) for v in row] for row in page] for page in grid.pnl.tolist()],
        "worst": _known(worst),
        "unknown": grid.why or None,
    }


def _known(value: float) -> float | None:
    return round(value, 6) + 0.0 if math.isfinite(value) else None


def _brought(account: Account) -> dict[str, float]:
    """What the owner brought, by instrument, over all books."""
    found: dict[str, float] = {}
    for (_, key), quantity in account.opened.items():
        found[key] = found.get(key, 0.0) + float(quantity)
    return found


def _betas(account: Account) -> dict[str, float]:
    """By instrument, the return a proxy is taken to make per return of what it hedges."""
    hedges = [hedge for slot in account.slots for hedge in getattr(slot.strategy, "hedges", ())]
    return {h.instrument: h.beta for h in hedges if isinstance(h, Hedge) and h.beta is not None}


def _fullest(run: Run, account: Account, table: Table, brought: Mapping[str, float]) -> int | None:
    """The report sample at which most was held beyond what was brought, by what it stands for in money; None: never any."""
    size = np.zeros(len(table.instants))
    states = table.tracks[account.name].states
    for key in account.noted.askers:
        item = run.universe.get(key)
        price = _price_path(run, table, item)
        held = states.held(key)
        stands_for = np.abs(held - brought.get(key, 0.0)) * float(item.multiplier) * np.abs(price)
        size += np.nan_to_num(stands_for)
    size = np.where(table.grid, size, 0.0)
    return int(np.argmax(size)) if size.max(initial=0.0) > 0.0 else None


def _price_path(run: Run, table: Table, item: Instrument) -> Floats:
    """What one unit stands for: the underlying's price for an option, its own for anything else. Shape: (samples,)."""
    if isinstance(item, OptionContract):
        return run.loop.sampler.spot_path(item.underlying)
    return np.asarray(table.prices.get(item.id, np.full(len(table.instants), math.nan)))


class _Moves:
    """What each instrument would gain at one sample under every shift; each underlying is repriced once."""

    def __init__(self, run: Run, table: Table, at: int, betas: Mapping[str, float], keys: Iterable[str]) -> None:
        self._run = run
        self._table = table
        self._at = at
        self._now: Nanos = int(table.instants[at])
        self._betas = betas
        self._factor = 1.0 + np.asarray(SPOT_PERCENT) / 100.0
        self._options: dict[str, Floats] = {}
        self._one: dict[str, Grid] = {}
        self._rows: dict[str, dict[str, int]] = {}
        for key in dict.fromkeys(keys):
            item = run.universe.get(key)
            if isinstance(item, OptionContract):
                rows = self._rows.setdefault(item.underlying, {})
                rows.setdefault(key, len(rows))

    def of(self, held: Mapping[str, float]) -> Grid:
        """A book's gains in the base currency."""
        total = np.zeros((len(DAYS), len(VOL_POINTS), len(SPOT_PERCENT)))
        why = ""
        for key, quantity in sorted(held.items()):
            if not quantity:
                continue
            item = self._run.universe.get(key)
            rate = self._run.loop.convert(item.currency)
            one = self._one[key] if key in self._one else self._one.setdefault(key, self._of_one(item))
            why = why or one.why or ("" if rate is not None else f"{key}: no exchange rate of {item.currency}")
            total = total + quantity * one.pnl * (math.nan if rate is None else float(rate))
        return Grid(total, why)

    def _of_one(self, item: Instrument) -> Grid:
        """One contract's gains in its currency."""
        if isinstance(item, OptionContract):
            return self._of_option(item)
        if isinstance(item, ConvertibleBond):
            return self._of_bond(item)
        price = self.price(item.id)
        why = "" if math.isfinite(price) else f"{item.id}: no price at {iso(self._now)}"
        value = 1.0 if isinstance(item, Perpetual) and item.inverse else price
        moved = self._betas.get(item.id, 1.0) * (self._factor - 1.0)
        return Grid(np.broadcast_to(float(item.multiplier) * value * moved, self._shape()), why)

    def _shape(self) -> tuple[int, int, int]:
        return len(DAYS), len(VOL_POINTS), len(SPOT_PERCENT)

    def price(self, key: str) -> float:
        """The last known price at the sample, an option's underlying's; NaN without any."""
        path = _price_path(self._run, self._table, self._run.universe.get(key))
        known = path[: self._at + 1][np.isfinite(path[: self._at + 1])]
        return float(known[-1]) if len(known) else math.nan

    def _of_option(self, contract: OptionContract) -> Grid:
        part = self._table.parts.get(contract.underlying)
        rows = {key: row for key, row in self._rows[contract.underlying].items() if part and key in part.rows}
        if part is None or contract.id not in rows:
            return Grid(np.full(self._shape(), math.nan), f"{contract.id}: not sampled at {iso(self._now)}")
        if contract.underlying not in self._options:
            self._options[contract.underlying] = self._of_slice(contract.underlying, [part.rows[key] for key in rows])
        place = list(rows).index(contract.id)
        found = self._options[contract.underlying][..., place] * float(contract.multiplier)
        why = "" if np.isfinite(found).all() else f"{contract.id}: no vol or price at {iso(self._now)}"
        return Grid(found, why)

    def _of_slice(self, underlying: str, rows: Sequence[int]) -> Floats:
        """Change of the unit value of some contracts. Shape: rows (n,); result (days, vols, spots, n)."""
        valuation = self._run.loop.valuation
        chosen = np.asarray(rows, dtype=np.int64)
        s = self._table.parts[underlying].part(chosen)
        spot = float(self._run.loop.sampler.spot_path(underlying)[self._at])
        vols = self._table.vols[underlying][self._at][chosen]
        here = valuation.units(s, spot, self._now, vols, second=False).price
        pages = []
        for days in DAYS:
            later = np.minimum(self._now + round(days * NS_PER_DAY), np.maximum(s.expiry, self._now))
            moved = [
                valuation.units(
                    s, spot * self._factor[:, None], later, np.maximum(vols + points / 100.0, 0.0), second=False
                ).price
                - here
                for points in VOL_POINTS
            ]
            pages.append(np.stack(moved))
        return np.stack(pages)

    def _of_bond(self, bond: ConvertibleBond) -> Grid:
        """By the bond's model as it stands at the end of the run, at the share's price of the instant."""
        valuation = self._run.loop.valuation
        spot = float(self._run.loop.sampler.spot_path(bond.underlying)[self._at])
        pages, why = [], ""
        for days in DAYS:
            rows = []
            for points in VOL_POINTS:
                fault, gain = bond_moves(
                    valuation, bond, self._now, factor=self._factor, vol_points=points, days=days, spot=spot
                )
                why = why or (f"{bond.id}: {fault}" if fault else "")
                rows.append(gain)
            pages.append(np.stack(rows))
        return Grid(np.stack(pages), why)


def cell(grid: Mapping[str, Any], *, spot: float, points: float = 0.0, days: float = 0.0) -> float | None:
    """One figure of a table by its shifts.

    >>> cell({"pnl": [[[None] * 9] * 4] * 3}, spot=-10.0) is None
    True
    """
    found: Sequence[float | None] = grid["pnl"][DAYS.index(days)][VOL_POINTS.index(points)]
    return found[SPOT_PERCENT.index(spot)]
