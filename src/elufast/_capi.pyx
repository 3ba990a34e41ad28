"""The kernels of the level chosen at import as C functions: for Cython through ``__init__.pxd``, for Numba by name.

Each works in the thread that calls it, in the default floating-point mode, and needs no GIL. ``out`` may be an input
itself, but must not overlap one otherwise.
"""
from libc.stdint cimport uint64_t

from elufast._core cimport BIAS, F32, F64, GRAD, OPERANDS, OUT, X, Plan, choose, loops, plan, run as run_plan
from elufast._elu cimport *

from elufast import _api


cdef int refuse(Family family, Mode mode, double alpha) except -1 with gil:
    name = f"{('elu', 'selu', 'celu')[family]}{'_backward' if mode != DO_FORWARD else ''}_array"
    _api.real_alpha(name, alpha, positive=mode == DO_FROM_OUTPUT)
    return 0


cdef int run(
    Family family, Mode mode, const void* grad, const void* x, void* out, ptrdiff_t n, double alpha, ptrdiff_t size
) except -1 nogil:
    cdef Plan p
    cdef char* data[OPERANDS]
    cdef const ptrdiff_t* steps[OPERANDS]
    if not elu_takes(family, mode, alpha):
        return refuse(family, mode, alpha)
    plan(&p, family, mode, alpha, F64 if size == sizeof(double) else F32)
    data[X], data[GRAD], data[BIAS], data[OUT] = <char*> x, <char*> grad, NULL, <char*> out
    steps[X] = steps[GRAD] = steps[OUT] = &size
    run_plan(&p, 1, &n, data, steps, 1)
    return 0


# For Numba, which finds what is `api` by its name.

cdef api bint takes(Family family, Mode mode, double alpha) noexcept nogil:
    """Out of reach of a caller's -ffast-math, which would fold it."""
    return elu_takes(family, mode, alpha)


cdef api float number_f32(Family family, Mode mode, float grad, float x, double alpha) noexcept nogil:
    cdef uint64_t fp_mode = elu_enter()
    cdef float y = loops.one_f32(family, mode, grad, x, alpha)
    elu_leave(fp_mode)
    return y


cdef api double number_f64(Family family, Mode mode, double grad, double x, double alpha) noexcept nogil:
    cdef uint64_t fp_mode = elu_enter()
    cdef double y = loops.one_f64(family, mode, grad, x, alpha)
    elu_leave(fp_mode)
    return y


cdef api void strided(
    Family family, Mode mode, int code, double alpha, int axes, const ptrdiff_t* shape, char** data,
    const ptrdiff_t** strides,
) noexcept nogil:
    """Operands of one shape, in the order of _core.pxd, that are valid: NULL for what there is not."""
    cdef Plan p
    plan(&p, family, mode, alpha, code)
    run_plan(&p, axes, shape, data, strides, 1)


cdef void tensors(
    int mode, int code, int axes, int unit, double alpha, double scale, double input_scale, const ptrdiff_t* shape,
    char** data, const ptrdiff_t** strides,
) noexcept nogil:
    """PyTorch's elu and elu_backward, by the scalars that it has. Without a gradient grad is x, or NULL."""
    cdef Plan p
    cdef uint64_t fp_mode
    if mode == DO_FROM_OUTPUT and alpha == 0:  # y has no y / alpha; x > 0 is all that counts
        mode = DO_BACKWARD
    fp_mode = elu_enter()
    choose(&p, elu_prepare_scalars(alpha, scale, input_scale, <Mode> mode, code != F64, &p.s), code)
    elu_leave(fp_mode)
    run_plan(&p, axes, shape, data, strides, unit)


def for_torch() -> int:
    """The address of `tensors`."""
    return <size_t> <void*> tensors
