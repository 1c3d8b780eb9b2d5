"""The example plug-in package keeps its promise: short, found by its entry points, and tradable once installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bot.app.config import PluginBroker, PluginFeed, broker_settings, feed_settings, load_config
from bot.core.events import Accepted, Filled, Rejected
from bot.core.ports import Broker, Feed
from bot.domain.market import Quote
from bot.domain.orders import Order, QuoteRef

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "examples" / "evenkeel_example_venue"
SOURCE = PACKAGE / "evenkeel_example_venue"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", SOURCE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def order(quantity: str, *, reference: QuoteRef | None, name: str = "o1") -> Order:
    return Order(
        id=name, account="dynamic", instrument="SIM:XYZ", quantity=Decimal(quantity), ts=1_000, reference=reference
    )


async def answers(orders: list[Order], fee: float = 0.0) -> list[Any]:
    async with module("broker").ExampleVenue({"delay": "50ms", "fee": fee}, seed=1) as venue:
        for item in orders:
            await venue.submit(item)
        events: AsyncIterator[Any] = venue.events()
        stop = venue.__aexit__(None, None, None)
        await stop
        return [event async for event in events]


@pytest.mark.parametrize(("name", "most"), [("broker", 60), ("feed", 15)])
def test_the_files_are_as_short_as_promised(name: str, most: int) -> None:
    """The broker has at most 60 lines and the feed at most 15, blank lines counted and none longer than 120."""
    lines = (SOURCE / f"{name}.py").read_text().splitlines()
    assert len(lines) <= most
    assert max(map(len, lines)) <= 120


def test_entry_points_name_what_the_files_hold() -> None:
    """Every entry point of the package names an attribute that its module has."""
    points = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["entry-points"]
    named = [target for group in points.values() for target in group.values()]
    assert sorted(points) == ["evenkeel.brokers", "evenkeel.feeds"]
    for target in named:
        where, attribute = target.split(":")
        assert hasattr(module(where.rsplit(".", 1)[-1]), attribute)


def test_the_config_allows_exactly_what_it_uses() -> None:
    """The example config loads, uses the package's feed and broker and allows both by name."""
    config = load_config(PACKAGE / "example.toml", {})
    feed = config.feeds[0]
    assert isinstance(feed, PluginFeed)
    assert isinstance(config.broker, PluginBroker)
    assert sorted(config.plugins.allow) == sorted([feed.kind, config.broker.kind])
    assert feed_settings(feed, config)["file"] == str(PACKAGE / "prices.csv")
    assert broker_settings(config) == {"delay": "50ms", "fee": 0.005}


async def test_the_feed_yields_its_rows_in_order() -> None:
    """The feed is a Feed, yields one valid quote for each row in order of time and counts them."""
    feed = module("feed").ExampleCsv({"file": str(PACKAGE / "prices.csv")}, wanted=())
    assert isinstance(feed, Feed)
    async with feed:
        quotes = [event async for event in feed.events()]
    assert all(isinstance(quote, Quote) for quote in quotes)
    assert len(quotes) == len((PACKAGE / "prices.csv").read_text().splitlines()) == feed.report().quotes
    assert [q.ts_recv for q in quotes] == sorted(q.ts_recv for q in quotes)


async def test_the_venue_fills_at_the_decision_quote() -> None:
    """A market order is accepted and filled in parts that sum to it, a buy at the ask and a sell at the bid."""
    reference = QuoteRef(99.99, 100.01, 900)
    assert isinstance(module("broker").ExampleVenue({}, seed=0), Broker)
    for quantity, price in (("7", "100.01"), ("-7", "99.99"), ("1", "100.01"), ("-1", "99.99")):
        accepted, *rest = await answers([order(quantity, reference=reference)], fee=0.5)
        fills = [event.fill for event in rest if isinstance(event, Filled)]
        assert isinstance(accepted, Accepted)
        assert sum(fill.quantity for fill in fills) == Decimal(quantity)
        assert {fill.price for fill in fills} == {Decimal(price)}
        assert {fill.quote_ts for fill in fills} == {900}
        assert {fill.ts for fill in fills} == {1_000 + 50_000_000}
        assert sum(fill.commission for fill in fills) == abs(Decimal(quantity)) * Decimal("0.5")


async def test_the_venue_refuses_what_it_cannot_price() -> None:
    """An order without a two-sided decision quote is rejected with a reason, and a repeated id is executed once."""
    assert isinstance((await answers([order("1", reference=QuoteRef(None, 100.0, 0))]))[0], Rejected)
    assert isinstance((await answers([order("1", reference=None)]))[0], Rejected)
    twice = await answers([order("2", reference=QuoteRef(1.0, 2.0, 0))] * 2)
    assert sum(event.fill.quantity for event in twice if isinstance(event, Filled)) == 2


@pytest.mark.slow
def test_an_installed_package_trades_through_its_own_venue(tmp_path: Path) -> None:
    """Installed into a fresh environment, the package trades: a backtest through its feed and venue fills orders."""
    python = fresh_environment(tmp_path / "env")
    pip = [str(python), "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    source = copy_of(PACKAGE, tmp_path / "package")
    finished(subprocess.run([*pip, str(installable(source))], capture_output=True, text=True, check=False))
    listed = (
        "from bot.app.plugins import list_plugins; print([(p.name, p.status) for p in list_plugins(['example_csv'])])"
    )
    states = finished(subprocess.run([str(python), "-c", listed], capture_output=True, text=True, check=False))
    assert "('example_csv', 'ready')" in states
    assert "('example_venue', 'not allowed')" in states
    run = [str(python), "-c", "from bot.app.cli import main; main()"]
    found = subprocess.run(
        [*run, "backtest", str(source / "example.toml"), "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    document = json.loads(finished(found))
    assert document["feed"]["quotes"] == 62
    assert document["fills"] > 0
    assert document["books"]["dynamic"]["trades"] > 0


def fresh_environment(folder: Path) -> Path:
    """The interpreter of a new environment that sees this one's packages and installs its own beside them."""
    venv.create(folder, with_pip=False, symlinks=os.name == "posix")
    python = folder / "bin" / "python"
    told = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = [sysconfig.get_path("purelib"), str(REPOSITORY)]
    Path(told.stdout.strip(), "beneath.pth").write_text("\n".join(seen) + "\n")
    assert Path(sys.executable).exists()
    return python


def installable(source: Path) -> Path:
    """The package itself where its build tool is installed, elsewhere a wheel of the same files."""
    if importlib.util.find_spec("hatchling") is not None:
        return source
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    points = [
        line
        for group, named in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in named.items()))
    ]
    files = {str(path.relative_to(source)): path.read_text() for path in source.glob("evenkeel_example_venue/*.py")}
    files[f"{stem}.dist-info/METADATA"] = about
    files[f"{stem}.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{stem}.dist-info/entry_points.txt"] = "\n".join(points) + "\n"
    record = f"{stem}.dist-info/RECORD"
    files[record] = "".join(f"{name},,\n" for name in (*files, record))
    wheel = source / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def copy_of(source: Path, folder: Path) -> Path:
    """A copy to build from, so that the checkout stays as it is."""
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def finished(run: subprocess.CompletedProcess[str]) -> str:
    """What a command printed, once it ended well."""
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_event_loop_is_left_clean() -> None:
    """A venue entered and left without an order ends its events at once."""
    assert asyncio.run(answers([])) == []
