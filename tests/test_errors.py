"""Wrong calls: which exception, what it says, and that nothing was written or kept."""

from __future__ import annotations

import array
import ctypes
import decimal
import fractions
import gc
import math
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import FREE_THREADED, Array, bits, run_python

import elufast


class RaisingArray:
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        raise RuntimeError("no array today")


class LyingArray:
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return [1.0, 2.0]


class IntegerArray:
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.arange(3)


class RaisingDLPack:
    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("still on the device")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class LyingDLPack(RaisingDLPack):
    def __dlpack__(self, **options: Any) -> Any:
        return "not a capsule"


class IntegerDLPack(RaisingDLPack):
    def __dlpack__(self, **options: Any) -> Any:
        return np.arange(3).__dlpack__(**options)


class LyingInterface:
    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (3,), "typestr": "<f8", "version": 3, "data": "here"}


class RaisingInterface:
    @property
    def __array_interface__(self) -> dict[str, Any]:
        raise ZeroDivisionError("interface")


class RaisingAttribute:
    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class EndlessSequence:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        raise OSError("no element today")


class FloatThatRaises(float):
    def __float__(self) -> float:
        raise RuntimeError("no float today")


class FloatThatLies(float):
    def __float__(self) -> float:
        return math.nan


class Shrinking:
    """Takes the memory of another array away while it is converted."""

    def __init__(self, other: Array) -> None:
        self.other = other

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        self.other.resize(1, refcheck=False)
        return np.ones(3)


class Unusual(np.ndarray[Any, Any]):
    """A subclass whose attributes say what is not so."""

    shape = (10**6,)  # type: ignore[assignment]
    dtype = np.dtype(np.int8)  # type: ignore[assignment]
    flags = None  # type: ignore[assignment]
    ctypes = None  # type: ignore[assignment]


class RaisingWrap(np.ndarray[Any, Any]):
    def __array_wrap__(self, *arguments: Any) -> Any:
        raise RuntimeError("no wrapping today")


class RaisingFinalize(np.ndarray[Any, Any]):
    def __array_finalize__(self, other: Any) -> None:
        if other is not None and type(other) is RaisingFinalize:
            raise RuntimeError("no view today")


class Real:
    def __float__(self) -> float:
        return 1.0


class Index:
    def __index__(self) -> int:
        raise RuntimeError("not today")


def read_only(a: Array) -> Array:
    a.flags.writeable = False
    return a


def released() -> memoryview:
    view = memoryview(array.array("d", [1.0]))
    view.release()
    return view


def names() -> dict[str, Any]:
    """What the calls below refer to, made anew for each."""
    x = np.array([-1.0, 0.5, -3.0])
    return {
        "x": x,
        "g": np.array([1.0, 2.0, 3.0]),
        "out": np.array([7.0, 8.0, 9.0]),
        "x4": x.astype(np.float32),
        "out4": np.full(3, 7, np.float32),
        "x2d": np.arange(6.0).reshape(2, 3),
        "swapped": x.astype(x.dtype.newbyteorder()),
        "ro": read_only(x.copy()),
        "big": np.full(70_000, -1.0),
        "integers": np.arange(3),
        "records": np.zeros(1, [("a", "f8")]).view(np.recarray),
        "decimal": decimal.Decimal("0.5"),
        "half": fractions.Fraction(1, 2),
        "raising_array": RaisingArray(),
        "lying_array": LyingArray(),
        "integer_array": IntegerArray(),
        "raising_dlpack": RaisingDLPack(),
        "lying_dlpack": LyingDLPack(),
        "integer_dlpack": IntegerDLPack(),
        "lying_interface": LyingInterface(),
        "raising_interface": RaisingInterface(),
        "raising_attribute": RaisingAttribute(),
        "sequence": EndlessSequence(),
        "float_raises": FloatThatRaises(0.5),
        "float_lies": FloatThatLies(0.5),
        "raising_wrap": x.copy().view(RaisingWrap),
        "released": released(),
        "real": Real(),
        "index": Index(),
    }


def dtype_of(argument: str, dtype: str) -> str:
    return rf"{argument} has dtype .*{dtype}.*float32 or float64.*{argument}.*astype\(np.float"


def alpha(given: str) -> str:
    return rf"alpha must be a finite real number or an array of them, got {given}.*pass"


THREADS = r"num_threads must be an int of at least 1.*got {}.*"

WRONG: list[tuple[str, type[Exception] | tuple[type[Exception], ...], str]] = [
    # dtypes
    ("elu(np.array([True, False]))", TypeError, dtype_of("x", "bool")),
    ("elu(integers)", TypeError, dtype_of("x", "int64")),
    ("elu(np.arange(3, dtype=np.uint8))", TypeError, dtype_of("x", "uint8")),
    ("elu(x.astype(np.longdouble))", TypeError, dtype_of("x", "float128|longdouble")),
    ("elu(x.astype(complex))", TypeError, r"x has dtype complex128.*float32 or float64"),
    ("selu(x.astype(np.complex64))", TypeError, r"x has dtype complex64.*float32 or float64"),
    ("elu(x.astype(object))", TypeError, dtype_of("x", "object")),
    ("elu(np.array(['1.0']))", TypeError, dtype_of("x", "<U3")),
    ("elu(np.array([b'1.0']))", TypeError, dtype_of("x", "S3")),
    ("elu(np.array(['1.0'], np.dtypes.StringDType()))", TypeError, dtype_of("x", "StringDType")),
    ("elu(np.zeros(3, 'f8,f8'))", TypeError, dtype_of("x", "f0")),
    ("elu(np.zeros(3, 'V8'))", TypeError, dtype_of("x", "V8")),
    ("elu(np.zeros(3, 'M8[s]'))", TypeError, dtype_of("x", "datetime64")),
    ("elu(np.zeros(3, 'm8[s]'))", TypeError, dtype_of("x", "timedelta64")),
    ("elu(records)", TypeError, dtype_of("x", "a")),
    ("celu(integers, 2.0)", TypeError, dtype_of("x", "int64")),
    ("elu_(integers)", TypeError, dtype_of("x", "int64")),
    ("selu_(integers)", TypeError, dtype_of("x", "int64")),
    ("celu_(integers)", TypeError, dtype_of("x", "int64")),
    ("elu_backward(integers, x)", TypeError, dtype_of("grad", "int64")),
    ("elu_backward(g, integers)", TypeError, dtype_of("x", "int64")),
    ("elu_backward(g, integers, from_output=True)", TypeError, dtype_of("y", "int64")),
    ("elu(integers, out=integers)", TypeError, dtype_of("x", "int64")),
    # what is not an array
    ("elu(None)", TypeError, "x .*object.*float32 or float64"),
    ("elu('1.0')", TypeError, "x .*<U3.*float32 or float64"),
    ("elu(b'1.0')", TypeError, "x .*S3.*float32 or float64"),
    ("elu(1)", TypeError, "x .*int64.*float32 or float64"),
    ("elu(True)", TypeError, "x .*bool.*float32 or float64"),
    ("elu(1j)", TypeError, "x .*complex128.*float32 or float64"),
    ("elu([1, 2])", TypeError, "x .*int64.*float32 or float64"),
    ("elu([1.0, None])", TypeError, "x .*object.*float32 or float64"),
    ("elu({1.0: 2.0})", TypeError, "x .*object.*float32 or float64"),
    ("elu(iter([1.0]))", TypeError, "x .*object.*float32 or float64"),
    ("elu(object())", TypeError, "x .*object.*float32 or float64"),
    ("elu(decimal)", TypeError, "x .*object.*float32 or float64"),
    ("elu(np)", TypeError, "x .*object.*float32 or float64"),
    ("elu(elu)", TypeError, "x .*object.*float32 or float64"),
    ("elu(bytearray(8))", TypeError, "x .*uint8.*float32 or float64"),
    ("elu(array('i', [1]))", TypeError, "x .*int32.*float32 or float64"),
    ("elu(memoryview(b'12345678'))", TypeError, "x .*uint8.*float32 or float64"),
    ("elu(integer_array)", TypeError, "x .*int64.*float32 or float64"),
    ("elu([[1.0], [2.0, 3.0]])", ValueError, "x, of type list, does not convert.*inhomogeneous"),
    ("elu(raising_array)", RuntimeError, "no array today"),
    ("elu_backward(g, raising_array)", RuntimeError, "no array today"),
    ("elu(lying_array)", ValueError, "__array__ method not producing an array"),
    ("elu(raising_dlpack)", BufferError, "still on the device"),
    ("elu(integer_dlpack)", TypeError, r"x has dtype int64.*pass np\.from_dlpack\(x\)\.astype"),
    ("elu(lying_dlpack)", ValueError, "x, of type LyingDLPack, does not convert.*np.asarray"),
    ("elu(lying_interface)", TypeError, "x, of type LyingInterface, does not convert.*np.asarray"),
    ("elu(raising_interface)", ZeroDivisionError, "interface"),
    ("elu(raising_attribute)", KeyError, "__d[al]"),
    ("elu(sequence)", (OSError, TypeError), "element|object"),
    ("elu(released)", (TypeError, ValueError), "x .*object.*float32 or float64|x, of type memoryview"),
    ("elu(raising_wrap)", RuntimeError, "no wrapping today"),
    ("elu(x, out=type('A', (), {'__array__': lambda self: out})())", TypeError, "out must be a numpy.ndarray, got A"),
    ("elu(x, out=memoryview(out))", TypeError, "out must be a numpy.ndarray, got memoryview"),
    ("elu(x, out=out.astype('>i8'))", TypeError, "out has dtype"),
    ("elu(x, out=np.float64)", TypeError, "out must be a numpy.ndarray, got type"),
    ("elu(x, out=Ellipsis)", TypeError, "out must be a numpy.ndarray, got ellipsis"),
    ("elu(x, out=np.ma.masked)", (TypeError, ValueError), "out"),
    ("elu(x, float_raises)", RuntimeError, "no float today"),
    ("elu(x, float_lies)", ValueError, "alpha must be finite"),
    ("elu(x, num_threads=float('nan'))", TypeError, "num_threads must be an int of at least 1.*got nan"),
    ("elu(x, num_threads=np.array([2]))", TypeError, "num_threads must be an int"),
    ("elu(big[::-1], out=big[1:])", ValueError, "shape"),
    ("elu(big, out=big[::-1][1:], num_threads=2)", ValueError, "shape"),
    # alpha
    ("elu(x, None)", TypeError, alpha("None of type NoneType")),
    ("elu(x, '1')", TypeError, alpha("'1' of type str")),
    ("elu(x, 1j)", TypeError, alpha("1j of type complex")),
    ("elu(x, np.complex64(1))", TypeError, alpha(".* of type complex64")),
    ("elu(x, decimal)", TypeError, alpha(r"Decimal\('0.5'\) of type Decimal")),
    ("elu(x, np.array([True]))", TypeError, alpha(r"array\(\[ ?True\]\) of type ndarray")),
    ("elu(x, np.longdouble([1.0]))", TypeError, alpha(r"array\(.*\) of type ndarray")),
    ("elu(x, ['1'])", TypeError, alpha(r"\['1'\] of type list")),
    ("elu(x, [[1.0], [1.0, 2.0]])", TypeError, alpha(r".* of type list")),
    ("elu(x, [1.0, 2.0])", ValueError, r"alpha has shape \(2,\) and x has shape \(3,\); it must broadcast"),
    ("elu(x, np.full((2, 3), 1.0), out=x2d)", ValueError, r"alpha has shape \(2, 3\) and x has shape \(3,\)"),
    ("elu(x, np.full((1, 3), 1.0))", ValueError, r"alpha has shape \(1, 3\) and x has shape \(3,\)"),
    ("elu(x, [1.0, np.nan, 1.0])", ValueError, "alpha must be finite, got .*nan"),
    ("celu_(x, [1.0, 0.0, 1.0])", ValueError, "alpha must not be 0, got"),
    ("elu_backward(g, x, [1.0, -1.0, 1.0], from_output=True)", ValueError, "needs alpha > 0"),
    ("elu(x, real)", TypeError, alpha(".* of type Real")),
    ("elu_(x, alpha='1')", TypeError, alpha("'1' of type str")),
    ("celu(x, None)", TypeError, alpha("None of type NoneType")),
    ("celu_(x, None)", TypeError, alpha("None of type NoneType")),
    ("elu_backward(g, x, None)", TypeError, alpha("None of type NoneType")),
    ("celu_backward(g, x, [None])", TypeError, alpha(r"\[None\] of type list")),
    # bias
    ("elu(x, bias=np.full(2, 1.0))", ValueError, r"bias has shape \(2,\) and x has shape \(3,\); it must broadcast"),
    ("elu(x, bias=x2d)", ValueError, r"bias has shape \(2, 3\) and x has shape \(3,\)"),
    ("elu_(x, bias=x2d[:1])", ValueError, r"bias has shape \(1, 3\) and x has shape \(3,\)"),
    ("elu(x2d, bias=np.full((2, 3, 1), 1.0), out=x2d)", ValueError, r"bias has shape \(2, 3, 1\)"),
    ("elu(x, bias=x4)", TypeError, "bias has dtype float32 and x has dtype float64.*pass bias.astype"),
    ("elu(x4, bias=x)", TypeError, "bias has dtype float64 and x has dtype float32"),
    ("elu(x.astype(np.float16), bias=x)", TypeError, "bias has dtype float64 and x has dtype float16.*float32 is"),
    ("elu(x.astype(np.float16), x, bias=x4)", TypeError, "a bias in half precision.* a number alpha, got"),
    ("elu(x, bias=integers)", TypeError, dtype_of("bias", "int64")),
    ("elu(x, bias='1')", TypeError, "bias .*<U1.*float32 or float64"),
    ("elu_backward(g, x, bias=out4)", TypeError, "bias has dtype float32"),
    ("elu_backward(g, x, bias=x, from_output=True)", ValueError, "from_output=True takes no bias"),
    ("selu_(ro, bias=x)", ValueError, "x is read-only"),
    ("elu(x, float('nan'))", ValueError, "alpha must be finite, got nan"),
    ("elu(x, float('inf'))", ValueError, "alpha must be finite, got inf"),
    ("elu(x, -np.inf)", ValueError, "alpha must be finite, got -inf"),
    ("elu(x, np.float32('nan'))", ValueError, "alpha must be finite, got .*nan"),
    ("elu(x, np.longdouble('1e4000'))", ValueError, "alpha must be finite, got .*(1e.4000|inf)"),
    ("elu(x, 10**400)", ValueError, "alpha must be finite, got 1000"),
    ("elu(x, -(10**400))", ValueError, "alpha must be finite, got -1000"),
    ("elu_(x, float('nan'))", ValueError, "alpha must be finite, got nan"),
    ("elu_backward(g, x, float('nan'))", ValueError, "alpha must be finite, got nan"),
    ("celu(x, 0)", ValueError, "alpha must not be 0, got 0"),
    ("celu(x, 0.0)", ValueError, "alpha must not be 0, got 0.0"),
    ("celu(x, -0.0)", ValueError, "alpha must not be 0, got -0.0"),
    ("celu(x, 0 * half)", ValueError, "alpha must not be 0, got"),
    ("celu_(x, 0.0)", ValueError, "alpha must not be 0, got 0.0"),
    ("celu_backward(g, x, 0.0)", ValueError, "alpha must not be 0, got 0.0"),
    ("celu(x, float('inf'))", ValueError, "alpha must be finite, got inf"),
    # from_output
    ("elu_backward(g, x, 0.0, from_output=True)", ValueError, "needs alpha > 0, got 0.0.*input"),
    ("elu_backward(g, x, -0.5, from_output=True)", ValueError, "needs alpha > 0, got -0.5.*input"),
    ("elu_backward(g, x, -1, from_output=True)", ValueError, "needs alpha > 0, got -1.*input"),
    ("celu_backward(g, x, -2.0, from_output=True)", ValueError, "needs alpha > 0, got -2.0.*input"),
    ("celu_backward(g, x, 0.0, from_output=True)", ValueError, "alpha .*got 0.0"),
    ("elu_backward(g, x, from_output=1)", TypeError, "from_output must be a bool, got 1"),
    ("elu_backward(g, x, from_output=None)", TypeError, "from_output must be a bool, got None"),
    ("selu_backward(g, x, from_output='no')", TypeError, "from_output must be a bool, got 'no'"),
    ("celu_backward(g, x, from_output=x)", TypeError, r"from_output must be a bool, got array\("),
    # num_threads
    ("elu(x, num_threads=0)", ValueError, "num_threads must be at least 1, got 0.*None"),
    ("elu(x, num_threads=-1)", ValueError, "num_threads must be at least 1, got -1.*None"),
    ("elu(big, num_threads=0)", ValueError, "num_threads must be at least 1, got 0.*None"),
    ("elu(x, num_threads=-(10**30))", ValueError, "num_threads must be at least 1, got -1000"),
    ("elu(x, num_threads=1.5)", TypeError, THREADS.format("1.5 of type float")),
    ("elu(x, num_threads=2.0)", TypeError, THREADS.format("2.0 of type float")),
    ("elu(x, num_threads='2')", TypeError, THREADS.format("'2' of type str")),
    ("elu(x, num_threads=[2])", TypeError, THREADS.format(r"\[2\] of type list")),
    ("elu(x, num_threads=index)", RuntimeError, "not today"),
    ("selu_(x, num_threads=0)", ValueError, "num_threads must be at least 1, got 0"),
    ("celu_backward(g, x, num_threads='2')", TypeError, THREADS.format("'2' of type str")),
    ("set_num_threads(0)", ValueError, "num_threads must be at least 1, got 0"),
    ("set_num_threads(-3)", ValueError, "num_threads must be at least 1, got -3"),
    ("set_num_threads(2.0)", TypeError, THREADS.format("2.0 of type float")),
    ("set_num_threads('2')", TypeError, THREADS.format("'2' of type str")),
    ("set_num_threads(None)", TypeError, THREADS.format("None")),
    # out
    ("elu(x, out=[0.0] * 3)", TypeError, r"out must be a numpy.ndarray, got list.*empty_like"),
    ("elu(x, out=(out,))", TypeError, "out must be a numpy.ndarray, got tuple.*empty_like"),
    ("elu(x, out=bytearray(24))", TypeError, "out must be a numpy.ndarray, got bytearray"),
    ("elu(x, out=array('d', [0] * 3))", TypeError, "out must be a numpy.ndarray, got array"),
    ("elu(1.0, out=np.float64(1))", TypeError, "out must be a numpy.ndarray, got float64"),
    ("elu(x, out=out4)", TypeError, "x has dtype float64 and out has dtype float32.*cast"),
    ("elu(x4, out=out)", TypeError, "x has dtype float32 and out has dtype float64.*cast"),
    ("elu(x, out=integers)", TypeError, r"x has dtype float64 and out has dtype int64.*cast.*np.empty_like\(x\)"),
    ("elu(x, out=out.astype(complex))", TypeError, "x has dtype float64 and out has dtype complex128.*cast"),
    ("elu(x, out=out[:2])", ValueError, r"x has shape \(3,\) and out has shape \(2,\)"),
    ("elu(x, out=x2d)", ValueError, r"x has shape \(3,\) and out has shape \(2, 3\)"),
    ("elu(x2d, out=out)", ValueError, r"x has shape \(2, 3\) and out has shape \(3,\)"),
    ("elu(x, out=out.reshape(3, 1))", ValueError, r"\(3,\) and out has shape \(3, 1\)"),
    ("elu(1.0, out=out)", ValueError, r"x has shape \(\) and out has shape \(3,\)"),
    ("elu(x, out=out[:1].reshape(()))", ValueError, r"x has shape \(3,\) and out has shape \(\)"),
    ("elu(x, out=ro)", ValueError, "out is read-only.*writeable.*copy"),
    ("elu(ro, out=ro)", ValueError, "out is read-only.*writeable.*copy"),
    ("elu(x, out=np.broadcast_to(out, (2, 3))[0])", ValueError, "out is read-only"),
    ("celu_backward(g, x, out=out4)", TypeError, "x has dtype float64 and out has dtype float32"),
    ("selu_backward(g, x, out=out[:1])", ValueError, r"\(3,\) and out has shape \(1,\)"),
    ("selu_backward(g, x, out=ro)", ValueError, "out is read-only"),
    ("elu_backward(g, x, out=0)", TypeError, "out must be a numpy.ndarray, got int"),
    # in place
    ("elu_(ro)", ValueError, "x is read-only.*writeable.*copy"),
    ("selu_(ro)", ValueError, "x is read-only.*writeable.*copy"),
    ("celu_(ro, 0.5)", ValueError, "x is read-only.*writeable.*copy"),
    ("elu_(np.broadcast_to(x, (2, 3)))", ValueError, "x is read-only"),
    ("elu_(1.0)", TypeError, r"x must be a numpy.ndarray, got float; use elu\(x\)"),
    ("elu_(np.float64(1))", TypeError, r"x must be a numpy.ndarray, got float64; use elu\(x\)"),
    ("selu_([1.0])", TypeError, r"x must be a numpy.ndarray, got list; use selu\(x\)"),
    ("celu_(array('d', [1]))", TypeError, r"x must be a numpy.ndarray, got array.*celu\(x\)"),
    ("elu_(raising_array)", TypeError, "x must be a numpy.ndarray, got RaisingArray"),
    # grad and x
    ("elu_backward(g, x4)", TypeError, "grad has dtype float64 and x has dtype float32"),
    ("elu_backward(1.0, x4[0])", TypeError, "grad has dtype float64 and x has dtype float32"),
    ("elu_backward(g[:2], x)", ValueError, r"grad has shape \(2,\) and x has shape \(3,\)"),
    ("elu_backward(1.0, x)", ValueError, r"grad has shape \(\) and x has shape \(3,\)"),
    ("elu_backward(g, 1.0)", ValueError, r"grad has shape \(3,\) and x has shape \(\)"),
    ("selu_backward(x2d, x)", ValueError, r"grad has shape \(2, 3\) and x has shape \(3,\)"),
    ("elu_backward(g, x2d, from_output=True)", ValueError, r"\(3,\) and y has shape \(2, 3\)"),
    # arity and names
    ("elu()", TypeError, "argument"),
    ("elu(x, 1.0, out)", TypeError, "argument"),
    ("elu(x, alpha=1.0, beta=2.0)", TypeError, "beta"),
    ("elu(x, 1.0, alpha=2.0)", TypeError, "alpha"),
    ("elu(x, inplace=True)", TypeError, "inplace"),
    ("elu_(x, out=out)", TypeError, "out"),
    ("selu(x, 1.0)", TypeError, "argument"),
    ("selu(x, alpha=1.0)", TypeError, "alpha"),
    ("selu_backward(g, x, 1.0)", TypeError, "argument"),
    ("elu_backward(g)", TypeError, "argument"),
    ("elu_backward(g, x, 1.0, True)", TypeError, "argument"),
    ("elu_backward(g, input=x)", TypeError, "argument"),
    ("celu(x, 1.0, out)", TypeError, "argument"),
    ("get_num_threads(1)", TypeError, "argument"),
    ("set_num_threads()", TypeError, "argument"),
    ("runtime_info(1)", TypeError, "argument"),
]


PUBLIC = {**vars(elufast), "np": np, "array": array.array}


def failure(call: Any, given: dict[str, Any]) -> tuple[type[BaseException] | None, str]:
    try:
        eval(call, PUBLIC, given)
    except Exception as error:
        return type(error), str(error)
    return None, "nothing raised"


def test_the_table_is_long_enough() -> None:
    assert len({call for call, _, _ in WRONG}) == len(WRONG) >= 80


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[row[0] for row in WRONG])
def test_wrong_call(
    call: str, error: type[Exception] | tuple[type[Exception], ...], message: str, threads: int
) -> None:
    given = names()
    arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
    before = {name: bits(value) for name, value in arrays.items()}
    counts = {name: sys.getrefcount(value) for name, value in given.items()}
    raised, text = failure(call, given)
    assert {name: sys.getrefcount(value) for name, value in given.items()} == counts
    assert {name: bits(value) for name, value in arrays.items()} == before
    assert raised is not None, text
    assert issubclass(raised, error), f"{raised.__name__}: {text}"
    assert re.search(message, text, re.DOTALL), text
    assert elufast.get_num_threads() == threads


@pytest.mark.parametrize("call", [row[0] for row in WRONG if row[2].startswith(("x ", "out "))])
def test_message_names_the_function(call: str) -> None:
    assert failure(call, names())[1].startswith(call.partition("(")[0] + ": ")


def test_memory_that_goes_away_while_arguments_are_converted() -> None:
    """What __array__ of one argument does to another is seen by the checks, which come after every conversion."""
    for _ in range(50):
        x, out = np.full((2, 3), -1.0)
        x, out = x.copy(), out.copy()
        with pytest.raises(ValueError, match=r"grad has shape \(3,\) and x has shape \(1,\)"):
            elufast.elu_backward(Shrinking(x), x)
        x = np.full(3, -1.0)
        with pytest.raises(ValueError, match=r"x has shape \(3,\) and out has shape \(1,\)"):
            elufast.elu_backward(x, Shrinking(out), out=out)


def test_subclass_that_says_what_is_not_so() -> None:
    x = np.array([-1.0, 0.5, -3.0])
    odd = x.copy().view(Unusual)
    np.testing.assert_array_equal(np.asarray(elufast.elu(odd)).view(np.ndarray), elufast.elu(x))
    out = np.zeros(3).view(Unusual)
    assert elufast.elu_backward(odd, x, out=out) is out
    np.testing.assert_array_equal(out.view(np.ndarray), elufast.elu_backward(x, x))
    with pytest.raises(ValueError, match=r"x has shape \(3,\) and out has shape \(2,\)"):
        elufast.elu(x, out=np.zeros(2).view(Unusual))


def test_subclass_that_cannot_be_wrapped_is_not_written() -> None:
    x = np.array([-1.0, 0.5]).view(RaisingFinalize)
    np.testing.assert_array_equal(elufast.elu_(x).view(np.ndarray), [np.expm1(-1.0), 0.5])


def test_errors_leak_nothing() -> None:
    given = names()
    # Free-threaded CPython 3.13 itself keeps a little of each class that is made and dropped.
    texts = [call for call, _, _ in WRONG if not (FREE_THREADED and "type('" in call)]
    calls = [compile(call, call, "eval") for call in texts]

    def repeat(call: Any, count: int) -> int:
        for _ in range(count):
            failure(call, given)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    gc.collect()
    gc.freeze()
    tracemalloc.start()
    try:
        kept = {}
        for call in calls:
            repeat(call, 50)
            for _ in range(4):  # without the GIL what is freed waits in queues, which fill up; a leak goes on
                kept[call.co_filename] = -repeat(call, 0) + repeat(call, 300)
                if kept[call.co_filename] < 16 * 300:  # no object is smaller
                    break
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    assert {call: n for call, n in kept.items() if n >= 16 * 300} == {}


def test_calls_keep_no_reference() -> None:
    x, grad, out = np.ones((3, 70_000))
    strided = np.ones(140_000)[::2]
    arrays = [x, grad, out, strided]
    counts = [sys.getrefcount(a) for a in arrays]
    for _ in range(20):
        elufast.elu(x[:100])
        elufast.elu(x, num_threads=1)
        elufast.elu(x, out=out, num_threads=2)
        elufast.elu_(x)
        elufast.elu_backward(grad, x, out=out, num_threads=2)
        elufast.elu(x.reshape(-1, 2), out=out.reshape(-1, 2), num_threads=2)
        elufast.elu_backward(strided, strided, out=strided)
        elufast.selu(strided, num_threads=2)
        elufast.celu_(strided, 0.5)
    assert [sys.getrefcount(a) for a in arrays] == counts
    assert sys.getrefcount(elufast.elu(x)) == sys.getrefcount(np.ones(3))


@pytest.mark.skipif(FREE_THREADED, reason="no PYTHONMALLOC=malloc: objects come from mimalloc alone")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what glibc's malloc has given out")
def test_a_slice_of_make_leaks() -> None:
    tool = Path(__file__).parents[1] / "tools/leaks.py"
    code = "import runpy, sys; sys.argv[0] = sys.argv.pop(1); runpy.run_path(sys.argv[0], run_name='__main__')"
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("the C library has no mallinfo2")
    printed = run_python(code, str(tool), "--calls", "30000", PYTHONMALLOC="malloc", timeout=300)
    assert "calls that keep memory: none" in printed
