"""Times elufast beside every installed alternative, cell by cell, and writes a table and a picture.

    python tools/peers.py [--sizes 1,1000] [--libraries elufast,torch] [--rounds 3] [--output build/peers]

A cell is function x dtype x threads x mode x size. Each library runs in a process of its own, which
only it keeps busy; in a cell the libraries take turns, `--rounds` times, and the best time of each
counts. Inputs are the same normal(0, 1) numbers, outputs are preallocated where the library can, and
everything is called once before it is timed. ``copy`` and ``multiply`` are floors: they move the same
bytes and compute next to nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

FUNCTIONS = ("elu", "selu", "celu")
ALPHA = {"elu": 1.0, "selu": 1.6732632423543772, "celu": 2.0}
SCALE = {"elu": 1.0, "selu": 1.0507009873554805, "celu": 1.0}
DTYPES = ("float32", "float64")
THREADS = (1, 2)
SIZES = (1, 100, 1_000, 10_000, 100_000, 1_000_000, 16_000_000)
MODES = ("new", "out", "in place", "backward", "backward from output", "backward in place")
FLOORS = ("copy", "multiply")
MODULES = {
    "elufast": "elufast",
    "XNNPACK": "ai_edge_litert",
    "PyTorch": "torch",
    "TensorFlow": "tensorflow",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "JAX": "jax",
    "numexpr": "numexpr",
    "numba": "numba",
    "NumPy": "numpy",
    "copy": "numpy",
    "multiply": "numpy",
}
Call = Callable[[], Any]
Maker = Callable[[str, str, Any, Any, Any], Call | None]


def _exponent(function: str) -> float:
    """The scalar inside the exponential: 1 / alpha for CELU."""
    return 1 / ALPHA[function] if function == "celu" else 1.0


# One maker a library: (function, mode, x, grad, y) -> what to time, or None where it has no such call.
# x, grad and y (the forward result) are NumPy arrays of the cell's dtype and size.


def _elufast() -> Maker:
    import elufast

    threads = int(os.environ["OMP_NUM_THREADS"])

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        import numpy as np

        forward, inplace, backward = (getattr(elufast, function + suffix) for suffix in ("", "_", "_backward"))
        out, copy = np.zeros_like(x), x.copy()
        elufast.set_num_threads(threads)
        if function == "selu":
            return {
                "new": lambda: forward(x),
                "out": lambda: forward(x, out=out),
                "in place": lambda: inplace(copy),
                "backward": lambda: backward(grad, x, out=out),
                "backward from output": lambda: backward(grad, y, from_output=True, out=out),
                "backward in place": lambda: backward(grad, x, out=grad),
            }[mode]
        a = ALPHA[function]
        return {
            "new": lambda: forward(x, a),
            "out": lambda: forward(x, a, out=out),
            "in place": lambda: inplace(copy, a),
            "backward": lambda: backward(grad, x, a, out=out),
            "backward from output": lambda: backward(grad, y, a, from_output=True, out=out),
            "backward in place": lambda: backward(grad, x, a, out=grad),
        }[mode]

    return make


def _numpy() -> Maker:
    import numpy as np

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        a, s, e = x.dtype.type(ALPHA[function]), x.dtype.type(SCALE[function]), _exponent(function)
        e = x.dtype.type(e)

        def new() -> Any:
            return s * np.where(x > 0, x, a * np.expm1(x * e))

        def backward() -> Any:
            return grad * s * np.where(x > 0, x.dtype.type(1), a * e * np.exp(x * e))

        return {"new": new, "backward": backward}.get(mode)

    return make


def _floor(name: str) -> Maker:
    import numpy as np

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        out = np.zeros_like(x)
        if name == "copy":
            return partial(np.copyto, out, x) if mode == "out" else None
        if mode == "in place":
            return partial(np.multiply, x, np.ones((), x.dtype), out=x)
        return partial(np.multiply, x, grad, out=out) if mode.startswith("backward") else None

    return make


def _torch() -> Maker:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_grad_enabled(False)

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        a, s, e = ALPHA[function], SCALE[function], _exponent(function)
        tx, tg, ty = torch.from_numpy(x), torch.from_numpy(grad), torch.from_numpy(y)
        out, copy = torch.zeros_like(tx), tx.clone()
        functional = getattr(torch.nn.functional, function)
        elu, back = torch.ops.aten.elu.out, torch.ops.aten.elu_backward.grad_input
        selu = function == "selu"
        return {
            "new": (lambda: functional(tx)) if selu else (lambda: functional(tx, a)),
            "out": lambda: elu(tx, a, s, e, out=out),
            "in place": (lambda: functional(copy, True)) if selu else (lambda: functional(copy, a, True)),
            "backward": lambda: back(tg, a, s, e, False, tx, grad_input=out),
            "backward from output": lambda: back(tg, a, s, e, True, ty, grad_input=out),
            "backward in place": lambda: back(tg, a, s, e, False, tx, grad_input=tg),
        }[mode]

    return make


def _tensorflow() -> Maker:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))
    tf.config.threading.set_inter_op_parallelism_threads(1)

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        if function == "celu":
            return None
        tx, tg, ty = tf.constant(x), tf.constant(grad), tf.constant(y)
        raw = {"elu": tf.raw_ops.Elu, "selu": tf.raw_ops.Selu}[function]
        back = {"elu": tf.raw_ops.EluGrad, "selu": tf.raw_ops.SeluGrad}[function]
        return {
            "new": lambda: raw(features=tx),
            "backward from output": lambda: back(gradients=tg, outputs=ty),
        }.get(mode)

    return make


def _onnxruntime() -> Maker:
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    options.inter_op_num_threads = 1

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        if mode not in ("new", "out") or x.dtype != np.float32:
            return None
        alpha = {} if function == "selu" else {"alpha": ALPHA[function]}
        node = helper.make_node(function.capitalize(), ["x"], ["y"], **alpha)
        ends = [helper.make_tensor_value_info(k, TensorProto.FLOAT, [x.size]) for k in "xy"]
        model = helper.make_model(
            helper.make_graph([node], "g", ends[:1], ends[1:]),
            opset_imports=[helper.make_opsetid("", 18)],
            ir_version=9,
        )
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        if mode == "new":
            return lambda: session.run(None, {"x": x})
        binding, out = session.io_binding(), np.zeros_like(x)
        binding.bind_cpu_input("x", x)
        binding.bind_output("y", "cpu", 0, np.float32, out.shape, out.ctypes.data)

        def run(keep: Any = out) -> None:
            session.run_with_iobinding(binding)

        return run

    return make


def _openvino() -> Maker:
    import numpy as np
    import openvino
    from openvino import opset13 as ops

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": os.environ["OMP_NUM_THREADS"], "INFERENCE_PRECISION_HINT": "f32"}

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        if mode != "out" or function == "celu" or x.dtype != np.float32:
            return None
        parameter = ops.parameter([x.size], np.float32)
        if function == "elu":
            node = ops.elu(parameter, ALPHA["elu"])
        else:
            constants = (np.float32(ALPHA["selu"]), np.float32(SCALE["selu"]))
            node = ops.selu(parameter, *(ops.constant(c) for c in constants))
        request = core.compile_model(openvino.Model([node], [parameter]), "CPU", config).create_infer_request()
        out = np.zeros_like(x)
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(out, shared_memory=True))

        def run(keep: Any = (x, out)) -> None:
            request.infer()

        return run

    return make


def _jax() -> Maker:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false" if os.environ["OMP_NUM_THREADS"] == "1" else ""
    import jax

    jax.config.update("jax_enable_x64", True)

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        if mode not in ("new", "backward"):
            return None
        activation = getattr(jax.nn, function)
        if function == "celu":
            activation = partial(activation, alpha=ALPHA["celu"])
        jx, jg = jax.numpy.asarray(x), jax.numpy.asarray(grad)
        forward = jax.jit(activation)
        backward = jax.jit(lambda g, v: jax.vjp(activation, v)[1](g)[0])
        if mode == "new":
            return lambda: forward(jx).block_until_ready()
        return lambda: backward(jg, jx).block_until_ready()

    return make


def _numexpr() -> Maker:
    import numexpr
    import numpy as np

    numexpr.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        a, s, e = (x.dtype.type(v) for v in (ALPHA[function], SCALE[function], _exponent(function)))
        # numexpr has no float32 exponential that keeps the dtype of a Python scalar
        names = {"x": x, "g": grad, "a": a, "s": s, "e": e, "one": x.dtype.type(1)}
        forward = "s * where(x > 0, x, a * expm1(x * e))"
        backward = "g * s * where(x > 0, one, a * e * exp(x * e))"
        if mode in ("new", "out"):
            out = np.zeros_like(x) if mode == "out" else None
            return lambda: numexpr.evaluate(forward, local_dict=names, out=out)
        if mode in ("backward", "backward in place"):
            to = grad if mode == "backward in place" else np.zeros_like(x)
            return lambda: numexpr.evaluate(backward, local_dict=names, out=to)
        return None

    return make


def _numba() -> Maker:
    import numba
    import numpy as np

    numba.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    parallel = os.environ["OMP_NUM_THREADS"] != "1"

    @numba.njit(parallel=parallel)
    def forward(x: Any, out: Any, a: Any, s: Any, e: Any) -> None:
        for i in numba.prange(x.size):
            v = x[i]
            out[i] = s * v if v > 0 else s * a * math.expm1(v * e)

    @numba.njit(parallel=parallel)
    def backward(g: Any, x: Any, out: Any, a: Any, s: Any, e: Any) -> None:
        for i in numba.prange(x.size):
            v = x[i]
            out[i] = g[i] * s if v > 0 else g[i] * s * a * e * math.exp(v * e)

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        scalars = [x.dtype.type(v) for v in (ALPHA[function], SCALE[function], _exponent(function))]
        out, copy = np.zeros_like(x), x.copy()
        return {
            "new": lambda: forward(x, np.empty_like(x), *scalars),
            "out": lambda: forward(x, out, *scalars),
            "in place": lambda: forward(copy, copy, *scalars),
            "backward": lambda: backward(grad, x, out, *scalars),
            "backward in place": lambda: backward(grad, x, grad, *scalars),
        }.get(mode)

    return make


def _xnnpack() -> Maker:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    model = os.environ["ELUFAST_TFLITE"]

    def make(function: str, mode: str, x: Any, grad: Any, y: Any) -> Call | None:
        if function != "elu" or mode != "out" or x.dtype != np.float32:
            return None
        interpreter = Interpreter(model, num_threads=int(os.environ["OMP_NUM_THREADS"]))
        interpreter.resize_tensor_input(0, [1, x.size])
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.reshape(1, -1))
        return interpreter.invoke

    return make


MAKERS: dict[str, Callable[[], Maker]] = {
    "elufast": _elufast,
    "XNNPACK": _xnnpack,
    "PyTorch": _torch,
    "TensorFlow": _tensorflow,
    "ONNX Runtime": _onnxruntime,
    "OpenVINO": _openvino,
    "JAX": _jax,
    "numexpr": _numexpr,
    "numba": _numba,
    "NumPy": _numpy,
    "copy": partial(_floor, "copy"),
    "multiply": partial(_floor, "multiply"),
}


def best_time(call: Call, restore: Call | None, seconds: float) -> float:
    """Seconds a call: the best of many samples, each long enough for the clock. Where a call changes its own input,
    a sample is 4 calls and the input is restored before it: a gradient multiplied a thousand times is subnormal."""
    call()
    start = time.perf_counter()
    call()
    once = max(time.perf_counter() - start, 1e-8)
    number = max(1, min(int(2e-3 / once), 4 if restore else sys.maxsize))
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
    """Answer cells (JSON, one a line) with seconds a call, or null."""
    import numpy as np

    stdout, sys.stdout = sys.stdout, sys.stderr
    make = MAKERS[library]()
    data: dict[tuple[str, int], Any] = {}
    for line in sys.stdin:
        function, dtype, mode, size, seconds = json.loads(line)
        if (dtype, size) not in data:
            data.clear()
            rng = np.random.default_rng(1)
            data[dtype, size] = [rng.standard_normal(size).astype(dtype) for _ in range(2)]
        x, grad = (a.copy() for a in data[dtype, size])
        restore = partial(np.copyto, grad, data[dtype, size][1]) if mode == "backward in place" else None
        a, s, e = ALPHA[function], SCALE[function], _exponent(function)
        y = x
        if mode == "backward from output":
            y = (s * np.where(x > 0, x, a * np.expm1(np.minimum(x, 0) * e))).astype(dtype)
        try:
            call = make(function, mode, x, grad, y)
            answer = best_time(call, restore, seconds) if call else None
        except Exception as error:
            print(f"{library}: {function} {dtype} {mode}: {error!r}", file=sys.stderr)
            answer = None
        print(json.dumps(answer), file=stdout, flush=True)


class Library:
    """A worker process with a number of threads."""

    def __init__(self, name: str, threads: int, tflite: str) -> None:
        self.name = name
        limits = ("OMP", "MKL", "NUMBA", "NUMEXPR", "OPENBLAS")
        environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in limits}
        environment |= {"ELUFAST_TFLITE": tflite, "NUMEXPR_MAX_THREADS": str(threads)}
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
        except BrokenPipeError:
            sys.exit(f"{self.name}: its process has ended; ELUFAST_VERBOSE=1 shows why")
        answer = json.loads(self.process.stdout.readline() or "null")
        return float(answer) if answer is not None else None

    def close(self) -> None:
        self.process.communicate()


Cell = tuple[str, str, int, str, int]
Times = dict[Cell, dict[str, float]]


def measure(options: argparse.Namespace, names: list[str]) -> Times:
    times: Times = {}
    for threads in options.threads:
        workers = {name: Library(name, threads, options.tflite) for name in names}
        grid = list(itertools.product(options.dtypes, options.sizes, options.functions, options.modes))
        for k, (dtype, size, function, mode) in enumerate(grid):
            best: dict[str, float] = {}
            for _ in range(options.rounds):
                for name, library in workers.items():
                    if _ and name not in best:
                        continue
                    seconds = library.time(function, dtype, mode, size, options.seconds)
                    if seconds is not None:
                        best[name] = min(best.get(name, math.inf), seconds)
            times[function, dtype, threads, mode, size] = best
            if sys.stderr.isatty():
                print(f"\r{threads} threads, {k + 1} of {len(grid)} ", end="", file=sys.stderr)
        for library in workers.values():
            library.close()
    print(file=sys.stderr)
    return times


def leads(times: Times) -> dict[Cell, float]:
    """How many times as long the fastest alternative takes, for each cell that has one."""
    lead = {}
    for cell, best in times.items():
        others = [t for name, t in best.items() if name != "elufast" and name not in FLOORS]
        if others and "elufast" in best:
            lead[cell] = min(others) / best["elufast"]
    return lead


def leads_table(times: Times) -> str:
    """The leads, a column for each size, as Markdown."""
    lead = leads(times)
    sizes = sorted({cell[4] for cell in lead})
    rows = [
        f"| function | dtype | threads | mode | {' | '.join(f'n {size}' for size in sizes)} |",
        "|---" * 4 + "|---:" * len(sizes) + "|",
    ]
    for row in dict.fromkeys(cell[:4] for cell in sorted(lead)):
        values = [lead.get((*row, size)) for size in sizes]
        rows.append(f"| {' | '.join(map(str, row))} | {' | '.join('' if v is None else f'{v:.2f}' for v in values)} |")
    return "\n".join(rows)


def summary(times: Times) -> str:
    """Cells that elufast loses, and the geometric mean of its lead over the fastest alternative."""
    lead = leads(times)
    lost = sorted((value, cell) for cell, value in lead.items() if value < 1)
    mean = math.exp(sum(map(math.log, lead.values())) / max(len(lead), 1))
    lines = [
        f"{len(lead)} cells with an alternative; elufast is the fastest in {len(lead) - len(lost)}.",
        f"Geometric mean of (fastest alternative / elufast): {mean:.1f}.",
    ]
    for value, (function, dtype, threads, mode, size) in lost:
        best = times[function, dtype, threads, mode, size]
        winner = min((t, n) for n, t in best.items() if n != "elufast" and n not in FLOORS)[1]
        lines.append(
            f"behind: {function} {dtype} {mode}, {size} elements, {threads} threads: {1 / value:.2f} times {winner}"
        )
    return "\n".join(lines)


def table(times: Times, names: list[str]) -> str:
    """Nanoseconds an element (a call for one element), as Markdown."""
    shown = [name for name in names if any(name in best for best in times.values())]
    rows = ["| function | dtype | threads | mode | n | " + " | ".join(shown) + " |"]
    rows.append("|---" * (5 + len(shown)) + "|")
    for (function, dtype, threads, mode, size), best in times.items():
        cells = [f"{best[n] / size * 1e9:.3g}" if n in best else "" for n in shown]
        rows.append(f"| {function} | {dtype} | {threads} | {mode} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def picture(times: Times, names: list[str], path: Path) -> None:
    """ELU with out= (a new result where a library has no out), time an element against size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    threads = sorted({cell[2] for cell in times})
    figure, axes = pyplot.subplots(len(DTYPES), len(threads), figsize=(6 * len(threads), 8), sharex=True, squeeze=False)
    for row, dtype in zip(axes, DTYPES, strict=True):
        for axis, count in zip(row, threads, strict=True):
            for index, name in enumerate(names):
                points = []
                for size in SIZES:
                    for mode in ("out", "new", "in place"):
                        best = times.get(("elu", dtype, count, mode, size), {})
                        if name in best and (mode == "out" or name not in FLOORS):
                            points.append((size, best[name] / size * 1e9))
                            break
                if points:
                    own = name == "elufast"
                    axis.plot(
                        *zip(*points, strict=True),
                        label=name,
                        color="black" if own else f"C{index % 10}",
                        linewidth=2.5 if own else 1.2,
                        linestyle=":" if name in FLOORS else "-",
                        marker="o" if own else None,
                    )
            axis.set(xscale="log", yscale="log", title=f"{dtype}, {count} thread{'s' * (count > 1)}")
            axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("elements")
    for row in axes:
        row[0].set_ylabel("ns an element")
    handles = {}
    for axis in axes.flat:
        lines, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=4 * len(threads), frameon=False)
    figure.suptitle("ELU, time an element")
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=90, bbox_inches="tight")


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].split(":")[1].strip() if models else cpu
    return f"{os.cpu_count()} cores of {cpu}, {platform.system()}"


def main() -> None:
    def listed(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
        return lambda text: [convert(word.strip()) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--libraries", type=listed(str), default=list(MAKERS))
    parser.add_argument("--functions", type=listed(str), default=list(FUNCTIONS))
    parser.add_argument("--dtypes", type=listed(str), default=list(DTYPES))
    parser.add_argument("--threads", type=listed(int), default=list(THREADS))
    parser.add_argument("--modes", type=listed(str), default=list(MODES))
    parser.add_argument("--sizes", type=listed(int), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.02, help="a library, a cell and a round")
    parser.add_argument(
        "--tflite", default=str(Path(__file__).with_name("elu.tflite")), help="a model of one ELU, for XNNPACK"
    )
    parser.add_argument("--output", type=Path, default=Path("build/peers"))
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    names = [n for n in options.libraries if importlib.util.find_spec(MODULES[n])]
    missing = sorted(set(options.libraries) - set(names))
    if missing:
        print("left out:", ", ".join(missing), file=sys.stderr)
    times = measure(options, names)
    options.output.mkdir(parents=True, exist_ok=True)
    text = f"{machine()}\n\n{summary(times)}\n"
    (options.output / "peers.md").write_text(f"{text}\n{leads_table(times)}\n\n{table(times, names)}\n")
    records = [[*cell, best] for cell, best in times.items()]
    (options.output / "peers.json").write_text(json.dumps(records))
    if importlib.util.find_spec("matplotlib"):
        picture(times, names, options.output / "peers.png")
    print(text)


if __name__ == "__main__":
    main()
