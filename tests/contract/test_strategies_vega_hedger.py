"""The vega hedger keeps the law of a strategy, with one bucket and two, crossing and at limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bot.core.ports import Hedge, Strategy
from bot.domain.units import NS_PER_MINUTE
from bot.testing.strategies import CHECKS, STOCK, Case, chain_world
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand
from strategies.vega_hedger import VegaHedger

HOUR = 60 * NS_PER_MINUTE
CHAIN = chain_world(length=26 * HOUR, step=HOUR)
NAMES = {item.id.replace(" ", ""): item.id for item in CHAIN.instruments}
BOOK = (("main", NAMES["UND240201C00105000"], Decimal(-20)), ("main", NAMES["UND240302P00095000"], Decimal(15)))
"""Written near calls and bought far puts."""
WORLD = msgspec.structs.replace(CHAIN, openings=BOOK)
KEYS = {"tenors": (30.0, 60.0), "vega_limit": 3_000.0, "look": HOUR, "patience": HOUR, "stale_after": 2 * HOUR}
KEYS |= {"per_bucket": 2, "max_nodes": 40}


def case(**keys: Any) -> Case:
    def make() -> Sequence[Strategy]:
        hedger = VegaHedger(underlying=STOCK.id, **(KEYS | keys))
        hedge = Hedge(underlying=STOCK.id, instrument=STOCK.id, lot=Decimal(1))
        return [hedger, DeltaHedger(hedges=[hedge], policy=DeltaBand(half_width=20.0))]

    return Case(make=make, world=WORLD, cuts=4, stale_after=2 * HOUR)


CASES = {
    "two buckets": case(),
    "one bucket and gamma, at limits": case(
        tenors=(45.0,), gamma_limit=5.0, vega_limit=500.0, orders="limit", aggression=0.5, of_display=0.2
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_vega_hedger_keeps_the_law(check: Callable[[Case], None], name: str) -> None:
    """Every law holds for each way of running it."""
    check(CASES[name])
