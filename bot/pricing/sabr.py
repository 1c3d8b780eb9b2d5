"""A SABR smile is Hagan's expansion of a stochastic-alpha-beta-rho forward; law: it says where its density turns negative.

dF = alpha F^beta dW, dalpha = nu alpha dZ, corr(dW, dZ) = rho. Source: Hagan, Kumar, Lesniewski and Woodward 2002,
"Managing Smile Risk". Limits: an expansion in tau, for nu^2 tau and alpha^2 F^(2 beta - 2) tau small against 1; at strikes
far below the forward its implied density is negative, so that a price there is not a price. `lowest_sound_strike` finds
the edge. For rates near or below zero use the normal vol, or a shift.

>>> round(float(vol(100.0, 100.0, 1.0, alpha=2.0, beta=0.5, rho=-0.3, nu=0.4)), 6)
0.20179
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.units import Vol, Years
from bot.pricing.black import Array, black76

SMALL_Z: Final = 1e-4
"""Below this z / x(z) is taken from its series: the quotient would lose digits to 0/0."""


class SabrFit(NamedTuple):
    """The parameters nearest to a smile, and the root of the mean weighted squared error in vol."""

    alpha: float
    beta: float
    rho: float
    nu: float
    shift: float
    rmse: Vol

    def vol(self, forward: ArrayLike, strike: ArrayLike, tau: ArrayLike) -> Array:
        """The lognormal vols of these parameters. Shape: all broadcast."""
        return vol(forward, strike, tau, alpha=self.alpha, beta=self.beta, rho=self.rho, nu=self.nu, shift=self.shift)


def vol(
    forward: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    *,
    alpha: ArrayLike,
    beta: ArrayLike,
    rho: ArrayLike,
    nu: ArrayLike,
    shift: ArrayLike = 0.0,
) -> Array:
    """The Black vol of each strike, Hagan et al. 2002, equation 2.17.

    With L = ln(f/K), c = 1 - beta, G = (f K)^(c/2):
    sigma = alpha / (G (1 + c^2 L^2/24 + c^4 L^4/1920)) z/x(z)
            (1 + tau (c^2 alpha^2/(24 G^2) + rho beta nu alpha/(4 G) + (2 - 3 rho^2) nu^2/24)),
    z = nu/alpha G L, x(z) = ln((sqrt(1 - 2 rho z + z^2) + z - rho)/(1 - rho)).
    With a shift f and K are f + shift and K + shift, and so must they be in Black's formula.

    Shape: all broadcast. Units: alpha in F^(1 - beta) per square root of a year. NaN where f or K (shifted) is not positive
    or a parameter is outside of alpha >= 0, 0 <= beta <= 1, |rho| < 1, nu >= 0, tau >= 0.
    """
    F, K, T, a, b, r, n, s = _columns(forward, strike, tau, alpha, beta, rho, nu, shift)
    with np.errstate(all="ignore"):
        F, K = F + s, K + s
        L = np.log(F / K)
        c = 1.0 - b
        G = (F * K) ** (0.5 * c)
        z = n / a * G * L
        series = 1.0 + c**2 * L**2 / 24.0 + c**4 * L**4 / 1920.0
        drift = c**2 * a**2 / (24.0 * G**2) + 0.25 * r * b * n * a / G + (2.0 - 3.0 * r**2) * n**2 / 24.0
        sigma = a / (G * series) * _z_over_x(z, r) * (1.0 + drift * T)
    good = _inside(T, a, b, r, n) & np.asarray((F > 0.0) & (K > 0.0))
    return np.asarray(np.where(good, np.where(a == 0.0, 0.0, sigma), np.nan))


def normal_vol(
    forward: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    *,
    alpha: ArrayLike,
    beta: ArrayLike,
    rho: ArrayLike,
    nu: ArrayLike,
    shift: ArrayLike = 0.0,
) -> Array:
    """The Bachelier vol of each strike, Hagan et al. 2002, appendix A.

    With L = ln(f/K), c = 1 - beta, G = (f K)^(c/2), z = nu/alpha G L:
    sigma_N = alpha (f K)^(beta/2) (1 + L^2/24 + L^4/1920)/(1 + c^2 L^2/24 + c^4 L^4/1920) z/x(z)
              (1 + tau (-beta (2 - beta) alpha^2/(24 G^2) + rho alpha nu beta/(4 G) + (2 - 3 rho^2) nu^2/24)).
    With beta = 0 the model is normal and any sign of f and K is allowed: z = nu/alpha (f - K) and
    sigma_N = alpha z/x(z) (1 + tau (2 - 3 rho^2) nu^2/24), without the expansion in L.

    Shape: all broadcast. Units: of the forward per square root of a year. NaN where the parameters are outside the domain of
    `vol`, or where beta > 0 and f or K (shifted) is not positive.
    """
    F, K, T, a, b, r, n, s = _columns(forward, strike, tau, alpha, beta, rho, nu, shift)
    with np.errstate(all="ignore"):
        F, K = F + s, K + s
        stretch = (2.0 - 3.0 * r**2) * n**2 / 24.0
        L = np.log(F / K)
        c = 1.0 - b
        G = (F * K) ** (0.5 * c)
        top, bottom = 1.0 + L**2 / 24.0 + L**4 / 1920.0, 1.0 + c**2 * L**2 / 24.0 + c**4 * L**4 / 1920.0
        lead = a * (F * K) ** (0.5 * b) * top / bottom
        drift = -b * (2.0 - b) * a**2 / (24.0 * G**2) + 0.25 * r * b * n * a / G + stretch
        general = lead * _z_over_x(n / a * G * L, r) * (1.0 + drift * T)
        normal = a * _z_over_x(n / a * (F - K), r) * (1.0 + stretch * T)
        sigma = np.where(b == 0.0, normal, general)
    good = _inside(T, a, b, r, n) & np.asarray((b == 0.0) | ((F > 0.0) & (K > 0.0)))
    return np.asarray(np.where(good, np.where(a == 0.0, 0.0, sigma), np.nan))


def alpha_of(atm: Vol, forward: float, tau: Years, *, beta: float, rho: float, nu: float, shift: float = 0.0) -> float:
    """The alpha whose vol at the forward is `atm`: the least positive root of a cubic (West 2005, section 3).

    c^2 tau/(24 f^(2c)) alpha^3 + rho beta nu tau/(4 f^c) alpha^2 + (1 + (2 - 3 rho^2) nu^2 tau/24) alpha - atm f^c = 0.
    Errors: ValueError for parameters outside the domain of `vol`, and where no positive root exists.
    """
    f, c = forward + shift, 1.0 - beta
    _check_one(f, tau, beta, rho, nu)
    if not (atm > 0.0 and np.isfinite(atm)):
        raise ValueError(f"alpha_of: atm: expected a positive finite vol, found {atm}")
    cubic = [
        c * c * tau / (24.0 * f ** (2.0 * c)),
        rho * beta * nu * tau / (4.0 * f**c),
        1.0 + (2.0 - 3.0 * rho * rho) * nu * nu * tau / 24.0,
        -atm * f**c,
    ]
    if not np.isfinite(cubic).all():
        raise ValueError(f"alpha_of: expected parameters within the range of numbers, found {atm}, {f}, {tau}, {nu}")
    roots = np.roots(cubic)
    real = roots.real[(np.abs(roots.imag) <= 1e-9 * np.abs(roots)) & (roots.real > 0.0)]
    if not len(real):
        raise ValueError(f"alpha_of: atm: expected a vol this beta, rho and nu can reach, found {atm}")
    return float(real.min())


def fit(
    strike: ArrayLike,
    vols: ArrayLike,
    *,
    forward: float,
    tau: Years,
    beta: float = 0.5,
    shift: float = 0.0,
    weight: ArrayLike = 1.0,
) -> SabrFit:
    """alpha, rho and nu nearest to Black vols, beta given (it and rho explain the same skew: fit one of them).

    Shape: strike, vols, weight (n,), n >= 3. Errors: ValueError for fewer, or values not finite and positive.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415  a fit needs it, a formula does not

    K, v = np.atleast_1d(np.asarray(strike, np.float64)), np.atleast_1d(np.asarray(vols, np.float64))
    w = np.broadcast_to(np.asarray(weight, np.float64), v.shape)
    if K.shape != v.shape or len(K) < 3:
        raise ValueError(f"fit: expected at least 3 strikes and as many vols, found {K.shape} and {v.shape}")
    if not (np.isfinite(K + v + w).all() and (v > 0.0).all() and (K + shift > 0.0).all() and forward + shift > 0.0):
        raise ValueError("fit: expected finite weights, and positive finite strikes (shifted) and vols")

    def misfit(p: Array) -> Array:
        model = vol(forward, K, tau, alpha=np.exp(p[0]), beta=beta, rho=np.tanh(p[1]), nu=np.exp(p[2]), shift=shift)
        return np.asarray(w * (model - v))

    atm = float(np.interp(forward, K[np.argsort(K)], v[np.argsort(K)]))
    level = float(np.log(atm * (forward + shift) ** (1.0 - beta)))
    best = None
    for rho, nu in ((-0.3, 0.4), (0.3, 0.4), (-0.3, 2.0)):
        start = np.array([level, np.arctanh(rho), np.log(nu)])
        low, high = [level - 5.0, -4.0, np.log(1e-4)], [level + 5.0, 4.0, np.log(50.0)]
        done = least_squares(misfit, start, bounds=(low, high), xtol=1e-13, ftol=1e-13, gtol=1e-13, max_nfev=300)
        best = done if best is None or done.cost < best.cost else best
    assert best is not None
    a, r, n = float(np.exp(best.x[0])), float(np.tanh(best.x[1])), float(np.exp(best.x[2]))
    return SabrFit(a, beta, r, n, shift, float(np.sqrt(2.0 * best.cost / np.sum(w * w))))


def density(
    strike: ArrayLike,
    *,
    forward: float,
    tau: Years,
    alpha: float,
    beta: float,
    rho: float,
    nu: float,
    shift: float = 0.0,
) -> Array:
    """The risk-neutral density the smile implies: the second strike derivative of the undiscounted call (Breeden and
    Litzenberger 1978), by a central difference. Negative values are the expansion's, not the model's.

    Shape: any. Units: per unit of strike. NaN where strike + shift is not above 0.
    """
    K = np.asarray(strike, np.float64) + shift
    f, step = forward + shift, 1e-3 * K
    cp = np.where(f < K, 1, -1)  # the out-of-the-money side, so that a far strike keeps its digits

    def price(k: Array) -> Array:
        return black76(f, k, tau, vol(f, k, tau, alpha=alpha, beta=beta, rho=rho, nu=nu), cp=cp).price

    with np.errstate(all="ignore"):
        return np.asarray((price(K - step) - 2.0 * price(K) + price(K + step)) / step**2)


def lowest_sound_strike(
    *, forward: float, tau: Years, alpha: float, beta: float, rho: float, nu: float, shift: float = 0.0
) -> float:
    """The strike below which the implied density is negative somewhere; -shift when it is nowhere, to 1e-4 of f.

    Looks at strikes from 1e-4 of the forward up. Units: of the forward. Errors: ValueError outside the domain of `vol`.
    """
    f = forward + shift
    _check_one(f, tau, beta, rho, nu)
    K = f * np.geomspace(1e-4, 1.0, 1500)
    p = density(K - shift, forward=forward, tau=tau, alpha=alpha, beta=beta, rho=rho, nu=nu, shift=shift)
    negative = np.flatnonzero(~(p >= -1e-7 / f))
    return float(K[min(negative[-1] + 1, len(K) - 1)] - shift) if len(negative) else -shift


def _check_one(f: float, tau: float, beta: float, rho: float, nu: float) -> None:
    """Refuses what no smile has, for functions that answer one number. A forward beyond 1e100 overflows in its powers."""
    if not 1e-100 < f < 1e100:
        raise ValueError(f"sabr: forward + shift: expected a positive finite number, found {f}")
    if not (0.0 <= tau < np.inf and 0.0 <= nu < 1e100 and 0.0 <= beta <= 1.0 and -1.0 < rho < 1.0):
        raise ValueError(
            f"sabr: expected tau and nu from 0, beta from 0 to 1, rho inside -1 to 1, found {tau}, {nu}, {beta}, {rho}"
        )


def _columns(*values: ArrayLike) -> list[Array]:
    return list(np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values)))


def _inside(T: Array, a: Array, b: Array, r: Array, n: Array) -> NDArray[np.bool_]:
    return np.asarray((T >= 0.0) & (a >= 0.0) & (b >= 0.0) & (b <= 1.0) & (np.abs(r) < 1.0) & (n >= 0.0))


def _z_over_x(z: Array, rho: Array) -> Array:
    """z / x(z), by 1 - rho z/2 + (1/6 - rho^2/4) z^2 ... near 0.

    x = ln((R + z - rho)/(1 - rho)), R = sqrt(1 - 2 rho z + z^2). For z < 0 the sum R + z - rho cancels: there
    (R + z - rho)(R - z + rho) = 1 - rho^2 gives x = -ln((R - z + rho)/(1 + rho)).
    """
    R = np.sqrt(1.0 - 2.0 * rho * z + z * z)
    x = np.where(z >= 0.0, np.log((R + z - rho) / (1.0 - rho)), -np.log((R - z + rho) / (1.0 + rho)))
    near = 1.0 - 0.5 * rho * z + (2.0 - 3.0 * rho * rho) / 12.0 * z * z
    return np.asarray(np.where(np.abs(z) < SMALL_Z, near, z / np.where(x == 0.0, 1.0, x)))
