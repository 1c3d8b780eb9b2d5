"""The daemon's outside on the real process: what systemd and a monitor are told, and that neither is told a secret."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.stage import Stage

TOKEN = "c4" * 32
DAEMON = '[daemon]\nlog = "json"\nhealth_port = 0\ncontrol_token = "control"\n[secrets]\nnames = ["control"]\n'


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A venue and a book, with the health server and control switched on."""
    with Stage(tmp_path, more=DAEMON) as made:
        yield made


def begin(stage: Stage, **environment: str) -> None:
    stage.start(EVENKEEL_SECRET__CONTROL=TOKEN, **environment)


def page(stage: Stage, path: str) -> str:
    port = int((stage.live / "health.port").read_text("utf-8"))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def trades_on(stage: Stage) -> None:
    """Wait until the session has traded, and gone on trading after that."""
    stage.wait_ready()
    first = len(stage.ledger().fills)
    stage.wait_for(lambda _: len(stage.ledger().fills) > first + 3)


def hear(init: socket.socket, until: Callable[[list[str]], bool], said: list[str]) -> None:
    """Collect what systemd hears until it is enough."""
    end = time.monotonic() + 30
    while not until(said) and time.monotonic() < end:
        try:
            said.append(init.recv(65536).decode())
        except TimeoutError:
            continue
    assert until(said), said


def test_systemd_hears_a_daemon_that_is_ready_alive_and_ending(stage: Stage) -> None:
    """READY comes once and only when it trades, the watchdog is fed before and after, STOPPING comes at SIGTERM."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as init:
        init.bind(str(stage.folder / "n"))
        init.settimeout(0.2)
        begin(stage, NOTIFY_SOCKET=str(stage.folder / "n"), WATCHDOG_USEC="1500000")
        said: list[str] = []
        hear(init, lambda heard: any("READY=1" in line for line in heard), said)
        ready = len(said)
        stage.wait_ready()
        hear(init, lambda heard: heard[ready:].count("WATCHDOG=1") >= 3, said)
        assert stage.stop() == 0
        hear(init, lambda heard: any("STOPPING=1" in line for line in heard), said)
    assert sum("READY=1" in line for line in said) == 1
    assert not any("EXTEND" in line for line in said[ready:])


def test_a_monitor_sees_what_the_status_says_and_nobody_sees_a_secret(stage: Stage) -> None:
    """Pages of a trading daemon agree and hold what a monitor must have; the control token is in nothing that it wrote."""
    begin(stage)
    trades_on(stage)
    pages = {path: page(stage, path) for path in ("/healthz", "/readyz", "/status", "/metrics")}
    assert stage.stop() == 0
    assert (pages["/healthz"], pages["/readyz"]) == ('{"ok":true,"why":{}}', '{"ok":true,"why":{}}')
    assert '"state":"READY"' in pages["/status"]
    check_metrics(pages["/metrics"])
    assert not any(TOKEN in text for text in pages.values())
    for path in (p for p in stage.folder.rglob("*") if p.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path


def check_metrics(text: str) -> None:
    """A daemon that has traded for a moment shows at least this."""
    samples = {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["evenkeel_state", ("READY",)] == 1.0
    assert samples["evenkeel_commit_latency_seconds_count", ()] > 0
    assert samples["evenkeel_decision_latency_seconds_count", ()] > 0
    assert 0 <= samples["evenkeel_loop_lag_seconds", ()] < 5
    names = {name for name, _ in samples}
    assert {"evenkeel_tick_age_seconds", "evenkeel_feed_rows_total", "evenkeel_disk_free_bytes"} <= names
    assert samples["process_resident_memory_bytes", ()] > 1 << 20
    assert samples["evenkeel_reading_failures_total", ()] == 0.0
