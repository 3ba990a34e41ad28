"""Times PyTorch models with PyTorch's own ELU and with elufast's kernels in its place.

    python tools/torch_step.py [--only EnCodec] [--threads 2] [--seconds 5] [--dtypes float32] [--compile]
    python tools/torch_step.py --sizes      the activation alone, by size, with 1 and 2 threads
    python tools/torch_step.py --fuzz N     N random calls against the plain functions, to the bit

The two take turns on one model, round after round, and the best time of each counts. Models have random weights and the
layer sizes that were published.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import elufast.torch

SIZES = (1, 100, 1_000, 10_000, 30_000, 70_000, 100_000, 1_000_000, 10_000_000)


# ------------------------------------------------------------------------------------------------ models


class CausalConv(nn.Module):
    """As in SEANet: padded by reflection on the left, weights normed."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.pad = kernel - stride
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(n_in, n_out, kernel, stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.pad, 0), mode="reflect"))


class CausalUpsampling(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(n_in, n_out, 2 * stride, stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[..., : -self.stride]


class Residual(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.ELU(), CausalConv(n, n // 2, 3), nn.ELU(), CausalConv(n // 2, n, 1))
        self.shortcut = CausalConv(n, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)


class Lstm(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n, n, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(2, 0, 1)
        return (self.lstm(x)[0] + x).permute(1, 2, 0)


def seanet_encoder() -> nn.Module:
    """Of EnCodec at 24 kHz (Defossez et al. 2022): 32 filters, strides 2, 4, 5, 8, 128 channels out."""
    n, layers = 32, [CausalConv(1, 32, 7)]
    for stride in (2, 4, 5, 8):
        layers += [Residual(n), nn.ELU(), CausalConv(n, 2 * n, 2 * stride, stride)]
        n *= 2
    return nn.Sequential(*layers, Lstm(n), nn.ELU(), CausalConv(n, 128, 7))


def seanet_decoder() -> nn.Module:
    n, layers = 512, [CausalConv(128, 512, 7), Lstm(512)]
    for stride in (8, 5, 4, 2):
        layers += [nn.ELU(), CausalUpsampling(n, n // 2, stride), Residual(n // 2)]
        n //= 2
    return nn.Sequential(*layers, nn.ELU(), CausalConv(n, 1, 7))


def dense(*sizes: int, activation: Callable[[], nn.Module] = nn.ELU) -> nn.Module:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes[:-1]):
        layers += [nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*layers, nn.Linear(*sizes[-2:]))


def eegnet() -> nn.Module:
    """EEGNet-8,2 (Lawhern et al. 2018): 64 channels, 128 samples, 4 classes."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, (1, 64), padding="same", bias=False), nn.BatchNorm2d(8)),
        *(nn.Conv2d(8, 16, (64, 1), groups=8, bias=False), nn.BatchNorm2d(16), nn.ELU()),
        *(nn.AvgPool2d((1, 4)), nn.Dropout(0.25), nn.Conv2d(16, 16, (1, 16), padding="same", groups=16, bias=False)),
        *(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ELU(), nn.AvgPool2d((1, 8))),
        *(nn.Dropout(0.25), nn.Flatten(), nn.Linear(64, 4)),
    )


class GraphAttention(nn.Module):
    """Two layers of Velickovic et al. 2018 on a graph as large as Cora: 2708 nodes, 8 heads of 8, 7 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = torch.randint(2708, (2, 10_556), generator=torch.Generator().manual_seed(0))
        self.weights = nn.ModuleList([nn.Linear(1433, 64, bias=False), nn.Linear(64, 7, bias=False)])
        self.attention = nn.ParameterList([torch.randn(2, 8, 8) / 8, torch.randn(2, 1, 7) / 8])

    def forward(self, x: Tensor) -> Tensor:
        source, target = self.edges
        for weight, (left, right) in zip(self.weights, self.attention, strict=True):
            h = weight(x).unflatten(1, left.shape)
            e = F.leaky_relu((h * left).sum(2)[source] + (h * right).sum(2)[target], 0.2).exp()
            total = torch.zeros(h.shape[:2], dtype=h.dtype).index_add(0, target, e)
            mixed = torch.zeros_like(h).index_add(0, target, h[source] * e.unsqueeze(2))
            x = F.elu((mixed / (total.unsqueeze(2) + 1e-9)).flatten(1))
        return x


def cnn() -> nn.Module:
    """Three convolutions over images of 32 x 32 pixels."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ELU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ELU()),
        *(nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.ELU(), nn.Flatten(), nn.Linear(64 * 8 * 8, 10)),
    )


# Each with the shapes of its inputs, a batch first.
MODELS: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]]]] = {
    "EnCodec encoder, 1 s": (seanet_encoder, [(1, 1, 24_000)]),
    "EnCodec decoder, 1 s": (seanet_decoder, [(1, 128, 75)]),
    "policy (rsl_rl)": (lambda: dense(48, 512, 256, 128, 12), [(b, 48) for b in (1, 16, 256, 4096)]),
    "EEGNet-8,2": (eegnet, [(b, 1, 64, 128) for b in (1, 64)]),
    "ANI-2x, hydrogen": (
        lambda: dense(1008, 256, 192, 160, 1, activation=lambda: nn.CELU(0.1)),
        [(b, 1008) for b in (10, 1000)],
    ),
    "graph attention": (GraphAttention, [(2708, 1433)]),
    "MLP": (lambda: dense(*[512] * 5, 10), [(b, 512) for b in (1, 64, 4096)]),
    "CNN": (cnn, [(b, 3, 32, 32) for b in (1, 64, 256)]),
}


def training_step(model: nn.Module, x: Tensor) -> Callable[[], Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step


def inference(model: nn.Module, x: Tensor) -> Callable[[], Any]:
    model.eval()

    def infer() -> Tensor:
        with torch.inference_mode():
            return model(x)

    return infer


# ------------------------------------------------------------------------------------------------ timing


def best_times(call: Callable[[], Any], options: argparse.Namespace) -> tuple[float, float]:
    """Seconds a call with PyTorch's kernels and with elufast's, the best of each, in turns."""
    clock = time.process_time if options.cpu else time.perf_counter
    best = [math.inf, math.inf]
    call()
    start = time.perf_counter()
    call()
    now = time.perf_counter()
    number, end = max(1, int(5e-3 / (now - start))), now + options.seconds
    while now < end or math.inf in best:
        for k, switch in enumerate((elufast.torch.uninstall, elufast.torch.install)):
            switch()
            if number > 1:
                call()
            start = clock()
            for _ in range(number):
                call()
            best[k] = min(best[k], (clock() - start) / number)
        now = time.perf_counter()
    elufast.torch.uninstall()
    return best[0], best[1]


def steps(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    for dtype in (options.dtypes or "float32,bfloat16").split(","):
        print(f"\n{dtype}, ms a step, threads: {options.threads}\n")
        columns = [f" {what}: PyTorch | with elufast | |" for what in ("inference", "training")]
        print("| model | batch |" + "".join(c + " compiled |" * options.compile for c in columns))
        print("|---" * (10 if options.compile else 8) + "|")
        for name, (build, shapes) in MODELS.items():
            if not name.startswith(options.only):
                continue
            torch.manual_seed(0)
            model = build().to(getattr(torch, dtype))
            for shape in shapes:
                x = torch.randn(shape, dtype=getattr(torch, dtype))
                print(f"| {name} | {shape[0]} ", end="", flush=True)
                for make in (inference, training_step):
                    t, e = best_times(make(model, x), options)
                    print(f"| {1e3 * t:.3g} | {1e3 * e:.3g} | {t / e:.2f} ", end="", flush=True)
                    if options.compile:
                        print(f"| {1e3 * min(best_times(make(torch.compile(model), x), options)):.3g} ", end="")
                print("|", flush=True)


def sizes(options: argparse.Namespace) -> None:
    dtypes = (options.dtypes or "float32,float64,bfloat16,float16").split(",")
    print("\nPyTorch's time divided by elufast's, forward / forward and backward\n")
    print("| threads | elements | " + " | ".join(dtypes) + " |")
    print("|---" * (2 + len(dtypes)) + "|")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for size in SIZES:
            print(f"| {threads} | {size:_} ".replace("_", " "), end="", flush=True)
            for dtype in dtypes:
                x = torch.randn(size, dtype=getattr(torch, dtype))
                leaf, grad = x.clone().requires_grad_(), torch.ones_like(x)
                forward = best_times(lambda x=x: F.elu(x), options)
                both = best_times(lambda leaf=leaf, g=grad: torch.autograd.grad(F.elu(leaf), leaf, g), options)
                print(f"| {forward[0] / forward[1]:.2f} / {both[0] / both[1]:.2f} ", end="", flush=True)
            print("|", flush=True)


# ------------------------------------------------------------------------------------------------ fuzz


def layouts(rng: np.random.Generator, dtype: torch.dtype) -> Iterator[Tensor]:
    """Tensors of one random shape in random layouts."""
    shape = [int(n) for n in rng.integers(0 if rng.random() < 0.05 else 1, 8, rng.integers(0, 5))]
    if rng.random() < 0.002:
        shape = [int(rng.integers(1, 200_000))]
    while True:
        steps = rng.integers(1, 4, len(shape))
        order = rng.permutation(len(shape)).tolist()
        whole = [shape[k] * int(steps[k]) for k in order]
        # every magnitude: random bits, and numbers near 0
        count, offset = math.prod(whole), int(rng.integers(0, 3))
        values = rng.standard_normal(count + offset) * 10.0 ** rng.integers(-3, 3)
        x = torch.from_numpy(values).to(dtype)
        if count and rng.random() < 0.3:
            size = x.element_size()
            x = torch.from_numpy(rng.integers(0, 256, (count + offset) * size, np.uint8)).view(dtype)
        x = x[offset:].reshape(whole).permute([order.index(k) for k in range(len(shape))])
        x = x[tuple(slice(None, None, int(step)) for step in steps)]
        for k in range(len(shape)):
            if shape[k] > 1 and rng.random() < 0.05:
                x = x.narrow(k, 0, 1).expand_as(x)
        yield x


def array(x: Tensor) -> Any:
    x = x.detach().contiguous()
    if x.dtype is torch.bfloat16:
        import ml_dtypes

        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def bits(a: Any) -> bytes:
    """All NaN are one."""
    a = np.ascontiguousarray(a)
    return np.where(a != a, a.dtype.type(np.nan), a).tobytes()


def fuzz(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(options.seed)
    elufast.torch.install(True)
    functions: list[tuple[str, Callable[..., Tensor], tuple[float, ...]]] = [("selu", F.selu, ())]
    for alpha in (1.0, 0.3, 2.5, -1.5):
        functions += [("elu", F.elu, (alpha,)), ("celu", F.celu, (alpha,))]
    start, tensors = time.perf_counter(), 0
    for case in range(options.fuzz):
        torch.set_num_threads(int(rng.integers(1, 4)))
        dtype = (torch.float32, torch.float64, torch.float16, torch.bfloat16)[rng.integers(4)]
        made = layouts(rng, dtype)
        x, grad, out = next(made), next(made), next(made).clone(memory_format=torch.preserve_format)
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        plain_x, plain_grad = array(x), array(grad)
        for k in rng.permutation(len(functions))[:3]:
            name, function, alpha = functions[k]
            backward = getattr(elufast, f"{name}_backward")
            y = getattr(elufast, name)(plain_x, *alpha)
            inplace = leaf.detach().clone(memory_format=torch.preserve_format)
            function(inplace, *alpha, inplace=True)
            (slope,) = torch.autograd.grad(function(leaf, *alpha), leaf, grad)
            checks = [
                (function(x, *alpha), y),
                (inplace, y),
                (slope, backward(plain_grad, plain_x, *alpha)),
            ]
            if name == "elu":
                checks.append((torch.ops.aten.elu.out(x, *alpha, out=out), y))
            if not alpha or alpha[0] > 0:
                (got,) = torch.autograd.grad(function(leaf * 1, *alpha, inplace=True), leaf, grad)
                checks.append((got, backward(plain_grad, y, *alpha, from_output=True)))
            tensors += len(checks)
            if any(bits(array(got)) != bits(expected) for got, expected in checks):
                raise SystemExit(f"seed {options.seed}, case {case}: {name}{alpha} {dtype} {x.shape} {x.stride()}")
        if case % 10_000 == 9_999:
            print(f"{case + 1} cases, {tensors} tensors, {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{options.fuzz} cases, {tensors} tensors, all equal to the bit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models whose names begin so")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch, for the models")
    parser.add_argument("--seconds", type=float, help="for each two times; 2, for models 5")
    parser.add_argument("--dtypes", help="float32,bfloat16; alone float64 and float16 too")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too, which elufast does not touch")
    parser.add_argument("--cpu", action="store_true", help="CPU time, with --threads 1 where the machine is busy")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--fuzz", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.fuzz:
        return fuzz(options)
    options.seconds = options.seconds or (2 if options.sizes else 5)
    elufast.torch.install(True)
    print(f"PyTorch {torch.__version__}, elufast level {elufast.runtime_info()['level']}")
    (sizes if options.sizes else steps)(options)


if __name__ == "__main__":
    main()
