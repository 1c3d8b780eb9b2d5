"""CPU per tick of a replay that wakes its hedger at every quote, and whether it trades as a plain loop does.

Workload: a seeded GBM path of one stock, one quote a second, tick 0.01, spread one tick, sizes above any order; a book of
ten European options at fixed vols; a band of 50 shares traded to its centre; fills at the touch; 1 bp commission. All
three accounts (dynamic, static, none) run, the journal is chained and the report grid sampled each minute, as in a
`backtest`. The oracle is one plain loop over the same arrays. Prints one JSON document.

    python benchmarks/replay.py [--ticks 1000000] [--handler hedger|empty] [--fills FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from adapters.paper import PaperBroker, PaperOptions
from bot.core.events import Target
from bot.core.ports import Hedge, Strategy, StrategyView
from bot.core.quiet import QuietBox
from bot.domain.costs import BasisPoints
from bot.domain.instruments import OptionContract, Spot, Universe, occ_id
from bot.domain.market import QuoteBatch
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND, NS_PER_YEAR, nanos
from bot.engine.account import Account
from bot.engine.journal import Executed, Header, JournalWriter
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.valuation import Valuation, ValuationSettings
from bot.pricing import black
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge

START = nanos(datetime(2024, 1, 1, tzinfo=UTC))
SPOT, VOL, TICK, BAND = 500.0, 0.20, 0.01, 50.0
MONEYNESS = (0.90, 0.94, 0.97, 0.99, 1.00, 1.00, 1.01, 1.03, 1.06, 1.10)
DAYS = (45, 60, 30, 45, 30, 90, 30, 45, 60, 90)
LOTS = (-20, 30, -40, 50, -60, 60, -50, 40, -30, 20)
VOLS = (0.26, 0.24, 0.22, 0.21, 0.20, 0.20, 0.19, 0.19, 0.18, 0.18)
CALLS = (False, False, False, False, True, False, True, True, True, True)


def quotes(count: int, seed: int) -> QuoteBatch:
    """The seeded day's quotes."""
    rng = np.random.default_rng(seed)
    dt = 1.0 / (365.0 * 86_400.0)
    steps = rng.standard_normal(count) * (VOL * math.sqrt(dt)) - 0.5 * VOL * VOL * dt
    cents = np.floor(SPOT * np.exp(np.cumsum(steps)) / TICK).astype(np.int64)
    ts = START + np.arange(count, dtype=np.int64) * NS_PER_SECOND
    return QuoteBatch(
        instrument=np.full(count, len(MONEYNESS), dtype=np.int32),  # the options sort before the stock
        ts_event=ts,
        ts_recv=ts,
        bid=cents / 100.0,
        ask=(cents + 1) / 100.0,
        bid_size=np.full(count, 1e6, dtype=np.float32),
        ask_size=np.full(count, 1e6, dtype=np.float32),
    )


def contracts() -> list[OptionContract]:
    """The ten options."""
    made: list[OptionContract] = []
    for i, (moneyness, days, call) in enumerate(zip(MONEYNESS, DAYS, CALLS, strict=True)):
        expiry = START + days * NS_PER_DAY
        made.append(
            OptionContract(
                id=occ_id(
                    f"U{i}", date(2024, 1, 1) + timedelta(days=days), 1 if call else -1, Decimal(str(moneyness * SPOT))
                ),
                underlying="US:UND",
                cp=1 if call else -1,
                strike=Decimal(str(round(moneyness * SPOT, 6))),
                style="european",
                settlement="cash",
                multiplier=Decimal(100),
                lot=Decimal(1),
                last_trade=expiry,
                expiry=expiry,
                settles=expiry,
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
        return ("US:UND",)

    def trades(self) -> Sequence[str]:
        return ()


def build(handler: str, journal: JournalWriter) -> Loop:
    """A run of the workload, wired by hand."""
    stock = Spot(id="US:UND", tick=Decimal("0.01"), lot=Decimal(1))
    options = contracts()
    universe = Universe([stock, *options])
    marks = Marks(universe)
    vols = {c.id: v for c, v in zip(options, VOLS, strict=True)}
    valuation = Valuation(universe, marks, ValuationSettings(vol="per_contract", vols=vols))
    hedges = [Hedge(underlying=stock.id, instrument=stock.id)]
    strategies: dict[str, Strategy] = {
        "dynamic": Empty()
        if handler == "empty"
        else DeltaHedger(hedges=hedges, policy=DeltaBand(half_width=BAND, to="centre")),
        "static": DeltaHedger(hedges=hedges, policy=StaticHedge()),
        "none": DeltaHedger(hedges=hedges, policy=NoHedge()),
    }
    accounts: list[Account] = []
    for name, strategy in strategies.items():
        broker = PaperBroker(PaperOptions(commissions={"*": BasisPoints(bp=Decimal(1))}))
        broker.attach(universe, marks, name)
        accounts.append(
            Account(name, universe=universe, marks=marks, valuation=valuation, broker=broker, strategies=[strategy])
        )
    return Loop(
        settings=LoopSettings(start=START, end=None, begin="immediate", remark=NS_PER_MINUTE),
        universe=universe,
        marks=marks,
        valuation=valuation,
        accounts=accounts,
        openings=[
            Opening(book="main", instrument=c.id, quantity=Decimal(q)) for c, q in zip(options, LOTS, strict=True)
        ],
        needed=[stock.id],
        journal=journal,
    )


def oracle(batch: QuoteBatch) -> list[tuple[int, int, float]]:
    """(ts, signed quantity, price) of a plain loop: hedge to zero when |net delta + held| > band."""
    options = contracts()
    packed = black.pack_slice(
        strike=[float(c.strike) for c in options],
        expiry=np.array([c.expiry for c in options]),
        vol=VOLS,
        cp=[c.cp for c in options],
        weight=[q * 100.0 for q in LOTS],
        epoch=START,
    )
    kernel = black.slice_kernel()
    held, out = 0, []
    rows = zip(batch.ts_recv.tolist(), batch.bid.tolist(), batch.ask.tolist(), strict=True)
    for ts, bid, ask in rows:
        delta, _ = kernel(0.5 * (bid + ask), ts - START, packed, 0.0, 0.0)
        gap = delta + held
        if abs(gap) > BAND:
            target = -math.floor(delta + 0.5) if delta >= 0 else math.floor(-delta + 0.5)
            quantity = target - held
            out.append((ts, quantity, ask if quantity > 0 else bid))
            held = target
    return out


def measure(ticks: int, seed: int, handler: str, fills: Path | None) -> dict[str, Any]:
    """CPU and wall seconds of one replay, and its fills against the oracle's."""
    batch = quotes(ticks, seed)
    sink: list[Executed] = []
    header = Header(run_id="bench", config_hash="", release="", durability="replay")
    with JournalWriter(None, header) as journal:
        loop = build(handler, journal)
        loop.bus.subscribe(Executed, sink.append, serves="benchmark")
        wall, cpu = time.perf_counter(), time.process_time()
        for start in range(0, ticks, 4096):
            loop.take(batch.rows(start, min(start + 4096, ticks)), "bench")
        loop.finish()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    mine = [f.fill for f in sink if f.account == "dynamic" and not f.fill.closing]
    agrees: bool | None = None
    if handler == "hedger":
        found = [(f.ts, int(f.quantity), float(f.price)) for f in mine]
        agrees = found == oracle(batch)
    if fills is not None:
        lines = [f"{f.ts},{f.quantity},{f.price:.2f},{f.commission:.2f}" for f in mine]
        fills.write_text("ts_ns,signed_qty,price,commission\n" + "\n".join(lines) + "\n", encoding="ascii")
    return {
        "handler": handler,
        "ticks": ticks,
        "fills": len(mine),
        "same_fills_as_plain_loop": agrees,
        "cpu_us_per_tick": round(cpu / ticks * 1e6, 3),
        "wall_us_per_tick": round(wall / ticks * 1e6, 3),
        "samples": len(loop.sampler.instants),
        "years": round(ticks * NS_PER_SECOND / NS_PER_YEAR, 6),
    }


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ticks", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--handler", choices=["hedger", "empty", "both"], default="both")
    parser.add_argument("--fills", type=Path)
    args = parser.parse_args()
    black.warmup()
    handlers = ["hedger", "empty"] if args.handler == "both" else [args.handler]
    print(json.dumps([measure(args.ticks, args.seed, handler, args.fills) for handler in handlers], indent=1))


if __name__ == "__main__":
    main()
