"""An American option is one that may be exercised at any instant to expiry; law: a row depends on itself only, never raises.

Conventions as in `black`: `cp` +1 call, -1 put; continuous rates per year; vega per 1.00 of vol; theta per year of
calendar time (dV/dt); rho per 1.00 of rate. Method: the early exercise premium as an integral over the exercise boundary
(Kim 1990), the boundary by spectral collocation (Andersen, Lake and Offengenden 2016), a call as the put with spot and
strike, rate and yield exchanged (McDonald and Schroder 1998). Greeks are derivatives of that integral, the boundary's own
derivatives included; nothing is bumped. Compiled; importing this module does not import the compiler.

Where exercise before expiry never pays the answer is `black.greeks_slice`'s, bit for bit. With q < r < 0 (puts) or r < q < 0
(calls) there are two boundaries: refused with Status.DOUBLE_BOUNDARY.

>>> put = price(100.0, 100.0, 1.0, 0.2, rate=0.05, cp=-1)
>>> round(float(put.price), 4), round(float(put.delta), 4)
(6.0904, -0.4111)
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.pricing import american_tables as tables
from bot.pricing import black
from bot.pricing.black import Array
from bot.pricing.implied import ImpliedVol
from bot.pricing.status import Status

Accuracy: TypeAlias = Literal["fast", "default", "high", "reference"]

SHAPES: Final = {
    "fast": ((4, 4, 1), (6, 6, 16), 2, 1e-3),
    "default": ((6, 6, 2), (12, 10, 48), 5, 1e-3),
    "high": ((12, 10, 3), (28, 40, 64), 8, 1e-10),
    "reference": ((12, 12, 4), (40, 90, 120), 12, 1e-12),
}
"""First few nodes: of the boundary, of its integrals, Newton rounds; then nodes of the boundary, of its integrals, of the
price's integral; Newton rounds at most; tolerance on ln b / w."""
NO_GAIN: Final = 1e-16
FAR_RATES: Final = 1.0
"""Rows with (|r| + |q|) tau beyond it, and with |r - q| sqrt(tau) / vol beyond FAR_DRIFT, are solved as "high"."""
FAR_DRIFT: Final = 2.0
STEEP: Final = ((15.0, 16), (150.0, 64), (600.0, 192))
"""Drifts of deviations from which a spot that falls into exercise does so at one instant, and the panels of 16 points over
which the price's integral is then taken. Beyond the last the step's own weight, r K - q S at the boundary, is all but 0."""
PANEL: Final = 16
HORIZON: Final = 9.0
"""A drift of so many deviations away from exercise leaves e^(-HORIZON^2 / 2) for later: the option never ends, so to say."""


class Boundary(NamedTuple):
    """Spots at which exercise begins. Shape: both fields the inputs' shape and an axis of times, longest first.

    A put is exercised at or below `spot`, a call at or above; NaN where exercise before expiry never pays.
    """

    tau: Array
    spot: Array


class AmericanGreeks(NamedTuple):
    """Price and Greeks of each row. Shape: every field has the broadcast shape of the inputs; `status` is int8."""

    price: Array
    delta: Array
    gamma: Array
    vega: Array
    theta: Array
    rho: Array
    status: NDArray[np.int8]
    boundary: Boundary | None = None


class AmericanValue(NamedTuple):
    """Prices alone. Shape: the broadcast shape of the inputs."""

    price: Array
    status: NDArray[np.int8]


def price(
    spot: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    *,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    cp: ArrayLike = 1,
    accuracy: Accuracy = "default",
    boundary: bool = False,
) -> AmericanGreeks:
    """Price and Greeks of American options on a spot that pays a continuous yield, compiled.

    V = v + cp-signed INT (r K e^(-r u) N(-d-) - q S e^(-q u) N(-d+)) du for a put, v the European price, d of S/b(tau-u)
    (Kim 1990; Andersen, Lake and Offengenden 2016, eq. 6). "default" is within 1e-5, "high" within 1e-7 of the
    truth on a strike of 100, for vols, rates and times a listed option has; "fast" is mostly within 1e-4, "reference" is
    slow and what the others are held against. At or beyond its boundary an option is worth what
    exercise gives: delta cp, the other Greeks 0. With no time, vol, spot or strike left the limits hold (Status.LIMIT).

    Shape: all arguments broadcast together. Units: see the module. Errors: ValueError for an unknown `accuracy`; a row
    never raises. Pass `boundary=True` for the exercise boundary too.
    """
    rows = _Rows(spot, strike, tau, vol, rate, dividend, cp)
    out, ln_b, live = _solve(rows, accuracy, greeks=True)
    fields = [column.reshape(rows.shape) for column in out]
    edges = _boundary_of(rows, ln_b, live, accuracy) if boundary else None
    return AmericanGreeks._make([*fields, rows.status.reshape(rows.shape), edges])


def value(
    spot: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    vol: ArrayLike,
    *,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    cp: ArrayLike = 1,
    accuracy: Accuracy = "default",
) -> AmericanValue:
    """The price of `price`, bit for bit, without the Greeks and their time. Shape: all arguments broadcast together."""
    rows = _Rows(spot, strike, tau, vol, rate, dividend, cp)
    out, _, _ = _solve(rows, accuracy, greeks=False)
    return AmericanValue(out[0].reshape(rows.shape), rows.status.reshape(rows.shape))


def implied_vol(
    price: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    tau: ArrayLike,
    *,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    cp: ArrayLike = 1,
    accuracy: Accuracy = "default",
) -> ImpliedVol:
    """The vol whose American price is `price`: Newton with vega inside a bracket that each evaluation tightens.

    Shape: all arguments broadcast together. Units: vol per square root of a year. Errors: none in a batch; statuses as
    `implied.vol`: BELOW_INTRINSIC when the price is less than exercise now or the zero-vol value gives, AT_INTRINSIC when
    it is that value (any vol up to a bound fits), ABOVE_BOUND, EXPIRED (tau <= 0), DOUBLE_BOUNDARY, NOT_FINITE,
    OUT_OF_DOMAIN.
    """
    given = np.asarray(price, dtype=np.float64)
    shape = np.broadcast_shapes(given.shape, *(np.shape(x) for x in (spot, strike, tau, rate, dividend, cp)))
    P = np.broadcast_to(given, shape).ravel()
    rows = _Rows(
        *(np.broadcast_to(np.asarray(x, np.float64), shape) for x in (spot, strike, tau, 0.0, rate, dividend, cp))
    )
    status = _implied_status(P, rows)
    found = np.full(P.size, np.nan)
    todo = np.flatnonzero(status == Status.OK)
    if todo.size:
        found[todo], failed = _search_vol(P[todo], rows.take(todo), accuracy)
        status[todo[failed]] = Status.NOT_CONVERGED
    return ImpliedVol(found.reshape(shape), status.reshape(shape))


def warmup() -> None:
    """Load (on a new host: compile) the kernels, so that none compiles on the first tick."""
    with black.without_collection():
        price(100.0, 100.0, 1.0, 0.2, rate=0.05, cp=-1)
        value(100.0, 100.0, 1.0, 0.2, rate=0.05, cp=-1)


class _Rows:
    """The inputs as flat float64 columns of one length, with the status that they alone decide."""

    def __init__(self, *given: ArrayLike) -> None:
        columns = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in given))
        self.shape = columns[0].shape
        self.columns = [np.ascontiguousarray(column).reshape(-1) for column in columns]
        self.S, self.K, self.tau, self.vol, self.r, self.q, self.cp = self.columns
        with np.errstate(all="ignore"):
            self.status = black.row_status(self.S, self.K, self.tau, self.vol, self.cp, self.r, self.q)

    def take(self, index: NDArray[np.int64]) -> _Rows:
        return _Rows(*(column[index] for column in self.columns))

    def as_puts(self) -> tuple[Array, Array, Array, Array]:
        """spot, strike, r, q of the equivalent puts (McDonald and Schroder 1998)."""
        put = self.cp < 0.0
        where = np.where
        return (
            where(put, self.S, self.K),
            where(put, self.K, self.S),
            where(put, self.r, self.q),
            where(put, self.q, self.r),
        )


def _solve(rows: _Rows, accuracy: Accuracy, *, greeks: bool) -> tuple[Array, Array, NDArray[np.int64]]:
    """Outputs (6, n), ln boundary (m, nodes) of the m rows that have one, and their indices; completes rows.status."""
    scheme = scheme_of(accuracy)
    out = np.full((6, rows.S.size), np.nan)
    s, k, r, q = rows.as_puts()
    ok = rows.status == Status.OK
    # all that exercise can gain is interest, at most r tau of the strike: below rounding it is nothing
    with np.errstate(all="ignore"):
        no_gain = r * rows.tau < NO_GAIN
    european = ok & (((r < 0.0) & (q >= r)) | ((r >= 0.0) & (q >= 0.0) & no_gain))
    double = ok & (r < 0.0) & (q < r)
    rows.status[double] = Status.DOUBLE_BOUNDARY
    out[:, rows.status == Status.EXPIRED] = 0.0
    for select, answer in ((european, _european), (rows.status == Status.LIMIT, _limit)):
        if select.any():
            index = np.flatnonzero(select)
            out[:, index] = answer(rows.take(index))
    # where exercise gains less than rounding the European price may round below what exercise gives
    exercised = rows.cp[european] * (rows.S[european] - rows.K[european])
    out[0, european] = np.maximum(out[0, european], exercised)
    beyond = (european | (rows.status == Status.LIMIT)) & ~np.isfinite(out).all(axis=0)
    out[:, beyond] = np.nan
    rows.status[beyond] = Status.OUT_OF_DOMAIN
    live = np.flatnonzero(ok & ~european & ~double)
    ln_b = np.empty((live.size, scheme.nodes.size))
    if live.size == 0:
        return out, ln_b, live
    columns = [column[live] for column in (s, k, r, q, rows.tau, rows.vol, rows.cp)]
    columns[4], stretch = _horizon(*columns[2:6])
    panels = _panels(*columns[2:6])
    hard = _is_hard(*columns[2:6]) & (accuracy in {"fast", "default"})
    if hard.any() or panels.any() or (stretch > 1.0).any():
        result = np.empty((6, live.size))
        for many, count in sorted(set(zip(hard.tolist(), panels.tolist(), strict=True))):
            select = (hard == many) & (panels == count)
            level = scheme_of("high" if many else accuracy, count)
            some = [column[select] for column in columns]
            found = np.empty((some[0].size, level.nodes.size))
            result[:, select] = _puts(level, some, found, greeks=greeks)
            same = level is scheme and not (stretch[select] > 1.0).any()
            ln_b[select] = found if same else _at_nodes(found, level, scheme, some[2], some[3], stretch[select])
    else:
        result = _puts(scheme, columns, ln_b, greeks=greeks)
    out[:, live] = result
    lost = ~np.isfinite(result if greeks else result[:1]).all(axis=0)
    out[:, live[lost]] = np.nan
    rows.status[live[lost]] = Status.NOT_CONVERGED
    return out, ln_b, live


def _is_hard(r: Array, q: Array, tau: Array, vol: Array) -> NDArray[np.bool_]:
    """Whether a boundary is too steep for few nodes: rates of years or drifts of deviations that no listed option has."""
    with np.errstate(all="ignore"):
        long = (np.abs(r) + np.abs(q)) * tau > FAR_RATES
        hard: NDArray[np.bool_] = long | (np.abs(r - q) * np.sqrt(tau) > FAR_DRIFT * vol)
    return hard


def _horizon(r: Array, q: Array, tau: Array, vol: Array) -> tuple[Array, Array]:
    """The time within which exercise is decided, and the root of tau over it. Shape: both (k,).

    A put's spot that drifts up by many deviations is exercised soon or never: tau beyond that adds nothing, and the boundary
    of the whole time would be a step that no few nodes resolve.
    """
    with np.errstate(all="ignore"):
        drift = np.where(r > q, (r - q) * np.sqrt(tau) / vol, 0.0)
        stretch = np.clip(drift / HORIZON, 1.0, 1e9)
    return tau / (stretch * stretch), stretch


def _panels(r: Array, q: Array, tau: Array, vol: Array) -> NDArray[np.int64]:
    """Panels of the price's integral for rows that few points would step over, 0 for all others. Shape: (k,)."""
    with np.errstate(all="ignore"):
        drift = np.where(q > r, (q - r) * np.sqrt(tau) / vol, 0.0)
    panels = np.zeros(r.size, dtype=np.int64)
    for least, count in STEEP:
        panels[drift > least] = count
    return panels


def _at_nodes(ln_b: Array, have: Scheme, want: Scheme, r: Array, q: Array, stretch: Array) -> Array:
    """ln b at the nodes of another scheme, whose time is stretch^2 as long. Shape: ln_b and result (k, nodes) of either."""
    z = np.cbrt(have.nodes * have.nodes)
    at = np.cbrt(np.minimum(want.nodes * stretch[:, None], 1.0) ** 2)
    across = tables.interpolation(z, at.ravel()).reshape(*at.shape, z.size)
    with np.errstate(all="ignore"):
        limit = np.where(q > r, np.log(r / q), 0.0)[:, None]
        H = np.sum(across * ((ln_b - limit) ** 2)[:, None, :], axis=2)
        found: Array = limit - np.sqrt(np.maximum(H, 0.0))
    return found


def _puts(scheme: Scheme, columns: list[Array], ln_b: Array, *, greeks: bool) -> Array:
    """Outputs (6, m) of rows given as puts, turned back into what they were. Writes ln_b."""
    from bot.pricing import american_kernels as kernels  # noqa: PLC0415  the compiler is imported by those who price

    s, k, r, q, tau, vol, cp = columns
    x = s / k
    raw = np.empty((kernels.OUTPUTS, s.size))
    kernels.put_rows(np.stack([x, tau, r, q, vol, cp]), *scheme, greeks, raw, ln_b)
    return _as_asked(columns, x, raw, greeks=greeks)


@np.errstate(all="ignore")
def _as_asked(columns: list[Array], x: Array, raw: Array, *, greeks: bool) -> Array:
    """The outputs of puts of strike 1 as those of the rows they stand for. Shape: (6, m)."""
    s, k, _, _, _, _, cp = columns
    result = np.full((6, s.size), np.nan)
    exercised = raw[0] == 1.0 - x
    result[0] = np.where(exercised, k - s, k * raw[0])
    if not greeks:
        return result
    value, delta, gamma = raw[:3]
    call = cp > 0.0
    # a call of spot S is S p(x), x = K / S: its delta is p - x p', its gamma x^2 p'' / S
    result[1] = np.where(call, np.where(exercised, 1.0, np.minimum(value - x * delta, 1.0)), delta)
    result[2] = np.where(call, x * x, 1.0) * gamma / k
    result[3:] = k * raw[3:]
    return result


def _european(rows: _Rows) -> Array:
    """The compiled European outputs, whose bits no processor changes; rho from S delta - V, the discounted strike part."""
    found = black.greeks_slice(rows.S, rows.K, rows.tau, rows.vol, rate=rows.r, dividend=rows.q, cp=rows.cp)
    return np.stack([*found, rows.tau * (rows.S * found.delta - found.price)])


def _limit(rows: _Rows) -> Array:
    """The best instant of exercise on the one path there is: sup over u of cp (S e^(-q u) - K e^(-r u)), or 0."""
    S, K, tau, _, r, q, cp = rows.columns
    with np.errstate(all="ignore"):
        turn = np.log((q * S) / (r * K)) / (q - r)
        turn = np.where(np.isfinite(turn), np.clip(turn, 0.0, tau), 0.0)
        times = np.stack([np.zeros_like(tau), tau, turn])
        gains = cp * (S * np.exp(-q * times) - K * np.exp(-r * times))
        best = np.argmax(np.where(np.isnan(gains), -np.inf, gains), axis=0)[None]
        u = np.take_along_axis(times, best, 0)[0]
        gain = np.take_along_axis(gains, best, 0)[0]
        weight = np.where(gain > 0.0, 1.0, np.where(gain == 0.0, 0.5, 0.0))
        decay = np.where((u == tau) & (tau > 0.0), cp * (q * S * np.exp(-q * u) - r * K * np.exp(-r * u)), 0.0)
        return np.stack(
            [
                np.maximum(gain, 0.0),
                weight * cp * np.exp(-q * u),
                np.zeros_like(S),
                np.where(gain == 0.0, black.PHI_0 * S * np.exp(-q * u) * np.sqrt(u), 0.0),
                weight * decay,
                weight * cp * u * K * np.exp(-r * u),
            ]
        )


def _boundary_of(rows: _Rows, ln_b: Array, live: NDArray[np.int64], accuracy: Accuracy) -> Boundary:
    nodes = scheme_of(accuracy).nodes
    levels = np.full((rows.S.size, nodes.size), np.nan)
    with np.errstate(all="ignore"):
        left = rows.tau[:, None] * nodes**2
        levels[live] = rows.K[live, None] * np.exp(-rows.cp[live, None] * ln_b)
    return Boundary(left.reshape(*rows.shape, -1), levels.reshape(*rows.shape, -1))


# ------------------------------------------------------------------------------------------- implied vol


def _implied_status(P: Array, rows: _Rows) -> NDArray[np.int8]:
    """What the inputs alone say of each price."""
    with np.errstate(all="ignore"):
        lowest = _limit(rows)[0]
        highest = np.where(
            rows.cp > 0.0,
            rows.S * np.maximum(1.0, np.exp(-rows.q * rows.tau)),
            rows.K * np.maximum(1.0, np.exp(-rows.r * rows.tau)),
        )
        _, _, r, q = rows.as_puts()
        rounding = 4.0 * np.finfo(np.float64).eps * np.maximum(rows.S, rows.K)
        status = np.full(P.size, Status.OK, dtype=np.int8)
        status[(r < 0.0) & (q < r)] = Status.DOUBLE_BOUNDARY
        status[highest <= P] = Status.ABOVE_BOUND
        status[lowest > P] = Status.BELOW_INTRINSIC
        status[np.abs(P - lowest) <= np.where(lowest > 0.0, rounding, 0.0)] = Status.AT_INTRINSIC
        status[(rows.S <= 0.0) | (rows.K <= 0.0) | (np.abs(rows.cp) != 1.0)] = Status.OUT_OF_DOMAIN
        status[rows.tau <= 0.0] = Status.EXPIRED
        finite = np.isfinite(P) & (rows.status != Status.NOT_FINITE)
        for column in rows.columns:
            finite &= np.isfinite(column)
        status[~finite] = Status.NOT_FINITE
    return status


def _search_vol(P: Array, rows: _Rows, accuracy: Accuracy) -> tuple[Array, NDArray[np.bool_]]:
    """The vol of each row, and which rows found none. Every round prices the rows that are still open in one call."""
    S, K, tau, _, r, q, cp = rows.columns
    lo = np.zeros(P.size)
    hi = np.full(P.size, np.inf)
    with np.errstate(all="ignore"):
        near = np.sqrt(2.0 * np.pi / tau) * (P - 0.5 * np.maximum(cp * (S - K), 0.0)) / (0.5 * (S + K))
    vol = np.clip(near, 0.02, 4.0)
    settled = np.zeros(P.size, dtype=bool)
    scale = np.maximum(S, K)
    for _ in range(100):
        open_rows = np.flatnonzero(~settled)
        if open_rows.size == 0:
            break
        i = open_rows
        at = price(S[i], K[i], tau[i], vol[i], rate=r[i], dividend=q[i], cp=cp[i], accuracy=accuracy)
        miss = at.price - P[i]
        over = miss > 0.0
        hi[i] = np.where(over, np.minimum(hi[i], vol[i]), hi[i])
        lo[i] = np.where(over, lo[i], np.maximum(lo[i], vol[i]))
        with np.errstate(all="ignore"):
            after = vol[i] - miss / at.vega
        middle = np.where(np.isfinite(hi[i]), 0.5 * (lo[i] + hi[i]), 2.0 * vol[i])
        inside = (after > lo[i]) & (after < hi[i]) & (after < 4.0 * vol[i])
        after = np.where(inside, after, middle)
        done = (np.abs(after - vol[i]) <= 1e-13 * vol[i]) | (np.abs(miss) <= 1e-15 * scale[i])
        lost = ~np.isfinite(at.price) | (vol[i] > 1e3)
        settled[i] = done | lost
        vol[i] = np.where(lost, np.nan, np.where(np.abs(miss) <= 1e-15 * scale[i], vol[i], after))
    return vol, np.isnan(vol)


# ------------------------------------------------------------------------------------------- collocation


class Scheme(NamedTuple):
    """Nodes, matrices from values at nodes to points, quadrature rules and rounds, in the order of `put_rows`.

    Shape: n0 few nodes with l0 points each, n nodes with l points each, p points of the price: few (n0,), few_across
    (n0 l0, n0), few_rules (4, n0 l0), nodes (n,), lift (n, n0), across (n l, n), rules (4, n l), price_across (p, n),
    price_rules (4, p). Nodes are roots of the time left as fractions of sqrt(tau), longest first.
    """

    few: Array
    few_across: Array
    few_rules: Array
    few_rounds: int
    nodes: Array
    lift: Array
    across: Array
    rules: Array
    price_across: Array
    price_rules: Array
    rounds: int
    tolerance: float


@cache
def scheme_of(accuracy: str, panels: int = 0) -> Scheme:
    """The tables of one accuracy, its price's integral over so many panels if any. Errors: ValueError for an unknown one."""
    if accuracy not in SHAPES:
        raise ValueError(f"american: accuracy: expected one of {sorted(SHAPES)}, found {accuracy!r}")
    (n_0, inner_0, rounds_0), (n, inner, outer), rounds, tolerance = SHAPES[accuracy]
    few, z = tables.nodes_z(n_0), tables.nodes_z(n)
    few_rules, few_points = tables.rules(few, tables.angles(inner_0))
    rules, points = tables.rules(z, tables.angles(inner))
    price_rules, price_points = tables.rules(
        np.ones(1), tables.angles(PANEL, panels) if panels else tables.angles(outer)
    )
    return Scheme(
        few=few * np.sqrt(few),
        few_across=tables.interpolation(few, few_points),
        few_rules=few_rules,
        few_rounds=rounds_0,
        nodes=z * np.sqrt(z),
        lift=tables.interpolation(few, z),
        across=tables.interpolation(z, points),
        rules=rules,
        price_across=tables.interpolation(z, price_points),
        price_rules=price_rules,
        rounds=rounds,
        tolerance=tolerance,
    )
