"""How long a live tick takes to a decision, an order in the outbox, and a venue, with the journal synced on a real disk.

    python benchmarks/live.py --rate 500 --seconds 30
    python benchmarks/live.py --rate 1000 --options 128 --band 5

One process, a feed that yields `--rate` quotes of the underlying a second, a book of `--options` options in one slice, a venue
that takes orders and fills them at the next tick. Prints one JSON object; microseconds, except commits (milliseconds).
`decision` counts every tick, from the feed's yield until everything it led to is done; `to_outbox` and `to_submit` count ticks
that led to an order; `to_submit` waits for the order's record to be synced.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bot.app.live import LiveSession
from bot.core.events import FeedEvent, VenueEvent
from bot.core.ports import Capabilities, FeedReport, Hedge, Snapshot
from bot.domain.instruments import OptionContract, Spot, Universe
from bot.domain.market import Quote
from bot.domain.orders import Order
from bot.domain.units import NS_PER_DAY
from bot.engine.account import Account
from bot.engine.journal import CommitThread, FileStore, Header, open_live
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.recovery import Recovered
from bot.engine.valuation import Valuation, ValuationSettings
from bot.pricing import black
from bot.testing.venue import Venue
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand

D = Decimal
STOCK = Spot(id="SIM:X", tick=D("0.01"), lot=D(1))


class MachineClock:
    """The machine's clocks."""

    def now(self) -> int:
        """Wall."""
        return time.time_ns()

    def monotonic(self) -> int:
        """Steady."""
        return time.monotonic_ns()


class Ticks:
    """Quotes of a walk at a steady rate; knows when it gave each."""

    name = "ticks"
    recorded = False

    def __init__(self, rate: float, seconds: float, rng: Random) -> None:
        self.rate, self.seconds, self.rng = rate, seconds, rng
        self.mid = 100.0
        self.given = 0

    async def __aenter__(self) -> Ticks:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def events(self) -> AsyncIterator[FeedEvent]:
        """The walk."""
        step = 4.0 * math.sqrt(1.0 / self.rate / (365 * 86400.0))  # a wild day, so that there are orders to time
        path = self.mid
        due = time.monotonic()
        for _ in range(int(self.rate * self.seconds)):
            due += 1.0 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            path *= math.exp(self.rng.gauss(0.0, step))
            self.mid = round(path, 2)
            now = time.time_ns()
            quote = Quote(instrument=STOCK.id, ts_event=now, ts_recv=now, bid=self.mid - 0.01, ask=self.mid + 0.01)
            self.given = time.perf_counter_ns()
            yield quote

    def report(self) -> FeedReport:
        """Nothing."""
        return FeedReport()


class Near:
    """A venue in the same process, behind the broker port."""

    def __init__(self, venue: Venue, ticks: Ticks, took: list[int]) -> None:
        self.capabilities = Capabilities(name="near", tombstones=True)
        self.venue, self.ticks, self.took = venue, ticks, took
        self.decided: dict[str, int] = {}

    async def __aenter__(self) -> Near:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def submit(self, order: Order) -> None:
        """Note when it came."""
        self.took.append(time.perf_counter_ns() - self.decided.pop(order.id))
        self.venue.submit(order, 0, time.time_ns())

    async def cancel(self, order_id: str) -> None:
        """Cancel."""
        self.venue.cancel(order_id, "dynamic", 0, time.time_ns())

    async def events(self) -> AsyncIterator[VenueEvent]:
        """Fills within 5 ms."""
        while True:
            await asyncio.sleep(0.005)
            self.venue.work(time.time_ns())
            for number, event in list(self.venue.said):
                self.venue.acknowledge(number)
                yield event

    async def snapshot(self, since: int) -> Snapshot:
        """All of it."""
        return self.venue.snapshot(since)


def build(arguments: argparse.Namespace, folder: Path) -> tuple[LiveSession, dict[str, list[int]]]:
    """The session, and where its times go."""
    rng = Random(arguments.seed)
    now = time.time_ns()
    expiries = [now + days * NS_PER_DAY for days in (20, 50, 80, 110)]
    options = [
        OptionContract(
            id=f"X     2{i // 32:05d}C{80000 + 1250 * (i % 32):08d}",
            underlying=STOCK.id,
            cp=1 if i % 2 else -1,
            strike=D(80) + D("1.25") * (i % 32),
            style="european",
            settlement="cash",
            multiplier=D(100),
            lot=D(1),
            currency="USD",
            last_trade=expiries[i // 32 % 4],
            expiry=expiries[i // 32 % 4],
            settles=expiries[i // 32 % 4],
        )
        for i in range(arguments.options)
    ]
    universe = Universe([STOCK, *options])
    marks = Marks(universe)
    valuation = Valuation(universe, marks, ValuationSettings(vol="fixed", vol_value=0.3))
    ticks = Ticks(arguments.rate, arguments.seconds, rng)
    venue = Venue(lambda _: (D(str(round(ticks.mid - 0.01, 2))), D(str(round(ticks.mid + 0.01, 2)))), rng=rng)
    times: dict[str, list[int]] = {"to_outbox": [], "to_submit": []}
    broker = Near(venue, ticks, times["to_submit"])
    hedge = Hedge(underlying=STOCK.id, instrument=STOCK.id)
    account = Account(
        "dynamic",
        universe=universe,
        marks=marks,
        valuation=valuation,
        broker=broker,
        strategies=[DeltaHedger(hedges=[hedge], policy=DeltaBand(half_width=arguments.band))],
    )
    committer = CommitThread()
    header = Header(run_id="live", config_hash="", release="", durability="live")
    recovered = Recovered([account])
    journal = open_live(FileStore(folder / "journal.evk"), header, nudge=committer.nudge, replayed=recovered.take)
    loop = Loop(
        settings=LoopSettings(start=now - NS_PER_DAY, begin="immediate"),
        universe=universe,
        marks=marks,
        valuation=valuation,
        accounts=[account],
        openings=[Opening(book="main", instrument=o.id, quantity=D(-10), mark=D(3)) for o in options],
        needed=[STOCK.id],
        journal=journal,
    )
    session = LiveSession(loop=loop, journal=journal, committer=committer, feeds=[ticks], clock=MachineClock(), rng=rng)
    submit = loop.outbox.submit

    def noted(account: Account, order: Order) -> None:
        broker.decided[order.id] = ticks.given
        times["to_outbox"].append(time.perf_counter_ns() - ticks.given)
        submit(account, order)

    loop.outbox.submit = noted  # type: ignore[method-assign]  # a stopwatch
    events = asyncio.get_running_loop()
    committer.done = lambda fault: events.call_soon_threadsafe(session.committed, fault)
    return session, times


def spread(values: list[int], scale: float) -> dict[str, float]:
    """p50, p99 and the greatest."""
    if not values:
        return {}
    found = np.percentile(np.array(values) / scale, [50, 99, 100])
    return {name: round(float(value), 1) for name, value in zip(("p50", "p99", "max"), found, strict=True)}


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run it."""
    black.warmup()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        session, times = build(arguments, Path(folder))
        decisions: list[int] = []
        session.decision_latency.note = decisions.append  # type: ignore[method-assign]  # every one, not a histogram
        stop = asyncio.get_running_loop().call_later(arguments.seconds, session.stop)
        cpu = time.process_time()
        await session.run()
        stop.cancel()
        warm = max(1, len(decisions) // 10)
        commits = [round(s * 1e9) for s in session.journal.commit_seconds]
        return {
            "rate": arguments.rate,
            "options": arguments.options,
            "ticks": len(decisions),
            "orders": len(times["to_outbox"]),
            "decision_us": spread(decisions[warm:], 1e3),
            "to_outbox_us": spread(times["to_outbox"][3:], 1e3),
            "to_submit_us": spread(times["to_submit"][3:], 1e3),
            "commit_ms": {k: round(v / 1e3, 3) for k, v in spread(commits, 1e3).items()},
            "cpu_share": round((time.process_time() - cpu) / arguments.seconds, 3),
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
        }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--options", type=int, default=10)
    parser.add_argument("--band", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--dir", default=None, help="folder on the disk to measure; the system's temporary one when absent"
    )
    print(json.dumps(asyncio.run(run(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
