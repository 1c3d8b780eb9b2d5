"""A shadow wants nothing its strategy did not want, and after its share of targets nothing at all."""

from __future__ import annotations

from bot.engine.journal import TargetSet
from bot.engine.shadows import Idle, Once
from tests.simulation.bench import MINUTE, START, STOCK, Bench, Script, minutes

PLAN = [(MINUTE, STOCK.id, 3), (2 * MINUTE, STOCK.id, 7)]


def test_the_static_twin_stops_after_the_first_targets() -> None:
    """The first target is traded, the second never wanted."""
    run = Bench({"dynamic": [Script(PLAN)], "static": [Once(Script(PLAN))], "none": [Idle(Script(PLAN))]})
    run.play(minutes([100.0] * 5))
    held = {account.name: account.ledger.book.quantity(STOCK.id) for account in run.accounts}
    assert held == {"dynamic": 7, "static": 3, "none": 0}
    assert [f.lines[0].quantity for f in run.facts(TargetSet, "static")] == [3]
    assert run.facts(TargetSet, "none") == []


def test_the_static_twin_waits_for_the_first_targets_its_strategy_has() -> None:
    """A strategy that has nothing to want at the start is asked again at quotes until it has."""
    calls: list[int] = []

    def later(view: object) -> list[object]:
        calls.append(1)
        return [] if len(calls) < 3 else [Script().want(STOCK.id, 5)]

    inner = Script(ticks=True, on_wake=later)  # type: ignore[arg-type]  # the targets are targets
    run = Bench({"static": [Once(inner)]}, end=START + 10 * MINUTE).play(minutes([100.0 + i for i in range(8)]))
    assert run.held() == 5
    assert len(calls) == 3
