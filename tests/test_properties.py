"""Any shape, strides, byte order, value and overlap gives the bits of each element passed alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DTYPES, Array, Op, bits, bound, one_by_one, specials

from elufast import _dispatch

MEMORY = 4096

levels = st.sampled_from(_dispatch.built_levels())
num_threads = st.sampled_from([None, 1, 2, 4])
alphas = st.one_of(
    st.sampled_from([1.0, 0.3, 0.1, 2.5, 1e-40, 1e40]),
    st.floats(min_value=1e-3, max_value=1e3),
)
families = st.sampled_from(["elu", "selu", "celu"])
functions = st.builds(
    Op,
    families,
    st.one_of(alphas, alphas.map(lambda alpha: -alpha)),
    st.sampled_from(["forward", "backward"]),
) | st.builds(Op, families, alphas, st.just("from_output"))


class Layout(NamedTuple):
    """Where an array lies in a stretch of memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    swapped: bool

    def place(self, memory: Array, dtype: Any) -> Array:
        native = np.dtype(dtype)
        array: Array = np.ndarray(
            self.shape,
            native.newbyteorder() if self.swapped else native,
            memory,
            self.offset,
            self.strides,
        )
        return array


@st.composite
def shapes(draw: st.DrawFn, most: int = 200) -> tuple[int, ...]:
    shape: list[int] = []
    for _ in range(draw(st.integers(0, 6))):
        least = 0 if draw(st.sampled_from([False] * 9 + [True])) else 1
        shape.append(draw(st.integers(least, min(most, 12 if shape else most))))
        most //= max(1, shape[-1])
    return tuple(draw(st.permutations(shape)))


@st.composite
def layouts(draw: st.DrawFn, shape: tuple[int, ...], itemsize: int, apart: bool) -> Layout:
    """Axes in any order and direction, with gaps of any number of bytes.

    ``apart``: no two elements share a byte; otherwise strides may also be zero or less than an
    element.
    """
    strides = [0] * len(shape)
    extent = itemsize
    for axis in draw(st.permutations(range(len(shape)))):
        gap = draw(st.sampled_from([0, 0, 0, 1, itemsize, 3, 2 * itemsize]))
        if extent * max(1, shape[axis]) + gap * shape[axis] > MEMORY // 2:
            gap = 0
        stride = extent + gap
        if not apart:
            stride = draw(st.sampled_from([stride, stride, 0, 1, itemsize]))
        strides[axis] = stride * draw(st.sampled_from([1, 1, -1]))
        extent = max(extent, abs(stride) * max(0, shape[axis] - 1) + extent)
    low = sum(min(0, s * (n - 1)) for s, n in zip(strides, shape, strict=True) if n)
    start = draw(st.sampled_from([0, 0, 1, itemsize, 7, 64]))
    return Layout(shape, tuple(strides), start - low, draw(st.sampled_from([False, False, True])))


@st.composite
def memories(draw: st.DrawFn, dtype: Any) -> Array:
    """Bytes that are elements of every class, from a drawn seed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = 4 * MEMORY // np.dtype(dtype).itemsize
    kind = draw(st.sampled_from(["normal", "specials", "bits", "near zero", "saturated"]))
    if kind == "normal":
        values = rng.standard_normal(n) * 3
    elif kind == "specials":
        values = rng.choice(specials(dtype), n)
    elif kind == "bits":
        return rng.integers(0, 256, 4 * MEMORY, np.uint8)
    elif kind == "near zero":
        values = rng.standard_normal(n) * np.exp(rng.uniform(-80, 0, n))
    else:
        values = rng.uniform(-800, 0, n)
    memory: Array = values.astype(dtype).view(np.uint8)
    return memory


def same(got: Array, expected: Array) -> None:
    """Equal to the bit, NaN counted as one value."""
    assert got.shape == expected.shape
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), ~number)
    assert bits(got[number]) == bits(expected[number])


@settings(max_examples=400)
@given(st.data(), functions, st.sampled_from(DTYPES), levels, num_threads)
def test_new_result(data: st.DataObject, op: Op, dtype: Any, level: str, threads: Any) -> None:
    shape = data.draw(shapes())
    itemsize = np.dtype(dtype).itemsize
    x, grad = (
        data.draw(layouts(shape, itemsize, apart=False)).place(data.draw(memories(dtype)), dtype) for _ in range(2)
    )
    kept = bits(x), bits(grad)
    with bound(level):
        got = op(x, grad, num_threads=threads)
        same(np.asarray(got), one_by_one(op, x, grad))
    assert got.dtype == dtype
    assert (bits(x), bits(grad)) == kept


@settings(max_examples=400)
@given(st.data(), functions, st.sampled_from(DTYPES), levels, num_threads)
def test_out_anywhere(data: st.DataObject, op: Op, dtype: Any, level: str, threads: Any) -> None:
    """x, grad and out may share memory in any way; bytes of out's gaps stay as they are."""
    shape = data.draw(shapes())
    itemsize = np.dtype(dtype).itemsize
    memory = data.draw(memories(dtype))
    others = memory if data.draw(st.booleans()) else memory.copy()
    x = data.draw(layouts(shape, itemsize, apart=False)).place(memory, dtype)
    grad = data.draw(layouts(shape, itemsize, apart=False)).place(others, dtype)
    out = data.draw(layouts(shape, itemsize, apart=True)).place(memory, dtype)
    with bound(level):
        expected = one_by_one(op, x.copy(), grad.copy())
        marked = memory.copy()
        place = np.ndarray(shape, out.dtype, marked, out.ctypes.data - memory.ctypes.data, out.strides)
        assert op(x, grad, out=out, num_threads=threads) is out
        same(out, expected)
    place[...] = out
    np.testing.assert_array_equal(marked, memory)


@settings(max_examples=300)
@given(st.data(), functions, st.sampled_from(DTYPES), levels, num_threads)
def test_in_place(data: st.DataObject, op: Op, dtype: Any, level: str, threads: Any) -> None:
    shape = data.draw(shapes())
    layout = data.draw(layouts(shape, np.dtype(dtype).itemsize, apart=True))
    x = layout.place(data.draw(memories(dtype)), dtype)
    grad = layout.place(data.draw(memories(dtype)), dtype)
    with bound(level):
        expected = one_by_one(op, x, grad)
        if op.mode == "forward":
            assert op.inplace(x, num_threads=threads) is x
            same(x, expected)
        else:
            out = data.draw(st.sampled_from([x, grad]))
            assert op(x, grad, out=out, num_threads=threads) is out
            same(out, expected)


@settings(max_examples=60)
@given(
    st.data(),
    functions,
    st.sampled_from(DTYPES),
    levels,
    st.integers(4097, 90_000),
    st.sampled_from([1, 1 << 40]),
    num_threads,
)
def test_large(
    data: st.DataObject,
    op: Op,
    dtype: Any,
    level: str,
    size: int,
    cache_bytes: int,
    threads: Any,
) -> None:
    """Blocks, threads and streaming stores, from any start: a sample of the elements alone."""
    values = np.tile(data.draw(memories(dtype)).view(dtype), 100)[: size + 96]
    start, stop = data.draw(st.integers(0, 32)), size + data.draw(st.integers(0, 32))
    step = data.draw(st.sampled_from([1, 1, 1, -1, 2, -3]))
    x, grad = values[start:stop][::step], values[::-1][start:stop][::step]
    room = np.empty_like(values)
    out = room[32 - start :][: x.size]
    with bound(level, cache_bytes):
        op(x, grad, out=out, num_threads=threads)
    picked = np.random.default_rng(size).integers(0, x.size, 300)
    with bound(level):
        same(out[picked], one_by_one(op, x[picked], grad[picked]))


@settings(max_examples=300)
@given(
    st.tuples(*[st.floats(width=32, allow_nan=False)] * 2),
    st.builds(Op, families, alphas, st.just("forward")),
    st.sampled_from(DTYPES),
    levels,
)
def test_order_sign_and_limit(pair: tuple[float, float], op: Op, dtype: Any, level: str) -> None:
    low, high = sorted(map(dtype, pair))
    with bound(level), np.errstate(over="ignore"):
        y_low, y_high = op(low), op(high)
        limit = -dtype(float(op.scalars()[0]))
    assert y_low <= y_high
    assert y_low >= limit
    assert np.signbit(y_low) == np.signbit(low)
    if op.family != "selu" and high >= 0:
        assert y_high == high
