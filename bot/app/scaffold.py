"""A scaffold is the shipped examples laid out in a folder of the user's own; law: nothing that exists is overwritten."""

from __future__ import annotations

from pathlib import Path

from bot.app import config as configs
from bot.core.errors import ConfigError


def lay_out(folder: Path) -> list[str]:
    """The files written, relative to the folder."""
    source = configs.examples_folder()
    files = sorted(
        path
        for path in source.rglob("*")
        if path.is_file()
        and path.suffix in {".toml", ".csv", ".json"}
        and path.relative_to(source).parts[0] != "runs"  # a checkout keeps its own runs beside its examples
    )
    if not files:
        raise ConfigError("init: expected the shipped examples in this installation, found none")
    written: list[str] = []
    for file in files:
        place = folder / file.relative_to(source)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
        written.append(str(file.relative_to(source)))
    (folder / "runs").mkdir(exist_ok=True)
    return written
