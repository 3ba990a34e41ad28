"""Same bits: wherever an element stands, however many threads, whichever stores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import DTYPES, Array, Op, bind, bits, bound, one_by_one, ops, sample

import elufast
from elufast import _dispatch

OPS = [op for op in ops() if (op.family, op.alpha) != ("celu", 1.0)]  # CELU of alpha 1 is ELU
FUSED = [level for level in _dispatch.built_levels() if level != "base"]
LARGE = 140_003
by_dtype = pytest.mark.parametrize("dtype", DTYPES)
by_op = pytest.mark.parametrize("op", OPS, ids=str)


def pair(dtype: Any, size: int) -> tuple[Array, Array]:
    return sample(dtype, size, seed=40), sample(dtype, size, seed=41)


@by_dtype
@by_op
def test_every_length_at_every_offset(op: Op, dtype: Any, level: str) -> None:
    x, grad = pair(dtype, 316)
    expected = bits(one_by_one(op, x, grad))
    size = x.itemsize
    for offset in range(16):
        for n in range(301):
            stop = offset + n
            got = op(x[offset:stop], grad[offset:stop])
            assert bits(got) == expected[offset * size : stop * size], (offset, n)


@by_dtype
@by_op
def test_every_offset_of_out(op: Op, dtype: Any, level: str) -> None:
    """Nothing beside out is written, wherever it starts."""
    x, grad = pair(dtype, 300)
    expected = one_by_one(op, x, grad)
    for offset in range(16):
        for n in (*range(40), 63, 64, 65, 127, 200, 255, 257, 300):
            out = np.full(332, 7, dtype)
            op(x[:n], grad[:n], out=out[offset : offset + n])
            assert bits(out[offset : offset + n]) == bits(expected[:n])
            assert (out[:offset] == 7).all()
            assert (out[offset + n :] == 7).all()


def variants(x: Array) -> dict[str, Array]:
    """The same elements in the same order, laid out otherwise."""
    n = x.size
    raw = np.zeros(x.nbytes + 64, np.uint8)
    apart = np.zeros(3 * n, x.dtype)
    result = {
        "contiguous": x.copy(),
        "reversed": x[::-1].copy()[::-1],
        "swapped": x.astype(x.dtype.newbyteorder()),
        "strided": apart[::3],
        "strided and reversed": apart[1::3][::-1],
    }
    for shift in (1, 4, 20):
        result[f"shifted by {shift} bytes"] = raw[shift : shift + x.nbytes].view(x.dtype)
        result[f"shifted by {shift} bytes"][...] = x
        raw = raw.copy()
    for name in ("strided", "strided and reversed"):
        result[name][...] = x
    return result


@by_dtype
@by_op
def test_layout_threads_and_stores(op: Op, dtype: Any, level: str) -> None:
    """Large enough for 4 threads; a cache of 1 byte makes all contiguous calls stream."""
    x, grad = pair(dtype, LARGE)
    bind(level)
    expected = op(x, grad, num_threads=1)
    some = np.random.default_rng(42).integers(0, LARGE, 400)
    assert bits(expected[some]) == bits(one_by_one(op, x[some], grad[some]))
    reference = bits(expected)
    others = variants(grad)
    for cache_bytes in (1, 1 << 40):
        bind(level, cache_bytes)
        for num_threads in (1, 2, 3, 4):
            for name, given in variants(x).items():
                if name != "contiguous" and (cache_bytes == 1 or num_threads not in (1, 3)):
                    continue
                assert bits(op(given, grad, num_threads=num_threads)) == reference, name
                if op.backward:
                    got = op(given, others[name], num_threads=num_threads)
                    assert bits(got) == reference, name
                out = variants(np.full_like(x, 7))[name]
                op(x, grad, out=out, num_threads=num_threads)
                assert bits(out) == reference, name
                if op.mode == "forward":
                    assert bits(op.inplace(given, num_threads=num_threads)) == reference, name


@by_dtype
@by_op
def test_blocks_with_and_without_extremes(op: Op, dtype: Any, level: str) -> None:
    """Backward kernels choose a formula block by block: ordinary blocks, and those with one far x or tiny grad."""
    bind(level)
    rng = np.random.default_rng(9)
    far = {np.float32: (-41.0, 1e-13), np.float64: (-301.0, 1e-61)}[dtype]
    size = 1024 // np.dtype(dtype).itemsize
    n = 9 * size + size // 3
    for pattern in range(0, 1 << 9, 7):
        x, grad = (rng.standard_normal(n).astype(dtype) for _ in range(2))
        for block in range(9):
            if pattern >> block & 1:
                x_or_grad = (x, grad)[block & 1]
                x_or_grad[block * size + int(rng.integers(size))] = far[block & 1]
        alone = np.concatenate([op(x[i : i + 64], grad[i : i + 64]) for i in range(0, n, 64)])
        assert bits(op(x, grad)) == bits(alone)
        for k in range(1 + op.backward):
            operands = [x.copy(), grad.copy()]
            op(*operands, out=operands[k])
            assert bits(operands[k]) == bits(alone), pattern


@by_dtype
@by_op
def test_streaming_at_every_alignment(op: Op, dtype: Any, level: str) -> None:
    """Heads, whole blocks and tails of every length; nothing beside out is written."""
    x, grad = pair(dtype, 20_000)
    bind(level, 1 << 40)
    expected = op(x, grad)
    bind(level, 1)
    out = np.empty(20_064, dtype)
    size = x.itemsize
    aligned = -out.ctypes.data % 64 // size
    block = 4096 // size
    for offset in range(aligned, aligned + 64 // size + 1):
        for n in (4097, 4099, 5 * block - 1, 5 * block, 5 * block + 1, 5 * block + 17, 19_999):
            for num_threads in (1, 2) if n == 19_999 else (1,):
                out[:] = 7
                stop = offset + n
                op(x[:n], grad[:n], out=out[offset:stop], num_threads=num_threads)
                assert bits(out[offset:stop]) == bits(expected[:n]), (offset, n)
                assert (out[:offset] == 7).all()
                assert (out[stop:] == 7).all()


@by_dtype
@pytest.mark.parametrize("size", [32_767, 32_768, 32_769, 49_152, 65_535, 65_536, 65_537, 100_003])
def test_shares_of_threads_leave_nothing_out(size: int, dtype: Any, level: str) -> None:
    x, grad = pair(dtype, size)
    for op in (Op("elu", 1.0, "forward"), Op("selu", 1.0, "backward")):
        expected = bits(op(x, grad, num_threads=1))
        for num_threads in (2, 3, 4, 5, 7, 64):
            for view in (slice(None), slice(None, None, -1)):
                out = np.full_like(x, 7)
                op(x[view], grad[view], out=out[view], num_threads=num_threads)
                assert bits(out) == expected


@by_dtype
@by_op
@pytest.mark.skipif(len(FUSED) < 2, reason="needs two levels with fused multiply-add")
def test_levels_with_fma_agree(op: Op, dtype: Any) -> None:
    x, grad = pair(dtype, 200_000)
    results = []
    for level in FUSED:
        with bound(level):
            results.append(bits(op(x, grad)))
    assert len(set(results)) == 1


@by_dtype
def test_calls_before_change_nothing(dtype: Any, level: str) -> None:
    x, grad = pair(dtype, 1000)
    first = {op: bits(op(x, grad)) for op in OPS}
    for op in reversed(OPS):
        np.sqrt(np.full(10, 2.0))
        assert bits(op(x, grad)) == first[op]
        assert bits(op(x, grad, out=np.full_like(x, np.nan))) == first[op]


@by_dtype
@by_op
def test_alpha_given_otherwise(op: Op, dtype: Any, level: str) -> None:
    """The short way to a kernel and the one through all checks end in the same place."""
    x, grad = pair(dtype, 1000)
    expected = bits(op(x, grad))
    assert bits(op(x[::-1], grad[::-1])[::-1]) == expected
    assert bits(op(x.tolist() if dtype is np.float64 else x.data, grad)) == expected
    if op.family != "selu":
        other = Op(op.family, np.float64(op.alpha), op.mode)
        assert bits(other(x, grad)) == expected
    assert bits(op(x, grad, num_threads=np.int64(1))) == expected
    assert bits(op(x.view(np.memmap), grad)) == expected


def one_nan(y: Array) -> bytes:
    y = np.ascontiguousarray(y, y.dtype.newbyteorder("="))
    with np.errstate(invalid="ignore"):  # NaNs that signal
        return np.where(np.isnan(y), np.uint16(0x7FFF), y.view(np.uint16)).tobytes()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@by_op
def test_half_precision_wherever_it_stands(op: Op, name: str, level: str) -> None:
    """Blocks that are computed again, where a result is near the middle of two halves, and those that are not."""
    dtype = np.float16 if name == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    rng = np.random.default_rng(43)
    x, grad = (rng.permutation(np.arange(1 << 16, dtype=np.uint16)).view(dtype) for _ in range(2))
    expected = op(x, grad)
    for n in (*range(1, 40), 63, 64, 65, 511, 512, 513, 1500):
        start = int(rng.integers(x.size - n))
        part = slice(start, start + n)
        assert one_nan(op(x[part], grad[part])) == one_nan(expected[part]), (start, n)
        out = np.full(n + 2, 7, dtype)
        op(x[part], grad[part], out=out[1:-1])
        assert one_nan(out[1:-1]) == one_nan(expected[part]), (start, n)
        assert out[0] == out[-1] == 7
    some = rng.integers(0, x.size, 300)
    assert one_nan(one_by_one(op, x[some], grad[some])) == one_nan(expected[some])
    for cache_bytes in (1, 1 << 40):
        bind(level, cache_bytes)
        for num_threads in (1, 2, 3):
            for layout, given in variants(x).items():
                if name == "bfloat16" and layout == "swapped":
                    continue  # ml_dtypes has no other byte order
                assert one_nan(op(given, grad, num_threads=num_threads)) == one_nan(expected), layout
                out = variants(np.full_like(x, 7))[layout]
                op(x, grad, out=out, num_threads=num_threads)
                assert one_nan(out) == one_nan(expected), layout
                if op.mode == "forward":
                    assert one_nan(op.inplace(given, num_threads=num_threads)) == one_nan(expected), layout


@by_dtype
@pytest.mark.parametrize("op", ops("forward", "backward"), ids=str)
def test_bias_has_the_bits_of_a_sum(op: Op, dtype: Any, level: str) -> None:
    x, grad = (a.reshape(37, 8, 12) for a in pair(dtype, 37 * 8 * 12))
    for shape in ((12,), (8, 1), (37, 1, 1), (1, 8, 12), (37, 8, 12), (1,), ()):
        bias = sample(dtype, 37 * 8 * 12, seed=44)[: int(np.prod(shape))].reshape(shape)
        with np.errstate(all="ignore"):
            summed = x + bias
        expected = op(summed, grad)
        for a, b in ((x, bias), (x[::-1], bias), (x.T, bias.T if bias.ndim == 3 else None)):
            if b is None:
                continue
            turned = (lambda array, a=a: array[::-1] if a.strides[0] < 0 else array.T) if a is not x else (lambda v: v)
            if a is not x and a.strides[0] < 0 and b.ndim == 3:
                b = b[::-1]
            got = op(a, turned(grad), bias=b)
            nan = np.isnan(turned(expected))
            assert bits(np.where(nan, 0, got)) == bits(np.where(nan, 0, turned(expected))), shape
            assert np.isnan(got)[nan].all()


@by_dtype
@pytest.mark.parametrize("op", ops("forward", "backward"), ids=str)
def test_bias_of_short_rows(op: Op, dtype: Any, level: str) -> None:
    """Blocks of 21 rows, or 10, and of the one or two that are left: each has its own part of the bias."""
    x, grad = (a.reshape(5, 23, 12)[:, :22] for a in pair(dtype, 5 * 23 * 12))
    x = np.clip(x, -50, 50)
    for shape in ((12,), (5, 1, 12), (22, 12), (5, 22, 1)):
        bias = np.linspace(-2, 2, int(np.prod(shape)), dtype=dtype).reshape(shape)
        assert len(np.unique(bias)) == bias.size
        assert bits(op(x, grad, bias=bias)) == bits(op(x + bias, grad)), shape


@by_dtype
def test_bias_of_short_rows_with_threads(dtype: Any, level: str) -> None:
    """The second thread begins with 7 rows, fewer than the blocks that follow have."""
    x, bias = np.linspace(-5, 5, 513 * 17 * 16, dtype=dtype).reshape(513, 17, 16)[:, :16], np.arange(16, dtype=dtype)
    assert bits(elufast.elu(x, bias=bias, num_threads=2)) == bits(elufast.elu(x + bias))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sums_of_halves_are_rounded_to_even(name: str, level: str) -> None:
    """Above 0 the result is the sum, which is often the middle of two halves. The references round floats once."""
    dtype = np.dtype(np.float16 if name == "float16" else pytest.importorskip("ml_dtypes").bfloat16)
    rng = np.random.default_rng(45)
    x, bias = (rng.uniform(0.5, 4, (40, 50)).astype(dtype) for _ in range(2))
    wide = x.astype(np.float32)
    for given in (bias, bias[0], bias.astype(np.float32)):
        summed = wide + given.astype(np.float32)
        lost = 16 if name == "bfloat16" else 13
        middles = (summed.view(np.uint32) & ((1 << lost) - 1)) == 1 << (lost - 1)
        assert middles.mean() > 0.1
        assert (elufast.elu(x, bias=given) == summed.astype(dtype)).all()
        assert (elufast.elu_(x.copy(), bias=given) == summed.astype(dtype)).all()


@by_dtype
def test_rows_that_step_back(dtype: Any, level: str) -> None:
    """Rows of n elements, n apart, each from its end to its start: no run of all."""
    n = 8 * 5 * 7
    x = pair(dtype, n)[0].reshape(8, 5, 7)
    for view in (np.s_[..., ::-1], np.s_[:, ::-1], np.s_[::-1]):
        expected = Op("selu", 1.0, "forward")(x.copy())
        room = np.full(3 * n, 7, dtype)
        out = room[n:-n].reshape(x.shape)[view]
        elufast.selu(x, out=out)
        assert bits(out) == bits(expected)
        assert (room[:n] == 7).all()
        assert (room[-n:] == 7).all()
        assert bits(elufast.selu(x[view])) == bits(expected[view])


@by_dtype
def test_bias_that_is_x_or_has_x_as_grad(dtype: Any, level: str) -> None:
    x, bias = pair(dtype, 500)
    x, bias = (np.where(np.abs(a) < 50, a, dtype(0.5)) for a in (x, bias))
    assert bits(elufast.elu(x, bias=x)) == bits(elufast.elu(x + x))
    assert bits(elufast.elu_backward(x, x, bias=x)) == bits(elufast.elu_backward(x, x + x))
    assert bits(elufast.elu_backward(x, x, bias=bias)) == bits(elufast.elu_backward(x, x + bias))
    assert bits(elufast.elu(x.data, bias=x)) == bits(elufast.elu(x + x))


def test_get_num_threads_is_not_changed_by_calls() -> None:
    before = elufast.get_num_threads()
    elufast.elu(np.zeros(LARGE), num_threads=4)
    assert elufast.get_num_threads() == before
