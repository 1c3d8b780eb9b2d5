"""The tail hedger keeps the law of a strategy, with puts, spreads and calls, and without options at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from bot.core.ports import Strategy
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE
from bot.testing.strategies import CHECKS, STOCK, Case, chain_world
from strategies.tail_hedger import TailHedger

HALF_HOUR = 30 * NS_PER_MINUTE
WORLD = chain_world(length=52 * HALF_HOUR, step=2 * HALF_HOUR, cash={"USD": Decimal(5_000_000)}, half=0.02)
OFTEN = {"roll": 6 * HALF_HOUR, "carry_bp": 5000.0, "stale_after": 3 * HALF_HOUR, "moneyness": 0.95}


def case(**keys: Any) -> Case:
    def make() -> Sequence[Strategy]:
        return [TailHedger(stock=STOCK.id, **(OFTEN | keys))]

    return Case(make=make, world=WORLD, cuts=4, stale_after=3 * HALF_HOUR)


CASES = {
    "puts in a ladder": case(tenors=(30 * NS_PER_DAY, 60 * NS_PER_DAY)),
    "puts sold and struck anew": case(
        tenors=(30 * NS_PER_DAY,),
        monetise=({"at": "multiple", "level": 1.2, "share": 0.5}, {"at": "drop", "level": 0.02}),
        reinvest=0.5,
    ),
    "put spreads, sold by days and vol": case(
        method="put_spread",
        short_moneyness=0.90,
        monetise=({"at": "vol", "level": 0.21, "share": 0.5}, {"at": "days", "level": 29.5}),
    ),
    "puts by delta, held to their end": case(delta=-0.4, tenors=(NS_PER_DAY + HALF_HOUR,), every=3 * HALF_HOUR),
    "calls": case(method="call", moneyness=1.05),
    "less stock": case(method="de_risk", carry_bp=100.0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_tail_hedger_keeps_the_law(check: Callable[[Case], None], name: str) -> None:
    """Every law holds for each way of running it."""
    check(CASES[name])
