"""A strategy table says who decides over which book; law: every key belongs to the kind the table names."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    Discriminator,
    Field,
    Tag,
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


class DeltaHedgerConfig(Kinded):
    """Holds the book's delta at its target."""

    kind: Literal["delta_hedger"]
    name: Name = Field(default="delta_hedger", description="how records call this strategy")
    book: Name = Field(default="main", description="the book it owns")
    underlyings: tuple[InstrumentText, ...] = Field(
        default=(), max_length=1000, description="all of the book when empty"
    )
    policy: PolicyConfig = Field(description="when and how much it trades")
    on_fault: Literal["hedge_only", "frozen"] = Field(
        default="frozen", description="what its book falls to when it raises"
    )


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
    """One more account on the same ticks and costs, hedged by another policy."""

    name: Name = Field(description="the account's name")
    policy: PolicyConfig = Field(description="when and how much it trades")


class Accounts(Section):
    """What every account of the run starts with. Accounts `dynamic`, `static` and `none` always run."""

    opening_cash: dict[Currency, Annotated[Amount, Field(ge=Decimal("-1e15"), le=Decimal("1e15"))]] = Field(
        default={}, description="cash by currency at the start"
    )
