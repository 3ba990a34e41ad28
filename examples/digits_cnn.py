"""Train a small convolution network on handwritten digits with ReLU, ELU and SELU."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from network import (
    Activation,
    Array,
    Dense,
    Images,
    Layer,
    Network,
    begin,
    bundled_digits,
    one_thread,
    save_learning_curves,
    study,
)

RATE = 0.002
NUMPY_NAMES = {"ndarray", "dtype", "scalar", "_reconstruct", "_frombuffer"}
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


class Arrays(pickle.Unpickler):
    """Reads a pickle of arrays. Any other could run whatever code its author chose."""

    def find_class(self, module: str, name: str) -> Any:
        numpys = module.partition(".")[0] == "numpy" and name in NUMPY_NAMES
        if numpys or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")


def batch_files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and content of the batches in a folder or tar file."""
    wanted = [*BATCHES, "test_batch"]
    if path.is_dir():
        for name in wanted:
            with (path / name).open("rb") as file:
                yield name, file
        return
    with tarfile.open(path) as archive:
        for member in archive:
            name = Path(member.name).name
            content = archive.extractfile(member) if name in wanted else None
            if content is not None:
                yield name, content


def load_cifar10(path: Path) -> Images:
    """Return CIFAR-10 from its Python batches: rows of 3072 bytes, channel by channel."""
    x: dict[str, Array] = {}
    y: dict[str, Array] = {}
    try:
        for name, file in batch_files(path):
            batch = Arrays(file, encoding="bytes").load()
            x[name] = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            y[name] = np.array(batch[b"labels"])
        train_x, train_y = (np.concatenate([part[name] for name in BATCHES]) for part in (x, y))
        test_x, test_y = x["test_batch"], y["test_batch"]
    except OSError:
        raise
    except Exception as error:  # a file that is no such batch can fail in any way
        raise ValueError(f"{path} does not hold CIFAR-10's Python batches: {error!r}") from error
    as_float = np.float32
    return Images("CIFAR-10", 5, train_x.astype(as_float), train_y, test_x.astype(as_float), test_y)


def load(data: str, seed: int) -> Images:
    return bundled_digits(seed, epochs=40) if data == "digits" else load_cifar10(Path(data))


class Convolution(Dense):
    """A 3 x 3 convolution that keeps the size: a dense layer on each pixel's neighbourhood.

    Its `n_in` is therefore 9 times the number of channels.
    """

    def forward(self, x: Array) -> Array:
        framed = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(1, 2))
        columns = np.moveaxis(windows, 3, 5)  # channels last: long runs to copy
        self.framed_shape, self.columns_shape = framed.shape, columns.shape
        return super().forward(columns.reshape(-1, 9 * x.shape[3])).reshape(*x.shape[:3], -1)

    def backward(self, grad: Array) -> Array:
        columns = super().backward(grad.reshape(-1, grad.shape[3])).reshape(self.columns_shape)
        framed = np.zeros(self.framed_shape, grad.dtype)
        _, height, width, *_ = grad.shape
        for i in range(3):
            for j in range(3):
                framed[:, i : i + height, j : j + width] += columns[:, :, :, i, j]
        return framed[:, 1:-1, 1:-1]


class Pool(Layer):
    """The mean of each 2 x 2 pixels."""

    def forward(self, x: Array) -> Array:
        n, height, width, channels = x.shape
        self.shape = n, height // 2, width // 2, channels
        y: Array = x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
        return y

    def backward(self, grad: Array) -> Array:
        return grad.reshape(self.shape).repeat(2, axis=1).repeat(2, axis=2) / 4


def convolution_network(
    kind: type[Activation],
    rng: np.random.Generator,
    dtype: npt.DTypeLike,
    shape: tuple[int, int, int],
) -> Network:
    height, width, channels = shape
    return Network(
        [
            Convolution(9 * channels, 16, kind.gain, rng, dtype),
            kind(),
            Convolution(9 * 16, 32, kind.gain, rng, dtype),
            kind(),
            Pool(),
            Dense(height // 2 * (width // 2) * 32, 64, kind.gain, rng, dtype),
            kind(),
            Dense(64, 10, 1.0, rng, dtype),
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    images, epochs, seed, output = begin(
        argv,
        __doc__,
        "digits, or the path of CIFAR-10's Python batches: a folder or a .tar.gz",
        "build/digits_cnn",
        load,
    )
    build = partial(convolution_network, shape=images.train_x.shape[1:])
    print("Network: two 3 x 3 convolutions to 16 and 32 channels, mean pooling, dense 64-10, Adam")
    with one_thread():
        trained = study(build, images, epochs, RATE, seed)
    save_learning_curves(trained, output / "learning.png")
    print(f"\nPicture: learning.png in {output}")


if __name__ == "__main__":
    main()
