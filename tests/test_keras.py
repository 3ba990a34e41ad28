"""Keras 3: activations in a model with NumPy as the backend, saved and loaded; values beside Keras's own.

In processes of their own: Keras picks its backend once, at import.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from support import run_python

if not importlib.util.find_spec("keras"):
    pytest.skip("keras is not installed", allow_module_level=True)

HEAD = """
import sys
import keras
import numpy as np
import elufast

assert keras.config.backend() == "{backend}"

@keras.saving.register_keras_serializable("elufast")
def elu(x):
    return elufast.elu(x)

@keras.saving.register_keras_serializable("elufast")
def selu(x):
    return elufast.selu(x)

def model(first, second):
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        keras.Input((20,)),
        keras.layers.Dense(50),
        keras.layers.Activation(first),
        keras.layers.Dense(10, activation=second),
    ])

x = np.random.default_rng(0).standard_normal((70, 20), dtype=np.float32)
"""

# The products differ by rounding alone where the activations agree: both models share the NumPy of this process.
ROUND_TRIP = """
from unittest import mock

ours = model(elu, selu)
y = ours.predict(x, verbose=0)
assert y.dtype == np.float32 and y.shape == (70, 10)

h = x @ ours.layers[0].kernel.numpy() + ours.layers[0].bias.numpy()
h = elufast.elu(h) @ ours.layers[2].kernel.numpy() + ours.layers[2].bias.numpy()
np.testing.assert_allclose(y, elufast.selu(h), rtol=1e-5, atol=1e-6)

theirs = model("elu", "selu")
theirs.set_weights(ours.get_weights())
np.testing.assert_allclose(y, theirs.predict(x, verbose=0), rtol=1e-5, atol=1e-6)

ours.save(sys.argv[1])
loaded = keras.saving.load_model(sys.argv[1])
assert loaded.layers[1].activation is elu and loaded.layers[2].activation is selu
assert (loaded.predict(x, verbose=0) == y).all()
with mock.patch("elufast.elu", wraps=elufast.elu) as called:
    assert (loaded.predict(x, verbose=0) == y).all()
    print(called.call_count)

# The file names ours: where it is not registered loading fails, it does not fall back to Keras's elu.
assert loaded.layers[1].get_config()["activation"]["config"] == "elufast>elu"
keras.saving.get_custom_objects().clear()
try:
    keras.saving.load_model(sys.argv[1])
except TypeError as error:
    assert "elufast>elu" in str(error)
    print("refused")

direct = model(elufast.elu, elufast.selu)
direct.set_weights(ours.get_weights())
assert (direct.predict(x, verbose=0) == y).all()
"""

# TensorFlow's exp(x) - 1 loses half an ulp of 1 however small x is: an absolute error, so no relative one can hold.
VALUES = """
for dtype in sys.argv[1:]:
    eps = np.finfo(dtype).eps
    x = np.concatenate([np.linspace(-30, 5, 20_001), -np.logspace(-30, 0, 1001)]).astype(dtype)
    def value(function, *arguments):
        got = keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(x, dtype), *arguments))
        assert got.dtype == x.dtype
        return got
    near = dict(rtol=8 * eps, atol=4 * eps)
    np.testing.assert_allclose(elufast.elu(x), value(keras.activations.elu), **near)
    np.testing.assert_allclose(elufast.elu(x, 0.3), value(keras.activations.elu, 0.3), **near)
    np.testing.assert_allclose(elufast.selu(x), value(keras.activations.selu), **near)
    np.testing.assert_allclose(elufast.celu(x, 0.3), value(keras.activations.celu, 0.3), **near)
print("compared")
"""


def run(backend: str, code: str, *arguments: str) -> str:
    for needed in {"numpy": ["jax"]}.get(backend, [backend]):  # Keras's NumPy backend imports JAX
        if not importlib.util.find_spec(needed):
            pytest.skip(f"{needed} is not installed")
    return run_python(
        HEAD.format(backend=backend) + code, *arguments, timeout=180, KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3"
    )


def test_model_saved_and_loaded(tmp_path: Path) -> None:
    assert run("numpy", ROUND_TRIP, str(tmp_path / "model.keras")).split() == ["3", "refused"]


# With NumPy as its backend Keras computes float64 in float32.
@pytest.mark.parametrize(("backend", "dtypes"), [("numpy", ["float32"]), ("tensorflow", ["float32", "float64"])])
def test_values(backend: str, dtypes: list[str]) -> None:
    assert run(backend, VALUES, *dtypes).split() == ["compared"]
