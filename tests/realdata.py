"""Real data is found through EVENKEEL_DATA or beside the project; law: a test that needs it skips,
with a reason, where it is absent.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "lean"


def lean_root() -> Path:
    """LEAN's Data folder; skips the test where there is none."""
    given = os.environ.get("EVENKEEL_DATA", "")
    root = Path(given).expanduser() if given else _BESIDE
    if not root.is_dir():
        pytest.skip("no recorded market data: set EVENKEEL_DATA to a copy of LEAN's Data folder")
    return root


def data_root() -> Path:
    """The folder that holds the other data sets beside LEAN's; skips the test where they are absent."""
    root = lean_root().parent
    if not (root / "reference.json").is_file():
        pytest.skip("no reference numbers beside the LEAN Data folder that EVENKEEL_DATA names")
    return root
