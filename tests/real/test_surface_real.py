"""Surfaces and parity forwards on recorded chains: how well they fit is stated and held."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from bot.pricing import curve, surface
from tests.realdata import data_root, lean_root

pytestmark = pytest.mark.real

NEW_YORK = ZoneInfo("America/New_York")
DAYS = ["20190502", "20190503", "20190506", "20190507", "20190508", "20190509"]
CONTRACT = re.compile(r"_(call|put)_(\d+)_(\d{8})\.csv$")


class Chain(NamedTuple):
    """One expiry: years to it, and a row per quote. Shape: strike, bid, ask, cp (n,)."""

    root: str
    tau: float
    strike: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    cp: np.ndarray


def spx_chains(day: str) -> list[Chain]:
    """The expiries of one daily SPX file; SPX at 09:30, SPXW at 16:00 New York, the snapshot at 16:00."""
    path = data_root() / "options_backtester" / "SPX_daily" / f"SPX_{day}.csv"
    if not path.is_file():
        pytest.skip("no daily SPX chains beside the LEAN Data folder")
    now = datetime.strptime(day, "%Y%m%d").replace(hour=16, tzinfo=NEW_YORK)
    rows: dict[str, list[tuple[float, float, float, int]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cp = 1 if row["type"] == "call" else -1
            rows[row["optionroot"][:-9]].append((float(row["strike"]), float(row["bid"]), float(row["ask"]), cp))
    found = []
    for root, quotes in rows.items():
        hour, minute = (16, 0) if root.startswith("SPXW") else (9, 30)
        expiry = datetime.strptime(root[-6:], "%y%m%d").replace(hour=hour, minute=minute, tzinfo=NEW_YORK)
        tau = (expiry - now).total_seconds() / (365 * 86_400)
        if tau > 0.5 / 365:
            found.append(Chain(root, tau, *np.array(quotes, dtype=np.float64).T))
    return sorted(found, key=lambda chain: chain.tau)


def lean_chain(path: Path, *, at_ms: int, root: str) -> dict[str, Chain]:
    """The last quote of each contract at or before an instant of the day, by expiry; years counted in whole days."""
    rows: dict[str, list[tuple[float, float, float, int]]] = defaultdict(list)
    day = datetime.strptime(path.name[:8], "%Y%m%d")
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            parts = CONTRACT.search(name)
            assert parts is not None, name
            last = None
            for line in io.TextIOWrapper(archive.open(name), "ascii"):
                cells = line.strip().split(",")
                if int(cells[0]) + 60_000 > at_ms:
                    break
                last = cells
            if last is not None:
                bid, ask = (float(cell) if cell else float("nan") for cell in (last[4], last[9]))
                rows[parts[3]].append((float(parts[2]) / 1e4, bid, ask, 1 if parts[1] == "call" else -1))
    found = {}
    for expiry, quotes in rows.items():
        tau = ((datetime.strptime(expiry, "%Y%m%d") - day).days + 0.3) / 365
        found[expiry] = Chain(root, tau, *np.array(quotes, dtype=np.float64).T)
    return found


def read(chain: Chain, *, scale: float = 1.0, discount: float | None = None) -> tuple[curve.ParityFit, surface.Smile]:
    quotes = (chain.strike, chain.bid * scale, chain.ask * scale, chain.cp)
    fit = curve.imply_forward(*curve.put_call_pairs(*quotes), tau=chain.tau, discount=discount)
    return fit, surface.read_smile(*quotes, forward=fit.forward, tau=chain.tau, discount=fit.discount)


@pytest.mark.parametrize("day", DAYS[::2] + DAYS[5:])
def test_parity_forwards_of_the_index_agree_with_every_spread(day: str) -> None:
    """Each expiry's forward and discount lie inside the spread of at least 98% of its strikes, without a free lunch."""
    fits = [(chain, read(chain)[0]) for chain in spx_chains(day)]
    assert len(fits) >= 30
    for chain, fit in fits:
        assert fit.ok
        assert fit.inside >= 0.98, chain.root
        assert fit.slack >= 0.0, chain.root
        assert fit.forward_error < 0.15, chain.root
    # beyond three months the slope of the line says the rate: 2.5% that spring, funding a little above
    rates = np.array([fit.rate for chain, fit in fits if chain.tau > 0.25])
    assert (np.abs(rates - 0.0263) < 0.003).all()


@pytest.mark.parametrize("day", DAYS[:2])
def test_svi_surface_of_the_index(day: str) -> None:
    """A whole chain becomes an SVI surface without arbitrage where it is quoted; the median expiry fits to 0.2 points."""
    smiles = [read(chain)[1] for chain in spx_chains(day)]
    made = surface.fit(smiles)
    found = surface.check(made)
    assert found.ok, found
    rmse = np.array([fit.rmse for fit in made.fits])
    assert np.median(rmse) < 0.002
    assert rmse.max() < 0.004
    assert all(fit.kind == "svi" for fit in made.fits)
    atm, skew = made.atm(made.tau), made.skew(made.tau)
    assert ((atm > 0.05) & (atm < 0.25)).all()
    assert (skew < 0.0).all()


@pytest.mark.parametrize("day", [DAYS[0], DAYS[5]])
def test_ssvi_surface_of_the_index(day: str) -> None:
    """Three numbers and a theta an expiry: sound everywhere, and the median expiry within 0.6 vol points."""
    made = surface.fit([read(chain)[1] for chain in spx_chains(day)], model="ssvi")
    assert made.ssvi is not None
    assert made.ssvi[0].sound
    assert surface.check(made, np.linspace(-3.0, 1.5, 181)).ok
    assert np.median([fit.rmse for fit in made.fits]) < 0.006


def test_surface_of_future_options() -> None:
    """The ES chain of 2020-01-06, 15:00 UTC: the parity forward is the future's mid to a quarter point, SVI fits to 0.2."""
    root = lean_root()
    path = root / "futureoption" / "cme" / "minute" / "es" / "202003" / "20200106_quote_american.zip"
    future = root / "future" / "cme" / "minute" / "es" / "20200106_quote.zip"
    if not (path.is_file() and future.is_file()):
        pytest.skip("no ES chain in the LEAN Data folder")
    at = 15 * 3_600_000
    (chain,) = lean_chain(path, at_ms=at, root="ES").values()
    discount = float(np.exp(-0.0155 * chain.tau))
    fit, smile = read(chain, discount=discount)
    with zipfile.ZipFile(future) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("_202003.csv"))
        lines = archive.read(name).decode("ascii").split()
    cells = [line.split(",") for line in lines if int(line.split(",")[0]) + 60_000 <= at][-1]
    mid = 0.5 * (float(cells[4]) + float(cells[9]))
    assert fit.forward == pytest.approx(mid, abs=0.5)
    made = surface.fit([smile])
    assert made.fits[0].rmse < 0.002
    assert surface.check(made).ok


def test_surface_of_share_options() -> None:
    """GOOG at noon of 2015-12-24, American and often one-sided: every expiry with enough quotes is fitted, all sound."""
    path = lean_root() / "option" / "usa" / "minute" / "goog" / "20151224_quote_american.zip"
    if not path.is_file():
        pytest.skip("no GOOG chain in the LEAN Data folder")
    chains = lean_chain(path, at_ms=12 * 3_600_000, root="GOOG")
    smiles = []
    for chain in sorted(chains.values(), key=lambda chain: chain.tau):
        if chain.tau < 2.0 / 365:
            continue
        fit, smile = read(chain, scale=1e-4, discount=float(np.exp(-0.005 * chain.tau)))
        assert fit.forward == pytest.approx(748.5, rel=0.02)
        smiles.append(smile)
    made = surface.fit(smiles)
    assert surface.check(made).ok
    assert len(made.tau) >= 8
    assert np.median([fit.rmse for fit in made.fits]) < 0.01
