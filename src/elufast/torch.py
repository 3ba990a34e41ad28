"""PyTorch's own ELU, SELU and CELU, computed by elufast.

`install` replaces the kernels of PyTorch's operators ``elu`` and ``elu_backward`` for CPU tensors; SELU and CELU are
``elu`` with other scalars there. All else stays PyTorch's. ``torch.compile`` makes code of its own, not touched.

>>> import torch
>>> import elufast.torch
>>> with elufast.torch.installed():
...     torch.nn.SELU()(torch.tensor([-1.0, 0.0, 1.0]))
tensor([-1.1113,  0.0000,  1.0507])
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import elufast
from elufast import _capi

__all__ = ["install", "installed", "status", "uninstall"]

_SOURCE = Path(__file__).with_name("_torch.cpp")
_TENSORS = _capi.for_torch()

_lock = threading.RLock()
_status = "off"
_remove: Any = None  # what ends the registration


def install(native: bool | None = None) -> None:
    """From now on elufast computes PyTorch's elu, selu and celu of CPU tensors, in every model of this process.

    Of float32, float64, float16 and bfloat16, any strides, in place and with ``out=`` too; all else is as before.

    Parameters
    ----------
    native : bool, optional
        True takes kernels in C++, which the C++ compiler of this machine builds once for each version of PyTorch.
        False takes kernels in Python: no compiler is needed, and a call costs about 30 us more. None, the default,
        keeps what is in place, else tries the first, then, with a warning, the second.

    Raises
    ------
    RuntimeError
        If ``native`` is True and the kernels cannot be built or loaded, with the compiler's message.
    """
    global _status, _remove
    with _lock:
        wanted = "python" if native is False else "native"
        if _status == wanted or (native is None and _status != "off"):
            return
        built = None
        if wanted == "native":
            try:
                built = _native_kernels()
            except (OSError, RuntimeError) as error:
                if native:
                    raise RuntimeError(f"elufast's kernels for PyTorch: {error}") from error
                wanted, told = "python", "elufast computes for PyTorch by kernels in Python, slow for small tensors"
                warnings.warn(f"{told}: {error}", RuntimeWarning, stacklevel=2)
        uninstall()
        _remove = _register_python() if built is None else _register(built)
        _status = wanted


def uninstall() -> None:
    """PyTorch's own kernels are back. No other thread may compute ELU meanwhile: PyTorch frees a kernel in use."""
    global _status, _remove
    with _lock:
        if _remove is not None:
            _remove()
        _status, _remove = "off", None


@contextmanager
def installed(native: bool | None = None) -> Iterator[None]:
    """`install` for the time of a with statement; after it all is as it was before.

    Parameters
    ----------
    native : bool, optional
        As for `install`.
    """
    before = _status
    install(native)
    try:
        yield
    finally:
        uninstall() if before == "off" else install(before == "native")


def status() -> str:
    """Which kernels are in place.

    Returns
    -------
    str
        ``"native"``, ``"python"`` or ``"off"``.
    """
    return _status


# Kernels in C++. The compiler is called here and not by torch.utils.cpp_extension, which needs ninja or setuptools in
# this process, and Python's headers, and waits for ever where another build was killed. No Python is in the library.


def _command() -> list[str]:
    """Of the compiler, but for the name of what is built."""
    words = shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, ("c++", "g++", "clang++")), "c++")]
    home = Path(torch.__file__).parent
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    folders = [f"-I{home / 'include'}", f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}"]
    return [*words, "-std=c++20", "-O2", "-fPIC", "-shared", abi, *folders, str(_SOURCE), "-ltorch_cpu", "-lc10"]


def _cached() -> Path:
    """Where the library is kept: other versions, sources, options and machines have another name."""
    folder = os.environ.get("TORCH_EXTENSIONS_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    told = [_SOURCE.read_text("utf-8"), *_command(), str(torch.version.git_version), platform.machine()]
    digest = hashlib.sha256("\0".join(told).encode()).hexdigest()[:16]
    versions = f"{elufast.__version__}-torch-{torch.__version__}-{sys.implementation.cache_tag}"
    return Path(folder, "elufast", f"elufast-{versions}-{digest}.so")


def _build(library: Path) -> None:
    """Build in a folder beside it and move it to its place, so that no process ever sees a part of it."""
    for left in library.parent.glob(f"{library.name}.build-*"):  # by a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{library.name}.build-", dir=library.parent) as folder:
        print(f"elufast: building kernels for PyTorch {torch.__version__}, once", file=sys.stderr, flush=True)
        command = [*_command(), "-o", f"{folder}/built"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except FileNotFoundError as error:
            raise RuntimeError(f"{error}; install a C++ compiler, or set CXX to one") from error
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr[:10_000]}")
        os.replace(f"{folder}/built", library)


def _native_kernels() -> ctypes.CDLL:
    """The built library. A file that does not load, such as one that a full disk cut short, is built again."""
    if os.name != "posix":
        raise RuntimeError("they are built on Linux and macOS only")
    import fcntl

    library = _cached()
    with suppress(OSError):
        return ctypes.CDLL(str(library))
    with ExitStack() as stack:
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((library.parent / "lock").open("w"))
            tempfile.TemporaryFile(dir=library.parent).close()  # can it be written?
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)  # one process builds, the others wait; it ends with its process
        except OSError as error:
            print(f"elufast: {error}; set XDG_CACHE_HOME to keep what is built", file=sys.stderr, flush=True)
            library = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elufast-")), library.name)
        with suppress(OSError):
            return ctypes.CDLL(str(library))  # another process has built it meanwhile
        _build(library)
        return ctypes.CDLL(str(library))


def _register(library: ctypes.CDLL) -> Any:
    library.elufast_install.argtypes, library.elufast_install.restype = [ctypes.c_void_p], ctypes.c_char_p
    if error := library.elufast_install(_TENSORS):
        raise RuntimeError(f"elufast's kernels for PyTorch: {error.decode()}")
    return library.elufast_uninstall


# Kernels in Python. Results are allocated, and an out= is checked and resized, by operators of PyTorch that have the
# same rules. What does not lie in memory as the result does is copied first.

_CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}

_compute = ctypes.CFUNCTYPE(None, *[ctypes.c_int] * 4, *[ctypes.c_double] * 3, *[ctypes.c_void_p] * 3)(_TENSORS)


def _fill(out: Tensor, x: Tensor, grad: Tensor, mode: int, *scalars: float) -> Tensor:
    if out.dtype not in _CODES:
        kernel, name = "elu_backward_cpu" if mode else "elu_cpu", out.type().rpartition(".")[2].removesuffix("Tensor")
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{name}'")
    lies = (out.dtype, out.shape, out.stride())
    same = [a if (a.dtype, a.shape, a.stride()) == lies else torch.empty_like(out).copy_(a) for a in (x, grad, out)]
    n, one = ctypes.c_int64(out.numel()), ctypes.c_int64(1)
    operands = (ctypes.c_void_p * 4)(same[0].data_ptr(), same[1].data_ptr(), None, same[2].data_ptr())  # no bias
    strides = (ctypes.c_void_p * 4)(*[ctypes.addressof(one)] * 4)
    _compute(mode, _CODES[out.dtype], 1, out.element_size(), *scalars, ctypes.byref(n), operands, strides)
    return out


def _elu(x: Tensor, *scalars: float) -> Tensor:
    out = torch.ops.aten.silu(x) if x.dtype in _CODES else x
    return _fill(out, x, x, 0, *scalars, *[1.0] * (3 - len(scalars)))


def _elu_out(x: Tensor, *scalars: float, out: Tensor) -> Tensor:
    result = _elu(x, *scalars)
    return torch.ops.aten.silu.out(x, out=out).copy_(result)


def _elu_backward(grad: Tensor, alpha: float, scale: float, input_scale: float, is_result: bool, x: Tensor) -> Tensor:
    if is_result and alpha < 0:
        told = "In-place elu backward calculation is triggered with a negative slope which is not supported."
        raise RuntimeError(told)
    return _fill(torch.mul(grad, x), x, grad, 1 + is_result, alpha, scale, input_scale)


def _elu_backward_out(grad: Tensor, *others: Any, grad_input: Tensor) -> Tensor:
    result = _elu_backward(grad, *others)
    return torch.mul(grad, others[-1], out=grad_input).copy_(result)


def _register_python() -> Any:
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they have kernels already
        library.impl("elu", _elu, "CPU")
        library.impl("elu.out", _elu_out, "CPU")
        library.impl("elu_", lambda x, *scalars: _elu_out(x, *scalars, out=x), "CPU")
        library.impl("elu_backward", _elu_backward, "CPU")
        library.impl("elu_backward.grad_input", _elu_backward_out, "CPU")
    return library._destroy
