"""Applies a function to arrays in files of any size, a block at a time: what is behind ``elufast apply``.

Files are read and written, not mapped: for a new file that is faster, and a full disk or a file that
becomes shorter is then an error, where a map ends the process.
"""

from __future__ import annotations

import contextlib
import filecmp
import importlib
import io
import itertools
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np

import elufast

Array: TypeAlias = np.ndarray[Any, Any]
Advance: TypeAlias = Callable[[int], object]

BLOCK = 1 << 22  # bytes, small enough for the last-level cache
_ZARR = ("zarr.json", ".zarray", ".zattrs")  # what describes a Zarr array, beside its chunks


class Problem(Exception):
    """What is wrong, for the user to read: one line."""


def require(module: str, extra: str) -> Any:
    """Import an optional module, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Problem(f"this needs {module}: pip install 'elufast[{extra}]'") from error


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Name the file in what goes wrong; decompressors raise whatever they like."""
    try:
        yield
    except Problem:
        raise
    except OSError as error:
        error.filename = error.filename or name
        raise
    except Exception as error:
        raise Problem(f"{name}: {str(error) or type(error).__name__}") from error


class _Stream:
    """An array in an open file: a header, then the elements in the order of storage."""

    def __init__(self, file: io.BufferedIOBase, name: str, size: int, dtype: np.dtype[Any] | None) -> None:
        self.file, self.name = file, name
        if dtype is None:
            with _naming(name):
                major, _ = np.lib.format.read_magic(file)
                if major > 3:
                    raise Problem(f"{name}: is in version {major} of the .npy format; 1 to 3 are known")
                # Version 3 differs from 2 in names of fields that are not ASCII.
                header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                self.shape, self.fortran, self.dtype = header(file)
                length = file.tell()
                file.seek(0)
                self.header = file.read(length)
        else:
            self.header, self.dtype, self.fortran = b"", dtype, False
            self.shape = (size // dtype.itemsize,)
        _check_dtype(name, self.dtype)
        self.count = 1
        for length in self.shape:
            self.count *= length
        self.nbytes = self.count * self.dtype.itemsize
        needed = len(self.header) + self.nbytes
        if size < needed:
            raise Problem(f"{name}: truncated: {needed} bytes are needed and {size} are there")
        if size > needed:
            raise Problem(f"{name}: {size - needed} bytes follow the last {self.dtype} element")

    def read(self, block: Array) -> Array:
        """Fill a block with the next elements."""
        view = block.view(np.uint8).data
        with _naming(self.name):
            while view:
                got = self.file.readinto(view)
                if not got:
                    raise Problem(f"{self.name}: ends early: another program has made it shorter")
                view = view[got:]
        return block


def _check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.type not in (np.float32, np.float64):
        raise Problem(f"{name}: has dtype {dtype}, not float32 or float64; convert it with NumPy's astype")


def _check_shapes(x: Any, x_name: str, grad: Any, grad_name: str) -> None:
    for what, a, b in (
        ("dtype", x.dtype.newbyteorder("="), grad.dtype.newbyteorder("=")),
        ("shape", x.shape, grad.shape),
    ):
        if a != b:
            raise Problem(f"{grad_name}: has {what} {b}, and {x_name} has {a}; they must be the same")


def _is_array(folder: Path) -> bool:
    if (folder / ".zarray").is_file():
        return True
    try:
        return bool(json.loads((folder / "zarr.json").read_bytes())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _kind(path: Path, dtype: np.dtype[Any] | None) -> str:
    """.npy, .npz, .zarr, or nothing for raw binary: by what is there, not by the name."""
    if path.is_dir():
        if _is_array(path):
            if dtype is not None:
                raise Problem(f"{path}: is a Zarr array, which tells its dtype; --dtype is for raw binary")
            return ".zarr"
        arrays = ", ".join(str(entry) for entry in sorted(path.iterdir()) if _is_array(entry))
        raise Problem(
            f"{path}: is a folder" + (f"; name one of its Zarr arrays: {arrays}" if arrays else ", not an array")
        )
    if not stat.S_ISREG(path.stat().st_mode):
        raise Problem(f"{path}: is not a regular file")
    with path.open("rb") as file:
        magic = file.read(6)
    kind = ".npy" if magic == b"\x93NUMPY" else ".npz" if magic[:4] in (b"PK\3\4", b"PK\5\6") else ""
    if dtype is None and not kind:
        if path.suffix in (".npy", ".npz"):
            raise Problem(f"{path}: is not a {path.suffix} file, or a truncated one")
        raise Problem(f"{path}: is no .npy, .npz or Zarr array; for raw binary say --dtype float32 or float64")
    if dtype is None:
        return kind
    if kind and path.suffix == kind:
        raise Problem(f"{path}: is a {kind} file, which tells its dtype; --dtype is for raw binary")
    return ""


def _locate(text: str, member: str | None) -> tuple[Path, str | None]:
    """Split IN.npz:member, unless there is a file of that name."""
    head, _, tail = text.rpartition(":")
    if member is None and head and not os.path.lexists(text) and os.path.isfile(head):
        return Path(head), tail
    return Path(text), member


def _member(archive: zipfile.ZipFile, path: Path, member: str | None) -> zipfile.ZipInfo:
    names = [info.filename for info in archive.infolist()]
    if member is None and len(names) == 1:
        return archive.getinfo(names[0])
    for name in (member, f"{member}.npy"):
        if name in names:
            return archive.getinfo(name)
    listed = ", ".join(name.removesuffix(".npy") for name in names) or "none"
    problem = "name a member with --member" if member is None else f"no member {member!r}"
    raise Problem(f"{path}: {problem}; there are: {listed}")


def _open(stack: contextlib.ExitStack, path: Path, member: str | None, dtype: np.dtype[Any] | None) -> _Stream:
    kind = _kind(path, dtype)
    if kind == ".zarr":
        raise Problem(f"{path}: is a Zarr array; IN and --grad must both be, or neither")
    if kind != ".npz":
        if member is not None:
            raise Problem(f"{path}: is not a .npz file, so it has no member {member!r}")
        file = stack.enter_context(path.open("rb"))
        return _Stream(file, str(path), os.fstat(file.fileno()).st_size, dtype)
    with _naming(str(path)):
        archive = stack.enter_context(zipfile.ZipFile(path))
        info = _member(archive, path, member)
        member_file = cast(io.BufferedIOBase, stack.enter_context(archive.open(info)))
        return _Stream(member_file, f"{path}:{info.filename}", info.file_size, None)


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Advance]:
    """A progress bar for people who look at it: tqdm's, or none."""
    tqdm = None
    if sys.stderr.isatty():
        with contextlib.suppress(ModuleNotFoundError):
            tqdm = importlib.import_module("tqdm")
    if tqdm is None:
        yield lambda done: None
    else:
        with tqdm.tqdm(total=total, desc=label, unit="B", unit_scale=True) as bar:
            yield bar.update


def _sync_one(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    if not path.is_dir():
        _sync_one(path, os.O_RDWR)
        return
    for entry in path.iterdir():
        _sync(entry)
    if os.name == "posix":  # elsewhere folders do not open
        _sync_one(path, os.O_RDONLY)


@contextlib.contextmanager
def _whole(out: Path, like: Path, force: bool) -> Iterator[Path]:
    """Yield an empty file, or a folder if ``like`` is one, that takes the name ``out`` once it is complete.

    It is made in the same folder. After an error or an interruption it is removed, and ``out`` is as it was.
    """
    out, folder = Path(os.path.realpath(out)), like.is_dir()

    def check() -> None:
        if not out.exists():
            return
        if not (_is_array(out) if folder else out.is_file()):
            raise Problem(f"{out}: is there already and is not a {'Zarr array' if folder else 'regular file'}")
        if not force:
            raise Problem(f"{out}: is there already; --force replaces it")

    check()
    place: dict[str, Any] = {"dir": out.parent, "prefix": f".{out.name[:50]}.", "suffix": ".part"}
    try:
        if folder:
            part = Path(tempfile.mkdtemp(**place))
        else:
            handle, name = tempfile.mkstemp(**place)
            os.close(handle)
            part = Path(name)
    except OSError as error:
        error.filename = str(out)
        raise
    old = part.with_suffix(".old")
    try:
        yield part
        _sync(part)
        check()
        with contextlib.suppress(PermissionError):  # a user's, or a file system's that has no owners
            shutil.copymode(out if out.exists() else like, part)
            if out.exists() and hasattr(os, "chown"):
                os.chown(part, out.stat().st_uid, out.stat().st_gid)
        if folder and out.exists():  # a folder with something in it cannot be replaced in one step
            out.rename(old)
        os.replace(part, out)
    except BaseException as error:
        if old.exists() and not out.exists():
            old.rename(out)
        if folder:
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(out)
        raise
    if old.exists():
        shutil.rmtree(old)
    if os.name == "posix":
        with contextlib.suppress(OSError):  # a folder may be writable and not readable
            _sync_one(out.parent, os.O_RDONLY)


def _back_up(path: Path) -> None:
    """Copy to a file or folder with .bak behind its name, and compare."""
    backup = path.with_name(path.name + ".bak")
    if os.path.lexists(backup):
        raise Problem(f"{backup}: is there already; move the backup away first")
    with _whole(backup, path, False) as part:
        if path.is_dir():
            shutil.copytree(path, part, dirs_exist_ok=True)
        else:
            with (
                path.open("rb") as reader,
                part.open("wb") as writer,
                _progress(backup.name, path.stat().st_size) as advance,
            ):
                _copy(str(path), reader, writer, advance)
        for copied in (path, *path.rglob("*")):
            if copied.is_file() and not filecmp.cmp(copied, part / copied.relative_to(path), shallow=False):
                raise Problem(f"{backup}: the copy differs from {path}")


def _copy(name: str, reader: IO[bytes], writer: IO[bytes], advance: Advance) -> None:
    while True:
        with _naming(name):
            block = reader.read(BLOCK)
        if not block:
            return
        writer.write(block)
        advance(len(block))


class _Job:
    """A function with its parameters, and the files it is applied to."""

    def __init__(
        self,
        name: str,
        path: Path,
        member: str | None,
        grad: str | None,
        dtype: np.dtype[Any] | None,
        options: dict[str, Any],
    ) -> None:
        self.function, self.options = getattr(elufast, name), options
        self.path, self.member, self.grad, self.dtype = path, member, grad, dtype
        try:
            empty = np.empty(0)
            self.call(empty, empty if grad else None, empty)  # elufast checks alpha
        except (TypeError, ValueError) as error:
            raise Problem(str(error)) from error

    def call(self, x: Array, grad: Array | None, out: Array) -> None:
        self.function(*(() if grad is None else (grad,)), x, **self.options, out=out)

    def open(self, stack: contextlib.ExitStack) -> tuple[_Stream, _Stream | None]:
        x = _open(stack, self.path, self.member, self.dtype)
        if self.grad is None:
            return x, None
        grad = _open(stack, *_locate(self.grad, None), self.dtype)
        _check_shapes(x, x.name, grad, grad.name)
        if x.fortran != grad.fortran and sum(length > 1 for length in x.shape) > 1:
            orders = ["Fortran" if each.fortran else "C" for each in (grad, x)]
            raise Problem(
                f"{grad.name}: is in {orders[0]} order, and {x.name} in {orders[1]} order; "
                f"save one of them again in the order of the other"
            )
        return x, grad

    def run(self, x: _Stream, grad: _Stream | None, writer: IO[bytes], advance: Advance) -> None:
        """Write the results, block by block."""
        length = BLOCK // x.dtype.itemsize
        blocks = [np.empty(min(length, x.count), each.dtype) for each in (x, grad) if each is not None]
        for start in range(0, x.count, length):
            block, *others = (each[: x.count - start] for each in blocks)
            x.read(block)
            self.call(block, grad.read(others[0]) if grad else None, block)
            writer.write(block.view(np.uint8).data)
            advance(block.nbytes)

    def to_file(self, out: Path, force: bool) -> None:
        # The inputs are closed before the result takes its name, which may be one of theirs.
        with _whole(out, self.path, force) as part, contextlib.ExitStack() as stack:
            x, grad = self.open(stack)
            with part.open("wb") as writer, _progress(out.name, x.nbytes) as advance:
                writer.write(x.header)
                self.run(x, grad, writer, advance)

    def to_archive(self, out: Path, force: bool, backup: bool) -> None:
        """A .npz file with one member computed and the others copied."""
        with _whole(out, self.path, force) as part, contextlib.ExitStack() as stack:
            x, grad = self.open(stack)
            with _naming(str(self.path)):
                source = stack.enter_context(zipfile.ZipFile(self.path))
            if backup:
                _back_up(self.path)
            chosen = _member(source, self.path, self.member)
            advance = stack.enter_context(_progress(out.name, sum(info.file_size for info in source.infolist())))
            target = stack.enter_context(zipfile.ZipFile(part, "w"))
            target.comment = source.comment
            for info in source.infolist():
                copy = zipfile.ZipInfo(info.filename, info.date_time)
                for kept in ("compress_type", "external_attr", "comment"):
                    setattr(copy, kept, getattr(info, kept))
                copy.file_size = info.file_size  # tells whether the member needs ZIP64
                with target.open(copy, "w") as writer:
                    if info is chosen:
                        writer.write(x.header)
                        advance(len(x.header))
                        self.run(x, grad, writer, advance)
                    else:
                        name = f"{self.path}:{info.filename}"
                        with _naming(name):
                            reader = source.open(info)
                        with reader:
                            _copy(name, reader, writer, advance)

    def in_file(self, backup: bool) -> None:
        with contextlib.ExitStack() as stack:
            x, grad = self.open(stack)
            writer = stack.enter_context(self.path.open("r+b"))
            writer.seek(len(x.header))
            if backup:
                _back_up(self.path)
            with _in_place(self.path, backup), _progress(self.path.name, x.nbytes) as advance:
                self.run(x, grad, writer, advance)
                writer.flush()
                os.fsync(writer.fileno())

    def zarr(self, out: Path | None, force: bool, backup: bool) -> None:
        """Chunk by chunk, or shard by shard."""
        zarr = require("zarr", "zarr")
        with contextlib.ExitStack() as stack:
            part = self.path if out is None else stack.enter_context(_whole(out, self.path, force))
            with _naming(str(self.path)):
                x = zarr.open_array(self.path, mode="r")
            _check_dtype(str(self.path), x.dtype)
            grad = None
            if self.grad is not None:
                if _kind(Path(self.grad), None) != ".zarr":
                    raise Problem(f"{self.grad}: is no Zarr array; IN and --grad must both be, or neither")
                with _naming(self.grad):
                    grad = zarr.open_array(self.grad, mode="r")
                _check_shapes(x, str(self.path), grad, self.grad)
            if out is None:
                if backup:
                    _back_up(self.path)
                stack.enter_context(_in_place(self.path, backup))
            else:
                # The same description gives the same chunks, compression, byte order and attributes.
                for name in _ZARR:
                    if (self.path / name).is_file():
                        shutil.copyfile(self.path / name, part / name)
            target = zarr.open_array(part, mode="r+")
            advance = stack.enter_context(_progress((out or self.path).name, x.nbytes))
            steps = x.shards or x.chunks
            for corner in itertools.product(
                *(range(0, n, max(step, 1)) for n, step in zip(x.shape, steps, strict=True))
            ):
                region = tuple(slice(start, start + step) for start, step in zip(corner, steps, strict=True))
                with _naming(str(self.path)):
                    block = np.require(x[region], requirements="W")
                if grad is not None:
                    with _naming(str(self.grad)):
                        gradient = np.asarray(grad[region])
                self.call(block, None if grad is None else gradient, block)
                with _uninterrupted(), _naming(str(out or self.path)):
                    target[region] = block
                advance(block.nbytes)


@contextlib.contextmanager
def _in_place(path: Path, backup: bool) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        error.add_note(f"{path} may be partly overwritten" + (f", {path}.bak is as it was" if backup else ""))
        raise


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold signals back: Zarr's threads would go on writing while its folder is being removed."""
    held: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: held.append(number)) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])


def apply(
    name: str,
    source: str,
    output: str | None,
    *,
    alpha: float | None = None,
    grad: str | None = None,
    from_output: bool = False,
    member: str | None = None,
    dtype: np.dtype[Any] | None = None,
    force: bool = False,
    backup: bool = False,
    num_threads: int | None = None,
) -> None:
    """Apply a function to the array in a file and write the result to a file of the same format.

    Parameters
    ----------
    name : str
        ``elu``, ``selu``, ``celu``, or one of them with ``_backward``.
    source : str
        A .npy file, a .npz file (or ``file.npz:member``), the folder of a Zarr array, or raw binary.
    output : str or None
        What to write; it appears when it is complete. None overwrites ``source``, block by block.
    alpha, from_output, num_threads
        As for the function.
    grad : str, optional
        The first argument of a backward function, a file like ``source``, of the same dtype and shape.
    member : str, optional
        Which array of a .npz file.
    dtype : dtype, optional
        Of raw binary files.
    force : bool, default: False
        Whether ``output`` may replace a file.
    backup : bool, default: False
        Whether to copy ``source`` to ``source.bak`` before it is overwritten.

    Raises
    ------
    Problem, OSError
        If the files or the parameters do not fit, or reading or writing fails.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "x.npy", [-1.0, 0.0, 2.0])
    >>> apply("elu", str(folder / "x.npy"), str(folder / "y.npy"))
    >>> np.load(folder / "y.npy")
    array([-0.63212056,  0.        ,  2.        ])
    >>> shutil.rmtree(folder)
    """
    backward = name.endswith("_backward")
    if backward != (grad is not None):
        raise Problem(f"{name} needs --grad FILE" if backward else f"--grad is for {name}_backward")
    if from_output and not backward:
        raise Problem(f"--from-output is for {name}_backward")
    if alpha is not None and name.startswith("selu"):
        raise Problem(f"{name} has no --alpha")
    if backup and output is not None:
        raise Problem("--backup is for --in-place")
    options: dict[str, Any] = {"num_threads": num_threads}
    if alpha is not None:
        options["alpha"] = alpha
    if backward:
        options["from_output"] = from_output
    path, member = _locate(source, member)
    kind = _kind(path, dtype)
    job = _Job(name, path, member, grad, dtype, options)
    out = None if output is None else Path(output)
    if out is not None and out.suffix != kind and out.suffix in (".npy", ".npz", ".zarr"):
        if (kind, out.suffix) != (".npz", ".npy"):
            raise Problem(f"{out}: the result has the format of {path}, {kind or 'raw binary'}; give it such a name")
        kind = ".npy"
    if kind == ".zarr":
        if member is not None:
            raise Problem(f"{path}: is a Zarr array, so it has no member {member!r}")
        job.zarr(out, force, backup)
    elif kind == ".npz":
        job.to_archive(out or path, force or out is None, backup)
    elif out is None:
        job.in_file(backup)
    else:
        job.to_file(out, force)
