"""elufast.torch: PyTorch's own ELU under elufast's kernels, in C++ and in Python; and how the former are built."""

from __future__ import annotations

import copy
import doctest
import io
import re
import runpy
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import LINUX, bits, run_python, sample

torch = pytest.importorskip("torch", exc_type=ImportError)

from torch import nn  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import elufast  # noqa: E402
import elufast.torch  # noqa: E402

COMPILER = elufast.torch._command()[0]
needs_compiler = pytest.mark.skipif(elufast.torch.shutil.which(COMPILER) is None, reason="no C++ compiler")
needs_linux = pytest.mark.skipif(not LINUX, reason="forks, or looks into /proc")
KERNELS = [pytest.param(True, id="native", marks=needs_compiler), pytest.param(False, id="python")]
DTYPES = ["float32", "float64", "float16", "bfloat16"]
aten = torch.ops.aten


def registered() -> list[str]:
    """PyTorch's table of kernels for what elufast replaces."""
    names = ("elu", "elu.out", "elu_", "elu_backward", "elu_backward.grad_input")
    return [torch._C._dispatch_dump(f"aten::{name}") for name in names]


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    before = registered()
    with elufast.torch.installed(request.param):
        assert elufast.torch.status() == ("native" if request.param else "python")
        assert all(now != then for now, then in zip(registered(), before, strict=True))
        yield elufast.torch.status()
    assert elufast.torch.status() == "off"
    assert registered() == before


def array(x: Any) -> Any:
    """The tensor's elements as NumPy's, bfloat16 as that of ml_dtypes."""
    x = x.detach().contiguous()
    if x.dtype is torch.bfloat16:
        return x.view(torch.int16).numpy().view(pytest.importorskip("ml_dtypes").bfloat16)
    return x.numpy()


def tensor(dtype: str, *shape: int, seed: int = 0) -> Any:
    values = sample(np.float64 if dtype == "float64" else np.float32, int(np.prod(shape)), seed)
    return torch.from_numpy(values).to(getattr(torch, dtype)).reshape(shape)


def same(got: Any, expected: Any) -> bool:
    """To the bit; a NaN of half precision is one whatever its bits are."""
    got = array(got)
    if got.dtype.itemsize == 2:
        numbers = ~np.isnan(expected.astype(np.float32))
        return bool((numbers == ~np.isnan(got.astype(np.float32))).all()) and bits(got[numbers]) == bits(
            expected[numbers]
        )
    return bits(got) == bits(expected)


# ------------------------------------------------------------------------------------------------ values

# What is called, and what it should give: PyTorch's way, then elufast's plain function.
FORWARD: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "elu": (F.elu, elufast.elu),
    "elu 0.3": (partial(F.elu, alpha=0.3), lambda x: elufast.elu(x, 0.3)),
    "elu -2": (partial(F.elu, alpha=-2), lambda x: elufast.elu(x, -2)),
    "selu": (F.selu, elufast.selu),
    "celu 0.3": (partial(F.celu, alpha=0.3), lambda x: elufast.celu(x, 0.3)),
    "celu 3": (partial(F.celu, alpha=3), lambda x: elufast.celu(x, 3)),
}
BACKWARD: dict[str, Callable[..., Any]] = {
    "elu": elufast.elu_backward,
    "elu 0.3": lambda grad, x, **options: elufast.elu_backward(grad, x, 0.3, **options),
    "elu -2": lambda grad, x, **options: elufast.elu_backward(grad, x, -2, **options),
    "selu": elufast.selu_backward,
    "celu 0.3": lambda grad, x, **options: elufast.celu_backward(grad, x, 0.3, **options),
    "celu 3": lambda grad, x, **options: elufast.celu_backward(grad, x, 3, **options),
}
# Layouts of 3 x 4 x 10 x 12 elements and more, as views.
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every other": lambda x: x[..., ::2],
    "short rows": lambda x: x[..., :3],
    "short rows of planes": lambda x: x[:, :3, :5, :3],
    "one column": lambda x: x[..., 0],
    "off": lambda x: x.flatten()[1:],
    "expanded": lambda x: x[:, :1].expand(-1, 6, -1, -1),
    "0-d": lambda x: x[0, 0, 0, 0],
    "empty": lambda x: x[:0],
    "permuted": lambda x: x.permute(2, 0, 3, 1)[1:],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORWARD)
def test_the_bits_of_the_plain_functions(kernels: str, name: str, dtype: str) -> None:
    function, plain = FORWARD[name]
    source, grads = tensor(dtype, 3, 4, 10, 12), tensor(dtype, 3, 4, 10, 12, seed=1)
    for layout, view in LAYOUTS.items():
        x, grad = view(source), view(grads)
        assert same(function(x), plain(array(x))), layout
        leaf = x.clone().requires_grad_()
        (got,) = torch.autograd.grad(function(leaf), leaf, grad)
        assert same(got, BACKWARD[name](array(grad), array(x))), layout
        if name == "elu -2" or (layout == "expanded"):
            continue
        inplace = x.clone()
        assert function(inplace, inplace=True) is inplace
        assert same(inplace, plain(array(x))), layout
        within = view(source.clone())
        function(within, inplace=True)
        assert same(within, plain(array(x))), layout
        (got,) = torch.autograd.grad(function(leaf * 1, inplace=True), leaf, grad)
        assert same(got, BACKWARD[name](array(grad), plain(array(x)), from_output=True)), layout


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_tensors_by_any_number_of_threads(kernels: str, dtype: str) -> None:
    before = torch.get_num_threads()
    x, grad = tensor(dtype, 3, 100_003), tensor(dtype, 3, 100_003, seed=1)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for a, g in ((x, grad), (x.T, grad.T), (x[:, ::2], grad[:, ::2])):
                leaf = a.clone().requires_grad_()
                y = F.selu(leaf)
                assert same(y, elufast.selu(array(a)))
                assert same(torch.autograd.grad(y, leaf, g)[0], elufast.selu_backward(array(g), array(a)))
                (got,) = torch.autograd.grad(F.elu(leaf * 1, inplace=True), leaf, g)
                assert same(got, elufast.elu_backward(array(g), elufast.elu(array(a)), from_output=True))
    finally:
        torch.set_num_threads(before)


def test_other_scalars(kernels: str) -> None:
    """The operator takes any three scalars; alpha 0 in place is ReLU, with its derivative."""
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    expected = torch.where(x > 0, 1.5 * x, 1.5 * 0.7 * torch.expm1(0.6 * x))
    torch.testing.assert_close(aten.elu(x, 0.7, 1.5, 0.6), expected, rtol=1e-15, atol=0)
    slope = torch.where(x > 0, 1.5, 1.5 * 0.7 * 0.6 * torch.exp(0.6 * x))
    for is_result, argument in ((False, x), (True, expected)):
        got = aten.elu_backward(torch.ones_like(x), 0.7, 1.5, 0.6, is_result, argument)
        torch.testing.assert_close(got, slope, rtol=1e-14, atol=0)
    leaf = x.clone().requires_grad_()
    (got,) = torch.autograd.grad(F.elu(leaf * 1, 0.0, inplace=True).sum(), leaf)
    assert torch.equal(got, (x > 0).double())


def test_the_gradient_of_celu_is_right_in_float64(kernels: str) -> None:
    """PyTorch hands over 1 / alpha rounded to float32, which would be wrong in the eighth digit."""
    leaf = torch.tensor([-0.2, -1.0, -3.0], dtype=torch.float64, requires_grad=True)
    F.celu(leaf, 0.3).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.exp(leaf.detach() / 0.3), rtol=1e-15, atol=0)


def test_flushed_subnormals(kernels: str) -> None:
    x = torch.full((2, 40), -5e-41)
    assert torch.set_flush_denormal(True)
    try:
        got = [F.elu(x), F.elu(x[:, ::2]), F.elu(x[0, 0])]
    finally:
        torch.set_flush_denormal(False)
    for y in got:
        assert same(y, np.full(y.shape, np.float32(-5e-41)))


# ------------------------------------------------------------------------- what PyTorch's own kernels do


def views(dtype: Any = torch.float32) -> list[Any]:
    x = torch.randn(4, 6, 8, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    return [
        *(x, x.transpose(1, 2), x.contiguous(memory_format=torch.channels_last), x[:, ::2], x[:, :, 1:7]),
        *(x[:, :1].expand(4, 6, 8, 2), x[0, 0, 0, 0], x[:0], x[1], x.permute(3, 0, 1, 2)[:, :, ::3]),
        *(x[:, :1].contiguous(memory_format=torch.channels_last), x[:, :, :1, :1].permute(0, 2, 3, 1)),
    ]


def told(call: Callable[[], Any]) -> Any:
    """All about a result but its values; or what is raised."""
    try:
        y = call()
    except Exception as error:
        return type(error), str(error).partition("\n")[0][:80]
    return y.shape, y.stride(), y.dtype, y.requires_grad


def cases() -> list[tuple[str, Any]]:
    out = torch.empty
    overlapping, one = torch.ones(8), torch.ones(1)
    backward = partial(aten.elu_backward, alpha=1.0, scale=1.0, input_scale=1.0, is_result=False)
    result = partial(aten.elu_backward, scale=1.0, input_scale=1.0, is_result=True)
    a = torch.ones(4, 3)
    calls: dict[str, Callable[[], Any]] = {
        **{f"elu {k}": partial(F.elu, x) for k, x in enumerate(views())},
        **{
            f"elu_backward {i} {k}": partial(backward, g, self_or_result=x)
            for i, g in enumerate(views())
            for k, x in enumerate(views())
        },
        **{
            f"elu.out {shape} {dtype}": partial(aten.elu.out, a.T, out=out(shape, dtype=dtype))
            for shape in ((0,), (3, 4), (2,), (12, 1))
            for dtype in (torch.float32, torch.float64, torch.int64)
        },
        **{
            f"grad_input {dtype}": partial(
                aten.elu_backward.grad_input, a, 1, 1, 1, False, a[:, :1].double(), grad_input=out(0, dtype=dtype)
            )
            for dtype in (torch.float16, torch.float32, torch.float64, torch.int64)
        },
        **{
            f"{dtype} {n}": partial(F.elu, torch.ones(n, dtype=dtype))
            for dtype in (torch.int32, torch.bool, torch.complex64)
            for n in (0, 3)
        },
        "integers": lambda: backward(torch.ones(3).int(), self_or_result=torch.ones(3).int()),
        "promoted": lambda: backward(torch.ones(3).half(), self_or_result=torch.ones(3).bfloat16()),
        "an integer grad": lambda: backward(torch.ones(3).int(), self_or_result=torch.ones(3)),
        "scalar operand": lambda: backward(torch.tensor(1.0, dtype=torch.float64), self_or_result=torch.ones(3)),
        "broadcast": lambda: backward(torch.ones(5, 1), self_or_result=torch.ones(3)),
        "shapes": lambda: backward(torch.ones(5), self_or_result=torch.ones(3)),
        "negative slope": lambda: result(one, -1.0, self_or_result=one),
        "in place, expanded": lambda: aten.elu_(one.expand(3)),
        "in place, integers": lambda: aten.elu_(torch.ones(3).int()),
        "in place, strided": lambda: F.elu_(torch.ones(6, 4)[:, ::2]),
        "out expanded": lambda: aten.elu.out(torch.ones(3), out=one.expand(3)),
        "out overlaps": lambda: aten.elu.out(overlapping[:4], out=overlapping[1:5]),
        "out of a leaf": lambda: aten.elu.out(torch.ones(3, requires_grad=True), out=torch.ones(3)),
        "alpha 0 of celu": lambda: F.celu(one, 0.0),
        "a leaf in place": lambda: F.elu_(torch.ones(3, requires_grad=True)),
        "sparse": lambda: F.elu(torch.eye(3).to_sparse()),
        "meta": lambda: F.elu(torch.ones(3, 4, device="meta").T),
        "negated view": lambda: F.elu(torch.ones(3, dtype=torch.complex64).conj().imag),
    }
    return list(calls.items())


def test_layouts_and_errors_are_pytorchs(kernels: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an out= that is resized
        got = {name: told(call) for name, call in cases()}
        before = elufast.torch.status() == "native"
        elufast.torch.uninstall()
        try:
            expected = {name: told(call) for name, call in cases()}
        finally:
            elufast.torch.install(before)
    assert got == expected


def test_out_holds_the_result(kernels: str) -> None:
    x, grad = tensor("float32", 6, 50), tensor("float32", 6, 50, seed=1)
    wide = torch.zeros(6, 100)
    aten.elu.out(x, 0.5, out=wide[:, ::2])
    assert same(wide[:, ::2], elufast.elu(array(x), 0.5))
    assert not wide[:, 1::2].any()
    torch._C._nn.elu(x, 1.0, out=(double := torch.empty(0)))
    assert same(double, elufast.elu(array(x)))
    grad_input = torch.empty(6, 50, dtype=torch.float64)
    aten.elu_backward.grad_input(grad, 0.5, 1, 1, False, x, grad_input=grad_input)
    assert same(grad_input, elufast.elu_backward(array(grad), array(x), 0.5).astype(np.float64))
    aten.elu_backward.grad_input(grad, 0.5, 1, 1, False, x, grad_input=x)
    assert same(x, array(grad_input.float()))


def test_operands_that_broadcast_or_are_promoted(kernels: str) -> None:
    x, row = tensor("float32", 40, 30), tensor("float32", 30, seed=1)
    for grad, argument in (
        (row, x),
        (x, row),
        (x[:, :1], row),
        (torch.tensor(2.0), x),
        (x.double(), x),
        (x[:30].T, row),
    ):
        got = aten.elu_backward(grad, 1.0, 1.0, 1.0, False, argument)
        dtype = torch.promote_types(grad.dtype, argument.dtype)
        g, a = np.broadcast_arrays(array(grad.to(dtype)), array(argument.to(dtype)))
        if grad.ndim == 0:
            g, a = g.astype(np.float32), a.astype(np.float32)
        assert same(got, elufast.elu_backward(np.ascontiguousarray(g), np.ascontiguousarray(a)))


# ----------------------------------------------------------------------------------------- PyTorch's own tests


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["elu", "selu", "celu"])
def test_opinfo(kernels: str, name: str) -> None:
    pytest.importorskip("expecttest", reason="PyTorch's OpInfo needs it")
    from torch.testing._internal.common_methods_invocations import op_db

    (op,) = [op for op in op_db if op.name == f"nn.functional.{name}"]
    for dtype in sorted(op.dtypes, key=str):
        for samples in (op.sample_inputs("cpu", dtype), op.reference_inputs("cpu", dtype)):
            for s in samples:
                if s.input.numel() > 100_000:  # those of a million elements: a test of its own
                    continue
                got = op(s.input, *s.args, **s.kwargs)
                elufast.torch.uninstall()
                expected = op(s.input, *s.args, **s.kwargs)
                elufast.torch.install(kernels == "native")
                torch.testing.assert_close(got, expected, equal_nan=True)
    for s in op.sample_inputs("cpu", torch.float64, requires_grad=True):

        def inplace(x: Any, args: Any = s.args, kwargs: Any = s.kwargs) -> Any:
            return op.inplace_variant(x.clone(), *args, **kwargs)

        for function in (lambda x, s=s: op(x, *s.args, **s.kwargs), inplace):
            assert gradcheck(function, s.input, check_forward_ad=True, check_batched_grad=True)
            assert gradgradcheck(function, s.input, check_batched_grad=True)


@pytest.mark.filterwarnings("ignore")  # of torch.jit.script, which PyTorch itself calls
@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
def test_gradients_of_every_order(kernels: str, alpha: float) -> None:
    x = torch.linspace(-3, 3, 14, dtype=torch.float64).reshape(2, 7).T.requires_grad_()
    for function in (partial(F.elu, alpha=alpha), partial(F.celu, alpha=alpha), F.selu):
        assert gradcheck(function, x, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
        assert gradgradcheck(function, x, check_batched_grad=True, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.filterwarnings("ignore")
def test_func_transforms(kernels: str) -> None:
    x = torch.linspace(-3, 3, 8, dtype=torch.float64)
    for name, (function, _) in FORWARD.items():
        expected = function(x)
        assert torch.equal(torch.vmap(function)(x.reshape(2, 4)), expected.reshape(2, 4)), name
        assert torch.equal(torch.vmap(function, in_dims=1)(x.reshape(2, 4)), expected.reshape(2, 4).T), name
        slope = BACKWARD[name](np.ones(8), x.numpy())
        for jacobian in (torch.func.jacrev, torch.func.jacfwd):
            assert same(jacobian(function)(x).diag(), slope), name
        second = torch.func.hessian(lambda x, f=function: f(x).sum())(x).diag()
        steps = [BACKWARD[name](np.ones(8), x.numpy() + h) for h in (1e-6, -1e-6)]
        torch.testing.assert_close(second, torch.from_numpy((steps[0] - steps[1]) / 2e-6), rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------------- models, graphs, exports


def model(inplace: bool = False) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(6, 8), nn.ELU(0.5, inplace), nn.Linear(8, 8), nn.SELU(inplace)),
        *(nn.Linear(8, 8), nn.CELU(0.7, inplace), nn.Linear(8, 2)),
    )


def expected_of(layers: Any, x: Any) -> Any:
    """The model's output with its activations computed by the plain functions."""
    plain = {
        nn.ELU: lambda a, m: elufast.elu(a, m.alpha),
        nn.SELU: lambda a, m: elufast.selu(a),
        nn.CELU: lambda a, m: elufast.celu(a, m.alpha),
    }
    with torch.no_grad():
        for layer in layers:
            x = torch.from_numpy(plain[type(layer)](x.numpy(), layer)) if type(layer) in plain else layer(x)
    return x


X = torch.linspace(-2, 2, 30).reshape(5, 6)


def onnx_program(m: Any) -> Any:
    if elufast.torch.status() != "native":
        pytest.skip("takes seconds, and knows nothing of kernels")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    program = torch.onnx.export(m, (X,), dynamo=True, verbose=False)
    assert {"Elu", "Selu", "Celu"} <= {node.op_type for node in program.model.graph}
    return m


def loaded(m: Any) -> Any:
    stream = io.BytesIO()
    torch.save(m.state_dict(), stream)
    stream.seek(0)
    fresh = model()
    fresh.load_state_dict(torch.load(stream))
    return fresh


def rewrapped(m: Any) -> Any:
    """As accelerate does it: the class of a module is swapped whose forward was replaced."""
    old = m[1].forward
    m[1].forward = lambda x: old(x)
    m[1].__class__ = type("Other", (nn.ELU,), {})
    return m


MAKERS: dict[str, Callable[[Any], Any]] = {
    "eager": lambda m: m,
    "in place": lambda m: model(inplace=True),
    "deepcopy": copy.deepcopy,
    "state_dict": loaded,
    "jit.script": torch.jit.script,
    "jit.trace": lambda m: torch.jit.trace(m, (X,)),
    "jit.freeze": lambda m: torch.jit.freeze(torch.jit.script(m.eval())),
    "fx": torch.fx.symbolic_trace,
    "export": lambda m: torch.export.export(m, (X,)).module(),
    "onnx": onnx_program,
    "compile": lambda m: torch.compile(m, backend="aot_eager", fullgraph=True),
    "rewrapped": rewrapped,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("maker", MAKERS)
def test_models(kernels: str, maker: str) -> None:
    expected = expected_of(model(), X)
    made = MAKERS[maker](model())
    assert torch.equal(made(X).detach(), expected)
    with torch.inference_mode():
        assert torch.equal(made(X), expected)
    if maker in ("onnx", "jit.freeze"):
        return
    gradients = []
    for m in (model(), made):
        leaf = X.clone().requires_grad_()
        m(leaf).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    elufast.torch.uninstall()  # what was made goes on with PyTorch's own
    torch.testing.assert_close(made(X).detach(), expected)
    elufast.torch.install(kernels == "native")


@pytest.mark.filterwarnings("ignore")
def test_compiled_backward_of_a_channels_last_input(kernels: str) -> None:
    def step(function: Any, x: Any) -> Any:
        leaf = x.detach().requires_grad_()
        function(leaf).square().sum().backward()
        return leaf.grad

    x = tensor("float32", 2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    eager, compiled = (step(f, x) for f in (F.elu, torch.compile(F.elu, backend="aot_eager", fullgraph=True)))
    assert torch.equal(torch.nan_to_num(eager), torch.nan_to_num(compiled))
    assert eager.stride() == compiled.stride()
    # Declared strides are those of the kernel.
    for grad in (torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5).transpose(2, 3).contiguous().transpose(2, 3)):
        torch.library.opcheck(
            aten.elu_backward.default, (grad, 1.0, 1.0, 1.0, False, x), test_utils=("test_schema", "test_faketensor")
        )


@pytest.mark.filterwarnings("ignore")
def test_eager_quantization(kernels: str) -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    outputs = []
    for installed in (True, False):
        m = nn.Sequential(quantization.QuantStub(), nn.Linear(6, 6), nn.ELU(0.5), quantization.DeQuantStub()).eval()
        m.load_state_dict({k: torch.full_like(v, 0.1) for k, v in m.state_dict().items()})
        m.qconfig = quantization.default_qconfig
        prepared = quantization.prepare(m)
        prepared(X)
        outputs.append(quantization.convert(prepared)(X))
        if installed:
            elufast.torch.uninstall()
    elufast.torch.install(kernels == "native")
    torch.testing.assert_close(*outputs)


def test_subclasses_and_modes(kernels: str) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    names = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(function.name())
            return function(*args, **(kwargs or {}))

    with Names():
        leaf = torch.ones(3, requires_grad=True)
        F.selu(leaf).sum().backward()
    assert {"aten::elu", "aten::elu_backward"} <= set(names)
    with torch.autocast("cpu", torch.bfloat16):
        y = F.elu(nn.Linear(6, 8)(X))
    assert y.dtype is torch.bfloat16


# --------------------------------------------------------------------------------------- processes, threads


def child(queue: Any) -> None:
    queue.put((elufast.torch.status(), F.elu(torch.tensor([-1.0])).item()))


def of_child(method: str) -> Any:
    context = torch.multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    told = queue.get()
    process.join()
    assert process.exitcode == 0
    return told


@needs_linux
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(kernels: str, method: str) -> None:
    """A forked process keeps the kernels, a spawned one is to call install() itself."""
    if (method, kernels) == ("spawn", "python"):
        pytest.skip("imports PyTorch again, to no other end than under native")
    state, value = of_child(method)
    assert state == (kernels if method == "fork" else "off")
    assert value == pytest.approx(np.expm1(-1.0))


def test_threads(kernels: str) -> None:
    """Not while kernels change: PyTorch frees one that is in use."""
    x = torch.linspace(-3, 3, 100)
    expected, failures = F.elu(x), []

    def call() -> None:
        for _ in range(300):
            if not torch.equal(F.elu(x), expected):
                failures.append(1)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@needs_linux
@needs_compiler
def test_no_other_threads_than_pytorchs() -> None:
    printed = run_python(
        "import os, torch, elufast.torch\n"
        "torch.set_num_threads(2)\n"
        "x = torch.randn(1_000_000, requires_grad=True)\n"
        "torch.tanh(x.detach())\n"
        "def step(): torch.nn.functional.elu(x).sum().backward()\n"
        "step()\n"
        "before = os.listdir('/proc/self/task')\n"
        "elufast.torch.install(True)\n"
        "step()\n"
        "print(before == os.listdir('/proc/self/task'))\n"
    )
    assert printed == "True\n"


# --------------------------------------------------------------------------------------- install and uninstall


def test_status() -> None:
    torch_elu = F.elu(X)
    assert elufast.torch.status() == "off"
    elufast.torch.install(False)
    elufast.torch.install(False)
    elufast.torch.install()
    assert elufast.torch.status() == "python"
    with elufast.torch.installed():
        assert elufast.torch.status() == "python"
    assert elufast.torch.status() == "python"
    elufast.torch.uninstall()
    elufast.torch.uninstall()
    assert elufast.torch.status() == "off"
    assert torch.equal(F.elu(X), torch_elu)
    with pytest.raises(KeyError), elufast.torch.installed(False):
        raise KeyError
    assert elufast.torch.status() == "off"


@needs_compiler
def test_from_one_kind_to_the_other() -> None:
    with elufast.torch.installed(True):
        with elufast.torch.installed(False):
            assert elufast.torch.status() == "python"
            assert same(F.elu(X), elufast.elu(X.numpy()))
        elufast.torch.install()
        assert elufast.torch.status() == "native"
        assert same(F.elu(X), elufast.elu(X.numpy()))
    x = torch.tensor([-0.3], dtype=torch.float64)
    assert F.selu(x).item() == pytest.approx(elufast.selu(-0.3), rel=1e-14)


# ------------------------------------------------------------------------------------------------ building
#
# The compiler is a script that hands out what the real one has built, and counts its calls.


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    elufast.torch._native_kernels()
    script = tmp_path / "c++"
    calls = tmp_path / "calls"
    script.write_text(
        f"#!/bin/sh\necho x >> {calls}\nfor last; do :; done\nsleep ${{DELAY:-0}}\n"
        f"cp '{elufast.torch._cached()}' $last\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return calls


def files(tmp_path: Path) -> list[str]:
    return sorted(p.suffix or p.name for p in (tmp_path / "cache/elufast").iterdir())


@needs_compiler
@needs_linux
def test_built_once(compiler: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with elufast.torch.installed(True):
            assert same(F.elu(X), elufast.elu(X.numpy()))
    assert compiler.read_text() == "x\n"
    assert files(tmp_path) == [".so", "lock"]
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == f"elufast: building kernels for PyTorch {torch.__version__}, once\n"


@needs_compiler
@needs_linux
def test_the_folder_of_extensions(compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    with elufast.torch.installed(True):
        (library,) = (tmp_path / "extensions/elufast").glob("*.so")
    for part in (elufast.__version__, f"torch-{torch.__version__}", sys.implementation.cache_tag):
        assert str(part) in library.name


def install_and_compare() -> None:
    elufast.torch.install(True)
    assert same(F.elu(X), elufast.elu(X.numpy()))


@needs_compiler
@needs_linux
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_sixteen_processes_at_once(compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELAY", "0.5")
    context = torch.multiprocessing.get_context("fork")
    processes = [context.Process(target=install_and_compare) for _ in range(16)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 16
    assert compiler.read_text() == "x\n"
    assert files(tmp_path) == [".so", "lock"]


@needs_compiler
@needs_linux
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_build_that_was_killed(compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELAY", "3")
    process = torch.multiprocessing.get_context("fork").Process(target=install_and_compare)
    process.start()
    while not compiler.exists():  # it has begun
        time.sleep(0.01)
    process.kill()
    process.join()
    monkeypatch.setenv("DELAY", "0")
    assert len(files(tmp_path)) == 2
    with elufast.torch.installed(True):
        assert same(F.elu(X), elufast.elu(X.numpy()))
    assert files(tmp_path) == [".so", "lock"]


@needs_compiler
@needs_linux
def test_a_home_that_cannot_be_written(
    compiler: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with elufast.torch.installed(True):
        assert same(F.elu(X), elufast.elu(X.numpy()))
    assert not list((tmp_path / "temporary").iterdir())
    assert "set XDG_CACHE_HOME to keep what is built" in capfd.readouterr().err


@needs_compiler
@needs_linux
def test_a_file_that_does_not_load(compiler: Path, tmp_path: Path) -> None:
    library = elufast.torch._cached()
    library.parent.mkdir(parents=True)
    library.write_bytes(b"")
    with elufast.torch.installed(True):
        assert same(F.elu(X), elufast.elu(X.numpy()))


@needs_compiler
@needs_linux
def test_a_changed_pytorch(compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {elufast.torch._cached().name}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99.0")
        names.add(elufast.torch._cached().name)
    with monkeypatch.context() as patch:
        patch.setattr(torch.version, "git_version", "another")
        names.add(elufast.torch._cached().name)
    with monkeypatch.context() as patch:
        patch.setattr(elufast, "__version__", "9")
        names.add(elufast.torch._cached().name)
    assert len(names) == 4


@needs_linux
def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="install a C\\+\\+ compiler, or set CXX"):
        elufast.torch.install(True)
    assert elufast.torch.status() == "off"
    with pytest.warns(RuntimeWarning, match="kernels in Python") as caught:
        elufast.torch.install()
        elufast.torch.install()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert elufast.torch.status() == "python"
    elufast.torch.uninstall()


@needs_linux
def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "c++"
    script.write_text("#!/bin/sh\necho 'fatal error: no such header' >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", f"{script} --with 'an option'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    with pytest.raises(RuntimeError, match=r"(?s)--with 'an option'.*ended with 3:\nfatal error: no such header"):
        elufast.torch.install(True)
    assert elufast.torch.status() == "off"
    assert files(tmp_path) == ["lock"]


@needs_compiler
def test_the_source_is_beside_the_module() -> None:
    assert (Path(elufast.torch.__file__).parent / "_torch.cpp").is_file()


# ------------------------------------------------------------------------------------------------ documentation


@pytest.mark.parametrize("name", [None, *elufast.torch.__all__])
def test_docstring_examples(name: str | None) -> None:
    documented = getattr(elufast.torch, name) if name else elufast.torch
    test = doctest.DocTestParser().get_doctest(
        documented.__doc__, {"elufast": elufast, "torch": torch}, name or "elufast.torch", None, 0
    )
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


@needs_compiler
def test_gallery_example(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib").use("Agg")
    before = torch.get_num_threads()
    try:
        runpy.run_path(str(Path(__file__).parents[1] / "examples/gallery/pytorch_mlp.py"))
    finally:
        torch.set_num_threads(before)
        sys.modules["matplotlib.pyplot"].close("all")
    assert elufast.torch.status() == "off"
    printed = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+),", printed)]
    assert len(losses) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[2] == pytest.approx(losses[3], rel=1e-5)
    assert all(float(share) > 90 for share in re.findall(r"([\d.]+)% right", printed))
