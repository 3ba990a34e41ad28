"""Train a dense network on handwritten digits with ReLU, ELU and SELU; show what SELU is for."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from network import (
    COLORS,
    ELU,
    SELU,
    Activation,
    Array,
    Build,
    Dense,
    Images,
    Network,
    ReLU,
    Trained,
    begin,
    bundled_digits,
    one_thread,
    panels,
    save_learning_curves,
    study,
    train,
)
from sklearn.datasets import fetch_openml

import elufast

RATE = 0.002
HIGH_RATE, HIGH_RATE_EPOCHS = 0.02, 10
LAYERS, WIDTH, START_VARIANCE = 32, 1024, 1.5


def load(data: str, seed: int) -> Images:
    if data == "digits":
        return bundled_digits(seed, epochs=60)
    if data == "mnist":
        return load_mnist()
    raise ValueError(f"--data is digits or mnist, not {data!r}")


def load_mnist() -> Images:
    """Return MNIST, its last seventh held out: the 10000 test images it was published with."""
    try:
        # A failure is told once, below, not by a warning for each attempt as well.
        with warnings.catch_warnings(action="ignore"):
            # The default parser needs pandas.
            mnist = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff")
    except OSError as error:
        raise OSError(f"MNIST could not be fetched from OpenML: {error}") from error
    x = mnist.data.astype(np.float32).reshape(-1, 28, 28, 1)
    y = mnist.target.astype(np.intp)
    split = len(x) * 6 // 7
    return Images("MNIST", 5, x[:split], y[:split], x[split:], y[split:])


def dense_network(
    kind: type[Activation],
    rng: np.random.Generator,
    dtype: npt.DTypeLike,
    n_in: int,
) -> Network:
    return Network(
        [
            Dense(n_in, 256, kind.gain, rng, dtype),
            kind(),
            Dense(256, 128, kind.gain, rng, dtype),
            kind(),
            Dense(128, 10, 1.0, rng, dtype),
        ]
    )


def measured_moments(kind: type[Activation], seed: int) -> Array:
    """Return mean and variance after each of a row of dense layers, over units and samples."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, math.sqrt(START_VARIANCE), (WIDTH, WIDTH)).astype(np.float32)
    moments = []
    for _ in range(LAYERS):
        x = kind().forward(Dense(WIDTH, WIDTH, 1.0, rng, np.float32).forward(x))
        moments.append((x.mean(dtype=np.float64), x.var(dtype=np.float64)))
    return np.array(moments)


def theoretical_moments(scale: float, alpha: float) -> Iterator[tuple[float, float]]:
    """Yield mean and variance layer by layer: equations 4 and 5 of Klambauer et al. 2017.

    Weights of mean 0 and variance 1 / n make each sum normal with mean 0, and its variance v the
    mean square of the layer before, which leaves these terms. ReLU is the case of alpha 0.
    """
    v = START_VARIANCE
    for _ in range(LAYERS):
        once = math.exp(v / 2) * math.erfc(math.sqrt(v / 2))
        twice = math.exp(2 * v) * math.erfc(math.sqrt(2 * v))
        mean = scale / 2 * (math.sqrt(2 * v / math.pi) + alpha * (once - 1))
        square = scale**2 / 2 * (v + alpha**2 * (twice - 2 * once + 1))
        yield mean, square - mean**2
        v = square


def show_moments(seed: int, path: Path) -> None:
    """Print and plot what 32 layers do to mean and variance."""
    figure, left, right = panels(
        "layer",
        ("What 32 layers do to the mean", "mean of the activations"),
        ("... and to the variance", "variance of the activations"),
    )
    layers = np.arange(1, LAYERS + 1)
    both = []
    for kind in (SELU, ELU, ReLU):
        measured = measured_moments(kind, seed)
        theory = np.array(list(theoretical_moments(kind.scale, kind.alpha)))
        both.append((measured, theory))
        for values, style, source in ((theory, "-", "theory"), (measured, "o", "measured")):
            for plot, column in ((left, 0), (right, 1)):
                label = f"{kind.name}, {source}"
                plot.plot(layers, values[:, column], style, color=COLORS[kind.name], label=label)
    left.legend(loc="upper right")
    right.legend(loc="center right")
    figure.savefig(path)

    (selu, selu_theory), (elu, elu_theory), (relu, relu_theory) = both
    print(
        f"\nThrough {LAYERS} dense layers of {WIDTH} units, weights of mean 0 and variance 1/n, "
        f"input of variance {START_VARIANCE}\n"
        "               SELU mean        SELU variance         ELU variance        ReLU variance\n"
        "  layer  measured   theory   measured   theory   measured   theory   measured   theory"
    )
    for row in (0, 1, 4, 9, 19, 31):
        print(
            f"  {row + 1:5}{selu[row, 0]:10.6f}{selu_theory[row, 0]:9.6f}"
            f"{selu[row, 1]:11.6f}{selu_theory[row, 1]:9.6f}"
            f"{elu[row, 1]:11.6f}{elu_theory[row, 1]:9.6f}"
            f"{relu[row, 1]:11.1e}{relu_theory[row, 1]:9.1e}"
        )


def dead_share(network: Network, images: Images) -> float:
    """Return the share of hidden units whose gradient is zero on every training image.

    ELU's gradient is exp(x), but in float32 y rounds to -alpha below -17.3 and y + alpha is zero
    there, so that a rate still higher than HIGH_RATE has such units too.
    """
    network.forward(images.train_x)
    slopes = [layer.backward(np.ones_like(layer.y)) for layer in network.activations]
    alive = [np.any(slope != 0, axis=0) for slope in slopes]
    return float(1 - np.concatenate(alive).mean())


def show_dead_units(build: Build, images: Images, trained: Trained, seed: int) -> None:
    """Print the share of dead units after the training above, and after one at a high rate."""
    print(
        "\nHidden units whose gradient is zero on every training image, and test accuracy\n"
        "  learning rate   epochs        ReLU                ELU"
    )
    fast: Trained = {}
    for kind in (ReLU, ELU):
        network = build(kind, np.random.default_rng(seed), np.float32)
        label = f"{kind.name}, rate {HIGH_RATE}"
        fast[kind.name] = network, train(network, images, HIGH_RATE_EPOCHS, HIGH_RATE, seed, label)
    for rate, runs in ((RATE, trained), (HIGH_RATE, fast)):
        print(f"  {rate:<13}{len(runs['ELU'][1].losses):9}", end="")
        for network, history in (runs["ReLU"], runs["ELU"]):
            print(f"{dead_share(network, images):10.1%}{history.accuracies[-1]:9.2%}", end="")
        print()


def save_functions(output: Path) -> None:
    """Plot ELU and SELU with their derivatives."""
    # The derivative jumps at 0 unless alpha is 1: NaN leaves a gap where a line would lie.
    x = np.concatenate([np.linspace(-4, 0, 400), [np.nan], np.linspace(1e-9, 2, 200)])
    one = np.ones_like(x)
    figure, left, right = panels("x", ("ELU", "f(x)"), ("Derivative of ELU", "f'(x)"))
    for alpha in (0.1, 0.3, 0.5, 1.0):
        left.plot(x, elufast.elu(x, alpha), label=f"alpha {alpha}")
        right.plot(x, elufast.elu_backward(one, x, alpha), label=f"alpha {alpha}")
    left.legend(loc="upper left")
    right.legend(loc="upper left")
    figure.savefig(output / "elu.png")

    figure, left, right = panels("x", ("SELU", "f(x)"), ("Derivative of SELU", "f'(x)"))
    left.plot(x, elufast.selu(x), color=COLORS["SELU"])
    right.plot(x, elufast.selu_backward(one, x), color=COLORS["SELU"])
    figure.savefig(output / "selu.png")


def main(argv: Sequence[str] | None = None) -> None:
    images, epochs, seed, output = begin(
        argv,
        __doc__,
        "digits, or mnist from OpenML",
        "build/digits",
        load,
    )
    n_in = images.train_x[0].size
    build = partial(dense_network, n_in=n_in)
    print(f"Network {n_in}-256-128-10 under a softmax, trained with Adam")
    with one_thread():
        trained = study(build, images, epochs, RATE, seed)
        show_dead_units(build, images, trained, seed)
        show_moments(seed, output / "moments.png")
    save_learning_curves(trained, output / "learning.png")
    save_functions(output)
    print(f"\nPictures: elu.png, selu.png, learning.png and moments.png in {output}")


if __name__ == "__main__":
    main()
