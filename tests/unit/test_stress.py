"""Stress tables reprice the whole book without and with what each strategy traded, at the sample at which most was held."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from bot.app import config as configs
from bot.app import runs
from bot.app.stress import DAYS, SPOT_PERCENT, VOL_POINTS, cell, stress
from bot.app.wiring import Run
from bot.domain.instruments import OptionContract
from bot.domain.units import NS_PER_DAY, parse_instant, years_between
from bot.pricing import black

Tables = Mapping[str, Any]


@pytest.fixture(scope="module")
def found() -> Mapping[str, tuple[Run, dict[str, Any]]]:
    """The shipped examples, run once each."""
    names = (
        "synthetic",
        "vega_hedger",
        "gamma_scalper",
        "merger_arbitrage",
        "convertible_arbitrage",
        "proxy_breakdown",
    )
    made = {}
    for name in names:
        run, document, _ = runs.execute(configs.load_config(configs.example_path(f"{name}.toml"), {}), store=False)
        made[name] = (run, document)
    return made


def of(found: Any, name: str, account: str = "dynamic") -> Tables:
    tables: Tables = found[name][1]["stress"]["accounts"][account]
    return tables


def by_hand(run: Run, held: Mapping[str, float], at: int, *, spot: float, points: float, days: float) -> float:
    """A book of European options and shares repriced leg by leg from the samples."""
    table = run.loop.sampler.table()
    i = table.instants.tolist().index(at)
    total, rate = 0.0, run.config.pricing.rate
    for key, quantity in held.items():
        item = run.universe.get(key)
        if not isinstance(item, OptionContract):
            total += quantity * float(item.multiplier) * float(table.prices[key][i]) * spot / 100.0
            continue
        price = float(run.loop.sampler.spot_path(item.underlying)[i])
        vol = float(table.vols[item.underlying][i][table.parts[item.underlying].rows[key]])
        later = min(at + round(days * NS_PER_DAY), item.expiry)
        here = black.bsm(price, float(item.strike), years_between(at, item.expiry), vol, cp=item.cp, rate=rate).price
        tau, moved = years_between(later, item.expiry), price * (1.0 + spot / 100.0)
        there = black.bsm(moved, float(item.strike), tau, max(vol + points / 100.0, 0.0), cp=item.cp, rate=rate).price
        total += quantity * float(item.multiplier) * float(there - here)
    return total


@pytest.mark.parametrize("name", ["synthetic", "vega_hedger", "gamma_scalper"])
def test_every_cell_is_the_book_repriced_leg_by_leg(found: Any, name: str) -> None:
    """Without and with, for each strategy, each move of price, vol and time is the sum of its legs by the plain formula."""
    run, _ = found[name]
    tables = of(found, name)
    at = parse_instant(tables["at"])
    track = run.loop.sampler.table().tracks["dynamic"]
    i = run.loop.sampler.table().instants.tolist().index(at)
    held = {key: float(q) for key, q in track.states[i].quantities.items()}
    assert tables["strategies"]
    for told in tables["strategies"].values():
        without = {key: quantity - told["traded"].get(key, 0.0) for key, quantity in held.items()}
        for days in DAYS:
            for points in VOL_POINTS:
                for spot in SPOT_PERCENT:
                    shift = {"spot": spot, "points": points, "days": days}
                    for word, book in (("before", without), ("after", held)):
                        exact = by_hand(run, book, at, **shift)
                        assert cell(told[word], **shift) == pytest.approx(exact, rel=1e-9, abs=1e-4), (word, shift)


def test_the_instant_is_that_of_the_largest_hedge(found: Any) -> None:
    """No report sample holds more, in money, beyond what the owner brought."""
    run, _ = found["synthetic"]
    table = run.loop.sampler.table()
    i = table.instants.tolist().index(parse_instant(of(found, "synthetic")["at"]))
    hedge = run.config.hedges[0].instrument
    size = [
        abs(float(state.quantities.get(hedge, 0))) * float(table.prices[hedge][k]) if table.grid[k] else 0.0
        for k, state in enumerate(table.tracks["dynamic"].states)
    ]
    assert size[i] == max(size) > 0.0


def test_nothing_moves_where_nothing_is_moved(found: Any) -> None:
    """The cell without any shift is zero, and an untraded account has no table."""
    for _, document in found.values():
        assert "none" not in document["stress"]["accounts"]
        for account in document["stress"]["accounts"].values():
            for told in account["strategies"].values():
                assert cell(told["before"], spot=0.0) == cell(told["after"], spot=0.0) == 0.0


def test_hedges_shrink_what_a_fall_does(found: Any) -> None:
    """A fall of ten per cent at once takes less from each arbitrage with its hedges than without them."""
    for name in ("merger_arbitrage", "convertible_arbitrage"):
        (told,) = of(found, name)["strategies"].values()
        before, after = cell(told["before"], spot=-10.0), cell(told["after"], spot=-10.0)
        assert before is not None and after is not None
        assert abs(after) < 0.6 * abs(before)
        assert told["before"]["worst"] < told["after"]["worst"]


def test_what_is_protected_stands_for_the_book_without(found: Any) -> None:
    """The merger book without its hedges is its targets alone: linear, and nothing of the acquirers."""
    (told,) = of(found, "merger_arbitrage")["strategies"].values()
    run, _ = found["merger_arbitrage"]
    deals = {deal.target for deal in run.config.strategies[0].deals}
    assert set(told["without"]) <= deals
    assert all(quantity > 0 for quantity in told["without"].values())
    assert any(key not in told["without"] for key in told["traded"])
    down, up = cell(told["before"], spot=-10.0), cell(told["before"], spot=10.0)
    assert down == pytest.approx(-up)


def test_a_proxy_moves_by_its_beta(found: Any) -> None:
    """The hedge of a proxy gains beta times the move of prices on what it stands for."""
    run, _ = found["proxy_breakdown"]
    tables = of(found, "proxy_breakdown")
    (told,) = tables["strategies"].values()
    ((key, quantity),) = told["traded"].items()
    table = run.loop.sampler.table()
    price = float(table.prices[key][table.instants.tolist().index(parse_instant(tables["at"]))])
    beta = run.config.hedges[0].beta
    for spot in (-10.0, 5.0):
        gain = cell(told["after"], spot=spot) - cell(told["before"], spot=spot)  # type: ignore[operator]  # both known
        assert gain == pytest.approx(quantity * price * beta * spot / 100.0)


def test_an_untraded_run_says_so() -> None:
    """A policy that never trades leaves accounts without an instant and without tables."""
    idle = '[{kind = "delta_hedger", policy = {kind = "none"}}]'
    env = {"EVENKEEL__STRATEGIES": idle, "EVENKEEL__ALTERNATIVES": "[]"}
    run, document, _ = runs.execute(configs.load_config(configs.example_path("synthetic.toml"), env), store=False)
    assert document["stress"]["accounts"]["dynamic"] == {"at": None, "strategies": {}}
    assert stress(run) == document["stress"]
    assert math.isfinite(document["books"]["dynamic"]["pnl"]["total"])
