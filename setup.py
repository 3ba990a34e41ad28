"""Builds the extension modules: plain ones, and the loops once for each instruction-set level."""

from __future__ import annotations

import platform
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# One more than the kernels' slices have: so small a struct the compiler takes apart, and a slice costs nothing.
Options.buffer_max_dims = 2

# Exactly the features that _runtime.cpu_levels() tests for: a module's own start-up code is compiled with them too.
LEVELS = {
    "base": [],
    "v3": ["-mavx2", "-mfma", "-mf16c"],
    "v4": [
        *("-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512cd", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
        "-mprefer-vector-width=512",
    ],
}
# The loops do not read errno or floating-point exceptions; a fused operation is written where it is meant.
UNIX_FLAGS = ["-std=c11", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
LOOP_FLAGS = ["-funroll-loops", "-DCYTHON_INLINE=__inline__ __attribute__((always_inline))"]
MSVC_FLAGS = ["/O2", "/std:c11", "/fp:precise"]


def is_msvc() -> bool:
    return sysconfig.get_platform().startswith("win") and "GCC" not in platform.python_compiler()


def levels() -> list[str]:
    """Levels to build: those beyond base need x86-64, and a compiler that vectorizes fma(): not MSVC."""
    x86 = sysconfig.get_platform().endswith(("x86_64", "amd64"))
    return list(LEVELS) if x86 and not is_msvc() else ["base"]


class BuildExt(build_ext):
    """Adds the flags that this compiler takes; OpenMP where a program with it compiles and links."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or True  # a compiler for each CPU

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "msvc":
            flags, openmp, link = MSVC_FLAGS, ["/openmp"], []
        else:
            flags, openmp, link = UNIX_FLAGS, ["-fopenmp"], ["-fopenmp"]
        if not self._compiles(openmp, link):
            openmp, link = [], []
            print("elufast: this compiler has no OpenMP, so the loops are built serial")
        for extension in self.extensions:
            extension.extra_compile_args = [*flags, *openmp, *extension.extra_compile_args]
            extension.extra_link_args = [*link, *extension.extra_link_args]
        super().build_extensions()

    def _compiles(self, flags: list[str], link: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
            try:
                objects = self.compiler.compile([str(source)], folder, extra_postargs=flags)
                self.compiler.link_executable(objects, str(Path(folder, "probe")), extra_postargs=link)
            except Exception:
                return False
        return True


def extension(name: str, source: str, flags: list[str]) -> Extension:
    return Extension(
        f"elufast.{name}",
        [f"src/elufast/{source}"],
        include_dirs=["src/elufast", np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")],
        depends=[str(path) for pattern in ("*.h", "*.pxd") for path in Path("src/elufast").glob(pattern)],
        extra_compile_args=flags,
    )


def cythonized(extensions: list[Extension], folder: str) -> list[Extension]:
    return cythonize(
        extensions,
        build_dir=f"build/{folder}",
        include_path=["src"],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": False,
            "binding": True,
            "freethreading_compatible": True,
        },
        emit_linenums=True,
    )


def extensions() -> list[Extension]:
    plain = [extension(name, f"{name}.pyx", []) for name in ("_runtime", "_core", "ufuncs", "_functions", "_capi")]
    # Cython names the C file after the source, so each level needs a folder of its own.
    return cythonized(plain, "cython") + [
        module
        for level in levels()
        for module in cythonized(
            [extension(f"_loops_{level}", "_loops.pyx", [] if is_msvc() else [*LOOP_FLAGS, *LEVELS[level]])],
            f"cython-{level}",
        )
    ]


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
