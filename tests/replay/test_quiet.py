"""Skipping with proof changes nothing: the same facts and samples with promises, without, and quote by quote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np
import pytest

from adapters.paper import Beyond, PaperOptions
from bot.core.quiet import QuietBox
from bot.domain.costs import BasisPoints
from bot.domain.instruments import Instrument, OptionContract, Universe
from bot.domain.market import Quote, QuoteBatch
from bot.engine.limits import LimitSettings
from bot.engine.marks import Marks
from bot.engine.scan import fences, scan_by_rows, scanner
from strategies.policies.delta_band import DeltaBand
from tests.simulation.bench import FIXED, IMPLIED, MINUTE, SECOND, START, STOCK, Bench, future, hedger, option

D = Decimal
FUTURE = future("CME:UNDH2024", multiplier=10)


class Unsure(DeltaBand):
    """The same band without the promise."""

    slack = None  # type: ignore[assignment]  # an optional port that is not offered


def contracts(rng: np.random.Generator) -> list[OptionContract]:
    strikes = rng.choice(np.arange(85, 116), size=int(rng.integers(1, 6)), replace=False)
    days = rng.choice([0.02, 0.2, 2, 9, 40], size=len(strikes))
    return [
        option(float(k), days=float(d), cp=1 if rng.random() < 0.5 else -1) for k, d in zip(strikes, days, strict=True)
    ]


def session(rng: np.random.Generator, universe: Universe, legs: Sequence[OptionContract], rows: int) -> QuoteBatch:
    """Quotes of the stock, the future and the options in random order, some sides withdrawn, several an instant."""
    ts = START + np.cumsum(rng.choice([0, 1, 1, 3, 20], size=rows)) * SECOND // 2
    walk = 100.0 * np.exp(np.cumsum(rng.standard_normal(rows)) * float(rng.choice([2e-5, 2e-4, 1e-3])))
    which: list[Instrument] = [STOCK, STOCK, STOCK, FUTURE, *legs]
    picks = rng.integers(0, len(which), rows)
    picks[: len(which)] = np.arange(len(which))
    price = np.round(walk, 2)
    for j, leg in enumerate(legs, start=4):
        inside = np.maximum(leg.cp * (walk - float(leg.strike)), 0.0)
        price = np.where(picks == j, np.round(inside + 1.0 + 0.1 * rng.random(rows), 2), price)
    bid, ask = price - 0.01, price + 0.01
    gone = rng.random(rows) < 0.003
    bid = np.where(gone, np.nan, bid)
    size = rng.choice([3.0, 50.0, 5000.0], size=rows).astype(np.float32)
    index = np.array([universe.index(item.id) for item in which], dtype=np.int32)[picks]
    return QuoteBatch(instrument=index, ts_event=ts, ts_recv=ts, bid=bid, ask=ask, bid_size=size, ask_size=size)


def played(seed: int, make: Callable[..., DeltaBand], *, by_quote: bool = False, batch: int = 500) -> Bench:
    """A random book, band, market, latency and set of limits, all told by the seed."""
    rng = np.random.default_rng(seed)
    legs = contracts(rng)
    openings = [(leg.id, int(q)) for leg, q in zip(legs, rng.integers(-30, 31, len(legs)), strict=True) if q]
    if not openings:
        openings = [(legs[0].id, 5)]
    width = float(rng.choice([0.5, 5.0, 40.0, 400.0]))
    on_future = rng.random() < 0.3
    instrument = FUTURE.id if on_future else STOCK.id
    latency = int(rng.choice([0, 0, 1, 40])) * SECOND // 4
    beyond: Beyond = "partial" if rng.random() < 0.5 else "ignore"
    run = Bench(
        [hedger(make(half_width=width, to="edge" if rng.random() < 0.5 else "centre"), instrument=instrument)],
        instruments=[STOCK, FUTURE, *legs],
        openings=openings,
        valuation=IMPLIED if rng.random() < 0.5 else FIXED,
        paper=PaperOptions(latency=latency, beyond=beyond, commissions={"*": BasisPoints(bp=D(1))}),
        checks=LimitSettings(max_order_quantity=D(200)) if rng.random() < 0.3 else None,
        needed=[instrument],
        end=START + 40 * MINUTE,
        seed=seed,
    )
    if by_quote:
        run.loop.bus.subscribe(Quote, lambda _: None, serves="watcher")
    rows = session(rng, run.universe, legs, 3000)
    for start in range(0, len(rows), batch):
        run.loop.take(rows.rows(start, min(start + batch, len(rows))), "bench")
    run.loop.finish()
    return run


def told(run: Bench) -> tuple[str, list[int], list[int]]:
    """The digest of all facts, the instants of all samples, and of all steps with the rows they had seen."""
    seen = [value for step in run.journal.steps for value in (step.ts, step.tape)]
    return run.journal.facts_digest.hexdigest(), list(run.loop.sampler.instants), seen


@pytest.mark.parametrize("seed", range(60))
def test_promises_change_no_fact_and_no_sample(seed: int) -> None:
    """With boxes, without, and with a subscriber that sees every quote, a random run is the same step by step."""
    plain = told(played(seed, Unsure))
    assert told(played(seed, DeltaBand)) == plain
    assert told(played(seed, DeltaBand, by_quote=True)) == plain
    assert told(played(seed, DeltaBand, batch=77)) == plain


def test_most_quotes_wake_nobody() -> None:
    """In a calm market the band hedger looks at a few of thousands of quotes."""
    woken = []

    class Counted(DeltaBand):
        def stays(self, want: float, held: float, per_contract: float) -> bool:
            woken.append(1)
            return super().stays(want, held, per_contract)

    leg = option(100, days=30)
    run = Bench([hedger(Counted(half_width=50.0))], instruments=[STOCK, FUTURE, leg], openings=[(leg.id, 10)])
    rng = np.random.default_rng(1)
    n = 20_000
    ts = START + np.arange(n) * SECOND // 100
    mid = np.round(100.0 * np.exp(np.cumsum(rng.standard_normal(n)) * 1e-6), 2)
    index = np.full(n, run.universe.index(STOCK.id), dtype=np.int32)
    size = np.full(n, 100, dtype=np.float32)
    batch = QuoteBatch(
        instrument=index, ts_event=ts, ts_recv=ts, bid=mid - 0.01, ask=mid + 0.01, bid_size=size, ask_size=size
    )
    run.play([batch])
    assert 0 < len(woken) < 300


@pytest.mark.parametrize("seed", range(30))
def test_the_compiled_scan_is_the_plain_one(seed: int) -> None:
    """Both stop at the same row and leave the same marks."""
    rng = np.random.default_rng(seed)
    legs = contracts(rng)
    universe = Universe([STOCK, FUTURE, *legs])
    rows = session(rng, universe, legs, 400)
    box = {universe.index(STOCK.id): (199.9, 200.1), universe.index(FUTURE.id): (-np.inf, np.inf)}
    around = fences(
        [QuietBox(2**62, box), None, QuietBox(2**62, {universe.index(STOCK.id): (190.0, 200.05)})], len(universe)
    )
    until = int(rows.ts_recv[int(rng.integers(1, 400))])
    for start in (0, 5, 200, 399):
        fast, slow = Marks(universe), Marks(universe)
        stop = scanner()(rows, start, fast, around, until)
        assert stop == scan_by_rows(rows, start, slow, around, until)
        fast.fold_quotes(rows, start, stop)  # what it folded of the instant it stopped before is folded by the loop
        if stop < len(rows):
            k = rows.ts_recv == rows.ts_recv[stop]
            for marks in (fast, slow):
                marks.fold_quotes(rows, int(np.flatnonzero(k)[0]), int(np.flatnonzero(k)[-1]) + 1)
        for mine, theirs in zip(fast.columns(), slow.columns(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
