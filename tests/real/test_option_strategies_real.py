"""Gamma scalping and vega hedging on recorded chains: SPX in May 2019, GOOG on a half day, ES over a night."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bot.app import config as configs
from bot.app import result
from bot.app.wiring import Run
from bot.engine.journal import Executed, TargetSet
from tests.realdata import data_root, lean_root
from tests.replay.days import play

pytestmark = pytest.mark.real

SPX_BOOK = "instrument,quantity,underlying\nSPXW  190628C02920000,-10,INDEX:SPX\nSPXW  190830P02800000,10,INDEX:SPX\n"
GOOG_BOOK = "instrument,quantity\nGOOG  160115C00750000,-20\nGOOG  160318P00750000,10\n"
ES_BOOK = """underlying,type,cp,strike,expiry,settlement,multiplier,currency,quantity
ES,future_option,call,3230,2020-03-20,physical,50,USD,-20
"""


DOCS = Path(__file__).resolve().parents[2] / "docs"
TITLES = {"spx": "SPX, 2 to 9 May 2019", "goog": "GOOG, 24 December 2015", "es": "ES, 5 to 6 January 2020"}


class Recorded(NamedTuple):
    """A recorded market: the parts of a config that speak of it, and a book on it."""

    underlying: str
    session: str
    feed: str
    chains: str
    pricing: str
    hedge: str
    book: str
    look: str
    days: float
    tenors: str
    budget: float
    limit: float


def spx() -> Recorded:
    days = sorted((data_root() / "options_backtester" / "SPX_daily").glob("SPX_*.csv"))
    files = ", ".join(f'"{day}"' for day in days)
    return Recorded(
        underlying="SPX",
        session='start = "2019-05-02T20:00:00Z"\nend = "2019-05-09T20:00:00Z"\nreport_grid = "1d"\n'
        'effectiveness_interval = "1d"',
        feed=f'kind = "replay"\nformat = "spx_chain"\nfiles = [{files}]\nunderlying = "trades"',
        chains="".join(
            f'[[chains]]\nunderlying = "SPX"\nroot = "SPXW"\nexpiries = ["{expiry}"]\n'
            f"strikes_from = {low}\nstrikes_to = {high}\nstrike_step = {step}\n"
            for expiry, low, high, step in (("2019-06-28", 2700, 3000, 10), ("2019-08-30", 2700, 3000, 25))
        ),
        pricing='vol = "implied"\nforward = "parity"\nremark = "1d"\nrate = 0.024',
        hedge='multiplier = 100\nlot = 1\nspread = {kind = "fixed", half = 0.25}',
        book=SPX_BOOK,
        look="1d",
        days=55,
        tenors="[57, 120]",
        budget=500_000,
        limit=100_000,
    )


def goog() -> Recorded:
    return Recorded(
        underlying="US:GOOG",
        session='start = "2015-12-24T14:45:00Z"\nend = "2015-12-24T17:50:00Z"\nreport_grid = "1m"',
        feed=f'kind = "replay"\nformat = "lean"\nroot = "{lean_root()}"\nresolution = "minute"\ndates = ["2015-12-24"]\n'
        'underlying = "quotes"',
        chains="".join(
            f'[[chains]]\nunderlying = "US:GOOG"\nroot = "GOOG"\nexpiries = ["{expiry}"]\n'
            f"strikes_from = 700\nstrikes_to = 800\nstrike_step = {step}\n"
            for expiry, step in (("2016-01-15", 2.5), ("2016-03-18", 5))
        ),
        pricing='vol = "implied"\nremark = "1m"\nrate = 0.0035',
        hedge="",
        book=GOOG_BOOK,
        look="5m",
        days=22,
        tenors="[22, 85]",
        budget=30_000,
        limit=8_000,
    )


def es() -> Recorded:
    return Recorded(
        underlying="CME:ESH2020",
        session='start = "2020-01-05T23:10:00Z"\nend = "2020-01-06T20:55:00Z"\nreport_grid = "5m"',
        feed=f'kind = "replay"\nformat = "lean"\nroot = "{lean_root()}"\nresolution = "minute"\n'
        'dates = ["2020-01-05", "2020-01-06"]\nunderlying = "quotes"',
        chains='[[chains]]\nunderlying = "CME:ESH2020"\nroot = "ES"\nexpiries = ["2020-03-20"]\nstrikes_from = 3180\n'
        "strikes_to = 3250\nstrike_step = 10\n",
        pricing='vol = "implied"\nremark = "1m"\nrate = 0.0155',
        hedge="",
        book=ES_BOOK,
        look="15m",
        days=75,
        tenors="[75]",
        budget=300_000,
        limit=60_000,
    )


MARKETS = {"spx": spx, "goog": goog, "es": es}
HEDGER = '[[strategies]]\nkind = "delta_hedger"\npolicy = {kind = "fixed_interval", interval = "LOOK"}\n'


def scalper(market: Recorded) -> str:
    return f"""
[[strategies]]
kind = "gamma_scalper"
underlying = "{market.underlying}"
days = {market.days}
budget = "vega"
amount = {market.budget}
look = "{market.look}"
patience = "{market.look}"
max_spread = 0.25
"""


def vega(market: Recorded) -> str:
    return f"""
[[strategies]]
kind = "vega_hedger"
underlying = "{market.underlying}"
tenors = {market.tenors}
vega_limit = [{market.limit}]
look = "{market.look}"
patience = "{market.look}"
max_spread = 0.25
"""


def text(name: str, market: Recorded, strategy: str, *, book: bool) -> str:
    return f"""
schema_version = 1
name = "{name}"
[session]
{market.session}
[[feeds]]
{market.feed}
{market.chains}
{"[book]" + chr(10) + 'file = "book.csv"' if book else ""}
[pricing]
{market.pricing}
[[hedges]]
underlying = "{market.underlying}"
instrument = "{market.underlying}"
{market.hedge}
{strategy}
{HEDGER.replace("LOOK", market.look)}
[broker]
kind = "paper"
latency = "0s"
"""


class Told(NamedTuple):
    """A run, the facts of its `dynamic` account by kind, and its document."""

    run: Run
    targets: list[TargetSet]
    fills: list[Executed]
    document: dict[str, Any]


@cache
def told(folder: Path, name: str, kind: str) -> Told:
    market = MARKETS[name]()
    book = kind == "vega_hedger"
    path = folder / f"{name}_{kind}.toml"
    (folder / "book.csv").write_text(market.book, encoding="utf-8")
    path.write_text(text(path.stem, market, vega(market) if book else scalper(market), book=book), encoding="utf-8")
    run, steps = play(configs.load_config(path, {}))
    facts = [f for step in steps for f in step.facts if f.account == "dynamic"]
    return Told(
        run,
        [f for f in facts if isinstance(f, TargetSet) and f.strategy == kind],
        [f for f in facts if isinstance(f, Executed)],
        result.document(run, timing={}),
    )


def figures(found: Told, kind: str) -> dict[str, Any]:
    tables = found.document["strategies"]["dynamic"][kind]["figures"]
    return {name: value for rows in tables.values() for name, value in rows.items()}


def check_money(document: dict[str, Any]) -> None:
    """In each account the total is its parts, and the attribution sums to it."""
    for book in document["books"].values():
        pnl = book["pnl"]
        costs = pnl["spread_cost"] + pnl["commission"] + pnl["impact"]
        assert pnl["total"] == pytest.approx(pnl["options"] + pnl["hedge"] - costs + pnl["financing"], abs=0.005)
        assert sum(book["attribution"].values()) == pytest.approx(pnl["total"], abs=0.005)
        assert book["disabled"] == []
    assert document["books"]["none"]["trades"] == 0


@pytest.mark.parametrize("name", MARKETS)
def test_a_straddle_is_bought_hedged_and_told(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a recorded chain the scalper buys at the touch, what it tracks is near the attribution, and it ends flat."""
    found = told(tmp_path_factory.mktemp(name), name, "gamma_scalper")
    check_money(found.document)
    told_of = figures(found, "gamma_scalper")
    book = found.document["books"]["dynamic"]
    assert told_of["entries"] == 1.0
    assert all(target.reason for target in found.targets)
    assert told_of["gamma earned"] > 0.0 and told_of["theta paid"] > 0.0
    assert 0.05 < told_of["implied vol while held"] < 0.6
    assert told_of["a calendar day, sigma S sqrt(1/365)"] == pytest.approx(
        told_of["a calendar day, from theta and gamma"], rel=0.35
    )
    assert told_of["gamma earned"] == pytest.approx(book["attribution"]["gamma"], rel=0.25)
    assert -told_of["theta paid"] == pytest.approx(book["attribution"]["theta"], rel=0.25)
    bought = {f.fill.instrument for f in found.fills if f.fill.instrument[0] != "I" and " " in f.fill.instrument}
    assert len(bought) == 2
    assert not [key for key in bought if found.run.accounts[0].ledger.book.quantity(key)]


@pytest.mark.parametrize("name", MARKETS)
def test_vega_is_brought_inside_its_limits(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The book begins outside a limit; each look outside is answered by lots that end inside, of options the book had not."""
    found = told(tmp_path_factory.mktemp(name), name, "vega_hedger")
    check_money(found.document)
    told_of = figures(found, "vega_hedger")
    assert told_of["hedges"] >= 1.0
    assert told_of["decisions that no lots could bring inside"] == 0.0
    assert told_of["looks outside a limit"] == told_of["hedges"] < 0.7 * told_of["looks"]
    tenors = [key.removesuffix(": limit") for key in told_of if key.startswith("vega ") and key.endswith(": limit")]
    limit = MARKETS[name]().limit
    assert any(told_of[f"{tenor}: largest seen"] > limit for tenor in tenors)
    for tenor in tenors:
        assert math.isfinite(told_of[f"{tenor}: at the end"])
    own = {line.instrument for target in found.targets for line in target.lines}
    assert own
    assert not own & {opening.instrument for opening in found.run.loop.openings}


def row_of(page: str, name: str) -> list[str]:
    """The cells that a page tells of a market, without its title."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {TITLES[name]} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize("name", MARKETS)
def test_the_pages_tell_what_was_recorded(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tables of the two pages hold the figures of these runs."""
    found = told(tmp_path_factory.mktemp(name), name, "gamma_scalper")
    own, book = figures(found, "gamma_scalper"), found.document["books"]["dynamic"]
    assert row_of("strategies_gamma_scalper.md", name) == [
        *(f"{own[key]:,.2f}" for key in ("gamma earned", "theta paid", "vega")),
        f"{own['realised vol while held']:.2%}",
        f"{own['implied vol while held']:.2%}",
        f"{-book['attribution']['cost']:,.2f}",
        f"{book['pnl']['total']:,.2f}",
    ]
    found = told(tmp_path_factory.mktemp(name), name, "vega_hedger")
    own, book = figures(found, "vega_hedger"), found.document["books"]["dynamic"]
    tenors = [key.removesuffix(": limit") for key in own if key.startswith("vega ") and key.endswith(": limit")]
    assert row_of("strategies_vega_hedger.md", name) == [
        " and ".join(f"{own[f'{tenor}: {what}']:,.0f}" for tenor in tenors)
        for what in ("largest seen", "at the last look")
    ] + [
        f"{own['hedges']:.0f}",
        f"{own['contracts']:.0f}",
        f"{own['transaction cost: half spreads of what was asked for']:,.2f}",
        f"{book['pnl']['total']:,.2f}",
    ]
