"""Transaction costs on recorded quotes: they agree with the run, and its fills tell what its broker was told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bot.app import config as configs
from bot.app import runs, tca
from tests.realdata import lean_root

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]


def kept(folder: Path, example: str, **changes: str) -> runs.StoredRun:
    """A shipped example on the recorded day, kept, with overrides of its config."""
    env = {"EVENKEEL_DATA": str(lean_root()), "EVENKEEL__STORAGE__RUNS": str(folder)}
    env |= {f"EVENKEEL__{name.upper()}": value for name, value in changes.items()}
    _, _, where = runs.execute(configs.load_config(ROOT / "config" / example, env))
    assert where is not None
    return runs.StoredRun(where)


@pytest.mark.parametrize("example", ["es_day.toml", "goog_day.toml"])
def test_costs_and_effectiveness_are_those_of_the_run(example: str, tmp_path: Path) -> None:
    """Spread, delay and effectiveness of the analysis are the result's own, on the ES and the GOOG day."""
    stored = kept(tmp_path, example)
    document, book = tca.document(stored), stored.result()["books"]["dynamic"]
    (totals,) = document["totals"]
    assert totals["filled"] == book["fills"]
    assert totals["spread"] == pytest.approx(book["pnl"]["spread_cost"], abs=1e-6)
    assert totals["delay"] == pytest.approx(book["slippage"]["delay"], abs=1e-6)
    assert document["against_model"]["difference_bp"] == pytest.approx(0.0, abs=1e-9)
    session = stored.result()["session"]
    if session["report_grid"] == session["effectiveness_interval"]:
        assert document["effectiveness"]["run"] == pytest.approx(book["hedge_effectiveness"], abs=1e-6)


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_latency_and_an_assumed_spread_are_recovered_on_recorded_quotes(seed: str, tmp_path: Path) -> None:
    """On the ES day a draw of 200 to 260 ms is told again, and a run with the fitted spread costs what the first did."""
    told = {"broker__seed": seed, "broker__latency": "200ms", "broker__jitter": "60ms"}
    stored = kept(tmp_path, "es_day.toml", **told, broker__spread='{kind = "ticks", ticks = 3}')
    document = tca.document(stored)
    found = document["calibration"]
    for name, truth in (("latency_ns", 200e6), ("jitter_ns", 60e6)):
        estimate = found["latency"][name]
        assert estimate["value"] == pytest.approx(truth, abs=3.5 * estimate["error"])
    (fit,) = found["spread"].values()
    assert fit["as_quoted"] is False
    table = tomllib.loads(document["broker"])["broker"]
    fitted = f'{{kind = "basis_points", bp = {table["spread"]["bp"]}}}'
    again = kept(tmp_path, "es_day.toml", **told, broker__spread=fitted)
    paid, repaid = (s.result()["books"]["dynamic"]["pnl"]["spread_cost"] for s in (stored, again))
    assert again.run_id != stored.run_id
    assert repaid == pytest.approx(paid, rel=0.02)
