"""Market data is what others showed or did: quotes and prints, one by one or as columns, and the view of their latest state.

Law: prices are finite and positive, a blank side is None (NaN in a column) and means withdrawn, bid <= ask (locked is
legal), and `ts_recv`, the instant we could know it, drives everything. A bar's `ts_recv` is its end.
"""

from __future__ import annotations

import math
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.units import Nanos


class Quote(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="quote", tag_field="type"):
    """The top of one book. None on a side means that side is withdrawn; size None means the venue does not say."""

    instrument: str
    ts_event: Nanos
    ts_recv: Nanos
    bid: float | None
    ask: float | None
    bid_size: float | None = None
    ask_size: float | None = None

    def __post_init__(self) -> None:
        for side, price in (("bid", self.bid), ("ask", self.ask)):
            if price is not None and not (math.isfinite(price) and price > 0.0):
                raise ValueError(f"{self.instrument}: {side}: expected a positive finite price, found {price}")
        if self.bid is not None and self.ask is not None and self.bid > self.ask:
            raise ValueError(f"{self.instrument}: crossed quote, bid {self.bid} above ask {self.ask}")


class Trade(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag="trade", tag_field="type"):
    """A market print, never our own."""

    instrument: str
    ts_event: Nanos
    ts_recv: Nanos
    price: float
    size: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.price) and self.price > 0.0):
            raise ValueError(f"{self.instrument}: print: expected a positive finite price, found {self.price}")


class QuoteBatch:
    """Many valid quotes as columns, `ts_recv` never decreasing. 44 bytes a row.

    Shape: every column (n,). instrument int32 (Universe order); ts_event, ts_recv int64 ns; bid, ask float64 with NaN for
    a withdrawn side; bid_size, ask_size float32 with NaN where the venue does not say.
    """

    __slots__ = ("ask", "ask_size", "bid", "bid_size", "instrument", "ts_event", "ts_recv")

    def __init__(
        self,
        *,
        instrument: NDArray[np.int32],
        ts_event: NDArray[np.int64],
        ts_recv: NDArray[np.int64],
        bid: NDArray[np.float64],
        ask: NDArray[np.float64],
        bid_size: NDArray[np.float32],
        ask_size: NDArray[np.float32],
    ) -> None:
        self.instrument = instrument
        self.ts_event = ts_event
        self.ts_recv = ts_recv
        self.bid = bid
        self.ask = ask
        self.bid_size = bid_size
        self.ask_size = ask_size

    def __len__(self) -> int:
        return len(self.ts_recv)

    def rows(self, start: int, stop: int) -> QuoteBatch:
        """The rows [start, stop) as a view."""
        return QuoteBatch(**{name: getattr(self, name)[start:stop] for name in self.__slots__})

    def received_at(self, ts: Nanos) -> QuoteBatch:
        """The same rows, all received at one instant: a live feed's, stamped by whoever takes them in."""
        columns = {name: getattr(self, name) for name in self.__slots__}
        return QuoteBatch(**columns | {"ts_recv": np.full(len(self), ts, dtype=np.int64)})


class TradeBatch:
    """Many prints as columns, `ts_recv` never decreasing.

    Shape: every column (n,). instrument int32; ts_event, ts_recv int64 ns; price float64; size float32 (NaN unknown).
    """

    __slots__ = ("instrument", "price", "size", "ts_event", "ts_recv")

    def __init__(
        self,
        *,
        instrument: NDArray[np.int32],
        ts_event: NDArray[np.int64],
        ts_recv: NDArray[np.int64],
        price: NDArray[np.float64],
        size: NDArray[np.float32],
    ) -> None:
        self.instrument = instrument
        self.ts_event = ts_event
        self.ts_recv = ts_recv
        self.price = price
        self.size = size

    def __len__(self) -> int:
        return len(self.ts_recv)

    def rows(self, start: int, stop: int) -> TradeBatch:
        """The rows [start, stop) as a view."""
        return TradeBatch(**{name: getattr(self, name)[start:stop] for name in self.__slots__})

    def received_at(self, ts: Nanos) -> TradeBatch:
        """The same rows, all received at one instant: a live feed's, stamped by whoever takes them in."""
        columns = {name: getattr(self, name) for name in self.__slots__}
        return TradeBatch(**columns | {"ts_recv": np.full(len(self), ts, dtype=np.int64)})


class MarketView(Protocol):
    """What everyone may ask of the latest market state; law: it never shows anything later than the loop's clock."""

    def bid(self, instrument: int) -> float:
        """Best bid, NaN while withdrawn or never seen."""

    def ask(self, instrument: int) -> float:
        """Best ask, NaN while withdrawn or never seen."""

    def bid_size(self, instrument: int) -> float:
        """Displayed size at the bid, NaN when the venue does not say."""

    def ask_size(self, instrument: int) -> float:
        """Displayed size at the ask, NaN when the venue does not say."""

    def last(self, instrument: int) -> float:
        """Last print, NaN before the first."""

    def quote_ts(self, instrument: int) -> Nanos:
        """When the quote was last received, -1 before the first."""

    def last_ts(self, instrument: int) -> Nanos:
        """When the last print was received, -1 before the first."""

    def mid(self, instrument: int) -> float:
        """Middle of a two-sided uncrossed quote, else NaN."""
