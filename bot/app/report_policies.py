"""A policy report is one HTML page about a comparison, an advice or a sweep; law: it stands alone, a sampled figure carries
its standard error, and it says how the fills flatter.

It asks no network for anything; its own security policy forbids it. The same document gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeAlias

from bot.app import report_html as html
from bot.app.advise import sentences
from bot.app.compare import beyond_value, digits_for, with_error
from bot.app.export import replacing
from bot.app.plots_policies import BandPanel, Curve, Dot, bands, over_value, plane
from bot.app.report_html import Column, Markup, figure
from bot.app.sweeping import FIGURES, efficient_points

Row: TypeAlias = dict[str, Any]

FAMILIES: Final = ("optimum", "Zakamouline", "Whalley-Wilmott", "delta band", "fixed interval")
WORTH: Final = ("P&L", "CE", "± se", "gap %", "± se", "trades", "units", "turnover", "P&L explained")
SCORED: Final = ("worse than the optimum by", "gap %", "mean cost", "± se", "std", "± se", "trades")
NAMES: Final = {"exact_band": "Exact band", "whalley_wilmott": "Whalley-Wilmott", "zakamouline": "Zakamouline"}
EVERYONE: Final = 12
"""Points of a sweep that are all named; of more, only those no other beats."""
HOPELESS: Final = 12.0
"""Policies whose risk is more than so many times the least are left out of a picture (the tables have them)."""


def write_page(text: str, path: Path) -> Path:
    """Put a page into a file, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())
    return path


def page(title: str, lead: Sequence[str], sections: Sequence[tuple[str, str, Markup]]) -> str:
    """A whole page: its title, the sentences that matter, and its sections (key, name, body)."""
    style = files("bot.app").joinpath("report_style.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = html.join(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            html.tag("title", title),
            Markup(f"<style>\n{style}</style>"),
        ]
    )
    nav = html.tag("nav", *[html.tag("a", name, href=f"#{key}") for key, name, _ in sections], aria_label="Contents")
    top = html.tag(
        "header",
        html.tag("p", html.tag("b", "evenkeel"), cls="brand"),
        html.tag("h1", title),
        html.tag("ul", *[html.tag("li", line) for line in lead], cls="verdict"),
    )
    body = html.join([top, nav, html.tag("main", *[html.section(key, name, part) for key, name, part in sections])])
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def listed(lines: Sequence[str]) -> Markup:
    """Sentences as a list; nothing for none."""
    return html.tag("ul", *[html.tag("li", line) for line in lines]) if lines else Markup()


# --------------------------------------------------------------------------- a comparison


def comparison_page(d: Row) -> str:
    """The page of a comparison."""
    sections: list[tuple[str, str, Markup]] = []
    if d["recorded"] is not None:
        sections.append(("recorded", "On the recorded prices", recorded_part(d)))
    for i, part in enumerate(d["sections"]):
        sections += simulated_parts(part, i, many=len(d["sections"]) > 1)
    sections.append(("fills", "How optimistic the fills are", fills_part(d)))
    sections.append(("made", "How this was made", made_part(d)))
    what = "recorded prices" if d["set"] == "recorded" else f"simulated prices ({d['world']})"
    return page(f"{d['name']}: hedging policies on {what}", d["verdict"], sections)


def recorded_part(d: Row) -> Markup:
    """The session's frontier and tables."""
    found, currency = d["recorded"], d["base_currency"]
    rows = found["rows"]
    hedged = [row for row in rows if row["std"] is not None]
    dots = [
        Dot(name=row["name"], x=row["mean_cost"], y=row["std"], hollow=row["name"] in {"static", "none"})
        for row in readable(hedged, "std")
    ]
    picture = Markup()
    if dots:
        picture = html.chart(
            "What each policy paid and what risk it left",
            plane(
                "recorded", dots, [], x_unit=f"cost of the session, {currency}",
                y_unit=f"standard deviation of P&L over {found['interval']}, {currency}", label="cost against risk",
            ),
            caption="Left and low is better. Standard errors are in the table: on one session they are wide, and shared by all "
            "policies, so that differences are told much better than levels." + left_out(hedged, dots),
        )  # fmt: skip
    risk = html.table(
        [Column("account", "l"), Column("policy", "w"), *map(Column, ("cost", "spread", "commission", "impact", "std", "± se",
         "lower than first by", "± se", "delta std", "CVaR 95%", "± se", "drawdown"))],
        [
            [
                row["name"], row["policy"],
                *(figure(row[k], 2) for k in ("mean_cost", "spread_cost", "commission", "impact", "std", "std_se", "std_less",
                                              "std_less_se", "delta_std", "cvar95", "cvar95_se", "max_drawdown")),
            ]
            for row in rows
        ],
        caption=f"Cost and risk in {currency}; std and CVaR over {found['interval']} ({found['intervals']:,} intervals)",
    )  # fmt: skip
    worth = html.table(
        [Column("account", "l"), *map(Column, WORTH)],
        [
            [
                row["name"], figure(row["total"], 2), figure(row["ce"], 0), figure(row["ce_se"], 0), figure(row["gap"], 1),
                figure(row["gap_se"], 1), f"{row['trades']:,}", figure(row["units_traded"], 0), figure(row["turnover"], 0),
                figure(row["explained"], 3),
            ]
            for row in rows
        ],
        caption="Worth (certainty equivalent of the session's loss) and trading",
    )  # fmt: skip
    return html.join([picture, risk, worth, listed([*found["notes"], *found["alarms"]])])


def simulated_parts(part: Row, i: int, *, many: bool) -> list[tuple[str, str, Markup]]:
    """The lab's sections on one underlying: table and frontier, bands, other worlds."""
    whose = f" of {part['underlying']}" if many else ""
    out = [
        (
            f"simulated{i}",
            f"Until expiry, simulated{whose}",
            html.join([facts(part), frontier_chart(part, f"frontier{i}"), scores(part)]),
        )
    ]
    if part.get("bands"):
        out.append((f"bands{i}", f"The bands{whose}", band_charts(part["bands"], f"bands{i}", part["spot"])))
    if part.get("robustness"):
        out.append(
            (
                f"worlds{i}",
                f"In other worlds{whose}",
                worlds_part(part["robustness"], part["currency"], part["model_value"]),
            )
        )
    return out


def facts(part: Row) -> Markup:
    """What was simulated, in a sentence."""
    ticket = f" and {figure(part['ticket'], 2)} a ticket" if part["ticket"] else ""
    return html.tag(
        "p",
        f"{part['underlying']} at {figure(part['spot'], 2)} on {part['at'][:16].replace('T', ' ')}Z, vol {part['vol']:.2%}, "
        f"{part['horizon']} to the last expiry in {part['dates']} dates of {part['step']}; a trade costs "
        f"{part['cost_bp']:.3g} bp of its notional{ticket}. {part['paths']:,} paths of {part['world']}, "
        f"scoring seed {part['seed']}; what was tuned saw tuning seed {part['tune_seed']} only.",
    )


def frontier_chart(part: Row, key: str) -> Markup:
    """Every policy and the optimum's line on the plane of cost and risk."""
    rows = [row for row in part["rows"] if row["std"] is not None]
    shown = readable([row for row in rows if row["name"] != "optimum"], "std")
    limit = max((row["std"] for row in shown), default=0.0)
    most = max((row["mean_cost"] for row in shown), default=0.0)
    dots = [
        Dot(name=row["name"], x=row["mean_cost"], y=row["std"], x_error=row["mean_cost_se"], y_error=row["std_se"],
            hollow=row["name"] in {"static", "none", "daily Black-Scholes"})
        for row in shown
    ]  # fmt: skip
    curves = curves_of(part["frontier"], limit, 1.35 * most)
    return html.chart(
        "Cost against risk: each policy, four families and the optimum",
        plane(
            key, dots, curves, x_unit=f"mean cost until expiry, {part['currency']}",
            y_unit=f"standard deviation of P&L until expiry, {part['currency']}", label="cost against risk of every policy",
        ),
        caption="Left and low is better. The strong line is the exact optimum over risk aversions: least in certainty "
        "equivalent, so that on this plane of cost and standard deviation others may lie a little below it."
        + left_out(rows, dots),
        legend=legend_of(curves),
    )  # fmt: skip


def curves_of(frontier: Row, limit: float, most: float) -> list[Curve]:
    """The families as lines, points beyond the picture's reach left out."""
    out = []
    for series, family in enumerate(FAMILIES):
        found = frontier["families"].get(family)
        if found is None:
            continue
        kept = [
            p for p in found["points"] if p["std"] is not None and p["std"] <= 1.25 * limit and p["mean_cost"] <= most
        ]
        if kept:
            out.append(
                Curve(
                    name=family,
                    xs=tuple(p["mean_cost"] for p in kept),
                    ys=tuple(p["std"] for p in kept),
                    series=series + 2,
                    strong=family == "optimum",
                )
            )
    return out


def legend_of(curves: Sequence[Curve]) -> Markup:
    """What each line is."""
    items = []
    for curve in curves:
        style = "solid" if curve.strong else ("solid", "dashed", "dotted", "dashed", "dashed")[curve.series % 5]
        tone = "var(--ink)" if curve.strong else f"var(--s{curve.series % 8})"
        mark = html.tag("span", cls="swatch", style=f"border-top: 3px {style} {tone}")
        items.append(html.tag("span", mark, curve.name))
    return html.legend_of(items)


def readable(rows: Sequence[Row], key: str) -> list[Row]:
    """The rows that fit one picture: who hardly hedges is left out where that would press the others together."""
    hedging = [row[key] for row in rows if row["name"] not in {"none", "static"} and row[key] > 0.0]
    if not hedging:
        return list(rows)
    kept = [row for row in rows if row[key] <= HOPELESS * min(hedging)]
    most = max(row[key] for row in kept if row["name"] not in {"none", "static"})
    return [row for row in kept if row[key] <= 1.25 * most or row["name"] not in {"none", "static"}]


def left_out(rows: Sequence[Row], dots: Sequence[Dot]) -> str:
    """Which rows a picture leaves out, for its caption."""
    kept = {dot.name for dot in dots}
    gone = [row["name"] for row in rows if row["name"] not in kept and row["name"] != "optimum"]
    return "" if not gone else f" Not drawn, for their risk is beyond the picture: {', '.join(gone)}."


def scores(part: Row) -> Markup:
    """The lab's table with standard errors."""
    digits = digits_for(part["rows"])
    heads = (
        "mean cost",
        "± se",
        "std",
        "± se",
        "CE",
        "± se",
        "gap %",
        "± se",
        "CVaR 95%",
        "± se",
        "trades",
        "turnover",
        "explained",
    )
    rows = []
    for found in part["rows"]:
        row = beyond_value(found, part["model_value"])
        cells = [row["name"], row["policy"]]
        for name in ("mean_cost", "std", "ce"):
            cells += [figure(row[name], digits), figure(row[f"{name}_se"], digits)]
        cells += [
            figure(row["gap"], 1),
            figure(row["gap_se"], 1),
            figure(row["cvar95"], digits),
            figure(row["cvar95_se"], digits),
        ]
        cells += [figure(row["trades"], 1), figure(row["turnover"], 0), figure(row["explained"], 3)]
        rows.append(cells)
    said = html.tag(
        "p",
        f"In {part['currency']}; certainty equivalent (CE) and CVaR of the loss beyond the model's value of what is owed, "
        f"{figure(part['model_value'], 2)}. Gap: 0 daily Black-Scholes, 100 the optimum. A standard error of 0.0: known "
        "without sampling. A certainty equivalent of a policy that hardly hedges has no meaning at a great aversion: show "
        "it, rank nothing by it.",
        cls="note",
    )
    table = html.table([Column("policy", "l"), Column("settings", "w"), *map(Column, heads)], rows)
    return html.join([said, table, listed(part["notes"])])


def band_charts(found: Sequence[Row], key: str, spot: float) -> Markup:
    """The bands over the spot, early and late, and over time at the present spot."""
    names = [NAMES[item["kind"]] for item in found]
    over_spot: list[list[BandPanel]] = []
    for k in range(len(found[0]["over_spot"])):
        row = []
        for name, item in zip(names, found, strict=True):
            cut = item["over_spot"][k]
            left = f"{cut['left_days']:.3g} days left"
            row.append(
                BandPanel(
                    title=f"{name}, {left}",
                    x=tuple(item["spots"]),
                    lo=tuple(cut["lo"]),
                    hi=tuple(cut["hi"]),
                    want=tuple(cut["want"]),
                    at=spot,
                )
            )
        over_spot.append(row)
    over_time = [
        BandPanel(
            title=f"{name}, at {figure(spot, 2)}",
            x=tuple(item["days"]),
            lo=tuple(item["over_time"]["lo"]),
            hi=tuple(item["over_time"]["hi"]),
            want=tuple(item["over_time"]["want"]),
        )
        for name, item in zip(names, found, strict=True)
    ]
    legend = html.legend_of(
        [
            html.tag("span", html.tag("span", cls="chip", style="background: var(--band)"), "do nothing inside"),
            html.tag(
                "span", html.tag("span", cls="swatch", style="border-top: 3px solid var(--s0)"), "edge: trade to it"
            ),
            html.tag(
                "span", html.tag("span", cls="swatch", style="border-top: 3px dashed var(--s1)"), "the delta it hedges"
            ),
        ]
    )
    first = html.chart(
        "Bands over the spot",
        bands(
            f"{key}s",
            over_spot,
            x_units=["spot"] * len(over_spot),
            y_unit="hedge, contracts",
            label="bands over the spot",
        ),
        caption="The dotted line is the present spot. Each row has one scale.",
        legend=legend,
    )
    second = html.chart(
        "Bands over time, the spot standing still",
        bands(f"{key}t", [over_time], x_units=["days from now"], y_unit="hedge, contracts", label="bands over time"),
        caption="An edge at the picture's end goes on beyond it.",
    )
    return html.join([first, second])


def worlds_part(found: Row, currency: str, value: float) -> Markup:
    """What becomes of policies made for one world in another."""
    digits = digits_for([cell for row in found["rows"].values() for cell in row.values()])
    tables = []
    for title, key, base in (
        ("Mean cost", "mean_cost", 0.0),
        ("Standard deviation of P&L", "std", 0.0),
        ("CVaR 95% of the loss beyond the model's value", "cvar95", value),
    ):
        rows = [
            [name, *(with_error(row[world][key] - base, row[world][f"{key}_se"], digits) for world in found["worlds"])]
            for name, row in found["rows"].items()
        ]
        heads = [Column("policy", "l"), *map(Column, found["worlds"])]
        tables.append(html.table(heads, rows, caption=f"{title}, {currency}, ± standard error"))
    paths = f" {found['paths']:,} paths each, scoring seed {found['seed']}."
    said = html.tag(
        "p",
        "Every policy is made for the vol it believes in and asked in another world. Jumps are five a year of -2% on average "
        "(standard deviation 3%), their variance taken out of the diffusion; the moving vol reverts to the believed one. A "
        "wrong vol moves what the book itself is worth, which no hedge of the underlying takes away: compare within a column."
        + paths,
    )
    return html.join([said, *tables])


def fills_part(d: Row) -> Markup:
    """How optimistic the fills are."""
    said = html.tag("p", " ".join(d["fills"]["text"]))
    return html.join([said, listed(d["fills"]["assumptions"])])


def made_part(d: Row) -> Markup:
    """Seeds, aversion, hash and notes."""
    aversion = "none given" if d["aversion"] is None else f"{d['aversion']:.6g} per {d['base_currency']}"
    lines = [f"Risk aversion: {aversion}.", f"Config {d['config_hash'][:16]}."]
    if "seeds" in d:
        seeds = d["seeds"]
        tuning = f", tuning seed {seeds['tuning']}: their paths never meet" if "tuning" in seeds else ""
        lines.append(f"Scoring seed {seeds['scoring']}{tuning}.")
    return listed([*lines, *d["notes"]])


# --------------------------------------------------------------------------- advice


def advice_page(d: Row) -> str:
    """The page of an advice."""
    sections: list[tuple[str, str, Markup]] = []
    lead: list[str] = []
    for i, item in enumerate(d["advice"]):
        lead += [" ".join(sentences(item)[:2]), sentences(item)[2]]
        sections += advice_parts(item, i, many=len(d["advice"]) > 1)
    sections.append(("fills", "How optimistic this is", fills_part(d)))
    sections.append(("made", "How this was made", made_part(d)))
    return page(f"{d['name']}: how to hedge this book", lead, sections)


def advice_parts(item: Row, i: int, *, many: bool) -> list[tuple[str, str, Markup]]:
    """One underlying's advice: the frontier, the scores, the bands, other worlds."""
    whose = f" of {item['underlying']}" if many else ""
    rows = {row["name"]: row for row in item["rows"]}
    scored = html.table(
        [Column("policy", "l"), *map(Column, SCORED)],
        [
            [
                score["name"], figure(score["above_optimum"], 2), figure(score["gap"], 1),
                *(figure(rows.get(score["name"], {}).get(k), 2) for k in ("mean_cost", "mean_cost_se", "std", "std_se")),
                figure(rows.get(score["name"], {}).get("trades"), 1),
            ]
            for score in item["scores"]
        ],
        caption=f"Certainty equivalents without noise, in {item['currency']}; the lattice is good to about "
        f"{figure(item['lattice_error'], 2)}. Cost and risk from {item['paths']:,} paths, scoring seed {item['seed']}.",
    )  # fmt: skip
    part = {**item, "rows": item["rows"]}
    out = [
        (
            f"advice{i}",
            f"The advice{whose}",
            html.join(
                [frontier_chart(part, f"frontier{i}"), scored, html.tag("pre", item["config"]), listed(item["notes"])]
            ),
        )
    ]
    if item.get("bands"):
        out.append((f"bands{i}", f"The bands{whose}", band_charts(item["bands"], f"bands{i}", item["spot"])))
    if item.get("robustness"):
        out.append(
            (
                f"worlds{i}",
                f"In other worlds{whose}",
                worlds_part(item["robustness"], item["currency"], item["model_value"]),
            )
        )
    return out


# --------------------------------------------------------------------------- a sweep


def sweep_page(d: Row, account: str = "dynamic") -> str:
    """The page of a sweep: cost against risk of every point, each swept number alone, and the table."""
    rows = [row for row in d["points"] if account in row["books"]]
    good = efficient_points(rows, account)
    sections: list[tuple[str, str, Markup]] = [("plane", "Cost against risk", sweep_plane(d, rows, good, account))]
    numeric = [
        key
        for key in d["keys"]
        if len({row["point"][key] for row in rows}) > 1 and all(_is_number(row["point"][key]) for row in rows)
    ]
    charts = [sweep_lines(d, rows, key, i, account) for i, key in enumerate(numeric)]
    if charts and rows:
        sections.append(("keys", "By key", html.join(charts)))
    table = html.table(
        [*(Column(key) for key in d["keys"]), *map(Column, FIGURES), Column("efficient", "l")],
        [
            [
                *(str(row["point"][key]) for key in d["keys"]),
                *(figure(row["books"][account][name], 2) for name in FIGURES),
                "yes" if keep else "",
            ]
            for row, keep in zip(rows, good, strict=True)
        ],
        caption=f"Account {account}, in {d['base_currency']}",
    )
    sections.append(("points", "Every point", table))
    faults = [f"{row['point']}: {row['fault']}" for row in d["points"] if row["fault"]]
    if faults:
        sections.append(("faults", "Points that failed", listed(faults)))
    lead = [
        f"{len(rows)} points over {', '.join(d['keys'])}; {sum(good)} of them no other beats in both cost and risk."
    ]
    return page(f"{d['name']}: a sweep", lead, sections)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def sweep_plane(d: Row, rows: Sequence[Row], good: Sequence[bool], account: str) -> Markup:
    """Every point on the plane, those that no other beats named."""
    known = [(row, keep) for row, keep in zip(rows, good, strict=True) if row["books"][account]["pnl_std"] is not None]
    if not known:
        return html.tag("p", "No point has a standard deviation to draw.", cls="note")
    named = known if len(known) <= EVERYONE else [(row, keep) for row, keep in known if keep][:EVERYONE]
    dots = [
        Dot(
            name=", ".join(str(row["point"][key]) for key in d["keys"]),
            x=row["books"][account]["cost"],
            y=row["books"][account]["pnl_std"],
        )
        for row, _ in named
    ]
    rest = [row for row, _ in known if all(row is not one for one, _ in named)]
    curves = [
        Curve(name="", xs=(row["books"][account]["cost"],), ys=(row["books"][account]["pnl_std"],), series=2)
        for row in rest
    ]
    return html.chart(
        "Each point's cost and risk",
        plane(
            "sweep",
            dots,
            curves,
            x_unit=f"cost, {d['base_currency']}",
            y_unit=f"standard deviation of P&L, {d['base_currency']}",
            label="cost against risk",
        ),
        caption=f"Points are named by {', '.join(d['keys'])}"
        + ("." if not rest else "; those that another beats in both are small dots."),
    )


def sweep_lines(d: Row, rows: Sequence[Row], key: str, i: int, account: str) -> Markup:
    """Cost, risk and result over one swept number: the mean over whatever else was swept."""
    values = sorted({row["point"][key] for row in rows})
    means = [
        (
            unit,
            [_mean([row["books"][account][name] for row in rows if row["point"][key] == value]) for value in values],
        )
        for unit, name in (
            (f"cost, {d['base_currency']}", "cost"),
            ("standard deviation of P&L", "pnl_std"),
            ("trades", "trades"),
        )
    ]
    other = " Means over the other keys." if len(d["keys"]) > 1 else ""
    return html.chart(
        key,
        over_value(f"key{i}", [float(v) for v in values], means, x_unit=key, label=f"figures over {key}"),
        caption=other.strip(),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


__all__ = ["advice_page", "comparison_page", "sweep_page", "write_page"]
