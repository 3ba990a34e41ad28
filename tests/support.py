"""What the tests share: the functions under test, sample data, the exact results, subprocesses."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

import elufast
from elufast import _core, _dispatch, _runtime

Array = NDArray[Any]

DTYPES = (np.float32, np.float64)
LINUX = sys.platform == "linux"
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")  # as `make test-sanitized` does
ROUNDS = int(os.environ.get("ELUFAST_ROUNDS", "10"))  # `make processes` sets it to 200

mpmath.mp.dps = 50
SELU_ALPHA = mpmath.mpf("1.6732632423543772848170429916717")
SELU_SCALE = mpmath.mpf("1.0507009873554804934193349852946")


@dataclass(frozen=True)
class Op:
    """One public function with its alpha: what is called, and what it should give."""

    family: str
    alpha: float
    mode: str  # forward, backward, from_output

    def __str__(self) -> str:
        return f"{self.family}-{self.alpha:g}-{self.mode}"

    @property
    def arguments(self) -> tuple[float, ...]:
        return () if self.family == "selu" else (self.alpha,)

    @property
    def backward(self) -> bool:
        return self.mode != "forward"

    def __call__(self, x: Any, grad: Any = None, **options: Any) -> Any:
        """The function of x and, for the backward ones, grad (x itself if not given)."""
        if not self.backward:
            return getattr(elufast, self.family)(x, *self.arguments, **options)
        return getattr(elufast, f"{self.family}_backward")(
            x if grad is None else grad,
            x,
            *self.arguments,
            from_output=self.mode == "from_output",
            **options,
        )

    def inplace(self, x: Array, **options: Any) -> Any:
        return getattr(elufast, f"{self.family}_")(x, *self.arguments, **options)

    def scalars(self) -> tuple[Any, Any, Any]:
        """A = scale * alpha, scale and the factor inside exp."""
        if self.family == "selu":
            return SELU_SCALE * SELU_ALPHA, SELU_SCALE, mpmath.mpf(1)
        alpha = mpmath.mpf(self.alpha)
        return alpha, mpmath.mpf(1), 1 / alpha if self.family == "celu" else mpmath.mpf(1)


@functools.cache
def exact(op: Op, x: float, grad: float = 1.0) -> Any:
    """The real-number formula, for finite x and grad."""
    a, scale, inner = op.scalars()
    v, g = mpmath.mpf(x), mpmath.mpf(grad)
    z = max(min(v * inner, 10**5), -(10**5))  # all is decided there
    if op.mode == "forward":
        return scale * v if x >= 0 else a * mpmath.expm1(z)
    if op.mode == "backward":
        return g * (scale if x > 0 else a * inner * mpmath.exp(z))
    return g * (scale if x > 0 else (v + a) * inner)


def ops(*modes: str, alphas: tuple[float, ...] = (1.0, 0.3)) -> list[Op]:
    modes = modes or ("forward", "backward", "from_output")
    return [
        Op(family, alpha, mode)
        for mode in modes
        for family in ("elu", "selu", "celu")
        for alpha in ((1.0,) if family == "selu" else alphas)
    ]


def ulps(got: Any, exact: Any, dtype: Any) -> float:
    """Distance of a finite result from the exact one, in units in the last place of the latter."""
    info = np.finfo(dtype)
    exponent = int(mpmath.frexp(exact)[1]) - 1 if exact else info.minexp
    unit = mpmath.ldexp(1, max(exponent, int(info.minexp)) - info.nmant)
    return float(abs(mpmath.mpf(float(got)) - exact) / unit)


def specials(dtype: Any) -> Array:
    """Zeros, infinities, NaN, subnormals, the largest, and the points where results change kind."""
    info = np.finfo(dtype)
    positive = [
        0.0,
        np.inf,
        info.smallest_subnormal,
        info.smallest_normal / 2,
        info.smallest_normal,
        info.eps / 4,
        info.eps,
        0.5,
        1.0,
        17.328680,
        37.429948,
        87.336545,
        103.97208,
        708.396419,
        745.13322,
        info.max,
    ]
    values = np.array([*positive, *np.negative(positive), np.nan], dtype)
    with np.errstate(over="ignore"):
        above, below = (np.nextafter(values, dtype(limit)) for limit in (np.inf, -np.inf))
    return np.concatenate([values, above, below])


@functools.cache
def _sample(dtype: Any, size: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    extra = specials(dtype)[: size // 4]
    wide = -np.exp(rng.uniform(np.log(float(info.smallest_normal)), np.log(200), size))
    choices = [
        rng.standard_normal(size),
        rng.uniform(-20, 5, size),
        wide * rng.choice([1, -1], size, p=[0.8, 0.2]),
    ]
    values = np.choose(rng.integers(0, 3, size), choices).astype(dtype)
    tiny = size // 16
    values[:tiny] = rng.integers(-(2**20), 2**20, tiny) * info.smallest_subnormal
    values[tiny : tiny + len(extra)] = extra
    values = rng.permutation(values)
    values.flags.writeable = False
    return values


def sample(dtype: Any, size: int, seed: int = 0) -> Array:
    """Every magnitude and both signs, with subnormals and, from 400 elements on, all specials."""
    return _sample(dtype, size, seed).copy()


def bits(a: Any) -> bytes:
    """The elements in C order, native byte order, as bytes. Which NaN an operation gives depends, but for x86-64, on
    the instruction that a compiler has taken for it: there all NaNs are one."""
    a = np.asarray(a)
    native: Array = a.astype(a.dtype.newbyteorder("="), order="C", copy=False)
    if native.dtype.kind == "f" and platform.machine().lower() not in ("x86_64", "amd64"):
        native = np.where(np.isnan(native), native.dtype.type(np.nan), native)
    return native.tobytes()


def one_by_one(op: Op, x: Array, grad: Array | None = None) -> Array:
    """The result with every element passed alone."""
    x1 = x.astype(x.dtype.newbyteorder("="), order="C").reshape(-1)
    g1 = x1 if grad is None else grad.astype(x1.dtype, order="C").reshape(-1)
    out = np.empty_like(x1)
    for k in range(x1.size):
        op(x1[k : k + 1], g1[k : k + 1], out=out[k : k + 1])
    return out.reshape(x.shape)


def bind(level: str, cache_bytes: int | None = None) -> None:
    """Use this level's loops; with a small last-level cache large arrays take streaming stores."""
    cache = _runtime.cache_bytes() if cache_bytes is None else cache_bytes
    _core.use(_dispatch.choose(level)[1], cache)


@contextmanager
def bound(level: str, cache_bytes: int | None = None) -> Iterator[None]:
    bind(level, cache_bytes)
    try:
        yield
    finally:
        bind(_dispatch.level)


def run_python(code: str, *arguments: str, timeout: float = 60, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it prints; fail if it fails or hangs."""
    tests = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert finished.returncode == 0, f"exit status {finished.returncode}\n{finished.stderr}"
    return finished.stdout
