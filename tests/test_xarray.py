"""xarray objects: the bits of NumPy under the labels of the input, lazily where Dask backs them."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support import DTYPES, Array, Op, bits, ops, sample

import elufast

xr = pytest.importorskip("xarray")
exarray = pytest.importorskip("elufast.xarray")

OPS = ops(alphas=(1.0, 0.3))
by_op = pytest.mark.parametrize("op", OPS, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def apply(op: Op, x: Any, grad: Any, **options: Any) -> Any:
    if not op.backward:
        return getattr(exarray, op.family)(x, *op.arguments, **options)
    function = getattr(exarray, f"{op.family}_backward")
    return function(grad, x, *op.arguments, from_output=op.mode == "from_output", **options)


def values(dtype: Any, seed: int) -> Array:
    return sample(dtype, 60 * 20, seed=seed).reshape(60, 20)


def weather(dtype: Any = np.float64, seed: int = 70) -> Any:
    """One labelled array: index and other coordinates, a name, attributes everywhere."""
    return xr.DataArray(
        values(dtype, seed),
        {
            "time": ("time", np.arange(60) * 3, {"axis": "T"}),
            "station": [f"s{k}" for k in range(20)],
            "height": ("station", np.linspace(0, 1, 20)),
            "run": 7,
        },
        ("time", "station"),
        name="temperature",
        attrs={"units": "K"},
    )


def several() -> Any:
    x = weather()
    return xr.Dataset({"warm": x, "cold": x.isel(station=3, drop=True).astype(np.float32)}, attrs={"title": "two"})


@by_op
@by_dtype
def test_data_array(op: Op, dtype: Any) -> None:
    x, grad = weather(dtype), weather(dtype, seed=71).rename("loss").assign_attrs(units="1")
    got = apply(op, x, grad)
    xr.testing.assert_identical(got, x.copy(data=op(x.values, grad.values)))
    assert got.dtype == dtype
    assert bits(got) == bits(op(x.values, grad.values))
    assert (got.name, got.attrs, got.time.attrs) == ("temperature", {"units": "K"}, {"axis": "T"})


@by_op
def test_dataset(op: Op) -> None:
    x = several()
    grad = x.map(np.negative).drop_attrs()
    got = apply(op, x, grad)
    assert {name: got[name].dtype for name in got} == {"warm": np.float64, "cold": np.float32}
    for name in x.data_vars:
        assert bits(got[name]) == bits(op(x[name].values, grad[name].values))
    xr.testing.assert_identical(got, x.copy(data={name: got[name].data for name in got}))
    xr.testing.assert_identical(x, several())


def test_order_of_dimensions_and_scalars() -> None:
    x, grad = weather(), weather(seed=71)
    got = exarray.elu_backward(grad.transpose("station", "time"), x)
    assert got.dims == x.dims
    assert bits(got) == bits(elufast.elu_backward(grad.values, x.values))
    xr.testing.assert_identical(exarray.selu(x[3, 4]), exarray.selu(x)[3, 4])
    xr.testing.assert_identical(exarray.elu(xr.Dataset(attrs={"a": 1})), xr.Dataset(attrs={"a": 1}))


def test_every_function_is_there() -> None:
    families = {"elu", "selu", "celu"}
    assert set(exarray.__all__) == families | {f"{name}_backward" for name in families}
    for name in exarray.__all__:
        ours = list(inspect.signature(getattr(exarray, name)).parameters)
        assert ours == [p for p in inspect.signature(getattr(elufast, name)).parameters if p != "out"]


@pytest.mark.parametrize("name", [None, *exarray.__all__])
def test_docstring_examples(name: str | None) -> None:
    text = (getattr(exarray, name) if name else exarray).__doc__
    test = doctest.DocTestParser().get_doctest(text, {"elufast": elufast, "np": np, "xr": xr}, str(name), None, 0)
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted
    assert not result.failed, "".join(report)


def refuse_to_compute(*_: Any, **__: Any) -> Any:
    raise AssertionError("computed")


@pytest.fixture
def nothing_computed() -> Iterator[Any]:
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler=refuse_to_compute):
        yield dask


@by_op
def test_dask_stays_lazy_and_chunked(op: Op, nothing_computed: Any) -> None:
    x, grad = several(), several().map(np.negative)
    chunks = {"time": 25, "station": 8}
    got = apply(op, x.chunk(chunks), grad.chunk(chunks))
    for name in x.data_vars:
        assert got[name].chunks == x.chunk(chunks)[name].chunks
        assert got[name].dtype == got[name].data._meta.dtype == x[name].dtype
        assert not any("concatenate" in str(key) for key in dict(got[name].data.dask))
    with nothing_computed.config.set(scheduler="sync"):
        xr.testing.assert_identical(got.compute(), apply(op, x, grad))


@pytest.mark.parametrize(("given", "expected"), [({}, 1), ({"num_threads": 3}, 3)])
@pytest.mark.parametrize("name", exarray.__all__)
def test_one_thread_a_chunk(name: str, given: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask")
    function, seen = getattr(elufast, name), []

    def recorded(*arguments: Any, **options: Any) -> Any:
        seen.append((arguments[0].shape, options["num_threads"]))
        return function(*arguments, **options)

    recorded.__name__ = name
    monkeypatch.setattr(elufast, name, recorded)
    x = weather().chunk(time=30)
    result = getattr(exarray, name)(*([weather(), x] if "backward" in name else [x]), **given)
    del seen[:]
    result.compute(scheduler="sync")
    assert seen == [((30, 20), expected)] * 2
    del seen[:]
    getattr(exarray, name)(*([weather()] * (2 if "backward" in name else 1)))
    assert seen[-1] == ((60, 20), None)


WRONG: list[tuple[str, type[Exception], str]] = [
    ("elu(x.astype(int))", TypeError, r"elu: x has dtype int64.*pass x\.astype"),
    ("elu(s.assign(n=x.astype(int)))", TypeError, r"elu: x\['n'\] has dtype int64.*pass x\['n'\]\.astype"),
    ("elu_backward(s.astype('f2'), s)", TypeError, r"elu_backward: grad\['warm'\] has dtype float16"),
    ("elu(x.values)", TypeError, r"x must be an xarray\.DataArray or Dataset, got ndarray; use elufast\.elu"),
    ("elu_backward(x.values, x)", TypeError, "grad is a ndarray and x a DataArray"),
    ("elu_backward(s, x)", TypeError, "grad is a Dataset and x a DataArray"),
    ("elu_backward(s, x, from_output=True)", TypeError, "grad is a Dataset and y a DataArray"),
    ("elu_backward(s[['warm']], s)", ValueError, r"grad has the variables \['warm'\] and x has \['warm', 'cold'\]"),
    ("elu_backward(x.astype('f4'), x)", TypeError, "grad has dtype float32 and x has dtype float64.*nothing is cast"),
    ("elu_backward(x[:5], x)", ValueError, r"grad has sizes .*5.* and x has sizes .*60"),
    ("elu_backward(x[0], x)", ValueError, r"grad has sizes .* pass grad\.broadcast_like\(x\)"),
    ("elu_backward(x.rename(time='day'), x)", ValueError, "grad has sizes .*day"),
    ("elu_backward(x.assign_coords(time=range(60)), x)", ValueError, "time"),
    ("elu(x, np.inf)", ValueError, "^elu: alpha must be finite"),
    ("elu(s, '1')", TypeError, "^elu: alpha must be a finite real number"),
    ("celu(x, 0)", ValueError, "^celu: alpha must not be 0"),
    ("elu(x, num_threads=0)", ValueError, "^elu: num_threads must be at least 1"),
    ("elu_backward(x, x, -1.0, from_output=True)", ValueError, "from_output=True needs alpha > 0"),
]


@pytest.mark.parametrize("chunked", [False, True], ids=["NumPy", "Dask"])
@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[call for call, *_ in WRONG])
def test_errors_at_once(call: str, error: type[Exception], message: str, chunked: bool, request: Any) -> None:
    x, s = xr.ones_like(weather()), xr.ones_like(several())
    if chunked:
        request.getfixturevalue("nothing_computed")
        if "x.values" in call:
            pytest.skip("would compute")
        x, s = x.chunk(time=30), s.chunk(time=30)
    with pytest.raises(error, match=message):
        eval(f"exarray.{call}", {"exarray": exarray, "np": np, "x": x, "s": s})


def test_plain_functions(nothing_computed: Any) -> None:
    """np.asarray as the contract says, but never of what is lazy."""
    x = weather()
    got = elufast.elu(x)
    assert type(got) is np.ndarray
    assert bits(got) == bits(elufast.elu(x.values))
    for lazy in (x.chunk(time=30), several().chunk(time=30)):
        with pytest.raises(TypeError, match=r"x is lazy, a Dask collection of type Data.*elufast\.xarray"):
            elufast.elu(lazy)
