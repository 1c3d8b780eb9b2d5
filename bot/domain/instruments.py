"""An instrument is what can be quoted or held; its law: one canonical text id, everything exact that money touches.

Ids: listed options carry the 21-character OCC symbol (`GOOG  151224C00750000`), all else `VENUE:SYMBOL`
(`US:GOOG`, `CME:ESH2020`, `INDEX:SPX`). A `Universe` interns the ids of a run to int32 in sorted order, so that columns
carry the int and text appears at edges only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from bot.domain.convertible import ConvertibleModel, ConvertibleTerms
from bot.domain.units import NS_PER_YEAR, Nanos, Years, iso

Style: TypeAlias = Literal["european", "american"]
Settlement: TypeAlias = Literal["cash", "physical"]
SettlementTime: TypeAlias = Literal["am", "pm"]

_OCC = re.compile(r"^([A-Z0-9.]{1,6}) *(\d{2})(\d{2})(\d{2})([CP])(\d{8})$")
_ID = re.compile(r"^[A-Z0-9][A-Z0-9 ._:/-]{0,62}[A-Z0-9]$")
MONTH_CODES: Final = "FGHJKMNQUVXZ"


class _Base(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="kind"):
    id: str
    currency: str = "USD"
    multiplier: Decimal = Decimal(1)
    tick: Decimal | None = None
    lot: Decimal | None = None
    calendar: str = "24/7"

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"instrument id: expected 2 to 64 of A-Z 0-9 space . _ : / -, found {self.id!r}")
        if not re.fullmatch(r"[A-Z]{3,5}", self.currency):
            raise ValueError(f"{self.id}: currency: expected an upper-case code, found {self.currency!r}")
        for name in ("multiplier", "tick", "lot"):
            value = getattr(self, name)
            if value is not None and not (value.is_finite() and value > 0):
                raise ValueError(f"{self.id}: {name}: expected a positive number, found {value}")

    @property
    def symbol(self) -> str:
        """The id without its venue."""
        return self.id.split(":", 1)[-1]


class Spot(_Base, frozen=True, gc=False, kw_only=True, tag="spot"):
    """A share, fund or currency pair that is held as it is."""


class Index(_Base, frozen=True, gc=False, kw_only=True, tag="index"):
    """A published level. Nobody can hold it; a paper broker may stand in for its replication at an assumed spread."""


class Future(_Base, frozen=True, gc=False, kw_only=True, tag="future"):
    """A dated future; `expiry` is the instant trading ends."""

    expiry: Nanos
    underlying: str | None = None


class Perpetual(_Base, frozen=True, gc=False, kw_only=True, tag="perpetual"):
    """A perpetual swap. An inverse contract is a fixed sum of quote currency, settled in the base currency.

    P&L of q contracts of multiplier m from price a to b: linear q m (b - a) in `currency`;
    inverse q m (1/a - 1/b) in `settlement_currency`.
    """

    inverse: bool = False
    settlement_currency: str | None = None


class Deliverable(msgspec.Struct, frozen=True, gc=False):
    """One line of what an adjusted option delivers per contract."""

    instrument: str
    quantity: Decimal


class OptionContract(_Base, frozen=True, gc=False, kw_only=True, tag="option"):
    """A listed option. `expiry` is the exact instant tau counts to; `settles` the instant its settlement value is known."""

    underlying: str
    cp: Literal[1, -1]
    strike: Decimal
    style: Style
    settlement: Settlement
    session: SettlementTime = "pm"
    last_trade: Nanos
    expiry: Nanos
    settles: Nanos
    deliverable: tuple[Deliverable, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.strike.is_finite() and self.strike > 0):
            raise ValueError(f"{self.id}: strike: expected a positive number, found {self.strike}")
        if not self.last_trade <= self.expiry <= self.settles:
            raise ValueError(
                f"{self.id}: expected last_trade <= expiry <= settles, found "
                f"{iso(self.last_trade)}, {iso(self.expiry)}, {iso(self.settles)}"
            )


class ConvertibleBond(_Base, frozen=True, gc=False, kw_only=True, tag="convertible"):
    """A bond whose holder may take shares of `underlying`. One contract is one bond.

    Law: a price is in per cent of face and dirty (what changes hands, accrued interest within), so `multiplier` is face /
    100. `terms` are in currency and shares per bond, on a time axis of ACT/365 years from `reference`. `model` is what its
    pricer is told where nobody quotes it; None: without a quote it has no price.
    """

    underlying: str
    reference: Nanos
    terms: ConvertibleTerms
    model: ConvertibleModel | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        face = Decimal(repr(self.terms.face))
        if self.multiplier * 100 != face:
            raise ValueError(
                f"{self.id}: multiplier: expected face / 100 = {face / 100} (prices are per cent of face), "
                f"found {self.multiplier}"
            )

    def years(self, ts: Nanos) -> Years:
        """An instant on the time axis of the terms."""
        return (ts - self.reference) / NS_PER_YEAR

    def instant(self, years: Years) -> Nanos:
        """The instant of a time of the terms, to the millisecond: where a date that was written down comes back."""
        return self.reference + round(years * NS_PER_YEAR / 1_000_000) * 1_000_000

    @property
    def matures(self) -> Nanos:
        """The instant it is redeemed."""
        return self.instant(self.terms.maturity)

    def accrued(self, ts: Nanos) -> float:
        """Accrued interest in per cent of face: what a dirty price is above the clean one."""
        return 100.0 * self.terms.accrued(self.years(ts)) / self.terms.face

    def points(self, amount: float) -> float:
        """An amount in currency per bond as a price in per cent of face."""
        return 100.0 * amount / self.terms.face


Instrument: TypeAlias = Spot | Index | Future | Perpetual | OptionContract | ConvertibleBond


class OccSymbol(msgspec.Struct, frozen=True, gc=False):
    """The parts of an OCC symbol: root, expiration date, +1 call or -1 put, strike."""

    root: str
    expiration: date
    cp: Literal[1, -1]
    strike: Decimal


def parse_occ(text: str) -> OccSymbol:
    """The parts of a 21-character OCC symbol, root padded with blanks or not; ValueError for any other form.

    >>> parse_occ("GOOG151224C00750000").strike
    Decimal('750')
    """
    found = _OCC.fullmatch(text.strip().upper())
    if found is None:
        raise ValueError(f"expected an OCC symbol such as 'GOOG  151224C00750000', found {text!r}")
    root, year, month, day, side, strike = found.groups()
    thousandths = Decimal(int(strike))
    value = thousandths / 1000
    return OccSymbol(
        root,
        date(2000 + int(year), int(month), int(day)),
        1 if side == "C" else -1,
        value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize(),
    )


def occ_id(root: str, expiration: date, cp: int, strike: Decimal) -> str:
    """The canonical 21-character id: root padded to 6, yymmdd, C or P, strike in thousandths on 8 digits.

    >>> occ_id("GOOG", date(2015, 12, 24), 1, Decimal(750))
    'GOOG  151224C00750000'
    """
    thousandths = strike * 1000
    if thousandths != thousandths.to_integral_value() or not 0 < thousandths < 10**8:
        raise ValueError(f"strike: expected 0.001 to 99999.999 in thousandths, found {strike}")
    if not 1 <= len(root) <= 6:
        raise ValueError(f"option root: expected 1 to 6 characters, found {root!r}")
    return f"{root.upper():<6}{expiration:%y%m%d}{'C' if cp > 0 else 'P'}{int(thousandths):08d}"


def future_id(venue: str, root: str, year: int, month: int) -> str:
    """The canonical id of a dated future: month code and four-digit year.

    >>> future_id("CME", "ES", 2020, 3)
    'CME:ESH2020'
    """
    return f"{venue.upper()}:{root.upper()}{MONTH_CODES[month - 1]}{year}"


def is_option(instrument: Instrument) -> bool:
    """True for option contracts, whose value has curvature."""
    return isinstance(instrument, OptionContract)


def settlement_currency(instrument: Instrument) -> str:
    """The currency its P&L and fees fall in."""
    if isinstance(instrument, Perpetual) and instrument.settlement_currency is not None:
        return instrument.settlement_currency
    return instrument.currency


def round_to_lot(quantity: float | Decimal, lot: Decimal | None, *, toward_zero: bool = False) -> Decimal:
    """The quantity in whole lots: half away from zero, or toward zero when asked.

    >>> round_to_lot(-2.5, Decimal(1))
    Decimal('-3')
    """
    exact = quantity if isinstance(quantity, Decimal) else Decimal(repr(float(quantity)))
    if lot is None:
        return exact
    lots = (abs(exact) / lot).to_integral_value(ROUND_FLOOR if toward_zero else ROUND_HALF_UP)
    return lots * lot if exact >= 0 else -(lots * lot)


def price_move_value(instrument: Instrument, quantity: Decimal, start: Decimal, end: Decimal) -> Decimal:
    """The money made by `quantity` contracts from price `start` to `end`, in the settlement currency."""
    if isinstance(instrument, Perpetual) and instrument.inverse:
        return quantity * instrument.multiplier * (1 / start - 1 / end)
    return quantity * instrument.multiplier * (end - start)


class Universe:
    """The instruments of one run, interned to int in sorted order of id; later listings are appended."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        by_id: dict[str, Instrument] = {}
        for instrument in instruments:
            known = by_id.setdefault(instrument.id, instrument)
            if known != instrument:
                raise ValueError(f"instrument {instrument.id!r} is described twice and differently")
        self._instruments: list[Instrument] = [by_id[key] for key in sorted(by_id)]
        self._index: dict[str, int] = {item.id: i for i, item in enumerate(self._instruments)}

    def __len__(self) -> int:
        return len(self._instruments)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._instruments)

    def __contains__(self, instrument_id: object) -> bool:
        return instrument_id in self._index

    def __getitem__(self, index: int) -> Instrument:
        return self._instruments[index]

    def index(self, instrument_id: str) -> int:
        """The column number of an id; KeyError with the id when it is not of this run."""
        return self._index[instrument_id]

    def get(self, instrument_id: str) -> Instrument:
        """The instrument of an id; KeyError with the id when it is not of this run."""
        return self._instruments[self._index[instrument_id]]

    def add(self, instrument: Instrument) -> int:
        """The column number of a newly listed instrument, appended at the end; known ones keep theirs."""
        known = self._index.get(instrument.id)
        if known is not None:
            return known
        self._instruments.append(instrument)
        self._index[instrument.id] = len(self._instruments) - 1
        return len(self._instruments) - 1

    @property
    def ids(self) -> Mapping[str, int]:
        """Id to column number."""
        return self._index
