"""
Mean 0 and variance 1 through 32 layers
=======================================

SELU's two constants are chosen so that a layer whose input has mean 0 and variance 1 gives an output of mean 0 and
variance 1, and so that what is a little off comes closer with every layer. Here a network of 32 layers is measured
beside the exact sequence.
"""

import math
from collections.abc import Callable, Iterator

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import elufast

LAYERS, WIDTH = 32, 1024
START_VARIANCE = 1.5

# %%
# What the theory says
# --------------------
#
# Weights of mean 0 and variance 1 / n make each sum nearly normal, with mean 0 and the mean square of the layer before
# as its variance v. Mean and mean square of the activation of such a sum are integrals with a closed form (equations 4
# and 5 of Klambauer et al. 2017); the mean square is the next layer's v. ReLU is the case of alpha 0 and scale 1.


def exact(scale: float, alpha: float) -> Iterator[tuple[float, float]]:
    """Yield mean and variance after each layer."""
    v = START_VARIANCE
    for _ in range(LAYERS):
        once = math.exp(v / 2) * math.erfc(math.sqrt(v / 2))
        twice = math.exp(2 * v) * math.erfc(math.sqrt(2 * v))
        mean = scale / 2 * (math.sqrt(2 * v / math.pi) + alpha * (once - 1))
        v = scale**2 / 2 * (v + alpha**2 * (twice - 2 * once + 1))
        yield mean, v - mean**2


# %%
# What a network does
# -------------------
#
# 1024 samples through 32 layers of 1024 units in float32. Each activation is computed in place.


def measured(activation: Callable[[NDArray], NDArray]) -> Iterator[tuple[float, float]]:
    """Yield mean and variance after each layer."""
    rng = np.random.default_rng(0)
    x = math.sqrt(START_VARIANCE) * rng.standard_normal((WIDTH, WIDTH), np.float32)
    for _ in range(LAYERS):
        weights = rng.standard_normal((WIDTH, WIDTH), np.float32) / math.sqrt(WIDTH)
        x = activation(x @ weights)
        yield x.mean(dtype=np.float64), x.var(dtype=np.float64)


networks = {
    "SELU": (elufast.selu_, elufast.SELU_SCALE, elufast.SELU_ALPHA),
    "ELU": (elufast.elu_, 1.0, 1.0),
    "ReLU": (lambda x: np.maximum(x, 0, out=x), 1.0, 0.0),
}
theory, network = {}, {}
for name, (activation, scale, alpha) in networks.items():
    theory[name] = np.array(list(exact(scale, alpha)))
    network[name] = np.array(list(measured(activation)))

# %%
# SELU's variance goes to 1. With the same weights the signal of ELU and ReLU fades from layer to layer.

layers = np.arange(1, LAYERS + 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for number, name in enumerate(networks):
    color = f"C{number}"
    for axes, column in ((left, 0), (right, 1)):
        axes.plot(layers, theory[name][:, column], color, label=f"{name}, exact")
        axes.plot(layers, network[name][:, column], f"{color}.", label="measured")
left.set(title="Mean", xlabel="layer")
right.set(title="Variance", xlabel="layer", yscale="log", ylim=(1e-4, 3))
for axes in (left, right):
    axes.grid(color="0.9")
left.legend()

# %%
# The first layer was given a variance of 1.5 and has already pulled it in.

print("       SELU, mean             SELU, variance")
print("layer  measured    exact      measured    exact")
for layer in (1, 2, 5, 10, 20, 32):
    mean, variance = network["SELU"][layer - 1]
    exact_mean, exact_variance = theory["SELU"][layer - 1]
    print(f"{layer:5}{mean:10.6f}{exact_mean:10.6f}", end="   ")
    print(f"{variance:10.6f}{exact_variance:10.6f}")
