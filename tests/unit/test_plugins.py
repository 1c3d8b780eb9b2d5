"""Plug-ins: found without import, loaded by name when allowed, one broken one reported and no more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot.app.plugins import GROUPS, discover, list_plugins, load, typed_options
from bot.core.errors import PluginError


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder of packages on the import path, gone again afterwards."""
    sys.path.insert(0, str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in set(sys.modules) - known:
        del sys.modules[name]


def package(site: Path, name: str, points: dict[str, dict[str, str]], code: str = "") -> Distribution:
    """An installed distribution with one module of its own name and these entry points."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(code)
    info = site / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return PathDistribution(info)


def test_every_built_in_is_registered_as_a_plug_in_is() -> None:
    """The built-ins of all four groups are found through entry points of this distribution and need no permission."""
    built_in = {(item.group, item.point.name) for item in discover() if item.builtin}
    assert {group for group, _ in built_in} == set(GROUPS)
    assert {
        ("feeds", "replay"),
        ("feeds", "synthetic"),
        ("feeds", "dataset"),
        ("brokers", "paper"),
        ("strategies", "delta_hedger"),
        ("policies", "none"),
        ("policies", "static"),
        ("policies", "fixed_interval"),
        ("policies", "delta_band"),
    } <= built_in
    assert load("policies", "delta_band")(half_width=1.0, to="edge").half_width == 1.0


def test_nothing_is_imported_before_it_is_asked_for(site: Path) -> None:
    """Finding and listing leave a plug-in that is not allowed unimported; loading it imports it."""
    installed = [package(site, "venue-a", {"evenkeel.brokers": {"a": "venue_a:Venue"}}, "class Venue: pass")]
    assert [item.point.name for item in discover(installed)] == ["a"]
    (info,) = list_plugins(installed=installed)
    assert (info.status, info.allowed, info.distribution, info.version) == ("not allowed", False, "venue-a", "1.2")
    assert "venue_a" not in sys.modules
    assert load("brokers", "a", ["a"], installed).__name__ == "Venue"
    assert "venue_a" in sys.modules


def test_what_is_not_allowed_is_refused_by_name(site: Path) -> None:
    """A plug-in the config does not name is refused with its distribution and what to write, and is not imported."""
    installed = [package(site, "venue-b", {"evenkeel.brokers": {"b": "venue_b:Venue"}}, "raise SystemExit")]
    with pytest.raises(PluginError, match=r"brokers 'b' of venue-b 1\.2: not allowed; add 'b' to allow"):
        load("brokers", "b", ["c"], installed)
    assert "venue_b" not in sys.modules


@pytest.mark.parametrize(
    ("code", "target", "why"),
    [
        ("import nothing_of_that_name", "Venue", "ModuleNotFoundError"),
        ("1 / 0", "Venue", "ZeroDivisionError"),
        ("x = (", "Venue", "SyntaxError"),
        ("", "Venue", "AttributeError"),
        ("Venue = 3", "Venue", "expected a class or function to call, found int"),
    ],
)
def test_one_broken_plug_in_stops_only_itself(site: Path, code: str, target: str, why: str) -> None:
    """Whatever a plug-in's module does on import is reported with its cause, and its neighbours stay ready."""
    installed = [
        package(site, "broken-one", {"evenkeel.feeds": {"bad": f"broken_one:{target}"}}, code),
        package(site, "good-one", {"evenkeel.feeds": {"good": "good_one:make"}}, "def make(options, *, wanted): ..."),
    ]
    bad, good = list_plugins(["bad", "good"], installed)
    assert (bad.status, good.status) == ("broken", "ready")
    assert why in bad.why
    with pytest.raises(PluginError, match=r"feeds 'bad' of broken-one 1\.2"):
        load("feeds", "bad", ["bad"], installed)
    assert callable(load("feeds", "good", ["good"], installed))


def test_a_distribution_that_cannot_be_read_is_left_out(site: Path) -> None:
    """A half-removed package without metadata does not keep the others from being found."""
    (site / "gone-1.dist-info").mkdir()
    (site / "gone-1.dist-info" / "entry_points.txt").write_text("[evenkeel.feeds]\nx = gone:X\n")
    good = package(site, "kept", {"evenkeel.feeds": {"kept": "kept:Feed"}}, "class Feed: pass")
    assert "kept" in [item.point.name for item in discover([PathDistribution(site / "gone-1.dist-info"), good])]


def test_a_built_in_cannot_be_replaced(site: Path) -> None:
    """A plug-in that takes a built-in's name is shown as shadowed and the built-in is loaded."""
    own = package(site, "evenkeel", {"evenkeel.brokers": {"paper": "evenkeel:Paper"}}, "class Paper: own = True")
    other = package(site, "thief", {"evenkeel.brokers": {"paper": "thief:Paper"}}, "class Paper: own = False")
    assert load("brokers", "paper", ["paper"], [other, own]).own is True
    assert {(i.distribution, i.status) for i in list_plugins(["paper"], [other, own])} == {
        ("evenkeel", "ready"),
        ("thief", "shadowed"),
    }


def test_one_name_of_two_distributions_is_refused(site: Path) -> None:
    """Two plug-ins of one name are ambiguous: both distributions are named and neither is loaded."""
    installed = [
        package(site, name, {"evenkeel.feeds": {"same": f"{name}:Feed"}}, "class Feed: pass") for name in ("one", "two")
    ]
    with pytest.raises(PluginError, match="expected one distribution to register it, found one, two"):
        load("feeds", "same", ["same"], installed)
    assert {item.status for item in list_plugins(["same"], installed)} == {"shadowed"}


def test_an_editable_install_beside_a_wheel_counts_once(site: Path) -> None:
    """A distribution that is on the path twice is found once."""
    twice = package(site, "double", {"evenkeel.feeds": {"d": "double:Feed"}}, "class Feed: pass")
    assert len(discover([twice, twice])) == 1


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    """An unknown kind lists those installed, the nearest of them, and the group it belongs to if it is another's."""
    with pytest.raises(PluginError, match=r"feeds 'replya': expected one of .*replay.*; did you mean 'replay'"):
        load("feeds", "replya", ["replya"])
    with pytest.raises(PluginError, match=r"brokers 'replay': .*; it is registered among feeds"):
        load("brokers", "replay")
    with pytest.raises(PluginError, match="expected one of none installed"):
        load("brokers", "x", installed=[])


class Typed(msgspec.Struct, frozen=True):
    """Options of a typed plug-in."""

    delay: int = 0
    file: str = ""


class TypedVenue:
    """A factory that says what its options are."""

    Options = Typed


def test_options_are_given_as_the_factory_wants_them() -> None:
    """A factory with an Options Struct gets it, refusing unknown and ill-typed keys by name; another gets the dict."""
    options: dict[str, Any] = {"delay": 5}
    assert typed_options(TypedVenue, options, "broker") == Typed(delay=5)
    assert typed_options(lambda options: options, options, "broker") is options
    with pytest.raises(PluginError, match="broker: dealy: unknown option; did you mean 'delay'"):
        typed_options(TypedVenue, {"dealy": 5}, "broker")
    with pytest.raises(PluginError, match=r"broker: Expected `int`.*\$\.delay"):
        typed_options(TypedVenue, {"delay": "soon"}, "broker")
