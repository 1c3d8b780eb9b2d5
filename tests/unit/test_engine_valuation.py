"""Valuation knows a vol or says why not; attribution sums exactly; comparison figures are their plain formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from statistics import correlation, mean, pvariance
from typing import Literal

import numpy as np
import pytest

from bot.core.errors import ConfigError
from bot.core.events import Conversion, Corporate, FeedEvent
from bot.domain.instruments import Index, Instrument, OptionContract, Universe
from bot.domain.market import Quote, Trade
from bot.domain.units import NS_PER_YEAR
from bot.engine import attribution, comparison
from bot.engine.attribution import TERMS, Intervals
from bot.engine.marks import Marks
from bot.engine.valuation import PARITY, DeltaTable, Valuation, ValuationSettings, VolMark
from bot.pricing import black
from tests.simulation.bench import (
    DAY,
    IMPLIED,
    MINUTE,
    SECOND,
    START,
    STOCK,
    Bench,
    Script,
    future,
    minutes,
    option,
    quote,
)

D = Decimal
CALL, PUT = option(100), option(100, cp=-1)
OTHER = option(50, underlying="US:ZZZ", root="ZZZ")


def room(
    settings: ValuationSettings, *items: Instrument, contracts: Sequence[OptionContract] = (CALL,)
) -> tuple[Marks, Valuation]:
    """Marks and a valuation of some contracts."""
    universe = Universe([STOCK, *contracts, *items])
    marks = Marks(universe)
    valuation = Valuation(universe, marks, settings)
    for contract in contracts:
        valuation.add(contract, now=START)
    return marks, valuation


def show(
    marks: Marks, valuation: Valuation, instrument: str, bid: float | None, ask: float | None, at: int = 0
) -> None:
    nan = math.nan
    k = valuation._universe.index(instrument)
    marks.fold_quote(k, START + at, nan if bid is None else bid, nan if ask is None else ask, nan, nan)


def value_of(contract: OptionContract, spot: float, vol: float, *, rate: float = 0.0, now: int = START) -> float:
    tau = (contract.expiry - now) / NS_PER_YEAR
    return float(black.bsm(spot, float(contract.strike), tau, vol, rate=rate, cp=contract.cp).price)


# --------------------------------------------------------------------------- vols


def test_an_implied_vol_is_the_one_that_was_priced_in_and_is_carried_with_its_age() -> None:
    """Solved from the middle at the re-mark; when the quote is withdrawn the last one stays, with its instant."""
    marks, valuation = room(ValuationSettings(rate=0.03))
    show(marks, valuation, STOCK.id, 100.0, 100.2)
    price = value_of(CALL, 100.1, 0.37, rate=0.03)
    show(marks, valuation, CALL.id, price - 0.05, price + 0.05)
    assert valuation.remark(START)
    show(marks, valuation, CALL.id, price, None)
    valuation.remark(START + MINUTE)
    s = valuation.slice(STOCK.id)
    assert s.vol[0] == pytest.approx(0.37, abs=1e-9)
    legs = valuation.legs(STOCK.id, {CALL.id: 2.0})
    assert valuation.oldest_vol(legs, START + MINUTE) == (s.vol[0], START)
    assert valuation.faults(legs, START) == ""


def test_every_underlying_is_solved_at_every_re_mark() -> None:
    """Two slices: both take their new vols at one re-mark, not only the first that changed."""
    zzz = type(STOCK)(id="US:ZZZ", lot=D(1))
    marks, valuation = room(IMPLIED, zzz, contracts=(CALL, OTHER))
    for vol in (0.2, 0.4):
        show(marks, valuation, STOCK.id, 100.0, 100.0)
        show(marks, valuation, zzz.id, 50.0, 50.0)
        for contract, spot in ((CALL, 100.0), (OTHER, 50.0)):
            price = value_of(contract, spot, vol)
            show(marks, valuation, contract.id, price, price)
        valuation.remark(START)
        found = [float(valuation.slice(key).vol[0]) for key in (STOCK.id, zzz.id)]
        assert found == pytest.approx([vol, vol], abs=1e-9)


def test_a_vol_older_than_its_bound_is_unknown_with_a_reason() -> None:
    """Past vol_max_age the carried vol becomes NaN, net delta too, and the fault names the contract."""
    marks, valuation = room(ValuationSettings(vol_max_age=5 * MINUTE))
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    price = value_of(CALL, 100.0, 0.2)
    show(marks, valuation, CALL.id, price, price)
    valuation.remark(START)
    show(marks, valuation, CALL.id, None, None)
    legs = valuation.legs(STOCK.id, {CALL.id: 1.0})
    valuation.remark(START + 5 * MINUTE)
    assert math.isfinite(legs.net(100.0, START)[0])
    assert valuation.remark(START + 5 * MINUTE + 1)
    assert math.isnan(legs.net(100.0, START)[0])
    assert valuation.faults(legs, START).startswith("no vol for UND")


def test_a_stale_underlying_is_neither_marked_from_nor_valued_at() -> None:
    """With stale_after the re-mark skips an old price, and the fault says how old is too old."""
    marks, valuation = room(ValuationSettings(stale_after=MINUTE))
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    price = value_of(CALL, 100.0, 0.2)
    show(marks, valuation, CALL.id, price, price, at=2 * MINUTE)
    assert not valuation.remark(START + 2 * MINUTE)
    legs = valuation.legs(STOCK.id, {CALL.id: 1.0})
    assert "older than 1m" in valuation.faults(legs, START + 2 * MINUTE)
    show(marks, valuation, STOCK.id, 100.0, 100.0, at=2 * MINUTE)
    assert valuation.remark(START + 2 * MINUTE)


def test_fixed_and_per_contract_vols_are_taken_as_given_and_a_missing_one_is_named() -> None:
    """Fixed needs its value, per_contract needs one for each contract of the book."""
    _, valuation = room(ValuationSettings(vol="fixed", vol_value=0.3))
    assert valuation.slice(STOCK.id).vol[0] == 0.3
    assert not valuation.remark(START)
    _, valuation = room(ValuationSettings(vol="per_contract", vols={CALL.id: 0.4}))
    assert valuation.slice(STOCK.id).vol[0] == 0.4
    with pytest.raises(ConfigError, match="vol_value"):
        room(ValuationSettings(vol="fixed"))
    with pytest.raises(ConfigError, match=CALL.id):
        room(ValuationSettings(vol="per_contract"))


def test_vols_of_a_marks_file_come_into_force_at_their_instants() -> None:
    """Each supplied vol is taken at the first re-mark from its instant on; before the first it is unknown."""
    marks_given = (
        VolMark(ts=START + 2 * MINUTE, instrument=CALL.id, vol=0.5),
        VolMark(ts=START, instrument=CALL.id, vol=0.25),
    )
    _, valuation = room(ValuationSettings(vol="marks_file", vol_marks=marks_given))
    s = valuation.slice(STOCK.id)
    assert math.isnan(s.vol[0])
    seen = []
    for minute in range(4):
        changed = valuation.remark(START + minute * MINUTE)
        seen.append((changed, float(s.vol[0])))
    assert seen == [(True, 0.25), (False, 0.25), (True, 0.5), (False, 0.5)]
    assert s.vol_ts[0] == START + 2 * MINUTE


def test_nothing_is_invented_without_a_price_of_the_permitted_source() -> None:
    """With source 'trades' a quote of the underlying is no price, and the reason says which source is missing."""
    marks, valuation = room(ValuationSettings(vol="fixed", vol_value=0.2, source="trades"))
    show(marks, valuation, STOCK.id, 100.0, 100.2)
    legs = valuation.legs(STOCK.id, {CALL.id: 1.0})
    assert math.isnan(valuation.spot(STOCK.id))
    assert "source 'trades'" in valuation.faults(legs, START)
    marks.fold_trade(valuation._universe.index(STOCK.id), START, 100.1)
    assert valuation.spot(STOCK.id) == 100.1
    assert valuation.faults(legs, START) == ""


# --------------------------------------------------------------------------- Greeks


@pytest.mark.parametrize("kind", ["spot", "future"])
@pytest.mark.parametrize("cp", [1, -1])
def test_net_delta_and_gamma_are_the_bumped_value(kind: str, cp: Literal[1, -1]) -> None:
    """The compiled sums equal central differences of the book's value, with carry on a spot and without on a future."""
    underlying = STOCK if kind == "spot" else future()
    contracts = (option(95, cp=cp, underlying=underlying.id), option(103, days=60, cp=cp, underlying=underlying.id))
    settings = ValuationSettings(vol="fixed", vol_value=0.25, rate=0.05, dividend=0.02)
    marks, valuation = room(settings, underlying, contracts=contracts)
    legs = valuation.legs(underlying.id, {contracts[0].id: 3.0, contracts[1].id: -2.0})
    now = START + DAY

    def value(spot: float) -> float:
        show(marks, valuation, underlying.id, spot, spot)
        return valuation.greeks(legs, now).value

    h = 0.01
    down, mid, up = value(100.0 - h), value(100.0), value(100.0 + h)
    delta, gamma = legs.net(100.0, now)
    assert delta == pytest.approx((up - down) / (2 * h), rel=1e-6)
    assert gamma == pytest.approx((up - 2 * mid + down) / h**2, rel=1e-3)
    show(marks, valuation, underlying.id, 100.0, 100.0)
    greeks = valuation.greeks(legs, now)
    assert [greeks.delta, greeks.gamma] == pytest.approx([delta, gamma])


def test_the_greeks_of_an_expired_leg_are_zero_and_of_an_unknown_one_nan() -> None:
    """A leg past its expiry adds nothing; a live leg without a vol makes the sum unknown."""
    short = option(100, days=1)
    marks, valuation = room(IMPLIED, contracts=(short, CALL))
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    s = valuation.slice(STOCK.id)
    s.vol = np.array([0.2, math.nan])
    s.vol_version += 1
    assert s.rows == {short.id: 0, CALL.id: 1}
    late = START + 2 * DAY
    assert valuation.greeks(valuation.legs(STOCK.id, {short.id: 1.0}), late).delta == 0.0
    both = valuation.legs(STOCK.id, {short.id: 1.0, CALL.id: 1.0})
    assert math.isnan(valuation.greeks(both, START).delta)
    assert math.isnan(both.net(100.0, START)[0])
    assert len(valuation.legs(STOCK.id, {})) == 0


def test_a_delta_of_the_parity_price_is_turned_into_the_underlyings() -> None:
    """With options valued at a parity price 1% above the quoted one, delta scales by 1.01 and gamma by its square."""
    companion = Index(id=STOCK.id + PARITY)
    settings = ValuationSettings(vol="fixed", vol_value=0.2)
    marks, valuation = room(settings, companion)
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    marks.fold_trade(valuation._universe.index(companion.id), START, 101.0)
    legs = valuation.legs(STOCK.id, {CALL.id: 1.0})
    g = black.bsm(101.0, 100.0, (CALL.expiry - START) / NS_PER_YEAR, 0.2)
    delta, gamma = legs.net(valuation.spot(STOCK.id), START)
    assert valuation.spot(STOCK.id) == 101.0
    assert delta == pytest.approx(100 * 1.01 * float(g.delta))
    assert gamma == pytest.approx(100 * 1.01**2 * float(g.gamma))


def test_a_table_pricer_gives_the_supplied_deltas_and_decay() -> None:
    """Delta is linear between the given spots and flat outside, value its integral, decay straight in time."""
    table = DeltaTable(spots=(100.0, 102.0), deltas=(0.60, 0.65), value=10.0, decay_per_year=365.0)
    marks, valuation = room(ValuationSettings(pricer="table", table=table, vol="fixed"))
    valuation.started(START)
    legs = valuation.legs(STOCK.id, {CALL.id: 2.0})
    assert [legs.net(s, START)[0] for s in (99.0, 100.0, 101.0, 102.0, 110.0)] == pytest.approx(
        [120, 120, 125, 130, 130]
    )
    values = []
    for spot, now in ((100.0, START), (102.0, START), (102.0, START + DAY), (99.0, START), (103.0, START)):
        show(marks, valuation, STOCK.id, spot, spot)
        values.append(valuation.greeks(legs, now).value / 200)
    assert values == pytest.approx([10.0, 11.25, 10.25, 9.4, 11.9])
    with pytest.raises(ConfigError, match="table"):
        room(ValuationSettings(pricer="table", vol="fixed"))
    with pytest.raises(ValueError, match="rising"):
        DeltaTable(spots=(2.0, 1.0), deltas=(0.1, 0.2), value=1.0, decay_per_year=0.0)


# --------------------------------------------------------------------------- marks


def test_an_option_is_marked_at_its_middle_carried_from_the_last_good_re_mark() -> None:
    """Exact decimals of the quote; withdrawn, the middle last noted; never quoted, unknown."""
    marks, valuation = room(IMPLIED, contracts=(CALL, PUT))
    show(marks, valuation, STOCK.id, 100.0, 100.1)
    show(marks, valuation, CALL.id, 2.1, 2.2)
    valuation.remark(START)
    assert valuation.mark(CALL.id, START) == D("2.15")
    show(marks, valuation, CALL.id, 2.1, None)
    assert valuation.mark(CALL.id, START) == D("2.15")
    assert valuation.mark(PUT.id, START) is None
    assert valuation.mark(STOCK.id, START) == D("100.05")
    show(marks, valuation, STOCK.id, None, 100.1)
    assert valuation.mark(STOCK.id, START) == D("100.05")


def test_a_converted_contract_takes_over_vol_quote_and_mark() -> None:
    """The new series starts from the old one's last quote divided by the ratio, though its own was withdrawn."""
    new = option(50, root="UNDX")
    run = Bench(
        [Script()], instruments=[STOCK, CALL, new], openings=[(CALL.id, 1)], valuation=IMPLIED, begin="two_sided"
    )  # fmt: skip
    price = value_of(CALL, 100.0, 0.3)
    run.play(
        [quote(STOCK.id, 0, 100.0, 100.0), quote(CALL.id, 0, price, price), *minutes([100.0] * 3)[1:]], finish=False
    )
    run.play([quote(CALL.id, 3 * MINUTE, None, 4.0), *minutes([100.0] * 5)[4:]], finish=False)
    before = run.pnl()
    run.loop.take(
        Corporate(
            ts_recv=START + 5 * MINUTE,
            what="split",
            instrument=STOCK.id,
            ratio=D(2),
            conversions=(Conversion(CALL.id, new.id, D(2)),),
        ),
        "a",
    )
    assert run.held(new.id) == 2
    assert float(run.pnl().total) == pytest.approx(float(before.total), abs=1e-9)
    s = run.valuation.slice(STOCK.id)
    assert s.vol[s.rows[new.id]] == pytest.approx(0.3, abs=0.02)


# --------------------------------------------------------------------------- attribution


def attributed(
    events: Sequence[FeedEvent], contracts: Sequence[OptionContract], **rest: object
) -> tuple[Bench, Intervals]:
    """A run over these events with one of each contract, and its attribution."""
    script = Script([(2 * MINUTE, STOCK.id, -40), (4 * MINUTE, STOCK.id, -10)])
    run = Bench(
        [script],
        instruments=[STOCK, *contracts],
        openings=[(contract.id, 1) for contract in contracts],
        **({"valuation": IMPLIED, "begin": "two_sided", "end": START + 8 * MINUTE} | rest),  # type: ignore[arg-type]  # by name
    ).play(events)
    sampler = run.loop.sampler
    spots = {key: sampler.spot_path(key) for key in run.valuation.slices}
    return run, attribution.attribute(sampler.table(), "dynamic", run.valuation, run.universe, spots, run.loop.convert)


def wandering(contracts: Sequence[OptionContract], *, count: int = 9, size: float = 0.3) -> list[Quote]:
    """A seeded walk of the underlying with its contracts quoted at a wandering vol."""
    rng = np.random.default_rng(3)
    events, spot, vol = list[Quote](), 100.0, 0.2
    for i in range(count):
        events.append(quote(STOCK.id, i * MINUTE, spot - 0.01, spot + 0.01))
        for contract in contracts:
            price = value_of(contract, spot, vol, now=START + i * MINUTE)
            if START + i * MINUTE < contract.expiry:
                events.append(quote(contract.id, i * MINUTE, max(price - 0.01, 0.01), price + 0.01))
        spot = round(spot + float(rng.normal(0, size)), 2)
        vol += float(rng.normal(0, 0.002))
    return events


def test_attribution_sums_to_the_pnl_and_explains_it() -> None:
    """In every interval the nine terms sum to the total; over a quiet walk the residual is small."""
    contracts = (option(100, days=30), option(95, days=40, cp=-1))
    run, found = attributed(wandering(contracts), contracts)
    sums = np.sum([found.terms[name] for name in TERMS], axis=0)
    assert sums == pytest.approx(found.total, abs=1e-9)
    assert float(np.sum(found.total)) == pytest.approx(float(run.pnl().total), abs=1e-6)
    moved = float(np.sum(np.abs(found.option_pnl)))
    assert float(np.sum(np.abs(found.terms["residual"]))) < 3e-3 * moved
    assert float(np.sum(found.terms["cost"])) == pytest.approx(-float(run.pnl().spread_cost))


@pytest.mark.parametrize("which", ["delta", "gamma", "theta", "vega", "vanna", "volga"])
def test_each_taylor_term_is_its_bumped_derivative(which: str) -> None:
    """Over one interval each term equals a central difference of the model times the move."""
    contract = option(103, days=30)
    run, found = attributed(wandering([contract], size=0.5), [contract])
    table = run.loop.sampler.table()
    i = 6
    t0, t1 = (int(t) for t in table.instants[i : i + 2])
    S0, S1 = (float(x) for x in run.loop.sampler.spot_path(STOCK.id)[i : i + 2])
    v0, v1 = (float(x) for x in table.vols[STOCK.id][i : i + 2, 0])

    def value(spot: float = S0, vol: float = v0, now: float = t1) -> float:
        return 100 * float(black.bsm(spot, 103.0, (contract.expiry - now) / NS_PER_YEAR, vol).price)

    h, k, dS, dv = 0.05, 1e-4, S1 - S0, v1 - v0
    expected = {
        "delta": (value(S0 + h) - value(S0 - h)) / (2 * h) * dS,
        "gamma": 0.5 * (value(S0 + h) - 2 * value() + value(S0 - h)) / h**2 * dS**2,
        "theta": value(now=t1) - value(now=t0),
        "vega": (value(vol=v0 + k) - value(vol=v0 - k)) / (2 * k) * dv,
        "vanna": (value(S0 + h, v0 + k) - value(S0 + h, v0 - k) - value(S0 - h, v0 + k) + value(S0 - h, v0 - k))
        / (4 * h * k)
        * dS
        * dv,
        "volga": 0.5 * (value(vol=v0 + k) - 2 * value() + value(vol=v0 - k)) / k**2 * dv**2,
    }
    got = found.terms[which][i] - (found.hedge_pnl[i] if which == "delta" else 0.0)
    assert dS != 0
    assert dv != 0
    assert got == pytest.approx(expected[which], rel=2e-3, abs=1e-7)


def test_an_expiry_inside_an_interval_stops_the_clock_and_the_sum_still_holds() -> None:
    """Theta runs to the expiry only, terms stay finite, and they sum to the settled P&L."""
    contract = option(99, days=(4 * MINUTE + 30 * SECOND) / DAY)
    events = wandering([contract], size=0.1)
    run, found = attributed(events, [contract])
    assert run.held(contract.id) == 0
    assert all(np.isfinite(found.terms[name]).all() for name in TERMS)
    sums = np.sum([found.terms[name] for name in TERMS], axis=0)
    assert sums == pytest.approx(found.total, abs=1e-9)
    assert float(np.sum(found.total)) == pytest.approx(float(run.pnl().total), abs=1e-6)


def test_an_interval_across_a_split_has_no_terms_and_no_pnl() -> None:
    """The break's interval attributes nothing: neither gamma nor delta is made of a change of units."""
    old, new = option(700, days=30), option(100, days=30, root="UNDX")
    events: list[FeedEvent] = []
    for i in range(8):
        scale, contract = (1, old) if i < 4 else (7, new)
        if i == 4:
            conversions = (Conversion(old.id, new.id, D(7)),)
            events.append(
                Corporate(
                    ts_recv=START + 4 * MINUTE - 1,
                    what="split",
                    instrument=STOCK.id,
                    ratio=D(7),
                    conversions=conversions,
                )
            )
        events.append(quote(STOCK.id, i * MINUTE, 699.3 / scale, 700.7 / scale))
        events.append(quote(contract.id, i * MINUTE, 21.0 / scale, 22.4 / scale))
    script = Script([(2 * MINUTE, STOCK.id, -40)])
    run = Bench(
        [script], instruments=[STOCK, old, new], openings=[(old.id, 1)], valuation=IMPLIED, begin="two_sided",
        end=START + 7 * MINUTE,
    ).play(events)  # fmt: skip
    sampler = run.loop.sampler
    table = sampler.table()
    spots = {STOCK.id: sampler.spot_path(STOCK.id)}
    found = attribution.attribute(table, "dynamic", run.valuation, run.universe, spots, run.loop.convert)
    (at,) = [b.sample - 1 for b in table.breaks]
    assert found.start[at] == found.end[at] == START + 4 * MINUTE - 1
    for name in ("gamma", "theta", "vega", "vanna", "volga", "cost"):
        assert found.terms[name][at] == 0.0
    assert found.total[at] == pytest.approx(0.0, abs=1e-6)
    assert abs(float(np.sum(found.terms["gamma"]))) < 1.0


# --------------------------------------------------------------------------- comparison


def test_comparison_figures_are_their_plain_formulas() -> None:
    """Effectiveness, R^2, dollar offset, drawdown, tail loss and upside against textbook Python."""
    rng = np.random.default_rng(8)
    options, hedge = rng.normal(0, 3, 40), rng.normal(0, 1, 40)
    hedge = hedge - 0.8 * options
    both = options + hedge
    o, h, b = options.tolist(), hedge.tolist(), both.tolist()
    assert comparison.effectiveness(options, both) == pytest.approx(1 - pvariance(b) / pvariance(o))
    assert comparison.regression_r2(options, hedge) == pytest.approx(correlation(o, h) ** 2)
    assert comparison.dollar_offset(options, hedge) == pytest.approx(-sum(h) / sum(o))
    assert comparison.tail_loss(both) == pytest.approx(-mean(sorted(b)[:2]))
    up = [i for i in range(40) if o[i] > 0]
    assert comparison.upside(options, both) == pytest.approx(sum(b[i] for i in up) / sum(o[i] for i in up))
    path = np.cumsum(both)
    worst, peak = 0.0, 0.0
    for value in path.tolist():
        peak = max(peak, value)
        worst = max(worst, peak - value)
    assert comparison.max_drawdown(path) == pytest.approx(worst)


def test_comparison_figures_are_none_where_they_mean_nothing() -> None:
    """Too few intervals, or options that never moved, give None, not a number."""
    flat, some = np.zeros(5), np.ones(5)
    assert comparison.effectiveness(flat, some) is None
    assert comparison.effectiveness(np.ones(1), np.ones(1)) is None
    assert comparison.regression_r2(flat, some) is None
    assert comparison.dollar_offset(flat, some) is None
    assert comparison.tail_loss(np.ones(19)) is None
    assert comparison.upside(-some, some) is None
    assert comparison.max_drawdown(np.zeros(0)) == 0.0
    assert comparison.max_drawdown(np.array([-5.0, -7.0])) == 7.0


def test_steps_carry_the_last_value_and_leave_the_cut_interval_out() -> None:
    """Non-overlapping intervals from the start; a missing sample is the last one, the end's stub is dropped."""
    instants, values = [0, 10, 25, 39], np.array([1.0, 2.0, 5.0, 9.0])
    assert comparison.steps_at(instants, values, 0, 39, 10).tolist() == [1.0, 0.0, 3.0]
    assert comparison.steps_at(instants, values, 0, 9, 10).tolist() == []


def test_the_verdict_says_who_won_also_when_dynamic_lost() -> None:
    """Ties are ties, losses are losses, and higher swings are said in capitals."""
    lines = comparison.verdict(
        {"dynamic": -6.0, "static": -3.0, "none": -3.0},
        {"dynamic": 4.0, "static": 1.0, "none": 2.0},
        {"dynamic": 1.0, "static": 0.5, "none": 0.0},
    )
    text = " ".join(lines)
    assert "Best result: static and none with -3.00 (dynamic -6.00)." in text
    assert "Least risky: static" in text
    assert "Cheapest hedge: static, 0.50 in costs." in text
    assert "3.00 less than static hedge in this session: static hedge won." in text
    assert "100% HIGHER" in text


def test_prints_of_an_instrument_without_quotes_mark_it() -> None:
    """A linear instrument that only prints is marked at its last print."""
    run = Bench(
        [Script()], valuation=ValuationSettings(vol="fixed", vol_value=0.2, source="trades"), openings=[(STOCK.id, 2)]
    )
    run.play([Trade(instrument=STOCK.id, ts_event=START + i, ts_recv=START + i, price=100.0 + i) for i in range(3)])
    assert run.pnl().hedge == 4
