"""Dask arrays: the same bits as NumPy, lazily, chunk by chunk, in one process and in several."""

from __future__ import annotations

import doctest
import inspect
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from support import DTYPES, LINUX, Array, Op, bits, ops, run_python, sample

import elufast

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
edask = pytest.importorskip("elufast.dask")

OPS = ops(alphas=(1.0, 0.3))
by_op = pytest.mark.parametrize("op", OPS, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def apply(op: Op, x: Any, grad: Any, **options: Any) -> Any:
    if not op.backward:
        return getattr(edask, op.family)(x, *op.arguments, **options)
    function = getattr(edask, f"{op.family}_backward")
    return function(grad, x, *op.arguments, from_output=op.mode == "from_output", **options)


def arrays(dtype: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = int(np.prod(shape))
    return sample(dtype, size, seed=60).reshape(shape), sample(dtype, size, seed=61).reshape(shape)


SHAPES = [
    ((4000,), (1500,)),
    ((60, 70), (25, 70)),
    ((12, 15, 20), (5, 15, 7)),
    ((7,), (1,)),
    ((), ()),
    ((0,), (1,)),
    ((3, 0, 2), (2, 1, 1)),
]


@by_op
@by_dtype
@pytest.mark.parametrize(("shape", "chunks"), SHAPES, ids=lambda v: str(v))
def test_same_bits_as_numpy(op: Op, dtype: Any, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    x, grad = arrays(dtype, shape)
    lazy = da.from_array(x, chunks)
    got = apply(op, lazy, da.from_array(grad, chunks))
    assert type(got) is da.Array
    assert (got.shape, got.chunks, got.dtype) == (lazy.shape, lazy.chunks, lazy.dtype)
    assert (got._meta.dtype, np.ndim(got._meta)) == (x.dtype, x.ndim)
    computed = got.compute(scheduler="sync")
    assert computed.dtype == x.dtype
    assert bits(computed) == bits(op(x, grad))


def test_every_function_is_there() -> None:
    families = {"elu", "selu", "celu"}
    assert set(edask.__all__) == families | {f"{name}_backward" for name in families}
    for name in edask.__all__:
        ours = list(inspect.signature(getattr(edask, name)).parameters)
        assert ours == [p for p in inspect.signature(getattr(elufast, name)).parameters if p != "out"]


@pytest.mark.parametrize("name", [None, *edask.__all__])
def test_docstring_examples(name: str | None) -> None:
    text = (getattr(edask, name) if name else edask).__doc__
    test = doctest.DocTestParser().get_doctest(text, {"elufast": elufast, "np": np, "da": da}, str(name), None, 0)
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted
    assert not result.failed, "".join(report)


def refuse_to_compute(*_: Any, **__: Any) -> Any:
    raise AssertionError("computed")


@pytest.fixture
def nothing_computed() -> Iterator[None]:
    with dask.config.set(scheduler=refuse_to_compute):
        yield


@pytest.mark.usefixtures("nothing_computed")
def test_lazy_with_one_task_a_chunk() -> None:
    x = da.from_array(np.ones((8, 6)), (2, 3))
    grad = da.from_array(np.ones((8, 6)), (2, 3))
    for name, got in (("elu", edask.elu(x)), ("elu_backward", edask.elu_backward(grad, x))):
        tasks = {key for key in dict(got.dask) if isinstance(key, tuple) and key[0] == got.name}
        assert tasks == {(got.name, i, j) for i in range(4) for j in range(2)}
        assert got.name.startswith(f"{name}-")
        assert not any(word in str(key) for key in dict(got.dask) for word in ("concatenate", "rechunk", "finalize"))
    with pytest.raises(AssertionError, match="computed"):
        edask.elu(x).compute()


def test_name_is_that_of_the_computation() -> None:
    """Equal calls share their tasks; other parameters make others."""
    x = da.ones(4, chunks=2)
    names = [edask.elu(x).name, edask.elu(x, 0.5).name, edask.celu(x, 0.5).name, edask.selu(x).name]
    assert len(set(names)) == 4
    assert edask.elu(x, 0.5).name == names[1]
    assert bits(pickle.loads(pickle.dumps(edask.elu(-x))).compute()) == bits(np.full(4, elufast.elu(-1.0)))


def test_grad_of_other_chunks_is_rechunked() -> None:
    x, grad = arrays(np.float64, (60, 70))
    lazy = da.from_array(x, (25, 30))
    got = edask.elu_backward(da.from_array(grad, (60, 10)), lazy)
    assert got.chunks == lazy.chunks
    assert bits(got.compute()) == bits(elufast.elu_backward(grad, x))


def test_unknown_chunk_sizes() -> None:
    x, _ = arrays(np.float64, (60, 70))
    lazy = da.from_array(x, (25, 30))
    some = lazy[lazy[:, 0] > 0]
    assert np.isnan(some.shape[0])
    expected = x[x[:, 0] > 0]
    assert bits(edask.elu(some).compute()) == bits(elufast.elu(expected))
    backward = edask.elu_backward(some.rechunk({1: 70}), some)
    assert backward.chunks[1] == some.chunks[1]
    assert bits(backward.compute()) == bits(elufast.elu_backward(expected, expected))
    with pytest.raises(ValueError, match=r"grad has shape \(nan, 1\) and x has shape \(nan, 70\)"):
        edask.elu_backward(some[:, :1], some)


def test_byte_order_and_masks() -> None:
    x = sample(np.float64, 1000, seed=62)
    swapped = edask.elu(da.from_array(x.astype(x.dtype.newbyteorder()), 300))
    assert swapped.dtype.isnative
    assert bits(swapped.compute()) == bits(elufast.elu(x))
    masked = da.ma.masked_greater(da.from_array(x, 300), 0.5)
    got = edask.elu(masked)
    assert type(got._meta) is np.ma.MaskedArray
    np.testing.assert_array_equal(got.compute().mask, x > 0.5)


@pytest.mark.parametrize(("given", "expected"), [({}, 1), ({"num_threads": 3}, 3), ({"num_threads": None}, None)])
@pytest.mark.parametrize("name", edask.__all__)
def test_one_thread_a_task(name: str, given: dict[str, Any], expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    function, seen = getattr(elufast, name), []

    def recorded(*arguments: Any, **options: Any) -> Any:
        seen.append((arguments[0].size, options["num_threads"]))
        return function(*arguments, **options)

    recorded.__name__ = name
    monkeypatch.setattr(elufast, name, recorded)
    x = da.from_array(np.ones(6), 2, name=False)
    result = getattr(edask, name)(*([x, x] if "backward" in name else [x]), **given)
    del seen[:]
    result.compute(scheduler="sync")
    assert seen == [(2, expected)] * 3


X = "da.ones((4, 6), chunks=2)"
WRONG = [
    (f"elu({X}.astype(int))", TypeError, r"elu: x has dtype int64.*x\.astype\(np\.float32\)"),
    (f"selu({X}.astype('f2'))", TypeError, "selu: x has dtype float16"),
    (f"celu({X}.astype(complex))", TypeError, "celu: x has dtype complex128"),
    (f"elu({X}, np.nan)", ValueError, "elu: alpha must be finite, got nan"),
    (f"elu({X}, '1')", TypeError, "elu: alpha must be a finite real number"),
    (f"elu({X}, alpha={X})", TypeError, "elu: alpha must be a finite real number"),
    (f"celu({X}, 0)", ValueError, "celu: alpha must not be 0"),
    (f"elu({X}, num_threads=0)", ValueError, "num_threads must be at least 1"),
    (f"elu({X}, num_threads=1.5)", TypeError, "num_threads must be an int"),
    ("elu(np.ones(3))", TypeError, r"elu: x must be a dask.array.Array, got ndarray; pass da\.from_array\(x\)"),
    (f"elu_backward(np.ones((4, 6)), {X})", TypeError, "elu_backward: grad must be a dask.array.Array"),
    (f"elu_backward({X}, np.ones((4, 6)))", TypeError, "elu_backward: x must be a dask.array.Array"),
    (f"elu_backward({X}, [1.0], from_output=True)", TypeError, "elu_backward: y must be a dask.array.Array"),
    (f"elu_backward({X}[:3], {X})", ValueError, r"grad has shape \(3, 6\) and x has shape \(4, 6\)"),
    (f"elu_backward({X}[:1], {X})", ValueError, r"grad has shape \(1, 6\) and x has shape \(4, 6\)"),
    (f"elu_backward({X}[0], {X})", ValueError, r"grad has shape \(6,\) and x has shape \(4, 6\)"),
    (f"elu_backward({X}.T, {X})", ValueError, r"grad has shape \(6, 4\) and x has shape \(4, 6\)"),
    (f"selu_backward({X}.astype('f4'), {X})", TypeError, "grad has dtype float32 and x has dtype float64"),
    (f"selu_backward({X}.astype(int), {X})", TypeError, "grad has dtype int64"),
    (f"elu_backward({X}, {X}, -1.0, from_output=True)", ValueError, "from_output=True needs alpha > 0"),
    (f"elu_backward({X}, {X}, from_output=1)", TypeError, "from_output must be a bool"),
]


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[call for call, *_ in WRONG])
def test_errors_when_the_graph_is_built(call: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        eval(f"edask.{call}", {"edask": edask, "da": da, "np": np})


@pytest.mark.usefixtures("nothing_computed")
def test_plain_functions_refuse_to_compute_it_whole() -> None:
    x = da.ones(4, chunks=2)
    message = r"x is lazy, a Dask collection of type Array.*elufast\.dask.*x\.compute\(\)"
    for op in OPS:
        with pytest.raises(TypeError, match=message.replace("x", "y") if op.mode == "from_output" else message):
            op(x, np.ones(4))
    with pytest.raises(TypeError, match="grad is lazy, a Dask collection"):
        elufast.elu_backward(x, np.ones(4))
    with pytest.raises(TypeError, match=r"x must be a numpy\.ndarray, got Array"):
        elufast.elu_(x)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes; no task is moved away from its data."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    with (
        mock.patch.dict(os.environ),  # where distributed leaves OMP_NUM_THREADS=1, for later tests to find
        dask.config.set({"distributed.scheduler.work-stealing": False}),
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def placed(client: Any, chunks: list[Array], workers: list[str]) -> Any:
    """A Dask array whose chunks lie on the workers given."""
    futures = [client.scatter(c, workers=[w], hash=False) for c, w in zip(chunks, workers, strict=True)]
    return da.concatenate([da.from_delayed(f, c.shape, c.dtype) for f, c in zip(futures, chunks, strict=True)])


def test_in_worker_processes(client: Any) -> None:
    """A chunk is computed and kept where it lies; no worker fetches or holds more, nor does the client."""
    distributed = pytest.importorskip("distributed")
    x, grad = arrays(np.float32, (64, 500))
    where = sorted(client.run(lambda: None)) * 4
    assert len(set(where)) == 2
    spread_x, spread_grad = (placed(client, np.array_split(a, 8), where) for a in (x, grad))
    for op in OPS:
        result = apply(op, spread_x, spread_grad).persist()
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


def test_sent_by_its_public_name() -> None:
    """The CPU of a worker may be unable to load the client's level."""
    sent = pickle.dumps(edask.elu(da.ones(4, chunks=2)))
    assert b"elufast" in sent
    assert b"_loops" not in sent
    assert b"_entry" not in sent


MEMORY = """
import resource, sys
import dask, dask.array as da
import numpy as np
import elufast, elufast.dask

source, target = sys.argv[1:]
dask.config.set(scheduler="threads", num_workers=2)
x = da.linspace(-9, 9, 2**25, chunks=2**18, dtype=np.float32)
x.to_zarr(source)
lazy = da.from_zarr(source)
elufast.dask.elu(lazy[: 2**20]).to_zarr(target, component="warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
y = elufast.dask.elu(lazy)
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
    pytest.importorskip("zarr")
    total, grown = map(int, run_python(MEMORY, str(tmp_path / "x.zarr"), str(tmp_path / "y.zarr")).split())
    assert total == 128
    assert grown < total // 4
