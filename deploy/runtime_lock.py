"""The runtime lock is the part of the lock that the program itself needs; law: same versions, same hashes, nothing else.

    python deploy/runtime_lock.py pyproject.toml requirements.lock > runtime.lock

A package is needed when pyproject.toml asks for it, or when one that is needed does: the `# via` lines of the lock say so.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_START = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==")
_VIA = re.compile(r"^\s+#\s+(?:via\s+)?([A-Za-z0-9_.-]+)")


def same_name(name: str) -> str:
    """The name as package indexes compare it: lower case, runs of `-_.` as one hyphen."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_entries(lock: str) -> dict[str, list[str]]:
    """The lines of each locked package, by name."""
    entries: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in lock.splitlines():
        if found := _START.match(line):
            lines = entries.setdefault(same_name(found[1]), [])
        if line.startswith((" ", "\t")) or found:
            lines.append(line)
    return entries


def asked_by(lines: list[str]) -> set[str]:
    """The packages that asked for an entry."""
    return {same_name(found[1]) for line in lines if (found := _VIA.match(line)) and found[1] != "via"}


def runtime_lock(pyproject: str, lock: str) -> str:
    """The lines of the lock that the project's own dependencies lead to. ValueError when one of them is not locked."""
    roots = {
        same_name(re.split(r"[\s\[<>=!~;]", asked, maxsplit=1)[0])
        for asked in tomllib.loads(pyproject)["project"]["dependencies"]
    }
    entries = read_entries(lock)
    if absent := sorted(roots - entries.keys()):
        raise ValueError(f"lock: expected every dependency of the project in it, found none of {', '.join(absent)}")
    needed = set(roots)
    while more := {name for name, lines in entries.items() if name not in needed and asked_by(lines) & needed}:
        needed |= more
    return "\n".join(line for name in sorted(needed) for line in entries[name]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(runtime_lock(Path(sys.argv[1]).read_text("utf-8"), Path(sys.argv[2]).read_text("utf-8")))
