"""A disk that can fail is a `Store` in memory; law: what was synced is never lost, and nothing else is promised.

`crash` leaves what a power cut leaves: the synced bytes, and of what was appended since any beginning at all.
"""

from __future__ import annotations

import errno
import os
from random import Random

from bot.core.errors import JournalError


class FaultyDisk:
    """One file of a disk with faults drawn from `rng`. Implements `Store`.

    `fault_rate` is the chance that an append or sync fails; a failed append may leave a part of the bytes behind.
    """

    def __init__(self, rng: Random, *, fault_rate: float = 0.0, name: str = "disk") -> None:
        self.name = name
        self.fault_rate = fault_rate
        self.full = False
        """While True no append succeeds."""
        self.held = False
        """True while a process has it open."""
        self.syncs = 0
        self.faults = 0
        """Appends, syncs and cuts that failed."""
        self.torn = 0
        """Crashes that left a beginning of what was appended last, but not all of it."""
        self._rng = rng
        self._data = bytearray()
        self._synced = 0

    def open(self) -> int:
        """Take the file; JournalError while another process holds it."""
        if self.held:
            raise JournalError(f"{self.name}: another process holds this journal; one book, one hedger")
        self.held = True
        return len(self._data)

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`."""
        return bytes(self._data[start : start + length])

    def append(self, data: bytes) -> None:
        """Add bytes; OSError by chance or when full, a part of them may have been written."""
        if self.full or self._rng.random() < self.fault_rate:
            self._data += data[: self._rng.randrange(len(data) + 1)]
            raise self._fault(errno.ENOSPC if self.full else errno.EIO)
        self._data += data

    def sync(self) -> None:
        """Make all of it survive; OSError by chance, and then nobody knows."""
        if self._rng.random() < self.fault_rate:
            raise self._fault(errno.EIO)
        self.syncs += 1
        self._synced = len(self._data)

    def cut(self, size: int) -> None:
        """Drop what lies beyond, synced; OSError by chance, and then it may have been dropped or not."""
        failed = self._rng.random() < self.fault_rate
        if not failed or self._rng.random() < 0.5:
            del self._data[size:]
            self._synced = min(self._synced, size)
        if failed:
            raise self._fault(errno.EIO)

    def close(self) -> None:
        """Let another process have it."""
        self.held = False

    def crash(self, *, power: bool = False) -> None:
        """The process died: unsynced bytes are there up to anywhere, torn within a record or not.

        `power`: the machine died with it, so that the file may have been lengthened by bytes which were never written.
        """
        whole = len(self._data)
        keep = self._rng.randint(self._synced, whole)
        del self._data[keep:]
        if keep < whole:
            self.torn += 1
            if power:
                self._data += bytes(self._rng.randrange(whole - keep + 1))
        self._synced = len(self._data)
        self.held = False

    def fork(self) -> FaultyDisk:
        """Another disk with a copy of what is synced, held by nobody: a replica that somebody takes up elsewhere."""
        twin = FaultyDisk(self._rng, fault_rate=self.fault_rate, name=self.name)
        twin._data[:] = self._data[: self._synced]
        twin._synced = self._synced
        return twin

    @property
    def synced(self) -> int:
        """How many bytes a crash cannot take."""
        return self._synced

    def view(self) -> bytearray:
        """All of it as it stands, not to be changed."""
        return self._data

    def bytes(self) -> bytes:
        """All of it."""
        return bytes(self._data)

    def _fault(self, number: int) -> OSError:
        self.faults += 1
        return OSError(number, os.strerror(number))
