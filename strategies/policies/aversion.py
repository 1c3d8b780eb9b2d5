"""Risk aversion is the absolute one of exponential utility, in 1/currency; law: it is a statement about money, and is set
from one.

A P&L of standard deviation X costs a holder of aversion g about g X^2 / 2 in certainty equivalent (exactly so for a normal
P&L: -ln E[exp(-g P)]/g = mean - g X^2 / 2).

>>> risk_aversion_of(deviation=1_000.0, cost=50.0)
0.0001
"""

from __future__ import annotations

from strategies.policies.bands import positive


def risk_aversion_of(*, deviation: float, cost: float = 1.0) -> float:
    """The aversion, in 1/currency, of one who pays `cost` for sure to be rid of a P&L of that standard deviation.

    g = 2 cost / deviation^2. Units: both in the account's currency, over the life of the book. ValueError unless positive.
    """
    return 2.0 * positive("risk_aversion_of: cost", cost) / positive("risk_aversion_of: deviation", deviation) ** 2
