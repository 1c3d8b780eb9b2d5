"""A plot is one SVG that takes its colours from the page; law: no spike is lost, and closed hours have no line across them.

Colours are drawn as codes and replaced by CSS variables, so that one picture serves light, dark and print. Text stays
text. Nothing in the SVG points outside itself, and the same data gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.domain.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND, Nanos

Floats = NDArray[np.float64]
Instants = NDArray[np.int64]

INK: Final = "#010100"
MUTED: Final = "#010101"
GRID: Final = "#010102"
BAND: Final = "#010103"
BUY: Final = "#010104"
SELL: Final = "#010105"
PAGE: Final = "#010106"
_NAMED: Final = {INK: "ink", MUTED: "muted", GRID: "grid", BAND: "band", BUY: "buy", SELL: "sell", PAGE: "page"}
_DASHES: Final = ("solid", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 1.6, 1.2, 1.6)), (0, (3, 1.2)))

WIDTH: Final = 10.6
"""Inches; 72 of its points make the SVG's unit, and the page scales it."""
BUCKETS: Final = 900
"""Columns a line is thinned to: about one a pixel."""
MOST_MARKERS: Final = 1500
_GAP: Final = 0.012  # width of a closed stretch, as a share of the open time

_HOUR: Final = 60 * NS_PER_MINUTE
_STEPS: Final = tuple(
    n * unit
    for unit, counts in (
        (NS_PER_SECOND, (1, 2, 5, 10, 15, 30)),
        (NS_PER_MINUTE, (1, 2, 5, 10, 15, 30)),
        (_HOUR, (1, 2, 3, 4, 6, 12)),
    )
    for n in counts
)


def colour(series: int) -> str:
    """The colour code of a series, a CSS variable once on the page."""
    return f"#0102{series % 8:02x}"


def dash(series: int) -> Any:
    """The line style that tells a series apart without its colour."""
    return _DASHES[series % len(_DASHES)]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One series over time. Shape: y (n,), at the instants given beside it; `step` holds each value until the next."""

    y: Floats
    series: int
    step: bool = False
    width: float = 1.3
    plain: bool = False


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """What lies between two series, each value held until the next. Shape: lo, hi (n,)."""

    lo: Floats
    hi: Floats


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """Buys and sells on a path. Shape: at, y, quantity (n,); the sign of `quantity` is the side."""

    at: Instants
    y: Floats
    quantity: Floats


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One set of axes over time, with its unit and what is drawn in it."""

    unit: str
    lines: Sequence[Line]
    area: Area | None = None
    marks: Marks | None = None
    zero: bool = True
    height: float = 2.5


class Axis:
    """Time with its closed stretches pressed together; positions count open nanoseconds from the first instant."""

    def __init__(self, start: Nanos, end: Nanos, closed: Sequence[tuple[Nanos, Nanos]] = ()) -> None:
        self.start, self.end = int(start), int(end)
        inside = [(max(a, self.start), min(b, self.end)) for a, b in closed if a < self.end and b > self.start]
        self.closed = [(a, b) for a, b in inside if a < b]
        shut = sum(b - a for a, b in self.closed)
        self.open_time = max(self.end - self.start - shut, 1)
        self._gap = _GAP * self.open_time
        ts, xs, x = [self.start], [0.0], 0.0
        for a, b in self.closed:
            x += a - ts[-1]
            ts.append(a)
            xs.append(x)
            x += self._gap
            ts.append(b)
            xs.append(x)
        ts.append(max(self.end, ts[-1]))
        xs.append(x + ts[-1] - ts[-2])
        self._ts, self._xs = np.array(ts, dtype=np.float64) - self.start, np.array(xs)
        self.width = max(float(xs[-1]), 1.0)

    def place(self, ts: Instants) -> Floats:
        """Positions of instants. Shape: (n,)."""
        return np.asarray(np.interp((ts - self.start).astype(np.float64), self._ts, self._xs))

    def is_closed(self, ts: Instants) -> NDArray[np.bool_]:
        """Whether each instant lies strictly inside a closed stretch. Shape: (n,)."""
        out = np.zeros(len(ts), dtype=bool)
        for a, b in self.closed:
            out |= (ts > a) & (ts < b)
        return out

    def stretch(self, ts: Instants) -> NDArray[np.int64]:
        """The number of the open stretch each instant belongs to. Shape: (n,)."""
        return np.searchsorted(np.array([b for _, b in self.closed], dtype=np.int64), ts, side="right")

    def breaks(self) -> list[float]:
        """Positions of the middle of each closed stretch that has open time on both sides."""
        return [
            float(np.mean(self.place(np.array([a, b], dtype=np.int64))))
            for a, b in self.closed
            if a > self.start and b < self.end
        ]

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and labels of about eight round instants; a label says the day where the day changes."""
        length = self.end - self.start
        if length <= 0:
            return [(0.0, _clock(self.start, NS_PER_SECOND) + "\n" + _day(self.start))]
        if self.open_time > 7 * NS_PER_DAY or len(self.closed) > 3 or length > 4 * NS_PER_DAY:
            return _say_days_once(self._thinned(self._day_ticks()))
        step = next((s for s in _STEPS if self.open_time / s <= 9), 12 * _HOUR)
        first = -(-self.start // step) * step
        found = np.arange(first, self.end + 1, step, dtype=np.int64)
        found = found[~self.is_closed(found)]
        if not len(found):
            found = np.array([self.start], dtype=np.int64)
        labels: list[tuple[float, str]] = []
        for ts, x in zip(found.tolist(), self.place(found).tolist(), strict=True):
            labels.append((x, _clock(ts, step) + "\n" + _day(ts)))
        return _say_days_once(self._thinned(labels))

    def _day_ticks(self) -> list[tuple[float, str]]:
        days = np.arange(self.start // NS_PER_DAY, self.end // NS_PER_DAY + 1, dtype=np.int64)
        starts = np.clip(days * NS_PER_DAY, self.start, self.end)
        if len(days) > 120:
            labels = [(ts, datetime.fromtimestamp(ts // NS_PER_SECOND, UTC)) for ts in starts.tolist()]
            months = [(ts, d) for ts, d in labels if d.day == 1]
            every = max(1, -(-len(months) // 9))
            kept = months[::every]
            where = self.place(np.array([ts for ts, _ in kept], dtype=np.int64))
            return [(x, f"{d:%b}\n{d:%Y}") for x, (_, d) in zip(where.tolist(), kept, strict=True)]
        shut = self.is_closed(starts)
        for i in np.flatnonzero(shut):
            opened = next(b for a, b in self.closed if a < starts[i] < b)
            starts[i] = opened
        starts = np.unique(starts)
        return [(x, _day(ts)) for ts, x in zip(starts.tolist(), self.place(starts).tolist(), strict=True)]

    def _thinned(self, ticks: list[tuple[float, str]], least: float = 0.075) -> list[tuple[float, str]]:
        kept: list[tuple[float, str]] = []
        for x, label in ticks:
            if not kept or x - kept[-1][0] >= least * self.width:
                kept.append((x, label))
        return kept


def _say_days_once(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """The second line of a label, its day or year, is said where it changes only."""
    out: list[tuple[float, str]] = []
    before = ""
    for x, label in ticks:
        near, _, day = label.partition("\n")
        out.append((x, near if day == before else label))
        before = day
    return out


def _clock(ts: Nanos, step: Nanos) -> str:
    moment = datetime.fromtimestamp(ts // NS_PER_SECOND, UTC)
    return f"{moment:%H:%M:%S}" if step < NS_PER_MINUTE else f"{moment:%H:%M}"


def _day(ts: Nanos) -> str:
    moment = datetime.fromtimestamp(ts // NS_PER_SECOND, UTC)
    return f"{moment.day} {moment:%b %Y}"


def thin(x: Floats, y: Floats, buckets: int = BUCKETS) -> tuple[Floats, Floats]:
    """The line with only the first, last, least and greatest point of each of `buckets` columns: spikes survive.

    Shape: x, y (n,), x ascending; NaN in y is a break and stays one.

    >>> xs = np.arange(10_000.0)
    >>> ys = np.where(xs == 4321.0, 7.0, 0.0)
    >>> px, py = thin(xs, ys, 100)
    >>> len(px) <= 400, float(py.max()), float(px[py.argmax()])
    (True, 7.0, 4321.0)
    """
    if len(x) <= 4 * buckets:
        return x, y
    column = np.minimum((buckets * (x - x[0]) / max(x[-1] - x[0], 1e-300)).astype(np.int64), buckets - 1)
    edges = np.flatnonzero(np.diff(column)) + 1
    keep: list[NDArray[np.int64]] = [np.flatnonzero(np.isnan(y))]
    starts, ends = np.concatenate(([0], edges)), np.concatenate((edges, [len(x)]))
    for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
        part = y[a:b]
        picked = [a, b - 1]
        if not np.isnan(part).all():
            picked += [a + int(np.nanargmin(part)), a + int(np.nanargmax(part))]
        keep.append(np.array(picked, dtype=np.int64))
    index = np.unique(np.concatenate(keep))
    return x[index], y[index]


def over_time(name: str, axis: Axis, at: Instants, panels: Sequence[Panel], *, label: str) -> str:
    """The SVG of panels over one time axis. Shape: at (n,) ascending, the instants of every line and area."""
    with _drawing() as new:
        heights = [panel.height for panel in panels]
        figure = new(WIDTH, sum(heights) + 0.42 + 0.16 * len(panels))
        axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        x = axis.place(at)
        shut = axis.is_closed(at)
        stretch = axis.stretch(at)
        for ax, panel in zip(axes, panels, strict=True):
            _draw_panel(ax, panel, axis=axis, x=x, shut=shut, stretch=stretch)
        ticks = axis.ticks()
        last = axes[-1]
        margin = 0.006 * axis.width if axis.end > axis.start else 1.0
        last.set_xlim(-margin, axis.width + margin if axis.end > axis.start else 1.0)
        last.set_xticks([t for t, _ in ticks], [text for _, text in ticks])
        for ax in axes[:-1]:
            ax.tick_params(labelbottom=False)
        return _svg(figure, name, label)


def _draw_panel(
    ax: Any, panel: Panel, *, axis: Axis, x: Floats, shut: NDArray[np.bool_], stretch: NDArray[np.int64]
) -> None:
    _dress(ax, panel.unit)
    for position in axis.breaks():
        ax.axvline(position, color=MUTED, linewidth=0.7, linestyle=(0, (1, 2.5)), zorder=1)
    if panel.zero:
        ax.axhline(0.0, color=MUTED, linewidth=0.7, zorder=1)
    if panel.area is not None:
        px, lo = _broken(x, panel.area.lo, shut, stretch)
        _, hi = _broken(x, panel.area.hi, shut, stretch)
        px, lo, hi = _thin_area(px, lo, hi)
        ax.fill_between(px, lo, hi, step="post", color=BAND, alpha=0.28, linewidth=0.6, zorder=1.5)
    for line in panel.lines:
        px, py = thin(*_broken(x, line.y, shut, stretch))
        style = {"color": colour(line.series), "linewidth": line.width, "zorder": 3 - 0.05 * line.series}
        style["linestyle"] = "solid" if line.plain else dash(line.series)
        if np.count_nonzero(np.isfinite(py)) == 1:
            style["marker"] = "o"
        ax.plot(px, py, drawstyle="steps-post" if line.step else "default", **style)
    if panel.marks is not None:
        _draw_marks(ax, panel.marks, axis)
    ax.margins(y=0.08)
    _whole_labels(ax.yaxis)


def _broken(x: Floats, y: Floats, shut: NDArray[np.bool_], stretch: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The points outside closed hours, with a NaN between two open stretches."""
    x, y, stretch = x[~shut], y[~shut], stretch[~shut]
    cuts = np.flatnonzero(np.diff(stretch)) + 1
    return np.insert(x, cuts, x[cuts - 1]), np.insert(y, cuts, math.nan)


def _thin_area(x: Floats, lo: Floats, hi: Floats) -> tuple[Floats, Floats, Floats]:
    if len(x) <= 4 * BUCKETS:
        return x, lo, hi
    index = np.unique(np.linspace(0, len(x) - 1, 2 * BUCKETS).astype(np.int64))
    return x[index], lo[index], hi[index]


def _draw_marks(ax: Any, marks: Marks, axis: Axis) -> None:
    quantity = marks.quantity
    if not len(quantity):
        return
    chosen = np.argsort(-np.abs(quantity), kind="stable")[:MOST_MARKERS]
    at, y, quantity = marks.at[chosen], marks.y[chosen], quantity[chosen]
    size = 10.0 + 42.0 * np.sqrt(np.abs(quantity) / np.max(np.abs(quantity)))
    x = axis.place(at)
    for side, marker, code in ((quantity > 0, "^", BUY), (quantity < 0, "v", SELL)):
        ax.scatter(
            x[side],
            y[side],
            s=size[side],
            marker=marker,
            color=code,
            linewidths=0.5,
            edgecolors=PAGE,
            zorder=5,
            alpha=0.9,
        )


def bars(
    name: str, panels: Sequence[tuple[str, int, Sequence[tuple[str, float | None]]]], *, unit: str, label: str
) -> str:
    """The SVG of horizontal bars in small multiples: one panel of (term, value) an account, each on its own scale."""
    across = len(panels) if len(panels) < 4 else 2 if len(panels) == 4 else 3
    down = -(-len(panels) // across)
    terms = max(len(rows) for _, _, rows in panels)
    with _drawing() as new:
        figure = new(WIDTH, down * (0.23 * terms + 0.62))
        grid = figure.subplots(down, across, squeeze=False)
        for ax, (title, series, rows) in zip(grid.flat, panels, strict=False):
            _draw_bars(ax, title, series, rows, unit=unit)
        for ax in list(grid.flat)[len(panels) :]:
            ax.set_visible(False)
        return _svg(figure, name, label)


def _draw_bars(ax: Any, title: str, series: int, rows: Sequence[tuple[str, float | None]], *, unit: str) -> None:
    values = [0.0 if v is None or not math.isfinite(v) else v for _, v in rows]
    y = np.arange(len(rows))[::-1]
    codes = [INK if term == "total" else colour(series) for term, _ in rows]
    ax.barh(y, values, height=0.62, color=codes, linewidth=0, zorder=2)
    ax.axvline(0.0, color=MUTED, linewidth=0.8, zorder=3)
    reach = max((abs(v) for v in values), default=0.0) or 1.0
    lo, hi = min([*values, 0.0]), max([*values, 0.0])
    room = 0.44 * max(hi - lo, 0.6 * reach)
    ax.set_xlim(lo - (room if lo < 0 else 0.06 * reach), hi + (room if hi > 0 or lo == hi else 0.06 * reach))
    for place, (_, known), value in zip(y.tolist(), rows, values, strict=True):
        text = "–" if known is None else _money(value)
        left = value < 0
        ax.annotate(
            text,
            (value, place),
            xytext=(-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            color=INK,
            fontsize=7.6,
        )
    ax.set_yticks(y, [term for term, _ in rows])
    ax.set_xticks([])
    ax.set_title(f"{title}, {unit}", loc="left", color=INK, fontsize=9, fontweight="bold", pad=6)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0)


def stacked(
    name: str,
    rows: Sequence[str],
    parts: Sequence[tuple[str, Sequence[float]]],
    *,
    unit: str,
    label: str,
    upright: bool = False,
) -> str:
    """The SVG of stacked bars, what adds on one side of zero and what takes on the other.

    `parts` are (kind, one value a row); `upright` draws the rows side by side, as many as there are.
    """
    table = np.array([values for _, values in parts], dtype=np.float64).reshape(len(parts), len(rows))
    table = np.where(np.isfinite(table), table, 0.0)
    with _drawing() as new:
        figure = new(WIDTH, 2.7 if upright else 0.5 + 0.3 * len(rows))
        ax = figure.subplots()
        _dress(ax, unit)
        place = np.arange(len(rows)) if upright else np.arange(len(rows))[::-1]
        up, down = np.zeros(len(rows)), np.zeros(len(rows))
        for i, values in enumerate(table):
            foot = np.where(values >= 0, up, down)
            if upright:
                ax.bar(place, values, bottom=foot, width=0.86, color=colour(i), linewidth=0, zorder=2)
            else:
                ax.barh(place, values, left=foot, height=0.6, color=colour(i), linewidth=0, zorder=2)
            up += np.maximum(values, 0.0)
            down += np.minimum(values, 0.0)
        if upright:
            _dress_upright(ax, rows, np.sum(table, axis=0))
        else:
            _dress_lying(ax, rows, place, up, np.sum(table, axis=0))
        return _svg(figure, name, label)


def _dress_upright(ax: Any, rows: Sequence[str], total: Floats) -> None:
    n = len(rows)
    ax.axhline(0.0, color=MUTED, linewidth=0.8, zorder=3)
    ax.scatter(np.arange(n), total, s=9, color=INK, zorder=4, marker="D", linewidths=0.4, edgecolors=PAGE)
    every = max(1, -(-n // 9))
    ax.set_xticks(range(0, n, every), [rows[i] for i in range(0, n, every)])
    ax.set_xlim(-0.8, n - 0.2)
    ax.margins(y=0.08)
    _whole_labels(ax.yaxis)


def _dress_lying(ax: Any, rows: Sequence[str], place: NDArray[np.int64], up: Floats, total: Floats) -> None:
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x", color=GRID, linewidth=0.7)
    ax.axvline(0.0, color=MUTED, linewidth=0.8, zorder=3)
    for y, edge, value in zip(place.tolist(), up.tolist(), total.tolist(), strict=True):
        ax.annotate(
            _money(value), (edge, y), xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=8
        )
    ax.set_yticks(place, list(rows))
    ax.tick_params(axis="y", labelcolor=INK, labelsize=8.5)
    ax.margins(x=0.14)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    _whole_labels(ax.xaxis)


# --------------------------------------------------------------------------- the look of all of them


class _drawing:  # noqa: N801  reads as a verb where it is used
    """matplotlib with the settings of the page, for one figure; nothing global is left changed."""

    def __enter__(self) -> Callable[[float, float], Any]:
        import matplotlib as mpl  # noqa: PLC0415  heavy, and only reports draw
        from matplotlib.figure import Figure  # noqa: PLC0415

        self._context = mpl.rc_context(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "evenkeel",
                "text.parse_math": False,
                "font.family": "sans-serif",
                "font.sans-serif": ["DejaVu Sans"],
                "font.size": 8.2,
                "axes.formatter.useoffset": False,
                "axes.linewidth": 0.7,
                "path.simplify": True,
                "path.simplify_threshold": 0.12,
            }
        )
        self._context.__enter__()
        return lambda width, height: Figure(figsize=(width, height), layout="constrained")

    def __exit__(self, *fault: object) -> None:
        self._context.__exit__(None, None, None)


def _dress(ax: Any, unit: str) -> None:
    ax.set_title(unit, loc="left", color=MUTED, fontsize=7.8, pad=5)
    ax.grid(visible=True, axis="y", color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.patch.set_visible(False)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.tick_params(colors=MUTED, labelcolor=MUTED, length=0, pad=4)


def _whole_labels(axis: Any) -> None:
    """Tick labels with thousands separators and as many decimals as their spacing needs."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    low, high = axis.get_view_interval()
    places = axis.get_major_locator().tick_values(low, high)
    gap = float(places[1] - places[0]) if len(places) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(gap) + 1e-9)) if gap > 0 else 2
    if digits and abs(gap * 10**digits - round(gap * 10**digits)) > 1e-6:
        digits += 1
    if not digits and abs(gap - round(gap)) > 1e-6:
        digits = 1
    axis.set_major_formatter(FuncFormatter(lambda v, _: _plain_zero(f"{v:,.{digits}f}")))


def _plain_zero(text: str) -> str:
    return text.lstrip("-") if not any(c in "123456789" for c in text) else text


def _money(value: float) -> str:
    digits = 0 if abs(value) >= 10_000 else 2
    return _plain_zero(f"{value:,.{digits}f}")


_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_SHEET = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>\s*", re.DOTALL)
_NAMESPACE = re.compile(r'\s+xmlns(?::\w+)?="[^"]*"')
_FONT = re.compile(r"font(-family)?:\s*([^;\"]*?)'DejaVu Sans'[^;\"]*")
_SIZE = re.compile(r'<svg([^>]*?)\swidth="[^"]*"', re.DOTALL)
_HEIGHT = re.compile(r'<svg([^>]*?)\sheight="[^"]*"', re.DOTALL)
_VERSION = re.compile(r'<svg([^>]*?)\sversion="[^"]*"', re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_NUMBER = re.compile(r"(\d+\.\d{2})\d+")
_GROUP_ID = re.compile(r'<g id="[^"]*"')


def _svg(figure: Any, name: str, label: str) -> str:
    """The figure as an SVG element for a page: page colours, page font, ids of its own, no address of any kind."""
    figure.patch.set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = _HEAD.sub("", buffer.getvalue(), count=1)
    for pattern in (_METADATA, _NAMESPACE, _SHEET):
        text = pattern.sub("", text)
    text = text.replace("xlink:href", "href")
    for pattern in (_SIZE, _HEIGHT, _VERSION):
        text = pattern.sub(r"<svg\1", text, count=1)
    text = _GROUP_ID.sub("<g", text)
    text = _own_ids(text, name)
    text = _FONT.sub(lambda found: f"font{found[1] or ''}: {found[2]}var(--font)", text)
    text = _page_colours(text)
    text = _TAG.sub(lambda found: _NUMBER.sub(r"\1", found[0]), text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}" class="plot"', 1).strip()


def _own_ids(text: str, name: str) -> str:
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)


def _page_colours(text: str) -> str:
    for code, variable in _NAMED.items():
        text = text.replace(code, f"var(--{variable})")
    return re.sub(r"#0102([0-9a-f]{2})", lambda found: f"var(--s{int(found[1], 16)})", text)


def closed_stretches(opens: Iterable[Nanos], closes: Iterable[Nanos]) -> list[tuple[Nanos, Nanos]]:
    """The stretches between one session's close and the next one's open, those that have a length."""
    following = list(opens)[1:]
    return [(int(a), int(b)) for a, b in zip(closes, following, strict=False) if b > a]
