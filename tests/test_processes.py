"""Processes: what a forked child does, and the pools of processes that Python programs use."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from support import LINUX, ROUNDS, run_python

import elufast

LIMIT = 60 + ROUNDS

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
needs_linux = pytest.mark.skipif(not LINUX, reason="counts threads, or asks for processes, as Linux does")
needs_openmp = pytest.mark.skipif(not elufast.runtime_info()["openmp"], reason="this build has no OpenMP")

BEFORE = """
import ctypes, os, signal, subprocess, sys, threading
import numpy as np
rounds, openmp = int(sys.argv[1]), ctypes.CDLL(sys.argv[2]) if sys.argv[2:] else None
x = np.linspace(-5, 5, 100_000)
def threads():
    return len(os.listdir("/proc/self/task"))
def ends_well(child, fork=os.fork):
    pid = fork()
    if not pid:
        signal.alarm(20)  # a child that hangs is killed
        status = 1
        try:
            status = not child()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
IMPORT = """
import elufast
expected = elufast.elu(x, num_threads=1).tobytes()
def right():
    return all(
        result.tobytes() == expected
        for result in (elufast.elu(x, num_threads=2), elufast.elu(x), elufast.elu(x[::-1], num_threads=2)[::-1])
    )
"""


def run(code: str, *arguments: str, **environment: str) -> None:
    code = code.replace("IMPORT", IMPORT) if "IMPORT" in code else IMPORT + code
    code = f"{BEFORE}{code}\nprint('done')"
    assert run_python(code, str(ROUNDS), *arguments, timeout=LIMIT, **environment).strip() == "done"


@needs_fork
def test_fork_after_parallel_work() -> None:
    run("""
before = elufast.get_num_threads()
for _ in range(rounds):
    assert right() and ends_well(lambda: right() and elufast.get_num_threads() == 1)
assert elufast.get_num_threads() == before
""")


@needs_fork
def test_fork_before_any_work_and_three_generations() -> None:
    run("""
def generation(n):
    return n == 0 or right() and ends_well(lambda: generation(n - 1)) and right()
assert ends_well(right)
for _ in range(rounds):
    assert ends_well(lambda: generation(3))
    assert right()
""")


@needs_fork
def test_fork_inside_a_thread_while_others_work() -> None:
    """The child is made while other threads are in the middle of a parallel call, by one that has made its own."""
    run("""
done, failed = threading.Event(), []
def busy():
    while not done.is_set():
        if not right():
            failed.append("parent")
others = [threading.Thread(target=busy) for _ in range(2)]
def forks():
    if not right():
        failed.append("parent")
    for thread in others:
        thread.start()
    for _ in range(rounds):
        if not ends_well(right):
            failed.append("child")
    done.set()
forking = threading.Thread(target=forks)
forking.start()
forking.join()
for thread in others:
    thread.join()
assert not failed, failed
""")


@needs_fork
def test_child_that_has_its_parents_number() -> None:
    """As the first process of a new PID namespace, forked by the first of another, has."""
    run("""
number = os.getpid()
os.getpid = lambda: number
for _ in range(rounds):
    assert right() and ends_well(right)
""")


@needs_linux
def test_fork_that_runs_no_handlers() -> None:
    run("""
fork = getattr(ctypes.PyDLL(None), "_Fork", None)  # glibc 2.34
for _ in range(rounds if fork else 0):
    assert right() and ends_well(right, fork)
""")


@needs_linux
@needs_openmp
def test_starting_a_program_is_no_fork() -> None:
    """It is a vfork, which shares the parent's memory: the parent keeps its threads."""
    run("""
before = threads()
for _ in range(3):
    subprocess.run([sys.executable, "-c", ""], check=True)
os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
os.wait()
assert right() and threads() > before
""")


def openmp_library() -> str:
    """The file of libgomp that elufast uses, wherever the build found it."""
    code = r"""
import re
import elufast
library = re.search(r"/.*/libgomp[^/\n]*", open("/proc/self/maps").read())
print(library[0] if library else "")
"""
    library = run_python(code).strip()
    return library or pytest.skip("OpenMP is not GCC's")


WORK = """
def work():
    openmp.GOMP_parallel(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None), None, 4, 0)
"""


@needs_linux
@needs_openmp
def test_another_library_used_the_same_openmp_before_the_fork() -> None:
    run(f"{WORK}work()\nfor _ in range(rounds): assert ends_well(right)", openmp_library())


@needs_linux
@needs_openmp
@pytest.mark.parametrize("generations", [1, 2])
def test_first_import_is_in_the_child(generations: int) -> None:
    """elufast finds libgomp with a pool whose threads did not survive the fork."""
    code = f"""{WORK}
work()
def child():
    def first():
        exec('''IMPORT''', globals())
        return right() and threads() == 1
    return first() if {generations} == 1 else ends_well(first) and first()
for _ in range(rounds):
    assert ends_well(child)
"""
    run(code, openmp_library())


@needs_linux
@needs_openmp
def test_child_that_loads_openmp_itself_has_threads() -> None:
    """A server that forks its workers before they import elufast."""
    run("""
def child():
    exec('''IMPORT''', globals())
    before = threads()
    return right() and threads() > before
assert ends_well(child)
""")


def test_marks_of_a_fork(tmp_path: Path) -> None:
    """Without Linux's account of the process, or where it called exec, nothing is inherited."""
    from elufast import _runtime

    stat = tmp_path / "proc/self/stat"
    assert not _runtime.inherits_openmp(str(tmp_path))
    stat.parent.mkdir(parents=True)
    for content in ("", "7 (python)", "7 (a) b) S 1 7 7 0 -1 4194304 64 64 64"):
        stat.write_text(content)
        assert not _runtime.inherits_openmp(str(tmp_path))


LIBRARIES = {
    "numpy": "a = np.random.default_rng(1).standard_normal((700, 700)); a @ a",
    "sklearn": """
from sklearn.ensemble import HistGradientBoostingClassifier
a = np.random.default_rng(1).standard_normal((2_000, 4))
HistGradientBoostingClassifier(max_iter=1).fit(a, a[:, 0] > 0)
""",
    "torch": "import torch; torch.set_num_threads(2); torch.nn.functional.elu(torch.randn(1_000_000))",
}


@needs_fork
@pytest.mark.parametrize("first", ["parent", "child"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_fork_after_another_librarys_work(library: str, first: str) -> None:
    pytest.importorskip(library)
    if first == "parent":
        run(f"{LIBRARIES[library]}\nfor _ in range(3): assert right() and ends_well(right)")
    else:
        run(f"""{LIBRARIES[library]}
def child():
    exec('''IMPORT''', globals())
    return right()
for _ in range(3):
    assert ends_well(child)
""")


@pytest.mark.parametrize("pool", ["multiprocessing", "concurrent.futures"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools(method: str, pool: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    code = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import elufast
if __name__ == "__main__":
    x = np.linspace(-5, 5, 100_000)
    expected = elufast.elu(x).tobytes()
    context = multiprocessing.get_context(sys.argv[1])
    for _ in range(2):
        elufast.elu(x, num_threads=4)
        if sys.argv[2] == "multiprocessing":
            with context.Pool(2) as pool:
                jobs = [pool.apply_async(elufast.elu, (x,), {"num_threads": 2}) for _ in range(6)]
                results = [job.get(30) for job in jobs]
        else:
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                jobs = [pool.submit(elufast.elu, x, num_threads=2) for _ in range(6)]
                results = [job.result(30) for job in jobs]
        assert all(result.tobytes() == expected for result in results)
    print("done")
"""
    assert run_python(code, method, pool).strip() == "done"


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(backend: str) -> None:
    """joblib gives each worker its share of the CPUs; elufast takes no more."""
    pytest.importorskip("joblib")
    code = """
import sys
import joblib
import numpy as np
import elufast
x = np.linspace(-5, 5, 100_000)
expected = elufast.elu(x, num_threads=2).tobytes()
for _ in range(2):
    results = joblib.Parallel(2, backend=sys.argv[1], timeout=50)(joblib.delayed(elufast.elu)(x) for _ in range(6))
    assert all(result.tobytes() == expected for result in results)
if sys.argv[1] == "loky" and elufast.runtime_info()["openmp"]:
    for share in (1, 3):
        with joblib.parallel_config("loky", inner_max_num_threads=share):
            assert joblib.Parallel(2)(joblib.delayed(elufast.get_num_threads)() for _ in range(4)) == [share] * 4
print("done")
"""
    assert run_python(code, backend).strip() == "done"
