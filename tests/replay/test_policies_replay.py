"""Every policy kind a config may name runs a short session end to end, trades by its rule and explains its orders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bot.app import config as configs
from bot.app import runs
from bot.app.explain import explain_at
from bot.engine.journal import Executed, Ordered, TargetSet
from tests.replay.command import BOOK, CALL, quotes, write_session

OWN_MODULE: Final = "band_of_mine"
OTHERS: Final = ("XYZ   250321P00095000", "XYZ   250417C00105000")
BOOK_OF_THREE: Final = (
    BOOK
    + "SIM:XYZ,option,call,100,2025-03-21T20:00:00Z,european,cash,100,USD,-10\n"
    + "SIM:XYZ,option,put,95,2025-03-21T20:00:00Z,european,cash,100,USD,5\n"
    + "SIM:XYZ,option,call,105,2025-04-17T20:00:00Z,european,cash,100,USD,-4\n"
)
CASES: Final[dict[str, str]] = {
    "none": "",
    "static": "",
    "fixed_interval": 'interval = "5m"',
    "delta_band": "half_width = 20",
    "move_band": "pct = 0.4",
    "leland_delta": 'interval = "5m"',
    "hoggard_whalley_wilmott": 'interval = "5m"',
    "whalley_wilmott": "risk_aversion = 0.01",
    "fixed_fee_band": "fee = 0.5\nrisk_aversion = 0.01",
    "zakamouline": "tolerance = 15",
    "almgren_li_speed": 'impact = 1e-6\nrisk_aversion = 0.01\ninterval = "5m"',
    "min_var_delta": 'a = 0.0\nb = -0.1\nc = 0.1\n[POLICY.inner]\nkind = "delta_band"\nhalf_width = 20',
    "bartlett_delta": 'rho = -0.5\nnu = 0.8\nbeta = 1.0\n[POLICY.inner]\nkind = "fixed_interval"\ninterval = "5m"',
    "pin_guard": 'within = "30d"\ndistance = 0.3\naction = "freeze"\n[POLICY.inner]\nkind = "delta_band"\nhalf_width = 20',
    "exact_band": "risk_aversion = 0.01\ndates = 30",
    "guarded_band": "risk_aversion = 0.01\ndates = 8",
    "delta_gamma_vega": 'risk_aversion = 0.01\nhorizon = "1h"',
    "callable": f'function = "{OWN_MODULE}:band"',
}


def table(kind: str, keys: str, *, at: str = "strategies.policy") -> str:
    return f'[{at}]\nkind = "{kind}"\n' + keys.replace("POLICY", at) + "\n"


def session(folder: Path, kind: str, keys: str, *, more: str = "", cost: str = "cost = 0.0005") -> Path:
    """The small session of three legs on vols of their own, hedged by a policy."""
    lines = quotes()
    for other in OTHERS:
        lines += [line.replace(CALL, other) for line in quotes() if CALL in line]
    path = write_session(
        folder,
        lines=[lines[0], *sorted(lines[1:])],
        book=BOOK_OF_THREE,
        edit=[
            ('vol = "implied"', 'vol = "fixed"\nvol_value = 0.25'),
            ('instrument = "SIM:XYZ"\n[[str', f'instrument = "SIM:XYZ"\n{cost}\n[[str'),
            ('[strategies.policy]\nkind = "fixed_interval"\ninterval = "5m"\n', table(kind, keys)),
        ],
    )
    with path.open("a", encoding="utf-8") as file:
        file.write(f'{more}\n[plugins]\nallow = ["{OWN_MODULE}"]\n')
    return path


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path) -> Iterator[None]:
    """A module of the user's own on the path, as an installed one would be."""
    home = tmp_path / "modules"
    home.mkdir()
    (home / f"{OWN_MODULE}.py").write_text("def band(x):\n    return x.want - 15.0, x.want + 15.0\n", encoding="utf-8")
    sys.path.insert(0, str(home))
    yield
    sys.path.remove(str(home))
    sys.modules.pop(OWN_MODULE, None)


def test_every_kind_has_a_case() -> None:
    """No built-in policy is left out here."""
    assert set(CASES) == set(configs.POLICY_KINDS)


@pytest.mark.parametrize("kind", CASES)
def test_a_kind_runs_trades_and_explains_itself(kind: str, tmp_path: Path) -> None:
    """A session of the kind ends with a result that names its rule, orders worded by it, and explanations that prove."""
    config = configs.load_config(session(tmp_path, kind, CASES[kind]), {})
    _, document, stored = runs.execute(config)
    assert stored is not None
    run = runs.StoredRun(stored)
    steps = list(run.steps())
    facts = [f for step in steps for f in step.facts if getattr(f, "account", "") == "dynamic"]
    (name,) = document["books"]["dynamic"]["policy"]
    orders = [f.order for f in facts if isinstance(f, Ordered) and not f.order.closing]
    assert (kind == "none") == (not orders)
    assert all(order.reason.startswith(f"{name}: ") for order in orders)
    for fact in facts:
        if isinstance(fact, TargetSet) and fact.evidence is not None:
            assert fact.evidence.policy == name
            assert fact.evidence.lo is None or fact.evidence.hi is None or fact.evidence.lo <= fact.evidence.hi
    assert not [a for a in document.get("alarms", []) if a.get("code") == "strategy_fault"]
    if not orders:
        return
    fills = [f.fill for f in facts if isinstance(f, Executed)]
    assert len(fills) >= len(orders)
    row = explain_at(run, orders[len(orders) // 2].ts)
    assert row["proof"]["status"] == "proved", row["proof"]
    (under,) = row["underlyings"]
    assert under["policy"] == name


def test_alternatives_may_use_them_all(tmp_path: Path) -> None:
    """Every kind runs as an account of its own beside the others, on the same ticks, each under its own name."""
    more = "".join(
        f'[[alternatives]]\nname = "alt_{kind}"\n' + table(kind, keys, at="alternatives.policy")
        for kind, keys in CASES.items()
    )
    config = configs.load_config(session(tmp_path, "delta_band", "half_width = 30", more=more), {})
    _, document, _ = runs.execute(config, store=False)
    named = {book: document["books"][book]["policy"][0] for book in document["books"] if book.startswith("alt_")}
    assert set(named) == {f"alt_{kind}" for kind in CASES}
    assert len(set(named.values())) == len(CASES)
    trades = {book: document["books"][book]["trades"] for book in named}
    assert trades["alt_none"] == 0
    assert all(count > 0 for book, count in trades.items() if book != "alt_none")
