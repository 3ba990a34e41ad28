from elufast._elu cimport *

ctypedef fused real:
    float
    double

# n elements of `size` bytes, floats or doubles; forward grad is NULL.
cdef int run(
    Family family, Mode mode, const void* grad, const void* x, void* out, ptrdiff_t n, double alpha, ptrdiff_t size
) except -1 nogil

cdef inline int elu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil:
    return run(ELU, DO_FORWARD, NULL, x, out, n, alpha, sizeof(real))

cdef inline int selu_array(const real* x, real* out, ptrdiff_t n) except -1 nogil:
    return run(SELU, DO_FORWARD, NULL, x, out, n, 1, sizeof(real))

cdef inline int celu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil:
    return run(CELU, DO_FORWARD, NULL, x, out, n, alpha, sizeof(real))

cdef inline int elu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil:
    return run(ELU, DO_FROM_OUTPUT if from_output else DO_BACKWARD, grad, x, out, n, alpha, sizeof(real))

cdef inline int selu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, bint from_output
) except -1 nogil:
    return run(SELU, DO_FROM_OUTPUT if from_output else DO_BACKWARD, grad, x, out, n, 1, sizeof(real))

cdef inline int celu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil:
    return run(CELU, DO_FROM_OUTPUT if from_output else DO_BACKWARD, grad, x, out, n, alpha, sizeof(real))
