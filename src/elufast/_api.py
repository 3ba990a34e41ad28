"""What is unusual about the arguments of a call: the only file that knows arrays.

`call` validates, converts and allocates, and hands arrays that all fit to `_entry.evaluate`. Every
error is raised before the first element is written.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np

from elufast import _dispatch, _entry, _runtime

Array: TypeAlias = np.ndarray[Any, Any]

_FAMILIES = ("elu", "selu", "celu")
_SUPPORTED: tuple[type[np.floating[Any]], ...] = (np.float32, np.float64)
_MAX_THREADS = 1024


def _only_dlpack(value: Any) -> bool:
    return hasattr(value, "__dlpack__") and not hasattr(value, "__array__")


def _refuse_dtype(name: str, argument: str, value: Any, dtype: np.dtype[Any]) -> NoReturn:
    if hasattr(value, "astype"):
        source = argument
    else:
        source = f"np.from_dlpack({argument})" if _only_dlpack(value) else f"np.asarray({argument})"
    if dtype.kind == "c":
        hint = f"the function has no complex form, so pass {source}.real.astype(np.float64)"
    else:
        hint = f"pass {source}.astype(np.float32) or {source}.astype(np.float64)"
    raise TypeError(f"{name}: {argument} has dtype {dtype}, not float32 or float64; {hint}")


def _as_array(name: str, argument: str, value: Any) -> Array:
    """`value` as a base-class array, without a copy where it has the elements in memory."""
    if hasattr(value, "__dask_graph__") and value.__dask_graph__() is not None:
        raise TypeError(
            f"{name}: {argument} is lazy, a Dask collection of type {type(value).__name__}, and np.asarray would "
            f"compute all of it in this process; use {name} of elufast.dask or elufast.xarray, or pass "
            f"{argument}.compute()"
        )
    try:
        array = np.from_dlpack(value) if _only_dlpack(value) else np.asarray(value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{name}: {argument}, of type {type(value).__name__}, does not convert to a float32 or "
            f"float64 array ({error}); pass np.asarray({argument}, np.float64) where that works"
        ) from error
    if array.dtype.type not in _SUPPORTED:
        _refuse_dtype(name, argument, value, array.dtype)
    return array


def _same(name: str, a: str, x: Array, b: str, y: Array) -> None:
    """Raise unless x and y have one dtype, byte order apart, and one shape."""
    if x.dtype.type is not y.dtype.type:
        raise TypeError(
            f"{name}: {a} has dtype {x.dtype} and {b} has dtype {y.dtype}; they must be the same, "
            f"for nothing is cast: " + (f"pass np.empty_like({a})" if b == "out" else f"pass {a}.astype({b}.dtype)")
        )
    if x.shape != y.shape:
        raise ValueError(
            f"{name}: {a} has shape {x.shape} and {b} has shape {y.shape}; they must be the same: "
            + (
                f"pass np.empty_like({a})"
                if b == "out"
                else f"pass np.broadcast_to({a}, {b}.shape) if that is what is meant"
            )
        )


def _alpha(name: str, value: Any, *, nonzero: bool, positive: bool) -> float:
    if not isinstance(value, numbers.Real):
        raise TypeError(
            f"{name}: alpha must be a finite real number, got {value!r:.80} of type "
            f"{type(value).__name__}; pass float(alpha)"
        )
    try:
        alpha = float(value)
    except OverflowError:
        alpha = math.inf
    if not math.isfinite(alpha):
        raise ValueError(f"{name}: alpha must be finite, got {value!r:.80}; pass a finite number")
    if nonzero and alpha == 0:
        raise ValueError(f"{name}: alpha must not be 0, got {value!r}; CELU divides x by alpha")
    if positive and alpha <= 0:
        raise ValueError(
            f"{name}: from_output=True needs alpha > 0, got {value!r}: otherwise the output does "
            f"not tell the sign of x; pass the input instead of the output"
        )
    return alpha


def _num_threads(name: str, value: Any) -> int:
    """The number asked for, 0 if none was."""
    if value is None:
        return 0
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}: num_threads must be an int of at least 1 or None, got {value!r:.80} of type "
            f"{type(value).__name__}; pass int(num_threads)"
        ) from None
    if count < 1:
        raise ValueError(
            f"{name}: num_threads must be at least 1, got {count}; pass None to use as many as the work repays"
        )
    return min(count, _MAX_THREADS)


def _overlaps_itself(array: Array) -> bool:
    """Whether two indices may share memory: False only if each stride steps over what lies within."""
    within = array.itemsize
    for stride, length in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < within:
            return True
        within = stride * (length - 1) + within
    return False


def _same_elements(a: Array, out: Array) -> bool:
    return (
        _entry.address(a) == _entry.address(out)
        and a.strides == out.strides
        and a.dtype == out.dtype
        and (out.flags.forc or not _overlaps_itself(out))
    )


def _clear_of(a: Array, out: Array) -> Array:
    """`a`, or a copy of it where writing `out` could change elements not yet read."""
    if not np.may_share_memory(a, out) or _same_elements(a, out):
        return a
    try:
        return a.copy("K") if np.shares_memory(a, out, max_work=1) else a  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return a.copy("K")


def _empty(x: Array) -> Array:
    """A new native array with the memory order that a ufunc's result would have."""
    if (result := _entry.empty_like(x)) is not None:
        return result
    iterator = np.nditer(  # empty_like would put broadcast axes innermost
        (x, None),
        flags=["zerosize_ok"],
        op_flags=[["readonly"], ["writeonly", "allocate"]],
        op_dtypes=[None, x.dtype.newbyteorder("=")],
    )
    return cast(Array, iterator.operands[1])


def call(
    family: int,
    inplace: bool,
    backward: bool,
    x: Any,
    grad: Any,
    alpha: Any,
    from_output: Any,
    out: Any,
    num_threads: Any,
) -> Any:
    """Everything that `_entry` does not take itself; its arguments, unchecked."""
    name = _FAMILIES[family] + ("_" if inplace else "_backward" if backward else "")
    if not isinstance(from_output, bool | np.bool_):
        raise TypeError(
            f"{name}: from_output must be a bool, got {from_output!r:.80}; pass True if the second "
            f"argument is the forward result"
        )
    number = _alpha(name, alpha, nonzero=name.startswith("celu"), positive=bool(from_output))
    threads = _num_threads(name, num_threads)
    if inplace and not isinstance(x, np.ndarray):
        raise TypeError(
            f"{name}: works in place, so x must be a numpy.ndarray, got {type(x).__name__}; "
            f"use {name[:-1]}(x), which returns a new array"
        )
    second = "y" if from_output else "x"
    array = _as_array(name, second, x)
    gradient = array
    if backward:
        gradient = _as_array(name, "grad", grad)
        _same(name, "grad", gradient, second, array)
    if out is None:
        result = _empty(array)
    else:
        label = "x" if inplace else "out"
        if not isinstance(out, np.ndarray):
            raise TypeError(
                f"{name}: out must be a numpy.ndarray, got {type(out).__name__}; allocate it with "
                f"np.empty_like({second})"
            )
        result = np.asarray(out)
        if result.dtype.type not in _SUPPORTED:
            _refuse_dtype(name, label, out, result.dtype)
        _same(name, second, array, label, result)
        if not result.flags.writeable:
            raise ValueError(f"{name}: {label} is read-only; pass a writeable array, such as {label}.copy()")
        shared = gradient is array
        array = _clear_of(array, result)
        gradient = array if shared else _clear_of(gradient, result)
    _entry.evaluate(family, backward, bool(from_output), array, gradient, number, result, threads)
    if out is not None:
        return out
    if isinstance(x, np.ndarray) and type(x) is not np.ndarray:
        # With a context, as from a ufunc: a masked array keeps its mask.
        return x.__array_wrap__(result, (np.negative, (x,), 0), False)
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
    _entry.limit_threads(_num_threads("set_num_threads", num_threads))


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
    return int(_entry.thread_limit())


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
        "architecture": _runtime.architecture(),
        "compiler": _runtime.compiler(),
        "openmp": bool(_runtime.openmp()),
        "num_threads": get_num_threads(),
        "cpus": _runtime.cpus(),
        "cache_bytes": _runtime.cache_bytes(),
    }


def show_runtime() -> None:
    """Print `runtime_info`, one fact a line: what to put into a bug report."""
    info = runtime_info()
    width = max(map(len, info))
    for key, value in info.items():
        shown = ", ".join(value) if isinstance(value, tuple) else value
        print(f"{key:<{width}}  {shown}")


def _default_num_threads() -> int:
    if not _runtime.openmp():
        return 1
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(int(first), _MAX_THREADS) if first.isdecimal() and int(first) else _runtime.cpus()


_entry.bind(_dispatch.loops, _runtime.cache_bytes(), _default_num_threads(), call)

for _function in (get_include, set_num_threads, get_num_threads, runtime_info, show_runtime):
    _function.__module__ = "elufast"
