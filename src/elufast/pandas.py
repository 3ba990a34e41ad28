"""ELU, SELU and CELU for pandas: Series or DataFrame in, the same out with its labels.

The functions are those of `elufast`. Index, columns, names, attributes and dtypes are kept: NumPy's
float32 and float64, pandas' Float32 and Float64 and PyArrow's float and double, whose missing values
stay missing. Any other dtype is an error that names the column.

>>> import pandas as pd
>>> import elufast.pandas
>>> x = pd.DataFrame({"a": [-1.0, 2.0], "b": pd.array([-1.0, None], "Float64")})
>>> elufast.pandas.elu(x)
          a         b
0 -0.632121 -0.632121
1  2.000000      <NA>
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

import elufast
from elufast import _api

if TYPE_CHECKING:
    from elufast._entry import _Real, _Threads

__all__ = ["celu", "celu_backward", "elu", "elu_backward", "selu", "selu_backward"]

_Labelled = TypeVar("_Labelled", "pd.Series[Any]", pd.DataFrame)


def _dtypes(name: str, argument: str, x: Any) -> list[tuple[str, Any]]:
    """The dtype of each column, all supported, with what follows the argument's name in an error."""
    if isinstance(x, pd.DataFrame):
        dtypes = [(f"[{label!r}]", dtype) for label, dtype in x.dtypes.items()]
    elif isinstance(x, pd.Series):
        dtypes = [("", x.dtype)]
    else:
        raise TypeError(
            f"{name}: {argument} must be a pandas.Series or DataFrame, got {type(x).__name__}; use "
            f"elufast.{name} for a NumPy array"
        )
    for column, dtype in dtypes:
        number = getattr(dtype, "numpy_dtype", dtype)  # of pandas' and PyArrow's dtypes
        if not isinstance(number, np.dtype) or number.type not in _api._SUPPORTED:
            raise TypeError(
                f"{name}: {argument}{column} has dtype {dtype}, not float32 or float64 of NumPy, pandas or PyArrow; "
                f"pass {argument}{column}.astype(np.float64)" + (" or leave the column out" if column else "")
            )
    return dtypes


def _check_same(name: str, second: str, grad: Any, x: Any) -> None:
    if type(grad) is not type(x):
        raise TypeError(
            f"{name}: grad is a {type(grad).__name__} and {second} a {type(x).__name__}; they must be the same"
        )
    for axis, a, b in zip(("index", "columns"), grad.axes, x.axes, strict=False):
        if not a.equals(b):
            raise ValueError(
                f"{name}: grad and {second} differ in {axis}, of length {len(a)} and {len(b)}; nothing is aligned: "
                f"pass grad.reindex({axis}={second}.{axis}) if that is what is meant"
            )
    for (column, a), (_, b) in zip(_dtypes(name, "grad", grad), _dtypes(name, second, x), strict=True):
        if a != b:
            raise TypeError(
                f"{name}: grad{column} has dtype {a} and {second}{column} has dtype {b}; they must be the same, for "
                f"nothing is cast: pass grad{column}.astype({second}{column}.dtype)"
            )


def _column(function: Callable[..., Any], *columns: Any, **options: Any) -> Any:
    """The result for columns of one dtype, as an array for a column of that dtype."""
    dtype = columns[0].dtype
    if isinstance(dtype, np.dtype):
        return function(*(column.to_numpy() for column in columns), **options)
    missing = np.logical_or.reduce([column.isna().to_numpy() for column in columns])
    numbers = [column.to_numpy(dtype.numpy_dtype, na_value=0.0) for column in columns]
    result = function(*numbers, **options)
    if isinstance(dtype, pd.ArrowDtype):
        import pyarrow as pa

        return pd.arrays.ArrowExtensionArray(pa.array(result, mask=missing))
    return pd.arrays.FloatingArray(result, missing)


def _apply(function: Callable[..., Any], x: _Labelled, grad: _Labelled | None = None, **options: Any) -> _Labelled:
    name = function.__name__
    second = "y" if options.get("from_output") is True else "x"
    dtypes = {dtype for _, dtype in _dtypes(name, second, x)}
    if grad is not None:
        _check_same(name, second, grad, x)
    inputs: list[Any] = [x] if grad is None else [grad, x]
    function(*(np.empty(0) for _ in inputs), **options)  # raises what is wrong with the options
    result: Any
    if isinstance(x, pd.Series):
        result = pd.Series(_column(function, *inputs, **options), index=x.index, name=x.name, copy=False)
    elif len(dtypes) == 1 and isinstance(dtypes.pop(), np.dtype):
        values = function(*(frame.to_numpy() for frame in inputs), **options)
        result = pd.DataFrame(values, index=x.index, columns=x.columns, copy=False)
    else:
        positions = range(x.shape[1])  # labels may repeat
        values = {k: _column(function, *(frame.iloc[:, k] for frame in inputs), **options) for k in positions}
        result = pd.DataFrame(values, index=x.index, copy=False)
        result.columns = x.columns
    labelled: _Labelled = result.__finalize__(x)
    return labelled


def elu(x: _Labelled, alpha: _Real = 1.0, *, num_threads: _Threads = None) -> _Labelled:
    """Exponential linear unit of a pandas object.

    Parameters
    ----------
    x : Series or DataFrame
        Float32 or float64 of NumPy, pandas or PyArrow; of a DataFrame every column.
    alpha : float, default 1.0
        As in `elufast.elu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays.

    Returns
    -------
    Series or DataFrame
        As x, with its labels, attributes and dtypes; NA where x is NA.

    Raises
    ------
    TypeError
        If x is neither, or a column has another dtype: the error names it.
    ValueError
        If alpha is not finite.

    Examples
    --------
    >>> x = pd.Series([-1.0, 0.0, 2.0])
    >>> elufast.pandas.elu(x).to_numpy()
    array([-0.63212056,  0.        ,  2.        ])
    """
    return _apply(elufast.elu, x, alpha=alpha, num_threads=num_threads)


def selu(x: _Labelled, *, num_threads: _Threads = None) -> _Labelled:
    """Scaled exponential linear unit of a pandas object.

    Parameters
    ----------
    x : Series or DataFrame
        Float32 or float64 of NumPy, pandas or PyArrow; of a DataFrame every column.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays.

    Returns
    -------
    Series or DataFrame
        As x, with its labels, attributes and dtypes; NA where x is NA.

    Raises
    ------
    TypeError
        If x is neither, or a column has another dtype: the error names it.

    Examples
    --------
    >>> x = pd.Series([-1.0, 0.0, 2.0])
    >>> elufast.pandas.selu(x).to_numpy()
    array([-1.11133074,  0.        ,  2.10140197])
    """
    return _apply(elufast.selu, x, num_threads=num_threads)


def celu(x: _Labelled, alpha: _Real = 1.0, *, num_threads: _Threads = None) -> _Labelled:
    """Continuously differentiable exponential linear unit of a pandas object.

    Parameters
    ----------
    x : Series or DataFrame
        Float32 or float64 of NumPy, pandas or PyArrow; of a DataFrame every column.
    alpha : float, default 1.0
        As in `elufast.celu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays.

    Returns
    -------
    Series or DataFrame
        As x, with its labels, attributes and dtypes; NA where x is NA.

    Raises
    ------
    TypeError
        If x is neither, or a column has another dtype: the error names it.
    ValueError
        If alpha is not finite or is 0.

    Examples
    --------
    >>> x = pd.Series([-1.0, 0.0, 2.0])
    >>> elufast.pandas.celu(x, 0.5).to_numpy()
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
    grad : Series or DataFrame
        The index, columns and dtypes of x; nothing is aligned.
    x : Series or DataFrame
        The input of `elu`, float32 or float64; with ``from_output=True`` its output.
    alpha : float, default 1.0
        As in `elufast.elu_backward`.
    from_output : bool, default False
        Whether x is the output of `elu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays.

    Returns
    -------
    Series or DataFrame
        As x, with its labels, attributes and dtypes; NA where x is NA.

    Raises
    ------
    TypeError
        If grad or x is neither or has another dtype, or theirs differ.
    ValueError
        If grad and x differ in index or columns; if alpha is not finite, or not positive with
        ``from_output=True``.

    Examples
    --------
    >>> x = pd.Series([-1.0, 0.0, 2.0])
    >>> elufast.pandas.elu_backward(x * 0 + 1, x).to_numpy()
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
    grad : Series or DataFrame
        The index, columns and dtypes of x; nothing is aligned.
    x : Series or DataFrame
        The input of `selu`, float32 or float64; with ``from_output=True`` its output.
    from_output : bool, default False
        Whether x is the output of `selu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays.

    Returns
    -------
    Series or DataFrame
        As x, with its labels, attributes and dtypes; NA where x is NA.

    Raises
    ------
    TypeError
        If grad or x is neither or has another dtype, or theirs differ.
    ValueError
        If grad and x differ in index or columns.

    Examples
    --------
    >>> x = pd.Series([-1.0, 0.0, 2.0])
    >>> elufast.pandas.selu_backward(x * 0 + 1, x).to_numpy()
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
    grad : Series or DataFrame
        The index, columns and dtypes of x; nothing is aligned.
    x : Series or DataFrame
        The input of `celu`, float32 or float64; with ``from_output=True`` its output.
    alpha : float, default 1.0
        As in `elufast.celu_backward`.
    from_output : bool, default False
        Whether x is the output of `celu`.
    num_threads : int, optional
        At most so many threads; by default as many as the work repays.

    Returns
    -------
    Series or DataFrame
        As x, with its labels, attributes and dtypes; NA where x is NA.

    Raises
    ------
    TypeError
        If grad or x is neither or has another dtype, or theirs differ.
    ValueError
        If grad and x differ in index or columns; if alpha is not finite or is 0, or not positive
        with ``from_output=True``.

    Examples
    --------
    >>> x = pd.Series([-1.0, 0.0, 2.0])
    >>> elufast.pandas.celu_backward(x * 0 + 1, x, 0.5).to_numpy()
    array([0.13533528, 1.        , 1.        ])
    """
    return _apply(elufast.celu_backward, x, grad, alpha=alpha, from_output=from_output, num_threads=num_threads)
