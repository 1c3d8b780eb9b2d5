"""An archive is a zip opened for reading; law: damage is a DataError naming the file; only asked members are read."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from bot.core.errors import DataError


class Archive:
    """The members of one zip, read one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: tuple[str, ...] | None = None

    def names(self) -> tuple[str, ...]:
        """The CSV members in the order of the zip's directory."""
        if self._names is None:
            try:
                with zipfile.ZipFile(self.path) as file:
                    names = tuple(info.filename for info in file.infolist() if not info.is_dir())
            except (zipfile.BadZipFile, OSError, EOFError, ValueError) as fault:
                raise DataError(f"{self.path}: expected a whole zip file, found {fault}") from fault
            self._names = tuple(name for name in names if name.lower().endswith(".csv"))
            if not self._names:
                raise DataError(f"{self.path}: expected CSV members, found {', '.join(names) or 'an empty zip'}")
        return self._names

    def read(self, names: list[str]) -> list[bytes]:
        """The bytes of the named members, their checksums verified."""
        found: list[bytes] = []
        name = ""
        try:
            with zipfile.ZipFile(self.path) as file:
                for name in names:
                    found.append(file.read(name))
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error, KeyError, RuntimeError) as fault:
            raise DataError(f"{self.path}!{name}: expected a whole member, found {fault}") from fault
        return found
