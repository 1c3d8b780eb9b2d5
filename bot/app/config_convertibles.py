"""A convertible's table says what its indenture says; law: dates are dates, prices are per cent of face, nothing is guessed.

A date means its first instant in UTC. Coupons are paid every 12 / per_year months before maturity, back to the issue.
"""

from __future__ import annotations

import calendar
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from bot.app.config_parts import (
    Currency,
    Day,
    Flag,
    InstrumentText,
    Number,
    Positive,
    RateNumber,
    Section,
    Share,
    VolNumber,
    Whole,
    ex_day,
    one_of,
    text_schema,
)
from bot.domain.convertible import Call, ConvertibleModel, ConvertibleTerms, Put
from bot.domain.instruments import ConvertibleBond
from bot.domain.units import NS_PER_DAY, NS_PER_YEAR, Nanos, Years, parse_instant

Moment = Annotated[str, BeforeValidator(ex_day), text_schema("2027-06-15")]
"""A date, or an instant with its zone."""
Price = Annotated[Number, Field(ge=0, le=1e6)]


class BondWindow(Section):
    """What calls and puts have in common."""

    start: Moment = Field(description="first date of it")
    end: Moment | None = Field(
        default=None, description="last date; the maturity of a call, the first date of a put when absent"
    )
    price: Price = Field(default=100.0, description="paid, per cent of face")
    clean: Flag = Field(default=True, description="accrued interest is paid on top of the price")


class BondCall(BondWindow):
    """A window in which the issuer may redeem."""

    trigger: Annotated[Number, Field(ge=0, le=100)] = Field(
        default=0.0, description="only while the shares are worth this multiple of face: 1.3; 0: at any price"
    )


class BondPut(BondWindow):
    """A window in which the holder may sell to the issuer."""


class BondCoupon(Section):
    """A coupon on a date of its own."""

    on: Moment = Field(description="the date it is paid")
    amount: Price = Field(description="per cent of face")


class BondModel(Section):
    """What the pricer is told where the market does not say; also the price of a bond that nobody quotes."""

    model: Literal["afv", "tf"] = Field(
        default="afv", description="Ayache, Forsyth and Vetzal 2003; or Tsiveriotis and Fernandes 1998"
    )
    vol: VolNumber = Field(description="of the share, per square root of a year")
    rate: RateNumber = Field(default=0.0, description="continuous, per year")
    dividend: RateNumber = Field(default=0.0, description="yield of the share, continuous, per year")
    borrow: RateNumber = Field(default=0.0, description="cost of borrowing the share, continuous, per year")
    spread: Annotated[Number, Field(ge=0, le=10)] | None = Field(default=None, description="credit spread, per year")
    hazard: Annotated[Number, Field(ge=0, le=10)] | None = Field(
        default=None, description="instead of a spread: defaults expected a year, at hazard_spot"
    )
    elasticity: Annotated[Number, Field(ge=-10, le=0)] = Field(
        default=0.0, description="the hazard goes with (share / hazard_spot)^elasticity"
    )
    hazard_spot: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, description="the share at which it was given"
    )
    recovery: Share = Field(default=0.0, description="of face, on a default")
    equity_drop: Share = Field(default=0.0, description="how far the share falls on a default: 1 to nothing")

    @field_validator("hazard")
    @classmethod
    def _one_credit(cls, hazard: float | None, info: ValidationInfo) -> float | None:
        if hazard is not None and info.data.get("spread") is not None:
            raise ValueError("expected a spread or a hazard, found both")
        return hazard

    def built(self) -> ConvertibleModel:
        """The model as pricing takes it."""
        return ConvertibleModel(**{name: getattr(self, name) for name in type(self).model_fields})


class ConvertibleTable(Section):
    """One convertible bond of the run. Its price is in per cent of face with accrued interest within (dirty)."""

    id: InstrumentText = Field(description="VENUE:SYMBOL, such as BOND:ACME30")
    underlying: InstrumentText = Field(description="the share it converts into")
    currency: Currency = Field(default="USD", description="of face, coupons and price")
    face: Positive = Field(default=Decimal(1000), description="of one bond, in its currency")
    issued: Day = Field(description="interest accrues from here")
    maturity: Moment = Field(description="redeemed or converted for the last time")
    coupon: Annotated[Number, Field(ge=0, le=1)] = Field(default=0.0, description="a year, as a fraction of face")
    per_year: Whole = Field(default=2, ge=1, le=12, description="coupons a year: 1, 2, 3, 4, 6 or 12")
    coupons: tuple[BondCoupon, ...] = Field(default=(), max_length=1000, description="instead of coupon and per_year")
    conversion_ratio: Annotated[Number, Field(ge=0, le=1e9)] | None = Field(default=None, description="shares a bond")
    conversion_price: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None, validate_default=True, description="instead of the ratio: face / ratio"
    )
    convertible_from: Moment | None = Field(default=None, description="first date of conversion; absent: any time")
    convertible_to: Moment | None = Field(default=None, description="last date of conversion; absent: maturity")
    redemption: Price = Field(default=100.0, description="at maturity, per cent of face")
    keeps_coupon: Flag = Field(default=True, description="who converts at maturity has the last coupon too")
    calls: tuple[BondCall, ...] = Field(default=(), max_length=100, description="when the issuer may redeem")
    puts: tuple[BondPut, ...] = Field(default=(), max_length=100, description="when the holder may sell to it")
    tick: Positive = Field(default=Decimal("0.01"), description="smallest step of its price")
    lot: Positive = Field(default=Decimal(1), description="smallest step of a quantity, in bonds")
    calendar: str = Field(default="24/7", description="the calendar its market keeps")
    model: BondModel | None = Field(default=None, description="how it is valued; absent: by its quotes alone")

    @field_validator("per_year")
    @classmethod
    def _divides_the_year(cls, per_year: int) -> int:
        if 12 % per_year:
            raise ValueError(f"expected 1, 2, 3, 4, 6 or 12, found {per_year}")
        return per_year

    @field_validator("coupons")
    @classmethod
    def _one_schedule(cls, coupons: tuple[BondCoupon, ...], info: ValidationInfo) -> tuple[BondCoupon, ...]:
        if coupons and info.data.get("coupon"):
            raise ValueError("expected coupon or coupons, found both")
        return coupons

    @field_validator("conversion_price")
    @classmethod
    def _one_ratio(cls, price: float | None, info: ValidationInfo) -> float | None:
        return one_of(price, info, "conversion_ratio")

    @model_validator(mode="after")
    def _sound(self) -> ConvertibleTable:
        self.built("SIM:ANY")  # terms that contradict themselves are a fault of the table
        return self

    def built(self, underlying: str) -> ConvertibleBond:
        """The bond on a share's canonical id. Errors: ValueError, for terms that contradict themselves."""
        reference = _instant(self.issued.isoformat())
        maturity = _instant(self.maturity)

        def years(text: str) -> Years:
            return (_instant(text) - reference) / NS_PER_YEAR

        face = float(self.face)
        ratio = (
            self.conversion_ratio if self.conversion_ratio is not None else face / float(self.conversion_price or 1.0)
        )
        terms = ConvertibleTerms(
            maturity=(maturity - reference) / NS_PER_YEAR,
            ratio=ratio,
            face=face,
            redemption=face * self.redemption / 100.0,
            coupons=tuple((years(when), face * amount) for when, amount in self._coupon_dates()),
            accrual_from=0.0,
            calls=tuple(self._call(item, years) for item in self.calls),
            puts=tuple(self._put(item, years) for item in self.puts),
            convertible_from=None if self.convertible_from is None else years(self.convertible_from),
            convertible_to=None if self.convertible_to is None else years(self.convertible_to),
            converter_keeps_coupon=self.keeps_coupon,
        )
        return ConvertibleBond(
            id=self.id.strip().upper(),
            currency=self.currency,
            multiplier=Decimal(repr(face)) / 100,
            tick=self.tick,
            lot=self.lot,
            calendar=self.calendar,
            underlying=underlying,
            reference=reference,
            terms=terms,
            model=None if self.model is None else self.model.built(),
        )

    def _coupon_dates(self) -> list[tuple[str, float]]:
        """Dates as text with each coupon as a fraction of face, ascending."""
        if self.coupons:
            return [(item.on, item.amount / 100.0) for item in sorted(self.coupons, key=lambda item: _instant(item.on))]
        if not self.coupon:
            return []
        found: list[tuple[str, float]] = []
        count = 0
        while (when := months_before(self.maturity, count * 12 // self.per_year)) and _day_of(when) > self.issued:
            found.append((when, self.coupon / self.per_year))
            count += 1
        return found[::-1]

    def _call(self, item: BondCall, years: Any) -> Call:
        face = float(self.face)
        end = self.maturity if item.end is None else item.end
        return Call(
            start=years(item.start),
            end=years(end),
            price=face * item.price / 100.0,
            clean=item.clean,
            trigger=item.trigger,
        )

    def _put(self, item: BondPut, years: Any) -> Put:
        end = item.start if item.end is None else item.end
        return Put(
            start=years(item.start), end=years(end), price=float(self.face) * item.price / 100.0, clean=item.clean
        )


def months_before(moment: str, months: int) -> str:
    """The same day of a month so many months earlier, its last day where it has fewer; the time of day stays.

    >>> months_before("2028-02-29", 12), months_before("2028-08-31", 6)
    ('2027-02-28', '2028-02-29')
    """
    day = _day_of(moment)
    total = day.year * 12 + day.month - 1 - months
    year, month = divmod(total, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last)).isoformat() + moment[10:]


def _day_of(moment: str) -> date:
    return date.fromisoformat(moment[:10])


def _instant(moment: str) -> Nanos:
    if len(moment) > 10:
        return parse_instant(moment)
    return (date.fromisoformat(moment) - date(1970, 1, 1)).days * NS_PER_DAY
