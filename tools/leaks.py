"""Counts what a million calls leave behind: memory, references, threads.

    PYTHONMALLOC=malloc python tools/leaks.py [--calls 1000000]

The calls are the wrong ones of tests/test_errors.py and right ones through every way to a kernel. For each call, after
some that fill caches: bytes in use by malloc (with PYTHONMALLOC=malloc every Python object is among them), before and
after. Over all: the resident memory at ten moments, the references to every object that the calls share, and the
threads of the process. Exit status 1 if a call keeps half of the smallest object or more, beside 4 KiB that caches
may still take, or a reference. Linux with glibc.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SMALLEST = 16  # bytes of a Python object, or of what malloc gives out
CACHES = 4096
MALLINFO2 = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
sys.path.insert(0, str(ROOT / "tests"))

import test_errors  # noqa: E402

RIGHT = [
    "elu(x)",
    "elu(x, 0.3)",
    "elu(x4)",
    "elu_(x)",
    "elu(x, out=out)",
    "elu_backward(g, x)",
    "elu_backward(g, x, out=g)",
    "selu_backward(g, x, from_output=True)",
    "celu(x, half)",
    "celu_backward(g, x, 0.5, out=out)",
    "elu(x, bias=x)",
    "elu_backward(g, x, bias=x[:1], out=out)",
    "elu(x, np.abs(x))",
    "elu(x.astype('e'))",
    "elu(x.astype('e'), bias=x.astype('e'))",
    "elu(2.0)",
    "elu(np.float32(-2))",
    "elu([-1.0, 2.0])",
    "elu(memoryview(x))",
    "elu(array('d', [-1.0]))",
    "elu(x[::-1])",
    "elu_(x[::2])",
    "elu(x2d.T)",
    "elu(swapped)",
    "elu_(swapped)",
    "elu_backward(swapped, x, out=g)",
    "elu(x[:2], out=x[1:])",
    "elu(x2d[:2, :2], out=x2d[:2, :2].T)",
    "elu(np.broadcast_to(x, (2, 3)))",
    "elu(x.view(np.memmap))",
    "elu(np.ma.masked_array(x, [1, 0, 0]))",
    "elu(x, num_threads=2)",
    "elu_backward(x4, x4, 1e-40)",
    "elu(ro)",
    "elu(big, num_threads=1)",
    "elu(big, num_threads=2)",
    "elu(big[::-1], num_threads=2)",
    "elu_backward(big, big, out=big)",
    "get_num_threads()",
    "runtime_info()",
]


class Heap(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in MALLINFO2.split())


def heap() -> Callable[[], int]:
    """A function that returns the bytes that malloc has given out."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Heap

    def in_use() -> int:
        gc.collect()
        info = mallinfo2()
        return int(info.uordblks + info.hblkhd)

    return in_use


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def run(call: CodeType, given: dict[str, Any], times: int) -> None:
    public = test_errors.PUBLIC
    for _ in range(times):
        with suppress(Exception):
            eval(call, public, given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    total = parser.parse_args().calls
    if os.environ.get("PYTHONMALLOC") != "malloc":
        sys.exit("set PYTHONMALLOC=malloc: small objects come from arenas otherwise, which hide what a call keeps")
    in_use = heap()
    texts = [call for call, _, _ in test_errors.WRONG] + RIGHT
    calls = [compile(text, text, "eval") for text in texts]
    given = test_errors.names() | {"big": np.full(70_000, -1.0)}
    for call in calls[-len(RIGHT) :]:
        eval(call, test_errors.PUBLIC, given)  # one that raises is no right call
    for call in calls:
        run(call, given, 100)
    shared = given | {name: value for name, value in vars(np).items() if name in ("float32", "float64")}
    shared |= {"dtype f4": np.dtype("f4"), "dtype f8": np.dtype("f8")}
    counts = {name: sys.getrefcount(value) for name, value in shared.items()}
    times = -(-total // len(calls))
    limit = SMALLEST / 2 * times + CACHES
    kept: dict[str, int] = {}
    before_all, before_threads = resident(), threads()
    gc.collect()
    gc.freeze()
    for number, (text, call) in enumerate(zip(texts, calls, strict=True), 1):
        for _ in range(8):  # caches fill up, malloc's too; a leak goes on
            before = in_use()
            run(call, given, times)
            kept[text] = in_use() - before
            if kept[text] < limit:
                break
        if number % (len(calls) // 10) == 0:
            print(f"{number * times:9} calls, resident {resident() / 2**20:.1f} MiB", flush=True)
    done = times * len(calls)
    references = {
        name: sys.getrefcount(value) - counts[name]
        for name, value in shared.items()
        if sys.getrefcount(value) != counts[name]
    }
    leaks = {text: grown for text, grown in kept.items() if grown >= limit}
    print(f"{done} calls: {len(test_errors.WRONG)} wrong ones and {len(RIGHT)} right ones, {times} times each")
    print(f"malloc holds {sum(kept.values())} bytes more, {sum(kept.values()) / done:.4f} a call")
    print(f"resident memory grew by {resident() - before_all} bytes, threads by {threads() - before_threads}")
    print(f"calls that keep memory: {leaks or 'none'}")
    print(f"objects with other reference counts: {references or 'none'}")
    sys.exit(bool(leaks or references))


if __name__ == "__main__":
    main()
