"""Greeks are the sensitivities of a value; law: a small vector space, with units in the names of what is scaled.

delta per 1.00 of the underlying price; gamma per 1.00 squared; vega and volga per 1.00 of vol; vanna per 1.00 x 1.00 vol;
theta and charm per year of calendar time (dV/dt); rho per 1.00 of rate.
"""

from __future__ import annotations

import msgspec

from bot.domain.units import DAYS_PER_YEAR


class Greeks(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A value and its sensitivities; sums of Greeks are the Greeks of sums."""

    value: float = 0.0
    delta: float = 0.0
    gamma: float = 0.0
    vega: float = 0.0
    theta: float = 0.0
    rho: float = 0.0
    vanna: float = 0.0
    volga: float = 0.0
    charm: float = 0.0

    def __add__(self, other: Greeks) -> Greeks:
        return Greeks(**{f: getattr(self, f) + getattr(other, f) for f in self.__struct_fields__})

    def __mul__(self, scale: float) -> Greeks:
        return Greeks(**{f: getattr(self, f) * scale for f in self.__struct_fields__})

    __rmul__ = __mul__

    @property
    def theta_per_day(self) -> float:
        """Theta per calendar day, theta / 365."""
        return self.theta / DAYS_PER_YEAR

    @property
    def vega_per_point(self) -> float:
        """Vega per vol point, vega / 100."""
        return self.vega / 100.0
