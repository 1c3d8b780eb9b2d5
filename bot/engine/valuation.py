"""Valuation turns marks into Greeks; law: unknown is NaN with a reason, never zero, and vols change only at re-marks.

One `Slice` holds the option contracts on one underlying as columns. A slice is re-marked (vols solved from two-sided
mids, the last valid one carried with its age) at re-mark instants, and priced in one array call when somebody asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.errors import ConfigError
from bot.core.events import Corporate
from bot.core.ports import Chain
from bot.domain.greeks import Greeks
from bot.domain.instruments import Future, OptionContract, Perpetual, Universe
from bot.domain.units import NS_PER_YEAR, Nanos, Rate, Vol, Years, decimal_of, span
from bot.engine.marks import NAN, Marks, carry_forward
from bot.pricing import black, implied
from bot.pricing.status import Status

PARITY: Final = "/PARITY"
"""What is added to an underlying's id to name the instrument that carries its parity price."""

Floats: TypeAlias = NDArray[np.float64]
VolSourceName: TypeAlias = Literal["fixed", "per_contract", "marks_file", "implied"]
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

    pricer: Literal["european", "table"] = "european"
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

    @property
    def marks_at(self) -> Literal["mid", "model"]:
        """Where option P&L is marked: the middle of the quote when vols come from it, else the model unless said."""
        if self.mark is not None:
            return self.mark
        return "mid" if self.vol == "implied" and self.pricer != "table" else "model"


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

    def add(self, contract: OptionContract, column: int, vol: Vol, vol_ts: Nanos, *, now: Nanos) -> None:
        """Append one contract."""
        if contract.id in self.rows:
            return
        if not self.contracts:
            self.epoch = now
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
        self.vol_version += 1

    def tau(self, now: Nanos) -> Floats:
        """Years to each expiry. Shape: (contracts,)."""
        return np.asarray((self.expiry - now) / NS_PER_YEAR)


class Legs:
    """A holding of one book in one slice: weights are contracts x multiplier, in underlying units."""

    def __init__(self, slice_: Slice, quantities: Mapping[str, float]) -> None:
        self.slice = slice_
        held = [(slice_.rows[key], q) for key, q in sorted(quantities.items()) if key in slice_.rows and q]
        self.row = np.array([r for r, _ in held], dtype=np.int64)
        self.quantity = np.array([q for _, q in held], dtype=np.float64)
        self.weight = self.quantity * slice_.multiplier[self.row] if held else np.empty(0)
        self.ids = [slice_.contracts[r].id for r, _ in held]
        self.packed: Floats = np.empty((0, 5))
        self.packed_version = -1
        self.net: Callable[[float, Nanos], tuple[float, float]] = self._nothing

    def __len__(self) -> int:
        return len(self.row)

    def pack(self) -> None:
        """Rebuild the columns the compiled kernel reads: vols changed."""
        s, r = self.slice, self.row
        self.packed = black.pack_slice(
            strike=s.strike[r], expiry=s.expiry[r], vol=s.vol[r], cp=s.cp[r], weight=self.weight, epoch=s.epoch
        )
        self.packed_version = s.vol_version

    def _nothing(self, spot: float, now: Nanos) -> tuple[float, float]:
        return 0.0, 0.0


class Valuation:
    """Values the option slices of a run."""

    def __init__(self, universe: Universe, marks: Marks, settings: ValuationSettings) -> None:
        if settings.vol == "fixed" and settings.vol_value is None and settings.pricer != "table":
            raise ConfigError("pricing.vol = 'fixed' needs pricing.vol_value")
        if settings.pricer == "table" and settings.table is None:
            raise ConfigError("pricing.pricer = 'table' needs [pricing.table]")
        self._universe = universe
        self._marks = marks
        self.settings = settings
        self.slices: dict[str, Slice] = {}
        self._last_mark: dict[str, Decimal] = {}
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
        """When that price was received, -1 before the first."""
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
        if self.settings.vol == "implied":
            changed = [self._solve(slice_, now) for slice_ in self.slices.values()]
            return any(changed)
        if self.settings.vol == "marks_file":
            return self._take_vol_marks(now)
        return False

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
        mids = self._marks.mids()[s.columns]
        if self.settings.stale_after is not None:
            mids = np.where(now - self._marks.quote_time_view[s.columns] > self.settings.stale_after, NAN, mids)
        tau = s.tau(now)
        forward, discount = self._forward(s, spot, tau)
        vol, status = implied.vol(mids, forward, s.strike, tau, discount=discount, cp=s.cp)
        good = status == Status.OK
        if not good.any():
            return self._drop_old(s, now)
        s.vol = np.where(good, vol, s.vol)
        s.vol_ts = np.where(good, now, s.vol_ts)
        s.vol_version += 1
        self._drop_old(s, now)
        return True

    def _drop_old(self, s: Slice, now: Nanos) -> bool:
        """Make a vol unknown once it is older than `vol_max_age`; True when one became so."""
        bound = self.settings.vol_max_age
        if bound is None:
            return False
        old = (now - s.vol_ts > bound) & ~np.isnan(s.vol)
        if old.any():
            s.vol = np.where(old, NAN, s.vol)
            s.vol_version += 1
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
                    s.vol_version += 1
                    taken = True
        return taken

    @staticmethod
    def _forward(s: Slice, spot: float | Floats, tau: Floats) -> tuple[Floats, Floats]:
        discount = np.exp(-s.rate * tau)
        carry = 0.0 if s.on_future else s.rate - s.dividend
        return np.asarray(spot * np.exp(carry * tau)), discount

    # ------------------------------------------------------------------ Greeks

    def legs(self, underlying: str, quantities: Mapping[str, float]) -> Legs:
        """The holding as a packed column set, with its fast net delta and gamma bound to the pricer."""
        slice_ = self.slice(underlying)
        legs = Legs(slice_, quantities)
        if len(legs):
            legs.net = self._table_net(legs) if self.settings.pricer == "table" else self._european_net(legs)
        return legs

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

    def _table_net(self, legs: Legs) -> Callable[[float, Nanos], tuple[float, float]]:
        weight = float(legs.weight.sum())
        table = self.settings.table
        assert table is not None  # checked in the constructor

        def net(spot: float, now: Nanos) -> tuple[float, float]:
            _, delta, gamma = _table_at(table, np.asarray([spot]))
            return weight * float(delta[0]), weight * float(gamma[0])

        return net

    def units(self, s: Slice, spot: float | Floats, now: Nanos | NDArray[np.int64], vol: Floats) -> UnitGreeks:
        """Values per unit of underlying. Shape: spot and now () or (n, 1); vol (contracts,) or (n, contracts)."""
        tau = np.asarray((s.expiry - now) / NS_PER_YEAR)
        if self.settings.pricer == "table":
            return self._table_units(s, np.asarray(spot), np.asarray(now))
        if s.on_future:
            g = black.black76(spot, s.strike, tau, vol, cp=s.cp, rate=s.rate)
        else:
            g = black.bsm(spot, s.strike, tau, vol, rate=s.rate, dividend=s.dividend, cp=s.cp)
        return UnitGreeks(g.price, g.delta, g.gamma, g.vega, g.theta, g.rho, g.vanna, g.volga, g.charm)

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
        s = self.slice(underlying)
        u = self.contract_greeks(underlying, now)
        order = [r for _, r in sorted(s.rows.items()) if s.expiry[r] > now]
        k = s.columns[order]
        marks = self._marks
        return Chain(
            ids=tuple(s.contracts[r].id for r in order),
            cp=s.cp[order],
            strike=s.strike[order],
            expiry=s.expiry[order],
            tau=s.tau(now)[order],
            multiplier=s.multiplier[order],
            bid=marks.bid_view[k],
            ask=marks.ask_view[k],
            bid_size=marks.bid_size_view[k],
            ask_size=marks.ask_size_view[k],
            quote_ts=marks.quote_time_view[k],
            vol=s.vol[order],
            price=u.price[order],
            delta=u.delta[order],
            gamma=u.gamma[order],
            vega=u.vega[order],
            theta=u.theta[order],
        )

    def greeks(self, legs: Legs, now: Nanos) -> Greeks:
        """Greeks of a holding in underlying units (value in money); NaN where a leg's are unknown."""
        if not len(legs):
            return Greeks()
        u = self.contract_greeks(legs.slice.underlying, now)
        w, r = legs.weight, legs.row
        alive = legs.slice.expiry[r] > now
        total = {name: float(np.sum(np.where(alive, getattr(u, name)[r] * w, 0.0))) for name in u._fields}
        return Greeks(value=total.pop("price"), **total)

    def faults(self, legs: Legs, now: Nanos) -> str:
        """Why the Greeks of a holding cannot be known, in words; empty when they can."""
        if not len(legs):
            return ""
        s = legs.slice
        if self.is_stale(s.underlying, now):
            return f"the price of {s.underlying} is older than {span(self.settings.stale_after or 0)}"
        if math.isnan(self.spot(s.underlying)):
            return f"no two-sided price of {s.underlying} from its source '{s.source}'"
        missing = [
            s.contracts[r].id.replace("  ", " ")
            for r in legs.row
            if math.isnan(s.vol[r]) and s.expiry[r] > now and self.settings.pricer != "table"
        ]
        return f"no vol for {', '.join(missing)}" if missing else ""

    def mark(self, instrument: str, now: Nanos) -> Decimal | None:
        """The exact mark of anything: an option's last valid quote middle carried, else its model value; or a price.

        A contract that was never quoted stands at the model value of the vol it was given until its first quote.
        """
        item = self._universe.get(instrument)
        if not isinstance(item, OptionContract):
            return self._price_mark(instrument)
        if self.settings.marks_at == "mid":
            middle = self._carried_middle(instrument)
            if middle is not None or instrument not in self.slice(item.underlying).rows:
                return middle
        s = self.slice(item.underlying)
        spot = self.spot(item.underlying)
        carried = self._price_mark(item.underlying) if math.isnan(spot) else None
        units = self.units(s, spot if carried is None else float(carried), now, s.vol)
        value = float(units.price[s.rows[instrument]])
        return None if math.isnan(value) else decimal_of(round(value, 10))

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
            return NAN, -1
        s = legs.slice
        main = int(legs.row[int(np.argmax(np.abs(legs.weight)))])
        return float(s.vol[main]), int(s.vol_ts[legs.row].min())

    def main_tau(self, legs: Legs, now: Nanos) -> Years:
        """Years to the expiry of the weight-largest leg."""
        if not len(legs):
            return NAN
        return float((legs.slice.expiry[int(legs.row[int(np.argmax(np.abs(legs.weight)))])] - now) / NS_PER_YEAR)


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
