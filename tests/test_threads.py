"""Threads: how many are used, that calls from many are safe, and what a forked child does."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support import LINUX, bits, ops, run_python, sample

import elufast

N = 200_000
OPS = ops()

needs_openmp = pytest.mark.skipif(not elufast.runtime_info()["openmp"], reason="this build has no OpenMP")
needs_linux = pytest.mark.skipif(not LINUX, reason="counts threads, or sets the CPUs, as Linux does")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

# Threads of the process that were not there before elufast was used.
COUNT = """
import os, sys
import numpy as np
x = np.full(1_000_000, -1.0)
before = len(os.listdir("/proc/self/task"))
import elufast
def used():
    return len(os.listdir("/proc/self/task")) - before + 1
assert used() == 1, "the import starts threads"
"""


def used_threads(code: str, **environment: str) -> list[int]:
    return [int(n) for n in run_python(COUNT + code, timeout=60, **environment).split()]


@needs_openmp
@needs_linux
@pytest.mark.parametrize("view", ["x", "x[::-1]", "x.astype('>f8')"])
def test_num_threads_is_an_upper_bound(view: str) -> None:
    # a process each: a call after one whose threads came late is serial
    for n in (1, 2, 3, 4):
        assert used_threads(f"elufast.elu({view}, num_threads={n}); print(used())") == [n]


@needs_openmp
@needs_linux
def test_small_arrays_start_no_threads() -> None:
    code = """
for n in (0, 1, 1000, 16_000):
    elufast.elu(x[:n], num_threads=4)
    elufast.elu(x[:n][::-1], num_threads=4)
print(used())
elufast.elu(x[:20_000], num_threads=4)
print(used())
"""
    assert used_threads(code) == [1, 2]


@needs_openmp
@needs_linux
def test_set_num_threads_limits_calls_that_do_not_ask() -> None:
    code = """
elufast.set_num_threads(1); elufast.elu(x); elufast.elu(x[::-1]); print(used())
elufast.set_num_threads(3); elufast.elu(x); print(used())
elufast.elu(x, num_threads=4); print(used())
"""
    assert used_threads(code) == [1, 3, 4]


@needs_openmp
def test_set_and_get(threads: int) -> None:
    counts: list[Any] = [1, 2, 7, np.int64(3), True]
    for n in counts:
        elufast.set_num_threads(n)
        assert elufast.get_num_threads() == n
        assert type(elufast.get_num_threads()) is int
        assert elufast.runtime_info()["num_threads"] == n


@pytest.mark.parametrize("num_threads", [1, 2, np.int32(2), np.uint8(4), True, 1000, 10**30])
def test_num_threads_of_any_integer_type(num_threads: int) -> None:
    x = sample(np.float32, 40_000, seed=70)
    assert bits(elufast.elu(x, num_threads=num_threads)) == bits(elufast.elu(x))


LIMIT = "import elufast; print(elufast.get_num_threads(), elufast.runtime_info()['cpus'])"


@needs_openmp
@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("4,2", 4), (" 2 ", 2), ("1", 1)])
def test_omp_num_threads(value: str, expected: int) -> None:
    assert int(run_python(LIMIT, OMP_NUM_THREADS=value).split()[0]) == expected


@needs_openmp
@pytest.mark.parametrize("value", ["", "0", "many", "-2"])
def test_omp_num_threads_that_says_nothing(value: str) -> None:
    limit, cpus = run_python(LIMIT, OMP_NUM_THREADS=value).split()
    assert limit == cpus


@needs_openmp
@needs_linux
def test_affinity_mask() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); {LIMIT}"
    assert run_python(code, OMP_NUM_THREADS="").split() == ["1", "1"]


@needs_openmp
@needs_linux
def test_threadpoolctl() -> None:
    pytest.importorskip("threadpoolctl")
    code = """
from threadpoolctl import threadpool_info, threadpool_limits
assert any(pool["user_api"] == "openmp" for pool in threadpool_info())
elufast.set_num_threads(3)
with threadpool_limits(1, user_api="openmp"):
    assert elufast.get_num_threads() == 1
    elufast.elu(x); elufast.elu(x, num_threads=4); elufast.elu(x[::-1], num_threads=4)
    print(used())
with threadpool_limits(2, user_api="openmp"):
    elufast.elu(x); elufast.elu(x, num_threads=4)
    print(used())
assert elufast.get_num_threads() == 3
elufast.elu(x)
print(used())
"""
    assert used_threads(code, OMP_NUM_THREADS="4") == [1, 2, 3]


@needs_openmp
@needs_linux
def test_call_inside_another_parallel_region_is_serial() -> None:
    """Two threads of libgomp's own call elufast: no thread beyond these is started."""
    code = """
import ctypes, re
library = re.search("/[^ ]*libgomp[^ \\n]*", open("/proc/self/maps").read())
if not library:
    print(-1)
    sys.exit()
import threading
results, most, done = [], [0], threading.Event()
def body(_):
    results.extend(elufast.elu(x, num_threads=4) for _ in range(20))
def watch():
    while not done.is_set():
        most[0] = max(most[0], used())
watching = threading.Thread(target=watch)
watching.start()
region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(body)
ctypes.CDLL(library[0]).GOMP_parallel(region, None, 2, 0)
done.set()
watching.join()
print(most[0] - 1)
expected = elufast.elu(x, num_threads=1).tobytes()
print(sum(result.tobytes() == expected for result in results))
"""
    counts = used_threads(code, OMP_MAX_ACTIVE_LEVELS="4")
    if counts == [-1]:
        pytest.skip("OpenMP is not GCC's")
    assert counts == [2, 40]


def test_gil_is_released() -> None:
    """With a switch interval this long another thread runs only where the GIL is let go."""
    x = np.full(2_000_000, -1.0)
    views = [(x, 1), (x, 2), (x[::-1], 1), (x[::-1], 2)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        for view, num_threads in views:
            out = np.zeros_like(view)
            gate = threading.Lock()
            ran: list[int] = []
            gate.acquire()

            def waiting(gate: threading.Lock = gate, ran: list[int] = ran) -> None:
                with gate:
                    ran.append(1)

            other = threading.Thread(target=waiting)
            other.start()
            gate.release()
            for _ in range(200):
                elufast.elu(view, out=out, num_threads=num_threads)
                if ran:
                    break
            seen = bool(ran)
            other.join()
            assert seen
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("num_threads", [None, 1, 4])
def test_many_python_threads(num_threads: int | None) -> None:
    """32 threads, shared input and own output, every function."""
    x = sample(np.float32, N, seed=71)
    expected = [bits(op(x, num_threads=1)) for op in OPS]
    start = threading.Barrier(32)

    def work(seed: int) -> list[int]:
        start.wait(60)
        wrong = []
        for k in np.random.default_rng(seed).permutation(len(OPS)):
            out = np.empty_like(x)
            view = slice(None, None, -1 if seed % 2 else 1)
            OPS[k](x[view], out=out[view], num_threads=num_threads)
            if bits(out) != expected[k]:
                wrong.append(int(k))
        return wrong

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(work, range(32), timeout=60)) == [[]] * 32


def test_set_num_threads_while_others_call(threads: int) -> None:
    x = sample(np.float64, N, seed=72)
    expected = bits(elufast.selu(x))
    done = threading.Event()

    def change() -> None:
        n = 0
        while not done.is_set():
            n = n % 6 + 1
            elufast.set_num_threads(n)
            time.sleep(0)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            results = [pool.submit(elufast.selu, x) for _ in range(100)]
            assert all(bits(result.result(60)) == expected for result in results)
    finally:
        done.set()
        changing.join()


@needs_openmp
@needs_linux
def test_python_threads_at_once_do_not_oversubscribe() -> None:
    """One call at a time has OpenMP's threads; the others run in their own."""
    code = """
from concurrent.futures import ThreadPoolExecutor
import threading
start = threading.Barrier(4)
def work(_):
    start.wait()
    for _ in range(25):
        elufast.elu(x, num_threads=12)
        elufast.elu(x[::-1], num_threads=12)
def running():
    states = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/stat") as file:
                states.append(file.read().rpartition(")")[2].split()[0])
        except OSError:
            pass
    return states.count("R")
most = 0
with ThreadPoolExecutor(4) as pool:
    jobs = [pool.submit(work, k) for k in range(4)]
    while not all(job.done() for job in jobs):
        most = max(most, running())
    for job in jobs:
        job.result()
print(most)
"""
    # This one, 4 that call, 11 that help one of them and 11 that are about to sleep; not 4 times 12.
    assert int(run_python(COUNT + code, OMP_WAIT_POLICY="passive")) <= 27


FORK = """
import os, signal, sys, threading, time
import numpy as np
import elufast
x = np.linspace(-5, 5, 200_000)
expected = elufast.elu(x, num_threads=1).tobytes()
def right():
    return all(
        result.tobytes() == expected
        for _ in range(2)
        for result in (elufast.elu(x, num_threads=2), elufast.elu(x), elufast.elu(x[::-1])[::-1])
    )
def child_is_right():
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        os._exit(0 if right() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@needs_fork
def test_fork_after_parallel_work() -> None:
    code = """
for _ in range(20):
    assert right() and child_is_right()
print("done")
"""
    assert run_python(FORK + code).strip() == "done"


@needs_fork
def test_fork_of_a_fork_and_before_any_work() -> None:
    code = """
assert child_is_right()
pid = os.fork()
if not pid:
    signal.alarm(30)
    os._exit(0 if right() and child_is_right() and right() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert right()
print("done")
"""
    assert run_python(FORK + code).strip() == "done"


@needs_fork
def test_fork_inside_a_thread_while_others_work() -> None:
    """The child is made while another thread is in the middle of a parallel call."""
    code = """
stop = threading.Event()
def busy():
    while not stop.is_set():
        assert right()
others = [threading.Thread(target=busy) for _ in range(2)]
for thread in others:
    thread.start()
failed = []
def forks():
    for _ in range(15):
        if not child_is_right():
            failed.append(1)
thread = threading.Thread(target=forks)
thread.start()
thread.join()
stop.set()
for other in others:
    other.join()
print(len(failed))
"""
    assert run_python(FORK + code).strip() == "0"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method: str) -> None:
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    code = """
import multiprocessing, sys
import numpy as np
import elufast
if __name__ == "__main__":
    x = np.linspace(-5, 5, 100_000)
    expected = elufast.elu(x).tobytes()
    context = multiprocessing.get_context(sys.argv[1])
    for _ in range(2):
        elufast.elu(x, num_threads=4)
        with context.Pool(2) as pool:
            jobs = [pool.apply_async(elufast.elu, (x,), {"num_threads": 2}) for _ in range(6)]
            assert all(job.get(30).tobytes() == expected for job in jobs)
    print("done")
"""
    assert run_python(code, method).strip() == "done"


def test_joblib() -> None:
    pytest.importorskip("joblib")
    code = """
import joblib
import numpy as np
import elufast
x = np.linspace(-5, 5, 100_000)
expected = elufast.elu(x, num_threads=2).tobytes()
for _ in range(2):
    results = joblib.Parallel(2, timeout=50)(joblib.delayed(elufast.elu)(x) for _ in range(6))
    assert all(result.tobytes() == expected for result in results)
print("done")
"""
    assert run_python(code).strip() == "done"
