"""Listed chains, runs without a book, and alternatives with strategies of their own are read, wired or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.app.config import load_config
from bot.app.wiring import assemble, read_book
from bot.core.errors import ConfigError
from bot.domain.instruments import OptionContract

HEAD = """
schema_version = 1
name = "chains"

[session]
start = "2025-03-03T14:30:00Z"
end = "2025-03-03T15:30:00Z"

[[feeds]]
kind = "synthetic"
underlying = "SIM:XYZ"
step = "10s"

[[hedges]]
underlying = "SIM:XYZ"
instrument = "SIM:XYZ"
"""
HEDGER = """
[[strategies]]
kind = "delta_hedger"
[strategies.policy]
kind = "static"
"""
CHAIN = """
[[chains]]
underlying = "SIM:XYZ"
root = "XYZ"
expiries = ["2025-03-21", "2025-04-17"]
strikes_from = 95
strikes_to = 105
strike_step = 2.5
"""
BOOK = "instrument,quantity,underlying\nXYZ250321C00100000,-10,SIM:XYZ\n"


def written(tmp_path: Path, text: str, *, book: bool) -> Path:
    (tmp_path / "book.csv").write_text(BOOK)
    path = tmp_path / "run.toml"
    path.write_text(text + ('\n[book]\nfile = "book.csv"\n' if book else ""))
    return path


def test_a_ladder_lists_every_strike_of_every_expiry_both_ways(tmp_path: Path) -> None:
    """Two expiries, five strikes and two sides are twenty contracts, the book's own among them once."""
    config = load_config(written(tmp_path, HEAD + HEDGER + CHAIN, book=True))
    options = [item for item in read_book(config).instruments if isinstance(item, OptionContract)]
    assert len(options) == 20
    assert {str(item.strike.normalize()) for item in options} == {"95", "97.5", "1E+2", "102.5", "105"}
    run = assemble(config, journal=None)
    assert set(run.loop.tradable) == {item.id for item in options}


def test_without_chains_nothing_but_the_book_is_tradable(tmp_path: Path) -> None:
    """A delta hedger's run values what it holds."""
    run = assemble(load_config(written(tmp_path, HEAD + HEDGER, book=True)), journal=None)
    assert run.loop.tradable == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("strike_step = 2.5\n", ""), "expected strikes, or all of"),
        (("strikes_from = 95", "strikes_from = 195"), "strikes_from <= strikes_to"),
        (("strike_step = 2.5", "strike_step = 2.5\nstrikes = [100]"), "expected strikes, or all of"),
        (("strike_step = 2.5", "strike_step = 0.0001"), "fewer than"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    """Half a ladder, one that runs backwards, both ways at once and one without end."""
    with pytest.raises(ConfigError, match=words):
        load_config(written(tmp_path, HEAD + HEDGER + CHAIN.replace(*change), book=True))


def test_a_hedger_without_a_book_is_refused(tmp_path: Path) -> None:
    """There is nothing to hedge."""
    config = load_config(written(tmp_path, HEAD + HEDGER, book=False))
    with pytest.raises(ConfigError, match="expected the positions"):
        assemble(config, journal=None)


def test_an_alternative_has_a_policy_or_strategies(tmp_path: Path) -> None:
    """Neither is refused; strategies of its own run on their account."""
    neither = HEAD + HEDGER + '\n[[alternatives]]\nname = "other"\n'
    with pytest.raises(ConfigError, match="expected a policy or strategies, found neither"):
        load_config(written(tmp_path, neither, book=True))
    own = neither + '[[alternatives.strategies]]\nkind = "delta_hedger"\nname = "second"\npolicy = {kind = "none"}\n'
    run = assemble(load_config(written(tmp_path, own, book=True)), journal=None)
    assert [slot.strategy.name for slot in run.accounts[3].slots] == ["second"]
