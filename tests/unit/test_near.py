"""Near is a bound: no move inside it shifts the net delta by the slack, and the compiled form is the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.domain.units import NS_PER_YEAR
from bot.pricing import black
from bot.pricing.near import FARTHEST, LONGEST, near_by_formula, near_kernel

LEG = st.tuples(
    st.floats(0.5, 1.6),  # strike over spot
    st.floats(1e-4, 3.0),  # years
    st.floats(0.02, 2.0),  # vol
    st.sampled_from([-1.0, 1.0]),
    st.floats(-1e4, 1e4).filter(lambda w: abs(w) > 1e-3),
)
BOOK = st.lists(LEG, min_size=1, max_size=8)
RATE = st.floats(-0.1, 0.2)


def packed_of(legs: list[tuple[float, ...]], spot: float) -> np.ndarray:
    strike, tau, vol, cp, weight = (np.array(column) for column in zip(*legs, strict=True))
    expiry = np.round(tau * NS_PER_YEAR).astype(np.int64)
    return black.pack_slice(strike=strike * spot, expiry=expiry, vol=vol, cp=cp, weight=weight, epoch=0)


@given(BOOK, st.floats(0.01, 1e4), RATE, RATE, st.floats(1e-6, 1e4))
def test_the_compiled_bound_is_the_formula(
    legs: list[tuple[float, ...]], spot: float, rate: float, dividend: float, slack: float
) -> None:
    """Both forms agree to rounding on any book."""
    packed = packed_of(legs, spot)
    _, gamma = black.slice_kernel()(spot, 0, packed, rate, dividend)
    fast = near_kernel()(spot, 0, packed, rate, dividend, gamma, slack)
    assert fast == pytest.approx(near_by_formula(spot, 0, packed, rate, dividend, gamma, slack), rel=1e-11)


@settings(max_examples=150)
@given(BOOK, st.floats(0.01, 1e4), RATE, RATE, st.floats(1e-5, 1.0), st.randoms(use_true_random=False))
def test_no_move_inside_the_room_uses_up_the_slack(
    legs: list[tuple[float, ...]], spot: float, rate: float, dividend: float, share: float, chance: object
) -> None:
    """A search over the box, its corners first and then uphill from the worst point, finds no move of the slack's size."""
    packed = packed_of(legs, spot)
    net = black.slice_kernel()
    delta, gamma = net(spot, 0, packed, rate, dividend)
    slack = share * float(np.abs(packed[:, 4]).sum())
    h, years = near_kernel()(spot, 0, packed, rate, dividend, gamma, slack)
    assert 0.0 < h <= FARTHEST * spot
    assert 0.0 < years <= LONGEST * min(leg[1] for leg in legs) * (1 + 1e-9)
    length = int(years * NS_PER_YEAR)

    def moved(x: float, t: float) -> float:
        return abs(net(spot + x * h, int(t * length), packed, rate, dividend)[0] - delta)

    grid = [(x, t) for x in np.linspace(-1, 1, 9) for t in (0.0, 0.3, 1.0)]
    worst = max(grid, key=lambda p: moved(*p))
    step = 0.25
    while step > 1e-3:
        near = [(worst[0] + a * step, worst[1] + b * step) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        better = max(((min(max(x, -1), 1), min(max(t, 0), 1)) for x, t in near), key=lambda p: moved(*p))
        if moved(*better) > moved(*worst):
            worst = better
        else:
            step /= 2
    assert moved(*worst) < slack


@pytest.mark.parametrize(
    "change",
    [{"spot": math.nan}, {"spot": -1.0}, {"gamma": math.nan}, {"slack": 0.0}, {"slack": -1.0}, {"slack": math.nan},
     {"slack": math.inf}, {"elapsed": NS_PER_YEAR}, {"vol": 0.0}, {"vol": math.nan}, {"slack": 1e-9}],
)  # fmt: skip
def test_what_is_not_known_promises_nothing(change: dict[str, float]) -> None:
    """An unknown price or Greek, no slack, an expired leg or one without vol leave no room."""
    given_ = {"spot": 100.0, "elapsed": 0, "gamma": 1.0, "slack": 10.0, "vol": 0.2} | change
    packed = black.pack_slice(strike=100.0, expiry=NS_PER_YEAR, vol=given_["vol"], cp=1, weight=100.0, epoch=0)
    args = (given_["spot"], int(given_["elapsed"]), packed, 0.0, 0.0, given_["gamma"], given_["slack"])
    assert near_kernel()(*args) == (0.0, 0.0)
    assert near_by_formula(*args) == (0.0, 0.0)
