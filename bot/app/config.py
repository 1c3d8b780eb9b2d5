"""A config is one run, written down: what is fed, held, priced, hedged, traded and stored, read from one TOML file.

Law: every key is known and typed, or the file is refused with all its faults at once; paths are relative to the file;
`EVENKEEL__SECTION__KEY` overrides a key; secrets come from the environment or from secret files, never from the file.
Two configs that would run the same have the same hash, wherever their files lie. The only room that knows pydantic.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    Tag,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bot.app.config_text import Fault, Key, Word, dotted, literal, nearest, overlay, to_toml
from bot.core.errors import ConfigError
from bot.domain.units import NS_PER_DAY, Nanos, iso, nanos, parse_instant, parse_span, span

SCHEMA_VERSION: Final = 1
DATA_ROOT: Final = "EVENKEEL_DATA"
"""The environment variable that names the folder of recorded days (a copy of LEAN's `Data` folder)."""
SECRET_PREFIX: Final = "EVENKEEL_SECRET__"  # noqa: S105  (the beginning of a variable's name)
SECRETS_DIR: Final = "EVENKEEL_SECRETS_DIR"
MAX_FILE_BYTES: Final = 1_000_000
MAX_SYNTHETIC_STEPS: Final = 200_000_000

POLICY_KINDS: Final = (
    *("none", "static", "fixed_interval", "delta_band", "move_band", "leland_delta", "hoggard_whalley_wilmott"),
    *("whalley_wilmott", "fixed_fee_band", "zakamouline", "almgren_li_speed"),
    *("min_var_delta", "bartlett_delta", "pin_guard", "callable"),
)
"""The kinds of policy that are built in."""
_PLUGIN: Final = "plugin"
_BUILT_IN: Final = (
    *("replay", "synthetic", "dataset", "paper", "delta_hedger"),
    *POLICY_KINDS,
)
_TAG: Final = "kind:"
_SECRET_WORD = re.compile(
    r"(^|_)(password|passwd|passphrase|secret|token|api_?key|private_?key|credentials?)$", re.IGNORECASE
)


# --------------------------------------------------------------------------- what a value may be


_Values = TypeVar("_Values", bound=Sequence[Any])

SMILE_RULES: Final = (
    "sticky_strike",
    "sticky_delta",
    "sticky_moneyness",
    "local_vol",
    "minimum_variance",
    "bartlett",
)


class _Reading(NamedTuple):
    """Where and with what a file is read."""

    folder: Path
    env: Mapping[str, str]
    files: bool


class _FaultsError(ValueError):
    """Several faults found by one rule, each at a key below the rule's own."""

    def __init__(self, *faults: tuple[Key, str]) -> None:
        super().__init__("; ".join(text for _, text in faults))
        self.faults = faults


def _reading(info: ValidationInfo) -> _Reading:
    context = info.context
    return context if isinstance(context, _Reading) else _Reading(Path(), {}, False)


def _found(value: Any) -> str:
    """The value as a person would name it, cut short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"the text {text!r}" if isinstance(value, str) else text


def _exact(value: Any) -> Decimal:
    if isinstance(value, Word):
        try:
            value = Decimal(value.strip())
        except InvalidOperation:
            raise ValueError(f"expected a number, found {_found(str(value))}") from None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"expected a number, found {_found(value)}")
    exact = (
        value if isinstance(value, Decimal) else Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    )
    if not exact.is_finite() or not math.isfinite(float(exact)):
        raise ValueError(f"expected a finite number, found {_found(value)}")
    if exact and float(exact) == 0.0:
        raise ValueError(f"expected a number that a float can tell from 0, found {_found(value)}")
    return exact


def _number(value: Any) -> float:
    return float(_exact(value))


def _whole(value: Any) -> int:
    exact = _exact(value)
    if not isinstance(value, int | Word) or exact.adjusted() > 18 or exact != exact.to_integral_value():
        raise ValueError(f"expected a whole number, found {_found(value)}")
    return int(exact)


def _flag(value: Any) -> bool:
    if isinstance(value, Word) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {_found(value)}")
    return value


def _instant(value: Any) -> Nanos:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return nanos(value)
    if not isinstance(value, str):
        raise ValueError(f"expected an instant with its zone, such as 2020-01-06T21:00:00Z, found {_found(value)}")
    try:
        ts = parse_instant(value)
    except ValueError as fault:
        raise ValueError(_worded(fault, f"expected an instant that exists, found {value!r}")) from None
    return ts


def _day(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value.strip()):
            return date.fromisoformat(value.strip())
    except ValueError:
        raise ValueError(f"expected a date that exists, found {_found(value)}") from None
    raise ValueError(f"expected a date such as 2020-01-06, found {_found(value)}")


def _worded(fault: ValueError, instead: str) -> str:
    return str(fault) if str(fault).startswith("expected") else instead


def _spans(least: str, most: str) -> Callable[[Any], Nanos]:
    """A reader of lengths of time within two bounds, inclusive."""

    def read(value: Any) -> Nanos:
        if not isinstance(value, str):
            raise ValueError(f"expected a length of time such as 250ms, 60s, 15m, 1h or 1d, found {_found(value)}")
        length = parse_span(value)
        if not parse_span(least) <= length <= parse_span(most):
            raise ValueError(f"expected a length of time from {least} to {most}, found {_found(value)}")
        return length

    return read


def _signed_span(value: Any) -> Nanos:
    if not isinstance(value, str):
        raise ValueError(f"expected a length of time such as 1269ms or -1269ms, found {_found(value)}")
    read = _spans("0s", "1d")
    return -read(value[1:]) if value.startswith("-") else read(value)


def _shown_span(length: Nanos) -> str:
    return span(length) if length else "0s"


def _pace(value: Any) -> float | None:
    """The pace as recorded seconds per second of wall clock; None as fast as the machine can."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x", value.strip()) if isinstance(value, str) else None
    if value == "max" or value is None:
        return None
    if found is None or not 0.001 <= float(found[1]) <= 1_000_000:
        raise ValueError(
            f"expected 'max', or a pace from '0.001x' to '1000000x' such as '1x' or '60x', found {_found(value)}"
        )
    return float(found[1])


def _zone(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a time zone such as America/New_York, found {_found(value)}")
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected a time zone such as America/New_York, found {_found(value)}") from None
    return str(value)


def _smile(value: Any) -> str | float:
    """A rule by name, or the skew-stickiness ratio itself."""
    if isinstance(value, str) and value.strip() in SMILE_RULES:
        return value.strip()
    if isinstance(value, str) and not isinstance(value, Word):
        raise ValueError(f"expected one of {', '.join(SMILE_RULES)}, or a number, found {_found(value)}")
    ratio = _number(value)
    if not -10.0 <= ratio <= 10.0:
        raise ValueError(f"expected a skew-stickiness ratio from -10 to 10, found {ratio:g}")
    return ratio


def _ex_date(value: Any) -> str:
    """An instant with its zone or a date, as text: a date is the first instant the underlying trades on it."""
    if isinstance(value, datetime):
        return iso(_instant(value))
    if isinstance(value, date):
        return value.isoformat()
    try:
        return _day(value).isoformat()
    except ValueError:
        pass
    try:
        return iso(_instant(value))
    except ValueError:
        raise ValueError(
            f"expected a date such as 2015-11-05 or an instant with its zone, found {_found(value)}"
        ) from None


def _pair(value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple):
        return (_number(value), _number(value))
    if len(value) != 2:
        raise ValueError(f"expected one number, or two as [lowest, highest], found {_found(value)}")
    lo, hi = _number(value[0]), _number(value[1])
    if lo > hi:
        raise ValueError(f"expected [lowest, highest], found [{lo}, {hi}]")
    return (lo, hi)


def _free(value: Any, info: ValidationInfo) -> dict[str, Any]:
    """A plug-in's own table: plain values, `{path = ...}` made absolute, and no secret written out."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a table, found {_found(value)}")
    faults = tuple(_written_secrets(value, ()))
    if faults:
        raise _FaultsError(*faults)
    return {key: _plain(item, _reading(info).folder, (key,)) for key, item in value.items()}


def _written_secrets(table: Mapping[str, Any], key: Key) -> Iterator[tuple[Key, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            if not _is_word(value, "secret"):
                yield from _written_secrets(value, (*key, name))
        elif _SECRET_WORD.search(name):
            yield (
                (*key, name),
                'a secret is never written here: expected {secret = "name"}, with its value in the environment '
                f"variable {SECRET_PREFIX}NAME or in a secret file; what was found is not shown",
            )


def _plain(value: Any, folder: Path, key: Key) -> Any:
    if isinstance(value, Word):
        value = literal(value)
    if isinstance(value, list | tuple):
        return [_plain(item, folder, (*key, i)) for i, item in enumerate(value)]
    if isinstance(value, dict) and not _is_word(value, "path"):
        return {name: _plain(item, folder, (*key, name)) for name, item in value.items()}
    try:
        return _plain_leaf(value, folder)
    except ValueError as fault:
        raise _FaultsError((key, str(fault))) from None


def _plain_leaf(value: Any, folder: Path) -> Any:
    if isinstance(value, Decimal):
        return _number(value)
    return {"path": str(_resolve(value["path"], folder))} if isinstance(value, dict) else value


def _is_word(value: Any, word: str) -> bool:
    """True for a table of that one key with a text, such as `{secret = "name"}` and `{path = "prices.csv"}`."""
    return isinstance(value, dict) and set(value) == {word} and isinstance(value[word], str)


def _resolve(value: Any, folder: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise ValueError(f"expected a path, found {_found(value)}")
    return Path(os.path.normpath(folder / Path(value).expanduser()))


def _file(value: Any, info: ValidationInfo) -> Path | None:
    if value is None:
        return None
    reading = _reading(info)
    path = _resolve(value, reading.folder)
    if reading.files and not path.is_file():
        raise ValueError(f"expected a file, found {'a folder' if path.is_dir() else 'nothing'} at {path}")
    return path


def _is_there(path: Path) -> bool:
    """True for a file, and for a pattern of `*` and `?` that some file matches."""
    if not any(sign in str(path) for sign in "*?["):
        return path.is_file()
    return any(path.is_file() for path in map(Path, glob.glob(str(path))))  # noqa: PTH207  (a whole path, absolute)


def _path(value: Any, info: ValidationInfo) -> Path:
    return _resolve(value, _reading(info).folder)


def _kinds(*builtin: str) -> Callable[[Any], str]:
    """Which model reads a table: its `kind` when that is built in, else the one of plug-ins."""

    def tell(value: Any) -> str:
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        return _TAG + (str(kind) if kind in builtin else _PLUGIN)

    return tell


_as_span = PlainSerializer(lambda value: None if value is None else _shown_span(value), return_type=str | None)
_as_signed_span = PlainSerializer(lambda value: "-" * (value < 0) + _shown_span(abs(value)), return_type=str)
_as_instant = PlainSerializer(lambda value: None if value is None else iso(value), return_type=str | None)
_as_path = PlainSerializer(lambda value: None if value is None else str(value), return_type=str | None)
_as_day = PlainSerializer(lambda value: None if value is None else value.isoformat(), return_type=str | None)
_as_pace = PlainSerializer(lambda value: "max" if value is None else f"{value:.15g}x", return_type=str)


def _text_schema(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [example]})


Number = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_whole)]
Amount = Annotated[Decimal, BeforeValidator(_exact), WithJsonSchema({"type": "number"})]
Flag = Annotated[bool, BeforeValidator(_flag)]
Instant = Annotated[Nanos, BeforeValidator(_instant), _as_instant, _text_schema("2020-01-06T21:00:00Z")]
Day = Annotated[date, BeforeValidator(_day), _as_day, _text_schema("2020-01-06")]
Delay = Annotated[Nanos, BeforeValidator(_spans("0s", "1d")), _as_span, _text_schema("250ms")]
"""A length of time that may be nothing."""
Interval = Annotated[Nanos, BeforeValidator(_spans("1ms", "3660d")), _as_span, _text_schema("15m")]
"""A length of time between two events, never nothing."""
Pace = Annotated[float | None, BeforeValidator(_pace), _as_pace, _text_schema("60x")]
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_pair),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}]}
    ),
]
FilePath = Annotated[Path, BeforeValidator(_file), _as_path, _text_schema("books/my_book.csv")]
FolderPath = Annotated[Path, BeforeValidator(_path), _as_path, _text_schema("runs")]
Options = Annotated[dict[str, Any], BeforeValidator(_free), WithJsonSchema({"type": "object"})]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3,5}$")]
InstrumentText = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~][ -~]*$")]

TimeOfDay: TypeAlias = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
ZoneName: TypeAlias = Annotated[str, BeforeValidator(_zone)]
Seed: TypeAlias = Annotated[Whole, Field(ge=0, le=2**63 - 1)]
Share: TypeAlias = Annotated[Number, Field(ge=0, le=1)]
VolNumber: TypeAlias = Annotated[Number, Field(gt=0, le=10)]
RateNumber: TypeAlias = Annotated[Number, Field(ge=-1, le=1)]
Money: TypeAlias = Annotated[Amount, Field(ge=0, le=Decimal("1e15"))]
Fee: TypeAlias = Annotated[Amount, Field(ge=Decimal("-1e9"), le=Decimal("1e9"))]
Positive: TypeAlias = Annotated[Amount, Field(gt=0, le=Decimal("1e15"))]


class Section(BaseModel):
    """A table of the file: every key known, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Kinded(Section):
    """A table whose `kind` says what reads it."""

    kind: str

    def settings(self) -> dict[str, Any]:
        """What the factory of this kind is given: every key but `kind`, times in nanoseconds, absent ones left out."""
        return {name: value for name, value in _bare(self).items() if name != "kind"}


class Plugin(Kinded):
    """A kind that a plug-in brings; its own keys go into `options` and are checked by the plug-in."""

    kind: Name = Field(description="the name of an entry point, allowed under [plugins]")
    options: Options = Field(default={}, description="the plug-in's own keys, handed over as they are")

    def settings(self) -> dict[str, Any]:
        """The plug-in's own keys."""
        return dict(self.options)


def _bare(model: BaseModel) -> dict[str, Any]:
    """The values of a model with its sub-tables as plain dicts and None left out."""
    found: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = _unmodelled(getattr(model, name))
        if value is not None:
            found[name] = value
    return found


def _unmodelled(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _bare(value)
    if isinstance(value, tuple | list):
        return type(value)(_unmodelled(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    return value


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


# --------------------------------------------------------------------------- [[feeds]]


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
    clock_offset: Annotated[Nanos, BeforeValidator(_signed_span), _as_signed_span, _text_schema("1269ms")] = Field(
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
        reading = _reading(info)
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
        path = _resolve(value, reading.folder)
        if reading.files and not path.is_dir():
            raise ValueError(f"expected a folder, found {'a file' if path.is_file() else 'nothing'} at {path}")
        return path

    @field_validator("files")
    @classmethod
    def _found_files(cls, files: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        reading, kind = _reading(info), info.data.get("format")
        if kind not in {"lean", None} and not files:
            raise ValueError(f"expected at least one file for format {kind!r}, found none")
        if kind == "lean" and files:
            raise ValueError("expected no files: format 'lean' finds its own from dates and instruments")
        folder = info.data.get("root") or reading.folder
        paths = [_resolve(name, folder) for name in files]
        if reading.files:
            missing = [
                ((i,), f"expected a file, found nothing at {p}") for i, p in enumerate(paths) if not _is_there(p)
            ]
            if missing:
                raise _FaultsError(*missing)
        return tuple(str(path) for path in paths)

    @field_validator("dates")
    @classmethod
    def _named_dates(cls, dates: tuple[date, ...], info: ValidationInfo) -> tuple[date, ...]:
        if info.data.get("format") == "lean" and not dates:
            raise ValueError("expected at least one recorded day for format 'lean', found none")
        return _once(dates, "date") if info.data.get("repeated") == "error" else dates


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
        return _once(expiries, "expiry")

    @field_validator("strikes")
    @classmethod
    def _strikes_once(cls, strikes: tuple[Decimal, ...]) -> tuple[Decimal, ...]:
        return _once(strikes, "strike")

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
            _bound_steps(end - start, step)
        return step

    @field_validator("heston", "merton")
    @classmethod
    def _fits_model(cls, value: Any, info: ValidationInfo) -> Any:
        return _only_with(value, info, "model", (str(info.field_name),))


class DatasetFeed(_Feed):
    """A real series that ships inside an installed package."""

    kind: Literal["dataset"]
    dataset: Literal["sp500", "nasdaq"] = Field(
        default="sp500", description="daily closes 1999-2018, of the package arch"
    )
    instrument: InstrumentText = Field(default="INDEX:SPX", description="id its closes are prints of")
    start: Day | None = Field(default=None, description="first day; the session's when absent")
    end: Day | None = Field(default=None, description="last day; the session's when absent")
    chain_vol: VolNumber | Literal["realised"] | None = Field(
        default=None, description="quote the wanted options at model prices of this vol; absent: no option quotes"
    )
    window: Whole = Field(default=21, ge=2, le=10_000, description="days of the realised vol")
    option_tick: Positive = Field(default=Decimal("0.05"), description="smallest price step of those option quotes")
    option_half_spread: Number = Field(default=2.0, ge=0, le=10_000, description="of those option quotes, in ticks")
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


class PluginFeed(Plugin):
    """A feed that a plug-in brings."""

    name: Name | None = Field(default=None, description="how records call this feed; its kind when absent")
    pace: Pace = Field(default=None, description="'max', or recorded time per wall-clock time such as '1x' or '60x'")


FeedConfig: TypeAlias = Annotated[
    Annotated[ReplayFeed, Tag(_TAG + "replay")]
    | Annotated[SyntheticFeed, Tag(_TAG + "synthetic")]
    | Annotated[DatasetFeed, Tag(_TAG + "dataset")]
    | Annotated[PluginFeed, Tag(_TAG + _PLUGIN)],
    Discriminator(_kinds("replay", "synthetic", "dataset")),
]


# --------------------------------------------------------------------------- [book], [pricing], [[hedges]]


class BookConfig(Section):
    """The options book, and how its file is read."""

    file: FilePath = Field(description="CSV or JSON, see docs/book.md")
    columns: dict[str, str] = Field(default={}, description="the file's column name = ours, for a broker's export")
    name: Name = Field(default="main", description="the book of rows that name none")
    price_source: Literal["mark", "file"] = Field(
        default="mark", description="entry value: the first mark of the session, or the file's `price` column"
    )


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
                raise _FaultsError(((i,), f"expected more than the spot before it, {spots[i - 1]}, found {spots[i]}"))
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
    Annotated[EwmaForecast, Tag(_TAG + "ewma")]
    | Annotated[GarchForecast, Tag(_TAG + "garch")]
    | Annotated[HarForecast, Tag(_TAG + "har")]
    | Annotated[RangeForecast, Tag(_TAG + "range")]
    | Annotated[PluginForecast, Tag(_TAG + _PLUGIN)],
    Discriminator(_kinds("ewma", "garch", "har", "range")),
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
    ex: Annotated[str, BeforeValidator(_ex_date), _text_schema("2015-11-05")] = Field(
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
        BeforeValidator(_smile),
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
        return _only_with(value, info, "vol", (needs,), required=True)

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
        return _only_with(value, info, "smile", (needs,), required=True)

    @field_validator("surface", "forecast")
    @classmethod
    def _given_for_source(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        return _only_with(value, info, "vol", (name,), required=name == "forecast")

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
        return _only_with(value, info, "pricer", ("table",), required=True)


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
        return _only_with(value, info, "kind", (needs,), required=True)

    @field_validator("vol", "interval", "halflife")
    @classmethod
    def _fits_volatility(cls, value: Any, info: ValidationInfo) -> Any:
        return _only_with(value, info, "kind", ("volatility",))

    def settings(self) -> dict[str, Any]:
        """The specification as `bot.domain.costs` reads it."""
        return _bare(self)


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


# --------------------------------------------------------------------------- policies, strategies, accounts


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
        return _one_of(value, info, "pct")


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
        return _one_of(value, info, "risk_aversion")

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
        return _only_with(value, info, "action", ("cap",))  # type: ignore[no-any-return]  # a float or None, as given

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


class PluginPolicy(Plugin):
    """A policy that a plug-in, or a later release, brings."""


PolicyConfig: TypeAlias = Annotated[
    Annotated[NoHedgePolicy, Tag(_TAG + "none")]
    | Annotated[StaticPolicy, Tag(_TAG + "static")]
    | Annotated[FixedIntervalPolicy, Tag(_TAG + "fixed_interval")]
    | Annotated[DeltaBandPolicy, Tag(_TAG + "delta_band")]
    | Annotated[MoveBandPolicy, Tag(_TAG + "move_band")]
    | Annotated[LelandDeltaPolicy, Tag(_TAG + "leland_delta")]
    | Annotated[HoggardWhalleyWilmottPolicy, Tag(_TAG + "hoggard_whalley_wilmott")]
    | Annotated[WhalleyWilmottPolicy, Tag(_TAG + "whalley_wilmott")]
    | Annotated[FixedFeeBandPolicy, Tag(_TAG + "fixed_fee_band")]
    | Annotated[ZakamoulinePolicy, Tag(_TAG + "zakamouline")]
    | Annotated[AlmgrenLiSpeedPolicy, Tag(_TAG + "almgren_li_speed")]
    | Annotated[MinVarDeltaPolicy, Tag(_TAG + "min_var_delta")]
    | Annotated[BartlettDeltaPolicy, Tag(_TAG + "bartlett_delta")]
    | Annotated[PinGuardPolicy, Tag(_TAG + "pin_guard")]
    | Annotated[CallablePolicy, Tag(_TAG + "callable")]
    | Annotated[PluginPolicy, Tag(_TAG + _PLUGIN)],
    Discriminator(_kinds(*POLICY_KINDS)),
]
for _wrapper in (MinVarDeltaPolicy, BartlettDeltaPolicy, PinGuardPolicy):
    _wrapper.model_rebuild()  # each holds a policy of any kind, itself among them


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
    Annotated[DeltaHedgerConfig, Tag(_TAG + "delta_hedger")] | Annotated[PluginStrategy, Tag(_TAG + _PLUGIN)],
    Discriminator(_kinds("delta_hedger")),
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


# --------------------------------------------------------------------------- [broker], [limits]


class Commission(Section):
    """One schedule of fees; an order pays the sum of all that apply to its instrument, each half-up to the cent."""

    kind: Literal["per_contract", "basis_points", "per_ticket", "fixed_total"] = Field(
        description="what the fee counts"
    )
    rate: Fee | None = Field(
        default=None,
        validate_default=True,
        description="money per contract or share, of 'per_contract'; negative: rebate",
    )
    bp: Annotated[Amount, Field(ge=-10_000, le=10_000)] | None = Field(
        default=None, validate_default=True, description="basis points of the notional, of 'basis_points'"
    )
    amount: Fee | None = Field(
        default=None, validate_default=True, description="money per order, of 'per_ticket' and 'fixed_total'"
    )
    minimum: Money | None = Field(default=None, description="least per order, of 'per_contract' and 'basis_points'")
    cap: Annotated[Amount, Field(gt=0, le=1)] | None = Field(
        default=None, description="most, as a fraction of the order's notional, of 'per_contract'"
    )
    applies_to: tuple[InstrumentText, ...] = Field(
        default=(),
        max_length=1000,
        description="kinds (spot, index, future, perpetual, option) or instrument ids; empty: every instrument",
    )

    @field_validator("rate", "bp", "amount")
    @classmethod
    def _fits_kind(cls, value: Any, info: ValidationInfo) -> Any:
        needs = {"rate": ("per_contract",), "bp": ("basis_points",), "amount": ("per_ticket", "fixed_total")}
        return _only_with(value, info, "kind", needs[str(info.field_name)], required=True)

    @field_validator("minimum", "cap")
    @classmethod
    def _bounds_fit_kind(cls, value: Any, info: ValidationInfo) -> Any:
        needs = {"minimum": ("per_contract", "basis_points"), "cap": ("per_contract",)}
        return _only_with(value, info, "kind", needs[str(info.field_name)])

    def settings(self) -> dict[str, Any]:
        """The specification as `bot.domain.costs` reads it; to what it applies stays here."""
        return {name: value for name, value in _bare(self).items() if name != "applies_to"}


class Impact(Section):
    """What size beyond the displayed amount costs."""

    kind: Literal["none", "square_root", "linear"] = Field(description="how the price moves away")
    coefficient: Annotated[Amount, Field(ge=0, le=1000)] | None = Field(
        default=None, description="fraction of the price at one `adv` (or displayed size) beyond; 0.0001 when absent"
    )
    adv: Positive | None = Field(default=None, description="contracts a day; absent: multiples of the displayed size")

    @field_validator("coefficient", "adv")
    @classmethod
    def _fits_kind(cls, value: Any, info: ValidationInfo) -> Any:
        return _only_with(value, info, "kind", ("square_root", "linear"))

    def settings(self) -> dict[str, Any]:
        """The specification as `bot.domain.costs` reads it."""
        return _bare(self)


class PermanentImpact(Section):
    """A scenario: each execution of Q contracts moves later prices by coefficient Q / adv of its price."""

    coefficient: Annotated[Amount, Field(ge=0, le=1000)] = Field(
        description="fraction of the price at one day's volume"
    )
    adv: Positive = Field(description="contracts a day")


class _Broker(Kinded):
    seed: Seed = Field(default=0, description="of everything random in it")
    opening_ticket_apart: Flag = Field(
        default=False, description="show the fee of each opening hedge apart and leave it out of the commission"
    )


class PaperBroker(_Broker):
    """A simulated venue: fills cross the quoted touch, all latency is event time."""

    kind: Literal["paper"]
    latency: Delay = Field(default=parse_span("0s"), description="from decision to arrival")
    jitter: Delay = Field(default=parse_span("0s"), description="greatest seeded addition to the latency")
    commission: tuple[Commission, ...] = Field(
        default=(), max_length=100, description="fees; the sum of those that apply"
    )
    spread: Spread = Field(
        default_factory=lambda: Spread(kind="quoted"),
        description="the touch of instruments with no spread of their own",
    )
    impact: Impact = Field(
        default_factory=lambda: Impact(kind="none"), description="of size beyond the displayed amount"
    )
    permanent: PermanentImpact | None = Field(default=None, description="a scenario: impact that stays")
    beyond: Literal["impact", "partial", "ignore"] = Field(
        default="ignore",
        description="size beyond the displayed amount: walk on by the impact model, fill in part, ignore it",
    )
    stale_after: Interval | None = Field(default=None, description="a quote older than this fills nothing")
    on_bad_quote: Literal["wait", "reject"] = Field(
        default="wait", description="an order that meets a stale, crossed or one-sided quote"
    )
    on_closed: Literal["wait", "reject"] = Field(default="wait", description="an order that meets a closed session")
    financing_rate: RateNumber = Field(default=0.0, description="on cash, continuous, per year")
    borrow_rate: RateNumber = Field(default=0.0, description="on the value of shares held short, continuous, per year")
    margin: Flag = Field(default=False, description="check buying power when an order arrives")
    margin_per_contract: dict[InstrumentText, Money] = Field(
        default={}, description="initial margin of one contract, by id, for futures and perpetuals"
    )
    margin_leveraged: Annotated[Amount, Field(gt=0, le=1)] | None = Field(
        default=None, description="initial margin of other futures and perpetuals, as a share of notional"
    )


class PluginBroker(Plugin):
    """A broker that a plug-in brings."""

    seed: Seed = Field(default=0, description="of everything random in it")
    opening_ticket_apart: Flag = Field(
        default=False, description="show the fee of each opening hedge apart and leave it out of the commission"
    )


BrokerConfig: TypeAlias = Annotated[
    Annotated[PaperBroker, Tag(_TAG + "paper")] | Annotated[PluginBroker, Tag(_TAG + _PLUGIN)],
    Discriminator(_kinds("paper")),
]


class Limits(Section):
    """What no order may exceed; absent: no limit of that sort. A breach is a refusal, never a smaller order."""

    max_order_quantity: Positive | None = Field(default=None, description="contracts in one order")
    max_order_notional: Positive | None = Field(default=None, description="value of one order, in its own currency")
    max_position: Positive | None = Field(
        default=None, description="contracts held of one hedge instrument, either side"
    )
    price_collar: Annotated[Amount, Field(gt=0, le=1)] | None = Field(
        default=None, description="greatest distance of a limit price from the mid, as a fraction"
    )
    max_open_orders: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = Field(default=None, description="at one time")
    stale_after: Interval | None = Field(default=None, description="no order on a quote older than this")
    restricted: tuple[InstrumentText, ...] = Field(
        default=(), max_length=10_000, description="instruments never traded"
    )


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
    book: BookConfig = Field(description="what is held")
    pricing: Pricing = Field(default_factory=Pricing, description="what it is worth")
    hedges: tuple[Hedge, ...] = Field(default=(), max_length=1000, description="what each underlying is hedged with")
    strategies: tuple[StrategyConfig, ...] = Field(min_length=1, max_length=100, description="who decides")
    alternatives: tuple[Alternative, ...] = Field(
        default=(), max_length=16, description="other policies on the same ticks"
    )
    accounts: Accounts = Field(default_factory=Accounts, description="what each account starts with")
    broker: BrokerConfig = Field(default_factory=lambda: PaperBroker(kind="paper"), description="who fills")
    limits: Limits = Field(default_factory=Limits, description="what no order may exceed")
    plugins: Plugins = Field(default_factory=Plugins, description="which plug-ins may be loaded")
    storage: Storage = Field(default_factory=Storage, description="where records go")
    alarms: Alarms = Field(default_factory=Alarms, description="when a person should look")
    secrets: Secrets = Field(default_factory=Secrets, description="names of secrets, never their values")

    _path: Path = PrivateAttr(default=Path())
    _secrets: dict[str, SecretStr] = PrivateAttr(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file this config was read from."""
        return self._path

    def secret(self, name: str) -> SecretStr:
        """The secret of that name; ConfigError when [secrets] names does not list it or it has no value."""
        found = self._secrets.get(name)
        if found is None:
            raise ConfigError(f"secret {name!r}: expected it in [secrets] names with a value, found none")
        return found

    @field_validator("feeds")
    @classmethod
    def _feeds_once(cls, feeds: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        _once([feed.name or feed.kind for feed in feeds], "feed name", below=("name",))
        session = info.data.get("session")
        for i, feed in enumerate(feeds):
            if isinstance(feed, SyntheticFeed) and session is not None:
                start, end = feed.start or session.start, feed.end or session.end
                if end is None:
                    raise _FaultsError(((i, "end"), "required when session.end is absent, but absent"))
                if end <= start:
                    raise _FaultsError(((i, "end"), f"expected an instant after {iso(start)}, found {iso(end)}"))
                try:
                    _bound_steps(end - start, feed.step)
                except ValueError as fault:
                    raise _FaultsError(((i, "step"), str(fault))) from None
        return feeds

    @field_validator("hedges")
    @classmethod
    def _hedges_once(cls, hedges: tuple[Hedge, ...]) -> tuple[Hedge, ...]:
        _once([hedge.underlying for hedge in hedges], "underlying", below=("underlying",))
        return hedges

    @field_validator("strategies")
    @classmethod
    def _strategies_once(cls, strategies: tuple[Any, ...]) -> tuple[Any, ...]:
        _once([strategy.name or strategy.kind for strategy in strategies], "strategy name", below=("name",))
        return strategies

    @field_validator("alternatives")
    @classmethod
    def _alternatives_once(cls, alternatives: tuple[Alternative, ...]) -> tuple[Alternative, ...]:
        _once([item.name for item in alternatives], "account name", below=("name",))
        for i, item in enumerate(alternatives):
            if item.name in {"dynamic", "static", "none"}:
                raise _FaultsError(
                    ((i, "name"), f"expected a name of its own, found {item.name!r}, which every run has")
                )
        return alternatives


def _once(values: _Values, noun: str, *, below: Key = ()) -> _Values:
    seen: dict[Any, int] = {}
    faults: list[tuple[Key, str]] = []
    for i, value in enumerate(values):
        if value in seen:
            faults.append(
                ((i, *below), f"expected each {noun} once, found {value} again (first at place {seen[value]})")
            )
        seen.setdefault(value, i)
    if faults:
        raise _FaultsError(*faults)
    return values


def _only_with(value: Any, info: ValidationInfo, key: str, needs: tuple[str, ...], *, required: bool = False) -> Any:
    """The value when it fits what another key chose; that key's own fault is not told twice."""
    chosen = info.data.get(key)
    if required and chosen in needs and value is None:
        raise ValueError(f"required when {key} = {chosen!r}, but absent")
    if value is not None and chosen is not None and chosen not in needs:
        allowed = " or ".join(repr(item) for item in needs)
        raise ValueError(f"expected only with {key} = {allowed}, found {key} = {chosen!r}")
    return value


def _one_of(value: float | None, info: ValidationInfo, other: str) -> float | None:
    """The value when exactly one of it and another key was given; the other's own fault is not told twice."""
    if other in info.data and (value is None) == (info.data[other] is None):
        found = "neither" if value is None else "both"
        raise ValueError(f"expected one of {other} and {info.field_name}, found {found}")
    return value


def _bound_steps(length: Nanos, step: Nanos) -> None:
    if length // step > MAX_SYNTHETIC_STEPS:
        raise ValueError(f"expected at most {MAX_SYNTHETIC_STEPS} steps in {span(length)}, found {length // step}")


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
    reading = _Reading(path.absolute().parent, env, files)
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
            Fault(("schema_version",), f"expected {SCHEMA_VERSION}, the one this release reads, found {_found(found)}")
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
    if _is_word(value, "secret"):
        return config.secret(value["secret"])
    if _is_word(value, "path"):
        return value["path"]
    if isinstance(value, dict):
        return reveal(value, config)
    if isinstance(value, list):
        return [_revealed(item, config) for item in value]
    return value


def feed_settings(feed: ReplayFeed | SyntheticFeed | DatasetFeed | PluginFeed, config: Config) -> dict[str, Any]:
    """What a feed's factory is given: its own keys, and of the session and pricing what it leaves to them."""
    found = feed.settings()
    session = config.session
    if isinstance(feed, ReplayFeed):
        found.setdefault("rate", config.pricing.rate)
        if feed.format != "lean":
            found.setdefault("root", str(config.path.parent))
    if isinstance(feed, SyntheticFeed):
        found.setdefault("start", session.start)
        found.setdefault("end", session.end)
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
        "permanent": None if broker.permanent is None else _bare(broker.permanent) | {"kind": "permanent"},
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
        if isinstance(cause, _FaultsError):
            faults += [Fault((*key, *below), text) for below, text in cause.faults]
        else:
            faults.append(Fault(key, _sentence(dict(error), key, data)))
    return faults


def _key_of(loc: tuple[str | int, ...]) -> Key:
    """The file's own key: without the marks of a kind's model, nor the mark of a table's key."""
    return tuple(part for part in loc if not (isinstance(part, str) and (part.startswith(_TAG) or part == "[key]")))


def _sentence(error: Mapping[str, Any], key: Key, data: Mapping[str, Any]) -> str:
    kind, value, ctx = str(error["type"]), error.get("input"), error.get("ctx", {})
    if kind == "value_error":
        return str(ctx["error"])
    if kind == "missing":
        return "required, but absent"
    if kind == "extra_forbidden":
        return _unknown(tuple(error["loc"]), key, data)
    if kind == "literal_error":
        return f"expected {ctx['expected']}, found {_found(value)}"
    worded = _EXPECTED.get(kind)
    if worded is None:
        return f"expected another sort of value, found {_found(value)} ({kind.replace('_', ' ')})"
    bounds = {name: f"{bound:.15g}" if isinstance(bound, float) else bound for name, bound in ctx.items()}
    return f"expected {worded.format(**bounds)}, found {_found(value)}"


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
    if loc[-2:-1] == (_TAG + _PLUGIN,):
        kind = _at(data, (*key[:-1], "kind"))
        options = dotted((*key[:-1], "options"))
        meant = nearest(str(kind), _BUILT_IN)
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
        if isinstance(part, str) and part.startswith(_TAG):
            node = _variant(node, part.removeprefix(_TAG), definitions)
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
        const = table.get("properties", {}).get("kind", {}).get("const", _PLUGIN)
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
    that neither a folder's place, nor comments, nor a default written out change it. Secrets, the data root and the
    runs folder are left out; the data itself is pinned by the tape's digests.
    """
    text = json.dumps(_canonical(config), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(config: Config) -> dict[str, Any]:
    tree = {name: _canon(getattr(config, name)) for name in Config.model_fields}
    tree["storage"] = {"durability": config.storage.durability}
    del tree["secrets"]
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
    if _is_word(value, "path"):
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
        found["default"] = _shown_span(found["default"])
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
        raise ConfigError(f"{where}: schema_version: expected {SCHEMA_VERSION} or none, found {_found(found)}")
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
