"""
Keras: a saved model without a framework behind it
==================================================

Keras 3 runs a model on NumPy, for inference. Its own ELU there is a row of NumPy calls, each with an array for what it
finds; elufast takes their place as the activation of a layer. The network here is trained with NumPy and elufast's
gradients, handed to Keras, saved, loaded and run.
"""

# %%
# Registered names
# ----------------
#
# The backend is chosen before Keras is imported. Keras writes the name of an activation into the file, and it takes
# Python functions alone: a registered one that calls elufast. Without the registration a function named ``elu`` comes
# back as Keras's own, and nothing says so.

import os

os.environ["KERAS_BACKEND"] = "numpy"

import tempfile
import timeit
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import elufast


@keras.saving.register_keras_serializable("elufast")
def elu(x: np.ndarray) -> np.ndarray:
    return elufast.elu(x)


# %%
# Training with NumPy
# -------------------
#
# 64 pixels, 128 hidden units, 10 digits: gradient descent with momentum, `elufast.elu_backward` for the hidden layer.

data = load_digits()
images, labels = data.data.astype(np.float32) / 16, data.target
train_x, test_x, train_y, test_y = train_test_split(images, labels, random_state=0)
rng = np.random.default_rng(0)
sizes = [(64, 128), (128,), (128, 10), (10,)]
weights = [rng.normal(0, 1 / np.sqrt(size[0]), size).astype(np.float32) for size in sizes]
momentum = [np.zeros_like(w) for w in weights]
for _epoch in range(30):
    for batch in np.array_split(rng.permutation(len(train_x)), 30):
        x = train_x[batch]
        before = x @ weights[0] + weights[1]
        hidden = elufast.elu(before)
        scores = hidden @ weights[2] + weights[3]
        shares = np.exp(scores - scores.max(1, keepdims=True))
        error = (shares / shares.sum(1, keepdims=True) - np.eye(10, dtype=np.float32)[train_y[batch]]) / len(x)
        slope = elufast.elu_backward(error @ weights[2].T, before)
        for w, m, grad in zip(
            weights, momentum, (x.T @ slope, slope.sum(0), hidden.T @ error, error.sum(0)), strict=True
        ):
            m *= 0.9
            m -= 0.1 * grad
            w += m

# %%
# The model, saved and loaded
# ---------------------------

model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(128),
        keras.layers.Activation(elu),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.set_weights(weights)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)

assert loaded.layers[1].activation is elu
predicted = loaded.predict(test_x, verbose=0)
accuracy = (predicted.argmax(1) == test_y).mean()
print(f"Keras {keras.__version__} on {keras.config.backend()}: test accuracy {accuracy:.1%}")
assert accuracy > 0.95
assert np.array_equal(predicted, model.predict(test_x, verbose=0))

# %%
# Beside Keras's own activation
# -----------------------------
#
# The values differ by rounding, which float64 tells apart. Time is the best of many runs, on one thread.

x = rng.standard_normal(2**18, dtype=np.float32)
exact = elufast.elu(x.astype(np.float64))
unit = np.spacing(np.abs(exact).astype(np.float32))
for name, function in (("elufast", lambda: elufast.elu(x, num_threads=1)), ("Keras", lambda: keras.activations.elu(x))):
    error = np.abs((np.asarray(function()) - exact) / unit).max()
    seconds = min(timeit.repeat(function, number=1, repeat=20))
    print(f"{name:<7}  {error:.2f} ulp  {seconds / x.size * 1e9:6.2f} ns an element")
