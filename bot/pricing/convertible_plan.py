"""A plan is a convertible's life from maturity back to today as one table of rows; law: a row says all that happens in it.

The march over the grid (compiled in `convertible_kernels`, readable in `convertible_steps`) knows no dates: it takes the
rows in order. A row with time is one step of the pricing equation, a row without is an instant: coupon in, dividend
out, decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.domain.convertible import SAME_INSTANT, Call, ConvertibleTerms
from bot.domain.units import Years

Array = NDArray[np.float64]

DT: Final = 0
"""Years of this step; 0 is an instant."""
DAMPED: Final = 1
"""1 for a fully implicit step (Rannacher 1984), else Crank-Nicolson."""
COUPON: Final = 2
DIVIDEND: Final = 3
"""Cash per share that goes ex here."""
RATIO: Final = 4
"""Shares per bond for who converts at the row's (earlier) end; 0 when conversion is closed."""
CLAIM: Final = 5
"""Shares per bond for who converts on a default inside the step."""
CALL: Final = 6
"""What the issuer pays on a call, accrued included; infinite when there is none."""
TRIGGER: Final = 7
"""Parity from which the call may be used."""
PUT: Final = 8
"""What the holder gets on a put, accrued included; minus infinite when there is none."""
COLUMNS: Final = 9

LEAST_STEPS: Final = 3
"""Steps in the shortest stretch between two instants."""
DAMPED_STEPS: Final = 2
"""Steps after each instant that are split into two implicit halves (Giles and Carter 2006)."""


class Rights(NamedTuple):
    """What holder and issuer may do at one moment, in the plan's columns."""

    ratio: float
    call: float
    trigger: float
    put: float


class Plan(NamedTuple):
    """Shape: rows (n, 9). `shares` convert at maturity (0: closed), `cash` is redeemed, `coupon` is the last one."""

    rows: Array
    shares: float
    cash: float
    coupon: float
    keeps_coupon: bool
    now: Rights


def plan(terms: ConvertibleTerms, *, at: Years, dividends: Sequence[tuple[Years, float]], steps: int) -> Plan:
    """The rows from maturity back to `at`, about `steps` of them with time. Domain: at < maturity.

    `dividends` are (time, cash per share) on the terms' axis; those at or before `at`, or after maturity, have no effect.
    Coupons, dividends and changes of ratio at `at` itself have happened.
    """
    times = instants(terms, at, dividends)
    rows = [
        row for segment in range(len(times) - 1, 0, -1) for row in _stretch(terms, times, segment, dividends, steps)
    ]
    end = terms.maturity
    begin, finish = terms.conversion_window
    opened = finish >= end - SAME_INSTANT and begin <= end + SAME_INSTANT
    return Plan(
        rows=np.array(rows, dtype=np.float64).reshape(-1, COLUMNS),
        shares=terms.ratio_at(end) if opened else 0.0,
        cash=terms.redeemed,
        coupon=terms.coupon_at(end),
        keeps_coupon=terms.converter_keeps_coupon,
        now=rights_at(terms, at),
    )


def instants(terms: ConvertibleTerms, at: Years, dividends: Sequence[tuple[Years, float]]) -> list[Years]:
    """`at`, each instant between at which something happens, maturity: ascending, equal ones merged."""
    found = [time for time, _ in (*terms.coupons, *terms.ratio_changes, *dividends)]
    found += [edge for call in terms.calls for edge in (call.start, call.end)]
    found += [edge for put in terms.puts for edge in (put.start, put.end)]
    found += [edge for edge in terms.conversion_window if math.isfinite(edge)]
    times = [at]
    for time in sorted(found):
        if times[-1] + SAME_INSTANT < time < terms.maturity - SAME_INSTANT:
            times.append(time)
    return [*times, terms.maturity]


def rights_at(terms: ConvertibleTerms, time: Years) -> Rights:
    """What may be done at the instant `time`, its coupon paid: every window that holds the instant counts."""
    return _rights(terms, time, time, time, terms.accrued(time))


def _rights(terms: ConvertibleTerms, time: Years, left: Years, right: Years, accrued: float) -> Rights:
    """What may be done at `time` by the windows that hold all of [left, right]."""
    begin, finish = terms.conversion_window
    opened = _holds(begin, finish, left, right)
    calls = [call for call in terms.calls if _holds(call.start, call.end, left, right)]
    call = min(calls, key=lambda one: one.price, default=None)
    puts = [
        put.price + (accrued if put.clean else 0.0) for put in terms.puts if _holds(put.start, put.end, left, right)
    ]
    return Rights(
        ratio=terms.ratio_at(left) if opened else 0.0,
        call=math.inf if call is None else dirty(call, accrued),
        trigger=0.0 if call is None else call.trigger * terms.face,
        put=max(puts, default=-math.inf),
    )


def dirty(call: Call, accrued: float) -> float:
    """What the issuer pays on a call."""
    return call.price + (accrued if call.clean else 0.0)


def _holds(start: Years, end: Years, left: Years, right: Years) -> bool:
    return start <= left + SAME_INSTANT and right <= end + SAME_INSTANT


def _stretch(
    terms: ConvertibleTerms,
    times: Sequence[Years],
    segment: int,
    dividends: Sequence[tuple[Years, float]],
    steps: int,
) -> Iterator[tuple[float, ...]]:
    """Rows from just before times[segment], coupon in, to just after times[segment - 1]."""
    left, right = times[segment - 1], times[segment]
    last = segment == len(times) - 1
    coupon = terms.coupon_at(right)
    paid = sum(amount for time, amount in dividends if abs(time - right) <= SAME_INSTANT)
    before = _rights(terms, right, left, right, _accrued_before(terms, right, coupon))
    # at maturity the coupon is part of what is paid there
    yield (0.0, 0.0, 0.0 if last else coupon, paid, before.ratio, 0.0, before.call, before.trigger, before.put)
    span = right - left
    count = max(math.ceil(steps * span / (times[-1] - times[0]) - 1e-9), LEAST_STEPS)
    full = span / count
    clock = 0.0
    for step in range(count + DAMPED_STEPS):
        damped = step < 2 * DAMPED_STEPS
        dt = 0.5 * full if damped else full
        clock += dt
        time = left if step == count + DAMPED_STEPS - 1 else right - clock
        now = _rights(terms, time, left, right, terms.accrued(time))
        yield (dt, float(damped), 0.0, 0.0, now.ratio, now.ratio, now.call, now.trigger, now.put)
    here = rights_at(terms, left)
    yield (0.0, 0.0, 0.0, 0.0, here.ratio, 0.0, here.call, here.trigger, here.put)


def _accrued_before(terms: ConvertibleTerms, time: Years, coupon: float) -> float:
    """Interest accrued just before the instant: all of the coupon on a coupon date."""
    return coupon if coupon > 0.0 else terms.accrued(time)
