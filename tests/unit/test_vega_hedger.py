"""The vega hedger brings each bucket within a lot at no more than any single option would cost, and only when it must."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.core.option_orders import Execution
from bot.core.ports import Chain, Hedge
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE
from bot.engine.journal import Skipped, TargetSet
from bot.pricing import black
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand
from strategies.policies.delta_gamma_vega import DeltaGammaVega
from strategies.vega_hedger import (
    Covered,
    Decision,
    Filters,
    VegaHedger,
    VegaModel,
    candidates_of,
    decide,
    exposures_of,
)
from tests.simulation.bench import IMPLIED, STOCK, Bench, option, quote

D = Decimal
HOUR = 60 * NS_PER_MINUTE
TENORS = (30.0, 90.0)
NAMES = ("gamma", "vega 30d", "vega 90d")


class Market(NamedTuple):
    """A chain and a book on it."""

    chain: Chain
    book: Mapping[str, float]


def market(seed: int, *, days: Sequence[float] = TENORS, strikes: Sequence[float] = (95.0, 100.0, 105.0)) -> Market:
    """Calls and puts with seeded spreads, and a book of other strikes, written and bought."""
    rng = np.random.default_rng(seed)
    book_strikes = (97.0, 103.0)
    rows = [(d, k, cp, k in book_strikes) for d in days for k in (*strikes, *book_strikes) for cp in (1, -1)]
    tau = np.array([d / 365.0 for d, *_ in rows])
    strike, cp = np.array([k for _, k, _, _ in rows]), np.array([float(c) for _, _, c, _ in rows])
    vol = 0.2 + 0.02 * rng.standard_normal(len(rows))
    g = black.bsm(100.0, strike, tau, vol, cp=cp)
    half = rng.uniform(0.01, 0.10, len(rows))
    ids = tuple(f"O {i:02d}" for i in range(len(rows)))
    n = len(rows)
    chain = Chain(
        ids=ids,
        cp=cp,
        strike=strike,
        expiry=np.array([round(d * NS_PER_DAY) for d, *_ in rows], dtype=np.int64),
        tau=tau,
        multiplier=np.full(n, 100.0),
        bid=np.maximum(g.price - half, 0.01),
        ask=g.price + half,
        bid_size=np.full(n, np.nan),
        ask_size=np.full(n, np.nan),
        quote_ts=np.zeros(n, dtype=np.int64),
        vol=vol,
        price=g.price,
        delta=g.delta,
        gamma=g.gamma,
        vega=g.vega,
        theta=g.theta,
    )
    held = {ids[i]: float(rng.integers(-30, 31)) for i, row in enumerate(rows) if row[3]}
    return Market(chain, {key: q for key, q in held.items() if q})


def solved(
    found: Market, *, risk_aversion: float = 1e-6, limits: Sequence[float] = (math.inf, 500.0, 500.0), **keys: Any
) -> tuple[Covered, list[Any], Decision, NDArray[np.float64]]:
    covered = exposures_of(found.chain, found.book, TENORS)
    assert not isinstance(covered, str)
    filters = Filters(max_delta=1.0, min_delta=0.0, **keys)
    candidates = candidates_of(
        found.chain, found.book, (), TENORS, spot=100.0, now=0, filters=filters, execution=Execution()
    )
    Q = VegaModel().covariance(TENORS, spot=100.0, vol=0.2, horizon=1.0 / 365.0)
    policy = DeltaGammaVega(risk_aversion=risk_aversion, horizon=NS_PER_DAY, max_nodes=2_000)
    decision = decide(covered, candidates, {}, names=NAMES, limits=limits, share=0.0, covariance=Q, policy=policy)
    return covered, candidates, decision, Q


SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_left_is_within_a_lot_by_bucket(seed: int) -> None:
    """After the hedge of a two-expiry book no bucket is further out than the vega of one lot of its candidates."""
    covered, candidates, decision, _ = solved(market(seed))
    assert decision.met
    for bucket in (1, 2):
        lots = [abs(c.greeks[bucket]) for c in candidates if abs(c.greeks[bucket]) > 1e-9]
        assert abs(decision.choices.residual[bucket]) <= min(lots) * (1.0 + 1e-9)
    whole = np.array(covered.values())
    for choice in decision.choices.trades:
        whole += np.array(decision.greeks[choice.instrument]) * float(choice.trade)
    np.testing.assert_allclose(whole, decision.choices.residual, rtol=1e-9, atol=1e-7)
    assert all(choice.trade == int(choice.trade) for choice in decision.choices.trades)


def singles(covered: Covered, candidates: Sequence[Any]) -> list[tuple[float, NDArray[np.float64]]]:
    """Cost and what is left of every number of lots of every single option."""
    start = np.array(covered.values())
    return [
        (c.cost * abs(n), start + n * np.array(c.greeks)) for c, n in itertools.product(candidates, range(-150, 151))
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_single_option_is_cheaper_with_its_risk(seed: int) -> None:
    """Free of limits, cost and risk left together lie below those of the best single option, at a desk's aversion."""
    g = 0.02
    covered, candidates, decision, Q = solved(market(seed), risk_aversion=g, limits=(math.inf,) * 3)
    choices = decision.choices
    left = np.array(choices.residual)
    total = choices.cost + 0.5 * g * float(left @ Q @ left)
    best = min(cost + 0.5 * g * float(e @ Q @ e) for cost, e in singles(covered, candidates))
    assert total <= best + 1e-9
    assert total <= 0.5 * g * float(np.array(covered.values()) @ Q @ np.array(covered.values()))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_single_option_does_as_much_for_two_buckets_and_less(seed: int) -> None:
    """For the two-expiry book, enumeration finds no single option that brings both buckets inside the aim for less."""
    covered, candidates, decision, _ = solved(market(seed))
    aim = np.array(decision.aim) * (1.0 + 1e-9)
    able = [cost for cost, e in singles(covered, candidates) if (np.abs(e) <= aim).all()]
    assert decision.choices.cost <= min(able, default=math.inf) + 1e-2


@pytest.mark.parametrize("seed", SEEDS)
def test_no_single_option_that_does_as_much_is_cheaper(seed: int) -> None:
    """Where one bucket alone is out and one option could mend it, the hedge costs no more than the cheapest such option."""
    found = market(seed)
    near = {key: q for key, q in found.book.items() if found.chain.expiry[found.chain.ids.index(key)] < 31 * NS_PER_DAY}
    covered, candidates, decision, _ = solved(Market(found.chain, near))
    aim = np.array(decision.aim)
    able = [cost for cost, e in singles(covered, candidates) if (np.abs(e) <= aim * (1.0 + 1e-9)).all()]
    assert able, "the test needs single options that do as much"
    assert decision.choices.cost <= min(able) + 1e-2  # a cent: what 1e-6 of aversion may find the risk worth


@pytest.mark.parametrize("seed", list(SEEDS)[:4])
def test_no_pair_of_options_is_cheaper(seed: int) -> None:
    """With two candidates a bucket, enumerating every pair of lots finds nothing cheaper that does as much."""
    covered, candidates, decision, _ = solved(market(seed), per_bucket=2)
    aim, start = np.array(decision.aim) * (1.0 + 1e-9), np.array(covered.values())
    n = np.arange(-90, 91)
    best = math.inf
    for one, two in itertools.combinations(candidates, 2):
        e = start[:, None, None] + np.array(one.greeks)[:, None, None] * n[None, :, None]
        e = e + np.array(two.greeks)[:, None, None] * n[None, None, :]
        cost = one.cost * np.abs(n)[:, None] + two.cost * np.abs(n)[None, :]
        inside = (np.abs(e) <= aim[:, None, None]).all(axis=0)
        best = min(best, float(np.where(inside, cost, math.inf).min()))
    assert decision.choices.cost <= best + 1e-2


def test_a_limit_that_no_lots_meet_is_brought_as_near_as_is_worth_it() -> None:
    """With a position limit far too small the hedge goes as far as it may and says that the limits are not met."""
    covered, _, decision, Q = solved(market(1), max_contracts=1.0)
    assert not decision.met
    assert decision.choices.trades
    left, start = np.array(decision.choices.residual), np.array(covered.values())
    assert left @ Q @ left < start @ Q @ start


def test_a_limit_below_a_lot_is_met_where_lots_can_and_said_where_not() -> None:
    """With a limit of a tenth of a lot the hedge ends inside it or, saying that it is not met, within a lot."""
    met = []
    for seed in range(8):
        _, candidates, decision, _ = solved(market(seed), limits=(math.inf, 100.0, 100.0))
        lot = max(abs(g) for c in candidates for g in c.greeks[1:])
        most = max(abs(e) for e in decision.choices.residual[1:])
        assert most <= (100.0 if decision.met else lot) * (1.0 + 1e-9)
        met.append(decision.met)
    assert any(met)


def test_vega_between_two_tenors_is_shared_in_log_tenor() -> None:
    """A vega half way in log days belongs half to each bucket, beyond the ends all to the end."""
    found = market(3, days=(30.0, math.sqrt(30.0 * 90.0), 90.0, 200.0))
    for day, share in ((0, 1.0), (1, 0.5), (2, 0.0), (3, 0.0)):
        row = next(i for i, e in enumerate(found.chain.expiry) if e == np.unique(found.chain.expiry)[day])
        covered = exposures_of(found.chain, {found.chain.ids[row]: 2.0}, TENORS)
        assert not isinstance(covered, str)
        whole = 200.0 * found.chain.vega[row]
        np.testing.assert_allclose(covered.vega, [share * whole, (1.0 - share) * whole], rtol=1e-9, atol=1e-6)


def test_an_unknown_vega_is_named_not_taken_for_zero() -> None:
    """A held option without a vol stops the sum."""
    found = market(2)
    key = next(iter(found.book))
    vega = found.chain.vega.copy()
    vega[found.chain.ids.index(key)] = math.nan
    said = exposures_of(found.chain._replace(vega=vega), found.book, TENORS)
    assert isinstance(said, str)
    assert key in said


def test_candidates_are_the_cheapest_by_vega_that_pass_the_filters() -> None:
    """Wide, thin, far, stale and held contracts are left out; what is left is ordered by cost for its vega."""
    found = market(4)
    execution = Execution(stale_after=NS_PER_MINUTE)
    filters = Filters(min_delta=0.2, max_delta=0.8, min_days=60.0, per_bucket=3)
    keys: dict[str, Any] = {"spot": 100.0, "now": 30, "execution": execution}
    chosen = candidates_of(found.chain, found.book, (), TENORS, filters=filters, **keys)
    ids = found.chain.ids
    for c in chosen:
        row = ids.index(c.instrument)
        assert c.instrument not in found.book
        assert 0.2 <= abs(found.chain.delta[row]) <= 0.8
        assert found.chain.expiry[row] == round(90 * NS_PER_DAY)
    price = {c.instrument: c.cost / c.greeks[2] for c in chosen}
    assert len(chosen) == 3
    rest = [
        100.0 * 0.5 * (found.chain.ask[r] - found.chain.bid[r]) / (100.0 * found.chain.vega[r])
        for r in range(len(ids))
        if ids[r] not in found.book
        and ids[r] not in price
        and found.chain.expiry[r] > 60 * NS_PER_DAY
        and 0.2 <= abs(found.chain.delta[r]) <= 0.8
    ]
    assert max(price.values()) <= min(rest)
    old = {**keys, "now": 2 * NS_PER_MINUTE}
    assert candidates_of(found.chain, found.book, (), TENORS, filters=filters, **old) == []


NEAR, FAR = option(100, days=30), option(100, days=90)
HEDGES = [option(105, days=30), option(105, days=90), option(95, days=30, cp=-1), option(95, days=90, cp=-1)]


def day(hours: int, vol: float = 0.2, *, step: int = HOUR) -> list[Any]:
    """Quotes of the stock at 100 and of every option at one vol, each hour."""
    out = []
    for i in range(hours):
        out.append(quote(STOCK.id, i * step, 99.99, 100.01))
        for c in (NEAR, FAR, *HEDGES):
            tau = (c.expiry - NEAR.expiry + 30 * NS_PER_DAY - i * step) / (365 * NS_PER_DAY)
            price = float(black.bsm(100.0, float(c.strike), tau, vol, cp=c.cp).price)
            out.append(quote(c.id, i * step, round(price - 0.04, 2), round(price + 0.04, 2)))
    return out


def run(hedger: VegaHedger, *, openings: Sequence[tuple[str, int]], hours: int = 6) -> Bench:
    hedge = Hedge(underlying=STOCK.id, instrument=STOCK.id, lot=D(1))
    made = [hedger, DeltaHedger(hedges=[hedge], policy=DeltaBand(half_width=10.0))]
    bench = Bench(
        made,
        instruments=[STOCK, NEAR, FAR, *HEDGES],
        openings=openings,
        tradable=[c.id for c in (NEAR, FAR, *HEDGES)],
        valuation=IMPLIED,
        remark=HOUR,
        report_grid=HOUR,
    )
    return bench.play(day(hours), finish=False)


def test_it_hedges_the_book_and_its_delta_follows() -> None:
    """In the engine, vega in both buckets comes inside a lot, the hedger's own options are other ones, and delta is flat."""
    bench = run(
        VegaHedger(underlying=STOCK.id, vega_limit=500.0, tenors=TENORS, look=HOUR),
        openings=[(NEAR.id, -20), (FAR.id, 10)],
    )
    slot = bench.account.slots[0]
    slot.view.now = bench.loop.now
    chain = slot.view.chain(STOCK.id)
    covered = exposures_of(chain, {key: float(bench.held(key)) for key in chain.ids}, TENORS)
    assert not isinstance(covered, str)
    for i, c in enumerate((HEDGES[2], HEDGES[3])):
        lot = 100.0 * float(chain.vega[chain.ids.index(c.id)])
        assert abs(covered.vega[i]) <= lot * 1.05  # an hour or six have passed since the hedge
    assert bench.held(NEAR.id) == -20 and bench.held(FAR.id) == 10
    options = sum(100.0 * float(bench.held(key)) * float(d) for key, d in zip(chain.ids, chain.delta, strict=True))
    assert abs(options + float(bench.held(STOCK.id))) <= 11.0


def test_inside_its_limits_it_does_nothing() -> None:
    """A book whose vega is inside the limit is left alone."""
    bench = run(VegaHedger(underlying=STOCK.id, vega_limit=1e6, tenors=TENORS, look=HOUR), openings=[(NEAR.id, -20)])
    assert not [f for f in bench.facts(TargetSet) if f.strategy == "vega_hedger"]
    assert not bench.facts(Skipped)


def test_without_a_candidate_it_waits_and_says_so() -> None:
    """When no option passes the filters the decision is skipped with its reason."""
    hedger = VegaHedger(underlying=STOCK.id, vega_limit=500.0, tenors=TENORS, look=HOUR, max_spread=1e-4)
    bench = run(hedger, openings=[(NEAR.id, -20)])
    assert not [f for f in bench.facts(TargetSet) if f.strategy == "vega_hedger"]
    assert "no option has a quote that it may be hedged with" in bench.facts(Skipped)[0].reason


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tenors": (90.0, 30.0)}, "rising days"),
        ({"vega_limit": (1.0, 2.0, 3.0)}, "one number or 2"),
        ({"vega_limit": 0.0}, "numbers above 0"),
        ({"aim": 2.0}, "from 0 to 1"),
        ({"min_delta": 0.7}, "min_delta < max_delta"),
        ({"aggression": 2.0}, "aggression"),
        ({"risk_aversion": 0.0}, "risk_aversion"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys: dict[str, Any], words: str) -> None:
    """Each by its name, in words."""
    with pytest.raises(ValueError, match=words):
        VegaHedger(underlying=STOCK.id, **({"vega_limit": 1.0, "tenors": TENORS} | keys))
