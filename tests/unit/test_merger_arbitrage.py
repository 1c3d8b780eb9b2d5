"""Merger arbitrage: sizes by loss, hedges by odds, hears what becomes of deals, and ends flat whatever does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from adapters.scenario import DealScript, ScenarioFeed, ScenarioOptions, Underlying
from bot.core.events import Conversion, Corporate, FeedEvent, Notice
from bot.core.notices import DealNotice, notice_of
from bot.domain.deals import Collar
from bot.domain.instruments import Spot
from bot.engine.journal import Ordered, TargetSet
from bot.pricing import deal
from strategies.merger_arbitrage import Deal, MergerArbitrage
from tests.simulation.bench import DAY, MINUTE, START, Bench, quote

D = Decimal
TGT, ACQ, MKT = (Spot(id=f"SIM:{name}", tick=D("0.01"), lot=D(1)) for name in ("TGT", "ACQ", "MKT"))
HOUR = 60 * MINUTE
CLOSE = START + 100 * DAY
STOCK_DEAL: dict[str, Any] = {
    "target": TGT.id,
    "acquirer": ACQ.id,
    "ratio": 0.5,
    "expected_close": CLOSE,
    "break_price": 40.0,
    "beta": 0.8,
}


def run(
    found: Deal | Sequence[Deal],
    events: Sequence[FeedEvent],
    *,
    finish: bool = False,
    openings: Sequence[tuple[str, int]] = (),
    **keys: Any,
) -> Bench:
    deals = [found] if isinstance(found, Deal) else list(found)
    strategy = MergerArbitrage(deals=deals, **({"budget": 8_500.0} | keys))
    bench = Bench([strategy], instruments=[TGT, ACQ, MKT], needed=[], openings=openings, end=START + 60 * DAY)
    return bench.play(events, finish=finish)


def prices(
    at: int, *, target: float | None = 47.5, acquirer: float | None = 100.0, half: float = 0.0
) -> list[FeedEvent]:
    """A quote of each that has a price."""
    given = ((ACQ.id, acquirer), (TGT.id, target))
    return [quote(key, at, p - half, p + half) for key, p in given if p is not None]


def word(at: int, what: Any, **rest: Any) -> Notice:
    return notice_of(DealNotice(target=TGT.id, what=what, **rest), START + at)


def merged(at: int, *, cash: str = "0", ratio: str = "0.5") -> Corporate:
    into = (Conversion(TGT.id, ACQ.id, D(ratio)),) if D(ratio) else ()
    return Corporate(ts_recv=START + at, what="merger", instrument=TGT.id, cash=D(cash), conversions=into)


def test_it_buys_what_the_budget_can_lose_and_shorts_by_the_odds() -> None:
    """At 47.5 a break loses 7.5: 8,500 buys 1,133; p = .75 makes the hedge .75 x .5 + .25 x .8 x .4 = .455 a share."""
    bench = run(Deal(**STOCK_DEAL), [*prices(0), *prices(HOUR)])
    assert bench.held(TGT.id) == 1133
    assert bench.held(ACQ.id) == -round(1133 * 0.455)
    reasons = [f.reason for f in bench.facts(TargetSet)]
    assert "a break loses 7.5000 a share, budget 8,500" in reasons[0]
    assert all(reason.startswith("merger_arbitrage") for reason in reasons)


def test_an_acquirer_that_jumps_on_a_break_counts_into_the_loss() -> None:
    """A short of .455 at 100 that rises 10 % loses 4.55 more: 8,500 / 12.05 shares."""
    bench = run(Deal(**STOCK_DEAL, acquirer_jump=0.1), [*prices(0), *prices(HOUR)])
    assert bench.held(TGT.id) == int(8500 / 12.05)


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({"quantity": 300.0}, 300),
        ({"max_shares": 500.0}, 500),
        ({"budget": 750.0}, 100),
        ({"break_price": 47.5}, int(8500 / 0.475)),
    ],
)
def test_sizes_may_be_given_bounded_or_budgeted_apart(changes: dict[str, Any], shares: int) -> None:
    """A quantity is a quantity; a break that costs nothing is taken to cost 1 % of the price."""
    bench = run(Deal(**(STOCK_DEAL | changes)), [*prices(0), *prices(HOUR)])
    assert bench.held(TGT.id) == shares


def test_it_sells_when_the_loss_outgrows_the_budget_and_not_before() -> None:
    """Up to the slack of 10 % it stays; beyond it shares go until the loss fits."""
    bench = run(Deal(**STOCK_DEAL), [*prices(0), *prices(HOUR, target=48.0), *prices(2 * HOUR, target=48.1)])
    assert bench.held(TGT.id) == 1133  # 1133 x 8.1 = 9,177 < 9,350
    bench = run(Deal(**STOCK_DEAL), [*prices(0), *prices(HOUR, target=49.0), *prices(2 * HOUR, target=49.0)])
    assert bench.held(TGT.id) == int(8500 / 9.0)


def test_returns_open_and_close_a_deal() -> None:
    """It enters at 12 % a year, leaves below 5 %, and enters again."""
    keys = {"min_return": 0.12, "exit_return": 0.05}
    tau = 100 / 365
    assert float(deal.annualised(49.0, 50.0, tau)) < 0.12 < float(deal.annualised(48.0, 50.0, tau))
    bench = run(Deal(**STOCK_DEAL), [*prices(0, target=49.0), *prices(HOUR, target=49.0)], **keys)
    assert bench.held(TGT.id) == 0
    path = [49.0, 48.0, 48.5, 49.9, 49.9, 47.0, 47.0]
    events = [e for i, p in enumerate(path) for e in prices(i * HOUR, target=p)]
    stops = [2 * i + 2 for i in range(len(path))]
    held = [int(run(Deal(**STOCK_DEAL), events[:stop], **keys).held(TGT.id)) for stop in stops]
    assert held[0] == held[4] == 0
    assert held[2] == 1062
    assert held[6] == int(8500 / 7)


def test_the_acquirer_is_traded_by_its_band() -> None:
    """A hedge that drifted by less than the half width stays; beyond it goes to the centre."""
    small = run(Deal(**STOCK_DEAL), [*prices(0), *prices(HOUR, target=47.6)], half_width=60.0)
    assert small.held(ACQ.id) == -516
    far = run(
        Deal(**STOCK_DEAL), [*prices(0), *prices(HOUR, target=49.0), *prices(2 * HOUR, target=49.0)], half_width=60.0
    )
    h = float(deal.hedge_ratio(0.9, 0.5, beta=0.8, down=40.0, acquirer=100.0))
    assert far.held(ACQ.id) == -round(h * int(8500 / 9.0))


def test_a_break_unwinds_both_legs_at_once() -> None:
    """After the word both legs are flat at the next quotes, and nothing is bought again."""
    events = [
        *prices(0),
        *prices(HOUR),
        word(2 * HOUR, "broken", text="blocked"),
        *prices(3 * HOUR, target=40.0),
        *prices(4 * HOUR),
    ]
    bench = run(Deal(**STOCK_DEAL), events)
    assert (bench.held(TGT.id), bench.held(ACQ.id)) == (0, 0)
    assert {f.order.reason for f in bench.facts(Ordered)[-2:]} == {
        "merger_arbitrage: blocked",
        "merger_arbitrage: no deal is left to hedge with SIM:ACQ",
    }


def test_a_close_delivers_and_the_rest_of_the_hedge_goes() -> None:
    """Between word and exchange the hedge is the ratio; after it the delivered shares have covered it, to the last share."""
    events = [*prices(0), *prices(HOUR), word(2 * HOUR, "closed", ratio=0.5), *prices(3 * HOUR), *prices(4 * HOUR)]
    bench = run(Deal(**STOCK_DEAL), events)
    assert bench.held(ACQ.id) == -567  # half of 1133, half up
    bench = run(
        Deal(**STOCK_DEAL), [*events, merged(5 * HOUR), *prices(6 * HOUR, target=None), *prices(7 * HOUR, target=None)]
    )
    assert (bench.held(TGT.id), bench.held(ACQ.id)) == (0, 0)
    assert len(bench.facts(Ordered)) == 4  # two to open, one to the ratio, one share left over


def test_an_exchange_without_a_word_is_understood() -> None:
    """A merger that was never announced as closed still ends the deal."""
    bench = run(
        Deal(**STOCK_DEAL),
        [*prices(0), *prices(HOUR), merged(2 * HOUR), *prices(3 * HOUR, target=None), *prices(4 * HOUR, target=None)],
    )
    assert (bench.held(TGT.id), bench.held(ACQ.id)) == (0, 0)


def test_amended_terms_are_sized_and_hedged_anew() -> None:
    """From half a share to 30 in cash and .25: another offer, other odds, another hedge."""
    events = [
        *prices(0),
        word(HOUR, "amended", cash=30.0, ratio=0.25),
        *prices(2 * HOUR, target=50.0),
        *prices(3 * HOUR, target=50.0),
    ]
    bench = run(Deal(**STOCK_DEAL), events)
    p = (50.0 - 40.0) / (55.0 - 40.0)
    h = p * 0.25 + (1 - p) * 0.8 * 0.4
    assert bench.held(TGT.id) == 850
    assert float(bench.held(ACQ.id)) == pytest.approx(-850 * h, abs=0.5)


def test_word_that_cannot_be_is_an_alarm_and_changes_nothing() -> None:
    """An unreadable payload, another version, and a ratio without an acquirer."""
    cash = Deal(target=TGT.id, cash=50.0, expected_close=CLOSE, break_price=40.0)
    for bad in (
        Notice(ts_recv=START + HOUR, namespace="deal/1", payload=b'{"target": 3}'),  # type: ignore[arg-type]  # bytes do
        Notice(ts_recv=START + HOUR, namespace="deal/9"),
        word(HOUR, "amended", ratio=0.5),
    ):
        bench = run(cash, [*prices(0, target=47.5), bad, *prices(2 * HOUR)])
        assert "bad_notice" in bench.alarms()
        assert bench.held(TGT.id) == 1133


def test_word_of_another_deal_is_not_its_own() -> None:
    """A notice of a target it does not hold is nothing to it."""
    other = notice_of(DealNotice(target="SIM:OTHER", what="broken"), START + HOUR)
    assert run(Deal(**STOCK_DEAL), [*prices(0), other, *prices(2 * HOUR)]).held(TGT.id) == 1133


def test_a_break_price_may_follow_a_market() -> None:
    """Unaffected at 40 with a market beta of 1.5, the market 10 % up: 46, and the size follows."""
    found = Deal(
        target=TGT.id,
        cash=50.0,
        expected_close=CLOSE,
        unaffected=40.0,
        market=MKT.id,
        market_beta=1.5,
        market_start=100.0,
    )
    bench = run(found, [quote(MKT.id, 0, 110.0, 110.0), *prices(0, target=48.0), *prices(HOUR, target=48.0)])
    assert bench.held(TGT.id) == int(8500 / 2.0)
    silent = run(found, [*prices(0, target=48.0), *prices(HOUR, target=48.0)])
    assert silent.held(TGT.id) == 0
    assert "no price of SIM:MKT" in next(iter(silent.account.skips))


def test_an_offer_no_better_than_its_break_implies_nothing_and_trades_nothing() -> None:
    """Where the offer is worth no more than the break price nothing is known of the odds: a skip with its reason."""
    bench = run(Deal(**STOCK_DEAL), [*prices(0, acquirer=79.0), *prices(HOUR, acquirer=79.0)])
    assert bench.held(TGT.id) == 0
    assert "nothing is implied" in next(iter(bench.account.skips))


def test_two_deals_of_one_acquirer_share_its_hedge_and_one_that_is_blind_holds_it() -> None:
    """The short is the sum; while one target's quote is gone the acquirer is left alone, not half hedged."""
    other = Deal(target=MKT.id, acquirer=ACQ.id, ratio=0.25, expected_close=CLOSE, break_price=20.0, quantity=400.0)
    both = [*prices(0), quote(MKT.id, 0, 24.0, 24.0), *prices(HOUR), quote(MKT.id, HOUR, 24.0, 24.0)]
    bench = run([Deal(**STOCK_DEAL), other], both)
    short = 1133 * 0.455 + 400 * (0.8 * 0.25)
    assert float(bench.held(ACQ.id)) == pytest.approx(-short, abs=0.5)
    blind = run(
        [Deal(**STOCK_DEAL), other], [*both, quote(MKT.id, 2 * HOUR, None, 24.0), *prices(3 * HOUR, target=49.5)]
    )
    assert blind.held(ACQ.id) == bench.held(ACQ.id)


def test_a_collar_is_hedged_by_its_delta_and_vanishes_between() -> None:
    """Of a fixed value the hedge is the collar's own slope: little inside, the full shares far outside."""
    collar = Collar(kind="fixed_value", low=90.0, high=110.0, value=50.0)
    found = Deal(
        target=TGT.id,
        acquirer=ACQ.id,
        collar=collar,
        acquirer_vol=0.05,
        expected_close=CLOSE,
        break_price=40.0,
        quantity=1000.0,
    )
    inside = run(found, [*prices(0, target=50.0), *prices(HOUR, target=50.0)])
    outside = run(found, [*prices(0, target=27.7 + 10, acquirer=50.0), *prices(HOUR, target=27.7 + 10, acquirer=50.0)])
    assert abs(inside.held(ACQ.id)) < 20
    assert outside.held(TGT.id) == 0  # worth 27.8 in shares against a break price of 40: nothing is implied
    far = run(found, [*prices(0, target=80.0, acquirer=200.0), *prices(HOUR, target=80.0, acquirer=200.0)])
    p = (80.0 - 40.0) / (50.0 / 110.0 * 200.0 - 40.0)
    assert float(far.held(ACQ.id)) == pytest.approx(-1000 * p * 50.0 / 110.0, abs=1.0)


def test_the_session_ends_where_it_began() -> None:
    """What the book owned of either leg is there again, and nothing else."""
    bench = run(
        Deal(**STOCK_DEAL),
        [*prices(0), *prices(HOUR), *prices(59 * DAY), *prices(60 * DAY)],
        finish=True,
        openings=[(TGT.id, 50), (ACQ.id, 7)],
    )
    assert (bench.held(TGT.id), bench.held(ACQ.id)) == (50, 7)


def scripted(outcome: Any, seed: int, **terms: Any) -> tuple[Bench, float]:
    """A seeded deal of sixty days in which both legs move, hedged on each hour's quote; and what it may lose."""
    at = START + 40 * DAY
    options = ScenarioOptions(
        start=START,
        end=START + 60 * DAY,
        step=HOUR,
        seed=seed,
        underlyings=(Underlying(id=ACQ.id, spot=100.0, vol=0.35),),
        deals=(
            DealScript(
                target=TGT.id, acquirer=ACQ.id, break_price=40.0, beta=0.8, expected_close=at, outcome=outcome, at=at,
                probability=0.8, probability_end=0.98 if outcome == "close" else 0.6, **terms,
            ),
        ),
    )  # fmt: skip
    feed = ScenarioFeed(options)
    found = Deal(
        target=TGT.id, acquirer=ACQ.id, expected_close=at, unaffected=40.0, market=ACQ.id, market_beta=0.8,
        market_start=100.0, beta=0.8, **terms,
    )  # fmt: skip
    strategy = MergerArbitrage(deals=[found], budget=50_000.0)
    bench = Bench([strategy], instruments=[TGT, ACQ], needed=[], end=START + 60 * DAY, report_grid=DAY, remark=DAY)
    feed.bind(bench.universe)

    async def gather() -> list[FeedEvent]:
        return [event async for event in feed.events()]

    bench.play(asyncio.run(gather()))
    return bench, 50_000.0


@pytest.mark.parametrize("terms", [{"ratio": 0.5}, {"cash": 20.0, "ratio": 0.3}], ids=["stock", "mixed"])
def test_a_deal_that_closes_earns_its_spread_and_one_that_breaks_loses_its_budget(terms: dict[str, float]) -> None:
    """Over eight seeded paths each: closes earn, breaks lose, no more than the budget, its slack and a tenth for the path;
    everything is flat at the end."""
    for seed in range(8):
        closed, budget = scripted("close", seed, **terms)
        broken, _ = scripted("break", seed, **terms)
        for bench in (closed, broken):
            assert (bench.held(TGT.id), bench.held(ACQ.id)) == (0, 0)
        assert closed.pnl().total > 0
        assert -1.2 * budget < float(broken.pnl().total) < -0.3 * budget


def test_the_hedge_takes_the_acquirer_out_of_a_closing_deal() -> None:
    """Unhedged, what a closing stock deal earns follows the acquirer; hedged, a third of that spread is left."""
    hedged, bare = [], []
    for seed in range(12):
        bench, _ = scripted("close", seed, ratio=0.5)
        total = float(bench.pnl().total)
        table = bench.loop.sampler.table()
        path, held = table.prices[ACQ.id], [float(s.quantities.get(ACQ.id, 0)) for s in table.tracks["dynamic"].states]
        hedged.append(total)
        bare.append(total - float(np.sum(np.array(held[:-1]) * np.diff(path))))
    assert np.std(hedged) < np.std(bare) / 3.0


def test_its_figures_name_each_deal_and_its_odds() -> None:
    """Odds, spread, loss and hedge of an open deal; why and how it stood at its entry for one that is over."""
    bench = run(Deal(**STOCK_DEAL), [*prices(0), *prices(HOUR), *prices(60 * DAY)], finish=True)
    rows = bench.account.slots[0].figures[TGT.id]
    assert rows["implied probability"] == pytest.approx(0.75)
    assert rows["hedge ratio at entry"] == pytest.approx(0.455)
    over = run(
        Deal(**STOCK_DEAL), [*prices(0), *prices(HOUR), word(2 * HOUR, "broken"), *prices(3 * HOUR)], finish=True
    )
    ended = over.account.slots[0].figures[TGT.id]
    assert (ended["status"], ended["implied probability, least"]) == ("broken", pytest.approx(0.75))
    gauges = over.loop.sampler.table().gauges["dynamic", "merger_arbitrage", f"probability:{TGT.id}"]
    assert np.isnan(gauges[-1])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"deals": []}, "at least one"),
        ({"deals": [Deal(**STOCK_DEAL), Deal(**STOCK_DEAL)]}, "one target twice"),
        (
            {"deals": [Deal(**STOCK_DEAL), Deal(**(STOCK_DEAL | {"target": ACQ.id, "acquirer": MKT.id}))]},
            "a target too",
        ),
        ({"deals": [Deal(**STOCK_DEAL)], "budget": None}, "budget or a quantity"),
        ({"deals": [Deal(**STOCK_DEAL)], "min_return": 0.1, "exit_return": 0.2}, "exit_return"),
        ({"deals": [Deal(**STOCK_DEAL)], "slack": -1.0}, "slack"),
    ],
)
def test_a_table_that_means_nothing_is_refused(keys: dict[str, Any], message: str) -> None:
    """Contradictions are found when the strategy is made, in words."""
    with pytest.raises(ValueError, match=message):
        MergerArbitrage(**({"budget": 1000.0} | keys))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": 0.0}, "found none"),
        ({"acquirer": None}, "acquirer"),
        ({"break_price": None}, "neither"),
        ({"unaffected": 3.0}, "both"),
        ({"acquirer": TGT.id}, "itself"),
    ],
)
def test_a_deal_keeps_its_law(changes: dict[str, Any], message: str) -> None:
    """Terms without offer, payment or break price are no deal."""
    with pytest.raises(ValueError, match=message):
        Deal(**(STOCK_DEAL | changes))
