"""A policy answers one shape for numbers and arrays, and a decision rounds inside and never oscillates."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.ports import Band, BandInput, Glances, HedgePolicy
from bot.domain.units import NEVER, NS_PER_MINUTE
from strategies.policies.decide import decide, round_lots
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from strategies.policies.no_hedge import NoHedge
from strategies.policies.static_hedge import StaticHedge

D = Decimal
ONE = D(1)
INF = math.inf
POLICIES: list[HedgePolicy] = [
    NoHedge(),
    StaticHedge(),
    FixedInterval(interval="1m"),
    DeltaBand(half_width=10.0),
    DeltaBand(half_width=0.0),
    DeltaBand(half_width=10.0, to="centre"),
]


def seen(**changes: Any) -> BandInput:
    known: dict[str, Any] = {
        "now": NS_PER_MINUTE, "spot": 100.0, "want": -5.3, "held": -2.0, "gamma": 0.1, "tau": 0.1, "vol": 0.2,
        "rate": 0.0, "per_contract": 1.0, "cost": 0.0, "last_hedge_ts": NEVER, "last_hedge_spot": math.nan,
    }  # fmt: skip
    return BandInput(**(known | changes))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.name)
def test_arrays_answer_as_their_elements_do(policy: HedgePolicy) -> None:
    """The band of an array is the array of the bands, in its shape."""
    want = np.array([[-5.3, 0.0, 7.0], [1.5, -0.5, 2.5]])
    last = np.array([[-1, 0, NS_PER_MINUTE], [-1, -1, 0]])
    per = np.array([[1.0, 50.0, -2.0]])
    whole = policy.band(seen(want=want, last_hedge_ts=last, per_contract=per))
    for at in np.ndindex(want.shape):
        one = policy.band(seen(want=float(want[at]), last_hedge_ts=int(last[at]), per_contract=float(per[0, at[1]])))
        assert (whole.lo[at], whole.hi[at]) == (one.lo, one.hi)
        assert (whole.to is None) == (one.to is None)
        if one.to is not None:
            assert whole.to[at] == one.to
    assert np.shape(whole.lo) == np.shape(whole.hi) == want.shape


@pytest.mark.parametrize(
    ("policy", "changes", "lo", "hi"),
    [
        (NoHedge(), {}, -INF, INF),
        (StaticHedge(), {}, -5.3, -5.3),
        (StaticHedge(), {"last_hedge_ts": 0}, -INF, INF),
        (FixedInterval(interval="1m"), {}, -5.3, -5.3),
        (FixedInterval(interval="1m"), {"last_hedge_ts": 0}, -5.3, -5.3),
        (FixedInterval(interval="1m"), {"last_hedge_ts": 1}, -INF, INF),
        (DeltaBand(half_width=10), {}, -15.3, 4.7),
        (DeltaBand(half_width=10), {"per_contract": 50.0}, -5.5, -5.1),
        (DeltaBand(half_width=10), {"per_contract": -50.0}, -5.5, -5.1),
    ],
)
def test_bands_by_hand(policy: HedgePolicy, changes: dict[str, Any], lo: float, hi: float) -> None:
    """Never, once, every minute, and within ten deltas of the exact hedge."""
    band = policy.band(seen(**changes))
    assert (band.lo, band.hi) == (pytest.approx(lo), pytest.approx(hi))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DeltaBand(half_width=-1.0), "half_width"),
        (lambda: DeltaBand(half_width=math.nan), "half_width"),
        (lambda: DeltaBand(half_width=1.0, to="middle"), "'edge' or 'centre'"),  # type: ignore[arg-type]  # a wrong word
        (lambda: FixedInterval(interval=0), "longer than zero"),
        (lambda: FixedInterval(interval="soon"), "length of time"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, words: str) -> None:
    """A negative width, an unknown word or an empty interval names what was expected."""
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("band", "held", "quantity", "stay"),
    [
        (Band(-2.5, -2.5), 0.0, -3, False),
        (Band(2.5, 2.5), 0.0, 3, False),
        (Band(2.4, 2.4), 2.0, 2, True),
        (Band(-3.2, 4.8), 0.0, 0, True),
        (Band(1.2, 4.8), 0.0, 2, False),
        (Band(-4.8, -1.2), 0.0, -2, False),
        (Band(1.2, 4.8), 9.0, 4, False),
        (Band(-4.8, -1.2), -9.0, -4, False),
        (Band(1.2, 4.8, 3.5), 9.0, 4, False),
        (Band(2.2, 2.8), 2.0, 3, False),
        (Band(2.2, 2.8), 3.0, 3, True),
        (Band(2.1, 2.4), 3.0, 2, False),
        (Band(2.1, 2.4), 2.0, 2, True),
        (Band(-INF, INF), 7.0, 7, True),
        (Band(math.nan, math.nan), 7.0, 7, True),
        (Band(-INF, 3.4), 9.0, 3, False),
        (Band(3.4, INF), 0.0, 4, False),
    ],
)
def test_decisions_by_hand(band: Band, held: float, quantity: int, stay: bool) -> None:
    """Exact bands round half away from zero, edges round inside, a band narrower than a lot goes to its middle."""
    decision = decide(band, held, ONE, policy="p")
    assert (decision.quantity, decision.stay) == (D(quantity), stay)
    assert decision.reason.startswith("p: ")


def test_toward_zero_never_over_hedges() -> None:
    """With rounding toward zero an exact hedge of 2.9 is 2 and of -2.9 is -2."""
    found = [decide(Band(w, w), 0.0, ONE, policy="p", toward_zero=True).quantity for w in (2.9, -2.9, 0.9)]
    assert found == [2, -2, 0]


def test_without_a_lot_quantities_are_exact() -> None:
    """No lot, no rounding; other lots are kept to."""
    assert decide(Band(0.1, 0.1), 0.0, None, policy="p").quantity == D("0.1")
    assert decide(Band(0.37, 0.37), 0.0, D("0.25"), policy="p").quantity == D("0.25")
    assert round_lots(-7.5, D(5), "ROUND_HALF_UP") == -10


numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))
lots = st.sampled_from([D(1), D("0.25"), D(10), D("0.001"), None])


@given(numbers, st.floats(0, 50), numbers, lots, st.booleans(), st.booleans())
def test_a_decision_is_at_rest_after_one_trade(
    middle: float, half: float, held: float, lot: Decimal | None, centre: bool, toward_zero: bool
) -> None:
    """Whatever the band, also one narrower than a lot: what a decision asks to hold, the same band leaves alone."""
    band = Band(middle - half, middle + half, middle if centre else None)
    first = decide(band, held, lot, policy="p", toward_zero=toward_zero)
    again = decide(band, float(first.quantity), lot, policy="p", toward_zero=toward_zero)
    assert again.stay
    assert again.quantity == first.quantity


@given(numbers, st.floats(0, 50), numbers, lots)
def test_an_edge_decision_lands_inside_when_a_lot_fits(
    middle: float, half: float, held: float, lot: Decimal | None
) -> None:
    """If any whole lot lies in the band the holding ends inside it, and never moves further than it must."""
    band = Band(middle - half, middle + half)
    decision = decide(band, held, lot, policy="p")
    inside = (
        True if lot is None else round_lots(band.lo, lot, "ROUND_CEILING") <= round_lots(band.hi, lot, "ROUND_FLOOR")
    )
    if inside and band.lo < band.hi:
        assert band.lo <= float(decision.quantity) <= band.hi
        reach = max(band.lo - held, held - band.hi, 0.0)
        assert abs(float(decision.quantity) - held) <= reach + float(lot or 0) + 1e-6


@given(numbers, numbers, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.sampled_from([1.0, -1.0]))
def test_a_glance_never_says_stay_where_the_band_would_trade(
    want: float, held: float, half: float, per: float, side: float
) -> None:
    """Where `stays` is True the holding lies inside the band."""
    policy = DeltaBand(half_width=half)
    assert isinstance(policy, Glances)
    if policy.stays(want, held, side * per):
        band = policy.band(seen(want=want, held=held, per_contract=side * per))
        assert band.lo <= held <= band.hi
