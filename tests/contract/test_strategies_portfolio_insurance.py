"""Portfolio insurance keeps the law of a strategy, by each of its rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from bot.core.ports import Strategy
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE
from bot.testing.strategies import CHECKS, STOCK, Case, chain_world
from strategies.portfolio_insurance import PortfolioInsurance

HALF_HOUR = 30 * NS_PER_MINUTE
WORLD = chain_world(length=52 * HALF_HOUR, step=2 * HALF_HOUR, cash={"USD": Decimal(1_000_000)})


def case(**keys: Any) -> Case:
    def make() -> Sequence[Strategy]:
        return [PortfolioInsurance(instrument=STOCK.id, stale_after=3 * HALF_HOUR, **keys)]

    return Case(make=make, world=WORLD, cuts=4, stale_after=3 * HALF_HOUR)


CASES = {
    "cppi": case(method="cppi", floor=0.9, multiplier=5.0, floor_rate=0.02),
    "cppi in a band": case(method="cppi", floor=0.95, multiplier=8.0, band=0.05, cap=2.0),
    "tipp by the clock": case(method="tipp", floor=0.9, multiplier=4.0, every=3 * HALF_HOUR),
    "synthetic put": case(method="synthetic_put", floor=0.97, length=20 * NS_PER_DAY, vol=0.25),
    "renewed obpi on a forecast": case(method="obpi", floor=0.98, length=NS_PER_DAY // 2, vol=0.25, vol_from="ewma"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_portfolio_insurance_keeps_the_law(check: Callable[[Case], None], name: str) -> None:
    """Every law holds for each rule."""
    check(CASES[name])
