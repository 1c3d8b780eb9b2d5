"""A metric is a number that a monitor reads now and then; law: it is made when it is asked for, from one reading of the
engine, so that a tick pays nothing, and no label is ever made of an order, a client or a text from outside.

Names, types and units follow Prometheus: seconds, bytes, `_total` for what only rises. Labels are closed lists of short
codes or names from the configuration; whatever does not look like one becomes `other`, and no family has more than 200 rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from bot.core.latency import BOUNDS, LatencyCounts
from bot.domain.units import NS_PER_SECOND

STATES = ("INIT", "RECOVER", "RECONCILE", "READY", "DRAIN", "STOPPED", "HALTED")
MODES = ("observe", "confirm", "live")

ROWS_MOST = 200
_LABEL = re.compile(r"[A-Za-z0-9_.:/ -]{1,64}")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon knows of itself at one instant. Times in seconds; `None` or absent: not known, and then not told."""

    state: str
    mode: str = "observe"
    tick_age: Mapping[str, float] = {}
    """By underlying: the age of the newest quote, by monotonic time."""
    stale: Mapping[str, int] = {}
    """By underlying: how many of its instruments are stale."""
    loop_lag: float | None = None
    loop_lag_worst: float | None = None
    queue_depth: Mapping[str, int] = {}
    """By queue."""
    feed_rows: Mapping[str, Mapping[str, int]] = {}
    """By feed, then by kind: `taken`, `conflated`, `gap`, `duplicate`, `bad`, `late`."""
    hedge_error: Mapping[str, float] = {}
    """By underlying: delta minus target, in units of the underlying."""
    orders: Mapping[str, int] = {}
    """By state: how many orders came to it since the start."""
    open_orders: int | None = None
    refusals: Mapping[str, int] = {}
    """By reason code: orders that our own gate refused."""
    rejects: Mapping[str, int] = {}
    """By reason code: orders that the venue refused."""
    unknown_age: Mapping[str, float] = {}
    """By underlying: the age of its oldest order whose outcome is not known; absent when there is none."""
    unknown_orders: int = 0
    commit: LatencyCounts | None = None
    """How long records waited until they were durable."""
    commit_waiting: int | None = None
    restarts: Mapping[str, int] = {}
    """By task: how often it was started again."""
    circuits: Mapping[str, bool] = {}
    """By task: whether its circuit is open."""
    kill_level: int = 0
    frozen: Mapping[str, bool] = {}
    """By underlying: whether new hedges of it are stopped."""
    clock_jumps: int = 0
    log_lines: Mapping[str, int] = {}
    """By fate: `written`, `dropped`, `failed`, `suppressed`."""
    decision: LatencyCounts | None = None
    """From a tick's arrival to the decision."""
    disk_free: int | None = None
    """Bytes free where the journal is."""


class Build(msgspec.Struct, frozen=True):
    """What runs: the version, the digest of the effective configuration, and the run's name."""

    version: str
    config_hash: str
    run: str = ""


class Metrics(Collector):
    """The page of metrics. `read` is asked once for each page."""

    def __init__(self, read: Callable[[], Reading], build: Build) -> None:
        self._read = read
        self._build = build
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)  # resident memory, descriptors, CPU and start of the process
        self.failed = 0

    def text(self) -> bytes:
        """The page in Prometheus' text format. A reading that fails leaves a page that says so."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what is collected is known only when it is read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family of the page."""
        build = {"version": self._build.version, "config": self._build.config_hash, "run": self._build.run}
        yield InfoMetricFamily("evenkeel_build", "What runs.", value=build)
        reading = None
        try:
            reading = self._read()
        except Exception:  # noqa: BLE001  what is wrong with the engine must not hide that the process is alive
            self.failed += 1
        yield CounterMetricFamily("evenkeel_reading_failures", "Pages without a reading.", value=self.failed)
        yield GaugeMetricFamily("evenkeel_tasks", "Tasks of the event loop.", value=_tasks())
        if reading is not None:
            yield from families(reading)


def families(r: Reading) -> Iterator[Metric]:
    """The families of a reading; one that is not known is left out."""
    yield _one_of("evenkeel_state", "1 for the state the daemon is in.", "state", STATES, r.state)
    yield _one_of("evenkeel_mode", "1 for the mode it trades in.", "mode", MODES, r.mode)
    yield _gauges("evenkeel_tick_age_seconds", "Age of the newest quote.", "underlying", r.tick_age, max)
    yield _gauges("evenkeel_stale_instruments", "Instruments whose quote is stale.", "underlying", r.stale, sum)
    yield from _gauge("evenkeel_loop_lag_seconds", "How late the last timer was served.", r.loop_lag)
    yield from _gauge("evenkeel_loop_lag_worst_seconds", "The latest of the last seconds.", r.loop_lag_worst)
    yield _gauges("evenkeel_queue_depth", "What waits in a queue.", "queue", r.queue_depth, sum)
    yield _feed_rows(r.feed_rows)
    yield _gauges(
        "evenkeel_hedge_error", "Delta minus target, units of the underlying.", "underlying", r.hedge_error, sum
    )
    yield _counters("evenkeel_orders", "Orders that came to a state.", "state", r.orders)
    yield from _gauge("evenkeel_open_orders", "Orders that may still fill.", r.open_orders)
    yield _counters("evenkeel_order_refusals", "Orders our own gate refused.", "reason", r.refusals)
    yield _counters("evenkeel_order_rejects", "Orders the venue refused.", "reason", r.rejects)
    yield _gauges("evenkeel_unknown_age_seconds", "Age of the oldest order in doubt.", "underlying", r.unknown_age, max)
    yield from _gauge("evenkeel_unknown_orders", "Orders in doubt.", r.unknown_orders)
    yield from _histogram("evenkeel_commit_latency_seconds", "From record to durable.", r.commit)
    yield from _gauge("evenkeel_commit_waiting", "Records not durable yet.", r.commit_waiting)
    yield from _histogram("evenkeel_decision_latency_seconds", "From tick to decision.", r.decision)
    yield _counters("evenkeel_restarts", "Tasks started again.", "task", r.restarts)
    yield _gauges("evenkeel_circuit_open", "1 where a task failed too often.", "task", r.circuits, max)
    yield from _gauge("evenkeel_kill_level", "Rung of the kill ladder, 0 none to 5 flatten.", r.kill_level)
    yield _gauges("evenkeel_frozen", "1 where new hedges are stopped.", "underlying", r.frozen, max)
    yield CounterMetricFamily("evenkeel_clock_jumps", "Steps of the wall clock.", value=r.clock_jumps)
    yield _counters("evenkeel_log_lines", "Log lines by what became of them.", "fate", r.log_lines)
    yield from _gauge("evenkeel_disk_free_bytes", "Free where the journal is.", r.disk_free)


def label(text: str) -> str:
    """The text as a label, `other` for what no configured name or reason code looks like."""
    return text if _LABEL.fullmatch(text) else "other"


def _rows(values: Mapping[str, Any], together: Callable[[list[float]], float]) -> dict[str, float]:
    """Values by label, those without a label of their own put together under `other`."""
    rows: dict[str, list[float]] = {}
    for name, value in sorted(values.items()):
        key = label(name)
        if key not in rows and len(rows) >= ROWS_MOST - 1:
            key = "other"
        rows.setdefault(key, []).append(float(value))
    return {name: several[0] if len(several) == 1 else together(several) for name, several in rows.items()}


def _gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    if value is not None:
        yield GaugeMetricFamily(name, text, value=value)


def _gauges(
    name: str, text: str, by: str, values: Mapping[str, Any], together: Callable[[list[float]], float]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[by])
    for key, value in _rows(values, together).items():
        family.add_metric([key], value)
    return family


def _counters(name: str, text: str, by: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[by])
    for key, value in _rows(values, sum).items():
        family.add_metric([key], value)
    return family


def _one_of(name: str, text: str, by: str, known: tuple[str, ...], now: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[by])
    for each in known:
        family.add_metric([each], float(each == now))
    if now not in known:
        family.add_metric(["other"], 1.0)
    return family


def _feed_rows(rows: Mapping[str, Mapping[str, int]]) -> Metric:
    family = CounterMetricFamily(
        "evenkeel_feed_rows", "Rows of a feed by what became of them.", labels=["feed", "kind"]
    )
    for feed, kinds in sorted(rows.items())[:ROWS_MOST]:
        for kind, value in _rows(kinds, sum).items():
            family.add_metric([label(feed), kind], value)
    return family


def _histogram(name: str, text: str, found: LatencyCounts | None) -> Iterator[Metric]:
    if found is None:
        return
    total, buckets = 0, []
    for bound, count in zip((*BOUNDS, math.inf), found.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == math.inf else f"{bound / NS_PER_SECOND:g}", float(total)))
    yield HistogramMetricFamily(name, text, buckets=buckets, sum_value=found.total_ns / NS_PER_SECOND)


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # asked from outside the loop
        return 0


def resident_bytes() -> int | None:
    """Memory this process holds, None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def open_descriptors() -> int | None:
    """Descriptors this process holds, None where the system does not say."""
    with contextlib.suppress(OSError):
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    return None
