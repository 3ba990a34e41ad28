"""The loops, compiled once for each instruction-set level as ``elufast._loops_<level>``.

Point function (``_elu.h``, ``_half.h``) -> kernel: a plain loop over typed slices, written once for all families and
dtypes, that the compiler vectorizes for each. ``loops`` hands them to ``_core``.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint16_t, uint32_t

from elufast._elu cimport *

cdef extern from *:
    """
    /* Over memory that somebody else owns: None as a slice's owner is never counted. */
    #define elu_slice(p, n) \\
        ((__Pyx_memviewslice){(struct __pyx_memoryview_obj *)Py_None, (char *)(p), {(n)}, {sizeof(*(p))}, {-1}})
    /* Of the type of x, float or double. size is that of a family: a constant, so that one formula is left. */
    #define elu_forward(size, x, s) \\
        _Generic((x), float: ELU_PICK((size) - 1, forward, f32, x, s), double: ELU_PICK((size) - 1, forward, f64, x, s))
    #define elu_moderate(size, grad, x, s) \\
        _Generic((x), float: ELU_PICK((size) - 1, moderate, f32, grad, x, s), \\
                      double: ELU_PICK((size) - 1, moderate, f64, grad, x, s))
    #define elu_backward(size, grad, x, s) \\
        _Generic((x), float: ELU_BACKWARD_OF((size) - 1, f32, grad, x, s), \\
                      double: ELU_BACKWARD_OF((size) - 1, f64, grad, x, s))
    #define elu_note(noted, x, ...) _Generic((x), float: elu_note_f32, double: elu_note_f64)(noted, x, __VA_ARGS__)
    """
    const float[::1] in_f32 "elu_slice"(const float* p, Py_ssize_t n) noexcept nogil
    const double[::1] in_f64 "elu_slice"(const double* p, Py_ssize_t n) noexcept nogil
    const uint16_t[::1] in_u16 "elu_slice"(const uint16_t* p, Py_ssize_t n) noexcept nogil
    float[::1] out_f32 "elu_slice"(float* p, Py_ssize_t n) noexcept nogil
    double[::1] out_f64 "elu_slice"(double* p, Py_ssize_t n) noexcept nogil
    uint16_t[::1] out_u16 "elu_slice"(uint16_t* p, Py_ssize_t n) noexcept nogil
    # Macros, which take a float as such although Cython is told of doubles.
    double elu_forward(size_t size, double x, elu_params_t s) noexcept nogil
    double elu_moderate(size_t size, double grad, double x, elu_params_t s) noexcept nogil
    double elu_backward(size_t size, double grad, double x, elu_params_t s) noexcept nogil
    elu_noted_t elu_note(elu_noted_t noted, double x, double grad, double low, bint large) noexcept nogil

ctypedef fused real:
    float
    double

cdef:  # a family is a type, of an argument that nobody reads: a struct of its number's size and one
    struct elu_unit:
        char size[ELU_UNIT + 1]
    struct elu_alpha:
        char size[ELU_ALPHA + 1]
    struct elu_selu:
        char size[ELU_SELU + 1]
    struct elu_celu:
        char size[ELU_CELU + 1]
    struct elu_any:
        char size[ELU_ANY + 1]
    struct elu_exact:
        char size[ELU_EXACT + 1]
    struct elu_output:
        char size[ELU_OUTPUT + 1]
    struct elu_output_any:
        char size[ELU_OUTPUT_ANY + 1]

ctypedef fused family:
    elu_unit
    elu_alpha
    elu_selu
    elu_celu
    elu_any
    elu_exact

ctypedef fused slope:
    family
    elu_output
    elu_output_any

cdef enum:
    BLOCK = 4096  # bytes
    SHORT_BLOCK = 1024  # where more than NEAR is read: memory idles while a longer one is computed
    NEAR = 262144
    GROUP = 16  # elements


# Kernels: x and a second operand (a bias, or NULL; grad) # IN, out # OUT, of n elements; out may be an input itself.

cdef void forward(
    const real* x_, const real* bias_, real* out_, Py_ssize_t n, const elu_params_t* p, const family* kind
) noexcept nogil:
    cdef const real[::1] x, bias
    cdef real[::1] out
    cdef elu_params_t s = p[0]
    cdef Py_ssize_t i
    if real is float:
        x, bias, out = in_f32(x_, n), in_f32(bias_, n), out_f32(out_, n)
    else:
        x, bias, out = in_f64(x_, n), in_f64(bias_, n), out_f64(out_, n)
    if bias_ != NULL:
        for i in range(n):
            out[i] = elu_forward(sizeof(family), x[i] + bias[i], s)
        return
    for i in range(n):
        out[i] = elu_forward(sizeof(family), x[i], s)


# Where the formula has a moderate form a block of moderate elements takes that, another the one for all. It is tried
# first, or, in place and after a block that held an extreme element, looked for first.
cdef void backward(
    const real* x_, const real* grad_, real* out_, Py_ssize_t n, const elu_params_t* p, const slope* kind
) noexcept nogil:
    cdef const real[::1] x, grad
    cdef real[::1] out
    cdef elu_params_t s = p[0]
    cdef bint large = slope is elu_unit or slope is elu_celu, in_place = out_ == x_ or out_ == grad_, look = in_place
    cdef Py_ssize_t i, size, start = 0, block
    cdef elu_noted_t noted
    cdef real low = ELU_LOW32 if real is float else ELU_LOW64
    cdef real group[GROUP]
    if real is float:
        x, grad, out = in_f32(x_, n), in_f32(grad_, n), out_f32(out_, n)
    else:
        x, grad, out = in_f64(x_, n), in_f64(grad_, n), out_f64(out_, n)
    if slope is elu_unit or slope is elu_alpha or slope is elu_selu or slope is elu_celu:
        block = (SHORT_BLOCK if n * <Py_ssize_t> sizeof(real) > NEAR else BLOCK) // sizeof(real)
        if slope is elu_celu:
            low = <real> (low * s.a_hi)
        while start < n:
            size = min(n - start, block)
            noted = elu_noted_t(0, 0, 0, 0)
            if not look:
                for i in range(size):
                    noted = elu_note(noted, x[start + i], grad[start + i], low, large)
                    out[start + i] = elu_moderate(sizeof(slope), grad[start + i], x[start + i], s)
                look = elu_extreme(noted, low, large)
                if look:
                    continue
            else:
                for i in range(size):
                    noted = elu_note(noted, x[start + i], grad[start + i], low, large)
                look = elu_extreme(noted, low, large)
                if look:
                    for i in range(size):
                        out[start + i] = elu_backward(sizeof(slope), grad[start + i], x[start + i], s)
                else:
                    for i in range(size):
                        out[start + i] = elu_moderate(sizeof(slope), grad[start + i], x[start + i], s)
                look = look or in_place
            start += size
    else:
        if slope is elu_output:  # memory is the limit: some elements are read before they are written
            while start + GROUP <= n:
                for i in range(GROUP):
                    group[i] = elu_backward(sizeof(slope), grad[start + i], x[start + i], s)
                for i in range(GROUP):
                    out[start + i] = group[i]
                start += GROUP
        for i in range(start, n):
            out[i] = elu_backward(sizeof(slope), grad[i], x[i], s)


# What goes before and after a kernel. A bias is added before backward only.

cdef void add(const real* x_, const real* bias_, real* out_, Py_ssize_t n) noexcept nogil:
    cdef const real[::1] x, bias
    cdef real[::1] out
    cdef Py_ssize_t i
    if real is float:
        x, bias, out = in_f32(x_, n), in_f32(bias_, n), out_f32(out_, n)
    else:
        x, bias, out = in_f64(x_, n), in_f64(bias_, n), out_f64(out_, n)
    for i in range(n):
        out[i] = x[i] + bias[i]


cdef void load_bf16(const uint16_t* x_, float* out_, Py_ssize_t n) noexcept nogil:
    cdef const uint16_t[::1] x = in_u16(x_, n)
    cdef float[::1] out = out_f32(out_, n)
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = elu_from_bf16(x[i])


# Stores tell whether a float was the middle of two halves, and so may be on the wrong side. sums: those above 0, which
# are sums of x and a bias or x itself, are what they should be. even: such a float is rounded to even, else up. again:
# look closely.

cdef bint store_f16(const float* y_, uint16_t* out_, Py_ssize_t n, bint sums, bint even, bint again) noexcept nogil:
    cdef const float[::1] y = in_f32(y_, n)
    cdef Py_ssize_t i
    cdef uint32_t middle = 0, sign = 0x80000000 if sums else 0
    elu_store_f16(y_, out_, n)
    if again:
        for i in range(n):
            middle |= elu_middle_f16(y[i], sign)
    else:
        for i in range(n):
            middle |= elu_perhaps_middle_f16(y[i], sign)
    return middle != 0


cdef bint store_bf16(const float* y_, uint16_t* out_, Py_ssize_t n, bint sums, bint even, bint again) noexcept nogil:
    cdef const float[::1] y = in_f32(y_, n)
    cdef uint16_t[::1] out = out_u16(out_, n)
    cdef Py_ssize_t i
    cdef uint32_t middle = 0, sign = 0x80000000 if sums else 0
    if even:
        for i in range(n):
            middle |= elu_middle_bf16(y[i], sign)
            out[i] = elu_to_bf16(y[i])
    else:
        for i in range(n):
            middle |= elu_middle_bf16(y[i], sign)
            out[i] = elu_to_bf16_up(y[i])
    return middle != 0


ctypedef elu_kernel_t Kernel
cdef Loops table
# In the order of the kernels' numbers.
table.kernels[0][:] = [
    <Kernel> forward[float, elu_unit], <Kernel> forward[float, elu_alpha], <Kernel> forward[float, elu_selu],
    <Kernel> forward[float, elu_celu], <Kernel> forward[float, elu_any], <Kernel> forward[float, elu_exact],
    <Kernel> backward[float, elu_unit], <Kernel> backward[float, elu_alpha], <Kernel> backward[float, elu_selu],
    <Kernel> backward[float, elu_celu], <Kernel> backward[float, elu_any], <Kernel> backward[float, elu_exact],
    <Kernel> backward[float, elu_output], <Kernel> backward[float, elu_output_any],
]
table.kernels[1][:] = [
    <Kernel> forward[double, elu_unit], <Kernel> forward[double, elu_alpha], <Kernel> forward[double, elu_selu],
    <Kernel> forward[double, elu_celu], <Kernel> forward[double, elu_any], <Kernel> forward[double, elu_exact],
    <Kernel> backward[double, elu_unit], <Kernel> backward[double, elu_alpha], <Kernel> backward[double, elu_selu],
    <Kernel> backward[double, elu_celu], <Kernel> backward[double, elu_any], <Kernel> backward[double, elu_exact],
    <Kernel> backward[double, elu_output], <Kernel> backward[double, elu_output_any],
]
table.outputs[:] = [<Kernel> elu_outputs_f16, <Kernel> elu_outputs_bf16]
table.add[:] = [<elu_add_t> add[float], <elu_add_t> add[double]]
table.load[:] = [<elu_load_t> elu_load_f16, <elu_load_t> load_bf16]
table.store[:] = [<elu_store_t> store_f16, <elu_store_t> store_bf16]
table.one_f32, table.one_f64 = elufast_one_f32, elufast_one_f64

loops = PyCapsule_New(&table, NULL, NULL)
