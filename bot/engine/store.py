"""A store keeps one file's bytes; law: what was appended before a `sync` that returned is there after any crash.

Nothing is promised of bytes appended since: after a crash they may be there, not there, or there in part. `FileStore` is
a file held by one process alone; a simulation puts a disk with faults in its place.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

from bot.core.errors import JournalError


class Store(Protocol):
    """Where a live journal's bytes go. Errors: OSError of any kind, after which nothing since the last `sync` is sure."""

    name: str

    def open(self) -> int:
        """Take the store for this process; how many bytes it holds."""

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`."""

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""

    def sync(self) -> None:
        """Return once all that was appended will survive a crash."""

    def cut(self, size: int) -> None:
        """Drop what lies beyond `size` bytes."""

    def close(self) -> None:
        """Give the store up."""


class FileStore:
    """A file of mode 0600 held by an exclusive lock: a second process that wants it is refused."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._fd = -1

    def open(self) -> int:
        """Create or take the file, lock it; its size. JournalError when another process holds it."""
        existed = self._path.exists()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            self.close()
            raise JournalError(f"{self._path}: another process holds this journal; one book, one hedger") from fault
        if not existed:
            _sync_folder(self._path.parent)
        return os.fstat(self._fd).st_size

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`."""
        return os.pread(self._fd, length, start)

    def append(self, data: bytes) -> None:
        """Write all of it at the end, in as many writes as the system takes."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def sync(self) -> None:
        """Sync data to disk."""
        os.fdatasync(self._fd)

    def cut(self, size: int) -> None:
        """Truncate to `size` and sync it."""
        os.ftruncate(self._fd, size)
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file and with it the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _sync_folder(folder: Path) -> None:
    """A new file's name survives a crash only when its folder is synced too."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
