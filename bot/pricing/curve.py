"""A curve turns a maturity into a discount factor or a forward; law: discounts are exp(-r tau), positive, 1 at tau 0.

`Curve` is a term structure of continuous rates, flat forward rates between its nodes. `Carry` is what it costs to hold
one underlying (rates, dividend yield, borrow, dividends in cash and in proportion) and gives its forward. `imply_forward`
reads forward and discount off a chain by put-call parity, and says how well the chain agrees with itself.

>>> usd = from_zeros([0.25, 1.0], [0.05, 0.04])
>>> usd.discount([0.0, 0.25, 1.0]).round(6).tolist()
[1.0, 0.987578, 0.960789]
>>> round(float(Carry(rates=usd, cash=((0.5, 2.0),)).forward(100.0, 1.0)), 4)
102.0441
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import Rate, Years
from bot.pricing.black import Array

TUKEY: Final = 4.685
"""Residuals beyond this many deviations get no weight (Beaton and Tukey 1974); 95% efficient under the normal."""
MAD_TO_STD: Final = 1.4826
"""The median absolute deviation of a normal times this is its standard deviation."""
MAX_PAIRS_BASE: Final = 60
"""Strikes whose pairs vote on the first slope; more add time, not robustness."""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A term structure: maturities in years, rising, and the continuous zero rate to each. Law: finite; tau > 0.

    Between nodes r tau is linear (flat forward rates); before the first node the zero rate is flat; after the last the
    last forward rate goes on.
    """

    tau: tuple[Years, ...]
    rate: tuple[Rate, ...]

    def __post_init__(self) -> None:
        if not self.tau or len(self.tau) != len(self.rate):
            raise ValueError(f"Curve: expected as many rates as maturities, found {len(self.rate)} and {len(self.tau)}")
        if not np.all(np.isfinite([*self.tau, *self.rate])):
            raise ValueError(f"Curve: expected finite maturities and rates, found {self.tau} and {self.rate}")
        if self.tau[0] <= 0.0 or any(b <= a for a, b in zip(self.tau, self.tau[1:], strict=False)):
            raise ValueError(f"Curve: tau: expected maturities above 0 and rising, found {self.tau}")

    def log_discount(self, tau: ArrayLike) -> Array:
        """-r(tau) tau, linear between nodes. Shape: any; NaN for a negative or unknown tau."""
        T = np.asarray(tau, dtype=np.float64)
        nodes = np.array([0.0, *self.tau])
        with np.errstate(all="ignore"):  # maturities of astronomers overflow
            heights = -nodes * np.array([self.rate[0], *self.rate])
            inside = np.interp(T, nodes, heights)
            slope = (heights[-1] - heights[-2]) / (nodes[-1] - nodes[-2])
            beyond = heights[-1] + slope * (T - nodes[-1])
        return np.asarray(np.where(T >= 0.0, np.where(nodes[-1] < T, beyond, inside), np.nan))

    def discount(self, tau: ArrayLike) -> Array:
        """D(tau) = e^(-r(tau) tau). Shape: any; NaN for a negative or unknown tau."""
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(self.log_discount(tau)))

    def zero(self, tau: ArrayLike) -> Array:
        """The continuous zero rate r(tau) per year; at tau 0 its limit, the first node's rate. Shape: any."""
        T = np.asarray(tau, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(T == 0.0, self.rate[0], -self.log_discount(T) / T))

    def forward_rate(self, start: ArrayLike, end: ArrayLike) -> Array:
        """The continuous rate per year between two maturities: ln(D(start) / D(end)) / (end - start).

        Shape: both broadcast. NaN where end <= start.
        """
        a, b = np.broadcast_arrays(np.asarray(start, np.float64), np.asarray(end, np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = (self.log_discount(a) - self.log_discount(b)) / (b - a)
            return np.asarray(np.where(b > a, slope, np.nan))


def flat(rate: Rate) -> Curve:
    """One continuous rate for all maturities.

    >>> float(flat(0.0).discount(3.0))
    1.0
    """
    return Curve(tau=(1.0,), rate=(float(rate),))


def from_zeros(tau: ArrayLike, rate: ArrayLike, *, per_year: int | None = None) -> Curve:
    """The curve through zero rates; `per_year` says how often they compound (None: continuously, 0: simple interest).

    r = n ln(1 + R/n) for n times a year, r = ln(1 + R tau)/tau for simple interest (Hull, Options, Futures, and Other
    Derivatives, section on the types of rates). Shape: (n,), (n,). Errors: ValueError for a rate that wipes out.
    """
    T, R = (np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in (tau, rate))
    if per_year is None:
        return Curve(tau=_floats(T), rate=_floats(R))
    if per_year < 0:
        raise ValueError(f"from_zeros: per_year: expected None, 0 or a count, found {per_year}")
    growth = 1.0 + (R / per_year if per_year else R * T)
    if not np.all(growth > 0.0):
        raise ValueError(f"from_zeros: rate: expected rates that leave something, found {R.tolist()}")
    return Curve(tau=_floats(T), rate=_floats(per_year * np.log(growth) if per_year else np.log(growth) / T))


def from_discounts(tau: ArrayLike, discount: ArrayLike) -> Curve:
    """The curve through discount factors. Shape: (n,), (n,). Errors: ValueError for a factor that is not positive."""
    T, D = (np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in (tau, discount))
    if not np.all(D > 0.0):
        raise ValueError(f"from_discounts: discount: expected positive factors, found {D.tolist()}")
    with np.errstate(all="ignore"):
        return Curve(tau=_floats(T), rate=_floats(-np.log(D) / T))


ZERO: Final = flat(0.0)


class Carry(msgspec.Struct, frozen=True, kw_only=True):
    """What holding one underlying costs and pays.

    `rates` is the funding curve, `dividend` a continuous yield, `borrow` the fee a lender of the shares is paid (it acts
    as a yield), `cash` dividends (years to the ex-date, amount per share), `proportional` ones (years to the ex-date,
    share of the price, 0.01 for 1%). Law: ex-dates are finite; a proportional one lies in [0, 1).
    """

    rates: Curve = ZERO
    dividend: Curve = ZERO
    borrow: Curve = ZERO
    cash: tuple[tuple[Years, float], ...] = ()
    proportional: tuple[tuple[Years, float], ...] = ()

    def __post_init__(self) -> None:
        for name, rows in (("cash", self.cash), ("proportional", self.proportional)):
            if not np.all(np.isfinite(np.array(rows, dtype=np.float64))):
                raise ValueError(f"Carry: {name}: expected finite ex-dates and amounts, found {rows}")
        if any(not 0.0 <= share < 1.0 for _, share in self.proportional):
            raise ValueError(f"Carry: proportional: expected shares in [0, 1), found {self.proportional}")

    def growth(self, tau: ArrayLike) -> Array:
        """What a share bought for 1 and its yields reinvested is worth forward: e^((r-q-b) tau) prod (1 - p_i).

        Shape: any. A dividend counts when its ex-date lies in (0, tau].
        """
        T = np.asarray(tau, dtype=np.float64)
        log = self.dividend.log_discount(T) + self.borrow.log_discount(T) - self.rates.log_discount(T)
        for ex, share in self.proportional:
            if ex > 0.0:
                log = log + np.where(ex <= T, np.log1p(-share), 0.0)
        return np.asarray(np.exp(log))

    def present_cash(self, tau: ArrayLike) -> Array:
        """The cash dividends with ex-date in (0, tau], in units of today's share: sum d_i / growth(t_i). Shape: any.

        This is what the escrowed-dividend model takes off the spot.
        """
        T = np.asarray(tau, dtype=np.float64)
        total = np.zeros(T.shape)
        for ex, amount in self.cash:
            if ex > 0.0:
                total = total + np.where(ex <= T, amount / self.growth(ex), 0.0)
        return np.asarray(np.where(np.isnan(T), np.nan, total))

    def escrowed(self, spot: ArrayLike, tau: ArrayLike) -> Array:
        """The spot less the dividends paid before tau: the price that diffuses in the escrowed model.

        Shape: both broadcast. NaN where the dividends are worth more than the spot.
        """
        left = np.asarray(spot, dtype=np.float64) - self.present_cash(tau)
        return np.asarray(np.where(left > 0.0, left, np.nan))

    def forward(self, spot: ArrayLike, tau: ArrayLike) -> Array:
        """F(tau) = growth(tau) (S - sum_{0 < t_i <= tau} d_i / growth(t_i)).

        The cost of carry with known dividends (Hull, chapter on forward and futures prices; Haug 2007, section 9.1).
        Shape: both broadcast. NaN where the dividends are worth more than the spot, or tau is negative.
        """
        return np.asarray(self.growth(tau) * self.escrowed(spot, tau))


class Pairs(NamedTuple):
    """A chain as one row per strike; NaN where a contract is not quoted. Shape: all (n,), strikes rising."""

    strike: Array
    call_bid: Array
    call_ask: Array
    put_bid: Array
    put_ask: Array


def put_call_pairs(strike: ArrayLike, bid: ArrayLike, ask: ArrayLike, cp: ArrayLike) -> Pairs:
    """The rows of a chain as one row per strike, for `imply_forward(*pairs)`. Of repeated rows the last counts.

    Shape: (n,) each.
    """
    K, b, a, c = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, np.float64)) for x in (strike, bid, ask, cp)))
    strikes = np.unique(K[np.isfinite(K)])
    sides = []
    for side in (1.0, -1.0):
        rows = np.flatnonzero((c == side) & np.isfinite(K))
        at = np.searchsorted(strikes, K[rows])
        for quotes in (b, a):
            column = np.full(strikes.shape, np.nan)
            column[at] = quotes[rows]
            sides.append(column)
    return Pairs(strikes, *sides)


class ParityFit(NamedTuple):
    """What a chain says of its forward, and how well it agrees with itself.

    forward, discount, rate (per year, continuous; NaN without tau); `forward_error` and `discount_error` are standard
    errors in the same units (discount_error 0 where the discount was given); `rmse` the weighted residual of C - P in
    price; `inside` the share of usable strikes whose own bid-ask interval of C - P contains the fit; `used` strikes with
    weight; `refused` by reason; `slack` the room left by arbitrage bounds, min upper - max lower in forward terms over
    the strikes kept: negative when quotes that were believed cannot all be traded on without a free lunch.
    """

    forward: float
    discount: float
    rate: Rate
    forward_error: float
    discount_error: float
    rmse: float
    inside: float
    used: int
    slack: float
    weight: Array
    refused: dict[str, int]

    @property
    def ok(self) -> bool:
        """True when a forward was found."""
        return bool(np.isfinite(self.forward))


def imply_forward(
    strike: ArrayLike,
    call_bid: ArrayLike,
    call_ask: ArrayLike,
    put_bid: ArrayLike,
    put_ask: ArrayLike,
    *,
    tau: Years | None = None,
    discount: float | None = None,
    near: float | None = None,
) -> ParityFit:
    """The forward (and, unless given, the discount factor) at which calls and puts of one expiry agree.

    European parity C - P = D (F - K) (Stoll 1969) is a line in K: slope -D, root F. Mids weigh by 1/spread^2; a first
    line by weighted medians of pairwise slopes (Theil 1950, Sen 1968) is improved by reweighted least squares with
    Tukey's biweight, so that stale legs lose their vote. A strike needs four finite sides, bids above 0 and bid <= ask.
    With `discount` given F is the reweighted mean of K + (C - P)/D alone, which suits short expiries, whose slope says
    little. `near` keeps strikes with |K/F - 1| <= near, F from the first line: for American chains, whose parity holds
    only near the money and only nearly (early exercise lifts the in-the-money leg).

    Shape: all (n,), one row per strike, NaN (or 0 for a bid) where a side is missing. Units: prices of the quote.
    Errors: ValueError for unequal shapes or a discount that is not positive; a chain without enough strikes (1 with a
    discount, 2 without) gives NaN and its counts.

    >>> K = np.array([90.0, 100.0, 110.0, 120.0])
    >>> middle = 0.98 * (104.0 - K)
    >>> fit = imply_forward(K, middle + 29.9, middle + 30.1, 29.9 + 0 * K, 30.1 + 0 * K, tau=0.5)
    >>> round(fit.forward, 8), round(fit.discount, 8), fit.inside
    (104.0, 0.98, 1.0)
    """
    sides = [np.atleast_1d(np.asarray(x, np.float64)) for x in (strike, call_bid, call_ask, put_bid, put_ask)]
    if len({side.shape for side in sides}) != 1 or sides[0].ndim != 1:
        raise ValueError(f"imply_forward: expected five rows of one length, found {[side.shape for side in sides]}")
    if discount is not None and not (np.isfinite(discount) and discount > 0.0):
        raise ValueError(f"imply_forward: discount: expected a positive number, found {discount}")
    good, refused = _usable(*sides)
    K, cb, ca, pb, pa = (side[good] for side in sides)
    weight = np.zeros(sides[0].shape)
    if len(np.unique(K)) < (2 if discount is None else 1):
        return _nothing(discount, tau, weight, refused)
    y = 0.5 * (cb + ca - pb - pa)
    half = _half_spread(0.5 * (ca - cb + pa - pb))
    D, F = _first_line(K, y, half, discount)
    if near is not None:
        close = np.abs(K / F - 1.0) <= near
        refused["far"] = int((~close).sum())
        good[np.flatnonzero(good)[~close]] = False
        K, cb, ca, pb, pa, y, half = (column[close] for column in (K, cb, ca, pb, pa, y, half))
        if len(np.unique(K)) < (2 if discount is None else 1):
            return _nothing(discount, tau, weight, refused)
        D, F = _first_line(K, y, half, discount)
    D, F, w = _reweighted_line(K, y, half, start=(D, F), discount=discount)
    if not (np.isfinite(F) and np.isfinite(D) and D > 0.0):
        return _nothing(discount, tau, weight, refused)
    weight[good] = w * np.square(half)
    residual = y - D * (F - K)
    F_error, D_error = _errors(K, residual, w, D=D, F=F, free=discount is None)
    kept = w > 0.0
    lower, upper = K + (cb - pa) / D, K + (ca - pb) / D
    return ParityFit(
        forward=float(F),
        discount=float(D),
        rate=_rate(D, tau),
        forward_error=F_error,
        discount_error=D_error,
        rmse=float(np.sqrt(np.sum(w * residual**2) / np.sum(w))),
        inside=float(np.mean((lower <= F + 1e-9 * abs(F)) & (F - 1e-9 * abs(F) <= upper))),
        used=int(kept.sum()),
        slack=float(np.min(upper[kept]) - np.max(lower[kept])),
        weight=weight,
        refused=refused,
    )


def _usable(K: Array, cb: Array, ca: Array, pb: Array, pa: Array) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Rows with four sides that can be believed, and why the others cannot."""
    with np.errstate(invalid="ignore"):
        known = np.isfinite(K) & (K > 0.0)
        one_sided = known & ~((cb > 0.0) & (pb > 0.0) & np.isfinite(cb + ca + pb + pa))
        crossed = known & ~one_sided & ((ca < cb) | (pa < pb))
    good = known & ~one_sided & ~crossed
    return good, {
        "not_finite": int((~known).sum()),
        "one_sided": int(one_sided.sum()),
        "crossed": int(crossed.sum()),
    }


def _half_spread(half: Array) -> Array:
    """Half spreads with a floor: a locked strike is trusted, but not infinitely more than its neighbours."""
    typical = float(np.median(half))
    return np.asarray(np.maximum(half, 0.1 * typical if typical > 0.0 else 1.0))


def _first_line(K: Array, y: Array, half: Array, discount: float | None) -> tuple[float, float]:
    """Discount and forward by weighted medians: half of the strikes may lie."""
    D = discount
    if D is None:
        at = _spread_out(half, MAX_PAIRS_BASE)
        i, j = np.triu_indices(len(at), 1)
        k, v, h = K[at], y[at], half[at]
        apart = k[i] != k[j]
        i, j = i[apart], j[apart]
        if not len(i):
            return float("nan"), float("nan")
        slope = (v[j] - v[i]) / (k[j] - k[i])
        D = -weighted_median(slope, np.abs(k[j] - k[i]) / np.hypot(h[i], h[j]))
        if D <= 0.0:
            return float("nan"), float("nan")
    return D, weighted_median(K + y / D, 1.0 / half)


def _spread_out(half: Array, most: int) -> NDArray[np.intp]:
    """At most `most` rows: the ones with the tightest quotes."""
    return np.sort(np.argsort(half, kind="stable")[:most])


def weighted_median(values: Array, weight: Array) -> float:
    """The value at which half of the weight lies below and half above (the mean of two where it falls between).

    Shape: (n,), (n,); n >= 1.

    >>> weighted_median(np.array([1.0, 5.0, 9.0]), np.array([1.0, 1.0, 3.0]))
    9.0
    """
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    i = int(np.searchsorted(total, 0.5 * total[-1]))
    sorted_values = values[order]
    if i + 1 < len(values) and total[i] == 0.5 * total[-1]:
        return float(0.5 * (sorted_values[i] + sorted_values[i + 1]))
    return float(sorted_values[min(i, len(values) - 1)])


def _reweighted_line(
    K: Array, y: Array, half: Array, *, start: tuple[float, float], discount: float | None
) -> tuple[float, float, Array]:
    """Discount, forward and final weights after reweighted least squares from a robust start."""
    D, F = start
    base = 1.0 / np.square(half)
    w = base
    if not np.isfinite(F):
        return D, F, w
    for _ in range(30):
        w = base * tukey_weight((y - D * (F - K)) / half)
        if discount is None and len(np.unique(K[w > 0.0])) < 2:
            break
        if not np.any(w > 0.0):
            w = base
            break
        new_D, new_F = _line(K, y, w, discount)
        moved = abs(new_F - F) + abs(new_D - D)
        D, F = new_D, new_F
        if moved <= 1e-13 * (abs(F) + 1.0):
            break
    return D, F, w


def tukey_weight(scaled: Array) -> Array:
    """Tukey's biweight of residuals measured in half spreads: (1 - (u / 4.685 s)^2)^2 inside, 0 outside.

    The scale s is 1.4826 times the median absolute residual, at least 1/4: residuals far inside the spreads are no news.
    Shape: (n,).
    """
    s = max(MAD_TO_STD * float(np.median(np.abs(scaled))), 0.25)
    u = np.clip(np.abs(scaled) / (TUKEY * s), 0.0, 1.0)
    return np.asarray(np.square(1.0 - u * u))


def _line(K: Array, y: Array, w: Array, discount: float | None) -> tuple[float, float]:
    """Weighted least squares of y = D (F - K)."""
    total = float(np.sum(w))
    K0, y0 = float(np.sum(w * K)) / total, float(np.sum(w * y)) / total
    D = -float(np.sum(w * (K - K0) * (y - y0)) / np.sum(w * (K - K0) ** 2)) if discount is None else discount
    return D, K0 + y0 / D


def _errors(K: Array, residual: Array, w: Array, *, D: float, F: float, free: bool) -> tuple[float, float]:
    """Standard errors of forward and discount; NaN where no residual degree of freedom is left."""
    kept = w > 0.0
    freedom = int(kept.sum()) - (2 if free else 1)
    if freedom < 1:
        return float("nan"), float("nan") if free else 0.0
    total = float(np.sum(w))
    K0 = float(np.sum(w * K)) / total
    variance = float(np.sum(w * residual**2)) / freedom
    level = variance / total / D**2
    if not free:
        return float(np.sqrt(level)), 0.0
    slope = variance / float(np.sum(w * (K - K0) ** 2))
    return float(np.sqrt(level + slope * (F - K0) ** 2 / D**2)), float(np.sqrt(slope))


def _rate(D: float, tau: Years | None) -> Rate:
    return float(-np.log(D) / tau) if tau is not None and tau > 0.0 else float("nan")


def _nothing(discount: float | None, tau: Years | None, weight: Array, refused: dict[str, int]) -> ParityFit:
    nan = float("nan")
    D = nan if discount is None else discount
    return ParityFit(nan, D, _rate(D, tau), nan, nan, nan, nan, 0, nan, weight, refused)


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
