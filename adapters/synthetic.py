"""A synthetic session is a seeded path of one underlying and quotes around it; law: its options alone decide its rows.

The same options give the same rows, however they are cut into batches. The feed knows the true path; what it shows is a
quote around it: on the tick, never crossed, a bid below one tick withdrawn. Options are valued by the European formula
at the true price and a smile, vol(k) = level + skew k + curvature k^2 with k = ln(K/F), and quoted half a spread to
each side, which grows with the distance from the money and with vega. At an instant the underlying comes first.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.errors import ConfigError, DataError
from bot.core.events import FeedEvent
from bot.core.ports import FeedReport
from bot.domain.instruments import Instrument, OptionContract, Spot, Universe, occ_id
from bot.domain.market import QuoteBatch
from bot.domain.units import NS_PER_SECOND, NS_PER_YEAR, Nanos, Rate, Vol, iso, nanos
from bot.pricing import paths
from bot.pricing.black import greeks_slice

PATH_BLOCK: Final = 65_536
"""Steps of the path drawn at once. Part of what a seed means: another number would be another session."""
CHUNK_ROWS: Final = 200_000
"""Rows held in memory at once; changes nothing that is yielded."""
WING_LIMIT: Final = 6.0
"""Deviations from the money beyond which the spread widens no further."""

SIDES: Final[tuple[Literal[1, -1], ...]] = (1, -1)

Floats = NDArray[np.float64]


class HestonParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Variance that starts at vol^2 and reverts to a mean: Heston (1993)."""

    mean_reversion: float = 4.0
    long_variance: float = 0.04
    vol_of_variance: float = 0.5
    correlation: float = -0.7


class MertonParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Normal jumps of the log price, `intensity` a year: Merton (1976)."""

    intensity: float = 10.0
    jump_mean: float = -0.02
    jump_vol: float = 0.03


class Smile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """vol(k) = level + skew k + curvature k^2 with k = ln(K/F), kept between a quarter and four times the level."""

    skew: float = 0.0
    curvature: float = 0.0


class Chain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The listed options: a call and a put at each strike of each expiry, closing at `close` in `zone`.

    Strikes are given, or made from `moneyness` (1.05 is 5% above the first spot) rounded to `strike_step`. Half a
    spread is half_spread + wing_spread |k| / (vol sqrt(tau)) ticks (at most six deviations count), plus `vega_spread`
    times vega.
    """

    root: str
    expiries: tuple[date, ...]
    strikes: tuple[Decimal, ...] = ()
    moneyness: tuple[float, ...] = ()
    strike_step: Decimal = Decimal(1)
    multiplier: Decimal = Decimal(100)
    tick: Decimal = Decimal("0.01")
    half_spread: float = 2.0
    wing_spread: float = 4.0
    vega_spread: float = 0.001
    size: float = 50.0
    every: int = 1
    close: str = "16:00"
    zone: str = "America/New_York"
    style: Literal["european", "american"] = "european"
    settlement: Literal["cash", "physical"] = "physical"

    def __post_init__(self) -> None:
        _require(bool(self.expiries), "chain.expiries: expected at least one date, found none")
        _require(bool(self.strikes) != bool(self.moneyness), "chain: expected strikes or moneyness, one of them")
        _require(self.tick > 0, f"chain.tick: expected a positive number, found {self.tick}")
        _require(self.strike_step > 0, f"chain.strike_step: expected a positive number, found {self.strike_step}")
        _require(self.every >= 1, f"chain.every: expected 1 or more steps, found {self.every}")
        for name in ("half_spread", "wing_spread", "vega_spread"):
            value = getattr(self, name)
            _require(0.0 <= value < np.inf, f"chain.{name}: expected 0 or more, found {value}")


class SyntheticOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a session is made of. Instants and steps in ns; vol, rate, dividend, drift per year; half_spread in ticks.

    `hours` such as ("09:30", "16:00") in `zone` cuts each weekday to its session; the price moves through the gaps too.
    """

    start: Nanos
    end: Nanos
    name: str = "synthetic"
    seed: int = 1
    model: Literal["gbm", "heston", "merton"] = "gbm"
    underlying: str = "SIM:XYZ"
    currency: str = "USD"
    step: Nanos = NS_PER_SECOND
    spot: float = 100.0
    drift: Rate = 0.0
    vol: Vol = 0.2
    rate: Rate = 0.0
    dividend: Rate = 0.0
    tick: Decimal = Decimal("0.01")
    half_spread: float = 1.0
    size: float = 1000.0
    smile: Smile = Smile()
    heston: HestonParameters = HestonParameters()
    merton: MertonParameters = MertonParameters()
    chain: Chain | None = None
    hours: tuple[str, str] | None = None
    zone: str = "America/New_York"
    batch_rows: int = 4096

    def __post_init__(self) -> None:
        _require(self.end >= self.start, f"end: expected {iso(self.start)} or later, found {iso(self.end)}")
        _require(self.step > 0, f"step: expected a positive length of time, found {self.step} ns")
        _require(0.0 < self.spot < np.inf, f"spot: expected a positive number, found {self.spot}")
        _require(0.0 <= self.vol < np.inf, f"vol: expected 0 or more, found {self.vol}")
        _require(self.tick > 0, f"tick: expected a positive number, found {self.tick}")
        _require(0.0 <= self.half_spread < np.inf, f"half_spread: expected 0 or more, found {self.half_spread}")
        _require(self.batch_rows >= 1, f"batch_rows: expected 1 or more, found {self.batch_rows}")
        _require(self.seed >= 0, f"seed: expected 0 or more, found {self.seed}")


class _Options(NamedTuple):
    """The contracts to quote, as columns. Shape: each (n,)."""

    column: NDArray[np.int32]
    strike: Floats
    expiry: NDArray[np.int64]
    cp: Floats


class SyntheticFeed:
    """A recorded feed of quotes that were never traded on: one seeded session. No files, no network."""

    recorded: bool = True

    def __init__(self, options: SyntheticOptions | Mapping[str, Any], *, wanted: Sequence[Instrument] = ()) -> None:
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
        """The underlying and its chain where the id contains `query`; the book's own definitions where it has them."""
        o = self._options
        listed: list[Instrument] = [Spot(id=o.underlying, currency=o.currency, tick=o.tick, lot=Decimal(1))]
        if o.chain is not None:
            listed += list_chain(o, o.chain)
        return [self._wanted.get(item.id, item) for item in listed if query in item.id]

    def bind(self, universe: Universe) -> None:
        """Take the column numbers: the underlying and every bound option on it are quoted, of the chain or not."""
        if self._options.underlying not in universe:
            raise DataError(
                f"feed {self.name}: expected {self._options.underlying!r} in the run's instruments, found none"
            )
        self._universe = universe

    async def events(self) -> AsyncIterator[FeedEvent]:
        """Quote batches of at most `batch_rows` rows, `ts_recv` never decreasing; each call is the same session."""
        self._report = self._opening_report()
        for chunk in self._chunks():
            for start in range(0, len(chunk), self._options.batch_rows):
                batch = chunk.rows(start, min(start + self._options.batch_rows, len(chunk)))
                self._report.quotes += len(batch)
                yield batch

    def report(self) -> FeedReport:
        """Rows yielded so far, and the model behind them with a digest of its options."""
        return self._report

    def _opening_report(self) -> FeedReport:
        o = self._options
        notes = [
            f"{o.underlying} is synthetic: model {o.model}, seed {o.seed}; no market quoted these prices",
            "options are quoted at European model values of the feed's own path and smile"
            if o.chain is not None
            else "the underlying is quoted alone",
        ]
        return FeedReport(notes=notes, files={f"synthetic:{o.name}": _digest(o)})

    def _chunks(self) -> Iterator[QuoteBatch]:
        """The session's rows in order, in pieces of about CHUNK_ROWS."""
        universe = self._bound()
        column = universe.index(self._options.underlying)
        contracts = self._contracts(universe)
        every = self._options.chain.every if self._options.chain is not None else 1
        per_step = 1 + len(contracts.column) / every
        steps = max(1, int(CHUNK_ROWS / per_step))
        for first, ts, spots, variances in draw_path(self._options):
            for i in range(0, len(ts), steps):
                part = slice(i, i + steps)
                underlying = quote_underlying(self._options, column, ts[part], spots[part])
                quoted = slice(i + (-(first + i)) % every, i + steps, every)
                options = quote_options(self._options, contracts, ts[quoted], spots[quoted], variances[quoted])
                yield merge_quotes(underlying, options)

    def _bound(self) -> Universe:
        if self._universe is None:
            raise DataError(f"feed {self.name}: expected bind(universe) before events(), found none")
        return self._universe

    def _contracts(self, universe: Universe) -> _Options:
        ours = [
            (universe.index(item.id), item)
            for item in universe
            if isinstance(item, OptionContract) and item.underlying == self._options.underlying
        ]
        if self._options.chain is None:
            ours = []
        return _Options(
            np.asarray([i for i, _ in ours], dtype=np.int32),
            np.asarray([float(item.strike) for _, item in ours], dtype=np.float64),
            np.asarray([item.expiry for _, item in ours], dtype=np.int64),
            np.asarray([float(item.cp) for _, item in ours], dtype=np.float64),
        )


def read_options(options: SyntheticOptions | Mapping[str, Any]) -> SyntheticOptions:
    """The options as their Struct; ConfigError for an unknown key or a value of the wrong kind in a mapping."""
    if isinstance(options, SyntheticOptions):
        return options
    try:
        return msgspec.convert(options, SyntheticOptions)
    except msgspec.ValidationError as fault:
        raise ConfigError(f"synthetic feed: {fault}") from fault


def list_chain(options: SyntheticOptions, chain: Chain) -> list[Instrument]:
    """A call and a put at each strike of each expiry, with exact expiry instants."""
    listed: list[Instrument] = []
    for day in sorted(set(chain.expiries)):
        expiry = local_instant(day, chain.close, chain.zone)
        for strike in chain_strikes(options.spot, chain):
            listed += [_list_contract(options, chain, day, expiry, strike, cp) for cp in SIDES]
    return listed


def _list_contract(
    options: SyntheticOptions, chain: Chain, day: date, expiry: Nanos, strike: Decimal, cp: Literal[1, -1]
) -> OptionContract:
    return OptionContract(
        id=occ_id(chain.root, day, cp, strike),
        currency=options.currency,
        multiplier=chain.multiplier,
        tick=chain.tick,
        lot=Decimal(1),
        underlying=options.underlying,
        cp=cp,
        strike=strike,
        style=chain.style,
        settlement=chain.settlement,
        last_trade=expiry,
        expiry=expiry,
        settles=expiry,
    )


def chain_strikes(spot: float, chain: Chain) -> list[Decimal]:
    """The strikes in order, each once; those made from moneyness on the strike step."""
    if chain.strikes:
        return sorted(set(chain.strikes))
    made = {
        (Decimal(repr(spot * m)) / chain.strike_step).to_integral_value() * chain.strike_step for m in chain.moneyness
    }
    return sorted(strike for strike in made if strike > 0)


def local_instant(day: date, clock: str, zone: str) -> Nanos:
    """The instant a wall clock such as 16:00 shows on a day in a zone; ConfigError when there is no such one."""
    try:
        return nanos(datetime.combine(day, time.fromisoformat(clock), tzinfo=find_zone(zone)))
    except ValueError as fault:
        raise ConfigError(f"synthetic feed: expected a time of day such as 16:00, found {clock!r}") from fault


def find_zone(name: str) -> ZoneInfo:
    """The time zone of a name such as America/New_York; ConfigError when there is none."""
    try:
        return ZoneInfo(name)
    except (ValueError, ZoneInfoNotFoundError) as fault:
        raise ConfigError(f"synthetic feed: expected a zone such as America/New_York, found {name!r}") from fault


def quote_times(options: SyntheticOptions) -> NDArray[np.int64]:
    """Every instant the underlying is quoted: start, start + step ... up to and with the end, inside any hours."""
    if options.hours is None:
        return np.arange(options.start, options.end + 1, options.step, dtype=np.int64)
    opens, closes = options.hours
    zone = find_zone(options.zone)
    day = datetime.fromtimestamp(options.start // NS_PER_SECOND, zone).date()
    last = datetime.fromtimestamp(options.end // NS_PER_SECOND, zone).date()
    pieces: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    while day <= last:
        if day.weekday() < 5:
            first = max(options.start, local_instant(day, opens, options.zone))
            final = min(options.end, local_instant(day, closes, options.zone))
            pieces.append(np.arange(first, final + 1, options.step, dtype=np.int64))
        day += timedelta(days=1)
    return np.concatenate(pieces)


def draw_path(options: SyntheticOptions) -> Iterator[tuple[int, NDArray[np.int64], Floats, Floats]]:
    """The path block by block: number of its first step, instants, true prices, variances (of Heston; else vol^2)."""
    rng = np.random.Generator(np.random.PCG64(options.seed))
    times = quote_times(options)
    spot, variance = options.spot, options.vol**2
    for first in range(0, len(times), PATH_BLOCK):
        ts = times[first : first + PATH_BLOCK]
        # A block is reached from the last instant of the one before; the first block starts at the first instant.
        dt = np.diff(ts, prepend=times[first - 1] if first else ts[0]) / NS_PER_YEAR
        spots, variances = _draw_block(rng, options, dt, spot, variance)
        spot, variance = float(spots[-1]), float(variances[-1])
        yield first, ts, spots, variances


def _draw_block(
    rng: np.random.Generator, o: SyntheticOptions, dt: Floats, spot: float, variance: float
) -> tuple[Floats, Floats]:
    n = len(dt)
    if o.model == "heston":
        h = o.heston
        path = paths.heston(
            rng,
            spot=spot,
            variance=variance,
            dt=dt,
            n_steps=n,
            reversion=h.mean_reversion,
            mean_variance=h.long_variance,
            vol_of_vol=h.vol_of_variance,
            correlation=h.correlation,
            drift=o.drift,
        )
        return path.spot[1:], path.variance[1:]
    if o.model == "merton":
        m = o.merton
        spots = paths.merton(
            rng,
            spot=spot,
            vol=o.vol,
            dt=dt,
            n_steps=n,
            intensity=m.intensity,
            jump_mean=m.jump_mean,
            jump_std=m.jump_vol,
            drift=o.drift,
        )
    else:
        spots = paths.gbm(rng, spot=spot, vol=o.vol, dt=dt, n_steps=n, drift=o.drift)
    return spots[1:], np.full(n, variance)


def level_vol(options: SyntheticOptions, variance: Floats, tau: Floats) -> Floats:
    """The smile's level: `vol`, or under Heston the root of the variance expected on average until expiry.

    E[mean of v over tau] = theta + (v - theta) (1 - e^(-kappa tau)) / (kappa tau) (Heston 1993). Jumps are not in it.
    """
    if options.model != "heston":
        return np.full(np.broadcast_shapes(variance.shape, tau.shape), options.vol)
    h = options.heston
    scaled = np.maximum(h.mean_reversion * tau, 1e-12)
    weight = -np.expm1(-scaled) / scaled
    return np.asarray(np.sqrt(h.long_variance + (np.maximum(variance, 0.0) - h.long_variance) * weight))


def smile_vol(smile: Smile, level: Floats, k: Floats) -> Floats:
    """The vol at log-moneyness k = ln(K/F)."""
    return np.clip(level + smile.skew * k + smile.curvature * k * k, 0.25 * level, 4.0 * level)


def quote_underlying(o: SyntheticOptions, column: int, ts: NDArray[np.int64], spots: Floats) -> QuoteBatch:
    """Quotes a whole number of ticks wide around the true price. Shape: ts and spots (n,)."""
    width = float(np.rint(2.0 * o.half_spread))
    bid = np.floor(spots / float(o.tick) - 0.5 * width + 0.5)
    return _batch(np.full(len(ts), column, dtype=np.int32), ts, bid, bid + width, o.tick, o.size)


def quote_options(
    o: SyntheticOptions, contracts: _Options, ts: NDArray[np.int64], spots: Floats, variances: Floats
) -> QuoteBatch | None:
    """Quotes of every live contract at each instant, or None when there are none. Shape: ts, spots, variances (m,)."""
    chain = o.chain
    if chain is None or not len(contracts.column) or not len(ts):
        return None
    tau_ns = contracts.expiry[None, :] - ts[:, None]
    live = tau_ns > 0
    tau = np.where(live, tau_ns, 1) / NS_PER_YEAR
    forward = spots[:, None] * np.exp((o.rate - o.dividend) * tau)
    k = np.log(contracts.strike[None, :] / forward)
    vol = smile_vol(o.smile, level_vol(o, variances[:, None], tau), k)
    model = greeks_slice(
        spots[:, None], contracts.strike, tau, vol, rate=o.rate, dividend=o.dividend, cp=contracts.cp[None, :]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.nan_to_num(np.minimum(np.abs(k) / (vol * np.sqrt(tau)), WING_LIMIT))
    tick = float(chain.tick)
    half = chain.half_spread + chain.wing_spread * far + chain.vega_spread * model.vega / tick
    middle = model.price / tick
    bid = np.floor(middle - half + 1e-9)
    ask = np.maximum(np.ceil(middle + half - 1e-9), 1.0)
    shape = live.shape
    columns = np.broadcast_to(contracts.column[None, :], shape)[live]
    stamps = np.broadcast_to(ts[:, None], shape)[live]
    return _batch(columns, stamps, bid[live], ask[live], chain.tick, chain.size)


def merge_quotes(underlying: QuoteBatch, options: QuoteBatch | None) -> QuoteBatch:
    """Both in order of time, the underlying first at an instant."""
    if options is None:
        return underlying
    order = np.argsort(np.concatenate([underlying.ts_recv, options.ts_recv]), kind="stable")
    return QuoteBatch(
        **{
            name: np.concatenate([getattr(underlying, name), getattr(options, name)])[order]
            for name in QuoteBatch.__slots__
        }
    )


def on_tick(ticks: Floats, tick: Decimal) -> Floats:
    """Whole ticks as prices: one correctly rounded division, so that a price prints as its decimal."""
    numerator, denominator = tick.as_integer_ratio()
    return np.asarray(ticks * numerator / denominator)


def _batch(
    columns: NDArray[np.int32], ts: NDArray[np.int64], bid: Floats, ask: Floats, tick: Decimal, size: float
) -> QuoteBatch:
    """A batch from prices in ticks; a bid below one tick is withdrawn, with size 0."""
    withdrawn = bid < 1.0
    return QuoteBatch(
        instrument=columns,
        ts_event=ts,
        ts_recv=ts,
        bid=np.where(withdrawn, np.nan, on_tick(bid, tick)),
        ask=np.where(ask < 1.0, np.nan, on_tick(ask, tick)),
        bid_size=np.where(withdrawn, 0.0, size).astype(np.float32),
        ask_size=np.where(ask < 1.0, 0.0, size).astype(np.float32),
    )


def _digest(options: SyntheticOptions) -> str:
    """A digest of what decides the rows: every option but the batching."""
    plain = msgspec.structs.replace(options, batch_rows=1)
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def _require(met: bool, otherwise: str) -> None:
    if not met:
        raise ValueError(f"synthetic feed: {otherwise}")
