"""A lab table sets what the research verbs ask by default: [compare], [sweep] and [advise]; law: no run depends on them, so
they change no hash, and a word on the command line wins over them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from bot.app.config_parts import Number, Section, Seed, Whole, shown
from bot.app.config_strategies import Alternative
from bot.app.config_text import Word, literal

World: TypeAlias = Literal["gbm", "merton", "heston", "bates", "bootstrap"]
LAB_TABLES = ("compare", "sweep", "advise")


class _Averse(Section):
    """A table that says how much its owner minds risk, by one of two words; neither: as the policies of the config do."""

    risk_aversion: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None,
        description="absolute, of exponential utility, in 1 / base currency; absent: the strategy's policy's",
    )
    tolerance: Annotated[Number, Field(gt=0, le=1e15)] | None = Field(
        default=None,
        description="instead: the standard deviation of P&L, in base currency, that is worth one unit to be rid of",
    )

    @field_validator("tolerance")
    @classmethod
    def _one_at_most(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("risk_aversion") is not None:
            raise ValueError("expected one of risk_aversion and tolerance, found both")
        return value

    @property
    def aversion(self) -> float | None:
        """The absolute aversion the table gives, if it gives one."""
        return self.risk_aversion if self.tolerance is None else 2.0 / self.tolerance**2


class CompareTable(_Averse):
    """What `evenkeel compare` does unless its command line says otherwise."""

    policies: tuple[str, ...] = Field(
        default=(), max_length=64, description="names of accounts and kinds, or 'all'; empty: the config's own"
    )
    scenarios: World | None = Field(default=None, description="a simulated set; absent: the recorded one of [[feeds]]")
    paths: Annotated[Whole, Field(ge=100, le=10_000_000)] = Field(default=16_384, description="simulated paths")
    seed: Seed = Field(default=1, description="of the paths that policies are scored on")
    tune_seed: Seed = Field(default=101, description="of the paths that widths are tuned on, never scored on")
    dates: Annotated[Whole, Field(ge=1, le=100_000)] = Field(
        default=252, description="decisions from now to the last expiry in a simulated set"
    )


class AdviseTable(_Averse):
    """What `evenkeel advise` does unless its command line says otherwise."""

    paths: Annotated[Whole, Field(ge=100, le=10_000_000)] = Field(default=16_384, description="simulated paths")
    seed: Seed = Field(default=1, description="of the paths that cost and risk are estimated on")
    dates: Annotated[Whole, Field(ge=1, le=100_000)] = Field(default=252, description="decisions until the last expiry")


def _values(value: Any) -> tuple[Any, ...]:
    found = literal(value) if isinstance(value, Word) else value
    if not isinstance(found, list | tuple) or not found:
        raise ValueError(f"expected a list of values to try, found {shown(found)}")
    return tuple(found)


Values = Annotated[tuple[Any, ...], BeforeValidator(_values), WithJsonSchema({"type": "array", "minItems": 1})]


class DrawTable(Section):
    """An interval that a random sweep draws from."""

    low: Number = Field(description="the least value")
    high: Number = Field(description="the greatest value")
    log: bool = Field(default=False, description="evenly in the logarithm")
    whole: bool = Field(default=False, description="whole numbers only")

    @field_validator("high")
    @classmethod
    def _above_low(cls, value: float, info: ValidationInfo) -> float:
        low = info.data.get("low")
        if low is not None and value < low:
            raise ValueError(f"expected at least low = {low:g}, found {value:g}")
        return value

    @field_validator("log")
    @classmethod
    def _positive_low(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("low", 1.0) <= 0.0:
            raise ValueError(f"expected a low above 0, found {info.data['low']:g}")
        return value


class SweepTable(Section):
    """What `evenkeel sweep` does unless its command line says otherwise."""

    set: dict[str, Values] = Field(
        default={},
        max_length=32,
        description="dotted keys of this file, each with its values: every combination is run",
    )
    random: dict[str, DrawTable] = Field(
        default={}, max_length=32, description="dotted keys of this file, each with an interval to draw from"
    )
    points: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(default=20, description="draws of `random`")
    seed: Seed = Field(default=1, description="of those draws")


def policy_of(kind: str, **keys: Any) -> Any:
    """The table of a built-in policy with these keys, as if a file had held it."""
    return Alternative.model_validate({"name": "made", "policy": {"kind": kind, **keys}}).policy


def account_of(name: str, policy: Any) -> Alternative:
    """One more account under a policy's table."""
    return Alternative.model_validate({"name": name, "policy": policy})


def table_text(policy: Any) -> str:
    """A policy's table in one line, for a reader."""
    return _told(policy.model_dump())


def _told(table: dict[str, Any]) -> str:
    kind = str(table.pop("kind", ""))
    said = ", ".join(f"{name} {_word(value)}" for name, value in table.items() if value is not None and value != {})
    return f"{kind}: {said}" if said else kind


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_told(dict(value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_keys(policy: Any, **keys: Any) -> Any:
    """A policy's table, and those within it, with keys changed where they have them."""
    own = {name: value for name, value in keys.items() if name in type(policy).model_fields}
    if isinstance(getattr(policy, "inner", None), BaseModel):
        own["inner"] = with_keys(policy.inner, **keys)
    return policy.model_copy(update=own)
