# The more special overload comes first, on purpose.
# mypy: disable-error-code="overload-overlap"
from collections.abc import Iterator
from typing import Any, Never, Protocol, SupportsIndex, TypeAlias, TypedDict, TypeVar, Unpack, overload

import numpy as np
from numpy.typing import NDArray

_T_co = TypeVar("_T_co", covariant=True)
_F = TypeVar("_F", np.float16, np.float32, np.float64)
_Float_co = TypeVar("_Float_co", bound=np.float16 | np.float32 | np.float64, covariant=True)
_S = TypeVar("_S", bound=tuple[Any, ...])
_A = TypeVar("_A", contravariant=True)  # alpha: SELU has none
_Out = TypeVar("_Out", bound=NDArray[np.float16 | np.float32 | np.float64])

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

_Like: TypeAlias = _Array[_F] | _Nested[_Array[_F]]
_Own: TypeAlias = NDArray[_F] | _Nested[_Array[_F]]
_List: TypeAlias = _Nested[float]
_Floats: TypeAlias = float | _List
_To: TypeAlias = np.ndarray[_S, np.dtype[_F]]
_Doubles: TypeAlias = _To[_S, np.float64]
_Alpha: TypeAlias = float | np.floating[Any] | np.integer[Any] | NDArray[np.floating[Any]] | _List

class _Base(TypedDict, total=False):
    bias: NDArray[np.floating[Any]] | np.floating[Any] | _Floats | None
    num_threads: SupportsIndex | None

class _New(_Base, total=False):
    out: None

class _Gradient(_Base, total=False):
    from_output: bool | np.bool

class _Fresh(_Gradient, _New, total=False): ...

# By where the result goes: into an array; into a new NumPy scalar; into a new array, of NumPy or of x's own kind.
class _Forward(Protocol[_A]):
    @overload
    def __call__(self, x: _Like[_F], alpha: _A = ..., *, out: _To[_S, _F], **options: Unpack[_Base]) -> _To[_S, _F]: ...
    @overload
    def __call__(self, x: _Floats, alpha: _A = ..., *, out: _Doubles[_S], **options: Unpack[_Base]) -> _Doubles[_S]: ...
    @overload
    def __call__(self, x: _F, alpha: _A = ..., **options: Unpack[_New]) -> _F: ...
    @overload
    def __call__(self, x: float, alpha: _A = ..., **options: Unpack[_New]) -> np.float64: ...
    @overload
    def __call__(self, x: _Own[_F], alpha: _A = ..., **options: Unpack[_New]) -> NDArray[_F]: ...
    @overload
    def __call__(self, x: _List, alpha: _A = ..., **options: Unpack[_New]) -> NDArray[np.float64]: ...
    @overload
    def __call__(self, x: _Array[_F], alpha: _A = ..., **options: Unpack[_New]) -> Any: ...

class _InPlace(Protocol[_A]):
    def __call__(self, x: _Out, alpha: _A = ..., **options: Unpack[_Base]) -> _Out: ...

class _Backward(Protocol[_A]):
    @overload
    def __call__(
        self, grad: _Like[_F], x: _Like[_F], alpha: _A = ..., *, out: _To[_S, _F], **options: Unpack[_Gradient]
    ) -> _To[_S, _F]: ...
    @overload
    def __call__(
        self, grad: _Floats, x: _Floats, alpha: _A = ..., *, out: _Doubles[_S], **options: Unpack[_Gradient]
    ) -> _Doubles[_S]: ...
    @overload
    def __call__(self, grad: _F, x: _F, alpha: _A = ..., **options: Unpack[_Fresh]) -> _F: ...
    @overload
    def __call__(self, grad: float, x: float, alpha: _A = ..., **options: Unpack[_Fresh]) -> np.float64: ...
    @overload
    def __call__(self, grad: _Own[_F], x: _Own[_F], alpha: _A = ..., **options: Unpack[_Fresh]) -> NDArray[_F]: ...
    @overload
    def __call__(self, grad: _List, x: _List, alpha: _A = ..., **options: Unpack[_Fresh]) -> NDArray[np.float64]: ...
    @overload
    def __call__(self, grad: _Array[_F], x: _Array[_F], alpha: _A = ..., **options: Unpack[_Fresh]) -> Any: ...

elu: _Forward[_Alpha]
selu: _Forward[Never]
celu: _Forward[_Alpha]
elu_: _InPlace[_Alpha]
selu_: _InPlace[Never]
celu_: _InPlace[_Alpha]
elu_backward: _Backward[_Alpha]
selu_backward: _Backward[Never]
celu_backward: _Backward[_Alpha]
