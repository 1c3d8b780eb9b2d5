"""The journal shows what was cut and refuses what was changed; tape, merge and bus keep one order."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from bot.core.bus import Bus
from bot.core.errors import JournalError
from bot.core.events import Alarm
from bot.engine.journal import MAGIC, Alarmed, Controlled, Header, JournalReader, JournalWriter, Started, Step, verify
from bot.engine.tape import Tape

D = Decimal
HEADER = Header(run_id="r", config_hash="c", release="1", durability="replay", feeds={"f": {"file": "sha"}})


def written(path: Path, count: int = 5) -> list[bytes]:
    """A journal of `count` steps, and its frames in the file as they stand, header first."""
    with JournalWriter(path, HEADER) as journal:
        for i in range(count):
            alarm = Alarm(code="x", text="words " * i, ts=i)
            journal.append(i, 10 * i, [Alarmed(account="a", alarm=alarm), Controlled(account="a", verb="halt")])
    data, at, frames = path.read_bytes(), len(MAGIC), []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        frames.append(data[at : at + 8 + length + 32])
        at += 8 + length + 32
    return frames


def steps(path: Path) -> list[Step]:
    return list(JournalReader(path))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Header, order, instants, tape positions and exact decimals survive the file."""
    path = tmp_path / "j"
    fact = Started(account="a", positions={"X": D("1.10")}, marks={"X": D("0.1")})
    with JournalWriter(path, HEADER) as journal:
        journal.append(7, 3, [fact])
        digest = journal.facts_digest.hexdigest()
    reader = JournalReader(path)
    assert reader.header == HEADER
    assert list(reader) == [Step(seq=0, ts=7, tape=3, facts=[fact])]
    found = verify(path)
    assert (found.records, found.torn_bytes, found.facts_digest) == (1, 0, digest)


def test_the_chain_is_as_documented(tmp_path: Path) -> None:
    """Each link is sha256 of the link before and the body, from sha256 of the magic on, each body under its crc32."""
    frames = written(tmp_path / "j")
    chain = hashlib.sha256(MAGIC).digest()
    for frame in frames:
        length, crc = struct.unpack_from("<II", frame)
        body, link = frame[8 : 8 + length], frame[8 + length :]
        chain = hashlib.sha256(chain + body).digest()
        assert (zlib.crc32(body), chain) == (crc, link)


def test_a_torn_tail_is_cut_at_the_last_whole_record_and_measured(tmp_path: Path) -> None:
    """Cut anywhere inside the last record, the earlier ones are read and the torn bytes counted."""
    path = tmp_path / "j"
    frames = written(path)
    data = path.read_bytes()
    whole = len(data) - len(frames[-1])
    for cut in range(whole, len(data)):
        path.write_bytes(data[:cut])
        assert len(steps(path)) == 4
        assert verify(path).torn_bytes == cut - whole


def test_every_flipped_bit_is_refused_or_cut_never_believed(tmp_path: Path) -> None:
    """A flip at any of 400 random places leaves a prefix of the true steps or a refusal with its place."""
    path = tmp_path / "j"
    written(path)
    data, truth = path.read_bytes(), steps(path)
    rng = random.Random(5)
    refused = cut = 0
    for _ in range(400):
        at = rng.randrange(len(data))
        bad = bytearray(data)
        bad[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(bad))
        try:
            found = steps(path)
        except JournalError as fault:
            assert str(path) in str(fault)
            refused += 1
            continue
        assert found == truth[: len(found)]
        assert len(found) < len(truth)
        assert verify(path).torn_bytes > 0
        cut += 1
    assert refused + cut == 400
    assert refused > 300


def test_a_damaged_length_inside_is_no_torn_tail(tmp_path: Path) -> None:
    """A length that reaches beyond the file is refused while whole records follow, and cut as a torn tail when none do."""
    path = tmp_path / "j"
    frames = written(path)
    data = bytearray(path.read_bytes())
    inside = len(MAGIC) + sum(map(len, frames[:2]))
    last = len(data) - len(frames[-1])
    for at, cut in ((inside, False), (last, True)):
        bad = bytearray(data)
        struct.pack_into("<I", bad, at, len(data))
        path.write_bytes(bytes(bad))
        if cut:
            assert verify(path).torn_bytes == len(frames[-1])
        else:
            with pytest.raises(JournalError, match="whole records follow"):
                verify(path)


def test_a_tail_of_zeros_is_a_torn_one(tmp_path: Path) -> None:
    """A file that was lengthened and never written keeps all its whole records."""
    path = tmp_path / "j"
    written(path)
    truth = steps(path)
    with path.open("ab") as file:
        file.write(bytes(700))
    assert steps(path) == truth
    assert verify(path).torn_bytes == 700


def test_swapped_and_dropped_records_are_refused_by_number(tmp_path: Path) -> None:
    """Whole records in another order, or one left out, break the chain where it happened."""
    path = tmp_path / "j"
    frames = written(path)
    for order in ([0, 2, 1, 3, 4, 5], [0, 1, 3, 4, 5]):
        path.write_bytes(MAGIC + b"".join(frames[i] for i in order))
        with pytest.raises(JournalError, match=rf"record {next(i for i, k in enumerate(order) if k != i)} at byte"):
            steps(path)


def test_a_journal_is_never_overwritten(tmp_path: Path) -> None:
    """A second writer on the same path is refused and the first file stays as it was."""
    path = tmp_path / "j"
    written(path)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="expected no journal yet"), JournalWriter(path, HEADER):
        pass
    assert path.read_bytes() == before


def test_a_journal_that_is_not_open_takes_nothing(tmp_path: Path) -> None:
    """Before it is entered and after it is closed an append raises; in memory it counts."""
    journal = JournalWriter(tmp_path / "j", HEADER)
    with pytest.raises(JournalError, match="not open"):
        journal.append(0, 0, [])
    with JournalWriter(tmp_path / "k", HEADER) as other:
        other.append(0, 0, [])
    with pytest.raises(JournalError, match="not open"):
        other.append(1, 0, [])
    memory = JournalWriter(None, HEADER)
    memory.append(0, 0, [])
    assert memory.seq == 1


def test_a_file_written_in_batches_does_not_call_itself_live() -> None:
    """The writer that syncs at the end refuses a header that promises more."""
    with pytest.raises(JournalError, match="'live'"):
        JournalWriter(None, msgspec.structs.replace(HEADER, durability="live"))


@pytest.mark.parametrize("content", [b"", b"evenkeel", b"something else entirely, long enough to be one", MAGIC])
def test_other_files_are_no_journals(tmp_path: Path, content: bytes) -> None:
    """An empty, short, foreign or header-less file is refused with its path."""
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="expected"):
        JournalReader(path)
    with pytest.raises(JournalError, match="cannot be read"):
        JournalReader(tmp_path / "none")


def test_a_header_or_step_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Sound frames whose content is no header, or no step, name the record."""
    path = tmp_path / "j"

    def write(*bodies: bytes) -> None:
        chain, out = hashlib.sha256(MAGIC).digest(), MAGIC
        for body in bodies:
            chain = hashlib.sha256(chain + body).digest()
            out += struct.pack("<II", len(body), zlib.crc32(body)) + body + chain
        path.write_bytes(out)

    write(b"[]")
    with pytest.raises(JournalError, match="header"):
        JournalReader(path)
    write(msgspec.json.encode(HEADER), b'{"seq":"one"}')
    with pytest.raises(JournalError, match="record 1"):
        steps(path)


def test_the_tape_joins_runs_of_one_feed() -> None:
    """One row at a time or many at once, the ranges are the same."""
    one, many = Tape(), Tape()
    for i in range(6):
        one.take("a" if i < 4 else "b", 1, i, i)
    many.take("a", 4, 0, 3)
    many.take("b", 2, 4, 5)
    assert one.ranges() == many.ranges()
    assert one.rows == many.rows == 6
    assert [(r.feed, r.start, r.stop) for r in one.ranges()] == [("a", 0, 4), ("b", 4, 6)]


# --------------------------------------------------------------------------- the bus


def test_the_bus_is_fifo_when_re_entered() -> None:
    """An event published by a handler waits until all handlers of the present one are done."""
    bus, heard = Bus(), list[str]()

    def first(event: int) -> None:
        heard.append(f"first {event}")
        if event == 1:
            bus.publish(2)
            bus.publish(3)

    bus.subscribe(int, first, serves="a")
    bus.subscribe(int, lambda event: heard.append(f"second {event}"), serves="b")
    bus.publish(1)
    assert heard == ["first 1", "second 1", "first 2", "second 2", "first 3", "second 3"]


def test_the_bus_hands_over_by_exact_class() -> None:
    """A handler of int hears no bool, and nobody subscribed means nobody is told."""
    bus, heard = Bus(), list[object]()
    assert not bus
    bus.subscribe(int, heard.append, serves="a")
    bus.publish(True)
    bus.publish("text")
    assert heard == []
    assert bus.watched(int)
    assert not bus.watched(str)


def test_a_raise_goes_to_the_fault_rule_with_what_it_serves() -> None:
    """The rule decides; the other handlers and events still run. The default rule raises, and the bus works on after."""
    told, heard = list[str](), list[int]()
    bus = Bus(lambda serves, fault: told.append(f"{serves}: {fault}"))

    def broken(event: int) -> None:
        raise ValueError(str(event))

    bus.subscribe(int, broken, serves="report")
    bus.subscribe(int, heard.append, serves="core")
    bus.publish(1)
    assert (told, heard) == (["report: 1"], [1])
    bus.unsubscribe("report")
    bus.publish(2)
    assert (told, heard) == (["report: 1"], [1, 2])
    strict, got = Bus(), list[str]()
    strict.subscribe(int, broken, serves="core")
    strict.subscribe(str, got.append, serves="core")
    with pytest.raises(ValueError, match="1"):
        strict.publish(1)
    strict.publish("on")
    assert got == ["on"]
