"""The strategies' section of the report shows any strategy's figures and gauges, knows none, and escapes what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np

from bot.app.plots import Axis
from bot.app.report_material import Material
from bot.app.report_strategies import scales, strategies_section, worded
from bot.domain.units import NS_PER_DAY

NAN = float("nan")


def material(strategies: dict[str, Any], **columns: Any) -> Material:
    n = 5
    samples: dict[str, Any] = {"ts_ns": np.arange(n, dtype=np.int64) * NS_PER_DAY}
    samples |= {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    return Material(
        doc={"books": {"dynamic": {}, "other": {}}, "session": {}, "strategies": strategies},
        samples=samples,
        hedges=[],
        decisions=[],
        happenings=[],
        alarms=[],
        multipliers={},
        inverse=frozenset(),
        proxies=frozenset(),
        axis=Axis(0, (n - 1) * NS_PER_DAY),
        config_text="",
    )


def test_figures_stand_side_by_side_by_account_and_unknown_ones_are_dashes() -> None:
    """A row of each figure, a column for each account that has the table; text is escaped."""
    told = {
        "dynamic": {"mine": {"figures": {"Result": {"a": 1.5, "b": None, "c": "<b>"}}, "gauges": {}}},
        "other": {"mine": {"figures": {"Result": {"a": 2.0, "d": 3.0}}, "gauges": {}}},
    }
    page = strategies_section(material(told))
    assert "mine, in dynamic and other" in page
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert page.count("–") == 4  # b in both, c and a missing d
    assert "1.5" in page and ">2<" in page


def test_gauges_are_drawn_by_scale_and_those_never_known_are_left_out() -> None:
    """Two panels for money and shares; a gauge of NaN alone is not in the legend."""
    told = {"dynamic": {"mine": {"figures": {}, "gauges": {}}}}
    page = strategies_section(
        material(
            told,
            **{
                "dynamic/gauge/mine/value": [100, 90, 95, 80, 99],
                "dynamic/gauge/mine/floor": [80, 80, 81, 81, 82],
                "dynamic/gauge/mine/chance": [0.1, NAN, 0.2, 0.1, 0.3],
                "dynamic/gauge/mine/never": [NAN] * 5,
            },
        )
    )
    assert "mine: value went from 100 to 99, between 80 and 100" in page
    assert page.count("<svg") == 1
    assert "never" not in page


def test_scales_part_what_would_hide_what() -> None:
    """Within a factor of twenty-five together, else apart, the largest first."""
    found = scales({"small": np.array([0.1, NAN]), "big": np.array([100.0, 90.0]), "less": np.array([8.0, 1.0])})
    assert found == [["big", "less"], ["small"]]


def test_a_run_without_figures_says_so() -> None:
    """One sentence instead of tables."""
    assert "No strategy of this run says figures" in strategies_section(material({}))


def test_a_figure_of_any_size_is_readable() -> None:
    """Four digits that count below a hundred, two decimals above, whole numbers whole."""
    assert [worded(v) for v in (0.0, -3.0, 12.3456, 1e-9, 123456.789, float("inf"))] == [
        "0", "-3", "12.35", "0.000000001", "123,456.79", "–",
    ]  # fmt: skip
