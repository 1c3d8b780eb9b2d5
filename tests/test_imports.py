"""An import costs what it must and no more; law: every module stands alone, and a light verb loads nothing heavy."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bot", "adapters", "strategies")
HEAVY = ("numba", "matplotlib", "pyarrow", "exchange_calendars", "pandas", "arch", "scipy")
ASYNC = ("asyncio",)

# Each module is imported in a fork of a fresh interpreter of its own. The libraries are there already, so that a fork takes
# milliseconds; nothing of ours is.
ALONE = """
import importlib, json, os, sys
for library in ("numpy", "scipy", "numba", "msgspec", "pydantic", "pydantic_settings", "typer", "rich", "pyarrow"):
    importlib.import_module(library)
faults = {}
for name in json.loads(sys.argv[1]):
    assert not any(m.split(".")[0] in ("bot", "adapters", "strategies") for m in sys.modules)
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        try:
            importlib.import_module(name)
        except BaseException as fault:
            os.write(write, f"{type(fault).__name__}: {fault}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    os.wait()
    if text:
        faults[name] = text
print(json.dumps(faults))
"""

LOADED = """
import contextlib, io, json, sys
from bot.app import cli
with contextlib.redirect_stdout(io.StringIO()):
    code = cli.run_verb(lambda: cli.app(json.loads(sys.argv[1]), standalone_mode=False))
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def modules() -> list[str]:
    found: list[str] = []
    for package in PACKAGES:
        found.append(package)
        found += [item.name for item in pkgutil.walk_packages([str(ROOT / package)], package + ".")]
    return found


def run_fresh(code: str, *words: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_module_imports_alone() -> None:
    """Every module can be the first of the project that is imported: no cycle needs another order."""
    names = modules()
    assert len(names) > 40
    assert run_fresh(ALONE, json.dumps(names)) == {}


@pytest.mark.parametrize("verb", ["version", "config schema", "config show config/synthetic.toml"])
def test_a_light_verb_loads_nothing_heavy(verb: str) -> None:
    """Verbs that only print load no compiler, plots, tables or calendars."""
    code, loaded = run_fresh(LOADED, json.dumps(verb.split()))
    assert code == 0
    assert not set(HEAVY) & set(loaded)


def test_the_front_door_loads_no_numbers() -> None:
    """Importing the command line alone loads neither numpy nor pydantic: a typo is answered at once."""
    loaded = run_fresh("import json, sys; import bot.app.cli; print(json.dumps(sorted(sys.modules)))")
    assert not {"numpy", "pydantic", *HEAVY} & set(loaded)


@pytest.mark.parametrize("floor", ["bot.domain", "bot.core", "bot.pricing", "strategies"])
def test_the_pure_floors_load_no_event_loop(floor: str) -> None:
    """Importing everything on a pure floor loads neither an event loop nor the configuration library."""
    names = [name for name in modules() if name.startswith(floor + ".")]
    assert names
    code = "import importlib, json, sys\nfor name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
    loaded = run_fresh(code + "print(json.dumps(sorted(sys.modules)))", json.dumps(names))
    assert not {*ASYNC, "pydantic", "typer", "aiomqtt"} & set(loaded)
