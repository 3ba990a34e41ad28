"""Prints a digest of the results of every function on the same inputs: equal digests are equal bits.

    python tools/bits.py [--inputs 10000000] [--functions elu,selu_backward] [--against FILE]

Half of the inputs are random bit patterns, so every exponent, zero, infinity and NaN is met; half are where the
functions bend. Each result is computed again in place, in pieces of every length, and through streaming stores; all
must have the same bits. All levels with fused multiply-add print the same: compare them, or another machine's output,
with ``ELUFAST_ISA=v3 python tools/bits.py > v3.txt; ELUFAST_ISA=v4 python tools/bits.py --against v3.txt``.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import elufast
from elufast import _core, _dispatch, _runtime

ALPHAS = (1.0, 0.3, 2.0, -0.5, 1e-30)
FUNCTIONS = tuple(f"{family}{kind}" for kind in ("", "_backward", "_from_output") for family in ("elu", "selu", "celu"))
CHUNK = 1 << 20

Array = NDArray[Any]


def inputs(dtype: type[Any], count: int, seed: int) -> Array:
    bits: type[Any] = np.uint32 if dtype is np.float32 else np.uint64
    rng = np.random.Generator(np.random.Philox(seed))
    words = rng.integers(0, np.iinfo(bits).max, count, bits, endpoint=True)
    values: Array = words.view(dtype).copy()
    # no libm here: it may differ from one machine to another
    values[::2] = (words[::2] / dtype(2.0) ** (8 * values.itemsize)).astype(dtype) * dtype(-25)
    return values


def calls(function: str) -> list[Callable[..., Array]]:
    """The function with each alpha."""
    family, _, kind = function.partition("_")
    call = getattr(elufast, f"{family}_backward" if kind else family)
    if kind == "from_output":
        call = partial(call, from_output=True)
    if family == "selu":
        return [call]
    return [partial(call, alpha=alpha) for alpha in ALPHAS if alpha > 0 or kind != "from_output"]


def one_nan(y: Array) -> Array:
    """Which NaN is the processor's choice."""
    y[np.isnan(y)] = np.nan
    return y


def in_place_in_pieces(call: Callable[..., Array], arguments: list[Array]) -> Array:
    """Of 0, 1, 2, ... elements: every length of what is left over after whole vectors, at every alignment."""
    y, *_ = arguments = [arguments[0].copy(), *arguments[1:]]
    start = size = 0
    while start < y.size:
        piece, *rest = (argument[start : start + size] for argument in arguments)
        call(piece, *rest, out=piece)
        start, size = start + size, size + 1
    return y


def streamed(call: Callable[..., Array], arguments: list[Array]) -> Array:
    """With a cache of one byte, so that stores stream, into an array that starts between two cache lines."""
    y = np.empty(arguments[0].size + 1, arguments[0].dtype)[1:]
    _core.use(_dispatch.loops, 1)
    call(*arguments, out=y)
    _core.use(_dispatch.loops, _runtime.cache_bytes())
    return y


def results(function: str, dtype: type[Any], count: int) -> Iterator[Array]:
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        arguments = [inputs(dtype, size, start)]
        if "_" in function:
            arguments.insert(0, inputs(dtype, size, ~start & 0xFFFFFFFF))
        for call in calls(function):
            y = one_nan(call(*arguments))
            for way in (in_place_in_pieces, streamed):
                if one_nan(way(call, arguments)).tobytes() != y.tobytes():
                    sys.exit(f"{_dispatch.level}: {call} of {dtype.__name__}: other bits {way.__name__}")
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
            lines.append(f"{function:16} {dtype.__name__} {options.inputs} {digest.hexdigest()[:16]}")
            print(lines[-1], flush=True)
    if options.against:
        other = options.against.read_text().splitlines()
        differ = [line for line, theirs in zip(lines, other, strict=True) if line != theirs]
        print(
            f"{_dispatch.level}: {len(lines) - len(differ)} of {len(lines)} digests equal to {options.against}",
            file=sys.stderr,
        )
        sys.exit(bool(differ))
    print(_dispatch.level, file=sys.stderr)


if __name__ == "__main__":
    main()
