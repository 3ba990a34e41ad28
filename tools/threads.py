"""Finds the size from which a second thread pays, for each dtype and kind of loop.

    python tools/threads.py

Runs the loops themselves, without the limit that `_entry.PER_THREAD` puts on a call, with one and with two
threads in turn, and prints the first size from which two are faster at every larger size, the time of a fork
and join, and the gain at 1 M elements.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from elufast._dispatch import level, loops

PARAMS = {"a_hi": 1.5, "s_hi": 1.0, "inv_hi": 1.0, "low": -100.0, "slope": 1.5, "a_lo": 0.0, "s_lo": 0.0, "inv_lo": 0.0}
KERNELS = {  # their numbers in _elu.h
    "elu": 0,
    "elu, alpha": 1,
    "selu": 2,
    "celu": 3,
    "elu backward": 5,
    "selu backward": 7,
    "from output": 10,
}
SIZES = [int(2 ** (k / 2)) for k in range(20, 41)]
ROUNDS = 60


def seconds(run: Callable[[int, bool], Any], rounds: int) -> tuple[float, float]:
    """Best times with one and with two threads, taken in turn."""
    best = [math.inf, math.inf]
    for _ in range(rounds):
        for k in range(2):
            start = time.perf_counter()
            run(k + 1, False)
            best[k] = min(best[k], time.perf_counter() - start)
    return best[0], best[1]


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"level {level}; sizes in elements")
    print(f"{'kernel':16}{'dtype':>9}{'two pay from':>14}{'fork and join, us':>19}{'gain at 1 M':>13}")
    for dtype, run in ((np.float32, loops.run_f32), (np.float64, loops.run_f64)):
        x, grad = (rng.standard_normal(SIZES[-1]).astype(dtype) for _ in range(2))
        out = np.zeros_like(x)
        for name, op in KERNELS.items():
            pays, join, gain = SIZES[-1], math.inf, 0.0
            for size in reversed(SIZES):
                views = (x[:size], grad[:size], out[:size])
                one, two = seconds(partial(run, op, *views, PARAMS), ROUNDS)
                gain = gain or one / two
                join = min(join, two - one / 2)
                if two > one:
                    break
                pays = size
            print(f"{name:16}{np.dtype(dtype).name:>9}{pays:>14}{join * 1e6:>19.1f}{gain:>13.2f}")


if __name__ == "__main__":
    main()
