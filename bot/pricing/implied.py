"""The implied vol is the one that gives back a quoted price; law: a row gets its vol, or a status that says why not.

An in-the-money price is first turned by parity into the out-of-the-money option of the same strike, whose price is all
time value. Source of the normalisation: Jaeckel 2015, "Let's Be Rational".

>>> found, status = vol([4.0, 0.0], 100.0, 100.0, 0.25)
>>> found.round(4).tolist(), status.tolist()
([0.2006, nan], [0, 6])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.pricing.black import Array, column, in_chunks, log_ratio, without_collection
from bot.pricing.status import Status

QuoteKernel: TypeAlias = Callable[[float, float, float, float, float, float], float]

_SCALARS: Final = frozenset({float, int, np.float64, np.int64})
_as_scalar: Final[Any] = np.float64
_CODES: Final[Any] = tuple(np.int8(code) for code in Status)


class ImpliedVol(NamedTuple):
    """Vols and their statuses. Shape: both the broadcast shape of the inputs; vol is NaN wherever status is not OK."""

    vol: Array
    status: NDArray[np.int8]


def vol(
    price: ArrayLike,
    forward: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    *,
    discount: ArrayLike = 1.0,
    cp: ArrayLike = 1.0,
    threads: int = 1,
) -> ImpliedVol:
    """The Black-76 vol of each price, compiled: a first guess and two steps of fourth order.

    Relative error a few units in the last place of what the price's own rounding allows, wherever vol sqrt(tau) is above
    1e-6; below it, and where the steps have not settled, more steps or a bracketed search take the row. One number per
    argument goes to the kernel without arrays and gives the bits of the batch, as numpy scalars; `vol_one` gives plain
    ones. On a spot, pass the forward S e^((r-q) tau) and discount e^(-r tau). An in-the-money price carries its time
    value with the digits that are left after the intrinsic is taken away; no method has more.

    `threads` above 1 shares a long batch among so many threads; the bits do not depend on it.

    Shape: all arguments broadcast together. Units: vol per square root of a year. Errors: none in a batch; statuses
    are OK, BELOW_INTRINSIC (a negative price too), AT_INTRINSIC, ABOVE_BOUND, EXPIRED (tau <= 0), NOT_FINITE,
    OUT_OF_DOMAIN. ValueError when shapes do not broadcast.
    """
    try:
        return _answer_of_one(price, forward, strike, tau, discount, cp, ImpliedVol, _as_scalar, _CODES)
    except TypeError:
        pass  # not six plain numbers
    return _vol_of_rows((price, forward, strike, tau, discount, cp), threads)


def _vol_of_rows(inputs: tuple[ArrayLike, ...], threads: int) -> ImpliedVol:
    """`vol` of anything but six plain numbers; in a frame of its own, since one with a closure is slow to enter."""
    if all(type(value) in _SCALARS for value in inputs):
        found_one, code = _parted(_kernel_of_one(*inputs))
        return ImpliedVol(_as_scalar(found_one), _CODES[code])
    from bot.pricing import implied_kernels  # noqa: PLC0415  the compiler is imported by those who price

    given = [np.asarray(value, dtype=np.float64) for value in inputs]
    shape = np.broadcast_shapes(*(value.shape for value in given))
    kernel: Callable[..., None] = implied_kernels.implied_rows
    columns = [column(value, shape) for value in given]
    found = np.empty(math.prod(shape))
    status = np.empty(found.size, dtype=np.int8)

    def solve(start: int, stop: int) -> None:
        rows = [c[: stop - start] if g.size == 1 else c[start:stop] for c, g in zip(columns, given, strict=True)]
        kernel(*rows, found[start:stop], status[start:stop])

    in_chunks(solve, found.size, threads)
    return ImpliedVol(found.reshape(shape), status.reshape(shape))


def vol_one(
    price: float, forward: float, strike: float, tau: float, discount: float = 1.0, cp: float = 1.0
) -> tuple[float, int]:
    """(vol, status code) of one quote: the bits of `vol` as plain numbers, for callers that count nanoseconds.

    vol is NaN wherever the code is not `Status.OK`. Domain, units and statuses as in `vol`. Errors: TypeError for what
    is no number; nothing else raises.

    >>> found, code = vol_one(4.0, 100.0, 100.0, 0.25)
    >>> round(found, 4), code
    (0.2006, 0)
    """
    found = _kernel_of_one(price, forward, strike, tau, discount, cp)
    return (found, 0) if found >= 0.0 else _parted(found)


def _parted(found: float) -> tuple[float, int]:
    """(vol, status code) of what the kernel answers: a vol, or minus a code."""
    return (found, 0) if found >= 0.0 else (math.nan, int(-found))


def _load_kernel(price: float, forward: float, strike: float, tau: float, discount: float, cp: float) -> float:
    """The first call: loads the kernel, and stands aside for it in all later ones."""
    global _kernel_of_one  # noqa: PLW0603  a look-up through a cache would cost a third of the whole call
    _kernel_of_one = quote_kernel()
    return _kernel_of_one(price, forward, strike, tau, discount, cp)


_kernel_of_one: Callable[..., float] = _load_kernel


def _load_answer(*arguments: Any) -> ImpliedVol:
    """The first call of a plain quote, as `_load_kernel`."""
    global _answer_of_one  # noqa: PLW0603  as in _load_kernel
    from bot.pricing import compiler, implied_kernels, plain_calls  # noqa: PLC0415  as in vol

    known = plain_calls.layout_is_known()
    _answer_of_one = compiler.without_dispatch(implied_kernels.implied_answer) if known else _by_rows
    return _answer_of_one(*arguments)


def _by_rows(*_: Any) -> ImpliedVol:
    """What stands for the compiled call on an interpreter whose objects it does not know: a row's way for each quote."""
    raise TypeError("implied.vol: expected an interpreter with known objects, found another")


_answer_of_one: Callable[..., ImpliedVol] = _load_answer


@cache
def quote_kernel() -> QuoteKernel:
    """The compiled `(price, forward, strike, tau, discount, cp) -> vol` of one quote, or minus its status code.

    What `vol_one` calls, without its frame and its defaults: all by position.
    """
    from bot.pricing import compiler, implied_kernels  # noqa: PLC0415  as in vol

    kernel: QuoteKernel = compiler.without_dispatch(implied_kernels.implied_one)
    return kernel


def warmup() -> None:
    """Load (on a new host: compile) the kernels of this module, so that none compiles on the first tick."""
    with without_collection():
        vol_one(4.0, 100.0, 100.0, 0.25)
        vol(4.0, 100.0, 100.0, 0.25)
        vol([4.0], 100.0, 100.0, 0.25)


def vol_by_bisection(
    price: ArrayLike,
    forward: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    *,
    discount: ArrayLike = 1.0,
    cp: ArrayLike = 1,
) -> ImpliedVol:
    """The same by halving an interval of vol sqrt(tau) until it is one float wide: slow, plain, the twin of `vol`.

    Shape: all arguments broadcast together. Domain: vol sqrt(tau) from 1e-12 to 100.
    """
    P, F, K, T, D, c, status = _rows(price, forward, strike, tau, discount, cp)
    with np.errstate(all="ignore"):
        undiscounted = P / D
        inside = np.maximum(c * (F - K), 0.0)
        value = undiscounted - inside
        normal = np.finfo(np.float64).tiny * np.maximum(np.minimum(F, K), 1.0)
        rounding = np.maximum(np.where(inside > 0.0, 4.0 * np.finfo(np.float64).eps * undiscounted, 0.0), normal)
        ok = status == Status.OK
        status[ok & (value < 0.0)] = Status.BELOW_INTRINSIC
        status[ok & (np.abs(value) <= rounding)] = Status.AT_INTRINSIC
        status[ok & (undiscounted >= np.where(c > 0.0, F, K))] = Status.ABOVE_BOUND
        lo = np.full(P.shape, 1e-12)
        hi = np.full(P.shape, 100.0)
        for _ in range(120):
            middle = 0.5 * (lo + hi)
            low = _out_of_the_money(F, K, middle) < value
            lo = np.where(low, middle, lo)
            hi = np.where(low, hi, middle)
        found = np.where(status == Status.OK, 0.5 * (lo + hi) / np.sqrt(T), np.nan)
    return ImpliedVol(found, status)


def _out_of_the_money(F: Array, K: Array, s: Array) -> Array:
    """The undiscounted Black price of whichever of call and put is out of the money."""
    from scipy.special import ndtr  # noqa: PLC0415  not everyone who imports us calls it

    cp = np.where(F <= K, 1.0, -1.0)
    x = log_ratio(F, K)
    return np.asarray(cp * (F * ndtr(cp * (x / s + 0.5 * s)) - K * ndtr(cp * (x / s - 0.5 * s))))


def _rows(
    price: ArrayLike, forward: ArrayLike, strike: ArrayLike, tau: ArrayLike, discount: ArrayLike, cp: ArrayLike
) -> tuple[Array, Array, Array, Array, Array, Array, NDArray[np.int8]]:
    """The inputs as float64 of one shape, and the status that the inputs alone decide."""
    given = [np.asarray(value, dtype=np.float64) for value in (price, forward, strike, tau, discount, cp)]
    P, F, K, T, D, c = np.broadcast_arrays(*given)
    finite = np.isfinite(P) & np.isfinite(F) & np.isfinite(K) & np.isfinite(T) & np.isfinite(D) & np.isfinite(c)
    with np.errstate(invalid="ignore"):
        possible = (F > 0.0) & (K > 0.0) & (D > 0.0) & (np.abs(c) == 1.0)
        status = np.where(T <= 0.0, Status.EXPIRED, np.where(possible, Status.OK, Status.OUT_OF_DOMAIN))
    status = np.where(finite, status, Status.NOT_FINITE)
    P, F, K, T, D, c = (np.asarray(value, order="C") for value in (P, F, K, T, D, c))
    return P, F, K, T, D, c, np.array(status, dtype=np.int8, order="C")
