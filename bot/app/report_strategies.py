"""The strategies' section is what each of them says of itself: figures by account and gauges over time; law: it knows no
strategy, it shows what `Reports.figures` and `StrategyView.gauge` gave, and what is not known is a dash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from bot.app import plots
from bot.app.plots import Line, Panel
from bot.app.report_html import (
    DASH,
    Column,
    Markup,
    chart,
    figure,
    legend_of,
    money,
    names,
    plain,
    quantity,
    section,
    swatch,
    table,
    tag,
    when,
)
from bot.app.report_material import DYNAMIC, Floats, Material
from bot.domain.units import parse_instant

SAME_SCALE: Final = 25.0
"""Gauges share a panel while the largest reaches no further than this many times the smallest."""
MOST_LINES: Final = 6
MOST_PANELS: Final = 4
MOST_NAMED: Final = 8
"""Instruments of a stressed strategy that are named."""

Figures = Mapping[str, Mapping[str, float | str | None]]


def strategies_section(m: Material) -> Markup:
    """Each strategy's figures in every account that ran it, and its gauges in the first."""
    told: Mapping[str, Mapping[str, Any]] = m.doc.get("strategies", {})
    of = {name: None for account in m.accounts for name in told.get(account, {})}
    if not of:
        return section("strategies", "Strategies", tag("p", "No strategy of this run says figures of its own."))
    parts: list[str] = []
    for number, name in enumerate(of):
        accounts = [account for account in m.accounts if name in told.get(account, {})]
        figures = {account: told[account][name].get("figures", {}) for account in accounts}
        parts.append(tag("h3", f"{name}, in {names(accounts)}"))
        parts += _drawn(m, number, accounts[0], name)
        parts += _tables(figures)
    return section("strategies", "What each strategy says of itself", *parts)


# --------------------------------------------------------------------------- figures


def _tables(figures: Mapping[str, Figures]) -> list[Markup]:
    """A table for each title, a row for each figure, a column for each account."""
    titles = list(dict.fromkeys(title for found in figures.values() for title in found))
    made: list[Markup] = []
    for title in titles:
        accounts = [account for account, found in figures.items() if title in found]
        rows = list(dict.fromkeys(row for account in accounts for row in figures[account][title]))
        cells = [[row, *(worded(figures[account][title].get(row)) for account in accounts)] for row in rows]
        made.append(table([Column(title, "l"), *(Column(account) for account in accounts)], cells))
    return made


def worded(value: float | str | None) -> str:
    """A figure of any size: whole numbers whole, from a hundred on two decimals, below it four digits that count.

    >>> worded(1234567.891), worded(3.0), worded(0.000123456), worded(None), worded("1987-10-19")
    ('1,234,567.89', '3', '0.0001235', '–', '1987-10-19')
    """
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return DASH
    if value == int(value) and abs(value) < 1e15:
        return plain(value)
    if abs(value) >= 100.0:
        return figure(value, 2)
    digits = 3 - math.floor(math.log10(abs(value)))
    return figure(value, min(max(digits, 2), 10)).rstrip("0").rstrip(".")


# --------------------------------------------------------------------------- considerations

WORDED: Final = (
    ("transaction_cost", "total", "transaction cost"),
    ("transaction_cost", "bp_of_turnover", "transaction cost, bp of turnover"),
    ("frequency", "orders", "orders"),
    ("frequency", "orders_a_day", "orders a day"),
    ("liquidity", "largest_order_over_display", "largest order over displayed size"),
    ("liquidity", "median_order_over_display", "median order over displayed size"),
    ("liquidity", "orders_beyond_display", "orders beyond displayed size"),
    ("liquidity", "orders_without_display", "orders where no size was displayed"),
    ("execution", "median_seconds", "median seconds from order to fill"),
    ("execution", "longest_seconds", "longest seconds from order to fill"),
    ("execution", "delay_cost", "cost of the delay"),
    ("slippage", "total", "slippage against the middle at the decision"),
    ("slippage", "bp_of_turnover", "slippage, bp of turnover"),
    ("upside", "of", "upside given up, against"),
    ("upside", "given_up", "upside given up"),
    ("upside", "gains", "of gains of"),
    ("model", "delta", "model risk: options' delta by the model"),
    ("model", "delta_second_pricer", "options' delta by a second pricer"),
    ("model", "delta_at_bid_vols", "options' delta with vols of bids"),
    ("model", "delta_at_ask_vols", "options' delta with vols of asks"),
    ("model", "value", "options' value by the model"),
    ("model", "value_second_pricer", "options' value by a second pricer"),
    ("model", "value_at_bids", "options' value at bids"),
    ("model", "value_at_asks", "options' value at asks"),
    ("counterparty", "largest", "most that one counterparty owed"),
    ("counterparty", "name", "which"),
)
"""Keys of the result's considerations and how the page calls them."""


def considerations_section(m: Material) -> Markup:
    """What dynamic hedging is warned of, as numbers, for every account that traded."""
    told: Mapping[str, Any] = m.doc.get("considerations", {})
    accounts = [name for name in m.accounts if name in told]
    rows = []
    for group, key, word in WORDED:
        found = [(told[name].get(group) or {}).get(key) for name in accounts]
        if any(value is not None for value in found):
            rows.append([word, *(worded(value) for value in found)])
    words = f"Money in {m.currency}. Model figures are of the options held at the instant of the stress tables; what was not "
    words += "measured is a dash or left out."
    if not rows:
        return section("considerations", "Considerations", tag("p", "Nothing was traded."))
    shown = table([Column("", "l"), *(Column(name) for name in accounts)], rows)
    return section("considerations", "What hedging is warned of, in numbers", tag("p", words), shown, *_proxies(m))


def _proxies(m: Material) -> list[Markup]:
    """What each proxy was worth: its beta as given and as realised, its correlation, and what it made beside its beta."""
    told = m.doc.get("proxies", [])
    if not told:
        return []
    columns = [Column("proxy", "l"), Column("of", "l"), Column("beta"), Column("beta realised"), Column("correlation")]
    columns += [Column("P&L beyond beta (basis)"), Column("intervals")]
    keys = ("beta", "beta_realised", "correlation", "basis_pnl", "intervals")
    return [
        table(columns, [[row["instrument"], row["underlying"], *(worded(row[key]) for key in keys)] for row in told])
    ]


# --------------------------------------------------------------------------- stress


def stress_section(m: Material) -> Markup:
    """What prices, vols and time could do to the book without and with what each strategy traded, in the first account."""
    told: Mapping[str, Any] = m.doc.get("stress", {})
    found: Mapping[str, Any] = told.get("accounts", {}).get(DYNAMIC, {})
    if not found.get("strategies"):
        return section("stress", "Stress", tag("p", "No strategy of this run held anything at a report sample."))
    parts = [
        tag(
            "p",
            f"Gains in {m.currency} against {when(parse_instant(found['at']))} UTC, the report sample at which most was held "
            "beyond what the owner brought, the whole book repriced: all prices move by a per cent, all vols by points, "
            "and days pass. Where a strategy also buys what it protects, without it means that alone.",
        )
    ]
    for name, tables in found["strategies"].items():
        parts.append(tag("h3", f"{name}: {_stressed(tables)}"))
        traded = ", ".join(f"{quantity(q)} {key}" for key, q in list(tables["traded"].items())[:MOST_NAMED])
        left = len(tables["traded"]) - MOST_NAMED
        parts.append(tag("p", f"It holds {traded}" + (f" and {left} more" if left > 0 else "") + "."))
        if tables["shared_with"]:
            parts.append(tag("p", f"Shared with {names(tables['shared_with'])}: both are taken away together."))
        for word, title in (("before", "Without it"), ("after", "With it")):
            parts.append(_stress_table(told, tables[word], title))
    return section("stress", "What prices, vols and time could do, without and with each strategy", *parts)


def _stressed(tables: Mapping[str, Any]) -> str:
    """The worst of both tables, in words."""
    before, after = (tables[word]["worst"] for word in ("before", "after"))
    if before is None or after is None:
        return str(tables["before"]["unknown"] or tables["after"]["unknown"])
    return f"the worst of these is {money(before)} without it and {money(after)} with it"


def _stress_table(told: Mapping[str, Any], grid: Mapping[str, Any], title: str) -> Markup:
    """A row for each move of vols and number of days, a column for each move of prices."""
    columns = [Column(title, "l"), *(Column(f"{move:+g}%" if move else "0%") for move in told["spot_percent"])]
    lines = [
        (_shift(points, days), line)
        for days, page in zip(told["days"], grid["pnl"], strict=True)
        for points, line in zip(told["vol_points"], page, strict=True)
    ]
    if all(line == lines[0][1] for _, line in lines):
        lines = [("whatever vols and days", lines[0][1])]
    return table(columns, [[word, *(DASH if v is None else money(v) for v in line)] for word, line in lines])


def _shift(points: float, days: float) -> str:
    """A move of vols and time in words.

    >>> _shift(5.0, 1.0), _shift(0.0, 0.0)
    ('vols +5, 1 day', 'at once')
    """
    vols = f"vols {points:+g}, " if points else ""
    return vols + ("at once" if not days else f"{days:g} day{'' if days == 1 else 's'}")


# --------------------------------------------------------------------------- gauges


def _drawn(m: Material, number: int, account: str, strategy: str) -> list[Markup]:
    """The gauges of a strategy over time, those of one scale together."""
    prefix = f"{account}/gauge/{strategy}/"
    gauges = {
        key.removeprefix(prefix): np.asarray(column, dtype=np.float64)
        for key, column in m.samples.items()
        if key.startswith(prefix)
    }
    known = {name: column for name, column in gauges.items() if np.isfinite(column).sum() >= 2}
    if not known or len(m.instants) < 2:
        return []
    groups = scales(known)
    shown = groups[:MOST_PANELS]
    series = {name: i for i, name in enumerate(name for group in shown for name in group)}
    panels = [
        Panel(
            unit=names(group),
            lines=[Line(y=known[name], series=series[name], step=True) for name in group],
            zero=_near_zero([known[name] for name in group]),
            height=2.2,
        )
        for group in shown
    ]
    svg = plots.over_time(
        f"strategy{number}", m.axis, m.instants, panels, label=f"What {strategy} gauged in {account} over time"
    )
    legend = legend_of(swatch(i, name, worded(_last(known[name]))) for name, i in series.items())
    caption = f"In account {account}; the figure is the last." if account != DYNAMIC else "The figure is the last."
    left = sum(len(group) for group in groups) - len(series)
    if left:
        caption += f" {left:,} more gauges are in the samples."
    return [chart(_title(strategy, known), svg, caption=caption, legend=legend)]


def scales(gauges: Mapping[str, Floats]) -> list[list[str]]:
    """Names of gauges in groups of one scale, the largest first; within a group as they were given."""
    reach = {name: float(np.max(np.abs(column[np.isfinite(column)]))) for name, column in gauges.items()}
    ranked = sorted(gauges, key=lambda name: -reach[name])
    groups: list[list[str]] = []
    for name in ranked:
        last = groups[-1] if groups else []
        if last and len(last) < MOST_LINES and reach[last[0]] <= SAME_SCALE * reach[name]:
            last.append(name)
        else:
            groups.append([name])
    order = list(gauges)
    return [sorted(group, key=order.index) for group in groups]


def _near_zero(columns: Sequence[Floats]) -> bool:
    """Whether the line of zero is worth its room: the values reach it, or come within their own spread of it."""
    values = np.concatenate([column[np.isfinite(column)] for column in columns])
    low, high = float(values.min()), float(values.max())
    return low <= 0.0 <= high or min(abs(low), abs(high)) < high - low


def _last(column: Floats) -> float:
    return float(column[np.isfinite(column)][-1])


def _title(strategy: str, gauges: Mapping[str, Floats]) -> str:
    """The strategy's largest gauge from its first to its last value, with its extremes."""
    name = max(gauges, key=lambda key: float(np.nanmax(np.abs(np.where(np.isfinite(gauges[key]), gauges[key], 0.0)))))
    column = gauges[name][np.isfinite(gauges[name])]
    low, high = worded(float(column.min())), worded(float(column.max()))
    went = f"went from {worded(float(column[0]))} to {worded(float(column[-1]))}"
    return f"{strategy}: {name} {went}, between {low} and {high}"
