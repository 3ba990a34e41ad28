"""Arrays of more than 2^31 elements and of more memory than there is, and the memory that calls on them take.

    python tools/sizes.py [--folder FOLDER]

FOLDER (by default the system's for temporary files) needs 12 GiB. Peak memory is what the process holds beside its
files (RssAnon, read every few milliseconds): pages of a file are the kernel's cache, which it takes back when needed.
Results are compared with those of short runs, around every 2^29 elements, at both ends and at 1000 places at random.
The last case limits memory to 256 MiB by a control group (version 2 or 1, where this user may make one), else by
RLIMIT_DATA, and works in place on a file of 1 GiB. Linux.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import elufast

Array = NDArray[Any]
MIB, GIB = 1 << 20, 1 << 30
PERIOD = 1_000_003  # elements, prime: no two powers of two fall on one value
ALLOWED = 4 * MIB  # of memory beyond what the process has before
LIMIT = 256 * MIB


def status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(field + ":")[2].split()[0]) << 10


class Peak:
    """The largest RssAnon while it is open, beyond that at the start."""

    def __enter__(self) -> Peak:
        self.start = self.most = status("RssAnon")
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            self.most = max(self.most, status("RssAnon"))

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    @property
    def grown(self) -> int:
        return max(self.most, status("RssAnon")) - self.start


def values(dtype: Any) -> Array:
    return np.random.default_rng(0).standard_normal(PERIOD).astype(dtype) * 3


def places(n: int) -> Array:
    """Where results are compared."""
    rng = np.random.default_rng(1)
    near = [k for centre in range(0, n + (1 << 29), 1 << 29) for k in range(centre - 20, centre + 20)]
    some = np.array([*near, *range(n - 40, n), *rng.integers(0, n, 1000)])
    return np.unique(some[(some >= 0) & (some < n)])


def mapped(path: Path, dtype: Any, n: int) -> Array:
    """A file without a block of its own on the disk."""
    return np.memmap(path, dtype, "w+", shape=(n,))


def fill(array: Array) -> None:
    base = values(array.dtype)
    for start in range(0, array.size, PERIOD):
        array[start : start + PERIOD] = base[: array.size - start]


def report(name: str, n: int, dtype: Any, seconds: float, grown: int, wrong: int) -> bool:
    size = n * np.dtype(dtype).itemsize
    print(
        f"{name:42}{n:14} {np.dtype(dtype).name:8}{size / GIB:6.2f} GiB{seconds:7.1f} s"
        f"{grown / MIB:8.2f} MiB more{'' if not wrong else f', {wrong} WRONG'}",
        flush=True,
    )
    return wrong == 0 and grown <= ALLOWED


def check(name: str, x: Array, out: Array, where: Array, before: Array, **options: Any) -> bool:
    """Call elu or its derivative on arrays of the same elements as `before` has at `where`."""
    start = time.monotonic()
    backward = options.pop("backward", False)
    with Peak() as peak:
        if backward:
            elufast.elu_backward(x, x, out=out, **options)
        else:
            elufast.elu(x, out=out, **options)
    seconds = time.monotonic() - start
    expected = elufast.elu_backward(before, before) if backward else elufast.elu(before)
    wrong = int((np.asarray(out)[where] != expected).sum())
    return report(name, x.size, x.dtype, seconds, peak.grown, wrong)


def large(folder: Path) -> list[bool]:
    results = []
    n = (1 << 31) + 12_345
    one = values(np.float32)[:1]
    where = places(n)
    out = mapped(folder / "out", np.float32, n)
    x = np.broadcast_to(one, (n,))
    before = np.broadcast_to(one, where.shape)
    elufast.elu(np.zeros(100_000), num_threads=2)  # the threads are there
    results.append(check("zero-stride x, out on a file", x, out, where, before))
    fill(out)
    before = np.array(out[where])
    results.append(check("in place on a file", out, out, where, before))
    before = np.array(out[::-1][where])
    results.append(check("reversed, in place on a file", out[::-1], out[::-1], where, before))
    before = np.array(out[where])
    results.append(check("derivative, in place on a file", out, out, where, before, backward=True))
    del out
    (folder / "out").unlink()
    for dtype in (np.float32, np.float64):
        n = 4 * GIB // np.dtype(dtype).itemsize + 1
        data = mapped(folder / "data", dtype, n)
        fill(data)
        where = places(n)
        results.append(check("one element past 4 GiB, in place", data, data, where, np.array(data[where])))
        del data
        (folder / "data").unlink()
    return results


def control_group() -> tuple[Path | None, str]:
    """A new group whose memory is limited, or None and what is used instead."""
    for root, limit in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        group = Path(root, f"elufast-{os.getpid()}")
        try:
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(LIMIT))
                return group, f"{group.parent}, {limit}"
            group.rmdir()
        except OSError:
            if group.is_dir():
                group.rmdir()
    return None, "RLIMIT_DATA"


def limited(path: Path, group: str) -> None:
    """Runs in a process of its own: more data than memory, in place."""
    if group:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    n = GIB // 4
    data = mapped(path, np.float32, n)
    fill(data)
    where = places(n)
    good = check("in place, with less memory than data", data, data, where, np.array(data[where]), num_threads=1)
    held = False
    if group:
        elufast.elu(np.ones(LIMIT // 12, np.float32))
        print(f"results leave room for {np.ones(LIMIT // 10).nbytes / LIMIT:.0%} of the limit")
        # What memory the process holds itself does count: the limit is real.
        pid = os.fork()
        if not pid:
            np.ones(2 * LIMIT // 8)
            os._exit(0)
        held = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    else:
        try:
            np.ones(2 * LIMIT // 8)
            held = True
        except MemoryError:
            pass
    print(f"twice the limit without a file: {'allowed, so the limit does not hold' if held else 'refused'}")
    sys.exit(not good or held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--limited", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.limited:
        limited(Path(options.limited[0]), options.limited[1])
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        results = large(folder)
        group, means = control_group()
        print(f"memory limited to {LIMIT // MIB} MiB by {means}")
        command = [sys.executable, __file__, "--limited", str(folder / "data"), str(group or "")]
        try:
            results.append(subprocess.run(command, check=False).returncode == 0)
        finally:
            if group:
                group.rmdir()
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
