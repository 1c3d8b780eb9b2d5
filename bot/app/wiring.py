"""Wiring turns a config into a run: it resolves the book, loads plug-ins by name and joins the rooms; it names no adapter.

Law: everything a run could stumble over in its inputs is found here, before anything is written.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self, cast

import msgspec
import numpy as np

from bot import __version__
from bot.app import config as configs
from bot.app.book_file import LoadedBook, check_book, load_book
from bot.app.calendars import named
from bot.app.config_parts import bare
from bot.app.config_strategies import DeltaHedgerConfig
from bot.app.contracts import resolve_instrument
from bot.app.history_file import read_history
from bot.app.marks_file import read_vol_marks
from bot.app.plugins import Group, load, typed_options
from bot.core.errors import BookError, ConfigError, NotDelivered, PluginError
from bot.core.events import FeedEvent
from bot.core.hedge_cost import CostEstimate, EstimatedHedge
from bot.core.ports import (
    BindsUniverse,
    Broker,
    Capabilities,
    Feed,
    FeedReport,
    Hedge,
    HedgePolicy,
    InLoopBroker,
    ListsInstruments,
    ListsLater,
    Prepares,
    ShapesDelta,
    Strategy,
    VolSource,
)
from bot.domain.calendar import Sessions
from bot.domain.instruments import (
    ConvertibleBond,
    Index,
    Instrument,
    OptionContract,
    Perpetual,
    Spot,
    Universe,
    occ_id,
)
from bot.domain.market import TradeBatch
from bot.domain.units import (
    DAYS_PER_YEAR,
    NS_PER_DAY,
    NS_PER_MINUTE,
    Nanos,
    iso,
    parse_instant,
    utc_date,
    years_between,
)
from bot.engine import limits
from bot.engine.account import Account
from bot.engine.early_exercise import CashDividend
from bot.engine.exposure import Proxy, Units
from bot.engine.gate import GateSettings, Mode
from bot.engine.journal import CommitThread, FileStore, Header, JournalWriter, open_live
from bot.engine.kill import rung_of
from bot.engine.loop import Loop, LoopSettings, Opening
from bot.engine.marks import Marks
from bot.engine.model_check import CheckSettings
from bot.engine.recovery import Recovered
from bot.engine.shadows import Idle, Once
from bot.engine.smiles import Rule, SmileRule, SurfaceSettings
from bot.engine.valuation import PARITY, DeltaTable, SpotSource, Valuation, ValuationSettings
from bot.engine.vol_sources import ForecastSettings

SESSIONS_PER_YEAR: Final = 252.0
"""Daily bars that count in a year, where the config does not say."""

_STRATEGY_KEYS = frozenset({"kind", "name", "book", "policy", "underlyings", "on_fault"})
"""Keys of a [[strategies]] entry that wiring reads itself; the rest go to the factory as they are."""


class Run:
    """One run, wired and not yet started."""

    def __init__(
        self,
        *,
        config: configs.Config,
        run_id: str,
        book: LoadedBook,
        universe: Universe,
        feeds: Sequence[Feed],
        accounts: Sequence[Account],
        loop: Loop,
        sessions: Mapping[str, Sessions],
        journal: JournalWriter,
        committer: CommitThread | None = None,
        recovered: int = 0,
    ) -> None:
        self.config = config
        self.run_id = run_id
        self.book = book
        self.universe = universe
        self.feeds = list(feeds)
        self.accounts = list(accounts)
        self.loop = loop
        self.sessions = sessions
        self.journal = journal
        self.committer = committer
        """The thread that will commit a live journal; None for a replay's."""
        self.recovered = recovered
        """Records a live journal held when it was opened."""

    @property
    def recorded(self) -> bool:
        """True when every feed's times are a recording's."""
        return all(feed.recorded for feed in self.feeds)

    @property
    def capabilities(self) -> Capabilities:
        """What the dynamic account's broker can do."""
        return self.accounts[0].broker.capabilities


def run_id_of(config: configs.Config) -> str:
    """The id of a run of a config: its name and the beginning of its hash."""
    return f"{config.name}-{configs.config_hash(config)[:10]}"


def assemble(config: configs.Config, *, journal: Path | None, run_id: str | None = None) -> Run:
    """The run a config describes, its journal at `journal` (in memory when None)."""
    refuse_undelivered(config)
    book = read_book(config)
    wanted = resolve_wanted(config, book)
    feeds = [make_feed(feed, config, wanted) for feed in config.feeds]
    companions = parity_companions(config, book)
    wanted += companions.values()
    feeds += [make_parity_feed(feed, config, wanted, companions) for feed in config.feeds if companions]
    listed = [item for feed in feeds if isinstance(feed, ListsInstruments) for item in feed.instruments("")]
    known = {item.id: item for item in [*listed, *wanted]}  # the book's own words win over a feed's
    universe = Universe(known.values())
    for feed in feeds:
        if isinstance(feed, BindsUniverse):
            feed.bind(universe)
    marks = Marks(universe)
    valuation = Valuation(universe, marks, valuation_settings(config, book))
    sessions = sessions_of(universe, config)
    accounts = make_accounts(config, universe, marks, valuation, sessions)
    valuation.on_alarm = accounts[0].alarm
    identity = run_id or run_id_of(config)
    header = Header(
        run_id=identity,
        config_hash=configs.config_hash(config),
        release=__version__,
        durability=config.storage.durability,
    )
    committer, recovered = None, Recovered(accounts)
    if header.durability == "live":
        refuse_recorded(config, feeds)
        committer = CommitThread()
        writer: JournalWriter = open_live(
            FileStore(live_path(journal)), header, nudge=committer.nudge, replayed=recovered.take
        )
    else:
        writer = JournalWriter(journal, header)
    loop = Loop(
        settings=loop_settings(config),
        universe=universe,
        marks=marks,
        valuation=valuation,
        accounts=accounts,
        openings=openings_of(config, book),
        needed=needed_of(config),
        journal=writer,
        tradable=tradable_of(config, universe, feeds),
        lists=picks_options(config),
    )
    loop.recover(recovered)
    return Run(
        config=config,
        run_id=identity,
        book=book,
        universe=universe,
        feeds=feeds,
        accounts=accounts,
        loop=loop,
        sessions=sessions,
        journal=writer,
        committer=committer,
        recovered=writer.seq if committer is not None else 0,
    )


def live_path(journal: Path | None) -> Path:
    """Where a live journal lies; ConfigError when the run is not kept anywhere."""
    if journal is None:
        raise ConfigError("storage.durability = 'live': expected a run that is kept, found one in memory only")
    return journal


def refuse_recorded(config: configs.Config, feeds: Sequence[Feed]) -> None:
    """A live journal is recovered by waiting for new prices: a recording has none."""
    recorded = [feed.name for feed in feeds if feed.recorded]
    if recorded:
        raise ConfigError(
            f"{config.path.name}: storage.durability = 'live': expected live feeds, found recorded ones "
            f"({', '.join(recorded)}); a recording can be run again, so use 'replay'"
        )


# --------------------------------------------------------------------------- what is asked for


def refuse_undelivered(config: configs.Config) -> None:
    """Refuse by name what the configuration may say and this release does not do."""
    for entry in config.strategies:
        if entry.on_fault == "hedge_only":
            raise NotDelivered(f"{config.path.name}: on_fault = 'hedge_only' is not delivered yet; use 'frozen'")


def read_book(config: configs.Config) -> LoadedBook:
    """The book of a config, refused when something in it has expired by the session's start."""
    start = config.session.start
    if config.book.file is None:
        return with_listed(_empty_book(config), config)
    book = load_book(
        config.book.file,
        columns=config.book.columns or None,
        start=start,
        account="main",
        book=config.book.name,
        known=convertibles_of(config),
    )
    faults = check_book(book, start)
    if faults:
        raise BookError("\n".join(faults))
    held = sorted({position.key.book for position in book.positions})
    filled = {entry.book for entry in config.strategies if not getattr(entry, "holds_book", False)} | set(held)
    for entry in config.strategies:
        if book.positions and entry.book not in filled:
            raise ConfigError(
                f"{config.path.name}: strategies {entry.name or entry.kind!r}: book: expected a book of "
                f"{config.book.file.name} ({', '.join(held)}), found {entry.book!r}"
            )
    if not book.positions:
        raise BookError(f"{config.book.file.name}: expected at least one position, found none")
    if config.pricing.chain is not None:
        book = with_chain(book, config, config.pricing.chain)
    return with_listed(book, config)


def _empty_book(config: configs.Config) -> LoadedBook:
    """A book of nothing; ConfigError when a strategy hedges what is held and nothing else."""
    for entry in config.strategies:
        if getattr(entry, "holds_book", False):
            alone = all(getattr(other, "holds_book", False) for other in config.strategies)
            if alone:
                raise ConfigError(
                    f"{config.path.name}: book.file: expected the positions that {entry.kind!r} hedges, found none"
                )
    if config.pricing.chain is not None:
        raise ConfigError(f"{config.path.name}: pricing.chain: expected a book beside it; use [[chains]] without one")
    return LoadedBook(path="", positions=(), lines=(), instruments=(), underlyings=(), prices={}, vols={})


def with_listed(book: LoadedBook, config: configs.Config) -> LoadedBook:
    """The book with every contract of [[chains]] known beside its own; nothing of them is held."""
    known: dict[str, Instrument] = {item.id: item for item in book.instruments}
    underlyings = {item.id: item for item in book.underlyings}
    for number, chain in enumerate(config.chains):
        where = f"{config.path.name}: chains[{number}]"
        try:
            underlying = resolve_instrument(chain.underlying)
            underlyings.setdefault(underlying.id, underlying)
            sides = {"both": (1, -1), "call": (1,), "put": (-1,)}[chain.cp]
            for expiry, strike, cp in itertools.product(chain.expiries, chain.strike_list(), sides):
                contract = resolve_instrument(occ_id(chain.root, expiry, cp, strike), underlying=underlying.id)
                if isinstance(contract, OptionContract) and contract.expiry > config.session.start:
                    known.setdefault(contract.id, contract)
        except ValueError as fault:
            raise ConfigError(f"{where}: {fault}") from fault
    return msgspec.structs.replace(book, instruments=tuple(known.values()), underlyings=tuple(underlyings.values()))


def picks_options(config: configs.Config) -> bool:
    """Whether any strategy may trade any listed option."""
    entries = [*config.strategies, *(entry for item in config.alternatives for entry in item.strategies)]
    return bool(config.chains) or any(getattr(entry, "picks_options", False) for entry in entries)


def tradable_of(config: configs.Config, universe: Universe, feeds: Sequence[Feed] = ()) -> list[str]:
    """Ids of the options that strategies may trade from the start besides the book's: all listed, where one picks options."""
    if not picks_options(config):
        return []
    later = {key for feed in feeds if isinstance(feed, ListsLater) for key in feed.listed_later()}
    return [item.id for item in universe if isinstance(item, OptionContract) and item.id not in later]


def with_chain(book: LoadedBook, config: configs.Config, path: Path) -> LoadedBook:
    """The book with the contracts of a chain file known beside its own; nothing of them is held."""
    chain = load_book(path, start=config.session.start)
    faults = check_book(chain, config.session.start)
    if faults:
        raise BookError("\n".join(f"{path.name}: {fault}" for fault in faults))
    own = {item.id for item in book.underlyings}
    strangers = sorted({c.underlying for c in chain.instruments if isinstance(c, OptionContract)} - own)
    if strangers:
        raise ConfigError(
            f"{config.path.name}: pricing.chain: expected options on the book's underlyings ({', '.join(sorted(own))}), "
            f"found {', '.join(strangers)}"
        )
    options = {item.id: item for item in chain.instruments if isinstance(item, OptionContract)}
    known = {**options, **{item.id: item for item in book.instruments}}
    return msgspec.structs.replace(book, instruments=tuple(known.values()))


def convertibles_of(config: configs.Config) -> dict[str, ConvertibleBond]:
    """The bonds of [[convertibles]] by id; ConfigError for a share that is none."""
    found: dict[str, ConvertibleBond] = {}
    for number, table in enumerate(config.convertibles):
        try:
            share = resolve_instrument(table.underlying)
            bond = table.built(share.id)
        except ValueError as fault:
            raise ConfigError(f"{config.path.name}: convertibles[{number}]: {fault}") from fault
        found[bond.id] = bond
    return found


def id_of(text: str, config: configs.Config) -> str:
    """The canonical id behind a config's word for an instrument, a bond of [[convertibles]] among them."""
    word = text.strip().upper()
    if any(word == table.id.strip().upper() for table in config.convertibles):
        return word
    return resolve_instrument(text).id


def resolve_wanted(config: configs.Config, book: LoadedBook) -> list[Instrument]:
    """The instruments of book, underlyings and hedges, with the changes the config makes to them."""
    known: dict[str, Instrument] = {item.id: item for item in book.universe}
    for bond in convertibles_of(config).values():
        known[bond.id] = bond
        known.setdefault(bond.underlying, resolve_instrument(bond.underlying))
    for hedge in config.hedges:
        for text in (hedge.underlying, hedge.instrument):
            item = _resolve(text, config, known)
            known.setdefault(item.id, item)
        item = known[hedge_id(hedge.instrument, known)]
        _refuse_bare_index(item, hedge, config)
        changes = {
            name: value
            for name, value in (
                ("multiplier", hedge.multiplier),
                ("tick", hedge.tick),
                ("lot", hedge.lot),
                ("calendar", hedge.calendar),
            )
            if value is not None
        }
        if changes:
            known[item.id] = msgspec.structs.replace(item, **changes)
    for text in (*config.session.fx.values(), *named_by_strategies(config)):
        item = _resolve(text, config, known)
        known.setdefault(item.id, item)
    for hedge in config.hedges if all(getattr(entry, "holds_book", False) for entry in config.strategies) else ():
        underlying = hedge_id(hedge.underlying, known)
        if not any(isinstance(c, OptionContract) and c.underlying == underlying for c in known.values()):
            held = sorted({c.underlying for c in known.values() if isinstance(c, OptionContract)})
            raise ConfigError(
                f"{config.path.name}: hedges: expected an underlying of the book ({', '.join(held)}), "
                f"found {hedge.underlying!r}"
            )
    return [known[key] for key in sorted(known)]


def _refuse_bare_index(item: Instrument, hedge: configs.Hedge, config: configs.Config) -> None:
    """An index without an assumed spread would have every order rejected: said before anything runs."""
    broker = config.broker
    if not isinstance(item, Index) or not isinstance(broker, configs.PaperBroker):
        return
    if hedge.spread is None and broker.spread.kind == "quoted":
        raise ConfigError(
            f"{config.path.name}: hedges: {item.id}: nobody can hold an index; expected an assumed spread of its "
            'replication, such as spread = {kind = "fixed", half = 0.25}, found none'
        )


def _resolve(text: str, config: configs.Config, known: Mapping[str, Instrument]) -> Instrument:
    if text in known or text.strip().upper() in known:
        return known[text if text in known else text.strip().upper()]
    try:
        return resolve_instrument(text)
    except ValueError as fault:
        raise ConfigError(f"{config.path.name}: hedges: {fault}") from fault


def hedge_id(text: str, known: Mapping[str, Instrument]) -> str:
    """The canonical id behind a config's word for an instrument."""
    return text if text in known else resolve_instrument(text).id


def openings_of(config: configs.Config, book: LoadedBook) -> list[Opening]:
    """The positions every account starts with, one per book and instrument."""
    totals: dict[tuple[str, str], Decimal] = {}
    for position in book.positions:
        key = (position.key.book, position.key.instrument)
        totals[key] = totals.get(key, Decimal(0)) + position.quantity
    use_file = config.book.price_source == "file"
    return [
        Opening(
            book=name,
            instrument=instrument,
            quantity=quantity,
            mark=book.prices.get(instrument) if use_file else None,
            vol=book.vols.get(instrument),
        )
        for (name, instrument), quantity in sorted(totals.items())
        if quantity
    ]


def needed_of(config: configs.Config) -> list[str]:
    """Ids that must have a price before hedging begins."""
    named = [*(hedge.instrument for hedge in config.hedges), *named_by_strategies(config, alternatives=False)]
    return sorted({id_of(text, config) for text in named})


def named_by_strategies(config: configs.Config, *, alternatives: bool = True) -> list[str]:
    """The instruments that strategies' own keys name, as written."""
    entries: list[Any] = list(config.strategies)
    if alternatives:
        entries += [entry for item in config.alternatives for entry in item.strategies]
    return [text for entry in entries if isinstance(entry, configs.StrategyTable) for text in entry.instruments()]


# --------------------------------------------------------------------------- rooms


def find_factory(group: Group, name: str, config: configs.Config) -> Any:
    """The plug-in a config names; PluginError naming the config when there is none to be used."""
    try:
        return load(group, name, config.plugins.allow)
    except PluginError as fault:
        raise PluginError(f"{config.path.name}: {fault}") from fault


def make_feed(feed: Any, config: configs.Config, wanted: Sequence[Instrument]) -> Feed:
    """The feed a [[feeds]] entry names."""
    factory = find_factory("feeds", feed.kind, config)
    settings = configs.feed_settings(feed, config)
    options = typed_options(factory, settings, f"{config.path.name}: feeds {feed.kind!r}")
    made = factory(options, wanted=wanted)
    if not isinstance(made, Feed):
        raise ConfigError(f"{config.path.name}: feeds {feed.kind!r}: the plug-in does not satisfy the Feed protocol")
    return made


def parity_companions(config: configs.Config, book: LoadedBook) -> dict[str, Instrument]:
    """By underlying id, the instrument its parity price is kept under; empty unless forwards come from parity."""
    if config.pricing.forward != "parity":
        return {}
    for feed in config.feeds:
        if not isinstance(feed, configs.ReplayFeed):
            raise ConfigError(
                f"{config.path.name}: pricing.forward = 'parity': expected replay feeds with a chain, found {feed.kind!r}"
            )
    return {item.id: Index(id=f"{item.id}{PARITY}", currency=item.currency) for item in book.underlyings}


def make_parity_feed(
    feed: Any, config: configs.Config, wanted: Sequence[Instrument], companions: Mapping[str, Instrument]
) -> Feed:
    """A second reading of a recorded feed that yields its parity prices only, under their companions."""
    derived = feed.model_copy(update={"underlying": "parity_forward", "name": f"{feed.name or feed.kind}-parity"})
    own = [item for item in wanted if item.id not in {c.id for c in companions.values()}]
    return ParityFeed(make_feed(derived, config, own), {key: item.id for key, item in companions.items()})


class ParityFeed:
    """The prints of a recorded feed's underlyings, renamed to their companions. Implements `Feed`."""

    recorded = True

    def __init__(self, inner: Feed, companions: Mapping[str, str]) -> None:
        self.name = inner.name
        self._inner = inner
        self._companions = dict(companions)
        self._to: dict[int, int] = {}

    def bind(self, universe: Universe) -> None:
        """Tell the feed within its columns, and keep those to rename."""
        if isinstance(self._inner, BindsUniverse):
            self._inner.bind(universe)
        self._to = {universe.index(key): universe.index(name) for key, name in self._companions.items()}

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *fault: Any) -> None:
        await self._inner.__aexit__(*fault)

    async def events(self) -> AsyncIterator[FeedEvent]:
        """Parity prints alone."""
        async for item in self._inner.events():
            if not isinstance(item, TradeBatch):
                continue
            rows = np.isin(item.instrument, list(self._to))
            if not rows.any():
                continue
            column = np.array([self._to[int(k)] for k in item.instrument[rows]], dtype=np.int32)
            yield TradeBatch(
                instrument=column,
                ts_event=item.ts_event[rows],
                ts_recv=item.ts_recv[rows],
                price=item.price[rows],
                size=item.size[rows],
            )

    def report(self) -> FeedReport:
        """The notes of the feed within; its rows are counted by the feed that plays them."""
        return FeedReport(notes=self._inner.report().notes)


def make_broker(config: configs.Config, universe: Universe, *, simulated: bool = False) -> InLoopBroker | Broker:
    """The broker of [broker]; `simulated` asks for the paper one whatever the config names, for shadow accounts."""
    kind = config.broker.kind
    if simulated and kind != "paper":
        factory = load("brokers", "paper", ())
        return factory({}, seed=config.broker.seed)  # type: ignore[no-any-return]  # plug-ins are checked just below
    factory = find_factory("brokers", kind, config)
    settings = configs.broker_settings(canonical(config), {item.id: _kind(item) for item in universe})
    made = factory(settings, seed=config.broker.seed)
    if not isinstance(made, InLoopBroker | Broker):
        raise ConfigError(f"{config.path.name}: broker {kind!r}: the plug-in does not satisfy a broker protocol")
    return made


def canonical(config: configs.Config) -> configs.Config:
    """The config with the instruments its hedges and fees name under their canonical ids ("SPX" is INDEX:SPX)."""
    hedges = tuple(
        hedge.model_copy(update={"instrument": resolve_instrument(hedge.instrument).id}) for hedge in config.hedges
    )
    broker = config.broker
    if isinstance(broker, configs.PaperBroker):
        fees = tuple(
            fee.model_copy(update={"applies_to": tuple(map(_product, fee.applies_to))}) for fee in broker.commission
        )
        margins = {resolve_instrument(text).id: sum_ for text, sum_ in broker.margin_per_contract.items()}
        broker = broker.model_copy(update={"commission": fees, "margin_per_contract": margins})
    return config.model_copy(update={"hedges": hedges, "broker": broker})


KINDS = frozenset({"spot", "index", "future", "perpetual", "option", "convertible", "*"})


def _product(text: str) -> str:
    return text if text in KINDS else resolve_instrument(text).id


def _kind(item: Instrument) -> str:
    return str(item.__struct_config__.tag)


def make_policy(policy: Any, config: configs.Config) -> HedgePolicy:
    """The policy of a table with its `kind`; one around another with the other made first."""
    factory = find_factory("policies", policy.kind, config)
    settings = policy.settings()
    if isinstance(settings.get("inner"), configs.Kinded):
        settings["inner"] = make_policy(settings["inner"], config)
    if isinstance(policy, configs.CallablePolicy):
        refuse_unallowed(policy.function, config)
    if isinstance(policy, configs.FixedFeeBandPolicy) and policy.fee is None:
        settings["fee"] = fee_of_orders(config)
    try:
        made = factory(**settings)
    except (TypeError, ValueError) as fault:
        raise ConfigError(f"{config.path.name}: policy {policy.kind!r}: {fault}") from fault
    if not isinstance(made, HedgePolicy):
        raise ConfigError(f"{config.path.name}: policy {policy.kind!r} does not satisfy the HedgePolicy protocol")
    if config.pricing.pricer == "table" and isinstance(made, ShapesDelta | Prepares):
        raise ConfigError(
            f"{config.path.name}: policy {policy.kind!r}: expected vols of the legs, which pricing.pricer = 'table' has not"
        )
    return made


def refuse_unallowed(function: str, config: configs.Config) -> None:
    """Refuse a "module:function" whose module the config does not allow by name: nothing else is imported."""
    module = function.partition(":")[0]
    if module not in config.plugins.allow:
        raise PluginError(
            f"{config.path.name}: policy 'callable': function {function!r}: not allowed; add {module!r} to allow under "
            "[plugins]"
        )


def fee_of_orders(config: configs.Config) -> float:
    """What one order pays whatever its size, the same for every hedge; ConfigError when the hedges differ."""
    fees = {cost_estimate(hedge, config).ticket for hedge in config.hedges}
    if len(fees) > 1:
        raise ConfigError(
            f"{config.path.name}: policy 'fixed_fee_band': fee: expected one, since the hedges pay different fees per "
            f"order ({', '.join(f'{fee:g}' for fee in sorted(fees))})"
        )
    return fees.pop() if fees else 0.0


def make_strategy(entry: Any, config: configs.Config, policy: HedgePolicy | None) -> Strategy:
    """The strategy of a [[strategies]] entry, with the policy given instead of its own when it takes one."""
    factory = find_factory("strategies", entry.kind, config)
    try:
        made = factory(**_settings_of(entry, config, policy))
    except (TypeError, ValueError) as fault:
        raise ConfigError(f"{config.path.name}: strategy {entry.kind!r}: {fault}") from fault
    if not isinstance(made, Strategy):
        raise ConfigError(f"{config.path.name}: strategy {entry.kind!r} does not satisfy the Strategy protocol")
    return made


def _settings_of(entry: Any, config: configs.Config, policy: HedgePolicy | None) -> dict[str, Any]:
    """What a strategy's factory is given: its keys, instruments under their ids, and what a hedger of the book needs."""
    settings = {key: value for key, value in entry.settings().items() if key not in _STRATEGY_KEYS}
    settings |= {"book": entry.book, "name": entry.name or entry.kind}
    if not _takes_policy(entry):
        settings = _with_ids(settings, getattr(entry, "instrument_keys", ()), config)
        return settings | _forecast_of(entry, config)
    chosen = policy
    if chosen is None and entry.policy is not None:
        chosen = make_policy(entry.policy, config)
    return settings | {
        "hedges": hedges_of(config, getattr(entry, "underlyings", ())),
        "policy": chosen,
        "fallback": config.pricing.fallback_delta,
    }


def _forecast_of(entry: Any, config: configs.Config) -> dict[str, Any]:
    """The forecast of a strategy that has one of its own, with the bars that count in a year of its underlying's sessions."""
    forecast = getattr(entry, "forecast", None)
    if forecast is None:
        return {}
    periods = _periods(forecast, resolve_instrument(entry.underlying), config)
    return {"forecast": bare(forecast) | {"periods_per_year": periods}}


def _takes_policy(entry: Any) -> bool:
    return "policy" in type(entry).model_fields


def _with_ids(settings: Mapping[str, Any], keys: Sequence[str], config: configs.Config) -> dict[str, Any]:
    """Settings with the instruments under `keys`, in tables below too, under their canonical ids."""
    found = dict(settings)
    for key, value in settings.items():
        if key in keys:
            found[key] = id_of(value, config) if isinstance(value, str) else [id_of(text, config) for text in value]
        elif isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
            found[key] = [_with_ids(item, keys, config) for item in value]
    return found


def make_strategies(
    entries: Sequence[Any], config: configs.Config, policy: HedgePolicy | None, twin: type[Idle] | type[Once] | None
) -> list[Strategy]:
    """An account's strategies; one that takes no policy is held back as `twin` says."""
    made: list[Strategy] = []
    for entry in entries:
        planless = twin is not None and isinstance(entry, DeltaHedgerConfig)
        known = entry.model_copy(update={"overnight": None, "halt": None}) if planless else entry
        strategy = make_strategy(known, config, policy)
        made.append(strategy if twin is None or _takes_policy(entry) else twin(strategy))
    return made


def hedges_of(config: configs.Config, chosen: Sequence[str]) -> list[Hedge]:
    """The [[hedges]] a strategy uses: those of the chosen underlyings, all when it names none."""
    ids = {resolve_instrument(text).id for text in chosen}
    found = [hedge_of(hedge, config) for hedge in config.hedges]
    return [hedge for hedge in found if not ids or hedge.underlying in ids]


def hedge_of(hedge: configs.Hedge, config: configs.Config) -> Hedge:
    """One [[hedges]] entry; without a cost of its own, with the estimate that stands for it."""
    known: dict[str, Any] = {
        "underlying": resolve_instrument(hedge.underlying).id,
        "instrument": resolve_instrument(hedge.instrument).id,
        "target_delta": hedge.target_delta,
        "beta": hedge.beta,
        "lot": hedge.lot,
        "toward_zero": hedge.rounding == "toward_zero",
    }
    estimate = cost_estimate(hedge, config)
    if hedge.cost is not None:
        estimate = CostEstimate(fraction=hedge.cost, ticket=estimate.ticket)
    return EstimatedHedge(**known, cost=estimate.fraction, estimate=estimate)


def cost_estimate(hedge: configs.Hedge, config: configs.Config) -> CostEstimate:
    """What one way of trading a hedge instrument is expected to take, from [broker] and the hedge's own spread.

    Half the spread (quoted, assumed, or k vol sqrt(interval) where the vol is given), the fees in basis points and per
    contract, and apart the fees per order. Left out: minima and caps, impact, a volatility spread whose vol is measured,
    and the fees per contract of inverse contracts. A plug-in broker's fees are not known: half the quoted spread.
    """
    broker = config.broker
    if not isinstance(broker, configs.PaperBroker):
        return CostEstimate(quoted=True)
    item = resolve_instrument(hedge.instrument)
    multiplier = float(hedge.multiplier or item.multiplier)
    spread = hedge.spread if hedge.spread is not None else broker.spread
    fraction, per_unit = assumed_half(spread, tick=hedge.tick if hedge.tick is not None else item.tick)
    ticket = 0.0
    for fee in broker.commission:
        if fee.applies_to and not {_kind(item), item.id} & set(map(_product, fee.applies_to)):
            continue
        fraction += 1e-4 * float(fee.bp or 0)
        ticket += float(fee.amount or 0)
        if not (isinstance(item, Perpetual) and item.inverse):
            per_unit += float(fee.rate or 0) / multiplier
    return CostEstimate(fraction=fraction, per_unit=per_unit, quoted=spread.kind == "quoted", ticket=max(ticket, 0.0))


def assumed_half(spread: configs.Spread, *, tick: Decimal | None) -> tuple[float, float]:
    """Half an assumed spread as (fraction of the price, price units), 0 of what only the market can say."""
    if spread.kind == "fixed":
        return 0.0, float(spread.half or 0)
    if spread.kind == "ticks":
        return 0.0, float((spread.ticks or 0) * (tick or 0))
    if spread.kind == "basis_points":
        return 1e-4 * float(spread.bp or 0), 0.0
    if spread.kind == "volatility" and spread.vol is not None:
        length = spread.interval if spread.interval is not None else NS_PER_MINUTE
        return (spread.k or 0.0) * spread.vol * math.sqrt(years_between(0, length)), 0.0
    return 0.0, 0.0


def make_accounts(
    config: configs.Config,
    universe: Universe,
    marks: Marks,
    valuation: Valuation,
    sessions: Mapping[str, Sessions],
) -> list[Account]:
    """dynamic, static, none and the alternatives, each with a broker of its own; only dynamic's may be a real one."""
    static = load("policies", "static", ())()
    none = load("policies", "none", ())()
    plans: dict[str, list[Strategy]] = {
        "dynamic": make_strategies(config.strategies, config, None, None),
        "static": make_strategies(config.strategies, config, static, Once),
        "none": make_strategies(config.strategies, config, none, Idle),
    }
    for item in config.alternatives:
        other = None if item.policy is None else make_policy(item.policy, config)
        plans[item.name] = make_strategies(item.strategies or config.strategies, config, other, None)
    units: Units | None = None
    made: list[Account] = []
    for name, strategies in plans.items():
        broker = make_broker(config, universe, simulated=name != "dynamic")
        if isinstance(broker, InLoopBroker):
            broker.attach(universe, marks, name)
            set_sessions = getattr(broker, "set_sessions", None)
            if set_sessions is not None:
                set_sessions(sessions)
        account = Account(
            name,
            universe=universe,
            marks=marks,
            valuation=valuation,
            broker=broker,
            strategies=strategies,
            base_currency=config.session.base_currency,
            sessions=sessions,
            gate=gate_settings(config, staged=name == "dynamic"),
            units=units,
        )
        units = account.gate.units
        account.ledger.set_opening_apart(config.broker.opening_ticket_apart)
        for currency, amount in config.accounts.opening_cash.items():
            account.ledger.book.add_cash(currency, amount)
        made.append(account)
    return made


def sessions_of(universe: Universe, config: configs.Config) -> dict[str, Sessions]:
    """The session tables of every calendar the run's instruments keep, with margin for expiries."""
    start = config.session.start
    ends = [config.session.end or start]
    ends += [item.settles for item in universe if isinstance(item, OptionContract)]
    last = min(max(ends), start + 400 * NS_PER_DAY if config.session.end is None else config.session.end)
    first_day, last_day = utc_date(start - 10 * NS_PER_DAY), utc_date(last + 10 * NS_PER_DAY)
    names = sorted({item.calendar for item in universe})
    return {name: named(name, first_day, last_day) for name in names}


# --------------------------------------------------------------------------- settings of rooms


def loop_settings(config: configs.Config) -> LoopSettings:
    """The loop's part of a config."""
    session = config.session
    return LoopSettings(
        start=session.start,
        end=session.end,
        begin=session.begin,
        report_grid=session.report_grid,
        remark=config.pricing.remark,
        base_currency=session.base_currency,
        financing_rate=getattr(config.broker, "financing_rate", 0.0),
        compounding=getattr(config.broker, "compounding", "simple"),
        borrow_rate=getattr(config.broker, "borrow_rate", 0.0),
        jump_alarm=config.alarms.jump,
        close_hedges=session.close_hedges,
        fx={currency: resolve_instrument(text).id for currency, text in session.fx.items()},
    )


def valuation_settings(config: configs.Config, book: LoadedBook) -> ValuationSettings:
    """The valuation's part of a config."""
    pricing = config.pricing
    table = pricing.table
    sources: dict[str, SpotSource] = {}
    for feed in config.feeds:
        if isinstance(feed, configs.ReplayFeed):
            sources |= {item.id: feed.underlying for item in book.underlyings}
        elif isinstance(feed, configs.DatasetFeed):
            sources[resolve_instrument(feed.instrument).id] = "trades"
    surface = pricing.surface or configs.SurfaceConfig()
    check = pricing.check
    return ValuationSettings(
        pricer=pricing.pricer,
        smile=smile_rule(pricing),
        surface=SurfaceSettings(
            model=surface.model, sound=surface.sound, max_rmse=surface.max_rmse, min_quotes=surface.min_quotes
        ),
        forecast=None if pricing.forecast is None else forecast_settings(pricing.forecast, config, book),
        check=None
        if check is None
        else CheckSettings(
            pricer=check.pricer,
            every=check.every,
            price_tolerance=check.price_tolerance,
            delta_tolerance=check.delta_tolerance,
        ),
        cash_dividends=cash_dividends(config, book),
        dividend_model=pricing.dividend_model,
        trading=trading_sessions(config, book) if pricing.day_count == "trading" else {},
        remark=pricing.remark,
        mark=pricing.mark,
        vol=pricing.vol,
        vol_value=pricing.vol_value,
        vols=book.vols,
        vol_marks=read_vol_marks(pricing.marks_file) if pricing.marks_file is not None else (),
        rate=pricing.rate,
        rates={item.id: pricing.rates[item.currency] for item in book.underlyings if item.currency in pricing.rates},
        stale_after=pricing.stale_after,
        vol_max_age=pricing.vol_max_age,
        dividend=pricing.dividend,
        dividends={resolve_instrument(key).id: value for key, value in pricing.dividends.items()},
        sources=sources,
        table=None
        if table is None
        else DeltaTable(
            spots=table.spots,
            deltas=table.deltas,
            value=table.value,
            decay_per_year=table.decay_per_day * DAYS_PER_YEAR,
        ),
    )


def smile_rule(pricing: configs.Pricing) -> SmileRule:
    """How vols follow spot."""
    if isinstance(pricing.smile, float):
        return SmileRule(kind="ratio", ratio=pricing.smile)
    kind = cast("Rule", pricing.smile)  # the config allows the rules' names only
    if pricing.hull_white is not None:
        return SmileRule(kind=kind, a=pricing.hull_white.a, b=pricing.hull_white.b, c=pricing.hull_white.c)
    if pricing.sabr is not None:
        return SmileRule(kind=kind, beta=pricing.sabr.beta, rho=pricing.sabr.rho, nu=pricing.sabr.nu)
    return SmileRule(kind=kind)


def forecast_settings(entry: Any, config: configs.Config, book: LoadedBook) -> ForecastSettings:
    """The source of [pricing.forecast], loaded by name, with its bars and history."""
    factory = find_factory("vols", entry.kind, config)
    try:
        source = factory(**entry.settings())
    except (TypeError, ValueError) as fault:
        raise ConfigError(f"{config.path.name}: pricing.forecast {entry.kind!r}: {fault}") from fault
    if not isinstance(source, VolSource):
        raise ConfigError(
            f"{config.path.name}: pricing.forecast {entry.kind!r} does not satisfy the VolSource protocol"
        )
    keys = [item.id for item in book.underlyings]
    return ForecastSettings(
        source=source,
        interval=entry.interval,
        periods_per_year={item.id: _periods(entry, item, config) for item in book.underlyings},
        history={} if entry.history is None else read_history(entry.history, keys),
    )


def _periods(entry: Any, item: Instrument, config: configs.Config) -> float:
    """Bars that count in a year: sessions of a year, or the trading time of one over a bar's length."""
    if entry.periods_per_year is not None:
        return float(entry.periods_per_year)
    if entry.interval >= NS_PER_DAY:
        return SESSIONS_PER_YEAR * NS_PER_DAY / float(entry.interval)
    day = utc_date(config.session.start)
    return named(item.calendar, day, day).trading_ns_per_year / float(entry.interval)


def cash_dividends(config: configs.Config, book: LoadedBook) -> dict[str, list[CashDividend]]:
    """The known dividends by underlying; a date is the instant the underlying's session of that day opens."""
    found: dict[str, list[CashDividend]] = {}
    known = {item.id: item for item in book.underlyings}
    for paid in config.pricing.cash_dividends:
        key = resolve_instrument(paid.underlying).id
        item = known.get(key)
        if not isinstance(item, Spot | Index):
            raise ConfigError(
                f"{config.path.name}: pricing.cash_dividends: expected a share or index of the book "
                f"({', '.join(sorted(known))}), found {paid.underlying!r}"
            )
        found.setdefault(key, []).append(CashDividend(_ex(paid.ex, item, config), paid.amount))
    return found


def _ex(text: str, item: Instrument, config: configs.Config) -> Nanos:
    if "T" in text:
        return parse_instant(text)
    day = date.fromisoformat(text)
    try:
        return named(item.calendar, day, day).open_of(day)
    except ValueError as fault:
        raise ConfigError(f"{config.path.name}: pricing.cash_dividends: {item.id}: {fault}") from fault


def trading_sessions(config: configs.Config, book: LoadedBook) -> dict[str, Sessions]:
    """The sessions of the underlyings' calendars from the start's year to the last expiry's: what a trading year averages."""
    ends = [item.expiry for item in book.instruments if isinstance(item, OptionContract)]
    first, last = utc_date(config.session.start), utc_date(max([config.session.start, *ends]))
    return {item.calendar: named(item.calendar, first, last) for item in book.underlyings}


def limit_settings(config: configs.Config) -> limits.LimitSettings:
    """The limits' part of a config."""
    found = config.limits
    odd = {"restricted", "underlyings", "day_begins", "price_collar"}
    plain: dict[str, Any] = {name: getattr(found, name) for name in type(found).model_fields if name not in odd}
    plain |= {name: rung_of(word) for name, word in plain.items() if name.startswith("on_")}
    try:
        return limits.LimitSettings(
            **plain,
            price_collar=None if found.price_collar is None else float(found.price_collar),
            restricted=tuple(id_of(text, config) for text in found.restricted),
            by_underlying={id_of(table.underlying, config): _bounds_of(table) for table in found.underlyings},
            day_begins=found.day_begins_ns,
        )
    except ValueError as fault:
        raise ConfigError(f"{config.path.name}: limits: {fault}") from fault


def _bounds_of(table: configs.UnderlyingBounds) -> limits.UnderlyingLimits:
    return limits.UnderlyingLimits(**{name: getattr(table, name) for name in limits.RISK_NAMES})


def gate_settings(config: configs.Config, *, staged: bool) -> GateSettings:
    """What the gate of an account holds orders against; only a `staged` account, the one that trades, knows the mode."""
    table = config.mode
    mode = Mode(stage=table.stage, size_fraction=table.size_fraction, confirm_within=table.confirm_within)
    proxies = {}
    for hedge in config.hedges:
        instrument, underlying = id_of(hedge.instrument, config), id_of(hedge.underlying, config)
        if instrument != underlying:
            proxies[instrument] = Proxy(underlying, hedge.beta)
    return GateSettings(limits=limit_settings(config), mode=mode if staged else Mode(), proxies=proxies)


def describe_window(start: Nanos, end: Nanos | None) -> str:
    """The session's window as text."""
    return f"{iso(start)} to {iso(end) if end is not None else 'open end'}"
