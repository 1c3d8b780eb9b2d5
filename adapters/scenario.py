"""A scenario is a seeded script of a small market: several prices, what hangs on them, and what is announced when.

Law: its options alone decide its rows, however they are cut into batches; at an instant announcements come before quotes. No
market quoted these prices, and the report says so.

Prices are correlated geometric Brownian motions with jumps, whose vols and correlations change at stated instants (regimes:
a correlation that breaks down) and which gap at others (shocks). A crowd of option hedgers may push a price by hedging.
Convertibles are quoted round their model, targets of deals at the odds of a close between offer and break price, listed
options at European values of one vol. Quotes may be missing, one-sided or late.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.errors import ConfigError, DataError
from bot.core.events import Conversion, Corporate, FeedEvent, Notice
from bot.core.notices import CONVERTIBLE, ConvertibleNotice, DealNotice, notice_of, read_notice
from bot.core.ports import FeedReport
from bot.domain.convertible import ConvertibleModel, ConvertibleTerms
from bot.domain.deals import Collar, DealTerms
from bot.domain.instruments import ConvertibleBond, Instrument, OptionContract, Spot, Universe
from bot.domain.market import QuoteBatch
from bot.domain.units import (
    NS_PER_SECOND,
    NS_PER_YEAR,
    Nanos,
    Rate,
    Vol,
    decimal_of,
    iso,
    nanos,
    parse_instant,
    years_between,
)
from bot.pricing import deal as deals
from bot.pricing import paths
from bot.pricing.black import greeks_slice
from bot.pricing.convertible_shelf import Shelf, called

Floats: TypeAlias = NDArray[np.float64]
BLOCK: Final = 8192
"""Steps drawn at once. Part of what a seed means: another number would be another session."""
PATHS, JUMPS, BONDS, DEALS = 1, 2, 3, 4
"""Streams of randomness, so that a bond more or less leaves the prices alone."""
RATIO_STEP: Final = Decimal("0.000001")
LEAST_PRICE: Final = 1e-6


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the script: every key known."""


class Underlying(_Part, frozen=True, kw_only=True):
    """A share: its motion per year, its jumps (normal in ln S, drift compensated), its quote in ticks, its options' vol."""

    id: str
    spot: float
    vol: Vol = 0.2
    drift: Rate = 0.0
    intensity: float = 0.0
    jump_mean: float = 0.0
    jump_vol: float = 0.0
    currency: str = "USD"
    tick: Decimal = Decimal("0.01")
    half_spread: float = 1.0
    size: float = 1000.0
    option_vol: Vol | None = None
    option_tick: Decimal = Decimal("0.01")
    option_half_spread: float = 2.0
    option_size: float = 50.0
    option_every: int = 1

    def __post_init__(self) -> None:
        where = f"underlyings {self.id}"
        _require(0.0 < self.spot < math.inf, f"{where}: spot: expected a positive number, found {self.spot}")
        for name in ("vol", "intensity", "jump_vol", "half_spread", "option_half_spread"):
            value = getattr(self, name)
            _require(0.0 <= value < math.inf, f"{where}: {name}: expected 0 or more, found {value}")
        _require(self.option_vol is None or 0.0 < self.option_vol < math.inf, f"{where}: option_vol: expected above 0")
        _require(self.tick > 0 and self.option_tick > 0, f"{where}: expected ticks above 0")
        _require(self.option_every >= 1, f"{where}: option_every: expected 1 or more, found {self.option_every}")


class Regime(_Part, frozen=True, kw_only=True):
    """From `at` on, other vols and drifts by id, and another correlation; what it leaves out goes on."""

    at: Nanos
    vols: dict[str, Vol] = {}
    drifts: dict[str, Rate] = {}
    correlation: tuple[tuple[float, ...], ...] = ()


class Shock(_Part, frozen=True, kw_only=True):
    """At the first step from `at` on prices gap by these fractions of themselves: -0.15 is a fall of 15 %."""

    at: Nanos
    moves: dict[str, float]

    def __post_init__(self) -> None:
        for key, move in self.moves.items():
            _require(-1.0 < move < math.inf, f"shocks: {key}: expected a fraction above -1, found {move}")


class Crowd(_Part, frozen=True, kw_only=True):
    """Hedgers of one option position, who push the price: each trade of Q shares moves it by coefficient Q / adv of itself.

    `quantity` is in shares, negative for options written. They hedge the Black-Scholes delta at `vol` at each step. To
    first order the realised vol is vol (1 - coefficient S quantity gamma / adv): more when short gamma, less when long
    (Frey and Stremme 1997; Platen and Schweizer 1998 for the feedback of hedging on prices).
    """

    underlying: str
    quantity: float
    strike: float
    expiry: Nanos
    vol: Vol
    coefficient: float
    adv: float
    cp: Literal[1, -1] = 1

    def __post_init__(self) -> None:
        where = f"crowds {self.underlying}"
        _require(self.strike > 0.0 and self.vol > 0.0, f"{where}: expected a strike and vol above 0")
        _require(self.coefficient >= 0.0 and self.adv > 0.0, f"{where}: expected coefficient >= 0 and adv above 0")


class BondQuotes(_Part, frozen=True, kw_only=True):
    """Quotes of a convertible round its model: `richness` above it, which wanders by `wander` and reverts; all in points."""

    instrument: str
    half_spread: float = 0.25
    richness: float = 0.0
    wander: float = 0.0
    reversion: float = 12.0
    every: int = 1
    size: float = 500.0
    tick: Decimal = Decimal("0.01")

    def __post_init__(self) -> None:
        where = f"bonds {self.instrument}"
        for name in ("half_spread", "wander", "reversion"):
            value = getattr(self, name)
            _require(0.0 <= value < math.inf, f"{where}: {name}: expected 0 or more, found {value}")
        _require(self.every >= 1 and self.tick > 0, f"{where}: expected every 1 or more and a tick above 0")


class Amendment(_Part, frozen=True, kw_only=True):
    """Another offer from `at` on; its notice comes with it."""

    at: Nanos
    cash: float | None = None
    ratio: float | None = None
    expected_close: Nanos | None = None


class DealScript(_Part, frozen=True, kw_only=True):
    """A target priced at p PV(offer) + (1 - p) S_down, S_down = break_price (1 + beta (A / A0 - 1)).

    ln(p / (1 - p)) begins at `probability`, reverts to the line that ends at `probability_end` at the outcome, and wanders
    by `wander` a year. At `at` the deal closes (target becomes its terms, and is quoted no more) or breaks (the target falls
    to S_down and moves with `vol` of its own from there).
    """

    target: str
    break_price: float
    expected_close: Nanos
    outcome: Literal["close", "break", "open"] = "close"
    at: Nanos | None = None
    acquirer: str | None = None
    cash: float = 0.0
    ratio: float = 0.0
    collar: Collar | None = None
    beta: float = 0.0
    acquirer_vol: Vol = 0.3
    dividend: Rate = 0.0
    probability: float = 0.8
    probability_end: float | None = None
    wander: float = 1.0
    reversion: float = 12.0
    vol: Vol = 0.3
    amendments: tuple[Amendment, ...] = ()
    currency: str = "USD"
    tick: Decimal = Decimal("0.01")
    half_spread: float = 2.0
    size: float = 1000.0

    def __post_init__(self) -> None:
        where = f"deals {self.target}"
        terms = DealTerms(cash=self.cash, ratio=self.ratio, collar=self.collar)
        _require(self.acquirer is not None or not (terms.needs_acquirer or self.beta), f"{where}: expected an acquirer")
        _require(0.0 < self.break_price < math.inf, f"{where}: break_price: expected above 0, found {self.break_price}")
        end = self.probability if self.probability_end is None else self.probability_end
        for name, p in (("probability", self.probability), ("probability_end", end)):
            _require(0.0 < p < 1.0, f"{where}: {name}: expected above 0 and below 1, found {p}")
        _require(
            (self.at is None) == (self.outcome == "open"), f"{where}: at: expected with an outcome, not beside 'open'"
        )
        for name in ("wander", "reversion", "vol", "half_spread"):
            value = getattr(self, name)
            _require(0.0 <= value < math.inf, f"{where}: {name}: expected 0 or more, found {value}")


class Outage(_Part, frozen=True, kw_only=True):
    """Quotes of one instrument in [start, end): not sent at all, or with a side withdrawn."""

    instrument: str
    start: Nanos
    end: Nanos
    what: Literal["missing", "no_bid", "no_ask", "withdrawn"] = "missing"


class NoticeScript(_Part, frozen=True, kw_only=True):
    """An announcement at an instant."""

    at: Nanos
    namespace: str
    payload: dict[str, Any] = {}


class CorporateScript(_Part, frozen=True, kw_only=True):
    """A corporate event at an instant; `into` and `shares` say what one unit becomes. What ends is quoted no more."""

    at: Nanos
    what: Literal["dividend", "coupon", "merger", "conversion", "redemption"]
    instrument: str
    cash: Decimal = Decimal(0)
    into: str | None = None
    shares: Decimal = Decimal(0)
    text: str = ""


class ScenarioOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole script. Instants and steps in ns; `rate` discounts offers and options; correlation in order of underlyings."""

    start: Nanos
    end: Nanos
    underlyings: tuple[Underlying, ...]
    name: str = "scenario"
    seed: int = 1
    step: Nanos = 60 * NS_PER_SECOND
    rate: Rate = 0.0
    correlation: tuple[tuple[float, ...], ...] = ()
    regimes: tuple[Regime, ...] = ()
    shocks: tuple[Shock, ...] = ()
    crowds: tuple[Crowd, ...] = ()
    bonds: tuple[BondQuotes, ...] = ()
    deals: tuple[DealScript, ...] = ()
    outages: tuple[Outage, ...] = ()
    notices: tuple[NoticeScript, ...] = ()
    corporates: tuple[CorporateScript, ...] = ()
    hours: tuple[str, str] | None = None
    zone: str = "America/New_York"
    batch_rows: int = 4096

    def __post_init__(self) -> None:
        _require(self.end >= self.start, f"end: expected {iso(self.start)} or later, found {iso(self.end)}")
        _require(self.step > 0, f"step: expected a positive length of time, found {self.step} ns")
        _require(self.batch_rows >= 1, f"batch_rows: expected 1 or more, found {self.batch_rows}")
        _require(self.seed >= 0, f"seed: expected 0 or more, found {self.seed}")
        _require(bool(self.underlyings), "underlyings: expected at least one, found none")
        names = [u.id for u in self.underlyings] + [d.target for d in self.deals] + [b.instrument for b in self.bonds]
        twice = sorted({name for name in names if names.count(name) > 1})
        _require(not twice, f"expected each instrument once among underlyings, deals and bonds, found {twice} twice")
        known = {u.id for u in self.underlyings}
        named: list[tuple[str, str]] = [("shocks", key) for shock in self.shocks for key in shock.moves]
        named += [("regimes", key) for regime in self.regimes for key in (*regime.vols, *regime.drifts)]
        named += [("crowds", crowd.underlying) for crowd in self.crowds]
        named += [("deals", deal.acquirer) for deal in self.deals if deal.acquirer is not None]
        for where, key in named:
            _require(key in known, f"{where}: expected one of {', '.join(sorted(known))}, found {key!r}")
        for matrix in (self.correlation, *(regime.correlation for regime in self.regimes)):
            square = all(len(row) == len(known) for row in matrix) and len(matrix) == len(known)
            _require(
                not matrix or square, f"correlation: expected {len(known)} rows of {len(known)}, found another shape"
            )
        for given in (self.regimes, self.shocks):
            times = [item.at for item in given]
            _require(times == sorted(times), "regimes and shocks: expected in order of time")
        for script in self.notices:
            _checked_notice(script)


class _Phase(NamedTuple):
    """How a bond is valued from an instant on."""

    since: Nanos
    terms: ConvertibleTerms
    model: ConvertibleModel


class _Block(NamedTuple):
    """A stretch of the true session. Shape: ts (n,); prices of each quoted thing (n,), NaN where it is quoted no more."""

    first: int
    ts: NDArray[np.int64]
    prices: dict[str, Floats]


class ScenarioFeed:
    """A recorded feed of a market that never was. No files, no network."""

    recorded: bool = True

    def __init__(self, options: ScenarioOptions | Mapping[str, Any], *, wanted: Sequence[Instrument] = ()) -> None:
        self._options = read_options(options)
        self.name: str = self._options.name
        self._wanted = {item.id: item for item in wanted}
        self._universe: Universe | None = None
        self._report = FeedReport()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def instruments(self, query: str = "") -> Sequence[Instrument]:
        """Shares and targets where the id contains `query`; bonds and options are the run's own words."""
        o = self._options
        listed: list[Instrument] = [
            Spot(id=item.id, currency=item.currency, tick=item.tick, lot=Decimal(1)) for item in o.underlyings
        ]
        listed += [Spot(id=deal.target, currency=deal.currency, tick=deal.tick, lot=Decimal(1)) for deal in o.deals]
        return [self._wanted.get(item.id, item) for item in listed if query in item.id]

    def bind(self, universe: Universe) -> None:
        """Take the column numbers; DataError naming a bond that the run does not describe."""
        for quoted in self._options.bonds:
            item = universe.get(quoted.instrument) if quoted.instrument in universe else None
            if not isinstance(item, ConvertibleBond) or item.model is None:
                raise DataError(
                    f"feed {self.name}: bonds: expected a convertible of this run with a model, found {quoted.instrument!r}"
                )
            if item.underlying not in {share.id for share in self._options.underlyings}:
                raise DataError(f"feed {self.name}: bonds: {item.id}: expected {item.underlying} among underlyings")
        self._universe = universe

    async def events(self) -> AsyncIterator[FeedEvent]:
        """Announcements and quote batches of at most `batch_rows` rows, `ts_recv` never decreasing."""
        self._report = self._opening_report()
        said = sorted(self._announcements(), key=lambda event: event.ts_recv)
        for block in self._blocks(said):
            quotes = self._quotes(block)
            place = 0
            while said and said[0].ts_recv <= int(block.ts[-1]):
                event = said.pop(0)
                until = int(np.searchsorted(quotes.ts_recv, event.ts_recv, side="left"))
                for batch in self._cut(quotes.rows(place, until)):
                    yield batch
                place = until
                yield event
            for batch in self._cut(quotes.rows(place, len(quotes))):
                yield batch
        for event in said:
            yield event

    def report(self) -> FeedReport:
        """Rows yielded so far, and a digest of the script behind them."""
        return self._report

    def _cut(self, rows: QuoteBatch) -> Iterator[QuoteBatch]:
        for start in range(0, len(rows), self._options.batch_rows):
            batch = rows.rows(start, min(start + self._options.batch_rows, len(rows)))
            self._report.quotes += len(batch)
            yield batch

    def _opening_report(self) -> FeedReport:
        o = self._options
        what = ", ".join(
            [item.id for item in o.underlyings] + [d.target for d in o.deals] + [b.instrument for b in o.bonds]
        )
        notes = [f"{what}: a scenario of seed {o.seed}; no market quoted these prices"]
        if o.bonds:
            notes.append("convertibles are quoted round the values of their own models")
        if o.crowds:
            notes.append("a crowd of hedgers pushes a price by its own trades: a scenario, not an estimate")
        return FeedReport(notes=notes, files={f"scenario:{o.name}": _digest(o)})

    # ------------------------------------------------------------------ what is announced

    def _announcements(self) -> list[FeedEvent]:
        """Scripted notices and corporate events, and what the deals bring of themselves; a close adds its own later."""
        o = self._options
        said: list[FeedEvent] = [_checked_notice(script) for script in o.notices]
        said += [_corporate(script) for script in o.corporates]
        for deal in o.deals:
            for change in deal.amendments:
                amended = DealNotice(
                    target=deal.target,
                    what="amended",
                    cash=change.cash,
                    ratio=change.ratio,
                    expected_close=change.expected_close,
                )
                said.append(notice_of(amended, change.at))
            if deal.outcome == "break" and deal.at is not None:
                text = f"the deal for {deal.target} is off"
                said.append(notice_of(DealNotice(target=deal.target, what="broken", text=text), deal.at))
        return said

    # ------------------------------------------------------------------ the true session

    def _blocks(self, said: list[FeedEvent]) -> Iterator[_Block]:
        """The session block by block; a deal that closes puts its last words among those `said` yet."""
        o = self._options
        times = quote_times(o)
        shares, market = _Shares(o), _Deals(o)
        bonds = _Bonds(o, self._bound())
        for first in range(0, len(times), BLOCK):
            ts = times[first : first + BLOCK]
            prices = shares.draw(ts)
            prices |= market.draw(ts, prices, said)
            prices |= bonds.draw(ts, prices)
            _end_quotes(o, ts, prices)
            yield _Block(first, ts, prices)

    def _bound(self) -> Universe:
        if self._universe is None:
            raise DataError(f"feed {self.name}: expected bind(universe) before events(), found none")
        return self._universe

    # ------------------------------------------------------------------ quotes

    def _quotes(self, block: _Block) -> QuoteBatch:
        """Everything quoted in a block, in order of time; at an instant shares, targets, bonds, options."""
        o, universe = self._options, self._bound()
        found: list[_Rows] = []
        shown = [(item.id, item.half_spread, item.tick, item.size) for item in o.underlyings]
        shown += [(deal.target, deal.half_spread, deal.tick, deal.size) for deal in o.deals]
        for key, half_spread, tick, size in shown:
            width = float(np.rint(2.0 * half_spread))
            bid = np.floor(block.prices[key] / float(tick) - 0.5 * width + 0.5)
            found.append(_Rows.of(universe.index(key), block.ts, bid, bid + width, tick, size))
        for quoted in o.bonds:
            rows = slice((-block.first) % quoted.every, None, quoted.every)
            mid, half = (
                block.prices[quoted.instrument][rows] / float(quoted.tick),
                quoted.half_spread / float(quoted.tick),
            )
            bid, ask = np.floor(mid - half + 1e-9), np.ceil(mid + half - 1e-9)
            column = universe.index(quoted.instrument)
            found.append(_Rows.of(column, block.ts[rows], bid, ask, quoted.tick, quoted.size))
        for item in o.underlyings:
            found += self._option_rows(block, item)
        return _merged([self._spoil(universe, part) for part in found])

    def _option_rows(self, block: _Block, item: Underlying) -> list[_Rows]:
        """European values of every option of the run on one share, at its one vol."""
        universe = self._bound()
        if item.option_vol is None:
            return []
        rows = slice((-block.first) % item.option_every, None, item.option_every)
        ts, spot = block.ts[rows], block.prices[item.id][rows]
        out: list[_Rows] = []
        for contract in universe:
            if not isinstance(contract, OptionContract) or contract.underlying != item.id:
                continue
            live = contract.expiry > ts
            tau = np.where(live, contract.expiry - ts, 1) / NS_PER_YEAR
            value = greeks_slice(
                spot, float(contract.strike), tau, item.option_vol, rate=self._options.rate, cp=contract.cp
            ).price
            mid = np.where(live, value, np.nan) / float(item.option_tick)
            bid = np.floor(mid - item.option_half_spread + 1e-9)
            ask = np.maximum(np.ceil(mid + item.option_half_spread - 1e-9), 1.0)
            column = universe.index(contract.id)
            out.append(_Rows.of(column, ts, bid, ask, item.option_tick, item.option_size))
        return out

    def _spoil(self, universe: Universe, rows: _Rows) -> _Rows:
        """The rows with the script's outages."""
        key = universe[rows.column].id
        for outage in (x for x in self._options.outages if x.instrument == key):
            rows = rows.within(outage)
        return rows


class _Rows(NamedTuple):
    """Quotes of one instrument. Shape: ts, bid, ask (n,), NaN for a withdrawn side."""

    column: int
    ts: NDArray[np.int64]
    bid: Floats
    ask: Floats
    size: float

    @classmethod
    def of(cls, column: int, ts: NDArray[np.int64], bid: Floats, ask: Floats, tick: Decimal, size: float) -> _Rows:
        """Quotes from prices in ticks; a side below one tick is withdrawn, a price that is not known is no row."""
        kept = np.isfinite(ask)
        bid, ask = bid[kept], ask[kept]
        return cls(
            column,
            ts[kept],
            np.where(bid < 1.0, np.nan, _on_tick(bid, tick)),
            np.where(ask < 1.0, np.nan, _on_tick(ask, tick)),
            size,
        )

    def within(self, outage: Outage) -> _Rows:
        """The rows as an outage leaves them."""
        inside = (self.ts >= outage.start) & (self.ts < outage.end)
        if outage.what == "missing":
            return self._replace(ts=self.ts[~inside], bid=self.bid[~inside], ask=self.ask[~inside])
        no_bid = inside & (outage.what in {"no_bid", "withdrawn"})
        no_ask = inside & (outage.what in {"no_ask", "withdrawn"})
        return self._replace(bid=np.where(no_bid, np.nan, self.bid), ask=np.where(no_ask, np.nan, self.ask))


class _Shares:
    """The prices of the shares, block after block."""

    def __init__(self, o: ScenarioOptions) -> None:
        self._o = o
        self._spot = np.array([item.spot for item in o.underlyings])
        self._paths = _stream(o, PATHS)
        self._jumps = [_stream(o, JUMPS, i) for i in range(len(o.underlyings))]
        self._last: Nanos | None = None
        self._held = [0.0] * len(o.crowds)
        self._begun = False
        self._shocked = 0

    def draw(self, ts: NDArray[np.int64]) -> dict[str, Floats]:
        """Prices at these instants, which follow the last block's."""
        o = self._o
        dt = np.diff(ts, prepend=ts[0] if self._last is None else self._last) / NS_PER_YEAR
        moves = np.concatenate([self._regime_moves(run, dt[run], regime) for run, regime in _runs(o, ts)], axis=1)
        moves = moves + self._jump_moves(dt) + self._shock_moves(ts)
        spots = self._push(ts, moves) if o.crowds else self._spot[:, None] * np.exp(np.cumsum(moves, axis=1))
        self._spot, self._last = spots[:, -1].copy(), int(ts[-1])
        return {item.id: spots[i] for i, item in enumerate(o.underlyings)}

    def _regime_moves(self, run: slice, dt: Floats, regime: int) -> Floats:
        """Log moves of the diffusion in one regime. Shape: (shares, n)."""
        o = self._o
        vols, drifts, matrix = _regime(o, regime)
        path = paths.correlated_gbm(
            self._paths, spot=1.0, vol=vols, correlation=matrix, dt=dt, n_steps=len(dt), drift=drifts
        )
        return np.asarray(np.diff(np.log(path), axis=1))

    def _jump_moves(self, dt: Floats) -> Floats:
        """Log moves of the jumps, compensated: Merton 1976. Shape: (shares, n)."""
        out = np.zeros((len(self._o.underlyings), len(dt)))
        for i, item in enumerate(self._o.underlyings):
            if not item.intensity:
                continue
            rng = self._jumps[i]
            count = rng.poisson(item.intensity * dt)
            size = count * item.jump_mean + np.sqrt(count) * item.jump_vol * rng.standard_normal(len(dt))
            mean = math.exp(item.jump_mean + 0.5 * item.jump_vol**2) - 1.0
            out[i] = size - item.intensity * mean * dt
        return out

    def _shock_moves(self, ts: NDArray[np.int64]) -> Floats:
        out = np.zeros((len(self._o.underlyings), len(ts)))
        while self._shocked < len(self._o.shocks) and self._o.shocks[self._shocked].at <= ts[-1]:
            shock = self._o.shocks[self._shocked]
            row = int(np.searchsorted(ts, shock.at, side="left"))
            for i, item in enumerate(self._o.underlyings):
                out[i, row] += math.log1p(shock.moves.get(item.id, 0.0))
            self._shocked += 1
        return out

    def _push(self, ts: NDArray[np.int64], moves: Floats) -> Floats:
        """Prices step by step, each crowd hedging what the step left it with and so moving the price further."""
        o = self._o
        place = {item.id: i for i, item in enumerate(o.underlyings)}
        out = np.empty_like(moves)
        spot = self._spot.copy()
        for j, now in enumerate(ts.tolist()):
            spot = spot * np.exp(moves[:, j])
            for c, crowd in enumerate(o.crowds):
                i = place[crowd.underlying]
                wanted = -crowd.quantity * _delta(crowd, float(spot[i]), now)
                traded = wanted - self._held[c] if self._begun else 0.0  # the opening hedge is there already
                self._held[c] = wanted
                spot[i] = max(spot[i] * (1.0 + crowd.coefficient * traded / crowd.adv), LEAST_PRICE)
            self._begun = True
            out[:, j] = spot
        return out


class _Deals:
    """The prices of targets, block after block."""

    def __init__(self, o: ScenarioOptions) -> None:
        self._o = o
        self._streams = [_stream(o, DEALS, i) for i in range(len(o.deals))]
        self._logit = [_logit(deal.probability) for deal in o.deals]
        self._own = [0.0] * len(o.deals)
        self._gone = [False] * len(o.deals)
        self._first = {item.id: item.spot for item in o.underlyings}
        self._last: Nanos | None = None
        self._closed: set[str] = set()

    def draw(self, ts: NDArray[np.int64], shares: Mapping[str, Floats], said: list[FeedEvent]) -> dict[str, Floats]:
        """Prices of every target at these instants, NaN once it is merged away."""
        dt = np.diff(ts, prepend=ts[0] if self._last is None else self._last) / NS_PER_YEAR
        self._last = int(ts[-1])
        out: dict[str, Floats] = {}
        for i, deal in enumerate(self._o.deals):
            acquirer = shares[deal.acquirer] if deal.acquirer is not None else np.zeros(len(ts))
            down = self._down(deal, acquirer)
            price = self._together(i, ts, dt, acquirer, down)
            if deal.at is not None and deal.outcome == "break":
                gone = ts >= deal.at
                price = np.where(gone, down * self._alone(i, dt, gone), price)
            if deal.at is not None and deal.outcome == "close":
                self._close(deal, ts, acquirer, said)
                price = np.where(ts >= deal.at, np.nan, price)
            out[deal.target] = price
        return out

    def _down(self, deal: DealScript, acquirer: Floats) -> Floats:
        if deal.acquirer is None or not deal.beta:
            return np.full(len(acquirer), deal.break_price)
        moved = acquirer / self._first[deal.acquirer] - 1.0
        return np.maximum(deal.break_price * (1.0 + deal.beta * moved), LEAST_PRICE)

    def _together(self, i: int, ts: NDArray[np.int64], dt: Floats, acquirer: Floats, down: Floats) -> Floats:
        """p PV(offer) + (1 - p) S_down, with the terms of each instant."""
        deal = self._o.deals[i]
        p = self._odds(i, ts, dt)
        out = np.empty(len(ts))
        changes = [0, *(int(np.searchsorted(ts, a.at, side="left")) for a in deal.amendments), len(ts)]
        for stage, (a, b) in enumerate(itertools.pairwise(changes)):
            terms, close = _terms_at(deal, stage)
            rows = slice(a, b)
            tau = np.maximum((close - ts[rows]) / NS_PER_YEAR, 0.0)
            offer = deals.offer_value(
                terms, acquirer[rows], tau, rate=self._o.rate, dividend=deal.dividend, vol=deal.acquirer_vol
            ).value
            out[rows] = p[rows] * offer + (1.0 - p[rows]) * down[rows]
        return out

    def _odds(self, i: int, ts: NDArray[np.int64], dt: Floats) -> Floats:
        """Odds whose logit reverts to a line and wanders; exact for the mean of each step's end."""
        deal, o = self._o.deals[i], self._o
        end = deal.at if deal.at is not None else max(deal.expected_close, o.end)
        begin = _logit(deal.probability)
        finish = begin if deal.probability_end is None else _logit(deal.probability_end)
        share = np.clip((ts - o.start) / max(end - o.start, 1), 0.0, 1.0)
        line = begin + (finish - begin) * share
        draws = self._streams[i].standard_normal(len(ts))
        kept = np.exp(-deal.reversion * dt)
        if deal.reversion:
            spread = deal.wander * np.sqrt(-np.expm1(-2.0 * deal.reversion * dt) / (2.0 * deal.reversion))
        else:
            spread = deal.wander * np.sqrt(dt)
        x, logits = self._logit[i], np.empty(len(ts))
        for j in range(len(ts)):
            x = line[j] + (x - line[j]) * kept[j] + spread[j] * draws[j]
            logits[j] = x
        self._logit[i] = x
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))

    def _alone(self, i: int, dt: Floats, gone: NDArray[np.bool_]) -> Floats:
        """How the target moved by itself since the break, as a factor."""
        deal = self._o.deals[i]
        z = self._streams[i].standard_normal(len(dt))
        # The step that ends at the break is the fall itself; what comes after is the target's own.
        after = gone & np.concatenate([[self._gone[i]], gone[:-1]])
        moves = np.where(after, deal.vol * np.sqrt(dt) * z - 0.5 * deal.vol**2 * dt, 0.0)
        logs = self._own[i] + np.cumsum(moves)
        self._own[i], self._gone[i] = float(logs[-1]), bool(gone[-1])
        return np.asarray(np.exp(logs))

    def _close(self, deal: DealScript, ts: NDArray[np.int64], acquirer: Floats, said: list[FeedEvent]) -> None:
        """Put the close among what is said, on the terms that the acquirer's price just then makes."""
        if deal.at is None or deal.target in self._closed or deal.at > ts[-1]:
            return
        self._closed.add(deal.target)
        terms, _ = _terms_at(deal, len([a for a in deal.amendments if a.at <= deal.at]))
        row = min(int(np.searchsorted(ts, deal.at, side="left")), len(ts) - 1)
        shares = terms.shares(float(acquirer[row])) if terms.needs_acquirer else 0.0
        ratio = decimal_of(shares).quantize(RATIO_STEP)
        text = f"the deal for {deal.target} is done: {terms.cash:g} in cash and {ratio.normalize():f} shares"
        word = DealNotice(target=deal.target, what="closed", cash=terms.cash, ratio=float(ratio), text=text)
        into = (Conversion(deal.target, deal.acquirer, ratio),) if deal.acquirer is not None and ratio else ()
        done = Corporate(
            ts_recv=deal.at,
            what="merger",
            instrument=deal.target,
            cash=decimal_of(terms.cash),
            conversions=into,
            text=text,
        )
        said += [notice_of(word, deal.at), done]
        said.sort(key=lambda event: event.ts_recv)


class _Bonds:
    """The middles of convertibles, block after block."""

    def __init__(self, o: ScenarioOptions, universe: Universe) -> None:
        self._o = o
        self._shelf = Shelf()
        self._bonds = [universe.get(quoted.instrument) for quoted in o.bonds]
        self._streams = [_stream(o, BONDS, i) for i in range(len(o.bonds))]
        self._off = [0.0] * len(o.bonds)
        self._last: Nanos | None = None

    def draw(self, ts: NDArray[np.int64], shares: Mapping[str, Floats]) -> dict[str, Floats]:
        """Model value and richness at these instants, in per cent of face; NaN once redeemed."""
        dt = np.diff(ts, prepend=ts[0] if self._last is None else self._last) / NS_PER_YEAR
        self._last = int(ts[-1])
        out: dict[str, Floats] = {}
        for i, quoted in enumerate(self._o.bonds):
            bond = self._bonds[i]
            assert isinstance(bond, ConvertibleBond)  # bind() saw to it
            value = np.full(len(ts), math.nan)
            phases = _phases(self._o, bond)
            for phase, after in zip(phases, [*phases[1:], None], strict=True):
                rows = (ts >= phase.since) & ((ts < after.since) if after is not None else True)
                rows &= ts < bond.instant(phase.terms.maturity)
                if rows.any():
                    spots = shares[bond.underlying][rows]
                    found = self._shelf.path(bond, spots, ts[rows], model=phase.model, terms=phase.terms)
                    value[rows] = found.price
            out[quoted.instrument] = value + quoted.richness + self._wander(i, quoted, dt)
        return out

    def _wander(self, i: int, quoted: BondQuotes, dt: Floats) -> Floats:
        """What the market pays more or less than the mean of it: a reverting walk of standard deviation `wander`."""
        draws = self._streams[i].standard_normal(len(dt))
        kept = np.exp(-quoted.reversion * dt)
        spread = quoted.wander * np.sqrt(-np.expm1(-2.0 * quoted.reversion * dt))
        x, out = self._off[i], np.empty(len(dt))
        for j in range(len(dt)):
            x = x * kept[j] + spread[j] * draws[j]
            out[j] = x
        self._off[i] = x
        return out


def read_options(options: ScenarioOptions | Mapping[str, Any]) -> ScenarioOptions:
    """The options as their Struct; ConfigError for an unknown key or a value of the wrong kind in a mapping."""
    if isinstance(options, ScenarioOptions):
        return options
    try:
        return msgspec.convert(options, ScenarioOptions)
    except msgspec.ValidationError as fault:
        raise ConfigError(f"scenario feed: {fault}") from fault


def quote_times(o: ScenarioOptions) -> NDArray[np.int64]:
    """Every instant of quotes: start, start + step ... up to and with the end, on weekdays inside any hours."""
    if o.hours is None:
        return np.arange(o.start, o.end + 1, o.step, dtype=np.int64)
    try:
        zone = ZoneInfo(o.zone)
        opens, closes = (time.fromisoformat(clock) for clock in o.hours)
    except (ValueError, ZoneInfoNotFoundError) as fault:
        raise ConfigError(
            f"scenario feed: hours: expected two times of day in a zone, found {o.hours} in {o.zone!r}"
        ) from fault
    day = datetime.fromtimestamp(o.start // NS_PER_SECOND, zone).date()
    last = datetime.fromtimestamp(o.end // NS_PER_SECOND, zone).date()
    pieces: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    while day <= last:
        if day.weekday() < 5:
            first = max(o.start, nanos(datetime.combine(day, opens, tzinfo=zone)))
            final = min(o.end, nanos(datetime.combine(day, closes, tzinfo=zone)))
            pieces.append(np.arange(first, final + 1, o.step, dtype=np.int64))
        day += timedelta(days=1)
    return np.concatenate(pieces)


def _runs(o: ScenarioOptions, ts: NDArray[np.int64]) -> Iterator[tuple[slice, int]]:
    """Stretches of steps that end in one regime, with the number of regimes entered by then."""
    entered = np.searchsorted(np.array([r.at for r in o.regimes], dtype=np.int64), ts, side="right")
    edges = [0, *(np.flatnonzero(np.diff(entered)) + 1).tolist(), len(ts)]
    for a, b in itertools.pairwise(edges):
        yield slice(a, b), int(entered[a])


def _regime(o: ScenarioOptions, entered: int) -> tuple[Floats, Floats, Floats]:
    """Vols, drifts and correlation after so many regimes. Shape: (k,), (k,), (k, k)."""
    vols = {item.id: item.vol for item in o.underlyings}
    drifts = {item.id: item.drift for item in o.underlyings}
    matrix = o.correlation
    for regime in o.regimes[:entered]:
        vols |= regime.vols
        drifts |= regime.drifts
        matrix = regime.correlation or matrix
    full = np.array(matrix) if matrix else np.eye(len(o.underlyings))
    return np.array(list(vols.values())), np.array(list(drifts.values())), full


def _delta(crowd: Crowd, spot: float, now: Nanos) -> float:
    """The Black-Scholes delta of one option of a crowd, without rates; 0 or 1 once it has expired."""
    tau = years_between(now, crowd.expiry)
    if tau <= 0.0:
        call = 1.0 if spot > crowd.strike else 0.0
    else:
        deviation = crowd.vol * math.sqrt(tau)
        d1 = math.log(spot / crowd.strike) / deviation + 0.5 * deviation
        call = 0.5 * math.erfc(-d1 / math.sqrt(2.0))
    return call if crowd.cp > 0 else call - 1.0


def _terms_at(deal: DealScript, stage: int) -> tuple[DealTerms, Nanos]:
    """Terms and expected close after so many amendments."""
    terms = DealTerms(cash=deal.cash, ratio=deal.ratio, collar=deal.collar)
    close = deal.expected_close
    for change in deal.amendments[:stage]:
        if change.cash is not None or change.ratio is not None:
            cash = terms.cash if change.cash is None else change.cash
            terms = DealTerms(cash=cash, ratio=terms.ratio if change.ratio is None else change.ratio)
        close = close if change.expected_close is None else change.expected_close
    return terms, close


def _phases(o: ScenarioOptions, bond: ConvertibleBond) -> list[_Phase]:
    """A bond as its notices change it: called terms, another credit, another cost of borrowing its shares."""
    assert bond.model is not None  # bind() saw to it
    phases = [_Phase(-(2**62), bond.terms, bond.model)]
    for script in sorted(o.notices, key=lambda item: item.at):
        found = read_notice(_checked_notice(script)) if script.namespace == CONVERTIBLE else None
        if not isinstance(found, ConvertibleNotice) or found.instrument not in {bond.id, bond.underlying}:
            continue
        _, terms, model = phases[-1]
        if found.what == "call" and found.instrument == bond.id and found.effective is not None:
            price = (found.price or 0.0) * float(bond.multiplier)
            terms = called(bond.terms, at=bond.years(found.effective), price=price)
        elif found.what == "credit" and found.credit is not None:
            name = "hazard" if model.hazard is not None else "spread"
            model = msgspec.structs.replace(model, **{name: found.credit})
        elif found.rate is not None:
            model = msgspec.structs.replace(model, borrow=found.rate)
        phases.append(_Phase(script.at, terms, model))
    return phases


def _end_quotes(o: ScenarioOptions, ts: NDArray[np.int64], prices: dict[str, Floats]) -> None:
    """Quote no more what a scripted corporate event ended."""
    for script in o.corporates:
        if script.what in {"merger", "conversion", "redemption"} and script.instrument in prices:
            prices[script.instrument] = np.where(ts >= script.at, math.nan, prices[script.instrument])


INSTANTS: Final = ("effective", "expected_close")
"""Keys of payloads that may be written as text, such as 2027-06-15T14:00:00Z."""


def _checked_notice(script: NoticeScript) -> Notice:
    """The scripted notice, read once so that a payload its namespace does not know is refused before anything runs."""
    payload = {
        key: parse_instant(value) if key in INSTANTS and isinstance(value, str) else value
        for key, value in script.payload.items()
    }
    raw = msgspec.Raw(msgspec.json.encode(payload))
    notice = Notice(ts_recv=script.at, namespace=script.namespace, payload=raw)
    try:
        read_notice(notice)
    except DataError as fault:
        raise ValueError(f"scenario feed: notices: {fault}") from fault
    return notice


def _corporate(script: CorporateScript) -> Corporate:
    into = () if script.into is None else (Conversion(script.instrument, script.into, script.shares),)
    return Corporate(
        ts_recv=script.at,
        what=script.what,
        instrument=script.instrument,
        cash=script.cash,
        conversions=into,
        text=script.text,
    )


def _merged(parts: Sequence[_Rows]) -> QuoteBatch:
    """Rows of all instruments in order of time, at one instant in the order given."""
    ts = np.concatenate([part.ts for part in parts])
    order = np.argsort(ts, kind="stable")
    column = np.concatenate([np.full(len(part.ts), part.column, dtype=np.int32) for part in parts])
    bid, ask = (np.concatenate([getattr(part, side) for part in parts]) for side in ("bid", "ask"))
    size = np.concatenate([np.full(len(part.ts), part.size) for part in parts])
    return QuoteBatch(
        instrument=column[order],
        ts_event=ts[order],
        ts_recv=ts[order],
        bid=bid[order],
        ask=ask[order],
        bid_size=np.where(np.isnan(bid), 0.0, size)[order].astype(np.float32),
        ask_size=np.where(np.isnan(ask), 0.0, size)[order].astype(np.float32),
    )


def _on_tick(ticks: Floats, tick: Decimal) -> Floats:
    """Whole ticks as prices: one correctly rounded division, so that a price prints as its decimal."""
    numerator, denominator = tick.as_integer_ratio()
    return np.asarray(ticks * numerator / denominator)


def _stream(o: ScenarioOptions, purpose: int, number: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(o.seed, spawn_key=(purpose, number))))


def _logit(p: float) -> float:
    return math.log(p / (1.0 - p))


def _digest(o: ScenarioOptions) -> str:
    """A digest of what decides the rows: every option but the batching."""
    plain = msgspec.structs.replace(o, batch_rows=1)
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def _require(met: bool, otherwise: str) -> None:
    if not met:
        raise ValueError(f"scenario feed: {otherwise}")
