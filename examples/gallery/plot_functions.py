"""
The three functions
===================

ELU, SELU and CELU beside their derivatives, what alpha does, and why ``exp(x) - 1`` is not the way to compute them.
"""

import matplotlib.pyplot as plt
import numpy as np

import elufast

# %%
# Functions and derivatives
# -------------------------
#
# For x > 0 ELU and CELU are x, SELU is 1.0507 x. Below 0 all three bend towards a limit, which keeps the mean of the
# activations near 0. The derivative is the gradient of a result whose own gradient is 1. ELU and CELU are the same
# function while alpha is 1; SELU's derivative jumps at 0, from 1.0507 to 1.7581.

x = np.linspace(-5, 3, 2001)
ones = np.ones_like(x)
functions = {
    "ELU": (elufast.elu, elufast.elu_backward, "-"),
    "SELU": (elufast.selu, elufast.selu_backward, "-"),
    "CELU": (elufast.celu, elufast.celu_backward, "--"),
}

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, (forward, backward, style) in functions.items():
    left.plot(x, forward(x), style, label=name)
    right.plot(x, backward(ones, x), style, label=name)
left.set(title="f(x)", xlabel="x")
right.set(title="f'(x)", xlabel="x")
for axes in (left, right):
    axes.grid(color="0.9")
    axes.legend()

# %%
# Alpha
# -----
#
# Alpha is the depth of the limit: both ELU and CELU end at -alpha. In ELU it also scales the slope below 0, so the
# curve has a kink at 0 unless alpha is 1. CELU divides x by alpha, which keeps its slope at 0 at 1 for every alpha.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for alpha in (0.25, 0.5, 1.0, 2.0):
    left.plot(x, elufast.elu(x, alpha), label=f"alpha = {alpha}")
    right.plot(x, elufast.celu(x, alpha), label=f"alpha = {alpha}")
left.set(title="ELU", xlabel="x")
right.set(title="CELU", xlabel="x")
for axes in (left, right):
    axes.grid(color="0.9")
    axes.legend()

# %%
# Near zero
# ---------
#
# ``exp(x)`` is close to 1 there, and rounding it to the spacing of numbers around 1 throws away the digits of x. The
# subtraction cannot bring them back. In float32 nothing at all is left from x = -3e-8 on, and the network's unit is
# stuck at 0.

small = np.float32([-1e-2, -1e-4, -1e-6, -1e-7, -1e-8])
plain = np.exp(small) - np.float32(1)
print("      x    exp(x) - 1          elufast")
for row in zip(small, plain, elufast.elu(small), strict=True):
    print("{:7.0e}{:14.6e}{:17.6e}".format(*row))

# %%
# The relative error, against ``expm1`` in float64, whose own error is a billion times smaller than what is shown:

x = -np.logspace(-10, 1, 4000).astype(np.float32)
exact = np.expm1(x.astype(np.float64))

figure, axes = plt.subplots(figsize=(10, 4), layout="constrained")
for label, y in (
    ("exp(x) - 1", np.exp(x) - np.float32(1)),
    ("elufast.elu(x)", elufast.elu(x)),
):
    error = np.maximum(abs(y / exact - 1), 1e-10)
    axes.loglog(-x, error, ".", markersize=2, label=label)
axes.axhline(2.0**-24, color="0.4", linewidth=1, label="half an ulp, at most 2^-24")
axes.set(title="Relative error of ELU in float32", xlabel="-x")
axes.grid(color="0.9")
axes.legend(markerscale=5)

# %%
# elufast stays below 1 ulp everywhere, and at half of that for small x, where its result is x itself.

ulp = np.spacing(abs(exact).astype(np.float32))
error = abs(elufast.elu(x).astype(np.float64) - exact) / ulp
print(f"largest error here: {error.max():.2f} ulp")
