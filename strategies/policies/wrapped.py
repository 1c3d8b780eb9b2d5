"""A wrapper changes one thing of the rule within it and leaves the rest; law: what the inner rule offers, it still offers.

Whatever is optional for a policy (an interval, a glance, shaped deltas, a problem to solve first) is the inner rule's.
"""

from __future__ import annotations

import copy
from typing import Any, Self

from bot.core.ports import Band, BandInput, Glances, HedgePlan, HedgePolicy, LegInput, Prepares, ShapesDelta
from bot.core.surroundings import BoundsSpots, Steady


class Wrapped:
    """A rule around another. Answers the inner band; subclasses change what they mean to."""

    def __init__(self, inner: HedgePolicy, *, name: str) -> None:
        if not isinstance(inner, HedgePolicy):
            raise ValueError(f"{name}: inner: expected a policy, found {type(inner).__name__}")
        self.inner = inner
        self.label = name
        self.name = f"{name} over {inner.name}"
        self.interval = getattr(inner, "interval", None)
        self.needs_ticks: bool = getattr(inner, "needs_ticks", True)
        self.needs_terms: bool = getattr(inner, "needs_terms", True)
        self.bounded: bool = getattr(inner, "bounded", False)
        if isinstance(inner, Glances):
            self.stays = inner.stays
        if isinstance(inner, Steady):
            self.least_width = inner.least_width
        if isinstance(inner, BoundsSpots):
            self.spots = inner.spots
        if isinstance(inner, Prepares):
            self.prepared = self._around_prepared

    def band(self, x: BandInput) -> Band:
        """The inner band. Shape: as `x.want`."""
        return self.inner.band(x)

    def inner_deltas(self, x: LegInput) -> Any:
        """The deltas of the inner rule, the model's unless it shapes them. Shape: as `x.delta`."""
        return self.inner.leg_deltas(x) if isinstance(self.inner, ShapesDelta) else x.delta

    def _around_prepared(self, plan: HedgePlan) -> Self:
        assert isinstance(self.inner, Prepares)
        made = copy.copy(self)
        forget_offers(made)
        Wrapped.__init__(made, self.inner.prepared(plan), name=self.label)
        return made


def forget_offers(made: Wrapped) -> None:
    """Drop what the inner rule offered: it is another now."""
    for name in ("stays", "least_width", "spots"):
        made.__dict__.pop(name, None)
