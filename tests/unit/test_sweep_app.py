"""A sweep of backtests: each point is the backtest of its config, and the results have the same bytes whoever ran them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bot.app import config as configs
from bot.app import report_policies, runs, sweeping
from bot.core.errors import ConfigError, EvenkeelError
from bot.lab.sweep import Progress, Range
from tests.lab_session import call, write_quarter

Capture = pytest.CaptureFixture[str]

BAND = 'kind = "delta_band"\nhalf_width = 100'
WIDTH = "strategies.0.policy.half_width"


def session(folder: Path, tables: str = "") -> configs.Config:
    return configs.load_config(write_quarter(folder, minutes=30, swing=2.0, policy=BAND, tables=tables), {})


def swept(
    config: configs.Config,
    folder: Path,
    *,
    workers: int = 1,
    values: tuple[str, ...] = ("50", "200", "800"),
    **more: Any,
) -> dict[str, Any]:
    points = sweeping.points_of(config, sets={WIDTH: values})
    return sweeping.run_sweep(config, points, folder=folder, workers=workers, env={}, **more)[0]


def dies_once(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A point whose worker is killed the first time it is asked."""
    marker = Path(arguments["config"]).parent / "died"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return sweeping.backtest_point(arguments)


def always_dies(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A point that no worker survives."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


# --------------------------------------------------------------------------- results


def test_a_point_is_the_backtest_of_its_config(tmp_path: Path) -> None:
    """Figures and the digest of facts at a point are those of a run of the config with the key set."""
    config = session(tmp_path)
    found = swept(config, tmp_path / "sweep", values=("200",))
    env = {"EVENKEEL__STRATEGIES__0__POLICY__HALF_WIDTH": "200"}
    _, document, _ = runs.execute(configs.load_config(config.path, env), store=False)
    (row,) = found["points"]
    assert row["point"] == {WIDTH: 200}
    assert row["facts_digest"] == document["facts_digest"]
    book, told = document["books"]["dynamic"], row["books"]["dynamic"]
    assert told["total"] == book["pnl"]["total"]
    assert told["cost"] == pytest.approx(book["pnl"]["spread_cost"] + book["pnl"]["commission"] + book["pnl"]["impact"])
    assert (told["pnl_std"], told["trades"]) == (book["pnl_std"], book["trades"])


def test_one_worker_and_two_give_the_same_bytes(tmp_path: Path) -> None:
    """Both result files are equal to the byte, and a wider band trades no more."""
    config = session(tmp_path)
    for workers in (1, 2):
        swept(config, tmp_path / str(workers), workers=workers)
    for name in (sweeping.RESULTS, sweeping.TABLE):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    rows = json.loads((tmp_path / "1" / sweeping.RESULTS).read_text())["points"]
    trades = [row["books"]["dynamic"]["trades"] for row in rows]
    assert trades == sorted(trades, reverse=True)
    assert trades[0] > trades[-1]


def test_a_sweep_run_again_runs_only_what_is_missing(tmp_path: Path) -> None:
    """Answers that are there are not asked again, a torn last line is, and the bytes are those of an uninterrupted sweep."""
    config = session(tmp_path)
    swept(config, tmp_path / "whole")
    swept(config, tmp_path / "part", values=("50",))
    answers = tmp_path / "part" / sweeping.ANSWERS
    with answers.open("ab") as file:
        file.write(b'{"key": "torn')
    told: list[Progress] = []
    swept(config, tmp_path / "part", progress=told.append)
    assert [step.done for step in told] == [1, 2, 3]
    assert told[-1].total == 3
    for name in (sweeping.RESULTS, sweeping.TABLE):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again: list[Progress] = []
    swept(config, tmp_path / "part", progress=again.append)
    assert [(step.done, step.seconds_left) for step in again] == [(3, 0.0)]


def test_a_changed_config_begins_another_sweep(tmp_path: Path) -> None:
    """Answers of another config are not taken for this one's."""
    config = session(tmp_path)
    swept(config, tmp_path / "sweep", values=("50",))
    config.path.write_text(config.path.read_text().replace("vol_value = 0.2", "vol_value = 0.3"))
    told: list[Progress] = []
    swept(configs.load_config(config.path, {}), tmp_path / "sweep", values=("50",), progress=told.append)
    assert [step.done for step in told] == [0, 1]


def test_a_killed_workers_point_is_run_again(tmp_path: Path) -> None:
    """A worker killed in the middle of a point costs time only: every point is answered."""
    config = session(tmp_path)
    found = swept(config, tmp_path / "killed", values=("50", "200"), function="tests.unit.test_sweep_app:dies_once")
    assert (tmp_path / "died").exists()
    plain = swept(config, tmp_path / "plain", values=("50", "200"))
    assert found == plain


def test_workers_that_always_die_end_the_sweep_in_words(tmp_path: Path) -> None:
    """Three deaths without an answer between them are told, with what is kept."""
    config = session(tmp_path)
    with pytest.raises(EvenkeelError, match="workers died 3 times in a row with 0 of 1 points answered"):
        swept(config, tmp_path / "x", values=("50",), function="tests.unit.test_sweep_app:always_dies")


def test_a_point_that_fails_is_told_and_the_others_go_on(tmp_path: Path, capsys: Capture) -> None:
    """A hedge that is never quoted is that point's fault, in both files and with exit code 3; it is tried again later."""
    path = write_quarter(tmp_path, minutes=30, policy=BAND)
    words = ["sweep", path, "--set", "hedges.0.instrument=SIM:XYZ,SIM:ABC", "--out", tmp_path / "out", "--workers", "1"]
    answer = call(capsys, *words)
    good, bad = json.loads((tmp_path / "out" / sweeping.RESULTS).read_text())["points"]
    assert answer.code == 3
    assert good["fault"] is None
    assert good["books"]["dynamic"]["trades"] > 0
    assert "the session never began" in bad["fault"]
    assert "FAULT at" in answer.out
    assert (tmp_path / "out" / sweeping.TABLE).read_text().count("the session never began") == 1
    assert len((tmp_path / "out" / sweeping.ANSWERS).read_text().splitlines()) == 1


# --------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("strategies.0.policy.half_widht", "did you mean 'half_width'?"),
        ("strategies.7.policy.half_width", "expected a place from 0 to 1"),
        ("sesion.report_grid", "unknown key"),
        ("a..b", "expected a key such as"),
    ],
)
def test_a_key_that_does_not_exist_is_told_before_anything_runs(path: str, said: str, tmp_path: Path) -> None:
    """The key is named with the nearest known one, and no folder is made."""
    config = session(tmp_path)
    points = sweeping.points_of(config, sets={path: ["1"]})
    with pytest.raises(ConfigError, match=r"sweep: ") as refused:
        sweeping.run_sweep(config, points, folder=tmp_path / "none", env={})
    assert path in str(refused.value)
    assert said in str(refused.value)
    assert not (tmp_path / "none").exists()


def test_a_value_a_key_refuses_is_told_before_anything_runs(tmp_path: Path) -> None:
    """Every bad value is told at once, good ones are not."""
    config = session(tmp_path)
    points = sweeping.points_of(config, sets={WIDTH: ["-1", "wide", "50"]})
    with pytest.raises(ConfigError) as refused:
        sweeping.run_sweep(config, points, folder=tmp_path / "none", env={})
    assert f"{WIDTH} = -1: expected at least 0" in str(refused.value)
    assert f"{WIDTH} = wide: expected a number" in str(refused.value)
    assert "= 50" not in str(refused.value)


def test_points_are_every_combination_with_every_draw(tmp_path: Path) -> None:
    """Grid and draws multiply; a larger count begins with the same draws; whole numbers are whole; values keep their text."""
    config = session(tmp_path)
    draws = {WIDTH: Range(low=10, high=1000, log=True), "feeds.0.seed": Range(low=1, high=9, whole=True)}
    few = sweeping.points_of(config, sets={"broker.latency": ["0s", "1s"]}, draws=draws, count=3, seed=4)
    many = sweeping.points_of(config, sets={"broker.latency": ["0s", "1s"]}, draws=draws, count=5, seed=4)
    assert len(few) == 6
    assert many[:6] == few
    assert all(10 <= float(point[WIDTH]) <= 1000 for point in many)
    assert all(point["feeds.0.seed"].isdigit() for point in many)
    assert sweeping.points_of(config, draws=draws, count=3, seed=5) != sweeping.points_of(
        config, draws=draws, count=3, seed=4
    )


def test_the_table_of_the_file_is_swept_without_options(tmp_path: Path) -> None:
    """[sweep] gives grid, intervals, count and seed; lists and texts keep their types."""
    tables = f"""
[sweep]
points = 2
[sweep.set]
"{WIDTH}" = [50, 2.5e2]
"strategies.0.underlyings" = [["SIM:XYZ"], []]
[sweep.random]
"pricing.vol_value" = {{ low = 0.1, high = 0.3 }}
"""
    config = session(tmp_path, tables)
    points = sweeping.points_of(config)
    assert len(points) == 8
    assert {point[WIDTH] for point in points} == {"50", "250"}
    assert {point["strategies.0.underlyings"] for point in points} == {'["SIM:XYZ"]', "[]"}
    sweeping.check_points(config, points, {})


def test_words_of_the_command_line() -> None:
    """Commas inside brackets and quotes do not part values; anything else than path=values is refused in words."""
    assert sweeping.parse_grid(['a.b=[1,2],"x,y",3']) == {"a.b": ("[1,2]", "x,y", "3")}
    assert sweeping.parse_random(["a=0.5..2.5:log"])["a"].log
    assert sweeping.parse_random(["a=-1e-3..2.5"])["a"].low == -1e-3
    for texts, parse in (
        (["a"], sweeping.parse_grid),
        (["a="], sweeping.parse_grid),
        (["a=1,,2"], sweeping.parse_grid),
        (["a=1", "a=2"], sweeping.parse_grid),
        (["a=1"], sweeping.parse_random),
        (["a=2..1"], sweeping.parse_random),
        (["a=0..1:log"], sweeping.parse_random),
        (["a=1..2:cubic"], sweeping.parse_random),
        (["a=x..2"], sweeping.parse_random),
    ):
        with pytest.raises(ConfigError):
            parse(texts)


def test_nothing_to_sweep_and_dask_without_its_package_are_told(tmp_path: Path, capsys: Capture) -> None:
    """Both end with exit code 2 and a sentence that says what to give or to install."""
    path = write_quarter(tmp_path, minutes=30, policy=BAND)
    assert "found nothing to sweep" in call(capsys, "sweep", path).err
    try:
        import distributed as installed  # noqa: PLC0415
    except ImportError:
        installed = None
    if installed is not None:
        pytest.skip("distributed is installed here")
    answer = call(capsys, "sweep", path, "--set", f"{WIDTH}=50", "--dask", "local", "--out", tmp_path / "o")
    assert answer.code == 2
    assert "pip install 'evenkeel[dask]'" in answer.err


# --------------------------------------------------------------------------- what is shown


def test_the_table_and_the_page_show_the_points(tmp_path: Path, capsys: Capture) -> None:
    """The terminal marks what no other point beats, the page draws it and stands alone; an unknown account is refused."""
    path = write_quarter(tmp_path, minutes=30, swing=2.0, policy=BAND)
    words = ["sweep", path, "--set", f"{WIDTH}=50,800", "--out", tmp_path / "o", "--workers", "1"]
    answer = call(capsys, *words, "--report", tmp_path / "page.html")
    assert answer.code == 0, answer.err
    assert "*" in answer.out
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2
    assert "://" not in page
    assert "expected one of dynamic, none, static" in call(capsys, *words, "--account", "mine").err
    document = call(capsys, *words, "--json").json()
    assert report_policies.sweep_page(document) == page
