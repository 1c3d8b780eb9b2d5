"""The page of metrics has every number a monitor must have, parses, and cannot be flooded with labels."""

from __future__ import annotations

import asyncio
import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bot.app.metrics import ROWS_MOST, Build, Metrics, Reading, label, open_descriptors, resident_bytes
from bot.core.latency import Latency

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def page(reading: Reading) -> Samples:
    """Every sample of the page by name and labels, each exactly once."""
    text = Metrics(lambda: reading, Build("1.2.3", "abc123", "run-7")).text().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def full() -> Reading:
    commit = Latency()
    for ms in (1, 1, 2, 300):
        commit.note(ms * 1_000_000)
    return Reading(
        state="READY",
        mode="live",
        tick_age={"CME:ES": 0.25},
        stale={"CME:ES": 3},
        loop_lag=0.001,
        loop_lag_worst=0.02,
        queue_depth={"inbox": 4},
        feed_rows={"es": {"taken": 100, "conflated": 5, "gap": 2, "duplicate": 1, "bad": 7, "late": 0}},
        hedge_error={"CME:ES": -1.5},
        orders={"accepted": 9, "filled": 8},
        open_orders=1,
        refusals={"max_notional": 2},
        rejects={"margin": 1},
        unknown_age={"CME:ES": 12.5},
        unknown_orders=1,
        commit=commit.counts(),
        commit_waiting=0,
        restarts={"feed es": 4},
        circuits={"feed es": True},
        kill_level=2,
        frozen={"CME:ES": True},
        clock_jumps=1,
        log_lines={"written": 10, "dropped": 3, "failed": 0, "suppressed": 1},
        decision=commit.counts(),
        disk_free=10**9,
    )


MUST_HAVE: Samples = {
    ("evenkeel_build_info", (("config", "abc123"), ("run", "run-7"), ("version", "1.2.3"))): 1.0,
    ("evenkeel_state", (("state", "READY"),)): 1.0,
    ("evenkeel_state", (("state", "HALTED"),)): 0.0,
    ("evenkeel_mode", (("mode", "live"),)): 1.0,
    ("evenkeel_tick_age_seconds", (("underlying", "CME:ES"),)): 0.25,
    ("evenkeel_stale_instruments", (("underlying", "CME:ES"),)): 3.0,
    ("evenkeel_loop_lag_seconds", ()): 0.001,
    ("evenkeel_loop_lag_worst_seconds", ()): 0.02,
    ("evenkeel_queue_depth", (("queue", "inbox"),)): 4.0,
    ("evenkeel_feed_rows_total", (("feed", "es"), ("kind", "conflated"))): 5.0,
    ("evenkeel_feed_rows_total", (("feed", "es"), ("kind", "gap"))): 2.0,
    ("evenkeel_feed_rows_total", (("feed", "es"), ("kind", "duplicate"))): 1.0,
    ("evenkeel_feed_rows_total", (("feed", "es"), ("kind", "bad"))): 7.0,
    ("evenkeel_hedge_error", (("underlying", "CME:ES"),)): -1.5,
    ("evenkeel_orders_total", (("state", "accepted"),)): 9.0,
    ("evenkeel_order_refusals_total", (("reason", "max_notional"),)): 2.0,
    ("evenkeel_order_rejects_total", (("reason", "margin"),)): 1.0,
    ("evenkeel_unknown_age_seconds", (("underlying", "CME:ES"),)): 12.5,
    ("evenkeel_unknown_orders", ()): 1.0,
    ("evenkeel_commit_latency_seconds_count", ()): 4.0,
    ("evenkeel_commit_latency_seconds_bucket", (("le", "0.001"),)): 2.0,
    ("evenkeel_commit_latency_seconds_bucket", (("le", "0.1"),)): 3.0,
    ("evenkeel_commit_latency_seconds_bucket", (("le", "+Inf"),)): 4.0,
    ("evenkeel_commit_waiting", ()): 0.0,
    ("evenkeel_decision_latency_seconds_count", ()): 4.0,
    ("evenkeel_restarts_total", (("task", "feed es"),)): 4.0,
    ("evenkeel_circuit_open", (("task", "feed es"),)): 1.0,
    ("evenkeel_kill_level", ()): 2.0,
    ("evenkeel_frozen", (("underlying", "CME:ES"),)): 1.0,
    ("evenkeel_clock_jumps_total", ()): 1.0,
    ("evenkeel_log_lines_total", (("fate", "dropped"),)): 3.0,
    ("evenkeel_disk_free_bytes", ()): 1e9,
    ("evenkeel_reading_failures_total", ()): 0.0,
}


def test_every_number_a_monitor_must_have_is_there() -> None:
    """A full reading comes out number by number under its name, type and labels."""
    found = page(full())
    assert {key: found.get(key) for key in MUST_HAVE} == MUST_HAVE
    assert found["evenkeel_commit_latency_seconds_sum", ()] == pytest.approx(0.304)


def test_the_process_is_measured_too() -> None:
    """Resident memory, descriptors and CPU come under the names every dashboard knows."""
    found = page(Reading(state="INIT"))
    for name in ("process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"):
        assert found[name, ()] > 0
    memory, descriptors = resident_bytes(), open_descriptors()
    assert memory is not None
    assert memory > 1 << 20
    assert descriptors is not None
    assert descriptors > 2


async def test_tasks_of_the_loop_are_counted() -> None:
    """Inside a loop its tasks are counted, outside there are none."""
    waiting = [asyncio.create_task(asyncio.Event().wait()) for _ in range(7)]
    inside = page(Reading(state="READY"))["evenkeel_tasks", ()]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    after = page(Reading(state="READY"))["evenkeel_tasks", ()]
    assert inside - after == 7


def test_what_is_not_known_is_not_told() -> None:
    """Before the first tick, commit or order there are no zeros that look like health."""
    names = {name for name, _ in page(Reading(state="INIT"))}
    absent = {
        "evenkeel_loop_lag_seconds",
        "evenkeel_open_orders",
        "evenkeel_commit_latency_seconds_count",
        "evenkeel_commit_waiting",
        "evenkeel_tick_age_seconds",
        "evenkeel_hedge_error",
        "evenkeel_disk_free_bytes",
    }
    assert not names & absent
    assert page(Reading(state="made up"))["evenkeel_state", (("state", "other"),)] == 1.0


def test_a_reading_that_fails_leaves_a_page_that_says_so() -> None:
    """When the engine cannot be read the page still comes, with the failure counted and the process measured."""

    def broken() -> Reading:
        raise RuntimeError("in the middle of a step")

    metrics = Metrics(broken, Build("1", "c"))
    metrics.text()
    text = metrics.text().decode()
    assert "evenkeel_reading_failures_total 2.0" in text
    assert "process_open_fds" in text
    assert "evenkeel_state" not in text


def test_the_engine_is_read_once_a_page() -> None:
    """Making the page costs the engine one reading, and nothing between pages."""
    read: list[int] = []

    def reading() -> Reading:
        read.append(1)
        return full()

    metrics = Metrics(reading, Build("1", "c"))
    assert read == []
    metrics.text()
    metrics.text()
    assert len(read) == 2


def test_labels_cannot_grow_without_bound() -> None:
    """However many keys are given, a family has at most its rows; sums and oldest ages are kept under `other`."""
    many = {f"US:{number:05}": float(number) for number in range(10_000)}
    found = page(Reading(state="READY", tick_age=many, hedge_error=many, refusals=dict.fromkeys(many, 1)))
    ages = [value for (name, _), value in found.items() if name == "evenkeel_tick_age_seconds"]
    errors = [value for (name, _), value in found.items() if name == "evenkeel_hedge_error"]
    counts = [value for (name, _), value in found.items() if name == "evenkeel_order_refusals_total"]
    assert len(ages) == len(errors) == len(counts) == ROWS_MOST
    assert max(ages) == 9_999.0
    assert sum(errors) == sum(many.values())
    assert sum(counts) == 10_000


@given(st.dictionaries(st.text(max_size=80), st.floats(), max_size=8))
def test_any_names_and_numbers_make_a_page_that_parses(values: dict[str, float]) -> None:
    """Whatever a name holds, the page is well formed and the label is of harmless signs."""
    found = page(Reading(state="READY", hedge_error=values, restarts=dict.fromkeys(values, 1)))
    harmless = set(string.ascii_letters + string.digits + "_.:/ -")
    labels = [labels[0][1] for (name, labels) in found if name == "evenkeel_hedge_error"]
    assert all(set(text) <= harmless for text in labels)
    assert sum(v for (name, _), v in found.items() if name == "evenkeel_restarts_total") == len(values)


@pytest.mark.parametrize("text", ["", "x" * 65, 'a"b', "a\nb", "a{b}", "ümlaut", "\x1b[2J"])
def test_a_text_that_is_no_name_becomes_other(text: str) -> None:
    """What no configured name looks like is no label."""
    assert label(text) == "other"
    assert label("CME:ES") == "CME:ES"


def test_numbers_that_are_not_finite_are_told_as_they_are() -> None:
    """NaN and infinity are legal values of a gauge and stay what they are."""
    found = page(Reading(state="READY", hedge_error={"A": math.nan, "B": -math.inf}))
    assert math.isnan(found["evenkeel_hedge_error", (("underlying", "A"),)])
    assert found["evenkeel_hedge_error", (("underlying", "B"),)] == -math.inf
