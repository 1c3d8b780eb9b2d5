"""A sweep: the same answers whoever runs it, resumed where it stopped, a fault kept to its own point."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bot.core.errors import ConfigError, DataError
from bot.lab import sweep
from bot.lab.sweep import Done, Progress, Range, Results, apply_point, grid, random_points

HERE = "tests.unit.test_lab_sweep"


def pythagoras(arguments: Mapping[str, Any]) -> dict[str, float]:
    """A task: the length of a vector, a fault when told."""
    if arguments.get("bad"):
        raise ValueError("told to")
    return {"length": math.hypot(arguments["x"], arguments["in"]["y"])}


POINTS = grid({"x": [0.1, 0.2, 0.3], "in.y": [1.0, 2.0]})


def test_grid_is_every_combination_in_order() -> None:
    """The last key changes fastest; a text is not a list of values."""
    assert grid({"a": [1, 2], "b": ["x", "y"]}) == (
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    )  # fmt: skip
    with pytest.raises(ValueError, match="list of values"):
        grid({"a": "xy"})


def test_more_random_points_begin_with_the_fewer() -> None:
    """A count extends, a seed decides, ranges hold, and a key draws the same whatever stands beside it."""
    wanted: dict[str, Any] = {
        "h": Range(low=0.01, high=1.0, log=True),
        "n": Range(low=1, high=6, whole=True),
        "p": "abc",
    }
    many = random_points({**wanted, "p": ["a", "b", "c"]}, 40, seed=3)
    assert random_points({**wanted, "p": ["a", "b", "c"]}, 5, seed=3) == many[:5]
    assert random_points({"h": wanted["h"]}, 5, seed=3) == tuple({"h": point["h"]} for point in many[:5])
    assert random_points({"h": wanted["h"]}, 5, seed=4) != tuple({"h": point["h"]} for point in many[:5])
    assert all(0.01 <= point["h"] <= 1.0 and point["n"] in range(1, 7) and point["p"] in "abc" for point in many)
    assert {point["p"] for point in many} == {"a", "b", "c"}


def test_points_set_key_paths_and_leave_the_base() -> None:
    """Dotted paths reach tables and entries of lists; a path through a number is refused."""
    base = {"policy": {"kind": "band"}, "hedges": [{"cost": 1}, {"cost": 2}]}
    assert apply_point(base, {"policy.half_width": 0.1, "hedges.1.cost": 5, "new.key": 1}) == {
        "policy": {"kind": "band", "half_width": 0.1},
        "hedges": [{"cost": 1}, {"cost": 5}],
        "new": {"key": 1},
    }
    assert base == {"policy": {"kind": "band"}, "hedges": [{"cost": 1}, {"cost": 2}]}
    with pytest.raises(ConfigError, match=r"hedges\.7"):
        apply_point(base, {"hedges.7": 1})
    with pytest.raises(ConfigError, match=r"policy\.kind\.deeper"):
        apply_point(base, {"policy.kind.deeper": 1})


def test_processes_answer_as_one_thread_does() -> None:
    """The answers and their order are the same, bit for bit."""
    task = f"{HERE}:pythagoras"
    one = sweep.sweep(task, POINTS, executor="serial")
    two = sweep.sweep(task, POINTS, executor="processes", workers=2)
    assert one == two
    assert [done.values for done in one] == list(POINTS)
    assert [done.answer["length"] for done in one] == [math.hypot(p["x"], p["in.y"]) for p in POINTS]


def test_a_stopped_sweep_goes_on(tmp_path: Path) -> None:
    """What is in the file is not asked again, a line cut by a crash is dropped, and the answers are the same."""
    file, task = tmp_path / "sweep.jsonl", f"{HERE}:pythagoras"
    sweep.sweep(task, POINTS[:2], results=file, executor="serial")
    with file.open("ab") as out:
        out.write(b'{"key": "cut in the mid')
    seen: list[Progress] = []
    resumed = sweep.sweep(task, POINTS, results=file, executor="serial", progress=seen.append)
    assert resumed == sweep.sweep(task, POINTS, executor="serial")
    assert [p.done for p in seen] == [2, 3, 4, 5, 6]
    assert {p.total for p in seen} == {6}
    assert len(file.read_bytes().splitlines()) == 6
    assert sweep.sweep("no.such.module:name", (), results=file) == ()
    assert sweep.sweep(task, POINTS, results=file, executor="serial", progress=seen.append) == resumed
    assert seen[-1].seconds_left == 0.0


def test_another_base_is_another_sweep(tmp_path: Path) -> None:
    """A result belongs to its function, base and values."""
    file, task = tmp_path / "sweep.jsonl", f"{HERE}:pythagoras"
    first = sweep.sweep(task, POINTS[:1], base={"z": 1}, results=file, executor="serial")
    other = sweep.sweep(task, POINTS[:1], base={"z": 2}, results=file, executor="serial")
    assert first[0].key != other[0].key
    assert len(Results(file).load().found) == 2


def test_a_fault_stays_with_its_point(tmp_path: Path) -> None:
    """The others are answered; the fault is told, not kept, and tried again."""
    file = tmp_path / "sweep.jsonl"
    points = [{"x": 1.0, "in.y": 1.0}, {"x": 1.0, "in.y": 1.0, "bad": True}]
    good, bad = sweep.sweep(f"{HERE}:pythagoras", points, results=file, executor="serial")
    assert good.fault == ""
    assert bad.fault == "ValueError: told to"
    assert list(Results(file).load().found) == [good.key]


def test_damage_inside_is_refused(tmp_path: Path) -> None:
    """A line that is no answer, with others after it, stops the sweep by name."""
    file = tmp_path / "sweep.jsonl"
    Results(file).keep(Done(key="a", values={}, answer=1))
    file.write_bytes(b"nonsense\n" + file.read_bytes())
    with pytest.raises(DataError, match=r"sweep\.jsonl:1"):
        Results(file).load()


def test_time_left_is_by_the_pace_of_this_run() -> None:
    """With a second an answer and three left, three seconds are left."""
    ticks = iter(range(100))
    seen: list[Progress] = []
    sweep.sweep(
        f"{HERE}:pythagoras", POINTS[:4], executor="serial", progress=seen.append, clock=lambda: float(next(ticks))
    )
    assert [p.seconds_left for p in seen] == [None, 3.0, 2.0, 1.0, 0.0]


@pytest.mark.parametrize("executor", ["cluster", "dask", "threads"])
def test_unknown_executors_are_refused(executor: str) -> None:
    """The message says what there is."""
    with pytest.raises(ConfigError, match="processes, serial, dask"):
        sweep.sweep(f"{HERE}:pythagoras", POINTS[:1], executor=executor)


def test_a_function_needs_module_and_name() -> None:
    """Otherwise it is said what was expected."""
    (done,) = sweep.sweep("pythagoras", POINTS[:1], executor="serial")
    assert "module:name" in done.fault


def test_answers_read_back_as_they_were(tmp_path: Path) -> None:
    """Floats keep their bits through the file."""
    file = tmp_path / "sweep.jsonl"
    kept = Results(file).keep(Done(key="k", values={"x": 0.1}, answer={"y": 1.0 / 3.0}))
    assert Results(file).load().found["k"] == kept
    assert json.loads(file.read_text())["answer"]["y"] == 1.0 / 3.0
