"""
A PyTorch network on elufast
============================

A network of eight layers learns scikit-learn's handwritten digits, once with ELU and once with SELU. Each is trained
with PyTorch's own kernels and, from the same weights, under `elufast.torch.installed`, which computes the same modules
by elufast. The learning curves lie on each other: only roundings differ.

Needed: PyTorch, scikit-learn and Matplotlib.
"""

import copy
import time
from contextlib import nullcontext

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

import elufast.torch

torch.set_num_threads(1)  # layers this small do not repay a second one, and lose much to it where the cores are busy

# %%
# Data and network
# ----------------
#
# SELU keeps mean 0 and variance 1 from layer to layer if the weights have variance 1 / n. Initialising for
# ``"linear"`` gives that.

digits = load_digits()
x = torch.tensor(digits.data, dtype=torch.float32)
x = (x - x.mean()) / x.std()
split = train_test_split(x, torch.tensor(digits.target), test_size=0.2, stratify=digits.target, random_state=0)
train_x, test_x, train_y, test_y = split


def network(activation, depth=8, width=128):
    torch.manual_seed(0)
    layers = []
    for k in range(depth):
        linear = nn.Linear(64 if k == 0 else width, width)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="linear")
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


# %%
# Training
# --------


def train(model, epochs=8, batch=128):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(epochs):
        for chosen in torch.randperm(len(train_x)).split(batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(train_x[chosen]), train_y[chosen])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


histories = {}
for activation in (nn.ELU, nn.SELU):
    model = network(activation)
    for name in ("PyTorch", "elufast"):
        trained = copy.deepcopy(model)
        with elufast.torch.installed() if name == "elufast" else nullcontext():
            start = time.perf_counter()
            losses = histories[f"{activation.__name__}, {name}"] = train(trained)
            seconds = time.perf_counter() - start
            with torch.inference_mode():
                accuracy = (trained(test_x).argmax(1) == test_y).float().mean()
        last = sum(losses[-12:]) / 12
        print(f"{activation.__name__}, {name}: loss {losses[0]:.6f}, in the last epoch {last:.4f};", end=" ")
        print(f"{accuracy:.1%} right; {seconds:.1f} s")

# %%
# The losses
# ----------
#
# Rounding differs from the first step on, and training amplifies it slowly, as it does with another number of threads.
# On a network as small as this one the times are much alike: matrix products take most of a step.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
for axis, activation in zip(axes, ("ELU", "SELU"), strict=True):
    for name, style in (("PyTorch", "-"), ("elufast", "--")):
        axis.plot(histories[f"{activation}, {name}"], style, label=name)
    axis.set(title=activation, xlabel="step", yscale="log")
    axis.legend()
axes[0].set_ylabel("cross-entropy")
plt.show()

# %%
# The model knows nothing of it
# -----------------------------
#
# It holds PyTorch's modules and operators, so it can be saved, exported and loaded as ever.

print(trained[1])
with torch.inference_mode():
    here = trained(test_x)
    with elufast.torch.installed():
        difference = (trained(test_x) - here).abs().max()
print(f"largest difference of the outputs, same weights: {difference:.1e}")
