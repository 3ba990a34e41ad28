"""ELU, SELU and CELU for Dask arrays: lazy, one task a chunk, nothing gathered.

The functions are those of `elufast` for `dask.array.Array`. Dtype, shape and chunks are kept, and
what is wrong with the arguments is an error when the graph is built. A chunk is computed by one
thread, for Dask runs a chunk on every core already; ``num_threads`` is for workers with cores to
spare.

>>> import dask.array as da
>>> import elufast.dask
>>> x = da.linspace(-1, 1, 1_000_000, chunks=250_000)
>>> elufast.dask.elu(x)
dask.array<elu, shape=(1000000,), dtype=float64, chunksize=(250000,), chunktype=numpy.ndarray>
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dask.array as da

import elufast
from elufast import _api

if TYPE_CHECKING:
    from elufast._entry import _Real, _Threads

__all__ = ["celu", "celu_backward", "elu", "elu_backward", "selu", "selu_backward"]


def _map(function: Callable[..., Any], x: da.Array, grad: da.Array | None = None, **options: Any) -> da.Array:
    name = function.__name__
    second = "y" if options.get("from_output") is True else "x"
    arrays = {second: x} if grad is None else {"grad": grad, second: x}
    for argument, array in arrays.items():
        if not isinstance(array, da.Array):
            raise TypeError(
                f"{name}: {argument} must be a dask.array.Array, got {type(array).__name__}; pass "
                f"da.from_array({argument}), or use elufast.{name}, which takes NumPy arrays"
            )
    if grad is not None:
        # A length is NaN where Dask does not know it yet; each task then compares its own chunks.
        if grad.ndim != x.ndim or any(
            m != n and not math.isnan(m + n) for m, n in zip(grad.shape, x.shape, strict=True)
        ):
            _api._same(name, "grad", grad, second, x)
        arrays["grad"] = grad.rechunk(
            {k: x.chunks[k] for k in range(x.ndim) if not math.isnan(grad.shape[k] + x.shape[k])}
        )
    # The call that every task will make, on no elements: it gives the meta and raises what the tasks would.
    meta = function(*(array._meta for array in arrays.values()), **options)
    return da.map_blocks(function, *arrays.values(), dtype=meta.dtype, meta=meta, **options)


def elu(x: da.Array, alpha: _Real = 1.0, *, num_threads: _Threads = 1) -> da.Array:
    """Exponential linear unit of a Dask array.

    Parameters
    ----------
    x : dask.array.Array
        Float32 or float64, of any shape and chunks.
    alpha : float, default 1.0
        As in `elufast.elu`.
    num_threads : int or None, default 1
        At most so many threads for one chunk; None for as many as the work repays.

    Returns
    -------
    dask.array.Array
        Lazy, with the shape, dtype and chunks of x.

    Raises
    ------
    TypeError
        If x is not a Dask array or has another dtype.
    ValueError
        If alpha is not finite.

    Examples
    --------
    >>> x = da.from_array(np.array([-1.0, 0.0, 2.0]), chunks=2)
    >>> elufast.dask.elu(x).compute()
    array([-0.63212056,  0.        ,  2.        ])
    """
    return _map(elufast.elu, x, alpha=alpha, num_threads=num_threads)


def selu(x: da.Array, *, num_threads: _Threads = 1) -> da.Array:
    """Scaled exponential linear unit of a Dask array.

    Parameters
    ----------
    x : dask.array.Array
        Float32 or float64, of any shape and chunks.
    num_threads : int or None, default 1
        At most so many threads for one chunk; None for as many as the work repays.

    Returns
    -------
    dask.array.Array
        Lazy, with the shape, dtype and chunks of x.

    Raises
    ------
    TypeError
        If x is not a Dask array or has another dtype.

    Examples
    --------
    >>> x = da.from_array(np.array([-1.0, 0.0, 2.0]), chunks=2)
    >>> elufast.dask.selu(x).compute()
    array([-1.11133074,  0.        ,  2.10140197])
    """
    return _map(elufast.selu, x, num_threads=num_threads)


def celu(x: da.Array, alpha: _Real = 1.0, *, num_threads: _Threads = 1) -> da.Array:
    """Continuously differentiable exponential linear unit of a Dask array.

    Parameters
    ----------
    x : dask.array.Array
        Float32 or float64, of any shape and chunks.
    alpha : float, default 1.0
        As in `elufast.celu`.
    num_threads : int or None, default 1
        At most so many threads for one chunk; None for as many as the work repays.

    Returns
    -------
    dask.array.Array
        Lazy, with the shape, dtype and chunks of x.

    Raises
    ------
    TypeError
        If x is not a Dask array or has another dtype.
    ValueError
        If alpha is not finite or is 0.

    Examples
    --------
    >>> x = da.from_array(np.array([-1.0, 0.0, 2.0]), chunks=2)
    >>> elufast.dask.celu(x, 0.5).compute()
    array([-0.43233236,  0.        ,  2.        ])
    """
    return _map(elufast.celu, x, alpha=alpha, num_threads=num_threads)


def elu_backward(
    grad: da.Array,
    x: da.Array,
    alpha: _Real = 1.0,
    *,
    from_output: bool = False,
    num_threads: _Threads = 1,
) -> da.Array:
    """Gradient of `elu`: grad times the derivative at x.

    Parameters
    ----------
    grad : dask.array.Array
        The shape and dtype of x; it is rechunked where its chunks differ.
    x : dask.array.Array
        The input of `elu`, float32 or float64; with ``from_output=True`` its output.
    alpha : float, default 1.0
        As in `elufast.elu_backward`.
    from_output : bool, default False
        Whether x is the output of `elu`.
    num_threads : int or None, default 1
        At most so many threads for one chunk; None for as many as the work repays.

    Returns
    -------
    dask.array.Array
        Lazy, with the shape, dtype and chunks of x.

    Raises
    ------
    TypeError
        If grad or x is not a Dask array or has another dtype, or theirs differ.
    ValueError
        If grad and x differ in shape; if alpha is not finite, or not positive with ``from_output=True``.

    Examples
    --------
    >>> x = da.from_array(np.array([-1.0, 0.0, 2.0]), chunks=2)
    >>> elufast.dask.elu_backward(da.ones_like(x), x).compute()
    array([0.36787944, 1.        , 1.        ])
    """
    return _map(elufast.elu_backward, x, grad, alpha=alpha, from_output=from_output, num_threads=num_threads)


def selu_backward(
    grad: da.Array,
    x: da.Array,
    *,
    from_output: bool = False,
    num_threads: _Threads = 1,
) -> da.Array:
    """Gradient of `selu`: grad times the derivative at x.

    Parameters
    ----------
    grad : dask.array.Array
        The shape and dtype of x; it is rechunked where its chunks differ.
    x : dask.array.Array
        The input of `selu`, float32 or float64; with ``from_output=True`` its output.
    from_output : bool, default False
        Whether x is the output of `selu`.
    num_threads : int or None, default 1
        At most so many threads for one chunk; None for as many as the work repays.

    Returns
    -------
    dask.array.Array
        Lazy, with the shape, dtype and chunks of x.

    Raises
    ------
    TypeError
        If grad or x is not a Dask array or has another dtype, or theirs differ.
    ValueError
        If grad and x differ in shape.

    Examples
    --------
    >>> x = da.from_array(np.array([-1.0, 0.0, 2.0]), chunks=2)
    >>> elufast.dask.selu_backward(da.ones_like(x), x).compute()
    array([0.6467686 , 1.75809934, 1.05070099])
    """
    return _map(elufast.selu_backward, x, grad, from_output=from_output, num_threads=num_threads)


def celu_backward(
    grad: da.Array,
    x: da.Array,
    alpha: _Real = 1.0,
    *,
    from_output: bool = False,
    num_threads: _Threads = 1,
) -> da.Array:
    """Gradient of `celu`: grad times the derivative at x.

    Parameters
    ----------
    grad : dask.array.Array
        The shape and dtype of x; it is rechunked where its chunks differ.
    x : dask.array.Array
        The input of `celu`, float32 or float64; with ``from_output=True`` its output.
    alpha : float, default 1.0
        As in `elufast.celu_backward`.
    from_output : bool, default False
        Whether x is the output of `celu`.
    num_threads : int or None, default 1
        At most so many threads for one chunk; None for as many as the work repays.

    Returns
    -------
    dask.array.Array
        Lazy, with the shape, dtype and chunks of x.

    Raises
    ------
    TypeError
        If grad or x is not a Dask array or has another dtype, or theirs differ.
    ValueError
        If grad and x differ in shape; if alpha is not finite or is 0, or not positive with
        ``from_output=True``.

    Examples
    --------
    >>> x = da.from_array(np.array([-1.0, 0.0, 2.0]), chunks=2)
    >>> elufast.dask.celu_backward(da.ones_like(x), x, 0.5).compute()
    array([0.13533528, 1.        , 1.        ])
    """
    return _map(elufast.celu_backward, x, grad, alpha=alpha, from_output=from_output, num_threads=num_threads)
