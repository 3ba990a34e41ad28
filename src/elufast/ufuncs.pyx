"""The functions as NumPy ufuncs: forward of (x, alpha), backward of (grad, x, alpha), without alpha for SELU.

This is how Dask, xarray, pandas, masked and other arrays are reached, by their own ``__array_ufunc__``. A ufunc runs
in the thread that calls it, takes ``where=``, ``out=`` and broadcasts, and gives the bits of the plain functions; an
alpha that these refuse gives NaN.

>>> import numpy as np
>>> from elufast import ufuncs
>>> ufuncs.elu(np.array([-1.0, 2.0], np.float32), [[1.0], [0.5]])
array([[-0.63212055,  2.        ],
       [-0.31606027,  2.        ]], dtype=float32)
"""
cimport numpy as cnp
from libc.stdint cimport uint64_t
from numpy cimport ndarray

from elufast._core cimport BF16, BIAS, CODES, F16, F32, F64, GRAD, OPERANDS, OUT, X, Plan, dtype_of, plan, run
from elufast._elu cimport *

import os
from _thread import allocate_lock
from contextlib import suppress

from elufast import _docs, _core

cdef extern from "<fenv.h>" nogil:
    const int FE_ALL_EXCEPT
    int feclearexcept(int exceptions)

cdef extern from "numpy/ufuncobject.h":  # what cnp.ufunc lacks
    ctypedef int (*Resolver "PyUFunc_TypeResolutionFunc *")(
        UFunc* ufunc, cnp.NPY_CASTING casting, cnp.PyArrayObject** operands, object types, cnp.PyArray_Descr** found
    ) except -1
    ctypedef struct UFunc "PyUFuncObject":
        int nargs
        Resolver type_resolver

cnp.import_array()
cnp.import_ufunc()

__all__ = [f"{family}{mode}" for family in ("elu", "selu", "celu") for mode in ("", "_backward", "_from_output")]

cdef struct Function:  # of one dtype
    Family family
    Mode mode
    int code

cdef Function functions[9][CODES]
cdef cnp.PyUFuncGenericFunction inner = <cnp.PyUFuncGenericFunction> loop
cdef cnp.PyUFuncGenericFunction loops[CODES]
loops[:] = [inner, inner, inner, inner]
cdef void* data_of[9][CODES]  # in the order in which NumPy looks for a loop that takes the operands

# In the place of x for an alpha that the function does not take: all bits set are a NaN in every dtype.
cdef uint64_t nan = 0xffffffffffffffff


cdef void loop(char** data, const cnp.npy_intp* dimensions, const cnp.npy_intp* strides, void* which) noexcept nogil:
    """A stretch of elements for each alpha: the usual one has stride 0."""
    cdef Function f = (<Function*> which)[0]
    cdef int k = f.mode != DO_FORWARD  # the operand that is x
    cdef bint alphas = f.family != SELU
    cdef int out = k + alphas + 1
    cdef ptrdiff_t n = dimensions[0], start = 0, stop, length, still = 0, step = strides[k + 1] if alphas else 0
    cdef double alpha = 1
    cdef Plan p
    cdef char* at[OPERANDS]
    cdef const ptrdiff_t* steps[OPERANDS]
    at[BIAS] = NULL
    steps[GRAD], steps[OUT] = <const ptrdiff_t*> &strides[0], <const ptrdiff_t*> &strides[out]
    while start < n:
        stop = start + 1 if step else n
        if alphas:
            alpha = (<double*> (data[k + 1] + start * step))[0]
            while stop < n and (<double*> (data[k + 1] + stop * step))[0] == alpha:
                stop += 1
        at[X], steps[X] = data[k] + start * strides[k], <const ptrdiff_t*> &strides[k]
        at[GRAD], at[OUT] = data[0] + start * strides[0], data[out] + start * strides[out]  # forward grad is x
        if elu_takes(f.family, f.mode, alpha):
            plan(&p, f.family, f.mode, alpha, f.code)
        else:
            plan(&p, ELU, DO_FORWARD, 1, f.code)
            at[X], steps[X] = <char*> &nan, &still
        length = stop - start
        run(&p, 1, &length, at, steps, 1)
        start = stop
    feclearexcept(FE_ALL_EXCEPT)  # NumPy would warn of what the formulas select away at their end


cdef Resolver numpys = NULL
cdef object learning = allocate_lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=learning._at_fork_reinit)


cdef int resolve(
    UFunc* ufunc, cnp.NPY_CASTING casting, cnp.PyArrayObject** operands, object types, cnp.PyArray_Descr** found
) except -1:
    """NumPy's own, once bfloat16 is known if it is among the operands: nothing tells when ml_dtypes is imported."""
    cdef int k
    if dtype_of(BF16) == NULL:
        for k in range(ufunc.nargs):
            if operands[k] != NULL:
                learn((<ndarray> operands[k]).dtype)
    return numpys(ufunc, casting, operands, types, found)


def learn(dtype) -> bool:
    """Whether this is bfloat16, of ml_dtypes, whose arrays are computed from now on."""
    cdef int types[4]
    cdef int i, k, inputs
    if dtype.type.__name__ != "bfloat16" or dtype.type.__module__ != "ml_dtypes":
        return False
    if dtype_of(BF16) != NULL:
        return True
    with learning:
        if dtype_of(BF16) == NULL:
            for i, name in enumerate(__all__):
                ufunc = globals()[name]
                inputs = ufunc.nin
                for k in range(inputs + 1):
                    types[k] = dtype.num
                if functions[i][0].family != SELU:
                    types[inputs - 1] = cnp.NPY_FLOAT64
                cnp.PyUFunc_RegisterLoopForType(<cnp.ufunc> ufunc, types[0], inner, types, &functions[i][BF16])
            _core.learn_bfloat16(dtype)  # last: who sees it calls these loops
    return True


cdef object make(int i, str name):
    """The ufunc. What it is made of lives as long as the module."""
    global numpys
    cdef int k, code
    cdef Family family = <Family> (i // 3)
    cdef Mode mode = <Mode> (i % 3)
    inputs = (mode != DO_FORWARD) + 1
    types = bytes([TYPENUMS[c] for x in "efd" for c in x * inputs + "d" * (family != SELU) + x])
    encoded, text = name.encode(), _docs.ufunc(name).encode()
    kept.extend((types, encoded, text))
    for k, code in enumerate((F16, F32, F64, BF16)):
        functions[i][code] = Function(family, mode, code)
        data_of[i][k] = &functions[i][code]
    ufunc = cnp.PyUFunc_FromFuncAndData(loops, data_of[i], types, 3, inputs + (family != SELU), 1, -1, encoded, text, 0)
    numpys = (<UFunc*> ufunc).type_resolver
    (<UFunc*> ufunc).type_resolver = resolve
    with suppress(AttributeError):  # of a NumPy whose ufuncs have none: pickle looks for a module that has it
        ufunc.__module__ = "elufast.ufuncs"
    return ufunc


TYPENUMS = {"e": cnp.NPY_FLOAT16, "f": cnp.NPY_FLOAT32, "d": cnp.NPY_FLOAT64}
kept = []
for i, name in enumerate(__all__):
    globals()[name] = make(i, name)
