"""A sweep is one config run at many points, each a real backtest; law: the same points give the same bytes of results,
whoever ran them, in how many processes, and however often the sweep was interrupted.

A point is a set of values for dotted keys of the config file. Answers are kept as they come (`answers.jsonl`), so that a
sweep run again runs only what is missing; `results.json` and `results.csv` are written from them in the order of the points.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from bot.app import config as configs
from bot.app import runs
from bot.app.config_lab import SweepTable
from bot.app.config_parts import DATA_ROOT
from bot.app.config_text import PREFIX, dotted, literal
from bot.app.export import replacing
from bot.app.report_html import figure
from bot.app.runs import storage_faults
from bot.core.errors import ConfigError, DataError, EvenkeelError
from bot.lab.sweep import Done, Progress, Range, grid, random_points, sweep

Row: TypeAlias = dict[str, Any]
Told: TypeAlias = Callable[[Progress], None]

SCHEMA: Final = 1
FUNCTION: Final = "bot.app.sweeping:backtest_point"
ANSWERS: Final = "answers.jsonl"
RESULTS: Final = "results.json"
TABLE: Final = "results.csv"
MOST_POINTS: Final = 1_000_000
TRIES: Final = 3
"""How often in a row a worker may die without a point having been answered."""
SHOWN: Final = 40
FIGURES: Final = (
    *("total", "cost", "spread_cost", "commission", "impact", "financing", "pnl_std", "max_drawdown", "tail_loss"),
    *("hedge_effectiveness", "trades", "units_traded", "turnover", "orders", "fills"),
)
"""What is kept of each account at each point."""
_DIED: Final = {"BrokenProcessPool", "KilledWorker", "CancelledError"}
_RANGE = re.compile(r"^(?P<low>[^.].*?)\.\.(?P<high>[^:]+)(?P<how>(?::(?:log|whole))*)$")


# --------------------------------------------------------------------------- the words of the command line


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The values of `path=a,b,c` by path; ConfigError for other words. Commas inside brackets and quotes do not part.

    >>> parse_grid(["strategies.0.policy.half_width=5,10"])
    {'strategies.0.policy.half_width': ('5', '10')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        path, equals, values = text.partition("=")
        path = path.strip()
        if not equals or not path or not values.strip():
            raise ConfigError(
                f"--set: expected path=value,value such as strategies.0.policy.half_width=5,10, found {text!r}"
            )
        if path in found:
            raise ConfigError(f"--set: {path}: given twice")
        parts = tuple(part.strip() for part in _parted(values))
        if not all(parts):
            raise ConfigError(f"--set: {path}: expected values between commas, found nothing in {values!r}")
        found[path] = tuple(map(_unquoted, parts))
    return found


def _parted(text: str) -> Iterator[str]:
    depth, quote, start = 0, "", 0
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
        elif sign == "," and not depth:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def parse_random(texts: Sequence[str]) -> dict[str, Range]:
    """The intervals of `path=lo..hi`, `path=lo..hi:log` and `path=lo..hi:whole` by path; ConfigError for other words.

    >>> parse_random(["broker.latency_ms=1..10:whole"])["broker.latency_ms"].whole
    True
    """
    found: dict[str, Range] = {}
    for text in texts:
        path, equals, values = (part.strip() for part in text.partition("="))
        match = _RANGE.match(values)
        if not equals or not path or match is None:
            raise ConfigError(f"--random: expected path=lo..hi, lo..hi:log or lo..hi:whole, found {text!r}")
        if path in found:
            raise ConfigError(f"--random: {path}: given twice")
        how = match["how"].split(":")
        try:
            found[path] = Range(
                low=float(match["low"]), high=float(match["high"]), log="log" in how, whole="whole" in how
            )
        except ValueError as fault:
            raise ConfigError(f"--random: {path}: {fault}") from fault
    return found


def points_of(
    config: configs.Config,
    *,
    sets: Mapping[str, Sequence[str]] | None = None,
    draws: Mapping[str, Range] | None = None,
    count: int | None = None,
    seed: int | None = None,
) -> list[dict[str, str]]:
    """The points asked for, each a value in text by dotted path: every combination of `sets` with each draw of `draws`.

    With neither, those of [sweep]. ConfigError when nothing is swept, or one key both ways.
    """
    table = config.sweep or SweepTable()
    if not sets and not draws:
        sets = {path: [as_text(value) for value in values] for path, values in table.set.items()}
        draws = {p: Range(low=d.low, high=d.high, log=d.log, whole=d.whole) for p, d in table.random.items()}
    sets, draws = dict(sets or {}), dict(draws or {})
    if not sets and not draws:
        raise ConfigError(
            f"{config.path.name}: expected --set path=a,b, --random path=lo..hi or a [sweep] table, found nothing to sweep"
        )
    both = sorted(set(sets) & set(draws))
    if both:
        raise ConfigError(f"sweep: {both[0]}: expected values or an interval, found both")
    number = table.points if count is None else count
    if number < 1:
        raise ConfigError(f"--points: expected 1 or more, found {number}")
    total = math.prod(len(values) for values in sets.values()) * (number if draws else 1)
    if total > MOST_POINTS:
        raise ConfigError(f"sweep: expected at most {MOST_POINTS:,} points, found {total:,}")
    drawn: Sequence[Mapping[str, Any]] = [{}]
    if draws:
        drawn = random_points(draws, number, seed=table.seed if seed is None else seed)
    written = [{path: as_text(value) for path, value in point.items()} for point in drawn]
    return [
        {**combination, **point} for point in written for combination in grid({k: list(v) for k, v in sets.items()})
    ]


def as_text(value: Any) -> str:
    """A value as the environment would give it: a number without an exponent, a list or table as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        value = Decimal(f"{value:.12g}")
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_literal(item)}" for key, item in value.items()) + "}"
    return str(value)


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else as_text(value)


# --------------------------------------------------------------------------- keys


def variable(path: str) -> str:
    """The name of the variable that sets a dotted path. ConfigError for a path no variable can name.

    >>> variable("strategies.0.policy.half_width")
    'EVENKEEL__STRATEGIES__0__POLICY__HALF_WIDTH'
    """
    parts = path.split(".")
    if not all(parts) or "__" in path:
        raise ConfigError(f"sweep: {path!r}: expected a key such as strategies.0.policy.half_width")
    return PREFIX + "__".join(parts).upper()


def check_points(config: configs.Config, points: Sequence[Mapping[str, str]], env: Mapping[str, str]) -> None:
    """ConfigError with every key that does not exist and every value a key refuses, each told once, before anything runs."""
    tried: set[tuple[str, str]] = set()
    faults: list[str] = []
    first = points[0]
    for point in points:
        for path, value in point.items():
            if (path, value) in tried:
                continue
            tried.add((path, value))
            try:
                configs.load_config(config.path, {**env, **_variables({**first, path: value})})
            except ConfigError as fault:
                faults += _lines_on(path, value, str(fault))
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))


def _lines_on(path: str, value: str, text: str) -> list[str]:
    name = variable(path)
    lines = [
        line for line in text.splitlines() if name in line or dotted(tuple(path.split("."))).lower() in line.lower()
    ]
    return [
        f"sweep: {path} = {value}: "
        + re.sub(r"\s*\(given by [A-Z0-9_]+\)", "", line.split(": ", 1)[-1]).removeprefix(f"{path}: ")
        for line in (lines or text.splitlines())
    ]


def _variables(point: Mapping[str, str]) -> dict[str, str]:
    return {variable(path): value for path, value in point.items()}


# --------------------------------------------------------------------------- one point


def backtest_point(arguments: Mapping[str, Any]) -> Row:
    """What a backtest says at one point: figures of every account, and the digest of its facts. What a worker does.

    `arguments`: config (path), config_hash (of the file as the sweep saw it) and env (variables laid over it).
    DataError when the file is no longer what it was.
    """
    bare = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    base, own = dict(arguments["base_env"]), dict(arguments["env"])
    if DATA_ROOT in base and not Path(base[DATA_ROOT]).is_dir():
        del base[DATA_ROOT]  # another machine, whose own variable says where its copy is
    path = Path(arguments["config"])
    if configs.config_hash(configs.load_config(path, {**bare, **base})) != arguments["config_hash"]:
        raise DataError(f"{path.name}: the config or its book has changed since the sweep began")
    config = configs.load_config(path, {**bare, **base, **own})
    _, document, _ = runs.execute(config, store=False)
    return {
        "run_id": document["run_id"],
        "facts_digest": document["facts_digest"],
        "books": {name: figures_of(book) for name, book in document["books"].items()},
        "alarms": len(document["alarms"]),
    }


def figures_of(book: Mapping[str, Any]) -> Row:
    """The figures kept of one account."""
    pnl = book["pnl"]
    flat = {**book, **pnl, "cost": pnl["spread_cost"] + pnl["commission"] + pnl["impact"]}
    return {name: flat[name] for name in FIGURES}


# --------------------------------------------------------------------------- the sweep


def run_sweep(
    config: configs.Config,
    points: Sequence[Mapping[str, str]],
    *,
    folder: Path | None = None,
    workers: int | None = None,
    dask: str | None = None,
    env: Mapping[str, str] | None = None,
    progress: Told | None = None,
    function: str = FUNCTION,
) -> tuple[Row, Path]:
    """The document of a sweep and the folder it is kept in; points whose answers are there already are not run again.

    `env` are the variables the config was read with. A worker that dies costs its point another try. ConfigError for keys
    that do not exist, before anything runs; EvenkeelError when workers keep dying.
    """
    given = os.environ if env is None else env
    laid = {name: value for name, value in given.items() if name.upper().startswith(PREFIX) or name == DATA_ROOT}
    laid.pop(f"{PREFIX}STORAGE__RUNS", None)
    check_points(config, points, {**given})
    place = folder_of(config) if folder is None else folder
    base = {"config": str(config.path), "config_hash": configs.config_hash(config), "base_env": laid, "env": {}}
    asked = [{f"env.{name}": value for name, value in _variables(point).items()} for point in points]
    executor = f"dask:{dask}" if dask is not None else "processes"
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers: expected 1 or more, found {workers}")
    with storage_faults(place):
        place.mkdir(parents=True, exist_ok=True)
        done = _until_done(function, asked, base, place / ANSWERS, executor, workers, progress)
    found = document(config, points, done)
    write_results(found, place)
    return found, place


def folder_of(config: configs.Config) -> Path:
    """Where a config's sweeps are kept: beside its runs, by its name and hash."""
    return config.storage.runs / "sweeps" / f"{config.name}-{configs.config_hash(config)[:10]}"


def _until_done(
    function: str,
    points: Sequence[Mapping[str, Any]],
    base: Mapping[str, Any],
    results: Path,
    executor: str,
    workers: int | None,
    progress: Told | None,
) -> tuple[Done, ...]:
    """Every point's answer, the sweep taken up again when a worker died."""
    answered, deaths = 0, 0

    def told(step: Progress) -> None:
        nonlocal answered, deaths
        if step.done > answered:
            answered, deaths = step.done, 0
        if progress is not None:
            progress(step)

    while True:
        try:
            return sweep(
                function, points, base=base, results=results, executor=executor, workers=workers, progress=told
            )
        except Exception as fault:
            if type(fault).__name__ not in _DIED:
                raise
            deaths += 1
            if deaths >= TRIES:
                raise EvenkeelError(
                    f"sweep: workers died {deaths} times in a row with {answered} of {len(points)} points answered "
                    f"({type(fault).__name__}): too little memory for so many? The answers so far are kept in {results}"
                ) from fault


def document(config: configs.Config, points: Sequence[Mapping[str, str]], done: Sequence[Done]) -> Row:
    """The results in the order of the points, like points once; nothing in it depends on who ran them."""
    answers = {tuple(sorted(item.values.items())): item for item in done}
    rows: list[Row] = []
    seen: set[tuple[tuple[str, str], ...]] = set()
    for point in points:
        key = tuple(sorted((f"env.{name}", value) for name, value in _variables(point).items()))
        if key in seen:
            continue
        seen.add(key)
        item = answers[key]
        row: Row = {"point": {path: read_value(value) for path, value in point.items()}, "fault": item.fault or None}
        rows.append(row | (item.answer or {"run_id": None, "facts_digest": None, "books": {}, "alarms": 0}))
    return {
        "schema": SCHEMA,
        "name": config.name,
        "config_hash": configs.config_hash(config),
        "base_currency": config.session.base_currency,
        "keys": list(points[0]),
        "points": rows,
    }


def read_value(text: str) -> Any:
    """A value's text as JSON has it: a number, true or false, else the text."""
    if text in {"true", "false"}:
        return text == "true"
    try:
        number = Decimal(text)
    except InvalidOperation:
        found = literal(text) if text[:1] in "[{" else text
        return found if isinstance(found, str) else text
    if not number.is_finite():
        return text
    return int(number) if number == number.to_integral_value() and "." not in text else float(number)


def write_results(found: Row, place: Path) -> None:
    """Both files, each whole or not at all; the same results give the same bytes."""
    with replacing(place / RESULTS) as file:
        file.write((json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    with replacing(place / TABLE) as file:
        file.write(csv_of(found).encode())


def csv_of(found: Row) -> str:
    """One line a point and account: the keys, the account, its figures, the fault of a point that has one."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*found["keys"], "account", *FIGURES, "fault"])
    for row in found["points"]:
        values = [row["point"][key] for key in found["keys"]]
        for name, book in row["books"].items():
            writer.writerow([*values, name, *("" if book[key] is None else repr(book[key]) for key in FIGURES), ""])
        if row["fault"]:
            writer.writerow([*values, "", *[""] * len(FIGURES), row["fault"]])
    return out.getvalue()


# --------------------------------------------------------------------------- for a terminal


@contextmanager
def bar_of(name: str, *, quiet: bool, console: Console) -> Iterator[Told | None]:
    """A bar over the points with the time left; a line every tenth of them when it is not a terminal; nothing when quiet."""
    if quiet:
        yield None
        return
    if not console.is_terminal:
        yield _plain(name, console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda step: bar.update(task, completed=step.done, total=step.total)


def _plain(name: str, console: Console) -> Told:
    last = -1

    def told(step: Progress) -> None:
        nonlocal last
        tenth = 10 * step.done // max(step.total, 1)
        if tenth != last:
            last = tenth
            left = "" if step.seconds_left is None else f", about {step.seconds_left:,.0f} s left"
            console.print(f"{name}: {step.done} of {step.total} points{left}", markup=False)

    return told


def render(found: Row, account: str = "dynamic") -> list[Any]:
    """The points as a table, the cheapest at each risk marked, and the faults."""
    rows = [row for row in found["points"] if account in row["books"]]
    if not rows and any(row["books"] for row in found["points"]):
        names = sorted({name for row in found["points"] for name in row["books"]})
        raise ConfigError(f"--account: expected one of {', '.join(names)}, found {account!r}")
    good = efficient_points(rows, account)
    table = Table(
        title=f"{found['name']}: {account} at {len(rows)} points, in {found['base_currency']}", title_justify="left"
    )
    for key in found["keys"]:
        table.add_column(key, justify="right")
    for head in ("cost", "std", "tail loss", "trades", "P&L", ""):
        table.add_column(head, justify="right")
    for row, keep in list(zip(rows, good, strict=True))[:SHOWN]:
        book = row["books"][account]
        table.add_row(
            *(str(row["point"][key]) for key in found["keys"]),
            figure(book["cost"], 2),
            figure(book["pnl_std"], 2),
            figure(book["tail_loss"], 2),
            f"{book['trades']:,}",
            figure(book["total"], 2),
            "*" if keep else "",
        )
    parts: list[Any] = [table, "  *: no other point has both less cost and less risk."]
    if len(rows) > SHOWN:
        parts.append(f"  {len(rows) - SHOWN} more points: {TABLE} has all.")
    parts += [f"  FAULT at {row['point']}: {row['fault']}" for row in found["points"] if row["fault"]]
    return parts


def efficient_points(rows: Sequence[Row], account: str) -> list[bool]:
    """Which points no other beats in cost and risk together; unknown risk is never efficient."""
    from bot.lab.frontier import efficient  # noqa: PLC0415  the lab is imported by those who draw

    def worth(row: Row) -> tuple[float, float]:
        book = row["books"][account]
        return book["cost"], math.inf if book["pnl_std"] is None else book["pnl_std"]

    found = [worth(row) for row in rows]
    return [keep and math.isfinite(pair[1]) for keep, pair in zip(efficient(found), found, strict=True)]
