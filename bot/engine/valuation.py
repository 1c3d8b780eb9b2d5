"""Valuation turns marks into Greeks; law: unknown is NaN with a reason, never zero, and vols change only at re-marks.

One `Slice` holds the option contracts on one underlying as columns. A slice is re-marked (vols solved from two-sided
mids, read off a fitted surface or forecast, the last valid one carried with its age) at re-mark instants, and priced in one
array call when somebody asks. What a vol does when spot moves, the smile rule's slope, is fixed at the re-mark too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.errors import ConfigError
from bot.core.events import Alarm, Corporate
from bot.core.ports import Chain, VolInput
from bot.core.quiet import FOREVER, Renewal
from bot.domain.calendar import Sessions
from bot.domain.greeks import Greeks
from bot.domain.instruments import ConvertibleBond, Future, OptionContract, Perpetual, Universe
from bot.domain.units import NEVER, NS_PER_MINUTE, NS_PER_YEAR, Nanos, Rate, Vol, Years, decimal_of, span
from bot.engine import early_exercise, smiles, vol_sources
from bot.engine.clock import Act365, ModelClock, TradingClock
from bot.engine.early_exercise import CashDividend, Exact, Group, Market, Unit
from bot.engine.marks import NAN, Marks, carry_forward
from bot.engine.model_check import Check, CheckSettings
from bot.engine.smiles import SmileRule, SurfaceSettings
from bot.engine.vol_sources import ForecastSettings
from bot.pricing import black, implied
from bot.pricing.american_discrete import DividendModel
from bot.pricing.convertible_shelf import Shelf
from bot.pricing.near import near_kernel
from bot.pricing.status import Status
from bot.pricing.surface import Surface
from bot.pricing.totals import totals_kernel

PARITY: Final = "/PARITY"
"""What is added to an underlying's id to name the instrument that carries its parity price."""

Floats: TypeAlias = NDArray[np.float64]
VolSourceName: TypeAlias = Literal["fixed", "per_contract", "marks_file", "implied", "surface", "forecast"]
SpotSource: TypeAlias = Literal["quotes", "trades", "parity_forward"]


class DeltaTable(msgspec.Struct, frozen=True, kw_only=True):
    """A supplied value of a call per unit: `value` at `spots[0]`, delta linear between `spots`, a straight decay per year."""

    spots: tuple[float, ...]
    deltas: tuple[float, ...]
    value: float
    decay_per_year: float

    def __post_init__(self) -> None:
        if len(self.spots) < 2 or len(self.spots) != len(self.deltas):
            raise ValueError("delta table: expected two or more spots and one delta for each")
        if any(b <= a for a, b in zip(self.spots, self.spots[1:], strict=False)):
            raise ValueError("delta table: expected spots in rising order")


class VolMark(msgspec.Struct, frozen=True, kw_only=True):
    """One supplied vol: from instant `ts` on, the contract is marked at `vol`."""

    ts: Nanos
    instrument: str
    vol: Vol


class ValuationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How options are valued. Rates are continuous per year; by underlying where given, else the common one."""

    pricer: Literal["european", "american", "table"] = "european"
    vol: VolSourceName = "implied"
    vol_value: Vol | None = None
    vols: Mapping[str, Vol] = {}
    vol_marks: tuple[VolMark, ...] = ()
    rate: Rate = 0.0
    dividend: Rate = 0.0
    rates: Mapping[str, Rate] = {}
    dividends: Mapping[str, Rate] = {}
    sources: Mapping[str, SpotSource] = {}
    source: SpotSource = "quotes"
    stale_after: Nanos | None = None
    vol_max_age: Nanos | None = None
    table: DeltaTable | None = None
    mark: Literal["mid", "model"] | None = None
    smile: SmileRule = SmileRule()
    surface: SurfaceSettings = SurfaceSettings()
    forecast: ForecastSettings | None = None
    check: CheckSettings | None = None
    cash_dividends: Mapping[str, Sequence[CashDividend]] = {}
    dividend_model: DividendModel = "spot"
    trading: Mapping[str, Sessions] = {}
    remark: Nanos = NS_PER_MINUTE

    @property
    def marks_at(self) -> Literal["mid", "model"]:
        """Where option P&L is marked unless said: the middle of the quote when vols are implied from it or forecast beside it,
        else the model."""
        if self.mark is not None:
            return self.mark
        return "mid" if self.vol in {"implied", "forecast"} and self.pricer != "table" else "model"


class UnitGreeks(NamedTuple):
    """Values per unit of underlying of one contract. Shape: each (..., contracts)."""

    price: Floats
    delta: Floats
    gamma: Floats
    vega: Floats
    theta: Floats
    rho: Floats
    vanna: Floats
    volga: Floats
    charm: Floats


_SLICE_COLUMNS: Final = (
    "american", "columns", "cp", "expiry", "expiry_clock", "multiplier", "seen_ask", "seen_bid", "skew", "slope", "strike",
    "vol", "vol_ts",
)  # fmt: skip


class Slice:
    """The option contracts on one underlying, as columns in order of contract id."""

    def __init__(self, underlying: str, universe: Universe, settings: ValuationSettings) -> None:
        instrument = universe.get(underlying)
        self.underlying = underlying
        self.column = universe.index(underlying)
        self.on_future = isinstance(instrument, Future | Perpetual)
        self.source: SpotSource = settings.sources.get(underlying, settings.source)
        self.rate = settings.rates.get(underlying, settings.rate)
        self.dividend = 0.0 if self.on_future else settings.dividends.get(underlying, settings.dividend)
        self.contracts: list[OptionContract] = []
        self.rows: dict[str, int] = {}
        self.columns: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.strike: Floats = np.empty(0)
        self.cp: Floats = np.empty(0)
        self.multiplier: Floats = np.empty(0)
        self.expiry: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.vol: Floats = np.empty(0)
        self.vol_ts: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.vol_version = 0
        self.epoch: Nanos = 0
        companion = underlying + PARITY
        self.price_column = universe.index(companion) if companion in universe else self.column
        self.from_quotes = self.source == "quotes" and self.price_column == self.column
        self.seen_bid: Floats = np.empty(0)
        self.seen_ask: Floats = np.empty(0)
        trading = settings.trading.get(instrument.calendar)
        self.clock: ModelClock = Act365() if trading is None else TradingClock(trading)
        self.clock_epoch = 0
        self.expiry_clock: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.takes_early = settings.pricer == "american"
        self.american: NDArray[np.bool_] = np.empty(0, dtype=bool)
        self.skew: Floats = np.empty(0)
        self.slope: Floats = np.empty(0)
        self.smile_moves = settings.smile.moves
        self.remark = settings.remark
        self.marked_ts: Nanos = 0
        self.market = Market(self.rate, self.dividend, self.on_future, (), settings.dividend_model)
        self.pay(settings.cash_dividends.get(underlying, ()))

    def pay(self, dividends: Sequence[CashDividend]) -> None:
        """The cash dividends to come are these."""
        counted = sorted((self.clock.at(item.ex), item.amount) for item in dividends)
        self.market = self.market._replace(dividends=tuple(counted))
        self.vol_version += 1

    @property
    def has_early(self) -> bool:
        """True when some contract is valued by the early-exercise room: American ones, and all with cash dividends."""
        return bool(self.takes_early and (self.american.any() or self.market.dividends))

    @property
    def early(self) -> NDArray[np.bool_]:
        """The contracts valued by the early-exercise room. Shape: (contracts,)."""
        return (
            self.american | bool(self.market.dividends)
            if self.takes_early
            else np.zeros(len(self.contracts), dtype=bool)
        )

    def add(self, contract: OptionContract, column: int, vol: Vol, vol_ts: Nanos, *, now: Nanos) -> None:
        """Append one contract."""
        if contract.id in self.rows:
            return
        if not self.contracts:
            self.epoch = now
            self.clock_epoch = self.clock.at(now)
        self.rows[contract.id] = len(self.contracts)
        self.contracts.append(contract)
        self.columns = np.append(self.columns, column)
        self.strike = np.append(self.strike, float(contract.strike))
        self.cp = np.append(self.cp, float(contract.cp))
        self.multiplier = np.append(self.multiplier, float(contract.multiplier))
        self.expiry = np.append(self.expiry, contract.expiry)
        self.vol = np.append(self.vol, vol)
        self.vol_ts = np.append(self.vol_ts, vol_ts)
        self.seen_bid = np.append(self.seen_bid, NAN)
        self.seen_ask = np.append(self.seen_ask, NAN)
        self.expiry_clock = np.append(self.expiry_clock, self.clock.at(contract.expiry))
        self.american = np.append(self.american, self.takes_early and contract.style == "american")
        self.skew = np.append(self.skew, NAN)
        self.slope = np.append(self.slope, NAN if self.smile_moves else 0.0)
        self.changed(now)

    def part(self, rows: NDArray[np.int64]) -> Slice:
        """A still picture of some of its contracts, in the order of `rows`: what array calls over few of many need."""
        found = copy.copy(self)
        found.contracts = [self.contracts[r] for r in rows]
        found.rows = {contract.id: i for i, contract in enumerate(found.contracts)}
        for name in _SLICE_COLUMNS:
            setattr(found, name, getattr(self, name)[rows])
        return found

    def changed(self, now: Nanos) -> None:
        """Vols or slopes are others from now on: whoever keeps columns of them packs anew."""
        self.vol_version += 1
        self.marked_ts = now

    def tau(self, now: Nanos) -> Floats:
        """Years to each expiry on the slice's clock. Shape: (contracts,)."""
        return np.asarray((self.expiry_clock - self.clock.at(now)) / NS_PER_YEAR)

    def forward(self, spot: float | Floats, tau: float | Floats) -> tuple[Floats, Floats]:
        """Forward and discount factor, cash dividends left out. Shape: broadcast."""
        carry = 0.0 if self.on_future else self.rate - self.dividend
        return np.asarray(spot * np.exp(carry * np.asarray(tau))), np.asarray(np.exp(-self.rate * np.asarray(tau)))

    def forward_less_cash(self, spot: float, tau: float, now: int) -> tuple[float, float]:
        """Forward and discount factor, the cash dividends that go ex before then taken out."""
        away = 0.0
        for ex, amount in self.market.dividends:
            years = (ex - now) / NS_PER_YEAR
            if 0.0 < years < tau:
                away += amount * math.exp(-self.rate * years)
        forward, discount = self.forward(spot - away, tau)
        return float(forward), float(discount)


class Legs:
    """A holding of one book in one slice: weights are contracts x multiplier, in underlying units."""

    def __init__(self, slice_: Slice, quantities: Mapping[str, float]) -> None:
        self.slice = slice_
        held = [(slice_.rows[key], q) for key, q in sorted(quantities.items()) if key in slice_.rows and q]
        self.row = np.array([r for r, _ in held], dtype=np.int64)
        self.quantity = np.array([q for _, q in held], dtype=np.float64)
        self.weight = self.quantity * slice_.multiplier[self.row] if held else np.empty(0)
        self.ids = [slice_.contracts[r].id for r, _ in held]
        self.first_expiry: Nanos = int(slice_.expiry[self.row].min()) if held else FOREVER
        self.packed: Floats = np.empty((0, 5))
        self.packed_version = -1
        self.net: Callable[[float, Nanos], tuple[float, float]] = self._nothing
        self.tilts: list[tuple[int, Floats]] = []
        self.groups: list[Group] = []
        self.main = int(self.row[int(np.argmax(np.abs(self.weight)))]) if held else -1
        """The row of the leg of the largest weight, -1 without any."""
        self.vols: dict[str, float] = {}
        """The legs' vols by id, as of the last `pack`; an object of its own for each."""
        self.oldest: Nanos = -1
        """The oldest vol instant among the legs, as of the last `pack`."""
        self.lacks_vol = False
        """True when a leg's vol was unknown at the last `pack`."""

    def __len__(self) -> int:
        return len(self.row)

    def pack(self) -> None:
        """Rebuild the columns the compiled kernel reads: vols changed."""
        s = self.slice
        plain = ~s.early[self.row]
        self.packed = self._columns(plain, self.weight)
        self.tilts = self._tilts(plain) if s.smile_moves else []
        self.groups = self._groups(~plain) if not plain.all() else []
        self.vols = dict(zip(self.ids, s.vol[self.row].tolist(), strict=True))
        self.oldest = int(s.vol_ts[self.row].min()) if len(self) else -1
        self.lacks_vol = bool(np.isnan(s.vol[self.row]).any())
        self.packed_version = s.vol_version

    def fresh(self) -> Legs:
        """Itself, packed at the vols of now."""
        if self.packed_version != self.slice.vol_version:
            self.pack()
        return self

    def _columns(self, chosen: NDArray[np.bool_], weight: Floats) -> Floats:
        s, r = self.slice, self.row[chosen]
        return black.pack_slice(
            strike=s.strike[r],
            expiry=s.expiry_clock[r],
            vol=s.vol[r],
            cp=s.cp[r],
            weight=weight[chosen],
            epoch=s.clock_epoch,
        )

    def _tilts(self, chosen: NDArray[np.bool_]) -> list[tuple[int, Floats]]:
        """By expiry, the legs weighed by vol x slope: vega is S^2 vol tau gamma, so gammas of these sum to the smile's part."""
        s = self.slice
        weight = self.weight * s.vol[self.row] * s.slope[self.row]
        ends = s.expiry_clock[self.row]
        return [
            (int(end) - s.clock_epoch, self._columns(chosen & (ends == end), weight)) for end in np.unique(ends[chosen])
        ]

    def _groups(self, chosen: NDArray[np.bool_]) -> list[Group]:
        """The early-exercise legs by expiry."""
        s = self.slice
        ends = s.expiry_clock[self.row]
        found = []
        for end in np.unique(ends[chosen]):
            legs = np.flatnonzero(chosen & (ends == end))
            r = self.row[legs]
            found.append(
                Group(
                    _exact_of(s, r),
                    weight=self.weight[legs],
                    vol=s.vol[r],
                    slope=s.slope[r],
                    cp=s.cp[r],
                    strike=s.strike[r],
                    expiry=int(end),
                    anchor=int(end) - s.clock.at(s.marked_ts),
                    cap=s.remark,
                    jumps=[int(end) - ex for ex, _ in s.market.dividends],
                )
            )
        return found

    def _nothing(self, spot: float, now: Nanos) -> tuple[float, float]:
        return 0.0, 0.0


def _exact_of(s: Slice, rows: NDArray[np.int64]) -> Exact:
    """The exact values of some contracts of a slice at the vols of this moment."""
    strike, vol, cp = s.strike[rows], s.vol[rows], s.cp[rows]
    expiry, style, market = s.expiry_clock[rows], s.american[rows], s.market

    def exact(spots: Floats, remaining: NDArray[np.int64], chosen: NDArray[np.int64]) -> Unit:
        return early_exercise.values(
            market,
            spots,
            strike[chosen],
            remaining,
            vol[chosen],
            cp=cp[chosen],
            expiry=expiry[chosen],
            style=style[chosen],
        )

    return exact


class Valuation:
    """Values the option slices of a run."""

    def __init__(self, universe: Universe, marks: Marks, settings: ValuationSettings) -> None:
        if settings.vol == "fixed" and settings.vol_value is None and settings.pricer != "table":
            raise ConfigError("pricing.vol = 'fixed' needs pricing.vol_value")
        if settings.pricer == "table" and settings.table is None:
            raise ConfigError("pricing.pricer = 'table' needs [pricing.table]")
        _refuse_contradictions(settings)
        self._universe = universe
        self._marks = marks
        self.settings = settings
        self.on_alarm: Callable[[Alarm], None] = _nobody
        self.surfaces: dict[str, Fitted] = {}
        self._bars: dict[str, vol_sources.Known] = {}
        self._chains: dict[str, tuple[int, smiles.Contracts]] = {}
        self._check = None if settings.check is None else Check(settings.check)
        self._told: dict[str, str] = {}
        self.slices: dict[str, Slice] = {}
        self._last_mark: dict[str, Decimal] = {}
        self._priced: dict[str, tuple[tuple[float, Nanos, int, int, Nanos], Floats]] = {}
        self.bonds = Shelf()
        self._vol_marks = sorted(settings.vol_marks, key=lambda m: m.ts)
        self._next_vol_mark = 0
        self._started_ts: Nanos = 0

    # ------------------------------------------------------------------ contracts and prices

    def slice(self, underlying: str) -> Slice:
        """The slice of an underlying, made when first asked for."""
        known = self.slices.get(underlying)
        if known is None:
            known = self.slices[underlying] = Slice(underlying, self._universe, self.settings)
        return known

    def follow(self, renamed: Mapping[str, str]) -> None:
        """Value the new ids as the old ones were: same price source, rate and yield."""
        if not renamed:
            return
        settings = self.settings
        carried = {
            name: {**found, **{new: found[old] for old, new in renamed.items() if old in found}}
            for name, found in (
                ("sources", settings.sources),
                ("rates", settings.rates),
                ("dividends", settings.dividends),
                ("cash_dividends", settings.cash_dividends),
            )
        }
        self.settings = msgspec.structs.replace(settings, **carried)

    def add(self, contract: OptionContract, *, now: Nanos, vol: Vol | None = None) -> None:
        """Value this contract from now on; a supplied vol is its first mark."""
        first = vol if vol is not None else self._first_vol(contract)
        self.slice(contract.underlying).add(
            contract, self._universe.index(contract.id), first, now if not math.isnan(first) else -1, now=now
        )

    def adjust(self, event: Corporate) -> None:
        """Carry the last good prices over a corporate event, so that a withdrawn quote is not carried at an old price."""
        changes = [(c.old, c.new, c.ratio) for c in event.conversions]
        if event.what == "split" and event.instrument not in {c.old for c in event.conversions}:
            changes.append((event.instrument, event.instrument, event.ratio))
        for old, new, ratio in changes:
            mark = self._last_mark.get(old)
            if mark is not None:
                self._last_mark[new] = mark / ratio
            self._carry_quote(old, new, float(ratio))
            self._scale_dividends(old, new, float(ratio))

    def pay_out(self, instrument: str, amount: Decimal) -> None:
        """Carry the last good price of a bond over its coupon."""
        mark = self._last_mark.get(instrument)
        if mark is not None and mark > amount:
            self._last_mark[instrument] = mark - amount

    def _scale_dividends(self, old: str, new: str, ratio: float) -> None:
        """A split share pays a part of the dividend that was announced."""
        known = self.settings.cash_dividends.get(old, ())
        if not known or ratio == 1.0:
            return
        paid = tuple(item._replace(amount=item.amount / ratio) for item in known)
        self.settings = msgspec.structs.replace(
            self.settings, cash_dividends={**self.settings.cash_dividends, new: paid}
        )
        if new in self.slices:
            self.slices[new].pay(paid)

    def _carry_quote(self, old: str, new: str, ratio: float) -> None:
        before, after = self._universe.get(old), self._universe.get(new)
        if not (isinstance(before, OptionContract) and isinstance(after, OptionContract)):
            return
        a, b = self.slice(before.underlying), self.slice(after.underlying)
        i, j = a.rows.get(old), b.rows.get(new)
        if i is not None and j is not None and old != new:
            b.seen_bid[j], b.seen_ask[j] = a.seen_bid[i] / ratio, a.seen_ask[i] / ratio

    def _first_vol(self, contract: OptionContract) -> Vol:
        if self.settings.vol == "fixed":
            return self.settings.vol_value if self.settings.vol_value is not None else NAN
        if self.settings.vol == "per_contract":
            found = self.settings.vols.get(contract.id)
            if found is None:
                raise ConfigError(
                    f"pricing.vol = 'per_contract' needs a vol for {contract.id!r}: give the book a `vol` column"
                )
            return found
        return NAN

    def spot(self, underlying: str) -> float:
        """The price its options are valued at: the underlying's from its permitted source, or its parity price."""
        slice_ = self.slices.get(underlying) or self.slice(underlying)
        if slice_.from_quotes:
            return self._marks.mid(slice_.column)
        return self._marks.last(slice_.price_column)

    def price_ratio(self, s: Slice) -> float:
        """d(parity price) / d(price): what turns a delta with respect to the one into the other's; 1 without parity."""
        if s.price_column == s.column:
            return 1.0
        own = self._marks.mid(s.column) if s.source == "quotes" else self._marks.last(s.column)
        return self._marks.last(s.price_column) / own

    def spot_ts(self, underlying: str) -> Nanos:
        """When that price was received, NEVER before the first."""
        slice_ = self.slice(underlying)
        if slice_.from_quotes:
            return self._marks.quote_ts(slice_.column)
        return self._marks.last_ts(slice_.price_column)

    def is_stale(self, underlying: str, now: Nanos) -> bool:
        """True when the underlying's price is older than `stale_after`."""
        bound = self.settings.stale_after
        return bound is not None and now - self.spot_ts(underlying) > bound

    # ------------------------------------------------------------------ vols

    def remark(self, now: Nanos) -> bool:
        """Solve or take new vols; True when any changed. Rows without a valid one keep theirs with its age."""
        self._note_quotes()
        if self.settings.pricer == "table":
            return False
        changed = self._new_vols(now)
        if self.settings.smile.moves:
            tilted = [self._tilt(slice_, now) for slice_ in self.slices.values()]
            changed = changed or any(tilted)
        if self._check is not None and self._check.is_due():
            self._compare(now)
        return changed

    def _new_vols(self, now: Nanos) -> bool:
        if self.settings.vol == "marks_file":
            return self._take_vol_marks(now)
        mark = {"implied": self._solve, "surface": self._fit, "forecast": self._foresee}.get(self.settings.vol)
        changed = [] if mark is None else [mark(slice_, now) for slice_ in self.slices.values()]
        return any(changed)

    def _note_quotes(self) -> None:
        """Keep the last two-sided quote of every contract, as of the re-marks: what a mark is carried from."""
        if self.settings.marks_at != "mid":
            return
        bids, asks = self._marks.bid_view, self._marks.ask_view
        for s in self.slices.values():
            bid, ask = bids[s.columns], asks[s.columns]
            good = bid <= ask
            s.seen_bid = np.where(good, bid, s.seen_bid)
            s.seen_ask = np.where(good, ask, s.seen_ask)

    def _solve(self, s: Slice, now: Nanos) -> bool:
        spot = self.spot(s.underlying)
        if math.isnan(spot) or not s.contracts or self.is_stale(s.underlying, now):
            return self._drop_old(s, now)
        live = np.flatnonzero(s.expiry > now)
        part = s if len(live) == len(s.contracts) else s.part(live)
        bid, ask = self._fresh_quotes(part.columns, now)
        mids = np.where(bid <= ask, 0.5 * (bid + ask), NAN)
        tau = part.tau(now)
        forward, discount = part.forward(spot, tau)
        vol, status = implied.vol(mids, forward, part.strike, tau, discount=discount, cp=part.cp)
        good = status == Status.OK
        if part.has_early:
            rows = np.flatnonzero(part.early)
            vol[rows], good[rows] = early_exercise.implied_vols(
                part.market,
                mids[rows],
                spot,
                part.strike[rows],
                part.expiry_clock[rows] - s.clock.at(now),
                cp=part.cp[rows],
                expiry=part.expiry_clock[rows],
                style=part.american[rows],
            )
        if part is not s:
            solved, found = np.full(len(s.contracts), NAN), np.zeros(len(s.contracts), dtype=bool)
            solved[live], found[live] = vol, good
            vol, good = solved, found
        return self._take_vols(s, vol, good, now)

    def _take_vols(self, s: Slice, vol: Floats, good: NDArray[np.bool_], now: Nanos) -> bool:
        """Mark the good rows at new vols; the others keep theirs with its age."""
        if not good.any():
            return self._drop_old(s, now)
        s.vol = np.where(good, vol, s.vol)
        s.vol_ts = np.where(good, now, s.vol_ts)
        s.changed(now)
        self._drop_old(s, now)
        return True

    def _fresh_quotes(self, columns: NDArray[np.int64], now: Nanos) -> tuple[Floats, Floats]:
        """Bids and asks, NaN where older than `stale_after`. Shape: (columns,)."""
        bid, ask = self._marks.bid_view[columns], self._marks.ask_view[columns]
        if self.settings.stale_after is None:
            return bid, ask
        old = now - self._marks.quote_time_view[columns] > self.settings.stale_after
        return np.where(old, NAN, bid), np.where(old, NAN, ask)

    def _drop_old(self, s: Slice, now: Nanos) -> bool:
        """Make a vol unknown once it is older than `vol_max_age`; True when one became so."""
        bound = self.settings.vol_max_age
        if bound is None:
            return False
        old = (now - s.vol_ts > bound) & ~np.isnan(s.vol)
        if old.any():
            s.vol = np.where(old, NAN, s.vol)
            s.changed(now)
        return bool(old.any())

    def _take_vol_marks(self, now: Nanos) -> bool:
        taken = False
        while self._next_vol_mark < len(self._vol_marks) and self._vol_marks[self._next_vol_mark].ts <= now:
            mark = self._vol_marks[self._next_vol_mark]
            self._next_vol_mark += 1
            for s in self.slices.values():
                row = s.rows.get(mark.instrument)
                if row is not None:
                    s.vol = s.vol.copy()
                    s.vol_ts = s.vol_ts.copy()
                    s.vol[row], s.vol_ts[row] = mark.vol, mark.ts
                    s.changed(now)
                    taken = True
        return taken

    # ------------------------------------------------------------------ surface, forecast, smile rule, second pricer

    def _contracts(self, s: Slice) -> smiles.Contracts:
        """Every option on the underlying that the run knows, whether it is valued or not."""
        known = self._chains.get(s.underlying)
        if known is not None and known[0] == len(self._universe):
            return known[1]
        items = [i for i in self._universe if isinstance(i, OptionContract) and i.underlying == s.underlying]
        items.sort(key=lambda item: item.id)
        found = smiles.Contracts(
            columns=np.array([self._universe.index(i.id) for i in items], dtype=np.int64),
            strike=np.array([float(i.strike) for i in items]),
            cp=np.array([float(i.cp) for i in items]),
            expiry=np.array([s.clock.at(i.expiry) for i in items], dtype=np.int64),
            ends=np.array([i.expiry for i in items], dtype=np.int64),
            american=np.array([s.takes_early and i.style == "american" for i in items], dtype=bool),
        )
        self._chains[s.underlying] = len(self._universe), found
        return found

    def _smiles(self, s: Slice, spot: float, now: Nanos) -> smiles.Smiles:
        contracts = self._contracts(s)
        bid, ask = self._fresh_quotes(contracts.columns, now)
        at = s.clock.at(now)
        return smiles.read_smiles(
            contracts,
            bid,
            ask,
            spot=spot,
            now=at,
            market=s.market,
            forwards=lambda S, T: s.forward_less_cash(S, T, at),
        )

    def why_unmarked(self, contract: OptionContract, now: Nanos) -> str:
        """Why a contract could not be marked at a model value if the session began now; empty when it could."""
        if self.settings.marks_at == "mid" or self.settings.vol not in {"surface", "forecast"}:
            return ""
        s = self.slice(contract.underlying)
        spot = self.spot(contract.underlying)
        if self.settings.vol == "forecast":
            vol = self._forecast(s, spot, now)
            return "" if np.all(np.isfinite(vol)) else f"the forecast has not seen enough of {contract.underlying}"
        made, why = smiles.fit_surface(self._smiles(s, spot, now), self.settings.surface, spot=spot)
        return "" if made is not None else f"no surface of {contract.underlying}: {why}"

    def _fit(self, s: Slice, now: Nanos) -> bool:
        """Mark every contract on a surface of the chain; the last good one is carried, with its age, when none fits."""
        spot = self.spot(s.underlying)
        if not s.contracts:
            return False
        if math.isnan(spot) or self.is_stale(s.underlying, now):
            return self._drop_old(s, now)
        read = self._smiles(s, spot, now)
        made, why = smiles.fit_surface(read, self.settings.surface, spot=spot)
        if made is None:
            self._tell("surface_fit", s.underlying, now, f"{why}; the last good surface is carried")
            return self._drop_old(s, now)
        self._told.pop(f"surface_fit {s.underlying}", None)
        before = self.surfaces.get(s.underlying)
        seen = frozenset(read) | (before.expiries if before is not None else frozenset())
        self.surfaces[s.underlying] = Fitted(now, spot, made, seen)
        tau = s.tau(now)
        vol = made.vol(s.strike, tau)
        # an expiry that had quotes and has none now keeps its vols: between its neighbours it would jump
        lost = np.array([int(end) in seen and int(end) not in read for end in s.expiry_clock])
        with np.errstate(all="ignore"):
            skew = made.skew(tau, k=np.log(s.strike / made.forward(tau)))
        good = np.isfinite(vol) & (vol > 0.0) & ~lost
        s.skew = np.where(good, skew, s.skew)
        return self._take_vols(s, vol, good, now)

    def _foresee(self, s: Slice, now: Nanos) -> bool:
        """Mark every contract at the vol its source forecasts from bars that have ended."""
        vol = self._forecast(s, self.spot(s.underlying), now)
        return self._take_vols(s, vol, np.isfinite(vol) & (vol > 0.0), now) if s.contracts else False

    def _forecast(self, s: Slice, spot: float, now: Nanos) -> Floats:
        """The forecast for each contract of a slice, one number before it has any; the present price is noted first."""
        settings = self.settings.forecast
        assert settings is not None  # checked in the constructor
        bars = self._bars.get(s.underlying)
        if bars is None:
            bars = self._bars[s.underlying] = vol_sources.bars_of(settings, s.underlying)
        if not self.is_stale(s.underlying, now):
            bars.observe(now, spot)
        known, gaps = bars.known(now)
        tau = s.tau(now)
        opened, high, low, close = np.array([bar[1:] for bar in known], dtype=np.float64).reshape(len(known), 4).T
        found = settings.source.vols(
            VolInput(
                underlying=s.underlying,
                now=now,
                interval=settings.interval,
                periods_per_year=settings.periods_per_year.get(s.underlying, NS_PER_YEAR / settings.interval),
                ts=np.array([bar.ts for bar in known], dtype=np.int64),
                open=opened,
                high=high,
                low=low,
                close=close,
                returns=vol_sources.close_returns(known, settings.interval, gaps=gaps),
                strike=s.strike,
                cp=s.cp,
                tau=tau,
                forward=s.forward(spot, tau)[0],
            )
        )
        vol = np.asarray(found, dtype=np.float64)
        return np.array(np.broadcast_to(vol, s.strike.shape)) if s.contracts else np.atleast_1d(vol)

    def _tilt(self, s: Slice, now: Nanos) -> bool:
        """Fix d vol / d spot of every contract at this re-mark; True when it changed."""
        spot = self.spot(s.underlying)
        if not s.contracts or math.isnan(spot) or self.is_stale(s.underlying, now):
            return False
        rule = self.settings.smile
        tau = s.tau(now)
        if rule.reads_skew and self.settings.vol != "surface":
            read = self._smiles_to_read(s, spot, now)
            skew = smiles.local_skews(read, s.strike, s.expiry_clock)
            s.skew = np.where(np.isfinite(skew), skew, s.skew)
        forward = s.forward(spot, tau)[0]
        delta = self.units(s, spot, now, s.vol, second=False).delta if rule.kind == "minimum_variance" else s.strike
        slope = smiles.vol_slopes(rule, smiles.Legs(s.strike, tau, s.vol, delta, forward), s.skew, spot=spot)
        slope = np.where(tau > 0.0, slope, 0.0)
        if np.array_equal(slope, s.slope, equal_nan=True):
            return False
        s.slope = slope
        s.changed(now)
        return True

    def _smiles_to_read(self, s: Slice, spot: float, now: Nanos) -> smiles.Smiles:
        """The chain's quotes; for supplied vols, these vols themselves."""
        if self.settings.vol == "implied":
            return self._smiles(s, spot, now)
        tau = s.tau(now)
        found = {}
        for end in np.unique(s.expiry_clock):
            rows = np.flatnonzero((s.expiry_clock == end) & np.isfinite(s.vol) & (tau > 0.0))
            if rows.size:
                T = float(tau[rows[0]])
                forward = float(s.forward(spot, T)[0])
                found[int(end)] = smiles.of_vols(s.strike[rows], s.vol[rows], forward=forward, tau=T)
        return found

    def _compare(self, now: Nanos) -> None:
        """Value the contracts a second way; alarm where price or delta differ by more than is allowed."""
        assert self._check is not None
        for s in self.slices.values():
            spot = self.spot(s.underlying)
            if not s.contracts or math.isnan(spot):
                continue
            units = self.units(s, spot, now, s.vol, second=False)
            alive = (s.expiry > now) & np.isfinite(units.price) & np.isfinite(s.vol)
            second = self._check.second(
                s.market,
                spot,
                s.strike,
                s.expiry_clock - s.clock.at(now),
                s.vol,
                cp=s.cp,
                expiry=s.expiry_clock,
                style=np.array([c.style == "american" for c in s.contracts]),
                alive=alive,
            )
            for text in self._check.news([c.id for c in s.contracts], units.price, units.delta, second, spot=spot):
                self.on_alarm(
                    Alarm(code="model_disagreement", text=text, ts=now, underlying=s.underlying, action="none")
                )

    def _tell(self, code: str, underlying: str, now: Nanos, text: str) -> None:
        """Alarm once per reason, until it is over."""
        key = f"{code} {underlying}"
        if self._told.get(key) == text:
            return
        self._told[key] = text
        self.on_alarm(Alarm(code=code, text=f"{underlying}: {text}", ts=now, underlying=underlying, action="none"))

    # ------------------------------------------------------------------ Greeks

    def legs(self, underlying: str, quantities: Mapping[str, float]) -> Legs:
        """The holding as a packed column set, with its fast net delta and gamma bound to the pricer."""
        slice_ = self.slice(underlying)
        legs = Legs(slice_, quantities)
        if len(legs):
            if self.settings.pricer == "table":
                legs.net = self._table_net(legs)
            elif slice_.has_early or slice_.smile_moves or bool(self.settings.trading):
                legs.net = self._modelled_net(legs)
            else:
                legs.net = self._european_net(legs)
        return legs

    def _modelled_net(self, legs: Legs) -> Callable[[float, Nanos], tuple[float, float]]:
        """Net delta with the smile's part, and gamma: European legs by the kernel, early-exercise ones from cells."""
        kernel = black.slice_kernel()
        s = legs.slice
        rate, epoch, clock = s.rate, s.clock_epoch, s.clock
        parity = s.price_column != s.column
        dividend = s.rate if s.on_future else s.dividend

        def net(spot: float, now: Nanos) -> tuple[float, float]:
            if legs.packed_version != s.vol_version:
                legs.pack()
            at = clock.at(now)
            delta, gamma = kernel(spot, at - epoch, legs.packed, rate, dividend) if len(legs.packed) else (0.0, 0.0)
            for end, columns in legs.tilts:
                left = (end - (at - epoch)) / NS_PER_YEAR
                delta += spot * spot * left * kernel(spot, at - epoch, columns, rate, dividend)[1]
            for group in legs.groups:
                more, curve = group.net(spot, group.expiry - at)
                delta += more
                gamma += curve
            if delta != delta or gamma != gamma:  # noqa: PLR0124  NaN test
                return NAN, NAN
            if parity:
                ratio = self.price_ratio(s)
                return delta * ratio, gamma * ratio * ratio
            return delta, gamma

        return net

    def _european_net(self, legs: Legs) -> Callable[[float, Nanos], tuple[float, float]]:
        kernel = black.slice_kernel()
        s = legs.slice
        rate, epoch = s.rate, s.epoch
        parity = s.price_column != s.column
        dividend = s.rate if s.on_future else s.dividend  # carry 0 and the discount factor in the delta: Black-76

        def net(spot: float, now: Nanos) -> tuple[float, float]:
            if legs.packed_version != s.vol_version:
                legs.pack()
            return kernel(spot, now - epoch, legs.packed, rate, dividend)

        def net_of_parity(spot: float, now: Nanos) -> tuple[float, float]:
            delta, gamma = net(spot, now)
            ratio = self.price_ratio(s)
            return delta * ratio, gamma * ratio * ratio

        return net_of_parity if parity else net

    def room(self, legs: Legs, now: Nanos, gamma: float, slack: float) -> tuple[float, Nanos]:
        """How far the price of the slice may move either way, and how long, with the delta of the legs moving by less than
        `slack` for certain; (0, 0) when nothing can be promised.

        Promised for European legs at vols that stand still on the calendar clock, priced from the underlying's own
        quotes. Re-marks and changes of the holding end every promise.
        """
        s = legs.slice
        if self.settings.pricer == "table" or s.has_early or s.smile_moves or not s.from_quotes:
            return 0.0, 0
        if not isinstance(s.clock, Act365):
            return 0.0, 0
        if not len(legs):
            return math.inf, FOREVER - now
        if legs.packed_version != s.vol_version:
            legs.pack()
        dividend = s.rate if s.on_future else s.dividend
        spot = self.spot(s.underlying)
        h, years = near_kernel()(spot, now - s.epoch, legs.packed, s.rate, dividend, gamma, slack)
        last = FOREVER - now
        if self.settings.stale_after is not None:
            last = max(0, self.spot_ts(s.underlying) + self.settings.stale_after - now)
        return h, min(int(years * NS_PER_YEAR), last)

    def renewal(self, legs: Legs, linear: float) -> Renewal | None:
        """What compiled code needs to issue a promise about the net delta of these legs anew; None where `room` gives none.

        The owner's own numbers (target, what is held, its slack) are for the owner to fill in.
        """
        s = legs.slice
        if not len(legs) or not self._is_plain(s) or not s.from_quotes:
            return None
        stale = self.settings.stale_after
        return Renewal(
            column=s.column,
            packed=legs.fresh().packed,
            epoch=s.epoch,
            rate=s.rate,
            dividend=s.rate if s.on_future else s.dividend,
            linear=linear,
            stale_after=FOREVER if stale is None else stale,
        )

    def _table_net(self, legs: Legs) -> Callable[[float, Nanos], tuple[float, float]]:
        weight = float(legs.weight.sum())
        table = self.settings.table
        assert table is not None  # checked in the constructor

        def net(spot: float, now: Nanos) -> tuple[float, float]:
            _, delta, gamma = _table_at(table, np.asarray([spot]))
            return weight * float(delta[0]), weight * float(gamma[0])

        return net

    def units(
        self,
        s: Slice,
        spot: float | Floats,
        now: Nanos | NDArray[np.int64],
        vol: Floats,
        *,
        second: bool = True,
    ) -> UnitGreeks:
        """Values per unit of underlying at vols that stand still, by exact evaluation; theta and charm per year of the clock.

        Without `second` the vanna, volga and charm of early-exercise contracts are left out (NaN): they cost most.
        Shape: spot and now () or (n, 1), now also (n, contracts); vol (contracts,) or (n, contracts).
        """
        if self.settings.pricer == "table":
            return self._table_units(s, np.asarray(spot), np.asarray(now))
        remaining = s.expiry_clock - s.clock.of(now)
        tau = np.asarray(remaining / NS_PER_YEAR)
        if s.on_future:
            g = black.black76(spot, s.strike, tau, vol, cp=s.cp, rate=s.rate)
        else:
            g = black.bsm(spot, s.strike, tau, vol, rate=s.rate, dividend=s.dividend, cp=s.cp)
        plain = UnitGreeks(g.price, g.delta, g.gamma, g.vega, g.theta, g.rho, g.vanna, g.volga, g.charm)
        return self._with_early(s, plain, np.asarray(spot), remaining, vol, second=second) if s.has_early else plain

    @staticmethod
    def _with_early(
        s: Slice, plain: UnitGreeks, spot: Floats, remaining: NDArray[np.int64], vol: Floats, *, second: bool
    ) -> UnitGreeks:
        """The same with the early-exercise contracts' columns replaced."""
        rows = np.flatnonzero(s.early)
        shape = plain.price.shape
        S, v = np.broadcast_to(spot, shape)[..., rows], np.broadcast_to(vol, shape)[..., rows]
        left = np.broadcast_to(remaining, shape)[..., rows]
        strike, cp, expiry, style = s.strike[rows], s.cp[rows], s.expiry_clock[rows], s.american[rows]
        found = early_exercise.values(s.market, S, strike, left, v, cp=cp, expiry=expiry, style=style)
        columns = [column.copy() for column in plain]
        for column, values in zip(columns, found, strict=False):
            column[..., rows] = values
        if second:
            cross = early_exercise.second_order(s.market, S, strike, left, v, cp=cp)
            for column, values in zip(columns[6:], cross, strict=True):
                column[..., rows] = values
        else:
            for column in columns[6:]:
                column[..., rows] = NAN
        return UnitGreeks._make(columns)

    def total_delta(self, s: Slice, units: UnitGreeks, slope: Floats | None = None) -> Floats:
        """Delta with what the smile rule adds: delta + vega d vol/d spot. Shape: as `units.delta`."""
        if not s.smile_moves:
            return units.delta
        tilt = s.slope if slope is None else slope
        return np.asarray(units.delta + np.where(tilt == 0.0, 0.0, units.vega * tilt))

    def _table_units(self, s: Slice, spot: Floats, now: NDArray[np.int64]) -> UnitGreeks:
        table = self.settings.table
        assert table is not None
        value, delta, gamma = _table_at(table, spot)
        years = (now - self._started_ts) / NS_PER_YEAR
        price = value - table.decay_per_year * years
        shape = np.broadcast_shapes(np.shape(price), s.strike.shape)
        zero = np.zeros(shape)
        columns = (np.asarray(np.broadcast_to(c, shape), dtype=np.float64) for c in (price, delta, gamma))
        price, delta, gamma = columns
        return UnitGreeks(price, delta, gamma, zero, zero - table.decay_per_year, zero, zero, zero, zero)

    def started(self, now: Nanos) -> None:
        """Tell the table pricer when its decay begins."""
        self._started_ts = now

    def contract_greeks(self, underlying: str, now: Nanos) -> UnitGreeks:
        """Values per unit of every contract of a slice at the present marks."""
        s = self.slice(underlying)
        return self.units(s, self.spot(underlying), now, s.vol)

    def chain(self, underlying: str, now: Nanos) -> Chain:
        """The live contracts on an underlying with quotes, vols and unit Greeks."""
        whole = self.slice(underlying)
        live = np.flatnonzero(whole.expiry > now)
        live = live[np.argsort([whole.contracts[r].id for r in live], kind="stable")] if live.size else live
        s = whole.part(live)
        u = self.units(s, self.spot(underlying), now, s.vol)
        k = s.columns
        marks = self._marks
        return Chain(
            ids=tuple(s.rows),
            cp=s.cp,
            strike=s.strike,
            expiry=s.expiry,
            tau=s.tau(now),
            multiplier=s.multiplier,
            bid=marks.bid_view[k],
            ask=marks.ask_view[k],
            bid_size=marks.bid_size_view[k],
            ask_size=marks.ask_size_view[k],
            quote_ts=marks.quote_time_view[k],
            vol=s.vol,
            price=u.price,
            delta=u.delta,
            gamma=u.gamma,
            vega=u.vega,
            theta=u.theta,
        )

    def greeks(self, legs: Legs, now: Nanos) -> Greeks:
        """Greeks of a holding in underlying units (value in money); NaN where a leg's are unknown."""
        if not len(legs):
            return Greeks()
        if self._is_plain(legs.slice):
            return self._european_totals(legs, now)
        u = self.contract_greeks(legs.slice.underlying, now)
        u = u._replace(delta=self.total_delta(legs.slice, u))
        w, r = legs.weight, legs.row
        alive = legs.slice.expiry[r] > now
        total = {name: float(np.sum(np.where(alive, getattr(u, name)[r] * w, 0.0))) for name in u._fields}
        return Greeks(value=total.pop("price"), **total)

    def _is_plain(self, s: Slice) -> bool:
        """True for European contracts at vols that stand still on the calendar clock: one compiled call values them."""
        early = self.settings.pricer == "table" or s.has_early
        return not early and not s.smile_moves and isinstance(s.clock, Act365)

    def _european_totals(self, legs: Legs, now: Nanos) -> Greeks:
        s = legs.slice
        dividend = s.rate if s.on_future else s.dividend
        price, delta, gamma, vega, theta, rho, rho_q, vanna, volga, charm = totals_kernel()(
            self.spot(s.underlying), now - s.epoch, legs.fresh().packed, s.rate, dividend
        )
        rho = rho + rho_q if s.on_future else rho  # a future's price is held while the rate moves
        return Greeks(
            value=price,
            delta=delta,
            gamma=gamma,
            vega=vega,
            theta=theta,
            rho=rho,
            vanna=vanna,
            volga=volga,
            charm=charm,
        )

    def faults(self, legs: Legs, now: Nanos) -> str:
        """Why the Greeks of a holding cannot be known, in words; empty when they can."""
        if not len(legs):
            return ""
        s = legs.slice
        if self.is_stale(s.underlying, now):
            return f"the price of {s.underlying} is older than {span(self.settings.stale_after or 0)}"
        if math.isnan(self.spot(s.underlying)):
            return f"no two-sided price of {s.underlying} from its source '{s.source}'"
        if self._is_plain(s) and not legs.fresh().lacks_vol:
            return ""
        missing = [
            s.contracts[r].id.replace("  ", " ")
            for r in legs.row
            if math.isnan(s.vol[r]) and s.expiry[r] > now and self.settings.pricer != "table"
        ]
        if missing:
            return self._why_no_vol(s, missing)
        return _why_no_model(s, legs, now)

    def _why_no_vol(self, s: Slice, missing: list[str]) -> str:
        doubled = _double_boundary(s)
        if doubled:
            return f"no vol for {', '.join(missing)}: {doubled}"
        if self.settings.vol == "forecast" and self.settings.forecast is not None:
            name = self.settings.forecast.source.name
            return f"no vol for {', '.join(missing)}: forecast {name!r} has not seen enough of {s.underlying}"
        return f"no vol for {', '.join(missing)}"

    def mark(self, instrument: str, now: Nanos) -> Decimal | None:
        """The exact mark of anything: an option's last valid quote middle carried, else its model value; or a price.

        A contract that was never quoted stands at the model value of the vol it was given until its first quote; a
        convertible at the value of its own model.
        """
        item = self._universe.get(instrument)
        if not isinstance(item, OptionContract):
            price = self._price_mark(instrument)
            return self._bond_mark(item, now) if price is None and isinstance(item, ConvertibleBond) else price
        if self.settings.marks_at == "mid":
            middle = self._carried_middle(instrument)
            if middle is not None or instrument not in self.slice(item.underlying).rows:
                return middle
        s = self.slice(item.underlying)
        spot = self.spot(item.underlying)
        carried = self._price_mark(item.underlying) if math.isnan(spot) else None
        value = float(self._model_prices(s, spot if carried is None else float(carried), now)[s.rows[instrument]])
        return None if math.isnan(value) else decimal_of(round(value, 10))

    def _model_prices(self, s: Slice, spot: float, now: Nanos) -> Floats:
        """The model value of every contract of a slice, kept while nothing it rests on changes. Shape: (contracts,)."""
        rests_on = (spot, now, s.vol_version, len(s.contracts), self._started_ts)
        known = self._priced.get(s.underlying)
        if known is None or known[0] != rests_on:
            known = self._priced[s.underlying] = rests_on, self.units(s, spot, now, s.vol).price
        return known[1]

    def _bond_mark(self, bond: ConvertibleBond, now: Nanos) -> Decimal | None:
        spot = self._price_mark(bond.underlying)
        if spot is None:
            return None
        value = float(self.bonds.value(bond, float(spot), now).price)
        return None if math.isnan(value) else decimal_of(round(value, 10))

    def bond_path(self, bond: ConvertibleBond, path: Floats, spots: Floats, instants: NDArray[np.int64]) -> Floats:
        """The marks of a convertible over samples: its price path, by its model where nothing was quoted yet. Shape: (n,)."""
        unknown = np.isnan(path) & np.isfinite(spots)
        if not unknown.any():
            return path
        filled = path.copy()
        filled[unknown] = np.round(self.bonds.path(bond, spots[unknown], instants[unknown]).price, 10)
        return filled

    def _carried_middle(self, instrument: str) -> Decimal | None:
        middle = self._middle(self._universe.index(instrument))
        if middle is not None:
            return middle
        contract = self._universe.get(instrument)
        assert isinstance(contract, OptionContract)
        s = self.slice(contract.underlying)
        row = s.rows.get(instrument)
        if row is None or not s.seen_bid[row] <= s.seen_ask[row]:
            return None
        return (decimal_of(float(s.seen_bid[row])) + decimal_of(float(s.seen_ask[row]))) / 2

    def _price_mark(self, instrument: str) -> Decimal | None:
        column = self._universe.index(instrument)
        last = self._marks.last(column)
        print_ = None if math.isnan(last) else decimal_of(last)
        if self.settings.sources.get(instrument, self.settings.source) != "quotes" and print_ is not None:
            return print_
        middle = self._middle(column)
        if middle is not None:
            self._last_mark[instrument] = middle
        return self._last_mark.get(instrument, print_)

    def _middle(self, column: int) -> Decimal | None:
        bid, ask = self._marks.bids[column], self._marks.asks[column]
        return (decimal_of(bid) + decimal_of(ask)) / 2 if bid <= ask else None

    def price_path(self, instrument: str, mids: Floats, lasts: Floats, *, valued: bool = False) -> Floats:
        """The marks of a linear instrument over samples, the last known carried: the float twin of `mark`.

        `valued` True gives the price its options are valued at. Shape: mids, lasts (n,); result (n,).
        """
        source = self.settings.sources.get(instrument, self.settings.source)
        if valued and self.slice(instrument).price_column != self.slice(instrument).column:
            source = "trades"
        first, second = (mids, lasts) if source == "quotes" else (lasts, mids)
        carried = carry_forward(first)
        return np.where(np.isnan(carried), carry_forward(second), carried)

    def oldest_vol(self, legs: Legs, now: Nanos) -> tuple[float, Nanos]:
        """The weight-largest leg's vol and the oldest vol instant among the legs."""
        if not len(legs):
            return NAN, NEVER
        s = legs.slice
        main = int(legs.row[int(np.argmax(np.abs(legs.weight)))])
        return float(s.vol[main]), int(s.vol_ts[legs.row].min())

    def main_tau(self, legs: Legs, now: Nanos) -> Years:
        """Years to the expiry of the weight-largest leg."""
        if not len(legs):
            return NAN
        s = legs.slice
        return float((int(s.expiry_clock[legs.main]) - s.clock.at(now)) / NS_PER_YEAR)


class Fitted(NamedTuple):
    """A surface in use: when and at what spot it was fitted, and the expiries that ever had quotes."""

    ts: Nanos
    spot: float
    surface: Surface
    expiries: frozenset[int]


def _nobody(alarm: Alarm) -> None:
    """Where alarms go until somebody listens."""


def _double_boundary(s: Slice) -> str:
    """The name of what the rates make impossible, empty when nothing."""
    q = s.rate if s.on_future else s.dividend
    if s.takes_early and (q < s.rate < 0.0 or s.rate < q < 0.0):
        return f"rate {s.rate:g} and yield {q:g} give an American option two exercise boundaries, which no pricer here solves"
    return ""


def _why_no_model(s: Slice, legs: Legs, now: Nanos) -> str:
    """Why legs with a vol have no value or no slope, in words; empty when they have."""
    alive = legs.row[s.expiry[legs.row] > now]
    untilted = [s.contracts[r].id.replace("  ", " ") for r in alive if math.isnan(s.slope[r])]
    if untilted:
        few = "too few quoted strikes of its expiry (pricing.chain names more)"
        return f"no smile to tilt the delta of {', '.join(untilted)} by: {few}"
    return _double_boundary(s) if any(s.american[r] for r in alive) else ""


def _refuse_contradictions(settings: ValuationSettings) -> None:
    """Refuse by name what would be valued wrongly without a word."""
    rule, vol = settings.smile, settings.vol
    if rule.moves and settings.pricer == "table":
        raise ConfigError(f"pricing.smile = {rule.kind!r}: the supplied delta table knows no vol; use 'sticky_strike'")
    if rule.moves and vol in {"fixed", "forecast"}:
        raise ConfigError(
            f"pricing.smile = {rule.kind!r}: pricing.vol = {vol!r} has one vol and no skew; use 'sticky_strike'"
        )
    if vol == "forecast" and settings.forecast is None:
        raise ConfigError("pricing.vol = 'forecast' needs [pricing.forecast]")
    if settings.cash_dividends and settings.pricer != "american":
        raise ConfigError("pricing.cash_dividends: only pricer = 'american' values them; state a yield for the others")
    if settings.cash_dividends and settings.trading:
        raise ConfigError(
            "pricing.cash_dividends: an ex-date is an instant of ACT/365 time; expected day_count = 'act365'"
        )


def _table_at(table: DeltaTable, spot: Floats) -> tuple[Floats, Floats, Floats]:
    """Value, delta and gamma of a delta table: delta linear between the given spots and flat outside them."""
    xs, ds = np.asarray(table.spots), np.asarray(table.deltas)
    delta = np.interp(spot, xs, ds)
    areas = np.concatenate(([0.0], np.cumsum(0.5 * (ds[1:] + ds[:-1]) * np.diff(xs))))
    j = np.clip(np.searchsorted(xs, spot, side="right") - 1, 0, len(xs) - 2)
    inside = np.clip(spot, xs[0], xs[-1])
    value = table.value + areas[j] + 0.5 * (ds[j] + np.interp(inside, xs, ds)) * (inside - xs[j])
    value = (
        value
        + np.where(spot < xs[0], ds[0] * (spot - xs[0]), 0.0)
        + np.where(spot > xs[-1], ds[-1] * (spot - xs[-1]), 0.0)
    )
    slope = np.diff(ds) / np.diff(xs)
    within = (spot >= xs[0]) & (spot <= xs[-1])
    return value, delta, np.where(within, slope[j], 0.0)
