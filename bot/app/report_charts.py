"""A chart is a finding with its plot; law: the title is computed from the run, never assumed.

Here are the sections that are drawn: P&L, hedging, attribution and cost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.app import plots
from bot.app.plots import Area, Axis, Line, Marks, Panel
from bot.app.report_html import (
    DASH,
    Column,
    Markup,
    called,
    capital,
    chart,
    figure,
    join,
    legend_of,
    money,
    names,
    plain,
    price,
    section,
    share,
    swatch,
    table,
    tag,
    when,
)
from bot.app.report_material import DYNAMIC, Doc, Floats, Material, is_hedged, total_cost
from bot.domain.orders import Fill
from bot.domain.units import NS_PER_DAY, NS_PER_SECOND, Nanos
from bot.engine.attribution import TERMS

MOST_BARS: Final = 90
"""Bars of the chart from hedge to hedge; more hedges share bars."""
MOST_UNDERLYINGS: Final = 6
"""Underlyings and hedges that are drawn; the rest is in the tables."""


def pnl_section(m: Material) -> Markup:
    """P&L of the accounts over time, and how far each stood below its best."""
    if not len(m.instants):
        return section("pnl", "P&L over time", tag("p", "The run has no samples to draw.", cls="note"))
    paths = {account: m.column(account, "total") for account in m.accounts}
    everyone = [Line(y=path, series=i, width=1.7 if i == 0 else 1.2) for i, path in enumerate(paths.values())]
    panels = [Panel(unit=f"P&L of every account, {m.currency}", lines=everyone, height=2.7)]
    close = [line for line, account in zip(everyone, m.accounts, strict=True) if is_hedged(m.book(account))]
    if close and len(close) < len(everyone) and _reach(everyone) > 2.5 * _reach(close):
        panels.append(Panel(unit=f"the hedged accounts on their own scale, {m.currency}", lines=close, height=2.5))
    legend = legend_of(swatch(i, name, money(m.book(name)["pnl"]["total"])) for i, name in enumerate(m.accounts))
    pnl = chart(
        _pnl_title(m),
        plots.over_time("pnl", m.axis, m.instants, panels, label="P&L of the accounts over time"),
        caption="Net of costs and financing, options and hedges at mid until the close." + _axis_note(m),
        legend=legend,
    )
    falls = {account: -_fall(path) for account, path in paths.items()}
    lines = [Line(y=path, series=i, width=1.5 if i == 0 else 1.1) for i, path in enumerate(falls.values())]
    legend = legend_of(swatch(i, name, money(m.book(name).get("max_drawdown"))) for i, name in enumerate(m.accounts))
    drawdown = chart(
        _drawdown_title(m),
        plots.over_time(
            "drawdown",
            m.axis,
            m.instants,
            [Panel(unit=f"below the best so far, {m.currency}", lines=lines, height=2.0)],
            label="Drawdown of the accounts over time",
        ),
        legend=legend,
    )
    return section("pnl", "P&L over time", pnl, drawdown)


def _reach(lines: Sequence[Line]) -> float:
    values = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    return float(np.ptp(values)) if len(values) else 0.0


def _fall(path: Floats) -> Floats:
    """How far a path stands below its best so far, from zero at the start. Shape: (n,)."""
    best = np.maximum.accumulate(np.where(np.isnan(path), 0.0, np.maximum(path, 0.0)))
    return np.asarray(best - path)


def _pnl_title(m: Material) -> str:
    totals = {name: m.book(name)["pnl"]["total"] for name in m.accounts}
    ranked = sorted(totals, key=lambda name: -totals[name])
    if len(set(totals.values())) == 1:
        return f"Every account ended at {money(totals[DYNAMIC])}"
    place = ranked.index(DYNAMIC) + 1
    if place == 1:
        return f"Dynamic hedging ended first of {len(ranked)} accounts, {called(ranked[-1])} last"
    where = "last" if place == len(ranked) else f"number {place}"
    return capital(f"{called(ranked[0])} ended ahead; dynamic hedging came {where} of {len(ranked)} accounts")


def _drawdown_title(m: Material) -> str:
    falls = {name: m.book(name).get("max_drawdown") for name in m.accounts}
    known = {name: value for name, value in falls.items() if value is not None}
    if not known or max(known.values()) == 0.0:
        return "No account ever fell below its best"
    deep, calm = max(known, key=lambda n: known[n]), min(known, key=lambda n: known[n])
    if known[deep] == known[calm]:
        return f"Every account fell {money(known[deep])} at most below its best"
    return capital(
        f"{called(deep)} fell deepest below its best, {money(known[deep])}; {called(calm)} least, {money(known[calm])}"
    )


def _axis_note(m: Material) -> str:
    inner = len(m.axis.breaks())
    if not inner:
        return " Times are UTC."
    return f" Times are UTC; dotted lines are {inner} closed stretch{'es' if inner > 1 else ''}, pressed together."


# --------------------------------------------------------------------------- hedging


class HedgeTrack(msgspec.Struct, frozen=True, kw_only=True):
    """One hedge instrument over time. Shape: all (samples,); NaN where not known."""

    instrument: str
    underlying: str
    held: Floats
    needed: Floats
    lo: Floats
    hi: Floats
    net: Floats | None = None
    net_lo: Floats | None = None
    net_hi: Floats | None = None


def hedging_section(m: Material) -> Markup:
    """Net delta with its band, the hedge held, and every hedge on the price path."""
    if not len(m.instants):
        return section("hedging", "Hedging", tag("p", "The run has no samples to draw.", cls="note"))
    pairs = list(dict.fromkeys((d.instrument, d.evidence.underlying) for d in m.decisions))
    tracks = [_track(m, *pair, alone=len(pairs) == 1) for pair in pairs[:MOST_UNDERLYINGS]]
    parts: list[str] = []
    if tracks:
        parts += [_delta_chart(m, i, track) for i, track in enumerate(tracks)]
    else:
        parts.append(_unhedged_delta(m))
    parts += [_price_chart(m, i, underlying, pairs) for i, underlying in enumerate(_drawn_underlyings(m, pairs))]
    left = max(len(m.underlyings), len({u for _, u in pairs})) - MOST_UNDERLYINGS
    if left > 0:
        parts.append(tag("p", f"{left:,} more underlyings are not drawn; the tables carry them.", cls="note"))
    return section("hedging", "What was hedged, and when", *parts)


def _drawn_underlyings(m: Material, pairs: Sequence[tuple[str, str]]) -> list[str]:
    traded = [u for u in dict.fromkeys(u for _, u in pairs) if u in m.underlyings]
    return (traded + [u for u in m.underlyings if u not in traded])[:MOST_UNDERLYINGS]


def _track(m: Material, instrument: str, underlying: str, *, alone: bool) -> HedgeTrack:
    """What a hedge was, what the options needed, and the band of the last decision.

    With one hedge in the run the band is carried as a band of net delta, in which it stands still between decisions
    while the options' delta moves; with several the samples carry no delta by underlying, and edges are carried as decided.
    """
    at = m.instants
    found = [d for d in m.decisions if d.instrument == instrument and d.evidence.underlying == underlying]
    decided = np.array([d.ts for d in found], dtype=np.int64)
    index = np.searchsorted(decided, at, side="right") - 1
    held = m.column(DYNAMIC, f"held/{instrument}")

    def carried(values: Floats) -> Floats:
        return np.where(index >= 0, values[np.maximum(index, 0)], math.nan)

    lo, hi = (_numbers([getattr(d.evidence, side) for d in found]) for side in ("lo", "hi"))
    if not alone or instrument in m.proxies:
        return HedgeTrack(
            instrument=instrument,
            underlying=underlying,
            held=held,
            needed=carried(0.5 * (lo + hi)),
            lo=carried(lo),
            hi=carried(hi),
        )
    per = _per_contract(m, instrument, underlying)
    net, options = m.column(DYNAMIC, "net_delta"), m.column(DYNAMIC, "option_delta")
    other = net - options - held * m.multipliers.get(instrument, 1.0)
    row = np.maximum(np.searchsorted(at, decided, side="right") - 1, 0)
    delta = _numbers([d.evidence.delta for d in found]) + other[row]
    net_lo, net_hi = carried(delta + lo * per[row]), carried(delta + hi * per[row])
    return HedgeTrack(
        instrument=instrument,
        underlying=underlying,
        held=held,
        needed=-(options + other) / per,
        lo=(net_lo - options - other) / per,
        hi=(net_hi - options - other) / per,
        net=options + other + held * per,
        net_lo=net_lo,
        net_hi=net_hi,
    )


def _numbers(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _per_contract(m: Material, instrument: str, underlying: str) -> Floats:
    """Delta of one contract in units of the underlying; an inverse contract's falls as the price rises. Shape: (samples,)."""
    multiplier = m.multipliers.get(instrument, 1.0)
    if instrument not in m.inverse:
        return np.full(len(m.instants), multiplier)
    return np.asarray(multiplier / np.asarray(m.samples[f"spot/{underlying}"], dtype=np.float64))


def _delta_chart(m: Material, number: int, track: HedgeTrack) -> Markup:
    chosen = _hedged_time(m, track.instrument)
    width = (track.hi - track.lo)[chosen]
    wide = bool(np.any(width[np.isfinite(width)] > 1e-9))

    def shown(values: Floats) -> Floats:
        return np.where(chosen, values, math.nan)

    panels: list[Panel] = []
    if track.net is not None and track.net_lo is not None and track.net_hi is not None:
        panels.append(
            Panel(
                unit=f"net delta of options and hedge, units of {track.underlying}",
                lines=[Line(y=shown(track.net), series=0, step=True)],
                area=Area(lo=shown(track.net_lo), hi=shown(track.net_hi)) if wide else None,
                height=2.1,
            )
        )
    noun = "units" if m.multipliers.get(track.instrument, 1.0) == 1.0 else "contracts"
    panels.append(
        Panel(
            unit=f"{noun} of {track.instrument}",
            lines=[
                Line(y=shown(track.needed), series=1, width=1.0, plain=True),
                Line(y=shown(track.held), series=0, step=True, width=1.5),
            ],
            area=Area(lo=shown(track.lo), hi=shown(track.hi)) if wide else None,
            zero=False,
            height=2.3,
        )
    )
    needed = "what the options need" if track.net is not None else "the middle of the last decision's band"
    legend = [
        swatch(0, "held" if track.net is None else "held, and what it leaves"),
        swatch(1, needed, plain_line=True),
    ]
    if wide:
        legend.append(tag("span", tag("span", cls="chip", style="background: var(--band); opacity: .4"), "band"))
    caption = "From the opening hedge to the close. " + (
        "The band is the one of the last decision that traded, carried to the next."
        if wide
        else "The rule has no band: it trades to its exact target, rounded, or not at all."
    )
    svg = plots.over_time(
        f"delta{number}",
        m.axis,
        m.instants,
        panels,
        label=f"Net delta and the hedge held in {track.instrument} over time",
    )
    return chart(_delta_title(m, track), svg, caption=caption, legend=legend_of(legend))


def _hedged_time(m: Material, instrument: str) -> NDArray[np.bool_]:
    """The samples from the first fill to the closing one, whose jumps from and to nothing would hide all between.

    Shape: (samples,). All of them when nothing was filled, or nothing lies between.
    """
    at = m.instants
    fills = [f for h in m.hedges for f in h.fills if f.instrument == instrument]
    closing = [f.ts for f in fills if f.closing]
    opened = min((f.ts for f in fills if not f.closing), default=int(at[0]))
    chosen = (at >= opened) & (at < min(closing, default=int(at[-1]) + 1))
    return chosen if chosen.any() else np.ones(len(at), dtype=bool)


def _delta_title(m: Material, track: HedgeTrack) -> str:
    if track.net is None:
        return f"The hedge in {track.instrument} against its band"
    options = m.column(DYNAMIC, "option_delta")
    left, alone = _mean_size(m, track.net), _mean_size(m, options)
    if left is None or alone is None or alone == 0.0:
        return f"Net delta of {track.underlying}"
    digits = 0 if alone >= 1000 else 1
    pair = f"from {figure(alone, digits)} to {figure(left, 1 if left < 100 else 0)} units"
    if left <= alone:
        return f"Hedging cut the mean size of delta by {share(1.0 - left / alone)}, {pair}"
    return f"Hedging made the mean size of delta larger, {pair}"


def _mean_size(m: Material, values: Floats) -> float | None:
    """Mean absolute value over time, each held until the next sample; None when never known. Shape: (n,)."""
    weights = np.diff(m.axis.place(m.instants))
    sizes = np.abs(values[:-1])
    known = np.isfinite(sizes) & (weights > 0)
    return float(np.average(sizes[known], weights=weights[known])) if known.any() else None


def _unhedged_delta(m: Material) -> Markup:
    delta = m.column(DYNAMIC, "net_delta")
    size = _mean_size(m, delta)
    title = "Nothing was decided to hedge"
    if size is not None:
        title += f": delta stood at {figure(size, 1)} units on average"
    panel = Panel(unit="net delta, units of the underlying", lines=[Line(y=delta, series=0, step=True)], height=2.0)
    return chart(title, plots.over_time("delta0", m.axis, m.instants, [panel], label="Net delta over time"))


def _price_chart(m: Material, number: int, underlying: str, pairs: Sequence[tuple[str, str]]) -> Markup:
    spot = np.asarray(m.samples[f"spot/{underlying}"], dtype=np.float64)
    instruments = {i for i, u in pairs if u == underlying} or {underlying}
    fills = [f for h in m.hedges for f in h.fills if f.instrument in instruments]
    marks = _marks(m, fills, underlying, spot)
    panel = Panel(
        unit=f"{underlying}, price",
        lines=[Line(y=spot, series=2, width=1.1, plain=True)],
        marks=marks,
        zero=False,
        height=3.0,
    )
    proxies = sorted({f.instrument for f in fills} - {underlying})
    caption = "Markers grow with the quantity."
    if proxies:
        caption += f" Fills in {names(proxies)} are drawn on the price of {underlying}."
    if len(fills) > plots.MOST_MARKERS:
        caption += f" The {plots.MOST_MARKERS:,} largest of {len(fills):,} fills are drawn."
    bought = [f for f in fills if f.quantity > 0]
    sold = [f for f in fills if f.quantity < 0]
    legend = legend_of(
        [
            tag(
                "span",
                tag("span", "▲", cls="buy"),
                f" bought {plain(sum(f.quantity for f in bought))} in {len(bought):,}",
            ),
            tag(
                "span", tag("span", "▼", cls="sell"), f" sold {plain(-sum(f.quantity for f in sold))} in {len(sold):,}"
            ),
            swatch(2, underlying, plain_line=True),
        ]
    )
    svg = plots.over_time(f"price{number}", m.axis, m.instants, [panel], label=f"Hedges on the price of {underlying}")
    return chart(_price_title(underlying, spot, bought, sold), svg, caption=caption, legend=legend)


def _marks(m: Material, fills: Sequence[Fill], underlying: str, spot: Floats) -> Marks:
    at = np.array([f.ts for f in fills], dtype=np.int64)
    index = np.maximum(np.searchsorted(m.instants, at, side="right") - 1, 0)
    own = np.array([float(f.price) if f.instrument == underlying else math.nan for f in fills])
    return Marks(
        at=at,
        y=np.where(np.isnan(own), spot[index], own) if len(fills) else own,
        quantity=np.array([float(f.quantity) for f in fills]),
    )


def _price_title(underlying: str, spot: Floats, bought: Sequence[Fill], sold: Sequence[Fill]) -> str:
    known = spot[np.isfinite(spot)]
    if not len(known):
        return f"{underlying} had no price"
    first, last = float(known[0]), float(known[-1])
    if first == last:
        moved = f"{underlying} ended where it began, at {price(last)}"
    else:
        size = f" {share(abs(last / first - 1.0), 2)}" if first else ""
        moved = f"{underlying} {'rose' if last > first else 'fell'}{size}, from {price(first)} to {price(last)}"
    if not bought and not sold:
        return f"{moved}; no hedge was traded"

    def average(fills: Sequence[Fill]) -> str:
        size = sum(abs(f.quantity) for f in fills)
        return figure(sum(abs(f.quantity) * f.price for f in fills) / size, 2)

    said = ([f"bought at {average(bought)}"] if bought else []) + ([f"sold at {average(sold)}"] if sold else [])
    return f"{moved}; hedges {names(said)} on average"


# --------------------------------------------------------------------------- attribution


def attribution_section(m: Material) -> Markup:
    """Which Greek earned what: by account, by hedge, by underlying, by night and session."""
    panels = [
        (
            account,
            i,
            [
                *((term, m.book(account)["attribution"].get(term)) for term in TERMS),
                ("total", m.book(account)["pnl"]["total"]),
            ],
        )
        for i, account in enumerate(m.accounts)
    ]
    by_account = chart(
        _attribution_title(m),
        plots.bars("attribution", panels, unit=m.currency, label="Attribution of P&L by Greek for each account"),
        caption="Each account on its own scale. Delta holds the hedge's own P&L; the residual is what no term explains, shown "
        "as it is and never spread over the others.",
    )
    return section("attribution", "Where the P&L came from", by_account, _per_hedge(m), _gamma_rent(m), _days(m))


def _attribution_title(m: Material) -> str:
    terms = {term: m.book()["attribution"].get(term) or 0.0 for term in TERMS if term != "residual"}
    gain, loss = max(terms, key=lambda t: terms[t]), min(terms, key=lambda t: terms[t])
    said = []
    if terms[gain] > 0:
        said.append(f"earned most by {gain} ({money(terms[gain])})")
    if terms[loss] < 0:
        said.append(f"lost most by {loss} ({money(terms[loss])})")
    return f"The dynamic account {names(said)}" if said else "No Greek earned or lost anything"


def _per_hedge(m: Material) -> Markup:
    """What was earned between each hedge and the next."""
    cuts, steps = terms_between_hedges(m)
    if not steps:
        return Markup()
    at = m.instants
    grouped = max(1, -(-(len(cuts) - 1) // MOST_BARS))
    starts = np.arange(0, len(cuts) - 1, grouped)
    bars = {term: np.add.reduceat(values, starts) for term, values in steps.items()}
    drawn = ("gamma", "theta", "delta", "vega", "cost")
    other = np.sum([bars[t] for t in TERMS if t not in drawn], axis=0)
    parts = [(term, bars[term].tolist()) for term in drawn] + [("other", other.tolist())]
    labels = [_short(int(at[cuts[i]]), m.axis) for i in starts.tolist()]
    total = np.sum([steps[t] for t in TERMS], axis=0)
    paid = int(np.count_nonzero(steps["gamma"] + steps["theta"] > 0))
    title = f"Gamma paid for theta in {paid:,} of {len(total):,} stretches between hedges"
    caption = "One bar from each hedge to the next" if grouped == 1 else f"One bar for {grouped} hedges"
    caption += "; the diamond is their sum. Cost is that of the hedge which ends the stretch."
    legend = legend_of([*(swatch(i, name, chip=True) for i, (name, _) in enumerate(parts)), tag("span", "◆ sum")])
    svg = plots.stacked(
        "perhedge", labels, parts, unit=m.currency, label="Attribution between consecutive hedges", upright=True
    )
    columns = [Column("from", "l"), Column("to", "l"), *(Column(term) for term in TERMS), Column("total")]
    rows = [
        [when(at[a]), when(at[b]), *(money(steps[t][i]) for t in TERMS), money(total[i])]
        for i, (a, b) in enumerate(itertools.pairwise(cuts))
    ]
    listed = tag("details", tag("summary", f"All {len(rows):,} stretches in figures"), table(columns, rows))
    return join([chart(title, svg, caption=caption, legend=legend), listed])


def terms_between_hedges(m: Material) -> tuple[list[int], dict[str, Floats]]:
    """The samples that bound the stretches between hedges, and each term of each stretch; no terms without a hedge."""
    cuts = _hedge_samples(m)
    return cuts, _terms_between(m, cuts) if len(cuts) > 1 else {}


def _hedge_samples(m: Material) -> list[int]:
    """The samples that bound the stretches between hedges: the first, those of fills, the last."""
    at = m.instants
    if len(at) < 2:
        return []
    fills = np.array(sorted(f.ts for h in m.hedges for f in h.fills), dtype=np.int64)
    if not len(fills):
        return []
    index = np.clip(np.searchsorted(at, fills, side="right") - 1, 0, len(at) - 1)
    return [int(i) for i in np.unique(np.concatenate(([0], index, [len(at) - 1])))]


def _terms_between(m: Material, cuts: Sequence[int]) -> dict[str, Floats]:
    """Each term from one cut to the next. The cost is what the total leaves over the others, so that all sum to it."""
    picked = np.array(cuts)
    total = m.column(DYNAMIC, "total").copy()
    if len(total):
        total[0] = 0.0  # what the opening trades cost belongs to the first stretch
    sums = {term: m.column(DYNAMIC, term) for term in TERMS if term != "cost"}
    sums["cost"] = total - np.sum(list(sums.values()), axis=0)
    return {term: np.diff(sums[term][picked]) for term in TERMS}


def _short(ts: Nanos, axis: Axis) -> str:
    moment = datetime.fromtimestamp(ts // NS_PER_SECOND, UTC)
    return f"{moment.day} {moment:%b}" if axis.end - axis.start > 4 * NS_PER_DAY else f"{moment:%H:%M}"


def _gamma_rent(m: Material) -> Markup:
    rents: Mapping[str, Doc] = m.doc.get("gamma_rent", {})
    if not rents:
        return Markup()
    columns = [
        Column("underlying", "l"),
        Column("realised vol"),
        Column("implied vol"),
        Column("realised less implied"),
        Column("gamma P&L"),
        Column("theta P&L"),
        Column("net"),
    ]
    rows: list[list[str]] = []
    first = ""
    for underlying, rent in rents.items():
        realised, implied = rent.get("realised_vol"), rent.get("implied_vol")
        gap = None if realised is None or implied is None else 100.0 * (realised - implied)
        gamma, theta = rent.get("gamma_pnl") or 0.0, rent.get("theta_pnl") or 0.0
        points = DASH if gap is None else f"{'+' if gap >= 0 else ''}{figure(gap, 1)} points"
        rows.append(
            [underlying, share(realised), share(implied), points, money(gamma), money(theta), money(gamma + theta)]
        )
        if not first and gap is not None:
            way = "less" if gap < 0 else "more"
            first = (
                f"{underlying} moved {way} than its options implied: {share(realised)} against {share(implied)} a year"
            )
    note = "Realised vol is of the sampled price, implied the mean over legs and samples. One account holds all: "
    note += "with several underlyings, gamma and theta are those of the whole book." if len(rows) > 1 else ""
    note = note if len(rows) > 1 else note.split(" One account")[0]
    return join(
        [tag("h3", first or "Gamma rent: realised against implied"), table(columns, rows), tag("p", note, cls="note")]
    )


def _days(m: Material) -> Markup:
    """P&L of the nights apart from the sessions, of what was carried apart from new trades, and the marks behind it."""
    days: Sequence[Doc] = m.doc.get("days", [])
    if not days:
        return Markup()
    shown = [*TERMS, "total"]
    columns = [Column("day", "l"), Column("part", "l"), *(Column(term) for term in shown)]
    rows: list[list[str]] = []
    sums = {part: dict.fromkeys(shown, 0.0) for part in ("overnight", "session")}
    for day in days:
        for part in ("overnight", "session"):
            values = day.get(part, {})
            for term in shown:
                sums[part][term] += values.get(term) or 0.0
            if part == "session" or any(values.get(term) for term in shown):
                rows.append([str(day.get("day", "")), part, *(money(values.get(term)) for term in shown)])
    night, session = sums["overnight"]["total"], sums["session"]["total"]
    if len(days) > 1:
        both = [["all days", part, *(money(found[term]) for term in shown)] for part, found in sums.items()]
        rows = [*both, *rows]
    title = f"Dynamic hedging made {money(night)} overnight and {money(session)} in session"
    return join([tag("h3", title), table(columns, rows), _carried(days), _marks_table(days)])


def _carried(days: Sequence[Doc]) -> Markup:
    if not any("carried" in day for day in days):
        return Markup()
    columns = [Column("day", "l"), Column("carried"), Column("new trades")]
    rows = [[str(day.get("day", "")), money(day.get("carried")), money(day.get("new_trades"))] for day in days]
    note = "Carried is what the holdings of the prior close made; new trades is what trading since then added, costs included."
    return join([tag("h3", "Carried positions and new trades"), table(columns, rows), tag("p", note, cls="note")])


def _marks_table(days: Sequence[Doc]) -> Markup:
    rows = [
        [
            str(day.get("day", "")),
            key,
            price(marks.get("prior_close")),
            price(marks.get("open")),
            price(marks.get("last")),
        ]
        for day in days
        for key, marks in day.get("marks", {}).items()
    ]
    if not rows:
        return Markup()
    columns = [Column("day", "l"), Column("instrument", "i"), Column("prior close"), Column("open"), Column("last")]
    return tag("details", tag("summary", f"Marks at prior close, open and last ({len(rows):,})"), table(columns, rows))


# --------------------------------------------------------------------------- cost


def cost_section(m: Material) -> Markup:
    """What trading cost each account by kind, and how it slipped against the middle."""
    kinds = (
        ("spread", "spread_cost", 1),
        ("commission", "commission", 1),
        ("impact", "impact", 1),
        ("financing", "financing", -1),
    )
    parts = [(kind, [sign * m.book(a)["pnl"][key] for a in m.accounts]) for kind, key, sign in kinds]
    parts = [(kind, values) for kind, values in parts if any(values)]
    costs = {a: total_cost(m.book(a)) for a in m.accounts}
    if not parts:
        return section("cost", "What it cost", tag("p", "No account paid spread, commission, impact or financing."))
    legend = legend_of(swatch(i, kind, chip=True) for i, (kind, _) in enumerate(parts))
    svg = plots.stacked(
        "cost",
        m.accounts,
        parts,
        unit=f"paid, {m.currency}; the figure is the sum",
        label="Costs by kind for each account",
    )
    caption = "Financing counts as paid; left of zero it was received." if parts[-1][0] == "financing" else ""
    return section(
        "cost", "What it cost", chart(_cost_title(m, costs), svg, caption=caption, legend=legend), _slippage(m)
    )


def _cost_title(m: Material, costs: Mapping[str, float]) -> str:
    mine = costs[DYNAMIC]
    trades = m.book()["trades"] + m.book()["closing_trades"]
    each = f", {money(mine / trades)} a trade" if trades else ""
    title = f"Dynamic hedging cost {money(mine)}{each}"
    if costs.get("static"):
        title += f"; {figure(mine / costs['static'], 1)} times the static hedge"
    return title


def _slippage(m: Material) -> Markup:
    columns = [
        Column("account", "l"),
        Column("delay"),
        Column("spread"),
        Column("impact"),
        Column("all"),
        Column("a unit"),
        Column("of turnover"),
    ]
    rows = []
    for account in m.accounts:
        book = m.book(account)
        found = book.get("slippage", {})
        lost = [found.get(kind) for kind in ("delay", "spread", "impact")]
        if not is_hedged(book):
            continue
        total = sum(value or 0.0 for value in lost)
        units = book["units_traded"] + book["closing_units"]
        bp = 1e4 * total / book["turnover"] if book.get("turnover") else None
        each = total / units if units else None
        rows.append(
            [
                account,
                *(money(v) for v in lost),
                money(total),
                figure(each, 4),
                DASH if bp is None else f"{figure(bp, 2)} bp",
            ]
        )
    if not rows:
        return Markup()
    note = (
        "Slippage against the middle seen at the decision: what it moved before the order arrived (delay; negative when it "
        "moved our way), half the quoted spread, and what our size added. Delay is inside the hedge's P&L, not a further cost."
    )
    return join(
        [tag("h3", "Slippage against the middle at the decision"), table(columns, rows), tag("p", note, cls="note")]
    )
