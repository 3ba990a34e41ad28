"""Errors in units in the last place: elufast on hard inputs, the alternatives, the derivative from the output.

    python tools/accuracy.py [--only hard,same-bits,half,bias,peers,from-output] [--count N]

hard         float64 and float32 on N inputs a case (default 10^6), drawn to be hard, and what a search
             climbs to from the worst of them; reference in quadruple precision (tools/quad.c). Exit
             code 1 when forward or derivative is over 1 ulp or backward over 1.5.
same-bits    v3 and v4 on 10^7 inputs of each dtype; exit code 1 when a bit differs.
half         every float16 and bfloat16: tools/half.py; exit code 1 when a result is not correctly rounded.
bias         N hard sums of x and a row, added in float32 or float64; the same bounds, of halves N / 16 and how many
             are not correctly rounded.
peers        the table of errors beside other libraries, those of them that are installed.
from-output  error of the derivative from the output; writes docs/images/from_output.png.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import half
import numpy as np
import numpy.typing as npt
import peers
from exhaustive import ALPHA, SCALE, ulps, use

import elufast
from elufast import _dispatch

Array = npt.NDArray[Any]

TOOLS = Path(__file__).parent
BOUNDS = {"forward": 1.0, "derivative": 1.0, "backward": 1.5}
SEED = 20170608
STARTS = 8  # of the search, in each case
DTYPES = (np.dtype(np.float64), np.dtype(np.float32))


@dataclass(frozen=True)
class Case:
    """One function: elu, selu or celu with its alpha."""

    family: str
    alpha: float = 1.0

    def __str__(self) -> str:
        return self.family if self.family == "selu" else f"{self.family}({self.alpha!r})"

    @property
    def inner(self) -> float:
        return self.alpha if self.family == "celu" else 1.0

    def call(self, x: Array, grad: Array | None, bias: Array | None = None) -> Array:
        return half.call(self.family, self.alpha, x, grad, bias)

    def parameters(self) -> Array:
        """``params_t`` of quad.c."""

        def split(value: Fraction) -> tuple[float, float]:
            return float(value), float(value - Fraction(float(value)))

        if self.family == "selu":
            return np.array([*split(SCALE * ALPHA), *split(SCALE), *split(SCALE * ALPHA), 1.0])
        slope = 1.0 if self.family == "celu" else self.alpha
        return np.array([self.alpha, 0, 1, 0, slope, 0, self.inner])


ALPHAS = (1.0, 0.1, 0.3, 2.0, -0.5)
CASES = (
    *(Case("elu", alpha) for alpha in ALPHAS),
    Case("selu"),
    *(Case("celu", alpha) for alpha in ALPHAS[1:]),
)
EXTREME = (1e-30, 1e30, -1e-30, -1e30)


@functools.cache
def library() -> ctypes.CDLL:
    """quad.c, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "quad.so")
        command = [*os.environ.get("CC", "cc").split(), "-O2", "-shared", "-fPIC", "-o", str(built)]
        attempts = [[str(TOOLS / "quad.c"), "-lquadmath", "-lm"], [str(TOOLS / "quad.c"), "-lm"]]
        for attempt in attempts:
            if subprocess.run(command + attempt, capture_output=attempt is attempts[0], check=False).returncode == 0:
                return ctypes.CDLL(str(built))
    raise RuntimeError("quad.c needs a C compiler with libquadmath, or a long double of 113 bits")


def pointer(array: Array | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def halves(n: int) -> tuple[slice, slice]:
    return slice(0, n // 2), slice(n // 2, n)


def reference(case: Case, x: Array, grad: Array | None) -> Array:
    """The exact results in quadruple precision, opaque: for ``errors``."""
    x = np.ascontiguousarray(x, np.float64)
    grad = None if grad is None else np.ascontiguousarray(grad, np.float64)
    out, parameters = np.empty((len(x), 2), np.uint64), case.parameters()

    def half(s: slice) -> None:
        g = None if grad is None else grad[s]
        n = ctypes.c_size_t(s.stop - s.start)
        library().reference(n, pointer(x[s]), pointer(g), pointer(parameters), pointer(out[s]))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(half, halves(len(x))))
    return out


def errors(exact: Array, y: Array) -> Array:
    """Units in the last place of y's dtype; infinity for a wrong NaN, infinity or sign."""
    out = np.empty(len(y))
    measure = library().errors_f32 if y.dtype == np.float32 else library().errors_f64

    def half(s: slice) -> None:
        measure(ctypes.c_size_t(s.stop - s.start), pointer(exact[s]), pointer(y[s]), pointer(out[s]))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(half, halves(len(y))))
    return out


def hard(rng: np.random.Generator, n: int, dtype: np.dtype[Any], inner: float = 1.0) -> Array:
    """About n inputs where an error is likely to be large, for functions of exp(x / inner)."""
    info = np.finfo(dtype)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    double = dtype == np.float64
    # Saturation, the ends of the normal and the subnormal results, breakpoints of the kernels.
    edges = np.array(
        [37.43, 64, 708.3964, 745.1332, 1457, 2100, 1200, 709.78]
        if double
        else [17.32868, 18, 20, 40, 87.33654, 103.97208, 195, 700, 88.72]
    )
    end = 760.0 if double else 110.0
    m = n // 8
    nearby = 1 + rng.standard_normal(m) * rng.choice([1e-3, 1e-6, 8 * info.eps], m)
    z = [
        np.exp2(rng.uniform(-60 if double else -30, np.log2(end), m)),
        rng.integers(0, int(2.9 * end), m) * (np.log(2) / 2) * (1 + rng.standard_normal(m) * 4 * info.eps),
        rng.integers(0, int(2.9 * end), m) * (np.log(2) / 2) + rng.standard_normal(m) * 1e-3,
        rng.uniform(0, 1.5, 2 * m),
        rng.uniform(0, end, m),
        rng.choice(edges, m) * nearby,
    ]
    bits = rng.integers(0, np.iinfo(unsigned).max, m, dtype=unsigned, endpoint=True)
    special = np.array([0, np.inf, np.nan, info.tiny, info.max, info.smallest_subnormal])
    with np.errstate(all="ignore"):
        drawn = (np.concatenate(z) * -abs(inner)).astype(dtype)
    return np.concatenate([special.astype(dtype), -special.astype(dtype), drawn, bits.view(dtype)])


def gradients(rng: np.random.Generator, n: int, dtype: np.dtype[Any]) -> Array:
    """Normal ones, any bits, and extremes."""
    info = np.finfo(dtype)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    grad = rng.standard_normal(n).astype(dtype)
    some = rng.random(n) < 0.5
    grad[some] = rng.integers(0, np.iinfo(unsigned).max, int(some.sum()), dtype=unsigned, endpoint=True).view(dtype)
    extremes = np.array([0, np.inf, np.nan, info.max, info.tiny, info.smallest_subnormal, 1]).astype(dtype)
    some = rng.random(n) < 0.03
    grad[some] = rng.choice(np.concatenate([extremes, -extremes]), int(some.sum()))
    return grad


@dataclass
class Worst:
    """The largest error found in one direction, and its input."""

    direction: str
    error: float = 0.0
    case: Case = CASES[0]
    x: float = 0.0
    grad: float = 1.0

    def __str__(self) -> str:
        grad = f", grad = {self.grad!r}" if self.direction == "backward" else ""
        return f"{self.case}, x = {self.x!r}{grad}"

    def measure(self, case: Case, x: Array, grad: Array, exact: Array | None = None, y: Array | None = None) -> Array:
        """Compare (y, if given), remember the largest, and return the exact results for another level."""
        g = None if self.direction == "forward" else grad
        with np.errstate(all="ignore"):
            exact = reference(case, x, g) if exact is None else exact
            error = errors(exact, case.call(x, g) if y is None else y)
            # Left open: an infinite grad times an exp(x) that is 0 in this dtype, and 0 times exp(infinity).
            lowest = np.log(np.finfo(x.dtype).tiny)
            error[np.isinf(grad) & (x.astype(np.float64) / case.inner < lowest)] = 0
            error[(grad == 0) & np.isinf(x)] = 0
        i = int(np.argmax(error))
        if error[i] > self.error:
            self.error, self.case, self.x, self.grad = float(error[i]), case, float(x[i]), float(grad[i])
        return exact

    def climb(self, rng: np.random.Generator, dtype: np.dtype[Any], vary_alpha: bool, steps: int) -> None:
        """Go to worse inputs among the neighbours in x, grad and, if asked, alpha."""
        n = 4096
        unsigned = np.dtype(f"u{dtype.itemsize}")
        for step in range(steps):
            case = self.case
            if vary_alpha and step % 2:
                case = Case(case.family, case.alpha * (1 + rng.standard_normal() * 10 ** rng.uniform(-15, -1)))
            distance = np.exp2(rng.uniform(0, np.finfo(dtype).nmant - 1, n)) * rng.choice([-1.0, 1.0], n)
            bits = np.array(self.x, dtype).view(unsigned) + distance.astype(np.int64).astype(unsigned)
            x = bits.view(dtype)
            grad = np.ones(n, dtype)
            if self.direction == "backward":
                with np.errstate(over="ignore"):
                    grad = (self.grad * (1 + rng.standard_normal(n) * 10 ** rng.uniform(-15, -0.5))).astype(dtype)
            self.measure(case, x, grad)


def check_hard(count: int) -> bool:
    """Print the largest errors of each function and level; whether all are within their bounds."""
    levels = _dispatch.built_levels()
    within = True
    print(f"| dtype | function | direction | {' | '.join(f'{level}, ulp' for level in levels)} | worst input |")
    print(f"|---|---|---|{'---|' * len(levels)}---|")
    for dtype in DTYPES:
        rng = np.random.default_rng(SEED)
        alphas = np.exp(rng.uniform(np.log(1e-30), np.log(1e30), 40)) * rng.choice([-1, 1], 40)
        near_one = np.exp2(rng.uniform(-1, 1, 40)) * rng.choice([-1, 1], 40)
        groups = [(str(case), [case], False) for case in CASES]
        for family in ("elu", "celu"):
            several = [Case(family, float(a)) for a in (*EXTREME, *alphas, *near_one)]
            groups.append((f"{family}, any alpha", several, True))
        for name, cases, vary_alpha in groups:
            for direction, bound in BOUNDS.items():
                found = {level: [Worst(direction) for _ in range(STARTS)] for level in levels}
                for case in cases:
                    x = hard(rng, count // len(cases), dtype, case.inner)
                    grad = gradients(rng, len(x), dtype) if direction == "backward" else np.ones_like(x)
                    # The kinds of hard input come one after another: each part has its own worst.
                    for part in np.array_split(np.arange(len(x)), STARTS):
                        exact = None
                        for level in levels:
                            use(level)
                            w = found[level][part[0] * STARTS // len(x)]
                            exact = w.measure(case, x[part], grad[part], exact)
                worst = []
                for level in levels:
                    use(level)
                    steps = np.random.default_rng(SEED)  # the same at every level
                    for w in found[level]:
                        w.climb(steps, dtype, vary_alpha, 20)
                    w = max(found[level], key=lambda w: w.error)
                    w.climb(steps, dtype, vary_alpha, 100)
                    worst.append(w)
                top = max(worst, key=lambda w: w.error)
                within &= top.error <= bound
                cells = " | ".join(f"{w.error:.4f}" for w in worst)
                print(f"| {dtype} | {name} | {direction} | {cells} | {top} |", flush=True)
    return within


def check_bias(count: int) -> bool:
    """Print errors with a bias that is added to rows; whether all are within their bounds."""
    levels, within = _dispatch.built_levels(), True
    print(f"| dtype | function | {' | '.join(f'{level}: forward, derivative, backward' for level in levels)} |")
    print(f"|---|---|{'---|' * len(levels)}")
    kinds: list[tuple[np.dtype[Any], half.Half | None]] = [(kind.dtype, kind) for kind in half.available()]
    for dtype, kind in [*((dtype, None) for dtype in DTYPES), *kinds]:
        rng = np.random.default_rng(SEED)
        wide = DTYPES[1] if kind else dtype  # of the sum
        bias = rng.standard_normal(512).astype(dtype)
        for case in (Case(*pair) for pair in half.CASES):
            z = hard(rng, count // 16 if kind else count, wide, case.inner)
            with np.errstate(all="ignore"):
                x = (np.resize(z, (len(z) // 512 + 1, 512)) - bias.astype(wide)).astype(dtype)
                sums = (x.astype(wide) + bias.astype(wide)).ravel()
            cells: dict[str, list[str]] = {level: [] for level in levels}
            for direction, bound in BOUNDS.items():
                grad = np.ones_like(x)
                if direction == "backward":
                    drawn = half.gradients(kind, rng)[1] if kind else gradients(rng, x.size, dtype)
                    grad = np.resize(drawn, x.shape)
                exact = None
                for level, cell in cells.items():
                    use(level)
                    y = case.call(x, None if direction == "forward" else grad, bias).ravel()
                    if kind is None:
                        worst = Worst(direction)
                        exact = worst.measure(case, sums, grad.ravel(), exact, y)
                        error, limit = worst.error, bound
                    elif direction == "backward":
                        errors_ = half.product_error(kind, case.family, case.alpha, sums, grad.ravel(), y)
                        error, limit = float(errors_.max()), half.BOUND
                    else:
                        if exact is None:
                            exact = half.expected(kind, case.family, case.alpha, direction, sums.astype(np.float64))
                        error, limit = len(half.wrong(y, exact)), 0
                    cell.append(f"{error:.4f}" if limit else f"{error} wrong")
                    within &= error <= limit
            print(f"| {dtype} | {case} | {' | '.join(', '.join(cell) for cell in cells.values())} |", flush=True)
    return within


def check_same_bits(count: int) -> bool:
    """Whether v3 and v4 agree on ``count`` inputs of each dtype and function."""
    levels = [level for level in _dispatch.built_levels() if level != "base"]
    if len(levels) < 2:
        print("same bits: this CPU has fewer than two levels with FMA")
        return True
    different = compared = 0
    for dtype in DTYPES:
        rng = np.random.default_rng(SEED)
        for case in (*CASES, Case("elu", 1e-20), Case("celu", 1e20)):
            for start in range(0, count, 1 << 20):
                x = hard(rng, min(count - start, 1 << 20), dtype, case.inner)
                for grad in (None, gradients(rng, len(x), dtype)):
                    results = []
                    for level in levels:
                        use(level)
                        results.append(case.call(x, grad).view(f"u{dtype.itemsize}"))
                    nan = np.isnan(results[0].view(dtype)) & np.isnan(results[1].view(dtype))
                    compared += len(x)
                    different += int(np.count_nonzero((results[0] != results[1]) & ~nan))
    print(f"same bits, {' and '.join(levels)}: {different} of {compared} results differ")
    return different == 0


COLUMNS = (
    ("ELU", Case("elu"), False),
    ("ELU alpha 0.3", Case("elu", 0.3), False),
    ("SELU", Case("selu"), False),
    ("ELU'", Case("elu"), True),
    ("SELU'", Case("selu"), True),
)
# Without torch.compile, which would compile for a second or two at each sample.
PEERS = ["elufast", *(name for name in peers.LIBRARIES if name not in ("torch.compile", *peers.NO_ALTERNATIVES))]


def samples(dtype: np.dtype[Any]) -> Iterator[Array]:
    """float32: every 37th bit pattern of a finite number; float64: hard inputs."""
    if dtype == np.float32:
        for first in range(0, 1 << 32, 37 << 20):
            x = np.arange(first, min(first + (37 << 20), 1 << 32), 37, dtype=np.uint64).astype(np.uint32)
            yield x.view(np.float32)[np.isfinite(x.view(np.float32))]
    else:
        for seed in range(4):
            x = hard(np.random.default_rng(seed), 1 << 20, dtype)
            yield x[np.isfinite(x)]


def peer_result(make: peers.Maker, case: Case, x: Array, backward: bool) -> Array | None:
    """What a library computes; its derivative from the output where it has no other."""
    alpha = peers.ALPHA["selu"] if case.family == "selu" else case.alpha
    for mode in ("backward", "backward from output") if backward else ("new", "out"):
        y = peer_result(make, case, x, False) if mode == "backward from output" else x
        if y is not None:
            ones, out = np.ones_like(x), np.zeros_like(x)
            task = peers.Task(case.family, alpha, mode, x, ones, y, ones, out)
            if call := make(task):
                return task.run(call).astype(x.dtype)
    return None


def peer_errors(make: peers.Maker) -> list[str]:
    """Cells of the table: float32 / float64, where subnormal inputs and results are worse, in brackets."""
    cells = []
    for _, case, backward in COLUMNS:
        cell = []
        for dtype in reversed(DTYPES):
            normal, every, got = 0.0, 0.0, False
            for x in samples(dtype):
                y = peer_result(make, case, x, backward)
                if y is None:
                    break
                got = True
                error, big = peer_error(case, x, y, backward)
                normal = max(normal, float(error[big].max(initial=0)))
                every = max(every, float(error.max(initial=0)))
            if got:
                cell.append(short(normal) + (f" ({short(every)})" if every > 2 * normal else ""))
        cells.append(" / ".join(cell))
    return cells


def peer_error(case: Case, x: Array, y: Array, backward: bool) -> tuple[Array, Array]:
    """Errors, and where input and result are normal numbers."""
    tiny = np.finfo(x.dtype).tiny
    if x.dtype == np.float32:
        wide = x.astype(np.float64)
        scale, below = (float(SCALE), float(SCALE * ALPHA)) if case.family == "selu" else (1.0, case.alpha)
        with np.errstate(all="ignore"):
            if backward:
                exact = np.where(wide > 0, scale, below * np.exp(np.minimum(wide, 0)))
            else:
                exact = np.where(wide > 0, scale * wide, below * np.expm1(np.minimum(wide, 0)))
            error = ulps(y, exact)
        large = np.abs(exact) >= tiny
    else:
        error = errors(reference(case, x, np.ones_like(x) if backward else None), np.ascontiguousarray(y))
        large = np.abs(y) >= tiny
    error[np.isnan(error)] = np.inf
    # Signs of zeros, and results beyond the largest number, are not counted here.
    error[((y == 0) & (x == 0)) | (np.isinf(y) & (x > 1))] = 0
    return error, large & (np.abs(x) >= tiny)


def short(error: float) -> str:
    return f"{error:.2f}" if error < 1000 else f"{error:.0e}".replace("e+0", "e").replace("e+", "e")


def print_peers() -> None:
    """The table of errors, each library in a process of its own."""
    print("| | ELU f32 / f64 |", " | ".join(f"{name} f32 / f64" for name, _, _ in COLUMNS[1:]), "|")
    print("|---|" + "---|" * len(COLUMNS))
    for name in PEERS:
        row = ["not installed"] + [""] * (len(COLUMNS) - 1)
        if peers.installed(name):
            command = [sys.executable, __file__, "--peer", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            failed = done.returncode != 0
            row = [f"failed: {done.stderr.strip()[-100:]}"] if failed else json.loads(done.stdout.splitlines()[-1])
        print(f"| {name} | {' | '.join(row)} |", flush=True)


def print_from_output(picture: Path) -> None:
    """Relative error of the derivative from the output: a table, and a picture if Matplotlib is installed."""
    curves: dict[tuple[str, str], tuple[Array, Array]] = {}
    for dtype in reversed(DTYPES):
        x = np.linspace(-42, -1e-3, 80001).astype(dtype)
        exact = np.exp(x.astype(np.longdouble))
        one = np.ones_like(x)
        for label, derivative in (
            ("from the output", elufast.elu_backward(one, elufast.elu(x), from_output=True)),
            ("from x", elufast.elu_backward(one, x)),
        ):
            curves[str(dtype), label] = x, np.abs(np.asarray(derivative, np.longdouble) / exact - 1).astype(np.float64)
    print("| x about | float32, from the output | from x | float64, from the output | from x |")
    print("|---|---|---|---|---|")
    for at in (-0.5, -1, -2, -5, -10, -15, -17, -18, -20, -25, -30, -35, -37, -38, -40):
        cells = [f"{error[np.abs(x - np.float64(at)) < 0.25].max():.1e}" for x, error in curves.values()]
        print(f"| {at} | {' | '.join(cells)} |")
    if importlib.util.find_spec("matplotlib") is None:
        print("\nThe picture needs Matplotlib.")
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    colors = {"float32": "tab:orange", "float64": "tab:blue"}
    for (name, label), (x, error) in curves.items():
        blocks = len(x) // 100
        largest = error[: blocks * 100].reshape(blocks, 100).max(axis=1)
        style = "-" if label == "from the output" else ":"
        axes.semilogy(x[50 : blocks * 100 : 100], largest, style, color=colors[name], label=f"{name}, {label}")
    axes.set(xlabel="x", ylabel="relative error (largest nearby)", ylim=(1e-17, 3), title="ELU'(x), alpha = 1")
    axes.axhline(1, color="0.8", zorder=0)
    figure.legend(loc="outside right upper")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description="Errors of elufast and of the alternatives")
    parser.add_argument("--only", default="hard,same-bits,half,bias,peers,from-output")
    parser.add_argument("--same-bits", action="store_const", const="same-bits", dest="only")
    parser.add_argument("--count", type=int, help="inputs a case: 10^6, for same-bits 10^7")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        print(json.dumps(peer_errors(peers.LIBRARIES[arguments.peer][1]())))
        return 0
    good = True
    parts = arguments.only.split(",")
    if "hard" in parts:
        good &= check_hard(arguments.count or 10**6)
    if "same-bits" in parts:
        good &= check_same_bits(arguments.count or 10**7)
    if "half" in parts:
        good &= half.print_table()
    if "bias" in parts:
        good &= check_bias(arguments.count or 10**6)
    if "peers" in parts:
        print_peers()
    if "from-output" in parts:
        print_from_output(TOOLS.parent / "docs" / "images" / "from_output.png")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
