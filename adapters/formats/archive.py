"""An archive is a zip opened for reading; law: damage is a DataError naming the file; only asked members are unpacked."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from bot.core.errors import DataError


class Archive:
    """The members of one zip. Its packed bytes are kept between reads, until `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: tuple[str, ...] | None = None
        self._by_key: dict[str, list[str]] | None = None
        self._file: zipfile.ZipFile | None = None

    def names(self) -> tuple[str, ...]:
        """The CSV members in the order of the zip's directory."""
        if self._names is None:
            names = tuple(info.filename for info in self._open().infolist() if not info.is_dir())
            self._names = tuple(name for name in names if name.lower().endswith(".csv"))
            if not self._names:
                raise DataError(f"{self.path}: expected CSV members, found {', '.join(names) or 'an empty zip'}")
        return self._names

    def names_by(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        """The members by a key of their name; the key function of the first call stays."""
        if self._by_key is None:
            self._by_key = {}
            for name in self.names():
                self._by_key.setdefault(key(name), []).append(name)
        return self._by_key

    def read(self, names: list[str]) -> list[bytes]:
        """The bytes of the named members, their checksums verified."""
        found: list[bytes] = []
        file = self._open()
        for name in names:
            try:
                found.append(file.read(name))
            except (zipfile.BadZipFile, EOFError, zlib.error, KeyError, RuntimeError, OSError) as fault:
                raise DataError(f"{self.path}!{name}: expected a whole member, found {fault}") from fault
        return found

    def release(self) -> None:
        """Forget the packed bytes; the next read opens the file again."""
        self._file = None

    def _open(self) -> zipfile.ZipFile:
        if self._file is None:
            try:
                self._file = zipfile.ZipFile(io.BytesIO(self.path.read_bytes()))
            except (zipfile.BadZipFile, OSError, EOFError, ValueError) as fault:
                raise DataError(f"{self.path}: expected a whole zip file, found {fault}") from fault
        return self._file
