"""Recorded market data is found through EVENKEEL_DATA or beside the project; tests that need it skip without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "lean"


def lean_root() -> Path:
    """The folder laid out like LEAN's public Data folder; skips the test with the reason when there is none."""
    named = os.environ.get("EVENKEEL_DATA")
    root = Path(named) if named else _BESIDE
    if not root.is_dir():
        pytest.skip("no recorded data: set EVENKEEL_DATA to a copy of LEAN's public Data folder")
    return root


def data_root() -> Path:
    """The folder that holds the LEAN data and the other recorded sets; skips the test when there is none."""
    return lean_root().parent
