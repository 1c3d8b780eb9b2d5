"""A problem is what a hedger is given: a book on one underlying, the market it believes in, and what trading costs.

Law: decisions at t = iT/N for i = 0..N-1 and none at T; the hedger starts flat; legs settle in cash, an earlier one on its
nearest date; loss = payoff owed - gains of the hedge + costs, in money of the start (discounted at `rate`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.ports import HedgePlan
from bot.domain.units import NS_PER_YEAR, Nanos, Rate, Vol, Years

Floats: TypeAlias = NDArray[np.float64]
TRADING_DAYS: Final = 252


class Leg(msgspec.Struct, frozen=True):
    """A European option: cp +1 call or -1 put, strike, signed quantity in underlying units (written = negative).

    `tau` in years, None: to the problem's horizon. `vol` None: the problem's.
    """

    cp: int
    strike: float
    quantity: float
    tau: Years | None = None
    vol: Vol | None = None

    def __post_init__(self) -> None:
        if self.cp not in {1, -1}:
            raise ValueError(f"leg: cp: expected 1 or -1, found {self.cp!r}")
        if not (math.isfinite(self.strike) and self.strike > 0.0):
            raise ValueError(f"leg: strike: expected a positive number, found {self.strike!r}")
        if not math.isfinite(self.quantity):
            raise ValueError(f"leg: quantity: expected a finite number, found {self.quantity!r}")
        for name in ("tau", "vol"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"leg: {name}: expected a positive number or None, found {value!r}")


LegLike: TypeAlias = Leg | Sequence[float]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A leg as the scorer and the event engine hold it: everything known, its end on a date."""

    cp: float
    strike: float
    quantity: float
    vol: Vol
    date: int


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A book and its costs. `legs` may be given as tuples (cp, strike, quantity) or (cp, strike, quantity, tau).

    cost             one-way, as a fraction of traded notional (10 bp = 0.001)
    fixed_cost       currency a trade, the closing one included
    lot              underlying units; 0: any size
    vol              what the hedger believes; the paths may have another
    tau              horizon in years; None: the last leg's
    dates            N: decisions at iT/N, i = 0..N-1
    risk_aversion    absolute, 1/currency of the horizon; None: no certainty equivalent
    charge_open      the first date's trade costs; charge_close: unwinding what is held at T does
    threshold        a payoff below this pays nothing (a venue exercises from a cent on); 0: every payoff pays
    every            dates from one hedge of the yardstick "daily Black-Scholes" to the next; None: one trading day's worth
    """

    legs: tuple[LegLike, ...]
    spot: float
    vol: Vol
    cost: float
    dates: int
    risk_aversion: float | None = None
    tau: Years | None = None
    rate: Rate = 0.0
    fixed_cost: float = 0.0
    lot: float = 0.0
    charge_open: bool = True
    charge_close: bool = True
    threshold: float = 0.0
    every: int | None = None

    def __post_init__(self) -> None:
        if not self.legs:
            raise ValueError("problem: legs: expected at least one, found none")
        for name in ("spot", "vol"):
            _expect(name, getattr(self, name), positive=True)
        for name in ("cost", "fixed_cost", "lot", "threshold"):
            _expect(name, getattr(self, name), positive=False)
        for name in ("risk_aversion", "tau"):
            if getattr(self, name) is not None:
                _expect(name, getattr(self, name), positive=True)
        if not math.isfinite(self.rate):
            raise ValueError(f"problem: rate: expected a finite number, found {self.rate!r}")
        if not (isinstance(self.dates, int) and self.dates >= 1):
            raise ValueError(f"problem: dates: expected a whole number from 1, found {self.dates!r}")
        if self.every is not None and self.every < 1:
            raise ValueError(f"problem: every: expected a whole number from 1, found {self.every!r}")
        legs = tuple(leg if isinstance(leg, Leg) else Leg(int(leg[0]), *map(float, leg[1:])) for leg in self.legs)
        msgspec.structs.force_setattr(self, "legs", legs)
        if self.tau is None and all(leg.tau is None for leg in legs):
            raise ValueError("problem: tau: expected years to the horizon, or a tau on a leg; found neither")
        horizon = self.tau
        last = max((leg.tau for leg in legs if leg.tau is not None), default=0.0)
        if horizon is not None and last > horizon * (1.0 + 1e-9):
            raise ValueError(f"problem: tau: expected no leg beyond the horizon {horizon:g}, found one of {last:g}")

    # ------------------------------------------------------------------ time

    @property
    def horizon(self) -> Years:
        """Years to T: `tau`, else the last leg's."""
        if self.tau is not None:
            return self.tau
        return max(leg.tau for leg in self._legs if leg.tau is not None)

    @property
    def step(self) -> Nanos:
        """Nanoseconds between dates: whole, so that every date is an exact instant."""
        return max(1, round(self.horizon * NS_PER_YEAR / self.dates))

    @property
    def daily_every(self) -> int:
        """Dates between two hedges of the daily yardstick: `every`, else those of a trading day (252 a year), at least 1."""
        if self.every is not None:
            return self.every
        return max(1, round(self.dates / max(1.0, TRADING_DAYS * self.horizon)))

    def times(self) -> Floats:
        """Years from the start to each date, T included. Shape: (dates + 1,)."""
        return np.asarray(np.arange(self.dates + 1) * self.step / NS_PER_YEAR)

    # ------------------------------------------------------------------ the book

    @property
    def _legs(self) -> tuple[Leg, ...]:
        return tuple(leg for leg in self.legs if isinstance(leg, Leg))

    def rows(self) -> tuple[Row, ...]:
        """The legs in order of end, calls before puts, strike; like legs added up; an end on its nearest date, 1 at least."""
        found: dict[tuple[int, float, float, float], float] = {}
        for leg in self._legs:
            years = self.horizon if leg.tau is None else leg.tau
            date = min(max(1, round(years * NS_PER_YEAR / self.step)), self.dates)
            key = (date, -float(leg.cp), leg.strike, self.vol if leg.vol is None else leg.vol)
            found[key] = found.get(key, 0.0) + leg.quantity
        return tuple(
            Row(cp=-cp, strike=strike, quantity=quantity, vol=vol, date=date)
            for (date, cp, strike, vol), quantity in sorted(found.items())
            if quantity
        )

    def plan(self, *, date: int = 0, spot: float | None = None, start: Nanos = 0) -> HedgePlan:
        """The problem as a policy that prepares is given it, at a date with the legs still alive there."""
        live = [row for row in self.rows() if row.date > date]
        now = date * self.step
        return HedgePlan(
            now=start + now,
            spot=self.spot if spot is None else spot,
            rate=self.rate,
            dividend=0.0,
            cost=self.cost,
            fixed_cost=self.fixed_cost,
            lot=self.lot,
            charge_open=self.charge_open,
            charge_close=self.charge_close,
            cp=tuple(row.cp for row in live),
            strike=tuple(row.strike for row in live),
            quantity=tuple(row.quantity for row in live),
            tau=tuple((row.date * self.step - now) / NS_PER_YEAR for row in live),
            vol=tuple(row.vol for row in live),
        )

    def but(self, **changes: Any) -> Problem:
        """The same problem with some fields changed."""
        return msgspec.structs.replace(self, **changes)


def _expect(name: str, value: float, *, positive: bool) -> None:
    fits = math.isfinite(value) and (value > 0.0 if positive else value >= 0.0)
    if not fits:
        kind = "a positive number" if positive else "a number from 0"
        raise ValueError(f"problem: {name}: expected {kind}, found {value!r}")
