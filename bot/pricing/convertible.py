"""A convertible is a bond whose holder may take shares instead; law: a row depends on itself only, never raises.

Two models of credit on one grid over the spot, V(S, t) with growth mu = rate - dividend - borrow:

- "afv" (Ayache, Forsyth and Vetzal 2003): default comes with hazard p(S) = hazard (S / hazard_spot)^elasticity; the
  spot then falls by `equity_drop` (0: not at all, 1: to nothing), the holder takes the better of `recovery` face and, where
  conversion is open, the shares:
  V_t + (mu + p drop) S V_S + vol^2 S^2 V_SS / 2 - (rate + p) V + p max(ratio S (1 - drop), recovery face) = 0;
- "tf" (Tsiveriotis and Fernandes 1998): V has a cash-only part B which alone bears the spread s:
  V_t + mu S V_S + vol^2 S^2 V_SS / 2 - rate (V - B) - (rate + s) B = 0, the same with V = B for B. B is 0 where the
  holder converts or the issuer calls, the put's price where the holder puts.

Both under V = max(put, conversion, min(continuation, max(call, conversion))). Crank-Nicolson with Rannacher's damping
after every date, decisions by policy iteration inside each step, on nodes that sit on the contract's corners.

Units: prices per bond, coupon accrued included ("dirty"); delta in shares per bond; vega per 1.00 of vol; theta per year
of calendar time; rho per 1.00 of rate; credit_delta per 1.00 of the hazard or spread given.

>>> terms = ConvertibleTerms(
...     maturity=5.0, ratio=1.0, coupons=level_coupons(face=100.0, rate=0.08, per_year=2, maturity=5.0)
... )
>>> bond = price(100.0, terms, vol=0.2, rate=0.05, hazard=0.02, equity_drop=1.0)
>>> round(float(bond.price), 1), round(float(bond.delta), 2), float(bond.parity)
(137.7, 0.84, 100.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.domain.convertible import SAME_INSTANT, Call, ConvertibleTerms, Put, level_coupons
from bot.domain.units import Years
from bot.pricing.convertible_plan import Plan, Rights, plan, rights_at
from bot.pricing.status import Status

__all__ = [
    "Call",
    "ConvertibleGreeks",
    "ConvertibleGrid",
    "ConvertibleTerms",
    "Market",
    "Put",
    "bond_floor",
    "grid",
    "level_coupons",
    "price",
    "warmup",
]

Array = NDArray[np.float64]
Model: TypeAlias = Literal["tf", "afv"]
Accuracy: TypeAlias = Literal["fast", "default", "high"]
Dividends: TypeAlias = Sequence[tuple[Years, float]]

SHAPES: Final = {"fast": (200, 150), "default": (600, 400), "high": (2400, 1600)}
"""Nodes of the spot, steps of time."""
VOL_BUMP: Final = 1e-2
RATE_BUMP: Final = 2e-3
CREDIT_BUMP: Final = 2e-3
MOST_KEYS: Final = 8
MOST_REACH: Final = 300.0
"""Nodes lie within e^-300 and e^300 of the conversion price."""
WIDEST: Final = 1.0
NARROWEST: Final = 0.002
"""Bounds on the width, in ln spot, of the dense stretch round a corner."""
FIELDS: Final = ("price", "cash", "delta", "gamma", "theta", "vega", "rho", "credit_delta")


class Market(NamedTuple):
    """What one row sees of the market. `credit` is the hazard, or the spread if `by_spread`, at `hazard_spot`."""

    vol: float
    rate: float
    dividend: float
    borrow: float
    credit: float
    elasticity: float
    hazard_spot: float
    recovery: float
    equity_drop: float
    by_spread: bool


class ConvertibleGreeks(NamedTuple):
    """Price and Greeks of each row. Shape: every field has the broadcast shape of the inputs; `status` is int8.

    `cash` is the part that bears the spread ("tf"; NaN under "afv"), `parity` what conversion at the ratio in force
    gives, open or not, `bond_floor` the bond without conversion, calls and puts.
    """

    price: Array
    cash: Array
    delta: Array
    gamma: Array
    vega: Array
    theta: Array
    rho: Array
    credit_delta: Array
    parity: Array
    bond_floor: Array
    status: NDArray[np.int8]


class ConvertibleGrid(NamedTuple):
    """One bond in one market at one instant, ready to be read at any spot: made once, read on every tick.

    Shape: spots (n,), table (8, n) with the rows of FIELDS. Greeks that were not asked for are NaN.
    """

    terms: ConvertibleTerms
    at: Years
    model: Model
    market: Market
    now: Rights
    spots: Array
    table: Array

    def read(self, spot: ArrayLike) -> ConvertibleGreeks:
        """Price and Greeks at any spots, by cubics between nodes. Shape: that of `spot`. A bad spot is NaN with its status."""
        from bot.pricing import convertible_kernels as kernels  # noqa: PLC0415  those who price import the compiler

        given = np.asarray(spot, dtype=np.float64)
        S = np.ascontiguousarray(given).reshape(-1)
        status = np.where(np.isfinite(S), Status.OK, Status.NOT_FINITE)
        at_end = self.terms.maturity - self.at <= SAME_INSTANT
        status[(S == 0.0) | (self.market.vol == 0.0) | at_end] = Status.LIMIT
        status[S < 0.0] = Status.OUT_OF_DOMAIN
        status[~np.isfinite(S)] = Status.NOT_FINITE
        good = (status == Status.OK) | (status == Status.LIMIT)
        out = np.full((len(FIELDS), S.size), np.nan)
        if at_end:
            out[:, good] = _table_at_maturity(self.terms, S[good], self.model)
        else:
            found = np.empty((len(FIELDS), int(good.sum())))
            kernels.read_off(self.spots, self.table, S[good], found)
            out[:, good] = found
            out[0, good] = _within(self.now, S[good], out[0, good])
        floor = np.full(S.size, np.nan)
        floor[good] = bond_floor(S[good], self.terms, self.market, model=self.model, at=self.at)
        field = dict(zip(FIELDS, out, strict=True))
        parity = np.where(good, self.terms.ratio_at(self.at) * S, np.nan)
        broken = good & ~np.isfinite(out[0])
        status[broken] = Status.NOT_CONVERGED
        return _greeks(field, parity, floor, status, given.shape)


def price(
    spot: ArrayLike,
    terms: ConvertibleTerms,
    *,
    vol: ArrayLike,
    rate: ArrayLike = 0.0,
    dividend: ArrayLike = 0.0,
    borrow: ArrayLike = 0.0,
    spread: ArrayLike | None = None,
    hazard: ArrayLike | None = None,
    elasticity: ArrayLike = 0.0,
    hazard_spot: ArrayLike | None = None,
    recovery: ArrayLike = 0.0,
    equity_drop: ArrayLike = 0.0,
    dividends: Dividends = (),
    at: ArrayLike = 0.0,
    model: Model = "afv",
    accuracy: Accuracy = "default",
    greeks: bool = True,
) -> ConvertibleGreeks:
    """Price and Greeks of a convertible bond at time `at` of its terms, by finite differences, compiled.

    Give `hazard` or `spread`, or neither for a bond that cannot default; one is turned into the other by
    spread = hazard (1 - recovery). `dividend` is a yield, `dividends` are (time on the terms' axis, cash per share), after
    which the spot is lower by that much; `borrow` is the cost of a short. A default drops the spot by `equity_drop` ("afv").
    Rows that differ only in spot share one grid. The error falls as 1 / nodes^2 and 1 / steps^2: about 1e-3 on a face of
    100 at "default" (600 nodes, 400 steps), 1e-2 at "fast", 1e-4 at "high". Vega, rho and credit_delta are differences
    of whole grids on the same nodes and cost six of them: `greeks=False` leaves them out (NaN).

    Shape: array arguments broadcast together. At `at` = maturity the last coupon is still to come (Status.LIMIT, as for
    vol 0, a first-order answer, and spot 0); after it the price is 0 (EXPIRED). Domain, else OUT_OF_DOMAIN: spot, vol,
    spread, hazard >= 0, elasticity <= 0, recovery and equity_drop in [0, 1]. Errors: ValueError for an unknown model or
    accuracy, both spread and hazard, an elasticity without hazard_spot, an impossible dividend; a row never raises.
    """
    by_spread = _check(model, accuracy, spread, hazard, elasticity, hazard_spot, dividends)
    credit = spread if by_spread else hazard
    given = [
        np.asarray(x, dtype=np.float64)
        for x in (
            spot,
            at,
            vol,
            rate,
            dividend,
            borrow,
            0.0 if credit is None else credit,
            elasticity,
            1.0 if hazard_spot is None else hazard_spot,
            recovery,
            equity_drop,
        )
    ]
    columns = np.broadcast_arrays(*given)
    shape = columns[0].shape
    rows = np.stack([np.ascontiguousarray(column).reshape(-1) for column in columns], axis=1) + 0.0
    status = _row_status(rows, terms, model, by_spread)
    out = np.full((len(FIELDS) + 2, len(rows)), np.nan)
    out[:, status == Status.EXPIRED] = 0.0
    live = np.flatnonzero((status == Status.OK) | (status == Status.LIMIT))
    groups, member = np.unique(rows[live, 1:], axis=0, return_inverse=True) if live.size else (rows[:0, 1:], live)
    for number, (when, *market) in enumerate(groups.tolist()):
        chosen = live[member.reshape(-1) == number]
        seen = Market._make([*market, by_spread])
        made = _solve(terms, seen, at=when, dividends=dividends, model=model, accuracy=accuracy, greeks=greeks)
        if made is None:
            status[chosen] = Status.NOT_CONVERGED
            continue
        found = made.read(rows[chosen, 0])
        out[:, chosen] = [getattr(found, name) for name in (*FIELDS, "parity", "bond_floor")]
        status[chosen] = np.where(found.status == Status.OK, status[chosen], found.status)
    field = dict(zip(FIELDS, out, strict=False))
    return _greeks(field, out[-2], out[-1], status, shape)


def grid(
    terms: ConvertibleTerms,
    *,
    vol: float,
    rate: float = 0.0,
    dividend: float = 0.0,
    borrow: float = 0.0,
    spread: float | None = None,
    hazard: float | None = None,
    elasticity: float = 0.0,
    hazard_spot: float | None = None,
    recovery: float = 0.0,
    equity_drop: float = 0.0,
    dividends: Dividends = (),
    at: Years = 0.0,
    model: Model = "afv",
    accuracy: Accuracy = "default",
    greeks: bool = True,
) -> ConvertibleGrid:
    """The values of one bond at all spots at once, for a hedger that reads them until the market but for the spot moves.

    Arguments and errors as in `price`, which reads this grid; a market for which a row would be bad is a ValueError here.

    >>> made = grid(ConvertibleTerms(maturity=1.0, ratio=1.0), vol=0.3, spread=0.02, model="tf", greeks=False)
    >>> bool(made.read(90.0).price == price(90.0, made.terms, vol=0.3, spread=0.02, model="tf").price)
    True
    """
    by_spread = _check(model, accuracy, spread, hazard, elasticity, hazard_spot, dividends)
    credit = spread if by_spread else hazard
    market = Market(
        vol=float(vol) + 0.0,
        rate=float(rate) + 0.0,
        dividend=float(dividend) + 0.0,
        borrow=float(borrow) + 0.0,
        credit=0.0 if credit is None else float(credit) + 0.0,
        elasticity=float(elasticity) + 0.0,
        hazard_spot=1.0 if hazard_spot is None else float(hazard_spot),
        recovery=float(recovery) + 0.0,
        equity_drop=float(equity_drop) + 0.0,
        by_spread=by_spread,
    )
    row = np.array([[1.0, at, *market[:-1]]])
    status = Status(int(_row_status(row, terms, model, by_spread)[0]))
    if status not in {Status.OK, Status.LIMIT}:
        raise ValueError(
            f"convertible.grid: expected a market inside the domain, found {status.name} for {market} at {at}"
        )
    made = _solve(terms, market, at=at, dividends=dividends, model=model, accuracy=accuracy, greeks=greeks)
    if made is None:
        raise ValueError(f"convertible.grid: expected a market the grid can hold, found no finite answer for {market}")
    return made


def bond_floor(spot: ArrayLike, terms: ConvertibleTerms, market: Market, *, model: Model, at: Years) -> Array:
    """The bond without conversion, calls and puts: its cash flows at rate plus hazard (and recovery) or plus spread.

    sum c e^(-(r+p) t) + R face p (1 - e^(-(r+p) tau)) / (r + p) for "afv" (Duffie and Singleton 1999), with p that of the
    spot now; sum c e^(-(r+s) t) for "tf". Exact where elasticity is 0. Shape: that of `spot`.
    """
    S = np.asarray(spot, dtype=np.float64)
    level = _credit_level(market, model)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        power = np.power(S / market.hazard_spot, market.elasticity) if market.elasticity != 0.0 else np.ones_like(S)
        credit = np.minimum(level * power if level > 0.0 else np.zeros_like(S), 1e4)
    fall = market.rate + credit
    tau = terms.maturity - at
    total = terms.redeemed * np.exp(-fall * tau)
    for when, amount in terms.coupons:
        if when > at + SAME_INSTANT or when >= terms.maturity - SAME_INSTANT:
            total = total + amount * np.exp(-fall * (when - at))
    if model == "afv":
        near = np.abs(fall) < 1e-9
        years = np.where(near, tau, -np.expm1(-fall * tau) / np.where(near, 1.0, fall))
        total = total + market.recovery * terms.face * credit * years
    return np.asarray(total)


def warmup() -> None:
    """Loads the kernels, so that no later call compiles or reads them from disk."""
    from bot.pricing import convertible_kernels  # noqa: F401, PLC0415  imported for its effect


# ------------------------------------------------------------------------------------------------ one grid


def _solve(
    terms: ConvertibleTerms,
    market: Market,
    *,
    at: Years,
    dividends: Dividends,
    model: Model,
    accuracy: Accuracy,
    greeks: bool,
) -> ConvertibleGrid | None:
    """The grid of one bond, or None where its numbers overflow or its decisions do not settle."""
    from bot.pricing import convertible_kernels as kernels  # noqa: PLC0415  those who price import the compiler

    count, steps = SHAPES[accuracy]
    spots = np.empty(count + 1)
    scale, keys = corners(terms, market)
    width, low, high = reach(terms, market, at, keys)
    kernels.place_nodes(scale, keys, width, low, high, spots)
    now = rights_at(terms, at)
    if terms.maturity - at <= SAME_INSTANT:
        table = _table_at_maturity(terms, spots, model)
        return ConvertibleGrid(terms, at, model, market, rights_at(terms, at), spots, table)
    life = plan(terms, at=at, dividends=dividends, steps=steps)
    faults = 0

    def value(seen: Market) -> tuple[Array, Array]:
        nonlocal faults
        V, B = np.empty_like(spots), np.empty_like(spots)
        arguments: tuple[Any, ...] = (spots, *march_inputs(terms, life, seen, model, spots), V, B)
        unsolved, _ = kernels.march(*arguments)
        faults += unsolved
        return V, B

    V, B = value(market)
    table = np.full((len(FIELDS), spots.size), np.nan)
    delta, gamma = _slopes(spots, V)
    table[0], table[2], table[3] = V, delta, gamma
    if model == "tf":
        table[1] = B
    table[4] = _theta(terms, market, at=at, now=now, model=model, spots=spots, fields=table)
    if greeks:
        step = min(VOL_BUMP, 0.1 * market.vol) if market.vol > 0.0 else VOL_BUMP
        table[5] = _slope(lambda x: value(market._replace(vol=x))[0], market.vol, step, 0.0, V)
        table[6] = _slope(lambda x: value(market._replace(rate=x))[0], market.rate, RATE_BUMP, -math.inf, V)
        table[7] = _slope(lambda x: value(market._replace(credit=x))[0], market.credit, CREDIT_BUMP, 0.0, V)
    if faults or not np.isfinite(V).all():
        return None
    return ConvertibleGrid(terms, at, model, market, now, spots, table)


def march_inputs(terms: ConvertibleTerms, life: Plan, market: Market, model: Model, spots: Array) -> tuple[Any, ...]:
    """What the march takes after its nodes, in its order: the same for the compiled one and its readable twin."""
    from bot.pricing import convertible_kernels as kernels  # noqa: PLC0415  those who price import the compiler

    credit = np.empty_like(spots)
    kernels.hazards(_credit_level(market, model), market.hazard_spot, market.elasticity, spots, credit)
    carry = market.rate - market.dividend - market.borrow
    recovered = market.recovery * terms.face
    split = model == "tf"
    drop = 0.0 if split else market.equity_drop
    paid = (life.shares, life.cash, life.coupon, life.keeps_coupon)
    return (life.rows, *paid, market.vol, market.rate, carry, drop, credit, recovered, terms.face, split)


def corners(terms: ConvertibleTerms, market: Market) -> tuple[float, Array]:
    """A spot to measure by, and the ln of spots over it where the contract has a corner, ascending: nodes gather there."""
    ratios = [ratio for ratio in (terms.ratio_at(terms.maturity), terms.ratio, *_changed(terms)) if ratio > 0.0]
    if not ratios:
        return (market.hazard_spot if market.elasticity != 0.0 else terms.face), np.zeros(1)
    scale = terms.face / ratios[0]
    coupon = 0.0 if terms.converter_keeps_coupon else terms.coupon_at(terms.maturity)
    levels = [(terms.redeemed + coupon) / ratios[0]]
    for call in terms.calls:
        levels += [max(call.price, call.trigger * terms.face) / ratio for ratio in dict.fromkeys(ratios)]
    logs = [math.log(level / scale) for level in levels if level > 0.0]
    near = list(dict.fromkeys(x for x in logs if abs(x) < 5.0))[:MOST_KEYS]
    return scale, np.array(sorted(near or [0.0]))


def _changed(terms: ConvertibleTerms) -> list[float]:
    return [ratio for _, ratio in terms.ratio_changes]


def reach(terms: ConvertibleTerms, market: Market, at: Years, keys: Array) -> tuple[float, float, float]:
    """Width of the dense stretch round a corner, and the ends of the grid, in ln spot."""
    tau = max(terms.maturity - at, 0.0)
    spread = market.vol * math.sqrt(tau)
    drift = abs(market.rate - market.dividend - market.borrow) * tau
    # spots whose forward comes to a corner need nodes too; a hazard that varies is followed far down
    width = min(max(spread + 0.5 * drift, NARROWEST), WIDEST)
    least = 7.0 if market.elasticity != 0.0 and market.credit > 0.0 else 3.0
    low = float(keys[0]) - min(max(least, 6.0 * spread + drift + 0.5 * spread * spread), MOST_REACH)
    high = float(keys[-1]) + min(max(2.5, 6.0 * spread + drift), MOST_REACH)
    return width, low, high


def _credit_level(market: Market, model: Model) -> float:
    """The hazard ("afv") or spread ("tf") at `hazard_spot`, whichever was given."""
    if model == "afv" and market.by_spread:
        return market.credit / (1.0 - market.recovery)
    if model == "tf" and not market.by_spread:
        return market.credit * (1.0 - market.recovery)
    return market.credit


def _slope(f: Callable[[float], Array], x: float, h: float, least: float, middle: Array) -> Array:
    """The first derivative, error of order h^2: central, or forward where x - h would be below `least`."""
    if x - h >= least:
        return np.asarray((f(x + h) - f(x - h)) / (2.0 * h))
    return np.asarray((4.0 * f(x + h) - f(x + 2.0 * h) - 3.0 * middle) / (2.0 * h))


def _slopes(spots: Array, V: Array) -> tuple[Array, Array]:
    """First and second derivative by the spot through three nodes, exact for parabolas. Shape: (n,)."""
    chord = np.diff(V) / np.diff(spots)
    below, above = np.diff(spots)[:-1], np.diff(spots)[1:]
    gamma, delta = np.zeros_like(V), np.empty_like(V)
    gamma[1:-1] = 2.0 * (chord[1:] - chord[:-1]) / (below + above)
    delta[1:-1] = (chord[:-1] * above + chord[1:] * below) / (below + above)
    delta[0], delta[-1] = chord[0], chord[-1]
    return delta, gamma


def _theta(
    terms: ConvertibleTerms, market: Market, *, at: Years, now: Rights, model: Model, spots: Array, fields: Array
) -> Array:
    """dV/dt: what the pricing equation leaves where nothing is decided, else the growth of what was decided."""
    V, cash, delta, gamma = fields[0], fields[1], fields[2], fields[3]
    from bot.pricing import convertible_kernels as kernels  # noqa: PLC0415  those who price import the compiler

    credit = np.empty_like(spots)
    kernels.hazards(_credit_level(market, model), market.hazard_spot, market.elasticity, spots, credit)
    carry = market.rate - market.dividend - market.borrow
    moving = carry * spots * delta + 0.5 * market.vol**2 * spots**2 * gamma
    if model == "tf":
        theta = market.rate * V + credit * cash - moving
    else:
        drop = market.equity_drop
        claim = np.maximum(now.ratio * spots * (1.0 - drop), market.recovery * terms.face)
        theta = (market.rate + credit) * V - moving - credit * drop * spots * delta - credit * claim
    parity = now.ratio * spots
    close = 1e-11 * (np.abs(V) + terms.face)
    accruing = terms.accrual_rate(at)
    clean_put = any(put.clean for put in terms.puts if put.start <= at + SAME_INSTANT and at <= put.end + SAME_INSTANT)
    clean_call = any(
        call.clean for call in terms.calls if call.start <= at + SAME_INSTANT and at <= call.end + SAME_INSTANT
    )
    called = (now.call - close <= V) & (parity >= now.trigger)
    theta = np.where(called, accruing if clean_call else 0.0, theta)
    theta = np.where(now.put + close >= V, accruing if clean_put else 0.0, theta)
    return np.asarray(np.where((now.ratio > 0.0) & (parity + close >= V), 0.0, theta))


def _table_at_maturity(terms: ConvertibleTerms, spots: Array, model: Model) -> Array:
    """Payoff and its slope at maturity, the last coupon still to come."""
    begin, finish = terms.conversion_window
    opened = begin <= terms.maturity + SAME_INSTANT and finish >= terms.maturity - SAME_INSTANT
    ratio = terms.ratio_at(terms.maturity) if opened else 0.0
    coupon = terms.coupon_at(terms.maturity)
    extra = coupon if terms.converter_keeps_coupon else 0.0
    converted = (ratio > 0.0) & (ratio * spots + extra >= terms.redeemed + coupon)
    table = np.zeros((len(FIELDS), spots.size))
    table[0] = np.where(converted, ratio * spots + extra, terms.redeemed + coupon)
    table[1] = np.where(converted, extra, table[0]) if model == "tf" else np.nan
    table[2] = np.where(converted, ratio, 0.0)
    return table


def _within(now: Rights, spot: Array, value: Array) -> Array:
    """The value inside what both sides let stand now: a cubic may leave it by its error near a corner."""
    parity = now.ratio * spot
    low = np.maximum(parity if now.ratio > 0.0 else -np.inf, now.put)
    callable_now = parity >= now.trigger * (1.0 - 1e-12)
    high = np.where(callable_now, np.maximum(now.call, parity), np.inf)
    return np.asarray(np.maximum(np.minimum(value, high), low))


# ------------------------------------------------------------------------------------------------ rows


def _check(
    model: str,
    accuracy: str,
    spread: object,
    hazard: object,
    elasticity: ArrayLike,
    hazard_spot: object,
    dividends: Dividends,
) -> bool:
    """Whether credit is given as a spread; ValueError for arguments that are wrong for every row."""
    if model not in {"tf", "afv"}:
        raise ValueError(f"convertible: model: expected 'tf' or 'afv', found {model!r}")
    if accuracy not in SHAPES:
        raise ValueError(f"convertible: accuracy: expected one of {list(SHAPES)}, found {accuracy!r}")
    if spread is not None and hazard is not None:
        raise ValueError("convertible: expected a spread or a hazard, found both")
    if hazard_spot is None and np.any(np.asarray(elasticity) != 0.0):
        raise ValueError(
            "convertible: elasticity: expected hazard_spot beside it, the spot at which the hazard was given"
        )
    for when, amount in dividends:
        if not (math.isfinite(when) and math.isfinite(amount) and amount >= 0.0):
            raise ValueError(f"convertible: dividends: expected (years, amount >= 0), found {(when, amount)}")
    return spread is not None


def _row_status(rows: Array, terms: ConvertibleTerms, model: str, by_spread: bool) -> NDArray[np.int8]:
    """What each row is before it is priced. Shape: rows (n, 11): spot, at, then the market's columns."""
    S, at, vol, _, _, _, credit, elasticity, hazard_spot, recovery, drop = rows.T
    status = np.full(len(rows), Status.OK, dtype=np.int8)
    left = terms.maturity - at
    with np.errstate(invalid="ignore"):
        status[(np.abs(left) <= SAME_INSTANT) | (vol == 0.0) | (S == 0.0)] = Status.LIMIT
        status[left < -SAME_INSTANT] = Status.EXPIRED
        wrong = (S < 0.0) | (vol < 0.0) | (credit < 0.0) | (elasticity > 0.0) | ~((recovery >= 0.0) & (recovery <= 1.0))
        wrong |= ~((drop >= 0.0) & (drop <= 1.0)) | ~(hazard_spot > 0.0)
        if by_spread and model == "afv":
            wrong |= (recovery >= 1.0) & (credit > 0.0)
        status[wrong] = Status.OUT_OF_DOMAIN
    status[~np.isfinite(rows).all(axis=1)] = Status.NOT_FINITE
    return status


def _greeks(
    field: dict[str, Array], parity: Array, floor: Array, status: NDArray[Any], shape: tuple[int, ...]
) -> ConvertibleGreeks:
    return ConvertibleGreeks(
        price=field["price"].reshape(shape),
        cash=field["cash"].reshape(shape),
        delta=field["delta"].reshape(shape),
        gamma=field["gamma"].reshape(shape),
        vega=field["vega"].reshape(shape),
        theta=field["theta"].reshape(shape),
        rho=field["rho"].reshape(shape),
        credit_delta=field["credit_delta"].reshape(shape),
        parity=parity.reshape(shape),
        bond_floor=floor.reshape(shape),
        status=status.astype(np.int8).reshape(shape),
    )
