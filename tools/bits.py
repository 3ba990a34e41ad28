"""Prints a digest of the results of every function on the same inputs: equal digests are equal bits.

    python tools/bits.py [--inputs 10000000] [--functions elu,selu_backward] [--against FILE]

Half of the inputs are random bit patterns, so every exponent, zero, infinity and NaN is met; half are where the
functions bend. All levels with fused multiply-add print the same: compare them, or another machine's output, with
``ELUFAST_ISA=v3 python tools/bits.py > v3.txt; ELUFAST_ISA=v4 python tools/bits.py --against v3.txt``.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import elufast

ALPHAS = (1.0, 0.3, 2.0, -0.5, 1e-30)
FUNCTIONS = ("elu", "selu", "celu", "elu_backward", "selu_backward", "celu_backward")
CHUNK = 1 << 20


def inputs(dtype: type[Any], count: int, seed: int) -> np.ndarray[Any, Any]:
    bits: type[Any] = np.uint32 if dtype is np.float32 else np.uint64
    rng = np.random.Generator(np.random.Philox(seed))
    words = rng.integers(0, np.iinfo(bits).max, count, bits, endpoint=True)
    values: np.ndarray[Any, Any] = words.view(dtype).copy()
    # no libm here: it may differ from one machine to another
    values[::2] = (words[::2] / dtype(2.0) ** (8 * values.itemsize)).astype(dtype) * dtype(-25)
    return values


def results(function: str, dtype: type[Any], count: int) -> Iterator[np.ndarray[Any, Any]]:
    call = getattr(elufast, function)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        x = inputs(dtype, size, start)
        arguments = (inputs(dtype, size, ~start & 0xFFFFFFFF), x) if "backward" in function else (x,)
        for alpha in (None,) if function.startswith("selu") else ALPHAS:
            y = call(*arguments) if alpha is None else call(*arguments, alpha)
            y[np.isnan(y)] = np.nan  # which NaN is the processor's choice
            yield y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--functions", default=",".join(FUNCTIONS))
    parser.add_argument("--against", type=Path, help="what another level printed")
    options = parser.parse_args()
    lines = []
    for function in options.functions.split(","):
        for dtype in (np.float32, np.float64):
            digest = hashlib.sha256()
            for y in results(function, dtype, options.inputs):
                digest.update(y.tobytes())
            lines.append(f"{function:14} {dtype.__name__} {options.inputs} {digest.hexdigest()[:16]}")
            print(lines[-1], flush=True)
    level = elufast.runtime_info()["level"]
    if options.against:
        other = options.against.read_text().splitlines()
        differ = [line for line, theirs in zip(lines, other, strict=True) if line != theirs]
        print(f"{level}: {len(lines) - len(differ)} of {len(lines)} equal to {options.against}", file=sys.stderr)
        sys.exit(bool(differ))
    print(level, file=sys.stderr)


if __name__ == "__main__":
    main()
