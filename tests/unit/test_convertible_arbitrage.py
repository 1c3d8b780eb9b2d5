"""Convertible arbitrage: hedges the grid's delta, hears issuer and lenders, puts and converts, and ends flat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from bot.core.events import Corporate, FeedEvent, Notice
from bot.core.notices import ConvertibleNotice, notice_of
from bot.domain.convertible import ConvertibleModel, ConvertibleTerms, Put
from bot.domain.instruments import ConvertibleBond, Spot
from bot.engine.journal import Ended, Ordered, TargetSet
from bot.engine.shadows import Once
from bot.pricing import american, black, convertible
from bot.pricing.convertible_shelf import Shelf, called, credit_delta, implied
from strategies.convertible_arbitrage import ConvertibleArbitrage, Holding
from tests.simulation.bench import DAY, MINUTE, START, STOCK, Bench, quote

D = Decimal
HOUR = 60 * MINUTE
MODEL = ConvertibleModel(vol=0.3, rate=0.04, hazard=0.02, recovery=0.4, equity_drop=1.0)
TERMS = ConvertibleTerms(
    maturity=3.0, ratio=9.0, face=1000.0, coupons=tuple((0.5 * k, 10.0) for k in range(1, 7)), accrual_from=0.0
)
BOND = ConvertibleBond(
    id="BOND:UND28",
    underlying=STOCK.id,
    multiplier=D(10),
    tick=D("0.01"),
    lot=D(1),
    reference=START,
    terms=TERMS,
    model=MODEL,
)
CDS = Spot(id="SIM:CDS", tick=D("0.01"), lot=D(1))
SHELF = Shelf()


def value(spot: float, at: int = 0, bond: ConvertibleBond = BOND, **more: Any) -> Any:
    return SHELF.value(bond, spot, START + at, **more)


def delta(spot: float, at: int = 0, **more: Any) -> float:
    return float(value(spot, at, **more).delta)


def seen(
    at: int, spot: float = 100.0, *, bond: ConvertibleBond = BOND, half: float = 0.1, off: float = 0.0
) -> list[FeedEvent]:
    """Quotes of the stock and of the bond round its model."""
    middle = float(value(spot, at, bond).price) + off
    return [
        quote(STOCK.id, at, round(spot - 0.01, 4), round(spot + 0.01, 4)),
        quote(bond.id, at, round(middle - half, 4), round(middle + half, 4)),
    ]


def run(
    events: Sequence[FeedEvent],
    *,
    bond: ConvertibleBond = BOND,
    held: int = 100,
    shares: int = 0,
    finish: bool = False,
    position: Holding | None = None,
    **keys: Any,
) -> Bench:
    strategy = ConvertibleArbitrage(positions=[position or Holding(bond=bond.id)], **({"half_width": 10.0} | keys))
    openings = [(bond.id, held)] if held else []
    bench = Bench(
        [strategy],
        instruments=[STOCK, bond, CDS],
        openings=[*openings, *([(STOCK.id, shares)] if shares else [])],
        needed=[STOCK.id],
        end=START + 40 * DAY,
        remark=DAY,
        report_grid=DAY,
    )
    bench.play(events, finish=finish)
    if not finish:
        bench.loop.close_open_instant()
    return bench


def word(at: int, what: Any, *, of: str = BOND.id, **rest: Any) -> Notice:
    return notice_of(ConvertibleNotice(instrument=of, what=what, **rest), START + at)


def ends(at: int, cash: str) -> Corporate:
    return Corporate(ts_recv=START + at, what="redemption", instrument=BOND.id, cash=D(cash), text="called")


def test_the_book_of_bonds_is_hedged_by_its_delta() -> None:
    """100 bonds are short 100 deltas of stock, counting what the book is short already; a ratio hedges a part."""
    want = -round(100 * delta(100.0))
    assert run(seen(0)).held() == want
    assert run(seen(0), shares=-400).held() == want
    assert run(seen(0), hedge_ratio=0.5).held() == round(0.5 * -100 * delta(100.0))


def test_bonds_are_bought_with_their_hedge_at_one_instant() -> None:
    """Both legs leave together, the hedge for the bonds wanted; later both are there."""
    bench = run([*seen(0), *seen(HOUR)], held=0, position=Holding(bond=BOND.id, quantity=50.0))
    orders = bench.facts(Ordered)
    assert {f.order.instrument for f in orders[:2]} == {STOCK.id, BOND.id}
    assert orders[0].order.ts == orders[1].order.ts == START
    assert (bench.held(BOND.id), bench.held()) == (50, -round(50 * delta(100.0)))


def test_bonds_nobody_sells_are_not_hedged() -> None:
    """Without a quote of the bond neither leg is traded, with the reason on the record."""
    bench = run([quote(STOCK.id, 0, 99.99, 100.01)], held=0, position=Holding(bond=BOND.id, quantity=50.0))
    assert bench.held() == 0
    assert "no two-sided quote of BOND:UND28" in bench.account.skips


@pytest.mark.parametrize(("to", "goal"), [("centre", 0.0), ("edge", 30.0)])
def test_the_band_holds_and_then_trades_to_its_centre_or_edge(to: Any, goal: float) -> None:
    """A drift within 30 shares stays; a longer one is traded back, whole or to the edge."""
    first = run(seen(0), half_width=30.0, to=to).held()
    assert float(first) == pytest.approx(-100 * delta(100.0) + goal, abs=1.0)
    assert run([*seen(0), *seen(HOUR, 99.5)], half_width=30.0, to=to).held() == first
    far = run([*seen(0), *seen(HOUR, 106.0)], half_width=30.0, to=to)
    assert float(far.held()) == pytest.approx(-100 * delta(106.0, HOUR) + goal, abs=1.0)


def test_without_coupons_and_credit_it_hedges_an_american_call() -> None:
    """Zero coupon, no default, a yield: face and ratio American calls, and the hedge is theirs."""
    bare = ConvertibleTerms(maturity=2.0, ratio=10.0, face=1000.0)
    bond = msgspec.structs.replace(BOND, terms=bare, model=ConvertibleModel(vol=0.3, dividend=0.06))
    found = american.price(100.0, 100.0, 2.0, 0.3, rate=0.0, dividend=0.06, cp=1)
    worth = value(100.0, 0, bond)
    assert float(worth.price) == pytest.approx(100.0 + float(found.price), abs=5e-3)
    assert float(run(seen(0, bond=bond), bond=bond).held()) == pytest.approx(-100 * 10 * float(found.delta), abs=1.5)


def test_without_conversion_it_is_a_bond_and_nothing_is_hedged() -> None:
    """At ratio 0 the value is the risky bond's closed form and no share is ever traded."""
    bond = msgspec.structs.replace(BOND, terms=msgspec.structs.replace(TERMS, ratio=0.0))
    market = convertible.Market(0.3, 0.04, 0.0, 0.0, 0.02, 0.0, 1.0, 0.4, 1.0, False)
    floor = float(convertible.bond_floor(100.0, bond.terms, market, model="afv", at=0.0))
    assert float(value(100.0, 0, bond).price) == pytest.approx(floor / 10.0, abs=5e-4)
    assert run([*seen(0, bond=bond), *seen(HOUR, 130.0, bond=bond)], bond=bond).held() == 0


def test_hedging_takes_most_of_the_swings_off() -> None:
    """Over forty days at the model's vol the hedged P&L swings by less than a tenth of the unhedged one's."""
    rng = np.random.default_rng(3)
    spots = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.3 * math.sqrt(0.25 / 365.0), 150)))
    events = [e for i, spot in enumerate(spots) for e in seen(i * DAY // 4, round(float(spot), 2))]
    swings = []
    for ratio in (0.0, 1.0):
        track = run(events, finish=True, hedge_ratio=ratio, half_width=5.0).loop.sampler.table().tracks["dynamic"]
        swings.append(float(np.std(np.diff(track.pnl[:, 0]))))
    assert swings[1] < 0.1 * swings[0]


def test_a_calibrated_delta_is_that_of_the_quotes_vol() -> None:
    """With the bond two points dear its implied vol is higher and the hedge is that vol's delta."""
    bench = run(seen(0, off=2.0), calibrate="vol")
    price = float(value(100.0).price) + 2.0
    vol = implied(TERMS, MODEL, spot=100.0, price=price * 10.0, at=0.0, by="vol")
    assert vol > 0.31
    expected = delta(100.0, model=msgspec.structs.replace(MODEL, vol=vol))
    assert float(bench.held()) == pytest.approx(-100 * expected, abs=0.6)
    by_credit = run(seen(0, off=2.0), calibrate="spread")
    assert by_credit.held() != bench.held()


def test_a_quote_no_vol_gives_leaves_the_model_and_is_counted() -> None:
    """A bond quoted below its floor has no implied vol: the model's own is kept, the miss is on the report."""
    bench = run([*seen(0, off=-60.0), *seen(HOUR, off=-60.0)], calibrate="vol", remark=20 * DAY, finish=True)
    assert bench.account.slots[0].figures[BOND.id]["re-marks without a fit"] > 0
    assert bench.facts(Ordered)[0].order.quantity == -round(100 * delta(100.0))


def test_entry_and_exit_are_judged_by_the_side_that_trades() -> None:
    """It buys once the ask is 2 % below the model and sells once the bid is 1 % above it, and both legs go with it."""
    holding = Holding(bond=BOND.id, quantity=50.0, entry=0.02, exit=0.01)
    worth = float(value(100.0).price)
    path = [-0.015 * worth, -0.025 * worth, 0.0, 0.012 * worth, -0.03 * worth]
    events = [
        e for i, off in enumerate(path) for e in [*seen(2 * i * HOUR, off=off), *seen((2 * i + 1) * HOUR, off=off)]
    ]
    held = [run(events[: 4 * i + 4], held=0, position=holding).held(BOND.id) for i in range(len(path))]
    assert held == [0, 50, 50, 0, 0]
    last = run(events, held=0, position=holding)
    assert last.held() == 0


def test_a_called_bond_is_hedged_as_a_short_option_and_ends_in_shares() -> None:
    """After the notice the delta is the called bond's; conversion delivers what was short, and nothing is left."""
    effective = START + 20 * DAY
    events = [*seen(0, 120.0), word(HOUR, "call", effective=effective, price=102.0), *seen(2 * HOUR, 120.0)]
    bench = run(events)
    terms = called(TERMS, at=BOND.years(effective), price=1020.0)
    assert float(bench.held()) == pytest.approx(-100 * delta(120.0, 2 * HOUR, terms=terms), abs=10.5)
    tail = [quote(STOCK.id, k * DAY, 119.99, 120.01) for k in (19, 21, 22)]
    done = run([*events, tail[0], ends(20 * DAY, "102"), *tail[1:]])
    assert (done.held(BOND.id), done.held()) == (0, 0)


def test_a_called_bond_that_is_paid_in_cash_has_its_hedge_bought_back() -> None:
    """Below the call price the short is bought back when the cash has come."""
    events = [*seen(0, 90.0), word(HOUR, "call", effective=START + 20 * DAY, price=102.0), *seen(2 * HOUR, 90.0)]
    tail = [quote(STOCK.id, k * DAY, 89.99, 90.01) for k in (19, 21, 22)]
    done = run([*events, tail[0], ends(20 * DAY, "102"), *tail[1:]])
    assert (done.held(BOND.id), done.held()) == (0, 0)
    assert float(done.account.ledger.book.cash()["USD"]) > 100 * 1020 - 3000


def test_a_call_may_be_answered_by_selling() -> None:
    """Told to, it sells the called bond at the next quote, and its hedge with it."""
    events = [*seen(0), word(HOUR, "call", effective=START + 20 * DAY, price=102.0), *seen(2 * HOUR), *seen(3 * HOUR)]
    done = run(events, on_call="sell")
    assert (done.held(BOND.id), done.held()) == (0, 0)
    assert any("called at 102" in f.reason for f in done.facts(TargetSet))


def test_a_call_that_never_pays_is_said_and_nothing_is_guessed() -> None:
    """After the date of a redemption that did not come nothing is traded, with the reason."""
    events = [*seen(0), word(HOUR, "call", effective=START + 2 * DAY, price=102.0), *seen(2 * HOUR)]
    before = run(events).held()
    late = run([*events, *[quote(STOCK.id, k * DAY, 139.99, 140.01) for k in (3, 4)]])
    assert late.held() == before
    assert any("nothing was paid yet" in reason for reason in late.account.skips)


def test_a_recall_leaves_as_many_bonds_as_can_be_hedged() -> None:
    """With 300 shares to borrow the bonds go down to what 300 hedge; with the recall accepted they stay and it is told once."""
    recall = word(HOUR, "recall", shares=D(300), effective=START + 2 * HOUR)
    events = [*seen(0), recall, *seen(2 * HOUR), *seen(3 * HOUR), *seen(4 * HOUR)]
    fewer = run(events)
    assert fewer.held() >= -300
    assert float(fewer.held(BOND.id)) == pytest.approx(300 / delta(100.0), abs=1.0)
    kept = run(events, on_recall="accept")
    assert (kept.held(BOND.id), kept.held()) == (100, -300)
    assert kept.alarms().count("not_borrowed") == 1


def test_what_can_be_borrowed_bounds_the_first_purchase_too() -> None:
    """Of 50 bonds only those are bought whose shares can be borrowed."""
    bench = run([*seen(0), *seen(HOUR)], held=0, position=Holding(bond=BOND.id, quantity=50.0), max_short=100.0)
    assert float(bench.held(BOND.id)) == pytest.approx(100 / delta(100.0), abs=1.0)
    assert bench.held() >= -100


def test_dear_borrowing_unwinds() -> None:
    """Told that borrowing costs 8 % against a bound of 5 % it sells the bonds and buys the shares back."""
    events = [*seen(0), word(HOUR, "borrow", of=STOCK.id, rate=0.08), *seen(2 * HOUR), *seen(3 * HOUR)]
    done = run(events, max_borrow_rate=0.05)
    assert (done.held(BOND.id), done.held()) == (0, 0)
    stays = run(events)
    assert stays.held(BOND.id) == 100
    rate = msgspec.structs.replace(MODEL, borrow=0.08)
    assert float(stays.held()) == pytest.approx(-100 * delta(100.0, 3 * HOUR, model=rate), abs=10.5)


def test_a_default_ends_the_hedge_and_keeps_the_claim() -> None:
    """After a default nothing is short and the bonds are still there."""
    done = run([*seen(0), word(HOUR, "default"), *seen(2 * HOUR, 30.0), *seen(3 * HOUR, 30.0)])
    assert (done.held(BOND.id), done.held()) == (100, 0)


def test_word_of_credit_moves_the_delta() -> None:
    """A hazard of 15 % is another bond: the hedge follows at once."""
    done = run([*seen(0, 80.0), word(HOUR, "credit", credit=0.15), *seen(2 * HOUR, 80.0)])
    risky = msgspec.structs.replace(MODEL, hazard=0.15)
    assert abs(delta(80.0, model=risky) - delta(80.0)) > 0.2
    assert float(done.held()) == pytest.approx(-100 * delta(80.0, 2 * HOUR, model=risky), abs=10.5)


def test_a_bond_worth_its_put_is_put() -> None:
    """At the date of a put it is worth no more than, it is put for price and accrued interest, and the hedge goes."""
    terms = msgspec.structs.replace(TERMS, puts=(Put(start=10 / 365, end=10 / 365, price=1000.0),))
    bond = msgspec.structs.replace(BOND, terms=terms)
    events = [e for k in range(24) for e in seen(k * DAY // 2, 60.0, bond=bond, off=-0.2)]
    done = run(events, bond=bond)
    assert (done.held(bond.id), done.held()) == (0, 0)
    (fact,) = done.facts(Ended)
    assert fact.event.what == "exercise"
    assert float(fact.event.value) == pytest.approx(100.0 + 1.0 * (10 / 365) / 0.5, abs=1e-6)
    worth_more = [e for k in range(24) for e in seen(k * DAY // 2, 140.0, bond=bond)]
    assert run(worth_more, bond=bond).held(bond.id) == 100


def test_a_bond_worth_its_shares_and_no_more_is_converted() -> None:
    """Deep in the money under a yield above its coupon it is converted; bid higher, or told not to, it is not."""
    model = ConvertibleModel(vol=0.2, rate=0.02, dividend=0.08)
    bond = msgspec.structs.replace(BOND, terms=msgspec.structs.replace(TERMS, coupons=()), model=model)
    parity = 9.0 * 200.0 / 10.0
    assert float(value(200.0, 0, bond).price) == parity
    low = [quote(STOCK.id, 0, 199.99, 200.01), quote(bond.id, 0, parity - 1.0, parity - 0.5)]
    done = run([*low, quote(STOCK.id, HOUR, 199.99, 200.01)], bond=bond)
    assert (done.held(bond.id), done.held()) == (0, 0)
    assert done.facts(Ended)[0].event.deliver_quantity == 900
    assert run(low, bond=bond, convert=False).held(bond.id) == 100
    high = [low[0], quote(bond.id, 0, parity + 0.5, parity + 1.0)]
    assert run(high, bond=bond).held(bond.id) == 100


def test_coupons_are_counted_and_maturity_ends_all() -> None:
    """Ten bonds over a coupon and maturity: what was received is on the report, and no share is left short."""
    short = msgspec.structs.replace(
        BOND,
        terms=ConvertibleTerms(
            maturity=20 / 365, ratio=9.0, face=1000.0, coupons=((10 / 365, 10.0), (20 / 365, 10.0)), accrual_from=-0.1
        ),
    )
    events = [e for k in range(40) for e in seen(k * DAY // 2, 100.0, bond=short)]
    done = run([*events, *[quote(STOCK.id, k * DAY, 99.99, 100.01) for k in (20, 21, 22, 39)]], bond=short, finish=True)
    rows = done.account.slots[0].figures[short.id]
    assert rows["coupons received"] == pytest.approx(1000.0)
    assert rows["became"] == "redemption"
    assert (done.held(short.id), done.held()) == (0, 0)
    assert float(done.account.ledger.book.cash()["USD"]) == pytest.approx(100 * (10 + 1010), rel=0.01)


def test_credit_is_hedged_by_what_gains_from_it() -> None:
    """Contracts of protection = -(credit delta of the bonds) / what one gains per 1.00 of spread; gone with the bonds."""
    cds = [quote(CDS.id, k * HOUR, 1.0, 1.01) for k in range(5)]
    keys: dict[str, Any] = {"credit_hedge": CDS.id, "credit_per_contract": 500.0}
    done = run([*seen(0), cds[0], *seen(HOUR), cds[1]], **keys)
    want = -100 * credit_delta(TERMS, MODEL, spot=100.0, at=0.0) / 500.0
    assert want > 20
    assert float(done.held(CDS.id)) == pytest.approx(want, abs=0.6)
    sold = [
        word(2 * HOUR, "call", effective=START + 20 * DAY, price=102.0),
        *seen(3 * HOUR),
        cds[3],
        *seen(4 * HOUR),
        cds[4],
    ]
    after = run([*seen(0), cds[0], *seen(HOUR), cds[1], *sold], on_call="sell", **keys)
    assert after.held(CDS.id) == 0


def test_bad_words_are_alarms() -> None:
    """An unreadable payload, another version, a call after maturity: told, and nothing changes."""
    bad = [
        Notice(ts_recv=START + HOUR, namespace="convertible/1", payload=b"{}"),  # type: ignore[arg-type]  # bytes do
        Notice(ts_recv=START + HOUR, namespace="convertible/7"),
        word(HOUR, "call", effective=START + 3000 * DAY, price=100.0),
    ]
    for notice in bad:
        done = run([*seen(0), notice, *seen(2 * HOUR)])
        assert "bad_notice" in done.alarms()
        assert done.held(BOND.id) == 100


def test_the_session_ends_where_it_began() -> None:
    """Bonds bought are sold, shares go back to what was owned, at the close of the session."""
    bench = run([*seen(0), *seen(DAY), *seen(39 * DAY), *seen(40 * DAY)], shares=-200, finish=True)
    assert (bench.held(BOND.id), bench.held()) == (100, -200)


def test_its_figures_set_the_model_beside_the_market_and_say_how_sure_the_delta_is() -> None:
    """Market, model, parity and floor; deltas of both models and of the vols of bid and ask; what is in doubt in shares."""
    done = run([*seen(0), *seen(39 * DAY)], finish=True)
    figures = done.account.slots[0].figures
    rows, doubt = figures[BOND.id], figures[f"{BOND.id}: how sure the delta is"]
    clean, dirty = rows["market, clean, % of face"], rows["market, dirty, % of face"]
    assert isinstance(clean, float) and isinstance(dirty, float)
    assert dirty - clean == pytest.approx(BOND.accrued(START + 40 * DAY), abs=0.02)
    assert rows["cheapness against the model"] == pytest.approx(0.0, abs=2e-3)
    assert doubt["delta by afv"] != doubt["delta by tf"]
    assert doubt["delta at the vol of the bid"] != doubt["delta at the vol of the ask"]
    assert 0.0 < float(doubt["shares in doubt"] or 0.0) < 200.0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"positions": []}, "at least one"),
        ({"positions": [Holding(bond=BOND.id), Holding(bond=BOND.id)]}, "one twice"),
        ({"half_width": -1.0}, "half_width"),
        ({"calibrate": "vol", "positions": [Holding(bond=BOND.id, exit=0.1)]}, "calibrate"),
        ({"credit_hedge": CDS.id}, "credit_per_contract"),
        ({"credit_per_contract": 5.0}, "credit_per_contract"),
        ({"remark": 0}, "remark"),
    ],
)
def test_a_table_that_means_nothing_is_refused(keys: dict[str, Any], message: str) -> None:
    """Contradictions are found when the strategy is made, in words."""
    with pytest.raises(ValueError, match=message):
        ConvertibleArbitrage(**({"positions": [Holding(bond=BOND.id)], "half_width": 1.0} | keys))


def test_a_position_that_is_no_convertible_stops_the_strategy_by_name() -> None:
    """A stock under positions is a fault of the table, said as such; nothing is traded."""
    strategy = ConvertibleArbitrage(positions=[Holding(bond=STOCK.id)], half_width=1.0)
    bench = Bench([strategy], instruments=[STOCK]).play([quote(STOCK.id, at, 99.0, 101.0) for at in (0, HOUR)])
    assert "strategy_fault" in bench.alarms()
    assert bench.held() == 0


def test_black_scholes_is_where_the_credit_ends() -> None:
    """Convertible only at maturity, without coupons, yield and credit, the hedge is ratio Black-Scholes deltas."""
    terms = ConvertibleTerms(maturity=1.0, ratio=8.0, face=1000.0, convertible_from=1.0)
    bond = msgspec.structs.replace(BOND, terms=terms, model=ConvertibleModel(vol=0.25, rate=0.03))
    found = black.bsm(110.0, 125.0, 1.0, 0.25, rate=0.03)
    assert float(run(seen(0, 110.0, bond=bond), bond=bond).held()) == pytest.approx(-800 * float(found.delta), abs=0.6)


def test_a_twin_that_is_not_told_buys_no_redeemed_bond_back() -> None:
    """Account `static` hears nothing after its first trade: at the close it sells its shares and leaves the bond that ended."""
    strategy = ConvertibleArbitrage(positions=[Holding(bond=BOND.id)], half_width=10.0)
    bench = Bench(
        [Once(strategy)],
        instruments=[STOCK, BOND],
        openings=[(BOND.id, 100)],
        end=START + 30 * DAY,
        remark=DAY,
        report_grid=DAY,
    )
    quotes = [quote(STOCK.id, k * DAY, 119.99, 120.01) for k in (2, 19, 21, 29, 30)]
    bench.play(sorted([*seen(0, 120.0), *quotes, ends(20 * DAY, "102")], key=lambda event: event.ts_recv))
    assert {f.order.instrument for f in bench.facts(Ordered)} == {STOCK.id}
    assert (bench.held(BOND.id), bench.held()) == (0, 0)
