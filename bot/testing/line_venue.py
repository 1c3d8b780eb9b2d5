"""The other side of a line: a venue and its market in a process of their own; law: its ledger is written before it speaks.

    python -m bot.testing.line_venue --port 7001 --instrument US:XYZ --price 100 --ledger ledger.json

Quotes of each `--instrument` walk at random `--rate` times a second. `--faults lost,repeated,late` (shares) worry the line. It
ends with its parent or on SIGTERM, and prints its port first, so that `--port 0` may be used.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from adapters.line import (
    LONGEST_LINE,
    Acknowledge,
    Answer,
    Ask,
    Beat,
    CancelOrder,
    Hello,
    KeepAlive,
    Lease,
    Line,
    Message,
    Say,
    Submit,
    TakeLease,
    Tick,
)
from bot.core.errors import DataError
from bot.domain.market import Quote
from bot.domain.orders import Fill
from bot.testing.venue import Venue, VenueSettings

D = Decimal
SAID_AGAIN_AFTER = 1.0
"""Seconds after which what was not acknowledged is said again."""


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What the venue knows for certain, for a test to compare with."""

    fills: list[Fill]
    positions: dict[str, Decimal]
    orders: dict[str, str]
    seen: int
    repeated: int
    refused_epochs: int
    dead_man_fired: int


class LineVenue:
    """A venue with its market, served to any number of lines."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.rng = Random(arguments.seed)
        self.rate, self.token, self.ledger_path = arguments.rate, arguments.token, arguments.ledger
        self.vol = arguments.vol
        self.mids = {name: float(arguments.price) for name in arguments.instrument}
        self.venue = Venue(
            self._price,
            rng=Random(arguments.seed + 1),
            settings=VenueSettings(partial=arguments.partial, reject=arguments.reject),
        )
        self.lost, self.repeated, self.late = arguments.faults
        self.feed_faults = arguments.feed_faults
        self.cut_every = arguments.cut_every
        self._cut_at = time.monotonic() + arguments.cut_every
        self._stalled_until = 0.0
        self._last_tick: Tick | None = None
        self.feeds: set[Line] = set()
        self.brokers: dict[Line, dict[int, float]] = {}
        self.seen = 0
        self._written = b""

    def _price(self, instrument: str) -> tuple[Decimal, Decimal] | None:
        mid = self.mids.get(instrument)
        if mid is None:
            return None
        return D(str(round(mid - 0.01, 2))), D(str(round(mid + 0.01, 2)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One line's life."""
        line = Line(reader, writer, "client")
        try:
            hello = await line.receive()
            if not isinstance(hello, Hello) or hello.token != self.token:
                return
            if hello.role == "feed":
                self.feeds.add(line)
                await reader.read()
                return
            self.brokers[line] = {}
            while True:
                await self._obey(line, await line.receive())
        except (OSError, DataError):
            return
        finally:
            self.feeds.discard(line)
            self.brokers.pop(line, None)
            await line.close()

    async def _obey(self, line: Line, message: Message) -> None:
        now = time.time_ns()
        match message:
            case TakeLease():
                lease = Lease(epoch=self.venue.take_lease(message.holder))
                for other in list(self.brokers):
                    with contextlib.suppress(OSError):
                        await other.send(lease)  # who held it before learns that it does not any more
            case Ask():
                await line.send(Answer(number=message.number, snapshot=self.venue.snapshot(message.since)))
            case Acknowledge():
                self.venue.acknowledge(message.number)
            case KeepAlive():
                self.venue.keep_alive(message.seconds, message.epoch, now)
            case Submit() | CancelOrder():
                self.seen += 1
                if self.rng.random() < self.lost:
                    return
                times = 2 if self.rng.random() < self.repeated else 1
                delay = self.rng.uniform(0.2, 2.0) if self.rng.random() < self.late else 0.0
                for _ in range(times):
                    asyncio.get_running_loop().call_later(delay, self._take, message)

    def _take(self, message: Submit | CancelOrder) -> None:
        now = time.time_ns()
        if isinstance(message, Submit):
            self.venue.submit(message.order, message.epoch, now)
        else:
            self.venue.cancel(message.order_id, message.account, message.epoch, now)

    async def market(self) -> None:
        """Prices walk, orders fill, the ledger is written, and then everybody is told."""
        every = 1.0 / self.rate
        step = self.vol * math.sqrt(every / (365 * 86400.0))
        due = time.monotonic()
        while True:
            due += every
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.time_ns()
            quotes = []
            for name, mid in self.mids.items():
                moved = self.mids[name] = round(mid * math.exp(self.rng.gauss(0.0, step)), 2)
                quotes.append(Quote(instrument=name, ts_event=now, ts_recv=now, bid=moved - 0.01, ask=moved + 0.01))
            if self.cut_every and time.monotonic() > self._cut_at:
                self._cut_at = time.monotonic() + self.cut_every
                for line in [*self.feeds, *self.brokers]:
                    await line.close()
            self.venue.work(now)
            self._write()
            await self._tell(quotes)

    async def _tell(self, quotes: list[Quote]) -> None:
        for line in list(self.feeds):
            with contextlib.suppress(OSError):
                for tick in self._as_the_feed_has_it(quotes):
                    await line.send(tick)
        now = time.monotonic()
        for line, said_at in list(self.brokers.items()):
            with contextlib.suppress(OSError):
                for number, event in self.venue.said:
                    if now - said_at.get(number, -1e9) > SAID_AGAIN_AFTER:
                        said_at[number] = now
                        if self.rng.random() >= self.lost:
                            await line.send(Say(number=number, event=event))
                await line.send(Beat())

    def _as_the_feed_has_it(self, quotes: list[Quote]) -> list[Tick | Beat]:
        """The tick as it is, or with the feed's faults: a stall of 0.5 to 3 s, said twice, or an older one instead."""
        stalled, repeated, late = self.feed_faults
        now = time.monotonic()
        if now < self._stalled_until:
            return [Beat()]
        if self.rng.random() < stalled:
            self._stalled_until = now + self.rng.uniform(0.5, 3.0)
            return [Beat()]
        tick = Tick(quotes=quotes)
        before, self._last_tick = self._last_tick, tick
        if before is not None and self.rng.random() < late:
            return [before]
        return [tick, tick] if self.rng.random() < repeated else [tick]

    def _write(self) -> None:
        """The ledger as a file, replaced whole, only when it changed."""
        if self.ledger_path is None:
            return
        venue = self.venue
        ledger = Ledger(
            fills=venue.fills,
            positions={key: quantity for key, quantity in venue.positions.items() if quantity},
            orders={key: held.status for key, held in venue.orders.items()},
            seen=self.seen,
            repeated=venue.repeated,
            refused_epochs=venue.refused_epochs,
            dead_man_fired=venue.dead_man_fired,
        )
        key = msgspec.json.encode([len(venue.fills), ledger.orders, ledger.seen])
        if key == self._written:
            return
        self._written = key
        path = Path(self.ledger_path)
        aside = path.with_suffix(".part")
        aside.write_bytes(msgspec.json.encode(ledger))
        aside.replace(path)


async def main(arguments: argparse.Namespace) -> None:
    """Serve until told to stop."""
    venue = LineVenue(arguments)
    server = await asyncio.start_server(venue.serve, "127.0.0.1", arguments.port, limit=LONGEST_LINE)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  whoever started this reads the port
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    market = asyncio.create_task(venue.market(), name="market")
    parent = os.getppid()
    while not stop.is_set() and not market.done() and (os.getppid() == parent or not arguments.with_parent):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)
    market.cancel()
    server.close()


def _faults(text: str) -> tuple[float, float, float]:
    lost, repeated, late = (float(part) for part in text.split(","))
    return lost, repeated, late


def parse(words: list[str]) -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(prog="line_venue", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--instrument", action="append", required=True)
    parser.add_argument("--price", type=float, default=100.0)
    parser.add_argument("--vol", type=float, default=0.5, help="of the walk, a year of calendar time")
    parser.add_argument("--rate", type=float, default=20.0, help="quotes a second of each instrument")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ledger", default=None)
    parser.add_argument("--token", default="")
    parser.add_argument("--partial", type=float, default=0.2)
    parser.add_argument("--reject", type=float, default=0.0)
    parser.add_argument("--faults", type=_faults, default=(0.0, 0.0, 0.0), help="shares lost,repeated,late")
    parser.add_argument("--feed-faults", type=_faults, default=(0.0, 0.0, 0.0), help="shares stalled,repeated,late")
    parser.add_argument("--cut-every", type=float, default=0.0, help="seconds between cuts of every line, 0 for none")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this does")
    return parser.parse_args(words)


if __name__ == "__main__":
    asyncio.run(main(parse(sys.argv[1:])))
