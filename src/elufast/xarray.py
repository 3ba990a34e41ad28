"""ELU, SELU and CELU for xarray: DataArray or Dataset in, the same out with its labels.

The functions are those of `elufast` through `xarray.apply_ufunc`. Dimensions, coordinates, names
and attributes are kept; what Dask backs stays lazy and chunked, one thread a chunk. What is wrong
with the arguments is an error at once, before anything is computed.

>>> import xarray as xr
>>> import elufast.xarray
>>> x = xr.DataArray([-1.0, 0.0, 2.0], {"t": [10, 20, 30]}, name="signal")
>>> elufast.xarray.elu(x)
<xarray.DataArray 'signal' (t: 3)> Size: 24B
array([-0.63212056,  0.        ,  2.        ])
Coordinates:
  * t        (t) int64 24B 10 20 30
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

import elufast
from elufast import _api

if TYPE_CHECKING:
    from elufast._entry import _Real, _Threads

__all__ = ["celu", "celu_backward", "elu", "elu_backward", "selu", "selu_backward"]

_Labelled = TypeVar("_Labelled", xr.DataArray, xr.Dataset)


def _arrays(name: str, argument: str, x: Any) -> dict[Any, xr.DataArray]:
    """The arrays of x by variable, None for that of a DataArray; of supported dtypes."""
    if isinstance(x, xr.Dataset):
        arrays: dict[Any, xr.DataArray] = dict(x.data_vars)
    elif isinstance(x, xr.DataArray):
        arrays = {None: x}
    else:
        raise TypeError(
            f"{name}: {argument} must be an xarray.DataArray or Dataset, got {type(x).__name__}; use "
            f"elufast.{name} for a NumPy array, elufast.dask.{name} for a Dask array"
        )
    for variable, array in arrays.items():
        if array.dtype.type not in _api._SUPPORTED:
            _api._refuse_dtype(name, argument + _item(variable), array, array.dtype)
    return arrays


def _item(variable: Any) -> str:
    return "" if variable is None else f"[{variable!r}]"


def _check_same(name: str, second: str, grads: dict[Any, xr.DataArray], arrays: dict[Any, xr.DataArray]) -> None:
    if set(grads) != set(arrays):
        raise ValueError(
            f"{name}: grad has the variables {list(grads)} and {second} has {list(arrays)}; they must be the same: "
            f"pass grad[list({second}.data_vars)]"
        )
    for variable, array in arrays.items():
        grad, item = grads[variable], _item(variable)
        if grad.dtype.type is not array.dtype.type:
            raise TypeError(
                f"{name}: grad{item} has dtype {grad.dtype} and {second}{item} has dtype {array.dtype}; they must be "
                f"the same, for nothing is cast: pass grad{item}.astype({second}{item}.dtype)"
            )
        if dict(grad.sizes) != dict(array.sizes):
            raise ValueError(
                f"{name}: grad{item} has sizes {dict(grad.sizes)} and {second}{item} has sizes {dict(array.sizes)}; "
                f"they must be the same: pass grad{item}.broadcast_like({second}{item}) if that is what is meant"
            )


def _gradient(x: Any, grad: Any, *, function: Callable[..., Any], **options: Any) -> Any:
    """x first: apply_ufunc takes the name, attributes and order of dimensions from the first argument."""
    return function(grad, x, **options)


def _apply(function: Callable[..., Any], x: _Labelled, grad: _Labelled | None = None, **options: Any) -> _Labelled:
    name = function.__name__
    second = "y" if options.get("from_output") is True else "x"
    arrays = _arrays(name, second, x)
    chunked = [array for array in arrays.values() if array.chunks]
    inputs = [x]
    empty = np.empty(0)
    if grad is None:
        function(empty, **options)  # raises what is wrong with the options
    else:
        if type(grad) is not type(x):
            raise TypeError(
                f"{name}: grad is a {type(grad).__name__} and {second} a {type(x).__name__}; they must be the same"
            )
        grads = _arrays(name, "grad", grad)
        _check_same(name, second, grads, arrays)
        chunked += [array for array in grads.values() if array.chunks]
        inputs.append(grad)
        function(empty, empty, **options)
        options["function"] = function
        function = _gradient
    if chunked and options["num_threads"] is None:
        options["num_threads"] = 1
    result: _Labelled = xr.apply_ufunc(function, *inputs, kwargs=options, dask="parallelized", keep_attrs=True)
    return result


def elu(x: _Labelled, alpha: _Real = 1.0, *, num_threads: _Threads = None) -> _Labelled:
    """Exponential linear unit of an xarray object.

    Parameters
    ----------
    x : DataArray or Dataset
        Float32 or float64; of a Dataset every variable.
    alpha : float, default 1.0
        As in `elufast.elu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays, and one a chunk of a Dask array.

    Returns
    -------
    DataArray or Dataset
        As x, with its labels, attributes and dtypes; lazy where x is.

    Raises
    ------
    TypeError
        If x is neither, or a variable has another dtype: the error names it.
    ValueError
        If alpha is not finite.

    Examples
    --------
    >>> x = xr.DataArray([-1.0, 0.0, 2.0], dims="t")
    >>> elufast.xarray.elu(x).values
    array([-0.63212056,  0.        ,  2.        ])
    """
    return _apply(elufast.elu, x, alpha=alpha, num_threads=num_threads)


def selu(x: _Labelled, *, num_threads: _Threads = None) -> _Labelled:
    """Scaled exponential linear unit of an xarray object.

    Parameters
    ----------
    x : DataArray or Dataset
        Float32 or float64; of a Dataset every variable.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays, and one a chunk of a Dask array.

    Returns
    -------
    DataArray or Dataset
        As x, with its labels, attributes and dtypes; lazy where x is.

    Raises
    ------
    TypeError
        If x is neither, or a variable has another dtype: the error names it.

    Examples
    --------
    >>> x = xr.DataArray([-1.0, 0.0, 2.0], dims="t")
    >>> elufast.xarray.selu(x).values
    array([-1.11133074,  0.        ,  2.10140197])
    """
    return _apply(elufast.selu, x, num_threads=num_threads)


def celu(x: _Labelled, alpha: _Real = 1.0, *, num_threads: _Threads = None) -> _Labelled:
    """Continuously differentiable exponential linear unit of an xarray object.

    Parameters
    ----------
    x : DataArray or Dataset
        Float32 or float64; of a Dataset every variable.
    alpha : float, default 1.0
        As in `elufast.celu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays, and one a chunk of a Dask array.

    Returns
    -------
    DataArray or Dataset
        As x, with its labels, attributes and dtypes; lazy where x is.

    Raises
    ------
    TypeError
        If x is neither, or a variable has another dtype: the error names it.
    ValueError
        If alpha is not finite or is 0.

    Examples
    --------
    >>> x = xr.DataArray([-1.0, 0.0, 2.0], dims="t")
    >>> elufast.xarray.celu(x, 0.5).values
    array([-0.43233236,  0.        ,  2.        ])
    """
    return _apply(elufast.celu, x, alpha=alpha, num_threads=num_threads)


def elu_backward(
    grad: _Labelled,
    x: _Labelled,
    alpha: _Real = 1.0,
    *,
    from_output: bool = False,
    num_threads: _Threads = None,
) -> _Labelled:
    """Gradient of `elu`: grad times the derivative at x.

    Parameters
    ----------
    grad : DataArray or Dataset
        The dimensions, in any order, coordinates, variables and dtypes of x.
    x : DataArray or Dataset
        The input of `elu`, float32 or float64; with ``from_output=True`` its output.
    alpha : float, default 1.0
        As in `elufast.elu_backward`.
    from_output : bool, default False
        Whether x is the output of `elu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays, and one a chunk of a Dask array.

    Returns
    -------
    DataArray or Dataset
        As x, with its labels, attributes and dtypes; lazy where x is.

    Raises
    ------
    TypeError
        If grad or x is neither or has another dtype, or theirs differ.
    ValueError
        If grad and x differ in variables, sizes or coordinates; if alpha is not
        finite, or not positive with ``from_output=True``.

    Examples
    --------
    >>> x = xr.DataArray([-1.0, 0.0, 2.0], dims="t")
    >>> elufast.xarray.elu_backward(xr.ones_like(x), x).values
    array([0.36787944, 1.        , 1.        ])
    """
    return _apply(elufast.elu_backward, x, grad, alpha=alpha, from_output=from_output, num_threads=num_threads)


def selu_backward(
    grad: _Labelled,
    x: _Labelled,
    *,
    from_output: bool = False,
    num_threads: _Threads = None,
) -> _Labelled:
    """Gradient of `selu`: grad times the derivative at x.

    Parameters
    ----------
    grad : DataArray or Dataset
        The dimensions, in any order, coordinates, variables and dtypes of x.
    x : DataArray or Dataset
        The input of `selu`, float32 or float64; with ``from_output=True`` its output.
    from_output : bool, default False
        Whether x is the output of `selu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays, and one a chunk of a Dask array.

    Returns
    -------
    DataArray or Dataset
        As x, with its labels, attributes and dtypes; lazy where x is.

    Raises
    ------
    TypeError
        If grad or x is neither or has another dtype, or theirs differ.
    ValueError
        If grad and x differ in variables, sizes or coordinates.

    Examples
    --------
    >>> x = xr.DataArray([-1.0, 0.0, 2.0], dims="t")
    >>> elufast.xarray.selu_backward(xr.ones_like(x), x).values
    array([0.6467686 , 1.75809934, 1.05070099])
    """
    return _apply(elufast.selu_backward, x, grad, from_output=from_output, num_threads=num_threads)


def celu_backward(
    grad: _Labelled,
    x: _Labelled,
    alpha: _Real = 1.0,
    *,
    from_output: bool = False,
    num_threads: _Threads = None,
) -> _Labelled:
    """Gradient of `celu`: grad times the derivative at x.

    Parameters
    ----------
    grad : DataArray or Dataset
        The dimensions, in any order, coordinates, variables and dtypes of x.
    x : DataArray or Dataset
        The input of `celu`, float32 or float64; with ``from_output=True`` its output.
    alpha : float, default 1.0
        As in `elufast.celu_backward`.
    from_output : bool, default False
        Whether x is the output of `celu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays, and one a chunk of a Dask array.

    Returns
    -------
    DataArray or Dataset
        As x, with its labels, attributes and dtypes; lazy where x is.

    Raises
    ------
    TypeError
        If grad or x is neither or has another dtype, or theirs differ.
    ValueError
        If grad and x differ in variables, sizes or coordinates; if alpha is not
        finite or is 0, or not positive with ``from_output=True``.

    Examples
    --------
    >>> x = xr.DataArray([-1.0, 0.0, 2.0], dims="t")
    >>> elufast.xarray.celu_backward(xr.ones_like(x), x, 0.5).values
    array([0.13533528, 1.        , 1.        ])
    """
    return _apply(elufast.celu_backward, x, grad, alpha=alpha, from_output=from_output, num_threads=num_threads)
