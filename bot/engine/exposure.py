"""An exposure is what an account stands to lose by underlying: delta, gamma, vega and its P&L on a grid of shocks; law:
contracts are revalued at a valuation, never for an order, which is added as a straight line.

`Units` holds what one contract of each instrument carries: one valuation of the contracts that matter, shared by all
accounts. Between valuations a delta moves by its gamma, and everything is done anew once the price has left by a hundredth.
What cannot be known is NaN, and the limit that needs it refuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.instruments import ConvertibleBond, Instrument, OptionContract, Perpetual, Universe
from bot.domain.units import Nanos
from bot.engine.marks import Marks
from bot.engine.valuation import Slice, Valuation

Floats = NDArray[np.float64]

DRIFT: Final = 0.01
"""How far a price may move, as a share of it, before contracts are valued anew."""
LEAST_VOL: Final = 1e-4


class Proxy(msgspec.Struct, frozen=True, gc=False):
    """An instrument that hedges another underlying: `beta` its return per return of that (None: one for one in price)."""

    underlying: str
    beta: float | None = None


class Unit(NamedTuple):
    """What one contract adds, in underlying units (vega per 1.00 of vol). `pnl` is in money. Shape: (spots, vols)."""

    delta: float
    gamma: float
    vega: float
    pnl: Floats | None


NO_UNIT: Final = Unit(math.nan, math.nan, math.nan, None)
DEAD: Final = Unit(0.0, 0.0, 0.0, None)


class _Priced:
    """The units of one underlying's contracts as of one valuation."""

    __slots__ = ("drift", "spot", "stamp", "units", "version")

    def __init__(self, spot: float, stamp: int, version: int) -> None:
        self.spot = spot
        self.drift = DRIFT * abs(spot)
        self.stamp = stamp
        self.version = version
        self.units: dict[str, Unit] = {}


class Units:
    """What one contract of each instrument carries. Mutable; one for all accounts of a run."""

    def __init__(
        self,
        universe: Universe,
        marks: Marks,
        valuation: Valuation,
        *,
        spots: Sequence[float] = (),
        vols: Sequence[float] = (),
        proxies: Mapping[str, Proxy] | None = None,
    ) -> None:
        self._universe = universe
        self._marks = marks
        self._valuation = valuation
        self.shocks = tuple(spots)
        self.vols = tuple(vols)
        self.proxies = dict(proxies or {})
        self.stamp = 0
        self._last: Nanos | None = None
        self._priced: dict[str, _Priced] = {}
        self._asked: dict[str, dict[str, None]] = {}

    def underlying_of(self, instrument: Instrument) -> str:
        """The underlying whose risk an instrument carries."""
        if isinstance(instrument, OptionContract | ConvertibleBond):
            return instrument.underlying
        proxy = self.proxies.get(instrument.id)
        if proxy is not None and instrument.id not in self._valuation.slices:
            return proxy.underlying
        if instrument.id in self._valuation.slices:
            return instrument.id
        underlying = getattr(instrument, "underlying", None)
        return underlying if isinstance(underlying, str) and underlying in self._universe else instrument.id

    def price(self, key: str) -> float:
        """The last known price of something, from its source; NaN before the first."""
        if key in self._valuation.slices:
            return self._valuation.spot(key)
        k = self._universe.index(key)
        middle = self._marks.mid(k)
        return self._marks.last(k) if math.isnan(middle) else middle

    def linear_delta(self, instrument: Instrument) -> float:
        """Delta of one contract without curvature, in units of the underlying whose risk it carries."""
        multiplier = float(instrument.multiplier)
        if isinstance(instrument, Perpetual) and instrument.inverse:
            return multiplier / self.price(instrument.id)
        proxy = self.proxies.get(instrument.id)
        if proxy is None or proxy.beta is None or instrument.id in self._valuation.slices:
            return multiplier
        return multiplier * proxy.beta * self.price(instrument.id) / self.price(proxy.underlying)

    def revalue(self, now: Nanos) -> None:
        """A valuation has taken place: whatever was asked for before is valued anew, once for all accounts."""
        if now == self._last:
            return
        self._last = now
        self.stamp += 1
        for underlying in list(self._priced):
            self._value(underlying, (), now)

    def at(self, underlying: str, now: Nanos) -> _Priced:
        """The units in force for an underlying: anew when its vols are others or its price has moved far."""
        found = self._priced.get(underlying)
        if found is None:
            return self._value(underlying, (), now)
        s = self._valuation.slices.get(underlying)
        if s is None:
            version, price = -1, self.price(underlying)
        elif s.from_quotes:
            version, price = s.vol_version, self._marks.mid(s.column)
        else:
            version, price = s.vol_version, self._marks.last(s.price_column)
        if found.version != version or not -found.drift <= price - found.spot <= found.drift:
            self.stamp += 1
            return self._value(underlying, (), now)
        return found

    def unit(self, priced: _Priced, instrument: OptionContract | ConvertibleBond, now: Nanos) -> Unit:
        """What one contract with curvature carries; valued now when it was never asked for."""
        found = priced.units.get(instrument.id)
        if found is None:
            self._add(priced, instrument.underlying, (instrument.id,), now)
            found = priced.units[instrument.id]
        return found

    def warm(self, underlying: str, contracts: Iterable[str], now: Nanos) -> _Priced:
        """The units in force, with those of these contracts among them, in one array call."""
        priced = self.at(underlying, now)
        missing = [key for key in contracts if key not in priced.units]
        if missing:
            self._add(priced, underlying, missing, now)
        return priced

    def _value(self, underlying: str, contracts: Iterable[str], now: Nanos) -> _Priced:
        s = self._valuation.slices.get(underlying)
        version = -1 if s is None else s.vol_version
        priced = self._priced[underlying] = _Priced(self.price(underlying), self.stamp, version)
        self._add(priced, underlying, [*self._asked.get(underlying, ()), *contracts], now)
        return priced

    def _add(self, priced: _Priced, underlying: str, contracts: Iterable[str], now: Nanos) -> None:
        asked = self._asked.setdefault(underlying, {})
        options: list[str] = []
        s = self._valuation.slices.get(underlying)
        for key in dict.fromkeys(contracts):
            item = self._universe.get(key)
            if isinstance(item, ConvertibleBond):
                asked[key] = None
                priced.units[key] = self._bond(item, priced.spot, now)
            elif not isinstance(item, OptionContract):
                continue
            elif item.expiry <= now:
                asked.pop(key, None)
                priced.units[key] = DEAD
            elif s is None or key not in s.rows or math.isnan(priced.spot):
                priced.units[key] = NO_UNIT  # not valued in this run: nobody knows what it carries
            else:
                asked[key] = None
                options.append(key)
        if s is not None and options:
            self._options(priced, s, options, now)

    def _options(self, priced: _Priced, s: Slice, keys: Sequence[str], now: Nanos) -> None:
        part = s.part(np.array([s.rows[key] for key in keys], dtype=np.int64))
        u = self._valuation.units(part, priced.spot, now, part.vol, second=False)
        ratio = self._valuation.price_ratio(s)
        delta = self._valuation.total_delta(part, u) * part.multiplier * ratio
        gamma, vega = u.gamma * part.multiplier * ratio * ratio, u.vega * part.multiplier
        pnl = self._grid(priced.spot, part, u.price, now) if self.shocks else None
        for i, key in enumerate(keys):
            grid = None if pnl is None else np.ascontiguousarray(pnl[:, :, i])
            priced.units[key] = Unit(float(delta[i]), float(gamma[i]), float(vega[i]), grid)

    def _grid(self, spot: float, part: Slice, base: Floats, now: Nanos) -> Floats:
        """P&L of one contract of each at every shock. Shape: (spots, vols, contracts)."""
        shape = (len(self.shocks), len(self.vols))
        spots = np.repeat(spot * (1.0 + np.array(self.shocks)), shape[1])[:, None]
        shifts = np.tile(1.0 + np.array(self.vols), shape[0])[:, None]
        vols = np.maximum(part.vol * shifts, LEAST_VOL)  # NaN stays NaN: what is not known is not a number
        moved = self._valuation.units(part, spots, now, vols, second=False).price
        return np.asarray((moved - base) * part.multiplier).reshape(*shape, -1)

    def _bond(self, bond: ConvertibleBond, spot: float, now: Nanos) -> Unit:
        """A convertible by its own model; shocks of an option vol leave it as it is."""
        here = self._valuation.bonds.value(bond, spot, now)
        pnl = None
        if self.shocks:
            moved = self._valuation.bonds.value(bond, spot * (1.0 + np.array(self.shocks)), now).price
            lost = (moved - float(here.price)) * float(bond.multiplier)
            pnl = np.repeat(np.asarray(lost)[:, None], len(self.vols), axis=1)
        return Unit(float(here.delta), float(here.gamma), 0.0, pnl)


def stress_room(worst: Sequence[float], shocks: Sequence[float], spot: float, bound: float) -> tuple[float, float]:
    """The linear deltas at which no shock loses more than `bound`: from, to; from > to when there is none.

    P&L at shock s is worst(s) + delta spot s, a line in delta, so the set is an interval. Shape: worst, shocks (n,).

    >>> stress_room((-50.0, 0.0, -50.0), (-0.1, 0.0, 0.1), 100.0, 60.0)
    (-1.0, 1.0)
    """
    low, high = -math.inf, math.inf
    for loss, shock in zip(worst, shocks, strict=True):
        if math.isnan(loss):
            return math.inf, -math.inf
        if shock == 0.0:
            if loss < -bound:
                return math.inf, -math.inf
            continue
        edge = (-bound - loss) / (spot * shock)
        if shock > 0.0:
            low = max(low, edge)
        else:
            high = min(high, edge)
    return low, high
