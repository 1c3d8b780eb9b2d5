"""The histogram of latencies counts each one once and gives quantiles back within a step."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bot.core.latency import BOUNDS, Latency


def test_bounds_rise_by_a_quarter_of_a_decade() -> None:
    """Twenty-five bounds lead from 10 microseconds to 10 seconds."""
    assert (len(BOUNDS), BOUNDS[0], BOUNDS[4], BOUNDS[-1]) == (25, 10_000, 100_000, 10_000_000_000)
    assert all(abs(b / a - 10**0.25) < 1e-4 for a, b in pairwise(BOUNDS))


def test_nothing_noted_has_no_quantile() -> None:
    """An empty histogram answers NaN, one with a wait beyond all bounds infinity."""
    latency = Latency()
    assert math.isnan(latency.counts().quantile(0.5))
    latency.note(11_000_000_000)
    assert latency.counts().quantile(0.5) == math.inf
    latency.note(-5)
    assert latency.counts() == ((1, *[0] * 24, 1), 11_000_000_000)


@given(st.lists(st.integers(0, 9_000_000_000), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_quantile_is_right_within_its_step(values: list[int], q: float) -> None:
    """The quantile read back is the exact one or above it, by less than one step; the sum is exact."""
    latency = Latency()
    for value in values:
        latency.note(value)
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    counts = latency.counts()
    assert (counts.noted, counts.total_ns) == (len(values), sum(values))
    read = counts.quantile(q) * 1e9
    assert exact <= read * (1 + 1e-12)
    assert read <= max(exact * 10**0.25 * 1.001, 10_000)
