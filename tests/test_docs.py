"""A page is part of the program; law: what it shows runs, what it types parses, what it links or names exists."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import typer.main

from bot.app import config as configs
from bot.app import runs
from bot.app.cli import app
from tests.realdata import lean_root

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
PACKAGES = ("bot", "adapters", "strategies")
TOP = ("bot", "adapters", "strategies", "tests", "config", "docs", "examples", "benchmarks")
RECORDED = ("es_day", "goog_day")
"""Configs that need a recorded day: their commands are parsed, not run."""

FENCE = re.compile(r"^( *)```(.*)$")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(rf"`((?:{'|'.join(TOP)})/[\w./-]*)`")
ASSIGNMENT = re.compile(r"^[A-Z_][A-Z0-9_]*=")
OVERRIDE = re.compile(r"EVENKEEL(?:__[A-Z0-9_]+?)+(?==|\b)")

USAGE_FAULT: Any = typer.BadParameter.__mro__[1]
"""The usage error of the command parser that typer brings."""


class Block(NamedTuple):
    """A fenced block of a page: the line its text starts on, the words after the fence, the text."""

    page: Path
    line: int
    words: tuple[str, ...]
    text: str


class Command(NamedTuple):
    """One `evenkeel` or `cd` line of a page, with the variables set before it."""

    line: int
    env: dict[str, str]
    words: list[str]


def read_blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    start: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if fence is None:
            lines.append(line)
        elif start is None:
            start, lines = (number, fence[1], fence[2]), []
        else:
            began, indent, words = start
            text = "\n".join(item.removeprefix(indent) for item in lines) + "\n"
            found.append(Block(page, began, tuple(words.split()), text))
            start = None
    assert start is None, f"{page.name}:{start}: a fence is not closed"
    return found


def blocks_of(page: Path, *languages: str) -> list[Block]:
    chosen = [block for block in read_blocks(page) if block.words[:1] and block.words[0] in languages]
    return [block for block in chosen if "no-run" not in block.words]


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"))


def commands_of(page: Path) -> list[Command]:
    found: list[Command] = []
    for block in read_blocks(page):
        if block.words[:1] not in {("console",), ("bash",), ("sh",)}:
            continue
        for number, line in enumerate(block.text.replace("\\\n", " ").splitlines(), start=block.line + 1):
            if block.words[0] == "console" and not line.startswith("$ "):
                continue
            found += split_line(line.removeprefix("$ "), number)
    return found


def split_line(line: str, number: int) -> Iterator[Command]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("&|;>"):
            words.append(word)
            continue
        env: dict[str, str] = {}
        while words and ASSIGNMENT.match(words[0]):
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        if words and (Path(words[0]).name == "evenkeel" or words[0] == "cd"):
            yield Command(number, env, words)
        words = []


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages_with(*languages: str) -> list[Any]:
    return [pytest.param(page, id=named(page)) for page in PAGES if blocks_of(page, *languages)]


# --------------------------------------------------------------------------- what is shown runs


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """The Python blocks of a page run in their order, in one namespace."""
    module = ModuleType("page_" + re.sub(r"\W", "_", named(page)))
    sys.modules[module.__name__] = module
    try:
        with contextlib.chdir(tmp_path):
            for block in blocks_of(page, "python"):
                code = compile("\n" * block.line + block.text, str(page), "exec")
                exec(code, module.__dict__)  # noqa: S102  the pages are ours
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize("page", [pytest.param(page, id=named(page)) for page in PAGES if commands_of(page)])
def test_the_commands_of_a_page_parse(page: Path) -> None:
    """Every `evenkeel` command that a page types has known verbs, arguments and options."""
    for command in commands_of(page):
        if command.words[0] != "cd":
            parse(command.words[1:], f"{page.name}:{command.line}")


def parse(words: list[str], where: str) -> None:
    verb: Any = typer.main.get_command(app)
    name = "evenkeel"
    while hasattr(verb, "commands"):
        assert words and words[0] in verb.commands, f"{where}: {name} has no verb {words[:1]}"
        name, words = words[0], words[1:]
        verb = verb.commands[name]
    try:
        verb.make_context(name, list(words))
    except USAGE_FAULT as fault:
        raise AssertionError(f"{where}: {name}: {fault}") from fault


def is_runnable(command: Command) -> bool:
    text = " ".join(command.words)
    placeholder = any(word.isupper() and word.isalpha() for word in command.words[1:])
    return not placeholder and "EVENKEEL_DATA" not in command.env and not any(name in text for name in RECORDED)


def run_pages() -> list[Any]:
    """Pages whose commands are run: the front door and the worked example."""
    return [pytest.param(ROOT / name, id=name) for name in ("README.md", "docs/worked_example.md", "docs/index.md")]


@pytest.mark.parametrize("page", run_pages())
def test_the_commands_of_the_front_door_work(page: Path, tmp_path: Path) -> None:
    """The commands of the front pages that need no recorded data end well, in their order."""
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=shutil.ignore_patterns("runs"))
    here = tmp_path
    ran = 0
    for command in commands_of(page):
        if command.words[0] == "cd":
            here = here / command.words[1]
        elif is_runnable(command):
            done = subprocess.run(
                [sys.executable, "-m", "bot.app.cli", *command.words[1:]],
                cwd=here,
                env=clean_environment() | command.env,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{page.name}:{command.line}: {' '.join(command.words)}: {done.stderr}"
            ran += 1
    assert ran


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EVENKEEL")}


def modules() -> list[str]:
    found: list[str] = []
    for package in PACKAGES:
        found.append(package)
        found += [item.name for item in pkgutil.walk_packages([str(ROOT / package)], package + ".")]
    return found


def test_docstring_examples_hold() -> None:
    """The examples in docstrings of every module give what they say."""
    tried = 0
    for name in modules():
        result = doctest.testmod(importlib.import_module(name))
        assert not result.failed, f"{name}: {result.failed} docstring examples give something else"
        tried += result.attempted
    assert tried >= 20


# --------------------------------------------------------------------------- what is named exists


@pytest.mark.parametrize("page", [pytest.param(page, id=named(page)) for page in PAGES])
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    """Relative links lead to files and headings that exist, and so do paths of the project named in the text."""
    prose = prose_of(page)
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, heading = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), f"{named(page)}: link to {target}: nothing there"
        assert ROOT in (place, *place.parents), f"{named(page)}: link to {target}: outside of the project"
        assert not heading or heading in headings(place), f"{named(page)}: no heading {target}"
    if page.name == "CHANGELOG.md":
        return  # a changelog may name what was removed since
    for path in PATH.findall(prose):
        assert (ROOT / path).exists(), f"{named(page)}: {path}: no such file in the project"


def headings(page: Path) -> set[str]:
    titles = re.findall(r"(?m)^#+ (.+)$", prose_of(page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_index() -> None:
    """The index links every page of the documentation."""
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in LINK.findall(index.read_text("utf-8"))}
    missing = [named(page) for page in (ROOT / "docs").rglob("*.md") if page != index and page not in linked]
    assert not missing


def test_every_verb_is_in_the_readme() -> None:
    """The README's table names every verb of the command line, and no other."""
    root: Any = typer.main.get_command(app)
    known = set(verbs(root.commands))
    section = (ROOT / "README.md").read_text("utf-8").split("## Verbs", 1)[1].split("\n## ", 1)[0]
    told = {
        " ".join(word for word in cell.split() if word.islower()) for cell in re.findall(r"(?m)^\| `([^`]+)`", section)
    }
    assert told == known


def verbs(commands: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, command in commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command.commands, f"{above}{name} ")
        else:
            yield above + name


# --------------------------------------------------------------------------- keys


def has_key(node: Any, path: list[str], definitions: Mapping[str, Any]) -> bool:
    """True when a place of a config file exists in its schema."""
    if not path:
        return True
    if not isinstance(node, dict):
        return node is True
    variants = [*node.get("oneOf", ()), *node.get("anyOf", ()), *node.get("allOf", ())]
    if "$ref" in node:
        variants.append(definitions[node["$ref"].rsplit("/", 1)[1]])
    if any(has_key(variant, path, definitions) for variant in variants):
        return True
    head, rest = path[0], path[1:]
    if head in node.get("properties", {}) and has_key(node["properties"][head], rest, definitions):
        return True
    if "items" in node and has_key(node["items"], rest if head.isdigit() else path, definitions):
        return True
    free = node.get("type") == "object" and "properties" not in node
    extra = node.get("additionalProperties", free)
    return extra is not False and has_key(extra, rest, definitions)


def leaves(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from leaves(value, (*above, name))
    elif isinstance(tree, list) and tree and all(isinstance(item, dict) for item in tree):
        for item in tree:
            yield from leaves(item, above)
    else:
        yield above


def place_exists(path: list[str]) -> bool:
    schema = configs.schema()
    return has_key(schema, path, schema["$defs"])


def all_keys() -> set[str]:
    schema = configs.schema()
    tables = [schema, *schema["$defs"].values()]
    return {name for table in tables for name in table.get("properties", {})}


@pytest.mark.parametrize("page", pages_with("toml"))
def test_the_config_tables_of_a_page_are_of_the_schema(page: Path) -> None:
    """Every key in a TOML block of a page is a key a config file may hold."""
    for block in blocks_of(page, "toml"):
        tree = tomllib.loads(block.text)
        if "project" in tree:
            continue  # a plug-in's pyproject
        for path in leaves(tree):
            assert place_exists(list(path)), f"{named(page)}:{block.line}: no key {'.'.join(path)}"


def test_a_key_that_does_not_exist_is_noticed() -> None:
    """The walk through the schema knows lists, tables and free tables apart from keys that are made up."""
    assert place_exists(["feeds", "0", "seed"])
    assert place_exists(["broker", "commission", "0", "amount"])
    assert place_exists(["broker", "options", "anything"])
    assert not place_exists(["broker", "commision", "0", "amount"])
    assert not place_exists(["feeds", "0", "sede"])


def test_the_keys_of_the_config_page_exist() -> None:
    """Sections, keys and overrides that the config page names in its text are in the schema."""
    prose = prose_of(ROOT / "docs" / "config.md")
    sections = re.findall(r"`\[+([a-z_.]+)\]+`", prose)
    keys = re.findall(r"`(?:\[[a-z_.]+\] )?([a-z_]+) = ", prose)
    assert len(sections) >= 10 and len(keys) >= 3
    for section in sections:
        assert place_exists(section.split(".")), f"no section [{section}]"
    own = {"token", "password", "key"}  # words of a plug-in's own table
    for key in keys:
        assert key in all_keys() | own, f"no key {key}"


def test_overrides_named_in_pages_exist() -> None:
    """Every EVENKEEL__A__B that a page or a shipped config names is a place in a config file."""
    files = [*PAGES, *sorted((ROOT / "config").glob("*.toml"))]
    found = {match for file in files for match in OVERRIDE.findall(file.read_text("utf-8")) if match.count("__") > 1}
    found -= {"EVENKEEL__A__B"}  # the form, not a key
    assert found
    for name in found:
        path = name.lower().split("__")[1:]
        assert place_exists(path), f"{name}: no such place in a config file"


def test_the_option_table_of_the_formats_page_exists() -> None:
    """Every option in the first table of the formats page is a key of a replay feed."""
    table = (ROOT / "docs" / "formats.md").read_text("utf-8").split("\n\n| option |", 1)[1].split("\n\n", 1)[0]
    named_options = [word for cell in re.findall(r"(?m)^\| (`[^|]+)\|", table) for word in re.findall(r"`(\w+)`", cell)]
    assert len(named_options) >= 10
    for option in named_options:
        assert option in configs.schema()["$defs"]["ReplayFeed"]["properties"], option


# --------------------------------------------------------------------------- the result document


def documented_keys() -> dict[str, Any]:
    """The keys of docs/results.md as a tree; `<name>` stands for any key, `[]` for each item of a list."""
    tree: dict[str, Any] = {}
    text = (ROOT / "docs" / "results.md").read_text("utf-8").split("## The stored run", 1)[0]
    for cell in re.findall(r"(?m)^\| (`[^|]+)\|", text):
        for path in re.findall(r"`([^`]+)`", cell):
            node = tree
            for word in path.replace("[]", ".[]").split("."):
                node = node.setdefault(word, {})
    return tree


def compare(value: Any, tree: Mapping[str, Any], where: str) -> Iterator[str]:
    """Where a document and its documentation differ."""
    if not tree:
        if isinstance(value, dict) and value and not where.endswith(">"):
            yield f"{where}: its keys are not documented"
        return
    if isinstance(value, list):
        for item in value:
            yield from compare(item, tree.get("[]", {}), where + "[]")
        return
    if value is None:
        return
    assert isinstance(value, dict), where
    wild = next((name for name in tree if name.startswith("<")), None)
    if wild is not None:
        for item in value.values():
            yield from compare(item, tree[wild], f"{where}.{wild}")
        return
    for name in sorted(set(value) | set(tree)):
        if name not in tree:
            yield f"{where}.{name}: not documented"
        elif name not in value:
            yield f"{where}.{name}: documented, not there"
        else:
            yield from compare(value[name], tree[name], f"{where}.{name}")


def test_the_result_page_names_every_key_of_a_result() -> None:
    """The results page documents every key of a result document and no key that is not there."""
    config = configs.load_config(ROOT / "config" / "market_maker_example.toml", {})
    _, document, _ = runs.execute(config, store=False)
    assert sorted(compare(document, documented_keys(), "result")) == []


def test_the_result_page_names_every_file_of_a_stored_run(tmp_path: Path) -> None:
    """The results page lists the files of a stored run, all of them."""
    env = {"EVENKEEL__STORAGE__RUNS": str(tmp_path)}
    config = configs.load_config(ROOT / "config" / "market_maker_example.toml", env)
    _, _, folder = runs.execute(config)
    assert folder is not None
    section = (ROOT / "docs" / "results.md").read_text("utf-8").split("## The stored run", 1)[1].split("\n## ", 1)[0]
    listed = {name for cell in re.findall(r"(?m)^\| (`[^|]+)\|", section) for name in re.findall(r"`([^`]+)`", cell)}
    assert {file.name for file in folder.iterdir()} == listed - {"report.html", "book.json"}


@pytest.mark.real
def test_the_day_of_the_readme_is_as_told() -> None:
    """The README's table of the ES day holds the numbers that its config gives on the recorded day."""
    env = {"EVENKEEL_DATA": str(lean_root())}
    _, document, _ = runs.execute(configs.load_config(ROOT / "config" / "es_day.toml", env), store=False)
    told: dict[str, list[float]] = {}
    for line in (ROOT / "README.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in document["books"] and len(cells) == 6:
            told[cells[0]] = [float(cell.replace(",", "")) for cell in cells[1:]]
    parts = ("total", "options", "hedge", "spread_cost")
    found = {name: [*(book["pnl"][part] for part in parts), book["trades"]] for name, book in document["books"].items()}
    assert told == found
    gap = found["static"][0] - found["dynamic"][0]
    assert f"static won by {gap:,.2f}" in (ROOT / "README.md").read_text("utf-8").replace("\n", " ")
