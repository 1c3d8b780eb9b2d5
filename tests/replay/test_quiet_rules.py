"""Skipping with proof changes nothing, whatever the rule: random books of every policy play the same, awake and asleep.

`EVENKEEL_RUNS` asks for more of them than the suite has time for.
"""

from __future__ import annotations

import os

import msgspec
import numpy as np
import pytest

from bot.core.ports import Hedge
from bot.domain.market import Quote, QuoteBatch
from bot.engine.valuation import ValuationSettings
from strategies.delta_hedger import DeltaHedger
from tests.replay.random_runs import RULES, Counting, Sleepless, drawn, played, policy_of, told
from tests.simulation.bench import SECOND, START, STOCK, Bench, option

RUNS = int(os.environ.get("EVENKEEL_RUNS", "5"))
SLOW = {"exact", "guarded", "exact_waiting", "bartlett"}
"""Rules that solve, or shape deltas by a smile: a run of theirs costs as much as many others."""
STEADY = ("delta_band", "whalley_wilmott", "zakamouline", "fixed_fee", "move", "deviations", "pin_freeze", "pin_half")


@pytest.mark.parametrize("rule", RULES)
def test_promises_change_no_fact_and_no_sample(rule: str) -> None:
    """With promises, without, in other batches and under the eyes of a subscriber a run of this rule is the same."""
    for seed in range(max(RUNS // 5, 1) if rule in SLOW else RUNS):
        case = drawn(seed, rows=250 if rule in SLOW else 700, rule=rule, early=False)
        plain = told(played(case, Sleepless))
        assert told(played(case, DeltaHedger, batch=77 if seed % 2 else 500)) == plain, seed
        if seed == 0:
            assert told(played(case, DeltaHedger, by_quote=True)) == plain


@pytest.mark.parametrize("rule", ["delta_band", "whalley_wilmott", "fixed_fee", "move", "pin_half"])
def test_promises_change_nothing_with_early_exercise(rule: str) -> None:
    """The same where American legs are answered from cells."""
    for seed in range(max(RUNS // 3, 1)):
        case = drawn(seed, rows=300, rule=rule, early=True)
        assert told(played(case, DeltaHedger)) == told(played(case, Sleepless)), seed


def calm_day(
    policy_name: str, kind: type[DeltaHedger], *, early: bool = False, live: bool = False, rows: int = 4000
) -> tuple[Bench, DeltaHedger]:
    """A quiet market and a small book, whose hedger is given room enough."""
    legs = [option(float(k), days=d, cp=c) for k, d, c in ((95, 30, -1), (100, 60, 1), (105, 20, -1))]
    if early:
        legs = [msgspec.structs.replace(leg, style="american") for leg in legs]
    policy = policy_of(np.random.default_rng(3), policy_name)
    strategy = kind(hedges=[Hedge(underlying=STOCK.id, instrument=STOCK.id, cost=1e-4)], policy=policy)
    run = Bench(
        [strategy],
        instruments=[STOCK, *legs],
        openings=[(leg.id, q) for leg, q in zip(legs, (-20, 10, -15), strict=True)],
        valuation=ValuationSettings(
            pricer="american" if early else "european", vol="fixed", vol_value=0.2, rate=0.05, dividend=0.03
        ),
    )
    rng = np.random.default_rng(1)
    ts = START + np.arange(rows) * SECOND // 10
    mid = np.round(100.0 * np.exp(np.cumsum(rng.standard_normal(rows)) * 2e-6), 3)
    index = np.full(rows, run.universe.index(STOCK.id), dtype=np.int32)
    size = np.full(rows, 100, dtype=np.float32)
    quotes = QuoteBatch(
        instrument=index, ts_event=ts, ts_recv=ts, bid=mid - 0.01, ask=mid + 0.01, bid_size=size, ask_size=size
    )
    return (run.play([quotes]) if not live else live_play(run, quotes)), strategy


def live_play(run: Bench, quotes: QuoteBatch) -> Bench:
    """The quotes as a live feed gives them: one at a time, each the whole of its instant."""
    columns = (quotes.ts_recv, quotes.bid, quotes.ask, quotes.bid_size, quotes.ask_size)
    for ts, bid, ask, bid_size, ask_size in zip(*(column.tolist() for column in columns), strict=True):
        quote = Quote(
            instrument=STOCK.id, ts_event=ts, ts_recv=ts, bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size
        )
        run.loop.take(quote, "bench")
        run.loop.close_open_instant()
    run.loop.finish()
    return run


@pytest.mark.parametrize("rule", STEADY)
def test_a_quiet_market_wakes_a_steady_rule_for_few_of_its_quotes(rule: str) -> None:
    """Each rule that gives promises is woken for less than a tenth of the quotes, and does the same."""
    quiet, strategy = calm_day(rule, Counting)
    assert isinstance(strategy, Counting)
    assert strategy.woken < 400
    assert told(quiet) == told(calm_day(rule, Sleepless)[0])


def test_a_quiet_market_wakes_a_hedger_of_american_options_for_few_of_its_quotes() -> None:
    """The cells that answer for American legs give promises too."""
    quiet, strategy = calm_day("delta_band", Counting, early=True)
    assert isinstance(strategy, Counting)
    assert strategy.woken < 400
    assert told(quiet) == told(calm_day("delta_band", Sleepless, early=True)[0])


@pytest.mark.parametrize("rule", ["delta_band", "whalley_wilmott", "fixed_fee"])
def test_a_live_feed_is_held_against_the_same_boxes(rule: str) -> None:
    """Quotes taken one at a time wake few, and lead to the same facts as a batch."""
    live, strategy = calm_day(rule, Counting, live=True)
    assert isinstance(strategy, Counting)
    assert strategy.woken < 400
    assert told(live)[0] == told(calm_day(rule, Sleepless)[0])[0]
