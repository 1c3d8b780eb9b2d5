"""A comparison says what hedging did: risk, cost and result of each account on the same samples; law: costs stay apart from
effectiveness, and the verdict is said in words also when dynamic hedging loses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.units import Nanos

Floats = NDArray[np.float64]


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """Risk figures of one account in the base currency; None where too few samples stand."""

    pnl_std: float | None
    max_drawdown: float
    tail_loss: float | None
    upside_captured: float | None
    hedge_effectiveness: float | None
    regression_r2: float | None
    dollar_offset: float | None
    intervals: int


def steps_at(instants: Sequence[Nanos], values: Floats, start: Nanos, end: Nanos, interval: Nanos) -> Floats:
    """Changes of `values` over non-overlapping intervals from `start`, the last valid value carried.

    Shape: values (n,) at instants; result (intervals,). An interval that `end` cuts short is left out.
    """
    grid = np.arange(start, end + 1, interval, dtype=np.int64)
    if len(grid) < 2:
        return np.zeros(0)
    index = np.searchsorted(np.asarray(instants, dtype=np.int64), grid, side="right") - 1
    picked = values[np.maximum(index, 0)]
    return np.diff(picked)


def effectiveness(options: Floats, both: Floats) -> float | None:
    """1 - var(d(options + hedge)) / var(d options), population variances; None when options did not move."""
    if len(options) < 2:
        return None
    base = float(np.var(options))
    return None if base == 0.0 else 1.0 - float(np.var(both)) / base


def regression_r2(options: Floats, hedge: Floats) -> float | None:
    """R^2 of d options on d hedge with intercept; None when either did not move."""
    if len(options) < 3 or float(np.var(options)) == 0.0 or float(np.var(hedge)) == 0.0:
        return None
    return float(np.corrcoef(options, hedge)[0, 1] ** 2)


def dollar_offset(options: Floats, hedge: Floats) -> float | None:
    """-(sum of d hedge) / (sum of d options), the cumulative dollar-offset ratio; None when options made nothing."""
    made = float(np.sum(options))
    return None if made == 0.0 else -float(np.sum(hedge)) / made


def max_drawdown(path: Floats) -> float:
    """The largest fall of a P&L path from an earlier peak, from zero at the start."""
    if not len(path):
        return 0.0
    peak = np.maximum.accumulate(np.maximum(path, 0.0))
    return float(np.max(peak - path, initial=0.0))


def tail_loss(steps: Floats, share: float = 0.05) -> float | None:
    """Mean loss of the worst `share` of intervals (expected shortfall), positive for a loss; None under 20 intervals."""
    if len(steps) < 20:
        return None
    count = max(1, math.floor(share * len(steps)))
    return -float(np.mean(np.sort(steps)[:count]))


def upside(options: Floats, total: Floats) -> float | None:
    """Share of the unhedged gains (intervals where options made money) that the account kept; None when there were none."""
    gains = options > 0.0
    made = float(np.sum(options[gains]))
    return None if made <= 0.0 else float(np.sum(total[gains])) / made


def assess(instants: Sequence[Nanos], pnl: Floats, *, start: Nanos, end: Nanos, interval: Nanos) -> Risk:
    """Risk figures of one account. Shape: pnl (n, 3) with columns total, options, hedge at mid."""
    options = steps_at(instants, pnl[:, 1], start, end, interval)
    hedge = steps_at(instants, pnl[:, 2], start, end, interval)
    total = steps_at(instants, pnl[:, 0], start, end, interval)
    return Risk(
        pnl_std=float(np.std(total)) if len(total) > 1 else None,
        max_drawdown=max_drawdown(pnl[:, 0]),
        tail_loss=tail_loss(total),
        upside_captured=upside(options, total),
        hedge_effectiveness=effectiveness(options, options + hedge),
        regression_r2=regression_r2(options, hedge),
        dollar_offset=dollar_offset(options, hedge),
        intervals=len(options),
    )


def verdict(
    totals: Mapping[str, float],
    stds: Mapping[str, float | None],
    costs: Mapping[str, float],
    *,
    cash_only: bool = False,
) -> list[str]:
    """Who won, who was least risky and what hedging cost, in plain words; ties are said to be ties.

    `cash_only` True: nobody brought a book, so account `none` holds cash and nothing else; it is no book to be hedged.
    """
    if cash_only:
        stds = {name: value for name, value in stds.items() if name != "none"}
    best = max(totals.values())
    winners = [name for name, value in totals.items() if value == best]
    lines = [
        f"Best result: {_names(winners)} with {best:,.2f}"
        + (
            " (" + ", ".join(f"{n} {v:,.2f}" for n, v in totals.items() if n not in winners) + ")."
            if len(totals) > len(winners)
            else "."
        )
    ]
    known = {name: value for name, value in stds.items() if value is not None}
    if known:
        least = min(known.values())
        calm = [name for name, value in known.items() if value == least]
        lines.append(f"Least risky: {_names(calm)}, standard deviation {least:,.2f} an interval.")
    hedged = {name: value for name, value in costs.items() if name != "none"}
    if hedged:
        low = min(hedged.values())
        cheap = [name for name, value in hedged.items() if value == low]
        what = "Cheapest" if cash_only else "Cheapest hedge"
        lines.append(f"{what}: {_names(cheap)}, {low:,.2f} in costs.")
    if "dynamic" in totals:
        lines += _judge_against_cash(totals) if cash_only else _judge(totals, known)
    return lines


def _judge(totals: Mapping[str, float], stds: Mapping[str, float]) -> list[str]:
    lines: list[str] = []
    dynamic = totals["dynamic"]
    for other, word in (("static", "static hedge"), ("none", "no hedge")):
        if other not in totals:
            continue
        gap = dynamic - totals[other]
        if gap < 0:
            lines.append(f"Dynamic hedging made {-gap:,.2f} less than {word} in this session: {word} won.")
        elif gap > 0:
            lines.append(f"Dynamic hedging made {gap:,.2f} more than {word} in this session.")
    if "dynamic" in stds and "none" in stds and stds["none"] > 0:
        change = 1.0 - stds["dynamic"] / stds["none"]
        way = "lower" if change >= 0 else "HIGHER"
        lines.append(f"Its P&L swings were {abs(change):.0%} {way} than those of the unhedged book.")
    return lines


def _judge_against_cash(totals: Mapping[str, float]) -> list[str]:
    """The strategies against having acted once, and against the cash they began with."""
    lines: list[str] = []
    for other, word in (
        ("static", "than acting once and holding on"),
        ("none", "than cash alone, which is all none holds"),
    ):
        gap = totals["dynamic"] - totals[other] if other in totals else 0.0
        if gap:
            lines.append(f"The strategies made {abs(gap):,.2f} {'more' if gap > 0 else 'less'} {word}.")
    return lines


def _names(names: Sequence[str]) -> str:
    return " and ".join(names)
