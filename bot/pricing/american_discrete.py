"""A cash dividend lowers the spot by a known amount at a known instant; law: the model of what that means is always named.

Two models are in use and differ in price (Haug, Haug and Lewis 2003), so a vol belongs to the model it was implied in:

- "spot": the spot itself is lognormal between ex-dates and falls by the amount (to 0 at most) at each;
- "escrowed": the spot less the present value of the dividends to come is lognormal with the given vol.

By finite differences, Crank-Nicolson with Rannacher's damping; slower and coarser than `american.price`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.pricing import black
from bot.pricing.black import Array
from bot.pricing.status import Status

DividendModel: TypeAlias = Literal["spot", "escrowed"]
MODELS: Final = ("spot", "escrowed")

VOL_BUMP: Final = 1e-3
RATE_BUMP: Final = 1e-4


class DividendGreeks(NamedTuple):
    """Price and Greeks of each row. Shape: every field has the broadcast shape of the inputs; `status` is int8."""

    price: Array
    delta: Array
    gamma: Array
    vega: Array
    theta: Array
    rho: Array
    status: NDArray[np.int8]


def price(
    spot: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    *,
    dividends: Sequence[tuple[float, float]],
    model: DividendModel,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    cp: ArrayLike = 1,
    exercise: Literal["american", "european"] = "american",
    steps: int = 400,
) -> DividendGreeks:
    """Price and Greeks with cash `dividends`, pairs (years from now, amount), beside the yield `dividend`.

    Dividends that go ex at or after expiry, or have gone, are left out. Delta and gamma come from the grid, theta from its
    last step (it holds the dates' instants, and jumps over an ex-date), vega and rho from bumped grids. The error falls
    as 1 / steps^2 and is about 1e-3 on a strike of 100 with 400 steps.

    Shape: array arguments broadcast together; `dividends` are the same for all rows. Errors: ValueError for an unknown
    model, a negative or unknown amount or time, fewer than 10 steps. A bad row is NaN with its status; so is one whose
    spot does not exceed the dividends' present value in the escrowed model (OUT_OF_DOMAIN), or one without time, vol,
    spot or strike (LIMIT).
    """
    from bot.pricing import american_discrete_kernels as kernels  # noqa: PLC0415  those who price import the compiler

    _check(dividends, model, exercise, steps)
    given = (np.asarray(x, dtype=np.float64) for x in (spot, strike, tau, vol, rate, dividend, cp))
    columns = np.broadcast_arrays(*given)
    shape = columns[0].shape
    S, K, T, v, r, q, c = (np.ascontiguousarray(column).reshape(-1) for column in columns)
    with np.errstate(all="ignore"):
        status = black.row_status(S, K, T, v, c, r, q)
    out = np.full((6, S.size), np.nan)
    out[:, status == Status.EXPIRED] = 0.0
    escrowed = model == "escrowed"
    american = exercise == "american"
    raw = np.empty(4)
    for i in range(S.size):
        if status[i] != Status.OK:
            continue
        live = sorted((t, amount) for t, amount in dividends if 0.0 < t < T[i] and amount > 0.0)
        times, amounts = np.array([t for t, _ in live]), np.array([amount for _, amount in live])
        if escrowed and not S[i] > float(np.sum(amounts * np.exp(-r[i] * times))):
            status[i] = Status.OUT_OF_DOMAIN
            continue

        def at(vol_: float, rate_: float, row: int = i, when: Array = times, cash: Array = amounts) -> Array:
            kernels.grid_price(
                S[row],
                K[row],
                T[row],
                vol_,
                rate_,
                q[row],
                c[row],
                when,
                cash,
                escrowed,
                american,
                2 * steps,
                steps,
                raw,
            )
            return raw.copy()

        vol_step = min(VOL_BUMP, 0.1 * v[i])
        value, delta, gamma, theta = at(v[i], r[i])
        vega = (at(v[i] + vol_step, r[i])[0] - at(v[i] - vol_step, r[i])[0]) / (2.0 * vol_step)
        rho = (at(v[i], r[i] + RATE_BUMP)[0] - at(v[i], r[i] - RATE_BUMP)[0]) / (2.0 * RATE_BUMP)
        out[:, i] = value, delta, gamma, vega, theta, rho
        if not np.isfinite(out[:, i]).all():
            out[:, i] = np.nan
            status[i] = Status.NOT_CONVERGED
    return DividendGreeks._make([*(column.reshape(shape) for column in out), status.reshape(shape)])


def _check(dividends: Sequence[tuple[float, float]], model: str, exercise: str, steps: int) -> None:
    if model not in MODELS:
        raise ValueError(f"american_discrete: model: expected one of {list(MODELS)}, found {model!r}")
    if exercise not in {"american", "european"}:
        raise ValueError(f"american_discrete: exercise: expected 'american' or 'european', found {exercise!r}")
    if steps < 10:
        raise ValueError(f"american_discrete: steps: expected at least 10, found {steps}")
    for t, amount in dividends:
        if not (np.isfinite(t) and np.isfinite(amount) and amount >= 0.0):
            raise ValueError(f"american_discrete: dividends: expected (years, amount >= 0), found {(t, amount)}")
