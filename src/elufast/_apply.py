"""Applies a function to arrays in files of any size, a block at a time: what is behind ``elufast apply``.

Files are read and written, not mapped: for a new file that is faster, and a full disk or a file that
becomes shorter is then an error, where a map ends the process.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import filecmp
import functools
import importlib.util
import io
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np

import elufast

Array: TypeAlias = np.ndarray[Any, Any]
Advance: TypeAlias = Callable[[int], object]
Target: TypeAlias = contextlib.AbstractContextManager[Path]
Place: TypeAlias = tuple[Path, str | None]  # a file, and the member of a .npz file

DTYPES = ("float16", "float32", "float64", "bfloat16")
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


def bind(function: str, **options: Any) -> Callable[..., Any]:
    """A function of elufast with those options that are not None; elufast checks them."""
    given = {name: value for name, value in options.items() if value is not None}
    if "alpha" in given and function.startswith("selu"):
        raise Problem(f"{function} has no --alpha")
    bound = functools.partial(getattr(elufast, function), **given)
    try:
        bound(*[np.empty(0)] * (1 + function.endswith("_backward")))
    except (TypeError, ValueError) as error:
        raise Problem(str(error)) from error
    return bound


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
        self.file, self.name, self.size = file, name, size
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
        self.count = math.prod(self.shape)
        needed = len(self.header) + self.count * self.dtype.itemsize
        if size < needed:
            raise Problem(f"{name}: truncated: {needed} bytes are needed and {size} are there")
        if size > needed:
            raise Problem(f"{name}: {size - needed} bytes follow the last {self.dtype} element")

    def read(self, block: Array) -> Array:
        """Fill a block with the next elements."""
        with _naming(self.name):
            if self.file.readinto(block.view(np.uint8).data) < block.nbytes:
                raise Problem(f"{self.name}: ends early: another program has made it shorter")
        return block


def _check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.name not in DTYPES:
        hint = "convert it with NumPy's astype"
        if dtype == "V2":
            hint = "if that is bfloat16, for which .npy has no name, save raw binary and say --dtype bfloat16"
        raise Problem(f"{name}: has dtype {dtype}, none of {', '.join(DTYPES)}; {hint}")


def _check_alike(arrays: list[Any], names: list[str]) -> None:
    """x, and grad if there is one."""
    for what, values in (
        ("dtype", [each.dtype.newbyteorder("=") for each in arrays]),
        ("shape", [each.shape for each in arrays]),
        ("order", ["CF"[getattr(each, "fortran", False) and sum(n > 1 for n in each.shape) > 1] for each in arrays]),
    ):
        if values[-1] != values[0]:
            raise Problem(f"{names[-1]}: has {what} {values[-1]}, and {names[0]} has {values[0]}; they must agree")


def _is_array(folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads((folder / "zarr.json").read_bytes())["node_type"] == "array")
    return (folder / ".zarray").is_file()


def _kind(path: Path, member: str | None, dtype: np.dtype[Any] | None) -> str:
    """.npy, .npz, .zarr, or nothing for raw binary: by what is there, not by the name."""
    if path.is_dir():
        kind = ".zarr"
        if not _is_array(path):
            arrays = ", ".join(str(entry) for entry in sorted(path.iterdir()) if _is_array(entry))
            hint = f"; name one of its Zarr arrays: {arrays}" if arrays else ", not an array"
            raise Problem(f"{path}: is a folder{hint}")
    elif path.exists() and not path.is_file():
        raise Problem(f"{path}: is not a regular file")
    else:
        with path.open("rb") as file:
            kind = {b"\x93NUM": ".npy", b"PK\3\4": ".npz", b"PK\5\6": ".npz"}.get(file.read(4), "")
    if dtype is not None:
        if kind in (".zarr", path.suffix or ".zarr"):
            raise Problem(f"{path}: is in the format {kind}, which tells its dtype; --dtype is for raw binary")
        kind = ""
    elif not kind:
        if path.suffix in (".npy", ".npz"):
            raise Problem(f"{path}: is not a {path.suffix} file, or a truncated one")
        raise Problem(f"{path}: is no .npy, .npz or Zarr array; for raw binary say --dtype")
    if member is not None and kind != ".npz":
        raise Problem(f"{path}: is not a .npz file, so it has no member {member!r}")
    return kind


def _locate(text: str, member: str | None) -> Place:
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
    if _kind(path, member, dtype) != ".npz":
        file = stack.enter_context(path.open("rb"))
        return _Stream(file, str(path), os.fstat(file.fileno()).st_size, dtype)
    with _naming(str(path)):
        archive = stack.enter_context(zipfile.ZipFile(path))
        info = _member(archive, path, member)
        member_file = cast(io.BufferedIOBase, stack.enter_context(archive.open(info)))
        return _Stream(member_file, f"{path}:{info.filename}", info.file_size, None)


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Advance]:
    """A progress bar for people who look at it, tqdm's, or none; labelled with the name of the file."""
    if sys.stderr is not None and sys.stderr.isatty() and importlib.util.find_spec("tqdm"):
        with importlib.import_module("tqdm").tqdm(total=total, desc=Path(label).name, unit="B", unit_scale=True) as bar:
            yield bar.update
    else:
        yield lambda done: None


def _sync(*paths: Path) -> None:
    """Wait until they are on the disk."""
    for path in paths:
        if os.name != "posix" and path.is_dir():
            continue  # there folders do not open, and files must be opened for writing
        handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):  # what cannot sync says so
                raise
        finally:
            os.close(handle)


@contextlib.contextmanager
def _whole(out: Path, like: Path, force: bool) -> Iterator[Path]:
    """Yield the name of a file, or a folder if ``like`` is one, that takes the name ``out`` once it is complete.

    It is in a temporary folder beside ``out``, which an error or an interruption removes, and leaves ``out`` as it was.
    """
    out, folder = Path(os.path.realpath(out)), like.is_dir()
    prefix = f".{out.name[:50]}."

    def check() -> None:
        if out.exists() and not (_is_array(out) if folder else out.is_file()):
            raise Problem(f"{out}: is there already and is not a {'Zarr array' if folder else 'regular file'}")
        if out.exists() and not force:
            raise Problem(f"{out}: is there already; --force replaces it")

    check()
    try:
        with tempfile.TemporaryDirectory(".part", prefix, out.parent, ignore_cleanup_errors=True) as place:
            part, old = Path(place, "new"), Path(place).with_suffix(".old")
            yield part
            _sync(*part.rglob("*"), part)
            check()
            # A user may not, or OUT is new, or the file system or Windows has no owners.
            with contextlib.suppress(OSError, AttributeError):
                shutil.copymode(out if out.exists() else like, part)
                os.chown(part, out.stat().st_uid, out.stat().st_gid)
            try:
                if folder and out.exists():  # a folder with something in it cannot be replaced in one step
                    out.rename(old)
                os.replace(part, out)
            finally:
                if old.exists() and not out.exists():
                    old.rename(out)
    except OSError as error:
        named = error.filename2 or error.filename
        if named is None or str(named).startswith(str(out.parent / prefix)):
            error.filename = str(out)
        raise
    if old.exists():
        shutil.rmtree(old)
    with contextlib.suppress(OSError):  # a folder may be writable and not readable
        _sync(out.parent)


def _back_up(path: Path) -> None:
    """Copy to a file or folder with .bak behind its name, and compare."""
    backup = path.with_name(path.name + ".bak")
    if os.path.lexists(backup):
        raise Problem(f"{backup}: is there already; move the backup away first")
    with _whole(backup, path, False) as part:
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, part)
        for copied in (path, *path.rglob("*")):
            if copied.is_file() and not filecmp.cmp(copied, part / copied.relative_to(path), shallow=False):
                raise Problem(f"{backup}: the copy differs from {path}")


@contextlib.contextmanager
def _in_place(path: Path, backup: bool) -> Iterator[Path]:
    if path.is_file():
        path.open("r+b").close()  # may raise, while nothing is overwritten
    if backup:
        _back_up(path)
    try:
        yield path
        _sync(*path.rglob("*"), path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        error.add_note(f"{path} may be partly overwritten" + (f", {path}.bak is as it was" if backup else ""))
        raise


def _check_codecs(zarr: Any, name: str, x: Any) -> None:
    """Refuse codecs that change values. None says so of itself: let a chunk of any bits go through them, in memory."""
    values = np.resize(np.frombuffer(np.random.default_rng(0).bytes(1 << 10), x.dtype), x.chunks)
    options = {"shape": x.chunks, "chunks": x.chunks, "dtype": x.dtype, "zarr_format": x.metadata.zarr_format}
    options |= {key: getattr(x, key) or None for key in ("filters", "compressors")}
    with _naming(name), np.errstate(all="ignore"):
        chunk = zarr.create_array({}, serializer=x.serializer or "auto", **options)
        chunk[...] = values
        kept = np.asarray(chunk[...], values.dtype)
    if kept.tobytes() != values.tobytes():
        codecs = ", ".join(type(codec).__name__ for codec in (*x.filters, *x.compressors))
        raise Problem(f"{name}: its codecs ({codecs}) change values; save it again without the one that does")


class _Job:
    """A function with its parameters, and the files it is applied to: that of x and, for a gradient, that of grad."""

    def __init__(self, function: Callable[..., Any], files: list[Place], dtype: np.dtype[Any] | None) -> None:
        self.function, self.files, self.dtype = function, files, dtype
        self.path = files[0][0]

    def call(self, blocks: list[Array]) -> None:
        """The result takes the place of x."""
        self.function(*reversed(blocks), out=blocks[0])

    def open(self, stack: contextlib.ExitStack) -> list[_Stream]:
        streams = [_open(stack, *file, self.dtype) for file in self.files]
        _check_alike(streams, [each.name for each in streams])
        return streams

    def run(self, streams: list[_Stream], writer: IO[bytes], advance: Advance) -> None:
        """Write the results, block by block."""
        x = streams[0]
        writer.write(x.header)
        advance(len(x.header))
        length = BLOCK // x.dtype.itemsize
        memory = [np.empty(min(length, x.count), each.dtype) for each in streams]
        for start in range(0, x.count, length):
            blocks = [each.read(block[: x.count - start]) for each, block in zip(streams, memory, strict=True)]
            self.call(blocks)
            writer.write(blocks[0].view(np.uint8).data)
            advance(blocks[0].nbytes)

    def to_file(self, target: Target, mode: str, label: str) -> None:
        with target as path, contextlib.ExitStack() as stack:
            streams = self.open(stack)
            writer = stack.enter_context(path.open(mode))
            self.run(streams, writer, stack.enter_context(_progress(label, streams[0].size)))

    def to_archive(self, target: Target, label: str) -> None:
        """A .npz file with one member computed and the others copied."""
        with target as path, contextlib.ExitStack() as stack:
            streams = self.open(stack)
            source = stack.enter_context(zipfile.ZipFile(self.path))
            chosen, every = _member(source, *self.files[0]), source.infolist()
            advance = stack.enter_context(_progress(label, sum(info.file_size for info in every)))
            archive = stack.enter_context(zipfile.ZipFile(path, "w"))
            archive.comment = source.comment
            for info in every:
                new = copy.copy(info)  # its size tells whether the member needs ZIP64,
                new.extra = b""  # the field that says so is then written anew
                with archive.open(new, "w") as writer:
                    if info is chosen:
                        self.run(streams, writer, advance)
                        continue
                    naming = _naming(f"{self.path}:{info.filename}")
                    with naming(source.open)(info) as reader:
                        for block in iter(naming(functools.partial(reader.read, BLOCK)), b""):
                            writer.write(block)
                            advance(len(block))

    def to_zarr(self, target: Target, label: str, new: bool) -> None:
        """Chunk by chunk, or shard by shard."""
        zarr, names = require("zarr", "zarr"), [str(path) for path, _ in self.files]
        arrays = [_naming(name)(zarr.open_array)(name, mode="r") for name in names]
        x = arrays[0]
        _check_dtype(names[0], x.dtype)
        _check_alike(arrays, names)
        if x.size:
            _check_codecs(zarr, names[0], x)

        def compute(region: tuple[slice, ...]) -> int:
            read = [_naming(name)(array.__getitem__)(region) for array, name in zip(arrays, names, strict=True)]
            blocks: list[Array] = [np.require(block, requirements="W") for block in read]
            self.call(blocks)
            with _naming(label):
                result[region] = blocks[0]
            return blocks[0].nbytes

        with target as path, contextlib.ExitStack() as stack:
            path.mkdir(exist_ok=True)
            # The same description gives the same chunks, compression, byte order and attributes.
            for name in _ZARR if new else ():
                if (self.path / name).is_file():
                    shutil.copyfile(self.path / name, path / name)
            result = zarr.open_array(path, mode="r+")
            advance = stack.enter_context(_progress(label, x.nbytes))
            # Signals interrupt this thread, not that one: it ends the chunk it has begun before the folder is removed.
            worker = stack.enter_context(ThreadPoolExecutor(1))
            steps = x.shards or x.chunks
            cuts = ([slice(i, i + k) for i in range(0, n, max(k, 1))] for n, k in zip(x.shape, steps, strict=True))
            for region in itertools.product(*cuts):
                advance(worker.submit(compute, region).result())


def apply(
    function: str,
    input: str,
    output: str | None,
    grad: str | None,
    member: str | None,
    dtype: np.dtype[Any] | None,
    force: bool,
    backup: bool,
    **options: Any,
) -> None:
    """Apply a function to an array in a file, of any size.

    examples:
      elufast apply elu x.npy -o y.npy --alpha 0.5
      elufast apply selu weights.npz:layer1 -o new.npz     (the other members are copied)
      elufast apply celu images.zarr -o out.zarr           (needs the extra `zarr`)
      elufast apply elu x.bin -o y.bin --dtype '>f4'       (raw binary, big-endian)
      elufast apply elu_backward x.npy --grad g.npy -o dx.npy
      elufast apply elu x.npy --in-place --backup

    OUT appears when it is complete, and not at all after an error or Ctrl-C. --in-place needs no
    room for a second file, but an interruption leaves IN partly overwritten: use --backup, or
    -o IN --force, which replaces IN in one step.
    """
    backward = function.endswith("_backward")
    if backward != (grad is not None):
        raise Problem(f"{function} needs --grad FILE" if backward else f"--grad is for {function}_backward")
    if options["from_output"] and not backward:
        raise Problem(f"--from-output is for {function}_backward")
    if backup and output is not None:
        raise Problem("--backup is for --in-place")
    files = [_locate(input, member)] + ([] if grad is None else [_locate(grad, None)])
    kinds = [_kind(*file, dtype) for file in files]
    if ".zarr" in kinds and len({*kinds}) > 1:
        raise Problem(f"{files[1][0]}: IN and --grad must both be Zarr arrays, or neither")
    path, kind = files[0][0], kinds[0]
    job = _Job(bind(function, **options), files, dtype)
    out = None if output is None else Path(output)
    if out is not None and out.suffix != kind and out.suffix in (".npy", ".npz", ".zarr"):
        if (kind, out.suffix) != (".npz", ".npy"):
            raise Problem(f"{out}: the result has the format of {path}, {kind or 'raw binary'}; give it such a name")
        kind = ".npy"
    anew = out is not None or kind == ".npz"
    target = _whole(out or path, path, force or out is None) if anew else _in_place(path, backup)
    label = str(out or path)
    if kind == ".zarr":
        job.to_zarr(target, label, anew)
        return
    with contextlib.ExitStack() as stack:
        job.open(stack)  # what is wrong with the inputs, before anything is written
    if kind == ".npz":
        if backup:
            _back_up(path)
        job.to_archive(target, label)
    else:
        job.to_file(target, "wb" if anew else "r+b", label)
