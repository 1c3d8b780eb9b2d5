"""Examples are the same on every machine, so that a test run repeats; `make fuzz` draws new ones."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("fuzz", derandomize=False, deadline=None, max_examples=500)
settings.load_profile("fuzz" if os.environ.get("EVENKEEL_FUZZ") else "same")

SLOW = frozenset(
    {
        "test_advise", "test_compare", "test_considerations", "test_convertible", "test_desk", "test_insurance_indices",
        "test_lab_scorer", "test_merger_arbitrage", "test_stress", "test_sweep_app",
    }
)  # fmt: skip
"""Unit tests that run whole sessions or solve many problems: `make quick` leaves them to `make test`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the files that take more than a few seconds."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
