"""A quote goes stale by its own feed's habit, by monotonic time alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import ConfigError
from bot.core.staleness import Staleness, StalenessRule

MS = 1_000_000
S = 1_000 * MS


def spoken(rule: StalenessRule, gaps: list[int]) -> tuple[Staleness, int]:
    """An instrument that was heard after each of the gaps, and the instant of the last."""
    staleness, now = Staleness(rule), 0
    staleness.hear(0, mono=0, bid=9.0, ask=9.5)
    for gap in gaps:
        now += gap
        staleness.hear(0, mono=now, bid=9.0, ask=9.5)
    return staleness, now


def test_silence_is_measured_against_the_instruments_own_gap() -> None:
    """Five typical gaps of silence are fresh, a nanosecond more is stale; a slow instrument is given more than a fast one."""
    for gap in (250 * MS, 2 * S, 8 * S):
        staleness, now = spoken(StalenessRule(k=5.0), [gap] * 20)
        assert staleness.gap(0) == gap
        assert staleness.goes_stale(0) == now + 5 * gap
        assert staleness.why(0, mono=now + 5 * gap) is None
        assert staleness.why(0, mono=now + 5 * gap + 1) == "silent"


def test_the_allowance_has_a_floor_and_a_ceiling() -> None:
    """A feed of microseconds may pause a second, one of minutes is stale after sixty; one heard once has the ceiling."""
    fast, now = spoken(StalenessRule(), [50_000] * 20)
    assert (fast.why(0, mono=now + S), fast.why(0, mono=now + S + 1)) == (None, "silent")
    slow, now = spoken(StalenessRule(), [50 * S] * 20)
    assert (slow.why(0, mono=now + 60 * S), slow.why(0, mono=now + 60 * S + 1)) == (None, "silent")
    once, now = spoken(StalenessRule(), [])
    assert (once.why(0, mono=60 * S), once.why(0, mono=60 * S + 1)) == (None, "silent")
    assert math.isnan(once.gap(0))


def test_what_was_never_heard_is_stale() -> None:
    """An instrument without a quote is stale and has no age; one that ended is forgotten."""
    staleness = Staleness()
    assert (staleness.why("X", mono=0), staleness.age("X", mono=0), staleness.goes_stale("X")) == (
        "never seen",
        None,
        None,
    )
    staleness.hear("X", mono=5, bid=1.0, ask=2.0)
    assert (staleness.why("X", mono=9), staleness.age("X", mono=9)) == (None, 4)
    staleness.forget("X")
    assert staleness.why("X", mono=9) == "never seen"


@pytest.mark.parametrize(
    ("bid", "ask", "lag", "why"),
    [
        (9.0, 9.5, 0, None),
        (9.5, 9.5, 0, None),
        (9.5, 9.0, 0, "crossed"),
        (9.5, 0.0, 0, "crossed"),
        (0.0, 0.0, 0, "zero"),
        (0.0, 0.05, 0, None),
        (-37.7, -37.6, 0, None),
        (math.nan, 9.5, 0, None),
        (math.nan, math.nan, 0, None),
        (9.0, 9.5, 5 * S, None),
        (9.0, 9.5, 5 * S + 1, "late"),
        (9.0, 9.5, -3600 * S, None),
        (9.0, 9.5, None, None),
    ],
)
def test_a_quote_may_be_stale_as_it_arrives(bid: float, ask: float, lag: int | None, why: str | None) -> None:
    """Crossed, zero and late quotes are stale at once and until a good one comes; locked and one-sided ones are not."""
    staleness = Staleness()
    staleness.hear(0, mono=0, bid=9.0, ask=9.5)
    assert staleness.hear(0, mono=1, bid=bid, ask=ask, lag=lag) == why
    assert staleness.why(0, mono=2) == why
    assert (staleness.goes_stale(0) is None) == (why is not None)
    assert staleness.hear(0, mono=3, bid=9.0, ask=9.5) is None
    assert staleness.why(0, mono=4) is None


def test_a_price_that_never_moves_is_frozen() -> None:
    """A feed that repeats one price longer than it may is stale though it speaks; a move on either side thaws it."""
    staleness = Staleness(StalenessRule(frozen_after=30 * S))
    for second in range(31):
        assert staleness.hear(0, mono=second * S, bid=9.0, ask=9.5) is None
    assert staleness.hear(0, mono=31 * S, bid=9.0, ask=9.5) == "frozen"
    assert staleness.hear(0, mono=32 * S, bid=9.0, ask=9.6) is None
    blank = Staleness(StalenessRule(frozen_after=30 * S))
    for second in range(32):
        last = blank.hear(0, mono=second * S, bid=math.nan, ask=9.5)
    assert last == "frozen"


def test_an_outage_is_not_learnt_as_a_habit() -> None:
    """After an hour of absence the typical gap has grown by no more than what was allowed weighs."""
    staleness, now = spoken(StalenessRule(k=5.0, memory=50.0), [S] * 20)
    staleness.hear(0, mono=now + 3600 * S, bid=9.0, ask=9.5)
    assert staleness.gap(0) == pytest.approx(S + (5 * S - S) / 50)


def test_a_slower_feed_is_believed_in_time() -> None:
    """A feed that slows down tenfold for good is judged by its new gap after some minutes."""
    staleness, now = spoken(StalenessRule(), [S] * 50 + [10 * S] * 400)
    assert staleness.gap(0) == pytest.approx(10 * S, rel=0.01)
    assert staleness.why(0, mono=now + 45 * S) is None


def test_quotes_of_one_instant_are_one_word() -> None:
    """A burst stamped alike does not make an instrument look fast."""
    staleness, now = spoken(StalenessRule(), [2 * S] * 10)
    for _ in range(1000):
        staleness.hear(0, mono=now, bid=9.0, ask=9.5)
    assert staleness.gap(0) == 2 * S


@given(
    gaps=st.lists(st.integers(0, 10**13), max_size=60),
    k=st.floats(1.01, 100),
    memory=st.floats(1, 1000),
    silence=st.integers(0, 10**12),
)
def test_stale_exactly_past_what_it_says(gaps: list[int], k: float, memory: float, silence: int) -> None:
    """Whatever was heard, the allowance lies in its bounds and `why` turns exactly after `goes_stale`."""
    rule = StalenessRule(k=k, memory=memory)
    staleness, now = spoken(rule, gaps)
    until = staleness.goes_stale(0)
    assert until is not None
    assert rule.least <= until - now <= rule.most
    assert (staleness.why(0, mono=now + silence) == "silent") == (now + silence > until)
    assert not staleness.gap(0) > rule.most


@pytest.mark.parametrize(
    "bad",
    [
        {"k": 1.0},
        {"k": math.nan},
        {"k": math.inf},
        {"memory": 0.5},
        {"least": 0},
        {"least": 10, "most": 9},
        {"lag": 0},
        {"frozen_after": -1},
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    """Bounds outside their domain are refused by name."""
    with pytest.raises(ConfigError, match="staleness: expected"):
        StalenessRule(**bad)  # type: ignore[arg-type]  # the point of the test
