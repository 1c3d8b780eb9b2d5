"""A deal's terms are what a share of the target becomes when its merger closes; law: cash and shares are never negative.

A collar is what makes the shares depend on the acquirer's price A at the close, between `low` and `high`:

    fixed_value   shares worth `value` while A lies between; below `low` value / low shares, above `high` value / high
    fixed_ratio   `ratio` shares while A lies between; below `low` shares worth ratio low, above `high` worth ratio high
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec


class Collar(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Shares that depend on the acquirer's price at the close. Prices in its currency, per share."""

    kind: Literal["fixed_value", "fixed_ratio"]
    low: float
    high: float
    value: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.low < self.high < math.inf:
            raise ValueError(f"collar: expected 0 < low < high, found {self.low} and {self.high}")
        needed, other = ("value", "ratio") if self.kind == "fixed_value" else ("ratio", "value")
        amount = getattr(self, needed)
        if amount is None or not 0.0 < amount < math.inf:
            raise ValueError(f"collar {self.kind}: expected a positive {needed}, found {amount}")
        if getattr(self, other) is not None:
            raise ValueError(f"collar {self.kind}: expected no {other}, found {getattr(self, other)}")


class DealTerms(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Per share of the target: `cash`, `ratio` shares of the acquirer, and shares by a `collar` beside them."""

    cash: float = 0.0
    ratio: float = 0.0
    collar: Collar | None = None

    def __post_init__(self) -> None:
        for name in ("cash", "ratio"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"deal: {name}: expected a number >= 0, found {value}")
        if not (self.cash or self.ratio or self.collar is not None):
            raise ValueError("deal: expected cash, a ratio or a collar, found none")

    @property
    def needs_acquirer(self) -> bool:
        """True when shares of the acquirer are given."""
        return bool(self.ratio) or self.collar is not None

    def shares(self, price: float) -> float:
        """Shares of the acquirer per share of the target if the deal closes at this price of the acquirer.

        >>> DealTerms(collar=Collar(kind="fixed_value", low=20.0, high=30.0, value=50.0)).shares(15.0)
        2.5
        """
        collar = self.collar
        if collar is None:
            return self.ratio
        inside = min(max(price, collar.low), collar.high)
        if collar.kind == "fixed_value":
            return self.ratio + (collar.value or 0.0) / inside
        return self.ratio + (collar.ratio or 0.0) * inside / price
