"""Facts about the machine (from made-up system files), and the floating-point environment."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import DTYPES, LINUX, ROUNDS, Op, bits, bound, ops, run_python, sample, specials

import elufast
from elufast import _runtime


def tree(root: Path, files: dict[str, str]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return str(root)


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu"
CGROUPS: dict[str, tuple[dict[str, str], float]] = {
    "none": ({}, math.inf),
    "v2": ({"proc/self/cgroup": "0::/a", f"{V2}/a/cpu.max": "150000 100000"}, 1.5),
    "v2, no limit": ({"proc/self/cgroup": "0::/a", f"{V2}/a/cpu.max": "max 100000"}, math.inf),
    "v2, no file": ({"proc/self/cgroup": "0::/a"}, math.inf),
    "v2, at the root": ({"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "200000 100000"}, 2.0),
    "v2, of an ancestor": (
        {
            "proc/self/cgroup": "0::/a/b/c",
            f"{V2}/a/cpu.max": "300000 100000",
            f"{V2}/a/b/cpu.max": "max 100000",
            f"{V2}/a/b/c/cpu.max": "800000 100000",
        },
        3.0,
    ),
    "v2, another period": (
        {"proc/self/cgroup": "0::/a", f"{V2}/a/cpu.max": "10000 20000"},
        0.5,
    ),
    "v2, of another group": (
        {"proc/self/cgroup": "0::/a", f"{V2}/b/cpu.max": "100000 100000"},
        math.inf,
    ),
    "v2, the path has a colon": (
        {"proc/self/cgroup": "0::/a:b", f"{V2}/a:b/cpu.max": "100000 100000"},
        1.0,
    ),
    "v1": (
        {
            "proc/self/cgroup": "12:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/a",
            f"{V1}/a/cpu.cfs_quota_us": "250000",
            f"{V1}/a/cpu.cfs_period_us": "100000",
        },
        2.5,
    ),
    "v1, no limit": (
        {
            "proc/self/cgroup": "4:cpuacct,cpu:/a",
            f"{V1}/a/cpu.cfs_quota_us": "-1",
            f"{V1}/a/cpu.cfs_period_us": "100000",
        },
        math.inf,
    ),
    "v1, the host's path inside a container": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/0123",
            f"{V1}/cpu.cfs_quota_us": "100000",
            f"{V1}/cpu.cfs_period_us": "100000",
        },
        1.0,
    ),
    "v1, only cpuset": (
        {"proc/self/cgroup": "4:cpuset:/a", f"{V1}/a/cpu.cfs_quota_us": "100000"},
        math.inf,
    ),
    "v1 and v2": (
        {
            "proc/self/cgroup": "4:cpu:/a\n0::/b",
            f"{V1}/a/cpu.cfs_quota_us": "400000",
            f"{V1}/a/cpu.cfs_period_us": "100000",
            f"{V2}/b/cpu.max": "200000 100000",
        },
        2.0,
    ),
}


@pytest.mark.parametrize("case", CGROUPS)
def test_cgroup_quota(case: str, tmp_path: Path) -> None:
    files, expected = CGROUPS[case]
    assert _runtime._cgroup_quota(tree(tmp_path, files)) == expected


@pytest.mark.parametrize("quota", [0.1, 1.0, 1.9, 2.0, 1e9, math.inf])
def test_cpus(quota: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded down, at least 1, at most the affinity mask."""
    monkeypatch.setattr(_runtime, "_cgroup_quota", lambda: math.inf)
    available = _runtime.cpus()
    monkeypatch.setattr(_runtime, "_cgroup_quota", lambda: quota)
    assert _runtime.cpus() == max(1, min(available, int(min(quota, 1e6))))


def cache(index: int, level: int, kind: str, size: str) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpu0/cache/index{index}"
    return {f"{folder}/level": str(level), f"{folder}/type": kind, f"{folder}/size": size}


def test_cache_bytes(tmp_path: Path) -> None:
    files = cache(0, 1, "Data", "32K") | cache(1, 1, "Instruction", "64K")
    assert _runtime.cache_bytes(tree(tmp_path, files)) == 32 << 10
    files = cache(2, 2, "Unified", "1024K") | cache(3, 3, "Unified", "32768K")
    assert _runtime.cache_bytes(tree(tmp_path, files)) == 32 << 20


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS is asked otherwise")
def test_cache_bytes_unknown(tmp_path: Path) -> None:
    assert _runtime.cache_bytes(str(tmp_path)) == 0
    (tmp_path / "sys/devices/system/cpu/cpu0/cache").mkdir(parents=True)
    assert _runtime.cache_bytes(str(tmp_path)) == 0


@pytest.mark.skipif(not LINUX or platform.machine() != "x86_64", reason="reads /proc/cpuinfo")
def test_levels_are_those_the_kernel_names() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    v3 = {"avx2", "fma"} <= flags
    v4 = v3 and {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"} <= flags
    assert _runtime.cpu_levels() == ("v4",) * v4 + ("v3",) * v3 + ("base",)


def following() -> None:
    """NumPy operations that raise nothing themselves."""
    single, double = np.ones(70, np.float32), np.ones(70)
    for operation in (np.add, np.multiply, np.divide, np.maximum):
        operation(single, single)
        operation(double, double)
    np.exp(double)
    np.sqrt(single)
    double.astype(np.float32)
    double.astype(np.int64)
    double.sum()
    double @ double
    np.float32(1) / np.float32(3)
    np.float64(1) * np.float64(3)
    np.less(double[::-1], double)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ops("forward", "backward", "from_output"), ids=str)
def test_no_warning_and_no_flag_left(op: Op, dtype: Any, level: str) -> None:
    x = np.tile(specials(dtype), 60)
    grad = np.random.default_rng(80).permutation(x)
    with np.errstate(all="raise"):
        for n in (*range(20), 64, x.size):
            op(x[:n], grad[:n])
            following()
        for view in (x[::-2], x.astype(x.dtype.newbyteorder()), x.reshape(4, -1).T):
            op(view, np.ones(view.shape, dtype))
            following()
        for value in x[:100]:
            op(value)
            np.float32(1) * np.float32(3)


class Environment(ctypes.Structure):
    """fenv_t of the C library on x86-64 Linux."""

    _fields_ = (("x87", ctypes.c_uint16 * 14), ("mxcsr", ctypes.c_uint32))


MXCSR_FLAGS = 0x3F
MODES = {
    "default": 0,
    "downward": 0x2000,
    "upward": 0x4000,
    "toward zero": 0x6000,
    "flush to zero": 0x8000,
    "denormals are zero": 0x0040,
}
needs_fenv = pytest.mark.skipif(not LINUX or platform.machine() != "x86_64", reason="writes glibc's fenv_t")


@contextmanager
def floating_point_mode(mode: str) -> Iterator[Callable[[], int]]:
    """The mode in this thread, and a function that reads the register."""
    libm = ctypes.CDLL("libm.so.6")
    before, now = Environment(), Environment()
    libm.fegetenv(ctypes.byref(before))
    now.x87[:], now.mxcsr = before.x87[:], before.mxcsr | MODES[mode]

    def read() -> int:
        libm.fegetenv(ctypes.byref(now))
        return int(now.mxcsr)

    try:
        libm.fesetenv(ctypes.byref(now))
        yield read
    finally:
        libm.fesetenv(ctypes.byref(before))


MODE_OPS = [
    *ops("forward", "backward", alphas=(0.3,)),
    *(Op("elu", 1.0, mode) for mode in ("forward", "backward", "from_output")),
    *(Op("celu", alpha, mode) for alpha in (-0.7, 1e-42) for mode in ("forward", "backward")),
    *(
        Op(name, alpha, mode)
        for name in ("elu", "celu")
        for alpha in (1e-310, 1e305)
        for mode in ("forward", "backward")
    ),
]


@needs_fenv
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_mode_of_the_caller(dtype: Any, mode: str, level: str) -> None:
    """Whatever mode another library has left: the same bits, from every thread and way to a kernel; no mode changed."""
    x = sample(dtype, 33_000, seed=81)
    x[1::7] = np.finfo(dtype).smallest_subnormal * np.arange(-2400, 2400)[: x[1::7].size]
    other = x.astype(x.dtype.newbyteorder())
    out = np.empty_like(x)
    for op in MODE_OPS:
        with bound(level):
            expected = op(x, num_threads=1)
        for given, num_threads, cache_bytes in (
            (x[:3000], 1, 1 << 40),
            (x, 1, 1 << 40),
            (x, 2, 1),
            (x[::-1], 2, 1 << 40),
            (other, 1, 1 << 40),
        ):
            target = out[: given.size]
            with bound(level, cache_bytes), floating_point_mode(mode) as read:
                before = read()
                op(given, given, out=target, num_threads=num_threads)
                after = read()
            assert bits(target[:: -1 if given.strides < (0,) else 1]) == bits(expected[: given.size]), op
            assert after & ~MXCSR_FLAGS == before & ~MXCSR_FLAGS, op


@needs_fenv
def test_mode_that_the_threads_inherit() -> None:
    """OpenMP's threads start with the mode of the call that starts them, and keep it."""
    code = """
import ctypes, sys
import numpy as np
from test_runtime import floating_point_mode
import elufast
x = -np.exp(np.linspace(-740, 3, 200_000))
expected = [elufast.elu(x, num_threads=1).tobytes(), elufast.elu_backward(x, x, num_threads=1).tobytes()]
def right():
    results = elufast.elu(x, num_threads=2), elufast.elu_backward(x, x, num_threads=2)
    return [r.tobytes() for r in results] == expected
with floating_point_mode(sys.argv[1]):
    first = right()
print(first, right())
"""
    for mode in MODES:
        assert run_python(code, mode).split() == ["True", "True"], mode


def test_after_torch_flushes_subnormals() -> None:
    torch = pytest.importorskip("torch")
    x = np.full(70_000, -np.finfo(np.float32).smallest_subnormal * 1000)
    expected = bits(elufast.selu(x)), bits(elufast.selu(x[:10]))
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU does not flush")
    try:
        assert (bits(elufast.selu(x, num_threads=2)), bits(elufast.selu(x[:10]))) == expected
    finally:
        torch.set_flush_denormal(False)


def test_import_changes_no_environment() -> None:
    """A library linked with -ffast-math would flush subnormals in the whole process."""
    code = """
import numpy as np
import elufast
tiny = np.finfo(np.float64).smallest_subnormal
elufast.elu(np.full(100_000, -1.0), num_threads=2)
print(tiny * 1.0 > 0, (np.full(10, tiny) * np.ones(10) > 0).all(), -elufast.elu(-tiny) == tiny)
"""
    assert run_python(code).split() == ["True"] * 3


@pytest.mark.skipif(ROUNDS < 200, reason="makes a control group: part of `make processes`")
@pytest.mark.parametrize(("share", "expected"), [(0.5, 1), (1.0, 1), (1.5, 1), (2.0, 2), (None, None)])
def test_quota_of_a_real_cgroup(share: float | None, expected: int | None) -> None:
    """In a group of its own, below the one of this process, of whichever version the system has."""
    group = Path("/none")
    for line in reversed(Path("/proc/self/cgroup").read_text().splitlines()):
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            group = Path("/", V1 if controllers else V2, path.strip("/"))
    group /= f"elufast-{os.getpid()}"
    code = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
import elufast
print(elufast.get_num_threads(), len(os.sched_getaffinity(0)))
"""
    try:
        group.mkdir()
        try:
            if share is not None:
                quota = str(int(share * 100_000))
                if (group / "cpu.max").exists():
                    (group / "cpu.max").write_text(f"{quota} 100000")
                else:
                    (group / "cpu.cfs_quota_us").write_text(quota)
            threads, available = map(int, run_python(code, str(group), OMP_NUM_THREADS="").split())
        finally:
            group.rmdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    assert threads == min(available, expected or available)
