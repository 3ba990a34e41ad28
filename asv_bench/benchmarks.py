"""Benchmarks for asv, one class a question. Each set of parameters has a process of its own, and elufast is imported in
`setup`: the process has not forked since OpenMP started. Times are at this CPU's own level; ELUFAST_ISA picks another.
"""

from __future__ import annotations

import math
import runpy
import time
import timeit
import zlib
from functools import partial
from importlib.metadata import files
from pathlib import Path
from typing import Any

import numpy as np

TOOL = runpy.run_path(str(Path(__file__).parent.parent / "tools" / "instructions.py"))
DTYPES = TOOL["DTYPES"]
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


class Functions:
    """Time of a call."""

    params = (list(FUNCTIONS), DTYPES, ["1", "10000", "1000000", "1000000 x2", "16000000", "16000000 x2"])
    param_names = ("function", "dtype", "size and threads")

    def setup(self, function: str, dtype: str, size_and_threads: str) -> None:
        import elufast

        size, threads = (int(n) for n in f"{size_and_threads} x1".split(" x")[:2])
        name, more = FUNCTIONS[function]
        x = np.random.default_rng(0).standard_normal(size, dtype=np.dtype(dtype))
        arrays = (np.ones_like(x), x) if "backward" in name else (x,)
        self.call = partial(getattr(elufast, name), *arrays, **more, num_threads=threads)
        if function != "elu new" and not name.endswith("_"):
            self.call.keywords["out"] = np.zeros_like(x)

    def time_call(self, *_: Any) -> None:
        self.call()


class History:
    """What `make bench-history` follows, a line a kernel: every commit has it."""

    params = (TOOL["HISTORY"], DTYPES)
    param_names = ("kernel", "dtype")
    timeout = 300

    def setup_cache(self) -> dict[str, float]:
        counts: dict[str, float] = TOOL["count"](TOOL["levels"]()[0], [(k, d) for k in TOOL["HISTORY"] for d in DTYPES])
        return counts

    def track_instructions(self, counts: dict[str, float], kernel: str, dtype: str) -> float:
        return counts[f"{kernel} {dtype}"]

    track_instructions.unit = "instructions/element"  # type: ignore[attr-defined]

    def track_ratio_to_floor(self, _: Any, kernel: str, dtype: str, size: int) -> float:
        """Against the NumPy function that moves as much and computes next to nothing: by turns, the best of each."""
        import elufast

        x = np.random.default_rng(0).standard_normal(size, dtype=np.dtype(dtype))
        names = vars(elufast) | {"x": x, "grad": np.ones_like(x), "out": np.zeros_like(x), "np": np}
        floor = "np.multiply(grad, x, out)" if "backward" in kernel else "np.negative(x, out)"
        timers = [timeit.Timer(call, globals=names) for call in (TOOL["CALLS"][kernel], floor)]
        names["set_num_threads"](1)
        number = max(1, 50_000 // size)
        best = [math.inf, math.inf]
        end = time.perf_counter() + 0.2
        while time.perf_counter() < end:
            best = [min(before, timer.timeit(number)) for before, timer in zip(best, timers, strict=True)]
        return best[0] / best[1]

    track_ratio_to_floor.params = (*params, [1000, 100_000])  # type: ignore[attr-defined]
    track_ratio_to_floor.param_names = (*param_names, "size")  # type: ignore[attr-defined]
    track_ratio_to_floor.unit = "times NumPy's copying function, one thread"  # type: ignore[attr-defined]

    def track_import(self, counts: dict[str, float]) -> float:
        return counts[TOOL["IMPORT"]]

    track_import.params = ()  # type: ignore[attr-defined]
    track_import.unit = "million instructions of import elufast beyond import numpy"  # type: ignore[attr-defined]

    def track_wheel_size(self, _: Any) -> float:
        installed = [file for file in files("elufast") or [] if file.suffix != ".pyc"]
        return sum(len(zlib.compress(file.read_binary())) for file in installed) / 1024

    track_wheel_size.params = ()  # type: ignore[attr-defined]
    track_wheel_size.unit = "KiB"  # type: ignore[attr-defined]


class Surroundings:
    """What comes around the kernel: conversions from and to half precision, a bias of a row. One thread."""

    params = (["elu", "selu_backward"], [*DTYPES, "float16", "bfloat16"], [False, True], [100_000, 16_000_000])
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

    # the reference needs a wider type
    dtypes = DTYPES if np.finfo(np.longdouble).nmant >= 63 else ["float32"]
    params = (["elu", "selu", "celu", "elu_backward", "selu_backward", "celu_backward"], dtypes)
    param_names = ("function", "dtype")

    def track_max_ulp(self, function: str, dtype: str) -> float:
        import elufast

        family, _, backward = function.partition("_")
        x = np.random.default_rng(0).normal(0, 4, 100_000).astype(dtype)
        alpha = {} if family == "selu" else {"alpha": 0.7}
        call = getattr(elufast, function)
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


class Import:
    """What `import elufast` costs beyond `import numpy`."""

    def timeraw_import(self) -> tuple[str, str]:
        return "import elufast", "import numpy"
