"""Times elufast beside every installed alternative, cell by cell, and writes tables and a picture.

    python tools/peers.py [--functions elu,selu] [--dtypes float32] [--threads 1,2] [--modes out,bias] [--sizes 1,1000]
                          [--libraries elufast,PyTorch] [--rounds 3] [--output build/peers]

A cell is function x dtype x threads x mode x size. Each library runs in a process of its own, which only it keeps
busy; in a cell the libraries take turns, `--rounds` times, and the best time of each counts. Inputs are the same
normal(0, 1) numbers, outputs are preallocated where the library can, and everything is called once before it is timed:
where that result is not the formula's it is named, not timed, and the exit code is 1.

bias: x is rows of 512, to which one row is added first.
in place: a sample is at most 200 calls, and x or grad is restored before it. Gradients are taken where the derivative
    is about 1 for x < 0, so they do not shrink; where x > 0 SELU's grow 2e4 times in a sample, the others' not.
backward from output: a mode of its own, since it computes less.

libmvec is a C loop, `y[i] = x[i] > 0 ? x[i] : expm1f(x[i])`, as the compiler vectorizes it; MKL is this loop around its
functions of vectors, 1024 elements at a time. torch.compile is left out below 1000 elements: a call of it takes 20 us.
`copy` and `multiply` are floors: they move the same bytes and compute next to nothing. `add + elu_` is NumPy's sum, and
then elufast. These three count as no alternatives.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Call = Callable[[], Any]

DTYPES = ("float32", "float64", "float16", "bfloat16")
THREADS = (1, 2)
SIZES = (1, 100, 1_000, 10_000, 100_000, 1_000_000, 16_000_000)
MODES = ("new", "out", "in place", "bias", "backward", "backward from output", "backward in place")
IN_PLACE = {"in place": "x", "backward in place": "grad"}  # what is overwritten
COLUMNS = 512
CALLS_IN_PLACE = 200
WRONG = "wrong result"
ALPHA = {"elu": 1.0, "selu": 1.6732632423543772, "celu": 2.0}
SCALE = {"elu": 1.0, "selu": 1.0507009873554805, "celu": 1.0}
threads = int(os.environ.get("OMP_NUM_THREADS", "1"))  # of a worker

# The formulas of arrays and Task.scalars: factor, variable, value where it is positive, value elsewhere; and what makes
# expressions of them.
FORMULAS = {
    "forward": ("s * ", "x", "x", "a * expm1(x * e)"),
    "backward": ("grad * ", "x", "s", "c * exp(x * e)"),
    "backward from output": ("grad * ", "y", "s", "(y + b) * e"),
}
ARRAYS = "{0}where({1} > 0, {2}, {3})"
PYTHON = "{0}({2} if {1} > 0 else {3})"
C = "{0}({1} > 0 ? {2} : {3})"

# What a library's user writes in each mode, for those that have functions of their own: `{k}` is `, a` but for SELU.
EXPRESSIONS = {
    "elufast": {
        "new": "f(x{k})",
        "out": "f(x{k}, out=out)",
        "in place": "f_(x{k})",
        "bias": "f(x{k}, bias=bias, out=out)",
        "backward": "back(grad, x{k}, out=out)",
        "backward from output": "back(grad, y{k}, from_output=True, out=out)",
        "backward in place": "back(grad, x{k}, out=grad)",
    },
    "PyTorch": {
        "new": "f(x{k})",
        "out": "elu(x, a, s, e, out=out)",
        "in place": "f(x{k}, True)",
        "bias": "f(add(x, bias, out=out){k}, True)",
        "backward": "back(grad, a, s, e, False, x, grad_input=out)",
        "backward from output": "back(grad, a, s, e, True, y, grad_input=out)",
        "backward in place": "back(grad, a, s, e, False, x, grad_input=grad)",
    },
    "torch.compile": {
        "new": "f(x{k})",
        "out": "out.copy_(f(x{k}))",
        "bias": "out.copy_(f(x + bias{k}))",
        "backward": "out.copy_(back(grad, a, s, e, False, x))",
    },
    "TensorFlow": {
        "new": "f(features=x)",
        "bias": "f(features=add(value=x, bias=bias))",
        "backward from output": "back(gradients=grad, outputs=y)",
    },
    "JAX": {"new": "f(x{k})", "bias": "f(x + bias{k})", "backward": "vjp(lambda v: f(v{k}), x)[1](grad)[0]"},
    "add + elu_": {"bias": "f_(add(x, bias, out){k})"},
    "copy": {"out": "copyto(out, x)", "bias": "copyto(out, x)"},
    "multiply": {
        "in place": "multiply(x, 1, x)",
        "backward": "multiply(x, grad, out)",
        "backward from output": "multiply(x, grad, out)",
        "backward in place": "multiply(x, grad, grad)",
    },
}


def used(text: str) -> list[str]:
    """The arrays that an expression names."""
    return [k for k in ("x", "grad", "y", "bias", "out") if re.search(rf"\b{k}\b", text)]


@dataclass
class Task:
    """What a library is to compute in a cell."""

    function: str
    alpha: float
    mode: str
    x: Array
    grad: Array
    y: Array  # the forward result
    bias: Array
    out: Array
    result: Call | None = None  # of calls that return nothing and write none of these

    def scalars(self, number: Callable[[float], Any] = float) -> dict[str, Any]:
        """alpha, scale, the factor inside the exponential, and products of them."""
        a, s = self.alpha, SCALE[self.function]
        e = 1 / a if self.function == "celu" else 1.0
        return {k: number(v) for k, v in {"a": a, "s": s, "e": e, "b": s * a, "c": s * a * e}.items()}

    def formula(self, pattern: str, x: str = "x") -> str:
        """Its formula as an expression, without factors of 1; with something else for x."""
        key = self.mode.removesuffix(" in place")
        text = pattern.format(*FORMULAS[key if key in FORMULAS else "forward"])
        for name, value in self.scalars().items():
            if value == 1:
                text = re.sub(rf"\b{name} \* | \* {name}\b", "", text)
        return re.sub(r"\bx\b", x, text)

    def bind(
        self,
        text: str | None,
        array: Callable[[Array], Any] = lambda a: a,
        number: Callable[[float], Any] = float,
        jit: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
        **names: Any,
    ) -> Call | None:
        """A function of nothing that evaluates this expression of arrays, scalars and ``names``."""
        if text is None:
            return None
        text = text.format(k="" if self.function == "selu" else ", a")
        arrays = {k: array(getattr(self, k)) for k in used(text)}
        names |= self.scalars(number)
        if jit is None:
            return eval(f"lambda: {text}", names | arrays)  # type: ignore[no-any-return]
        jitted, values = jit(eval(f"lambda {', '.join(arrays)}: {text}", names)), list(arrays.values())
        return lambda: jitted(*values)

    def target(self) -> str:
        """The name of the array that is written."""
        return IN_PLACE.get(self.mode, "out")

    def run(self, call: Call) -> Array:
        """The result of a call."""
        got = call()
        if got is None:
            got = self.result() if self.result else getattr(self, self.target())
        # NumPy takes no tensors of bfloat16.
        return np.asarray(got.double() if hasattr(got, "double") else got).reshape(self.x.shape)


# One maker a library, which turns a task into what is timed, or None where the library has no such call.
Maker = Callable[[Task], Call | None]


def _elufast(name: str = "elufast") -> Maker:
    import elufast

    elufast.set_num_threads(threads)

    def make(task: Task) -> Call | None:
        f, f_, back = (getattr(elufast, task.function + suffix) for suffix in ("", "_", "_backward"))
        return task.bind(EXPRESSIONS[name].get(task.mode), f=f, f_=f_, back=back, add=np.add)

    return make


def numpy_call(task: Task) -> Call | None:
    text = task.formula(ARRAYS)
    if task.mode == "bias":
        text = f"(lambda x: {text})(x + bias)"
    return task.bind(text, number=task.x.dtype.type, where=np.where, exp=np.exp, expm1=np.expm1)


def _numpy() -> Maker:
    return lambda task: None if task.mode == "out" or task.mode in IN_PLACE else numpy_call(task)


def _floor(name: str) -> Maker:
    def make(task: Task) -> Call | None:
        slow = name == "multiply" and task.x.itemsize == 2  # NumPy computes with halves in float32
        return task.bind(None if slow else EXPRESSIONS[name].get(task.mode), copyto=np.copyto, multiply=np.multiply)

    return make


def _torch(name: str) -> Maker:
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    aten, compiled = torch.ops.aten, name == "torch.compile"

    def tensor(a: Array) -> Any:
        if a.dtype.name == "bfloat16":
            return torch.from_numpy(a.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(a)

    def jit(function: Callable[..., Any]) -> Any:
        torch._dynamo.reset()
        return torch.compile(function, fullgraph=True, dynamic=False)

    def make(task: Task) -> Call | None:
        return task.bind(
            None if compiled and task.x.size < 500 else EXPRESSIONS[name].get(task.mode),
            tensor,
            jit=jit if compiled else None,
            f=getattr(torch.nn.functional, task.function),
            elu=aten.elu.out,
            back=aten.elu_backward if compiled else aten.elu_backward.grad_input,
            add=torch.add,
        )

    return make


def _tensorflow() -> Maker:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    ops = tf.raw_ops

    def make(task: Task) -> Call | None:
        if task.function == "celu" or task.alpha != ALPHA[task.function]:
            return None
        name, text = task.function.capitalize(), EXPRESSIONS["TensorFlow"].get(task.mode)
        f, back = getattr(ops, name), getattr(ops, f"{name}Grad")
        return task.bind(text, tf.constant, f=f, back=back, add=ops.BiasAdd)

    return make


def _jax() -> Maker:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false" if threads == 1 else ""
    import jax

    jax.config.update("jax_enable_x64", True)

    def make(task: Task) -> Call | None:
        text, f = EXPRESSIONS["JAX"].get(task.mode), getattr(jax.nn, task.function)
        call = task.bind(text, jax.numpy.asarray, jit=jax.jit, f=f, vjp=jax.vjp)
        return (lambda: call().block_until_ready()) if call else None

    return make


def _onnxruntime() -> Maker:
    import onnxruntime
    from onnx import TensorProto, helper

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1

    def make(task: Task) -> Call | None:
        if task.mode not in ("new", "out", "bias") or task.x.dtype != np.float32:
            return None
        inputs = {"x": task.x} | ({"bias": task.bias} if task.mode == "bias" else {})
        shapes = {k: a.shape for k, a in (inputs | {"y": task.x}).items()}
        values = {k: helper.make_tensor_value_info(k, TensorProto.FLOAT, shape) for k, shape in shapes.items()}
        alpha = {} if task.function == "selu" else {"alpha": task.alpha}
        nodes = [helper.make_node("Add", ["x", "bias"], ["sum"])] if task.mode == "bias" else []
        nodes.append(helper.make_node(task.function.capitalize(), ["sum" if nodes else "x"], ["y"], **alpha))
        graph = helper.make_graph(nodes, "g", [values[k] for k in inputs], [values["y"]])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        if task.mode == "new":
            return lambda: session.run(None, inputs)[0]
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("y", "cpu", 0, np.float32, task.out.shape, task.out.ctypes.data)
        return lambda: session.run_with_iobinding(binding)

    return make


def _openvino() -> Maker:
    import openvino
    from openvino import opset13 as ops

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": str(threads), "INFERENCE_PRECISION_HINT": "f32"}

    def make(task: Task) -> Call | None:
        if task.mode not in ("out", "bias") or task.function == "celu" or task.x.dtype != np.float32:
            return None
        inputs = [task.x, task.bias] if task.mode == "bias" else [task.x]
        parameters = [ops.parameter(a.shape, np.float32) for a in inputs]
        node = ops.add(*parameters) if task.mode == "bias" else parameters[0]
        if task.function == "elu":
            node = ops.elu(node, task.alpha)
        else:
            node = ops.selu(node, *(ops.constant(np.float32(v)) for v in (task.alpha, SCALE["selu"])))
        request = core.compile_model(openvino.Model([node], parameters), "CPU", config).create_infer_request()
        for i, array in enumerate(inputs):
            request.set_input_tensor(i, openvino.Tensor(array, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(task.out, shared_memory=True))

        def run() -> None:
            request.infer()

        return run

    return make


def _xnnpack() -> Maker:
    from ai_edge_litert.interpreter import Interpreter

    model = str(Path(__file__).with_name("elu.tflite"))

    def make(task: Task) -> Call | None:
        if (task.function, task.alpha, task.mode, task.x.dtype.name) != ("elu", 1, "out", "float32"):
            return None
        interpreter = Interpreter(model, num_threads=threads)
        interpreter.resize_tensor_input(0, [1, task.x.size])
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], task.x.reshape(1, -1))
        task.result = partial(interpreter.get_tensor, interpreter.get_output_details()[0]["index"])
        return interpreter.invoke  # type: ignore[no-any-return]

    return make


def _numexpr() -> Maker:
    import numexpr

    numexpr.set_num_threads(threads)

    def make(task: Task) -> Call | None:
        if task.x.itemsize == 2:
            return None
        text = task.formula(ARRAYS, "(x + bias)" if task.mode == "bias" else "x")
        # Numbers of the dtype: a Python float would widen a float32.
        names = task.scalars(task.x.dtype.type) | {k: getattr(task, k) for k in used(text)}
        out = None if task.mode == "new" else getattr(task, task.target())
        return lambda: numexpr.evaluate(text, local_dict=names, out=out)

    return make


def _numba() -> Maker:
    import numba

    numba.set_num_threads(threads)

    @functools.cache
    def kernel(source: str, dtype: np.dtype[Any], **scalars: float) -> Any:
        names = {"prange": numba.prange, "exp": math.exp, "expm1": math.expm1}
        exec(source, names | {k: dtype.type(v) for k, v in scalars.items()}, names)
        return numba.njit(names["kernel"], parallel=threads > 1)

    def make(task: Task) -> Call | None:
        if task.x.itemsize == 2:
            return None
        bias = task.mode == "bias"
        text = task.formula(PYTHON, "(x + bias)" if bias else "x")
        arrays, at = ", ".join(used(text)), "[i, j]" if bias else "[i]"
        element = re.sub(r"\b(x|y|grad)\b", rf"\1{at}", text).replace("bias", "bias[j]")
        source = f"def kernel({arrays}, out):\n for i in prange(len(out)):\n"
        source += ("  for j in range(out.shape[1]):\n " if bias else "") + f"  out{at} = {element}"
        source += "\n return out" if task.mode == "new" else ""
        compiled = kernel(source, task.x.dtype, **task.scalars())
        target = "empty(x)" if task.mode == "new" else task.target()
        return task.bind(f"kernel({arrays}, {target})", kernel=compiled, empty=np.empty_like)

    return make


# For each range of `width` elements; `first` is what MKL computes of one.
LOOP = """
#include <tgmath.h>
void kernel(const real *xs, const real *grads, const real *ys, const real *biases, real *out, long n, long width,
            void (*vector)(int, const wide *, wide *))
{
    const wide a = %(a)r, s = %(s)r, e = %(e)r, b = %(b)r, c = %(c)r;
#pragma omp parallel for if (n > width)
    for (long k = 0; k < n; k += width) {
        long m = n - k < width ? n - k : width;
        %(first)s
#pragma omp simd
        for (long j = 0; j < m; j++) {
            wide x = %(x)s, grad = grads[k + j], y = ys[k + j];
            out[k + j] = %(formula)s;
        }
    }
}
"""
FIRST = """
        wide t[1024];
        for (long j = 0; j < m; j++) {
            wide x = %(x)s;
            t[j] = x > 0 ? 0 : x * e;
        }
        vector(m, t, t);
"""


def _c(mkl: str | None = None) -> Maker:
    """The loop in C, compiled, with the compiler's vectors or those of this library."""
    os.environ["MKL_THREADING_LAYER"] = "SEQUENTIAL"  # the threads are the loop's
    library = ctypes.CDLL(str(next(Path(sys.prefix, "lib").glob(mkl)))) if mkl else None

    @functools.cache
    def kernel(source: str, real: str, wide: str) -> Any:
        command = [*shlex.split(os.environ.get("CC", "cc")), f"-Dreal={real}", f"-Dwide={wide}", "-w", "-O3"]
        command += ["-march=native", "-ffast-math", "-fopenmp", "-fPIC", "-shared", "-xc", "-", "-lm"]
        command += ["-nostartfiles", "-o"]  # or this process would flush subnormals
        with tempfile.TemporaryDirectory() as folder:
            built = f"{folder}/kernel.so"
            done = subprocess.run([*command, built], input=source, text=True, capture_output=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the C compiler: {done.stderr.partition('error: ')[2]}")
            return ctypes.CDLL(built).kernel

    def make(task: Task) -> Call | None:
        text, bias, n, function = task.formula(C), task.mode == "bias", task.x.size, None
        if task.mode == "new" or (library and "exp" not in text):
            return None
        names = task.scalars() | {"x": "xs[k + j]" + " + biases[j]" * bias, "first": "", "formula": text}
        width = COLUMNS if bias else -(-n // threads)
        if library:
            names |= {"first": FIRST % names, "formula": re.sub(r"exp(m1)?\(.*?\)", "t[j]", text)}
            width = min(width, 1024)
            name = ("vd" if task.x.itemsize == 8 else "vs") + ("Expm1" if "expm1" in text else "Exp")
            function = ctypes.cast(getattr(library, name), ctypes.c_void_p)
        types = {"float64": ("double", "double"), "float16": ("_Float16", "float"), "bfloat16": ("__bf16", "float")}
        call = kernel(LOOP % names, *types.get(task.x.dtype.name, ("float", "float")))
        arrays = (task.x, task.grad, task.y, task.bias, getattr(task, task.target()))
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
        call.restype = None
        return partial(call, *pointers, ctypes.c_long(n), ctypes.c_long(width), function)

    return make


# What must be there, a module or a file, and the maker.
LIBRARIES: dict[str, tuple[str, Callable[[], Maker]]] = {
    "elufast": ("elufast", _elufast),
    "XNNPACK": ("ai_edge_litert", _xnnpack),
    "libmvec": ("cc", _c),
    "MKL": ("libmkl_rt.so.*", partial(_c, "libmkl_rt.so.*")),
    "PyTorch": ("torch", partial(_torch, "PyTorch")),
    "torch.compile": ("torch", partial(_torch, "torch.compile")),
    "TensorFlow": ("tensorflow", _tensorflow),
    "ONNX Runtime": ("onnxruntime", _onnxruntime),
    "OpenVINO": ("openvino", _openvino),
    "JAX": ("jax", _jax),
    "numexpr": ("numexpr", _numexpr),
    "numba": ("numba", _numba),
    "NumPy": ("numpy", _numpy),
    "add + elu_": ("elufast", partial(_elufast, "add + elu_")),
    "copy": ("numpy", partial(_floor, "copy")),
    "multiply": ("numpy", partial(_floor, "multiply")),
}
FLOORS = ("copy", "multiply")
NO_ALTERNATIVES = ("elufast", "add + elu_", *FLOORS)


def installed(name: str) -> bool:
    need = LIBRARIES[name][0]
    if need == "cc" or need.startswith("lib"):
        return bool(shutil.which("cc") and (need == "cc" or list(Path(sys.prefix, "lib").glob(need))))
    return importlib.util.find_spec(need) is not None


@functools.lru_cache(1)
def data(dtype: str, size: int) -> list[Array]:
    """x, grad, a row."""
    if dtype == "bfloat16":
        import ml_dtypes  # noqa: F401
    rng = np.random.default_rng(1)
    return [rng.standard_normal(n).astype(dtype) for n in (size, size, min(size, COLUMNS))]


def prepare(function: str, dtype: str, mode: str, size: int) -> tuple[Task, Call | None]:
    """A task, and what restores its inputs, if it changes them."""
    x, grad, bias = data(dtype, size)
    if mode == "bias":
        x = x[: size // len(bias) * len(bias)].reshape(-1, len(bias))
    task = Task(function, ALPHA[function], mode, x, grad, x, bias, np.zeros_like(x))
    if mode == "backward in place":
        # So near to 1 that half precision rounds it away, and no subnormal numbers.
        near_one = x.astype(np.float32) / 2**16 - 2**-13 - math.log(task.scalars()["c"])
        task.x = np.where(x > 0, x, near_one.astype(dtype))
    if mode == "backward from output":
        forward = numpy_call(replace(task, mode="new"))
        assert forward
        with np.errstate(over="ignore"):
            task.y = forward()
    if mode not in IN_PLACE:
        return task, None
    original = getattr(task, task.target())
    copy = original.copy()
    setattr(task, task.target(), copy)
    return task, partial(np.copyto, copy, original)


def check(call: Call, task: Task) -> None:
    """Call it once, and compare about 1000 elements or rows with the formula in float64."""
    few = slice(None, None, max(1, len(task.x) // 1000))
    wide = {k: getattr(task, k)[few].astype(np.float64) for k in ("x", "grad", "y")}
    reference = numpy_call(replace(task, bias=task.bias.astype(np.float64), **wide))
    assert reference
    with np.errstate(over="ignore"):
        expected = reference()
    got = task.run(call)[few].astype(np.float64)
    tolerance = {"bfloat16": 0.05, "float16": 0.01}.get(task.x.dtype.name, 1e-4)
    if not np.allclose(got, expected, tolerance, tolerance):
        raise ValueError(f"{WRONG}: off by {np.abs(got - expected).max():.2g}")


def best_time(call: Call, restore: Call | None, seconds: float) -> float:
    """Seconds a call: the best of many samples, each long enough for the clock."""
    call()
    start = time.perf_counter()
    call()
    once = max(time.perf_counter() - start, 1e-8)
    number = max(1, min(int(2e-3 / once), CALLS_IN_PLACE if restore else sys.maxsize))
    best, end = math.inf, time.perf_counter() + seconds
    while True:
        if restore:
            restore()
        repeats = itertools.repeat(None, number)
        start = time.perf_counter()
        for _ in repeats:
            call()
        stop = time.perf_counter()
        best = min(best, (stop - start) / number)
        if stop > end:
            return best


def worker(library: str) -> None:
    """Answer cells (JSON, one a line) with seconds a call, null where there is no such call, or what went wrong."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    make, last, task, call, restore = None, None, None, None, None
    for line in sys.stdin:
        *cell, seconds = json.loads(line)
        answer: float | str | None = None
        try:
            make = make or LIBRARIES[library][1]()
            if cell != last:
                last, task, call = cell, None, None
                task, restore = prepare(*cell)
                call = make(task)
                if call and library not in FLOORS:
                    check(call, task)
            if call and task:
                # With a bias there are whole rows alone: a few elements less.
                answer = best_time(call, restore, seconds) * cell[-1] / task.x.size
        except Exception as error:
            answer = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:150]}"
        print(json.dumps(answer), file=stdout, flush=True)


class Library:
    """A worker process with a number of threads."""

    def __init__(self, name: str, threads: int, folder: Path) -> None:
        self.name = name
        self.errors: Counter[str] = Counter()
        limits = ("OMP", "MKL", "NUMBA", "NUMEXPR", "OPENBLAS")
        environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in limits}
        environment |= {"NUMEXPR_MAX_THREADS": str(threads), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("ELUFAST_VERBOSE") else None,
            text=True,
            env=environment,
        )

    def time(self, *cell: Any) -> float | None:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(cell) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            sys.exit(f"{self.name}: its process has ended; ELUFAST_VERBOSE=1 shows why")
        if isinstance(answer, str):
            self.errors[f"{self.name}, {cell[1]}: {answer}"] += 1
            return None
        return answer  # type: ignore[no-any-return]


Cell = tuple[str, str, int, str, int]  # function, dtype, threads, mode, size
Times = dict[Cell, dict[str, float]]
Leads = dict[Cell, tuple[float, str]]


def measure(options: argparse.Namespace, names: list[str]) -> tuple[Times, Counter[str]]:
    """Times, and what went wrong: how often."""
    times: Times = {}
    errors: Counter[str] = Counter()
    for threads in options.threads:
        workers = [Library(name, threads, options.output.resolve()) for name in names]
        grid = list(itertools.product(options.dtypes, options.sizes, options.functions, options.modes))
        for k, (dtype, size, function, mode) in enumerate(grid):
            best: dict[str, float] = {}
            asked = workers
            for _ in range(options.rounds):
                for library in asked:
                    seconds = library.time(function, dtype, mode, size, options.seconds)
                    if seconds is not None:
                        best[library.name] = min(best.get(library.name, math.inf), seconds)
                asked = [library for library in asked if library.name in best]
            times[function, dtype, threads, mode, size] = best
            if sys.stderr.isatty():
                print(f"\r{threads} threads, {k + 1} of {len(grid)} ", end="", file=sys.stderr)
        for library in workers:
            library.process.communicate()
            errors.update(library.errors)
    print(file=sys.stderr)
    return times, errors


def leads(times: Times, *rivals: str) -> Leads:
    """How many times as long the fastest alternative takes, and its name, for each cell that has one."""
    lead = {}
    for cell, best in times.items():
        others = [(best[name], name) for name in rivals or best.keys() - set(NO_ALTERNATIVES) if name in best]
        if others and "elufast" in best:
            lead[cell] = min(others)[0] / best["elufast"], min(others)[1]
    return lead


def mean(lead: Leads) -> str:
    return f"{math.exp(sum(math.log(value) for value, _ in lead.values()) / len(lead)):.2f}" if lead else "-"


def summary(times: Times) -> str:
    """How far ahead, and the cells that are behind by more than 3 %."""
    lead = leads(times)
    behind = sorted((value, cell, name) for cell, (value, name) in lead.items() if value < 1 / 1.03)
    first = sum(value >= 1 for value, _ in lead.values())
    text = f"""\
{len(lead)} cells with an alternative: elufast is the fastest in {first}, up to 3 % behind in \
{len(lead) - first - len(behind)}, further behind in {len(behind)}.
Geometric mean of (alternative / elufast): {mean(lead)} with the fastest of all, \
{mean(leads(times, "PyTorch"))} with PyTorch.
"""
    for value, (function, dtype, threads, mode, size), name in behind:
        text += f"\n- {function} {dtype} {mode}, {size} elements, {threads} threads: {1 / value:.2f} times {name}"
    return text


def markdown(head: list[str], rows: list[list[str]], words: int) -> str:
    rule = "|---" * words + "|---:" * (len(head) - words) + "|"
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def leads_table(times: Times) -> str:
    """The leads, a column for each size."""
    lead = leads(times)
    sizes = sorted({cell[4] for cell in lead})
    rows = [
        [*map(str, row), *(f"{lead[(*row, n)][0]:.2f}" if (*row, n) in lead else "" for n in sizes)]
        for row in sorted({cell[:4] for cell in lead})
    ]
    return markdown(["function", "dtype", "threads", "mode", *(f"n {n}" for n in sizes)], rows, 4)


def times_table(times: Times, names: list[str]) -> str:
    shown = [name for name in names if any(name in best for best in times.values())]
    rows = [
        [*map(str, cell), *(f"{best[n] / cell[4] * 1e9:.3g}" if n in best else "" for n in shown)]
        for cell, best in times.items()
    ]
    return markdown(["function", "dtype", "threads", "mode", "n", *shown], rows, 5)


def picture(times: Times, names: list[str], path: Path) -> None:
    """ELU with out= (a new result where a library has no out), time an element against size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    dtypes, threads = list(dict.fromkeys(cell[1] for cell in times)), list(dict.fromkeys(cell[2] for cell in times))
    shape, size = (len(dtypes), len(threads)), (6 * len(threads), 4 * len(dtypes))
    figure, axes = pyplot.subplots(*shape, figsize=size, sharex=True, sharey="row", squeeze=False, layout="constrained")
    handles: dict[str, Any] = {}
    for axis, (dtype, count) in zip(axes.flat, itertools.product(dtypes, threads), strict=True):
        for index, name in enumerate(names):
            own, floor = name == "elufast", name in FLOORS
            points = {}
            for n, mode in itertools.product(
                sorted({cell[4] for cell in times}), ("out",) if floor else ("new", "out")
            ):
                best = times.get(("elu", dtype, count, mode, n), {})
                if name in best:
                    points[n] = best[name] / n * 1e9  # with out where there are both
            style = ":" if floor else "--" if index > 10 else "-"
            color, width, marker = ("black", 2.5, "o") if own else (f"C{index % 10}", 1.2, None)
            if points:
                (handles[name],) = axis.plot(
                    *zip(*points.items(), strict=True), style, c=color, lw=width, marker=marker
                )
        axis.set(xscale="log", yscale="log", title=f"{dtype}, {count} thread{'s' * (count > 1)}")
        axis.set(xlabel="elements", ylabel="ns an element")
        axis.grid(alpha=0.3)
        axis.label_outer()
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncol=4 * len(threads), frameon=False)
    figure.suptitle("ELU, time an element")
    figure.savefig(path, dpi=90)


def machine(names: list[str]) -> str:
    info = Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*: (.+)", info.read_text() if info.exists() else "")
    cores = f"{os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}"
    parts = [cores, platform.system(), f"Python {platform.python_version()}"]
    for module in dict.fromkeys("mkl" if name == "MKL" else LIBRARIES[name][0] for name in names):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            parts.append(f"{module} {importlib.metadata.version(module)}")
    return ", ".join(parts)


REPORT = """\
# Beside the alternatives, cell by cell

{text}

## How many times as long the fastest alternative takes

{leads}

## Times, ns an element

For n = 1 it is ns a call. No alternatives: `add + elu_` is two passes; `copy` and `multiply` move the same bytes.

{times}
"""


def main() -> int:
    def listed(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
        return lambda text: [convert(word.strip()) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    for name, default in (("libraries", LIBRARIES), ("functions", ALPHA), ("dtypes", DTYPES), ("modes", MODES)):
        parser.add_argument(f"--{name}", type=listed(str), default=list(default))
    for name, numbers in (("threads", THREADS), ("sizes", SIZES)):
        parser.add_argument(f"--{name}", type=listed(int), default=list(numbers))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.02, help="a library, a cell and a round")
    parser.add_argument("--output", type=Path, default=Path("build/peers"))
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return 0
    names = [name for name in options.libraries if installed(name)]
    if missing := sorted(set(options.libraries) - set(names)):
        print("left out:", ", ".join(missing), file=sys.stderr)
    times, errors = measure(options, names)
    text = f"`{shlex.join(['python', 'tools/peers.py', *sys.argv[1:]])}` on {machine(names)}.\n\n{summary(times)}"
    if errors:
        text += "\n\nNot timed:\n" + "".join(f"\n- {problem} ({count} cells)" for problem, count in errors.items())
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    report = REPORT.format(text=text, leads=leads_table(times), times=times_table(times, names))
    (options.output / "peers.md").write_text(report)
    (options.output / "peers.json").write_text(json.dumps([[*cell, best] for cell, best in times.items()]))
    if importlib.util.find_spec("matplotlib"):
        picture(times, names, options.output / "peers.png")
    return int(any(WRONG in problem for problem in errors))


if __name__ == "__main__":
    sys.exit(main())
