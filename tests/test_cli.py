"""The command line: results to the bit, files whole or not at all, every error in one line."""

from __future__ import annotations

import doctest
import errno
import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import DTYPES, LINUX, SANITIZED, Array, run_python, sample

import elufast
from elufast import __main__, _apply

POSIX = os.name == "posix"
posix = pytest.mark.skipif(not POSIX, reason="files, limits and signals as POSIX has them")
linux = pytest.mark.skipif(not LINUX, reason="/proc and /dev/full as Linux has them")
COMMAND = [sys.executable, "-m", "elufast"]


def run(*arguments: object) -> int:
    return __main__.main([str(argument) for argument in arguments])


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail; return its one line."""

    def check(*arguments: object) -> str:
        capsys.readouterr()
        assert run(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("elufast: ")
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        return captured.err

    return check


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small arrays have many blocks, the last one shorter."""
    monkeypatch.setattr(_apply, "BLOCK", 1 << 10)


@pytest.fixture
def zarr() -> ModuleType:
    return pytest.importorskip("zarr", minversion="3")


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def contents(path: Path) -> dict[str, bytes]:
    """Of a file, or of every file in a folder."""
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def same(got: Array, expected: Array) -> None:
    """Bits, dtype with its byte order, shape and memory order."""
    expected = expected.astype(got.dtype.newbyteorder("=")).astype(got.dtype)
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


ARRAYS: dict[str, Callable[[Any], Array]] = {
    "1-d": lambda dtype: sample(dtype, 5003),
    "C": lambda dtype: sample(dtype, 5000).reshape(50, 100),
    "Fortran": lambda dtype: np.asfortranarray(sample(dtype, 5000).reshape(20, 50, 5)),
    "swapped": lambda dtype: sample(dtype, 5001).astype(np.dtype(dtype).newbyteorder()),
    "swapped Fortran": lambda dtype: np.asfortranarray(
        sample(dtype, 900).reshape(30, 30).astype(np.dtype(dtype).newbyteorder())
    ),
    "0-d": lambda dtype: np.array(-1.5, dtype),
    "empty": lambda dtype: np.empty((3, 0, 2), dtype),
}
arrays = pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS.keys())
dtypes = pytest.mark.parametrize("dtype", DTYPES)


# Results


@arrays
@dtypes
@pytest.mark.usefixtures("small_blocks")
def test_npy(tmp_path: Path, make: Callable[[Any], Array], dtype: Any) -> None:
    x = make(dtype)
    np.save(tmp_path / "x.npy", x)
    before = (tmp_path / "x.npy").read_bytes()
    assert run("apply", "celu", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--alpha", "0.3") == 0
    assert listing(tmp_path) == {"x.npy", "y.npy"}
    assert (tmp_path / "x.npy").read_bytes() == before
    y = np.load(tmp_path / "y.npy")
    assert y.dtype == x.dtype
    assert y.flags.f_contiguous == x.flags.f_contiguous
    same(y, elufast.celu(x, 0.3))

    assert run("apply", "celu", tmp_path / "x.npy", "--in-place", "--alpha", "0.3") == 0
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()


@pytest.mark.parametrize(
    ("name", "alpha", "from_output"),
    [
        (name, alpha, from_output)
        for name in (*__main__.FORWARD, *__main__.BACKWARD)
        for alpha in (None, 0.7)
        for from_output in (False, True)
        if not (name.startswith("selu") and alpha) and not (name in __main__.FORWARD and from_output)
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_functions(tmp_path: Path, name: str, alpha: float | None, from_output: bool) -> None:
    backward = name.endswith("_backward")
    x, grad = sample(np.float32, 3001), sample(np.float32, 3001, seed=1).astype(">f4")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "grad.npy", grad)
    arguments: list[object] = ["apply", name, tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--threads", "2"]
    options: dict[str, Any] = {}
    if alpha:
        arguments += ["--alpha", alpha]
        options["alpha"] = alpha
    if from_output:
        arguments += ["--from-output"]
        options["from_output"] = True
    if backward:
        arguments += ["--grad", tmp_path / "grad.npy"]
    assert run(*arguments) == 0
    function = getattr(elufast, name)
    same(np.load(tmp_path / "y.npy"), function(grad, x, **options) if backward else function(x, **options))


@pytest.mark.usefixtures("small_blocks")
def test_grad_may_be_the_file_that_is_overwritten(tmp_path: Path) -> None:
    x = sample(np.float64, 2000)
    path = tmp_path / "x.npy"
    np.save(path, x)
    assert run("apply", "elu_backward", path, "--grad", path, "--in-place") == 0
    same(np.load(path), elufast.elu_backward(x, x))


def test_versions_of_the_format(tmp_path: Path) -> None:
    x = sample(np.float32, 100)
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array(file, x, version)
        assert run("apply", "elu", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--force") == 0
        same(np.load(tmp_path / "y.npy"), elufast.elu(x))


@pytest.mark.parametrize("dtype", ["float32", "float64", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("size", [0, 1, 3001])
@pytest.mark.usefixtures("small_blocks")
def test_raw(tmp_path: Path, dtype: str, size: int) -> None:
    x = sample(np.dtype(dtype).type, size).astype(dtype)
    x.tofile(tmp_path / "x")
    x.tofile(tmp_path / "grad")
    assert run("apply", "elu", tmp_path / "x", "-o", tmp_path / "y", "--dtype", dtype) == 0
    same(np.fromfile(tmp_path / "y", dtype), elufast.elu(x))
    assert (
        run("apply", "selu_backward", tmp_path / "x", "--grad", tmp_path / "grad", "--in-place", "--dtype", dtype) == 0
    )
    same(np.fromfile(tmp_path / "x", dtype), elufast.selu_backward(x, x))


def takes_half() -> bool:
    try:
        elufast.elu(np.zeros(1, np.float16))
    except TypeError:
        return False
    return True


def half_sample(size: int, dtype: Any) -> Array:
    with np.errstate(over="ignore"):
        return sample(np.float32, size).astype(dtype)


needs_half = pytest.mark.skipif(not takes_half(), reason="the functions do not take half precision")


def half(name: str) -> np.dtype[Any]:
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


@needs_half
@pytest.mark.parametrize("name", ["float16", "<f2", ">f2", "bfloat16"])
@pytest.mark.usefixtures("small_blocks")
def test_raw_half(tmp_path: Path, name: str) -> None:
    x = half_sample(3001, half(name))
    (tmp_path / "x").write_bytes(x.tobytes())
    assert run("apply", "elu", tmp_path / "x", "-o", tmp_path / "y", "--dtype", name, "--alpha", "0.3") == 0
    same(np.frombuffer((tmp_path / "y").read_bytes(), half(name)), elufast.elu(x, 0.3))
    backward = ("apply", "elu_backward", tmp_path / "x", "--grad", tmp_path / "y", "--dtype", name)
    assert run(*backward, "--in-place") == 0
    same(np.frombuffer((tmp_path / "x").read_bytes(), half(name)), elufast.elu_backward(elufast.elu(x, 0.3), x))


@needs_half
@pytest.mark.parametrize("dtype", ["<f2", ">f2"])
@pytest.mark.parametrize("kind", [".npy", ".npz", ".zarr"])
@pytest.mark.usefixtures("small_blocks")
def test_half(tmp_path: Path, kind: str, dtype: str) -> None:
    x, path, out = half_sample(3000, dtype).reshape(30, 100), tmp_path / f"x{kind}", tmp_path / f"y{kind}"
    if kind == ".zarr":
        zarr = pytest.importorskip("zarr", minversion="3")
        zarr.create_array(path, shape=x.shape, chunks=(8, 64), dtype=dtype, zarr_format=2)[...] = x
    elif kind == ".npz":
        np.savez(path, x=x)
    else:
        np.save(path, np.asfortranarray(x))
    assert run("apply", "selu", path, "-o", out) == 0
    y = zarr.open_array(out)[...] if kind == ".zarr" else np.load(out)
    same(np.asarray(y["x"] if kind == ".npz" else y), elufast.selu(x))


@pytest.mark.parametrize("name", ["float16", "<f2", ">f2", "bfloat16", "float32", ">f8"])
def test_names_of_dtypes(name: str) -> None:
    assert __main__._dtype(name) == half(name)


def test_bfloat16_in_a_file_that_cannot_say_so(tmp_path: Path, fails: Callable[..., str]) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3, half("bfloat16")))
    told = "if that is bfloat16, for which .npy has no name, save raw binary and say --dtype bfloat16"
    assert told in fails("apply", "elu", tmp_path / "x.npy", "--in-place")


@pytest.fixture(params=[np.savez, np.savez_compressed])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A .npz file whose other members are of every kind, one of them not even an array."""
    path = tmp_path / "x.npz"
    request.param(
        path,
        w=sample(np.float32, 3000).reshape(30, 100),
        **{"a/b": np.asfortranarray(sample(np.float64, 600).reshape(20, 30)), "c:d": sample(np.float32, 7)},
        ints=np.arange(5),
        objects=np.array([{}, None], object),
    )
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("notes.txt", "x" * 5000, zipfile.ZIP_DEFLATED)
        file.comment = b"about it"
    yield path


@pytest.mark.parametrize(
    ("place", "options", "member"),
    [("x.npz:w", [], "w"), ("x.npz:a/b.npy", [], "a/b"), ("x.npz", ["--member", "c:d"], "c:d")],
)
@pytest.mark.usefixtures("small_blocks")
def test_npz(tmp_path: Path, archive: Path, place: str, options: list[str], member: str) -> None:
    with np.load(archive) as loaded:
        expected = elufast.elu(loaded[member])
    assert run("apply", "elu", tmp_path / place, *options, "-o", tmp_path / "y.npz") == 0
    assert listing(tmp_path) == {"x.npz", "y.npz"}
    with zipfile.ZipFile(archive) as before, zipfile.ZipFile(tmp_path / "y.npz") as after:
        assert after.comment == before.comment
        assert after.namelist() == before.namelist()
        for old, new in zip(before.infolist(), after.infolist(), strict=True):
            for name in ("file_size", "compress_type", "date_time", "external_attr"):
                assert getattr(new, name) == getattr(old, name)
            assert (before.read(old) == after.read(new)) == (old.filename != f"{member}.npy")
    with np.load(tmp_path / "y.npz") as loaded:
        same(loaded[member], expected)
        assert loaded[member].flags.f_contiguous == expected.flags.f_contiguous

    assert run("apply", "elu", tmp_path / place, *options, "-o", tmp_path / "y.npy") == 0
    same(np.load(tmp_path / "y.npy"), expected)

    assert run("apply", "elu", tmp_path / place, *options, "--in-place", "--backup") == 0
    assert listing(tmp_path) == {"x.npz", "x.npz.bak", "y.npz", "y.npy"}
    with np.load(archive) as loaded, np.load(tmp_path / "x.npz.bak") as original:
        same(loaded[member], expected)
        same(elufast.elu(original[member]), expected)


def test_npz_of_one_member_needs_no_name(tmp_path: Path) -> None:
    x, grad = sample(np.float32, 100), sample(np.float32, 100, seed=1)
    np.savez(tmp_path / "x.npz", x)
    np.savez(tmp_path / "grad.npz", grad=grad, other=x)
    grad_path = f"{tmp_path / 'grad.npz'}:grad"
    assert run("apply", "elu_backward", tmp_path / "x.npz", "--grad", grad_path, "-o", tmp_path / "y.npz") == 0
    with np.load(tmp_path / "y.npz") as loaded:
        same(loaded["arr_0"], elufast.elu_backward(grad, x))


@posix
def test_a_colon_in_a_name(tmp_path: Path) -> None:
    x = sample(np.float32, 100)
    (tmp_path / "a").touch()
    with (tmp_path / "a:b").open("wb") as file:
        np.save(file, x)
    assert run("apply", "elu", tmp_path / "a:b", "--in-place") == 0
    same(np.load(tmp_path / "a:b"), elufast.elu(x))


ZARR_ARRAYS: dict[str, dict[str, Any]] = {
    "chunks": {"shape": (50, 70), "chunks": (16, 32), "attributes": {"unit": "m"}, "dimension_names": ("a", "b")},
    "shards": {"shape": (50, 70), "chunks": (4, 8), "shards": (16, 32)},
    "version 2": {"shape": (50, 70), "chunks": (16, 32), "zarr_format": 2, "order": "F", "attributes": {"unit": "m"}},
    "big-endian": {"shape": (300,), "chunks": (64,), "zarr_format": 2, "dtype": ">f4"},
    "fill value": {"shape": (300,), "chunks": (64,), "fill_value": -1.0},
    "0-d": {"shape": (), "chunks": ()},
    "empty": {"shape": (0, 3), "chunks": (1, 3)},
}


@pytest.fixture(params=ZARR_ARRAYS.values(), ids=ZARR_ARRAYS.keys())
def store(request: pytest.FixtureRequest, tmp_path: Path, zarr: ModuleType) -> Path:
    path = tmp_path / "x.zarr"
    array = zarr.create_array(path, **{"dtype": "float32"} | request.param)
    values = sample(np.float32, int(array.size)).reshape(array.shape)
    array[...] = values
    if "fill_value" in request.param:
        shutil.rmtree(path / "c")  # no chunk is there, all elements are the fill value
    return path


def test_zarr(tmp_path: Path, store: Path, zarr: ModuleType) -> None:
    before = contents(store)
    x = zarr.open_array(store, mode="r")
    expected = elufast.elu(x[...], 0.3)
    assert run("apply", "elu", store, "-o", tmp_path / "y.zarr", "--alpha", "0.3") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"x.zarr", "y.zarr"}
    assert contents(store) == before
    y = zarr.open_array(tmp_path / "y.zarr", mode="r")
    assert y.metadata == x.metadata
    same(np.asarray(y[...]), expected)

    assert run("apply", "elu_backward", store, "--grad", tmp_path / "y.zarr", "--in-place", "--backup") == 0
    x, original = zarr.open_array(store, mode="r"), zarr.open_array(tmp_path / "x.zarr.bak", mode="r")
    assert contents(tmp_path / "x.zarr.bak") == before
    same(np.asarray(x[...]), elufast.elu_backward(expected, original[...]))
    assert {path.name for path in tmp_path.iterdir()} == {"x.zarr", "x.zarr.bak", "y.zarr"}


LOSSLESS: dict[str, dict[str, Any]] = {
    "Shuffle": {"zarr_format": 2, "filters": [{"id": "shuffle", "elementsize": 4}]},
    "wider": {"zarr_format": 2, "filters": [{"id": "astype", "encode_dtype": "<f8", "decode_dtype": "<f4"}]},
    "two": {"zarr_format": 2, "filters": [{"id": "shuffle", "elementsize": 4}, {"id": "zlib", "level": 1}]},
    "transposed": {"filters": [{"name": "transpose", "configuration": {"order": [1, 0]}}], "shards": (16, 32)},
    "bytes": {"compressors": None, "serializer": {"name": "bytes", "configuration": {"endian": "big"}}},
}
# Differences of floats are rounded, and a NaN among them spreads.
LOSSY: dict[str, dict[str, Any]] = {
    "FixedScaleOffset": {"offset": 0, "scale": 10, "dtype": "<f4", "astype": "|u1"},
    "Quantize": {"digits": 3, "dtype": "<f4"},
    "AsType": {"encode_dtype": "<f2", "decode_dtype": "<f4"},
    "BitRound": {"keepbits": 20},
    "Delta": {"dtype": "<f4"},
}
FORMAT_3 = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")


@pytest.mark.parametrize("options", LOSSLESS.values(), ids=LOSSLESS.keys())
def test_codecs_that_keep_values(tmp_path: Path, zarr: ModuleType, options: dict[str, Any]) -> None:
    numcodecs = importlib.import_module("numcodecs")
    x = sample(np.float32, 3000).reshape(50, 60)
    options = {"shape": x.shape, "chunks": (8, 16), "dtype": "float32"} | options
    if "zarr_format" in options:
        options["filters"] = [numcodecs.get_codec(each) for each in options["filters"]]
    zarr.create_array(tmp_path / "x.zarr", **options)[...] = x
    assert run("apply", "elu", tmp_path / "x.zarr", "-o", tmp_path / "y.zarr") == 0
    same(zarr.open_array(tmp_path / "y.zarr")[...], elufast.elu(x))


@FORMAT_3
@pytest.mark.parametrize("sharded", [None, False, True], ids=["format 2", "format 3", "shards"])
@pytest.mark.parametrize("codec", LOSSY)
def test_codecs_that_change_values(
    tmp_path: Path, zarr: ModuleType, codec: str, sharded: bool | None, fails: Callable[..., str]
) -> None:
    numcodecs = importlib.import_module("numcodecs")
    path, configuration = tmp_path / "x.zarr", LOSSY[codec]
    filters = [numcodecs.get_codec({"id": codec.lower(), **configuration})]
    options: dict[str, Any] = {"zarr_format": 2, "filters": filters}
    if sharded is not None:
        options = {"filters": [{"name": f"numcodecs.{codec.lower()}", "configuration": configuration}]}
        options["shards"] = (256,) if sharded else None
    zarr.create_array(path, shape=(300,), chunks=(64,), dtype="float32", **options)
    before = contents(tmp_path)
    for to in (["-o", tmp_path / "y.zarr"], ["--in-place", "--backup"]):
        told = fails("apply", "selu", path, *to)
        assert f"x.zarr: its codecs ({codec}, Zstd" in told
        assert "change values" in told
    assert contents(tmp_path) == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.zarr"}


def test_zarr_array_of_a_group(tmp_path: Path, zarr: ModuleType, fails: Callable[..., str]) -> None:
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    group.create_array("a", shape=(9,), chunks=(4,), dtype="float64")[...] = np.linspace(-1, 1, 9)
    assert f"name one of its Zarr arrays: {tmp_path / 'g.zarr' / 'a'}\n" in fails(
        "apply", "elu", tmp_path / "g.zarr", "--in-place"
    )
    assert run("apply", "elu", tmp_path / "g.zarr" / "a", "-o", tmp_path / "g.zarr" / "b") == 0
    same(np.asarray(zarr.open_group(tmp_path / "g.zarr")["b"][...]), elufast.elu(np.linspace(-1, 1, 9)))


# Files whole or not at all


class Interrupt:
    """elufast.elu, with something else in place of a later block."""

    def __init__(self, raised: BaseException) -> None:
        self.raised, self.left, self.elu = raised, 2, elufast.elu

    def __call__(self, x: Array, *arguments: Any, **options: Any) -> Any:
        self.left -= x.size > 0
        if not self.left:
            raise self.raised
        return self.elu(x, *arguments, **options)


def make_input(folder: Path, kind: str) -> tuple[Path, list[str]]:
    """A file of this kind with several blocks; its path and the options that it needs."""
    path, x = folder / f"x{kind}", sample(np.float32, 3000)
    if kind == ".npy":
        np.save(path, x)
    elif kind == ".npz":
        np.savez_compressed(path, x=x)
    elif kind == ".zarr":
        pytest.importorskip("zarr", minversion="3").create_array(path, data=x, chunks=(256,))
    else:
        x.tofile(path)
    return path, ["--dtype", "float32"] if kind == ".bin" else []


kinds = pytest.mark.parametrize("kind", [".npy", ".npz", ".bin", ".zarr"])


@kinds
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "elufast: interrupted\n"),
        (OSError(28, "No space left on device"), 2, ": No space left on device\n"),
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_interrupted(
    tmp_path: Path,
    kind: str,
    force: bool,
    raised: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, options = make_input(tmp_path, kind)
    out = path.with_stem("y")
    if force:
        assert run("apply", "elu", path, "-o", out, *options) == 0
        options.append("--force")
    before = contents(tmp_path)
    monkeypatch.setattr(elufast, "elu", Interrupt(raised))
    assert run("apply", "elu", path, "-o", out, *options) == code
    assert contents(tmp_path) == before
    line = capsys.readouterr().err
    assert line.endswith(text)
    assert line.count("\n") == 1


@kinds
def test_old_file_stays_if_the_last_step_fails(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    path, options = make_input(tmp_path, kind)
    out = path.with_stem("y")
    assert run("apply", "elu", path, "-o", out, *options) == 0
    before, replace = contents(tmp_path), os.replace

    def refuse(source: Path, target: Path) -> None:
        if target == out:
            raise PermissionError(13, "Permission denied", str(target))
        replace(source, target)  # one of Zarr's own files

    monkeypatch.setattr(os, "replace", refuse)
    assert f"y{kind}: Permission denied" in fails("apply", "selu", path, "-o", out, "--force", *options)
    assert contents(tmp_path) == before


@kinds
@pytest.mark.parametrize("backup", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_interrupted_in_place(
    tmp_path: Path,
    kind: str,
    backup: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, options = make_input(tmp_path, kind)
    copy = shutil.copytree if path.is_dir() else shutil.copyfile
    copy(path, tmp_path / "original")
    monkeypatch.setattr(elufast, "elu", Interrupt(KeyboardInterrupt()))
    assert run("apply", "elu", path, "--in-place", *options, *["--backup"][:backup]) == 130
    line = capsys.readouterr().err
    if kind == ".npz":
        assert line == "elufast: interrupted\n"
        assert path.read_bytes() == (tmp_path / "original").read_bytes()
    else:
        told = f"; {path} may be partly overwritten" + f", {path}.bak is as it was" * backup
        assert line == f"elufast: interrupted{told}\n"
    if backup or kind == ".npz":
        kept, original = (Path(f"{path}.bak") if backup else path), tmp_path / "original"
        assert contents(kept) == contents(original)
    names = {path.name, "original"} | ({f"{path.name}.bak"} if backup else set())
    assert {entry.name for entry in tmp_path.iterdir()} == names


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """4 GiB of zeros, of which the disk holds nothing."""
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 30,)})
        file.truncate(file.tell() + (4 << 30))
    return path


# Where the tests run in the background, a shell may have had SIGINT ignored.
INTERRUPTIBLE = """
import signal, sys
from elufast.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


def interrupt(number: signal.Signals, folder: Path, *arguments: object) -> tuple[int, str]:
    """Send a signal once some of the result has been written; return the exit status and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "apply", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    while not any(path.stat().st_size > 1 << 20 for path in folder.glob(".*.part/*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


@posix
@pytest.mark.parametrize("out_is_there", [False, True])
@pytest.mark.parametrize(
    ("number", "code", "told", "left"),
    [
        ("SIGINT", 130, "elufast: interrupted\n", 0),
        ("SIGTERM", 143, "", 0),
        ("SIGKILL", -9, "", 1),  # nobody can tidy up
    ],
)
def test_signal(tmp_path: Path, huge: Path, out_is_there: bool, number: str, code: int, told: str, left: int) -> None:
    out = tmp_path / "y.npy"
    if out_is_there:
        out.write_bytes(b"old")
    before = huge.stat()
    ended = interrupt(getattr(signal, number), tmp_path, "celu", huge, "-o", out, "--force")
    assert ended == (code, told)
    assert contents(out) == ({".": b"old"} if out_is_there else {})
    assert (huge.stat().st_mtime_ns, huge.stat().st_size) == (before.st_mtime_ns, before.st_size)
    parts = list(tmp_path.glob(".*.part"))
    assert len(parts) == left
    for part in parts:
        shutil.rmtree(part)


SIGNALLED = """
import shutil, signal, sys
from pathlib import Path
import elufast
from elufast.__main__ import main

number = getattr(signal, sys.argv[1])
signal.signal(number, getattr(signal, sys.argv[2]))

def signalled(function):
    def call(*arguments, **options):
        signal.raise_signal(number)
        return function(*arguments, **options)
    return call

elu = elufast.elu
elufast.elu = lambda x, **options: (signalled(elu) if x.size else elu)(x, **options)
Path.unlink, shutil.rmtree = signalled(Path.unlink), signalled(shutil.rmtree)  # again, while it is tidied up
sys.exit(main(["apply", "elu", *sys.argv[3:]]))
"""


def signalled(*arguments: object) -> tuple[int, str]:
    words = [sys.executable, "-c", SIGNALLED, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@posix
@pytest.mark.parametrize("kind", [".npy", ".zarr"])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGXCPU", 152)])
def test_signals_leave_nothing_behind(tmp_path: Path, kind: str, name: str, code: int) -> None:
    path, _ = make_input(tmp_path, kind)
    before = contents(tmp_path)
    told = "elufast: interrupted\n" if name == "SIGINT" else ""
    assert signalled(name, "SIG_DFL", path, "-o", path.with_stem("y")) == (code, told)
    assert contents(tmp_path) == before
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name}


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_that_are_ignored(tmp_path: Path, name: str) -> None:
    path, _ = make_input(tmp_path, ".npy")
    assert signalled(name, "SIG_IGN", path, "-o", tmp_path / "y.npy") == (0, "")
    same(np.load(tmp_path / "y.npy"), elufast.elu(np.load(path)))


@kinds
def test_in_a_thread(tmp_path: Path, kind: str) -> None:
    path, options = make_input(tmp_path, kind)
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, "apply", "elu", path, "-o", path.with_stem("y"), *options).result() == 0
    assert run("apply", "elu", path, "-o", path.with_stem("z"), *options) == 0
    assert contents(path.with_stem("y")) == contents(path.with_stem("z"))
    assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers


@posix
def test_a_chunk_is_not_interrupted(
    tmp_path: Path, zarr: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zarr's threads go on with what they have begun, and would put back a folder that has been removed."""
    path, _ = make_input(tmp_path, ".zarr")
    before, write, written = contents(tmp_path), zarr.Array.__setitem__, []

    def interrupted_write(array: Any, region: Any, block: Array) -> None:
        if array.shape == (3000,):  # not the trial of the codecs
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            written.append(region)
        write(array, region, block)

    monkeypatch.setattr(zarr.Array, "__setitem__", interrupted_write)
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run("apply", "elu", path, "-o", tmp_path / "y.zarr") == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert capsys.readouterr().err == "elufast: interrupted\n"
    assert len(written) == 1
    assert contents(tmp_path) == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.zarr"}


@posix
@kinds
def test_disk_full(tmp_path: Path, kind: str) -> None:
    """A limit on the size of a file stands for a disk that is full."""
    path, options = make_input(tmp_path, kind)
    code = """
import resource, sys
from elufast.__main__ import main
if sys.argv[2].endswith(".zarr"):
    import zarr
resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
sys.exit(main(sys.argv[1:]) - 2)
"""
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code, "apply", "selu", path, "-o", path.with_stem("y"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("y" + kind + ": File too large\n") or kind == ".zarr"
    assert done.stderr.count("\n") == 1
    assert contents(tmp_path) == before


@kinds
@pytest.mark.parametrize("to", ["-o", "--in-place"])
def test_file_systems_that_cannot_sync(
    tmp_path: Path, kind: str, to: str, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    path, options = make_input(tmp_path, kind)
    arguments = ["apply", "elu", path, *options, *([to, path, "--force"] if to == "-o" else [to])]
    for number in (errno.EINVAL, errno.ENOTSUP, errno.EIO):

        def refuse(handle: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", refuse)
        if number == errno.EIO:
            assert f"{path.name}: {os.strerror(number)}" in fails(*arguments)
        else:
            assert run(*arguments) == 0


@posix
def test_permissions(tmp_path: Path) -> None:
    x, y = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(x, sample(np.float32, 10))
    x.chmod(0o640)
    assert run("apply", "elu", x, "-o", y) == 0
    assert stat.S_IMODE(y.stat().st_mode) == 0o640
    y.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(y, 1234, 1234)
    owner = y.stat().st_uid
    assert run("apply", "elu", x, "-o", y, "--force") == 0
    assert (stat.S_IMODE(y.stat().st_mode), y.stat().st_uid) == (0o604, owner)
    assert run("apply", "elu", y, "--in-place") == 0
    assert stat.S_IMODE(y.stat().st_mode) == 0o604


@posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    x = sample(np.float32, 10)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "link.npy").symlink_to("x.npy")
    assert run("apply", "elu", tmp_path / "link.npy", "-o", tmp_path / "link.npy", "--force") == 0
    assert (tmp_path / "link.npy").is_symlink()
    same(np.load(tmp_path / "x.npy"), elufast.elu(x))


@kinds
def test_in_may_be_out(tmp_path: Path, kind: str) -> None:
    path, options = make_input(tmp_path, kind)
    out = path.with_stem("y")
    assert run("apply", "elu", path, "-o", out, *options) == 0
    assert run("apply", "elu", path, "-o", path, "--force", *options) == 0
    assert contents(path) == contents(out)
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, out.name}


def test_backup_that_differs(tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = make_input(tmp_path, ".npy")
    before = contents(tmp_path)
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: target.write_bytes(source.read_bytes()[:5]))
    assert "x.npy.bak: the copy differs" in fails("apply", "elu", path, "--in-place", "--backup")
    assert contents(tmp_path) == before


# Memory

MEMORY = """
import re, resource, sys
from pathlib import Path
from elufast.__main__ import main

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

small, large, out, limit = *sys.argv[1:4], int(sys.argv[4])
member = ["--member", "x"] if out.endswith(".npz") else []
assert main(["apply", "selu", small, "-o", out, *member]) == 0
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + limit,) * 2)
before = status("VmHWM")
assert main(["apply", "selu", large, "-o", out, "--force", *member]) == 0
print(status("VmHWM") - before)
"""


def make_sized(path: Path, megabytes: int) -> Path:
    """Zeros that take little room."""
    x = np.broadcast_to(np.float32(0), megabytes << 18)
    if path.suffix == ".npy":
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": x.shape})
            file.truncate(file.tell() + x.nbytes)
    elif path.suffix == ".npz":
        half = x[: x.size // 2]
        np.savez_compressed(path, x=half, other=half)
    else:
        zarr = pytest.importorskip("zarr", minversion="3")
        zarr.create_array(path, shape=x.shape, chunks=(1 << 18,), dtype="float32", fill_value=-1)[...] = x
    return path


@linux
@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer holds back what is freed")
@pytest.mark.parametrize(
    ("kind", "megabytes", "limit"),
    [(".npy", 128, 40 << 20), (".npz", 64, 24 << 20), (".zarr", 64, 0)],  # Zarr's threads reserve much and use little
)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str, megabytes: int, limit: int) -> None:
    small, large = make_sized(tmp_path / f"small{kind}", 8), make_sized(tmp_path / f"large{kind}", megabytes)
    grown = int(run_python(MEMORY, str(small), str(large), str(tmp_path / f"out{kind}"), str(limit)))
    assert grown < 24 << 20


# Errors


@pytest.mark.parametrize("alpha", ["-1e-3", "-1.", "-.5", "-1E+2", "-0", "-1_0"])
@pytest.mark.parametrize("option", ["--alpha", "--alp"])
def test_negative_numbers(tmp_path: Path, option: str, alpha: str) -> None:
    path, _ = make_input(tmp_path, ".npy")
    assert run("apply", "elu", path, option, alpha, "-o", tmp_path / "y.npy") == 0
    same(np.load(tmp_path / "y.npy"), elufast.elu(np.load(path), float(alpha)))


NAMES = [
    "-x",
    "--x",
    "-1e-3",
    "-help",
    "-out",
    "-",
    " a  b ",
    "a=b",
    "--alpha=2",
    "'\"$x`\n",
    "\u00fc",
    os.fsdecode(b"\xff"),
]


@posix
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [".npy", ".zarr"])
def test_names_of_files(tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = make_input(tmp_path, kind)
    path.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert run("apply", "--from-output", "elu_backward", "--grad", name, "-o", f"-y{name}", "--", name) == 0
    assert {entry.name for entry in tmp_path.iterdir()} == {name, f"-y{name}"}


@posix
def test_names_that_are_told(fails: Callable[..., str]) -> None:
    for name in ("-x", "a  b ", "\u00fc"):
        assert fails("apply", "elu", "--in-place", "--", name) == f"elufast: {name}: No such file or directory\n"
    done = subprocess.run(
        [*COMMAND, "apply", "elu", b"\xff", "--in-place"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "elufast: \\udcff: No such file or directory\n")


def test_errors_of_arguments(fails: Callable[..., str], tmp_path: Path) -> None:
    path, _ = make_input(tmp_path, ".npy")
    before = contents(tmp_path)
    for arguments, told in (
        ([], "the following arguments are required: COMMAND (elufast --help)"),
        (["fly"], "invalid choice: 'fly'"),
        (["apply", "elu"], "the following arguments are required: IN (elufast apply --help)"),
        (["apply", "relu", path, "--in-place"], "invalid choice: 'relu'"),
        (["apply", "elu", path], "one of the arguments -o/--output --in-place is required"),
        (["apply", "elu", path, "--in-place", "-o", "y"], "not allowed with argument"),
        (["apply", "elu", path, "--in-place", "--alpha", "x"], "invalid float value: 'x'"),
        (["apply", "elu", path, "--in-place", "--alpha", "nan"], "alpha must be finite, got nan"),
        (["apply", "elu", path, "--in-place", "--alpha", "-inf"], "alpha must be finite, got -inf"),
        (["apply", "elu", path, "--in-place", "--alpha", "-x"], "invalid float value: '-x'"),
        (["apply", "elu", path, "--in-place", "--alpha", ""], "invalid float value: ''"),
        (["apply", "elu", path, "--in-place", "--alpha"], "argument --alpha: expected one argument"),
        (["apply", "elu", path, "-o", "--force"], "argument -o/--output: expected one argument"),
        (["apply", "elu", "", "--in-place"], "argument IN: '' is not the name of a file"),
        (["apply", "elu", "a\0b", "--in-place"], "argument IN: 'a\\x00b' is not the name of a file"),
        (["apply", "elu", path, "-o", ""], "argument -o/--output: '' is not the name of a file"),
        (["apply", "elu_backward", path, "--in-place", "--grad", ""], "argument --grad: '' is not the name of a file"),
        (["apply", "elu", path, "--in-place", "--member", ""], "is not a .npz file, so it has no member ''"),
        (["apply", "elu", path, "--in-place", "--dtype", ""], "'' is none of float16, "),
        (["apply", "elu", path, "--in-place", "--threads", "-1e3"], "argument --threads: invalid int value: '-1e3'"),
        (["bench", "--plot", ""], "argument --plot: '' is not the name of a file"),
        (["plot", "elu", "-o", ""], "argument -o/--output: '' is not the name of a file"),
        (["apply", "celu", path, "--in-place", "--alpha", "0"], "alpha must not be 0"),
        (["apply", "selu", path, "--in-place", "--alpha", "1"], "selu has no --alpha"),
        (["apply", "elu_backward", path, "--in-place"], "elu_backward needs --grad FILE"),
        (["apply", "elu", path, "--in-place", "--grad", path], "--grad is for elu_backward"),
        (["apply", "elu", path, "--in-place", "--from-output"], "--from-output is for elu_backward"),
        (
            ["apply", "elu_backward", path, "--in-place", "--grad", path, "--from-output", "--alpha", "-1"],
            "from_output=True needs alpha > 0",
        ),
        (["apply", "elu", path, "-o", tmp_path / "y.npy", "--backup"], "--backup is for --in-place"),
        (["apply", "elu", path, "--in-place", "--threads", "0"], "elu: num_threads must be at least 1, got 0"),
        (["apply", "elu", path, "--in-place", "--threads", "two"], "argument --threads: invalid int value: 'two'"),
        (
            ["apply", "elu", path, "--in-place", "--dtype", "int32"],
            "'int32' is none of float16, float32, float64, bfloat16, '<f2', ",
        ),
        (["apply", "elu", path, "--in-place", "--dtype", "single-ish"], "'single-ish' is none of float16, "),
        (["apply", "elu", path, "--in-place", "--dtype", "float32"], "is in the format .npy, which tells its dtype"),
        (["apply", "elu", path, "--in-place", "--member", "w"], "is not a .npz file, so it has no member 'w'"),
        (["plot", "selu", "--alpha", "1"], "selu has no --alpha"),
        (["--print-completion", "ksh"], "invalid choice: 'ksh'"),
    ):
        assert told in fails(*arguments)
    assert contents(tmp_path) == before


def write(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def test_errors_of_files(fails: Callable[..., str], tmp_path: Path) -> None:
    path, _ = make_input(tmp_path, ".npy")
    whole = path.read_bytes()
    np.savez(tmp_path / "two.npz", a=np.ones(3), b=np.ones(3))
    empty = tmp_path / "empty.npz"
    zipfile.ZipFile(empty, "w").close()
    compressed, _ = make_input(tmp_path, ".npz")
    damaged = bytearray(compressed.read_bytes())
    damaged[2000] ^= 255
    for name, content in (
        ("short.npy", whole[:-1]),
        ("header.npy", whole[:50]),
        ("nothing.npy", b""),
        ("long.npy", whole + b"1234"),
        ("future.npy", whole[:6] + b"\x09" + whole[7:]),
        ("text", b"hello"),
        ("odd", b"123456789"),
        ("end.npz", compressed.read_bytes()[:-30]),
        ("damaged.npz", damaged),
    ):
        (tmp_path / name).write_bytes(content)
    write(tmp_path / "int.npy", np.arange(3))
    write(tmp_path / "void.npy", np.zeros(3, "V2"))
    write(tmp_path / "complex.npy", np.ones(3, complex))
    write(tmp_path / "object.npy", np.array([{}], object))
    write(tmp_path / "record.npy", np.zeros(3, [("a", "f4")]))
    before = contents(tmp_path)
    for name, told in (
        ("missing.npy", "missing.npy: No such file or directory"),
        ("missing.npz:a", "missing.npz:a: No such file or directory"),
        ("short.npy", "short.npy: truncated: 12128 bytes are needed and 12127 are there"),
        ("header.npy", "header.npy: EOF: reading array header"),
        ("nothing.npy", "nothing.npy: is not a .npy file, or a truncated one"),
        ("long.npy", "long.npy: 4 bytes follow the last float32 element"),
        ("future.npy", "future.npy: is in version 9 of the .npy format"),
        ("text", "text: is no .npy, .npz or Zarr array; for raw binary say --dtype"),
        ("", f"{tmp_path}: is a folder, not an array"),
        ("int.npy", "int.npy: has dtype int64, none of float16, float32, float64, bfloat16; convert it"),
        ("void.npy", "has dtype |V2, none of float16, float32, float64, bfloat16; if that is bfloat16, for which"),
        ("complex.npy", "has dtype complex128"),
        ("object.npy", "has dtype object"),
        ("record.npy", "has dtype [('a', '<f4')]"),
        ("two.npz", "two.npz: name a member with --member; there are: a, b"),
        ("two.npz:c", "two.npz: no member 'c'; there are: a, b"),
        ("empty.npz", "empty.npz: name a member with --member; there are: none"),
        ("end.npz", "end.npz: File is not a zip file"),
        ("damaged.npz", "damaged.npz:x.npy: "),
        ("x.npy:a", "x.npy: is not a .npz file, so it has no member 'a'"),
    ):
        place = tmp_path / name if name else tmp_path
        options = ["--backup"] * (name != "damaged.npz")  # that is found out later
        assert told in fails("apply", "elu", place, "--in-place", *options)
        assert told in fails("apply", "elu", place, "-o", tmp_path / "y")
    assert "odd: 1 bytes follow" in fails("apply", "elu", tmp_path / "odd", "-o", tmp_path / "y", "--dtype", "<f4")
    assert contents(tmp_path) == before


def test_errors_of_grad(fails: Callable[..., str], tmp_path: Path) -> None:
    x = write(tmp_path / "x.npy", sample(np.float32, 100).reshape(4, 25))
    backward = ("apply", "elu_backward", x, "--in-place", "--grad")
    assert "g.npy: has dtype float64, and " in fails(*backward, write(tmp_path / "g.npy", np.ones((4, 25))))
    assert "g.npy: has shape (25, 4), and " in fails(*backward, write(tmp_path / "g.npy", np.ones((25, 4), "f4")))
    fortran = write(tmp_path / "g.npy", np.ones((4, 25), "f4", "F"))
    assert "g.npy: has order F, and " in fails(*backward, fortran)
    assert "none.npy: No such file" in fails(*backward, tmp_path / "none.npy")
    same(np.load(x), sample(np.float32, 100).reshape(4, 25))


def test_errors_of_out(fails: Callable[..., str], tmp_path: Path) -> None:
    path, _ = make_input(tmp_path, ".npy")
    (tmp_path / "y.npy").write_bytes(b"precious")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "x.npy.bak").touch()
    before = contents(tmp_path)
    for out, told in (
        ("y.npy", "y.npy: is there already; --force replaces it"),
        ("folder.npy", "folder.npy: is there already and is not a regular file"),
        ("none/y.npy", "none/y.npy: No such file or directory"),
        ("y.npz", "y.npz: the result has the format of "),
        ("y.zarr", "y.zarr: the result has the format of "),
    ):
        assert told in fails("apply", "elu", path, "-o", tmp_path / out)
    if POSIX:
        assert "/dev/null: is there already and is not a regular file" in fails(
            "apply", "elu", path, "-o", "/dev/null", "--force"
        )
        os.mkfifo(tmp_path / "pipe")
        assert "pipe: is not a regular file" in fails("apply", "elu", tmp_path / "pipe", "-o", tmp_path / "z")
        assert "/dev/zero: is not a regular file" in fails("apply", "elu", "/dev/zero", "-o", tmp_path / "z")
    assert "x.npy.bak: is there already" in fails("apply", "elu", path, "--in-place", "--backup")
    assert contents(tmp_path) == before


def test_out_that_appears_meanwhile(tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = make_input(tmp_path, ".npy")
    out, elu = tmp_path / "y.npy", elufast.elu

    def write_out(x: Array, **options: Any) -> None:
        elu(x, **options)
        if x.size:
            out.write_bytes(b"another")

    monkeypatch.setattr(elufast, "elu", write_out)
    assert "y.npy: is there already" in fails("apply", "elu", path, "-o", out)
    assert contents(out) == {".": b"another"}
    assert listing(tmp_path) == {"x.npy", "y.npy"}


@posix
def test_file_that_becomes_shorter(tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, elu = make_sized(tmp_path / "x.npy", 16), elufast.elu

    def shorten(x: Array, **options: Any) -> None:
        elu(x, **options)
        if x.size:
            os.truncate(path, 9 << 20)

    monkeypatch.setattr(elufast, "elu", shorten)
    assert "x.npy: ends early" in fails("apply", "elu", path, "-o", tmp_path / "y.npy")
    assert listing(tmp_path) == {"x.npy"}


@posix
def test_permission_denied(tmp_path: Path, fails: Callable[..., str]) -> None:
    path, _ = make_input(tmp_path, ".npy")
    path.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        assert "x.npy: Permission denied" in fails("apply", "elu", path, "-o", tmp_path / "y.npy")
    finally:
        os.seteuid(before)
    assert listing(tmp_path) == {"x.npy"}


def test_errors_of_zarr(tmp_path: Path, zarr: ModuleType, fails: Callable[..., str]) -> None:
    path, _ = make_input(tmp_path, ".zarr")
    npy, _ = make_input(tmp_path, ".npy")
    zarr.create_array(tmp_path / "int.zarr", data=np.arange(5))
    zarr.create_array(tmp_path / "other.zarr", data=np.ones(5))
    zarr.open_group(tmp_path / "group.zarr", mode="w")
    zarr.create_array(tmp_path / "bad.zarr", data=np.ones(5, "f4"))
    (tmp_path / "bad.zarr" / "c" / "0").write_bytes(b"nonsense")
    out = tmp_path / "y.zarr"
    before = contents(tmp_path)
    for arguments, told in (
        (["elu", tmp_path / "int.zarr", "-o", out], "int.zarr: has dtype int64"),
        (["elu", path, "-o", path], "x.zarr: is there already; --force replaces it"),
        (
            ["elu", path, "-o", tmp_path / "group.zarr", "--force"],
            "group.zarr: is there already and is not a Zarr array",
        ),
        (["elu", path, "-o", out, "--member", "w"], "has no member 'w'"),
        (["elu", path, "-o", out, "--dtype", "float32"], "is in the format .zarr, which tells its dtype"),
        (["elu", path, "-o", tmp_path / "y.npy"], "y.npy: the result has the format of "),
        (["elu", tmp_path / "bad.zarr", "-o", out], "bad.zarr: "),
        (["elu_backward", path, "-o", out, "--grad", npy], "x.npy: IN and --grad must both be Zarr arrays, or neither"),
        (["elu_backward", npy, "-o", tmp_path / "y.npy", "--grad", path], "x.zarr: IN and --grad must both be"),
        (["elu_backward", path, "-o", out, "--grad", tmp_path / "other.zarr"], "other.zarr: has dtype float64"),
    ):
        assert told in fails("apply", *arguments)
    assert contents(tmp_path) == before
    assert listing(tmp_path) >= {"x.zarr", "group.zarr"}
    assert not out.exists()


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("shtab", "cli", ["--print-completion", "bash"]),
        ("zarr", "zarr", ["apply", "elu", "{}/x.zarr", "--in-place"]),
        ("ml_dtypes", "half", ["apply", "elu", "{}/x", "--in-place", "--dtype", "bfloat16"]),
        ("matplotlib.figure", "plot", ["plot", "elu", "-o", "{}/elu.png"]),
        ("matplotlib.figure", "plot", ["bench", "--plot", "{}/elu.png"]),
        ("matplotlib.pyplot", "plot", ["plot", "elu"]),
    ],
)
def test_missing_extra(
    tmp_path: Path,
    module: str,
    extra: str,
    arguments: list[str],
    fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / ".zarray").write_text("{}")
    monkeypatch.setitem(sys.modules, module, None)
    told = fails(*(argument.format(tmp_path) for argument in arguments))
    assert told == f"elufast: this needs {module}: pip install 'elufast[{extra}]'\n"


# The rest


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info") == 0
    printed = capsys.readouterr().out
    elufast.show_runtime()
    assert printed == capsys.readouterr().out
    assert run("info", "--json") == 0
    expected = elufast.runtime_info()
    assert json.loads(capsys.readouterr().out) == expected | {"levels": list(expected["levels"])}


@pytest.mark.parametrize("command", [[], ["info"], ["apply"], ["bench"], ["plot"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*command, "--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(" ".join(["usage: elufast", *command]))
    assert not command or "\nexamples:\n  elufast " in printed


def test_process(tmp_path: Path) -> None:
    def process(*arguments: object) -> tuple[int, str, str]:
        done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    path, _ = make_input(tmp_path, ".npy")
    assert process("--version") == (0, f"elufast {elufast.__version__}\n", "")
    assert process("apply", "elu", path, "-o", tmp_path / "y.npy") == (0, "", "")
    same(np.load(tmp_path / "y.npy"), elufast.elu(np.load(path)))
    code, out, told = process("apply", "elu", tmp_path / "none.npy", "--in-place")
    assert (code, out, told) == (2, "", f"elufast: {tmp_path / 'none.npy'}: No such file or directory\n")


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_has_gone(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        done = subprocess.run(
            [*COMMAND, "info"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


@linux
def test_stdout_is_full() -> None:
    with open("/dev/full", "wb") as stdout:
        done = subprocess.run([*COMMAND, "info"], stdout=stdout, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (2, b"elufast: No space left on device\n")


def test_heavy_modules_are_not_imported() -> None:
    code = """
import sys
from elufast.__main__ import main
main(["info"])
print(sorted({"tqdm", "shtab", "zarr", "matplotlib", "torch", "numexpr", "numba"} & set(sys.modules)))
"""
    assert run_python(code).splitlines()[-1] == "[]"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", [".npy", ".npz", ".zarr"])
def test_progress(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    path, _ = make_input(tmp_path, kind)
    assert run("apply", "elu", path, "--in-place") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run("apply", "elu", path, "--in-place") == 0
    bar = capsys.readouterr().err
    assert f"\r{path.name}: 100%|" in bar
    assert "B/s]" in bar
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert run("apply", "elu", path, "--in-place") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh", "fish"])
def test_completion(tmp_path: Path, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as ended:
        run("--print-completion", shell)
    assert ended.value.code == 0
    script = capsys.readouterr().out
    assert "celu_backward" in script
    assert "in-place" in script
    if shell == "bash" and shutil.which("bash"):
        (tmp_path / "script").write_text(script)
        ask = "source ./script; COMP_WORDS=(elufast apply selu_); COMP_CWORD=2; _shtab_elufast; echo ${COMPREPLY[@]}"
        done = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == "selu_backward\n"


@pytest.fixture
def torch_threads() -> Iterator[None]:
    """PyTorch's limit, which is OpenMP's, put back after a benchmark has set it to 1."""
    before = importlib.import_module("torch").get_num_threads() if importlib.util.find_spec("torch") else None
    yield
    if before is not None:
        sys.modules["torch"].set_num_threads(before)


@pytest.mark.parametrize("function", __main__.FORWARD)
def test_bench(function: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(__main__, "SIZES", (1, 100))
    monkeypatch.setattr(__main__, "SAMPLE_SECONDS", 1e-6)
    for name in ("torch", "numba", "numexpr"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run("bench", function, "--dtype", "float64") == 0
    title, head, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith(f"{function}, float64, one thread")
    assert head.split() == ["n", "elufast", "numpy"]
    for row, size in zip(rows, (1, 100), strict=True):
        n, own, other, ratio = row.split()
        assert int(n) == size
        assert float(ratio.rstrip("x")) == pytest.approx(float(other) / float(own), rel=0.02, abs=0.06)


@dtypes
@pytest.mark.parametrize("name", __main__.LIBRARIES)
@pytest.mark.parametrize("function", __main__.FORWARD)
@pytest.mark.usefixtures("torch_threads")
def test_what_bench_times(name: str, function: str, dtype: Any) -> None:
    if name not in ("elufast", "numpy"):
        pytest.importorskip(name)
    x = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    out = np.empty_like(x)
    __main__._call(name, function, x, out)()
    np.testing.assert_allclose(out, getattr(elufast, function)(x), rtol=20 * np.finfo(dtype).eps)


@pytest.mark.usefixtures("torch_threads")
def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setattr(__main__, "SIZES", (1, 10))
    monkeypatch.setattr(__main__, "SAMPLE_SECONDS", 1e-6)
    for arguments in (["plot", "celu", "--alpha", "0.5", "--derivative", "-o"], ["bench", "selu", "--plot"]):
        path = tmp_path / f"{arguments[0]}.png"
        assert run(*arguments, path) == 0
        assert path.read_bytes().startswith(b"\x89PNG")
        assert "a.xyz: no picture format" in fails(*arguments, tmp_path / "a.xyz")
        assert "none/a.png: No such file or directory" in fails("plot", "elu", "-o", tmp_path / "none" / "a.png")
    assert "alpha must not be 0" in fails("plot", "celu", "--alpha", "0", "-o", tmp_path / "b.png")

    from matplotlib import pyplot

    monkeypatch.setattr(matplotlib, "get_backend", lambda: "agg")
    assert "no display" in fails("plot", "elu")
    shown = []
    monkeypatch.setattr(pyplot, "get_backend", lambda: "qtagg")
    monkeypatch.setattr(pyplot, "show", lambda: shown.append([line.get_label() for line in pyplot.gca().get_lines()]))
    assert run("plot", "elu", "--derivative") == 0
    assert shown == [["elu", "derivative"]]
    pyplot.close("all")


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(__main__)
    assert result.attempted
    assert not result.failed
