"""A report is one page that stands alone, says what is not known, and loses no spike."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bot.app import plots
from bot.app.config import load_config
from bot.app.plots import Axis, Line, Panel
from bot.app.report import write_report
from bot.app.report_charts import terms_between_hedges
from bot.app.report_html import Column as TableColumn
from bot.app.report_html import figure, length, money, plain, quantity, table, tag, when
from bot.app.report_material import gather
from bot.app.report_page import headline
from bot.app.runs import StoredRun, execute
from bot.core.errors import DataError, RunNotFound, StorageError
from bot.core.events import Alarm, Evidence, TargetLine
from bot.domain.orders import Fill, Order
from bot.domain.units import NS_PER_MINUTE, iso, parse_instant
from bot.engine.attribution import TERMS
from bot.engine.journal import Alarmed, Executed, Fact, Header, JournalWriter, Ordered, TargetSet, VenueSaid
from tests.realdata import lean_root

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "br"}


# --------------------------------------------------------------------------- a stored run by hand


@dataclass
class Told:
    """A run to be stored by hand: each account's P&L path, spots, fills of `dynamic`, and changes to the document."""

    at: Sequence[int]
    pnl: dict[str, Sequence[float]]
    spots: dict[str, Sequence[float]]
    fills: Sequence[tuple[int, str, int, float]] = ()
    calendar: str = "24/7"
    changes: dict[str, Any] = field(default_factory=dict)
    alarms: Sequence[Alarm] = ()
    reason: str = "beyond the band"
    unfilled: int = 0


def store(told: Told, folder: Path) -> StoredRun:
    """The folder of such a run."""
    folder.mkdir()
    n = len(told.at)
    samples: dict[str, Any] = {"ts_ns": np.array(told.at, dtype=np.int64), "on_grid": np.ones(n, dtype=bool)}
    samples |= {f"spot/{name}": np.array(path, dtype=float) for name, path in told.spots.items()}
    for account, path in told.pnl.items():
        samples[f"{account}/total"] = np.array(path, dtype=float)
        for name in (*TERMS, "options", "hedge", "net_delta", "option_delta", "gamma"):
            samples[f"{account}/{name}"] = np.zeros(n)
        for key in told.spots:
            samples[f"{account}/held/{key}"] = np.zeros(n)
    pq.write_table(pa.table(samples), folder / "samples.parquet")
    (folder / "result.json").write_text(json.dumps(document(told)), encoding="utf-8")
    instruments = [{"id": key, "multiplier": "1", "calendar": told.calendar} for key in told.spots]
    (folder / "instruments.json").write_text(json.dumps(instruments), encoding="utf-8")
    hedges = "".join(f'[[hedges]]\nunderlying = "{key}"\ninstrument = "{key}"\n' for key in told.spots)
    (folder / "config.toml").write_text(hedges, encoding="utf-8")
    header = Header(run_id=folder.name, config_hash="c", release="0", durability="replay")
    with JournalWriter(folder / "journal.evk", header) as journal:
        for i, fill in enumerate(told.fills):
            journal.append(fill[0], i, facts_of(told, i, *fill))
        for i in range(told.unfilled):
            journal.append(told.at[0], i, unfilled(f"dynamic-x{i}", next(iter(told.spots)), told.at[0]))
        if told.alarms:
            journal.append(told.at[0], 0, [Alarmed(account="dynamic", alarm=alarm) for alarm in told.alarms])
    return StoredRun(folder)


def facts_of(told: Told, number: int, ts: int, key: str, size: int, price: float) -> list[Fact]:
    """Decision, order and fill of one hedge."""
    order = Order(
        id=f"dynamic-{number}", account="dynamic", instrument=key, quantity=Decimal(size), ts=ts, reason=told.reason
    )
    at = Decimal(repr(price))
    fill = Fill(
        id=f"{order.id}/1",
        order_id=order.id,
        account="dynamic",
        instrument=key,
        ts=ts,
        quantity=order.quantity,
        price=at,
        commission=Decimal("0.50"),
        currency="USD",
        mid=at - Decimal("0.01"),
        touch=at,
        quote_ts=ts - 250_000_000,
    )
    evidence = Evidence(underlying=key, spot=price, delta=-10.0 * number, lo=5.0, hi=15.0)
    line = TargetLine(key, order.quantity, float(size))
    return [
        TargetSet(account="dynamic", strategy="s", book="main", lines=(line,), reason=told.reason, evidence=evidence),
        Ordered(account="dynamic", order=order),
        Executed(account="dynamic", fill=fill, allocations={"main": order.quantity}),
    ]


def unfilled(key: str, instrument: str, ts: int) -> list[Fact]:
    """An order the venue cancelled."""
    order = Order(id=key, account="dynamic", instrument=instrument, quantity=Decimal(3), ts=ts, reason="too late")
    said = VenueSaid(account="dynamic", order_id=key, what="cancelled", text="the day ended")
    return [Ordered(account="dynamic", order=order), said]


def document(told: Told) -> dict[str, Any]:
    """The smallest result document that has every key."""
    start, end = (iso(told.at[0]), iso(told.at[-1])) if len(told.at) else ("2025-03-03T14:30:00Z",) * 2
    return {
        "run_id": "told",
        "name": "told",
        "release": "0",
        "config_hash": "c0ffee",
        "facts_digest": "fac75",
        "session": {
            "start": start,
            "end": end,
            "report_grid": "1m",
            "effectiveness_interval": "1m",
            "samples": len(told.at),
            "base_currency": "USD",
        },
        "feed": {"quotes": 1234, "trades": 0, "refused": {"crossed": 7}, "repaired": {}, "notes": [], "files": {}},
        "refusals": {},
        "skipped": {},
        "books": {name: book(path, name) for name, path in told.pnl.items()},
        "legs": [],
        "gamma_rent": {},
        "days": [],
        "verdict": ["A verdict."],
        "alarms": [],
        "assumptions": ["Fills cross the touch."],
        "timing": {"wall_s": 1.0, "us_per_row": 2.0},
    } | told.changes


def book(path: Sequence[float], name: str) -> dict[str, Any]:
    """The figures of one account; `none` alone did not trade."""
    total = path[-1] if len(path) and math.isfinite(path[-1]) else 0.0
    trades = 0 if name == "none" else 2
    kinds = ("options", "hedge", "spread_cost", "commission", "impact", "financing")
    return {
        "pnl": {"total": total} | dict.fromkeys(kinds, 0.0),
        "attribution": dict.fromkeys(TERMS, 0.0),
        "trades": trades,
        "units_traded": 10.0 * trades,
        "closing_trades": trades // 2,
        "closing_units": 5.0 * trades,
        "turnover": 1000.0 * trades,
        "orders": trades,
        "fills": trades,
        "opening_ticket": 0.0,
        "pnl_std": None,
        "max_drawdown": 0.0,
        "tail_loss": None,
        "upside_captured": None,
        "hedge_effectiveness": None,
        "regression_r2": None,
        "dollar_offset": None,
        "effectiveness_intervals": 0,
        "slippage": {"delay": 0.0, "spread": 0.0, "impact": 0.0},
        "positions": {},
        "policy": [name],
        "disabled": [],
    }


OPEN = parse_instant("2025-03-03T14:30:00Z")


def minutes(count: int, start: int = OPEN) -> list[int]:
    """So many instants a minute apart."""
    return [start + i * NS_PER_MINUTE for i in range(count)]


def day(count: int = 30, **more: Any) -> Told:
    """A session of three accounts with two hedges."""
    at = minutes(count)
    wave = [10.0 * math.sin(i / 5.0) for i in range(count)]
    return Told(
        at=at,
        pnl={"dynamic": wave, "static": [2 * w for w in wave], "none": [9 * w for w in wave]},
        spots={"SIM:A": [100.0 + w / 10 for w in wave]},
        fills=more.pop("fills", [(at[0], "SIM:A", -10, 100.0), (at[-2], "SIM:A", 10, 99.5)] if count > 2 else []),
        **more,
    )


def page_of(told: Told, folder: Path) -> str:
    """The text of the page about such a run."""
    return write_report(store(told, folder / "run"), folder / "page.html").read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Collects what a page is made of, and refuses elements that do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.points: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            if name in {"href", "src"}:
                self.points.append(value or "")
            self.points += re.findall(r"url\(([^)]*)\)", value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "title"}:
            self.text.append(data)


def checked(page: str) -> Checker:
    """The page, proved to be well formed, alone in the world and free of raw nulls."""
    found = Checker()
    found.feed(page)
    assert not found.open
    assert [key for key, count in found.ids.items() if count > 1] == []
    assert {p for p in found.points if not p.startswith("#")} == set()
    assert {p.removeprefix("#") for p in found.points} <= set(found.ids)
    assert "http" not in page.replace("http-equiv", "")
    assert found.tags["script"] == found.tags["link"] == found.tags["img"] == found.tags["iframe"] == 0
    words = " ".join(found.text)
    assert not re.search(r"(?<![\w])(nan|NaN|None|inf|null)(?![\w])", words)
    return found


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A quarter of an hour of the built-in session, with an alternative account."""
    runs = tmp_path_factory.mktemp("runs")
    env = {
        "EVENKEEL__STORAGE__RUNS": str(runs),
        "EVENKEEL__SESSION__END": "2025-03-03T14:45:00Z",
        "EVENKEEL__SESSION__EFFECTIVENESS_INTERVAL": "1m",
        "EVENKEEL__STRATEGIES__0__POLICY__HALF_WIDTH": "20",
    }
    _, _, folder = execute(load_config(ROOT / "config" / "synthetic.toml", env))
    assert folder is not None
    return StoredRun(folder)


# --------------------------------------------------------------------------- a real run


def test_page_stands_alone(synthetic: StoredRun, tmp_path: Path) -> None:
    """The page of a run is well formed, points only into itself, and stays small."""
    page = write_report(synthetic, tmp_path / "page.html")
    found = checked(page.read_text(encoding="utf-8"))
    assert found.tags["svg"] >= 6
    assert page.stat().st_size < 2_000_000
    assert list(tmp_path.iterdir()) == [page]


def test_page_is_the_same_twice(synthetic: StoredRun, tmp_path: Path) -> None:
    """The same stored run gives the same bytes."""
    first, second = (write_report(synthetic, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_every_figure_of_every_account_is_on_the_page(synthetic: StoredRun, tmp_path: Path) -> None:
    """All P&L, cost, risk and trading figures of the result stand in the comparison as they are worded."""
    words = set(checked(write_report(synthetic, tmp_path / "p.html").read_text(encoding="utf-8")).text)
    books = synthetic.result()["books"]
    assert set(books) == {"dynamic", "static", "none", "every_15m"}
    for found in books.values():
        for value in found["pnl"].values():
            assert money(value) in words
        for key in ("pnl_std", "max_drawdown", "turnover"):
            assert money(found[key]) in words
        for key in ("hedge_effectiveness", "regression_r2", "dollar_offset"):
            assert figure(found[key], 3) in words
        for key in ("trades", "units_traded", "closing_trades", "closing_units", "orders", "fills"):
            assert plain(found[key]) in words


def test_verdict_assumptions_and_digests_are_on_the_page(synthetic: StoredRun, tmp_path: Path) -> None:
    """Verdict, simulator assumptions, feed notes, config hash and facts digest are all said."""
    words = " ".join(checked(write_report(synthetic, tmp_path / "p.html").read_text(encoding="utf-8")).text)
    doc = synthetic.result()
    said = [*doc["verdict"], *doc["assumptions"], *doc["feed"]["notes"], doc["config_hash"], doc["facts_digest"]]
    assert [line for line in said if line not in words] == []


def test_every_order_is_listed_with_its_reason(synthetic: StoredRun, tmp_path: Path) -> None:
    """Each order of the dynamic account stands in the page once with its reason and time."""
    page = write_report(synthetic, tmp_path / "p.html").read_text(encoding="utf-8")
    words = Counter(checked(page).text)
    orders = [
        f.order for s in synthetic.steps() for f in s.facts if isinstance(f, Ordered) and f.order.account == "dynamic"
    ]
    assert len(orders) > 3
    for order in orders:
        assert words[order.reason] >= 1
        assert words[when(order.ts)] >= 1


def test_terms_between_hedges_agree_with_the_engine(synthetic: StoredRun) -> None:
    """What the page says between hedges sums to the attribution, and to the engine's own table of the same."""
    _, steps = terms_between_hedges(gather(synthetic))
    own = pq.read_table(synthetic.folder / "hedges.parquet")
    said = synthetic.result()["books"]["dynamic"]
    for term in TERMS:
        assert float(np.sum(steps[term])) == pytest.approx(said["attribution"][term], abs=0.01)
        assert float(np.sum(steps[term])) == pytest.approx(sum(own.column(term).to_pylist()), abs=0.01)
    assert sum(float(np.sum(steps[term])) for term in TERMS) == pytest.approx(said["pnl"]["total"], abs=0.01)


# --------------------------------------------------------------------------- runs of every shape


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    """Names, reasons, notes and alarms that look like HTML or formulas are shown as text."""
    evil = "<script>alert('x')</script> & \"$\\frac{1}{0}$\""
    told = day(reason=evil)
    told.pnl = {"dynamic": told.pnl["dynamic"], evil: told.pnl["static"], "none": told.pnl["none"]}
    told.spots = {evil: told.spots["SIM:A"]}
    told.fills = [(told.at[3], evil, 4, 100.0), (told.at[9], evil, -4, 101.0)]
    told.changes = {
        "name": evil,
        "verdict": [evil],
        "assumptions": [evil],
        "alarms": [{"ts": "2025-03-03T14:30:00Z", "code": evil, "text": evil, "action": evil}],
        "skipped": {evil: 2},
    }
    page = page_of(told, tmp_path)
    found = checked(page)
    assert "<script" not in page
    assert evil in " ".join(found.text)


def test_a_run_without_trades_has_a_page(tmp_path: Path) -> None:
    """A run that never traded says so and still compares its accounts."""
    words = " ".join(checked(page_of(day(fills=[]), tmp_path)).text)
    assert "The dynamic account sent no order." in words
    assert "Nothing was decided to hedge" in words


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_run_of_hardly_any_sample_has_a_page(tmp_path: Path, count: int) -> None:
    """No sample, one or two are drawn or said to be missing, never a fault."""
    checked(page_of(day(count), tmp_path))


def test_what_is_not_known_is_a_dash_with_a_note(tmp_path: Path) -> None:
    """Missing figures and P&L that could not be marked show as a dash, with the reason below the table."""
    told = day()
    told.pnl["dynamic"] = [math.nan if 5 < i < 9 else 1.0 for i in range(30)]
    told.changes = {"legs": [{"instrument": "X", "quantity": 1.0, "entry_iv": None, "exit_iv": None, "vol_age": None}]}
    found = checked(page_of(told, tmp_path))
    assert "–" in found.text
    assert "is not known: too few intervals, or nothing moved." in " ".join(found.text)


def test_each_underlying_has_its_price_and_its_hedge(tmp_path: Path) -> None:
    """With several underlyings every price is drawn with the hedges of its own."""
    told = day()
    told.spots = {"SIM:A": told.spots["SIM:A"], "SIM:B": [50.0 + i for i in range(30)]}
    told.fills = [(told.at[0], "SIM:A", 7, 100.0), (told.at[4], "SIM:B", -9, 54.0)]
    words = " ".join(checked(page_of(told, tmp_path)).text)
    assert "bought 7 in 1" in words
    assert "sold 9 in 1" in words
    assert "The hedge in SIM:A against its band" in words
    assert "SIM:B rose 58.00%, from 50 to 79" in words


def test_more_accounts_than_three_each_have_a_column(tmp_path: Path) -> None:
    """Alternatives stand beside the three accounts in table and plots."""
    told = day()
    told.pnl |= {f"alt{i}": [float(i)] * 30 for i in range(6)}
    found = checked(page_of(told, tmp_path))
    assert all(found.text.count(f"alt{i}") >= 2 for i in range(6))


def test_alarms_come_before_the_figures(tmp_path: Path) -> None:
    """Alarms of result and journal stand above the comparison, once each, with what was done."""
    one = Alarm(code="jump", text="it moved 9%", ts=OPEN, action="frozen")
    told = day(alarms=[one, msgspec.structs.replace(one, text="it moved 8%")])
    told.changes = {"alarms": [{"ts": iso(OPEN), "code": "jump", "text": "it moved 9%", "action": "frozen"}]}
    page = page_of(told, tmp_path)
    assert "2 alarms" in page
    assert page.count("it moved 9%") == page.count("it moved 8%") == 1
    assert page.index("it moved 8%. Done: frozen.") < page.index('id="comparison"')


def test_orders_that_never_filled_are_pointed_out(tmp_path: Path) -> None:
    """Orders without a fill are counted at the top and listed with the venue's word."""
    words = " ".join(checked(page_of(day(unfilled=2), tmp_path)).text)
    assert "2 of 4 orders never filled" in words
    assert "cancelled: the day ended" in words


def test_refused_rows_are_counted_by_reason(tmp_path: Path) -> None:
    """Rows the feed refused stand with their reason and number."""
    page = page_of(day(), tmp_path)
    checked(page)
    assert '<td class="l">crossed</td><td>7</td>' in page


def test_long_lists_are_folded_and_the_longest_counted(tmp_path: Path) -> None:
    """A dozen rows stand open, up to a thousand are folded, and the rest is counted."""
    rows = [[str(i)] for i in range(2500)]
    short, long = (table([TableColumn("n")], rows[:n]) for n in (15, 2500))
    assert "<details>" not in short
    assert long.count("<tr>") == 2 + 1000
    assert "988 of 2,488 more" in long


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        ((5.0, 3.0, -2.0), "Dynamic hedging won: 5.00 USD, 2.00 more than the next"),
        ((-5.0, 3.0, -2.0), "The static hedge won: 3.00 USD against -5.00 for dynamic hedging"),
        ((1.0, 3.0, 8.0), "Not hedging won: 8.00 USD against 1.00 for dynamic hedging"),
        ((1.0, 8.0, 8.0), "The static hedge and not hedging tied for best: 8.00 USD against 1.00 for dynamic hedging"),
        ((8.0, 8.0, 1.0), "Dynamic hedging won: 8.00 USD, level with static"),
        ((4.0, 4.0, 4.0), "All accounts made the same: 4.00 USD"),
    ],
)
def test_headline_says_who_won(tmp_path: Path, totals: tuple[float, float, float], said: str) -> None:
    """The page's first sentence names the winner, also when dynamic hedging lost."""
    told = day()
    told.pnl = {name: [0.0] * 29 + [value] for name, value in zip(("dynamic", "static", "none"), totals, strict=True)}
    assert headline(gather(store(told, tmp_path / "run"))) == said


# --------------------------------------------------------------------------- time and lines


def test_closed_hours_are_pressed_together(tmp_path: Path) -> None:
    """A run over two New York sessions keeps its order, shows both days, and gives the night next to no room."""
    second = parse_instant("2025-03-04T14:30:00Z")
    at = [*minutes(391), *minutes(391, second)]
    told = Told(
        at=at,
        pnl={"dynamic": [0.0] * 391 + [5.0] * 391, "none": [0.0] * 782},
        spots={"SIM:A": [100.0] * 782},
        calendar="XNYS",
    )
    material = gather(store(told, tmp_path / "run"))
    where = material.axis.place(np.array(at, dtype=np.int64))
    assert np.all(np.diff(where) > 0)
    assert len(material.axis.breaks()) == 1
    assert where[391] - where[390] < 0.02 * material.axis.width
    labels = [label for _, label in material.axis.ticks()]
    assert sum("3 Mar 2025" in label for label in labels) == sum("4 Mar 2025" in label for label in labels) == 1


def test_no_line_crosses_a_closed_night() -> None:
    """A line over two sessions is drawn as two, and samples taken in the night between are left out."""
    at = np.array(minutes(100), dtype=np.int64)
    axis = Axis(int(at[0]), int(at[-1]), [(int(at[40]), int(at[60]))])
    line = Line(y=np.where(np.arange(100) < 50, 0.0, 1.0), series=0)
    svg = plots.over_time("x", axis, at, [Panel(unit="u", lines=[line])], label="two sessions")
    path = next(d for d in re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--s0\)', svg))
    assert path.count("M") == 2
    drawn = [float(x) for x in re.findall(r"[ML] (\S+) ", path)]
    left, right = (float(v) for v in (axis.place(at[40:41])[0], axis.place(at[60:61])[0]))
    scale = (max(drawn) - min(drawn)) / (axis.width or 1.0)
    night = [x for x in drawn if min(drawn) + scale * left + 0.02 < x < min(drawn) + scale * right - 0.02]
    assert night == []


@pytest.mark.parametrize("seed", range(5))
def test_thinned_lines_keep_their_extremes(seed: int) -> None:
    """A thinned line keeps the first, last, least and greatest value of the whole and of each column."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(0, 1000, 20_000))
    y = rng.normal(size=20_000).cumsum()
    px, py = plots.thin(x, y, 100)
    assert len(px) <= 400
    assert (px[0], px[-1]) == (x[0], x[-1])
    column = np.minimum((100 * (x - x[0]) / (x[-1] - x[0])).astype(int), 99)
    thinned = np.minimum((100 * (px - x[0]) / (x[-1] - x[0])).astype(int), 99)
    for i in range(100):
        assert (py[thinned == i].min(), py[thinned == i].max()) == (y[column == i].min(), y[column == i].max())


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    """A hundred thousand samples make a page under two megabytes in which a one-sample spike still shows."""
    count = 100_000
    spike = np.zeros(count)
    spike[54_321] = 1e6
    told = day(count)
    told.pnl["dynamic"] = spike.tolist()
    page = page_of(told, tmp_path)
    assert len(page) < 2_000_000
    assert "1,000,000" in page


def test_ticks_are_round_and_apart() -> None:
    """From seconds to years an axis has two to ten labels, ascending and never on top of each other."""
    for length_ns in (5 * 10**9, 3600 * 10**9, 86_400 * 10**9, 9 * 86_400 * 10**9, 800 * 86_400 * 10**9):
        axis = Axis(OPEN, OPEN + length_ns)
        places = [x for x, _ in axis.ticks()]
        assert 2 <= len(places) <= 14
        assert min(np.diff(places)) >= 0.07 * axis.width


# --------------------------------------------------------------------------- words


def test_figures_are_worded_one_way() -> None:
    """Money, quantities, instants and lengths of time have one form, and no negative zero."""
    assert [money(v) for v in (-6537.5, -0.001, None, math.nan, 1e6)] == ["-6,537.50", "0.00", "–", "–", "1,000,000.00"]
    assert [quantity(v) for v in (Decimal("-3"), 5.0, 0, None)] == ["-3", "+5", "0", "–"]
    assert plain(Decimal("1.2300")) == "1.23"
    assert when(OPEN) == "2025-03-03 14:30:00"
    assert when(OPEN + 167_807_095) == "2025-03-03 14:30:00.167"
    assert [length(v) for v in (0, 250_000_000, 90_000_000_000, None)] == ["0 s", "250 ms", "1.5 min", "–"]
    assert tag("b", "a<b", cls='x"y') == '<b class="x&quot;y">a&lt;b</b>'


# --------------------------------------------------------------------------- faults


def test_a_folder_that_is_no_run_is_named(synthetic: StoredRun, tmp_path: Path) -> None:
    """A missing part is RunNotFound naming it, a damaged one DataError; the page of before stays."""
    page = tmp_path / "page.html"
    page.write_text("before", encoding="utf-8")
    stored = store(day(), tmp_path / "run")
    (stored.folder / "samples.parquet").unlink()
    with pytest.raises(RunNotFound, match=r"samples\.parquet"):
        write_report(stored, page)
    (stored.folder / "samples.parquet").write_bytes(b"not a table")
    with pytest.raises(DataError, match="cannot be read"):
        write_report(stored, page)
    (stored.folder / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        write_report(stored, page)
    assert page.read_text(encoding="utf-8") == "before"


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """A place that cannot be written is a StorageError naming it, and no half page stays behind."""
    stored = store(day(), tmp_path / "run")
    taken = tmp_path / "taken"
    taken.mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    for out in (taken, tmp_path / "file" / "page.html"):
        with pytest.raises(StorageError, match="the report cannot be written"):
            write_report(stored, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "run", "taken"]
    assert list(taken.iterdir()) == []


# --------------------------------------------------------------------------- recorded days


@pytest.mark.real
def test_es_day_says_that_static_and_none_won(tmp_path: Path) -> None:
    """The page of the ES day carries the three results to the cent and says that dynamic hedging lost."""
    env = {"EVENKEEL_DATA": str(lean_root()), "EVENKEEL__STORAGE__RUNS": str(tmp_path / "runs")}
    _, _, folder = execute(load_config(ROOT / "config" / "es_day.toml", env))
    assert folder is not None
    page = write_report(StoredRun(folder), tmp_path / "page.html")
    words = " ".join(checked(page.read_text(encoding="utf-8")).text)
    assert "Not hedging won: 66,875.00 USD against -6,537.50 for dynamic hedging" in words
    assert "static hedge won" in words
    assert "-3,887.50" in words
    assert page.stat().st_size < 2_000_000
