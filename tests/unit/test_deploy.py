"""What is shipped to run the daemon says what the daemon needs, and its alarms ring when they must and only then."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from bot.app import config as configs
from bot.app.health import HealthOptions
from bot.app.metrics import Build, Metrics
from tests.promql import Parser, Rule, firing, make_series, read_rules, seconds
from tests.unit.test_metrics import full

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
EVERY = 5.0
RULES = {rule.alert: rule for rule in read_rules((DEPLOY / "alerts.yml").read_text("utf-8"))}


class Case(NamedTuple):
    """Series, a second, and the labels with which the alert fires then (none: it is silent)."""

    alert: str
    series: dict[str, str]
    at: float
    fires: list[dict[str, str]]


UP = {"evenkeel_build_info": "1x200"}
READY = 'evenkeel_state{state="READY"}'
AGE = 'evenkeel_tick_age_seconds{underlying="CME:ES"}'
ES = {"underlying": "CME:ES"}
BAD = 'evenkeel_feed_rows_total{feed="es",kind="bad"}'
GAP = 'evenkeel_feed_rows_total{feed="es",kind="gap"}'
WAITING = "evenkeel_commit_waiting"
COMMITS = "evenkeel_commit_latency_seconds_count"


def run_of(config: str, run: str) -> str:
    """The series of one running daemon."""
    return f'evenkeel_build_info{{config="{config}",run="{run}"}}'


def buckets(fast: int, slow: int) -> dict[str, str]:
    """Commits a step: so many within a millisecond, so many within a second."""
    return {
        'evenkeel_commit_latency_seconds_bucket{le="0.001"}': f"0+{fast}x200",
        'evenkeel_commit_latency_seconds_bucket{le="0.1"}': f"0+{fast}x200",
        'evenkeel_commit_latency_seconds_bucket{le="1"}': f"0+{fast + slow}x200",
        'evenkeel_commit_latency_seconds_bucket{le="+Inf"}': f"0+{fast + slow}x200",
    }


CASES = [
    Case("EvenkeelAbsent", UP, 600, []),
    Case("EvenkeelAbsent", {"up": "1x200"}, 25, []),
    Case("EvenkeelAbsent", {"up": "1x200"}, 30, [{}]),
    Case("EvenkeelAbsent", {"evenkeel_build_info": "1x10"}, 400, [{}]),
    Case("EvenkeelHalted", {'evenkeel_state{state="HALTED"}': "0x10 1x10"}, 50, []),
    Case("EvenkeelHalted", {'evenkeel_state{state="HALTED"}': "0x10 1x10"}, 55, [{"state": "HALTED"}]),
    Case("EvenkeelHalted", {'evenkeel_state{state="HALTED"}': "0x10 1x10 0x5"}, 115, []),
    Case("EvenkeelKillPulled", {"evenkeel_kill_level": "1x10"}, 50, []),
    Case("EvenkeelKillPulled", {"evenkeel_kill_level": "1x5 2x10"}, 50, [{}]),
    Case("EvenkeelNotReady", {READY: "0x40"}, 115, []),
    Case("EvenkeelNotReady", {READY: "0x40"}, 120, [{"state": "READY"}]),
    Case("EvenkeelNotReady", {READY: "0x20 1 0x40"}, 190, []),
    Case("EvenkeelReadingFails", {"evenkeel_reading_failures_total": "3x40"}, 100, []),
    Case("EvenkeelReadingFails", {"evenkeel_reading_failures_total": "3x10 4x20"}, 60, [{}]),
    Case("EvenkeelQuoteOld", {AGE: "0x5 40x10", READY: "1x40"}, 30, []),
    Case("EvenkeelQuoteOld", {AGE: "0x5 40x10", READY: "1x40"}, 45, [ES]),
    Case("EvenkeelQuoteOld", {AGE: "0x5 40x10", READY: "0x40"}, 45, []),
    Case("EvenkeelQuoteOld", {AGE: "0x5 40x2 0x10", READY: "1x40"}, 60, []),
    Case("EvenkeelUnderlyingFrozen", {'evenkeel_frozen{underlying="CME:ES"}': "1x40"}, 55, []),
    Case("EvenkeelUnderlyingFrozen", {'evenkeel_frozen{underlying="CME:ES"}': "1x40"}, 60, [ES]),
    Case("EvenkeelOrderInDoubt", {'evenkeel_unknown_age_seconds{underlying="CME:ES"}': "0+5x10"}, 10, []),
    Case("EvenkeelOrderInDoubt", {'evenkeel_unknown_age_seconds{underlying="CME:ES"}': "0+5x10"}, 15, [ES]),
    Case("EvenkeelVenueRejects", {'evenkeel_order_rejects_total{reason="margin"}': "0x10 4x100"}, 100, []),
    Case("EvenkeelVenueRejects", {'evenkeel_order_rejects_total{reason="margin"}': "0x10 3x100",
                                  'evenkeel_order_rejects_total{reason="price"}': "0x10 3x100"}, 340, [{}]),
    Case("EvenkeelGateRefuses", {'evenkeel_order_refusals_total{reason="collar"}': "0+1x200"}, 60, []),
    Case("EvenkeelGateRefuses", {'evenkeel_order_refusals_total{reason="collar"}': "0+1x200"}, 400, [{}]),
    Case("EvenkeelCircuitOpen", {'evenkeel_circuit_open{task="feed es"}': "0x10"}, 50, []),
    Case("EvenkeelCircuitOpen", {'evenkeel_circuit_open{task="feed es"}': "0x5 1x5"}, 50, [{"task": "feed es"}]),
    Case("EvenkeelReconnects", {'evenkeel_restarts_total{task="feed es"}': "0x10 3x200"}, 900, []),
    Case("EvenkeelReconnects", {'evenkeel_restarts_total{task="feed es"}': "0+1x10 10x200"}, 900, [{"task": "feed es"}]),
    Case("EvenkeelFeedBroken", {BAD: "0+1x200"}, 900, []),
    Case("EvenkeelFeedBroken", {BAD: "0+3x200"}, 900, [{"feed": "es", "kind": "bad"}]),
    Case("EvenkeelFeedBroken", {GAP: "0+1x200"}, 900, [{"feed": "es", "kind": "gap"}]),
    Case("EvenkeelFeedBroken", {'evenkeel_feed_rows_total{feed="es",kind="taken"}': "0+999x200"}, 900, []),
    Case("EvenkeelLoopLate", {"evenkeel_loop_lag_worst_seconds": "0.3x2 0.01x20"}, 20, []),
    Case("EvenkeelLoopLate", {"evenkeel_loop_lag_worst_seconds": "0.3x20"}, 15, [{}]),
    Case("EvenkeelQueueDeep", {'evenkeel_queue_depth{queue="inbox"}': "900x20"}, 60, []),
    Case("EvenkeelQueueDeep", {'evenkeel_queue_depth{queue="inbox"}': "0 1001x20"}, 20, [{"queue": "inbox"}]),
    Case("EvenkeelCommitsSlow", buckets(200, 1), 600, []),
    Case("EvenkeelCommitsSlow", buckets(200, 5), 600, [{}]),
    Case("EvenkeelCommitsStuck", {WAITING: "3x40", COMMITS: "0+1x40"}, 150, []),
    Case("EvenkeelCommitsStuck", {WAITING: "3x40", COMMITS: "9x40"}, 60, [{}]),
    Case("EvenkeelCommitsStuck", {WAITING: "0x40", COMMITS: "9x40"}, 60, []),
    Case("EvenkeelDiskFilling", {"evenkeel_disk_free_bytes": "524288000x5"}, 25, []),
    Case("EvenkeelDiskFilling", {"evenkeel_disk_free_bytes": "524287999x5"}, 25, [{}]),
    Case("EvenkeelClockJumped", {"evenkeel_clock_jumps_total": "1x100"}, 400, []),
    Case("EvenkeelClockJumped", {"evenkeel_clock_jumps_total": "0x10 1x10"}, 100, [{}]),
    Case("EvenkeelMemoryGrows", {"process_resident_memory_bytes": "100000000+1000x2000"}, 8000, []),
    Case("EvenkeelMemoryGrows", {"process_resident_memory_bytes": "100000000+20000x2000"}, 8000, [{}]),
    Case("EvenkeelDescriptorsLeak", {"process_open_fds": "799x40", "process_max_fds": "1000x40"}, 100, []),
    Case("EvenkeelDescriptorsLeak", {"process_open_fds": "801x40", "process_max_fds": "1000x40"}, 100, [{}]),
    Case("EvenkeelLogLinesLost", {'evenkeel_log_lines_total{fate="written"}': "0+9x40"}, 100, []),
    Case("EvenkeelLogLinesLost", {'evenkeel_log_lines_total{fate="dropped"}': "0x9 9x40"}, 100, [{"fate": "dropped"}]),
    Case("EvenkeelRestarted", {"process_start_time_seconds": "1000x100"}, 400, []),
    Case("EvenkeelRestarted", {"process_start_time_seconds": "1000x20 1100x50"}, 300, [{}]),
    Case("EvenkeelConfigDiffers", {run_of("a", "x"): "1x200", run_of("a", "y"): "1x200"}, 600, []),
    Case("EvenkeelConfigDiffers", {run_of("a", "x"): "1x200", run_of("b", "y"): "1x200"}, 600, [{}]),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.alert}-{case.at:g}-{'rings' if case.fires else 'silent'}"
)
def test_an_alarm_rings_when_it_must_and_only_then(case: Case) -> None:
    """On synthetic series each alarm is silent before its time, rings at it, and is silent again when it is over."""
    rule = RULES[case.alert]
    found = firing(rule, make_series(case.series, every=EVERY), at=case.at, every=EVERY)
    assert [labels for labels, _ in found] == [{**labels, **rule.labels} for labels in case.fires]


def test_every_alarm_is_heard_both_ringing_and_silent() -> None:
    """No rule goes untested on either side."""
    assert {case.alert for case in CASES if case.fires} == set(RULES)
    assert {case.alert for case in CASES if not case.fires} == set(RULES)


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool, Prometheus' own judge of rules, is not installed"
)
def test_prometheus_itself_agrees(tmp_path: Path) -> None:
    """Prometheus' own tool finds every case as our reader does."""
    rules = [
        {"alert": rule.alert, "expr": rule.expr, "for": f"{rule.hold:g}s", "labels": rule.labels}
        for rule in RULES.values()
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    tests = [
        {
            "interval": f"{EVERY:g}s",
            "input_series": [{"series": name, "values": text} for name, text in case.series.items()],
            "alert_rule_test": [
                {
                    "eval_time": f"{case.at:g}s",
                    "alertname": case.alert,
                    "exp_alerts": [{"exp_labels": {**labels, **RULES[case.alert].labels}} for labels in case.fires],
                }
            ],
        }
        for case in CASES
    ]
    document = {"rule_files": ["rules.yml"], "evaluation_interval": f"{EVERY:g}s", "tests": tests}
    (tmp_path / "tests.yml").write_text(json.dumps(document))
    for words in (["check", "rules", str(DEPLOY / "alerts.yml")], ["test", "rules", str(tmp_path / "tests.yml")]):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_alarms_ask_only_for_metrics_that_are_there() -> None:
    """Every series an alarm names is on the page of metrics, with the labels it asks for."""
    text = Metrics(full, Build("1", "c")).text().decode()
    for rule in RULES.values():
        for name in re.findall(r"\b((?:evenkeel|process)_\w+)", rule.expr):
            assert re.search(rf"^{name}(\{{| )", text, re.MULTILINE), f"{rule.alert} asks for {name}"
        for name, label in re.findall(r"\b((?:evenkeel|process)_\w+)\{(\w+)=", rule.expr):
            assert re.search(rf"^{name}\{{[^}}]*\b{label}=", text, re.MULTILINE)


def test_each_alarm_says_what_to_do() -> None:
    """Each has a severity, a sentence and an action, and names only labels its series have."""
    for rule in RULES.values():
        assert rule.labels["severity"] in ("page", "ticket")
        assert set(rule.annotations) == {"summary", "action"}
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule.annotations.values())))
        ringing = next(case for case in CASES if case.alert == rule.alert and case.fires)
        assert used <= set(ringing.fires[0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("      - alert: A\n        expr: >\n", "expected a plain value"),
        ("      - alert: A\n\t\texpr: x\n", "expected `name: value`"),
        ("nonsense\n", "expected `name: value`"),
        ("  strange: x\n", "expected a rule's own line"),
        ('      - alert: "A\n', "expected a closed quote"),
    ],
)
def test_the_reader_of_rules_refuses_what_it_does_not_know(line: str, message: str) -> None:
    """A file of another shape is refused, never half read."""
    with pytest.raises(ValueError, match=message):
        read_rules("groups:\n" + line)


@pytest.mark.parametrize("text", ["x >", "x[5m", "(x", "x ~ 1", "5x", "foo(x)", 'x{a!="b"}', "x y"])
def test_the_reader_of_expressions_refuses_what_it_does_not_know(text: str) -> None:
    """An expression outside the part of the language that is known raises instead of answering."""
    with pytest.raises((ValueError, KeyError)):
        Parser(text).parse()


def test_an_increase_is_extrapolated_as_prometheus_does() -> None:
    """A counter of one a second shows 60 in a minute, though its samples span 55 s; a reset adds what came after it."""
    series = make_series({"a": "0+5x30", "b": "0+5x5 0+5x30"}, every=5.0)
    increase = Parser("increase(a[58s])").parse()
    assert list(increase(series, 99.0).values()) == [pytest.approx(58.0)]
    reset = Parser("increase(b[1m])").parse()
    assert list(reset(series, 60.0).values()) == [pytest.approx(25 + 30)]
    assert seconds("2m") == 120.0


# The unit


def unit() -> dict[str, list[str]]:
    """Every setting of the unit file, with its values."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "evenkeel.service").read_text("utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_confines_the_daemon() -> None:
    """Own user, no new privileges, a read-only system, two folders of its own, no cores that could hold a secret."""
    settings = {name: values[-1] for name, values in unit().items()}
    assert settings["User"] not in ("", "root")
    wanted = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
              "PrivateDevices": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "RestrictSUIDSGID": "yes",
              "ProtectKernelTunables": "yes", "ProtectControlGroups": "yes", "RestrictNamespaces": "yes", "UMask": "0077",
              "StateDirectoryMode": "0700", "LimitCORE": "0"}  # fmt: skip
    assert {name: settings.get(name) for name in wanted} == wanted
    assert "MemoryDenyWriteExecute" not in settings  # kernels are compiled in the process


def test_the_unit_knows_how_the_daemon_starts_lives_and_ends() -> None:
    """It waits for READY, watches, lets a drain finish, and restarts after a crash, not after a fault a person must mend."""
    from bot.core import errors  # noqa: PLC0415  the codes belong to this test alone

    settings = {name: values[-1] for name, values in unit().items()}
    assert (settings["Type"], settings["NotifyAccess"], settings["Restart"]) == ("notify", "main", "on-failure")
    assert 3 <= int(settings["WatchdogSec"]) <= 30
    assert int(settings["TimeoutStopSec"]) > 10
    final = {
        errors.ConfigError,
        errors.BookError,
        errors.NotDelivered,
        errors.PluginError,
        errors.JournalError,
        errors.Permanent,
    }
    assert {int(code) for code in settings["RestartPreventExitStatus"].split()} == {fault.exit_code for fault in final}
    assert settings["ExecStart"].split()[1] == "run"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    """systemd reads the unit without a warning once its program is there."""
    here = tmp_path / "evenkeel.service"
    text = (DEPLOY / "evenkeel.service").read_text("utf-8")
    here.write_text(text.replace("/opt/evenkeel/bin/evenkeel", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False)
    about_us = [line for line in done.stderr.splitlines() if "evenkeel" in line]
    assert about_us == []


# The container


def test_the_container_runs_as_nobody_in_particular() -> None:
    """Two stages, a numbered user that is not root, hashes on every install, health asked where the server listens."""
    text = (DEPLOY / "Containerfile").read_text("utf-8")
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2
    assert all(":" in stage and "latest" not in stage for stage in stages)
    last = text[text.rindex("\nFROM ") :]
    user = re.search(r"^USER (\d+):(\d+)$", last, re.MULTILINE)
    assert user is not None
    assert int(user[1]) >= 10_000
    assert f"http://127.0.0.1:{HealthOptions().port}/healthz" in last
    assert "STOPSIGNAL SIGTERM" in last
    assert "ADD " not in text
    for line in re.findall(r"pip install [^\\\n]*", text):
        assert "--require-hashes" in line or "--no-index" in line
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


@pytest.mark.parametrize("name", ["evenkeel.service", "Containerfile"])
def test_what_is_set_for_the_daemon_is_of_the_config(name: str, tmp_path: Path) -> None:
    """Unit and container switch on the same keys of the config, which the config knows, and the port that is asked."""
    text = (DEPLOY / name).read_text("utf-8")
    given = dict(re.findall(r"(EVENKEEL__\w+)=([^\s\\]+)", text))
    config = configs.load_config(
        ROOT / "config" / "synthetic.toml", {**given, "EVENKEEL__STORAGE__RUNS": str(tmp_path)}
    )
    assert set(given) == {
        "EVENKEEL__STORAGE__RUNS",
        "EVENKEEL__STORAGE__DURABILITY",
        "EVENKEEL__DAEMON__LOG",
        "EVENKEEL__DAEMON__HEALTH_PORT",
    }
    assert config.storage.durability == "live"
    assert (config.daemon.log, config.daemon.health_port) == ("json", HealthOptions().port)


def test_the_runtime_lock_is_the_locks_own_part() -> None:
    """What the image installs is locked, by hash, holds what the program imports, and no tool of its makers."""
    done = subprocess.run(
        [
            sys.executable,
            str(DEPLOY / "runtime_lock.py"),
            str(ROOT / "pyproject.toml"),
            str(ROOT / "requirements.lock"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    names = set(re.findall(r"^([a-z0-9._-]+)==", done.stdout, re.MULTILINE))
    assert {"numpy", "msgspec", "structlog", "pydantic", "aiomqtt"} <= names
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "quantlib", "import-linter", "hatchling"}
    assert all(line in lock for line in done.stdout.splitlines())
    for entry in re.split(r"^(?=[a-z0-9._-]+==)", done.stdout, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry


def test_a_dependency_that_is_not_locked_is_refused() -> None:
    """A project whose lock is behind gets no image."""
    sys.path.insert(0, str(DEPLOY))
    try:
        from runtime_lock import runtime_lock  # noqa: PLC0415  it lies beside the container file, not in a package
    finally:
        sys.path.remove(str(DEPLOY))
    project = '[project]\ndependencies = ["numpy>=2", "Left_Pad[x]>1; python_version > \'3\'"]\n'
    with pytest.raises(ValueError, match="found none of left-pad"):
        runtime_lock(project, "numpy==2.0 --hash=sha256:00\n")


def test_rules_are_read_whole() -> None:
    """Every `alert:` line of the file became a rule with a time to hold."""
    text = (DEPLOY / "alerts.yml").read_text("utf-8")
    assert len(RULES) == text.count("- alert:") >= 20
    assert all(isinstance(rule, Rule) and rule.hold >= 0.0 for rule in RULES.values())
