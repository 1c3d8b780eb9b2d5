"""A kernel is a function that numba compiles; law: one explicit signature, the same bits on each run, never stale code.

Imports numba, so it is itself imported by kernels only. No fast-math flag is set: a contracted multiply-add would give
other bits on another processor, and an order must replay identically. Compiled code is kept in numba's cache beside the
source: after the first run on a host nothing is compiled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(signature: Any) -> Callable[[F], F]:
    """A decorator to machine code with one explicit signature, kept in numba's cache."""

    def compile_it(function: F) -> F:
        kernel = numba.njit(signature, cache=True, error_model="numpy")(with_edition(function))
        return cast("F", kernel)

    return compile_it


def compiled_free(signature: Any) -> Callable[[F], F]:
    """`compiled`, and the interpreter is let go while it runs, so that threads work side by side."""

    def compile_it(function: F) -> F:
        kernel = numba.njit(signature, cache=True, error_model="numpy", nogil=True)(with_edition(function))
        return cast("F", kernel)

    return compile_it


def inlined(function: F) -> F:
    """A helper that is compiled into its callers: a call would keep their loops from becoming vector code."""
    return cast("F", numba.njit(function, forceinline=True, error_model="numpy"))


def part(function: F) -> F:
    """A piece of a kernel: compiled with it and kept in its cache entry, a call away from it."""
    return cast("F", numba.njit(function, error_model="numpy"))


def with_edition(function: F) -> F:
    """The function under a name that ends in the edition of all source it is compiled from.

    numba looks for compiled code by that name, and by itself only watches the file of the function, not those of the
    helpers and constants that were compiled into it: after an upgrade it would run the old ones.
    """
    function.__qualname__ += "_" + edition(function.__module__)
    return function


@cache
def edition(module: str) -> str:
    """A digest of the source of a module and of every module of the project that it imports at its top."""
    digest = hashlib.sha256()
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        source = source_of(name)
        digest.update(source.encode())
        todo += sorted(IMPORTS.findall(source), reverse=True)
    return digest.hexdigest()[:16]


IMPORTS = re.compile(r"^from (bot\.[\w.]+) import", re.MULTILINE)


def source_of(module: str) -> str:
    """The text of a module, from a file or an archive; nothing where only its bytecode is shipped."""
    spec = find_spec(module)
    reader = getattr(spec and spec.loader, "get_source", None)
    return (reader(module) if reader else None) or ""


def without_dispatch(kernel: Any) -> Any:
    """A kernel of one signature as the bare compiled function, which converts its arguments to that signature itself.

    The dispatcher in front of it looks at the type of each argument to choose among signatures: 70 ns for six numbers.
    """
    (signature,) = kernel.signatures
    return kernel.overloads[signature].entry_point
