"""The functions of elufast inside functions that Numba compiles. Nothing needs to be imported for it.

Numba finds `_init` by the package's entry point. Contiguous arrays go to the compiled kernel of the level
chosen at import, others to the same kernel element by element, so the bits are those of a call from Python.
A call runs in the thread that makes it: share out with ``numba.prange``.

>>> import numba
>>> @numba.njit
... def rectified_energy(x):
...     return (elufast.selu(x) ** 2).sum()
>>> round(rectified_energy(np.array([-1.0, 0.0, 1.0])), 6)
2.339029
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import get_cython_function_address, intrinsic, overload, register_jitable

import elufast
from elufast import _dispatch

_FAMILIES = ("elu", "selu", "celu")  # elu_family_t
_CELU = 2
_FORWARD, _BACKWARD, _FROM_OUTPUT = range(3)  # elu_mode_t
_SUPPORTED = (types.float32, types.float64)

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

# By name, not by address: what Numba caches on disk is linked anew in each process.
for _number, _dtype in enumerate(_SUPPORTED):
    _run_address = get_cython_function_address("elufast._capi", f"__pyx_fuse_{_number}run")
    llvmlite.binding.add_symbol(f"elufast_run_{_dtype}", _run_address)
    llvmlite.binding.add_symbol(f"elufast_scalar_{_dtype}", _pointer(_dispatch.loops.scalars[_number], None))


def _emit(builder: Any, name: str, result: Any, values: list[Any]) -> Any:
    signature = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), values)


@intrinsic
def _scalar(typing: Any, family: Any, mode: Any, grad: Any, x: Any, alpha: Any) -> Any:
    """One number."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _emit(builder, f"elufast_scalar_{x}", context.get_value_type(x), values)

    return x(types.int32, types.int32, x, x, types.float64), generate


@intrinsic
def _run(typing: Any, family: Any, mode: Any, grad: Any, x: Any, out: Any, alpha: Any) -> Any:
    """Arrays of one layout, without gaps. What _capi.run would raise for has been checked."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        family, mode, *operands, alpha = values
        arrays = [
            context.make_array(array)(context, builder, value)
            for array, value in zip((grad, x, out), operands, strict=True)
        ]
        pointers = [array.data for array in arrays]
        n = arrays[1].nitems
        _emit(builder, f"elufast_run_{x.dtype}", ir.IntType(32), [family, mode, *pointers, n, alpha])
        return context.get_dummy_value()

    return types.none(types.int32, types.int32, grad, x, out, types.float64), generate


@register_jitable(forceinline=True)
def _one_by_scalar(family: int, mode: int, grad: Any, x: Any, out: Any, alpha: float) -> None:
    for index in np.ndindex(x.shape):
        out[index] = _scalar(family, mode, grad[index], x[index], alpha)


@register_jitable(forceinline=True)
def _run_aligned(family: int, mode: int, grad: Any, x: Any, out: Any, alpha: float) -> None:
    """Numba takes every array for aligned, whatever its flags; C must not."""
    if (_address(grad) | _address(x) | _address(out)) % x.itemsize:
        _one_by_scalar(family, mode, grad, x, out, alpha)
    else:
        _run(family, mode, grad, x, out, alpha)


def _overload(function: Callable[..., Any], template: Callable[..., Any]) -> None:
    template.__annotations__ = {}  # Numba takes them for a part of the signature, which a lambda lacks
    overload(function, jit_options={"forceinline": True}, target="cpu")(template)


def _fill(family: int, mode: int, grad: Any, x: Any, out: Any, alpha: float) -> None:
    raise NotImplementedError("compiled only")


def _fill_compiled(family: Any, mode: Any, grad: Any, x: Any, out: Any, alpha: Any) -> Callable[..., None]:
    arrays = (grad, x, out)
    if x.layout in "CF" and all(array.layout == x.layout for array in arrays):
        return lambda family, mode, grad, x, out, alpha: _run_aligned(family, mode, grad, x, out, alpha)
    return lambda family, mode, grad, x, out, alpha: _one_by_scalar(family, mode, grad, x, out, alpha)


_overload(_fill, _fill_compiled)


@register_jitable(forceinline=True)
def _mode(family: int, alpha: float, backward: bool, from_output: bool) -> int:
    """The elu_mode_t, once alpha is known to fit."""
    if not np.isfinite(alpha):
        raise ValueError("elufast: alpha must be finite; pass a finite number")
    if family == _CELU and alpha == 0:
        raise ValueError("elufast: alpha must not be 0; CELU divides x by alpha")
    if from_output and alpha <= 0:
        raise ValueError("elufast: from_output=True needs alpha > 0; pass the input instead of the output")
    return (_FROM_OUTPUT if from_output else _BACKWARD) if backward else _FORWARD


@intrinsic
def _address(typing: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(array)(context, builder, values[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.intp))

    return types.intp(array), generate


@register_jitable(forceinline=True)
def _ends(array: Any) -> tuple[int, int]:
    """The first byte of an array, and the one behind its last."""
    low = high = _address(array)
    for axis in range(array.ndim):
        step = array.strides[axis] * (array.shape[axis] - 1)
        low, high = min(low, low + step), max(high, high + step)
    return low, high + array.itemsize


@register_jitable(forceinline=True)
def _clash(a: Any, out: Any) -> bool:
    """Whether a and out may share memory and are not the same elements."""
    first, behind = _ends(a)
    out_first, out_behind = _ends(out)
    same = _address(a) == _address(out) and a.strides == out.strides
    return not same and first < out_behind and out_first < behind


@register_jitable
def _fill_from_copies(family: int, mode: int, grad: Any, x: Any, out: Any, alpha: float) -> None:
    _fill(family, mode, grad.copy(), x.copy(), out, alpha)


@register_jitable(forceinline=True)
def _check_shapes(x: Any, other: Any) -> None:
    if x.shape != other.shape:
        raise ValueError("elufast: the arrays differ in shape; nothing is broadcast: pass np.broadcast_to(...)")


def _given(value: Any) -> bool:
    return not (value is None or isinstance(value, types.NoneType | types.Omitted))


def _operand(name: str, argument: str, value: Any) -> Any:
    """The Numba type of an argument, if it is a float or an array of floats."""
    value = types.unliteral(value)
    dtype = value.dtype if isinstance(value, types.Array) else value
    if dtype in _SUPPORTED:
        return value
    if isinstance(value, types.Array):
        hint = f"pass {argument}.astype(np.float32) or {argument}.astype(np.float64)"
    elif isinstance(value, types.Number | types.Boolean):
        hint = f"pass np.float64({argument})"
    else:
        hint = f"pass an array, np.array({argument}, np.float64)"
    raise TypingError(f"{name}: {argument} has type {value}, not float32, float64 or an array of these; {hint}")


def _same(name: str, a: str, x: Any, b: str, y: Any) -> None:
    """Refuse two operands unless they have one dtype and number of dimensions."""
    if isinstance(x, types.Array) != isinstance(y, types.Array) or getattr(x, "ndim", 0) != getattr(y, "ndim", 0):
        raise TypingError(f"{name}: {a} is {x} and {b} is {y}; they must have one shape: nothing is broadcast")
    if getattr(x, "dtype", x) != getattr(y, "dtype", y):
        raise TypingError(f"{name}: {a} is {x} and {b} is {y}; they must have one dtype: nothing is cast")


def _compiled(
    family: int, suffix: str, grad: Any, x: Any, alpha: Any, out: Any, num_threads: Any
) -> Callable[[Any, Any, float, bool, Any], Any]:
    """What computes arguments of these types: a function of (grad, x, alpha, from_output, out)."""
    name, backward = _FAMILIES[family] + suffix, suffix == "_backward"
    x = _operand(name, "x", x)
    if backward:
        _same(name, "grad", _operand(name, "grad", grad), "x", x)
    if not isinstance(types.unliteral(alpha), int | float | types.Omitted | types.Float | types.Integer):
        raise TypingError(f"{name}: alpha has type {alpha}, not a real number; pass float(alpha)")
    if _given(num_threads):
        raise TypingError(
            f"{name}: in a compiled function a call runs in the thread that makes it; leave num_threads out and "
            f"share the work out with numba.prange"
        )
    if _given(out):
        label = "out" if suffix != "_" else "x"
        if not isinstance(out, types.Array) or not isinstance(x, types.Array):
            raise TypingError(f"{name}: {label} has type {out}: a scalar has no memory to write to; leave out= away")
        _same(name, "x", x, "out", out)
        if not out.mutable:
            raise TypingError(f"{name}: {label} is read-only; pass a writeable array, such as {label}.copy()")

    def number(grad: Any, x: Any, alpha: float, from_output: bool, out: Any) -> Any:
        return _scalar(family, _mode(family, alpha, backward, from_output), grad, x, alpha)

    def zero_dimensional(grad: Any, x: Any, alpha: float, from_output: bool, out: Any) -> Any:
        return _scalar(family, _mode(family, alpha, backward, from_output), grad[()], x[()], alpha)

    def new(grad: Any, x: Any, alpha: float, from_output: bool, out: Any) -> Any:
        mode = _mode(family, alpha, backward, from_output)
        _check_shapes(x, grad)
        result = np.empty_like(x)
        _fill(family, mode, grad, x, result, alpha)
        return result

    def existing(grad: Any, x: Any, alpha: float, from_output: bool, out: Any) -> Any:
        mode = _mode(family, alpha, backward, from_output)
        _check_shapes(x, grad)
        _check_shapes(x, out)
        if _clash(x, out) or _clash(grad, out):
            _fill_from_copies(family, mode, grad, x, out, alpha)
        else:
            _fill(family, mode, grad, x, out, alpha)
        return out

    if not isinstance(x, types.Array):
        chosen = number
    elif _given(out):
        chosen = existing
    else:
        chosen = new if x.ndim else zero_dimensional
    return register_jitable(forceinline=True)(chosen)  # type: ignore[no-any-return]


def _register(family: int) -> None:
    """Overloads of the three functions of a family, each with the signature of the Python function."""

    def forward(x: Any, alpha: Any = 1.0, out: Any = None, num_threads: Any = None) -> Any:
        compute = _compiled(family, "", x, x, alpha, out, num_threads)
        return lambda x, alpha=1.0, out=None, num_threads=None: compute(x, x, alpha, False, out)

    def in_place(x: Any, alpha: Any = 1.0, num_threads: Any = None) -> Any:
        compute = _compiled(family, "_", x, x, alpha, x, num_threads)
        return lambda x, alpha=1.0, num_threads=None: compute(x, x, alpha, False, x)

    def backward(
        grad: Any, x: Any, alpha: Any = 1.0, from_output: Any = False, out: Any = None, num_threads: Any = None
    ) -> Any:
        compute = _compiled(family, "_backward", grad, x, alpha, out, num_threads)
        return lambda grad, x, alpha=1.0, from_output=False, out=None, num_threads=None: compute(
            grad, x, alpha, from_output, out
        )

    def selu(x: Any, out: Any = None, num_threads: Any = None) -> Any:
        compute = _compiled(family, "", x, x, 1.0, out, num_threads)
        return lambda x, out=None, num_threads=None: compute(x, x, 1.0, False, out)

    def selu_in_place(x: Any, num_threads: Any = None) -> Any:
        compute = _compiled(family, "_", x, x, 1.0, x, num_threads)
        return lambda x, num_threads=None: compute(x, x, 1.0, False, x)

    def selu_backward(grad: Any, x: Any, from_output: Any = False, out: Any = None, num_threads: Any = None) -> Any:
        compute = _compiled(family, "_backward", grad, x, 1.0, out, num_threads)
        return lambda grad, x, from_output=False, out=None, num_threads=None: compute(grad, x, 1.0, from_output, out)

    name = _FAMILIES[family]
    plain = name == "selu"  # without alpha
    _overload(getattr(elufast, name), selu if plain else forward)
    _overload(getattr(elufast, f"{name}_"), selu_in_place if plain else in_place)
    _overload(getattr(elufast, f"{name}_backward"), selu_backward if plain else backward)


for _family in range(len(_FAMILIES)):
    _register(_family)


def _init() -> None:
    """For Numba, which calls it before it compiles anything: importing the module has done all."""
