from typing import Any

import numpy as np

__all__ = ["celu", "elu", "selu"]
__all__ += ["celu_backward", "elu_backward", "selu_backward"]
__all__ += ["celu_from_output", "elu_from_output", "selu_from_output"]

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
