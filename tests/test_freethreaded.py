"""What only a Python without the GIL can show: calls that really run at once. `make test-freethreaded`."""

from __future__ import annotations

import sys
import sysconfig
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import ROUNDS, Array, Op, bits, ops, run_python, sample

import elufast

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED") or sys._is_gil_enabled(),  # type: ignore[attr-defined,unused-ignore]
    reason="needs a free-threaded Python without its GIL",
)

OPS = [*ops(), *(Op(family, alpha, "backward") for family in ("elu", "celu") for alpha in (1e-310, 1.7e308))]


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of count threads that begin at once; an exception of one is raised."""
    start = threading.Barrier(count)
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(k: int) -> None:
        try:
            start.wait(60)
            results[k] = work(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]
    return results


def test_import_leaves_the_gil_off() -> None:
    """A module that does not declare itself would switch it on, with a warning."""
    code = "import sys, elufast, elufast.ufuncs, elufast._capi; print(sys._is_gil_enabled())"
    assert run_python(f"import warnings; warnings.simplefilter('error'); {code}").strip() == "False"


@pytest.mark.parametrize("count", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [1, 1000, 5000, 150_000])
def test_threads_on_one_set_of_functions(count: int, size: int) -> None:
    """Shared input, own output and shared parameters; contiguous, strided, new and given results; to the bit."""
    x = sample(np.float64, size, seed=90)
    expected = [bits(op(x, num_threads=1)) for op in OPS]
    ufunc = [bits(elufast.ufuncs.elu(x, 0.3)), bits(elufast.ufuncs.selu(x))]

    def work(k: int) -> list[str]:
        wrong = []
        out = np.empty_like(x)
        for _ in range(max(1, min(50, 200_000 // (size * len(OPS))))):
            for i in np.random.default_rng(k).permutation(len(OPS)):
                for result in (OPS[i](x), OPS[i](x, out=out), OPS[i](x[::-1])[::-1], OPS[i](x, num_threads=2)):
                    if bits(result) != expected[i]:
                        wrong.append(str(OPS[i]))
            if [bits(elufast.ufuncs.elu(x, 0.3)), bits(elufast.ufuncs.selu(x))] != ufunc:
                wrong.append("ufunc")
        return wrong

    assert together(count, work) == [[]] * count


def test_threads_in_place_on_parts_of_one_array() -> None:
    x = sample(np.float32, 8 * 30_000, seed=91)
    expected = bits(elufast.celu(x, 0.5))
    for _ in range(ROUNDS):
        shared = x.copy()
        parts = np.split(shared, 8)
        together(8, lambda k, parts=parts: elufast.celu_(parts[k], 0.5))
        assert bits(shared) == expected


def test_limits_notes_and_kept_memory_race(threads: int) -> None:
    """Half of the threads set the limit; the others read it, take and drop large results (which are kept and handed
    on), use the helpers and note how long that took."""
    large = sample(np.float32, (32 << 20) // 4 + 1024, seed=92)
    medium = sample(np.float64, 200_000, seed=93)
    wanted = {id(a): bits(elufast.elu(a, num_threads=1)) for a in (large, medium)}
    done = threading.Event()

    def change(k: int) -> bool:
        n = 0
        while not done.is_set():
            n = n % 6 + 1
            elufast.set_num_threads(n)
            if not 1 <= elufast.get_num_threads() <= 6 or elufast.runtime_info()["num_threads"] > 6:
                return False
        return True

    computing = threading.Semaphore(0)

    def compute(k: int) -> bool:
        try:
            right = True
            for i in range(3 + ROUNDS // 10):
                a = large if (i + k) % 2 else medium
                results: list[Array] = [elufast.elu(a), elufast.elu(a)]
                right = right and all(bits(result) == wanted[id(a)] for result in results)
                right = right and bits(elufast.elu(medium[::-1], num_threads=3)[::-1]) == wanted[id(medium)]
            return right
        finally:
            computing.release()

    def stop(k: int) -> bool:
        for _ in range(6):
            computing.acquire(timeout=60)
        done.set()
        return True

    assert together(9, lambda k: stop(k) if k == 8 else change(k) if k < 2 else compute(k)) == [True] * 9


def test_kept_memory_belongs_to_one_array_at_a_time() -> None:
    """Each thread fills its result with its own number, waits for the others, and looks."""
    x = np.zeros((32 << 20) // 4, np.float32)
    both = threading.Barrier(3)

    def work(k: int) -> bool:
        right = True
        for _ in range(5 + ROUNDS // 2):
            y = elufast.elu(x, num_threads=1)
            y[:: 1 << 10] = k
            both.wait(60)
            right = right and bool((y[:: 1 << 10] == k).all())
            del y
        return right

    assert together(3, work) == [True] * 3


def test_bfloat16_is_learned_once_by_threads_that_meet_it_first() -> None:
    pytest.importorskip("ml_dtypes")
    code = """
import sys, threading
import ml_dtypes
import numpy as np
import elufast
x = np.linspace(-5, 5, 1000).astype(ml_dtypes.bfloat16)
start = threading.Barrier(8)
results, errors = [], []
def work(k):
    start.wait()
    try:
        results.append((elufast.elu(x) if k % 2 else elufast.ufuncs.elu(x, 1.0)).tobytes())
        results.append(elufast.elu_(x.copy()).tobytes())
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
assert not sys._is_gil_enabled() or "ml_dtypes" in sys.modules
print(len(set(results)), len(results))
"""
    for _ in range(max(3, ROUNDS // 3)):
        assert run_python(code).split() == ["1", "16"]


def test_errors_from_many_threads() -> None:
    x, short = np.ones(5), np.ones(3)

    def work(k: int) -> set[str]:
        messages = set()
        for _ in range(100):
            with pytest.raises(ValueError, match="shape") as raised:
                elufast.elu_backward(x, short)
            messages.add(str(raised.value))
        return messages

    results = together(4, work)
    assert all(len(messages) == 1 and messages == results[0] for messages in results)
