"""A hedger with a plan for pauses cuts its band or takes its hedge off before them, keeps still in them, and comes back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from bot.core.events import FeedEvent, Reference
from bot.core.pauses import HOLD, Pausing
from bot.domain.calendar import Pause, Sessions, always_open, sessions
from bot.domain.units import FOREVER, NEVER, NS_PER_DAY, NS_PER_YEAR
from bot.engine.journal import Executed, Ordered, Skipped, TargetSet
from bot.pricing import black
from strategies.delta_hedger import DeltaHedger
from strategies.policies.delta_band import DeltaBand
from strategies.policies.fixed_interval import FixedInterval
from tests.simulation.bench import BY_MODEL, MINUTE, START, STOCK, Bench, hedger, minutes, option

D = Decimal
HOUR = 60 * MINUTE
CALL = option(100, days=20)


def days(*, halts: Sequence[tuple[int, int]] = (), count: int = 3) -> Sessions:
    """Sessions of three hours from the start on, one a day; halts in hours from the start."""
    n = np.arange(count)
    opens = START + n * NS_PER_DAY
    table = np.array([(START + a * MINUTE, START + b * MINUTE) for a, b in halts], dtype=np.int64).reshape(-1, 2)
    first = date(2024, 1, 2)
    origin = (first - date(1970, 1, 1)).days
    last = date(2024, 1, 1 + count)
    return sessions("24/7", first=first, last=last, dates=n + origin, opens=opens, closes=opens + 3 * HOUR, halts=table)


def run(strategy: DeltaHedger, events: Sequence[FeedEvent], *, calendar: Sessions | None = None, **rest: Any) -> Bench:
    known: dict[str, Any] = {
        "instruments": [STOCK, CALL], "openings": [(CALL.id, 10)], "valuation": BY_MODEL, "jump_freeze": None,
        "sessions": {"24/7": calendar or days()}, "end": START + 2 * NS_PER_DAY + 3 * HOUR,
    }  # fmt: skip
    return Bench([strategy], **(known | rest)).play(events)


def prices(seed: int = 3, *, rows: int = 181, scale: float = 0.05) -> list[float]:
    return (100 + np.cumsum(np.random.default_rng(seed).normal(0, scale, rows))).round(2).tolist()


def three_days(path: Sequence[float]) -> list[FeedEvent]:
    """A quote a minute in each session, none in the nights."""
    found: list[FeedEvent] = []
    for day in range(3):
        for event in minutes(path):
            ts = event.ts_recv + day * NS_PER_DAY
            found.append(
                type(event)(
                    **{**{f: getattr(event, f) for f in event.__struct_fields__}, "ts_recv": ts, "ts_event": ts}
                )
            )
    return found


def net(bench: Bench, spot: float, at: int) -> float:
    tau = (CALL.expiry - START - at) / NS_PER_YEAR
    return 1000 * float(black.bsm(spot, 100.0, tau, 0.20).delta) + float(held_at(bench, at))


def held_at(bench: Bench, at: int) -> Decimal:
    return sum((f.fill.quantity for f in bench.facts(Executed) if f.fill.ts <= START + at), D(0))


def test_a_band_is_cut_before_the_close_and_whole_again_after_the_open() -> None:
    """In the last half hour the net delta is held within a fifth of the half width, before and after within all of it."""
    path = prices()
    plan = Pausing(plan="shrink", lead=30 * MINUTE, width=0.2)
    bench = run(hedger(DeltaBand(half_width=50.0), overnight=plan), three_days(path))
    plain = run(hedger(DeltaBand(half_width=50.0)), three_days(path))
    for day in range(3):
        for k in range(150, 180):
            assert abs(net(bench, path[k], day * NS_PER_DAY + k * MINUTE)) <= 10.6, (day, k)
    wide = max(abs(net(bench, path[k], k * MINUTE)) for k in range(149))
    assert 30.0 < wide <= 50.6
    assert max(abs(net(plain, path[k], k * MINUTE)) for k in range(150, 180)) > 10.6
    assert len(bench.facts(Executed)) > len(plain.facts(Executed))


def test_a_rule_of_intervals_hedges_once_more_before_the_close() -> None:
    """A rule that waits is asked for the exact hedge at the lead, once, and goes on with its beat."""
    path = prices()
    plan = Pausing(plan="shrink", lead=10 * MINUTE)
    bench = run(hedger(FixedInterval(interval="1h"), overnight=plan), three_days(path), end=START + 4 * HOUR)
    found = [ts // MINUTE for ts in bench.when(TargetSet)]
    assert found[:-1] == [0, 60, 120, 170] and found[-1] in {180, 240}
    assert abs(net(bench, path[170], 170 * MINUTE)) <= 0.5


def test_a_hedge_is_taken_off_for_the_night_and_put_on_again() -> None:
    """From the lead on nothing is held; the first quote of the next session brings the hedge back, with reasons."""
    path = prices()
    plan = Pausing(plan="flatten", lead=15 * MINUTE)
    bench = run(hedger(DeltaBand(half_width=50.0), overnight=plan), three_days(path))
    for day in range(2):
        night = day * NS_PER_DAY
        assert held_at(bench, night + 164 * MINUTE) < -300
        assert held_at(bench, night + 165 * MINUTE) == 0
        assert held_at(bench, night + NS_PER_DAY - 1) == 0
        assert held_at(bench, night + NS_PER_DAY) < -300
    reasons = [f.reason for f in bench.facts(TargetSet)]
    assert sum("flat before the close at 2024-01-02T18:00:00Z, as planned" in r for r in reasons) == 1


def test_quotes_settle_before_the_exact_hedge_is_taken() -> None:
    """After the night nothing is asked for until the quotes have settled, then the exact hedge once, then the band."""
    path = prices(scale=0.01)
    night = three_days(path)
    moved = [e for e in night if e.ts_recv < START + NS_PER_DAY]
    jumped = three_days([p + 3.0 for p in path])
    events = [*moved, *(e for e in jumped if START + NS_PER_DAY <= e.ts_recv < START + 2 * NS_PER_DAY)]
    plan = Pausing(settle=5 * MINUTE, after="exact")
    bench = run(hedger(DeltaBand(half_width=50.0), overnight=plan), events, end=START + NS_PER_DAY + 2 * HOUR)
    later = [ts - NS_PER_DAY for ts in bench.when(Ordered) if ts >= NS_PER_DAY]
    assert later[0] == 5 * MINUTE
    assert abs(net(bench, path[5] + 3.0, NS_PER_DAY + 5 * MINUTE)) <= 0.5
    assert any("settle" in f.reason for f in bench.facts(Skipped))


@pytest.mark.parametrize("policy", [DeltaBand(half_width=20.0), FixedInterval(interval="5m")])
@pytest.mark.parametrize("after", ["policy", "exact"])
def test_in_a_halt_nothing_is_asked_for_and_after_it_the_hedge_is_made(policy: Any, after: Any) -> None:
    """No order leaves from the venue's halt to its end and the settling; the first look then is on a price from after it."""
    path = [100.0] * 60 + [103.0] * 60
    halt = [Reference(ts_recv=START + 30 * MINUTE, what="halted", instrument=STOCK.id)]
    resume = [Reference(ts_recv=START + 70 * MINUTE, what="resumed", instrument=STOCK.id)]
    quotes = minutes(path)
    events: list[FeedEvent] = [*quotes[:30], *halt, *quotes[30:70], *resume, *quotes[70:]]
    plan = Pausing(settle=2 * MINUTE, after=after)
    bench = run(hedger(policy, halt=plan), events, end=START + 2 * HOUR)
    inside = [ts for ts in bench.when(Ordered) if 30 * MINUTE <= ts < 72 * MINUTE]
    assert not inside
    after_it = [ts for ts in bench.when(Ordered) if ts >= 72 * MINUTE]
    assert after_it and after_it[0] <= 77 * MINUTE
    left = abs(net(bench, 103.0, after_it[0]))
    assert left <= (0.5 if after == "exact" or isinstance(policy, FixedInterval) else 20.6)
    assert not bench.account.refusals
    assert any("is halted" in f.reason for f in bench.facts(Skipped))


def test_a_halt_of_the_calendar_is_foreseen() -> None:
    """Before a halt that the calendar names the hedge is taken off, and after it put on again."""
    path = [100.0] * 181
    calendar = days(halts=[(60, 90)])
    events = [e for e in minutes(path) if not START + 60 * MINUTE <= e.ts_recv < START + 90 * MINUTE]
    plan = Pausing(plan="flatten", lead=5 * MINUTE)
    bench = run(hedger(DeltaBand(half_width=20.0), halt=plan), events, calendar=calendar, end=START + 2 * HOUR)
    traded = [(f.fill.ts - START, f.fill.quantity) for f in bench.facts(Executed)][:3]
    assert [ts // MINUTE for ts, _ in traded] == [0, 55, 90]
    assert traded[0][1] < -450 and traded[0][1] + traded[1][1] == 0 and traded[2][1] < -450


def test_without_a_plan_pauses_change_nothing() -> None:
    """Plans that hold are the same as none, fact for fact."""
    path = prices()
    one = run(hedger(DeltaBand(half_width=50.0)), three_days(path))
    other = run(hedger(DeltaBand(half_width=50.0), overnight=HOLD, halt=Pausing()), three_days(path))
    assert one.journal.chain == other.journal.chain


def test_the_next_pause_is_the_halt_or_the_night_whichever_comes_first() -> None:
    """A table of sessions knows the pause that is on, the next one, and that it does not know what follows its last."""
    table = days(halts=[(60, 90)])
    halt = Pause(START + 60 * MINUTE, START + 90 * MINUTE, halt=True)
    night = Pause(START + 3 * HOUR, START + NS_PER_DAY, halt=False)
    assert table.pause_at(START) == table.pause_at(START + 60 * MINUTE) == table.pause_at(START + 89 * MINUTE) == halt
    assert table.pause_at(START + 90 * MINUTE) == table.pause_at(START + 4 * HOUR) == night
    assert table.pause_at(START - 1) == Pause(NEVER, START, halt=False)
    end = START + 2 * NS_PER_DAY + 3 * HOUR
    assert table.pause_at(end) == Pause(end, FOREVER, halt=False)
    assert always_open().pause_at(START).end == FOREVER


@pytest.mark.parametrize("keys", [{"width": 1.5}, {"width": -0.1}, {"lead": -1}, {"settle": -1}])
def test_plans_that_make_no_sense_are_refused(keys: dict[str, Any]) -> None:
    """Widths beyond 0 to 1 and negative lengths are named."""
    with pytest.raises(ValueError, match="expected"):
        Pausing(**keys)
