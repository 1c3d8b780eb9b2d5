"""A line is a TCP connection to a venue or feed in a process of its own, one JSON message a line; law: what was said is said
again until it is acknowledged, and every command carries the epoch of the lease it was given under.

The plainest way to put a feed, a venue or a simulator of one behind evenkeel: `bot/testing/line_venue.py` is the other side.
Loopback only: there is no encryption and a token only says that both sides read the same secret.

    [[feeds]]                              [broker]
    kind = "line"                          kind = "line"
    options = {port = 7001}                options = {port = 7001}
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import msgspec

from bot.core.errors import ConfigError, DataError, Permanent
from bot.core.events import Accepted, Amended, Cancelled, FeedEvent, FeedState, Filled, Rejected, Unknown, VenueEvent
from bot.core.ports import Capabilities, FeedReport, Snapshot
from bot.domain.instruments import Instrument
from bot.domain.market import Quote
from bot.domain.orders import Order
from bot.domain.units import Nanos

LONGEST_LINE: Final = 1 << 20
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class _Message(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="do", forbid_unknown_fields=True):
    """One line."""


class Hello(_Message, frozen=True, gc=False, kw_only=True, tag="hello"):
    """Who speaks: a `broker` or `feed` client, with the token both sides know."""

    role: str
    token: str = ""


class TakeLease(_Message, frozen=True, gc=False, kw_only=True, tag="take_lease"):
    """Ask for the book; answered by `Lease`."""

    book: str
    holder: str


class Lease(_Message, frozen=True, gc=False, kw_only=True, tag="lease"):
    """The epoch of the book's lease."""

    epoch: int


class Submit(_Message, frozen=True, gc=False, kw_only=True, tag="submit"):
    """An order."""

    order: Order
    epoch: int


class CancelOrder(_Message, frozen=True, gc=False, kw_only=True, tag="cancel"):
    """Drop what is left of an order."""

    order_id: str
    account: str
    epoch: int


class KeepAlive(_Message, frozen=True, gc=False, kw_only=True, tag="keep_alive"):
    """Cancel everything unless this comes again within `seconds`."""

    seconds: float
    epoch: int


class Ask(_Message, frozen=True, gc=False, kw_only=True, tag="ask"):
    """Ask how everything stands; answered by `Answer` of the same number."""

    number: int
    since: Nanos


class Answer(_Message, frozen=True, gc=False, kw_only=True, tag="answer"):
    """How everything stands."""

    number: int
    snapshot: Snapshot


class Say(_Message, frozen=True, gc=False, kw_only=True, tag="say"):
    """Something that became of an order, numbered."""

    number: int
    event: Accepted | Rejected | Cancelled | Amended | Filled | Unknown


class Acknowledge(_Message, frozen=True, gc=False, kw_only=True, tag="acknowledge"):
    """What was said under `number` is safe."""

    number: int


class Tick(_Message, frozen=True, gc=False, kw_only=True, tag="tick"):
    """Quotes of one instant."""

    quotes: list[Quote]


class Beat(_Message, frozen=True, gc=False, kw_only=True, tag="beat"):
    """The other side lives."""


Message: TypeAlias = (
    Hello | TakeLease | Lease | Submit | CancelOrder | KeepAlive | Ask | Answer | Say | Acknowledge | Tick | Beat
)
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


def decode(line: bytes, where: str) -> Message:
    """The message of a line; DataError for anything else."""
    try:
        message: Message = _decode(line)
    except (msgspec.MsgspecError, ValueError) as fault:
        raise DataError(f"{where}: expected a message of the line protocol: {fault}") from fault
    return message


class LineOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the other side listens. `silent_after`: seconds without a word after which a feed counts as dead."""

    port: int
    host: str = "127.0.0.1"
    token: str = ""
    silent_after: float = 2.0
    name: str = "line"

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK:
            raise ValueError(f"host: expected loopback ({', '.join(sorted(LOOPBACK))}), found {self.host!r}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port: expected 1 to 65535, found {self.port}")
        if not self.silent_after > 0:
            raise ValueError(f"silent_after: expected above 0, found {self.silent_after}")


class Line:
    """One connection; lines go out in order, lines come in one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        self._reader, self._writer, self.where = reader, writer, where

    @classmethod
    async def dial(cls, options: LineOptions, role: str) -> Line:
        """Connect and say who speaks. Errors: OSError when nobody listens."""
        reader, writer = await asyncio.open_connection(options.host, options.port, limit=LONGEST_LINE)
        line = cls(reader, writer, f"{options.host}:{options.port}")
        await line.send(Hello(role=role, token=options.token))
        return line

    async def send(self, message: Message) -> None:
        """Write one message; waits while the other side does not read."""
        self._writer.write(encode(message) + b"\n")
        await self._writer.drain()

    async def receive(self) -> Message:
        """The next message. Errors: ConnectionResetError at the end, DataError for what is no message."""
        try:
            text = await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as fault:
            raise ConnectionResetError(f"{self.where}: the line was closed") from fault
        except asyncio.LimitOverrunError as fault:
            raise DataError(f"{self.where}: expected a line of at most {LONGEST_LINE} bytes") from fault
        return decode(text, self.where)

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class LineFeed:
    """Quotes over a line, stamped with when they came. Implements `Feed`."""

    Options = LineOptions
    recorded = False

    def __init__(self, options: LineOptions, *, wanted: Sequence[Instrument]) -> None:
        self.name = options.name
        self._options = options
        self._wanted = frozenset(item.id for item in wanted)
        self._report = FeedReport()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def events(self) -> AsyncIterator[FeedEvent]:
        """Quotes as they come, each call a new connection. Errors: OSError, ConnectionResetError, TimeoutError when silent."""
        line = await Line.dial(self._options, "feed")
        try:
            yield FeedState(ts_recv=0, feed=self.name, state="up", text=f"connected to {line.where}")
            while True:
                async with asyncio.timeout(self._options.silent_after):
                    message = await line.receive()
                if isinstance(message, Tick):
                    for quote in message.quotes:
                        if quote.instrument in self._wanted:
                            self._report.quotes += 1
                            yield quote
                        else:
                            self._count_refused("not of this run")
        finally:
            await line.close()

    def report(self) -> FeedReport:
        """What came so far."""
        return self._report

    def _count_refused(self, reason: str) -> None:
        self._report.refused[reason] = self._report.refused.get(reason, 0) + 1


class LineBroker:
    """A venue at the other end of a line. Implements `Broker`, `Acknowledges`, `Fenced` and `DeadMan`."""

    Options = LineOptions

    def __init__(self, options: Any, *, seed: int = 0) -> None:
        try:
            self._options = msgspec.convert(dict(options), LineOptions)
        except (msgspec.MsgspecError, ValueError) as fault:
            raise ConfigError(f"[broker.options]: {fault}") from fault
        self.capabilities = Capabilities(name=self._options.name, tombstones=True)
        self._line: Line | None = None
        self._epoch = 0
        self._leases: asyncio.Queue[int] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Snapshot]] = {}
        self._numbers = itertools.count(1)
        self._said: dict[int, int] = {}
        self._reader: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[Say | Exception] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._line = await Line.dial(self._options, "broker")
        self._events = asyncio.Queue()
        self._leases = asyncio.Queue()
        self._reader = asyncio.create_task(self._read(self._line), name="line reader")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        line, reader = self._line, self._reader
        self._line = self._reader = None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if line is not None:
            await line.close()

    async def take_lease(self, book: str, holder: str) -> int:
        """The epoch under which commands go from now on."""
        await self._connected().send(TakeLease(book=book, holder=holder))
        self._epoch = await self._leases.get()
        return self._epoch

    async def submit(self, order: Order) -> None:
        """Send an order. Errors: OSError when the line is down."""
        await self._connected().send(Submit(order=order, epoch=self._epoch))

    async def cancel(self, order_id: str) -> None:
        """Send a cancel. Errors: OSError when the line is down."""
        account = order_id.split("-", 1)[0]
        await self._connected().send(CancelOrder(order_id=order_id, account=account, epoch=self._epoch))

    async def keep_alive(self, seconds: float) -> None:
        """Start the countdown at the venue anew."""
        await self._connected().send(KeepAlive(seconds=seconds, epoch=self._epoch))

    async def events(self) -> AsyncIterator[VenueEvent]:
        """What the venue says. Errors: whatever ended the line."""
        while True:
            said = await self._events.get()
            if isinstance(said, Exception):
                raise said
            self._said[id(said.event)] = said.number
            yield said.event

    async def acknowledge(self, event: VenueEvent) -> None:
        """Tell the venue that this is safe."""
        number = self._said.pop(id(event), None)
        if number is not None:
            await self._connected().send(Acknowledge(number=number))

    async def snapshot(self, since: Nanos) -> Snapshot:
        """How everything stands at the venue. Errors: OSError when the line is down."""
        number = next(self._numbers)
        answer: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            await self._connected().send(Ask(number=number, since=since))
            return await answer
        finally:
            self._answers.pop(number, None)

    def _connected(self) -> Line:
        if self._line is None:
            raise ConnectionResetError("the line to the venue is down")
        return self._line

    async def _read(self, line: Line) -> None:
        try:
            while True:
                message = await line.receive()
                if isinstance(message, Say):
                    self._events.put_nowait(message)
                elif isinstance(message, Lease):
                    if message.epoch > self._epoch > 0:
                        text = f"another process took the book's lease: epoch {message.epoch}, ours is {self._epoch}"
                        self._events.put_nowait(Permanent(text))
                        return
                    self._leases.put_nowait(message.epoch)
                elif isinstance(message, Answer):
                    waiting = self._answers.get(message.number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message.snapshot)
        except (OSError, DataError) as fault:
            for asked in self._answers.values():
                if not asked.done():
                    asked.set_exception(ConnectionResetError(str(fault)))
            self._events.put_nowait(fault)
