"""A model check values contracts by a second method; law: it changes no value, it only says where two methods disagree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.units import NS_PER_YEAR
from bot.engine.early_exercise import Market
from bot.pricing import american_discrete, black, heston

Floats: TypeAlias = NDArray[np.float64]
SecondPricer: TypeAlias = Literal["tree", "grid", "european", "cos"]
TREE_STEPS: Final = 801
GRID_STEPS: Final = 400
SPOT_BUMP: Final = 1e-3


class CheckSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The second pricer, how often it is asked (each so many re-marks), and what difference is allowed.

    `price_tolerance` as a fraction of spot, `delta_tolerance` per unit.
    """

    pricer: SecondPricer = "tree"
    every: int = 1
    price_tolerance: float = 2e-4
    delta_tolerance: float = 2e-3


class Valued(NamedTuple):
    """Price and delta of each contract by the second pricer. Shape: each (n,)."""

    price: Floats
    delta: Floats


class Check:
    """Counts re-marks and remembers which contracts disagree, so that each disagreement is told once."""

    def __init__(self, settings: CheckSettings) -> None:
        if settings.every < 1:
            raise ValueError(f"check: every: expected at least 1, found {settings.every}")
        self.settings = settings
        self._count = 0
        self._apart: set[str] = set()

    def is_due(self) -> bool:
        """True at the first re-mark asked about and each `every`-th after it."""
        self._count += 1
        return (self._count - 1) % self.settings.every == 0

    def second(
        self,
        market: Market,
        spot: float,
        strike: Floats,
        remaining: NDArray[np.int64],
        vol: Floats,
        *,
        cp: Floats,
        expiry: NDArray[np.int64],
        style: NDArray[np.bool_],
        alive: NDArray[np.bool_],
    ) -> Valued:
        """The second pricer's values, NaN where not `alive`. Shape: all (n,)."""
        out = Valued(np.full(len(strike), np.nan), np.full(len(strike), np.nan))
        method = _METHODS[self.settings.pricer]
        for i in np.flatnonzero(alive):
            contract = _Contract(
                market,
                float(strike[i]),
                int(remaining[i]),
                int(expiry[i]),
                float(vol[i]),
                float(cp[i]),
                bool(style[i]),
            )
            out.price[i], out.delta[i] = method(contract, spot)
        return out

    def news(self, ids: Sequence[str], price: Floats, delta: Floats, second: Valued, *, spot: float) -> Iterator[str]:
        """A sentence for each contract that disagrees and did not before."""
        allowed = self.settings.price_tolerance * spot
        for i, key in enumerate(ids):
            if math.isnan(second.price[i]):
                continue
            apart = (
                abs(price[i] - second.price[i]) > allowed
                or abs(delta[i] - second.delta[i]) > self.settings.delta_tolerance
            )
            if apart and key not in self._apart:
                yield (
                    f"{key}: price {price[i]:.6g} and delta {delta[i]:.6g}, by the second pricer "
                    f"'{self.settings.pricer}' {second.price[i]:.6g} and {second.delta[i]:.6g}; allowed are differences of "
                    f"{allowed:.3g} and {self.settings.delta_tolerance:g}"
                )
            (self._apart.add if apart else self._apart.discard)(key)


class _Contract(NamedTuple):
    market: Market
    strike: float
    remaining: int
    expiry: int
    vol: float
    cp: float
    american: bool

    @property
    def tau(self) -> float:
        return self.remaining / NS_PER_YEAR

    @property
    def dividend(self) -> float:
        return self.market.rate if self.market.on_future else self.market.dividend


def leisen_reimer(
    spot: float,
    strike: float,
    tau: float,
    vol: float,
    *,
    rate: float,
    dividend: float,
    cp: float,
    american: bool,
    steps: int = TREE_STEPS,
) -> float:
    """The price on a binomial tree whose nodes straddle the strike (Leisen and Reimer 1996, Peizer-Pratt method 2).

    Second order in 1 / steps for European, close to it for American options. `steps` is made odd.
    """
    n = steps | 1
    drift = rate - dividend
    deviation = vol * math.sqrt(tau)
    d1 = (math.log(spot / strike) + (drift + 0.5 * vol * vol) * tau) / deviation
    p, q = _peizer_pratt(d1 - deviation, n), _peizer_pratt(d1, n)
    growth, discount = math.exp(drift * tau / n), math.exp(-rate * tau / n)
    up, down = growth * q / p, growth * (1.0 - q) / (1.0 - p)
    j = np.arange(n + 1)
    logs = math.log(spot) + j * math.log(up) + (n - j) * math.log(down)
    value = np.maximum(cp * (np.exp(logs) - strike), 0.0)
    for step in range(n - 1, -1, -1):
        value = discount * (p * value[1:] + (1.0 - p) * value[:-1])
        if american:
            k = np.arange(step + 1)
            prices = np.exp(math.log(spot) + k * math.log(up) + (step - k) * math.log(down))
            value = np.maximum(value, cp * (prices - strike))
    return float(value[0])


def _peizer_pratt(z: float, n: int) -> float:
    root = (z / (n + 1.0 / 3.0 + 0.1 / (n + 1.0))) ** 2 * (n + 1.0 / 6.0)
    return 0.5 + math.copysign(0.5 * math.sqrt(-math.expm1(-root)), z)


def _by_tree(c: _Contract, spot: float) -> tuple[float, float]:
    """On the spot less the present value of the dividends to come (escrowed), which is not the model named 'spot'."""
    away = sum(
        amount * math.exp(-c.market.rate * years)
        for ex, amount in c.market.dividends
        if 0.0 < (years := (ex - (c.expiry - c.remaining)) / NS_PER_YEAR) < c.tau
    )
    h = SPOT_BUMP * spot

    def at(S: float) -> float:
        return leisen_reimer(
            S - away, c.strike, c.tau, c.vol, rate=c.market.rate, dividend=c.dividend, cp=c.cp, american=c.american
        )

    return at(spot), (at(spot + h) - at(spot - h)) / (2.0 * h)


def _by_grid(c: _Contract, spot: float) -> tuple[float, float]:
    now = c.expiry - c.remaining
    found = american_discrete.price(
        spot,
        c.strike,
        c.tau,
        c.vol,
        dividends=[((ex - now) / NS_PER_YEAR, amount) for ex, amount in c.market.dividends if ex > now],
        model=c.market.model,
        rate=c.market.rate,
        dividend=c.dividend,
        cp=c.cp,
        exercise="american" if c.american else "european",
        steps=GRID_STEPS,
    )
    return float(found.price), float(found.delta)


def _by_formula(c: _Contract, spot: float) -> tuple[float, float]:
    found = black.bsm(spot, c.strike, c.tau, c.vol, rate=c.market.rate, dividend=c.dividend, cp=c.cp)
    return float(found.price), float(found.delta)


def _by_cos(c: _Contract, spot: float) -> tuple[float, float]:
    """European, by Fourier cosines of a Heston model whose variance stands nearly still at vol^2."""
    still = heston.Heston(variance=c.vol**2, reversion=1.0, mean_variance=c.vol**2, vol_of_vol=1e-3, correlation=0.0)
    discount = math.exp(-c.market.rate * c.tau)
    carry = math.exp((c.market.rate - c.dividend) * c.tau)
    h = SPOT_BUMP * spot

    def at(S: float) -> float:
        return float(heston.price(S * carry, c.strike, c.tau, still, discount=discount, cp=c.cp))

    return at(spot), (at(spot + h) - at(spot - h)) / (2.0 * h)


_METHODS: Final[dict[str, Callable[[_Contract, float], tuple[float, float]]]] = {
    "tree": _by_tree,
    "grid": _by_grid,
    "european": _by_formula,
    "cos": _by_cos,
}
