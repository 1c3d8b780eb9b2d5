"""A strategy table says who decides over which book; law: every key belongs to the kind the table names."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bot.app.config_parts import (
    PLUGIN_KIND,
    TAG,
    Amount,
    Currency,
    Flag,
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
    Share,
    VolNumber,
    Whole,
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
        return tuple(_named(self, self.instrument_keys))


def _named(table: BaseModel, keys: tuple[str, ...]) -> Iterator[str]:
    """What these keys of a table and of the tables below it hold, as written."""
    for key in type(table).model_fields:
        value = getattr(table, key)
        several = value if isinstance(value, tuple | list) else (value,)
        yield from (item for item in several if key in keys and isinstance(item, str))
        for item in several:
            if isinstance(item, BaseModel):
                yield from _named(item, keys)


class PauseTable(Section):
    """What a hedger does before and after a stretch in which its hedge cannot be traded."""

    plan: Literal["hold", "shrink", "flatten"] = Field(
        default="hold", description="from `lead` before it: the rule as ever, its band cut, or the hedge taken off"
    )
    lead: Interval = Field(default=parse_span("15m"), description="how long before it the plan begins")
    width: Share = Field(default=0.0, description="of the rule's band that shrink leaves; 0: the exact hedge")
    settle: Interval | None = Field(default=None, description="wait after the first price afterwards; absent: none")
    after: Literal["policy", "exact"] = Field(
        default="policy", description="then the rule as ever, or the exact hedge once"
    )


class DeltaHedgerConfig(StrategyTable):
    """Holds the book's delta at its target."""

    holds_book: ClassVar[bool] = True

    kind: Literal["delta_hedger"]
    name: Name = Field(default="delta_hedger", description="how records call this strategy")
    underlyings: tuple[InstrumentText, ...] = Field(
        default=(), max_length=1000, description="all of the book when empty"
    )
    policy: PolicyConfig = Field(description="when and how much it trades")
    overnight: PauseTable | None = Field(
        default=None, description="nights, weekends and holidays of the hedge's calendar; absent: no plan"
    )
    halt: PauseTable | None = Field(
        default=None, description="halts of the calendar, and those the venue tells of; absent: no plan"
    )


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


class OptionTable(StrategyTable):
    """What every strategy's table has that trades listed options on one underlying."""

    instrument_keys: ClassVar[tuple[str, ...]] = ("underlying",)
    picks_options: ClassVar[bool] = True

    underlying: InstrumentText = Field(description="whose listed options it trades")
    orders: Literal["cross", "limit"] = Field(
        default="cross", description="cross: market orders at the touch; limit: at a price inside the spread"
    )
    aggression: Annotated[Number, Field(ge=-1, le=1)] = Field(
        default=0.0, description="where a limit stands: 0 the middle, 1 the other side's touch, -1 our own side's"
    )
    stale_after: Interval | None = Field(default=None, description="a quote older than this is not traded on")
    max_spread: Annotated[Number, Field(gt=0, le=2)] | None = Field(
        default=None, description="a quote wider than this share of its middle is not traded on"
    )
    of_display: Annotated[Number, Field(gt=0, le=100)] | None = Field(
        default=None, description="the largest order, as a share of the displayed size; absent: any"
    )
    max_contracts: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=1000, description="the most it holds of one contract"
    )
    at_end: Literal["close", "hold"] = Field(
        default="close", description="whether what it traded is closed when the session ends"
    )


class ForecastTable(Section):
    """A vol forecast of the strategy's own, from bars of the underlying's price that it sees as it goes."""

    kind: Literal["always", "fixed", "ewma", "window", "garch"] = Field(
        description="always: no forecast; fixed: vol; ewma: exponentially weighted; window: mean of squares; garch: GARCH(1,1)"
    )
    vol: VolNumber | None = Field(default=None, description="of kind fixed, per square root of a year")
    decay: Annotated[Number, Field(gt=0, lt=1)] = Field(default=0.94, description="of kind ewma, a bar")
    start_vol: VolNumber | None = Field(default=None, description="of kind ewma, before the first bar")
    bars: Annotated[Whole, Field(ge=1, le=5000)] = Field(default=78, description="of kind window and garch")
    interval: Interval = Field(default=parse_span("5m"), description="a bar's length")
    periods_per_year: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="bars that count in a year; absent: those of the underlying's sessions"
    )


class GammaScalperConfig(OptionTable):
    """Holds straddles or strangles while a forecast says that their vol will be realised; a delta_hedger hedges them."""

    kind: Literal["gamma_scalper"]
    name: Name = Field(default="gamma_scalper", description="how records call this strategy")
    side: Literal["long", "short"] = Field(default="long", description="short writes the structure: the mirror")
    structure: Literal["straddle", "strangle"] = Field(default="straddle", description="one strike, or two")
    moneyness: Annotated[Number, Field(gt=0.1, le=10)] = Field(
        default=1.0, description="the wanted strike over spot (of a strangle, the middle of its strikes)"
    )
    width: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        default=None, description="of a strangle: its strikes are this share away from the middle"
    )
    delta: Annotated[Number, Field(gt=0, lt=0.5)] | None = Field(
        default=None, description="of a strangle, instead: the absolute delta of its legs"
    )
    tolerance: Annotated[Number, Field(ge=0, le=1)] = Field(
        default=0.02, description="how far, as a share, a listed strike may be from the wanted one"
    )
    days: Annotated[Number, Field(gt=0, le=3660)] = Field(default=30.0, description="wanted days to expiry")
    min_days: Annotated[Number, Field(gt=0, le=3660)] | None = Field(default=None, description="absent: half of days")
    max_days: Annotated[Number, Field(gt=0, le=3660)] | None = Field(default=None, description="absent: twice days")
    budget: Literal["contracts", "vega", "gamma", "premium"] = Field(
        default="contracts",
        description="what amount is of: whole structures; vega in currency per 1.00 of vol; gamma in units of the "
        "underlying per currency; premium in currency",
    )
    amount: Annotated[Number, Field(gt=0, le=1e12)] = Field(default=1.0, description="how much of the budget's kind")
    margin: Annotated[Number, Field(ge=-5, le=5)] = Field(
        default=0.0, description="enter when the forecast is this much better than the implied vol (0.01: a point)"
    )
    exit_margin: Annotated[Number, Field(ge=-5, le=5)] | None = Field(
        default=None, description="leave when it is less than this much better; absent: never for its sake"
    )
    exit_days: Annotated[Number, Field(ge=0, le=3660)] = Field(default=0.0, description="leave this near to expiry")
    roll_days: Annotated[Number, Field(gt=0, le=3660)] | None = Field(
        default=None, description="roll into the structure of the day this near to expiry"
    )
    roll_moneyness: Annotated[Number, Field(gt=0, le=10)] | None = Field(
        default=None, description="roll when spot is this share away from the middle of the strikes"
    )
    stop_loss: Annotated[Number, Field(gt=0, le=1e15)] | None = Field(
        default=None, description="leave when the account has lost this much since the entry, in its base currency"
    )
    take_profit: Annotated[Number, Field(gt=0, le=1e15)] | None = Field(
        default=None, description="leave when it has gained this much"
    )
    rest: Interval = Field(
        default=parse_span("1d"), description="how long it waits after a stop, profit or forecast exit"
    )
    look: Interval = Field(default=parse_span("1m"), description="how often it looks")
    patience: Interval = Field(
        default=parse_span("5m"), description="after which an unfilled or refused order is asked for anew"
    )
    forecast: ForecastTable = Field(
        default=ForecastTable(kind="always"), description="what implied vol is held against"
    )


class VegaHedgerConfig(OptionTable):
    """Keeps vega by tenor, and gamma, inside limits with other listed options; a delta_hedger hedges their delta."""

    kind: Literal["vega_hedger"]
    name: Name = Field(default="vega_hedger", description="how records call this strategy")
    tenors: tuple[Annotated[Number, Field(gt=0, le=36_600)], ...] = Field(
        default=(30.0, 90.0), min_length=1, max_length=12, description="the buckets, in days to expiry, rising"
    )
    vega_limit: tuple[Annotated[Number, Field(gt=0, le=1e15)], ...] = Field(
        min_length=1,
        max_length=12,
        description="for each bucket or for all: currency per 1.00 of vol, either side of 0",
    )
    gamma_limit: Annotated[Number, Field(gt=0, le=1e15)] | None = Field(
        default=None, description="units of the underlying per currency, either side of 0; absent: none"
    )
    aim: Share = Field(
        default=0.0, description="how far inside a limit a hedge brings it, as a share of it; at least one lot is left"
    )
    risk_aversion: Annotated[Number, Field(gt=0, le=1e6)] = Field(
        default=1e-6, description="1/currency: what the risk left weighs beside the cost; small: the cheapest lots"
    )
    horizon: Interval = Field(default=parse_span("1d"), description="of the risk that is left")
    vol_of_vol: Annotated[Number, Field(gt=0, le=10)] = Field(
        default=0.20, description="absolute vol of vol per square root of a year, at vol_of_vol_days"
    )
    vol_of_vol_days: Annotated[Number, Field(gt=0, le=36_600)] = Field(default=30.0, description="its tenor")
    vol_of_vol_exponent: Annotated[Number, Field(ge=0, le=2)] = Field(
        default=0.5, description="it falls with the tenor to this power"
    )
    vol_decay: Annotated[Number, Field(ge=0, le=100)] = Field(
        default=0.3, description="vols at two tenors correlate as exp(-decay |ln(T1/T2)|)"
    )
    min_delta: Share = Field(default=0.10, description="the least absolute delta of an option it hedges with")
    max_delta: Share = Field(default=0.60, description="the largest")
    min_days: Annotated[Number, Field(ge=0, le=36_600)] = Field(default=2.0, description="its least days to expiry")
    max_days: Annotated[Number, Field(gt=0, le=36_600)] = Field(default=3650.0, description="its most")
    min_size: Annotated[Number, Field(ge=0, le=1e9)] = Field(
        default=0.0, description="contracts displayed on each side"
    )
    per_bucket: Annotated[Whole, Field(ge=1, le=50)] = Field(
        default=4, description="how many of each bucket, the cheapest by vega, are weighed"
    )
    fee: Annotated[Number, Field(ge=0, le=1e6)] = Field(default=0.0, description="currency a contract")
    delta_cost: Share | None = Field(
        default=None,
        description="what hedging delta costs, as a share of spot; absent: half the underlying's quoted spread",
    )
    max_nodes: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=300, description="boxes of whole lots looked into before a decision is taken as it stands"
    )
    look: Interval = Field(default=parse_span("15m"), description="how often it looks")
    patience: Interval = Field(
        default=parse_span("15m"), description="after which an unfilled or refused order is asked for anew"
    )


class MonetiseTable(Section):
    """When a tail hedge is sold."""

    at: Literal["multiple", "vol", "drop", "days"] = Field(
        description="its bid over its cost, the underlying's vol near the money, the fall since it was bought, days left"
    )
    level: Annotated[Number, Field(gt=0, le=1_000_000)] = Field(description="what `at` must reach; drop: a share")
    share: Annotated[Number, Field(gt=0, le=1)] = Field(default=1.0, description="of what is left of it, once")


class TailHedgerConfig(StrategyTable):
    """Holds stock and rolls an overlay of options that pay in a crash, bought to a carry budget."""

    instrument_keys: ClassVar[tuple[str, ...]] = ("stock", "underlying")
    picks_options: ClassVar[bool] = True

    kind: Literal["tail_hedger"]
    name: Name = Field(default="tail_hedger", description="how records call this strategy")
    stock: InstrumentText = Field(description="what is held and protected")
    underlying: InstrumentText | None = Field(default=None, description="of the options; the stock when absent")
    method: Literal["put", "put_spread", "call", "de_risk", "hold"] = Field(
        default="put", description="what is bought; de_risk holds less stock instead, hold the stock alone"
    )
    stock_weight: Annotated[Number, Field(ge=0, le=100)] = Field(
        default=1.0, description="stock as a share of the worth, restored at each roll"
    )
    stock_given: Flag = Field(default=False, description="the book brings the stock; none is traded")
    carry_bp: Annotated[Number, Field(ge=0, le=9999)] = Field(
        default=50.0, description="premium a year, in basis points of the worth"
    )
    roll: Interval = Field(
        default=parse_span("30d"), description="time between purchases; expiries overlap in a ladder"
    )
    tenors: tuple[Interval, ...] = Field(
        default=(parse_span("90d"),), min_length=1, max_length=100, description="how far out it buys, the budget split"
    )
    moneyness: Annotated[Number, Field(gt=0, le=100)] = Field(
        default=0.90, description="strike / price at the purchase"
    )
    short_moneyness: Annotated[Number, Field(gt=0, le=100)] = Field(
        default=0.75, description="of the written put of a spread"
    )
    delta: Annotated[Number, Field(gt=-1, lt=1)] | None = Field(
        default=None, description="chosen by this delta instead of moneyness; the sign is ignored"
    )
    monetise: tuple[MonetiseTable, ...] = Field(default=(), max_length=100, description="when what was bought is sold")
    reinvest: Share = Field(default=0.0, description="share of such a sale spent on new strikes at once")
    equity_premium: Annotated[Number, Field(gt=0, le=10)] = Field(
        default=0.04, description="excess return of stock per year that de_risk is assumed to give up"
    )
    rate: RateNumber = Field(default=0.0, description="on cash, continuous per year, of the paths it is scored against")
    every: Interval | None = Field(default=None, description="look at these intervals; absent: at every new price")
    stale_after: Interval | None = Field(default=None, description="a quote older than this is not traded on")
    max_spread: Annotated[Number, Field(gt=0, le=2)] | None = Field(
        default=None, description="a quote wider than this share of its middle is not bought"
    )

    def settings(self) -> dict[str, Any]:
        """The factory's keys: a stock that the book brings has no weight of its own."""
        found = super().settings()
        if found.pop("stock_given"):
            found["stock_weight"] = None
        return found


class BondPosition(Section):
    """One bond of a convertible arbitrage."""

    bond: InstrumentText = Field(description="id of one of [[convertibles]]")
    quantity: Annotated[Number, Field(ge=0, le=1e12)] | None = Field(
        default=None, description="bonds to hold; absent: what the book holds"
    )
    entry: Annotated[Number, Field(ge=-1, le=1)] | None = Field(
        default=None, description="buys once the ask is this share below the model's value; absent: at once"
    )
    exit: Annotated[Number, Field(ge=-1, le=10)] | None = Field(
        default=None, description="sells once the bid is this share above the model's value; absent: never"
    )


class ConvertibleArbitrageConfig(StrategyTable):
    """Long convertibles, short their delta of shares."""

    instrument_keys: ClassVar[tuple[str, ...]] = ("bond", "credit_hedge")

    kind: Literal["convertible_arbitrage"]
    name: Name = Field(default="convertible_arbitrage", description="how records call this strategy")
    positions: tuple[BondPosition, ...] = Field(min_length=1, max_length=1000, description="the bonds")
    half_width: Annotated[Number, Field(ge=0, le=1e12)] = Field(description="shares of net delta let drift either way")
    to: Literal["edge", "centre"] = Field(default="centre", description="where a hedge that left its band goes")
    hedge_ratio: Annotated[Number, Field(ge=0, le=10)] = Field(default=1.0, description="share of the delta hedged")
    calibrate: Literal["none", "vol", "spread"] = Field(
        default="none", description="what of the model is fitted to the bond's quote at each re-mark"
    )
    remark: Interval = Field(default=parse_span("1h"), description="time between re-marks of model and credit")
    max_short: Annotated[Number, Field(ge=0, le=1e12)] | None = Field(
        default=None, description="shares that can be borrowed; absent: any number, until a notice says another"
    )
    max_borrow_rate: RateNumber | None = Field(default=None, description="leaves when borrowing costs more, per year")
    on_call: Literal["hold", "sell"] = Field(
        default="hold", description="a called bond is hedged to its end, or sold at the notice"
    )
    on_recall: Literal["reduce", "accept"] = Field(
        default="reduce", description="where too few shares can be borrowed: fewer bonds, or less hedge"
    )
    convert: Flag = Field(default=True, description="convert a bond that is worth its shares and no more")
    stale_after: Interval | None = Field(default=None, description="a quote older than this is not acted on")
    credit_hedge: InstrumentText | None = Field(default=None, description="what gains when credit spreads widen")
    credit_per_contract: Number | None = Field(
        default=None, description="money one contract of it gains per 1.00 of spread"
    )
    credit_half_width: Annotated[Number, Field(ge=0, le=1e12)] = Field(
        default=0.0, description="contracts of it let drift either way"
    )
    accuracy: Literal["fast", "default", "high"] = Field(default="default", description="of the grids behind the delta")


class CollarConfig(Section):
    """Shares that depend on the acquirer's price at the close."""

    kind: Literal["fixed_value", "fixed_ratio"] = Field(
        description="between low and high: shares worth `value`, or `ratio` shares; at the edges the other is fixed"
    )
    low: Annotated[Number, Field(gt=0)] = Field(description="the acquirer's price below which the other is fixed")
    high: Annotated[Number, Field(gt=0)] = Field(description="the acquirer's price above which the other is fixed")
    value: Annotated[Number, Field(gt=0)] | None = Field(default=None, description="money of 'fixed_value' a share")
    ratio: Annotated[Number, Field(gt=0)] | None = Field(default=None, description="shares of 'fixed_ratio' a share")

    @model_validator(mode="after")
    def _sound(self) -> CollarConfig:
        if self.low >= self.high:
            raise ValueError(f"expected low below high, found {self.low} and {self.high}")
        given, other = (self.value, self.ratio) if self.kind == "fixed_value" else (self.ratio, self.value)
        if given is None or other is not None:
            raise ValueError(f"kind {self.kind!r}: expected {self.kind.removeprefix('fixed_')} alone")
        return self


class DealConfig(Section):
    """One announced deal: what a share of the target becomes, when, and where the target goes if it does not."""

    target: InstrumentText = Field(description="what is taken over")
    acquirer: InstrumentText | None = Field(default=None, description="whose shares are given; absent: cash alone")
    cash: Annotated[Number, Field(ge=0, le=1e9)] = Field(default=0.0, description="per share of the target")
    ratio: Annotated[Number, Field(ge=0, le=1e6)] = Field(default=0.0, description="the acquirer's shares per share")
    collar: CollarConfig | None = Field(default=None, description="shares that depend on the acquirer's price")
    expected_close: Instant = Field(description="when it should be done")
    break_price: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="where the target goes if the deal breaks"
    )
    unaffected: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="instead of break_price: its price before the deal, moved with `market`"
    )
    market: InstrumentText | None = Field(default=None, description="what moves the unaffected price")
    market_beta: Annotated[Number, Field(ge=-100, le=100)] = Field(
        default=1.0, description="of the target's return to the market's, without the deal"
    )
    market_start: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="the market when the target was unaffected; absent: the first price seen"
    )
    beta: Annotated[Number, Field(ge=-100, le=100)] = Field(
        default=0.0, description="of the target's return to the acquirer's, after a break"
    )
    acquirer_jump: Annotated[Number, Field(gt=-1, le=10)] = Field(
        default=0.0, description="the acquirer's return on a break: a rise hurts who is short of it"
    )
    acquirer_vol: VolNumber = Field(default=0.3, description="of the acquirer, for collars")
    rate: RateNumber = Field(default=0.0, description="of financing, continuous, per year")
    dividend: RateNumber = Field(default=0.0, description="yield of the acquirer until the close")
    target_dividend: RateNumber = Field(default=0.0, description="yield of the target until the close")
    budget: Annotated[Number, Field(ge=0, le=1e15)] | None = Field(
        default=None, description="most that it may lose if it breaks; the strategy's when absent"
    )
    quantity: Annotated[Number, Field(ge=0, le=1e12)] | None = Field(
        default=None, description="shares of the target to hold, instead of a budget"
    )
    max_shares: Annotated[Number, Field(ge=0, le=1e12)] | None = Field(
        default=None, description="shares of the target at most"
    )


class MergerArbitrageConfig(StrategyTable):
    """Long targets of announced deals, short what they are paid with."""

    instrument_keys: ClassVar[tuple[str, ...]] = ("target", "acquirer", "market")

    kind: Literal["merger_arbitrage"]
    name: Name = Field(default="merger_arbitrage", description="how records call this strategy")
    deals: tuple[DealConfig, ...] = Field(min_length=1, max_length=1000, description="the deal book")
    budget: Annotated[Number, Field(ge=0, le=1e15)] | None = Field(
        default=None, description="most that each deal may lose if it breaks"
    )
    half_width: Annotated[Number, Field(ge=0, le=1e12)] = Field(
        default=0.0, description="shares of an acquirer let drift either way"
    )
    to: Literal["edge", "centre"] = Field(default="centre", description="where a hedge that left its band goes")
    slack: Share = Field(default=0.10, description="of the budget that prices may exceed it by before shares are sold")
    min_return: Annotated[Number, Field(ge=-1, le=100)] | None = Field(
        default=None, description="enters a deal that pays as much a year; absent: any"
    )
    exit_return: Annotated[Number, Field(ge=-1, le=100)] | None = Field(
        default=None, description="leaves a deal that pays less a year; absent: none"
    )
    look: Interval = Field(default=parse_span("1d"), description="looks again this often, quotes or not")
    stale_after: Interval | None = Field(default=None, description="a quote older than this is not acted on")


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
    | Annotated[TailHedgerConfig, Tag(TAG + "tail_hedger")]
    | Annotated[GammaScalperConfig, Tag(TAG + "gamma_scalper")]
    | Annotated[VegaHedgerConfig, Tag(TAG + "vega_hedger")]
    | Annotated[ConvertibleArbitrageConfig, Tag(TAG + "convertible_arbitrage")]
    | Annotated[MergerArbitrageConfig, Tag(TAG + "merger_arbitrage")]
    | Annotated[PluginStrategy, Tag(TAG + PLUGIN_KIND)],
    Discriminator(
        kinds(
            *("delta_hedger", "gamma_scalper", "vega_hedger", "portfolio_insurance", "tail_hedger"),
            *("convertible_arbitrage", "merger_arbitrage"),
        )
    ),
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
