"""The tail hedger in the engine: the carry budget, the ladder, covered spreads, monetisation, and what it is scored by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from bot.core.events import FeedEvent
from bot.domain.instruments import OptionContract
from bot.engine.journal import Executed, Skipped
from bot.engine.limits import LimitSettings
from bot.pricing.black import bsm
from strategies.tail_hedger import Monetise, Run, TailHedger
from tests.simulation.bench import DAY, IMPLIED, START, STOCK, Bench, option, quote

D = Decimal
PUTS = [option(strike, days=days, cp=-1) for strike in (60, 70, 80, 90, 100) for days in (30, 60, 90)]
CALLS = [option(strike, days=days) for strike in (100, 120) for days in (30, 60, 90)]


def world(
    prices: Sequence[float], *, vol: Sequence[float] | float = 0.25, half: float = 0.01, blank: Sequence[int] = ()
) -> list[FeedEvent]:
    """A quote of the stock and of every live option each day at one vol; on `blank` days the options show no bid."""
    events: list[FeedEvent] = []
    vols = [vol] * len(prices) if isinstance(vol, float) else list(vol)
    for i, (price, level) in enumerate(zip(prices, vols, strict=True)):
        for item in [*PUTS, *CALLS]:
            tau = (item.expiry - START - i * DAY) / (365 * DAY)
            if tau <= 0:
                continue
            value = float(bsm(price, float(item.strike), tau, level, cp=item.cp).price)
            bid = round(value - half, 6)
            events.append(quote(item.id, i * DAY, bid if bid > 0 and i not in blank else None, round(value + half, 6)))
        events.append(quote(STOCK.id, i * DAY, price - 0.01, price + 0.01))
    return events


def run_of(
    events: Sequence[FeedEvent], *, days: int, cash: int = 10_000_000, checks: LimitSettings | None = None, **keys: Any
) -> tuple[Bench, TailHedger]:
    hedger = TailHedger(stock=STOCK.id, **({"tenors": (60 * DAY,), "roll": 10 * DAY} | keys))
    run = Bench(
        [hedger],
        instruments=[STOCK, *PUTS, *CALLS],
        tradable=[item.id for item in [*PUTS, *CALLS]],
        valuation=IMPLIED,
        end=START + days * DAY,
        report_grid=DAY,
        remark=DAY,
        checks=checks,
        jump_freeze=None,
    )
    run.account.ledger.book.add_cash("USD", D(cash))
    return run.play(events), hedger


def bought(run: Bench, *, sign: int = 1) -> list[tuple[int, str, float]]:
    """Option fills of one side: day, contract, quantity."""
    found = []
    for step in run.journal.steps:
        for fact in step.facts:
            if not isinstance(fact, Executed) or float(fact.fill.quantity) * sign <= 0:
                continue
            if isinstance(run.universe.get(fact.fill.instrument), OptionContract):
                found.append(((step.ts - START) // DAY, fact.fill.instrument, float(fact.fill.quantity)))
    return found


def test_each_roll_spends_its_part_of_the_year_and_keeps_what_lots_left() -> None:
    """At 200 bp a year on ten millions a roll of ten days has 5,479: premium stays under the budget so far, and near it."""
    run, hedger = run_of(world([100.0] * 40), days=40, carry_bp=200.0)
    fills = bought(run)
    assert [day for day, _, _ in fills] == [0, 10, 20, 30]
    overlay = hedger.figures(run.account.slots[0].view)["Overlay"]
    budget = sum(0.02 * 1e7 * 10 / 365 for _ in range(4))
    assert budget - 300.0 < overlay["premium spent"] <= budget * 1.0001
    assert overlay["premium spent"] + overlay["budget not yet spent"] == pytest.approx(budget, rel=1e-3)
    spent = sum(
        float(f.fill.quantity * 100 * f.fill.price) for f in run.facts(Executed) if f.fill.instrument != STOCK.id
    )
    assert overlay["premium spent"] == pytest.approx(spent)


def test_the_nearest_strike_of_the_nearest_expiry_is_bought() -> None:
    """Moneyness 0.9 and sixty days on a price of 100: the 90 put of sixty days, for each tenor its own."""
    run, _ = run_of(world([100.0] * 3), days=2, carry_bp=200.0, tenors=(30 * DAY, 90 * DAY))
    ids = {instrument for _, instrument, _ in bought(run)}
    assert ids == {item.id for item in PUTS if item.strike == 90 and round((item.expiry - START) / DAY) in {30, 90}}


def test_a_delta_chooses_too() -> None:
    """The put whose delta is nearest to a tenth."""
    run, _ = run_of(world([100.0] * 3), days=2, carry_bp=200.0, delta=-0.10)
    tau = 60 / 365
    deltas = {k: abs(float(bsm(100.0, k, tau, 0.25, cp=-1).delta)) for k in (60, 70, 80, 90, 100)}
    wanted = min(deltas, key=lambda k: abs(deltas[k] - 0.10))
    assert {run.universe.get(i).strike for _, i, _ in bought(run)} == {D(wanted)}  # type: ignore[union-attr]  # options only


def test_a_spread_is_written_only_behind_what_was_bought() -> None:
    """The written leg never exceeds the bought one at any fill, even where a limit refuses the bought one."""
    keys: dict[str, Any] = {"method": "put_spread", "short_moneyness": 0.7, "carry_bp": 500.0}
    whole, _ = run_of(world([100.0] * 25), days=24, **keys)
    assert bought(whole, sign=-1)
    restricted = LimitSettings(restricted=(bought(whole)[0][1],))
    refused, _ = run_of(world([100.0] * 25), days=24, checks=restricted, **keys)
    assert not [day for day, _, _ in bought(refused, sign=-1) if day < 10]
    for run in (whole, refused):
        held: dict[str, float] = {}
        for fact in run.facts(Executed):
            held[fact.fill.instrument] = held.get(fact.fill.instrument, 0.0) + float(fact.fill.quantity)
            assert sum(q for i, q in held.items() if i != STOCK.id) >= 0


def test_a_spread_is_bought_back_before_its_cover_is_sold() -> None:
    """When a rule sells the structure, no written put stands alone, though its buying back waits for a quote."""
    prices = [100.0] * 5 + [75.0] * 10
    rules = (Monetise(at="multiple", level=3.0),)
    run, hedger = run_of(
        world(prices, blank=(6,)), days=14, method="put_spread", short_moneyness=0.7, carry_bp=500.0, roll=60 * DAY,
        monetise=rules,
    )  # fmt: skip
    held: dict[str, float] = {}
    for fact in run.facts(Executed):
        held[fact.fill.instrument] = held.get(fact.fill.instrument, 0.0) + float(fact.fill.quantity)
        assert sum(q for i, q in held.items() if i != STOCK.id) >= 0
    assert all(q == 0 for i, q in held.items() if i != STOCK.id)
    assert hedger.figures(run.account.slots[0].view)["Overlay"]["sales by rule"] == 1.0


@pytest.mark.parametrize(
    ("rule", "prices", "vols", "day"),
    [
        (Monetise(at="multiple", level=4.0, share=0.5), [100.0] * 5 + [80.0] * 5, 0.25, 5),
        (Monetise(at="drop", level=0.15, share=0.5), [100.0] * 5 + [84.0] * 5, 0.25, 5),
        (Monetise(at="vol", level=0.40, share=0.5), [100.0] * 10, [0.25] * 6 + [0.45] * 4, 6),
        (Monetise(at="days", level=53.0, share=0.5), [100.0] * 10, 0.25, 7),
    ],
)
def test_each_rule_sells_its_share_once_when_its_level_is_reached(
    rule: Monetise, prices: list[float], vols: Any, day: int
) -> None:
    """Half is sold on the day the level is reached, never before, and not again."""
    run, _ = run_of(world(prices, vol=vols), days=len(prices) - 1, carry_bp=200.0, roll=60 * DAY, monetise=(rule,))
    quantity = bought(run)[0][2]
    assert [(d, q) for d, _, q in bought(run, sign=-1)] == [(day, -math.ceil(quantity / 2))]


def test_what_a_sale_brings_buys_new_strikes() -> None:
    """With `reinvest` a part of the money is spent at once on puts at the price of then."""
    prices = [100.0] * 5 + [80.0] * 5
    run, _ = run_of(
        world(prices),
        days=9,
        carry_bp=200.0,
        roll=60 * DAY,
        monetise=(Monetise(at="multiple", level=4.0),),
        reinvest=0.25,
    )
    strikes = [(day, run.universe.get(i).strike) for day, i, _ in bought(run)]  # type: ignore[union-attr]  # options only
    assert strikes == [(0, D(90)), (5, D(70))]
    fills = [f.fill for f in run.facts(Executed) if f.fill.instrument != STOCK.id]
    sold = next(float(-f.quantity * f.price) for f in fills if f.quantity < 0)
    again = float(next(f.quantity * f.price for f in reversed(fills) if f.quantity > 0))
    assert 0.2 * sold < again <= 0.25 * sold


def test_without_a_good_quote_it_waits_and_says_so() -> None:
    """No bid anywhere on the first two days: skipped with the reason, bought on the third."""
    run, hedger = run_of(world([100.0] * 6, blank=(0, 1)), days=5, carry_bp=200.0)
    assert [day for day, _, _ in bought(run)] == [2]
    assert any("no good quote" in fact.reason for fact in run.facts(Skipped))
    assert hedger.figures(run.account.slots[0].view)["Trading"]["purchases waited for"] == 2.0


def test_a_crash_pays_and_the_score_says_what_it_saved() -> None:
    """A fall of a fifth with ten per cent out of the money puts: the drawdown is less than the stock's by what they paid."""
    prices = [100.0] * 5 + [80.0] * 60
    run, hedger = run_of(world(prices), days=64, carry_bp=300.0, roll=100 * DAY)
    tail = hedger.figures(run.account.slots[0].view)["Tail"]
    assert tail["largest drawdown, stock alone"] == pytest.approx(0.2)
    assert tail["largest drawdown"] < 0.2
    paid = [f.event.value for s in run.journal.steps for f in s.facts if type(f).__name__ == "Ended"]
    assert paid == [D(10)]


def test_de_risking_holds_less_stock_by_the_same_expected_carry() -> None:
    """At 100 bp of carry and a premium of 4 per cent the plain alternative holds three quarters of the stock, no options."""
    run, hedger = run_of(world([100.0] * 12), days=11, method="de_risk", carry_bp=100.0, equity_premium=0.04)
    assert hedger.less_risk == pytest.approx(0.75)
    assert float(run.held()) == pytest.approx(75_000, rel=1e-3)
    assert not bought(run)


def test_the_owners_options_are_left_alone() -> None:
    """Puts the book brought stay, though the same contract is bought and sold on top."""
    own = next(item for item in PUTS if item.strike == 90 and round((item.expiry - START) / DAY) == 60)
    hedger = TailHedger(
        stock=STOCK.id, tenors=(60 * DAY,), roll=60 * DAY, carry_bp=200.0, monetise=(Monetise(at="drop", level=0.1),)
    )
    run = Bench(
        [hedger], instruments=[STOCK, *PUTS, *CALLS], tradable=[i.id for i in PUTS], valuation=IMPLIED,
        openings=[(own.id, 7)], end=START + 9 * DAY, report_grid=DAY, remark=DAY, jump_freeze=None,
    )  # fmt: skip
    run.account.ledger.book.add_cash("USD", D(1_000_000))
    run.play(world([100.0] * 5 + [85.0] * 5))
    assert [round(q) for _, _, q in bought(run)] and bought(run, sign=-1)
    assert run.held(own.id) == 7


def test_a_path_is_followed_as_a_plain_loop_follows_it() -> None:
    """Drawdown and the mean of the worst twentieth of months, on two hundred months of random returns."""
    rng = np.random.default_rng(3)
    path, run, months = [100.0], Run(worth=100.0, start=100.0, best=100.0, month=100.0), []
    for month in range(200):
        for day in range(3):
            path.append(path[-1] * float(np.exp(0.03 * rng.standard_normal())))
            run = run.moved(path[-1], len(path), month_over=day == 0 and month > 0)
        months.append(path[-1])
    returns = np.diff(np.log([100.0, *months[:-1]]))
    worst = np.sort(np.expm1(returns))[: math.floor(0.05 * len(returns))]
    assert run.cvar(len(returns)) == pytest.approx(-worst.mean())
    peak = np.array(list(itertools.accumulate(path, max)))
    assert run.drawdown == pytest.approx(float(np.max(1.0 - np.array(path) / peak)))


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"carry_bp": -1.0}, "carry_bp"),
        ({"roll": 0}, "roll"),
        ({"tenors": ()}, "tenors"),
        ({"moneyness": 0.0}, "moneyness"),
        ({"method": "put_spread", "short_moneyness": 0.95}, "short_moneyness"),
        ({"delta": 1.0}, "delta"),
        ({"reinvest": 1.5}, "reinvest"),
        ({"equity_premium": 0.0}, "equity_premium"),
        ({"stock_weight": -1.0}, "stock_weight"),
        ({"monetise": ({"at": "drop", "level": 0.0},)}, "level"),
        ({"monetise": ({"at": "drop", "level": 0.1, "share": 0.0},)}, "share"),
    ],
)
def test_a_hedge_that_could_not_be_one_is_refused(keys: dict[str, Any], word: str) -> None:
    """Each fault is named."""
    with pytest.raises(ValueError, match=word):
        TailHedger(stock=STOCK.id, **keys)
