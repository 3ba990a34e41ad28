"""Half precision against the real-number formulas: every input of float16 and of bfloat16.

    python tools/half.py [--mpmath]

Forward and derivative: all 65 536 inputs, with the alphas below, at every level that this CPU has: how many results are
not correctly rounded. Backward: every input with gradients drawn at random: the largest error in ulp. The exit code is
1 where a result is wrong, or an error of a product is over 0.501 ulp.

The reference is NumPy's expm1 and exp in float64, rounded to a half where all that is within 2^-40 of it rounds to the
same, and mpmath elsewhere; with --mpmath it is mpmath everywhere (minutes).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
from exhaustive import ALPHA, SCALE, use

import elufast
from elufast import _dispatch

Array = npt.NDArray[Any]

BOUND = 0.501  # ulp, of a product
MARGIN = 2.0**-40  # the largest relative error of the reference in float64, by far
CASES = (*(("elu", alpha) for alpha in (1.0, 0.3, 2.0)), ("selu", 1.0), *(("celu", alpha) for alpha in (1.0, 0.3, 2.0)))
DIRECTIONS = ("forward", "derivative")


@dataclass(frozen=True)
class Half:
    name: str
    digits: int  # of the significand, after the point
    lowest: int  # exponent of the smallest normal number
    highest: int  # of the largest

    @property
    def dtype(self) -> np.dtype[Any]:
        if self.name == "float16":
            return np.dtype(np.float16)
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)

    def inputs(self) -> Array:
        return np.arange(1 << 16, dtype=np.uint16).view(self.dtype)

    def wide_inputs(self) -> Array:
        with np.errstate(invalid="ignore"):  # NaNs that signal
            return self.inputs().astype(np.float64)

    def unit(self, v: Array) -> Array:
        """The distance of two neighbours at v."""
        return np.ldexp(1.0, np.maximum(np.frexp(v)[1] - 1, self.lowest) - self.digits)

    def rounded(self, v: Array) -> Array:
        """v, a float64, to nearest even, where the largest half is followed by more of its kind."""
        unit = self.unit(v)
        return np.rint(v / unit) * unit

    def limited(self, v: Array) -> Array:
        return np.where(np.abs(v) >= 2.0 ** (self.highest + 1), np.copysign(np.inf, v), v)


HALVES = (Half("float16", 10, -14, 15), Half("bfloat16", 7, -126, 127))


def available() -> list[Half]:
    return [half for half in HALVES if half.name == "float16" or importlib.util.find_spec("ml_dtypes")]


def near(family: str, alpha: float, direction: str, x: Array) -> Array:
    """The formula in float64, for float64."""
    scale, below = (float(SCALE), float(SCALE * ALPHA)) if family == "selu" else (1.0, alpha)
    with np.errstate(all="ignore"):
        z = x / alpha if family == "celu" else x
        if direction == "forward":
            return np.where(x < 0, below * np.expm1(z), scale * x)
        return np.where(x > 0, scale, (1.0 if family == "celu" else below) * np.exp(z))


def exactly(family: str, alpha: float, direction: str, x: float) -> Any:
    """The same in mpmath, for a finite x."""
    with mpmath.workprec(300):
        v, a, scale = mpmath.mpf(x), mpmath.mpf(alpha), mpmath.mpf(1)
        if family == "selu":
            scale = mpmath.mpf(SCALE.numerator) / SCALE.denominator
            a = scale * ALPHA.numerator / ALPHA.denominator
        z = v / a if family == "celu" else v
        if direction == "forward":
            return scale * v if x >= 0 else a * mpmath.expm1(max(z, -10000))
        return scale if x > 0 else (1 if family == "celu" else a) * mpmath.exp(max(z, -10000))


def expected(half: Half, family: str, alpha: float, direction: str, x: Array, everywhere: bool = False) -> Array:
    """The correctly rounded results, as float64, for halves as float64; a NaN for a NaN."""
    v = near(family, alpha, direction, x)
    with np.errstate(invalid="ignore"):
        low, high = (half.rounded(v * (1 + sign * MARGIN)) for sign in (-1, 1))
    open_ = np.isfinite(x) & (np.ones(x.shape, bool) if everywhere else low != high)
    result = low
    for k in np.flatnonzero(open_):
        exact = exactly(family, alpha, direction, float(x[k]))
        unit = float(half.unit(np.float64(v[k])))
        with mpmath.workprec(300):
            whole = mpmath.nint(exact / unit)  # to nearest even
            assert abs(whole - exact / unit) < 0.5 or exact == v[k], "no result is the middle of two halves"
            result[k] = np.copysign(float(whole) * unit, v[k])
    return half.limited(result)


def call(family: str, alpha: float, x: Array, grad: Array | None, bias: Array | None = None) -> Array:
    arguments = () if family == "selu" else (alpha,)
    if grad is None:
        return np.asarray(getattr(elufast, family)(x, *arguments, bias=bias))
    return np.asarray(getattr(elufast, f"{family}_backward")(grad, x, *arguments, bias=bias))


def wrong(y: Array, correct: Array) -> Array:
    """Where results are not the float64 that is correct, zeros' signs included."""
    with np.errstate(invalid="ignore"):
        got = y.astype(np.float64)
    same = (got == correct) & (np.signbit(got) == np.signbit(correct))
    return np.flatnonzero(~same & ~(np.isnan(got) & np.isnan(correct)))


def product_error(half: Half, family: str, alpha: float, x: Array, grad: Array, y: Array) -> Array:
    """Errors in ulp, subnormal ones included; infinity for a NaN, infinity or sign that is wrong."""
    with np.errstate(all="ignore"):
        wide, g, got = (a.astype(np.float64) for a in (x, grad, y))
        slope = near(family, alpha, "derivative", wide)
        # What underflows is no zero to an infinite grad, what overflows not infinite to a zero.
        bounded = np.copysign(np.clip(np.abs(slope), 5e-324, np.finfo(np.float64).max), slope)
        slope = np.where(np.isfinite(wide), bounded, slope)
        exact = g * slope
        error = np.abs(got - exact) / half.unit(exact)
        top = 2.0 ** (half.highest + 1)
        beyond = np.abs(exact) >= top * (1 - 2.0 ** -(half.digits + 2)) * (1 - MARGIN)
    finite = np.where(beyond & np.isinf(got), np.abs(np.copysign(top, got) - exact) / half.unit(exact), error)
    finite[beyond & np.isinf(got) & (np.abs(exact) > top)] = 0
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    bad = (np.isnan(got) != np.isnan(exact)) | (np.signbit(got) != np.signbit(exact)) & ~np.isnan(got)
    return np.where(bad, np.inf, np.where(same, 0, finite))


def gradients(half: Half, rng: np.random.Generator) -> tuple[Array, Array]:
    """Every input, with a gradient of any size."""
    return half.inputs(), rng.permutation(half.inputs())


def print_table(everywhere: bool = False) -> bool:
    """One row a function; whether all results are within their bounds."""
    levels, good = _dispatch.built_levels(), True
    print(
        "| dtype | function |", " | ".join(f"{level}: forward, derivative wrong; backward ulp" for level in levels), "|"
    )
    print(f"|---|---|{'---|' * len(levels)}")
    for half in available():
        x = half.inputs()
        rng = np.random.default_rng(0)
        for family, alpha in CASES:
            correct = [expected(half, family, alpha, d, half.wide_inputs(), everywhere) for d in DIRECTIONS]
            pairs = [gradients(half, rng) for _ in range(16)]
            cells = []
            for level in levels:
                use(level)
                counts = [
                    len(wrong(call(family, alpha, x, grad), right))
                    for grad, right in zip((None, np.ones_like(x)), correct, strict=True)
                ]
                worst = max(
                    float(product_error(half, family, alpha, a, g, call(family, alpha, a, g)).max()) for a, g in pairs
                )
                good &= not any(counts) and worst <= BOUND
                cells.append(f"{counts[0]}, {counts[1]}; {worst:.4f}")
            name = family if family == "selu" else f"{family} {alpha:g}"
            print(f"| {half.name} | {name} | {' | '.join(cells)} |", flush=True)
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mpmath", action="store_true")
    sys.exit(not print_table(parser.parse_args().mpmath))
