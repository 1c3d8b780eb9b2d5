"""What an account carries is its risk by underlying, held and open; law: it is read from the books and the orders themselves
whenever either changed, and kept until then.

Orders that are open count in the worst case: each may fill or not, an UNKNOWN one like any other.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.domain.instruments import ConvertibleBond, Instrument, OptionContract
from bot.domain.orders import Order, OrderStatus
from bot.domain.units import Nanos
from bot.engine.exposure import NO_UNIT, Unit, Units, stress_room
from bot.engine.limits import LimitSettings

if TYPE_CHECKING:
    from bot.engine.account import Account, OrderState

Floats = NDArray[np.float64]
NAN: Final = math.nan
ZERO: Final = Decimal(0)
MOST: Final = Decimal("Infinity")
SLACK: Final = 1e-9
"""Share of a bound within which a sum of floats counts as at it."""


class Range(NamedTuple):
    """The least and the greatest a sum may become, whatever becomes of the orders that are open."""

    low: float
    high: float


class Open:
    """What rests or is under way in one instrument; a market order counts as one at any price."""

    __slots__ = ("best_buy", "best_sell", "high", "low", "unanswered")

    def __init__(self) -> None:
        self.low = ZERO
        self.high = ZERO
        self.best_buy: Decimal | None = None
        self.best_sell: Decimal | None = None
        self.unanswered: list[tuple[Decimal, Nanos]] = []

    def add(self, state: OrderState) -> None:
        """Count one more order."""
        order, left = state.order, state.left
        if left > 0:
            price = MOST if order.limit is None else order.limit
            self.high += left
            self.best_buy = price if self.best_buy is None else max(self.best_buy, price)
        else:
            price = ZERO if order.limit is None else order.limit
            self.low += left
            self.best_sell = price if self.best_sell is None else min(self.best_sell, price)
        if state.status is OrderStatus.SUBMITTED or state.status is OrderStatus.UNKNOWN:
            self.unanswered.append((order.quantity, order.ts))


class Carried:
    """One underlying of an account as of one valuation, one state of its books and one of its orders.

    Deltas in underlying units, vega per 1.00 of vol, money in the underlying's currency. `delta`, `gamma` and `vega` are of
    contracts with curvature at `spot`; `linear` of everything else; `open_*` what open orders may still add.
    `most_short` to `most_long` are the linear deltas at which no shock loses more than the bound.
    """

    __slots__ = (
        "book", "book_version", "bounds", "cells", "curved_open", "curved_version", "delta", "gamma", "linear", "loss",
        "most_long", "most_short", "moves", "open_delta", "open_gamma", "open_vega", "orders", "pnl", "priced", "slice",
        "spot", "underlying", "vega", "worst",
    )  # fmt: skip

    def __init__(self, underlying: str) -> None:
        self.underlying = underlying
        self.book: object = None
        self.book_version = -1
        self.curved_version = -1
        self.orders = -1
        self.bounds = -1
        self.priced: Any = None
        self.slice: Any = None
        self.spot = self.delta = self.gamma = self.vega = self.linear = NAN
        self.pnl: Floats | None = None
        self.worst: tuple[float, ...] = ()
        self.open_delta = self.open_gamma = self.open_vega = Range(0.0, 0.0)
        self.curved_open = False
        self.most_short, self.most_long = -math.inf, math.inf
        self.moves: Floats | None = None
        self.cells: Floats | None = None
        self.loss = NAN

    def net(self, spot: float) -> Range:
        """Net delta at a spot near the valuation's, with open orders both ways; NaN while unknown."""
        delta = self.linear + self.delta
        if self.gamma:
            delta += self.gamma * (spot - self.spot)
        return Range(delta + self.open_delta.low, delta + self.open_delta.high)


class Effect(NamedTuple):
    """What an order would add to what is carried; `unit` None: it has no curvature."""

    carried: Carried
    unit: Unit | None
    delta: float
    spot: float


class AccountRisk:
    """What one account carries. Mutable; read by its gate only."""

    def __init__(self, account: Account, units: Units) -> None:
        self._account = account
        self.units = units
        self.limits = LimitSettings()
        self.bounds = 0
        self.reads = 0
        """Counts the changes of instruments and bounds seen."""
        self.open: dict[str, Open] = {}
        self.orders = 0
        """Counts the changes of open orders seen."""
        self._orders_seen = (-1, -1)
        self._book: object = None
        self._book_seen = -1
        self._curved: dict[str, dict[str, Decimal]] = {}
        self._curved_version: dict[str, int] = {}
        self._linear: dict[str, list[tuple[str, float | None]]] = {}
        self._underlyings: dict[str, str] = {}
        self._straight: set[str] = set()
        self._universe_seen = (-1, -1)
        self._carried: dict[str, Carried] = {}

    def limit(self, settings: LimitSettings) -> None:
        """Take the bounds that room is kept for."""
        self.limits = settings
        self.bounds += 1
        self.reads += 1

    def look(self) -> None:
        """Bring up to date what is open and which instruments there are."""
        account = self._account
        if self._orders_seen != (account.order_version, len(account.open_ids)):
            self.read_orders()
        if self._universe_seen != (len(account.universe), len(account.valuation.slices)):
            self._read_universe()

    # ------------------------------------------------------------------ what is open, what is held

    def read_orders(self) -> None:
        """Sum up what is open by instrument when an order changed, from the orders themselves."""
        account = self._account
        seen = (account.order_version, len(account.open_ids))
        if seen == self._orders_seen:
            return
        self._orders_seen = seen
        if not seen[1] and not self.open:
            return
        self.orders += 1
        found: dict[str, Open] = {}
        for order_id in account.open_ids:
            state = account.orders[order_id]
            key = state.order.instrument
            known = found.get(key)
            if known is None:
                known = found[key] = Open()
            known.add(state)
        self.open = found

    def underlying_of(self, key: str) -> str:
        """The underlying whose risk an instrument of the run carries."""
        self._read_universe()
        return self._underlyings[key]

    def _read_universe(self) -> None:
        """Which instruments carry the risk of which underlying: anew when one is listed."""
        account = self._account
        seen = (len(account.universe), len(account.valuation.slices))
        if seen == self._universe_seen:
            return
        self._universe_seen = seen
        self.reads += 1
        self._linear, self._underlyings = {}, {}
        self._straight.clear()
        self._carried.clear()
        for item in account.universe:
            u = self._underlyings[item.id] = self.units.underlying_of(item)
            if isinstance(item, OptionContract | ConvertibleBond):
                continue
            self._straight.add(item.id)
            fixed = item.id not in self.units.proxies and not getattr(item, "inverse", False)
            self._linear.setdefault(u, []).append((item.id, float(item.multiplier) if fixed else None))
        self._book = None

    def _read_book(self) -> None:
        """Take over what changed of the contracts with curvature."""
        book = self._account.ledger.book
        if book is self._book and book.version == self._book_seen:
            return
        whole = book is not self._book
        changed = book.instruments() if whole else book.changed_since(self._book_seen)
        if whole:
            for u in self._curved:
                self._curved_version[u] = self._curved_version.get(u, 0) + 1
            self._curved = {}
        for key in changed:
            if key in self._straight:
                continue
            u = self._underlyings[key]
            held = self._curved.setdefault(u, {})
            quantity = book.quantity(key)
            if quantity:
                held[key] = quantity
            else:
                held.pop(key, None)
            self._curved_version[u] = self._curved_version.get(u, 0) + 1
        self._book, self._book_seen = book, book.version

    # ------------------------------------------------------------------ by underlying

    def effect(self, order: Order, instrument: Instrument, now: Nanos) -> Effect:
        """The order against what is carried on its underlying at this moment."""
        self.look()
        c = self.carried_as_seen(self._underlyings[instrument.id], now)
        q = float(order.quantity)
        spot = self.units.price(c.underlying)
        if not isinstance(instrument, OptionContract | ConvertibleBond):
            return Effect(c, None, q * self.units.linear_delta(instrument), spot)
        unit = self.units.unit(c.priced, instrument, now)
        return Effect(c, unit, q * unit.delta, spot)

    def carried(self, u: str, now: Nanos) -> Carried:
        """What is carried on an underlying, brought up to date."""
        self.look()
        return self.carried_as_seen(u, now)

    def carried_as_seen(self, u: str, now: Nanos) -> Carried:
        """The same, orders and instruments as of the last `look`."""
        c = self._carried.get(u)
        if c is None:
            c = self._carried[u] = Carried(u)
        book = self._account.ledger.book
        priced = self.units.at(u, now)
        fresh = c.priced is priced and c.bounds == self.bounds
        moved = c.book is not book or c.book_version != book.version
        if fresh and not moved and c.orders == self.orders:
            return c
        if moved or not fresh:
            self._read_book()
            if not fresh or c.curved_version != self._curved_version.get(u, 0):
                self._sum_curved(c, now)
            c.linear = self._sum_linear(u)
            c.book, c.book_version = book, book.version
        if c.orders != self.orders or not fresh:
            self._sum_open(c, now)
            c.orders = self.orders
        c.cells = None
        return c

    def _sum_curved(self, c: Carried, now: Nanos) -> None:
        universe = self._account.universe
        held = {
            key: q
            for key, q in self._curved.get(c.underlying, {}).items()
            if not isinstance(item := universe.get(key), OptionContract) or item.expiry > now
        }
        priced = self.units.warm(c.underlying, held, now)
        shocks = self.units.shocks
        delta = gamma = vega = 0.0
        pnl = np.zeros((len(shocks), len(self.units.vols)))
        for key, quantity in held.items():
            q, unit = float(quantity), priced.units[key]
            delta += q * unit.delta
            gamma += q * unit.gamma
            vega += q * unit.vega
            pnl += NAN if unit.pnl is None else q * unit.pnl
            if unit is NO_UNIT:
                delta = gamma = vega = NAN
        c.delta, c.gamma, c.vega, c.pnl, c.spot = delta, gamma, vega, pnl, priced.spot
        c.worst = tuple(float(v) for v in pnl.min(axis=1)) if shocks else ()
        c.moves = priced.spot * np.array(shocks)
        bound = self.limits.of("max_stress_loss", c.underlying)
        room = (-math.inf, math.inf)
        if bound is not None:
            room = stress_room(c.worst, shocks, c.spot, bound * (1.0 + SLACK))
        c.most_short, c.most_long = room
        c.priced, c.bounds, c.curved_version = priced, self.bounds, self._curved_version.get(c.underlying, 0)
        c.slice = self._account.valuation.slices.get(c.underlying)

    def _sum_linear(self, u: str) -> float:
        book = self._account.ledger.book
        linear = 0.0
        for key, per_contract in self._linear.get(u, ()):
            held = float(book.quantity(key))
            if held:
                linear += held * (per_contract if per_contract is not None else self._linear_delta(key))
        return linear

    def _linear_delta(self, key: str) -> float:
        return self.units.linear_delta(self._account.universe.get(key))

    def _sum_open(self, c: Carried, now: Nanos) -> None:
        """The least and greatest delta, gamma and vega that open orders on an underlying may still add."""
        low, high = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
        c.curved_open = False
        for key, found in self.open.items():
            if self._underlyings[key] != c.underlying:
                continue
            instrument = self._account.universe.get(key)
            each: tuple[float, ...]
            if isinstance(instrument, OptionContract | ConvertibleBond):
                each = self.units.unit(c.priced, instrument, now)[:3]
                c.curved_open = True
            else:
                each = (self._linear_delta(key),)
            a, b = float(found.low), float(found.high)
            for i, one in enumerate(each):
                x, y = a * one, b * one
                low[i] += NAN if math.isnan(x + y) else min(x, 0.0) + min(y, 0.0)
                high[i] += NAN if math.isnan(x + y) else max(x, 0.0) + max(y, 0.0)
        c.open_delta, c.open_gamma, c.open_vega = (Range(a, b) for a, b in zip(low, high, strict=True))

    # ------------------------------------------------------------------ the grid

    def losses(self, effect: Effect, quantity: float) -> tuple[float, float]:
        """The least P&L over the grid without the order and with it, open orders filled only where they lose."""
        c = effect.carried
        if c.cells is None:
            c.cells = self._cells(c)
            c.loss = float(c.cells.min())
        if effect.unit is None:
            assert c.moves is not None  # set with the cells
            return c.loss, float((c.cells + (effect.delta * c.moves)[:, None]).min())
        if effect.unit.pnl is None:
            return c.loss, NAN
        return c.loss, float((c.cells + quantity * effect.unit.pnl).min())

    def _cells(self, c: Carried) -> Floats:
        """P&L at every shock of what is held, with the open orders that lose there. Shape: (spots, vols)."""
        assert c.pnl is not None and c.moves is not None  # `carried` summed them up
        cells = c.pnl + (c.linear * c.moves)[:, None]
        for key, found in self.open.items():
            if self._underlyings[key] != c.underlying:
                continue
            instrument = self._account.universe.get(key)
            if isinstance(instrument, OptionContract | ConvertibleBond):
                unit = c.priced.units[key].pnl
                each = np.full(cells.shape, NAN) if unit is None else unit
            else:
                each = (self._linear_delta(key) * c.moves)[:, None]
            cells = cells + np.minimum(0.0, float(found.low) * each) + np.minimum(0.0, float(found.high) * each)
        return np.asarray(cells)
