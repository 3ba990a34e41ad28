"""The loops, compiled once for each instruction-set level as ``elufast._loops_<level>``.

Point function (``_elu.h``) -> kernel, a plain loop over typed pointers that the compiler vectorizes. ``kernels``
hands them to ``_entry``, which shares arrays out among threads; ``scalars`` hands functions of one number to
compiled callers.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from elufast._elu cimport *

ctypedef fused real:
    float
    double


cdef enum:
    BLOCK = 4096  # bytes
    SHORT_BLOCK = 1024  # in place, and where more than NEAR is read: memory idles while a longer one is computed
    NEAR = 262144
    HELD = 256  # floats or, at most, doubles in a short block


cdef inline ptrdiff_t length(bint in_place, ptrdiff_t size) noexcept nogil:
    return SHORT_BLOCK if in_place or size > NEAR else BLOCK


cdef struct Noted:  # what a block has shown: 0 for what its dtype does not use
    uint32_t x32, large32, small32
    uint64_t x64, grad64


cdef inline bint held_extreme(Noted noted, real low) noexcept nogil:
    return elu_extreme_f32(noted.x32, noted.large32, noted.small32, low) or elu_extreme_f64(noted.x64, noted.grad64)


cdef inline Noted note(Noted noted, real x, real grad, real low, bint large) noexcept nogil:
    if real is double:
        noted.x64 = elu_note_x_f64(noted.x64, x, low)
        noted.grad64 = elu_note_grad_f64(noted.grad64, grad)
    else:
        noted.x32 = elu_note_x_f32(noted.x32, x)
        if large:
            noted.large32 = elu_note_large_f32(noted.large32, grad)
        else:
            noted.small32 = elu_note_small_f32(noted.small32, grad)
    return noted


# Each kernel: x and grad # IN, out # OUT, of n elements; out may be x or grad itself. Those of backward try the formula
# for moderate elements on a block, or, after a block that held an extreme one, the formula for all.

cdef void forward_unit(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_forward_unit_f32(x[i], s)
        else:
            out[i] = elu_forward_unit_f64(x[i], s)


cdef void backward_unit(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef real held[HELD]
    cdef bint in_place = out == x or out == grad
    cdef ptrdiff_t i, size, block = length(in_place, n * sizeof(real)) // sizeof(real)
    cdef real* to
    cdef Noted noted
    cdef bint extreme = False
    cdef real low = ELU_LOW32 if real is float else ELU_LOW64
    while n > 0:
        size = min(n, block)
        if not extreme:
            to = &held[0] if in_place else out
            noted = Noted(0, 0, 0, 0, 0)
            for i in range(size):
                noted = note(noted, x[i], grad[i], low, True)
                if real is float:
                    to[i] = elu_moderate_unit_f32(grad[i], x[i], s)
                else:
                    to[i] = elu_moderate_unit_f64(grad[i], x[i], s)
            extreme = held_extreme(noted, low)
            if in_place and not extreme:
                memcpy(out, to, size * sizeof(real))
        if extreme:
            noted = Noted(0, 0, 0, 0, 0)
            for i in range(size):
                noted = note(noted, x[i], grad[i], low, True)
                if real is float:
                    out[i] = elu_backward_unit_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_backward_unit_f64(grad[i], x[i], s)
            extreme = held_extreme(noted, low)
        x, grad, out, n = x + size, grad + size, out + size, n - size


cdef void forward_alpha(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_forward_alpha_f32(x[i], s)
        else:
            out[i] = elu_forward_alpha_f64(x[i], s)


cdef void backward_alpha(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef real held[HELD]
    cdef bint in_place = out == x or out == grad
    cdef ptrdiff_t i, size, block = length(in_place, n * sizeof(real)) // sizeof(real)
    cdef real* to
    cdef Noted noted
    cdef bint extreme = False
    cdef real low = ELU_LOW32 if real is float else ELU_LOW64
    while n > 0:
        size = min(n, block)
        if not extreme:
            to = &held[0] if in_place else out
            noted = Noted(0, 0, 0, 0, 0)
            for i in range(size):
                noted = note(noted, x[i], grad[i], low, False)
                if real is float:
                    to[i] = elu_moderate_alpha_f32(grad[i], x[i], s)
                else:
                    to[i] = elu_moderate_alpha_f64(grad[i], x[i], s)
            extreme = held_extreme(noted, low)
            if in_place and not extreme:
                memcpy(out, to, size * sizeof(real))
        if extreme:
            noted = Noted(0, 0, 0, 0, 0)
            for i in range(size):
                noted = note(noted, x[i], grad[i], low, False)
                if real is float:
                    out[i] = elu_backward_alpha_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_backward_alpha_f64(grad[i], x[i], s)
            extreme = held_extreme(noted, low)
        x, grad, out, n = x + size, grad + size, out + size, n - size


cdef void forward_selu(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_forward_selu_f32(x[i], s)
        else:
            out[i] = elu_forward_selu_f64(x[i], s)


cdef void backward_selu(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef real held[HELD]
    cdef bint in_place = out == x or out == grad
    cdef ptrdiff_t i, size, block = length(in_place, n * sizeof(real)) // sizeof(real)
    cdef real* to
    cdef Noted noted
    cdef bint extreme = False
    cdef real low = ELU_LOW32 if real is float else ELU_LOW64
    while n > 0:
        size = min(n, block)
        if not extreme:
            to = &held[0] if in_place else out
            noted = Noted(0, 0, 0, 0, 0)
            for i in range(size):
                noted = note(noted, x[i], grad[i], low, False)
                if real is float:
                    to[i] = elu_moderate_selu_f32(grad[i], x[i], s)
                else:
                    to[i] = elu_moderate_selu_f64(grad[i], x[i], s)
            extreme = held_extreme(noted, low)
            if in_place and not extreme:
                memcpy(out, to, size * sizeof(real))
        if extreme:
            noted = Noted(0, 0, 0, 0, 0)
            for i in range(size):
                noted = note(noted, x[i], grad[i], low, False)
                if real is float:
                    out[i] = elu_backward_selu_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_backward_selu_f64(grad[i], x[i], s)
            extreme = held_extreme(noted, low)
        x, grad, out, n = x + size, grad + size, out + size, n - size


cdef void forward_celu(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_forward_celu_f32(x[i], s)
        else:
            out[i] = elu_forward_celu_f64(x[i], s)


cdef void backward_celu(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef real held[HELD]
    cdef bint in_place = out == x or out == grad
    cdef ptrdiff_t i, size, block = length(in_place, n * sizeof(real)) // sizeof(real)
    cdef real* to
    cdef Noted noted
    cdef bint extreme = False
    cdef real low = elu_low_celu_f32(s) if real is float else elu_low_celu_f64(s)
    while n > 0:
        size = min(n, block)
        if not extreme:
            to = &held[0] if in_place else out
            noted = Noted(0, 0, 0, 0, 0)
            for i in range(size):
                noted = note(noted, x[i], grad[i], low, True)
                if real is float:
                    to[i] = elu_moderate_celu_f32(grad[i], x[i], s)
                else:
                    to[i] = elu_moderate_celu_f64(grad[i], x[i], s)
            extreme = held_extreme(noted, low)
            if in_place and not extreme:
                memcpy(out, to, size * sizeof(real))
        if extreme:
            noted = Noted(0, 0, 0, 0, 0)
            for i in range(size):
                noted = note(noted, x[i], grad[i], low, True)
                if real is float:
                    out[i] = elu_backward_celu_f32(grad[i], x[i], s)
                else:
                    out[i] = elu_backward_celu_f64(grad[i], x[i], s)
            extreme = held_extreme(noted, low)
        x, grad, out, n = x + size, grad + size, out + size, n - size


cdef void forward_any(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_forward_any_f32(x[i], s)
        else:
            out[i] = elu_forward_any_f64(x[i], s)


cdef void backward_any(const real* x, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
    cdef ptrdiff_t i
    for i in range(n):
        if real is float:
            out[i] = elu_backward_any_f32(grad[i], x[i], s)
        else:
            out[i] = elu_backward_any_f64(grad[i], x[i], s)


cdef void from_output(const real* y, const real* grad, real* out, ptrdiff_t n, const elu_params_t* p) noexcept nogil:
    cdef elu_params_t s = p[0]
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
    <elu_kernel_t> forward_selu[float], <elu_kernel_t> forward_celu[float], <elu_kernel_t> forward_any[float],
    <elu_kernel_t> backward_unit[float], <elu_kernel_t> backward_alpha[float],
    <elu_kernel_t> backward_selu[float], <elu_kernel_t> backward_celu[float], <elu_kernel_t> backward_any[float],
    <elu_kernel_t> from_output[float],
]
kernels_f64[:] = [
    <elu_kernel_t> forward_unit[double], <elu_kernel_t> forward_alpha[double],
    <elu_kernel_t> forward_selu[double], <elu_kernel_t> forward_celu[double], <elu_kernel_t> forward_any[double],
    <elu_kernel_t> backward_unit[double], <elu_kernel_t> backward_alpha[double],
    <elu_kernel_t> backward_selu[double], <elu_kernel_t> backward_celu[double], <elu_kernel_t> backward_any[double],
    <elu_kernel_t> from_output[double],
]

kernels = (PyCapsule_New(kernels_f32, NULL, NULL), PyCapsule_New(kernels_f64, NULL, NULL))


cdef float scalar_f32(Family family, Mode mode, float grad, float x, double alpha) noexcept nogil:
    return elufast_one_f32(family, mode, grad, x, alpha)


cdef double scalar_f64(Family family, Mode mode, double grad, double x, double alpha) noexcept nogil:
    return elufast_one_f64(family, mode, grad, x, alpha)


scalars = (PyCapsule_New(<void*> scalar_f32, NULL, NULL), PyCapsule_New(<void*> scalar_f64, NULL, NULL))
