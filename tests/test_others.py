"""Arrays of other libraries: each gives its own kind back, by its own rules, with the bits of the plain functions."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from support import LINUX, Array, Op, bits, ops, run_python, sample

import elufast

SHAPE = (30, 40)
DTYPES = (np.float16, np.float32, np.float64)
NUMPYS = DTYPES[1:]
OPS = ops()
by_op = pytest.mark.parametrize("op", OPS, ids=str)


def lib(name: str) -> Any:
    """A library, imported when a test of its arrays needs it."""
    return importlib.import_module(name)


def refuse_to_compute(*_: Any, **__: Any) -> Any:
    raise AssertionError("computed")


def lazily() -> Any:
    """Within it Dask computes nothing unless told how."""
    return lib("dask").config.set(scheduler=refuse_to_compute)


# ---- one row a kind of array


@dataclass(frozen=True)
class Kind:
    """How an array of it is made, what a result keeps of it, and how both are read."""

    needs: tuple[str, ...]
    make: Callable[[Array], Any]
    keeps: Callable[[Any], Any]
    read: Callable[[Any], Array] = np.asarray
    dtypes: tuple[Any, ...] = NUMPYS
    flat: bool = False
    gives: type | None = None  # where it is not the type that was given
    alphas: Callable[[Array], Any] | None = lambda alphas: alphas[0]  # how the library takes an array of them
    nan: bool = True  # whether a NaN is not taken for a missing element
    lazy: bool = False


def labelled(a: Array) -> Any:
    """Index and other coordinates, a name, attributes everywhere."""
    rows, columns = a.shape
    return lib("xarray").DataArray(
        a,
        {
            "time": ("time", np.arange(rows) * 3, {"axis": "T"}),
            "station": [f"s{k}" for k in range(columns)],
            "height": ("station", np.linspace(0, 1, columns)),
            "run": 7,
        },
        ("time", "station"),
        name="temperature",
        attrs={"units": "K"},
    )


def labels_of(x: Any) -> Any:
    """All of a DataArray but its numbers; where Dask backs it, the chunks too."""
    blank = x.copy(data=np.zeros(x.shape))
    coordinates = {name: (c.dims, c.values.tolist(), c.attrs) for name, c in blank.coords.items()}
    return x.name, x.dims, x.attrs, coordinates, x.chunks, x.dtype, list(x.indexes)


def dataset(a: Array) -> Any:
    x = labelled(a).drop_vars("height")
    halves = {"first": x[:, ::2].rename(station="a"), "second": x[:, 1::2].rename(station="b")}
    return lib("xarray").Dataset(halves, attrs={"title": "two"})


def dataset_values(s: Any) -> Array:
    joined = np.empty((s.sizes["time"], 2 * s.sizes["a"]), s.first.dtype)
    joined[:, ::2], joined[:, 1::2] = lib("dask").compute(s.first.data, s.second.data, scheduler="sync")
    return joined


def dask_values(y: Any) -> Array:
    values: Array = y.compute(scheduler="sync")
    return values


def series(a: Array) -> Any:
    pd = lib("pandas")
    x = pd.Series(a, pd.Index([f"r{k % 500}" for k in range(len(a))], name="row"), name="signal")  # labels repeat
    x.attrs["units"] = "V"
    return x


def frame(a: Array) -> Any:
    """Two dtypes side by side under one label: what the columns hold is the same."""
    pd = lib("pandas")
    index = pd.Index([f"r{k % 7}" for k in range(len(a))], name="row")
    x = pd.DataFrame(a, index, pd.MultiIndex.from_product([["a", "b"], range(a.shape[1] // 2)], names=["c", "d"]))
    x.columns = x.columns.droplevel("d")
    x.attrs["units"] = "V"
    return x


def frame_keeps(x: Any) -> Any:
    return x.index.tolist(), x.index.name, x.columns.tolist(), x.columns.name, x.dtypes.tolist()


MISSING = np.arange(SHAPE[0] * SHAPE[1]) % 5 == 2


def nullable(a: Array) -> Any:
    pd = lib("pandas")
    return pd.Series(pd.arrays.FloatingArray(a.copy(), MISSING.copy()), name="signal")


def arrow(a: Array) -> Any:
    pa, pd = lib("pyarrow"), lib("pandas")
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.array(a, mask=MISSING)), name="signal")


def with_missing(x: Any) -> Array:
    """The numbers of a nullable Series by other means than those under test: 7 where one is missing."""
    array = x.array.__arrow_array__()
    array = array.combine_chunks() if hasattr(array, "combine_chunks") else array
    values: Array = array.fill_null(7).to_numpy()
    return values


def polars(a: Array) -> Any:
    return (
        lib("polars").Series("signal", np.where(MISSING, 7, a).astype(a.dtype)).set(lib("polars").Series(MISSING), None)
    )


def masked(a: Array) -> Any:
    return np.ma.MaskedArray(a.copy(), MISSING.reshape(a.shape).copy())


def jagged(a: Array) -> Any:
    ak = lib("awkward")
    return ak.unflatten(a.reshape(-1), [0, 5, 700, a.size - 705])


class Tagged(np.ndarray[Any, Any]):
    tag = "none"

    def __array_finalize__(self, other: Any) -> None:
        self.tag = getattr(other, "tag", "none")


class Wrapped(np.ndarray[Any, Any]):
    """As subclasses were written before NumPy 2."""

    tag = "none"

    def __array_wrap__(self, out: Any, context: Any = None) -> Any:  # type: ignore[override]
        y = out.view(type(self))
        y.tag = self.tag
        return y


class NoUfuncs:
    """Says that a ufunc is to leave it alone, and can be converted."""

    __array_ufunc__ = None

    def __init__(self, values: Array) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.values


class Tensor:
    """Converts, and takes what was computed back: as PyTorch's do."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.values

    def __array_wrap__(self, array: Array) -> Any:
        return Tensor(array)


def tagged(kind: Any) -> Callable[[Array], Any]:
    def make(a: Array) -> Any:
        x: Any = a.view(kind)
        x.tag = "mine"
        return x

    return make


def mapped(a: Array) -> Any:
    """Of anonymous memory would not do: a file without a name."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        x = np.memmap(file, a.dtype, "w+", shape=a.shape)
    x[...] = a
    return x


def nothing(_: Any) -> None:
    return None


KINDS = {
    "Dask": Kind(
        ("dask.array",),
        lambda a: lib("dask.array").from_array(a, (13, 40)),
        lambda y: (y.chunks, y.dtype, type(y._meta), y._meta.dtype),
        dask_values,
        DTYPES,
        lazy=True,
    ),
    "Dask of masked arrays": Kind(
        ("dask.array",),
        lambda a: lib("dask.array").from_array(masked(a), (13, 40)),
        lambda y: (y.chunks, y.dtype, type(y._meta), y.compute(scheduler="sync").mask.tolist()),
        lambda y: np.ma.filled(dask_values(y), 7),
        lazy=True,
    ),
    "DataArray": Kind(("xarray",), labelled, labels_of, lambda y: y.values, DTYPES),
    "DataArray of Dask": Kind(
        ("xarray", "dask.array"),
        lambda a: labelled(a).chunk(time=13),
        labels_of,
        lambda y: dask_values(y.data),
        lazy=True,
    ),
    "Dataset": Kind(
        ("xarray", "dask"),
        dataset,
        lambda s: (s.attrs, [labels_of(s[name]) for name in s]),
        dataset_values,
        alphas=None,
    ),
    "Dataset of Dask": Kind(
        ("xarray", "dask.array"),
        lambda a: dataset(a).chunk(time=13),
        lambda s: (s.attrs, [labels_of(s[name]) for name in s]),
        dataset_values,
        alphas=None,
        lazy=True,
    ),
    "Series": Kind(
        ("pandas",), series, lambda y: (y.index.tolist(), y.index.name, y.name, y.dtype), flat=True, dtypes=DTYPES
    ),
    "Series with NA": Kind(
        ("pandas", "pyarrow"),
        nullable,
        lambda y: (y.name, y.dtype, y.array._mask.tolist()),
        with_missing,
        flat=True,
        nan=False,
    ),
    "Series of PyArrow": Kind(
        ("pandas", "pyarrow"),
        arrow,
        lambda y: (y.name, y.dtype, y.array.__arrow_array__().is_null().to_pylist()),
        with_missing,
        flat=True,
        nan=False,
    ),
    "DataFrame": Kind(("pandas",), frame, frame_keeps, dtypes=DTYPES),
    "masked": Kind((), masked, lambda y: (y.mask.tolist(), y.dtype), lambda y: np.ma.filled(y, 7), dtypes=DTYPES),
    "awkward": Kind(
        ("awkward",),
        jagged,
        lambda y: (lib("awkward").num(y).tolist(), y.type),
        lambda y: lib("awkward").flatten(y).to_numpy(),
        alphas=jagged,
    ),
    "polars": Kind(
        ("polars",),
        polars,
        lambda y: (y.name, y.dtype, y.is_null().to_list()),
        lambda y: y.fill_null(7).to_numpy(),
        flat=True,
    ),
    "Quantity": Kind(("astropy.units",), lambda a: lib("astropy.units").Quantity(a), lambda y: (y.unit, y.dtype)),
    "subclass": Kind((), tagged(Tagged), lambda y: (y.tag, y.dtype), dtypes=DTYPES),
    "subclass of old": Kind((), tagged(Wrapped), lambda y: (y.tag, y.dtype)),
    "matrix": Kind((), np.matrix, lambda y: y.dtype),
    "memory map": Kind((), mapped, nothing, gives=np.ndarray, dtypes=DTYPES),
    "__array_ufunc__ = None": Kind((), NoUfuncs, nothing, gives=np.ndarray, dtypes=DTYPES),
    "__array_wrap__": Kind((), Tensor, nothing, lambda y: y.values, DTYPES),
}
ROWS = [(name, dtype) for name, kind in KINDS.items() for dtype in kind.dtypes]
allowed = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
also_allowed = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # of NumPy 2
by_row = pytest.mark.parametrize(
    ("name", "dtype"), ROWS, ids=[f"{name}-{np.dtype(dtype)}".replace(" ", "_") for name, dtype in ROWS]
)


def arrays(name: str, dtype: Any) -> tuple[Kind, Array, Array]:
    kind = KINDS[name]
    for needed in kind.needs:
        pytest.importorskip(needed)
    x, grad = (sample(dtype, SHAPE[0] * SHAPE[1], seed=s) for s in (60, 61))
    if not kind.nan:
        x, grad = (np.nan_to_num(a, posinf=np.inf, neginf=-np.inf) for a in (x, grad))
        grad = np.where(np.isinf(grad) | (x == np.inf), grad.dtype.type(1), grad)  # none of 0 * inf either
    grad = np.where(np.isnan(x), dtype(1), grad)  # of two NaNs either may be the result
    return kind, *((x, grad) if kind.flat else (x.reshape(SHAPE), grad.reshape(SHAPE)))


def check(kind: Kind, given: Any, got: Any, expected: Array) -> None:
    assert type(got) is (type(given) if got is given or kind.gives is None else kind.gives)
    assert kind.keeps(got) == kind.keeps(given)
    read, hidden = kind.read(got), kind.read(kind.make(np.zeros_like(expected)))
    assert read.dtype == expected.dtype
    hidden = (np.asarray(hidden) == 7).reshape(expected.shape)  # what stands for a missing element
    read = np.asarray(read).reshape(expected.shape)
    assert bits(read[~hidden]) == bits(expected[~hidden])
    assert (read[hidden] == 7).all()


@allowed
@also_allowed
@by_op
@by_row
def test_each_kind(name: str, dtype: Any, op: Op) -> None:
    kind, x, grad = arrays(name, dtype)
    given, given_grad = kind.make(x.copy()), kind.make(grad.copy())
    with lazily() if kind.lazy else nullcontext():
        got = op(given, given_grad)
    check(kind, given, got, op(x, grad))
    check(kind, given, given, x)  # unchanged


@allowed
@also_allowed
@by_row
def test_an_array_of_alphas(name: str, dtype: Any) -> None:
    kind, x, grad = arrays(name, dtype)
    if kind.alphas is None:
        pytest.skip("the library has no rule for arrays without labels")
    if name == "polars" and dtype is np.float32:
        pytest.skip("polars widens x to the float64 of alpha")
    alpha = np.broadcast_to(np.linspace(0.1, 3, x.shape[-1]), SHAPE if x.ndim > 1 else (1, x.size))
    alphas = kind.alphas(alpha)
    alpha = alpha[0]
    given, given_grad = kind.make(x.copy()), kind.make(grad.copy())
    for function in (elufast.elu, elufast.celu):
        with lazily() if kind.lazy else nullcontext():
            got = function(given, alphas)
        check(kind, given, got, function(x, alpha))
    for function in (elufast.elu_backward, elufast.celu_backward):
        for from_output in (False, True):
            with lazily() if kind.lazy else nullcontext():
                got = function(given_grad, given, alphas, from_output=from_output)
            check(kind, given, got, function(grad, x, alpha, from_output=from_output))


@allowed
@also_allowed
@by_row
def test_bias(name: str, dtype: Any) -> None:
    kind, x, grad = arrays(name, dtype)
    bias = np.random.default_rng(62).standard_normal(x.shape).astype(dtype)
    given, given_grad, given_bias = (kind.make(a.copy()) for a in (x, grad, bias))
    with lazily() if kind.lazy else nullcontext():
        if dtype is np.float16 and elufast._others.speaks(given):  # type: ignore[attr-defined]
            for function in (elufast.elu, lambda x, **options: elufast.elu_backward(x, x, **options)):
                with pytest.raises(TypeError, match="a bias in half precision"):
                    function(given, bias=given_bias)
            return
        got = [elufast.elu(given, 0.3, bias=given_bias), elufast.selu_backward(given_grad, given, bias=given_bias)]
    check(kind, given, got[0], elufast.elu(x, 0.3, bias=bias))
    check(kind, given, got[1], elufast.selu_backward(grad, x, bias=bias))


# ---- what one library does that others do not


def test_nothing_is_imported_before_it_arrives() -> None:
    code = """
import sys
import numpy as np
import elufast
x = np.ma.array([-1.0, 2.0], mask=[0, 1])
elufast.elu(x), elufast.elu([1.0]), elufast.elu_backward(x, x)
print(sorted({"dask", "xarray", "pandas", "pyarrow", "polars", "awkward", "astropy", "ml_dtypes"} & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"


@by_op
def test_masks_are_joined_and_not_shared(op: Op) -> None:
    values, alpha = sample(np.float64, 6, seed=63).reshape(2, 3)[:, :3]
    x = np.ma.array(values, mask=[1, 0, 0], hard_mask=False)
    grad = np.ma.array(alpha, mask=[0, 1, 0])
    got = op(x, grad)
    assert got.mask.tolist() == [True, op.backward, False]
    got[:] = 5
    got.mask[2] = True
    assert x.mask.tolist() == [True, False, False]
    assert grad.mask.tolist() == [False, True, False]
    assert bits(x.data) == bits(values)


def test_masks_of_alpha_bias_and_out() -> None:
    x, alpha, bias = (np.ma.array([-1.0, -2.0, 3.0], mask=np.arange(3) == k) for k in range(3))
    assert elufast.elu(x, alpha).mask.tolist() == [True, True, False]
    assert elufast.selu(x, bias=bias).mask.tolist() == [True, False, True]
    assert elufast.elu(x.data, alpha).mask.tolist() == [False, True, False]
    assert elufast.elu_backward(x.data, bias, alpha).mask.tolist() == [False, True, True]
    out = np.ma.zeros(3)
    assert elufast.elu(x, out=out) is out
    assert out.mask.tolist() == [True, False, False]
    plain = np.zeros(3)
    assert elufast.elu(x, out=plain) is plain
    assert bits(plain) == bits(elufast.elu(x.data))
    for function in (elufast.elu_, elufast.selu_, elufast.celu_):
        y = x.copy()
        expected = getattr(elufast, function.__name__[:-1])(x.data)
        assert function(y) is y
        assert y.mask.tolist() == x.mask.tolist()
        assert bits(y.data) == bits(expected)
        y[0] = 5
        assert x.mask[0]
    assert elufast.elu(np.ma.masked) is np.ma.masked


def test_mistakes_with_subclasses_are_refused_as_with_arrays() -> None:
    x = np.ma.array([-1.0, 2.0], mask=[0, 1])
    for call, error, message in [
        (lambda: elufast.elu(x.astype(np.int64)), TypeError, "elu: x has dtype int64"),
        (lambda: elufast.elu_backward(x[:1], x), ValueError, r"grad has shape \(1,\) and x has shape \(2,\)"),
        (lambda: elufast.elu_backward(x.astype(np.float32), x), TypeError, "grad has dtype float32 and x has"),
        (lambda: elufast.elu(x, out=np.ma.zeros(2, np.float32)), TypeError, "out"),
        (lambda: elufast.elu(x, np.ones((3, 2))), ValueError, r"alpha has shape \(3, 2\)"),
        (lambda: elufast.elu(x, np.nan), ValueError, "alpha must be finite"),
        (lambda: elufast.celu(x, 0), ValueError, "alpha must not be 0"),
        (lambda: elufast.elu(x, num_threads=0), ValueError, "num_threads must be at least 1"),
        (lambda: elufast.elu_backward(x, x, -1.0, from_output=True), ValueError, "needs alpha > 0"),
        (lambda: elufast.elu_backward(x, x, from_output=True, bias=x), ValueError, "takes no bias"),
        (lambda: elufast.elu(x, bias=np.ones(2, np.float32)), TypeError, "bias has dtype float32 and x has dtype"),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert elufast.elu(x.astype(np.float32), bias=np.float64(1)).dtype == np.float32


def test_memory_map_is_written_through(tmp_path: Path) -> None:
    values = sample(np.float32, 600, seed=64)
    values.tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", np.float32, "r+")
    assert elufast.selu_(x) is x
    assert elufast.elu(x, out=x) is x
    x.flush()
    assert (tmp_path / "x").read_bytes() == bits(elufast.elu(elufast.selu(values)))


@pytest.mark.parametrize("function", [elufast.elu, elufast.selu, elufast.celu])
def test_quantities_have_no_dimension(function: Any) -> None:
    units = pytest.importorskip("astropy.units")
    x = units.Quantity(np.array([-1.0, 2.0]))
    assert bits(function(x).value) == bits(function(x.value))
    assert bits(function(100 * x * units.percent).value) == bits(function(x.value))
    backward = getattr(elufast, f"{function.__name__}_backward")
    for call in (lambda: function(x * units.m), lambda: backward(x, x * units.m), lambda: backward(x * units.m, x)):
        with pytest.raises(units.UnitTypeError, match="takes quantities without a dimension, got m; divide by a unit"):
            call()
    in_place = getattr(elufast, f"{function.__name__}_")
    y = x.copy()
    assert in_place(y) is y
    assert bits(y.value) == bits(function(x.value))
    with pytest.raises(units.UnitTypeError):
        in_place(x * units.m)


def test_awkward_missing_and_polars_null() -> None:
    ak = pytest.importorskip("awkward")
    x = ak.Array([[-1.0, 2.0], [], [None, 3.0]])
    assert elufast.elu(x).to_list() == [[np.expm1(-1), 2], [], [None, 3]]
    assert elufast.selu_backward(x, x).to_list()[1:] == [[], [None, 3 * elufast.SELU_SCALE]]


# ---- pandas


def every_dtype(seed: int) -> Any:
    """A column of each dtype that is kept, each with NaN among its values, two of them under one label."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    n = MISSING.size
    double, single = sample(np.float64, n, seed), sample(np.float32, n, seed)
    columns = [double, single, sample(np.float16, n, seed), nullable(double), nullable(single), arrow(double)]
    frame = pd.concat([pd.Series(c) for c in (*columns, arrow(single))], axis=1)
    frame.columns = pd.Index(["x", "x", "half", "Float64", "Float32", "double", "float"], name="kind")
    frame.index = pd.Index([f"r{k % 500}" for k in range(n)], name="row")
    frame.attrs["units"] = "V"
    return frame


def parts(column: Any) -> tuple[Array, Array]:
    """The numbers and which are missing, by other means than those under test."""
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy(), np.zeros(len(column), bool)
    array = column.array.__arrow_array__()
    array = array.combine_chunks() if hasattr(array, "combine_chunks") else array
    return array.fill_null(0).to_numpy(), array.is_null().to_numpy(zero_copy_only=False)


@by_op
def test_columns_of_every_dtype(op: Op) -> None:
    pd = pytest.importorskip("pandas")
    try:  # from pandas 3 on NaN is NA unless told otherwise
        option: Any = pd.option_context("future.distinguish_nan_and_na", True)
    except KeyError:
        option = nullcontext()
    with option:
        x, grad = every_dtype(65), every_dtype(66)
        got = op(x, grad)
        if not op.backward:
            assert got.attrs == {"units": "V"}
        assert got.index.identical(x.index)
        assert got.columns.identical(x.columns)
        assert list(got.dtypes) == list(x.dtypes)
        for k in range(x.shape[1]):
            numbers, missing = parts(x.iloc[:, k])
            result, result_missing = parts(got.iloc[:, k])
            np.testing.assert_array_equal(result_missing, missing)
            assert bits(result[~missing]) == bits(op(numbers, parts(grad.iloc[:, k])[0])[~missing])
            alone = op(x.iloc[:, k], grad.iloc[:, k])
            pd.testing.assert_series_equal(alone, got.iloc[:, k], check_exact=True)
            assert alone.name == x.columns[k]
        pd.testing.assert_frame_equal(x, every_dtype(65))


def test_missing_is_not_nan() -> None:
    """NaN is a number that is computed with where pandas tells them apart; NA is none, and what lies behind it stays
    hidden."""
    pd = pytest.importorskip("pandas")
    x = pd.Series(pd.arrays.FloatingArray(np.array([-1.0, np.nan, -2.0]), np.array([False, False, True])))
    try:
        option: Any = pd.option_context("future.distinguish_nan_and_na", True)
    except KeyError:
        option = nullcontext()
    with option:
        got = elufast.elu(x)
        assert got.isna().tolist() == [False, False, True]
        assert np.isnan(got[1])
        assert got[2] is pd.NA
    got = elufast.elu(x)
    assert got[0] == np.expm1(-1)
    assert got[2] is pd.NA


def test_frames_with_other_operands() -> None:
    pd = pytest.importorskip("pandas")
    values = sample(np.float64, 12, seed=67).reshape(3, 4)
    x = pd.DataFrame(values, columns=list("abcd"))
    rows, columns = np.array([[0.5], [1.0], [2.0]]), np.array([0.5, 1.0, 2.0, 3.0])
    for alpha in (rows, columns, rows * columns, columns[:1]):
        assert bits(elufast.elu(x, alpha)) == bits(elufast.elu(values, alpha))
    assert bits(elufast.elu(x, pd.DataFrame(rows * columns, columns=x.columns))) == bits(
        elufast.elu(values, rows * columns)
    )
    assert bits(elufast.elu_backward(values, x, columns)) == bits(elufast.elu_backward(values, values, columns))
    assert bits(elufast.elu(x, bias=columns)) == bits(elufast.elu(values, bias=columns))
    with pytest.raises(NotImplementedError, match="mixed DataFrame and Series"):  # as for NumPy's own
        elufast.elu(x, x["a"])


def test_frames_are_aligned_as_pandas_aligns() -> None:
    pd = pytest.importorskip("pandas")
    x = pd.DataFrame({"a": [-1.0, 2.0], "b": np.array([-3.0, 4.0], np.float32)}, ["u", "v"])
    expected = elufast.elu_backward(x, x)
    pd.testing.assert_frame_equal(elufast.elu_backward(x[::-1], x).loc[x.index], expected)
    pd.testing.assert_frame_equal(elufast.elu_backward(x[["b", "a"]], x)[["a", "b"]], expected)
    got = elufast.elu_backward(x[:1], x)
    pd.testing.assert_frame_equal(got[:1], expected[:1])
    assert got.loc["v"].isna().all()


def test_small_and_other_frames() -> None:
    pd = pytest.importorskip("pandas")
    x = pd.DataFrame({"a": [], "b": []}, dtype="Float64")
    pd.testing.assert_frame_equal(elufast.elu(x), x)
    nothing = pd.DataFrame(index=["a", "b"])
    pd.testing.assert_frame_equal(elufast.elu(nothing), nothing)
    with pytest.raises(ValueError, match="alpha must be finite"):
        elufast.elu(nothing, np.nan)
    x = pd.DataFrame(np.full((4, 3), -1.0))
    got = elufast.elu(x)
    got.iloc[0, 0] = 5
    assert x.iloc[0, 0] == -1
    assert elufast.elu(pd.DataFrame({"a": [1.0], "n": [1]})).dtypes.tolist() == [np.float64] * 2
    for wrong in (pd.DataFrame({"s": ["text"]}), pd.Series(["text"]), pd.Series([1.0]).astype("category")):
        with pytest.raises(TypeError):
            elufast.elu(wrong)
    with pytest.raises(TypeError, match=r"x must be a numpy\.ndarray, got DataFrame"):
        elufast.elu_(x)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["int64", "uint8", "float16"])
def test_other_numbers_of_arrow(kind: str) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    x = pd.Series([1, None, 3], dtype="Int64").astype(f"{kind}[pyarrow]")
    got = elufast.elu_backward(x, x, 0.5)
    assert got.dtype == "double[pyarrow]"
    assert got.isna().tolist() == [False, True, False]
    assert [got[0], got[2]] == [1.0, 3.0]


# ---- Dask


@by_op
@pytest.mark.parametrize(
    "chunks", [((4000,), (1500,)), ((12, 15, 20), (5, 15, 7)), ((), ()), ((0,), (1,)), ((3, 0), (2, 1))]
)
def test_chunks(chunks: Any, op: Op) -> None:
    da = pytest.importorskip("dask.array")
    shape, size = chunks
    x, grad = (sample(np.float32, int(np.prod(shape)), seed=s).reshape(shape) for s in (68, 69))
    lazy = da.from_array(x, size)
    with lazily():
        got = op(lazy, da.from_array(grad, size))
    assert (got.shape, got.chunks, got.dtype) == (lazy.shape, lazy.chunks, lazy.dtype)
    assert bits(got.compute(scheduler="sync")) == bits(op(x, grad))


def test_one_task_a_chunk() -> None:
    da = pytest.importorskip("dask.array")
    x = da.from_array(np.ones((8, 6)), (2, 3))
    for got in (elufast.elu(x), elufast.elu_backward(x, x), elufast.elu(x, da.ones((8, 6), chunks=(2, 3)))):
        tasks = {key for key in dict(got.dask) if isinstance(key, tuple) and key[0] == got.name}
        assert tasks == {(got.name, i, j) for i in range(4) for j in range(2)}
        assert not any(word in str(key) for key in dict(got.dask) for word in ("concatenate", "rechunk", "finalize"))
    names = [y.name for y in (elufast.elu(x), elufast.elu(x, 0.5), elufast.celu(x, 0.5), elufast.selu(x))]
    assert len(set(names)) == 4
    assert elufast.elu(x, 0.5).name == names[1]  # equal calls share their tasks


@pytest.mark.skipif(not LINUX, reason="/proc")
def test_one_thread_a_task() -> None:
    pytest.importorskip("dask.array")
    code = """
import os
import dask.array as da
import numpy as np
import elufast
x = da.from_array(np.ones(4_000_000), 2_000_000)
before = len(os.listdir("/proc/self/task"))
elufast.elu(x).compute(scheduler="sync"), elufast.elu_backward(x, x).compute(scheduler="sync")
print(len(os.listdir("/proc/self/task")) - before)
elufast.elu(np.ones(4_000_000), num_threads=2)
print(len(os.listdir("/proc/self/task")) - before)
"""
    in_tasks, in_a_call = map(int, run_python(code, OMP_NUM_THREADS="2").split())
    assert in_tasks == 0
    assert in_a_call == int(elufast.runtime_info()["openmp"])


def test_chunks_that_differ_or_are_not_known() -> None:
    da = pytest.importorskip("dask.array")
    x, grad = (sample(np.float64, 4200, seed=s).reshape(60, 70) for s in (70, 71))
    lazy = da.from_array(x, (25, 30))
    got = elufast.elu_backward(da.from_array(grad, (60, 10)), lazy)
    assert bits(got.compute(scheduler="sync")) == bits(elufast.elu_backward(grad, x))
    some = lazy[lazy[:, 0] > 0]
    assert np.isnan(some.shape[0])
    assert bits(elufast.elu(some).compute(scheduler="sync")) == bits(elufast.elu(x[x[:, 0] > 0]))
    swapped = elufast.elu(da.from_array(x.astype(x.dtype.newbyteorder()), 30))
    assert bits(swapped.compute(scheduler="sync")) == bits(elufast.elu(x))
    mixed = elufast.elu_backward(grad, lazy)
    assert type(mixed) is da.Array
    assert bits(mixed.compute(scheduler="sync")) == bits(elufast.elu_backward(grad, x))
    row = np.linspace(-1, 1, 70)
    assert bits(elufast.elu(lazy, bias=row).compute(scheduler="sync")) == bits(elufast.elu(x, bias=row))


X = "da.ones((4, 6), chunks=2)"
WRONG = [
    (f"elu({X}.astype(complex))", TypeError, "elu"),
    (f"elu({X}, np.nan)", ValueError, "elu: alpha must be finite, got nan"),
    (f"elu({X}, '1')", TypeError, "elu: alpha must be a finite real number"),
    (f"celu({X}, 0)", ValueError, "celu: alpha must not be 0"),
    (f"elu({X}, num_threads=0)", ValueError, "num_threads must be at least 1"),
    (f"elu_({X})", TypeError, r"x must be a numpy\.ndarray, got Array"),
    (f"elu_backward({X}[:3], {X})", ValueError, "broadcast"),
    (f"elu_backward({X}, {X}, -1.0, from_output=True)", ValueError, "from_output=True needs alpha > 0"),
    (f"elu_backward({X}, {X}, from_output=1)", TypeError, "from_output must be a bool"),
    (f"elu({X}, bias=np.ones(6, np.float32))", TypeError, "bias has dtype float32 and x has dtype float64"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[call for call, *_ in WRONG])
def test_errors_when_the_graph_is_built(call: str, error: type[Exception], message: str) -> None:
    da = pytest.importorskip("dask.array")
    with lazily(), pytest.raises(error, match=message):
        eval(f"elufast.{call}", {"elufast": elufast, "da": da, "np": np})


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes; no task is moved away from its data."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    with (
        mock.patch.dict(os.environ),  # where distributed leaves OMP_NUM_THREADS=1, for later tests to find
        lib("dask").config.set({"distributed.scheduler.work-stealing": False}),
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def placed(client: Any, chunks: list[Array], workers: list[str]) -> Any:
    """A Dask array whose chunks lie on the workers given."""
    da = lib("dask.array")
    futures = [client.scatter(c, workers=[w], hash=False) for c, w in zip(chunks, workers, strict=True)]
    return da.concatenate([da.from_delayed(f, c.shape, c.dtype) for f, c in zip(futures, chunks, strict=True)])


def test_in_worker_processes(client: Any) -> None:
    """A chunk is computed and kept where it lies; no worker fetches or holds more, nor does the client."""
    distributed = lib("distributed")
    x, grad = (sample(np.float32, 32_000, seed=s).reshape(64, 500) for s in (72, 73))
    where = sorted(client.run(lambda: None)) * 4
    assert len(set(where)) == 2
    spread_x, spread_grad = (placed(client, np.array_split(a, 8), where) for a in (x, grad))
    for op in OPS:
        result = op(spread_x, spread_grad).persist()
        distributed.wait(result)
        assert client.who_has(result) == {(result.name, i, 0): (worker,) for i, worker in enumerate(where)}
        sizes = client.run(lambda dask_worker: {getattr(v, "nbytes", 0) for v in dask_worker.data.values()} - {0})
        assert list(sizes.values()) == [{x.nbytes // 8}] * 2
        fetched = client.run(lambda dask_worker: dask_worker.state.transfer_incoming_count_total)
        assert list(fetched.values()) == [0, 0]
        expected = np.array_split(op(x, grad), 8)
        # Compared there: only the answers travel.
        same = [
            client.submit(lambda got, wanted: bits(got) == wanted, future, bits(wanted))
            for future, wanted in zip(distributed.futures_of(result), expected, strict=True)
        ]
        assert all(client.gather(same))


MEMORY = """
import resource, sys
import dask, dask.array as da
import numpy as np
import elufast

source, target = sys.argv[1:]
dask.config.set(scheduler="threads", num_workers=2)
x = da.linspace(-9, 9, 2**25, chunks=2**18, dtype=np.float32)
x.to_zarr(source)
lazy = da.from_zarr(source)
elufast.elu(lazy[: 2**20]).to_zarr(target, component="warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
y = elufast.elu(lazy)
y.to_zarr(target, component="all")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
written = da.from_zarr(target, component="all")
assert written.chunks == x.chunks
for k in (0, 77, 127):
    piece = slice(k * 2**18, (k + 1) * 2**18)
    assert written[piece].compute().tobytes() == elufast.elu(x[piece].compute()).tobytes()
print(y.nbytes // 2**20, grown // 2**10)
"""


@pytest.mark.skipif(not LINUX, reason="ru_maxrss in KiB")
def test_zarr_to_zarr_in_the_memory_of_a_few_chunks(tmp_path: Path) -> None:
    pytest.importorskip("dask.array")
    pytest.importorskip("zarr")
    total, grown = map(int, run_python(MEMORY, str(tmp_path / "x.zarr"), str(tmp_path / "y.zarr")).split())
    assert total == 128
    assert grown < total // 4
