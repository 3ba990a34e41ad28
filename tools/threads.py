"""Finds the size from which a second thread pays, for each dtype and kind of loop.

    python tools/threads.py

Runs the kernels themselves in C, without the limit that `_core.PER_THREAD` puts on a call, with one and with two
threads in turn, and prints the first size from which two are faster at every larger size, where calls follow each
other at once, which keeps OpenMP's threads awake, and where 0.1 and 1 ms of other work lie between two calls; the time
of a fork and join for each; and the gain at 1 M elements. Then the public functions, whose calls take the threads that
`_core.PER_THREAD` allows, with two threads against one: fewer elements repay a thread while it is awake.
Needs a C compiler with OpenMP.
"""

from __future__ import annotations

import ctypes
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from limits import KINDS, PARAMS, library, loops_of

import elufast
from elufast._dispatch import level, loops

KERNELS = {
    "elu": KINDS["forward_unit"],
    "elu, alpha": KINDS["forward_alpha"],
    "selu": KINDS["forward_selu"],
    "celu": KINDS["forward_celu"],
    "elu backward": KINDS["moderate_unit"],
    "selu backward": KINDS["moderate_selu"],
    "from output": KINDS["from_output"],
}
SHARED = r"""
#include "_span.h"
void run(elu_kernel_t kernel, const char *x, const char *grad, char *out, ptrdiff_t n, ptrdiff_t itemsize,
         const elu_params_t *s, int threads) {
    ptrdiff_t each = (n / threads + 16) / 16 * 16;
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i += each)
        kernel(x + i * itemsize, grad ? grad + i * itemsize : NULL, out + i * itemsize, n - i < each ? n - i : each, s,
               NULL);
}
"""
SIZES = [int(2 ** (k / 2)) for k in range(20, 41)]
PAUSES = (0.0, 1e-4, 1e-3)  # seconds of other work
ROUNDS = 40


def seconds(run: Callable[[int], Any], rounds: int, pause: float = 0.0) -> tuple[float, float]:
    """Median times with one and with two threads, taken in turn: the best of a thread that sleeps is an exception."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for k in range(2):
            if not pause:
                run(k + 1)  # what it leaves awake is what the next one finds
            start = time.perf_counter()
            while time.perf_counter() - start < pause:
                pass
            start = time.perf_counter()
            run(k + 1)
            times[k].append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def calls() -> None:
    """What the choice of threads gains: never less than 1, but for noise."""
    functions: dict[str, Callable[..., Any]] = {
        "elu": lambda x, grad, **options: elufast.elu(x, **options),
        "selu": lambda x, grad, **options: elufast.selu(x, **options),
        "elu backward": lambda x, grad, **options: elufast.elu_backward(grad, x, **options),
        "from output": lambda x, grad, **options: elufast.elu_backward(grad, x, from_output=True, **options),
    }
    sizes = (4096, 6144, 8192, 12288, 16384, 24576, 32768, 65536, 131072, 262144)

    def series(call: Callable[[], Any], pause: float) -> float:
        """Median seconds, of 40 calls: the first ones find the threads asleep."""
        times = []
        for _ in range(40):
            start = time.perf_counter()
            while time.perf_counter() - start < pause:
                pass
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return statistics.median(times[10:])

    for pause in PAUSES:
        heading = "".join(f"{size:>8}" for size in sizes)
        print(f"\ngain with two threads, {pause * 1e3:g} ms of other work between two calls\n{'':25}{heading}")
        for dtype in (np.float32, np.float64):
            x, grad, out = (np.random.default_rng(k).standard_normal(sizes[-1]).astype(dtype) for k in range(3))
            for name, function in functions.items():
                print(f"{name:16}{np.dtype(dtype).name:>9}", end="")
                for size in sizes:
                    call = partial(function, x[:size], grad[:size], out=out[:size])
                    one, two = (partial(call, num_threads=threads) for threads in (1, 2))
                    gains = [series(one, pause) / series(two, pause) for _ in range(9)]
                    print(f"{statistics.median(gains):8.2f}", end="", flush=True)
                print()


def main() -> None:
    rng = np.random.default_rng(0)
    params = (ctypes.c_double * len(PARAMS))(*PARAMS)
    print(f"level {level}; sizes in elements, pauses between calls 0, 0.1 and 1 ms")
    print(f"{'kernel':16}{'dtype':>9}{'two pay from':>24}{'fork and join, us':>22}{'gain at 1 M':>13}")
    with tempfile.TemporaryDirectory() as name:
        run = library(SHARED, Path(name, "shared.so")).run
    for dtype, kernels in zip((np.float32, np.float64), loops_of(loops).kernels, strict=True):
        arrays = [rng.standard_normal(SIZES[-1]).astype(dtype) for _ in range(3)]
        x, grad, out = (a.ctypes.data_as(ctypes.c_void_p) for a in arrays)
        for name, op in KERNELS.items():
            kernel = ctypes.c_void_p(kernels[op])
            second = grad if "backward" in name or "output" in name else None  # or a bias
            firsts, joins, gain = [], [], 0.0
            for pause in PAUSES:
                pays, join = SIZES[-1], math.inf
                for size in reversed(SIZES):
                    lengths = ctypes.c_ssize_t(size), ctypes.c_ssize_t(np.dtype(dtype).itemsize)
                    call = partial(run, kernel, x, second, out, *lengths, params)
                    one, two = seconds(call, ROUNDS, pause)
                    gain = gain or one / two
                    join = min(join, two - one / 2)
                    if two > one:
                        break
                    pays = size
                firsts.append(pays)
                joins.append(f"{join * 1e6:.1f}")
            row = f"{' '.join(map(str, firsts)):>24}{' '.join(joins):>22}{gain:>13.2f}"
            print(f"{name:16}{np.dtype(dtype).name:>9}{row}", flush=True)
    calls()


if __name__ == "__main__":
    main()
