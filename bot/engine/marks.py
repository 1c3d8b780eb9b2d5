"""Marks are the latest state of every instrument, as columns; law: one room writes them in place, in event order only.

Columns are `array.array` buffers (a scalar write costs a third of numpy's) with numpy views for array work.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
from numpy.typing import NDArray

from bot.domain.instruments import Universe
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.orders import QuoteRef
from bot.domain.units import NEVER, Nanos

NAN = math.nan


def carry_forward(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN replaced by the last number before it. Shape: (n,).

    >>> carry_forward(np.array([1.0, np.nan, 3.0])).tolist()
    [1.0, 1.0, 3.0]
    """
    if not len(values):
        return values
    row = np.where(np.isnan(values), 0, np.arange(len(values)))
    return np.asarray(values[np.maximum.accumulate(row)])


class Marks:
    """The market's latest state by column number. Implements `MarketView`."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self.bids = array("d")
        self.asks = array("d")
        self.bid_sizes = array("d")
        self.ask_sizes = array("d")
        self.lasts = array("d")
        self.quote_times = array("q")
        self.last_times = array("q")
        self.version = 0
        self.grow()

    def grow(self) -> None:
        """Make room for instruments listed since; columns are reallocated so that earlier views stay valid."""
        missing = len(self._universe) - len(self.bids)
        for name in ("bids", "asks", "bid_sizes", "ask_sizes", "lasts"):
            setattr(self, name, array("d", list(getattr(self, name)) + [NAN] * missing))
        for name in ("quote_times", "last_times"):
            setattr(self, name, array("q", list(getattr(self, name)) + [NEVER] * missing))
        self.bid_view: NDArray[np.float64] = np.frombuffer(self.bids, dtype=np.float64)
        self.ask_view: NDArray[np.float64] = np.frombuffer(self.asks, dtype=np.float64)
        self.bid_size_view: NDArray[np.float64] = np.frombuffer(self.bid_sizes, dtype=np.float64)
        self.ask_size_view: NDArray[np.float64] = np.frombuffer(self.ask_sizes, dtype=np.float64)
        self.last_view: NDArray[np.float64] = np.frombuffer(self.lasts, dtype=np.float64)
        self.quote_time_view = np.frombuffer(self.quote_times, dtype=np.int64)
        self._last_time_view = np.frombuffer(self.last_times, dtype=np.int64)

    def fold_quotes(self, batch: QuoteBatch, start: int, stop: int) -> None:
        """Take the rows [start, stop): the last row of each instrument is what the next reader sees."""
        rows = batch.instrument[start:stop]
        self.bid_view[rows] = batch.bid[start:stop]
        self.ask_view[rows] = batch.ask[start:stop]
        self.bid_size_view[rows] = batch.bid_size[start:stop]
        self.ask_size_view[rows] = batch.ask_size[start:stop]
        self.quote_time_view[rows] = batch.ts_recv[start:stop]
        self.version += 1

    def columns(self) -> tuple[NDArray[np.float64] | NDArray[np.int64], ...]:
        """The columns of quotes, for a scan that writes them: bid, ask, their sizes, times. Shape: each (instruments,)."""
        return self.bid_view, self.ask_view, self.bid_size_view, self.ask_size_view, self.quote_time_view

    def fold_trades(self, batch: TradeBatch, start: int, stop: int) -> None:
        """Take the prints [start, stop)."""
        rows = batch.instrument[start:stop]
        self.last_view[rows] = batch.price[start:stop]
        self._last_time_view[rows] = batch.ts_recv[start:stop]
        self.version += 1

    def fold_quote(self, instrument: int, ts: Nanos, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        """Take one quote, NaN for a withdrawn side."""
        self.bids[instrument] = bid
        self.asks[instrument] = ask
        self.bid_sizes[instrument] = bid_size
        self.ask_sizes[instrument] = ask_size
        self.quote_times[instrument] = ts
        self.version += 1

    def fold_trade(self, instrument: int, ts: Nanos, price: float) -> None:
        """Take one print."""
        self.lasts[instrument] = price
        self.last_times[instrument] = ts
        self.version += 1

    def scale(self, old: int, new: int, ratio: float) -> None:
        """Carry the state of `old` to `new` with prices divided by `ratio` (a split's new marks before its first quote)."""
        for column in (self.bids, self.asks, self.lasts):
            column[new] = column[old] / ratio
        for column in (self.bid_sizes, self.ask_sizes):
            column[new] = column[old] * ratio
        self.quote_times[new] = self.quote_times[old]
        self.last_times[new] = self.last_times[old]
        self.version += 1

    def shift(self, instrument: int, amount: float) -> None:
        """Take an amount off the prices of an instrument that paid it out and has not been quoted since (a coupon)."""
        for column in (self.bids, self.asks, self.lasts):
            if column[instrument] > amount:  # NaN stays what it is
                column[instrument] -= amount
        self.version += 1

    def bid(self, instrument: int) -> float:
        """Best bid, NaN while withdrawn or never seen."""
        return self.bids[instrument]

    def ask(self, instrument: int) -> float:
        """Best ask, NaN while withdrawn or never seen."""
        return self.asks[instrument]

    def bid_size(self, instrument: int) -> float:
        """Displayed size at the bid, NaN when the venue does not say."""
        return self.bid_sizes[instrument]

    def ask_size(self, instrument: int) -> float:
        """Displayed size at the ask, NaN when the venue does not say."""
        return self.ask_sizes[instrument]

    def last(self, instrument: int) -> float:
        """Last print, NaN before the first."""
        return self.lasts[instrument]

    def quote_ts(self, instrument: int) -> Nanos:
        """When the quote was last received, NEVER before the first."""
        return self.quote_times[instrument]

    def last_ts(self, instrument: int) -> Nanos:
        """When the last print was received, NEVER before the first."""
        return self.last_times[instrument]

    def mid(self, instrument: int) -> float:
        """Middle of a two-sided uncrossed quote, else NaN."""
        bid, ask = self.bids[instrument], self.asks[instrument]
        return 0.5 * (bid + ask) if bid <= ask else NAN

    def mids(self) -> NDArray[np.float64]:
        """Middle of every instrument's two-sided uncrossed quote, else NaN. Shape: (instruments,)."""
        return np.where(self.bid_view <= self.ask_view, 0.5 * (self.bid_view + self.ask_view), NAN)

    def reference(self, instrument: int) -> QuoteRef | None:
        """The quote a decision sees now, None before the first."""
        ts = self.quote_times[instrument]
        if ts == NEVER:
            return None
        bid, ask = self.bids[instrument], self.asks[instrument]
        return QuoteRef(None if math.isnan(bid) else bid, None if math.isnan(ask) else ask, ts)
