"""A stored run is a folder: config, book, journal, result, samples; law: it appears whole or not at all.

It is written under a hidden name beside its place and renamed when complete. A repeated backtest of the same config
takes the place of the one before; what a fault leaves behind is removed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from bot.app import config as configs
from bot.app import daemon, result
from bot.app.wiring import Run, assemble, run_id_of
from bot.core.errors import EvenkeelError, RunNotFound, StorageError
from bot.core.ports import Clock
from bot.domain.units import iso
from bot.engine.journal import JournalReader, Step

JOURNAL: Final = "journal.evk"
RESULT: Final = "result.json"
SAMPLES: Final = "samples.parquet"
CONFIG: Final = "config.toml"
SOURCE: Final = "source.json"
HEDGES: Final = "hedges.parquet"
TAPE: Final = "tape.json"
INSTRUMENTS: Final = "instruments.json"


class StoredRun:
    """A finished run in its folder, read when asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run_id(self) -> str:
        """The run's name, which is its folder's."""
        return self.folder.name

    def result(self) -> dict[str, Any]:
        """The result document."""
        return json.loads((self.folder / RESULT).read_text(encoding="utf-8"))  # type: ignore[no-any-return]  # our own file

    def steps(self) -> Iterator[Step]:
        """The journal's steps, each proved."""
        return iter(JournalReader(self.folder / JOURNAL))

    def samples(self) -> dict[str, Any]:
        """The samples as numpy columns, see `result.sample_columns`."""
        import pyarrow.parquet as pq  # noqa: PLC0415  heavy, and only reports read samples

        table = pq.read_table(self.folder / SAMPLES)
        return {name: table.column(name).to_numpy() for name in table.column_names}

    def config_path(self) -> Path:
        """The config file the run was made from, where it lay then."""
        source = json.loads((self.folder / SOURCE).read_text(encoding="utf-8"))
        return Path(source["config"])


def execute(
    config: configs.Config,
    *,
    store: bool = True,
    speed: float | None = None,
    clock: Clock | None = None,
    progress: daemon.Progress | None = None,
    live_id: bool = False,
    attend: Callable[[Run], None] | None = None,
) -> tuple[Run, dict[str, Any], Path | None]:
    """Run a config to its end: the run, its result document and, when stored, its folder.

    `attend` may subscribe to the run's bus before it starts.
    """
    began, cpu = time.perf_counter(), time.process_time()
    run_id = run_id_of(config)
    if live_id:
        run_id += "-" + iso(time.time_ns() // 1_000_000_000 * 1_000_000_000).translate(str.maketrans("", "", "-:"))
    with _workspace(config.storage.runs, run_id, store) as folder:
        run = assemble(config, journal=None if folder is None else folder / JOURNAL, run_id=run_id)
        if attend is not None:
            attend(run)
        ready = time.perf_counter()
        daemon.run_to_end(lambda stop: daemon.drive(run, speed=speed, clock=clock, progress=progress, stop=stop))
        ended = time.perf_counter()
        rows = max(run.loop.tape.rows, 1)
        timing = {
            "wall_s": round(ended - began, 6),
            "setup_s": round(ready - began, 6),
            "replay_s": round(ended - ready, 6),
            "cpu_s": round(time.process_time() - cpu, 6),
            "rows": run.loop.tape.rows,
            "us_per_row": round((ended - ready) / rows * 1e6, 3),
        }
        document = result.document(run, timing=timing)
        if folder is not None:
            _write_views(folder, run, document)
    return run, document, None if folder is None else config.storage.runs / run_id


PLACES: Final = (Path("runs"), Path("config/runs"))


def find(runs: Path | None, name: str) -> StoredRun:
    """The stored run of a name, a unique beginning of one, a folder, or `latest`; RunNotFound otherwise.

    Looks in `runs`, or in `./runs` and `./config/runs` when None.
    """
    direct = Path(name)
    if (direct / RESULT).is_file():
        return StoredRun(direct)
    places = PLACES if runs is None else (runs,)
    stored = sorted(
        (p for place in places for p in place.glob("[!.]*") if (p / RESULT).is_file()), key=lambda p: p.name
    )
    if name == "latest" and stored:
        return StoredRun(max(stored, key=lambda p: (p / RESULT).stat().st_mtime_ns))
    exact = [p for p in stored if p.name == name]
    matching = exact or [p for p in stored if p.name.startswith(name)]
    if len(matching) == 1:
        return StoredRun(matching[0])
    known = ", ".join(p.name for p in (matching or stored)[:10]) or "none"
    problem = "several runs begin so" if matching else "no such run"
    where = " or ".join(str(place) for place in places)
    raise RunNotFound(f"run {name!r} in {where}: {problem}; known: {known}")


@contextlib.contextmanager
def _workspace(runs: Path, run_id: str, store: bool) -> Iterator[Path | None]:
    """A folder that becomes runs/<run_id> when the block ends well and vanishes when it does not."""
    if not store:
        yield None
        return
    try:
        runs.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{run_id}.", dir=runs))
    except OSError as fault:
        raise StorageError(f"{runs}: cannot be a folder of runs: {fault.strerror}; nothing was run") from fault
    try:
        with storage_faults(runs, "; nothing was kept of this run"):
            yield folder
            _put_in_place(folder, runs / run_id)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, place: Path) -> None:
    aside = folder.with_name(folder.name + ".old")
    if place.exists():
        place.rename(aside)
    folder.rename(place)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def storage_faults(where: Path, outcome: str = "") -> Iterator[None]:
    """Turn the faults of a disk into one sentence, ended by what became of the work."""
    try:
        yield
    except OSError as fault:
        if fault.errno in {
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
            errno.EACCES,
            errno.EFBIG,
            errno.EIO,
            errno.EISDIR,
            errno.ENOENT,
            errno.ENOTDIR,
            errno.EPERM,
        }:
            place = fault.filename if isinstance(fault.filename, str) else where
            raise StorageError(f"{place}: cannot be written or read: {fault.strerror}{outcome}") from fault
        raise


def _write_views(folder: Path, run: Run, document: dict[str, Any]) -> None:
    write_json(folder / RESULT, document)
    (folder / CONFIG).write_text(configs.show(run.config), encoding="utf-8")
    write_json(folder / SOURCE, {"config": str(run.config.path.resolve()), "book": str(run.config.book.file or "")})
    (folder / INSTRUMENTS).write_bytes(msgspec.json.format(msgspec.json.encode(list(run.universe)), indent=1))
    book = run.config.book.file
    if book is not None and book.is_file():
        shutil.copyfile(book, folder / ("book" + book.suffix))
    _write_table(folder / SAMPLES, result.sample_columns(run))
    _write_table(folder / HEDGES, result.hedge_columns(run))
    tape = {
        "files": {feed.name: feed.report().files for feed in run.feeds},
        "ranges": [msgspec.to_builtins(item) for item in run.loop.tape.ranges()],
    }
    write_json(folder / TAPE, tape)


def _write_table(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa  # noqa: PLC0415  heavy, and only needed once, at the end
    import pyarrow.parquet as pq  # noqa: PLC0415

    pq.write_table(pa.table(columns), path, compression="zstd")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document and sync it."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


__all__ = ["EvenkeelError", "StoredRun", "execute", "find", "storage_faults", "write_json"]
