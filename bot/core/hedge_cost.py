"""A cost estimate is what one way of trading a hedge instrument is expected to take; law: it is made of what the run knows
before it trades, and turned into a fraction of notional at a price."""

from __future__ import annotations

import math

import msgspec

from bot.core.ports import Hedge


class CostEstimate(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One way: `fraction` of notional, `per_unit` in price units (half an assumed spread, a fee a contract over its
    multiplier), half the quoted spread when `quoted`; and `ticket` a trade, in currency, whatever its size."""

    fraction: float = 0.0
    per_unit: float = 0.0
    quoted: bool = False
    ticket: float = 0.0

    def at(self, price: float, bid: float, ask: float) -> float:
        """The one-way cost as a fraction of notional at a price and its quote; NaN where the spread is not known.

        Never negative: a rebate beyond the spread is taken as no cost.

        >>> CostEstimate(fraction=0.0001, quoted=True).at(100.0, 99.98, 100.02)
        0.0003
        """
        half = 0.5 * (ask - bid) if self.quoted else 0.0
        found = self.fraction + (half + self.per_unit) / abs(price) if price else math.nan
        return round(max(found, 0.0), 15) if found == found else math.nan  # noqa: PLR0124  NaN: not known


class EstimatedHedge(Hedge, frozen=True, kw_only=True):
    """A hedge whose cost nobody gave: the `estimate` stands for it, and `cost` holds its part that needs no price."""

    estimate: CostEstimate
