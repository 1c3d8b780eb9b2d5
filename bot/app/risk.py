"""A risk document is what a book could gain or lose from one instant on; law: nothing is sent, and unknown is null with
its reason, never zero.

The feeds are replayed to the instant with the book as its file opens it and nobody hedging. Marks, vols and Greeks are
those the engine would see then. Sums stop at a null. Deltas of different underlyings are never added: totals are in money.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bot import __version__
from bot.app import config as configs
from bot.app import wiring
from bot.app.book_file import LoadedBook
from bot.app.calendars import named
from bot.app.contracts import resolve_instrument
from bot.app.risk_bonds import bond_greeks, bond_moves
from bot.core.errors import BookError, ConfigError, DataError, NotDelivered
from bot.core.events import FeedEvent
from bot.core.ports import BindsUniverse, Feed, InLoopBroker, ListsInstruments
from bot.domain.instruments import (
    ConvertibleBond,
    Future,
    Instrument,
    OptionContract,
    Perpetual,
    Universe,
    occ_id,
    parse_occ,
)
from bot.domain.market import QuoteBatch, TradeBatch
from bot.domain.units import DAYS_PER_YEAR, NEVER, NS_PER_DAY, NS_PER_SECOND, NS_PER_YEAR, Nanos, iso, utc_date
from bot.engine.account import Account
from bot.engine.journal import Header, JournalWriter
from bot.engine.loop import Loop
from bot.engine.marks import Marks
from bot.engine.merge import merge
from bot.engine.valuation import Legs, Slice, UnitGreeks, Valuation

Floats: TypeAlias = NDArray[np.float64]
Row: TypeAlias = dict[str, Any]

SCHEMA: Final = 1
UNIT_FIELDS: Final = ("delta", "gamma", "vanna_per_point", "charm_per_day")
"""Fields in units of one underlying: they add up within it and never across."""
MONEY_FIELDS: Final = (
    "value",
    "cash_delta",
    "gamma_per_percent",
    "vega_per_point",
    "theta_per_day",
    "rho_per_percent",
    "volga_per_point",
)
GRID_SPOT_PERCENT: Final = (-10.0, -7.5, -5.0, -2.5, -1.0, 0.0, 1.0, 2.5, 5.0, 7.5, 10.0)
GRID_VOL_POINTS: Final = (-5.0, -2.5, 0.0, 2.5, 5.0, 10.0)
PIN_DAYS: Final = 7.0
"""A strike is pointed out as a pin when its expiry is at most this many days ahead and it lies within one day's
standard deviation of the price."""
LARGEST: Final = Decimal(10**12)
_TABLE_KNOWS_NOT: Final = ("vega", "rho", "vanna", "volga", "charm")
_NO_VOL_IN_TABLE: Final = "the supplied delta table knows no vol"
_ADDITION = re.compile(r"^([+-]?[\d_.,eE]+)\s+(\S.*)$")


# --------------------------------------------------------------------------- words of the command line


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """All prices moved by a per cent, all vols by points (3 is 20% to 23%), and days passed."""

    spot_percent: float = 0.0
    vol_points: float = 0.0
    days: float = 0.0

    def __post_init__(self) -> None:
        for name in ("spot_percent", "vol_points", "days"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}: expected a finite number, found {getattr(self, name)}")
        if self.spot_percent <= -100.0:
            raise ValueError(f"spot: expected a move above -100%, found {self.spot_percent:g}%")
        if not 0.0 <= self.days <= 36_500.0:
            raise ValueError(f"days: expected 0 to 36500, found {self.days:g}")


class Addition(msgspec.Struct, frozen=True, kw_only=True):
    """A position to add in thought: signed contracts and the words for the instrument."""

    quantity: Decimal
    symbol: str


def parse_scenario(text: str) -> Scenario:
    """The scenario `spot=-5%,vol=+3,days=1` describes; ConfigError with what is wrong. What is not named stays.

    >>> parse_scenario("spot=-5%, vol=+3, days=1")
    Scenario(spot_percent=-5.0, vol_points=3.0, days=1.0)
    """
    names = {"spot": "spot_percent", "vol": "vol_points", "days": "days"}
    found: dict[str, float] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in names:
            raise ConfigError(
                f"--scenario: expected spot=-5%, vol=+3 or days=1 joined by commas, found {part.strip()!r}"
            )
        if names[key] in found:
            raise ConfigError(f"--scenario: {key}: given twice in {text!r}")
        found[names[key]] = _scenario_number(key, value)
    try:
        return Scenario(**found)
    except ValueError as fault:
        raise ConfigError(f"--scenario: {fault}") from fault


def _scenario_number(key: str, value: str) -> float:
    if key == "spot" and not value.endswith("%"):
        raise ConfigError(f"--scenario: spot: expected a per cent such as -5%, found {value!r}")
    if key == "vol" and value.endswith("%"):
        raise ConfigError(
            f"--scenario: vol: expected vol points without a sign of per cent such as +3, found {value!r}"
        )
    try:
        return float(value.removesuffix("%") if key == "spot" else value)
    except ValueError as fault:
        raise ConfigError(f"--scenario: {key}: expected a number, found {value!r}") from fault


def parse_addition(text: str) -> Addition:
    """The position `+100 US:GOOG` or `-5 GOOG160115C00750000` describes; ConfigError with what is wrong.

    >>> parse_addition('10 "GOOG  160115C00750000"').symbol
    'GOOG  160115C00750000'
    """
    found = _ADDITION.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"--add: expected a quantity and an instrument such as '+100 US:GOOG', found {text!r}")
    amount, symbol = found[1], found[2].strip().strip("\"'").strip()
    try:
        quantity = Decimal(amount.replace("_", "")) if "," not in amount else None
    except InvalidOperation:
        quantity = None
    if quantity is None or not quantity.is_finite() or not 1 / LARGEST <= quantity.copy_abs() <= LARGEST:
        raise ConfigError(
            f"--add: expected a plain number that is not 0 and of sensible size, found {amount!r} in {text!r}"
        )
    if not symbol:
        raise ConfigError(f"--add: expected an instrument after the quantity, found {text!r}")
    return Addition(quantity=quantity, symbol=symbol)


def resolve_addition(addition: Addition, known: Mapping[str, Instrument]) -> Instrument:
    """The instrument an addition names: the run's own where it knows one, else what the tables of contracts say."""
    for key in (addition.symbol, addition.symbol.upper(), _padded(addition.symbol)):
        if key in known:
            return known[key]
    try:
        item = resolve_instrument(addition.symbol)
    except (BookError, ValueError) as fault:
        raise ConfigError(f"--add: {addition.symbol!r}: {fault}") from fault
    return known.get(item.id, item)


def _padded(symbol: str) -> str:
    try:
        occ = parse_occ(symbol)
    except ValueError:
        return ""
    return occ_id(occ.root, occ.expiration, occ.cp, occ.strike)


# --------------------------------------------------------------------------- replay to an instant


class Scene(NamedTuple):
    """A book at an instant, as the engine would see it: what every figure of a risk document is computed from."""

    config: configs.Config
    loop: Loop
    now: Nanos
    positions: dict[str, Decimal]
    added: dict[str, Decimal]
    notes: list[str]

    @property
    def universe(self) -> Universe:
        """The instruments of the run."""
        return self.loop.universe

    @property
    def valuation(self) -> Valuation:
        """Where values and Greeks come from."""
        return self.loop.valuation


def risk(
    config: configs.Config, *, at: Nanos | None = None, scenario: Scenario | None = None, add: Sequence[str] = ()
) -> Row:
    """The risk document of a config's book at an instant, ready for JSON; keys are listed in docs/risk.md.

    `at` None is the first instant the session is ready at, or the end of the feed when it never is. Nothing is sent and
    nothing written. ConfigError for words that make no sense, NotDelivered for feeds that are live.
    """
    scene = stage(config, at=at, add=add)
    rows = position_rows(scene)
    base = config.session.base_currency
    return {
        "schema": SCHEMA,
        "name": config.name,
        "release": __version__,
        "config_hash": configs.config_hash(config),
        "as_of": iso(scene.now),
        "as_of_ns": scene.now,
        "session_started": None if scene.loop.started_at is None else iso(scene.loop.started_at),
        "base_currency": base,
        "pricer": config.pricing.pricer,
        "vol_source": config.pricing.vol,
        "smile": config.pricing.smile,
        "day_count": config.pricing.day_count,
        "notes": scene.notes,
        "additions": [{"instrument": key, "quantity": float(q)} for key, q in scene.added.items()],
        "contracts": rows,
        "expiries": _expiry_groups(scene, rows),
        "underlyings": _underlying_groups(scene, rows),
        "total": {"currency": base, **sum_rows(scene, rows, MONEY_FIELDS)},
        "ahead": expiries_ahead(scene),
        "grid": spot_vol_grid(scene),
        "scenario": None if scenario is None else scenario_by_leg(scene, scenario),
    }


def stage(config: configs.Config, *, at: Nanos | None = None, add: Sequence[str] = ()) -> Scene:
    """The book with its additions at the instant, its feeds replayed to there."""
    additions = [parse_addition(text) for text in add]
    loop, feeds, extra = _assemble_unhedged(config, additions)
    if not all(feed.recorded for feed in feeds):
        live = ", ".join(feed.name for feed in feeds if not feed.recorded)
        raise NotDelivered(
            f"{config.path.name}: risk replays recorded feeds; of a live one ({live}) it is not delivered yet"
        )
    reached, _ = asyncio.run(replay_to(loop, feeds, _stops(loop, at)))
    loop.close_open_instant()
    if reached is None:
        raise DataError(f"{config.path.name}: the feeds ended with no data at all")
    notes = _replay_notes(loop, reached, at)
    if loop.started_at is None:
        _value_unstarted(loop, reached)
    held = loop.accounts[0].ledger.quantities() if loop.started_at is not None else _opened(loop)
    positions = dict(held)
    for key, quantity in extra.items():
        _refuse_ended(loop.universe.get(key), reached)
        positions[key] = positions.get(key, Decimal(0)) + quantity
    return Scene(config, loop, reached, {k: q for k, q in sorted(positions.items()) if q}, extra, notes)


def _assemble_unhedged(
    config: configs.Config, additions: Sequence[Addition]
) -> tuple[Loop, list[Feed], dict[str, Decimal]]:
    """The rooms of a run with one account that nobody trades for; no broker of the config is even made."""
    wiring.refuse_undelivered(config)
    book = wiring.read_book(config)
    wanted = wiring.resolve_wanted(config, book)
    feeds = [wiring.make_feed(feed, config, wanted) for feed in config.feeds]
    extra: dict[str, Decimal] = {}
    if additions:
        book, extra = _extend(config, book, additions, [*_listed(feeds), *wanted])
        wanted = wiring.resolve_wanted(config, book)
        feeds = [wiring.make_feed(feed, config, wanted) for feed in config.feeds]
    universe = Universe({item.id: item for item in [*_listed(feeds), *wanted]}.values())
    for feed in feeds:
        if isinstance(feed, BindsUniverse):
            feed.bind(universe)
    marks = Marks(universe)
    valuation = Valuation(universe, marks, wiring.valuation_settings(config, book))
    settings = wiring.loop_settings(config)
    for key in extra:
        item = universe.get(key)
        if isinstance(item, OptionContract):
            _value(valuation, item, settings.start)
    account = _idle_account(config, universe, marks, valuation)
    valuation.on_alarm = account.alarm
    header = Header(run_id="risk", config_hash="", release=__version__, durability="replay")
    loop = Loop(
        settings=msgspec.structs.replace(settings, end=None, financing_rate=0.0, borrow_rate=0.0),
        universe=universe,
        marks=marks,
        valuation=valuation,
        accounts=[account],
        openings=wiring.openings_of(config, book),
        needed=wiring.needed_of(config),
        journal=JournalWriter(None, header),
    )
    return loop, feeds, extra


def _listed(feeds: Iterable[Feed]) -> list[Instrument]:
    return [item for feed in feeds if isinstance(feed, ListsInstruments) for item in feed.instruments("")]


def _extend(
    config: configs.Config, book: LoadedBook, additions: Sequence[Addition], known: Sequence[Instrument]
) -> tuple[LoadedBook, dict[str, Decimal]]:
    """The book with the added instruments and their underlyings known to it, and the added quantities by id."""
    by_id = {item.id: item for item in known}
    extra: dict[str, Decimal] = {}
    instruments, underlyings = {i.id: i for i in book.instruments}, {i.id: i for i in book.underlyings}
    for addition in additions:
        item = resolve_addition(addition, by_id)
        if item.lot is not None and addition.quantity % item.lot:
            raise ConfigError(f"--add: {item.id}: expected whole lots of {item.lot}, found {addition.quantity}")
        instruments[item.id] = item
        extra[item.id] = extra.get(item.id, Decimal(0)) + addition.quantity
        if isinstance(item, OptionContract) and item.underlying not in underlyings:
            underlyings[item.underlying] = resolve_addition(
                Addition(quantity=addition.quantity, symbol=item.underlying), by_id
            )
    extended = msgspec.structs.replace(
        book, instruments=tuple(instruments.values()), underlyings=tuple(underlyings.values())
    )
    return extended, extra


def _value(valuation: Valuation, contract: OptionContract, now: Nanos) -> None:
    """Value a contract; one whose vol nobody supplied starts without, which is null with a reason, not a fault."""
    settings = valuation.settings
    unsupplied = settings.vol == "per_contract" and contract.id not in settings.vols
    valuation.add(contract, now=now, vol=math.nan if unsupplied else None)


def _idle_account(config: configs.Config, universe: Universe, marks: Marks, valuation: Valuation) -> Account:
    broker = wiring.make_broker(config, universe, simulated=True)
    if not isinstance(broker, InLoopBroker):
        raise ConfigError(f"{config.path.name}: the paper broker is not one that trades inside the loop")
    broker.attach(universe, marks, "risk")
    return Account(
        "risk",
        universe=universe,
        marks=marks,
        valuation=valuation,
        broker=broker,
        strategies=[],
        base_currency=config.session.base_currency,
    )


def _stops(loop: Loop, at: Nanos | None) -> Iterator[Nanos]:
    """Where a replay pauses: at the instant asked for, else at each instant the session tries to begin until it did."""
    if at is not None:
        yield at
        return
    attempt = loop.settings.start
    while True:
        yield attempt
        if loop.started_at is not None:
            return
        attempt += loop.settings.report_grid


class Reached(NamedTuple):
    """Where a replay came to: its last instant (None without any data), and whether the feeds ended before a stop did."""

    ts: Nanos | None
    feed_ended: bool


async def replay_to(loop: Loop, feeds: Sequence[Feed], stops: Iterator[Nanos]) -> Reached:
    """Where the replay came to: the feeds' events are taken up to each stop in turn, each with what falls due by then.

    A stop's own rows come before its timers, as in any run. When the feeds end first the last instant is left open: the
    caller closes or finishes the loop, as a run would.
    """
    stop = next(stops, None)
    async with AsyncExitStack() as stack:
        for feed in feeds:
            await stack.enter_async_context(feed)
        async for name, item in merge([(feed.name, feed.events()) for feed in feeds]):
            rest: FeedEvent | None = item
            while rest is not None and stop is not None:
                head, rest = cut(rest, stop)
                if head is not None:
                    loop.take(head, name)
                if rest is not None:
                    reached, stop = stop, settle(loop, stop, stops)
                    if stop is None:
                        return Reached(reached, feed_ended=False)
    return Reached(loop.now or None, feed_ended=True)


def settle(loop: Loop, stop: Nanos, stops: Iterator[Nanos]) -> Nanos | None:
    """The stop after this one, once everything that falls due by this one has happened."""
    loop.close_open_instant()
    loop.run_timers(stop)
    return next(stops, None)


def cut(item: FeedEvent, stop: Nanos) -> tuple[FeedEvent | None, FeedEvent | None]:
    """What of an event lies at or before an instant, and what after."""
    if not isinstance(item, QuoteBatch | TradeBatch):
        return (item, None) if item.ts_recv <= stop else (None, item)
    row = int(np.searchsorted(item.ts_recv, stop, side="right"))
    if row == len(item):
        return item, None
    return (item.rows(0, row) if row else None), item.rows(row, len(item))


def _replay_notes(loop: Loop, reached: Nanos, at: Nanos | None) -> list[str]:
    notes: list[str] = []
    if at is not None and reached < at:
        notes.append(
            f"the feed ended at {iso(reached)}, before the instant asked for, {iso(at)}: risk is as of its end"
        )
    if loop.started_at is None:
        why = loop.not_ready or f"it begins at {iso(loop.settings.start)}"
        notes.append(f"the session had not begun by {iso(reached)}: {why}; the book is as its file says")
    return notes + [f"{iso(alarm.ts)} {alarm.code}: {alarm.text}" for alarm in loop.alarms]


def _value_unstarted(loop: Loop, now: Nanos) -> None:
    loop.valuation.started(now)
    for opening in loop.openings:
        contract = loop.universe.get(opening.instrument)
        if not isinstance(contract, OptionContract):
            continue
        if opening.vol is None:
            _value(loop.valuation, contract, now)
        else:
            loop.valuation.add(contract, now=now, vol=opening.vol)
    loop.valuation.remark(now)


def _opened(loop: Loop) -> dict[str, Decimal]:
    held: dict[str, Decimal] = {}
    for opening in loop.openings:
        held[opening.instrument] = held.get(opening.instrument, Decimal(0)) + opening.quantity
    return held


def _refuse_ended(item: Instrument, now: Nanos) -> None:
    if isinstance(item, OptionContract | Future) and item.expiry <= now:
        raise ConfigError(
            f"--add: {item.id}: expected a contract alive at {iso(now)}, found its expiry {iso(item.expiry)}"
        )


# --------------------------------------------------------------------------- positions and their Greeks


def position_rows(scene: Scene) -> list[Row]:
    """Every position with its mark, vol and Greeks, money in the contract's currency; options of an underlying together."""
    rows: list[Row] = []
    for key, quantity in scene.positions.items():
        item = scene.universe.get(key)
        if isinstance(item, OptionContract):
            rows.append(_option_row(scene, item, quantity))
        else:
            rows.append(_linear_row(scene, item, quantity))
    return sorted(rows, key=lambda row: (row["underlying"], row["expiry"] or "", row["instrument"]))


def _head(scene: Scene, item: Instrument, quantity: Decimal, underlying: str) -> Row:
    column = scene.universe.index(item.id)
    quote = scene.loop.marks.reference(column)
    mark = scene.valuation.mark(item.id, scene.now) if _is_valued(scene, item) else None
    return {
        "instrument": item.id,
        "kind": str(item.__struct_config__.tag),
        "underlying": underlying,
        "expiry": None,
        "quantity": float(quantity),
        "added": float(scene.added.get(item.id, Decimal(0))),
        "multiplier": float(item.multiplier),
        "currency": item.currency,
        "mark": None if mark is None else float(mark),
        "bid": None if quote is None else quote.bid,
        "ask": None if quote is None else quote.ask,
        "quote_age_seconds": None if quote is None else (scene.now - quote.ts) / NS_PER_SECOND,
    }


def _is_valued(scene: Scene, item: Instrument) -> bool:
    return not isinstance(item, OptionContract) or item.id in scene.valuation.slice(item.underlying).rows


def _option_row(scene: Scene, contract: OptionContract, quantity: Decimal) -> Row:
    s = scene.valuation.slice(contract.underlying)
    row = s.rows[contract.id]
    units = _units_now(scene, s)
    weight = float(quantity) * float(s.multiplier[row])
    spot, vol, vol_ts = scene.valuation.spot(s.underlying), float(s.vol[row]), int(s.vol_ts[row])
    why = why_unknown(scene, contract)
    unit = {name: math.nan if why else float(getattr(units, name)[row]) for name in UnitGreeks._fields}
    delta = math.nan if why else float(scene.valuation.total_delta(s, units)[row])
    head = _head(scene, contract, quantity, contract.underlying)
    found: dict[str, float | None] = {
        "value": None if head["mark"] is None else weight * head["mark"],
        "delta": weight * delta,
        "cash_delta": weight * delta * spot,
        "gamma": weight * unit["gamma"],
        "gamma_per_percent": weight * unit["gamma"] * spot * spot / 100.0,
        "vega_per_point": weight * unit["vega"] / 100.0,
        "theta_per_day": weight * unit["theta"] / DAYS_PER_YEAR,
        "rho_per_percent": weight * unit["rho"] / 100.0,
        "vanna_per_point": weight * unit["vanna"] / 100.0,
        "volga_per_point": weight * unit["volga"] / 10_000.0,
        "charm_per_day": weight * unit["charm"] / DAYS_PER_YEAR,
    }
    known, unknown = _known(found, why)
    if scene.valuation.settings.pricer == "table":
        for name in ("vega_per_point", "rho_per_percent", "vanna_per_point", "volga_per_point", "charm_per_day"):
            known[name], unknown[name] = None, _NO_VOL_IN_TABLE
    if known["value"] is None:
        unknown["value"] = f"no mark of {contract.id}: it never had a two-sided quote"
    if why and contract.expiry <= scene.now:
        known["value"], unknown["value"] = None, why
    return {
        **head,
        "expiry": iso(contract.expiry),
        "strike": float(contract.strike),
        "cp": contract.cp,
        "spot": _finite(spot),
        "model_price": _finite(unit["price"]),
        "smile_delta": _finite(weight * (delta - unit["delta"])),
        "vol": _finite(vol),
        "vol_age_seconds": None if vol_ts == NEVER else max(0, scene.now - vol_ts) / NS_PER_SECOND,
        **known,
        "unknown": unknown,
    }


def _units_now(scene: Scene, s: Slice) -> UnitGreeks:
    """Values per unit of a slice's contracts at the scene's instant."""
    return scene.valuation.units(s, scene.valuation.spot(s.underlying), scene.now, s.vol)


def why_unknown(scene: Scene, contract: OptionContract) -> str:
    """Why the Greeks of an option cannot be known, empty when they can."""
    s = scene.valuation.slice(contract.underlying)
    if contract.expiry <= scene.now:
        return f"{contract.id} expired at {iso(contract.expiry)} and settles at {iso(contract.settles)}"
    fault = scene.valuation.faults(Legs(s, {contract.id: 1.0}), scene.now)
    if fault:
        return fault
    price = float(_units_now(scene, s).price[s.rows[contract.id]])
    return "" if math.isfinite(price) else f"the pricer has no value of {contract.id} at this price and vol"


def _linear_row(scene: Scene, item: Instrument, quantity: Decimal) -> Row:
    """A position without curvature. A future or perpetual settles daily: its value is 0, its exposure the cash delta."""
    account = scene.loop.accounts[0]
    head = _head(scene, item, quantity, account.underlying_of(item))
    price = math.nan if head["mark"] is None else float(head["mark"])
    units = float(quantity) * float(item.multiplier)
    delta = units / price if isinstance(item, Perpetual) and item.inverse else units
    found: dict[str, float | None] = dict.fromkeys((*MONEY_FIELDS, *UNIT_FIELDS), 0.0)
    if isinstance(item, ConvertibleBond):
        return _bond_row(scene, item, quantity, head, found)
    found |= {
        "value": 0.0 if isinstance(item, Future | Perpetual) else units * price,
        "delta": delta,
        "cash_delta": delta * price,
    }
    known, unknown = _known(found, f"no price of {item.id}")
    head["expiry"] = iso(item.expiry) if isinstance(item, Future) else None
    return {**head, "spot": head["mark"], **known, "unknown": unknown}


def _bond_row(scene: Scene, bond: ConvertibleBond, quantity: Decimal, head: Row, found: dict[str, float | None]) -> Row:
    """A convertible: its value at its mark, its Greeks by its own model."""
    greeks, why = bond_greeks(scene.valuation, bond, scene.now, float(quantity))
    mark = math.nan if head["mark"] is None else float(head["mark"])
    unknown_greeks: dict[str, float | None] = dict.fromkeys(found, math.nan) if why else {}
    known, unknown = _known({**found, **unknown_greeks, **greeks, "value": math.nan}, why or f"no price of {bond.id}")
    if math.isfinite(mark):
        known["value"] = float(quantity) * float(bond.multiplier) * mark
        unknown.pop("value", None)
    spot = _finite(scene.valuation.spot(bond.underlying))
    return {**head, "expiry": iso(bond.matures), "spot": spot, **known, "unknown": unknown}


def _known(found: Mapping[str, float | None], why: str) -> tuple[Row, dict[str, str]]:
    """The figures with what is not a number as None, and the reason of each None."""
    known = {name: None if value is None else _finite(value) for name, value in found.items()}
    return known, {name: why or "not a number" for name, value in known.items() if value is None}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --------------------------------------------------------------------------- sums


def sum_rows(scene: Scene, rows: Sequence[Row], fields: Iterable[str]) -> Row:
    """Sums of fields, money converted to the base currency; a null or a missing rate makes the sum null, with the reason."""
    out: Row = {}
    unknown: dict[str, str] = {}
    for name in fields:
        total = 0.0
        for row in rows:
            rate = 1.0 if name in UNIT_FIELDS else _rate(scene, row["currency"])
            if row[name] is None or rate is None:
                why = row["unknown"].get(name) or f"no exchange rate of {row['currency']}"
                unknown[name] = f"{row['instrument']}: {why}"
                break
            total += row[name] * rate
        out[name] = None if name in unknown else total
    return {**out, "unknown": unknown}


def _rate(scene: Scene, currency: str) -> float | None:
    rate = scene.loop.convert(currency)
    return None if rate is None else float(rate)


def _expiry_groups(scene: Scene, rows: Sequence[Row]) -> list[Row]:
    """Greeks of the options by underlying and expiry."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["kind"] == "option":
            groups.setdefault((row["underlying"], row["expiry"]), []).append(row)
    base = scene.config.session.base_currency
    return [
        {
            "underlying": underlying,
            "expiry": expiry,
            "contracts": len(group),
            "currency": base,
            **sum_rows(scene, group, (*UNIT_FIELDS, *MONEY_FIELDS)),
        }
        for (underlying, expiry), group in sorted(groups.items())
    ]


def _underlying_groups(scene: Scene, rows: Sequence[Row]) -> list[Row]:
    """Greeks by underlying, options and linear holdings together."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["underlying"], []).append(row)
    base = scene.config.session.base_currency
    return [
        {
            "underlying": underlying,
            "spot": next((row["spot"] for row in group if row["kind"] == "option"), group[0]["spot"]),
            "positions": len(group),
            "currency": base,
            **sum_rows(scene, group, (*UNIT_FIELDS, *MONEY_FIELDS)),
        }
        for underlying, group in sorted(groups.items())
    ]


# --------------------------------------------------------------------------- expiries and pins


def expiries_ahead(scene: Scene) -> list[Row]:
    """Each option held, by expiry: days left, how far its strike lies, whether the day closes early, and whether it pins.

    distance_percent = 100 (K - S) / S; one day's standard deviation is S vol sqrt(1/365).
    """
    contracts = [item for key in scene.positions if isinstance(item := scene.universe.get(key), OptionContract)]
    contracts.sort(key=lambda c: (c.expiry, c.underlying, c.strike, -c.cp))
    return [_ahead(scene, contract) for contract in contracts]


def _ahead(scene: Scene, contract: OptionContract) -> Row:
    s = scene.valuation.slice(contract.underlying)
    spot, vol = scene.valuation.spot(contract.underlying), float(s.vol[s.rows[contract.id]])
    away = float(contract.strike) - spot
    deviations = away / (spot * vol * math.sqrt(1.0 / DAYS_PER_YEAR)) if vol > 0.0 else math.nan
    days = (contract.expiry - scene.now) / NS_PER_DAY
    sides = {1: "OTM", -1: "ITM", 0: "ATM"}
    unknown = {} if math.isfinite(deviations) else {"distance_one_day_sd": why_unknown(scene, contract) or "no vol"}
    if math.isnan(spot):
        unknown["distance_percent"] = unknown["moneyness"] = f"no price of {contract.underlying}"
    return {
        "instrument": contract.id,
        "underlying": contract.underlying,
        "cp": contract.cp,
        "strike": float(contract.strike),
        "contracts": float(scene.positions[contract.id]),
        "expiry": iso(contract.expiry),
        "last_trade": iso(contract.last_trade),
        "settles": iso(contract.settles),
        "settlement": contract.settlement,
        "session": contract.session,
        "early_close": _closes_early(contract),
        "days_left": days,
        "spot": _finite(spot),
        "distance_percent": _finite(100.0 * away / spot),
        "distance_one_day_sd": _finite(deviations),
        "moneyness": None if math.isnan(spot) else sides[int(np.sign(away * contract.cp))],
        "pin": bool(0.0 <= days <= PIN_DAYS and abs(deviations) <= 1.0),
        "unknown": unknown,
    }


def _closes_early(contract: OptionContract) -> bool:
    """Whether the session of the last trade ends before its regular time."""
    day = utc_date(contract.last_trade)
    sessions = named(contract.calendar, day, day)
    trade_date = sessions.date_at(contract.last_trade - 1)
    return trade_date is not None and sessions.is_early_close(trade_date)


# --------------------------------------------------------------------------- full revaluation


class Leg(NamedTuple):
    """One position under a shift: its P&L by full revaluation, null with a reason."""

    row: Row
    pnl: Floats
    why: str


def revalue(scene: Scene, *, spot_percent: Floats, vol_points: float, days: float) -> list[Leg]:
    """P&L of every position against now, in its currency, by repricing; NaN where `why` says so.

    Shape: spot_percent (n,); each P&L (n,). All prices move by one per cent, all vols by one number of points (not below
    zero, and by no smile rule), and an option that expires within the days is worth its payoff at the shifted price.
    """
    factor = 1.0 + np.asarray(spot_percent, dtype=np.float64) / 100.0
    priced: dict[str, Floats] = {}
    legs: list[Leg] = []
    for key, quantity in scene.positions.items():
        item = scene.universe.get(key)
        if isinstance(item, OptionContract):
            if item.underlying not in priced:
                priced[item.underlying] = _slice_moves(scene, item.underlying, factor, vol_points, days)
            s = scene.valuation.slice(item.underlying)
            row = s.rows[key]
            why = why_unknown(scene, item) or _no_vol_in_table(scene, vol_points)
            pnl = priced[item.underlying][:, row] * (float(quantity) * float(s.multiplier[row]))
        elif isinstance(item, ConvertibleBond):
            why, one = bond_moves(scene.valuation, item, scene.now, factor=factor, vol_points=vol_points, days=days)
            pnl = float(quantity) * one
        else:
            why, pnl = _linear_moves(scene, item, quantity, factor)
        legs.append(Leg({"instrument": key, "currency": item.currency}, pnl if not why else pnl * math.nan, why))
    return legs


def _slice_moves(scene: Scene, underlying: str, factor: Floats, vol_points: float, days: float) -> Floats:
    """Change of each contract's unit value. Shape: (len(factor), contracts)."""
    s = scene.valuation.slice(underlying)
    spot = scene.valuation.spot(underlying)
    later = np.minimum(scene.now + round(days * NS_PER_DAY), np.maximum(s.expiry, scene.now))
    vol = np.maximum(s.vol + vol_points / 100.0, 0.0)
    moved = scene.valuation.units(s, spot * factor[:, None], later, vol, second=False).price
    return np.asarray(moved - scene.valuation.units(s, spot, scene.now, s.vol, second=False).price)


def _no_vol_in_table(scene: Scene, vol_points: float) -> str:
    return _NO_VOL_IN_TABLE if vol_points and scene.valuation.settings.pricer == "table" else ""


def _linear_moves(scene: Scene, item: Instrument, quantity: Decimal, factor: Floats) -> tuple[str, Floats]:
    """Linear P&L; an inverse contract's coins are turned into its price currency at the shifted price."""
    mark = scene.valuation.mark(item.id, scene.now)
    if mark is None:
        return f"no price of {item.id}", factor * math.nan
    price = 1.0 if isinstance(item, Perpetual) and item.inverse else float(mark)
    return "", float(quantity) * float(item.multiplier) * price * (factor - 1.0)


def spot_vol_grid(scene: Scene) -> Row:
    """P&L against now in the base currency for shifts of all prices (columns) and all vols (rows), whole book repriced."""
    spots = np.asarray(GRID_SPOT_PERCENT)
    per_underlying: dict[str, list[list[float | None]]] = {}
    totals: list[list[float | None]] = []
    unknown = ""
    account = scene.loop.accounts[0]
    for points in GRID_VOL_POINTS:
        legs = revalue(scene, spot_percent=spots, vol_points=points, days=0.0)
        unknown = unknown or _why_stopped(scene, legs)
        totals.append(_sum_legs(scene, legs, len(spots)))
        groups: dict[str, list[Leg]] = {}
        for leg in legs:
            groups.setdefault(account.underlying_of(scene.universe.get(leg.row["instrument"])), []).append(leg)
        for underlying, group in sorted(groups.items()):
            per_underlying.setdefault(underlying, []).append(_sum_legs(scene, group, len(spots)))
    return {
        "currency": scene.config.session.base_currency,
        "spot_percent": list(GRID_SPOT_PERCENT),
        "vol_points": list(GRID_VOL_POINTS),
        "pnl": totals,
        "by_underlying": per_underlying,
        "unknown": unknown or None,
    }


def _sum_legs(scene: Scene, legs: Sequence[Leg], n: int) -> list[float | None]:
    total = np.zeros(n)
    for leg in legs:
        rate = _rate(scene, leg.row["currency"])
        total = total + leg.pnl * (math.nan if rate is None else rate)
    return [_finite(float(value)) for value in total]


def _why_stopped(scene: Scene, legs: Sequence[Leg]) -> str:
    for leg in legs:
        if leg.why:
            return f"{leg.row['instrument']}: {leg.why}"
        if _rate(scene, leg.row["currency"]) is None:
            return f"{leg.row['instrument']}: no exchange rate of {leg.row['currency']}"
    return ""


def scenario_by_leg(scene: Scene, scenario: Scenario) -> Row:
    """A scenario's P&L by leg, repriced; beside it the Taylor terms from the Greeks of now, and what they miss.

    terms: theta dt + charm dS dt + delta dS + gamma dS^2/2 + vega dv + vanna dS dv + volga dv^2/2, dt up to the expiry.
    """
    shift = np.asarray([scenario.spot_percent])
    legs = revalue(scene, spot_percent=shift, vol_points=scenario.vol_points, days=scenario.days)
    lines = []
    for leg in legs:
        terms = _taylor(scene, leg, scenario)
        pnl = _finite(float(leg.pnl[0]))
        taylor = None if terms is None else sum(terms.values())
        lines.append(
            {
                **leg.row,
                "pnl": pnl,
                "taylor": taylor,
                "difference": None if pnl is None or taylor is None else pnl - taylor,
                "terms": terms,
                "unknown": _leg_unknown(pnl, taylor, leg.why),
            }
        )
    total = sum_rows(scene, lines, ("pnl", "taylor", "difference"))
    return {
        "spot_percent": scenario.spot_percent,
        "vol_points": scenario.vol_points,
        "days": scenario.days,
        "legs": lines,
        "total": {"currency": scene.config.session.base_currency, **total},
        "notes": _floored(scene, scenario.vol_points),
    }


def _leg_unknown(pnl: float | None, taylor: float | None, why: str) -> dict[str, str]:
    known = {"pnl": pnl, "taylor": taylor, "difference": None if pnl is None or taylor is None else 0.0}
    return {name: why or "not a number" for name, value in known.items() if value is None}


def _taylor(scene: Scene, leg: Leg, scenario: Scenario) -> dict[str, float] | None:
    """The Taylor terms of one leg in its currency, None when its Greeks are unknown."""
    if leg.why:
        return None
    key = leg.row["instrument"]
    item = scene.universe.get(key)
    if not isinstance(item, OptionContract):
        return {"delta": float(leg.pnl[0])}
    s = scene.valuation.slice(item.underlying)
    row = s.rows[key]
    units = _units_now(scene, s)
    g = {name: float(getattr(units, name)[row]) for name in UnitGreeks._fields}
    if scene.valuation.settings.pricer == "table":
        g |= dict.fromkeys(_TABLE_KNOWS_NOT, 0.0)  # without a move of vol, which is refused, these terms are zero
    weight = float(scene.positions[key]) * float(item.multiplier)
    spot, vol = scene.valuation.spot(item.underlying), float(s.vol[row])
    dS = spot * scenario.spot_percent / 100.0
    dv = 0.0 if not scenario.vol_points else max(vol + scenario.vol_points / 100.0, 0.0) - vol
    later = scene.now + round(min(scenario.days * NS_PER_DAY, item.expiry - scene.now))
    dt = (s.clock.at(later) - s.clock.at(scene.now)) / NS_PER_YEAR
    terms = {
        "theta": g["theta"] * dt,
        "charm": g["charm"] * dS * dt,
        "delta": g["delta"] * dS,
        "gamma": 0.5 * g["gamma"] * dS**2,
        "vega": g["vega"] * dv,
        "vanna": g["vanna"] * dS * dv,
        "volga": 0.5 * g["volga"] * dv**2,
    }
    scaled = {name: weight * value for name, value in terms.items()}
    return scaled if all(math.isfinite(value) for value in scaled.values()) else None


def _floored(scene: Scene, vol_points: float) -> list[str]:
    notes = []
    for key in scene.positions:
        item = scene.universe.get(key)
        if isinstance(item, OptionContract):
            s = scene.valuation.slice(item.underlying)
            if float(s.vol[s.rows[key]]) + vol_points / 100.0 < 0.0:
                notes.append(f"{key}: its vol would fall below zero and was held at zero")
    return notes


# --------------------------------------------------------------------------- for a person


def render_risk(document: Row) -> RenderableType:
    """The document as tables for a terminal; what is unknown shows as `?` with its reason below."""
    parts: list[RenderableType] = [Text(_headline(document))]
    parts += [Text(f"note: {note}") for note in document["notes"]]
    parts += [
        _positions_table(document["contracts"]),
        _contract_table([row for row in document["contracts"] if row["kind"] == "option"]),
        _greeks_table("Greeks by expiry", document["expiries"], ("underlying", "expiry")),
        _greeks_table("Greeks by underlying", document["underlyings"], ("underlying",)),
        _total_table(document["total"]),
        _ahead_table(document["ahead"]),
        _grid_table(document["grid"]),
    ]
    if document["scenario"] is not None:
        parts.append(_scenario_table(document["scenario"]))
        parts += [Text(f"note: {note}") for note in document["scenario"]["notes"]]
    parts += [Text(f"unknown: {reason}") for reason in _reasons(document)]
    return Group(*parts)


def _headline(document: Row) -> str:
    added = ", ".join(f"{a['quantity']:+g} {a['instrument']}" for a in document["additions"])
    return (
        f"{document['name']} as of {document['as_of']}, in {document['base_currency']}; vols: {document['vol_source']}, "
        f"pricer: {document['pricer']}, smile: {document['smile']}, days: {document['day_count']}"
        + (f"; with {added} added in thought" if added else "")
        + ". Nothing was sent."
    )


def _table(title: str, columns: Sequence[str], left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    for place, name in enumerate(columns):
        table.add_column(_folded(name), justify="left" if place < left else "right", no_wrap=True)
    return table


def _folded(name: str) -> str:
    """A heading on two lines when it is long, so that numbers, not words, set the width."""
    words = name.split(" ")
    if len(name) <= 9 or len(words) == 1:
        return name
    half = min(range(1, len(words)), key=lambda i: abs(len(" ".join(words[:i])) - len(" ".join(words[i:]))))
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])


def _positions_table(rows: Sequence[Row]) -> Table:
    names = ("position", "held", "mark", "quote age", "vol %", "vol age", "value", "delta", "cash delta", "currency")
    table = _table("Positions", names)
    for row in rows:
        option = row["kind"] == "option"
        vol = row.get("vol")
        table.add_row(
            row["instrument"],
            f"{row['quantity']:+g}" + (f" ({row['added']:+g} added)" if row["added"] else ""),
            _shown(row["mark"], 4),
            _age(row["quote_age_seconds"]),
            _shown(None if vol is None else 100.0 * vol, 2) if option else "-",
            _age(row["vol_age_seconds"]) if option else "-",
            _shown(row["value"], 2),
            _shown(row["delta"], 4),
            _shown(row["cash_delta"], 2),
            row["currency"],
        )
    return table


def _contract_table(rows: Sequence[Row]) -> Table:
    names = ("position", "gamma", "gamma per 1%", "vega per pt", "theta per day", "rho per 1%")
    table = _table("Greeks by contract", (*names, "vanna per pt", "volga per pt", "charm per day"))
    money = ("gamma_per_percent", "vega_per_point", "theta_per_day", "rho_per_percent")
    for row in rows:
        table.add_row(
            row["instrument"],
            _shown(row["gamma"], 4),
            *(_shown(row[name], 2) for name in money),
            *(_shown(row[name], 4) for name in ("vanna_per_point", "volga_per_point", "charm_per_day")),
        )
    return table


def _greeks_table(title: str, rows: Sequence[Row], keys: Sequence[str]) -> Table:
    fields = (*UNIT_FIELDS[:2], *MONEY_FIELDS[:6])
    table = _table(title, (*keys, *(name.replace("_", " ") for name in fields)), left=len(keys))
    for row in rows:
        table.add_row(
            *(str(row[key])[:16].replace("T", " ") for key in keys),
            *(_shown(row[name], 4 if name in UNIT_FIELDS else 2) for name in fields),
        )
    return table


def _total_table(total: Row) -> Table:
    table = _table(f"Total, {total['currency']}", tuple(name.replace("_", " ") for name in MONEY_FIELDS), left=0)
    table.add_row(*(_shown(total[name], 2) for name in MONEY_FIELDS))
    return table


def _ahead_table(rows: Sequence[Row]) -> Table:
    names = ("option", "contracts", "days left", "strike away %", "in 1-day sd", "", "settles", "early close", "pin")
    table = _table("Expiries ahead", names)
    for row in rows:
        table.add_row(
            row["instrument"],
            f"{row['contracts']:+g}",
            _shown(row["days_left"], 2),
            _shown(row["distance_percent"], 2),
            _shown(row["distance_one_day_sd"], 2),
            row["moneyness"] or "?",
            f"{row['settlement']} {row['session']}",
            "yes" if row["early_close"] else "",
            "PIN" if row["pin"] else "",
        )
    return table


def _grid_table(grid: Row) -> Table:
    title = f"P&L in {grid['currency']} if prices move by % (across) and vols by points (down), book repriced"
    table = _table(title, ("vol", *(f"{spot:+g}%" for spot in grid["spot_percent"])))
    for points, line in zip(grid["vol_points"], grid["pnl"], strict=True):
        table.add_row(f"{points:+g}", *(_shown(value, 0) for value in line))
    return table


def _scenario_table(found: Row) -> Table:
    title = (
        f"Scenario: prices {found['spot_percent']:+g}%, vols {found['vol_points']:+g} points, {found['days']:g} days"
    )
    table = _table(title, ("leg", "P&L repriced", "Taylor", "difference", "currency"))
    for leg in found["legs"]:
        figures = (_shown(leg[name], 2) for name in ("pnl", "taylor", "difference"))
        table.add_row(leg["instrument"], *figures, leg["currency"])
    total = found["total"]
    figures = (_shown(total[name], 2) for name in ("pnl", "taylor", "difference"))
    table.add_row("total", *figures, total["currency"])
    return table


def _shown(value: float | None, digits: int) -> str:
    """The number with `digits` decimals, fewer when it is large: nobody reads the cents of a million."""
    if value is None:
        return "?"
    size = abs(value)
    kept = 0 if size >= 1e5 else min(digits, 1) if size >= 1e4 else min(digits, 2) if size >= 1e3 else digits
    return f"{value:,.{kept}f}"


def _age(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds:,.0f} s"


def _reasons(document: Row) -> list[str]:
    """The reasons of all nulls, each once."""
    found: dict[str, None] = {}
    for row in (*document["contracts"], *document["ahead"]):
        for reason in row["unknown"].values():
            found[f"{row['instrument']}: {reason}"] = None
    for reason in document["total"]["unknown"].values():
        found[reason] = None
    if document["grid"]["unknown"]:
        found[document["grid"]["unknown"]] = None
    return list(found)


__all__ = [
    "Addition",
    "Reached",
    "Scenario",
    "Scene",
    "expiries_ahead",
    "parse_addition",
    "parse_scenario",
    "render_risk",
    "replay_to",
    "revalue",
    "risk",
    "spot_vol_grid",
    "stage",
]
