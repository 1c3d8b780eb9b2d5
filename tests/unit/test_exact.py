"""The exact optimum: its measured prices and bands, its slow twin, a plain oracle, rules scored without noise."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.core.ports import BandInput, HedgePlan, HedgePolicy, Prepares
from bot.domain.units import NEVER, NS_PER_YEAR
from bot.pricing import black, exact
from strategies.policies.delta_band import DeltaBand
from strategies.policies.exact_band import ExactBand, PreparedExactBand, problem_of_plan, solve
from strategies.policies.guarded_band import GuardedBand, rule_of

Array = NDArray[np.float64]

CALL = [(1, 100, -1)]
SPREAD = [(1, 95, -1), (1, 105, 1)]
YARDSTICK: dict[str, Any] = {"spot": 100.0, "vol": 0.2, "tau": 0.25, "dates": 252}


def yardstick(cost: float, g: float, legs: Any = CALL, **changes: Any) -> exact.Problem:
    return exact.problem_of(legs, cost=cost, risk_aversion=g, **(YARDSTICK | changes))


# ------------------------------------------------------------------------------------------------ measured anchors


@pytest.mark.parametrize(
    ("cost", "g", "legs", "price"),
    [
        (0.0005, 0.1, CALL, 4.1009),
        (0.0005, 1.0, CALL, 4.1885),
        (0.002, 0.1, CALL, 4.3334),
        (0.002, 1.0, CALL, 4.5514),
        (0.01, 0.1, CALL, 5.2598),
        (0.01, 1.0, CALL, 6.0830),
        (0.002, 1.0, SPREAD, 5.2559),
    ],
)
def test_measured_prices(cost: float, g: float, legs: Any, price: float) -> None:
    """The optimum's price at 252 dates is the one measured by a reference program."""
    assert solve(legs, cost=cost, risk_aversion=g, **YARDSTICK).price == pytest.approx(price, abs=1e-3)


@pytest.mark.parametrize(
    ("cost", "prices"), [(0.002, (4.5947, 4.5652, 4.5514, 4.5447)), (0.01, (6.1230, 6.0959, 6.0830, 6.0768))]
)
def test_convergence_in_dates(cost: float, prices: tuple[float, ...]) -> None:
    """More dates are worth something, as measured: 63, 126, 252, 504."""
    found = [solve(CALL, cost=cost, risk_aversion=1.0, **(YARDSTICK | {"dates": n})).price for n in (63, 126, 252, 504)]
    assert found == pytest.approx(prices, abs=2e-4)
    assert np.all(np.diff(found) < 0.0)


@pytest.mark.parametrize(("cost", "band"), [(0.002, (0.4743, 0.5865)), (0.01, (0.4756, 0.6465))])
def test_opening_bands(cost: float, band: tuple[float, float]) -> None:
    """The opening no-trade band is the measured one."""
    assert solve(CALL, cost=cost, risk_aversion=1.0, **YARDSTICK).band(0, 100.0) == pytest.approx(band, abs=1e-3)


def test_naked_entropic_price() -> None:
    """Where trading never pays, the price is the entropic price of the naked call, known by quadrature."""
    found = solve([(1, 1, -1)], spot=1.0, vol=0.2, tau=0.08, cost=0.005, risk_aversion=1.0, dates=20)
    assert found.price == pytest.approx(0.0231594, abs=5e-8)
    lo, hi = found.band(0, 1.0)
    assert lo == 0.0 < hi


@pytest.mark.parametrize(("cost", "g", "share"), [(1e-4, 1.0, 0.12), (5e-4, 1.0, 0.06), (5e-4, 0.1, 0.04)])
def test_closed_form_premium(cost: float, g: float, share: float) -> None:
    """Whalley and Wilmott's integral comes near the optimum's premium at 504 dates, as near as was measured."""
    problem = yardstick(cost, g, dates=504)
    premium = exact.solve_problem(problem).price - float(black.bsm(100.0, 100.0, 0.25, 0.2).price)
    assert premium == pytest.approx({(1e-4, 1.0): 0.0636, (5e-4, 1.0): 0.1936, (5e-4, 0.1): 0.1126}[cost, g], abs=2e-4)
    assert exact.whalley_wilmott_premium(problem) == pytest.approx(premium, rel=share)


# ------------------------------------------------------------------------------------------------ slow twin, finer grids

BOOKS: list[dict[str, Any]] = [
    {"legs": CALL},
    {"legs": [(1, 100, -1), (-1, 100, -1)]},
    {"legs": [(1, 100, 1), (-1, 95, -2, 0.12)]},
    {"legs": [(1, 90, 1), (1, 100, -2), (1, 110, 1)], "fixed_cost": 0.02},
    {"legs": SPREAD, "lot": 0.05},
    {"legs": CALL, "lot": 0.1, "fixed_cost": 0.05},
    {"legs": CALL, "charge_open": False, "charge_close": False, "rate": 0.05, "dividend": 0.02},
    {"legs": [(0, 0, 1.5), (1, 100, -1)], "cost": 0.0},
    {"legs": CALL, "risk_aversion": 300.0},
]


def book(**changes: Any) -> exact.Problem:
    return exact.problem_of(
        **({"spot": 100.0, "vol": 0.2, "tau": 0.25, "dates": 12, "cost": 0.002, "risk_aversion": 1.0} | changes)
    )


@pytest.mark.parametrize("changes", BOOKS, ids=range(len(BOOKS)))
def test_compiled_equals_readable(changes: dict[str, Any]) -> None:
    """The compiled steps, which work in a corridor around the band, give what the readable ones give on all columns."""
    problem = book(**changes)
    fast = exact.solve_problem(problem, columns=60)
    slow = exact.solve_problem(problem, columns=60, steps=exact.READABLE)
    assert fast.price == pytest.approx(slow.price, rel=1e-9)
    middle = slice(fast.low.shape[1] // 4, -fast.low.shape[1] // 4)
    for name in ("low", "buy", "sell", "high"):
        assert getattr(fast, name)[:, middle] == pytest.approx(getattr(slow, name)[:, middle], abs=1e-6)


@pytest.mark.parametrize("changes", BOOKS[:-1], ids=range(len(BOOKS) - 1))
def test_finer_grids_agree(changes: dict[str, Any]) -> None:
    """Twice the rows and columns move the price by less than 2e-4 and the opening band by less than 2e-3."""
    problem = book(**(changes | {"dates": 60}))
    usual = exact.solve_problem(problem)
    fine = exact.solve_problem(problem, per_step=4, columns=800)
    assert usual.price == pytest.approx(fine.price, abs=2e-4)
    if not problem.lot:
        assert usual.band(0, 100.0) == pytest.approx(fine.band(0, 100.0), abs=2e-3)


# ------------------------------------------------------------------------------------------------ a plain oracle


def panels(a: float, b: float, cuts: list[float], width: float = 1.0) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on a..b, in panels of a width, cut where told."""
    inner = sorted({x for x in [*cuts, *np.arange(a, b, width)] if a < x < b})
    u, w = np.polynomial.legendre.leggauss(12)
    nodes = [
        (0.5 * (hi - lo) * u + 0.5 * (hi + lo), 0.5 * (hi - lo) * w) for lo, hi in itertools.pairwise([a, *inner, b])
    ]
    return np.concatenate([x for x, _ in nodes]), np.concatenate([x for _, x in nodes])


def step_from(spot: float, s: float, strikes: list[float], width: float = 1.0) -> tuple[Array, Array]:
    """Prices a step later and their probabilities."""
    z, w = panels(-7.5, 7.5, [(math.log(K / spot) + 0.5 * s * s) / s for K in strikes], width)
    return spot * np.exp(s * z - 0.5 * s * s), w * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def by_hand(
    legs: list[tuple[float, float, float, float]], *, g: float, lam: float, fee: float, y: Array, vol: float, tau: float
) -> float:
    """The price with two dates, every holding of y tried: plain quadrature and plain minima."""
    s = vol * math.sqrt(tau / 2)
    dates = [[row for row in legs if round(row[3] / tau * 2) == date] for date in (1, 2)]

    def owed(date: int, S: Array) -> Array:
        zero = np.zeros_like(S)
        return sum((-q * np.maximum(cp * (S - K), 0.0) for cp, K, q, _ in dates[date - 1]), zero)

    def entropic(loss: Array, weight: Array) -> Array:
        peak = loss.max(axis=-1, keepdims=True)
        return np.asarray(peak[..., 0] + np.log(np.exp(g * (loss - peak)) @ weight) / g)

    moves = lam * np.abs(y[:, None] - y) + 0.0
    tickets = fee * (y[:, None] != y)
    S1, w1 = step_from(100.0, s, [row[1] for row in dates[0]], width=0.25)
    J1 = np.empty((y.size, S1.size))
    for at, spot in enumerate(S1):
        S2, w2 = step_from(float(spot), s, [row[1] for row in dates[1]])
        closing = lam * S2 * np.abs(y)[:, None] + fee * (y != 0.0)[:, None]
        G1 = entropic(owed(2, S2) + closing - y[:, None] * (S2 - spot), w2)
        J1[:, at] = np.min(G1 + moves * spot + tickets, axis=1)
    G0 = entropic(owed(1, S1) + J1 - y[:, None] * (S1 - 100.0), w1)
    return float(np.min(G0 + lam * 100.0 * np.abs(y) + fee * (y != 0.0)))


@pytest.mark.parametrize(
    ("legs", "changes"),
    [
        ([(1, 100, -1, 0.25)], {}),
        ([(1, 103, -1, 0.25)], {"risk_aversion": 0.3, "cost": 0.01}),
        ([(1, 100, -1, 0.25), (-1, 98, -1, 0.125)], {}),
        ([(1, 100, 1, 0.25), (-1, 95, 1, 0.25)], {}),
        ([(1, 100, -1, 0.25)], {"fixed_cost": 0.2}),
        ([(1, 100, -1, 0.25), (-1, 100, -1, 0.25)], {"fixed_cost": 0.1, "cost": 0.0}),
        ([(1, 100, -1, 0.25)], {"lot": 0.25}),
        ([(1, 97, -2, 0.25), (-1, 103, -1, 0.125)], {"lot": 0.3, "fixed_cost": 0.05}),
    ],
)
def test_two_dates_by_hand(legs: Any, changes: dict[str, Any]) -> None:
    """With two dates the price is that of plain quadrature and plain minima over every holding."""
    problem = book(**({"legs": legs, "dates": 2, "risk_aversion": 0.1} | changes))
    lo, hi = exact.delta_range(problem)
    lot = problem.lot
    y = np.arange(math.ceil(-lo / lot) * -1, math.ceil(hi / lot) + 1) * lot if lot else np.linspace(lo, hi, 201)
    truth = by_hand(
        list(problem.legs), g=problem.risk_aversion, lam=problem.cost, fee=problem.fixed_cost, y=y, vol=0.2, tau=0.25
    )
    assert exact.solve_problem(problem).price == pytest.approx(truth, abs=3e-4)


# ------------------------------------------------------------------------------------------------ limits and laws


def test_no_cost_no_aversion_is_black_scholes() -> None:
    """Without costs and nearly without aversion the price is Black-Scholes', and the band a point near its delta."""
    found = solve(CALL, cost=0.0, risk_aversion=1e-3, rate=0.03, dividend=0.01, **YARDSTICK)
    one = black.bsm(100.0, 100.0, 0.25, 0.2, rate=0.03, dividend=0.01)
    assert found.price == pytest.approx(float(one.price), abs=1e-4)
    lo, hi = found.band(0, 100.0)
    assert lo == pytest.approx(hi, abs=1e-9)
    assert lo == pytest.approx(float(one.delta), abs=1e-3)


def test_very_dear_trading_never_trades() -> None:
    """At a cost no hedge is worth, a small aversion holds nothing and asks the naked entropic price."""
    found = solve(CALL, cost=0.05, risk_aversion=0.001, **YARDSTICK)
    z, w = panels(-8.0, 8.0, [0.05])
    S = 100.0 * np.exp(0.1 * z - 0.005)
    naked = math.log(float(w @ (np.exp(0.001 * np.maximum(S - 100.0, 0.0) - 0.5 * z * z))) / math.sqrt(2 * math.pi))
    assert found.price == pytest.approx(naked / 0.001, abs=1e-5)
    assert found.band(0, 100.0)[0] == 0.0


@pytest.mark.parametrize("cost", [0.0, 0.002, 0.02])
def test_the_most_averse_pay_no_more_than_the_share(cost: float) -> None:
    """Ever more averse writers ask ever more, but never more than a share bought, kept and sold costs."""
    prices = [solve(CALL, cost=cost, risk_aversion=g, **(YARDSTICK | {"dates": 126})).price for g in (1, 10, 50, 200)]
    assert np.all(np.diff(prices) > 0.0)
    assert prices[-1] < 100.0 * (1.0 + 3.0 * cost)


@pytest.mark.parametrize("quantity", [-2.0, 2.0])
@pytest.mark.parametrize("cost", [0.0, 1e-4, 0.01])
def test_a_wide_range_of_prices_rules_no_price(quantity: float, cost: float) -> None:
    """At a vol of 1.16 a price grows with aversion, below what holding the whole delta costs, and is what its band scores.

    So far out in the grid the price is 60 times the spot, and utility there some hundred times as steep.
    """
    before = -math.inf
    for g in (20.0, 60.0, 200.0):
        found = exact.solve([(1, 0.7, quantity)], spot=1.0, vol=1.16, tau=0.2937, cost=cost, risk_aversion=g, dates=63)
        bound = 2.0 * (1.0 + cost) / (1.0 - cost) if quantity < 0.0 else 0.0
        assert before <= found.price <= bound
        if cost > 0.0 or not found.ruled_by_cut:
            assert exact.evaluate(found.problem, found.rule) == pytest.approx(found.price, abs=2e-4)
        before = found.price


def test_holdings_span_the_book() -> None:
    """The holdings reach every delta the book can have, below 0 and above 1, and 0."""
    assert exact.delta_range(book(legs=[(1, 100, -3), (-1, 90, -2)])) == (-2.0, 3.0)
    assert exact.delta_range(book(legs=[(1, 100, 1), (1, 110, -2, 0.1)])) == (-1.0, 2.0)
    assert exact.delta_range(book(legs=[])) == (0.0, 0.0)
    deep = solve([(1, 80, -3)], cost=0.002, risk_aversion=1.0, **YARDSTICK)
    assert deep.band(250, 130.0)[1] == pytest.approx(3.0, abs=0.05)


def test_lots_and_fees_shape_the_band() -> None:
    """Lots put the edges on lots; a ticket fee widens the band and lets trades end inside it."""
    lots = solve(CALL, cost=0.002, risk_aversion=1.0, lot=0.1, **YARDSTICK)
    lo, hi = lots.band(7, np.array([95.0, 100.0, 103.3]))
    assert np.abs(lo / 0.1 - np.rint(lo / 0.1)).max() < 1e-12
    assert np.abs(hi / 0.1 - np.rint(hi / 0.1)).max() < 1e-12
    plain = solve(CALL, cost=0.002, risk_aversion=1.0, **YARDSTICK)
    fee = solve(CALL, cost=0.002, risk_aversion=1.0, fixed_cost=0.05, **YARDSTICK)
    (lo, hi), (up, down) = fee.band(100, 100.0), fee.targets(100, 100.0)
    assert lo < up < down < hi
    assert hi - lo > plain.band(100, 100.0)[1] - plain.band(100, 100.0)[0]
    assert plain.price < lots.price < plain.price + 0.05
    assert plain.price + 0.05 < fee.price


def test_empty_and_linear_books() -> None:
    """No legs cost nothing; a forward alone is hedged one for one or left, whichever is cheaper."""
    assert solve([], cost=0.002, risk_aversion=1.0, **YARDSTICK).price == pytest.approx(0.0, abs=1e-12)
    free = solve([(0, 100, -1)], cost=0.0, risk_aversion=1.0, **YARDSTICK)
    assert free.price == pytest.approx(0.0, abs=1e-9)
    assert free.band(5, 104.0) == pytest.approx((1.0, 1.0), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"spot": 0.0}, "spot"),
        ({"vol": math.nan}, "vol"),
        ({"tau": -1.0}, "tau"),
        ({"cost": -0.1}, "cost"),
        ({"cost": 1.0}, "cost"),
        ({"risk_aversion": math.inf}, "risk_aversion"),
        ({"dates": 0}, "dates"),
        ({"dates": 2.5}, "dates"),
        ({"lot": -1.0}, "lot"),
        ({"fixed_cost": math.nan}, "fixed_cost"),
        ({"legs": [(2, 100, 1)]}, "legs"),
        ({"legs": [(1, -5, 1)]}, "strike"),
        ({"legs": [(1, 100, math.nan)]}, "quantity"),
        ({"legs": [(1, 100, 1, 0.5)]}, "tau"),
        ({"legs": [(1, 100)]}, "legs"),
    ],
)
def test_malformed_problems_are_refused(changes: dict[str, Any], word: str) -> None:
    """What is not finite or out of range is refused by name."""
    with pytest.raises(ValueError, match=word):
        book(**({"legs": CALL} | changes))


@pytest.mark.parametrize("changes", BOOKS, ids=range(len(BOOKS)))
def test_compiled_look_up_equals_readable(changes: dict[str, Any]) -> None:
    """The compiled look-up gives what the readable one gives, and a price, a column of them and mixed dates the same bits."""
    found = exact.solve_problem(book(**changes), columns=60)
    spots = 100.0 * np.exp(np.linspace(-1.2, 1.2, 403))
    dates = np.arange(403) % found.dates
    mixed = found.band(dates, spots)
    for date in (0, 5, found.dates - 1):
        for tables in ((found.low, found.high), (found.buy, found.sell)):
            fast, slow = found._look_up(tables, date, spots), exact.read_pair(found, tables, date, spots)
            assert np.allclose(fast, slow, rtol=0.0, atol=1e-11)
            assert np.array_equal(fast, np.transpose([found._look_up(tables, date, float(spot)) for spot in spots]))
        here = dates == date
        assert np.array_equal(np.array(mixed)[:, here], found.band(date, spots[here]))


@pytest.mark.parametrize("start", [0, 1_700_000_000_123_456_789, -3_000_000_000_000_000_001])
@pytest.mark.parametrize("dates", [7, 252])
def test_the_first_instant_of_a_date_is_found(start: int, dates: int) -> None:
    """The instant from which a date is in force is the least whose date it is, before 1970 too."""
    solution = exact.solve_problem(book(legs=CALL, dates=dates), columns=20)
    policy = PreparedExactBand(solution, start=start, name="x")
    for date in (0, 1, dates // 2, dates - 1, dates):
        first = policy._first_of(date)
        assert policy._date(first) == date
        assert policy._date(first - 1) == date - 1


def test_band_refuses_what_it_does_not_know() -> None:
    """A date or a spot outside the problem is refused; a price beyond the grid has the last band."""
    found = exact.solve_problem(book(legs=CALL))
    with pytest.raises(ValueError, match="date_index"):
        found.band(12, 100.0)
    with pytest.raises(ValueError, match="spot"):
        found.band(0, 0.0)
    assert found.band(3, 1e6) == found.band(3, 1e9)


def test_risk_aversion_from_tolerance() -> None:
    """Paying the cost to shed the deviation is worth nothing either way at the aversion the helper gives."""
    for deviation, cost, present in ((2.0, 1.0, 2.0), (0.5, 1.0, 4.0), (10.0, 3.0, 10.0)):
        g = exact.risk_aversion_from_tolerance(deviation, cost=cost, present=present)
        assert 0.5 * g * (present**2 - (present - deviation) ** 2) == pytest.approx(cost, rel=1e-12)
    for bad in ({"deviation": 0.0}, {"deviation": 1.0, "cost": -1.0}, {"deviation": 2.0, "present": 1.0}):
        with pytest.raises(ValueError, match="risk_aversion"):
            exact.risk_aversion_from_tolerance(**bad)


# ------------------------------------------------------------------------------------------------ rules without noise


def test_the_optimum_scores_its_own_price() -> None:
    """The bands of the optimum, scored as any rule is, close 99.9% of the gap from daily hedging."""
    problem = yardstick(0.002, 1.0, dates=60)
    found = exact.solve_problem(problem)
    daily = exact.evaluate(problem, exact.interval_rule(problem, 4), per_step=2)
    scored = exact.evaluate(problem, found.rule, per_step=2)
    assert exact.gap_closed(scored, daily=daily, optimum=found.price) == pytest.approx(100.0, abs=0.1)


def test_no_rule_beats_the_optimum() -> None:
    """None, static, fixed intervals and delta bands cost at least the optimum, with fees too."""
    for changes in ({}, {"fixed_cost": 0.1}, {"legs": SPREAD}, {"rate": 0.04, "dividend": 0.01}):
        problem = book(**({"legs": CALL} | changes))
        price = exact.solve_problem(problem).price

        def delta_band(date: int, spots: Array, problem: exact.Problem = problem) -> exact.Rule:
            hedge, _ = exact.hedge_greeks(problem, date, spots)
            return hedge - 0.1, hedge + 0.1, hedge

        rules = [exact.no_hedge_rule, delta_band, *(exact.interval_rule(problem, k) for k in (1, 3, 12))]
        for rule in rules:
            assert exact.evaluate(problem, rule, per_step=2) > price - 2e-4


def test_no_hedge_scores_the_naked_price() -> None:
    """The score of never trading is the entropic price of the payoff by quadrature."""
    problem = book(legs=CALL, risk_aversion=0.05)
    z, w = panels(-8.0, 8.0, [0.05])
    S = 100.0 * np.exp(0.1 * z - 0.005)
    mean = float(w @ np.exp(0.05 * np.maximum(S - 100.0, 0.0) - 0.5 * z * z)) / math.sqrt(2.0 * math.pi)
    assert exact.evaluate(problem, exact.no_hedge_rule, per_step=2) == pytest.approx(math.log(mean) / 0.05, abs=1e-6)


# ------------------------------------------------------------------------------------------------ the policies

PLAN = HedgePlan(
    now=1_000_000_000, spot=100.0, rate=0.0, dividend=0.0, cost=0.002, per_contract=50.0,
    cp=(1.0,), strike=(100.0,), quantity=(-200.0,), tau=(0.25,), vol=(0.2,),
)  # fmt: skip


def seen(date: float, spot: Any, *, dates: int = 63, **changes: Any) -> BandInput:
    now = PLAN.now + round(date * 0.25 / dates * NS_PER_YEAR)
    known: dict[str, Any] = {
        "now": now, "spot": spot, "want": 0.0 * np.asarray(spot) if np.ndim(spot) else 0.0, "held": 0.0, "gamma": 0.0,
        "tau": 0.1, "vol": 0.2, "rate": 0.0, "per_contract": 50.0, "cost": 0.002, "last_hedge_ts": NEVER,
        "last_hedge_spot": math.nan,
    }  # fmt: skip
    return BandInput(**(known | changes))


def ready(**changes: Any) -> PreparedExactBand:
    policy = ExactBand(**({"risk_aversion": 0.005, "dates": 63} | changes))
    assert isinstance(policy, Prepares)
    prepared = policy.prepared(PLAN)
    assert isinstance(prepared, PreparedExactBand)
    assert isinstance(prepared, HedgePolicy)
    return prepared


def test_policy_answers_in_contracts() -> None:
    """The band of the policy is the solver's, in hedge contracts, for floats and arrays alike."""
    policy = ready()
    found = solve(
        [(1, 100, -200)], spot=100.0, vol=0.2, tau=0.25, cost=0.002, risk_aversion=0.005, dates=63
    )  # 200 units at g = 0.005 are one unit at g = 1
    lo, hi = found.band(10, 97.0)
    band = policy.band(seen(10, 97.0))
    assert (band.lo, band.hi, band.to) == (lo / 50.0, hi / 50.0, None)
    assert isinstance(band.lo, float)
    assert lo / 200.0 == pytest.approx(
        solve(CALL, cost=0.002, risk_aversion=1.0, **(YARDSTICK | {"dates": 63})).band(10, 97.0)[0], abs=1e-9
    )
    many = policy.band(seen(10, np.array([[97.0, 100.0]])))
    assert many.lo.shape == (1, 2)
    assert many.lo[0, 0] == band.lo
    short = policy.band(seen(10, 97.0, per_contract=-50.0))
    assert (short.lo, short.hi) == (-band.hi, -band.lo)


def test_policy_acts_once_a_date_and_not_after_the_last() -> None:
    """Who hedged at this date waits for the next; at T nothing is done; the hedger wakes it at the dates only."""
    policy = ready()
    assert policy.interval == round(0.25 / 63 * NS_PER_YEAR)
    assert policy.needs_ticks is False
    at = seen(10, 100.0).now
    assert policy.band(seen(10, 100.0, last_hedge_ts=at)).hi == math.inf
    assert policy.band(seen(10.5, 100.0, last_hedge_ts=at)).lo == -math.inf
    assert math.isfinite(policy.band(seen(11, 100.0, last_hedge_ts=at)).hi)
    assert policy.band(seen(63, 100.0)).hi == math.inf
    walked = [policy.band(seen(0, 100.0, now=PLAN.now + k * policy.interval)).lo for k in range(63)]
    assert walked == [policy.band(seen(k, 100.0)).lo for k in range(63)]


def test_policy_with_a_ticket_fee_trades_inside() -> None:
    """With a ticket fee the target is the inner edge on the side of what is held."""
    policy = ready(fixed_cost=10.0)
    below, above = policy.band(seen(5, 100.0, held=0.0)), policy.band(seen(5, 100.0, held=4.0))
    assert below.lo < below.to < above.to < above.hi


def test_policy_refuses_and_rests() -> None:
    """Unprepared it refuses; with every leg expired it never trades; without any vol it refuses the plan."""
    with pytest.raises(ValueError, match="prepared"):
        ExactBand(risk_aversion=1.0).band(seen(0, 100.0))
    for bad in ({"risk_aversion": 0.0}, {"risk_aversion": 1.0, "dates": 0}, {"risk_aversion": 1.0, "lot": -1.0}):
        with pytest.raises(ValueError, match="exact_band"):
            ExactBand(**bad)
    gone = HedgePlan(**(plan_fields() | {"tau": (-0.01,)}))
    assert ExactBand(risk_aversion=1.0).prepared(gone).band(seen(0, 100.0)).hi == math.inf
    with pytest.raises(ValueError, match="vol"):
        ExactBand(risk_aversion=1.0).prepared(HedgePlan(**(plan_fields() | {"vol": (math.nan,)})))


def plan_fields() -> dict[str, Any]:
    return {name: getattr(PLAN, name) for name in PLAN.__struct_fields__}


def test_guarded_band_picks_the_best() -> None:
    """Of its candidates and the guards it answers as the one with the least cost, and the exact band is that."""
    guarded = GuardedBand(risk_aversion=0.005, dates=12)
    scores = guarded.scores(PLAN)
    best = min(scores, key=lambda score: score.value)
    assert best is scores[0]
    assert {"none", "static"} <= {score.name for score in scores}
    assert isinstance(guarded.prepared(PLAN), PreparedExactBand)
    foolish = GuardedBand(risk_aversion=0.005, dates=12, candidates=[DeltaBand(half_width=1e6)])
    chosen = foolish.prepared(PLAN)
    guards = foolish.scores(PLAN)[1:]
    assert chosen.name == min(guards, key=lambda score: score.value).policy.name
    assert foolish.scores(PLAN)[0].value == pytest.approx(guards[0].value, rel=1e-9)


def test_policies_are_scored_as_they_trade() -> None:
    """A delta band as a policy and as a rule on the lattice has one score."""
    problem = problem_of_plan(PLAN, risk_aversion=0.005, dates=24)
    assert problem is not None

    def by_hand(date: int, spots: Array) -> exact.Rule:
        hedge, _ = exact.hedge_greeks(problem, date, spots)
        return hedge - 20.0, hedge + 20.0, None

    policy = rule_of(DeltaBand(half_width=20.0), PLAN, problem)
    one, other = (exact.evaluate(problem, rule, per_step=2) for rule in (policy, by_hand))
    assert one == pytest.approx(other, rel=1e-12)
