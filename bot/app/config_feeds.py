"""A feed table says where market data comes from; law: times, files and models are all named, nothing is guessed."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from bot.app.config_parts import (
    DATA_ROOT,
    PLUGIN_KIND,
    TAG,
    Currency,
    Day,
    FaultsError,
    FilePath,
    FolderPath,
    Instant,
    InstrumentText,
    Interval,
    Kinded,
    Money,
    Name,
    Number,
    Options,
    Pace,
    Plugin,
    Positive,
    RateNumber,
    Section,
    Seed,
    TimeOfDay,
    VolNumber,
    Whole,
    ZoneName,
    as_signed_span,
    bound_steps,
    is_there,
    kinds,
    once,
    only_with,
    reading_of,
    resolve_path,
    signed_span,
    text_schema,
)
from bot.domain.units import Nanos, iso, parse_span


class _Feed(Kinded):
    name: Name | None = Field(default=None, description="how records call this feed; its kind when absent")
    pace: Pace = Field(default=None, description="'max', or recorded time per wall-clock time such as '1x' or '60x'")

    def settings(self) -> dict[str, Any]:
        """What the feed's factory is given; the pace is the loop's and stays here."""
        found = super().settings()
        found.pop("pace", None)
        found["name"] = self.name or self.kind
        return found


Resolution: TypeAlias = Literal["tick", "second", "minute", "hour", "daily"]
PriceSource: TypeAlias = Literal["quotes", "trades", "parity_forward"]


class ReplayFeed(_Feed):
    """Recorded days and files."""

    kind: Literal["replay"]
    format: Literal["lean", "csv", "parquet", "spx_chain", "binance"] = Field(description="how the files are written")
    root: FolderPath | None = Field(
        default=None,
        validate_default=True,
        description=f"folder of the recorded data; for format 'lean' the variable {DATA_ROOT} when absent",
    )
    files: tuple[str, ...] = Field(
        default=(),
        validate_default=True,
        max_length=10_000,
        description="the files of all formats but lean, under root; * and ? match",
    )
    resolution: Resolution = Field(default="minute", description="of lean files")
    resolutions: dict[str, Resolution] = Field(
        default={}, description="another resolution for one instrument id or one lean folder (equity, option, ...)"
    )
    repeated: Literal["error", "last", "keep"] = Field(
        default="error", description="two rows of one instrument at one time, or a day given twice"
    )
    unsorted: Literal["error", "sort"] = Field(default="error", description="what to do when time runs backwards")
    dates: tuple[Day, ...] = Field(
        default=(), validate_default=True, max_length=20_000, description="the recorded days to play, in order"
    )
    missing_days: Literal["error", "skip"] = Field(default="error", description="a day whose files are not there")
    closed_days: Literal["skip", "play", "error"] = Field(
        default="skip", description="a day on which the market was closed: left out and flagged, played, or refused"
    )
    underlying: PriceSource = Field(
        default="quotes", description="where an underlying's price may come from; without that source the feed refuses"
    )
    sources: dict[InstrumentText, PriceSource] = Field(default={}, description="the same for single underlyings, by id")
    only: tuple[InstrumentText, ...] = Field(
        default=(), max_length=100_000, description="ids this feed plays, when another feed plays the rest"
    )
    rate: RateNumber | None = Field(default=None, description="rate of a parity forward; [pricing] rate when absent")
    max_refused: Annotated[Whole, Field(ge=0, le=10**12)] | None = Field(
        default=None, description="more refused rows than this end the run; absent: all are counted and survived"
    )
    columns: dict[str, str] = Field(default={}, description="our column name = the file's, for csv and parquet")
    clock: Literal["capture", "exchange"] = Field(default="capture", description="whose clock a raw capture is told by")
    clock_offset: Annotated[Nanos, BeforeValidator(signed_span), as_signed_span, text_schema("1269ms")] = Field(
        default=0, description="added to the capture's clock; a minus sign in front takes away"
    )
    book: Literal["both", "ticker", "depth"] = Field(
        default="both", description="top of book of a raw capture: from its ticker stream, its depth, or the newer"
    )
    batch_rows: Whole = Field(
        default=4096, ge=1, le=1_000_000, description="rows handed over at once; changes no result"
    )

    @field_validator("root", mode="before")
    @classmethod
    def _found_root(cls, value: Any, info: ValidationInfo) -> Any:
        reading = reading_of(info)
        if value is None and info.data.get("format") == "lean":
            value = reading.env.get(DATA_ROOT) or None
            if value is None and reading.files:
                raise ValueError(
                    f"expected a folder of recorded days, found none: set the environment variable {DATA_ROOT} "
                    "to a copy of LEAN's Data folder, or give root here"
                )
            value = None if value is None else Path(value).expanduser().absolute()
        if value is None:
            return None
        path = resolve_path(value, reading.folder)
        if reading.files and not path.is_dir():
            raise ValueError(f"expected a folder, found {'a file' if path.is_file() else 'nothing'} at {path}")
        return path

    @field_validator("files")
    @classmethod
    def _found_files(cls, files: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        reading, kind = reading_of(info), info.data.get("format")
        if kind not in {"lean", None} and not files:
            raise ValueError(f"expected at least one file for format {kind!r}, found none")
        if kind == "lean" and files:
            raise ValueError("expected no files: format 'lean' finds its own from dates and instruments")
        folder = info.data.get("root") or reading.folder
        paths = [resolve_path(name, folder) for name in files]
        if reading.files:
            missing = [((i,), f"expected a file, found nothing at {p}") for i, p in enumerate(paths) if not is_there(p)]
            if missing:
                raise FaultsError(*missing)
        return tuple(str(path) for path in paths)

    @field_validator("dates")
    @classmethod
    def _named_dates(cls, dates: tuple[date, ...], info: ValidationInfo) -> tuple[date, ...]:
        if info.data.get("format") == "lean" and not dates:
            raise ValueError("expected at least one recorded day for format 'lean', found none")
        return once(dates, "date") if info.data.get("repeated") == "error" else dates


class HestonParams(Section):
    """Variance that reverts to a mean: Heston (1993), equation 1."""

    mean_reversion: Number = Field(default=4.0, gt=0, le=1000, description="kappa, per year")
    long_variance: Number = Field(default=0.04, gt=0, le=100, description="theta")
    vol_of_variance: Number = Field(default=0.5, ge=0, le=100, description="xi")
    correlation: Number = Field(default=-0.7, ge=-1, le=1, description="rho, of price and variance")


class MertonParams(Section):
    """Log-normal jumps on top of a diffusion: Merton (1976)."""

    intensity: Number = Field(default=10.0, ge=0, le=100_000, description="jumps per year")
    jump_mean: Number = Field(default=-0.02, ge=-5, le=5, description="mean of a jump's log size")
    jump_vol: Number = Field(default=0.03, ge=0, le=5, description="standard deviation of a jump's log size")


class Smile(Section):
    """Implied vol by log-moneyness k = ln(K/F): vol + skew k + curvature k^2."""

    skew: Number = Field(default=0.0, ge=-10, le=10, description="vol per 1.00 of log-moneyness")
    curvature: Number = Field(default=0.0, ge=0, le=100, description="vol per 1.00 of log-moneyness squared")


class Chain(Section):
    """The listed options the synthetic session quotes."""

    root: Annotated[str, Field(pattern=r"^[A-Z0-9.]{1,6}$")] = Field(description="OCC root of the option ids")
    expiries: tuple[Day, ...] = Field(min_length=1, max_length=200, description="listed expiration dates")
    strikes: tuple[Positive, ...] = Field(default=(), max_length=2000, description="listed strikes")
    moneyness: tuple[Annotated[Number, Field(gt=0, le=100)], ...] = Field(
        default=(),
        validate_default=True,
        max_length=2000,
        description="instead of strikes: 1.05 is 5% above the first spot",
    )
    strike_step: Positive = Field(default=Decimal(1), description="strikes made from moneyness are rounded to this")
    multiplier: Positive = Field(default=Decimal(100), description="shares per contract")
    tick: Positive = Field(default=Decimal("0.01"), description="smallest price step of the options")
    half_spread: Number = Field(default=2.0, ge=0, le=10_000, description="at the money, in ticks of the options")
    wing_spread: Number = Field(
        default=4.0, ge=0, le=10_000, description="added per 1.00 of |ln(K/F)|/(vol sqrt(tau)), ticks"
    )
    vega_spread: Number = Field(default=0.001, ge=0, le=10, description="added to the half spread, per 1.00 of vega")
    size: Number = Field(default=50.0, gt=0, le=1e12, description="contracts displayed a side")
    every: Whole = Field(default=1, ge=1, le=1_000_000, description="options are quoted each so many steps")
    close: TimeOfDay = Field(default="16:00", description="time of day at which an expiring option ends, in `zone`")
    zone: ZoneName = Field(default="America/New_York", description="time zone of `close`")
    style: Literal["european", "american"] = Field(default="european", description="when it may be exercised")
    settlement: Literal["cash", "physical"] = Field(default="physical", description="what exercise delivers")

    @field_validator("expiries")
    @classmethod
    def _expiries_once(cls, expiries: tuple[date, ...]) -> tuple[date, ...]:
        return once(expiries, "expiry")

    @field_validator("strikes")
    @classmethod
    def _strikes_once(cls, strikes: tuple[Decimal, ...]) -> tuple[Decimal, ...]:
        return once(strikes, "strike")

    @field_validator("moneyness")
    @classmethod
    def _one_of_two(cls, moneyness: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if "strikes" in info.data and bool(info.data["strikes"]) == bool(moneyness):
            raise ValueError(f"expected strikes or moneyness, found {'both' if moneyness else 'neither'}")
        return moneyness


class SyntheticFeed(_Feed):
    """A seeded session of an underlying, with a whole option chain when one is named."""

    kind: Literal["synthetic"]
    underlying: InstrumentText = Field(default="SIM:XYZ", description="id of the underlying")
    seed: Seed = Field(default=1, description="the same seed gives the same session")
    model: Literal["gbm", "heston", "merton"] = Field(default="gbm", description="how the price moves")
    start: Instant | None = Field(default=None, description="session.start when absent")
    end: Instant | None = Field(default=None, description="session.end when absent")
    step: Interval = Field(default=parse_span("1s"), description="time between two quotes of the underlying")
    spot: Number = Field(default=100.0, gt=0, le=1e9, description="first price")
    drift: Number = Field(default=0.0, ge=-100, le=100, description="of the log price's mean, per year")
    vol: VolNumber = Field(default=0.2, description="per square root of a year; also the level of the smile")
    rate: RateNumber = Field(default=0.0, description="continuous, per year, in the options' prices")
    dividend: RateNumber = Field(default=0.0, description="continuous yield, per year, in the options' prices")
    tick: Positive = Field(default=Decimal("0.01"), description="smallest price step of the underlying")
    half_spread: Number = Field(default=1.0, ge=0, le=10_000, description="of the underlying, in ticks")
    currency: Currency = Field(default="USD", description="of all its prices")
    size: Number = Field(default=1000.0, gt=0, le=1e12, description="displayed a side, of the underlying")
    hours: Annotated[tuple[TimeOfDay, ...], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="['09:30', '16:00'] cuts each weekday to its session, in `zone`; absent: no breaks"
    )
    zone: ZoneName = Field(default="America/New_York", description="time zone of `hours`")
    smile: Smile | None = Field(default=None, description="shape of implied vol")
    heston: HestonParams | None = Field(default=None, description="parameters of model 'heston'")
    merton: MertonParams | None = Field(default=None, description="parameters of model 'merton'")
    chain: Chain | None = Field(default=None, description="the options quoted; absent: the underlying alone")
    batch_rows: Whole = Field(
        default=4096, ge=1, le=1_000_000, description="rows handed over at once; changes no result"
    )

    @field_validator("end")
    @classmethod
    def _ends_after_start(cls, end: Nanos | None, info: ValidationInfo) -> Nanos | None:
        start = info.data.get("start")
        if end is not None and start is not None and end <= start:
            raise ValueError(f"expected an instant after start {iso(start)}, found {iso(end)}")
        return end

    @field_validator("step")
    @classmethod
    def _bounded_length(cls, step: Nanos, info: ValidationInfo) -> Nanos:
        start, end = info.data.get("start"), info.data.get("end")
        if start is not None and end is not None:
            bound_steps(end - start, step)
        return step

    @field_validator("heston", "merton")
    @classmethod
    def _fits_model(cls, value: Any, info: ValidationInfo) -> Any:
        return only_with(value, info, "model", (str(info.field_name),))


class RollingTable(Section):
    """Monthly options listed as time goes on, each at a close with strikes made from that close."""

    root: Annotated[str, Field(pattern=r"^[A-Z0-9.]{1,6}$")] = Field(default="SPX", description="OCC root of the ids")
    moneyness: tuple[Annotated[Number, Field(gt=0, le=100)], ...] = Field(
        default=(0.80, 0.85, 0.90, 0.95, 1.00),
        min_length=1,
        max_length=200,
        description="strikes / close at the listing",
    )
    listed: Interval = Field(default=parse_span("100d"), description="an expiry is listed so long before it")
    relist: Annotated[Number, Field(gt=0, le=100)] = Field(
        default=0.10, description="new strikes of a listed expiry once the close has moved by more than this share"
    )
    cp: Literal["put", "call", "both"] = Field(default="put", description="calls, puts or both")
    strike_step: Positive = Field(default=Decimal(1), description="strikes are rounded to this")
    multiplier: Positive = Field(default=Decimal(100), description="units per contract")
    lot: Positive = Field(default=Decimal(1), description="smallest quantity of contracts")


class DatasetFeed(_Feed):
    """A real series that ships inside an installed package."""

    kind: Literal["dataset"]
    dataset: Literal["sp500", "nasdaq"] = Field(
        default="sp500", description="daily closes 1999-2018, of the package arch"
    )
    instrument: InstrumentText = Field(default="INDEX:SPX", description="id its closes are prints of")
    file: FilePath | None = Field(
        default=None, description="a CSV of your own with columns Date and Close instead, gzipped or plain"
    )
    start: Day | None = Field(default=None, description="first day; the session's when absent")
    end: Day | None = Field(default=None, description="last day; the session's when absent")
    chain_vol: VolNumber | Literal["realised", "index"] | None = Field(
        default=None, description="quote the wanted options at model prices of this vol; absent: no option quotes"
    )
    vol_file: FilePath | None = Field(
        default=None,
        description="of chain_vol = 'index': CSV of a volatility index in per cent with Date and Close; arch's VIX when absent",
    )
    vol_add: Annotated[Number, Field(ge=-1, le=1)] = Field(
        default=0.0, description="added to the realised vol, where that is used"
    )
    skew: Annotated[Number, Field(ge=-10, le=10)] = Field(
        default=0.0, description="assumed: vol(K) = level (1 + skew z + curvature z^2), z = ln(K/F) / (level sqrt(tau))"
    )
    curvature: Annotated[Number, Field(ge=-10, le=10)] = Field(default=0.0, description="assumed, see skew")
    chain: RollingTable | None = Field(default=None, description="a chain that rolls, quoted at chain_vol")
    window: Whole = Field(default=21, ge=2, le=10_000, description="days of the realised vol")
    option_tick: Positive = Field(default=Decimal("0.05"), description="smallest price step of those option quotes")
    option_half_spread: Number = Field(default=2.0, ge=0, le=10_000, description="of those option quotes, in ticks")
    option_spread_share: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="half spread as a share of the option's price, where that is more than the ticks"
    )
    max_refused: Annotated[Whole, Field(ge=0, le=10**12)] | None = Field(
        default=None, description="more refused rows than this end the run; absent: all are counted and survived"
    )
    batch_rows: Whole = Field(
        default=4096, ge=1, le=1_000_000, description="rows handed over at once; changes no result"
    )

    @field_validator("end")
    @classmethod
    def _ends_after_start(cls, end: date | None, info: ValidationInfo) -> date | None:
        start = info.data.get("start")
        if end is not None and start is not None and end < start:
            raise ValueError(f"expected a day from start {start} on, found {end}")
        return end


VolsById: TypeAlias = dict[InstrumentText, VolNumber]
Matrix: TypeAlias = tuple[tuple[Annotated[Number, Field(ge=-1, le=1)], ...], ...]
TickNumber: TypeAlias = Annotated[Number, Field(ge=0, le=10_000)]
SizeNumber: TypeAlias = Annotated[Number, Field(gt=0, le=1e12)]


class ScenarioUnderlying(Section):
    """A share of a scenario."""

    id: InstrumentText = Field(description="VENUE:SYMBOL")
    spot: Annotated[Number, Field(gt=0, le=1e9)] = Field(description="first price")
    vol: VolNumber = Field(default=0.2, description="of its diffusion, per square root of a year")
    drift: Annotated[Number, Field(ge=-100, le=100)] = Field(default=0.0, description="of the mean, per year")
    intensity: Annotated[Number, Field(ge=0, le=100_000)] = Field(default=0.0, description="jumps a year")
    jump_mean: Annotated[Number, Field(ge=-5, le=5)] = Field(default=0.0, description="mean of a jump's log size")
    jump_vol: Annotated[Number, Field(ge=0, le=5)] = Field(default=0.0, description="deviation of a jump's log size")
    currency: Currency = Field(default="USD", description="of its price")
    tick: Positive = Field(default=Decimal("0.01"), description="smallest price step")
    half_spread: TickNumber = Field(default=1.0, description="in ticks")
    size: SizeNumber = Field(default=1000.0, description="displayed a side")
    option_vol: VolNumber | None = Field(default=None, description="quotes the run's options on it at this vol")
    option_tick: Positive = Field(default=Decimal("0.01"), description="smallest price step of those options")
    option_half_spread: TickNumber = Field(default=2.0, description="of those options, in their ticks")
    option_size: SizeNumber = Field(default=50.0, description="contracts displayed a side")
    option_every: Whole = Field(default=1, ge=1, le=1_000_000, description="options are quoted each so many steps")


class ScenarioRegime(Section):
    """Another market from an instant on."""

    at: Instant = Field(description="from here on")
    vols: VolsById = Field(default={}, description="vols that change, by id")
    drifts: dict[InstrumentText, Annotated[Number, Field(ge=-100, le=100)]] = Field(
        default={}, description="drifts that change, by id"
    )
    correlation: Matrix = Field(default=(), description="another matrix, in order of underlyings")


class ScenarioShock(Section):
    """A gap in prices."""

    at: Instant = Field(description="the first step from here gaps")
    moves: dict[InstrumentText, Annotated[Number, Field(gt=-1, le=100)]] = Field(
        description="by id, as a fraction of the price: -0.15 is a fall of 15 %"
    )


class ScenarioCrowd(Section):
    """Hedgers of one option position whose trades push the price."""

    underlying: InstrumentText = Field(description="what they hedge with")
    quantity: Annotated[Number, Field(ge=-1e12, le=1e12)] = Field(description="options in shares; negative: written")
    strike: Annotated[Number, Field(gt=0, le=1e9)] = Field(description="of the options")
    expiry: Instant = Field(description="of the options")
    vol: VolNumber = Field(description="they hedge at")
    coefficient: Annotated[Number, Field(ge=0, le=1000)] = Field(description="fraction of the price moved at one adv")
    adv: SizeNumber = Field(description="shares a day")
    cp: Literal[1, -1] = Field(default=1, description="1 calls, -1 puts")


class ScenarioBond(Section):
    """Quotes of a convertible round its model."""

    instrument: InstrumentText = Field(description="id of one of [[convertibles]]")
    half_spread: Annotated[Number, Field(ge=0, le=100)] = Field(default=0.25, description="per cent of face")
    richness: Annotated[Number, Field(ge=-100, le=100)] = Field(
        default=0.0, description="what the market pays above the model, per cent of face"
    )
    wander: Annotated[Number, Field(ge=0, le=100)] = Field(default=0.0, description="deviation of what it pays")
    reversion: Annotated[Number, Field(ge=0, le=1e6)] = Field(default=12.0, description="of what it pays, per year")
    every: Whole = Field(default=1, ge=1, le=1_000_000, description="quoted each so many steps")
    size: SizeNumber = Field(default=500.0, description="bonds displayed a side")
    tick: Positive = Field(default=Decimal("0.01"), description="smallest price step")


class ScenarioAmendment(Section):
    """Another offer."""

    at: Instant = Field(description="announced at")
    cash: Annotated[Number, Field(ge=0, le=1e9)] | None = Field(default=None, description="a share, if it changes")
    ratio: Annotated[Number, Field(ge=0, le=1e6)] | None = Field(
        default=None, description="shares a share, if it changes"
    )
    expected_close: Instant | None = Field(default=None, description="if it changes")


class ScenarioCollar(Section):
    """A collar of a scripted deal."""

    kind: Literal["fixed_value", "fixed_ratio"] = Field(description="what is fixed between low and high")
    low: Annotated[Number, Field(gt=0)] = Field(description="the acquirer's price")
    high: Annotated[Number, Field(gt=0)] = Field(description="the acquirer's price")
    value: Annotated[Number, Field(gt=0)] | None = Field(default=None, description="of 'fixed_value'")
    ratio: Annotated[Number, Field(gt=0)] | None = Field(default=None, description="of 'fixed_ratio'")


class ScenarioDeal(Section):
    """A target whose price follows the odds of its deal, and what becomes of it."""

    target: InstrumentText = Field(description="VENUE:SYMBOL")
    acquirer: InstrumentText | None = Field(default=None, description="one of the underlyings")
    cash: Annotated[Number, Field(ge=0, le=1e9)] = Field(default=0.0, description="per share")
    ratio: Annotated[Number, Field(ge=0, le=1e6)] = Field(default=0.0, description="the acquirer's shares per share")
    collar: ScenarioCollar | None = Field(default=None, description="shares that depend on the acquirer's price")
    break_price: Annotated[Number, Field(gt=0, le=1e9)] = Field(description="without the deal, at the first instant")
    beta: Annotated[Number, Field(ge=-100, le=100)] = Field(
        default=0.0, description="of the break price to the acquirer"
    )
    expected_close: Instant = Field(description="discounts the offer")
    outcome: Literal["close", "break", "open"] = Field(default="close", description="what becomes of it")
    at: Instant | None = Field(default=None, description="when")
    acquirer_vol: VolNumber = Field(default=0.3, description="for collars")
    dividend: RateNumber = Field(default=0.0, description="yield of the acquirer")
    probability: Annotated[Number, Field(gt=0, lt=1)] = Field(default=0.8, description="of a close, at first")
    probability_end: Annotated[Number, Field(gt=0, lt=1)] | None = Field(default=None, description="at the outcome")
    wander: Annotated[Number, Field(ge=0, le=100)] = Field(
        default=1.0, description="of the log odds, per square root of a year"
    )
    reversion: Annotated[Number, Field(ge=0, le=1e6)] = Field(default=12.0, description="of the log odds, per year")
    vol: VolNumber = Field(default=0.3, description="of the target by itself after a break")
    amendments: tuple[ScenarioAmendment, ...] = Field(default=(), max_length=100, description="other offers, in order")
    currency: Currency = Field(default="USD", description="of its price")
    tick: Positive = Field(default=Decimal("0.01"), description="smallest price step")
    half_spread: TickNumber = Field(default=2.0, description="in ticks")
    size: SizeNumber = Field(default=1000.0, description="displayed a side")


class ScenarioOutage(Section):
    """Quotes that fail."""

    instrument: InstrumentText = Field(description="of what")
    start: Instant = Field(description="from")
    end: Instant = Field(description="until, exclusive")
    what: Literal["missing", "no_bid", "no_ask", "withdrawn"] = Field(default="missing", description="how they fail")


class ScenarioNotice(Section):
    """An announcement."""

    at: Instant = Field(description="when")
    namespace: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="convertible/1, deal/1 or another's"
    )
    payload: Options = Field(default={}, description="its words; instants are written in nanoseconds or as text")


class ScenarioCorporate(Section):
    """A corporate event."""

    at: Instant = Field(description="when")
    what: Literal["dividend", "coupon", "merger", "conversion", "redemption"] = Field(description="which")
    instrument: InstrumentText = Field(description="of what")
    cash: Money = Field(default=Decimal(0), description="per unit; of a bond in per cent of face")
    into: InstrumentText | None = Field(default=None, description="what a unit becomes")
    shares: Money = Field(default=Decimal(0), description="how many of it")
    text: Annotated[str, Field(max_length=500)] = Field(default="", description="said with it")


class ScenarioFeed(_Feed):
    """A seeded script of several prices, convertibles, deals and announcements."""

    kind: Literal["scenario"]
    seed: Seed = Field(default=1, description="the same seed gives the same session")
    start: Instant | None = Field(default=None, description="session.start when absent")
    end: Instant | None = Field(default=None, description="session.end when absent")
    step: Interval = Field(default=parse_span("1m"), description="time between two quotes of the shares")
    rate: RateNumber | None = Field(default=None, description="continuous, per year; [pricing] rate when absent")
    underlyings: tuple[ScenarioUnderlying, ...] = Field(min_length=1, max_length=100, description="the shares")
    correlation: Matrix = Field(default=(), description="of the shares in their order; absent: none")
    regimes: tuple[ScenarioRegime, ...] = Field(
        default=(), max_length=1000, description="changes of vol and correlation"
    )
    shocks: tuple[ScenarioShock, ...] = Field(default=(), max_length=1000, description="gaps")
    crowds: tuple[ScenarioCrowd, ...] = Field(default=(), max_length=10, description="hedgers that push prices")
    bonds: tuple[ScenarioBond, ...] = Field(default=(), max_length=100, description="convertibles to quote")
    deals: tuple[ScenarioDeal, ...] = Field(default=(), max_length=100, description="targets to quote")
    outages: tuple[ScenarioOutage, ...] = Field(default=(), max_length=1000, description="quotes that fail")
    notices: tuple[ScenarioNotice, ...] = Field(default=(), max_length=1000, description="announcements")
    corporates: tuple[ScenarioCorporate, ...] = Field(default=(), max_length=1000, description="corporate events")
    hours: Annotated[tuple[TimeOfDay, ...], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="['09:30', '16:00'] cuts each weekday to its session, in `zone`; absent: no breaks"
    )
    zone: ZoneName = Field(default="America/New_York", description="time zone of `hours`")
    batch_rows: Whole = Field(
        default=4096, ge=1, le=1_000_000, description="rows handed over at once; changes no result"
    )


class PluginFeed(Plugin):
    """A feed that a plug-in brings."""

    name: Name | None = Field(default=None, description="how records call this feed; its kind when absent")
    pace: Pace = Field(default=None, description="'max', or recorded time per wall-clock time such as '1x' or '60x'")


FeedConfig: TypeAlias = Annotated[
    Annotated[ReplayFeed, Tag(TAG + "replay")]
    | Annotated[SyntheticFeed, Tag(TAG + "synthetic")]
    | Annotated[DatasetFeed, Tag(TAG + "dataset")]
    | Annotated[ScenarioFeed, Tag(TAG + "scenario")]
    | Annotated[PluginFeed, Tag(TAG + PLUGIN_KIND)],
    Discriminator(kinds("replay", "synthetic", "dataset", "scenario")),
]
