"""What hedging is warned of is measured: cost, displayed size, delay, slippage, upside given up, model risk, counterparties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bot.app import config as configs
from bot.app import runs
from bot.app.wiring import Run
from bot.domain.instruments import OptionContract
from bot.domain.units import NS_PER_SECOND, parse_instant, years_between
from bot.engine import comparison
from bot.engine.comparison import verdict
from bot.engine.journal import Executed, Ordered
from bot.pricing import black, implied

Played = tuple[Run, dict[str, Any], Any]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The synthetic example, kept."""
    env = {"EVENKEEL__STORAGE__RUNS": str(tmp_path_factory.mktemp("runs"))}
    return runs.execute(configs.load_config(configs.example_path("synthetic.toml"), env))


def told(played: Played, group: str, account: str = "dynamic") -> Mapping[str, Any]:
    found: Mapping[str, Any] = played[1]["considerations"][account][group]
    return found


def test_cost_and_slippage_are_those_of_the_account(played: Played) -> None:
    """Spread, fees and impact add up to the cost; slippage to its parts; both are shares of what was traded."""
    book = played[1]["books"]["dynamic"]
    cost = told(played, "transaction_cost")
    assert cost["total"] == pytest.approx(cost["spread"] + cost["commission"] + cost["impact"])
    assert cost["total"] == pytest.approx(
        book["pnl"]["spread_cost"] + book["pnl"]["commission"] + book["pnl"]["impact"]
    )
    assert cost["bp_of_turnover"] == pytest.approx(1e4 * cost["total"] / book["turnover"], abs=1e-6)
    assert told(played, "slippage")["total"] == pytest.approx(sum(book["slippage"].values()))


def test_waits_are_from_order_to_fill(played: Played) -> None:
    """Median and longest seconds are those of the journal's orders and fills."""
    run, _, folder = played
    steps = list(runs.StoredRun(folder).steps())
    sent = {f.order.id: f.order.ts for s in steps for f in s.facts if isinstance(f, Ordered) and f.account == "dynamic"}
    fills = [f.fill for s in steps for f in s.facts if isinstance(f, Executed) and f.fill.order_id in sent]
    waits = [(fill.ts - sent[fill.order_id]) / NS_PER_SECOND for fill in fills]
    found = told(played, "execution")
    assert found["median_seconds"] == pytest.approx(float(np.median(waits)), abs=1e-6)
    assert found["longest_seconds"] == pytest.approx(max(waits), abs=1e-6)
    assert told(played, "frequency")["fills"] == len(fills) == run.accounts[0].fill_count


def test_each_order_is_measured_against_its_side_of_the_display(played: Played) -> None:
    """There is a measure for each order, and the largest is the opening hedge of 726 shares over the thousand shown."""
    run, document, _ = played
    found = told(played, "liquidity")
    assert len(run.accounts[0].noted.needs) == document["orders"]
    opening = max(abs(state.order.quantity) for state in run.accounts[0].orders.values())
    assert found["largest_order_over_display"] == pytest.approx(float(opening) / 1000.0)
    assert found["orders_beyond_display"] == found["orders_without_display"] == 0


def test_upside_given_up_is_what_none_gained_and_dynamic_did_not(played: Played) -> None:
    """Over the intervals in which the unhedged book gained, its gains less the account's own."""
    run, _, _ = played
    loop, table = run.loop, run.loop.sampler.table()
    span = loop.started_at or 0, loop.ended_at or loop.now, run.config.session.effectiveness_interval
    none, own = (
        comparison.steps_at(loop.sampler.instants, table.tracks[name].pnl[:, 0], *span) for name in ("none", "dynamic")
    )
    found = told(played, "upside")
    assert found["of"] == "none"
    assert found["gains"] == pytest.approx(none[none > 0].sum(), abs=1e-5)
    assert found["given_up"] == pytest.approx((none - own)[none > 0].sum(), abs=1e-5)


def test_model_risk_is_a_second_pricer_and_the_vols_of_both_sides(played: Played) -> None:
    """The tree agrees with the formula to a tenth of a share; deltas at bid and ask vols are those of vols solved from them."""
    run, document, _ = played
    found = told(played, "model")
    at = parse_instant(document["stress"]["accounts"]["dynamic"]["at"])
    table = run.loop.sampler.table()
    i = table.instants.tolist().index(at)
    rate = run.config.pricing.rate
    sums = {"delta": 0.0, "bid": 0.0, "ask": 0.0, "at_bids": 0.0, "at_asks": 0.0}
    for key, held in table.tracks["dynamic"].states[i].quantities.items():
        item = run.universe.get(key)
        if not isinstance(item, OptionContract):
            continue
        weight, spot = float(held * item.multiplier), float(run.loop.sampler.spot_path(item.underlying)[i])
        tau, strike = years_between(at, item.expiry), float(item.strike)
        row = table.parts[item.underlying].rows[key]
        bid, ask = (float(side[i]) for side in run.loop.sampler.quotes(key))
        forward, discount = spot * np.exp(rate * tau), np.exp(-rate * tau)
        vols = {"delta": float(table.vols[item.underlying][i][row])}
        for word, price in (("bid", bid), ("ask", ask)):
            vols[word] = float(implied.vol(price, forward, strike, tau, discount=discount, cp=item.cp).vol)
        for word, vol in vols.items():
            sums[word] += weight * float(black.bsm(spot, strike, tau, vol, rate=rate, cp=item.cp).delta)
        sums["at_bids"] += weight * bid
        sums["at_asks"] += weight * ask
    assert found["legs"] == 6
    assert found["delta"] == pytest.approx(sums["delta"], abs=1e-4)
    assert found["delta_second_pricer"] == pytest.approx(sums["delta"], abs=0.1)
    assert found["delta_at_bid_vols"] == pytest.approx(sums["bid"], abs=1.0)
    assert found["delta_at_ask_vols"] == pytest.approx(sums["ask"], abs=1.0)
    assert found["value_at_bids"] == pytest.approx(sums["at_bids"])
    assert found["value_at_asks"] == pytest.approx(sums["at_asks"])


def test_counterparties_are_named() -> None:
    """The largest debtor of the convertible book and the most it owed are those of the counterparties' table."""
    _, document, _ = runs.execute(
        configs.load_config(configs.example_path("convertible_arbitrage.toml"), {}), store=False
    )
    rows = document["counterparties"]
    most = max(rows, key=lambda row: row["peak"])
    found = document["considerations"]["dynamic"]["counterparty"]
    assert found == {"largest": most["peak"], "name": most["counterparty"]}
    assert document["considerations"]["static"]["counterparty"] is None


def test_cash_alone_is_no_book_that_goes_unhedged() -> None:
    """Where nobody brought a book the verdict speaks of cash and of acting once, and calls no cash the calmest hedge."""
    lines = verdict(
        {"dynamic": 10.0, "static": 4.0, "none": 20.0},
        {"dynamic": 3.0, "static": 5.0, "none": 0.0},
        {"dynamic": 1.0, "static": 0.5, "none": 0.0},
        cash_only=True,
    )
    assert lines == [
        "Best result: none with 20.00 (dynamic 10.00, static 4.00).",
        "Least risky: dynamic, standard deviation 3.00 an interval.",
        "Cheapest: static, 0.50 in costs.",
        "The strategies made 6.00 more than acting once and holding on.",
        "The strategies made 10.00 less than cash alone, which is all none holds.",
    ]


def test_a_run_of_cash_says_so_in_its_verdict_and_its_upside() -> None:
    """The merger example brings no book: its books say so, and upside is measured against acting once."""
    _, document, _ = runs.execute(configs.load_config(configs.example_path("merger_arbitrage.toml"), {}), store=False)
    assert document["books"]["none"]["cash_only"] and not document["books"]["dynamic"]["cash_only"]
    assert any("cash alone" in line for line in document["verdict"])
    assert not any("no hedge" in line for line in document["verdict"])
    assert document["considerations"]["dynamic"]["upside"]["of"] == "static"
    assert document["considerations"]["static"]["upside"]["of"] is None


def test_a_proxy_is_told_by_its_beta_its_correlation_and_its_basis() -> None:
    """While correlation holds the realised beta is near the given one; what it made beside it is reckoned move by move."""
    name = configs.example_path("proxy_breakdown.toml")
    calm_env = {"EVENKEEL__FEEDS__0__REGIMES": "[]", "EVENKEEL__FEEDS__0__SHOCKS": "[]"}
    calm_run, calm, _ = runs.execute(configs.load_config(name, calm_env), store=False)
    broken = runs.execute(configs.load_config(name, {}), store=False)[1]["proxies"][0]
    (found,) = calm["proxies"]
    table = calm_run.loop.sampler.table()
    price, spot = table.prices["SIM:BIG"], calm_run.loop.sampler.spot_path("SIM:SML")
    basis = 0.0
    for i, state in enumerate(table.tracks["dynamic"].states[:-1]):
        moved = price[i + 1] - price[i] - 0.83 * price[i] / spot[i] * (spot[i + 1] - spot[i])
        basis += float(state.quantities.get("SIM:BIG", 0)) * float(moved)
    assert found["basis_pnl"] == pytest.approx(basis)
    assert found["beta"] == 0.83
    assert found["beta_realised"] == pytest.approx(0.95 * 0.25 / 0.30, abs=0.12)
    assert found["correlation"] > 0.9
    assert broken["correlation"] < 0.7
    assert abs(broken["basis_pnl"]) > abs(found["basis_pnl"])
