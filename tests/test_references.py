"""Published results: the ONNX node tests, PyTorch, the papers."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
from support import DTYPES, Array, Op, ops, sample

import elufast

by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def onnx_cases() -> list[Any]:
    """The node tests of Elu, Selu and Celu as the onnx package generates them."""
    try:
        importlib.import_module("onnx")
    except ModuleNotFoundError:
        return [pytest.param(None, marks=pytest.mark.skip(reason="onnx is not installed"))]
    cases = []
    for operator in ("Elu", "Selu", "Celu"):
        module = importlib.import_module(f"onnx.backend.test.case.node.{operator.lower()}")
        collected: list[Any] = []

        def expect(
            node: Any,
            inputs: list[Array],
            outputs: list[Array],
            name: str,
            collected: list[Any] = collected,
            **_: Any,
        ) -> None:
            attributes = {a.name: a.f for a in node.attribute}
            if inputs[0].dtype in DTYPES:
                case = (node.op_type, attributes, inputs[0], outputs[0])
                collected.append(pytest.param(case, id=name))

        before = module.expect
        try:
            module.expect = expect  # type: ignore[attr-defined]
            for name, member in vars(getattr(module, operator)).items():
                if name.startswith("export"):
                    member.__func__()
        finally:
            module.expect = before  # type: ignore[attr-defined]
        cases += collected
    return cases


@pytest.mark.parametrize("case", onnx_cases())
def test_onnx_node(case: tuple[str, dict[str, float], Array, Array], level: str) -> None:
    operator, attributes, x, expected = case
    tolerance: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-7, "strict": True}
    if operator == "Selu":
        alpha = attributes.get("alpha", elufast.SELU_ALPHA)
        scale = attributes.get("gamma", elufast.SELU_SCALE)
        got = np.where(x > 0, scale * x, elufast.elu(x, alpha * scale)).astype(x.dtype)
        np.testing.assert_allclose(got, expected, **tolerance)
        if not attributes:
            np.testing.assert_allclose(elufast.selu(x), expected, **tolerance)
    else:
        got = getattr(elufast, operator.lower())(x, attributes.get("alpha", 1.0))
        np.testing.assert_allclose(got, expected, **tolerance)


def test_onnx_has_node_tests_of_all_three() -> None:
    pytest.importorskip("onnx")
    names = [case.id for case in onnx_cases()]
    for name in ("test_elu", "test_elu_default", "test_selu", "test_selu_default", "test_celu"):
        assert name in names


# PyTorch's own error. Its CELU takes alpha in float32: the alphas below are exact there.
TOLERANCE: dict[Any, dict[str, Any]] = {
    np.float32: {"rtol": 3e-7, "atol": 1e-44},
    np.float64: {"rtol": 6e-16, "atol": 1e-322},
}


@by_dtype
@pytest.mark.parametrize("op", ops(alphas=(1.0, 0.25, 2.0)), ids=str)
def test_pytorch(op: Op, dtype: Any, level: str) -> None:
    torch = pytest.importorskip("torch")
    function = getattr(torch.nn.functional, op.family)
    x = sample(dtype, 4000, seed=60)
    grad = np.random.default_rng(61).standard_normal(4000).astype(dtype)
    parameters = () if op.family == "selu" else (op.alpha,)
    if op.mode == "forward":
        expected = function(torch.from_numpy(x), *parameters).numpy()
        np.testing.assert_allclose(op(x), expected, **TOLERANCE[dtype])
        np.testing.assert_array_equal(np.signbit(op(x)), np.signbit(expected))
        return
    x = x[np.abs(x) < (np.inf if op.mode == "backward" else 5)]
    leaf = torch.from_numpy(x).requires_grad_()
    function(leaf, *parameters).backward(torch.from_numpy(grad[: x.size]))
    if op.mode == "backward":
        got = op(x, grad[: x.size])
        np.testing.assert_allclose(got, leaf.grad.numpy(), **TOLERANCE[dtype])
    else:
        y = Op(op.family, op.alpha, "forward")(x)
        got = op(y, grad[: x.size])
        near = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(got, leaf.grad.numpy(), rtol=near, atol=near)


@by_dtype
def test_published_examples(dtype: Any, level: str) -> None:
    examples = {-2.3949: -0.9088, -1.4998378: -0.77683365, -0.2037226: -0.18431139}
    for x, y in examples.items():
        assert abs(elufast.elu(dtype(x)) - y) < (5e-5 if y == -0.9088 else 2e-8)


def test_selu_keeps_mean_0_and_variance_1(level: str) -> None:
    """Klambauer et al. 2017: the fixed point, and how the variance goes there from 1.5."""
    z = np.linspace(-12, 12, 40_001)
    density = np.exp(-z * z / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)

    def moments(variance: float) -> tuple[float, float]:
        y = elufast.selu(math.sqrt(variance) * z)
        return float(y @ density), float(y * y @ density)

    np.testing.assert_allclose(moments(1.0), (0, 1), atol=1e-8)
    second, variances = 1.5, [1.5]
    for _ in range(32):
        mean, second = moments(second)  # weights of mean 0: the next input's variance is E y^2
        variances.append(second - mean**2)
    published = {1: 1.371531, 5: 1.126122, 10: 1.035500, 32: 1.000159}
    assert {n: round(variances[n], 6) for n in published} == published
