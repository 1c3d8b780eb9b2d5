"""A vol source forecasts an underlying's vol from bars of its own price; law: a bar is used from the instant it ends.

`Bars` makes bars of the marks a run has seen; `History` plays back the rows of a file as they become known. The sources
are `bot.pricing.forecast`'s estimators, annualised by the number of bars that count in a year; each answers one vol for all
contracts, and NaN until it has seen enough.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.ports import VolInput, VolSource
from bot.domain.units import Nanos, Vol
from bot.pricing import forecast

Floats: TypeAlias = NDArray[np.float64]
GAP: Final = 1.5
"""A return between marks further apart than this many bars is left out: the market was closed, or nobody quoted."""


class Bar(NamedTuple):
    """Prices over an interval, known from its end `ts` on."""

    ts: Nanos
    open: float
    high: float
    low: float
    close: float


class ForecastSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which source forecasts, from bars how long, and the history it has beside what the run sees.

    `history` by underlying; where it is given the run's own marks are not used. `most` bars are kept.
    """

    source: VolSource
    interval: Nanos
    periods_per_year: Mapping[str, float] = {}
    history: Mapping[str, Sequence[Bar]] = {}
    most: int = 2000


class Known(Protocol):
    """Where bars come from."""

    def observe(self, ts: Nanos, price: float) -> None:
        """Take a mark."""

    def known(self, now: Nanos) -> tuple[Sequence[Bar], bool]:
        """The bars ended by now, oldest first, and whether gaps between them are part of the story."""


class Bars:
    """Bars of the marks seen so far, on a grid from the first; the mark at a bar's last instant is its close."""

    def __init__(self, interval: Nanos, most: int) -> None:
        self._interval = interval
        self._most = most
        self._start: Nanos | None = None
        self._place = 0
        self._now: list[float] = []
        self._done: list[Bar] = []

    def observe(self, ts: Nanos, price: float) -> None:
        """Take a mark; an unknown price is none."""
        if math.isnan(price):
            return
        if self._start is None:
            self._start = ts
            self._done.append(Bar(ts, price, price, price, price))
            return
        place = (ts - 1 - self._start) // self._interval
        if place != self._place:
            self._close()
            self._place = place
        self._now.append(price)
        if ts == self._start + (place + 1) * self._interval:
            self._close()
            self._place = place + 1

    def _close(self) -> None:
        if not self._now or self._start is None:
            return
        end = self._start + (self._place + 1) * self._interval
        opened = self._done[-1].close if end - self._done[-1].ts <= GAP * self._interval else self._now[0]
        seen = [opened, *self._now]
        self._done.append(Bar(end, opened, max(seen), min(seen), self._now[-1]))
        self._now = []
        if len(self._done) > 2 * self._most:
            del self._done[: -self._most]

    def known(self, now: Nanos) -> tuple[Sequence[Bar], bool]:
        """The bars ended by now; a bar whose end has passed without a later mark is closed with what it saw."""
        if self._start is not None and now >= self._start + (self._place + 1) * self._interval:
            self._close()
        return self._done[-self._most :], False


class History:
    """The bars of a file that are known by an instant."""

    def __init__(self, bars: Sequence[Bar], most: int) -> None:
        self._bars = sorted(bars)
        self._ends = [bar.ts for bar in self._bars]
        self._most = most

    def observe(self, ts: Nanos, price: float) -> None:
        """The file alone counts."""

    def known(self, now: Nanos) -> tuple[Sequence[Bar], bool]:
        """The rows known by now."""
        stop = bisect_right(self._ends, now)
        return self._bars[max(0, stop - self._most) : stop], True


def bars_of(settings: ForecastSettings, underlying: str) -> Known:
    """Where the bars of an underlying come from."""
    given = settings.history.get(underlying)
    return Bars(settings.interval, settings.most) if given is None else History(given, settings.most)


def close_returns(bars: Sequence[Bar], interval: Nanos, *, gaps: bool) -> Floats:
    """Log returns from close to close, NaN across a gap unless `gaps`. Shape: (bars - 1,)."""
    if len(bars) < 2:
        return np.empty(0)
    found = forecast.log_returns([bar.close for bar in bars])
    if not gaps:
        found[np.diff([bar.ts for bar in bars]) > GAP * interval] = math.nan
    return found


# --------------------------------------------------------------------------- the sources


class EwmaVol:
    """RiskMetrics' exponentially weighted variance. Implements `VolSource`."""

    name = "ewma"

    def __init__(self, *, decay: float = 0.94, least: int = 10) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay: expected a number in (0, 1), found {decay}")
        self._decay, self._least = decay, _least(least)

    def vols(self, x: VolInput) -> Vol:
        """sqrt(h x periods), h after the last return; the mean of the first `least` squares is where h starts."""
        r = x.returns[np.isfinite(x.returns)]
        if len(r) < self._least:
            return math.nan
        start = float(np.mean(np.square(r[: self._least])))
        h = forecast.ewma(r, decay=self._decay, start=start)[-1]
        return _positive(float(forecast.annual_vol(h, periods_per_year=x.periods_per_year)))


class GarchVol:
    """A model of the GARCH family fitted to the last `window` returns. Implements `VolSource`."""

    name = "garch"

    def __init__(
        self,
        *,
        family: forecast.Family = "garch",
        window: int = 1000,
        horizon: int = 1,
        least: int = 100,
    ) -> None:
        if not 50 <= least <= window:
            raise ValueError(f"least: expected 50 to window = {window}, found {least}")
        if horizon < 1:
            raise ValueError(f"horizon: expected at least 1, found {horizon}")
        self._family, self._window, self._horizon, self._least = family, window, horizon, least
        self._fitted: dict[str, tuple[tuple[int, float, float], Vol]] = {}

    def vols(self, x: VolInput) -> Vol:
        """The vol of the mean forecast variance over `horizon` bars; fitted anew when a bar has ended."""
        r = x.returns[np.isfinite(x.returns)][-self._window :]
        if len(r) < self._least or not np.std(r) > 0.0:
            return math.nan
        key = (int(x.ts[-1]), float(x.close[-1]), float(r.sum()))
        known = self._fitted.get(x.underlying)
        if known is None or known[0] != key:
            fit = forecast.garch(r, family=self._family, horizon=self._horizon, mean="Zero")
            vol = fit.vol(periods_per_year=x.periods_per_year) if fit.converged else math.nan
            known = self._fitted[x.underlying] = key, vol
        return _positive(known[1])


class HarVol:
    """Corsi's heterogeneous autoregression of each bar's variance. Implements `VolSource`."""

    name = "har"

    def __init__(self, *, windows: Sequence[int] = (1, 5, 22), horizon: int = 1, least: int = 60) -> None:
        if not windows or min(windows) < 1 or horizon < 1:
            raise ValueError(f"windows, horizon: expected at least 1, found {list(windows)}, {horizon}")
        self._windows, self._horizon = tuple(windows), horizon
        self._least = max(_least(least), 3 * (len(windows) + 1) + max(windows) + horizon)

    def vols(self, x: VolInput) -> Vol:
        """The vol of the forecast mean variance over `horizon` bars.

        A bar's variance is its squared opening gap and Garman and Klass's; the squared return where bars have no range.
        """
        squares = np.square(x.returns)
        inside = forecast.garman_klass(x.open, x.high, x.low, x.close)[1:]
        with np.errstate(all="ignore"):
            gap = np.square(np.log(x.open[1:] / x.close[:-1]))
        ranged = (x.high > x.low)[1:] & np.isfinite(inside)
        variance = np.where(ranged, np.maximum(inside, 0.0) + gap, squares)
        variance = variance[np.isfinite(squares)]
        if len(variance) < self._least:
            return math.nan
        found = forecast.har(variance, windows=self._windows, horizon=self._horizon).forecast[-1]
        return _positive(float(forecast.annual_vol(found, periods_per_year=x.periods_per_year)))


class RangeVol:
    """The variance of the last `window` bars from their ranges. Implements `VolSource`."""

    name = "range"

    def __init__(
        self,
        *,
        estimator: Literal["parkinson", "garman_klass", "rogers_satchell", "yang_zhang"] = "yang_zhang",
        window: int = 21,
    ) -> None:
        if window < 2:
            raise ValueError(f"window: expected at least 2, found {window}")
        self._estimator, self._window = estimator, window

    def vols(self, x: VolInput) -> Vol:
        """sqrt(mean variance x periods)."""
        if len(x.close) <= self._window:
            return math.nan
        o, h, low, c = (column[-self._window - 1 :] for column in (x.open, x.high, x.low, x.close))
        match self._estimator:
            case "yang_zhang":
                variance = float(forecast.yang_zhang(o, h, low, c, window=self._window)[-1])
            case "parkinson":
                variance = float(np.mean(forecast.parkinson(h, low)[1:]))
            case "garman_klass":
                variance = float(np.mean(forecast.garman_klass(o, h, low, c)[1:]))
            case "rogers_satchell":
                variance = float(np.mean(forecast.rogers_satchell(o, h, low, c)[1:]))
        return _positive(float(forecast.annual_vol(variance, periods_per_year=x.periods_per_year)))


def _positive(vol: Vol) -> Vol:
    return vol if math.isfinite(vol) and vol > 0.0 else math.nan


def _least(count: int) -> int:
    if count < 2:
        raise ValueError(f"least: expected at least 2 returns, found {count}")
    return count
