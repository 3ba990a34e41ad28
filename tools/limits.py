"""Sets elufast's times beside what limits them, each pair taken in turn in one run.

    python tools/limits.py [--only cache,around,memory,places,calls,layouts,import]

cache     ns an element in the first-level cache for every kernel and level, and beside it the time that the
          loop's own multiplications and multiply-adds take at two a cycle (counted in the compiled loop).
around    half precision and a bias, beside float32 and beside NumPy's sum before elu_.
memory    16 M elements, 2 threads, against a streaming copy, a multiplication in place and one of two arrays, all
          in C with OpenMP: they move the same bytes and compute nothing.
places    where a result begins beside its inputs, modulo a page; a new result placed by elufast and by NumPy.
calls     one element, against np.negative.
layouts   strided, reversed and Fortran arrays, against PyTorch on the same tensor (if it is installed).
import    beyond `import numpy`.

Needs a C compiler, and objdump for the counts.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import math
import os
import re
import runpy
import subprocess
import sys
import sysconfig
import tempfile
import time
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import elufast
from elufast import _dispatch

ROOT = Path(__file__).resolve().parent.parent
# The kernels by their numbers in _elu.h; moderate is what those of backward do with ordinary blocks.
KINDS = {
    **{f"forward_{formula}": k for k, formula in enumerate(("unit", "alpha", "selu", "celu", "any"))},
    **{f"moderate_{formula}": 6 + k for k, formula in enumerate(("unit", "alpha", "selu", "celu"))},
    "backward_any": 10,
    "from_output": 12,
}
# in the order of elu_params_t: a, s and inv as hi and lo; low; slope; shift and down
PARAMS = (1.5, 0.0, 1.05, 0.0, 0.5, 0.0, -100.0, 1.5, 0.0, 1.0)
FLOORS = r"""
#include "_span.h"
#define SHARE(body) _Pragma("omp parallel for num_threads(threads) schedule(static)") \
    for (ptrdiff_t i = 0; i < n; i += 16) body
void stream(const float *x, const float *g, float *out, ptrdiff_t n, int threads) {
    SHARE(for (int j = 0; j < 16; j += 4) _mm_stream_ps(out + i + j, _mm_load_ps(x + i + j)));
}
void scale(const float *x, const float *g, float *out, ptrdiff_t n, int threads) {
    SHARE(for (int j = 0; j < 16; j++) out[i + j] *= 1.5f);
}
void multiply(const float *x, const float *g, float *out, ptrdiff_t n, int threads) {
    SHARE(for (int j = 0; j < 16; j += 4)
          _mm_stream_ps(out + i + j, _mm_mul_ps(_mm_load_ps(x + i + j), _mm_load_ps(g + i + j))));
}
void repeat(elu_kernel_t kernel, const void *x, const void *g, void *out, ptrdiff_t n, const elu_params_t *s,
            int times) {
    for (int i = 0; i < times; i++) kernel(x, g, out, n, s, NULL);
}
double dependent_additions(long n) {
    unsigned long s = 1;
    for (long i = 0; i < n; i++) __asm__ volatile("add $1, %0" : "+r"(s));
    return (double)s;
}
"""


def take_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Best seconds of each."""
    best = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def compiled(source: str, flags: list[str], output: Path) -> Path:
    path = output.with_suffix(".c")
    path.write_text(source)
    compiler = os.environ.get("CC", (sysconfig.get_config_var("CC") or "cc").split()[0])
    subprocess.run([compiler, *flags, str(path), "-o", str(output), "-lm"], check=True)
    return output


def library(source: str, output: Path) -> ctypes.CDLL:
    """C functions over the package's headers, with OpenMP."""
    flags = ["-O3", "-fopenmp", "-shared", "-fPIC", f"-I{ROOT}/src/elufast"]
    return ctypes.CDLL(str(compiled(source, flags, output)))


def counts(level: str, folder: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """(multiplications and multiply-adds, elements) of each loop's body, one vector."""
    setup = runpy.run_path(str(ROOT / "setup.py"), run_name="flags")
    flags = [*setup["UNIX_FLAGS"], *setup["LEVELS"][level], "-I", str(ROOT / "src/elufast"), "-c", "-fno-ipa-icf"]
    source = '#include "_elu.h"\n'
    for kind in KINDS:
        for kind_type, suffix in (("float", "f32"), ("double", "f64")):
            way, formula = kind.split("_")
            call = f"elu_{kind}_{suffix}(" if way == "from" else f"ELU_PICK(ELU_{formula.upper()}, {way}, {suffix}, "
            arguments = "x[i]" if way == "forward" else "g[i], x[i]"
            source += (
                f"void {kind}_{suffix}(const {kind_type} *restrict x, const {kind_type} *restrict g,"
                f" {kind_type} *restrict out, elu_params_t s) {{\n"
                f"    for (long i = 0; i < 1 << 20; i++) out[i] = {call}{arguments}, s);\n}}\n"
            )
    objects = compiled(source, flags, folder / "kernels.o")
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", objects], capture_output=True, text=True, check=True)
    found = {}
    for name, body in re.findall(r"<(\w+)>:\n((?: .*\n)+)", text.stdout):
        kind, suffix = name.rsplit("_", 1)
        lines = re.findall(r"^ *([0-9a-f]+):\t(.*)", body, re.M)
        places = {address: k for k, (address, _) in enumerate(lines)}
        loop: list[str] = []
        for k, (_, words) in enumerate(lines):
            jump = re.match(r"j\w+\s+([0-9a-f]+)", words)
            if jump and places.get(jump[1], k) < k - len(loop):
                loop = [w for _, w in lines[places[jump[1]] : k + 1]]
        heavy = sum(bool(re.match(r"v?(fn?m(add|sub)\d*|mul)p[sd]", op)) for op in loop)
        width = 64 if any("zmm" in op for op in loop) else 32 if any("ymm" in op for op in loop) else 16
        found[kind, suffix] = heavy, width // (4 if suffix == "f32" else 8)
    return found


class Loops(ctypes.Structure):
    """Of _elu.pxd, the beginning: for float and double."""

    _fields_ = (("kernels", ctypes.c_void_p * 14 * 2),)


def loops_of(module: Any) -> Loops:
    """What a level's module offers."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return Loops.from_address(pointer(module.loops, None))


def cache(folder: Path, floors: ctypes.CDLL) -> None:
    additions = take_turns({"add": lambda: floors.dependent_additions(ctypes.c_long(1_000_000))}, 200)
    clock = 1e6 / additions["add"]
    print(f"clock {clock / 1e9:.2f} GHz (dependent additions)")
    forward = "elu", "elu alpha", "selu", "celu", "celu, any"
    names = *forward, *("elu'", "elu' alpha", "selu'", "celu'", "celu', any"), "from output"
    print(
        f"{'level':6}{'kernel':13}{'dtype':9}"
        f"{'ns':>7}{'at 3.1 GHz':>12}{'multiply-adds':>15}{'times them':>12}{'to elu':>8}"
    )
    params = (ctypes.c_double * len(PARAMS))(*PARAMS)
    for level in _dispatch.built_levels():
        loops = loops_of(importlib.import_module(f"elufast._loops_{level}"))
        counted = counts(level, folder)
        for dtype, kernels, suffix in zip((np.float32, np.float64), loops.kernels, ("f32", "f64"), strict=True):
            size, times = 8192 // np.dtype(dtype).itemsize, 200
            rng = np.random.default_rng(0)
            arrays = [aligned(rng, size, dtype) for _ in range(3)]
            x, grad, out = (a.ctypes.data_as(ctypes.c_void_p) for a in arrays)
            first = 0.0
            for (kind, number), name in zip(KINDS.items(), names, strict=True):
                start = ctypes.c_void_p(kernels[number])
                second = None if kind.startswith("forward") else grad  # a bias
                run = partial(floors.repeat, start, x, second, out, ctypes.c_ssize_t(size), params, times)
                ns = take_turns({name: run}, 60)[name] / times / size * 1e9
                first = first or ns
                heavy, elements = counted[kind, suffix]
                bound = heavy / 2 / elements / clock * 1e9
                print(
                    f"{level:6}{name:13}{np.dtype(dtype).name:9}{ns:7.3f}{ns * clock / 3.1e9:12.3f}"
                    f"{heavy:15}{ns / bound:12.2f}{ns / first:8.2f}"
                )


def around(rounds: int = 200) -> None:
    """What comes around the kernel: ns an element of calls on 100 000 elements, one thread."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 500), np.float32)
    halves = [np.dtype(np.float16)]
    if importlib.util.find_spec("ml_dtypes"):
        halves.append(np.dtype(importlib.import_module("ml_dtypes").bfloat16))
    calls: dict[str, Callable[[], Any]] = {}
    for dtype in (np.dtype(np.float32), *halves):
        a, out, bias = x.astype(dtype), np.empty(x.shape, dtype), x[0].astype(dtype)
        calls[f"elu {dtype}"] = partial(elufast.elu, a, out=out, num_threads=1)
        calls[f"elu {dtype}, bias"] = partial(elufast.elu, a, bias=bias, out=out, num_threads=1)
    out, bias = np.empty_like(x), x[0].copy()
    calls["np.add and elu_, float32"] = lambda: elufast.elu_(np.add(x, bias, out=out), num_threads=1)
    best = take_turns(calls, rounds)
    for name, seconds in best.items():
        print(f"{name:28}{seconds / x.size * 1e9:8.3f} ns{seconds / best['elu float32']:8.2f} times float32")


def memory(floors: ctypes.CDLL) -> None:
    n = 16_000_000
    rng = np.random.default_rng(0)
    x, grad, out = (aligned(rng, n) for _ in range(3))
    pointer = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, grad, out)]

    def floor(name: str) -> Callable[[], Any]:
        return lambda: getattr(floors, name)(*pointer, ctypes.c_ssize_t(n), 2)

    place, place_selu = x.copy(), x.copy()
    calls = {
        "streaming copy": floor("stream"),
        "elu out=": lambda: elufast.elu(x, out=out, num_threads=2),
        "selu out=": lambda: elufast.selu(x, out=out, num_threads=2),
        "elu, new result": lambda: elufast.elu(x, num_threads=2),
        "multiply in place": floor("scale"),
        "elu in place": lambda: elufast.elu_(place, num_threads=2),
        "selu in place": lambda: elufast.selu_(place_selu, num_threads=2),
        "multiply two": floor("multiply"),
        "elu backward from output": lambda: elufast.elu_backward(grad, x, from_output=True, out=out, num_threads=2),
        "elu backward": lambda: elufast.elu_backward(grad, x, out=out, num_threads=2),
    }
    floors.stream(*pointer, ctypes.c_ssize_t(n), 2)
    best = take_turns(calls, 25)
    base = ""
    for name, seconds in best.items():
        base = name if name in ("streaming copy", "multiply in place", "multiply two") else base
        print(f"{name:26}{seconds / n * 1e9:8.3f} ns{seconds / best[base]:8.2f} times {base}")


def aligned(rng: np.random.Generator, n: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """At the beginning of a page: where it happens to lie decides a third of a kernel's time."""
    raw = np.empty(n * np.dtype(dtype).itemsize + 4096, np.uint8)
    array = raw[-raw.ctypes.data % 4096 :][: n * np.dtype(dtype).itemsize].view(dtype)
    array[:] = rng.standard_normal(n, np.float32)
    return array


def places(rounds: int = 40, draws: int = 8) -> None:
    """ns an element, one thread, by where a result begins: so many bytes after the input, modulo a page; then a new
    result, which elufast places, beside one that NumPy places, for inputs that lie as they happen to."""
    rng = np.random.default_rng(0)
    distances = (0, 16, 32, 64, 128, 512, 2048, 4032, 4080)
    kinds: dict[str, Callable[..., Any]] = {
        "elu": lambda x, grad, **out: elufast.elu(x, num_threads=1, **out),
        "elu backward": lambda x, grad, **out: elufast.elu_backward(grad, x, num_threads=1, **out),
    }
    print(f"{'':21}{'':>9}" + "".join(f"{f'+{d}':>7}" for d in distances))
    for dtype in (np.float32, np.float64):
        n = 131_072
        x, grad, memory = (aligned(rng, n + 1024, dtype) for _ in range(3))
        for name, function in kinds.items():
            outs = {d: memory.view(np.uint8)[d:][: x[:n].nbytes].view(dtype) for d in distances}
            best = take_turns({str(d): partial(function, x[:n], grad[:n], out=out) for d, out in outs.items()}, 100)
            times = "".join(f"{seconds / n * 1e9:7.3f}" for seconds in best.values())
            print(f"{name:21}{np.dtype(dtype).name:>9}{times}")
    for dtype in (np.float32, np.float64):
        for size in (1 << 19, 1 << 20, 1 << 22):
            n = size // np.dtype(dtype).itemsize
            for name, function in kinds.items():
                gains = []
                for _ in range(draws):
                    spare = np.empty(int(rng.integers(20_000, 100_000)), np.uint8)  # moves what follows
                    x, grad = (rng.standard_normal(n).astype(dtype) for _ in range(2))
                    del spare
                    for _ in range(rounds):
                        pair = {
                            "ours": partial(function, x, grad),
                            "NumPy's": lambda f=function, x=x, grad=grad: f(x, grad, out=np.empty_like(x)),
                        }
                        best = take_turns(pair, 3)
                        gains.append(best["NumPy's"] / best["ours"])
                low, middle, high = np.quantile(gains, (0.1, 0.5, 0.9))
                print(
                    f"{name:14}{size >> 10:5} KiB{np.dtype(dtype).name:>8}: placed by NumPy takes {middle:.3f} times as"
                    f" long, {low:.2f} to {high:.2f}"
                )


def calls() -> None:
    x, y = np.array([-0.5], np.float32), np.zeros(1, np.float32)
    statements = {
        "np.negative(x, y)": "np.negative(x, y)",
        **{f"{f}(x, out=y)": f"e.{f}(x, out=y)" for f in ("elu", "selu", "celu")},
        "elu(x, 0.5, out=y)": "e.elu(x, 0.5, out=y)",
        "elu_(y)": "e.elu_(y)",
        "elu_backward(x, x, out=y)": "e.elu_backward(x, x, out=y)",
        "np.negative(x)": "np.negative(x)",
        **{f"{f}(x)": f"e.{f}(x)" for f in ("elu", "selu", "celu")},
        "elu_backward(x, x)": "e.elu_backward(x, x)",
    }
    timers = {
        name: timeit.Timer(code, globals={"e": elufast, "np": np, "x": x, "y": y}) for name, code in statements.items()
    }
    best = dict.fromkeys(timers, math.inf)
    for _ in range(40):
        for name, timer in timers.items():
            best[name] = min(best[name], timer.timeit(5000) / 5000)
    base = ""
    for name, seconds in best.items():
        base = name if name.startswith("np.") else base
        print(f"{name:28}{seconds * 1e9:7.0f} ns{seconds / best[base]:7.2f} times {base}")


def layouts() -> None:
    if not importlib.util.find_spec("torch"):
        print("PyTorch is not installed")
        return
    import torch

    torch.set_num_threads(2)
    theirs = torch.ops.aten.elu.out
    views: dict[str, Callable[[Any], Any]] = {
        "contiguous": lambda a: a,
        "transposed": lambda a: a.T,
        "column slice": lambda a: a[:, 1:2],
        "columns 100 to 200": lambda a: a[:, 100:200],
        "step 2": lambda a: a[:, ::2],
        "reversed": lambda a: a,
    }
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).standard_normal((4000, 1000)).astype(dtype)
        out, t, t_out = np.zeros_like(x), torch.from_numpy(x), torch.zeros(x.shape, dtype=getattr(torch, x.dtype.name))
        for name, view in views.items():
            array, to = view(x), view(out)
            calls = {
                "ours": partial(elufast.elu, array[::-1] if name == "reversed" else array, out=to, num_threads=2),
                "theirs": partial(theirs, view(t), 1.0, 1.0, 1.0, out=view(t_out)),
            }
            if name == "reversed":  # PyTorch has no negative strides: reversing is part of its work
                calls["theirs"] = partial(lambda t, to: theirs(torch.flip(t, (0,)), 1.0, 1.0, 1.0, out=to), t, t_out)
            best = take_turns(calls, 25)
            print(
                f"{x.dtype.name:9}{name:20}{best['ours'] / array.size * 1e9:8.3f} ns"
                f"{best['theirs'] / best['ours']:8.1f} times faster than PyTorch"
            )


def imports() -> None:
    def run(code: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    best = take_turns({"numpy": run("import numpy"), "both": run("import numpy, elufast")}, 20)
    print(f"import elufast: {(best['both'] - best['numpy']) * 1e3:.1f} ms beyond import numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="cache,around,memory,places,calls,layouts,import")
    parts = parser.parse_args().only.split(",")
    cpu = next((s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")), "")
    print(f"{os.cpu_count()} cores of{cpu.partition(':')[2]}; elufast at level {elufast.runtime_info()['level']}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        floors = library(FLOORS, folder / "floors.so")
        for part in parts:
            print(f"\n{part}")
            {
                "cache": lambda: cache(folder, floors),
                "around": around,
                "memory": lambda: memory(floors),
                "places": places,
                "calls": calls,
                "layouts": layouts,
                "import": imports,
            }[part]()


if __name__ == "__main__":
    main()
