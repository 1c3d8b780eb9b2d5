"""Portfolio insurance and tail hedging on the S&P 500 from 1950 to 2018: independent results reproduced by the whole engine."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.app import config as configs
from bot.app import runs
from tests.realdata import data_root

pytestmark = pytest.mark.real

SCALE = 1e6
"""Accounts begin with a hundred millions, so that fees rounded to the cent are a start value of 100 to eight digits."""
HEAD = """
schema_version = 1
name = "real"
[session]
start = "{start}T21:00:00Z"
end = "{end}T21:00:00Z"
report_grid = "1d"
effectiveness_interval = "1d"
begin = "immediate"
[accounts]
opening_cash = {{USD = 100000000}}
[[hedges]]
underlying = "INDEX:SPX"
instrument = "INDEX:SPX"
lot = 0.000001
calendar = "24/7"
spread = {{kind = "basis_points", bp = {spread}}}
[[feeds]]
kind = "dataset"
file = "{closes}"
"""
INSURED = """
[[strategies]]
kind = "portfolio_insurance"
instrument = "INDEX:SPX"
method = "synthetic_put"
floor = {floor}
vol = {sigma}
rate = {rate}
horizon = "{end}T21:00:00Z"
day_count = "dates"
[broker]
kind = "paper"
financing_rate = {rate}
compounding = "continuous"
commission = [{{kind = "basis_points", bp = {cost_bps}}}]
"""
CHAIN = """chain_vol = "index"
vol_file = "{vix}"
vol_add = 0.04
skew = -0.2
option_tick = 0.0001
option_half_spread = 1
option_spread_share = 0.05
[feeds.chain]
moneyness = [0.70, 0.75, 0.80, 0.85, 0.90, 0.95, 1.00]
strike_step = 0.01
multiplier = 1
[pricing]
vol = "implied"
remark = "1d"
[[strategies]]
kind = "tail_hedger"
stock = "INDEX:SPX"
carry_bp = 100
monetise = [{{at = "multiple", level = 5, share = 0.5}}]
[[alternatives]]
name = "de_risked"
strategies = [{{kind = "tail_hedger", stock = "INDEX:SPX", method = "de_risk", carry_bp = 100}}]
[broker]
kind = "paper"
"""


@cache
def cases() -> dict[str, Any]:
    text = (data_root() / "reference.json").read_text(encoding="utf-8")
    found = json.loads(text)["cases"]["SP500_daily"]
    return {name: case for name, case in found.items() if name.startswith("insurance")}


def played(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return runs.execute(configs.load_config(path), store=False)[1]


def closes() -> Path:
    return data_root() / "rdatasets" / "openintro" / "sp500_1950_2018.csv"


@pytest.mark.parametrize("name", ["insurance_1987", "insurance_1987_nocost", "insurance_2008"])
def test_the_synthetic_put_gives_the_independent_numbers(name: str, tmp_path: Path) -> None:
    """Insured value, shortfall, costs, turnover, worst day and low agree within 0.0002 of a start of 100.

    What is left is the hour of summer time: the engine's interest runs by the instant of the close, the reference's by
    calendar dates.
    """
    case = cases()[name]
    text = HEAD.format(closes=closes(), spread=0, **case) + INSURED.format(**case)
    document = played(tmp_path, text)
    figures = document["strategies"]["dynamic"]["portfolio_insurance"]["figures"]
    outcome, insured, trading = figures["Outcome"], figures["Insurance"], figures["Trading"]
    found = {
        "ideal_value": insured["insured value"],
        "shortfall": insured["shortfall"],
        "terminal_value": outcome["value at the end"],
        "costs": trading["commission"],
        "turnover": trading["money traded"],
    }
    for key, value in found.items():
        assert value / SCALE == pytest.approx(case[key], abs=2e-4), key
    assert [outcome["worst step at"], outcome["worst step"] / SCALE] == [
        case["worst_day"][0], pytest.approx(case["worst_day"][1], abs=2e-4),
    ]  # fmt: skip
    assert [outcome["lowest value at"], outcome["lowest value"] / SCALE] == [
        case["low"][0], pytest.approx(case["low"][1], abs=2e-4),
    ]  # fmt: skip
    assert trading["looks"] == case["days"]


def test_the_synthetic_put_is_its_loop_in_every_tenth_year(tmp_path: Path) -> None:
    """Years of calm and of crash, with other floors, vols and costs: the whole engine and ten lines of numpy agree."""
    rows = np.genfromtxt(closes(), delimiter=",", dtype=None, encoding="utf-8", names=True, usecols=(1, 5))
    days = rows["Date"].astype("datetime64[D]")
    for year, floor, sigma, bp, rate in (
        (1974, 0.95, 0.25, 5, 0.07),
        (1995, 0.85, 0.12, 20, 0.05),
        (2002, 0.9, 0.22, 1, 0.02),
    ):
        chosen = (days >= np.datetime64(f"{year}-01-01")) & (days <= np.datetime64(f"{year}-12-31"))
        dates, prices = days[chosen], rows["Close"][chosen]
        start, end = str(dates[0]), str(dates[-1])
        keys = {"start": start, "end": end, "floor": floor, "sigma": sigma, "rate": rate, "cost_bps": bp}
        told = loop_value(dates, prices, floor=floor, sigma=sigma, bp=bp, rate=rate)
        document = played(tmp_path, HEAD.format(closes=closes(), spread=0, **keys) + INSURED.format(**keys))
        outcome = document["strategies"]["dynamic"]["portfolio_insurance"]["figures"]["Outcome"]
        assert outcome["value at the end"] / SCALE == pytest.approx(told, abs=1e-3), year


def loop_value(dates: np.ndarray, prices: np.ndarray, *, floor: float, sigma: float, bp: float, rate: float) -> float:
    """The value at the end of a start of 100, by the conventions of the reference."""
    from scipy.stats import norm  # noqa: PLC0415  slow to import, and only this oracle needs it

    tau = (dates[-1] - dates).astype(float) / 365.0
    K = floor * prices[0]

    def d1(S: float, T: float) -> float:
        return float((np.log(S / K) + (rate + sigma**2 / 2) * T) / (sigma * np.sqrt(T)))

    T, S = tau[0], prices[0]
    put = K * np.exp(-rate * T) * norm.cdf(sigma * np.sqrt(T) - d1(S, T)) - S * norm.cdf(-d1(S, T))
    scale = 100.0 / (S + put)
    cash, shares = 100.0, 0.0
    for i, price in enumerate(prices):
        cash *= np.exp(rate * (tau[i - 1] - tau[i])) if i else 1.0
        if i < len(prices) - 1:
            wanted = scale * norm.cdf(d1(price, tau[i]))
            cash -= (wanted - shares) * price + abs(wanted - shares) * price * bp / 1e4
            shares = wanted
    return float(cash + shares * prices[-1])


@pytest.mark.parametrize(
    ("start", "end", "falls"), [("1987-01-02", "1988-12-30", 0.30), ("2007-01-03", "2009-12-31", 0.50)]
)
def test_a_tail_hedge_of_a_hundred_points_saves_drawdown_in_both_crashes(
    start: str, end: str, falls: float, tmp_path: Path
) -> None:
    """The stock alone falls by its known share; with the overlay the account falls by less, and spends its budget only."""
    vix = data_root() / "finance-vix" / "vix-daily.csv"
    text = HEAD.format(start=start, end=end, closes=closes(), spread=1) + CHAIN.format(vix=vix)
    document = played(tmp_path, text)
    figures = document["strategies"]["dynamic"]["tail_hedger"]["figures"]
    tail, overlay = figures["Tail"], figures["Overlay"]
    assert tail["largest drawdown, stock alone"] > falls
    assert tail["largest drawdown"] < tail["largest drawdown, stock alone"]
    assert 95.0 < overlay["premium, bp a year of the worth"] < 105.0
    assert document["skipped"] == {}
    assert set(document["books"]) == {"dynamic", "static", "none", "de_risked"}


def test_seventy_years_of_rolling_puts_run_whole(tmp_path: Path) -> None:
    """1950 to 2018 with the VIX from 1990: the stock alone ends where the index did, and some 840 rolls are made."""
    vix = data_root() / "finance-vix" / "vix-daily.csv"
    text = HEAD.format(start="1950-01-03", end="2018-12-07", closes=closes(), spread=1) + CHAIN.format(vix=vix)
    document = played(tmp_path, text)
    figures = document["strategies"]["dynamic"]["tail_hedger"]["figures"]
    assert figures["Outcome"]["stock alone"] == pytest.approx(1e8 * 2633.080078 / 16.66, rel=1e-9)
    assert 830 <= figures["Trading"]["rolls"] <= 850
    outcome, tail = figures["Outcome"], figures["Tail"]
    growth = [outcome[f"growth a year{which}"] for which in ("", ", stock alone", ", de-risked")]
    assert growth == pytest.approx([0.06767, 0.07340, 0.05725], abs=1e-5)  # as docs/strategies_tail_hedger.md says
    falls = [tail[f"largest drawdown{which}"] for which in ("", ", stock alone", ", de-risked")]
    assert falls == pytest.approx([0.56384, 0.56775, 0.45652], abs=1e-5)
    months = [tail[f"worst months' mean loss{which}"] for which in ("", ", stock alone", ", de-risked")]
    assert months == pytest.approx([0.08410, 0.08900, 0.06680], abs=1e-5)
    assert figures["Tail"]["months"] == 827
    assert 95.0 < figures["Overlay"]["premium, bp a year of the worth"] < 105.0
    pnl = document["books"]["dynamic"]["attribution"]
    assert sum(pnl.values()) == pytest.approx(document["books"]["dynamic"]["pnl"]["total"], abs=1.0)
