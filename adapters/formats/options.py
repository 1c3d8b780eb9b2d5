"""Replay options say what recording is played and how its faults are met; law: no repair is made unasked."""

from __future__ import annotations

import datetime as dt
from typing import Literal, TypeAlias

import msgspec

from bot.domain.units import Nanos

Resolution: TypeAlias = Literal["tick", "second", "minute", "hour", "daily"]
PriceSource: TypeAlias = Literal["quotes", "trades", "parity_forward"]


class ReplayOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to play. Every repair (`sort`, `last`, `skip`) is counted in the feed's report."""

    name: str = "replay"
    format: Literal["lean", "csv", "parquet", "spx_chain", "binance"] = "lean"
    root: str | None = None
    """Folder that `files` and the LEAN paths start from; for LEAN, EVENKEEL_DATA when absent."""
    files: tuple[str, ...] = ()
    """Files of csv, parquet, spx_chain and binance, relative to `root`; `*` and `?` match as in a shell."""
    resolution: Resolution = "minute"
    resolutions: dict[str, Resolution] = {}
    """Another resolution for one instrument id or one LEAN folder (`equity`, `option`, ...)."""
    dates: tuple[dt.date, ...] = ()
    """Recorded days to play, in order: LEAN file dates, or the days of an spx_chain to keep (none given: all)."""
    underlying: PriceSource = "quotes"
    """Where the price of an option's underlying may come from."""
    sources: dict[str, PriceSource] = {}
    """The same for single underlyings, by id."""
    rate: float = 0.0
    """Continuous rate per year of `parity_forward`."""
    only: tuple[str, ...] = ()
    """Ids this feed plays, when another feed plays the rest."""
    max_refused: int | None = None
    """Rows that may be refused before the run fails; None: any number."""
    columns: dict[str, str] = {}
    """csv and parquet: our column name -> the file's."""
    unsorted: Literal["error", "sort"] = "error"
    repeated: Literal["error", "last", "keep"] = "error"
    """Two rows of one instrument at one time in bars, chains and tables, a day given twice, a day's file that repeats
    the day before: an error; the last row wins; or all are kept."""
    missing_days: Literal["error", "skip"] = "error"
    closed_days: Literal["skip", "play", "error"] = "skip"
    """A day on which the market was closed: left out and flagged, played, or refused."""
    clock: Literal["capture", "exchange"] = "capture"
    """binance: `ts_recv` is the capture's clock plus `clock_offset`, or the exchange's event time."""
    clock_offset: Nanos = 0
    book: Literal["both", "ticker", "depth"] = "both"
    """binance: top of book from the ticker stream, from snapshot and diffs, or from whichever is newer by update id."""
    batch_rows: int = 4096
    """Rows a batch; changes nothing but speed."""

    def __post_init__(self) -> None:
        if self.batch_rows < 1:
            raise ValueError(f"batch_rows: expected at least 1, found {self.batch_rows}")
        if self.max_refused is not None and self.max_refused < 0:
            raise ValueError(f"max_refused: expected 0 or more, found {self.max_refused}")
