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
    InstrumentText,
    Kinded,
    Name,
    Plugin,
    Section,
    kinds,
)
from bot.app.config_policies import PolicyConfig


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


class PluginStrategy(Plugin):
    """A strategy that a plug-in brings."""

    name: Name | None = Field(default=None, description="how records call this strategy; its kind when absent")
    book: Name = Field(default="main", description="the book it owns")
    policy: PolicyConfig | None = Field(default=None, description="when and how much it trades, if it asks a policy")
    on_fault: Literal["hedge_only", "frozen"] = Field(
        default="frozen", description="what its book falls to when it raises"
    )


StrategyConfig: TypeAlias = Annotated[
    Annotated[DeltaHedgerConfig, Tag(TAG + "delta_hedger")] | Annotated[PluginStrategy, Tag(TAG + PLUGIN_KIND)],
    Discriminator(kinds("delta_hedger")),
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
