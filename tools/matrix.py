"""Builds and tests elufast with every compiler, Python and NumPy of this machine that it supports, and prints a table.

    python tools/matrix.py [--cells REGEX] [--list]

Each cell is a copy of the sources, a wheel and a virtual environment of its own. A cell passes if its tests pass, its
bits at the level v3 are those of the first cell, and, on a free-threaded Python, its import leaves the GIL off.
Interpreters are looked for on PATH and among those of pyenv and uv; what is missing is listed as such.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = (
    "tests/test_interface.py",
    "tests/test_threads.py",
    *(f"tests/test_values.py::test_{name}" for name in ("special_values_forward", "backward_with_any_grad")),
)
COMPILER = re.compile(r"(gcc|clang)-\d+").fullmatch
PYTHONS = ("3.11", "3.12", "3.13", "3.13t", "3.14", "3.14t", "3.15", "3.15t")
OLDEST = "2.0.*"
HERE = f"3.{sys.version_info.minor}"


@dataclass(frozen=True)
class Cell:
    python: str = HERE
    compiler: str = "cc"
    openmp: bool = True
    build_numpy: str = ""
    numpy: str = ""

    def __str__(self) -> str:
        built = f", built with {self.build_numpy}" if self.build_numpy else ""
        openmp = "" if self.openmp else ", no OpenMP"
        return f"Python {self.python}, {self.compiler}{openmp}, NumPy {self.numpy or 'newest'}{built}"


def compilers() -> list[str]:
    found = {path.name for folder in os.get_exec_path() for path in Path(folder).glob("*-*") if COMPILER(path.name)}
    return sorted(found, key=lambda name: (name.startswith("clang"), int(name.split("-")[1]))) or ["cc"]


CELLS = [
    *(Cell(compiler=compiler, openmp=openmp) for compiler in compilers() for openmp in (True, False)),
    *(Cell(python=python) for python in PYTHONS if python != HERE),
    Cell(numpy=OLDEST),
    Cell(build_numpy=OLDEST),
    Cell(numpy=OLDEST, build_numpy=OLDEST),
]


@functools.cache
def interpreter(version: str) -> str | None:
    if version == HERE:
        return sys.executable
    name = f"python{version}"
    homes = [os.environ.get("PYENV_ROOT", Path.home() / ".pyenv") / Path("versions")]
    homes.append(Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local/share/uv/python")))
    found = [shutil.which(name), *(str(path) for home in homes for path in sorted(home.glob(f"*/bin/{name}")))]
    for path in filter(None, found):
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:  # not an idle shim
            return path
    return None


def missing(cell: Cell) -> str:
    program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }"
    probe = [cell.compiler, "-fopenmp", "-x", "c", "-", "-o", os.devnull]
    if cell.openmp and subprocess.run(probe, input=program, text=True, capture_output=True, check=False).returncode:
        return f"{cell.compiler} has no OpenMP on this machine"
    return "" if interpreter(cell.python) else f"no Python {cell.python} on this machine"


def run(command: list[str], log: Path, **options: object) -> str:
    """Its last line; everything goes to the log."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)  # type: ignore[call-overload]
    with log.open("a") as file:
        file.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode:
        raise RuntimeError(f"status {done.returncode} from {Path(command[0]).name} {' '.join(command[1:4])}: see {log}")
    return str(done.stdout)


def refuses_openmp(compiler: str, folder: Path) -> str:
    """The compiler as one that does not know -fopenmp, like Apple's: setup.py's probe has to notice."""
    path = folder / compiler
    path.write_text(
        f"""#!/bin/sh
for flag; do [ "$flag" != -fopenmp ] || {{ echo "unsupported option $flag" >&2; exit 1; }}; done
exec {shutil.which(compiler)} "$@"
"""
    )
    path.chmod(0o755)
    return str(path)


def facts(python: Path, log: Path, folder: Path) -> dict[str, object]:
    code = "import elufast; print(elufast.runtime_info())"
    return dict(ast.literal_eval(run([str(python), "-c", code], log, cwd=folder).splitlines()[-1]))


def check(cell: Cell, folder: Path, log: Path, digests: Path) -> str:
    source, wheels = folder / "source", folder / "wheels"
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for name in ("PYTHONPATH", "ELUFAST_ISA"):
        environment.pop(name, None)
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    environment["CC"] = cell.compiler if cell.openmp else refuses_openmp(cell.compiler, folder)

    python = folder / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip"]
    run([str(interpreter(cell.python)), "-m", "venv", "--upgrade-deps", str(folder / "venv")], log)

    def install(*requirements: str) -> None:
        run([*pip, "install", "-q", "-U", *requirements], log, env=environment, cwd=source)

    def numpy(version: str) -> str:
        return f"numpy=={version}" if version else "numpy"

    install("setuptools>=77", "Cython>=3.1", numpy(cell.build_numpy))
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    run([*pip, "wheel", *options, "."], log, env=environment, cwd=source)
    free_threaded = cell.python.endswith("t")
    extra = ["pytest-run-parallel"] if free_threaded else []
    install(str(next(wheels.glob("*.whl"))), numpy(cell.numpy), "--group", "test-core", *extra)
    del environment["CC"]

    found = facts(python, log, folder)
    if bool(found["openmp"]) != cell.openmp:
        raise RuntimeError(f"OpenMP is {found['openmp']}: see {log}")
    if "v3" in found["levels"]:  # type: ignore[operator]
        bits = [str(python), "tools/bits.py", "--inputs", "100000"]
        if digests.exists():
            run([*bits, "--against", str(digests)], log, cwd=source, env=environment | {"ELUFAST_ISA": "v3"})
        else:
            text = run(bits, log, cwd=source, env=environment | {"ELUFAST_ISA": "v3"})
            digests.write_text("".join(f"{line}\n" for line in text.splitlines() if " float" in line))
    parallel = ["--parallel-threads=4"] if free_threaded else []
    shutil.rmtree(source / "src")
    tests = run([str(python), "-m", "pytest", "-x", "-q", *parallel, *TESTS], log, cwd=source, env=environment)
    return f"{found['compiler']}, NumPy {found['numpy']}: {tests.splitlines()[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cells", default="", help="regular expression: the cells to run")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    cells = [cell for cell in CELLS if re.search(options.cells, str(cell))]
    logs = ROOT / "build" / "matrix"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    failed = 0
    for number, cell in enumerate(cells):
        start = time.monotonic()
        log = logs / f"{number}.log"
        if why := missing(cell):
            result = f"-       {why}"
        elif options.list:
            result = "would run"
        else:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    result = f"passed  {check(cell, Path(folder), log, logs / 'bits-v3.txt')}"
                except RuntimeError as error:
                    failed += 1
                    result = f"FAILED  {error}"
        print(f"{cell!s:60} {time.monotonic() - start:4.0f} s  {result}", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
