"""
A policy network in NumPy
=========================

A small perceptron with ELU decides for a legged robot many times a second, mostly for one observation. In NumPy with
elufast a layer is a product and one call, which adds the bias too. ``examples/policy.py`` has the network, and times it
beside PyTorch and ONNX Runtime where they are installed, on the same weights.

Needed: Matplotlib, threadpoolctl.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import threadpoolctl

sys.path.insert(0, "..")
import policy

# %%
# The network
# -----------
#
# The weights could be those of a PyTorch ``Sequential``, from ``policy.load``. A call writes into memory of its own,
# made once.

layers = policy.random_layers()
x = np.random.default_rng(1).standard_normal((16, 48), np.float32)
act = policy.Policy(layers, batch=16)
print(f"largest difference from float64: {np.abs(act(x) - policy.exact(layers, x)).max():.1e}")

# %%
# Time a call
# -----------
#
# Few turns and one thread, for this page: layers this small lose much to a second one where the cores are busy.
# ``python examples/policy.py`` takes more of both.

fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
times: dict[str, list[float]] = {}
for batch in policy.BATCHES:
    x = np.random.default_rng(1).standard_normal((batch, 48), np.float32)
    functions = policy.implementations(layers, x)
    with threadpoolctl.threadpool_limits(1):
        for name, seconds in policy.best_times(functions, rounds=10).items():
            times.setdefault(name, []).append(seconds * 1e6)
for name, values in times.items():
    ax.plot(policy.BATCHES, values, "o-", label=name)
ax.set(xscale="log", yscale="log", xlabel="batch", ylabel="microseconds a call")
ax.legend()
plt.show()
