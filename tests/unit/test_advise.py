"""Advice: the recommended policy is never worse than its guards, its band is the optimum's, and its figures are the lab's."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.app import advise as advising
from bot.app import config as configs
from bot.app.advise import to_lot
from bot.app.lab_problem import stage_problems
from bot.app.lab_scores import Asked, frontier_of
from bot.core.errors import ConfigError
from strategies.policies.exact_band import solve
from tests.lab_session import AVERSION, OPTIONS, TOLERANCE, call, write_quarter

Capture = pytest.CaptureFixture[str]
FEW = {"dates": 12, "paths": 512}


def load(folder: Path, **changes: Any) -> configs.Config:
    return configs.load_config(write_quarter(folder, **changes), {})


def advice(folder: Path, *, told: float = AVERSION, **changes: Any) -> dict[str, Any]:
    document = advising.advise(load(folder, **changes), aversion=told, **FEW)
    (found,) = document["advice"]
    return dict(found)


def test_the_band_today_is_the_optimums(tmp_path: Path) -> None:
    """On the yardstick's call the recommended policy is the exact band and its edges are the solver's."""
    found = advice(tmp_path)
    alone = solve([(1, 100, -1)], spot=100.0, vol=0.2, tau=0.25, cost=0.002, risk_aversion=1.0, dates=12)
    lo, hi = alone.band(0, 100.0)
    assert found["recommended"] == "exact_band"
    assert found["band"]["lo"] / OPTIONS == pytest.approx(lo, abs=1e-3)
    assert found["band"]["hi"] / OPTIONS == pytest.approx(hi, abs=1e-3)
    assert found["band"]["order"] == pytest.approx(lo * OPTIONS, abs=12.0)
    assert found["band"]["order"] == round(found["band"]["order"])


def test_it_is_never_worse_than_its_guards(tmp_path: Path) -> None:
    """Its score is the least of the exact band, none, static and every fixed interval; gaps follow the scores."""
    for told in (AVERSION, 1e-12, 1e-3):
        found = advice(tmp_path / str(told), told=told)
        scores = {row["name"]: row["ce"] for row in found["scores"]}
        guards = {name for name in scores if name in {"none", "static"} or name.startswith("every")}
        assert {"none", "static", "every date"} <= guards
        assert scores[found["recommended"]] <= min(scores[name] for name in guards) + 1e-9
        assert list(scores.values()) == sorted(scores.values())
        exact = next(row for row in found["scores"] if row["name"] == "exact_band")
        assert exact["above_optimum"] == pytest.approx(0.0, abs=5e-4 * 100 * OPTIONS)


def test_who_hardly_minds_risk_hardly_hedges(tmp_path: Path) -> None:
    """At a tiny aversion the optimum leaves the book alone: nothing is done, and nothing is expected to be paid."""
    found = advice(tmp_path, told=1e-12)
    assert found["band"]["order"] == 0.0
    assert found["expected"]["mean_cost"] == pytest.approx(0.0, abs=1e-6)


def test_more_aversion_buys_less_risk_for_more_cost(tmp_path: Path) -> None:
    """Along the frontier cost rises and risk falls with aversion, up to the one asked for."""
    (staged,), _ = stage_problems(load(tmp_path), aversion=AVERSION, dates=63)
    points = frontier_of(staged, Asked("gbm", 512, 1, 0), 512)["families"]["optimum"]["points"]
    points = [point for point in points if point["parameter"] <= 1.0]
    assert len(points) == 4
    costs, risks = ([point[name] for point in points] for name in ("mean_cost", "std"))
    assert costs == sorted(costs)
    assert risks == sorted(risks, reverse=True)


def test_what_is_held_already_counts(tmp_path: Path) -> None:
    """The band is of all that is held: shares inside it leave nothing to do, fewer are topped up to its edge."""
    empty = advice(tmp_path / "a")["band"]
    for shares in (5_200, 1_000):
        found = advice(tmp_path / str(shares), held=shares)
        band = found["band"]
        assert (band["held"], band["lo"], band["hi"]) == (shares, empty["lo"], empty["hi"])
        assert band["order"] == pytest.approx(max(0.0, empty["order"] - shares))
        assert any("beside its options" in note for note in found["notes"])


def test_the_table_told_runs(tmp_path: Path) -> None:
    """The policy's table at the end of the advice is one a config accepts, and stages the same problem."""
    found = advice(tmp_path / "a")
    policy = tomllib.loads(found["config"])["strategies"]["policy"]
    text = "\n".join(f"{key} = {value!r}" for key, value in policy.items()).replace("'", '"')
    config = load(tmp_path / "b", policy=text)
    (staged,), _ = stage_problems(config, aversion=policy["risk_aversion"], dates=12)
    assert staged.aversion == pytest.approx(AVERSION)


def test_the_aversion_comes_from_the_nearest_word(tmp_path: Path, capsys: Capture) -> None:
    """The command line wins over [advise], which wins over a policy's; with none at all the verb says what to give."""
    policy = 'kind = "whalley_wilmott"\nrisk_aversion = 3e-4'
    plain = load(tmp_path / "a", policy=policy)
    assert advising.advise(plain, **FEW)["aversion"] == 3e-4
    table = load(tmp_path / "b", policy=policy, tables="[advise]\ntolerance = 100\n")
    assert advising.advise(table, **FEW)["aversion"] == pytest.approx(2e-4)
    path = write_quarter(tmp_path / "c")
    words = ["advise", path, "--paths", "256", "--dates", "6"]
    assert "expected a risk aversion: --tolerance" in call(capsys, *words).err
    document = call(capsys, *words, "--tolerance", TOLERANCE, "--json").json()
    assert document["aversion"] == pytest.approx(AVERSION)
    both = write_quarter(tmp_path / "d", tables="[advise]\ntolerance = 100\nrisk_aversion = 0.1\n")
    assert "expected one of risk_aversion and tolerance, found both" in call(capsys, "advise", both).err


def test_an_instant_later_has_less_time_left(tmp_path: Path, capsys: Capture) -> None:
    """With --at the book is looked at then: less time, the price of that minute."""
    path = write_quarter(tmp_path, swing=2.0)
    words = ["advise", path, "--tolerance", TOLERANCE, "--paths", "256", "--dates", "6", "--json"]
    first = call(capsys, *words).json()["advice"][0]
    later = call(capsys, *words, "--at", "2025-03-03T15:00:00Z").json()["advice"][0]
    assert later["horizon_days"] == pytest.approx(first["horizon_days"] - 1.0 / 48.0, abs=1e-9)
    assert later["spot"] != first["spot"]


def test_two_underlyings_have_one_advice_each(tmp_path: Path, capsys: Capture) -> None:
    """A book on two underlyings is advised on both; an underlying without a hedge is named as left out."""
    path = write_quarter(tmp_path)
    rows = (tmp_path / "quotes.csv").read_text().splitlines()
    other = [line.replace("SIM:XYZ", "SIM:QQQ") for line in rows[1:]]
    both = [line for pair in zip(rows[1:], other, strict=True) for line in pair]
    (tmp_path / "quotes.csv").write_text("\n".join([rows[0], *both]) + "\n")
    book = (tmp_path / "book.csv").read_text()
    (tmp_path / "book.csv").write_text(book + book.splitlines()[1].replace("SIM:XYZ", "SIM:QQQ") + "\n")
    text = path.read_text().replace('only = ["SIM:XYZ"]', 'only = ["SIM:XYZ", "SIM:QQQ"]')
    path.write_text(text)
    words = ["advise", path, "--tolerance", TOLERANCE, "--paths", "256", "--dates", "6", "--json"]
    one = call(capsys, *words).json()
    assert [item["underlying"] for item in one["advice"]] == ["SIM:XYZ"]
    assert any("SIM:QQQ: options are held and no [[hedges]] entry" in note for note in one["notes"])
    hedge = '[[hedges]]\nunderlying = "SIM:QQQ"\ninstrument = "SIM:QQQ"\ncost = 0.002\n[[strategies]]'
    path.write_text(text.replace("[[strategies]]", hedge, 1))
    two = call(capsys, *words).json()["advice"]
    assert [item["underlying"] for item in two] == ["SIM:XYZ", "SIM:QQQ"]
    assert two[0]["band"] == two[1]["band"]


def test_the_page_has_the_bands_and_the_frontier(tmp_path: Path, capsys: Capture) -> None:
    """The report draws the frontier and the bands over spot and time, has the other worlds, and stands alone."""
    path = write_quarter(tmp_path)
    page = tmp_path / "advice.html"
    words = ["advise", path, "--tolerance", TOLERANCE, "--paths", "256", "--dates", "12", "--report", page]
    answer = call(capsys, *words)
    assert answer.code == 0, answer.err
    assert "hedge by exact_band; its band today is [" in answer.out
    text = page.read_text()
    assert text.count("<svg") == 3
    assert "jumps (Merton)" in text
    assert "://" not in text


def test_a_book_priced_by_a_table_cannot_be_advised() -> None:
    """Without vols there is nothing to solve, and that is said."""
    config = configs.load_config(configs.example_path("market_maker_example"), {})
    with pytest.raises(ConfigError, match="knows no vols of the legs"):
        advising.advise(config, aversion=1.0)


@given(
    lo=st.floats(-500, 500),
    width=st.floats(0, 300),
    lot=st.sampled_from([0.5, 1.0, 10.0]),
    now=st.integers(-1000, 1000).map(float),
)
def test_orders_are_whole_lots_inside_the_band(lo: float, width: float, lot: float, now: float) -> None:
    """A target is a whole number of lots, inside the band wherever a lot lies in it, else within a lot of it."""
    edges = [lo, lo + width]
    wanted = min(max(now, edges[0]), edges[1])
    found = to_lot(wanted, edges, lot, now)
    if wanted == now:
        assert found == now
        return
    assert abs(found / lot - round(found / lot)) < 1e-9
    inside = -(-edges[0] // lot) * lot <= edges[1]
    assert edges[0] - (1e-6 if inside else lot) <= found <= edges[1] + (1e-6 if inside else lot)
