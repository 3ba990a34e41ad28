"""Threads: how many are used, and that calls are safe from many, from small ones and when interrupted."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support import LINUX, ROUNDS, SANITIZED, bits, ops, run_python, sample

import elufast

N = 200_000
OPS = ops()

needs_openmp = pytest.mark.skipif(not elufast.runtime_info()["openmp"], reason="this build has no OpenMP")
needs_linux = pytest.mark.skipif(not LINUX, reason="counts threads, or sets the CPUs, as Linux does")

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
for n in (0, 1, 1000, 15_000):
    elufast.elu(x[:n], num_threads=4)
    elufast.elu(x[:n][::-1], num_threads=4)
print(used())
elufast.elu(x[:20_000], num_threads=4)
print(used())
"""
    assert used_threads(code) == [1, 2]


@needs_openmp
@needs_linux
@pytest.mark.parametrize("policy, wakes", [("active", True), ("passive", False)])
def test_calls_that_follow_each_other_take_threads_sooner(policy: str, wakes: bool) -> None:
    """Not those with other work between them, nor where OpenMP's threads sleep at once."""
    code = """
import time
out, x4 = np.empty(10_000), x[:40_000].astype(np.float32)
out4 = np.empty_like(x4)
for _ in range(30):
    for _ in range(4):
        elufast.elu(x[:10_000], out=out, num_threads=2)
    time.sleep(1e-3)
print(used())
for _ in range(3000):
    elufast.elu(x[:7_000], out=out[:7_000], num_threads=2)
    elufast.elu(x4, out=out4, num_threads=2)
print(used())
for _ in range(3000):
    elufast.elu(x[:10_000], out=out, num_threads=2)
print(used())
"""
    assert used_threads(code, OMP_WAIT_POLICY=policy) == [1, 1, 1 + wakes]


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
    x = sample(np.float32, 160_000, seed=70)
    assert bits(elufast.elu(x, num_threads=num_threads)) == bits(elufast.elu(x))


LIMIT = "import elufast; print(elufast.get_num_threads(), elufast.runtime_info()['cpus'])"


@needs_openmp
@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("4,2", 4), (" 2 ", 2), ("1", 1)])
def test_omp_num_threads(value: str, expected: int) -> None:
    assert int(run_python(LIMIT, OMP_NUM_THREADS=value).split()[0]) == expected


@needs_openmp
@pytest.mark.skipif(elufast.runtime_info()["compiler"].startswith("clang"), reason="LLVM's OpenMP may abort at these")
@pytest.mark.parametrize("value", ["", "0", "many", "-2"])
def test_omp_num_threads_that_says_nothing(value: str) -> None:
    limit, cpus = run_python(LIMIT, OMP_NUM_THREADS=value).split()
    assert limit == cpus


@needs_openmp
@needs_linux
def test_affinity_mask() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); {LIMIT}"
    assert run_python(code, OMP_NUM_THREADS="0").split() == ["1", "1"]


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


@needs_openmp
@needs_linux
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_THREAD_LIMIT": "2", "OMP_NUM_THREADS": "4"}, [2, 2, 2]),
        ({"OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "4"}, [1, 1, 1]),
        ({"OMP_PROC_BIND": "true", "OMP_NUM_THREADS": "3"}, [3, 3, 4]),
        ({"OMP_NUM_THREADS": "3,1"}, [3, 3, 4]),
    ],
)
def test_openmp_environment(environment: dict[str, str], expected: list[int]) -> None:
    code = """
print(elufast.get_num_threads())
elufast.elu(x); print(used())
elufast.elu(x, num_threads=4); elufast.elu(x[::-1], num_threads=4); print(used())
"""
    assert used_threads(code, **environment) == expected


@needs_openmp
@needs_linux
def test_omp_dynamic() -> None:
    """OpenMP may give fewer threads than asked for: every element is computed all the same."""
    code = """
expected = elufast.elu(x, num_threads=1).tobytes()
for view in (x, x[::-1]):
    assert all(elufast.elu(view, num_threads=4).tobytes() == expected for _ in range(20))
print(used() <= 4)
"""
    assert run_python(COUNT + code, OMP_DYNAMIC="true").strip() == "True"


@needs_openmp
@needs_linux
@pytest.mark.parametrize("bind", ["false", "true"])
def test_bound_threads_leave_all_cpus(bind: str) -> None:
    """OMP_PROC_BIND shrinks the main thread's affinity mask to its own place."""
    available = len(os.sched_getaffinity(0))
    code = "import elufast; print(elufast.runtime_info()['cpus'])"
    assert int(run_python(code, OMP_PROC_BIND=bind)) == int(run_python(code)) <= available


@needs_openmp
@needs_linux
def test_import_while_threadpoolctl_limits() -> None:
    pytest.importorskip("threadpoolctl")
    library = "re.search(r'/.*/lib(gomp|omp|iomp)[^/\\n]*', open('/proc/self/maps').read())[0]"
    path = run_python(f"import re, elufast; print({library})").strip()
    code = f"""
import ctypes
ctypes.CDLL({path!r})
import numpy as np
from threadpoolctl import threadpool_limits
with threadpool_limits(1, user_api="openmp"):
{COUNT.replace(chr(10), chr(10) + "    ")}
    print(elufast.get_num_threads())
    elufast.elu(x); elufast.elu(x, num_threads=4); print(used())
print(elufast.get_num_threads())
elufast.elu(x); print(used())
with threadpool_limits(2, user_api="openmp"):
    print(elufast.get_num_threads())
"""
    assert run_python(code, OMP_NUM_THREADS="3").split() == ["1", "1", "3", "3", "2"]


@needs_openmp
@needs_linux
def test_late_threads_are_given_a_rest() -> None:
    """The helper shares a CPU with a busy process that it must wait for: calls do without it, then ask it again.

    A call that uses the helper lets it onto the CPU and off again, which Linux counts.
    """
    code = """
import signal, subprocess, time
out = np.empty_like(x)
tasks = set(os.listdir("/proc/self/task"))
elufast.elu(x, out=out, num_threads=2)
(helper,) = set(os.listdir("/proc/self/task")) - tasks
def switches():
    with open(f"/proc/self/task/{helper}/status") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
def rests():
    before = switches()
    for _ in range(4):  # the helper cannot have done its part of four calls without a switch
        elufast.elu(x, out=out, num_threads=2)
        time.sleep(0.002)
    return switches() == before
def wait_until(wanted):
    end = time.monotonic() + 40
    while rests() != wanted:
        assert time.monotonic() < end, f"rests: {not wanted}, for 40 s"
cpu = {max(os.sched_getaffinity(0))}
wait_until(False)
busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
try:
    os.sched_setaffinity(busy.pid, cpu)
    os.sched_setaffinity(int(helper), cpu)
    os.sched_setscheduler(int(helper), os.SCHED_IDLE, os.sched_param(0))
    wait_until(True)
finally:
    busy.kill()
    busy.wait()
wait_until(False)
print("done")
"""
    assert run_python(COUNT + code, OMP_WAIT_POLICY="passive", timeout=150).strip() == "done"


@pytest.mark.skipif(SANITIZED, reason="frames are larger under AddressSanitizer")
def test_small_stacks() -> None:
    """Threads with the smallest stack that Python allows, where NumPy's own functions work."""
    code = """
import sys, threading
import numpy as np
import elufast
threading.stack_size(max(32 * 1024, int(sys.argv[1])))
x = np.linspace(-5, 5, 200_000)
swapped = x.astype(">f8")
results = []
def work():
    for num_threads in (1, 4):
        for a in (x, x[::-1][::-1], x[:99][::-1], x[::-1], swapped):
            results.append(elufast.elu(a, num_threads=num_threads))
            elufast.elu_backward(a, a, num_threads=num_threads)
    own = x.copy()
    elufast.elu(own[:-1], out=own[1:])
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert len(results) == 10
assert all(result.tobytes() == elufast.elu(x).tobytes() for result in (results[0], results[4], results[5], results[9]))
print("done")
"""
    least = os.sysconf("SC_THREAD_STACK_MIN") if hasattr(os, "sysconf") else 16 * 1024
    assert run_python(code, str(least), OMP_STACKSIZE=f"{least}b").strip() == "done"


INTERRUPT = """
import os, signal, subprocess, sys
import numpy as np
import elufast
x = np.full(4_000_000, -1.0)
expected = elufast.elu(x[:1])[0]
view = slice(None, None, -1 if sys.argv[1] == "strided" else 1)
out = np.empty_like(x)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_interrupt(layout: str) -> None:
    """A call is finished before KeyboardInterrupt is raised: no element is left out, and the threads stay usable."""
    code = """
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
caught = 0
for k in range(20):
    out[:] = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 * (k + 1))
        while True:
            elufast.elu(x[view], out=out[view], num_threads=2)
    except KeyboardInterrupt:
        caught += 1
    elufast.elu(x, num_threads=2)
    assert (out == expected).all() or not out.any()
print(caught)
"""
    assert int(run_python(INTERRUPT + code, layout)) == 20


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_call_from_a_signal_handler(layout: str) -> None:
    code = """
calls = []
def handler(*_):
    calls.append((elufast.elu(x[view], num_threads=2) == expected).all())
signal.signal(signal.SIGALRM, handler)
for k in range(20):
    signal.setitimer(signal.ITIMER_REAL, 0.0005 * (k + 1))
    while len(calls) == k:
        elufast.elu(x[view], out=out[view], num_threads=2)
    assert (out == expected).all()
print(all(calls))
"""
    assert run_python(INTERRUPT + code, layout).strip() == "True"


@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_exit_while_daemon_threads_call(layout: str) -> None:
    code = """
import atexit, threading, time
def work():
    while True:
        elufast.elu(x[view], num_threads=2)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
@atexit.register
def last():
    print((elufast.elu(x[view], num_threads=2) == expected).all())
time.sleep(float(sys.argv[2]))
"""
    for k in range(ROUNDS // 2):
        assert run_python(INTERRUPT + code, layout, str(0.01 * (k % 10))).strip() == "True"


def test_second_interpreter() -> None:
    """NumPy and Cython's modules belong to one interpreter: the import is refused, and the first goes on."""
    code = """
import sys
import numpy as np
import elufast
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
inner = '''
try:
    import elufast
except ImportError:
    pass
else:
    import numpy as np
    assert (elufast.elu(np.full(100_000, -1.0), num_threads=2) == np.expm1(-1.0)).all()
'''
for _ in range(3):
    other = interpreters.create()
    failure = interpreters.run_string(other, inner)
    assert failure is None, failure
    interpreters.destroy(other)
x = np.full(100_000, -1.0)
print((elufast.elu(x, num_threads=2) == elufast.elu(x[:1])).all())
"""
    pytest.importorskip("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    assert run_python(code).strip() == "True"
