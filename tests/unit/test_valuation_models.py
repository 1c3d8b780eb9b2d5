"""American prices, surfaces, smile rules, forecasts, a second pricer and trading time, each held to a slower word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.app.calendars import named
from bot.app.history_file import read_history
from bot.core.errors import ConfigError, DataError
from bot.core.events import Alarm, Corporate
from bot.core.ports import VolSource
from bot.domain.instruments import Instrument, OptionContract, Universe
from bot.domain.units import NS_PER_DAY, NS_PER_YEAR
from bot.engine import early_exercise, model_check, vol_sources
from bot.engine.clock import Act365, TradingClock
from bot.engine.early_exercise import CashDividend, Group, Market, Unit
from bot.engine.marks import Marks
from bot.engine.model_check import CheckSettings
from bot.engine.smiles import SmileRule, SurfaceSettings
from bot.engine.valuation import Valuation, ValuationSettings
from bot.engine.vol_sources import Bar, Bars, EwmaVol, ForecastSettings, History, RangeVol
from bot.pricing import american, american_discrete, black, forecast, sabr
from bot.pricing import smile as smile_rules
from bot.pricing.surface import Svi
from tests.simulation.bench import DAY, MINUTE, SECOND, START, STOCK, future, option

NAN = math.nan


def early(strike: float = 100, **words: object) -> OptionContract:
    """An American option."""
    return msgspec.structs.replace(option(strike, **words), style="american")  # type: ignore[arg-type]  # words are option's


def room(
    config: ValuationSettings,
    contracts: Sequence[OptionContract],
    *others: Instrument,
    held: Sequence[str] | None = None,
) -> tuple[Marks, Valuation, list[Alarm]]:
    """Marks, a valuation of the held contracts (all when not said), and where its alarms go."""
    universe = Universe([STOCK, *contracts, *others])
    marks = Marks(universe)
    valuation = Valuation(universe, marks, config)
    heard: list[Alarm] = []
    valuation.on_alarm = heard.append
    for contract in contracts:
        if held is None or contract.id in held:
            valuation.add(contract, now=START)
    return marks, valuation, heard


def show(marks: Marks, valuation: Valuation, key: str, bid: float, ask: float, at: int = 0) -> None:
    marks.fold_quote(valuation._universe.index(key), START + at, bid, ask, NAN, NAN)


def years(contract: OptionContract, now: int = START) -> float:
    return (contract.expiry - now) / NS_PER_YEAR


# --------------------------------------------------------------------------- early exercise


def group_of(
    market: Market,
    strike: np.ndarray,
    vol: np.ndarray,
    cp: np.ndarray,
    *,
    left: int,
    slope: float = 0.0,
    cap: int = MINUTE,
    jumps: Sequence[int] = (),
) -> Group:
    ends = np.full(len(strike), left)

    def exact(spots: np.ndarray, remaining: np.ndarray, rows: np.ndarray) -> Unit:
        return early_exercise.values(
            market, spots, strike[rows], remaining, vol[rows], cp=cp[rows], expiry=ends[rows],
            style=np.ones(len(rows), dtype=bool),
        )  # fmt: skip

    return Group(
        exact,
        weight=np.ones(len(strike)),
        vol=vol,
        slope=np.full(len(strike), slope),
        cp=cp,
        strike=strike,
        expiry=left,
        anchor=left,
        cap=cap,
        jumps=jumps,
    )


@settings(max_examples=25, deadline=None)
@given(
    days=st.floats(0.05, 700.0),
    vol=st.floats(0.06, 1.0),
    rate=st.floats(0.0, 0.1),
    dividend=st.floats(0.0, 0.1),
    cp=st.sampled_from((1.0, -1.0)),
    slope=st.sampled_from((0.0, -0.004)),
    cap=st.sampled_from((MINUTE, DAY)),
    deviations=st.lists(st.floats(-3.0, 3.0), min_size=6, max_size=6),
    passed=st.lists(st.floats(0.0, 0.98), min_size=6, max_size=6),
)
def test_the_delta_of_a_cell_is_the_exact_one_within_its_bound(
    days: float, vol: float, rate: float, dividend: float, cp: float, slope: float, cap: int,
    deviations: list[float], passed: list[float],
) -> None:  # fmt: skip
    """2e-5 a unit, whatever the contract, the rates, the smile's slope, the distance from the strike and the time left."""
    left = int(days * NS_PER_DAY)
    column = np.array([100.0])
    group = group_of(
        Market(rate, dividend, False), column, np.array([vol]), np.array([cp]), left=left, slope=slope, cap=cap
    )
    for z, share in zip(deviations, passed, strict=True):
        spot, remaining = 100.0 * math.exp(z * vol * math.sqrt(days / 365.0)), round(left * (1.0 - share))
        cell, exact = group.net(spot, remaining), group.net_exact(spot, remaining)
        assert abs(cell[0] - exact[0]) <= 2e-5
        assert abs(cell[1] - exact[1]) * spot * vol * math.sqrt(days / 365.0) <= 2e-3


def test_a_cell_answers_the_same_bits_whoever_asked_before() -> None:
    """Forwards, backwards and alone: the order of questions changes no bit."""
    words = (Market(0.04, 0.01, False), np.array([95.0, 105.0]), np.array([0.2, 0.3]), np.array([-1.0, 1.0]))
    rng = np.random.default_rng(5)
    questions = [(100.0 + float(x), int(30 * DAY - t)) for x, t in zip(rng.normal(0, 3, 60), rng.integers(0, DAY, 60))]  # noqa: B905  (60 of both)
    one = group_of(*words, left=30 * DAY)
    two = group_of(*words, left=30 * DAY)
    first = [one.net(*q) for q in questions]
    assert [two.net(*q) for q in reversed(questions)] == first[::-1]
    assert [group_of(*words, left=30 * DAY).net(*q) for q in questions[:10]] == first[:10]


def test_exercised_and_unknown_legs_are_what_they_are() -> None:
    """Far below the boundary a put's delta is exactly -1; no spot or vol is NaN; an expired group is 0."""
    market, strike, put = Market(0.05, 0.0, False), np.array([100.0]), np.array([-1.0])
    group = group_of(market, strike, np.array([0.2]), put, left=30 * DAY)
    assert group.net(50.0, 30 * DAY) == (-1.0, 0.0)
    assert all(map(math.isnan, group.net(NAN, 30 * DAY)))
    assert group.net(100.0, -1) == (0.0, 0.0)
    assert all(map(math.isnan, group_of(market, strike, np.array([NAN]), put, left=30 * DAY).net(100.0, DAY)))


def test_each_contract_is_valued_by_its_style() -> None:
    """American contracts take the American price and vol; a European one beside them keeps the formula's."""
    config = ValuationSettings(pricer="american", vol="implied", rate=0.06)
    american_put, european_put = early(105, cp=-1, days=90), option(100, cp=-1, days=90)
    marks, valuation, _ = room(config, [american_put, european_put])
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    tau = years(american_put)
    a = float(american.price(100.0, 105.0, tau, 0.25, rate=0.06, cp=-1).price)
    e = float(black.bsm(100.0, 100.0, tau, 0.25, rate=0.06, cp=-1).price)
    for contract, price in ((american_put, a), (european_put, e)):
        show(marks, valuation, contract.id, price - 0.01, price + 0.01)
    assert valuation.remark(START)
    s = valuation.slice(STOCK.id)
    assert s.vol == pytest.approx([0.25, 0.25], abs=1e-8)
    units = valuation.contract_greeks(STOCK.id, START)
    assert units.price == pytest.approx([a, e], abs=1e-9)
    legs = valuation.legs(STOCK.id, {american_put.id: 2.0, european_put.id: -1.0})
    exact = valuation.greeks(legs, START + 20 * SECOND)
    net = legs.net(100.0, START + 20 * SECOND)
    assert net[0] == pytest.approx(exact.delta, abs=300 * 2e-5)
    assert net[1] == pytest.approx(exact.gamma, rel=1e-3)
    assert exact.vanna == pytest.approx(exact.vanna, nan_ok=False)


def test_an_option_on_a_future_is_american_at_the_futures_own_carry() -> None:
    """Its value is the American price with a yield equal to the rate, and its rho moves both."""
    fut = future()
    contract = msgspec.structs.replace(early(100, days=50, cp=-1), underlying=fut.id)
    config = ValuationSettings(pricer="american", vol="fixed", vol_value=0.3, rate=0.05)
    marks, valuation, _ = room(config, [contract], fut)
    show(marks, valuation, fut.id, 95.0, 95.0)
    units = valuation.contract_greeks(fut.id, START)
    tau = years(contract)
    up, at, down = (
        float(american.price(95.0, 100.0, tau, 0.3, rate=r, dividend=r, cp=-1).price) for r in (0.051, 0.05, 0.049)
    )
    assert units.price[0] == pytest.approx(at, abs=1e-12)
    assert units.rho[0] == pytest.approx((up - down) / 0.002, abs=1e-3)


def test_rates_with_two_boundaries_are_refused_by_name() -> None:
    """No vol and no value, and the fault says why."""
    config = ValuationSettings(pricer="american", vol="implied", rate=-0.01, dividend=-0.03)
    put = early(100, cp=-1)
    marks, valuation, _ = room(config, [put])
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    show(marks, valuation, put.id, 3.0, 3.1)
    valuation.remark(START)
    legs = valuation.legs(STOCK.id, {put.id: 1.0})
    assert math.isnan(legs.net(100.0, START)[0])
    assert "two exercise boundaries" in valuation.faults(legs, START)


@pytest.mark.parametrize("model", ["spot", "escrowed"])
def test_a_cash_dividend_is_priced_in_the_named_model(model: early_exercise.DividendModel) -> None:
    """The quote's vol prices it back on the same grid; the tick's delta is the grid's; a split pays the part."""
    call = early(100, days=60)
    ex = START + 20 * DAY
    config = ValuationSettings(
        pricer="american", vol="implied", rate=0.03, dividend_model=model,
        cash_dividends={STOCK.id: (CashDividend(ex, 2.0),)},
    )  # fmt: skip
    marks, valuation, _ = room(config, [call])
    show(marks, valuation, STOCK.id, 101.0, 101.0)
    words = {"dividends": [((ex - START) / NS_PER_YEAR, 2.0)], "model": model, "rate": 0.03, "cp": 1}
    g = american_discrete.price(101.0, 100.0, years(call), 0.3, steps=early_exercise.GRID_STEPS, **words)
    show(marks, valuation, call.id, float(g.price), float(g.price))
    assert valuation.remark(START)
    s = valuation.slice(STOCK.id)
    assert s.vol[0] == pytest.approx(0.3, abs=1e-6)
    legs = valuation.legs(STOCK.id, {call.id: 1.0})
    for spot in (98.0, 101.37):
        exact = american_discrete.price(
            spot, 100.0, years(call), float(s.vol[0]), steps=early_exercise.GRID_STEPS, **words
        )
        assert legs.net(spot, START)[0] / 100.0 == pytest.approx(float(exact.delta), abs=1e-4)
    valuation.adjust(Corporate(instrument=STOCK.id, what="split", ts_recv=START, ratio=2))
    assert valuation.slice(STOCK.id).market.dividends[0][1] == 1.0


# --------------------------------------------------------------------------- surface

SMILE = Svi(a=0.0012, b=0.025, rho=-0.5, m=0.0, sigma=0.15)
STRIKES = tuple(range(70, 131, 4))


Quoted = tuple[Marks, Valuation, list[Alarm], list[OptionContract]]


def chain_day(config: ValuationSettings, *, unquoted: Sequence[float] = (), days: float = 60) -> Quoted:
    """Quotes of a made smile on every strike, calls and puts, spot 100."""
    contracts = [item for k in STRIKES for item in (option(k, days=days), option(k, cp=-1, days=days))]
    marks, valuation, heard = room(config, contracts)
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    for contract in contracts:
        K = float(contract.strike)
        if K not in unquoted:
            price = float(black.bsm(100.0, K, years(contract), smile_vol(K, years(contract)), cp=contract.cp).price)
            show(marks, valuation, contract.id, price * 0.995, price * 1.005)
    return marks, valuation, heard, contracts


def smile_vol(strike: float, tau: float) -> float:
    return math.sqrt(float(SMILE.variance(math.log(strike / 100.0))) / tau)


@pytest.mark.parametrize("model", ["svi", "ssvi", "cubic"])
def test_a_surface_marks_every_contract_quoted_or_not(model: str) -> None:
    """The vols of a made smile come back, for the strike that has no quote too."""
    config = ValuationSettings(vol="surface", surface=SurfaceSettings(model=model))  # type: ignore[arg-type]  # one of three
    _, valuation, heard, contracts = chain_day(config, unquoted=(90.0,))
    assert valuation.remark(START)
    s = valuation.slice(STOCK.id)
    near = [i for i, c in enumerate(contracts) if 85 <= c.strike <= 115]
    wanted = [smile_vol(float(contracts[i].strike), years(contracts[i])) for i in near]
    assert s.vol[near] == pytest.approx(wanted, abs=2e-3 if model != "ssvi" else 2e-2)
    assert (s.vol_ts == START).all()
    assert heard == []


def test_a_chain_that_cannot_be_fitted_carries_the_last_surface_with_its_age() -> None:
    """One alarm for the reason, the vols and their instant as they were; after recovery the surface is new."""
    config = ValuationSettings(vol="surface", stale_after=2 * MINUTE)
    marks, valuation, heard, contracts = chain_day(config)
    valuation.remark(START)
    before = valuation.slice(STOCK.id).vol.copy()
    for later in (1, 2):
        for contract in contracts:
            show(marks, valuation, contract.id, 5.0, 4.0, at=later * MINUTE)  # crossed
        show(marks, valuation, STOCK.id, 100.0, 100.0, at=later * MINUTE)
        valuation.remark(START + later * MINUTE)
    s = valuation.slice(STOCK.id)
    assert np.array_equal(s.vol, before)
    assert (s.vol_ts == START).all()
    assert [alarm.code for alarm in heard] == ["surface_fit"]
    assert "found 0" in heard[0].text


def test_one_wild_quote_does_not_bend_a_surface() -> None:
    """A quote ten times too dear loses its vote."""
    marks, valuation, _, contracts = chain_day(ValuationSettings(vol="surface", surface=SurfaceSettings(max_rmse=1.0)))
    show(marks, valuation, option(94, cp=-1, days=60).id, 9.0, 9.2)
    valuation.remark(START)
    s = valuation.slice(STOCK.id)
    near = [i for i, c in enumerate(contracts) if c.strike in {90, 94, 98, 102}]
    assert s.vol[near] == pytest.approx(
        [smile_vol(float(contracts[i].strike), years(contracts[i])) for i in near], abs=5e-3
    )


# --------------------------------------------------------------------------- smile rules

RULES = [("sticky_delta", 0.0), ("sticky_moneyness", 0.0), ("local_vol", 2.0), ("ratio", 1.4)]


@pytest.mark.parametrize(("kind", "ratio"), RULES)
@pytest.mark.parametrize("vol", ["surface", "implied"])
def test_a_skew_rule_adds_vega_times_its_slope_per_tick_and_on_the_record(kind: str, ratio: float, vol: str) -> None:
    """(R - 1) skew / S of the made smile, in the fast net delta and in the decision's Greeks alike."""
    rule = SmileRule(kind=kind, ratio=1.4)  # type: ignore[arg-type]  # a rule's name
    config = ValuationSettings(vol=vol, smile=rule)  # type: ignore[arg-type]  # a source's name
    _, valuation, _, contracts = chain_day(config)
    valuation.remark(START)
    contract = contracts[STRIKES.index(94) * 2 + 1]
    legs = valuation.legs(STOCK.id, {contract.id: 1.0})
    K, tau = 94.0, years(contract)
    k = math.log(K / 100.0)
    skew = float(SMILE.slope(k)) / (2.0 * math.sqrt(float(SMILE.variance(k)) * tau))
    sigma = float(valuation.slice(STOCK.id).vol[valuation.slice(STOCK.id).rows[contract.id]])
    plain = black.bsm(100.0, K, tau, sigma, cp=-1)
    wanted = 100.0 * float(
        smile_rules.delta_with_smile(plain.delta, plain.vega, spot=100.0, skew=skew, stickiness=ratio)
    )
    net = legs.net(100.0, START)
    assert net[0] == pytest.approx(wanted, abs=0.1)
    assert net[0] == pytest.approx(valuation.greeks(legs, START).delta, abs=1e-9)
    assert abs(net[0] - 100.0 * float(plain.delta)) > 0.5
    later = START + 50 * SECOND
    assert legs.net(100.0, later)[0] == pytest.approx(valuation.greeks(legs, later).delta, abs=1e-9)


def test_too_few_strikes_leave_the_slope_and_so_the_delta_unknown() -> None:
    """One quoted strike tells no skew: NaN, with the reason."""
    call = option(100)
    marks, valuation, _ = room(ValuationSettings(vol="implied", smile=SmileRule(kind="local_vol")), [call])
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    show(marks, valuation, call.id, 2.0, 2.1)
    valuation.remark(START)
    legs = valuation.legs(STOCK.id, {call.id: 1.0})
    assert math.isnan(legs.net(100.0, START)[0])
    assert "no smile" in valuation.faults(legs, START)


def test_minimum_variance_and_bartlett_are_their_formulas() -> None:
    """Hull and White's quadratic over S sqrt(tau); SABR's own slope through the contract's own vol."""
    call = option(104, days=40)
    for rule in (
        SmileRule(kind="minimum_variance", a=-0.25, b=-0.1, c=0.05),
        SmileRule(kind="bartlett", rho=-0.6, nu=0.9),
    ):
        marks, valuation, _ = room(ValuationSettings(vol="implied", smile=rule), [call])
        show(marks, valuation, STOCK.id, 100.0, 100.0)
        price = float(black.bsm(100.0, 104.0, years(call), 0.22).price)
        show(marks, valuation, call.id, price, price)
        valuation.remark(START)
        found = float(valuation.slice(STOCK.id).slope[0])
        if rule.kind == "minimum_variance":
            delta = float(black.bsm(100.0, 104.0, years(call), 0.22).delta)
            wanted = (-0.25 - 0.1 * delta + 0.05 * delta**2) / (100.0 * math.sqrt(years(call)))
            assert found == pytest.approx(wanted, rel=1e-8)
            continue
        alphas = np.linspace(0.1, 0.4, 200_001)
        words = {"beta": 1.0, "rho": -0.6, "nu": 0.9}
        alpha = float(np.interp(0.22, sabr.vol(100.0, 104.0, years(call), alpha=alphas, **words), alphas))
        h = 1e-3
        # spot and alpha move together: d alpha = rho nu dF / F
        up, down = (
            float(sabr.vol(100.0 + x, 104.0, years(call), alpha=alpha - 0.6 * 0.9 * x / 100.0, **words))
            for x in (h, -h)
        )
        assert found == pytest.approx((up - down) / (2 * h), rel=1e-4)


@pytest.mark.parametrize("vol", ["fixed", "forecast"])
def test_a_rule_is_refused_where_there_is_no_skew(vol: str) -> None:
    """One vol for all strikes has none: named, not ignored."""
    source = ForecastSettings(source=EwmaVol(), interval=MINUTE)
    with pytest.raises(ConfigError, match=r"pricing\.smile = 'local_vol'"):
        room(ValuationSettings(vol=vol, vol_value=0.2, forecast=source, smile=SmileRule(kind="local_vol")), [option()])  # type: ignore[arg-type]  # a source's name


# --------------------------------------------------------------------------- forecasts


def test_bars_use_nothing_later_and_close_at_their_last_mark() -> None:
    """A mark at a bar's last instant is its close; a gap makes no return."""
    bars = Bars(5 * MINUTE, 100)
    marks = {0: 100.0, 2: 101.0, 5: 99.0, 6: 102.0, 11: 103.0, 60: 110.0, 65: 111.0}
    for minute, price in marks.items():
        bars.observe(START + minute * MINUTE, price)
        known, _ = bars.known(START + minute * MINUTE)
        assert all(bar.ts <= START + minute * MINUTE for bar in known)
    known, gaps = bars.known(START + 65 * MINUTE)
    assert [bar.close for bar in known] == [100.0, 99.0, 102.0, 103.0, 110.0, 111.0]
    assert known[1] == Bar(START + 5 * MINUTE, 100.0, 101.0, 99.0, 99.0)
    returns = vol_sources.close_returns(known, 5 * MINUTE, gaps=gaps)
    assert math.isnan(returns[3])
    assert np.isfinite(returns[[0, 1, 2, 4]]).all()


def test_a_history_is_known_row_by_row() -> None:
    """At an instant only the rows that have ended by it."""
    history = History([Bar(START + i * DAY, 1.0, 1.0, 1.0, 1.0) for i in range(5)], 3)
    assert [bar.ts for bar in history.known(START + 2 * DAY)[0]] == [START, START + DAY, START + 2 * DAY]
    assert history.known(START - 1)[0] == []
    assert len(history.known(START + 9 * DAY)[0]) == 3


def test_a_forecast_is_unknown_until_it_has_seen_enough_and_then_the_estimators() -> None:
    """RiskMetrics on the returns of the marks seen at re-marks, over the minutes of a year."""
    call = option(100)
    config = ValuationSettings(
        vol="forecast", forecast=ForecastSettings(source=EwmaVol(decay=0.9, least=5), interval=MINUTE)
    )
    marks, valuation, _ = room(config, [call])
    legs = valuation.legs(STOCK.id, {call.id: 1.0})
    prices = 100.0 * np.exp(np.cumsum(np.random.default_rng(2).normal(0, 1e-3, 12)))
    for i, price in enumerate(prices):
        show(marks, valuation, STOCK.id, float(price), float(price), at=i * MINUTE)
        valuation.remark(START + i * MINUTE)
        if i < 5:
            assert math.isnan(legs.net(100.0, START)[0])
            assert "has not seen enough" in valuation.faults(legs, START)
    r = np.diff(np.log(prices))
    h = forecast.ewma(r, decay=0.9, start=float(np.mean(r[:5] ** 2)))[-1]
    assert valuation.slice(STOCK.id).vol[0] == pytest.approx(math.sqrt(h * NS_PER_YEAR / MINUTE), rel=1e-12)


@pytest.mark.parametrize(
    "source",
    [EwmaVol(), RangeVol(), RangeVol(estimator="parkinson"), vol_sources.HarVol(), vol_sources.GarchVol()],
    ids=lambda source: type(source).__name__,
)
def test_each_source_finds_the_vol_of_a_made_walk(source: VolSource) -> None:
    """Daily bars of a 20% walk: every estimator lies between 14% and 28%, and a shorter history is unknown."""
    rng = np.random.default_rng(7)
    path = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.2 / math.sqrt(252 * 78), (600, 78)).ravel())).reshape(600, 78)
    bars = [Bar(START + i * DAY, d[0], d.max(), d.min(), d[-1]) for i, d in enumerate(path)]
    config = ValuationSettings(
        vol="forecast",
        forecast=ForecastSettings(
            source=source, interval=DAY, periods_per_year={STOCK.id: 252.0}, history={STOCK.id: bars}
        ),
    )
    for now, known in ((START + 599 * DAY, True), (START + DAY, False)):
        contract = option(100, days=700)
        marks, valuation, _ = room(config, [contract])
        show(marks, valuation, STOCK.id, 100.0, 100.0)
        valuation.remark(now)
        vol = float(valuation.slice(STOCK.id).vol[0])
        assert 0.14 < vol < 0.28 if known else math.isnan(vol)
    assert isinstance(source, VolSource)


def test_a_history_file_names_every_bad_row(tmp_path: Path) -> None:
    """Dates are known from the next midnight; faults carry their lines."""
    good = tmp_path / "good.csv"
    good.write_text("date,open,high,low,close\n2024-01-02,1,3,0.5,2\n2024-01-01,1,2,1,2\n")
    bars = read_history(good, ["US:UND"])["US:UND"]
    assert bars[0].ts == (date(2024, 1, 2) - date(1970, 1, 1)).days * NS_PER_DAY
    assert [bar.high for bar in bars] == [2.0, 3.0]
    bad = tmp_path / "bad.csv"
    bad.write_text("ts,close\n2024-01-02T21:00:00Z,-1\nsoon,5\n2024-01-03T21:00:00Z,nan\n")
    with pytest.raises(DataError, match=r"line 2: close(.|\n)*line 3: expected an instant(.|\n)*line 4: close"):
        read_history(bad, ["US:UND"])
    (tmp_path / "none.csv").write_text("close\n1\n")
    with pytest.raises(DataError, match="expected one of the columns ts and date"):
        read_history(tmp_path / "none.csv", ["US:UND"])


# --------------------------------------------------------------------------- the second pricer


@pytest.mark.parametrize("cp", [1, -1])
@pytest.mark.parametrize("is_american", [False, True])
def test_the_tree_is_close_to_the_first_pricers(cp: int, is_american: bool) -> None:
    """Within 1e-3 on a spot of 100, American and European."""
    words = {"rate": 0.05, "dividend": 0.03}
    first = (
        american.price(100.0, 103.0, 0.4, 0.3, cp=cp, **words)
        if is_american
        else black.bsm(100.0, 103.0, 0.4, 0.3, cp=cp, **words)
    )
    tree = model_check.leisen_reimer(100.0, 103.0, 0.4, 0.3, cp=cp, american=is_american, **words)
    assert tree == pytest.approx(float(first.price), abs=1e-3)


@pytest.mark.parametrize("pricer", ["tree", "grid", "european", "cos"])
def test_a_second_pricer_is_silent_when_it_agrees(pricer: model_check.SecondPricer) -> None:
    """A European contract by every second method, with the default tolerances."""
    config = ValuationSettings(
        vol="fixed", vol_value=0.25, rate=0.03, dividend=0.01, check=CheckSettings(pricer=pricer)
    )
    marks, valuation, heard = room(config, [option(98, cp=-1), option(103)])
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    valuation.remark(START)
    assert heard == []


def test_a_disagreement_is_told_once_with_both_values_and_again_after_it_was_over() -> None:
    """A European value of an American put against a tree: one alarm while it lasts."""
    put = early(120, cp=-1, days=200)
    config = ValuationSettings(vol="fixed", vol_value=0.2, rate=0.08, check=CheckSettings(pricer="tree", every=2))
    marks, valuation, heard = room(config, [put])
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    for i in range(5):
        valuation.remark(START + i * MINUTE)
    assert [alarm.code for alarm in heard] == ["model_disagreement"]
    tau = years(put)
    assert f"price {float(black.bsm(100.0, 120.0, tau, 0.2, rate=0.08, cp=-1).price):.6g}" in heard[0].text
    assert "'tree' 20 and -1" in heard[0].text
    show(marks, valuation, STOCK.id, 300.0, 300.0)
    valuation.remark(START + 5 * MINUTE)
    valuation.remark(START + 6 * MINUTE)
    show(marks, valuation, STOCK.id, 100.0, 100.0)
    valuation.remark(START + 7 * MINUTE)
    valuation.remark(START + 8 * MINUTE)
    assert len(heard) == 2


# --------------------------------------------------------------------------- trading time


def test_the_trading_clock_counts_the_sessions_of_its_table() -> None:
    """As `Sessions.trading_years` between any two instants, halts and holidays left out, alone and in arrays."""
    sessions = named("CME-EQUITY", date(2020, 1, 1), date(2020, 12, 31))
    clock = TradingClock(sessions)
    rng = np.random.default_rng(0)
    first, last = int(sessions.opens[5]), int(sessions.closes[-5])
    instants = np.sort(rng.integers(first, last, 400))
    counted = clock.of(instants)
    assert counted.tolist() == [clock.at(int(ts)) for ts in instants]
    for a, b, x, y in zip(instants, instants[1:], counted, counted[1:], strict=False):
        assert (y - x) / NS_PER_YEAR == pytest.approx(sessions.trading_years(int(a), int(b)), abs=1e-15)
    assert Act365().at(5) == 5


def test_an_option_does_not_decay_while_its_market_is_closed() -> None:
    """From a close to the next open the value stands; net delta and exact Greeks run on the same clock."""
    sessions = named("XNYS", date(2024, 1, 1), date(2024, 3, 1))
    stock = msgspec.structs.replace(STOCK, calendar="XNYS")
    call = option(100, days=30)
    universe = Universe([stock, call])
    marks = Marks(universe)
    valuation = Valuation(universe, marks, ValuationSettings(vol="fixed", vol_value=0.3, trading={"XNYS": sessions}))
    valuation.add(call, now=START)
    show(marks, valuation, stock.id, 100.0, 100.0)
    close, opens = sessions.close_of(date(2024, 1, 2)), sessions.open_of(date(2024, 1, 3))
    legs = valuation.legs(stock.id, {call.id: 1.0})
    assert valuation.greeks(legs, close) == valuation.greeks(legs, opens)
    assert valuation.greeks(legs, opens).value > valuation.greeks(legs, opens + 3600 * SECOND).value
    tau = sessions.trading_years(opens, call.expiry)
    exact = black.bsm(100.0, 100.0, tau, 0.3)
    assert legs.net(100.0, opens)[0] == pytest.approx(100.0 * float(exact.delta), abs=1e-9)
    assert valuation.main_tau(legs, opens) == pytest.approx(tau, abs=1e-14)
