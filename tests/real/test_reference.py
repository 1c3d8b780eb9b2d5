"""Independent results on recorded days, reproduced through the whole engine."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bot.app import config as configs
from bot.app import runs
from tests.realdata import data_root, lean_root

pytestmark = pytest.mark.real

ES: dict[str, Any] = {
    "case": ("ES_202003",),
    "underlying": "CME:ESH2020",
    "hedge": "CME:ESH2020",
    "dates": ("2020-01-05", "2020-01-06"),
    "start": "2020-01-05T23:10:00Z",
    "end": "2020-01-06T21:00:00Z",
    "row": "ES,future_option,{cp},3220,2020-03-20,physical,50,USD",
}
GOOG: dict[str, Any] = {
    "underlying": "US:GOOG",
    "hedge": "US:GOOG",
    "dates": ("2015-12-24",),
    "start": "2015-12-24T14:35:00Z",
    "end": "2015-12-24T18:00:00Z",
}
TWX: dict[str, Any] = {
    "underlying": "US:TWX",
    "hedge": "US:TWX",
    "dates": ("2014-06-05",),
    "start": "2014-06-05T13:35:00Z",
    "end": "2014-06-05T19:59:00Z",
}
SPXW: dict[str, Any] = {
    "underlying": "INDEX:SPX",
    "hedge": "INDEX:SPX",
    "dates": ("2021-01-04",),
    "start": "2021-01-04T14:35:00Z",
    "end": "2021-01-04T21:00:00Z",
    "source": "trades",
    "extra": 'multiplier = 100\nlot = 1\nspread = {kind = "fixed", half = 0.25}',
}
CASES: list[dict[str, Any]] = [
    ES,
    GOOG | {"case": ("GOOG_20151224", "20151224"), "row": "GOOG,option,{cp},750,2015-12-24,cash,100,USD"},
    GOOG | {"case": ("GOOG_20151224", "20151231"), "row": "GOOG,option,{cp},750,2015-12-31,physical,100,USD"},
    GOOG | {"case": ("GOOG_20151224", "20160115"), "row": "GOOG,option,{cp},750,2016-01-15,physical,100,USD"},
    TWX | {"case": ("TWX_20140605", "20140621"), "row": "TWX,option,{cp},70,2014-06-21,physical,100,USD"},
    TWX | {"case": ("TWX_20140605", "20140719"), "row": "TWX,option,{cp},70,2014-07-19,physical,100,USD"},
    SPXW | {"case": ("SPXW_20210104", "20210104_3700"), "row": "SPXW,index_option,{cp},3700,2021-01-04,cash,100,USD"},
    SPXW | {"case": ("SPXW_20210104", "20210104_3800"), "row": "SPXW,index_option,{cp},3800,2021-01-04,cash,100,USD"},
]  # fmt: skip
HEADER = "underlying,type,cp,strike,expiry,settlement,multiplier,currency,quantity\n"
LEGS = {"call": ("call",), "put": ("put",), "straddle": ("call", "put")}


@cache
def reference() -> dict[str, Any]:
    return json.loads((data_root() / "reference.json").read_text(encoding="utf-8"))["cases"]  # type: ignore[no-any-return]


def config_of(
    folder: Path, case: dict[str, Any], found: dict[str, Any], legs: str, interval: str, *, lot: str = ""
) -> Path:
    book = HEADER + "".join(f"{case['row'].format(cp=cp)},{found['qty']}\n" for cp in LEGS[legs])
    (folder / "book.csv").write_text(book, encoding="utf-8")
    dates = ", ".join(f'"{day}"' for day in case["dates"])
    text = f"""
schema_version = 1
name = "reference"
[session]
start = "{case["start"]}"
end = "{case["end"]}"
report_grid = "1m"
effectiveness_interval = "1m"
[[feeds]]
kind = "replay"
format = "lean"
root = "{lean_root()}"
resolution = "minute"
dates = [{dates}]
underlying = "{case.get("source", "quotes")}"
[book]
file = "book.csv"
[pricing]
pricer = "european"
vol = "implied"
remark = "1m"
rate = {found["rate"]}
[[hedges]]
underlying = "{case["underlying"]}"
instrument = "{case["hedge"]}"
{case.get("extra", "")}
{lot}
[[strategies]]
kind = "delta_hedger"
[strategies.policy]
kind = "fixed_interval"
interval = "{interval}"
"""
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def reference_of(case: dict[str, Any]) -> dict[str, Any]:
    found = reference()
    for key in case["case"]:
        found = found[key]
    return found


RUNS = [
    pytest.param(case, legs, interval, id=f"{case['case'][-1]}-{legs}-{interval}")
    for case in CASES
    for legs in LEGS
    for interval in ("1m", "5m", "15m", "60m")
]


@pytest.mark.parametrize(("case", "legs", "interval"), RUNS)
def test_a_recorded_day_gives_the_independent_numbers(
    case: dict[str, Any], legs: str, interval: str, tmp_path: Path
) -> None:
    """Options, hedge and spread cost agree to the cent and the trade counts exactly, with entry vols to 1e-6."""
    found = reference_of(case)
    expected = found["runs"][f"{legs}_every{interval}"]
    config = configs.load_config(config_of(tmp_path, case, found, legs, interval))
    _, document, _ = runs.execute(config, store=False)
    book = document["books"]["dynamic"]
    pnl = book["pnl"]
    assert document["session"]["start"] == expected["start"]
    assert pnl["options"] == pytest.approx(expected["option_pnl_mid"], abs=0.005)
    assert pnl["hedge"] == pytest.approx(expected["hedge_pnl_mid"], abs=0.005)
    assert pnl["spread_cost"] == pytest.approx(expected["hedge_spread_cost"], abs=0.005)
    assert (book["trades"], book["units_traded"]) == (expected["hedge_trades"], expected["hedge_units_traded"])
    assert pnl["total"] == pytest.approx(expected["net_mid"], abs=0.005)
    ivs = [leg["entry_iv"] for leg in sorted(document["legs"], key=lambda leg: -leg["cp"])]
    assert ivs == pytest.approx(expected["entry_iv"], abs=1e-6)


def test_the_es_call_is_told_honestly(tmp_path: Path) -> None:
    """Dynamic, static and none agree to the cent, effectiveness to .001, and the verdict says that static won."""
    found = reference_of(ES)
    path = config_of(tmp_path, ES, found, "call", "1m")
    _, document, _ = runs.execute(configs.load_config(path), store=False)
    totals = {name: book["pnl"]["total"] for name, book in document["books"].items()}
    assert totals == {"dynamic": -6537.50, "static": -3887.50, "none": 66875.00}
    assert document["books"]["dynamic"]["hedge_effectiveness"] == pytest.approx(0.811, abs=0.001)
    assert (
        "Dynamic hedging made 2,650.00 less than static hedge in this session: static hedge won." in document["verdict"]
    )
    hourly = configs.load_config(path, {"EVENKEEL__SESSION__EFFECTIVENESS_INTERVAL": "60m"})
    _, document, _ = runs.execute(hourly, store=False)
    assert document["books"]["dynamic"]["hedge_effectiveness"] == pytest.approx(0.947, abs=0.001)


def test_attribution_of_the_es_call_sums_to_the_cent(tmp_path: Path) -> None:
    """The nine terms sum to the total and the residual is at most 0.05% of the option's P&L."""
    path = config_of(tmp_path, ES, reference_of(ES), "call", "1m")
    _, document, _ = runs.execute(configs.load_config(path), store=False)
    for book in document["books"].values():
        assert sum(book["attribution"].values()) == pytest.approx(book["pnl"]["total"], abs=0.005)
        assert abs(book["attribution"]["residual"]) <= 0.0005 * abs(book["pnl"]["options"])


def test_an_expiry_day_shows_and_alarms_its_residual(tmp_path: Path) -> None:
    """On the same-day expiry the unexplained part is shown as a number and raised as an alarm."""
    case = CASES[1]
    path = config_of(tmp_path, case, reference_of(case), "straddle", "1m")
    _, document, _ = runs.execute(configs.load_config(path), store=False)
    residual = document["books"]["dynamic"]["attribution"]["residual"]
    share = abs(residual) / abs(document["books"]["dynamic"]["pnl"]["options"])
    assert ("residual" in {alarm["code"] for alarm in document["alarms"]}) == (share > 0.05)
    assert sum(document["books"]["dynamic"]["attribution"].values()) == pytest.approx(
        document["books"]["dynamic"]["pnl"]["total"], abs=0.005
    )


def test_fractional_hedges_agree(tmp_path: Path) -> None:
    """With lots of a billionth the hedge P&L and cost agree with the fractional reference to a cent."""
    found = reference_of(ES)
    expected = found["runs"]["call_every1m_fractional"]
    path = config_of(tmp_path, ES, found, "call", "1m", lot="lot = 0.000000001")
    _, document, _ = runs.execute(configs.load_config(path), store=False)
    pnl = document["books"]["dynamic"]["pnl"]
    assert pnl["hedge"] == pytest.approx(expected["hedge_pnl_mid"], abs=0.01)
    assert pnl["spread_cost"] == pytest.approx(expected["hedge_spread_cost"], abs=0.01)
    assert Decimal(str(document["books"]["dynamic"]["trades"])) == expected["hedge_trades"]


def chain_config(folder: Path) -> Path:
    found = reference()["SPX_chain_201905"]
    (folder / "book.csv").write_text(
        HEADER
        + "".join(f"SPXW,index_option,{cp},{found['strike']},2019-06-28,cash,100,USD,10\n" for cp in ("call", "put")),
        encoding="utf-8",
    )
    days = sorted((data_root() / "options_backtester" / "SPX_daily").glob("SPX_*.csv"))
    files = ", ".join(f'"{day}"' for day in days)
    path = folder / "chain.toml"
    path.write_text(
        f"""
schema_version = 1
name = "chain"
[session]
start = "2019-05-02T20:00:00Z"
end = "2019-05-09T20:00:00Z"
report_grid = "1d"
effectiveness_interval = "1d"
[[feeds]]
kind = "replay"
format = "spx_chain"
files = [{files}]
underlying = "trades"
[book]
file = "book.csv"
[pricing]
vol = "implied"
forward = "parity"
remark = "1d"
rate = {found["rate"]}
[[hedges]]
underlying = "INDEX:SPX"
instrument = "INDEX:SPX"
multiplier = 100
lot = 1
spread = {{kind = "fixed", half = 0.25}}
[[strategies]]
kind = "delta_hedger"
[strategies.policy]
kind = "fixed_interval"
interval = "1d"
""",
        encoding="utf-8",
    )
    return path


def test_the_daily_chain_of_six_days_gives_the_independent_numbers(tmp_path: Path) -> None:
    """Ten straddles marked at mid and hedged at each daily snapshot agree to the cent over a weekend of news."""
    found = reference()["SPX_chain_201905"]
    _, document, _ = runs.execute(configs.load_config(chain_config(tmp_path)), store=False)
    book = document["books"]["dynamic"]
    assert book["pnl"]["options"] == pytest.approx(found["option_pnl_mid"], abs=0.005)
    assert book["pnl"]["hedge"] - book["pnl"]["spread_cost"] == pytest.approx(found["hedge_pnl_net"], abs=0.005)
    assert book["pnl"]["spread_cost"] == pytest.approx(found["hedge_cost"], abs=0.005)
    assert book["pnl"]["total"] == pytest.approx(found["net_mid"], abs=0.005)
    ivs = [leg["entry_iv"] for leg in sorted(document["legs"], key=lambda leg: -leg["cp"])]
    assert ivs == pytest.approx(found["days"][0]["iv"], abs=1e-6)
