"""The functions of elufast inside functions that Numba compiles. Nothing needs to be imported for it.

Numba finds `_init` by the package's entry point. Arrays of any strides and numbers go to the kernel of the level chosen
at import, which no flag of the compiled function reaches: the bits are those of a call from Python.
A call runs in the thread that makes it: share out with ``numba.prange``.

>>> import numba
>>> @numba.njit
... def rectified_energy(x):
...     return (elufast.selu(x) ** 2).sum()
>>> round(rectified_energy(np.array([-1.0, 0.0, 1.0])), 6)
2.339029
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import get_cython_function_address, intrinsic, overload, register_jitable

import elufast

_FAMILIES = ("elu", "selu", "celu")  # elu_family_t
_FORWARD, _BACKWARD, _FROM_OUTPUT = range(3)  # elu_mode_t
_SUPPORTED = (types.float32, types.float64)  # by their codes in _core.pxd

# By name, not by address: what Numba caches on disk is linked anew in each process.
for _function in ("takes", "number_f32", "number_f64", "strided"):
    llvmlite.binding.add_symbol(f"elufast_{_function}", get_cython_function_address("elufast._capi", _function))


_INT, _ALPHA = types.int32, types.float64
_takes = types.ExternalFunction("elufast_takes", _INT(_INT, _INT, _ALPHA))  # in C, where fastmath does not reach
_NUMBERS = {x: types.ExternalFunction(f"elufast_number_f{x.bitwidth}", x(_INT, _INT, x, x, _ALPHA)) for x in _SUPPORTED}


@intrinsic
def _compute(typing: Any, family: Any, mode: Any, alpha: Any, x: Any, grad: Any, bias: Any, out: Any) -> Any:
    """Fill out, an array; of a number x return the result. grad and bias may be None. All is valid."""
    number = not isinstance(x, types.Array)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte_pointer, intp_pointer = (context.get_value_type(t).as_pointer() for t in (types.int8, types.intp))
        shape, data, strides = intp_pointer(None), [], []
        for kind, value in zip((x, grad, bias, out), values[3:], strict=True):
            at, steps = byte_pointer(None), intp_pointer(None)
            if isinstance(kind, types.Array):
                array = context.make_array(kind)(context, builder, value)
                at = builder.bitcast(array.data, byte_pointer)
                fields = (array._get_ptr_by_name(name) for name in ("shape", "strides"))
                shape, steps = (builder.bitcast(field, intp_pointer) for field in fields)
            elif kind != types.none:
                slot = cgutils.alloca_once_value(builder, value)
                at = builder.bitcast(slot, byte_pointer)
            data.append(at)
            strides.append(steps)
        tables = (cgutils.alloca_once_value(builder, cgutils.pack_array(builder, table)) for table in (data, strides))
        code, axes = (ir.IntType(32)(v) for v in (_SUPPORTED.index(x if number else x.dtype), 0 if number else x.ndim))
        given = [*values[:2], code, values[2], axes, shape, *tables]
        signature = ir.FunctionType(ir.VoidType(), [value.type for value in given])
        builder.call(cgutils.get_or_insert_function(builder.module, signature, "elufast_strided"), given)
        return builder.load(slot) if number else context.get_dummy_value()

    return (x if number else types.none)(_INT, _INT, _ALPHA, x, grad, bias, out), generate


@register_jitable(forceinline=True)
def _mode(family: int, alpha: float, backward: bool, from_output: bool, bias: Any) -> int:
    """The elu_mode_t, once alpha is known to fit."""
    mode = (_FROM_OUTPUT if from_output else _BACKWARD) if backward else _FORWARD
    if not _takes(0, _FORWARD, alpha):
        raise ValueError("elufast: alpha must be finite; pass a finite number")
    if not _takes(family, _FORWARD, alpha):
        raise ValueError("elufast: alpha must not be 0; CELU divides x by alpha")
    if not _takes(family, mode, alpha):
        raise ValueError("elufast: from_output=True needs alpha > 0; pass the input instead of the output")
    if mode == _FROM_OUTPUT and bias is not None:
        raise ValueError("elufast: from_output=True takes no bias: the output has it already; leave it out")
    return mode


@register_jitable(forceinline=True)
def _ends(array: Any) -> tuple[Any, Any]:
    """The first byte of an array, and the one behind its last."""
    low = high = np.intp(array.ctypes.data)
    for axis in range(array.ndim):
        step = array.strides[axis] * (array.shape[axis] - 1)
        low, high = min(low, low + step), max(high, high + step)
    return low, high + array.itemsize


@register_jitable(forceinline=True)
def _clash(a: Any, out: Any) -> bool:
    """Whether a and out may share memory and are not the same elements."""
    if a is None:
        return False
    first, behind = _ends(a)
    out_first, out_behind = _ends(out)
    same = a.ctypes.data == out.ctypes.data and a.strides == out.strides
    return not same and first < out_behind and out_first < behind


@register_jitable(forceinline=True)
def _check_shapes(x: Any, other: Any) -> None:
    if other is not None and x.shape != other.shape:
        raise ValueError("elufast: the arrays differ in shape; nothing is broadcast: pass np.broadcast_to(...)")


def _given(value: Any) -> bool:
    return not (value is None or isinstance(value, types.NoneType | types.Omitted))


def _operand(name: str, argument: str, value: Any) -> Any:
    """The Numba type of an argument, if it is a float or an array of floats."""
    value = types.unliteral(value)
    dtype = value.dtype if isinstance(value, types.Array) else value
    if dtype in _SUPPORTED:
        return value
    hint = f"np.float64({argument}), or np.array({argument}, np.float64) of a sequence"
    if isinstance(value, types.Array):
        hint = f"{argument}.astype(np.float32) or {argument}.astype(np.float64)"
    raise TypingError(f"{name}: {argument} has type {value}, not float32, float64 or an array of these; pass {hint}")


def _same(name: str, a: str, x: Any, b: str, y: Any, fewer: bool = False) -> None:
    """Refuse two operands unless they have one dtype and number of dimensions, of which y may have fewer."""
    x_axes, y_axes = (v.ndim if isinstance(v, types.Array) else -1 for v in (x, y))
    if x_axes != y_axes and not (fewer and 0 <= y_axes < x_axes):
        rule = "broadcasts to the shape of x alone" if fewer else "must have one shape: nothing is broadcast"
        raise TypingError(f"{name}: {a} is {x} and {b} is {y}; {b if fewer else 'they'} {rule}")
    if getattr(x, "dtype", x) != getattr(y, "dtype", y):
        raise TypingError(f"{name}: {a} is {x} and {b} is {y}; they must have one dtype: nothing is cast")


def _compiled(family: int, suffix: str, grad: Any, x: Any, alpha: Any, bias: Any, out: Any, num_threads: Any) -> Any:
    """What computes arguments of these types: a function of (grad, x, alpha, from_output, bias, out)."""
    name, backward = _FAMILIES[family] + suffix, suffix == "_backward"
    x = _operand(name, "x", x)
    if backward:
        _same(name, "grad", _operand(name, "grad", grad), "x", x)
    if _given(bias):
        _same(name, "x", x, "bias", _operand(name, "bias", bias), fewer=True)
    if not isinstance(types.unliteral(alpha), int | float | types.Omitted | types.Float | types.Integer):
        raise TypingError(f"{name}: alpha has type {alpha}, not a real number; pass float(alpha)")
    if name.startswith("selu") and not isinstance(alpha, float | types.Omitted):
        raise TypingError(f"{name}: takes no alpha; leave it out")
    if _given(num_threads):
        raise TypingError(f"{name}: runs in the calling thread; leave num_threads out and share out by numba.prange")
    if _given(out):
        label = "out" if suffix != "_" else "x"
        if not isinstance(out, types.Array) or not isinstance(x, types.Array):
            raise TypingError(f"{name}: {label} has type {out}: a scalar has no memory to write to; leave out= away")
        _same(name, "x", x, "out", out)
        if not out.mutable:
            raise TypingError(f"{name}: {label} is read-only; pass a writeable array, such as {label}.copy()")

    def number(grad: Any, x: Any, alpha: float, from_output: bool, bias: Any, out: Any) -> Any:
        mode = _mode(family, alpha, backward, from_output, bias)
        if bias is not None:  # fastmath would take x + bias apart
            return _compute(family, mode, alpha, x, grad, bias, x)
        return number_of(family, mode, x if grad is None else grad, x, alpha)

    def new(grad: Any, x: Any, alpha: float, from_output: bool, bias: Any, out: Any) -> Any:
        mode = _mode(family, alpha, backward, from_output, bias)
        _check_shapes(x, grad)
        added = broadcast(bias, x)
        result = np.empty_like(x)
        _compute(family, mode, alpha, x, grad, added, result)
        return result[()]  # of no axes, a number

    def existing(grad: Any, x: Any, alpha: float, from_output: bool, bias: Any, out: Any) -> Any:
        mode = _mode(family, alpha, backward, from_output, bias)
        _check_shapes(x, grad)
        _check_shapes(x, out)
        added = broadcast(bias, x)
        if _clash(x, out) or _clash(grad, out) or _clash(added, out):
            out[...] = new_array(grad, x, alpha, from_output, bias, out)
        else:
            _compute(family, mode, alpha, x, grad, added, out)
        return out

    jitable: Any = register_jitable(forceinline=True)
    number_of, new_array = _NUMBERS.get(x, x), jitable(new)
    broadcast = jitable((lambda b, x: np.broadcast_to(b, x.shape)) if _given(bias) else (lambda b, x: None))
    chosen = existing if _given(out) else new if isinstance(x, types.Array) else number
    return jitable(chosen)


def _register(family: int, name: str) -> None:
    """Overloads of the three functions of a family. They take what the Python functions take, SELU's no alpha."""

    def forward(x: Any, alpha: Any = 1.0, bias: Any = None, out: Any = None, num_threads: Any = None) -> Any:
        compute = _compiled(family, "", None, x, alpha, bias, out, num_threads)
        return lambda x, alpha=1.0, bias=None, out=None, num_threads=None: compute(None, x, alpha, False, bias, out)

    def in_place(x: Any, alpha: Any = 1.0, bias: Any = None, num_threads: Any = None) -> Any:
        compute = _compiled(family, "_", None, x, alpha, bias, x, num_threads)
        return lambda x, alpha=1.0, bias=None, num_threads=None: compute(None, x, alpha, False, bias, x)

    def backward(
        grad: Any,
        x: Any,
        alpha: Any = 1.0,
        from_output: Any = False,
        bias: Any = None,
        out: Any = None,
        num_threads: Any = None,
    ) -> Any:
        compute = _compiled(family, "_backward", grad, x, alpha, bias, out, num_threads)
        return lambda grad, x, alpha=1.0, from_output=False, bias=None, out=None, num_threads=None: compute(
            grad, x, alpha, from_output, bias, out
        )

    for suffix, template in {"": forward, "_": in_place, "_backward": backward}.items():
        template.__annotations__ = {}  # Numba takes them for a part of the signature, which a lambda lacks
        overload(getattr(elufast, name + suffix), jit_options={"forceinline": True}, target="cpu")(template)


for _family, _name in enumerate(_FAMILIES):
    _register(_family, _name)


def _init() -> None:
    """For Numba, which calls it before it compiles anything: importing the module has done all."""
