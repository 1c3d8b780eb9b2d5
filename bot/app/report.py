"""A report is one HTML page that says what hedging did in a stored run; law: it stands alone and says what is not known.

It asks no network for anything: style and plots are inside it, and its own security policy forbids the rest. All text
from outside is escaped. A figure that is not known is a dash with a note, never NaN. The same run gives the same bytes.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bot.app.report_material import gather
from bot.app.report_page import render
from bot.app.runs import StoredRun
from bot.core.errors import StorageError


def write_report(stored: StoredRun, out: Path) -> Path:
    """The path of the finished page about a stored run, written whole or not at all.

    RunNotFound when the folder lacks a part of a run, DataError or JournalError when a part is damaged, StorageError
    when the page cannot be written.
    """
    page = render(gather(stored))
    _write_whole(out, page)
    return out


def _write_whole(out: Path, text: str) -> None:
    """Write beside the place and rename: a reader sees the old page or the new one."""
    temporary = ""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(out)
    except OSError as fault:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"{out}: the report cannot be written: {fault.strerror}; nothing was kept of it") from fault
