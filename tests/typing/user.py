"""Read by mypy and pyright, never run: a line that they must refuse ends with `# error`, and no other."""

import array
import decimal
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import elufast


class Series:
    """Converts, as those of pandas do, to an array of a dtype that is known at run time."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        raise NotImplementedError


Mapped = np.memmap[tuple[int, ...], np.dtype[np.float32]]


def right(
    half: NDArray[np.float16],
    single: NDArray[np.float32],
    double: NDArray[np.float64],
    unknown: NDArray[Any],
    mapped: Mapped,
    out: NDArray[np.float32],
) -> None:
    # Arrays and scalars: the dtype stays.
    assert_type(elufast.elu(single), NDArray[np.float32])
    assert_type(elufast.elu(half), NDArray[np.float16])
    assert_type(elufast.elu(double, 0.5, num_threads=2), NDArray[np.float64])
    assert_type(elufast.elu(double, double, bias=double), NDArray[np.float64])
    assert_type(elufast.selu(half, bias=single), NDArray[np.float16])
    assert_type(elufast.celu(double, np.float32(0.5)), NDArray[np.float64])
    assert_type(elufast.celu(double, 2), NDArray[np.float64])
    assert_type(elufast.selu(1.0), np.float64)
    assert_type(elufast.selu(np.float64(1)), np.float64)
    assert_type(elufast.selu(np.float32(1)), np.float32)
    assert_type(elufast.elu_backward(single, single, from_output=True), NDArray[np.float32])
    assert_type(elufast.celu_backward(double, double, 0.5), NDArray[np.float64])
    assert_type(elufast.selu_backward(1.0, 2.0), np.float64)
    assert_type(elufast.elu_backward(np.float32(1), np.float32(2)), np.float32)

    # What numpy.asarray takes.
    assert_type(elufast.celu([1.0, -1.0]), NDArray[np.float64])
    assert_type(elufast.celu([[1.0], [2.0]]), NDArray[np.float64])
    assert_type(elufast.celu((1.0, -1.0)), NDArray[np.float64])
    assert_type(elufast.selu_backward([1.0], [-1.0]), NDArray[np.float64])
    assert_type(elufast.elu([single, single]), NDArray[np.float32])
    assert_type(elufast.elu(array.array("d", [1.0])), NDArray[np.float64])
    # What another library's array becomes, that library decides.
    assert_type(elufast.elu(Series()), Any)
    assert_type(elufast.elu_backward(Series(), Series()), Any)
    assert_type(elufast.ufuncs.elu, np.ufunc)

    # out is what comes back, of its own type.
    assert_type(elufast.elu(single, out=out), NDArray[np.float32])
    assert_type(elufast.celu([1.0, 2.0], out=double), NDArray[np.float64])
    assert_type(elufast.selu_backward(single, single, out=out), NDArray[np.float32])
    assert_type(elufast.elu(single, out=mapped), np.ndarray[tuple[int, ...], np.dtype[np.float32]])
    assert_type(elufast.elu_(elufast.elu(single, out=out)), NDArray[np.float32])
    assert_type(elufast.selu_(mapped), Mapped)

    assert_type(elufast.get_num_threads(), int)
    assert_type(elufast.SELU_ALPHA, float)
    assert_type(elufast.get_include(), str)


def wrong(
    single: NDArray[np.float32],
    double: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    elufast.elu("1.0")  # error
    elufast.elu(b"1.0")  # error
    elufast.elu(["1.0"])  # error
    elufast.elu(np.ones(3, np.int64))  # error
    elufast.elu(np.ones(3, np.longdouble))  # error
    elufast.elu(single, bias="1")  # error
    elufast.elu(np.ones(3, np.complex128))  # error
    elufast.elu(np.int64(1))  # error
    elufast.elu(1j)  # error
    elufast.elu(None)  # error
    elufast.elu(decimal.Decimal(1))  # error
    elufast.elu(single, alpha="1")  # error
    elufast.elu(single, alpha=1j)  # error
    elufast.elu(single, out=np.empty(3))  # error
    elufast.celu(double, out=out)  # error
    elufast.celu([1.0], out=out)  # error
    elufast.selu(single, out=np.empty(3, np.int64))  # error
    elufast.selu(single, out=[0.0])  # error
    elufast.selu(single, 1.0)  # error
    elufast.elu(single, 1.0, out)  # error
    elufast.elu(single, num_threads=1.5)  # error
    elufast.elu_([1.0])  # error
    elufast.elu_(np.ones(3, np.int64))  # error
    elufast.elu_backward(single)  # error
    elufast.elu_backward(single, double)  # error
    elufast.elu_backward(single, single, from_output=1)  # error
    elufast.elu_backward(single, single, out=np.empty(3))  # error
    elufast.set_num_threads("2")  # error
    elufast.relu(single)  # error
