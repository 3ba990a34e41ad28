"""Values: against the formula in 50 digits, and every row of the table of special values."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
from support import DTYPES, SELU_ALPHA, SELU_SCALE, Array, Op, bits, exact, ops, sample, ulps

import elufast

ALPHAS = (1.0, 0.3, 2.5, -0.7, 1e-3)
KINDS = ops("forward", "backward", alphas=ALPHAS)
DERIVATIVES = ops("backward", alphas=ALPHAS)
BOUND, BOUND_GRAD = 1.0, 1.5
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def assert_close(op: Op, got: Array, x: Array, grad: Array, bound: float, floor: float = 0.0) -> None:
    """Each result within bound ulp of the formula; beyond the largest number, infinite.

    ``floor`` is an absolute error allowed beside it, in units of eps.
    """
    dtype = got.dtype.type
    largest = mpmath.mpf(float(np.finfo(dtype).max))
    for k in range(x.size):
        value = exact(op, float(x[k]), float(grad[k]))
        where = f"{op} at x = {x[k]!r}, grad = {grad[k]!r}: {got[k]!r}, exactly {value}"
        if not np.isfinite(got[k]):
            assert abs(value) >= largest and np.sign(got[k]) == mpmath.sign(value), where
            continue
        error = ulps(got[k], value, dtype)
        if floor and abs(float(got[k]) - float(value)) <= floor * np.finfo(dtype).eps:
            continue
        assert error <= bound, f"{where}, {error:.3f} ulp"


def finite(dtype: Any, size: int, seed: int) -> Array:
    x = sample(dtype, size, seed)
    return x[np.isfinite(x)]


@by_dtype
def test_sample_is_not_degenerate(dtype: Any) -> None:
    x = sample(dtype, 640)
    tiny = np.finfo(dtype).smallest_normal
    kinds = {
        "negative": x < 0,
        "positive": x > 0,
        "subnormal below zero": (x < 0) & (x > -tiny),
        "subnormal above zero": (x > 0) & (x < tiny),
        "+0": (x == 0) & ~np.signbit(x),
        "-0": (x == 0) & np.signbit(x),
        "NaN": np.isnan(x),
        "inf": x == np.inf,
        "-inf": x == -np.inf,
        "saturated": x < -40,
        "where the curve bends": (x < -0.1) & (x > -10),
        "largest": x == np.finfo(dtype).max,
    }
    assert [kind for kind, here in kinds.items() if not here.any()] == []
    assert np.unique(x).size > 500
    assert bits(x) == bits(sample(dtype, 640)) != bits(sample(dtype, 640, seed=1))


@by_dtype
@pytest.mark.parametrize("op", KINDS, ids=str)
def test_against_50_digits(op: Op, dtype: Any, level: str) -> None:
    x = finite(dtype, 480, seed=2)
    ones = np.ones_like(x)
    assert_close(op, op(x, ones), x, ones, BOUND)


@by_dtype
@pytest.mark.parametrize("op", DERIVATIVES, ids=str)
def test_backward_with_any_grad(op: Op, dtype: Any, level: str) -> None:
    x = finite(dtype, 480, seed=3)
    grad = np.random.default_rng(4).permutation(x)
    assert_close(op, op(x, grad), x, grad, BOUND_GRAD)


@by_dtype
@pytest.mark.parametrize("alpha", [1e-320, 1e-42, 1e-37, 1e-20, 3e19, -1e-10, 1e30, 1e300])
def test_extreme_alpha(alpha: float, dtype: Any, level: str) -> None:
    """The formula holds with the alpha that was passed, also where float32 cannot hold it."""
    x = finite(dtype, 160, seed=5)
    ones = np.ones_like(x)
    for op in ops("forward", "backward", alphas=(alpha,)):
        with np.errstate(over="ignore"):
            assert_close(op, op(x, ones), x, ones, BOUND)


@pytest.mark.parametrize("alpha", [-3e-308, -1e-300, -1e-30, -0.7, -1e30, -1e300])
def test_celu_grows_to_the_largest_number(alpha: float, level: str) -> None:
    """With alpha < 0 the result grows with exp(x / alpha), here over all of the range of the exponents."""
    x = np.append(alpha * np.linspace(1.0, min(1480.0, 1e308 / -alpha), 300), -np.finfo(np.float64).max)
    op = Op("celu", alpha, "forward")
    assert_close(op, op(x), x, x, BOUND)


@pytest.mark.parametrize("name", ["elu", "celu"])
def test_alpha_is_not_rounded_to_the_dtype(name: str, level: str) -> None:
    """float32(0.1) is half an ulp from 0.1: a result that used it would show."""
    x = finite(np.float32, 480, seed=6)
    for alpha in (0.1, 1.1, 0.7):
        op = Op(name, alpha, "forward")
        assert_close(op, op(x), x, x, BOUND)


@by_dtype
@pytest.mark.parametrize("op", ops("from_output"), ids=str)
def test_backward_from_output(op: Op, dtype: Any, level: str) -> None:
    """y + A is taken in the dtype: near y = -A its error is that of A rounded, 1 eps of it."""
    y = Op(op.family, op.alpha, "forward")(finite(dtype, 480, seed=7))
    y = y[np.isfinite(y)]
    ones = np.ones_like(y)
    got = op(y, ones)
    assert (got >= 0).all()
    assert_close(op, got, y, ones, 2.0, floor=2.0)


@by_dtype
@pytest.mark.parametrize("op", ops("from_output", alphas=(1.0, 0.3, 2.0)), ids=str)
def test_from_output_agrees_with_from_input(op: Op, dtype: Any, level: str) -> None:
    x = np.linspace(-4, 3, 1001, dtype=dtype)
    y = Op(op.family, op.alpha, "forward")(x)
    grad = np.random.default_rng(8).standard_normal(x.size).astype(dtype)
    from_input = Op(op.family, op.alpha, "backward")(x, grad)
    from_output = op(y, grad)
    limit = 4 * np.finfo(dtype).eps * np.abs(grad)
    assert (np.abs(from_input - from_output) <= limit).all()
    assert (from_output != 0).all()


@by_dtype
def test_from_output_is_zero_where_the_output_has_saturated(dtype: Any, level: str) -> None:
    saturated = dtype(-17.4 if dtype is np.float32 else -37.5)
    for op in ops("from_output", alphas=(1.0,)):
        y = Op(op.family, op.alpha, "forward")(np.array([saturated]))
        assert op(y, np.ones_like(y))[0] <= 2 * np.finfo(dtype).eps
        exact = Op(op.family, op.alpha, "backward")(np.array([saturated]), np.ones_like(y))
        assert exact[0] > 0


def big(value: float, dtype: Any, size: int) -> Array:
    """Only one element is special: the others must not change it, nor it them."""
    x = np.full(size, -1.0, dtype)
    x[size // 2] = value
    return x


@by_dtype
@pytest.mark.parametrize("size", [1, 7, 64, 5001])
@pytest.mark.parametrize("op", ops("forward", alphas=(1.0, 0.3, -0.7)), ids=str)
def test_special_values_forward(op: Op, size: int, dtype: Any, level: str) -> None:
    a, _, inner = (dtype(float(v)) for v in op.scalars())
    low = -a if inner > 0 else a * dtype(np.inf)
    for value, expected in [
        (np.inf, np.inf),
        (-np.inf, low),
        (0.0, 0.0),
        (-0.0, -0.0),
        (np.nan, np.nan),
    ]:
        got = op(big(value, dtype, size))[size // 2]
        np.testing.assert_array_equal(got, dtype(expected), strict=True)
        if value == 0:
            assert np.signbit(got) == np.signbit(value)
    assert op(big(2.0, dtype, size))[size // 2] == dtype(2 * float(op.scalars()[1]))


@by_dtype
@pytest.mark.parametrize("size", [1, 7, 64, 5001])
@pytest.mark.parametrize("op", ops("backward", alphas=(1.0, 0.3, -0.7)), ids=str)
def test_special_values_backward(op: Op, size: int, dtype: Any, level: str) -> None:
    a, scale, inner = op.scalars()
    at_zero = dtype(float(a * inner))
    low = dtype(0) if inner > 0 else dtype(np.inf)
    for value, expected in [
        (np.inf, dtype(float(scale))),
        (-np.inf, low),
        (0.0, at_zero),
        (-0.0, at_zero),
        (np.nan, np.nan),
    ]:
        x = big(value, dtype, size)
        got = op(x, np.ones_like(x))[size // 2]
        np.testing.assert_array_equal(got, dtype(expected), strict=True)
        if value == -np.inf and op.alpha > 0:
            assert not np.signbit(got)
    x = big(-1.0, dtype, size)
    for value in (np.inf, -np.inf, np.nan):
        got = op(x, big(value, dtype, size))[size // 2]
        np.testing.assert_array_equal(got, dtype(value * np.sign(float(a * inner))))
        got = op(big(2.0, dtype, size), big(value, dtype, size))[size // 2]
        np.testing.assert_array_equal(got, dtype(value))
    x = np.linspace(-30, 3, size, dtype=dtype)
    negative = np.signbit(op(x, np.ones_like(x)))
    for value in (0.0, -0.0):
        got = op(x, np.full_like(x, value))
        assert not got.any()
        np.testing.assert_array_equal(np.signbit(got), negative ^ np.signbit(value))


@by_dtype
@pytest.mark.parametrize("op", ops("from_output"), ids=str)
def test_special_values_from_output(op: Op, dtype: Any, level: str) -> None:
    a, scale, inner = op.scalars()
    y = np.array([np.inf, 3.0, 0.0, -0.0, -float(a), np.nan], dtype)
    up, slope = float(scale), float(a * inner)
    expected = np.array([up, up, slope, slope, 0, np.nan], dtype)
    np.testing.assert_array_equal(op(y, np.ones_like(y)), expected, strict=True)


@by_dtype
@pytest.mark.parametrize("op", ops("from_output"), ids=str)
def test_from_output_is_never_negative(op: Op, dtype: Any, level: str) -> None:
    lowest = dtype(-float(op.scalars()[0]))
    y = np.array([np.nextafter(lowest, dtype(-np.inf)), lowest * dtype(1 + 1e-6)], dtype)
    np.testing.assert_array_equal(op(y, np.ones_like(y)), [0, 0])


@by_dtype
def test_subnormals_are_not_flushed(dtype: Any, level: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    x = -tiny * np.array([1, 2, 3, 1000, 2**20], dtype)
    np.testing.assert_array_equal(elufast.elu(x), x)
    np.testing.assert_array_equal(elufast.celu(x), x)
    np.testing.assert_array_equal(elufast.elu(-x), -x)
    np.testing.assert_array_equal(elufast.selu(x) / tiny, np.rint(x / tiny * 1.75809934))
    deep = np.array([-88.0 if dtype is np.float32 else -710.0], dtype)
    derivative = elufast.elu_backward(np.ones_like(deep), deep)
    assert 0 < derivative[0] < np.finfo(dtype).smallest_normal


def test_alpha_zero(level: str) -> None:
    x = np.array([-np.inf, -3.0, -1e-300, 0.0, 2.0])
    np.testing.assert_array_equal(elufast.elu(x, 0.0), [0, 0, 0, 0, 2])
    np.testing.assert_array_equal(elufast.elu_backward(np.ones(5), x, 0.0), [0, 0, 0, 0, 1])


@by_dtype
def test_selu_constants(dtype: Any) -> None:
    assert float(SELU_ALPHA) == elufast.SELU_ALPHA
    assert float(SELU_SCALE) == elufast.SELU_SCALE
    assert elufast.selu(np.array([1.0], dtype))[0] == dtype(elufast.SELU_SCALE)
    assert elufast.selu(np.array([-np.inf], dtype))[0] == dtype("-1.75809934084737685994")


@pytest.mark.parametrize("op", ops("backward"), ids=str)
def test_gradient_against_central_differences(op: Op, level: str) -> None:
    x = np.concatenate([np.linspace(-12, -1e-3, 500), np.linspace(1e-3, 5, 200)])
    forward = Op(op.family, op.alpha, "forward")
    step = 1e-5
    numeric = (forward(x + step) - forward(x - step)) / (2 * step)
    analytic = op(x, np.ones_like(x))
    np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-9)
    single = x.astype(np.float32)
    np.testing.assert_allclose(op(single, np.ones_like(single)), op(single.astype(float), np.ones_like(x)), rtol=1.2e-7)


@by_dtype
@pytest.mark.parametrize("mode", ["forward", "backward", "from_output"])
def test_celu_is_elu_where_alpha_is_one(mode: str, dtype: Any, level: str) -> None:
    x = sample(dtype, 4000)
    grad = x[::-1].copy()
    assert bits(Op("celu", 1.0, mode)(x, grad)) == bits(Op("elu", 1.0, mode)(x, grad))


@pytest.mark.parametrize("alpha", [2, np.float32(0.5), np.float64(0.3), np.int64(3), True])
def test_alpha_of_any_real_type(alpha: Any) -> None:
    x = np.linspace(-3, 3, 50)
    for name in ("elu", "celu"):
        function = getattr(elufast, name)
        assert bits(function(x, alpha)) == bits(function(x, float(alpha)))
        assert bits(function(x, alpha=alpha)) == bits(function(x, float(alpha)))
