"""A pricing table says what is held, what it is worth and what hedges it; law: one model, one vol source, one smile rule."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from bot.app.config_parts import (
    PLUGIN_KIND,
    SMILE_RULES,
    TAG,
    Amount,
    Currency,
    Day,
    FaultsError,
    FilePath,
    Flag,
    InstrumentText,
    Interval,
    Kinded,
    Money,
    Name,
    Number,
    Options,
    Positive,
    Range,
    RateNumber,
    Section,
    Share,
    VolNumber,
    Whole,
    bare,
    ex_day,
    kinds,
    once,
    only_with,
    smile_rule,
    text_schema,
)
from bot.domain.units import parse_span

MAX_STRIKES: Final = 10_000


class BookConfig(Section):
    """The options book, and how its file is read. Without a file nothing is held at the start."""

    file: FilePath | None = Field(default=None, description="CSV or JSON, see docs/book.md")
    columns: dict[str, str] = Field(default={}, description="the file's column name = ours, for a broker's export")
    name: Name = Field(default="main", description="the book of rows that name none")
    price_source: Literal["mark", "file"] = Field(
        default="mark", description="entry value: the first mark of the session, or the file's `price` column"
    )


class ListedChain(Section):
    """Listed options that strategies may trade: every strike of every expiry named, calls and puts."""

    underlying: InstrumentText = Field(description="what they are options on")
    root: Annotated[str, Field(pattern=r"^[A-Z0-9.]{1,6}$")] = Field(description="OCC root of the option ids")
    expiries: tuple[Day, ...] = Field(min_length=1, max_length=2000, description="listed expiration dates")
    strikes: tuple[Positive, ...] = Field(default=(), max_length=10_000, description="listed strikes, one by one")
    strikes_from: Positive | None = Field(default=None, description="lowest strike of a ladder")
    strikes_to: Positive | None = Field(default=None, description="highest strike of a ladder")
    strike_step: Positive | None = Field(default=None, description="distance of two strikes of a ladder")
    cp: Literal["both", "call", "put"] = Field(default="both", description="calls, puts or both")

    @field_validator("expiries")
    @classmethod
    def _expiries_once(cls, expiries: tuple[date, ...]) -> tuple[date, ...]:
        return once(expiries, "expiry")

    @model_validator(mode="after")
    def _strikes_or_ladder(self) -> ListedChain:
        ladder = (self.strikes_from, self.strikes_to, self.strike_step)
        given = [end is not None for end in ladder]
        if bool(self.strikes) == all(given) or (any(given) and not all(given)):
            raise ValueError("expected strikes, or all of strikes_from, strikes_to and strike_step")
        low, high, step = ladder
        if low is not None and high is not None and step is not None and not 0 <= (high - low) / step < MAX_STRIKES:
            raise ValueError(f"expected strikes_from <= strikes_to and fewer than {MAX_STRIKES} strikes between")
        return self

    def strike_list(self) -> tuple[Decimal, ...]:
        """Every strike."""
        if self.strikes or self.strikes_from is None or self.strikes_to is None or self.strike_step is None:
            return self.strikes
        count = int((self.strikes_to - self.strikes_from) / self.strike_step) + 1
        return tuple(self.strikes_from + i * self.strike_step for i in range(count))


class TableConfig(Section):
    """A supplied delta by spot and a supplied decay, for a worked example: linear between spots, flat outside."""

    spots: tuple[Annotated[Number, Field(gt=0)], ...] = Field(min_length=1, max_length=10_000, description="rising")
    deltas: tuple[Annotated[Number, Field(ge=-1, le=1)], ...] = Field(
        min_length=1, max_length=10_000, description="delta of one long unit at each spot"
    )
    value: Number = Field(ge=0, le=1e9, description="price of one unit at the first spot, at session.start")
    decay_per_day: Number = Field(default=0.0, ge=-1e9, le=1e9, description="price one unit loses per calendar day")

    @field_validator("spots")
    @classmethod
    def _rising(cls, spots: tuple[float, ...]) -> tuple[float, ...]:
        for i in range(1, len(spots)):
            if spots[i] <= spots[i - 1]:
                raise FaultsError(((i,), f"expected more than the spot before it, {spots[i - 1]}, found {spots[i]}"))
        return spots

    @field_validator("deltas")
    @classmethod
    def _as_many(cls, deltas: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        spots = info.data.get("spots")
        if spots is not None and len(spots) != len(deltas):
            raise ValueError(f"expected one delta for each of {len(spots)} spots, found {len(deltas)}")
        return deltas


class HullWhite(Section):
    """The quadratic in delta of Hull and White's minimum-variance rule, fitted to past changes of implied vols."""

    a: Number = Field(ge=-100, le=100, description="constant")
    b: Number = Field(ge=-100, le=100, description="times delta")
    c: Number = Field(ge=-100, le=100, description="times delta squared")


class SabrSmile(Section):
    """SABR's parameters beside alpha, which each contract's own vol gives."""

    beta: Share = Field(default=1.0, description="backbone: 1 lognormal, 0 normal")
    rho: Number = Field(gt=-1, lt=1, description="correlation of spot and vol")
    nu: Number = Field(ge=0, le=100, description="vol of vol, per square root of a year")


class SurfaceConfig(Section):
    """How a chain's quotes become a surface, and when a fit is too poor to be used."""

    model: Literal["svi", "ssvi", "cubic"] = Field(
        default="svi", description="a smile per expiry (raw SVI), one SSVI for all, or cubics"
    )
    sound: Flag = Field(default=True, description="hold SVI smiles free of butterflies and below the next expiry's")
    max_rmse: Annotated[Number, Field(gt=0, le=10)] = Field(
        default=0.02, description="worst misfit of an expiry, in vol, that is used; above it the last good is carried"
    )
    min_quotes: Annotated[Whole, Field(ge=1, le=100_000)] = Field(
        default=5, description="usable quotes of the whole chain below which nothing is fitted"
    )


class _Forecast(Kinded):
    """Bars of the underlying's own price, and the estimator that reads them."""

    interval: Interval = Field(default=parse_span("5m"), description="length of a bar; of a history, between its rows")
    history: FilePath | None = Field(
        default=None, description="CSV of past prices; with it the run's own marks are not used"
    )
    periods_per_year: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None,
        description="bars that count in a year; absent: 252 of a day or longer, else trading time over interval",
    )

    def settings(self) -> dict[str, Any]:
        """What the estimator is given: not what the bars are made of."""
        own = ("interval", "history", "periods_per_year")
        return {name: value for name, value in super().settings().items() if name not in own}


class EwmaForecast(_Forecast):
    """An exponentially weighted variance of returns."""

    kind: Literal["ewma"]
    decay: Annotated[Number, Field(gt=0, lt=1)] = Field(default=0.94, description="weight kept from bar to bar")
    least: Annotated[Whole, Field(ge=2, le=100_000)] = Field(default=10, description="returns before it says anything")


class GarchForecast(_Forecast):
    """A model of the GARCH family, fitted anew at each bar."""

    kind: Literal["garch"]
    family: Literal["garch", "gjr", "egarch", "tarch", "harch", "figarch"] = Field(
        default="garch", description="which model"
    )
    window: Annotated[Whole, Field(ge=50, le=100_000)] = Field(default=1000, description="returns it is fitted to")
    horizon: Annotated[Whole, Field(ge=1, le=10_000)] = Field(default=1, description="bars the forecast averages over")
    least: Annotated[Whole, Field(ge=50, le=100_000)] = Field(default=100, description="returns before it is fitted")


class HarForecast(_Forecast):
    """Corsi's regression on mean variances of three windows."""

    kind: Literal["har"]
    windows: tuple[Annotated[Whole, Field(ge=1, le=10_000)], ...] = Field(
        default=(1, 5, 22), min_length=1, max_length=10, description="bars of each window"
    )
    horizon: Annotated[Whole, Field(ge=1, le=10_000)] = Field(default=1, description="bars the forecast averages over")
    least: Annotated[Whole, Field(ge=2, le=100_000)] = Field(default=60, description="returns before it is fitted")


class RangeForecast(_Forecast):
    """The variance of the last bars from their ranges."""

    kind: Literal["range"]
    estimator: Literal["parkinson", "garman_klass", "rogers_satchell", "yang_zhang"] = Field(
        default="yang_zhang", description="which range estimator"
    )
    window: Annotated[Whole, Field(ge=2, le=100_000)] = Field(default=21, description="bars it looks back")


class PluginForecast(_Forecast):
    """A source of vols that a plug-in brings."""

    kind: Name = Field(description="the name of an entry point, allowed under [plugins]")
    options: Options = Field(default={}, description="the plug-in's own keys, handed over as they are")

    def settings(self) -> dict[str, Any]:
        """The plug-in's own keys."""
        return dict(self.options)


ForecastConfig: TypeAlias = Annotated[
    Annotated[EwmaForecast, Tag(TAG + "ewma")]
    | Annotated[GarchForecast, Tag(TAG + "garch")]
    | Annotated[HarForecast, Tag(TAG + "har")]
    | Annotated[RangeForecast, Tag(TAG + "range")]
    | Annotated[PluginForecast, Tag(TAG + PLUGIN_KIND)],
    Discriminator(kinds("ewma", "garch", "har", "range")),
]


class CheckConfig(Section):
    """A second pricer that runs beside the first and alarms where they disagree."""

    pricer: Literal["tree", "grid", "european", "cos"] = Field(
        description="Leisen-Reimer tree, finite differences, the European formula, or Fourier cosines (European)"
    )
    every: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(default=1, description="each so many re-marks")
    price_tolerance: Annotated[Number, Field(gt=0, le=1)] = Field(
        default=2e-4, description="difference of price that is allowed, as a fraction of spot"
    )
    delta_tolerance: Annotated[Number, Field(gt=0, le=1)] = Field(
        default=2e-3, description="difference of delta that is allowed, per unit"
    )


class CashDividendConfig(Section):
    """Cash per share that goes ex at a known time."""

    underlying: InstrumentText = Field(description="who pays")
    ex: Annotated[str, BeforeValidator(ex_day), text_schema("2015-11-05")] = Field(
        description="ex-date (from the session's open), or an instant with its zone"
    )
    amount: Annotated[Number, Field(ge=0, le=1e9)] = Field(description="per share, in the underlying's currency")


class Pricing(Section):
    """What the book is worth and how it moves."""

    pricer: Literal["european", "american", "table"] = Field(
        default="european",
        description="model of option values; 'european' leaves early exercise out, 'american' values it by style",
    )
    vol: Literal["fixed", "per_contract", "marks_file", "implied", "surface", "forecast"] = Field(
        default="implied", description="where vols come from; the last valid one is carried and its age known"
    )
    vol_value: VolNumber | None = Field(default=None, validate_default=True, description="the vol of vol = 'fixed'")
    marks_file: FilePath | None = Field(
        default=None, validate_default=True, description="CSV of vols by contract, of vol = 'marks_file'"
    )
    remark: Interval = Field(
        default=parse_span("1m"), description="vols change only at re-marks, this often from session.start"
    )
    rate: RateNumber = Field(default=0.0, description="continuous, per year, of the base currency")
    rates: dict[Currency, RateNumber] = Field(default={}, description="rates of other currencies")
    dividend: RateNumber = Field(
        default=0.0, description="continuous yield of every underlying not named in `dividends`"
    )
    forward: Literal["rate", "parity"] = Field(
        default="rate",
        description="the options' forward: from price, rate and yield, or from put-call parity of the chain in the feed",
    )
    dividends: dict[InstrumentText, RateNumber] = Field(default={}, description="continuous yield by underlying")
    smile: Annotated[
        str | float,
        BeforeValidator(smile_rule),
        WithJsonSchema({"anyOf": [{"enum": list(SMILE_RULES)}, {"type": "number"}]}),
    ] = Field(
        default="sticky_strike",
        description=f"how vols follow the spot: {', '.join(SMILE_RULES)}, or a number, the skew-stickiness ratio",
    )
    hull_white: HullWhite | None = Field(
        default=None, validate_default=True, description="the coefficients of smile = 'minimum_variance'"
    )
    sabr: SabrSmile | None = Field(
        default=None, validate_default=True, description="the parameters of smile = 'bartlett'"
    )
    surface: SurfaceConfig | None = Field(default=None, description="how the surface of vol = 'surface' is fitted")
    chain: FilePath | None = Field(
        default=None,
        description="a book file of contracts to watch beside the book's: their quotes shape surface and skew",
    )
    forecast: ForecastConfig | None = Field(
        default=None, validate_default=True, description="the estimator of vol = 'forecast'"
    )
    day_count: Literal["act365", "trading"] = Field(
        default="act365",
        description="what a year of an option's life is: 365 days, or a year of the underlying's sessions",
    )
    cash_dividends: tuple[CashDividendConfig, ...] = Field(
        default=(), max_length=10_000, description="known dividends, of pricer = 'american'; yields are in `dividends`"
    )
    dividend_model: Literal["spot", "escrowed"] = Field(
        default="spot", description="what is lognormal between ex-dates: the spot, or the spot less dividends to come"
    )
    check: CheckConfig | None = Field(default=None, description="a second pricer beside the first")
    mark: Literal["mid", "model"] | None = Field(
        default=None,
        description="where option P&L is marked; absent: the middle with vol implied or forecast, else the model",
    )
    stale_after: Interval | None = Field(
        default=None, description="a quote older than this marks nothing; absent: the last valid one is carried"
    )
    vol_max_age: Interval | None = Field(default=None, description="a carried vol older than this is a fault")
    fallback_delta: Literal["last", "hold"] = Field(
        default="last",
        description="while a Greek is unknown: hedge the last known delta, or hold still; always alarmed",
    )
    table: TableConfig | None = Field(default=None, validate_default=True, description="the numbers of pricer 'table'")

    @field_validator("vol_value", "marks_file")
    @classmethod
    def _given_for_vol(cls, value: Any, info: ValidationInfo) -> Any:
        needs = {"vol_value": "fixed", "marks_file": "marks_file"}[str(info.field_name)]
        return only_with(value, info, "vol", (needs,), required=True)

    @field_validator("smile")
    @classmethod
    def _has_a_skew(cls, smile: str | float, info: ValidationInfo) -> str | float:
        if smile in {"sticky_strike", 1.0}:
            return smile
        if info.data.get("pricer") == "table":
            raise ValueError(f"expected 'sticky_strike' with pricer = 'table', which knows no vol, found {smile!r}")
        if info.data.get("vol") in {"fixed", "forecast"}:
            raise ValueError(
                f"expected 'sticky_strike' with vol = {info.data['vol']!r}, which has one vol and no skew, found {smile!r}"
            )
        return smile

    @field_validator("hull_white", "sabr")
    @classmethod
    def _given_for_smile(cls, value: Any, info: ValidationInfo) -> Any:
        needs = {"hull_white": "minimum_variance", "sabr": "bartlett"}[str(info.field_name)]
        return only_with(value, info, "smile", (needs,), required=True)

    @field_validator("surface", "forecast")
    @classmethod
    def _given_for_source(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        return only_with(value, info, "vol", (name,), required=name == "forecast")

    @field_validator("cash_dividends")
    @classmethod
    def _valued(cls, paid: tuple[CashDividendConfig, ...], info: ValidationInfo) -> tuple[CashDividendConfig, ...]:
        if paid and info.data.get("pricer") not in {None, "american"}:
            raise ValueError(
                f"expected only with pricer = 'american', found pricer = {info.data['pricer']!r}: state a yield in `dividends`"
            )
        if paid and info.data.get("day_count") == "trading":
            raise ValueError("expected only with day_count = 'act365': an ex-date is an instant of calendar time")
        return paid

    @field_validator("table")
    @classmethod
    def _given_for_pricer(cls, value: Any, info: ValidationInfo) -> Any:
        return only_with(value, info, "pricer", ("table",), required=True)


class Spread(Section):
    """Where the touch lies: as quoted, or around the last price when a feed has no quotes."""

    kind: Literal["quoted", "fixed", "ticks", "basis_points", "volatility"] = Field(
        description="how the touch is found"
    )
    half: Money | None = Field(default=None, validate_default=True, description="half spread in price, of 'fixed'")
    ticks: Annotated[Amount, Field(ge=0, le=10_000)] | None = Field(
        default=None, validate_default=True, description="half spread, of 'ticks'"
    )
    bp: Annotated[Amount, Field(ge=0, le=10_000)] | None = Field(
        default=None, validate_default=True, description="half spread in basis points of the price, of 'basis_points'"
    )
    k: Annotated[Number, Field(ge=0, le=100)] | None = Field(
        default=None,
        validate_default=True,
        description="half spread in standard deviations of a move over `interval`, of 'volatility'",
    )
    vol: VolNumber | None = Field(
        default=None, description="of 'volatility'; absent: weighted from the prints themselves"
    )
    interval: Interval | None = Field(default=None, description="of 'volatility'; one minute when absent")
    halflife: Interval | None = Field(default=None, description="of the prints' weights; 30 minutes when absent")

    @field_validator("half", "ticks", "bp", "k")
    @classmethod
    def _fits_kind(cls, value: Any, info: ValidationInfo) -> Any:
        needs = {"half": "fixed", "ticks": "ticks", "bp": "basis_points", "k": "volatility"}[str(info.field_name)]
        return only_with(value, info, "kind", (needs,), required=True)

    @field_validator("vol", "interval", "halflife")
    @classmethod
    def _fits_volatility(cls, value: Any, info: ValidationInfo) -> Any:
        return only_with(value, info, "kind", ("volatility",))

    def settings(self) -> dict[str, Any]:
        """The specification as `bot.domain.costs` reads it."""
        return bare(self)


class Hedge(Section):
    """One underlying's hedge instrument and target."""

    underlying: InstrumentText = Field(description="whose delta is hedged")
    instrument: InstrumentText = Field(description="what it is hedged with: the stock, a future, a perpetual, a proxy")
    target_delta: Range = Field(
        default=(0.0, 0.0), description="net delta to hold, in units of the underlying: a number or [lo, hi]"
    )
    beta: Annotated[Number, Field(ge=-100, le=100)] | None = Field(
        default=None, description="return of the instrument per return of the underlying; absent: one for one in price"
    )
    multiplier: Positive | None = Field(
        default=None, description="units per contract, where the known one is not meant"
    )
    tick: Positive | None = Field(default=None, description="smallest price step, where the known one is not meant")
    lot: Positive | None = Field(default=None, description="smallest quantity, where the known one is not meant")
    calendar: Literal["XNYS", "XCBO", "CME-EQUITY", "CME-GLOBEX", "24/7"] | None = Field(
        default=None, description="when it trades, where the known hours are not meant: daily closes need '24/7'"
    )
    rounding: Literal["nearest", "toward_zero"] = Field(default="nearest", description="of a target to whole lots")
    spread: Spread | None = Field(default=None, description="the touch of this instrument; [broker] spread when absent")
    cost: Share | None = Field(
        default=None,
        description="one-way cost as a fraction of notional, for policies that weigh it; absent: half the spread and the "
        "proportional fees of [broker]",
    )

    @field_validator("beta")
    @classmethod
    def _not_zero(cls, beta: float | None) -> float | None:
        if beta == 0.0:
            raise ValueError("expected a number that is not zero, found 0")
        return beta
