"""A plain call is one with Python numbers, answered by a named tuple; law: what is no number is refused, not converted.

Types for the compiler, by which a compiled function tells numbers from arrays and makes its result itself: in Python, to look
at six classes and to make a named tuple of numpy scalars take as long as an implied vol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import numba
import numpy as np
from llvmlite import ir as llvm
from numba import extending
from numba.core import cgutils as code_generation

# none of these has types
types: Final[Any] = numba.types
ext: Final[Any] = extending
ir: Final[Any] = llvm
cgutils: Final[Any] = code_generation

_I32: Final = ir.IntType(32)
_DOUBLE: Final = ir.DoubleType()
_NAN: Final = _DOUBLE(float("nan"))


class Number(types.Type):  # type: ignore[misc]  # the compiler has no types
    """A float, a numpy float64 (which is one), or an int that a float can hold; no array, list, bool or other number."""

    def __init__(self) -> None:
        super().__init__(name="plain_calls.Number")


class Borrowed(types.Opaque):  # type: ignore[misc]  # the compiler has no types
    """A Python object that the caller holds on to for as long as the call lasts."""

    def __init__(self) -> None:
        super().__init__(name="plain_calls.Borrowed")


class Answer(types.Type):  # type: ignore[misc]  # the compiler has no types
    """A number and what its named tuple is made of: the tuple's class, the number's class, the codes."""

    def __init__(self) -> None:
        super().__init__(name="plain_calls.Answer")


NUMBER: Final = Number()
BORROWED: Final = Borrowed()
ANSWER: Final = Answer()


class NumberModel(ext.models.PrimitiveModel):  # type: ignore[misc]  # the compiler has no types
    """A `Number` is a double."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _DOUBLE)


class AnswerModel(ext.models.StructModel):  # type: ignore[misc]  # the compiler has no types
    """An `Answer` is its parts."""

    def __init__(self, manager: Any, kind: Any) -> None:
        parts = [("value", types.float64), ("result", BORROWED), ("scalar", BORROWED), ("codes", BORROWED)]
        super().__init__(manager, kind, parts)


ext.register_model(Number)(NumberModel)
ext.register_model(Borrowed)(ext.models.OpaqueModel)
ext.register_model(Answer)(AnswerModel)


def layout_is_known() -> bool:
    """Whether objects lie in memory as is assumed here: a count of references, a class, then a float's or a tuple's own.

    So they do in CPython with its lock. Where they do not, a plain call must not be compiled by these types.
    """
    word = object.__basicsize__ // 2
    floats = {float.__basicsize__, np.float64.__basicsize__}
    return word == 8 and floats == {24} and (tuple.__basicsize__, tuple.__itemsize__) == (24, 8)


def _class_and_value(builder: Any, api: Any, obj: Any) -> tuple[Any, Any]:
    """The class of an object, and where a float's value stands: a float is a count of references, a class, a double."""
    parts = ir.LiteralStructType([api.py_ssize_t, api.pyobj, _DOUBLE])
    start = builder.bitcast(obj, parts.as_pointer())
    return builder.load(builder.gep(start, [_I32(0), _I32(1)])), builder.gep(start, [_I32(0), _I32(2)])


def _c_function(api: Any, name: str, result: Any, *arguments: Any) -> Any:
    """A function of Python's C interface by its name."""
    return api._get_function(ir.FunctionType(result, arguments), name=name)


def _value_of(_kind: Any, obj: Any, c: Any) -> Any:
    """The double of a Python number; TypeError for anything else, an array of one number too."""
    builder, api = c.builder, c.pyapi
    of, at = _class_and_value(builder, api, obj)
    the_float = api.get_c_object("PyFloat_Type")
    is_float = cgutils.alloca_once_value(builder, builder.icmp_unsigned("==", of, the_float))
    with builder.if_then(builder.not_(builder.load(is_float)), likely=False):
        is_subtype = _c_function(api, "PyType_IsSubtype", _I32, api.pyobj, api.pyobj)
        builder.store(builder.icmp_signed("!=", builder.call(is_subtype, [of, the_float]), _I32(0)), is_float)
    value = cgutils.alloca_once_value(builder, _DOUBLE(0.0))
    failed = cgutils.alloca_once_value(builder, cgutils.false_bit)
    with builder.if_else(builder.load(is_float), likely=True) as (then, otherwise):
        with then:
            builder.store(builder.load(at), value)
        with otherwise:
            is_int = builder.icmp_unsigned("==", of, api.get_c_object("PyLong_Type"))
            with builder.if_else(is_int) as (whole, other):
                with whole:
                    builder.store(api.float_as_double(obj), value)
                    builder.store(api.c_api_error(), failed)  # an int may be too large
                with other:
                    api.err_set_string("PyExc_TypeError", "expected a number, found another object")
                    builder.store(cgutils.true_bit, failed)
    return ext.NativeValue(builder.load(value), is_error=builder.load(failed))


def _as_it_is(_kind: Any, obj: Any, _c: Any) -> Any:
    return ext.NativeValue(obj)


def _named_tuple(kind: Any, value: Any, c: Any) -> Any:
    """result((scalar(value), codes[0])), or where value is -k result((scalar(nan), codes[k])).

    New objects are allocated as their classes do it and filled before anyone sees them: a named tuple is a tuple, and a
    numpy float64 a float, in memory too.
    """
    builder, api = c.builder, c.pyapi
    made = cgutils.create_struct_proxy(kind)(c.context, builder, value=value)
    good = builder.fcmp_ordered(">=", made.value, _DOUBLE(0.0))
    index = builder.select(good, api.py_ssize_t(0), builder.fptosi(builder.fneg(made.value), api.py_ssize_t))
    allocate = _c_function(api, "PyType_GenericAlloc", api.pyobj, api.pyobj, api.py_ssize_t)
    get_item = _c_function(api, "PyTuple_GetItem", api.pyobj, api.pyobj, api.py_ssize_t)
    set_item = _c_function(api, "PyTuple_SetItem", _I32, api.pyobj, api.py_ssize_t, api.pyobj)
    code = builder.call(get_item, [made.codes, index])
    api.incref(code)
    scalar = builder.call(allocate, [made.scalar, api.py_ssize_t(0)])
    _, at = _class_and_value(builder, api, scalar)
    builder.store(builder.select(good, made.value, _NAN), at)
    named = builder.call(allocate, [made.result, api.py_ssize_t(2)])
    builder.call(set_item, [named, api.py_ssize_t(0), scalar])
    builder.call(set_item, [named, api.py_ssize_t(1), code])
    return named


def _double(_context: Any, number: Any) -> Any:
    """The float64 of a `Number`."""

    def code(_context: Any, _builder: Any, _signature: Any, arguments: Any) -> Any:
        return arguments[0]

    return types.float64(number), code


def _answer(_context: Any, value: Any, result: Any, scalar: Any, codes: Any) -> Any:
    """The `Answer` of a value >= 0, or of minus a code."""

    def code(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        made = cgutils.create_struct_proxy(ANSWER)(context, builder)
        made.value, made.result, made.scalar, made.codes = arguments
        return made._getvalue()

    return ANSWER(value, result, scalar, codes), code


ext.unbox(Number)(_value_of)
ext.unbox(Borrowed)(_as_it_is)
ext.box(Answer)(_named_tuple)
double = cast("Callable[[Any], float]", ext.intrinsic(_double))
answer = cast("Callable[[float, Any, Any, Any], Any]", ext.intrinsic(_answer))
