"""Benchmarks for asv, one class a question. Each set of parameters has a process of its own, and elufast is imported in
`setup`: so ELUFAST_ISA picks the level, and the process has not forked since OpenMP started.
"""

from __future__ import annotations

import os
import runpy
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

LEVELS = ["base", "v3", "v4"]
DTYPES = ["float32", "float64"]
HALVES = ["float16", "bfloat16"]
# function: arguments by name; "grad" and "y" stand for those arrays
FUNCTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "elu new": ("elu", {}),
    "elu": ("elu", {}),
    "elu alpha=0.3": ("elu", {"alpha": 0.3}),
    "selu": ("selu", {}),
    "celu alpha=0.7": ("celu", {"alpha": 0.7}),
    "elu_": ("elu_", {}),
    "elu_backward": ("elu_backward", {}),
    "selu_backward": ("selu_backward", {}),
    "elu_backward from_output": ("elu_backward", {"from_output": True}),
}


def load(level: str) -> Any:
    """elufast at this level; skips the benchmark where the CPU or the build lacks it."""
    os.environ["ELUFAST_ISA"] = level
    try:
        import elufast
    except ImportError as error:
        raise NotImplementedError(str(error)) from error
    assert elufast.runtime_info()["level"] == level
    return elufast


def best(call: Any, seconds: float = 0.1) -> float:
    """Shortest time of a call, from runs of at least 50 us."""
    call()
    start = time.perf_counter()
    call()
    number = max(1, int(50e-6 / max(time.perf_counter() - start, 1e-9)))
    times, end = [], start + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(number):
            call()
        times.append((time.perf_counter() - start) / number)
    return min(times)


class Functions:
    """Time of a call, and as a ratio to the NumPy function that moves as much and computes next to nothing."""

    params = (list(FUNCTIONS), DTYPES, ["1", "10000", "1000000", "1000000 x2", "16000000", "16000000 x2"], LEVELS)
    param_names = ("function", "dtype", "size and threads", "level")

    def setup(self, function: str, dtype: str, size_and_threads: str, level: str) -> None:
        size, threads = (int(n) for n in f"{size_and_threads} x1".split(" x")[:2])
        elufast = load(level)
        name, more = FUNCTIONS[function]
        x = np.random.default_rng(0).standard_normal(size, dtype=np.dtype(dtype))
        grad, out = np.ones_like(x), np.zeros_like(x)
        arrays = (grad, x) if "backward" in name else (x,)
        self.call = partial(getattr(elufast, name), *arrays, **more, num_threads=threads)
        self.floor = partial(np.negative, x, x) if name.endswith("_") else partial(np.negative, x)
        if function != "elu new" and not name.endswith("_"):
            self.call.keywords["out"] = out
            self.floor = partial(np.multiply if len(arrays) == 2 else np.negative, *arrays, out)

    def time_call(self, *_: Any) -> None:
        self.call()

    def track_ratio_to_floor(self, *_: Any) -> float:
        rounds = [(best(self.call), best(self.floor)) for _ in range(3)]
        return min(r[0] for r in rounds) / min(r[1] for r in rounds)

    track_ratio_to_floor.unit = "times NumPy's copying function, one thread"  # type: ignore[attr-defined]


class Surroundings:
    """What comes around the kernel: conversions from and to half precision, a bias of a row. One thread."""

    params = (["elu", "selu_backward"], [*DTYPES, *HALVES], [False, True], [100_000, 16_000_000])
    param_names = ("function", "dtype", "bias", "size")

    def setup(self, function: str, dtype: str, bias: bool, size: int) -> None:
        import elufast

        if dtype == "bfloat16":
            import ml_dtypes  # noqa: F401
        x = np.random.default_rng(0).standard_normal((size // 500, 500)).astype(dtype)
        arrays = (np.ones_like(x), x) if "backward" in function else (x,)
        options = {"bias": x[0].copy()} if bias else {}
        self.call = partial(getattr(elufast, function), *arrays, out=np.zeros_like(x), num_threads=1, **options)

    def time_call(self, *_: Any) -> None:
        self.call()


class Layouts:
    """Arrays that are not one contiguous run: time and memory."""

    params = (["contiguous", "transposed", "reversed", "step 2", "column", "other byte order"], DTYPES)
    param_names = ("layout", "dtype")

    def setup(self, layout: str, dtype: str) -> None:
        from elufast import elu_

        square = np.ones((4000, 4000), dtype)
        views = {
            "contiguous": square,
            "transposed": square.T,
            "reversed": square[::-1, ::-1],
            "step 2": square[:, ::2],
            "column": square[:, :1000],
            "other byte order": square.view(square.dtype.newbyteorder()),
        }
        self.call = partial(elu_, views[layout], num_threads=1)

    def time_in_place(self, *_: Any) -> None:
        self.call()

    def peakmem_in_place(self, *_: Any) -> None:
        self.call()


class Accuracy:
    """Largest error in units in the last place, over 100 000 inputs: `make exhaustive` and `make accuracy` see more."""

    params = (["elu", "selu", "celu", "elu_backward", "selu_backward", "celu_backward"], DTYPES, LEVELS)
    param_names = ("function", "dtype", "level")

    def setup(self, function: str, dtype: str, level: str) -> None:
        if np.finfo(np.longdouble).nmant < 63:
            raise NotImplementedError("the reference needs a wider type than float64")
        self.elufast = load(level)

    def track_max_ulp(self, function: str, dtype: str, level: str) -> float:
        family, _, backward = function.partition("_")
        x = np.random.default_rng(0).normal(0, 4, 100_000).astype(dtype)
        alpha = {} if family == "selu" else {"alpha": 0.7}
        call = getattr(self.elufast, function)
        got = call(np.ones_like(x), x, **alpha) if backward else call(x, **alpha)
        wide = x.astype(np.longdouble)
        scale = a = np.longdouble(1)
        if family == "selu":
            scale = np.longdouble("1.0507009873554804934193349852946")
            a = np.longdouble("1.6732632423543772848170429916717")
        else:
            a = np.longdouble(0.7)
        inner = wide / a if family == "celu" else wide
        if backward:
            below, above = scale * (1 if family == "celu" else a) * np.exp(inner), scale
        else:
            below, above = scale * a * np.expm1(inner), scale * wide
        exact = np.where(wide > 0, above, below)
        return float(np.max(np.abs(got - exact) / np.spacing(np.abs(exact.astype(dtype)))))

    track_max_ulp.unit = "ulp"  # type: ignore[attr-defined]


class Instructions:
    """Instructions per element, counted by valgrind: no noise."""

    tool = runpy.run_path(str(Path(__file__).parent.parent / "tools" / "instructions.py"))
    params = ([f"{kernel} {dtype}" for kernel, dtype in tool["CASES"]], list(tool["LEVELS"]))
    param_names = ("kernel", "level")
    timeout = 300

    def setup_cache(self) -> dict[str, dict[str, float]]:
        counts: dict[str, dict[str, float]] = self.tool["counts"]()
        return counts

    def track_instructions(self, counts: dict[str, dict[str, float]], kernel: str, level: str) -> float:
        return counts.get(level, {}).get(kernel, float("nan"))

    track_instructions.unit = "instructions/element"  # type: ignore[attr-defined]


class Import:
    """What `import elufast` costs beyond `import numpy`."""

    def timeraw_import(self) -> tuple[str, str]:
        return "import elufast", "import numpy"
