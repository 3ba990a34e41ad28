"""A slice of the tests under valgrind's memcheck: invalid reads and writes, and decisions on values never set.

    python tools/memcheck.py [pytest arguments]

The compiled modules are those of a release, vector instructions and all, on the levels that valgrind knows (up to
AVX2). Python's objects come from malloc, so that each is watched. Python and NumPy have errors of their own here, so
only those count that elufast's code makes, by itself or in a function of the C library; exit status 1 if there is
one, or if a test fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Every kind of array and of error once; the rest would take hours.
SLICE = [
    "tests/test_arrays.py",
    "tests/test_errors.py",
    "-k",
    "test_wrong_call or test_layouts_of_out or test_in_place or numpy_converts or memory_map or both_inputs",
]


def culprit(error: ElementTree.Element) -> str:
    """The module of the innermost frame that is not the C library's or valgrind's own."""
    stack = error.find("stack")
    frames = [] if stack is None else [frame.findtext("obj") or "" for frame in stack.findall("frame")]
    return next((name for name in frames if "/libc." not in name and "vgpreload" not in name), "")


def main() -> None:
    arguments = sys.argv[1:] or SLICE
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "memcheck.xml")
        finished = subprocess.run(
            [
                *("valgrind", "--tool=memcheck", "--leak-check=no", "--xml=yes", f"--xml-file={report}"),
                *("--error-limit=no", "--num-callers=30", "--child-silent-after-fork=yes", "--max-stackframe=4000000"),
                *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments),
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONMALLOC": "malloc", "OMP_WAIT_POLICY": "passive"},
            check=False,
        )
        errors = ElementTree.parse(report).getroot().findall("error")
    ours = [error for error in errors if "elufast" in culprit(error)]
    for error in ours:
        print(error.findtext("what") or error.findtext("xwhat/text"))
        for frame in error.findall("stack/frame")[:8]:
            print("   ", frame.findtext("fn"), Path(frame.findtext("obj") or "").name)
    print(f"memcheck: {len(errors)} errors, {len(ours)} of elufast")
    sys.exit(bool(ours) or finished.returncode)


if __name__ == "__main__":
    main()
