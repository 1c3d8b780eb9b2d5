"""A hedge programme finds the holding of least risk plus cost: against enumeration, closed forms and other solvers."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal

import numpy as np
import pytest
from scipy.optimize import minimize

from bot.core.ports import BandInput, HedgePolicy
from bot.domain.units import NEVER
from bot.pricing import black
from bot.pricing import hedge_program as programme
from bot.testing.contracts import PolicyContract, violations
from strategies.policies.decide import decide
from strategies.policies.delta_gamma_vega import Candidate, Choices, DeltaGammaVega, Exposures

D = Decimal
DAY = 1.0 / 365.0
TENORS = (30 / 365, 90 / 365, 180 / 365)


def enumerate_lots(
    b: np.ndarray, A: np.ndarray, Q: np.ndarray, *, held: np.ndarray, cost: np.ndarray, ticket: np.ndarray, reach: int,
    g: float = 1.0, floor: float = -math.inf, ceiling: float = math.inf,
) -> tuple[float, np.ndarray]:  # fmt: skip
    """The best of all trades of -reach..reach lots in each instrument, one by one."""
    trades = np.array(list(itertools.product(range(-reach, reach + 1), repeat=A.shape[1])), dtype=float)
    left = b + (trades + held) @ A.T
    value = 0.5 * g * np.einsum("ij,jk,ik->i", left, Q, left) + np.abs(trades) @ cost + (trades != 0) @ ticket
    value = np.where(((left >= floor) & (left <= ceiling)).all(axis=1), value, np.inf)
    best = int(value.argmin())
    return float(value[best]), trades[best]


def draw(seed: int, n: int, m: int, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    L = rng.normal(size=(m, m))
    return rng.normal(size=m) * scale, rng.normal(size=(m, n)), L @ L.T


# --------------------------------------------------------------------------- the continuous problem


@pytest.mark.parametrize(
    ("gap", "cost", "kept"), [(50.0, 5.0, -45.0), (-50.0, 5.0, 45.0), (4.0, 5.0, 0.0), (50.0, 0.0, -50.0)]
)
def test_one_instrument_trades_to_the_edge_of_its_band(gap: float, cost: float, kept: float) -> None:
    """With one exposure the answer is the soft threshold: what exceeds cost / g is traded away, the rest is kept."""
    found = programme.solve([gap], [[1.0]], [[1.0]], held=[0.0], cost=[cost])
    assert found.quantity[0] == pytest.approx(kept, abs=1e-9)
    assert found.proved


@pytest.mark.parametrize("seed", range(20))
def test_the_continuous_optimum_is_what_a_general_solver_finds(seed: int) -> None:
    """A general smooth solver (SLSQP on bought and sold parts) finds no better holding, and the same value."""
    n, m = 1 + seed % 5, 1 + seed % 4
    b, A, Q = draw(seed, n, m)
    c = np.random.default_rng(seed + 100).uniform(0.05, 1.0, n)
    found = programme.solve(b, A, Q, held=np.zeros(n), cost=c, lo=-4.0, hi=4.0, risk_aversion=0.7)

    def value(x: np.ndarray) -> float:
        e = b + A @ (x[:n] - x[n:])
        return float(0.35 * e @ Q @ e + c @ (x[:n] + x[n:]))

    other = minimize(value, np.full(2 * n, 0.5), method="SLSQP", bounds=[(0.0, 4.0)] * (2 * n), options={"ftol": 1e-14})
    assert found.objective <= other.fun + 1e-9 * found.before
    assert found.objective == pytest.approx(other.fun, rel=1e-5, abs=1e-5 * found.before)
    assert found.bound <= found.objective <= found.before * (1 + 1e-12)


def test_limits_no_whole_lot_can_meet_end_at_once_and_are_said() -> None:
    """Without position limits a band that no whole lot reaches is recognised, and the least risk without it is given."""
    found = programme.solve(
        [0.5], [[1.0, 2.0]], [[1.0]], held=[0, 0], cost=0.1, lot=1, floor=-0.1, ceiling=0.1, max_nodes=200
    )
    assert not found.within_limits
    assert found.objective == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("exposures", "greeks", "penalty", "g"),
    [
        ([0.0, 0.0], np.ones((2, 3)), np.eye(2), 1.0),
        ([1.0, 2.0], np.ones((2, 3)), np.zeros((2, 2)), 1.0),
        ([1.0, 2.0], np.zeros((2, 3)), np.eye(2), 1.0),
        ([1.0, 2.0], np.ones((2, 3)), np.eye(2), 0.0),
    ],
)
@pytest.mark.parametrize("lot", [0.0, 1.0])
def test_where_there_is_nothing_to_gain_nothing_is_traded(
    exposures: list[float], greeks: np.ndarray, penalty: np.ndarray, g: float, lot: float
) -> None:
    """No exposure, no risk, no use of the instruments or no aversion: what is held stays, at any cost above zero."""
    found = programme.solve(exposures, greeks, penalty, held=np.zeros(3), cost=0.01, lot=lot, risk_aversion=g)
    assert found.trade.tolist() == [0.0, 0.0, 0.0]
    assert found.proved


def test_what_is_not_worth_its_cost_is_not_touched_at_all() -> None:
    """An instrument that is not traded stays at exactly what is held, without the dust of a numerical method."""
    b, A, Q = draw(3, 6, 3)
    found = programme.solve(b, A, Q, held=np.arange(6.0), cost=np.array([0.1, 1e6, 0.1, 1e6, 1e6, 0.1]))
    assert found.trade[[1, 3, 4]].tolist() == [0.0, 0.0, 0.0]
    assert found.quantity[[1, 3, 4]].tolist() == [1.0, 3.0, 4.0]


def test_two_instruments_that_do_the_same_the_cheaper_one_is_used() -> None:
    """Of a share and a future with the same delta only the cheaper trades, until its limit is reached."""
    delta = [[1.0, 1.0]]
    free = programme.solve([-30.0], delta, [[1.0]], held=[0, 0], cost=[0.02, 0.01], lot=1)
    assert free.quantity.tolist() == [0.0, 30.0]
    bound = programme.solve([-30.0], delta, [[1.0]], held=[0, 0], cost=[0.02, 0.01], lot=1, hi=[100, 12])
    assert bound.quantity.tolist() == [18.0, 12.0]


# --------------------------------------------------------------------------- lots, tickets, limits


@pytest.mark.parametrize("seed", range(24))
def test_lots_and_tickets_give_the_best_of_all_combinations(seed: int) -> None:
    """With whole lots and fixed fees the answer is the best of the enumeration of every trade."""
    rng = np.random.default_rng(seed)
    n, m = 1 + seed % 3, 1 + seed % 4
    b, A, Q = draw(seed, n, m)
    held = rng.integers(-2, 3, n).astype(float)
    cost, ticket = rng.uniform(0.0, 1.0, n), rng.uniform(0.0, 2.0, n) * (seed % 2)
    found = programme.solve(b, A, Q, held=held, cost=cost, ticket=ticket, lot=1, lo=held - 8, hi=held + 8)
    value, _ = enumerate_lots(b, A, Q, held=held, cost=cost, ticket=ticket, reach=8)
    assert found.objective == pytest.approx(value, rel=1e-9, abs=1e-8 * found.before)
    assert found.proved
    assert found.lots.tolist() == found.trade.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_limits_on_exposures_are_kept_where_some_holding_keeps_them(seed: int) -> None:
    """Floors and ceilings on what is left hold exactly, at the best value that any enumerated trade inside them has."""
    b, A, Q = draw(seed, 2, 2)
    cost, none = np.full(2, 0.5), np.zeros(2)
    free = programme.solve(b, A, Q, held=none, cost=cost, lot=1, lo=-9, hi=9)
    size = float(np.abs(free.residual).max())
    value, _ = enumerate_lots(
        b, A, Q, held=none, cost=cost, ticket=none, reach=9, floor=-0.8 * size, ceiling=0.8 * size
    )
    bound = np.full(2, 0.8 * size)
    found = programme.solve(b, A, Q, held=none, cost=cost, lot=1, lo=-9, hi=9, floor=-bound, ceiling=bound)
    if math.isinf(value):
        assert not found.within_limits
        assert found.objective == pytest.approx(free.objective)
    else:
        assert found.within_limits
        assert found.objective == pytest.approx(value, rel=1e-9, abs=1e-8 * found.before)
        assert np.abs(found.residual).max() <= 0.8 * size * (1 + 1e-9)


def test_lots_of_some_and_any_size_of_others() -> None:
    """An option in lots and a future in any size: the future takes up exactly what its cost leaves of the delta."""
    Q = np.diag([1.0, 100.0])
    found = programme.solve([10.3, 4.4], [[0.5, 1.0], [1.0, 0.0]], Q, held=[0, 0], cost=[0.1, 0.2], lot=[1, 0])
    best = math.inf
    for lots in range(-10, 11):
        delta = 10.3 + 0.5 * lots
        rest = -math.copysign(max(abs(delta) - 0.2, 0.0), delta)
        value = 0.5 * ((delta + rest) ** 2 + 100 * (4.4 + lots) ** 2) + 0.1 * abs(lots) + 0.2 * abs(rest)
        best = min(best, value)
    assert found.objective == pytest.approx(best, rel=1e-9)
    assert found.lots[0] == -4


def test_a_ticket_is_paid_only_when_it_is_worth_it() -> None:
    """A fixed fee keeps out a trade that saves less than the fee, whatever its size, also without lots."""
    for ticket, trades in ((49.0, True), (51.0, False)):
        found = programme.solve([10.0], [[1.0]], [[1.0]], held=[0.0], cost=[0.0], ticket=ticket)
        assert bool(found.trade[0]) is trades
        assert found.objective == pytest.approx(min(ticket, 50.0))


@pytest.mark.parametrize("seed", range(6))
def test_tickets_without_lots_choose_the_best_set_of_instruments(seed: int) -> None:
    """With fixed fees alone the answer is the best over all sets of instruments of the continuous optimum in the set."""
    b, A, Q = draw(seed, 4, 3)
    cost, ticket = np.full(4, 0.1), np.random.default_rng(seed).uniform(0.2, 2.0, 4)
    found = programme.solve(b, A, Q, held=np.zeros(4), cost=cost, ticket=ticket, lo=-20, hi=20)
    best = math.inf
    for chosen in itertools.product((0.0, 1.0), repeat=4):
        most = 20.0 * np.array(chosen)
        part = programme.solve(b, A, Q, held=np.zeros(4), cost=cost, lo=-most, hi=most)
        best = min(best, part.objective + float(ticket @ (part.trade != 0.0)))
    assert found.objective == pytest.approx(best, rel=1e-8)


def test_doing_nothing_is_always_among_the_answers() -> None:
    """A holding off the lot stays where it is when nothing is worth a trade."""
    found = programme.solve([0.01], [[1.0]], [[1.0]], held=[3.5], cost=[10.0], lot=[1.0])
    assert found.quantity.tolist() == [3.5]
    assert found.objective == found.before


def test_a_search_cut_short_says_how_far_it_may_be_from_the_best() -> None:
    """With one node the answer is a trade with an honest bound: not proved, and the true optimum lies in the gap."""
    b, A, Q = draw(11, 6, 5, scale=40.0)
    whole = programme.solve(b, A, Q, held=np.zeros(6), cost=np.full(6, 0.3), lot=1)
    short = programme.solve(b, A, Q, held=np.zeros(6), cost=np.full(6, 0.3), lot=1, max_nodes=1)
    assert whole.proved
    assert not short.proved
    assert short.bound <= whole.objective + 1e-9 <= short.objective + 2e-9
    assert short.gap > 0.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"greeks": [[1.0], [2.0]]}, "greeks: expected 1 rows"),
        ({"penalty": [[-1.0]]}, "negative"),
        ({"penalty": [[math.nan]]}, "penalty: expected finite"),
        ({"cost": [-1.0]}, "cost: expected numbers from 0"),
        ({"held": [math.nan]}, "held: expected finite"),
        ({"held": [1.0, 2.0]}, "held: expected 1 numbers"),
        ({"lot": [-1.0]}, "lot: expected numbers from 0"),
        ({"lo": [0.2], "hi": [0.8], "lot": [1.0]}, "a whole number of lots of 1 between lo and hi"),
        ({"lo": [2.0], "hi": [1.0]}, "between lo and hi"),
        ({"risk_aversion": math.inf}, "risk_aversion"),
        ({"max_nodes": 0}, "max_nodes"),
    ],
)
def test_what_is_no_programme_is_refused_by_name(changes: dict[str, object], words: str) -> None:
    """Shapes that do not fit and numbers that mean nothing are refused, saying what was expected."""
    given: dict[str, object] = {"exposures": [1.0], "greeks": [[1.0]], "penalty": [[1.0]], "held": [0.0], "cost": [0.0]}
    given |= changes
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        programme.solve(given.pop("exposures"), given.pop("greeks"), given.pop("penalty"), **given)  # type: ignore[arg-type]  # wrong on purpose


def test_no_candidates_leave_the_book_as_it_is() -> None:
    """Without instruments the answer is to hold nothing, with the risk there is."""
    found = programme.solve([2.0], np.zeros((1, 0)), [[3.0]], held=[], cost=[])
    assert (found.objective, found.before, len(found.quantity)) == (6.0, 6.0, 0)


# --------------------------------------------------------------------------- the risk of exposures


def test_the_risk_matrix_is_the_covariance_of_a_second_order_book() -> None:
    """A million joint normal moves of spot and two vols give the same covariances, to four standard errors."""
    xi, corr, rho = np.array([0.9, 0.5]), np.array([[1.0, 0.8], [0.8, 1.0]]), np.array([-0.7, -0.5])
    Q = programme.risk_matrix(
        spot=100.0, vol=0.2, horizon=5 * DAY, vol_of_vol=xi, vol_correlation=corr, spot_vol_correlation=rho
    )
    joint = np.block([[np.ones((1, 1)), rho[None, :]], [rho[:, None], corr]])
    z = np.random.default_rng(5).standard_normal((1_000_000, 3)) @ np.linalg.cholesky(joint).T
    h = math.sqrt(5 * DAY)
    dS = 100.0 * 0.2 * h * z[:, 0]
    made = np.column_stack((dS, 0.5 * dS**2, xi * h * z[:, 1:]))
    made -= made.mean(axis=0)
    for i, j in itertools.product(range(4), repeat=2):
        product = made[:, i] * made[:, j]
        assert Q[i, j] == pytest.approx(product.mean(), abs=4.0 * product.std() / 1000.0)


def test_correlations_that_no_random_vector_has_are_refused() -> None:
    """Spot and vol correlations that contradict each other are refused."""
    with pytest.raises(ValueError, match="negative eigenvalue"):
        programme.risk_matrix(
            spot=100,
            vol=0.2,
            horizon=DAY,
            vol_of_vol=[1, 1],
            vol_correlation=np.eye(2),
            spot_vol_correlation=[0.9, 0.9],
        )


def test_vega_is_shared_between_tenors_without_loss() -> None:
    """Bucket weights sum to one, fall on one bucket at its tenor, and go to the end beyond an end."""
    weights = programme.bucket_weights([1 / 365, 30 / 365, 60 / 365, 180 / 365, 2.0], TENORS)
    assert weights.sum(axis=0) == pytest.approx(np.ones(5))
    assert weights[:, 1].tolist() == [1.0, 0.0, 0.0]
    assert weights[:, 0].tolist() == [1.0, 0.0, 0.0]
    assert weights[:, 4].tolist() == [0.0, 0.0, 1.0]
    middle = math.log(60 / 30) / math.log(90 / 30)
    assert weights[:, 2] == pytest.approx([1 - middle, middle, 0.0])


def test_vols_of_near_tenors_move_together() -> None:
    """The correlation falls with the distance of tenors and is a covariance; with no decay all vols move as one."""
    corr = programme.tenor_correlation(TENORS, decay=0.4)
    assert corr[0, 2] < corr[0, 1] < 1.0
    assert np.linalg.eigvalsh(corr).min() > 0.0
    assert (programme.tenor_correlation(TENORS, decay=0.0) == 1.0).all()
    assert programme.tenor_vol_of_vol(TENORS, level=0.9, reference=30 / 365)[0] == 0.9


# --------------------------------------------------------------------------- the policy


class TestItsContract(PolicyContract):
    """The policy obeys the law of every policy."""

    def make_policy(self) -> HedgePolicy:
        """One with a band of some width."""
        return DeltaGammaVega(risk_aversion=1e-4)


def test_the_policy_keeps_the_contract_of_policies() -> None:
    """No part of the shipped policy suite is violated."""
    assert violations(TestItsContract()) == {}


def seen(**changes: float) -> BandInput:
    known: dict[str, float] = {
        "now": 0, "spot": 100.0, "want": -40.0, "held": 0.0, "gamma": 0.0, "tau": 0.1, "vol": 0.2, "rate": 0.0,
        "per_contract": 1.0, "cost": 0.0005, "last_hedge_ts": NEVER, "last_hedge_spot": math.nan,
    }  # fmt: skip
    return BandInput(**(known | changes))


@pytest.mark.parametrize("per_contract", [1.0, 50.0, -2.0])
@pytest.mark.parametrize("held", [0.0, -39.9, 75.0])
def test_the_band_of_one_instrument_is_the_programme_of_one_instrument(per_contract: float, held: float) -> None:
    """On delta alone `band` with `decide` and `decide_all` hold the same."""
    policy = DeltaGammaVega(risk_aversion=1e-2)
    x = seen(per_contract=per_contract, held=held)
    by_band = decide(policy.band(x), held, None, policy=policy.name)
    Q = programme.risk_matrix(spot=100.0, vol=0.2, horizon=DAY)[:1, :1]
    book = Exposures(
        names=("delta",), values=((held - x.want) * per_contract,), covariance=tuple(map(tuple, Q.tolist()))
    )
    one = Candidate(instrument="SIM:XYZ", greeks=(per_contract,), cost=0.0005 * 100.0 * abs(per_contract), lot=None)
    whole = policy.decide_all(book, [one], {"SIM:XYZ": D(repr(held))})
    assert float(whole.choices[0].quantity) == pytest.approx(float(by_band.quantity), abs=1e-7)
    assert whole.choices[0].stay == by_band.stay


def test_arrays_of_instruments_answer_as_each_does() -> None:
    """The band over an instrument axis is the band of each instrument."""
    policy = DeltaGammaVega(risk_aversion=1e-2)
    per, cost = np.array([1.0, 50.0, 100.0]), np.array([0.0005, 0.0001, 0.0])
    whole = policy.band(seen(want=np.full((4, 3), -40.0), per_contract=per, cost=cost))
    assert whole.lo.shape == (4, 3)
    for i in range(3):
        one = policy.band(seen(per_contract=float(per[i]), cost=float(cost[i])))
        assert (whole.lo[2, i], whole.hi[2, i]) == (one.lo, one.hi)


def test_without_a_vol_the_band_is_the_exact_hedge() -> None:
    """An unknown vol leaves no drift unhedged."""
    assert DeltaGammaVega(risk_aversion=1.0).band(seen(vol=math.nan)) == (-40.0, -40.0, None)


def index_book() -> tuple[Exposures, list[Candidate]]:
    """A written two-expiry book on an index at 5,000, its future and four options to hedge with."""
    S, vol = 5000.0, 0.18
    Q = programme.risk_matrix(
        spot=S, vol=vol, horizon=DAY, vol_of_vol=programme.tenor_vol_of_vol(TENORS, level=0.9, reference=TENORS[0]),
        vol_correlation=programme.tenor_correlation(TENORS, decay=0.3), spot_vol_correlation=-0.7,
    )  # fmt: skip

    def greeks(K: float, tau: float, cp: int) -> tuple[np.ndarray, float]:
        g = black.bsm(S, K, tau, vol, rate=0.0, dividend=0.0, cp=cp)
        vega = 100.0 * float(g.vega) * programme.bucket_weights([tau], TENORS)[:, 0]
        return np.concatenate(([100.0 * float(g.delta), 100.0 * float(g.gamma)], vega)), float(g.price)

    book = -20 * greeks(5000, 45 / 365, 1)[0] - 12 * greeks(4800, 120 / 365, -1)[0]
    candidates = [Candidate(instrument="CME:ES", greeks=(50.0, 0.0, 0.0, 0.0, 0.0), cost=8.25, hi=500, lo=-500)]
    for K, tau, cp in ((5000, 30 / 365, 1), (4900, 90 / 365, -1), (5200, 90 / 365, 1), (5000, 180 / 365, -1)):
        a, price = greeks(K, tau, cp)
        candidates.append(
            Candidate(instrument=f"SPX {K} {cp}", greeks=tuple(a.tolist()), cost=0.65 + 0.5 * price, lo=-200, hi=200)
        )
    names = ("delta", "gamma", "vega 30d", "vega 90d", "vega 180d")
    covariance = tuple(tuple(row) for row in Q.tolist())
    return Exposures(names=names, values=tuple(book.tolist()), covariance=covariance), candidates


def decide_book(g: float = 1e-4, **changes: object) -> Choices:
    exposures, candidates = index_book()
    return DeltaGammaVega(risk_aversion=g).decide_all(exposures, candidates, dict(changes.get("held", {})))  # type: ignore[call-overload]  # a mapping of the test


def test_a_two_expiry_book_is_hedged_in_whole_lots_with_a_reason_for_each() -> None:
    """Every trade is whole, costs less than the risk it saves, and says what it moves; stays say why not."""
    found = decide_book()
    assert found.proved
    assert found.within_limits
    assert found.trades
    assert found.risk_after + found.cost < 0.2 * found.risk_before
    for choice in found.choices:
        assert choice.quantity % 1 == 0
        assert choice.reason.startswith("delta gamma vega")
        assert ("stay" in choice.reason) is choice.stay
    assert sum(choice.cost for choice in found.choices) == pytest.approx(found.cost)


def test_the_choice_costs_less_than_any_single_instrument_would() -> None:
    """Risk plus cost lie below the best that each instrument alone, with the future for delta, can reach."""
    exposures, candidates = index_book()
    policy = DeltaGammaVega(risk_aversion=1e-4)
    whole = policy.decide_all(exposures, candidates, {})
    for single in candidates[1:]:
        alone = policy.decide_all(exposures, [candidates[0], single], {})
        assert whole.risk_after + whole.cost <= alone.risk_after + alone.cost


def test_a_very_averse_hedger_leaves_less_than_a_lot_of_vega_in_each_bucket() -> None:
    """With an option at each tenor and vega as the whole risk, what is left in a bucket is within half a lot of it."""
    exposures, candidates = index_book()
    own = [c for c in candidates if c.instrument in {"SPX 5000 1", "SPX 4900 -1", "SPX 5000 -1"}]
    diagonal = np.diag([0.0, 0.0, 1.0, 1.0, 1.0]).tolist()
    vega = Exposures(names=exposures.names, values=exposures.values, covariance=tuple(map(tuple, diagonal)))
    found = DeltaGammaVega(risk_aversion=1.0).decide_all(vega, own, {})
    assert found.proved
    for candidate in own:
        bucket = int(np.argmax(candidate.greeks[2:])) + 2
        assert abs(found.residual[bucket]) <= 0.5 * candidate.greeks[bucket]


def test_a_second_look_at_once_trades_nothing() -> None:
    """Held as decided, with the exposures that leaves, the decision is to stay: costs are not paid twice."""
    exposures, candidates = index_book()
    policy = DeltaGammaVega(risk_aversion=1e-4)
    first = policy.decide_all(exposures, candidates, {})
    left = Exposures(names=exposures.names, values=first.residual, covariance=exposures.covariance)
    again = policy.decide_all(left, candidates, {c.instrument: c.quantity for c in first.choices})
    assert [c.instrument for c in again.trades] == []
    assert again.risk_before == pytest.approx(first.risk_after)


def test_the_displayed_size_bounds_one_order() -> None:
    """No order is larger than `most` lots, and the rest is done by the others."""
    exposures, candidates = index_book()
    few = [Candidate(**{f: getattr(c, f) for f in c.__struct_fields__} | {"most": 5.0}) for c in candidates]
    found = DeltaGammaVega(risk_aversion=1e-4).decide_all(exposures, few, {})
    assert max(abs(c.trade) for c in found.choices) == 5


def test_limits_that_cannot_be_met_are_said_in_the_reason() -> None:
    """When position limits leave too much vega, the least risk is chosen and the reason says so."""
    exposures, candidates = index_book()
    few = [Candidate(**{f: getattr(c, f) for f in c.__struct_fields__} | {"most": 1.0}) for c in candidates]
    limits = (None, None, 10.0, 10.0, 10.0)
    strict = Exposures(
        names=exposures.names, values=exposures.values, covariance=exposures.covariance, ceiling=limits,
        floor=tuple(None if v is None else -v for v in limits),
    )  # fmt: skip
    found = DeltaGammaVega(risk_aversion=1e-4).decide_all(strict, few, {})
    assert not found.within_limits
    assert "limits on exposures" in found.reason


def test_mistaken_candidates_are_refused_by_name() -> None:
    """A candidate named twice, or with Greeks for other exposures, is refused."""
    exposures, candidates = index_book()
    policy = DeltaGammaVega(risk_aversion=1e-4)
    with pytest.raises(ValueError, match="each instrument once"):
        policy.decide_all(exposures, [candidates[0], candidates[0]], {})
    with pytest.raises(ValueError, match="expected 5 exposures"):
        policy.decide_all(exposures, [Candidate(instrument="X", greeks=(1.0,), cost=0.0)], {})
    for wrong in ({"risk_aversion": 0.0}, {"risk_aversion": 1.0, "horizon": 0}, {"risk_aversion": math.nan}):
        with pytest.raises(ValueError, match="delta_gamma_vega"):
            DeltaGammaVega(**wrong)  # type: ignore[arg-type]  # wrong on purpose
