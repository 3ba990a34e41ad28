"""Inference of a perceptron in NumPy with elufast: 48-512-256-128-12 with ELU, as the policies of legged robots are.

    python examples/policy.py [--weights FILE] [--rounds N]

FILE is an .npz or a PyTorch .pt of a `Sequential`'s state dict ("0.weight", "0.bias", "2.weight", ...); without it the
weights are random. Beside it run PyTorch (eager, traced and frozen, compiled) and ONNX Runtime, where they are
installed, on the same weights: the best time of each and the largest difference from the result in float64.
"""

# mypy: disable-error-code="import-untyped,import-not-found,no-untyped-call"

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import elufast

Array = npt.NDArray[Any]
Layers = list[tuple[Array, Array]]  # a weight of n_out rows and n_in columns, as PyTorch has it, and a bias

SIZES = (48, 512, 256, 128, 12)
BATCHES = (1, 16, 256, 4096)
SLICE = 2e-3  # seconds that a turn of one implementation takes
REST = 0.02  # before it


class Policy:
    """The network with its memory, for batches of one size: a call allocates nothing.

    NumPy has no matrix product of bfloat16. With a `kept` dtype the activations are stored in it, as one does who keeps
    those of many steps, and converted to float32 for the product: half the memory, and more time rather than less.
    """

    def __init__(self, layers: Layers, batch: int, kept: npt.DTypeLike | None = None) -> None:
        def memory(bias: Array, dtype: npt.DTypeLike | None = np.float32) -> Array:
            return np.empty(bias.shape if batch == 1 else (batch, len(bias)), dtype)  # a vector is the quickest matrix

        self.single = batch == 1
        self.steps = [(weight if batch == 1 else weight.T, bias, memory(bias)) for weight, bias in layers]
        self.kept = [memory(bias, kept) for _, bias in layers[:-1]] if kept is not None else []

    def __call__(self, x: Array) -> Array:
        """The last activations, in memory that the next call overwrites."""
        h = x.reshape(-1) if self.single else x
        *hidden, (last, last_bias, out) = self.steps
        for k, (weight, bias, y) in enumerate(hidden):
            self.product(h, weight, y)
            if self.kept:
                small = self.kept[k]
                small[...] = y
                y[...] = elufast.elu_(small, bias=bias)
            else:
                elufast.elu_(y, bias=bias)
            h = y
        self.product(h, last, out)
        out += last_bias
        return out.reshape(len(x), -1)

    def product(self, x: Array, weight: Array, out: Array) -> None:
        if self.single:
            np.dot(weight, x, out)
        else:
            np.dot(x, weight, out)


def random_layers(seed: int = 0) -> Layers:
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(0, n_in**-0.5, (n_out, n_in)).astype(np.float32), rng.normal(0, 0.1, n_out).astype(np.float32))
        for n_in, n_out in itertools.pairwise(SIZES)
    ]


def load(path: Path) -> Layers:
    """The layers of a state dict, in the order of their numbers."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            state = dict(file)
    else:
        import torch

        state = {name: value.numpy() for name, value in torch.load(path, weights_only=True).items()}
    numbers = sorted({int(name.split(".")[0]) for name in state})
    return [
        (
            np.ascontiguousarray(state[f"{number}.weight"], np.float32),
            np.ascontiguousarray(state[f"{number}.bias"], np.float32),
        )
        for number in numbers
    ]


def exact(layers: Layers, x: Array) -> Array:
    y = x.astype(np.float64)
    for number, (weight, bias) in enumerate(layers, 1):
        y = y @ weight.T.astype(np.float64) + bias
        y = y if number == len(layers) else np.where(y > 0, y, np.expm1(np.minimum(y, 0)))
    return y


def torch_models(layers: Layers, x: Array) -> Iterator[tuple[str, Callable[[], Array]]]:
    import torch

    modules: list[Any] = []
    for weight, bias in layers:
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        modules += [linear, torch.nn.ELU()]
    model, tensor = torch.nn.Sequential(*modules[:-1]).eval(), torch.from_numpy(x)

    def runner(function: Callable[[Any], Any]) -> Callable[[], Array]:
        def run() -> Array:
            with torch.inference_mode():
                return function(tensor).numpy()  # type: ignore[no-any-return]

        for _ in range(3):  # what is compiled at the first calls
            run()
        return run

    yield "PyTorch", runner(model)
    with torch.no_grad():
        yield "torch.jit", runner(torch.jit.freeze(torch.jit.trace(model, tensor)))
    try:
        yield "torch.compile", runner(torch.compile(model, dynamic=False))
    except Exception as error:  # no C++ compiler
        print(f"torch.compile is left out: {str(error).splitlines()[0]}")


def onnx_model(layers: Layers, x: Array) -> Iterator[tuple[str, Callable[[], Array]]]:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights = [], []
    for k, (weight, bias) in enumerate(layers):
        weights += [numpy_helper.from_array(weight, f"w{k}"), numpy_helper.from_array(bias, f"b{k}")]
        nodes.append(helper.make_node("Gemm", [f"h{k}", f"w{k}", f"b{k}"], [f"y{k}"], transB=1))
        nodes.append(helper.make_node("Elu", [f"y{k}"], [f"h{k + 1}"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("h0", x.shape), (f"y{len(layers) - 1}", (len(x), len(layers[-1][1]))))
    ]
    graph = helper.make_graph(nodes[:-1], "policy", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    yield "ONNX Runtime", lambda: session.run(None, {"h0": x})[0]  # type: ignore[no-any-return]


def implementations(layers: Layers, x: Array) -> dict[str, Callable[[], Array]]:
    policy = Policy(layers, len(x))
    found: dict[str, Callable[[], Array]] = {"elufast": lambda: policy(x)}
    try:
        from ml_dtypes import bfloat16

        keeping = Policy(layers, len(x), bfloat16)
        found["elufast, kept in bfloat16"] = lambda: keeping(x)
    except ImportError as error:
        print(f"bfloat16 is left out: {error}")
    for models in (torch_models, onnx_model):
        try:
            found.update(models(layers, x))
        except ImportError as error:
            print(f"{models.__name__.split('_')[0]} is left out: {error}")
    return found


def best_times(functions: dict[str, Callable[[], Array]], rounds: int) -> dict[str, float]:
    """Seconds a call: all take turns, so that a busy minute is everybody's, once the threads of the last one sleep."""
    best = dict.fromkeys(functions, np.inf)
    for _ in range(rounds):
        for name, function in functions.items():
            time.sleep(REST)
            function()
            stop = time.perf_counter() + SLICE
            while True:
                start = time.perf_counter()
                function()
                end = time.perf_counter()
                best[name] = min(best[name], end - start)
                if end > stop:
                    break
    return best


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, metavar="FILE", help=".npz or .pt with a state dict (default: random)")
    parser.add_argument("--rounds", type=int, default=50, help="of timing (default: %(default)s)")
    given = parser.parse_args(argv)
    try:
        layers = load(given.weights) if given.weights else random_layers()
    except (OSError, ValueError, KeyError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: error: {given.weights}: {error}\n")
    print("-".join(str(len(weight[0])) for weight, _ in layers) + f"-{len(layers[-1][1])}, float32")
    for batch in BATCHES:
        x = np.random.default_rng(1).standard_normal((batch, len(layers[0][0][0])), np.float32)
        functions, wanted = implementations(layers, x), exact(layers, x)
        differences = {name: np.abs(function() - wanted).max() for name, function in functions.items()}
        best = best_times(functions, given.rounds)
        for name, seconds in best.items():
            print(
                f"batch {batch:4}  {name:25} {seconds * 1e6:9.1f} us  {seconds / best['elufast']:6.2f} of elufast's  "
                f"largest difference {differences[name]:.1e}"
            )


if __name__ == "__main__":
    main()
