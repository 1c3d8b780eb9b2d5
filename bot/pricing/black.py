"""Black-Scholes-Merton and Black-76 prices and Greeks; law: a row depends on itself only, and is never silently wrong.

Conventions, here and in every pricing module: `cp` +1 call, -1 put; continuous rates per year; `tau` in years from
the exact expiry instant (ACT/365); vega, volga and vanna per 1.00 of vol; theta and charm per year of calendar time
(dV/dt); rho and rho_q per 1.00 of rate; `speed` and `zomma` are gamma's derivatives by spot and vol. A bad row is NaN
with its `Status`. An expired row (tau < 0) is 0 with its status: it owes nothing more, whatever its vol was. With no
time or no vol left the payoff's limits hold; delta at the kink is its mean 1/2, gamma there 0.

`bsm` and `black76` are the readable form. `greeks_slice` and the kernel behind `slice_kernel` are compiled; importing
this module does not import the compiler.

>>> round(
...     float(bsm(42.0, 40.0, 0.5, 0.2, rate=0.1).price), 2
... )  # Hull, Options, Futures, and Other Derivatives, ex. 15.6
4.76
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import NS_PER_YEAR, Nanos
from bot.pricing.status import Status

Array: TypeAlias = NDArray[np.float64]

SliceKernel: TypeAlias = Callable[[float, int, Array, float, float], tuple[float, float]]
RowsKernel: TypeAlias = Callable[..., None]

TINY: Final = 1e-100
"""A total deviation vol sqrt(tau) at or below this is no deviation."""
FAR: Final = 1e8
"""Beyond this many deviations a normal density is 0 and N is 0 or 1, long since; products of d stay finite."""
NOTHING: Final = 1e-150
"""A spot or strike at or below this is none, so that no quotient of two overflows."""
VAST: Final = 1e150
"""Inputs whose sizes add up to more than this are refused."""
VAST_DISCOUNT: Final = 2.0**1023.5
"""Discount factors from here on overflow, in the compiled exp too."""
PHI_0: Final = 0.3989422804014327
SQRT_HALF: Final = 0.7071067811865476
SQRT_HALF_PI: Final = 1.2533141373155003
CHUNK: Final = 16_384
"""Rows a batch hands to its kernel at a time: inputs that are one number are spread over so many rows, not over all."""
CHUNKS_A_THREAD: Final = 2
"""The least work that pays for starting a thread."""


class BlackGreeks(NamedTuple):
    """Price and Greeks of each row. Shape: every field has the broadcast shape of the inputs; `status` is int8."""

    price: Array
    delta: Array
    gamma: Array
    vega: Array
    theta: Array
    rho: Array
    rho_q: Array
    vanna: Array
    volga: Array
    charm: Array
    speed: Array
    zomma: Array
    dual_delta: Array
    status: NDArray[np.int8]


class SliceGreeks(NamedTuple):
    """The five outputs a hedger needs. Shape: every field has the broadcast shape of the inputs."""

    price: Array
    delta: Array
    gamma: Array
    vega: Array
    theta: Array


def bsm(
    spot: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    *,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    cp: ArrayLike = 1,
) -> BlackGreeks:
    """Price and Greeks of European options on a spot that pays a continuous yield.

    V = cp (S e^(-q tau) N(cp d1) - K e^(-r tau) N(cp d2)),
    d1,2 = (ln(S/K) + (r - q) tau) / w +- w/2, w = vol sqrt(tau).
    Source: Black and Scholes 1973, Merton 1973; Greeks as in Haug 2007, chapter 2.

    Shape: all arguments broadcast together; integers and float32 are widened exactly, inputs are not changed.
    Units: see the module. Errors: ValueError when shapes do not broadcast; nothing else raises.

    >>> put = bsm(100.0, [90.0, 110.0], 0.25, 0.2, cp=-1)
    >>> put.delta.round(3).tolist()
    [-0.135, -0.817]
    """
    S, K, tau_, vol_, r, q, cp_ = broadcast_floats(spot, strike, tau, vol, rate, dividend, cp)
    with np.errstate(all="ignore"):
        return _greeks(S, K, tau_, vol_, r, q, exp_product(-r, tau_), exp_product(-q, tau_), cp_)


def black76(
    forward: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    *,
    discount: ArrayLike = 1.0,
    cp: ArrayLike = 1,
    rate: ArrayLike | None = None,
) -> BlackGreeks:
    """Price and Greeks of European options on a forward or future, with respect to that forward.

    V = cp D (F N(cp d1) - K N(cp d2)). delta = cp D N(cp d1): it includes the discount factor. Theta and charm hold the
    forward; they contain the unwinding of the discount (+ r V, + r delta) only when `rate` says how fast, in which case
    discount = exp(-rate tau) and must not be given too. rho = -tau V (forward held), rho_q = 0.
    Source: Black 1976; Haug 2007, section 1.1.4.

    Shape: all arguments broadcast together. Errors: ValueError when both `rate` and `discount` are given.
    """
    if rate is None:
        F, K, tau_, vol_, D, cp_ = broadcast_floats(forward, strike, tau, vol, discount, cp)
        with np.errstate(invalid="ignore"):
            r = 0.0 * D  # none, and unknown where the discount factor is
    else:
        if np.any(np.asarray(discount) != 1.0):
            raise ValueError("black76: expected discount or rate, found both")
        F, K, tau_, vol_, r, cp_ = broadcast_floats(forward, strike, tau, vol, rate, cp)
    with np.errstate(all="ignore"):
        if rate is not None:
            D = exp_product(-r, tau_)
        result = _greeks(F, K, tau_, vol_, r, r, D, D, cp_)
        return result._replace(rho=result.rho + result.rho_q, rho_q=0.0 * result.rho_q)


class BachelierGreeks(NamedTuple):
    """Price and Greeks of each row in the normal model. Shape: the broadcast shape of the inputs; `status` is int8."""

    price: Array
    delta: Array
    gamma: Array
    vega: Array
    theta: Array
    rho: Array
    vanna: Array
    volga: Array
    charm: Array
    dual_delta: Array
    status: NDArray[np.int8]


def bachelier(
    forward: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    *,
    discount: ArrayLike = 1.0,
    cp: ArrayLike = 1,
    rate: ArrayLike | None = None,
) -> BachelierGreeks:
    """Price and Greeks of European options on a forward that moves by price units, not by shares of itself.

    V = D [cp (F - K) N(cp d) + w phi(d)], d = (F - K) / w, w = vol sqrt(tau); forward and strike may be negative.
    Greeks are with respect to the forward; theta and charm hold it and unwind the discount only when `rate` says how
    fast (discount = exp(-rate tau) then); rho = -tau V. Source: Bachelier 1900; Haug 2007, section 1.3.1.

    Shape: all arguments broadcast together. Units: vol in price units per square root of a year; vega, vanna and volga
    per 1.00 of it. Errors: ValueError when both `rate` and `discount` are given.

    >>> round(float(bachelier(-5.0, 0.0, 1.0, 20.0).price), 4)
    5.7269
    """
    from scipy.special import erfcx  # noqa: PLC0415  as in _greeks

    if rate is None:
        F, K, T, v, D, c = broadcast_floats(forward, strike, tau, vol, discount, cp)
        r = np.zeros_like(F)
    elif np.any(np.asarray(discount) != 1.0):
        raise ValueError("bachelier: expected discount or rate, found both")
    else:
        F, K, T, v, r, c = broadcast_floats(forward, strike, tau, vol, rate, cp)
    with np.errstate(all="ignore"):
        if rate is not None:
            D = exp_product(-r, T)
        one = np.ones_like(F)
        status = row_status(one, one, T, v, c, F, K, D, r)
        limit = status == Status.LIMIT
        root = np.sqrt(T)
        w = v * root
        d = np.where(limit, np.sign(F - K) * FAR, np.clip((F - K) / w, -FAR, FAR))
        n = PHI_0 * np.exp(-0.5 * d * d)
        y = SQRT_HALF_PI * erfcx(np.abs(d) * SQRT_HALF)
        side = np.where(d == 0.0, 0.5, np.where(c * d > 0.0, 1.0 - n * y, n * y))
        # The out-of-the-money option is w phi (1 - |d| N(-|d|)/phi): a fraction of the density, not a difference of prices.
        value = np.where(limit, 0.0, w * n * _one_less(np.abs(d), y))
        price = D * (value + np.maximum(c * (F - K), 0.0))
        delta = c * D * side
        gamma = np.where(limit, 0.0, D * n / w)
        vega = D * n * root
        outputs = (
            price,
            delta,
            gamma,
            vega,
            r * price - np.where(limit, 0.0, 0.5 * D * n * v / root),
            -T * price,
            np.where(limit, 0.0, -D * n * d / v),
            np.where(limit, 0.0, vega * d * d / v),
            r * delta + np.where(limit, 0.0, 0.5 * D * n * d / T),
            -delta,
        )
        expired = status == Status.EXPIRED
        bad = status > Status.EXPIRED
        return BachelierGreeks._make([*(masked(values, expired, bad) for values in outputs), status])


def _one_less(d: Array, y: Array) -> Array:
    """1 - d N(-d)/phi(d) for d >= 0; far out, where the two nearly agree, by its asymptotic series in 1/d^2."""
    far = np.where(d > 20.0, d, 20.0)
    z = 1.0 / (far * far)
    series = z * (
        1.0 - z * (3.0 - z * (15.0 - z * (105.0 - z * (945.0 - z * (10395.0 - z * (135135.0 - z * 2027025.0))))))
    )
    return np.where(d > 20.0, series, 1.0 - d * y)


def greeks_slice(
    spot: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    *,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    cp: ArrayLike = 1,
    out: Array | None = None,
    threads: int = 1,
) -> SliceGreeks:
    """Price, delta, gamma, vega and theta of contracts on one underlying, compiled; equal to `bsm` to rounding.

    On a future pass `dividend = rate`: that is Black-76 with its discount factor. Rows `bsm` marks as bad are NaN here.

    The kernel is branch-free vector code without contracted multiply-adds: a row has the same bits alone, in a batch, in
    any thread and on any x86-64 processor. It keeps no state, so threads may share it. `threads` above 1 shares a long
    batch among so many of them.

    Shape: all arguments broadcast together; `out`, when given, is (5, n) float64 for n rows in all, and holds the result.
    Errors: ValueError when shapes do not broadcast or `out` does not fit.
    """
    given = [np.asarray(value, dtype=np.float64) for value in (spot, strike, tau, vol, cp, rate, dividend)]
    shape = np.broadcast_shapes(*(value.shape for value in given))
    count = math.prod(shape)
    if out is None:
        out = np.empty((5, count))
    elif out.shape != (5, count) or out.dtype != np.float64 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"greeks_slice: out: expected writable C-contiguous float64 (5, {count}), found {out.dtype} {out.shape}"
        )
    kernel = _rows_kernel()
    columns = [column(value, shape) for value in given]
    table = out

    def price(start: int, stop: int) -> None:
        rows = [c[: stop - start] if g.size == 1 else c[start:stop] for c, g in zip(columns, given, strict=True)]
        kernel(*rows, table, start)

    in_chunks(price, count, threads)
    return SliceGreeks(*(values.reshape(shape) for values in table))


def in_chunks(work: Callable[[int, int], None], count: int, threads: int) -> None:
    """Calls `work(start, stop)` over chunks of all rows, on so many threads, each with a run of chunks of its own.

    A thread is worth starting for several chunks only; a short batch stays on the caller's. An error in a thread is
    raised here. Errors: ValueError for fewer threads than 1.
    """
    if threads < 1:
        raise ValueError(f"threads: expected 1 or more, found {threads}")
    chunks = -(-count // CHUNK)
    threads = min(threads, chunks // CHUNKS_A_THREAD)

    def run(first: int, last: int) -> None:
        for chunk in range(first, last):
            work(chunk * CHUNK, min((chunk + 1) * CHUNK, count))

    if threads <= 1:
        run(0, chunks)
        return
    ends = [chunks * n // threads for n in range(threads + 1)]
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(run, *pair) for pair in pairwise(ends[1:])]
        run(0, ends[1])
        for other in others:
            other.result()


def column(value: Array, shape: tuple[int, ...]) -> Array:
    """The rows of one input, flat and contiguous; of a single number, only as many as a chunk has."""
    count = math.prod(shape)
    if value.size == 1:
        return np.full(min(count, CHUNK), value.reshape(()))
    return np.ascontiguousarray(np.broadcast_to(value, shape)).reshape(-1)


def slice_kernel() -> SliceKernel:
    """The compiled `net(spot, elapsed, packed, rate, dividend) -> (delta, gamma)` for one call per tick.

    Sums weight x delta and weight x gamma over the rows of a packed slice (see `pack_slice`); `elapsed` is now minus
    the slice's epoch in ns. On a future pass `dividend = rate`: Black-76, delta = cp e^(-r tau) N(cp d1). A contract
    whose expiry has passed adds 0; at the very instant it adds the payoff's delta (1/2 at the kink) and gamma 0. An
    unknown vol (NaN) of a live contract, or an unknown spot, makes both sums NaN: unknown is never zero.

    The first call on a new host compiles; later processes load the cached code.
    """
    from bot.pricing import kernels  # noqa: PLC0415  the compiler is imported by those who price, not by all who import us

    return kernels.net


def net_by_formula(spot: float, elapsed: Nanos, packed: Array, rate: float, dividend: float) -> tuple[float, float]:
    """The same two sums from `bsm`: the readable twin of `slice_kernel()`."""
    tau = (packed[:, 1] - elapsed) / NS_PER_YEAR
    rows = bsm(spot, packed[:, 0], tau, packed[:, 2], rate=rate, dividend=dividend, cp=packed[:, 3])
    live = tau >= 0.0  # an expired row adds 0 whatever its weight
    weight = packed[live, 4]
    delta = float(np.sum(weight * rows.delta[live]))
    gamma = float(np.sum(weight * rows.gamma[live]))
    if np.isnan(delta) or np.isnan(gamma):
        return float("nan"), float("nan")
    return delta, gamma


def pack_slice(
    *, strike: ArrayLike, expiry: ArrayLike, vol: ArrayLike, cp: ArrayLike, weight: ArrayLike, epoch: Nanos
) -> Array:
    """The contracts on one underlying as the columns strike, expiry - epoch in ns, vol, cp, weight.

    `expiry` in ns since 1970. Times are kept relative to `epoch` (the session's start, say) since a float holds whole
    nanoseconds exactly for 104 days only. Column 2 may be rewritten in place at a re-mark, column 4 when the book
    changes.

    Shape: arguments (n,) or scalars; result (n, 5), C-contiguous. Errors: ValueError for a cp other than +1 and -1.
    """
    since = np.atleast_1d(np.asarray(expiry, dtype=np.int64)) - epoch
    columns = broadcast_floats(np.atleast_1d(np.asarray(strike)), since, vol, cp, weight)
    if not np.all(np.abs(columns[3]) == 1.0):
        raise ValueError(f"pack_slice: cp: expected +1 or -1, found {columns[3].tolist()}")
    return np.ascontiguousarray(np.stack(columns, axis=-1))


def warmup() -> None:
    """Load (on a new host: compile) every kernel of this module, so that none compiles on the first tick."""
    packed = pack_slice(strike=100.0, expiry=NS_PER_YEAR, vol=0.2, cp=1, weight=1.0, epoch=0)
    with without_collection():
        slice_kernel()(100.0, 0, packed, 0.0, 0.0)
        greeks_slice(100.0, 100.0, 1.0, 0.2)


@contextmanager
def without_collection() -> Iterator[None]:
    """No cycle is collected inside: the compiler loads many objects that stay, and to walk them again takes a sixth longer."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@cache
def _rows_kernel() -> RowsKernel:
    from bot.pricing import kernels  # noqa: PLC0415  as in slice_kernel

    return kernels.greeks_rows


def broadcast_floats(*values: ArrayLike) -> list[Array]:
    """Float64 arrays of one shape, contiguous or not; views where nothing had to be converted."""
    return list(np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values)))


def log_ratio(above: Array, below: Array) -> Array:
    """ln(above / below), by log1p((above - below) / below) near 1 where the plain quotient loses digits."""
    relative = (above - below) / below
    near = np.abs(relative) < 0.5
    return np.where(near, np.log1p(np.where(near, relative, 0.0)), np.log(above / below))


def exp_product(a: Array, b: Array) -> Array:
    """exp(a b), with the rounding of the product put back (Dekker 1971): a large |a b| costs no digits.

    Shape: arguments broadcast together. Domain: |a|, |b| below 1e300; an infinite product gives 0 or inf.
    """
    product = a * b
    a_high, b_high = _high_half(a), _high_half(b)
    a_low, b_low = a - a_high, b - b_high
    low = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    power = np.exp(product)
    return np.asarray(power + power * np.where(np.isfinite(low) & np.isfinite(power), low, 0.0))


def _high_half(a: Array) -> Array:
    """The upper 26 bits of each number, so that products of halves are exact."""
    split = a * 134217729.0
    return np.asarray(split - (split - a))


def row_status(S: Array, K: Array, tau: Array, vol: Array, cp: Array, *others: Array) -> NDArray[np.int8]:
    """The status of each row by its inputs alone: expired first, then unknown, impossible, limit."""
    finite = np.isfinite(S) & np.isfinite(K) & np.isfinite(tau) & np.isfinite(vol) & np.isfinite(cp)
    for other in others:
        finite &= np.isfinite(other)
    possible = (S >= 0.0) & (K >= 0.0) & (vol >= 0.0) & (np.abs(cp) == 1.0)
    limit = (vol * np.sqrt(tau) <= TINY) | (S <= NOTHING) | (K <= NOTHING)
    status = np.where(limit, Status.LIMIT, Status.OK)
    status = np.where(possible, status, Status.OUT_OF_DOMAIN)
    status = np.where(finite, status, Status.NOT_FINITE)
    return np.asarray(np.where(tau < 0.0, Status.EXPIRED, status), dtype=np.int8)


def _greeks(
    S: Array, K: Array, tau: Array, vol: Array, r: Array, q: Array, Dr: Array, Dq: Array, cp: Array
) -> BlackGreeks:
    """The generalised formula: Black-76 is the case q = r with both discount factors equal."""
    from scipy.special import erfcx  # noqa: PLC0415  half of this module's import time, and not everyone calls it

    status = row_status(S, K, tau, vol, cp, r, q)
    limit = status == Status.LIMIT
    root = np.sqrt(tau)
    w = vol * root
    s, k = S * Dq, K * Dr
    x = log_ratio(S, K) + (r - q) * tau
    # In the limit d is far away by the sign of s - k and 0 at the kink, so that one set of formulas serves both.
    d1 = np.where(limit, np.sign(s - k) * FAR, np.clip(x / w + 0.5 * w, -FAR, FAR))
    d2 = np.where(limit, d1, np.clip(x / w - 0.5 * w, -FAR, FAR))
    n = PHI_0 * np.exp(-0.5 * d1 * d1)
    # N(-|d|) / phi(d), and s phi(d1) = k phi(d2): each tail over one density, with all its digits
    y1, y2 = (SQRT_HALF_PI * erfcx(np.abs(d) * SQRT_HALF) for d in (d1, d2))
    m = s * n
    above = np.where(d1 == 0.0, 0.5, np.where(cp * d1 > 0.0, 1.0 - n * y1, n * y1))
    owed = np.where(d2 == 0.0, 0.5 * k, np.where(cp * d2 > 0.0, k - m * y2, m * y2))
    below = np.where(k > 0.0, owed / k, above)
    low = s <= k
    near, far = np.where(low, y1, y2), np.where(low, y2, y1)
    inside = np.where(low, d1, -d2) > 0.0
    value = np.where(inside, np.minimum(s, k) - m * (near + far), m * (near - far))

    def smooth(values: Array) -> Array:
        return np.where(limit, 0.0, values)

    price = np.maximum(value, 0.0) + np.maximum(cp * (s - k), 0.0)
    delta = cp * Dq * above
    gamma = smooth(Dq * n / w / S)
    vega = m * root
    theta = cp * (q * s * above - r * owed) - smooth(m * vol / (2.0 * root))
    drift_of_d1 = ((r - q) * tau * 2.0 - d2 * w) / (2.0 * tau * w)
    outputs = (
        price,
        delta,
        gamma,
        vega,
        theta,
        cp * tau * owed,
        -cp * tau * s * above,
        smooth(-Dq * n * d2 / vol),
        smooth(vega * d1 * d2 / vol),
        q * delta - smooth(np.where(n > 0.0, Dq * n * drift_of_d1, 0.0)),
        smooth(-gamma / S * (d1 / w + 1.0)),
        smooth(gamma * (d1 * d2 - 1.0) / vol),
        -cp * Dr * below,
    )
    # inputs at the ends of the float range, whose products overflow; a discount factor that was given, and is negative
    total = (s + k) + (((price + delta) + gamma) + (vega + theta))
    held = (np.abs(total) < np.inf) & (Dr >= 0.0) & (np.maximum(Dr, Dq) < VAST_DISCOUNT)
    held &= S + K + vol + tau + np.abs(r) + np.abs(q) <= VAST
    status = np.where((status <= Status.LIMIT) & ~held, np.int8(Status.OUT_OF_DOMAIN), status)
    expired = status == Status.EXPIRED
    bad = status > Status.EXPIRED
    return BlackGreeks._make([*(masked(values, expired, bad) for values in outputs), status])


def masked(values: Any, expired: NDArray[np.bool_], bad: NDArray[np.bool_]) -> Array:
    return np.asarray(np.where(bad, np.nan, np.where(expired, 0.0, values)), dtype=np.float64)
