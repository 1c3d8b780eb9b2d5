"""How long a journal of a million records takes to be proved, folded and gone on from.

    python benchmarks/reopen.py --records 1000000

Records are those of orders that are accepted and filled, with a snapshot every ten thousand as the engine writes them, and once
without any. Prints one JSON object; `open_s` is from the file to accounts that can go on, wall and processor seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bot.domain.orders import Allocation, Fill, Order
from bot.engine.facts import Executed, Fact, Ordered, Snapshotted, Started, TargetSet, VenueSaid
from bot.engine.journal import FileStore, Header, open_live
from bot.engine.recovery import Recovered, digest_of, relive, state_of
from tests.simulation.bench import STOCK, Bench, Script

D = Decimal
HEADER = Header(run_id="reopen", config_hash="", release="", durability="live")


def records_of(number: int) -> list[list[Fact]]:
    """The three records of one order."""
    quantity = D(1 if number % 2 else -1)
    order = Order(
        id=f"dynamic-{number:06d}",
        account="dynamic",
        instrument=STOCK.id,
        quantity=quantity,
        ts=number,
        allocations=(Allocation("main", quantity),),
        reason="delta band 25 to edge: the exact hedge is -412.1234, -412 after rounding",
    )
    fill = Fill(
        id=f"{order.id}/1",
        order_id=order.id,
        account="dynamic",
        instrument=STOCK.id,
        ts=number,
        quantity=quantity,
        price=D("100.01"),
        commission=D("0.5"),
        currency="USD",
        mid=D(100),
        touch=D("100.01"),
        quote_ts=number,
    )
    target = TargetSet(account="dynamic", strategy="delta_hedger", book="main", lines=(), reason=order.reason)
    return [
        [target, Ordered(account="dynamic", order=order)],
        [VenueSaid(account="dynamic", order_id=order.id, what="accepted")],
        [Executed(account="dynamic", fill=fill, allocations={"main": quantity})],
    ]


def write(path: Path, records: int, snapshots: bool) -> str:
    """A journal of so many records; the digest of what it adds up to."""
    account = Bench([Script()]).account
    journal = open_live(FileStore(path), HEADER, nudge=lambda: None, replayed=lambda _: None)
    journal.append(0, 0, [Started(account="dynamic", positions={}, marks={})])
    number = 0
    while journal.seq < records:
        number += 1
        for facts in records_of(number):
            for fact in facts:
                relive(account, fact, number)
            if snapshots and journal.seq % 10_000 == 9_999:
                facts.append(Snapshotted(account="dynamic", state=state_of(account, started_at=0)))
            journal.append(number, 0, facts)
        if number % 2_000 == 0:
            journal.commit()
            account.forget(1_000)
    journal.close()
    return digest_of(account)


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    arguments = parser.parse_args()
    document: dict[str, Any] = {"records": arguments.records, "machine": platform.machine()}
    right = True
    with tempfile.TemporaryDirectory() as folder:
        for name, snapshots in (("with_snapshots", True), ("without", False)):
            path = Path(folder) / f"{name}.evk"
            digest = write(path, arguments.records, snapshots)
            account = Bench([Script()]).account
            found = Recovered([account])
            wall, cpu = time.perf_counter(), time.process_time()
            journal = open_live(FileStore(path), HEADER, nudge=lambda: None, replayed=found.take)
            document[name] = {
                "mib": round(path.stat().st_size / (1 << 20), 1),
                "open_s": round(time.perf_counter() - wall, 2),
                "cpu_s": round(time.process_time() - cpu, 2),
                "folded": found.records,
            }
            right = right and digest_of(account) == digest and journal.seq >= arguments.records
            journal.close()
    document["digests_agree"] = right
    print(json.dumps(document, indent=1))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
