"""Pin guard: near expiry and at a strike the hedge is a coin toss; freeze it, cap it, or hedge the middle.

A leg is pinned when its expiry is within `within` and |S - K| is at most `distance` in price, or `deviations` x S vol
sqrt(tau). There gamma explodes, the exact hedge flips between two whole positions, and of a short option settled in shares
one does not know until after the close whether it was assigned.
"""

from __future__ import annotations

import copy
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np

from bot.core.ports import Band, BandInput, Glances, HedgePlan, HedgePolicy, LegInput, Prepares, ShapesDelta
from bot.core.surroundings import Steady, SteadyShape, Surroundings
from bot.domain.units import NS_PER_YEAR, Nanos
from bot.pricing.room import NO_VOL
from strategies.policies.bands import INF, clamp, length_of, number
from strategies.policies.wrapped import Wrapped, forget_offers

Action: TypeAlias = Literal["freeze", "cap", "half"]

SLIP: Final = 1e-9
"""The share by which what may be is wider than computed, and what surely is narrower."""


def is_pinned(*, spot: Any, strike: Any, tau: Any, vol: Any, within: float, distance: float, deviations: float) -> Any:
    """True where a leg is within `within` years of its end and within the distance of its strike. Shape: all broadcast."""
    T = np.maximum(tau, 0.0)
    near = np.maximum(distance, deviations * np.abs(spot) * np.nan_to_num(vol) * np.sqrt(T))
    return (np.asarray(tau) >= 0.0) & (np.asarray(tau) <= within) & (np.abs(np.asarray(spot) - strike) <= near)


class PinGuard(Wrapped):
    """The inner rule, but while a leg is pinned: "freeze" holds, "cap" keeps |hedge| to `cap`, "half" hedges half the leg.

    "half" takes a pinned leg's delta as cp/2, the mean of what it may end as, and needs nothing else (`ShapesDelta`).
    "freeze" and "cap" look at the strikes of the book's own legs, so they act once prepared (`Prepares`); unprepared
    they are the inner rule. `cap` is in underlying units.
    """

    def __init__(
        self,
        *,
        inner: HedgePolicy,
        within: str | Nanos,
        distance: float = 0.0,
        deviations: float = 0.0,
        action: Action = "half",
        cap: float | None = None,
    ) -> None:
        if action not in {"freeze", "cap", "half"}:
            raise ValueError(f"pin_guard: action: expected 'freeze', 'cap' or 'half', found {action!r}")
        if (cap is not None) != (action == "cap"):
            raise ValueError(
                f"pin_guard: cap: expected with action = 'cap' and only there, found {cap!r} with {action!r}"
            )
        self.action = action
        self._within = length_of("pin_guard: within", within) / NS_PER_YEAR
        self._distance = number("pin_guard: distance", distance, least=0.0)
        self._deviations = number("pin_guard: deviations", deviations, least=0.0)
        self._cap = INF if cap is None else number("pin_guard: cap", cap, least=0.0)
        if not (self._distance or self._deviations):
            raise ValueError("pin_guard: expected a distance or deviations above zero, found neither")
        self._strike: Any = None
        self._expiry: Any = None
        super().__init__(inner, name=f"pin guard ({action})")
        self._offer()

    def _offer(self) -> None:
        """A frozen band needs ticks to thaw; a cap may trade where the inner rule would stay; both need the legs."""
        if isinstance(self.inner, Steady):
            self.least_width = self._least_width
        if self.action == "half":
            return
        self.prepared = self._with_legs
        self.needs_terms = True
        if self.action == "cap" and isinstance(self.inner, Glances):
            self.stays = _never_sure

    def leg_deltas(self, x: LegInput) -> Any:
        """The inner deltas; of a pinned leg cp/2 when half of it is to be hedged. Shape: as `x.delta`."""
        deltas = self.inner_deltas(x)
        if self.action != "half":
            return deltas
        return np.where(self._pinned(x.spot, x.strike, x.tau, x.vol), 0.5 * np.asarray(x.cp), deltas)

    def band(self, x: BandInput) -> Band:
        """The inner band; while pinned the whole line (freeze) or what of it lies within the cap. Shape: as `x.want`."""
        inner = self.inner.band(x)
        if self.action == "half" or self._strike is None or not len(self._strike):
            return inner
        now, spot, vol = (np.asarray(v)[..., np.newaxis] for v in (x.now, x.spot, x.vol))
        pinned = self._pinned(spot, self._strike, (self._expiry - now) / NS_PER_YEAR, vol).any(axis=-1)
        if not pinned.any():
            return inner
        if self.action == "freeze":
            return _chosen(pinned, Band(-INF, INF, None if inner.to is None else x.held), inner)
        cap = self._cap / np.abs(x.per_contract)
        lo, hi = clamp(inner.lo, -cap, cap), clamp(inner.hi, -cap, cap)
        return _chosen(pinned, Band(lo, hi, None if inner.to is None else clamp(inner.to, lo, hi)), inner)

    def _least_width(self, x: BandInput, around: Surroundings) -> float:
        """The inner rule's; inf while some leg surely is pinned and frozen, 0 where one may be or become so."""
        inner = self.inner
        assert isinstance(inner, Steady)  # else this is not offered
        if self.action == "half" or self._strike is None or not len(self._strike):
            return inner.least_width(x, around)
        late, soon = ((self._expiry - at) / NS_PER_YEAR for at in around.now)
        sure, maybe = self._pinned_within(self._strike, (soon, late), around, vols=around.vol)
        if self.action == "freeze" and sure.any():
            return INF
        return 0.0 if maybe.any() else inner.least_width(x, around)

    def vols_within(self, x: LegInput, around: Surroundings) -> Any:
        """The inner rule's; a leg that surely is pinned and hedged by half stands still. Shape: (legs, 3)."""
        vols: Any = np.stack((x.vol, x.vol, x.vol), axis=1)
        if isinstance(self.inner, ShapesDelta):
            vols = self.inner.vols_within(x, around) if isinstance(self.inner, SteadyShape) else None
        if self.action != "half" or vols is None:
            return vols
        tau = np.asarray(x.tau, dtype=np.float64)
        sure, maybe = self._pinned_within(x.strike, (tau - around.years, tau), around, vols=(x.vol, x.vol))
        return None if np.any(maybe & ~sure) else np.where(sure[:, np.newaxis], NO_VOL, vols)

    def _pinned_within(self, strike: Any, tau: tuple[Any, Any], around: Surroundings, *, vols: tuple[Any, Any]) -> Any:
        """Which legs are pinned all over the surroundings, and which may be somewhere in them. Shape: two of (legs,)."""
        low, high = around.spot
        root = np.sqrt(np.maximum(tau[0], 0.0)), np.sqrt(np.maximum(tau[1], 0.0))
        near = (
            np.maximum(self._distance, self._deviations * low * np.nan_to_num(vols[0]) * root[0]) * (1.0 - SLIP),
            np.maximum(self._distance, self._deviations * high * np.nan_to_num(vols[1]) * root[1]) * (1.0 + SLIP),
        )
        least = np.maximum(np.maximum(strike - high, low - strike), 0.0)
        most = np.maximum(np.abs(high - strike), np.abs(low - strike))
        in_time = tau[0] <= self._within * (1.0 + SLIP)  # soon enough at the box's end
        sure = (tau[0] >= 0.0) & (tau[1] <= self._within * (1.0 - SLIP)) & (most <= near[0])
        return sure, in_time & (tau[1] >= 0.0) & (least <= near[1])

    def _pinned(self, spot: Any, strike: Any, tau: Any, vol: Any) -> Any:
        return is_pinned(
            spot=spot,
            strike=strike,
            tau=tau,
            vol=vol,
            within=self._within,
            distance=self._distance,
            deviations=self._deviations,
        )

    def _with_legs(self, plan: HedgePlan) -> Self:
        made = copy.copy(self)
        forget_offers(made)
        inner = self.inner.prepared(plan) if isinstance(self.inner, Prepares) else self.inner
        Wrapped.__init__(made, inner, name=self.label)
        made._strike = np.asarray(plan.strike, dtype=np.float64)
        made._expiry = plan.now + np.rint(np.asarray(plan.tau, dtype=np.float64) * NS_PER_YEAR)
        made._offer()
        return made


def _never_sure(want: float, held: float, per_contract: float) -> bool:
    """A glance that says nothing."""
    return False


def _chosen(where: Any, one: Band, other: Band) -> Band:
    """One band where the condition holds, the other elsewhere."""
    columns = [None if a is None or b is None else np.where(where, a, b) for a, b in zip(one, other, strict=True)]
    if np.ndim(where) == 0 and all(v is None or np.ndim(v) == 0 for v in columns):
        return Band(*(None if v is None else float(v) for v in columns))
    return Band(*columns)
