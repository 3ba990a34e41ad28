"""Every float32 there is: ELU, SELU and CELU and their derivatives, against float64.

    python tools/exhaustive.py [--levels v4,v3,base] [--slice LOW,HIGH] [--processes N]

The reference is NumPy's ``expm1`` and ``exp`` in float64, times alpha and scale in float64. They err
by a few units of 2^-53 (NumPy's vector forms state 4 ulp, the C library's 1), which is 1e-8 of a
float32 ulp, and share nothing with elufast. The exit code is 1 if a row is over 1 ulp or has a fault.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

import elufast
from elufast import _core, _dispatch

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

BOUND = 1.0
BLOCK = 1 << 15  # elements: the arrays of one block stay in the cache
TASK = 1 << 24  # bit patterns a process takes at a time

# Klambauer et al. 2017, eq. 14, as tools/coefficients.py prints them.
ALPHA = Fraction("1.6732632423543772848170429916716520384611553482812")
SCALE = Fraction("1.0507009873554804934193349852946063519589812043764")


@dataclass(frozen=True)
class Row:
    """One function: ``alpha`` scales the result, x is divided by ``inner``."""

    name: str
    family: str
    alpha: float
    backward: bool

    @property
    def inner(self) -> float:
        return self.alpha if self.family == "celu" else 1.0

    def call(self, x: Float32, ones: Float32, out: Float32) -> None:
        arguments = () if self.family == "selu" else (self.alpha,)
        if self.backward:
            getattr(elufast, f"{self.family}_backward")(ones, x, *arguments, out=out)
        else:
            getattr(elufast, self.family)(x, *arguments, out=out)

    def reference(self, x: Float64, exponential: Float64, out: Float64) -> None:
        """``exponential`` is exp(x / inner), less 1 for the forward direction."""
        scale = float(SCALE) if self.family == "selu" else 1.0
        below = float(SCALE * ALPHA) if self.family == "selu" else self.alpha
        if self.backward:
            below = 1.0 if self.family == "celu" else below
            out[:] = scale if x[0] > 0 else below * exponential
        elif np.signbit(x[0]):
            np.multiply(exponential, below, out=out)
        else:
            np.multiply(x, scale, out=out)


ROWS = tuple(
    Row(f"{name}{prime}", family, alpha, bool(prime))
    for prime in ("", "'")
    for name, family, alpha in (
        ("ELU", "elu", 1.0),
        ("ELU alpha 0.3", "elu", 0.3),
        ("SELU", "selu", 1.0),
        ("CELU alpha 0.3", "celu", 0.3),
    )
)


@dataclass
class Result:
    """What was found for one row: the largest error of those not correctly rounded, and where."""

    count: int = 0
    wrong: int = 0
    faults: int = 0
    ulp: float = 0.5
    witness: int | None = None
    fault: int | None = None

    def add(self, other: Result) -> None:
        self.count += other.count
        self.wrong += other.wrong
        self.faults += other.faults
        if other.ulp > self.ulp:
            self.ulp, self.witness = other.ulp, other.witness
        if self.fault is None:
            self.fault = other.fault


def use(level: str) -> None:
    """Make the public functions compute with the loops of ``level``, in one thread."""
    _core.use(_dispatch._load(level), 0)
    _core.limit_threads(1)


def ulps(y: npt.NDArray[np.floating], exact: Float64) -> Float64:
    """|y - exact| in float32 units in the last place at ``exact``; an infinite y counts as 2^128."""
    _, exponent = np.frexp(exact)
    finite = np.where(np.isinf(y), np.copysign(2.0**128, exact), y.astype(np.float64))
    error: Float64 = np.ldexp(np.abs(finite - exact), 24 - np.clip(exponent, -125, 128))
    return error


def compare(y: Float32, exact: Float64, expected: Float32, first: int, result: Result) -> None:
    """Add a block of results to ``result``; ``first`` is the bit pattern of its first input."""
    result.count += len(y)
    bits, expected_bits = y.view(np.uint32), expected.view(np.uint32)
    wrong = np.flatnonzero(bits != expected_bits)
    both_nan = np.isnan(y[wrong]) & np.isnan(expected[wrong])
    wrong = wrong[~both_nan]
    if not len(wrong):
        return
    result.wrong += len(wrong)
    y, exact, expected = y[wrong], exact[wrong], expected[wrong]
    fault = (
        (np.isnan(y) != np.isnan(expected))
        | (np.isinf(y) != np.isinf(expected))
        | ((y == 0) != (expected == 0))
        | (np.signbit(y) != np.signbit(expected))
    )
    if fault.any():
        result.faults += int(np.count_nonzero(fault))
        if result.fault is None:
            result.fault = first + int(wrong[np.argmax(fault)])
    error = ulps(y, exact)
    worst = int(np.nanargmax(np.append(error, 0)))
    if worst < len(wrong) and error[worst] > result.ulp:
        result.ulp, result.witness = float(error[worst]), first + int(wrong[worst])


def walk(start: int, stop: int, rows: tuple[Row, ...], levels: tuple[str, ...]) -> list[Result]:
    """Results of rows x levels over the inputs of bit patterns ``start`` to ``stop``, of one sign."""
    results = [Result() for _ in range(len(rows) * len(levels))]
    ones = np.ones(BLOCK, np.float32)
    y, expected = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    exact = np.empty(BLOCK, np.float64)
    with np.errstate(all="ignore"):
        for first in range(start, stop, BLOCK):
            x = np.arange(first, min(first + BLOCK, stop), dtype=np.uint32).view(np.float32)
            n = len(x)
            wide = x.astype(np.float64)
            shared: dict[tuple[bool, float], Float64] = {}
            for i, row in enumerate(rows):
                key = (row.backward, row.inner)
                if key not in shared:
                    shared[key] = (np.exp if row.backward else np.expm1)(wide / row.inner)
                row.reference(wide, shared[key], exact[:n])
                if row.backward and np.isnan(x[-1]):
                    exact[:n][np.isnan(x)] = np.nan
                expected[:n] = exact[:n]
                for j, level in enumerate(levels):
                    use(level)
                    row.call(x, ones[:n], y[:n])
                    compare(y[:n], exact[:n], expected[:n], first, results[i * len(levels) + j])
    return results


def tasks(low: float, high: float) -> Iterator[tuple[int, int]]:
    """Ranges of bit patterns, each of one sign, that hold the float32 from ``low`` to ``high``."""
    bits = [int(np.float32(v).view(np.uint32)) for v in (low, high)]
    if low < 0:
        yield from pieces(bits[1] if high < 0 else 1 << 31, bits[0] + 1)
    if high > 0:
        # Zero by itself: the derivative there is that from below.
        yield from pieces(bits[0] if low > 0 else 1, bits[1] + 1)
    if low <= 0 <= high:
        yield 0, 1


def pieces(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, TASK):
        yield first, min(first + TASK, stop)


def everything() -> Iterator[tuple[int, int]]:
    yield 0, 1
    yield from pieces(1, 1 << 31)
    yield from pieces(1 << 31, 1 << 32)


def run(
    ranges: Iterable[tuple[int, int]],
    rows: tuple[Row, ...] = ROWS,
    levels: tuple[str, ...] = (_dispatch.level,),
    processes: int = 2,
    progress: bool = False,
) -> dict[tuple[Row, str], Result]:
    """Walk ``ranges`` and return the result of each row at each level."""
    ranges = list(ranges)
    total, done, began = sum(stop - start for start, stop in ranges), 0, time.monotonic()
    keys = [(row, level) for row in rows for level in levels]
    results = {key: Result() for key in keys}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(walk, *r, rows, levels): r for r in ranges}
        for future in as_completed(futures):
            start, stop = futures[future]
            done += stop - start
            for key, part in zip(keys, future.result(), strict=True):
                results[key].add(part)
            if progress:
                seconds = time.monotonic() - began
                print(f"\r{done / total:6.1%} {seconds:6.0f} s", end="", file=sys.stderr)
    if progress:
        print(file=sys.stderr)
    return results


def shown(bits: int | None) -> str:
    if bits is None:
        return ""
    x = float(np.uint32(bits).view(np.float32))
    return f"`{x.hex()}` ({x!r})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--levels", default=_dispatch.level, help="such as v4,v3,base")
    parser.add_argument("--slice", metavar="LOW,HIGH", help="only the inputs from LOW to HIGH")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    levels = tuple(arguments.levels.split(","))
    ranges = everything()
    if arguments.slice:
        low, high = map(float, arguments.slice.split(","))
        ranges = tasks(low, high)
    results = run(ranges, levels=levels, processes=arguments.processes, progress=True)
    print("| function | level | inputs | max ulp | at x | not correctly rounded | faults |")
    print("|---|---|---|---|---|---|---|")
    failed = False
    for (row, level), r in results.items():
        failed |= r.ulp > BOUND or r.faults > 0
        faults = f"{r.faults}, first at {shown(r.fault)}" if r.faults else "0"
        print(
            f"| {row.name} | {level} | {r.count} | {r.ulp:.4f} | {shown(r.witness)} "
            f"| {r.wrong / r.count:.3%} | {faults} |"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
