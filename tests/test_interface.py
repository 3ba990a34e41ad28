"""The public names: signatures, docstrings and their examples, pickling, runtime information."""

from __future__ import annotations

import copy
import doctest
import inspect
import pickle
import pydoc
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import run_python

import elufast
from elufast import _dispatch

SIGNATURES = {
    "elu": "(x, alpha=1.0, *, bias=None, out=None, num_threads=None)",
    "selu": "(x, *, bias=None, out=None, num_threads=None)",
    "celu": "(x, alpha=1.0, *, bias=None, out=None, num_threads=None)",
    "elu_": "(x, alpha=1.0, *, bias=None, num_threads=None)",
    "selu_": "(x, *, bias=None, num_threads=None)",
    "celu_": "(x, alpha=1.0, *, bias=None, num_threads=None)",
    "elu_backward": "(grad, x, alpha=1.0, *, from_output=False, bias=None, out=None, num_threads=None)",
    "selu_backward": "(grad, x, *, from_output=False, bias=None, out=None, num_threads=None)",
    "celu_backward": "(grad, x, alpha=1.0, *, from_output=False, bias=None, out=None, num_threads=None)",
    "get_include": "()",
    "set_num_threads": "(num_threads)",
    "get_num_threads": "()",
    "runtime_info": "()",
    "show_runtime": "()",
}
COMPUTE = list(SIGNATURES)[:9]
by_name = pytest.mark.parametrize("name", SIGNATURES)
by_compute = pytest.mark.parametrize("name", COMPUTE)


def test_public_names() -> None:
    assert set(elufast.__all__) == {*SIGNATURES, "SELU_ALPHA", "SELU_SCALE", "ufuncs"}
    star: dict[str, Any] = {}
    exec("from elufast import *", star)
    assert set(star) - {"__builtins__"} == set(elufast.__all__)


def test_tab_completion() -> None:
    shown = {name for name in dir(elufast) if not (name.startswith("__") and name.endswith("__"))}
    assert shown == set(elufast.__all__)
    assert all(hasattr(elufast, name) for name in dir(elufast))


def test_names_are_looked_up_the_fast_way() -> None:
    """CPython specializes the lookup in a module only where the module has no ``__getattr__``."""
    assert "__getattr__" not in vars(elufast)


@by_name
def test_help(name: str) -> None:
    """What `help` shows: the signature and, below it, the docstring."""
    function = getattr(elufast, name)
    shown = pydoc.plaintext.document(function)
    assert shown.startswith(f"{name}(")
    signature, _, rest = shown.partition(function.__doc__.splitlines()[0])
    assert rest
    assert all(parameter in signature for parameter in inspect.signature(function).parameters)
    assert f" {name} at " in repr(function)


@by_name
def test_signature(name: str) -> None:
    signature = inspect.signature(getattr(elufast, name))
    bare = signature.replace(
        parameters=[
            parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()
        ],
        return_annotation=inspect.Signature.empty,
    )
    assert str(bare) == SIGNATURES[name]


@by_name
def test_named_after_the_package(name: str) -> None:
    function = getattr(elufast, name)
    assert (function.__module__, function.__name__) == ("elufast", name)
    assert function.__qualname__ == name


@by_name
def test_pickled_by_its_public_name(name: str) -> None:
    """Never by a level's module, which another machine may not be able to load."""
    function = getattr(elufast, name)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(function, protocol)
        assert pickle.loads(pickled) is function
        assert b"elufast" in pickled
        assert name.encode() in pickled
        assert b"_functions" not in pickled
        assert b"_loops" not in pickled
    assert copy.copy(function) is copy.deepcopy(function) is function


def test_pickle_goes_from_level_to_level() -> None:
    pickled = pickle.dumps([getattr(elufast, name) for name in COMPUTE]).hex()
    code = (
        "import pickle, sys; f = pickle.loads(bytes.fromhex(sys.argv[1])); "
        "import elufast; print(f[0] is elufast.elu, elufast.runtime_info()['level'])"
    )
    for level in _dispatch.built_levels():
        assert run_python(code, pickled, ELUFAST_ISA=level).split() == ["True", level]


def run_examples(docstring: str, name: str) -> int:
    test = doctest.DocTestParser().get_doctest(docstring, {"elufast": elufast, "np": np}, name, None, 0)
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert not result.failed, "".join(report)
    return result.attempted


@by_name
def test_docstring_examples(name: str, threads: int) -> None:
    examples = run_examples(getattr(elufast, name).__doc__, name)
    assert examples or name == "show_runtime"


def test_docstring_examples_of_the_package() -> None:
    assert run_examples(elufast.__doc__ or "", "elufast")


@by_compute
def test_docstring_is_complete(name: str) -> None:
    function = getattr(elufast, name)
    text = inspect.cleandoc(function.__doc__)
    for section in ("Parameters", "Returns", "Raises", "Notes", "Examples"):
        assert f"\n{section}\n{'-' * len(section)}\n" in text
    for parameter in inspect.signature(function).parameters:
        assert f"\n{parameter} : " in text
    assert " ulp" in text


def test_runtime_info() -> None:
    info = elufast.runtime_info()
    assert list(info) == [
        "version",
        "numpy",
        "level",
        "levels",
        "architecture",
        "compiler",
        "openmp",
        "num_threads",
        "cpus",
        "cache_bytes",
    ]
    assert info["version"] == elufast.__version__
    assert info["numpy"] == np.__version__
    assert info["level"] in info["levels"]
    assert info["levels"][-1] == "base"
    assert info["compiler"]
    assert isinstance(info["openmp"], bool)
    assert info["num_threads"] == elufast.get_num_threads() >= 1
    assert info["cpus"] >= 1
    assert info["cache_bytes"] >= 0


def test_show_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    elufast.show_runtime()
    lines = capsys.readouterr().out.splitlines()
    info = elufast.runtime_info()
    assert [line.split()[0] for line in lines] == list(info)
    assert ", ".join(info["levels"]) in lines[3]


LEVEL = "import elufast; print(elufast.runtime_info()['level'])"


@pytest.mark.parametrize("level", _dispatch.built_levels())
def test_level_from_the_environment(level: str) -> None:
    assert run_python(LEVEL, ELUFAST_ISA=level).strip() == level


def test_best_level_is_the_default() -> None:
    assert run_python(LEVEL, ELUFAST_ISA="").strip() == _dispatch.built_levels()[0]


@pytest.mark.parametrize("asked", ["v9", "V3", "avx2", "base,v3", " "])
def test_unknown_level_is_refused(asked: str) -> None:
    levels = ", ".join(_dispatch.built_levels())
    with pytest.raises(ImportError, match=rf"(?s){asked!r}.*{levels}"):
        _dispatch.choose(asked)
    code = f"import os; os.environ['ELUFAST_ISA'] = {asked!r}; import elufast"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert f"ImportError: ELUFAST_ISA={asked!r}" in finished.stderr
    assert levels in finished.stderr


@pytest.mark.parametrize("level", _dispatch.built_levels()[:-1])
def test_a_level_that_was_not_built(level: str, tmp_path: Path) -> None:
    """A build without it, as other compilers make, takes the best of the others."""
    package = Path(elufast.__file__).parent
    absent = shutil.ignore_patterns(f"_loops_{level}.*", "__pycache__")
    shutil.copytree(package, tmp_path / "elufast", ignore=absent)
    libraries = package.with_name("elufast.libs")  # a wheel for Linux may bring libgomp
    if libraries.is_dir():
        shutil.copytree(libraries, tmp_path / libraries.name)
    code = """
import os
import elufast
info = elufast.runtime_info()
print(elufast.__file__, info["level"], *info["levels"])
try:
    elufast._dispatch.choose(os.environ["ABSENT"])
except ImportError as error:
    print(error)
"""
    output = run_python(code, PYTHONPATH=str(tmp_path), ELUFAST_ISA="", ABSENT=level)
    others = [other for other in _dispatch.built_levels() if other != level]
    first, second = output.splitlines()
    assert first.split() == [str(tmp_path / "elufast" / "__init__.py"), others[0], *others]
    assert f"{level!r}" in second
    assert ", ".join(others) in second


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a free-threaded Python")
def test_import_leaves_the_gil_off() -> None:
    assert run_python("import sys, elufast; print(sys._is_gil_enabled())", PYTHON_GIL="").split() == ["False"]
