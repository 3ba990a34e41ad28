# The more special overload comes first, on purpose.
# mypy: disable-error-code="overload-overlap"
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol, SupportsIndex, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

_T_co = TypeVar("_T_co", covariant=True)
_Float = TypeVar("_Float", np.float32, np.float64)
_Float_co = TypeVar("_Float_co", bound=np.float32 | np.float64, covariant=True)
_Out = TypeVar("_Out", bound=NDArray[np.float32 | np.float64])
_Out32 = TypeVar("_Out32", bound=NDArray[np.float32])
_Out64 = TypeVar("_Out64", bound=NDArray[np.float64])

# numpy.typing.ArrayLike takes strings and integers too. An array of NumPy or another library, or a NumPy scalar:
class _Array(Protocol[_Float_co]):
    def __array__(self) -> NDArray[_Float_co]: ...

# A sequence, nested or not, other than an array, str or bytes: they lack __reversed__, or contain no objects.
class _Nested(Protocol[_T_co]):
    def __len__(self, /) -> int: ...
    def __getitem__(self, index: int, /) -> _T_co | _Nested[_T_co]: ...
    def __contains__(self, value: object, /) -> bool: ...
    def __iter__(self, /) -> Iterator[_T_co | _Nested[_T_co]]: ...
    def __reversed__(self, /) -> Iterator[_T_co | _Nested[_T_co]]: ...

_Like: TypeAlias = _Array[_Float] | _Nested[_Array[_Float]]
_Like32: TypeAlias = _Like[np.float32]
_Like64: TypeAlias = float | _Like[np.float64] | _Nested[float]
_Real: TypeAlias = float | np.floating[Any] | np.integer[Any]
_Threads: TypeAlias = SupportsIndex | None

# By where the result goes: into an array; into a new NumPy scalar; into a new array.
@overload
def elu(
    x: _Like32,
    alpha: _Real = 1.0,
    *,
    out: _Out32,
    num_threads: _Threads = None,
) -> _Out32: ...
@overload
def elu(
    x: _Like64,
    alpha: _Real = 1.0,
    *,
    out: _Out64,
    num_threads: _Threads = None,
) -> _Out64: ...
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
    x: _Like[_Float],
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def elu(
    x: _Nested[float],
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
def elu_(
    x: _Out,
    alpha: _Real = 1.0,
    *,
    num_threads: _Threads = None,
) -> _Out: ...
@overload
def elu_backward(
    grad: _Like32,
    x: _Like32,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: _Out32,
    num_threads: _Threads = None,
) -> _Out32: ...
@overload
def elu_backward(
    grad: _Like64,
    x: _Like64,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: _Out64,
    num_threads: _Threads = None,
) -> _Out64: ...
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
    grad: _Like[_Float],
    x: _Like[_Float],
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def elu_backward(
    grad: _Nested[float],
    x: _Nested[float],
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def selu(
    x: _Like32,
    *,
    out: _Out32,
    num_threads: _Threads = None,
) -> _Out32: ...
@overload
def selu(
    x: _Like64,
    *,
    out: _Out64,
    num_threads: _Threads = None,
) -> _Out64: ...
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
    x: _Like[_Float],
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def selu(
    x: _Nested[float],
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
def selu_(
    x: _Out,
    *,
    num_threads: _Threads = None,
) -> _Out: ...
@overload
def selu_backward(
    grad: _Like32,
    x: _Like32,
    *,
    from_output: bool | np.bool = False,
    out: _Out32,
    num_threads: _Threads = None,
) -> _Out32: ...
@overload
def selu_backward(
    grad: _Like64,
    x: _Like64,
    *,
    from_output: bool | np.bool = False,
    out: _Out64,
    num_threads: _Threads = None,
) -> _Out64: ...
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
    grad: _Like[_Float],
    x: _Like[_Float],
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def selu_backward(
    grad: _Nested[float],
    x: _Nested[float],
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def celu(
    x: _Like32,
    alpha: _Real = 1.0,
    *,
    out: _Out32,
    num_threads: _Threads = None,
) -> _Out32: ...
@overload
def celu(
    x: _Like64,
    alpha: _Real = 1.0,
    *,
    out: _Out64,
    num_threads: _Threads = None,
) -> _Out64: ...
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
    x: _Like[_Float],
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def celu(
    x: _Nested[float],
    alpha: _Real = 1.0,
    *,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
def celu_(
    x: _Out,
    alpha: _Real = 1.0,
    *,
    num_threads: _Threads = None,
) -> _Out: ...
@overload
def celu_backward(
    grad: _Like32,
    x: _Like32,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: _Out32,
    num_threads: _Threads = None,
) -> _Out32: ...
@overload
def celu_backward(
    grad: _Like64,
    x: _Like64,
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: _Out64,
    num_threads: _Threads = None,
) -> _Out64: ...
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
    grad: _Like[_Float],
    x: _Like[_Float],
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_Float]: ...
@overload
def celu_backward(
    grad: _Nested[float],
    x: _Nested[float],
    alpha: _Real = 1.0,
    *,
    from_output: bool | np.bool = False,
    out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...

# For _api only.
def bind(loops: ModuleType, last_level_cache: int, num_threads: int, unusual: Callable[..., Any]) -> None: ...
def address(array: NDArray[Any]) -> int: ...
def limit_threads(num_threads: int) -> None: ...
def thread_limit() -> int: ...
def empty_like(a: NDArray[Any]) -> NDArray[Any] | None: ...
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
