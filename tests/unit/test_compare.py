"""A comparison of policies: what it tells agrees with the runs and the lab behind it, and with the yardstick's known values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.app import compare as comparing
from bot.app import config as configs
from bot.app import report_policies, runs
from bot.app.config_lab import policy_of
from bot.app.lab_problem import parse_tolerance, stage_problems
from bot.app.lab_scores import Asked, cvar_se, draw, section, std_influence, tuned_catalogue
from bot.core.errors import ConfigError, DataError
from bot.lab.score import DAILY, standard_error
from tests.lab_session import AVERSION, OPTIONS, TOLERANCE, call, write_quarter

Capture = pytest.CaptureFixture[str]

BANDS = """
[[alternatives]]
name = "band"
[alternatives.policy]
kind = "delta_band"
half_width = 300
[[alternatives]]
name = "ww"
[alternatives.policy]
kind = "whalley_wilmott"
risk_aversion = 1e-4
"""


def load(folder: Path, **changes: Any) -> configs.Config:
    return configs.load_config(write_quarter(folder, **changes), {})


def row_of(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(row for row in rows if row["name"] == name)


# --------------------------------------------------------------------------- the recorded set


def test_a_recorded_comparison_tells_what_the_backtest_tells(tmp_path: Path) -> None:
    """Cost, risk, trades and P&L of every account are those of a backtest of the same config."""
    config = load(tmp_path, tables=BANDS)
    found = comparing.compare(config, aversion=AVERSION)["recorded"]
    _, document, _ = runs.execute(config, store=False)
    for name, book in document["books"].items():
        row, pnl = row_of(found["rows"], name), book["pnl"]
        assert row["mean_cost"] == pytest.approx(pnl["spread_cost"] + pnl["commission"] + pnl["impact"], abs=1e-9)
        assert (row["std"], row["cvar95"], row["trades"], row["total"]) == (
            book["pnl_std"],
            book["tail_loss"],
            book["trades"],
            pnl["total"],
        )


def test_the_daily_hedge_and_the_optimum_run_along_once(tmp_path: Path) -> None:
    """Both are added where the config has neither; a config's own exact band and daily hedge stand for them."""
    config = load(tmp_path, tables=BANDS)
    rows = comparing.compare(config, aversion=AVERSION)["recorded"]["rows"]
    assert [row["name"] for row in rows] == ["dynamic", "band", "ww", "static", "none", "daily_bs", "optimum"]
    own = 'name = "{}"\n[alternatives.policy]\nkind = "{}"\n{}\n'
    tables = "[[alternatives]]\n" + own.format("mine", "exact_band", "risk_aversion = 1e-4")
    tables += "[[alternatives]]\n" + own.format("day", "fixed_interval", 'interval = "1d"')
    rows = comparing.compare(load(tmp_path / "own", tables=tables), aversion=AVERSION)["recorded"]["rows"]
    assert [row["name"] for row in rows] == ["dynamic", "mine", "day", "static", "none"]


def test_differences_from_the_first_account_are_paired(tmp_path: Path) -> None:
    """An account's own difference is nothing without error; another's is told with an error below that of its level."""
    rows = comparing.compare(load(tmp_path, tables=BANDS))["recorded"]["rows"]
    first, band = rows[0], row_of(rows, "band")
    assert (first["cost_less"], first["std_less"], first["std_less_se"]) == (0.0, 0.0, 0.0)
    assert band["cost_less"] == pytest.approx(first["mean_cost"] - band["mean_cost"])
    assert band["std_less"] == pytest.approx(first["std"] - band["std"])
    assert 0.0 < band["std_less_se"] < first["std_se"] + band["std_se"]


def test_without_an_aversion_nothing_is_said_of_worth(tmp_path: Path) -> None:
    """No certainty equivalent, gap or optimum is made up, and a note says why."""
    document = comparing.compare(load(tmp_path))
    assert all(row["ce"] is None and row["gap"] is None for row in document["recorded"]["rows"])
    assert "optimum" not in {row["name"] for row in document["recorded"]["rows"]}
    assert any("no risk aversion is given" in note for note in document["notes"])


def test_a_gap_on_record_is_0_for_the_daily_hedge_and_100_for_the_optimum() -> None:
    """Gaps follow the certainty equivalents of whole sessions, and are left out where the two ends cannot be told apart."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=400)
    steps = {"day": -1.0 + noise, "best": 0.5 + noise, "half": -0.25 + noise}
    rows: list[dict[str, Any]] = [{"name": name, "gap": None, "gap_se": None} for name in steps]
    comparing.set_gaps(rows, steps, 0.01, daily="day", optimum="best")
    assert [row["gap"] for row in rows] == pytest.approx([0.0, 100.0, 50.0], abs=1e-9)
    assert all(row["gap_se"] < 1e-9 for row in rows)
    apart = {"day": steps["day"], "best": rng.normal(size=400) - 1.0, "half": steps["half"]}
    fresh: list[dict[str, Any]] = [{"name": name, "gap": None, "gap_se": None} for name in apart]
    comparing.set_gaps(fresh, apart, 0.01, daily="day", optimum="best")
    assert all(row["gap"] is None for row in fresh)


def test_a_session_without_implied_vols_is_compared_on_record_alone() -> None:
    """The article's book, priced by a table, is compared on its own prices; a simulated set of it is refused in words."""
    config = configs.load_config(configs.example_path("market_maker_example"), {})
    rows = comparing.compare(config, policies=["dynamic", "none"], full=True)["recorded"]["rows"]
    assert rows[0]["mean_cost"] > 0.0
    with pytest.raises(ConfigError, match="knows no vols of the legs"):
        comparing.compare(config, world="gbm")


# --------------------------------------------------------------------------- errors of figures


def test_the_error_of_a_mean_counts_neighbours() -> None:
    """It is the loop's sum over lags, near the plain error for independent values and well above it for sticky ones."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=1000)
    sticky = np.convolve(x, np.ones(5), mode="valid")

    def by_hand(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
        n, c = len(values), values - values.mean()
        lags = math.floor(4.0 * (n / 100.0) ** (2.0 / 9.0))
        total = sum(c[i] * c[i] for i in range(n))
        for k in range(1, lags + 1):
            total += 2.0 * (1.0 - k / (lags + 1)) * sum(c[i] * c[i - k] for i in range(k, n))
        return math.sqrt(total / n / (n - 1))

    for values in (x, sticky):
        assert comparing.hac_se(values) == pytest.approx(by_hand(values), rel=1e-9)
    assert comparing.hac_se(x) == pytest.approx(standard_error(x), rel=0.2)
    assert comparing.hac_se(sticky) > 1.5 * standard_error(sticky)


def test_errors_of_a_standard_deviation_and_a_tail_are_those_of_many_draws() -> None:
    """The influences' standard errors are the spread of the figures over four hundred samples, to a tenth."""
    rng = np.random.default_rng(3)
    samples = rng.standard_t(8, size=(400, 2000))
    stds = samples.std(axis=1)
    tails = np.array([np.sort(row)[-100:].mean() for row in samples])
    told = np.mean([standard_error(std_influence(row)) for row in samples])
    told_tail = np.mean([cvar_se(row, 0.05) for row in samples])
    assert told == pytest.approx(stds.std(), rel=0.12)
    assert told_tail == pytest.approx(tails.std(), rel=0.12)


def test_the_worth_of_a_session_is_the_sum_of_its_intervals() -> None:
    """n ln E[exp(g l)] / g by its definition, and mean + g var / 2 of normal losses."""
    loss = np.random.default_rng(4).normal(2.0, 3.0, size=5000)
    value, influence = comparing.certainty_of(loss, 0.1)
    assert value == pytest.approx(5000 * math.log(np.mean(np.exp(0.1 * loss))) / 0.1, rel=1e-12)
    assert value / 5000 == pytest.approx(2.0 + 0.1 * 9.0 / 2.0, abs=4 * standard_error(influence))


# --------------------------------------------------------------------------- the simulated set


def test_the_yardstick_comes_out_of_a_config(tmp_path: Path) -> None:
    """On the S100 row (20 bp, g = 1, 252 dates) the optimum, daily hedging and the gaps are the published ones."""
    config = load(tmp_path)
    (found,) = comparing.compare(
        config, policies=["zakamouline", "whalley_wilmott"], world="gbm", paths=4096, seed=77, aversion=AVERSION
    )["sections"]
    rows = found["rows"]
    assert found["optimum_price"] / OPTIONS == pytest.approx(4.5514, abs=1e-3)
    assert found["model_value"] / OPTIONS == pytest.approx(3.9878, abs=1e-4)
    assert row_of(rows, DAILY)["ce"] / OPTIONS == pytest.approx(4.844378, abs=2e-3)
    for name, gap in (("zakamouline", 94.0), ("whalley_wilmott", 86.2)):
        row = row_of(rows, name)
        assert row["gap"] == pytest.approx(gap, abs=3.0 * row["gap_se"] + 0.7)
    assert row_of(rows, DAILY)["gap"] == 0.0
    assert row_of(rows, "optimum")["gap"] == pytest.approx(100.0)


def test_scoring_and_tuning_seeds_are_kept_apart(tmp_path: Path) -> None:
    """Another scoring seed changes every sampled figure; another tuning seed changes none of a policy that is not tuned."""
    config = load(tmp_path)

    def cost(seed: int, tune_seed: int) -> float:
        document = comparing.compare(
            config, policies=["static"], world="gbm", paths=256, seed=seed, tune_seed=tune_seed, dates=12
        )
        assert document["seeds"] == {"scoring": seed, "tuning": tune_seed}
        return float(document["sections"][0]["rows"][0]["std"])

    assert cost(1, 5) == cost(1, 6)
    assert cost(1, 5) != cost(2, 5)
    (staged,), _ = stage_problems(config, aversion=AVERSION, dates=12)
    same = draw(staged.problem, "gbm", paths=64, seed=9).paths
    tuning = draw(staged.problem, "gbm", paths=64, seed=9, purpose="tune").paths
    assert not np.any(same[:, 1:] == tuning[:, 1:])


@pytest.mark.parametrize("world", ["merton", "heston", "bates", "bootstrap"])
def test_every_world_is_drawn_and_scored(world: Any, tmp_path: Path) -> None:
    """Each kind of scenario gives a full table in which the optimum of the believed world counts as 100."""
    document = comparing.compare(
        load(tmp_path), policies=["whalley_wilmott"], world=world, paths=512, dates=24, aversion=AVERSION
    )
    (found,) = document["sections"]
    row = row_of(found["rows"], "whalley_wilmott")
    assert row["std"] > 0.0
    assert row["gap_se"] > 0.0
    assert row_of(found["rows"], "optimum")["gap"] == pytest.approx(100.0)


def test_a_bootstrap_needs_recorded_moves(tmp_path: Path) -> None:
    """A record with too few returns is refused with the number found."""
    with pytest.raises(DataError, match="expected 50 recorded returns or more, found 10"):
        comparing.compare(load(tmp_path, minutes=10), world="bootstrap", paths=256, dates=8)


def test_all_is_every_kind_that_needs_no_data(tmp_path: Path) -> None:
    """`all` is the config's own and the catalogue, tuned widths among them; without an aversion the averse are left out."""
    config = load(tmp_path)
    (staged,), _ = stage_problems(config, aversion=AVERSION, dates=12)
    asked = Asked("gbm", 256, 1, 101)
    tables, notes = comparing.chosen_policies(config, ["all"], [staged], aversion=AVERSION, asked=asked)
    assert {"dynamic", "none", "static", "delta_band", "move_band", "zakamouline", "exact_band"} <= set(tables)
    assert any("tuning seed 101" in note for note in notes)
    found = section(staged, tables, config, asked, full=False)
    assert {row["name"] for row in found["rows"]} >= set(tables)
    (plain,), _ = stage_problems(config, aversion=None, dates=12)
    tables, notes = tuned_catalogue(["none", "zakamouline", "delta_band"], plain, aversion=None, tune_seed=1, paths=256)
    assert list(tables) == ["none"]
    assert notes == ["zakamouline, delta_band: left out, for want of a risk aversion"]


def test_a_written_and_a_bought_call_are_each_other_mirrored(tmp_path: Path) -> None:
    """Holdings of daily hedging mirror, so costs are equal and the P&L explained is too."""
    sold, bought = (
        comparing.compare(load(tmp_path / str(q), quantity=q), world="gbm", paths=256, dates=12)["sections"][0]["rows"]
        for q in (-OPTIONS, OPTIONS)
    )
    for one, other in zip(sold, bought, strict=True):
        assert one["mean_cost"] == pytest.approx(other["mean_cost"], rel=1e-9)
        assert one["explained"] == pytest.approx(other["explained"], rel=1e-6)


# --------------------------------------------------------------------------- words, pages, the command line


def test_bad_words_are_refused_in_words(tmp_path: Path, capsys: Capture) -> None:
    """Unknown policies, worlds, tolerances and numbers end with exit code 2 and say what was expected."""
    path = write_quarter(tmp_path)
    for words, said in (
        (["--policies", "zakamuline"], "did you mean 'zakamouline'?"),
        (["--scenarios", "sabr"], "expected one of gbm, merton, heston, bates, bootstrap"),
        (["--tolerance", "a lot"], "expected such as '1 per 2000 of std'"),
        (["--tolerance", "1 per 0 of std"], "expected such as '1 per 2000 of std'"),
        (["--scenarios", "gbm", "--paths", "3"], "--paths: expected 100 or more, found 3"),
        (["--scenarios", "gbm", "--seed", "-1"], "expected whole numbers from 0"),
    ):
        answer = call(capsys, "compare", path, *words)
        assert answer.code == 2, words
        assert said in answer.err


def test_a_tolerance_is_an_aversion() -> None:
    """1 per X of std is 2 / X^2, and paying twice as much is twice as averse."""
    assert parse_tolerance(TOLERANCE) == pytest.approx(AVERSION, rel=1e-12)
    assert parse_tolerance("2 per 1,000 of std") == pytest.approx(4e-6)
    assert parse_tolerance("1 per 2000") == pytest.approx(5e-7)


def test_the_table_of_the_file_counts_and_the_command_line_wins(tmp_path: Path, capsys: Capture) -> None:
    """[compare] chooses set, policies, seeds and paths; an option given wins; the run's hash does not change."""
    tables = '[compare]\npolicies = ["static"]\nscenarios = "gbm"\npaths = 200\nseed = 8\ndates = 6\n'
    path = write_quarter(tmp_path / "a", tables=tables)
    document = call(capsys, "compare", path, "--seed", "9", "--json").json()
    assert (document["set"], document["seeds"]["scoring"]) == ("simulated", 9)
    assert document["sections"][0]["paths"] == 200
    assert document["sections"][0]["dates"] == 6
    assert list(document["policies"]) == ["static"]
    plain = configs.load_config(write_quarter(tmp_path / "b"), {})
    assert configs.config_hash(plain) == configs.config_hash(configs.load_config(path, {}))


def test_the_page_stands_alone_and_is_repeatable(tmp_path: Path, capsys: Capture) -> None:
    """The report has frontier, bands, other worlds, both seeds and the fills, no address, and the same bytes again."""
    path = write_quarter(tmp_path, tables=BANDS + "[compare]\npaths = 256\ndates = 12\n")
    pages = []
    for name in ("one.html", "two.html"):
        answer = call(capsys, "compare", path, "--report", tmp_path / name)
        assert answer.code == 0, answer.err
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    text = pages[0].decode()
    assert text.count("<svg") >= 4
    for word in (
        "optimum",
        "vol 5 points higher",
        "jumps (Merton)",
        "Heston",
        "tuning seed 101",
        "How optimistic the fills are",
    ):
        assert word in text
    assert "://" not in text
    assert "NaN" not in text
    assert "nan" not in text.split("<svg")[0]


def test_names_from_outside_are_escaped() -> None:
    """A config's name that is HTML stays text on the page."""
    page = report_policies.page("<script>alert(1)</script>", ["a < b"], [])
    assert "<script>" not in page
    assert "a &lt; b" in page


def test_fills_are_told_as_the_broker_is_set(tmp_path: Path) -> None:
    """Latency, displayed size and assumed spreads change the paragraph on paper fills."""
    plain = comparing.compare(load(tmp_path / "a"))["fills"]["text"]
    broker = (
        '[broker]\nkind = "paper"\nlatency = "250ms"\nbeyond = "impact"\n[broker.spread]\nkind = "ticks"\nticks = 2\n'
    )
    told = comparing.compare(load(tmp_path / "b", tables=broker))["fills"]["text"]
    assert any("latency 0" in line for line in plain)
    assert any("with no queue" in line for line in plain)
    assert any("250ms after the decision" in line for line in told)
    assert any("Spreads are assumed" in line for line in told)
    assert any("impact model" in line for line in told)


def test_a_policy_table_is_told_in_a_line() -> None:
    """Keys with their values, lengths of time as text, a policy around another with the inner one in brackets."""
    from bot.app.config_lab import table_text  # noqa: PLC0415  one small function

    assert table_text(policy_of("fixed_interval", interval="15m")) == "fixed_interval: interval 15m"
    inner = {"kind": "delta_band", "half_width": 5}
    told = table_text(policy_of("pin_guard", within="1d", distance=1.0, inner=inner))
    assert "(delta_band: half_width 5, to edge)" in told
