"""Freezes a program with PyInstaller, as a folder and as one file, and runs it at every level, away from this Python.

python tools/frozen.py        (needs PyInstaller beside elufast)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from elufast import _dispatch

PROGRAM = """
import sys
import numpy as np
import elufast
from elufast import _dispatch, _runtime

assert getattr(sys, "frozen", False), "not frozen"
assert _dispatch.built_levels() == _runtime.cpu_levels(), "a level was left out"
x = np.linspace(-20, 5, 300_000)
for function, scale, alpha in (
    (elufast.elu, 1, 1),
    (elufast.selu, elufast.SELU_SCALE, elufast.SELU_ALPHA),
    (elufast.celu, 1, 1),
):
    expected = scale * np.where(x < 0, alpha * np.expm1(x), x)
    np.testing.assert_allclose(function(x, num_threads=2), expected, rtol=1e-15)
    np.testing.assert_allclose(function(x[::-1])[::-1], expected, rtol=1e-15)
print(_dispatch.level)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "program.py").write_text(PROGRAM)
        for kind, program in (("onedir", "dist/program/program"), ("onefile", "dist/program")):
            subprocess.run(
                [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR", f"--{kind}", "program.py"],
                cwd=folder,
                check=True,
            )
            for level in (None, *_dispatch.built_levels()):
                environment = {} if level is None else {"ELUFAST_ISA": level}
                got = subprocess.check_output([folder / program], cwd="/", env=environment, text=True).strip()
                if got != (level or _dispatch.built_levels()[0]):
                    sys.exit(f"{kind}: asked for {level}, got {got}")
                print(f"{kind:8} {level or 'default'}: {got}", flush=True)
            shutil.rmtree(folder / "dist")


if __name__ == "__main__":
    main()
