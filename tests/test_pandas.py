"""pandas objects: the bits of NumPy under the labels and in the dtypes of the input, NA kept."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import numpy as np
import pytest
from support import DTYPES, Array, Op, bits, ops, sample

import elufast

pd = pytest.importorskip("pandas")
epandas = pytest.importorskip("elufast.pandas")

OPS = ops(alphas=(1.0, 0.3))
by_op = pytest.mark.parametrize("op", OPS, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)
SIZE = 600
INDEX = pd.Index([f"r{k % 500}" for k in range(SIZE)], name="row")  # with repeated labels


def apply(op: Op, x: Any, grad: Any, **options: Any) -> Any:
    if not op.backward:
        return getattr(epandas, op.family)(x, *op.arguments, **options)
    function = getattr(epandas, f"{op.family}_backward")
    return function(grad, x, *op.arguments, from_output=op.mode == "from_output", **options)


def values(dtype: Any, seed: int) -> Array:
    return sample(dtype, SIZE, seed=seed)


@by_op
@by_dtype
def test_series(op: Op, dtype: Any) -> None:
    x = pd.Series(values(dtype, 80), INDEX, name="signal")
    x.attrs["units"] = "V"
    before = x.copy()
    grad = pd.Series(values(dtype, 81), INDEX, name="loss")
    got = apply(op, x, grad)
    assert type(got) is pd.Series
    assert (got.name, got.attrs, got.dtype) == ("signal", {"units": "V"}, dtype)
    assert got.index.identical(x.index)
    assert bits(got) == bits(op(x.to_numpy(), grad.to_numpy()))
    pd.testing.assert_series_equal(x, before)


@by_op
@by_dtype
def test_data_frame_of_one_dtype(op: Op, dtype: Any) -> None:
    columns = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["outer", "inner"])
    x = pd.DataFrame(values(dtype, 80).reshape(-1, 4), INDEX[: SIZE // 4], columns)
    x.attrs["units"] = "V"
    grad = x * 0.5
    got = apply(op, x, grad)
    assert type(got) is pd.DataFrame
    assert got.attrs == {"units": "V"}
    assert got.index.identical(x.index)
    assert got.columns.identical(columns)
    assert set(got.dtypes) == {np.dtype(dtype)}
    assert bits(got) == bits(op(x.to_numpy(), grad.to_numpy()))


def mixed(seed: int) -> Any:
    """A column of each dtype, each with NaN among its values and two of them under one label."""
    pytest.importorskip("pyarrow")
    single, double = values(np.float32, seed), values(np.float64, seed)
    missing = np.random.default_rng(seed).random(SIZE) < 0.2
    frame = pd.DataFrame(
        {
            0: double,
            1: single,
            2: pd.arrays.FloatingArray(double.copy(), missing),
            3: pd.arrays.FloatingArray(single.copy(), missing),
            4: arrow(double, missing),
            5: arrow(single, missing),
        },
        INDEX,
    )
    frame.columns = pd.Index(["x", "x", "Float64", "Float32", "double", "float"], name="kind")
    frame.attrs["units"] = "V"
    return frame


def arrow(numbers: Array, missing: Array) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pd.arrays.ArrowExtensionArray(pa.array(numbers, mask=missing))


def parts(column: Any) -> tuple[Array, Array]:
    """The numbers and which are missing, by other means than those under test."""
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy(), np.zeros(len(column), bool)
    array = column.array.__arrow_array__()
    array = array.combine_chunks() if hasattr(array, "combine_chunks") else array
    missing = array.is_null().to_numpy(zero_copy_only=False)
    return array.fill_null(0).to_numpy(), missing


@by_op
def test_columns_of_every_dtype(op: Op) -> None:
    x, grad = mixed(82), mixed(83)
    got = apply(op, x, grad)
    assert got.attrs == {"units": "V"}
    assert got.index.identical(x.index)
    assert got.columns.identical(x.columns)
    assert list(got.dtypes) == list(x.dtypes)
    for k in range(x.shape[1]):
        numbers, missing = parts(x.iloc[:, k])
        grads, grads_missing = parts(grad.iloc[:, k])
        if op.backward:
            missing = missing | grads_missing
        result, result_missing = parts(got.iloc[:, k])
        np.testing.assert_array_equal(result_missing, missing)
        assert bits(result[~missing]) == bits(op(numbers, grads)[~missing])
        alone = apply(op, x.iloc[:, k], grad.iloc[:, k])
        pd.testing.assert_series_equal(alone, got.iloc[:, k], check_exact=True)
        assert alone.name == x.columns[k]
    pd.testing.assert_frame_equal(x, mixed(82))


def test_missing_is_not_nan() -> None:
    """NaN is a number that is computed with; NA is none, and what lies behind it stays hidden."""
    x = pd.Series(pd.arrays.FloatingArray(np.array([-1.0, np.nan, -2.0]), np.array([False, False, True])))
    got = epandas.elu(x)
    assert got.isna().tolist() == [False, False, True]
    assert np.isnan(got[1])
    assert got[2] is pd.NA


@pytest.mark.parametrize("dtype", ["float32", "Float64"])
def test_empty(dtype: str) -> None:
    x = pd.DataFrame({"a": [], "b": []}, dtype=dtype)
    pd.testing.assert_frame_equal(epandas.elu(x), x)
    pd.testing.assert_series_equal(epandas.selu_backward(x["a"], x["a"]), x["a"])
    nothing = pd.DataFrame(index=INDEX)
    pd.testing.assert_frame_equal(epandas.elu(nothing), nothing)
    with pytest.raises(ValueError, match="alpha must be finite"):
        epandas.elu(nothing, np.nan)


def test_result_is_its_own() -> None:
    x = pd.DataFrame(np.full((4, 3), -1.0))
    got = epandas.elu(x)
    got.iloc[0, 0] = 5
    assert x.iloc[0, 0] == -1


def test_every_function_is_there() -> None:
    families = {"elu", "selu", "celu"}
    assert set(epandas.__all__) == families | {f"{name}_backward" for name in families}
    for name in epandas.__all__:
        ours = list(inspect.signature(getattr(epandas, name)).parameters)
        assert ours == [p for p in inspect.signature(getattr(elufast, name)).parameters if p != "out"]


@pytest.mark.parametrize("name", [None, *epandas.__all__])
def test_docstring_examples(name: str | None) -> None:
    text = (getattr(epandas, name) if name else epandas).__doc__
    test = doctest.DocTestParser().get_doctest(text, {"elufast": elufast, "np": np, "pd": pd}, str(name), None, 0)
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted
    assert not result.failed, "".join(report)


@pytest.mark.parametrize("name", epandas.__all__)
def test_num_threads_is_passed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, seen = getattr(elufast, name), []

    def recorded(*arguments: Any, **options: Any) -> Any:
        seen.append(options["num_threads"])
        return function(*arguments, **options)

    recorded.__name__ = name
    monkeypatch.setattr(elufast, name, recorded)
    x = pd.DataFrame({"a": [1.0], "b": pd.array([1.0], "Float64")})
    getattr(epandas, name)(*([x, x] if "backward" in name else [x]), num_threads=3)
    assert set(seen) == {3}


WRONG: list[tuple[str, type[Exception], str]] = [
    ("elu(f.assign(n=1))", TypeError, r"elu: x\['n'\] has dtype int64, not float32 or float64.*leave the column out"),
    ("elu(f.assign(n=True))", TypeError, r"x\['n'\] has dtype bool"),
    ("elu(f.assign(n='1'))", TypeError, r"x\['n'\] has dtype (str|object)"),
    ("elu(f.astype('f2'))", TypeError, r"x\['a'\] has dtype float16"),
    ("elu(f.astype(complex))", TypeError, r"x\['a'\] has dtype complex128"),
    ("elu(f.a.astype('Int64'))", TypeError, r"elu: x has dtype Int64.*pass x\.astype\(np\.float64\)$"),
    ("elu(f.a.astype('category'))", TypeError, "x has dtype category"),
    ("elu(f.a.astype('Sparse[float]'))", TypeError, r"x has dtype Sparse\[float64"),
    ("elu_backward(f.assign(a=1), f)", TypeError, r"grad\['a'\] has dtype int64"),
    ("elu_backward(f, f.assign(a=1), from_output=True)", TypeError, r"y\['a'\] has dtype int64"),
    ("elu(f.to_numpy())", TypeError, r"x must be a pandas\.Series or DataFrame, got ndarray; use elufast\.elu"),
    ("elu(pd.Index([1.0]))", TypeError, "x must be a pandas.Series or DataFrame, got Index"),
    ("elu_backward(f.a, f)", TypeError, "grad is a Series and x a DataFrame"),
    ("elu_backward(f.to_numpy(), f)", TypeError, "grad is a ndarray and x a DataFrame"),
    ("elu_backward(f[::-1], f)", ValueError, r"differ in index.*nothing is aligned.*reindex\(index=x\.index\)"),
    ("elu_backward(f.a[:2], f.a)", ValueError, "differ in index, of length 2 and 3"),
    ("elu_backward(f[['b', 'a']], f)", ValueError, "differ in columns"),
    ("elu_backward(f.astype('f4'), f)", TypeError, r"grad\['a'\] has dtype float32 and x\['a'\] has dtype float64"),
    ("elu_backward(f.a.astype('Float64'), f.a)", TypeError, "grad has dtype Float64 and x has dtype float64"),
    ("elu(f, np.inf)", ValueError, "^elu: alpha must be finite"),
    ("celu(f, 0)", ValueError, "^celu: alpha must not be 0"),
    ("elu(f.a, num_threads=0)", ValueError, "^elu: num_threads must be at least 1"),
    ("elu_backward(f, f, -1.0, from_output=True)", ValueError, "from_output=True needs alpha > 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[call for call, *_ in WRONG])
def test_errors(call: str, error: type[Exception], message: str) -> None:
    f = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [-1.0, -2.0, -3.0]}, ["x", "y", "z"])
    with pytest.raises(error, match=message):
        eval(f"epandas.{call}", {"epandas": epandas, "np": np, "pd": pd, "f": f})


def test_other_arrow_dtypes() -> None:
    pa = pytest.importorskip("pyarrow")
    for kind in (pa.float16(), pa.int64(), pa.decimal128(5, 2), pa.string()):
        x = pd.Series([None, None], dtype=pd.ArrowDtype(kind))
        with pytest.raises(TypeError, match=r"elu: x has dtype .*pyarrow.*pass x\.astype"):
            epandas.elu(x)


def test_plain_functions() -> None:
    """np.asarray as the contract says: labels are lost, dtypes meet in one."""
    x = pd.DataFrame({"a": [-1.0, 2.0], "b": np.array([-1.0, 2.0], np.float32)})
    got = elufast.elu(x)
    assert type(got) is np.ndarray
    assert bits(got) == bits(elufast.elu(np.asarray(x)))
    with pytest.raises(TypeError, match=r"x has dtype object, not .* pass x\.astype\(np\.float32\)"):
        elufast.elu(x.assign(s="text"))
