"""ELU, SELU and CELU for PyTorch: functions, modules, and a way to put them into an existing model.

The functions take the arguments of those in ``torch.nn.functional`` and return the bits that `elufast.elu`,
`elufast.selu` and `elufast.celu` give for the same numbers. A tensor's memory is used where it is, whatever its
strides. Autograd (reverse and forward mode, any order), ``torch.func``, ``torch.compile(fullgraph=True)`` and
``torch.export`` work; in a graph the functions are the operators ``torch.ops.elufast.forward`` and
``torch.ops.elufast.backward``.

Float32 and float64 tensors in CPU memory are computed here. All else goes to PyTorch's own function, which computes or
refuses it: other devices and dtypes (half precision, hence also what autocast casts), sparse and quantized tensors,
tensor subclasses, ``torch.func`` inside ``torch.compile``, and a model on its way to ONNX.

A call uses as many threads as its work repays, at most ``torch.get_num_threads()`` and at most
`elufast.get_num_threads`. They are elufast's own, not PyTorch's. In a DataLoader's worker process there is one.

>>> import torch
>>> import elufast.torch
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.SELU(), torch.nn.Linear(8, 1), torch.nn.ELU())
>>> elufast.torch.replace_activations(model)
2
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.nn import functional as F

import elufast

__all__ = ["CELU", "ELU", "SELU", "celu", "elu", "replace_activations", "selu"]

_FORWARD: dict[str, Callable[..., Any]] = {
    "elu": elufast.elu,
    "selu": lambda x, alpha, **options: elufast.selu(x, **options),
    "celu": elufast.celu,
}
_BACKWARD: dict[str, Callable[..., Any]] = {
    "elu": elufast.elu_backward,
    "selu": lambda grad, x, alpha, **options: elufast.selu_backward(grad, x, **options),
    "celu": elufast.celu_backward,
}
_TORCH: dict[str, Callable[[Tensor, float, bool], Tensor]] = {
    "elu": F.elu,
    "selu": lambda input, alpha, inplace: F.selu(input, inplace),
    "celu": F.celu,
}

# Everywhere below, from_output says that backward's second argument, and what forward saves for it, is the result.


def _lazy(x: Tensor) -> bool:
    """Whether memory does not hold what the elements are: a negation is pending, or all are 0."""
    return x.is_neg() or x._is_zerotensor()


def _array(x: Tensor) -> np.ndarray[Any, Any]:
    return x.detach().numpy(force=_lazy(x))


def _num_threads() -> int:
    return min(torch.get_num_threads(), elufast.get_num_threads())


def _compute_forward(x: Tensor, function: str, alpha: float, from_output: bool) -> Tensor:
    out = torch.empty_like(x)
    _FORWARD[function](_array(x), alpha, out=out.numpy(), num_threads=_num_threads())
    return out


def _compute_inplace(x: Tensor, function: str, alpha: float, from_output: bool) -> Tensor:
    array = _array(x)
    _FORWARD[function](array, alpha, out=array, num_threads=_num_threads())
    return x


def _compute_backward(grad: Tensor, x: Tensor, function: str, alpha: float, from_output: bool) -> Tensor:
    out = torch.empty_like(x)
    _BACKWARD[function](
        _array(grad), _array(x), alpha, from_output=from_output, out=out.numpy(), num_threads=_num_threads()
    )
    return out


def _transformed() -> bool:
    """Whether the call is inside a function of torch.func, whose tensors have no memory of their own."""
    return torch._C._are_functorch_transforms_active()


def _traced() -> bool:
    """Whether the call is to become part of a graph, or a dispatch mode is to see it."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0 or torch._C._is_tracing()


def _has_tangent(x: Tensor) -> bool:
    return forward_ad.unpack_dual(x).tangent is not None


def _eager(x: Tensor, function: str, alpha: float, from_output: bool) -> Tensor:
    if (x.requires_grad and torch.is_grad_enabled()) or _has_tangent(x):
        return _record_forward(x, function, alpha, from_output)
    return _compute_forward(x, function, alpha, from_output)


def _forward(x: Tensor, function: str, alpha: float, from_output: bool) -> Tensor:
    if _transformed():
        return _Forward.apply(x, function, alpha, from_output)
    if _traced():
        return torch.ops.elufast.forward.default(x, function, float(alpha), from_output)
    return _eager(x, function, alpha, from_output)


def _backward(grad: Tensor, x: Tensor, function: str, alpha: float, from_output: bool) -> Tensor:
    if _transformed():
        return _Backward.apply(grad, x, function, alpha, from_output)
    if _traced() or torch._C._functorch.is_legacy_batchedtensor(grad):
        return torch.ops.elufast.backward.default(grad, x, function, float(alpha), from_output)
    if torch.is_grad_enabled() or _has_tangent(grad) or _has_tangent(x):
        return _record_backward(grad, x, function, alpha, from_output)
    return _compute_backward(grad, x, function, alpha, from_output)


def _second_backward(product: Tensor, x: Tensor, function: str, alpha: float, from_output: bool) -> Tensor:
    """Derivative of backward by x, times product, in which grad is a factor."""
    if function == "celu":
        product = product / alpha
    if not from_output:
        product = _backward(product, x, function, alpha, False)
    return torch.where(x >= 0, 0.0, product)  # 0 at 0, as in PyTorch


def _vmap(
    call: Callable[..., Tensor], info: Any, in_dims: tuple[int | None, ...], *arguments: Any
) -> tuple[Tensor, int]:
    """Call with the mapped axis of every tensor in front."""
    *tensors, function, alpha, from_output = arguments
    tensors = [
        x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(tensors, in_dims, strict=False)
    ]
    return call(*tensors, function, alpha, from_output), 0


class _Forward(Function):
    @staticmethod
    def forward(x: Tensor, *parameters: Any) -> Tensor:
        return (torch.ops.elufast.forward.default if _traced() else _compute_forward)(x, *parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.parameters = inputs
        *_, from_output = ctx.parameters
        saved = output if from_output else x
        ctx.save_for_backward(saved)
        ctx.save_for_forward(saved)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(grad, *ctx.saved_tensors, *ctx.parameters), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _backward(tangent, *ctx.saved_tensors, *ctx.parameters)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        return _vmap(_forward, info, in_dims, *arguments)


class _InPlace(_Forward):
    @staticmethod
    def forward(x: Tensor, *parameters: Any) -> Tensor:
        return _compute_inplace(x, *parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_dirty(output)
        _Forward.setup_context(ctx, inputs, output)


class _Backward(Function):
    @staticmethod
    def forward(grad: Tensor, x: Tensor, *parameters: Any) -> Tensor:
        return (torch.ops.elufast.backward.default if _traced() else _compute_backward)(grad, x, *parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad, x, *ctx.parameters = inputs
        ctx.save_for_backward(grad, x)
        ctx.save_for_forward(grad, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        first, x = ctx.saved_tensors
        by_grad = _backward(grad, x, *ctx.parameters) if ctx.needs_input_grad[0] else None
        by_x = _second_backward(grad * first, x, *ctx.parameters) if ctx.needs_input_grad[1] else None
        return by_grad, by_x, None, None, None

    @staticmethod
    def jvp(ctx: Any, grad_tangent: Tensor, x_tangent: Tensor, *_: None) -> Tensor:
        grad, x = ctx.saved_tensors
        return _backward(grad_tangent, x, *ctx.parameters) + _second_backward(grad * x_tangent, x, *ctx.parameters)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        return _vmap(_backward, info, in_dims, *arguments)


# Function.apply without its check for torch.func, which costs more than all the rest of a small call.
_record_forward = super(Function, _Forward).apply
_record_inplace = super(Function, _InPlace).apply
_record_backward = super(Function, _Backward).apply

for _name, _arguments, _compute, _function in (
    ("elufast::forward", "Tensor x", _compute_forward, _Forward),
    ("elufast::backward", "Tensor grad, Tensor x", _compute_backward, _Backward),
):
    torch.library.define(_name, f"({_arguments}, str function, float alpha, bool from_output) -> Tensor")
    torch.library.impl(_name, "cpu", _compute)
    torch.library.register_fake(_name, lambda x, *_: torch.empty_like(x))
    torch.library.register_autograd(_name, _function.backward, setup_context=_function.setup_context)
    torch.library.register_vmap(_name, partial(_vmap, getattr(torch.ops.elufast, _name[9:]).default))


def _plain(x: Any) -> bool:
    return type(x) is Tensor or type(x) is nn.Parameter


def _stands_in(x: Any) -> bool:
    """Whether the type of x is one that PyTorch, while tracing, gives to what will be a plain tensor."""
    return (
        isinstance(x, Tensor)
        and (_plain(x) or type(x).__torch_function__ is torch._C._disabled_torch_function_impl)
        and not hasattr(type(x), "__tensor_flatten__")
        and not (torch.compiler.is_compiling() and _transformed())
        and not torch.onnx.is_in_onnx_export()
    )


def _writeable(x: Tensor, recorded: bool) -> bool:
    """Whether x can be overwritten directly; else `Tensor.copy_` does it, or says why not."""
    return not (
        _lazy(x)
        or 0 in x.stride()
        or (x.is_inference() and not torch.is_inference_mode_enabled())
        or (recorded and (x.is_leaf or x._is_view()))
        or _has_tangent(x)
    )


def _activation(function: str, input: Tensor, alpha: float, inplace: bool) -> Tensor:
    eager = not (_traced() or _transformed())
    if not (
        (_plain if eager else _stands_in)(input)
        and (input.dtype is torch.float32 or input.dtype is torch.float64)
        and input.is_cpu
        and input.layout is torch.strided
    ):
        if eager:
            _FORWARD[function](0.0, alpha)  # an alpha that is refused, is refused for every tensor
        return _TORCH[function](input, alpha, inplace)
    if not inplace:
        return (_eager if eager else _forward)(input, function, alpha, False)
    from_output = alpha > 0
    if eager and from_output:
        recorded = input.requires_grad and torch.is_grad_enabled()
        if _writeable(input, recorded):
            if recorded:
                return _record_inplace(input, function, alpha, True)
            _compute_inplace(input, function, alpha, True)
            torch.autograd.graph.increment_version(input)
            return input
    # Where alpha <= 0 the result does not tell the sign of x: backward needs a copy of what is overwritten.
    return input.copy_(_forward(input if from_output else input.clone(), function, alpha, from_output))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """`elufast.elu` of a tensor: ``alpha * expm1(x)`` for x < 0, else ``x``.

    Takes the place of ``torch.nn.functional.elu``.

    Parameters
    ----------
    input : Tensor
        Of any shape and strides. Float32 or float64 in CPU memory is computed here, else by PyTorch.
    alpha : float, default 1.0
        The limit for x to minus infinity is -alpha. Any finite real number.
    inplace : bool, default False
        Whether to overwrite ``input``. The derivative is then taken from the result, which is less accurate for
        very negative x: see `elufast.elu_backward`.

    Returns
    -------
    Tensor
        A new tensor of the shape, dtype and memory format of ``input``, or ``input`` itself.

    Raises
    ------
    TypeError, ValueError
        If alpha is not a finite real number.
    RuntimeError
        If ``input`` must not change: a leaf that requires grad, a tensor whose elements share memory.
        Nothing is written then.

    Notes
    -----
    The error is at most 1.0 ulp, forward and derivative. The derivative at 0 is that from below, as in PyTorch.

    Examples
    --------
    >>> x = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> elufast.torch.elu(x).sum().backward()
    >>> x.grad
    tensor([0.3679, 1.0000, 1.0000])
    """
    return _activation("elu", input, alpha, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """`elufast.selu` of a tensor: ``scale * alpha * expm1(x)`` for x < 0, else ``scale * x``.

    Takes the place of ``torch.nn.functional.selu``.

    Parameters
    ----------
    input : Tensor
        Of any shape and strides. Float32 or float64 in CPU memory is computed here, else by PyTorch.
    inplace : bool, default False
        As for `elu`.

    Returns
    -------
    Tensor
        A new tensor of the shape, dtype and memory format of ``input``, or ``input`` itself.

    Raises
    ------
    RuntimeError
        As for `elu`.

    Notes
    -----
    The error is at most 1.0 ulp, forward and derivative. The derivative at 0 is that from below, as in PyTorch.

    Examples
    --------
    >>> elufast.torch.selu(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([-1.1113,  0.0000,  1.0507])
    """
    return _activation("selu", input, 1.0, inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """`elufast.celu` of a tensor: ``alpha * expm1(x / alpha)`` for x < 0, else ``x``.

    Takes the place of ``torch.nn.functional.celu``.

    Parameters
    ----------
    input : Tensor
        Of any shape and strides. Float32 or float64 in CPU memory is computed here, else by PyTorch.
    alpha : float, default 1.0
        The limit for x to minus infinity is -alpha. Any finite real number but 0.
    inplace : bool, default False
        As for `elu`.

    Returns
    -------
    Tensor
        A new tensor of the shape, dtype and memory format of ``input``, or ``input`` itself.

    Raises
    ------
    TypeError, ValueError
        If alpha is not a finite real number, or 0.
    RuntimeError
        As for `elu`.

    Notes
    -----
    The error is at most 1.0 ulp, forward and derivative. The derivative at 0 is 1.

    Examples
    --------
    >>> elufast.torch.celu(torch.tensor([-4.0, 0.0, 1.0]), alpha=2.0)
    tensor([-1.7293,  0.0000,  1.0000])
    """
    return _activation("celu", input, alpha, inplace)


class ELU(nn.ELU):
    """``torch.nn.ELU``, computed by `elu`.

    Parameters
    ----------
    alpha : float, default 1.0
        As for `elu`.
    inplace : bool, default False
        As for `elu`.

    Examples
    --------
    >>> elufast.torch.ELU(alpha=0.5)
    ELU(alpha=0.5)
    """

    def forward(self, input: Tensor) -> Tensor:
        return elu(input, self.alpha, self.inplace)


class SELU(nn.SELU):
    """``torch.nn.SELU``, computed by `selu`.

    Parameters
    ----------
    inplace : bool, default False
        As for `selu`.

    Examples
    --------
    >>> elufast.torch.SELU()(torch.tensor([1.0]))
    tensor([1.0507])
    """

    def forward(self, input: Tensor) -> Tensor:
        return selu(input, self.inplace)


class CELU(nn.CELU):
    """``torch.nn.CELU``, computed by `celu`.

    Parameters
    ----------
    alpha : float, default 1.0
        As for `celu`.
    inplace : bool, default False
        As for `celu`.

    Examples
    --------
    >>> elufast.torch.CELU(2.0, inplace=True)
    CELU(alpha=2.0, inplace=True)
    """

    def forward(self, input: Tensor) -> Tensor:
        return celu(input, self.alpha, self.inplace)


_MODULES: dict[type[nn.Module], type[nn.Module]] = {nn.ELU: ELU, nn.SELU: SELU, nn.CELU: CELU}


def replace_activations(model: nn.Module) -> int:
    """Make every ``torch.nn.ELU``, ``SELU`` and ``CELU`` in a model one of this module, in place.

    Parameters
    ----------
    model : torch.nn.Module
        Searched at every depth. It may itself be an activation.

    Returns
    -------
    int
        How many modules changed; one that is used at several places counts once.

    Raises
    ------
    TypeError
        If ``model`` is not a ``torch.nn.Module``.

    Notes
    -----
    A module stays the same object and takes another class: its parameters of the call, hooks, training flag and place
    in an optimizer or ``state_dict`` remain, and it still is an instance of ``torch.nn.ELU``. Left alone are subclasses
    of the three, whose ``forward`` may differ, calls of ``torch.nn.functional``, and scripted modules.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ELU(), torch.nn.ReLU())
    >>> elufast.torch.replace_activations(model)
    1
    >>> type(model[1])
    <class 'elufast.torch.ELU'>
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"replace_activations: model must be a torch.nn.Module, got {type(model).__name__}")
    swapped = [module for module in model.modules() if type(module) in _MODULES]
    for module in swapped:
        module.__class__ = _MODULES[type(module)]
    return len(swapped)
