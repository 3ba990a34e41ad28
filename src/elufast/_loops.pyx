"""The loops, compiled once for each instruction-set level as ``elufast._loops_<level>``.

Point function (``_elu.h``) -> kernel, a plain loop that the compiler vectorizes -> ``run``, which
shares contiguous memoryviews out among threads. ``kernels`` hands the same kernels, by pointer, to
``_entry``.
"""
from cpython.pycapsule cimport PyCapsule_New
from cython.parallel cimport prange

from libc.stdint cimport uint32_t, uint64_t

from elufast._elu cimport *

ctypedef fused real:
    float
    double


cdef enum:
    BLOCK = 1024


cdef bint moderate(const real* x, const real* grad, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i
    cdef uint32_t extreme_f32 = 0
    cdef uint64_t extreme_f64 = 0
    for i in range(n):
        if real is float:
            extreme_f32 |= elu_extreme_f32(x[i], grad[i])
        else:
            extreme_f64 |= elu_extreme_f64(x[i], grad[i], s)
    return extreme_f32 == 0 and extreme_f64 == 0


# Each kernel: x and grad # IN, out # OUT, of n elements; out may be x or grad itself.

cdef void forward_unit(const real* x, const real* grad, real* out, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_forward_unit_f32(x[i], s)
        else:
            out[i] = elu_forward_unit_f64(x[i], s)


cdef void backward_unit(const real* x, const real* grad, real* out, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i, start = 0, stop
    while start < n:
        stop = min(start + BLOCK, n)
        if moderate(&x[start], &grad[start], stop - start, s):
            for i in range(start, stop):
                if real is float:
                    out[i] = elu_moderate_unit_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_moderate_unit_f64(grad[i], x[i], s)
        else:
            for i in range(start, stop):
                if real is float:
                    out[i] = elu_backward_unit_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_backward_unit_f64(grad[i], x[i], s)
        start = stop


cdef void forward_alpha(const real* x, const real* grad, real* out, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_forward_alpha_f32(x[i], s)
        else:
            out[i] = elu_forward_alpha_f64(x[i], s)


cdef void backward_alpha(const real* x, const real* grad, real* out, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i, start = 0, stop
    while start < n:
        stop = min(start + BLOCK, n)
        if moderate(&x[start], &grad[start], stop - start, s):
            for i in range(start, stop):
                if real is float:
                    out[i] = elu_moderate_alpha_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_moderate_alpha_f64(grad[i], x[i], s)
        else:
            for i in range(start, stop):
                if real is float:
                    out[i] = elu_backward_alpha_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_backward_alpha_f64(grad[i], x[i], s)
        start = stop


cdef void forward_selu(const real* x, const real* grad, real* out, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_forward_selu_f32(x[i], s)
        else:
            out[i] = elu_forward_selu_f64(x[i], s)


cdef void backward_selu(const real* x, const real* grad, real* out, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i, start = 0, stop
    while start < n:
        stop = min(start + BLOCK, n)
        if moderate(&x[start], &grad[start], stop - start, s):
            for i in range(start, stop):
                if real is float:
                    out[i] = elu_moderate_selu_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_moderate_selu_f64(grad[i], x[i], s)
        else:
            for i in range(start, stop):
                if real is float:
                    out[i] = elu_backward_selu_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_backward_selu_f64(grad[i], x[i], s)
        start = stop


cdef void forward_any(const real* x, const real* grad, real* out, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_forward_any_f32(x[i], s)
        else:
            out[i] = elu_forward_any_f64(x[i], s)


cdef void backward_any(const real* x, const real* grad, real* out, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_backward_any_f32(grad[i], x[i], s)
        else:
            out[i] = elu_backward_any_f64(grad[i], x[i], s)


cdef void from_output(const real* y, const real* grad, real* out, ptrdiff_t n, elu_params_t s) noexcept nogil:
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_from_output_f32(grad[i], y[i], s)
        else:
            out[i] = elu_from_output_f64(grad[i], y[i], s)


cdef elu_kernel_t kernels_f32[ELU_KERNELS]
cdef elu_kernel_t kernels_f64[ELU_KERNELS]

kernels_f32[:] = [
    <elu_kernel_t> forward_unit[float], <elu_kernel_t> forward_alpha[float],
    <elu_kernel_t> forward_selu[float], <elu_kernel_t> forward_any[float],
    <elu_kernel_t> backward_unit[float], <elu_kernel_t> backward_alpha[float],
    <elu_kernel_t> backward_selu[float], <elu_kernel_t> backward_any[float],
    <elu_kernel_t> from_output[float],
]
kernels_f64[:] = [
    <elu_kernel_t> forward_unit[double], <elu_kernel_t> forward_alpha[double],
    <elu_kernel_t> forward_selu[double], <elu_kernel_t> forward_any[double],
    <elu_kernel_t> backward_unit[double], <elu_kernel_t> backward_alpha[double],
    <elu_kernel_t> backward_selu[double], <elu_kernel_t> backward_any[double],
    <elu_kernel_t> from_output[double],
]

kernels = (PyCapsule_New(kernels_f32, NULL, NULL), PyCapsule_New(kernels_f64, NULL, NULL))


cdef void share(
    elu_kernel_t kernel, const real[::1] x, const real[::1] grad, real[::1] out,
    elu_params_t s, int num_threads, bint stream,
) noexcept nogil:
    # A cache line is 64 bytes: no two threads write into the same one of an aligned array.
    cdef ptrdiff_t n = out.shape[0]
    cdef ptrdiff_t line = 64 // <ptrdiff_t> sizeof(real)
    cdef ptrdiff_t each = (n // num_threads + line) // line * line
    cdef ptrdiff_t start
    for start in prange(0, n, each, num_threads=num_threads, schedule="static"):
        elu_span(
            kernel, <const char*> &x[start], <const char*> &grad[start], <char*> &out[start],
            min(each, n - start), sizeof(real), s, stream,
        )


def run_f32(
    int op, const float[::1] x, const float[::1] grad, float[::1] out, s, int num_threads, bint stream
):
    """Kernel ``op`` over contiguous float32, shared out among ``num_threads`` threads."""
    cdef elu_params_t params = s
    with nogil:
        share(kernels_f32[op], x, grad, out, params, num_threads, stream)


def run_f64(
    int op, const double[::1] x, const double[::1] grad, double[::1] out, s, int num_threads, bint stream
):
    """Kernel ``op`` over contiguous float64, shared out among ``num_threads`` threads."""
    cdef elu_params_t params = s
    with nogil:
        share(kernels_f64[op], x, grad, out, params, num_threads, stream)
