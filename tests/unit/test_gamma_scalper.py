"""The gamma scalper enters on its forecast, sizes by its budget, rolls, stops, waits for quotes, and tracks what it earns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bot.core.events import Conversion, Corporate
from bot.core.option_orders import Execution, limit_price
from bot.core.ports import Hedge
from bot.domain.market import Quote
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_YEAR
from bot.engine.journal import Executed, Ordered, Skipped, TargetSet
from bot.pricing import black, forecast
from strategies.delta_hedger import DeltaHedger
from strategies.gamma_scalper import (
    Bars,
    ForecastRule,
    GammaScalper,
    LegMark,
    Sight,
    Sums,
    added,
    bars_after,
    break_even,
    forecast_vol,
)
from strategies.policies.delta_band import DeltaBand
from tests.simulation.bench import IMPLIED, START, STOCK, Bench, option, quote

D = Decimal
HOUR = 60 * NS_PER_MINUTE
STRIKES = (90, 95, 100, 105, 110)
NEAR = {(k, cp): option(k, days=30, cp=cp) for k in STRIKES for cp in (1, -1)}
FAR = {(k, cp): option(k, days=60, cp=cp) for k in STRIKES for cp in (1, -1)}
ALL = [*NEAR.values(), *FAR.values()]


def day(spots: Sequence[float], *, vol: float = 0.2, gone: Mapping[int, Sequence[str]] | None = None) -> list[Quote]:
    """Each hour the stock and every option, at one vol; `gone` names contracts without a bid at an hour."""
    out = []
    for i, spot in enumerate(spots):
        out.append(quote(STOCK.id, i * HOUR, round(spot - 0.01, 2), round(spot + 0.01, 2)))
        for c in ALL:
            tau = (c.expiry - START - i * HOUR) / NS_PER_YEAR
            price = float(black.bsm(spot, float(c.strike), tau, vol, cp=c.cp).price)
            bid = None if c.id in (gone or {}).get(i, ()) else max(round(price - 0.05, 2), 0.01)
            out.append(quote(c.id, i * HOUR, bid, round(price + 0.05, 2), sizes=(20.0, 20.0)))
    return out


def run(
    quotes: Sequence[Any],
    *,
    hedged: bool = False,
    finish: bool = False,
    openings: Sequence[tuple[str, int]] = (),
    **keys: Any,
) -> Bench:
    made: list[Any] = [GammaScalper(underlying=STOCK.id, **({"look": HOUR, "days": 30, "min_days": 20} | keys))]
    if hedged:
        hedge = Hedge(underlying=STOCK.id, instrument=STOCK.id)
        made.append(DeltaHedger(hedges=[hedge], policy=DeltaBand(half_width=0.0)))
    bench = Bench(
        made,
        instruments=[STOCK, *ALL],
        openings=openings,
        tradable=[c.id for c in ALL],
        valuation=IMPLIED,
        remark=HOUR,
        report_grid=HOUR,
    )
    return bench.play(quotes, finish=finish)


def holding(bench: Bench) -> dict[tuple[int, int, int], int]:
    """(days, strike, side) -> contracts held."""
    found = {}
    for days, listed in ((30, NEAR), (60, FAR)):
        for (k, cp), c in listed.items():
            if bench.held(c.id):
                found[days, k, cp] = int(bench.held(c.id))
    return found


def wants(bench: Bench) -> list[str]:
    return [f.reason for f in bench.facts(TargetSet) if f.strategy == "gamma_scalper"]


def figures(bench: Bench) -> Mapping[str, Any]:
    slot = bench.account.slots[0]
    slot.view.now = bench.loop.now
    return {name: value for rows in slot.strategy.figures(slot.view).values() for name, value in rows.items()}  # type: ignore[attr-defined]  # a Reports


# --------------------------------------------------------------------------- what is bought


def test_a_straddle_is_bought_at_the_nearest_strike_and_expiry() -> None:
    """Call and put of the strike nearest to spot, of the expiry nearest to the days wanted."""
    assert holding(run(day([101.0] * 2), amount=3)) == {(30, 100, 1): 3, (30, 100, -1): 3}
    assert holding(run(day([104.0] * 2), days=50, amount=1)) == {(60, 105, 1): 1, (60, 105, -1): 1}


def test_a_strangle_is_bought_by_width_or_by_delta() -> None:
    """Five percent either side of spot, or the strikes whose deltas are nearest to a quarter."""
    assert set(holding(run(day([100.0] * 2), structure="strangle", width=0.05))) == {(30, 105, 1), (30, 95, -1)}
    assert set(holding(run(day([100.0] * 2), structure="strangle", delta=0.2))) == {(30, 105, 1), (30, 95, -1)}


@pytest.mark.parametrize("budget", ["vega", "gamma", "premium"])
def test_a_budget_buys_whole_structures_within_it(budget: str) -> None:
    """The structure's vega, gamma or premium never exceeds the budget, and one more would."""
    g = black.bsm(100.0, 100.0, 30.0 / 365.0, 0.2, cp=[1, -1])
    unit = {"vega": float(g.vega.sum()), "gamma": float(g.gamma.sum()), "premium": float(g.price.sum()) + 0.1}[budget]
    amount = 7.5 * 100.0 * unit
    assert holding(run(day([100.0] * 2), budget=budget, amount=amount)) == {(30, 100, 1): 7, (30, 100, -1): 7}


def test_size_is_bounded_by_the_display_and_the_largest_holding() -> None:
    """A quarter of twenty displayed is five, whatever the budget; max_contracts bounds it too."""
    assert set(holding(run(day([100.0] * 2), amount=100, of_display=0.25)).values()) == {5}
    assert set(holding(run(day([100.0] * 2), amount=100, max_contracts=3)).values()) == {3}


def test_a_budget_too_small_for_one_structure_waits_in_words() -> None:
    """Nothing is bought and the record says why."""
    bench = run(day([100.0] * 2), budget="premium", amount=10.0)
    assert not holding(bench)
    assert "buys no whole one" in bench.facts(Skipped)[0].reason


def test_the_short_side_writes() -> None:
    """The mirror holds the same structure written."""
    assert holding(run(day([100.0] * 2), side="short", amount=2)) == {(30, 100, 1): -2, (30, 100, -1): -2}


def test_a_withdrawn_leg_is_waited_for() -> None:
    """Without a bid of the put nothing is bought, not even the call; when it is back, both are."""
    gone = {0: [NEAR[100, -1].id], 1: [NEAR[100, -1].id]}
    bench = run(day([100.0] * 2, gone=gone))
    assert not holding(bench)
    assert "P00100000 is withdrawn; waiting" in bench.facts(Skipped)[0].reason
    assert holding(run(day([100.0] * 4, gone=gone))) == {(30, 100, 1): 1, (30, 100, -1): 1}


def test_a_limit_order_stands_inside_the_spread_and_is_asked_for_anew() -> None:
    """At the middle nobody fills it; after its patience it is dropped and asked for at the middle of then."""
    bench = run(day([100.0, 100.0, 100.0, 101.0, 101.0]), orders="limit", patience=HOUR)
    orders = [f.order for f in bench.facts(Ordered)]
    assert orders
    assert all(order.kind == "limit" for order in orders)
    first, later = ([o for o in orders if o.instrument == NEAR[100, 1].id][i] for i in (0, -1))
    middle = float(black.bsm(100.0, 100.0, 30.0 / 365.0, 0.2).price)
    assert float(first.limit or 0) == pytest.approx(middle, abs=0.011)
    assert later.limit != first.limit
    assert any("unfilled for 1h: dropped" in reason for reason in wants(bench))


@given(
    bid=st.decimals("0.05", "50", places=2),
    width=st.decimals("0", "5", places=2),
    aggression=st.floats(-1, 1),
    side=st.sampled_from([1, -1]),
    tick=st.sampled_from([D("0.01"), D("0.05"), D("0.10")]),
)
def test_a_limit_price_is_on_its_tick_and_never_beyond_the_touch(
    bid: Decimal, width: Decimal, aggression: float, side: int, tick: Decimal
) -> None:
    """It gives away no more than was said, to the tick."""
    ask = bid + width
    assume(ask >= tick)  # no venue quotes less than its own tick
    price = limit_price(float(bid), float(ask), side=side, aggression=aggression, tick=tick)
    assert price % tick == 0
    assert price > 0
    assert price <= ask if side > 0 else price >= bid
    exact = float(bid + ask) / 2 + side * aggression * float(width) / 2
    if price > tick:
        assert (float(price) - exact) * side <= 1e-9
        assert abs(float(price) - exact) <= float(tick) + 1e-9


# --------------------------------------------------------------------------- when


def test_it_enters_when_the_forecast_beats_the_implied_vol_by_the_margin() -> None:
    """Twenty is implied: at 25 forecast a margin of four points enters and one of six does not; the short side mirrors it."""
    fixed = {"kind": "fixed", "vol": 0.25}
    assert holding(run(day([100.0] * 2), forecast=fixed, margin=0.04))
    assert not holding(run(day([100.0] * 2), forecast=fixed, margin=0.06))
    assert not holding(run(day([100.0] * 2), forecast=fixed, margin=0.0, side="short"))
    low = {"kind": "fixed", "vol": 0.15}
    assert holding(run(day([100.0] * 2), forecast=low, margin=0.04, side="short"))
    assert "forecast 25.00% is" in wants(run(day([100.0] * 2), forecast=fixed, margin=0.04))[0]


def test_it_leaves_when_the_forecast_has_fallen_and_rests() -> None:
    """A quiet market brings an EWMA below what is implied: the structure is sold and not bought again while it rests."""
    rule = {"kind": "ewma", "decay": 0.5, "start_vol": 0.5, "interval": HOUR, "periods_per_year": 8760.0}
    bench = run(day([100.0] * 12), forecast=rule, margin=0.05, exit_margin=-0.05, rest=NS_PER_DAY)
    assert holding(bench) == {}
    assert sum("is no longer worth" in reason for reason in wants(bench)) == 2
    assert figures(bench)["exits by forecast"] == 1.0
    assert figures(bench)["entries"] == 1.0


def test_it_stops_at_a_loss_of_the_account() -> None:
    """Decay of vol costs more than the stop allows: it is sold, with the loss in the reason."""
    quotes = day([100.0] * 2) + [q for q in day([100.0] * 6, vol=0.15) if q.ts_recv >= START + 2 * HOUR]
    bench = run(quotes, amount=10, stop_loss=500.0)
    assert holding(bench) == {}
    assert any(reason.startswith("gamma_scalper: stop: the account lost") for reason in wants(bench))


def test_it_rolls_by_moneyness_into_the_strike_of_the_day() -> None:
    """When spot has left the strike by more than the bound, the old pair is sold and the new one bought at once."""
    bench = run(day([100.0, 100.0, 105.0, 105.0]), roll_moneyness=0.04)
    assert holding(bench) == {(30, 105, 1): 1, (30, 105, -1): 1}
    assert figures(bench)["rolls"] == 1.0
    assert any("roll, spot 105 is" in reason for reason in wants(bench))


def test_it_rolls_by_days_into_the_next_expiry() -> None:
    """As the expiry comes near, the structure moves to the expiry then nearest to the days wanted."""
    bench = run(day([100.0] * 30), days=30, min_days=29.5, max_days=90, roll_days=29.2)
    assert holding(bench) == {(60, 100, 1): 1, (60, 100, -1): 1}


def test_it_leaves_by_days_when_nothing_is_to_be_rolled_into() -> None:
    """At `exit_days` the structure is sold, and with no expiry in the bounds none is bought."""
    bench = run(day([100.0] * 30), days=30, min_days=29.9, max_days=31, exit_days=29.0)
    assert holding(bench) == {}
    assert figures(bench)["exits by days"] == 1.0


def test_a_structure_that_was_brought_is_held_and_kept_at_the_end() -> None:
    """A long strangle of the book is taken over: nothing is bought beside it, and the end of the session leaves it."""
    brought = [(NEAR[105, 1].id, 4), (NEAR[95, -1].id, 4)]
    bench = run(day([100.0] * 4), openings=brought, finish=True)
    assert holding(bench) == {(30, 105, 1): 4, (30, 95, -1): 4}
    assert not bench.facts(Executed)
    assert figures(bench)["looks while held"] >= 3.0


def test_a_book_of_the_other_side_is_not_touched() -> None:
    """Written options of the book are neither adopted nor traded: the straddle is bought in other contracts."""
    bench = run(day([100.0] * 3), openings=[(NEAR[100, 1].id, -3)], tolerance=0.06, finish=True)
    assert bench.held(NEAR[100, 1].id) == -3
    assert {f.fill.instrument for f in bench.facts(Executed)} == {NEAR[95, 1].id, NEAR[95, -1].id}


def test_the_session_ends_flat_unless_told_to_hold() -> None:
    """What it bought is sold at the end; with at_end = "hold" it stays."""
    assert holding(run(day([100.0] * 3), finish=True)) == {}
    assert holding(run(day([100.0] * 3), finish=True, at_end="hold")) == {(30, 100, 1): 1, (30, 100, -1): 1}


def test_a_split_changes_what_is_wanted_with_the_contracts() -> None:
    """After contracts became twice as many of another id, it wants those, and tracks anew."""
    bench = run(day([100.0] * 3))
    scalper, view = bench.account.slots[0].strategy, bench.account.slots[0].view
    assert isinstance(scalper, GammaScalper)
    view.now = bench.loop.now
    other = NEAR[95, 1].id
    event = Corporate(
        ts_recv=bench.loop.now,
        what="split",
        instrument=STOCK.id,
        ratio=D(2),
        conversions=(Conversion(NEAR[100, 1].id, other, D(2)),),
    )
    scalper.corporate(view, event)
    memory = scalper._memory
    assert {leg.instrument: leg.quantity for leg in memory.legs} == {other: D(2), NEAR[100, -1].id: D(1)}
    assert memory.sight is None


# --------------------------------------------------------------------------- forecasts


@given(st.lists(st.floats(-0.05, 0.05), min_size=2, max_size=40), st.sampled_from([0.5, 0.9, 0.94]))
def test_the_bars_give_the_library_s_ewma(returns: list[float], decay: float) -> None:
    """Fed price by price, the filter is the one of `bot.pricing.forecast`."""
    rule = ForecastRule(kind="ewma", decay=decay, start_vol=0.2, interval=HOUR, periods_per_year=8760.0)
    bars, prices = Bars(), 100.0 * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
    for i, price in enumerate(prices):
        bars = bars_after(bars, rule, i * HOUR, float(price))
    expected = forecast.ewma(np.diff(np.log(prices)), decay=decay, start=0.04 / 8760.0)[-1]
    assert forecast_vol(bars, rule, horizon=0.1) == pytest.approx(math.sqrt(expected * 8760.0), rel=1e-6)


def test_a_night_is_no_bar_of_an_intraday_forecast() -> None:
    """A return across a gap is left out; a daily forecast takes it."""
    rule = ForecastRule(kind="window", bars=2, interval=HOUR, periods_per_year=8760.0)
    bars = Bars()
    for at, price in ((0, 100.0), (1, 101.0), (18, 150.0), (19, 151.5)):
        bars = bars_after(bars, rule, at * HOUR, price)
    assert bars.returns == pytest.approx((math.log(1.01), math.log(1.01)))
    daily = ForecastRule(kind="window", bars=2, interval=NS_PER_DAY, periods_per_year=252.0)
    bars = Bars()
    for day_number, price in ((0, 100.0), (3, 103.0), (4, 102.0)):
        bars = bars_after(bars, daily, day_number * NS_PER_DAY, price)
    assert bars.count == 2


def test_a_forecast_is_unknown_until_it_has_seen_enough() -> None:
    """Windows that are not full, an EWMA without a start, and GARCH below its rows say so by NaN."""
    for rule in (
        ForecastRule(kind="window", bars=3),
        ForecastRule(kind="ewma"),
        ForecastRule(kind="garch", bars=60),
    ):
        assert math.isnan(forecast_vol(Bars(), rule, horizon=0.1))
    assert forecast_vol(Bars(), ForecastRule(kind="ewma", start_vol=0.3), horizon=0.1) == 0.3


def test_a_garch_forecast_lies_between_the_present_and_the_mean() -> None:
    """Of simulated GARCH(1,1) returns the fitted forecast is near the true variance's."""
    rng = np.random.default_rng(3)
    h, returns = 1e-4, []
    for _ in range(800):
        returns.append(math.sqrt(h) * rng.standard_normal())
        h = 1e-6 + 0.05 * returns[-1] ** 2 + 0.94 * h
    rule = ForecastRule(kind="garch", bars=800, interval=NS_PER_DAY, periods_per_year=252.0)
    found = forecast_vol(Bars(returns=tuple(returns), count=800), rule, horizon=30.0 / 365.0)
    assert found == pytest.approx(math.sqrt(1e-4 * 252.0), rel=0.35)


# --------------------------------------------------------------------------- what it earns


def legs_at(spot: float, at: int, vol: float = 0.2) -> tuple[LegMark, ...]:
    tau = 30.0 / 365.0 - at / NS_PER_YEAR
    g = black.bsm(spot, 100.0, tau, vol, cp=[1, -1])
    return tuple(
        LegMark(name, 500.0, vol, float(g.gamma[i]), float(g.vega[i]), float(g.theta[i]), tau)
        for i, name in enumerate(("call", "put"))
    )


@pytest.mark.parametrize("realised", [0.1, 0.2, 0.4])
def test_gamma_less_theta_is_the_gain_of_the_hedged_structure(realised: float) -> None:
    """At a constant vol, hedged on each step, the sums are the P&L to a few percent, and the identity of variances exactly."""
    rng, sums, spot, pnl, identity = np.random.default_rng(1), Sums(), 100.0, 0.0, 0.0
    before = Sight(0, spot, legs_at(spot, 0))
    step = 5 * NS_PER_MINUTE
    dt = step / NS_PER_YEAR
    for i in range(1, 1_001):
        after = spot * math.exp(realised * math.sqrt(dt) * rng.standard_normal())
        old, new = (
            black.bsm(s, 100.0, 30.0 / 365.0 - t * step / NS_PER_YEAR, 0.2, cp=[1, -1])
            for s, t in ((spot, i - 1), (after, i))
        )
        pnl += 500.0 * float((new.price - old.price - old.delta * (after - spot)).sum())
        identity += 0.5 * 500.0 * float(old.gamma.sum()) * ((after - spot) ** 2 - 0.04 * spot * spot * dt)
        now = Sight(i * step, after, legs_at(after, i * step))
        sums, before, spot = added(sums, before, now), now, after
    assert sums.gamma_earned - sums.theta_paid == pytest.approx(identity, rel=1e-9)
    assert sums.gamma_earned - sums.theta_paid == pytest.approx(pnl, rel=0.05, abs=20.0)
    assert math.sqrt(sums.realised / sums.years) == pytest.approx(realised, rel=0.05)
    assert math.sqrt(sums.implied / sums.years) == pytest.approx(0.2, rel=1e-9)


def test_the_break_even_move_is_the_same_by_vol_and_by_theta_over_gamma() -> None:
    """Without rates sigma S sqrt(dt) and sqrt(2 |theta| dt / gamma) agree; a move of that size earns just the theta."""
    sight = Sight(0, 101.0, legs_at(101.0, 0))
    moves = break_even(sight)
    assert moves.by_vol == pytest.approx(0.2 * 101.0 / math.sqrt(365.0), rel=1e-12)
    assert moves.by_theta == pytest.approx(moves.by_vol, rel=1e-9)
    assert moves.by_session == pytest.approx(0.2 * 101.0 / math.sqrt(252.0), rel=1e-12)
    gamma = sum(leg.weight * leg.gamma for leg in sight.legs)
    theta = sum(leg.weight * leg.theta for leg in sight.legs)
    assert 0.5 * gamma * moves.by_vol**2 == pytest.approx(-theta / 365.0, rel=1e-9)


def test_in_the_engine_the_tracked_sums_explain_the_p_and_l() -> None:
    """Over a wandering day at a constant vol, options and exact hedge together made gamma less theta, before costs."""
    rng = np.random.default_rng(7)
    spots = np.round(100.0 * np.exp(np.cumsum(0.004 * rng.standard_normal(60))), 2)
    bench = run(day(list(spots)), hedged=True, amount=10)
    found = figures(bench)
    pnl = bench.pnl()
    made = float(pnl.options + pnl.hedge)
    assert found["gamma less theta"] > 0.0
    assert made == pytest.approx(found["gamma less theta"] + found["vega"], rel=0.05, abs=15.0)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"structure": "strangle"}, "either a width or a delta"),
        ({"width": 0.1}, "structure = 'strangle' only"),
        ({"structure": "strangle", "delta": 0.7}, "delta"),
        ({"min_days": 40}, "min_days <= days"),
        ({"exit_days": 25}, "would be sold at once"),
        ({"amount": 0}, "amount"),
        ({"forecast": {"kind": "fixed"}}, "required when kind = 'fixed'"),
        ({"forecast": {"kind": "fixed", "vol": 0.3}, "margin": 0.01, "exit_margin": 0.02}, "would be left at once"),
        ({"forecast": {"kind": "garch", "bars": 10}}, "at least 50"),
        ({"patience": 0}, "patience"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys: dict[str, Any], words: str) -> None:
    """Each by its name, in words."""
    with pytest.raises(ValueError, match=words):
        GammaScalper(underlying=STOCK.id, **({"days": 30, "min_days": 20} | keys))


def test_an_execution_that_makes_no_sense_is_refused() -> None:
    """A negative width and an age of nothing."""
    with pytest.raises(ValueError, match="max_spread"):
        Execution(max_spread=-1.0)
    with pytest.raises(ValueError, match="stale_after"):
        Execution(stale_after=0)
