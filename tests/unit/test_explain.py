"""Explain: an order is told from its record, an instant without one is recomputed and held against the journal."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.app import explain
from bot.app.config import example_path, load_config
from bot.app.runs import StoredRun, execute
from bot.core.errors import ConfigError
from bot.domain.units import NS_PER_MINUTE, NS_PER_SECOND, iso, parse_instant
from bot.engine.journal import Executed, JournalReader, JournalWriter, Ordered, TargetSet
from tests.realdata import lean_root

START = parse_instant("2025-03-03T14:30:00Z")
END = START + 20 * NS_PER_MINUTE
CONFIG = """
schema_version = 1
name = "small"
[session]
start = "2025-03-03T14:30:00Z"
end = "2025-03-03T14:50:00Z"
[[feeds]]
kind = "synthetic"
seed = 3
underlying = "SIM:XYZ"
step = "10s"
spot = 100.0
vol = 0.8
rate = 0.04
[feeds.chain]
root = "XYZ"
expiries = ["2025-03-21"]
strikes = [95, 100, 105]
[book]
file = "book.csv"
[pricing]
vol = "implied"
rate = 0.04
[[hedges]]
underlying = "SIM:XYZ"
instrument = "SIM:XYZ"
[[strategies]]
kind = "delta_hedger"
policy = { kind = "delta_band", half_width = 10 }
[[alternatives]]
name = "every_5m"
policy = { kind = "fixed_interval", interval = "5m" }
[broker]
kind = "paper"
latency = "200ms"
[[broker.commission]]
kind = "per_contract"
rate = 0.005
minimum = 1.00
[limits]
max_position = 20_000
stale_after = "5m"
"""
BOOK = """underlying,type,cp,strike,expiry,style,settlement,multiplier,currency,quantity
SIM:XYZ,option,call,100,2025-03-21T20:00:00Z,european,physical,100,USD,-50
SIM:XYZ,option,put,95,2025-03-21T20:00:00Z,european,physical,100,USD,30
"""


def make(folder: Path, text: str = CONFIG) -> StoredRun:
    """A run of the config, stored under the folder."""
    (folder / "book.csv").write_text(BOOK)
    (folder / "small.toml").write_text(text)
    config = load_config(folder / "small.toml", env={"EVENKEEL__STORAGE__RUNS": str(folder / "runs")})
    _, _, place = execute(config)
    assert place is not None
    return StoredRun(place)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return make(tmp_path_factory.mktemp("explain"))


@pytest.fixture
def own(run: StoredRun, tmp_path: Path) -> StoredRun:
    """A copy of the run that a test may damage."""
    shutil.copytree(run.folder.parents[1], tmp_path / "copy")
    copy = StoredRun(tmp_path / "copy" / "runs" / run.run_id)
    source = {"config": str(tmp_path / "copy" / "small.toml"), "book": str(tmp_path / "copy" / "book.csv")}
    (copy.folder / "source.json").write_text(json.dumps(source))
    return copy


def facts(run: StoredRun, kind: type) -> list[Any]:
    return [fact for step in run.steps() for fact in step.facts if isinstance(fact, kind)]


# --------------------------------------------------------------------------- an order


def test_an_order_is_told_with_the_facts_of_the_journal(run: StoredRun) -> None:
    """Target, evidence, order, fill and what it left are those recorded; ages count from the decision."""
    orders = [f.order for f in facts(run, Ordered) if f.account == "dynamic"]
    assert len(orders) > 3, "the session is meant to trade"
    order = orders[2]
    d = explain.explain_order(run, order.id)
    target = [f for f in facts(run, TargetSet) if f.account == "dynamic"][2]
    fill = next(f.fill for f in facts(run, Executed) if f.fill.order_id == order.id)
    assert (d["instrument"], d["ts"], d["reason"]) == (order.instrument, iso(order.ts), order.reason)
    assert d["target"]["unrounded"] == target.lines[0].unrounded
    assert d["evidence"]["delta"] == target.evidence.delta
    assert d["evidence"]["vega_per_point"] == target.evidence.vega / 100
    assert d["evidence"]["band"] == {"lo": target.evidence.lo, "hi": target.evidence.hi}
    assert d["evidence"]["quote"]["age_seconds"] == (order.ts - target.evidence.quote.ts) / NS_PER_SECOND
    (told,) = d["fills"]
    assert told["price"] == float(fill.price)
    assert told["after_seconds"] == pytest.approx(0.2)
    assert told["quote_age_seconds"] == (fill.ts - fill.quote_ts) / NS_PER_SECOND
    assert told["spread_cost"] == float(fill.quantity * (fill.touch - fill.mid))
    assert told["commission"] == float(fill.commission)
    assert [said["what"] for said in d["venue"]] == ["accepted"]


def test_what_is_held_before_and_after_follows_from_the_fills(run: StoredRun) -> None:
    """Each order finds what the fills before it left, and the net delta moves by what was filled."""
    held = Decimal(0)
    for order in [f.order for f in facts(run, Ordered) if f.account == "dynamic"]:
        left = explain.explain_order(run, order.id)["left"]
        assert left["held_before"] == float(held)
        held += order.quantity
        assert (left["held_after"], left["unfilled"]) == (float(held), 0.0)
        if left["net_delta_after"] is not None:
            assert left["net_delta_after"] - left["net_delta_before"] == pytest.approx(float(order.quantity))
    assert held == 0


def test_limits_are_named_with_their_bounds(run: StoredRun) -> None:
    """Every configured limit is listed, passed, with its bound."""
    rows = {row["limit"]: row for row in explain.explain_order(run, "dynamic-000001")["limits"]}
    assert list(rows) == ["frozen", "restricted", "position", "stale"]
    assert rows["position"]["bound"] == "max_position 20000"
    assert all(row["passed"] and not row["note"] for row in rows.values())


def test_an_order_is_found_by_id_number_fill_or_a_unique_part_in_any_account(run: StoredRun) -> None:
    """Beginnings and ends do when unique; dynamic's is meant where accounts share a number."""
    assert explain.explain_order(run, "2")["order_id"] == "dynamic-000002"
    assert explain.explain_order(run, "dynamic-000002/1")["order_id"] == "dynamic-000002"
    assert explain.explain_order(run, "static-000001")["account"] == "static"
    assert explain.explain_order(run, "every_5m-000001")["account"] == "every_5m"
    assert explain.explain_order(run, "5m-000001")["order_id"] == "every_5m-000001"


@pytest.mark.parametrize(
    ("text", "words"), [("dynamic-0", "found [0-9]+ for"), ("zzz", "found 'zzz'"), ("", "found ''")]
)
def test_an_order_id_that_names_none_or_several_is_a_clear_error(run: StoredRun, text: str, words: str) -> None:
    """The error lists ids that would do."""
    with pytest.raises(ConfigError, match=words) as caught:
        explain.explain_order(run, text)
    assert "dynamic-000001" in str(caught.value)


def test_an_order_in_words_says_all_of_it(run: StoredRun) -> None:
    """The text tells decision, reason, evidence, limits, venue, fill and what it left."""
    d = explain.explain_order(run, "1")
    text = explain.render(d)
    for words in (
        d["reason"],
        "Greeks of the options: delta",
        "Limits checked:",
        "before rounding",
        "accepted at",
        "spread cost",
        "It left",
        "Net delta",
        "delta band 10",
    ):
        assert words in text, words


def test_the_closing_order_says_that_it_needs_no_evidence(run: StoredRun) -> None:
    """A close is explained as such, without made-up Greeks."""
    last = [f.order for f in facts(run, Ordered) if f.account == "dynamic"][-1]
    d = explain.explain_order(run, last.id)
    assert d["order"]["closing"]
    assert d["evidence"] is None
    assert "a close needs none" in explain.render(d)


# --------------------------------------------------------------------------- an instant


def test_every_instant_is_proved_against_the_journal(run: StoredRun) -> None:
    """Before, at the start, at an order, between, at the end and after it the replay makes the same facts."""
    order = [f.order for f in facts(run, Ordered) if f.account == "dynamic"][1]
    total = len(list(run.steps()))
    counts = []
    for ts in (START - 1, START, order.ts, order.ts + 1, START + 7 * NS_PER_MINUTE + 1, END, END + NS_PER_MINUTE):
        d = explain.explain_at(run, ts, env={})
        assert d["proof"]["status"] == "proved", (iso(ts), d["proof"])
        assert (d["config"]["changed"], d["data"]["changed"]) == (None, [])
        counts.append(d["proof"]["steps"])
    assert counts[0] == 0
    assert counts[-1] == total
    assert counts == sorted(counts)


def test_staying_is_explained_by_the_rule_asked_again_at_that_instant(run: StoredRun) -> None:
    """Between orders the holding lies inside the band the policy gives for the Greeks of then."""
    d = explain.explain_at(run, START + 7 * NS_PER_MINUTE + 1, env={})
    (row,) = d["underlyings"]
    assert d["orders"] == []
    assert row["decision"]["stay"]
    assert row["band"]["lo"] <= row["held"] <= row["band"]["hi"]
    assert row["exact_hedge"] == pytest.approx(-row["delta"])
    assert row["net_delta"] == pytest.approx(row["delta"] + row["held"])
    assert row["band"]["hi"] - row["band"]["lo"] == pytest.approx(20.0)
    assert d["positions"]["SIM:XYZ"] == row["held"] == row["last_target"]["quantity"]
    assert all(seen["quote"]["age_seconds"] >= 0 for seen in row["quotes"].values())
    text = explain.render(d)
    assert "lies inside" in text
    assert "Proved" in text


def test_an_instant_sees_nothing_later(run: StoredRun) -> None:
    """A nanosecond before an order's decision its quote, order and target are not there yet."""
    orders = [f.order for f in facts(run, Ordered) if f.account == "dynamic"]
    d = explain.explain_at(run, orders[2].ts - 1, env={})
    assert d["previous_order"]["order_id"] == orders[1].id
    assert d["next_order"]["order_id"] == orders[2].id
    assert d["underlyings"][0]["quotes"]["SIM:XYZ"]["quote"]["ts"] < iso(orders[2].ts)
    assert explain.explain_at(run, orders[2].ts, env={})["orders"] == [orders[2].id]


def test_a_working_order_shows_while_the_venue_has_it(run: StoredRun) -> None:
    """Within the latency the order is working and its fill not yet held."""
    first = next(f.order for f in facts(run, Ordered) if f.account == "dynamic")
    d = explain.explain_at(run, first.ts + 1, env={})
    assert [(w["order_id"], w["left"]) for w in d["working"]] == [(first.id, float(first.quantity))]
    assert (d["underlyings"][0]["held"], d["underlyings"][0]["working"]) == (0.0, float(first.quantity))


def test_a_rule_by_the_clock_says_when_it_was_and_will_be_due(run: StoredRun) -> None:
    """Between two turns the interval rule asks for nothing; its last turn and the next are told."""
    d = explain.explain_at(run, START + 7 * NS_PER_MINUTE, account="every_5m", env={})
    (row,) = d["underlyings"]
    assert row["next_due"] == "2025-03-03T14:40:00Z"
    assert row["last_turn"]["ts"] == "2025-03-03T14:35:00Z"
    assert "asks for nothing now" in row["why"]
    assert row["band"] == {"lo": None, "hi": None, "to": None}


def test_before_and_after_the_session_the_reason_is_the_session(run: StoredRun) -> None:
    """Nothing is asked outside the session, and Greeks before it are unknown, not zero."""
    before = explain.explain_at(run, START - NS_PER_MINUTE, env={})
    after = explain.explain_at(run, END + NS_PER_MINUTE, env={})
    assert "not begun" in before["session"]["state"]
    assert before["underlyings"][0]["delta"] is None
    assert "ended at" in after["underlyings"][0]["why"]
    assert explain.render(before)
    assert explain.render(after)


def test_a_feed_that_ends_before_the_session_is_proved_up_to_and_past_its_end(tmp_path: Path) -> None:
    """With its feed gone the run goes on by its timers; each instant of that is proved and the feed's end is told."""
    early = CONFIG.replace('step = "10s"', 'step = "10s"\nend = "2025-03-03T14:40:00Z"')
    run = make(tmp_path, early)
    for minutes in (10, 12, 20, 30):
        d = explain.explain_at(run, START + minutes * NS_PER_MINUTE, account="every_5m", env={})
        assert d["proof"]["status"] == "proved", (minutes, d["proof"])
    d = explain.explain_at(run, START + 12 * NS_PER_MINUTE, account="every_5m", env={})
    assert "the feed ended at 2025-03-03T14:40:00Z" in d["session"]["state"]
    assert d["underlyings"][0]["quotes"]["SIM:XYZ"]["quote"]["age_seconds"] == 120.0


def test_asking_twice_gives_the_same_answer(run: StoredRun) -> None:
    """An explanation changes nothing it looks at."""
    ts = START + 3 * NS_PER_MINUTE
    assert explain.explain_at(run, ts, env={}) == explain.explain_at(run, ts, env={})


def test_an_unknown_account_is_refused_with_those_there_are(run: StoredRun) -> None:
    """The error names the run's accounts."""
    with pytest.raises(ConfigError, match="dynamic, static, none, every_5m"):
        explain.explain_at(run, START, account="other", env={})


# --------------------------------------------------------------------------- what changed since


def test_a_changed_config_file_is_said_and_the_runs_own_copy_is_used(own: StoredRun) -> None:
    """The file edited since the run is named as changed; the copy still proves the facts."""
    path = own.config_path()
    path.write_text(path.read_text().replace("half_width = 10", "half_width = 300"))
    d = explain.explain_at(own, START + 5 * NS_PER_MINUTE, env={})
    assert "has changed since the run" in d["config"]["changed"]
    assert d["proof"]["status"] == "proved"
    assert "has changed since the run" in explain.render(d)


def test_a_config_file_that_is_gone_is_said_and_the_runs_own_copy_is_used(own: StoredRun) -> None:
    """Without its config file a run is explained from its own copy."""
    own.config_path().unlink()
    d = explain.explain_at(own, START + 5 * NS_PER_MINUTE, env={})
    assert "cannot be read now" in d["config"]["changed"]
    assert d["proof"]["status"] == "proved"


def test_a_journal_with_another_fact_is_not_proved_and_the_first_difference_is_named(own: StoredRun) -> None:
    """A journal that says something the data do not is caught at that step, by its number and time."""
    path = own.folder / "journal.evk"
    reader = JournalReader(path)
    steps = list(reader)
    place = next(i for i, s in enumerate(steps) if isinstance(s.facts[0], TargetSet))
    path.unlink()
    with JournalWriter(path, reader.header) as journal:
        for i, step in enumerate(steps):
            journal.append(step.ts, step.tape + (1 if i == place else 0), step.facts)
    proof = explain.explain_at(own, END, env={})["proof"]
    assert (proof["status"], proof["steps"]) == ("differs", place)
    first = proof["first_difference"]
    assert (first["journal_step"], first["ts"]) == (place, iso(steps[place].ts))
    assert f"having seen {steps[place].tape + 1} rows" in first["journal"]
    assert f"having seen {steps[place].tape} rows" in first["replay"]


def test_a_journal_cut_short_differs_where_it_ends(own: StoredRun) -> None:
    """Facts the journal lacks are named as nothing against what the replay made."""
    path = own.folder / "journal.evk"
    reader = JournalReader(path)
    steps = list(reader)
    path.unlink()
    with JournalWriter(path, reader.header) as journal:
        for step in steps[:-1]:
            journal.append(step.ts, step.tape, step.facts)
    d = explain.explain_at(own, END + NS_PER_MINUTE, env={})
    assert d["proof"]["steps"] == len(steps) - 1
    assert d["proof"]["first_difference"]["journal"] == "nothing"
    assert "NOT proved" in explain.render(d)


def test_a_run_whose_book_changed_says_so(own: StoredRun) -> None:
    """Another book under the same name is told as a change, and the replay of it is not called proved."""
    book = own.folder.parents[1] / "book.csv"
    book.write_text(BOOK.replace(",-50", ",-70"))
    text = (own.folder / "config.toml").read_text()
    original = load_config(own.folder / "config.toml", env={}, files=False).book.file
    (own.folder / "config.toml").write_text(text.replace(str(original), str(book)))
    d = explain.explain_at(own, START + NS_PER_MINUTE, env={})
    assert "changed" in d["config"]["changed"]
    assert d["proof"]["status"] == "differs"


@pytest.mark.real
def test_a_real_day_is_proved_at_instants_between_its_hedges(tmp_path: Path) -> None:
    """The ES day replayed to an instant makes the journal's facts, and the rule's last turn explains the stay."""
    env = {"EVENKEEL_DATA": str(lean_root()), "EVENKEEL__STORAGE__RUNS": str(tmp_path)}
    _, _, folder = execute(load_config(example_path("es_day.toml"), env=env))
    assert folder is not None
    d = explain.explain_at(StoredRun(folder), parse_instant("2020-01-06T10:00:30Z"), env=env)
    assert d["proof"]["status"] == "proved"
    assert d["proof"]["steps"] > 50
    (row,) = d["underlyings"]
    assert row["last_turn"]["ts"] == "2020-01-06T10:00:00Z"
    assert "held already after rounding" in row["last_turn"]["reason"]
