"""Every Greek of every closed formula is the derivative it is named for, of a price in 60-digit arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import diff, erfc, exp, log, mp, mpf, pi, sqrt

from bot.pricing import black, digital

# by spot, strike, time left, vol, rate, yield; time runs against time left
ORDERS = {
    "price": (0, 0, 0, 0, 0, 0),
    "delta": (1, 0, 0, 0, 0, 0),
    "gamma": (2, 0, 0, 0, 0, 0),
    "vega": (0, 0, 0, 1, 0, 0),
    "theta": (0, 0, 1, 0, 0, 0),
    "rho": (0, 0, 0, 0, 1, 0),
    "rho_q": (0, 0, 0, 0, 0, 1),
    "vanna": (1, 0, 0, 1, 0, 0),
    "volga": (0, 0, 0, 2, 0, 0),
    "charm": (1, 0, 1, 0, 0, 0),
    "speed": (3, 0, 0, 0, 0, 0),
    "zomma": (2, 0, 0, 1, 0, 0),
    "dual_delta": (0, 1, 0, 0, 0, 0),
}

Numbers = tuple[Any, ...]


def _tail(x: Any) -> Any:
    return erfc(-x / sqrt(mpf(2))) / 2


def _d1(S: Any, K: Any, T: Any, v: Any, r: Any, q: Any) -> Any:
    return (log(S / K) + (r - q) * T) / (v * sqrt(T)) + v * sqrt(T) / 2


def _plain(c: int, S: Any, K: Any, T: Any, v: Any, r: Any, q: Any) -> Any:
    return c * (_asset(c, S, K, T, v, r, q) - K * _cash(c, S, K, T, v, r, q))


def _asset(c: int, S: Any, K: Any, T: Any, v: Any, r: Any, q: Any) -> Any:
    return S * exp(-q * T) * _tail(c * _d1(S, K, T, v, r, q))


def _cash(c: int, S: Any, K: Any, T: Any, v: Any, r: Any, q: Any) -> Any:
    return exp(-r * T) * _tail(c * (_d1(S, K, T, v, r, q) - v * sqrt(T)))


def _on_forward(c: int, F: Any, K: Any, T: Any, v: Any, r: Any, _: Any) -> Any:
    return _plain(c, F, K, T, v, r, r)


def _normal(c: int, F: Any, K: Any, T: Any, v: Any, r: Any, _: Any) -> Any:
    w = v * sqrt(T)
    d = (F - K) / w
    return exp(-r * T) * (c * (F - K) * _tail(c * d) + w * exp(-d * d / 2) / sqrt(2 * pi))


def _rows(seed: int, n: int) -> tuple[np.ndarray, ...]:
    """A minute to five years, vols of 3% to 150%, strikes up to five deviations out."""
    rng = np.random.default_rng(seed)
    S = np.exp(rng.uniform(-2, 9, n))
    T, v = np.exp(rng.uniform(np.log(2e-6), np.log(5), n)), rng.uniform(0.03, 1.5, n)
    K = S * np.exp(rng.uniform(-5, 5, n) * v * np.sqrt(T))
    return S, K, T, v, rng.uniform(-0.05, 0.15, n), rng.uniform(-0.05, 0.15, n)


@pytest.mark.parametrize("cp", [1, -1])
@pytest.mark.parametrize("model", ["bsm", "slice", "black76", "bachelier", "cash", "asset"])
def test_every_greek_is_its_derivative(model: str, cp: int) -> None:
    """Each output of each model is within 1e-10 of itself and 1e-12 of the spot of the exact derivative, prices 1e-13."""
    S, K, T, v, r, q = _rows(41, 20)
    v = v * S if model == "bachelier" else v
    how: dict[str, Any] = {"rate": r, "dividend": q, "cp": cp}
    calls: dict[str, tuple[Callable[[], Any], Callable[..., Any]]] = {
        "bsm": (lambda: black.bsm(S, K, T, v, **how), _plain),
        "slice": (lambda: black.greeks_slice(S, K, T, v, **how), _plain),
        "black76": (lambda: black.black76(S, K, T, v, rate=r, cp=cp), _on_forward),
        "cash": (lambda: digital.cash(S, K, T, v, **how), _cash),
        "asset": (lambda: digital.asset(S, K, T, v, **how), _asset),
        "bachelier": (lambda: black.bachelier(S, K, T, v, rate=r, cp=cp), _normal),
    }
    call, exact = calls[model]
    got = call()
    names = [name for name in got._fields if name in ORDERS]
    with mp.workdps(60):
        for i in range(S.size):
            numbers: Numbers = tuple(mpf(float(column[i])) for column in (S, K, T, v, r, q))
            for name in names:
                sign = -1 if name in {"theta", "charm"} else 1
                wanted = sign * diff(lambda *x: exact(cp, *x), numbers, ORDERS[name])
                size = max(S[i], K[i]) if name == "price" else max(1.0, S[i])
                allowed = 1e-13 * size if name == "price" else 1e-10 * abs(wanted) + 1e-12 * size
                assert abs(mpf(float(getattr(got, name)[i])) - wanted) <= allowed, (name, i)
