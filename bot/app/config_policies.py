"""A policy table says when and how much is traded; law: each names its units, and risk aversion is per unit of currency."""

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
    POLICY_KINDS,
    TAG,
    Interval,
    Kinded,
    Number,
    Plugin,
    Share,
    Whole,
    kinds,
    one_of,
    only_with,
)
from bot.domain.units import parse_span


class NoHedgePolicy(Kinded):
    """Never trade."""

    kind: Literal["none"]


class StaticPolicy(Kinded):
    """Hedge once, at the start."""

    kind: Literal["static"]


class FixedIntervalPolicy(Kinded):
    """Back to the target at each interval from the start, strictly before the end."""

    kind: Literal["fixed_interval"]
    interval: Interval = Field(description="time between two hedges")


class DeltaBandPolicy(Kinded):
    """Trade when the net delta leaves a band around the target."""

    kind: Literal["delta_band"]
    half_width: Number = Field(
        ge=0, le=1e12, description="tolerated distance from the target, in units of the underlying"
    )
    to: Literal["edge", "centre"] = Field(
        default="edge", description="trade to the band's nearest edge, or to the target"
    )


class MoveBandPolicy(Kinded):
    """Back to the target when the price has moved far enough since the last hedge."""

    kind: Literal["move_band"]
    pct: Annotated[Number, Field(gt=0, le=100)] | None = Field(default=None, description="per cent of the price")
    deviations: Annotated[Number, Field(gt=0, le=100)] | None = Field(
        default=None, validate_default=True, description="standard deviations of a move over `per`; instead of pct"
    )
    per: Interval = Field(default=parse_span("1d"), description="the time whose ordinary move is one deviation")

    @field_validator("deviations")
    @classmethod
    def _one_of_two(cls, value: float | None, info: ValidationInfo) -> float | None:
        return one_of(value, info, "pct")


class LelandDeltaPolicy(Kinded):
    """At each interval to the delta at Leland's vol: raised for short options by the cost of hedging, lowered for long."""

    kind: Literal["leland_delta"]
    interval: Interval = Field(description="time between two hedges")
    side: Literal["own", "short", "long"] = Field(
        default="own",
        description="whose costs move the vol: each leg's by its own sign, or all legs as short, or as long",
    )


class HoggardWhalleyWilmottPolicy(Kinded):
    """At each interval to the delta at a vol moved by the cost of hedging: up where the book is short gamma, else down."""

    kind: Literal["hoggard_whalley_wilmott"]
    interval: Interval = Field(description="time between two hedges")


class _AversePolicy(Kinded):
    """A policy that weighs cost against risk: one of `risk_aversion` and `tolerance` says how."""

    risk_aversion: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="absolute, of exponential utility, in 1 / base currency"
    )
    tolerance: Annotated[Number, Field(gt=0, le=1e15)] | None = Field(
        default=None,
        validate_default=True,
        description="instead of risk_aversion: the standard deviation of the book's P&L, in base currency, that is worth one "
        "unit of currency to be rid of; the aversion is 2 / tolerance^2",
    )

    @field_validator("tolerance")
    @classmethod
    def _one_of_two(cls, value: float | None, info: ValidationInfo) -> float | None:
        return one_of(value, info, "risk_aversion")

    def settings(self) -> dict[str, Any]:
        """The keys of the policy, the aversion told as one."""
        found = super().settings()
        tolerance = found.pop("tolerance", None)
        return found if tolerance is None else found | {"risk_aversion": 2.0 / tolerance**2}


_Scale: TypeAlias = Annotated[Number, Field(gt=0, le=1000)]


class WhalleyWilmottPolicy(_AversePolicy):
    """Trade when the net delta leaves the asymptotically optimal band of Whalley and Wilmott."""

    kind: Literal["whalley_wilmott"]
    scale: _Scale = Field(default=1.0, description="multiple of the formula's width")
    to: Literal["edge", "centre"] = Field(
        default="edge", description="trade to the band's nearest edge, or to the target"
    )


class FixedFeeBandPolicy(_AversePolicy):
    """Trade when the net delta leaves the band that a fee a trade asks for, to its inner line."""

    kind: Literal["fixed_fee_band"]
    fee: Annotated[Number, Field(ge=0, le=1e9)] | None = Field(
        default=None, description="currency per trade, whatever its size; absent: the fees per order of [broker]"
    )


class ZakamoulinePolicy(_AversePolicy):
    """Trade when the net delta at Zakamouline's vol leaves his band."""

    kind: Literal["zakamouline"]
    scale: _Scale = Field(default=1.0, description="multiple of the formula's width")
    to: Literal["edge", "centre"] = Field(
        default="edge", description="trade to the band's nearest edge, or to the target"
    )


class AlmgrenLiSpeedPolicy(_AversePolicy):
    """At each interval the share of the gap that the optimal speed under temporary impact would trade."""

    kind: Literal["almgren_li_speed"]
    impact: Annotated[Number, Field(gt=0, le=1e12)] = Field(
        description="price concession in currency per unit when trading one unit a year: p for q units a day is p / (365 q)"
    )
    interval: Interval = Field(description="time between two trades")
    horizon: Interval | None = Field(
        default=None, description="time over which the gap matters; absent: the book's time to expiry"
    )


class MinVarDeltaPolicy(Kinded):
    """Another policy around the minimum-variance delta: it counts how vols move with the price."""

    kind: Literal["min_var_delta"]
    inner: PolicyConfig = Field(description="when and how much it trades")
    a: Number | None = Field(
        default=None, description="of Hull and White's slope (a + b delta + c delta^2) / (S sqrt(tau))"
    )
    b: Number | None = Field(default=None, description="of the same")
    c: Number | None = Field(default=None, description="of the same")
    stickiness: Annotated[Number, Field(ge=-10, le=10)] | None = Field(
        default=None, description="instead of a, b, c: 0 sticky delta, 1 sticky strike, 2 local vol, or as estimated"
    )
    skew: Annotated[Number, Field(ge=-10, le=10)] | None = Field(
        default=None, description="with stickiness: vol per unit of ln K at the strikes held, below zero in equities"
    )

    def settings(self) -> dict[str, Any]:
        """The keys of the policy, the inner one as a table of its own kind."""
        return super().settings() | {"inner": self.inner}


class BartlettDeltaPolicy(Kinded):
    """Another policy around Bartlett's delta of a SABR smile."""

    kind: Literal["bartlett_delta"]
    inner: PolicyConfig = Field(description="when and how much it trades")
    rho: Annotated[Number, Field(ge=-0.999, le=0.999)] = Field(description="correlation of price and vol")
    nu: Annotated[Number, Field(ge=0, le=20)] = Field(description="vol of vol, per square root of a year")
    beta: Share = Field(default=1.0, description="exponent of the price")

    def settings(self) -> dict[str, Any]:
        """The keys of the policy, the inner one as a table of its own kind."""
        return super().settings() | {"inner": self.inner}


class PinGuardPolicy(Kinded):
    """Another policy, held back near expiry while the price is at a strike."""

    kind: Literal["pin_guard"]
    inner: PolicyConfig = Field(description="when and how much it trades")
    within: Interval = Field(description="time to expiry from which a leg may be pinned")
    distance: Annotated[Number, Field(ge=0, le=1e12)] = Field(
        default=0.0, description="pinned when the price is this near to the strike, in price units"
    )
    deviations: Annotated[Number, Field(ge=0, le=100)] = Field(
        default=0.0, description="or this near in standard deviations of the move that is left"
    )
    action: Literal["freeze", "cap", "half"] = Field(
        default="half", description="while pinned: hold, keep the hedge within `cap`, or hedge half of the pinned leg"
    )
    cap: Annotated[Number, Field(ge=0, le=1e12)] | None = Field(
        default=None, description="greatest hedge while pinned, in units of the underlying, of action = 'cap'"
    )

    @field_validator("cap")
    @classmethod
    def _only_to_cap(cls, value: float | None, info: ValidationInfo) -> float | None:
        return only_with(value, info, "action", ("cap",))  # type: ignore[no-any-return]  # a float or None, as given

    def settings(self) -> dict[str, Any]:
        """The keys of the policy, the inner one as a table of its own kind."""
        return super().settings() | {"inner": self.inner}


class CallablePolicy(Kinded):
    """A function of yours, or a learned network, as the rule. Its module must be allowed under [plugins]."""

    kind: Literal["callable"]
    function: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] = Field(
        description='where it is: "module:function"; it takes a BandInput and gives (lo, hi) or (lo, hi, to)'
    )
    interval: Interval | None = Field(default=None, description="asked at these beats only; absent: at every quote")


class _SolvedPolicy(_AversePolicy):
    dates: Annotated[Whole, Field(ge=1, le=100_000)] = Field(
        default=252, description="decisions from the solution to the book's last expiry, evenly spread"
    )
    fixed_cost: Annotated[Number, Field(ge=0, le=1e9)] = Field(
        default=0.0, description="currency a trade; 0: the fees per order of [broker]"
    )
    lot: Annotated[Number, Field(ge=0, le=1e9)] = Field(
        default=0.0, description="units of the underlying; 0: the hedge instrument's"
    )


class ExactBandPolicy(_SolvedPolicy):
    """The exponential-utility optimum of this book under these costs, solved before the first trade."""

    kind: Literal["exact_band"]


class GuardedBandPolicy(_SolvedPolicy):
    """The best, for this book, of the exact band, no hedge, one hedge and fixed intervals."""

    kind: Literal["guarded_band"]


class DeltaGammaVegaPolicy(_AversePolicy):
    """Trade as far as the variance a trade removes until the next look is worth its cost."""

    kind: Literal["delta_gamma_vega"]
    horizon: Interval = Field(default=parse_span("1d"), description="time until the next look")
    max_nodes: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=2_000, description="boxes of whole lots looked into before a decision is taken as it stands"
    )


class PluginPolicy(Plugin):
    """A policy that a plug-in, or a later release, brings."""


PolicyConfig: TypeAlias = Annotated[
    Annotated[NoHedgePolicy, Tag(TAG + "none")]
    | Annotated[StaticPolicy, Tag(TAG + "static")]
    | Annotated[FixedIntervalPolicy, Tag(TAG + "fixed_interval")]
    | Annotated[DeltaBandPolicy, Tag(TAG + "delta_band")]
    | Annotated[MoveBandPolicy, Tag(TAG + "move_band")]
    | Annotated[LelandDeltaPolicy, Tag(TAG + "leland_delta")]
    | Annotated[HoggardWhalleyWilmottPolicy, Tag(TAG + "hoggard_whalley_wilmott")]
    | Annotated[WhalleyWilmottPolicy, Tag(TAG + "whalley_wilmott")]
    | Annotated[FixedFeeBandPolicy, Tag(TAG + "fixed_fee_band")]
    | Annotated[ZakamoulinePolicy, Tag(TAG + "zakamouline")]
    | Annotated[AlmgrenLiSpeedPolicy, Tag(TAG + "almgren_li_speed")]
    | Annotated[MinVarDeltaPolicy, Tag(TAG + "min_var_delta")]
    | Annotated[BartlettDeltaPolicy, Tag(TAG + "bartlett_delta")]
    | Annotated[PinGuardPolicy, Tag(TAG + "pin_guard")]
    | Annotated[CallablePolicy, Tag(TAG + "callable")]
    | Annotated[ExactBandPolicy, Tag(TAG + "exact_band")]
    | Annotated[GuardedBandPolicy, Tag(TAG + "guarded_band")]
    | Annotated[DeltaGammaVegaPolicy, Tag(TAG + "delta_gamma_vega")]
    | Annotated[PluginPolicy, Tag(TAG + PLUGIN_KIND)],
    Discriminator(kinds(*POLICY_KINDS)),
]
for _wrapper in (MinVarDeltaPolicy, BartlettDeltaPolicy, PinGuardPolicy):
    _wrapper.model_rebuild()  # each holds a policy of any kind, itself among them
