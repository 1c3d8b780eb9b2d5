"""The gamma scalper keeps the law of a strategy, long and short, crossing and at limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from bot.core.ports import Hedge, Strategy
from bot.domain.units import NS_PER_MINUTE
from bot.testing.strategies import CHECKS, STOCK, Case, chain_world
from strategies.delta_hedger import DeltaHedger
from strategies.gamma_scalper import GammaScalper
from strategies.policies.delta_band import DeltaBand

HALF_HOUR = 30 * NS_PER_MINUTE
WORLD = chain_world(length=52 * HALF_HOUR, step=2 * HALF_HOUR)
LONG = {"days": 30, "min_days": 20, "amount": 5, "look": 2 * HALF_HOUR, "stale_after": 4 * HALF_HOUR}
ON_FORECAST = {
    "forecast": {"kind": "ewma", "interval": 2 * HALF_HOUR, "start_vol": 0.3, "periods_per_year": 8_760.0},
    "margin": 0.01,
    "exit_margin": -0.02,
    "rest": HALF_HOUR,
}


def case(**keys: Any) -> Case:
    def make() -> Sequence[Strategy]:
        scalper = GammaScalper(underlying=STOCK.id, **(LONG | keys))
        hedge = Hedge(underlying=STOCK.id, instrument=STOCK.id, lot=Decimal(1))
        return [scalper, DeltaHedger(hedges=[hedge], policy=DeltaBand(half_width=20.0))]

    return Case(make=make, world=WORLD, cuts=4, stale_after=4 * HALF_HOUR)


CASES = {
    "long straddle": case(),
    "on a forecast": case(**ON_FORECAST),
    "short strangle at limits": case(
        side="short", structure="strangle", width=0.05, tolerance=0.03, orders="limit", patience=2 * HALF_HOUR
    ),
    "rolling": case(days=30, min_days=29.5, roll_days=29.4, exit_days=29.1, max_days=90, stop_loss=50_000.0),
    "held to its end": case(days=1, min_days=0.5, max_days=2, at_end="hold"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_gamma_scalper_keeps_the_law(check: Callable[[Case], None], name: str) -> None:
    """Every law holds for each way of running it."""
    check(CASES[name])
