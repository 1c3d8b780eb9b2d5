"""A file list is what `root` and `files` name on disk; law: every name must be there, in the order given."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

from adapters.formats.options import ReplayOptions
from bot.core.errors import DataError

_WILD = "*?["


def find_files(options: ReplayOptions, *, default: str = "") -> tuple[Path | None, list[Path]]:
    """The root and the files to read, `*` expanded in order of name; DataError when one is missing.

    With no `files` the `default` pattern under the root is meant.
    """
    root = Path(options.root).expanduser() if options.root else None
    names: Sequence[str] = options.files or ((default,) if default and root is not None else ())
    if not names:
        raise DataError(f'feed {options.name}: format {options.format!r} expects files = ["..."], found none')
    found: list[Path] = []
    for name in names:
        found += _expand(root, name)
    twice = next((path for path in found if found.count(path) > 1), None)
    if twice is not None:
        raise DataError(f"{twice}: expected each file once, found it again in files")
    return root, found


def _expand(root: Path | None, name: str) -> list[Path]:
    path = Path(name).expanduser()
    if not path.is_absolute() and root is not None:
        path = root / path
    if not any(sign in path.name for sign in _WILD):
        if not path.is_file():
            raise DataError(f"{path}: expected a file, found {'a folder' if path.is_dir() else 'no such file'}")
        return [path]
    found = sorted(item for item in path.parent.glob(path.name) if item.is_file())
    if not found:
        raise DataError(f"{path}: expected at least one file of that pattern, found none")
    return found


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked when its name ends in .gz; DataError when it is missing, damaged or empty."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                data = file.read()
        else:
            data = path.read_bytes()
    except (OSError, EOFError, zlib.error) as fault:
        raise DataError(f"{path}: expected a whole file, found {fault}") from fault
    if not data.strip():
        raise DataError(f"{path}: expected rows, found an empty file")
    return data
