"""Arrays of other libraries, by their own ``__array_ufunc__``, and what no protocol can do for them. Imports none of
these libraries: where an object of theirs arrives, it is imported already."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np


def speaks(value: Any) -> bool:
    """Whether its type has an ``__array_ufunc__``, and is not NumPy's own array, memory map or scalar."""
    kind = type(value)
    numpys = kind is np.ndarray or kind is np.memmap or issubclass(kind, np.generic)
    return not numpys and getattr(kind, "__array_ufunc__", None) is not None


def _is(value: Any, module: str, name: str) -> bool:
    """Whether it is of this class, without an import."""
    return isinstance(value, getattr(sys.modules.get(module), name, ()))


def _is_arrow(value: Any) -> bool:
    return _is(getattr(value, "dtype", None), "pandas", "ArrowDtype")


def is_half(value: Any) -> bool:
    """Whether some of it is in half precision."""
    dtypes = [value.dtype] if hasattr(type(value), "dtype") else getattr(value, "dtypes", ())  # of a DataFrame, Dataset
    dtypes = dtypes.values() if isinstance(dtypes, Mapping) else dtypes
    return any(isinstance(dtype, np.dtype) and dtype.itemsize == 2 for dtype in dtypes)


def apply(ufunc: Any, operands: tuple[Any, ...], **options: Any) -> Any:
    """The ufunc of operands of which one at least speaks the protocol."""
    frames = [operand for operand in operands if _is(operand, "pandas", "DataFrame")]
    if frames and not options and not any(_is(operand, "pandas", "Series") for operand in operands):
        return _columns(ufunc, operands, frames)
    if any(map(_is_arrow, operands)):
        return _arrow(ufunc, operands, options)
    if any(_is(operand, "astropy.units", "Quantity") for operand in operands):
        _teach_units(ufunc)
    # Each with a mask of its own, for NumPy gives a ufunc's result the very mask of a single operand.
    own = (x.view().unshare_mask() if _is(x, "numpy.ma", "MaskedArray") else x for x in operands)
    return ufunc(*own, **options)


def _columns(ufunc: Any, operands: tuple[Any, ...], frames: list[Any]) -> Any:
    """pandas makes one array of a DataFrame and a number: columns of two dtypes meet, and NA is an error."""
    first, *others = frames
    for k, other in enumerate(others, 1):  # as pandas aligns the operands of its own
        first, frames[k] = first.align(other)
    aligned = iter([first, *(other.align(first)[0] for other in frames[1:])])
    operands = tuple(next(aligned) if _is(x, "pandas", "DataFrame") else x for x in operands)
    result = first.copy(deep=False)

    def cut(x: Any, k: int) -> Any:
        if _is(x, "pandas", "DataFrame"):
            return x.iloc[:, k]
        return np.broadcast_to(x, first.shape, subok=True)[:, k] if np.ndim(x) else x

    for k in range(first.shape[1]):  # labels may repeat
        result.isetitem(k, apply(ufunc, tuple(cut(x, k) for x in operands)))
    return result


def _arrow(ufunc: Any, operands: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """PyArrow's numbers in pandas give such; pandas itself would give NumPy's, and NaN for NA."""
    own = (x.astype("Float32" if x.dtype == "float[pyarrow]" else "Float64") if _is_arrow(x) else x for x in operands)
    result = apply(ufunc, tuple(own), **options)
    return result.astype(f"{result.dtype.name.lower()}[pyarrow]")


def _teach_units(ufunc: Any) -> None:
    """Tell astropy what a function it does not know takes and gives: numbers without a unit."""
    units: Any = sys.modules["astropy.units"]
    helper: Any = sys.modules["astropy.units.quantity_helper"]

    def dimensionless(ufunc: Any, *given: Any) -> tuple[list[Any], Any]:
        plain = units.dimensionless_unscaled
        if refused := [str(unit) for unit in given if unit is not None and not unit.is_equivalent(plain)]:
            told = f"{ufunc.__name__} takes quantities without a dimension, got {', '.join(refused)}"
            raise units.UnitTypeError(f"{told}; divide by a unit first")
        return [None if unit is None else helper.helpers.get_converter(unit, plain) for unit in given], plain

    helper.UFUNC_HELPERS.setdefault(ufunc, dimensionless)
