"""Show, by the compiler's own report, that every loop over elements is vectorized at every level; exit 1 naming those
that are not.

The kernels are compiled with the flags of setup.py, less OpenMP's, which they have no use for, by $CC or the compiler
that Python was built with (GCC or clang). The table says how many bytes a vector has.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from setup import LEVELS, LOOP_FLAGS, UNIX_FLAGS, cythonized, extension, levels  # noqa: E402

SKIPPED = 77
SOURCE, HALF = "src/elufast/_loops.pyx", "src/elufast/_half.h"
# A kernel or a specialization in C: its name, the type of its first argument, the tag that its last one points to.
FUNCTION = re.compile(
    r"^static \w+ (?:__pyx_fuse_\d(?:_\d)?)?__pyx_f_\w*?_loops_base_(\w+)\((\w+) const \*"
    r".*?(?:_elu_(\w+) const \*__pyx_v_kind)?\) \{$"
)
# What makes the compiler report; what it says of a loop it vectorized, and of one it did not. GCC gives the vector's
# bytes, clang its elements. GCC would compile functions that are alike, as some are at the base level, only once.
REPORTS = {
    "gcc": (
        ["-fopt-info-vec-optimized-missed", "-fno-ipa-icf"],
        r"loop vectorized using (\d+) byte vectors|(couldn't vectorize loop)",
    ),
    "clang": (
        [f"-Rpass{kind}=loop-vectorize" for kind in ("", "-missed", "-analysis")],
        r"vectorized loop \(vectorization width: (\d+)|(loop not vectorized|vectorization is not beneficial)",
    ),
}
# GONE: nothing is said of a loop that the compiler found to have no effect. BY_HAND: F16C's instructions convert eight.
LOST, GONE, BY_HAND = 0, -1, -2
NAMES = {LOST: "LOST", GONE: "gone", BY_HAND: "F16C"}


def compiler() -> tuple[list[str], str, str]:
    """The command, its kind, and what it says of itself."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(command[0]) is None:
        print(f"skipped: there is no compiler {command[0]!r}; set CC")
        sys.exit(SKIPPED)
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    version = done.stdout.partition("\n")[0]
    if "clang" in version:
        return command, "clang", version
    if "Free Software Foundation" in done.stdout:
        return command, "gcc", version
    print(f"skipped: {command[0]!r} is neither GCC nor clang: {version}")
    sys.exit(SKIPPED)


class Loop(NamedTuple):
    """A loop of a kernel, by the line of its source."""

    kernel: str
    line: int
    itemsize: int

    def __str__(self) -> str:
        return f"{self.kernel}, line {self.line}"


Place = tuple[str, int]  # of a loop in what is compiled: file and line


def generated() -> tuple[Path, list[str], dict[Place, Loop]]:
    """The C file of the loops, less its references to the .pyx; the include folders; the loops by their places."""
    module = cythonized([extension("_loops_base", "_loops.pyx", [])], "cython-vectorized")[0]
    source = Path(module.sources[0])
    plain = source.with_name("vectorized.c")
    # The kernels that the table at the end of the .pyx names, each with its types; those of outputs have no such loops.
    table = r"<(?:Kernel|elu_\w+_t)> (?!elu_outputs)(?:elu_)?(\w+)(?:\[([\w, ]+)\])?"
    wanted = {
        " ".join((kernel, *types.replace("elu_", "").split(", "))).strip()
        for kernel, types in re.findall(table, Path(SOURCE).read_text())
    }
    lines, loops = [], {}
    kernel, itemsize, origin = "", 0, 0
    for number, line in enumerate(source.read_text().splitlines(), 1):
        if match := re.match(r"#line (\d+)", line):
            origin, line = int(match[1]), ""
        elif match := FUNCTION.match(line):
            name, dtype, tag = match.groups()
            kernel = " ".join(filter(None, (name, "" if name.endswith("f16") else dtype, tag)))
            itemsize = 8 if dtype == "double" else 4
        elif line == "}":
            kernel = ""
        elif line.lstrip().startswith("for (") and kernel in wanted:
            loops[plain.name, number] = Loop(kernel, origin, itemsize)
        lines.append(line + "\n")
    for number, line in enumerate(Path(HALF).read_text().splitlines(), 1):
        if match := re.match(r"static inline void elu_(load|store)_f16\(", line):
            kernel = f"{match[1]}_f16"
        elif line.lstrip().startswith("for (; i < n; i++)"):
            loops[Path(HALF).name, number] = Loop(kernel, number, 4)
    assert {loop.kernel for loop in loops.values()} == wanted != set(), "kernels of the form looked for"
    plain.write_text("".join(lines))
    return plain, [*module.include_dirs, sysconfig.get_path("include")], loops


def widths(report: str, pattern: str, loops: dict[Place, Loop], in_bytes: bool) -> dict[Loop, int]:
    """Bytes of the widest vector of each loop, or LOST or GONE."""
    found = dict.fromkeys(loops.values(), GONE)
    for file, line, width, _ in re.findall(rf"(vectorized\.c|_half\.h):(\d+):.*(?:{pattern})", report):
        if loop := loops.get((file, int(line))):
            found[loop] = max(found[loop], int(width) * (1 if in_bytes else loop.itemsize) if width else LOST)
    assert max(found.values()) > 0, f"not the report expected: {report[:1000]}"
    return found


def main() -> int:
    os.chdir(ROOT)
    command, kind, version = compiler()
    flags, pattern = REPORTS[kind]
    source, include, loops = generated()
    found = {}

    def compiled(level: str) -> subprocess.CompletedProcess[str]:
        options = [*UNIX_FLAGS, "-fPIC", *LOOP_FLAGS, *LEVELS[level], *flags, *(f"-I{folder}" for folder in include)]
        call = [*command, *options, "-c", str(source), "-o", os.devnull]
        return subprocess.run(call, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = list(pool.map(compiled, levels()))
    for level, done in zip(levels(), reports, strict=True):
        if done.returncode:
            print(done.stderr)
            return 1
        found[level] = widths(done.stderr, pattern, loops, kind == "gcc")
        if "-mf16c" in LEVELS[level]:  # the few elements left over
            found[level] |= {loop: BY_HAND for (file, _), loop in loops.items() if file == "_half.h"}
    print(version)
    print(f"{'bytes a vector':<36}" + "".join(f"{level:>8}" for level in found))
    lost = []
    for loop in sorted(loops.values(), key=lambda loop: (loop.line, loop.itemsize)):
        row = [found[level][loop] for level in found]
        print(f"{loop!s:<36}" + "".join(f"{NAMES.get(width, width):>8}" for width in row))
        lost += [f"{loop}, {level}" for level, width in zip(found, row, strict=True) if width == LOST]
    if lost:
        print("not vectorized:", *lost, sep="\n  ")
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
