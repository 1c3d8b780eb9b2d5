"""Examples are the same on every machine, so that a test run repeats; `make fuzz` draws new ones."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("fuzz", derandomize=False, deadline=None, max_examples=500)
settings.load_profile("fuzz" if os.environ.get("EVENKEEL_FUZZ") else "same")
