"""A policy's picture is its place on the plane of cost and risk, or its band; law: an axis is linear or says that it is not,
begins where the data does, and no label lies on another.

The look is that of `bot.app.plots`: page colours, text as text, the same bytes for the same data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bot.app.plots import BAND, GRID, INK, MUTED, PAGE, WIDTH, _drawing, _dress, _svg, _whole_labels, colour, dash

MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "p")
_CHAR: Final = 0.0056
"""Width of a character of a label as a share of the picture's width."""
_LINE: Final = 0.043
"""Height of a label as a share of the picture's height."""


class Dot(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on the plane: cost, risk, and the standard errors that have one."""

    name: str
    x: float
    y: float
    x_error: float | None = None
    y_error: float | None = None
    hollow: bool = False


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A family over its parameter: points in order, and a label at its end."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    series: int
    strong: bool = False


def plane(
    name: str,
    dots: Sequence[Dot],
    curves: Sequence[Curve],
    *,
    x_unit: str,
    y_unit: str,
    label: str,
    height: float = 5.2,
) -> str:
    """The SVG of cost (across) against risk (up): a marker for each policy, a line for each family.

    The risk axis is logarithmic where the greatest risk is more than four times the least, and says so.
    """
    with _drawing() as new:
        figure = new(WIDTH, height)
        ax = figure.subplots()
        ys = [dot.y for dot in dots] + [y for curve in curves for y in curve.ys]
        logarithmic = bool(ys) and min(ys) > 0.0 and max(ys) > 4.0 * min(ys)
        _dress(ax, y_unit + (" (logarithmic)" if logarithmic else ""))
        ax.grid(visible=True, axis="x", color=GRID, linewidth=0.7)
        if logarithmic:
            ax.set_yscale("log")
        for curve in curves:
            ax.plot(
                curve.xs,
                curve.ys,
                color=INK if curve.strong else colour(curve.series),
                linestyle="solid" if curve.strong else dash(curve.series),
                linewidth=2.0 if curve.strong else 1.2,
                marker=".",
                markersize=5.0 if curve.strong else 4.0,
                zorder=2.5 if curve.strong else 2.0,
            )
        for i, dot in enumerate(dots):
            ax.errorbar(
                [dot.x],
                [dot.y],
                xerr=None if not dot.x_error else [dot.x_error],
                yerr=None if not dot.y_error else [dot.y_error],
                ecolor=MUTED,
                elinewidth=0.8,
                fmt="none",
                zorder=3,
            )
            ax.scatter(
                [dot.x],
                [dot.y],
                s=46,
                marker=MARKERS[i % len(MARKERS)],
                color=PAGE if dot.hollow else colour(i),
                edgecolors=colour(i) if dot.hollow else PAGE,
                linewidths=1.4 if dot.hollow else 0.7,
                zorder=4,
            )
        ax.margins(x=0.06, y=0.08)
        ax.set_xlabel(x_unit, color=MUTED, fontsize=7.8, labelpad=4)
        _whole_labels(ax.xaxis)
        if logarithmic:
            _log_labels(ax)
        else:
            _whole_labels(ax.yaxis)
        _name_dots(ax, dots, curves)
        return _svg(figure, name, label)


def _log_labels(ax: Any) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: PLC0415

    low, high = ax.get_ylim()
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 4 else (1,)
    ticks = [s * 10.0**k for k in range(first, last + 1) for s in steps if low <= s * 10.0**k <= high]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}" if v >= 1 else f"{v:g}"))


class Place(msgspec.Struct, frozen=True):
    """A box a label may stand in (shares of the picture), the end of it that is anchored, and how far out it is."""

    box: tuple[float, float, float, float]
    side: str
    ring: float


def _name_dots(ax: Any, dots: Sequence[Dot], curves: Sequence[Curve]) -> None:
    """A name beside each marker where there is room; markers that share a place share a label."""
    shared: dict[tuple[float, float], list[str]] = {}
    to_share = ax.transData + ax.transAxes.inverted()
    for dot in dots:
        px, py = (float(v) for v in to_share.transform((dot.x, dot.y)))
        shared.setdefault((round(px, 2), round(py, 2)), []).append(dot.name)
    taken = [_around(x, y, 0.004, 0.008) for x, y in _along(curves, to_share)]
    marks = [_around(x, y, 0.009, 0.018) for x, y in shared]
    placed: list[tuple[float, float, float, float]] = []
    for (x, y), names in sorted(shared.items(), key=lambda item: (-item[0][1], item[0][0])):
        text = ", ".join(names) if len(names) < 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
        best = min(
            _places(x, y, _CHAR * len(text)),
            key=lambda p: (
                _overlap(p.box, placed, 40.0)
                + _overlap(p.box, marks, 15.0)
                + _overlap(p.box, taken, 1.0)
                + 0.4 * p.ring
            ),
        )
        placed.append(best.box)
        left, bottom, right, _ = best.box
        ax.annotate(
            text,
            xy=(x, y),
            xytext=({"left": left, "right": right, "center": 0.5 * (left + right)}[best.side], bottom + 0.5 * _LINE),
            xycoords="axes fraction",
            textcoords="axes fraction",
            ha=best.side,
            va="center",
            fontsize=8.0,
            color=INK,
            zorder=6,
            bbox={"facecolor": PAGE, "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
            if best.ring > 1.5
            else None,
        )


def _along(curves: Sequence[Curve], to_share: Any) -> list[tuple[float, float]]:
    """Points along the lines, close enough that no label fits between two."""
    found: list[tuple[float, float]] = []
    for curve in curves:
        moved = [to_share.transform(p) for p in zip(curve.xs, curve.ys, strict=True)]
        ends = [(float(x), float(y)) for x, y in moved]
        found += ends
        for (x0, y0), (x1, y1) in itertools.pairwise(ends):
            n = 1 + int(max(abs(x1 - x0) / 0.01, abs(y1 - y0) / 0.02))
            found += [(x0 + (x1 - x0) * k / n, y0 + (y1 - y0) * k / n) for k in range(1, n)]
    return found


def _around(x: float, y: float, across: float, up: float) -> tuple[float, float, float, float]:
    return x - across, y - up, x + across, y + up


def _places(x: float, y: float, width: float) -> list[Place]:
    """Where a label may stand, nearest first."""
    found = []
    for ring in (1.0, 2.0, 3.2, 4.6, 6.2, 8.0):
        up, side = 0.032 * ring, 0.012 * ring
        for left, middle, anchor in (
            (x + side, y, "left"), (x - side - width, y, "right"), (x - 0.5 * width, y + up, "center"),
            (x - 0.5 * width, y - up, "center"), (x + side, y + up, "left"), (x + side, y - up, "left"),
            (x - side - width, y + up, "right"), (x - side - width, y - up, "right"),
        ):  # fmt: skip
            if left >= 0.0 and left + width <= 1.0 and 0.02 <= middle <= 0.98:
                found.append(Place((left, middle - 0.5 * _LINE, left + width, middle + 0.5 * _LINE), anchor, ring))
    left = max(0.0, min(x, 1.0 - width))
    return found or [Place((left, y, left + width, y + _LINE), "left", 9.0)]


def _overlap(box: Sequence[float], others: Sequence[Sequence[float]], weight: float) -> float:
    total = 0.0
    for other in others:
        across = min(box[2], other[2]) - max(box[0], other[0])
        up = min(box[3], other[3]) - max(box[1], other[1])
        if across > 0.0 and up > 0.0:
            total += weight
    return total


# --------------------------------------------------------------------------- bands


class BandPanel(msgspec.Struct, frozen=True, kw_only=True):
    """One band: its edges and the exact hedge over one axis. None: no bound there. `at` marks where the book stands."""

    title: str
    x: tuple[float, ...]
    lo: tuple[float | None, ...]
    hi: tuple[float | None, ...]
    want: tuple[float | None, ...]
    at: float | None = None


def bands(
    name: str,
    rows: Sequence[Sequence[BandPanel]],
    *,
    x_units: Sequence[str],
    y_unit: str,
    label: str,
    height: float = 2.3,
) -> str:
    """The SVG of bands in small multiples, a row for each axis; all panels of a row have the same scales.

    An edge without a bound is drawn to the end of the picture.
    """
    across = max(len(row) for row in rows)
    with _drawing() as new:
        figure = new(WIDTH, len(rows) * (height + 0.35))
        grid = figure.subplots(len(rows), across, squeeze=False)
        for axes, panels, x_unit in zip(grid, rows, x_units, strict=True):
            low, high = _reach(list(panels))
            for i, (ax, panel) in enumerate(zip(axes, panels, strict=False)):
                _draw_band(ax, panel, low, high)
                ax.set_xlabel(x_unit, color=MUTED, fontsize=7.6, labelpad=3)
                if i == 0:
                    ax.set_ylabel(y_unit, color=MUTED, fontsize=7.6)
                else:
                    ax.tick_params(labelleft=False)
            for ax in list(axes)[len(panels) :]:
                ax.set_visible(False)
        return _svg(figure, name, label)


def _reach(panels: Sequence[BandPanel]) -> tuple[float, float]:
    """The scale of a row: what is hedged, and nine tenths of each edge; the widest ends of a band go beyond the picture."""
    wants = [v for p in panels for v in p.want if v is not None]
    low, high = min(wants, default=0.0), max(wants, default=0.0)
    lows = sorted(v for p in panels for v in p.lo if v is not None)
    highs = sorted(v for p in panels for v in p.hi if v is not None)
    if lows:
        low = min(low, lows[len(lows) // 10])
    if highs:
        high = max(high, highs[(9 * len(highs) - 1) // 10])
    room = 0.08 * max(high - low, 1e-9 * max(1.0, abs(low), abs(high)))
    return low - room, high + room


def _draw_band(ax: Any, panel: BandPanel, low: float, high: float) -> None:
    _dress(ax, "")
    ax.set_title(panel.title, loc="left", color=INK, fontsize=8.6, fontweight="bold", pad=5)
    lo = [low if v is None else min(max(v, low), high) for v in panel.lo]
    hi = [high if v is None else min(max(v, low), high) for v in panel.hi]
    ax.fill_between(panel.x, lo, hi, color=BAND, alpha=0.30, linewidth=0, zorder=1.5)
    for edge in (lo, hi):
        ax.plot(panel.x, edge, color=colour(0), linewidth=1.2, zorder=2.5)
    want = [math.nan if v is None else v for v in panel.want]
    ax.plot(panel.x, want, color=colour(1), linewidth=1.2, linestyle=(0, (4, 2)), zorder=3)
    if panel.at is not None:
        ax.axvline(panel.at, color=MUTED, linewidth=0.7, linestyle=(0, (1, 2.5)), zorder=1)
    ax.set_ylim(low, high)
    ax.set_xlim(panel.x[0], panel.x[-1])
    _whole_labels(ax.yaxis)
    _whole_labels(ax.xaxis)


def over_value(
    name: str, xs: Sequence[float], panels: Sequence[tuple[str, Sequence[float | None]]], *, x_unit: str, label: str
) -> str:
    """The SVG of figures over one swept value, a panel each. Shape: xs (n,), each figure (n,), None where not known."""
    order = sorted(range(len(xs)), key=lambda i: xs[i])
    logarithmic = len(xs) > 2 and min(xs) > 0.0 and max(xs) > 20.0 * min(xs)
    with _drawing() as new:
        figure = new(WIDTH, 3.0)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for i, (ax, (unit, values)) in enumerate(zip(axes, panels, strict=True)):
            _dress(ax, unit)
            if logarithmic:
                ax.set_xscale("log")
            ys = [math.nan if values[k] is None else float(values[k] or 0.0) for k in order]
            ax.plot([xs[k] for k in order], ys, color=colour(i), linewidth=1.3, marker="o", markersize=4, zorder=3)
            ax.set_xlabel(x_unit + (" (logarithmic)" if logarithmic else ""), color=MUTED, fontsize=7.8)
            _whole_labels(ax.yaxis)
            if not logarithmic:
                _whole_labels(ax.xaxis)
        return _svg(figure, name, label)
