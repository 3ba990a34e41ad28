"""What the two examples share: layers, training, checks, timing, pictures, command line."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import elufast

Array = npt.NDArray[Any]

ALPHA = 1.0  # of ELU; the published value
BATCH = 32
ROUNDS = 100  # of timing
ENTRIES = 20  # of each parameter whose gradient is checked
STEP = 1e-6  # of the central differences; their own error is then about 1e-9
# A few units of a large network cross the kink of ReLU or SELU within that step, which can show as
# 3e-5; a wrong formula shows as far more.
TOLERANCE = 1e-4
COLORS = {"ReLU": "tab:gray", "ELU": "tab:blue", "SELU": "tab:orange"}

# Of BLAS and elufast: arrays this small gain nothing from a second one, lose much to it where the
# cores are busy, and the NumPy one-liner has one as well.
one_thread = partial(threadpool_limits, limits=1)


class Layer:
    """A step of the network; one without parameters keeps the empty lists."""

    def __init__(self) -> None:
        self.parameters: list[Array] = []
        self.gradients: list[Array] = []

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, grad: Array) -> Array:
        raise NotImplementedError


class Dense(Layer):
    """y = x w + b, with normal weights of mean 0 and variance gain / n_in."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        gain: float,
        rng: np.random.Generator,
        dtype: npt.DTypeLike,
    ) -> None:
        super().__init__()
        weights = rng.normal(0, np.sqrt(gain / n_in), (n_in, n_out))
        self.parameters = [weights.astype(dtype), np.zeros(n_out, dtype)]

    def forward(self, x: Array) -> Array:
        self.x = x.reshape(len(x), -1)
        weights, bias = self.parameters
        y: Array = self.x @ weights
        y += bias
        return y

    def backward(self, grad: Array) -> Array:
        self.gradients = [self.x.T @ grad, grad.sum(axis=0)]
        return grad @ self.parameters[0].T


class Activation(Layer):
    """y = scale * x above zero, else scale * alpha * expm1(x), and a clock.

    `apply` may overwrite its argument: what backward needs is y.
    """

    name: ClassVar[str]
    gain: ClassVar[float]
    scale: ClassVar[float] = 1.0
    alpha: ClassVar[float]

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def apply(self, x: Array) -> Array:
        raise NotImplementedError

    def derive(self, grad: Array, y: Array) -> Array:
        raise NotImplementedError

    def forward(self, x: Array) -> Array:
        start = time.perf_counter()
        self.y = self.apply(x)
        self.seconds += time.perf_counter() - start
        return self.y

    def backward(self, grad: Array) -> Array:
        start = time.perf_counter()
        grad = self.derive(grad, self.y)
        self.seconds += time.perf_counter() - start
        return grad


class ReLU(Activation):
    name, gain, alpha = "ReLU", 2.0, 0.0

    def apply(self, x: Array) -> Array:
        return np.maximum(x, 0, out=x)

    def derive(self, grad: Array, y: Array) -> Array:
        return np.multiply(grad, y > 0, out=grad)


class ELU(Activation):
    """In place, so that one array a layer is kept rather than two.

    Then only y is left for backward: `from_output=True` takes the derivative as the paper does,
    y + alpha below zero.
    """

    name, gain, alpha = "ELU", 2.0, ALPHA

    def apply(self, x: Array) -> Array:
        return elufast.elu_(x, self.alpha)

    def derive(self, grad: Array, y: Array) -> Array:
        return elufast.elu_backward(grad, y, self.alpha, from_output=True, out=grad)


class SELU(Activation):
    """As ELU. The weights' variance 1 / n (LeCun normal) is what SELU's theory asks for."""

    name, gain = "SELU", 1.0
    scale, alpha = elufast.SELU_SCALE, elufast.SELU_ALPHA

    def apply(self, x: Array) -> Array:
        return elufast.selu_(x)

    def derive(self, grad: Array, y: Array) -> Array:
        return elufast.selu_backward(grad, y, from_output=True, out=grad)


class NumPyELU(ELU):
    """The one-liners that elufast replaces."""

    def apply(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(x))

    def derive(self, grad: Array, y: Array) -> Array:
        return grad * np.where(y > 0, 1, y + self.alpha)


class NumPySELU(SELU):
    def apply(self, x: Array) -> Array:
        return self.scale * np.where(x > 0, x, self.alpha * np.expm1(x))

    def derive(self, grad: Array, y: Array) -> Array:
        return grad * np.where(y > 0, self.scale, y + self.scale * self.alpha)


ACTIVATIONS: tuple[type[Activation], ...] = (ReLU, ELU, SELU)


class Network:
    """Layers in a row under a softmax with cross-entropy."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers
        self.activations = [layer for layer in layers if isinstance(layer, Activation)]

    @property
    def parameters(self) -> list[Array]:
        return [array for layer in self.layers for array in layer.parameters]

    @property
    def gradients(self) -> list[Array]:
        return [array for layer in self.layers for array in layer.gradients]

    @property
    def activation_seconds(self) -> float:
        return sum(activation.seconds for activation in self.activations)

    def forward(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def loss(self, x: Array, labels: Array) -> tuple[float, Array]:
        """Return the mean cross-entropy and its gradient for the last layer's output."""
        logits = self.forward(x)
        logits -= logits.max(axis=1, keepdims=True)
        grad = np.exp(logits)
        total = grad.sum(axis=1)
        rows = np.arange(len(x))
        value = np.mean(np.log(total) - logits[rows, labels])
        grad /= total[:, None]
        grad[rows, labels] -= 1
        grad /= len(x)
        return float(value), grad

    def step(self, x: Array, labels: Array) -> float:
        """Fill `gradients` and return the loss."""
        value, grad = self.loss(x, labels)
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return value

    def accuracy(self, x: Array, labels: Array) -> float:
        right = 0
        for start in range(0, len(x), 500):
            part = slice(start, start + 500)
            right += int(np.sum(self.forward(x[part]).argmax(axis=1) == labels[part]))
        return right / len(x)


Build = Callable[[type[Activation], np.random.Generator, npt.DTypeLike], Network]


class Adam:
    """Kingma and Ba 2015, with its default decay rates."""

    def __init__(self, parameters: Sequence[Array]) -> None:
        self.parameters = parameters
        self.means = [np.zeros_like(p) for p in parameters]
        self.squares = [np.zeros_like(p) for p in parameters]
        self.steps = 0

    def update(self, gradients: Sequence[Array], rate: float) -> None:
        self.steps += 1
        rate *= float(np.sqrt(1 - 0.999**self.steps)) / (1 - 0.9**self.steps)
        for p, g, m, s in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            m += 0.1 * (g - m)
            s += 0.001 * (g * g - s)
            p -= rate * m / (np.sqrt(s) + 1e-8)


@dataclass
class Images:
    """Images as (number, height, width, channels) float32, and their labels 0 to 9.

    `epochs` is how many passes do for their number.
    """

    name: str
    epochs: int
    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array

    def standardise(self) -> None:
        """Give each channel mean 0 and variance 1 over the training images."""
        mean = self.train_x.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
        deviation = self.train_x.std(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
        for x in (self.train_x, self.test_x):
            x -= mean
            x /= np.where(deviation > 0, deviation, 1)


def bundled_digits(seed: int, epochs: int) -> Images:
    """Return scikit-learn's 1797 handwritten digits, a stratified fifth of them held out."""
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.images[..., None].astype(np.float32),
        digits.target,
        test_size=0.2,
        stratify=digits.target,
        random_state=seed,
    )
    return Images("handwritten digits", epochs, train_x, train_y, test_x, test_y)


def augment(x: Array, rng: np.random.Generator) -> Array:
    """Return the images turned, stretched and shifted a little, each its own way, with noise."""
    size = np.array(x.shape[1:3])
    centre = (size - 1) / 2
    grid = np.moveaxis(np.indices(x.shape[1:3]), 0, -1) - centre
    matrix = np.eye(2) + rng.normal(0, 0.1, (len(x), 1, 1, 2, 2))
    shift = rng.normal(0, 0.05, (len(x), 1, 1, 2)) * size
    place = np.clip((matrix @ grid[..., None])[..., 0] + centre + shift, -1, size) + 1
    low = np.minimum(place.astype(np.intp), size)
    weight = (place - low)[..., None]
    image = np.arange(len(x))[:, None, None]
    framed = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=x.min())
    new = rng.normal(0, 0.3, x.shape)
    for down in (0, 1):
        for right in (0, 1):
            part = np.abs(1 - down - weight[..., 0, :]) * np.abs(1 - right - weight[..., 1, :])
            new += part * framed[image, low[..., 0] + down, low[..., 1] + right]
    return new.astype(x.dtype)


@dataclass
class History:
    """What a training run leaves: a figure an epoch, and the seconds it took."""

    losses: list[float]
    accuracies: list[float]
    seconds: float
    activation_seconds: float


Trained = dict[str, tuple[Network, History]]


def train(
    network: Network,
    images: Images,
    epochs: int,
    rate: float,
    seed: int,
    label: str,
) -> History:
    """Train with Adam, the rate falling linearly to zero."""
    rng = np.random.default_rng(seed)
    optimiser = Adam(network.parameters)
    history = History([], [], 0.0, 0.0)
    batches = -(-len(images.train_x) // BATCH)
    with tqdm(total=epochs * batches, desc=f"{label:<16}", unit="step") as bar:
        for _ in range(epochs):
            start, clock = time.perf_counter(), network.activation_seconds
            losses = []
            for chosen in np.array_split(rng.permutation(len(images.train_x)), batches):
                x = augment(images.train_x[chosen], rng)
                losses.append(network.step(x, images.train_y[chosen]))
                optimiser.update(network.gradients, rate * (1 - bar.n / bar.total))
                bar.update()
            history.seconds += time.perf_counter() - start
            history.activation_seconds += network.activation_seconds - clock
            history.losses.append(float(np.mean(losses)))
            history.accuracies.append(network.accuracy(images.test_x, images.test_y))
            bar.set_postfix(loss=f"{history.losses[-1]:.4f}", test=f"{history.accuracies[-1]:.2%}")
    return history


def gradient_error(network: Network, x: Array, labels: Array, rng: np.random.Generator) -> float:
    """Compare some entries of each parameter's gradient with central differences.

    Returns the largest difference, relative to the largest gradient of the same parameter.
    """
    network.step(x, labels)
    errors = []
    for parameter, gradient in zip(network.parameters, network.gradients, strict=True):
        values, exact = parameter.reshape(-1), gradient.reshape(-1)
        for index in rng.choice(values.size, min(ENTRIES, values.size), replace=False):
            kept = values[index]
            values[index] = kept + STEP
            above, _ = network.loss(x, labels)
            values[index] = kept - STEP
            below, _ = network.loss(x, labels)
            values[index] = kept
            difference = (above - below) / (2 * STEP) - exact[index]
            errors.append(abs(difference) / np.abs(exact).max())
    return float(np.max(errors))


def race(build: Build, kinds: Sequence[type[Activation]], images: Images) -> list[float]:
    """Return the median seconds that each activation takes of a training step, run in turns."""
    networks = [build(kind, np.random.default_rng(0), np.float32) for kind in kinds]
    seconds = np.empty((ROUNDS, len(kinds)))
    for row in seconds:
        for column, network in enumerate(networks):
            before = network.activation_seconds
            network.step(images.train_x[:BATCH], images.train_y[:BATCH])
            row[column] = network.activation_seconds - before
    return [float(value) for value in np.median(seconds, axis=0)]


def study(build: Build, images: Images, epochs: int, rate: float, seed: int) -> Trained:
    """Check, train and time the network with each activation, and print what came out."""
    _, height, width, channels = images.train_x.shape
    print(
        f"{images.name}: {len(images.train_x)} training and {len(images.test_x)} test images "
        f"of {height} x {width} pixels; {epochs} epochs, seed {seed}\n"
    )

    # Noise of its own seed, not the images, so that no argument changes what the check finds.
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(8, height, width, channels)), rng.integers(0, 10, 8)
    print("Gradient of the whole network against central differences (float64), relative")
    for kind in ACTIVATIONS:
        error = gradient_error(build(kind, rng, np.float64), x, labels, rng)
        print(f"  {kind.name:<6}{error:8.1e}")
        if not error < TOLERANCE:
            raise SystemExit(f"the gradient through {kind.name} is wrong by {error:.1e}")

    trained: Trained = {}
    for kind in ACTIVATIONS:
        network = build(kind, np.random.default_rng(seed), np.float32)
        trained[kind.name] = network, train(network, images, epochs, rate, seed, kind.name)
    print("\n        test accuracy   training   in the activation")
    for name, (_, history) in trained.items():
        accuracy, inside = history.accuracies[-1], history.activation_seconds
        print(f"  {name:<6}{accuracy:12.2%}{history.seconds:10.2f} s{inside:12.3f} s")

    taken = race(build, (ELU, NumPyELU, SELU, NumPySELU), images)
    print(
        f"\nThe activation in one training step, forward and backward of {BATCH} images\n"
        f"(median of {ROUNDS} steps, taken in turns)\n"
        "            elufast   NumPy one-liner"
    )
    for name, ours, plain in zip(("ELU", "SELU"), taken[::2], taken[1::2], strict=True):
        micros = f"{ours * 1e6:8.1f} us{plain * 1e6:15.1f} us"
        print(f"  {name:<6}{micros}{plain / ours:9.1f} times as fast")
    return trained


def panels(x: str, left: tuple[str, str], right: tuple[str, str]) -> tuple[Figure, Any, Any]:
    """Return a figure of two plots, each given by its title and the label of its y axis."""
    figure = Figure(figsize=(12, 5), dpi=90, layout="constrained")
    axes = figure.subplots(1, 2)
    for plot, (title, y) in zip(axes, (left, right), strict=True):
        plot.set(title=title, xlabel=x, ylabel=y)
        plot.grid(color="0.9")
        plot.set_axisbelow(True)
    return figure, *axes


def save_learning_curves(trained: Trained, path: Path) -> None:
    figure, left, right = panels(
        "epoch",
        ("Training loss", "cross-entropy"),
        ("Test accuracy", "% of the test images"),
    )
    for name, (_, history) in trained.items():
        epoch = np.arange(1, len(history.losses) + 1)
        left.plot(epoch, history.losses, color=COLORS[name], label=name)
        right.plot(epoch, 100 * np.array(history.accuracies), color=COLORS[name], label=name)
    left.set_yscale("log")
    left.legend(loc="upper right")
    right.legend(loc="lower right")
    figure.savefig(path)


def at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def begin(
    argv: Sequence[str] | None,
    description: str | None,
    data_help: str,
    output: str,
    load: Callable[[str, int], Images],
) -> tuple[Images, int, int, Path]:
    """Read the command line and the data; leave with one line and exit code 2 if they are wrong.

    Returns the standardised images, the number of epochs, the seed and the folder for pictures.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", default="digits", help=f"{data_help} (default: digits)")
    parser.add_argument("--epochs", type=at_least(1), help="default: enough for the data")
    parser.add_argument("--seed", type=at_least(0), default=0, help="default: 0")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(output),
        metavar="DIR",
        help="folder for the pictures (default: %(default)s)",
    )
    given = parser.parse_args(argv)
    try:
        images = load(given.data, given.seed)
        given.output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    images.standardise()
    return images, given.epochs or images.epochs, given.seed, given.output
