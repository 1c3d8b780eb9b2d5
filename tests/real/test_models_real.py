"""The delivered models on recorded days: American shares and futures options, a surface and smile rules on the ES chain,
a forecast, a second pricer and trading time; figures here are bounds wide of what was seen, not what was seen."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bot.app import config as configs
from bot.app.wiring import Run
from bot.domain.units import NS_PER_SECOND, NS_PER_YEAR
from bot.engine.journal import Alarmed, Executed, Step
from bot.pricing import american
from tests.real.test_prefix import differences
from tests.realdata import lean_root
from tests.replay.days import ES, GOOG, Day, changed, play, write_config

pytestmark = pytest.mark.real

CHAIN_HEADER = "underlying,type,cp,strike,expiry,settlement,multiplier,currency,quantity\n"
SHORT_ES = changed(
    ES, start="2020-01-06T14:30:00Z", end="2020-01-06T17:00:00Z", policy='kind = "delta_band"\nhalf_width = 50'
)
PUTS = changed(
    GOOG,
    name="goog_puts",
    rows=tuple(f"GOOG,option,put,{k},2016-01-15,physical,100,USD,10" for k in (750, 800)),
    policy='kind = "delta_band"\nhalf_width = 5',
)


def members(path: str, pattern: str) -> list[tuple[str, float, str]]:
    """(call or put, strike, expiry) of the contracts a recording's zip names."""
    with zipfile.ZipFile(lean_root() / path) as archive:
        names = [name for name in archive.namelist() if re.search(pattern, name)]
    found = [re.search(r"_(call|put)_(\d+)_(\d{8})\.csv$", name) for name in names]
    return [(m[1], int(m[2]) / 10_000, f"{m[3][:4]}-{m[3][4:6]}-{m[3][6:]}") for m in found if m is not None]


def es_chain(folder: Path) -> str:
    """The ES contracts recorded on 2020-01-06 as a chain file; its config line."""
    contracts = members("futureoption/cme/minute/es/202003/20200106_quote_american.zip", "")
    rows = [f"ES,future_option,{cp},{k:g},{end},physical,50,USD,1\n" for cp, k, end in contracts if 3100 <= k <= 3400]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chain.csv").write_text(CHAIN_HEADER + "".join(rows), encoding="utf-8")
    return 'chain = "chain.csv"\n'


def run_day(folder: Path, day: Day) -> tuple[Run, list[Step]]:
    return play(configs.load_config(write_config(folder, day, lean_root())))


def alarms(steps: list[Step], code: str) -> list[str]:
    return [f.alarm.text for step in steps for f in step.facts if isinstance(f, Alarmed) and f.alarm.code == code]


def hedges(steps: list[Step]) -> int:
    return sum(isinstance(f, Executed) and f.account == "dynamic" for step in steps for f in step.facts)


def test_recorded_american_puts_are_hedged_at_american_deltas_within_their_bound(tmp_path: Path) -> None:
    """The per-tick delta of each re-mark's cells is the exact one within 2e-5 a unit, at prices through the session."""
    pricing = 'pricer = "american"\nvol = "implied"\nremark = "1m"\nrate = 0.02'
    run, steps = run_day(tmp_path, changed(PUTS, pricing=pricing))
    assert hedges(steps) > 0
    s = run.loop.valuation.slice("US:GOOG")
    assert s.american.all()
    legs = run.loop.valuation.legs("US:GOOG", {c.id: 10.0 for c in s.contracts})
    worst = 0.0
    for spot in np.linspace(735.0, 765.0, 101):
        for later in (0, 20, 40):
            now = s.marked_ts + later * NS_PER_SECOND
            tau = (s.expiry - now) / NS_PER_YEAR
            exact = american.price(spot, s.strike, tau, s.vol, rate=0.02, cp=s.cp).delta
            worst = max(worst, abs(legs.net(float(spot), now)[0] - float(np.sum(exact * 1000.0))) / 2000.0)
    assert worst < 2e-5


def test_early_exercise_lowers_the_vols_of_recorded_in_the_money_puts(tmp_path: Path) -> None:
    """The same quotes hold a premium, so that American vols are lower and American deltas larger in size."""
    found = {}
    for pricer in ("european", "american"):
        pricing = f'pricer = "{pricer}"\nvol = "implied"\nremark = "1m"\nrate = 0.02'
        run, _ = run_day(tmp_path / pricer, changed(PUTS, pricing=pricing))
        s = run.loop.valuation.slice("US:GOOG")
        table = run.loop.sampler.table()
        row = s.rows["GOOG  160115P00800000"]
        found[pricer] = np.nanmedian(table.vols["US:GOOG"][:, row])
    assert found["american"] < found["european"]


def test_a_recorded_chain_fits_a_surface_that_the_book_is_marked_on(tmp_path: Path) -> None:
    """Every re-mark of the ES morning is fitted, and the held call's surface vol stays near its own implied vol."""
    pricing = f'pricer = "american"\nvol = "surface"\nremark = "10m"\nrate = 0.0155\n{es_chain(tmp_path)}'
    run, steps = run_day(tmp_path, changed(SHORT_ES, pricing=pricing))
    assert alarms(steps, "surface_fit") == []
    fitted = run.loop.valuation.surfaces["CME:ESH2020"]
    assert fitted.surface.fits[0].used >= 20
    assert fitted.surface.fits[0].rmse < 0.01
    own = 'pricer = "american"\nvol = "implied"\nremark = "10m"\nrate = 0.0155'
    alone, _ = run_day(tmp_path / "own", changed(SHORT_ES, pricing=own))
    a, b = (r.loop.sampler.table().vols["CME:ESH2020"][:, 0] for r in (run, alone))
    assert np.nanmax(np.abs(a - b)) < 0.01


@pytest.mark.parametrize("rule", ["sticky_delta", "local_vol"])
def test_a_smile_rule_tilts_the_recorded_hedge_by_its_skew(rule: str, tmp_path: Path) -> None:
    """ES vols fall with strike: a smile that moves along raises a call's delta, local vol lowers it."""
    deltas = {}
    for name in ("sticky_strike", rule):
        folder = tmp_path / name
        pricing = f'vol = "implied"\nsmile = "{name}"\nremark = "10m"\nrate = 0.0155\n{es_chain(folder)}'
        run, _ = run_day(folder, changed(SHORT_ES, pricing=pricing))
        s = run.loop.valuation.slice("CME:ESH2020")
        spot = run.loop.valuation.spot("CME:ESH2020")
        legs = run.loop.valuation.legs("CME:ESH2020", {s.contracts[0].id: 1.0})
        deltas[name] = legs.net(spot, run.loop.now)[0] / 50.0
    tilt = deltas[rule] - deltas["sticky_strike"]
    assert (0.005 < tilt < 0.3) if rule == "sticky_delta" else (-0.3 < tilt < -0.005)


def test_a_forecast_of_the_recorded_future_hedges_once_it_has_seen_enough(tmp_path: Path) -> None:
    """Before ten five-minute bars the vol is unknown and alarmed; afterwards it is a plausible one."""
    pricing = 'vol = "forecast"\nremark = "1m"\nrate = 0.0155\nforecast = {kind = "ewma", interval = "5m", least = 10}'
    run, steps = run_day(tmp_path, changed(SHORT_ES, pricing=pricing))
    assert len(set(alarms(steps, "greeks_unknown"))) == 1
    vol = float(run.loop.valuation.slice("CME:ESH2020").vol[0])
    assert 0.02 < vol < 0.6
    assert hedges(steps) > 0


def test_a_tree_agrees_with_the_american_pricer_on_recorded_puts_and_not_with_the_european(tmp_path: Path) -> None:
    """The second pricer is silent beside the right model, and names the contract beside the one without the premium."""
    check = 'vol = "implied"\nremark = "30m"\nrate = 0.05\ncheck = {pricer = "tree", price_tolerance = 2e-5}'
    _, right = run_day(tmp_path / "a", changed(PUTS, pricing=f'pricer = "american"\n{check}'))
    _, wrong = run_day(tmp_path / "e", changed(PUTS, pricing=f'pricer = "european"\n{check}'))
    assert alarms(right, "model_disagreement") == []
    assert any("160115P00800000" in text for text in alarms(wrong, "model_disagreement"))


MODELS = {
    "american": 'pricer = "american"\nvol = "implied"\nremark = "1m"\nrate = 0.02',
    "forecast": 'vol = "forecast"\nremark = "1m"\nforecast = {kind = "ewma", interval = "2m", least = 5}',
    "tilted": 'pricer = "american"\nvol = "implied"\nsmile = "bartlett"\nsabr = {rho = -0.3, nu = 1.0}\nremark = "1m"',
}
PUT_FILES = {**GOOG.files, "option/usa/minute/goog/20151224_quote_american.zip": "_put_(7500000|8000000)_20160115"}


@pytest.mark.parametrize("name", MODELS)
def test_no_model_looks_ahead_on_a_recorded_day(name: str, tmp_path: Path) -> None:
    """Rows known later, cut or scrambled, change nothing that was said before, byte for byte."""
    day = changed(PUTS, name=f"goog_{name}", files=PUT_FILES, pricing=MODELS[name])
    assert differences(day, tmp_path, instants=6) == []
