"""The journal holds facts, one record a step, in an append-only file of chained frames; law: what is cut is seen, what is
changed is refused.

A frame is `length u32, crc32 u32, body, chain 32 bytes` (little endian); chain = sha256(previous chain + body), and the
chain before the first record is sha256 of the magic. Body 0 is the header. A torn tail is cut at the last whole frame;
damage inside is named with its record number. SQLite, Parquet and CSV are views made from it, never the truth.

Its durability is named in the header. A `replay` journal is written in batches and synced at the end. A `live` journal
counts a record as durable once `commit` has synced it, in a thread of its own; nothing that a record says may leave the
process before. A `replay` journal never serves live recovery.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias

import msgspec

from bot.core.errors import JournalError
from bot.domain.units import Nanos
from bot.engine.facts import (
    AccountState,
    Adjusted,
    Alarmed,
    Asked,
    Balanced,
    Began,
    Closed,
    Controlled,
    Ended,
    Executed,
    Fact,
    Financed,
    Froze,
    LedgerState,
    Ordered,
    OrderRecord,
    Reconciled,
    Refused,
    Remembered,
    Restated,
    Skipped,
    Snapshotted,
    Started,
    TargetSet,
    Transferred,
    VenueSaid,
)
from bot.engine.store import FileStore, Store

MAGIC: Final = b"evenkeel journal 1\n"
_HEAD: Final = struct.Struct("<II")
_CHAIN_BYTES: Final = 32
_LONGEST: Final = 1 << 28
_BLOCK: Final = 1 << 22
MOST_WAITING: Final = 64 << 20
"""Bytes that may wait for a disk that does not write before the journal refuses more."""

Durability: TypeAlias = Literal["live", "replay"]


class Header(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a journal is of: run, configuration, inputs, release and durability."""

    run_id: str
    config_hash: str
    release: str
    durability: Durability
    feeds: dict[str, dict[str, str]] = {}
    v: int = 1


class Step(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The facts of one step, at `ts`, having seen the first `tape` rows of market data."""

    seq: int
    ts: Nanos
    tape: int
    facts: list[Fact]
    v: int = 1


_encode = msgspec.json.Encoder().encode
_decode_step = msgspec.json.Decoder(Step).decode
_decode_header = msgspec.json.Decoder(Header).decode


class JournalWriter:
    """Appends steps to a file, or to memory when `path` is None. Each append returns at once; `close` makes it durable."""

    def __init__(self, path: Path | None, header: Header) -> None:
        if header.durability == "live" and not isinstance(self, LiveJournal):
            raise JournalError("journal: expected durability 'replay' of a file written in batches, found 'live'")
        self._file: BinaryIO | None = None
        self._path = path
        self._header = header
        self.chain = hashlib.sha256(MAGIC).digest()
        self.facts_digest = hashlib.sha256()
        self.seq = 0

    @property
    def header(self) -> Header:
        """What this journal is of, as this process has it."""
        return self._header

    @property
    def durable(self) -> int:
        """How many records may be acted upon: all of them, since a replay can be run again."""
        return self.seq

    def cite(self, feeds: dict[str, dict[str, str]]) -> None:
        """Name the inputs by digest in the header; before the journal is entered."""
        self._header = msgspec.structs.replace(self._header, feeds=feeds)

    def __enter__(self) -> JournalWriter:
        if self._path is not None:
            try:
                self._file = self._path.open("xb")
            except FileExistsError as fault:
                raise JournalError(
                    f"{self._path}: expected no journal yet, found one: it is never overwritten"
                ) from fault
            self._file.write(MAGIC)
        self._frame(_encode(self._header))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, ts: Nanos, tape: int, facts: list[Fact]) -> None:
        """Add one step."""
        body = _encode(Step(seq=self.seq, ts=ts, tape=tape, facts=facts))
        self.seq += 1
        self.facts_digest.update(body)
        self._frame(body)

    def close(self) -> None:
        """Write what is buffered and sync it to disk."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None

    def _frame(self, body: bytes) -> None:
        if self._path is not None and self._file is None:
            raise JournalError(f"{self._path}: a record was given to a journal that is not open")
        self.chain = hashlib.sha256(self.chain + body).digest()
        if self._file is not None:
            self._file.write(_HEAD.pack(len(body), zlib.crc32(body)) + body + self.chain)


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """Where a journal's whole frames end: records after the header, bytes, the chain there, and the header."""

    header: Header
    records: int
    size: int
    chain: bytes


class LiveJournal(JournalWriter):
    """A journal that is synced before anybody acts on it. `append` never waits; `commit`, called elsewhere, does.

    One thread appends, one other may commit. A fault of the disk leaves every record waiting, in order: the torn end is
    cut and all of it written again at the next `commit`.
    """

    def __init__(self, store: Store, header: Header, tail: Tail | None = None, *, nudge: Callable[[], None]) -> None:
        super().__init__(None, header)
        self._store = store
        self._nudge = nudge
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._waiting_bytes = 0
        self._size = 0 if tail is None else tail.size
        self._durable = 0
        self.fault: OSError | None = None
        """Why the last commit failed; None when it did not."""
        self.commit_seconds: deque[float] = deque(maxlen=1000)
        """How long the last commits took, newest last."""
        if tail is not None:
            self.seq = self._durable = tail.records
            self.chain = tail.chain
        else:
            self._waiting.append((0, MAGIC))
            self._frame(_encode(header))

    @property
    def durable(self) -> int:
        """How many records are synced."""
        return self._durable

    @property
    def waiting(self) -> int:
        """Bytes not yet synced."""
        return self._waiting_bytes

    def cite(self, feeds: dict[str, dict[str, str]]) -> None:
        """A live journal's inputs are not files: nothing to name."""

    def __enter__(self) -> LiveJournal:
        return self

    def append(self, ts: Nanos, tape: int, facts: list[Fact]) -> None:
        """Add one step to what waits for the disk. JournalError when too much waits: acting on no record is better."""
        if self._waiting_bytes > MOST_WAITING:
            raise JournalError(f"{self._store.name}: {self._waiting_bytes} bytes wait for the disk; no more are taken")
        super().append(ts, tape, facts)
        self._nudge()

    def commit(self) -> bool:
        """Write and sync what waits; True when it did. Errors: OSError, kept in `fault` too, and nothing is lost by it."""
        count = len(self._waiting)
        if not count:
            return False
        began = time.perf_counter()
        frames = [self._waiting[i] for i in range(count)]
        data = b"".join(frame for _, frame in frames)
        try:
            if self.fault is not None:
                self._store.cut(self._size)
            self._store.append(data)
            self._store.sync()
        except OSError as fault:
            self.fault = fault
            raise
        self.fault = None
        self._size += len(data)
        self._durable = max(self._durable, frames[-1][0])
        for _ in range(count):
            self._waiting_bytes -= len(self._waiting.popleft()[1])
        self.commit_seconds.append(time.perf_counter() - began)
        return True

    def close(self) -> None:
        """Commit what waits and give the store up."""
        try:
            while self.commit():
                pass
        finally:
            self._store.close()

    def _frame(self, body: bytes) -> None:
        self.chain = hashlib.sha256(self.chain + body).digest()
        frame = _HEAD.pack(len(body), zlib.crc32(body)) + body + self.chain
        self._waiting_bytes += len(frame)
        self._waiting.append((self.seq, frame))


class CommitThread:
    """The thread that makes a live journal durable: it commits whatever waits, together, as often as the disk allows.

    `done` is called on this thread after each commit, with None or the fault; a fault is tried again after a pause. Set it
    before `start`.
    """

    def __init__(self, *, pause: float = 0.05) -> None:
        self.done: Callable[[OSError | None], None] = lambda _fault: None
        self._pause = pause
        self._work = threading.Event()
        self._leave = False
        self._journal: LiveJournal | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self.beats = 0
        """Rounds of the thread so far: a watchdog sees it alive by their growth."""

    def nudge(self) -> None:
        """Say that something waits."""
        self._work.set()

    def start(self, journal: LiveJournal) -> None:
        """Begin to commit this journal."""
        self._journal = journal
        self._thread.start()
        self._work.set()

    def stop(self) -> None:
        """Let the thread finish its round and end."""
        self._leave = True
        self._work.set()
        if self._thread.is_alive():
            self._thread.join()

    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        assert self._journal is not None
        while not self._leave:
            self._work.wait(1.0)
            self._work.clear()
            self.beats += 1
            try:
                if self._journal.commit():
                    self.done(None)
            except OSError as fault:
                self.done(fault)
                time.sleep(self._pause)
                self._work.set()


def open_live(
    store: Store, header: Header, *, nudge: Callable[[], None], replayed: Callable[[Step], None]
) -> LiveJournal:
    """The journal in a store, taken up where its whole records end: each is proved and given to `replayed` first.

    A torn tail is cut. Errors: JournalError naming the first broken record, a journal of another kind or configuration.
    """
    size = store.open()
    try:
        tail = _take_up(store, size, header, replayed)
    except BaseException:
        store.close()
        raise
    return LiveJournal(store, header, tail, nudge=nudge)


def _take_up(store: Store, size: int, header: Header, replayed: Callable[[Step], None]) -> Tail | None:
    if size <= len(MAGIC) and MAGIC.startswith(store.read(0, size)):
        store.cut(0)
        return None
    chain, end, number, found = hashlib.sha256(MAGIC).digest(), len(MAGIC), -1, None
    since: list[tuple[int, bytes]] = []  # records from the last snapshot on: what lies before it need not be read again
    for body, chain, end in _chained(store.name, store.read, size):  # noqa: B007  the last of each is what counts
        number += 1
        if number == 0:
            found = _as_header(store.name, body)
            if found.durability != "live":
                raise JournalError(
                    f"{store.name}: expected a live journal, found one of durability {found.durability!r}"
                )
            continue
        if _SNAPSHOT in body and _is_snapshot(_as_step(store.name, number, body)):
            since.clear()
        since.append((number, body))
    for at, body in since:
        replayed(_as_step(store.name, at, body))
    if end < size:
        store.cut(end)
    if found is None:
        store.cut(0)
        return None
    return Tail(header=found, records=number, size=end, chain=chain)


_SNAPSHOT: Final = b'"fact":"snapshot"'


def _is_snapshot(step: Step) -> bool:
    """True when the record holds every account as it stood: all its facts before it may be left out."""
    return any(isinstance(fact, Snapshotted) for fact in step.facts)


class JournalReader:
    """The header and steps of a journal file, every frame proved as it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames = _frames(path)
        first = next(self._frames, None)
        if first is None:
            raise JournalError(f"{path}: expected a header record, found none")
        self.header = _as_header(str(path), first)

    def __iter__(self) -> Iterator[Step]:
        for number, body in enumerate(self._frames):
            yield _as_step(str(self._path), number + 1, body)


def _as_header(name: str, body: bytes) -> Header:
    try:
        return _decode_header(body)
    except msgspec.MsgspecError as fault:
        raise JournalError(f"{name}: header: {fault}") from fault


def _as_step(name: str, number: int, body: bytes) -> Step:
    try:
        return _decode_step(body)
    except (msgspec.MsgspecError, ValueError) as fault:
        raise JournalError(f"{name}: record {number}: {fault}") from fault


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a proof of a journal found: whole records, the facts' digest, and bytes of a torn tail."""

    records: int
    facts_digest: str
    torn_bytes: int


def verify(path: Path) -> Verification:
    """Proof of the chain of a journal; JournalError names the first broken record."""
    digest = hashlib.sha256()
    records = -1
    end = len(MAGIC)
    for body in _frames(path):
        records += 1
        end += _HEAD.size + len(body) + _CHAIN_BYTES
        if records:
            digest.update(body)
    return Verification(records=max(records, 0), facts_digest=digest.hexdigest(), torn_bytes=path.stat().st_size - end)


def repair(path: Path) -> int:
    """Cut a journal at its last whole record before the first that is torn or broken; how many bytes were cut.

    What was cut is kept beside it, so that nothing is destroyed.
    """
    end = len(MAGIC)
    try:
        for body in _frames(path):
            end += _HEAD.size + len(body) + _CHAIN_BYTES
    except JournalError:
        if end == len(MAGIC):
            raise
    cut = path.stat().st_size - end
    if cut:
        aside = path.with_name(f"{path.name}.cut-at-{end}")
        with path.open("rb") as file:
            file.seek(end)
            kept = file.read()
        with aside.open("xb") as file:
            file.write(kept)
            file.flush()
            os.fsync(file.fileno())
        store = FileStore(path)
        store.open()
        store.cut(end)
        store.close()
    return cut


def _frames(path: Path) -> Iterator[bytes]:
    """The bodies of the whole frames of a file; a torn tail ends them, damage inside raises."""
    try:
        file = path.open("rb")
    except OSError as fault:
        raise JournalError(f"{path}: cannot be read: {fault.strerror}") from fault
    with file:

        def read(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        size = os.fstat(file.fileno()).st_size
        for body, _, _ in _chained(str(path), read, size):
            yield body


def _chained(name: str, read: Callable[[int, int], bytes], size: int) -> Iterator[tuple[bytes, bytes, int]]:
    """(body, chain, end) of each whole frame in order, read in blocks; a torn tail ends them, damage inside raises."""
    block = read(0, _BLOCK)
    if not block.startswith(MAGIC):
        raise JournalError(f"{name}: expected an evenkeel journal, found another beginning")
    chain = hashlib.sha256(MAGIC).digest()
    base, at, number = 0, len(MAGIC), 0
    while True:
        if at + _HEAD.size > len(block):
            block, base, at = read(base + at, _BLOCK), base + at, 0
            if len(block) < _HEAD.size:
                return
        length, crc = _HEAD.unpack_from(block, at)
        whole = _HEAD.size + length + _CHAIN_BYTES
        if length > _LONGEST or base + at + whole > size:
            if _holds_a_frame(read, base + at, size):
                raise JournalError(
                    f"{name}: record {number} at byte {base + at}: its length {length} is damaged, whole records follow"
                )
            return
        if at + whole > len(block):
            block, base, at = read(base + at, max(_BLOCK, whole)), base + at, 0
        body = block[at + _HEAD.size : at + _HEAD.size + length]
        link = block[at + _HEAD.size + length : at + whole]
        chain = hashlib.sha256(chain + body).digest()
        if zlib.crc32(body) != crc or link != chain:
            if not any(read(base + at + whole - 1, size - base - at - whole + 1)):
                return  # a disk that lengthened the file and never wrote the end of it: nothing but zeros from inside here
            raise JournalError(
                f"{name}: record {number} at byte {base + at}: its bytes do not match its checksum and chain"
            )
        at += whole
        yield body, chain, base + at
        number += 1


def _holds_a_frame(read: Callable[[int, int], bytes], start: int, size: int) -> bool:
    """True when a whole frame lies somewhere beyond a broken one: then it is no torn tail, and cutting it would lose facts.

    A frame's link is made from the 32 bytes before it, so it can be proved alone.
    """
    rest = read(start, size - start)
    for at in range(_HEAD.size + _CHAIN_BYTES, len(rest) - _HEAD.size - _CHAIN_BYTES):
        length, crc = _HEAD.unpack_from(rest, at)
        end = at + _HEAD.size + length
        if end + _CHAIN_BYTES > len(rest) or not length:
            continue
        body = rest[at + _HEAD.size : end]
        if zlib.crc32(body) == crc:
            before = rest[at - _CHAIN_BYTES : at]
            if hashlib.sha256(before + body).digest() == rest[end : end + _CHAIN_BYTES]:
                return True
    return False


__all__ = [
    "AccountState",
    "Adjusted",
    "Alarmed",
    "Asked",
    "Balanced",
    "Began",
    "Closed",
    "CommitThread",
    "Controlled",
    "Durability",
    "Ended",
    "Executed",
    "Fact",
    "FileStore",
    "Financed",
    "Froze",
    "Header",
    "JournalReader",
    "JournalWriter",
    "LedgerState",
    "LiveJournal",
    "OrderRecord",
    "Ordered",
    "Reconciled",
    "Refused",
    "Remembered",
    "Restated",
    "Skipped",
    "Snapshotted",
    "Started",
    "Step",
    "Store",
    "Tail",
    "TargetSet",
    "Transferred",
    "VenueSaid",
    "Verification",
    "open_live",
    "repair",
    "verify",
]  # fmt: skip
