"""What Python threads gain where there is no GIL: calls of small arrays in one and in several threads at once.

    python -X gil=0 tools/freethreaded.py [--size 1000] [--threads 2] [--rounds 15] [--check RATIO]

Each thread calls functions that all share, with arrays of its own. For each kind of call: calls a second in one thread,
in all threads together, and the ratio, the best of several rounds taken in turn; and the CPUs that the best round of
all threads had, which on a busy machine are fewer than the threads. NumPy's own np.exp beside them says what this
Python and machine have to give. With --check the status is 1 where a kind that writes into an array gains
less than RATIO.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import elufast

Call = Callable[[Any, Any, Any], Any]

CALLS: dict[str, Call] = {
    "np.exp, out": lambda x, grad, out: np.exp(x, out=out),
    "elu, out": lambda x, grad, out: elufast.elu(x, out=out),
    "elu, alpha, out": lambda x, grad, out: elufast.elu(x, 0.3, out=out),
    "selu, out": lambda x, grad, out: elufast.selu(x, out=out),
    "celu_backward, out": lambda x, grad, out: elufast.celu_backward(grad, x, 0.5, out=out),
    "np.exp": lambda x, grad, out: np.exp(x),
    "elu": lambda x, grad, out: elufast.elu(x),
    "elu_backward": lambda x, grad, out: elufast.elu_backward(grad, x),
}
SECONDS = 0.05


def rate(call: Call, size: int, threads: int) -> tuple[float, float]:
    """Calls a second of all threads together, and the CPUs they had."""
    gate, done = threading.Barrier(threads + 1), threading.Barrier(threads + 1)
    stop = False
    counts = [0] * threads

    def work(k: int) -> None:
        rng = np.random.default_rng(k)
        x, grad, out = (rng.standard_normal(size).astype(np.float32) for _ in range(3))
        count = 0
        gate.wait()
        while not stop:
            for _ in range(50):
                call(x, grad, out)
            count += 50
        counts[k] = count
        done.wait()

    workers = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
    for worker in workers:
        worker.start()
    gate.wait()
    start, used = time.perf_counter(), time.process_time()
    time.sleep(SECONDS)
    stop = True
    done.wait()
    elapsed, used = time.perf_counter() - start, time.process_time() - used
    for worker in workers:
        worker.join()
    return sum(counts) / elapsed, used / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--check", type=float, default=0.0)
    options = parser.parse_args()
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {sys.version.split()[0]}, GIL {'on' if enabled else 'off'}, {options.size} float32 elements a call")
    print(f"{'call':20}{'one thread, 1/s':>17}{f'{options.threads} threads, 1/s':>18}{'gain':>7}{'CPUs':>7}")
    failed = []
    for name, call in CALLS.items():
        one = several = 0.0, 0.0
        for _ in range(options.rounds):
            one = max(one, rate(call, options.size, 1))
            several = max(several, rate(call, options.size, options.threads))
        print(f"{name:20}{one[0]:>17.0f}{several[0]:>18.0f}{several[0] / one[0]:>7.2f}{several[1]:>7.2f}", flush=True)
        if name.startswith(("elu", "selu", "celu")) and "out" in name and several[0] / one[0] < options.check:
            failed.append(name)
    if failed:
        sys.exit(f"less than {options.check} times the calls of one thread: {', '.join(failed)}")


if __name__ == "__main__":
    main()
