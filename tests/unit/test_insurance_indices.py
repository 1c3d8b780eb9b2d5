"""The synthetic put is its plain loop on another index and in other years: the whole engine against ten lines of numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from arch.data import nasdaq
from scipy.stats import norm

from bot.app import config as configs
from bot.app import runs

SCALE = 1e6
"""Accounts begin with a hundred millions, so that fees rounded to the cent are a start value of 100 to eight digits."""
TEXT = """
schema_version = 1
name = "nasdaq"
[session]
start = "{start}T21:00:00Z"
end = "{end}T21:00:00Z"
report_grid = "1d"
effectiveness_interval = "1d"
begin = "immediate"
[accounts]
opening_cash = {{USD = 100000000}}
[[hedges]]
underlying = "INDEX:NDQ"
instrument = "INDEX:NDQ"
lot = 0.000001
calendar = "24/7"
spread = {{kind = "basis_points", bp = 0}}
[[feeds]]
kind = "dataset"
dataset = "nasdaq"
instrument = "INDEX:NDQ"
[[strategies]]
kind = "portfolio_insurance"
instrument = "INDEX:NDQ"
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
commission = [{{kind = "basis_points", bp = {bp}}}]
"""


def path_of(
    dates: np.ndarray, prices: np.ndarray, *, floor: float, sigma: float, rate: float, bp: float
) -> list[float]:
    """The value of 100 at each close, before its trade: scale x N(d1) shares, the rest in cash, a fee of bp on trades."""
    tau = (dates[-1] - dates).astype(float) / 365.0
    strike, root = floor * prices[0], sigma * np.sqrt(np.maximum(tau, 1e-12))
    d1 = (np.log(prices / strike) + (rate + sigma**2 / 2) * tau) / root
    put = strike * np.exp(-rate * tau[0]) * norm.cdf(root[0] - d1[0]) - prices[0] * norm.cdf(-d1[0])
    wanted = 100.0 / (prices[0] + put) * norm.cdf(d1)
    cash, shares, values = 100.0, 0.0, []
    for i, price in enumerate(prices):
        cash *= np.exp(rate * (tau[i - 1] - tau[i])) if i else 1.0
        values.append(cash + shares * price)
        if i < len(prices) - 1:
            trade = wanted[i] - shares
            cash -= trade * price + abs(trade) * price * bp / 1e4
            shares = wanted[i]
    return values


@pytest.mark.parametrize(
    ("year", "floor", "sigma", "rate", "bp"),
    [(2000, 0.9, 0.30, 0.05, 10), (2001, 0.8, 0.45, 0.03, 0), (2008, 0.95, 0.25, 0.0, 25), (2013, 0.9, 0.15, 0.01, 5)],
)
def test_the_synthetic_put_on_nasdaq_is_its_loop(
    tmp_path: Path, year: int, floor: float, sigma: float, rate: float, bp: float
) -> None:
    """Value at the end, lowest value and its day, and the worst day agree to 1e-3 of a start of 100."""
    frame = nasdaq.load().loc[str(year)]
    dates = frame.index.values.astype("datetime64[D]")
    keys = {"start": str(dates[0]), "end": str(dates[-1]), "floor": floor, "sigma": sigma, "rate": rate, "bp": bp}
    file = tmp_path / "run.toml"
    file.write_text(TEXT.format(**keys), encoding="utf-8")
    _, document, _ = runs.execute(configs.load_config(file), store=False)
    outcome = document["strategies"]["dynamic"]["portfolio_insurance"]["figures"]["Outcome"]
    values = path_of(dates, frame["Close"].to_numpy(float), floor=floor, sigma=sigma, rate=rate, bp=bp)
    low = int(np.argmin(values))
    assert outcome["value at the end"] / SCALE == pytest.approx(values[-1], abs=1e-3)
    assert outcome["lowest value"] / SCALE == pytest.approx(values[low], abs=1e-3)
    told = values[dates.astype(str).tolist().index(str(outcome["lowest value at"]))]
    assert told == pytest.approx(values[low], abs=1e-3)  # out of the market the value stands still: any of those days
    assert outcome["worst step"] / SCALE == pytest.approx(np.diff(values).min(), abs=1e-3)
