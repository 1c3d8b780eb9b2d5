"""A Heston price is a cosine sum over its characteristic function; law: its range is proven wide enough.

dS/S = (r - q) dt + sqrt(v) dW, dv = reversion (mean_variance - v) dt + vol_of_vol sqrt(v) dZ, corr = correlation (Heston
1993); with jumps of intensity lambda and normal log sizes it is Bates's model (1996). Sources: the cosine sum, Fang and
Oosterlee 2008, "A novel pricing method for European options based on Fourier-cosine series expansions"; the
characteristic function without branch cuts, Albrecher, Mayer, Schoutens and Tistaert 2007, "The little Heston trap".

>>> model = Heston(variance=0.0175, reversion=1.5768, mean_variance=0.0398, vol_of_vol=0.5751, correlation=-0.5711)
>>> float(price(100.0, 100.0, 1.0, model).round(6))  # Fang and Oosterlee 2008 print 5.785155450
5.785155
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import Years
from bot.pricing import implied
from bot.pricing.black import Array

Complex = NDArray[np.complex128]

OUTSIDE: Final = 1e-12
"""The probability left outside the range on either side, at most (Chernoff's bound)."""
SMALL: Final = 1e-12
"""The cosine sum stops where the characteristic function has fallen to this."""
MOST_TERMS: Final = 1 << 17
"""Terms beyond this are refused: the density is too close to a spike to be a sum of cosines."""
CHUNK: Final = 1 << 20
"""Numbers in one block of the strike x term table."""


class Heston(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of Heston's model and, with an intensity, of Bates's. Law: finite, no variance below 0, |rho| <= 1.

    Units: variances per year, reversion and intensity per year, vol_of_vol per year, jumps in log price.
    Feller's condition 2 reversion mean_variance >= vol_of_vol^2 is not required.
    """

    variance: float
    reversion: float
    mean_variance: float
    vol_of_vol: float
    correlation: float
    intensity: float = 0.0
    jump_mean: float = 0.0
    jump_std: float = 0.0

    def __post_init__(self) -> None:
        values = msgspec.structs.asdict(self)
        for name, value in values.items():
            if not np.isfinite(value):
                raise ValueError(f"Heston: {name}: expected a finite number, found {value}")
        for name in ("variance", "reversion", "mean_variance", "vol_of_vol", "intensity", "jump_std"):
            if values[name] < 0.0:
                raise ValueError(f"Heston: {name}: expected a number that is not negative, found {values[name]}")
        if abs(self.correlation) > 1.0:
            raise ValueError(f"Heston: correlation: expected -1 to 1, found {self.correlation}")

    @property
    def feller(self) -> bool:
        """True when the variance never reaches 0."""
        return 2.0 * self.reversion * self.mean_variance >= self.vol_of_vol**2


@np.errstate(all="ignore")
def log_cf(u: ArrayLike, tau: Years, model: Heston) -> Complex:
    """ln E e^(i u X), X = ln(S_T / F), for complex u: Heston's exponent in the little-trap form, plus the jumps.

    beta = kappa - rho nu i u, d = sqrt(beta^2 + nu^2 (u^2 + i u)), g = (beta - d)/(beta + d),
    C = kappa theta/nu^2 ((beta - d) tau - 2 ln((1 - g e^(-d tau))/(1 - g))),
    D = (beta - d)/nu^2 (1 - e^(-d tau))/(1 - g e^(-d tau)),
    ln phi = C + D v (Albrecher et al. 2007, phi_2) + lambda tau (e^(i u m - s^2 u^2/2) - 1 - i u (e^(m + s^2/2) - 1)).
    (beta - d)/nu^2 is taken as -(u^2 + i u)/(beta + d): small nu loses no digits; nu = 0 is its limit.

    Shape: any.
    """
    U = np.asarray(u, np.complex128)
    v, k, m, n, r = model.variance, model.reversion, model.mean_variance, model.vol_of_vol, model.correlation
    iu = 1j * U
    q = U * U + iu
    if n == 0.0:
        decay = tau if k == 0.0 else -np.expm1(-k * tau) / k
        return _with_jumps(-0.5 * q * (m * (tau - decay) + v * decay), U, tau, model)
    beta = k - r * n * iu
    d = np.sqrt(beta * beta + n * n * q)
    down = -q / (beta + d)  # (beta - d) / nu^2
    g = down * n * n / (beta + d)
    fall = np.exp(-d * tau)
    D = down * (1.0 - fall) / (1.0 - g * fall)
    # ln((1 - g e)/(1 - g)) = ln(1 + g (1 - e)/(1 - g)), whose smallness for small nu divides out with nu^2
    growth = g * (1.0 - fall) / (1.0 - g)
    C = k * m * (down * tau - 2.0 * _log1p(growth) / (n * n))
    return _with_jumps(C + D * v, U, tau, model)


def _with_jumps(exponent: Complex, U: Complex, tau: Years, model: Heston) -> Complex:
    if not model.intensity:
        return np.asarray(exponent)
    iu, m, s = 1j * U, model.jump_mean, model.jump_std
    jump = np.exp(iu * m - 0.5 * s * s * U * U) - 1.0 - iu * np.expm1(m + 0.5 * s * s)
    return np.asarray(exponent + model.intensity * tau * jump)


def _log1p(z: Complex) -> Complex:
    """ln(1 + z), with the digits of a small z."""
    small = np.abs(z) < 1e-4
    series = z * (1.0 - z * (0.5 - z * (1.0 / 3.0 - 0.25 * z)))
    return np.asarray(np.where(small, series, np.log(1.0 + np.where(small, 0.0, z))))


@np.errstate(all="ignore")
def price(
    forward: float,
    strike: ArrayLike,
    tau: Years,
    model: Heston,
    *,
    discount: float = 1.0,
    cp: ArrayLike = 1,
) -> Array:
    """European prices by the cosine sum, all strikes of one expiry from one set of coefficients.

    P = D sum' A_j V_j(K), A_j = 2/(b - a) Re(phi(u_j) e^(-i u_j a)), u_j = j pi/(b - a), V_j the cosine coefficients of
    (K - F e^x)+ (Fang and Oosterlee 2008, section 3); calls by parity, C = P + D (F - K).
    [a, b] leaves at most 1e-12 of probability outside on either side, by Chernoff's bound from the moments that exist
    (Andersen and Piterbarg 2007); terms go on until |phi| is below 1e-12. Against quadrature: 1e-7 of the forward or better.

    Shape: strike and cp broadcast. Units: of the forward. NaN for a strike that is negative, unknown or infinite, or a cp
    that is neither +1 nor -1. Errors: ValueError for a forward, tau or discount that is not positive, or a law so narrow
    against its tails that `MOST_TERMS` cosines do not hold it.
    """
    _expect_positive(forward=forward, tau=tau, discount=discount)
    K, c = np.broadcast_arrays(np.asarray(strike, np.float64), np.asarray(cp, np.float64))
    spread = _total_variance(tau, model)
    if spread <= 0.0:
        put = np.maximum(K - forward, 0.0)
    else:
        a, b = truncation(tau, model)
        u = _frequencies(tau, model, a, b)
        weight = 2.0 / (b - a) * np.real(np.exp(log_cf(u, tau, model) - 1j * u * a))
        weight[0] *= 0.5
        if not np.isfinite(weight).all():
            raise ValueError(f"heston: expected a law within the range of numbers, found {model}")
        put = _put_sums(K.ravel(), forward, weight, u, a, b).reshape(K.shape)
    put = np.maximum(put, np.maximum(K - forward, 0.0))
    value = discount * np.where(c > 0.0, np.maximum(put + (forward - K), 0.0), put)
    return np.asarray(np.where((K >= 0.0) & (np.inf > K) & (np.abs(c) == 1.0), value, np.nan))


def vol(forward: float, strike: ArrayLike, tau: Years, model: Heston) -> Array:
    """The Black vol of the model's out-of-the-money prices. NaN where the price has no digits left. Shape: any."""
    K = np.asarray(strike, np.float64)
    cp = np.where(forward <= K, 1, -1)
    return implied.vol(price(forward, K, tau, model, cp=cp), forward, K, tau, cp=cp).vol


def price_by_quadrature(
    forward: float, strike: float, tau: Years, model: Heston, *, discount: float = 1.0, cp: int = 1
) -> float:
    """The same price by one adaptive integral, slow and independent of the cosine sum: the twin of `price`.

    C = D (F - sqrt(F K)/pi Int_0^inf Re(e^(i u ln(F/K)) phi(u - i/2)) / (u^2 + 1/4) du) (Lewis 2000, "Option Valuation
    under Stochastic Volatility", chapter 2).
    """
    from scipy.integrate import quad  # noqa: PLC0415  the slow twin alone needs it

    _expect_positive(forward=forward, tau=tau, discount=discount)
    x = float(np.log(forward / strike))

    def part(u: float) -> float:
        return float(np.real(np.exp(1j * u * x + log_cf(u - 0.5j, tau, model)))) / (u * u + 0.25)

    step = 8.0 / np.sqrt(_total_variance(tau, model))
    total = low = 0.0
    for _ in range(4000):
        piece = quad(part, low, low + step, epsabs=1e-12, epsrel=1e-10, limit=400)[0]
        total, low = total + piece, low + step
        if float(np.real(log_cf(low - 0.5j, tau, model))) < -36.0:
            break
    call = forward - float(np.sqrt(forward * strike)) / np.pi * total
    return discount * (call if cp > 0 else call - forward + strike)


def truncation(tau: Years, model: Heston) -> tuple[float, float]:
    """The range [a, b] of X = ln(S_T/F) with at most `OUTSIDE` of probability beyond either end.

    P(X > b) <= e^(K(s) - s b) for each s > 0 with a finite moment K(s) = ln E e^(s X) (Chernoff 1952), so
    b = min over s of (K(s) - ln OUTSIDE)/s, and the same to the left.
    """
    std = np.sqrt(_total_variance(tau, model))
    ends = []
    for side in (-1.0, 1.0):
        s = side * np.geomspace(0.05, 60.0, 90) / std
        s = np.concatenate([s, side * np.geomspace(0.01, 1.0, 30)])
        s = s[_moment_exists(s, tau, model)]
        with np.errstate(all="ignore"):
            K = np.real(log_cf(-1j * s, tau, model))
            bound = (K - np.log(OUTSIDE)) / np.abs(s)
        bound = bound[np.isfinite(bound) & (bound > 0.0)]
        if not len(bound):
            raise ValueError("heston: expected a law with some finite moments, found none")
        ends.append(side * float(bound.min()))
    return ends[0], ends[1]


def _moment_exists(s: Array, tau: Years, model: Heston) -> NDArray[np.bool_]:
    """True where E e^(s X) is finite at tau: before the explosion time of Andersen and Piterbarg 2007, proposition 3.1.

    With chi = rho nu s - kappa and delta = chi^2 - nu^2 (s^2 - s): never for 0 <= s <= 1, or delta >= 0 and chi < 0; at
    ln((chi + g)/(chi - g))/g, g = sqrt(delta), for delta >= 0 and chi > 0; else at 2/h (atan(h/chi) + pi 1(chi < 0)),
    h = sqrt(-delta). Jumps are normal: all their moments exist.
    """
    chi = model.correlation * model.vol_of_vol * s - model.reversion
    delta = chi**2 - model.vol_of_vol**2 * (s * s - s)
    with np.errstate(all="ignore"):
        g = np.sqrt(np.maximum(delta, 0.0))
        late = np.where(g > 0.0, np.log((chi + g) / (chi - g)) / g, 2.0 / chi)
        h = np.sqrt(np.maximum(-delta, 0.0))
        early = 2.0 / h * (np.arctan2(h, chi))
    explosion = np.where(delta >= 0.0, np.where(chi < 0.0, np.inf, late), early)
    inside = (s >= 0.0) & (s <= 1.0)
    return np.asarray(inside | (model.vol_of_vol == 0.0) | (explosion > tau * 1.02))


def _frequencies(tau: Years, model: Heston, a: float, b: float) -> Array:
    """u_j = j pi/(b - a) up to where the characteristic function is spent."""
    grid = np.geomspace(0.1, 1e9, 400) / (b - a)
    size = np.real(log_cf(grid, tau, model))
    alive = np.flatnonzero(size > np.log(SMALL))
    last = grid[min(alive[-1] + 1, len(grid) - 1)] if len(alive) else grid[0]
    terms = int(np.ceil(last * (b - a) / np.pi)) + 2
    if terms > MOST_TERMS:
        raise ValueError(
            f"heston: expected a law that {MOST_TERMS} cosines hold, found one of {terms} (tau {tau:g}, {model})"
        )
    return np.asarray(np.arange(max(terms, 32)) * (np.pi / (b - a)))


def _put_sums(K: Array, F: float, weight: Array, u: Array, a: float, b: float) -> Array:
    """Undiscounted puts. Shape: K (n,), weight and u (terms,); result (n,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        end = np.clip(np.log(K / F), a, b)
    out = np.empty(K.shape)
    rows = max(CHUNK // len(u), 1)
    ends = weight / (1.0 + u * u)
    safe = np.where(u == 0.0, 1.0, u)
    for start in range(0, len(K), rows):
        e = end[start : start + rows, None]
        angle = u * (e - a)
        sine, cosine = np.sin(angle), np.cos(angle)
        length = np.where(u == 0.0, e - a, sine / safe)  # psi: integral of cos
        flat = length @ weight
        grown = np.exp(e[:, 0]) * (cosine @ ends + sine @ (u * ends)) - np.exp(a) * float(np.sum(ends))  # chi, with e^x
        out[start : start + rows] = K[start : start + rows] * flat - F * grown
    return np.asarray(np.where(K > 0.0, out, 0.0))


def _total_variance(tau: Years, model: Heston) -> float:
    """The expected quadratic variation of ln S to tau."""
    k = model.reversion
    decay = tau if k == 0.0 else -np.expm1(-k * tau) / k
    jumps = model.intensity * tau * (model.jump_mean * model.jump_mean + model.jump_std * model.jump_std)
    return float(model.mean_variance * (tau - decay) + model.variance * decay + jumps)


def _expect_positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0.0):
            raise ValueError(f"heston: {name}: expected a positive number, found {value}")
