"""A tally is what a feed counted while reading: refused rows by reason, repairs, notes and the digests of its files.

Law: a row's fault is counted and survived until more than `max_refused` were refused; a file's fault is raised at once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from bot.core.errors import DataError, TooManyRefused


class Tally:
    """Counts, kept by the sources of one feed."""

    def __init__(self, max_refused: int | None = None) -> None:
        self.max_refused = max_refused
        self.refused: dict[str, int] = {}
        self.repaired: dict[str, int] = {}
        self.notes: list[str] = []
        self.files: dict[str, str] = {}

    def refuse(self, reason: str, count: int, *, where: str) -> None:
        """Count refused rows; TooManyRefused once more than `max_refused` were. `where` names the first of them."""
        if not count:
            return
        self.refused[reason] = self.refused.get(reason, 0) + count
        total = sum(self.refused.values())
        if self.max_refused is not None and total > self.max_refused:
            raise TooManyRefused(
                f"max_refused = {self.max_refused}: expected at most {self.max_refused} refused rows, found {total} "
                f"({', '.join(f'{name} {n}' for name, n in sorted(self.refused.items()))}); latest: {reason} at {where}"
            )

    def repair(self, what: str, count: int = 1) -> None:
        """Count a repair the options asked for."""
        if count:
            self.repaired[what] = self.repaired.get(what, 0) + count

    def note(self, text: str) -> None:
        """Keep a sentence for the report, once."""
        if text not in self.notes:
            self.notes.append(text)

    def digest(self, path: Path, root: Path | None) -> None:
        """Keep the sha256 of a file under its path relative to the root; DataError when it cannot be read."""
        name = relative_name(path, root)
        if name in self.files:
            return
        try:
            with path.open("rb") as file:
                self.files[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as fault:
            raise DataError(f"{path}: expected a readable file, found {fault.strerror or fault}") from fault


def relative_name(path: Path, root: Path | None) -> str:
    """The path below the root with forward slashes, or the bare file name when it lies elsewhere."""
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.name
