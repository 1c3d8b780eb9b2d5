"""Words are what a person leaves for a live session, and its status what it tells them; law: nothing heavy is loaded to pull a
kill switch, and a word left while nobody lives is taken by the next that does.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from bot.core.errors import RunNotFound

STATUS: Final = "status.json"
CONTROL: Final = "control"
VERBS: Final = (
    "halt", "resume", "clear", "tighten", "enable", "approve", "decline", "drill", "balance", "reconcile", "accept_clock",
)  # fmt: skip
"""What a person may tell a live session, besides `kill`."""


def leave_word(folder: Path, verb: str, argument: str = "") -> None:
    """Leave a word for the process that serves a folder."""
    path = folder / CONTROL
    aside = path.with_suffix(f".{os.getpid()}")
    before = path.read_text("utf-8") if path.exists() else ""
    aside.write_text(f"{before}{verb} {argument}\n", encoding="utf-8")
    aside.replace(path)


def read_status(folder: Path) -> dict[str, Any]:
    """The last status written in a folder."""
    return msgspec.json.decode((folder / STATUS).read_bytes())  # type: ignore[no-any-return]  # our own file


def live_folder(where: str) -> Path:
    """The folder of a live run: given, named by its config, or the only one there is. RunNotFound when there is none."""
    direct = Path(where)
    if where and (direct / STATUS).is_file():
        return direct
    if where and direct.suffix == ".toml":
        from bot.app import config as configs  # noqa: PLC0415  heavy, and only this way of naming a run needs it

        loaded = configs.load_config(direct, dict(os.environ))
        return _existing(loaded.storage.runs / f"{loaded.name}-live")
    places = [Path("runs"), Path("config/runs")]
    found = sorted(path.parent for place in places for path in place.glob(f"*-live/{STATUS}"))
    if where:
        found = [path for path in found if path.name in {where, f"{where}-live"}]
    if len(found) == 1:
        return found[0]
    known = ", ".join(str(path) for path in found) or "none"
    raise RunNotFound(f"live run {where or 'in runs/'}: expected one folder with {STATUS}, found {known}")


def _existing(folder: Path) -> Path:
    if (folder / STATUS).is_file():
        return folder
    raise RunNotFound(f"{folder}: expected a live run's {STATUS}, found none")


def wait_for_rung(folder: Path, rung: int, *, seconds: float) -> bool:
    """True once a living session says that it stands on the rung or above."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if not (folder / CONTROL).exists() and read_status(folder)["kill_rung"] >= rung:
                return True
        time.sleep(0.05)
    return False
