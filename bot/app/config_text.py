"""Config text is a file's tables before and after they mean something: the environment laid over, TOML written.

Law: nothing here knows what a key means; a word of the environment keeps its type open until the key's owner reads it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, NamedTuple

PREFIX: Final = "EVENKEEL__"
"""What an environment variable that overrides a key begins with."""

Key = tuple[str | int, ...]

_BARE_KEY = re.compile(r"^[A-Za-z0-9_-]+$")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


class Fault(NamedTuple):
    """What is wrong with one key: the key, and what was expected and found."""

    key: Key
    text: str


class Word(str):
    """A value from the environment: text whose type is decided by the key it is for."""

    __slots__ = ()


def dotted(key: Key) -> str:
    """The key as one text, `feeds.0.root`."""
    return ".".join(str(part) for part in key)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name most like this word, or an empty text."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else ""


def literal(word: str) -> Any:
    """The value a word is as a TOML literal (number, true, list, table, quoted text), or the word itself."""
    try:
        found = tomllib.loads(f"value = {word}", parse_float=Decimal)
    except (ValueError, RecursionError, InvalidOperation):
        return str(word)
    return found["value"] if set(found) == {"value"} else str(word)


def overlay(data: dict[str, Any], env: Mapping[str, str]) -> tuple[dict[Key, str], list[Fault]]:
    """The variables laid over `data` (which changes), by the key each sets, and the faults of those that fit nowhere.

    `EVENKEEL__FEEDS__0__ROOT` sets `feeds.0.root`; a number is a place in a list; the place after the last adds one.
    """
    sources: dict[Key, str] = {}
    faults: list[Fault] = []
    for name in sorted(env, key=_in_order):
        if not name.upper().startswith(PREFIX):
            continue
        parts = name[len(PREFIX) :].split("__")
        if not all(parts):
            faults.append(Fault((), f"{name}: expected {PREFIX}SECTION__KEY, found an empty part"))
            continue
        key, fault = _set(data, parts, env[name])
        sources[key] = name
        if fault:
            faults.append(Fault(key, f"{name}: {fault}"))
    return sources, faults


def _in_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """List places by number, so that `10` comes after `9`; all else by name."""
    return tuple((0, int(part), "") if _is_place(part) else (1, 0, part.upper()) for part in name.split("__"))


def _is_place(part: str) -> bool:
    return part.isascii() and part.isdigit()


def _set(data: dict[str, Any], parts: list[str], text: str) -> tuple[Key, str]:
    """Set one key inside nested tables; the key, and a fault when a part on the way is not a table or list."""
    here: Any = data
    key: Key = ()
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        fresh: Any = _value(text) if last else ([] if _is_place(parts[depth + 1]) else {})
        if isinstance(here, list):
            if not _is_place(part) or int(part) > len(here):
                return (*key, part.lower()), f"expected a place from 0 to {len(here)}, found {part!r}"
            place = int(part)
            key = (*key, place)
            if place == len(here):
                here.append(fresh)
            elif last:
                here[place] = fresh
            here = here[place]
        elif isinstance(here, dict):
            word = next((known for known in here if known.lower() == part.lower()), part.lower())
            key = (*key, word)
            if last or word not in here:
                here[word] = fresh
            here = here[word]
        else:
            return key, f"expected a table at {dotted(key)}, found {here!r}"
    return key, ""


def _value(text: str) -> Any:
    """A list or table when the word is written as one, else the word with its type left open."""
    if text.lstrip()[:1] in {"[", "{"}:
        found = literal(text.strip())
        if not isinstance(found, str):
            return found
    return Word(text)


def to_toml(data: Mapping[str, Any]) -> str:
    """The tables as TOML text, values first, then tables in the order given; None is left out.

    >>> print(to_toml({"name": "a", "session": {"grid": "1m"}, "feeds": [{"kind": "replay"}]}), end="")
    name = "a"
    <BLANKLINE>
    [session]
    grid = "1m"
    <BLANKLINE>
    [[feeds]]
    kind = "replay"
    """
    return "\n".join(_table(data, ())).lstrip("\n") + "\n"


def _table(data: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    tables: list[tuple[str, Any]] = []
    for key, value in data.items():
        if value is None:
            continue
        if isinstance(value, Mapping) or _is_table_list(value):
            tables.append((key, value))
        else:
            lines.append(f"{_key(key)} = {_scalar(value)}")
    for key, value in tables:
        deeper = (*path, key)
        name = ".".join(_key(part) for part in deeper)
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *_table(value, deeper)]
            continue
        for item in value:
            lines += ["", f"[[{name}]]", *_table(item, deeper)]
    return lines


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _text(value: str) -> str:
    return (
        '"' + "".join(_ESCAPES.get(c) or (c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in value) + '"'
    )


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    if isinstance(value, datetime | date):
        return _text(value.isoformat())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(k)} = {_scalar(v)}" for k, v in value.items() if v is not None)
        return "{" + inside + "}"
    if isinstance(value, str | Path):
        return _text(str(value))
    raise TypeError(f"expected a value TOML can hold, found {type(value).__name__}")
