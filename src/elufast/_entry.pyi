from collections.abc import Callable
from types import ModuleType
from typing import Any, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Float = TypeVar("_Float", np.float32, np.float64)
_Array = TypeVar("_Array", bound=NDArray[np.float32 | np.float64])
_Real = float | np.floating[Any] | np.integer[Any]
_Threads = SupportsIndex | None

# By what `x` is: an array, or where the result goes; a scalar; whatever else numpy.asarray takes.
@overload
def elu(
    x: ArrayLike,
    alpha: _Real = 1.0,
    *,
    out: _Array,
    num_threads: _Threads = None,
) -> _Array: ...
@overload
def elu(
    x: NDArray[_Float],
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def elu(
    x: np.float32,
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float32: ...
@overload
def elu(
    x: float,
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float64: ...
@overload
def elu(
    x: ArrayLike,
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...
def elu_(
    x: _Array,
    alpha: _Real = 1.0,
    *,
    num_threads: _Threads = None,
) -> _Array: ...
@overload
def elu_backward(
    grad: ArrayLike,
    x: ArrayLike,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: _Array,
    num_threads: _Threads = None,
) -> _Array: ...
@overload
def elu_backward(
    grad: NDArray[_Float],
    x: NDArray[_Float],
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def elu_backward(
    grad: np.float32,
    x: np.float32,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float32: ...
@overload
def elu_backward(
    grad: float,
    x: float,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float64: ...
@overload
def elu_backward(
    grad: ArrayLike,
    x: ArrayLike,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def selu(
    x: ArrayLike,
    *,
    out: _Array,
    num_threads: _Threads = None,
) -> _Array: ...
@overload
def selu(
    x: NDArray[_Float],
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def selu(
    x: np.float32,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float32: ...
@overload
def selu(
    x: float,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float64: ...
@overload
def selu(
    x: ArrayLike,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...
def selu_(
    x: _Array,
    *,
    num_threads: _Threads = None,
) -> _Array: ...
@overload
def selu_backward(
    grad: ArrayLike,
    x: ArrayLike,
    *,
    from_output: bool | np.bool = False,
    out: _Array,
    num_threads: _Threads = None,
) -> _Array: ...
@overload
def selu_backward(
    grad: NDArray[_Float],
    x: NDArray[_Float],
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def selu_backward(
    grad: np.float32,
    x: np.float32,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float32: ...
@overload
def selu_backward(
    grad: float,
    x: float,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float64: ...
@overload
def selu_backward(
    grad: ArrayLike,
    x: ArrayLike,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def celu(
    x: ArrayLike,
    alpha: _Real = 1.0,
    *,
    out: _Array,
    num_threads: _Threads = None,
) -> _Array: ...
@overload
def celu(
    x: NDArray[_Float],
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def celu(
    x: np.float32,
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float32: ...
@overload
def celu(
    x: float,
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float64: ...
@overload
def celu(
    x: ArrayLike,
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...
def celu_(
    x: _Array,
    alpha: _Real = 1.0,
    *,
    num_threads: _Threads = None,
) -> _Array: ...
@overload
def celu_backward(
    grad: ArrayLike,
    x: ArrayLike,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: _Array,
    num_threads: _Threads = None,
) -> _Array: ...
@overload
def celu_backward(
    grad: NDArray[_Float],
    x: NDArray[_Float],
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def celu_backward(
    grad: np.float32,
    x: np.float32,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float32: ...
@overload
def celu_backward(
    grad: float,
    x: float,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> np.float64: ...
@overload
def celu_backward(
    grad: ArrayLike,
    x: ArrayLike,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...

# For _api only.
def bind(loops: ModuleType, last_level_cache: int, num_threads: int, unusual: Callable[..., Any]) -> None: ...
def address(array: NDArray[Any]) -> int: ...
def limit_threads(num_threads: int) -> None: ...
def thread_limit() -> int: ...
def evaluate(
    family: int,
    backward: bool,
    from_output: bool,
    x: NDArray[Any],
    grad: NDArray[Any],
    alpha: float,
    out: NDArray[Any],
    num_threads: int,
) -> None: ...
