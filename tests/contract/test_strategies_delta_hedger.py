"""The delta hedger keeps the law of a strategy under every kind of rule, with plans for nights and halts, and by proxy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from bot.core.hedge_cost import CostEstimate, EstimatedHedge
from bot.core.pauses import Pausing
from bot.core.ports import Hedge, HedgePolicy, Strategy
from bot.domain.calendar import sessions
from bot.domain.units import NS_PER_MINUTE
from bot.testing.strategies import CHECKS, START, STOCK, Case, World, chain_world
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand
from strategies.policies.exact_band import ExactBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.guarded_band import GuardedBand
from strategies.policies.leland_delta import LelandDelta
from strategies.policies.move_band import MoveBand
from strategies.policies.static_hedge import StaticHedge
from strategies.policies.whalley_wilmott import WhalleyWilmott
from strategies.policies.zakamouline import Zakamouline

HOUR = 60 * NS_PER_MINUTE
CHAIN = chain_world(length=26 * HOUR, step=HOUR)
NAMES = {item.id.replace(" ", ""): item.id for item in CHAIN.instruments}
BOOK = (
    ("main", NAMES["UND240201C00105000"], Decimal(-20)),
    ("main", NAMES["UND240302P00095000"], Decimal(15)),
    ("main", STOCK.id, Decimal(100)),
)
"""Written near calls, bought far puts, and shares, whose quotes are spoiled too."""
WORLD = msgspec.structs.replace(CHAIN, openings=BOOK, names=(STOCK.id,))
PLAIN = Hedge(underlying=STOCK.id, instrument=STOCK.id, lot=Decimal(1))
COSTED = EstimatedHedge(
    underlying=STOCK.id, instrument=STOCK.id, lot=Decimal(1), cost=0.001, estimate=CostEstimate(quoted=True)
)


def with_nights() -> World:
    """The same world, trading from the start for nine hours, with an hour's halt in them, and again after a night of five."""
    opens = START + HOUR * np.array([0, 14], dtype=np.int64)
    origin = (date(2024, 1, 2) - date(1970, 1, 1)).days
    table = sessions(
        "24/7",
        first=date(2024, 1, 2),
        last=date(2024, 1, 3),
        dates=origin + np.arange(2),
        opens=opens,
        closes=opens + HOUR * np.array([9, 12]),
        halts=START + HOUR * np.array([[4, 5]], dtype=np.int64),
    )
    return msgspec.structs.replace(WORLD, sessions={"24/7": table})


def case(policy: Callable[[], HedgePolicy], *, hedge: Hedge = PLAIN, world: World = WORLD, **keys: Any) -> Case:
    def make() -> Sequence[Strategy]:
        return [DeltaHedger(hedges=[hedge], policy=policy(), **keys)]

    return Case(make=make, world=world, cuts=6)


SHRINKS = Pausing(plan="shrink", lead=2 * HOUR, width=0.2, settle=NS_PER_MINUTE, after="exact")
FLATTENS = Pausing(plan="flatten", lead=HOUR, settle=HOUR)


CASES = {
    "band": case(lambda: DeltaBand(half_width=20.0)),
    "band that holds where it does not know": case(lambda: DeltaBand(half_width=20.0), fallback="hold"),
    "range": case(
        lambda: DeltaBand(half_width=5.0), hedge=msgspec.structs.replace(PLAIN, target_delta=(-300.0, 200.0))
    ),
    "proxy": case(lambda: DeltaBand(half_width=20.0), hedge=msgspec.structs.replace(PLAIN, beta=0.8)),
    "interval": case(lambda: FixedInterval(interval="2h")),
    "move": case(lambda: MoveBand(pct=0.5)),
    "once": case(StaticHedge),
    "Whalley-Wilmott at the quoted cost": case(lambda: WhalleyWilmott(risk_aversion=0.01), hedge=COSTED),
    "Zakamouline": case(lambda: Zakamouline(risk_aversion=0.01), hedge=COSTED),
    "Leland": case(lambda: LelandDelta(interval="2h"), hedge=COSTED),
    "exact": case(lambda: ExactBand(risk_aversion=0.001, dates=30), hedge=COSTED),
    "band by plan": case(lambda: DeltaBand(half_width=20.0), world=with_nights(), overnight=FLATTENS, halt=SHRINKS),
    "interval by plan": case(
        lambda: FixedInterval(interval="2h"), world=with_nights(), overnight=SHRINKS, halt=FLATTENS
    ),
    "guarded": case(lambda: GuardedBand(risk_aversion=0.001, dates=12), hedge=COSTED),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_delta_hedger_keeps_the_law(check: Callable[[Case], None], name: str) -> None:
    """Every law holds for each rule and each way of hedging."""
    check(CASES[name])
