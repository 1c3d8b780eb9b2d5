"""What a model changes on recorded days: GOOG puts by European and American prices, an ES call by vol source and smile rule.

One line a run: CPU seconds, hedge fills, P&L and its standard deviation per minute, the attribution's residual, median vols.
Needs LEAN's Data folder (EVENKEEL_DATA).

    python benchmarks/models_on_days.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from bot.app import config as configs
from bot.app.result import intervals_of
from bot.engine.journal import Alarmed, Executed
from tests.real.test_models_real import PUTS, es_chain
from tests.realdata import lean_root
from tests.replay.days import ES, GOOG, Day, changed, play, write_config

FAR = changed(
    GOOG,
    name="goog_far",
    rows=(
        "GOOG,option,put,850,2016-03-18,physical,100,USD,10",
        "GOOG,option,put,900,2017-01-20,physical,100,USD,10",
    ),
    policy='kind = "delta_band"\nhalf_width = 5',
)
MORNING = changed(ES, start="2020-01-06T14:30:00Z", policy='kind = "delta_band"\nhalf_width = 50')
RULES = {
    "sticky_strike": 'smile = "sticky_strike"',
    "sticky_delta": 'smile = "sticky_delta"',
    "ratio 1.5": "smile = 1.5",
    "local_vol": 'smile = "local_vol"',
    "minimum_variance": 'smile = "minimum_variance"\nhull_white = {a = -0.25, b = 0, c = 0}',
    "bartlett": 'smile = "bartlett"\nsabr = {rho = -0.6, nu = 1.5}',
}
SOURCES = {
    "implied": 'vol = "implied"',
    "implied, american": 'vol = "implied"\npricer = "american"',
    "implied, trading time": 'vol = "implied"\nday_count = "trading"',
    "surface, svi": 'vol = "surface"\nmark = "mid"',
    "surface, ssvi": 'vol = "surface"\nmark = "mid"\nsurface = {model = "ssvi"}',
    "forecast, ewma of 5m": 'vol = "forecast"\nforecast = {kind = "ewma", interval = "5m"}',
}


def show(label: str, day: Day, folder: Path) -> None:
    """Play a day and print its line."""
    config = configs.load_config(write_config(folder, day, lean_root()))
    began = time.process_time()
    run, steps = play(config)
    seconds = time.process_time() - began
    found = intervals_of(run)["dynamic"]
    fills = sum(isinstance(f, Executed) and f.account == "dynamic" for step in steps for f in step.facts)
    told = sum(isinstance(f, Alarmed) and f.alarm.code == "model_disagreement" for step in steps for f in step.facts)
    vols = ", ".join(f"{np.nanmedian(v):.4f}" for table in run.loop.sampler.table().vols.values() for v in table.T)
    print(
        f"{label:34s} cpu {seconds:5.2f} s  fills {fills:4d}  P&L {found.total.sum():10.2f}  sd {found.total.std():7.2f}  "
        f"residual {found.terms['residual'].sum():10.2f}  disagreements {told}  vols {vols}"
    )


def main() -> None:
    """Every run, one after another."""
    with tempfile.TemporaryDirectory() as place:
        for name, day in (("GOOG near puts", PUTS), ("GOOG far puts", FAR)):
            for rate in (0.0035, 0.02):
                for pricer in ("european", "american"):
                    pricing = (
                        f'pricer = "{pricer}"\nremark = "1m"\nrate = {rate}\ncheck = {{pricer = "tree", every = 60}}'
                    )
                    show(f"{name} {pricer} r={rate}", changed(day, pricing=pricing), Path(place) / "goog")
        for name, part in {**SOURCES, **{f"rule {key}": value for key, value in RULES.items()}}.items():
            folder = Path(place) / "es"
            chain = es_chain(folder)
            show(f"ES {name}", changed(MORNING, pricing=f'{part}\nremark = "5m"\nrate = 0.0155\n{chain}'), folder)


if __name__ == "__main__":
    main()
