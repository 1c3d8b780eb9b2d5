"""Convertible arbitrage keeps the law of strategies, in a world where the bond is quoted round its model and pays a coupon."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest

from bot.core.events import FeedEvent
from bot.core.notices import ConvertibleNotice, notice_of
from bot.domain.convertible import ConvertibleModel, ConvertibleTerms, Put
from bot.domain.instruments import ConvertibleBond, Universe
from bot.domain.market import QuoteBatch
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_YEAR, Nanos
from bot.pricing.convertible_shelf import Shelf
from bot.testing.strategies import CHECKS, START, STOCK, Case, World
from strategies.convertible_arbitrage import ConvertibleArbitrage, Holding

STEP: Nanos = 60 * NS_PER_MINUTE
LENGTH: Nanos = 4 * NS_PER_DAY
BOND = ConvertibleBond(
    id="BOND:UND30",
    underlying=STOCK.id,
    multiplier=Decimal(10),
    tick=Decimal("0.01"),
    lot=Decimal(1),
    reference=START,
    terms=ConvertibleTerms(
        maturity=2.0,
        ratio=9.0,
        face=1000.0,
        coupons=((2.0 / 365.0, 10.0), (1.0, 20.0), (2.0, 20.0)),
        accrual_from=-0.5,
        puts=(Put(start=3.0 / 365.0, end=3.0 / 365.0, price=700.0),),
    ),
    model=ConvertibleModel(vol=0.3, rate=0.03, hazard=0.02, recovery=0.4, equity_drop=1.0),
)


def bond_world(*, seed: int = 3) -> World:
    """The stock walks from 100 and the bond is quoted a quarter point either side of its model, each hour for four days."""
    rng, shelf = random.Random(seed), Shelf()
    universe = Universe((STOCK, BOND))
    events: list[FeedEvent] = []
    spot = 100.0
    for i in range(LENGTH // STEP + 1):
        ts = START + i * STEP
        middle = float(shelf.value(BOND, spot, ts).price)
        rows = [(STOCK.id, spot - 0.01, spot + 0.01), (BOND.id, middle - 0.25, middle + 0.25)]
        events.append(_batch(universe, ts, rows))
        spot *= math.exp(0.3 * math.sqrt(STEP / NS_PER_YEAR) * 3.0 * rng.gauss(0.0, 1.0))
        if i == 60:
            cap = ConvertibleNotice(instrument=BOND.id, what="recall", shares=Decimal(1500), effective=ts + STEP)
            events.append(notice_of(cap, ts + STEP // 2))
    return World(
        instruments=(STOCK, BOND),
        events=tuple(events),
        end=START + LENGTH,
        cash={"USD": Decimal(1_000_000)},
        remark=STEP,
        report_grid=STEP,
    )


def _batch(universe: Universe, ts: Nanos, rows: list[tuple[str, float, float]]) -> QuoteBatch:
    n = len(rows)
    return QuoteBatch(
        instrument=np.array([universe.index(key) for key, _, _ in rows], dtype=np.int32),
        ts_event=np.full(n, ts, dtype=np.int64),
        ts_recv=np.full(n, ts, dtype=np.int64),
        bid=np.array([round(bid, 2) for _, bid, _ in rows]),
        ask=np.array([round(ask, 2) for _, _, ask in rows]),
        bid_size=np.full(n, 500.0, dtype=np.float32),
        ask_size=np.full(n, 500.0, dtype=np.float32),
    )


def made() -> list[ConvertibleArbitrage]:
    return [
        ConvertibleArbitrage(
            positions=[Holding(bond=BOND.id, quantity=400.0)],
            half_width=20.0,
            calibrate="vol",
            remark=12 * STEP,
            stale_after=6 * STEP,
            accuracy="fast",
        )
    ]


CASE = Case(make=made, world=bond_world(), stale_after=6 * STEP, cuts=6)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_convertible_arbitrage_keeps_the_law(check: Callable[[Case], None]) -> None:
    """Each law of a strategy holds for it."""
    check(CASE)
