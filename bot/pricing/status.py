"""A status says what became of one row of a batch; law: a bad row is NaN with its code and never spoils a neighbour."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What became of a row. Codes are stable: later editions add, they do not renumber."""

    OK = 0
    """Inside the formula's domain."""
    LIMIT = 1
    """No time, vol, spot or strike left: the payoff's limits; gamma is 0 even at the kink, where it does not exist."""
    EXPIRED = 2
    """Time to expiry is negative (implied vol: not positive)."""
    NOT_FINITE = 3
    """An input is NaN or infinite."""
    OUT_OF_DOMAIN = 4
    """An input is finite and impossible: a negative price or vol, a `cp` other than +1 and -1, a product that overflows."""
    BELOW_INTRINSIC = 5
    """Implied vol: the price is below what exercise at the forward gives."""
    AT_INTRINSIC = 6
    """Implied vol: no time value is left to within rounding, so any small vol fits."""
    ABOVE_BOUND = 7
    """Implied vol: the price is at or above the forward (call) or the strike (put): no finite vol fits."""
    DOUBLE_BOUNDARY = 8
    """American: q < r < 0 (puts) or r < q < 0 (calls): two exercise boundaries, a case that is refused."""
    NOT_CONVERGED = 9
    """The solver found no finite answer: inputs beyond what its arithmetic can hold."""
