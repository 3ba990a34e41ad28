"""The kernels of the level chosen at import as C functions: for Cython through ``__init__.pxd``, for Numba by address.

Each works in the thread that calls it, in the default floating-point mode, and needs no GIL. ``out`` may be an input
itself, but must not overlap one otherwise.
"""
from libc.stdint cimport int64_t, uint64_t

from elufast._core cimport (
    BIAS, F32, F64, GRAD, MAX_AXES, OPERANDS, OUT, X, Plan, itemsize, loops, plan, plan_scalars, run as run_plan,
    run_strided,
)
from elufast._elu cimport *


cdef int refuse(Family family, Mode mode, double alpha) except -1 with gil:
    name = "celu" if family == CELU else "elu"
    if mode != DO_FORWARD:
        name += "_backward"
    needs = "finite and, from the output, positive" if mode == DO_FROM_OUTPUT else "finite"
    if family == CELU and mode != DO_FROM_OUTPUT:
        needs += " and not 0"
    raise ValueError(f"{name}_array: alpha must be {needs}, got {alpha!r}; pass such a number")


cdef int run(
    Family family, Mode mode, int code, const void* grad, const void* x, void* out, ptrdiff_t n, double alpha
) except -1 nogil:
    cdef Plan p
    cdef ptrdiff_t size = itemsize(code)
    if not elu_takes(family, mode, alpha):
        return refuse(family, mode, alpha)
    if mode == DO_FORWARD:
        grad = NULL
    plan(&p, family, mode, alpha, code)
    run_plan(&p, <const char*> x, size, <const char*> grad, size, <char*> out, size, n)
    return 0


cdef bint takes(Family family, Mode mode, double alpha) noexcept nogil:
    """Out of reach of a caller's -ffast-math, which would fold it."""
    return elu_takes(family, mode, alpha)


cdef float number_f32(Family family, Mode mode, float grad, float x, double alpha) noexcept nogil:
    cdef uint64_t fp_mode = elu_enter()
    cdef float y = loops.one_f32(family, mode, grad, x, alpha)
    elu_leave(fp_mode)
    return y


cdef double number_f64(Family family, Mode mode, double grad, double x, double alpha) noexcept nogil:
    cdef uint64_t fp_mode = elu_enter()
    cdef double y = loops.one_f64(family, mode, grad, x, alpha)
    elu_leave(fp_mode)
    return y


cdef void strided(
    Family family, Mode mode, int code, double alpha, int axes, const ptrdiff_t* shape, char** data,
    const ptrdiff_t** strides,
) noexcept nogil:
    """Operands of one shape, in the order of _core.pxd, that are valid: NULL for what there is not."""
    cdef Plan p
    plan(&p, family, mode, alpha, code)
    run_strided(&p, axes, shape, data, strides)


cdef int typed(
    Family family, Mode mode, const real* grad, const real* x, real* out, ptrdiff_t n, double alpha
) except -1 nogil:
    return run(family, mode, F32 if real is float else F64, grad, x, out, n, alpha)


cdef int elu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil:
    return typed(ELU, DO_FORWARD, x, x, out, n, alpha)


cdef int selu_array(const real* x, real* out, ptrdiff_t n) except -1 nogil:
    return typed(SELU, DO_FORWARD, x, x, out, n, 1)


cdef int celu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil:
    return typed(CELU, DO_FORWARD, x, x, out, n, alpha)


cdef int elu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil:
    return typed(ELU, DO_FROM_OUTPUT if from_output else DO_BACKWARD, grad, x, out, n, alpha)


cdef int selu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, bint from_output
) except -1 nogil:
    return typed(SELU, DO_FROM_OUTPUT if from_output else DO_BACKWARD, grad, x, out, n, 1)


cdef int celu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil:
    return typed(CELU, DO_FROM_OUTPUT if from_output else DO_BACKWARD, grad, x, out, n, alpha)


cdef void tensors(
    int mode, int code, int axes, int unit, double alpha, double scale, double input_scale, const int64_t* shape,
    char** operands, const int64_t** strides,
) noexcept nogil:
    """PyTorch's elu and elu_backward. x, grad (any where there is none) and out are of one shape, with strides of so
    many units of bytes."""
    cdef Plan p
    cdef ptrdiff_t lengths[MAX_AXES]
    cdef ptrdiff_t steps[3][MAX_AXES]
    cdef char* data[OPERANDS]
    cdef const ptrdiff_t* steps_of[OPERANDS]
    cdef int i, k
    if mode == DO_FROM_OUTPUT and alpha == 0:  # y has no y / alpha; x > 0 is all that counts
        mode = DO_BACKWARD
    plan_scalars(&p, <Mode> mode, alpha, scale, input_scale, code)
    data[X], data[GRAD], data[BIAS], data[OUT] = operands[0], operands[1], NULL, operands[2]
    if mode == DO_FORWARD:
        data[GRAD] = NULL
    if axes == 1:
        run_plan(
            &p, data[X], unit * strides[0][0], data[GRAD], unit * strides[1][0], data[OUT], unit * strides[2][0],
            shape[0],
        )
        return
    for i in range(axes):
        lengths[i] = shape[i]
        for k in range(3):
            steps[k][i] = unit * strides[k][i]
    steps_of[X], steps_of[GRAD], steps_of[BIAS], steps_of[OUT] = steps[0], steps[1], NULL, steps[2]
    run_strided(&p, axes, lengths, data, steps_of)


def for_torch() -> int:
    """The address of `tensors`."""
    return <size_t> <void*> tensors
