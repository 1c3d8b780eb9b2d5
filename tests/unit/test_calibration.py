"""A calibration recovers what the paper broker was told from its fills alone, and says so where the fills cannot tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import Accepted, Evidence, Filled, Rejected, TargetLine
from bot.domain.costs import BasisPointSpread, LinearImpact, PerContract, SquareRootImpact
from bot.domain.instruments import Perpetual, Spot, Universe
from bot.domain.orders import Fill, Order, QuoteRef
from bot.domain.units import NS_PER_MINUTE, NS_PER_SECOND
from bot.engine.journal import Executed, Fact, Ordered, Started, Step, TargetSet, VenueSaid
from bot.engine.performance import (
    FillModel,
    HedgeRecord,
    hedge_records,
    rolling_effectiveness,
    rolling_windows,
    window_of,
)
from bot.lab.calibration import broker_table, calibrate, comments, fit_impact, fit_latency
from bot.testing.fakes import MemoryMarket

D = Decimal
XYZ = Spot(id="SIM:XYZ", tick=D("0.01"), lot=D(1))
T0 = 1_740_000_000 * NS_PER_SECOND


def trade(
    options: PaperOptions, *, seed: int, orders: int = 200, sizes: Sequence[int] = (50, 800), half: float = 0.02,
    instrument: Spot = XYZ, display: tuple[int, int] = (100, 400), kind: str = "market",
) -> list[HedgeRecord]:  # fmt: skip
    """The records of random market orders, one a minute, that the paper broker filled on a random walk."""
    rng = np.random.default_rng(seed)
    universe = Universe([instrument])
    market = MemoryMarket(universe)
    broker = PaperBroker(options, seed=seed)
    broker.attach(universe, market, "dynamic")
    steps: list[Step] = []
    mid = 100.0

    def note(ts: int, *facts: Fact) -> None:
        steps.append(Step(seq=len(steps), ts=ts, tape=0, facts=list(facts)))

    for number in range(orders):
        ts = T0 + number * NS_PER_MINUTE
        mid = round(mid + 0.05 * float(rng.standard_normal()), 2)
        size = int(rng.integers(*display))
        bid, ask = round(mid - half, 4), round(mid + half, 4)
        market.quote(instrument.id, ts=ts, bid=bid, ask=ask, bid_size=size, ask_size=size)
        broker.on_instant(ts)
        order = Order(
            id=f"dynamic-{number:06d}",
            account="dynamic",
            instrument=instrument.id,
            quantity=D(int(rng.integers(sizes[0], sizes[1] + 1)) * int(rng.choice([-1, 1]))),
            ts=ts,
            reference=QuoteRef(bid=bid, ask=ask, ts=ts),
        )
        note(ts, Ordered(account="dynamic", order=order))
        broker.accept(order, ts)
        while (due := broker.next_due()) < ts + NS_PER_MINUTE:
            for event in broker.take_due(due):
                note(event.ts_recv, fact_of(event))
    return hedge_records(steps, {instrument.id: instrument}, account="dynamic", model=model_of(options))


def fact_of(event: Any) -> Fact:
    if isinstance(event, Filled):
        return Executed(account=event.account, fill=event.fill, allocations={"main": event.fill.quantity})
    assert isinstance(event, Accepted | Rejected)
    return VenueSaid(account=event.account, order_id=event.order_id, what=type(event).__name__.lower())


def model_of(options: PaperOptions) -> FillModel:
    if options.beyond != "impact":
        return FillModel(spreads=options.spreads)
    return FillModel(spreads=options.spreads, impact=options.impact)


KNOWN = {XYZ.id: XYZ}
SEEDS = (1, 2, 3, 11, 2024)

# --------------------------------------------------------------------------- what is known is found again


@pytest.mark.parametrize("seed", SEEDS)
def test_latency_and_jitter_are_recovered_within_their_errors(seed: int) -> None:
    """150 ms and a draw up to 50 ms are found again within three and a half standard errors, and small errors they are."""
    found = calibrate(trade(PaperOptions(latency=150_000_000, jitter=50_000_000), seed=seed), KNOWN).latency
    assert found.latency.value == pytest.approx(150e6, abs=3.5 * (found.latency.error or 0.0))
    assert found.jitter.value == pytest.approx(50e6, abs=3.5 * (found.jitter.error or 0.0))
    assert (found.latency.error or 0.0) < 1e6
    assert found.uniform is not None
    assert found.uniform > 0.001


def test_the_errors_of_latency_are_those_of_repeated_samples() -> None:
    """Over five hundred samples the estimators are unbiased and spread as their standard errors say."""
    rng = np.random.default_rng(4)
    fits = [fit_latency([int(x) for x in 150e6 + 50e6 * rng.random(30)]) for _ in range(500)]
    for name, truth in (("latency", 150e6), ("jitter", 50e6)):
        kept = [f for f in fits if f.uniform is not None and f.uniform >= 0.01]
        values = np.array([getattr(f, name).value for f in kept])
        told = float(np.mean([getattr(f, name).error for f in kept]))
        assert values.mean() == pytest.approx(truth, abs=4 * values.std() / math.sqrt(len(values)))
        assert values.std() == pytest.approx(told, rel=0.1)


def test_a_constant_latency_has_no_jitter() -> None:
    """Orders that all take the same time give that time and a draw of zero."""
    found = calibrate(trade(PaperOptions(latency=20_000_000), seed=1, orders=10), KNOWN).latency
    assert (found.latency.value, found.jitter.value) == (20e6, 0.0)


def test_latencies_of_another_law_are_said_to_be_so() -> None:
    """Log-normal latencies are refused as uniform, and the draw has their 5% and 95% quantiles."""
    draws = np.random.default_rng(3).lognormal(math.log(40e6), 0.8, 1000)
    found = fit_latency([int(x) for x in draws])
    assert found.uniform is not None
    assert found.uniform < 0.01
    assert "not uniform" in found.latency.text
    low, wide = found.latency.value or 0.0, found.jitter.value or 0.0
    assert low + 0.95 * wide == pytest.approx(found.quantiles["p95"], rel=1e-9) or low == 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_quoted_fills_pay_the_quoted_half_spread(seed: int) -> None:
    """Fills at the touch pay a share of one, the model tells them exactly, and the spread is kept as quoted."""
    records = trade(PaperOptions(latency=5_000_000), seed=seed)
    fit = calibrate(records, KNOWN).spreads[XYZ.id]
    assert fit.as_quoted is True
    assert fit.share.value == pytest.approx(1.0, abs=1e-9)
    assert all(r.slippage == r.expected for r in records)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bp", ["3", "12.5"])
def test_an_assumed_spread_is_recovered_in_basis_points(seed: int, bp: str) -> None:
    """A spread assumed round the middle is told from the quoted one, and lies where the ticks of the fills allow."""
    options = PaperOptions(spreads={"*": BasisPointSpread(bp=D(bp))})
    fit = calibrate(trade(options, seed=seed, half=0.01), KNOWN).spreads[XYZ.id]
    assert fit.as_quoted is False
    assert fit.half_bp.value == pytest.approx(float(bp), abs=math.sqrt(3.0) * (fit.half_bp.error or 0.0) + 1e-9)
    a_tick = 1.02  # basis points: 0.01 on a price that stays near 100
    assert (fit.half_bp.error or 0.0) <= a_tick / math.sqrt(12.0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("law", "kind", "adv"),
    [
        (SquareRootImpact(coefficient=D("0.004")), "square_root", None),
        (LinearImpact(coefficient=D("0.003")), "linear", None),
        (SquareRootImpact(coefficient=D("0.02"), adv=D(20_000)), "square_root", D(20_000)),
        (LinearImpact(coefficient=D("0.08"), adv=D(20_000)), "linear", D(20_000)),
    ],
)
def test_impact_is_recovered_with_its_law(seed: int, law: Any, kind: str, adv: Decimal | None) -> None:
    """The law and its coefficient are found again within four standard errors, from display or daily volume."""
    options = PaperOptions(beyond="impact", impact=law)
    found = calibrate(trade(options, seed=seed, orders=300), KNOWN, adv=adv).impact
    assert found.kind == kind
    chosen = found.chosen
    assert chosen is not None
    assert chosen.error is not None
    assert chosen.error < 0.05 * float(law.coefficient)
    assert chosen.value == pytest.approx(float(law.coefficient), abs=4 * chosen.error + 1e-9)


def test_a_few_odd_fills_do_not_bend_the_impact() -> None:
    """One fill in twenty ten times as dear as the law moves the coefficient by less than a tenth."""
    options = PaperOptions(beyond="impact", impact=SquareRootImpact(coefficient=D("0.004")))
    walks = [(w, XYZ.tick) for r in trade(options, seed=5, orders=300) for w in r.walks]
    odd = [(w._replace(worse=w.worse * 10) if i % 20 == 0 else w, tick) for i, (w, tick) in enumerate(walks)]
    found = fit_impact(odd)
    assert found.kind == "square_root"
    assert found.square_root.value == pytest.approx(0.004, rel=0.1)


# --------------------------------------------------------------------------- where the fills cannot tell


def test_without_fills_every_number_is_a_sentence() -> None:
    """No orders at all: no number, and each says why."""
    found = calibrate([], {})
    assert found.spreads == {}
    assert (found.latency.latency.value, found.latency.latency.text) == (None, "no order that reached the venue")
    assert found.impact.kind is None
    assert "no fill" in found.impact.text
    table = broker_table(found, {"kind": "paper", "latency": "7ms"})
    assert table == {"kind": "paper", "latency": "7ms"}


def test_one_fill_tells_no_error_and_so_no_number() -> None:
    """A single order gives no estimate of anything."""
    found = calibrate(trade(PaperOptions(beyond="impact"), seed=1, orders=1, sizes=(900, 900)), KNOWN)
    assert found.latency.latency.value is None
    assert "one order" in found.latency.latency.text
    fit = found.spreads[XYZ.id]
    assert (fit.share.value, fit.half_bp.value, fit.as_quoted) == (None, None, None)
    assert "one fill" in fit.share.text
    assert found.impact.chosen is None
    assert all("told" in line or "fitted" in line for line in comments(found))


def test_walks_of_one_size_tell_no_law() -> None:
    """All one relative size: neither law nor coefficient, and the sentence says so."""
    options = PaperOptions(beyond="impact", impact=SquareRootImpact(coefficient=D("0.004")))
    found = calibrate(trade(options, seed=1, sizes=(300, 300), display=(100, 101)), KNOWN).impact
    assert (found.kind, found.square_root.value, found.linear.value) == (None, None, None)
    assert "one relative size" in found.text


def test_impact_below_a_tick_is_said_to_be_hidden() -> None:
    """Where rounding to the tick is all that is paid no coefficient is told."""
    options = PaperOptions(beyond="impact", impact=SquareRootImpact(coefficient=D("0.00001")))
    found = calibrate(trade(options, seed=1), KNOWN).impact
    assert found.kind is None
    assert "rounding" in found.text


def test_walks_without_a_known_display_ask_for_a_volume() -> None:
    """An order that meets an empty display walks from nothing: only a daily volume can scale it."""
    options = PaperOptions(beyond="impact", impact=SquareRootImpact(coefficient=D("0.01"), adv=D(20_000)))
    lots = Spot(id="SIM:XYZ", tick=D("0.01"), lot=D(1000))
    records = trade(
        options, seed=1, sizes=(1, 9), instrument=Spot(id="SIM:XYZ", tick=D("0.01"), lot=D(1)), display=(1, 2)
    )
    assert any(r.walks for r in records)
    unknown = [(w._replace(displayed=None), lots.tick) for r in records for w in r.walks]
    assert "state a daily volume" in fit_impact(unknown).text
    assert fit_impact(unknown, adv=D(20_000)).square_root.known
    with pytest.raises(ValueError, match="adv"):
        calibrate(records, KNOWN, adv=D(0))


# --------------------------------------------------------------------------- records


def test_the_parts_of_a_slippage_sum_to_it_exactly() -> None:
    """Delay, spread and impact are the price against the decision's middle, to the last digit, fees apart."""
    options = PaperOptions(
        latency=30_000_000,
        beyond="impact",
        impact=SquareRootImpact(coefficient=D("0.004")),
        commissions={"*": PerContract(rate=D("0.005"))},
    )
    for r in trade(options, seed=7):
        assert r.price is not None
        assert r.decision_mid is not None
        assert r.slippage is not None
        assert float(r.slippage) == pytest.approx(float(r.done * (r.price - r.decision_mid)), abs=1e-9)
        assert r.cost == r.spread + r.impact + r.commission
        assert r.latency == 30_000_000
        assert r.wait == 0


def order(number: int, quantity: str, *, ts: int = T0, reference: QuoteRef | None = None) -> Order:
    return Order(
        id=f"o{number}", account="dynamic", instrument="SIM:XYZ", quantity=D(quantity), ts=ts, reference=reference
    )


def fill(
    of: Order, price: str, mid: str, touch: str, *, ts: int, quantity: str | None = None, part: int = 1
) -> Executed:
    made = Fill(
        id=f"{of.id}/{part}", order_id=of.id, account="dynamic", instrument=of.instrument,
        ts=ts, quantity=of.quantity if quantity is None else D(quantity), price=D(price), commission=D(0), currency="USD",
        mid=D(mid), touch=D(touch), quote_ts=ts,
    )  # fmt: skip
    return Executed(account="dynamic", fill=made, allocations={})


def records_of(*facts: tuple[int, Fact], instrument: Any = XYZ) -> list[HedgeRecord]:
    steps = [Step(seq=i, ts=ts, tape=0, facts=[fact]) for i, (ts, fact) in enumerate(facts)]
    return hedge_records(steps, {instrument.id: instrument}, account="dynamic", model=FillModel())


def test_a_market_that_ran_away_is_delay_and_not_spread() -> None:
    """Bought one up after the market rose by ten: ten of delay, the half spread of spread, twice the size."""
    o = order(1, "2", reference=QuoteRef(bid=99.0, ask=101.0, ts=T0))
    (r,) = records_of((T0, Ordered(account="dynamic", order=o)), (T0 + 5, fill(o, "111", "110", "111", ts=T0 + 5)))
    assert (r.delay, r.spread, r.impact, r.slippage) == (D(20), D(2), D(0), D(22))
    assert r.expected == D(2)
    assert r.spread_share == 1.0


def test_a_limit_filled_inside_the_touch_pays_a_part_of_the_spread() -> None:
    """A sale at the middle pays no spread; the improvement on the touch is a negative impact."""
    o = order(1, "-4", reference=QuoteRef(bid=99.0, ask=101.0, ts=T0))
    (r,) = records_of((T0, Ordered(account="dynamic", order=o)), (T0 + 5, fill(o, "100", "100", "99", ts=T0 + 5)))
    assert (r.spread, r.impact, r.slippage) == (D(4), D(-4), D(0))
    assert r.spread_share == 0.0
    assert r.walks == ()


def test_an_inverse_contract_costs_in_its_coin() -> None:
    """The cost of an inverse perpetual is counted in the currency it settles in."""
    coin = Perpetual(id="SIM:XYZ", currency="USD", multiplier=D(10), inverse=True, settlement_currency="BTC")
    o = order(1, "100", reference=QuoteRef(bid=49_990.0, ask=50_010.0, ts=T0))
    (r,) = records_of(
        (T0, Ordered(account="dynamic", order=o)), (T0, fill(o, "50010", "50000", "50010", ts=T0)), instrument=coin
    )
    assert float(r.spread) == pytest.approx(1000 * (1 / 50_000 - 1 / 50_010))
    assert r.slippage == r.expected


def test_an_order_that_never_filled_is_a_record_too() -> None:
    """A rejected order keeps what the venue said and when, and costs nothing."""
    o = order(1, "5")
    said = VenueSaid(account="dynamic", order_id="o1", what="rejected", text="closed_session")
    (r,) = records_of((T0, Ordered(account="dynamic", order=o)), (T0 + 9, said))
    assert (r.done, r.cost, r.latency, r.said) == (D(0), D(0), 9, "rejected: closed_session")
    assert r.slippage is None
    assert r.price is None
    assert window_of([r]).slippage_bp is None


def test_other_accounts_and_other_facts_are_left_alone() -> None:
    """Only the asked account's orders are read."""
    facts: list[Fact] = [
        Started(account="dynamic", positions={}, marks={}),
        Ordered(account="static", order=order(1, "5")),
        VenueSaid(account="dynamic", order_id="unknown", what="accepted"),
    ]
    assert records_of(*((T0, fact) for fact in facts)) == []


def test_a_hedge_takes_away_the_risk_of_the_gap_it_closes() -> None:
    """From a gap of 30 to 5 at 20% of vol on 100: 25 x 100 x 0.2 / sqrt(365) of a day's deviation."""
    evidence = Evidence(underlying="SIM:XYZ", spot=100.0, vols={"a": 0.2, "b": None}, lo=25.0, hi=35.0, held=D(0))
    o = order(1, "25")
    target = TargetSet(
        account="dynamic", strategy="s", book="main", lines=(TargetLine("SIM:XYZ", D(25), 25.0),), reason="", evidence=evidence
    )  # fmt: skip
    (r,) = records_of(
        (T0, target), (T0, Ordered(account="dynamic", order=o)), (T0, fill(o, "100", "100", "100", ts=T0))
    )
    assert r.risk_removed == pytest.approx(25 * 100 * 0.2 / math.sqrt(365))


def test_rolling_figures_look_back_only_and_by_instrument() -> None:
    """The window of each record holds the last ones up to it; the last equals the figure of the last ones alone."""
    records = trade(PaperOptions(latency=1), seed=3, orders=12)
    windows = rolling_windows(records, 5)
    assert [w.hedges for w in windows] == [1, 2, 3, 4, *[5] * 8]
    assert windows[-1] == window_of(records[-5:])
    with pytest.raises(ValueError, match="at least one"):
        rolling_windows(records, 0)


def test_rolling_effectiveness_is_the_variance_taken_away_in_each_window() -> None:
    """Against a plain loop; before the window is full, and where options stand still, it is not a number."""
    rng = np.random.default_rng(1)
    options = np.concatenate((np.zeros(6), rng.standard_normal(40)))
    hedge = -0.8 * options + 0.1 * rng.standard_normal(46)
    path = rolling_effectiveness(options, hedge, 6)
    assert np.isnan(path[:6]).all()
    for i in range(10, 46):
        bare, both = options[i - 5 : i + 1], (options + hedge)[i - 5 : i + 1]
        assert path[i] == pytest.approx(1.0 - np.var(both) / np.var(bare))
    assert np.isnan(rolling_effectiveness(options[:3], hedge[:3], 6)).all()
    with pytest.raises(ValueError, match="two intervals"):
        rolling_effectiveness(options, hedge, 1)
