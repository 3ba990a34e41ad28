"""Instructions per element of every kernel, counted by valgrind's callgrind: the same count on every run, however busy
the machine.

--calls prints what a call takes beside its elements, Python's way into it included.
--check compares with asv_bench/instructions.json and fails where a count rose by more than 2 %; --record writes that
file. Counts belong to one compiler: those recorded with another are not compared. Levels base and v3: valgrind does not
know AVX-512.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

RECORD = Path(__file__).parent.parent / "asv_bench" / "instructions.json"
LEVELS = ("v3", "base")
ALLOWED = 1.02
SIZE = 2048  # and twice that: the difference is the loop's alone; below what _core gives to threads
CALLS = {
    "forward_unit": "elu(x, out=out)",
    "forward_alpha": "elu(x, 0.3, out=out)",
    "forward_selu": "selu(x, out=out)",
    "forward_celu": "celu(x, 0.7, out=out)",
    "forward_any": "celu(x, -0.7, out=out)",
    "backward_unit": "elu_backward(grad, x, out=out)",
    "backward_alpha": "elu_backward(grad, x, 0.3, out=out)",
    "backward_selu": "selu_backward(grad, x, out=out)",
    "backward_celu": "celu_backward(grad, x, 0.7, out=out)",
    "backward_any": "celu_backward(grad, x, -0.7, out=out)",
    # an element far out sends its block to the kernel's other loop
    "backward_unit, far": "elu_backward(grad, far, out=out)",
    "backward_alpha, far": "elu_backward(grad, far, 0.3, out=out)",
    "backward_selu, far": "selu_backward(grad, far, out=out)",
    "backward_celu, far": "celu_backward(grad, far, 0.7, out=out)",
    "from_output": "elu_backward(grad, x, from_output=True, out=out)",
    # x in rows: as in a dense layer
    "forward_unit, bias": "elu(rows, bias=bias, out=out_rows)",
    "backward_selu, bias": "selu_backward(grad_rows, rows, bias=bias, out=out_rows)",
}
NOTHING = {"nothing": "None"}  # what Python takes for it
# In half precision: conversions, and the blocks that hold a result near the middle of two halves a second time.
HALVES = [kernel for kernel in CALLS if "far" not in kernel]
HALF_DTYPES = ["float16", *(["bfloat16"] if find_spec("ml_dtypes") else [])]
DTYPES = ["float32", "float64"]
CASES = [(kernel, dtype) for kernel in CALLS for dtype in DTYPES]
CASES += [(kernel, dtype) for kernel in HALVES for dtype in HALF_DTYPES]
# What every commit of the history has: tools/history.py and asv_bench count these.
HISTORY = [f"{way}_{family}" for way in ("forward", "backward") for family in ("unit", "alpha", "selu", "celu")]
# A profile is written whenever getppid() is called: of elufast only the public functions are named, which every commit
# has. A case's two calls differ in size alone, so what Python spends on them cancels; what is loaded lazily is by then.
VALGRIND = ["valgrind", "--tool=callgrind", "--dump-before=getppid"]
DRIVER = f"""
import gc, os, sys
gc.disable()  # it would count
import numpy as np
os.getppid()
import elufast
os.getppid()
def arrays(n, dtype):
    x = np.resize(np.linspace(-8, 8, {SIZE}), n).astype(dtype)
    grad, out = np.ones(n, dtype), np.zeros(n, dtype)
    far = np.where(np.arange(n) % 128, x, np.array(-1e4, dtype)).astype(dtype)
    rows, grad_rows, out_rows = (a.reshape(-1, 256) for a in (x, grad, out))
    bias = np.linspace(-1, 1, 256).astype(dtype)
    return vars(elufast) | locals()
for case in sys.argv[1:]:
    kernel, dtype = case.rsplit(" ", 1)
    if dtype == "bfloat16":
        import ml_dtypes
    call = compile({CALLS | NOTHING}[kernel], case, "eval")
    once, twice = arrays({SIZE}, dtype), arrays({2 * SIZE}, dtype)
    for _ in range(20):
        eval(call, once)
    os.getppid()
    eval(call, once)
    os.getppid()
    eval(call, twice)
    os.getppid()
"""
IMPORT = "import elufast"


def totals_of(level: str, cases: list[tuple[str, str]]) -> list[int]:
    """Instructions of NumPy's import, of elufast's, then of each case: before its calls, of the one, of the other."""
    names = [" ".join(case) for case in cases]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [*VALGRIND, f"--callgrind-out-file={folder}/profile", sys.executable, "-c", DRIVER, *names],
            env={**os.environ, "ELUFAST_ISA": level, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        profiles = sorted(Path(folder).glob("profile.*"), key=lambda path: int(path.suffix[1:]))
        totals = [int(re.findall(r"^summary: (\d+)", profile.read_text(), re.M)[-1]) for profile in profiles]
    assert len(totals) == 2 + 3 * len(cases), f"{len(totals)} profiles: valgrind did not see getppid()"
    return totals


def count(level: str, cases: list[tuple[str, str]]) -> dict[str, float]:
    """Instructions per element by "kernel dtype"; under IMPORT, millions of them for that beyond NumPy's."""
    totals = totals_of(level, cases)
    counts = {
        " ".join(case): round((twice - once) / SIZE, 3)
        for case, once, twice in zip(cases, totals[3::3], totals[4::3], strict=True)
    }
    return counts | {IMPORT: round(totals[1] / 1e6, 2)}


def around() -> None:
    """What a call takes beside its elements and what Python takes for an expression."""
    level, cases = levels()[0], [("nothing", "float32"), *CASES[: 2 * len(CALLS)]]
    totals = totals_of(level, cases)
    fixed = [2 * once - twice for once, twice in zip(totals[3::3], totals[4::3], strict=True)]
    print(f"instructions of a call beside those of its elements, level {level}")
    for case, rest in zip(cases[1:], fixed[1:], strict=True):
        print(f"{' '.join(case):<28}{rest - fixed[0]:>8}")


def levels() -> list[str]:
    """The levels that can be counted here; none without valgrind."""
    from elufast import runtime_info

    return [level for level in LEVELS if level in runtime_info()["levels"] and shutil.which("valgrind")]


def main() -> int:
    from elufast import runtime_info

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the counts down")
    parser.add_argument("--check", action="store_true", help="fail where one rose by more than 2 %%")
    parser.add_argument("--calls", action="store_true", help="print what a call takes beside its elements")
    options = parser.parse_args()
    if options.calls and levels():
        around()
        return 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        now = dict(zip(levels(), pool.map(lambda level: count(level, CASES), levels()), strict=True))
    for row in now.values():
        del row[IMPORT]  # it belongs to Python's version too
    if not now:
        print("valgrind is missing: install it to count instructions")
        return 1
    compiler = "{compiler}, {architecture}".format(**runtime_info())
    print(f"instructions per element ({compiler})")
    print(f"{'':<28}" + "".join(f"{level:>8}" for level in now))
    for case in next(iter(now.values())):
        print(f"{case:<28}" + "".join(f"{now[level][case]:>8.2f}" for level in now))
    if options.record:
        RECORD.write_text(json.dumps({"compiler": compiler, "counts": now}, indent=2) + "\n")
        print(f"recorded in {RECORD.relative_to(RECORD.parent.parent)}")
    elif options.check:
        recorded = json.loads(RECORD.read_text())
        if recorded["compiler"] != compiler:
            print(f"not compared: the recorded counts are of {recorded['compiler']}")
            return 0
        risen = [
            f"{case} {level}: {before:.2f} -> {now[level][case]:.2f}"
            for level, row in recorded["counts"].items()
            for case, before in row.items()
            if now[level].get(case, 0) > ALLOWED * before
        ]
        if risen:
            print("more instructions per element than recorded:", *risen, sep="\n  ")
            print("if that is on purpose, record the new counts with `make instructions-record` and commit them")
        return bool(risen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
