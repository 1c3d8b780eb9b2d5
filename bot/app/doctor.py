"""A doctor looks at the installation and says what is well; law: it changes nothing and reaches no network."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from bot import __version__
from bot.app.config import DATA_ROOT

LIBRARIES = ("numpy", "scipy", "numba", "msgspec", "pydantic", "structlog", "aiomqtt", "pyarrow", "matplotlib", "arch")


def examine() -> dict[str, Any]:
    """Checks by name, each with a state (good, warn, bad) and a sentence."""
    checks = [
        _check("python", _python),
        _check("libraries", _libraries),
        _check("kernels", _kernels),
        _check("data root", _data_root),
        _check("disk", _disk),
        _check("plugins", _plugins),
    ]
    return {"release": __version__, "checks": checks}


def _check(name: str, look: Callable[[], tuple[str, str]]) -> dict[str, str]:
    try:
        state, text = look()
    except Exception as fault:  # noqa: BLE001  a doctor reports whatever ails, by name
        state, text = "bad", f"{type(fault).__name__}: {fault}"
    return {"name": name, "state": state, "text": text}


def _python() -> tuple[str, str]:
    return "good", f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"


def _libraries() -> tuple[str, str]:
    return "good", ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)


def _kernels() -> tuple[str, str]:
    from bot.pricing import black  # noqa: PLC0415

    began = time.perf_counter()
    found = black.greeks_slice(100.0, 100.0, 1.0, 0.2)
    took = time.perf_counter() - began
    twin = black.bsm(100.0, 100.0, 1.0, 0.2)
    if abs(float(found.price) - float(twin.price)) > 1e-10:
        return "bad", "the compiled kernel disagrees with its readable twin"
    return "good", f"compiled kernels agree with their twin; first call {took:.2f} s"


def _data_root() -> tuple[str, str]:
    root = os.environ.get(DATA_ROOT)
    if not root:
        return "warn", f"{DATA_ROOT} is not set: recorded days cannot be found, the built-in sessions run without it"
    missing = [name for name in ("equity", "option", "future") if not (Path(root) / name).is_dir()]
    if missing:
        return "warn", f"{DATA_ROOT} names a folder without {', '.join(missing)}"
    return "good", f"{DATA_ROOT} has LEAN's folders"


def _disk() -> tuple[str, str]:
    free = shutil.disk_usage(Path.cwd()).free / 2**20
    return ("good" if free >= 500 else "warn"), f"{free:,.0f} MiB free here"


def _plugins() -> tuple[str, str]:
    from bot.app.plugins import list_plugins  # noqa: PLC0415

    found = list_plugins()
    broken = [item.name for item in found if item.status == "broken"]
    if broken:
        return "warn", f"broken: {', '.join(broken)}"
    return "good", f"{len(found)} registered, none broken"
