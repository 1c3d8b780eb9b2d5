"""A word on a page is a figure, a time or an element, written one way everywhere; law: what is not HTML already is escaped.

Nothing here knows what a run is. Display scaling, per cent and thousands separators, lives here only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from html import escape
from typing import Final

import msgspec

from bot.domain.units import NS_PER_SECOND, Nanos, iso

DASH: Final = "–"
SHOWN_ROWS: Final = 12
"""Rows of a long list that stand open; the rest is folded."""
MOST_ROWS: Final = 1000
"""Rows of a list that the page carries at all; it says how many more there are and where."""


class Markup(str):
    """Text that is HTML already; plain strings are escaped wherever they are put."""

    __slots__ = ()


# --------------------------------------------------------------------------- how figures are worded


def money(value: float | Decimal | None) -> str:
    """Two decimals with thousands separators; a dash when not known.

    >>> money(-6537.5), money(-0.001), money(None)
    ('-6,537.50', '0.00', '–')
    """
    return figure(value, 2)


def figure(value: float | Decimal | None, digits: int) -> str:
    """A number with so many decimals and thousands separators; a dash when not known."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:,.{digits}f}"
    return text if any(c in "123456789" for c in text) else text.lstrip("-")


def share(value: float | None, digits: int = 1) -> str:
    """A ratio as a percentage; a dash when not known."""
    text = figure(None if value is None else 100.0 * value, digits)
    return text if text == DASH else text + "%"


def plain(value: float | Decimal | None) -> str:
    """A price or quantity with the decimals it has, at most ten, and thousands separators."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{Decimal(str(value)):,.10f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def quantity(value: float | Decimal | None) -> str:
    """A signed quantity: bought +, sold -."""
    text = plain(value)
    return text if text in {DASH, "0"} or text.startswith("-") else "+" + text


def when(ts: Nanos) -> str:
    """An instant in UTC for a table: date, time, and milliseconds only when it has some."""
    text = iso(int(ts)).replace("T", " ").rstrip("Z")
    return text[:23] if "." in text else text


def length(ns: Nanos | None) -> str:
    """A length of time for a reader, to two figures' worth of its unit.

    >>> length(193_316_109), length(60_000_000_000), length(364 * 86_400_000_000_000), length(0)
    ('193 ms', '1 min', '364 d', '0 s')
    """
    if ns is None:
        return DASH
    if abs(ns) < NS_PER_SECOND:
        return "0 s" if ns == 0 else f"{ns / 1e6:,.0f} ms" if abs(ns) >= 1_000_000 else f"{ns / 1e3:,.0f} µs"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if abs(ns) >= size * NS_PER_SECOND:
            return f"{ns / (size * NS_PER_SECOND):,.1f}".removesuffix(".0") + f" {unit}"
    return DASH


def called(account: str) -> str:
    """What a sentence calls an account."""
    return {"none": "the unhedged book", "static": "the static hedge", "dynamic": "dynamic hedging"}.get(
        account, account
    )


def capital(sentence: str) -> str:
    """A sentence with its first letter large."""
    return sentence[:1].upper() + sentence[1:]


def names(of: Sequence[str]) -> str:
    """Names joined as a sentence does."""
    return of[0] if len(of) == 1 else ", ".join(of[:-1]) + " and " + of[-1]


def price(value: float | None) -> str:
    """A price as a table shows it: two decimals at most from a thousand on, four below; a dash when not known."""
    return DASH if value is None else plain(round(value, 2 if abs(value) >= 1000 else 4))


# --------------------------------------------------------------------------- HTML


def tag(name: str, *inside: str, cls: str = "", **attributes: str) -> Markup:
    """An element; plain text inside it is escaped."""
    listed = {"class": cls, **attributes} if cls else attributes
    head = name + "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in listed.items())
    return Markup(f"<{head}>{''.join(_safe(part) for part in inside)}</{name}>")


def join(parts: Iterable[str], between: str = "\n") -> Markup:
    """Parts one after the other, each escaped unless it is HTML already."""
    return Markup(between.join(_safe(part) for part in parts if part))


def _safe(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)


class Column(msgspec.Struct, frozen=True):
    """A table's column: its heading and its class (l left, w wrapped; numbers stand right)."""

    head: str
    cls: str = ""


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, caption: str = "", last_is_sum: bool = False
) -> Markup:
    """A table whose rows beyond the first dozen are folded, and beyond a thousand are counted only."""
    open_rows = rows if len(rows) <= SHOWN_ROWS + 3 else rows[:SHOWN_ROWS]
    folded = rows[len(open_rows) : MOST_ROWS]
    parts = [_table(columns, open_rows, caption, last_is_sum=last_is_sum and not folded)]
    if folded:
        left = len(rows) - len(open_rows)
        more = (
            f"{left:,} more"
            if len(rows) <= MOST_ROWS
            else f"{len(folded):,} of {left:,} more; `evenkeel export` has all"
        )
        parts.append(tag("details", tag("summary", more), _table(columns, folded, "", last_is_sum=False)))
    return join(parts)


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]], caption: str, *, last_is_sum: bool) -> Markup:
    head = tag("thead", tag("tr", *[tag("th", c.head, cls=c.cls, scope="col") for c in columns]))
    body = [
        tag(
            "tr",
            *[tag("td", cell, cls=c.cls) for c, cell in zip(columns, row, strict=True)],
            cls="sum" if last_is_sum and i == len(rows) - 1 else "",
        )
        for i, row in enumerate(rows)
    ]
    title = tag("caption", caption) if caption else Markup()
    return tag("div", tag("table", title, head, tag("tbody", join(body))), cls="scroll")


def chart(title: str, plot: str, *, caption: str = "", legend: Markup | None = None) -> Markup:
    """A figure: the finding as its title, a line of explanation, its legend and the plot."""
    return tag(
        "figure",
        tag("h3", title),
        tag("figcaption", caption) if caption else Markup(),
        legend or Markup(),
        tag("div", Markup(plot), cls="scroll"),
    )


def section(key: str, title: str, *parts: str) -> Markup:
    """A part of the page that the contents can point at."""
    return tag("section", tag("h2", title), *parts, id=key)


def swatch(series: int, name: str, value: str = "", *, chip: bool = False, plain_line: bool = False) -> Markup:
    """An entry of a legend: the line or fill of a series, its name, and a value beside it."""
    style = ("solid", "dashed", "dotted", "dashed", "dashed")[0 if plain_line else series % 5]
    look = f"background: var(--s{series % 8})" if chip else f"border-top: 3px {style} var(--s{series % 8})"
    mark = tag("span", cls="chip" if chip else "swatch", style=look)
    return tag("span", mark, name, tag("span", value, cls="v") if value else Markup())


def legend_of(items: Iterable[Markup]) -> Markup:
    """A legend of such entries."""
    return tag("div", *items, cls="legend")
