"""Leg inputs are one book's options on one underlying as columns that a delta rule reads; law: at an instant they are what
`net_delta` sums.

One `LegInputs` stands for one holding; it is made anew when the holding changes, and its `version` moves when its vols do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bot.core.ports import HedgePlan, LegInput
from bot.core.surroundings import Limits
from bot.domain.units import NS_PER_YEAR, Nanos, Rate, Vol, Years
from bot.engine.stillness import Stillness
from bot.engine.valuation import Legs, Valuation
from bot.pricing.black import greeks_slice, pack_slice
from bot.pricing.legs import terms_kernel
from bot.pricing.room import NO_VOLS, Bounds, bounds_kernel


class LegInputs:
    """The legs of one holding, and what else of the underlying is held beside them (`linear`, in underlying units)."""

    def __init__(self, legs: Legs, valuation: Valuation, linear: float) -> None:
        self._legs = legs
        self._valuation = valuation
        s, r = legs.slice, legs.row
        self.linear = linear
        self.rate: Rate = s.rate
        self.dividend: Rate = s.rate if s.on_future else s.dividend  # carry 0 and the discount in the delta: Black-76
        self._strike, self._cp, self._ends = s.strike[r], s.cp[r], s.expiry_clock[r]
        self._parity = s.price_column != s.column
        self._plain = valuation.settings.pricer != "table" and not s.has_early and not s.smile_moves
        self._terms = terms_kernel()
        self._packed = np.empty((0, 5))
        self._packed_version = -1
        self.still = Stillness(legs, valuation)

    def __len__(self) -> int:
        return len(self._legs)

    @property
    def version(self) -> int:
        """A number that changes when a vol of the underlying does."""
        return self._legs.slice.vol_version

    def holding(self) -> tuple[tuple[str, float], ...]:
        """The legs by id with their weights in underlying units, in order of id."""
        return tuple(sorted(zip(self._legs.ids, self._legs.weight.tolist(), strict=True)))

    def ratio(self) -> float:
        """d(price the options are valued at) / d(price traded): 1 but for parity forwards."""
        return self._valuation.price_ratio(self._legs.slice) if self._parity else 1.0

    def spot(self) -> float:
        """The price the options are valued at."""
        return self._valuation.spot(self._legs.slice.underlying)

    def at(self, now: Nanos, *, cost: float) -> LegInput:
        """The legs at this instant's marks; one that has ended weighs nothing. Shape: (legs,)."""
        legs, spot = self._legs, self.spot()
        s, r = legs.slice, legs.row
        tau = self._tau(now)
        weight = np.where(tau >= 0.0, legs.weight, 0.0)
        vol = s.vol[r]
        if self._plain:
            u = greeks_slice(spot, self._strike, tau, vol, rate=self.rate, dividend=self.dividend, cp=self._cp)
            delta, gamma, vega = u.delta, u.gamma, u.vega
        else:
            units = self._valuation.units(s, spot, now, s.vol, second=False)
            delta, gamma, vega = self._valuation.total_delta(s, units)[r], units.gamma[r], units.vega[r]
        return LegInput(
            spot=spot,
            strike=self._strike,
            tau=tau,
            vol=vol,
            rate=self.rate,
            dividend=self.dividend,
            cp=self._cp,
            weight=weight,
            delta=delta,
            gamma=gamma,
            vega=vega,
            net_gamma=float(np.sum(weight * gamma)),
            cost=cost,
        )

    def terms(self, now: Nanos) -> tuple[Years, Vol]:
        """(tau, vol) of the book, weighted by |weight x gamma|: see `bot.pricing.legs`. NaN where unknown."""
        s = self._legs.slice
        if self._packed_version != s.vol_version:
            self._pack()
        return self._terms(self.spot(), s.clock.at(now) - s.clock_epoch, self._packed, self.rate, self.dividend)

    def within(
        self,
        now: Nanos,
        prices: tuple[float, float],
        years: Years,
        *,
        vols: NDArray[np.float64] = NO_VOLS,
        means: tuple[Years, Vol],
    ) -> Bounds:
        """What can be said of the legs between two prices and for so many years; NaN where nothing.

        `means` are what `terms` gave now, NaN where theirs are not asked for. Shape: vols (legs, 3) or `NO_VOLS`.
        """
        found = self.still.bounds(now, prices, years, vols=vols, means=means)
        if not self._legs.groups or math.isnan(means[0]):
            return found
        s = self._legs.slice
        if self._packed_version != s.vol_version:
            self._pack()
        every = bounds_kernel()(
            *prices, s.clock.at(now) - s.clock_epoch, years, self._packed, NO_VOLS, self.rate, self.dividend, *means
        )
        whole = Bounds(*every)
        return found._replace(tau_lo=whole.tau_lo, tau_hi=whole.tau_hi, vol_lo=whole.vol_lo, vol_hi=whole.vol_hi)

    @property
    def by_formula(self) -> bool:
        """True where every leg is European: its delta at another vol is known."""
        return self.still.by_formula

    def limits(self, now: Nanos) -> Limits:
        """The prices and years beyond which nothing is said of the legs."""
        return self.still.limits(now)

    def until(self, now: Nanos, years: Years) -> Nanos:
        """The first instant after so many years of the model clock, or when the price is stale or a leg ends."""
        return self.still.until(now, years)

    def _pack(self) -> None:
        s, r = self._legs.slice, self._legs.row
        self._packed = pack_slice(
            strike=self._strike,
            expiry=self._ends,
            vol=s.vol[r],
            cp=self._cp,
            weight=self._legs.weight,
            epoch=s.clock_epoch,
        )
        self._packed_version = s.vol_version

    def _tau(self, now: Nanos) -> NDArray[np.float64]:
        """Years to each expiry on the clock the options are valued by."""
        return np.asarray((self._ends - self._legs.slice.clock.at(now)) / NS_PER_YEAR)

    def ends(self, now: Nanos) -> tuple[Nanos, ...]:
        """The expiry instants of the legs that live."""
        expiry = self._legs.slice.expiry[self._legs.row]
        return tuple(int(ts) for ts in expiry[expiry > now])

    def plan(self, now: Nanos, *, cost: float, fixed_cost: float, lot: float, per_contract: float) -> HedgePlan:
        """The problem of hedging these legs from now on; those that have ended are left out."""
        legs = self._legs
        live = legs.slice.expiry[legs.row] > now
        return HedgePlan(
            now=now,
            spot=self.spot(),
            rate=self.rate,
            dividend=self.dividend,
            cost=cost,
            fixed_cost=fixed_cost,
            lot=lot,
            per_contract=per_contract,
            cp=_floats(self._cp[live]),
            strike=_floats(self._strike[live]),
            quantity=_floats(legs.weight[live]),
            tau=_floats(self._tau(now)[live]),
            vol=_floats(legs.slice.vol[legs.row][live]),
        )


def _floats(column: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(v) for v in column)
