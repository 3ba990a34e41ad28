"""Applies a function to arrays in files of any size, a block at a time: what is behind ``elufast apply``.

Files are read and written, not mapped: for a new file that is faster, and a full disk or a file that
becomes shorter is then an error, where a map ends the process.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import errno
import filecmp
import functools
import importlib.util
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
from typing import Any, TypeAlias

import numpy as np

import elufast

Opened: TypeAlias = tuple[str, str, Any]  # the kind of a file, a name for messages, a _Stream or an array of Zarr

DTYPES = ("float16", "float32", "float64", "bfloat16")
BLOCK = 1 << 22  # bytes, small enough for the last-level cache


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
    """An array in an open file or a member of an open archive: a header, then the elements in the order of storage."""

    def __init__(self, file: Any, name: str, size: int, dtype: np.dtype[Any] | None, member: Any = None) -> None:
        self.file, self.size, self.member = file, size, member
        if dtype is None:
            with _naming(name):
                major, _ = np.lib.format.read_magic(file)
                if major > 3:
                    raise Problem(f"{name}: is in version {major} of the .npy format; 1 to 3 are known")
                # Version 3 differs from 2 in names of fields that are not ASCII.
                header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                self.shape, fortran, self.dtype = header(file)
                self.fortran = fortran and sum(n > 1 for n in self.shape) > 1
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


def _check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.name not in DTYPES:
        hint = "convert it with NumPy's astype"
        if dtype == "V2":
            hint = "if that is bfloat16, for which .npy has no name, save raw binary and say --dtype bfloat16"
        raise Problem(f"{name}: has dtype {dtype}, none of {', '.join(DTYPES)}; {hint}")


def _check_alike(opened: list[Opened]) -> None:
    """grad, if there is one, and x."""
    (kind, name, _), (x_kind, x_name, _) = opened[0], opened[-1]
    if kind != x_kind and ".zarr" in (kind, x_kind):
        raise Problem(f"{name}: IN and --grad must both be Zarr arrays, or neither")
    seen = [(each.dtype.name, each.shape, "CF"[getattr(each, "fortran", False)]) for *_, each in opened]
    for what, here, there in zip(("dtype", "shape", "order"), seen[0], seen[-1], strict=True):
        if here != there:
            raise Problem(f"{name}: has {what} {here}, and {x_name} has {there}; they must agree")


def _is_array(folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads((folder / "zarr.json").read_bytes())["node_type"] == "array")
    return (folder / ".zarray").is_file()


def _locate(text: str, member: str | None) -> tuple[Path, str | None]:
    """Split IN.npz:member, unless there is a file of that name."""
    head, _, tail = text.rpartition(":")
    if member is None and head and not os.path.lexists(text) and os.path.isfile(head):
        return Path(head), tail
    return Path(text), member


def _member(archive: zipfile.ZipFile, path: str, member: str | None) -> zipfile.ZipInfo:
    names = archive.namelist()
    found = names if member is None else [name for name in (member, f"{member}.npy") if name in names]
    if len(found) == 1 or (found and member is not None):
        return archive.getinfo(found[0])
    listed = ", ".join(name.removesuffix(".npy") for name in names) or "none"
    problem = "name a member with --member" if member is None else f"no member {member!r}"
    raise Problem(f"{path}: {problem}; there are: {listed}")


def _open(stack: contextlib.ExitStack, path: Path, member: str | None, dtype: np.dtype[Any] | None) -> Opened:
    """An array of the kind .npy, .npz, .zarr, or of none, raw binary: by what is there, not by the name."""
    name = str(path)
    if path.is_dir():
        kind = ".zarr"
        if not _is_array(path):
            arrays = ", ".join(str(entry) for entry in sorted(path.iterdir()) if _is_array(entry))
            hint = f"; name one of its Zarr arrays: {arrays}" if arrays else ", not an array"
            raise Problem(f"{name}: is a folder{hint}")
    elif path.exists() and not path.is_file():
        raise Problem(f"{name}: is not a regular file")
    else:
        file = stack.enter_context(path.open("rb"))
        kind = {b"\x93NUM": ".npy", b"PK\3\4": ".npz", b"PK\5\6": ".npz"}.get(file.peek(4)[:4], "")
    if dtype is not None:
        if kind in (".zarr", path.suffix or ".zarr"):
            raise Problem(f"{name}: is in the format {kind}, which tells its dtype; --dtype is for raw binary")
        kind = ""
    elif not kind:
        if path.suffix in (".npy", ".npz"):
            raise Problem(f"{name}: is not a {path.suffix} file, or a truncated one")
        raise Problem(f"{name}: is no .npy, .npz or Zarr array; for raw binary say --dtype")
    if member is not None and kind != ".npz":
        raise Problem(f"{name}: is not a .npz file, so it has no member {member!r}")
    if kind == ".zarr":
        array = _naming(name)(require("zarr", "zarr").open_array)(name, mode="r")
        _check_dtype(name, array.dtype)
        return kind, name, array
    if kind != ".npz":
        return kind, name, _Stream(file, name, os.fstat(file.fileno()).st_size, dtype)
    with _naming(name):
        archive = stack.enter_context(zipfile.ZipFile(file))
        info = _member(archive, name, member)
        name = f"{name}:{info.filename}"
        return kind, name, _Stream(stack.enter_context(archive.open(info)), name, info.file_size, None, (archive, info))


def _progress(label: str, total: int) -> Any:
    """A progress bar for people who look at it, tqdm's, or none; labelled with the name of the file."""
    if sys.stderr is None or not sys.stderr.isatty() or not importlib.util.find_spec("tqdm"):
        return contextlib.nullcontext(argparse.Namespace(update=lambda done: None))
    return importlib.import_module("tqdm").tqdm(total=total, desc=Path(label).name, unit="B", unit_scale=True)


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
    try:
        yield path
        _sync(*path.rglob("*"), path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        error.add_note(f"{path} may be partly overwritten" + (f", {path}.bak is as it was" if backup else ""))
        raise


def _check_codecs(name: str, x: Any) -> None:
    """Refuse codecs that change values. None says so of itself: let a chunk of any bits go through them, in memory."""
    values = np.resize(np.frombuffer(np.random.default_rng(0).bytes(1 << 10), x.dtype), x.chunks)
    options = {"shape": x.chunks, "chunks": x.chunks, "dtype": x.dtype, "zarr_format": x.metadata.zarr_format}
    options |= {key: getattr(x, key) or None for key in ("filters", "compressors")}
    with _naming(name), np.errstate(all="ignore"):
        chunk = require("zarr", "zarr").create_array({}, serializer=x.serializer or "auto", **options)
        chunk[...] = values
        kept = np.asarray(chunk[...], values.dtype)
    if kept.tobytes() != values.tobytes():
        codecs = ", ".join(type(codec).__name__ for codec in (*x.filters, *x.compressors))
        raise Problem(f"{name}: its codecs ({codecs}) change values; save it again without the one that does")


def _results(function: Callable[..., Any], opened: list[Opened]) -> Iterator[bytes | memoryview]:
    """The header, and the results block by block."""
    x = opened[-1][2]
    yield x.header
    length = BLOCK // x.dtype.itemsize
    memory = [np.empty(min(length, x.count), stream.dtype) for *_, stream in opened]
    for start in range(0, x.count, length):
        blocks = [block[: x.count - start] for block in memory]
        for (_, name, stream), block in zip(opened, blocks, strict=True):
            with _naming(name):
                if stream.file.readinto(block.view(np.uint8).data) < block.nbytes:
                    raise Problem(f"{name}: ends early: another program has made it shorter")
        function(*blocks, out=blocks[-1])
        yield blocks[-1].view(np.uint8).data


def _copied(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with _naming(f"{archive.filename}:{info.filename}"), archive.open(info) as reader:
        yield from iter(functools.partial(reader.read, BLOCK), b"")


def _write_archive(function: Callable[..., Any], opened: list[Opened], path: Path, label: str) -> None:
    """A .npz file with one member computed and the others copied."""
    source, chosen = opened[-1][2].member
    total = sum(info.file_size for info in source.infolist())
    with zipfile.ZipFile(path, "w") as archive, _progress(label, total) as bar:
        archive.comment = source.comment
        for info in source.infolist():
            new = copy.copy(info)  # its size tells whether the member needs ZIP64,
            new.extra = b""  # the field that says so is then written anew
            with archive.open(new, "w") as writer:
                for block in _results(function, opened) if info is chosen else _copied(source, info):
                    bar.update(writer.write(block))


def _write_zarr(function: Callable[..., Any], opened: list[Opened], path: Path, like: Path, label: str) -> None:
    """Chunk by chunk, or shard by shard."""

    def compute(region: tuple[slice, ...]) -> int:
        blocks = [np.require(_naming(name)(array.__getitem__)(region), None, "W") for _, name, array in opened]
        function(*blocks, out=blocks[-1])
        _naming(label)(result.__setitem__)(region, blocks[-1])
        return int(blocks[-1].nbytes)

    if path != like:  # the same description gives the same chunks, compression, byte order and attributes
        path.mkdir()
        for name in {"zarr.json", ".zarray", ".zattrs"}.intersection(os.listdir(like)):
            shutil.copyfile(like / name, path / name)
    x, result = opened[-1][2], require("zarr", "zarr").open_array(path, mode="r+")
    # Signals interrupt this thread, not that one: it ends the chunk it has begun before the folder is removed.
    with _progress(label, x.nbytes) as bar, ThreadPoolExecutor(1) as worker:
        steps = x.shards or x.chunks
        cuts = ([slice(i, i + k) for i in range(0, n, max(k, 1))] for n, k in zip(x.shape, steps, strict=True))
        for region in itertools.product(*cuts):
            bar.update(worker.submit(compute, region).result())


def apply(args: argparse.Namespace) -> None:
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
    name, backward = args.function, args.function.endswith("_backward")
    if backward != (args.grad is not None):
        raise Problem(f"{name} needs --grad FILE" if backward else f"--grad is for {name}_backward")
    if args.from_output and not backward:
        raise Problem(f"--from-output is for {name}_backward")
    if args.backup and args.output is not None:
        raise Problem("--backup is for --in-place")
    function = bind(name, alpha=args.alpha, from_output=args.from_output or None, num_threads=args.threads)
    path, member = _locate(args.input, args.member)
    out = path if args.output is None else Path(args.output)
    with contextlib.ExitStack() as inputs:
        opened = [_open(inputs, *_locate(args.grad, None), args.dtype)] if backward else []
        opened.append(_open(inputs, path, member, args.dtype))
        _check_alike(opened)
        kind, name, x = opened[-1]
        if args.output is not None and (kind, out.suffix) == (".npz", ".npy"):
            kind = ".npy"
        elif args.output is not None and out.suffix != kind and out.suffix in (".npy", ".npz", ".zarr"):
            raise Problem(f"{out}: the result has the format of {path}, {kind or 'raw binary'}; give it such a name")
        if kind == ".zarr" and x.size:
            _check_codecs(name, x)
        anew = args.output is not None or kind == ".npz"
        if not anew and path.is_file():
            path.open("r+b").close()  # may raise, while nothing is overwritten
        if args.backup:
            _back_up(path)
        target = _whole(out, path, args.force or args.output is None) if anew else _in_place(path, args.backup)
        with target as place, inputs:  # closed before OUT takes its name, which may be that of IN
            if kind == ".zarr":
                _write_zarr(function, opened, place, path, str(out))
            elif kind == ".npz":
                _write_archive(function, opened, place, str(out))
            else:
                with place.open("wb" if anew else "r+b") as writer, _progress(str(out), x.size) as bar:
                    for block in _results(function, opened):
                        bar.update(writer.write(block))
