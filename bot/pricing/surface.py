"""A surface is one vol for each strike and maturity, fitted to quotes; law: what its arbitrage report calls sound is so.

Coordinates: k = ln(K/F) against the forward of the maturity, w(k, tau) = vol^2 tau the total variance. `read_smile` turns
the quotes of one expiry into vols and refuses the bad ones by reason; `fit` makes a `Surface` of smiles: one raw SVI
slice per expiry (quasi-explicit, Zeliade 2009), one SSVI for all (Gatheral and Jacquier 2014), or cubics; `check` measures
butterfly and calendar arbitrage. Between expiries w is linear in tau at the same k (SSVI: theta is linear in tau).

>>> svi = Svi(a=0.01, b=0.1, rho=-0.4, m=0.0, sigma=0.2)
>>> float(svi.variance(0.0).round(6)), bool((svi.durrleman(np.linspace(-2, 2, 9)) > 0).all())
(0.03, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import Vol, Years
from bot.pricing import implied
from bot.pricing.black import Array, black76
from bot.pricing.curve import tukey_weight
from bot.pricing.status import Status

Model = Literal["svi", "ssvi", "cubic"]

LEE: Final = 2.0
"""No total variance rises faster than 2 |k| in a wing (Lee 2004, "The moment formula for implied volatility")."""
FEWEST_FOR_SVI: Final = 6
"""Quotes an SVI slice needs, one more than it has parameters; with fewer the slice is a cubic."""
G_TOLERANCE: Final = 1e-9
"""Durrleman's g and calendar steps this little below 0 are rounding."""
G_MARGIN: Final = 1e-3
"""Fits are pushed this far from the edge, so that points between the grid's are sound too."""


class Slice(Protocol):
    """The smile of one expiry. Shape: k any; units: total variance."""

    def variance(self, k: ArrayLike) -> Array:
        """w(k)."""

    def slope(self, k: ArrayLike) -> Array:
        """dw/dk."""

    def curvature(self, k: ArrayLike) -> Array:
        """d2w/dk2."""


class Svi(NamedTuple):
    """Raw SVI (Gatheral 2004): w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)).

    Domain: b >= 0, |rho| <= 1, sigma > 0, a + b sigma sqrt(1 - rho^2) >= 0, b (1 + |rho|) <= 2.
    """

    a: float
    b: float
    rho: float
    m: float
    sigma: float

    def variance(self, k: ArrayLike) -> Array:
        """w(k). Shape: any."""
        y = np.asarray(k, np.float64) - self.m
        return np.asarray(self.a + self.b * (self.rho * y + np.hypot(y, self.sigma)))

    def slope(self, k: ArrayLike) -> Array:
        """dw/dk = b (rho + y / sqrt(y^2 + sigma^2)), y = k - m. Shape: any."""
        y = np.asarray(k, np.float64) - self.m
        return np.asarray(self.b * (self.rho + y / np.hypot(y, self.sigma)))

    def curvature(self, k: ArrayLike) -> Array:
        """d2w/dk2 = b sigma^2 / (y^2 + sigma^2)^(3/2). Shape: any."""
        y = np.asarray(k, np.float64) - self.m
        return np.asarray(self.b * self.sigma**2 / np.hypot(y, self.sigma) ** 3)

    def durrleman(self, k: ArrayLike) -> Array:
        """g(k), see `durrleman`. Shape: any."""
        return durrleman(self, k)


class Cubic(NamedTuple):
    """A shape-preserving cubic through total variances (Fritsch and Butland 1984), straight in the wings.

    Shape: knots (n,), coefficients (4, n - 1), highest power first. n = 1: one level, coefficients (4, 0).
    A wing keeps the slope of its end while that points up and within Lee's bound, else it is flat.
    """

    knots: Array
    level: Array
    coefficients: Array

    def variance(self, k: ArrayLike) -> Array:
        """w(k). Shape: any."""
        return self._value(k, 0)

    def slope(self, k: ArrayLike) -> Array:
        """dw/dk. Shape: any."""
        return self._value(k, 1)

    def curvature(self, k: ArrayLike) -> Array:
        """d2w/dk2, not continuous at the knots. Shape: any."""
        return self._value(k, 2)

    def _value(self, k: ArrayLike, order: int) -> Array:
        x = np.asarray(k, np.float64)
        if len(self.knots) == 1:
            return np.asarray(np.where(np.isnan(x), np.nan, self.level[0] if order == 0 else 0.0))
        i = np.clip(np.searchsorted(self.knots, x, side="right") - 1, 0, len(self.knots) - 2)
        h = x - self.knots[i]
        c3, c2, c1, c0 = self.coefficients[:, i]
        inside = (((c3 * h + c2) * h + c1) * h + c0, (3.0 * c3 * h + 2.0 * c2) * h + c1, 6.0 * c3 * h + 2.0 * c2)[order]
        left, right = self._wings()
        low, high = self.knots[0], self.knots[-1]
        below = (self.level[0] + left * (x - low), left, 0.0)[order]
        above = (self.level[-1] + right * (x - high), right, 0.0)[order]
        return np.asarray(np.where(x < low, below, np.where(x > high, above, inside)))

    def _wings(self) -> tuple[float, float]:
        c3, c2, c1, _ = self.coefficients[:, -1]
        h = self.knots[-1] - self.knots[-2]
        right = (3.0 * c3 * h + 2.0 * c2) * h + c1
        return float(np.clip(self.coefficients[2, 0], -LEE, 0.0)), float(np.clip(right, 0.0, LEE))


class Ssvi(NamedTuple):
    """The SSVI of Gatheral and Jacquier (2014), equation 4.1, with the power law of their example 4.2 and remark 4.4.

    w(k, theta) = theta/2 (1 + rho phi k + sqrt((phi k + rho)^2 + 1 - rho^2)), phi = eta theta^-gamma (1 + theta)^(gamma-1);
    theta is the at-the-money total variance. Free of butterflies for all theta where eta^2 (1 + |rho|) <= 4 and
    0 < gamma <= 1/2 (their theorem 4.2), of calendar arbitrage where theta does not fall in tau (theorem 4.1).
    """

    rho: float
    eta: float
    gamma: float

    def phi(self, theta: ArrayLike) -> Array:
        """The curvature of a slice with this at-the-money variance. Shape: any, positive."""
        t = np.asarray(theta, np.float64)
        return np.asarray(self.eta * t**-self.gamma * (1.0 + t) ** (self.gamma - 1.0))

    def variance(self, k: ArrayLike, theta: ArrayLike) -> Array:
        """w(k, theta). Shape: both broadcast."""
        t, f = np.asarray(theta, np.float64), self.phi(theta)
        x = f * np.asarray(k, np.float64)
        return np.asarray(0.5 * t * (1.0 + self.rho * x + np.sqrt((x + self.rho) ** 2 + 1.0 - self.rho**2)))

    def slice(self, theta: float) -> Svi:
        """The same smile as a raw SVI (their equation 4.2 read against 3.1)."""
        return _natural(theta, self.rho, float(self.phi(theta)))

    @property
    def sound(self) -> bool:
        """True where theorem 4.2 excludes butterflies at every theta."""
        return abs(self.rho) < 1.0 and 0.0 < self.gamma <= 0.5 and self.eta**2 * (1.0 + abs(self.rho)) <= 4.0 + 1e-12


def durrleman(smile: Slice, k: ArrayLike) -> Array:
    """g(k) = (1 - k w'/(2w))^2 - w'^2/4 (1/w + 1/4) + w''/2; the risk-neutral density is a positive multiple of it.

    Gatheral and Jacquier (2014), equation 2.1, lemma 2.2: no butterfly arbitrage when g >= 0 (and w grows slower than 2|k|).
    Shape: any. -inf where w is not positive.
    """
    x = np.asarray(k, np.float64)
    return _g(x, smile.variance(x), smile.slope(x), smile.curvature(x))


def _g(k: Array, w: Array, w1: Array, w2: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        g = (1.0 - 0.5 * k * w1 / w) ** 2 - 0.25 * w1**2 * (1.0 / w + 0.25) + 0.5 * w2
    return np.asarray(np.where(w > 0.0, g, -np.inf))


# --------------------------------------------------------------------------- quotes of one expiry


class Smile(NamedTuple):
    """The quotes of one expiry that can be believed, as vols. Shape: k, vol, half (n,), k rising.

    `half` is half the spread in vol (price half spread over vega); `refused` counts the rows left out, by reason.
    """

    tau: Years
    forward: float
    k: Array
    vol: Array
    half: Array
    refused: dict[str, int]

    @property
    def variance(self) -> Array:
        """Total variance of the mids."""
        return np.asarray(self.vol**2 * self.tau)


def read_smile(
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    cp: ArrayLike,
    *,
    forward: float,
    tau: Years,
    discount: float = 1.0,
) -> Smile:
    """The vols of the mids of one expiry, the out-of-the-money contract of each strike or, where its quote fails, the other.

    Refused and counted: one_sided (no bid above 0, or no ask), crossed (bid > ask), not_finite (strike or cp), no_vol
    (the mid is at or below intrinsic, or above its bound), duplicate (the wider of two quotes of one strike).
    European prices: of American quotes only the out-of-the-money vols mean what they say.

    Shape: all (n,). Units: prices. Errors: ValueError where tau, forward or discount is not a positive number.
    """
    for name, value in (("tau", tau), ("forward", forward), ("discount", discount)):
        if not (np.isfinite(value) and value > 0.0):
            raise ValueError(f"read_smile: {name}: expected a positive number, found {value}")
    K, b, a, c = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, np.float64)) for x in (strike, bid, ask, cp)))
    with np.errstate(invalid="ignore"):
        known = np.isfinite(K) & (K > 0.0) & (np.abs(c) == 1.0)
        one_sided = known & ~((b > 0.0) & np.isfinite(b) & np.isfinite(a) & (a > 0.0))
        crossed = known & ~one_sided & (a < b)
    rows = np.flatnonzero(known & ~one_sided & ~crossed)
    mid = 0.5 * (b[rows] + a[rows])
    found = implied.vol(mid, forward, K[rows], tau, discount=discount, cp=c[rows])
    good = found.status == Status.OK
    vega = black76(forward, K[rows], tau, np.where(good, found.vol, 1.0), discount=discount).vega
    good &= vega > 0.0
    refused = {
        "not_finite": int((~known).sum()),
        "one_sided": int(one_sided.sum()),
        "crossed": int(crossed.sum()),
        "no_vol": int((~good).sum()),
    }
    rows, vol, vega = rows[good], found.vol[good], vega[good]
    half = 0.5 * (a[rows] - b[rows]) / vega
    k = np.log(K[rows] / forward)
    inside = c[rows] * k < 0.0
    order = np.lexsort((half, inside, k))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.diff(k[order]) > 0.0
    same_side = ~first & ~inside[order]
    refused["duplicate"] = int(same_side.sum())
    keep = order[first]
    return Smile(tau, forward, k[keep], vol[keep], half[keep], refused)


def smile_weight(smile: Smile) -> Array:
    """1 / half spread in vol, with a floor of a quarter of the median: a locked quote is not believed without bound.

    Shape: (n,).
    """
    floor = 0.25 * float(np.median(smile.half)) if len(smile.half) else 0.0
    return np.asarray(1.0 / np.maximum(smile.half, max(floor, 1e-6)))


# --------------------------------------------------------------------------- SVI


class SliceFit(NamedTuple):
    """How a slice fits its quotes, in vol: `rmse` over quotes that kept a vote, weighted by them; `worst` of those.

    `inside` the share of all quotes whose bid-ask vols contain the slice; `used` quotes with a vote of at least a half;
    `low` and `high` the log-moneynesses quoted; `kind` what the slice became (a smile with too few quotes is a cubic).
    """

    kind: Model
    low: float
    high: float
    quotes: int
    used: int
    rmse: Vol
    worst: Vol
    inside: float


def fit_svi(
    k: ArrayLike,
    variance: ArrayLike,
    *,
    weight: ArrayLike = 1.0,
    ceiling: Slice | None = None,
    span: tuple[float, float] | None = None,
    sound: bool = True,
) -> tuple[Svi, Array]:
    """The raw SVI nearest to total variances, and the vote each point kept (1 all, 0 none).

    For given (m, sigma) w is linear in a, u, v: w = a + u (z + y)/2 + v (z - y)/2, y = (k - m)/sigma, z = sqrt(y^2 + 1),
    u = b sigma (1 + rho), v = b sigma (1 - rho), where no-arbitrage bounds are a box (Zeliade 2009, "Quasi-explicit
    calibration of Gatheral's SVI model", section 3; here with Lee's bound 2 and with a < 0 while the least variance is
    not): solved exactly over a grid of (m, sigma) that zooms in, then polished in all five. Bad points lose their vote
    (Tukey's biweight). With `sound` a slice with butterflies (over the quotes and as far again, at least five deviations
    each way), or above `ceiling` (the next expiry's smile) on `span`, is refitted under penalties, and at last raised or
    shrunk until it has none.

    Shape: k, variance, weight (n,), n >= 5; weight is the inverse standard error of a variance. Errors: ValueError for
    fewer points, or any not finite or not positive.
    """
    x, w = np.asarray(k, np.float64), np.asarray(variance, np.float64)
    given = np.broadcast_to(np.asarray(weight, np.float64), x.shape)
    if x.ndim != 1 or x.shape != w.shape or len(np.unique(x)) < 5:
        raise ValueError(
            f"fit_svi: expected at least 5 log-moneynesses and as many variances, found {x.shape}, {w.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(w).all() and np.isfinite(given).all() and (w > 0.0).all()):
        raise ValueError("fit_svi: expected finite log-moneynesses and weights, and positive finite variances")
    svi, vote = _robust_svi(x, w, given)
    svi = _polish(svi, x, w, given * np.sqrt(vote), grid=None, ceiling=None, force=0.0)
    if not sound:
        return svi, vote
    low, high = span or (float(x.min()), float(x.max()))
    bounds = _reach(x, w)
    grid = np.union1d(_grid(min(low, bounds[0]), max(high, bounds[1])), np.linspace(low, high, 101))
    above = np.full(grid.shape, np.inf)
    if ceiling is not None:
        over = (grid >= low) & (grid <= high)
        above[over] = ceiling.variance(grid[over])
    other = _safe_start(svi, x, w, ceiling)
    return _make_sound((svi, other), x, w, given * np.sqrt(vote), grid, above), vote


def _reach(k: Array, w: Array) -> tuple[float, float]:
    """Where a slice is held sound: the quotes and as far again, at least five deviations each way."""
    pad = max(float(k[-1] - k[0]) if len(k) > 1 else 0.0, 5.0 * float(np.sqrt(np.median(w))))
    return min(float(k.min()), 0.0) - pad, max(float(k.max()), 0.0) + pad


def _grid(low: float, high: float) -> Array:
    """Log-moneynesses to hold a slice sound at: even over the span, and dense near the money."""
    even = np.linspace(low, high, 201)
    near = np.concatenate(
        [side * np.geomspace(1e-4, max(abs(edge), 1e-3), 60) for side, edge in ((-1, low), (1, high))]
    )
    return np.unique(np.concatenate([even, near, [0.0]]))


def _robust_svi(k: Array, w: Array, weight: Array) -> tuple[Svi, Array]:
    """The quasi-explicit fit, reweighted: first residuals count by their size, then outliers not at all."""
    vote = np.ones_like(k)
    svi = _quasi_explicit(k, w, weight)
    for step in range(8):
        scaled = weight * (svi.variance(k) - w)
        size = max(1.4826 * float(np.median(np.abs(scaled))), 0.25 if np.any(weight != 1.0) else 1e-12)
        new = 1.0 / np.maximum(np.abs(scaled) / size, 1.0) if step < 4 else tukey_weight(scaled * (0.25 / size))
        if step >= 4 and np.max(np.abs(new - vote)) < 0.01:
            break
        if np.sum(new > 0.1) < 5:
            break
        vote = new
        svi = _quasi_explicit(k, w, weight * np.sqrt(vote))
    return svi, np.asarray(vote)


def _quasi_explicit(k: Array, w: Array, weight: Array) -> Svi:
    """The best (m, sigma) of a grid, zoomed in on three times, with a, u, v exact at each."""
    reach = max(float(k.max() - k.min()), 1e-6)
    ms = np.linspace(k.min() - 0.25 * reach, k.max() + 0.25 * reach, 13)
    logs = np.linspace(np.log(0.005 * reach), np.log(3.0 * reach), 11)
    best: tuple[float, Svi] | None = None
    for _ in range(4):
        M, L = (values.ravel() for values in np.meshgrid(ms, logs))
        cost, linear = _linear_part(k, w, weight, M, np.exp(L))
        i = int(np.argmin(cost))
        if best is None or cost[i] < best[0]:
            a, u, v = (float(value) for value in linear[i])
            best = float(cost[i]), _svi(a, u, v, m=float(M[i]), sigma=float(np.exp(L[i])))
        dm, dl = (ms[1] - ms[0]) * 0.9, (logs[1] - logs[0]) * 0.9
        ms, logs = np.linspace(M[i] - dm, M[i] + dm, 7), np.linspace(L[i] - dl, L[i] + dl, 7)
    assert best is not None
    return best[1]


def _svi(a: float, u: float, v: float, *, m: float, sigma: float) -> Svi:
    c = 0.5 * (u + v)
    return Svi(a=a, b=c / sigma, rho=0.5 * (u - v) / c if c > 0.0 else 0.0, m=m, sigma=sigma)


def _linear_part(k: Array, w: Array, weight: Array, m: Array, sigma: Array) -> tuple[Array, Array]:
    """Least cost and its (a, u, v) for each (m, sigma), the box kept. Shape: (g,), (g, 3)."""
    y = (k - m[:, None]) / sigma[:, None]
    z = np.sqrt(y * y + 1.0)
    basis = weight * np.stack([np.ones_like(y), 0.5 * (z + y), 0.5 * (z - y)], axis=1)
    target = weight * w
    A = basis @ basis.transpose(0, 2, 1)
    A += 1e-13 * np.trace(A, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    rhs = basis @ target
    top = LEE * sigma
    level = float(w.max())
    cost, found = np.full(len(m), np.inf), np.zeros((len(m), 3))
    found[:, 0] = level
    square = float(target @ target)
    for pins in product((None, 0, 1), repeat=3):
        x = np.zeros((len(m), 3))
        for axis, pin in enumerate(pins):
            if pin == 1:
                x[:, axis] = level if axis == 0 else top
        free = [axis for axis, pin in enumerate(pins) if pin is None]
        if free:
            rest = rhs[:, free] - np.einsum("gij,gj->gi", A[:, free, :], x)
            x[:, free] = np.linalg.solve(A[np.ix_(range(len(m)), free, free)], rest[..., None])[..., 0]
        slack = 1e-12 * top
        with np.errstate(invalid="ignore"):
            boxed = (x[:, 1] >= -slack) & (x[:, 2] >= -slack) & (x[:, 1] <= top + slack) & (x[:, 2] <= top + slack)
            x[:, 1:] = np.clip(x[:, 1:], 0.0, top[:, None])
            boxed &= (x[:, 0] <= level) & (x[:, 0] + np.sqrt(x[:, 1] * x[:, 2]) >= 0.0)
        value = np.einsum("gi,gij,gj->g", x, A, x) - 2.0 * np.einsum("gi,gi->g", x, rhs) + square
        better = boxed & (value < cost)
        cost[better], found[better] = value[better], x[better]
    return cost, found


def _polish(
    start: Svi, k: Array, w: Array, weight: Array, *, grid: Array | None, ceiling: Array | None, force: float
) -> Svi:
    """The nearby optimum in all five parameters; with a grid, butterflies and what exceeds the ceiling are penalised."""
    from scipy.optimize import least_squares  # noqa: PLC0415  a fit needs it, a quoted surface does not

    scale = float(np.median(w))

    def made(p: Array) -> Svi:
        right, left = p[1], p[2]
        b = right + left
        return Svi(
            float(p[0]), float(b), float((right - left) / b) if b > 0.0 else 0.0, float(p[3]), float(np.exp(p[4]))
        )

    def misfit(p: Array) -> Array:
        svi = made(p)
        parts = [weight * (svi.variance(k) - w)]
        if grid is not None:
            level = svi.variance(grid)
            g = _g(grid, np.maximum(level, 1e-3 * scale), svi.slope(grid), svi.curvature(grid))
            parts.append(force * np.minimum(g - G_MARGIN, 0.0))
            parts.append(force * np.minimum(level / scale - 1e-3, 0.0))
            if ceiling is not None:
                parts.append(force * np.maximum(level / ceiling - (1.0 - 1.5e-3), 0.0))
        return np.concatenate(parts)

    b, rho = start.b, start.rho
    p0 = np.array([start.a, 0.5 * b * (1.0 + rho), 0.5 * b * (1.0 - rho), start.m, np.log(start.sigma)])
    wide = max(float(k.max() - k.min()), 1e-6)
    low = np.array([-np.inf, 0.0, 0.0, k.min() - 2.0 * wide, np.log(1e-4 * wide)])
    high = np.array([np.inf, 0.5 * LEE, 0.5 * LEE, k.max() + 2.0 * wide, np.log(20.0 * wide)])
    p0 = np.clip(p0, low + 1e-12, high - 1e-12)
    steps = np.array([scale, 0.1 * b + 1e-6, 0.1 * b + 1e-6, 0.1 * wide, 0.3])
    before = float(np.sum(misfit(p0) ** 2))
    if not np.isfinite(before):
        return start
    done = least_squares(
        misfit, p0, bounds=(low, high), x_scale=steps, xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=120
    )
    svi = made(done.x)
    dips = svi.a + svi.b * svi.sigma * np.sqrt(max(1.0 - svi.rho**2, 0.0)) < 0.0
    return start if 2.0 * done.cost > before or (dips and grid is None) else svi


def _make_sound(starts: tuple[Svi, Svi], k: Array, w: Array, weight: Array, grid: Array, above: Array) -> Svi:
    """The free fit itself when sound, else the best found that is: by penalties, and by its level or scale at last.

    The free fit may lie far from anything sound (its wing rises out of the last quote); the second start never does.
    """
    if _is_sound(starts[0], grid, above):
        return starts[0]
    strength = float(np.sqrt(np.mean(np.square(weight * w))))
    found = [_shrink_below(_raise_until_sound(starts[1], grid), grid, above)]
    for svi in starts:
        for force in (1.0, 10.0, 100.0):
            svi = _polish(svi, k, w, weight, grid=grid[::2], ceiling=above[::2], force=force * strength)  # noqa: PLW2901  each pushes the last one on
            if _is_sound(svi, grid, above):
                break
        found.append(_shrink_below(_raise_until_sound(svi, grid), grid, above))
    return min(found, key=lambda svi: float(np.sum(np.square(weight * (svi.variance(k) - w)))))


def _safe_start(svi: Svi, k: Array, w: Array, ceiling: Slice | None) -> Svi:
    """The next expiry's smile brought down to the level of the quotes, or a plain SSVI slice of that level."""
    level = float(np.median(w[np.argsort(np.abs(k))[:3]]))
    if isinstance(ceiling, Svi):
        factor = level / float(ceiling.variance(0.0))
        return ceiling._replace(a=ceiling.a * factor, b=ceiling.b * factor)
    return _natural(level, -0.3 if svi.rho <= 0.0 else 0.3, min(1.0 / np.sqrt(level), 2.0 / level))


def _is_sound(svi: Svi, grid: Array, above: Array) -> bool:
    level = svi.variance(grid)
    g = _g(grid, level, svi.slope(grid), svi.curvature(grid))
    return bool(g.min() >= 0.1 * G_MARGIN and (level <= above * (1.0 - 1e-3)).all())


def _raise_until_sound(svi: Svi, grid: Array) -> Svi:
    """The slice with just so much more variance that g >= 0: as w grows, g tends to 1 - w'^2/16 + w''/2 > 0."""
    step = max(1e-4 * float(np.abs(svi.variance(0.0))), 1e-12)
    raised = svi
    for _ in range(80):
        if _is_sound(raised, grid, np.full(grid.shape, np.inf)):
            return raised
        raised = svi._replace(a=svi.a + step)
        step *= 1.5
    return raised


def _shrink_below(svi: Svi, grid: Array, above: Array) -> Svi:
    """The slice times the factor that brings it below the next expiry's; a factor below 1 makes no butterfly.

    g of c w is A - c B - c^2 w'^2/16 with A >= 0: concave in c, not negative at 0 and at 1, so not between.
    """
    factor = min(float(np.min(above / svi.variance(grid))) * (1.0 - 1.2e-3), 1.0)
    return svi._replace(a=svi.a * factor, b=svi.b * factor)


def _natural(theta: float, rho: float, phi: float) -> Svi:
    """The raw form of theta/2 (1 + rho phi k + sqrt((phi k + rho)^2 + 1 - rho^2))."""
    flat = 1.0 - rho**2
    return Svi(a=0.5 * theta * flat, b=0.5 * theta * phi, rho=rho, m=-rho / phi, sigma=float(np.sqrt(flat)) / phi)


# --------------------------------------------------------------------------- cubic


def fit_cubic(k: ArrayLike, variance: ArrayLike, *, ceiling: Slice | None = None) -> Cubic:
    """The shape-preserving cubic through every point; points above `ceiling` are lowered to it.

    It promises nothing about butterflies: `check` says. Shape: (n,), (n,), n >= 1, k distinct.
    Errors: ValueError for no point, repeated k, or a variance that is not positive.
    """
    x, w = np.atleast_1d(np.asarray(k, np.float64)), np.atleast_1d(np.asarray(variance, np.float64))
    order = np.argsort(x)
    x, w = x[order], w[order]
    if (
        not len(x)
        or x.shape != w.shape
        or not (np.diff(x) > 0.0).all()
        or not (np.isfinite(x) & np.isfinite(w) & (w > 0.0)).all()
    ):
        raise ValueError(f"fit_cubic: expected distinct k with positive variances, found {x.tolist()} and {w.tolist()}")
    if ceiling is not None:
        w = np.minimum(w, ceiling.variance(x))
    if len(x) == 1:
        return Cubic(x, w, np.empty((4, 0)))
    from scipy.interpolate import PchipInterpolator  # noqa: PLC0415  a fit needs it, a quoted surface does not

    return Cubic(x, w, np.asarray(PchipInterpolator(x, w).c))


# --------------------------------------------------------------------------- SSVI


def fit_ssvi(smiles: Sequence[Smile]) -> tuple[Ssvi, Array]:
    """The SSVI nearest to all smiles, and theta of each, never falling; free of arbitrage by construction.

    Least squares of vols in units of their half spread with a soft-L1 loss at three half spreads. Smiles in order of tau.
    Shape: theta (n smiles,). Errors: ValueError for smiles without quotes, or out of order.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415  a fit needs it, a quoted surface does not

    if not smiles or any(not len(smile.k) for smile in smiles):
        raise ValueError("fit_ssvi: expected at least one smile, each with a quote")
    if any(b.tau <= a.tau for a, b in pairwise(smiles)):
        raise ValueError("fit_ssvi: expected smiles in order of tau")
    k, vol = np.concatenate([s.k for s in smiles]), np.concatenate([s.vol for s in smiles])
    weight = np.concatenate([smile_weight(s) / np.sqrt(len(s.k)) for s in smiles])
    at = np.repeat(np.arange(len(smiles)), [len(s.k) for s in smiles])
    tau = np.array([s.tau for s in smiles])[at]
    guess = np.maximum.accumulate([_at_the_money(s) ** 2 * s.tau for s in smiles])
    steps = np.maximum(np.diff(guess, prepend=0.0), 2e-3 * guess[0])
    floor = np.log(1e-3 * guess[0])

    def unpack(p: Array) -> tuple[Ssvi, Array]:
        rho = float(p[0])
        return Ssvi(rho, float(p[1]) * 2.0 / np.sqrt(1.0 + abs(rho)), float(p[2])), np.cumsum(np.exp(p[3:]))

    def misfit(p: Array) -> Array:
        ssvi, theta = unpack(p)
        w = np.maximum(ssvi.variance(k, theta[at]), 1e-300)
        return np.asarray(weight * (np.sqrt(w / tau) - vol))

    def jacobian(p: Array) -> Array:
        ssvi, theta = unpack(p)
        t, rho, phi = theta[at], ssvi.rho, ssvi.phi(theta)[at]
        x = phi * k
        R = np.sqrt((x + rho) ** 2 + 1.0 - rho**2)
        w = np.maximum(0.5 * t * (1.0 + rho * x + R), 1e-300)
        by_phi = 0.5 * t * k * (rho + (x + rho) / R)
        by_eta = by_phi * phi / ssvi.eta
        by_rho = 0.5 * t * x * (1.0 + 1.0 / R) - by_eta * ssvi.eta * np.sign(rho) * 0.5 / (1.0 + abs(rho))
        by_gamma = by_phi * phi * (np.log1p(t) - np.log(t))
        by_theta = 0.5 * (1.0 + rho * x + R) - by_phi * phi * (ssvi.gamma / t + (1.0 - ssvi.gamma) / (1.0 + t))
        columns = np.empty((len(k), len(p)))
        columns[:, 0], columns[:, 1], columns[:, 2] = by_rho, by_eta * 2.0 / np.sqrt(1.0 + abs(rho)), by_gamma
        columns[:, 3:] = np.where(at[:, None] >= np.arange(len(theta)), by_theta[:, None] * np.exp(p[3:]), 0.0)
        return np.asarray(columns * (weight * 0.5 / np.sqrt(w * tau))[:, None])

    low = np.array([-0.999, 1e-4, 1e-3, *np.full(len(steps), floor)])
    high = np.array([0.999, 1.0, 0.5, *np.full(len(steps), np.log(guess[-1]) + 5.0)])
    side = 1.0 if np.sum((k - k.mean()) * (vol - vol.mean())) > 0.0 else -1.0
    p0 = np.array([0.5 * side, 0.4, 0.4, *np.log(steps)])
    scale = 3.0 / np.sqrt(len(k) / len(smiles))
    best = least_squares(
        misfit, p0, jacobian, bounds=(low, high), x_scale="jac", loss="soft_l1", f_scale=scale, ftol=1e-7, max_nfev=100
    )
    ssvi, theta = unpack(best.x)
    return ssvi, np.asarray(theta)


def _at_the_money(smile: Smile) -> Vol:
    """A first guess of the vol at k = 0: the median of the three nearest quotes."""
    return float(np.median(smile.vol[np.argsort(np.abs(smile.k))[:3]]))


# --------------------------------------------------------------------------- the surface


class Surface:
    """Vols for every strike and maturity. Read-only; made by `fit` or from slices at hand.

    Before the first expiry w shrinks in proportion to tau: the first smile's vols at equal k, which makes no butterfly (see
    `_shrink_below`). After the last it grows by the last at-the-money variance a year at every k. The forward is
    log-linear between expiries. Between them w is linear, which keeps the calendar; `check` looks for butterflies there.
    """

    def __init__(
        self,
        tau: ArrayLike,
        forward: ArrayLike,
        slices: Sequence[Slice],
        *,
        spot: float | None = None,
        ssvi: tuple[Ssvi, Array] | None = None,
        fits: Sequence[SliceFit] = (),
    ) -> None:
        self.tau = np.asarray(tau, np.float64)
        self.forwards = np.asarray(forward, np.float64)
        self.slices = tuple(slices)
        self.spot = spot
        self.ssvi = ssvi
        self.fits = tuple(fits)
        n = len(self.slices)
        if not n or self.tau.shape != (n,) or self.forwards.shape != (n,):
            raise ValueError(f"Surface: expected a tau and a forward per slice, found {self.tau}, {self.forwards}, {n}")
        if not ((self.tau[0] > 0.0) and (np.diff(self.tau) > 0.0).all() and np.isfinite(self.tau).all()):
            raise ValueError(f"Surface: tau: expected rising positive maturities, found {self.tau.tolist()}")
        if not (np.isfinite(self.forwards) & (self.forwards > 0.0)).all():
            raise ValueError(f"Surface: forward: expected positive numbers, found {self.forwards.tolist()}")

    def forward(self, tau: ArrayLike) -> Array:
        """F(tau), log-linear between expiries (and from the spot, where one was given), its end rates carried on.

        Shape: any. NaN for a negative tau.
        """
        T = np.asarray(tau, np.float64)
        nodes, logs = self.tau, np.log(self.forwards)
        if self.spot is not None:
            nodes, logs = np.concatenate([[0.0], nodes]), np.concatenate([[np.log(self.spot)], logs])
        if len(nodes) == 1:
            return np.asarray(np.where(T >= 0.0, self.forwards[0], np.nan))
        i = np.clip(np.searchsorted(nodes, T, side="right") - 1, 0, len(nodes) - 2)
        rate = (logs[i + 1] - logs[i]) / (nodes[i + 1] - nodes[i])
        return np.asarray(np.where(T >= 0.0, np.exp(logs[i] + rate * (T - nodes[i])), np.nan))

    def variance(self, k: ArrayLike, tau: ArrayLike) -> Array:
        """w(k, tau). Shape: both broadcast. NaN where tau <= 0."""
        return self._terms(k, tau)[0]

    def vol(self, strike: ArrayLike, tau: ArrayLike) -> Array:
        """The vol of a strike at a maturity. Shape: both broadcast. NaN where tau <= 0 or the strike is not positive."""
        K, T = np.broadcast_arrays(np.asarray(strike, np.float64), np.asarray(tau, np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            k = np.where(K > 0.0, np.log(K / self.forward(T)), np.nan)
            return np.asarray(np.sqrt(self.variance(k, T) / T))

    def atm(self, tau: ArrayLike) -> Array:
        """The vol at the forward. Shape: any."""
        return self.vol(self.forward(tau), tau)

    def skew(self, tau: ArrayLike, *, k: ArrayLike = 0.0) -> Array:
        """d vol / dk at log-moneyness k, by default at the forward: vol points per 100% of strike. Shape: both broadcast.

        dsigma/dk = w' / (2 sqrt(w tau)).
        """
        w, w1, _, T = self._terms(k, tau)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(0.5 * w1 / np.sqrt(w * T))

    def slope(self, strike: ArrayLike, tau: ArrayLike) -> Array:
        """d vol / d strike, the input of a smile-aware delta. Shape: both broadcast."""
        K, T = np.broadcast_arrays(np.asarray(strike, np.float64), np.asarray(tau, np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.skew(T, k=np.log(K / self.forward(T))) / K)

    def durrleman(self, k: ArrayLike, tau: ArrayLike) -> Array:
        """g(k) of the smile at any maturity, see `durrleman`. Shape: both broadcast."""
        w, w1, w2, _ = self._terms(k, tau)
        x = np.broadcast_to(np.asarray(k, np.float64), w.shape)
        return np.asarray(np.where(np.isnan(w), np.nan, _g(x, w, w1, w2)))

    def _terms(self, k: ArrayLike, tau: ArrayLike) -> tuple[Array, Array, Array, Array]:
        """w, w', w'' and tau, broadcast."""
        x, T = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(tau, np.float64))
        out = np.full((3, x.size), np.nan)
        flat_x, flat_T = x.ravel(), T.ravel()
        alive = flat_T > 0.0
        if self.ssvi is not None:
            self._ssvi_terms(flat_x, flat_T, alive, out)
        else:
            last = len(self.tau)
            place = np.searchsorted(self.tau, flat_T, side="left")
            for i in np.unique(place[alive]):
                rows = alive & (place == i)
                out[:, rows] = self._between(int(i), last, flat_x[rows], flat_T[rows])
        w, w1, w2 = (column.reshape(x.shape) for column in out)
        return w, w1, w2, np.asarray(T)

    def _between(self, i: int, last: int, k: Array, T: Array) -> Array:
        """Rows of w, w', w'' where expiry i is the first not before T."""
        if i == last:
            rows = _derivatives(self.slices[-1], k)
            yearly = float(self.slices[-1].variance(0.0)) / self.tau[-1]
            rows[0] += yearly * (T - self.tau[-1])
            return rows
        if i == 0:
            return np.asarray(_derivatives(self.slices[0], k) * (T / self.tau[0]))
        share = (T - self.tau[i - 1]) / (self.tau[i] - self.tau[i - 1])
        return np.asarray((1.0 - share) * _derivatives(self.slices[i - 1], k) + share * _derivatives(self.slices[i], k))

    def _ssvi_terms(self, k: Array, T: Array, alive: NDArray[np.bool_], out: Array) -> None:
        assert self.ssvi is not None
        ssvi, theta = self.ssvi
        nodes, heights = np.concatenate([[0.0], self.tau]), np.concatenate([[0.0], theta])
        t = np.interp(T, nodes, heights) + np.maximum(T - nodes[-1], 0.0) * heights[-1] / nodes[-1]
        t = np.where(alive, t, 1.0)
        phi, rho = ssvi.phi(t), ssvi.rho
        x = phi * k + rho
        R = np.sqrt(x * x + 1.0 - rho**2)
        rows = np.stack(
            [
                0.5 * t * (1.0 + rho * phi * k + R),
                0.5 * t * phi * (rho + x / R),
                0.5 * t * phi**2 * (1.0 - rho**2) / R**3,
            ]
        )
        out[:, alive] = rows[:, alive]


def _derivatives(smile: Slice, k: Array) -> Array:
    return np.stack([smile.variance(k), smile.slope(k), smile.curvature(k)])


def fit(smiles: Sequence[Smile], *, model: Model = "svi", spot: float | None = None, sound: bool = True) -> Surface:
    """The surface of a chain: one slice per smile ("svi", "cubic") or one SSVI for all.

    Vols are weighed by 1/half spread; quotes that disagree with their neighbours lose their vote. Smiles without quotes are
    left out; with fewer than `FEWEST_FOR_SVI` they become cubics (their `SliceFit.kind` says so). With `sound`
    each SVI slice is held free of butterflies, and below the next one wherever that one is quoted: from the last expiry,
    whose quotes reach far, to the first, whose wings are mostly extrapolated.
    Errors: ValueError when no smile has a quote, two share a maturity, or `model` is unknown.
    """
    kept = sorted((smile for smile in smiles if len(smile.k)), key=lambda smile: smile.tau)
    if not kept:
        raise ValueError("fit: expected at least one smile with a quote, found none")
    if model not in {"svi", "ssvi", "cubic"}:
        raise ValueError(f"fit: model: expected svi, ssvi or cubic, found {model!r}")
    tau, forward = [s.tau for s in kept], [s.forward for s in kept]
    if model == "ssvi":
        parameters, theta = fit_ssvi(kept)
        slices: list[Slice] = [parameters.slice(float(t)) for t in theta]
        fits = [_score(s, smile, "ssvi", None) for s, smile in zip(slices, kept, strict=True)]
        return Surface(tau, forward, slices, spot=spot, ssvi=(parameters, theta), fits=fits)
    ceiling: Slice | None = None
    slices, fits = [], []
    span = (0.0, 0.0)
    for smile in reversed(kept):
        made, score = _fit_slice(smile, model, ceiling=ceiling, span=span, sound=sound)
        slices.append(made)
        fits.append(score)
        ceiling = made if sound else None
        span = float(smile.k[0]), float(smile.k[-1])
    return Surface(tau, forward, slices[::-1], spot=spot, fits=fits[::-1])


def _fit_slice(
    smile: Smile, model: Model, *, ceiling: Slice | None, span: tuple[float, float], sound: bool
) -> tuple[Slice, SliceFit]:
    if model == "cubic" or len(smile.k) < FEWEST_FOR_SVI:
        cubic = fit_cubic(smile.k, smile.variance, ceiling=ceiling)
        return cubic, _score(cubic, smile, "cubic", None)
    weight = smile_weight(smile) * 0.5 / (smile.vol * smile.tau)
    svi, vote = fit_svi(smile.k, smile.variance, weight=weight, ceiling=ceiling, span=span, sound=sound)
    return svi, _score(svi, smile, "svi", vote)


def _score(made: Slice, smile: Smile, kind: Model, vote: Array | None) -> SliceFit:
    vote = np.ones_like(smile.k) if vote is None else vote
    vol = np.sqrt(np.maximum(made.variance(smile.k), 0.0) / smile.tau)
    miss = np.abs(vol - smile.vol)
    weight = vote * np.square(smile_weight(smile))
    believed = vote >= 0.5
    return SliceFit(
        kind=kind,
        low=float(smile.k[0]),
        high=float(smile.k[-1]),
        quotes=len(smile.k),
        used=int(believed.sum()),
        rmse=float(np.sqrt(np.sum(weight * miss**2) / np.sum(weight))),
        worst=float(miss[believed].max()) if believed.any() else float("nan"),
        inside=float(np.mean(miss <= smile.half * (1.0 + 1e-9) + 1e-12)),
    )


class Arbitrage(NamedTuple):
    """The worst found on a grid: `butterfly` the least g and where (k, tau), `calendar` the least rise of w and where."""

    butterfly: float
    butterfly_at: tuple[float, Years]
    calendar: float
    calendar_at: tuple[float, Years]

    @property
    def ok(self) -> bool:
        """True when neither is below 0 by more than rounding."""
        return self.butterfly >= -G_TOLERANCE and self.calendar >= -G_TOLERANCE


def check(surface: Surface, k: ArrayLike | None = None, *, between: int = 1) -> Arbitrage:
    """Butterfly and calendar arbitrage at each expiry and at `between` maturities inside each gap.

    A surface is free of static arbitrage when g >= 0 in every smile and w does not fall in tau at equal k (Gatheral and
    Jacquier 2014, definition 2.1, lemmas 2.1 and 2.2). At log-moneynesses k everywhere; without k where quotes were: in
    each gap over the range quoted at its later expiry (after the last expiry, over its range).
    Shape: k (n,). Errors: ValueError without k for a surface that was not fitted to quotes.
    """
    if k is None and not surface.fits:
        raise ValueError("check: expected log-moneynesses, since the surface names no quotes")
    given = None if k is None else np.atleast_1d(np.asarray(k, np.float64))
    nodes = [0.0, *(float(t) for t in surface.tau), 2.0 * float(surface.tau[-1])]
    worst_g = worst_rise = (np.inf, (np.nan, np.nan))
    for i, (start, end) in enumerate(pairwise(nodes)):
        x = _quoted(surface, i) if given is None else given
        T = np.linspace(start, end, between + 2)
        w = surface.variance(x[None, :], T[:, None])
        if start == 0.0:
            w[0] = 0.0
        worst_rise = min(worst_rise, _worst(np.diff(w, axis=0), x, T[1:]))
        worst_g = min(worst_g, _worst(surface.durrleman(x[None, :], T[1:, None]), x, T[1:]))
    return Arbitrage(*worst_g, *worst_rise)


def _quoted(surface: Surface, gap: int) -> Array:
    """Log-moneynesses over what is quoted at the later expiry of a gap, dense near the money."""
    side = surface.fits[min(gap, len(surface.fits) - 1)]
    grid = _grid(min(side.low, -1e-3), max(side.high, 1e-3))
    return np.unique(np.concatenate([grid[(grid > side.low) & (grid < side.high)], [side.low, side.high]]))


def _worst(values: Array, k: Array, T: Array) -> tuple[float, tuple[float, float]]:
    i, j = np.unravel_index(int(np.argmin(np.where(np.isnan(values), -np.inf, values))), values.shape)
    return float(values[i, j]), (float(k[j]), float(T[i]))
