"""A sweep runs one function at many points and keeps each answer; law: the answers do not depend on who ran them, or when.

A point is a mapping of key paths to values. Its task is named by the hash of function, base and values; the answer is
appended to a file as one line as soon as it is known, so a sweep that was stopped goes on where it was. Processes on
this machine by default, a Dask cluster when asked.

>>> [point["cost"] for point in grid({"cost": [0.001, 0.002], "lot": [0]})]
[0.001, 0.002]
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np

from bot.core.errors import ConfigError, DataError

Point: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = Any
VERSION: Final = 1


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """An interval to draw from: evenly, or evenly in the logarithm; whole numbers when asked."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"range: expected finite low <= high, found {self.low!r} and {self.high!r}")
        if self.log and self.low <= 0.0:
            raise ValueError(f"range: log: expected a positive low, found {self.low!r}")

    def at(self, share: float) -> float | int:
        """The value a share from 0 to 1 of the way."""
        ratio = (self.high / self.low) ** share if self.log else 0.0
        value = float(self.low * ratio) if self.log else self.low + (self.high - self.low) * share
        return round(value) if self.whole else value


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A point with the name its answer is kept under."""

    key: str
    values: dict[str, Any]


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A task's answer, or the fault that stood in its way. A fault is not kept: the task is tried again."""

    key: str
    values: dict[str, Any]
    answer: Answer = None
    fault: str = ""
    v: int = VERSION


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a sweep is. `seconds_left` by the pace of this run; None before the first answer of it."""

    done: int
    total: int
    seconds_left: float | None
    last: Done | None = None


# ---------------------------------------------------------------------------------------- points


def grid(values: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], ...]:
    """Every combination, the last key changing fastest."""
    for key, choices in values.items():
        if isinstance(choices, str) or not len(choices):
            raise ValueError(f"grid: {key}: expected a list of values, found {choices!r}")
    return tuple(dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values()))


def random_points(values: Mapping[str, Sequence[Any] | Range], count: int, *, seed: int) -> tuple[dict[str, Any], ...]:
    """`count` seeded points; a larger count begins with the same points. Keys draw independently of each other."""
    if count < 1:
        raise ValueError(f"random points: count: expected a whole number from 1, found {count}")
    out: list[dict[str, Any]] = []
    for i in range(count):
        point: dict[str, Any] = {}
        for key, choices in values.items():
            digest = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
            share = float(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i, digest))).random())
            point[key] = choices.at(share) if isinstance(choices, Range) else choices[int(share * len(choices))]
        out.append(point)
    return tuple(out)


def apply_point(base: Mapping[str, Any], values: Point) -> dict[str, Any]:
    """The base with dotted key paths set, nothing shared with it: `{"policy.half_width": 0.1}` sets one leaf.

    A number in a path counts entries of a list: `hedges.0.cost`. Errors: ConfigError for a path through something else.
    """
    out: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(base)))
    for path, value in values.items():
        _set(out, path, value)
    return out


def _set(table: dict[str, Any], path: str, value: Any) -> None:
    *through, last = path.split(".")
    at: Any = table
    for name in through:
        at = at.setdefault(name, {}) if isinstance(at, dict) else _entry(at, name, path)
    if isinstance(at, dict):
        at[last] = value
    else:
        _entry(at, last, path)
        at[int(last)] = value


def _entry(at: Any, name: str, path: str) -> Any:
    if not (isinstance(at, list) and name.isdigit() and int(name) < len(at)):
        raise ConfigError(f"sweep: {path}: expected a table or an entry of a list at {name!r}, found {at!r}")
    return at[int(name)]


def tasks(function: str, points: Iterable[Point], *, base: Mapping[str, Any]) -> tuple[Task, ...]:
    """The points as tasks, like points once. `function` is `module:name`."""
    found: dict[str, Task] = {}
    for values in points:
        body = {"function": function, "base": base, "values": dict(values), "v": VERSION}
        key = hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()[:32]
        found.setdefault(key, Task(key=key, values=dict(values)))
    return tuple(found.values())


# ---------------------------------------------------------------------------------------- results kept


class Results:
    """Answers in an append-only file of lines, one written at once each; a line cut by a crash is dropped when opened."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.found: dict[str, Done] = {}

    def load(self) -> Results:
        """Read what is there. Errors: DataError for damage anywhere but in the last line."""
        if self._path is None or not self._path.exists():
            return self
        raw = self._path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                done = msgspec.json.decode(line, type=Done)
            except msgspec.DecodeError as fault:
                raise DataError(
                    f"{self._path}:{number}: expected an answer of a sweep, found damage: {fault}"
                ) from fault
            self.found[done.key] = done
        return self

    def keep(self, done: Done) -> Done:
        """Append one answer; returns it as it will be read back, so that fresh and resumed answers are the same."""
        line = msgspec.json.encode(done)
        read_back = msgspec.json.decode(line, type=Done)
        if done.fault:
            return read_back
        self.found[done.key] = read_back
        if self._path is not None:
            with self._path.open("ab", buffering=0) as file:
                file.write(line + b"\n")
                os.fsync(file.fileno())
        return read_back


# ---------------------------------------------------------------------------------------- running


def call(function: str, arguments: Mapping[str, Any]) -> Answer:
    """The answer of a function named `module:name` to one mapping: what a worker does."""
    module, _, name = function.partition(":")
    if not module or not name:
        raise ConfigError(f"sweep: function: expected 'module:name', found {function!r}")
    return getattr(importlib.import_module(module), name)(arguments)


def sweep(
    function: str,
    points: Iterable[Point],
    *,
    base: Mapping[str, Any] | None = None,
    results: Path | None = None,
    executor: Literal["processes", "serial"] | str = "processes",
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Done, ...]:
    """The answer at every point, in the order of the points; those already in `results` are not asked again.

    `function(mapping) -> JSON-like answer` is given the base with the point's key paths set. `executor`: "processes",
    "serial", "dask:local" or "dask:ADDRESS". A task that raises is a fault of its own point; the others go on.
    """
    table = dict(base or {})
    wanted = tasks(function, points, base=table)
    kept = Results(results).load()
    out: dict[str, Done] = {t.key: kept.found[t.key] for t in wanted if t.key in kept.found}
    missing = [task for task in wanted if task.key not in out]
    told = progress if progress is not None else _say_nothing
    told(Progress(done=len(out), total=len(wanted), seconds_left=None if missing else 0.0))
    if not missing:
        return tuple(out[task.key] for task in wanted)
    before, began = len(out), clock()
    with pool_of(executor, workers, preload=function.partition(":")[0]) as submit:
        for done in _answers(submit, function, table, missing):
            out[done.key] = kept.keep(done)
            pace = (clock() - began) / (len(out) - before)
            left = pace * (len(wanted) - len(out))
            told(Progress(done=len(out), total=len(wanted), seconds_left=left, last=out[done.key]))
    return tuple(out[task.key] for task in wanted)


Submit: TypeAlias = Callable[[str, dict[str, Any]], "Future[Answer]"]


def _answers(submit: Submit, function: str, base: Mapping[str, Any], missing: Sequence[Task]) -> Iterator[Done]:
    asked = {submit(function, apply_point(base, task.values)): task for task in missing}
    for future in as_completed(asked):
        task, fault = asked[future], future.exception()
        if fault is None:
            yield Done(key=task.key, values=task.values, answer=future.result())
        elif isinstance(fault, Exception) and not _is_of_the_pool(fault):
            yield Done(key=task.key, values=task.values, fault=f"{type(fault).__name__}: {fault}")
        else:
            raise fault


def _is_of_the_pool(fault: BaseException) -> bool:
    """True for a worker that died, rather than a task that raised."""
    return type(fault).__name__ in {"BrokenProcessPool", "KilledWorker", "CancelledError"}


def pool_of(executor: str, workers: int | None, *, preload: str = "") -> AbstractContextManager[Submit]:
    """Where tasks run, as something to submit them to; `preload`: a module workers need, loaded once for all of them."""
    if executor == "serial":
        return _local(ThreadPoolExecutor(1))
    if executor == "processes":
        return _local(_processes(usable_cores() if workers is None else workers, preload))
    if executor.startswith("dask:"):
        return _dask(executor.removeprefix("dask:"), workers)
    raise ConfigError(f"sweep: executor: expected processes, serial, dask:local or dask:ADDRESS, found {executor!r}")


def usable_cores() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processes(workers: int, preload: str) -> ProcessPoolExecutor:
    if workers < 1:
        raise ConfigError(f"sweep: workers: expected a whole number from 1, found {workers}")
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([preload] if preload else [])
    return ProcessPoolExecutor(workers, mp_context=context)


@contextmanager
def _local(executor: Executor) -> Iterator[Submit]:
    try:
        yield lambda function, arguments: executor.submit(call, function, arguments)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _dask(address: str, workers: int | None) -> Iterator[Submit]:
    """A Dask cluster: `local` starts one of processes here, anything else is a scheduler's address."""
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as fault:
        raise ConfigError("sweep: --dask needs the package distributed: pip install 'evenkeel[dask]'") from fault
    if address == "local":
        count = usable_cores() if workers is None else workers
        client = distributed.Client(n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None)
    else:
        client = distributed.Client(address)
    with client, client.get_executor(pure=False) as executor:
        yield lambda function, arguments: executor.submit(call, function, arguments)


def _say_nothing(progress: Progress) -> None:
    """Nobody listens."""
