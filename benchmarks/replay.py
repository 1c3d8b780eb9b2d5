"""The replay job: a seeded day of quotes, ten options, one hedger, three accounts; law: the fills are a plain loop's.

Workload: a seeded GBM path of one stock, one quote a second, tick 0.01, spread one tick, sizes above any order; a book of
ten European options at fixed vols; when |net delta + held| > band a market order brings it to zero, rounded to a share, and
fills at the touch at `--fee-bps` of notional. Three accounts (dynamic, static, none) run beside each other; the journal is
chained and written to a file at level `replay`; the limits are on; re-marks and the report grid come once an hour. `run_s`
begins with the first quote and ends when the journal's last byte is synced; `run_cpu_s` counts all threads.

    python benchmarks/replay.py [--ticks N] [--seed N] [--band X] [--fee-bps X] [--fills FILE]
                                [--path quiet|per-tick|noop] [--no-shadow] [--options N] [--live-vols] [--check]

Prints one JSON object. `--check` compares the fills with a plain loop over the same arrays.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import Target
from bot.core.ports import Hedge, Strategy, StrategyView
from bot.core.quiet import QuietBox
from bot.domain.costs import BasisPoints
from bot.domain.instruments import OptionContract, Spot, Universe, occ_id
from bot.domain.market import QuoteBatch
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND, nanos
from bot.engine import limits
from bot.engine.account import Account
from bot.engine.journal import Executed, Header, JournalWriter
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.valuation import Valuation, ValuationSettings, VolMark
from bot.pricing import black
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge

STOCK = "US:UND"
START = nanos(datetime(2024, 1, 1, tzinfo=UTC))
HOUR = 60 * NS_PER_MINUTE
SPOT, VOL, TICK = 500.0, 0.20, 0.01
MONEYNESS = (0.90, 0.94, 0.97, 0.99, 1.00, 1.00, 1.01, 1.03, 1.06, 1.10)
DAYS = (45, 60, 30, 45, 30, 90, 30, 45, 60, 90)
LOTS = (-20, 30, -40, 50, -60, 60, -50, 40, -30, 20)
VOLS = (0.26, 0.24, 0.22, 0.21, 0.20, 0.20, 0.19, 0.19, 0.18, 0.18)
CALLS = (False, False, False, False, True, False, True, True, True, True)
BATCH = 1 << 16
LIMITS = limits.LimitSettings(
    max_order_quantity=Decimal(10_000),
    max_order_notional=Decimal(10_000_000),
    max_position=Decimal(100_000),
    max_open_orders=10,
    stale_after=60 * NS_PER_SECOND,
)


def pieces(count: int, seed: int, rows: int = BATCH, *, options: int = 10) -> Iterator[QuoteBatch]:
    """The seeded day's quotes, some at a time; sizes lie above any order, as the peer's do, from a generator of their own."""
    walk, sizes = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    dt = 1.0 / (365.0 * 86_400.0)
    so_far = 0.0
    for start in range(0, count, rows):
        n = min(rows, count - start)
        steps = walk.standard_normal(n) * (VOL * math.sqrt(dt)) - 0.5 * VOL * VOL * dt
        steps[0] += so_far  # a running sum, to the bit that of the whole path
        path = np.cumsum(steps)
        so_far = path[-1]
        cents = np.floor(SPOT * np.exp(path) / TICK).astype(np.int64)
        ts = START + np.arange(start, start + n, dtype=np.int64) * NS_PER_SECOND
        yield QuoteBatch(
            instrument=np.full(n, options, dtype=np.int32),  # the options sort before the stock
            ts_event=ts,
            ts_recv=ts,
            bid=cents / 100.0,
            ask=(cents + 1) / 100.0,
            bid_size=sizes.integers(100, 400, n).astype(np.float32) * np.float32(100.0),
            ask_size=sizes.integers(100, 400, n).astype(np.float32) * np.float32(100.0),
        )


def quotes(count: int, seed: int) -> QuoteBatch:
    """The whole day's quotes."""
    return next(pieces(count, seed, count))


class Held(NamedTuple):
    """One option of the book: the contract, how many, and its vol."""

    contract: OptionContract
    quantity: int
    vol: float


def book(options: int = 10) -> list[Held]:
    """The ten options; beyond ten as many as asked for, with other strikes and a tenth as large."""
    made: list[Held] = []
    for i in range(options):
        j, round_ = i % 10, i // 10
        expiry = START + DAYS[j] * NS_PER_DAY
        moneyness = MONEYNESS[j] + 0.0001 * round_
        strike = Decimal(str(round(moneyness * SPOT, 3)))
        made.append(
            Held(
                OptionContract(
                    id=occ_id(f"U{i}", date(2024, 1, 1) + timedelta(days=DAYS[j]), 1 if CALLS[j] else -1, strike),
                    underlying=STOCK,
                    cp=1 if CALLS[j] else -1,
                    strike=strike,
                    style="european",
                    settlement="cash",
                    multiplier=Decimal(100) * 10 / options if options > 10 else Decimal(100),
                    lot=Decimal(1),
                    last_trade=expiry,
                    expiry=expiry,
                    settles=expiry,
                ),
                LOTS[j],
                VOLS[j],
            )
        )
    return made


class Empty:
    """A strategy that is woken at every quote and does nothing."""

    name, book = "empty", "main"

    def start(self, view: StrategyView) -> Sequence[Target]:
        return ()

    def wake(self, view: StrategyView) -> Sequence[Target]:
        return ()

    def timer(self, view: StrategyView, name: str) -> Sequence[Target]:
        return ()

    def stop(self, view: StrategyView) -> Sequence[Target]:
        return ()

    def quiet(self, view: StrategyView) -> QuietBox | None:
        return None

    def watches(self) -> Sequence[str]:
        return (STOCK,)

    def trades(self) -> Sequence[str]:
        return ()


class Hedger(DeltaHedger):
    """The product's hedger, which counts how often it was woken; without promises when it gives none."""

    def __init__(self, *, band: float, promises: bool) -> None:
        super().__init__(
            hedges=[Hedge(underlying=STOCK, instrument=STOCK)], policy=DeltaBand(half_width=band, to="centre")
        )
        self.woken = 0
        self._promises = promises

    def wake(self, view: StrategyView) -> Sequence[Target]:
        self.woken += 1
        return super().wake(view)

    def quiet(self, view: StrategyView) -> QuietBox | None:
        return super().quiet(view) if self._promises else None


def build(
    path: str,
    journal: JournalWriter,
    *,
    band: float,
    fee_bps: float,
    shadows: bool = True,
    live_minutes: int = 0,
    options: int = 10,
) -> Loop:
    """A run of the workload, wired by hand as the application wires it; `live_minutes` of re-marks at moving vols."""
    stock = Spot(id=STOCK, tick=Decimal("0.01"), lot=Decimal(1))
    held = book(options)
    universe = Universe([stock, *(leg.contract for leg in held)])
    marks = Marks(universe)
    vols = {leg.contract.id: leg.vol for leg in held}
    moving = tuple(
        VolMark(ts=START + minute * NS_PER_MINUTE, instrument=key, vol=vol * (1.0 + 0.02 * math.sin(minute / 30.0)))
        for minute in range(live_minutes)
        for key, vol in vols.items()
    )
    vols_of = (
        ValuationSettings(vol="marks_file", vol_marks=moving)
        if moving
        else ValuationSettings(vol="per_contract", vols=vols)
    )
    valuation = Valuation(universe, marks, vols_of)
    hedges = [Hedge(underlying=stock.id, instrument=stock.id)]
    strategies: dict[str, Strategy] = {
        "dynamic": Empty() if path == "noop" else Hedger(band=band, promises=path == "quiet")
    }
    if shadows:
        strategies["static"] = DeltaHedger(hedges=hedges, policy=StaticHedge())
        strategies["none"] = DeltaHedger(hedges=hedges, policy=NoHedge())
    accounts: list[Account] = []
    for name, strategy in strategies.items():
        broker = PaperBroker(PaperOptions(commissions={"*": BasisPoints(bp=Decimal(str(fee_bps)))}))
        broker.attach(universe, marks, name)
        accounts.append(
            Account(
                name,
                universe=universe,
                marks=marks,
                valuation=valuation,
                broker=broker,
                strategies=[strategy],
                checks=limits.build(LIMITS),
            )
        )
    return Loop(
        settings=LoopSettings(
            start=START,
            end=None,
            begin="immediate",
            remark=NS_PER_MINUTE if live_minutes else HOUR,
            report_grid=HOUR,
        ),
        universe=universe,
        marks=marks,
        valuation=valuation,
        accounts=accounts,
        openings=[Opening(book="main", instrument=leg.contract.id, quantity=Decimal(leg.quantity)) for leg in held],
        needed=[stock.id],
        journal=journal,
    )


def plain_fills(batch: QuoteBatch, band: float) -> list[tuple[int, int, float]]:
    """(ts, signed quantity, price) of a plain loop: hedge to zero when |net delta + held| > band."""
    legs = book()
    packed = black.pack_slice(
        strike=[float(leg.contract.strike) for leg in legs],
        expiry=np.array([leg.contract.expiry for leg in legs]),
        vol=VOLS,
        cp=[leg.contract.cp for leg in legs],
        weight=[q * 100.0 for q in LOTS],
        epoch=START,
    )
    kernel = black.slice_kernel()
    held, out = 0, []
    rows = zip(batch.ts_recv.tolist(), batch.bid.tolist(), batch.ask.tolist(), strict=True)
    for ts, bid, ask in rows:
        delta, _ = kernel(0.5 * (bid + ask), ts - START, packed, 0.0, 0.0)
        gap = delta + held
        if abs(gap) > band:
            target = -math.floor(delta + 0.5) if delta >= 0 else math.floor(-delta + 0.5)
            quantity = target - held
            out.append((ts, quantity, ask if quantity > 0 else bid))
            held = target
    return out


def peak_rss_mb() -> float:
    """The most memory the process has held, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _play(
    args: argparse.Namespace, batches: Iterator[QuoteBatch], path: Path, clock: list[float] | None = None
) -> tuple[float, float, Loop, list[Executed], JournalWriter]:
    """Wall and processor seconds of one replay to a journal at `path`, and what it left."""
    sink: list[Executed] = []
    header = Header(run_id="bench", config_hash="", release="", durability="replay")
    with JournalWriter(path, header) as journal:
        loop = build(
            args.path,
            journal,
            band=args.band,
            fee_bps=args.fee_bps,
            shadows=not args.no_shadow,
            live_minutes=1 + args.ticks // 60 if args.live_vols else 0,
            options=args.options,
        )
        loop.bus.subscribe(Executed, _watch(sink, clock), serves="benchmark")
        making = [0.0, 0.0]  # the path is made piece by piece while it is played, and that time taken off
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in _timed(batches, making):
            loop.take(batch, "bench")
        loop.finish()
    wall, cpu = time.perf_counter() - wall - making[0], time.process_time() - cpu - making[1]
    return wall, cpu, loop, sink, journal


def _watch(sink: list[Executed], clock: list[float] | None) -> Callable[[Executed], None]:
    """Keeps fills, and with `clock` the processor time at which each was booked."""
    if clock is None:
        return sink.append

    def note(fill: Executed) -> None:
        sink.append(fill)
        clock.append(time.process_time())

    return note


def early_and_late(clock: list[float]) -> dict[str, float]:
    """Median microseconds between fills of the 1,000th to the 11,000th, and of the last 10,000."""
    steps = np.diff(clock) * 1e6
    return {
        "early_us": round(float(np.median(steps[1_000:11_000])), 2),
        "late_us": round(float(np.median(steps[-10_000:])), 2),
    }


def _timed(batches: Iterator[QuoteBatch], spent: list[float]) -> Iterator[QuoteBatch]:
    """The same, with the wall and processor seconds it takes to make them added up in `spent`."""
    while True:
        wall, cpu = time.perf_counter(), time.process_time()
        batch = next(batches, None)
        spent[0] += time.perf_counter() - wall
        spent[1] += time.process_time() - cpu
        if batch is None:
            return
        yield batch


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One replay: seconds, fills, memory."""
    _play(
        args, pieces(2_000, args.seed, options=args.options), folder / "warm"
    )  # what is loaded and compiled once is no part of a replay
    path = folder / "journal"
    clock: list[float] | None = [] if args.drift else None
    wall, cpu, loop, sink, journal = _play(args, pieces(args.ticks, args.seed, options=args.options), path, clock)
    peak = peak_rss_mb()
    mine = [f.fill for f in sink if f.account == "dynamic" and not f.fill.closing]
    if args.fills is not None:
        lines = [f"{f.ts},{f.quantity},{f.price:.2f},{f.commission:.2f}" for f in mine]
        args.fills.write_text("\n".join(["ts_ns,signed_qty,price,commission", *lines]) + "\n", encoding="ascii")
    strategy = loop.accounts[0].slots[0].strategy
    found = {
        "path": args.path,
        "shadows": not args.no_shadow,
        "ticks": args.ticks,
        "seed": args.seed,
        "band": args.band,
        "ticks_per_s": round(args.ticks / wall),
        "us_per_tick": round(wall / args.ticks * 1e6, 4),
        "orders": loop.accounts[0].order_count,
        "fills": len(mine),
        "run_s": round(wall, 5),
        "run_cpu_s": round(cpu, 5),
        "woken": getattr(strategy, "woken", args.ticks),
        "samples": len(loop.sampler),
        "journal_bytes": path.stat().st_size,
        "journal_chain": journal.chain.hex()[:12],
        "peak_rss_mb": round(peak, 1),
    }
    if clock is not None:
        found |= early_and_late(clock)
    if args.check:
        found["same_fills_as_plain_loop"] = [(f.ts, int(f.quantity), float(f.price)) for f in mine] == plain_fills(
            quotes(args.ticks, args.seed), args.band
        )
    return found


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ticks", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--band", type=float, default=50.0, help="half width of the band in shares")
    parser.add_argument("--fee-bps", type=float, default=1.0)
    parser.add_argument("--fills", type=Path, help="write fills as CSV: ts_ns,signed_qty,price,commission")
    parser.add_argument("--path", choices=["quiet", "per-tick", "noop"], default="quiet")
    parser.add_argument("--no-shadow", action="store_true", help="the dynamic account alone")
    parser.add_argument("--live-vols", action="store_true", help="re-mark each minute at vols that move")
    parser.add_argument("--options", type=int, default=10)
    parser.add_argument("--drift", action="store_true", help="what fills cost early and late in the run")
    parser.add_argument("--check", action="store_true", help="compare the fills with a plain loop's")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(args, Path(folder))))


if __name__ == "__main__":
    main()
