"""Portfolio insurance in the engine: each rule against a plain loop of its own, gaps, bands, the clock and the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from adapters.paper import PaperOptions
from bot.domain.costs import BasisPoints, FixedSpread
from bot.domain.instruments import Index
from bot.domain.market import Trade
from bot.engine.journal import Executed, Skipped, TargetSet
from bot.pricing import insurance
from bot.pricing.black import bsm
from strategies.portfolio_insurance import Jumps, PortfolioInsurance
from tests.simulation.bench import DAY, MINUTE, START, STOCK, Bench, minutes, quote

D = Decimal
INDEX = Index(id="INDEX:UND", tick=D("0.01"), lot=D("0.000001"))
CASH = D(100_000_000)


def walk(n: int, *, seed: int = 3, vol: float = 0.02, crash: int | None = None) -> list[float]:
    rng = np.random.default_rng(seed)
    moves = vol * rng.standard_normal(n)
    if crash is not None:
        moves[crash] = -0.25
    return [round(float(p), 6) for p in 100.0 * np.exp(np.concatenate([[0.0], np.cumsum(moves)]))]


def daily(prices: Sequence[float], *, bp: int = 10, rate: float = 0.0, **keys: Any) -> tuple[Bench, PortfolioInsurance]:
    """A run over daily prints of an index, fractions traded, costs in basis points, interest continuous."""
    strategy = PortfolioInsurance(instrument=INDEX.id, lot=D("0.000001"), rate=rate, **keys)
    run = Bench(
        [strategy],
        instruments=[INDEX],
        needed=[INDEX.id],
        paper=PaperOptions(
            spreads={"*": FixedSpread(half=D(0))}, commissions={"*": BasisPoints(bp=D(bp))}, stale_after=None
        ),
        financing_rate=rate,
        compounding="continuous",
        report_grid=DAY,
        remark=DAY,
        jump_freeze=None,
    )
    run.account.ledger.book.add_cash("USD", CASH)
    at = [START + i * DAY for i in range(len(prices))]
    prints = [Trade(instrument=INDEX.id, ts_event=t, ts_recv=t, price=p) for t, p in zip(at, prices, strict=True)]
    return run.play(prints), strategy


def looks(run: Bench, what: str) -> np.ndarray:
    """A gauge at each daily look."""
    table = run.loop.sampler.table()
    return table.gauges["dynamic", "portfolio_insurance", what]


def values_of_loop(prices: Sequence[float], wanted: Any, *, bp: int, rate: float) -> tuple[list[float], float, int]:
    """Value before each trade, money traded and trades of a plain loop over `wanted(i, price, value) -> units or None`."""
    cash, units, values, traded, trades = float(CASH), 0.0, [], 0.0, 0
    for i, price in enumerate(prices):
        if i:
            cash *= math.exp(rate / 365.0)
        values.append(cash + units * price)
        to = wanted(i, price, values[-1], units)
        if to is None:
            continue
        to = round(to, 6)
        if to != units:
            cash -= (to - units) * price + abs(to - units) * price * bp / 1e4
            traded += abs(to - units) * price
            trades += 1
            units = to
    return values, traded, trades


def check(run: Bench, strategy: PortfolioInsurance, values: list[float], traded: float, trades: int) -> None:
    """The engine's figures are the loop's."""
    figures = strategy.figures(run.account.slots[0].view)
    outcome, trading = figures["Outcome"], figures["Trading"]
    assert outcome["lowest value"] == pytest.approx(min(values), abs=1.0)  # of a hundred million
    assert outcome["worst step"] == pytest.approx(min(np.diff(values)), abs=1.0)
    assert trading["money traded"] == pytest.approx(traded, rel=1e-8)
    assert trading["trades"] == pytest.approx(trades, abs=1)  # one of a millionth of a unit may round the other way


@pytest.mark.parametrize("floor", [0.85, 0.95])
@pytest.mark.parametrize("seed", [3, 4])
def test_the_synthetic_put_is_its_plain_loop(floor: float, seed: int) -> None:
    """Units, value, costs and shortfall of a year of daily prints agree with a loop of ten lines."""
    prices = walk(250, seed=seed, crash=120)
    n, rate, vol = len(prices) - 1, 0.05, 0.18
    K, T = floor * prices[0], n / 365.0
    put = float(bsm(prices[0], K, T, vol, rate=rate, cp=-1).price)
    scale = float(CASH) / (prices[0] + put)

    def wanted(i: int, price: float, value: float, units: float) -> float | None:
        left = (n - i) / 365.0
        return None if i == n else scale * (1.0 + float(bsm(price, K, left, vol, rate=rate, cp=-1).delta))

    run, strategy = daily(prices, rate=rate, method="synthetic_put", floor=floor, vol=vol, horizon=START + n * DAY)
    values, traded, trades = values_of_loop(prices, wanted, bp=10, rate=rate)
    check(run, strategy, values, traded, trades)
    insured = strategy.figures(run.account.slots[0].view)["Insurance"]
    assert insured["insured value"] == pytest.approx(scale * max(prices[-1], K), rel=1e-9)
    assert insured["shortfall"] == pytest.approx(scale * max(prices[-1], K) - values[-1], abs=1.0)


def test_obpi_holds_its_share_of_the_value_and_never_borrows() -> None:
    """The weight S N(d1) / (S + P) of the value of the moment, daily."""
    prices = walk(120, seed=9)
    n, vol = len(prices) - 1, 0.3

    def wanted(i: int, price: float, value: float, units: float) -> float | None:
        if i == n:
            return None
        return float(insurance.obpi_weight(price, 0.9 * prices[0], (n - i) / 365.0, vol=vol)) * value / price

    run, strategy = daily(prices, method="obpi", floor=0.9, vol=vol, horizon=START + n * DAY)
    check(run, strategy, *values_of_loop(prices, wanted, bp=10, rate=0.0))
    exposure, value = (looks(run, name) for name in ("exposure", "value"))
    assert np.nanmax(exposure / value) <= 1.0


@pytest.mark.parametrize("band", [0.0, 0.1])
def test_cppi_is_its_plain_loop(band: float) -> None:
    """Exposure m (V - F) under a cap, within a band of the multiple, the floor growing at its rate."""
    prices = walk(200, seed=5)
    m, cap, g = 4.0, 0.9, 0.03

    def wanted(i: int, price: float, value: float, units: float) -> float | None:
        floor = 0.8 * float(CASH) * math.exp(g * i / 365.0)
        to = min(m * max(value - floor, 0.0), cap * value) / price
        return to if abs(units - to) > band * to else None

    run, strategy = daily(prices, rate=0.02, method="cppi", floor=0.8, multiplier=m, cap=cap, band=band, floor_rate=g)
    values, traded, trades = values_of_loop(prices, wanted, bp=10, rate=0.02)
    check(run, strategy, values, traded, trades)
    assert trades < 60 if band else trades > 190


def test_tipp_raises_its_floor_with_the_best_value_and_never_lowers_it() -> None:
    """The floor is its share of the best value so far, and exposure its multiple of what is above."""
    prices = walk(200, seed=6)
    best = 0.0

    def wanted(i: int, price: float, value: float, units: float) -> float | None:
        nonlocal best
        best = max(best, value)
        return min(3.0 * max(value - 0.9 * best, 0.0), value) / price

    run, strategy = daily(prices, method="tipp", floor=0.9, multiplier=3.0)
    check(run, strategy, *values_of_loop(prices, wanted, bp=10, rate=0.0))
    floor = looks(run, "floor")
    known = floor[np.isfinite(floor)]
    assert (np.diff(known) >= 0.0).all() and known[-1] > known[0]


def test_a_gap_through_the_floor_is_one_alarm_and_leaves_the_asset() -> None:
    """A fall of a quarter at five times the cushion breaks the floor: it is said once, measured, and nothing is held after."""
    prices = walk(60, seed=8, vol=0.005, crash=30)
    run, strategy = daily(prices, bp=0, method="cppi", floor=0.8, multiplier=5.0)
    assert run.alarms().count("floor_broken") == 1
    gap = strategy.figures(run.account.slots[0].view)["Gap risk"]
    assert gap["times the floor broke"] == 1.0

    def wanted(i: int, price: float, value: float, units: float) -> float:
        return min(5.0 * max(value - 8e7, 0.0), value) / price

    value = values_of_loop(prices[:31], wanted, bp=0, rate=0.0)[0][-1]
    after_fall = value + wanted(30, prices[30], value, 0.0) * (prices[31] - prices[30])
    assert gap["deepest below the floor"] == pytest.approx(8e7 - after_fall, rel=1e-3)
    assert run.held(INDEX.id) == 0


def test_the_gap_meter_shows_the_fall_that_breaks_the_floor_and_its_chance() -> None:
    """At the multiple the fall is 1 / m; its chance by the forecast and by jumps is the formula's."""
    jumps = Jumps(intensity=2.0, mean=-0.2, vol=0.1)
    run, _ = daily([100.0, 100.0, 100.0], bp=0, method="cppi", floor=0.8, multiplier=4.0, vol=0.5, jumps=jumps)
    assert looks(run, "breaking_fall")[-1] == pytest.approx(0.25)
    vol = looks(run, "vol_forecast")[-1]
    assert looks(run, "gap_chance_day")[-1] == pytest.approx(
        float(insurance.gap_probability(0.25, vol=vol, dt=1 / 365))
    )
    assert looks(run, "jump_chance_year")[-1] == pytest.approx(
        float(insurance.jump_gap_probability(0.25, intensity=2.0, jump_mean=-0.2, jump_vol=0.1, dt=1.0))
    )


def test_a_put_that_renews_begins_again_at_the_price_and_value_of_its_end() -> None:
    """Four terms of thirty days in a hundred and twenty: three renewals before the last end, units from the value then."""
    prices = walk(121, seed=2)
    run, strategy = daily(prices, bp=0, method="synthetic_put", floor=0.95, vol=0.3, length=30 * DAY)
    insured = strategy.figures(run.account.slots[0].view)["Insurance"]
    assert insured["renewals"] == 4.0
    assert insured["strike"] == pytest.approx(0.95 * prices[120])


def test_a_price_is_acted_on_once_and_the_clock_may_decide() -> None:
    """By the clock only its instants are looked at, and one without a new price is passed over."""
    strategy = PortfolioInsurance(instrument=STOCK.id, method="cppi", floor=0.5, multiplier=1.5, every=10 * MINUTE)
    run = Bench([strategy], end=START + 60 * MINUTE)
    run.account.ledger.book.add_cash("USD", D(100_000))
    run.play([*minutes([100.0 + i for i in range(25)])])
    assert {ts // MINUTE for ts in run.when(Executed)} <= {0, 10, 20, 30}
    assert len(run.facts(TargetSet)) == 4  # the last looks found no news since minute 24


def test_what_cannot_be_known_is_a_decision_not_made() -> None:
    """A withdrawn side and an old quote are skipped with their reason, and nothing is sent."""
    strategy = PortfolioInsurance(instrument=STOCK.id, method="cppi", floor=0.5, multiplier=1.5, stale_after=5 * MINUTE)
    run = Bench([strategy], end=START + 60 * MINUTE)
    run.account.ledger.book.add_cash("USD", D(100_000))
    run.play(
        [
            quote(STOCK.id, 0, 99.9, 100.1),
            quote(STOCK.id, MINUTE, None, 110.0),
        ]
    )
    assert len(run.facts(Executed)) == 1
    assert [f.reason for f in run.facts(Skipped)] == [f"no two-sided price of {STOCK.id}"] * len(run.facts(Skipped))
    assert run.facts(Skipped)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"method": "cppi", "floor": 1.0}, "floor"),
        ({"method": "cppi", "floor": 0.8, "multiplier": 0.0}, "multiplier"),
        ({"method": "cppi", "floor": 0.8, "cap": 0.0}, "cap"),
        ({"method": "cppi", "floor": 0.8, "band": -0.1}, "band"),
        ({"method": "obpi", "floor": 0.8, "vol": 0.0, "length": DAY}, "vol"),
        ({"method": "obpi", "floor": 0.8}, "horizon and length"),
        ({"method": "obpi", "floor": 0.8, "horizon": START, "length": DAY}, "horizon and length"),
        ({"method": "cppi", "floor": 0.8, "jumps": {"intensity": -1.0}}, "jumps"),
    ],
)
def test_a_rule_that_insures_nothing_is_refused(keys: dict[str, Any], word: str) -> None:
    """Each fault is named."""
    with pytest.raises(ValueError, match=word):
        PortfolioInsurance(instrument=STOCK.id, **keys)
