"""The committed comparison on a recorded ES session: a band beats hedging each minute, and the page tells these numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bot.app import compare as comparing
from bot.app import config as configs
from bot.app import sweeping
from tests.realdata import lean_root

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "es_compare.toml"
BANDS = ("band_1", "band_2", "band_2_centre", "whalley_wilmott", "zakamouline", "exact_band")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The comparison as `evenkeel compare es_compare.toml` makes it."""
    return comparing.compare(configs.load_config(CONFIG, {"EVENKEEL_DATA": str(lean_root())}))


def rows_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in document["recorded"]["rows"]}


def test_a_band_beats_hedging_each_minute_at_no_more_risk(document: dict[str, Any]) -> None:
    """Every band costs at least a third less than each minute, at a standard deviation of P&L that is no higher."""
    rows = rows_of(document)
    minute = rows["dynamic"]
    assert minute["trades"] > 50
    for name in BANDS:
        assert rows[name]["mean_cost"] <= minute["mean_cost"] * 2.0 / 3.0
        assert rows[name]["std"] <= minute["std"]
        assert rows[name]["std_less"] >= -2.0 * rows[name]["std_less_se"]
    assert rows["none"]["std"] > 2.0 * minute["std"]
    assert any(line.startswith("band_1 (as tight a hedge) cost 750.00 USD") for line in document["verdict"])


def test_the_page_tells_the_numbers_of_the_config(document: dict[str, Any]) -> None:
    """The table in docs/compare.md holds cost, risk, trades and units as the config gives them, for every account."""
    page = (ROOT / "docs" / "compare.md").read_text("utf-8")
    rows = rows_of(document)
    told: dict[str, list[float]] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in rows and len(cells) == 6:
            told[cells[0]] = [float(cell.replace(",", "")) for cell in cells[1:]]
    keys = ("mean_cost", "std", "delta_std", "trades", "units_traded")
    found = {name: [round(float(row[key]), 2) for key in keys] for name, row in rows.items() if name != "daily_bs"}
    assert told == found
    text = page.replace("\n", " ")
    band, minute = rows["band_1"], rows["dynamic"]
    share = band["cost_less"] / minute["mean_cost"]
    for said in (
        f"costs {share:.0%} less than hedging each minute",
        f"{band['std_less']:.2f} lower",
        f"standard error of {band['std_less_se']:.2f}",
        f"saves {band['cost_less']:.2f} of {minute['mean_cost'] - rows['static']['mean_cost']:.2f}",
        f"{document['fills']['one_tick']['dynamic']:,.2f} for `dynamic`",
        f"{document['fills']['one_tick']['band_1']:,.2f} for `band_1`",
    ):
        assert re.sub(r"\s+", " ", said) in re.sub(r"\s+", " ", text), said


def test_the_swept_width_is_the_alternatives(tmp_path: Path) -> None:
    """The example's sweep over the band's width gives at each point what an account of that width has in the comparison."""
    env = {"EVENKEEL_DATA": str(lean_root())}
    config = configs.load_config(CONFIG, env)
    points = [point for point in sweeping.points_of(config) if next(iter(point.values())) in {"50", "100"}]
    found, _ = sweeping.run_sweep(config, points, folder=tmp_path, workers=1, env=env)
    by_width = {row["point"]["alternatives.1.policy.half_width"]: row["books"] for row in found["points"]}
    assert by_width[100]["band_1"] == by_width[100]["band_2"]
    assert by_width[50]["band_1"] != by_width[50]["band_2"]
    assert by_width[50]["dynamic"] == by_width[100]["dynamic"]
