"""The kernels of the level chosen at import as C functions: for Cython through ``__init__.pxd``, for Numba by address.

Each works on n contiguous elements in the thread that calls it and needs no GIL. ``out`` may be an
input itself, but must not overlap one otherwise.
"""
from cpython.pycapsule cimport PyCapsule_GetPointer

from elufast._elu cimport *

from elufast._dispatch import loops

cdef elu_kernel_t* kernels_f32 = <elu_kernel_t*> PyCapsule_GetPointer(loops.kernels[0], NULL)
cdef elu_kernel_t* kernels_f64 = <elu_kernel_t*> PyCapsule_GetPointer(loops.kernels[1], NULL)


cdef int refuse(Family family, Mode mode, double alpha) except -1 with gil:
    name = "celu" if family == CELU else "elu"
    if mode != DO_FORWARD:
        name += "_backward"
    needs = "finite and, from the output, positive" if mode == DO_FROM_OUTPUT else "finite"
    if family == CELU and mode != DO_FROM_OUTPUT:
        needs += " and not 0"
    raise ValueError(f"{name}_array: alpha must be {needs}, got {alpha!r}; pass such a number")


cdef int run(
    Family family, Mode mode, const real* grad, const real* x, real* out, ptrdiff_t n, double alpha
) except -1 nogil:
    cdef elu_params_t s
    cdef uint64_t fp_mode
    cdef int op
    if not elu_takes(family, mode, alpha):
        return refuse(family, mode, alpha)
    fp_mode = elu_enter()
    op = elu_prepare(family, mode, alpha, real is float, &s)
    (kernels_f32 if real is float else kernels_f64)[op](x, grad, out, n, &s)
    elu_leave(fp_mode)
    return 0


cdef int elu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil:
    return run(ELU, DO_FORWARD, x, x, out, n, alpha)


cdef int selu_array(const real* x, real* out, ptrdiff_t n) except -1 nogil:
    return run(SELU, DO_FORWARD, x, x, out, n, 1)


cdef int celu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil:
    return run(CELU, DO_FORWARD, x, x, out, n, alpha)


cdef int elu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil:
    return run(ELU, DO_FROM_OUTPUT if from_output else DO_BACKWARD, grad, x, out, n, alpha)


cdef int selu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, bint from_output
) except -1 nogil:
    return run(SELU, DO_FROM_OUTPUT if from_output else DO_BACKWARD, grad, x, out, n, 1)


cdef int celu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil:
    return run(CELU, DO_FROM_OUTPUT if from_output else DO_BACKWARD, grad, x, out, n, alpha)
