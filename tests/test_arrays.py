"""Arrays: layouts, byte orders, what is converted, what comes back, out and overlap."""

from __future__ import annotations

import array
import ctypes
import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from support import DTYPES, Array, Op, bits, bound, one_by_one, ops, sample

import elufast

OPS = ops()
FORWARD = Op("elu", 0.3, "forward")
BACKWARD = Op("elu", 0.3, "backward")
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def unaligned(a: Array) -> Array:
    """A copy of a that starts one byte past an element's alignment."""
    buffer = np.empty(a.nbytes + 1, np.uint8)
    view = buffer[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    assert a.size == 0 or not view.flags.aligned
    return view


def layouts(dtype: Any) -> dict[str, Array]:
    flat = sample(dtype, 5040, seed=20)
    cube = flat.reshape(7, 8, 9, 10)
    swapped = flat.astype(flat.dtype.newbyteorder())
    record = np.zeros(1000, np.dtype([("flag", "u1"), ("value", dtype)]))
    record["value"] = flat[:1000]
    return {
        "contiguous": flat,
        "C": cube,
        "Fortran": np.asfortranarray(cube),
        "reversed": flat[::-1],
        "strided": flat[3::5],
        "strided and reversed": flat[::-3],
        "inner axis strided": cube[..., ::2],
        "outer axis reversed": cube[::-1],
        "all axes reversed": cube[::-1, ::-1, ::-1, ::-1],
        "transposed": cube.transpose(2, 0, 3, 1),
        "sliced": cube[1:6, 2:7, ::3, 4:],
        "one column": cube.reshape(-1, 10)[:, 3],
        "unaligned": unaligned(flat),
        "unaligned and strided": unaligned(flat)[::7],
        "field of a structure": record["value"],
        "swapped": swapped,
        "swapped and reversed": swapped[::-1],
        "swapped and unaligned": unaligned(swapped),
        "broadcast": np.broadcast_to(flat[:600], (5, 600)),
        "broadcast inside": np.broadcast_to(flat[:600, None], (600, 4)),
        "zero stride": as_strided(flat, (3000,), (0,)),
        "windows": sliding_window_view(flat[:900], 5),
        "0-d": flat[17:18].reshape(()),
        "1 element": flat[17:18],
        "6-d": flat[:4096].reshape(4, 4, 4, 4, 4, 4)[:, ::-1, :, 1:3, :, ::2],
        "empty": flat[:0],
        "empty 3-d": np.empty((3, 0, 5), dtype),
        "empty strided": cube[:, 3:3, ::2],
    }


SHARED = ("broadcast", "broadcast inside", "zero stride", "windows")
LAYOUTS = list(layouts(np.float32))
by_layout = pytest.mark.parametrize("layout", LAYOUTS)
by_own_layout = pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in SHARED])


@by_dtype
@by_layout
@pytest.mark.parametrize("op", OPS, ids=str)
def test_layouts(op: Op, layout: str, dtype: Any, level: str) -> None:
    x = layouts(dtype)[layout]
    before = bits(x)
    grad = np.random.default_rng(21).standard_normal(x.shape).astype(x.dtype)
    contiguous, grad_contiguous = (a.astype(dtype, order="C") for a in (x, grad))
    expected = op(contiguous, grad_contiguous)
    for g in (grad, x) if op.backward else (grad,):
        if g is x:
            expected = op(contiguous, contiguous)
        got = op(x, g)
        assert bits(got) == bits(expected)
        assert got.dtype == dtype
        assert got.shape == x.shape
        assert bits(x) == before
        out = np.full_like(contiguous, 7)
        assert op(x, g, out=out) is out
        assert bits(out) == bits(expected)


@by_dtype
@by_own_layout
def test_layouts_of_out_and_grad(layout: str, dtype: Any, level: str) -> None:
    out = layouts(dtype)[layout]
    x, grad = sample(dtype, 2 * out.size, seed=22).reshape(2, *out.shape)
    for op in (FORWARD, BACKWARD):
        expected = op(x, grad)
        assert op(x, grad, out=out) is out
        assert bits(out) == bits(expected)
        reordered = x.copy(order="F")
        assert bits(op(reordered, grad)) == bits(expected)
        assert bits(op(reordered, layout_like(out, grad), out=out)) == bits(expected)


def layout_like(template: Array, values: Array) -> Array:
    """values in an array with the strides and the byte order of the template."""
    copy = np.empty_like(template)
    copy[...] = values
    return copy


@by_dtype
@by_own_layout
@pytest.mark.parametrize("op", ops("forward"), ids=str)
def test_in_place(op: Op, layout: str, dtype: Any, level: str) -> None:
    x = layouts(dtype)[layout]
    expected, kept = op(x.astype(dtype, order="C")), x.dtype
    assert op.inplace(x) is x
    assert bits(x) == bits(expected)
    assert x.dtype == kept


@by_dtype
@by_own_layout
@pytest.mark.parametrize("op", ops("backward", "from_output", alphas=(0.3,)), ids=str)
def test_backward_in_place(op: Op, layout: str, dtype: Any, level: str) -> None:
    for target in ("x", "grad"):
        x = layouts(dtype)[layout]
        grad = layout_like(x, np.random.default_rng(23).standard_normal(x.shape))
        expected = op(x.astype(dtype, order="C"), grad.astype(dtype, order="C"))
        out = x if target == "x" else grad
        assert op(x, grad, out=out) is out
        assert bits(out) == bits(expected)


@by_layout
def test_memory_order_is_kept(layout: str) -> None:
    x = layouts(np.float64)[layout]
    expected = np.negative(x)
    long = [k for k, n in enumerate(x.shape) if n > 1]
    for got in (elufast.elu(x), elufast.elu_backward(x, x), elufast.celu(x, 0.5, num_threads=2)):
        assert [got.strides[k] for k in long] == [expected.strides[k] for k in long]
        assert got.dtype == np.float64
        assert got.flags.owndata or got.base is not x


def test_byte_order() -> None:
    native = sample(np.float64, 1000, seed=24)
    swapped = native.astype(native.dtype.newbyteorder())
    result = elufast.elu(swapped)
    assert result.dtype.isnative
    assert bits(result) == bits(elufast.elu(native))
    assert bits(elufast.elu_backward(swapped, native)) == bits(elufast.elu_backward(native, swapped))
    out = np.empty_like(swapped)
    assert elufast.elu(native, out=out).dtype == swapped.dtype
    assert bits(out) == bits(result)
    assert elufast.elu_(swapped).dtype == out.dtype
    assert bits(swapped) == bits(result)


@by_dtype
@pytest.mark.parametrize("rows", [10, 70_000])
def test_memory_map(rows: int, dtype: Any, tmp_path: Path) -> None:
    path = tmp_path / "values"
    values = sample(dtype, 3 * rows, seed=25).reshape(rows, 3)
    values.tofile(path)
    expected = elufast.elu(values)
    mapped = np.memmap(path, dtype, "r+", shape=values.shape)
    assert bits(elufast.elu(mapped)) == bits(expected)
    assert type(elufast.elu(mapped)) is type(np.negative(mapped))
    assert elufast.elu_(mapped) is mapped
    mapped.flush()
    assert path.read_bytes() == bits(expected)
    read_only = np.memmap(path, dtype, "r", shape=values.shape)
    assert bits(elufast.elu(read_only)) == bits(elufast.elu(expected))
    with pytest.raises(ValueError, match="x is read-only"):
        elufast.elu_(read_only)
    with pytest.raises(ValueError, match="out is read-only"):
        elufast.elu(values, out=read_only)
    assert path.read_bytes() == bits(expected)
    private = np.memmap(path, dtype, "c", shape=values.shape)
    elufast.elu_(private)
    assert bits(private) == bits(elufast.elu(expected))
    assert path.read_bytes() == bits(expected)


class ArrayLike:
    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.values


class DLPackOnly:
    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()


class Interface:
    def __init__(self, values: Array) -> None:
        self.values = values
        self.__array_interface__ = values.__array_interface__


VALUES = [-2.0, -0.5, 0.0, 1.5]
CONVERTED = {
    "list": VALUES,
    "tuple": tuple(VALUES),
    "nested list": [VALUES[:2], VALUES[2:]],
    "list of scalars": [np.float32(v) for v in VALUES],
    "list of 0-d arrays": [np.array(v) for v in VALUES],
    "__array__": ArrayLike(VALUES),
    "__array__ float32": ArrayLike(np.array(VALUES, np.float32)),
    "__array_interface__": Interface(np.array(VALUES)),
    "array.array d": array.array("d", VALUES),
    "array.array f": array.array("f", VALUES),
    "memoryview": memoryview(array.array("d", VALUES)),
    "memoryview, strided": memoryview(array.array("d", VALUES))[::-2],
    "memoryview, read-only": memoryview(array.array("d", VALUES)).toreadonly(),
    "ctypes": (ctypes.c_double * 4)(*VALUES),
    "DLPack": DLPackOnly(VALUES),
    "DLPack, 2-d float32": DLPackOnly(np.array([VALUES], np.float32)),
    "DLPack, read-only": DLPackOnly(np.frombuffer(np.array(VALUES).tobytes())),
    "DLPack, strided": DLPackOnly(np.array(VALUES)[::-2]),
    "empty list": [],
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_numpy_converts(kind: str) -> None:
    given = CONVERTED[kind]
    x = np.array(given.values if isinstance(given, DLPackOnly) else given)
    before = bits(x)
    for op in OPS:
        expected = op(x)
        got = op(given)
        assert type(got) is np.ndarray
        assert got.dtype == x.dtype
        assert bits(got) == bits(expected)
        assert got.shape == x.shape
        out = np.empty_like(x)
        assert op(given, out=out) is out
        assert bits(out) == bits(expected)
    assert bits(given.values if isinstance(given, DLPackOnly) else given) == before


SCALARS = [
    -1.5,
    np.float32(-1.5),
    np.float64(-1.5),
    np.array(-1.5),
    np.array(-1.5, np.float32),
    np.array(-1.5, np.float64).astype(">f8"),
    ArrayLike(-1.5),
    DLPackOnly(-1.5),
    np.array([-1.5])[0:1].reshape(()),
]


@pytest.mark.parametrize("x", SCALARS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("op", OPS, ids=str)
def test_scalar_in_scalar_out(op: Op, x: Any) -> None:
    values = np.asarray(getattr(x, "values", x))
    dtype = values.dtype.type
    got = op(x)
    assert type(got) is dtype
    assert bits(got) == bits(op(values.astype(dtype).reshape(1)))
    out = np.empty((), dtype)
    assert op(x, out=out) is out
    assert bits(out) == bits(got)


def test_0_d_in_place() -> None:
    x = np.array(-1.0)
    assert elufast.elu_(x) is x
    assert x == np.expm1(-1.0)


@by_dtype
@pytest.mark.parametrize("size", [5, 200_000])
@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_masked_array(num_threads: int, size: int, dtype: Any) -> None:
    data, mask = sample(dtype, size, seed=26), np.arange(size) % 3 == 0
    x = np.ma.MaskedArray(data.copy(), mask.copy())
    got = elufast.elu(x, num_threads=num_threads)
    assert type(got) is np.ma.MaskedArray
    np.testing.assert_array_equal(got.mask, mask)
    assert bits(got.data) == bits(elufast.elu(data))
    assert elufast.elu_(x, num_threads=num_threads) is x
    np.testing.assert_array_equal(x.mask, mask)
    assert bits(x.data) == bits(elufast.elu(data))


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("num_threads", [1, 2, 4])
@pytest.mark.parametrize("columns", [4, 70_000])
def test_matrix(columns: int, num_threads: int) -> None:
    data = sample(np.float64, 2 * columns, seed=27).reshape(2, columns)
    x = np.matrix(data)
    got = elufast.elu(x, num_threads=num_threads)
    assert type(got) is np.matrix
    assert bits(got) == bits(elufast.elu(data))
    out = np.empty_like(x)
    assert elufast.elu_backward(x, x, out=out, num_threads=num_threads) is out
    assert bits(out) == bits(elufast.elu_backward(data, data))
    assert elufast.elu_(x, num_threads=num_threads) is x
    assert bits(x) == bits(got)


class Tagged(np.ndarray[Any, Any]):
    tag: str

    def __array_finalize__(self, other: Any) -> None:
        self.tag = getattr(other, "tag", "none")


def test_subclass() -> None:
    x: Any = sample(np.float64, 300, seed=28).view(Tagged)
    x.tag = "mine"
    for given in (x, x[::-2], x.reshape(10, 30).T):
        got = elufast.elu(given)
        assert (type(got), got.tag) == (Tagged, "mine")
        assert bits(got) == bits(elufast.elu(np.asarray(given)))
    assert elufast.elu_(x) is x


def moved(buffer: Array, start: int, step: int, size: int) -> Array:
    stop = start + step * size
    return buffer[start : stop if stop >= 0 else None : step]


SHIFTS = [(start, step) for start in (0, 1, 2, 7, 64, 2500, 4998, 4999) for step in (1, 2)]


@by_dtype
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reversed"])
@pytest.mark.parametrize(("start", "step"), SHIFTS)
def test_partial_overlap(start: int, step: int, reverse: bool, dtype: Any, level: str) -> None:
    """The result is as if out did not overlap, whichever of the two comes first in memory."""
    size = 5000
    values = sample(dtype, 3 * size, seed=29)
    for op in (FORWARD, BACKWARD):
        for swap in (False, True):
            buffer = values.copy()
            a = buffer[:size]
            b = moved(buffer, start, step, size)
            b = b[::-1] if reverse else b
            x, out = (b, a) if swap else (a, b)
            grad = sample(dtype, size, seed=30)
            expected = op(x.copy(), grad)
            assert op(x, grad, out=out) is out
            assert bits(out) == bits(expected)
            buffer[:] = values
            expected = BACKWARD(grad, x.copy())
            assert BACKWARD(grad, x, out=out) is out
            assert bits(out) == bits(expected)


def test_both_inputs_overlap_out(level: str) -> None:
    values = sample(np.float64, 6000, seed=31)
    for first, second, third in [(0, 1, 2), (2, 1, 0), (1, 0, 1), (0, 0, 1), (5, 3, 0), (0, 2, 1)]:
        buffer = values.copy()
        x, grad, out = (buffer[k : k + 5000] for k in (first, second, third))
        expected = BACKWARD(x.copy(), grad.copy())
        BACKWARD(x, grad, out=out)
        assert bits(out) == bits(expected)


INVOLUTIONS: list[Callable[[Array], Array]] = [
    lambda a: a.T,
    lambda a: a[::-1],
    lambda a: a[:, ::-1],
    lambda a: a[::-1, ::-1].T,
]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_transposed_onto_itself(num_threads: int, level: str) -> None:
    values = sample(np.float64, 300 * 300, seed=32).reshape(300, 300)
    for view in INVOLUTIONS:
        x = values.copy()
        elufast.elu(x, out=view(x), num_threads=num_threads)
        assert bits(x) == bits(view(elufast.elu(values)))
        x = values.copy()
        elufast.elu(view(x), out=x, num_threads=num_threads)
        assert bits(x) == bits(elufast.elu(view(values)))


def test_out_with_another_byte_order_in_the_same_memory(level: str) -> None:
    x = sample(np.float64, 5000, seed=33)
    expected = elufast.elu(x)
    out = x.view(x.dtype.newbyteorder())
    elufast.elu(x, out=out)
    assert bits(out) == bits(expected)


def test_out_shifted_by_a_byte(level: str) -> None:
    buffer = np.zeros(40_001, np.uint8)
    for first, second in [(0, 1), (1, 0)]:
        x = buffer[first : first + 40_000].view(np.float64)
        x[:] = sample(np.float64, 5000, seed=34)
        expected = elufast.elu(x.copy())
        out = buffer[second : second + 40_000].view(np.float64)
        elufast.elu(x, out=out)
        assert bits(out) == bits(expected)


@pytest.mark.parametrize("size", [100, 5000, 70_000])
def test_array_whose_elements_share_memory(size: int, level: str) -> None:
    """In place the function is applied once to what each element was, as by NumPy's ufuncs."""
    base = np.linspace(-3, -1, size)
    expected = elufast.elu(base)
    windows = sliding_window_view(base, 3, writeable=True)
    assert elufast.elu_(windows) is windows
    np.testing.assert_array_equal(base, expected)
    base = np.linspace(-3, -1, size)
    windows = sliding_window_view(base, 3, writeable=True)
    elufast.elu(windows, out=windows)
    np.testing.assert_array_equal(base, expected)
    one = np.array([-1.0])
    elufast.elu_(as_strided(one, (size,), (0,)))
    assert one[0] == np.expm1(-1.0)
    gradient = np.array([0.5])
    repeated = as_strided(gradient, (size,), (0,))
    elufast.elu_backward(repeated, np.full(size, -1.0), out=repeated)
    assert gradient[0] == elufast.elu_backward(0.5, -1.0)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[::2],
        lambda a: a[::-1],
        lambda a: a.reshape(1000, -1).T,
        lambda a: a.reshape(1000, -1)[:, ::3],
        lambda a: a.view(a.dtype.newbyteorder()),
        lambda a: a.view(np.uint8)[1:-7].view(np.float64),
    ],
    ids=["contiguous", "strided", "reversed", "transposed", "columns", "swapped", "unaligned"],
)
def test_extra_memory_is_bounded(view: Any) -> None:
    x, grad, out = (view(np.zeros(1_000_000)) for _ in range(3))
    elufast.elu(x, out=out, num_threads=1)
    gc.collect()
    tracemalloc.start()
    try:
        elufast.elu(x, out=out, num_threads=1)
        elufast.elu_backward(grad, x, out=out, num_threads=1)
        elufast.elu_(x, num_threads=1)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_interleaved_arrays_are_not_copied() -> None:
    buffer = np.zeros(2_000_000)
    x, out = buffer[::2], buffer[1::2]
    tracemalloc.start()
    try:
        elufast.elu(x, out=out, num_threads=1)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_one_by_one_is_the_same(level: str) -> None:
    x = sample(np.float32, 600, seed=35).reshape(20, 30).T
    for op in OPS:
        assert bits(op(x)) == bits(one_by_one(op, x))


ROWS = {
    "reversed": lambda a: a[::-1],
    "reversed in the middle": lambda a: a[:, ::-1],
    "cropped": lambda a: a[1:, 1:4, 5:336],
    "cropped and transposed": lambda a: a[:, 1:, 3:].T,
    "other order": lambda a: a.transpose(1, 0, 2),
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "every other": lambda a: a[::2],
}


@by_dtype
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("layout", ROWS)
def test_long_rows(layout: str, stream: bool, dtype: Any, level: str) -> None:
    """What is contiguous along one axis goes by rows, to threads and through streaming stores too."""
    view: Any = ROWS[layout]
    x, grad = (view(sample(dtype, 80 * 5 * 340, seed=s).reshape(80, 5, 340)) for s in (36, 37))
    with bound(level, 1 if stream else None):
        for op in OPS:
            expected = bits(op(np.ascontiguousarray(x), np.ascontiguousarray(grad)))
            for num_threads in (1, 3):
                assert bits(op(x, grad, num_threads=num_threads)) == expected
                order = np.ndarray.transpose if layout == "cropped and transposed" else np.asarray
                shape = order(x).shape
                target = order(np.full((*shape[:-1], shape[-1] + 3), 7, dtype)[..., 1:-2])
                assert bits(op(x, grad, out=target, num_threads=num_threads)) == expected
                assert (target.base == 7).sum() >= target.base.size - target.size
                if layout != "broadcast":
                    own = view(np.zeros((80, 5, 340), dtype))
                    own[...] = x
                    op(own, grad, out=own, num_threads=num_threads)
                    assert bits(own) == expected


@by_dtype
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("size", [75, 700, 3000])
def test_rows_that_are_fetched_ahead(size: int, stream: bool, dtype: Any, level: str) -> None:
    """Rows with gaps, reversed, of more bytes than the near caches hold."""
    count = 8_400_000 // (size * np.dtype(dtype).itemsize)
    x, grad = (np.resize(sample(dtype, 5003, s), (count, size + 5))[::-1, 2:-3] for s in (38, 39))
    some = (FORWARD, BACKWARD)
    expected = [op(np.ascontiguousarray(x), np.ascontiguousarray(grad)) for op in some]
    assert x.nbytes > 8_000_000
    with bound(level, 1 if stream else None):
        for op, result in zip(some, expected, strict=True):
            target = np.full((count, size + 5), 7, dtype)
            for num_threads in (1, 3):
                assert bits(op(x, grad, out=target[:, 1:-4], num_threads=num_threads)) == bits(result)
            assert (target[:, [0, -4, -3, -2, -1]] == 7).all()
            if op.backward:
                target[:, 1:-4] = grad
                op(x, target[:, 1:-4], out=target[:, 1:-4])
                assert bits(target[:, 1:-4]) == bits(result)
