"""kill -9 at random under load, in a loop: nothing is lost, nothing twice, and each start is READY within 3 seconds.

The seconds are the processor's, so that eight stages at once on two cores measure the daemon and not each other;
docs/reliability.md quotes those of the wall on a quiet machine.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.stage import Stage, compare

ROUNDS = int(os.environ.get("EVENKEEL_KILLS", "200"))
STAGES = 8
SLOWEST_START = 3.0


@pytest.mark.parametrize("number", range(STAGES))
def test_kill_9_loses_nothing_and_repeats_nothing(number: int, tmp_path: Path) -> None:
    """After every kill the next daemon goes on; at the end both ledgers agree to the fill, and no order is undecided."""
    rng = random.Random(number)
    faults = "0.03,0.03,0.03" if number % 2 else "0,0,0"
    ready: list[float] = []
    with Stage(tmp_path, "--seed", str(number), "--faults", faults, "--reject", "0.02") as stage:
        for _ in range(ROUNDS // STAGES):
            stage.start()
            if rng.random() < 0.8:
                ready.append(stage.wait_ready()["ready_cpu_s"])
            time.sleep(rng.uniform(0.0, 0.6))
            stage.kill()
        stage.start()
        stage.wait_ready()
        time.sleep(1.0)
        stage.settle()
        assert stage.stop() == 0
        books = compare(stage)
        assert books.lost == []
        assert books.repeated == []
        assert books.invented == []
        assert books.undecided == []
        assert books.unknown_orders == []
        assert books.ours == books.theirs
        assert len(stage.ledger().fills) > ROUNDS // STAGES  # it traded throughout
    assert ready
    assert max(ready) <= SLOWEST_START, sorted(ready)[-5:]
