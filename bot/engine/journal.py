"""The journal holds facts, one record a step, in an append-only file of chained frames; law: what is cut is seen, what is
changed is refused.

A frame is `length u32, crc32 u32, body, chain 32 bytes` (little endian); chain = sha256(previous chain + body), and the
chain before the first record is sha256 of the magic. Body 0 is the header. A torn tail is cut at the last whole frame;
damage inside is named with its record number. SQLite, Parquet and CSV are views made from it, never the truth.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias

import msgspec

from bot.core.errors import JournalError
from bot.core.events import Alarm, Corporate, Evidence, Lifecycle, TargetLine
from bot.domain.orders import Fill, Order, Refusal
from bot.domain.units import Nanos

MAGIC: Final = b"evenkeel journal 1\n"
_HEAD: Final = struct.Struct("<II")
_CHAIN_BYTES: Final = 32
_LONGEST: Final = 1 << 28

Durability: TypeAlias = Literal["live", "replay"]


class _Fact(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="fact"):
    account: str
    v: int = 1


class Started(_Fact, frozen=True, gc=False, kw_only=True, tag="started"):
    """The session is ready: every leg has its price; opening positions by instrument, with the mark they enter at."""

    positions: dict[str, Decimal]
    marks: dict[str, Decimal]


class TargetSet(_Fact, frozen=True, gc=False, kw_only=True, tag="target"):
    """A strategy changed what it wants to hold."""

    strategy: str
    book: str
    lines: tuple[TargetLine, ...]
    reason: str
    evidence: Evidence | None = None


class Skipped(_Fact, frozen=True, gc=False, kw_only=True, tag="skipped"):
    """A strategy was due to decide and could not, with the reason."""

    strategy: str
    underlying: str
    reason: str


class Ordered(_Fact, frozen=True, gc=False, kw_only=True, tag="order"):
    """An order was released to the venue."""

    order: Order


class Refused(_Fact, frozen=True, gc=False, kw_only=True, tag="refused"):
    """A limit refused an order before it left."""

    refusal: Refusal


class VenueSaid(_Fact, frozen=True, gc=False, kw_only=True, tag="venue"):
    """The venue accepted, rejected, cancelled or amended an order, or nobody knows."""

    order_id: str
    what: str
    text: str = ""


class Executed(_Fact, frozen=True, gc=False, kw_only=True, tag="fill"):
    """A fill, with the books it was allocated to."""

    fill: Fill
    allocations: dict[str, Decimal]


class Transferred(_Fact, frozen=True, gc=False, kw_only=True, tag="transfer"):
    """Two strategies of one account crossed opposite targets at mid."""

    instrument: str
    seller: str
    buyer: str
    quantity: Decimal
    price: Decimal


class Ended(_Fact, frozen=True, gc=False, kw_only=True, tag="lifecycle"):
    """An option ended: exercise, assignment, expiry or settlement."""

    event: Lifecycle


class Adjusted(_Fact, frozen=True, gc=False, kw_only=True, tag="corporate"):
    """A corporate event changed holdings or froze an underlying."""

    event: Corporate
    before: dict[str, Decimal]
    after: dict[str, Decimal]


class Alarmed(_Fact, frozen=True, gc=False, kw_only=True, tag="alarm"):
    """Something a person should see."""

    alarm: Alarm


class Remembered(_Fact, frozen=True, gc=False, kw_only=True, tag="memory"):
    """A strategy's memory changed."""

    strategy: str
    memory: msgspec.Raw


class Controlled(_Fact, frozen=True, gc=False, kw_only=True, tag="control"):
    """A person's word was carried out."""

    verb: str
    argument: str = ""


class Closed(_Fact, frozen=True, gc=False, kw_only=True, tag="closed"):
    """The session ended: what is held and owed then."""

    positions: dict[str, Decimal]
    cash: dict[str, Decimal]
    marks: dict[str, Decimal]


Fact: TypeAlias = (
    Started
    | TargetSet
    | Skipped
    | Ordered
    | Refused
    | VenueSaid
    | Executed
    | Transferred
    | Ended
    | Adjusted
    | Alarmed
    | Remembered
    | Controlled
    | Closed
)


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
        if header.durability == "live":
            raise JournalError(
                "journal durability 'live' (fsync before send) is not delivered in this release; use 'replay'"
            )
        self._file: BinaryIO | None = None
        self._path = path
        self._header = header
        self.chain = hashlib.sha256(MAGIC).digest()
        self.facts_digest = hashlib.sha256()
        self.seq = 0

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


class JournalReader:
    """The header and steps of a journal file, every frame proved as it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames = _frames(path)
        first = next(self._frames, None)
        if first is None:
            raise JournalError(f"{path}: expected a header record, found none")
        try:
            self.header = _decode_header(first)
        except msgspec.MsgspecError as fault:
            raise JournalError(f"{path}: header: {fault}") from fault

    def __iter__(self) -> Iterator[Step]:
        for number, body in enumerate(self._frames):
            try:
                yield _decode_step(body)
            except msgspec.MsgspecError as fault:
                raise JournalError(f"{self._path}: record {number + 1}: {fault}") from fault


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


def _frames(path: Path) -> Iterator[bytes]:
    """The bodies of the whole frames of a file; a torn tail ends them, damage inside raises."""
    try:
        file = path.open("rb")
    except OSError as fault:
        raise JournalError(f"{path}: cannot be read: {fault.strerror}") from fault
    with file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise JournalError(f"{path}: expected an evenkeel journal, found another beginning")
        chain = hashlib.sha256(MAGIC).digest()
        number = 0
        while True:
            start = file.tell()
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            length, crc = _HEAD.unpack(head)
            if length > _LONGEST:
                raise JournalError(f"{path}: record {number} at byte {start}: length {length} is not credible")
            if start + _HEAD.size + length + _CHAIN_BYTES > size:
                return
            body = file.read(length)
            link = file.read(_CHAIN_BYTES)
            chain = hashlib.sha256(chain + body).digest()
            if zlib.crc32(body) != crc or link != chain:
                raise JournalError(
                    f"{path}: record {number} at byte {start}: its bytes do not match its checksum and chain"
                )
            yield body
            number += 1
