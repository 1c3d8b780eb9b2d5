"""Long runs: contracts listed on the way, samples that keep what was held, interest without a grid, years before 1970."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest

from bot.core.events import FeedEvent, Reference, Target
from bot.core.ports import StrategyView
from bot.domain.units import parse_instant
from bot.engine import attribution
from bot.engine.journal import Ended, Executed
from bot.pricing.black import bsm
from tests.simulation.bench import DAY, IMPLIED, MINUTE, START, STOCK, Bench, Script, option, quote

D = Decimal
STRIP = [option(95 + i % 3, days=2 + 2 * (i // 3), cp=-1) for i in range(96)]
"""Ninety-six puts, three every second day: more than are valued all at once."""


class Watcher(Script):
    """Notes which contracts the chain shows each time it is woken."""

    def __init__(self) -> None:
        super().__init__(ticks=True)
        self.shown: list[tuple[int, int]] = []

    def wake(self, view: StrategyView) -> Sequence[Target]:
        self.shown.append(((view.now - START) // MINUTE, len(view.chain(STOCK.id).ids)))
        return ()


def test_a_listed_contract_is_in_the_chain_from_its_listing_on_and_ends_like_any_other() -> None:
    """Nothing before; after it is quoted, can be bought, and settles."""
    put = option(101, days=1, cp=-1)
    watcher = Watcher()
    events: list[FeedEvent] = [quote(STOCK.id, i * MINUTE, 99.9, 100.1) for i in range(6)]
    events.insert(3, Reference(ts_recv=START + 3 * MINUTE, what="listed", instrument=put.id, definition=put))
    run = Bench([watcher], instruments=[STOCK, put])
    run.loop.lists = True
    run.play(events, finish=False)
    assert run.valuation.slice(STOCK.id).rows.keys() == {put.id}
    assert [count for _, count in watcher.shown] == [0, 0, 1, 1][: len(watcher.shown)]

    buyer = Bench([Script([(4 * MINUTE, put.id, 1)])], instruments=[STOCK, put], end=START + 2 * DAY)
    buyer.loop.lists = True
    asked = quote(put.id, 3 * MINUTE, 1.0, 1.2)
    buyer.play([*events[:4], asked, *events[4:]])
    assert len(buyer.facts(Executed)) == 1
    assert [f.event.value for f in buyer.facts(Ended)] == [D(1)]


def test_a_listing_nobody_may_choose_from_changes_nothing() -> None:
    """Where no strategy picks options the contract is not valued."""
    put = option(101, days=1, cp=-1)
    run = Bench([Script()], instruments=[STOCK, put])
    run.play([quote(STOCK.id, 0, 99.9, 100.1), Reference(ts_recv=START + MINUTE, what="listed", instrument=put.id)])
    assert not run.valuation.slices


def strip_run() -> Bench:
    """Each put of the strip held for a day or two, one bought as another is sold."""
    plan = [(i * DAY // 2 + MINUTE, STRIP[min(i, 95)].id, 3) for i in range(60)]
    plan += [(i * DAY // 2 + DAY // 3 + MINUTE, STRIP[i].id, 0) for i in range(0, 60, 2)]
    rng = np.random.default_rng(1)
    prices = 100.0 * np.exp(np.cumsum(0.01 * rng.standard_normal(129)))
    events: list[FeedEvent] = []
    for i, price in enumerate(prices):
        at = i * DAY // 4
        events.append(quote(STOCK.id, at, price - 0.01, price + 0.01))
        for item in STRIP:
            tau = (item.expiry - START - at) / (365 * DAY)
            if tau > 0:
                value = float(bsm(price, float(item.strike), tau, 0.2, cp=-1).price)
                events.append(quote(item.id, at, max(value - 0.01, 0.001), value + 0.012))
    run = Bench(
        [Script(plan)], instruments=[STOCK, *STRIP], tradable=[item.id for item in STRIP], valuation=IMPLIED,
        end=START + 32 * DAY, report_grid=DAY // 4, remark=DAY // 4,
    )  # fmt: skip
    return run.play(events)


def test_samples_keep_of_a_chain_what_was_held_and_the_terms_are_those_of_all_at_once() -> None:
    """Attribution in blocks equals attribution over the whole rectangle, term by term, and sums to the P&L."""
    run = strip_run()
    table = run.loop.sampler.table()
    part = table.parts[STOCK.id]
    track = table.tracks["dynamic"]
    ever = {key for state in track.states for key in state.quantities if key != STOCK.id}
    assert set(part.rows) == ever and len(ever) > attribution.ONE_BLOCK - 20
    assert table.vols[STOCK.id].shape == (len(table.instants), len(ever))
    count = len(table.instants) - 1
    spot = run.loop.sampler.spot_path(STOCK.id)
    blocks = attribution._blocks(track, part, count)
    weights = np.zeros((count, len(part.contracts)))
    for i in range(count):
        for key, quantity in track.states[i].quantities.items():
            if key in part.rows:
                weights[i, part.rows[key]] = float(quantity) * 100.0
    assert np.array_equal(weights, _spread(blocks, weights.shape))
    whole = attribution.Block(slice(0, count), np.arange(len(part.contracts)), weights)
    broken = np.zeros(count, dtype=bool)
    at_once = attribution._block_terms(table, STOCK.id, spot, run.valuation, whole, broken)
    parts: dict[str, np.ndarray] = {name: np.zeros(count) for name in at_once}
    for block in split(whole):
        for name, values in attribution._block_terms(table, STOCK.id, spot, run.valuation, block, broken).items():
            parts[name][block.span] += values
    for name, values in at_once.items():
        assert parts[name] == pytest.approx(values, abs=1e-9), name
    intervals = attribution.attribute(table, "dynamic", run.valuation, run.universe, {STOCK.id: spot}, run.loop.convert)
    assert sum(getattr(intervals.sum(), name) for name in attribution.TERMS) == pytest.approx(
        float(run.pnl().total), abs=1e-6
    )


def split(whole: attribution.Block) -> list[attribution.Block]:
    """The blocks that a long chain is cut into: a run of intervals for each set of contracts held together."""
    found, start = [], 0
    held = whole.weights != 0.0
    for stop in range(1, len(held) + 1):
        if stop == len(held) or not np.array_equal(held[stop], held[start]):
            rows = np.flatnonzero(held[start])
            if rows.size:
                found.append(attribution.Block(slice(start, stop), rows, whole.weights[start:stop, rows]))
            start = stop
    return found


def _spread(blocks: Sequence[attribution.Block], shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(shape)
    for block in blocks:
        out[block.span, block.rows] = block.weights
    return out


@pytest.mark.parametrize("grid", [DAY, 7 * DAY])
def test_continuous_interest_is_the_exponential_whatever_the_grid(grid: int) -> None:
    """Cash of a thousand at 10% for 28 days is 1000 exp(0.1 x 28 / 365), to the rounding of each booking."""
    events = [quote(STOCK.id, i * DAY, 99.99, 100.01) for i in range(29)]
    run = Bench([Script()], financing_rate=0.10, compounding="continuous", report_grid=grid, end=START + 28 * DAY)
    run.account.ledger.book.add_cash("USD", D(1000))
    run.play(events)
    assert float(run.pnl().financing) == pytest.approx(1000 * math.expm1(0.1 * 28 / 365), abs=1e-6)


def test_worth_counts_interest_that_is_not_booked_yet_and_a_fill_books_it() -> None:
    """Between two samples the worth has grown already; a trade half way splits the time, not the sum."""
    keys = {"financing_rate": 0.10, "compounding": "continuous", "report_grid": 28 * DAY}
    run = Bench([Script([(14 * DAY, STOCK.id, 5)])], **keys)
    run.account.ledger.book.add_cash("USD", D(1000))
    run.play([quote(STOCK.id, i * DAY, 100.0, 100.0) for i in range(22)], finish=False)
    half = 1000 * math.exp(0.1 * 14 / 365)
    now = (half - 500) * math.exp(0.1 * 7 / 365) + 500
    assert float(run.account.equity(START + 21 * DAY) or 0) == pytest.approx(now, abs=1e-6)
    view = run.account.slots[0].view
    assert view.paid()["interest"] == pytest.approx(half - 1000, abs=1e-6)


def test_a_run_may_lie_before_1970() -> None:
    """Quotes of 1950 are folded, met by orders and sampled like any others."""
    shift = parse_instant("1950-01-03T21:00:00Z") - START

    def buy(view: StrategyView) -> Sequence[Target]:
        return [script.want(STOCK.id, 3)]

    script = Script([], ticks=True, on_wake=buy)
    run = Bench([script], start=START + shift, report_grid=MINUTE)
    run.account.ledger.book.add_cash("USD", D(1000))
    run.play([quote(STOCK.id, shift + i * MINUTE, 99.99, 100.01) for i in range(5)])
    assert run.held() == 3
    assert [f.fill.price for f in run.facts(Executed)] == [D("100.01")]
    assert (np.diff(run.loop.sampler.table().instants) >= 0).all()
