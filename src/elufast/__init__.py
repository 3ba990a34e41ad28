"""elufast: ELU, SELU and CELU for NumPy arrays, fast and accurate to the last place.

>>> import numpy as np
>>> import elufast
>>> elufast.elu(np.array([-1.0, 0.0, 2.0]))
array([-0.63212056,  0.        ,  2.        ])
"""

# _runtime before all that is linked with OpenMP: it tells whether the process had OpenMP before.
from elufast import _runtime, ufuncs  # noqa: F401
from elufast._api import get_include, get_num_threads, runtime_info, set_num_threads, show_runtime
from elufast._functions import celu, celu_, celu_backward, elu, elu_, elu_backward, selu, selu_, selu_backward

__version__ = "0.1.0"

#: The alpha of `selu`: equation 14 of Klambauer et al. 2017.
SELU_ALPHA = 1.6732632423543772848170429916717
#: The scale of `selu`, from the same equation.
SELU_SCALE = 1.0507009873554804934193349852946

__all__ = ["SELU_ALPHA", "SELU_SCALE", "celu", "celu_", "celu_backward", "elu", "elu_", "elu_backward"]
__all__ += ["get_include", "get_num_threads", "runtime_info", "selu", "selu_", "selu_backward"]
__all__ += ["set_num_threads", "show_runtime", "ufuncs"]


# No __getattr__: with one, Python looks up `elufast.elu` the slow way, which takes a third of a small array's call.
def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
