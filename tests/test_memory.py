"""Memory: nothing outside the arrays is touched, what cannot be allocated is a MemoryError; Ctrl-C leaves all whole.

Outside: the data lie between pages that may not be touched.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import DTYPES, FREE_THREADED, LINUX, SANITIZED, Array, bind, bits, ops, run_python, sample

import elufast
from elufast import _dispatch

pytestmark = pytest.mark.skipif(not LINUX, reason="mprotect as Linux has it")

needs_address_space = pytest.mark.skipif(SANITIZED, reason="AddressSanitizer takes terabytes of addresses")
PAGE = mmap.PAGESIZE
MAP_NORESERVE = 0x4000
OPS = ops("forward", "backward", "from_output", alphas=(1.0, 0.3))
SHORT = range(301)
LONG = (4097, 4100, 4111, 5119, 5120, 5121)
STREAMED = (*range(4097, 4113), *LONG[3:])  # every alignment of an array that ends at a page


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
    places, wide = ([Guarded(pages) for _ in range(3)] for pages in (12, 52))
    for dtype in DTYPES:
        x0, grad0 = sample(dtype, 6000, seed=50), sample(dtype, 6000, seed=51)
        for op in OPS:
            for cache_bytes, lengths in ((1 << 40, (*SHORT, *LONG)), (1, STREAMED)):
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
                        place = x if n % 2 or not op.backward else grad
                        op(x, grad, out=place)
                        assert place.tobytes() == expected
            walks(op, places, x0, grad0)
            for cache_bytes in (1 << 40, 1):
                bind(level, cache_bytes)
                rows(op, wide, dtype)
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


def rows(op: Any, places: list[Guarded], dtype: Any) -> None:
    """Rows with gaps between them; the first or the last one at a page that may not be touched."""
    for n, gap in ((320, 1), (327, 3), (385, 16)):
        values = sample(dtype, 64 * (n + gap), seed=52)
        x0 = values.reshape(64, n + gap)[:, :n]
        expected = bits(op(np.ascontiguousarray(x0), np.ascontiguousarray(x0)))
        for at_end in (False, True):
            x, grad, out = (
                np.lib.stride_tricks.as_strided(
                    place.array(64 * (n + gap) - gap, dtype, at_end, values), x0.shape, x0.strides
                )
                for place in places
            )
            op(x, grad, out=out, num_threads=2)
            assert bits(out) == expected
            op(x, grad, out=grad)
            assert bits(grad) == expected


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


LIMIT = """
import resource, sys
import numpy as np
import elufast
x = np.linspace(-5, 5, 3_000_000)
out = np.empty_like(x)
some = slice(None, None, 1001)
expected = elufast.elu(x[some], num_threads=1).tobytes()
_, hard = resource.getrlimit(resource.RLIMIT_AS)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[1]) << 20), hard))
def no_memory(call):
    try:
        call()
    except MemoryError:
        return True
"""


@needs_address_space
@pytest.mark.parametrize("mib", [1, 5, 9, 17])
def test_no_room_for_a_result(mib: int) -> None:
    code = """
for n in (1, 2):
    assert no_memory(lambda: elufast.elu(x, num_threads=n))
    assert no_memory(lambda: elufast.elu_backward(x, x, num_threads=n))
    assert no_memory(lambda: elufast.elu(x[::-1], num_threads=n))
    kept = x[some].tobytes()
    assert no_memory(lambda: elufast.elu(x[:-1], out=x[1:], num_threads=n))
    assert x[some].tobytes() == kept
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
assert elufast.elu(x)[some].tobytes() == expected
print("done")
"""
    assert run_python(LIMIT + code, str(mib)).strip() == "done"


@needs_address_space
@pytest.mark.parametrize("mib", [1, 5, 9, 17])
def test_no_room_for_the_stacks_of_threads(mib: int) -> None:
    """Without a check libgomp ends the process: the call runs in fewer threads instead."""
    code = """
for n in (2, 3, 1, 4):
    assert elufast.elu(x, out=out, num_threads=n)[some].tobytes() == expected
    out[:] = 0
    assert elufast.elu(x[::-1], out=out[::-1], num_threads=n)[::-1][some].tobytes() == expected
print("done")
"""
    assert run_python(LIMIT + code, str(mib)).strip() == "done"


NO_MEMORY = """
import sys
import numpy as np
import elufast
from _testcapi import remove_mem_hooks, set_nomemory
x, out = np.linspace(-5, 5, 70_000), np.zeros(70_000)
x4 = x.astype(np.float32)
CALLS = {
    "new": lambda: elufast.elu(x),
    "threads": lambda: elufast.elu(x, out=out, num_threads=2),
    "small": lambda: elufast.elu_backward(x[:9], x[:9]),
    "blocks": lambda: elufast.elu(x[::-1], out=out, num_threads=2),
    "other byte order": lambda: elufast.selu(x.view(">f8"), out=out),
    "overlap": lambda: elufast.elu(x[:-1], out=x[1:]),
    "in place": lambda: elufast.celu_(x, 0.5),
    "in place, strided": lambda: elufast.celu_(x[::-2], 0.5),
    "list": lambda: elufast.elu([1.0, -2.0]),
    "wrong": lambda: elufast.elu(x, out=x4),
    "scalar": lambda: elufast.elu(np.float32(-2)),
    "subclass": lambda: elufast.elu(np.ma.masked_array(x4)),
    "wide": lambda: elufast.elu_backward(x4, x4, 1e300, num_threads=2),
    "threads set": lambda: elufast.set_num_threads(2),
    "info": elufast.runtime_info,
    "large": lambda: elufast.elu(large, num_threads=1),
}
large, small = np.full(10_000_000, -1, np.float32), np.arange(10.0)
for name, call in CALLS.items():
    for warm in range(3):
        try:
            call()
        except TypeError:
            pass
    failures = 0
    for first in range(400):
        kept = x.tobytes()
        raised = None
        set_nomemory(first, first + 1)
        try:
            call()
        except BaseException as error:
            raised = error
        finally:
            remove_mem_hooks()
        np.argsort(small)  # frees NULL, by whatever handler is in force
        if type(raised) is MemoryError:
            failures += 1
            assert x.tobytes() == kept, (name, first)
        elif raised is None or (name == "wrong" and type(raised) is TypeError):
            assert np._core.multiarray.get_handler_name(np.ones(3)) == "default_allocator"
            break
        elif type(raised) is SystemError:  # of NumPy or Python, where they forget to set an exception
            assert x.tobytes() == kept, (name, first)
        else:
            raise raised
    else:
        raise SystemExit(f"{name} never succeeds")
    print(failures, name)
"""


@pytest.mark.skipif(
    FREE_THREADED,
    reason="CPython 3.13t damages its own free lists: len([1]) with each allocation failing, 50 times, never exits",
)
def test_every_allocation_that_fails_is_a_memory_error() -> None:
    """Each allocation of Python's allocators in a call in turn; after it nothing has been written."""
    pytest.importorskip("_testcapi")
    lines = run_python(NO_MEMORY).splitlines()
    failures = {name: int(count) for count, name in (line.split(" ", 1) for line in lines)}
    assert len(failures) == 16
    assert (
        min(failures[name] for name in ("new", "threads", "blocks", "overlap", "list", "scalar", "wide", "large")) >= 1
    ), failures


INTERRUPT = """
import _thread, signal, sys, threading
import numpy as np
import elufast
x = np.linspace(-5, 5, 1_000_003)
step = -1 if sys.argv[1] == "blocks" else 1
view, out, num_threads = x[::step], np.empty_like(x)[::step], int(sys.argv[2])
expected = elufast.elu(x).tobytes()
inside, interrupts = False, 0
def handler(*_):
    global inside
    if inside:
        inside = False
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, handler)
stop = threading.Event()
def press():
    while not stop.wait(0.002):
        _thread.interrupt_main()
pressing = threading.Thread(target=press)
pressing.start()
while interrupts < 20:
    try:
        inside = True
        elufast.elu(view, out=out, num_threads=num_threads)
        elufast.elu(view)
        inside = False
    except KeyboardInterrupt:
        interrupts += 1
        assert elufast.elu(view, out=out, num_threads=num_threads)[::step].tobytes() == expected
stop.set()
pressing.join()
print("done")
"""


@pytest.mark.parametrize("num_threads", ["1", "2"])
@pytest.mark.parametrize("way", ["contiguous", "blocks"])
def test_interrupts(way: str, num_threads: str) -> None:
    """Ctrl-C takes effect between calls: arrays stay whole, and the threads are free for the next call."""
    assert run_python(INTERRUPT, way, num_threads).strip() == "done"


@needs_address_space
@pytest.mark.skipif(sys.maxsize < 2**40, reason="needs addresses of 64 bits")
def test_strides_and_offsets_of_more_than_32_bits(level: str) -> None:
    """Few elements, gigabytes apart, in memory that is promised but never used: `make sizes` has them all."""
    memory = mmap.mmap(-1, 14 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    everything = np.frombuffer(memory, np.uint8)
    for dtype in DTYPES:
        size = np.dtype(dtype).itemsize
        for gap in ((1 << 31) + size, (1 << 32) - 8, (1 << 32) + 8 * size, (1 << 31) - size + 1):
            shapes = {(3,): (gap,), (3, 50): (gap, size), (50, 3): (3 * size, gap), (2, 1, 7): (gap, 0, -size)}
            for shape, strides in shapes.items():
                low = -sum(min(0, s * (n - 1)) for n, s in zip(shape, strides, strict=True))
                x, out = (np.ndarray(shape, dtype, everything, low + start, strides) for start in (64, 64 + (1 << 20)))
                values, grad = (sample(dtype, x.size, seed=k).reshape(shape) for k in (60, 61))
                x[...] = values
                for op in ops("forward", "backward", alphas=(0.3,)):
                    expected = bits(op(values, grad))
                    for view in (np.s_[:], np.s_[::-1]):
                        assert bits(op(x[view], grad[view])[view]) == expected
                        op(x[view], grad[view], out=out[view], num_threads=2)
                        assert bits(out) == expected
                elufast.elu_(x)
                assert bits(x) == bits(elufast.elu(values))


LARGE = 10_000_000  # float32: 38 MiB, more than malloc keeps by itself
PLACED = 150_000  # 586 KiB


def numpy_memory(number: int, *types: Any) -> Any:
    """PyDataMem_SetHandler (304) or PyDataMem_GetHandler (305)."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.c_void_p * 306
    api = table.from_address(pointer(np._core._multiarray_umath._ARRAY_API, None))
    return ctypes.PYFUNCTYPE(ctypes.py_object, *types)(api[number])


def handler_name(a: Array) -> str:
    return str(np._core.multiarray.get_handler_name(a))


def test_memory_of_a_large_result_is_used_again() -> None:
    x = np.full(LARGE, -1, np.float32)
    whole = np.full(1 << 26, -1, np.float32)  # 256 MiB
    for laid in (x, x.reshape((1000, 10_000), order="F"), whole):
        first = elufast.elu(laid)
        address = first.ctypes.data
        assert handler_name(first) == "elufast"
        assert first.flags.owndata
        assert first.strides == laid.strides
        held = resident()
        del first
        assert held - resident() < laid.nbytes // 2  # of memory that the system may take, but has not yet
        second = elufast.elu(laid)
        assert second.ctypes.data == address
        assert (second == elufast.elu(x[:1])[0]).all()
    assert handler_name(elufast.elu(x[:1000])) == "default_allocator"
    for unusual in (elufast.elu(x, 1), elufast.elu(x.astype(">f4"))):
        assert handler_name(unusual) == "elufast"


@pytest.mark.parametrize("n", [PLACED, LARGE])
def test_memory_of_a_large_result_is_an_arrays_own(n: int) -> None:
    """Resized, to a small and to a larger size, and then freed; results of other sizes meanwhile."""
    x = np.full(n, -1, np.float32)
    one = elufast.elu(x[:1])[0]
    for size in (10, n // 2, n - 1, 2 * n, 100 * PLACED, 0):
        y = elufast.elu(x)
        assert handler_name(y) == "elufast"
        y.resize(size, refcheck=False)
        assert (y[:n] == one).all()
        assert not y[n:].any()
        del y
        assert (elufast.elu(x) == one).all()
        assert (elufast.elu(x[n // 10 :]) == one).all()


@pytest.mark.parametrize("n", [PLACED, LARGE])
def test_a_result_begins_where_no_store_meets_a_load(n: int) -> None:
    """With a cache line, and modulo a page not a little after an input."""
    raw = np.zeros(2 * 4 * n + 5 * PAGE, np.uint8)
    start, span = -raw.ctypes.data % PAGE, -(-4 * n // PAGE + 1) * PAGE
    for x_at, grad_at in itertools.product((0, 16, 64, 2044, 2048, 4080), repeat=2):
        x, grad = (raw[at:][: 4 * n].view(np.float32) for at in (start + x_at, start + span + grad_at))
        for result, inputs in ((elufast.elu(x), [x]), (elufast.elu_backward(grad, x), [grad, x])):
            assert result.ctypes.data % 64 == 0
            for a in inputs:
                distance = (result.ctypes.data - a.ctypes.data) % 4096
                assert distance == 0 or distance >= 4096 // 2 - 64


def test_size_of_a_large_result_that_numpy_has_lost() -> None:
    """A state that is refused leaves an array with another dtype, so that NumPy frees it with another size."""
    code = f"""
import numpy as np
import elufast
x = np.full({2 * LARGE}, -1, np.float32)
y = elufast.elu(x[:{LARGE}])
try:
    y.__setstate__((1, (3,), np.dtype("f8"), False, b""))
except ValueError:
    pass
del y
assert (elufast.elu(x) == elufast.elu(x[:1])).all()
"""
    run_python(code)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_one_block_is_kept() -> None:
    x = np.full(2 * LARGE, -1, np.float32)
    before = resident()
    for n in range(LARGE, 2 * LARGE, LARGE // 8):
        results = [elufast.elu(x[:n]) for _ in range(3)]
    del results
    assert resident() - before < 2 * x.nbytes


@needs_address_space
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_nothing_is_kept_where_addresses_are_limited(limit: str) -> None:
    code = f"""
import resource
import numpy as np
import elufast
def mapped():
    return int(open("/proc/self/statm").read().split()[0])
x = np.full({LARGE}, -1, np.float32)
resource.setrlimit(resource.{limit}, (2**36, 2**36))
before = mapped()
y = elufast.elu(x, num_threads=1)
assert mapped() - before >= y.nbytes // {PAGE}
del y
assert mapped() - before < 1000
"""
    run_python(code)


def test_a_memory_handler_of_the_users_own_is_used() -> None:
    get, put = numpy_memory(305), numpy_memory(304, ctypes.py_object)
    pointer, new = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    default = get()
    handler = ctypes.create_string_buffer(ctypes.string_at(pointer(default, b"mem_handler"), 168), 168)
    handler[:5] = b"user\0"
    x = np.full(LARGE, -1, np.float32)
    put(new(ctypes.addressof(handler), b"mem_handler", None))
    try:
        y = elufast.elu(x)
    finally:
        put(default)
    assert handler_name(y) == "user"
    assert handler_name(elufast.elu(x)) == "elufast"
    assert handler_name(np.ones(LARGE)) == "default_allocator"
    del y


if __name__ == "__main__":
    trespass() if sys.argv[1] == "trespass" else sweep(sys.argv[1])
