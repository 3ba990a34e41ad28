cimport numpy as cnp
from libc.stdint cimport uint64_t
from numpy cimport ndarray

from elufast._elu cimport *

cdef enum: F32, F64, F16, BF16, CODES
cdef enum: X, GRAD, BIAS, OUT, OPERANDS

cdef enum:
    MAX_AXES = 64
    KEEP_GIL = 4096  # elements below which releasing the GIL costs more than it gives

cdef struct Plan:  # a function of one alpha and dtype
    elu_kernel_t kernel
    elu_kernel_t exact  # of half precision: where a result is near the middle of two halves
    elu_params_t s
    int op, code
    bint backward
    bint halves  # the kernel takes them as they are
    bint sums  # forward, and x > 0 is the result

cdef struct Walk:  # what a call's threads have in common
    const Plan* plan
    int code[OPERANDS]
    bint plain[OPERANDS]  # aligned and native
    bint swapped[OPERANDS]
    bint biased, stream, fetch_rows
    int axes
    char* data[OPERANDS]
    ptrdiff_t shape[MAX_AXES]
    ptrdiff_t strides[MAX_AXES][OPERANDS]

cdef extern from "_shared.h" nogil:
    int elu_load_int(int* from_) noexcept
    void elu_store_int(int* to, int value) noexcept
    double elu_load_double(double* from_) noexcept
    void elu_store_double(double* to, double value) noexcept
    void* elu_load_pointer(void** from_) noexcept
    void elu_store_pointer(void** to, void* value) noexcept

cdef Loops* loops
cdef cnp.PyArray_Descr* dtypes[CODES]  # native ones, by code: dtype_of reads them
cdef int typenums[CODES]


cdef inline cnp.PyArray_Descr* dtype_of(int code) noexcept nogil:
    """NULL for bfloat16 that is not known. Who sees it sees what goes with it too."""
    return <cnp.PyArray_Descr*> elu_load_pointer(<void**> &dtypes[code])


cdef inline ptrdiff_t itemsize(int code) noexcept nogil:
    return 8 if code == F64 else 4 if code == F32 else 2


cdef inline ptrdiff_t elements(ndarray a) noexcept:
    """PyArray_SIZE, without a call of NumPy."""
    cdef ptrdiff_t n = 1
    cdef int i
    for i in range(cnp.PyArray_NDIM(a)):
        n *= cnp.PyArray_DIM(a, i)
    return n


cdef inline void choose(Plan* p, int op, int code) noexcept nogil:
    p.op, p.code, p.backward = op, code, op >= ELU_BACKWARD
    p.sums = not p.backward and p.s.s_hi == 1 and p.s.a_hi > 0
    p.kernel = loops.kernels[code == F64][op]
    p.exact, p.halves = NULL, code >= F16 and op == ELU_FROM_OUTPUT
    if p.halves:
        p.kernel = loops.outputs[code - F16]
    if code >= F16 and op < ELU_FROM_OUTPUT:
        p.exact = loops.kernels[0][ELU_EXACT + (ELU_BACKWARD if p.backward else 0)]


cdef inline void plan(Plan* p, Family family, Mode mode, double alpha, int code) noexcept nogil:
    """What a function of this alpha, which it takes, is for this dtype; where it is computed in the default mode."""
    cdef uint64_t fp_mode
    cdef int op
    if family != CELU and not elu_far_alpha(alpha):  # apart, so that it is inlined: 30 instructions of a call's 450
        op = elu_prepare(family, mode, alpha, code != F64, &p.s)
    else:
        fp_mode = elu_enter()
        op = elu_prepare(family, mode, alpha, code != F64, &p.s)
        elu_leave(fp_mode)
    choose(p, op, code)


cdef inline bint at_once(const Plan* p, ndarray x, ndarray grad, ndarray out) noexcept:
    """Whether it was done: few elements, all plain and C-contiguous."""
    cdef ptrdiff_t n = elements(out)
    cdef const char* second = cnp.PyArray_BYTES(grad) if p.backward else NULL
    cdef uint64_t mode
    if n > KEEP_GIL or p.code >= F16:
        return False
    mode = elu_enter()
    p.kernel(cnp.PyArray_BYTES(x), second, cnp.PyArray_BYTES(out), n, &p.s, NULL)
    elu_leave(mode)
    return True


cdef void run(
    const Plan* p, int axes, const ptrdiff_t* shape, char** data, const ptrdiff_t** strides, ptrdiff_t unit
) noexcept nogil
cdef int compute(const Plan* p, ndarray x, ndarray grad, ndarray bias, ndarray out, int asked, bint flat) except -1
cdef ndarray new(ndarray a, ndarray grad, int code, bint flat)
