"""No instant is special: moved to before 1970, where instants are below zero, and across it, every strategy does the same."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from bot.domain.units import NS_PER_DAY
from bot.engine.journal import Executed, TargetSet
from bot.testing.strategies import START, Case, Played, moved, play
from tests.contract import (
    test_strategies_delta_hedger,
    test_strategies_gamma_scalper,
    test_strategies_portfolio_insurance,
    test_strategies_tail_hedger,
    test_strategies_vega_hedger,
)

MODULES: Final = (
    test_strategies_delta_hedger,
    test_strategies_gamma_scalper,
    test_strategies_portfolio_insurance,
    test_strategies_tail_hedger,
    test_strategies_vega_hedger,
)
CASES: Final = {
    f"{module.__name__.rpartition('_strategies_')[2]}: {name}": case
    for module in MODULES
    for name, case in module.CASES.items()
    if not case.world.sessions and name not in {"exact", "guarded"}
}
MOVES: Final = {"to 1950": -27_000 * NS_PER_DAY, "across the epoch": -START - NS_PER_DAY // 2}


def told(run: Played, by: int) -> list[tuple[Any, ...]]:
    """What was wanted and what was filled, with instants told from the unmoved start."""
    wanted = [(ts - by, f.book, msgspec.json.encode(f.lines)) for ts, f in run.stamped(TargetSet)]
    filled = [(ts - by, f.fill.instrument, f.fill.quantity, f.fill.price) for ts, f in run.stamped(Executed)]
    return [*wanted, *filled]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("name", CASES)
def test_the_calendar_year_changes_no_decision(name: str, move: str) -> None:
    """Targets and fills are the same, each as much later or earlier as the world was moved."""
    case: Case = CASES[name]
    by = MOVES[move]
    run = play(msgspec.structs.replace(case, world=moved(case.world, by)))
    assert not run.faults()
    here = told(play(case), 0)
    assert here
    assert told(run, by) == here
