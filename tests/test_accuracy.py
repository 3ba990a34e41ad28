"""At most so many units in the last place, against references that share nothing with elufast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import DTYPES, Array, Op, bound, exact, ulps

import elufast
from elufast import _dispatch

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import accuracy
import exhaustive
import half

# What the docstrings state, in ulp.
FORWARD = 1.0
DERIVATIVE = 1.0
PRODUCT = 1.5

BOUNDS = {"forward": FORWARD, "derivative": DERIVATIVE, "backward": PRODUCT}

FUNCTIONS = [
    ("elu", 1.0),
    ("elu", 0.1),
    ("elu", 0.3),
    ("elu", 2.0),
    ("elu", -0.5),
    ("selu", 1.0),
    ("celu", 0.1),
    ("celu", 0.3),
    ("celu", 2.0),
    ("celu", -0.5),
    ("celu", 1e-30),
    ("celu", -1e30),
]

# The worst inputs that `make accuracy` and `make exhaustive` have found:
# dtype, family, alpha, direction, x, grad.
WORST = [
    ("float32", "elu", 1.0, "forward", -0.3821779489517212, 1.0),
    ("float32", "elu", 1.0, "derivative", -5.890616416931152, 1.0),
    ("float32", "elu", 1.0, "backward", -0.39703918, 2.2674975e-38),
    ("float32", "elu", 0.3, "forward", -0.34351620078086853, 1.0),
    ("float32", "elu", 0.3, "derivative", -5.197946071624756, 1.0),
    ("float32", "elu", 0.3, "backward", -27.376474380493164, 1.0275897134729396e19),
    ("float32", "elu", -1.999882401387001, "forward", -17.306262969970703, 1.0),
    ("float32", "selu", 1.0, "forward", 8.29939474453952e-39, 1.0),
    ("float32", "selu", 1.0, "forward", -0.29493725299835205, 1.0),
    ("float32", "selu", 1.0, "derivative", -38.42024230957031, 1.0),
    ("float32", "selu", 1.0, "backward", -5.844409942626953, 1.5160170793533325),
    ("float32", "celu", 0.3, "forward", -0.10311011970043182, 1.0),
    ("float32", "celu", 0.3, "derivative", -1.7672231197357178, 1.0),
    ("float32", "celu", 2.0, "backward", -15.942781448364258, 4.4427593749884236e-35),
    ("float32", "celu", -0.5, "forward", -0.19064413011074066, 1.0),
    ("float64", "elu", 1.0, "forward", -0.28461188574719204, 1.0),
    ("float64", "elu", 1.0, "derivative", -708.7632211365865, 1.0),
    ("float64", "elu", 1.0, "backward", -708.049434994788, -0.6306460165820388),
    ("float64", "elu", 0.1, "forward", -0.3513793682881569, 1.0),
    ("float64", "elu", 0.3, "derivative", -707.3612554058631, 1.0),
    ("float64", "elu", 0.3, "backward", -1.037661551378275, -1.1430531832469226),
    ("float64", "celu", 0.1, "forward", -0.034011563506632085, 1.0),
    ("float64", "celu", 3489.2139150658913, "forward", -1189.1660546122016, 1.0),
    ("float64", "celu", 3e-05, "forward", -8.635769294702515e-06, 1.0),
    ("float64", "celu", -0.5, "forward", -0.18513760513636887, 1.0),
    ("float64", "celu", -0.5, "forward", -18.57307939723126, 1.0),
    ("float64", "celu", -0.5, "backward", -18.350244710039963, -5e-324),
    ("float64", "celu", -0.5, "backward", -0.1919862759845853, -9.405061289021426e-309),
    ("float64", "celu", -70000000000.0, "forward", -25540014437.46001, 1.0),
    ("float64", "celu", 1e30, "forward", -3.292191310669717e29, 1.0),
    ("float64", "celu", -1.1072121988156555e22, "forward", -3.8374547928438365e21, 1.0),
    ("float64", "celu", -1.1071212081661428e22, "forward", -3.8459169905902847e21, 1.0),
    # Once lost among the subnormals, or infinite too early.
    ("float64", "elu", 1.0, "backward", -0.41010525590882724, -2.0907255869981167e-308),
    ("float64", "elu", 2.0, "backward", -2e-05, 5e-324),
    ("float64", "elu", 1.0, "backward", -0.3623195340131691, 1.7976931348623157e308),
    ("float64", "elu", 1e30, "backward", -71.04896960552463, 8.640184194585515e-308),
    ("float64", "elu", 1.0, "derivative", -2200.0, 1.0),
    ("float64", "celu", -0.5, "forward", -1.7976931348623157e308, 1.0),
    ("float32", "elu", 1.0, "backward", -0.39124858379364014, -8.901201988222314e-40),
    ("float32", "elu", 1e30, "backward", -50.0, 10000000000.0),
]


def test_bounds_are_those_of_the_docstrings() -> None:
    for family in ("elu", "selu", "celu"):
        for name in (family, f"{family}_"):
            assert f"at most {FORWARD} ulp" in getattr(elufast, name).__doc__
        text = " ".join(getattr(elufast, f"{family}_backward").__doc__.split())
        assert f"derivative's error is at most {DERIVATIVE} ulp, that of the product at most {PRODUCT} ulp" in text
    assert accuracy.BOUNDS == BOUNDS
    assert exhaustive.BOUND == FORWARD == DERIVATIVE


def test_every_float32_from_minus_20_to_minus_2_to_the_minus_26() -> None:
    rows = tuple(row for row in exhaustive.ROWS if row.name in ("ELU", "SELU"))
    results = exhaustive.run(exhaustive.tasks(-20.0, -(2.0**-26)), rows)
    assert len(results) == 2
    for (row, level), result in results.items():
        assert result.count == 0xC1A00000 - 0xB2800000 + 1, (row, level)
        assert result.faults == 0, (row, level, result)
        assert 0.5 < result.ulp <= BOUNDS["forward"], (row, level, result)


@pytest.mark.parametrize("family", ["elu", "selu", "celu"])
def test_slices_near_the_ends_of_the_derivative(family: str) -> None:
    """Subnormal results, and where they become 0."""
    rows = tuple(row for row in exhaustive.ROWS if row.family == family and row.backward)
    results = exhaustive.run(exhaustive.tasks(-104.5, -86.5), rows, _dispatch.built_levels(), processes=1)
    for key, result in results.items():
        assert result.faults == 0, (key, result)
        assert result.ulp <= BOUNDS["derivative"], (key, result)


def hard_inputs(case: accuracy.Case, dtype: Any, size: int) -> tuple[Array, Array]:
    """Finite ones, with grads; no result is out of range."""
    rng = np.random.default_rng(accuracy.SEED)
    x = accuracy.hard(rng, size, np.dtype(dtype), case.inner)
    grad = accuracy.gradients(rng, len(x), np.dtype(dtype))
    keep = np.isfinite(x) & np.isfinite(grad)
    return x[keep], grad[keep]


def error(case: accuracy.Case, direction: str, x: float, grad: float, got: Any, dtype: Any) -> float:
    op = Op(case.family, case.alpha, "forward" if direction == "forward" else "backward")
    wanted = exact(op, x, 1.0 if direction == "derivative" else grad)
    if np.isinf(got):
        # Beyond the largest number by half its ulp.
        largest = float(np.finfo(dtype).max)
        return 0.0 if abs(wanted) >= largest and (wanted > 0) == (got > 0) else np.inf
    return ulps(got, wanted, dtype)


@pytest.mark.parametrize("direction", BOUNDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("family", "alpha"), FUNCTIONS)
def test_hard_inputs(family: str, alpha: float, dtype: Any, direction: str) -> None:
    case = accuracy.Case(family, alpha)
    x, grad = hard_inputs(case, dtype, 800)
    g = None if direction == "forward" else np.ones_like(x) if direction == "derivative" else grad
    for level in _dispatch.built_levels():
        with bound(level):
            y = case.call(x, g)
        for i in range(len(x)):
            found = error(case, direction, float(x[i]), float(grad[i]), y[i], dtype)
            assert found <= BOUNDS[direction], (level, x[i], grad[i], y[i])


@pytest.mark.parametrize(
    ("dtype", "family", "alpha", "direction", "x", "grad"),
    WORST,
)
def test_worst_known_input(
    level: str, dtype: str, family: str, alpha: float, direction: str, x: float, grad: float
) -> None:
    case = accuracy.Case(family, alpha)
    x1, g1 = np.full(1, x, dtype), np.full(1, grad, dtype)
    y = case.call(x1, None if direction == "forward" else g1)
    assert error(case, direction, float(x1[0]), float(g1[0]), y[0], dtype) <= BOUNDS[direction]


@pytest.mark.skipif(len(_dispatch.built_levels()) < 3, reason="needs v3 and v4")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("family", "alpha"), FUNCTIONS)
def test_levels_with_fma_give_the_same_bits(family: str, alpha: float, dtype: Any) -> None:
    case = accuracy.Case(family, alpha)
    rng = np.random.default_rng(accuracy.SEED)
    x = accuracy.hard(rng, 10**6, np.dtype(dtype), case.inner)
    for grad in (None, accuracy.gradients(rng, len(x), np.dtype(dtype))):
        results = []
        for level in ("v3", "v4"):
            with bound(level):
                results.append(case.call(x, grad))
        nan = np.isnan(results[0])
        assert np.array_equal(nan, np.isnan(results[1]))
        unsigned = f"u{np.dtype(dtype).itemsize}"
        assert np.array_equal(results[0].view(unsigned)[~nan], results[1].view(unsigned)[~nan])


by_half = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.skipif(kind not in half.available(), reason="needs ml_dtypes"))
        for kind in half.HALVES
    ],
    ids=lambda kind: kind.name,
)


@pytest.mark.parametrize(("family", "alpha"), half.CASES)
@by_half
def test_every_half_is_correctly_rounded(kind: half.Half, family: str, alpha: float) -> None:
    x, wide = kind.inputs(), kind.wide_inputs()
    for direction in half.DIRECTIONS:
        correct = half.expected(kind, family, alpha, direction, wide)
        for level in _dispatch.built_levels():
            with bound(level):
                y = half.call(family, alpha, x, None if direction == "forward" else np.ones_like(x))
            assert y.dtype == x.dtype
            wrong = half.wrong(y, correct)
            assert not len(wrong), (level, direction, len(wrong), x[wrong[0]], y[wrong[0]], correct[wrong[0]])


@pytest.mark.parametrize(
    ("family", "alpha"), [*half.CASES, ("elu", -0.7), ("celu", -0.7), ("elu", 1e-3), ("elu", 1e30)]
)
@by_half
def test_half_gradients(kind: half.Half, family: str, alpha: float) -> None:
    """Subnormal results too: none is rounded twice. All levels give the same."""
    rng = np.random.default_rng(70)
    for _ in range(3):
        x, grad = half.gradients(kind, rng)
        results = []
        for level in _dispatch.built_levels():
            with bound(level):
                results.append(half.call(family, alpha, x, grad))
            error = half.product_error(kind, family, alpha, x, grad, results[-1])
            worst = int(np.argmax(error))
            assert error[worst] <= half.BOUND, (level, x[worst], grad[worst], results[-1][worst], error[worst])
            with np.errstate(invalid="ignore"):  # NaNs that signal
                nan, lost = np.isnan(results[-1]), np.isnan(x) | np.isnan(grad)
            assert nan[lost].all()
            assert (results[0].view(np.uint16) == results[-1].view(np.uint16))[~nan].all(), level


def test_half_reference_is_that_of_mpmath() -> None:
    """On some inputs: where it is mpmath's anyway, and elsewhere."""
    for kind in half.HALVES:
        x = np.linspace(-20, 3, 400).astype(np.float16).astype(np.float64)
        for family, alpha in half.CASES:
            for direction in half.DIRECTIONS:
                both = [half.expected(kind, family, alpha, direction, x, everywhere) for everywhere in (False, True)]
                assert np.array_equal(*both)
