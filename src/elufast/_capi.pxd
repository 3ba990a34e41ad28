from elufast._elu cimport Family, Mode

ctypedef fused real:
    float
    double

cdef int run(
    Family family, Mode mode, const real* grad, const real* x, real* out, ptrdiff_t n, double alpha
) except -1 nogil

cdef int elu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil
cdef int selu_array(const real* x, real* out, ptrdiff_t n) except -1 nogil
cdef int celu_array(const real* x, real* out, ptrdiff_t n, double alpha) except -1 nogil

cdef int elu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil
cdef int selu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, bint from_output
) except -1 nogil
cdef int celu_backward_array(
    const real* grad, const real* x, real* out, ptrdiff_t n, double alpha, bint from_output
) except -1 nogil
