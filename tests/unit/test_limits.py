"""Limits have ceilings in the code, come down at a word and never go up; buckets give back with event time alone."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.app.config import example_path, load_config
from bot.app.config_gate import Limits
from bot.app.wiring import limit_settings
from bot.core.errors import ConfigError
from bot.domain.units import NS_PER_DAY, NS_PER_SECOND
from bot.engine.gate import GateSettings
from bot.engine.kill import Rung
from bot.engine.limits import CEILINGS, LARGER_IS_TIGHTER, Bucket, LimitSettings, UnderlyingLimits, tightened
from tests.simulation.bench import Bench, Script
from tests.unit.test_engine_desk import codes, order, view

D = Decimal


@pytest.mark.parametrize("name", sorted(CEILINGS))
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e30])
def test_no_number_passes_its_ceiling(name: str, value: float) -> None:
    """Past the ceiling, below zero or not finite, a bound is refused by name."""
    with pytest.raises(ValueError, match=name):
        LimitSettings(**{name: value})


def test_every_number_of_the_settings_has_a_ceiling() -> None:
    """A bound added without a ceiling is found here."""
    plain = {"restricted", "stress_spots", "stress_vols", "by_underlying", "self_cross", "day_begins"}
    rungs = {name for name in LimitSettings.__struct_fields__ if name.startswith("on_")}
    assert set(LimitSettings.__struct_fields__) - plain - rungs == set(CEILINGS)


@pytest.mark.parametrize("shocks", [(), (-1.0,), (float("nan"),), (11.0,)])
def test_shocks_keep_prices_above_zero(shocks: tuple[float, ...]) -> None:
    """A grid without shocks, or with one that wipes the price out, is refused."""
    with pytest.raises(ValueError, match="stress_spots"):
        LimitSettings(stress_spots=shocks)


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        ("max_position=4", "max_position", D(4)),
        (" max_order_quantity = 2.5 ", "max_order_quantity", D("2.5")),
        ("max_delta=10", "max_delta", 10.0),
        ("max_open_orders=0", "max_open_orders", 0),
        ("cool_down=120000000000", "cool_down", 120 * NS_PER_SECOND),
        ("restricted=US:X", "restricted", ("US:X",)),
        ("daily_loss=1", "daily_loss", D(1)),
    ],
)
def test_a_bound_comes_down_at_a_word(words: str, name: str, expected: Any) -> None:
    """Each sort of bound is read in its own type."""
    assert getattr(tightened(LimitSettings(max_position=D(9)), words), name) == expected


@pytest.mark.parametrize(
    "words",
    [
        "max_position=10", "max_position=nan", "max_position=-1", "max_position", "=4", "nonsense=1", "max_open_orders=1.5",
        "cool_down=1", "max_order_quantity@US:X=3", "max_delta@US:UND=60", "max_delta@US:OTHER=51", "max_delta=1e99",
        "self_cross=0", "stress_spots=0", "max_position=four", "",
    ],
)  # fmt: skip
def test_what_is_wider_or_unreadable_is_refused(words: str) -> None:
    """A wider bound, a name that is none and a value that is no number raise, and say what was expected."""
    settings = LimitSettings(
        max_position=D(9), max_delta=50.0, by_underlying={"US:UND": UnderlyingLimits(max_delta=40.0)}
    )
    with pytest.raises(ValueError, match=r"expected|limits:"):
        tightened(settings, words)


def test_a_common_bound_takes_those_of_underlyings_down_with_it() -> None:
    """After `max_delta=30` no underlying keeps 40; one at 20 stays there."""
    settings = LimitSettings(
        max_delta=50.0,
        by_underlying={"A": UnderlyingLimits(max_delta=40.0), "B": UnderlyingLimits(max_delta=20.0, max_vega=5.0)},
    )
    after = tightened(settings, "max_delta=30")
    assert [after.of("max_delta", key) for key in "ABC"] == [30.0, 20.0, 30.0]
    assert after.of("max_vega", "B") == 5.0
    assert tightened(after, "max_delta@C=3").of("max_delta", "C") == 3.0


_BOUNDS = st.sampled_from(sorted(CEILINGS))


@given(_BOUNDS, st.integers(0, 1000), st.integers(0, 1000))
def test_tightening_never_widens(name: str, now: int, then: int) -> None:
    """Whatever is asked for, the bound after is no wider than before, or the word was refused."""
    before = min(now, CEILINGS[name])
    settings = LimitSettings(**{name: D(int(before)) if name in {"max_position"} else int(before)})
    try:
        after = tightened(settings, f"{name}={then}")
    except ValueError:
        return
    found = getattr(after, name)
    assert found >= before if name in LARGER_IS_TIGHTER else found <= before


@given(
    st.integers(1, 50),
    st.integers(1, 9),
    st.lists(st.integers(0, 400_000_000), max_size=60),
)
def test_a_bucket_is_exact_to_a_hair(rate: int, burst: int, gaps: list[int]) -> None:
    """Over any instants it lets out what exact fractions would, and never more than the burst and the rate allow."""
    bucket, tokens, now, last = Bucket(rate, burst), Fraction(burst), 0, 0
    taken: list[int] = []
    for gap in gaps:
        now += gap
        tokens = min(Fraction(burst), tokens + Fraction(rate * (now - last), NS_PER_SECOND))
        last = now
        expected = tokens >= 1
        if abs(tokens - 1) < Fraction(1, 10**6):
            return  # at the edge itself floats may say either
        assert bucket.has(now) == expected
        assert bucket.is_full_enough() <= expected
        assert bucket.take(now) == expected
        if expected:
            tokens -= 1
            taken.append(now)
    for i, first in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= burst + rate * (taken[j] - first) / NS_PER_SECOND + 1e-6


def test_time_that_goes_back_gives_nothing_back() -> None:
    """An instant earlier than the last brings no token."""
    bucket = Bucket(1, 1)
    assert bucket.take(5 * NS_PER_SECOND)
    assert not bucket.take(0)
    assert not bucket.take(5 * NS_PER_SECOND)
    assert bucket.take(6 * NS_PER_SECOND)


@pytest.mark.parametrize(
    ("low", "high", "quantity", "passes"),
    [(0, 5, 3, True), (0, 6, 3, False), (-8, 8, -1, False), (-8, 8, 1, False), (9, 12, -4, True), (9, 12, 1, False)],
)
def test_the_position_limit_counts_the_worst_case_of_open_orders(
    low: int, high: int, quantity: int, passes: bool
) -> None:
    """Purchases are held to what all open purchases would make, sales to what all open sales would."""
    seen = view(held=D(low + high), low=D(low), high=D(high))
    assert (codes(LimitSettings(max_position=D(8)), order(quantity), seen) == []) == passes


def test_an_order_reduces_only_if_it_does_in_every_case() -> None:
    """Long 10 with a sale of 8 open: selling 2 reduces, selling 3 might go short and is held to the size limit."""
    tight = LimitSettings(max_order_quantity=D(1))
    seen = view(held=D(2), low=D(2), high=D(10))
    assert codes(tight, order(-2), seen) == []
    assert codes(tight, order(-3), seen) == ["order_quantity"]


def test_the_collar_holds_limits_to_a_fresh_price_and_market_orders_to_the_quote_they_cross() -> None:
    """A limit against an old price is refused, and so is a market order into a quote far from its middle."""
    collar = LimitSettings(price_collar=0.05, reference_max_age=10)
    assert codes(collar, order(limit="100"), view(quote_age_ns=10)) == []
    assert codes(collar, order(limit="100"), view(quote_age_ns=11)) == ["price_collar"]
    assert codes(collar, order(limit="100"), view(quote_age_ns=None)) == ["price_collar"]
    assert codes(collar, order(), view(touch=105.0)) == []
    assert codes(collar, order(), view(touch=105.1)) == ["price_collar"]
    assert codes(collar, order(-5), view(touch=94.9)) == ["price_collar"]


def test_a_bound_of_one_underlying_goes_before_the_common_one() -> None:
    """The position of an instrument is held to its underlying's own bound."""
    settings = LimitSettings(max_position=D(3), by_underlying={"US:UND": UnderlyingLimits(max_position=D(8))})
    assert codes(settings, order(8), view()) == []
    assert codes(settings, order(9), view()) == ["position"]
    assert msgspec.structs.replace(settings, max_position=None).any_of("max_position")


EVERYTHING = LimitSettings(
    **{name: 1 for name in CEILINGS if name not in {"reference_max_age", "max_position", "price_collar"}},
    max_position=D(1),
    price_collar=0.5,
)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "limits.md"


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the limits page."""
    text = PAGE.read_text(encoding="utf-8").split(heading, 1)[1]
    table = re.search(r"(?m)^\|.*\n\|[-|]+\n((?:\|.*\n)+)", text)
    assert table is not None
    return [[cell.strip() for cell in row.replace(r"\|", "/").strip("|").split("|")] for row in table[1].splitlines()]


def test_the_page_names_every_limit_with_its_code_default_and_ceiling() -> None:
    """The table of the page is the code's: keys of the config, codes of the gate, ceilings to the digit."""
    gate = Bench([Script()], gate=GateSettings(limits=EVERYTHING)).account.gate
    codes_known = {code for code, _ in [*gate.checks, *gate.stateful]} | {"cancel_rate"}
    defaults = Limits()
    seen = set()
    for key, code, default, ceiling, _ in rows_of("## Every limit"):
        name = key.strip("`")
        seen.add(name)
        found = getattr(defaults, name)
        expected = {"none": None, "empty": (), "on": True, "1m": 60 * NS_PER_SECOND}[default]
        assert found == expected, name
        if ceiling:
            written = NS_PER_DAY if ceiling == "1d" else float(ceiling)
            assert CEILINGS[name] == written, name
        if code.startswith("pulls"):
            assert code.removeprefix("pulls ").strip("`") in Limits.model_fields
        else:
            codes_known.discard(code.strip("`"))
    assert codes_known == {"frozen"}
    told_elsewhere = {name for name in CEILINGS if f"`{name}`" in PAGE.read_text(encoding="utf-8")}
    assert set(CEILINGS) <= seen | told_elsewhere


def test_the_page_tells_every_rung_and_verb() -> None:
    """Rungs are listed by number and name, and every verb a person may use is in a table."""
    rungs = [(row[0], row[1].strip("`")) for row in rows_of("## The kill ladder")]
    assert rungs == [(str(rung.value), rung.word) for rung in Rung]
    verbs = {verb for row in rows_of("## Words while it runs") for verb in re.findall(r"`(\w+)`", row[0])}
    assert verbs == {"kill", "clear", "halt", "resume", "tighten", "enable", "approve", "decline", "drill"}


def test_the_shipped_example_sets_every_limit() -> None:
    """Each key of the limits table stands in the example, and the run's gate asks every check there is."""
    config = load_config(example_path("limits"), {})
    settings = limit_settings(config)
    left_out = {name for name in CEILINGS if getattr(settings, name) is None}
    assert left_out == {"cancel_burst"}
    gate = Bench([Script()], gate=GateSettings(limits=settings)).account.gate
    assert len(gate.checks) + len(gate.stateful) == 18


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("max_order_quantity = 1e10", "max_order_quantity"),
        ("stale_after = '2d'", "stale_after"),
        ("orders_per_second = 0", "orders_per_second"),
        ("stress_spots = [-1]", "stress_spots"),
        ("on_rejects = 'panic'", "on_rejects"),
        ("day_begins = '25:00'", "day_begins"),
        ("[[limits.underlyings]]\nunderlying = 'SPY'", "underlyings"),
        (
            "[[limits.underlyings]]\nunderlying = 'SPY'\nmax_delta = 1\n" * 2,
            "SPY",
        ),
        ("[mode]\nstage = 'off'", "stage"),
        ("[mode]\nsize_fraction = 2", "size_fraction"),
    ],
)
def test_a_config_past_a_ceiling_or_without_sense_is_refused(lines: str, words: str, tmp_path: Path) -> None:
    """The fault names the key."""
    text = example_path("synthetic").read_text(encoding="utf-8")
    file = tmp_path / "x.toml"
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "synthetic.csv").write_bytes(
        (example_path("synthetic").parent / "books" / "synthetic.csv").read_bytes()
    )
    file.write_text(text.split("[limits]")[0] + "[limits]\n" + lines + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_config(file, {})
