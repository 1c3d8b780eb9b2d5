"""A part is what every table of a config is made of: words a value may be, and tables whose keys are all known.

Law: a value is read exactly as written or refused in words; nothing here knows a table of the file.
"""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeAlias, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)

from bot.app.config_text import Key, Word, literal
from bot.domain.units import Nanos, iso, nanos, parse_instant, parse_span, span

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
    *("min_var_delta", "bartlett_delta", "pin_guard", "callable", "exact_band", "guarded_band", "delta_gamma_vega"),
)
"""The kinds of policy that are built in."""
PLUGIN_KIND: Final = "plugin"
BUILT_IN: Final = (
    *("replay", "synthetic", "dataset", "scenario", "paper", "delta_hedger"),
    *("convertible_arbitrage", "merger_arbitrage"),
    *POLICY_KINDS,
)
TAG: Final = "kind:"
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


class Reading(NamedTuple):
    """Where and with what a file is read."""

    folder: Path
    env: Mapping[str, str]
    files: bool


class FaultsError(ValueError):
    """Several faults found by one rule, each at a key below the rule's own."""

    def __init__(self, *faults: tuple[Key, str]) -> None:
        super().__init__("; ".join(text for _, text in faults))
        self.faults = faults


def reading_of(info: ValidationInfo) -> Reading:
    context = info.context
    return context if isinstance(context, Reading) else Reading(Path(), {}, False)


def shown(value: Any) -> str:
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
            raise ValueError(f"expected a number, found {shown(str(value))}") from None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"expected a number, found {shown(value)}")
    exact = (
        value if isinstance(value, Decimal) else Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    )
    if not exact.is_finite() or not math.isfinite(float(exact)):
        raise ValueError(f"expected a finite number, found {shown(value)}")
    if exact and float(exact) == 0.0:
        raise ValueError(f"expected a number that a float can tell from 0, found {shown(value)}")
    return exact


def _number(value: Any) -> float:
    return float(_exact(value))


def _whole(value: Any) -> int:
    exact = _exact(value)
    if not isinstance(value, int | Word) or exact.adjusted() > 18 or exact != exact.to_integral_value():
        raise ValueError(f"expected a whole number, found {shown(value)}")
    return int(exact)


def _flag(value: Any) -> bool:
    if isinstance(value, Word) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {shown(value)}")
    return value


def _instant(value: Any) -> Nanos:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return nanos(value)
    if not isinstance(value, str):
        raise ValueError(f"expected an instant with its zone, such as 2020-01-06T21:00:00Z, found {shown(value)}")
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
        raise ValueError(f"expected a date that exists, found {shown(value)}") from None
    raise ValueError(f"expected a date such as 2020-01-06, found {shown(value)}")


def _worded(fault: ValueError, instead: str) -> str:
    return str(fault) if str(fault).startswith("expected") else instead


def _spans(least: str, most: str) -> Callable[[Any], Nanos]:
    """A reader of lengths of time within two bounds, inclusive."""

    def read(value: Any) -> Nanos:
        if not isinstance(value, str):
            raise ValueError(f"expected a length of time such as 250ms, 60s, 15m, 1h or 1d, found {shown(value)}")
        length = parse_span(value)
        if not parse_span(least) <= length <= parse_span(most):
            raise ValueError(f"expected a length of time from {least} to {most}, found {shown(value)}")
        return length

    return read


def signed_span(value: Any) -> Nanos:
    if not isinstance(value, str):
        raise ValueError(f"expected a length of time such as 1269ms or -1269ms, found {shown(value)}")
    read = _spans("0s", "1d")
    return -read(value[1:]) if value.startswith("-") else read(value)


def shown_span(length: Nanos) -> str:
    return span(length) if length else "0s"


def _pace(value: Any) -> float | None:
    """The pace as recorded seconds per second of wall clock; None as fast as the machine can."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x", value.strip()) if isinstance(value, str) else None
    if value == "max" or value is None:
        return None
    if found is None or not 0.001 <= float(found[1]) <= 1_000_000:
        raise ValueError(
            f"expected 'max', or a pace from '0.001x' to '1000000x' such as '1x' or '60x', found {shown(value)}"
        )
    return float(found[1])


def _zone(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a time zone such as America/New_York, found {shown(value)}")
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected a time zone such as America/New_York, found {shown(value)}") from None
    return str(value)


def smile_rule(value: Any) -> str | float:
    """A rule by name, or the skew-stickiness ratio itself."""
    if isinstance(value, str) and value.strip() in SMILE_RULES:
        return value.strip()
    if isinstance(value, str) and not isinstance(value, Word):
        raise ValueError(f"expected one of {', '.join(SMILE_RULES)}, or a number, found {shown(value)}")
    ratio = _number(value)
    if not -10.0 <= ratio <= 10.0:
        raise ValueError(f"expected a skew-stickiness ratio from -10 to 10, found {ratio:g}")
    return ratio


def ex_day(value: Any) -> str:
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
            f"expected a date such as 2015-11-05 or an instant with its zone, found {shown(value)}"
        ) from None


def _pair(value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple):
        return (_number(value), _number(value))
    if len(value) != 2:
        raise ValueError(f"expected one number, or two as [lowest, highest], found {shown(value)}")
    lo, hi = _number(value[0]), _number(value[1])
    if lo > hi:
        raise ValueError(f"expected [lowest, highest], found [{lo}, {hi}]")
    return (lo, hi)


def _free(value: Any, info: ValidationInfo) -> dict[str, Any]:
    """A plug-in's own table: plain values, `{path = ...}` made absolute, and no secret written out."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a table, found {shown(value)}")
    faults = tuple(_written_secrets(value, ()))
    if faults:
        raise FaultsError(*faults)
    return {key: _plain(item, reading_of(info).folder, (key,)) for key, item in value.items()}


def _written_secrets(table: Mapping[str, Any], key: Key) -> Iterator[tuple[Key, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            if not is_word(value, "secret"):
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
    if isinstance(value, dict) and not is_word(value, "path"):
        return {name: _plain(item, folder, (*key, name)) for name, item in value.items()}
    try:
        return _plain_leaf(value, folder)
    except ValueError as fault:
        raise FaultsError((key, str(fault))) from None


def _plain_leaf(value: Any, folder: Path) -> Any:
    if isinstance(value, Decimal):
        return _number(value)
    return {"path": str(resolve_path(value["path"], folder))} if isinstance(value, dict) else value


def is_word(value: Any, word: str) -> bool:
    """True for a table of that one key with a text, such as `{secret = "name"}` and `{path = "prices.csv"}`."""
    return isinstance(value, dict) and set(value) == {word} and isinstance(value[word], str)


def resolve_path(value: Any, folder: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise ValueError(f"expected a path, found {shown(value)}")
    return Path(os.path.normpath(folder / Path(value).expanduser()))


def _file(value: Any, info: ValidationInfo) -> Path | None:
    if value is None:
        return None
    reading = reading_of(info)
    path = resolve_path(value, reading.folder)
    if reading.files and not path.is_file():
        raise ValueError(f"expected a file, found {'a folder' if path.is_dir() else 'nothing'} at {path}")
    return path


def is_there(path: Path) -> bool:
    """True for a file, and for a pattern of `*` and `?` that some file matches."""
    if not any(sign in str(path) for sign in "*?["):
        return path.is_file()
    return any(path.is_file() for path in map(Path, glob.glob(str(path))))  # noqa: PTH207  (a whole path, absolute)


def folder_path(value: Any, info: ValidationInfo) -> Path:
    return resolve_path(value, reading_of(info).folder)


def kinds(*builtin: str) -> Callable[[Any], str]:
    """Which model reads a table: its `kind` when that is built in, else the one of plug-ins."""

    def tell(value: Any) -> str:
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        return TAG + (str(kind) if kind in builtin else PLUGIN_KIND)

    return tell


_as_span = PlainSerializer(lambda value: None if value is None else shown_span(value), return_type=str | None)
as_signed_span = PlainSerializer(lambda value: "-" * (value < 0) + shown_span(abs(value)), return_type=str)
_as_instant = PlainSerializer(lambda value: None if value is None else iso(value), return_type=str | None)
_as_path = PlainSerializer(lambda value: None if value is None else str(value), return_type=str | None)
_as_day = PlainSerializer(lambda value: None if value is None else value.isoformat(), return_type=str | None)
_as_pace = PlainSerializer(lambda value: "max" if value is None else f"{value:.15g}x", return_type=str)


def text_schema(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [example]})


Number = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_whole)]
Amount = Annotated[Decimal, BeforeValidator(_exact), WithJsonSchema({"type": "number"})]
Flag = Annotated[bool, BeforeValidator(_flag)]
Instant = Annotated[Nanos, BeforeValidator(_instant), _as_instant, text_schema("2020-01-06T21:00:00Z")]
Day = Annotated[date, BeforeValidator(_day), _as_day, text_schema("2020-01-06")]
Delay = Annotated[Nanos, BeforeValidator(_spans("0s", "1d")), _as_span, text_schema("250ms")]
"""A length of time that may be nothing."""
Interval = Annotated[Nanos, BeforeValidator(_spans("1ms", "3660d")), _as_span, text_schema("15m")]
"""A length of time between two events, never nothing."""
Pace = Annotated[float | None, BeforeValidator(_pace), _as_pace, text_schema("60x")]
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_pair),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}]}
    ),
]
FilePath = Annotated[Path, BeforeValidator(_file), _as_path, text_schema("books/my_book.csv")]
FolderPath = Annotated[Path, BeforeValidator(folder_path), _as_path, text_schema("runs")]
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
        return {name: value for name, value in bare(self).items() if name != "kind"}


class Plugin(Kinded):
    """A kind that a plug-in brings; its own keys go into `options` and are checked by the plug-in."""

    kind: Name = Field(description="the name of an entry point, allowed under [plugins]")
    options: Options = Field(default={}, description="the plug-in's own keys, handed over as they are")

    def settings(self) -> dict[str, Any]:
        """The plug-in's own keys."""
        return dict(self.options)


def bare(model: BaseModel) -> dict[str, Any]:
    """The values of a model with its sub-tables as plain dicts and None left out."""
    found: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = _unmodelled(getattr(model, name))
        if value is not None:
            found[name] = value
    return found


def _unmodelled(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return bare(value)
    if isinstance(value, tuple | list):
        return type(value)(_unmodelled(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    return value


def once(values: _Values, noun: str, *, below: Key = ()) -> _Values:
    seen: dict[Any, int] = {}
    faults: list[tuple[Key, str]] = []
    for i, value in enumerate(values):
        if value in seen:
            faults.append(
                ((i, *below), f"expected each {noun} once, found {value} again (first at place {seen[value]})")
            )
        seen.setdefault(value, i)
    if faults:
        raise FaultsError(*faults)
    return values


def only_with(value: Any, info: ValidationInfo, key: str, needs: tuple[str, ...], *, required: bool = False) -> Any:
    """The value when it fits what another key chose; that key's own fault is not told twice."""
    chosen = info.data.get(key)
    if required and chosen in needs and value is None:
        raise ValueError(f"required when {key} = {chosen!r}, but absent")
    if value is not None and chosen is not None and chosen not in needs:
        allowed = " or ".join(repr(item) for item in needs)
        raise ValueError(f"expected only with {key} = {allowed}, found {key} = {chosen!r}")
    return value


def one_of(value: float | None, info: ValidationInfo, other: str) -> float | None:
    """The value when exactly one of it and another key was given; the other's own fault is not told twice."""
    if other in info.data and (value is None) == (info.data[other] is None):
        found = "neither" if value is None else "both"
        raise ValueError(f"expected one of {other} and {info.field_name}, found {found}")
    return value


def bound_steps(length: Nanos, step: Nanos) -> None:
    if length // step > MAX_SYNTHETIC_STEPS:
        raise ValueError(f"expected at most {MAX_SYNTHETIC_STEPS} steps in {span(length)}, found {length // step}")
