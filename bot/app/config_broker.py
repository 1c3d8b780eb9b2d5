"""A broker table says who fills and what it costs; law: money is exact."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from bot.app.config_parts import (
    PLUGIN_KIND,
    TAG,
    Amount,
    Delay,
    Fee,
    Flag,
    InstrumentText,
    Interval,
    Kinded,
    Money,
    Plugin,
    Positive,
    RateNumber,
    Section,
    Seed,
    bare,
    kinds,
    only_with,
)
from bot.app.config_pricing import Spread
from bot.domain.units import parse_span


class Commission(Section):
    """One schedule of fees; an order pays the sum of all that apply to its instrument, each half-up to the cent."""

    kind: Literal["per_contract", "basis_points", "per_ticket", "fixed_total"] = Field(
        description="what the fee counts"
    )
    rate: Fee | None = Field(
        default=None,
        validate_default=True,
        description="money per contract or share, of 'per_contract'; negative: rebate",
    )
    bp: Annotated[Amount, Field(ge=-10_000, le=10_000)] | None = Field(
        default=None, validate_default=True, description="basis points of the notional, of 'basis_points'"
    )
    amount: Fee | None = Field(
        default=None, validate_default=True, description="money per order, of 'per_ticket' and 'fixed_total'"
    )
    minimum: Money | None = Field(default=None, description="least per order, of 'per_contract' and 'basis_points'")
    cap: Annotated[Amount, Field(gt=0, le=1)] | None = Field(
        default=None, description="most, as a fraction of the order's notional, of 'per_contract'"
    )
    applies_to: tuple[InstrumentText, ...] = Field(
        default=(),
        max_length=1000,
        description="kinds (spot, index, future, perpetual, option) or instrument ids; empty: every instrument",
    )

    @field_validator("rate", "bp", "amount")
    @classmethod
    def _fits_kind(cls, value: Any, info: ValidationInfo) -> Any:
        needs = {"rate": ("per_contract",), "bp": ("basis_points",), "amount": ("per_ticket", "fixed_total")}
        return only_with(value, info, "kind", needs[str(info.field_name)], required=True)

    @field_validator("minimum", "cap")
    @classmethod
    def _bounds_fit_kind(cls, value: Any, info: ValidationInfo) -> Any:
        needs = {"minimum": ("per_contract", "basis_points"), "cap": ("per_contract",)}
        return only_with(value, info, "kind", needs[str(info.field_name)])

    def settings(self) -> dict[str, Any]:
        """The specification as `bot.domain.costs` reads it; to what it applies stays here."""
        return {name: value for name, value in bare(self).items() if name != "applies_to"}


class Impact(Section):
    """What size beyond the displayed amount costs."""

    kind: Literal["none", "square_root", "linear"] = Field(description="how the price moves away")
    coefficient: Annotated[Amount, Field(ge=0, le=1000)] | None = Field(
        default=None, description="fraction of the price at one `adv` (or displayed size) beyond; 0.0001 when absent"
    )
    adv: Positive | None = Field(default=None, description="contracts a day; absent: multiples of the displayed size")

    @field_validator("coefficient", "adv")
    @classmethod
    def _fits_kind(cls, value: Any, info: ValidationInfo) -> Any:
        return only_with(value, info, "kind", ("square_root", "linear"))

    def settings(self) -> dict[str, Any]:
        """The specification as `bot.domain.costs` reads it."""
        return bare(self)


class PermanentImpact(Section):
    """A scenario: each execution of Q contracts moves later prices by coefficient Q / adv of its price."""

    coefficient: Annotated[Amount, Field(ge=0, le=1000)] = Field(
        description="fraction of the price at one day's volume"
    )
    adv: Positive = Field(description="contracts a day")


class _Broker(Kinded):
    seed: Seed = Field(default=0, description="of everything random in it")
    opening_ticket_apart: Flag = Field(
        default=False, description="show the fee of each opening hedge apart and leave it out of the commission"
    )


class PaperBroker(_Broker):
    """A simulated venue: fills cross the quoted touch, all latency is event time."""

    kind: Literal["paper"]
    latency: Delay = Field(default=parse_span("0s"), description="from decision to arrival")
    jitter: Delay = Field(default=parse_span("0s"), description="greatest seeded addition to the latency")
    commission: tuple[Commission, ...] = Field(
        default=(), max_length=100, description="fees; the sum of those that apply"
    )
    spread: Spread = Field(
        default_factory=lambda: Spread(kind="quoted"),
        description="the touch of instruments with no spread of their own",
    )
    impact: Impact = Field(
        default_factory=lambda: Impact(kind="none"), description="of size beyond the displayed amount"
    )
    permanent: PermanentImpact | None = Field(default=None, description="a scenario: impact that stays")
    beyond: Literal["impact", "partial", "ignore"] = Field(
        default="ignore",
        description="size beyond the displayed amount: walk on by the impact model, fill in part, ignore it",
    )
    stale_after: Interval | None = Field(default=None, description="a quote older than this fills nothing")
    on_bad_quote: Literal["wait", "reject"] = Field(
        default="wait", description="an order that meets a stale, crossed or one-sided quote"
    )
    on_closed: Literal["wait", "reject"] = Field(default="wait", description="an order that meets a closed session")
    financing_rate: RateNumber = Field(default=0.0, description="interest on cash, per year of 365 days")
    compounding: Literal["simple", "continuous"] = Field(
        default="simple",
        description="of that interest: simple between two samples of the grid, or continuous and booked at each fill too",
    )
    borrow_rate: RateNumber = Field(default=0.0, description="on the value of shares held short, continuous, per year")
    margin: Flag = Field(default=False, description="check buying power when an order arrives")
    margin_per_contract: dict[InstrumentText, Money] = Field(
        default={}, description="initial margin of one contract, by id, for futures and perpetuals"
    )
    margin_leveraged: Annotated[Amount, Field(gt=0, le=1)] | None = Field(
        default=None, description="initial margin of other futures and perpetuals, as a share of notional"
    )


class PluginBroker(Plugin):
    """A broker that a plug-in brings."""

    seed: Seed = Field(default=0, description="of everything random in it")
    opening_ticket_apart: Flag = Field(
        default=False, description="show the fee of each opening hedge apart and leave it out of the commission"
    )


BrokerConfig: TypeAlias = Annotated[
    Annotated[PaperBroker, Tag(TAG + "paper")] | Annotated[PluginBroker, Tag(TAG + PLUGIN_KIND)],
    Discriminator(kinds("paper")),
]
