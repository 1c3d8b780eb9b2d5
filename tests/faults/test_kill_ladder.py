"""Each way to the kill ladder ends new orders of a living process, and the rung holds over a kill -9 and a new start."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.app.words import CONTROL
from bot.engine.facts import Ordered
from tests.faults.stage import Stage

TOKEN = "4f" * 32
DAEMON = '[daemon]\nhealth_port = 0\ncontrol_token = "control"\n[secrets]\nnames = ["control"]\n'
REJECTS = '[limits]\nmax_rejects = 3\nreject_window = "1h"\non_rejects = "cancel_all"\n'
ENVIRONMENT = {"EVENKEEL_SECRET__CONTROL": TOKEN}


def by_command(stage: Stage) -> None:
    """The command line."""
    words = [sys.executable, "-m", "bot.app.cli", "kill", "cancel_all", str(stage.live)]
    assert subprocess.run(words, cwd=stage.folder, check=False, capture_output=True).returncode == 0


def by_signal(stage: Stage) -> None:
    """A real-time signal."""
    assert stage.daemon is not None
    stage.daemon.send_signal(signal.SIGRTMIN + 4)


def by_file(stage: Stage) -> None:
    """A file anyone can write."""
    (stage.live / CONTROL).write_text("kill cancel_all: by hand\n", encoding="utf-8")


def by_http(stage: Stage) -> None:
    """Loopback HTTP with the token; without it, nothing."""
    port = int((stage.live / "health.port").read_text("utf-8"))
    url = f"http://127.0.0.1:{port}/kill/cancel_all"
    body = json.dumps({"reason": "http"}).encode()
    headers = {"Content-Type": "application/json"}
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers))
    headers["Authorization"] = f"Bearer {TOKEN}"
    with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers)) as answer:
        assert answer.status == 200


def by_limit(stage: Stage) -> None:
    """A limit: the venue rejects everything, and the third reject in an hour pulls the rung."""


PATHS: list[tuple[Callable[[Stage], None], tuple[str, ...], str]] = [
    (by_command, (), DAEMON),
    (by_signal, (), DAEMON),
    (by_file, (), DAEMON),
    (by_http, (), DAEMON),
    (by_limit, ("--reject", "1.0"), DAEMON + REJECTS),
]


@pytest.mark.parametrize(("path", "venue", "more"), PATHS, ids=lambda item: getattr(item, "__name__", ""))
def test_a_rung_pulled_from_outside_holds(
    path: Callable[[Stage], None], venue: tuple[str, ...], more: str, tmp_path: Path
) -> None:
    """Within a second of the pull the last order has left; killed and started again it stands there; cleared, it trades."""
    with Stage(tmp_path, *venue, more=more) as stage:
        stage.start(**ENVIRONMENT)
        stage.wait_ready()
        stage.wait_for(lambda status: status["counts"].get("commits", 0) > 3)
        path(stage)
        stage.wait_for(lambda status: status["kill_rung"] == 4, seconds=10.0)
        time.sleep(0.3)
        seen = set(stage.ledger().orders)
        time.sleep(1.2)
        assert set(stage.ledger().orders) == seen
        stage.kill()
        stage.start(**ENVIRONMENT)
        stage.wait_for(lambda status: status["state"] == "READY" and status["kill_rung"] == 4)
        time.sleep(1.2)
        assert set(stage.ledger().orders) == seen
        assert {f.order.id for f in stage.facts() if isinstance(f, Ordered)} >= seen
        if venue:
            return  # a venue that rejects everything would pull it again at once
        (stage.live / CONTROL).write_text("clear\n", encoding="utf-8")
        stage.wait_for(lambda status: status["kill_rung"] == 0)
        stage.wait_for(lambda _: len(stage.ledger().orders) > len(seen), seconds=60.0)
        assert stage.stop() == 0
        assert TOKEN not in stage.log()
