"""What is unusual about the arguments of a call: conversion, broadcasting, errors. Knows no kernel.

`call` validates, converts and allocates, and hands arrays that all fit to `_core.evaluate`, or objects that have an
``__array_ufunc__`` of their own to a ufunc. Every error is raised before the first element is written.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import platform
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np

from elufast import _core, _dispatch, _others, _runtime, ufuncs

Array: TypeAlias = np.ndarray[Any, Any]

_FAMILIES = ("elu", "selu", "celu")  # elu_family_t
_SUPPORTED: tuple[type[np.floating[Any]], ...] = (np.float16, np.float32, np.float64)
_NAMES = "float16, bfloat16, float32 or float64"


def _only_dlpack(value: Any) -> bool:
    return hasattr(value, "__dlpack__") and not hasattr(value, "__array__")


def _check_dtype(name: str, argument: str, value: Any, dtype: np.dtype[Any]) -> None:
    """Raise unless the dtype, of the array that value is or becomes, is supported, in whatever byte order."""
    if dtype.type in _SUPPORTED or ufuncs.learn(dtype):
        return
    convert = "from_dlpack" if _only_dlpack(value) else "asarray"
    source = argument if hasattr(value, "astype") else f"np.{convert}({argument})"
    if dtype.kind == "c":
        hint = f"the function has no complex form, so pass {source}.real.astype(np.float64)"
    else:
        hint = f"pass {source}.astype(np.float32) or {source}.astype(np.float64)"
    raise TypeError(f"{name}: {argument} has dtype {dtype}, not {_NAMES}; {hint}")


def _as_array(name: str, argument: str, value: Any) -> Array:
    """`value` as a base-class array, without a copy where it has the elements in memory."""
    try:
        array = np.from_dlpack(value) if _only_dlpack(value) else np.asarray(value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        told = f"{name}: {argument}, of type {type(value).__name__}, does not convert to an array of {_NAMES} ({error})"
        raise kind(f"{told}; pass np.asarray({argument}, np.float64) where that works") from error
    _check_dtype(name, argument, value, array.dtype)
    return array


def _refuse_pair(name: str, what: str, a: str, of_a: Any, b: str, of_b: Any, hint: str) -> NoReturn:
    kind = TypeError if what == "dtype" else ValueError
    raise kind(f"{name}: {a} has {what} {of_a} and {b} has {what} {of_b}; {hint}")


def _same(name: str, a: str, x: Array, b: str, y: Array) -> None:
    """Raise unless x and y have one dtype, byte order apart, and one shape."""
    fresh = f"pass np.empty_like({a})" if b == "out" else ""
    if x.dtype.type is not y.dtype.type:
        hint = f"they must be the same, for nothing is cast: {fresh or f'pass {a}.astype({b}.dtype)'}"
        _refuse_pair(name, "dtype", a, x.dtype, b, y.dtype, hint)
    if x.shape != y.shape:
        hint = fresh or f"pass np.broadcast_to({a}, {b}.shape) if that is what is meant"
        _refuse_pair(name, "shape", a, x.shape, b, y.shape, f"they must be the same: {hint}")


def real_alpha(name: str, value: Any, *, positive: bool) -> float | Array:
    """Alpha as the function takes it; positive: whether it must be."""
    try:
        array = np.asarray(float(value) if isinstance(value, numbers.Real) else value)
    except OverflowError:
        array = np.asarray(math.inf)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "fiu" or not np.can_cast(array.dtype, np.float64):
        given = f"got {value!r:.80} of type {type(value).__name__}"
        raise TypeError(f"{name}: alpha must be a finite real number or an array of them, {given}; pass float(alpha)")
    alpha = array.astype(np.float64) if array.ndim else float(array)
    if not np.isfinite(alpha).all():
        raise ValueError(f"{name}: alpha must be finite, got {value!r:.80}; pass a finite number")
    bits = np.asarray(alpha).view(np.int64)  # as elu_takes: a caller's mode may take subnormals for 0
    if name.startswith("celu") and not (bits << 1 != 0).all():
        raise ValueError(f"{name}: alpha must not be 0, got {value!r:.80}; CELU divides x by alpha")
    if positive and not (bits > 0).all():
        hint = "otherwise the output does not tell the sign of x; pass the input instead of the output"
        raise ValueError(f"{name}: from_output=True needs alpha > 0, got {value!r:.80}: {hint}")
    return alpha


def _check_broadcast(name: str, argument: str, shape: tuple[int, ...], second: str, x: Array) -> None:
    """Raise unless an argument of this shape broadcasts to that of x."""
    pairs = zip(reversed(shape), reversed(x.shape), strict=False)
    if len(shape) > x.ndim or any(length not in (1, of_x) for length, of_x in pairs):
        hint = f"it must broadcast to {second}, not enlarge it: a row is {x.shape[-1:]}, channels first (C, 1, 1)"
        _refuse_pair(name, "shape", argument, shape, second, x.shape, hint)


def _check_bias(name: str, dtype: np.dtype[Any], second: str, expected: np.dtype[Any], half: bool = False) -> None:
    if dtype.type is not expected.type and not (half and dtype.type is np.float32):
        rule = "they must be the same, for nothing is cast (in half precision float32 is taken too)"
        _refuse_pair(name, "dtype", "bias", dtype, second, expected, f"{rule}: pass bias.astype({second}.dtype)")


def _bias(name: str, value: Any, second: str, x: Array) -> Array:
    bias, half = _as_array(name, "bias", value), x.itemsize == 2
    if bias.ndim == 0 and isinstance(value, float):
        bias = bias.astype(np.float32 if half else x.dtype)  # as NumPy takes a Python float
    _check_bias(name, bias.dtype, second, x.dtype, half)
    _check_broadcast(name, "bias", bias.shape, second, x)
    return bias


def _num_threads(name: str, value: Any) -> int:
    """The number asked for, 0 if none was."""
    if value is None:
        return 0
    try:
        count = operator.index(value)
    except TypeError:
        given = f"got {value!r:.80} of type {type(value).__name__}; pass int(num_threads)"
        raise TypeError(f"{name}: num_threads must be an int of at least 1 or None, {given}") from None
    if count < 1:
        raise ValueError(f"{name}: num_threads must be at least 1, got {count}; None is as many as the work repays")
    return min(count, _runtime.MAX_THREADS)


def _overlaps_itself(array: Array) -> bool:
    """Whether two indices may share memory: False only if each stride steps over what lies within."""
    within = array.itemsize
    for stride, length in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < within:
            return True
        within = stride * (length - 1) + within
    return False


def _clear_of(a: Array, out: Array, *, same: bool = True) -> Array:
    """`a`, or a copy of it where writing `out` could change elements not yet read. same: each is read before it is
    written where both are the same elements."""
    alike = a.ctypes.data == out.ctypes.data and a.strides == out.strides and a.dtype == out.dtype
    if same and alike and (out.flags.forc or not _overlaps_itself(out)):
        return a
    return a.copy("K") if np.may_share_memory(a, out, max_work=1) else a  # type: ignore[arg-type]


def _empty(x: Array, grad: Array) -> Array:
    """A new native array with the memory order that a ufunc's result would have."""
    if (result := _core.empty_like(x, grad)) is not None:
        return result
    # empty_like puts broadcast axes innermost
    return cast(Array, np.nditer((x, None), ["zerosize_ok"], op_dtypes=[None, x.dtype.newbyteorder("=")]).operands[1])


def _by_ufunc(name: str, ufunc: Any, second: str, x: Any, grad: Any, alpha: Any, bias: Any, out: Any) -> Any:
    """The result where alpha is an array, or an operand has an ``__array_ufunc__`` of its own: as that decides. What
    NumPy's own rules would let pass with a subclass of ndarray is refused."""
    if bias is not None:
        if _others.is_half(x) or _others.is_half(bias):
            told = f"{name}: a bias in half precision, added in float32, takes an ndarray and a number alpha, got"
            raise TypeError(f"{told} {type(x).__name__} and {type(alpha).__name__}; pass {second}.astype(np.float32)")
        bias = float(bias) if isinstance(bias, float) else bias  # NumPy's own would widen x
        kinds = [value.dtype for value in (x, bias) if isinstance(getattr(value, "dtype", None), np.dtype)]
        if len(kinds) == 2:
            _check_bias(name, kinds[1], second, kinds[0])
        x = np.add(x, bias)
    if isinstance(x, np.ndarray):
        array = np.asarray(x)
        _check_dtype(name, second, array, array.dtype)
        if isinstance(grad, np.ndarray):
            _same(name, "grad", np.asarray(grad), second, array)
        if isinstance(out, np.ndarray):
            _same(name, second, array, "out", np.asarray(out))
        if isinstance(alpha, np.ndarray):
            _check_broadcast(name, "alpha", alpha.shape, second, array)
    operands = (() if grad is None else (grad,)) + (x,) + (() if name.startswith("selu") else (alpha,))
    return _others.apply(ufunc, operands, **({} if out is None else {"out": out}))


def call(name: str, x: Any, grad: Any, alpha: Any, from_output: Any, bias: Any, out: Any, num_threads: Any) -> Any:
    """Everything that `_functions` does not take itself; its arguments, unchecked."""
    family = name.partition("_")[0]
    inplace, backward = name.endswith("_"), name.endswith("_backward")
    if not isinstance(from_output, bool | np.bool_):
        raise TypeError(f"{name}: from_output must be a bool, got {from_output!r:.80}; pass True for a forward result")
    mode = int(backward) + int(from_output)  # elu_mode_t
    second = "y" if from_output else "x"
    number = alpha if _others.speaks(alpha) else real_alpha(name, alpha, positive=bool(from_output))
    threads = _num_threads(name, num_threads)
    if from_output and bias is not None:
        raise ValueError(f"{name}: from_output=True takes no bias, for y has it already; leave bias out")
    if inplace and not isinstance(x, np.ndarray):
        raise TypeError(f"{name}: x must be a numpy.ndarray, got {type(x).__name__}; use {name[:-1]}(x) for a new one")
    ufunc = getattr(ufuncs, family + ("", "_backward", "_from_output")[mode])
    if any(_others.speaks(value) for value in (x, grad, number, bias, out)):
        return _by_ufunc(name, ufunc, second, x, grad if backward else None, number, bias, out)
    array = _as_array(name, second, x)
    gradient = _as_array(name, "grad", grad) if backward else array
    _same(name, "grad", gradient, second, array)
    added = None if bias is None else _bias(name, bias, second, array)
    if isinstance(number, np.ndarray):
        _check_broadcast(name, "alpha", number.shape, second, array)
    if out is None:
        result = _empty(array, gradient)
    elif not isinstance(out, np.ndarray):
        raise TypeError(f"{name}: out must be a numpy.ndarray, got {type(out).__name__}; pass np.empty_like({second})")
    else:
        result = np.asarray(out)
        _same(name, second, array, "out", result)
        if not result.flags.writeable:
            label = "x" if inplace else "out"
            raise ValueError(f"{name}: {label} is read-only; pass a writeable array, such as {label}.copy()")
    if isinstance(number, np.ndarray):
        _by_ufunc(name, ufunc, second, array, gradient if backward else None, number, added, result)
    else:
        if out is not None:
            array = _clear_of(array, result)
            gradient = _clear_of(gradient, result) if backward else array
            added = added if added is None else _clear_of(added, result, same=False)
        _core.evaluate(_FAMILIES.index(family), mode, number, array, gradient, added, result, threads)
    if out is not None:
        return out
    if not isinstance(x, np.ndarray) and hasattr(type(x), "__array_wrap__") and not isinstance(x, np.generic):
        return x.__array_wrap__(result)  # a PyTorch tensor, say
    return result[()] if result.ndim == 0 else result


def set_num_threads(num_threads: int) -> None:
    """Set how many threads a call may use where its ``num_threads`` is None.

    Parameters
    ----------
    num_threads : int
        At least 1. Each call uses as many of them as its work repays.

    Raises
    ------
    TypeError, ValueError
        If ``num_threads`` is not an int of at least 1.

    Examples
    --------
    >>> before = elufast.get_num_threads()
    >>> elufast.set_num_threads(1)
    >>> elufast.get_num_threads()
    1
    >>> elufast.set_num_threads(before)
    """
    if num_threads is None:
        raise TypeError("set_num_threads: num_threads must be an int of at least 1, got None")
    _core.limit_threads(_num_threads("set_num_threads", num_threads))


def get_num_threads() -> int:
    """Return how many threads a call may use where its ``num_threads`` is None.

    Returns
    -------
    int
        What `set_num_threads` set; at first OMP_NUM_THREADS, or the CPUs that the affinity mask and
        the cgroup quota leave to this process. Less where threadpoolctl limits OpenMP; 1 in a forked
        process, whose parent had loaded OpenMP, and in a build without OpenMP.

    Examples
    --------
    >>> elufast.get_num_threads() >= 1
    True
    """
    return int(_core.thread_limit())


def get_include() -> str:
    """Return the folder that holds ``elufast.h``, for C, C++ and Cython compilers.

    Returns
    -------
    str
        What to pass as ``include_dirs=[...]`` or ``-I``.

    Examples
    --------
    >>> import os.path
    >>> os.path.isfile(os.path.join(elufast.get_include(), "elufast.h"))
    True
    """
    return os.path.dirname(os.path.abspath(__file__))


def runtime_info() -> dict[str, Any]:
    """Return what was built and what was chosen at import.

    Returns
    -------
    dict
        ``version``, ``numpy``, ``level`` (the instruction-set level in use), ``levels`` (those that
        this build has and this CPU can run, best first), ``architecture``, ``compiler``, ``openmp``
        (bool), ``num_threads``, ``cpus``, ``cache_bytes`` (last-level cache, in bytes; 0 if unknown).

    Examples
    --------
    >>> info = elufast.runtime_info()
    >>> info["level"] in info["levels"]
    True
    """
    from elufast import __version__

    return {
        "version": __version__,
        "numpy": np.__version__,
        "level": _dispatch.level,
        "levels": _dispatch.built_levels(),
        "architecture": platform.machine(),
        "compiler": _runtime.COMPILER,
        "openmp": _runtime.OPENMP,
        "num_threads": get_num_threads(),
        "cpus": _runtime.cpus(),
        "cache_bytes": _runtime.cache_bytes(),
    }


def show_runtime() -> None:
    """Print `runtime_info`, one fact a line: what to put into a bug report."""
    info = runtime_info()
    width = max(map(len, info))
    for key, value in info.items():
        print(f"{key:<{width}}  {', '.join(value) if isinstance(value, tuple) else value}")


for _function in (get_include, set_num_threads, get_num_threads, runtime_info, show_runtime):
    _function.__module__ = "elufast"
