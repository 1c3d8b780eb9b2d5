"""Days of ticks in minutes: 72 hours of 500 quotes a second through columns, a live journal, and a restart every few hours.

    python benchmarks/days.py --hours 72 --rate 500

Engine, desk, gate, paper venue and live journal are the real ones; quotes are drawn an hour at a time. Every `--restart` hours
the accounts are thrown away and rebuilt from the journal; their digest must be what it was. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from adapters.paper import PaperBroker, PaperOptions
from bot.core.ports import Hedge
from bot.domain.instruments import OptionContract, Spot, Universe
from bot.domain.market import QuoteBatch
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND
from bot.engine.account import Account
from bot.engine.journal import FileStore, Header, LiveJournal, open_live
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.recovery import Recovered, digest_of
from bot.engine.valuation import Valuation, ValuationSettings
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand
from strategies.policies.no_hedge import NoHedge

D = Decimal
HOUR = 60 * NS_PER_MINUTE
START = 1_767_225_600 * NS_PER_SECOND
STOCK = Spot(id="SIM:X", tick=D("0.01"), lot=D(1))
CALLS = [
    OptionContract(
        id=f"X     260401C{strike * 1000:08d}",
        underlying=STOCK.id,
        cp=1,
        strike=D(strike),
        style="european",
        settlement="cash",
        multiplier=D(100),
        lot=D(1),
        currency="USD",
        last_trade=START + 90 * NS_PER_DAY,
        expiry=START + 90 * NS_PER_DAY,
        settles=START + 90 * NS_PER_DAY,
    )
    for strike in range(90, 110, 2)
]


def build(path: Path, band: float) -> tuple[Loop, list[Account], LiveJournal]:
    """A loop over the journal, recovered when there is something in it."""
    universe = Universe([STOCK, *CALLS])
    marks = Marks(universe)
    valuation = Valuation(universe, marks, ValuationSettings(vol="fixed", vol_value=0.3))
    accounts = []
    for name, policy in (("dynamic", DeltaBand(half_width=band)), ("none", NoHedge())):
        broker = PaperBroker(PaperOptions(latency=NS_PER_SECOND // 100), seed=1)
        broker.attach(universe, marks, name)
        hedger = DeltaHedger(hedges=[Hedge(underlying=STOCK.id, instrument=STOCK.id)], policy=policy)
        accounts.append(
            Account(name, universe=universe, marks=marks, valuation=valuation, broker=broker, strategies=[hedger])
        )
    recovered = Recovered(accounts)
    header = Header(run_id="days", config_hash="", release="", durability="live")
    journal = open_live(FileStore(path), header, nudge=lambda: None, replayed=recovered.take)
    loop = Loop(
        settings=LoopSettings(start=START, begin="immediate", report_grid=HOUR, jump_freeze=None),
        universe=universe,
        marks=marks,
        valuation=valuation,
        accounts=accounts,
        openings=[Opening(book="main", instrument=call.id, quantity=D(-10), mark=D(3)) for call in CALLS],
        needed=[STOCK.id],
        journal=journal,
    )
    loop.recover(recovered)
    return loop, accounts, journal


def hour_of(number: int, last: float, rate: int, rng: np.random.Generator) -> QuoteBatch:
    """An hour of quotes from where the last ended."""
    n = rate * 3600
    ts = START + number * HOUR + (np.arange(n, dtype=np.int64) + 1) * (HOUR // n)
    steps = rng.normal(0.0, 0.4 / np.sqrt(365 * 86400.0 * rate), n)
    mid = np.round(last * np.exp(np.cumsum(steps)), 2)
    size = np.full(n, 100.0, dtype=np.float32)
    return QuoteBatch(
        instrument=np.zeros(n, dtype=np.int32),
        ts_event=ts,
        ts_recv=ts,
        bid=mid - 0.01,
        ask=mid + 0.01,
        bid_size=size,
        ask_size=size,
    )


def main() -> int:
    """Run the days."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=72)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--restart", type=int, default=6, help="hours between rebuilds from the journal")
    parser.add_argument("--band", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    began, cpu, restarts, wrong = time.perf_counter(), time.process_time(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.evk"
        loop, accounts, journal = build(path, arguments.band)
        column = loop.universe.index(STOCK.id)
        last = 100.0
        for number in range(arguments.hours):
            if number and number % arguments.restart == 0:
                before = [digest_of(account) for account in accounts]
                journal.close()
                loop, accounts, journal = build(path, arguments.band)
                restarts += 1
                wrong += before != [digest_of(account) for account in accounts]
            batch = hour_of(number, last, arguments.rate, rng)
            batch.instrument[:] = column
            last = float(batch.bid[-1] + batch.ask[-1]) / 2
            loop.take(batch, "days")
            journal.commit()
            if sys.stderr.isatty():
                print(f"\rhour {number + 1} of {arguments.hours}", end="", file=sys.stderr, flush=True)
        loop.close_open_instant()
        journal.close()
        records, size = journal.seq, path.stat().st_size
    wall = time.perf_counter() - began
    ticks = arguments.hours * 3600 * arguments.rate
    document: dict[str, Any] = {
        "hours": arguments.hours,
        "ticks": ticks,
        "wall_s": round(wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "ticks_per_s": round(ticks / wall),
        "records": records,
        "journal_mib": round(size / (1 << 20), 2),
        "orders": {account.name: account.order_count for account in accounts},
        "fills": {account.name: account.fill_count for account in accounts},
        "restarts": restarts,
        "wrong_digests": wrong,
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    print(json.dumps(document, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
