"""Boxes that compiled code issues anew: the same rows, marks and boxes as the plain loop, and the same facts as without."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from bot.core.quiet import ANY_PRICE, FOREVER, NO_PRICE, QuietBox, Renewal
from bot.domain.instruments import Universe
from bot.domain.units import NS_PER_SECOND
from bot.engine import renewal
from bot.engine.marks import Marks
from bot.pricing import black
from strategies.policies.delta_band import DeltaBand
from tests.replay.test_quiet import FUTURE, Unsure, contracts, played, session, told
from tests.simulation.bench import START, STOCK


def boxes_of(rng: np.random.Generator, universe: Universe, legs: list) -> list[QuietBox | None]:  # type: ignore[type-arg]  # any contracts
    """One to three boxes of random legs, some that can be renewed, some that cannot, one None."""
    stock, future = universe.index(STOCK.id), universe.index(FUTURE.id)
    made: list[QuietBox | None] = [None]
    for _ in range(int(rng.integers(1, 4))):
        weight = np.round(rng.normal(0.0, 300.0, len(legs)))
        packed = black.pack_slice(
            strike=[float(leg.strike) for leg in legs],
            expiry=np.array([leg.expiry for leg in legs]),
            vol=rng.uniform(0.1, 0.5, len(legs)),
            cp=[leg.cp for leg in legs],
            weight=weight,
            epoch=START,
        )
        rate = float(rng.choice([0.0, 0.04]))
        delta = black.slice_kernel()(100.0, 0, packed, rate, 0.01)[0]
        item = Renewal(
            column=stock,
            packed=packed,
            epoch=START,
            rate=rate,
            dividend=0.01,
            linear=float(rng.choice([0.0, 7.0])),
            stale_after=int(rng.choice([FOREVER, 5 * NS_PER_SECOND])),
            held=-round(delta),
            sure=float(rng.choice([0.5, 20.0, 300.0])),
        )
        made.append(QuietBox(START, {future: ANY_PRICE, stock: NO_PRICE}, (item,)))
    if rng.random() < 0.5:
        made.append(QuietBox(START + 60 * NS_PER_SECOND, {future: (150.0, 250.0)}))
    return made


@pytest.mark.parametrize("seed", range(60))
def test_the_compiled_scan_is_the_plain_one(seed: int) -> None:
    """Both stop at the same row, leave the same marks and the same boxes, and go on alike from there."""
    rng = np.random.default_rng(seed)
    legs = contracts(rng)
    universe = Universe([STOCK, FUTURE, *legs])
    rows = session(rng, universe, legs, 600)
    boxes = boxes_of(rng, universe, legs)
    due = int(rows.ts_recv[int(rng.integers(200, 600))])
    fast, slow = renewal.lay(boxes, len(universe)), renewal.lay(boxes, len(universe))
    quick, plain = Marks(universe), Marks(universe)
    at = 0
    scan = renewal.renewing_scanner()
    for _ in range(40):
        if at >= len(rows):
            break
        stop = scan(rows, at, quick, fast, due)
        assert stop == renewal.scan_by_rows(rows, at, plain, slow, due)
        np.testing.assert_array_equal(fast.numbers, slow.numbers)
        np.testing.assert_array_equal(fast.whole, slow.whole)
        np.testing.assert_array_equal(fast.around.lo, slow.around.lo)
        np.testing.assert_array_equal(fast.around.hi, slow.around.hi)
        quick.fold_quotes(
            rows, at, stop
        )  # what was folded of the instant it stopped before is folded again by the loop
        plain.fold_quotes(rows, at, stop)
        at = max(stop, at + 1)


def test_boxes_laid_again_are_boxes_laid_anew() -> None:
    """Writing new numbers into columns laid before gives what laying them anew gives, whatever was renewed between."""
    rng = np.random.default_rng(5)
    legs = contracts(rng)
    universe = Universe([STOCK, FUTURE, *legs])
    rows = session(rng, universe, legs, 300)
    boxes = [box for box in boxes_of(rng, universe, legs) if box is not None and box.renewals][:1]
    ground = renewal.lay(boxes, len(universe))
    renewal.renewing_scanner()(rows, 0, Marks(universe), ground, FOREVER - 1)
    found = renewal.renewed(boxes, ground)
    assert found != boxes
    again = renewal.lay(found, len(universe), copy.deepcopy(ground)._replace(legs=ground.legs))
    anew = renewal.lay(found, len(universe))
    for one, other in ((again.numbers, anew.numbers), (again.whole, anew.whole), (again.packed, anew.packed)):
        np.testing.assert_array_equal(one, other)
    for one, other in zip((*again.around, *again.base), (*anew.around, *anew.base), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(1000, 1040))
def test_renewals_change_no_fact_and_no_sample(seed: int) -> None:
    """A random run with boxes that compiled code renews is the run without any, step by step, however it is cut."""
    plain = told(played(seed, Unsure))
    for rows in (1, 13, 500, 3000):
        assert told(played(seed, DeltaBand, batch=rows)) == plain
