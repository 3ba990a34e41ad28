from typing import Any

import numpy as np

__all__ = ["celu", "celu_backward", "celu_from_output", "elu", "elu_backward", "elu_from_output"]
__all__ += ["selu", "selu_backward", "selu_from_output"]

elu: np.ufunc
elu_backward: np.ufunc
elu_from_output: np.ufunc
selu: np.ufunc
selu_backward: np.ufunc
selu_from_output: np.ufunc
celu: np.ufunc
celu_backward: np.ufunc
celu_from_output: np.ufunc

def learn(dtype: np.dtype[Any]) -> bool: ...
