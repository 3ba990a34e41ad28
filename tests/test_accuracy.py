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
WORST: list[tuple[str, str, float, str, float, float]] = []


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
    WORST + [pytest.param(*row, marks=pytest.mark.xfail(strict=False)) for row in OVER],
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
