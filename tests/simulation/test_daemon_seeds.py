"""Whole lives of the daemon with faults by seed; law: no invariant breaks, and the same seed is the same story.

`EVENKEEL_SEEDS` raises the number of seeds for a longer battery.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bot.core.errors import JournalError
from bot.domain.units import NS_PER_SECOND
from bot.engine.facts import Executed, Ordered, TargetSet
from bot.testing.virtual_time import World, run
from tests.simulation.defects import PLANTED
from tests.simulation.world import POINTS, SOUND, Daemon, Defect, Faults, Sim

SEEDS = int(os.environ.get("EVENKEEL_SEEDS", "500"))
CHUNKS = 20
SECONDS = 90.0
CALM = Faults(partial=0.0, reject=0.0)

COMMON = (
    "ack lost", "answer lost", "beat lost", "cancel lost", "order lost", "order late", "order repeated", "word lost",
    "word late", "word repeated", "order twice", "partial fill", "venue reject", "late fill", "limit order",
    "dead man", "venue unreachable", "zombie", "old epoch refused",
    "commit failed", "disk full", "disk hung", "torn tail cut", "feed cut", "feed stalled",
    "timer rang", "transfer", "snapshot", "fold compared", "recovery compared", "stopped",
    "person said halt", "person said kill", "person said stop", "ended in READY", "ended in RECONCILE",
)  # fmt: skip
CLOCKS = ("clock +1 s", "clock -1 s", "clock +1 h", "clock -1 h", "clock frozen", "clock suspend")


def lived(
    seed: int,
    faults: Faults | None = None,
    *,
    seconds: float = SECONDS,
    defect: Defect = SOUND,
    dies_at: str = "",
) -> Sim:
    """A world that went on for a while and was let to settle."""

    async def main(world: World) -> Sim:
        sim = Sim(world, faults, defect=defect, dies_at=dies_at)
        await sim.live(seconds)
        return sim

    return run(main, seed=seed, turns_per_instant=20_000)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_invariant_breaks(chunk: int) -> None:
    """Whatever the seed draws, every invariant holds throughout and at the end, and every kind of fault was met."""
    seen: Counter[str] = Counter()
    for seed in range(chunk, SEEDS, CHUNKS):
        sim = lived(seed)
        assert not sim.broken, f"seed {seed}, {sim.faults}: {sim.broken}"
        seen.update(sim.seen)
    assert sum(seen[name] for name in CLOCKS) > 0
    if SEEDS >= 25 * CHUNKS:
        assert not [name for name in COMMON if not seen[name]]


def test_the_same_seed_is_the_same_story() -> None:
    """Fifty seeds give the same records, fills and counts when they are run again."""
    for seed in range(50):
        assert lived(seed, seconds=20.0).digest() == lived(seed, seconds=20.0).digest(), f"seed {seed}"


def test_another_process_tells_the_same_story() -> None:
    """A process with another order of hashes gives the same records."""
    root = Path(__file__).parents[2]
    code = "from tests.simulation.test_daemon_seeds import lived; print(*(lived(s, seconds=20.0).digest() for s in (1, 2)))"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [lived(seed, seconds=20.0).digest() for seed in (1, 2)]


def test_another_seed_is_another_story() -> None:
    """The digest sees what happened."""
    assert lived(1, seconds=20.0).digest() != lived(2, seconds=20.0).digest()


@pytest.mark.parametrize("point", POINTS)
def test_death_at_each_point_is_survived(point: str) -> None:
    """Daemon after daemon that dies at this point of its code leaves everything to be found by the next."""
    rough = Faults(lost=0.05, late=0.05, disk=0.02, restart_delay=1.0, race=0.3, reject=0.05)
    for seed in range(2):
        sim = lived(seed, rough, seconds=60.0, dies_at=point)
        assert not sim.broken, f"seed {seed}: {sim.broken}"
        assert sim.seen[f"died at {point}"] > 0


@pytest.mark.parametrize("defect", PLANTED, ids=lambda d: d.name.replace(" ", "-"))
def test_each_planted_defect_is_found(defect: Defect) -> None:
    """A planted defect breaks an invariant that is about it within two hundred seeds."""
    for seed in range(200):
        names = {broken.split(":")[0] for broken in lived(seed, defect=defect).broken}
        if names & set(defect.found_as):
            return
    raise AssertionError(f"{defect.name}: not found in 200 seeds")


def test_planted_defects_are_twelve_and_differ() -> None:
    """Each defect has a name of its own."""
    assert len({defect.name for defect in PLANTED}) == len(PLANTED) >= 12


def test_lying_clocks_cost_no_timer_and_no_order() -> None:
    """Leaps of a second and an hour, a standing clock and a sleeping machine, at any instant, before and after starts."""
    seen: Counter[str] = Counter()
    for seed in range(20):
        sim = lived(seed, Faults(clock_rate=0.2, crash_every=20.0, people_rate=0.05), seconds=60.0)
        assert not sim.broken, f"seed {seed}: {sim.broken}"
        seen.update(sim.seen)
    assert not [name for name in CLOCKS if not seen[name]]


def test_a_second_process_on_the_same_disk_is_refused() -> None:
    """One book, one hedger: whoever finds the journal held does not start."""

    async def main(world: World) -> str:
        sim = Sim(world, CALM)
        running = asyncio.create_task(sim.live(10.0, settle=5.0))
        await asyncio.sleep(5.0)
        second = Daemon(sim, world.process("second"), sim.disk, 99)
        try:
            await second.live()
        except JournalError as fault:
            return str(fault)
        finally:
            await running
            assert not sim.broken
        return ""

    assert "another process holds this journal" in run(main, seed=1)


def test_a_venue_with_faults_leaves_the_shadow_as_it_was() -> None:
    """The account beside the venue's decides, orders and fills alike whether the venue is sound or not."""

    def shadow(faults: Faults) -> tuple[list[str], Counter[str]]:
        async def main(world: World) -> Sim:
            sim = Sim(world, CALM)
            world.loop.call_later(8.0, sim.weather_turns, faults)  # by then the session has begun
            await sim.live(60.0)
            return sim

        sim = run(main, seed=11)
        assert not sim.broken
        facts = [f for step in sim.watch.beside for f in step if isinstance(f, Executed | Ordered | TargetSet)]
        return [str(fact) for fact in facts], sim.seen

    bad = Faults(lost=0.1, late=0.1, repeated=0.1, unreachable_rate=0.05, partial=0.5, reject=0.1, race=0.5)
    sound, _ = shadow(CALM)
    beset, seen = shadow(bad)
    assert seen["order lost"] > 0 and seen["word lost"] > 0
    assert sound == beset
    assert len(sound) > 20


def test_death_while_draining_is_survived() -> None:
    """A daemon killed between the word to stop and its end leaves nothing unknown."""

    async def main(world: World) -> Sim:
        sim = Sim(world, Faults(lost=0.1, hang=0.2, crash_every=5.0), every=0.5)

        async def stopper() -> None:
            for _ in range(8):
                await asyncio.sleep(4.0)
                sim.say("stop", "")
                await asyncio.sleep(0.05 + sim.stream("stopper").random() * 0.2)
                daemon = sim.daemon
                if daemon is not None and not daemon.process.dead and daemon.session.state == "DRAIN":
                    sim.seen["died draining"] += 1
                    daemon.process.kill()

        task = asyncio.create_task(stopper())
        await sim.live(40.0)
        task.cancel()
        return sim

    seen: Counter[str] = Counter()
    for seed in range(6):
        sim = run(main, seed=seed)
        assert not sim.broken, sim.broken
        seen.update(sim.seen)
    assert seen["died draining"] > 0


def test_time_is_simulated_much_faster_than_it_passes() -> None:
    """The world's clock counts the time that was simulated."""
    sim = lived(3, CALM, seconds=30.0)
    assert sim.machine.monotonic() >= 55 * NS_PER_SECOND
