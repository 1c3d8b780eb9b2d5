"""Laws of the config: whatever is read is shown, read back and hashed alike; whatever is not, is refused in one way."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot.app.config import Config, config_hash, load_config, migrate, show
from bot.app.config_text import Word, dotted, literal, overlay, to_toml
from bot.core.errors import ConfigError
from bot.domain.units import iso, span

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
leaves = (
    st.integers(-(2**62), 2**62)
    | st.floats(-1e250, 1e250, allow_subnormal=False)
    | st.booleans()
    | texts
    | st.lists(st.integers(-5, 5), max_size=3)
)
trees: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    texts,
    st.recursive(leaves, lambda inner: st.dictionaries(texts, inner, max_size=3) | st.lists(inner, max_size=3)),
    max_size=5,
)

instants = st.integers(0, 4_000_000_000).map(lambda s: s * 1_000_000_000)
runs = st.fixed_dictionaries(
    {
        "schema_version": st.just(1),
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
        "session": st.builds(
            lambda start, length, grid: {
                "start": iso(start),
                "end": iso(start + length * 60_000_000_000),
                "report_grid": span(min(grid, length) * 60_000_000_000),
                "effectiveness_interval": "1m",
            },
            instants,
            st.integers(1, 100_000),
            st.integers(1, 1_000),
        ),
        "feeds": st.lists(
            st.fixed_dictionaries(
                {
                    "kind": st.just("synthetic"),
                    "seed": st.integers(0, 2**63 - 1),
                    "vol": st.floats(0.001, 10),
                    "step": st.sampled_from(["1s", "250ms", "1m"]),
                    "pace": st.sampled_from(["max", "1x", "60x", "0.5x"]),
                }
            ),
            min_size=1,
            max_size=1,
        ),
        "book": st.just({"file": "book.csv"}),
        "hedges": st.lists(
            st.fixed_dictionaries(
                {
                    "underlying": st.from_regex(r"[A-Z]{1,5}:[A-Z0-9]{1,8}", fullmatch=True),
                    "instrument": st.just("SIM:XYZ"),
                    "target_delta": st.floats(-1e9, 1e9, allow_subnormal=False) | st.just([-5, 5]),
                    "lot": st.decimals("0.001", "1000", places=3),
                }
            ),
            max_size=4,
            unique_by=lambda hedge: str(hedge["underlying"]),
        ),
        "strategies": st.just([{"kind": "delta_hedger", "policy": {"kind": "none"}}]),
        "broker": st.fixed_dictionaries(
            {"kind": st.just("venue"), "options": st.dictionaries(st.text("abcde ", min_size=1, max_size=4), leaves)}
        ),
    }
)


def loaded(tree: Mapping[str, Any] | str, env: Mapping[str, str] | None = None) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "book.csv").write_text("instrument,quantity\n")
        path = Path(folder) / "run.toml"
        path.write_text(tree if isinstance(tree, str) else to_toml(tree), newline="")
        return load_config(path, env or {})


def same(a: Config, b: Config) -> bool:
    """True when both agree in everything but where their files lie."""
    shown = [config.model_dump(exclude={"book": {"file"}, "storage": {"runs"}}) for config in (a, b)]
    return shown[0] == shown[1]


@given(trees)
@example({"a": [{}], "b": {"": {"x": [[1, 2], []]}}})
def test_toml_written_is_toml_read(tree: dict[str, Any]) -> None:
    """Any tables of plain values read back as they were written."""
    assert tomllib.loads(to_toml(tree)) == tree


@settings(max_examples=30)
@given(runs)
def test_what_show_prints_is_the_same_run(run: dict[str, Any]) -> None:
    """A shown config loads to an equal one, and shows the same again."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "book.csv").write_text("instrument,quantity\n")
        path = Path(folder) / "run.toml"
        path.write_text(to_toml(run), newline="")
        first = load_config(path, {})
        path.write_text(show(first), newline="")
        second = load_config(path, {})
        assert first == second
        assert config_hash(first) == config_hash(second)
        assert show(first) == show(second)


@settings(max_examples=20)
@given(runs, st.integers(0, 2**62))
def test_an_override_is_what_the_file_would_have_said(run: dict[str, Any], seed: int) -> None:
    """A key given by the environment resolves to the config of a file that says the same."""
    over = loaded(run, {"EVENKEEL__FEEDS__0__SEED": str(seed)})
    run["feeds"][0]["seed"] = seed
    assert same(over, loaded(run))


@settings(max_examples=50)
@given(st.text(max_size=100))
def test_any_text_is_a_config_or_one_clear_refusal(text: str) -> None:
    """Whatever a file holds, reading it gives a config or a ConfigError, and nothing else."""
    try:
        loaded(text.encode("utf-8", "replace").decode())
    except ConfigError as fault:
        assert str(fault)


@settings(max_examples=30)
@given(runs, trees)
def test_any_tree_beside_a_good_one_is_refused_by_key(run: dict[str, Any], tree: dict[str, Any]) -> None:
    """Keys that are not ours are each refused by name; nothing unknown slips in."""
    unknown = {key: value for key, value in tree.items() if key not in Config.model_fields}
    if not unknown:
        return
    try:
        loaded({**run, **unknown})
    except ConfigError as fault:
        for key in unknown:
            assert f"{key}: unknown key" in str(fault)
    else:
        raise AssertionError("an unknown key was accepted")


@given(st.dictionaries(st.text("ABC019_ é", max_size=12).map("EVENKEEL__".__add__), st.text(max_size=8), max_size=5))
def test_any_environment_fits_or_is_told(env: dict[str, str]) -> None:
    """Each variable that begins as an override sets a key or is a fault, and never raises."""
    data: dict[str, Any] = {"a": {"b": 1}, "c": [1]}
    sources, faults = overlay(data, env)
    assert set(sources.values()) | {
        word for name in env for fault in faults if name in fault.text for word in [name]
    } == (set(env))
    assert all(isinstance(dotted(key), str) for key in sources)


@given(st.integers() | st.decimals(allow_nan=False, allow_infinity=False, places=4) | st.booleans())
def test_a_word_keeps_its_value(value: int | Decimal | bool) -> None:
    """A number or flag written as a word is read as that number or flag; other text stays text."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    assert literal(Word(text)) == value
    assert literal(Word("it's " + text)) == "it's " + text


@given(st.text("abc=# \n[]'\"1", max_size=40))
def test_migration_adds_the_version_and_nothing_else(text: str) -> None:
    """A migrated file is the old tables with the version, or is refused as no TOML; migrating twice changes nothing."""
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    new, _ = migrate(text)
    assert tomllib.loads(new) == {**before, "schema_version": 1}
    assert migrate(new) == (new, [])
