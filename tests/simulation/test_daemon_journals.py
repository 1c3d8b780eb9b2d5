"""Journals that were cut, flipped or written by an earlier release; law: they open to a true beginning or are refused."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bot.core.errors import JournalError
from bot.engine.journal import JournalReader, Step, open_live, verify
from bot.engine.recovery import Recovered, digest_of
from bot.testing.disk import FaultyDisk
from bot.testing.virtual_time import World, run
from tests.simulation.invariants import told
from tests.simulation.world import HEADER, Faults, Sim, bare_accounts

RELEASES = Path(__file__).parents[1] / "data" / "journals"
ROUGH = Faults(lost=0.08, late=0.05, partial=0.5, reject=0.1, race=0.5, crash_every=12.0, people_rate=0.1)


@cache
def written() -> bytes:
    """The bytes of a journal from a rough half minute."""

    async def main(world: World) -> Sim:
        sim = Sim(world, ROUGH)
        await sim.live(30.0, settle=10.0)
        return sim

    return run(main, seed=4).disk.bytes()


@cache
def true_folds() -> list[list[dict[str, Any]]]:
    """What the accounts are after each record, folded from the first record on."""
    accounts = bare_accounts()
    fold = Recovered(accounts)
    found = [[told(account) for account in accounts]]
    for step in _steps(written()):
        fold.take(step)
        found.append([told(account) for account in accounts])
    return found


def _steps(data: bytes) -> list[Step]:
    """Every record, read from the bytes by hand."""
    import struct  # noqa: PLC0415  this reader alone needs them

    import msgspec  # noqa: PLC0415

    at, bodies = len(b"evenkeel journal 1\n"), []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        bodies.append(data[at + 8 : at + 8 + length])
        at += 8 + length + 32
    return [msgspec.json.decode(body, type=Step) for body in bodies[1:]]


def opened(data: bytes) -> tuple[int, list[dict[str, Any]]]:
    """How many records a journal of these bytes opens with, and what they fold to. JournalError when it is refused."""
    disk = FaultyDisk(Random(0))
    disk.append(data)
    accounts = bare_accounts()
    fold = Recovered(accounts)
    journal = open_live(disk, HEADER, nudge=lambda: None, replayed=fold.take)
    return journal.seq, [told(account) for account in accounts]


def damaged(data: bytes, rng: Random) -> bytes:
    """The bytes after one accident: cut, flipped, zeroed, doubled, or cut and lengthened."""
    size = len(data)
    at = rng.choice([rng.randrange(size), max(0, size - rng.randrange(1, 3000)), rng.randrange(min(size, 400))])
    match rng.choice(["cut", "bit", "byte", "zeros", "double", "lengthened", "hole"]):
        case "cut":
            return data[:at]
        case "bit":
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case "byte":
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case "zeros":
            length = rng.randrange(1, 5000)
            return data[:at] + bytes(min(length, size - at)) + data[at + length :]
        case "double":
            length = rng.randrange(1, 2000)
            return data[: at + length] + data[at : at + length] + data[at + length :]
        case "lengthened":
            return data[:at] + bytes(rng.randrange(1, 5000))
        case _:
            return data[:at] + data[at + rng.randrange(1, 2000) :]


def test_the_whole_journal_opens_to_the_whole_story() -> None:
    """Snapshot and tail fold to what all records fold to."""
    records, state = opened(written())
    assert records == len(true_folds()) - 1 > 100
    assert state == true_folds()[-1]
    assert any(fact for fact in _steps(written()) if "Snapshotted" in str(type(fact.facts[-1])))


@pytest.mark.parametrize("part", range(4))
def test_damaged_journals_open_to_a_true_beginning_or_are_refused(part: int) -> None:
    """A thousand accidents: whatever opens is what the first records say, to the last field."""
    rng = Random(f"damage {part}")
    refused = shortened = 0
    for number in range(250):
        data = damaged(written(), rng)
        try:
            records, state = opened(data)
        except JournalError as fault:
            assert "disk" in str(fault)
            refused += 1
            continue
        assert records < len(true_folds()), number
        assert state == true_folds()[records], number
        shortened += records < len(true_folds()) - 1
    assert refused > 50 and shortened > 50


def test_a_journal_cut_at_each_byte_of_its_last_records_opens_to_whole_ones() -> None:
    """Every cut keeps exactly the records that are whole."""
    data = written()
    bodies, at = [], len(b"evenkeel journal 1\n")
    while at < len(data):
        at += 8 + int.from_bytes(data[at : at + 4], "little") + 32
        bodies.append(at)
    for size in range(bodies[-3], len(data), 37):
        records, state = opened(data[:size])
        assert records == sum(1 for end in bodies[1:] if end <= size)
        assert state == true_folds()[records]


@pytest.mark.parametrize("path", sorted(RELEASES.glob("*.evk")), ids=lambda path: path.stem)
def test_journals_of_earlier_releases_fold_to_the_same_state(path: Path) -> None:
    """What an earlier release recorded gives the accounts that it gave then."""
    expected = json.loads((RELEASES / "digests.json").read_text())[path.name]
    accounts = bare_accounts()
    fold = Recovered(accounts)
    for step in JournalReader(path):
        fold.take(step)
    assert verify(path).records == fold.records == expected["records"]
    assert {account.name: digest_of(account) for account in accounts} == expected["accounts"]
    assert opened(path.read_bytes())[0] == fold.records


def test_every_release_with_a_live_journal_left_one() -> None:
    """There is a journal to hold later releases to, with a digest for each."""
    names = {path.name for path in RELEASES.glob("*.evk")}
    assert names and names == set(json.loads((RELEASES / "digests.json").read_text()))
