"""A convertible in the books: coupons, redemption, calls and elections in exact money, marks by quote or model, attribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pytest

from bot.core.events import Conversion, Corporate, Target, TargetLine
from bot.core.ports import StrategyView
from bot.domain.convertible import ConvertibleModel, ConvertibleTerms, Put
from bot.domain.instruments import ConvertibleBond, Spot, Universe
from bot.domain.units import NS_PER_YEAR
from bot.engine import attribution, bonds
from bot.engine.journal import Adjusted, Ended
from bot.pricing.convertible_shelf import Shelf
from tests.simulation.bench import DAY, MINUTE, START, STOCK, Bench, Script, minutes, quote

D = Decimal
MODEL = ConvertibleModel(vol=0.3, rate=0.04, spread=0.02)


def bond(
    *, face: float = 1000.0, days: float = 30.0, model: ConvertibleModel | None = MODEL, **terms: Any
) -> ConvertibleBond:
    known: dict[str, Any] = {
        "maturity": days / 365.0,
        "ratio": 8.5,
        "face": face,
        "coupons": ((10.0 / 365.0, 15.0), (days / 365.0, 15.0)),
        "accrual_from": -0.1,
    }
    return ConvertibleBond(
        id="BOND:UND30",
        underlying=STOCK.id,
        multiplier=D(repr(face)) / 100,
        lot=D(1),
        reference=START,
        terms=ConvertibleTerms(**(known | terms)),
        model=model,
    )


def play(
    item: ConvertibleBond, *, days: float, spot: float = 100.0, held: int = 10, extra: Sequence[Any] = (), **more: Any
) -> Bench:
    """A bench that holds bonds entered at 103 and sees the stock at one price for some days, twice a day."""
    run = Bench(
        more.pop("strategies", [Script()]),
        instruments=[STOCK, item],
        openings=[(item.id, held)],
        marks_in={item.id: D(103)},
        end=START + round(days * DAY),
        report_grid=DAY,
        remark=DAY,
        **more,
    )
    quotes = [quote(STOCK.id, i * DAY // 2, spot - 0.01, spot + 0.01) for i in range(int(2 * days))]
    events = sorted([*quotes, *extra], key=lambda e: (e.ts_recv, not isinstance(e, Corporate)))
    return run.play(events)


def cash(run: Bench) -> Decimal:
    return run.account.ledger.book.cash().get("USD", D(0))


def test_a_coupon_is_paid_once_to_who_holds_it() -> None:
    """Ten bonds of face 1000 with a coupon of 15 pay 150, and a short pays it."""
    assert cash(play(bond(), days=11)) == D(150)
    assert cash(play(bond(), days=9)) == 0
    assert cash(play(bond(), days=11, held=-10)) == D(-150)


@pytest.mark.parametrize(
    ("spot", "shares", "paid"), [(100.0, D(0), D(10150) + D(150)), (130.0, D(85), D(150) + D(150))]
)
def test_maturity_gives_the_better_of_cash_and_shares(spot: float, shares: Decimal, paid: Decimal) -> None:
    """At 100 the bond is worth its face and coupon; at 130 its 8.5 shares, with the last coupon beside them."""
    run = play(bond(), days=31, spot=spot)
    assert run.held(bond().id) == 0
    assert run.held(STOCK.id) == shares
    assert cash(run) == paid


def test_a_converter_may_lose_the_last_coupon() -> None:
    """Where shares come without the last coupon, they must be worth more than face and coupon together."""
    run = play(bond(converter_keeps_coupon=False), days=31, spot=119.0)
    assert run.held(STOCK.id) == 0  # 8.5 x 119 = 1011.5 < 1015
    run = play(bond(converter_keeps_coupon=False), days=31, spot=120.0)
    assert run.held(STOCK.id) == 85
    assert cash(run) == D(150)


def test_a_fraction_of_a_share_is_paid_at_its_mark() -> None:
    """One bond of 8.5 shares gives 8 shares and half a share's price, and no money is made by it."""
    run = play(bond(coupons=()), days=31, spot=130.0, held=1)
    assert (run.held(STOCK.id), cash(run)) == (D(8), D(65))
    assert run.pnl().total == D("8.5") * D(130) - D(1030)


@pytest.mark.parametrize(("spot", "shares", "paid"), [(110.0, 0, D(10500)), (130.0, 85, D(0))])
def test_a_call_forces_conversion_where_shares_are_worth_more(spot: float, shares: int, paid: Decimal) -> None:
    """A redemption at 105 takes cash at 110 a share and shares at 130."""
    called = Corporate(ts_recv=START + 5 * DAY, what="redemption", instrument=bond().id, cash=D(105), text="called")
    run = play(bond(), days=6, spot=spot, extra=[called])
    assert (run.held(STOCK.id), cash(run)) == (D(shares), paid)
    assert run.held(bond().id) == 0
    (fact,) = run.facts(Adjusted)
    assert fact.event.what == ("conversion" if shares else "redemption")
    assert "corporate" in run.alarms()


def test_outside_its_window_nothing_is_converted() -> None:
    """A call before conversion opens pays cash, however much the shares are worth."""
    called = Corporate(ts_recv=START + 5 * DAY, what="redemption", instrument=bond().id, cash=D(105))
    run = play(bond(convertible_from=20 / 365), days=6, spot=200.0, extra=[called])
    assert (run.held(STOCK.id), cash(run)) == (D(0), D(10500))


def test_sample_and_exact_pnl_agree_through_every_event() -> None:
    """The sampled path ends at the exact P&L after coupons, redemption and a model-marked beginning."""
    for spot in (100.0, 130.0):
        run = play(bond(), days=31, spot=spot)
        track = run.loop.sampler.table().tracks["dynamic"]
        assert float(run.pnl().total) == pytest.approx(track.pnl[-1, 0], abs=1e-9)
        assert run.pnl().total == run.pnl().options + run.pnl().hedge


class Elects(Script):
    """Elects for part of its bonds at a day."""

    def __init__(self, via: Literal["conversion", "put"], day: float, left: int, item: ConvertibleBond) -> None:
        super().__init__([(round(day * DAY), item.id, left)])
        self._via, self._item = via, item

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        line = TargetLine(self._item.id, D(self.plan[0][2]), float(self.plan[0][2]))
        return [Target(book=self.book, lines=(line,), reason="elected", via=self._via)]


def test_an_election_to_convert_gives_the_shares_at_once() -> None:
    """Four of ten bonds become 34 shares; the rest stays; the accrued interest is given up."""
    item = bond()
    run = play(item, days=6, strategies=[Elects("conversion", 5, 6, item)])
    assert (run.held(item.id), run.held(STOCK.id), cash(run)) == (D(6), D(34), D(0))
    (ended,) = run.facts(Ended)
    assert (ended.event.quantity, ended.event.deliver_quantity) == (D(4), D(34))


def test_an_election_to_put_pays_price_and_accrued_interest() -> None:
    """A clean put at 990 on day 5 pays 990 and the interest earned since the last coupon."""
    item = bond(puts=(Put(start=4 / 365, end=6 / 365, price=990.0),))
    run = play(item, days=7, strategies=[Elects("put", 5, 0, item)])
    accrued = 15.0 * (5 / 365 + 0.1) / (10 / 365 + 0.1)
    assert float(cash(run)) == pytest.approx(10 * (990.0 + accrued), abs=1e-6)
    assert run.held(item.id) == 0


@pytest.mark.parametrize("via", ["conversion", "put"])
def test_an_election_the_terms_refuse_is_an_alarm(via: Any) -> None:
    """Nothing is converted before its window, nothing is put without one; the bonds stay."""
    item = bond(convertible_from=20 / 365)
    run = play(item, days=7, strategies=[Elects(via, 5, 0, item)])
    assert run.held(item.id) == 10
    assert "not_elected" in run.alarms()


def test_an_unknown_heir_freezes_and_is_told() -> None:
    """A merger into an instrument nobody named is not applied."""
    item = bond()
    event = Corporate(
        ts_recv=START + DAY,
        what="merger",
        instrument=STOCK.id,
        conversions=(Conversion(STOCK.id, "US:NOBODY", D("0.5")),),
    )
    run = play(item, days=3, extra=[event])
    assert "corporate_unadjusted" in run.alarms()
    assert STOCK.id in run.account.frozen


def test_a_merger_gives_cash_and_shares_and_closes_the_target() -> None:
    """100 shares of a target at 10.25 cash and 0.333 shares become 33 shares and cash for the rest."""
    heir = Spot(id="US:ACQ", tick=D("0.01"), lot=D(1))
    run = Bench([Script()], instruments=[STOCK, heir], openings=[(STOCK.id, 100)], needed=[STOCK.id, heir.id])
    event = Corporate(
        ts_recv=START + MINUTE,
        what="merger",
        instrument=STOCK.id,
        cash=D("10.25"),
        conversions=(Conversion(STOCK.id, heir.id, D("0.333")),),
    )
    run.play([quote(heir.id, 0, 59.0, 61.0), *minutes([30.0]), event, quote(heir.id, 2 * MINUTE, 60.0, 62.0)])
    assert (run.held(STOCK.id), run.held(heir.id)) == (D(0), D(33))
    assert cash(run) == D(1025) + D("0.3") * D(60)
    assert run.pnl().total == D(1025) + D(18) + D(33) * D(61) - D(3000)
    track = run.loop.sampler.table().tracks["dynamic"]
    assert track.pnl[-1, 0] == pytest.approx(float(run.pnl().total))


def test_a_short_target_owes_what_the_merger_pays() -> None:
    """Who is short 100 shares of the target pays the cash and is short of the heir."""
    heir = Spot(id="US:ACQ", tick=D("0.01"), lot=D(1))
    run = Bench([Script()], instruments=[STOCK, heir], openings=[(STOCK.id, -100)], needed=[STOCK.id, heir.id])
    event = Corporate(
        ts_recv=START + MINUTE,
        what="merger",
        instrument=STOCK.id,
        cash=D(5),
        conversions=(Conversion(STOCK.id, heir.id, D("0.5")),),
    )
    run.play([quote(heir.id, 0, 59.0, 61.0), *minutes([30.0]), event])
    assert (run.held(heir.id), cash(run)) == (D(-50), D(-500))


def test_the_mark_is_the_quote_and_before_it_the_model() -> None:
    """Without a quote the bond stands at its model's value, with one at its middle; without a model it has none."""
    item = bond()
    run = play(item, days=1).loop
    value = Shelf().value(item, 100.0, run.now).price
    assert float(run.valuation.mark(item.id, run.now) or 0) == pytest.approx(float(value), abs=1e-9)
    shown = play(item, days=1, extra=[quote(item.id, DAY // 4, 101.0, 102.0)]).loop
    assert shown.valuation.mark(item.id, shown.now) == D("101.5")
    bare = bond(model=None)
    assert play(bare, days=1).loop.valuation.mark(bare.id, START) is None


def test_a_bond_without_a_price_is_waited_for_by_name() -> None:
    """A session does not begin on a held bond that neither quote nor model nor book prices."""
    item = bond(model=None)
    run = Bench([Script()], instruments=[STOCK, item], openings=[(item.id, 1)])
    run.play(minutes([100.0, 100.0]))
    assert run.loop.started_at is None
    assert item.id in run.loop.not_ready


def test_attribution_of_a_convertible_is_delta_gamma_theta_of_its_model() -> None:
    """Marked at its model, a bond's P&L over small moves is its terms, to a small share of what it made."""
    item = bond(days=400.0, coupons=())
    rng = np.random.default_rng(4)
    prices = 110.0 * np.exp(np.cumsum(rng.normal(0.0, 0.004, 60)))
    run = Bench([Script()], instruments=[STOCK, item], openings=[(item.id, 10)], report_grid=DAY // 8, remark=DAY)
    run.play(minutes(prices.tolist(), step=DAY // 8, half=0.0))
    loop = run.loop
    spots = {key: loop.sampler.spot_path(key) for key in loop.valuation.slices}
    found = attribution.attribute(
        loop.sampler.table(), "dynamic", loop.valuation, run.universe, spots, loop.convert
    ).sum()
    assert abs(found.delta) > 10.0
    assert found.total == pytest.approx(float(run.pnl().total), abs=1e-6)
    assert abs(found.residual) < 0.02 * abs(found.delta)
    assert found.vega == 0.0


def test_a_bonds_time_axis_comes_back_to_the_millisecond() -> None:
    """Dates written down in nanoseconds survive the trip through years of the terms."""
    item = bond()
    for days in (0, 1, 10, 365, 3650, 10_000):
        ts = START + days * DAY + 7 * MINUTE
        assert item.instant(item.years(ts)) == ts
    assert item.accrued(START + 9 * DAY) == pytest.approx(100.0 / 1000.0 * 15.0 * (9 / 365 + 0.1) / (10 / 365 + 0.1))


def test_the_multiplier_is_a_hundredth_of_face() -> None:
    """A price in per cent of face times another multiplier would be another bond."""
    with pytest.raises(ValueError, match="face / 100"):
        ConvertibleBond(
            id="BOND:X",
            underlying=STOCK.id,
            reference=START,
            terms=ConvertibleTerms(maturity=1.0, ratio=1.0, face=1000.0),
        )


def test_dues_are_coupons_before_maturity_and_maturity() -> None:
    """The last coupon comes with maturity, not apart; what is past is not due."""
    item = bond()
    found = [(d.what, round((d.ts + 1 - START) / DAY, 6)) for d in bonds.dues(Universe([STOCK, item]), START)]
    assert found == [("coupon", 10.0), ("maturity", 30.0)]
    assert not list(bonds.dues(Universe([STOCK, item]), START + NS_PER_YEAR))


def test_a_shelf_answers_the_same_whatever_was_asked_before() -> None:
    """Two shelves, one asked in another order, give the same bits; NaN without a model, 0 once redeemed."""
    item = bond()
    forth, back = Shelf(), Shelf(keep=1)
    at = [START + i * DAY // 3 for i in range(40)]
    one = [float(forth.value(item, 95.0 + i, ts).price) for i, ts in enumerate(at)]
    two = [float(back.value(item, 95.0 + i, ts).price) for i, ts in reversed(list(enumerate(at)))]
    assert one == two[::-1]
    assert math.isnan(float(forth.value(bond(model=None), 100.0, START).price))
    assert float(forth.value(item, 100.0, START + 31 * DAY).price) == 0.0


def test_a_coupon_moves_no_equity_before_the_next_quote() -> None:
    """A bond last quoted with its coupon is carried without it once it was paid: what is owned stays worth the same."""
    item = bond()
    quotes = [quote(item.id, DAY, 102.9, 103.1)]
    run = play(item, days=11, extra=quotes)
    assert run.valuation.mark(item.id, run.loop.now) == D(103) - D("1.5")
    assert cash(run) == D(150)
    assert run.pnl().total == 0
    track = run.loop.sampler.table().tracks["dynamic"]
    assert np.abs(track.pnl[1:, 0]).max() < 1e-9


def test_a_split_that_does_not_name_the_bond_freezes_bond_and_share() -> None:
    """Its ratio changes with the share: until its new terms are given nothing of either is traded; named, it becomes them."""
    item = bond()
    heir = ConvertibleBond(
        id="BOND:UND30B",
        underlying=STOCK.id,
        multiplier=item.multiplier,
        reference=START,
        terms=ConvertibleTerms(maturity=30 / 365, ratio=17.0, face=1000.0),
        model=MODEL,
    )
    split = Corporate(ts_recv=START + DAY, what="split", instrument=STOCK.id, ratio=D(2))
    run = play(item, days=3, extra=[split])
    assert set(run.account.frozen) == {item.id, STOCK.id}
    assert "corporate_unadjusted" in run.alarms()
    named = Corporate(
        ts_recv=START + MINUTE,
        what="split",
        instrument=STOCK.id,
        ratio=D(2),
        conversions=(Conversion(item.id, heir.id, D(1)),),
    )
    told = Bench([Script()], instruments=[STOCK, item, heir], openings=[(item.id, 10)], marks_in={item.id: D(103)})
    told.play([*minutes([100.0]), named, quote(STOCK.id, 2 * MINUTE, 49.9, 50.1)])
    assert told.account.frozen == {}
    assert (told.held(item.id), told.held(heir.id)) == (D(0), D(10))
