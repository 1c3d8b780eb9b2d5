"""Fixed-fee band: when each trade costs a ticket, wait longer and go further: from an outer line to an inner one.

Derivation, to leading order: the mis-hedge z moves with variance rate (gamma sigma S)^2 and costs g sigma^2 S^2 z^2 / 2 a
unit of time; a trade from h to u costs F + lam S (h - u). The relative value W of the stationary problem has
W' = A z - B z^3 with B = g / (3 gamma^2), and the optimum needs W'(u) = W'(h) = lam S and the area between W' and lam S
from u to h equal to F (smooth fit at both lines). With m = (h + u)/2 and d = (h - u)/2 that is

    2 B m (m^2 - d^2) = lam S,    4 B m d^3 = F.

F = 0 gives u = h, Whalley and Wilmott's band to its edge; lam = 0 gives u = 0 and h = (12 F gamma^2 / g)^(1/4), to the
centre. Interest: g e^(r tau) stands for g, as in Whalley and Wilmott 1997.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from bot.core.ports import Band, BandInput
from bot.core.surroundings import Surroundings, least_size
from bot.domain.units import Nanos
from strategies.policies.bands import TINY, clamp, number, positive

STEPS: Final = 7
"""Newton steps: the start is at most 2^(1/9) times the root, and six steps then reach the last bit."""

SLIP: Final = 1e-9
"""The share by which a bound of a line is less than computed: Newton's last bits."""


def fixed_fee_lines(*, slope: Any, fee: Any, stiffness: Any) -> tuple[Any, Any]:
    """(outer, inner) distance from the centre, in underlying units: leave the outer line, trade to the inner one.

    `slope` is the proportional cost of one unit (lam S), `fee` F per trade, both in currency; `stiffness` B > 0 is
    g e^(r tau) / (3 gamma^2). Shape: all broadcast.

    >>> outer, inner = fixed_fee_lines(slope=0.0, fee=1.0, stiffness=0.25)
    >>> (round(float(outer), 6), float(inner))
    (2.0, 0.0)
    """
    c = np.cbrt((fee / (4.0 * stiffness)) ** 2)
    k = slope / (2.0 * stiffness)
    p = _root(c, k)
    m = p * p * p
    d = np.minimum(np.sqrt(c / np.maximum(p * p, TINY)), m)
    return m + d, np.where(k > 0.0, m - d, 0.0)[()]


def _root(c: Any, k: Any) -> Any:
    """The greatest root p = m^(1/3) of p^9 - c p = k for c, k >= 0, by Newton from above. Shape: c and k broadcast.

    p^9 - c p is convex and rising from there on. A bound of the root, k^(1/9) + c^(1/8), put into p = (k + c p)^(1/9) is a
    far better one.
    """
    bound = np.cbrt(np.cbrt(k)) + np.sqrt(np.sqrt(np.sqrt(c)))
    p = np.cbrt(np.cbrt(k + c * bound))
    for _ in range(STEPS):
        p8 = p**8
        p = p - (p * (p8 - c) - k) / np.maximum(9.0 * p8 - c, TINY)
    return p


class FixedFeeBand:
    """Trades when the mis-hedge passes the outer line, to the inner one; with no proportional cost that is the centre.

    `fee` is what one trade costs whatever its size, in currency.
    """

    interval: Nanos | None = None
    needs_ticks = True
    needs_last = False
    needs_terms = True
    bounded = True

    def __init__(self, *, fee: float, risk_aversion: float) -> None:
        self.fee = number("fixed_fee_band: fee", fee, least=0.0)
        self.risk_aversion = positive("fixed_fee_band: risk_aversion", risk_aversion)
        self.name = f"fixed fee {fee:g}, aversion {risk_aversion:g}"

    def lines(self, x: BandInput) -> tuple[Any, Any]:
        """(outer, inner) half widths in underlying units, both 0 where the book has no gamma. Shape: as the input."""
        square = np.maximum(np.asarray(x.gamma) * x.gamma, TINY)
        stiffness = self.risk_aversion * np.exp(x.rate * x.tau) / (3.0 * square)
        return fixed_fee_lines(slope=x.cost * np.abs(x.spot), fee=self.fee, stiffness=stiffness)

    def least_width(self, x: BandInput, around: Surroundings) -> float:
        """The outer line at the least price and |gamma| of the surroundings, and at the end of tau that discounts more.

        It rises with the cost of a unit and falls with the stiffness, see `docs/quiet.md`.
        """
        gamma = least_size(around.gamma)
        most = max(x.rate * around.tau[0], x.rate * around.tau[1])
        square = max(gamma * gamma, TINY)
        stiffness = self.risk_aversion * math.exp(most) / (3.0 * square)
        outer, _ = fixed_fee_lines(slope=x.cost * around.spot[0], fee=self.fee, stiffness=stiffness)
        return float(outer) * (1.0 - SLIP)

    def band(self, x: BandInput) -> Band:
        """want -+ the outer line, trading to the inner one on the side held. Shape: as `x.want`."""
        outer, inner = (line / abs(x.per_contract) for line in self.lines(x))
        to = clamp(x.held, x.want - inner, x.want + inner)
        return Band(x.want - outer, x.want + outer, to)
