"""A smile room reads the chain on one underlying at a re-mark; law: what cannot be read is NaN, and nothing later is read.

`read_smiles` turns two-sided quotes into one smile per expiry; `fit_surface` makes a surface of them or says why not;
`local_skews` reads d vol / d ln K where no surface is fitted; `vol_slopes` is the rule by which vols follow spot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.units import NS_PER_YEAR
from bot.engine import early_exercise
from bot.engine.early_exercise import Market
from bot.pricing import black, sabr, surface
from bot.pricing import smile as smile_rules
from bot.pricing.surface import Smile, Surface

Floats: TypeAlias = NDArray[np.float64]

FEWEST_STRIKES: Final = 3
"""Strikes of one expiry from which a skew can be read."""
NEAREST: Final = 5
"""Strikes that a local skew is read from, or all within `WITHIN` where these are more."""
WITHIN: Final = 0.5
"""Deviations vol sqrt(tau) around a strike within which every quote counts in its skew."""

Rule: TypeAlias = Literal[
    "sticky_strike", "sticky_delta", "sticky_moneyness", "local_vol", "minimum_variance", "bartlett", "ratio"
]


class SmileRule(msgspec.Struct, frozen=True, kw_only=True):
    """How the vol of a strike follows spot. `ratio` is the skew-stickiness ratio; `a`, `b`, `c` Hull and White's
    coefficients; `beta`, `rho`, `nu` SABR's."""

    kind: Rule = "sticky_strike"
    ratio: float = 1.0
    a: float = 0.0
    b: float = 0.0
    c: float = 0.0
    beta: float = 1.0
    rho: float = 0.0
    nu: float = 0.0

    @property
    def stickiness(self) -> float:
        """The skew-stickiness ratio of a rule that reads the skew."""
        if self.kind == "ratio":
            return self.ratio
        return smile_rules.STICKINESS["sticky_delta" if self.kind == "sticky_moneyness" else self.kind]

    @property
    def moves(self) -> bool:
        """True when vols move with spot at all."""
        return self.kind != "sticky_strike" and not (self.kind == "ratio" and self.ratio == 1.0)

    @property
    def reads_skew(self) -> bool:
        """True when the skew of the smile is needed."""
        return self.moves and self.kind not in {"minimum_variance", "bartlett"}


class SurfaceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a chain becomes a surface, and when a fit is too poor to be used: `max_rmse` in vol, `min_quotes` in all."""

    model: Literal["svi", "ssvi", "cubic"] = "svi"
    sound: bool = True
    max_rmse: float = 0.02
    min_quotes: int = 5


class Contracts(NamedTuple):
    """Options on one underlying as columns. `expiry` on the model clock, `ends` the instant. Shape: each (n,)."""

    columns: NDArray[np.int64]
    strike: Floats
    cp: Floats
    expiry: NDArray[np.int64]
    ends: NDArray[np.int64]
    american: NDArray[np.bool_]


Smiles: TypeAlias = Mapping[int, Smile]
"""The smiles of a chain by the count of the model clock at which they expire."""
Forwards: TypeAlias = Callable[[float, float], tuple[float, float]]
"""(spot, tau) -> forward and discount factor."""


def read_smiles(
    contracts: Contracts, bid: Floats, ask: Floats, *, spot: float, now: int, market: Market, forwards: Forwards
) -> Smiles:
    """The smiles of all expiries ahead with a usable quote. Stale quotes are given as NaN. Shape: bid, ask (n,)."""
    found: dict[int, Smile] = {}
    with np.errstate(invalid="ignore"):
        two_sided = (bid > 0.0) & (ask >= bid) & np.isfinite(ask)
    for expiry in np.unique(contracts.expiry):
        rows = np.flatnonzero((contracts.expiry == expiry) & two_sided)
        tau = (int(expiry) - now) / NS_PER_YEAR
        if tau <= 0.0 or not rows.size:
            continue
        forward, discount = forwards(spot, tau)
        b, a = bid[rows], ask[rows]
        early = contracts.american[rows]
        if early.any() or market.dividends:
            rows, b, a = _as_european(contracts, rows, b, a, spot=spot, now=now, market=market, forwards=forwards)
        if not rows.size:
            continue
        smile = surface.read_smile(
            contracts.strike[rows], b, a, contracts.cp[rows], forward=forward, tau=tau, discount=discount
        )
        if len(smile.k):
            found[int(expiry)] = smile
    return found


def _as_european(
    contracts: Contracts,
    rows: NDArray[np.int64],
    bid: Floats,
    ask: Floats,
    *,
    spot: float,
    now: int,
    market: Market,
    forwards: Forwards,
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Quotes at which a European contract has the same vols: the middle through its vol, the spread through vega.

    Only the out-of-the-money contract of a strike is turned, or the other where that has no quote.
    """
    K, cp, expiry = contracts.strike[rows], contracts.cp[rows], contracts.expiry[rows]
    tau = (int(expiry[0]) - now) / NS_PER_YEAR
    forward, discount = forwards(spot, tau)
    out = cp * (K - forward) >= 0.0
    chosen = out | ~np.isin(K, K[out])
    rows, K, cp, expiry = rows[chosen], K[chosen], cp[chosen], expiry[chosen]
    bid, ask, left, style = bid[chosen], ask[chosen], expiry - now, contracts.american[rows]
    middle = 0.5 * (bid + ask)
    vol, good = early_exercise.implied_vols(market, middle, spot, K, left, cp=cp, expiry=expiry, style=style)
    rows, K, cp, expiry, left, style = rows[good], K[good], cp[good], expiry[good], left[good], style[good]
    bid, ask, vol = bid[good], ask[good], vol[good]
    if not rows.size:
        return rows, bid, ask
    vega = early_exercise.values(market, np.asarray(spot), K, left, vol, cp=cp, expiry=expiry, style=style).vega
    plain = black.black76(forward, K, tau, vol, discount=discount, cp=cp)
    with np.errstate(all="ignore"):
        half = np.where(vega > 0.0, 0.5 * (ask - bid) / vega * plain.vega, np.nan)
    lowest = 1e-3 * plain.price  # a spread wider than the price leaves a bid of nothing: it is kept, as wide as it is
    usable = np.isfinite(half) & (plain.price > 0.0)
    made = np.maximum(plain.price - half, lowest)
    return rows[usable], made[usable], (2.0 * plain.price - made)[usable]


def fit_surface(smiles: Smiles, settings: SurfaceSettings, *, spot: float) -> tuple[Surface | None, str]:
    """The surface of a chain, or None and why it cannot be used."""
    quotes = sum(len(smile.k) for smile in smiles.values())
    if quotes < settings.min_quotes:
        return None, f"expected at least {settings.min_quotes} usable quotes (pricing.chain names more), found {quotes}"
    try:
        made = surface.fit(list(smiles.values()), model=settings.model, spot=spot, sound=settings.sound)
    except (ValueError, np.linalg.LinAlgError) as fault:
        return None, f"no fit: {fault}"
    worst = max(fit.rmse for fit in made.fits)
    if not worst <= settings.max_rmse:  # also when it is NaN
        return None, f"expected misfits of at most {settings.max_rmse:g} in vol, found {worst:.4g}"
    return made, ""


def of_vols(strike: Floats, vol: Floats, *, forward: float, tau: float) -> Smile:
    """Supplied vols of one expiry as a smile, one per strike, all of one weight. Shape: strike, vol (n,)."""
    _, first = np.unique(strike, return_index=True)
    return Smile(tau, forward, np.log(strike[first] / forward), vol[first], np.full(len(first), 0.01), {})


def local_skews(smiles: Smiles, strike: Floats, expiry: NDArray[np.int64]) -> Floats:
    """d vol / d ln K at each contract from the smile of its expiry: a weighted parabola through the nearest strikes.

    Weights fall with distance (tricube, Cleveland 1979) and with the spread. With fewer than five strikes a straight line;
    with fewer than three NaN. Shape: strike, expiry (n,).
    """
    out = np.full(strike.shape, np.nan)
    for i, (K, end) in enumerate(zip(strike, expiry, strict=True)):
        smile = smiles.get(int(end))
        if smile is not None and len(smile.k) >= FEWEST_STRIKES:
            out[i] = _slope_at(smile, float(np.log(K / smile.forward)))
    return out


def _slope_at(smile: Smile, k: float) -> float:
    away = np.abs(smile.k - k)
    reach = WITHIN * float(np.median(smile.vol)) * float(np.sqrt(smile.tau))
    near = np.argsort(away, kind="stable")[: max(NEAREST, int(np.count_nonzero(away <= reach)))]
    x, y = smile.k[near] - k, smile.vol[near]
    reach = 1.0001 * float(away[near].max())
    weight = (1.0 - (np.abs(x) / reach) ** 3) ** 3 * surface.smile_weight(smile)[near]
    weight = np.maximum(weight, 1e-3 * weight.max())
    degree = 2 if len(x) >= 5 else 1
    scale = reach or 1.0
    columns = np.stack([(x / scale) ** power for power in range(degree + 1)], axis=1)
    root = np.sqrt(weight)[:, None]
    fitted = np.linalg.lstsq(columns * root, y * root[:, 0], rcond=None)[0]
    return float(fitted[1] / scale)


class Legs(NamedTuple):
    """What a slope is made of. Shape: each (n,)."""

    strike: Floats
    tau: Floats
    vol: Floats
    delta: Floats
    forward: Floats


def vol_slopes(rule: SmileRule, legs: Legs, skew: Floats, *, spot: float) -> Floats:
    """d vol / d spot of each contract under a rule; NaN where what it needs is unknown. Shape: (n,).

    bartlett: each contract's own alpha is the one at which SABR gives its vol, so that no chain is needed.
    """
    if not rule.moves:
        return np.zeros(legs.strike.shape)
    if rule.kind == "minimum_variance":
        return smile_rules.hull_white_slope(legs.delta, spot=spot, tau=legs.tau, a=rule.a, b=rule.b, c=rule.c)
    if rule.kind == "bartlett":
        return _bartlett(rule, legs) * legs.forward / spot
    return np.asarray((rule.stickiness - 1.0) * skew / spot)


def _bartlett(rule: SmileRule, legs: Legs) -> Floats:
    F, K, T = legs.forward, legs.strike, legs.tau

    def sigma(forward: Floats, alpha: Floats) -> Floats:
        return sabr.vol(forward, K, T, alpha=alpha, beta=rule.beta, rho=rule.rho, nu=rule.nu)

    with np.errstate(all="ignore"):
        alpha = legs.vol * F ** (1.0 - rule.beta)
        for _ in range(30):
            h = 1e-6 * alpha
            at = sigma(F, alpha)
            slope = (sigma(F, alpha + h) - sigma(F, alpha - h)) / (2.0 * h)
            step = (at - legs.vol) / slope
            alpha = np.where(alpha - step > 0.0, alpha - step, 0.5 * alpha)
        fits = np.abs(sigma(F, alpha) - legs.vol) <= 1e-8
        dF, da = 1e-5 * F, 1e-5 * alpha
        by_forward = (sigma(F + dF, alpha) - sigma(F - dF, alpha)) / (2.0 * dF)
        by_alpha = (sigma(F, alpha + da) - sigma(F, alpha - da)) / (2.0 * da)
        slope = smile_rules.bartlett_slope(by_forward, by_alpha, forward=F, beta=rule.beta, rho=rule.rho, nu=rule.nu)
        return np.where(fits, slope, np.nan)
