"""A config is one run, written down: what is fed, held, priced, hedged, traded and stored, read from one TOML file.

Law: every key is known and typed, or the file is refused with all its faults at once; paths are relative to the file;
`EVENKEEL__SECTION__KEY` overrides a key; secrets come from the environment or from secret files, never from the file.
Two configs that would run the same have the same hash, wherever their files lie. Only this file and its parts, the
`config_*` files, know pydantic.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bot.app.config_broker import BrokerConfig, Commission, PaperBroker, PluginBroker
from bot.app.config_convertibles import ConvertibleTable
from bot.app.config_daemon import Daemon
from bot.app.config_feeds import DatasetFeed, FeedConfig, PluginFeed, ReplayFeed, ScenarioFeed, SyntheticFeed
from bot.app.config_gate import Limits, ModeTable, UnderlyingBounds
from bot.app.config_lab import LAB_TABLES, AdviseTable, CompareTable, SweepTable
from bot.app.config_parts import (
    BUILT_IN,
    DATA_ROOT,
    MAX_FILE_BYTES,
    PLUGIN_KIND,
    POLICY_KINDS,
    SCHEMA_VERSION,
    SECRET_PREFIX,
    SECRETS_DIR,
    TAG,
    Currency,
    FaultsError,
    Flag,
    FolderPath,
    Instant,
    InstrumentText,
    Interval,
    Kinded,
    Name,
    Number,
    Reading,
    Section,
    bare,
    bound_steps,
    is_word,
    once,
    shown,
    shown_span,
)
from bot.app.config_policies import CallablePolicy, DeltaBandPolicy, FixedFeeBandPolicy
from bot.app.config_pricing import BookConfig, Hedge, ListedChain, Pricing, Spread, SurfaceConfig
from bot.app.config_strategies import Accounts, Alternative, StrategyConfig, StrategyTable
from bot.app.config_text import Fault, Key, dotted, nearest, overlay, to_toml
from bot.core.errors import ConfigError
from bot.domain.units import NS_PER_DAY, Nanos, iso, parse_span, span

# --------------------------------------------------------------------------- [session]


class Session(Section):
    """When the run hedges, and on which grids it is measured."""

    start: Instant = Field(description="the run begins at the first report-grid instant from here")
    end: Instant | None = Field(default=None, description="hedges are closed here; absent for a live feed without end")
    report_grid: Interval = Field(
        default=parse_span("1m"), description="P&L, Greeks and attribution are sampled on this grid"
    )
    effectiveness_interval: Interval = Field(
        default=parse_span("1m"), description="non-overlapping intervals of hedge effectiveness"
    )
    base_currency: Currency = Field(default="USD", description="the currency P&L is summed in")
    begin: Literal["two_sided", "immediate"] = Field(
        default="two_sided",
        description="wait for a two-sided quote on every leg, or begin at once, unquoted legs at the book's vols",
    )
    close_hedges: Flag = Field(default=True, description="close the hedges at the end; false leaves them, at mid")
    fx: dict[Currency, InstrumentText] = Field(
        default={}, description="instrument whose price turns a currency into the base one, such as BTC"
    )

    @field_validator("end")
    @classmethod
    def _ends_after_start(cls, end: Nanos | None, info: ValidationInfo) -> Nanos | None:
        start = info.data.get("start")
        if end is not None and start is not None and end <= start:
            raise ValueError(f"expected an instant after session.start {iso(start)}, found {iso(end)}")
        return end

    @field_validator("report_grid", "effectiveness_interval")
    @classmethod
    def _fits(cls, length: Nanos, info: ValidationInfo) -> Nanos:
        start, end = info.data.get("start"), info.data.get("end")
        if start is not None and end is not None and length > end - start:
            raise ValueError(f"expected at most the session's own length, {span(end - start)}, found {span(length)}")
        return length


# --------------------------------------------------------------------------- the rest


class Plugins(Section):
    """Which plug-ins may be loaded."""

    allow: tuple[Name, ...] = Field(
        default=(), max_length=1000, description="names of entry points not of this distribution"
    )


class Storage(Section):
    """Where records go."""

    runs: FolderPath = Field(
        default=Path("runs"), validate_default=True, description="folder of the runs, relative to this file"
    )
    durability: Literal["replay", "live"] = Field(
        default="replay", description="'live' syncs each record before an order leaves; 'replay' syncs at the end"
    )


class Alarms(Section):
    """When a person should look."""

    residual_share: Annotated[Number, Field(gt=0, le=10)] = Field(
        default=0.05, description="of the options' P&L left unexplained by the attribution"
    )
    jump: Annotated[Number, Field(gt=0, le=10)] = Field(
        default=0.05, description="of the spot between two marks, as a fraction"
    )


class Secrets(Section):
    """Names of the secrets this run needs, never their values."""

    names: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], ...] = Field(
        default=(), max_length=100, description=f"each read from {SECRET_PREFIX}NAME or from the file `name` in `dir`"
    )
    dir: FolderPath | None = Field(
        default=None, description=f"folder of secret files; the variable {SECRETS_DIR} when absent"
    )


class Config(Section):
    """One run, resolved. Built by `load_config`."""

    schema_version: Literal[1] = Field(description="the shape of this file")
    name: Name = Field(description="how runs of this file are called")
    session: Session = Field(description="when it hedges")
    feeds: tuple[FeedConfig, ...] = Field(min_length=1, max_length=100, description="where market data comes from")
    book: BookConfig = Field(default_factory=BookConfig, description="what is held at the start")
    chains: tuple[ListedChain, ...] = Field(
        default=(), max_length=1000, description="listed options the strategies may trade besides the book's"
    )
    convertibles: tuple[ConvertibleTable, ...] = Field(
        default=(), max_length=1000, description="convertible bonds, by their terms"
    )
    pricing: Pricing = Field(default_factory=Pricing, description="what it is worth")
    hedges: tuple[Hedge, ...] = Field(default=(), max_length=1000, description="what each underlying is hedged with")
    strategies: tuple[StrategyConfig, ...] = Field(min_length=1, max_length=100, description="who decides")
    alternatives: tuple[Alternative, ...] = Field(
        default=(), max_length=32, description="other policies on the same ticks"
    )
    accounts: Accounts = Field(default_factory=Accounts, description="what each account starts with")
    broker: BrokerConfig = Field(default_factory=lambda: PaperBroker(kind="paper"), description="who fills")
    limits: Limits = Field(default_factory=Limits, description="what no order may exceed")
    mode: ModeTable = Field(default_factory=ModeTable, description="how far the dynamic account is let")
    plugins: Plugins = Field(default_factory=Plugins, description="which plug-ins may be loaded")
    storage: Storage = Field(default_factory=Storage, description="where records go")
    daemon: Daemon = Field(default_factory=Daemon, description="how a live session is reached and how patient it is")
    alarms: Alarms = Field(default_factory=Alarms, description="when a person should look")
    secrets: Secrets = Field(default_factory=Secrets, description="names of secrets, never their values")
    compare: CompareTable | None = Field(default=None, description="what `evenkeel compare` compares, and on what")
    sweep: SweepTable | None = Field(default=None, description="what `evenkeel sweep` runs over")
    advise: AdviseTable | None = Field(default=None, description="how `evenkeel advise` weighs cost against risk")

    _path: Path = PrivateAttr(default=Path())
    _secrets: dict[str, SecretStr] = PrivateAttr(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file this config was read from."""
        return self._path

    def secret_values(self) -> tuple[SecretStr, ...]:
        """Every secret of this run, so that none of them is ever written down."""
        return tuple(self._secrets.values())

    def secret(self, name: str) -> SecretStr:
        """The secret of that name; ConfigError when [secrets] names does not list it or it has no value."""
        found = self._secrets.get(name)
        if found is None:
            raise ConfigError(f"secret {name!r}: expected it in [secrets] names with a value, found none")
        return found

    @field_validator("feeds")
    @classmethod
    def _feeds_once(cls, feeds: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        once([feed.name or feed.kind for feed in feeds], "feed name", below=("name",))
        session = info.data.get("session")
        for i, feed in enumerate(feeds):
            if isinstance(feed, SyntheticFeed | ScenarioFeed) and session is not None:
                start, end = feed.start or session.start, feed.end or session.end
                if end is None:
                    raise FaultsError(((i, "end"), "required when session.end is absent, but absent"))
                if end <= start:
                    raise FaultsError(((i, "end"), f"expected an instant after {iso(start)}, found {iso(end)}"))
                try:
                    bound_steps(end - start, feed.step)
                except ValueError as fault:
                    raise FaultsError(((i, "step"), str(fault))) from None
        return feeds

    @field_validator("convertibles")
    @classmethod
    def _convertibles_once(cls, convertibles: tuple[ConvertibleTable, ...]) -> tuple[ConvertibleTable, ...]:
        once([item.id for item in convertibles], "convertible", below=("id",))
        return convertibles

    @field_validator("hedges")
    @classmethod
    def _hedges_once(cls, hedges: tuple[Hedge, ...]) -> tuple[Hedge, ...]:
        once([hedge.underlying for hedge in hedges], "underlying", below=("underlying",))
        return hedges

    @field_validator("strategies")
    @classmethod
    def _strategies_once(cls, strategies: tuple[Any, ...]) -> tuple[Any, ...]:
        once([strategy.name or strategy.kind for strategy in strategies], "strategy name", below=("name",))
        return strategies

    @field_validator("alternatives")
    @classmethod
    def _alternatives_once(cls, alternatives: tuple[Alternative, ...]) -> tuple[Alternative, ...]:
        once([item.name for item in alternatives], "account name", below=("name",))
        for i, item in enumerate(alternatives):
            if item.name in {"dynamic", "static", "none"}:
                raise FaultsError(
                    ((i, "name"), f"expected a name of its own, found {item.name!r}, which every run has")
                )
        return alternatives


# --------------------------------------------------------------------------- reading


def load_config(path: Path, env: Mapping[str, str] | None = None, *, files: bool = True) -> Config:
    """The config of a file, with the environment laid over it; ConfigError with all faults, one line each.

    `env` is the process environment when None. With `files=False` named files and folders need not exist (to show or
    hash a config on a machine without the data).
    """
    env = os.environ if env is None else env
    data = _parse(_read(path), str(path))
    sources, misfits = overlay(data, env)
    faults = [*misfits, *_version_faults(data)]
    data.setdefault("storage", {})  # its default folder, too, is relative to the file
    reading = Reading(path.absolute().parent, env, files)
    config: Config | None = None
    try:
        config = Config.model_validate(data, context=reading)
    except ValidationError as refused:
        faults += _faults_of(refused, data)
    if config is None or faults:
        raise ConfigError(_report(path, _sorted(faults), sources))
    config._path = path.absolute()
    config._secrets = _load_secrets(config, env, path)
    return config


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ConfigError(f"{path}: expected a config file, found a folder")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: expected a config file, found nothing there") from None
    except OSError as fault:
        raise ConfigError(f"{path}: cannot be read: {fault.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: expected at most {MAX_FILE_BYTES} bytes of TOML, found more")
    return raw


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ConfigError(
            f"{where}: expected UTF-8 text, found byte 0x{raw[fault.start]:02x} at {fault.start}"
        ) from None
    try:
        return tomllib.loads(text.replace("\r\n", "\n"), parse_float=Decimal)
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError(f"{where}: not TOML: {fault}") from None
    except (RecursionError, ValueError, InvalidOperation) as fault:
        # nested past the parser's depth, or a number past the digits and exponents Python reads
        raise ConfigError(f"{where}: not TOML that can be read: {type(fault).__name__}") from None


def _version_faults(data: Mapping[str, Any]) -> list[Fault]:
    found = data.get("schema_version")
    if found is None:
        text = f"required, but absent; this release reads {SCHEMA_VERSION} (see `evenkeel config migrate`)"
        return [Fault(("schema_version",), text)]
    if found != SCHEMA_VERSION or isinstance(found, bool):
        return [
            Fault(("schema_version",), f"expected {SCHEMA_VERSION}, the one this release reads, found {shown(found)}")
        ]
    return []


def _load_secrets(config: Config, env: Mapping[str, str], path: Path) -> dict[str, SecretStr]:
    """Each named secret from its variable, else from its file; ConfigError with all that are absent."""
    names = config.secrets.names
    if not names:
        return {}
    folder = config.secrets.dir or (Path(env[SECRETS_DIR]) if env.get(SECRETS_DIR) else None)
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{path}: secrets.dir: expected a folder, found nothing at {folder}")
    given = {name: env[SECRET_PREFIX + name.upper()] for name in names if SECRET_PREFIX + name.upper() in env}
    fields: dict[str, Any] = dict.fromkeys(names, (SecretStr | None, None))
    reader = create_model("SecretFiles", __base__=_SecretFiles, **fields)
    values: dict[str, Any] = {"_secrets_dir": folder, **given}
    held = reader(**values)
    found = {name: value for name in names if (value := getattr(held, name)) is not None}
    absent = [name for name in names if name not in found]
    if absent:
        lines = [
            f"{path}: secrets.names: {name}: expected the variable {SECRET_PREFIX}{name.upper()} or a file "
            f"{name!r} in {folder or 'secrets.dir'}, found neither"
            for name in absent
        ]
        raise ConfigError("\n".join(lines))
    return found


class _SecretFiles(BaseSettings):
    """Secrets given by name, else one file each in a folder."""

    model_config = SettingsConfigDict(extra="ignore")  # a folder may hold others' secrets as well

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (the library's signature)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, file_secret_settings)


def reveal(options: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """A plug-in's options, each `{secret = "name"}` replaced by that SecretStr and each `{path = ...}` by its text."""
    return {key: _revealed(value, config) for key, value in options.items()}


def _revealed(value: Any, config: Config) -> Any:
    if is_word(value, "secret"):
        return config.secret(value["secret"])
    if is_word(value, "path"):
        return value["path"]
    if isinstance(value, dict):
        return reveal(value, config)
    if isinstance(value, list):
        return [_revealed(item, config) for item in value]
    return value


def feed_settings(
    feed: ReplayFeed | SyntheticFeed | DatasetFeed | ScenarioFeed | PluginFeed, config: Config
) -> dict[str, Any]:
    """What a feed's factory is given: its own keys, and of the session and pricing what it leaves to them."""
    found = feed.settings()
    session = config.session
    if isinstance(feed, ReplayFeed):
        found.setdefault("rate", config.pricing.rate)
        if feed.format != "lean":
            found.setdefault("root", str(config.path.parent))
    if isinstance(feed, SyntheticFeed | ScenarioFeed):
        found.setdefault("start", session.start)
        found.setdefault("end", session.end)
    if isinstance(feed, ScenarioFeed):
        found.setdefault("rate", config.pricing.rate)
    if isinstance(feed, DatasetFeed):
        found |= {
            "rate": config.pricing.rate,
            "dividend": config.pricing.dividends.get(feed.instrument, config.pricing.dividend),
        }
        found.setdefault("start", _utc_day(session.start))
        if session.end is not None:
            found.setdefault("end", _utc_day(session.end))
    return reveal(found, config)


def broker_settings(config: Config, kinds: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the broker's factory is given. Of the paper broker: tables by product, keyed by id, kind or `*`.

    `kinds` tells the kind of an instrument id (`{"US:GOOG": "spot"}`), so that a fee for one id adds to those for its
    kind. A `stale_after` that is absent is handed over as None: never.
    """
    broker = config.broker
    if isinstance(broker, PluginBroker):
        return reveal(broker.settings(), config)
    spreads = {hedge.instrument: hedge.spread.settings() for hedge in config.hedges if hedge.spread is not None}
    found: dict[str, Any] = {
        name: getattr(broker, name)
        for name in ("latency", "jitter", "stale_after", "on_bad_quote", "on_closed", "beyond")
    }
    return found | {
        **({"impact": broker.impact.settings()} if "impact" in broker.model_fields_set else {}),
        "permanent": None if broker.permanent is None else bare(broker.permanent) | {"kind": "permanent"},
        "spreads": {"*": broker.spread.settings(), **spreads},
        "commissions": _by_product(broker.commission, kinds or {}),
        "margin": _margin(broker) if broker.margin else None,
        "cash": dict(config.accounts.opening_cash),
        "financing_rate": broker.financing_rate,
        "borrow_rate": broker.borrow_rate,
    }


def _margin(broker: PaperBroker) -> dict[str, Any]:
    """The margin rule's own keys, those left out at its defaults."""
    given = {"per_contract": dict(broker.margin_per_contract), "leveraged": broker.margin_leveraged}
    return {name: value for name, value in given.items() if value}


def _by_product(schedules: Sequence[Commission], kinds: Mapping[str, str]) -> dict[str, Any]:
    """For each product named, and `*` for all others, the sum of the schedules that apply to it."""
    named = dict.fromkeys(name for schedule in schedules for name in schedule.applies_to)
    found: dict[str, Any] = {}
    for product in (*named, "*"):
        meant = {product, kinds.get(product, product)}
        parts = [item.settings() for item in schedules if not item.applies_to or meant & set(item.applies_to)]
        found[product] = {"kind": "sum", "parts": parts}
    return found


def _utc_day(ts: Nanos) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + ts // NS_PER_DAY)


# --------------------------------------------------------------------------- faults in plain words


def _faults_of(refused: ValidationError, data: Mapping[str, Any]) -> list[Fault]:
    faults: list[Fault] = []
    errors = refused.errors(include_url=False)
    unkinded = {_key_of(e["loc"])[:-1] for e in errors if e["type"] == "missing" and e["loc"][-1] == "kind"}
    for error in errors:
        key = _key_of(error["loc"])
        if key[:1] == ("schema_version",) or (error["type"] == "extra_forbidden" and key[:-1] in unkinded):
            continue  # told once, in better words
        if error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]:
            continue  # only short of its faulty items, which are told
        cause = error.get("ctx", {}).get("error")
        if isinstance(cause, FaultsError):
            faults += [Fault((*key, *below), text) for below, text in cause.faults]
        else:
            faults.append(Fault(key, _sentence(dict(error), key, data)))
    return faults


def _key_of(loc: tuple[str | int, ...]) -> Key:
    """The file's own key: without the marks of a kind's model, nor the mark of a table's key."""
    return tuple(part for part in loc if not (isinstance(part, str) and (part.startswith(TAG) or part == "[key]")))


def _sentence(error: Mapping[str, Any], key: Key, data: Mapping[str, Any]) -> str:
    kind, value, ctx = str(error["type"]), error.get("input"), error.get("ctx", {})
    if kind == "value_error":
        return str(ctx["error"])
    if kind == "missing":
        return "required, but absent"
    if kind == "extra_forbidden":
        return _unknown(tuple(error["loc"]), key, data)
    if kind == "literal_error":
        return f"expected {ctx['expected']}, found {shown(value)}"
    worded = _EXPECTED.get(kind)
    if worded is None:
        return f"expected another sort of value, found {shown(value)} ({kind.replace('_', ' ')})"
    bounds = {name: f"{bound:.15g}" if isinstance(bound, float) else bound for name, bound in ctx.items()}
    return f"expected {worded.format(**bounds)}, found {shown(value)}"


_EXPECTED: Final[dict[str, str]] = {
    "string_type": "a text",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
    "string_pattern_mismatch": "a text like {pattern}",
    "string_unicode": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "finite_number": "a finite number",
}


def _unknown(loc: tuple[str | int, ...], key: Key, data: Mapping[str, Any]) -> str:
    word = str(key[-1])
    close = nearest(word, _known_keys(loc[:-1]))
    if close:
        return f"unknown key; did you mean {close!r}?"
    if loc[-2:-1] == (TAG + PLUGIN_KIND,):
        kind = _at(data, (*key[:-1], "kind"))
        options = dotted((*key[:-1], "options"))
        meant = nearest(str(kind), BUILT_IN)
        hint = f"; did you mean kind {meant!r}?" if meant else ""
        return f"unknown key; kind {kind!r} is not built in, and a plug-in's own keys go into {options}{hint}"
    return "unknown key"


def _at(data: Any, key: Key) -> Any:
    for part in key:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _known_keys(loc: tuple[str | int, ...]) -> list[str]:
    """The keys of the table at a place, found by walking the schema as the reader walked."""
    node: Any = schema()
    definitions = node.get("$defs", {})
    for part in loc:
        if isinstance(part, str) and part.startswith(TAG):
            node = _variant(node, part.removeprefix(TAG), definitions)
        elif isinstance(part, int):
            node = _deref(node, definitions).get("items", {})
        else:
            node = _deref(node, definitions).get("properties", {}).get(part, {})
    return list(_deref(node, definitions).get("properties", {}))


def _deref(node: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The table a node stands for: through references, and past the `null` of an optional one."""
    while True:
        if "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[-1]]
            continue
        if "anyOf" in node:
            tables = [item for item in node["anyOf"] if item.get("type") != "null"]
            if len(tables) == 1:
                node = tables[0]
                continue
        return dict(node)


def _variant(node: Any, kind: str, definitions: Mapping[str, Any]) -> dict[str, Any]:
    for item in _deref(node, definitions).get("oneOf", []):
        table = _deref(item, definitions)
        const = table.get("properties", {}).get("kind", {}).get("const", PLUGIN_KIND)
        if const == kind:
            return table
    return {}


def _sorted(faults: list[Fault]) -> list[Fault]:
    seen = dict.fromkeys(faults)
    return sorted(
        seen, key=lambda fault: [(1, 0, part) if isinstance(part, str) else (0, part, "") for part in fault.key]
    )


def _report(path: Path, faults: Sequence[Fault], sources: Mapping[Key, str]) -> str:
    lines = []
    for fault in faults:
        source = sources.get(fault.key)
        given = f" (given by {source})" if source is not None and source not in fault.text else ""
        where = f"{dotted(fault.key)}: " if fault.key else ""
        lines.append(f"{path}: {where}{fault.text}{given}")
    return "\n".join(lines)


# --------------------------------------------------------------------------- verbs of `evenkeel config`


def config_hash(config: Config) -> str:
    """The sha256 of what the run depends on, in hexadecimal.

    Taken over canonical JSON of all resolved keys, with every file by name and the book's and marks' by their bytes, so
    that neither a folder's place, nor comments, nor a default written out change it. Secrets, the data root, the runs
    folder and the tables of the research verbs are left out; the data itself is pinned by the tape's digests.
    """
    text = json.dumps(_canonical(config), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(config: Config) -> dict[str, Any]:
    tree = {name: _canon(getattr(config, name)) for name in Config.model_fields}
    tree["storage"] = {"durability": config.storage.durability}
    for name in ("secrets", *LAB_TABLES):
        del tree[name]
    if config.book.file is not None:
        tree["book"]["file"] = _digest(config.book.file)
    if config.pricing.marks_file is not None:
        tree["pricing"]["marks_file"] = _digest(config.pricing.marks_file)
    if config.pricing.chain is not None:
        tree["pricing"]["chain"] = _digest(config.pricing.chain)
    if config.pricing.forecast is not None and config.pricing.forecast.history is not None:
        tree["pricing"]["forecast"]["history"] = _digest(config.pricing.forecast.history)
    for place, feed in enumerate(config.feeds):
        if isinstance(feed, ReplayFeed):
            tree["feeds"][place].pop("root")
            tree["feeds"][place]["files"] = [Path(name).name for name in feed.files]
    return tree


def _canon(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _canon(getattr(value, name)) for name in type(value).model_fields}
    if is_word(value, "path"):
        return {"path": Path(value["path"]).name}
    if isinstance(value, dict):
        return {str(key): _canon(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canon(item) for item in value]
    return _canon_leaf(value)


def _canon_leaf(value: Any) -> Any:
    if isinstance(value, Decimal):
        return "0" if value == 0 else format(value.normalize(), "f")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return value + 0.0  # one zero, not two
    return value.name if isinstance(value, Path) else value


def _digest(path: Path) -> dict[str, str]:
    try:
        return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as fault:
        raise ConfigError(f"{path}: expected a readable file, found: {fault.strerror}") from None


def show(config: Config) -> str:
    """The resolved config as TOML, every default written out; of secrets only whether they are set."""
    text = to_toml(_without_empty(config.model_dump(mode="python")))
    notes = [f"# secret {name}: {'set' if name in config._secrets else 'absent'}" for name in config.secrets.names]
    return "\n".join([f"# {config.path.name}, hash {config_hash(config)}", *notes, text])


def _without_empty(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tables without those that say nothing; a plug-in's own are left as they are."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        kept = value if key == "options" else _without_empty_below(value)
        if kept != {}:
            found[key] = kept
    return found


def _without_empty_below(value: Any) -> Any:
    if isinstance(value, dict):
        return _without_empty(value)
    if isinstance(value, list | tuple):
        return [_without_empty_below(item) for item in value]
    return value


@cache
def _schema_text() -> str:
    return json.dumps(_readable_defaults(Config.model_json_schema(mode="validation")))


def _readable_defaults(node: Any) -> Any:
    """The schema with defaults as the file writes them: a length of time as text, not in nanoseconds."""
    if isinstance(node, list):
        return [_readable_defaults(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _readable_defaults(value) for key, value in node.items()}
    if isinstance(found.get("default"), int) and found.get("type") == "string":
        found["default"] = shown_span(found["default"])
    if found.get("examples") == ["60x"]:
        found["default"] = "max"
    return found


def schema() -> dict[str, Any]:
    """The JSON schema of a config file, with the description of every key."""
    found: dict[str, Any] = json.loads(_schema_text())
    return found


def check(path: Path, env: Mapping[str, str] | None = None) -> str:
    """One line that says the file is good, with its hash; ConfigError with all faults when it is not."""
    config = load_config(path, env)
    return f"{path}: good, schema_version {SCHEMA_VERSION}, hash {config_hash(config)}"


def migrate(text: str, where: str = "config") -> tuple[str, list[str]]:
    """The text brought to this release's shape, comments kept, and a note on each change; no note when none is needed.

    The one older shape is that before `schema_version`, whose keys are those of 1: the line is added. ConfigError for a
    text that is not TOML and for a version this release does not know.
    """
    found = _parse(text.encode(), where).get("schema_version")
    if found is None:
        lines = text.removeprefix("\ufeff").splitlines(keepends=True)
        place = next(
            (i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), len(lines)
        )
        end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
        if place and not lines[place - 1].endswith("\n"):
            lines[place - 1] += end
        lines.insert(place, f"schema_version = {SCHEMA_VERSION}{end}")
        return "".join(lines), [f"schema_version: absent, now {SCHEMA_VERSION}; no other key has changed since"]
    if found != SCHEMA_VERSION or isinstance(found, bool):
        raise ConfigError(f"{where}: schema_version: expected {SCHEMA_VERSION} or none, found {shown(found)}")
    return text, []


def example_path(name: str) -> Path:
    """The file of a shipped example by name (`es_day` or `es_day.toml`), in a checkout or an installed package."""
    folder = examples_folder()
    file = name if name.endswith(".toml") else f"{name}.toml"
    known = example_names()
    if file.removesuffix(".toml") not in known:
        close = nearest(file.removesuffix(".toml"), known)
        hint = f"; did you mean {close!r}?" if close else ""
        raise ConfigError(f"example {name!r}: expected one of {', '.join(known)}{hint}")
    return folder / file


def example_names() -> list[str]:
    """The names of the shipped examples, sorted."""
    return sorted(path.stem for path in examples_folder().glob("*.toml"))


def examples_folder() -> Path:
    """The folder of the shipped examples: package data when installed, `config/` in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "examples", package.parents[1] / "config"):
        if folder.is_dir():
            return folder
    raise ConfigError(f"expected the shipped examples beside {package}, found none: the installation is incomplete")


__all__ = [
    "DATA_ROOT",
    "POLICY_KINDS",
    "CallablePolicy",
    "Config",
    "DatasetFeed",
    "DeltaBandPolicy",
    "FixedFeeBandPolicy",
    "Hedge",
    "Kinded",
    "PaperBroker",
    "PluginBroker",
    "PluginFeed",
    "Pricing",
    "ReplayFeed",
    "Spread",
    "StrategyTable",
    "SurfaceConfig",
    "SyntheticFeed",
    "UnderlyingBounds",
    "broker_settings",
    "check",
    "config_hash",
    "example_names",
    "example_path",
    "examples_folder",
    "feed_settings",
    "load_config",
    "migrate",
    "reveal",
    "schema",
    "show",
]
