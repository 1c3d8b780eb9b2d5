"""Reading a run from TOML: every fault at once, the environment over the file, secrets apart, one hash per run."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.dataset import DatasetOptions
from adapters.formats.options import ReplayOptions
from adapters.line import LineOptions
from adapters.paper import PaperOptions
from adapters.scenario import ScenarioOptions
from adapters.synthetic import SyntheticFeed as SyntheticFeedAdapter
from adapters.synthetic import SyntheticOptions
from bot.app.book_file import load_book
from bot.app.config import (
    Config,
    DeltaBandPolicy,
    ReplayFeed,
    SyntheticFeed,
    broker_settings,
    check,
    config_hash,
    example_names,
    example_path,
    feed_settings,
    load_config,
    migrate,
    reveal,
    schema,
    show,
)
from bot.app.config_text import to_toml
from bot.core.errors import ConfigError
from bot.domain.units import NS_PER_MINUTE, parse_instant

GOOD = """
schema_version = 1
name = "test"

[session]
start = "2025-03-03T14:30:00Z"
end = "2025-03-03T21:00:00Z"

[[feeds]]
kind = "synthetic"

[book]
file = "book.csv"

[[hedges]]
underlying = "SIM:XYZ"
instrument = "SIM:XYZ"

[[strategies]]
kind = "delta_hedger"
[strategies.policy]
kind = "delta_band"
half_width = 10
"""


def write(folder: Path, text: str = GOOD) -> Path:
    (folder / "book.csv").write_text("instrument,quantity\nSIM:XYZ,1\n")
    path = folder / "run.toml"
    path.write_text(text)
    return path


def read(folder: Path, text: str = GOOD, env: Mapping[str, str] | None = None, *, files: bool = True) -> Config:
    return load_config(write(folder, text), env or {}, files=files)


def faults(folder: Path, text: str, env: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        read(folder, text, env)
    prefix = f"{folder / 'run.toml'}: "
    lines = str(refused.value).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    for word in ("pydantic", "Input should", "validation error", "NoneType", "tuple", "dict"):
        assert word not in str(refused.value)
    return [line.removeprefix(prefix) for line in lines]


def only_fault(folder: Path, old: str, new: str) -> str:
    assert old in GOOD
    lines = faults(folder, GOOD.replace(old, new))
    assert len(lines) == 1, lines
    return lines[0]


def test_a_good_file_is_resolved_with_its_defaults(tmp_path: Path) -> None:
    """A short file gives typed values, with every key it leaves out at its documented default."""
    config = read(tmp_path)
    assert config.session.start == parse_instant("2025-03-03T14:30:00Z")
    assert config.session.report_grid == NS_PER_MINUTE
    assert config.book.file == tmp_path / "book.csv"
    assert config.storage.runs == tmp_path / "runs"
    assert config.hedges[0].target_delta == (0.0, 0.0)
    assert config.strategies[0].policy == DeltaBandPolicy(kind="delta_band", half_width=10.0)
    assert config.path == tmp_path / "run.toml"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("schema_version = 1\n", "", "schema_version: required, but absent"),
        ("schema_version = 1\n", "schema_version = 2\n", "schema_version: expected 1, the one this"),
        ("schema_version = 1\n", "schema_version = true\n", "schema_version: expected 1"),
        ('name = "test"', "name = 3", "name: expected a text, found 3"),
        ('name = "test"', 'name = "../x"', "name: expected a text like"),
        ('name = "test"', 'name = "test"\nbrokr = 1', "brokr: unknown key; did you mean 'broker'?"),
        ("14:30:00Z", "14:30:00", "session.start: expected an instant with its zone"),
        ("2025-03-03T14:30:00Z", "2025-02-30T14:30:00Z", "session.start: expected an instant that exists"),
        ('start = "2025-03-03T14:30:00Z"', "start = 2025-03-03T14:30:00", "session.start: expected an instant with"),
        ("21:00:00Z", "14:30:00Z", "session.end: expected an instant after session.start 2025-03-03T14:30:00Z"),
        ('kind = "synthetic"', 'kind = "synthetic"\nstepp = "1s"', "feeds.0.stepp: unknown key; did you mean 'step'?"),
        ('kind = "synthetic"', 'kind = "synthetic"\nstep = 1', "feeds.0.step: expected a length of time such as"),
        ('kind = "synthetic"', 'kind = "synthetic"\nstep = "0s"', "feeds.0.step: expected a length of time from 1ms"),
        ('kind = "synthetic"', 'kind = "synthetic"\nvol = "0.2"', "feeds.0.vol: expected a number, found the text"),
        ('kind = "synthetic"', 'kind = "synthetic"\nvol = 1e999', "feeds.0.vol: expected a finite number"),
        ('kind = "synthetic"', 'kind = "synthetic"\nvol = nan', "feeds.0.vol: expected a finite number"),
        ('kind = "synthetic"', 'kind = "synthetic"\nvol = -0.2', "feeds.0.vol: expected more than 0, found -0.2"),
        ('kind = "synthetic"', 'kind = "synthetic"\nvol = true', "feeds.0.vol: expected a number, found true"),
        ('kind = "synthetic"', 'kind = "synthetic"\nseed = 1.5', "feeds.0.seed: expected a whole number, found 1.5"),
        ('kind = "synthetic"', 'kind = "synthetic"\npace = "fast"', "feeds.0.pace: expected 'max', or a pace"),
        ('kind = "synthetic"', 'kind = "synthetic"\n[feeds.heston]', "feeds.0.heston: expected only with model"),
        ('kind = "synthetic"', 'kind = "synthetik"\nvol = 1', "feeds.0.vol: unknown key; kind 'synthetik' is"),
        ('kind = "synthetic"', 'vol = 1', "feeds.0.kind: required, but absent"),
        ("book.csv", "other.csv", "book.file: expected a file, found nothing at"),
        ("half_width = 10", "half_width = -1", "strategies.0.policy.half_width: expected at least 0, found -1"),
        ("half_width = 10", "halfwidth = 1\nhalf_width = 1", "strategies.0.policy.halfwidth: unknown key; did you"),
        ("half_width = 10", 'half_width = 1\nto = "middle"', "strategies.0.policy.to: expected 'edge' or"),
        ("[book]", '[pricing]\nvol = "fixed"\n[book]', "pricing.vol_value: required when vol = 'fixed', but absent"),
        ("[book]", "[pricing]\nvol_value = 0.2\n[book]", "pricing.vol_value: expected only with vol = 'fixed', found"),
        ("[book]", '[pricing]\npricer = "table"\n[book]', "pricing.table: required when pricer = 'table', but absent"),
        ("[book]", "[pricing]\nrate = 5\n[book]", "pricing.rate: expected at most 1, found 5"),
        ("[book]", '[broker]\nkind = "paper"\nlatency = "2d"\n[book]', "broker.latency: expected a length of time"),
        ("[book]", '[broker]\nkind = "paper"\nmargin = 1\n[book]', "broker.margin: expected true or false, found 1"),
        ("[book]", 'limits = 3\n[book]', "feeds.0.limits: unknown key"),
        ("[[hedges]]", '[[hedges]]\nbeta = 0', "hedges.0.beta: expected a number that is not zero"),
        ("[[hedges]]", '[[hedges]]\ntarget_delta = [2, 1]', "hedges.0.target_delta: expected [lowest, highest]"),
        ("[[hedges]]", '[[hedges]]\nunderlying = "SIM:XYZ"\ninstrument = "A"\n[[hedges]]', "hedges.1.underlying: "),
        ("[[hedges]]", '[[hedges]]\nspread = {kind = "fixed"}', "hedges.0.spread.half: required when kind = 'fixed'"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_key_expectation_and_finding(tmp_path: Path, old: str, new: str, fault: str) -> None:
    """One faulty key gives one line that names the file, the dotted key, what was expected and what was found."""
    assert only_fault(tmp_path, old, new).startswith(fault)


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Faults of several sections, sorts and of the environment come together, one line each."""
    text = GOOD.replace("schema_version = 1\n", "").replace("14:30:00Z", "14:30:00").replace("book.csv", "no.csv")
    text += "\n[broker]\nkind = 'paper'\ncommission = [{kind = 'per_contract', rat = 1}]\n[limts]\n"
    keys = [line.split(":")[0] for line in faults(tmp_path, text, {"EVENKEEL__PRICING__RATE": "high"})]
    assert keys == [
        "book.file",
        "broker.commission.0.rat",
        "broker.commission.0.rate",
        "limts",
        "pricing.rate",
        "schema_version",
        "session.start",
    ]


def test_text_that_is_not_toml_is_told_with_line_and_column(tmp_path: Path) -> None:
    """A syntax fault names line and column; bytes that are not UTF-8, a folder and a missing file are told as such."""
    assert "line 3" in faults(tmp_path, "a = 1\nb = 2\nc = = 3\n")[0]
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    for path, words in (
        (tmp_path / "latin.toml", "expected UTF-8 text, found byte 0xe9"),
        (tmp_path, "expected a config file, found a folder"),
        (tmp_path / "none.toml", "expected a config file, found nothing"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_config(path, {})


@pytest.mark.parametrize("number", ["1e99999999999999999999", "1" * 5000, "-1e400", "1e-400"])
def test_numbers_beyond_every_range_are_refused(tmp_path: Path, number: str) -> None:
    """A number no float can hold is a fault of the file, never an infinity, a silent zero or a crash."""
    assert faults(tmp_path, GOOD.replace("half_width = 10", f"half_width = {number}"))


def test_the_environment_overrides_keys_and_list_places(tmp_path: Path) -> None:
    """EVENKEEL__A__B sets a key whatever its case, by place in a list, adds one after the last, and keeps types."""
    env = {
        "EVENKEEL__FEEDS__0__SEED": "7",
        "EVENKEEL__feeds__0__vol": "0.35",
        "EVENKEEL__NAME": "123",
        "EVENKEEL__BROKER__KIND": "paper",
        "EVENKEEL__BROKER__MARGIN": "true",
        "EVENKEEL__BROKER__COMMISSION__0__KIND": "per_ticket",
        "EVENKEEL__BROKER__COMMISSION__0__AMOUNT": "0.10",
        "EVENKEEL__HEDGES__0__TARGET_DELTA": "[-5, 5]",
        "OTHER": "x",
    }
    config = read(tmp_path, env=env)
    feed = config.feeds[0]
    assert isinstance(feed, SyntheticFeed)
    assert (feed.seed, feed.vol, config.name) == (7, 0.35, "123")
    assert config.hedges[0].target_delta == (-5.0, 5.0)
    assert broker_settings(config)["commissions"]["*"]["parts"][0]["amount"] == Decimal("0.10")
    assert broker_settings(config)["margin"] == {}


def test_a_fault_of_the_environment_names_its_variable(tmp_path: Path) -> None:
    """A bad override is told with its key and the variable it came from; one that fits nowhere too."""
    lines = faults(
        tmp_path, GOOD, {"EVENKEEL__FEEDS__0__SEED": "x", "EVENKEEL__FEEDS__5__SEED": "1", "EVENKEEL__": "1"}
    )
    assert lines == [
        "EVENKEEL__: expected EVENKEEL__SECTION__KEY, found an empty part",
        "feeds.0.seed: expected a number, found the text 'x' (given by EVENKEEL__FEEDS__0__SEED)",
        "feeds.5: EVENKEEL__FEEDS__5__SEED: expected a place from 0 to 1, found '5'",
    ]


LEAN = GOOD.replace('kind = "synthetic"', 'kind = "replay"\nformat = "lean"\ndates = ["2020-01-06"]')


def test_recorded_days_come_from_the_variable_or_the_file(tmp_path: Path) -> None:
    """Without a root the data folder is EVENKEEL_DATA, whose name the fault tells when it is absent or wrong."""
    (told,) = faults(tmp_path, LEAN)
    assert told.startswith("feeds.0.root: expected a folder")
    assert "EVENKEEL_DATA" in told
    (told,) = faults(tmp_path, LEAN, {"EVENKEEL_DATA": str(tmp_path / "none")})
    assert told.startswith("feeds.0.root: expected a folder, found nothing at")
    config = read(tmp_path, LEAN, {"EVENKEEL_DATA": str(tmp_path)})
    assert feed_settings(config.feeds[0], config)["root"] == str(tmp_path)
    (tmp_path / "days").mkdir()
    config = read(tmp_path, LEAN.replace("[book]", 'root = "days"\n[book]'), {"EVENKEEL_DATA": "/elsewhere"})
    feed = config.feeds[0]
    assert isinstance(feed, ReplayFeed)
    assert feed.root == tmp_path / "days"


def test_a_day_named_twice_or_never_is_refused(tmp_path: Path) -> None:
    """Format lean needs at least one recorded day, and each of them once."""
    env = {"EVENKEEL_DATA": str(tmp_path)}
    assert faults(tmp_path, LEAN.replace('"2020-01-06"', ""), env)[0].startswith("feeds.0.dates: expected at least one")
    (told,) = faults(tmp_path, LEAN.replace('"2020-01-06"', '"2020-01-06", "2020-01-06"'), env)
    assert told.startswith("feeds.0.dates.1: expected each date once, found 2020-01-06 again")


def test_files_of_a_feed_are_relative_to_the_config(tmp_path: Path) -> None:
    """The files of a csv feed are found beside the config; each missing one is told by its place."""
    text = GOOD.replace('kind = "synthetic"', 'kind = "replay"\nformat = "csv"\nfiles = ["book.csv", "none.csv"]')
    (told,) = faults(tmp_path, text)
    assert told.startswith("feeds.0.files.1: expected a file, found nothing at")
    config = read(tmp_path, text.replace(', "none.csv"', ""))
    assert feed_settings(config.feeds[0], config)["files"] == (str(tmp_path / "book.csv"),)


PLUGIN = (
    GOOD + '\n[broker]\nkind = "venue"\n[broker.options]\nkey = {secret = "venue_key"}\nfile = {path = "a/b.csv"}\n'
)
SECRETS = '\n[secrets]\nnames = ["venue_key"]\n'


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """A named secret is read from its variable, else from the file of its name, and is absent from show and hash."""
    text = PLUGIN + SECRETS
    first = read(tmp_path, text, {"EVENKEEL_SECRET__VENUE_KEY": "s3cr3t"})
    assert first.secret("venue_key").get_secret_value() == "s3cr3t"
    assert broker_settings(first)["key"].get_secret_value() == "s3cr3t"
    assert broker_settings(first)["file"] == str(tmp_path / "a" / "b.csv")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "venue_key").write_text("other\n")
    second = read(tmp_path, text + 'dir = "keys"\n')
    third = read(tmp_path, text, {"EVENKEEL_SECRETS_DIR": str(tmp_path / "keys")})
    assert second.secret("venue_key") == third.secret("venue_key")
    assert second.secret("venue_key").get_secret_value() == "other"
    assert config_hash(first) == config_hash(second)
    assert "# secret venue_key: set" in show(first)
    assert "s3cr3t" not in show(first) + repr(first) + json.dumps(first.model_dump(mode="json"), default=str)


def test_a_secret_that_is_absent_or_written_out_is_refused(tmp_path: Path) -> None:
    """A secret without a value names variable and file; one written into the config is refused and not repeated."""
    (told,) = faults(tmp_path, PLUGIN + SECRETS)
    assert "EVENKEEL_SECRET__VENUE_KEY" in told
    text = GOOD + '\n[broker]\nkind = "venue"\n[broker.options.login]\napi_key = "hunter2"\n'
    (told,) = faults(tmp_path, text)
    assert told.startswith("broker.options.login.api_key: a secret is never written here")
    assert "hunter2" not in told
    with pytest.raises(ConfigError, match="secret 'venue_key': expected it in"):
        reveal({"key": {"secret": "venue_key"}}, read(tmp_path))


def test_the_hash_knows_what_a_run_depends_on(tmp_path: Path) -> None:
    """Place, comments, written defaults and the runs folder leave the hash; a value or the book's bytes change it."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    hashed = config_hash(read(here))
    same = "# moved\n" + GOOD.replace("half_width = 10", 'half_width = 10.0\nto = "edge"') + '\n[storage]\nruns = "x"\n'
    assert config_hash(read(there, same)) == hashed
    assert config_hash(read(there, GOOD.replace("half_width = 10", "half_width = 11"))) != hashed
    config = read(there)
    (there / "book.csv").write_text("instrument,quantity\nSIM:XYZ,2\n")
    assert config_hash(config) != hashed


def test_show_reads_back_as_the_same_config(tmp_path: Path) -> None:
    """What show prints is TOML that loads to the same hash, with every default written out."""
    config = read(tmp_path, PLUGIN.replace('key = {secret = "venue_key"}', 'deep = {a = [1, "x"], b = true}'))
    again = tmp_path / "again.toml"
    again.write_text(show(config))
    assert config_hash(load_config(again, {})) == config_hash(config)
    assert tomllib.loads(show(config))["session"]["report_grid"] == "1m"


def test_the_schema_describes_every_key() -> None:
    """The JSON schema is closed and has a description for each key of each section."""
    found = schema()
    assert found["additionalProperties"] is False
    bare = [
        f"{name}.{key}"
        for name, section in {**found["$defs"], "Config": found}.items()
        for key, value in section.get("properties", {}).items()
        if "description" not in value and "const" not in value
    ]
    assert bare == []
    assert found["$defs"]["Session"]["properties"]["report_grid"]["default"] == "1m"


def test_migrate_brings_up_a_file_without_a_version(tmp_path: Path) -> None:
    """A file from before schema_version gets the line, keeps its comments and loads; a current one is untouched."""
    old = "# my run\n" + GOOD.lstrip().removeprefix("schema_version = 1\n")
    new, notes = migrate(old)
    assert new.startswith("# my run\nschema_version = 1\n")
    assert len(notes) == 1
    assert read(tmp_path, new).name == "test"
    assert migrate(new) == (new, [])
    assert migrate("")[0] == "schema_version = 1\n"
    assert tomllib.loads(migrate("# only a comment")[0]) == {"schema_version": 1}
    for text in ("schema_version = 9", "schema_version = true", "a = ="):
        with pytest.raises(ConfigError):
            migrate(text)


@pytest.mark.parametrize("name", example_names())
def test_every_shipped_example_is_good(name: str, tmp_path: Path) -> None:
    """Each shipped example loads, checks good, and its feeds and its broker take the settings they are given."""
    env = {"EVENKEEL_DATA": str(tmp_path)}
    config = load_config(example_path(name), env)
    assert config.name == name
    assert config_hash(config) in check(example_path(name), env)
    brokers = {"paper": PaperOptions, "line": LineOptions}
    msgspec.convert(broker_settings(config), brokers[config.broker.kind], strict=False)
    wanted = {
        "line": LineOptions,
        "replay": ReplayOptions,
        "synthetic": SyntheticOptions,
        "dataset": DatasetOptions,
        "scenario": ScenarioOptions,
    }
    for feed in config.feeds:
        msgspec.convert(feed_settings(feed, config), wanted[feed.kind], strict=False)


def test_an_example_is_found_by_name_only() -> None:
    """An unknown example is refused with the nearest name, and the expected ones are shipped."""
    assert {"synthetic", "es_day", "goog_day", "sp500", "market_maker_example"} <= set(example_names())
    with pytest.raises(ConfigError, match="did you mean 'synthetic'"):
        example_path("syntetic")


def test_the_worked_example_alternates_forty_times() -> None:
    """The market maker's prices start at 100 and move 40 times between 100 and 102, two moves a day inside 20 days."""
    config = load_config(example_path("market_maker_example"), {})
    (name,) = feed_settings(config.feeds[0], config)["files"]
    header, *rows = Path(name).read_text().splitlines()
    assert header == "ts,instrument,bid,ask"
    cells = [row.split(",") for row in rows]
    times = [parse_instant(row[0]) for row in cells]
    assert [row[2] for row in cells] == [row[3] for row in cells] == ["100"] + ["102", "100"] * 20
    assert times == sorted(set(times))
    assert times[0] == config.session.start
    assert config.session.end is not None
    assert times[-1] < config.session.end
    assert (config.session.end - config.session.start) == 20 * 24 * 60 * NS_PER_MINUTE
    assert config.pricing.table is not None
    assert round(config.pricing.table.decay_per_day * 20 * 10_000, 6) == 17_500


def test_the_synthetic_book_is_of_the_synthetic_chain() -> None:
    """Every contract of the built-in session's book is one its feed lists, to the last attribute."""
    config = load_config(example_path("synthetic"), {})
    listed = {item.id: item for item in SyntheticFeedAdapter(feed_settings(config.feeds[0], config)).instruments("")}
    book = load_book(config.book.file, as_of=config.session.start)
    assert [listed.get(item.id) for item in book.instruments] == list(book.instruments)


def test_every_key_of_a_built_in_feed_reaches_its_adapter(tmp_path: Path) -> None:
    """The config has a key for each option of a built-in feed, with the same default, and no key beside them."""
    text = GOOD.replace(
        "[[hedges]]", '[[feeds]]\nkind = "dataset"\n[[feeds]]\nkind = "replay"\nformat = "lean"\n[[hedges]]'
    )
    config = read(tmp_path, text.replace('"lean"', '"lean"\ndates = ["2020-01-06"]'), files=False)
    wanted: tuple[type[msgspec.Struct], ...] = (SyntheticOptions, DatasetOptions, ReplayOptions)
    for feed, options in zip(config.feeds, wanted, strict=True):
        given = feed_settings(feed, config)
        made = msgspec.convert(given, options, strict=False)
        set_here = {"start", "end", "name", "dates", "root"}
        assert set(type(feed).model_fields) - {"kind", "pace"} <= set(options.__struct_fields__)
        fresh = msgspec.convert({key: given[key] for key in set_here & set(given)}, options, strict=False)
        for key in set(given) - set_here:
            assert getattr(made, key) == getattr(fresh, key), key


def test_commissions_add_up_by_product(tmp_path: Path) -> None:
    """A product named pays what applies to it by id, by kind and to all; others pay what applies to all."""
    text = (
        GOOD
        + """
[broker]
kind = "paper"
commission = [
  {kind = "per_ticket", amount = 1},
  {kind = "basis_points", bp = 2, applies_to = ["spot"]},
  {kind = "per_contract", rate = 3, applies_to = ["US:GOOG"]},
]
"""
    )
    made = broker_settings(read(tmp_path, text), {"US:GOOG": "spot"})["commissions"]
    kinds: dict[str, Any] = {key: [part["kind"] for part in value["parts"]] for key, value in made.items()}
    assert kinds == {
        "spot": ["per_ticket", "basis_points"],
        "US:GOOG": ["per_ticket", "basis_points", "per_contract"],
        "*": ["per_ticket"],
    }


def test_no_toml_value_is_written_that_cannot_be_read() -> None:
    """Control signs, quotes and odd keys survive writing and reading; a value TOML has no form for is refused."""
    odd = {"a b": 'x"\\\n\t\x00\x7fé', "list": [1, 2.5, True], "sub": {"k.k": [{"a": 1}, {}]}}
    assert tomllib.loads(to_toml(odd)) == odd
    with pytest.raises(TypeError, match="expected a value TOML can hold"):
        to_toml({"a": object()})


def test_the_process_environment_is_the_default(tmp_path: Path) -> None:
    """Without an environment given, the process's own is read."""
    assert not [name for name in os.environ if name.startswith("EVENKEEL__")]
    assert load_config(write(tmp_path)).name == "test"
