"""A limits table says what no order may exceed and what a loss pulls, a mode table how far a run is let; law: no number passes
its ceiling in the code.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from bot.app.config_parts import Amount, Flag, InstrumentText, Interval, Number, Section, TimeOfDay, Whole
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE
from bot.engine.limits import CEILINGS, RISK_NAMES

RungWord = Literal["alert", "no_new_risk", "hedge_only", "cancel_all", "flatten"]


def _up_to(name: str) -> Any:
    """The constraint of a number that is above zero and at most its ceiling."""
    return Field(gt=0, le=CEILINGS[name])


_Quantity = Annotated[Amount, _up_to("max_order_quantity")]
_Notional = Annotated[Amount, _up_to("max_order_notional")]
_Position = Annotated[Amount, _up_to("max_position")]
_Delta = Annotated[Number, _up_to("max_delta")]
_Vega = Annotated[Number, _up_to("max_vega")]
_Stress = Annotated[Number, _up_to("max_stress_loss")]
_Loss = Annotated[Amount, _up_to("daily_loss")]
_Rate = Annotated[Number, _up_to("orders_per_second")]
_Burst = Annotated[Whole, Field(ge=1, le=CEILINGS["order_burst"])]
_Count = Annotated[Whole, Field(ge=1, le=1_000_000)]
_Window = Annotated[Interval, Field(le=NS_PER_DAY)]
_Shock = Annotated[Number, Field(gt=-1, le=10)]


class UnderlyingBounds(Section):
    """The bounds of one underlying where they are not the common ones."""

    underlying: InstrumentText = Field(description="whose options, shares and futures")
    max_position: _Position | None = Field(default=None, description="contracts held of one instrument on it")
    max_delta: _Delta | None = Field(default=None, description="net delta, either side, in underlying units")
    max_gamma: _Delta | None = Field(default=None, description="gamma, either side, in underlying units")
    max_vega: _Vega | None = Field(default=None, description="vega per 1.00 of vol, either side")
    max_stress_loss: _Stress | None = Field(default=None, description="loss at the worst shock, in its currency")
    hedge_band: _Delta | None = Field(
        default=None, validate_default=True, description="net delta a hedge may leave, in underlying units"
    )

    @field_validator("hedge_band")
    @classmethod
    def _says_something(cls, band: float | None, info: ValidationInfo) -> float | None:
        if band is None and all(info.data.get(name) is None for name in RISK_NAMES):
            raise ValueError(f"expected a bound beside `underlying` ({', '.join(RISK_NAMES)}), found none")
        return band


class Limits(Section):
    """What no order may exceed; absent: no limit of that sort. A breach is a refusal, never a smaller order."""

    max_order_quantity: _Quantity | None = Field(default=None, description="contracts in one order")
    max_order_notional: _Notional | None = Field(default=None, description="value of one order, in its own currency")
    max_position: _Position | None = Field(
        default=None, description="contracts held of one instrument, either side, open orders in the worst case"
    )
    price_collar: Annotated[Amount, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="greatest distance of a limit price, or of the quote a market order crosses, from the mid, as a fraction",
    )
    reference_max_age: _Window = Field(default=NS_PER_MINUTE, description="the collar's price is no older than this")
    max_open_orders: _Count | None = Field(default=None, description="at one time")
    stale_after: _Window | None = Field(default=None, description="no order on a quote older than this")
    restricted: tuple[InstrumentText, ...] = Field(
        default=(), max_length=10_000, description="instruments never traded"
    )
    max_delta: _Delta | None = Field(default=None, description="net delta by underlying, either side, in its units")
    max_gamma: _Delta | None = Field(default=None, description="gamma by underlying, either side, in its units")
    max_vega: _Vega | None = Field(default=None, description="vega per 1.00 of vol by underlying, either side")
    max_stress_loss: _Stress | None = Field(
        default=None, description="loss by underlying at the worst shock, in its currency"
    )
    stress_spots: tuple[_Shock, ...] = Field(
        default=(-0.20, -0.10, -0.05, 0.0, 0.05, 0.10, 0.20),
        min_length=1,
        max_length=101,
        description="shocks of the price, as fractions of it",
    )
    stress_vols: tuple[_Shock, ...] = Field(
        default=(-0.25, 0.0, 0.50), min_length=1, max_length=101, description="shocks of every vol, as fractions of it"
    )
    hedge_band: _Delta | None = Field(
        default=None, description="net delta by underlying past which no order in a share or future may raise it"
    )
    underlyings: tuple[UnderlyingBounds, ...] = Field(
        default=(), max_length=1000, description="bounds of single underlyings"
    )
    orders_per_second: _Rate | None = Field(default=None, description="orders sent, by event time")
    order_burst: _Burst | None = Field(default=None, description="orders at once; a second's worth when absent")
    cancels_per_second: _Rate | None = Field(default=None, description="cancels sent; those of a kill are not counted")
    cancel_burst: _Burst | None = Field(default=None, description="cancels at once; a second's worth when absent")
    duplicate_window: _Window | None = Field(
        default=None, description="no second order of the same size while the first is unanswered this long"
    )
    self_cross: Flag = Field(default=True, description="refuse an order that would trade against our own open one")
    max_attempts: _Count | None = Field(
        default=None, description="orders in one instrument within `attempt_window`; then it cools down"
    )
    attempt_window: _Window = Field(default=NS_PER_MINUTE, description="of `max_attempts`")
    cool_down: Annotated[Interval, Field(le=7 * NS_PER_DAY)] = Field(
        default=NS_PER_MINUTE, description="from the last of too many attempts"
    )
    max_reversals: _Count | None = Field(
        default=None,
        description="changes of side in one instrument within `reversal_window`; past it a person enables the book again",
    )
    reversal_window: _Window = Field(default=NS_PER_MINUTE, description="of `max_reversals`")
    daily_loss: _Loss | None = Field(
        default=None, description="equity lost since the day began, in the base currency, seen at re-marks"
    )
    day_begins: TimeOfDay = Field(default="00:00", description="UTC time at which the day of `daily_loss` begins")
    on_daily_loss: RungWord = Field(default="hedge_only", description="the rung of the kill ladder it pulls")
    drawdown: _Loss | None = Field(
        default=None, description="equity below its peak, in the base currency, seen at re-marks"
    )
    on_drawdown: RungWord = Field(default="hedge_only", description="the rung it pulls")
    max_rejects: _Count | None = Field(default=None, description="rejects by the venue within `reject_window`")
    reject_window: _Window = Field(default=NS_PER_MINUTE, description="of `max_rejects`")
    on_rejects: RungWord = Field(default="cancel_all", description="the rung they pull")

    @field_validator("underlyings")
    @classmethod
    def _once(cls, tables: tuple[UnderlyingBounds, ...]) -> tuple[UnderlyingBounds, ...]:
        names = [table.underlying for table in tables]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected each underlying once, found {', '.join(twice)} again")
        return tables

    @property
    def day_begins_ns(self) -> int:
        """`day_begins` as a length from midnight UTC."""
        hours, minutes = self.day_begins.split(":")
        return (60 * int(hours) + int(minutes)) * NS_PER_MINUTE


class ModeTable(Section):
    """How far the dynamic account is let; it changes by a restart only."""

    stage: Literal["observe", "confirm", "live"] = Field(
        default="live", description="decide and send nothing; ask a person for each order; send"
    )
    size_fraction: Annotated[Amount, Field(gt=0, le=1)] = Field(
        default=Decimal(1), description="of what strategies want to hold beyond the opening book"
    )
    confirm_within: Annotated[Interval, Field(le=7 * NS_PER_DAY)] = Field(
        default=5 * NS_PER_MINUTE, description="how long an order waits for a person in `confirm`"
    )
