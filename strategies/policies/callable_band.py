"""Callable band: the user's own function, or a learned network, in the shape of a rule.

The function takes a `BandInput` (floats or arrays) and gives a `Band`, or (lo, hi), or (lo, hi, to): the next hedge is what
is held, clamped into it (Buehler, Gonon, Teichmann and Wood 2019, "Deep hedging"; Imaki et al. 2021, "No-transaction band
network"). Law: pure; the same input gives the same band.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from bot.core.ports import Band, BandInput
from bot.domain.units import Nanos, span
from strategies.policies.bands import length_of


class CallableBand:
    """A function as a policy. `function` is one, or where to import it from: "module:function".

    A config names the function, and must allow its module under [plugins]. With an `interval` it is asked at its beats
    only. An answer that is not a band (NaN, lo above hi, `to` outside, another shape) is refused with a ValueError.
    """

    needs_terms = True

    def __init__(self, *, function: str | Callable[[BandInput], Any], interval: str | Nanos | None = None) -> None:
        self._function = named_function(function) if isinstance(function, str) else function
        if not callable(self._function):
            raise ValueError(f"callable: function: expected a function, found {type(function).__name__}")
        self.interval: Nanos | None = None if interval is None else length_of("callable: interval", interval)
        self.needs_ticks = interval is None
        word = function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)
        self.name = f"callable {word}" + ("" if self.interval is None else f" every {span(self.interval)}")

    def band(self, x: BandInput) -> Band:
        """The function's own answer, checked. Shape: as `x.want`."""
        answer = self._function(x)
        if not isinstance(answer, tuple | list) or len(answer) not in {2, 3}:
            raise ValueError(f"{self.name}: expected a Band, (lo, hi) or (lo, hi, to), found {type(answer).__name__}")
        lo, hi, to = (*answer, None) if len(answer) == 2 else answer
        shape = np.shape(x.want)
        lo, hi, to = (None if v is None else _as_answer(v, shape, self.name) for v in (lo, hi, to))
        if lo is None or hi is None or not np.all(lo <= hi):  # also when either is NaN
            raise ValueError(f"{self.name}: expected lo <= hi, found {lo} and {hi}")
        if to is not None and not np.all((lo <= to) & (to <= hi)):
            raise ValueError(f"{self.name}: expected to within [{lo}, {hi}], found {to}")
        return Band(lo, hi, to)


def _as_answer(value: Any, shape: tuple[int, ...], name: str) -> Any:
    found = np.asarray(value, dtype=np.float64)
    if found.size == 1 and not shape:
        return float(found.reshape(()))
    if found.shape not in {shape, ()}:
        raise ValueError(f"{name}: expected the shape {shape} of the input, found {found.shape}")
    return np.broadcast_to(found, shape)


def named_function(text: str) -> Callable[[BandInput], Any]:
    """The function at "module:function"; ValueError when it is not written so, cannot be imported or is no function."""
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError(f"callable: function: expected 'module:function', found {text!r}")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as fault:
        raise ValueError(f"callable: function: {text!r}: {type(fault).__name__}: {fault}") from fault
    if not callable(found):
        raise ValueError(f"callable: function: {text!r}: expected a function, found {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # what it answers is checked at each call
