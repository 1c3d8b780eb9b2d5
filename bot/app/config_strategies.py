"""A strategy table says who decides over which book; law: every key belongs to the kind the table names."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

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
    Currency,
    Instant,
    InstrumentText,
    Interval,
    Kinded,
    Name,
    Number,
    Plugin,
    Positive,
    RateNumber,
    Section,
    VolNumber,
    kinds,
)
from bot.app.config_policies import PolicyConfig
from bot.domain.units import parse_span


class StrategyTable(Kinded):
    """What every built-in strategy's table has. `instrument_keys` name the keys that hold instruments."""

    instrument_keys: ClassVar[tuple[str, ...]] = ()
    picks_options: ClassVar[bool] = False
    """True for a strategy that may trade any listed option of the run, not only what the book holds."""
    holds_book: ClassVar[bool] = False
    """True for a strategy that needs a book to begin with."""

    book: Name = Field(default="main", description="the book it owns")
    on_fault: Literal["hedge_only", "frozen"] = Field(
        default="frozen", description="what its book falls to when it raises"
    )

    def instruments(self) -> tuple[str, ...]:
        """The instruments its keys name, as written."""
        found: list[str] = []
        for key in self.instrument_keys:
            value = getattr(self, key)
            found += [value] if isinstance(value, str) else list(value or ())
        return tuple(found)


class DeltaHedgerConfig(StrategyTable):
    """Holds the book's delta at its target."""

    holds_book: ClassVar[bool] = True

    kind: Literal["delta_hedger"]
    name: Name = Field(default="delta_hedger", description="how records call this strategy")
    underlyings: tuple[InstrumentText, ...] = Field(
        default=(), max_length=1000, description="all of the book when empty"
    )
    policy: PolicyConfig = Field(description="when and how much it trades")


class JumpsTable(Section):
    """Jumps that are assumed for a gap-risk meter: Merton (1976)."""

    intensity: Number = Field(default=0.5, ge=0, le=1000, description="jumps a year")
    mean: Number = Field(default=-0.10, ge=-5, le=5, description="mean of a jump's log size")
    vol: Number = Field(default=0.15, ge=0, le=5, description="standard deviation of a jump's log size")


class PortfolioInsuranceConfig(StrategyTable):
    """Keeps a portfolio of one asset and cash above a floor: CPPI, TIPP, the synthetic put, OBPI."""

    instrument_keys: ClassVar[tuple[str, ...]] = ("instrument",)

    kind: Literal["portfolio_insurance"]
    name: Name = Field(default="portfolio_insurance", description="how records call this strategy")
    instrument: InstrumentText = Field(description="the risky asset; the rest of the account is cash")
    method: Literal["cppi", "tipp", "synthetic_put", "obpi"] = Field(description="the rule, see docs")
    floor: Annotated[Number, Field(gt=0, le=10)] = Field(
        description="share of the starting value (of the best one for tipp) that is protected; of the puts: strike / spot"
    )
    multiplier: Annotated[Number, Field(gt=0, le=1000)] = Field(
        default=3.0, description="exposure per unit of cushion, of cppi and tipp"
    )
    floor_rate: RateNumber = Field(default=0.0, description="growth of the floor of cppi and tipp, continuous per year")
    cap: Annotated[Number, Field(gt=0, le=1000)] | None = Field(
        default=None, description="most exposure as a share of the value; 1 when absent, no cap for synthetic_put"
    )
    band: Annotated[Number, Field(ge=0, le=100)] = Field(
        default=0.0, description="trade only when exposure is off by more than this share of what is wanted"
    )
    vol: VolNumber = Field(default=0.20, description="of the puts; the first forecast of the gap-risk meter")
    vol_from: Literal["fixed", "ewma"] = Field(
        default="fixed", description="the puts' vol: `vol` throughout, or the running forecast"
    )
    vol_halflife: Interval = Field(default=parse_span("11d"), description="of the running forecast")
    rate: RateNumber = Field(default=0.0, description="continuous, per year, in the puts' formula")
    dividend: RateNumber = Field(default=0.0, description="continuous yield, per year, in the puts' formula")
    horizon: Instant | None = Field(default=None, description="end of the puts, once")
    length: Interval | None = Field(default=None, description="or their length, renewed at each end at the price then")
    day_count: Literal["exact", "dates"] = Field(
        default="exact", description="years to the horizon by the instant or by calendar dates, both of 365 days"
    )
    every: Interval | None = Field(default=None, description="look at these intervals; absent: at every new price")
    lot: Positive | None = Field(default=None, description="smallest quantity; the instrument's when absent")
    stale_after: Interval | None = Field(default=None, description="a price older than this is not acted on")
    jumps: JumpsTable = Field(default_factory=JumpsTable, description="what the gap-risk meter assumes of jumps")


class PluginStrategy(Plugin):
    """A strategy that a plug-in brings."""

    name: Name | None = Field(default=None, description="how records call this strategy; its kind when absent")
    book: Name = Field(default="main", description="the book it owns")
    policy: PolicyConfig | None = Field(default=None, description="when and how much it trades, if it asks a policy")
    on_fault: Literal["hedge_only", "frozen"] = Field(
        default="frozen", description="what its book falls to when it raises"
    )


StrategyConfig: TypeAlias = Annotated[
    Annotated[DeltaHedgerConfig, Tag(TAG + "delta_hedger")]
    | Annotated[PortfolioInsuranceConfig, Tag(TAG + "portfolio_insurance")]
    | Annotated[PluginStrategy, Tag(TAG + PLUGIN_KIND)],
    Discriminator(kinds("delta_hedger", "portfolio_insurance")),
]


class Alternative(Section):
    """One more account on the same ticks and costs: the same strategies under another policy, or other strategies."""

    name: Name = Field(description="the account's name")
    policy: PolicyConfig | None = Field(default=None, description="when and how much the strategies trade instead")
    strategies: tuple[StrategyConfig, ...] = Field(
        default=(), max_length=100, validate_default=True, description="who decides instead"
    )

    @field_validator("strategies")
    @classmethod
    def _one_of_two(cls, strategies: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        if "policy" in info.data and (info.data["policy"] is None) != bool(strategies):
            raise ValueError(f"expected a policy or strategies, found {'both' if strategies else 'neither'}")
        return strategies


class Accounts(Section):
    """What every account of the run starts with. Accounts `dynamic`, `static` and `none` always run."""

    opening_cash: dict[Currency, Annotated[Amount, Field(ge=Decimal("-1e15"), le=Decimal("1e15"))]] = Field(
        default={}, description="cash by currency at the start"
    )
