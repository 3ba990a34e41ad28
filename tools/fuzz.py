"""Calls on random arrays, each compared to the bit with its elements passed one at a time.

    python tools/fuzz.py [--cases 1000000] [--seed 0] [--jobs 2]     try cases 0, 1, 2 ...
    python tools/fuzz.py --seed 0 --index 4711                       one case alone, described

A case draws a function, its parameters (alpha may be an array), a bias or none, a dtype, whether the function or its
ufunc is called, an instruction-set level that this CPU has, a number of threads, and for x, grad and out a shape of up
to six dimensions, strides (negative, zero, odd), byte order, values of every class, and where they lie: out may be
new, apart, exactly an input, an input shifted, or anywhere in the same memory. Checked:

    the bits of the result, against the same elements passed one by one from memory of their own
    its value, against NumPy's expm1 and exp in long double, where that has more digits than the dtype
    the memory around out, and inputs that out does not overlap: untouched
    dtype, shape, byte order and identity of what is returned

Two NaNs count as equal. The first case that fails is printed with the command that repeats it, exit status 1.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import elufast
from elufast import _core, _dispatch, ufuncs

try:
    import ml_dtypes
except ModuleNotFoundError:
    ml_dtypes = None

Array = NDArray[Any]

DTYPES = (np.float32, np.float64, np.float16, *([ml_dtypes.bfloat16] if ml_dtypes else []))
ROOM = 16384  # bytes of memory for a small case
LARGE = 40_000  # most elements of a case with threads and streaming stores
TRIALS = 1 << 16  # elements in a pool of values
HUGE_CACHE = 1 << 40
VALUES = ("normal", "special", "bits", "near zero", "saturating", "cut-offs", "NaN payloads", "mixed")
ALPHAS = (1.0, 1.0, 1.0, 0.3, 0.1, 2.5, 1e-12, 1e12, 1e-40, 1e40, 1e-300, 1e300, 5e-324, 1.7976931348623157e308)
PLACES = ("new", "apart", "exact x", "exact grad", "shifted", "anywhere")
EXTENDED = np.finfo(np.longdouble).nmant > 60


class Function(NamedTuple):
    family: str
    mode: str  # forward, backward, from_output, in place
    alpha: Any

    def arguments(self) -> tuple[Any, ...]:
        return () if self.family == "selu" else (self.alpha,)

    def __call__(self, x: Any, grad: Any, **options: Any) -> Any:
        if self.mode == "forward":
            return getattr(elufast, self.family)(x, *self.arguments(), **options)
        if self.mode == "in place":
            options.pop("out", None)
            return getattr(elufast, self.family + "_")(x, *self.arguments(), **options)
        backward = getattr(elufast, self.family + "_backward")
        if self.mode == "from_output":
            options["from_output"] = True
        return backward(grad, x, *self.arguments(), **options)

    def ufunc(self, x: Any, grad: Any) -> Any:
        name = self.family + {"forward": "", "in place": ""}.get(self.mode, "_" + self.mode)
        operands = (x,) if self.mode in ("forward", "in place") else (grad, x)
        alpha = () if self.family == "selu" else (self.alpha if self.many else float(self.alpha),)
        return getattr(ufuncs, name)(*operands, *alpha)

    @property
    def many(self) -> bool:
        """Whether alpha is an array."""
        return isinstance(self.alpha, np.ndarray)

    @property
    def plain(self) -> Function:
        return self._replace(mode="forward" if self.mode == "in place" else self.mode, alpha=self.one_alpha())

    def one_alpha(self) -> float:
        return float(self.alpha.flat[0] if self.many and self.alpha.size else 1 if self.many else self.alpha)

    def one_by_one(self, x: Array, grad: Array, bias: Array | None = None, shape: tuple[int, ...] = ()) -> Array:
        """Each element of contiguous native arrays, passed alone; shape is that of x, for an array of alphas."""
        out = np.empty_like(x)
        alphas = np.broadcast_to(self.alpha, shape).reshape(-1) if self.many else None
        plain = self.plain
        for k in range(x.size):
            one = slice(k, k + 1)
            given = plain if alphas is None else plain._replace(alpha=float(alphas[k]))
            options = {} if bias is None else {"bias": bias[one]}
            given(x[one], grad[one], out=out[one], **options)
        return out


def cut_offs(dtype: Any) -> Array:
    """Where results change kind, with neighbours: saturation, underflow, blocks' choices, zeros, limits."""
    info = np.finfo(dtype)
    points = [18, 20, 40, 64, 300, 700, 1200, 1500, 1530, 17.328680, 37.429948, 87.336545, 103.97208, 708.396419]
    points += [745.13322, 0.3466, 0.6931472, *(2.0**k for k in (-1074, -200, -149, -126, -54, -40, -24, -1))]
    points += [float(info.max), float(info.smallest_normal), float(info.smallest_subnormal), 0.0]
    values = np.array([*points, *np.negative(points)], dtype)
    near = [values]
    for limit in (np.inf, -np.inf):
        step = values
        for _ in range(3):
            step = np.nextafter(step, dtype(limit))
            near.append(step)
    return np.concatenate(near)


def pools(dtype: Any, seed: int) -> dict[str, Array]:
    """Elements of each class, in a fixed random order."""
    if np.dtype(dtype).itemsize == 2:
        with np.errstate(all="ignore"):
            result = {name: values.astype(dtype) for name, values in pools(np.float32, seed).items()}
        rng = np.random.default_rng([seed, 2])
        result["bits"] = rng.integers(0, 1 << 16, TRIALS, np.uint16).view(dtype)
        return result
    rng = np.random.default_rng([seed, np.dtype(dtype).itemsize])
    info, n = np.finfo(dtype), TRIALS
    integer = np.dtype(f"u{info.bits // 8}")
    special = [0.0, math.inf, 1.0, info.max, info.smallest_normal, info.smallest_subnormal, info.eps, 0.5]
    with np.errstate(all="ignore"):
        payloads = rng.integers(1, 1 << info.nmant, n, integer, endpoint=False)
        payloads |= np.array(np.inf, dtype).view(integer) | rng.integers(0, 2, n, integer) << integer.type(
            info.bits - 1
        )
        result = {
            "normal": rng.standard_normal(n) * 3,
            "special": rng.choice(np.array([*special, *np.negative(special), np.nan]), n),
            "bits": rng.integers(0, 1 << info.bits, n, np.uint64, endpoint=False).astype(integer).view(dtype)
            if info.bits < 64
            else rng.integers(0, 1 << 63, n, np.uint64).view(np.float64) * rng.choice([1, -1], n),
            "near zero": rng.standard_normal(n) * np.exp(rng.uniform(-90, 0, n)),
            "saturating": rng.uniform(-800, 0, n),
            "cut-offs": rng.choice(cut_offs(dtype), n),
            "NaN payloads": np.where(rng.random(n) < 0.5, payloads.view(dtype), rng.standard_normal(n)),
        }
        result = {name: np.asarray(values).astype(dtype) for name, values in result.items()}
    names = list(result)
    result["mixed"] = np.choose(rng.integers(0, len(names), n), [result[name] for name in names])
    return result


class Place(NamedTuple):
    """Where an array lies in its memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    swapped: bool

    def of(self, memory: Array, dtype: Any) -> Array:
        kind = np.dtype(dtype)
        if self.swapped and kind.isbuiltin == 1:  # ml_dtypes has native bfloat16 alone
            kind = kind.newbyteorder()
        return np.ndarray(self.shape, kind, memory, self.offset, self.strides)

    def span(self, itemsize: int) -> tuple[int, int]:
        """First byte and the one after the last, relative to offset."""
        if 0 in self.shape:
            return 0, 0
        reach = [s * (n - 1) for s, n in zip(self.strides, self.shape, strict=True)]
        return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + itemsize


def draw_shape(r: random.Random) -> tuple[int, ...]:
    dimensions = r.choice((0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6))
    most = r.choice((8, 24, 24, 64, 64, 130))
    shape = []
    for _ in range(dimensions):
        n = 0 if r.random() < 0.008 else r.randint(1, max(1, min(most, most if dimensions < 2 else 9)))
        shape.append(n)
        most //= max(1, n)
    r.shuffle(shape)
    return tuple(shape)


def draw_place(r: random.Random, shape: tuple[int, ...], itemsize: int, apart: bool, plain: float) -> Place:
    """Axes in any order and direction with gaps; unless `apart`, elements may share bytes."""
    swapped = r.random() < 0.25
    order = list(range(len(shape)))
    usual = r.random() < plain
    if not usual:
        r.shuffle(order)
    strides, extent = [0] * len(shape), itemsize
    for axis in reversed(order):
        n = max(1, shape[axis])
        stride = extent
        if not usual:
            gap = r.choice((0, 0, 0, 1, 3, itemsize, 2 * itemsize))
            stride += gap if (extent + gap) * n <= ROOM // 8 else 0
            if not apart and r.random() < 0.2:
                stride = r.choice((0, 0, 1, itemsize))
            if r.random() < 0.3:
                stride = -stride
        strides[axis] = stride
        extent = max(extent, abs(stride) * (n - 1) + extent)
    place = Place(shape, tuple(strides), 0, swapped and r.random() < 0.8)
    low, high = place.span(itemsize)
    start = r.choice((64, 64, 64, 65, 64 + itemsize, 71, 96, r.randrange(64, 512)))
    assert start + high - low <= ROOM - 512
    return place._replace(offset=start - low)


def draw_broadcast(r: random.Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to this one."""
    lengths = [n if r.random() < 0.6 else 1 for n in shape]
    return tuple(lengths[r.randint(0, len(shape)) :])


def draw_function(r: random.Random) -> Function:
    family = r.choice(("elu", "elu", "selu", "celu", "celu"))
    mode = r.choice(("forward", "forward", "backward", "backward", "from_output", "in place"))
    alpha = r.choice(ALPHAS) if r.random() < 0.7 else math.exp(r.uniform(-7, 7))
    if mode != "from_output" and r.random() < 0.25:
        alpha = -alpha
    if r.random() < 0.1:  # given as another type, of the same value
        single = np.float32(alpha) if 1e-30 < abs(alpha) < 1e30 else np.float64(alpha)
        alpha = r.choice((np.float64(alpha), Fraction(alpha), single, np.longdouble(alpha)))
    elif r.random() < 0.05:
        alpha = r.choice((1, 2, 7))
    return Function(family, mode, alpha)


def level_loops() -> dict[str, Any]:
    return {level: _dispatch.choose(level)[1] for level in _dispatch.built_levels()}


class Mismatch(Exception):
    pass


def compare(got: Array, expected: Array, what: str) -> None:
    """Raise unless both are the same bits, NaN counted as one value."""
    if got.shape != expected.shape:
        raise Mismatch(f"{what}: shape {got.shape}, not {expected.shape}")
    native = np.ascontiguousarray(got, expected.dtype).reshape(-1)
    integer = f"u{native.itemsize}"
    flat = expected.reshape(-1)
    wrong = native.view(integer) != flat.view(integer)
    if wrong.any():
        with np.errstate(invalid="ignore"):  # NaNs that signal
            wrong &= ~(np.isnan(native) & np.isnan(flat))
        if wrong.any():
            k = int(np.argmax(wrong))
            raise Mismatch(f"{what}: element {k} of {flat.size} is {native[k]!r}, not {flat[k]!r}")


def check_value(f: Function, x: Array, grad: Array, y: Array) -> int:
    """Raise unless y is within 2 ulp of the formula in long double, halves within 0.51; returns how many elements were
    compared. x is what the function is of, less its bias.

    The bounds hold for alpha from 1e-30 to 1e30.
    """
    if f.many or not EXTENDED or not x.size or not 1e-30 <= abs(float(f.alpha)) <= 1e30:
        return 0
    half = y.itemsize == 2
    real, info = np.longdouble, (ml_dtypes.finfo if half and ml_dtypes else np.finfo)(y.dtype)
    alpha, scale, inner = real(float(f.alpha)), real(1), real(1)
    if f.family == "selu":
        scale = real("1.0507009873554804934193349852946")
        alpha = scale * real("1.6732632423543772848170429916717")
    if f.family == "celu":
        inner = 1 / alpha
    slope = alpha * inner
    with np.errstate(all="ignore"):
        v, g = x.astype(real), grad.astype(real)
        near = np.abs(v * inner) < 100 if f.family == "celu" else np.True_  # beyond, exp magnifies the rounding of z
        if f.mode == "backward":
            exact = g * np.where(v > 0, scale, slope * np.exp(np.minimum(v, 0) * inner))
        elif f.mode == "from_output":
            exact = g * np.where(v > 0, scale, np.maximum(v * inner + slope, 0))
        else:
            exact = np.where(v < 0, alpha * np.expm1(np.minimum(v, 0) * inner), scale * v)
        sure = near & np.isfinite(exact) & np.isfinite(g)
        top = np.abs(exact) >= real(info.max) * (1 + real(info.eps) / 4)  # rounds to infinity
        size = np.minimum(np.abs(exact), real(info.max))
        exponent = np.maximum(np.frexp(size)[1] - 1, int(np.frexp(real(info.smallest_normal))[1]) - 1)
        unit = np.ldexp(real(1), exponent - info.nmant)
        allowed = (real(0.51) if half else 2) * unit
        if f.mode == "from_output":  # y + alpha cancels
            eps = real(np.finfo(np.float32).eps if half else info.eps)
            allowed += 4 * eps * np.abs(g) * (np.abs(v) * np.abs(inner) + slope)
            sure &= np.isfinite(v)
        error = np.abs(y.astype(real) - exact)
        bad = sure & ~np.where(top, np.isinf(y) | (error <= allowed), error <= allowed)
    if bad.any():
        k = int(np.argmax(bad))
        raise Mismatch(f"value of element {k}: f({x[k]!r}) grad {grad[k]!r} is {y[k]!r}, exactly {exact[k]!r}")
    return int(sure.sum())


class Fuzzer:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loops = level_loops()
        self.pools = {dtype: pools(dtype, seed) for dtype in DTYPES}
        self.kinds: Counter[str] = Counter()
        self.threads = elufast.get_num_threads()
        self.note: list[str] = []

    def values(self, r: random.Random, dtype: Any, count: int) -> Array:
        """`count` bytes of elements of one class."""
        name = r.choice(VALUES)
        self.kinds[f"values: {name}"] += 1
        n = count // np.dtype(dtype).itemsize
        start = r.randrange(TRIALS - n)
        return self.pools[dtype][name][start : start + n].view(np.uint8).copy()

    def case(self, index: int) -> None:
        r = random.Random((self.seed << 40) + index)
        f, dtype = draw_function(r), r.choice(DTYPES)
        level = r.choice(tuple(self.loops))
        threads = r.choice((None, None, 1, 2, 3))
        large = r.random() < 0.004
        cache = 1 if large and r.random() < 0.6 else HUGE_CACHE
        _core.use(self.loops[level], cache)
        _core.limit_threads(self.threads)
        self.note = [f"{f} {np.dtype(dtype).name} level {level} num_threads {threads}"]
        for tag in (
            f"function: {f.family} {f.mode}",
            f"dtype: {np.dtype(dtype).name}",
            f"level: {level}",
            f"num_threads: {threads}",
        ):
            self.kinds[tag] += 1
        size = abs(float(f.alpha))
        if f.family != "selu":
            kind = "1" if f.alpha == 1 else "tiny" if size < 1e-11 else "huge" if size > 1e11 else "ordinary"
            self.kinds[f"alpha: {kind}{', negative' if f.alpha < 0 else ''}"] += 1
        if large:
            self.large(r, f, dtype, threads, cache)
        else:
            self.small(r, f, dtype, threads)

    def small(self, r: random.Random, f: Function, dtype: Any, threads: Any) -> None:
        itemsize, shape = np.dtype(dtype).itemsize, draw_shape(r)
        kind = "exact x" if f.mode == "in place" else r.choice(PLACES)
        if kind == "exact grad" and f.mode == "forward":
            kind = "exact x"
        own = kind.startswith("exact")  # an input that is out must not share elements with itself
        where = [draw_place(r, shape, itemsize, own, 0.15) for _ in range(2)]
        if own:
            same = where[kind == "exact grad"]
            turned = r.random() < 0.1 and f.mode != "in place"
            where.append(same._replace(swapped=same.swapped ^ turned))
            kind += ", other byte order" * turned
        else:
            where.append(draw_place(r, shape, itemsize, True, 0.15))
        memory = self.values(r, dtype, ROOM)
        memories = [memory, self.values(r, dtype, ROOM), memory]
        if kind == "shifted":
            base = draw_place(r, shape, itemsize, True, 0.5)
            shift = r.choice((-2 * itemsize, -itemsize, -1, 1, itemsize, 3, 2 * itemsize, 40))
            where[0] = base
            where[2] = base._replace(offset=base.offset + shift)
            if r.random() < 0.5:
                where[1], memories[1] = base._replace(offset=base.offset + 2 * shift), memory
        elif kind.startswith("exact grad"):
            memories[1], memories[0] = memory, memories[1]
        elif kind == "anywhere":
            memories[1] = r.choice((memory, memories[1]))
        elif kind == "apart":
            memories[2] = self.values(r, dtype, ROOM)
        x, grad, out = (p.of(m, dtype) for p, m in zip(where, memories, strict=True))
        if f.mode not in ("backward", "from_output") or ("grad" not in kind and r.random() < 0.05):
            grad = x
        self.tags(kind, x, grad, out)
        if f.family != "selu" and r.random() < 0.06:
            some = draw_broadcast(r, shape)
            alphas = r.choices((*ALPHAS, -0.5), k=math.prod(some))
            f = f._replace(alpha=np.reshape(np.abs(alphas) if f.mode == "from_output" else alphas, some))
            self.kinds["alpha: an array"] += 1
        bias, options = None, {}
        if f.mode != "from_output" and not f.many and r.random() < 0.2:
            kind_of_bias = np.float32 if itemsize == 2 and r.random() < 0.3 else dtype
            place = draw_place(r, draw_broadcast(r, shape), np.dtype(kind_of_bias).itemsize, False, 0.4)
            given = place.of(self.values(r, kind_of_bias, ROOM), kind_of_bias)
            options["bias"] = given
            bias = np.ascontiguousarray(np.broadcast_to(given, shape), kind_of_bias).reshape(-1)
            self.kinds[f"bias: {len(given.shape)} of {len(shape)} dimensions"] += 1
            self.note.append(f"bias: shape {given.shape} strides {given.strides} {given.dtype.str}")
        x1, grad1 = (np.ascontiguousarray(a, dtype).reshape(-1).copy() for a in (x, grad))
        expected = f.one_by_one(x1, grad1, bias, shape)
        kept = [m.copy() for m in memories]
        if kind == "new" and f.mode != "in place" and bias is None and r.random() < 0.3:
            got = f.ufunc(x, grad)
            self.kinds["called: the ufunc"] += 1
            if np.asarray(got).dtype != np.dtype(dtype):
                raise Mismatch(f"dtype {np.asarray(got).dtype}")
        elif kind == "new":
            got = f(x, grad, num_threads=threads, **options)
            if x.ndim == 0 and type(got) is not dtype:
                raise Mismatch(f"a 0-d array gave {type(got)}")
            if np.asarray(got).dtype != np.dtype(dtype):
                raise Mismatch(f"dtype {np.asarray(got).dtype}")
        else:
            if f.mode == "in place" or (kind == "exact x" and r.random() < 0.5):
                out = x
            elif kind == "exact grad" and r.random() < 0.5:
                out = grad
            got = f(x, grad, out=out, num_threads=threads, **options)
            if got is not out:
                raise Mismatch("what was returned is not out")
            target = 1 if "grad" in kind else 2
            marked = kept[target]
            where[2].of(marked, dtype)[...] = out
            for m, k in zip(memories, kept, strict=True):
                if m is memories[target]:
                    k[:] = marked
        compare(np.asarray(got), expected.reshape(shape), "result")
        for m, k, name in zip(memories, kept, ("x", "grad", "out"), strict=True):
            if not np.array_equal(m, k):
                raise Mismatch(f"memory of {name}: byte {int(np.argmax(m != k))} changed outside out")
        if bias is not None:
            with np.errstate(all="ignore"):
                x1 = x1.astype(np.float32) + bias.astype(np.float32) if itemsize == 2 else x1 + bias
        self.kinds["elements compared with the formula"] += check_value(f, x1, grad1, expected)
        self.kinds["elements compared one at a time"] += x1.size

    def tags(self, kind: str, x: Array, grad: Array, out: Array) -> None:
        self.kinds[f"out: {kind}"] += 1
        self.kinds[f"dimensions: {x.ndim}"] += 1
        arrays = {"x": x, "grad": grad, "out": out}
        if kind != "new":
            for name in ("x", "grad") if grad is not x else ("x",):
                a = arrays[name]
                if np.may_share_memory(a, out) and not (
                    a.ctypes.data == out.ctypes.data and a.strides == out.strides and a.dtype == out.dtype
                ):
                    self.kinds[f"overlap: {name} and out, not the same elements"] += 1
        for name, a in arrays.items():
            self.note.append(f"{name}: shape {a.shape} strides {a.strides} {a.dtype.str} at {a.ctypes.data % 64}")
            self.kinds[f"{name}: " + ("contiguous" if a.flags.forc else "strided")] += 1
            if not a.flags.aligned:
                self.kinds[f"{name}: unaligned"] += 1
            if not a.dtype.isnative:
                self.kinds[f"{name}: other byte order"] += 1
            if any(s < 0 for s in a.strides):
                self.kinds[f"{name}: negative stride"] += 1
            if any(s == 0 and n > 1 for s, n in zip(a.strides, a.shape, strict=True)):
                self.kinds[f"{name}: zero stride"] += 1
        size = "0" if not x.size else "1" if x.size == 1 else "2 to 16" if x.size < 17 else "17 to 130"
        if x.size < 2000:
            self.kinds[f"size: {size}"] += 1

    def large(self, r: random.Random, f: Function, dtype: Any, threads: Any, cache: int) -> None:
        """More than one block: streaming stores, threads, the iterator's buffers."""
        n = r.choice((r.randrange(2000, 4200), r.randrange(4097, 9000), r.randrange(16_384, LARGE)))
        self.kinds["size: 2000 to 40 000" + (", streaming stores" if cache == 1 else "")] += 1
        itemsize = np.dtype(dtype).itemsize
        step = r.choice((1, 1, 1, -1, 2))
        room = (n * abs(step) + 96) * itemsize
        name = r.choice(VALUES)
        self.kinds[f"values: {name}"] += 1
        pool = np.tile(self.pools[dtype][name], 3)
        starts = [r.randrange(TRIALS - 96) for _ in range(3)]
        memories = [pool[s : s + room // itemsize].view(np.uint8).copy() for s in starts]
        x, grad, out = (
            m[(offset := r.choice((0, 1, 4, 8, 32, 64))) :][: n * abs(step) * itemsize].view(dtype)[::step]
            for m in memories
        )
        if f.mode not in ("backward", "from_output"):
            grad = x
        same = f.mode == "in place" or r.random() < 0.2
        if same:
            out = x
        self.tags("exact x" if same else "apart", x, grad, out)
        x1, grad1 = (np.array(a, order="C").copy() for a in (x, grad))
        some = np.unique([0, 1, n - 2, n - 1, *(r.randrange(n) for _ in range(60))])
        expected = f.one_by_one(x1[some], grad1[some])
        kept = [m.copy() for m in memories]
        f(x, grad, out=out, num_threads=threads)
        compare(out[some], expected, "result")
        whole = np.empty_like(x1)
        plain = f.plain
        for first in range(0, n, 517):
            part = slice(first, first + 517)
            plain(x1[part], grad1[part], out=whole[part], num_threads=1)
        compare(out, whole, "result, against runs of 517 elements")
        target = 0 if same else 2
        offset = out.ctypes.data - memories[target].ctypes.data
        np.ndarray(out.shape, dtype, kept[target], offset, out.strides)[...] = out
        for m, k in zip(memories, kept, strict=True):
            if not np.array_equal(m, k):
                raise Mismatch(f"byte {int(np.argmax(m != k))} changed outside out")
        self.kinds["elements compared with the formula"] += check_value(f, x1[some], grad1[some], expected)
        self.kinds["elements compared one at a time"] += len(some)


def work(arguments: tuple[int, int, int]) -> tuple[Counter[str], str]:
    """Cases first, first + 1, ... of one job: the kinds met, and what failed."""
    seed, first, stop = arguments
    fuzzer = fuzzer_of(seed)
    fuzzer.kinds = Counter()
    for index in range(first, stop):
        try:
            fuzzer.case(index)
        except Exception:
            trace = traceback.format_exc(limit=-2)
            repeat = f"python tools/fuzz.py --seed {seed} --index {index}"
            return fuzzer.kinds, "\n".join([*fuzzer.note, trace, f"repeat: {repeat}"])
    return fuzzer.kinds, ""


FUZZERS: dict[int, Fuzzer] = {}


def fuzzer_of(seed: int) -> Fuzzer:
    if seed not in FUZZERS:
        FUZZERS[seed] = Fuzzer(seed)
    return FUZZERS[seed]


@contextmanager
def pool_of(jobs: int) -> Iterator[Any]:
    # spawned, for a forked child uses no threads
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--index", type=int, help="this case alone")
    options = parser.parse_args()
    if options.index is not None:
        kinds, failure = work((options.seed, options.index, options.index + 1))
        print("\n".join(fuzzer_of(options.seed).note), failure or "passed", sep="\n")
        sys.exit(bool(failure))
    start, total, done = time.monotonic(), Counter[str](), 0
    chunk = min(5000, -(-options.cases // options.jobs))
    chunks = [(options.seed, k, min(k + chunk, options.cases)) for k in range(0, options.cases, chunk)]
    with pool_of(options.jobs) as pool:
        for (_, first, stop), (kinds, failure) in zip(chunks, pool.imap(work, chunks), strict=True):
            total += kinds
            if failure:
                print(failure)
                sys.exit(1)
            done += stop - first
            if done % (20 * chunk) == 0:
                print(f"{done} cases, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(f"{done} cases, none failed; seed {options.seed}, {options.jobs} jobs, {time.monotonic() - start:.0f} s")
    for kind, count in sorted(total.items()):
        print(f"{count:12}  {kind}")


if __name__ == "__main__":
    main()
