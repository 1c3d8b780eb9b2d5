"""Transaction cost analysis: what the verb says agrees with the run, and its [broker] table makes the next run."""

from __future__ import annotations

import json
import math
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.app import config as configs
from bot.app import runs, tca
from bot.domain.units import NS_PER_MINUTE, iso, parse_instant
from tests.replay.command import call, write_session

Capture = pytest.CaptureFixture[str]

START = parse_instant("2025-03-03T14:30:00Z")
BROKER = """[broker]
kind = "paper"
seed = 3
latency = "150ms"
jitter = "50ms"
beyond = "impact"
[broker.impact]
kind = "square_root"
coefficient = 0.004
[[broker.commission]]
kind = "per_contract"
rate = 0.01
[storage]
"""


def quotes(minutes: int = 240) -> list[str]:
    """The underlying swings widely with a small display that changes, so that hedges walk; the call follows."""
    lines = ["ts,instrument,bid,ask,bid_size,ask_size"]
    for minute in range(minutes + 1):
        ts = iso(START + minute * NS_PER_MINUTE)
        spot = 100.0 + 3.0 * math.sin(minute / 5.0) + 0.4 * math.sin(minute * 1.7)
        price = 4.0 + 0.5 * (spot - 100.0)
        size = 2 + minute * 7 % 31
        lines.append(f"{ts},SIM:XYZ,{spot - 0.02:.2f},{spot + 0.02:.2f},{size},{size}")
        lines.append(f"{ts},XYZ   250321C00100000,{price - 0.05:.2f},{price + 0.05:.2f},50,50")
    return lines


def session(folder: Path, broker: str = BROKER) -> Path:
    return write_session(
        folder,
        lines=quotes(),
        minutes=240,
        edit=[("[storage]\n", broker), ('interval = "5m"', 'interval = "2m"')],
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> runs.StoredRun:
    """A stored run whose hedges pay spread, impact, commission and latency."""
    _, _, folder = runs.execute(configs.load_config(session(tmp_path_factory.mktemp("tca")), {}))
    assert folder is not None
    return runs.StoredRun(folder)


def test_the_parts_agree_with_the_result_of_the_run(run: runs.StoredRun) -> None:
    """Delay, spread, impact and commission sum to what the run's own result says of the account, every account."""
    for account in ("dynamic", "static"):
        book = run.result()["books"][account]
        (totals,) = tca.document(run, account=account)["totals"]
        assert totals["orders"] == book["orders"]
        assert totals["delay"] == pytest.approx(book["slippage"]["delay"], abs=1e-9)
        assert totals["spread"] == pytest.approx(book["pnl"]["spread_cost"], abs=1e-9)
        assert totals["impact"] == pytest.approx(book["pnl"]["impact"], abs=1e-9)
        assert totals["commission"] == pytest.approx(book["pnl"]["commission"], abs=1e-9)


def test_the_run_recovers_its_own_broker(run: runs.StoredRun) -> None:
    """Latency, jitter, spread and impact of the config stand in the fitted table within their errors."""
    found = tca.document(run)["calibration"]
    for name, truth in (("latency_ns", 150e6), ("jitter_ns", 50e6)):
        estimate = found["latency"][name]
        assert estimate["value"] == pytest.approx(truth, abs=3.5 * estimate["error"])
    assert found["spread"]["SIM:XYZ"]["as_quoted"] is True
    assert found["impact"]["kind"] == "square_root"
    estimate = found["impact"]["square_root"]
    assert estimate["value"] == pytest.approx(0.004, abs=4 * estimate["error"])


def test_the_fitted_table_is_a_config_that_runs_and_costs_alike(run: runs.StoredRun, tmp_path: Path) -> None:
    """Put in place of the old [broker], the table loads and replays, at the old run's costs within a tenth."""
    text = tca.document(run)["broker"]
    table = tomllib.loads(text)["broker"]
    assert table["commission"] == [{"kind": "per_contract", "rate": 0.01, "applies_to": []}]
    assert table["seed"] == 3
    path = session(tmp_path, broker=text + "\n[storage]\n")
    config = configs.load_config(path, {})
    assert isinstance(config.broker, configs.PaperBroker)
    _, document, _ = runs.execute(config)
    old, new = (d["books"]["dynamic"]["pnl"] for d in (run.result(), document))
    assert new["spread_cost"] == pytest.approx(old["spread_cost"], rel=0.1)
    assert new["impact"] == pytest.approx(old["impact"], rel=0.1)
    assert old["impact"] > 0


def test_the_model_tells_what_the_fills_cost(run: runs.StoredRun) -> None:
    """Of a run on paper the model's difference is rounding to the tick: less than a tick's half on average, never more."""
    document = tca.document(run)
    model = document["against_model"]
    assert model["hedges"] == document["totals"][0]["filled"]
    delay_free = [h for h in document["hedges"] if h["delay"] == 0]
    assert delay_free
    for h in delay_free:
        assert -1e-9 <= h["slippage"] - h["expected"] <= 0.01 * abs(h["done"]) + 1e-9


def test_each_hedge_has_its_times_and_its_rolling_figures(run: runs.StoredRun) -> None:
    """Latency lies where the broker was told, and a rolling figure looks back on at most the window."""
    document = tca.document(run, window=4)
    hedges = document["hedges"]
    sent = [h for h in hedges if h["latency_ns"]]
    assert all(150_000_000 <= h["latency_ns"] <= 200_000_000 for h in sent)
    assert [h["rolling"]["hedges"] for h in hedges[:6]] == [1, 2, 3, 4, 4, 4]
    opening = hedges[0]
    assert opening["risk_removed"] > 0
    assert opening["reason"].startswith("every 2m")


def test_effectiveness_rolls_over_the_report_grid(run: runs.StoredRun) -> None:
    """The rolling path starts when its window is full, and the hedge takes variance away."""
    effect = tca.document(run, intervals=20)["effectiveness"]
    grid = int(run.samples()["on_grid"].sum())
    assert len(effect["rolling"]) <= grid - 20
    assert effect["lowest"] <= effect["median"] <= 1.0
    assert 0.0 < effect["run"] <= 1.0


def test_an_account_without_orders_says_so(run: runs.StoredRun, capsys: Capture) -> None:
    """The unhedged account has no hedges, no totals and no numbers fitted."""
    document = tca.document(run, account="none")
    assert (document["hedges"], document["totals"], document["instruments"]) == ([], [], [])
    assert document["calibration"]["latency"]["latency_ns"]["value"] is None
    answer = call(capsys, "tca", run.folder, "--account", "none")
    assert answer.code == 0
    assert "It sent no order" in answer.out


def test_the_verb_prints_one_document_or_tables_and_writes_its_files(
    run: runs.StoredRun, tmp_path: Path, capsys: Capture
) -> None:
    """--json is one document without NaN; else tables; --html and --broker write whole files."""
    answer = call(capsys, "tca", run.folder, "--json", "--html", tmp_path / "a.html", "--broker", tmp_path / "b.toml")
    assert (answer.code, answer.err) == (0, "")
    document = answer.json()
    assert document == json.loads(json.dumps(tca.document(run), allow_nan=False))
    assert (tmp_path / "b.toml").read_text() == document["broker"]
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<tr") > len(document["hedges"])
    assert "http" not in page.replace("http-equiv", "")
    shown = call(capsys, "tca", run.folder)
    assert shown.code == 0
    assert "By instrument" in shown.out
    assert "[broker]" in shown.out
    assert "\x1b" not in shown.out


def test_pooled_runs_enter_the_fits_alone(run: runs.StoredRun) -> None:
    """The fills of another run double the observations of the calibration and change nothing else."""
    one, two = tca.document(run), tca.document(run, pooled=[run])
    assert two["calibration"]["filled"] == 2 * one["calibration"]["filled"]
    assert two["pooled"] == [run.run_id]
    assert two["totals"] == one["totals"]


def test_a_daily_volume_scales_the_impact(run: runs.StoredRun) -> None:
    """With --adv the table carries the volume its coefficient belongs to."""
    table = tomllib.loads(tca.document(run, adv=Decimal(50_000))["broker"])["broker"]
    if table["impact"]["kind"] != "none" and "adv" in table["impact"]:
        assert table["impact"]["adv"] == 50_000
    assert tca.document(run, adv=Decimal(50_000))["calibration"]["impact"]["adv"] == 50_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--account", "nobody"], "expected an account of it"),
        (["--window", "0"], "expected a window of 1 hedge"),
        (["--intervals", "1"], "2 intervals or more"),
        (["--adv", "many"], "--adv: expected contracts a day"),
        (["--adv", "-5"], "above 0"),
        (["--adv", "NaN"], "above 0"),
    ],
)
def test_what_means_nothing_is_refused(run: runs.StoredRun, capsys: Capture, words: list[str], said: str) -> None:
    """A mistaken option is one sentence and exit code 2."""
    answer = call(capsys, "tca", run.folder, *words)
    assert answer.code == 2
    assert said in answer.err.replace("\n", " ")


def test_damaged_parts_are_named(run: runs.StoredRun, tmp_path: Path, capsys: Capture) -> None:
    """A run without its instruments, or with broken ones, ends in a sentence; without its config the model is as quoted."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in run.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.toml").write_text("nonsense = [")
    assert "cannot be read" in tca.document(runs.StoredRun(folder))["against_model"]["text"]
    (folder / "instruments.json").write_text("{")
    assert call(capsys, "tca", folder).code == 3
    (folder / "instruments.json").unlink()
    answer: Any = call(capsys, "tca", folder)
    assert answer.code == 9
    assert "instruments.json" in answer.err
