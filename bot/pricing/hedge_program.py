"""A hedge programme chooses how much of several instruments to hold: least risk plus cost, in whole lots, inside limits.

Law: it is convex but for lots and tickets, and these are settled by branch and bound on the convex relaxation; the answer
carries a proved lower bound, so that how far it may be from the best is a number. Never worse than doing nothing, unless
a limit forbids to do nothing.

With e(w) = b + A w the exposures left (delta, gamma, vega by tenor, ...) after holding w contracts, held w0 before:

    minimise  g/2 e(w)' Q e(w)  +  sum_i c_i |w_i - w0_i|  +  sum_i F_i [w_i != w0_i]
    lo <= w <= hi,   floor <= e(w) <= ceiling,   w_i - w0_i a whole number of lots (any size where the lot is 0)

Q is the covariance of the P&L of one unit of each exposure over the hedging horizon (`risk_matrix`), so with g in
1/currency the first term is the certainty equivalent g/2 Var of a quadratic-utility hedger (Markowitz 1952) and both
terms are money. The continuous problem is solved by Clarabel (Goulart and Chen 2024), an interior-point method, and its
answer is polished on the active set; lots and tickets by branch and bound (Land and Doig 1960) on the same relaxation,
an undecided ticket counted by its convex envelope F |w - w0| / (largest trade).

>>> found = solve([50.0], [[1.0]], [[1.0]], held=[0.0], cost=[5.0], lot=[1.0], risk_aversion=1.0)
>>> found.quantity.tolist(), found.proved  # to the edge: 50 - c / g = 45 are bought back
([-45.0], True)
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAX_NODES: Final = 20_000
TOLERANCE: Final = 1e-9
"""Relative to the objective of doing nothing: what two answers may differ by and count as the same."""
_WHOLE: Final = 1e-7
"""How near to a whole number of lots a relaxed trade counts as whole."""


class HedgeSolution(NamedTuple):
    """What to hold and what it leaves. Shape: quantity, trade (n,), residual (m,).

    `trade` = quantity - held; `lots` the same in whole lots (zero where the lot is 0). `objective` = `risk` (money: g/2 times
    the variance left) + `cost` + `tickets`, `before` the objective of doing nothing; no answer is better than `bound`.
    `proved` says that objective - bound lies within the tolerance. `within_limits` False: no holding meets the limits on
    exposures, and the answer ignores them.
    """

    quantity: Array
    trade: Array
    lots: NDArray[np.int64]
    residual: Array
    risk: float
    cost: float
    tickets: float
    objective: float
    before: float
    bound: float
    proved: bool
    nodes: int
    within_limits: bool

    @property
    def gap(self) -> float:
        """How much better than this the best could be, in money; 0 when proved to the last bit."""
        return max(0.0, self.objective - self.bound)


def solve(
    exposures: ArrayLike,
    greeks: ArrayLike,
    penalty: ArrayLike,
    *,
    held: ArrayLike,
    cost: ArrayLike,
    risk_aversion: float = 1.0,
    ticket: ArrayLike | None = None,
    lo: ArrayLike | None = None,
    hi: ArrayLike | None = None,
    lot: ArrayLike | None = None,
    floor: ArrayLike | None = None,
    ceiling: ArrayLike | None = None,
    max_nodes: int = MAX_NODES,
    tolerance: float = TOLERANCE,
) -> HedgeSolution:
    """The holding of least risk plus cost; see the module for the problem and its units.

    `exposures` are those of the book with none of the candidates in it (b), `greeks` those of one contract of each
    candidate (A, exposures by instruments), `penalty` the covariance Q, `held` the contracts held now, `cost` the one-way
    cost of a contract in currency (half spread + fee), `ticket` the fixed cost of an order, `lo` and `hi` limits on the
    holding, `lot` the smallest step of a trade (0: any size), `floor` and `ceiling` limits on exposures left.

    Shape: exposures, floor, ceiling (m,); greeks (m, n); penalty (m, m); the others (n,) or one number for all.

    Errors: ValueError for shapes that do not fit, a penalty that is not a covariance, a negative cost, ticket or lot, or
    limits between which no whole number of lots lies. Limits on exposures that no holding meets are not an error, see
    `HedgeSolution.within_limits`.
    """
    problem = _read(
        exposures, greeks, penalty, held=held, cost=cost, risk_aversion=risk_aversion, ticket=ticket, lo=lo, hi=hi,
        lot=lot, floor=floor, ceiling=ceiling,
    )  # fmt: skip
    if max_nodes < 1:
        raise ValueError(f"hedge programme: max_nodes: expected at least 1, found {max_nodes}")
    found = _search(problem, max_nodes=max_nodes, tolerance=tolerance)
    if found is None:  # no holding meets the limits on exposures: the least risk without them is the best that is left
        free = np.full(len(problem.b), np.inf)
        problem = problem._replace(floor=-free, ceiling=free)
        found = _search(problem, max_nodes=max_nodes, tolerance=tolerance)
        assert found is not None  # holdings inside lo and hi exist: `_read` has seen to it
        return _answer(problem, found, within_limits=False)
    return _answer(problem, found, within_limits=True)


# --------------------------------------------------------------------------- the risk of exposures


def risk_matrix(
    *,
    spot: float,
    vol: float,
    horizon: float,
    vol_of_vol: ArrayLike = (),
    vol_correlation: ArrayLike | None = None,
    spot_vol_correlation: ArrayLike | None = None,
) -> Array:
    """The covariance of P&L over `horizon` years of one unit of delta, gamma and vega in each bucket.

    P&L = delta dS + gamma (dS^2 - E dS^2)/2 + sum_k vega_k dv_k with dS, dv jointly normal: Var dS = s^2 = (S sigma)^2 h,
    Var(dS^2/2) = s^4/2 (a chi-square with one degree of freedom), Cov(dS, dv_k) = rho_k s xi_k sqrt(h), Cov(dS^2/2, dS) =
    Cov(dS^2/2, dv) = 0 since third moments of a normal vanish. The order is delta, gamma, vega of each bucket.

    `spot` in currency, `vol` and `vol_of_vol` (xi, absolute: vol points in units of 1.00) per square root of a year; gamma
    per currency, vega per 1.00 of vol.

    Shape: vol_of_vol, spot_vol_correlation (k,); vol_correlation (k, k), default 1 for all; result (2 + k, 2 + k).
    Errors: ValueError where the correlations are not those of any random vector.
    """
    for name, value in (("spot", spot), ("vol", vol), ("horizon", horizon)):
        if not (math.isfinite(value) and value >= 0.0):
            raise ValueError(f"risk matrix: {name}: expected a finite number from 0, found {value!r}")
    xi = np.atleast_1d(np.asarray(vol_of_vol, np.float64))
    k = len(xi)
    if xi.ndim != 1 or not (np.isfinite(xi).all() and (xi >= 0.0).all()):
        raise ValueError(f"risk matrix: vol_of_vol: expected finite numbers from 0, found {vol_of_vol!r}")
    corr = np.ones((k, k)) if vol_correlation is None else np.asarray(vol_correlation, np.float64)
    rho = (
        np.zeros(k) if spot_vol_correlation is None else np.broadcast_to(np.asarray(spot_vol_correlation, float), (k,))
    )
    if corr.shape != (k, k):
        raise ValueError(f"risk matrix: vol_correlation: expected {k} by {k}, found shape {corr.shape}")
    whole = np.block([[np.ones((1, 1)), rho[None, :]], [rho[:, None], corr]])
    _expect_correlation(whole)
    s = spot * vol * math.sqrt(horizon)
    std = np.concatenate(([s], xi * math.sqrt(horizon)))
    joint = whole * np.outer(std, std)
    out = np.zeros((2 + k, 2 + k))
    keep = np.array([0, *range(2, 2 + k)])
    out[np.ix_(keep, keep)] = joint
    out[1, 1] = 0.5 * s**4
    return out


def _expect_correlation(matrix: Array) -> None:
    if not np.isfinite(matrix).all() or np.abs(matrix).max(initial=0.0) > 1.0 + 1e-12:
        raise ValueError("risk matrix: correlations: expected finite numbers from -1 to 1")
    if not np.allclose(matrix, matrix.T, atol=1e-12) or not np.allclose(np.diag(matrix), 1.0):
        raise ValueError("risk matrix: correlations: expected a symmetric matrix with ones on its diagonal")
    least = float(np.linalg.eigvalsh(matrix)[0])
    if least < -1e-9:
        raise ValueError(
            f"risk matrix: correlations: expected those of a random vector, found a negative eigenvalue {least:.3g} "
            "of spot and vols together"
        )


def tenor_correlation(tenors: ArrayLike, *, decay: float) -> Array:
    """The correlation of vols at tenors: exp(-decay |ln(T_i/T_j)|), a covariance for every decay >= 0.

    It is the autocorrelation of an Ornstein-Uhlenbeck process in log tenor, so it is positive semi-definite. decay 0: one
    level moves all; about 0.2 to 0.5 describes index surfaces, to be fitted. Shape: (k,) gives (k, k).
    """
    T = np.atleast_1d(np.asarray(tenors, np.float64))
    if T.ndim != 1 or not (np.isfinite(T).all() and (T > 0.0).all()):
        raise ValueError(f"tenor correlation: tenors: expected finite years above 0, found {tenors!r}")
    if not (math.isfinite(decay) and decay >= 0.0):
        raise ValueError(f"tenor correlation: decay: expected a finite number from 0, found {decay!r}")
    log_T = np.log(T)
    return np.asarray(np.exp(-decay * np.abs(log_T[:, None] - log_T[None, :])))


def tenor_vol_of_vol(tenors: ArrayLike, *, level: float, reference: float, exponent: float = 0.5) -> Array:
    """The absolute vol of vol at tenors: level (T_ref/T)^exponent; short vols move more. Shape: (k,) gives (k,).

    exponent 0.5 is the usual rule of thumb by which vega is normalised to a reference tenor; 0 moves all alike.
    """
    T = np.atleast_1d(np.asarray(tenors, np.float64))
    if not (np.isfinite(T).all() and (T > 0.0).all() and reference > 0.0):
        raise ValueError(f"tenor vol of vol: expected tenors and a reference above 0, found {tenors!r}, {reference!r}")
    return np.asarray(level * (reference / T) ** exponent)


def bucket_weights(tau: ArrayLike, tenors: ArrayLike) -> Array:
    """How a vega at `tau` is shared between the two tenors around it: linear in log tenor, all to the end beyond an end.

    Rows sum to 1, and a tau at a tenor belongs to it alone. Shape: tau (n,), tenors (k,) rising; result (k, n).
    """
    T = np.atleast_1d(np.asarray(tenors, np.float64))
    t = np.atleast_1d(np.asarray(tau, np.float64))
    if T.ndim != 1 or not len(T) or not (np.isfinite(T).all() and (T > 0.0).all() and (np.diff(T) > 0.0).all()):
        raise ValueError(f"bucket weights: tenors: expected rising years above 0, found {tenors!r}")
    if not (np.isfinite(t).all() and (t >= 0.0).all()):
        raise ValueError(f"bucket weights: tau: expected finite years from 0, found {tau!r}")
    place = np.clip(t, T[0], T[-1])
    log_T = np.log(T)
    hats = [np.interp(np.log(place), log_T, np.eye(len(T))[i]) for i in range(len(T))]
    return np.asarray(np.vstack(hats))


# --------------------------------------------------------------------------- the problem, read


class _Problem(NamedTuple):
    """The programme in trades: lots where there are some, contracts where the lot is 0.

    `step` is contracts per unit of trade, `M` the exposures of a unit, `H` and `r` the quadratic and linear terms of risk
    in units, `unit_cost` the cost of one; `least` and `most` bound the trade.
    """

    b: Array
    e0: Array
    M: Array
    Q: Array
    g: float
    H: Array
    r: Array
    held: Array
    step: Array
    whole: Bools
    unit_cost: Array
    ticket: Array
    least: Array
    most: Array
    floor: Array
    ceiling: Array

    def risk(self, k: Array) -> float:
        """g/2 e'Qe of a trade, from the exposures themselves: no cancellation."""
        e = self.e0 + self.M @ k
        return max(0.0, 0.5 * self.g * float(e @ self.Q @ e))

    def value(self, k: Array) -> float:
        """The objective of a trade."""
        return self.risk(k) + float(self.unit_cost @ np.abs(k)) + float(self.ticket[k != 0.0].sum())

    def meets_limits(self, k: Array) -> bool:
        """True when the exposures left are inside their limits, to rounding."""
        e = self.e0 + self.M @ k
        room = 1e-9 * (np.abs(self.e0) + np.abs(self.M) @ np.abs(k) + 1e-300)
        return bool((e >= self.floor - room).all() and (e <= self.ceiling + room).all())


def _read(
    exposures: ArrayLike,
    greeks: ArrayLike,
    penalty: ArrayLike,
    *,
    held: ArrayLike,
    cost: ArrayLike,
    risk_aversion: float,
    ticket: ArrayLike | None,
    lo: ArrayLike | None,
    hi: ArrayLike | None,
    lot: ArrayLike | None,
    floor: ArrayLike | None,
    ceiling: ArrayLike | None,
) -> _Problem:
    b = _vector("exposures", exposures, None)
    A = np.asarray(greeks, np.float64)
    m = len(b)
    if A.ndim != 2 or A.shape[0] != m:
        raise ValueError(f"hedge programme: greeks: expected {m} rows, one for each exposure, found shape {A.shape}")
    if not np.isfinite(A).all():
        raise ValueError("hedge programme: greeks: expected finite numbers, found some that are not")
    n = A.shape[1]
    Q = _covariance(penalty, m)
    g = float(risk_aversion)
    if not (math.isfinite(g) and g >= 0.0):
        raise ValueError(f"hedge programme: risk_aversion: expected a finite number from 0, found {risk_aversion!r}")
    w0 = _vector("held", held, n)
    c = _vector("cost", cost, n, least=0.0)
    F = _vector("ticket", 0.0 if ticket is None else ticket, n, least=0.0)
    size = _vector("lot", 0.0 if lot is None else lot, n, least=0.0)
    bottom = _vector("lo", -np.inf if lo is None else lo, n, infinite=True)
    top = _vector("hi", np.inf if hi is None else hi, n, infinite=True)
    whole = size > 0.0
    step = np.where(whole, size, 1.0)
    least, most = (bottom - w0) / step, (top - w0) / step
    least = np.where(whole, np.ceil(least - _WHOLE), least)
    most = np.where(whole, np.floor(most + _WHOLE), most)
    _expect_room(least, most, bottom, top, size)
    M = A * step
    e0 = b + A @ w0
    return _Problem(
        b=b,
        e0=e0,
        M=M,
        Q=Q,
        g=g,
        H=g * (M.T @ Q @ M),
        r=g * (M.T @ (Q @ e0)),
        held=w0,
        step=step,
        whole=whole,
        unit_cost=c * step,
        ticket=F,
        least=least,
        most=most,
        floor=_vector("floor", -np.inf if floor is None else floor, m, infinite=True),
        ceiling=_vector("ceiling", np.inf if ceiling is None else ceiling, m, infinite=True),
    )


def _vector(
    name: str, values: ArrayLike, length: int | None, *, least: float = -math.inf, infinite: bool = False
) -> Array:
    found = np.asarray(values, np.float64)
    if length is not None and found.ndim == 0:
        found = np.full(length, float(found))
    if found.ndim != 1 or (length is not None and len(found) != length):
        wanted = "a row of numbers" if length is None else f"{length} numbers"
        raise ValueError(f"hedge programme: {name}: expected {wanted}, found shape {found.shape}")
    if np.isnan(found).any() or (not infinite and np.isinf(found).any()):
        raise ValueError(f"hedge programme: {name}: expected finite numbers, found {found.tolist()}")
    if (found < least).any():
        raise ValueError(f"hedge programme: {name}: expected numbers from {least:g}, found {found.tolist()}")
    return found


def _covariance(penalty: ArrayLike, m: int) -> Array:
    Q = np.asarray(penalty, np.float64)
    if Q.shape != (m, m):
        raise ValueError(f"hedge programme: penalty: expected {m} by {m}, found shape {Q.shape}")
    if not np.isfinite(Q).all():
        raise ValueError("hedge programme: penalty: expected finite numbers, found some that are not")
    if not m:
        return Q
    if (np.diag(Q) < 0.0).any():
        raise ValueError("hedge programme: penalty: expected a covariance, found a negative variance")
    scale = np.sqrt(np.diag(Q))
    unit = np.divide(Q, np.outer(scale, scale), out=np.zeros_like(Q), where=np.outer(scale, scale) > 0.0)
    if not np.allclose(unit, unit.T, atol=1e-9) or (Q[np.outer(scale, scale) == 0.0] != 0.0).any():
        raise ValueError("hedge programme: penalty: expected a symmetric covariance matrix")
    least = float(np.linalg.eigvalsh(0.5 * (unit + unit.T))[0])
    if least < -1e-9:
        raise ValueError(f"hedge programme: penalty: expected a covariance, found a negative eigenvalue ({least:.3g})")
    return 0.5 * (Q + Q.T)


def _expect_room(least: Array, most: Array, bottom: Array, top: Array, size: Array) -> None:
    for i in np.flatnonzero(least > most):
        what = f"a whole number of lots of {size[i]:g}" if size[i] else "a number"
        raise ValueError(
            f"hedge programme: instrument {i}: expected {what} between lo and hi, found [{bottom[i]:g}, {top[i]:g}]"
        )


# --------------------------------------------------------------------------- the relaxation


class _Relaxed(NamedTuple):
    """The optimum of a relaxation: no trade in its box has a value below `bound`, and the trade there."""

    bound: float
    k: Array


class _Relaxation:
    """Solves the convex problem for boxes of trades.

    Variables are the trades k and their costs t_i >= up_i k_i, t_i >= -down_i k_i: the costs of a unit bought and sold
    differ where an undecided ticket is counted by its envelope. Trades are counted in units that move the risk alike and
    money in units of the risk there is, so that a book of millions is as well posed as a book of one.
    """

    def __init__(self, problem: _Problem) -> None:
        self._p = p = problem
        diag = np.sqrt(np.maximum(np.diag(p.H), 0.0))
        self._start = p.risk(np.zeros(len(p.r)))
        self._money = self._start if self._start > 0.0 else 1.0
        typical = np.sqrt(2.0 * self._money) / np.where(diag > 0.0, diag, 1.0)
        self.unit = np.where((diag > 0.0) & np.isfinite(typical), typical, 1.0)
        u = self.unit
        n = len(u)
        quadratic = np.zeros((2 * n, 2 * n))
        quadratic[:n, :n] = p.H * np.outer(u, u) / self._money
        self._quadratic = quadratic
        self._linear = np.concatenate((p.r * u / self._money, np.ones(n)))
        MU = p.M * u
        self._row_size = np.maximum(np.abs(MU).max(axis=1, initial=0.0), 1e-300)
        self._limit_rows = np.hstack((MU / self._row_size[:, None], np.zeros((len(p.b), n))))

    def solve(self, least: Array, most: Array, up: Array, down: Array) -> _Relaxed | None:
        """The relaxed optimum in a box; None when no trade in it meets the limits on exposures."""
        u, n = self.unit, len(self.unit)
        rows, rhs = self._rows(least / u, most / u, up * u / self._money, down * u / self._money)
        found = _clarabel(self._quadratic, self._linear, rows, rhs)
        if found is None:
            return None
        x, bound = found
        return _Relaxed(bound * self._money + self._start, np.clip(x[:n] * u, least, most))

    def _rows(self, least: Array, most: Array, up: Array, down: Array) -> tuple[Array, Array]:
        """The rows a x <= rhs: box, costs, limits on exposures; only those that are finite."""
        p, n = self._p, len(self.unit)
        one, none = np.eye(n), np.zeros((n, n))
        above, below = np.isfinite(most), np.isfinite(least)
        roof, ground = np.isfinite(p.ceiling), np.isfinite(p.floor)
        rows = [
            np.hstack((one, none))[above],
            np.hstack((-one, none))[below],
            np.hstack((np.diag(up), -one)),
            np.hstack((np.diag(-down), -one)),
            self._limit_rows[roof],
            -self._limit_rows[ground],
        ]
        rhs = [
            most[above],
            -least[below],
            np.zeros(2 * n),
            ((p.ceiling - p.e0) / self._row_size)[roof],
            ((p.e0 - p.floor) / self._row_size)[ground],
        ]
        return np.vstack(rows), np.concatenate(rhs)


def _clarabel(quadratic: Array, linear: Array, rows: Array, rhs: Array) -> tuple[Array, float] | None:
    """The minimiser of x'Px/2 + q'x under rows x <= rhs, and a lower bound of its value; None when nothing is feasible."""
    import clarabel  # noqa: PLC0415  only needed where several instruments hedge
    from scipy import sparse  # noqa: PLC0415

    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.presolve_enable = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    cones = [clarabel.NonnegativeConeT(len(rhs))]
    P, A = sparse.csc_matrix(np.triu(quadratic)), sparse.csc_matrix(rows)
    found = clarabel.DefaultSolver(P, linear, A, rhs, cones, settings).solve()
    status = clarabel.SolverStatus
    if found.status in {status.PrimalInfeasible, status.AlmostPrimalInfeasible}:
        return None
    x = np.asarray(found.x)
    x = np.where(np.isfinite(x), x, 0.0)
    if found.status not in {status.Solved, status.AlmostSolved}:
        return x, -math.inf  # it stopped too early for its dual value to bound anything
    return x, min(float(found.obj_val), float(found.obj_val_dual))


def _polished(p: _Problem, k: Array, least: Array, most: Array) -> Array:
    """A relaxed optimum made exact: what it does not trade is zero, what is at a limit is at it, the rest solves H k = -r.

    The active set is read off `k`; the candidate is kept only when it is inside the box and no worse than `k`.
    """
    scale = np.maximum(np.abs(k).max(initial=0.0), 1e-300)
    best, best_value = k, p.value(k)
    # Where a limit on exposures binds, the set below does not hold; the dust of an interior point is swept all the same.
    swept = np.where((np.abs(k) <= 1e-6 * scale) & (least <= 0.0) & (most >= 0.0), 0.0, k)
    if p.meets_limits(swept) and p.value(swept) <= best_value + 1e-9 * p.value(np.zeros(len(k))):
        best, best_value = swept, p.value(swept)
    for width in (1e-9, 1e-7, 1e-5, 1e-3):
        near = width * np.maximum(scale, 0.0)
        zero = (np.abs(k) <= near) & (least <= 0.0) & (most >= 0.0)
        at_most, at_least = (most - k <= near) & ~zero, (k - least <= near) & ~zero
        free = ~(zero | at_most | at_least)
        tried = np.where(zero, 0.0, np.where(at_most, most, np.where(at_least, least, 0.0)))
        if free.any():
            sign = np.sign(k[free])
            pull = -(p.r[free] + p.H[np.ix_(free, ~free)] @ tried[~free] + p.unit_cost[free] * sign)
            moved = np.linalg.lstsq(p.H[np.ix_(free, free)], pull - p.H[np.ix_(free, free)] @ k[free], rcond=1e-12)[0]
            tried[free] = k[free] + moved
            if (np.sign(tried[free]) != sign).any():
                continue
        if (tried < least).any() or (tried > most).any() or not p.meets_limits(tried):
            continue
        value = p.value(tried)
        if value <= best_value + 1e-12 * abs(best_value):
            best, best_value = tried, value
    return best


# --------------------------------------------------------------------------- branch and bound


class _Node(NamedTuple):
    """A box of trades: what no trade in it can beat, where its relaxation stands, and whose ticket is paid for certain."""

    bound: float
    number: int
    k: Array
    least: Array
    most: Array
    paid: Bools


class _Found(NamedTuple):
    """The best trade, and what none can beat."""

    k: Array
    value: float
    bound: float
    proved: bool
    nodes: int


class _Search:
    """Branch and bound, the box with the lowest bound first."""

    def __init__(self, problem: _Problem, *, max_nodes: int, tolerance: float) -> None:
        self._p = problem
        self._relaxation = _Relaxation(problem)
        self._max_nodes = max_nodes
        self._slack = tolerance * max(problem.value(np.zeros(len(problem.r))), 1e-300)
        self._continuous = not problem.whole.any()
        self._moves = _moves(problem)
        self._count = 0
        self._tried: set[bytes] = set()
        self.best: Array | None = None
        self.value = math.inf

    def run(self) -> _Found | None:
        """The best trade; None when no trade meets the limits on exposures."""
        p = self._p
        nothing = np.zeros(len(p.r))
        if (p.least <= 0.0).all() and (p.most >= 0.0).all() and p.meets_limits(nothing):
            self._take(nothing)
        root = self._node(*self._finite_box(), p.ticket == 0.0)
        heap = [] if root is None else [root]
        bound = -math.inf
        while heap:
            node = heapq.heappop(heap)
            bound = node.bound
            if bound >= self.value - self._slack:
                break
            if self._count >= self._max_nodes:
                return None if self.best is None else _Found(self.best, self.value, bound, False, self._count)
            for child in self._children(node):
                if child.bound < self.value - self._slack:
                    heapq.heappush(heap, child)
        if self.best is None:
            return None
        # Every box that was left unopened had a bound no lower than this.
        bound = min(max(bound, self.value - self._slack), self.value)
        return _Found(self.best, self.value, bound, True, self._count)

    def _finite_box(self) -> tuple[Array, Array]:
        """The limits of trades, those that are none replaced by a size that cannot pay.

        A trade better than doing nothing costs less than all the risk there is, so |k| < risk / cost. Where trading is
        free, or where doing nothing breaks a limit on exposures, a hundred times the trade that would change risk by as
        much as there is stands in.
        """
        p = self._p
        ample = 100.0 * (self._relaxation.unit + 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            pays = self.value / p.unit_cost if math.isfinite(self.value) else np.full(len(p.r), np.inf)
        reach = np.ceil(np.where(np.isfinite(pays), pays, np.maximum(ample, 1e3)))
        least = np.where(np.isfinite(p.least), p.least, np.minimum(-reach, np.where(np.isfinite(p.most), p.most, 0.0)))
        most = np.where(np.isfinite(p.most), p.most, np.maximum(reach, np.where(np.isfinite(p.least), p.least, 0.0)))
        return least, most

    def _node(self, least: Array, most: Array, paid: Bools) -> _Node | None:
        """The relaxation of a box, and whatever good trade it suggests."""
        p = self._p
        self._count += 1
        up, down = self._slopes(least, most, paid)
        relaxed = self._relaxation.solve(least, most, up, down)
        if relaxed is None:
            return None
        fixed = float(p.ticket[paid].sum())
        k = relaxed.k
        self._suggest(k, least, most)
        return _Node(relaxed.bound + fixed, self._count, k, least, most, paid)

    def _slopes(self, least: Array, most: Array, paid: Bools) -> tuple[Array, Array]:
        """Cost of a unit bought and sold, undecided tickets spread over the largest trade of the box."""
        p = self._p
        open_ticket = np.where(paid, 0.0, p.ticket)
        with np.errstate(divide="ignore", invalid="ignore"):
            bought = np.where(most > 0.0, open_ticket / most, 0.0)
            sold = np.where(least < 0.0, open_ticket / -least, 0.0)
        return p.unit_cost + bought, p.unit_cost + sold

    # ------------------------------------------------------------------ branching

    def _children(self, node: _Node) -> Iterator[_Node]:
        i, value = self._branch(node)
        if i < 0:
            return
        p = self._p
        if not node.paid[i] and node.least[i] <= 0.0 <= node.most[i]:
            yield from self._by_ticket(node, i)
            return
        assert p.whole[i]
        for side in ("below", "above"):
            least, most = node.least.copy(), node.most.copy()
            if side == "below":
                most[i] = math.floor(value)
            else:
                least[i] = math.floor(value) + 1.0
            yield from self._child(least, most, node.paid, above=node.bound)

    def _by_ticket(self, node: _Node, i: int) -> Iterator[_Node]:
        """Three boxes: not traded, bought, sold; the last two pay the ticket."""
        least_size = 1.0 if self._p.whole[i] else 0.0
        for low, high, pays in (
            (0.0, 0.0, False),
            (max(node.least[i], least_size), node.most[i], True),
            (node.least[i], min(node.most[i], -least_size), True),
        ):
            if low > high or (pays and low == high == 0.0):
                continue
            least, most, paid = node.least.copy(), node.most.copy(), node.paid.copy()
            least[i], most[i], paid[i] = low, high, pays
            yield from self._child(least, most, paid, above=node.bound)

    def _child(self, least: Array, most: Array, paid: Bools, *, above: float) -> Iterator[_Node]:
        if (least > most).any():
            return
        # A ticket of a box that must trade is paid, one of a box that must not is not.
        paid = paid | ((least > 0.0) | (most < 0.0))
        child = self._node(least, most, paid)
        if child is not None:  # a smaller box cannot hold a better trade
            yield child._replace(bound=max(child.bound, above))

    def _branch(self, node: _Node) -> tuple[int, float]:
        """The trade to settle next, -1 when the box holds nothing undecided: tickets first, then the worst fraction."""
        p, k = self._p, node.k
        wide = node.most > node.least
        undecided = ~node.paid & wide & (node.least <= 0.0) & (node.most >= 0.0) & (np.abs(k) > _WHOLE)
        if undecided.any():
            reach = np.where(k > 0.0, node.most, -node.least)
            with np.errstate(divide="ignore", invalid="ignore"):
                missing = np.where(undecided, p.ticket * (1.0 - np.abs(k) / reach), -1.0)
            missing = np.where(undecided & np.isinf(reach), p.ticket, missing)
            i = int(np.argmax(missing))
            if missing[i] > 0.0:
                return i, float(k[i])
        apart = np.where(p.whole & wide, np.abs(k - np.round(k)), 0.0)
        score = apart * np.sqrt(np.maximum(np.diag(p.H), 0.0)) + 1e-12 * apart
        score = np.where(apart > _WHOLE, score, 0.0)
        i = int(np.argmax(score))
        return (i, float(k[i])) if score[i] > 0.0 else (-1, 0.0)

    # ------------------------------------------------------------------ good trades

    def _suggest(self, k: Array, least: Array, most: Array) -> None:
        """Try the trade a relaxation points to: whole lots, then better by small moves; the rest solved again."""
        p = self._p
        if self._continuous:
            self._try(_polished(p, k, least, most))
            self._try_traded(k)
            return
        near = np.where(p.whole, np.clip(np.round(k), least, most), k)
        if p.whole.all():
            self._descend(near)
            return
        self._try_rest(near)

    def _try_traded(self, k: Array) -> None:
        """With tickets: the best size of what is traded here, ticket or not."""
        p = self._p
        if not p.ticket.any():
            return
        traded = np.abs(k) > 1e-9 * np.abs(k).max(initial=0.0)
        least, most = np.where(traded, p.least, 0.0), np.where(traded, p.most, 0.0)
        if (least > 0.0).any() or (most < 0.0).any():
            least, most = np.minimum(least, p.most), np.maximum(most, p.least)
        found = self._relaxation.solve(least, most, p.unit_cost, p.unit_cost)
        if found is not None:
            self._try(_polished(p, found.k, least, most))

    def _try_rest(self, near: Array) -> None:
        """Lots held where they were rounded to, the sizes without a lot solved for."""
        p = self._p
        rest = ~p.whole & (np.abs(near) > 0.0)
        least = np.where(p.whole, near, np.where(rest, p.least, np.clip(0.0, p.least, p.most)))
        most = np.where(p.whole, near, np.where(rest, p.most, np.clip(0.0, p.least, p.most)))
        found = self._relaxation.solve(least, most, p.unit_cost, p.unit_cost)
        if found is not None:
            self._try(_polished(p, found.k, least, most))

    def _try(self, k: Array) -> bool:
        if not self._p.meets_limits(k):
            return False
        return self._take(k)

    def _take(self, k: Array) -> bool:
        value = self._p.value(k)
        if value >= self.value:
            return False
        self.best, self.value = k.copy(), value
        return True

    def _descend(self, k: Array) -> None:
        """From whole lots, the steepest of all moves of one lot in one or two instruments, until none is better."""
        p = self._p
        for _ in range(200):
            if k.tobytes() in self._tried:
                return
            self._tried.add(k.tobytes())
            self._try(k)
            beside = k + self._moves
            inside = ((beside >= p.least) & (beside <= p.most)).all(axis=1)
            if not inside.any():
                return
            beside = beside[inside]
            smooth = beside @ p.r + 0.5 * np.einsum("ij,ij->i", beside @ p.H, beside)
            values = smooth + np.abs(beside) @ p.unit_cost + (beside != 0.0) @ p.ticket + self._outside(beside)
            here = float(p.r @ k + 0.5 * k @ p.H @ k + p.unit_cost @ np.abs(k) + p.ticket[k != 0.0].sum())
            here += float(self._outside(k[None, :])[0])
            i = int(np.argmin(values))
            if values[i] >= here - 1e-13 * (abs(here) + abs(float(values[i]))):
                return
            k = beside[i]

    def _outside(self, k: Array) -> Array:
        """What leaving the limits on exposures is made to cost while looking for a trade inside. Shape: (moves, n)."""
        p = self._p
        if not (np.isfinite(p.floor).any() or np.isfinite(p.ceiling).any()):
            return np.zeros(len(k))
        e = p.e0 + k @ p.M.T
        size = np.maximum(np.abs(p.e0) + np.abs(p.M).sum(axis=1), 1e-300)
        beyond = (np.maximum(e - p.ceiling, 0.0) + np.maximum(p.floor - e, 0.0)) / size
        return np.asarray(1e3 * (p.risk(np.zeros(len(p.r))) + float(p.unit_cost.sum())) * beyond.sum(axis=1))


def _moves(p: _Problem) -> Array:
    """All moves of one lot in one instrument, or in two at once. Shape: (moves, n)."""
    n = len(p.r)
    if not p.whole.all() or n > 40:
        return np.zeros((0, n))
    one = np.eye(n)
    single = [sign * one[i] for i in range(n) for sign in (1.0, -1.0)]
    double = [a * one[i] + b * one[j] for i, j in itertools.combinations(range(n), 2) for a in (1, -1) for b in (1, -1)]
    return np.array(single + double).reshape(-1, n)


def _search(problem: _Problem, *, max_nodes: int, tolerance: float) -> _Found | None:
    if not len(problem.r):
        nothing = np.zeros(0)
        return (
            _Found(nothing, problem.risk(nothing), problem.risk(nothing), True, 0)
            if problem.meets_limits(nothing)
            else None
        )
    return _Search(problem, max_nodes=max_nodes, tolerance=tolerance).run()


def _answer(p: _Problem, found: _Found, *, within_limits: bool) -> HedgeSolution:
    k = found.k
    trade = k * p.step + 0.0  # one zero, not two
    risk, cost, tickets = p.risk(k), float(p.unit_cost @ np.abs(k)), float(p.ticket[k != 0.0].sum())
    return HedgeSolution(
        quantity=p.held + trade,
        trade=trade,
        lots=np.where(p.whole, np.round(k), 0.0).astype(np.int64),
        residual=p.e0 + p.M @ k,
        risk=risk,
        cost=cost,
        tickets=tickets,
        objective=risk + cost + tickets,
        before=p.risk(np.zeros(len(k))),
        bound=min(found.bound, risk + cost + tickets),
        proved=found.proved,
        nodes=found.nodes,
        within_limits=within_limits,
    )
