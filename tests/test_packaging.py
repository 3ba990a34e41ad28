"""What is installed: one version, complete metadata, types that a user's code is checked against."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import elufast

ROOT = Path(__file__).parent.parent

USER = Path(__file__).parent / "typing" / "user.py"


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
    for name in (
        *("py.typed", "_functions.pyi", "elufast.h", "_elu.h", "_half.h", "_torch.cpp"),
        *("_elu.pxd", "_core.pxd", "_capi.pxd", "__init__.pxd"),
    ):
        assert package.joinpath(name).is_file(), name


def test_all_names_are_there() -> None:
    assert sorted(elufast.__all__) == elufast.__all__
    assert all(hasattr(elufast, name) for name in elufast.__all__)


def wrong_lines() -> list[int]:
    return [n for n, line in enumerate(USER.read_text().splitlines(), 1) if line.endswith("# error")]


def test_mypy_on_user_code(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    report, problems, _ = api.run(["--strict", "--config-file=", f"--cache-dir={tmp_path}", str(USER)])
    found = {int(line.split(":")[1]) for line in report.splitlines() if ": error: " in line}
    assert sorted(found) == wrong_lines(), report + problems


def test_pyright_on_user_code(tmp_path: Path) -> None:
    pytest.importorskip("basedpyright")
    # From a copy: pyright looks upwards for a configuration.
    path = Path(shutil.copy(USER, tmp_path))
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    found = {
        problem["range"]["start"]["line"] + 1
        for problem in json.loads(done.stdout)["generalDiagnostics"]
        if problem["severity"] == "error"
    }
    assert sorted(found) == wrong_lines(), done.stdout


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
