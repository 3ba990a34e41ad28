"""What is installed: one version, complete metadata, types that a user's code is checked against."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest

import elufast

ROOT = Path(__file__).parent.parent

USER_CODE = """
from typing import Any, assert_type

import elufast
import numpy as np
from numpy.typing import NDArray

single, double = np.ones(3, np.float32), np.ones((2, 2))
map32 = np.memmap("x", np.float32)

assert_type(elufast.elu(single), NDArray[np.float32])
assert_type(elufast.elu(double, 0.5, num_threads=2), NDArray[np.float64])
assert_type(elufast.celu(double, np.float32(0.5)), NDArray[np.float64])
assert_type(elufast.selu(1.0), np.float64)
assert_type(elufast.selu(np.float64(1)), np.float64)
assert_type(elufast.selu(np.float32(1)), np.float32)
assert_type(elufast.celu([[1.0], [2.0]]), NDArray[Any])
assert_type(elufast.elu_backward(single, single, from_output=True), NDArray[np.float32])
assert_type(elufast.selu_backward(1.0, 2.0), np.float64)
assert_type(elufast.get_num_threads(), int)
assert_type(elufast.SELU_ALPHA, float)

out = np.empty(3, np.float32)
x: NDArray[np.float32] = elufast.elu_(elufast.elu(single, out=out))
m: np.memmap[tuple[int, ...], np.dtype[np.float32]] = elufast.selu_(map32)

elufast.elu(np.ones(3, np.int64), out=single, alpha="1")  # error: call-overload
elufast.elu_([1.0])  # error: type-var
elufast.selu(single, 1.0)  # error: call-overload
"""


def test_one_version() -> None:
    assert importlib.metadata.version("elufast") == elufast.__version__ == elufast.runtime_info()["version"]


def test_metadata() -> None:
    metadata = importlib.metadata.metadata("elufast")
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Author"] == "the elufast developers"
    required = [r for r in importlib.metadata.requires("elufast") or () if "extra ==" not in r]
    assert required == ["numpy>=2.0"]


def test_script() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="elufast")
    assert {script.value for script in scripts} == {"elufast.__main__:main"}


def test_installed_files() -> None:
    package = importlib.resources.files("elufast")
    for name in ("py.typed", "_elu.h", "_elu.pxd", "_entry.pyi"):
        assert package.joinpath(name).is_file(), name


def test_all_names_are_there() -> None:
    assert sorted(elufast.__all__) == elufast.__all__
    assert all(hasattr(elufast, name) for name in elufast.__all__)


def test_types_of_user_code(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    path = tmp_path / "user.py"
    path.write_text(USER_CODE)
    report, problems, _ = api.run(["--strict", "--config-file=", f"--cache-dir={tmp_path}", str(path)])
    wanted = [
        f"{number}: {line.split('# error: ')[1]}"
        for number, line in enumerate(USER_CODE.splitlines(), 1)
        if "# error: " in line
    ]
    got = [
        f"{line.split(':')[1]}: {line.rsplit('[', 1)[1].rstrip(']')}"
        for line in report.splitlines()
        if ": error: " in line
    ]
    assert got == wanted, report + problems


def test_vectorized() -> None:
    """Every loop of every level, by the compiler's own report."""
    pytest.importorskip("Cython")
    if not (ROOT / "tools" / "vectorized.py").is_file():
        pytest.skip("not in a checkout")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "vectorized.py"], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
