"""Compiled callers: the examples in C and Cython, built and run, and functions that Numba compiles; each gives the bits
of the arrays."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import DTYPES, Array, Op, bits, bound, ops, run_python, sample, specials

import elufast
from elufast import _dispatch

EXAMPLES = Path(__file__).parent.parent / "examples"
HOWTO = EXAMPLES.parent / "docs" / "howto" / "compiled_callers.md"
X86 = platform.machine().lower() in ("x86_64", "amd64")
LEVELS = _dispatch.built_levels()
# What a caller compiles with, and the level whose bits that gives.
FLAGS = {"base": [], "v3": ["-mavx2", "-mfma"]}

pytestmark = [
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="not in a checkout"),
    pytest.mark.skipif(os.name == "nt", reason="the flags are those of GCC and clang"),
]


def compiler(variable: str = "CC") -> list[str]:
    command = shlex.split(os.environ.get(variable) or sysconfig.get_config_var(variable) or "cc")
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no compiler {command[0]!r}")
    return [command[0]]


def howto(language: str) -> str:
    """The last block in that language on the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", HOWTO.read_text(), re.M | re.S)[-1]


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def same(got: Array, wanted: Array) -> bool:
    """The same bits; of NaN only that it is one."""
    nan = np.isnan(wanted)
    return bool((np.isnan(got) == nan).all()) and bits(got[~nan]) == bits(wanted[~nan])


# ---------------------------------------------------------------------------------------------------------------- C


@pytest.fixture(scope="module", params=[level for level in FLAGS if level in LEVELS])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The program of the example, compiled as its head says, and its level."""
    program = tmp_path_factory.mktemp("c") / "table"
    source = EXAMPLES / "c_caller" / "table.c"
    flags = ["-std=c11", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-pedantic", "-Werror", *FLAGS[request.param]]
    done = run(*compiler(), *flags, f"-I{elufast.get_include()}", source, "-o", program, "-lm")
    assert done.returncode == 0, done.stderr
    return request.param, program


@pytest.mark.parametrize("alpha", [1.0, 0.3, -0.7, 1e-13])
def test_c(table: tuple[str, Path], alpha: float) -> None:
    level, program = table
    x = np.concatenate([specials(np.float32).astype(np.float64), specials(np.float64), sample(np.float64, 1000)])
    done = run(program, repr(alpha), input="\n".join(map(float.hex, x)))
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert len(rows) == 2 * x.size
    for first, dtype in enumerate((np.float64, np.float32)):
        with np.errstate(over="ignore"):
            read = x.astype(dtype)
        got = np.array([[float.fromhex(field) for field in row[1:]] for row in rows[first::2]], dtype).T
        for k, family in enumerate(("elu", "selu", "celu")):
            with bound(level):
                assert same(got[2 * k], Op(family, alpha, "forward")(read)), (family, dtype)
                assert same(got[2 * k + 1], Op(family, alpha, "backward")(read, np.ones_like(read))), (family, dtype)


@pytest.mark.parametrize(("alpha", "columns"), [("nan", [0, 1, 4, 5]), ("-inf", [0, 1, 4, 5]), ("0", [4, 5])])
def test_c_alpha_that_does_not_fit(table: tuple[str, Path], alpha: str, columns: list[int]) -> None:
    for line in run(table[1], alpha, input="-1 2").stdout.splitlines()[1:]:
        fields = np.array([float.fromhex(field) for field in line.split()[1:]])
        assert np.flatnonzero(np.isnan(fields)).tolist() == columns


@pytest.mark.parametrize("flag", ["-ffast-math", "-ffinite-math-only", "-Ofast"])
def test_c_refuses_fast_math(flag: str) -> None:
    header = Path(elufast.get_include(), "elufast.h")
    done = run(*compiler(), flag, "-fsyntax-only", "-x", "c", header)
    assert done.returncode
    assert "-ffast-math" in done.stderr


def compilers() -> list[str]:
    return [name for name in ("gcc", "clang") if shutil.which(name)] or ["cc"]


HALVES = """
#include <stdio.h>
#include <stdlib.h>
#include <elufast.h>

static uint16_t result[2][18][65536];

int main(int argc, char **argv) {
    double alpha = argc > 1 ? atof(argv[1]) : 1;
    for (int i = 0; i < 65536; i++) {
        uint16_t x = (uint16_t)i, g;
"""


def halves_program() -> tuple[str, list[Op]]:
    """Writes each function of each half, at all numbers; grad is another number for each x."""
    columns = ops(alphas=(0.0,))  # alpha is given to the program
    lines = [HALVES]
    for t, half in enumerate(("f16", "bf16")):
        lines.append("        g = (uint16_t)((uint32_t)i * 40503 + 17);")
        for k, op in enumerate(columns):
            mode = "" if op.mode == "forward" else f"_{op.mode}"
            arguments = ("g, " if mode else "") + ("x" if op.family == "selu" else "x, alpha")
            lines.append(f"        result[{t}][{k}][i] = elufast_{op.family}{mode}_{half}({arguments});")
    lines.append("    }\n    fwrite(result, sizeof result, 1, stdout);\n    return 0;\n}\n")
    return "\n".join(lines), columns


STRICT = ["-std=c11", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
HALF_FLAGS = {
    "base": ("base", []),
    "fma": ("v3", ["-mavx2", "-mfma", "-mno-f16c"]),
    "f16c": ("v3", ["-mavx2", "-mfma", "-mf16c"]),
}


@pytest.mark.parametrize("cc", compilers())
@pytest.mark.parametrize("kind", [kind for kind, (level, _) in HALF_FLAGS.items() if level in LEVELS])
def test_c_halves(cc: str, kind: str, tmp_path: Path) -> None:
    """All 65 536 numbers, as the arrays of that level."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    level, flags = HALF_FLAGS[kind]
    source, columns = halves_program()
    (tmp_path / "halves.c").write_text(source)
    command = [cc, *STRICT, *flags, f"-I{elufast.get_include()}", tmp_path / "halves.c", "-o", tmp_path / "halves"]
    done = run(*command, "-lm")
    assert done.returncode == 0, done.stderr
    x = np.arange(65536, dtype=np.uint16)
    grad = (np.arange(65536, dtype=np.uint32) * np.uint32(40503) + np.uint32(17)).astype(np.uint16)
    for alpha in (1.0, 0.3, 2.0):
        raw = subprocess.run([tmp_path / "halves", repr(alpha)], capture_output=True, check=True).stdout
        got = np.frombuffer(raw, np.uint16).reshape(2, 18, 65536)
        for t, dtype in enumerate((np.float16, ml_dtypes.bfloat16)):
            for k, op in enumerate(columns):
                called = Op(op.family, alpha, op.mode)
                with bound(level):
                    wanted = called(x.view(dtype), grad.view(dtype))
                there = got[t, k].view(dtype)
                with np.errstate(invalid="ignore"):  # NaNs that signal
                    nan = np.isnan(wanted)
                    assert (np.isnan(there) == nan).all(), (called, dtype)
                assert (got[t, k][~nan] == wanted.view(np.uint16)[~nan]).all(), (called, dtype)


def test_c_of_the_howto() -> None:
    flags = ["-std=c11", "-O3", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    command = [*compiler(), *flags, f"-I{elufast.get_include()}", "-x", "c", "-fsyntax-only", "-"]
    done = run(*command, input=howto("c"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("standard", [["-std=c++17"], ["-std=c++20", "-pedantic"]], ids=" ".join)
def test_header_is_cplusplus(standard: list[str], tmp_path: Path) -> None:
    source = tmp_path / "caller.cpp"
    source.write_text("#include <elufast.h>\nint main() { return elufast_elu_f32(0, 1) != 0; }\n")
    flags = [*standard, "-Wall", "-Wextra", "-Wconversion", "-Werror", *FLAGS["v3" if X86 else "base"]]
    done = run(*compiler("CXX"), *flags, "-fsyntax-only", f"-I{elufast.get_include()}", source)
    assert done.returncode == 0, done.stderr


# ----------------------------------------------------------------------------------------------------------- Cython

SETUP = """
import sys
import elufast
from Cython.Build import cythonize
from setuptools import Extension, setup

flags = ["-ffp-contract=off", *sys.argv.pop().split()]
every = Extension("every", ["every.pyx"], include_dirs=[elufast.get_include()], extra_compile_args=flags)
setup(name="every", ext_modules=cythonize([every]))
"""


def every_function() -> str:
    """A module that gives each C function that `cimport elufast` has to Python, over arrays."""
    lines = ["# cython: language_level=3", "cimport elufast", "import numpy as np"]
    for family in ("elu", "selu", "celu"):
        alpha = "" if family == "selu" else ", alpha"
        for c_type, suffix in (("float", "f32"), ("double", "f64")):
            for mode in ("", "_backward", "_from_output"):
                name = f"{family}{mode}_{suffix}"
                element = f"{'grad[i], ' if mode else ''}x[i]{alpha}"
                loop = f"elufast.{family}{'_backward' if mode else ''}_array"
                arguments = f"{'&grad[0], ' if mode else ''}&x[0], &out[0], n{alpha}"
                arguments += "" if not mode else f", {mode == '_from_output'}"
                lines += [
                    f"def {name}(const {c_type}[::1] grad, const {c_type}[::1] x, double alpha):",
                    "    cdef Py_ssize_t i, n = x.shape[0]",
                    f"    cdef {c_type}[::1] each = np.empty_like(x), out = np.empty_like(x)",
                    "    with nogil:",
                    "        for i in range(n):",
                    f"            each[i] = elufast.{name}({element})",
                    f"        {loop}({arguments})",
                    "    return np.asarray(each), np.asarray(out)",
                ]
    return "\n".join(lines)


def built(folder: Path, *arguments: str) -> Path:
    for needed in ("Cython", "setuptools"):
        pytest.importorskip(needed)
    compiler()
    environment = {**os.environ, "CFLAGS": "-O1"}  # half the time that Python's own -O3 takes
    done = run(sys.executable, "setup.py", "build_ext", "--inplace", *arguments, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ModuleType]:
    """A Cython module compiled for the best of the levels in FLAGS, and that level."""
    level = next(level for level in LEVELS if level in FLAGS)
    folder = tmp_path_factory.mktemp("cython")
    (folder / "setup.py").write_text(SETUP)
    (folder / "every.pyx").write_text(every_function() + "\n" + howto("cython"))
    built(folder, " ".join(FLAGS[level]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import every  # type: ignore[import-not-found]
    return level, every


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ops(alphas=(1.0, 0.3, 1e-13)), ids=str)
def test_cython(every: tuple[str, ModuleType], op: Op, dtype: Any) -> None:
    level, module = every
    x, grad = sample(dtype, 1500), sample(dtype, 1500, seed=1)
    mode = "" if op.mode == "forward" else f"_{op.mode}"
    function = getattr(module, f"{op.family}{mode}_f{8 * x.itemsize}")
    each, out = function(grad, x, op.alpha)
    assert same(out, op(x, grad)), "the level chosen at import"
    with bound(level):
        assert same(each, op(x, grad)), "the level it was compiled for"


@pytest.mark.parametrize(
    ("name", "alpha"),
    [("elu_f32", np.nan), ("elu_backward_f64", np.inf), ("celu_f64", 0.0), ("celu_from_output_f32", -1.0)],
)
def test_cython_alpha_that_does_not_fit(every: tuple[str, ModuleType], name: str, alpha: float) -> None:
    x = np.ones(3, f"f{int(name[-2:]) // 8}")
    with pytest.raises(ValueError, match=rf"^{name.split('_')[0]}_\w*array: .*alpha.*got {alpha!r}"):
        getattr(every[1], name)(x, x, alpha)


def test_cython_of_the_howto(every: tuple[str, ModuleType]) -> None:
    level, module = every
    x, out = sample(np.float32, 300), np.empty(300, np.float32)
    module.shifted_elu(x, np.float32(0.5), out)
    with bound(level):
        assert same(out, elufast.elu(x + np.float32(0.5)))


CYTHON_EXAMPLE = """
import numpy as np
import elufast
import layer

rng = np.random.default_rng(0)
x, bias = rng.standard_normal((50, 33), np.float32), rng.standard_normal(33, np.float32)
out = np.empty_like(x)
layer.bias_elu(x, bias, out, 0.5)
assert (out == elufast.elu(x + bias, 0.5)).all()
strided, weights = rng.standard_normal(99)[::-3], rng.standard_normal(33)
np.testing.assert_allclose(layer.weighted_sum(strided, weights), weights @ elufast.elu(strided), rtol=1e-12)
print(elufast.runtime_info()["level"])
"""


def test_cython_example(tmp_path: Path) -> None:
    """At each level: the loops are chosen when elufast is imported, not when the caller is compiled."""
    folder = built(Path(shutil.copytree(EXAMPLES / "cython_caller", tmp_path / "caller")))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    for level in LEVELS:
        assert run_python(CYTHON_EXAMPLE, PYTHONPATH=path, ELUFAST_ISA=level).strip() == level


# ------------------------------------------------------------------------------------------------------------ Numba


@pytest.fixture(scope="module")
def njit() -> Callable[..., Any]:
    numba = pytest.importorskip("numba")
    importlib.import_module("elufast.numba")  # what the entry point does, where the package is installed
    return numba.njit  # type: ignore[no-any-return]


def test_numba_entry_point() -> None:
    points = importlib.metadata.entry_points(group="numba_extensions", name="init")
    assert "elufast.numba:_init" in [point.value for point in points]


def test_numba_docstring(njit: Callable[..., Any]) -> None:
    text = importlib.import_module("elufast.numba").__doc__ or ""
    test = doctest.DocTestParser().get_doctest(text, {"elufast": elufast, "np": np}, "elufast.numba", None, 0)
    result = doctest.DocTestRunner().run(test)
    assert (result.attempted, result.failed) == (3, 0)


@pytest.fixture(scope="module")
def compiled(njit: Callable[..., Any]) -> Callable[[Op], Callable[..., Any]]:
    """Functions of (grad, x, alpha) that call what Python would."""
    calls = {
        ("elu", "forward"): lambda grad, x, alpha: elufast.elu(x, alpha),
        ("selu", "forward"): lambda grad, x, alpha: elufast.selu(x),
        ("celu", "forward"): lambda grad, x, alpha: elufast.celu(x, alpha=alpha),
        ("elu", "backward"): lambda grad, x, alpha: elufast.elu_backward(grad, x, alpha),
        ("selu", "backward"): lambda grad, x, alpha: elufast.selu_backward(grad, x),
        ("celu", "backward"): lambda grad, x, alpha: elufast.celu_backward(grad, x, alpha=alpha),
        ("elu", "from_output"): lambda grad, x, alpha: elufast.elu_backward(grad, x, alpha, from_output=True),
        ("selu", "from_output"): lambda grad, x, alpha: elufast.selu_backward(grad, x, from_output=True),
        ("celu", "from_output"): lambda grad, x, alpha: elufast.celu_backward(grad, x, alpha, from_output=True),
    }
    functions = {key: njit(call) for key, call in calls.items()}
    return lambda op: functions[op.family, op.mode]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ops(), ids=str)
def test_numba_arrays(compiled: Callable[[Op], Callable[..., Any]], op: Op, dtype: Any) -> None:
    x, grad = sample(dtype, 1200), sample(dtype, 1200, seed=1)
    got = compiled(op)(grad, x, op.alpha)
    assert got.dtype == dtype
    assert same(got, op(x, grad))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ops(), ids=str)
def test_numba_scalars(
    njit: Callable[..., Any], compiled: Callable[[Op], Callable[..., Any]], op: Op, dtype: Any
) -> None:
    function = compiled(op)

    @njit
    def each(grad, x, alpha, out):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            out[i] = function(grad[i], x[i], alpha)

    x, grad = sample(dtype, 600), sample(dtype, 600, seed=1)
    out = np.empty_like(x)
    each(grad, x, op.alpha, out)
    assert same(out, op(x, grad))
    returned = {str(s.args[1]): str(s.return_type) for s in function.nopython_signatures}
    assert returned[np.dtype(dtype).name] == np.dtype(dtype).name


@pytest.mark.parametrize("dtype", DTYPES)
def test_numba_bias(njit: Callable[..., Any], dtype: Any) -> None:
    @njit
    def array(x, b, grad):  # type: ignore[no-untyped-def]
        return elufast.elu(x, 0.3, bias=b), elufast.selu_backward(grad, x, bias=b)

    @njit
    def in_place(x, b):  # type: ignore[no-untyped-def]
        return elufast.celu_(x, 2.0, bias=b)

    @njit(fastmath=True)
    def number(x, b):  # type: ignore[no-untyped-def]
        return elufast.selu(x, bias=b)

    x, grad = sample(dtype, 720).reshape(8, 9, 10), sample(dtype, 720, seed=1).reshape(8, 9, 10)
    strided, fortran = x[::2, :, ::-1], np.asfortranarray(x)
    # Each kind of bias and of x once: every pair takes Numba seconds.
    for view, bias in ((x, x[0, 0]), (strided, x[0, :, :1]), (fortran, x[:1, :1, :1]), (strided, strided)):
        g = grad[: len(view)]
        with np.errstate(all="ignore"):
            total = view + bias
        forward, backward = array(view, bias, g)
        assert same(forward, elufast.elu(total, 0.3))
        assert same(backward, elufast.selu_backward(g, total))
    row, own = x[0, 0, :].copy(), x.copy()
    own[0, 0] = row
    with np.errstate(all="ignore"):
        wanted = elufast.celu(own + own[0, 0], 2.0)
    assert same(in_place(own, own[0, 0]), wanted), "the bias lies in x"
    assert number(dtype(0.25), dtype(-1.5)) == elufast.selu(dtype(-1.25))


def layouts() -> dict[str, Array]:
    x = sample(np.float32, 720).reshape(8, 9, 10)
    readonly = x.copy()
    readonly.flags.writeable = False
    unaligned = np.frombuffer(b"-" + x.tobytes(), np.uint8)[1:].view(np.float32)
    return {
        "C": x,
        "Fortran": np.asfortranarray(x),
        "reversed": x[::-1, :, ::-2],
        "broadcast": np.broadcast_to(x[0], (3, 9, 10)),
        "transposed": x.transpose(1, 2, 0),
        "empty": x[:0],
        "read-only": readonly,
        "unaligned": unaligned,
        "0-d": x[0, 0, 0, ...],
    }


@pytest.mark.parametrize("layout", layouts())
def test_numba_layouts(njit: Callable[..., Any], layout: str) -> None:
    @njit
    def both(x, g):  # type: ignore[no-untyped-def]
        return elufast.elu(x), elufast.elu_backward(g, x, 0.3)

    x = layouts()[layout]
    g = np.ascontiguousarray(x)[...] if x.ndim else x
    forward, backward = both(x, g.reshape(x.shape))
    assert np.shape(forward) == x.shape
    assert type(forward) is (np.ndarray if x.ndim else float)
    assert same(np.float32(forward), elufast.elu(x))
    assert same(np.float32(backward), elufast.elu_backward(g.reshape(x.shape), x, 0.3))


def test_numba_out_and_in_place(njit: Callable[..., Any]) -> None:
    @njit
    def into(grad, x, out):  # type: ignore[no-untyped-def]
        return elufast.celu_backward(grad, x, 2, out=out)

    @njit
    def in_place(x, y, z):  # type: ignore[no-untyped-def]
        return elufast.elu_(x), elufast.selu_(y), elufast.celu_(z, alpha=0.5)

    x, grad = sample(np.float64, 400), sample(np.float64, 400, seed=1)
    wanted = elufast.celu_backward(grad, x, 2)
    out = np.empty_like(x)
    assert into(grad, x, out) is not None
    assert same(out, wanted)
    spread = np.full(800, 7.0)
    into(grad, x, spread[::2])
    assert same(spread[::2], wanted)
    assert (spread[1::2] == 7).all()
    own = grad.copy()
    into(own, x, own)
    assert same(own, wanted)
    copies = x.copy(), x.copy(), x.copy()
    for copy, result, expected in zip(
        copies, in_place(*copies), (elufast.elu(x), elufast.selu(x), elufast.celu(x, 0.5)), strict=True
    ):
        assert np.shares_memory(copy, result)
        assert same(copy, expected)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (slice(0, 300), slice(1, 301)),
        (slice(1, 301), slice(0, 300)),
        (slice(None, None, -1), slice(None)),
        (slice(0, 200, 2), slice(100, 200)),
    ],
)
def test_numba_partial_overlap(njit: Callable[..., Any], source: slice, target: slice) -> None:
    @njit
    def into(x, out):  # type: ignore[no-untyped-def]
        elufast.elu(x, out=out)

    buffer = sample(np.float32, 400)
    wanted = elufast.elu(buffer[source].copy())
    into(buffer[source], buffer[target])
    assert same(buffer[target], wanted)


REFUSED = {
    "elu: x has type int64.*pass np.float64": lambda: elufast.elu(1),
    r"selu: x has type array\(int64.*pass x.astype": lambda: elufast.selu(np.arange(3)),
    "celu: x has type complex128": lambda: elufast.celu(1j),
    "elu: x has type unicode_type": lambda: elufast.elu("1"),
    "elu: alpha has type unicode_type.*pass float": lambda: elufast.elu(1.0, "1"),
    "selu: takes no alpha": lambda: elufast.selu(1.0, alpha=1.0),
    "leave num_threads out": lambda: elufast.elu(np.ones(3), num_threads=2),
    "elu_backward: grad is float64 and x is array.*nothing is broadcast": lambda: elufast.elu_backward(1.0, np.ones(3)),
    "x is .*float64.* and out is .*float32.*nothing is cast": lambda: elufast.elu(
        np.ones(3), out=np.ones(3, np.float32)
    ),
    "elu: out has type array.*a scalar has no memory": lambda: elufast.elu(1.0, out=np.ones(1)),
    "elu_: x has type float64": lambda: elufast.elu_(1.0),
    "elu: x is float64 and bias is array.*broadcasts to the shape of x alone": lambda: elufast.elu(
        1.0, bias=np.ones(2)
    ),
    "elu: x is array.* and bias is float64.*broadcasts": lambda: elufast.elu(np.ones(2), bias=1.0),
    "x is .*1d.* and bias is .*2d.*broadcasts": lambda: elufast.elu(np.ones(2), bias=np.ones((1, 2))),
    "bias is .*float32.*nothing is cast": lambda: elufast.elu(np.ones(2), bias=np.ones(2, np.float32)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_numba_refuses_types(njit: Callable[..., Any], message: str) -> None:
    from numba.core.errors import TypingError

    with pytest.raises(TypingError, match=message):
        njit(REFUSED[message])()


def test_numba_refuses_read_only_out(njit: Callable[..., Any]) -> None:
    from numba.core.errors import TypingError

    x = np.ones(3)
    x.flags.writeable = False
    with pytest.raises(TypingError, match="elu_: x is read-only"):
        njit(lambda x: elufast.elu_(x))(x)


def test_numba_refuses_values(njit: Callable[..., Any]) -> None:
    @njit
    def celu(x, alpha, out):  # type: ignore[no-untyped-def]
        return elufast.celu(x, alpha, out=out)

    @njit
    def from_output(y, alpha):  # type: ignore[no-untyped-def]
        return elufast.elu_backward(y, y, alpha, from_output=True)

    x, out = np.full(3, -1.0), np.full(3, 7.0)
    for alpha in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="alpha must be finite"):
            celu(x, alpha, out)
    with pytest.raises(ValueError, match="alpha must not be 0"):
        celu(x, 0, out)
    with pytest.raises(ValueError, match="differ in shape"):
        celu(x[:2], 1.0, out)
    with pytest.raises(ValueError, match="needs alpha > 0"):
        from_output(x, -1.0)
    with pytest.raises(ValueError, match="broadcast"):
        njit(lambda x, b: elufast.elu(x, bias=b))(x, np.ones(2))
    with pytest.raises(ValueError, match="takes no bias"):
        njit(lambda x, b: elufast.elu_backward(x, x, from_output=True, bias=b))(x, x)
    assert (out == 7).all()


def test_numba_has_no_float16(njit: Callable[..., Any]) -> None:
    from numba.core.errors import TypingError

    with pytest.raises(TypingError, match=r"elu: x has type array\(float16.*not float32, float64"):
        njit(lambda x: elufast.elu(x))(np.ones(3, np.float16))


@pytest.mark.parametrize("alpha", [np.nan, np.inf, -np.inf])
def test_numba_fastmath_takes_no_alpha_that_does_not_fit(njit: Callable[..., Any], alpha: float) -> None:
    """fastmath folds every question whether a number is finite."""

    @njit(fastmath=True)
    def array(x, alpha):  # type: ignore[no-untyped-def]
        return elufast.elu(x, alpha)

    with pytest.raises(ValueError, match="alpha must be finite"):
        array(-np.ones(3), alpha)
    with pytest.raises(ValueError, match="alpha must be finite"):
        array(-1.0, alpha)


def test_numba_fastmath(compiled: Callable[[Op], Callable[..., Any]], njit: Callable[..., Any]) -> None:
    """The caller's flags do not reach the functions."""
    x, grad = sample(np.float32, 700), sample(np.float32, 700, seed=1)
    for op in ops("forward", "backward", alphas=(0.3,)):
        fast = njit(fastmath=True)(compiled(op).py_func)
        assert same(fast(grad, x, op.alpha), op(x, grad))
        assert same(fast(grad[::-3], x[::-3], op.alpha), op(x[::-3], grad[::-3]))


# What another library may leave behind: subnormals flushed, on input too, and the same with rounding down.
MODES = """
import ctypes, mmap
code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("897c24fc0fae5424fcc3"))  # mov [rsp - 4], edi; ldmxcsr [rsp - 4]; ret
set_mode = ctypes.CFUNCTYPE(None, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

import numba
import numpy as np
import elufast.numba
from support import bits, sample

@numba.njit
def number(grad, x, alpha, out):
    for i in range(x.size):
        out[0, i] = elufast.elu(x[i])
        out[1, i] = elufast.celu(x[i], alpha)
        out[2, i] = elufast.elu_backward(grad[i], x[i])
        out[3, i] = elufast.selu(x[i], bias=grad[i])

@numba.njit
def array(grad, x, alpha, out):
    elufast.elu(x, out=out[0])
    elufast.celu(x, alpha, out=out[1])
    elufast.elu_backward(grad, x, out=out[2])
    elufast.selu(x, bias=grad, out=out[3])

for dtype in (np.float32, np.float64):
    alpha = 0.7
    x, grad = sample(dtype, 900)[::3], sample(dtype, 900, seed=1)[::3]
    x = np.concatenate([x, [np.finfo(dtype).smallest_subnormal * -5]]).astype(dtype)
    x, grad = np.repeat(x, 2)[::2], np.append(grad, dtype(1))
    with np.errstate(all="ignore"):
        wanted = [elufast.elu(x), elufast.celu(x, alpha), elufast.elu_backward(grad, x), elufast.selu(x + grad)]
    out = np.empty((4, x.size), dtype)
    spread = np.empty((4, 2 * x.size), dtype)[:, ::2]
    calls = [(number, out), (array, out), (array, spread)]
    for function, to in calls:
        function(grad, x, alpha, to)
    for mode in (0x9fc0, 0xbfc0):
        for function, to in calls:
            to[...] = 0
            set_mode(mode)
            function(grad, x, alpha, to)
            set_mode(0x1f80)
            for k in range(4):
                assert bits(to[k]) == bits(wanted[k]), (dtype, hex(mode), function, k)
    set_mode(0x9fc0)
    array(grad, x, 1e-310, out)  # no zero, although it compares as one
    set_mode(0x1f80)
    assert bits(out[1]) == bits(elufast.celu(x, 1e-310))
print("done")
"""


@pytest.mark.skipif(not X86, reason="the register is that of x86-64")
def test_numba_in_another_floating_point_mode() -> None:
    pytest.importorskip("numba")
    assert run_python(MODES, timeout=300).split() == ["done"]


CACHED = """

import sys

if "src" in sys.argv:  # not installed, so there is no entry point
    import elufast.numba

@numba.njit("float64[::1](float64[::1])", cache=True)
def eager(x):
    return elufast.elu(x, 0.3)

@numba.njit(cache=True)
def lazy(x):
    return elufast.celu(x[0], alpha=0.7)

@numba.vectorize(cache=True)
def ufunc(x):
    return elufast.elu_backward(x, x)

x = np.linspace(-9, 3, 4000).reshape(40, 100)
assert (eager(x[0]) == elufast.elu(x[0], 0.3)).all()
assert lazy(x[0]) == elufast.celu(x[0, 0], 0.7)
np.testing.assert_allclose(centred_elu(x), elufast.elu(x - x.mean(axis=1, keepdims=True)), atol=1e-14)
assert (ufunc(x) == elufast.elu_backward(x, x)).all()
hits = [sum(function.stats.cache_hits.values()) for function in (eager, lazy, centred_elu)]
print(*hits, eager(x.reshape(-1)).tobytes().hex())
"""


def test_numba_cache(tmp_path: Path) -> None:
    """What one process compiled works in the next, wherever its libraries lie and whatever its level: the last
    differs in bits from the first where that has fused multiply-add."""
    pytest.importorskip("numba")
    points = importlib.metadata.entry_points(group="numba_extensions", name="init")
    arguments = [] if "elufast.numba:_init" in [point.value for point in points] else ["src"]
    program = tmp_path / "program.py"
    program.write_text(howto("python") + CACHED)
    results = []
    for level in (LEVELS[0], LEVELS[0], LEVELS[-1]):
        code = f"import runpy; runpy.run_path({str(program)!r})"
        cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "ELUFAST_ISA": level, "NUMBA_NUM_THREADS": "2"}
        results.append(run_python(code, *arguments, timeout=120, **cache).split())
    assert [result[:3] for result in results] == [["0"] * 3, ["1"] * 3, ["1"] * 3]
    assert results[0][3] == results[1][3]
    assert len(LEVELS) == 1 or results[0][3] != results[2][3]


def test_numba_example() -> None:
    for needed in ("numba", "sklearn", "matplotlib"):
        pytest.importorskip(needed)
    code = f"import runpy; runpy.run_path({str(EXAMPLES / 'gallery' / 'numba_kernel.py')!r})"
    output = run_python(code, timeout=120, MPLBACKEND="agg")
    assert float(output.splitlines()[0].split()[-1]) > 0.88
