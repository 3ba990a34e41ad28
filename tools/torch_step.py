"""Times training steps and inference of PyTorch models with PyTorch's activation and with elufast's.

    python tools/torch_step.py [--activation elu] [--threads 2] [--rounds 20] [--inplace] [--compile]

Three copies of a model take turns, round after round, and the best time of each counts: with PyTorch's activation, with
elufast's, and with none at all. The last tells the activation's share of the step in the other two. A second table has
the activation alone, by size.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import elufast.torch

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "selu": nn.SELU, "celu": nn.CELU}
SIZES = (1, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
VARIANTS = ("torch", "elufast", "none")


def mlp(activation: Callable[[], nn.Module]) -> nn.Module:
    """Four hidden layers, 512 wide."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(512, 512), activation()]
    return nn.Sequential(*layers, nn.Linear(512, 10))


def cnn(activation: Callable[[], nn.Module]) -> nn.Module:
    """Three convolutions over images of 32 x 32 pixels."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), activation()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), activation()),
        *(nn.Conv2d(64, 64, 3, stride=2, padding=1), activation()),
        *(nn.Flatten(), nn.Linear(64 * 8 * 8, 10)),
    )


MODELS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "MLP": (mlp, (512,), (1, 64, 4096)),
    "CNN": (cnn, (3, 32, 32), (1, 64, 256)),
}


def training_step(model: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def inference(model: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], Any]:
    model.eval()

    def infer() -> Tensor:
        with torch.inference_mode():
            return model(x)

    return infer


def best_times(calls: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Seconds a call, the best of each, taken in turns."""
    numbers = []
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        numbers.append(max(1, int(2e-3 / (time.perf_counter() - start))))
    best = [math.inf] * len(calls)
    for _ in range(rounds):
        for k, (call, number) in enumerate(zip(calls, numbers, strict=True)):
            start = time.perf_counter()
            for _ in range(number):
                call()
            best[k] = min(best[k], (time.perf_counter() - start) / number)
    return best


def steps(options: argparse.Namespace) -> None:
    kind = ACTIVATIONS[options.activation]
    print(f"{'':28}{'ms a step':^32}{'torch/':>9}{'share of the step':>20}")
    print(f"{'model':6}{'batch':>6}  {'':14}" + "".join(f"{v:>10}" for v in VARIANTS), end="")
    print(f"{'elufast':>11}{'torch':>10}{'elufast':>10}")
    for name, (build, shape, batches) in MODELS.items():
        torch.manual_seed(0)
        model = build(lambda: kind(inplace=options.inplace))
        ours, bare = copy.deepcopy(model), build(nn.Identity)
        bare.load_state_dict(model.state_dict())
        elufast.torch.replace_activations(ours)
        models = [torch.compile(m) if options.compile else m for m in (model, ours, bare)]
        for batch in batches:
            x, labels = torch.randn(batch, *shape), torch.randint(10, (batch,))
            for what, make in (("training", training_step), ("inference", inference)):
                t, e, n = best_times([make(m, x, labels) for m in models], options.rounds)
                line = f"{name:6}{batch:>6}  {what:14}" + "".join(f"{1e3 * s:10.3f}" for s in (t, e, n))
                print(f"{line}{t / e:>11.2f}{1 - n / t:>10.0%}{1 - n / e:>10.0%}", flush=True)


def alone(options: argparse.Namespace) -> None:
    modules = [ACTIVATIONS[options.activation](), getattr(elufast.torch, options.activation.upper())()]
    print(f"\n{'activation alone, us':28}{'torch':>10}{'elufast':>10}{'torch/elufast':>16}")
    for size in SIZES:
        x, leaf, grad = torch.randn(size), torch.randn(size, requires_grad=True), torch.ones(size)

        def forward(module: nn.Module, x: Tensor = x) -> Callable[[], Any]:
            return lambda: module(x)

        def both(module: nn.Module, leaf: Tensor = leaf, grad: Tensor = grad) -> Callable[[], Any]:
            return lambda: torch.autograd.grad(module(leaf), leaf, grad)

        for what, make in (("forward", forward), ("and backward", both)):
            t, e = best_times([make(m) for m in modules], options.rounds)
            print(f"{what:14}{size:>12}  {1e6 * t:10.1f}{1e6 * e:10.1f}{t / e:>16.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--activation", choices=ACTIVATIONS, default="elu")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch, and at most so many of elufast")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--inplace", action="store_true")
    parser.add_argument("--compile", action="store_true", help="torch.compile the three models")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    info = elufast.runtime_info()
    print(
        f"PyTorch {torch.__version__}, elufast level {info['level']}, {options.threads} threads, {options.activation}"
    )
    steps(options)
    alone(options)


if __name__ == "__main__":
    main()
