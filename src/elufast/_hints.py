"""What to say where a name is looked for that elufast does not have."""

from __future__ import annotations

import difflib
import importlib.util
import re

import elufast

# Activations that a user of other libraries may look for, and NumPy's or SciPy's way to them.
_ELSEWHERE = {
    "relu": "np.maximum(x, 0)",
    "leakyrelu": "np.where(x > 0, x, 0.01 * x)",
    "gelu": "x * scipy.special.ndtr(x)",
    "silu": "x * scipy.special.expit(x)",
    "swish": "x * scipy.special.expit(x)",
    "mish": "x * np.tanh(np.logaddexp(0, x))",
    "sigmoid": "scipy.special.expit(x)",
    "softplus": "np.logaddexp(0, x)",
    "softmax": "scipy.special.softmax(x, axis=-1)",
    "tanh": "np.tanh(x)",
}


def missing(name: str, *, in_from_import: bool) -> AttributeError | ImportError:
    """The exception for a name that the package lacks.

    Python turns the AttributeError of ``from elufast import name`` into an ImportError with a message of its own; an
    ImportError is what reaches the user. A submodule it can still import gives the AttributeError that makes it do so.
    """
    if name.startswith("_"):
        return AttributeError(f"module 'elufast' has no attribute {name!r}")
    if importlib.util.find_spec(f"elufast.{name}"):
        return AttributeError(f"elufast.{name} is a module of its own; import elufast.{name}", name=name, obj=None)
    lower = name.lower()
    meant = re.sub(r"grad(ient)?|deriv(ative)?|prime", "backward", lower)
    near = [lower] if lower in elufast.__all__ else difflib.get_close_matches(meant, elufast.__all__)
    if other := _ELSEWHERE.get(lower.replace("_", "")):
        message = f"elufast has no {name!r}: it computes ELU, SELU and CELU; instead use {other}"
    elif near:
        message = f"elufast has no {name!r}; did you mean {' or '.join(near)}?"
    else:
        message = f"elufast has no {name!r}; dir(elufast) lists what it has"
    if in_from_import:
        return ImportError(message, name="elufast", path=elufast.__file__)
    return AttributeError(message, name=name, obj=None)  # without obj Python adds no guess of its own
