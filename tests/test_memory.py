"""No loop reads or writes outside its arrays: the data lie between pages that may not be touched."""

from __future__ import annotations

import ctypes
import mmap
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from support import DTYPES, LINUX, Array, bind, bits, ops, sample

from elufast import _dispatch

pytestmark = pytest.mark.skipif(not LINUX, reason="mprotect as Linux has it")

PAGE = mmap.PAGESIZE
OPS = ops("forward", "backward", "from_output", alphas=(1.0, 0.3))
SHORT = range(301)
LONG = (4097, 4100, 4111, 5119, 5120, 5121)


class Guarded:
    """Memory with an inaccessible page before and after it."""

    def __init__(self, pages: int) -> None:
        self.size = pages * PAGE
        self.mapping = mmap.mmap(-1, self.size + 2 * PAGE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.mapping)) + PAGE
        libc = ctypes.CDLL(None, use_errno=True)
        for address in (self.start - PAGE, self.start + self.size):
            assert libc.mprotect(ctypes.c_void_p(address), PAGE, 0) == 0
        memory: Any = (ctypes.c_char * self.size).from_address(self.start)
        self.bytes = np.frombuffer(memory, np.uint8)

    def array(self, n: int, dtype: Any, at_end: bool, values: Array, spare: int = 0) -> Array:
        """n elements that end, or begin, ``spare`` bytes from the page that may not be touched."""
        length = n * np.dtype(dtype).itemsize
        first = self.size - length - spare if at_end else spare
        a: Array = self.bytes[first : first + length].view(dtype)
        a[...] = values[:n]
        return a


def sweep(level: str) -> None:
    """Every function on every length at both ends, by ordinary and by streaming stores."""
    places = [Guarded(12) for _ in range(3)]
    for dtype in DTYPES:
        x0, grad0 = sample(dtype, 6000, seed=50), sample(dtype, 6000, seed=51)
        for op in OPS:
            for cache_bytes, lengths in ((1 << 40, (*SHORT, *LONG)), (1, LONG)):
                bind(level, cache_bytes)
                for n in lengths:
                    expected = op(x0[:n], grad0[:n]).tobytes()
                    for at_end in (False, True):
                        x, grad, out = (
                            place.array(n, dtype, at_end, values)
                            for place, values in zip(places, (x0, grad0, x0), strict=True)
                        )
                        op(x, grad, out=out)
                        assert out.tobytes() == expected
                        if n % 7 == 0:
                            unusual(op, x, grad, out, expected)
                        op(x, grad, out=x)
                        assert x.tobytes() == expected
            walks(op, places, x0, grad0)
    print("swept", level)


def unusual(op: Any, x: Array, grad: Array, out: Array, expected: bytes) -> None:
    op(x[::-1], grad[::-1], out=out[::-1])
    assert out.tobytes() == expected
    op(x[::2], grad[::2], out=out[::2])
    assert out.tobytes() == expected


def walks(op: Any, places: list[Guarded], x0: Array, grad0: Array) -> None:
    """Unaligned and swapped arrays, which go through blocks."""
    swapped = x0.dtype.newbyteorder()
    for n in (1, 2, 3, 7, 100, 2047, 2048, 2049, 4099):
        expected = op(x0[:n], grad0[:n])
        for at_end in (False, True):
            for dtype, spare in ((x0.dtype, 1), (swapped, 0), (swapped, 3)):
                x, grad, out = (
                    place.array(n, dtype, at_end, values, spare)
                    for place, values in zip(places, (x0, grad0, x0), strict=True)
                )
                op(x, grad, out=out, num_threads=2)
                assert bits(out) == bits(expected)
                op(x, grad, out=grad)
                assert bits(grad) == bits(expected)


def trespass() -> None:
    place = Guarded(1)
    ctypes.string_at(place.start, PAGE)
    ctypes.string_at(place.start + PAGE - 1, 2)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, timeout=120)


def test_a_guard_page_ends_a_process_that_touches_it() -> None:
    assert run("trespass").returncode == -signal.SIGSEGV


@pytest.mark.parametrize("level", _dispatch.built_levels())
def test_nothing_outside_is_touched(level: str) -> None:
    finished = run(level)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"swept {level}\n"


if __name__ == "__main__":
    trespass() if sys.argv[1] == "trespass" else sweep(sys.argv[1])
