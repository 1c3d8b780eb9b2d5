"""A plug-in is a feed, broker, strategy, policy or source of vols found by its entry point; built-ins register in the same way.

Law: nothing is imported until it is asked for by group and name; what is not of this distribution is imported only when
the config allows it by name; one broken plug-in is reported and stops nothing but itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from bot.app.config_text import nearest
from bot.core.errors import PluginError

Group: TypeAlias = Literal["feeds", "brokers", "strategies", "policies", "vols"]
Status: TypeAlias = Literal["ready", "not allowed", "broken", "shadowed"]
GROUPS: Final[tuple[Group, ...]] = get_args(Group)
OWN: Final = "evenkeel"
"""The distribution whose entry points are the built-ins."""


class PluginInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One registered entry point: its name, who brings it, whether it can be used, and why not."""

    group: Group
    name: str
    distribution: str
    version: str
    target: str
    builtin: bool
    allowed: bool
    status: Status
    why: str = ""


class Found(msgspec.Struct, frozen=True):
    """An entry point and the distribution that registers it."""

    group: Group
    distribution: str
    version: str
    point: EntryPoint

    @property
    def builtin(self) -> bool:
        """True for what this distribution brings itself."""
        return _normal(self.distribution) == OWN


def discover(installed: Iterable[Distribution] | None = None) -> list[Found]:
    """Every entry point of the groups, sorted by group, name and distribution; nothing is imported.

    `installed` is all distributions on the path when None. A distribution seen twice (an editable install and a
    wheel, say) counts once, the first on the path. One whose metadata cannot be read is left out.
    """
    found: dict[tuple[str, str, str], Found] = {}
    for distribution in distributions() if installed is None else installed:
        name, version, points = _described(distribution)
        for point in points:
            group = point.group.removeprefix("evenkeel.")
            if point.group == f"evenkeel.{group}" and group in GROUPS:
                found.setdefault((group, point.name, _normal(name)), Found(group, name, version, point))
    return [found[key] for key in sorted(found)]


def _described(distribution: Distribution) -> tuple[str, str, list[EntryPoint]]:
    try:
        metadata = distribution.metadata
        return (metadata["Name"] or "", metadata["Version"] or "unknown", list(distribution.entry_points))
    except (OSError, ValueError, KeyError, TypeError):  # a half-removed package must not stop the others
        return ("", "", [])


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def list_plugins(allow: Collection[str] = (), installed: Iterable[Distribution] | None = None) -> list[PluginInfo]:
    """Every registered plug-in with its state; those that are allowed are imported to see whether they load."""
    found = discover(installed)
    return [_inspect(item, found, allow) for item in found]


def _inspect(item: Found, found: list[Found], allow: Collection[str]) -> PluginInfo:
    allowed = item.builtin or item.point.name in allow
    status: Status = "ready"
    why = ""
    if not allowed:
        status, why = "not allowed", f"add {item.point.name!r} to allow under [plugins] to use it"
    elif _rival(item, found) is not None:
        status, why = "shadowed", f"the same name is registered by {_rival(item, found)}"
    else:
        try:
            _import(item)
        except PluginError as fault:
            status, why = "broken", str(fault)
    return PluginInfo(
        group=item.group,
        name=item.point.name,
        distribution=item.distribution,
        version=item.version,
        target=item.point.value,
        builtin=item.builtin,
        allowed=allowed,
        status=status,
        why=why,
    )


def _rival(item: Found, found: list[Found]) -> str | None:
    """The distribution that keeps this one from being meant: the built-in of the name, or any other plug-in of it."""
    if item.builtin:
        return None
    same = [other for other in found if (other.group, other.point.name) == (item.group, item.point.name)]
    others = [other.distribution for other in same if other is not item]
    return ", ".join(others) if others else None


def load(group: Group, name: str, allow: Collection[str] = (), installed: Iterable[Distribution] | None = None) -> Any:
    """The factory registered under a name; PluginError when it is unknown, not allowed, ambiguous or broken.

    The built-in of a name always wins: a plug-in cannot take its place.
    """
    everything = discover(installed)
    found = [item for item in everything if item.group == group]
    same = [item for item in found if item.point.name == name]
    builtin = [item for item in same if item.builtin]
    if builtin:
        return _import(builtin[0])
    if not same:
        raise PluginError(_unknown(group, name, found, everything))
    if name not in allow:
        brought = ", ".join(f"{item.distribution} {item.version}" for item in same)
        raise PluginError(f"{group} {name!r} of {brought}: not allowed; add {name!r} to allow under [plugins]")
    if len(same) > 1:
        brought = ", ".join(item.distribution for item in same)
        raise PluginError(f"{group} {name!r}: expected one distribution to register it, found {brought}; remove one")
    return _import(same[0])


def _unknown(group: Group, name: str, found: list[Found], everything: list[Found]) -> str:
    names = sorted({item.point.name for item in found})
    close = nearest(name, names)
    elsewhere = sorted({item.group for item in everything if item.point.name == name})
    hint = f"; did you mean {close!r}?" if close else ""
    hint += f"; it is registered among {', '.join(elsewhere)}" if elsewhere else ""
    return f"{group} {name!r}: expected one of {', '.join(names) or 'none installed'}{hint}"


def _import(item: Found) -> Any:
    where = f"{item.group} {item.point.name!r} of {item.distribution} {item.version} ({item.point.value})"
    try:
        factory = item.point.load()
    except Exception as fault:  # a plug-in's module may raise anything: the message carries it
        raise PluginError(f"{where}: broken: {type(fault).__name__}: {fault}") from fault
    if not callable(factory):
        raise PluginError(f"{where}: broken: expected a class or function to call, found {type(factory).__name__}")
    return factory


def typed_options(factory: Any, options: dict[str, Any], where: str) -> Any:
    """The options as the factory wants them: its `Options` Struct when it has one, else the dict as it is.

    PluginError, naming key and expectation, when the Struct refuses them; a key it does not have is refused as well.
    """
    wanted = getattr(factory, "Options", None)
    if not (isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)):
        return options
    known = {field.encode_name for field in msgspec.structs.fields(wanted)}
    for key in options:
        if key not in known:
            close = nearest(key, known)
            raise PluginError(f"{where}: {key}: unknown option" + (f"; did you mean {close!r}?" if close else ""))
    try:
        return msgspec.convert(options, wanted, strict=False)
    except msgspec.ValidationError as fault:
        raise PluginError(f"{where}: {fault}") from fault
