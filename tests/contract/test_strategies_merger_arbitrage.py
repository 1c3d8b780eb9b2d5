"""Merger arbitrage keeps the law of strategies, in a world of three deals: one closes, one breaks, one is amended."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest

from bot.core.events import Conversion, Corporate, FeedEvent
from bot.core.notices import DealNotice, notice_of
from bot.domain.deals import Collar
from bot.domain.instruments import Spot, Universe
from bot.domain.market import QuoteBatch
from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_YEAR, Nanos
from bot.testing.strategies import CHECKS, START, Case, World
from strategies.merger_arbitrage import Deal, MergerArbitrage

STEP: Nanos = 60 * NS_PER_MINUTE
LENGTH: Nanos = 4 * NS_PER_DAY
NAMES = ("SIM:ACQ", "SIM:BUY", "SIM:TGA", "SIM:TGB", "SIM:TGC")
SHARES = tuple(Spot(id=name, tick=Decimal("0.01"), lot=Decimal(1)) for name in NAMES)
CLOSE = START + 40 * NS_PER_DAY


def deal_world(*, seed: int = 5) -> World:
    """Targets quoted at .8 of their offer's way, each hour for four days; on day 2 one breaks, one closes, one is raised."""
    rng, universe = random.Random(seed), Universe(SHARES)
    events: list[FeedEvent] = []
    acq, buy, broken = 100.0, 60.0, False
    for i in range(LENGTH // STEP + 1):
        ts = START + i * STEP
        p = 0.8 + 0.05 * math.sin(i / 7.0)
        prices = {
            "SIM:ACQ": acq,
            "SIM:BUY": buy,
            "SIM:TGA": 40.0 + p * (0.5 * acq - 40.0),
            "SIM:TGB": 30.0 if broken else 30.0 + p * (10.0 + 0.5 * buy - 30.0),
            "SIM:TGC": 20.0 + p * ((26.0 if i > 55 else 24.0) - 20.0),
        }
        if i > 50:
            del prices["SIM:TGA"]
        events.append(_batch(universe, ts, prices))
        acq *= math.exp(0.25 * math.sqrt(STEP / NS_PER_YEAR) * 3.0 * rng.gauss(0.0, 1.0))
        buy *= math.exp(0.25 * math.sqrt(STEP / NS_PER_YEAR) * 3.0 * rng.gauss(0.0, 1.0))
        if i == 45:
            broken = True
            events.append(notice_of(DealNotice(target="SIM:TGB", what="broken", text="blocked"), ts + STEP // 2))
        if i == 50:
            events.append(notice_of(DealNotice(target="SIM:TGA", what="closed"), ts + STEP // 4))
            into = (Conversion("SIM:TGA", "SIM:ACQ", Decimal("0.5")),)
            events.append(Corporate(ts_recv=ts + STEP // 2, what="merger", instrument="SIM:TGA", conversions=into))
        if i == 55:
            events.append(notice_of(DealNotice(target="SIM:TGC", what="amended", cash=26.0), ts + STEP // 2))
    return World(
        instruments=SHARES,
        events=tuple(events),
        end=START + LENGTH,
        names=NAMES,
        cash={"USD": Decimal(1_000_000)},
        remark=STEP,
        report_grid=STEP,
    )


def _batch(universe: Universe, ts: Nanos, prices: dict[str, float]) -> QuoteBatch:
    n = len(prices)
    return QuoteBatch(
        instrument=np.array([universe.index(key) for key in prices], dtype=np.int32),
        ts_event=np.full(n, ts, dtype=np.int64),
        ts_recv=np.full(n, ts, dtype=np.int64),
        bid=np.array([round(x - 0.02, 2) for x in prices.values()]),
        ask=np.array([round(x + 0.02, 2) for x in prices.values()]),
        bid_size=np.full(n, 500.0, dtype=np.float32),
        ask_size=np.full(n, 500.0, dtype=np.float32),
    )


def made() -> list[MergerArbitrage]:
    collar = Collar(kind="fixed_ratio", low=50.0, high=70.0, ratio=0.5)
    return [
        MergerArbitrage(
            deals=[
                Deal(target="SIM:TGA", acquirer="SIM:ACQ", ratio=0.5, expected_close=CLOSE, break_price=40.0, beta=0.7),
                Deal(
                    target="SIM:TGB",
                    acquirer="SIM:BUY",
                    cash=10.0,
                    collar=collar,
                    expected_close=CLOSE,
                    unaffected=30.0,
                    market="SIM:ACQ",
                    market_beta=0.1,
                    acquirer_jump=0.05,
                ),
                Deal(target="SIM:TGC", cash=24.0, expected_close=CLOSE, break_price=20.0),
            ],
            budget=5_000.0,
            half_width=10.0,
            stale_after=6 * STEP,
        )
    ]


CASE = Case(make=made, world=deal_world(), stale_after=6 * STEP, cuts=6)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_merger_arbitrage_keeps_the_law(check: Callable[[Case], None]) -> None:
    """Each law of a strategy holds for it."""
    check(CASE)
