"""Parameters and operands at the ends of their ranges, in every mode, derivative and dtype."""

from __future__ import annotations

import functools
from typing import Any

import mpmath
import numpy as np
import pytest
from support import Array, Op, bits

import elufast

POSITIVE = (
    *(5e-324, 1e-310, 2.3e-308, 1e-300, 1e-275, 1e-265, 1e-100, 1e-46, 1e-40, 1e-37, 9e-38, 1e-20, 1e-12, 9e-13),
    *(1e-3, 1.0, 7.0, 1e12, 1.1e12, 1e37, 1e38, 3.5e38, 1e100, 1e269, 1e300, 1.1e301, 4.6e307, 1.7e308),
    np.finfo(np.float64).max,
)
ALPHAS = POSITIVE + tuple(-alpha for alpha in POSITIVE)
GRADS = ("1", "0", "-0", "tiny", "-normal", "3", "-max", "inf", "-inf")
# Units in the last place. Half precision is rounded once.
BOUNDS = {"forward": 1.0, "derivative": 1.0, "backward": 1.5}
HALF = 0.501


def dtypes() -> list[Any]:
    found: list[Any] = [np.float16, np.float32, np.float64]
    try:
        import ml_dtypes
    except ImportError:
        return found
    return [*found, ml_dtypes.bfloat16]


def finfo(dtype: Any) -> Any:
    if dtype in (np.float16, np.float32, np.float64):
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


@functools.cache
def limits(dtype: Any) -> dict[str, Any]:
    info = finfo(dtype)
    return {"max": float(info.max), "tiny": float(info.smallest_subnormal), "normal": float(info.smallest_normal)}


def points(dtype: Any, alpha: float) -> Array:
    """Ends of the range, where the curve bends for x and for x / alpha, where exp ends."""
    of = limits(dtype)
    ends = [0.0, of["tiny"], 5 * of["tiny"], of["normal"] / 2, of["normal"], of["max"], np.inf, 1e-9, 0.3, 1.0, 20.0]
    ends += [45.0, 104.0, 250.0, 301.0, 700.0, 745.5, 850.0, 1100.0, 1450.0]
    with np.errstate(over="ignore"):
        ends += list(abs(alpha) * np.array([1e-17, 1e-3, 0.4, 1.0, 10.0, 39.0, 90.0, 305.0, 720.0, 1400.0]))
        values = np.array([*ends, *np.negative(ends)]).astype(dtype)
    return np.unique(values.astype(np.float64)).astype(dtype)  # and both zeros below


def grads(dtype: Any, names: tuple[str, ...]) -> Array:
    of = {"1": 1.0, "3": 3.0, "0": 0.0, "inf": np.inf, **limits(dtype)}
    return np.array([(-1 if name[0] == "-" else 1) * of[name.lstrip("-")] for name in names]).astype(dtype)


def operands(dtype: Any, alpha: float, names: tuple[str, ...] = GRADS) -> tuple[Array, Array]:
    """Every grad with every point."""
    x = points(dtype, alpha)
    x = np.append(x, np.array([-0.0], np.float64).astype(dtype))
    g = grads(dtype, names)
    return np.tile(x, len(g)), np.repeat(g, len(x))


def ops(mode: str) -> list[Op]:
    alphas = POSITIVE if mode == "from_output" else ALPHAS
    return [Op(family, alpha, mode) for family in ("elu", "celu") for alpha in alphas] + [Op("selu", 1.0, mode)]


def real(x: float) -> Any:
    """An infinity as a number beyond all."""
    return mpmath.mpf(x) if np.isfinite(x) else mpmath.sign(x) * mpmath.mpf(10) ** 1000


@functools.cache
def formula(op: Op, x: float) -> Any:
    """The function or its derivative at x."""
    a, scale, inner = op.scalars()
    v = real(x)
    z = max(min(v * inner, 10**4), -(10**4))  # all is decided there
    if op.mode == "forward":
        return scale * v if x >= 0 else a * mpmath.expm1(z)
    return scale if x > 0 else a * inner * mpmath.exp(z)


def error(got: float, value: Any, dtype: Any) -> float:
    """In units in the last place of the exact value; what is beyond the largest number is infinite."""
    info = finfo(dtype)
    largest = mpmath.mpf(float(info.max))
    exponent = max(int(mpmath.frexp(value)[1]) - 1 if value else -9999, int(info.minexp))
    unit = mpmath.ldexp(1, min(exponent, int(info.maxexp) - 1) - int(info.nmant))
    if np.isinf(got):
        return float(max(largest + unit / 2 - abs(value), 0) / unit) if (got > 0) == (value > 0) else np.inf
    return float(abs(mpmath.mpf(got) - value) / unit)


@pytest.mark.parametrize("mode", ["forward", "backward", "from_output"])
@pytest.mark.parametrize("dtype", dtypes())
def test_no_nan_out_of_numbers(mode: str, dtype: Any, level: str) -> None:
    """But of inf * 0, where the gradient itself is infinite and the derivative 0 or rounded to it."""
    for op in ops(mode):
        x, grad = operands(dtype, op.alpha)
        y = op(x, grad).astype(np.float64)
        wrong = np.isnan(y) & np.isfinite(grad.astype(np.float64))
        assert not wrong.any(), (op, x[wrong], grad[wrong])


seen: set[tuple[Op, str, bytes]] = set()  # results that have been found right, of another level


@pytest.mark.parametrize("mode", ["forward", "backward"])
@pytest.mark.parametrize("dtype", dtypes())
def test_values_at_the_ends(mode: str, dtype: Any, level: str) -> None:
    """Within the bound of the formula wherever the result is in range, infinite or 0 beyond, of the right sign."""
    half = np.dtype(dtype).itemsize == 2
    for op in ops(mode):
        if half and op.alpha not in (1e-310, 1e-40, 9e-38, 1.0, 7.0, 1e38, 1e269, 1e300, -1e-40, -1.0, -1.7e308):
            continue
        x, grad = operands(dtype, op.alpha, ("1", "3", "tiny", "-max") if op.backward else ("1",))
        result = op(x, grad)
        key = op, np.dtype(dtype).name, bits(result)
        if key in seen:
            continue
        y = result.astype(np.float64)
        for v, g, got in zip(x.astype(float).tolist(), grad.astype(float).tolist(), y.tolist(), strict=True):
            value = formula(op, v) * g
            found = error(got, value, dtype)
            bound = HALF if half else BOUNDS["derivative" if op.backward and g == 1 else mode]
            assert found <= bound, (op, v, g, got, mpmath.nstr(value, 20), found)
        seen.add(key)


@pytest.mark.parametrize("dtype", dtypes())
def test_celu_of_a_tiny_alpha_from_its_output(dtype: Any, level: str) -> None:
    x = np.array([0.0, 2.0]).astype(dtype)
    for alpha in POSITIVE:
        y = elufast.celu(x, alpha)
        got = elufast.celu_backward(np.ones_like(x), y, alpha, from_output=True)
        np.testing.assert_array_equal(got.astype(float), [1.0, 1.0], err_msg=str(alpha))


@pytest.mark.parametrize("family", ["elu", "celu"])
@pytest.mark.parametrize("dtype", dtypes())
def test_from_output_where_the_output_has_underflowed(family: str, dtype: Any, level: str) -> None:
    """y may be 0 or subnormal, or have saturated: the derivative lies from 0 to its value at 0."""
    for alpha in POSITIVE:
        x = -np.abs(points(dtype, alpha).astype(float)).astype(dtype)
        y = Op(family, alpha, "forward")(x)
        got = Op(family, alpha, "from_output")(y, np.ones_like(y)).astype(float)
        at_zero = 1.0 if family == "celu" else alpha
        with np.errstate(over="ignore"):
            most = float(np.array([at_zero]).astype(dtype)[0])
        assert ((got >= 0) & (got <= most)).all(), (alpha, x[~((got >= 0) & (got <= most))])
