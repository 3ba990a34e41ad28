"""elufast.ufuncs: NumPy's own features, the bits of the plain functions, no undeserved warning."""

from __future__ import annotations

import pickle
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from support import Array, Op, bits, ops, run_python, sample

import elufast
from elufast import ufuncs

DTYPES = (np.float16, np.float32, np.float64)
OPS = ops(alphas=(1.0, 0.3, 2.5))
by_op = pytest.mark.parametrize("op", OPS, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)
by_name = pytest.mark.parametrize("name", ufuncs.__all__)


def ufunc_of(op: Op) -> Any:
    return getattr(ufuncs, op.family + {"forward": ""}.get(op.mode, f"_{op.mode}"))


def call(op: Op, x: Any, grad: Any, **options: Any) -> Any:
    return ufunc_of(op)(*((grad,) if op.backward else ()), x, *op.arguments, **options)


def arrays(dtype: Any, size: int = 1200) -> tuple[Array, Array]:
    x, grad = sample(dtype, size, seed=74), sample(dtype, size, seed=75)
    return x, np.where(np.isnan(x), dtype(1), grad)  # of two NaNs either may be the result


@by_op
@by_dtype
@pytest.mark.parametrize("size", [0, 1, 3, 1200, 20_000])
def test_bits_of_the_plain_functions(size: int, dtype: Any, op: Op, level: str) -> None:
    x, grad = arrays(dtype, size)
    got = call(op, x, grad)
    assert got.dtype == dtype
    assert bits(got) == bits(op(x, grad))


LAYOUTS = {
    "strided": lambda a: a[::3],
    "reversed": lambda a: a[::-1],
    "transposed": lambda a: a.reshape(40, -1).T,
    "columns": lambda a: a.reshape(40, -1)[:, 1:4],
    "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype),
    "0-d": lambda a: a[7],
}


@by_op
@by_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(layout: str, dtype: Any, op: Op) -> None:
    x, grad = arrays(dtype)
    view: Any = LAYOUTS[layout]
    expected = op(x, grad)
    assert bits(call(op, view(x), view(grad))) == bits(view(expected))
    if layout not in ("unaligned", "0-d"):
        out = np.full_like(x, 7)
        target = view(out)
        assert call(op, view(x), view(grad), out=target) is target
        assert bits(target) == bits(view(expected))
    assert bits(call(op, view(x), np.ascontiguousarray(view(grad)))) == bits(view(expected))


@by_op
@by_dtype
def test_where_and_out(dtype: Any, op: Op) -> None:
    x, grad = arrays(dtype)
    some = np.random.default_rng(76).random(x.size) < 0.5
    out = np.full_like(x, 7)
    assert call(op, x, grad, out=out, where=some) is out
    assert bits(out) == bits(np.where(some, op(x, grad), dtype(7)))
    y = x.copy()
    assert call(op, y, grad, out=(y,)) is y
    assert bits(y) == bits(op(x, grad))
    shifted = x.copy()
    call(op, shifted[:-1], grad[:-1], out=shifted[1:])  # which overlaps
    assert bits(shifted[1:]) == bits(op(x, grad)[:-1])
    with pytest.raises(ValueError, match=r"non-broadcastable|broadcast"):
        call(op, x, grad, out=np.empty(3, dtype))
    with pytest.raises(TypeError, match="Cannot cast"):
        call(op, x, grad, out=np.empty(x.size, np.int64))


@by_op
def test_broadcasting(op: Op) -> None:
    x, grad = sample(np.float32, 40, seed=77), sample(np.float32, 30, seed=78)[:, None]
    whole = [np.ascontiguousarray(a) for a in np.broadcast_arrays(x, grad)]
    got = call(op, x, grad)
    assert bits(got) == bits(op(*whole) if op.backward else op(x))
    if op.family != "selu":
        alphas = np.linspace(0.1, 3, 30)[:, None]
        got = ufunc_of(op)(*((grad,) if op.backward else ()), x, alphas)
        rows = [Op(op.family, float(a), op.mode)(x, whole[1][k]) for k, a in enumerate(alphas[:, 0])]
        assert bits(got) == bits(np.array(rows))
        each = np.linspace(0.1, 3, 40)
        got = ufunc_of(op)(*((whole[1],) if op.backward else ()), whole[0], each)
        columns = [
            Op(op.family, float(a), op.mode)(*(np.ascontiguousarray(w[:, k]) for w in whole))
            for k, a in enumerate(each)
        ]
        assert bits(got) == bits(np.array(columns).T)


@by_dtype
def test_refused_alphas_give_nan(dtype: Any) -> None:
    x = np.array([-1.0, 2.0, 0.5, -3.0], dtype)
    with np.errstate(all="raise"):
        for alpha in (np.nan, np.inf, -np.inf):
            for name in ufuncs.__all__:
                if "selu" not in name:
                    function = getattr(ufuncs, name)
                    assert np.isnan(function(*[x] * (function.nin - 1), alpha)).all()
        assert np.isnan(ufuncs.celu(x, 0.0)).all()
        assert np.isnan(ufuncs.elu_from_output(x, x, -1.0)).all()
        got = ufuncs.celu(x, [0.5, 0.0, np.nan, 1.0])
    assert np.isnan(got).tolist() == [False, True, True, False]
    assert bits(got[[0, 3]]) == bits(np.array([elufast.celu(x[0], 0.5), elufast.celu(x[3], 1.0)]))


@pytest.mark.parametrize("code", "?bBhHiIqQefd")
def test_casts_as_expm1_does(code: str) -> None:
    x = np.array([0, 1], code)
    expected = np.expm1(x).dtype
    for name in ufuncs.__all__:
        function = getattr(ufuncs, name)
        alpha = () if "selu" in name else (1.0,)
        assert function(*[x] * (function.nin - len(alpha)), *alpha).dtype == expected
    assert ufuncs.elu(x, np.float64(0.3)).dtype == ufuncs.elu(x, [0.3, 0.4]).dtype == expected


@by_name
def test_other_dtypes_are_refused(name: str) -> None:
    function = getattr(ufuncs, name)
    for code in "gFDOSU":
        with pytest.raises(TypeError, match=f"ufunc '{name}' not supported for the input types|cannot"):
            function(*[np.zeros(2, code)] * function.nin)


@by_name
def test_pickled_by_its_public_name(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    function = getattr(ufuncs, name)
    assert type(function) is np.ufunc
    assert function.__name__ == name
    monkeypatch.setitem(sys.modules, "aaa", sys)  # another module that has it is not what a worker can import
    monkeypatch.setattr(sys, name, function, raising=False)
    sent = pickle.dumps(function)
    assert pickle.loads(sent) is function
    assert b"_loops" not in sent
    if hasattr(function, "__module__"):
        assert b"elufast.ufuncs" in sent


@by_name
def test_signature_and_help(name: str) -> None:
    function = getattr(ufuncs, name)
    alpha = "selu" not in name
    assert (function.nin, function.nout, function.signature) == ((name.count("_") > 0) + 1 + alpha, 1, None)
    assert function.types == [f"{c * (function.nin - alpha)}{'d' * alpha}->{c}" for c in "efd"]
    assert f"elufast.{name.partition('_')[0]}" in function.__doc__


def test_methods_of_ufuncs() -> None:
    x = sample(np.float64, 60, seed=79)
    for name in ("selu", "elu_backward", "selu_from_output"):
        function = getattr(ufuncs, name)
        if function.nin != 2:
            with pytest.raises(ValueError, match="only supported for binary functions"):
                function.reduce(x)
            with pytest.raises(ValueError, match="only supported for binary functions"):
                function.accumulate(x)
    alphas = np.array([0.5, 2.0])
    assert bits(ufuncs.elu.outer(x, alphas)) == bits(np.array([elufast.elu(x, a) for a in alphas]).T)
    y = x.copy()
    ufuncs.selu.at(y, [3, 3, 5])
    assert y[3] == elufast.selu(elufast.selu(x[3]))
    assert np.array_equal(np.delete(y, [3, 5]), np.delete(x, [3, 5]), equal_nan=True)


@by_op
@by_dtype
def test_no_floating_point_error_for_ordinary_inputs(dtype: Any, op: Op) -> None:
    """Not in the ufunc, nor in the plain function; the specials warn of nothing either."""
    x = np.concatenate([np.linspace(-30, 30, 1001), [0.0, -0.0, -100, -800, 1e-7]]).astype(dtype)
    special, grad = arrays(dtype)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for a, g in ((x, x), (x[::2], x[::2]), (special, grad), (special[::3], grad[::3])):
            call(op, a, g)
            op(a, g)
        call(op, x.astype(x.dtype.newbyteorder()), x)


def test_errors_of_others_are_still_seen() -> None:
    """Flags that are cleared are the loop's own."""
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        np.exp(ufuncs.elu(np.array([1e4]), 1.0))


BFLOAT16 = """
import numpy as np
import elufast
from elufast import ufuncs
import ml_dtypes

x = np.random.default_rng(0).integers(0, 2**16, 3000).astype(np.uint16).view(ml_dtypes.bfloat16)
grad = np.where(np.isnan(x), x.dtype.type(1), x[::-1])  # of two NaNs either may be the result
first = {first}
assert first.dtype == x.dtype
with np.errstate(all="raise"):
    for name in ufuncs.__all__:
        family, _, mode = name.partition("_")
        for alpha in ((),) if family == "selu" else ((1.0,), (0.3,)):
            got = getattr(ufuncs, name)(*((grad,) if mode else ()), x, *alpha)
            if mode:
                plain = getattr(elufast, family + "_backward")(grad, x, *alpha, from_output=mode == "from_output")
            else:
                plain = getattr(elufast, family)(x, *alpha)
            assert got.dtype == plain.dtype == x.dtype, name
            assert got.tobytes() == plain.tobytes(), name
            strided = getattr(ufuncs, name)(*((grad[::2],) if mode else ()), x[::2], *alpha)
            assert strided.tobytes() == plain[::2].tobytes(), name
    some = np.array([-1, 2], x.dtype)
    each = [elufast.elu(a, alpha) for a, alpha in zip(some, (0.3, 0.4))]
    assert ufuncs.elu(some, [0.3, 0.4]).tobytes() == np.array(each).tobytes()
print("done")
"""


@pytest.mark.parametrize("first", ["ufuncs.elu(x, 1.0)", "ufuncs.selu_backward(x, x)", "elufast.elu(x)"])
def test_bfloat16_imported_later(first: str) -> None:
    pytest.importorskip("ml_dtypes")
    assert run_python(BFLOAT16.format(first=first)).strip() == "done"
