"""elufast.torch: values, autograd, in place, torch.func, graphs, modules, and what is left to PyTorch."""

from __future__ import annotations

import copy
import doctest
import inspect
import io
import pickle
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import DTYPES, Op, bits, exact, ops, sample, specials, ulps

import elufast

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch._subclasses import FakeTensorMode  # noqa: E402
from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.testing._internal.two_tensor import TwoTensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import elufast.torch  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:.*torch\.jit.* is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:.*(quantiz|Quantiz|sparse|Sparse).*:UserWarning"),
]

FUNCTIONS = [("elu", 1.0), ("elu", 0.7), ("selu", 1.0), ("celu", 1.0), ("celu", 1.7)]
by_function = pytest.mark.parametrize(("name", "alpha"), FUNCTIONS)
by_name = pytest.mark.parametrize("name", ["elu", "selu", "celu"])
by_dtype = pytest.mark.parametrize("dtype", DTYPES)
MODULES = [("ELU", (0.5,)), ("SELU", ()), ("CELU", (2.0,))]


def bound(module: Any, name: str, alpha: float) -> Callable[..., Any]:
    return partial(getattr(module, name), **({} if name == "selu" else {"alpha": alpha}))


def ours(name: str, alpha: float = 1.0) -> Callable[..., Any]:
    return bound(elufast.torch, name, alpha)


def theirs(name: str, alpha: float = 1.0) -> Callable[..., Any]:
    return bound(F, name, alpha)


def double(*shape: int, seed: int = 0) -> Any:
    """Away from 0, where the second derivative jumps."""
    x = np.random.default_rng(seed).uniform(0.1, 3, shape) * np.random.default_rng(seed + 1).choice([-1, 1], shape)
    return torch.from_numpy(x)


def close(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-12)


@by_dtype
@pytest.mark.parametrize("op", ops(alphas=(1.0, 0.3, 2.0)), ids=str)
def test_bits_of_the_numpy_functions(op: Op, dtype: Any) -> None:
    x, g = sample(dtype, 5000, seed=1), np.random.default_rng(2).standard_normal(5000).astype(dtype)
    function = ours(op.family, op.alpha)
    if op.mode == "forward":
        assert bits(function(torch.from_numpy(x))) == bits(op(x))
        tensor = torch.from_numpy(x.copy())
        assert function(tensor, inplace=True) is tensor
        assert bits(tensor) == bits(op(x))
        return
    leaf = torch.from_numpy(x).requires_grad_()
    y = function(leaf.clone(), inplace=True) if op.mode == "from_output" else function(leaf)
    y.backward(torch.from_numpy(g))
    second = y.detach().numpy() if op.mode == "from_output" else x
    assert bits(leaf.grad) == bits(op(second, g))


@by_dtype
@pytest.mark.parametrize("op", ops("forward", "backward", alphas=(1.0, 0.3, 2.0)), ids=str)
def test_error_in_ulp(op: Op, dtype: Any) -> None:
    with np.errstate(over="ignore"):
        values = np.array([-30.5, -17.4, -3.0, -1.0, -0.3, -1e-3, -1e-9, -1e-41, 0.0, 1e-30, 0.7, 12.0], dtype)
    leaf = torch.from_numpy(values).requires_grad_()
    y = ours(op.family, op.alpha)(leaf)
    if op.mode == "backward":
        y.sum().backward()
    got = leaf.grad if op.mode == "backward" else y.detach()
    for value, result in zip(values.tolist(), got.tolist(), strict=True):
        assert ulps(result, exact(op, value), dtype) <= 1.0


# As in test_references: PyTorch's own error.
TOLERANCE: dict[Any, tuple[float, float]] = {np.float32: (3e-7, 1e-44), np.float64: (6e-16, 1e-322)}


@by_dtype
@by_function
def test_against_pytorch(name: str, alpha: float, dtype: Any) -> None:
    alpha = {0.7: 0.25, 1.7: 2.0}.get(alpha, alpha)  # PyTorch's CELU takes alpha in float32
    values = np.concatenate([specials(dtype), sample(dtype, 3000, seed=3)])
    rtol, atol = TOLERANCE[dtype]
    results = []
    for function in (ours(name, alpha), theirs(name, alpha)):
        leaf = torch.from_numpy(values).requires_grad_()
        y = function(leaf)
        y.backward(torch.ones_like(y))
        results.append((y.detach().numpy(), leaf.grad.numpy()))
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)
        np.testing.assert_array_equal(np.signbit(got[values == values]), np.signbit(expected[values == values]))


@by_dtype
@by_name
def test_derivative_at_zero_is_that_of_pytorch(name: str, dtype: Any) -> None:
    alpha = 0.25
    first, second = [], []
    for function in (ours(name, alpha), theirs(name, alpha)):
        leaf = torch.tensor([0.0, -0.0], dtype=torch.from_numpy(np.zeros(1, dtype)).dtype, requires_grad=True)
        (g,) = torch.autograd.grad(function(leaf).sum(), leaf, create_graph=True)
        first.append(g.detach())
        second.append(torch.autograd.grad(g.sum(), leaf)[0])
    assert torch.allclose(*first, rtol=1e-7)
    assert torch.equal(*second)


def layouts(x: Any) -> dict[str, Any]:
    """Tensors of shape (6, 4, 10) made of x, of 2400 elements."""
    base = x[:240].reshape(6, 4, 10)
    return {
        "contiguous": base,
        "transposed": x[:240].reshape(10, 4, 6).permute(2, 1, 0),
        "permuted": x[:240].reshape(4, 10, 6).permute(2, 0, 1),
        "sliced": x.reshape(12, 8, 25)[::2, ::2, :10],
        "offset": x[1:241].reshape(6, 4, 10),
        "expanded": x[:24].reshape(6, 4, 1).expand(6, 4, 10),
        "negative bit": torch._neg_view(base),
        "zeros without memory": torch._efficientzerotensor((6, 4, 10), dtype=x.dtype),
    }


@by_dtype
@by_name
@pytest.mark.parametrize("layout", layouts(torch.zeros(2400)))
def test_layouts(layout: str, name: str, dtype: Any) -> None:
    x = layouts(torch.from_numpy(sample(dtype, 2400, seed=4)))[layout]
    op = Op(name, 1.0 if name == "selu" else 0.5, "forward")
    function = ours(name, op.alpha)
    values = x.numpy(force=True)
    y = function(x)
    assert bits(y) == bits(op(values))
    assert y.stride() == torch.empty_like(x).stride()
    leaf = x.clone().requires_grad_()
    function(leaf).backward(x)
    assert bits(leaf.grad) == bits(Op(name, op.alpha, "backward")(values, values))
    if layout in ("expanded", "zeros without memory"):
        with pytest.raises(RuntimeError, match=r"more than one element|ZeroTensors are immutable"):
            function(x, inplace=True)
    else:
        assert function(x, inplace=True) is x
        assert bits(x.resolve_neg()) == bits(y)


def test_channels_last() -> None:
    x = double(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert elufast.torch.elu(x).is_contiguous(memory_format=torch.channels_last)


@by_dtype
@by_name
def test_empty_and_0d(name: str, dtype: Any) -> None:
    for shape in ((0,), (3, 0, 2), ()):
        x = np.full(shape, -0.5, dtype)
        leaf = torch.from_numpy(x).requires_grad_()
        y = ours(name)(leaf)
        y.sum().backward()
        assert y.shape == leaf.grad.shape == shape
        assert bits(y.detach()) == bits(Op(name, 1.0, "forward")(x))
        tensor = torch.from_numpy(x.copy())
        assert bits(ours(name)(tensor, inplace=True)) == bits(y.detach())


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("name", "alpha", "error"),
    [
        ("elu", float("nan"), ValueError),
        ("celu", float("inf"), ValueError),
        ("celu", 0.0, ValueError),
        ("elu", 1j, TypeError),
        ("elu", torch.tensor(1.0), TypeError),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_refused_alpha(name: str, alpha: Any, error: type[Exception], dtype: Any, inplace: bool) -> None:
    x = -torch.ones(3, dtype=dtype)
    with pytest.raises(error):
        getattr(elufast.torch, name)(x, alpha, inplace)
    assert torch.equal(x, -torch.ones(3, dtype=dtype))


# Autograd


@by_function
@pytest.mark.parametrize("inplace", [False, True])
def test_gradcheck(name: str, alpha: float, inplace: bool) -> None:
    function = ours(name, alpha)
    x = double(3, 4).T.requires_grad_()

    def f(x: Any) -> Any:
        return function(x.clone(), inplace=True) if inplace else function(x)

    assert gradcheck(f, x, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=not inplace)
    assert gradgradcheck(f, x, check_fwd_over_rev=True)


@by_function
def test_third_derivative(name: str, alpha: float) -> None:
    results = []
    for function in (ours(name, alpha), theirs(name, alpha)):
        leaf = double(7).requires_grad_()
        value = function(leaf)
        for _ in range(3):
            (value,) = torch.autograd.grad((value * value).sum(), leaf, create_graph=True)
        results.append(value.detach())
    close(*results)


def test_a_graph_is_not_recorded_without_need() -> None:
    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        assert not elufast.torch.elu(x).requires_grad
    assert not elufast.torch.elu(x.detach()).requires_grad
    assert elufast.torch.elu(x).requires_grad
    with torch.inference_mode():
        assert elufast.torch.elu(x).is_inference()


def test_dual_numbers() -> None:
    x, t = double(5), double(5, seed=2)
    for context in (torch.enable_grad, torch.no_grad):
        with context(), forward_ad.dual_level():
            dual = forward_ad.make_dual(x.clone(), t.clone())
            got = forward_ad.unpack_dual(elufast.torch.selu(dual)).tangent
            inplace = forward_ad.unpack_dual(elufast.torch.selu(dual, inplace=True)).tangent
        assert bits(got.detach()) == bits(elufast.selu_backward(t.numpy(), x.numpy()))
        close(inplace.detach(), got.detach())


@pytest.mark.filterwarnings("ignore:Anomaly Detection:UserWarning")
def test_checkpoint_and_anomaly_mode() -> None:
    leaf = double(5).requires_grad_()
    with torch.autograd.detect_anomaly(check_nan=True):
        torch.utils.checkpoint.checkpoint(elufast.torch.elu, leaf, use_reentrant=False).sum().backward()
    assert bits(leaf.grad) == bits(elufast.elu_backward(np.ones(5), leaf.detach().numpy()))


# In place


def leaf() -> Any:
    return torch.ones(4).neg_().requires_grad_()


def view_of_leaf() -> Any:
    return leaf()[:2]


def one_of_several_views() -> Any:
    return (leaf() * 1).reshape(2, 2).unbind()[0]


def shared_memory() -> Any:
    return (-torch.ones(1)).expand(4)


def inference_tensor() -> Any:
    with torch.inference_mode():
        return -torch.ones(4)


@pytest.mark.parametrize("make", [leaf, view_of_leaf, one_of_several_views, shared_memory, inference_tensor])
def test_inplace_refused_where_pytorch_refuses_it(make: Callable[[], Any]) -> None:
    messages = []
    for function in (F.elu, elufast.torch.elu):
        x = make()
        with pytest.raises(RuntimeError) as error:
            function(x, inplace=True)
        messages.append(str(error.value)[:40])
        assert make is inference_tensor or (x == -1).all()  # which PyTorch writes to before it raises
    assert messages[0] == messages[1]


def test_inplace_without_grad() -> None:
    parameter = nn.Parameter(-torch.ones(3))
    version = parameter._version
    with torch.no_grad():
        assert elufast.torch.elu(parameter, inplace=True) is parameter
    assert parameter._version == version + 1
    assert parameter.is_leaf
    assert bits(parameter.detach()) == bits(elufast.elu(-np.ones(3, np.float32)))
    with torch.inference_mode():
        x = -torch.ones(3)
        elufast.torch.elu(x, inplace=True)
        assert bits(x) == bits(parameter.detach())


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("alpha", [1.0, -0.5, 0.0])
def test_inplace_counts_as_a_change(alpha: float, view: bool) -> None:
    leaf = double(5).requires_grad_()
    x = leaf * 1
    y = x.exp()  # saves its result
    z = x * x  # saves x
    version = x._version
    elufast.torch.elu(x[1:] if view else x, alpha, inplace=True)
    assert x._version > version
    y.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_result_changed_after_inplace_is_noticed() -> None:
    leaf = double(5).requires_grad_()
    y = elufast.torch.elu(leaf * 1, inplace=True)
    y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("alpha", [0.5, 0.0, -0.5])
@pytest.mark.parametrize("part", [slice(None), slice(1, 4)])
def test_inplace_gradient(alpha: float, part: slice) -> None:
    """PyTorch refuses the backward pass of alpha < 0 in place."""
    results = []
    for function in (F.elu, elufast.torch.elu):
        leaf = double(5).requires_grad_()
        x = leaf * 2
        if alpha < 0 and function is F.elu:
            x = torch.cat([x[: part.start or 0], F.elu(x[part], alpha), x[5 if part.stop is None else part.stop :]])
        else:
            function(x[part] if part.start else x, alpha, inplace=True)
        (x * x).sum().backward()
        results.append((x.detach(), leaf.grad))
    close(*results)


# torch.func


def cube(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: (f(x) ** 3).sum()


TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "vmap": vmap,
    "vmap of the second axis": lambda f: vmap(f, in_dims=1, out_dims=1),
    "vmap twice": lambda f: vmap(vmap(f)),
    "grad": lambda f: grad(cube(f)),
    "vmap of grad": lambda f: vmap(grad(cube(f))),
    "jvp": lambda f: lambda x: jvp(f, (x,), (x * x,))[1],
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": lambda f: hessian(cube(f)),
    "reverse over reverse": lambda f: jacrev(jacrev(cube(f))),
    "third": lambda f: grad(lambda x: hessian(cube(f))(x).sum()),
    "in place": lambda f: vmap(lambda x: f(x * 1, inplace=True)),
    "grad of in place": lambda f: grad(cube(lambda x: f(x * 1, inplace=True))),
}


@by_name
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(transform: str, name: str) -> None:
    x = double(3, 4)
    got, expected = (TRANSFORMS[transform](f(name, 0.7))(x) for f in (ours, theirs))
    close(got, expected)


def test_vmap_over_the_gradient_alone() -> None:
    x, grads = double(4), double(3, 4)
    for function in (elufast.torch.elu, F.elu):
        leaf = x.clone().requires_grad_()
        (got,) = torch.autograd.grad(function(leaf, 0.7), leaf, grads, is_grads_batched=True)
        close(got, torch.stack([torch.from_numpy(elufast.elu_backward(g.numpy(), x.numpy(), 0.7)) for g in grads]))


# Operators and graphs

FORWARD, BACKWARD = torch.ops.elufast.forward.default, torch.ops.elufast.backward.default


@by_name
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(name: str, dtype: Any, requires_grad: bool) -> None:
    x, g = (double(3, 4, seed=s).to(dtype).T.requires_grad_(requires_grad) for s in (0, 1))
    for from_output in (False, True):
        torch.library.opcheck(FORWARD, (x, name, 0.7, from_output))
        torch.library.opcheck(BACKWARD, (g, x, name, 0.7, from_output))


def test_operators_under_vmap() -> None:
    x, g = double(3, 4), double(4, seed=1)
    close(vmap(lambda x: FORWARD(x, "elu", 0.7, False))(x), F.elu(x, 0.7))
    got = vmap(lambda x: BACKWARD(g, x, "elu", 0.7, False))(x)
    assert bits(got) == bits(elufast.elu_backward(np.broadcast_to(g.numpy(), (3, 4)), x.numpy(), 0.7))


def targets(graph: Any) -> list[Any]:
    return [node.target for node in graph.nodes if node.op == "call_function"]


@pytest.fixture(scope="module", autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def network() -> Any:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4), nn.ELU(0.7), nn.Linear(4, 4), nn.SELU(inplace=True), nn.Linear(4, 4), nn.CELU(2.0)]
    return nn.Sequential(*layers).double()


def test_compile() -> None:
    model, x = network(), double(5, 4)
    model(x).sum().backward()
    expected = [p.grad for p in model.parameters()]
    swapped = copy.deepcopy(model)
    swapped.zero_grad()
    assert elufast.torch.replace_activations(swapped) == 3
    fast = torch.compile(swapped, fullgraph=True, backend="aot_eager")
    close(fast(x), model(x))
    fast(x).sum().backward()
    for p, g in zip(swapped.parameters(), expected, strict=True):
        close(p.grad, 1 * g)
    with torch.no_grad():
        close(fast(x), model(x))


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compile_to_code() -> None:
    """With inductor, the default backend, which needs a C++ compiler."""
    fast = torch.compile(lambda x: 2 * elufast.torch.elu(x + 1), fullgraph=True)
    leaf = double(2000).requires_grad_()
    y = fast(leaf)
    y.sum().backward()
    x = leaf.detach().numpy() + 1
    assert bits(y.detach()) == bits(2 * elufast.elu(x))
    assert bits(leaf.grad) == bits(elufast.elu_backward(np.full(2000, 2.0), x))


def compiled(function: Any, x: Any) -> tuple[Any, Any]:
    """The result of the compiled function, and the graph that its backend gets."""
    graphs = []

    def backend(graph_module: Any, _: Any) -> Any:
        graphs.append(graph_module.graph)
        return graph_module

    return torch.compile(function, fullgraph=True, backend=backend)(x), graphs[-1]


def test_compiled_graph_holds_the_operators() -> None:
    _, graph = compiled(lambda x: elufast.torch.elu(x, 0.5) + 1, torch.ones(3))
    assert FORWARD in targets(graph)


@by_name
def test_compile_in_place(name: str) -> None:
    def f(x: Any) -> Any:
        y = x * 1
        ours(name, 0.7)(y, inplace=True)
        return y * y

    fast = torch.compile(f, fullgraph=True, backend="aot_eager")
    leaf, other = (double(5).requires_grad_() for _ in range(2))
    fast(leaf).sum().backward()
    f(other).sum().backward()
    close(leaf.grad, other.grad)
    argument = double(5)
    torch.compile(lambda x: ours(name, 0.7)(x, inplace=True), fullgraph=True, backend="aot_eager")(argument)
    assert bits(argument) == bits(Op(name, 0.7, "forward")(double(5).numpy()))


def test_compile_any_shape() -> None:
    fast = torch.compile(elufast.torch.elu, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((3,), (4, 5), (7, 2)):
        x = double(*shape)
        assert bits(fast(x)) == bits(elufast.elu(x.numpy()))


@pytest.mark.parametrize("transform", ["vmap", "grad", "vmap of grad", "jvp", "hessian"])
def test_compile_of_a_transform(transform: str) -> None:
    x = double(3, 4)
    function = TRANSFORMS[transform](ours("elu", 0.7))
    close(torch.compile(function, fullgraph=True, backend="aot_eager")(x), function(x))


def test_transform_of_a_compiled_function() -> None:
    fast = torch.compile(ours("elu", 0.7), backend="aot_eager")
    x = double(4)
    close(grad(cube(fast))(x), grad(cube(theirs("elu", 0.7)))(x))


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool) -> None:
    model, x = network(), double(5, 4)
    swapped = copy.deepcopy(model)
    elufast.torch.replace_activations(swapped)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(swapped, (x,), dynamic_shapes=({0: batch},), strict=strict)
    assert targets(program.graph).count(FORWARD) == 3
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    for exported in (program.module(), torch.export.load(buffer).module()):
        wider = double(9, 4)
        close(exported(wider), model(wider))
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        for function, leaf in zip((exported, model), leaves, strict=True):
            function(leaf).sum().backward()
        close(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(mode: str) -> None:
    def f(x: Any) -> Any:
        return grad(cube(ours("celu", 0.7)))(x)

    graph_module = make_fx(f, tracing_mode=mode)(double(4))
    assert {FORWARD, BACKWARD} <= set(targets(graph_module.graph))
    other = double(4, seed=5)
    close(graph_module(other), grad(cube(theirs("celu", 0.7)))(other))


def test_jit_trace() -> None:
    traced = torch.jit.trace(elufast.torch.elu, (double(4),))
    other = double(4, seed=5)
    assert bits(traced(other)) == bits(elufast.elu(other.numpy()))


def test_dispatch_modes_see_the_operators() -> None:
    seen = []

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    leaf = double(4).requires_grad_()
    with Log():
        elufast.torch.elu(leaf).sum().backward()
    assert FORWARD in seen
    assert BACKWARD in seen
    with FakeTensorMode():
        y = elufast.torch.elu(torch.empty(3, 4).T)
    assert (y.shape, y.stride()) == ((4, 3), (1, 4))


def test_onnx_export_gets_the_operator_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    program = torch.export.export(elufast.torch.ELU(0.5), (torch.ones(3),))
    assert targets(program.graph) == [torch.ops.aten.elu.default]


# What PyTorch computes


@by_name
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_left_to_pytorch(name: str, dtype: Any, inplace: bool) -> None:
    x = double(50).to(dtype)
    got, expected = (f(name, 0.5)(x.clone(), inplace=inplace) for f in (ours, theirs))
    assert got.dtype is dtype
    assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_dtypes_that_pytorch_refuses(dtype: Any) -> None:
    messages = []
    for function in (elufast.torch.elu, F.elu):
        with pytest.raises((RuntimeError, NotImplementedError)) as error:
            function(torch.ones(3, dtype=dtype))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_other_devices_and_layouts_are_left_to_pytorch() -> None:
    meta = elufast.torch.elu(torch.empty(3, 4, device="meta", requires_grad=True))
    assert (meta.device.type, meta.shape, meta.requires_grad) == ("meta", (3, 4), True)
    model = nn.Sequential(nn.Linear(3, 3), nn.ELU())
    elufast.torch.replace_activations(model)
    assert model.to("meta")(torch.empty(2, 3, device="meta")).shape == (2, 3)
    mkldnn = torch.ones(3, 4).to_mkldnn()
    sparse = torch.eye(3).to_sparse()
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
    for x in (mkldnn, sparse, quantized):
        outcomes: list[Any] = []
        for function in (elufast.torch.elu, F.elu):
            try:
                y = function(x)
                outcomes.append((type(y), y.layout, y.dtype))
            except (RuntimeError, NotImplementedError) as error:
                outcomes.append((type(error), str(error)[:60]))
        assert outcomes[0] == outcomes[1]
    with pytest.raises(TypeError):
        elufast.torch.elu(np.ones(3))


def test_subclasses_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(torch.Tensor):
        pass

    x = double(3).as_subclass(Named)
    y = elufast.torch.elu(x)
    assert type(y) is Named
    assert torch.equal(y.as_subclass(torch.Tensor), F.elu(double(3)))
    # As DTensor: it defines operators, and no functions.
    monkeypatch.setattr(TwoTensor, "__torch_function__", torch._C._disabled_torch_function_impl)
    wrapper = TwoTensor(double(3), double(3))
    y, graph = compiled(elufast.torch.elu, wrapper)
    assert type(elufast.torch.elu(wrapper)) is type(y) is TwoTensor
    assert FORWARD not in targets(graph)
    assert bits(elufast.torch.elu(nn.Parameter(double(3))).detach()) == bits(elufast.elu(double(3).numpy()))


def test_autocast() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ELU(), nn.Linear(4, 4))
    swapped = copy.deepcopy(model)
    elufast.torch.replace_activations(swapped)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), swapped(x))
        assert elufast.torch.elu(x).dtype is F.elu(x).dtype is torch.float32


# Modules


@pytest.mark.parametrize(("name", "arguments"), MODULES)
@pytest.mark.parametrize("inplace", [False, True])
def test_modules(name: str, arguments: tuple[float, ...], inplace: bool) -> None:
    kind, original = getattr(elufast.torch, name), getattr(nn, name)
    module = kind(*arguments, inplace=inplace)
    assert repr(module) == repr(original(*arguments, inplace=inplace))
    assert inspect.signature(kind) == inspect.signature(original)
    assert module.state_dict() == {}
    for clone in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(clone) is kind
        x = double(5)
        y = clone(x)
        assert (y is x) == inplace
        assert bits(y) == bits(Op(name.lower(), *(arguments or (1.0,)), "forward")(double(5).numpy()))


@pytest.mark.parametrize("name", ["elu", "selu", "celu"])
def test_signatures_are_those_of_pytorch(name: str) -> None:
    got, expected = (inspect.signature(getattr(m, name)) for m in (elufast.torch, F))
    assert [(p.name, p.default, p.kind) for p in got.parameters.values()] == [
        (p.name, p.default, p.kind) for p in expected.parameters.values()
    ]


class Custom(nn.ELU):
    def forward(self, input: Any) -> Any:
        return 2 * super().forward(input)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.ELU(0.5)
        self.inner = nn.ModuleDict({"a": nn.Sequential(nn.Linear(4, 4), nn.SELU(inplace=True)), "b": nn.CELU(2.0)})
        self.other = nn.ModuleList([Custom(), nn.ReLU()])

    def forward(self, x: Any) -> Any:
        return self.inner["b"](self.inner["a"](self.second(self.first(x)))) + self.other[1](self.other[0](x))


def test_replace_activations() -> None:
    torch.manual_seed(0)
    model = Shared().double().eval()
    model.inner["b"].train()
    reference = copy.deepcopy(model)
    calls = []
    model.first.register_forward_hook(lambda *_: calls.append(1))
    before, names, activation = model.state_dict(), str(model), model.first
    assert elufast.torch.replace_activations(model) == 3
    assert elufast.torch.replace_activations(model) == 0
    assert model.first is model.second is activation
    found = {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.Module)}
    kinds = elufast.torch
    assert found["first"] is kinds.ELU
    assert found["inner.a.1"] is kinds.SELU
    assert found["inner.b"] is kinds.CELU
    assert found["other.0"] is Custom
    assert found["other.1"] is nn.ReLU
    assert isinstance(model.first, nn.ELU)
    assert not model.first.training
    assert model.inner["b"].training
    assert str(model) == names
    assert model.state_dict().keys() == before.keys()
    x = double(3, 4)
    close(model(x), reference(x))
    assert len(calls) == 2
    reference.load_state_dict(model.state_dict())


def test_replace_activations_in_an_activation() -> None:
    activation = nn.CELU(2.0, inplace=True)
    assert elufast.torch.replace_activations(activation) == 1
    assert type(activation) is elufast.torch.CELU
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got list"):
        elufast.torch.replace_activations([activation])  # type: ignore[arg-type]


def test_swapped_after_compiling() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ELU(0.7)).double(), double(2, 4)
    expected, graph = compiled(model, x)
    assert FORWARD not in targets(graph)
    assert elufast.torch.replace_activations(model) == 1
    got, graph = compiled(model, x)
    close(got, expected)
    assert FORWARD in targets(graph)


def test_a_model_trains_alike() -> None:
    model, x = network(), double(64, 4)
    swapped = copy.deepcopy(model)
    elufast.torch.replace_activations(swapped)
    losses = []
    for m in (model, swapped):
        optimizer = torch.optim.Adam(m.parameters(), 0.01)
        for _ in range(20):
            optimizer.zero_grad()
            loss = ((m(x) - x.flip(1)) ** 2).mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
    close(losses[1], losses[0])
    assert losses[0] < 0.9 * ((network()(x) - x.flip(1)) ** 2).mean()
    assert functional_call(swapped, dict(swapped.named_parameters()), (x,)).shape == (64, 4)


# Threads and processes


def test_never_more_threads_than_pytorch(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    asked = []

    def spy(*arguments: Any, num_threads: int, **options: Any) -> Any:
        asked.append(num_threads)
        return elufast.elu(*arguments, **options)

    monkeypatch.setitem(elufast.torch._FORWARD, "elu", spy)
    before = torch.get_num_threads()
    try:
        for of_torch, of_elufast in ((1, 4), (3, 2), (2, 3)):
            torch.set_num_threads(of_torch)
            elufast.set_num_threads(of_elufast)
            elufast.torch.elu(torch.ones(3))
    finally:
        torch.set_num_threads(before)
    assert asked == [1, 2, 2]


class Activated(torch.utils.data.Dataset):  # type: ignore[misc]
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return elufast.torch.elu(torch.full((100_000,), -float(index)))


@pytest.mark.skipif("fork" not in torch.multiprocessing.get_all_start_methods(), reason="workers are forked")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_dataloader_workers() -> None:
    elufast.torch.elu(torch.ones(1_000_000))  # the parent has used its threads
    loader = torch.utils.data.DataLoader(Activated(), num_workers=2, multiprocessing_context="fork", timeout=60)
    for index, batch in enumerate(loader):
        assert bits(batch) == bits(elufast.elu(np.full((1, 100_000), -float(index), np.float32)))


@pytest.mark.parametrize("name", [None, *elufast.torch.__all__])
def test_docstring_examples(name: str | None) -> None:
    documented = getattr(elufast.torch, name) if name else elufast.torch
    test = doctest.DocTestParser().get_doctest(
        documented.__doc__, {"elufast": elufast, "torch": torch}, name or "elufast.torch", None, 0
    )
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted
    assert not result.failed, "".join(report)


def test_gallery_example(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib").use("Agg")
    before = torch.get_num_threads()
    try:
        runpy.run_path(str(Path(__file__).parents[1] / "examples" / "gallery" / "pytorch_mlp.py"))
    finally:
        torch.set_num_threads(before)
        sys.modules["matplotlib.pyplot"].close("all")
    printed = capsys.readouterr().out
    assert printed.count("8 activations replaced") == 2
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+),", printed)]
    assert len(losses) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[2] == pytest.approx(losses[3], rel=1e-5)
    assert all(float(share) > 90 for share in re.findall(r"([\d.]+)% right", printed))
