"""The programs in examples/: what they load, what they print and draw, and that their checks can fail."""

from __future__ import annotations

import importlib
import pickle
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import elufast

for needed in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(needed)

EXAMPLES = Path(__file__).parent.parent / "examples"
LABELS = [3, 1, 4, 1]  # of each fake batch


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        names = ("network", "digits", "digits_cnn")
        yield {name: importlib.import_module(name) for name in names}


@pytest.fixture
def network(modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The shared module, timing and checking less than a user's run does."""
    monkeypatch.setattr(modules["network"], "ROUNDS", 2)
    monkeypatch.setattr(modules["network"], "ENTRIES", 2)
    return modules["network"]


@pytest.fixture
def digits(modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, network: ModuleType) -> ModuleType:
    monkeypatch.setattr(modules["digits"], "WIDTH", 256)
    monkeypatch.setattr(modules["digits"], "HIGH_RATE_EPOCHS", 1)
    return modules["digits"]


@pytest.fixture
def digits_cnn(modules: dict[str, ModuleType], network: ModuleType) -> ModuleType:
    return modules["digits_cnn"]


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings: so was CIFAR-10 published."""

    def save_string(self, text: bytes) -> None:
        self.write(pickle.BINSTRING + len(text).to_bytes(4, "little") + text)
        self.memoize(text)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_string}  # noqa: RUF012


def write_batch(path: Path, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    data = np.random.default_rng(seed).integers(0, 256, (len(LABELS), 3072), dtype=np.uint8)
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump({b"data": data, b"labels": LABELS})
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
    return data


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(1, 6):
        write_batch(folder / f"data_batch_{number}", number)
    write_batch(folder / "test_batch", 6)
    (folder / "readme.html").touch()
    return folder


def packed(folder: Path) -> Path:
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


@pytest.mark.parametrize("place", [Path, packed], ids=["folder", "tar.gz"])
def test_cifar10(digits_cnn: ModuleType, cifar10: Path, place: Callable[[Path], Path]) -> None:
    images = digits_cnn.load(str(place(cifar10)), seed=0)
    assert images.train_x.shape == (20, 32, 32, 3)
    assert images.test_x.shape == (4, 32, 32, 3)
    assert images.train_x.dtype == np.float32
    assert images.train_y.tolist() == LABELS * 5
    fifth = write_batch(cifar10 / "data_batch_5", 5)
    assert images.train_x[17, 2, 31, 1] == fifth[1, 1024 + 2 * 32 + 31]


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda folder: folder / "missing", "No such file"),
        (lambda folder: folder / "readme.html", "does not hold"),
        (lambda folder: (folder / "data_batch_3").unlink() or folder, "No such file"),
        (lambda folder: (folder / "data_batch_3").unlink() or packed(folder), "'data_batch_3'"),
        (lambda folder: (folder / "test_batch").write_bytes(pickle.dumps(print)) and folder, "builtins.print"),
        (lambda folder: (folder / "test_batch").write_bytes(pickle.dumps({})) and folder, "b'data'"),
    ],
)
def test_cifar10_error(
    digits_cnn: ModuleType,
    cifar10: Path,
    capsys: pytest.CaptureFixture[str],
    break_it: Callable[[Path], Path],
    complaint: str,
) -> None:
    with pytest.raises(SystemExit) as error:
        digits_cnn.main(["--data", str(break_it(cifar10))])
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert complaint in line
    assert line.count("\n") == 1


@pytest.fixture
def mnist(digits: ModuleType, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Pixels of a small data set of MNIST's form, which fetch_openml then returns."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 784)).astype(np.float64)
    labels = np.array([str(number % 10) for number in range(70)], dtype=object)

    def fetch_openml(name: str, *, version: int, as_frame: bool, **_: Any) -> SimpleNamespace:
        assert (name, version, as_frame) == ("mnist_784", 1, False)
        return SimpleNamespace(data=pixels, target=labels)

    monkeypatch.setattr(digits, "fetch_openml", fetch_openml)
    return pixels


def test_mnist(digits: ModuleType, mnist: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    images = digits.load("mnist", seed=0)
    assert images.train_x.shape == (60, 28, 28, 1)
    assert images.train_x.dtype == np.float32
    assert images.test_x[3, 2, 1, 0] == mnist[63, 2 * 28 + 1]
    assert images.test_y.tolist() == list(range(10))


def test_mnist_out_of_reach(
    digits: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(digits, "fetch_openml", unreachable)
    with pytest.raises(SystemExit) as error:
        digits.main(["--data", "mnist"])
    assert error.value.code == 2
    assert capsys.readouterr().err.endswith("error: MNIST could not be fetched from OpenML: no network\n")


@pytest.mark.parametrize("arguments", [["--data", "letters"], ["--epochs", "0"], ["--seed", "-1"], ["--output", "{}"]])
def test_command_line_error(
    digits: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit) as error:
        digits.main([argument.format(file) for argument in arguments])
    assert error.value.code == 2
    assert " error: " in capsys.readouterr().err


def run(example: ModuleType, output: Path, *arguments: str) -> set[str]:
    """Run an example for one epoch; return the names of its pictures."""
    example.main(["--epochs", "1", "--output", str(output), *arguments])
    for path in output.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 100_000
    return {path.name for path in output.iterdir()}


def test_digits(digits: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(digits, tmp_path / "new" / "folder") == {"elu.png", "selu.png", "learning.png", "moments.png"}
    printed = capsys.readouterr().out
    for expected in ("1437 training and 360 test images", "times as fast", "1.371531", "1.035500", "1.000159"):
        assert expected in printed


def test_digits_on_mnist(
    digits: ModuleType,
    mnist: np.ndarray[Any, np.dtype[np.float64]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for same_for_any_data in ("show_moments", "save_functions"):
        monkeypatch.setattr(digits, same_for_any_data, lambda *_: None)
    run(digits, tmp_path, "--data", "mnist")
    assert "Network 784-256-128-10" in capsys.readouterr().out


def test_digits_cnn(digits_cnn: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(digits_cnn, tmp_path) == {"learning.png"}
    assert "times as fast" in capsys.readouterr().out


def test_digits_cnn_on_cifar10(
    digits_cnn: ModuleType,
    cifar10: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(digits_cnn, tmp_path / "pictures", "--data", str(cifar10))
    assert "CIFAR-10: 20 training and 4 test images of 32 x 32 pixels" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["elu", "selu"])
@pytest.mark.parametrize("example", ["digits", "digits_cnn"])
def test_gradient_check_fails(
    example: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    right = getattr(elufast, f"{name}_backward")

    def wrong(*arguments: Any, **keywords: Any) -> Any:
        grad = right(*arguments, **keywords)
        grad *= 1.001
        return grad

    monkeypatch.setattr(elufast, f"{name}_backward", wrong)
    with pytest.raises(SystemExit, match=f"the gradient through {name.upper()} is wrong"):
        request.getfixturevalue(example).main(["--output", str(tmp_path)])


def test_training_repeats_and_reaches_the_accuracy(network: ModuleType, digits: ModuleType) -> None:
    images = digits.load("digits", seed=0)
    images.standardise()

    def trained(kind: Any, epochs: int) -> Any:
        built = digits.dense_network(kind, np.random.default_rng(0), np.float32, n_in=64)
        return network.train(built, images, epochs, digits.RATE, 0, kind.name)

    with network.one_thread():
        assert trained(network.ELU, 15).accuracies[-1] >= 0.97
        assert trained(network.SELU, 15).accuracies[-1] >= 0.97
        first, second = trained(network.SELU, 1), trained(network.SELU, 1)
    assert (first.losses, first.accuracies) == (second.losses, second.accuracies)


@pytest.mark.parametrize("name", ["SELU", "ELU", "ReLU"])
def test_moments_follow_the_theory(network: ModuleType, digits: ModuleType, name: str) -> None:
    kind = getattr(network, name)
    theory = np.array(list(digits.theoretical_moments(kind.scale, kind.alpha)))
    x = np.random.default_rng(0).normal(0, np.sqrt(digits.START_VARIANCE), 1_000_000)
    y = kind().forward(x)
    np.testing.assert_allclose(theory[0], [y.mean(), y.var()], atol=0.005)
    np.testing.assert_allclose(digits.measured_moments(kind, 0)[:5], theory[:5], atol=0.05)
    if name == "SELU":
        np.testing.assert_allclose(theory[[0, 4, 9, 31], 1], [1.371531, 1.126122, 1.0355, 1.000159], atol=5e-7)


@pytest.mark.parametrize(("name", "bias", "share"), [("ReLU", -1, 1), ("ReLU", 1, 0), ("ELU", -1, 0), ("ELU", -18, 1)])
def test_dead_share(network: ModuleType, digits: ModuleType, name: str, bias: float, share: float) -> None:
    built = digits.dense_network(getattr(network, name), np.random.default_rng(0), np.float32, n_in=64)
    for weights, biases in zip(built.parameters[::2], built.parameters[1::2], strict=True):
        weights[:] = 0
        biases[:] = bias
    assert digits.dead_share(built, digits.load("digits", seed=0)) == share
